#include "machine.h"

#include <stddef.h>

// Compilers call these for what they make of loops and structures, also without a library.
void* memset(void* to, int value, size_t bytes) {
  void* place = to;
  __asm__ volatile("rep stosb" : "+D"(place), "+c"(bytes) : "a"(value) : "memory");
  return to;
}
void* memcpy(void* to, const void* from, size_t bytes) {
  void* place = to;
  __asm__ volatile("rep movsb" : "+D"(place), "+S"(from), "+c"(bytes) : : "memory");
  return to;
}

// ---- The first instructions, and the exceptions. The loader has mapped the first 4 GiB.

__asm__(
    ".pushsection .text.start, \"ax\"\n"
    ".globl bare_start\n"
    "bare_start:\n"
    "  cli\n"
    "  cld\n"
    "  leaq stack+65536(%rip), %rsp\n"
    "  movq %rsi, %rdi\n"
    "  call bare_main\n"
    "  ud2\n"
    // A general protection fault of the one WRMSR or RDMSR that expects it: both are two bytes
    // long.
    "general_protection:\n"
    "  cmpl $0, fault_expected(%rip)\n"
    "  je exception\n"
    "  addq $8, %rsp\n"
    "  movl $1, fault_seen(%rip)\n"
    "  addq $2, (%rsp)\n"
    "  iretq\n"
    "exception:\n"
    "  movq (%rsp), %rdi\n"
    "  movq 8(%rsp), %rsi\n"
    "  andq $-16, %rsp\n"
    "  call bare_exception\n"
    ".popsection\n");

extern void general_protection(void);
extern void exception(void);

__attribute__((used)) uint8_t stack[65536] __attribute__((aligned(16)));
volatile uint32_t fault_expected;
volatile uint32_t fault_seen;

struct gate {
  uint16_t low;
  uint16_t selector;
  uint16_t type;
  uint16_t middle;
  uint32_t high;
  uint32_t reserved;
};
static struct gate gates[32];

static void set_gate(uint32_t vector, void (*handler)(void)) {
  const uint64_t address = (uint64_t)handler;
  gates[vector] = (struct gate){.low = (uint16_t)address,
                                .selector = 0x10,
                                .type = 0x8E00,
                                .middle = (uint16_t)(address >> 16),
                                .high = (uint32_t)(address >> 32)};
}

__attribute__((used, noreturn)) void bare_exception(uint64_t first, uint64_t second) {
  print("exception, stack ");
  print_hexadecimal(first);
  print(" ");
  print_hexadecimal(second);
  fail(": exception", 0);
}

__attribute__((used)) void bare_main(const uint8_t* boot_params) {
  for (uint32_t vector = 0; vector < 32; ++vector) set_gate(vector, exception);
  set_gate(13, general_protection);
  struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
  } table = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lidt %0" : : "m"(table));
  uint32_t command_line;
  copy_bytes(&command_line, boot_params + 0x228, sizeof command_line);
  guest_main((const char*)(uint64_t)command_line);
  power_off();
}

// ---- Ports

static void out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

void print(const char* text) {
  for (; *text != 0; ++text) out8(0x3F8, (uint8_t)*text);
}

void print_number(uint64_t number) {
  char text[21];
  uint32_t at = sizeof text - 1;
  text[at] = 0;
  do {
    text[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number != 0);
  print(text + at);
}

void print_hexadecimal(uint64_t number) {
  print("0x");
  for (int shift = 60; shift >= 0; shift -= 4) {
    const char digit[2] = {"0123456789abcdef"[number >> shift & 15], 0};
    if (number >> shift != 0 || shift == 0) print(digit);
  }
}

bool key_pressed(void) {
  uint8_t status;
  __asm__ volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)0x3FD));
  return (status & 1) != 0;
}

void power_off(void) {
  out8(0x605, 5 << 2 | 1 << 5);
  for (;;) __asm__ volatile("hlt");
}

void fail(const char* what, uint64_t number) {
  print("FAILED: ");
  print(what);
  print(" ");
  print_hexadecimal(number);
  print("\n");
  out8(0x64, 0xFE);
  for (;;) __asm__ volatile("hlt");
}

// ---- Memory, options, chance

void copy_bytes(void* to, const void* from, uint32_t count) {
  uint64_t bytes = count;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

void fill_bytes(void* to, uint8_t with, uint32_t count) {
  uint64_t bytes = count;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(with) : "memory");
}

bool same_bytes(const void* one, const void* other, uint32_t count) {
  bool same = false;
  uint64_t bytes = count;
  __asm__ volatile("repe cmpsb" : "=@ccz"(same), "+D"(one), "+S"(other), "+c"(bytes) : : "memory");
  return same;
}

uint64_t option(const char* command_line, const char* name, uint64_t otherwise) {
  for (const char* at = command_line; *at != 0; ++at) {
    uint32_t length = 0;
    while (name[length] != 0 && at[length] == name[length]) ++length;
    if (name[length] != 0 || at[length] != '=') continue;
    uint64_t value = 0;
    for (at += length + 1; *at >= '0' && *at <= '9'; ++at)
      value = value * 10 + (uint64_t)(*at - '0');
    return value;
  }
  return otherwise;
}

static uint64_t random_state;
void seed_random(uint64_t seed) { random_state = seed * 0x9E3779B97F4A7C15ull + 1; }
uint64_t random_number(void) {
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545F4914F6CDD1Dull;
}
uint32_t random_below(uint32_t limit) { return (uint32_t)((random_number() >> 32) % limit); }
bool one_in(uint32_t chances) { return random_below(chances) == 0; }
void random_bytes(void* to, uint32_t count) {
  uint8_t* bytes = to;
  for (; count >= 8; count -= 8, bytes += 8) *(uint64_t*)bytes = random_number();
  for (uint64_t number = random_number(); count > 0; --count, number >>= 8)
    *bytes++ = (uint8_t)number;
}

uint64_t cycles(void) {
  uint32_t low;
  uint32_t high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

// ---- Hyper-V's registers

bool write_msr(uint32_t index, uint64_t value) {
  fault_seen = 0;
  fault_expected = 1;
  __asm__ volatile("wrmsr"
                   :
                   : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
  fault_expected = 0;
  return fault_seen == 0;
}

bool read_msr(uint32_t index, uint64_t* value) {
  uint32_t low = 0;
  uint32_t high = 0;
  fault_seen = 0;
  fault_expected = 1;
  __asm__ volatile("rdmsr" : "+a"(low), "+d"(high) : "c"(index) : "memory");
  fault_expected = 0;
  *value = (uint64_t)high << 32 | low;
  return fault_seen == 0;
}

static uint8_t hypercall_page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
uint8_t message_page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
uint8_t event_page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));

void set_up_hyperv(void) {
  const uint64_t vector = 0x40;
  const bool is_set = write_msr(MSR_GUEST_OS_ID, 0x8100ull << 48 | 1) &&
                      write_msr(MSR_HYPERCALL, (uint64_t)hypercall_page | 1) &&
                      write_msr(MSR_SIMP, (uint64_t)message_page | 1) &&
                      write_msr(MSR_SIEFP, (uint64_t)event_page | 1) &&
                      write_msr(MSR_SINT2, vector) && write_msr(MSR_SCONTROL, 1);
  if (!is_set) fail("Hyper-V's registers cannot be set", 0);
}

uint64_t hypercall(uint64_t control, uint64_t input, uint64_t output) {
  register uint64_t r8 __asm__("r8") = output;
  uint64_t result;
  __asm__ volatile("call *%[page]"
                   : "=a"(result), "+c"(control), "+d"(input), "+r"(r8)
                   : [page] "r"(hypercall_page)
                   : "memory", "cc", "r9", "r10", "r11");
  return result;
}

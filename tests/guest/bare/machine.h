// The machine that a guest without an operating system runs on: its one processor, its serial port,
// and what Hyper-V adds to it. No interrupts; everything is polled.
#ifndef KMCL_TESTS_BARE_MACHINE_H
#define KMCL_TESTS_BARE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

enum {
  MSR_GUEST_OS_ID = 0x40000000,
  MSR_HYPERCALL = 0x40000001,
  MSR_SCONTROL = 0x40000080,
  MSR_SIEFP = 0x40000082,
  MSR_SIMP = 0x40000083,
  MSR_EOM = 0x40000084,
  MSR_SINT2 = 0x40000092,
};

// Where the program begins; it does not return. `command_line` is the boot loader's.
void guest_main(const char* command_line);

// "name=N" of the command line; `otherwise` when it is not there.
uint64_t option(const char* command_line, const char* name, uint64_t otherwise);

// On the serial port.
void print(const char* text);
void print_number(uint64_t number);
void print_hexadecimal(uint64_t number);
bool key_pressed(void);

__attribute__((noreturn)) void power_off(void);
// Something is not as it must be: says so, and resets the machine, which is an end of another kind.
__attribute__((noreturn)) void fail(const char* what, uint64_t number);

// A reproducible sequence.
void seed_random(uint64_t seed);
uint64_t random_number(void);
uint32_t random_below(uint32_t limit);
bool one_in(uint32_t chances);
void random_bytes(void* to, uint32_t count);

// Cycles of the processor, about; only for giving up.
uint64_t cycles(void);
#define CYCLES_TO_GIVE_UP (200ull * 1000 * 1000 * 1000)

void copy_bytes(void* to, const void* from, uint32_t count);
void fill_bytes(void* to, uint8_t with, uint32_t count);
bool same_bytes(const void* one, const void* other, uint32_t count);

// False when the processor answered with an exception.
bool write_msr(uint32_t index, uint64_t value);
bool read_msr(uint32_t index, uint64_t* value);

// Makes the hypercall page and the pages of the interrupt controller what they have to be, from
// whatever they were.
void set_up_hyperv(void);
uint64_t hypercall(uint64_t control, uint64_t input, uint64_t output);

extern uint8_t message_page[PAGE_BYTES];
extern uint8_t event_page[PAGE_BYTES];

#endif

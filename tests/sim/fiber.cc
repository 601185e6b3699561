#include "fiber.h"

#include <cxxabi.h>
#include <link.h>
#include <sys/mman.h>

#include <bitset>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// A switch saves what a function has to keep for its caller; everything else the compiler has saved
// around the call.
extern "C" void kmcl_sim_switch(void** from, void* to);
asm(R"(
.text
.globl kmcl_sim_switch
.type kmcl_sim_switch, @function
kmcl_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kmcl_sim_switch, . - kmcl_sim_switch
)");

namespace kmcl::sim {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kGuardBytes = 4096;

std::byte* stacks = nullptr;
std::bitset<kMostFibers> guarded;  // stacks with a page below that nobody may touch
// The program's thread-local variables: where they stand, and what a new thread finds there.
std::byte* thread_locals = nullptr;
std::size_t thread_local_bytes = 0;
const std::byte* first_values = nullptr;
std::size_t first_value_bytes = 0;

// The beginning of __cxa_eh_globals: exceptions that are being handled, and how many are in flight.
void** Exceptions() { return reinterpret_cast<void**>(abi::__cxa_get_globals()); }

int FindThreadLocals(dl_phdr_info* object, std::size_t, void*) {
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = object->dlpi_phdr[i];
    if (part.p_type != PT_TLS) continue;
    thread_locals = static_cast<std::byte*>(object->dlpi_tls_data);
    thread_local_bytes = part.p_memsz;
    first_values = reinterpret_cast<const std::byte*>(object->dlpi_addr + part.p_vaddr);
    first_value_bytes = part.p_filesz;
  }
  return 1;  // the program is the first object, and only its variables are the library's
}

}  // namespace

void PrepareFibers() {
  dl_iterate_phdr(FindThreadLocals, nullptr);
  if (thread_local_bytes > kMostThreadLocalBytes) {
    std::fprintf(stderr, "too many thread-local variables: %zu bytes\n", thread_local_bytes);
    std::exit(2);
  }
  const std::size_t bytes = kMostFibers * (kStackBytes + kGuardBytes);
  void* const place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) {
    std::perror("no memory for stacks");
    std::exit(2);
  }
  stacks = static_cast<std::byte*>(place);
}

void StartFiber(Fiber& fiber, void (*run)()) {
  fiber.thread_locals.fill(std::byte{0});
  std::memcpy(fiber.thread_locals.data(), first_values, first_value_bytes);
  fiber.exceptions[0] = fiber.exceptions[1] = nullptr;
  fiber.error_number = 0;
  // Those of stacks that nobody has had yet are not there: each is one more for fork() to copy.
  if (!guarded[fiber.id]) {
    guarded[fiber.id] = true;
    mprotect(stacks + fiber.id * (kStackBytes + kGuardBytes), kGuardBytes, PROT_NONE);
  }
  auto** top = reinterpret_cast<void**>(stacks + (fiber.id + 1) * (kStackBytes + kGuardBytes));
  *--top = nullptr;  // a function expects its stack to be 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(run);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
}

void SwitchFiber(Fiber& from, Fiber& to) {
  void** const exceptions = Exceptions();
  from.exceptions[0] = exceptions[0];
  from.exceptions[1] = exceptions[1];
  from.error_number = errno;
  std::memcpy(from.thread_locals.data(), thread_locals, thread_local_bytes);
  std::memcpy(thread_locals, to.thread_locals.data(), thread_local_bytes);
  exceptions[0] = to.exceptions[0];
  exceptions[1] = to.exceptions[1];
  errno = to.error_number;
  kmcl_sim_switch(&from.stack_pointer, to.stack_pointer);
}

}  // namespace kmcl::sim

#include "allocation_faults.h"

#include <cstdlib>
#include <new>

namespace kmcl::contract {

namespace {

thread_local bool failing = false;
thread_local std::size_t left = 0;
thread_local std::size_t refusals = 0;

void* Allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (failing) {
    if (left == 0) {
      ++refusals;
      return nullptr;
    }
    --left;
  }
  const std::size_t wanted = bytes == 0 ? 1 : bytes;
  return alignment <= alignof(std::max_align_t)
             ? std::malloc(wanted)
             : std::aligned_alloc(alignment, (wanted + alignment - 1) / alignment * alignment);
}

void* AllocateOrThrow(std::size_t bytes, std::size_t alignment) {
  void* const memory = Allocate(bytes, alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

AllocationFaults::AllocationFaults(std::size_t served) {
  left = served;
  refusals = 0;
  failing = true;
}

AllocationFaults::~AllocationFaults() { failing = false; }

std::size_t AllocationFaults::refused() { return refusals; }

}  // namespace kmcl::contract

// All that the standard library would otherwise define, so that memory is freed as it was made.
void* operator new(std::size_t bytes) { return kmcl::contract::AllocateOrThrow(bytes, 0); }
void* operator new[](std::size_t bytes) { return kmcl::contract::AllocateOrThrow(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return kmcl::contract::AllocateOrThrow(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return kmcl::contract::AllocateOrThrow(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return kmcl::contract::Allocate(bytes, 0);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return kmcl::contract::Allocate(bytes, 0);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return kmcl::contract::Allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment,
                     const std::nothrow_t&) noexcept {
  return kmcl::contract::Allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}

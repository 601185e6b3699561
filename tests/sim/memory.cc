#include "memory.h"

#include <execinfo.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "scheduler.h"

namespace kmcl::sim {

std::byte* heap = nullptr;
std::uint8_t* freed = nullptr;

namespace {

struct Header {
  std::uint32_t size_class;
  std::uint32_t bytes;
  std::uint64_t number : 47;  // of the allocation; the next free block's place while it is free
  std::uint64_t alive : 1;
  std::uint64_t process : 16;
  void* caller;
  void* caller_of_caller;
};
static_assert(sizeof(Header) == 32);

constexpr std::size_t kClasses = 64 + 24;
// Freed blocks of a size that wait before one is used again, so that a late access is seen.
constexpr std::uint32_t kQuarantine = 32;
constexpr std::uint64_t kNone = (std::uint64_t{1} << 47) - 1;

struct Queue {
  std::uint64_t first = kNone;
  std::uint64_t last = kNone;
  std::uint32_t count = 0;
};
std::array<Queue, kClasses> queues;
std::size_t used_bytes = 0;
std::size_t kept_bytes = 0;
std::array<Living, kMostProcesses> living;
std::uint64_t allocations = 0;
std::uint64_t most_living_bytes = UINT64_MAX;

std::uint32_t fail_skip = 0;
std::uint32_t fail_count = 0;
std::uint64_t failed = 0;

std::uint32_t ClassOf(std::size_t bytes) {
  if (bytes <= 1024) return static_cast<std::uint32_t>((bytes + 15) / 16 - (bytes != 0 ? 1 : 0));
  return static_cast<std::uint32_t>(64 + std::bit_width(bytes - 1) - 11);
}
std::size_t BytesOf(std::uint32_t size_class) {
  if (size_class < 64) return (size_class + std::size_t{1}) * 16;
  return std::size_t{1} << (size_class - 64 + 11);
}

bool FailsNow() {
  // Those of its own threads are not optional (docs/decisions/006).
  if (fail_count == 0 || Current().of_library) return false;
  if (fail_skip != 0) {
    --fail_skip;
    return false;
  }
  --fail_count;
  ++failed;
  Note("an allocation fails");
  return true;
}

Header* HeaderOf(void* block) { return reinterpret_cast<Header*>(block) - 1; }

void Mark(void* block, std::size_t bytes, std::uint8_t value) {
  const auto grain = static_cast<std::size_t>(static_cast<std::byte*>(block) - heap) / kGrainBytes;
  std::memset(freed + grain, value, (bytes + kGrainBytes - 1) / kGrainBytes);
}

void* Allocate(std::size_t bytes, void* caller, void* caller_of_caller) {
  const std::uint32_t size_class = ClassOf(bytes);
  if (size_class >= kClasses) return nullptr;
  Queue& queue = queues[size_class];
  Header* header = nullptr;
  if (queue.count > kQuarantine) {
    header = reinterpret_cast<Header*>(heap + queue.first);
    queue.first = header->number;
    --queue.count;
  } else {
    const std::size_t room = sizeof(Header) + BytesOf(size_class);
    if (used_bytes + room > kHeapBytes) return nullptr;
    header = reinterpret_cast<Header*>(heap + used_bytes);
    used_bytes += room;
    header->size_class = size_class;
  }
  header->bytes = static_cast<std::uint32_t>(bytes);
  header->number = ++allocations;
  header->alive = 1;
  header->process = Current().process;
  header->caller = caller;
  header->caller_of_caller = caller_of_caller;
  ++living[header->process].blocks;
  Living& held = living[header->process];
  held.bytes += bytes;
  held.most_bytes = std::max(held.most_bytes, held.bytes);
  if (held.bytes > most_living_bytes && header->process != kWorldProcess) {
    Fail("process %u holds %llu bytes in %llu blocks", header->process,
         static_cast<unsigned long long>(held.bytes), static_cast<unsigned long long>(held.blocks));
  }
  Mark(header + 1, BytesOf(size_class), 0);
  // Whoever reads what it did not write shall not find zeros by luck.
  std::memset(header + 1, 0xA5, std::min<std::size_t>(bytes, 256));
  return header + 1;
}

bool IsOurs(const void* block) {
  return static_cast<std::size_t>(static_cast<const std::byte*>(block) - heap) < kHeapBytes;
}

void Free(void* block) {
  Header& header = *HeaderOf(block);
  if (header.alive == 0) Fail("freed twice: a block of %u bytes", header.bytes);
  // Its owner's last stores into it have to be there before somebody else owns it.
  FlushStores();
  header.alive = 0;
  --living[header.process].blocks;
  living[header.process].bytes -= header.bytes;
  std::memset(block, 0xDD, std::min<std::size_t>(header.bytes, 256));
  Mark(block, BytesOf(header.size_class), 1);
  Queue& queue = queues[header.size_class];
  const auto place = static_cast<std::uint64_t>(reinterpret_cast<std::byte*>(&header) - heap);
  header.number = kNone;
  if (queue.count == 0) {
    queue.first = place;
  } else {
    reinterpret_cast<Header*>(heap + queue.last)->number = place;
  }
  queue.last = place;
  ++queue.count;
}

void* New(std::size_t bytes, std::size_t alignment, void* caller, void* caller_of_caller) {
  if (heap == nullptr || !Current().in_library || alignment > kGrainBytes) {
    return alignment > kGrainBytes
               ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
               : std::malloc(bytes == 0 ? 1 : bytes);
  }
  if (FailsNow()) return nullptr;
  return Allocate(bytes, caller, caller_of_caller);
}

void Delete(void* block) {
  if (block == nullptr) return;
  if (IsOurs(block)) return Free(block);
  std::free(block);
}

void AppendSymbol(std::string& text, void* address) {
  char** const name = backtrace_symbols(&address, 1);
  if (name == nullptr) return;
  text += std::string(" ") + name[0];
  std::free(name);
}

}  // namespace

void PrepareMemory() {
  // A place of its own, so that it is the same in every process.
  constexpr std::uintptr_t kPlace = 0x200000000000;
  void* const place =
      mmap(reinterpret_cast<void*>(kPlace), kHeapBytes + kHeapBytes / kGrainBytes,
           PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (place == MAP_FAILED) {
    std::perror("no memory for the heap");
    std::exit(2);
  }
  freed = static_cast<std::uint8_t*>(place) + kHeapBytes;
  heap = static_cast<std::byte*>(place);
}

void FailFreedAccess(const void* address) {
  void* frames[12];
  const int count = backtrace(frames, 12);
  std::string text;
  for (int i = 2; i < count; ++i) {
    AppendSymbol(text, frames[i]);
    text += "\n";
  }
  Fail("memory is used that was freed (%#zx of the heap):\n%s",
       static_cast<std::size_t>(static_cast<const std::byte*>(address) - heap), text.c_str());
}

void LimitMemory(std::uint64_t bytes) { most_living_bytes = bytes; }

Living LivingMemory(std::uint32_t process) { return living[process]; }
void KeepMemory() {
  for (std::size_t place = 0; place < used_bytes;) {
    auto& header = *reinterpret_cast<Header*>(heap + place);
    place += sizeof(Header) + BytesOf(header.size_class);
    if (header.alive == 0 || header.process == kWorldProcess) continue;
    --living[header.process].blocks;
    living[header.process].bytes -= header.bytes;
    header.process = kWorldProcess;
    ++living[kWorldProcess].blocks;
    living[kWorldProcess].bytes += header.bytes;
  }
  kept_bytes = used_bytes;
}
bool IsKept(const void* address) {
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - heap);
  return offset >= kHeapBytes || offset < kept_bytes;
}

std::string DescribeLeaks(std::uint32_t process) {
  std::string text;
  int lines = 0;
  for (std::size_t place = 0; place < used_bytes && lines < 12;) {
    const auto& header = *reinterpret_cast<const Header*>(heap + place);
    if (header.alive != 0 && header.process == process) {
      text += "  " + std::to_string(header.bytes) + " bytes:";
      AppendSymbol(text, header.caller);
      AppendSymbol(text, header.caller_of_caller);
      text += "\n";
      ++lines;
    }
    place += sizeof(Header) + BytesOf(header.size_class);
  }
  return text;
}

void FailAllocations(std::uint32_t skip, std::uint32_t count) {
  fail_skip = skip;
  fail_count = count;
}
std::uint64_t FailedAllocations() { return failed; }

}  // namespace kmcl::sim

using kmcl::sim::Delete;
using kmcl::sim::New;

namespace {

void* NewOrThrow(std::size_t bytes, std::size_t alignment, void* caller, void* caller_of_caller) {
  void* const block = New(bytes, alignment, caller, caller_of_caller);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace

#define KMCL_SIM_CALLERS __builtin_return_address(0), nullptr

void* operator new(std::size_t bytes) { return NewOrThrow(bytes, 1, KMCL_SIM_CALLERS); }
void* operator new[](std::size_t bytes) { return NewOrThrow(bytes, 1, KMCL_SIM_CALLERS); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return New(bytes, 1, KMCL_SIM_CALLERS);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return New(bytes, 1, KMCL_SIM_CALLERS);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return NewOrThrow(bytes, static_cast<std::size_t>(alignment), KMCL_SIM_CALLERS);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return NewOrThrow(bytes, static_cast<std::size_t>(alignment), KMCL_SIM_CALLERS);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return New(bytes, static_cast<std::size_t>(alignment), KMCL_SIM_CALLERS);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment,
                     const std::nothrow_t&) noexcept {
  return New(bytes, static_cast<std::size_t>(alignment), KMCL_SIM_CALLERS);
}
void operator delete(void* block) noexcept { Delete(block); }
void operator delete[](void* block) noexcept { Delete(block); }
void operator delete(void* block, std::size_t) noexcept { Delete(block); }
void operator delete[](void* block, std::size_t) noexcept { Delete(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { Delete(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { Delete(block); }
void operator delete(void* block, std::align_val_t) noexcept { Delete(block); }
void operator delete[](void* block, std::align_val_t) noexcept { Delete(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { Delete(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { Delete(block); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  Delete(block);
}
void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  Delete(block);
}

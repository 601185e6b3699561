#include "corruption.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernel.h"
#include "scheduler.h"

namespace kmcl::sim {
namespace {

constexpr std::size_t kPageBytes = 4096;

std::uint32_t forging_process = 0;
std::uint32_t forging_left = 0;
std::vector<std::byte> kept_back;

// Words that are near to being right are the more dangerous ones.
std::uint32_t Word(std::uint32_t before) {
  Random& random = Choices();
  switch (random.Between(0, 6)) {
    case 0:
      return 0;
    case 1:
      return 0xFFFFFFFF;
    case 2:
      return before ^ 1u << random.Between(0, 31);
    case 3:
      return before + 8;
    case 4:
      return before - 8;
    case 5:
      return random.Between(0, 16) * 4096;
    default:
      return static_cast<std::uint32_t>(random.Next());
  }
}

void Scribble(std::byte* memory, std::size_t bytes) {
  Random& random = Choices();
  const std::size_t page = random.Next() % (bytes / kPageBytes);
  // Control words stand at a page's beginning; descriptors stand at multiples of 8.
  const std::size_t offset = random.OneIn(2)   ? random.Between(0, 4) * std::size_t{4}
                             : random.OneIn(2) ? random.Between(0, 511) * std::size_t{8}
                                               : random.Between(0, 1023) * std::size_t{4};
  auto* const word = reinterpret_cast<std::uint32_t*>(memory + page * kPageBytes + offset);
  __atomic_store_n(word, Word(*word), __ATOMIC_SEQ_CST);
}

}  // namespace

void CorruptMemory(std::uint32_t process, std::uint32_t count) {
  const std::vector<int> shared = MemoryOf(process);
  for (std::uint32_t i = 0; i < count && !shared.empty(); ++i) {
    const int fd = shared[Choices().Next() % shared.size()];
    struct stat status {};
    if (fstat(fd, &status) != 0 || status.st_size < static_cast<off_t>(kPageBytes)) continue;
    const auto bytes = static_cast<std::size_t>(status.st_size);
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) continue;
    const std::uint32_t burst = Choices().Between(1, 4);
    for (std::uint32_t each = 0; each < burst; ++each) {
      Scribble(static_cast<std::byte*>(memory), bytes);
    }
    munmap(memory, bytes);
    Note("%llu words of process %llu's memory are overwritten", burst, process);
    WaitUntil([] { return false; }, NowNs() + Choices().Between(0, 30'000), "the next corruption");
  }
}

void ForgeMessages(std::uint32_t process, std::uint32_t count) {
  forging_process = process;
  forging_left = count;
}

void StopCorruption() {
  forging_left = 0;
  kept_back.clear();
}

std::vector<std::vector<std::byte>> Forged(std::uint32_t process,
                                           std::span<const std::byte> bytes) {
  std::vector<std::vector<std::byte>> sent;
  std::vector<std::byte> message(bytes.begin(), bytes.end());
  Random& random = Choices();
  if (forging_left == 0 || process != forging_process || random.OneIn(2)) {
    sent.push_back(std::move(message));
    return sent;
  }
  --forging_left;
  const std::uint32_t how = random.Between(0, 6);
  Note("a message is forged (manner %llu)", how);
  switch (how) {
    case 0:  // not sent
      return sent;
    case 1:
      sent.push_back(message);
      break;
    case 2:
      message.resize(random.Between(1, static_cast<std::uint32_t>(message.size())));
      break;
    case 3:
      kept_back.swap(message);
      if (message.empty()) return sent;
      break;
    case 4:
      message.resize(message.size() + random.Between(1, 64), std::byte{0xEE});
      break;
    default: {
      const std::size_t words = message.size() / 4;
      if (words == 0) break;
      const std::size_t at = random.Next() % words * 4;
      std::uint32_t word = 0;
      std::memcpy(&word, &message[at], 4);
      word = Word(word);
      std::memcpy(&message[at], &word, 4);
    }
  }
  sent.push_back(std::move(message));
  return sent;
}

}  // namespace kmcl::sim

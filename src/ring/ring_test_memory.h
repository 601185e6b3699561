// Test helper: pages for a ring, with pages that must not be touched around each part, and plain
// access to the words in them for tests that put a ring into a corner.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "ring/ring_pages.h"

namespace kmcl::ring {

enum class Mapped { kOnce, kTwice };

inline constexpr std::size_t kTestPageBytes = 4096;

// [guard | control | guard | data (| data) | guard]
class RingMemory {
 public:
  RingMemory(std::uint32_t data_bytes, Mapped mapped) : data_bytes_(data_bytes), mapped_(mapped) {
    const std::size_t copies = mapped == Mapped::kTwice ? 2 : 1;
    whole_bytes_ = 4 * kTestPageBytes + copies * data_bytes;
    const int fd = memfd_create("ring_test", MFD_CLOEXEC);
    Require(fd >= 0 && ftruncate(fd, static_cast<off_t>(kTestPageBytes + data_bytes)) == 0);
    void* const whole =
        mmap(nullptr, whole_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Require(whole != MAP_FAILED);
    whole_ = static_cast<std::byte*>(whole);
    control_ = whole_ + kTestPageBytes;
    data_ = control_ + 2 * kTestPageBytes;
    Map(fd, control_, kTestPageBytes, 0);
    for (std::size_t i = 0; i < copies; ++i) {
      Map(fd, data_ + i * data_bytes, data_bytes, kTestPageBytes);
    }
    close(fd);
  }
  ~RingMemory() { munmap(whole_, whole_bytes_); }
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;

  RingPages pages() const {
    return {.control = control_,
            .data = data_,
            .data_bytes = data_bytes_,
            .mapped_bytes = mapped_ == Mapped::kTwice ? 2 * data_bytes_ : data_bytes_};
  }
  std::uint32_t data_bytes() const { return data_bytes_; }
  std::byte* data() const { return data_; }

  std::uint32_t word(std::size_t offset) const {
    std::uint32_t value;
    std::memcpy(&value, control_ + offset, sizeof(value));
    return value;
  }
  void set_word(std::size_t offset, std::uint32_t value) {
    std::memcpy(control_ + offset, &value, sizeof(value));
  }
  void set_indices(std::uint32_t write, std::uint32_t read) {
    set_word(kWriteIndex, write);
    set_word(kReadIndex, read);
  }

  // The bytes at `index` and behind it, over the end of the area if need be.
  std::vector<unsigned> bytes(std::uint32_t index, std::uint32_t count) const {
    std::vector<unsigned> result;
    for (std::uint32_t i = 0; i < count; ++i) {
      result.push_back(std::to_integer<unsigned>(data_[(index + i) % data_bytes_]));
    }
    return result;
  }
  void set_bytes(std::uint32_t index, std::initializer_list<unsigned> values) {
    for (const unsigned value : values) {
      data_[index++ % data_bytes_] = static_cast<std::byte>(value);
    }
  }
  void Fill(unsigned value) { std::memset(data_, static_cast<int>(value), data_bytes_); }

  // Offsets in the control page, spelt out here so that the tests do not repeat the code's
  // mistakes.
  static constexpr std::size_t kWriteIndex = 0x00;
  static constexpr std::size_t kReadIndex = 0x04;
  static constexpr std::size_t kInterruptMask = 0x08;
  static constexpr std::size_t kPendingSend = 0x0C;
  static constexpr std::size_t kFeatureBits = 0x40;

 private:
  static void Require(bool condition) {
    if (condition) return;
    std::perror("ring test memory");
    std::abort();
  }
  static void Map(int fd, std::byte* at, std::size_t bytes, std::size_t offset) {
    Require(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                 static_cast<off_t>(offset)) == at);
  }

  std::uint32_t data_bytes_;
  Mapped mapped_;
  std::size_t whole_bytes_ = 0;
  std::byte* whole_ = nullptr;
  std::byte* control_ = nullptr;
  std::byte* data_ = nullptr;
};

inline std::vector<std::byte> TestBytes(std::size_t count, unsigned first = 1) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(first + i);
  return bytes;
}

}  // namespace kmcl::ring

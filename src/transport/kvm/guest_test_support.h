// What the tests of this folder share: a guest's memory without a guest, and hardware that writes
// down what it is asked for.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/descriptor.h"
#include "transport/kvm/guest_memory.h"
#include "transport/kvm/hardware.h"
#include "transport/kvm/signal_routes.h"

namespace kmcl::transport::kvm {

inline Descriptor MakeMemoryFile(std::uint64_t pages) {
  Descriptor file(memfd_create("kmcl-test-guest", MFD_CLOEXEC));
  EXPECT_TRUE(static_cast<bool>(file));
  EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(pages * wire::kPageBytes)), 0);
  return file;
}

inline std::vector<wire::PageNumber> PageNumbers(std::initializer_list<std::uint64_t> numbers) {
  std::vector<wire::PageNumber> pages;
  for (const std::uint64_t number : numbers) pages.push_back(wire::PageNumber{number});
  return pages;
}

// Pages 0 to 15, a hole, and pages 32 to 39, in one file; the upper slot stands first in it.
struct TestMemory {
  TestMemory() : file(MakeMemoryFile(24)) {
    const std::array slots{
        MemorySlot{.guest_address = 0, .bytes = 16 * 4096, .fd = file.get(), .offset = 8 * 4096},
        MemorySlot{.guest_address = 32 * 4096, .bytes = 8 * 4096, .fd = file.get(), .offset = 0}};
    auto made = GuestMemory::Create(slots);
    EXPECT_TRUE(made.has_value());
    memory = *std::move(made);
  }

  template <typename T>
  T& At(std::uint64_t address) {
    std::byte* const page = memory->Window(wire::PageNumber{address / 4096}, 1);
    EXPECT_NE(page, nullptr);
    return *reinterpret_cast<T*>(page + address % 4096);
  }

  Descriptor file;
  std::unique_ptr<GuestMemory> memory;
};

class FakeHardware final : public Hardware {
 public:
  void RaiseInterrupt(std::uint32_t processor, std::uint8_t vector) override {
    raised.emplace_back(processor, vector);
  }
  std::uint64_t TimeStamp(std::uint32_t) override { return time_stamp; }

  // What was raised since the last look.
  std::vector<std::pair<std::uint32_t, int>> TakeRaised() { return std::exchange(raised, {}); }

  std::vector<std::pair<std::uint32_t, int>> raised;
  std::uint64_t time_stamp = 0;
};

// Writes down which connections KVM would signal by themselves.
class FakeRoutes final : public SignalRoutes {
 public:
  bool Connect(std::uint32_t connection, int event) override {
    if (refuse) return false;
    EXPECT_TRUE(events.emplace(connection, event).second);
    return true;
  }
  void Disconnect(std::uint32_t connection) override { EXPECT_EQ(events.erase(connection), 1u); }

  bool refuse = false;
  std::map<std::uint32_t, int> events;
};

inline std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace kmcl::transport::kvm

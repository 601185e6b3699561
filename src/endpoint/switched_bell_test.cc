// A bell that is moved from processor to processor while others ring it.
#include "endpoint/switched_bell.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <semaphore>
#include <thread>

#include "transport/kvm/guest_bus.h"
#include "transport/kvm/guest_test_support.h"
#include "transport/kvm/synic.h"

namespace kmcl::endpoint {
namespace {

namespace kvm = transport::kvm;

constexpr std::uint32_t kProcessors = 2;
constexpr std::uint32_t kChannel = 5;

// Does what the test wants at each interrupt.
class WatchedHardware final : public kvm::Hardware {
 public:
  void RaiseInterrupt(std::uint32_t processor, std::uint8_t) override { on_interrupt(processor); }
  std::uint64_t TimeStamp(std::uint32_t) override { return 0; }
  std::function<void(std::uint32_t)> on_interrupt = [](std::uint32_t) {};
};

class SwitchedBellTest : public ::testing::Test {
 protected:
  SwitchedBellTest() {
    for (std::uint32_t processor = 0; processor < kProcessors; ++processor) {
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kSiefp, FlagPage(processor) + 1));
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kSint0 + 2, 0xF3));
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kScontrol, 1));
    }
    // A link comes with a message.
    guest.At<std::uint32_t>(0x1000) = 1;
    guest.At<std::uint32_t>(0x1008) = 1;
    EXPECT_EQ(bus->Call(0x5C, 0x1000), kvm::HypercallStatus::kSuccess);
    link = *listener->Accept();
    EXPECT_NE(link, nullptr);
    bell = std::make_unique<SwitchedBell>(link, wire::ChannelId{kChannel});
  }
  static std::uint64_t FlagPage(std::uint32_t processor) { return (8 + processor) * 4096; }
  // As a guest takes a signal: the next one is an interrupt again.
  bool TakeFlag(std::uint32_t processor) {
    std::atomic_ref flags(guest.At<std::uint64_t>(FlagPage(processor) + 0x200));
    return (flags.exchange(0) >> kChannel & 1) != 0;
  }

  kvm::TestMemory guest;
  WatchedHardware hardware;
  kvm::Synic synic{*guest.memory, hardware, kProcessors};
  std::shared_ptr<kvm::GuestBus> bus = *kvm::GuestBus::Create(*guest.memory, synic, kProcessors);
  std::unique_ptr<transport::Listener> listener = bus->Listen();
  std::shared_ptr<transport::Link> link;
  std::unique_ptr<SwitchedBell> bell;
};

TEST_F(SwitchedBellTest, RingsWhereItWasSwitchedTo) {
  bell->Ring();  // nowhere yet
  EXPECT_EQ(bell->Switch(wire::ProcessorIndex{kProcessors}).error(), Error::kFieldOutOfRange);
  for (const std::uint32_t processor : {0u, 1u, 0u}) {
    ASSERT_TRUE(bell->Switch(wire::ProcessorIndex{processor}).has_value());
    bell->Ring();
    EXPECT_TRUE(TakeFlag(processor));
    EXPECT_FALSE(TakeFlag(1 - processor));
  }
  ASSERT_TRUE(bell->Switch(wire::kNoInterrupt).has_value());
  bell->Ring();
  EXPECT_FALSE(TakeFlag(0) || TakeFlag(1));
}

TEST_F(SwitchedBellTest, ASwitchWaitsForWhoIsAboutToRing) {
  std::binary_semaphore entered{0};
  std::binary_semaphore go_on{0};
  hardware.on_interrupt = [&](std::uint32_t) {
    entered.release();
    go_on.acquire();
  };
  ASSERT_TRUE(bell->Switch(wire::ProcessorIndex{0}).has_value());
  std::thread ringer([&] { bell->Ring(); });
  entered.acquire();
  auto switched = std::async(std::launch::async,
                             [&] { return bell->Switch(wire::ProcessorIndex{1}).has_value(); });
  EXPECT_EQ(switched.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout);
  go_on.release();
  EXPECT_TRUE(switched.get());
  ringer.join();
}

// An answer to MODIFY_CHANNEL says that no interrupt comes to the old processor any more: it may be
// taken out of service, and a ring there would be lost.
TEST_F(SwitchedBellTest, NobodyRingsTheOldProcessorOnceItIsSwitched) {
  constexpr std::uint32_t kNone = 99;
  std::atomic<std::uint32_t> forbidden{kNone};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> rings{0};
  hardware.on_interrupt = [&](std::uint32_t processor) {
    if (processor == forbidden.load()) wrong.fetch_add(1);
    rings.fetch_add(1);
    TakeFlag(processor);
  };
  ASSERT_TRUE(bell->Switch(wire::ProcessorIndex{0}).has_value());
  std::atomic<bool> stop{false};
  const auto ring = [&] {
    while (!stop.load()) bell->Ring();
  };
  std::thread first(ring);
  std::thread second(ring);
  for (std::uint32_t round = 1; round <= 3000; ++round) {
    const std::uint32_t processor = round % kProcessors;
    forbidden.store(kNone);
    ASSERT_TRUE(bell->Switch(wire::ProcessorIndex{processor}).has_value());
    forbidden.store(1 - processor);
    if (round % 64 == 0) {
      const std::uint64_t before = rings.load();
      while (rings.load() == before) std::this_thread::yield();
    }
  }
  stop.store(true);
  first.join();
  second.join();
  EXPECT_EQ(wrong.load(), 0u);
}

}  // namespace
}  // namespace kmcl::endpoint

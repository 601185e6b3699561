#include "transport/kvm/synic.h"

#include "transport/kvm/guest_test_support.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint32_t kSint2 = msr::kSint0 + 2;
constexpr std::uint64_t kSlot = 4 * 4096 + 0x200;   // in the guest's SIM page
constexpr std::uint64_t kFlags = 5 * 4096 + 0x200;  // in its SIEF page
constexpr int kVector = 0xF3;

using Raised = std::vector<std::pair<std::uint32_t, int>>;

class SynicTest : public ::testing::Test {
 protected:
  // As Linux does it: pages, source, controller.
  void TurnOn(std::uint32_t processor = 0) {
    EXPECT_TRUE(synic.WriteRegister(processor, msr::kSimp, 4 * 4096 + 1));
    EXPECT_TRUE(synic.WriteRegister(processor, msr::kSiefp, 5 * 4096 + 1));
    EXPECT_TRUE(synic.WriteRegister(processor, kSint2, kVector));
    EXPECT_TRUE(synic.WriteRegister(processor, msr::kScontrol, 1));
  }

  std::uint32_t& type() { return guest.At<std::uint32_t>(kSlot); }
  std::uint8_t& slot_flags() { return guest.At<std::uint8_t>(kSlot + 5); }
  std::string payload() {
    const auto size = guest.At<std::uint8_t>(kSlot + 4);
    return {&guest.At<char>(kSlot + 16), size};
  }

  TestMemory guest;
  FakeHardware hardware;
  Synic synic{*guest.memory, hardware, 2};
};

TEST_F(SynicTest, RegistersBeginAsAfterPowerOn) {
  EXPECT_EQ(synic.ReadRegister(0, msr::kScontrol), 0u);
  EXPECT_EQ(synic.ReadRegister(0, msr::kSversion), 1u);
  EXPECT_EQ(synic.ReadRegister(1, kSint2), 0x10000u);
  EXPECT_EQ(synic.ReadRegister(0, msr::kEom), 0u);
  EXPECT_EQ(synic.ReadRegister(0, 0x400000B0), std::nullopt);  // no timers
  EXPECT_FALSE(synic.WriteRegister(0, 0x400000B0, 0));
  EXPECT_FALSE(synic.WriteRegister(0, msr::kSversion, 1));
}

TEST_F(SynicTest, RegistersKeepWhatWasWrittenForOneProcessor) {
  TurnOn(1);
  EXPECT_EQ(synic.ReadRegister(1, msr::kSimp), 4 * 4096 + 1u);
  EXPECT_EQ(synic.ReadRegister(1, msr::kSiefp), 5 * 4096 + 1u);
  EXPECT_EQ(synic.ReadRegister(1, kSint2), static_cast<std::uint64_t>(kVector));
  EXPECT_EQ(synic.ReadRegister(0, msr::kSimp), 0u);
  EXPECT_FALSE(synic.WriteRegister(1, kSint2, 15));  // vectors below 16 are the processor's
  EXPECT_TRUE(synic.WriteRegister(1, kSint2, 0x10000));
  synic.Reset();
  EXPECT_EQ(synic.ReadRegister(1, msr::kSimp), 0u);
  EXPECT_EQ(synic.ReadRegister(1, kSint2), 0x10000u);
}

TEST_F(SynicTest, AMessageIsPutIntoTheFreeSlotAndRaised) {
  TurnOn();
  synic.PostMessage(0, Bytes("hello"));
  EXPECT_EQ(type(), 1u);
  EXPECT_EQ(payload(), "hello");
  EXPECT_EQ(slot_flags(), 0);
  EXPECT_EQ(hardware.TakeRaised(), (Raised{{0, kVector}}));
}

TEST_F(SynicTest, MessagesKeepTheirOrderAndEachIsAskedFor) {
  TurnOn();
  for (int index = 0; index < 20; ++index) synic.PostMessage(0, Bytes(std::to_string(index)));
  EXPECT_EQ(synic.waiting_messages(0), 19u);
  EXPECT_EQ(hardware.TakeRaised().size(), 1u);
  for (int index = 0; index < 20; ++index) {
    EXPECT_EQ(payload(), std::to_string(index));
    const bool more = index < 19;
    EXPECT_EQ(slot_flags() & 1, more ? 1 : 0);
    type() = 0;
    if (!more) break;
    EXPECT_TRUE(synic.WriteRegister(0, msr::kEom, 0));
    EXPECT_EQ(hardware.TakeRaised(), (Raised{{0, kVector}}));
  }
  EXPECT_EQ(synic.waiting_messages(0), 0u);
}

TEST_F(SynicTest, AMessageWaitsUntilEverythingIsOn) {
  synic.PostMessage(0, Bytes("early"));
  EXPECT_TRUE(synic.WriteRegister(0, msr::kScontrol, 1));
  EXPECT_TRUE(synic.WriteRegister(0, kSint2, kVector));
  EXPECT_EQ(type(), 0u);
  EXPECT_TRUE(hardware.TakeRaised().empty());
  EXPECT_TRUE(synic.WriteRegister(0, msr::kSimp, 4 * 4096 + 1));
  EXPECT_EQ(payload(), "early");
  EXPECT_EQ(hardware.TakeRaised(), (Raised{{0, kVector}}));

  type() = 0;
  EXPECT_TRUE(synic.WriteRegister(0, kSint2, 0x10000 | kVector));
  synic.PostMessage(0, Bytes("masked"));
  EXPECT_EQ(type(), 0u);
  EXPECT_TRUE(synic.WriteRegister(0, kSint2, kVector));
  EXPECT_EQ(payload(), "masked");
}

TEST_F(SynicTest, AnEventFlagIsRaisedOnceUntilItIsTaken) {
  TurnOn();
  synic.SetEventFlag(0, 70);
  synic.SetEventFlag(0, 70);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags + 8), 1 << 6);
  EXPECT_EQ(hardware.TakeRaised(), (Raised{{0, kVector}}));
  guest.At<std::uint8_t>(kFlags + 8) = 0;
  synic.SetEventFlag(0, 70);
  EXPECT_EQ(hardware.TakeRaised().size(), 1u);
  synic.SetEventFlag(0, 2047);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags + 255), 0x80);
}

TEST_F(SynicTest, AnEarlyFlagIsRememberedAndForgotten) {
  synic.SetEventFlag(1, 3);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags), 0);
  TurnOn(1);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags), 1 << 3);
  EXPECT_EQ(hardware.TakeRaised(), (Raised{{1, kVector}}));

  synic.SetEventFlag(0, 5);
  synic.PostMessage(0, Bytes("stale"));
  synic.Forget();
  TurnOn(0);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags), 1 << 3);
  EXPECT_EQ(type(), 0u);
  EXPECT_TRUE(hardware.TakeRaised().empty());
}

TEST_F(SynicTest, APolledSourceIsServedWithoutInterrupts) {
  TurnOn();
  EXPECT_TRUE(synic.WriteRegister(0, kSint2, 0x40000 | kVector));
  synic.PostMessage(0, Bytes("polled"));
  synic.SetEventFlag(0, 1);
  EXPECT_EQ(payload(), "polled");
  EXPECT_TRUE(hardware.TakeRaised().empty());
}

TEST_F(SynicTest, AKvmWithRegistersOfItsOwnTellsOnlyThePages) {
  synic.PostMessage(1, Bytes("early"));
  synic.SetEventFlag(1, 9);
  synic.SetPages(1, 1, 4 * 4096 + 1, 0);
  EXPECT_EQ(payload(), "early");
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags + 1), 0);
  EXPECT_EQ(hardware.TakeRaised().size(), 1u);
  synic.SetPages(1, 1, 4 * 4096 + 1, 5 * 4096 + 1);
  EXPECT_EQ(guest.At<std::uint8_t>(kFlags + 1), 1 << 1);
  EXPECT_EQ(hardware.TakeRaised().size(), 1u);
  synic.SetPages(1, 0, 0, 0);
  synic.PostMessage(1, Bytes("late"));
  type() = 0;
  EXPECT_TRUE(synic.WriteRegister(1, msr::kEom, 0));
  EXPECT_EQ(type(), 0u);
}

TEST_F(SynicTest, PagesInAHoleTakeNothing) {
  TurnOn();
  EXPECT_TRUE(synic.WriteRegister(0, msr::kSimp, 20 * 4096 + 1));
  EXPECT_TRUE(synic.WriteRegister(0, msr::kSiefp, ~std::uint64_t{0}));
  synic.PostMessage(0, Bytes("nowhere"));
  synic.SetEventFlag(0, 1);
  EXPECT_TRUE(hardware.TakeRaised().empty());
  EXPECT_EQ(synic.waiting_messages(0), 1u);
}

}  // namespace
}  // namespace kmcl::transport::kvm

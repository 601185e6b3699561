#include "transport/kvm/guest_bus.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <random>
#include <thread>

#include "transport/kvm/acpi_table.h"
#include "transport/kvm/cpuid.h"
#include "transport/kvm/enlightenments.h"
#include "transport/kvm/guest_test_support.h"
#include "transport/test_support.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kInput = 0x1000;
constexpr std::uint32_t kSint2 = msr::kSint0 + 2;

class GuestBusTest : public ::testing::Test {
 protected:
  GuestBusTest() {
    auto made = GuestBus::Create(*guest.memory, synic, 4);
    EXPECT_TRUE(made.has_value());
    bus = *std::move(made);
    for (std::uint32_t processor = 0; processor < 4; ++processor) {
      // Each has pages of its own.
      EXPECT_TRUE(synic.WriteRegister(processor, msr::kSimp, (4 + processor) * 4096 + 1));
      EXPECT_TRUE(synic.WriteRegister(processor, msr::kSiefp, (8 + processor) * 4096 + 1));
      EXPECT_TRUE(synic.WriteRegister(processor, kSint2, 0xF3));
      EXPECT_TRUE(synic.WriteRegister(processor, msr::kScontrol, 1));
    }
  }

  HypercallStatus Post(const std::string& text, std::uint32_t connection = 1) {
    guest.At<std::uint32_t>(kInput) = connection;
    guest.At<std::uint32_t>(kInput + 8) = 1;
    guest.At<std::uint32_t>(kInput + 12) = static_cast<std::uint32_t>(text.size());
    std::memcpy(&guest.At<char>(kInput + 16), text.data(), text.size());
    return bus->Call(0x5C, kInput);
  }
  HypercallStatus Signal(std::uint32_t connection) { return bus->Call(0x1005D, connection); }

  std::unique_ptr<Link> Accept() {
    auto accepted = listener->Accept();
    EXPECT_TRUE(accepted.has_value());
    return std::move(*accepted);
  }
  static std::string Next(Link& link) {
    std::array<std::byte, kMaximumMessageBytes> buffer;
    const ReceivedMessage received = link.Receive(buffer);
    if (received.status == ReceiveStatus::kGone) return "(gone)";
    if (received.status == ReceiveStatus::kNothing) return "(nothing)";
    return {reinterpret_cast<const char*>(buffer.data()), received.bytes};
  }
  std::uint32_t& SlotType(std::uint32_t processor) {
    return guest.At<std::uint32_t>((4 + processor) * 4096 + 0x200);
  }

  TestMemory guest;
  FakeHardware hardware;
  Synic synic{*guest.memory, hardware, 4};
  std::shared_ptr<GuestBus> bus;
  std::unique_ptr<Listener> listener;
};

TEST_F(GuestBusTest, TheFirstMessageIsAClient) {
  EXPECT_EQ(Post("nobody listens"), HypercallStatus::kInvalidConnection);
  listener = bus->Listen();
  EXPECT_EQ(Accept(), nullptr);
  EXPECT_FALSE(WaitFor(listener->fd(), POLLIN, 0));
  EXPECT_EQ(Post("first", 4), HypercallStatus::kSuccess);
  EXPECT_EQ(Post("second"), HypercallStatus::kSuccess);
  EXPECT_EQ(Post("elsewhere", 5), HypercallStatus::kInvalidConnection);
  EXPECT_TRUE(WaitFor(listener->fd(), POLLIN, 0));
  const auto link = Accept();
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(Accept(), nullptr);
  EXPECT_TRUE(link->ready());
  EXPECT_TRUE(WaitFor(link->message_fd(), POLLIN, 0));
  EXPECT_EQ(Next(*link), "first");
  EXPECT_EQ(Next(*link), "second");
  EXPECT_EQ(Next(*link), "(nothing)");
  EXPECT_FALSE(WaitFor(link->message_fd(), POLLIN, 0));
  EXPECT_EQ(Post("third"), HypercallStatus::kSuccess);
  EXPECT_TRUE(WaitFor(link->message_fd(), POLLIN, 0));
  EXPECT_EQ(Next(*link), "third");
}

TEST_F(GuestBusTest, AGuestThatIsTooFastIsToldToTryAgain) {
  listener = bus->Listen();
  std::size_t posted = 0;
  while (Post(std::to_string(posted)) == HypercallStatus::kSuccess) ++posted;
  EXPECT_EQ(posted, GuestSession::kMostMessages);
  EXPECT_EQ(Post("one more"), HypercallStatus::kInsufficientBuffers);
  const auto link = Accept();
  for (std::size_t index = 0; index < posted; ++index) {
    ASSERT_TRUE(WaitFor(link->message_fd(), POLLIN, 0)) << index;
    ASSERT_EQ(Next(*link), std::to_string(index));
  }
  EXPECT_EQ(Post("again"), HypercallStatus::kSuccess);
  EXPECT_EQ(Next(*link), "again");
}

TEST_F(GuestBusTest, AGuestThatTakesNoMessagesIsNotHeard) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  const auto link = Accept();
  // The first one stands in the slot.
  for (int index = 0; index <= 4096; ++index) ASSERT_TRUE(link->Send(Bytes("news")).has_value());
  EXPECT_EQ(Post("and?"), HypercallStatus::kInsufficientBuffers);
  SlotType(0) = 0;
  EXPECT_TRUE(synic.WriteRegister(0, msr::kEom, 0));
  EXPECT_EQ(Post("and?"), HypercallStatus::kSuccess);
}

TEST_F(GuestBusTest, MessagesGoWhereTheGuestWantsThem) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  const auto link = Accept();
  link->OnContact(wire::ProcessorIndex{2});
  ASSERT_TRUE(link->Send(Bytes("news")).has_value());
  EXPECT_EQ(SlotType(2), 1u);
  EXPECT_EQ(SlotType(0), 0u);
  link->OnContact(wire::ProcessorIndex{4});  // there is no such processor
  ASSERT_TRUE(link->Send(Bytes("news")).has_value());
  EXPECT_EQ(SlotType(0), 1u);
}

// What KVM writes arrives like a signal that left the kernel, and beside such.
TEST_F(GuestBusTest, KvmSignalsAChannelByItsOwnEvent) {
  FakeRoutes routes;
  bus = *GuestBus::Create(*guest.memory, synic, 4, &routes);
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  auto link = Accept();
  for (const std::uint32_t channel : {1u, 5u, 2041u}) {
    link->ListenTo(wire::ChannelId{channel}, true);
  }
  ASSERT_EQ(routes.events.size(), 3u);
  EXPECT_EQ(bus->counts().routed_channels, 3u);
  BellWatch watch(link->inbox(1));
  ASSERT_EQ(eventfd_write(routes.events.at(0x2005), 1), 0);
  ASSERT_TRUE(watch.Next());
  ChannelSet bells = link->inbox(1).Collect();
  EXPECT_EQ(bells[0], 1u << 5);
  EXPECT_FALSE(watch.Next(0));
  // Each write is one more.
  for (int round = 0; round < 100; ++round) {
    ASSERT_EQ(eventfd_write(routes.events.at(0x2000 + 2041), 1), 0);
    ASSERT_TRUE(watch.Next()) << round;
    bells = link->inbox(1).Collect();
    ASSERT_EQ(bells[31], std::uint64_t{1} << 2041 % 64);
    ASSERT_EQ(bells[0], 0u);
  }
  // Those of the time when nobody waited are not lost.
  ASSERT_EQ(eventfd_write(routes.events.at(0x2005), 1), 0);
  EXPECT_EQ(Signal(0x2001), HypercallStatus::kSuccess);
  BellWatch later(link->inbox(1));
  ASSERT_TRUE(later.Next());
  EXPECT_EQ(link->inbox(1).Collect()[0], 1u << 5 | 1u << 1);
  EXPECT_EQ(bus->counts().signals, 1u);

  link->ListenTo(wire::ChannelId{5}, false);
  EXPECT_EQ(routes.events.size(), 2u);
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kInvalidConnection);
  link->ListenTo(wire::ChannelId{5}, true);
  // Its end is the end of all, whoever stops listening afterwards.
  link->Refuse("enough");
  EXPECT_TRUE(routes.events.empty());
  link->ListenTo(wire::ChannelId{1}, false);
  link->ListenTo(wire::ChannelId{7}, true);
  EXPECT_TRUE(routes.events.empty());
  link.reset();
  listener.reset();
}

TEST_F(GuestBusTest, WhatKvmDoesNotSignalComesAsAnExit) {
  FakeRoutes routes;
  routes.refuse = true;
  bus = *GuestBus::Create(*guest.memory, synic, 4, &routes);
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  auto link = Accept();
  link->ListenTo(wire::ChannelId{5}, true);
  BellWatch watch(link->inbox(1));
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Signal(0x2005), HypercallStatus::kSuccess);
    ASSERT_TRUE(watch.Next()) << round;
    EXPECT_EQ(link->inbox(1).Collect()[0], 1u << 5);
  }
  EXPECT_EQ(bus->counts().signals, 3u);
  EXPECT_EQ(bus->counts().messages, 1u);
  EXPECT_EQ(bus->counts().refused, 0u);
  link.reset();
  listener.reset();
}

TEST_F(GuestBusTest, SignalsArriveOnlyWhereSomebodyListens) {
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kInvalidConnection);
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  const auto link = Accept();
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kInvalidConnection);
  link->ListenTo(wire::ChannelId{5}, true);
  ASSERT_EQ(link->bell_count(), 4u);
  BellWatch watch(link->inbox(1));
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kSuccess);
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kSuccess);
  EXPECT_EQ(Signal(0x2006), HypercallStatus::kInvalidConnection);
  EXPECT_EQ(Signal(2), HypercallStatus::kInvalidConnection);
  EXPECT_TRUE(watch.Next(0));
  EXPECT_EQ(link->inbox(1).Collect()[0], std::uint64_t{1} << 5);
  EXPECT_FALSE(watch.Next(0));
  link->ListenTo(wire::ChannelId{5}, false);
  EXPECT_EQ(Signal(0x2005), HypercallStatus::kInvalidConnection);
}

TEST_F(GuestBusTest, ADoorbellRingsItsProcessor) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  auto link = Accept();
  const auto bell = link->MakeDoorbell(wire::ChannelId{9}, 3);
  bell->Ring();
  EXPECT_EQ(guest.At<std::uint8_t>(11 * 4096 + 0x200 + 1), 1 << 1);
  EXPECT_EQ(hardware.TakeRaised(), (std::vector<std::pair<std::uint32_t, int>>{{3, 0xF3}}));
}

TEST_F(GuestBusTest, AResetEndsTheLinkAndWaitsForItsUsers) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  auto link = Accept();
  const auto bell = link->MakeDoorbell(wire::ChannelId{9}, 3);
  std::thread reset([&] { bus->Reset(); });
  ASSERT_TRUE(WaitFor(link->message_fd()));
  EXPECT_TRUE(Eventually([&] { return Next(*link) == "(gone)"; }));
  bell->Ring();
  EXPECT_EQ(guest.At<std::uint8_t>(11 * 4096 + 0x200 + 1), 0);
  EXPECT_EQ(link->Send(Bytes("late")).error(), Error::kPeerGone);
  link.reset();
  reset.join();

  EXPECT_EQ(Post("born again"), HypercallStatus::kSuccess);
  link = Accept();
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(Next(*link), "born again");
}

TEST_F(GuestBusTest, AClientThatIsRefusedMayComeAgain) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  const auto link = Accept();
  link->Refuse("not today");
  EXPECT_EQ(Next(*link), "(gone)");
  EXPECT_EQ(Post("again"), HypercallStatus::kSuccess);
  const auto other = Accept();
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(Next(*other), "again");
  listener.reset();
  other->Refuse("closed");
  EXPECT_EQ(Post("anybody?"), HypercallStatus::kInvalidConnection);
}

TEST_F(GuestBusTest, RandomCallsRegistersAndMemoryDoNoHarm) {
  listener = bus->Listen();
  ASSERT_EQ(Post("hello"), HypercallStatus::kSuccess);
  const auto link = Accept();
  link->ListenTo(wire::ChannelId{5}, true);
  Enlightenments enlightenments(*guest.memory, hardware, synic, 4, 0xB8);
  enlightenments.SetTscFrequency(2'000'000'000, true);
  std::mt19937_64 random(20240);
  const auto number = [&]() -> std::uint64_t {
    switch (random() % 4) {
      case 0:
        return random();
      case 1:
        return random() % (42 * 4096);  // memory, holes, and beyond
      case 2:
        return (random() % 42) << 12 | random() % 4;  // pages, switched on and off
      default:
        return random() % 0x3000;
    }
  };
  for (int step = 0; step < 200'000; ++step) {
    const auto processor = static_cast<std::uint32_t>(random() % 4);
    switch (random() % 8) {
      case 0:
        (void)bus->Call(number(), number());
        break;
      case 1:
        (void)bus->Call(0x5C | (random() % 8 == 0 ? number() << 16 : 0), number());
        break;
      case 2:
        (void)bus->Call(0x5D | (random() % 2) << 16, number());
        break;
      case 3:
        (void)enlightenments.WriteRegister(
            processor, msr::kFirst + static_cast<std::uint32_t>(random() % msr::kCount), number());
        break;
      case 4:
        (void)synic.WriteRegister(processor, msr::kScontrol + random() % 0x20, number());
        break;
      case 5:
        guest.At<std::uint64_t>(random() % (16 * 4096) & ~std::uint64_t{7}) = number();
        break;
      case 6:
        synic.SetEventFlag(processor, static_cast<std::uint32_t>(random() % 2048));
        if (link->unsent_messages() == 0 && synic.waiting_messages(0) < 100) {
          (void)link->Send(Bytes(std::string("news")));
        }
        break;
      default:
        if (Next(*link) == "(nothing)") (void)link->inbox(1).Collect();
        break;
    }
  }

  // Whoever has behaved like that is served again as soon as it behaves.
  hardware.raised.clear();
  while (Next(*link) != "(nothing)") continue;
  link->OnContact(wire::ProcessorIndex{0});
  EXPECT_TRUE(synic.WriteRegister(0, msr::kSimp, 4 * 4096 + 1));
  EXPECT_TRUE(synic.WriteRegister(0, kSint2, 0xF3));
  EXPECT_TRUE(synic.WriteRegister(0, msr::kScontrol, 1));
  SlotType(0) = 0;
  EXPECT_EQ(Post("hello again"), HypercallStatus::kSuccess);
  EXPECT_EQ(Next(*link), "hello again");
  ASSERT_TRUE(link->Send(Bytes(std::string("news"))).has_value());
  EXPECT_EQ(SlotType(0), 1u);
  EXPECT_FALSE(hardware.TakeRaised().empty());
}

TEST(HyperVCpuid, OtherHypervisorsLeavesGo) {
  std::vector<kvm_cpuid_entry2> entries(3);
  entries[0].function = 1;
  entries[1].function = 0x40000100;  // KVM's signature
  entries[2].function = 0x80000000;
  MakeHyperVCpuid(entries, {.processor_count = 2, .reference_tsc = true});
  ASSERT_EQ(entries.size(), 8u);
  EXPECT_EQ(entries[0].ecx, 1u << 31);
  EXPECT_EQ(entries[1].function, 0x80000000u);
  for (std::uint32_t leaf = 0; leaf < 6; ++leaf) {
    EXPECT_EQ(entries[2 + leaf].function, 0x40000000 + leaf);
  }
  const std::array<std::uint32_t, 3> vendor{entries[2].ebx, entries[2].ecx, entries[2].edx};
  EXPECT_EQ(std::memcmp(vendor.data(), "Microsoft Hv", 12), 0);
  EXPECT_EQ(entries[5].eax, 0xA66u);
  EXPECT_EQ(entries[5].ebx, 0x30u);
}

TEST(AcpiTable, IsWholeAndNamesTheBus) {
  const auto table = AcpiTable();
  ASSERT_GT(table.size(), 36u);
  std::uint8_t sum = 0;
  for (const std::byte byte : table)
    sum = static_cast<std::uint8_t>(sum + std::to_integer<int>(byte));
  EXPECT_EQ(sum, 0);
  std::uint32_t length = 0;
  std::memcpy(&length, table.data() + 4, sizeof length);
  EXPECT_EQ(length, table.size());
  const std::string text(reinterpret_cast<const char*>(table.data()), table.size());
  EXPECT_TRUE(text.starts_with("SSDT"));
  EXPECT_NE(text.find("_HID\rVMBus"), std::string::npos);
}

}  // namespace
}  // namespace kmcl::transport::kvm

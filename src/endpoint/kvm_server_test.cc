// A server and a guest's bus, with a test in the guest's place that makes its hypercalls and reads
// its message slots.
#include <sys/eventfd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>

#include "endpoint/server.h"
#include "transport/kvm/guest_bus.h"
#include "transport/kvm/guest_test_support.h"
#include "transport/kvm/synic.h"
#include "transport/test_support.h"
#include "wire/messages.h"

namespace kmcl::endpoint {
namespace {

namespace kvm = transport::kvm;

constexpr std::uint64_t kInput = 0x1000;
constexpr std::uint32_t kProcessors = 2;

// Interrupts as something to wait for.
class WaitedHardware final : public kvm::Hardware {
 public:
  WaitedHardware() {
    for (transport::Descriptor& event : events_) {
      event = transport::Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    }
  }
  void RaiseInterrupt(std::uint32_t processor, std::uint8_t) override {
    (void)eventfd_write(events_[processor].get(), 1);
  }
  std::uint64_t TimeStamp(std::uint32_t) override { return 0; }
  bool Wait(std::uint32_t processor) {
    if (!transport::WaitFor(events_[processor].get())) return false;
    eventfd_t count = 0;
    return eventfd_read(events_[processor].get(), &count) == 0;
  }

 private:
  std::array<transport::Descriptor, kProcessors> events_;
};

class KvmServerTest : public ::testing::Test {
 protected:
  KvmServerTest() {
    bus = *kvm::GuestBus::Create(*guest.memory, synic, kProcessors);
    for (std::uint32_t processor = 0; processor < kProcessors; ++processor) {
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kSimp, SimPage(processor) + 1));
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kSiefp, (8 + processor) * 4096 + 1));
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kSint0 + 2, 0xF3));
      EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kScontrol, 1));
    }
    ServerOptions options;
    options.monitors = bus::Monitors::kNone;
    options.newest = wire::Version::kIron;
    options.oldest = wire::Version::kWin8;
    auto made = Server::Create(bus->Listen(), options,
                               {.on_created = [](Server&) {},
                                .on_arrived = [this](std::shared_ptr<Partition>) { ++arrived; },
                                .on_gone = [this](std::shared_ptr<Partition>) { ++gone; }});
    EXPECT_TRUE(made.has_value());
    server = *std::move(made);
  }

  static std::uint64_t SimPage(std::uint32_t processor) { return (4 + processor) * 4096; }

  void Contact(wire::Version version, std::uint32_t processor) {
    std::array<std::uint32_t, 10> message{};
    message[0] = 14;
    message[2] = std::to_underlying(version);
    message[3] = processor;
    message[4] = wire::kVmbusSint;
    guest.At<std::uint32_t>(kInput) = 4;
    guest.At<std::uint32_t>(kInput + 8) = 1;
    guest.At<std::uint32_t>(kInput + 12) = sizeof message;
    std::memcpy(&guest.At<char>(kInput + 16), message.data(), sizeof message);
    EXPECT_EQ(bus->Call(0x5C, kInput), kvm::HypercallStatus::kSuccess);
  }

  // Takes the answer from the processor's slot: number, supported, connection.
  std::array<std::uint32_t, 3> Answer(std::uint32_t processor) {
    EXPECT_TRUE(hardware.Wait(processor));
    const std::uint64_t slot = SimPage(processor) + 0x200;
    EXPECT_EQ(guest.At<std::uint32_t>(slot), 1u);
    const std::array answer{guest.At<std::uint32_t>(slot + 16),
                            guest.At<std::uint32_t>(slot + 16 + 8) & 0xFF,
                            guest.At<std::uint32_t>(slot + 16 + 12)};
    guest.At<std::uint32_t>(slot) = 0;
    EXPECT_TRUE(synic.WriteRegister(processor, kvm::msr::kEom, 0));
    return answer;
  }

  using Words = std::array<std::uint32_t, 3>;
  kvm::TestMemory guest;
  WaitedHardware hardware;
  kvm::Synic synic{*guest.memory, hardware, kProcessors};
  std::shared_ptr<kvm::GuestBus> bus;
  std::atomic<int> arrived{0};
  std::atomic<int> gone{0};
  std::unique_ptr<Server> server;
};

TEST_F(KvmServerTest, AnswersGoToTheProcessorThatTheGuestNames) {
  Contact(wire::Version::kCopper, 1);
  EXPECT_EQ(Answer(1), (Words{15, 0, 0}));  // newer than the server grants
  Contact(wire::Version::kIron, 1);
  EXPECT_EQ(Answer(1), (Words{15, 1, 1}));
  Contact(wire::Version::kWin8, 1);  // before 3.0 there is no choice
  EXPECT_EQ(Answer(0), (Words{15, 1, std::to_underlying(wire::Version::kWin8)}));
  Contact(wire::Version::kWin7, 0);
  EXPECT_EQ(Answer(0), (Words{15, 0, 0}));
  Contact(wire::Version::kIron, 99);  // no such processor
  EXPECT_EQ(Answer(0), (Words{15, 1, 1}));
  EXPECT_EQ(arrived, 1);
}

TEST_F(KvmServerTest, EachLifeOfTheGuestIsAPartition) {
  Contact(wire::Version::kIron, 0);
  EXPECT_EQ(Answer(0), (Words{15, 1, 1}));
  bus->Reset();
  Contact(wire::Version::kIron, 0);
  EXPECT_EQ(Answer(0), (Words{15, 1, 1}));
  server.reset();
  EXPECT_EQ(arrived, 2);
  EXPECT_EQ(gone, 2);
  EXPECT_EQ(bus->Call(0x5C, kInput), kvm::HypercallStatus::kInvalidConnection);
}

}  // namespace
}  // namespace kmcl::endpoint

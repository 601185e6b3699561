#include "transport/uio/kernel_inbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "transport/uio/fake_bus.h"

namespace kmcl::transport::uio {
namespace {

wire::Guid InstanceOf(std::uint32_t number) {
  wire::Guid instance = kEcho;
  instance.data1 = number;
  return instance;
}

// Pipes in place of /dev/uioN: readable by four bytes, as those are.
class KernelInboxTest : public testing::Test {
 protected:
  std::shared_ptr<KernelChannel> Open(std::uint32_t number) {
    const wire::Guid instance = InstanceOf(number);
    fake_.AddDevice(kEchoType, instance, number);
    fake_.SetUio(instance, number, "0x20000");
    const std::string node = fake_.bus().UioNode(number);
    std::filesystem::create_directories(std::filesystem::path(node).parent_path());
    EXPECT_EQ(mkfifo(node.c_str(), 0600), 0);
    const auto device = fake_.bus().Device(instance);
    if (!device) return nullptr;
    auto channel = KernelChannel::Open(fake_.bus(), *device, std::nullopt);
    return channel ? *channel : nullptr;
  }
  static void Signal(const KernelChannel& channel) {
    const std::int32_t count = 1;
    ASSERT_EQ(write(channel.fd(), &count, sizeof count), ssize_t{sizeof count});
  }

  FakeBus fake_;
};

TEST_F(KernelInboxTest, NoSignalIsLeftBehindHoweverManyWait) {
  auto inbox = KernelInbox::Create([](wire::ChannelId) { FAIL() << "nothing has gone"; });
  ASSERT_TRUE(inbox.has_value());
  constexpr std::uint32_t kMany = 100;
  std::vector<std::shared_ptr<KernelChannel>> channels;
  for (std::uint32_t number = 1; number <= kMany; ++number) {
    channels.push_back(Open(number));
    ASSERT_NE(channels.back(), nullptr) << number;
    ASSERT_TRUE((*inbox)->Add(channels.back()).has_value());
  }
  for (const auto& channel : channels) Signal(*channel);
  const ChannelSet rung = (*inbox)->Collect();
  for (std::uint32_t number = 1; number <= kMany; ++number) {
    EXPECT_NE(rung[number / 64] & std::uint64_t{1} << number % 64, 0u) << number;
  }
  EXPECT_EQ((*inbox)->Collect(), ChannelSet{});
}

}  // namespace
}  // namespace kmcl::transport::uio

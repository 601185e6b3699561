// For the tests of the integration services: the guest's end of one of their channels, byte by byte
// as Linux' hv_utils has it. It answers a negotiation by itself, and keeps every other request for
// the test to answer, or not.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <kmcl/kmcl.hpp>
#include <memory>

#include "devices/integration_message.h"
#include "devices/test_bus.h"

namespace kmcl::devices {

struct TestGuestOptions {
  // Newest first: the guest takes the first that the host offers too.
  std::vector<IntegrationVersion> frameworks{{3, 0}, {1, 0}};
  std::vector<IntegrationVersion> versions{};
  bool negotiates = true;
};

class TestGuest {
 public:
  using Bytes = std::vector<std::byte>;

  TestGuest(const std::string& address, const GUID& type, TestGuestOptions options)
      : type_(type), options_(std::move(options)) {
    ClientOptions client;
    client.address = address;
    auto connected = Client::Connect(client);
    EXPECT_TRUE(connected.has_value());
    if (connected) {
      client_ = std::make_unique<Client>(std::move(*connected));
      Open();
    }
  }

  // 16 KiB each way, as hv_utils asks for. What was kept before is forgotten.
  void Open() {
    {
      const std::lock_guard lock(mutex_);
      requests_.clear();
    }
    ChannelOptions channel;
    channel.interface_type = type_;
    channel.pipe = true;
    channel.maximum_packet_bytes = 8192;
    channel.incoming_pages = 4;
    channel.outgoing_pages = 4;
    channel.on_packet = [this](ChannelView view, Incoming packet) {
      Receive(view, Bytes(packet.data().begin(), packet.data().end()));
    };
    auto opened = client_->Open(std::move(channel));
    ASSERT_TRUE(opened.has_value());
    channel_ = std::move(*opened);
  }
  void Close() { channel_.Reset(); }

  // The next request, as it arrived.
  Bytes Take() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(arrived_.wait_for(lock, std::chrono::seconds(10), [this] {
      return !requests_.empty();
    })) << "no request came";
    if (requests_.empty()) return Bytes(sizeof(IntegrationHeader));
    Bytes request = std::move(requests_.front());
    requests_.pop_front();
    return request;
  }
  std::size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }

  void Send(const Bytes& packet) { EXPECT_TRUE(channel_.Send(packet).has_value()); }
  // The request's own buffer, as Linux answers.
  static Bytes AnswerTo(Bytes request, std::uint32_t status = 0) {
    auto header = ReadAs<IntegrationHeader>(request);
    header.status = status;
    header.flags = kIntegrationTransaction | kIntegrationResponse;
    std::memcpy(request.data(), &header, sizeof(header));
    return request;
  }
  void Answer(const Bytes& request, std::uint32_t status = 0) { Send(AnswerTo(request, status)); }
  // Linux does not wait for room: an answer that finds none is lost. False then.
  bool AnswerIfThereIsRoom(const Bytes& request) {
    Bytes answer = AnswerTo(request);
    LARGE_INTEGER now{};
    return VmbChannelSendSynchronousRequest(channel_.handle(), answer.data(),
                                            static_cast<UINT32>(answer.size()), nullptr, 0, nullptr,
                                            nullptr, &now) == STATUS_SUCCESS;
  }

  // The offer as the guest sees it.
  std::optional<KMCL_OFFER> Offer() const {
    for (const KMCL_OFFER& offer : client_->Offers()) {
      if (offer.InterfaceType == type_) return offer;
    }
    return std::nullopt;
  }

 private:
  void Receive(ChannelView channel, Bytes packet) {
    const auto header = ReadAs<IntegrationHeader>(packet);
    EXPECT_EQ(header.flags, kIntegrationTransaction | kIntegrationRequest);
    EXPECT_EQ(packet.size(), sizeof(header) + header.body_bytes);
    if (header.type == static_cast<std::uint16_t>(IntegrationMessage::kNegotiate) &&
        options_.negotiates) {
      EXPECT_TRUE(channel.Send(Choose(std::move(packet))).has_value());
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(std::move(packet));
    }
    arrived_.notify_all();
  }

  // What vmbus_prep_negotiate_resp makes of it: counts and two versions in place, a body size of
  // 16, and a packet as long as before.
  Bytes Choose(Bytes packet) const {
    constexpr std::size_t kHead = sizeof(IntegrationHeader);
    std::uint16_t counts[2] = {};
    std::memcpy(counts, packet.data() + kHead, sizeof(counts));
    std::vector<IntegrationVersion> offered(counts[0] + counts[1]);
    EXPECT_EQ(packet.size(), kHead + 8 + offered.size() * sizeof(IntegrationVersion));
    std::memcpy(offered.data(), packet.data() + kHead + 8,
                offered.size() * sizeof(IntegrationVersion));
    const auto first_of = [](const auto& own, auto begin, auto end) {
      const auto found = std::find_first_of(own.begin(), own.end(), begin, end);
      return found == own.end() ? std::optional<IntegrationVersion>() : *found;
    };
    const auto middle = offered.begin() + counts[0];
    const auto framework = first_of(options_.frameworks, offered.begin(), middle);
    const auto version = first_of(options_.versions, middle, offered.end());
    counts[0] = counts[1] = framework && version ? 1 : 0;
    const IntegrationVersion chosen[2] = {framework.value_or(IntegrationVersion{}),
                                          version.value_or(IntegrationVersion{})};
    std::memcpy(packet.data() + kHead, counts, sizeof(counts));
    std::memcpy(packet.data() + kHead + 8, chosen, sizeof(chosen));
    auto header = ReadAs<IntegrationHeader>(packet);
    header.body_bytes = 16;
    std::memcpy(packet.data(), &header, sizeof(header));
    return AnswerTo(std::move(packet));
  }

  const GUID type_;
  const TestGuestOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Bytes> requests_;  // under mutex_
  std::unique_ptr<Client> client_;
  Channel channel_;
};

// The body's value at `offset` of a request's body.
template <typename T>
T BodyAs(const std::vector<std::byte>& packet, std::size_t offset = 0) {
  T value{};
  if (packet.size() >= sizeof(IntegrationHeader) + offset + sizeof(value)) {
    std::memcpy(&value, packet.data() + sizeof(IntegrationHeader) + offset, sizeof(value));
  }
  return value;
}
template <typename T>
void SetBody(std::vector<std::byte>& packet, std::size_t offset, const T& value) {
  ASSERT_GE(packet.size(), sizeof(IntegrationHeader) + offset + sizeof(value));
  std::memcpy(packet.data() + sizeof(IntegrationHeader) + offset, &value, sizeof(value));
}

// Waits for something that a device does on its own thread and tells nobody, with a deadline.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace kmcl::devices

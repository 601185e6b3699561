// What the tests of this room share: a record of events to wait for, handlers, a server with an
// echo device for each client, and clients that keep to the rules or do not.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "channel/handler.h"
#include "endpoint/client.h"
#include "endpoint/server.h"
#include "log.h"
#include "mutex.h"
#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "transport/link.h"
#include "transport/test_support.h"
#include "wire/message_codec.h"
#include "wire/messages.h"

namespace kmcl::endpoint {

inline std::chrono::steady_clock::time_point Patience() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(10);
}

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// What happened, on whatever thread.
class Record {
 public:
  void Note(const std::string& line) {
    MutexLock lock(mutex_);
    ++lines_[line];
    changed_.NotifyAll();
  }
  // Waits until `line` was noted `times` times in all.
  bool Await(const std::string& line, int times = 1) {
    const auto deadline = Patience();
    MutexLock lock(mutex_);
    while (lines_[line] < times) {
      if (!changed_.WaitUntil(mutex_, deadline)) {
        ADD_FAILURE() << "waited for \"" << line << "\" " << times << " times, saw it "
                      << lines_[line] << " times";
        return false;
      }
    }
    return true;
  }
  int count(const std::string& line) {
    MutexLock lock(mutex_);
    return lines_[line];
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, int> lines_ KMCL_GUARDED_BY(mutex_);
};

// Log lines are expected here, and not shown.
class QuietLog {
 public:
  QuietLog() {
    SetLogSink([](void*, LogLevel, const char*) {}, nullptr);
  }
  ~QuietLog() { SetLogSink(nullptr, nullptr); }
};

// Notes every state callback, and answers each packet with what it carried.
class EchoHandler : public channel::Handler {
 public:
  // `accept` says whether an open succeeds; without it each does.
  explicit EchoHandler(Record& record, std::function<bool()> accept = {})
      : record_(record), accept_(std::move(accept)) {}
  bool OnOpened() override {
    record_.Note("Opened");
    if (!accept_ || accept_()) return true;
    record_.Note("Closed");  // there will be no other
    return false;
  }
  void OnClosed() override { record_.Note("Closed"); }
  void OnSuspend() override { record_.Note("Suspend"); }
  void OnStarted() override { record_.Note("Started"); }
  void OnPostStarted() override { record_.Note("PostStarted"); }
  void OnConnectFailed(Error error) override {
    record_.Note(std::string("ConnectFailed ") + ErrorName(error));
  }
  void OnPacket(channel::IncomingPacket& packet) override {
    record_.Note("Packet");
    packet.channel->Complete(packet, packet.payload);
  }
  void OnBatchEnd(std::uint32_t) override {}
  void OnPacketDone(channel::Packet& packet, channel::Outcome, std::span<std::byte>) override {
    record_.Note("Done");
    packet.channel->FreePacket(packet);
  }

 private:
  Record& record_;
  std::function<bool()> accept_;
};

inline const wire::Guid kEchoInterface{0x11111111, 0x2222, 0x3333, {4, 4, 4, 4, 4, 4, 4, 4}};

// Offers every partition an echo device, and takes it back when the partition has gone.
class EchoServer {
 public:
  explicit EchoServer(ServerOptions options = {}) {
    if (options.address.empty()) options.address = "unix:" + directory_.Path("bus");
    address_ = options.address;
    auto server = Server::Create(
        options, {.on_created = [this](Server& made) { made_ = &made; },
                  .on_arrived = [this](std::shared_ptr<Partition> each) { Arrived(each); },
                  .on_gone = [this](std::shared_ptr<Partition> each) { Gone(each); }});
    EXPECT_TRUE(server);
    server_ = std::move(*server);
  }
  ~EchoServer() {
    server_.reset();
    EXPECT_EQ(record.count("Opened"), record.count("Closed"));
    EXPECT_EQ(record.count("Started"), record.count("Suspend"));
    EXPECT_EQ(record.count("arrived"), record.count("gone"));
  }

  const std::string& address() const { return address_; }
  std::shared_ptr<ServerChannel> channel(std::uint64_t partition) {
    MutexLock lock(mutex_);
    return devices_.at(partition)->channel;
  }

  Record record;
  std::function<bool()> accept;  // of every device; to be set before the first client comes

 private:
  struct Device {
    explicit Device(EchoServer& server) : handler(server.record, server.accept) {}
    EchoHandler handler;
    std::shared_ptr<ServerChannel> channel;
  };

  void Arrived(const std::shared_ptr<Partition>& partition) {
    auto device = std::make_unique<Device>(*this);
    device->channel = made_->MakeChannel(device->handler);
    device->channel->setup().offer.key = {.interface_type = kEchoInterface,
                                          .instance = wire::Guid{1, 0, 0, {}}};
    device->channel->setup().has_offer = true;
    device->channel->setup().partition = partition;
    EXPECT_TRUE(device->channel->Enable());
    device->channel->engine().Start();
    MutexLock lock(mutex_);
    devices_[partition->number()] = std::move(device);
    record.Note("arrived");
  }
  void Gone(const std::shared_ptr<Partition>& partition) {
    std::unique_ptr<Device> device;
    {
      MutexLock lock(mutex_);
      device = std::move(devices_.at(partition->number()));
      devices_.erase(partition->number());
    }
    device->channel->engine().Disable();
    device->channel->Retire();
    device->channel.reset();
    record.Note("gone");
  }

  transport::TemporaryDirectory directory_;
  std::string address_;
  Mutex mutex_;
  std::map<std::uint64_t, std::unique_ptr<Device>> devices_ KMCL_GUARDED_BY(mutex_);
  Server* made_ = nullptr;  // set before the first client can come
  std::unique_ptr<Server> server_;
};

// A client that does everything right, with one channel to the echo device.
class EchoClient {
 public:
  explicit EchoClient(const std::string& address) : handler_(record) {
    auto client = Client::Connect({.address = address});
    if (!client) {
      error = client.error();
      return;
    }
    client_ = std::move(*client);
    channel_ = client_->MakeChannel(handler_);
    channel_->setup().interface_type = kEchoInterface;
    EXPECT_TRUE(channel_->Enable());
  }
  ~EchoClient() {
    if (channel_ != nullptr) {
      channel_->engine().Disable();
      channel_->Retire();
      channel_.reset();
    }
    client_.reset();
    EXPECT_EQ(record.count("Opened"), record.count("Closed"));
  }
  // Whether one question and its answer go through.
  bool Works() {
    if (client_ == nullptr) return false;
    std::array<std::byte, 8> reply{};
    const auto answered = channel_->engine().Request(BytesOf("question"), true, reply, Patience());
    return answered && *answered == 8 && std::memcmp(reply.data(), "question", 8) == 0;
  }
  Client& client() { return *client_; }
  channel::Channel& engine() { return channel_->engine(); }

  Record record;
  std::optional<Error> error;

 private:
  EchoHandler handler_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<ClientChannel> channel_;
};

// A client made of a link and whatever bytes a test sends.
class RawClient {
 public:
  explicit RawClient(const std::string& address) {
    auto link = transport::Dial(address, {});
    if (link) link_ = std::move(*link);
    EXPECT_NE(link_, nullptr);
  }

  void SendBytes(std::span<const std::byte> bytes) { (void)!link_->Send(bytes); }
  template <typename M>
  void Send(const M& message) {
    SendBytes(wire::Encode(message, agreed_));
  }
  // The next message of this kind; others are skipped. nullopt: the link has ended.
  template <typename M>
  std::optional<M> Await() {
    while (const auto message = Next()) {
      if (const M* wanted = std::get_if<M>(&*message)) return *wanted;
    }
    return std::nullopt;
  }
  std::optional<wire::ServerMessage> Next() {
    std::array<std::byte, transport::kMaximumMessageBytes> buffer;
    while (true) {
      const auto received = link_->Receive(buffer);
      if (received.status == transport::ReceiveStatus::kGone) return std::nullopt;
      if (received.status == transport::ReceiveStatus::kMessage) {
        auto parsed = wire::ParseServerMessage({buffer.data(), received.bytes}, agreed_);
        EXPECT_TRUE(parsed) << "the server sent what no server may send";
        if (parsed) return *parsed;
        continue;
      }
      if (link_->unsent_messages() > 0) link_->Flush();
      if (!transport::WaitFor(link_->message_fd())) {
        ADD_FAILURE() << "no message came";
        return std::nullopt;
      }
    }
  }

  // The way to an open channel, in steps.
  void SendContact() {
    wire::InitiateContact contact;
    contact.version = wire::Version::kIron;
    contact.target_info = wire::InitiateContact::TargetInfo(wire::kVmbusSint, 0, {});
    Send(contact);
  }
  void Contact() {
    SendContact();
    const auto response = Await<wire::VersionResponse>();
    ASSERT_TRUE(response && response->supported());
    agreed_.version = wire::Version::kIron;
  }
  void FetchOffers() {
    Send(wire::RequestOffers{});
    const auto offer = Await<wire::OfferChannel>();
    ASSERT_TRUE(offer);
    channel_ = offer->channel_id;
    ASSERT_TRUE(Await<wire::AllOffersDelivered>());
  }
  void SendGpadl() {
    pages_ = link_->AllocatePages(4).value();  // two rings of one page each
    const auto ranges = wire::GpaRangeList::OfPages(pages_.first, pages_.count).value();
    rings_ = link_->MapRings(ranges.pages(), 2).value();
    SendGpadlOf(ranges);
  }
  // Whether it is two rings or not.
  void SendGpadlOf(const wire::GpaRangeList& ranges, wire::GpadlId gpadl = kRing) {
    const std::vector<std::byte> encoded = ranges.Encode();
    wire::GpadlHeader header;
    header.channel_id = channel_;
    header.gpadl_id = gpadl;
    header.range_list_bytes = static_cast<std::uint16_t>(encoded.size());
    header.range_count = static_cast<std::uint16_t>(ranges.range_count());
    std::copy(encoded.begin(), encoded.end(), header.range_bytes.begin());
    header.range_bytes_size = static_cast<std::uint16_t>(encoded.size());
    Send(header);
  }
  void ShareRings() {
    SendGpadl();
    const auto created = Await<wire::GpadlCreated>();
    ASSERT_TRUE(created);
    ASSERT_EQ(created->status, wire::kStatusSuccess);
  }
  void SendOpen() {
    const auto pages = [](const transport::RingMapping::View& view) {
      return ring::RingPages{.control = view.control,
                             .data = view.data,
                             .data_bytes = view.data_bytes,
                             .mapped_bytes = 2 * view.data_bytes};
    };
    writer_ = ring::OutgoingRing::Create(pages(rings_.client_to_server)).value();
    reader_ = ring::IncomingRing::Create(pages(rings_.server_to_client)).value();
    SendOpenOf(channel_, 2);
  }
  // A request to open, whatever there is to open.
  void SendOpenOf(wire::ChannelId channel, std::uint32_t downstream_page = 1,
                  wire::GpadlId ring = kRing) {
    wire::OpenChannel open;
    open.channel_id = channel;
    open.open_id = wire::OpenId{2};
    open.ring_gpadl_id = ring;
    open.downstream_page_offset = downstream_page;
    Send(open);
  }
  void Open() {
    SendOpen();
    const auto result = Await<wire::OpenChannelResult>();
    ASSERT_TRUE(result);
    ASSERT_EQ(result->status, wire::kStatusSuccess);
  }
  void OpenFromTheStart() {
    Contact();
    FetchOffers();
    ShareRings();
    Open();
  }
  void Close() { Send(wire::CloseChannel{channel_}); }
  void Ring() { link_->MakeDoorbell(channel_, 0)->Ring(); }

  static constexpr wire::GpadlId kRing{77};
  transport::ClientLink& link() { return *link_; }
  wire::ChannelId channel() const { return channel_; }
  ring::OutgoingRing& writer() { return *writer_; }
  transport::RingMapping& rings() { return rings_; }

 private:
  std::unique_ptr<transport::ClientLink> link_;
  wire::Agreed agreed_;
  wire::ChannelId channel_{};
  transport::PageRun pages_;
  transport::RingMapping rings_;
  std::optional<ring::OutgoingRing> writer_;
  std::optional<ring::IncomingRing> reader_;
};

}  // namespace kmcl::endpoint

#include "bus_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <sstream>
#include <thread>

namespace kmcl::contract {

namespace {

std::vector<std::string> SplitAt(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    parts.push_back(part);
  }
  return parts;
}

Status ToStatus(const std::string& text) {
  try {
    return {static_cast<NTSTATUS>(std::stol(text))};
  } catch (const std::exception&) {
    ADD_FAILURE() << "not a status: " << text;
    return {STATUS_UNSUCCESSFUL};
  }
}

bool BeginsWith(const std::string& name, const std::string& word) {
  return name == word || name.starts_with(word + " ");
}

std::string UniqueName() {
  static int count = 0;
  return std::to_string(getpid()) + "-" + std::to_string(++count);
}

}  // namespace

std::string PlacementName(Placement placement) {
  switch (placement) {
    case Placement::kLocal:
      return "Local";
    case Placement::kSharedMemory:
      return "SharedMemory";
    case Placement::kClientProcess:
      return "ClientProcess";
    case Placement::kServerProcess:
      return "ServerProcess";
  }
  return "";
}

std::string Channel::Do(const std::string& verb, const std::string& words) const {
  std::string answer = port_->Exchange(verb + " " + id_ + (words.empty() ? "" : " " + words));
  EXPECT_FALSE(answer.starts_with("unknown")) << answer;
  return answer;
}

Status Channel::Init(const std::string& words) const { return ToStatus(Do("init", words)); }
Status Channel::Enable() const { return ToStatus(Do("enable")); }

void Channel::Async(const std::string& verb, const std::string& words) const {
  port_->Exchange("async " + verb + " " + id_ + (words.empty() ? "" : " " + words));
}

void Channel::Set(const std::string& what, std::int64_t value) const {
  EXPECT_EQ(Do("set", what + " " + std::to_string(value)), "ok");
}

Status Channel::Send(UINT32 number, UINT32 bytes, UINT32 flags) const {
  return ToStatus(Do(
      "post", std::to_string(number) + " " + std::to_string(bytes) + " " + std::to_string(flags)));
}

void Channel::SendMany(UINT32 first, UINT32 count, UINT32 bytes, UINT32 flags) const {
  for (UINT32 i = 0; i < count; ++i) {
    ASSERT_EQ(Send(first + i, bytes, flags), STATUS_SUCCESS) << "packet " << first + i;
  }
}

std::string Channel::MakePacket(const std::string& how) const {
  std::string packet = Do("packet", how);
  EXPECT_NE(packet, "failed");
  return packet;
}

Status Channel::SendPacket(const std::string& packet, UINT32 number, UINT32 bytes,
                           UINT32 flags) const {
  return ToStatus(port_->Exchange("send " + packet + " " + std::to_string(number) + " " +
                                  std::to_string(bytes) + " " + std::to_string(flags)));
}

Answer Channel::Synchronous(UINT32 number, UINT32 bytes, UINT32 flags, const std::string& timeout,
                            UINT32 capacity) const {
  const std::string text =
      Do("sync", std::to_string(number) + " " + std::to_string(bytes) + " " +
                     std::to_string(flags) + " " + timeout + " " + std::to_string(capacity));
  const std::vector<std::string> words = SplitAt(text, ' ');
  Answer answer{.status = ToStatus(words.at(0))};
  if (words.size() > 1) {
    answer.bytes = static_cast<UINT32>(std::stoul(words[1]));
  }
  answer.intact = std::ranges::count(words, "intact") != 0;
  answer.overrun = std::ranges::count(words, "overrun") != 0;
  return answer;
}

void Channel::Complete(UINT32 number) const {
  EXPECT_EQ(Do("complete", std::to_string(number)), "ok") << "packet " << number;
}

testing::AssertionResult Channel::Wait(const std::string& event, int count) const {
  const std::string answer = Do("wait", std::to_string(count) + " " + event);
  if (answer == "ok") {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << answer << " waiting for " << count << " x \"" << event
                                     << "\"; seen: " << testing::PrintToString(Names());
}

testing::AssertionResult Channel::WaitQueued(UINT64 count) const {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (std::chrono::steady_clock::now() < deadline) {
    if (Counters().Queued >= count) {
      return testing::AssertionSuccess();
    }
    std::this_thread::yield();
  }
  return testing::AssertionFailure() << "queued: " << Counters().Queued;
}

void Channel::On(const std::string& event, const std::string& line) const {
  Do("on", event + " then " + line);
}

std::vector<Event> Channel::Events() const {
  std::vector<Event> events;
  for (const std::string& item : SplitAt(Do("events"), ';')) {
    const std::size_t bar = item.find('|');
    events.push_back({item.substr(0, bar), bar == std::string::npos ? "" : item.substr(bar + 1)});
  }
  return events;
}

std::vector<std::string> Channel::Names() const {
  std::vector<std::string> names;
  for (const Event& event : Events()) {
    names.push_back(event.name);
  }
  return names;
}

std::vector<std::string> Channel::Names(const std::vector<std::string>& words) const {
  std::vector<std::string> names = Names();
  std::erase_if(names, [&](const std::string& name) {
    return std::ranges::none_of(words,
                                [&](const std::string& word) { return BeginsWith(name, word); });
  });
  return names;
}

std::size_t Channel::Position(const std::string& event) const {
  const std::vector<std::string> names = Names();
  const auto found = std::ranges::find(names, event);
  if (found == names.end()) {
    ADD_FAILURE() << "no event \"" << event << "\" in " << testing::PrintToString(names);
  }
  return static_cast<std::size_t>(found - names.begin());
}

std::size_t Channel::Count(const std::string& event) const {
  const std::vector<std::string> names = Names();
  return static_cast<std::size_t>(std::ranges::count(names, event));
}

std::string Channel::Detail(const std::string& event, const std::string& key) const {
  for (const Event& candidate : Events()) {
    if (candidate.name == event) {
      for (const std::string& word : SplitAt(candidate.detail, ' ')) {
        if (word.starts_with(key + "=")) {
          return word.substr(key.size() + 1);
        }
      }
    }
  }
  ADD_FAILURE() << "no " << key << " in an event \"" << event << "\"";
  return "";
}

KMCL_CHANNEL_COUNTERS Channel::Counters() const {
  const std::vector<std::string> words = SplitAt(Do("get", "counters"), ' ');
  KMCL_CHANNEL_COUNTERS counters{};
  const std::array<UINT64*, 16> fields{&counters.PacketsSent,
                                       &counters.BytesSent,
                                       &counters.CompletionsSent,
                                       &counters.PacketsReceived,
                                       &counters.BytesReceived,
                                       &counters.CompletionsReceived,
                                       &counters.CompletionsUnexpected,
                                       &counters.Batches,
                                       &counters.BellsRung,
                                       &counters.BellsReceived,
                                       &counters.RingFull,
                                       &counters.TransactionsStarted,
                                       &counters.TransactionsCompleted,
                                       &counters.TransactionsCancelled,
                                       &counters.Outstanding,
                                       &counters.Queued};
  if (words.size() != fields.size() + 1) {
    ADD_FAILURE() << "no counters: " << testing::PrintToString(words);
    return counters;
  }
  EXPECT_EQ(ToStatus(words[0]), STATUS_SUCCESS);
  for (std::size_t i = 0; i < fields.size(); ++i) {
    *fields[i] = std::stoull(words[i + 1]);
  }
  return counters;
}

void BusFixture::SetUp() {
  if (placement() == Placement::kLocal) {
    address_ = "local:contract-" + UniqueName();
  } else {
    directory_ = testing::TempDir() + "kmcl-" + UniqueName();
    std::filesystem::create_directories(directory_);
    address_ = "unix:" + (directory_ / "bus").string();
  }
  const auto make = [](bool child) -> std::unique_ptr<Port> {
    if (child) {
      return std::make_unique<ChildPort>();
    }
    return std::make_unique<InProcessPort>();
  };
  server_port_ = make(placement() == Placement::kServerProcess);
  client_port_ = make(placement() == Placement::kClientProcess);
  ASSERT_EQ(ToStatus(server_port_->Exchange("serve " + address_ + " " + endpoint_options())),
            STATUS_SUCCESS);
  const std::vector<std::string> words =
      SplitAt(client_port_->Exchange("connect " + address_ + " " + endpoint_options()), ' ');
  ASSERT_EQ(words.size(), 2U);
  ASSERT_EQ(ToStatus(words[0]), STATUS_SUCCESS);
  client_ = words[1];
  ASSERT_EQ(server_port_->Exchange("arrived 1"), "ok");
}

void BusFixture::TearDown() {
  // A client's Disable may wait for what its server still holds; the other way round never.
  for (const auto* port : {&client_port_, &server_port_}) {
    if (*port != nullptr && !killed_.contains(port->get())) {
      EXPECT_EQ((*port)->Exchange("relax"), "ok");
    }
  }
  for (const auto* port : {&client_port_, &server_port_}) {
    if (*port != nullptr && !killed_.contains(port->get())) {
      EXPECT_EQ((*port)->Exchange("finish"), "ok");
    }
  }
  for (const Channel& channel : channels_) {
    if (!killed_.contains(&channel.port())) {
      CheckHistory(channel.Events(), true);
    }
  }
  client_port_.reset();
  server_port_.reset();
  if (!directory_.empty()) {
    std::filesystem::remove_all(directory_);
  }
}

void BusFixture::KillClient() {
  ASSERT_TRUE(client_port_->Kill());
  killed_.insert(client_port_.get());
}

void BusFixture::KillServer() {
  ASSERT_TRUE(server_port_->Kill());
  killed_.insert(server_port_.get());
}

Channel BusFixture::Add(Port& port, const std::string& allocate, const ChannelOptions& options) {
  const std::vector<std::string> words = SplitAt(port.Exchange(allocate), ' ');
  EXPECT_EQ(ToStatus(words.at(0)), STATUS_SUCCESS);
  Channel channel(port, words.at(1));
  channels_.push_back(channel);
  EXPECT_EQ(channel.Init("states"), STATUS_SUCCESS);
  if (options.packet_callback) {
    EXPECT_EQ(channel.Init(options.batch_callback ? "packets" : "packets-without-batch"),
              STATUS_SUCCESS);
  }
  if (options.maximum_packet != 0) {
    EXPECT_EQ(channel.Init("maximum " + std::to_string(options.maximum_packet)), STATUS_SUCCESS);
  }
  if (options.context_bytes != 0) {
    EXPECT_EQ(channel.Init("context " + std::to_string(options.context_bytes)), STATUS_SUCCESS);
  }
  return channel;
}

Channel BusFixture::AddServer(const ChannelOptions& options) {
  Channel channel = Add(*server_port_, "allocate server", options);
  EXPECT_EQ(channel.Init("interface " + std::to_string(options.type) + " " + options.instance),
            STATUS_SUCCESS);
  EXPECT_EQ(channel.Init("partition " + std::to_string(options.partition)), STATUS_SUCCESS);
  return channel;
}

Channel BusFixture::AddClient(const ChannelOptions& options) {
  Channel channel = Add(*client_port_, "allocate client " + client_, options);
  EXPECT_EQ(channel.Init("target " + std::to_string(options.type) + " " + options.instance),
            STATUS_SUCCESS);
  if (options.pages != 0) {
    const std::string pages = std::to_string(options.pages);
    EXPECT_EQ(channel.Init("pages " + pages + " " + pages), STATUS_SUCCESS);
  }
  return channel;
}

void BusFixture::Open(const Channel& server, const Channel& client) {
  const int before_server = static_cast<int>(server.Count("PostStarted"));
  const int before_client = static_cast<int>(client.Count("PostStarted"));
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(client.Wait("PostStarted", before_client + 1));
  ASSERT_TRUE(server.Wait("PostStarted", before_server + 1));
}

void BusFixture::Mark(const Channel& from, const Channel& to) {
  const UINT32 mark = next_mark_++;
  ASSERT_EQ(from.Send(mark), STATUS_SUCCESS);
  ASSERT_TRUE(to.Wait("packet " + std::to_string(mark)));
}

void BusFixture::WaitForPackets(const Channel& at, UINT32 first, UINT32 count) {
  for (UINT32 i = 0; i < count; ++i) {
    ASSERT_TRUE(at.Wait("packet " + std::to_string(first + i)));
  }
}

testing::AssertionResult BusFixture::WaitDisconnected() {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (std::chrono::steady_clock::now() < deadline) {
    if (client_port_->Exchange("connected " + client_) == "0") {
      return testing::AssertionSuccess();
    }
    std::this_thread::yield();
  }
  return testing::AssertionFailure() << "still connected";
}

void SidedBusTest::OpenPaused(const ChannelOptions& options) {
  const Channel server = AddServer(options);
  const Channel client = AddClient(options);
  receiver_ = server_receives() ? server : client;
  sender_ = server_receives() ? client : server;
  if (!server_receives()) {
    client.Pause();  // before Enable: the open does not start it
  }
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  if (!server_receives()) {
    server.Start();
  }
  ASSERT_TRUE(receiver_->Wait("Opened"));
  ASSERT_TRUE(sender_->Wait("PostStarted"));
}

void SidedBusTest::Fill(UINT32 first, UINT32 count, UINT32 bytes) {
  ASSERT_NO_FATAL_FAILURE(sender_->SendMany(first, count, bytes));
  for (UINT32 i = 0; i < count; ++i) {
    ASSERT_TRUE(sender_->Wait("done " + std::to_string(first + i) + " STATUS_SUCCESS"));
  }
}

}  // namespace kmcl::contract

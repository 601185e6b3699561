// A bus with a server and a client on it, and handles to their channels, wherever each of the two
// lives.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kmcl/endpoint.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "port.h"

namespace kmcl::contract {

// Where the two ends are.
enum class Placement : unsigned char {
  kLocal,          // one process, local:NAME
  kSharedMemory,   // one process, unix:PATH
  kClientProcess,  // unix:PATH, the client in a child process
  kServerProcess,  // unix:PATH, the server in a child process
};

std::string PlacementName(Placement placement);
inline void PrintTo(Placement placement, std::ostream* out) { *out << PlacementName(placement); }

inline auto AllPlacements() {
  return testing::Values(Placement::kLocal, Placement::kSharedMemory, Placement::kClientProcess,
                         Placement::kServerProcess);
}

// A status that prints its name.
struct Status {
  NTSTATUS value = STATUS_SUCCESS;
  Status(NTSTATUS status) : value(status) {}  // NOLINT: compared with constants
  friend bool operator==(const Status&, const Status&) = default;
  friend void PrintTo(const Status& status, std::ostream* out) {
    *out << KmclStatusName(status.value);
  }
};

inline constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

// What a synchronous request gave.
struct Answer {
  Status status;
  UINT32 bytes = 0;
  bool intact = false;   // the answer to this request, byte for byte
  bool overrun = false;  // more was written than there was room
};

// One channel at one end. A handle: copies mean the same channel.
class Channel {
 public:
  Channel(Port& port, std::string id) : port_(&port), id_(std::move(id)) {}

  // The driver's verb on this channel; see driver.cc.
  std::string Do(const std::string& verb, const std::string& words = "") const;
  Status Init(const std::string& words) const;
  Status Enable() const;
  void Disable() const { Do("disable"); }
  void Start() const { Do("start"); }
  void Pause() const { Do("pause"); }
  void Cleanup() const { Do("cleanup"); }
  // The call in a thread of its own; the event "returned VERB ANSWER" tells of its end.
  void Async(const std::string& verb, const std::string& words = "") const;
  void Set(const std::string& what, std::int64_t value) const;

  // Sends one packet that frees itself.
  Status Send(UINT32 number, UINT32 bytes = 16, UINT32 flags = 0) const;
  // Sends `count` packets, numbered from `first`, and fails the test if one is refused.
  void SendMany(UINT32 first, UINT32 count, UINT32 bytes = 16, UINT32 flags = 0) const;
  // A packet object for SendPacket: "allocate" or "initialize".
  std::string MakePacket(const std::string& how = "allocate") const;
  Status SendPacket(const std::string& packet, UINT32 number, UINT32 bytes = 16,
                    UINT32 flags = 0) const;
  Answer Synchronous(UINT32 number, UINT32 bytes, UINT32 flags, const std::string& timeout,
                     UINT32 capacity) const;
  void Complete(UINT32 number) const;

  // Whether the event was recorded `count` times before the deadline; tells the events if not.
  testing::AssertionResult Wait(const std::string& event, int count = 1) const;
  // Until that many packets wait for room; asks again and again, for the queue tells nobody.
  testing::AssertionResult WaitQueued(UINT64 count) const;
  void Gate(const std::string& event) const { Do("gate", event); }
  void Release(const std::string& event) const { Do("release", event); }
  void On(const std::string& event, const std::string& line) const;

  std::vector<Event> Events() const;
  std::vector<std::string> Names() const;
  // Those of the names that begin with one of the words.
  std::vector<std::string> Names(const std::vector<std::string>& words) const;
  // Position of the first event of that name; fails the test if there is none.
  std::size_t Position(const std::string& event) const;
  std::size_t Count(const std::string& event) const;
  // The value of KEY in the detail of the first event of that name.
  std::string Detail(const std::string& event, const std::string& key) const;

  KMCL_CHANNEL_COUNTERS Counters() const;
  const std::string& id() const { return id_; }
  Port& port() const { return *port_; }

 private:
  Port* port_;
  std::string id_;
};

struct ChannelOptions {
  UINT32 type = 1;
  std::string instance = "1";  // of a client also "any"
  bool batch_callback = true;
  bool packet_callback = true;
  UINT32 maximum_packet = 0;  // 0 is the default
  UINT32 context_bytes = 0;
  UINT32 pages = 0;  // client: of each ring; 0 is the default
  int partition = 1;
};

class BusFixture : public testing::Test {
 protected:
  virtual Placement placement() const = 0;
  // Words for both ends: "threads N", "spin MICROSECONDS", "version NUMBER".
  virtual std::string endpoint_options() const { return ""; }

  // A served address and one connected client.
  void SetUp() override;
  // Disables every channel and checks the rules that hold for all of them (CheckHistory).
  void TearDown() override;

  Channel AddServer(const ChannelOptions& options = {});
  Channel AddClient(const ChannelOptions& options = {});
  // Enables both ends, starts the server's, and waits until both are Active.
  void Open(const Channel& server, const Channel& client);
  // Delivers one more packet from one end to the other; all that went before has arrived then.
  void Mark(const Channel& from, const Channel& to);
  // Packets first .. first + count - 1 have been delivered.
  void WaitForPackets(const Channel& at, UINT32 first, UINT32 count);

  // The client has noticed that its server is gone.
  testing::AssertionResult WaitDisconnected();

  Port& server_port() { return *server_port_; }
  Port& client_port() { return *client_port_; }
  const std::string& address() const { return address_; }
  const std::string& client() const { return client_; }
  // The channel's end did not come to a proper end on purpose: its process was killed.
  void KillClient();
  void KillServer();
  bool two_processes() const {
    return placement() == Placement::kClientProcess || placement() == Placement::kServerProcess;
  }

 private:
  Channel Add(Port& port, const std::string& allocate, const ChannelOptions& options);

  std::filesystem::path directory_;
  std::string address_;
  std::unique_ptr<Port> server_port_;
  std::unique_ptr<Port> client_port_;
  std::set<Port*> killed_;
  std::string client_;
  std::vector<Channel> channels_;
  UINT32 next_mark_ = 1'000'000;
};

class BusTest : public BusFixture, public testing::WithParamInterface<Placement> {
 protected:
  Placement placement() const override { return GetParam(); }
};

// Which end of the channel receives in a scenario that fits both.
enum class Receiver : unsigned char { kServer, kClient };
using Side = std::tuple<Placement, Receiver>;

// A channel whose receiver is open but paused, so that a scenario can fill the ring first.
class SidedBusTest : public BusFixture, public testing::WithParamInterface<Side> {
 protected:
  Placement placement() const override { return std::get<0>(GetParam()); }
  bool server_receives() const { return std::get<1>(GetParam()) == Receiver::kServer; }

  // Opens a channel; the sender is Active, the receiver is open and Paused.
  void OpenPaused(const ChannelOptions& options = {});
  const Channel& receiver() const { return *receiver_; }
  const Channel& sender() const { return *sender_; }
  // Sends packets and waits until they are in the ring.
  void Fill(UINT32 first, UINT32 count, UINT32 bytes = 16);

 private:
  std::optional<Channel> receiver_;
  std::optional<Channel> sender_;
};

inline auto AllSides() {
  return testing::Combine(AllPlacements(), testing::Values(Receiver::kServer, Receiver::kClient));
}

// Names for INSTANTIATE_TEST_SUITE_P.
inline std::string NameOfPlacement(const testing::TestParamInfo<Placement>& info) {
  return PlacementName(info.param);
}
inline std::string NameOfSide(const testing::TestParamInfo<Side>& info) {
  return PlacementName(std::get<0>(info.param)) +
         (std::get<1>(info.param) == Receiver::kServer ? "_ServerReceives" : "_ClientReceives");
}

// What holds for every channel at any time (KMCL reference 4.5, 6.2): callbacks are paired and
// never overlap, packets are delivered between Started and Suspend only, and batches count them
// exactly.
void CheckHistory(const std::vector<Event>& events, bool complete);

}  // namespace kmcl::contract

// What one run does, drawn from its seed before it begins: who is there, what each of them does,
// and what goes wrong. A plan can be written down with some of its steps left out, which is how a
// failure is shrunk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kmcl::sim {

enum class Verb : std::uint8_t {
  kSend,       // `amount` packets, as they fit
  kSync,       // one synchronous request, for up to `amount` us
  kSleep,      // `amount` us
  kSettle,     // until everything sent is done
  kPause,      // and start again after `amount` us
  kReopen,     // disable and enable
  kReconnect,  // a client leaves and comes back
  kQuota,      // `amount` packets outstanding
  kPassive,    // deliveries at PASSIVE_LEVEL only, or not
  kSave,       // a server's channel is saved, and succeeded by a restored one if `amount` is odd
  kRefuse,     // the system refuses calls of kind `channel`, `amount` of them
  kDie,        // process `channel` as a whole, between any two of its steps; it comes back
  kCorrupt,    // `amount` places in the memory of client `channel`
  kForge,      // `amount` messages of client `channel`
  kKnock,      // `amount` strangers come to the server's socket, one after the other
  kHandOver,   // the server goes to another process; 1: its save fails, 2: the restore does, 3: it
               // dies meanwhile, 4: the other one does
  kNow,        // a packet that goes into the ring now, or not at all
  kBatch,      // `amount` packets at once
  kShare,      // memory of a client's is shared, and worked on in one request of up to `amount` us
  kAsk,        // what a channel and its bus say of themselves
  kLatency,    // the server may notice a client's packets `amount` * 100 ns late
  kBudget,     // `amount` of 100 parts of a processor for deliveries at DISPATCH_LEVEL
  kSpoil,      // the next packet that comes is found malformed; then as kReopen
};
inline constexpr std::uint32_t kVerbs = 23;
// Who does what nobody would do to himself.
inline constexpr std::uint32_t kWorldActor = 100;

struct Action {
  std::uint32_t actor = 0;  // two for each process, whose number is actor / 2; or kWorldActor
  Verb verb = Verb::kSleep;
  std::uint32_t channel = 0;
  std::uint32_t amount = 0;
};

// How delivered packets are retired.
enum class Retirement : std::uint8_t { kInline, kDeferred, kLater, kMixed };

struct Plan {
  std::uint64_t seed = 0;
  bool local = false;  // both ends in one process, else over a socket
  std::uint32_t clients = 1;
  std::uint32_t channels = 1;  // of each client
  std::uint32_t subchannels =
      0;                  // of each client's first channel; their numbers follow the channels'
  std::uint32_t raw = 0;  // ends of each client's last channel: 1 the server's, 2 the client's
  std::uint32_t ring_pages = 4;
  std::uint32_t payload_bytes = 64;  // at most
  std::uint32_t slots = 4;           // packets in flight from each end
  std::uint32_t transactions = 50;   // of 100 packets want a completion
  std::uint32_t external = 0;        // of 100 of a client's that do describe memory
  std::uint32_t dispatch_threads = 1;
  std::uint32_t spin_us = 0;
  Retirement retirement = Retirement::kInline;
  std::uint32_t slow_us = 0;         // some callbacks take so long
  std::uint32_t hostile_client = 0;  // or none
  bool refusals = false;             // the system refuses things now and then
  std::vector<Action> actions;

  // A sub-channel may meet any of the other end's.
  bool MayMeetRawServer(std::uint32_t channel) const {
    return IsRaw(channel < channels ? channel : channels + subchannels - 1, true);
  }
  bool IsRaw(std::uint32_t channel, bool server) const {
    return channel + 1 == channels + subchannels && (raw & (server ? 1u : 2u)) != 0;
  }
};

Plan MakePlan(std::uint64_t seed);
std::string Describe(const Plan& plan);
std::string Describe(const Action& action);

}  // namespace kmcl::sim

// What a channel needs from around it: somebody to tell, and turns on the right threads.
//
// The channel's owner implements Handler (the C edge does, and so do tests); the endpoint implements
// Turns. Neither is ever called under a lock of the channel.
#pragma once

#include <cstdint>
#include <span>

#include "channel/packet.h"
#include "result.h"

namespace kmcl::channel {

// The level at which packet callbacks run: on a dispatch thread that must not block, or on a thread
// that may.
enum class Level : std::uint8_t { kPassive, kDispatch };

class Handler {
 public:
  virtual ~Handler() = default;

  // State callbacks: one at a time for a channel, on a passive thread.
  // OnOpened says whether the open shall stand.
  virtual bool OnOpened() = 0;
  virtual void OnClosed() = 0;
  virtual void OnSuspend() = 0;
  virtual void OnStarted() = 0;
  virtual void OnPostStarted() = 0;
  virtual void OnConnectFailed(Error error) = 0;

  // Packet callbacks: one at a time for a channel, at the level that was asked for.
  virtual void OnPacket(IncomingPacket& packet) = 0;
  virtual void OnBatchEnd(std::uint32_t packets) = 0;

  // Save and restore, on the thread that asks for it. The results are the owner's own statuses, handed
  // back to whoever asked; negative is a failure. OnSavePacket says in `needed` how many bytes it wants
  // to keep when `buffer` is empty, by a failure; and fills a buffer of that size. OnRestorePacket
  // calls Channel::RestorePacket with `library`.
  virtual std::int32_t OnSavePacket(Packet& packet, std::span<std::byte> buffer,
                                    std::uint32_t& needed) {
    (void)packet, (void)buffer, (void)needed;
    return 0;
  }
  virtual std::int32_t OnRestorePacket(std::span<const std::byte> library,
                                       std::span<const std::byte> driver) {
    (void)library, (void)driver;
    return -1;
  }

  // External data. A packet that describes memory has ended, in whatever way; its completion routine is
  // called, or its waiter woken, behind this. Unless `outcome` is kSuccess, the peer may still use the
  // memory if the packet's transaction id is not 0: until OnLateCompletion of that id, or OnDetached.
  virtual void OnExternalDone(Packet& packet, Outcome outcome) { (void)packet, (void)outcome; }
  // A completion that nobody waits for any more, perhaps of a packet that was cancelled.
  virtual void OnLateCompletion(wire::TransactionId id) { (void)id; }
  // The channel is closed at both ends: the peer uses nothing of ours any more.
  virtual void OnDetached() {}

  // The completion routine of a packet; may overlap anything.
  virtual void OnPacketDone(Packet& packet, Outcome outcome, std::span<std::byte> reply) = 0;

  // What an owner is asked who watches its driver (Config::watched). It makes the packets to send itself,
  // by Channel::InitializePacket; nullptr without memory. Any thread.
  virtual Packet* OnAllocatePacket() { return nullptr; }
  // A received packet was to be retired that is not outstanding, or to be deferred at the wrong time. An
  // owner that gave its driver another object in the packet's place retires the true one now. Any thread.
  // False: there is nothing to retire.
  enum class Retire : std::uint8_t { kComplete, kDefer, kFail };
  virtual bool OnNotOutstanding(IncomingPacket&, Retire, std::span<const std::byte> /*reply*/) {
    return false;
  }
};

// Asks for a turn. Each call leads to at least one later turn of that kind; none is taken inside the
// call. May be called from any thread.
class Turns {
 public:
  virtual ~Turns() = default;
  virtual void RequestDispatch() = 0;  // Channel::Dispatch on the channel's dispatch thread
  virtual void RequestPassive() = 0;   // Channel::DeliverPassive on a passive thread
  virtual void RequestState() = 0;     // Channel::RunState on a passive thread, never twice at once
};

}  // namespace kmcl::channel

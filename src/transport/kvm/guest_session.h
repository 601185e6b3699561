// What stands between a guest's processors and the link that serves one life of the guest: the
// messages it posted, and its signals for each channel. The processors never wait here: what finds
// no room is refused, and the guest tries again.
//
// A signal comes as an exit of a processor, which sets the channel's flag in its inbox. Or, where
// KVM can (SignalRoutes), it writes an eventfd of the channel's without an exit; then the inbox is
// an epoll of those, and the flags stay for what still comes as an exit.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "mutex.h"
#include "transport/descriptor.h"
#include "transport/kvm/signal_routes.h"
#include "transport/link.h"

namespace kmcl::transport::kvm {

class GuestSession {
 public:
  // Messages that the guest may be ahead of the bus thread. Linux posts all parts of a long GPADL
  // without a pause, up to some 300; beyond this it is told to try again, which it does.
  static constexpr std::size_t kMostMessages = 512;

  // With so many inboxes. `routes` may be null; else it outlives everything but the memory of an
  // ended session. kOutOfDescriptors.
  [[nodiscard]] static Result<std::shared_ptr<GuestSession>> Create(std::uint32_t inbox_count,
                                                                    SignalRoutes* routes);
  ~GuestSession();

  // ---- The processors'. Any thread.

  enum class Posted : std::uint8_t { kDone, kFull, kEnded };
  Posted Post(std::span<const std::byte> message) KMCL_EXCLUDES(mutex_);
  // False: nobody listens to this channel.
  bool Signal(wire::ChannelId channel);

  // ---- The link's.

  // As Link::Receive. The bus thread's.
  ReceivedMessage Receive(std::span<std::byte> buffer) KMCL_EXCLUDES(mutex_);
  int message_fd() const { return arrived_.get(); }
  BellInbox& inbox(std::uint32_t index);
  // Any thread.
  void ListenTo(wire::ChannelId channel, bool wanted) KMCL_EXCLUDES(routed_mutex_);

  // The guest is gone, or is served no more. Any thread.
  void End() KMCL_EXCLUDES(mutex_, routed_mutex_);
  // Channels whose signals need no exit. Any thread.
  std::size_t routed() const KMCL_EXCLUDES(routed_mutex_);
  bool ended() const { return ended_.load(std::memory_order_acquire); }

 private:
  class Inbox;
  struct Message {
    std::size_t bytes = 0;
    std::array<std::byte, kMaximumMessageBytes> payload;
  };

  explicit GuestSession(SignalRoutes* routes);
  void Connect(std::uint32_t channel) KMCL_EXCLUDES(routed_mutex_);
  using Routed = std::map<std::uint32_t, Descriptor>;  // by channel
  void Disconnect(Routed::iterator channel) KMCL_REQUIRES(routed_mutex_);

  SignalRoutes* const routes_;
  Descriptor arrived_;  // non-blocking eventfd: a message waits, or the session has ended
  std::vector<std::unique_ptr<Inbox>> inboxes_;
  std::array<std::atomic<std::uint64_t>, std::tuple_size_v<ChannelSet>> listened_{};
  std::atomic<bool> ended_{false};  // set under the mutex

  mutable Mutex routed_mutex_;
  Routed routed_ KMCL_GUARDED_BY(routed_mutex_);
  bool routes_ended_ KMCL_GUARDED_BY(routed_mutex_) = false;

  Mutex mutex_;
  std::deque<Message> messages_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::transport::kvm

// Where a guest's hypercalls meet the server: one listener, and one link for each life of the
// guest, from its first message to its reset.
//
//   processors' threads   Call
//   bus thread            the listener and the links
//   the machine's owner   Reset
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "log_limit.h"
#include "mutex.h"
#include "transport/descriptor.h"
#include "transport/kvm/guest_memory.h"
#include "transport/kvm/guest_session.h"
#include "transport/kvm/hypercall.h"
#include "transport/kvm/synic.h"
#include "transport/link.h"

namespace kmcl::transport::kvm {

// The link of one life of the guest. Threads as Link says.
class GuestLink;

class GuestBus : public std::enable_shared_from_this<GuestBus> {
 public:
  // Borrows all; they outlive the listener and every link. `routes` may be null: every signal is an
  // exit then. kOutOfDescriptors.
  [[nodiscard]] static Result<std::shared_ptr<GuestBus>> Create(GuestMemory& memory, Synic& synic,
                                                                std::uint32_t processor_count,
                                                                SignalRoutes* routes = nullptr);

  // A hypercall of the guest's, with its RCX and RDX. Any thread; never waits for anyone.
  HypercallStatus Call(std::uint64_t control, std::uint64_t input) KMCL_EXCLUDES(mutex_);

  struct Counts {
    std::uint64_t messages = 0;  // calls, refused ones included
    std::uint64_t signals = 0;
    std::uint64_t refused = 0;          // of these two, and other calls
    std::uint64_t routed_channels = 0;  // now
  };
  // Any thread.
  Counts counts() const KMCL_EXCLUDES(mutex_);

  // The one listener. Messages are refused before it is made and after it is gone.
  std::unique_ptr<Listener> Listen() KMCL_EXCLUDES(mutex_);

  // The guest is gone with all it had open: its link ends. Returns when nobody uses the guest's
  // memory through that link any more. No processor runs; not on a thread of the server's.
  void Reset() KMCL_EXCLUDES(mutex_);

 private:
  friend class GuestLink;
  class GuestListener;

  GuestBus(GuestMemory& memory, Synic& synic, std::uint32_t processor_count, SignalRoutes* routes,
           Descriptor arrival)
      : memory_(memory),
        synic_(synic),
        processor_count_(processor_count),
        routes_(routes),
        arrival_(std::move(arrival)) {}

  HypercallStatus Post(const PostMessage& message) KMCL_EXCLUDES(mutex_);
  HypercallStatus Signal(const SignalEvent& event) KMCL_EXCLUDES(mutex_);
  // The session that is served now, or a new one for the listener to find.
  Result<std::shared_ptr<GuestSession>> SessionForMessage() KMCL_EXCLUDES(mutex_);
  std::unique_ptr<Link> Accept() KMCL_EXCLUDES(mutex_);
  void StopListening() KMCL_EXCLUDES(mutex_);
  void OnLinkGone() KMCL_EXCLUDES(mutex_);

  GuestMemory& memory_;
  Synic& synic_;
  const std::uint32_t processor_count_;
  SignalRoutes* const routes_;
  const Descriptor arrival_;  // eventfd: a session waits to be accepted
  LogLimit refused_calls_;
  std::atomic<std::uint64_t> messages_{0};
  std::atomic<std::uint64_t> signals_{0};
  // Which processor the guest wants its messages at.
  std::atomic<std::uint32_t> message_processor_{0};

  mutable Mutex mutex_;
  CondVar changed_;
  bool listening_ KMCL_GUARDED_BY(mutex_) = false;
  bool accepted_ KMCL_GUARDED_BY(mutex_) = false;  // session_ has its link
  std::shared_ptr<GuestSession> session_ KMCL_GUARDED_BY(mutex_);
  std::uint32_t links_ KMCL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kmcl::transport::kvm

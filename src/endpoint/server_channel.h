// A channel at the server: offered to one partition.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "bus/offer.h"
#include "endpoint/channel_end.h"
#include "endpoint/server_gpadls.h"
#include "endpoint/switched_bell.h"
#include "mutex.h"
#include "transport/link.h"

namespace kmcl::endpoint {

class Partition;

class ServerChannel final : public ChannelEnd {
 public:
  ServerChannel(channel::Handler& handler, PassivePool& pool);

  // For the owner, in the Init window.
  struct Setup {
    bus::OfferParameters offer;
    bool has_offer = false;  // interface type and instance were set
    std::uint8_t target_vtl = 0;
    bool force_new = false;  // never take a saved channel's place
    std::shared_ptr<Partition> partition;
  };
  Setup& setup() { return setup_; }

  // kNotDisabled, kNotConfigured, kNoBus (the partition is gone), kOfferDuplicate,
  // kChannelIdsExhausted.
  [[nodiscard]] Result<void> Enable() override;
  // Sub-channels go first, and none is enabled until their primary has gone. (A client's follow
  // from the close of their primary.)
  void Disable() override;

  // What this channel is called in its saves.
  channel::ChannelName name() const;
  // As channel::Channel::Restore; an enabled channel that is complete then takes the client's
  // rings.
  [[nodiscard]] std::expected<channel::Channel::Restored, channel::SaveFailure> Restore(
      std::span<const std::byte> buffer);

  // GPADLs that the client made; any thread. MapGpadl: an MDL chain in the partition's pages, good
  // until UnmapGpadl. Errors as ServerGpadls::Map and Unmap.
  [[nodiscard]] Result<PMDL> MapGpadl(wire::GpadlId gpadl, wdk::Access access)
      KMCL_EXCLUDES(mutex_);
  [[nodiscard]] Result<void> UnmapGpadl(wire::GpadlId gpadl) KMCL_EXCLUDES(mutex_);

 private:
  friend class Partition;
  void CarryOut(channel::BusRequest request) override;
  // The offer's, while the channel is open at this end.
  void SetGpadls(std::shared_ptr<ServerGpadls> gpadls) KMCL_EXCLUDES(mutex_);
  std::shared_ptr<ServerGpadls> gpadls() KMCL_EXCLUDES(mutex_);

  Setup setup_;
  // Threads that disable it. A handshake with Enable of its sub-channels: this and then the
  // sub-channel's phase there, the phase and then this here.
  std::atomic<std::uint32_t> disablers_{0};

  // The partition's, on its bus thread.
  std::optional<wire::ChannelId> id_;  // while offered
  std::optional<wire::GpadlId> ring_gpadl_;
  bool ring_release_owed_ = false;
  bool reattaching_ = false;       // opening without the client's asking
  bool closed_meanwhile_ = false;  // by the client, before that was done
  transport::RingMapping rings_;
  std::shared_ptr<SwitchedBell> bell_;

  Mutex mutex_;
  std::shared_ptr<ServerGpadls> gpadls_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::endpoint

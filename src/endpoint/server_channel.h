// A channel at the server: offered to one partition.
#pragma once

#include <memory>
#include <optional>

#include "bus/offer.h"
#include "endpoint/channel_end.h"
#include "endpoint/switched_bell.h"
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
    std::shared_ptr<Partition> partition;
  };
  Setup& setup() { return setup_; }

  // kNotDisabled, kNotConfigured, kNoBus (the partition is gone), kOfferDuplicate,
  // kChannelIdsExhausted.
  [[nodiscard]] Result<void> Enable() override;

 private:
  friend class Partition;
  void CarryOut(channel::BusRequest request) override;

  Setup setup_;

  // The partition's, on its bus thread.
  std::optional<wire::ChannelId> id_;  // while offered
  std::optional<wire::GpadlId> ring_gpadl_;
  bool ring_release_owed_ = false;
  transport::RingMapping rings_;
  std::shared_ptr<SwitchedBell> bell_;
};

}  // namespace kmcl::endpoint

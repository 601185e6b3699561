// A channel at the client: bound to one offer while it is open.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "endpoint/channel_end.h"
#include "endpoint/switched_bell.h"
#include "mutex.h"
#include "transport/link.h"
#include "wire/guid.h"

namespace kmcl::endpoint {

class Client;

class ClientChannel final : public ChannelEnd {
 public:
  ClientChannel(Client& client, channel::Handler& handler, PassivePool& pool);

  // For the owner, in the Init window.
  struct Setup {
    std::optional<wire::Guid> interface_type;
    std::optional<wire::Guid> instance;  // any, if not set
    std::uint32_t incoming_pages = 0;    // 0: a default
    std::uint32_t outgoing_pages = 0;
  };
  Setup& setup() { return setup_; }

  // kNotDisabled, kNotConfigured (no target), kNoBus (disconnected). Waits for nothing.
  [[nodiscard]] Result<void> Enable() override;

  // What the bound offer says. The instance is what was set, or zero, while no offer is bound.
  struct Binding {
    wire::Guid instance;
    std::uint16_t mmio_megabytes = 0;
  };
  Binding binding() const KMCL_EXCLUDES(mutex_);

 private:
  friend class Client;

  // How far the channel is on the bus.
  enum class Stage : std::uint8_t {
    kNone,         // not on the bus
    kWaiting,      // for an offer that matches
    kDescribing,   // the ring's GPADL is on its way
    kOpening,      // OPEN_CHANNEL is on its way
    kOpen,         //
    kTearingDown,  // the ring's GPADL is being taken back
  };

  void CarryOut(channel::BusRequest request) override;
  void SetBinding(const Binding& binding) KMCL_EXCLUDES(mutex_);
  void SetOffBus(bool off_bus) KMCL_EXCLUDES(mutex_);

  Client& client_;
  Setup setup_;

  // The client's, on its bus thread.
  Stage stage_ = Stage::kNone;
  bool release_wanted_ = false;  // the engine is done with the bus
  bool close_said_ = false;
  bool wait_again_ = false;  // for another offer, once this one is let go of
  std::optional<wire::ChannelId> id_;  // of the bound offer
  std::optional<wire::GpadlId> ring_gpadl_;
  transport::PageRun pages_;
  std::uint32_t downstream_page_ = 0;
  transport::RingMapping rings_;
  std::shared_ptr<SwitchedBell> bell_;

  mutable Mutex mutex_;
  CondVar changed_;
  Binding binding_ KMCL_GUARDED_BY(mutex_);
  bool off_bus_ KMCL_GUARDED_BY(mutex_) = true;
};

}  // namespace kmcl::endpoint

// A channel at the client: bound to one offer while it is open.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "bus/client.h"
#include "endpoint/channel_end.h"
#include "endpoint/switched_bell.h"
#include "endpoint/transfers.h"
#include "mutex.h"
#include "transport/link.h"
#include "wire/gpa_range.h"
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
    std::optional<std::uint32_t> processor;  // the dispatch thread; in turn, if not set
  };
  Setup& setup() { return setup_; }

  // kNotDisabled, kNotConfigured (no target), kNoBus (disconnected). Waits for nothing.
  [[nodiscard]] Result<void> Enable() override;

  // The connection that its memory goes by, and the external data on its way. Any thread.
  const std::shared_ptr<transport::ClientLink>& link() const;
  Transfers& transfers() { return transfers_; }

  // As Client::SetLatency.
  [[nodiscard]] Result<std::uint16_t> SetLatency(std::uint16_t latency);

  // What the bound offer says, or said. The instance is what was set, or zero, before there was one.
  struct Binding {
    wire::Guid instance;
    std::uint16_t mmio_megabytes = 0;
    bool bound = false;
  };
  Binding binding() const KMCL_EXCLUDES(mutex_);

  // GPADLs of the driver; any thread that may block, but not the bus thread.
  // Where memory of this process stands in what the server sees (transport::ClientLink::PageOf).
  std::optional<wire::PageNumber> PageOf(const void* address) const;
  // Describes memory to the server, and waits for its answer. The server may use the memory until
  // DeleteGpadl has returned. kChannelState (not open), kDeviceRemoved (closed, rescinded or
  // disconnected before the answer), kLimitExceeded (the server refuses), kGpadlTooLarge.
  [[nodiscard]] Result<wire::GpadlId> CreateGpadl(const wire::GpaRangeList& ranges,
                                                  bus::GpadlAccess access) KMCL_EXCLUDES(mutex_);
  // Takes it back, and waits until the server uses it no more. kGpadlUnknown, kGpadlState (somebody
  // else is at it).
  [[nodiscard]] Result<void> DeleteGpadl(wire::GpadlId gpadl) KMCL_EXCLUDES(mutex_);

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

  // How far a GPADL of the driver is.
  enum class GpadlStage : std::uint8_t { kCreating, kCreated, kDeleting };
  using Gpadls = std::map<wire::GpadlId, GpadlStage>;

  void CarryOut(channel::BusRequest request) override;
  void SetBinding(const Binding& binding) KMCL_EXCLUDES(mutex_);
  void SetUnbound() KMCL_EXCLUDES(mutex_);
  void SetOffBus(bool off_bus) KMCL_EXCLUDES(mutex_);
  void SetGpadl(wire::GpadlId gpadl, GpadlStage stage) KMCL_EXCLUDES(mutex_);
  void ForgetGpadl(wire::GpadlId gpadl) KMCL_EXCLUDES(mutex_);
  Gpadls gpadls() const KMCL_EXCLUDES(mutex_);
  // Sub-channels close before their primary does.
  void CloseSubchannels();
  void AwaitUnbound() KMCL_EXCLUDES(mutex_);

  Client& client_;
  Transfers transfers_;
  Setup setup_;

  // The client's, on its bus thread.
  Stage stage_ = Stage::kNone;
  bool release_wanted_ = false;  // the engine is done with the bus
  bool close_said_ = false;
  bool has_opened_ = false;  // EvtChannelOpened has returned: its sub-channels may bind
  bool leaving_ = false;     // its sub-channels close, and none binds any more
  bool wait_again_ = false;  // for another offer, once this one is let go of
  std::optional<wire::ChannelId> id_;  // of the bound offer
  std::optional<wire::GpadlId> ring_gpadl_;
  transport::PageRun pages_;
  std::uint32_t downstream_page_ = 0;
  transport::RingMapping rings_;
  bool rings_in_use_ = false;  // somebody else has initialised them
  std::shared_ptr<SwitchedBell> bell_;
  Monitor monitor_;  // if the bound offer has one
  std::uint16_t latency_ = 0;

  mutable Mutex mutex_;
  CondVar changed_;
  Binding binding_ KMCL_GUARDED_BY(mutex_);
  bool off_bus_ KMCL_GUARDED_BY(mutex_) = true;
  // The ring's is not among them. Changed by the bus thread only; who waits for one looks at it.
  Gpadls gpadls_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::endpoint

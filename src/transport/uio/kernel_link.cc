#include "transport/uio/kernel_link.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <variant>

#include "log.h"

namespace kmcl::transport::uio {
namespace {

// The newest that Linux speaks. Of what came later nothing can be had through it.
constexpr wire::Version kNewest = wire::Version::kIron;
// How long to wait for what the kernel does not announce: twice as long each time.
constexpr std::chrono::milliseconds kLookAgainAfter{2};
constexpr std::chrono::milliseconds kLookAgainAtMost{1000};

class KernelDoorbell final : public Doorbell {
 public:
  explicit KernelDoorbell(std::shared_ptr<KernelChannel> channel) : channel_(std::move(channel)) {}
  void Ring() override { channel_->Ring(); }

 private:
  const std::shared_ptr<KernelChannel> channel_;
};

Error ErrorOfDescriptors() {
  return errno == ENOMEM ? Error::kOutOfMemory : Error::kOutOfDescriptors;
}

// What a call that makes a descriptor returned: why it failed is asked before anything else is
// called.
Result<Descriptor> Made(int fd) {
  if (fd < 0) return std::unexpected(ErrorOfDescriptors());
  return Descriptor(fd);
}

}  // namespace

bool KernelLink::Offered::IsSameAs(const Offered& other) const {
  const auto index = [](const Offered& each) {
    return each.subchannel ? each.subchannel->index : 0;
  };
  return device.interface_type == other.device.interface_type &&
         device.instance == other.device.instance && index(*this) == index(other);
}

// ---- From the beginning to the end.

Result<std::unique_ptr<KernelLink>> KernelLink::Dial(KernelBus bus,
                                                     const std::optional<wire::Guid>& instance,
                                                     const DialOptions& options) {
  if (!bus.present()) return std::unexpected(Error::kAddressUnreachable);
  auto own = PartitionMemory::Create(0, options.maximum_memory_bytes);
  if (!own) return std::unexpected(own.error());
  std::unique_ptr<KernelLink> link(
      new KernelLink(std::move(bus), instance, std::move(*own), DeviceEvents::Listen()));
  if (auto started = link->Start(options.bell_count); !started) {
    return std::unexpected(started.error());
  }
  return link;
}

Result<void> KernelLink::Start(std::uint32_t bell_count) {
  auto wait = Made(epoll_create1(EPOLL_CLOEXEC));
  if (!wait) return std::unexpected(wait.error());
  auto wake = Made(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return std::unexpected(wake.error());
  auto again = Made(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!again) return std::unexpected(again.error());
  wait_ = std::move(*wait);
  wake_ = std::move(*wake);
  again_ = std::move(*again);
  for (const int fd : {wake_.get(), again_.get(), events_.fd()}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (fd >= 0 && epoll_ctl(wait_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return std::unexpected(ErrorOfDescriptors());
    }
  }
  for (std::uint32_t index = 0; index < bell_count; ++index) {
    auto inbox = KernelInbox::Create([this](wire::ChannelId id) { NoteGone(id); });
    if (!inbox) return std::unexpected(inbox.error());
    inboxes_.push_back(std::move(*inbox));
  }
  return {};
}

void KernelLink::Wake() const { (void)eventfd_write(wake_.get(), 1); }

void KernelLink::LookAgain(bool wanted) {
  look_again_after_ = !wanted
                          ? std::chrono::milliseconds{}
                          : std::clamp(2 * look_again_after_, kLookAgainAfter, kLookAgainAtMost);
  const std::int64_t ms = look_again_after_.count();
  const itimerspec after{.it_interval = {}, .it_value = {ms / 1000, ms % 1000 * 1'000'000}};
  (void)timerfd_settime(again_.get(), 0, &after, nullptr);
}

bool KernelLink::TakeLookAgain() const {
  std::uint64_t times = 0;
  return read(again_.get(), &times, sizeof times) == ssize_t{sizeof times};
}

// ---- Messages.

template <typename Message>
void KernelLink::Say(const Message& message) {
  answers_.push_back(wire::Encode(message, agreed_));
  Wake();
}

Result<void> KernelLink::Send(std::span<const std::byte> message) {
  if (bus_gone_) return std::unexpected(Error::kPeerGone);
  const auto parsed = wire::ParseClientMessage(message, agreed_);
  if (!parsed) return std::unexpected(parsed.error());
  std::visit([this](const auto& each) { On(each); }, *parsed);
  return {};
}

ReceivedMessage KernelLink::Receive(std::span<std::byte> buffer) {
  if (answers_.empty()) {
    eventfd_t ignored = 0;
    (void)eventfd_read(wake_.get(), &ignored);
    TakeGone();
    const bool again = TakeLookAgain();
    if ((events_.Take() || again) && offers_wanted_) LookAround();
  }
  if (answers_.empty()) {
    return {.status = bus_gone_ ? ReceiveStatus::kGone : ReceiveStatus::kNothing};
  }
  const wire::MessageBytes message = answers_.front();
  answers_.pop_front();
  std::ranges::copy(message.span(), buffer.begin());
  return {.status = ReceiveStatus::kMessage, .bytes = message.size()};
}

void KernelLink::On(const wire::InitiateContact& message) {
  wire::VersionResponse response;
  if (wire::IsKnown(message.version) && message.version <= kNewest) {
    agreed_ = {.version = message.version};
    response.version_supported = 1;
    response.connection_id_or_version = wire::HasMessageConnectionId(message.version)
                                            ? std::to_underlying(wire::kMessageConnection)
                                            : std::to_underlying(message.version);
  }
  Say(response);
}

void KernelLink::On(const wire::RequestOffers&) {
  offers_wanted_ = true;
  LookAround();
  Say(wire::AllOffersDelivered{});
}

// The first one of a channel is that of its rings: a client describes nothing else before it has
// opened.
void KernelLink::On(const wire::GpadlHeader& message) {
  const auto found = opened_.find(message.channel_id);
  const bool is_ring = found != opened_.end() && !found->second.ring;
  if (is_ring) found->second.ring = message.gpadl_id;
  Say(wire::GpadlCreated{.channel_id = message.channel_id,
                         .gpadl_id = message.gpadl_id,
                         .status = is_ring ? wire::kStatusSuccess : wire::kStatusFailure});
}

void KernelLink::On(const wire::GpadlTeardown& message) {
  Say(wire::GpadlTorndown{.gpadl_id = message.gpadl_id});
}

void KernelLink::On(const wire::OpenChannel& message) {
  std::uint32_t status = wire::kStatusFailure;
  const auto found = opened_.find(message.channel_id);
  const std::uint32_t inbox = std::to_underlying(message.target_vp);
  if (found != opened_.end() && inbox < inboxes_.size() &&
      inboxes_[inbox]->Add(found->second.channel)) {
    found->second.inbox = inbox;
    status = wire::kStatusSuccess;
  }
  Say(wire::OpenChannelResult{
      .channel_id = message.channel_id, .open_id = message.open_id, .status = status});
}

void KernelLink::On(const wire::CloseChannel& message) {
  const auto found = opened_.find(message.channel_id);
  if (found != opened_.end()) LeaveInbox(found->second);
}

void KernelLink::On(const wire::RelIdReleased& message) {
  unreleased_.erase(message.channel_id);
  LookAround();  // it may have been offered anew meanwhile
}

void KernelLink::On(const wire::ModifyChannel& message) {
  if (agreed_.version && wire::HasModifyChannelResponse(*agreed_.version)) {
    Say(wire::ModifyChannelResponse{.channel_id = message.channel_id,
                                    .status = wire::kStatusFailure});
  }
}

void KernelLink::On(const wire::TlConnectRequest& message) {
  Say(wire::TlConnectResult{.endpoint_id = message.endpoint_id,
                            .service_id = message.service_id,
                            .status = wire::kStatusConnectionRefused});
}

void KernelLink::On(const wire::Unload&) {
  offers_wanted_ = false;
  offered_.clear();
  Say(wire::UnloadComplete{});
}

// ---- Offers.

std::map<wire::ChannelId, KernelLink::Offered> KernelLink::WhatStands(
    const std::vector<BusDevice>& devices) const {
  std::map<wire::ChannelId, Offered> standing;
  for (const BusDevice& device : devices) {
    if (instance_ && device.instance != *instance_) continue;
    standing.insert_or_assign(device.id, Offered{.device = device, .subchannel = std::nullopt});
    for (const Subchannel& each : device.subchannels) {
      // Its rings are made by the driver; before that there is nothing to open.
      if (each.open && device.uio) {
        standing.insert_or_assign(each.id, Offered{.device = device, .subchannel = each});
      }
    }
  }
  return standing;
}

void KernelLink::LookAround() {
  const auto devices = bus_.Devices();
  bus_gone_ = !devices;
  const auto standing = WhatStands(devices.value_or(std::vector<BusDevice>{}));
  const auto stands = [&](const auto& each) {
    const auto now = standing.find(each.first);
    return now != standing.end() && now->second.IsSameAs(each.second);
  };
  // A device that lost its descriptors is offered anew once it has left, or its driver has left it.
  std::erase_if(dead_, [&](const auto& each) {
    return !stands(each) || standing.at(each.first).device.uio != each.second.device.uio;
  });
  std::vector<wire::ChannelId> left;
  for (const auto& each : offered_) {
    if (!stands(each)) left.push_back(each.first);
  }
  for (const wire::ChannelId id : left) Rescind(id);
  // Primaries first, as a host does.
  for (const bool primaries : {true, false}) {
    for (const auto& [id, offered] : standing) {
      if (offered.subchannel.has_value() == primaries) continue;
      if (offered_.contains(id) || unreleased_.contains(id) || dead_.contains(id)) continue;
      Offer(id, offered);
    }
  }
  // A sub-channel is announced before its driver has made the rings, as it does when the primary is
  // open.
  LookAgain(
      std::ranges::any_of(devices.value_or(std::vector<BusDevice>{}), [&](const BusDevice& device) {
        return device.uio && device.open &&
               std::ranges::any_of(device.subchannels,
                                   [](const Subchannel& each) { return !each.open; });
      }));
  if (bus_gone_) Wake();
}

// What sysfs does not say is left empty: flags, user data, MMIO space. A monitor is not the
// client's affair: doorbells know of it.
void KernelLink::Offer(wire::ChannelId id, const Offered& offered) {
  wire::OfferChannel message;
  message.interface_id = offered.device.interface_type;
  message.instance_id = offered.device.instance;
  message.subchannel_index = offered.subchannel ? offered.subchannel->index : 0;
  message.channel_id = id;
  message.connection_id = wire::EventConnection(id);
  offered_[id] = offered;
  Say(message);
}

void KernelLink::Rescind(wire::ChannelId id) {
  if (offered_.erase(id) == 0) return;
  unreleased_.insert(id);
  Say(wire::RescindChannelOffer{.channel_id = id});
}

void KernelLink::NoteGone(wire::ChannelId id) {
  MutexLock lock(mutex_);
  gone_.push_back(id);
  Wake();
}

void KernelLink::TakeGone() {
  std::vector<wire::ChannelId> gone;
  {
    MutexLock lock(mutex_);
    gone.swap(gone_);
  }
  for (const wire::ChannelId id : gone) {
    const auto found = offered_.find(id);
    if (found == offered_.end()) continue;
    Log(LogLevel::kInfo, "uio: channel %u was taken away", std::to_underlying(id));
    dead_[id] = found->second;
    Rescind(id);
  }
  // Its end in sysfs may have been announced before.
  if (!gone.empty() && offers_wanted_) LookAround();
}

// ---- Channels.

Result<ClientRings> KernelLink::MakeRings(wire::ChannelId channel, std::uint32_t, std::uint32_t) {
  const auto offered = offered_.find(channel);
  if (offered == offered_.end()) return std::unexpected(Error::kChannelUnknown);
  // Whether a driver has it may have changed since it was offered.
  auto device = bus_.Device(offered->second.device.instance);
  if (!device || device->id != offered->second.device.id) {
    return std::unexpected(device ? Error::kDeviceRemoved : device.error());
  }
  offered->second.device = *device;
  auto opened = KernelChannel::Open(bus_, *device, offered->second.subchannel);
  if (!opened) return std::unexpected(opened.error());
  auto rings = KernelChannel::MapRings(*opened);
  if (!rings) return std::unexpected(rings.error());
  const std::uint32_t ring_pages = (*opened)->ring_pages();
  const auto run = own_.Allocate(2 * ring_pages);
  if (!run) return std::unexpected(run.error());
  opened_[channel] = {
      .channel = std::move(*opened), .run = *run, .ring = std::nullopt, .inbox = std::nullopt};
  return ClientRings{
      .run = *run, .downstream_page = ring_pages, .mapping = std::move(*rings), .in_use = true};
}

void KernelLink::FreePages(PageRun run) {
  const auto found = std::ranges::find_if(
      opened_, [&](const auto& each) { return each.second.run.first == run.first; });
  if (found != opened_.end()) {
    LeaveInbox(found->second);
    opened_.erase(found);  // and the kernel closes the channel
  }
  own_.Free(run);
}

void KernelLink::LeaveInbox(Opened& opened) {
  if (const auto inbox = std::exchange(opened.inbox, std::nullopt)) {
    inboxes_[*inbox]->Remove(opened.channel->id());
  }
}

std::unique_ptr<Doorbell> KernelLink::MakeDoorbell(wire::ChannelId channel, std::uint32_t) {
  const auto found = opened_.find(channel);
  KMCL_CHECK(found != opened_.end());
  return std::make_unique<KernelDoorbell>(found->second.channel);
}

}  // namespace kmcl::transport::uio

#include "cli/client_channel.h"

#include <fmt/format.h>
#include <kmcl/uio.h>

#include <chrono>

#include "cli/interface_names.h"
#include "cli/main_wait.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

constexpr auto kOpenWithin = std::chrono::seconds(10);
// How often a waiting open looks whether the bus is still there: nothing else tells it.
constexpr auto kLookAgain = std::chrono::milliseconds(100);

ClientChannel& Self(VMBCHANNEL channel) {
  return *static_cast<ClientChannel*>(VmbChannelGetPointer(channel));
}

Failure WhyNotConnected(const std::string& address, NTSTATUS status) {
  switch (status) {
    case STATUS_INVALID_PARAMETER_1:
      return {kExitUsage,
              fmt::format("\"{}\" is not an address: write unix:PATH, or uio:", address), status};
    case STATUS_OBJECT_NAME_NOT_FOUND:
      if (address.starts_with("uio:")) {
        return {kExitLost, "this system is no guest with a VMBus (is hv_vmbus loaded?)", status};
      }
      return {kExitLost, fmt::format("nobody serves {}", address), status};
    case STATUS_ACCESS_DENIED:
      return {kExitLost, fmt::format("{} does not let this user in", address), status};
    case STATUS_CONNECTION_DISCONNECTED:
      return {kExitLost, fmt::format("the server of {} went away while we connected", address),
              status};
    case STATUS_REVISION_MISMATCH:
      return {kExitLost, fmt::format("the server of {} speaks no version that we know", address),
              status};
    default:
      return {kExitFailure, fmt::format("cannot connect to {}", address), status};
  }
}

// What a person can do about a channel that does not open.
std::string WhyNotOpened(const char* name, NTSTATUS status) {
  switch (status) {
    case STATUS_DEVICE_NOT_READY:
      return fmt::format("the {0} channel is not in the hands of uio_hv_generic: vmbus bind {0}",
                         name);
    case STATUS_DEVICE_BUSY:
      return fmt::format("another program has the {} channel open", name);
    case STATUS_ACCESS_DENIED:
      return fmt::format("this user may not open the {} channel", name);
    default:
      return fmt::format("the {} channel does not open", name);
  }
}

}  // namespace

const char* WaitName(WaitMode wait) {
  switch (wait) {
    case WaitMode::kPoll:
      return "poll";
    case WaitMode::kAdaptive:
      return "adaptive";
    case WaitMode::kSleep:
      break;
  }
  return "sleep";
}

WaitMode WaitNamed(const std::string& name) {
  for (const WaitMode wait : kWaitModes) {
    if (name == WaitName(wait)) {
      return wait;
    }
  }
  return WaitMode::kAdaptive;
}

ULONG SpinMicroseconds(WaitMode wait) {
  switch (wait) {
    case WaitMode::kPoll:
      return KMCL_SPIN_FOREVER;
    case WaitMode::kAdaptive:
      return KMCL_SPIN_ADAPTIVE;
    case WaitMode::kSleep:
      break;
  }
  return KMCL_SPIN_NEVER;
}

Outcome<std::unique_ptr<ClientBus>> ClientBus::Connect(const std::string& named, WaitMode wait) {
  const std::string address = named.empty() && KmclUioIsPresent() ? "uio:" : named;
  if (address.empty()) {
    return Fail(kExitUsage, "no bus was named: give --bus ADDRESS or set KMCL_BUS");
  }
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.SpinMicroseconds = SpinMicroseconds(wait);
  KMCL_CLIENT client = nullptr;
  const NTSTATUS status = KmclClientConnect(address.c_str(), &options, &client);
  if (!NT_SUCCESS(status)) {
    return std::unexpected(WhyNotConnected(address, status));
  }
  return std::unique_ptr<ClientBus>(new ClientBus(address, client));
}

std::string ClientBus::VersionText() const {
  const ULONG version = KmclClientVersion(client_);
  return fmt::format("{}.{}", version >> 16, version & 0xffff);
}

std::vector<KMCL_OFFER> ClientBus::Offers() const {
  std::vector<KMCL_OFFER> offers;
  ULONG count = 0;
  NTSTATUS status = KmclClientQueryOffers(client_, nullptr, 0, &count);
  while (status == STATUS_BUFFER_TOO_SMALL) {  // again when more were offered meanwhile
    offers.resize(count);
    status =
        KmclClientQueryOffers(client_, offers.data(), static_cast<ULONG>(offers.size()), &count);
  }
  offers.resize(NT_SUCCESS(status) ? count : 0);
  return offers;
}

Outcome<std::unique_ptr<ClientChannel>> ClientChannel::Open(const ClientBus& bus,
                                                            const ClientChannelSettings& settings) {
  bool offered = settings.primary != nullptr;  // will be, soon
  for (const KMCL_OFFER& offer : bus.Offers()) {
    offered = offered || offer.InterfaceType == settings.interface_type;
  }
  if (!offered) {
    return Fail(kExitFailure, fmt::format("{} offers no {} channel", bus.address(), settings.name));
  }

  std::unique_ptr<ClientChannel> self(new ClientChannel);
  NTSTATUS status =
      VmbChannelAllocate(KmclClientDeviceObject(bus.client()), FALSE, &self->channel_);
  if (!NT_SUCCESS(status)) {
    return Fail(kExitFailure, "cannot make a channel", status);
  }
  VmbChannelSetPointer(self->channel_, self.get());

  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
    Self(channel).started_.store(true, std::memory_order_release);
    MainWait::Get().Wake();
  };
  callbacks.EvtChannelSuspend = [](VMBCHANNEL channel) { Self(channel).NoteLost(); };
  callbacks.EvtChannelClosed = [](VMBCHANNEL channel) { Self(channel).NoteLost(); };
  const auto on_failure = [](VMBCHANNEL channel, NTSTATUS why) {
    Self(channel).open_failure_.store(why, std::memory_order_release);
    MainWait::Get().Wake();
  };

  status = VmbChannelInitSetStateChangeCallbacks(self->channel_, &callbacks);
  if (NT_SUCCESS(status)) {
    status = VmbChannelInitSetMaximumPacketSize(self->channel_, settings.maximum_packet_bytes);
  }
  if (NT_SUCCESS(status) && settings.outgoing_pages > 0) {
    status = VmbClientChannelInitSetRingBufferPageCount(self->channel_, settings.incoming_pages,
                                                        settings.outgoing_pages);
  }
  if (NT_SUCCESS(status)) {
    status = VmbClientChannelInitSetTargetPnp(self->channel_, &settings.interface_type, nullptr,
                                              on_failure);
  }
  if (NT_SUCCESS(status) && settings.primary != nullptr) {
    status = VmbChannelInitSetPrimaryChannel(self->channel_, settings.primary->handle());
  }
  if (NT_SUCCESS(status)) {
    status = VmbChannelEnable(self->channel_);
  }
  if (!NT_SUCCESS(status)) {
    return Fail(kExitFailure, fmt::format("cannot open the {} channel", settings.name), status);
  }

  MainWait& wait = MainWait::Get();
  const auto settled = [&self] {
    return self->started_.load(std::memory_order_acquire) || self->lost() ||
           self->open_failure_.load(std::memory_order_acquire) != STATUS_SUCCESS;
  };
  const auto deadline = std::chrono::steady_clock::now() + kOpenWithin;
  while (!wait.UntilTime(std::chrono::steady_clock::now() + kLookAgain, settled)) {
    if (!KmclClientIsConnected(bus.client())) {
      return Fail(kExitLost, fmt::format("the server of {} has gone", bus.address()));
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Fail(kExitFailure, fmt::format("the {} channel does not open", settings.name));
    }
  }
  if (self->lost()) {
    return Fail(kExitLost, fmt::format("the server of {} has gone", bus.address()));
  }
  if (const NTSTATUS why = self->open_failure_.load(std::memory_order_acquire);
      why != STATUS_SUCCESS) {
    return Fail(KmclClientIsConnected(bus.client()) ? kExitFailure : kExitLost,
                WhyNotOpened(settings.name, why), why);
  }
  if (!self->started_.load(std::memory_order_acquire)) {
    return Fail(kExitInterrupted, "interrupted");
  }
  return self;
}

ClientChannel::~ClientChannel() {
  if (channel_ != nullptr) {
    Close();
    VmbChannelCleanup(channel_);
  }
}

void ClientChannel::Close() {
  if (!closed_) {
    closing_.store(true, std::memory_order_release);
    VmbChannelDisable(channel_);
    closed_ = true;
  }
}

KMCL_CHANNEL_COUNTERS ClientChannel::Counters() const {
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  if (!NT_SUCCESS(KmclChannelQueryCounters(channel_, &counters))) {
    return {};
  }
  return counters;
}

void ClientChannel::NoteLost() {
  if (closing_.load(std::memory_order_acquire)) {
    return;
  }
  double never = 0;
  lost_at_.compare_exchange_strong(never, UnixTime(), std::memory_order_acq_rel);
  if (!lost_.exchange(true, std::memory_order_acq_rel)) {
    MainWait::Get().Wake();
  }
}

}  // namespace kmcl::cli

#include "api/verifier.h"

#include <kmcl/verifier.h>

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "api/verifier_callback.h"
#include "api/verifier_channel.h"
#include "api/verifier_registry.h"
#include "api/verifier_report.h"
#include "channel/channel.h"

namespace kmcl::api::verifier {

std::atomic<bool> is_on{false};

namespace {

// A channel was made while the verifier was off: an unknown handle may be a good one.
std::atomic<bool> has_unwatched_channels{false};

bool Enable(const KMCL_VERIFIER_OPTIONS& options) {
  // The first backtrace loads a library; later ones may come from a signal handler.
  Here(nullptr);
  SetOptions(options);
  is_on.store(true, std::memory_order_relaxed);
  return true;
}

std::once_flag environment_read;

void ReadEnvironment() {
  const char* const words = std::getenv("KMCL_VERIFIER");
  KMCL_VERIFIER_OPTIONS options;
  if (words != nullptr && ParseOptions(words, options)) Enable(options);
}

// V04 and V20.
bool CheckChannel(VMBCHANNEL channel, const char* function, const Site& site) {
  const auto record = Registry::Get().FindChannel(channel);
  if (record && !record->cleaned_up) return true;
  if (record) {
    return !Violation(KmclCheckChannelFreed,
                      Format("%s was called for a channel that was cleaned up.", function))
                .Channel(channel)
                .Object(channel)
                .Before("Cleaned up", record->cleaned_up)
                .Before("Allocated", record->allocated)
                .Now(function, site)
                .Report();
  }
  if (has_unwatched_channels.load(std::memory_order_relaxed)) return true;
  const bool is_packet = Registry::Get().FindPacket(channel).has_value();
  const bool is_delivery = !is_packet && Registry::Get().FindDelivery(channel).has_value();
  return !Violation(KmclCheckHandle, Format("%s was called with %p, which is %s.", function,
                                            static_cast<void*>(channel),
                                            is_packet     ? "a packet, not a channel"
                                            : is_delivery ? "a received packet, not a channel"
                                                          : "no handle that the library gave out"))
              .Object(channel)
              .Now(function, site)
              .Report();
}

bool CheckLevel(VMBCHANNEL channel, const char* function, const Site& site) {
  const KIRQL level = KeGetCurrentIrql();
  if (level == PASSIVE_LEVEL) return true;
  const CallbackScope* const inside = CallbackScope::Current();
  return !Violation(KmclCheckLevel,
                    Format("%s is for PASSIVE_LEVEL, and was called at level %d%s%s.", function,
                           int{level}, inside == nullptr ? "" : ", from ",
                           inside == nullptr ? "" : inside->Described().c_str()))
              .Channel(channel)
              .Now(function, site)
              .Report();
}

// V09. False: the call is not to be made.
bool CheckCallback(VMBCHANNEL channel, const char* function, const CallbackScope& inside,
                   const Site& site) {
  return !Violation(KmclCheckInCallback,
                    Format("%s was called from %s%s.", function, inside.Described().c_str(),
                           inside.channel() == channel ? ", which it would wait for" : ""))
              .Channel(channel)
              .Now(function, site)
              .Report();
}

}  // namespace

// ---- Channels.

bool Attach() {
  std::call_once(environment_read, &ReadEnvironment);
  if (!IsOn()) MadeUnwatched();
  return IsOn();
}

void MadeUnwatched() { has_unwatched_channels.store(true, std::memory_order_relaxed); }

ChannelObject* MakeChannel(PDEVICE_OBJECT parent, const void* caller) {
  auto* const channel = new VerifiedChannel(parent, false);
  channel->engine().config_in_init_window()->watched = true;
  Registry::Get().AddChannel(channel, {.object = channel,
                                       .binding = BindingOf(parent),
                                       .is_server = channel->is_server(),
                                       .allocated = Here(caller)});
  return channel;
}

void Discard(ChannelObject& object, const void* caller) {
  const Site site = Here(caller);
  const auto record = Registry::Get().FindChannel(&object);
  if (!record) {  // made while the verifier was off
    delete &object;
    return;
  }
  ReportDamage(&object);
  const auto leaked = Registry::Get().RetireChannel(&object, site);
  if (!leaked.empty()) {
    Violation violation(KmclCheckPacketLeaked,
                        Format("%s was cleaned up while %zu of its packets had not been freed.",
                               NameOf(object.handle()).c_str(), leaked.size()));
    violation.Channel(object.handle()).Now("VmbChannelCleanup", site);
    constexpr std::size_t kMostTold = 4;
    for (std::size_t i = 0; i < leaked.size() && i < kMostTold; ++i) {
      violation.Before("Allocated", leaked[i].created);
    }
    violation.Report();
  }
  // What it holds of others goes now; the object itself stays, to be recognised.
  object.end().Retire();
  if (object.is_server()) object.server()->setup().partition.reset();
  object.pointer.store(nullptr, std::memory_order_relaxed);
}

bool MayChangeState(VMBCHANNEL channel, const char* function, const void* caller) {
  const Site site = Here(caller);
  if (!CheckChannel(channel, function, site)) return false;
  if (const CallbackScope* const inside = CallbackScope::Current()) {
    if (!CheckCallback(channel, function, *inside, site)) return false;
  }
  if (!CheckLevel(channel, function, site)) return false;
  Registry::Get().ChangeChannel(channel, [&](ChannelRecord& record) {
    const std::string_view name(function);
    if (name == "VmbChannelEnable") {
      record.enabled = site;
      record.suspended = {};
    } else if (name == "VmbChannelPause" || name == "VmbChannelDisable") {
      record.stopping = site;
      record.stopping_function = function;
    }
  });
  return true;
}

bool IsAtPassive(VMBCHANNEL channel, const char* function, const void* caller) {
  const Site site = Here(caller);
  return CheckChannel(channel, function, site) && CheckLevel(channel, function, site);
}

bool MaySendSynchronously(VMBCHANNEL channel, Blocks blocks, const void* caller) {
  constexpr const char* kFunction = "VmbChannelSendSynchronousRequest";
  const Site site = Here(caller);
  if (!CheckChannel(channel, kFunction, site)) return false;
  if (blocks == Blocks::kYes) {
    const CallbackScope* const inside = CallbackScope::Current();
    if (inside != nullptr && inside->channel() == channel &&
        inside->callback() != Callback::kPostStarted) {
      if (!CheckCallback(channel, kFunction, *inside, site)) return false;
    }
    if (!CheckLevel(channel, kFunction, site)) return false;
  }
  const auto record = Registry::Get().FindChannel(channel);
  if (record && record->suspended) {
    Violation(KmclCheckSendAfterSuspend,
              Format("A request was sent on %s after EvtVmbChannelSuspend had returned.",
                     NameOf(channel).c_str()))
        .Channel(channel)
        .Before("Suspended", record->suspended)
        .Now(kFunction, site)
        .Report();
  }
  return true;
}

bool IsChannel(VMBCHANNEL channel, const char* function, const void* caller) {
  const auto record = Registry::Get().FindChannel(channel);
  if (record && !record->cleaned_up) return true;  // without a look at the stack
  return CheckChannel(channel, function, Here(caller));
}

bool MayDestroy(const DeviceBinding& binding, const char* function, const void* caller) {
  const Site site = Here(caller);
  if (const CallbackScope* const inside = CallbackScope::Current()) {
    if (!CheckCallback(nullptr, function, *inside, site)) return false;
  }
  if (!CheckLevel(nullptr, function, site)) return false;
  const auto channels = Registry::Get().ChannelsOf(binding);
  if (!channels.empty()) {
    Violation violation(KmclCheckEndpointInUse,
                        Format("%s was called while %zu of its channels had not been cleaned up.",
                               function, channels.size()));
    violation.Channel(channels.front().object->handle()).Now(function, site);
    constexpr std::size_t kMostTold = 4;
    for (std::size_t i = 0; i < channels.size() && i < kMostTold; ++i) {
      violation.Before("Allocated", channels[i].allocated);
    }
    violation.Report();
  }
  return true;
}

void OutsideInitWindow(VMBCHANNEL channel, bool wrong_end) {
  const Site site = Here(nullptr);
  const auto record = Registry::Get().FindChannel(channel);
  if (wrong_end) {
    Violation(KmclCheckHandle,
              record && record->is_server
                  ? "A VmbClientChannelInitSet function was called for a server's channel."
                  : "A VmbServerChannelInitSet function was called for a client's channel.")
        .Channel(channel)
        .Object(channel)
        .Before("Allocated", record ? record->allocated : Site{})
        .Now("Called", site)
        .Report();
    return;
  }
  Violation(KmclCheckInitWindow,
            Format("An Init function was called for %s after it had been enabled.",
                   NameOf(channel).c_str()))
      .Channel(channel)
      .Before("Last enabled", record ? record->enabled : Site{})
      .Now("Called", site)
      .Report();
}

void CleanupOfEnabled(VMBCHANNEL channel, const void* caller) {
  const auto record = Registry::Get().FindChannel(channel);
  Violation(KmclCheckCleanupEnabled,
            Format("VmbChannelCleanup was called for %s, which is not Disabled.",
                   NameOf(channel).c_str()))
      .Channel(channel)
      .Before("Enabled", record ? record->enabled : Site{})
      .Now("VmbChannelCleanup", Here(caller))
      .Report();
}

}  // namespace kmcl::api::verifier

using namespace kmcl::api;

NTSTATUS KmclVerifierEnable(const KMCL_VERIFIER_OPTIONS* Options) {
  KMCL_VERIFIER_OPTIONS options;
  KmclVerifierOptionsInit(&options);
  constexpr UINT64 kKnown = ((UINT64{2} << KMCL_VERIFIER_LAST_CHECK) - 1) & ~UINT64{1};
  if (Options != nullptr) {
    int action = 0;  // whatever the caller left there, which need not be one of the two
    static_assert(sizeof action == sizeof Options->Action);
    std::memcpy(&action, &Options->Action, sizeof action);
    if (Options->Size != sizeof options || (Options->LeaveOut & ~kKnown) != 0 ||
        (action != KmclVerifierStop && action != KmclVerifierLog)) {
      return STATUS_INVALID_PARAMETER_1;
    }
    options = *Options;
  }
  // From now on the environment does not count.
  std::call_once(verifier::environment_read, [] {});
  verifier::Enable(options);
  return STATUS_SUCCESS;
}

BOOLEAN KmclVerifierIsEnabled(VOID) { return verifier::IsOn() ? TRUE : FALSE; }

VOID KmclVerifierSetReport(VOID (*Report)(PVOID, const KMCL_VERIFIER_REPORT*), PVOID Context) {
  verifier::SetReport(Report, Context);
}

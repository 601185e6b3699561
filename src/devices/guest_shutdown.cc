#include "devices/guest_shutdown.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

constexpr IntegrationVersion kVersions[] = {{1, 0}, {3, 0}, {3, 1}, {3, 2}};

constexpr std::uint32_t kPlanned = 0x80000000;  // of the reason
constexpr std::uint32_t kForce = 1;
constexpr std::uint32_t kRestart = 2;
constexpr std::uint32_t kHibernate = 4;

struct ShutdownBody {
  std::uint32_t reason = kPlanned;
  std::uint32_t timeout_seconds = 0;
  std::uint32_t flags = 0;
  char16_t text[1024] = {};
};
static_assert(sizeof(ShutdownBody) == 2060);

constexpr IntegrationService kService = {
    .interface_type = kShutdownInterface,
    .interface_instance = kShutdownInstance,
    .friendly_name = u"Shutdown",
    .name = "shutdown",
    .message = IntegrationMessage::kShutdown,
    .frameworks = kIntegrationFrameworks,
    .versions = kVersions,
    .maximum_body_bytes = sizeof(ShutdownBody),
};

std::uint32_t FlagsOf(ShutdownKind kind, bool force) {
  const std::uint32_t forced = force ? kForce : 0;
  switch (kind) {
    case ShutdownKind::kPowerOff:
      return forced;
    case ShutdownKind::kReboot:
      return forced | kRestart;
    case ShutdownKind::kHibernate:
      return forced | kHibernate;
  }
  return forced;
}

}  // namespace

std::expected<std::unique_ptr<ShutdownDevice>, NTSTATUS> ShutdownDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, Report report) {
  std::unique_ptr<ShutdownDevice> device(new ShutdownDevice);
  auto channel = IntegrationChannel::Offer(device_object, partition, kService, std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  return device;
}

std::expected<void, IntegrationFailure> ShutdownDevice::Request(ShutdownKind kind,
                                                                const ShutdownOptions& options) {
  using Kind = IntegrationFailure::Kind;
  const std::unique_lock turn(requesting_, std::try_to_lock);
  if (!turn) {
    return std::unexpected(IntegrationFailure{Kind::kBusy, IntegrationState::kReady, 0});
  }
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  ShutdownBody body;
  body.timeout_seconds =
      static_cast<std::uint32_t>(std::clamp<std::int64_t>(options.grace.count(), 0, UINT32_MAX));
  body.flags = FlagsOf(kind, options.force);
  const std::u16string text = Utf16FromText(options.reason);
  std::copy_n(text.begin(), std::min(text.size(), std::size(body.text) - 1), body.text);
  const auto bytes = std::as_bytes(std::span(&body, 1));
  const auto reply = channel_->Ask(
      agreement->number, [&] { return std::vector<std::byte>(bytes.begin(), bytes.end()); },
      options.timeout);
  if (!reply) {
    return std::unexpected(reply.error());
  }
  if (reply->status != kIntegrationSuccess) {
    return std::unexpected(
        IntegrationFailure{Kind::kRefused, IntegrationState::kReady, reply->status});
  }
  return {};
}

}  // namespace kmcl::devices

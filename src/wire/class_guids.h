// The interface GUIDs of well-known devices (VMBus reference 7), and their names for people.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "wire/guid.h"

namespace kmcl::wire {

// A GUID from its text, checked while compiling.
consteval Guid GuidLiteral(std::string_view text) { return ParseGuid(text).value(); }

struct ClassGuid {
  Guid id;
  const char* name;
};

inline constexpr Guid kNetworkClass = GuidLiteral("f8615163-df3e-46c5-913f-f2d2f965ed0e");
inline constexpr Guid kIdeClass = GuidLiteral("32412632-86cb-44a2-9b5c-50d1417354f5");
inline constexpr Guid kScsiClass = GuidLiteral("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
inline constexpr Guid kFibreChannelClass = GuidLiteral("2f9bcc4a-0069-4af3-b76b-6fd0be528cda");
inline constexpr Guid kShutdownClass = GuidLiteral("0e0b6031-5213-4934-818b-38d90ced39db");
inline constexpr Guid kTimeSynchronisationClass =
    GuidLiteral("9527e630-d0ae-497b-adce-e80ab0175caf");
inline constexpr Guid kHeartbeatClass = GuidLiteral("57164f39-9115-4e78-ab55-382f3bd5422d");
inline constexpr Guid kKeyValuePairsClass = GuidLiteral("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6");
inline constexpr Guid kBackupClass = GuidLiteral("35fa2e29-ea23-4236-96ae-3a6ebacba440");
inline constexpr Guid kFileCopyClass = GuidLiteral("34d14be3-dee4-41c8-9ae7-6b174977c192");
inline constexpr Guid kDynamicMemoryClass = GuidLiteral("525074dc-8985-46e2-8057-a307dc18a502");
inline constexpr Guid kMouseClass = GuidLiteral("cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a");
inline constexpr Guid kKeyboardClass = GuidLiteral("f912ad6d-2b17-48ea-bd65-f927a61c7684");
inline constexpr Guid kVideoClass = GuidLiteral("da0a7802-e377-4aac-8e77-0558eb1073f8");
inline constexpr Guid kPciClass = GuidLiteral("44c4f61d-4444-4400-9d52-802e27ede19f");
inline constexpr Guid kNetworkDirectClass = GuidLiteral("8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501");
inline constexpr Guid kAvma1Class = GuidLiteral("f8e65716-3cb3-4a06-9a60-1889c5cccab5");
inline constexpr Guid kAvma2Class = GuidLiteral("3375baf4-9e15-4b30-b765-67acb10d607b");
inline constexpr Guid kRemoteDesktopClass = GuidLiteral("276aacf4-ac15-426c-98dd-7521ad3f01fe");
inline constexpr Guid kMachineConfigurationClass =
    GuidLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");

inline constexpr std::array kClassGuids = {
    ClassGuid{kNetworkClass, "network"},
    ClassGuid{kIdeClass, "IDE"},
    ClassGuid{kScsiClass, "SCSI"},
    ClassGuid{kFibreChannelClass, "Fibre Channel"},
    ClassGuid{kShutdownClass, "shutdown"},
    ClassGuid{kTimeSynchronisationClass, "time synchronisation"},
    ClassGuid{kHeartbeatClass, "heartbeat"},
    ClassGuid{kKeyValuePairsClass, "key-value pairs"},
    ClassGuid{kBackupClass, "backup"},
    ClassGuid{kFileCopyClass, "file copy"},
    ClassGuid{kDynamicMemoryClass, "dynamic memory"},
    ClassGuid{kMouseClass, "mouse"},
    ClassGuid{kKeyboardClass, "keyboard"},
    ClassGuid{kVideoClass, "video"},
    ClassGuid{kPciClass, "PCI pass-through"},
    ClassGuid{kNetworkDirectClass, "network direct"},
    ClassGuid{kAvma1Class, "AVMA 1"},
    ClassGuid{kAvma2Class, "AVMA 2"},
    ClassGuid{kRemoteDesktopClass, "remote desktop control"},
    ClassGuid{kMachineConfigurationClass, "initial machine configuration"},
};

// The service GUID of an hvsock port: <port in hex>-facb-11e6-bd58-64006a7986d3.
constexpr Guid HvsockServiceGuid(std::uint32_t port) {
  Guid service = GuidLiteral("00000000-facb-11e6-bd58-64006a7986d3");
  service.data1 = port;
  return service;
}

// The port of such a GUID; nullopt for any other.
constexpr std::optional<std::uint32_t> HvsockPort(const Guid& service) {
  if (service != HvsockServiceGuid(service.data1)) return std::nullopt;
  return service.data1;
}

// "network", ..., "hvsock service"; nullptr for a class that is not known.
const char* NameOf(const Guid& interface_id);

}  // namespace kmcl::wire

// The ACPI table by which an operating system finds the bus (VMBus reference 5.6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kmcl::transport::kvm {

// Addresses that the guest may give to devices of the bus. No memory and no other device stands
// there.
inline constexpr std::uint64_t kMmioWindow = 0xF8000000;
inline constexpr std::uint64_t kMmioWindowBytes = 0x04000000;

// An SSDT, whole and with its checksum. It stands for ever.
std::span<const std::byte> AcpiTable();

}  // namespace kmcl::transport::kvm

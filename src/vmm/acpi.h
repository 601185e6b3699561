// The ACPI tables of a machine: RSDP, XSDT, FADT, MADT, a DSDT with the serial port and the
// power-off state, and what the bus adds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/guest_memory.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

// What the tables tell the guest of the machine's ports.
inline constexpr std::uint16_t kPowerEventPort = 0x600;
inline constexpr std::uint16_t kPowerControlPort = 0x604;
inline constexpr std::uint16_t kSciInterrupt = 9;
inline constexpr std::uint8_t kPowerOffSleepType = 5;

// Writes the tables below 1 MiB (boot_loader.h); CPU i has APIC id i. `bus_table` is a whole table,
// SSDT and checksum included, or empty. Returns the address of the RSDP.
Outcome<std::uint64_t> PutAcpiTables(const GuestMemory& memory, unsigned cpu_count,
                                     std::span<const std::byte> bus_table);

}  // namespace kmcl::vmm

#include "vmm/acpi.h"

#include <array>
#include <cstring>
#include <vector>

#include "vmm/acpi_table.h"
#include "vmm/boot_loader.h"
#include "vmm/keyboard_controller.h"

namespace kmcl::vmm {
namespace {

constexpr std::uint32_t kLocalApicAddress = 0xFEE00000;
constexpr std::uint32_t kIoApicAddress = 0xFEC00000;

AcpiBytes Dsdt() {
  // I/O 0x3F8 to 0x3FF, and interrupt 4.
  constexpr std::array<std::uint8_t, 13> kSerialResources = {
      0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x01, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00};
  constexpr std::uint32_t kPnp0501 = 0x0105D041;
  AcpiTable table("DSDT", 2);
  table.Append(aml::Scope(
      "_SB_", aml::Device("COM1", aml::Join({aml::Name("_HID", aml::DoubleWord(kPnp0501)),
                                             aml::Name("_UID", aml::Byte(1)),
                                             aml::Name("_CRS", aml::Buffer(kSerialResources))}))));
  table.Append(aml::Name("_S5_", aml::Package({aml::Byte(kPowerOffSleepType), aml::Byte(0),
                                               aml::Byte(0), aml::Byte(0)})));
  return table.Finish();
}

AcpiBytes Fadt(std::uint64_t dsdt) {
  constexpr std::uint32_t kWbinvdWorks = 1;
  constexpr std::uint32_t kNoFixedPowerButton = 1 << 4;
  constexpr std::uint32_t kNoFixedSleepButton = 1 << 5;
  constexpr std::uint32_t kHasResetRegister = 1 << 10;
  AcpiTable table("FACP", 3, 244);
  table.Put(40, static_cast<std::uint32_t>(dsdt));
  table.Put(46, kSciInterrupt);
  // No SMI command: ACPI is always on.
  table.Put(56, std::uint32_t{kPowerEventPort});
  table.Put(64, std::uint32_t{kPowerControlPort});
  table.Put(88, std::uint8_t{4});
  table.Put(89, std::uint8_t{2});
  table.Put(
      109, std::uint16_t{1});  // there are devices of the PC's, but no keyboard controller to probe
  table.Put(112, kWbinvdWorks | kNoFixedPowerButton | kNoFixedSleepButton | kHasResetRegister);
  // The reset register: one byte of I/O space, and what to write to it.
  table.Put(116, std::array<std::uint8_t, 4>{1, 8, 0, 1});
  table.Put(120, std::uint64_t{KeyboardController::kCommandPort});
  table.Put(128, KeyboardController::kResetCommand);
  table.Put(140, dsdt);
  return table.Finish();
}

AcpiBytes Madt(unsigned cpu_count) {
  AcpiTable table("APIC", 3);
  table.Append(kLocalApicAddress);
  table.Append(std::uint32_t{1});  // there are PICs
  for (unsigned cpu = 0; cpu < cpu_count; ++cpu) {
    table.Append(std::array<std::uint8_t, 4>{0, 8, static_cast<std::uint8_t>(cpu),
                                             static_cast<std::uint8_t>(cpu)});
    table.Append(std::uint32_t{1});  // enabled
  }
  table.Append(std::array<std::uint8_t, 4>{1, 12, 0, 0});
  table.Append(kIoApicAddress);
  table.Append(std::uint32_t{0});  // its first interrupt
  return table.Finish();
}

}  // namespace

Outcome<std::uint64_t> PutAcpiTables(const GuestMemory& memory, unsigned cpu_count,
                                     std::span<const std::byte> bus_table) {
  constexpr std::size_t kRsdpBytes = 36;
  std::uint64_t next = kAcpiAddress + 64;  // behind the RSDP
  bool fits = true;
  const auto place = [&](std::span<const std::byte> table) {
    const std::uint64_t address = next;
    if (table.size() > kAcpiEnd - address) {
      fits = false;
      return address;
    }
    std::memcpy(memory.At(address, table.size()).data(), table.data(), table.size());
    next = (address + table.size() + 15) / 16 * 16;
    return address;
  };
  const std::uint64_t dsdt = place(Dsdt());
  AcpiTable xsdt("XSDT", 1);
  xsdt.Append(place(Fadt(dsdt)));
  xsdt.Append(place(Madt(cpu_count)));
  if (!bus_table.empty()) {
    xsdt.Append(place(bus_table));
  }
  const std::uint64_t root = place(xsdt.Finish());
  if (!fits) {
    return Fail("the ACPI tables do not fit below 1 MiB");
  }

  AcpiBytes rsdp(kRsdpBytes);
  std::memcpy(rsdp.data(), "RSD PTR ", 8);
  std::memcpy(rsdp.data() + 9, "KMCL  ", 6);
  rsdp[15] = std::byte{2};
  rsdp[20] = std::byte{kRsdpBytes};
  std::memcpy(rsdp.data() + 24, &root, sizeof(root));
  rsdp[8] = AcpiChecksum(std::span(rsdp).first(20));  // of what ACPI 1.0 knew
  rsdp[32] = AcpiChecksum(rsdp);
  std::memcpy(memory.At(kAcpiAddress, rsdp.size()).data(), rsdp.data(), rsdp.size());
  return kAcpiAddress;
}

}  // namespace kmcl::vmm

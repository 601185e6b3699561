#include "transport/kvm/acpi_table.h"

#include <initializer_list>
#include <string_view>
#include <vector>

namespace kmcl::transport::kvm {
namespace {

// AML is written from the inside out: a package knows its length, which stands before it.
using Aml = std::vector<std::uint8_t>;

Aml Join(std::initializer_list<Aml> parts) {
  Aml all;
  for (const Aml& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Aml Text(std::string_view text) { return {text.begin(), text.end()}; }

Aml Number(std::uint64_t value, int bytes) {
  Aml number;
  for (int index = 0; index < bytes; ++index) {
    number.push_back(static_cast<std::uint8_t>(value >> 8 * index));
  }
  return number;
}

// The length counts its own bytes: one up to 63, two up to 4095.
Aml Package(const Aml& opcode, const Aml& content) {
  Aml length;
  if (content.size() + 1 < 64) {
    length = Number(content.size() + 1, 1);
  } else {
    const std::size_t all = content.size() + 2;
    length = {static_cast<std::uint8_t>(0x40 | (all & 0xF)), static_cast<std::uint8_t>(all >> 4)};
  }
  return Join({opcode, length, content});
}

Aml Name(std::string_view name, const Aml& object) { return Join({{0x08}, Text(name), object}); }
Aml String(std::string_view text) { return Join({{0x0D}, Text(text), {0x00}}); }
Aml Byte(std::uint8_t value) { return {0x0A, value}; }
const Aml& Zero() {
  static const Aml zero{0x00};
  return zero;
}
Aml Buffer(const Aml& bytes) {
  return Package({0x11}, Join({Byte(static_cast<std::uint8_t>(bytes.size())), bytes}));
}
Aml Device(std::string_view name, const Aml& content) {
  return Package({0x5B, 0x82}, Join({Text(name), content}));
}

constexpr std::uint8_t kPresent = 0x0F;  // present, enabled, shown, functioning

// Resource descriptors: an address space, and the end.
Aml MemoryWindow(std::uint64_t first, std::uint64_t bytes) {
  return Join({{0x8A, 0x2B, 0x00},  // QWord address space, 43 bytes follow
               {0x00, 0x0C, 0x01},  // memory; produced, fixed at both ends; read and write
               Number(0, 8),        // granularity
               Number(first, 8),
               Number(first + bytes - 1, 8),
               Number(0, 8),  // translation
               Number(bytes, 8)});
}
Aml EndOfResources() { return {0x79, 0x00}; }

// Scope(\_SB) { Device(VMOD) { the window; Device(VMBS) { the bus } } }: the window stands at the
// parent, as Hyper-V has it, where every driver looks for it.
Aml Content() {
  const Aml bus = Device("VMBS", Join({Name("_HID", String("VMBus")), Name("_DDN", String("VMBus")),
                                       Name("_UID", Zero()), Name("_STA", Byte(kPresent)),
                                       Name("_CRS", Buffer(EndOfResources()))}));
  const Aml module =
      Device("VMOD", Join({Name("_HID", String("ACPI0004")), Name("_UID", Zero()),
                           Name("_CRS", Buffer(Join({MemoryWindow(kMmioWindow, kMmioWindowBytes),
                                                     EndOfResources()}))),
                           bus}));
  return Package({0x10}, Join({Text("\\_SB_"), module}));
}

std::vector<std::byte> Table() {
  constexpr std::size_t kHeaderBytes = 36;
  constexpr std::size_t kChecksum = 9;
  const Aml content = Content();
  Aml table = Join({Text("SSDT"),
                    Number(kHeaderBytes + content.size(), 4),
                    {0x02, 0x00},  // revision; the checksum, below
                    Text("KMCL  "),
                    Text("VMBUS   "),
                    Number(1, 4),
                    Text("KMCL"),
                    Number(1, 4),
                    content});
  std::uint8_t sum = 0;
  for (const std::uint8_t byte : table) sum = static_cast<std::uint8_t>(sum + byte);
  table[kChecksum] = static_cast<std::uint8_t>(-sum);
  std::vector<std::byte> bytes;
  for (const std::uint8_t byte : table) bytes.push_back(std::byte{byte});
  return bytes;
}

}  // namespace

std::span<const std::byte> AcpiTable() {
  static const std::vector<std::byte>* const table = new std::vector<std::byte>(Table());
  return *table;
}

}  // namespace kmcl::transport::kvm

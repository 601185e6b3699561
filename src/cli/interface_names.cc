#include "cli/interface_names.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>

#include "devices/echo_protocol.h"
#include "devices/file_protocol.h"

namespace kmcl::cli {
namespace {

// Of vmbus cat.
constexpr GUID kCatInterface = {
    0x5d1ea42c, 0x7c0b, 0x4a39, {0x9a, 0x51, 0x0e, 0x6f, 0x84, 0xd2, 0xb7, 0x13}};

struct KnownInterface {
  GUID type;
  const char* name;
};

// Ours, then the classes that Hyper-V offers to its guests (VMBus reference, device GUIDs).
constexpr KnownInterface kKnownInterfaces[] = {
    {devices::kEchoInterface, "echo"},
    {devices::kFileInterface, "file"},
    {kCatInterface, "cat"},
    {{0x57164f39, 0x9115, 0x4e78, {0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d}}, "Heartbeat"},
    {{0x9527e630, 0xd0ae, 0x497b, {0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf}}, "Timesync"},
    {{0x0e0b6031, 0x5213, 0x4934, {0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb}}, "Shutdown"},
    {{0xa9a0f4e7, 0x5a45, 0x4d96, {0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6}}, "KVP"},
    {{0x35fa2e29, 0xea23, 0x4236, {0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40}}, "VSS"},
    {{0x34d14be3, 0xdee4, 0x41c8, {0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92}},
     "Guest file copy"},
    {{0x525074dc, 0x8985, 0x46e2, {0x80, 0x57, 0xa3, 0x07, 0xdc, 0x18, 0xa5, 0x02}},
     "Dynamic memory"},
    {{0xba6163d9, 0x04a1, 0x4d29, {0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f}},
     "Synthetic SCSI"},
    {{0x32412632, 0x86cb, 0x44a2, {0x9b, 0x5c, 0x50, 0xd1, 0x41, 0x73, 0x54, 0xf5}},
     "IDE accelerator"},
    {{0x2f9bcc4a, 0x0069, 0x4af3, {0xb7, 0x6b, 0x6f, 0xd0, 0xbe, 0x52, 0x8c, 0xda}},
     "Synthetic FC"},
    {{0xf8615163, 0xdf3e, 0x46c5, {0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e}},
     "Synthetic NIC"},
    {{0xf912ad6d, 0x2b17, 0x48ea, {0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84}}, "Keyboard"},
    {{0xcfa8b69e, 0x5b4a, 0x4cc0, {0xb9, 0x8b, 0x8b, 0xa1, 0xa1, 0xf3, 0xf9, 0x5a}}, "Mouse"},
    {{0xda0a7802, 0xe377, 0x4aac, {0x8e, 0x77, 0x05, 0x58, 0xeb, 0x10, 0x73, 0xf8}}, "Video"},
    {{0x44c4f61d, 0x4444, 0x4400, {0x9d, 0x52, 0x80, 0x2e, 0x27, 0xed, 0xe1, 0x9f}}, "vPCI"},
    {{0x8b60ccf6, 0x709f, 0x4c11, {0x90, 0xb5, 0x22, 0x9c, 0x95, 0x9a, 0x9e, 0x6a}}, "UART"},
    {{0xc376c1c3, 0xd276, 0x48d2, {0x90, 0xa9, 0xc0, 0x47, 0x48, 0x07, 0x2c, 0x60}}, "vmbfs"},
};

// A vsock service is the port number in front of this.
constexpr GUID kVsockTemplate = {
    0, 0xfacb, 0x11e6, {0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3}};

}  // namespace

std::string GuidText(const GUID& guid) {
  std::string text = fmt::format("{:08x}-{:04x}-{:04x}-", guid.Data1, guid.Data2, guid.Data3);
  for (int i = 0; i < 8; ++i) {
    text += fmt::format("{}{:02x}", i == 2 ? "-" : "", guid.Data4[i]);
  }
  return text;
}

std::string InterfaceName(const GUID& interface_type) {
  for (const KnownInterface& known : kKnownInterfaces) {
    if (known.type == interface_type) {
      return known.name;
    }
  }
  GUID without_port = interface_type;
  without_port.Data1 = 0;
  if (without_port == kVsockTemplate) {
    return fmt::format("vsock port {}", interface_type.Data1);
  }
  return "unknown";
}

std::optional<GUID> GuidFromText(std::string_view text) {
  constexpr std::string_view kShape = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
  if (text.size() != kShape.size()) return std::nullopt;
  std::uint8_t digits[32] = {};
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (kShape[i] == '-') {
      if (text[i] != '-') return std::nullopt;
      continue;
    }
    const auto parsed = std::from_chars(&text[i], &text[i] + 1, digits[count], 16);
    if (parsed.ec != std::errc()) return std::nullopt;
    ++count;
  }
  const auto number = [&](std::size_t first, std::size_t length) {
    std::uint32_t value = 0;
    for (std::size_t i = first; i < first + length; ++i) value = value << 4 | digits[i];
    return value;
  };
  GUID guid{
      number(0, 8), static_cast<USHORT>(number(8, 4)), static_cast<USHORT>(number(12, 4)), {}};
  for (std::size_t i = 0; i < 8; ++i) guid.Data4[i] = static_cast<UCHAR>(number(16 + 2 * i, 2));
  return guid;
}

std::optional<GUID> InterfaceFromText(std::string_view text) {
  for (const KnownInterface& known : kKnownInterfaces) {
    if (text == known.name) return known.type;
  }
  return GuidFromText(text);
}

}  // namespace kmcl::cli

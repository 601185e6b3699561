#include "vmm/acpi_table.h"

#include <algorithm>

namespace kmcl::vmm {

std::byte AcpiChecksum(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte value : bytes) {
    sum += std::to_integer<unsigned>(value);
  }
  return static_cast<std::byte>(0u - sum);
}

AcpiTable::AcpiTable(std::string_view signature, std::uint8_t revision, std::size_t bytes)
    : bytes_(std::max(bytes, kHeaderBytes)) {
  const auto text = [this](std::size_t offset, std::string_view characters) {
    std::memcpy(bytes_.data() + offset, characters.data(), characters.size());
  };
  text(0, signature.substr(0, 4));
  Put(8, revision);
  text(10, "KMCL  ");
  text(16, "KMCLVM  ");
  Put(24, std::uint32_t{1});
  text(28, "KMCL");
  Put(32, std::uint32_t{1});
}

AcpiBytes AcpiTable::Finish() {
  Put(4, static_cast<std::uint32_t>(bytes_.size()));
  Put(9, std::byte{0});
  Put(9, AcpiChecksum(bytes_));
  return std::move(bytes_);
}

namespace aml {
namespace {

AcpiBytes Bytes(std::initializer_list<unsigned> values) {
  AcpiBytes bytes;
  for (const unsigned value : values) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

AcpiBytes Text(std::string_view characters) {
  AcpiBytes bytes(characters.size());
  std::memcpy(bytes.data(), characters.data(), characters.size());
  return bytes;
}

// A length that counts itself: one byte up to 63, two up to 4,095. None of ours is longer.
AcpiBytes WithLength(const AcpiBytes& contents) {
  const std::size_t one = contents.size() + 1;
  const std::size_t two = contents.size() + 2;
  return Join({one < 64 ? Bytes({static_cast<unsigned>(one)})
                        : Bytes({0x40u | static_cast<unsigned>(two & 0xF),
                                 static_cast<unsigned>(two >> 4)}),
               contents});
}

}  // namespace

AcpiBytes Join(std::initializer_list<AcpiBytes> parts) {
  AcpiBytes all;
  for (const AcpiBytes& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

AcpiBytes Scope(std::string_view root_name, const AcpiBytes& contents) {
  return Join({Bytes({0x10}), WithLength(Join({Text("\\"), Text(root_name), contents}))});
}

AcpiBytes Device(std::string_view name, const AcpiBytes& contents) {
  return Join({Bytes({0x5B, 0x82}), WithLength(Join({Text(name), contents}))});
}

AcpiBytes Name(std::string_view name, const AcpiBytes& object) {
  return Join({Bytes({0x08}), Text(name), object});
}

AcpiBytes Byte(std::uint8_t value) { return Bytes({0x0A, value}); }

AcpiBytes DoubleWord(std::uint32_t value) {
  return Bytes({0x0C, value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF, value >> 24});
}

AcpiBytes Buffer(std::span<const std::uint8_t> contents) {
  AcpiBytes bytes(contents.size());
  std::memcpy(bytes.data(), contents.data(), contents.size());
  return Join(
      {Bytes({0x11}), WithLength(Join({Byte(static_cast<std::uint8_t>(contents.size())), bytes}))});
}

AcpiBytes Package(std::initializer_list<AcpiBytes> elements) {
  return Join({Bytes({0x12}), WithLength(Join({Bytes({static_cast<unsigned>(elements.size())}),
                                               Join(elements)}))});
}

}  // namespace aml
}  // namespace kmcl::vmm

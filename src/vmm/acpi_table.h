// The bytes of one ACPI table: header, contents, checksum; and the little of AML that ours are
// written in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace kmcl::vmm {

using AcpiBytes = std::vector<std::byte>;

// The byte that makes the sum of all zero.
std::byte AcpiChecksum(std::span<const std::byte> bytes);

class AcpiTable {
 public:
  // `signature` has four characters. The table has at least `bytes` bytes, zero at first.
  AcpiTable(std::string_view signature, std::uint8_t revision, std::size_t bytes = kHeaderBytes);

  static constexpr std::size_t kHeaderBytes = 36;

  // At a fixed place, which the table has.
  template <typename T>
  void Put(std::size_t offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof(value));
  }
  // At the end.
  template <typename T>
  void Append(T value) {
    const std::size_t end = bytes_.size();
    bytes_.resize(end + sizeof(value));
    Put(end, value);
  }
  void Append(const AcpiBytes& bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

  // The table with its length and checksum.
  AcpiBytes Finish();

 private:
  AcpiBytes bytes_;
};

// AML, each function the encoding of what it is named after. Names have four characters.
namespace aml {
AcpiBytes Join(std::initializer_list<AcpiBytes> parts);
AcpiBytes Scope(std::string_view root_name, const AcpiBytes& contents);  // \NAME
AcpiBytes Device(std::string_view name, const AcpiBytes& contents);
AcpiBytes Name(std::string_view name, const AcpiBytes& object);
AcpiBytes Byte(std::uint8_t value);
AcpiBytes DoubleWord(std::uint32_t value);
AcpiBytes Buffer(std::span<const std::uint8_t> contents);  // at most 255 bytes
AcpiBytes Package(std::initializer_list<AcpiBytes> elements);
}  // namespace aml

}  // namespace kmcl::vmm

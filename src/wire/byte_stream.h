// Little-endian fields one after the other, for formats of our own that leave the process: saved
// channels (docs/save-format.md) and servers that are handed over.
//
// A reader never looks beyond its bytes: once a field is missing it has failed, every later field
// reads as zero, and ok() says so in the end.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "wire/guid.h"

namespace kmcl::wire {

class ByteWriter {
 public:
  template <std::unsigned_integral T>
  void Put(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
    }
  }
  void Put(bool) = delete;
  void PutFlag(bool flag) { Put(std::uint8_t{flag}); }
  void PutGuid(const Guid& guid) { PutBytes(std::as_bytes(std::span(&guid, 1))); }
  void PutBytes(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  // With their number in front.
  void PutBlock(std::span<const std::byte> bytes) {
    Put(static_cast<std::uint64_t>(bytes.size()));
    PutBytes(bytes);
  }

  std::size_t size() const { return bytes_.size(); }
  std::vector<std::byte>& bytes() { return bytes_; }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  T Get() {
    const std::span<const std::byte> field = GetBytes(sizeof(T));
    T value = 0;
    for (std::size_t i = 0; i < field.size(); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(field[i]) << (8 * i)));
    }
    return value;
  }
  // Anything but 0 and 1 is a failure.
  bool GetFlag() {
    const auto value = Get<std::uint8_t>();
    if (value > 1) Fail();
    return value == 1;
  }
  Guid GetGuid() {
    Guid guid{};
    const std::span<const std::byte> field = GetBytes(sizeof guid);
    if (field.size() == sizeof guid) std::memcpy(&guid, field.data(), sizeof guid);
    return guid;
  }
  std::span<const std::byte> GetBytes(std::uint64_t count) {
    if (!ok_ || count > rest_.size()) {
      Fail();
      return {};
    }
    const auto field = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(field.size());
    return field;
  }
  std::span<const std::byte> GetBlock() { return GetBytes(Get<std::uint64_t>()); }

  void Fail() {
    ok_ = false;
    rest_ = {};
  }
  bool ok() const { return ok_; }
  std::size_t left() const { return rest_.size(); }
  // Everything was read, and nothing was missing.
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace kmcl::wire

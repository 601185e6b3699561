// Test helper: a second, naive writer and reader, written straight from the tables of VMBus
// reference 1.2 to 1.8: one byte at a time, modulo S, 64-bit numbers, every word fetched when it is
// needed. It is slow and trusts its peer, and it shares no line with the rings that it is compared
// with.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "ring/ring_pages.h"

namespace kmcl::ring {

struct ModelPacket {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::uint64_t transaction_id = 0;
  std::vector<std::byte> header{};
  std::vector<std::byte> payload{};  // as read: padded

  friend bool operator==(const ModelPacket&, const ModelPacket&) = default;
};

class ModelEnd {
 public:
  explicit ModelEnd(const RingPages& pages) : pages_(pages), size_(pages.data_bytes) {}

 protected:
  std::uint64_t Get(std::size_t offset) const {
    return std::atomic_ref<std::uint32_t>(
               *reinterpret_cast<std::uint32_t*>(pages_.control + offset))
        .load();
  }
  void Set(std::size_t offset, std::uint64_t value) const {
    std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(pages_.control + offset))
        .store(static_cast<std::uint32_t>(value));
  }
  // free(in, out) = S - used - 8
  std::uint64_t Free(std::uint64_t in, std::uint64_t out) const {
    const std::uint64_t used = in >= out ? in - out : in + size_ - out;
    return size_ - used - 8;
  }
  std::byte& At(std::uint64_t place) const { return pages_.data[place % size_]; }

  RingPages pages_;
  std::uint64_t size_;
};

class ModelWriter : public ModelEnd {
 public:
  explicit ModelWriter(const RingPages& pages) : ModelEnd(pages), in_(Get(0)), base_(in_) {}

  // False: full.
  bool Put(const ModelPacket& packet) {
    const std::uint64_t padded = (packet.payload.size() + 7) / 8 * 8;
    const std::uint64_t length = 16 + packet.header.size() + padded;
    if (Free(in_, Get(0x04)) < length + 8) return false;
    const std::uint64_t start = in_;
    Number(packet.type, 2);
    Number((16 + packet.header.size()) / 8, 2);
    Number(length / 8, 2);
    Number(packet.flags, 2);
    Number(packet.transaction_id, 8);
    for (const std::byte byte : packet.header) Byte(byte);
    for (const std::byte byte : packet.payload) Byte(byte);
    for (std::uint64_t i = packet.payload.size(); i < padded; ++i) Byte(std::byte{0});
    Number(0, 4);
    Number(start, 4);
    return true;
  }

  // True: ring.
  bool Publish() {
    if (in_ == base_) return false;
    Set(0x00, in_);
    const bool ring = Get(0x08) == 0 && Get(0x04) == base_;
    base_ = in_;
    return ring;
  }

  // True: the packet fits now.
  bool Request(std::uint64_t packet_bytes) {
    Set(0x0C, packet_bytes > size_ / 4 ? packet_bytes : size_ / 4);
    if (Free(in_, Get(0x04)) < packet_bytes) return false;
    Withdraw();
    return true;
  }
  void Withdraw() { Set(0x0C, 0); }

 private:
  void Byte(std::byte byte) {
    At(in_) = byte;
    in_ = (in_ + 1) % size_;
  }
  void Number(std::uint64_t number, int byte_count) {
    for (int i = 0; i < byte_count; ++i) Byte(static_cast<std::byte>(number >> (8 * i)));
  }

  std::uint64_t in_;
  std::uint64_t base_;
};

class ModelReader : public ModelEnd {
 public:
  explicit ModelReader(const RingPages& pages)
      : ModelEnd(pages), position_(Get(0x04)), old_out_(position_) {}

  std::optional<ModelPacket> Take() {
    if (Get(0x00) == position_) return std::nullopt;
    ModelPacket packet;
    packet.type = static_cast<std::uint16_t>(Number(0, 2));
    const std::uint64_t data_offset = Number(2, 2) * 8;
    const std::uint64_t length = Number(4, 2) * 8;
    packet.flags = static_cast<std::uint16_t>(Number(6, 2));
    packet.transaction_id = Number(8, 8);
    for (std::uint64_t i = 16; i < length; ++i) {
      (i < data_offset ? packet.header : packet.payload).push_back(At(position_ + i));
    }
    position_ = (position_ + length + 8) % size_;
    return packet;
  }

  // True: ring.
  bool Commit() {
    const std::uint64_t old_out = old_out_;
    if (position_ == old_out) return false;
    Set(0x04, position_);
    old_out_ = position_;
    if ((Get(0x40) & 1) == 0) return false;
    const std::uint64_t wanted = Get(0x0C) / 8 * 8;
    if (wanted == 0) return false;
    const std::uint64_t in = Get(0x00);
    return Free(in, old_out) < wanted && Free(in, position_) >= wanted;
  }

  void Mask() { Set(0x08, 1); }
  // True: still empty.
  bool Unmask() {
    Set(0x08, 0);
    return Get(0x00) == position_;
  }

 private:
  std::uint64_t Number(std::uint64_t offset, int byte_count) const {
    std::uint64_t number = 0;
    for (int i = 0; i < byte_count; ++i) {
      number |= std::to_integer<std::uint64_t>(At(position_ + offset + i)) << (8 * i);
    }
    return number;
  }

  std::uint64_t position_;
  std::uint64_t old_out_;
};

}  // namespace kmcl::ring

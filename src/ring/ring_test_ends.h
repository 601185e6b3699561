// Test helper: our two ends and the naive ones behind one pair of interfaces, so that a test can
// put any writer opposite any reader.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_model.h"

namespace kmcl::ring {

enum class Maker { kOurs, kModel };

class WriterEnd {
 public:
  virtual ~WriterEnd() = default;
  virtual bool Put(const ModelPacket& packet) = 0;       // false: full
  virtual bool Publish() = 0;                            // true: ring
  virtual bool Request(std::uint32_t packet_bytes) = 0;  // true: fits now
  virtual void Withdraw() = 0;
};

class ReaderEnd {
 public:
  virtual ~ReaderEnd() = default;
  virtual std::optional<ModelPacket> Take() = 0;
  virtual bool Commit() = 0;  // true: ring
  virtual void Mask() = 0;
  virtual bool Unmask() = 0;  // true: still empty
};

class OurWriter : public WriterEnd {
 public:
  explicit OurWriter(const RingPages& pages) : ring_(OutgoingRing::Attach(pages).value()) {}
  bool Put(const ModelPacket& packet) override {
    const auto type = static_cast<wire::PacketType>(packet.type);
    // Every other packet goes the short way if it can.
    if (++packets_ % 2 == 0 && packet.header.empty() && ring_.is_mapped_twice() &&
        ring_.WritePlain(OutgoingRing::PlainKind(type, packet.flags), packet.transaction_id,
                         packet.payload.data(),
                         static_cast<std::uint32_t>(packet.payload.size()))) {
      return true;
    }
    // The first unit of a payload travels as prefix, as a pipe header does.
    const std::span<const std::byte> payload = packet.payload;
    const std::size_t prefix_bytes = payload.size() >= 8 ? 8 : 0;
    return ring_
               .Write({.type = type,
                       .flags = packet.flags,
                       .transaction_id = packet.transaction_id,
                       .header = packet.header,
                       .prefix = payload.first(prefix_bytes),
                       .payload = payload.subspan(prefix_bytes)})
               .value() == WriteOutcome::kWritten;
  }
  bool Publish() override { return ring_.Publish() == Bell::kRing; }
  bool Request(std::uint32_t packet_bytes) override {
    return ring_.RequestSpaceBell(packet_bytes).value();
  }
  void Withdraw() override { ring_.WithdrawSpaceBell(); }

 private:
  OutgoingRing ring_;
  unsigned packets_ = 0;
};

class OurReader : public ReaderEnd {
 public:
  explicit OurReader(const RingPages& pages)
      : ring_(IncomingRing::Attach(pages).value()), buffer_(pages.data_bytes) {}
  std::optional<ModelPacket> Take() override {
    // Every other packet comes the short way if it can.
    PlainPacket plain;
    if (++packets_ % 2 == 0 && ring_.is_mapped_twice() &&
        ring_.ReadPlain(buffer_.data(), static_cast<std::uint32_t>(buffer_.size()), plain) ==
            IncomingRing::Plain::kRead) {
      return ModelPacket{
          .type = static_cast<std::uint16_t>(plain.is_completion ? wire::PacketType::kCompletion
                                                                 : wire::PacketType::kDataInBand),
          .flags = plain.wants_completion ? std::uint16_t{1} : std::uint16_t{0},
          .transaction_id = plain.transaction_id,
          .header = {},
          .payload = {buffer_.begin(), buffer_.begin() + plain.payload_bytes}};
    }
    const auto packet = ring_.Read(buffer_).value();
    if (!packet) return std::nullopt;
    return ModelPacket{.type = static_cast<std::uint16_t>(packet->type),
                       .flags = packet->flags,
                       .transaction_id = packet->transaction_id,
                       .header = {packet->header.begin(), packet->header.end()},
                       .payload = {packet->payload.begin(), packet->payload.end()}};
  }
  bool Commit() override { return ring_.Release() == Bell::kRing; }
  void Mask() override { ring_.Mask(); }
  bool Unmask() override { return ring_.UnmaskAndCheck().value(); }

 private:
  IncomingRing ring_;
  std::vector<std::byte> buffer_;
  unsigned packets_ = 0;
};

class NaiveWriter : public WriterEnd {
 public:
  explicit NaiveWriter(const RingPages& pages) : model_(pages) {}
  bool Put(const ModelPacket& packet) override { return model_.Put(packet); }
  bool Publish() override { return model_.Publish(); }
  bool Request(std::uint32_t packet_bytes) override { return model_.Request(packet_bytes); }
  void Withdraw() override { model_.Withdraw(); }

 private:
  ModelWriter model_;
};

class NaiveReader : public ReaderEnd {
 public:
  explicit NaiveReader(const RingPages& pages) : model_(pages) { model_.Mask(); }
  std::optional<ModelPacket> Take() override { return model_.Take(); }
  bool Commit() override { return model_.Commit(); }
  void Mask() override { model_.Mask(); }
  bool Unmask() override { return model_.Unmask(); }

 private:
  ModelReader model_;
};

inline std::unique_ptr<WriterEnd> MakeWriter(Maker maker, const RingPages& pages) {
  if (maker == Maker::kOurs) return std::make_unique<OurWriter>(pages);
  return std::make_unique<NaiveWriter>(pages);
}

inline std::unique_ptr<ReaderEnd> MakeReader(Maker maker, const RingPages& pages) {
  if (maker == Maker::kOurs) return std::make_unique<OurReader>(pages);
  return std::make_unique<NaiveReader>(pages);
}

}  // namespace kmcl::ring

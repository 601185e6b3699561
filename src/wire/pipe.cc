#include "wire/pipe.h"

#include <cstring>

namespace kmcl::wire {
namespace {

// Offsets in user_defined of an hvsock offer; its pipe kind stands at 0.
constexpr std::size_t kIsForClientAcceptOffset = 4;
constexpr std::size_t kIsForContainerOffset = 5;
constexpr std::size_t kHvsockVersionOffset = 6;
constexpr std::size_t kSiloIdOffset = 10;

}  // namespace

Result<PipePacket> ParsePipePayload(std::span<const std::byte> payload) {
  PipeHeader header;
  if (payload.size() < sizeof header) return std::unexpected(Error::kPipeHeaderMalformed);
  std::memcpy(&header, payload.data(), sizeof header);
  const auto data = payload.subspan(sizeof header);
  switch (header.type) {
    case PipePacketType::kData:
    case PipePacketType::kSetupGpaDirect:
    case PipePacketType::kTeardownGpaDirect:
      if (header.len > data.size()) return std::unexpected(Error::kPipeHeaderMalformed);
      return PipePacket{.type = header.type, .data = data.first(header.len)};
    case PipePacketType::kPartial: {
      const std::uint32_t total = header.len & 0xFFFF;
      const std::uint32_t taken = header.len >> 16;
      if (total > data.size() || taken >= total) {
        return std::unexpected(Error::kPipeHeaderMalformed);
      }
      return PipePacket{.type = header.type, .data = data.first(total).subspan(taken)};
    }
  }
  return std::unexpected(Error::kPipeHeaderMalformed);
}

Result<std::span<const std::byte>> ParsePipePacket(std::span<const std::byte> payload) {
  const auto packet = ParsePipePayload(payload);
  if (!packet) return std::unexpected(packet.error());
  if (packet->type != PipePacketType::kData) return std::unexpected(Error::kPipeHeaderMalformed);
  return packet->data;
}

Result<PipeParameters> ParsePipeParameters(const UserDefined& user_defined) {
  PipeParameters parameters;
  std::memcpy(&parameters, user_defined.data(), sizeof parameters);
  switch (parameters.kind) {
    case PipeKind::kByteStream:
    case PipeKind::kMessage:
      return parameters;
  }
  return std::unexpected(Error::kFieldOutOfRange);
}

UserDefined EncodePipeParameters(const PipeParameters& parameters) {
  UserDefined user_defined;
  std::memcpy(user_defined.data(), &parameters, sizeof parameters);
  return user_defined;
}

Result<HvsockParameters> ParseHvsockParameters(const UserDefined& user_defined) {
  const std::byte* const bytes = user_defined.data();
  PipeKind kind;
  std::memcpy(&kind, bytes, sizeof kind);
  if (kind != PipeKind::kByteStream) return std::unexpected(Error::kFieldOutOfRange);
  HvsockParameters parameters;
  parameters.is_for_client_accept = user_defined[kIsForClientAcceptOffset] != std::byte{0};
  parameters.is_for_container = user_defined[kIsForContainerOffset] != std::byte{0};
  std::memcpy(&parameters.version, bytes + kHvsockVersionOffset, sizeof parameters.version);
  std::memcpy(&parameters.silo_id, bytes + kSiloIdOffset, sizeof parameters.silo_id);
  return parameters;
}

UserDefined EncodeHvsockParameters(const HvsockParameters& parameters) {
  UserDefined user_defined{};  // kind 0, a byte stream
  std::byte* const bytes = user_defined.data();
  user_defined[kIsForClientAcceptOffset] = std::byte{parameters.is_for_client_accept};
  user_defined[kIsForContainerOffset] = std::byte{parameters.is_for_container};
  std::memcpy(bytes + kHvsockVersionOffset, &parameters.version, sizeof parameters.version);
  std::memcpy(bytes + kSiloIdOffset, &parameters.silo_id, sizeof parameters.silo_id);
  return user_defined;
}

}  // namespace kmcl::wire

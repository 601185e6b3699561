#include "wire/message_samples_test.h"

#include <gtest/gtest.h>

#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

constexpr Agreed kNewest{.version = Version::kCopper, .features = kKnownFeatures};

constexpr Guid kGuidA{0xF8615163, 0xDF3E, 0x46C5, {0x91, 0x3F, 0xF2, 0xD2, 0xF9, 0x65, 0xED, 0x0E}};
constexpr std::string_view kGuidABytes = "63 51 61 F8 3E DF C5 46 91 3F F2 D2 F9 65 ED 0E";
constexpr Guid kGuidB{0x01020304, 0x0506, 0x0708, {9, 10, 11, 12, 13, 14, 15, 16}};
constexpr std::string_view kGuidBBytes = "04 03 02 01 06 05 08 07 09 0A 0B 0C 0D 0E 0F 10";
constexpr Guid kGuidC{0xA0A1A2A3, 0xB0B1, 0xC0C1, {0xD0, 0xD1, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5}};
constexpr std::string_view kGuidCBytes = "A3 A2 A1 A0 B1 B0 C1 C0 D0 D1 E0 E1 E2 E3 E4 E5";

template <std::size_t size>
std::array<std::byte, size> Filled(std::uint8_t first, std::uint8_t step,
                                   std::size_t count = size) {
  std::array<std::byte, size> bytes{};
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(first + i * step);
  return bytes;
}

TestBytes Message(std::size_t size, std::uint32_t number) { return TestBytes(size).U32(0, number); }

MessageSample HeaderOnly(std::string name, std::variant<ClientMessage, ServerMessage> message,
                         std::uint32_t number, Version since, FeatureFlags required = {}) {
  return {std::move(name), message, Message(8, number).vector(), kNewest, 8, since,
          required,        false};
}

std::vector<MessageSample> ChannelSamples() {
  std::vector<MessageSample> samples;
  samples.push_back({
      "OfferChannel",
      ServerMessage(OfferChannel{.interface_id = kGuidA,
                                 .instance_id = kGuidB,
                                 .reserved = Filled<16>(0x30, 1),
                                 .flags = 0x2011,
                                 .mmio_megabytes = 0x1122,
                                 .user_defined = Filled<120>(0x41, 3),
                                 .subchannel_index = 0x0506,
                                 .mmio_megabytes_optional = 0x0708,
                                 .channel_id = ChannelId{0x7FE},
                                 .monitor_id = 0x5A,
                                 .monitor_flags = 1,
                                 .interrupt_flags = 1,
                                 .connection_id = ConnectionId{0x27FE}}),
      Message(196, 1)
          .Hex(8, kGuidABytes)
          .Hex(24, kGuidBBytes)
          .Fill(40, 16, 0x30, 1)
          .U16(56, 0x2011)
          .U16(58, 0x1122)
          .Fill(60, 120, 0x41, 3)
          .U16(180, 0x0506)
          .U16(182, 0x0708)
          .U32(184, 0x7FE)
          .U8(188, 0x5A)
          .U8(189, 1)
          .U16(190, 1)
          .U32(192, 0x27FE)
          .vector(),
      kNewest,
      196,
      Version::kV1,
      {},
      false,
  });
  samples.push_back({"RescindChannelOffer",
                     ServerMessage(RescindChannelOffer{ChannelId{0x123}}),
                     Message(12, 2).U32(8, 0x123).vector(),
                     kNewest,
                     12,
                     Version::kV1,
                     {},
                     false});
  samples.push_back(HeaderOnly("RequestOffers", ClientMessage(RequestOffers{}), 3, Version::kV1));
  samples.push_back(
      HeaderOnly("AllOffersDelivered", ServerMessage(AllOffersDelivered{}), 4, Version::kV1));
  samples.push_back({
      "OpenChannel",
      ClientMessage(OpenChannel{.channel_id = ChannelId{0x11},
                                .open_id = OpenId{0x22222222},
                                .ring_gpadl_id = GpadlId{0xE1E10},
                                .target_vp = ProcessorIndex{3},
                                .downstream_page_offset = 0x21,
                                .user_data = Filled<120>(0x10, 7),
                                .connection_id = ConnectionId{0x2011},
                                .event_flag = 0x345,
                                .flags = 1}),
      Message(156, 5)
          .U32(8, 0x11)
          .U32(12, 0x22222222)
          .U32(16, 0xE1E10)
          .U32(20, 3)
          .U32(24, 0x21)
          .Fill(28, 120, 0x10, 7)
          .U32(148, 0x2011)
          .U16(152, 0x345)
          .U16(154, 1)
          .vector(),
      kNewest,
      156,
      Version::kV1,
      {},
      false,
  });
  samples.push_back({"OpenChannelResult",
                     ServerMessage(OpenChannelResult{ChannelId{0x11}, OpenId{0x33}, 0x8000FFFF}),
                     Message(20, 6).U32(8, 0x11).U32(12, 0x33).U32(16, 0x8000FFFF).vector(),
                     kNewest,
                     20,
                     Version::kV1,
                     {},
                     false});
  samples.push_back({"CloseChannel",
                     ClientMessage(CloseChannel{ChannelId{0x44}}),
                     Message(12, 7).U32(8, 0x44).vector(),
                     kNewest,
                     12,
                     Version::kV1,
                     {},
                     false});
  return samples;
}

std::vector<MessageSample> GpadlSamples() {
  std::vector<MessageSample> samples;
  samples.push_back({
      "GpadlHeader",
      ClientMessage(GpadlHeader{.channel_id = ChannelId{0x15},
                                .gpadl_id = GpadlId{0xE1E11},
                                .range_list_bytes = 0x1008,
                                .range_count = 1,
                                .range_bytes = Filled<216>(0x21, 5, 24),
                                .range_bytes_size = 24}),
      Message(44, 8)
          .U32(8, 0x15)
          .U32(12, 0xE1E11)
          .U16(16, 0x1008)
          .U16(18, 1)
          .Fill(20, 24, 0x21, 5)
          .vector(),
      kNewest,
      20,
      Version::kV1,
      {},
      false,
  });
  samples.push_back({
      "GpadlBody",
      ClientMessage(GpadlBody{.message_number = 2,
                              .gpadl_id = GpadlId{0xE1E11},
                              .range_bytes = Filled<224>(0x31, 3, 224),
                              .range_bytes_size = 224}),
      Message(240, 9).U32(8, 2).U32(12, 0xE1E11).Fill(16, 224, 0x31, 3).vector(),
      kNewest,
      16,
      Version::kV1,
      {},
      false,
  });
  samples.push_back({"GpadlCreated",
                     ServerMessage(GpadlCreated{ChannelId{5}, GpadlId{6}, 7}),
                     Message(20, 10).U32(8, 5).U32(12, 6).U32(16, 7).vector(),
                     kNewest,
                     20,
                     Version::kV1,
                     {},
                     false});
  samples.push_back({"GpadlTeardown",
                     ClientMessage(GpadlTeardown{ChannelId{8}, GpadlId{9}}),
                     Message(16, 11).U32(8, 8).U32(12, 9).vector(),
                     kNewest,
                     16,
                     Version::kV1,
                     {},
                     false});
  samples.push_back({"GpadlTorndown",
                     ServerMessage(GpadlTorndown{GpadlId{0xABCDEF01}}),
                     Message(12, 12).U32(8, 0xABCDEF01).vector(),
                     kNewest,
                     12,
                     Version::kV1,
                     {},
                     false});
  samples.push_back({"RelIdReleased",
                     ClientMessage(RelIdReleased{ChannelId{0x7FF}}),
                     Message(12, 13).U32(8, 0x7FF).vector(),
                     kNewest,
                     12,
                     Version::kV1,
                     {},
                     false});
  return samples;
}

std::vector<MessageSample> ConnectionSamples() {
  std::vector<MessageSample> samples;
  samples.push_back({
      "InitiateContact",
      ClientMessage(
          InitiateContact{.version = Version::kCopper,
                          .target_message_vp = ProcessorIndex{4},
                          .target_info = InitiateContact::TargetInfo(
                              2, 1, Feature::kClientId | Feature::kGuestSpecifiedSignalParameters),
                          .parent_to_child_monitor_page = 0x1234567890ABC000,
                          .child_to_parent_monitor_page = 0x0EDCBA0987654000,
                          .client_id = kGuidC}),
      Message(56, 14)
          .U32(8, 0x00060000)
          .U32(12, 4)
          .U8(16, 2)
          .U8(17, 1)
          .U32(20, 0x09)
          .U64(24, 0x1234567890ABC000)
          .U64(32, 0x0EDCBA0987654000)
          .Hex(40, kGuidCBytes)
          .vector(),
      kNewest,
      40,
      Version::kV1,
      {},
      true,
  });
  samples.push_back({
      "VersionResponse",
      ServerMessage(VersionResponse{.version_supported = 1,
                                    .connection_state = ConnectionState::kLowResources,
                                    .connection_id_or_version = 0x800074,
                                    .features = FeatureFlags(0x69),
                                    .parent_to_child_monitor_page = 0xAAAA000,
                                    .child_to_parent_monitor_page = 0xBBBB000}),
      Message(40, 15)
          .U8(8, 1)
          .U8(9, 1)
          .U32(12, 0x800074)
          .U32(16, 0x69)
          .U64(24, 0xAAAA000)
          .U64(32, 0xBBBB000)
          .vector(),
      kNewest,
      16,
      Version::kV1,
      {},
      true,
  });
  samples.push_back(HeaderOnly("Unload", ClientMessage(Unload{}), 16, Version::kV1));
  samples.push_back(
      HeaderOnly("UnloadComplete", ServerMessage(UnloadComplete{}), 17, Version::kWin7));
  samples.push_back({
      "OpenReservedChannel",
      ClientMessage(
          OpenReservedChannel{ChannelId{0x51}, ProcessorIndex{0x52}, 0x53, GpadlId{0x54}, 0x55}),
      Message(28, 18).U32(8, 0x51).U32(12, 0x52).U32(16, 0x53).U32(20, 0x54).U32(24, 0x55).vector(),
      kNewest,
      28,
      Version::kWin10,
      {},
      false,
  });
  samples.push_back({"CloseReservedChannel",
                     ClientMessage(CloseReservedChannel{ChannelId{0x61}, ProcessorIndex{0x62}, 2}),
                     Message(20, 19).U32(8, 0x61).U32(12, 0x62).U32(16, 2).vector(),
                     kNewest,
                     20,
                     Version::kV1,
                     {},
                     true});
  // Legal wherever its request is; see the comment at the struct.
  samples.push_back({"CloseReservedResponse",
                     ServerMessage(CloseReservedResponse{ChannelId{0x61}}),
                     Message(12, 20).U32(8, 0x61).vector(),
                     kNewest,
                     12,
                     Version::kV1,
                     {},
                     true});
  samples.push_back({
      "TlConnectRequest",
      ClientMessage(
          TlConnectRequest{.endpoint_id = kGuidA, .service_id = kGuidB, .silo_id = kGuidC}),
      Message(56, 21).Hex(8, kGuidABytes).Hex(24, kGuidBBytes).Hex(40, kGuidCBytes).vector(),
      kNewest,
      40,
      Version::kWin10,
      {},
      false,
  });
  samples.push_back({"ModifyChannel",
                     ClientMessage(ModifyChannel{ChannelId{0x71}, ProcessorIndex{0x72}}),
                     Message(16, 22).U32(8, 0x71).U32(12, 0x72).vector(),
                     kNewest,
                     16,
                     Version::kWin10Rs3,
                     {},
                     false});
  samples.push_back({
      "TlConnectResult",
      ServerMessage(TlConnectResult{
          .endpoint_id = kGuidB, .service_id = kGuidC, .status = kStatusConnectionRefused}),
      Message(44, 23).Hex(8, kGuidBBytes).Hex(24, kGuidCBytes).U32(40, 0xC0000236).vector(),
      kNewest,
      44,
      Version::kWin10Rs3,
      {},
      false,
  });
  samples.push_back({"ModifyChannelResponse",
                     ServerMessage(ModifyChannelResponse{ChannelId{0x73}, kStatusFailure}),
                     Message(16, 24).U32(8, 0x73).U32(12, 0x8000FFFF).vector(),
                     kNewest,
                     16,
                     Version::kIron,
                     {},
                     false});
  samples.push_back({"ModifyConnection", ClientMessage(ModifyConnection{0x1111000, 0x2222000}),
                     Message(24, 25).U64(8, 0x1111000).U64(16, 0x2222000).vector(), kNewest, 24,
                     Version::kCopper, FeatureFlags(0x4), false});
  samples.push_back({"ModifyConnectionResponse",
                     ServerMessage(ModifyConnectionResponse{ConnectionState::kUnknownFailure}),
                     Message(9, 26).U8(8, 2).vector(), kNewest, 9, Version::kCopper,
                     FeatureFlags(0x4), false});
  samples.push_back(
      HeaderOnly("Pause", ClientMessage(Pause{}), 27, Version::kCopper, FeatureFlags(0x20)));
  samples.push_back(HeaderOnly("PauseResponse", ServerMessage(PauseResponse{}), 28,
                               Version::kCopper, FeatureFlags(0x20)));
  samples.push_back(
      HeaderOnly("Resume", ClientMessage(Resume{}), 29, Version::kCopper, FeatureFlags(0x20)));
  return samples;
}

}  // namespace

std::vector<MessageSample> AllMessageSamples() {
  std::vector<MessageSample> all = ChannelSamples();
  for (auto& sample : GpadlSamples()) all.push_back(std::move(sample));
  for (auto& sample : ConnectionSamples()) all.push_back(std::move(sample));
  return all;
}

}  // namespace kmcl::wire

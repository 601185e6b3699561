// Every parser of the wire room on any bytes: what it accepts lies inside what it was given, and
// says the same when it is written and read once more.
#include <string>
#include <variant>

#include "input.h"
#include "wire/class_guids.h"
#include "wire/gpa_range.h"
#include "wire/guid.h"
#include "wire/message_codec.h"
#include "wire/packet.h"
#include "wire/pipe.h"

namespace kmcl::wire {
namespace {

using fuzz::Input;

bool IsInside(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

Agreed AnyAgreed(Input& input) {
  const std::uint32_t version = input.Below(kVersionsNewestFirst.size() + 2);
  if (version == kVersionsNewestFirst.size()) return {};
  if (version > kVersionsNewestFirst.size()) {
    const Version any{input.Number()};
    FUZZ_REQUIRE(NameOf(any) != nullptr);
    for (const Version each : kVersionsNewestFirst) (void)NameOf(each);
    if (IsKnown(any)) FUZZ_REQUIRE(std::to_underlying(any) == (MajorOf(any) << 16 | MinorOf(any)));
    return {};
  }
  return {kVersionsNewestFirst[version], FeatureFlags(input.Byte())};
}

void Events(ConnectionId connection) {
  const auto channel = ChannelOfEvent(connection);
  if (!channel) return;
  FUZZ_REQUIRE(std::to_underlying(*channel) - 1 < kMaximumChannelId);
  FUZZ_REQUIRE(EventConnection(*channel) == connection);
}

template <typename Parse>
void Message(Input& input, Parse parse) {
  const Agreed agreed = AnyAgreed(input);
  std::vector<std::byte> bytes;
  if (input.Flag()) {
    bytes = fuzz::AnyMessage(input);
  } else {
    const auto rest = input.Rest();
    bytes.assign(rest.begin(), rest.end());
  }
  if (const auto number = MessageNumber(bytes)) (void)NameOf(static_cast<MessageType>(*number));
  const auto message = parse(bytes, agreed);
  if (!message) return;
  std::visit(
      [&](const auto& m) {
        const MessageBytes written = Encode(m, agreed);
        const auto again = parse(written, agreed);
        FUZZ_REQUIRE(again.has_value());
        // What is not agreed on is cleared, and a GPADL header's list cut to words: the second
        // time nothing changes any more.
        std::visit([&](const auto& second) { FUZZ_REQUIRE(Encode(second, agreed) == written); },
                   *again);
        FUZZ_REQUIRE(MessageBytes::Of(written.span()).has_value());
        if constexpr (requires { m.range_bytes_size; }) {
          FUZZ_REQUIRE(m.range_bytes_size <= m.range_bytes.size());
        }
        if constexpr (requires { RangeListBytes(m); }) (void)RangeListBytes(m);
        if constexpr (requires { m.gpadl_id; }) (void)IsReadOnly(m.gpadl_id);
        if constexpr (requires { m.interrupt_page(); }) (void)m.interrupt_page();
        if constexpr (requires { m.connection_id; }) {
          Events(m.connection_id);
          Events(EventConnection(m.channel_id));
        }
      },
      *message);
}

void Ranges(std::span<const std::byte> bytes, std::uint32_t count) {
  const auto packed = PackedGpaRanges::Parse(bytes, count);
  const auto list = GpaRangeList::Parse(bytes, count);
  FUZZ_REQUIRE(packed.has_value() == list.has_value());
  if (!packed) return;
  FUZZ_REQUIRE(IsInside(packed->bytes(), bytes));
  FUZZ_REQUIRE(packed->range_count() == list->range_count());
  FUZZ_REQUIRE(packed->page_count() == list->pages().size());
  FUZZ_REQUIRE(packed->byte_count() == list->byte_count());
  std::size_t index = 0;
  GpaRangeList rebuilt;
  for (const PackedGpaRange range : *packed) {
    const GpaRangeList::Range same = list->range(index++);
    FUZZ_REQUIRE(range.byte_count() == same.byte_count);
    FUZZ_REQUIRE(range.page_count() == same.pages.size());
    for (std::uint32_t page = 0; page < range.page_count(); ++page) {
      FUZZ_REQUIRE(range.page(page) == same.pages[page]);
    }
    FUZZ_REQUIRE(rebuilt.Append(same.byte_count, same.byte_offset, same.pages).has_value());
    std::vector<std::byte> out(8 + 8 * same.pages.size());
    FUZZ_REQUIRE(EncodeGpaRange(same.byte_count, same.byte_offset, same.pages, out) == out.size());
  }
  FUZZ_REQUIRE(rebuilt == *list);
  const auto encoded = list->Encode();
  FUZZ_REQUIRE(encoded.size() == list->encoded_bytes());
  FUZZ_REQUIRE(GpaRangeList::Parse(encoded, count) == *list);
  if (const auto messages = FragmentGpadl(ChannelId{1}, GpadlId{2}, *list)) {
    FUZZ_REQUIRE(RangeListBytes(messages->header) == encoded.size());
  }
}

// Ranges of sizes that fit, so that lists with many of them are reached as well.
void GoodRanges(Input& input) {
  GpaRangeList list;
  while (!input.empty() && list.pages().size() < 9000) {
    std::vector<PageNumber> pages(1 + input.Number() % 3000);
    for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = PageNumber{i * 3};
    const std::uint32_t bytes =
        input.Flag() ? static_cast<std::uint32_t>(pages.size()) * kPageBytes : input.Number();
    (void)list.Append(bytes, input.Below(2) * input.Get<std::uint16_t>(), pages);
  }
  if (list.empty()) {
    FUZZ_REQUIRE(!FragmentGpadl(ChannelId{1}, GpadlId{2}, list));
    return;
  }
  Ranges(list.Encode(), static_cast<std::uint32_t>(list.range_count()));
}

void Descriptor(Input& input) {
  const auto descriptor = input.Get<PacketDescriptor>();
  const std::uint32_t available = input.Get<std::uint32_t>();
  for (std::uint16_t low = 0; low < 32; ++low) {
    FUZZ_REQUIRE(NameOf(static_cast<PacketType>(descriptor.type ^ low)) != nullptr);
  }
  const auto shape = ParseDescriptor(descriptor, available);
  if (!shape) return;
  FUZZ_REQUIRE(shape->ring_bytes() <= available);
  FUZZ_REQUIRE(shape->ring_bytes() % kRingUnitBytes == 0);
}

void Headers(Input& input) {
  const std::uint32_t payload_bytes = input.Number();
  const auto header = input.Rest();
  (void)ParseTransferPageSet(header);
  (void)ParseGpadlReference(header);
  if (const auto gpadl = ParseEstablishGpadl(header)) {
    FUZZ_REQUIRE(IsInside(gpadl->ranges.bytes(), header));
  }
  if (const auto pages = ParseTransferPages(header)) {
    (void)pages->set_id();
    (void)pages->sender_owns_set();
    for (std::uint32_t i = 0; i < pages->range_count(); ++i) {
      const TransferPageRange range = pages->range(i);
      if (wire::IsInside(range, payload_bytes)) {
        FUZZ_REQUIRE(std::uint64_t{range.byte_offset} + range.byte_count <= payload_bytes);
      }
    }
  }
  if (const auto ranges = ParseGpaDirect(header)) {
    FUZZ_REQUIRE(IsInside(ranges->bytes(), header));
    std::vector<std::byte> written(
        GpaDirectWriter::Bytes(ranges->range_count(), ranges->page_count()));
    GpaDirectWriter writer(written);
    for (const PackedGpaRange range : *ranges) {
      writer.BeginRange(range.byte_count(), range.byte_offset());
      for (std::uint32_t i = 0; i < range.page_count(); ++i) writer.AddPage(range.page(i));
    }
    const auto again = ParseGpaDirect(written);
    FUZZ_REQUIRE(again.has_value() && again->page_count() == ranges->page_count());
  }
  if (const auto part = ParseAdditionalData(header, payload_bytes)) {
    FUZZ_REQUIRE(part->byte_count <= payload_bytes);
  }
}

void Pipes(Input& input) {
  UserDefined user{};
  const auto bytes = input.Bytes(user.size());
  std::copy(bytes.begin(), bytes.end(), user.begin());
  if (const auto pipe = ParsePipeParameters(user)) {
    FUZZ_REQUIRE(ParsePipeParameters(EncodePipeParameters(*pipe)) == *pipe);
  }
  if (const auto socket = ParseHvsockParameters(user)) {
    FUZZ_REQUIRE(ParseHvsockParameters(EncodeHvsockParameters(*socket)) == *socket);
  }
  const auto payload = input.Rest();
  const auto any = ParsePipePayload(payload);
  if (any) FUZZ_REQUIRE(IsInside(any->data, payload));
  if (const auto data = ParsePipePacket(payload)) {
    FUZZ_REQUIRE(IsInside(*data, payload));
    FUZZ_REQUIRE(any && any->type == PipePacketType::kData && any->data.size() == data->size());
  }
}

void Guids(Input& input) {
  const Guid guid = input.Get<Guid>();
  FUZZ_REQUIRE(ParseGuid(ToString(guid)) == guid);
  FUZZ_REQUIRE(ParseGuid("{" + ToString(guid) + "}") == guid);
  (void)std::hash<Guid>()(guid);
  (void)NameOf(guid);
  (void)NameOf(kClassGuids[input.Below(kClassGuids.size())].id);
  const std::uint32_t port = input.Number();
  FUZZ_REQUIRE(HvsockPort(HvsockServiceGuid(port)) == port);
  if (const auto other = HvsockPort(guid)) FUZZ_REQUIRE(HvsockServiceGuid(*other) == guid);
  const auto rest = input.Rest();
  const std::string text(reinterpret_cast<const char*>(rest.data()), rest.size());
  if (const auto parsed = ParseGuid(text)) FUZZ_REQUIRE(ParseGuid(ToString(*parsed)) == *parsed);
}

}  // namespace
}  // namespace kmcl::wire

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kmcl::wire;
  kmcl::fuzz::Input input(data, size);
  switch (input.Below(8)) {
    case 0:
      Message(input, [](auto bytes, auto& agreed) { return ParseClientMessage(bytes, agreed); });
      break;
    case 1:
      Message(input, [](auto bytes, auto& agreed) { return ParseServerMessage(bytes, agreed); });
      break;
    case 2: {
      const std::uint32_t count = input.Number();
      Ranges(input.Rest(), count);
      break;
    }
    case 3:
      GoodRanges(input);
      break;
    case 4:
      Descriptor(input);
      break;
    case 5:
      Headers(input);
      break;
    case 6:
      Pipes(input);
      break;
    default:
      Guids(input);
      break;
  }
  return 0;
}

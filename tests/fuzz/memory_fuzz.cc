// A client's memory at the server's: GPADLs in fragments, rings made of any pages, and packets that
// describe memory, from a client that sends its messages and packets byte by byte; and a driver at
// the server that maps whatever it is named, reads it and writes it. The driver never sees more
// than was described, and the client can go at any moment.
#include <kmcl/external_data.h>
#include <kmcl/gpadl.h>
#include <kmcl/wdk/mdl.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <optional>
#include <variant>
#include <vector>

#include "device_world.h"
#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "transport/link.h"
#include "wire/message_codec.h"

namespace kmcl {
namespace {

using fuzz::Input;

constexpr GUID kType = {0x11111111, 0x2222, 0x3333, {4, 4, 4, 4, 4, 4, 4, 4}};
constexpr std::uint32_t kPages = 64;  // of the client's memory

// Maps what packets describe, and what they name.
class Driver {
 public:
  void Offer(PDEVICE_OBJECT device_object, HANDLE partition) {
    ChannelOptions options;
    options.interface_type = kType;
    options.interface_instance = kType;
    options.maximum_packet_bytes = 1024;
    options.configure = [](VMBCHANNEL channel) {
      VmbChannelInitSetProcessPacketCallbacks(channel, OnPacket, nullptr);
      return Status(STATUS_SUCCESS);
    };
    auto made = Channel::Make(device_object, true, partition, std::move(options));
    FUZZ_REQUIRE(made.has_value());
    channel_ = std::move(*made);
    FUZZ_REQUIRE(VmbChannelEnable(channel_.handle()) == STATUS_SUCCESS);
    VmbChannelStart(channel_.handle());
  }
  void Drop() { channel_.Reset(); }

 private:
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags) {
    const auto* const data = static_cast<const std::uint8_t*>(buffer);
    if ((flags & VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA) != 0) {
      PMDL mdl = nullptr;
      if (VmbChannelPacketGetExternalData(packet, 0, &mdl) == STATUS_SUCCESS) Touch(mdl, true);
    }
    for (UINT32 i = 0; i < std::min(buffer_bytes, 4u); ++i) {
      PMDL mdl = nullptr;
      const UINT32 gpadl = data[i] % 16;
      const UINT32 read_only = data[i] / 16 % 2 != 0 ? VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY : 0;
      if (VmbChannelMapGpadl(channel, read_only, gpadl, &mdl) != STATUS_SUCCESS) continue;
      Touch(mdl, read_only == 0);
      VmbChannelUnmapGpadl(channel, gpadl);
    }
    VmbChannelPacketComplete(packet, buffer, std::min(buffer_bytes, 64u));
  }

  static void Touch(PMDL mdl, bool writes) {
    for (; mdl != nullptr; mdl = mdl->Next) {
      const ULONG bytes = MmGetMdlByteCount(mdl);
      const ULONG priority = NormalPagePriority | (writes ? 0u : MdlMappingNoWrite);
      auto* const address =
          static_cast<volatile std::uint8_t*>(MmGetSystemAddressForMdlSafe(mdl, priority));
      if (address == nullptr || bytes == 0) continue;
      const std::uint8_t last = address[bytes - 1];
      if (!writes) continue;
      address[0] = 1;
      address[bytes - 1] = last;
    }
  }

  Channel channel_;
};

class HostileClient {
 public:
  HostileClient(Input& input, const std::string& address) : input_(input) {
    auto dialled = transport::Dial(address, {});
    FUZZ_REQUIRE(dialled.has_value());
    link_ = std::move(*dialled);
    FUZZ_REQUIRE(link_->AllocatePages(kPages).has_value());
  }

  void Run() {
    wire::InitiateContact contact;
    contact.version = wire::kVersionsNewestFirst[input_.Below(4)];
    contact.target_info = wire::InitiateContact::TargetInfo(wire::kVmbusSint, 0, {});
    Send(contact);
    Await<wire::VersionResponse>();
    agreed_.version = contact.version;
    Send(wire::RequestOffers{});
    Await<wire::AllOffersDelivered>();
    if (input_.Below(4) != 0) Open();
    for (int steps = 0; steps < 60 && !input_.empty(); ++steps) Step();
    // In order, or by the link's end.
    if (input_.Below(4) != 0) return;
    Send(wire::Unload{});
    Await<wire::UnloadComplete>();
  }

 private:
  void Step() {
    switch (input_.Below(16)) {
      case 0:
      case 1:
        return Describe(false);
      case 2:
        return Describe(true);
      case 3:
        Send(wire::GpadlTeardown{channel_, Gpadl()});
        return;
      case 4:
        return Open();
      case 5:
        Send(wire::CloseChannel{channel_});
        return;
      case 6:
        return SendBytes(fuzz::AnyMessage(input_));
      case 7:
      case 8:
      case 9:
      case 10:
        return Write();
      case 11:
        return Read();
      case 12:
        return Spoil();
      case 13: {
        wire::OpenChannel open;
        open.channel_id = channel_;
        open.open_id = wire::OpenId{3};
        open.ring_gpadl_id = Gpadl();
        open.downstream_page_offset = input_.Number();
        Send(open);
        return;
      }
      default:
        while (Next(0)) {
        }
        return;
    }
  }

  wire::GpadlId Gpadl() { return wire::GpadlId{1 + input_.Below(8)}; }
  wire::PageNumber Page() {
    return wire::PageNumber{input_.Below(16) == 0 ? input_.Get<std::uint64_t>() : input_.Below(80)};
  }

  wire::GpaRangeList AnyRanges() {
    wire::GpaRangeList list;
    for (std::uint32_t left = 1 + input_.Below(3); left > 0; --left) {
      std::vector<wire::PageNumber> pages(1 + input_.Number() % 60);
      const wire::PageNumber first = Page();
      for (std::size_t i = 0; i < pages.size(); ++i) {
        pages[i] = wire::PageNumber{std::to_underlying(first) + i};
      }
      if (input_.Flag()) pages[input_.Byte() % pages.size()] = Page();
      const std::uint32_t offset = input_.Below(4) == 0 ? input_.Get<std::uint16_t>() % 4096 : 0;
      const std::uint32_t bytes = input_.Flag()
                                      ? static_cast<std::uint32_t>(pages.size()) * 4096 - offset
                                      : input_.Number();
      (void)list.Append(bytes, offset, pages);
    }
    return list;
  }

  // In pieces: all of them, or not; in order, or with something between.
  void Describe(bool is_spoilt) {
    const auto list = AnyRanges();
    if (list.empty()) return;
    auto messages = wire::FragmentGpadl(channel_, Gpadl(), list);
    if (!messages) return;
    if (is_spoilt) {
      messages->header.range_bytes[input_.Byte() % messages->header.range_bytes.size()] =
          static_cast<std::byte>(input_.Byte());
      messages->header.range_count = static_cast<std::uint16_t>(input_.Number());
    }
    Send(messages->header);
    for (const auto& body : messages->bodies) {
      if (input_.Below(32) == 1) continue;
      Send(body);
      if (input_.Below(32) == 1) SendBytes(fuzz::AnyMessage(input_));
    }
    Await<wire::GpadlCreated>();
  }

  // Rings, as a client should make them.
  void Open() {
    const wire::GpadlId ring{9};
    const auto list = wire::GpaRangeList::OfPages(wire::PageNumber{4}, 4).value();
    auto mapped = link_->MapRings(list.pages(), 2);
    if (!mapped) return;
    rings_ = std::move(*mapped);
    const auto pages = [](const transport::RingMapping::View& view) {
      return ring::RingPages{.control = view.control,
                             .data = view.data,
                             .data_bytes = view.data_bytes,
                             .mapped_bytes = 2 * view.data_bytes};
    };
    auto writer = ring::OutgoingRing::Create(pages(rings_->client_to_server));
    auto reader = ring::IncomingRing::Create(pages(rings_->server_to_client));
    FUZZ_REQUIRE(writer && reader);
    writer_.emplace(std::move(*writer));
    reader_.emplace(std::move(*reader));
    Send(wire::FragmentGpadl(channel_, ring, list)->header);
    Await<wire::GpadlCreated>();
    wire::OpenChannel open;
    open.channel_id = channel_;
    open.open_id = wire::OpenId{2};
    open.ring_gpadl_id = ring;
    open.downstream_page_offset = 2;
    Send(open);
    Await<wire::OpenChannelResult>();
  }

  void Write() {
    if (!writer_) return;
    std::vector<std::byte> header;
    auto type = wire::PacketType::kDataInBand;
    if (input_.Flag()) {
      type = wire::PacketType::kDataUsingGpaDirect;
      const auto list = AnyRanges();
      const std::vector<std::byte> ranges = list.Encode();
      const std::uint32_t head[2] = {0, input_.Below(8) == 1
                                            ? input_.Number()
                                            : static_cast<std::uint32_t>(list.range_count())};
      header.resize(sizeof head + ranges.size());
      std::memcpy(header.data(), head, sizeof head);
      std::ranges::copy(ranges, header.begin() + sizeof head);
      if (input_.Below(8) == 1)
        header[input_.Byte() % header.size()] = static_cast<std::byte>(0xFF);
      header.resize(header.size() / 8 * 8);
    }
    const auto written = writer_->Write({.type = type,
                                         .flags = static_cast<std::uint16_t>(input_.Below(2)),
                                         .transaction_id = input_.Byte(),
                                         .header = header,
                                         .payload = input_.Bytes(64)});
    if (written && writer_->Publish() == ring::Bell::kRing) {
      link_->MakeDoorbell(channel_, 0)->Ring();
    }
  }

  void Read() {
    if (!reader_) return;
    std::vector<std::byte> buffer(reader_->data_bytes());
    if (const auto packet = reader_->Read(buffer); packet && *packet) (void)reader_->Release();
  }

  void Spoil() {
    if (!rings_) return;
    const auto& view = input_.Flag() ? rings_->client_to_server : rings_->server_to_client;
    const std::uint32_t value = input_.Number();
    std::memcpy(view.control + input_.Below(5) * 4, &value, sizeof value);
    link_->MakeDoorbell(channel_, 0)->Ring();
  }

  template <typename M>
  void Send(const M& message) {
    SendBytes(wire::Encode(message, agreed_));
  }
  void SendBytes(std::span<const std::byte> bytes) { (void)!link_->Send(bytes); }

  // Until a message of this kind has come, or nothing comes.
  template <typename M>
  void Await() {
    while (const auto message = Next(20)) {
      if (const auto* offer = std::get_if<wire::OfferChannel>(&*message))
        channel_ = offer->channel_id;
      if (std::holds_alternative<M>(*message)) return;
    }
  }
  std::optional<wire::ServerMessage> Next(int milliseconds) {
    std::array<std::byte, transport::kMaximumMessageBytes> buffer;
    link_->Flush();
    for (;;) {
      const auto received = link_->Receive(buffer);
      if (received.status == transport::ReceiveStatus::kGone) return std::nullopt;
      if (received.status == transport::ReceiveStatus::kMessage) {
        const wire::Agreed reader{wire::Version::kCopper, wire::kKnownFeatures};
        auto parsed = wire::ParseServerMessage({buffer.data(), received.bytes}, reader);
        FUZZ_REQUIRE(parsed.has_value());
        return *parsed;
      }
      pollfd wait{link_->message_fd(), POLLIN, 0};
      if (poll(&wait, 1, milliseconds) != 1) return std::nullopt;
    }
  }

  Input& input_;
  std::unique_ptr<transport::ClientLink> link_;
  wire::Agreed agreed_;
  wire::ChannelId channel_{1};
  std::optional<transport::RingMapping> rings_;
  std::optional<ring::OutgoingRing> writer_;
  std::optional<ring::IncomingRing> reader_;
};

}  // namespace
}  // namespace kmcl

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::QuietLog();
  kmcl::fuzz::Input input(data, size);
  kmcl::Driver driver;
  kmcl::fuzz::DeviceServer server([&](PDEVICE_OBJECT device_object,
                                      HANDLE partition) { driver.Offer(device_object, partition); },
                                  [&] { driver.Drop(); });
  kmcl::HostileClient(input, server.address()).Run();
  return 0;
}

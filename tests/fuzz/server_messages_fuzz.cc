// The server's bus machine against a client that sends anything at any time, with a device that
// keeps its promises: after each step the machine's invariants hold, everything it sends can be
// read, and in the end it lets go of everything.
#include <algorithm>
#include <deque>
#include <variant>

#include "bus/server.h"
#include "bus/server_snapshot.h"
#include "input.h"
#include "wire/message_codec.h"

namespace kmcl::bus {
namespace {

using fuzz::Input;

ServerLimits Limits(Input& input) {
  ServerLimits limits;
  if (input.Flag()) {
    limits.channels = 3;
    limits.gpadls_per_channel = 2;
    limits.gpadls = 3;
    limits.gpadl_pages = 300;
    limits.incomplete_gpadls = 1;
    limits.refusals = 20;
  }
  limits.newest = wire::kVersionsNewestFirst[input.Below(wire::kVersionsNewestFirst.size())];
  limits.features =
      wire::FeatureFlags(input.Byte()).Without(wire::Feature::kServerSpecifiedMonitorPages);
  limits.monitors = static_cast<Monitors>(input.Below(3));
  limits.vtl = static_cast<std::uint8_t>(input.Below(3));
  return limits;
}

class Host {
 public:
  explicit Host(Input& input) : input_(input), limits_(Limits(input)), server_(limits_) {}

  void Run() {
    if (input_.Below(4) != 0) {
      // Begins where it is interesting.
      Offer();
      Offer();
      Contact();
      Tell(wire::Encode(wire::RequestOffers{}, server_.agreed()));
    }
    while (!input_.empty()) Step();
    Carry(server_.OnPeerGone());
    while (!owed_.empty()) Answer(0, wire::kStatusSuccess);
    FUZZ_REQUIRE(server_.finished());
  }

 private:
  struct Debt {
    enum class Kind { kOpen, kClose, kMap, kUnmap, kModify } kind;
    wire::ChannelId channel{};
    wire::GpadlId gpadl{};
  };

  void Step() {
    switch (input_.Below(16)) {
      case 0:
        return Tell(input_.Bytes(300));
      case 1:
      case 2:
      case 3:
        return Tell(fuzz::AnyMessage(input_));
      case 4:
        return Contact();
      case 5:
        return TellWell();
      case 6:
        return Describe();
      case 7: {
        wire::OpenChannel open;
        open.channel_id = Channel();
        open.ring_gpadl_id = Gpadl();
        open.open_id = wire::OpenId{input_.Byte()};
        return Tell(wire::Encode(open, server_.agreed()));
      }
      case 8:
      case 9:
      case 10:
        if (!owed_.empty()) Answer(input_.Below(owed_.size()), input_.Flag() ? 0 : 1);
        return;
      case 11:
        return Offer();
      case 12: {
        const wire::ChannelId channel = Channel();
        if (const auto actions = server_.OnRevoke(channel)) {
          std::erase_if(owed_, [&](const Debt& debt) { return debt.channel == channel; });
          Carry(*actions);
        }
        return;
      }
      case 13:
        return MoveOver();
      case 14:
        return AnswerWhatIsNotOwed();
      default:
        if (input_.Below(8) != 0) return OpenWell();
        if (input_.Below(8) == 0) Carry(server_.OnPeerGone());
        return;
    }
  }

  // What a client sends most.
  void TellWell() {
    const wire::ChannelId channel = Channel();
    switch (input_.Below(8)) {
      case 0:
        return Tell(wire::Encode(wire::RequestOffers{}, server_.agreed()));
      case 1:
        return Tell(wire::Encode(wire::CloseChannel{channel}, server_.agreed()));
      case 2:
      case 3:
        return Tell(wire::Encode(wire::GpadlTeardown{channel, Gpadl()}, server_.agreed()));
      case 4:
        return Tell(wire::Encode(wire::RelIdReleased{channel}, server_.agreed()));
      case 5:
        return Tell(wire::Encode(
            wire::ModifyChannel{channel, wire::ProcessorIndex{input_.Number()}}, server_.agreed()));
      case 6:
        return Tell(wire::Encode(wire::Unload{}, server_.agreed()));
      default:
        Contact();
        return Tell(wire::Encode(wire::RequestOffers{}, server_.agreed()));
    }
  }

  // A channel that is open, if nothing is in the way.
  void OpenWell() {
    const wire::ChannelId channel = Channel();
    const wire::GpadlId gpadl = Gpadl();
    const auto list = wire::GpaRangeList::OfPages(wire::PageNumber{1}, 4).value();
    auto header = wire::FragmentGpadl(channel, gpadl, list)->header;
    // Whole, and yet no list of ranges.
    if (input_.Below(8) == 0) header.range_bytes[input_.Below(16)] = std::byte{0xFF};
    Tell(wire::Encode(header, server_.agreed()));
    if (input_.Below(8) == 0) return;
    while (!owed_.empty()) Answer(0, wire::kStatusSuccess);
    wire::OpenChannel open;
    open.channel_id = channel;
    open.ring_gpadl_id = gpadl;
    Tell(wire::Encode(open, server_.agreed()));
    if (input_.Below(8) == 0) return;
    while (!owed_.empty()) Answer(0, wire::kStatusSuccess);
  }

  // Mostly the ones that the steps before were about.
  wire::ChannelId Channel() {
    const std::uint32_t which = input_.Below(16);
    if (which < 5) last_channel_ = wire::ChannelId{1 + which};
    return last_channel_;
  }
  wire::GpadlId Gpadl() {
    const std::uint32_t which = input_.Below(16);
    if (which < 6) last_gpadl_ = wire::GpadlId{1 + which};
    return last_gpadl_;
  }

  void Tell(std::span<const std::byte> message) { Carry(server_.OnMessage(message)); }

  void Contact() {
    wire::InitiateContact contact;
    contact.version = wire::kVersionsNewestFirst[input_.Below(wire::kVersionsNewestFirst.size())];
    if (wire::HasMessageConnectionId(contact.version)) {
      contact.target_info = wire::InitiateContact::TargetInfo(
          wire::kVmbusSint, static_cast<std::uint8_t>(input_.Below(3)),
          wire::FeatureFlags(input_.Byte()));
    }
    contact.parent_to_child_monitor_page = input_.Below(3) * 0x1000;
    contact.child_to_parent_monitor_page =
        input_.Below(4) == 0 ? 0 : contact.parent_to_child_monitor_page;
    Tell(wire::Encode(contact, {}));
  }

  void Describe() {
    auto list =
        wire::GpaRangeList::OfPages(wire::PageNumber{input_.Byte()}, 1 + input_.Number() % 400);
    if (!list) return;
    const auto messages = wire::FragmentGpadl(Channel(), Gpadl(), *list);
    if (!messages) return;
    Tell(wire::Encode(messages->header, server_.agreed()));
    // All of them, or not; and what comes between them is the next steps' affair.
    const std::size_t count = input_.Flag() ? messages->bodies.size() : input_.Below(3);
    for (std::size_t i = 0; i < std::min(count, messages->bodies.size()); ++i) {
      Tell(wire::Encode(messages->bodies[i], server_.agreed()));
    }
  }

  void Offer() {
    OfferParameters offer;
    offer.key.instance.data1 = input_.Below(4);
    offer.key.subchannel_index = static_cast<std::uint16_t>(input_.Below(3));
    offer.flags = input_.Get<std::uint16_t>();
    const auto outcome = server_.OnOffer(offer);
    if (outcome) Carry(outcome->actions);
  }

  // Into another process, under the same limits.
  void MoveOver() {
    auto moved = ServerSnapshot::Restore(ServerSnapshot::Save(server_), limits_);
    FUZZ_REQUIRE(moved.has_value());
    FUZZ_REQUIRE(*moved == server_);
    server_ = std::move(*moved);
  }

  // Nothing changes by an answer that nobody asked for.
  void AnswerWhatIsNotOwed() {
    const wire::ChannelId channel = Channel();
    const wire::GpadlId gpadl = Gpadl();
    const bool owes = std::ranges::find(owed_, channel, &Debt::channel) != owed_.end();
    if (owes) return;
    const Server before = server_;
    FUZZ_REQUIRE(!server_.OnOpenResult(channel, 0));
    FUZZ_REQUIRE(!server_.OnCloseDone(channel));
    FUZZ_REQUIRE(!server_.OnGpadlResult(channel, gpadl, 0));
    FUZZ_REQUIRE(!server_.OnGpadlReleased(channel, gpadl));
    FUZZ_REQUIRE(!server_.OnModifyDone(channel, 0));
    FUZZ_REQUIRE(server_ == before);
    wire::Guid id;
    id.data1 = input_.Byte();
    if (const auto actions = server_.OnTlConnectFailed(id, id, wire::kStatusConnectionRefused)) {
      Carry(*actions);
    }
  }

  // A device answers about one channel in order.
  void Answer(std::size_t index, std::uint32_t status) {
    const auto first = std::ranges::find(owed_, owed_[index].channel, &Debt::channel);
    const Debt debt = *first;
    owed_.erase(first);
    const auto result = [&] {
      switch (debt.kind) {
        case Debt::Kind::kOpen:
          return server_.OnOpenResult(debt.channel, status);
        case Debt::Kind::kClose:
          return server_.OnCloseDone(debt.channel);
        case Debt::Kind::kMap:
          return server_.OnGpadlResult(debt.channel, debt.gpadl, status);
        case Debt::Kind::kUnmap:
          return server_.OnGpadlReleased(debt.channel, debt.gpadl);
        default:
          return server_.OnModifyDone(debt.channel, status);
      }
    }();
    // The client may have closed while the device was busy with MODIFY_CHANNEL.
    FUZZ_REQUIRE(result.has_value() || debt.kind == Debt::Kind::kModify);
    if (result) Carry(*result);
  }

  void Carry(const ServerActions& actions) {
    for (const ServerAction& action : actions) {
      std::visit([this](const auto& a) { Do(a); }, action);
    }
    server_.CheckInvariants();
  }

  void Do(const server::SendMessage& send) {
    FUZZ_REQUIRE(wire::MessageNumber(send.bytes).has_value());
    const wire::Agreed reader{wire::Version::kCopper, wire::kKnownFeatures};
    FUZZ_REQUIRE(wire::ParseServerMessage(send.bytes, reader).has_value());
  }
  void Do(const server::OpenChannel& open) {
    owed_.push_back({Debt::Kind::kOpen, open.channel, {}});
  }
  void Do(const server::CloseChannel& close) {
    owed_.push_back({Debt::Kind::kClose, close.channel, {}});
  }
  void Do(const server::GpadlComplete& complete) {
    FUZZ_REQUIRE(!complete.ranges.empty());
    owed_.push_back({Debt::Kind::kMap, complete.channel, complete.gpadl});
  }
  void Do(const server::ReleaseGpadl& release) {
    owed_.push_back({Debt::Kind::kUnmap, release.channel, release.gpadl});
  }
  void Do(const server::ModifyChannel& modify) {
    owed_.push_back({Debt::Kind::kModify, modify.channel, {}});
  }
  template <typename Action>
  void Do(const Action&) {}

  Input& input_;
  ServerLimits limits_;
  Server server_;
  std::deque<Debt> owed_;
  wire::ChannelId last_channel_{1};
  wire::GpadlId last_gpadl_{1};
};

}  // namespace
}  // namespace kmcl::bus

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::Input input(data, size);
  kmcl::bus::Host(input).Run();
  return 0;
}

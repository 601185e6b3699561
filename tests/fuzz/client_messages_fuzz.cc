// The client's bus machine against a server that sends anything at any time, with a driver that
// wishes what it likes: after each step the machine's invariants hold, a wish that is refused
// changes nothing, everything it sends can be read, and each wish is answered once.
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "bus/client.h"
#include "input.h"
#include "wire/message_codec.h"

namespace kmcl::bus {
namespace {

using fuzz::Input;

class Driver {
 public:
  explicit Driver(Input& input) : input_(input) {
    options_.newest = wire::kVersionsNewestFirst[input.Below(wire::kVersionsNewestFirst.size())];
    options_.features = wire::FeatureFlags(input.Byte());
    options_.vtl = static_cast<std::uint8_t>(input.Below(3));
    options_.parent_to_child_monitor_page = options_.child_to_parent_monitor_page =
        input.Below(2) * 0x1000;
  }

  void Run() {
    if (input_.Below(4) != 0) {
      // Begins where it is interesting.
      waiting_connect_ = true;
      if (!Try([&] { return client_.OnConnect(options_); })) waiting_connect_ = false;
      Agree();
      Offer();
    }
    while (!input_.empty()) Step();
    Carry(client_.OnPeerGone());
    FUZZ_REQUIRE(waiting_opens_ == 0);
    FUZZ_REQUIRE(waiting_modifies_ == 0);
    FUZZ_REQUIRE(waiting_gpadls_.empty());
    FUZZ_REQUIRE(waiting_teardowns_.empty());
    FUZZ_REQUIRE(!waiting_connect_ && !waiting_unload_);
  }

 private:
  void Step() {
    switch (input_.Below(16)) {
      case 0:
        return Tell(input_.Bytes(300));
      case 1:
      case 2:
      case 3:
        return Tell(fuzz::AnyMessage(input_));
      case 4:
        return Agree();
      case 5:
      case 6:
        return Offer();
      case 7:
        return Tell(wire::Encode(wire::RescindChannelOffer{Channel()}, rules_));
      case 8:
        return AnswerWell();
      case 9: {
        const bool before = std::exchange(waiting_connect_, true);
        if (!Try([&] { return client_.OnConnect(options_); })) waiting_connect_ = before;
        return;
      }
      case 10:
        return Leave();
      case 11: {
        const wire::ChannelId channel = Channel();
        auto list = wire::GpaRangeList::OfPages(wire::PageNumber{1}, 1 + input_.Number() % 400);
        const auto outcome =
            client_.OnCreateGpadl(channel, list.value(),
                                  input_.Flag() ? GpadlAccess::kReadOnly : GpadlAccess::kReadWrite);
        if (!outcome) return;
        FUZZ_REQUIRE(waiting_gpadls_.insert(outcome->gpadl).second);
        last_gpadl_ = outcome->gpadl;
        return Carry(outcome->actions);
      }
      case 12: {
        const wire::GpadlId gpadl = Gpadl();
        const bool is_new = waiting_teardowns_.insert(gpadl).second;
        const wire::ChannelId channel = Channel();
        if (!Try([&] { return client_.OnTeardownGpadl(channel, gpadl); }) && is_new) {
          waiting_teardowns_.erase(gpadl);
        }
        return;
      }
      case 13: {
        OpenRequest request;
        request.ring = Gpadl();
        request.target_vp = wire::ProcessorIndex{input_.Number()};
        const wire::ChannelId channel = Channel();
        if (Try([&] { return client_.OnOpen(channel, request); })) ++waiting_opens_;
        return;
      }
      case 14:
        return Change();
      default:
        if (input_.Below(8) != 0) return OpenWell();
        if (input_.Below(8) == 0) Carry(client_.OnPeerGone());
        if (input_.Below(8) == 0) Shout();
        return;
    }
  }

  // What a server that breaks every rule there is sends until nobody listens.
  void Shout() {
    for (std::uint32_t i = 0; i <= kMaximumRefusals; ++i) (void)client_.OnMessage({});
    client_.CheckInvariants();
  }

  // A channel that is open, if nothing is in the way.
  void OpenWell() {
    const wire::ChannelId channel = Channel();
    const auto outcome =
        client_.OnCreateGpadl(channel, wire::GpaRangeList::OfPages(wire::PageNumber{1}, 4).value());
    if (!outcome) return;
    last_gpadl_ = outcome->gpadl;
    FUZZ_REQUIRE(waiting_gpadls_.insert(last_gpadl_).second);
    Carry(outcome->actions);
    Tell(wire::Encode(wire::GpadlCreated{channel, last_gpadl_, 0}, rules_));
    if (input_.Below(8) == 0) return;
    OpenRequest request;
    request.ring = last_gpadl_;
    if (!Try([&] { return client_.OnOpen(channel, request); })) return;
    ++waiting_opens_;
    const std::uint32_t answer = input_.Below(8);
    if (answer == 0) return;
    Tell(wire::Encode(wire::OpenChannelResult{channel, last_open_, answer == 1 ? 1u : 0u}, rules_));
  }

  // Mostly the one that the steps before were about.
  wire::ChannelId Channel() {
    const std::uint32_t which = input_.Below(16);
    if (which < 5) last_channel_ = wire::ChannelId{1 + which};
    return last_channel_;
  }
  wire::GpadlId Gpadl() { return input_.Flag() ? last_gpadl_ : wire::GpadlId{1 + input_.Below(6)}; }

  void Tell(std::span<const std::byte> message) { Carry(client_.OnMessage(message)); }

  // As a server would.
  void Agree() {
    wire::VersionResponse response;
    response.version_supported = static_cast<std::uint8_t>(input_.Below(8) != 0);
    response.connection_state = static_cast<wire::ConnectionState>(input_.Below(8) == 0 ? 1 : 0);
    response.connection_id_or_version = 1;
    rules_ = {asked_, wire::HasFeatureFlags(asked_) ? wire::FeatureFlags(input_.Byte())
                                                    : wire::FeatureFlags{}};
    response.features = rules_.features;
    Tell(wire::Encode(response, rules_));
  }

  void Offer() {
    wire::OfferChannel offer;
    offer.channel_id = Channel();
    offer.instance_id.data1 = input_.Below(4);
    offer.subchannel_index = static_cast<std::uint16_t>(input_.Below(3));
    offer.flags = input_.Get<std::uint16_t>();
    offer.monitor_flags = input_.Byte();
    offer.connection_id = wire::ConnectionId{input_.Number()};
    Tell(wire::Encode(offer, rules_));
  }

  void AnswerWell() {
    const std::uint32_t status = input_.Below(4) == 0 ? wire::kStatusFailure : 0;
    switch (input_.Below(8)) {
      case 0:
        return Tell(wire::Encode(wire::AllOffersDelivered{}, rules_));
      case 1:
        return Tell(wire::Encode(wire::UnloadComplete{}, rules_));
      case 2:
      case 3:
        return Tell(wire::Encode(wire::GpadlCreated{Channel(), Gpadl(), status}, rules_));
      case 4:
        return Tell(wire::Encode(wire::GpadlTorndown{Gpadl()}, rules_));
      case 5:
      case 6:
        return Tell(wire::Encode(wire::OpenChannelResult{Channel(), last_open_, status}, rules_));
      default:
        return Tell(wire::Encode(wire::ModifyChannelResponse{Channel(), status}, rules_));
    }
  }

  void Leave() {
    if (input_.Flag()) {
      if (!Try([&] { return client_.OnReconnect(); })) return;
      waiting_connect_ = true;
      waiting_unload_ = false;
      return;
    }
    const bool before = std::exchange(waiting_unload_, true);
    if (!Try([&] { return client_.OnUnload(); })) waiting_unload_ = before;
  }

  void Change() {
    const wire::ChannelId channel = Channel();
    switch (input_.Below(4)) {
      case 0:
        Try([&] { return client_.OnClose(channel); });
        return;
      case 1: {
        const wire::ProcessorIndex processor{input_.Number()};
        ++waiting_modifies_;
        if (!Try([&] { return client_.OnModify(channel, processor); })) --waiting_modifies_;
        return;
      }
      case 2:
        Try([&] { return client_.OnReleaseChannel(channel); });
        return;
      default:
        Try([&] { return client_.OnTlConnect({}, {}, std::nullopt); });
        if (ClientOptions none = options_; input_.Flag()) {
          none.newest = wire::Version::kV1;
          none.oldest = wire::Version::kCopper;
          FUZZ_REQUIRE(!Try([&] { return client_.OnConnect(none); }));
        }
        return;
    }
  }

  template <typename Wish>
  bool Try(Wish wish) {
    const Client before = client_;
    const auto result = wish();
    if (!result) {
      FUZZ_REQUIRE(client_ == before);
      return false;
    }
    Carry(*result);
    return true;
  }

  void Carry(const ClientActions& actions) {
    for (const ClientAction& action : actions) {
      std::visit([this](const auto& a) { Do(a); }, action);
    }
    client_.CheckInvariants();
  }

  void Do(const client::SendMessage& send) {
    // Without features: the short form of OPEN_CHANNEL is legal in it.
    const auto message = wire::ParseClientMessage(
        send.bytes, {wire::Version::kCopper,
                     client_.agreed().version ? client_.agreed().features : wire::FeatureFlags{}});
    FUZZ_REQUIRE(message.has_value());
    if (const auto* contact = std::get_if<wire::InitiateContact>(&*message)) {
      asked_ = contact->version;
      rules_ = {};
    }
    if (const auto* open = std::get_if<wire::OpenChannel>(&*message)) last_open_ = open->open_id;
  }
  void Do(const client::Connected&) { FUZZ_REQUIRE(std::exchange(waiting_connect_, false)); }
  void Do(const client::ConnectRefused&) { FUZZ_REQUIRE(std::exchange(waiting_connect_, false)); }
  void Do(const client::Unloaded&) { FUZZ_REQUIRE(std::exchange(waiting_unload_, false)); }
  void Do(const client::OpenResult&) { FUZZ_REQUIRE(--waiting_opens_ >= 0); }
  void Do(const client::ModifyResult&) { FUZZ_REQUIRE(--waiting_modifies_ >= 0); }
  void Do(const client::GpadlResult& result) {
    FUZZ_REQUIRE(waiting_gpadls_.erase(result.gpadl) == 1);
  }
  void Do(const client::GpadlTornDown& torn_down) {
    FUZZ_REQUIRE(waiting_teardowns_.erase(torn_down.gpadl) == 1);
  }
  template <typename Action>
  void Do(const Action&) {}

  Input& input_;
  ClientOptions options_;
  Client client_;
  wire::Version asked_ = wire::Version::kCopper;
  wire::Agreed rules_;  // by which the server writes
  wire::OpenId last_open_{};
  wire::ChannelId last_channel_{1};
  wire::GpadlId last_gpadl_{1};
  int waiting_opens_ = 0;
  int waiting_modifies_ = 0;
  std::set<wire::GpadlId> waiting_gpadls_;
  std::set<wire::GpadlId> waiting_teardowns_;
  bool waiting_connect_ = false;
  bool waiting_unload_ = false;
};

}  // namespace
}  // namespace kmcl::bus

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::Input input(data, size);
  kmcl::bus::Driver(input).Run();
  return 0;
}

// Both machines against each other, with queues between them, a device that keeps the server's
// promises and a driver that keeps the client's: a value that a test moves one choice at a time.
//
// Both are correct peers. So neither may refuse anything but what crossed on the way, memory never
// comes back to the client while the device has it, and once nothing is under way, nobody waits
// and both ends are of one mind. The first thing that is otherwise is kept in violation().
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bus/client.h"
#include "bus/server.h"
#include "wire/message_codec.h"

namespace kmcl::bus {

class PairWorld {
 public:
  enum class Kind : std::uint8_t {
    // Work: what is under way goes on.
    kDeliverToServer,
    kDeliverToClient,
    kDeviceAnswers,  // the oldest debt about `channel`, with `detail` as status
    kServerHears,    // that the link has ended
    kClientHears,
    // Wishes.
    kOffer,  // of device `detail`, sub-channel `detail` >> 16
    kRevoke,
    kCut,  // the link; what is on its way still arrives if `detail` is 0
    kConnect,
    kReconnect,
    kUnload,
    kTlConnect,
    kCreateGpadl,  // of `detail` pages
    kTeardown,
    kOpen,
    kClose,
    kModify,  // to processor `detail`
    kRelease,
  };
  static constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::kRelease) + 1;

  struct Choice {
    Kind kind{};
    wire::ChannelId channel{};
    wire::GpadlId gpadl{};
    std::uint32_t detail = 0;
  };

  PairWorld(const ClientOptions& options, const ServerLimits& limits)
      : options_(options), server_(limits) {}

  // What can go on now. Empty: the world is at rest.
  std::vector<Choice> Work() const;
  // Every wish that somebody could have, also those that the machines refuse: of `devices` devices
  // with `subchannels` sub-channels each.
  std::vector<Choice> Wishes(std::uint32_t devices, std::uint16_t subchannels) const;
  // False: a machine refused the wish, and nothing has changed.
  bool Take(const Choice& choice);
  bool at_rest() const;
  // To be asked at rest: that nobody waits, and both ends are of one mind.
  void CheckRest();

  const std::string& violation() const { return violation_; }
  bool ever_open() const { return ever_open_; }
  const std::set<wire::ChannelId>& known() const { return known_; }

  // Everything that decides what can follow, as bytes: equal exactly if the worlds are.
  std::string Encode() const;
  static std::string Describe(const Choice& choice);

 private:
  struct Debt {
    enum class Kind : std::uint8_t { kOpen, kClose, kMap, kUnmap, kModify } kind;
    wire::ChannelId channel{};
    wire::GpadlId gpadl{};
  };

  // Notes what must never be.
  void Require(bool holds, const char* what);

  // The device.
  void Run(const ServerActions& actions);
  void Do(const server::SendMessage& send);
  void Do(const server::VersionAgreed& agreed);
  void Do(const server::ConnectionReset&) {}
  void Do(const server::OpenChannel& open);
  void Do(const server::CloseChannel& close);
  void Do(const server::GpadlComplete& complete);
  void Do(const server::ReleaseGpadl& release);
  void Do(const server::ModifyChannel& modify);
  void Do(const server::ChannelReleased& released);
  void Do(const server::TlConnect& connect);
  void Do(const server::Finished&) {}
  void Do(const Refused& refused);
  void Do(const Broken& broken);
  void Answer(const Choice& choice);
  bool Offer(const Choice& choice);
  bool Revoke(const Choice& choice);

  // The driver.
  void Run(const ClientActions& actions);
  void Do(const client::SendMessage& send);
  void Do(const client::Connected& connected);
  void Do(const client::ConnectRefused& refused);
  void Do(const client::OfferArrived& arrived);
  void Do(const client::OffersDelivered&) {}
  void Do(const client::OfferRescinded& rescinded);
  void Do(const client::ChannelForgotten& forgotten);
  void Do(const client::OpenResult& result);
  void Do(const client::GpadlResult& result);
  void Do(const client::GpadlTornDown& torn_down);
  void Do(const client::ModifyResult& result);
  void Do(const client::TlConnectFailed&) {}
  void Do(const client::Unloaded& unloaded);
  void ComesBack(wire::GpadlId gpadl);
  void Forget(wire::ChannelId channel);
  bool Wish(const Choice& choice);
  bool CreateGpadl(const Choice& choice);
  bool Open(const Choice& choice);
  bool Teardown(const Choice& choice);
  // Runs a wish. One that is refused leaves the client as it was.
  template <typename F>
  bool Try(F wish);
  // The end of the link is the only thing by which a V1 client knows that the server has let go.
  bool MemoryIsSafe() const { return !cut_ && unload_is_answered_; }

  void CheckAgreement();

  ClientOptions options_;
  Server server_;
  Client client_;
  std::vector<wire::MessageBytes> to_server_;
  std::vector<wire::MessageBytes> to_client_;
  bool cut_ = false;
  bool server_heard_ = false;
  bool client_heard_ = false;

  // The device.
  std::vector<Debt> owed_;
  std::set<wire::ChannelId> offered_;
  std::map<wire::ChannelId, wire::GpadlId> device_open_;
  std::map<wire::GpadlId, wire::ChannelId> mapped_;

  // The driver.
  std::set<wire::ChannelId> known_;
  std::map<wire::GpadlId, wire::ChannelId> gpadls_;
  std::map<wire::GpadlId, std::uint32_t> sizes_;  // of every GPADL that ever was
  std::set<wire::GpadlId> waiting_gpadls_;
  std::set<wire::GpadlId> waiting_teardowns_;
  int waiting_opens_ = 0;
  int waiting_modifies_ = 0;
  bool waiting_connect_ = false;
  bool waiting_unload_ = false;
  bool unload_is_answered_ = true;  // not by a V1 server

  bool ever_open_ = false;
  std::string violation_;
};

}  // namespace kmcl::bus

// One integration service as the host has it: its offer, the negotiation of versions after each
// open, and one question to the guest at a time. The services (heartbeat.h and its neighbours) are
// built on this.
//
// Threads. The guest's answers arrive on KMCL's dispatch thread and are only noted there; Ask and
// the Await functions block and are called on any thread that may, never from a callback.
//
// The guest is not trusted: it may answer never, late, twice or with anything, close the channel in
// the middle, and open it again. An answer counts only if it is whole and names the question that
// is waiting. A guest that keeps sending what nobody asked for is not listened to until it opens
// the channel anew.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/integration_message.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

// What a service is. Everything pointed to outlives the channel.
struct IntegrationService {
  GUID interface_type{};
  GUID interface_instance{};
  const char16_t* friendly_name = u"";
  const char* name = "";  // for reports
  IntegrationMessage message{};
  std::span<const IntegrationVersion> frameworks{};
  std::span<const IntegrationVersion> versions{};
  UINT32 maximum_body_bytes = 0;  // of its longest request
};

// Both frameworks, and the one that later services alone speak.
inline constexpr IntegrationVersion kIntegrationFrameworks[] = {{1, 0}, {3, 0}};
inline constexpr IntegrationVersion kNewerIntegrationFramework[] = {{3, 0}};

enum class IntegrationState {
  kNotOpen,      // the guest has not opened the channel, or has closed it
  kNegotiating,  // it was asked for versions and has not answered
  kReady,
  kNoCommonVersion,  // it accepts none of ours: nothing more is asked until it opens again
  kDeaf,             // it sent too much that nobody asked for: not heard until it opens again
};
const char* IntegrationStateText(IntegrationState state);

// What the guest agreed to. The number counts the agreements of this channel, from 1: one that is
// over stays over.
struct IntegrationAgreement {
  std::uint64_t number = 0;
  IntegrationVersion framework;
  IntegrationVersion message;
};

// Why a question has no answer.
struct IntegrationFailure {
  enum class Kind {
    kNotReady,  // `state` says why
    kBusy,      // an earlier question waits, or the guest does not read
    kTimedOut,
    kClosed,     // the guest closed the channel, or the agreement asked under is over
    kRefused,    // the guest said `status`
    kMalformed,  // the answer does not hold together, or the question cannot be put in its form
    kStopped,    // the device is going
    kGivenUp,    // by who had asked
  };
  Kind kind{};
  IntegrationState state = IntegrationState::kNotOpen;
  std::uint32_t status = 0;
};
std::string IntegrationFailureText(const IntegrationFailure& failure);

struct IntegrationReply {
  std::uint32_t status = 0;
  std::vector<std::byte> body;
};

// Counts since the offer.
struct IntegrationCounts {
  std::uint64_t asked = 0;
  std::uint64_t answered = 0;
  std::uint64_t late = 0;       // answers whose question was given up
  std::uint64_t malformed = 0;  // neither answers nor asked for
};

struct IntegrationStatus {
  IntegrationState state{};
  std::optional<IntegrationAgreement> agreement;
  IntegrationCounts counts;
};

class IntegrationChannel {
 public:
  // One line for people about versions and misbehaviour, on a thread of KMCL's that must not block.
  using Report = std::function<void(const std::string& line)>;
  using Deadline = std::chrono::steady_clock::time_point;

  // Offers the service to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<IntegrationChannel>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, const IntegrationService& service,
      Report report);
  // No thread is in Ask or an Await function.
  ~IntegrationChannel();

  // The agreement that holds now.
  std::expected<IntegrationAgreement, IntegrationFailure> Agreement() const;
  // Waits for one newer than number `after`. Nothing once stopped.
  std::optional<IntegrationAgreement> AwaitAgreement(std::uint64_t after);
  // Waits until `deadline`. False, and earlier, if agreement `number` is over or the channel
  // stopped.
  bool WaitWhileAgreed(std::uint64_t number, Deadline deadline);

  // Puts a question and waits for its answer, whatever the answer's status is. Questions of several
  // threads take turns. `make_body` is called once this one's turn has come, right before it is
  // sent: times in it are fresh. Fails when the agreement is not number `number`, and when
  // `given_up`, unless null, has become true: GiveUp says so to those who wait. What was sent stays
  // sent.
  using MakeBody = std::function<std::vector<std::byte>()>;
  std::expected<IntegrationReply, IntegrationFailure> Ask(
      std::uint64_t number, const MakeBody& make_body, std::chrono::milliseconds timeout,
      const std::atomic<bool>* given_up = nullptr);
  // Any thread that may wait for a lock.
  void GiveUp(std::atomic<bool>& flag);

  // Lets every waiting call return, and all later ones, for good.
  void Stop();

  IntegrationStatus Status() const;
  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  struct FreePacket {
    void operator()(VMBPACKET packet) const { VmbPacketFree(packet); }
  };
  using PacketHandle = std::unique_ptr<std::remove_pointer_t<VMBPACKET>, FreePacket>;

  IntegrationChannel(const IntegrationService& service, Report report);
  static VOID OnStarted(VMBCHANNEL channel);
  static VOID OnSuspend(VMBCHANNEL channel);
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);
  static VOID OnBatchEnd(VMBCHANNEL channel, UINT32 packets);
  static VOID OnSent(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes);

  void Negotiate();
  // False: the guest is not to be heard any more. `line` is to be reported.
  bool Take(std::span<const std::byte> bytes, std::string& line);
  void TakeChoice(const IntegrationAnswer& answer, std::string& line);
  bool Send(std::span<const std::byte> bytes);
  // Under mutex_.
  std::optional<IntegrationFailure> WhyNot(std::uint64_t number) const;

  const IntegrationService service_;
  const Report report_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  IntegrationState state_ = IntegrationState::kNotOpen;
  IntegrationAgreement agreement_;
  IntegrationCounts counts_;
  bool stopped_ = false;
  bool asking_ = false;     // somebody has the turn
  bool sending_ = false;    // the turn's owner is about to send; a close waits for it
  bool in_flight_ = false;  // the packet is KMCL's: the guest has left no room in the ring
  std::uint8_t transaction_ = 0;
  bool expecting_ = false;                   // an answer to transaction_
  std::optional<IntegrationReply> arrived_;  // and becomes reply_ when its batch ends
  std::optional<IntegrationReply> reply_;
  // Of this open: what the guest may still answer late, and how often it did what it should not.
  std::uint64_t unanswered_ = 0;
  std::uint32_t strikes_ = 0;

  ChannelHandle channel_;
  PacketHandle packet_;  // freed before its channel
};

}  // namespace kmcl::devices

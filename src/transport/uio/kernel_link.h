// A client's link whose other end is the kernel of the guest that the program runs in. hv_vmbus
// speaks the control protocol with the host, and there is no way past it; so the client's control
// messages are answered here, from what the kernel shows, and an open channel is a descriptor of
// /dev/uioN:
//
//   INITIATE_CONTACT    5.3 at most; what the kernel itself has agreed on is not to be learned
//   REQUEST_OFFERS      the devices in sysfs; later ones by uevents
//   GPADL_HEADER        of the rings: taken, as the kernel has described them. Of anything else:
//   refused OPEN_CHANNEL        has happened when the rings were made, which takes opening the
//   device RESCIND (ours)      reading the device gives EIO, or it has left sysfs UNLOAD nothing to
//   do: channels are closed one by one
//
// The rest is the kernel's memory: rings of the size that it has chosen, and no memory of the
// program's can be shown to the host. See docs/transports.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mutex.h"
#include "transport/link.h"
#include "transport/partition_memory.h"
#include "transport/uio/device_events.h"
#include "transport/uio/kernel_bus.h"
#include "transport/uio/kernel_channel.h"
#include "transport/uio/kernel_inbox.h"
#include "wire/message_codec.h"

namespace kmcl::transport::uio {

class KernelLink final : public ClientLink {
 public:
  // All devices, or one. kAddressUnreachable: there is no bus. kOutOfDescriptors, kOutOfMemory,
  // kSystemCall.
  [[nodiscard]] static Result<std::unique_ptr<KernelLink>> Dial(
      KernelBus bus, const std::optional<wire::Guid>& instance, const DialOptions& options);

  Result<void> Send(std::span<const std::byte> message) override;
  ReceivedMessage Receive(std::span<std::byte> buffer) override;
  void Flush() override {}
  std::size_t unsent_messages() const override { return 0; }
  int message_fd() const override { return wait_.get(); }
  PeerIdentity peer() const override { return {}; }  // the kernel: no process
  bool ready() const override { return true; }
  void Refuse(const char*) override {}

  Result<Mapping> Map(std::span<const wire::PageNumber> pages) override { return own_.Map(pages); }
  Result<RingMapping> MapRings(std::span<const wire::PageNumber>, std::uint32_t) override {
    return std::unexpected(Error::kMemoryNotShared);  // MakeRings has mapped them
  }
  std::byte* Window(wire::PageNumber first, std::uint64_t count) override {
    return own_.Window(first, count);
  }

  std::uint32_t bell_count() const override { return static_cast<std::uint32_t>(inboxes_.size()); }
  BellInbox& inbox(std::uint32_t index) override { return *inboxes_[index]; }
  // Of a channel whose rings were made; all processors of the host are one.
  std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index) override;

  Result<PageRun> AllocatePages(std::uint32_t count) override { return own_.Allocate(count); }
  void FreePages(PageRun run) override;
  Result<ClientRings> MakeRings(wire::ChannelId channel, std::uint32_t outgoing_pages,
                                std::uint32_t incoming_pages) override;
  bool shares_memory() const override { return false; }
  bool shows_offer_flags() const override { return false; }
  Result<DonatedBuffer> AllocateBuffer(std::size_t) override {
    return std::unexpected(Error::kMemoryNotShared);
  }
  void FreeBuffer(const DonatedBuffer&) override {}
  std::optional<wire::PageNumber> PageOf(const void*) const override { return std::nullopt; }

 private:
  struct Offered {
    BusDevice device;
    std::optional<Subchannel> subchannel;

    bool IsSameAs(const Offered& other) const;
  };
  struct Opened {
    std::shared_ptr<KernelChannel> channel;
    PageRun run;  // what stands for its rings in messages
    std::optional<wire::GpadlId> ring;
    std::optional<std::uint32_t> inbox;
  };

  KernelLink(KernelBus bus, const std::optional<wire::Guid>& instance, PartitionMemory own,
             DeviceEvents events)
      : bus_(std::move(bus)),
        instance_(instance),
        own_(std::move(own)),
        events_(std::move(events)) {}
  [[nodiscard]] Result<void> Start(std::uint32_t bell_count);

  template <typename Message>
  void Say(const Message& message);
  // What is there now, against what was offered.
  void LookAround();
  std::map<wire::ChannelId, Offered> WhatStands(const std::vector<BusDevice>& devices) const;
  void Offer(wire::ChannelId id, const Offered& offered);
  void Rescind(wire::ChannelId id);
  // Channels whose descriptors said that they are gone; any thread.
  void NoteGone(wire::ChannelId id) KMCL_EXCLUDES(mutex_);
  void TakeGone() KMCL_EXCLUDES(mutex_);
  // Looks around again in a while, since something is to change in sysfs that the kernel does not
  // announce; or no more.
  void LookAgain(bool wanted);
  bool TakeLookAgain() const;
  void Wake() const;
  void LeaveInbox(Opened& opened);

  void On(const wire::InitiateContact& message);
  void On(const wire::RequestOffers& message);
  void On(const wire::GpadlHeader& message);
  void On(const wire::GpadlTeardown& message);
  void On(const wire::OpenChannel& message);
  void On(const wire::CloseChannel& message);
  void On(const wire::RelIdReleased& message);
  void On(const wire::ModifyChannel& message);
  void On(const wire::TlConnectRequest& message);
  void On(const wire::Unload& message);
  template <typename Other>
  void On(const Other&) {}  // needs no answer, or a version that was not agreed on

  const KernelBus bus_;
  const std::optional<wire::Guid> instance_;
  PartitionMemory own_;  // page numbers for rings, and for what clients share with other servers
  DeviceEvents events_;
  Descriptor wait_;   // an epoll over the two below, and events_
  Descriptor wake_;   // an eventfd: something waits in answers_ or gone_
  Descriptor again_;  // a timerfd: LookAgain
  std::vector<std::unique_ptr<KernelInbox>> inboxes_;

  // The bus thread's.
  wire::Agreed agreed_;
  std::deque<wire::MessageBytes> answers_;
  bool offers_wanted_ = false;
  bool bus_gone_ = false;
  std::chrono::milliseconds look_again_after_{0};
  std::map<wire::ChannelId, Offered> offered_;
  // Rescinded, and not given back by the client.
  std::set<wire::ChannelId> unreleased_;
  // Its descriptors are dead, but sysfs still has it: not to be offered again.
  std::map<wire::ChannelId, Offered> dead_;
  std::map<wire::ChannelId, Opened> opened_;

  Mutex mutex_;
  std::vector<wire::ChannelId> gone_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::transport::uio

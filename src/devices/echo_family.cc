#include "devices/echo_family.h"

#include <algorithm>
#include <new>
#include <utility>

#include "devices/echo_protocol.h"

namespace kmcl::devices {

std::unique_ptr<EchoFamily> EchoFamily::Make(PDEVICE_OBJECT device_object, HANDLE partition,
                                             VMBCHANNEL primary, bool monitored) {
  const PIO_WORKITEM work = IoAllocateWorkItem(device_object);
  if (work == nullptr) {
    return nullptr;
  }
  return std::unique_ptr<EchoFamily>(
      new EchoFamily(device_object, partition, primary, monitored, work));
}

EchoFamily::EchoFamily(PDEVICE_OBJECT device_object, HANDLE partition, VMBCHANNEL primary,
                       bool monitored, PIO_WORKITEM work)
    : device_object_(device_object),
      partition_(partition),
      primary_(primary),
      monitored_(monitored),
      work_(work) {}

EchoFamily::~EchoFamily() {
  Stop();
  IoFreeWorkItem(work_);
}

void EchoFamily::Request(VMBPACKETCOMPLETION packet, std::uint32_t count) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_ && request_ == nullptr) {
      request_ = packet;
      wanted_ = count;
      Wake();
      return;
    }
  }
  RefuseEcho(packet);
}

void EchoFamily::Withdraw() {
  const std::lock_guard lock(mutex_);
  withdraw_ = true;
  Wake();
}

void EchoFamily::Stop() {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  withdraw_ = true;
  Wake();
  idle_.wait(lock, [this] { return !working_; });
}

void EchoFamily::Resume() {
  const std::lock_guard lock(mutex_);
  stopped_ = false;
}

void EchoFamily::Wake() {
  if (!std::exchange(working_, true)) {
    const auto routine = [](PDEVICE_OBJECT, PVOID self) { static_cast<EchoFamily*>(self)->Work(); };
    IoQueueWorkItem(work_, routine, DelayedWorkQueue, this);
  }
}

// Until there is no more to do; then this object may go.
void EchoFamily::Work() {
  std::unique_lock lock(mutex_);
  while (withdraw_ || request_ != nullptr) {
    // A primary closes when all its packets were retired: so the request is a later one's.
    const bool withdraw = std::exchange(withdraw_, false);
    const VMBPACKETCOMPLETION request = std::exchange(request_, nullptr);
    const bool grant = request != nullptr && !stopped_;
    const std::uint32_t wanted = wanted_;
    lock.unlock();
    if (withdraw) {
      Revoke();
    }
    if (grant) {
      EchoSubchannels answer;
      answer.header = {static_cast<std::uint32_t>(EchoKind::kSubchannels),
                       sizeof(answer) - sizeof(answer.header)};
      answer.count = Offer(std::min(wanted, kEchoMaximumSubchannels));
      VmbChannelPacketComplete(request, &answer, sizeof(answer));
    } else if (request != nullptr) {
      RefuseEcho(request);
    }
    lock.lock();
  }
  working_ = false;
  idle_.notify_all();
}

// How many are offered then: fewer when the bus has no more channels, or the primary has gone.
std::uint32_t EchoFamily::Offer(std::uint32_t count) {
  try {
    while (members_.size() < count) {
      auto member = std::make_unique<Member>();
      ServerChannelSettings settings;
      settings.primary = primary_;
      settings.friendly_name = u"Echo";
      settings.maximum_packet_bytes = kEchoMaximumPacketBytes;
      settings.monitored = monitored_;
      settings.process_packet = [](VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                                   UINT32 buffer_bytes, UINT32) {
        static_cast<Member*>(VmbChannelGetPointer(channel))
            ->counter.Answer(packet, static_cast<const std::byte*>(buffer), buffer_bytes);
      };
      settings.opened = [](VMBCHANNEL channel) -> NTSTATUS {
        static_cast<Member*>(VmbChannelGetPointer(channel))->counter = {};
        return STATUS_SUCCESS;
      };
      auto channel = MakeServerChannel(device_object_, partition_, settings, member.get());
      if (!channel) {
        break;
      }
      member->channel = std::move(*channel);
      members_.push_back(std::move(member));
    }
  } catch (const std::bad_alloc&) {  // those there are
  }
  std::uint32_t offered = 0;
  for (const auto& member : members_) {
    if (offered < count && !member->offered) {
      member->offered = NT_SUCCESS(OfferServerChannel(member->channel.get()));
      if (!member->offered) {
        break;
      }
    }
    offered += member->offered ? 1 : 0;
  }
  return offered;
}

// The last one first, so that those that stand are always the first ones.
void EchoFamily::Revoke() {
  for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
    if (std::exchange((*member)->offered, false)) {
      VmbChannelDisable((*member)->channel.get());
    }
  }
}

}  // namespace kmcl::devices

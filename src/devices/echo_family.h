// The sub-channels of an echo device (echo_protocol.h): offered when the primary's client asks,
// revoked when the primary closes.
//
// Offers are made and revoked by a work item, since neither a packet callback nor a state callback
// may do that; so Request and Withdraw only leave word. The channels are made when they are wanted
// for the first time and kept for the next, so that their indices are always 1, 2, ...
#pragma once

#include <kmcl/kmcl.h>
#include <kmcl/wdk/work_items.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "devices/echo_counter.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

class EchoFamily {
 public:
  // `primary` outlives this. Null for want of memory.
  static std::unique_ptr<EchoFamily> Make(PDEVICE_OBJECT device_object, HANDLE partition,
                                          VMBCHANNEL primary, bool monitored);
  // Stops. The primary is Disabled.
  ~EchoFamily();
  EchoFamily(const EchoFamily&) = delete;
  EchoFamily& operator=(const EchoFamily&) = delete;

  // A packet of the primary's that asks for `count` sub-channels in all: retired once they are
  // offered. At <= DISPATCH.
  void Request(VMBPACKETCOMPLETION packet, std::uint32_t count);
  // The primary was closed. Any thread.
  void Withdraw();
  // Refuses requests from now on, and waits until no sub-channel is offered. A thread that may
  // block, and no callback.
  void Stop();
  // Takes requests again.
  void Resume();

 private:
  struct Member {
    EchoCounter counter;
    bool offered = false;
    ChannelHandle channel;
  };

  EchoFamily(PDEVICE_OBJECT device_object, HANDLE partition, VMBCHANNEL primary, bool monitored,
             PIO_WORKITEM work);
  void Wake();  // under mutex_
  void Work();
  std::uint32_t Offer(std::uint32_t count);
  void Revoke();

  const PDEVICE_OBJECT device_object_;
  const HANDLE partition_;
  const VMBCHANNEL primary_;
  const bool monitored_;
  const PIO_WORKITEM work_;

  std::mutex mutex_;
  std::condition_variable idle_;
  // Under mutex_.
  bool working_ = false;  // the work item is queued, or runs
  bool stopped_ = false;
  bool withdraw_ = false;                  // wanted, before the request
  VMBPACKETCOMPLETION request_ = nullptr;  // wanted
  std::uint32_t wanted_ = 0;

  // The work item's.
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace kmcl::devices

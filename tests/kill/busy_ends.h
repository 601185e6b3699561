// A server and a client whose channels are busy ones.
#pragma once

#include <kmcl/endpoint.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "busy_channel.h"
#include "plan.h"

namespace kmcl::kill {

// Offers the plan's busy channels to whoever connects, and to a visitor one echo channel.
class BusyServer {
 public:
  explicit BusyServer(Surroundings& around) : around_(around) {}
  // Everybody has left.
  ~BusyServer();
  BusyServer(const BusyServer&) = delete;
  BusyServer& operator=(const BusyServer&) = delete;

  NTSTATUS Create(const std::string& address);

  // Gives everybody to the process at the other end of `socket`; or is given them. `at` is called
  // at the steps of a handover that are this end's.
  NTSTATUS HandOver(int socket, const std::function<void(Step)>& at);
  NTSTATUS TakeOver(int socket, const std::function<NTSTATUS(Step)>& at);

  // For who connects from now on.
  void SetPlan(const Plan& plan);
  void SetVisitor(pid_t visitor);
  // Everyone is a visitor.
  void SetEchoOnly();
  // Everyone may be a visitor: there is an echo channel beside the plan's.
  void SetEchoToo();

  // Waits until every client that arrived has gone, and cleans up what PartitionGone left. False
  // after ten seconds.
  bool WaitUntilAlone();
  // Revokes every channel.
  void Disable();

 private:
  struct Guest {
    HANDLE partition = nullptr;
    bool cleans_up_late = false;
    bool gone = false;
    std::vector<std::unique_ptr<BusyChannel>> channels;
  };

  KMCL_ENDPOINT_OPTIONS Options();
  NTSTATUS Save();
  NTSTATUS Restore(KMCL_SERVER server, const std::byte* state, std::size_t bytes);
  void OnArrived(KMCL_SERVER server, HANDLE partition);
  void OnGone(HANDLE partition);
  void Offer(Guest& guest, KMCL_SERVER server, const Plan& plan, std::uint32_t index);
  static void CleanUp(Guest& guest);

  Surroundings& around_;
  KMCL_SERVER server_ = nullptr;

  std::mutex mutex_;
  std::condition_variable changed_;
  Plan plan_;
  pid_t visitor_ = -1;
  bool echo_only_ = false;
  bool echo_too_ = false;
  std::list<Guest> guests_;

  std::vector<std::byte> saved_;
  std::function<NTSTATUS(Step)> at_;
};

// Opens the plan's busy channels.
class BusyClient {
 public:
  explicit BusyClient(Surroundings& around) : around_(around) {}
  // Disables the channels, checks their accounts, and leaves the bus.
  ~BusyClient();
  BusyClient(const BusyClient&) = delete;
  BusyClient& operator=(const BusyClient&) = delete;

  // Connects and enables the channels. STATUS_SUCCESS, or the first failure.
  NTSTATUS Open(const std::string& address, const Plan& plan);
  // Closes and opens channels in turn until `until_fd` is readable; -1: for ever.
  void Cycle(int until_fd);
  // Waits until the channels that were opened are closed. False after ten seconds.
  bool WaitUntilClosed();
  // Waits until each channel has been answered again. False after ten seconds, or when one is
  // closed.
  bool StillWorks();
  void Disable();
  bool is_connected() const { return client_ != nullptr && KmclClientIsConnected(client_); }

 private:
  Surroundings& around_;
  Plan plan_;
  KMCL_CLIENT client_ = nullptr;
  std::vector<std::unique_ptr<BusyChannel>> channels_;
};

// Connects, sends one request to the echo channel, takes its answer, and leaves.
NTSTATUS Visit(const std::string& address);

}  // namespace kmcl::kill

// A server and a client whose channels are busy ones.
#pragma once

#include <kmcl/endpoint.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
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

  // For who connects from now on.
  void SetPlan(const Plan& plan);
  void SetVisitor(pid_t visitor);
  // Everyone is a visitor.
  void SetEchoOnly();

  // Waits until every client that arrived has gone, and cleans up what PartitionGone left. False
  // after ten seconds.
  bool WaitUntilAlone();

 private:
  struct Guest {
    HANDLE partition = nullptr;
    bool cleans_up_late = false;
    bool gone = false;
    std::vector<std::unique_ptr<BusyChannel>> channels;
  };

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
  std::list<Guest> guests_;
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

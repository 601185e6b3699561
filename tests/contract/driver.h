// A KMCL driver that does what lines of text say: the same code plays one end of a scenario in the
// test's process and in a child process. It knows the public headers only.
//
// A line is a verb and its words; the answer is one line too ("events" separates its items with
// ';'). The verbs are the keys of the table in driver.cc; tests use them through Endpoint and
// Channel (bus_fixture.h).
#pragma once

#include <kmcl/endpoint.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "driver_buffers.h"
#include "driver_channel.h"

namespace kmcl::contract {

using Words = std::vector<std::string>;

class Driver {
 public:
  Driver() = default;
  // Disables and frees everything that is left.
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // Any thread. An unknown verb answers "unknown ...".
  std::string Do(const std::string& line);

 private:
  using Verb = std::string (Driver::*)(const Words& words);
  static const std::map<std::string, Verb>& Verbs();

  // Endpoints.
  std::string Serve(const Words& words);
  std::string Connect(const Words& words);
  std::string WaitPartition(const Words& words);
  std::string WaitGone(const Words& words);
  std::string EndServer(const Words& words);
  std::string EndClient(const Words& words);
  std::string Offers(const Words& words);
  std::string Thread(const Words& words);
  std::string Connected(const Words& words);

  // Channels.
  std::string Allocate(const Words& words);
  std::string Init(const Words& words);
  std::string Enable(const Words& words);
  std::string Disable(const Words& words);
  std::string Start(const Words& words);
  std::string Pause(const Words& words);
  std::string Cleanup(const Words& words);
  std::string Set(const Words& words);
  std::string Get(const Words& words);

  // Packets.
  std::string Packet(const Words& words);
  std::string Send(const Words& words);
  std::string Post(const Words& words);
  std::string Plain(const Words& words);
  std::string DescribeMemory(const Words& words);
  std::string Synchronous(const Words& words);
  std::string Complete(const Words& words);
  std::string Fail(const Words& words);

  // Raw channels (driver_raw.cc).
  std::string Raw(const Words& words);

  // Buffers and GPADLs.
  std::string Memory(const Words& words);

  // Save and restore (driver_save.cc).
  std::string Save(const Words& words);
  std::string SaveBegin(const Words& words);
  std::string SaveContinue(const Words& words);
  std::string SaveEnd(const Words& words);
  std::string Restore(const Words& words);
  std::string Damage(const Words& words);

  // What was recorded.
  std::string Events(const Words& words);
  std::string Wait(const Words& words);
  std::string Gate(const Words& words);
  std::string Release(const Words& words);
  std::string On(const Words& words);
  std::string Async(const Words& words);
  std::string Relax(const Words& words);
  std::string Finish(const Words& words);

  static VOID PartitionArrived(PVOID context, KMCL_SERVER server, HANDLE partition);
  static VOID PartitionGone(PVOID context, KMCL_SERVER server, HANDLE partition);

  DriverChannel* Find(const std::string& id);
  HANDLE Partition(std::size_t number);
  void RelaxChannels();
  void FinishChannels();
  void JoinAsync();

  Recorder recorder_;  // "arrived", "gone"
  KMCL_SERVER server_ = nullptr;

  std::mutex mutex_;
  std::vector<HANDLE> partitions_;
  std::map<int, KMCL_CLIENT> clients_;
  std::deque<std::unique_ptr<DriverChannel>> channels_;
  std::map<int, std::unique_ptr<DriverPacket>> packets_;
  DriverBuffers buffers_;
  std::vector<std::thread> async_;
  int next_id_ = 0;
  std::vector<std::vector<std::byte>> saves_;
};

}  // namespace kmcl::contract

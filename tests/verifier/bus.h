// A bus with one channel, both ends in this process, for programs that misuse it.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/verifier.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

namespace kmcl::verifier_test {

// Happens once, and may be waited for.
class Event {
 public:
  void Set();
  void Wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class Bus {
 public:
  // Connects both endpoints and allocates both channels. There is one bus at a time.
  Bus();
  // Takes down what is still there.
  ~Bus();

  // Enables both channels, and waits until both are Active.
  void Open();
  // Disables and cleans up both; completes first what the server has kept.
  void Close();
  void CleanUp(VMBCHANNEL& channel);

  // A packet from the client; with `wait` the server has to complete it.
  VMBPACKET Send(bool wait);
  // What the server does with a packet; by default it keeps it.
  std::function<void(VMBPACKETCOMPLETION packet, PVOID buffer)> on_packet;
  std::function<void()> on_batch_end;
  // At the client.
  std::function<void(VMBPACKET packet)> on_done;
  std::function<void()> on_started;
  std::function<void()> on_closed;

  VMBCHANNEL server_channel = nullptr;
  VMBCHANNEL client_channel = nullptr;
  KMCL_SERVER server = nullptr;
  KMCL_CLIENT client = nullptr;
  HANDLE partition = nullptr;

  Event received;  // the server has got a packet
  Event done;      // the client's routine was called
  Event reported;  // the verifier has said something, and the program goes on
  // The first packet that the server has kept; whoever takes it retires it.
  VMBPACKETCOMPLETION TakeKept();

 private:
  void Keep(VMBPACKETCOMPLETION packet);

  std::mutex mutex_;
  std::vector<VMBPACKETCOMPLETION> kept_;  // under mutex_
  bool closing_ = false;                   // nothing is kept any more
  Event arrived_;
  Event server_active_;
  Event client_active_;
  friend struct Callbacks;
};

}  // namespace kmcl::verifier_test

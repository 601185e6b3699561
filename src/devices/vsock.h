// Sockets between a guest and its host: AF_VSOCK in the guest (Linux: hv_sock), Unix sockets on the
// host, by the convention that users of Firecracker and Cloud Hypervisor know (VMBus device
// reference 2).
//
//   PATH          the host connects here, writes "CONNECT 5000\n", and is answered "OK
//   1073741824\n"
//                 once the guest's listener at port 5000 has accepted; what follows are the bytes.
//                 The number is the host's own port, as the guest sees it. A port where nobody
//                 listens ends the connection without an answer, after VsockTimes::patience.
//   PATH_5000     where a connection of the guest's to port 5000 of the host (CID 2) arrives. No
//                 such socket: refused, which Linux notices when its connect() times out (2 s).
//
// Each end may close its direction alone, and neither can write more than the other one reads. Of a
// guest that dies its host programs see the end of the connection, as if it had closed.
//
// One device serves a machine for all its life, whatever guests it has one after the other.
// Threads: one of the device's own works on all connections, another one tears them down.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "devices/host_socket.h"
#include "devices/vsock_connection.h"

namespace kmcl::devices {

inline constexpr GUID VsockPort(std::uint32_t port) { return KMCL_VSOCK_PORT_GUID(port); }

struct VsockOptions {
  // Of the host's socket, or of an existing folder: then it is "vsock" in there.
  std::string path;
  std::uint32_t most_connections = 256;  // open ones and those on their way
  VsockTimes times;
};

// Counts since the device was made.
struct VsockStatus {
  std::uint32_t connections = 0;  // now
  std::uint64_t from_guest = 0;   // that were opened
  std::uint64_t from_host = 0;
  std::uint64_t refused = 0;        // asked for by either, and not opened
  std::uint64_t broken = 0;         // opened, and ended otherwise than by both ends
  std::uint64_t bytes_to_host = 0;  // of connections that have ended
  std::uint64_t bytes_to_guest = 0;
};

class VsockDevice {
 public:
  // One line for people, on any thread; it must not block. At most the 1st, 2nd, 4th, 8th, ... of
  // a kind.
  using Report = std::function<void(const std::string& line)>;

  // Listens at the host's socket. On failure why, for people.
  static std::expected<std::unique_ptr<VsockDevice>, std::string> Create(VsockOptions options,
                                                                         Report report);
  // Every partition was detached.
  ~VsockDevice();
  VsockDevice(const VsockDevice&) = delete;
  VsockDevice& operator=(const VsockDevice&) = delete;

  // The host's socket.
  const std::string& path() const { return path_; }

  // From PartitionArrived, with the server's device object: the guest may connect, and the host's
  // connections go to it from now on.
  NTSTATUS Attach(PDEVICE_OBJECT device_object, HANDLE partition);
  // Ends its connections and waits until they are torn down. On a thread that may block, while the
  // handle is valid. One that was not attached is ignored.
  void Detach(HANDLE partition);

  VsockStatus Status() const;

 private:
  using Clock = VsockConnection::Clock;
  // A program of the host's that has connected and not said whereto.
  struct Caller {
    HostSocket socket;
    Clock::time_point until;
  };
  // The host's own ports begin where no well-known ones are. Data1 of an instance is such a port.
  static constexpr std::uint32_t kFirstHostPort = 0x40000000;
  // What epoll says belongs to: a connection's or caller's number, and which descriptor of it.
  static constexpr std::uint64_t kSocket = 0;
  static constexpr std::uint64_t kIncoming = 1;
  static constexpr std::uint64_t kOutgoing = 2;
  static constexpr std::uint64_t kKinds = 4;
  enum class Complaint : std::uint8_t { kFull, kPort, kOffer, kFault, kCaller, kCount };

  VsockDevice(VsockOptions options, std::string path, HostSocket listener, Report report);
  static NTSTATUS OnRequest(PVOID context, HANDLE partition, const KMCL_CONNECT_REQUEST* request);
  NTSTATUS Answer(HANDLE partition, const KMCL_CONNECT_REQUEST& request);
  // Makes a connection and offers it. `settings` has what differs: the rest is filled in.
  NTSTATUS Begin(VsockConnection::Settings settings, HostSocket socket);
  void Ring(std::uint64_t number);
  void Wake() const;
  void Complain(Complaint kind, const std::string& line);

  // The device's thread.
  void Run();
  int TimeLeft() const;
  bool Watch(int descriptor, std::uint64_t number, std::uint64_t kind) const;
  void OnEvent(std::uint64_t token, std::uint32_t events);
  bool TakeRung();
  void Pump(std::uint64_t number);
  bool WatchConnection(const VsockConnection& connection) const;
  void LookAtDeadlines();
  void End(const std::shared_ptr<VsockConnection>& connection);
  std::shared_ptr<VsockConnection> Find(std::uint64_t number) const;

  // Also, of the host's programs (vsock_callers.cc).
  void AcceptCallers();
  void Hear(std::uint64_t number, Caller& caller);
  void Connect(std::uint64_t number, HostSocket socket, std::uint32_t port);

  // Another one.
  void RunTeardown();

  const VsockOptions options_;
  const std::string path_;
  const Report report_;
  const HostSocket listener_;
  int epoll_ = -1;
  int wake_ = -1;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::map<HANDLE, PDEVICE_OBJECT> guests_;
  HANDLE newest_ = nullptr;
  std::map<std::uint64_t, std::shared_ptr<VsockConnection>> connections_;  // until torn down
  std::vector<std::uint64_t> rung_;
  std::deque<std::shared_ptr<VsockConnection>> ended_;
  std::uint64_t next_number_ = 1;
  std::uint32_t next_port_ = kFirstHostPort;
  bool stopping_ = false;
  VsockStatus status_;
  std::array<std::uint64_t, static_cast<std::size_t>(Complaint::kCount)> complaints_{};

  // The device's thread's.
  std::map<std::uint64_t, Caller> callers_;
  bool accept_again_ = false;  // a caller waits, and there was no descriptor for it
  std::set<std::uint64_t> ready_;
  std::map<std::uint64_t, Clock::time_point> deadlines_;
  Clock::time_point progress_{};  // when a guest opened a connection last
  std::vector<std::byte> scratch_;

  std::thread thread_;
  std::thread teardown_;
};

// One guest's part in the device, by the manner of the others: from its arrival to its leaving.
class VsockGuest {
 public:
  // May be called from PartitionArrived.
  static std::expected<std::unique_ptr<VsockGuest>, NTSTATUS> Offer(
      std::shared_ptr<VsockDevice> device, PDEVICE_OBJECT device_object, HANDLE partition);
  ~VsockGuest() { Revoke(); }
  VsockGuest(const VsockGuest&) = delete;
  VsockGuest& operator=(const VsockGuest&) = delete;

  // Of the device.
  VsockStatus Status() const { return device_->Status(); }
  // Ends the guest's connections and waits until they are torn down. While the partition's handle
  // is valid, on a thread that may block.
  void Revoke();

 private:
  VsockGuest(std::shared_ptr<VsockDevice> device, HANDLE partition)
      : device_(std::move(device)), partition_(partition) {}

  const std::shared_ptr<VsockDevice> device_;
  HANDLE partition_;  // null once revoked
};

}  // namespace kmcl::devices

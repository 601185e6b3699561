// Sockets between guest and host while both ends are hostile: a guest that writes any packet and
// reads when it likes, and a program of the host's that says anything before "CONNECT" and after.
// Of what one end wrote well the other one gets a beginning, in order, and nothing else; and the
// device comes to rest whatever is left undone.
#include <kmcl/connect.h>
#include <kmcl/raw.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <vector>

#include "device_world.h"
#include "devices/vsock.h"

namespace kmcl::devices {
namespace {

using fuzz::Input;
using namespace std::chrono_literals;

constexpr std::uint32_t kPort = 5000;
constexpr auto kPatience = 15ms;

const std::string& TheFolder() {
  struct Folder {
    Folder() {
      char name[] = "/tmp/kmcl-fuzz-XXXXXX";
      FUZZ_REQUIRE(mkdtemp(name) != nullptr);
      path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
  };
  static const Folder folder;
  return folder.path;
}

// The guest's socket.
class Guest {
 public:
  Guest(KMCL_CLIENT client, const GUID& service, const GUID* endpoint) {
    FUZZ_REQUIRE(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &channel_) ==
                 STATUS_SUCCESS);
    VmbChannelSetPointer(channel_, this);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      auto& guest = *static_cast<Guest*>(VmbChannelGetPointer(channel));
      const std::lock_guard lock(guest.mutex_);
      guest.is_open_ = true;
      guest.changed_.notify_all();
    };
    (void)VmbChannelInitSetStateChangeCallbacks(channel_, &callbacks);
    (void)VmbChannelInitSetFlags(channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE);
    (void)KmclChannelInitSetRaw(channel_);
    (void)VmbClientChannelInitSetRingBufferPageCount(channel_, 7, 7);
    (void)VmbClientChannelInitSetTargetPnp(channel_, &service, endpoint, nullptr);
    FUZZ_REQUIRE(VmbChannelEnable(channel_) == STATUS_SUCCESS);
  }
  ~Guest() {
    VmbChannelDisable(channel_);
    VmbChannelCleanup(channel_);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  // Not longer than kPatience: it may never be.
  void AwaitOpen() {
    std::unique_lock lock(mutex_);
    (void)changed_.wait_for(lock, kPatience, [this] { return is_open_; });
  }

  // False: there was no room, or there is no channel.
  bool Write(UINT16 type, std::uint64_t id, UINT16 flags, std::vector<std::byte> packet) {
    return KmclRawWrite(channel_, type, flags, id, packet.data(),
                        static_cast<UINT32>(packet.size())) == STATUS_SUCCESS &&
           KmclRawFlush(channel_) == STATUS_SUCCESS;
  }
  // Of one packet the bytes behind the header. Nothing: there is none.
  std::optional<std::string> Read() {
    std::array<std::byte, 20'000> buffer{};
    KMCL_RAW_PACKET packet{};
    if (KmclRawRead(channel_, buffer.data(), buffer.size(), &packet) != STATUS_SUCCESS) {
      return std::nullopt;
    }
    KmclRawRelease(channel_);
    std::uint32_t header[2] = {};
    FUZZ_REQUIRE(packet.PayloadLength >= sizeof header);
    std::memcpy(header, packet.Payload, sizeof header);
    FUZZ_REQUIRE(header[0] == 1 && header[1] + sizeof header <= packet.PayloadLength);
    return std::string(static_cast<const char*>(packet.Payload) + sizeof header, header[1]);
  }

 private:
  VMBCHANNEL channel_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;  // under mutex_
};

class World {
 public:
  explicit World(Input& input) : input_(input) {
    auto device = VsockDevice::Create(
        {.path = TheFolder(),
         .most_connections = 4,
         .times = {.patience = kPatience, .linger = kPatience, .connect = kPatience}},
        {});
    FUZZ_REQUIRE(device.has_value());
    device_ = std::move(*device);
    server_ = std::make_unique<fuzz::DeviceServer>(
        [this](PDEVICE_OBJECT object, HANDLE partition) {
          partition_ = partition;
          FUZZ_REQUIRE(device_->Attach(object, partition) == STATUS_SUCCESS);
        },
        [this] { device_->Detach(partition_); });
    client_.emplace(server_->Connect());
  }
  ~World() {
    guest_.reset();
    program_.Close();
    listener_.Close();
    std::filesystem::remove(ProgramPath());
    client_.reset();
    server_.reset();
    // The device may still hear a line of a program that has gone.
    FUZZ_REQUIRE(fuzz::Soon(10s, [this] { return device_->Status().connections == 0; }));
    device_.reset();
  }

  void Run() {
    if (input_.Flag()) {
      FromGuest();
    } else {
      FromHost();
    }
    for (int steps = 0; steps < 40 && !input_.empty(); ++steps) Step();
    HearProgram();
    HearGuest();
  }

 private:
  static std::string ProgramPath() { return TheFolder() + "/vsock_" + std::to_string(kPort); }

  void FromGuest() {
    const bool listens = input_.Below(8) != 1;
    if (listens) {
      auto listening = HostSocket::Listen(ProgramPath());
      FUZZ_REQUIRE(listening.has_value());
      listener_ = std::move(*listening);
    }
    KMCL_CONNECT_REQUEST request{};
    request.EndpointId = VsockPort(1024);
    request.ServiceId = input_.Below(8) == 1 ? input_.Get<GUID>() : VsockPort(kPort);
    guest_ = std::make_unique<Guest>(client_->handle(), request.ServiceId, &request.EndpointId);
    (void)KmclClientRequestConnect(client_->handle(), &request);
    if (!listens) return;
    pollfd called{listener_.get(), POLLIN, 0};
    if (poll(&called, 1, static_cast<int>(kPatience.count())) != 1) return;
    auto accepted = listener_.Accept();
    if (!accepted) return;
    program_ = std::move(*accepted);
    guest_->AwaitOpen();
  }

  void FromHost() {
    if (input_.Below(8) != 1) {
      guest_ = std::make_unique<Guest>(client_->handle(), VsockPort(kPort), nullptr);
    }
    auto connected = HostSocket::Connect(device_->path(), 1s);
    FUZZ_REQUIRE(connected.has_value());
    program_ = std::move(*connected);
    if (input_.Below(4) == 0) {
      const auto bytes = input_.Bytes(64);
      (void)send(program_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      is_raw_ = true;  // may be a line, and may not
    } else {
      static constexpr std::string_view kLine = "CONNECT 5000\n";
      (void)send(program_.get(), kLine.data(), kLine.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    awaits_line_ = true;
    if (guest_ == nullptr || is_raw_) return;
    guest_->AwaitOpen();
  }

  void Step() {
    switch (input_.Below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return GuestWrites();
      case 4:
      case 5:
        return HearGuest();
      case 6:
      case 7:
      case 8:
        return ProgramWrites();
      case 9:
      case 10:
        return HearProgram();
      case 11:
        if (program_.is_open()) (void)shutdown(program_.get(), SHUT_WR);
        ended_ = true;
        return;
      case 12:
        if (input_.Below(4) == 0) program_.Close();
        return;
      case 13:
        if (input_.Below(4) == 0) guest_.reset();
        return;
      case 14:
        // The device's threads come between, without a word to us of what they did.
        std::this_thread::sleep_for(std::chrono::microseconds(200));
        return;
      default:
        return;
    }
  }

  void GuestWrites() {
    if (guest_ == nullptr) return;
    const bool is_odd = input_.Below(8) == 1;
    const std::uint32_t type = is_odd && input_.Flag() ? input_.Number() : 1;
    std::uint32_t length = input_.Number();
    if (length >= 0xF0) length %= 20'000;
    std::size_t bytes = length;
    if (is_odd && input_.Flag()) bytes = input_.Number() % 20'000;
    if (is_odd && input_.Flag()) length = input_.Get<std::uint32_t>();
    std::vector<std::byte> packet(kVsockHeaderBytes + bytes);
    std::memcpy(packet.data(), &type, sizeof type);
    std::memcpy(packet.data() + 4, &length, sizeof length);
    for (std::size_t i = 0; i < bytes; ++i) packet[8 + i] = static_cast<std::byte>(next_++);
    const std::string data(reinterpret_cast<const char*>(packet.data()) + 8, bytes);
    const UINT16 kind = is_odd && input_.Flag() ? input_.Byte() : UINT16{KMCL_RAW_DATA};
    const UINT16 flags = is_odd ? input_.Below(2) : 0;
    if (is_odd && input_.Below(4) == 0) packet.resize(input_.Below(12));
    const bool fits = packet.size() == 8 + bytes && length <= (bytes + 7) / 8 * 8;
    if (!guest_->Write(kind, 1, flags, std::move(packet))) return;
    if (type == 1 && fits && kind == KMCL_RAW_DATA) {
      std::string padded = data;
      padded.resize(std::max<std::size_t>(length, bytes));
      from_guest_ += padded.substr(0, length);
    }
  }

  void ProgramWrites() {
    if (!program_.is_open() || ended_) return;
    std::string data(input_.Number() % 40'000, '\0');
    for (char& each : data) each = static_cast<char>(next_++);
    const ssize_t sent =
        send(program_.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) from_program_ += data.substr(0, static_cast<std::size_t>(sent));
  }

  void HearGuest() {
    if (guest_ == nullptr) return;
    while (const auto bytes = guest_->Read()) guest_heard_ += *bytes;
    if (is_raw_) return;  // it began with bytes that were no line, or behind one
    FUZZ_REQUIRE(from_program_.starts_with(guest_heard_));
  }

  void HearProgram() {
    if (!program_.is_open()) return;
    std::array<char, 65536> buffer{};
    for (;;) {
      const ssize_t got = recv(program_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got <= 0) break;
      program_heard_.append(buffer.data(), static_cast<std::size_t>(got));
    }
    std::string_view heard = program_heard_;
    if (awaits_line_) {
      const auto end = heard.find('\n');
      if (end == heard.npos) {
        FUZZ_REQUIRE(std::string_view("OK 107374").starts_with(heard.substr(0, 9)));
        return;
      }
      FUZZ_REQUIRE(heard.starts_with("OK 107374"));
      heard.remove_prefix(end + 1);
    }
    FUZZ_REQUIRE(std::string_view(from_guest_).starts_with(heard));
  }

  Input& input_;
  std::unique_ptr<VsockDevice> device_;
  HANDLE partition_ = nullptr;
  std::unique_ptr<fuzz::DeviceServer> server_;
  std::optional<Client> client_;
  std::unique_ptr<Guest> guest_;
  HostSocket listener_;
  HostSocket program_;
  std::string from_guest_;    // well-formed
  std::string from_program_;  // behind its line
  std::string guest_heard_;
  std::string program_heard_;
  bool awaits_line_ = false;
  bool is_raw_ = false;
  bool ended_ = false;
  std::uint8_t next_ = 0;
};

}  // namespace
}  // namespace kmcl::devices

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::QuietLog();
  kmcl::fuzz::Input input(data, size);
  kmcl::devices::World(input).Run();
  return 0;
}

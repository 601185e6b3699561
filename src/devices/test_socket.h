// For the tests of vsock.h: the guest's end of a connection, as hv_sock has it, on a raw channel of
// a kmcl client; and the host's end, a Unix socket with deadlines.
#pragma once

#include <gtest/gtest.h>
#include <kmcl/connect.h>
#include <kmcl/raw.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/host_socket.h"
#include "devices/test_bus.h"
#include "devices/vsock.h"

namespace kmcl::devices {

// Ten seconds from now, for the waits of KMCL.
inline LARGE_INTEGER TestTimeout(std::int64_t milliseconds = 10'000) {
  LARGE_INTEGER timeout{};
  timeout.QuadPart = -milliseconds * 10'000;
  return timeout;
}

// A socket of the guest's. Used by one thread at a time.
class GuestSocket {
 public:
  // Waits for an offer of the service; any one, or the one that belongs to `endpoint`.
  GuestSocket(KMCL_CLIENT client, const GUID& service, const GUID* endpoint) {
    EXPECT_EQ(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &channel_), STATUS_SUCCESS);
    VmbChannelSetPointer(channel_, this);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      static_cast<GuestSocket*>(VmbChannelGetPointer(channel))->opened_.Set();
    };
    callbacks.EvtChannelSuspend = [](VMBCHANNEL channel) {
      static_cast<GuestSocket*>(VmbChannelGetPointer(channel))->closed_.Set();
    };
    EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(channel_, &callbacks), STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelInitSetFlags(channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE), STATUS_SUCCESS);
    EXPECT_EQ(KmclChannelInitSetRaw(channel_), STATUS_SUCCESS);
    // As Linux has it below version 5.0.
    EXPECT_EQ(VmbClientChannelInitSetRingBufferPageCount(channel_, 7, 7), STATUS_SUCCESS);
    EXPECT_EQ(VmbClientChannelInitSetTargetPnp(channel_, &service, endpoint, OnFailure),
              STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelEnable(channel_), STATUS_SUCCESS);
  }
  ~GuestSocket() {
    VmbChannelDisable(channel_);
    VmbChannelCleanup(channel_);
  }
  GuestSocket(const GuestSocket&) = delete;
  GuestSocket& operator=(const GuestSocket&) = delete;

  // Asks the host for a connection to its port.
  static std::unique_ptr<GuestSocket> Connect(KMCL_CLIENT client, std::uint32_t port,
                                              std::uint32_t own_port) {
    KMCL_CONNECT_REQUEST request{};
    request.EndpointId = VsockPort(own_port);
    request.ServiceId = VsockPort(port);
    auto made = std::make_unique<GuestSocket>(client, request.ServiceId, &request.EndpointId);
    EXPECT_EQ(KmclClientRequestConnect(client, &request), STATUS_SUCCESS);
    return made;
  }
  // Accepts one connection of the host's.
  static std::unique_ptr<GuestSocket> Listen(KMCL_CLIENT client, std::uint32_t port) {
    return std::make_unique<GuestSocket>(client, VsockPort(port), nullptr);
  }

  VMBCHANNEL channel() const { return channel_; }
  bool WaitOpen() { return opened_.Wait(); }
  bool WaitClosed() { return closed_.Wait(); }
  bool WaitFailed() { return failed_.Wait(); }

  // One packet of any kind, or what it ends with.
  NTSTATUS Put(std::uint32_t type, std::uint32_t length, std::string_view data,
               std::int64_t milliseconds = 10'000) {
    std::vector<std::byte> packet(kVsockHeaderBytes + data.size());
    const std::uint32_t header[2] = {type, length};
    std::memcpy(packet.data(), header, sizeof(header));
    std::ranges::copy(std::as_bytes(std::span(data)), packet.begin() + sizeof(header));
    const auto bytes = static_cast<UINT32>(packet.size());
    for (;;) {
      NTSTATUS status = KmclRawWrite(channel_, KMCL_RAW_DATA, 0, 0, packet.data(), bytes);
      if (status == STATUS_SUCCESS) {
        return KmclRawFlush(channel_);
      }
      if (status != STATUS_BUFFER_OVERFLOW) {
        return status;
      }
      LARGE_INTEGER timeout = TestTimeout(milliseconds);
      status = KmclRawWait(channel_, KMCL_RAW_OUTGOING, bytes, &timeout);
      if (status != STATUS_SUCCESS) {
        return status;
      }
    }
  }
  // In Linux' portions. How much was written before there was no room for so long, or no channel.
  std::size_t Write(std::string_view data, std::int64_t milliseconds = 10'000) {
    constexpr std::size_t kPortion = 4088;
    std::size_t done = 0;
    while (done < data.size()) {
      const auto portion = data.substr(done, kPortion);
      if (Put(1, static_cast<std::uint32_t>(portion.size()), portion, milliseconds) !=
          STATUS_SUCCESS) {
        return done;
      }
      done += portion.size();
    }
    return done;
  }
  bool Shutdown() { return Put(1, 0, {}) == STATUS_SUCCESS; }

  // The next packet's bytes; empty: the end. Nothing: the channel has gone, or nothing came.
  std::optional<std::string> Read() {
    std::array<std::byte, 20'000> buffer{};
    for (;;) {
      KMCL_RAW_PACKET packet{};
      NTSTATUS status = KmclRawRead(channel_, buffer.data(), buffer.size(), &packet);
      if (status == STATUS_SUCCESS) {
        KmclRawRelease(channel_);
        std::uint32_t header[2] = {};
        std::memcpy(header, packet.Payload, sizeof(header));
        EXPECT_EQ(header[0], 1U);
        EXPECT_LE(header[1] + sizeof(header), packet.PayloadLength);
        return std::string(static_cast<char*>(packet.Payload) + sizeof(header), header[1]);
      }
      if (status != STATUS_NO_MORE_ENTRIES) {
        return std::nullopt;
      }
      LARGE_INTEGER timeout = TestTimeout();
      status = KmclRawWait(channel_, KMCL_RAW_INCOMING, 0, &timeout);
      if (status != STATUS_SUCCESS) {
        return std::nullopt;
      }
    }
  }
  std::string Read(std::size_t bytes) {
    std::string all;
    while (all.size() < bytes) {
      const auto more = Read();
      if (!more || more->empty()) break;
      all += *more;
    }
    return all;
  }
  // Up to the end; `ended` says that it came. As in hv_sock a rescind is one, too: the host waits
  // for what comes before the end to be taken, not for the end itself, which Linux leaves there.
  std::string ReadAll(bool& ended) {
    std::string all;
    ended = false;
    while (const auto more = Read()) {
      ended = more->empty();
      if (ended) return all;
      all += *more;
    }
    ended = WaitClosed();
    return all;
  }

 private:
  static VOID OnFailure(VMBCHANNEL channel, NTSTATUS) {
    static_cast<GuestSocket*>(VmbChannelGetPointer(channel))->failed_.Set();
  }

  VMBCHANNEL channel_ = nullptr;
  Event opened_;
  Event closed_;
  Event failed_;
};

// The host program's socket. Every wait has a deadline.
class ProgramSocket {
 public:
  explicit ProgramSocket(HostSocket socket) : socket_(std::move(socket)) {}

  static ProgramSocket Connect(const std::string& path) {
    auto connected = HostSocket::Connect(path, std::chrono::seconds(10));
    EXPECT_TRUE(connected.has_value()) << path;
    return ProgramSocket(connected ? std::move(*connected) : HostSocket());
  }
  static ProgramSocket Listen(const std::string& path) {
    auto listening = HostSocket::Listen(path);
    EXPECT_TRUE(listening.has_value()) << path;
    return ProgramSocket(listening ? std::move(*listening) : HostSocket());
  }
  ProgramSocket Accept() {
    EXPECT_TRUE(Await(POLLIN)) << "nobody came";
    auto accepted = socket_.Accept();
    EXPECT_TRUE(accepted.has_value());
    return ProgramSocket(accepted ? std::move(*accepted) : HostSocket());
  }

  int get() const { return socket_.get(); }
  void Close() { socket_.Close(); }
  void Shutdown() { shutdown(socket_.get(), SHUT_WR); }

  // How much was written before there was no room for so long, or nobody to read it.
  std::size_t Write(std::string_view data, int milliseconds = 10'000) {
    std::size_t done = 0;
    while (done < data.size()) {
      const ssize_t sent =
          send(socket_.get(), data.data() + done, data.size() - done, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) {
        done += static_cast<std::size_t>(sent);
      } else if (sent == 0 || errno != EAGAIN || !Await(POLLOUT, milliseconds)) {
        break;
      }
    }
    return done;
  }
  // Up to the end of the connection, or so many bytes.
  std::string Read(std::size_t most = SIZE_MAX) {
    std::string all;
    std::array<char, 65536> buffer{};
    while (all.size() < most) {
      if (!Await(POLLIN)) {
        ADD_FAILURE() << "nothing came after " << all.size() << " bytes";
        break;
      }
      const ssize_t got = recv(socket_.get(), buffer.data(),
                               std::min(buffer.size(), most - all.size()), MSG_DONTWAIT);
      if (got <= 0) break;
      all.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return all;
  }
  // The line that answers CONNECT, without its end.
  std::string ReadLine() {
    std::string line;
    for (;;) {
      const std::string letter = Read(1);
      if (letter.empty() || letter == "\n") return line;
      line += letter;
    }
  }
  bool Await(short events, int milliseconds = 10'000) const {
    pollfd wanted{socket_.get(), events, 0};
    return poll(&wanted, 1, milliseconds) == 1;
  }

 private:
  HostSocket socket_;
};

// Bytes of which no portion is like another.
inline std::string TestBytes(std::size_t bytes, std::uint64_t seed = 1) {
  std::string all(bytes, '\0');
  std::uint64_t state = seed * 0x9E3779B97F4A7C15;
  for (std::size_t at = 0; at < bytes; at += sizeof(state)) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(all.data() + at, &state, std::min(sizeof(state), bytes - at));
  }
  return all;
}

}  // namespace kmcl::devices

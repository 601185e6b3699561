#include "transport/transfer.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "log.h"
#include "transport/descriptor_passing.h"
#include "transport/shm_link.h"
#include "wire/byte_stream.h"

namespace kmcl::transport {
namespace {

using Clock = std::chrono::steady_clock;
using wire::ByteReader;
using wire::ByteWriter;

// Each datagram: magic, version, kind, bytes of the message in all, descriptors of it in all.
constexpr std::uint32_t kMagic = 0x4F'48'4D'4B;  // "KMHO"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 24;
constexpr std::size_t kDatagramBytes = std::size_t{32} * 1024;
constexpr std::uint64_t kMostBytes = std::uint64_t{4} << 30;
constexpr std::uint32_t kMostDescriptors = 1u << 17;

// Waits for `events`. False: the time is up.
bool WaitFor(int socket, short events, Clock::time_point begin, std::uint32_t limit_ms) {
  int timeout = -1;
  if (limit_ms != 0) {
    const auto left = begin + std::chrono::milliseconds(limit_ms) - Clock::now();
    const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    if (left_ms <= 0) return false;
    timeout = static_cast<int>(left_ms);
  }
  pollfd wait{socket, events, 0};
  (void)poll(&wait, 1, timeout);  // an interruption is asked about again
  return true;
}

}  // namespace

Result<void> TransferSocket::CheckPeer() const {
  int type = 0;
  socklen_t bytes = sizeof type;
  ucred peer{};
  socklen_t peer_bytes = sizeof peer;
  if (getsockopt(socket_, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET ||
      getsockopt(socket_, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0) {
    return std::unexpected(Error::kSystemCall);
  }
  if (peer.uid != geteuid() && peer.uid != 0) return std::unexpected(Error::kPermissionDenied);
  return {};
}

Result<void> TransferSocket::Send(Kind kind, std::span<const std::byte> bytes,
                                  std::span<const Descriptor> descriptors,
                                  std::uint32_t limit_ms) const {
  const auto begin = Clock::now();
  ByteWriter header;
  header.Put(kMagic);
  header.Put(kVersion);
  header.Put(std::to_underlying(kind));
  header.Put(static_cast<std::uint64_t>(bytes.size()));
  header.Put(static_cast<std::uint32_t>(descriptors.size()));
  header.Put(std::uint32_t{0});
  KMCL_CHECK(header.size() == kHeaderBytes);
  bool first = true;
  while (first || !bytes.empty() || !descriptors.empty()) {
    first = false;
    const auto part = bytes.first(std::min(bytes.size(), kDatagramBytes - kHeaderBytes));
    const auto passed =
        descriptors.first(std::min(descriptors.size(), kMaximumPassedDescriptors));
    std::vector<std::byte> datagram = header.bytes();
    datagram.insert(datagram.end(), part.begin(), part.end());
    while (true) {
      const auto sent = SendDatagram(socket_, datagram, passed);
      if (sent) break;
      if (sent.error() != Error::kWouldBlock && sent.error() != Error::kOutOfDescriptors) {
        return sent;
      }
      if (!WaitFor(socket_, POLLOUT, begin, limit_ms)) return std::unexpected(Error::kWouldBlock);
      // With too many descriptors on their way the socket is writable all the same.
      const timespec moment{0, 1'000'000};
      nanosleep(&moment, nullptr);
    }
    bytes = bytes.subspan(part.size());
    descriptors = descriptors.subspan(passed.size());
  }
  return {};
}

Result<TransferSocket::Message> TransferSocket::Receive(std::uint32_t limit_ms) const {
  const auto begin = Clock::now();
  Message message;
  std::vector<std::byte> buffer(kDatagramBytes);
  bool first = true;
  std::uint64_t bytes_left = 0;
  std::uint32_t descriptors_left = 0;
  while (first || bytes_left > 0 || descriptors_left > 0) {
    ReceivedDatagram received = ReceiveDatagram(socket_, buffer, kMaximumPassedDescriptors);
    if (received.status == ReceivedDatagram::Status::kEnd) return std::unexpected(Error::kPeerGone);
    if (received.status == ReceivedDatagram::Status::kNothing) {
      if (!WaitFor(socket_, POLLIN, begin, limit_ms)) return std::unexpected(Error::kWouldBlock);
      continue;
    }
    ByteReader header{std::span<const std::byte>(buffer).first(received.bytes)};
    const auto magic = header.Get<std::uint32_t>();
    const auto version = header.Get<std::uint16_t>();
    const auto kind = static_cast<Kind>(header.Get<std::uint16_t>());
    const auto bytes = header.Get<std::uint64_t>();
    const auto descriptors = header.Get<std::uint32_t>();
    const auto reserved = header.Get<std::uint32_t>();
    if (received.out_of_descriptors) return std::unexpected(Error::kOutOfDescriptors);
    if (!header.ok() || received.truncated || magic != kMagic) {
      return std::unexpected(Error::kSaveMalformed);
    }
    if (version != kVersion) return std::unexpected(Error::kSaveVersion);
    if (reserved != 0 || bytes > kMostBytes || descriptors > kMostDescriptors) {
      return std::unexpected(Error::kSaveMalformed);
    }
    if (std::exchange(first, false)) {
      message.kind = kind;
      bytes_left = bytes;
      descriptors_left = descriptors;
    }
    const auto part = header.GetBytes(header.left());
    if (kind != message.kind || part.size() > bytes_left ||
        received.descriptors.size() > descriptors_left ||
        (part.empty() && received.descriptors.empty() && bytes_left + descriptors_left > 0)) {
      return std::unexpected(Error::kSaveMalformed);
    }
    bytes_left -= part.size();
    descriptors_left -= static_cast<std::uint32_t>(received.descriptors.size());
    message.content.bytes.insert(message.content.bytes.end(), part.begin(), part.end());
    for (Descriptor& each : received.descriptors) {
      message.content.descriptors.push_back(std::move(each));
    }
  }
  return message;
}

Result<std::unique_ptr<Link>> ImportLink(Transfer transfer) {
  ByteReader in(transfer.bytes);
  const bool ready = in.GetFlag();
  const auto bell_count = in.Get<std::uint32_t>();
  const auto unsent = in.Get<std::uint32_t>();
  if (unsent > kMaximumUnsentMessages || bell_count > kMaximumBellCount) in.Fail();
  std::vector<std::span<const std::byte>> messages;
  for (std::uint32_t i = 0; i < unsent && in.ok(); ++i) messages.push_back(in.GetBlock());
  const std::size_t wanted = ready ? 3 + std::size_t{2} * bell_count : 1;
  if (!in.AtEnd() || transfer.descriptors.size() != wanted || (ready && bell_count == 0)) {
    return std::unexpected(Error::kSaveMalformed);
  }
  auto link = std::make_unique<ShmServerLink>(std::move(transfer.descriptors[0]));
  if (!ready) return link;

  std::vector<Descriptor> ends;
  for (std::size_t i = 3; i < wanted; ++i) ends.push_back(std::move(transfer.descriptors[i]));
  if (!Bells::AreServerEnds(ends)) return std::unexpected(Error::kSaveMalformed);
  auto memory = PartitionMemory::Adopt(
      {std::move(transfer.descriptors[1]), std::move(transfer.descriptors[2])}, bell_count);
  if (!memory) return std::unexpected(memory.error());
  auto pages = MapBellPages(*memory, bell_count);
  if (!pages) return std::unexpected(pages.error());
  if (auto resumed = link->Resume(
          *std::move(memory), Bells(Side::kServer, Peer::kStranger, *std::move(pages),
                                    std::move(ends)),
          messages);
      !resumed) {
    return std::unexpected(resumed.error());
  }
  return link;
}

}  // namespace kmcl::transport

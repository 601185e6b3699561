#include "transport/shm_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "transport/address.h"
#include "transport/descriptor_passing.h"
#include "transport/handshake.h"
#include "wire/byte_stream.h"

namespace kmcl::transport {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDialLimit{5};

template <typename Datagram>
std::span<const std::byte> BytesOf(const Datagram& datagram) {
  return std::as_bytes(std::span(&datagram, 1));
}

Result<Descriptor> Connect(const std::string& path) {
  const Result<sockaddr_un> address = UnixAddress(path);
  if (!address) return std::unexpected(address.error());
  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) {
    const bool few = errno == EMFILE || errno == ENFILE;
    return std::unexpected(few ? Error::kOutOfDescriptors : Error::kOutOfMemory);
  }
  // connect() waits while the server's backlog is full; this is the limit of that wait.
  const timeval limit{kDialLimit.count(), 0};
  (void)setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  while (connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) !=
         0) {
    switch (errno) {
      case EINTR:
        continue;
      case EACCES:
      case EPERM:
        return std::unexpected(Error::kPermissionDenied);
      default:
        Log(LogLevel::kInfo, "transport: connecting to %s: %s", path.c_str(),
            ErrnoText(errno).words());
        return std::unexpected(Error::kAddressUnreachable);
    }
  }
  return socket;
}

// The welcome, and the ends of the bells that came with it.
Result<std::vector<Descriptor>> AwaitWelcome(int socket, std::uint32_t bell_count,
                                             const std::string& path) {
  const Clock::time_point deadline = Clock::now() + kDialLimit;
  std::byte buffer[sizeof(Welcome)];
  ReceivedDatagram received;
  while (true) {
    received = ReceiveDatagram(socket, buffer, std::size_t{2} * bell_count);
    if (received.status != ReceivedDatagram::Status::kNothing) break;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait{socket, POLLIN, 0};
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) == 0) {
      Log(LogLevel::kWarning, "transport: the server at %s does not answer", path.c_str());
      return std::unexpected(Error::kAddressUnreachable);
    }
  }
  if (received.status == ReceivedDatagram::Status::kEnd) return std::unexpected(Error::kPeerGone);
  if (received.out_of_descriptors) {
    CloseForeign(std::move(received.descriptors));
    return std::unexpected(Error::kOutOfDescriptors);
  }

  Result<Welcome> welcome = std::unexpected(Error::kHandshakeMalformed);
  if (!received.truncated) {
    welcome = ReadWelcome(std::span(buffer).first(received.bytes), bell_count,
                          received.descriptors.size());
  }
  const bool accepted = welcome && welcome->status == WelcomeStatus::kAccepted;
  if (accepted && Bells::AreEnds(received.descriptors)) return std::move(received.descriptors);

  CloseForeign(std::move(received.descriptors));
  if (welcome && !accepted) {
    Log(LogLevel::kWarning, "transport: the server at %s refused the connection: %s", path.c_str(),
        welcome->reason.data());
    return std::unexpected(Error::kHandshakeRefused);
  }
  Log(LogLevel::kWarning, "transport: %s is not a kmcl server, or one of another version",
      path.c_str());
  return std::unexpected(Error::kHandshakeMalformed);
}

}  // namespace

Result<void> ShmServerLink::Send(std::span<const std::byte> message) {
  if (!ready() && !socket_.broken()) return std::unexpected(Error::kNotConnected);
  return socket_.Send(message);
}

ReceivedMessage ShmServerLink::Receive(std::span<std::byte> buffer) {
  if (ready()) return socket_.Receive(buffer);
  if (!socket_.broken()) TakeHello();
  return {socket_.broken() ? ReceiveStatus::kGone : ReceiveStatus::kNothing, 0};
}

void ShmServerLink::TakeHello() {
  std::byte buffer[sizeof(Hello)];
  ReceivedDatagram received = ReceiveDatagram(socket_.fd(), buffer, kHelloDescriptors);
  if (received.status == ReceivedDatagram::Status::kNothing) return;
  if (received.status == ReceivedDatagram::Status::kEnd) return socket_.Break(nullptr);
  if (received.out_of_descriptors) {
    CloseForeign(std::move(received.descriptors));
    return RefuseWith(WelcomeStatus::kServerExhausted,
                      DefaultReason(WelcomeStatus::kServerExhausted));
  }

  std::expected<Hello, WelcomeStatus> hello = std::unexpected(WelcomeStatus::kHelloMalformed);
  if (!received.truncated) {
    hello = ReadHello(std::span(buffer).first(received.bytes), received.descriptors.size());
  }
  if (!hello) {
    CloseForeign(std::move(received.descriptors));
    return RefuseWith(hello.error(), DefaultReason(hello.error()));
  }

  const std::uint32_t bell_count = hello->bell_count;
  Result<PartitionMemory> memory = PartitionMemory::Adopt(
      {std::move(received.descriptors[0]), std::move(received.descriptors[1])}, bell_count);
  if (!memory) {
    const WelcomeStatus status = StatusOf(memory.error());
    return RefuseWith(status, DefaultReason(status));
  }
  Result<Mapping> pages = MapBellPages(*memory, bell_count);
  Result<Bells::Ends> ends = Bells::MakeEnds(bell_count, Peer::kStranger);
  if (!pages || !ends) {
    const WelcomeStatus status = pages ? WelcomeStatus::kServerExhausted : StatusOf(pages.error());
    return RefuseWith(status, DefaultReason(status));
  }

  RefuseDescriptors(socket_.fd());
  Welcome welcome;
  welcome.bell_count = bell_count;
  if (!SendDatagram(socket_.fd(), BytesOf(welcome), ends->client)) {
    return socket_.Break("the welcome could not be sent");
  }
  // By now the client may have closed them, and ours may be the last.
  CloseForeign(std::move(ends->client));
  memory_ = *std::move(memory);
  bells_ = Bells(Side::kServer, Peer::kStranger, *std::move(pages), std::move(ends->server));
}

void ShmServerLink::RefuseWith(WelcomeStatus status, const char* reason) {
  if (!ready() && !socket_.broken()) {
    // Should the answer not fit, the end of the connection says enough.
    (void)SendDatagram(socket_.fd(), BytesOf(MakeRefusal(status, reason)));
  }
  socket_.Break(reason);
}

void ShmServerLink::Refuse(const char* reason) { RefuseWith(WelcomeStatus::kRefused, reason); }

Result<Transfer> ShmServerLink::Export() const {
  if (socket_.broken()) return std::unexpected(Error::kPeerGone);
  Transfer transfer;
  Descriptor socket(fcntl(socket_.fd(), F_DUPFD_CLOEXEC, 0));
  if (!socket) return std::unexpected(Error::kOutOfDescriptors);
  transfer.descriptors.push_back(std::move(socket));
  const auto unsent = socket_.Unsent();
  wire::ByteWriter out;
  out.PutFlag(ready());
  out.Put(bells_.count());
  out.Put(static_cast<std::uint32_t>(unsent.size()));
  for (const auto& message : unsent) out.PutBlock(message);
  transfer.bytes = out.Take();
  if (!ready()) return transfer;

  auto donated = memory_->Duplicate();
  if (!donated) return std::unexpected(donated.error());
  transfer.descriptors.push_back(std::move(donated->memory));
  transfer.descriptors.push_back(std::move(donated->pool));
  auto ends = bells_.DuplicateEnds();
  if (!ends) return std::unexpected(ends.error());
  for (Descriptor& end : *ends) transfer.descriptors.push_back(std::move(end));
  return transfer;
}

Result<void> ShmServerLink::Resume(PartitionMemory memory, Bells bells,
                                   const std::vector<std::span<const std::byte>>& unsent) {
  memory_ = std::move(memory);
  bells_ = std::move(bells);
  for (const auto& message : unsent) {
    if (auto queued = socket_.Queue(message); !queued) return queued;
  }
  return {};
}

void RefuseConnection(Descriptor socket, const char* reason) {
  (void)SendDatagram(socket.get(), BytesOf(MakeRefusal(WelcomeStatus::kServerExhausted, reason)));
}

Result<std::unique_ptr<ClientLink>> DialShm(const std::string& path, const DialOptions& options) {
  const std::uint32_t bell_count = options.bell_count;
  Result<Descriptor> socket = Connect(path);
  if (!socket) return std::unexpected(socket.error());
  Result<PartitionMemory> memory =
      PartitionMemory::Create(bell_count, options.maximum_memory_bytes);
  if (!memory) return std::unexpected(memory.error());
  Result<Mapping> pages = MapBellPages(*memory, bell_count);
  if (!pages) return std::unexpected(pages.error());
  Result<PartitionMemory::Descriptors> donated = memory->Duplicate();
  if (!donated) return std::unexpected(donated.error());
  std::vector<Descriptor> passed;
  passed.push_back(std::move(donated->memory));
  passed.push_back(std::move(donated->pool));

  Hello hello;
  hello.bell_count = bell_count;
  // A server that refused us at once may have hung up already; its reason still waits to be read.
  if (const auto sent = SendDatagram(socket->get(), BytesOf(hello), passed);
      !sent && sent.error() != Error::kPeerGone) {
    // Nothing was sent on this connection before: it is the kernel that has no room.
    return std::unexpected(sent.error() == Error::kOutOfDescriptors ? Error::kOutOfDescriptors
                                                                    : Error::kOutOfMemory);
  }
  Result<std::vector<Descriptor>> bells = AwaitWelcome(socket->get(), bell_count, path);
  if (!bells) return std::unexpected(bells.error());

  RefuseDescriptors(socket->get());
  return std::make_unique<ReadyClientLink>(
      MessageSocket(*std::move(socket), kMaximumUnsentOfClient), *std::move(memory),
      Bells(Side::kClient, Peer::kTrusted, *std::move(pages), *std::move(bells)));
}

}  // namespace kmcl::transport

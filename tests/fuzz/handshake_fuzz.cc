// The shm handshake over real sockets: a server against a client whose hello, descriptors and later
// datagrams are anything; a client against such a server; and an end that is taken over from
// another process. A stranger is told why not, nothing of it stays, and memory is used only as far
// as it reaches.
#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "input.h"
#include "log.h"
#include "transport/address.h"
#include "transport/descriptor_passing.h"
#include "transport/handshake.h"
#include "transport/nonpaged_pool.h"
#include "transport/shm_link.h"
#include "transport/shm_listener.h"
#include "transport/transfer.h"

namespace kmcl::transport {
namespace {

using fuzz::Input;

// Of this process, until its end.
class Place {
 public:
  Place() {
    char name[] = "/tmp/kmcl-fuzz-XXXXXX";
    FUZZ_REQUIRE(mkdtemp(name) != nullptr);
    folder_ = name;
    auto listening = ListenShm(path());
    FUZZ_REQUIRE(listening.has_value());
    listener_ = std::move(*listening);
    FUZZ_REQUIRE(DuplicateNonPagedPool().has_value());  // once made, it stays
  }
  ~Place() {
    listener_.reset();
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ + "/bus"; }
  std::string other_path() const { return folder_ + "/other"; }
  Listener& listener() { return *listener_; }

 private:
  std::string folder_;
  std::unique_ptr<Listener> listener_;
};

Place& ThePlace() {
  static Place place;
  return place;
}

std::size_t OpenDescriptors() {
  while (ForeignClosingsUnderWay() > 0) std::this_thread::yield();
  std::size_t count = 0;
  DIR* const directory = opendir("/proc/self/fd");
  FUZZ_REQUIRE(directory != nullptr);
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

Descriptor Memory(std::size_t bytes, int seals) {
  Descriptor memory(memfd_create("kmcl-fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  FUZZ_REQUIRE(memory && ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
  FUZZ_REQUIRE(fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
  return memory;
}

// As it should be, or something else.
Descriptor AnyDescriptor(Input& input) {
  switch (input.Below(16)) {
    case 0:
      return Memory(input.Number() * 4096ull % (1 << 24) + input.Byte(), input.Byte() & 0x1F);
    case 1:
      return Memory(0, F_SEAL_SHRINK);
    case 2:
      return Descriptor(eventfd(0, EFD_CLOEXEC | (input.Flag() ? EFD_NONBLOCK : 0)));
    case 3:
      return Descriptor(open("/dev/zero", O_RDWR | O_CLOEXEC));
    case 4:
      return Descriptor(open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    case 5:
      return Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    case 6: {
      const Descriptor memory = Memory(8 * 4096, F_SEAL_SHRINK);
      const std::string name = "/proc/self/fd/" + std::to_string(memory.get());
      return Descriptor(open(name.c_str(), O_RDONLY | O_CLOEXEC));
    }
    default:
      return Memory(4096 * (1 + input.Below(40)), F_SEAL_SHRINK);
  }
}

std::vector<Descriptor> AnyDescriptors(Input& input, std::size_t usual) {
  std::vector<Descriptor> all;
  const std::size_t count = input.Below(8) == 0 ? input.Below(33) : usual;
  for (std::size_t i = 0; i < count; ++i) all.push_back(AnyDescriptor(input));
  return all;
}

template <typename Datagram>
std::vector<std::byte> Spoilt(Input& input, const Datagram& datagram) {
  const auto bytes = std::as_bytes(std::span(&datagram, 1));
  std::vector<std::byte> spoilt(bytes.begin(), bytes.end());
  if (input.Below(4) != 0) return spoilt;
  for (std::uint32_t left = 1 + input.Below(3); left > 0; --left) {
    spoilt[input.Byte() % spoilt.size()] = static_cast<std::byte>(input.Byte());
  }
  if (input.Below(4) == 0) spoilt.resize(1 + input.Get<std::uint16_t>() % 400);
  return spoilt;
}

// An end that has shaken hands, with a stranger on the other side of memory, bells and socket.
void Use(Input& input, Link& link, int stranger) {
  for (int step = 0; step < 12 && !input.empty(); ++step) {
    switch (input.Below(6)) {
      case 0: {
        std::vector<wire::PageNumber> pages(1 + input.Below(6));
        for (auto& page : pages) {
          page = wire::PageNumber{input.Below(8) == 0 ? input.Get<std::uint64_t>()
                                  : input.Flag()      ? kPoolFirstPage + input.Byte()
                                                      : input.Below(64)};
        }
        (void)link.FirstMissing(pages);
        if (const auto mapping = link.Map(pages)) {
          FUZZ_REQUIRE(mapping->bytes() == pages.size() * wire::kPageBytes);
          for (std::size_t at = 0; at < mapping->bytes(); at += wire::kPageBytes) {
            mapping->base()[at] = std::byte{1};
          }
        }
        if (const auto rings = link.MapRings(pages, input.Number())) {
          rings->client_to_server.control[0] = std::byte{1};
          rings->server_to_client.data[2 * rings->server_to_client.data_bytes - 1] = std::byte{1};
        }
        const std::uint64_t count = input.Number();
        if (std::byte* const window = link.Window(pages[0], count);
            window != nullptr && count > 0) {
          window[count * wire::kPageBytes - 1] = std::byte{1};
        }
        break;
      }
      case 1:
        (void)SendDatagram(stranger, input.Bytes(300), AnyDescriptors(input, 0));
        break;
      case 2: {
        std::array<std::byte, kMaximumMessageBytes> buffer;
        const ReceivedMessage received = link.Receive(buffer);
        FUZZ_REQUIRE(received.status != ReceiveStatus::kMessage || received.bytes <= buffer.size());
        break;
      }
      case 3:
        (void)link.Send(input.Bytes(250));
        link.Flush();
        break;
      case 4:
        if (link.bell_count() > 0) {
          const std::uint32_t index = input.Below(link.bell_count());
          const auto bell =
              link.MakeDoorbell(wire::ChannelId{input.Get<std::uint16_t>() % 2048u}, index);
          bell->Ring();
          (void)link.inbox(index).Collect();
        }
        break;
      default:
        if (const auto moved = link.Export()) {
          Transfer transfer;
          transfer.bytes = moved->bytes;
          for (const Descriptor& each : moved->descriptors) {
            transfer.descriptors.emplace_back(fcntl(each.get(), F_DUPFD_CLOEXEC, 0));
          }
          FUZZ_REQUIRE(ImportLink(std::move(transfer)).has_value());
        }
        break;
    }
  }
}

void Client(Input& input) {
  Descriptor stranger(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const auto address = UnixAddress(ThePlace().path());
  FUZZ_REQUIRE(
      connect(stranger.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0);
  auto link = ThePlace().listener().Accept();
  FUZZ_REQUIRE(link.has_value() && *link != nullptr);
  Hello hello;
  hello.bell_count = input.Below(8) == 0 ? input.Number() : 1 + input.Below(4);
  const auto datagram = Spoilt(input, hello);
  std::vector<Descriptor> donated;
  if (input.Below(4) == 0) {
    donated = AnyDescriptors(input, kHelloDescriptors);
  } else {
    donated.push_back(Memory(4096 * (hello.bell_count % 32 + input.Below(40)), F_SEAL_SHRINK));
    donated.push_back(Memory(4096 * input.Below(8), F_SEAL_SHRINK));
  }
  if (!SendDatagram(stranger.get(), datagram, donated)) return;
  std::array<std::byte, kMaximumMessageBytes> buffer;
  const ReceiveStatus status = (*link)->Receive(buffer).status;
  FUZZ_REQUIRE(status == ((*link)->ready() ? ReceiveStatus::kNothing : ReceiveStatus::kGone));
  // The stranger is told, either way.
  std::byte answer[sizeof(Welcome)];
  const ReceivedDatagram told = ReceiveDatagram(stranger.get(), answer, 32);
  FUZZ_REQUIRE(told.bytes == sizeof(Welcome));
  const auto welcome = ReadWelcome(answer, (*link)->bell_count(), told.descriptors.size());
  FUZZ_REQUIRE(welcome.has_value());
  FUZZ_REQUIRE((welcome->status == WelcomeStatus::kAccepted) == (*link)->ready());
  if ((*link)->ready()) Use(input, **link, stranger.get());
}

void Server(Input& input) {
  const std::string path = ThePlace().other_path();
  Descriptor listening(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const auto address = UnixAddress(path);
  FUZZ_REQUIRE(
      bind(listening.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0 &&
      listen(listening.get(), 1) == 0);
  DialOptions options;
  options.bell_count = 1 + input.Below(3);
  Welcome welcome;
  welcome.bell_count = options.bell_count;
  if (input.Below(8) == 0) welcome.status = static_cast<WelcomeStatus>(input.Number());
  const auto datagram = Spoilt(input, welcome);
  std::vector<Descriptor> ends;
  if (auto made = Bells::MakeEnds(options.bell_count, Peer::kStranger);
      made && input.Below(4) != 0) {
    ends = std::move(made->client);
    CloseForeign(std::move(made->server));
    if (input.Below(8) == 0) ends[input.Byte() % ends.size()] = AnyDescriptor(input);
  } else {
    if (made) CloseForeign(std::move(made->client));
    if (made) CloseForeign(std::move(made->server));
    ends = AnyDescriptors(input, std::size_t{2} * options.bell_count);
  }
  Descriptor stranger;
  std::thread server([&] {
    stranger = Descriptor(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    (void)SendDatagram(stranger.get(), datagram, ends);
    (void)shutdown(stranger.get(), SHUT_WR);
  });
  auto link = DialShm(path, options);
  server.join();
  unlink(path.c_str());
  CloseForeign(std::move(ends));
  if (link) Use(input, **link, stranger.get());
}

// What another process says to be one of its ends.
void Successor(Input& input) {
  Transfer transfer;
  const auto bytes = input.Bytes(64);
  transfer.bytes.assign(bytes.begin(), bytes.end());
  transfer.descriptors = AnyDescriptors(input, 3 + input.Below(4));
  const bool is_link = input.Flag();
  if (is_link) {
    (void)ImportLink(std::move(transfer));
  } else {
    (void)ImportListener(std::move(transfer));
  }
}

// The messages of a handover, in pieces that fit together or do not.
void Pieces(Input& input) {
  int ends[2];
  FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  const Descriptor ours(ends[0]);
  Descriptor theirs(ends[1]);
  for (std::uint32_t left = 1 + input.Below(4); left > 0; --left) {
    std::array<std::byte, 24> header{};
    const std::uint32_t magic = input.Below(16) == 0 ? input.Get<std::uint32_t>() : 0x4F484D4B;
    const std::uint16_t version = input.Below(16) == 0 ? input.Byte() : 1;
    const std::uint16_t kind = 1 + input.Below(5);
    const std::uint64_t size = input.Below(8) == 0 ? input.Get<std::uint64_t>() : input.Byte();
    const std::uint32_t descriptors =
        input.Below(8) == 0 ? input.Get<std::uint32_t>() : input.Below(4);
    std::memcpy(header.data(), &magic, 4);
    std::memcpy(header.data() + 4, &version, 2);
    std::memcpy(header.data() + 6, &kind, 2);
    std::memcpy(header.data() + 8, &size, 8);
    std::memcpy(header.data() + 16, &descriptors, 4);
    std::vector<std::byte> datagram(header.begin(), header.end());
    const auto part = input.Bytes(200);
    datagram.insert(datagram.end(), part.begin(), part.end());
    if (input.Below(16) == 0) datagram.resize(1 + input.Below(30));
    (void)SendDatagram(theirs.get(), datagram, AnyDescriptors(input, input.Below(3)));
  }
  theirs.Reset();
  (void)TransferSocket(ours.get()).Receive(1000);
}

}  // namespace
}  // namespace kmcl::transport

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kmcl::transport;
  kmcl::SetLogSink([](void*, kmcl::LogLevel, const char*) {}, nullptr);
  kmcl::fuzz::Input input(data, size);
  (void)ThePlace();
  const std::size_t before = OpenDescriptors();
  switch (input.Below(8)) {
    case 0:
      Successor(input);
      break;
    case 1:
      Pieces(input);
      break;
    case 2:
    case 3:
      Server(input);
      break;
    default:
      Client(input);
      break;
  }
  FUZZ_REQUIRE(OpenDescriptors() == before);
  return 0;
}

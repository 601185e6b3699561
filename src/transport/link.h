// A link: what crosses the boundary between the two ends of one connection, and nothing about what
// it means. Control messages in order, the client's pages, and a bell for each channel and
// direction.
//
// Two ends: the client donates the memory and dials; the server listens and maps. Everything that
// arrives here comes from a peer that may be hostile: links check descriptors, page numbers and
// sizes, and hand on message bytes unread.
//
// Threads: Send, Receive, Flush and the destructor belong to the endpoint's bus thread. Doorbells
// may be rung by anyone, and once the link is ready() memory may be mapped and asked for by anyone.
// A BellInbox belongs to one dispatch thread.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "result.h"
#include "wire/ids.h"

namespace kmcl::transport {

inline constexpr std::size_t kMaximumMessageBytes = 240;  // SynIC message payload (vmbus-wire 3)

// One view of some of the client's pages, contiguous in our address space. Unmapped on destruction.
class Mapping {
 public:
  Mapping() = default;
  // `lease` stands for the mapping in whatever accounts for it, and is let go after the unmapping.
  Mapping(std::byte* base, std::size_t bytes, std::shared_ptr<const void> lease = nullptr)
      : base_(base), bytes_(bytes), lease_(std::move(lease)) {}
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  std::byte* base() const { return base_; }
  std::size_t bytes() const { return bytes_; }  // as mapped: a mirrored data area counts twice
  explicit operator bool() const { return base_ != nullptr; }

 private:
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::shared_ptr<const void> lease_;
};

// The two rings of a channel as one mapping: [control | data | data again] twice.
struct RingMapping {
  Mapping mapping;
  struct View {
    std::byte* control = nullptr;  // 4096 bytes
    std::byte* data = nullptr;     // mapped twice in a row
    std::uint32_t data_bytes = 0;  // once
  };
  View client_to_server;
  View server_to_client;
};

// Rings the other end for one channel: sets the channel's flag and, only if it was clear, wakes the
// thread that waits. Never blocks. Anyone may ring, at any time before the link is destroyed.
class Doorbell {
 public:
  virtual ~Doorbell() = default;
  virtual void Ring() = 0;
};

// A set of channels, by id. 2,048 flags as in a SynIC event flags page.
using ChannelSet = std::array<std::uint64_t, 32>;

// Where the bells of some channels of a link arrive.
class BellInbox {
 public:
  virtual ~BellInbox() = default;
  // For an edge-triggered epoll (EPOLLIN | EPOLLET): each wake-up is an edge. It is readable for
  // ever after the first bell, so poll and level-triggered epolls do not wait on it. Never read it.
  // Take it out of the epoll before the link goes: the peer may keep the file open.
  virtual int fd() const = 0;
  // Takes all bells that wait, without a system call, but for those that a kernel rings. A bell
  // rung during the call is seen now or is an edge after it. Call it after epoll_wait has said so,
  // or at any time to poll; then an edge may come that finds nothing.
  virtual ChannelSet Collect() = 0;
};

enum class ReceiveStatus : std::uint8_t {
  kMessage,  // one message was copied
  kNothing,  // nothing waits; message_fd() will be readable when that changes
  kGone,     // the peer has closed, died or broken the transport's rules; final
};

struct ReceivedMessage {
  ReceiveStatus status = ReceiveStatus::kNothing;
  std::size_t bytes = 0;  // of the buffer, when kMessage
};

struct PeerIdentity {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// A page run in the client's donated memory.
struct PageRun {
  wire::PageNumber first{};
  std::uint32_t count = 0;
};

// Donated memory that the client itself uses, where it stands in its address space.
struct DonatedBuffer {
  std::byte* address = nullptr;
  PageRun run;
};

struct Transfer;

class Link {
 public:
  virtual ~Link() = default;

  // Control messages, byte for byte, in order.
  // Send queues what the system does not take at once; it fails only when the peer is gone.
  [[nodiscard]] virtual Result<void> Send(std::span<const std::byte> message) = 0;
  // `buffer` holds at least kMaximumMessageBytes. A longer message breaks the link (kGone).
  virtual ReceivedMessage Receive(std::span<std::byte> buffer) = 0;
  // Moves queued messages on; call it when message_fd() is writable and unsent_messages() > 0.
  virtual void Flush() = 0;
  virtual std::size_t unsent_messages() const = 0;
  // For poll or epoll: readable when Receive has something to say (also when the peer died).
  virtual int message_fd() const = 0;
  virtual PeerIdentity peer() const = 0;
  // Server: the client's hello has arrived and was accepted; memory and bells may be used.
  // Until then Receive does the handshake and says kNothing, or kGone. A dialled link is ready.
  virtual bool ready() const = 0;
  // Server: says no, with a reason that a person can read (its first 200 characters are kept), and
  // ends the link: Receive answers kGone from now on. Dial fails with kHandshakeRefused if the link
  // was not ready() yet; a client that was already connected just sees the end. Local links are
  // ready at once.
  virtual void Refuse(const char* reason) = 0;

  // Maps pages of the client's memory, checked against its size. Works at both ends. Any thread.
  [[nodiscard]] virtual Result<Mapping> Map(std::span<const wire::PageNumber> pages) = 0;
  // `pages` holds both rings; the server-to-client control page stands at `downstream_page`.
  // Refuses a geometry that is not two rings (kRingGeometry).
  [[nodiscard]] virtual Result<RingMapping> MapRings(std::span<const wire::PageNumber> pages,
                                                     std::uint32_t downstream_page) = 0;

  // The first of these that the client's memory does not have, where that can be told without
  // mapping them; else nothing, and Map says it. Any thread.
  virtual std::optional<wire::PageNumber> FirstMissing(
      std::span<const wire::PageNumber> pages) const;

  // Pages that follow each other, in a standing view that lives as long as the link: no system call
  // but when the memory has grown. nullptr when they do not exist or no view reaches them; Map then
  // knows why, or has them. The client may write to them at any time. Any thread.
  virtual std::byte* Window(wire::PageNumber first, std::uint64_t count) = 0;

  // Bells. A link has bell_count() pairs of inboxes; the peer rings our inbox i with its doorbell
  // i. The server's channels use inbox (channel id % bell_count()); the client's channels use the
  // inbox whose number it names as target_vp when it opens.
  virtual std::uint32_t bell_count() const = 0;
  virtual BellInbox& inbox(std::uint32_t index) = 0;
  // The bell of `channel` at the peer's inbox `index` (below bell_count()).
  virtual std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index) = 0;

  // Server: the client begins a connection, and wants its messages at this processor of its; what
  // it has not taken of earlier ones is for nobody. Where messages have only one way, nothing. The
  // bus thread's.
  virtual void OnContact(wire::ProcessorIndex messages_to);
  // Server: the channel's bells are wanted from now on, or no more. A link that can tell refuses
  // those that are not. Any thread.
  virtual void ListenTo(wire::ChannelId channel, bool wanted);

  // Server: everything of this link, for ImportLink in another process (transfer.h). The link stays
  // usable; only one of the two may be used from then on. kSaveUnsupported for a local link,
  // kOutOfDescriptors.
  [[nodiscard]] virtual Result<Transfer> Export() const;
};

// The rings of one channel of a client.
struct ClientRings {
  PageRun run;  // what the GPADL names; goes back by FreePages
  std::uint32_t downstream_page = 0;
  RingMapping mapping;
  // The control pages were filled in by somebody else, and the server may write already.
  bool in_use = false;
};

// The client's end also owns the donated memory. Any thread may call what is added here.
class ClientLink : public Link {
 public:
  // For a channel that is about to be described and opened: rings of so many pages each, control
  // page included; a link that has no choice makes others. The bus thread's. As AllocatePages and
  // MapRings, and where an operating system owns the channels (uio/kernel_link.h): kChannelUnknown,
  // kDriverNotBound, kDeviceBusy, kDeviceRemoved, kPermissionDenied, kOutOfDescriptors,
  // kSystemCall.
  [[nodiscard]] virtual Result<ClientRings> MakeRings(wire::ChannelId channel,
                                                      std::uint32_t outgoing_pages,
                                                      std::uint32_t incoming_pages);
  // Whether the server can be shown memory beside the rings. If not, what asks for it fails with
  // kMemoryNotShared.
  virtual bool shares_memory() const { return true; }
  // Whether offers come with their flags. If not, nobody here can tell a pipe.
  virtual bool shows_offer_flags() const { return true; }

  // Contiguous zeroed pages; the memory grows as needed, up to the limit given when it was dialled.
  [[nodiscard]] virtual Result<PageRun> AllocatePages(std::uint32_t count) = 0;
  // Gives the pages back to the system. The server must not have them mapped for use any more.
  virtual void FreePages(PageRun run) = 0;

  // Memory to copy something into that the server shall see, or to find there what it wrote: at
  // least `bytes` bytes, from the beginning of a page, holding whatever they held before. Made for
  // what comes and goes with every packet: a buffer that was freed is kept for the next user, up to
  // a limit. kFieldOutOfRange for none, kOutOfMemory.
  [[nodiscard]] virtual Result<DonatedBuffer> AllocateBuffer(std::size_t bytes) = 0;
  // The server must not use it any more.
  virtual void FreeBuffer(const DonatedBuffer& buffer) = 0;

  // The page that an address of the process's nonpaged pool stands on (nonpaged_pool.h): memory
  // that the server sees without a copy. Nothing for every other address.
  virtual std::optional<wire::PageNumber> PageOf(const void* address) const = 0;
};

// The server's listening end.
class Listener {
 public:
  virtual ~Listener() = default;
  // Readable when Accept may have something.
  virtual int fd() const = 0;
  // The next client, or nullptr when none waits. Its hello may still be on the way: see
  // Link::ready(). kWouldBlock: somebody waits, and is to wait longer; fd() stays readable.
  [[nodiscard]] virtual Result<std::unique_ptr<Link>> Accept() = 0;
  virtual const std::string& address() const = 0;
  // As Link's, for ImportListener.
  [[nodiscard]] virtual Result<Transfer> Export() const;
  // Somebody else listens at the address: nothing is removed when this one is destroyed. And the
  // opposite, which holds from the beginning.
  virtual void Leave() {}
  virtual void Own() {}
};

struct DialOptions {
  std::uint32_t bell_count = 1;                                 // pairs of inboxes, 1 to 16
  std::uint64_t maximum_memory_bytes = std::uint64_t{4} << 30;  // of donated memory
};

// Addresses: "local:NAME" (both ends in this process), "unix:PATH" (a socket in the file system),
// and for clients "uio:" or "uio:INSTANCE" (the bus of the guest we run in, or one device of it).
// Listen replaces a stale socket file, refuses one that is served (kAddressInUse), and creates it
// with mode 0600. The file is removed when the listener is destroyed.
[[nodiscard]] Result<std::unique_ptr<Listener>> Listen(const std::string& address);
// Connects and shakes hands; waits for the server's answer to the hello (5 s at most).
[[nodiscard]] Result<std::unique_ptr<ClientLink>> Dial(const std::string& address,
                                                       const DialOptions& options);

}  // namespace kmcl::transport

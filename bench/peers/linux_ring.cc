// Linux's own VMBus ring, drivers/hv/ring_buffer.c, unchanged, between two processes. Packets are
// built as vmbus_sendpacket does; the reader is either what most drivers do (look at each packet
// where the iterator has put it, then give the space back) or hv_ringbuffer_read, one packet a
// call.
#include <sys/mman.h>

#include "linux_ring/glue.h"
#include "ring/ring_test_memory.h"
#include "rows.h"

namespace kmcl::bench {
namespace {

constexpr std::uint32_t kRingBytes = 256 * 1024;
constexpr std::uint16_t kDataInBand = 6;

// A control page and the data twice in a row, as the kernel maps its rings.
class RingMapping {
 public:
  void Open(Stage& stage) {
    const int fd = memfd_create("linux_ring", MFD_CLOEXEC);
    constexpr std::size_t kPage = 4096;
    if (fd < 0 || ftruncate(fd, kPage + kRingBytes) != 0) stage.Fail("no shared memory");
    void* const at =
        mmap(nullptr, kPage + 2 * kRingBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) stage.Fail("no shared memory");
    at_ = static_cast<std::byte*>(at);
    for (const auto& [offset, from, bytes] :
         {std::tuple{std::size_t{0}, off_t{0}, kPage + kRingBytes},
          std::tuple{kPage + kRingBytes, off_t{kPage}, std::size_t{kRingBytes}}}) {
      if (mmap(at_ + offset, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, from) ==
          MAP_FAILED) {
        stage.Fail("no shared memory");
      }
    }
    close(fd);
  }
  vmbus_channel* Channel(Stage& stage, bool outbound, std::uint32_t largest_packet) {
    vmbus_channel* const channel = linux_ring_create(at_, kRingBytes, outbound, largest_packet);
    if (channel == nullptr) stage.Fail("no memory for a channel");
    return channel;
  }

 private:
  std::byte* at_ = nullptr;
};

// As vmbus_sendpacket_getid puts a packet together. False: full.
bool Send(vmbus_channel* channel, void* payload, std::size_t bytes) {
  vmpacket_descriptor descriptor;
  const std::size_t packet_bytes = sizeof(descriptor) + bytes;
  const std::size_t aligned_bytes = (packet_bytes + 7) / 8 * 8;
  std::uint64_t padding = 0;
  descriptor.type = kDataInBand;
  descriptor.flags = 0;
  descriptor.offset8 = sizeof(descriptor) / 8;
  descriptor.len8 = static_cast<std::uint16_t>(aligned_bytes / 8);
  descriptor.trans_id = 1;
  const kvec parts[3] = {{&descriptor, sizeof(descriptor)},
                         {payload, bytes},
                         {&padding, aligned_bytes - packet_bytes}};
  return hv_ringbuffer_write(channel, parts, 3, 1, nullptr) == 0;
}

enum class Reader : std::uint8_t { kIterates, kIteratesAndBacksOff, kReadsOneByOne };

class LinuxStream final : public Pair {
 public:
  LinuxStream(std::size_t bytes, Reader reader) : bytes_(bytes), reader_(reader) {}

  void Open(Stage& stage) override {
    mapping_.Open(stage);
    const auto largest = static_cast<std::uint32_t>(bytes_ + 64);
    out_ = mapping_.Channel(stage, true, largest);
    in_ = mapping_.Channel(stage, false, largest);
    linux_ring_mask(in_);
  }
  void Near(Stage& stage) override {
    SendStream(
        stage, bytes_,
        [&](std::byte* message) {
          while (!Send(out_, message, bytes_)) Pause();
        },
        [] {});
  }
  void Far(Stage& stage) override {
    Backoff backoff(reader_ == Reader::kIteratesAndBacksOff);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    if (reader_ == Reader::kReadsOneByOne) return ReadOneByOne(inflow);
    for (;;) {
      // foreach_vmbus_pkt; the space is given back once an eighth of the ring is read, or at the
      // end.
      std::uint32_t unreleased = 0;
      vmpacket_descriptor* packet = hv_pkt_iter_first(in_);
      while (packet != nullptr) {
        backoff.Took();
        const std::size_t offset = std::size_t{packet->offset8} * 8;
        const std::size_t length = std::size_t{packet->len8} * 8;
        if (!inflow.Take(reinterpret_cast<std::byte*>(packet) + offset, length - offset)) return;
        unreleased += static_cast<std::uint32_t>(length + 8);
        packet = __hv_pkt_iter_next(in_, packet);
        if (unreleased >= kRingBytes / 8) {
          hv_pkt_iter_close(in_);
          unreleased = 0;
        }
      }
      if (unreleased != 0) hv_pkt_iter_close(in_);
      backoff.Empty();
    }
  }

 private:
  void ReadOneByOne(Inflow& inflow) {
    std::vector<std::byte> buffer(bytes_ + 64);
    for (;;) {
      std::uint32_t bytes = 0;
      std::uint64_t id = 0;
      if (hv_ringbuffer_read(in_, buffer.data(), static_cast<std::uint32_t>(buffer.size()), &bytes,
                             &id, false) != 0 ||
          bytes == 0) {
        continue;
      }
      if (!inflow.Take(buffer.data(), bytes)) return;
    }
  }

  const std::size_t bytes_;
  const Reader reader_;
  RingMapping mapping_;
  vmbus_channel* out_ = nullptr;
  vmbus_channel* in_ = nullptr;
};

class LinuxRoundTrip final : public Pair {
 public:
  explicit LinuxRoundTrip(std::size_t bytes) : bytes_(bytes) {}

  void Open(Stage& stage) override {
    const auto largest = static_cast<std::uint32_t>(bytes_ + 64);
    for (Direction* direction : {&there_, &back_}) {
      direction->mapping.Open(stage);
      direction->out = direction->mapping.Channel(stage, true, largest);
      direction->in = direction->mapping.Channel(stage, false, largest);
      linux_ring_mask(direction->in);
    }
  }
  void Near(Stage& stage) override {
    Ask(stage, bytes_, [&](std::byte* message) {
      if (!Send(there_.out, message, bytes_)) stage.Fail("the ring is full");
      return Receive(back_.in, [](void*, std::size_t) {});
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    const auto answer = [&](void* payload, std::size_t bytes) {
      if (!Send(back_.out, payload, bytes)) stage.Fail("the ring is full");
    };
    while ((Receive(there_.in, answer) & kLast) == 0) {
    }
  }

 private:
  struct Direction {
    RingMapping mapping;
    vmbus_channel* out = nullptr;
    vmbus_channel* in = nullptr;
  };

  template <class Then>
  std::uint64_t Receive(vmbus_channel* channel, Then&& then) {
    vmpacket_descriptor* packet;
    while ((packet = hv_pkt_iter_first(channel)) == nullptr) {
    }
    const std::size_t offset = std::size_t{packet->offset8} * 8;
    std::byte* const payload = reinterpret_cast<std::byte*>(packet) + offset;
    const std::uint64_t number = ReadMessage(payload, bytes_);
    then(payload, std::size_t{packet->len8} * 8 - offset);
    __hv_pkt_iter_next(channel, packet);
    hv_pkt_iter_close(channel);
    return number;
  }

  const std::size_t bytes_;
  Direction there_, back_;
};

}  // namespace

void AddLinuxRingRows(Registry& registry) {
  for (const std::size_t bytes : {8u, 64u, 256u, 1024u, 4096u, 16384u}) {
    const bool quick = bytes == 64 || bytes == 4096;
    const auto add = [&](std::string_view contender, Reader reader) {
      registry.rows.push_back({.name = RowName("stream", contender, bytes),
                               .bytes = bytes,
                               .make = [=] { return std::make_unique<LinuxStream>(bytes, reader); },
                               .quick = quick});
    };
    add("linux-iterate", Reader::kIterates);
    add("linux-iterate-adaptive", Reader::kIteratesAndBacksOff);
    add("linux-read", Reader::kReadsOneByOne);
  }
  for (const std::size_t bytes : {64u, 1024u, 4096u}) {
    registry.rows.push_back({.name = RowName("roundtrip", "linux", bytes),
                             .bytes = bytes,
                             .make = [=] { return std::make_unique<LinuxRoundTrip>(bytes); },
                             .quick = bytes == 64});
  }
}

}  // namespace kmcl::bench

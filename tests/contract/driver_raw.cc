// The driver's verbs for raw channels (kmcl/raw.h).
#include <kmcl/raw.h>
#include <poll.h>

#include <atomic>
#include <span>

#include "driver.h"
#include "payload.h"

namespace kmcl::contract {

namespace {

UINT32 Number(const Words& words, std::size_t index) {
  return static_cast<UINT32>(std::stoul(words.at(index)));
}

// "type flags id header-bytes bytes number intact"
std::string Describe(const KMCL_RAW_PACKET& packet) {
  const std::span payload(static_cast<const std::byte*>(packet.Payload), packet.PayloadLength);
  return std::to_string(packet.Type) + " " + std::to_string(packet.Flags) + " " +
         std::to_string(packet.TransactionId) + " " + std::to_string(packet.HeaderLength) + " " +
         std::to_string(packet.PayloadLength) + " " + std::to_string(PayloadNumber(payload)) +
         (PayloadIsIntact(payload) ? " intact" : " wrong");
}

NTSTATUS Write(VMBCHANNEL channel, UINT16 type, UINT16 flags, UINT64 id,
               std::span<std::byte> payload) {
  return KmclRawWrite(channel, type, flags, id, payload.empty() ? nullptr : payload.data(),
                      static_cast<UINT32>(payload.size()));
}

// As above, but waits for room.
NTSTATUS WriteSooner(VMBCHANNEL channel, UINT16 type, UINT64 id, std::span<std::byte> payload) {
  for (;;) {
    NTSTATUS status = Write(channel, type, 0, id, payload);
    if (status != STATUS_BUFFER_OVERFLOW) return status;
    status = KmclRawWait(channel, KMCL_RAW_OUTGOING, static_cast<UINT32>(payload.size()), nullptr);
    if (!NT_SUCCESS(status)) return status;
  }
}

// Answers each packet with its own bytes until the channel is suspended; sleeps when there is
// nothing to do. "STATUS COUNT".
std::string Echo(VMBCHANNEL channel) {
  std::size_t count = 0;
  for (;;) {
    KMCL_RAW_PACKET packet;
    NTSTATUS status = KmclRawPeek(channel, &packet);
    if (status == STATUS_NO_MORE_ENTRIES) {
      status = KmclRawFlush(channel);
      if (NT_SUCCESS(status)) status = KmclRawWait(channel, KMCL_RAW_INCOMING, 0, nullptr);
    } else if (NT_SUCCESS(status)) {
      ++count;
      const bool wanted = (packet.Flags & KMCL_RAW_FLAG_COMPLETION_REQUESTED) != 0;
      status =
          WriteSooner(channel, wanted ? KMCL_RAW_COMPLETION : KMCL_RAW_DATA, packet.TransactionId,
                      {static_cast<std::byte*>(packet.Payload), packet.PayloadLength});
      if (NT_SUCCESS(status)) status = KmclRawSkip(channel);
      if (NT_SUCCESS(status) && count % 16 == 0) status = KmclRawRelease(channel);
    }
    if (!NT_SUCCESS(status)) return std::to_string(status) + " " + std::to_string(count);
  }
}

// Sends COUNT packets of BYTES to somebody who echoes, while taking what comes back. "STATUS
// COUNT", or where the stream went wrong.
std::string Stream(VMBCHANNEL channel, UINT32 count, UINT32 bytes) {
  std::vector<std::byte> buffer(bytes + 8);
  UINT32 sent = 0;
  UINT32 received = 0;
  while (received < count) {
    NTSTATUS status = STATUS_SUCCESS;
    bool full = false;
    while (sent < count && !full) {
      std::vector<std::byte> payload = MakePayload(sent, bytes);
      status = Write(channel, KMCL_RAW_DATA, 0, sent, payload);
      full = status == STATUS_BUFFER_OVERFLOW;
      if (!full && !NT_SUCCESS(status)) return std::to_string(status) + " sent";
      if (!full) ++sent;
    }
    KmclRawFlush(channel);
    KMCL_RAW_PACKET packet;
    while (NT_SUCCESS(status = KmclRawRead(channel, buffer.data(),
                                           static_cast<UINT32>(buffer.size()), &packet))) {
      const std::span payload(static_cast<const std::byte*>(packet.Payload), packet.PayloadLength);
      if (packet.TransactionId != received || !PayloadIsIntact(payload) ||
          PayloadNumber(payload) != received) {
        return "wrong " + Describe(packet);
      }
      ++received;
    }
    if (status != STATUS_NO_MORE_ENTRIES) return std::to_string(status) + " received";
    if (received == count) break;
    status = KmclRawWait(channel, KMCL_RAW_INCOMING | (sent < count ? KMCL_RAW_OUTGOING : 0), bytes,
                         nullptr);
    if (!NT_SUCCESS(status)) return std::to_string(status) + " waited";
  }
  const NTSTATUS status = KmclRawRelease(channel);
  return std::to_string(status) + " " + std::to_string(received);
}

}  // namespace

std::string Driver::Raw(const Words& words) {
  VMBCHANNEL const channel = Find(words.at(1))->handle();
  const std::string& what = words.at(2);
  if (what == "write") {  // TYPE FLAGS ID NUMBER BYTES
    std::vector<std::byte> payload = MakePayload(Number(words, 6), Number(words, 7));
    return std::to_string(Write(channel, static_cast<UINT16>(Number(words, 3)),
                                static_cast<UINT16>(Number(words, 4)), std::stoull(words.at(5)),
                                payload));
  }
  if (what == "flush") return std::to_string(KmclRawFlush(channel));
  if (what == "spoil") {
    // As the peer could: the ring's first packet tells where its control page is, in front of the
    // data, and the write index is the first word there.
    KMCL_RAW_PACKET packet{};
    const NTSTATUS status = KmclRawPeek(channel, &packet);
    if (!NT_SUCCESS(status)) return std::to_string(status);
    constexpr std::size_t kDescriptorBytes = 16;
    constexpr std::size_t kPageBytes = 4096;
    auto* const write_index = reinterpret_cast<std::uint32_t*>(
        static_cast<std::byte*>(packet.Payload) - kDescriptorBytes - kPageBytes);
    std::atomic_ref(*write_index).store(12);  // no multiple of 8
    return std::to_string(status);
  }
  if (what == "skip") return std::to_string(KmclRawSkip(channel));
  if (what == "release") return std::to_string(KmclRawRelease(channel));
  if (what == "peek" || what == "read") {
    std::vector<std::byte> buffer(what == "read" ? Number(words, 3) : 0);
    KMCL_RAW_PACKET packet{};
    const NTSTATUS status = what == "peek"
                                ? KmclRawPeek(channel, &packet)
                                : KmclRawRead(channel, buffer.empty() ? nullptr : buffer.data(),
                                              static_cast<UINT32>(buffer.size()), &packet);
    return std::to_string(status) + (NT_SUCCESS(status) ? " " + Describe(packet) : "");
  }
  if (what == "wait") {  // DIRECTIONS BYTES TIMEOUT|none
    LARGE_INTEGER timeout{};
    const bool unlimited = words.at(5) == "none";
    if (!unlimited) timeout.QuadPart = std::stoll(words.at(5));
    return std::to_string(
        KmclRawWait(channel, Number(words, 3), Number(words, 4), unlimited ? nullptr : &timeout));
  }
  if (what == "arm") {  // DIRECTIONS BYTES
    return std::to_string(KmclRawArm(channel, Number(words, 3), Number(words, 4)));
  }
  if (what == "readable") {  // DIRECTION MILLISECONDS
    pollfd look{
        .fd = KmclRawGetDescriptor(channel, Number(words, 3)), .events = POLLIN, .revents = 0};
    return std::to_string(poll(&look, 1, static_cast<int>(Number(words, 4))));
  }
  if (what == "echo") return Echo(channel);
  if (what == "stream") return Stream(channel, Number(words, 3), Number(words, 4));
  return "unknown raw " + what;
}

}  // namespace kmcl::contract

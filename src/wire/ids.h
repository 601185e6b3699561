// The numbers that name things in the protocol, each with a type of its own.
//
// Every id here may come from a peer. A strong type says what a number means, not that it is valid:
// whoever looks something up by it checks.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

namespace kmcl::wire {

// A channel on one connection, called "relid" on the wire. 0 is never a channel.
enum class ChannelId : std::uint32_t {};

// A description of client memory; the client chooses the number. 0 is never used.
enum class GpadlId : std::uint32_t {};

// Chosen by the client for one OPEN_CHANNEL and echoed in its result.
enum class OpenId : std::uint32_t {};

// Which 4 KiB page of the client's memory, counted from 0 (a PFN).
enum class PageNumber : std::uint64_t {};

// What a client posts messages to, or signals. The server's choice, below 2^24.
enum class ConnectionId : std::uint32_t {};

// A virtual processor of the client.
enum class ProcessorIndex : std::uint32_t {};

// Chosen by whoever sends a packet and echoed in its completion; scoped to one channel and
// direction. 0 is not used for packets that want a completion (VMBus reference 1.5.3).
enum class TransactionId : std::uint64_t {};

// target_vp of a channel that shall never be interrupted.
inline constexpr ProcessorIndex kNoInterrupt{0xFFFFFFFF};

// A SINT has 2,048 event flags, one per channel, and flag 0 stands for messages.
inline constexpr std::uint32_t kMaximumChannelId = 2047;

// Clients below 2.4 scan bits 1 to 255 of the interrupt page (VMBus reference 3.7).
inline constexpr std::uint32_t kMaximumChannelIdInterruptPage = 255;

// A page on the wire, whatever the size of a page at either end.
inline constexpr std::uint32_t kPageBytes = 4096;

// Connections that every bus has (VMBus reference 3.3).
inline constexpr ConnectionId kMessageConnection{1};
inline constexpr ConnectionId kEventConnection{2};
inline constexpr ConnectionId kMonitorConnection{3};
inline constexpr ConnectionId kMultiClientMessageConnection{4};

// What a client signals for a channel, as our servers number it. OpenVMM's choice: unique, below
// 2^24, and clear of the well-known ones.
inline constexpr std::uint32_t kFirstChannelConnection = 0x2000;
constexpr ConnectionId EventConnection(ChannelId channel) {
  return ConnectionId{kFirstChannelConnection | std::to_underlying(channel)};
}
// The channel of such a connection; nothing for every other number.
constexpr std::optional<ChannelId> ChannelOfEvent(ConnectionId connection) {
  const std::uint32_t number = std::to_underlying(connection);
  if (number <= kFirstChannelConnection || number > kFirstChannelConnection + kMaximumChannelId) {
    return std::nullopt;
  }
  return ChannelId{number - kFirstChannelConnection};
}

}  // namespace kmcl::wire

// The two datagrams that open an shm connection (docs/transports.md): the client's hello, which
// carries two memfds, and the server's welcome, which carries the ends of the bells or a reason why
// not. Little endian, no padding. Whoever receives one copies it and calls its check before reading
// further.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "result.h"

namespace kmcl::transport {

inline constexpr std::array<char, 8> kHandshakeMagic = {'k', 'm', 'c', 'l', '-', 's', 'h', 'm'};
inline constexpr std::uint32_t kTransportVersion = 2;
// The memory of this client, and its process's nonpaged pool.
inline constexpr std::size_t kHelloDescriptors = 2;

struct Hello {
  std::array<char, 8> magic = kHandshakeMagic;
  std::uint32_t version = kTransportVersion;
  std::uint32_t page_bytes = 4096;
  std::uint32_t bell_count = 1;
  std::array<std::uint32_t, 11> reserved{};  // zero
};
static_assert(sizeof(Hello) == 64 && offsetof(Hello, bell_count) == 16);

// Why a server says no. Numbers are part of the format.
enum class WelcomeStatus : std::uint32_t {
  kAccepted = 0,
  kHelloMalformed = 1,
  kVersionUnknown = 2,  // `version` names the server's
  kMemoryNotSealed = 3,
  kMemoryKind = 4,
  kMemoryTooSmall = 5,
  kServerExhausted = 6,  // descriptors, memory or address space
  kRefused = 7,          // by choice; the reason says why
};

struct Welcome {
  std::array<char, 8> magic = kHandshakeMagic;
  std::uint32_t version = kTransportVersion;
  WelcomeStatus status = WelcomeStatus::kAccepted;
  std::uint32_t bell_count = 0;             // as in the hello, when accepted
  std::array<std::uint32_t, 7> reserved{};  // zero
  std::array<char, 208> reason{};           // text for a person, ends with a zero byte
};
static_assert(sizeof(Welcome) == 256 && offsetof(Welcome, status) == 12 &&
              offsetof(Welcome, reason) == 48);
static_assert(std::is_trivially_copyable_v<Hello> && std::is_trivially_copyable_v<Welcome>);

// Server: reads a hello of `datagram.size()` bytes that arrived with `descriptor_count`
// descriptors. The error is the status to answer.
[[nodiscard]] std::expected<Hello, WelcomeStatus> ReadHello(std::span<const std::byte> datagram,
                                                            std::size_t descriptor_count);

// Client: kHandshakeMalformed for what is no welcome to a hello that asked for `bell_count` bells.
// A refusal is a good welcome; its reason is made printable.
[[nodiscard]] Result<Welcome> ReadWelcome(std::span<const std::byte> datagram,
                                          std::uint32_t bell_count, std::size_t descriptor_count);

Welcome MakeRefusal(WelcomeStatus status, const char* reason);
const char* DefaultReason(WelcomeStatus status);
WelcomeStatus StatusOf(Error error);

}  // namespace kmcl::transport

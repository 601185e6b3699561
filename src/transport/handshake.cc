#include "transport/handshake.h"

#include <algorithm>
#include <cstring>

#include "transport/bells.h"
#include "wire/ids.h"

namespace kmcl::transport {
namespace {

bool AllZero(std::span<const std::uint32_t> words) {
  return std::ranges::all_of(words, [](std::uint32_t word) { return word == 0; });
}

}  // namespace

std::expected<Hello, WelcomeStatus> ReadHello(std::span<const std::byte> datagram,
                                              std::size_t descriptor_count) {
  Hello hello;
  if (datagram.size() != sizeof hello) return std::unexpected(WelcomeStatus::kHelloMalformed);
  std::memcpy(&hello, datagram.data(), sizeof hello);
  if (hello.magic != kHandshakeMagic) return std::unexpected(WelcomeStatus::kHelloMalformed);
  // Before the other fields: a later version may give them another meaning.
  if (hello.version != kTransportVersion) return std::unexpected(WelcomeStatus::kVersionUnknown);
  if (hello.page_bytes != wire::kPageBytes || hello.bell_count < 1 ||
      hello.bell_count > kMaximumBellCount || !AllZero(hello.reserved) ||
      descriptor_count != kHelloDescriptors) {
    return std::unexpected(WelcomeStatus::kHelloMalformed);
  }
  return hello;
}

Result<Welcome> ReadWelcome(std::span<const std::byte> datagram, std::uint32_t bell_count,
                            std::size_t descriptor_count) {
  Welcome welcome;
  if (datagram.size() != sizeof welcome) return std::unexpected(Error::kHandshakeMalformed);
  std::memcpy(&welcome, datagram.data(), sizeof welcome);
  if (welcome.magic != kHandshakeMagic) return std::unexpected(Error::kHandshakeMalformed);
  if (welcome.status == WelcomeStatus::kAccepted) {
    if (welcome.version != kTransportVersion || welcome.bell_count != bell_count ||
        descriptor_count != std::size_t{2} * bell_count || !AllZero(welcome.reserved)) {
      return std::unexpected(Error::kHandshakeMalformed);
    }
  }
  welcome.reason.back() = '\0';
  for (char& letter : welcome.reason) {
    if (letter != '\0' && (letter < ' ' || letter > '~')) letter = '?';  // it goes into a log
  }
  return welcome;
}

Welcome MakeRefusal(WelcomeStatus status, const char* reason) {
  Welcome welcome;
  welcome.status = status;
  const std::size_t bytes = strnlen(reason, welcome.reason.size() - 1);
  std::memcpy(welcome.reason.data(), reason, bytes);
  return welcome;
}

const char* DefaultReason(WelcomeStatus status) {
  switch (status) {
    case WelcomeStatus::kAccepted:
      return "";
    case WelcomeStatus::kHelloMalformed:
      return "the hello is malformed";
    case WelcomeStatus::kVersionUnknown:
      return "the transport version is unknown";
    case WelcomeStatus::kMemoryNotSealed:
      return "the donated memory is not sealed against shrinking";
    case WelcomeStatus::kMemoryKind:
      return "the donated memory is not a writable memfd of ordinary pages";
    case WelcomeStatus::kMemoryTooSmall:
      return "the donated memory does not hold the bell pages";
    case WelcomeStatus::kServerExhausted:
      return "the server is out of descriptors or memory";
    case WelcomeStatus::kRefused:
      return "the server refuses";
  }
  return "unknown";
}

WelcomeStatus StatusOf(Error error) {
  // Not a switch: the other errors are no outcomes of a handshake.
  if (error == Error::kMemoryNotSealed) return WelcomeStatus::kMemoryNotSealed;
  if (error == Error::kMemoryKind) return WelcomeStatus::kMemoryKind;
  if (error == Error::kPageOutOfRange) return WelcomeStatus::kMemoryTooSmall;
  return WelcomeStatus::kServerExhausted;
}

}  // namespace kmcl::transport

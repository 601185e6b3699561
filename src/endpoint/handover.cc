#include "endpoint/handover.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "log.h"
#include "wire/byte_stream.h"

namespace kmcl::endpoint {
namespace {

using Kind = transport::TransferSocket::Kind;
constexpr std::uint32_t kRefusalMs = 100;

// Text of the other process, for the log.
std::string Printable(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    const auto letter = static_cast<char>(byte);
    text += letter < ' ' || letter > '~' ? '?' : letter;
    if (text.size() == 200) break;
  }
  return text;
}

}  // namespace

void HandoverSocket::Refuse(const char* why) const {
  (void)socket_.Send(Kind::kRefused, std::as_bytes(std::span(why, std::strlen(why))), {},
                     kRefusalMs);
}

Result<void> HandoverSocket::Expect(Kind kind, std::uint32_t limit_ms) const {
  const auto message = socket_.Receive(limit_ms);
  if (!message) return std::unexpected(message.error());
  if (message->kind == kind) return {};
  if (message->kind != Kind::kRefused) return std::unexpected(Error::kSaveMalformed);
  Log(LogLevel::kWarning, "no handover: %s", Printable(message->content.bytes).c_str());
  return std::unexpected(Error::kPeerGone);
}

Result<void> HandoverSocket::Give(const transport::Transfer& server,
                                  std::span<const std::byte> luggage,
                                  std::uint32_t limit_ms) const {
  wire::ByteWriter out;
  out.PutBlock(server.bytes);
  out.PutBlock(luggage);
  auto said = socket_.Send(Kind::kState, out.bytes(), server.descriptors, limit_ms);
  if (said) said = Expect(Kind::kReady, limit_ms);
  if (said) said = socket_.Send(Kind::kGo, {}, {}, limit_ms);
  // It may be running from here on, unless it is gone.
  if (said) said = Expect(Kind::kRunning, 0);
  return said;
}

Result<HandoverSocket::State> HandoverSocket::AwaitState(std::uint32_t limit_ms) const {
  auto message = socket_.Receive(limit_ms);
  if (!message) return std::unexpected(message.error());
  if (message->kind == Kind::kRefused) {
    Log(LogLevel::kWarning, "no handover: %s", Printable(message->content.bytes).c_str());
    return std::unexpected(Error::kPeerGone);
  }
  wire::ByteReader in(message->content.bytes);
  const auto server = in.GetBlock();
  const auto luggage = in.GetBlock();
  if (message->kind != Kind::kState || !in.AtEnd()) return std::unexpected(Error::kSaveMalformed);
  State state;
  state.server.bytes.assign(server.begin(), server.end());
  state.server.descriptors = std::move(message->content.descriptors);
  state.luggage.assign(luggage.begin(), luggage.end());
  return state;
}

Result<void> HandoverSocket::Confirm(std::uint32_t limit_ms) const {
  auto said = socket_.Send(Kind::kReady, {}, {}, limit_ms);
  if (said) said = Expect(Kind::kGo, limit_ms);
  if (!said) return said;
  // The old process has let go for good unless it hears nothing more of us. If it is gone itself,
  // nobody else serves.
  const auto running = socket_.Send(Kind::kRunning, {}, {}, 0);
  if (!running && running.error() != Error::kPeerGone) return running;
  return {};
}

}  // namespace kmcl::endpoint

#include "endpoint/message_port.h"

#include <sys/epoll.h>

#include <array>

namespace kmcl::endpoint {
namespace {

// Messages taken from one peer before the others get their turn.
constexpr int kMessagesPerEvent = 64;
// A peer that does not take our answers is not asked for more questions.
constexpr std::size_t kMostUnsentMessages = 8192;

}  // namespace

Result<void> MessagePort::Open(Ready ready) {
  open_ = true;
  announced_ready_ = ready == Ready::kKnown;
  return Resume();
}

void MessagePort::Suspend() {
  if (token_ != 0) bus_.Unwatch(token_);
  token_ = 0;
}

Result<void> MessagePort::Resume() {
  if (!open_ || token_ != 0) return {};
  auto token = bus_.Watch(link_->message_fd(), EPOLLIN,
                          [this](std::uint32_t events) { OnEvent(events); });
  if (!token) return std::unexpected(token.error());
  token_ = *token;
  UpdateEvents();
  return {};
}

void MessagePort::Close() {
  Suspend();
  open_ = false;
  link_.reset();
}

void MessagePort::Gone() {
  if (!open_) return;
  Close();
  events_.on_gone();
}

void MessagePort::Send(std::span<const std::byte> message) {
  if (!open_) return;
  // A failure means that the peer is gone, which Receive will say in its turn.
  (void)!link_->Send(message);
  UpdateEvents();
}

void MessagePort::UpdateEvents() {
  if (token_ == 0) return;
  const std::size_t unsent = link_->unsent_messages();
  std::uint32_t events = 0;
  if (unsent < kMostUnsentMessages) events |= EPOLLIN;
  if (unsent > 0) events |= EPOLLOUT;
  bus_.SetEvents(token_, events);
}

void MessagePort::OnEvent(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) link_->Flush();
  for (int budget = kMessagesPerEvent; budget > 0 && token_ != 0; --budget) {
    std::array<std::byte, transport::kMaximumMessageBytes> buffer;
    const transport::ReceivedMessage received = link_->Receive(buffer);
    if (received.status == transport::ReceiveStatus::kGone) return Gone();
    if (!announced_ready_ && link_->ready()) {
      announced_ready_ = true;
      events_.on_ready();
      if (token_ == 0) return;
    }
    if (received.status == transport::ReceiveStatus::kNothing) break;
    events_.on_message({buffer.data(), received.bytes});
  }
  UpdateEvents();
}

}  // namespace kmcl::endpoint

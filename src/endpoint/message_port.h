// One link on its endpoint's bus thread: reads messages as they come, writes them as fast as the peer
// takes them, and notices the peer's end.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "endpoint/bus_thread.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::endpoint {

// Belongs to the bus thread.
class MessagePort {
 public:
  struct Events {
    std::function<void()> on_ready;  // the handshake is done; once, before the first message
    std::function<void(std::span<const std::byte>)> on_message;
    std::function<void()> on_gone;  // once; the port is closed by then
  };

  MessagePort(BusThread& bus, std::shared_ptr<transport::Link> link, Events events)
      : bus_(bus), link_(std::move(link)), events_(std::move(events)) {}
  ~MessagePort() { Close(); }
  MessagePort(const MessagePort&) = delete;
  MessagePort& operator=(const MessagePort&) = delete;

  // Whether the handshake's end is to be told, or is known to have been told before.
  enum class Ready : bool { kTold, kKnown };
  [[nodiscard]] Result<void> Open(Ready ready = Ready::kTold);
  void Send(std::span<const std::byte> message);
  // Stops and resumes reading. What is sent meanwhile goes out, as far as the peer takes it at once.
  void Suspend();
  [[nodiscard]] Result<void> Resume();
  // Stops reading and writing, and lets go of the link; no event follows.
  void Close();
  bool is_open() const { return open_; }

 private:
  void OnEvent(std::uint32_t events);
  void Gone();
  void UpdateEvents();

  BusThread& bus_;
  std::shared_ptr<transport::Link> link_;  // until closed
  const Events events_;
  bool open_ = false;
  BusThread::Token token_ = 0;  // 0 while suspended
  bool announced_ready_ = false;
};

}  // namespace kmcl::endpoint

// POSIX message queues (mq_overview(7)): in the kernel; they block.
#include <mqueue.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rows.h"

namespace kmcl::bench {
namespace {

// A queue without a name: both ends have its descriptor since before the fork.
class Queue {
 public:
  void Open(Stage& stage, std::size_t bytes) {
    bytes_ = bytes;
    rlimit limit;
    getrlimit(RLIMIT_MSGQUEUE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MSGQUEUE, &limit);
    // As many messages as may be; 10 may always.
    const std::string name = "/kmcl_bench." + std::to_string(getpid());
    for (const long messages : {4096L, 1024L, 256L, 64L, 10L}) {
      mq_attr attributes{};
      attributes.mq_maxmsg = messages;
      attributes.mq_msgsize = static_cast<long>(bytes);
      queue_ = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
      if (queue_ != -1) break;
    }
    if (queue_ == -1) stage.Fail(std::string("mq_open: ") + std::strerror(errno));
    mq_unlink(name.c_str());
  }
  void Send(Stage& stage, const std::byte* message) {
    if (mq_send(queue_, reinterpret_cast<const char*>(message), bytes_, 0) != 0) {
      stage.Fail("mq_send failed");
    }
  }
  std::size_t Receive(Stage& stage, std::span<std::byte> buffer) {
    const ssize_t got =
        mq_receive(queue_, reinterpret_cast<char*>(buffer.data()), buffer.size(), nullptr);
    if (got < 0) stage.Fail("mq_receive failed");
    return static_cast<std::size_t>(got);
  }
  long messages() const {
    mq_attr attributes{};
    mq_getattr(queue_, &attributes);
    return attributes.mq_maxmsg;
  }

 private:
  mqd_t queue_ = -1;
  std::size_t bytes_ = 0;
};

class QueueStream final : public Pair {
 public:
  explicit QueueStream(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage& stage) override { queue_.Open(stage, bytes_); }
  void Near(Stage& stage) override {
    SendStream(
        stage, bytes_, [&](const std::byte* message) { queue_.Send(stage, message); }, [] {});
  }
  void Far(Stage& stage) override {
    stage.Extra("queue_messages", static_cast<double>(queue_.messages()));
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    while (inflow.Take(buffer_.data(), queue_.Receive(stage, buffer_))) {
    }
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  Queue queue_;
};

class QueueTrip final : public Pair {
 public:
  explicit QueueTrip(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage& stage) override {
    there_.Open(stage, bytes_);
    back_.Open(stage, bytes_);
  }
  void Near(Stage& stage) override {
    Ask(stage, bytes_, [&](const std::byte* message) {
      there_.Send(stage, message);
      back_.Receive(stage, buffer_);
      return ReadMessage(buffer_.data(), bytes_);
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    std::uint64_t number = 0;
    do {
      there_.Receive(stage, buffer_);
      number = ReadMessage(buffer_.data(), bytes_);
      back_.Send(stage, buffer_.data());
    } while ((number & kLast) == 0);
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  Queue there_, back_;
};

}  // namespace

void AddPosixQueueRows(Registry& registry) {
  for (const std::size_t bytes : {64u, 1024u, 4096u}) {
    registry.rows.push_back({.name = RowName("stream", "posix-mq", bytes),
                             .bytes = bytes,
                             .make = [=] { return std::make_unique<QueueStream>(bytes); },
                             .quick = bytes == 64});
  }
  registry.rows.push_back({.name = RowName("roundtrip", "posix-mq", 64),
                           .bytes = 64,
                           .make = [] { return std::make_unique<QueueTrip>(64); },
                           .quick = false});
}

}  // namespace kmcl::bench

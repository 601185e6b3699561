// Boost.Interprocess's message queue: a priority queue in shared memory behind a mutex and two
// condition variables. It blocks.
#include <boost/interprocess/ipc/message_queue.hpp>
#include <optional>

#include "rows.h"

namespace kmcl::bench {
namespace {

using boost::interprocess::message_queue;

constexpr std::size_t kQueueBytes = 256 * 1024;

// A queue without a name: both ends have it mapped since before the fork.
class Queue {
 public:
  Queue(Stage& stage, std::size_t bytes) : bytes_(bytes) {
    const std::string name = "kmcl_bench." + std::to_string(getpid());
    message_queue::remove(name.c_str());
    try {
      queue_.emplace(boost::interprocess::create_only, name.c_str(), kQueueBytes / bytes, bytes);
    } catch (const std::exception& failure) {
      stage.Fail(failure.what());
    }
    message_queue::remove(name.c_str());
  }
  void Send(const std::byte* message) { queue_->send(message, bytes_, 0); }
  std::size_t Receive(std::span<std::byte> buffer) {
    std::size_t bytes = 0;
    unsigned priority = 0;
    queue_->receive(buffer.data(), buffer.size(), bytes, priority);
    return bytes;
  }

 private:
  const std::size_t bytes_;
  std::optional<message_queue> queue_;
};

class QueueStream final : public Pair {
 public:
  explicit QueueStream(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage& stage) override { queue_.emplace(stage, bytes_); }
  void Near(Stage& stage) override {
    SendStream(stage, bytes_, [&](const std::byte* message) { queue_->Send(message); }, [] {});
  }
  void Far(Stage& stage) override {
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    while (inflow.Take(buffer_.data(), queue_->Receive(buffer_))) {
    }
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  std::optional<Queue> queue_;
};

class QueueTrip final : public Pair {
 public:
  explicit QueueTrip(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage& stage) override {
    there_.emplace(stage, bytes_);
    back_.emplace(stage, bytes_);
  }
  void Near(Stage& stage) override {
    Ask(stage, bytes_, [&](const std::byte* message) {
      there_->Send(message);
      back_->Receive(buffer_);
      return ReadMessage(buffer_.data(), bytes_);
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    std::uint64_t number = 0;
    do {
      there_->Receive(buffer_);
      number = ReadMessage(buffer_.data(), bytes_);
      back_->Send(buffer_.data());
    } while ((number & kLast) == 0);
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  std::optional<Queue> there_, back_;
};

}  // namespace

void AddBoostQueueRows(Registry& registry) {
  for (const std::size_t bytes : {64u, 1024u, 4096u}) {
    registry.rows.push_back({.name = RowName("stream", "boost-mq", bytes),
                             .bytes = bytes,
                             .make = [=] { return std::make_unique<QueueStream>(bytes); },
                             .quick = bytes == 64});
  }
  registry.rows.push_back({.name = RowName("roundtrip", "boost-mq", 64),
                           .bytes = 64,
                           .make = [] { return std::make_unique<QueueTrip>(64); },
                           .quick = false});
}

}  // namespace kmcl::bench

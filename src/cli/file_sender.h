// Sends one file through a file channel: reads, hashes, keeps a window of chunks on their way, and
// keeps a record of every transaction.
//
// The main thread reads and sends; completions come on the dispatch thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cli/client_channel.h"
#include "cli/progress_bar.h"
#include "cli/transaction_log.h"
#include "devices/file_protocol.h"
#include "devices/sha256.h"

namespace kmcl::cli {

struct SendPlan {
  int file = -1;  // open for reading, borrowed
  std::uint64_t file_bytes = 0;
  std::string name;  // at the server
  std::uint32_t window = 32;
  std::uint32_t chunk_bytes = 64 * 1024;
};

struct SentFile {
  devices::Sha256Digest sent{};      // of the bytes that were read and sent
  devices::Sha256Digest received{};  // of the bytes that the server wrote
};

class FileSender {
 public:
  // `channel` is open and outlives this.
  static Outcome<std::unique_ptr<FileSender>> Prepare(ClientChannel& channel, const SendPlan& plan);

  // Sends the file; returns when the server has stored it, or when that has failed.
  Outcome<SentFile> Send(ProgressBar& progress);

  std::uint64_t acknowledged_bytes() const {
    return acknowledged_bytes_.load(std::memory_order_acquire);
  }
  // Final once the channel was closed.
  TransactionSums Sums() const { return log_.Sums(); }

 private:
  // One request at a time. Written by the main thread, read by its completion.
  struct Slot {
    FileSender* owner = nullptr;
    PacketHandle packet;
    std::vector<std::byte> request;
    std::uint64_t index = 0;
    std::uint32_t data_bytes = 0;
    bool is_chunk = false;
  };

  FileSender(ClientChannel& channel, const SendPlan& plan);
  static VOID OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 buffer_bytes);
  void Complete(Slot& slot, NTSTATUS status, const std::byte* answer, std::size_t answer_bytes);

  Slot* TakeFreeSlot();
  Slot* WaitForFreeSlot(ProgressBar& progress);
  bool WaitForAll(ProgressBar& progress);
  bool MustStop() const;
  Outcome<void> SendRequest(Slot& slot, devices::FileRequestKind kind, std::uint64_t value,
                            std::uint32_t data_bytes);
  Outcome<void> SendContent(ProgressBar& progress, devices::Sha256& hash);
  Outcome<std::uint32_t> ReadChunk(Slot& slot, std::uint64_t offset);
  Failure WhyStopped() const;

  ClientChannel& channel_;
  const SendPlan plan_;
  TransactionLog log_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::uint64_t next_index_ = 0;  // the main thread's

  std::atomic<std::uint64_t> acknowledged_bytes_{0};
  mutable std::mutex mutex_;
  // Under mutex_.
  std::vector<Slot*> free_;
  std::optional<devices::FileReply> refusal_;  // the server's first answer that is not kStored
  bool malformed_answer_ = false;
  devices::FileReceipt receipt_{};
};

}  // namespace kmcl::cli

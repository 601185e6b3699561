#include "cli/file_sender.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "cli/main_wait.h"

namespace kmcl::cli {
namespace {

using devices::FileReceipt;
using devices::FileReply;
using devices::FileRequest;
using devices::FileRequestKind;
using devices::FileStatus;

constexpr auto kRedrawEvery = std::chrono::milliseconds(100);

// Begin, the chunks, finish.
std::uint64_t TransactionCount(const SendPlan& plan) {
  return 2 + (plan.file_bytes + plan.chunk_bytes - 1) / plan.chunk_bytes;
}

}  // namespace

FileSender::FileSender(ClientChannel& channel, const SendPlan& plan)
    : channel_(channel), plan_(plan), log_(TransactionCount(plan)) {}

Outcome<std::unique_ptr<FileSender>> FileSender::Prepare(ClientChannel& channel,
                                                         const SendPlan& plan) {
  std::unique_ptr<FileSender> self(new FileSender(channel, plan));
  for (std::uint32_t i = 0; i < plan.window; ++i) {
    auto slot = std::make_unique<Slot>();
    slot->owner = self.get();
    slot->packet.reset(VmbPacketAllocate(channel.handle()));
    if (!slot->packet) {
      return Fail(kExitFailure, "no memory for packets", STATUS_INSUFFICIENT_RESOURCES);
    }
    VmbPacketSetPointer(slot->packet.get(), slot.get());
    VmbPacketSetCompletionRoutine(slot->packet.get(), OnCompletion);
    slot->request.resize(sizeof(FileRequest) +
                         std::max(plan.chunk_bytes, devices::kFileMaximumNameBytes));
    self->free_.push_back(slot.get());
    self->slots_.push_back(std::move(slot));
  }
  return self;
}

Outcome<SentFile> FileSender::Send(ProgressBar& progress) {
  Slot& first = *TakeFreeSlot();
  std::memcpy(first.request.data() + sizeof(FileRequest), plan_.name.data(), plan_.name.size());
  if (auto sent = SendRequest(first, FileRequestKind::kBegin, plan_.file_bytes,
                              static_cast<std::uint32_t>(plan_.name.size()));
      !sent) {
    return std::unexpected(sent.error());
  }
  devices::Sha256 hash;
  if (WaitForAll(progress)) {
    if (auto sent = SendContent(progress, hash); !sent) {
      return std::unexpected(sent.error());
    }
  }
  if (!WaitForAll(progress)) {
    return std::unexpected(WhyStopped());
  }
  if (auto sent = SendRequest(*TakeFreeSlot(), FileRequestKind::kFinish, plan_.file_bytes, 0);
      !sent) {
    return std::unexpected(sent.error());
  }
  if (!WaitForAll(progress)) {
    return std::unexpected(WhyStopped());
  }
  SentFile result;
  result.sent = hash.Finish();
  const std::lock_guard lock(mutex_);
  std::memcpy(result.received.data(), receipt_.sha256, result.received.size());
  return result;
}

Outcome<void> FileSender::SendContent(ProgressBar& progress, devices::Sha256& hash) {
  std::uint64_t offset = 0;
  while (offset < plan_.file_bytes) {
    Slot* slot = WaitForFreeSlot(progress);
    if (slot == nullptr) {
      return std::unexpected(WhyStopped());
    }
    const auto bytes = ReadChunk(*slot, offset);
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    hash.Update(std::span(slot->request).subspan(sizeof(FileRequest), *bytes));
    if (auto sent = SendRequest(*slot, FileRequestKind::kChunk, offset, *bytes); !sent) {
      return sent;
    }
    offset += *bytes;
    progress.Update(acknowledged_bytes());
  }
  return {};
}

// Exactly the next chunk: the file is not allowed to become shorter meanwhile.
Outcome<std::uint32_t> FileSender::ReadChunk(Slot& slot, std::uint64_t offset) {
  const auto wanted = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(plan_.chunk_bytes, plan_.file_bytes - offset));
  std::uint32_t have = 0;
  while (have < wanted) {
    const ssize_t got = pread(plan_.file, slot.request.data() + sizeof(FileRequest) + have,
                              wanted - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return Fail(kExitFailure,
                  fmt::format("cannot read the file: {}", std::generic_category().message(errno)));
    }
    if (got == 0) {
      return Fail(kExitFailure, "the file became shorter while it was read");
    }
    have += static_cast<std::uint32_t>(got);
  }
  return wanted;
}

// What is to be sent follows the header in the slot already.
Outcome<void> FileSender::SendRequest(Slot& slot, FileRequestKind kind, std::uint64_t value,
                                      std::uint32_t data_bytes) {
  const FileRequest request{static_cast<std::uint32_t>(kind), data_bytes, value};
  std::memcpy(slot.request.data(), &request, sizeof(request));
  slot.index = next_index_++;
  slot.data_bytes = data_bytes;
  slot.is_chunk = kind == FileRequestKind::kChunk;
  log_.OnSending(slot.index);
  const NTSTATUS status = VmbPacketSend(slot.packet.get(), slot.request.data(),
                                        static_cast<UINT32>(sizeof(request)) + data_bytes, nullptr,
                                        VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  if (NT_SUCCESS(status)) {
    return {};
  }
  log_.OnRefused(slot.index);
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(&slot);
  }
  // The other end may have gone between the look at it and the send.
  if (channel_.lost() || status == STATUS_INVALID_DEVICE_STATE) {
    channel_.NoteStatus(STATUS_DEVICE_REMOVED);
    return std::unexpected(WhyStopped());
  }
  return Fail(kExitFailure, "cannot send", status);
}

FileSender::Slot* FileSender::TakeFreeSlot() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    return nullptr;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  return slot;
}

bool FileSender::MustStop() const {
  if (channel_.lost() || MainWait::Get().interrupted()) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  return refusal_.has_value() || malformed_answer_;
}

// nullptr when the transfer has to stop.
FileSender::Slot* FileSender::WaitForFreeSlot(ProgressBar& progress) {
  while (!MustStop()) {
    if (Slot* slot = TakeFreeSlot()) {
      return slot;
    }
    const bool changed =
        MainWait::Get().UntilTime(std::chrono::steady_clock::now() + kRedrawEvery, [this] {
          if (MustStop()) {
            return true;
          }
          const std::lock_guard lock(mutex_);
          return !free_.empty();
        });
    progress.Update(acknowledged_bytes());
    if (!changed) {
      progress.Stalled(slots_.size());
    }
  }
  return nullptr;
}

// False when the transfer has to stop.
bool FileSender::WaitForAll(ProgressBar& progress) {
  const auto all_free = [this] {
    const std::lock_guard lock(mutex_);
    return free_.size() == slots_.size();
  };
  while (!MustStop() && !all_free()) {
    MainWait::Get().UntilTime(std::chrono::steady_clock::now() + kRedrawEvery,
                              [&] { return MustStop() || all_free(); });
    progress.Update(acknowledged_bytes());
  }
  return !MustStop();
}

VOID FileSender::OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer,
                              UINT32 buffer_bytes) {
  auto& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  slot.owner->Complete(slot, status, static_cast<const std::byte*>(buffer), buffer_bytes);
}

// The server's bytes are copied before they are looked at; a short answer counts as malformed.
void FileSender::Complete(Slot& slot, NTSTATUS status, const std::byte* answer,
                          std::size_t answer_bytes) {
  log_.OnEnded(slot.index, NT_SUCCESS(status));
  channel_.NoteStatus(status);
  FileReceipt receipt;
  const bool whole = NT_SUCCESS(status) && answer_bytes >= sizeof(FileReply);
  if (whole) {
    std::memcpy(&receipt, answer, std::min(answer_bytes, sizeof(receipt)));
  }
  if (whole && slot.is_chunk &&
      receipt.reply.status == static_cast<std::uint32_t>(FileStatus::kStored)) {
    acknowledged_bytes_.fetch_add(slot.data_bytes, std::memory_order_acq_rel);
  }
  {
    const std::lock_guard lock(mutex_);
    if (NT_SUCCESS(status)) {
      if (!whole) {
        malformed_answer_ = true;
      } else if (receipt.reply.status != static_cast<std::uint32_t>(FileStatus::kStored) &&
                 !refusal_) {
        refusal_ = receipt.reply;
      }
      receipt_ = receipt;  // the last one to come is the answer to the finish
    }
    free_.push_back(&slot);
  }
  MainWait::Get().Wake();
}

Failure FileSender::WhyStopped() const {
  const std::lock_guard lock(mutex_);
  if (channel_.lost()) {
    return {kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED};
  }
  if (refusal_) {
    std::string why = devices::FileStatusText(refusal_->status);
    if (refusal_->status == static_cast<std::uint32_t>(FileStatus::kSystem)) {
      why += fmt::format(": {}",
                         std::generic_category().message(static_cast<int>(refusal_->error_number)));
    }
    return {kExitFailure, why};
  }
  if (malformed_answer_) {
    return {kExitFailure, "the server's answer was too short"};
  }
  return {kExitInterrupted, "interrupted"};
}

}  // namespace kmcl::cli

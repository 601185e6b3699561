#include "raw_owner.h"

#include <sys/epoll.h>

#include <algorithm>
#include <string>

#include "kernel.h"

namespace kmcl::sim {
namespace {

constexpr std::size_t kMostWords = 4096 / 8;
// Those of which nobody else sends.
constexpr std::uint32_t kStream = 0;
constexpr std::int64_t kReportNs = 100'000'000;

}  // namespace

RawOwner::RawOwner(End& end) : end_(end), buffer_(kMostWords) {
  SpawnFiber(Read, this, end.process)->detached = true;
  SpawnFiber(Write, this, end.process)->detached = true;
}

void RawOwner::OnStarted() {
  reading_ = writing_ = Run::kYes;
  Changed();
}

void RawOwner::OnSuspend() {
  reading_ = Run::kNo;
  writing_ = Run::kLast;
  Changed();
  WaitUntil([this] { return !reader_inside_ && !writer_inside_; }, kNever,
            "the threads of a raw channel");
  writing_ = Run::kNo;
}

void RawOwner::OnClosed() {
  end_.outstanding_ -= owed_.size();
  owed_.clear();
  for (const std::uint64_t id : waiting_) {
    auto& message = end_.streams_[kStream].messages[id];
    message.completed = 1;
    message.status = STATUS_DEVICE_REMOVED;
    --end_.in_flight_;
  }
  waiting_.clear();
}

void RawOwner::Stop() {
  stopping_ = true;
  Changed();
  WaitUntil([this] { return threads_ == 0; }, kNever, "the end of a raw channel's threads");
}

void* RawOwner::Read(void* self) {
  const InTest test;
  static_cast<RawOwner*>(self)->ReadWhileStarted();
  return nullptr;
}
void* RawOwner::Write(void* self) {
  const InTest test;
  static_cast<RawOwner*>(self)->WriteWhileStarted();
  return nullptr;
}

// What every call may say, besides what it is for.
bool RawOwner::GoesOn(NTSTATUS status, const char* call) {
  if (status == STATUS_SUCCESS) return true;
  Note("end %llu: a raw call ends with %#llx", end_.number, static_cast<std::uint32_t>(status));
  if (status == STATUS_DEVICE_REMOVED) return false;
  if (status == STATUS_DATA_ERROR && end_.hostile) return false;
  end_.Wrong(std::string(call) + ": " + KmclStatusName(status));
}

// In the library, or on the descriptor that it gives.
bool RawOwner::SleepUntil(UINT32 direction, std::uint32_t bytes) {
  if (Choices().OneIn(2)) {
    NTSTATUS status = STATUS_SUCCESS;
    {
      const InLibrary library("KmclRawWait", end_.number);
      status = KmclRawWait(end_.handle_, direction, bytes, nullptr);
    }
    return GoesOn(status, "KmclRawWait");
  }
  NTSTATUS status = STATUS_SUCCESS;
  int fd = -1;
  {
    const InLibrary library("KmclRawArm", end_.number);
    status = KmclRawArm(end_.handle_, direction, bytes);
    fd = KmclRawGetDescriptor(end_.handle_, direction);
  }
  if (status == STATUS_MORE_PROCESSING_REQUIRED) return true;
  if (!GoesOn(status, "KmclRawArm")) return false;
  const FilePointer file = FileOf(fd);
  WaitUntil([&] { return (file->Readiness() & EPOLLIN) != 0; }, kNever,
            "a raw channel's descriptor");
  return true;
}

// ---- Incoming.

void RawOwner::ReadWhileStarted() {
  for (;;) {
    WaitUntil([this] { return stopping_ || reading_ == Run::kYes; }, kNever,
              "a raw channel's start");
    if (stopping_) break;
    reader_inside_ = true;
    bool goes_on = true;
    while (goes_on && reading_ == Run::kYes) {
      bool empty = false;
      goes_on = ReadOne(empty);
      if (!goes_on) break;
      if (empty) {
        goes_on = SleepUntil(KMCL_RAW_INCOMING, 0);
      } else if (Choices().OneIn(4)) {
        const InLibrary library("KmclRawRelease", end_.number);
        goes_on = GoesOn(KmclRawRelease(end_.handle_), "KmclRawRelease");
      }
    }
    // Who was told that it is over is told so by a suspension, too, which does not end before it is
    // seen here.
    if (!WaitUntil([this] { return reading_ == Run::kNo; }, NowNs() + kReportNs,
                   "a raw channel's suspension")) {
      end_.Wrong("a raw channel that is over is not suspended");
    }
    reader_inside_ = false;
    Changed();
  }
  --threads_;
  Changed();
}

bool RawOwner::ReadOne(bool& empty) {
  KMCL_RAW_PACKET packet{};
  NTSTATUS status = STATUS_SUCCESS;
  const bool in_place = Choices().OneIn(2);
  if (!in_place) {
    const auto bytes = static_cast<UINT32>(Choices().OneIn(8) ? 8 : buffer_.size() * 8);
    const InLibrary library("KmclRawRead", end_.number);
    status = KmclRawRead(end_.handle_, buffer_.data(), bytes, &packet);
  }
  if (in_place || status == STATUS_BUFFER_TOO_SMALL) {
    const InLibrary library("KmclRawPeek", end_.number);
    status = KmclRawPeek(end_.handle_, &packet);
  }
  empty = status == STATUS_NO_MORE_ENTRIES;
  if (empty) return true;
  if (!GoesOn(status, "a raw packet is read")) return false;
  const auto* const payload = static_cast<const std::uint64_t*>(packet.Payload);
  std::vector<std::uint64_t> words(payload, payload + packet.PayloadLength / 8);
  if (payload != buffer_.data()) {
    if (Choices().OneIn(8)) {
      WaitUntil([] { return false; }, NowNs() + Choices().Between(0, 3000), "a look at a packet");
    }
    {
      // Not taken unless it is skipped: it comes again after a pause.
      const InLibrary library("KmclRawSkip", end_.number);
      if (!GoesOn(KmclRawSkip(end_.handle_), "KmclRawSkip")) return false;
    }
    // Nobody writes there until it is given back.
    if (!end_.hostile && !std::equal(words.begin(), words.end(), payload)) {
      end_.Wrong("a packet changes while it is looked at");
    }
  }
  if (packet.Type == KMCL_RAW_COMPLETION) {
    OnCompletion(words.data(), packet.PayloadLength, packet.TransactionId);
  } else {
    if (packet.Type != KMCL_RAW_DATA && !end_.hostile) {
      end_.Wrong("a raw packet of type " + std::to_string(packet.Type));
    }
    OnData(words.data(), packet.PayloadLength, packet);
  }
  return true;
}

void RawOwner::OnData(const std::uint64_t* words, std::uint32_t bytes,
                      const KMCL_RAW_PACKET& packet) {
  const std::uint64_t name = end_.hostile ? 0 : end_.CheckPacket(words, bytes);
  if (!end_.hostile) ++end_.model_.in_place;
  if ((packet.Flags & KMCL_RAW_FLAG_COMPLETION_REQUESTED) == 0) return;
  ++end_.outstanding_;
  owed_.push_back({.transaction = packet.TransactionId, .value = name ^ End::kAnswerKey});
  Changed();
}

void RawOwner::OnCompletion(const std::uint64_t* words, std::uint32_t bytes,
                            std::uint64_t transaction) {
  if (waiting_.erase(transaction) == 0) {
    if (end_.hostile) return;
    end_.Wrong("a completion of a packet that waits for none");
  }
  const std::uint64_t id = transaction;
  auto& message = end_.streams_[kStream].messages[id];
  if (message.completed++ != 0) end_.Wrong("a packet is completed twice");
  message.status = STATUS_SUCCESS;
  if (!end_.hostile) {
    if (message.delivered != 1) end_.Wrong("a packet was completed that was not delivered");
    if (bytes != 8 || words[0] != (end_.NameOf(kStream, id) ^ End::kAnswerKey)) {
      end_.Wrong("a packet is completed with another one's answer");
    }
  }
  ++end_.model_.completed;
  --end_.in_flight_;
  Changed();
}

// ---- Outgoing.

bool RawOwner::HasSomethingToWrite() const {
  if (!owed_.empty()) return true;
  return writing_ == Run::kYes && end_.to_send_ > 0 && waiting_.size() < end_.model_.plan.slots;
}

void RawOwner::WriteWhileStarted() {
  for (;;) {
    WaitUntil([this] { return stopping_ || writing_ == Run::kYes; }, kNever,
              "a raw channel's start");
    if (stopping_) break;
    writer_inside_ = true;
    while (WriteAndFlush() && writing_ == Run::kYes) {
      WaitUntil([this] { return writing_ != Run::kYes || HasSomethingToWrite(); }, kNever,
                "something to write");
    }
    if (!WaitUntil([this] { return writing_ != Run::kYes; }, NowNs() + kReportNs,
                   "a raw channel's suspension")) {
      end_.Wrong("a raw channel that is over is not suspended");
    }
    // Writing goes on until the suspension has been told: answers still go out, as they fit.
    if (!end_.hostile) (void)WriteAndFlush();
    writer_inside_ = false;
    Changed();
    WaitUntil([this] { return writing_ != Run::kLast; }, kNever, "the end of a suspension");
  }
  --threads_;
  Changed();
}

bool RawOwner::WriteAndFlush() {
  for (;;) {
    bool full = false;
    std::uint32_t bytes = 0;
    while (!full && HasSomethingToWrite()) {
      if (!WriteNext(full, bytes)) return false;
      if (Choices().OneIn(4)) break;
    }
    {
      const InLibrary library("KmclRawFlush", end_.number);
      if (!GoesOn(KmclRawFlush(end_.handle_), "KmclRawFlush")) return false;
    }
    if (writing_ == Run::kLast && full) return true;
    if (full && !SleepUntil(KMCL_RAW_OUTGOING, bytes)) return false;
    if (!HasSomethingToWrite()) return true;
  }
}

bool RawOwner::WriteNext(bool& full, std::uint32_t& bytes) {
  std::uint64_t words[kMostWords];
  const bool answers =
      !owed_.empty() && (writing_ != Run::kYes || end_.to_send_ == 0 ||
                         waiting_.size() >= end_.model_.plan.slots || Choices().OneIn(2));
  const std::size_t which = answers ? Choices().Next() % owed_.size() : 0;
  const Answer answer = answers ? owed_[which] : Answer{};
  auto& messages = end_.streams_[kStream].messages;
  const std::uint64_t id = messages.size();
  const bool wants = !answers && Choices().Between(0, 99) < end_.model_.plan.transactions;
  if (answers) {
    words[0] = answer.value;
    bytes = 8;
  } else {
    bytes = end_.Fill(words, kStream, id);
  }
  // It may be answered before the call returns if somebody flushes: nobody does.
  NTSTATUS status = STATUS_SUCCESS;
  {
    const InLibrary library("KmclRawWrite", end_.number);
    status = KmclRawWrite(end_.handle_, answers ? KMCL_RAW_COMPLETION : KMCL_RAW_DATA,
                          wants ? KMCL_RAW_FLAG_COMPLETION_REQUESTED : 0,
                          answers ? answer.transaction : id, words, bytes);
  }
  full = status == STATUS_BUFFER_OVERFLOW;
  if (full) return true;
  if (!GoesOn(status, "KmclRawWrite")) return false;
  if (answers) {
    // Others may have been added since.
    owed_.erase(owed_.begin() + static_cast<std::ptrdiff_t>(which));
    --end_.outstanding_;
  } else {
    --end_.to_send_;
    auto& message = messages.emplace_back();
    message.wants_completion = wants;
    message.accepted = true;
    if (wants) {
      waiting_.insert(id);
      ++end_.in_flight_;
    } else {
      message.completed = 1;
      message.status = STATUS_SUCCESS;
      ++end_.model_.completed;
    }
  }
  Changed();
  return true;
}

}  // namespace kmcl::sim

// The two threads that own the rings of a raw channel (kmcl/raw.h): one reads, where the packets
// lie or into memory of its own, the other writes what is to be sent and what is owed. Neither ever
// looks again without having been woken: what is forgotten is waited for for ever.
#pragma once

#include <kmcl/raw.h>

#include <cstdint>
#include <set>
#include <vector>

#include "end.h"

namespace kmcl::sim {

class RawOwner {
 public:
  // `end` is allocated, and its process the current one.
  explicit RawOwner(End& end);
  RawOwner(const RawOwner&) = delete;
  RawOwner& operator=(const RawOwner&) = delete;

  // What the end is told.
  void OnStarted();
  void OnSuspend();  // returns once no thread uses the rings
  void OnClosed();
  // The channel is disabled, and is going to be cleaned up.
  void Stop();

 private:
  struct Answer {
    std::uint64_t transaction = 0;
    std::uint64_t value = 0;
  };
  enum class Run : std::uint8_t { kNo, kYes, kLast };  // last: what is owed, as it fits

  static void* Read(void* self);
  static void* Write(void* self);
  void ReadWhileStarted();
  void WriteWhileStarted();
  // Each of them: false, it is over.
  bool ReadOne(bool& empty);
  bool WriteAndFlush();
  bool WriteNext(bool& full, std::uint32_t& bytes);
  bool HasSomethingToWrite() const;
  bool SleepUntil(UINT32 direction, std::uint32_t bytes);
  bool GoesOn(NTSTATUS status, const char* call);
  void OnData(const std::uint64_t* words, std::uint32_t bytes, const KMCL_RAW_PACKET& packet);
  void OnCompletion(const std::uint64_t* words, std::uint32_t bytes, std::uint64_t transaction);

  End& end_;
  bool stopping_ = false;
  std::uint32_t threads_ = 2;
  Run reading_ = Run::kNo;
  Run writing_ = Run::kNo;
  bool reader_inside_ = false;
  bool writer_inside_ = false;
  std::vector<Answer> owed_;
  std::set<std::uint64_t> waiting_;  // messages, which are their transactions, too
  std::vector<std::uint64_t> buffer_;
};

}  // namespace kmcl::sim

// Which callback of the program runs on this thread, and whether one takes too long.
#pragma once

#include <kmcl/kmcl.h>

#include <chrono>
#include <cstdint>

#include "api/verifier_site.h"

namespace kmcl::api::verifier {

enum class Callback : std::uint8_t {
  kOpened,
  kClosed,
  kSuspend,
  kStarted,
  kPostStarted,
  kPnpFailure,
  kProcessPacket,
  kProcessingComplete,
  kCompletionRoutine,
};
const char* NameOf(Callback callback);

// Stands around a call of the program's function. Watches the time it takes (V13), and the level at
// which it returns (V19).
class CallbackScope {
 public:
  CallbackScope(Callback callback, VMBCHANNEL channel, const void* function);
  ~CallbackScope();
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;

  // The innermost one on this thread; nullptr outside of callbacks.
  static const CallbackScope* Current();

  Callback callback() const { return callback_; }
  VMBCHANNEL channel() const { return channel_; }
  // "EvtVmbChannelProcessPacket (OnPacket+0x0)".
  std::string Described() const;

 private:
  friend class Watchdog;

  const Callback callback_;
  const VMBCHANNEL channel_;
  const void* const function_;
  const KIRQL level_;
  const std::uint32_t thread_;
  std::chrono::steady_clock::time_point begin_;  // the watchdog's, once it has the scope
  const CallbackScope* const outer_;

  // The watchdog's, under its lock.
  CallbackScope* newer_ = nullptr;
  CallbackScope* older_ = nullptr;
  bool reported_ = false;
};

// While one stands, callbacks do not grow older: what a report takes is not their doing.
class ReportPause {
 public:
  ReportPause();
  ~ReportPause();
  ReportPause(const ReportPause&) = delete;
  ReportPause& operator=(const ReportPause&) = delete;

 private:
  const std::chrono::steady_clock::time_point begin_;
};

// Has `check` called on the verifier's own thread at a time, for what happens when nothing happens.
// It may run a little late. Any thread.
void CallAt(std::chrono::steady_clock::time_point time, void (*check)(std::uint64_t),
            std::uint64_t id);

}  // namespace kmcl::api::verifier

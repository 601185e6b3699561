#include "api/verifier_callback.h"

#include <execinfo.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <optional>
#include <semaphore>
#include <thread>
#include <vector>

#include "api/verifier_report.h"
#include "api/verifier_symbols.h"
#include "log.h"
#include "mutex.h"

namespace kmcl::api::verifier {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

thread_local CallbackScope* innermost = nullptr;

// ---- The stack of another thread, taken by a signal to it. One at a time.

struct StackRequest {
  std::atomic<std::uint32_t> thread{0};  // who is to answer
  void* frames[Site::kMostFrames + 4];
  std::atomic<int> count{0};
  std::binary_semaphore answered{0};
};
StackRequest* stack_request = nullptr;

void AnswerWithStack(int) {
  const int saved_errno = errno;
  auto self = static_cast<std::uint32_t>(syscall(SYS_gettid));
  // Whoever comes too late finds nobody asking.
  if (stack_request != nullptr && stack_request->thread.compare_exchange_strong(self, 0)) {
    stack_request->count.store(backtrace(stack_request->frames, Site::kMostFrames + 4));
    stack_request->answered.release();
  }
  errno = saved_errno;
}

// The highest signal that nobody else handles; 0 if there is none.
int ChooseSignal() {
  for (int number = SIGRTMAX - 1; number >= SIGRTMIN; --number) {
    struct sigaction action{};
    if (sigaction(number, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
    action = {};
    action.sa_handler = &AnswerWithStack;
    action.sa_flags = SA_RESTART;
    if (sigaction(number, &action, nullptr) == 0) return number;
  }
  return 0;
}

Site StackOf(std::uint32_t thread, steady_clock::time_point begin) {
  static const int signal_number = [] {
    stack_request = new StackRequest;
    return ChooseSignal();
  }();
  Site site;
  site.thread = thread;
  site.at = begin;
  if (signal_number == 0) return site;
  stack_request->thread.store(thread);
  bool answered = false;
  if (syscall(SYS_tgkill, getpid(), thread, signal_number) == 0) {
    answered = stack_request->answered.try_acquire_for(milliseconds(500));
  }
  if (!answered) {
    std::uint32_t asked = thread;
    if (stack_request->thread.compare_exchange_strong(asked, 0)) return site;
    stack_request->answered.acquire();  // it has taken the request at the last moment
  }
  constexpr int kOfTheSignal = 2;  // the handler, and what the kernel returns to
  const int count = stack_request->count.load();
  site.count = std::clamp(count - kOfTheSignal, 0, Site::kMostFrames);
  std::copy_n(stack_request->frames + std::min(count, kOfTheSignal), site.count,
              site.frames.begin());
  return site;
}

milliseconds LimitAt(KIRQL level, const KMCL_VERIFIER_OPTIONS& options) {
  return milliseconds(level >= DISPATCH_LEVEL ? options.CallbackMilliseconds
                                              : options.PassiveMilliseconds);
}

std::string DescribeCallback(Callback callback, const void* function) {
  return std::string(NameOf(callback)) +
         (function == nullptr ? "" : " (" + Describe(function) + ")");
}

}  // namespace

// One thread for all channels, from the first callback on. It sleeps while nothing is under way.
class Watchdog {
 public:
  static Watchdog& Get() {
    static auto* const watchdog = new Watchdog;
    return *watchdog;
  }

  void Add(CallbackScope& scope) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    scope.older_ = newest_;
    if (newest_ != nullptr) newest_->newer_ = &scope;
    newest_ = &scope;
    Wake();
  }
  void Remove(CallbackScope& scope) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (scope.older_ != nullptr) scope.older_->newer_ = scope.newer_;
    (scope.newer_ == nullptr ? newest_ : scope.newer_->older_) = scope.older_;
  }
  void BeginReport() KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ++reports_;
  }
  void EndReport(steady_clock::time_point begin) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    --reports_;
    const auto now = steady_clock::now();
    for (CallbackScope* scope = newest_; scope != nullptr; scope = scope->older_) {
      scope->begin_ += now - std::max(begin, scope->begin_);
    }
  }
  void Add(steady_clock::time_point time, void (*check)(std::uint64_t), std::uint64_t id)
      KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    calls_.push_back({time, check, id});
    Wake();
  }

 private:
  struct Call {
    steady_clock::time_point time;
    void (*check)(std::uint64_t);
    std::uint64_t id;
  };
  struct Slow {
    Callback callback;
    VMBCHANNEL channel;
    const void* function;
    KIRQL level;
    std::uint32_t thread;
    steady_clock::time_point begin;
    milliseconds limit;
  };

  void Wake() KMCL_REQUIRES(mutex_) {
    if (!started_) {
      try {
        std::thread([this] { Run(); }).detach();
      } catch (const std::exception&) {
        Log(LogLevel::kWarning, "the verifier has no thread: V02 and V13 are not checked");
      }
      started_ = true;
    }
    // It looks again soon by itself while it waits for anything.
    if (asleep_) changed_.NotifyOne();
  }

  // A callback that is too old, once. Marks it.
  std::optional<Slow> TakeSlow(const KMCL_VERIFIER_OPTIONS& options) KMCL_REQUIRES(mutex_) {
    if (reports_ != 0) return std::nullopt;
    const auto now = steady_clock::now();
    for (CallbackScope* scope = newest_; scope != nullptr; scope = scope->older_) {
      const milliseconds limit = LimitAt(scope->level_, options);
      if (scope->reported_ || limit.count() == 0 || now - scope->begin_ < limit) continue;
      scope->reported_ = true;
      return Slow{scope->callback_,
                  scope->channel_,
                  scope->function_,
                  scope->level_,
                  scope->thread_,
                  scope->begin_,
                  limit};
    }
    return std::nullopt;
  }

  std::optional<Call> TakeCall() KMCL_REQUIRES(mutex_) {
    const auto now = steady_clock::now();
    const auto due = std::find_if(calls_.begin(), calls_.end(),
                                  [now](const Call& call) { return call.time <= now; });
    if (due == calls_.end()) return std::nullopt;
    const Call call = *due;
    calls_.erase(due);
    return call;
  }

  static void Tell(const Slow& slow) {
    const auto ran = std::chrono::duration_cast<milliseconds>(steady_clock::now() - slow.begin);
    Violation(
        KmclCheckSlowCallback,
        Format("%s at %s has run for %lld ms; the limit is %lld ms.",
               DescribeCallback(slow.callback, slow.function).c_str(),
               slow.level >= DISPATCH_LEVEL ? "DISPATCH_LEVEL" : "PASSIVE_LEVEL",
               static_cast<long long>(ran.count()), static_cast<long long>(slow.limit.count())))
        .Channel(slow.channel)
        .Object(slow.function)
        .Now("Called", StackOf(slow.thread, slow.begin))
        .Report();
  }

  [[noreturn]] void Run() KMCL_EXCLUDES(mutex_) {
    constexpr milliseconds kBetweenLooks(20);
    for (;;) {
      const KMCL_VERIFIER_OPTIONS options = CurrentOptions();
      std::optional<Slow> slow;
      std::optional<Call> call;
      {
        MutexLock lock(mutex_);
        for (;;) {
          slow = TakeSlow(options);
          call = TakeCall();
          if (slow || call) break;
          asleep_ = newest_ == nullptr && calls_.empty();
          if (asleep_) {
            changed_.Wait(mutex_);
          } else {
            changed_.WaitUntil(mutex_, steady_clock::now() + kBetweenLooks);
          }
          asleep_ = false;
        }
      }
      if (slow) Tell(*slow);
      if (call) call->check(call->id);
    }
  }

  Mutex mutex_;
  CondVar changed_;
  bool started_ KMCL_GUARDED_BY(mutex_) = false;
  bool asleep_ KMCL_GUARDED_BY(mutex_) = false;
  CallbackScope* newest_ KMCL_GUARDED_BY(mutex_) = nullptr;
  int reports_ KMCL_GUARDED_BY(mutex_) = 0;  // under way
  std::vector<Call> calls_ KMCL_GUARDED_BY(mutex_);
};

const char* NameOf(Callback callback) {
  switch (callback) {
    case Callback::kOpened:
      return "EvtVmbChannelOpened";
    case Callback::kClosed:
      return "EvtVmbChannelClosed";
    case Callback::kSuspend:
      return "EvtVmbChannelSuspend";
    case Callback::kStarted:
      return "EvtVmbChannelStarted";
    case Callback::kPostStarted:
      return "EvtVmbChannelPostStarted";
    case Callback::kPnpFailure:
      return "EvtChannelPnpFailure";
    case Callback::kProcessPacket:
      return "EvtVmbChannelProcessPacket";
    case Callback::kProcessingComplete:
      return "EvtVmbChannelProcessingComplete";
    case Callback::kCompletionRoutine:
      return "EvtVmbPacketCompletionRoutine";
  }
  return "";
}

CallbackScope::CallbackScope(Callback callback, VMBCHANNEL channel, const void* function)
    : callback_(callback),
      channel_(channel),
      function_(function),
      level_(KeGetCurrentIrql()),
      thread_(static_cast<std::uint32_t>(syscall(SYS_gettid))),
      begin_(steady_clock::now()),
      outer_(innermost) {
  innermost = this;
  Watchdog::Get().Add(*this);
}

CallbackScope::~CallbackScope() {
  Watchdog::Get().Remove(*this);
  innermost = const_cast<CallbackScope*>(outer_);
  const KIRQL level = KeGetCurrentIrql();
  if (level == level_) return;
  Violation(
      KmclCheckLevelChanged,
      Format("%s was entered at level %d and has returned at level %d%s.", Described().c_str(),
             int{level_}, int{level},
             level > level_ ? ": a spin lock was not released, or KeLowerIrql is missing" : ""))
      .Channel(channel_)
      .Object(function_)
      .Now("Returned to", Here(nullptr))
      .Report();
  KIRQL old = 0;
  if (level > level_) {
    KeLowerIrql(level_);
  } else {
    KeRaiseIrql(level_, &old);
  }
}

const CallbackScope* CallbackScope::Current() { return innermost; }

std::string CallbackScope::Described() const { return DescribeCallback(callback_, function_); }

ReportPause::ReportPause() : begin_(steady_clock::now()) { Watchdog::Get().BeginReport(); }
ReportPause::~ReportPause() { Watchdog::Get().EndReport(begin_); }

void CallAt(steady_clock::time_point time, void (*check)(std::uint64_t), std::uint64_t id) {
  Watchdog::Get().Add(time, check, id);
}

}  // namespace kmcl::api::verifier

// Where the two ends of a measurement meet: memory that both see, what they are to do, and what
// they found. Also the loops that every contender's stream and round trip go through, so that all
// of them stamp, check and time the same.
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace kmcl::bench {

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline std::uint64_t Nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// The cheapest clock; its unit is measured at the start (Plan::nanoseconds_per_tick).
inline std::uint64_t Ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return Nanoseconds();
#endif
}

inline void Keep(std::uint64_t value) { asm volatile("" : : "r"(value) : "memory"); }

inline constexpr std::array kQuantiles = {0.01, 0.05, 0.10, 0.25, 0.50,
                                          0.75, 0.90, 0.95, 0.99, 0.999};

// What a cell found. Lies in shared memory, so it is plain.
struct Findings {
  double per_second = 0;  // messages, transactions or transfers
  std::uint64_t messages = 0;
  bool has_latencies = false;
  std::array<double, kQuantiles.size()> nanoseconds{};  // by kQuantiles
  double median_nanoseconds = 0;  // of the means of a few in a row: finer than the clock's steps
  struct Extra {
    char name[32];
    double value;
  };
  std::array<Extra, 8> extras{};
  std::uint32_t extra_count = 0;
};

struct Plan {
  std::uint64_t warm_nanoseconds = 0;
  std::uint64_t nanoseconds = 0;
  double nanoseconds_per_tick = 1;
  int near_cpu = 0;
  int far_cpu = 1;
};

class Stage {
 public:
  explicit Stage(const Plan& plan) : plan_(plan) {}

  const Plan& plan() const { return plan_; }
  Findings& findings() { return findings_; }
  bool failed() const { return failed_.load(std::memory_order_acquire) != 0; }
  const char* failure() const { return failure_; }

  // Waits until both ends are here.
  void Meet() {
    const std::uint32_t mine = arrived_.fetch_add(1, std::memory_order_acq_rel);
    const std::uint32_t until = mine / 2 * 2 + 2;
    for (int i = 0; arrived_.load(std::memory_order_acquire) < until; ++i) {
      if (i < 100) {
        sched_yield();
      } else {
        Nap(50'000);
      }
    }
  }
  // The same for an end whose own thread has nothing to do meanwhile, and takes no time for it.
  void MeetAsleep() {
    const std::uint32_t mine = arrived_.fetch_add(1, std::memory_order_acq_rel);
    const std::uint32_t until = mine / 2 * 2 + 2;
    while (arrived_.load(std::memory_order_acquire) < until) Nap(5'000'000);
  }

  // Where the receiving end says when it is enough.
  void CallOver() { over_.store(true, std::memory_order_release); }
  bool over() const { return over_.load(std::memory_order_acquire); }

  // Ends this end, and with it the cell. The first reason is kept.
  [[noreturn]] void Fail(std::string_view why);

  // How long the calling thread was kept from running between the two calls; the longest of all
  // threads that call counts. Not the time in which it slept.
  void BeginDelays();
  void NoteDelays();
  std::uint64_t delayed_nanoseconds() const { return delayed_.load(std::memory_order_relaxed); }

  void Extra(std::string_view name, double value) {
    if (findings_.extra_count == findings_.extras.size()) return;
    auto& extra = findings_.extras[findings_.extra_count++];
    std::snprintf(extra.name, sizeof(extra.name), "%.*s", static_cast<int>(name.size()),
                  name.data());
    extra.value = value;
  }

  static void Nap(long nanoseconds) {
    const timespec time{.tv_sec = nanoseconds / 1'000'000'000,
                        .tv_nsec = nanoseconds % 1'000'000'000};
    nanosleep(&time, nullptr);
  }

 private:
  const Plan plan_;
  alignas(128) std::atomic<std::uint32_t> arrived_{0};
  alignas(128) std::atomic<std::uint32_t> failed_{0};
  std::atomic<std::uint64_t> delayed_{0};
  std::atomic<bool> over_{false};
  char failure_[240] = {};
  Findings findings_;
};

// The first eight bytes of each message: its number, or'ed with this in the last one of all.
inline constexpr std::uint64_t kLast = std::uint64_t{1} << 63;
inline constexpr std::size_t kLineBytes = 64;

// A message to send, and to be copied by whoever sends it.
class Message {
 public:
  explicit Message(std::size_t bytes) : bytes_(std::max(bytes, sizeof(std::uint64_t))) {
    for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i);
  }
  void Stamp(std::uint64_t number) { std::memcpy(bytes_.data(), &number, sizeof(number)); }
  std::byte* data() { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

// Reads the number, and one word of each further cache line.
inline std::uint64_t ReadMessage(const void* message, std::size_t bytes) {
  const auto* const data = static_cast<const std::byte*>(message);
  std::uint64_t number;
  std::memcpy(&number, data, sizeof(number));
  std::uint64_t sum = 0;
  for (std::size_t at = kLineBytes; at + sizeof(sum) <= bytes; at += kLineBytes) {
    std::uint64_t word;
    std::memcpy(&word, data + at, sizeof(word));
    sum += word;
  }
  Keep(sum);
  return number;
}

// The sending end of a stream: until the time is up, and then the last message.
// send(std::byte* message) takes one; flush() shows the other end what it may have held back.
template <class Send, class Flush>
void SendStream(Stage& stage, std::size_t bytes, Send&& send, Flush&& flush) {
  const std::uint64_t clock_every = bytes >= 65536 ? 4 : bytes >= 4096 ? 64 : 512;
  Message message(bytes);
  stage.Meet();
  stage.BeginDelays();
  const std::uint64_t end =
      Nanoseconds() + stage.plan().warm_nanoseconds + stage.plan().nanoseconds;
  std::uint64_t number = 0;
  do {
    for (std::uint64_t i = 0; i < clock_every; ++i) {
      message.Stamp(number++);
      send(message.data());
    }
  } while (Nanoseconds() < end);
  message.Stamp(number | kLast);
  send(message.data());
  flush();
  stage.NoteDelays();
}

// The receiving end of a stream: checks each message, and measures from the end of the warm-up to
// the last one.
class Inflow {
 public:
  Inflow(Stage& stage, std::size_t bytes)
      : stage_(stage),
        bytes_(bytes),
        clock_every_(bytes >= 65536  ? 4
                     : bytes >= 4096 ? 64
                                     : 512) {}

  void Begin() {
    stage_.Meet();
    warm_until_ = Nanoseconds() + stage_.plan().warm_nanoseconds;
  }

  // False: that was the last one; all is recorded.
  [[gnu::always_inline]] bool Take(const void* message, std::size_t bytes) {
    const std::uint64_t number = ReadMessage(message, bytes);
    if (number != next_ || bytes < bytes_) [[unlikely]] {
      return OddMessage(number, bytes);
    }
    ++next_;
    if (next_ % clock_every_ == 0 && begun_ == 0) [[unlikely]] {
      LookAtTheClock();
    }
    return true;
  }

  std::uint64_t taken() const { return next_; }

 private:
  [[gnu::noinline]] void LookAtTheClock() {
    const std::uint64_t now = Nanoseconds();
    if (now < warm_until_) return;
    stage_.BeginDelays();
    begun_ = Nanoseconds();
    counted_from_ = next_;
  }
  [[gnu::noinline]] bool OddMessage(std::uint64_t number, std::size_t bytes);

  Stage& stage_;
  const std::size_t bytes_;
  const std::uint64_t clock_every_;
  std::uint64_t next_ = 0;
  std::uint64_t warm_until_ = 0;
  std::uint64_t begun_ = 0;
  std::uint64_t counted_from_ = 0;
};

// Latencies in ticks, and their quantiles.
class Latencies {
 public:
  Latencies() : samples_(kMost) {  // touches every page
    means_.reserve(kMost / 8);
  }
  void Record(std::uint64_t ticks) {
    if (count_ < kMost) {
      samples_[count_++] = static_cast<std::uint32_t>(std::min<std::uint64_t>(ticks, UINT32_MAX));
    }
  }
  // `count` round trips took `ticks` in all.
  void RecordTogether(std::uint64_t ticks, int count) {
    means_.push_back(static_cast<double>(ticks) / count);
  }
  void Report(Stage& stage);

 private:
  static constexpr std::size_t kMost = std::size_t{1} << 21;
  std::vector<std::uint32_t> samples_;
  std::size_t count_ = 0;
  std::vector<double> means_;
};

// The asking end of a round trip. exchange(std::byte* message) sends it and returns the number in
// the answer.
template <class Exchange>
void Ask(Stage& stage, std::size_t bytes, Exchange&& exchange) {
  Latencies latencies;
  Message message(bytes);
  stage.Meet();
  stage.BeginDelays();
  const std::uint64_t begin = Nanoseconds();
  const std::uint64_t warm_until = begin + stage.plan().warm_nanoseconds;
  const std::uint64_t end = warm_until + stage.plan().nanoseconds;
  std::uint64_t number = 0;
  const auto once = [&](std::uint64_t flag) {
    message.Stamp(number | flag);
    const std::uint64_t asked = Ticks();
    const std::uint64_t answer = exchange(message.data());
    const std::uint64_t answered = Ticks();
    if (answer != (number | flag)) stage.Fail("an answer was wrong");
    ++number;
    return answered - asked;
  };
  while (Nanoseconds() < warm_until) once(0);
  // By turns a few timed one by one, for the quantiles, and a few timed together: clocks tick in
  // steps that are coarse beside a round trip, and reading them takes time.
  constexpr int kTogether = 16;
  for (std::uint64_t now = warm_until; now < end; now = Nanoseconds()) {
    for (int i = 0; i < kTogether; ++i) latencies.Record(once(0));
    const std::uint64_t begun = Ticks();
    for (int i = 0; i < kTogether; ++i) {
      message.Stamp(number);
      if (exchange(message.data()) != number) stage.Fail("an answer was wrong");
      ++number;
    }
    latencies.RecordTogether(Ticks() - begun, kTogether);
  }
  once(kLast);
  stage.NoteDelays();
  latencies.Report(stage);
}

// How a polling reader of any contender may wait for more: it leaves the writer alone for up to 32
// pauses while traffic is dense, that is when it has just read several messages at once, and looks
// again at once otherwise. A round trip never waits by it.
class Backoff {
 public:
  explicit Backoff(bool enabled) : enabled_(enabled) {}
  void Took() { ++burst_; }
  void Empty() {
    if (enabled_ && burst_ >= kDense) {
      for (int i = 0; i < 32; ++i) Pause();
    } else if (burst_ == 0) {
      Pause();
    }
    burst_ = 0;
  }

 private:
  static constexpr std::uint32_t kDense = 2;
  const bool enabled_;
  std::uint32_t burst_ = 0;
};

}  // namespace kmcl::bench

// What a packet costs in the ring room alone: time, instructions and bells.
//
//   ring_benchmark                       Google Benchmark; all its flags work
//   ring_benchmark --kmcl_count=N [--kmcl_bytes=64] [--kmcl_batch=1] [--kmcl_general=0]
//                                        exactly N packets on one thread and no output, for
//                                        valgrind; by the short way of data without a header, or
//                                        by the general one. script/ring-instructions runs it
//
// Times compare only within one run. Instructions repeat everywhere, and so nearly do bells. Every
// packet's number is checked on arrival; a wrong one ends the benchmark with an error.
#include <benchmark/benchmark.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_test_memory.h"

namespace {

using kmcl::ring::Bell;
using kmcl::ring::IncomingRing;
using kmcl::ring::Mapped;
using kmcl::ring::OutgoingRing;
using kmcl::ring::RingMemory;
using kmcl::ring::WriteOutcome;

constexpr std::uint32_t kRingBytes = 256 * 1024;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void PinTo(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu % std::thread::hardware_concurrency(), &set);
  sched_setaffinity(0, sizeof(set), &set);  // a wish; without it the figures only wobble more
}

// Instructions of this thread in user space, if the machine counts them.
class InstructionCounter {
 public:
  InstructionCounter() {
    perf_event_attr attributes{};
    attributes.size = sizeof(attributes);
    attributes.type = PERF_TYPE_HARDWARE;
    attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    fd_ = static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
  }
  ~InstructionCounter() {
    if (fd_ >= 0) close(fd_);
  }
  InstructionCounter(const InstructionCounter&) = delete;
  InstructionCounter& operator=(const InstructionCounter&) = delete;

  bool available() const { return fd_ >= 0; }
  std::uint64_t Read() const {
    std::uint64_t count = 0;
    if (fd_ < 0 || read(fd_, &count, sizeof(count)) != sizeof(count)) return 0;
    return count;
  }

 private:
  int fd_;
};

struct RingPair {
  RingPair()
      : memory(kRingBytes, Mapped::kTwice),
        outgoing(OutgoingRing::Create(memory.pages()).value()),
        incoming(IncomingRing::Create(memory.pages()).value()) {}
  RingMemory memory;
  OutgoingRing outgoing;
  IncomingRing incoming;
};

kmcl::ring::PacketParts Numbered(std::uint64_t number, std::span<const std::byte> payload) {
  return {.type = kmcl::wire::PacketType::kDataInBand,
          .flags = 0,
          .transaction_id = number,
          .payload = payload};
}

// One after the other on one thread: `batch` packets in, as many out. False: a packet was wrong.
class OneThread {
 public:
  explicit OneThread(std::size_t payload_bytes) : payload_(payload_bytes), buffer_(kRingBytes) {}

  // Inlined into loops that know `batch`: what is measured is the ring, not its harness.
  [[gnu::always_inline]] bool Run(int batch) {
    for (int i = 0; i < batch; ++i) {
      const auto outcome = pair_.outgoing.Write(Numbered(sent_++, payload_));
      if (!outcome || *outcome != WriteOutcome::kWritten) return false;
    }
    benchmark::DoNotOptimize(pair_.outgoing.Publish());
    for (int i = 0; i < batch; ++i) {
      const auto packet = pair_.incoming.Read(buffer_);
      if (!packet || !*packet || (*packet)->transaction_id != received_++) return false;
    }
    if (pair_.incoming.release_due()) benchmark::DoNotOptimize(pair_.incoming.Release());
    return true;
  }

  // The same by the short way, which a channel goes with most of its packets, and as it does: short
  // ones are copied without a call. The harness has its things in registers: `number` of the next
  // packet, its payload, and the reader's buffer.
  template <OutgoingRing::Length kLength, int kBatch>
  [[gnu::always_inline]] bool RunPlain(std::uint64_t number, const std::byte* payload,
                                       std::uint32_t bytes, std::byte* buffer) {
    constexpr auto kKind = OutgoingRing::PlainKind(kmcl::wire::PacketType::kDataInBand, 0);
    for (unsigned i = 0; i < kBatch; ++i) {
      const bool placed = pair_.outgoing.WritePlain<kLength>(kKind, number + i, payload, bytes);
      // It does not look for room that has been given back meanwhile.
      if (!placed && !Write(number + i)) [[unlikely]]
        return false;
    }
    benchmark::DoNotOptimize(pair_.outgoing.PublishWritten());
    for (unsigned i = 0; i < kBatch; ++i) {
      kmcl::ring::PlainPacket packet;
      if (pair_.incoming.ReadPlain(buffer, kRingBytes, packet) != IncomingRing::Plain::kRead ||
          packet.transaction_id != number + i) [[unlikely]] {
        return false;
      }
    }
    if (pair_.incoming.release_due()) benchmark::DoNotOptimize(pair_.incoming.Release());
    return true;
  }
  std::span<const std::byte> payload() const { return payload_; }
  std::byte* buffer() { return buffer_.data(); }

 private:
  [[gnu::noinline]] bool Write(std::uint64_t number) {
    const auto outcome = pair_.outgoing.Write(Numbered(number, payload_));
    return outcome && *outcome == WriteOutcome::kWritten;
  }

  RingPair pair_;
  std::vector<std::byte> payload_;
  std::vector<std::byte> buffer_;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
};

template <int kBatch>
void WriteAndRead(benchmark::State& state) {
  OneThread ring(static_cast<std::size_t>(state.range(0)));
  const InstructionCounter counter;
  const std::uint64_t before = counter.Read();
  for (auto _ : state) {
    if (!ring.Run(kBatch)) {
      state.SkipWithError("a packet was lost or damaged");
      break;
    }
  }
  const std::uint64_t instructions = counter.Read() - before;
  const auto packets = static_cast<double>(state.iterations()) * kBatch;
  state.SetItemsProcessed(static_cast<std::int64_t>(packets));
  state.counters["s/packet"] =
      benchmark::Counter(packets, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  if (counter.available()) {
    state.counters["instructions/packet"] = static_cast<double>(instructions) / packets;
  } else {
    state.SetLabel("no instruction counter here: run script/ring-instructions");
  }
}
BENCHMARK(WriteAndRead<1>)->ArgName("bytes")->Arg(8)->Arg(64)->Arg(256)->Arg(1024)->Arg(4096);
BENCHMARK(WriteAndRead<32>)->ArgName("bytes")->Arg(8)->Arg(64)->Arg(256)->Arg(1024)->Arg(4096);

class Sleeper {
 public:
  Sleeper() : fd_(eventfd(0, EFD_CLOEXEC)) {}
  ~Sleeper() { close(fd_); }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  void Wake() { eventfd_write(fd_, 1); }
  void Sleep() {
    eventfd_t count;
    eventfd_read(fd_, &count);
  }

 private:
  int fd_;
};

// How the reader waits for more.
enum ReaderManner : std::int64_t {
  kPolls,     // looks at the write index again at once, never sleeps
  kBacksOff,  // pauses up to 32 times first, never sleeps
  kSleeps,    // pauses up to 32 times, then unmasks and sleeps
};

// Reads until `done` and the ring is empty. False: a packet was wrong.
bool Drain(IncomingRing& ring, ReaderManner manner, Sleeper& asleep, Sleeper& writer,
           const std::atomic<bool>& done, std::uint64_t& space_bells) {
  std::vector<std::byte> buffer(kRingBytes);
  std::uint64_t received = 0;
  const auto release = [&] {
    if (ring.Release() != Bell::kRing) return;
    ++space_bells;
    writer.Wake();
  };
  for (;;) {
    const auto packet = ring.Read(buffer);
    if (!packet) return false;
    if (*packet) {
      if ((*packet)->transaction_id != received++) return false;
      if (ring.release_due()) release();
      continue;
    }
    release();
    if (manner != kPolls) {
      for (int i = 0; i < 32; ++i) Pause();
      if (!ring.Empty()) continue;
    }
    if (done.load(std::memory_order_acquire)) {
      if (ring.Empty()) return true;
      continue;
    }
    if (manner != kSleeps) continue;
    const auto still_empty = ring.UnmaskAndCheck();
    if (!still_empty) return false;
    if (*still_empty) asleep.Sleep();
    ring.Mask();
  }
}

void Stream(benchmark::State& state) {
  const auto manner = static_cast<ReaderManner>(state.range(2));
  const std::int64_t batch = state.range(1);
  const std::vector<std::byte> payload(static_cast<std::size_t>(state.range(0)));
  const std::uint32_t packet_bytes = OutgoingRing::PacketBytes(0, payload.size());
  RingPair pair;
  Sleeper reader, writer;
  std::atomic<bool> done = false, reader_failed = false;
  std::uint64_t sent = 0, data_bells = 0, space_bells = 0;

  PinTo(0);
  std::thread consumer([&] {
    PinTo(1);
    if (!Drain(pair.incoming, manner, reader, writer, done, space_bells)) {
      reader_failed = true;
      writer.Wake();
    }
  });
  const auto publish = [&] {
    if (pair.outgoing.Publish() != Bell::kRing) return;
    ++data_bells;
    reader.Wake();
  };
  // False: the ring or the reader failed.
  const auto send = [&] {
    for (;;) {
      const auto outcome = pair.outgoing.Write(Numbered(sent, payload));
      if (!outcome || reader_failed) return false;
      if (*outcome == WriteOutcome::kWritten) break;
      publish();
      const auto fits = pair.outgoing.RequestSpaceBell(packet_bytes);
      if (!fits) return false;
      if (!*fits) writer.Sleep();
      pair.outgoing.WithdrawSpaceBell();
    }
    ++sent;
    return true;
  };
  bool good = true;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < batch && good; ++i) good = send();
    publish();
    if (!good) break;
  }
  done.store(true, std::memory_order_release);
  reader.Wake();
  consumer.join();

  if (!good || reader_failed) state.SkipWithError("a packet was lost or damaged");
  const auto thousands = static_cast<double>(sent) / 1000;
  state.SetItemsProcessed(static_cast<std::int64_t>(sent));
  state.counters["s/packet"] = benchmark::Counter(
      static_cast<double>(sent), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["data_bells/1000"] = static_cast<double>(data_bells) / thousands;
  state.counters["space_bells/1000"] = static_cast<double>(space_bells) / thousands;
  constexpr const char* kManners[] = {"reader polls", "reader backs off", "reader sleeps"};
  state.SetLabel(kManners[manner]);
}
BENCHMARK(Stream)
    ->ArgNames({"bytes", "batch", "reader"})
    ->ArgsProduct({{64, 4096}, {1, 32}, {kPolls, kBacksOff, kSleeps}})
    ->UseRealTime()
    ->MinTime(0.3);

// A packet there and one back, both sides polling.
void RoundTrip(benchmark::State& state) {
  const std::vector<std::byte> payload(static_cast<std::size_t>(state.range(0)));
  RingPair there, back;
  std::atomic<bool> done = false;
  PinTo(0);
  std::thread echo([&] {
    PinTo(1);
    std::vector<std::byte> buffer(kRingBytes);
    while (!done.load(std::memory_order_relaxed)) {
      if (there.incoming.Empty()) continue;
      const auto packet = there.incoming.Read(buffer);
      if (!packet || !*packet) return;
      const auto outcome =
          back.outgoing.Write(Numbered((*packet)->transaction_id, (*packet)->payload));
      if (!outcome || *outcome != WriteOutcome::kWritten) return;
      benchmark::DoNotOptimize(back.outgoing.Publish());
      if (there.incoming.release_due()) benchmark::DoNotOptimize(there.incoming.Release());
    }
  });
  std::vector<std::byte> buffer(kRingBytes);
  std::uint64_t number = 0;
  for (auto _ : state) {
    const auto outcome = there.outgoing.Write(Numbered(number, payload));
    bool good = outcome && *outcome == WriteOutcome::kWritten;
    benchmark::DoNotOptimize(there.outgoing.Publish());
    while (good && back.incoming.Empty()) {
    }
    const auto packet = back.incoming.Read(buffer);
    good = good && packet && *packet && (*packet)->transaction_id == number++;
    if (back.incoming.release_due()) benchmark::DoNotOptimize(back.incoming.Release());
    if (!good) {
      state.SkipWithError("a packet was lost or damaged");
      break;
    }
  }
  done.store(true, std::memory_order_relaxed);
  echo.join();
  state.SetLabel("both poll");
}
BENCHMARK(RoundTrip)->ArgName("bytes")->Arg(64)->Arg(4096)->UseRealTime()->MinTime(0.3);

// The value of --kmcl_NAME=VALUE, or `otherwise`.
long Option(int argc, char** argv, std::string_view name, long otherwise) {
  const std::string prefix = "--kmcl_" + std::string(name) + "=";
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(prefix)) {
      return std::strtol(argv[i] + prefix.size(), nullptr, 10);
    }
  }
  return otherwise;
}

enum class Way : std::uint8_t { kGeneral, kShort, kShortAndNoCalls };

// Not a part of main: the compiler takes that for code that runs once, and makes it small instead
// of fast.
template <int kBatch, Way kWay>
[[gnu::noinline, gnu::hot]] bool RunCount(long count, std::size_t payload_bytes) {
  using Length = OutgoingRing::Length;
  constexpr Length kLength = kWay == Way::kShort ? Length::kAny : Length::kShort;
  OneThread ring(payload_bytes);
  const std::byte* const payload = ring.payload().data();
  const auto bytes = static_cast<std::uint32_t>(payload_bytes);
  std::byte* const buffer = ring.buffer();
  for (long done = 0; done < count; done += kBatch) {
    const bool good = kWay == Way::kGeneral
                          ? ring.Run(kBatch)
                          : ring.RunPlain<kLength, kBatch>(static_cast<std::uint64_t>(done),
                                                           payload, bytes, buffer);
    if (!good) return false;
  }
  return true;
}

// Rounds `count` up to whole batches. False: a packet was wrong.
template <Way kWay>
bool RunCount(long count, std::size_t payload_bytes, long batch) {
  return batch == 1 ? RunCount<1, kWay>(count, payload_bytes)
                    : RunCount<32, kWay>(count, payload_bytes);
}

int RunCount(long count, long payload_bytes, long batch, bool general) {
  if (payload_bytes < 0 || payload_bytes > 4096 || (batch != 1 && batch != 32)) {
    std::fprintf(stderr, "ring_benchmark: --kmcl_bytes is 0 to 4096, --kmcl_batch 1 or 32\n");
    return 2;
  }
  const auto bytes = static_cast<std::size_t>(payload_bytes);
  if (general                                 ? RunCount<Way::kGeneral>(count, bytes, batch)
      : bytes <= kmcl::ring::kInlineCopyBytes ? RunCount<Way::kShortAndNoCalls>(count, bytes, batch)
                                              : RunCount<Way::kShort>(count, bytes, batch)) {
    return 0;
  }
  std::fprintf(stderr, "ring_benchmark: a packet was lost or damaged\n");
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const long count = Option(argc, argv, "count", -1);
  if (count >= 0) {
    return RunCount(count, Option(argc, argv, "bytes", 64), Option(argc, argv, "batch", 1),
                    Option(argc, argv, "general", 0) != 0);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

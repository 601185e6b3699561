// What a packet costs beside other channels, and what waiting costs: two processes on one bus, its
// server's end a child, its client's this one. Prints a line for each row; times are of this
// machine and this minute, so each row that is a goal stands beside what it is compared with.
//
//   kmcl_scaling [ROW...]    rows: probe, waits, one-busy, all-busy, quiet, idle; all without one
#include <fcntl.h>
#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr GUID kType = {
    0x6d1f5ab2, 0x08c7, 0x4a55, {0xb4, 0x33, 0x7e, 0x10, 0x9c, 0xd2, 0x61, 0x0f}};
constexpr UINT32 kPayloadBytes = 64;
constexpr UINT32 kRingPages = 5;

GUID InstanceOf(std::uint32_t number) {
  GUID instance = kType;
  instance.Data1 = number + 1;
  return instance;
}

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "kmcl_scaling: %s\n", what);
  std::exit(EXIT_FAILURE);
}
void Require(NTSTATUS status, const char* what) {
  if (status == STATUS_SUCCESS) return;
  std::fprintf(stderr, "kmcl_scaling: %s: %s\n", what, KmclStatusName(status));
  std::exit(EXIT_FAILURE);
}

std::int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

struct Percentiles {
  double p50 = 0;
  double p99 = 0;
};
Percentiles Of(std::vector<std::int64_t>& nanoseconds) {
  Require(!nanoseconds.empty(), "no measurements");
  std::ranges::sort(nanoseconds);
  const auto at = [&](double part) {
    return static_cast<double>(
        nanoseconds[static_cast<std::size_t>(part * static_cast<double>(nanoseconds.size() - 1))]);
  };
  return {.p50 = at(0.50), .p99 = at(0.99)};
}

void PinTo(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

// Two threads on two processors, where there are two.
template <typename A, typename B>
void RunPinned(A here, B there) {
  std::thread first([&] {
    PinTo(0);
    here();
  });
  std::thread second([&] {
    PinTo(1);
    there();
  });
  first.join();
  second.join();
}

// What a program that knows nothing of kmcl gets on this machine.
class Probe {
 public:
  static double CacheLineRoundTrip() {
    alignas(64) static std::atomic<std::uint32_t> there{0};
    alignas(64) static std::atomic<std::uint32_t> back{0};
    there = back = 0;
    constexpr std::uint32_t kTrips = 100'000;
    constexpr std::uint32_t kBatch = 100;
    std::vector<std::int64_t> batches;
    const auto ask = [&] {
      for (std::uint32_t i = 1; i <= kTrips;) {
        const std::int64_t begun = Now();
        for (const std::uint32_t last = i + kBatch; i < last; ++i) {
          there.store(i, std::memory_order_release);
          while (back.load(std::memory_order_acquire) != i) {
          }
        }
        batches.push_back((Now() - begun) / kBatch);
      }
    };
    RunPinned(ask, [] {
      for (std::uint32_t i = 1; i <= kTrips; ++i) {
        while (there.load(std::memory_order_acquire) != i) {
        }
        back.store(i, std::memory_order_release);
      }
    });
    return Of(batches).p50;
  }

  static Percentiles EventRoundTrip() {
    const int there = eventfd(0, EFD_CLOEXEC);
    const int back = eventfd(0, EFD_CLOEXEC);
    Require(there >= 0 && back >= 0, "eventfd");
    constexpr int kTrips = 5'000;
    std::vector<std::int64_t> trips;
    const auto ask = [&] {
      for (int i = 0; i < kTrips; ++i) {
        const std::int64_t begun = Now();
        eventfd_t count = 0;
        eventfd_write(there, 1);
        eventfd_read(back, &count);
        trips.push_back(Now() - begun);
      }
    };
    RunPinned(ask, [&] {
      for (int i = 0; i < kTrips; ++i) {
        eventfd_t count = 0;
        eventfd_read(there, &count);
        eventfd_write(back, 1);
      }
    });
    close(there);
    close(back);
    return Of(trips);
  }
};

// ---- The server, a child: offers so many echo channels to its one client.

struct Setup {
  std::uint32_t channels = 1;
  ULONG spin = KMCL_SPIN_NEVER;
  // The client's dispatch thread on processor 0, the server's on 1.
  bool pinned = std::thread::hardware_concurrency() >= 2;
};

void Offer(KMCL_SERVER server, HANDLE partition, std::uint32_t number) {
  VMBCHANNEL channel = nullptr;
  Require(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &channel), "allocate");
  Require(VmbServerChannelInitSetVmbusHandle(channel, partition), "partition");
  Require(VmbServerChannelInitSetTargetInterfaceId(channel, kType, InstanceOf(number)), "instance");
  Require(VmbChannelInitSetMaximumPacketSize(channel, kPayloadBytes), "size");
  Require(VmbChannelInitSetProcessPacketCallbacks(
              channel,
              [](VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32, UINT32) {
                VmbChannelPacketComplete(packet, buffer, sizeof(std::uint64_t));
              },
              nullptr),
          "callbacks");
  Require(VmbChannelEnable(channel), "enable");
  VmbChannelStart(channel);
}

[[noreturn]] void Serve(const char* address, const Setup& setup, int ready) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  static Setup own;
  own = setup;
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.SpinMicroseconds = setup.spin;
  static constexpr ULONG kProcessors[] = {1};
  if (setup.pinned) options.DispatchProcessors = kProcessors;
  options.PartitionArrived = [](PVOID, KMCL_SERVER server, HANDLE partition) {
    for (std::uint32_t i = 0; i < own.channels; ++i) Offer(server, partition, i);
  };
  KMCL_SERVER server = nullptr;
  Require(KmclServerCreate(address, &options, &server), "server");
  Require(write(ready, "r", 1) == 1, "pipe");
  for (;;) pause();
}

// ---- The client.

class Bus;

// A client's open channel with so many packets in flight; each one that comes back goes out again.
class Channel {
 public:
  Channel(Bus& bus, KMCL_CLIENT client, std::uint32_t number);
  ~Channel() {
    running_ = false;
    VmbChannelDisable(handle_);
    for (VMBPACKET packet : packets_) VmbPacketFree(packet);
    VmbChannelCleanup(handle_);
  }

  void Begin(std::uint32_t in_flight, bool keep_times, bool again = true) {
    keep_times_ = keep_times;
    running_ = again;
    while (packets_.size() < in_flight) {
      const VMBPACKET packet = VmbPacketAllocate(handle_);
      Require(packet != nullptr, "packet");
      VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS status, PVOID, UINT32) {
        static_cast<Channel*>(VmbChannelGetPointer(VmbPacketGetChannel(done)))->Done(done, status);
      });
      packets_.push_back(packet);
    }
    left_ = in_flight;
    for (std::uint32_t i = 0; i < in_flight; ++i) Send(packets_[i]);
  }
  void End() {
    running_ = false;
    while (left_.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  // Sends one packet from this thread; its time ends in the completion routine.
  void SendOne() {
    Begin(1, true, false);
    End();
  }
  // One transaction, and how long it took.
  std::int64_t Ask() {
    std::uint64_t payload[kPayloadBytes / 8] = {};
    UINT32 bytes = sizeof payload;
    const std::int64_t begun = Now();
    Require(VmbChannelSendSynchronousRequest(handle_, payload, sizeof payload, nullptr,
                                             VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, payload,
                                             &bytes, nullptr),
            "request");
    return Now() - begun;
  }

  std::uint64_t done() const { return done_.load(std::memory_order_relaxed); }
  std::vector<std::int64_t>& times() { return times_; }
  VMBCHANNEL handle() const { return handle_; }

 private:
  void Send(VMBPACKET packet) {
    std::uint64_t payload[kPayloadBytes / 8] = {};
    if (keep_times_) sent_at_ = Now();
    Require(VmbPacketSend(packet, payload, sizeof payload, nullptr,
                          VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION),
            "send");
  }
  void Done(VMBPACKET packet, NTSTATUS status) {
    if (keep_times_) times_.push_back(Now() - sent_at_);
    done_.store(done_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (status == STATUS_SUCCESS && running_.load(std::memory_order_relaxed)) return Send(packet);
    left_.fetch_sub(1);
  }

  VMBCHANNEL handle_ = nullptr;
  std::vector<VMBPACKET> packets_;
  bool keep_times_ = false;
  std::int64_t sent_at_ = 0;
  std::vector<std::int64_t> times_;
  std::atomic<bool> running_{false};
  std::atomic<std::uint32_t> left_{0};
  std::atomic<std::uint64_t> done_{0};
};

// Both ends of a bus with so many open channels.
class Bus {
 public:
  explicit Bus(const Setup& setup) {
    char directory[] = "/tmp/kmcl_scaling.XXXXXX";
    Require(mkdtemp(directory) != nullptr, "directory");
    directory_ = directory;
    const std::string address = "unix:" + directory_ + "/bus";
    int ready[2];
    Require(pipe(ready) == 0, "pipe");
    child_ = fork();
    Require(child_ >= 0, "fork");
    if (child_ == 0) Serve(address.c_str(), setup, ready[1]);
    char word = 0;
    Require(read(ready[0], &word, 1) == 1, "the server does not come up");
    close(ready[0]);
    close(ready[1]);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.SpinMicroseconds = setup.spin;
    static constexpr ULONG kProcessors[] = {0};
    if (setup.pinned) options.DispatchProcessors = kProcessors;
    Require(KmclClientConnect(address.c_str(), &options, &client_), "client");
    for (std::uint32_t i = 0; i < setup.channels; ++i) {
      channels_.push_back(std::make_unique<Channel>(*this, client_, i));
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ == setup.channels; });
  }
  ~Bus() {
    channels_.clear();
    KmclClientDestroy(client_);
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    (void)unlink((directory_ + "/bus").c_str());
    (void)rmdir(directory_.c_str());
  }
  Channel& operator[](std::size_t index) { return *channels_[index]; }
  std::size_t size() const { return channels_.size(); }
  pid_t server() const { return child_; }
  void CountOpen() {
    const std::lock_guard lock(mutex_);
    ++open_;
    changed_.notify_all();
  }

 private:
  std::string directory_;
  pid_t child_ = -1;
  KMCL_CLIENT client_ = nullptr;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint32_t open_ = 0;
};

Channel::Channel(Bus& bus, KMCL_CLIENT client, std::uint32_t number) {
  static Bus* current;
  current = &bus;
  Require(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &handle_), "allocate");
  VmbChannelSetPointer(handle_, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL) { current->CountOpen(); };
  Require(VmbChannelInitSetStateChangeCallbacks(handle_, &callbacks), "callbacks");
  Require(VmbChannelInitSetMaximumPacketSize(handle_, kPayloadBytes), "size");
  Require(VmbClientChannelInitSetRingBufferPageCount(handle_, kRingPages, kRingPages), "rings");
  const GUID instance = InstanceOf(number);
  Require(VmbClientChannelInitSetTargetPnp(
              handle_, &kType, &instance,
              [](VMBCHANNEL, NTSTATUS failure) { Require(failure, "a channel does not open"); }),
          "target");
  Require(VmbChannelEnable(handle_), "enable");
}

// ---- Rows.

constexpr std::chrono::milliseconds kRowTime(700);

// Transactions in so long over all channels, with so many in flight on each: nanoseconds for one.
double CostOf(Bus& bus, std::size_t busy, std::uint32_t in_flight) {
  for (std::size_t i = 0; i < busy; ++i) bus[i].Begin(in_flight, false);
  const auto total = [&] {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < busy; ++i) sum += bus[i].done();
    return sum;
  };
  std::this_thread::sleep_for(kRowTime / 4);
  const std::uint64_t before = total();
  const std::int64_t begun = Now();
  std::this_thread::sleep_for(kRowTime);
  const std::uint64_t after = total();
  const std::int64_t ended = Now();
  for (std::size_t i = 0; i < busy; ++i) bus[i].End();
  return static_cast<double>(ended - begun) /
         static_cast<double>(std::max<std::uint64_t>(1, after - before));
}

// Round trips of one packet at a time whose completion routine sends the next.
Percentiles RoundTrip(Bus& bus) {
  bus[0].times().reserve(16'000'000);
  bus[0].Begin(1, true);
  std::this_thread::sleep_for(kRowTime);
  bus[0].End();
  return Of(bus[0].times());
}

const char* NameOf(ULONG spin) {
  if (spin == KMCL_SPIN_NEVER) return "sleep";
  if (spin == KMCL_SPIN_FOREVER) return "poll";
#ifdef KMCL_SPIN_ADAPTIVE
  if (spin == KMCL_SPIN_ADAPTIVE) return "adaptive";
#endif
  return "window";
}
#ifdef KMCL_SPIN_ADAPTIVE
constexpr ULONG kAdaptive = KMCL_SPIN_ADAPTIVE;
#else
constexpr ULONG kAdaptive = 50;
#endif

void ProbeRow() {
  const auto event = Probe::EventRoundTrip();
  std::printf("probe: cache line round trip %.0f ns; eventfd ping-pong p50 %.1f us, p99 %.1f us\n",
              Probe::CacheLineRoundTrip(), event.p50 / 1e3, event.p99 / 1e3);
}

void WaitsRow() {
  for (const ULONG spin : {KMCL_SPIN_FOREVER, kAdaptive, KMCL_SPIN_NEVER}) {
    Bus bus({.channels = 1, .spin = spin});
    const double line = Probe::CacheLineRoundTrip();
    const auto trip = RoundTrip(bus);
    std::printf("round trip, %-8s: p50 %8.0f ns, p99 %8.0f ns; %6.2f cache-line round trips\n",
                NameOf(spin), trip.p50, trip.p99, trip.p50 / line);
    std::vector<std::int64_t> asked;
    const std::int64_t begun = Now();
    while (Now() - begun < 300'000'000) asked.push_back(bus[0].Ask());
    const auto synchronous = Of(asked);
    std::printf("   synchronous request : p50 %8.0f ns, p99 %8.0f ns\n", synchronous.p50,
                synchronous.p99);
  }
}

void OneBusyRow() {
  for (const ULONG spin : {KMCL_SPIN_FOREVER, kAdaptive}) {
    double alone = 0;
    for (const std::uint32_t channels : {1u, 32u, 1024u}) {
      Bus bus({.channels = channels, .spin = spin});
      const double cost = CostOf(bus, 1, 32);
      const auto trip = RoundTrip(bus);
      if (channels == 1) alone = cost;
      std::printf(
          "one busy of %4u, %-8s: %6.0f ns a transaction (%.2f times one alone); round trip p50 "
          "%.0f ns\n",
          channels, NameOf(spin), cost, cost / alone, trip.p50);
    }
  }
}

void AllBusyRow() {
  for (const ULONG spin : {KMCL_SPIN_FOREVER, kAdaptive, KMCL_SPIN_NEVER}) {
    double alone = 0;
    for (const std::uint32_t channels : {1u, 8u, 64u, 1024u}) {
      Bus bus({.channels = channels, .spin = spin});
      const double cost = CostOf(bus, channels, 32);
      if (channels == 1) alone = cost;
      std::printf("all of %4u busy, %-8s: %6.0f ns a transaction (%.2f times one alone)\n",
                  channels, NameOf(spin), cost, cost / alone);
    }
  }
}

// A channel with a request each millisecond or so, alone and beside one that floods its thread.
void QuietRow() {
  for (const ULONG spin : {KMCL_SPIN_FOREVER, kAdaptive, KMCL_SPIN_NEVER}) {
    Bus bus({.channels = 2, .spin = spin});
    double alone = 0;
    for (const bool flooded : {false, true}) {
      if (flooded) bus[0].Begin(64, false);
      const std::int64_t begun = Now();
      while (Now() - begun < 1'000'000'000) {
        std::this_thread::sleep_for(std::chrono::microseconds(500));
        bus[1].SendOne();
      }
      std::vector<std::int64_t> asked;
      asked.swap(bus[1].times());
      const auto trip = Of(asked);
      if (flooded) bus[0].End();
      if (!flooded) alone = trip.p99;
      std::printf("quiet channel, %-8s, %s: p50 %6.1f us, p99 %6.1f us (%.2f)\n", NameOf(spin),
                  flooded ? "beside a flood" : "alone         ", trip.p50 / 1e3, trip.p99 / 1e3,
                  trip.p99 / alone);
    }
  }
}

double CpuSecondsOf(pid_t process) {
  clockid_t clock{};
  Require(clock_getcpuclockid(process, &clock) == 0, "the server's clock");
  timespec used{};
  clock_gettime(clock, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

void IdleRow() {
  for (const ULONG spin : {kAdaptive, KMCL_SPIN_NEVER}) {
    Bus bus({.channels = 1024, .spin = spin});
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const double before = CpuSecondsOf(bus.server());
    std::this_thread::sleep_for(std::chrono::seconds(2));
    const double used = CpuSecondsOf(bus.server()) - before;
    std::printf("1024 idle channels, %-8s: %.4f %% of a processor\n", NameOf(spin), used / 2 * 100);
  }
}

}  // namespace

int main(int count, char** words) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  struct Row {
    const char* name;
    void (*run)();
  };
  constexpr Row kRows[] = {{"probe", ProbeRow},      {"waits", WaitsRow}, {"one-busy", OneBusyRow},
                           {"all-busy", AllBusyRow}, {"quiet", QuietRow}, {"idle", IdleRow}};
  for (int i = 1; i < count; ++i) {
    Require(std::ranges::any_of(kRows, [&](const Row& row) { return !strcmp(row.name, words[i]); }),
            "no such row");
  }
  for (const Row& row : kRows) {
    const bool wanted = count < 2 || std::any_of(
                                         words + 1, words + count,
                                         [&](const char* word) { return !strcmp(word, row.name); });
    if (wanted) row.run();
  }
  return EXIT_SUCCESS;
}

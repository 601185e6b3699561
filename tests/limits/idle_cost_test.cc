// What a channel that is open and idle costs each end, beside its rings.
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdio.h>

#include <chrono>
#include <cinttypes>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ends.h"
#include "peer.h"

namespace kmcl::limits {
namespace {

// Channels that are there before the first measurement, so that what comes once is not counted.
constexpr std::uint32_t kFirstChannels = 100;
constexpr std::uint32_t kMeasuredChannels = 1000;
constexpr std::int64_t kMostBytesPerChannel = 4096;
constexpr ChannelOptions kOptions{.maximum_packet_bytes = 4096, .ring_pages = 4};

// Memory of one process. Rings are memfd pages, which both ends map; they are not counted.
struct Memory {
  std::int64_t heap_bytes = 0;     // allocated and not freed
  std::int64_t private_bytes = 0;  // resident, of no file
  std::int64_t areas = 0;          // mappings; each costs the kernel about 200 bytes
};

// The main thread, the bus thread, a dispatcher and a passive thread.
constexpr int kThreads = 4;

// Passive threads beyond the last leave after some idle seconds; their stacks are no channel's.
// Only /proc shows when: these threads are the library's, and nobody else can join them.
void AwaitIdleThreads(int threads) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  const auto count = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
  };
  while (count() > threads && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

Memory Measure(int threads = kThreads) {
  AwaitIdleThreads(threads);
  Memory memory;
  const struct mallinfo2 heap = mallinfo2();
  memory.heap_bytes = static_cast<std::int64_t>(heap.uordblks + heap.hblkhd);
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    std::int64_t kilobytes = 0;
    // Anonymous, not Private: pages from before the fork turn private when the child writes to
    // them. Rings are not anonymous.
    if (sscanf(line.c_str(), "Anonymous: %" SCNd64, &kilobytes) == 1) {
      memory.private_bytes += kilobytes * 1024;
    } else if (line.find('-') < line.find(' ')) {  // an area's first line
      ++memory.areas;
    }
  }
  return memory;
}

void Report(const char* what, const Memory& before, const Memory& after, std::uint32_t channels) {
  const std::int64_t heap_bytes = (after.heap_bytes - before.heap_bytes) / channels;
  const std::int64_t private_bytes = (after.private_bytes - before.private_bytes) / channels;
  printf("%s: %" PRId64 " bytes of heap, %" PRId64
         " bytes of private memory, %.1f mapped areas for each channel\n",
         what, heap_bytes, private_bytes,
         static_cast<double>(after.areas - before.areas) / channels);
  EXPECT_LE(heap_bytes, kMostBytesPerChannel) << what;
  EXPECT_LE(private_bytes, kMostBytesPerChannel) << what;
}

struct ClientFigures {
  Memory first;  // with the first channels
  Memory open;   // with the others, too
  Memory used;   // when each of those has carried packets
};

// The line's words: 's' from the server, then a byte from us at each stage, and from it to go on.
int MeasuredClient(const char* address, const Line& line) {
  if (!line.Hear<char>()) return 10;
  KMCL_CLIENT client = nullptr;
  if (KmclClientConnect(address, nullptr, &client) != STATUS_SUCCESS) return 11;
  Count started;
  std::vector<std::unique_ptr<EchoChannel>> channels;
  channels.reserve(kFirstChannels + kMeasuredChannels);
  const auto open = [&](std::uint32_t count) {
    while (channels.size() < count) {
      channels.push_back(std::make_unique<EchoChannel>(
          client, static_cast<std::uint32_t>(channels.size()), false, kOptions, started));
    }
    return started.WaitFor(count);
  };
  ClientFigures figures;
  if (!open(kFirstChannels)) return 12;
  for (const auto& channel : channels) {
    if (channel->Ask(4096) != STATUS_SUCCESS) return 13;
  }
  line.Say('1');
  if (!line.Hear<char>()) return 14;
  figures.first = Measure();

  line.Say('2');
  if (!line.Hear<char>()) return 15;  // the other offers are made
  if (!open(kFirstChannels + kMeasuredChannels)) return 16;
  figures.open = Measure();
  line.Say('3');
  if (!line.Hear<char>()) return 17;

  for (std::uint32_t number = kFirstChannels; number < channels.size(); ++number) {
    for (const std::uint32_t bytes : {4096, 8, 4096}) {
      if (channels[number]->Ask(bytes) != STATUS_SUCCESS) return 18;
    }
  }
  figures.used = Measure();
  line.Say(figures);
  if (!line.Hear<char>()) return 19;
  channels.clear();
  KmclClientDestroy(client);
  return 0;
}

class IdleCost : public testing::TestWithParam<bool> {};

TEST_P(IdleCost, OfAnOpenChannelIsItsRingsAndAtMost4KiBAtEachEnd) {
#ifdef KMCL_SANITIZED
  GTEST_SKIP() << "a sanitizer's allocator is measured here, not the library";
#endif
  // In both processes: what malloc keeps for each thread is no channel's.
  mallopt(M_ARENA_MAX, 1);
  const int threads = kThreads + (GetParam() ? 1 : 0);  // the one that completes
  const Address address;
  Peer client([&](const Line& line) { return MeasuredClient(address.text(), line); });
  ChannelOptions options = kOptions;
  options.completes_late = GetParam();
  EchoServer server(address.text(), DefaultOptions(), kFirstChannels, options);
  ASSERT_EQ(server.status(), STATUS_SUCCESS);
  const Line line = client.line();
  line.Say('s');
  ASSERT_TRUE(line.Hear<char>()) << "exit status " << client.Wait();
  const Memory first = Measure(threads);
  line.Say('g');
  ASSERT_TRUE(line.Hear<char>()) << "exit status " << client.Wait();
  for (std::uint32_t i = 0; i < kMeasuredChannels; ++i) ASSERT_EQ(server.Offer(), STATUS_SUCCESS);
  line.Say('g');
  ASSERT_TRUE(line.Hear<char>()) << "exit status " << client.Wait();
  const Memory open = Measure(threads);
  line.Say('g');
  const auto figures = line.Hear<ClientFigures>();
  ASSERT_TRUE(figures) << "exit status " << client.Wait();
  const Memory used = Measure(threads);

  Report("server, open", first, open, kMeasuredChannels);
  Report("server, idle after traffic", first, used, kMeasuredChannels);
  Report("client, open", figures->first, figures->open, kMeasuredChannels);
  Report("client, idle after traffic", figures->first, figures->used, kMeasuredChannels);
  line.Say('e');
  EXPECT_EQ(client.Wait(), 0);
}

INSTANTIATE_TEST_SUITE_P(Completions, IdleCost, testing::Values(false, true), [](const auto& each) {
  return each.param ? "OnAnotherThread" : "InTheCallback";
});

}  // namespace
}  // namespace kmcl::limits

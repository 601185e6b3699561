#include "endpoint/passive_pool.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "endpoint/test_support.h"
#include "log.h"

namespace kmcl::endpoint {
namespace {

// A strand with its function, kept by whoever asks for it to run.
struct Work {
  Work(PassivePool& pool, std::function<void()> run) : strand(pool, std::move(run)) {}
  Strand strand;
};

std::shared_ptr<Work> MakeWork(PassivePool& pool, std::function<void()> run) {
  return std::make_shared<Work>(pool, std::move(run));
}

TEST(PassivePoolTest, AStrandRunsForARequestAndNotWithout) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  const auto asked = MakeWork(*pool, [&] { record.Note("asked"); });
  const auto silent = MakeWork(*pool, [&] { record.Note("silent"); });
  asked->strand.Request(asked);
  EXPECT_TRUE(record.Await("asked"));
  pool.reset();
  EXPECT_EQ(record.count("asked"), 1);
  EXPECT_EQ(record.count("silent"), 0);
}

TEST(PassivePoolTest, AStrandNeverRunsTwiceAtATimeAndOnceMoreAfterTheLastRequest) {
  auto pool = PassivePool::Create().value();
  std::atomic<int> inside{0};
  std::atomic<int> requested{0};
  int seen = 0;  // by the last run; no lock: runs do not overlap
  auto work = MakeWork(*pool, [&] {
    EXPECT_EQ(inside.fetch_add(1), 0);
    seen = requested.load();
    inside.fetch_sub(1);
  });
  constexpr int kRequests = 5000;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kRequests; ++n) {
        ++requested;
        work->strand.Request(work);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  pool.reset();
  EXPECT_EQ(seen, 3 * kRequests);
}

TEST(PassivePoolTest, ARequestDuringARunLeadsToAnotherRun) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  std::shared_ptr<Work> work;
  int runs = 0;
  work = MakeWork(*pool, [&] {
    if (++runs < 3) work->strand.Request(work);
    record.Note("run");
  });
  work->strand.Request(work);
  EXPECT_TRUE(record.Await("run", 3));
  pool.reset();
  EXPECT_EQ(record.count("run"), 3);
}

TEST(PassivePoolTest, BlockedStrandsDoNotHoldOthersUp) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  constexpr int kStrands = 12;
  std::vector<std::shared_ptr<Work>> all;
  for (int i = 0; i < kStrands; ++i) {
    // Nobody leaves before everybody is in.
    all.push_back(MakeWork(*pool, [&] {
      record.Note("in");
      record.Await("in", kStrands);
      record.Note("out");
    }));
  }
  for (const auto& work : all) work->strand.Request(work);
  EXPECT_TRUE(record.Await("out", kStrands));
}

TEST(PassivePoolTest, AStrandMayWaitForWorkThatItAskedForItself) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  const auto inner = MakeWork(*pool, [&] { record.Note("inner"); });
  const auto outer = MakeWork(*pool, [&] {
    inner->strand.Request(inner);
    if (record.Await("inner")) record.Note("outer");
  });
  outer->strand.Request(outer);
  EXPECT_TRUE(record.Await("outer"));
}

// New threads are to have stacks that no address space has room for.
class NoThreads {
 public:
  NoThreads() {
    pthread_attr_init(&usual_);
    pthread_getattr_default_np(&usual_);
    pthread_attr_t huge = usual_;
    pthread_attr_setstacksize(&huge, std::size_t{1} << 47);
    pthread_setattr_default_np(&huge);
  }
  ~NoThreads() {
    pthread_setattr_default_np(&usual_);
    pthread_attr_destroy(&usual_);
  }

 private:
  pthread_attr_t usual_;
};

TEST(PassivePoolTest, AThreadThatTheSystemRefusesIsAskedForAgain) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  const auto inner = MakeWork(*pool, [&] { record.Note("inner"); });
  const auto outer = MakeWork(*pool, [&] {
    record.Note("outer");
    record.Await("no threads");
    inner->strand.Request(inner);
    record.Await("inner");
  });
  outer->strand.Request(outer);
  ASSERT_TRUE(record.Await("outer"));
  SetLogSink(
      [](void* to, LogLevel, const char*) { static_cast<Record*>(to)->Note("refused"); }, &record);
  {
    const NoThreads none;
    record.Note("no threads");
    EXPECT_TRUE(record.Await("refused"));
  }
  EXPECT_TRUE(record.Await("inner"));
  SetLogSink(nullptr, nullptr);
}

TEST(PassivePoolTest, TheOwnerIsKeptUntilItsRunHasEnded) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  auto work = MakeWork(*pool, [&] {
    record.Note("running");
    record.Await("let go");
    record.Note("ran");
  });
  const std::weak_ptr<Work> observer = work;
  work->strand.Request(work);
  EXPECT_TRUE(record.Await("running"));
  work.reset();
  EXPECT_FALSE(observer.expired());
  record.Note("let go");
  EXPECT_TRUE(record.Await("ran"));
  pool.reset();
  EXPECT_TRUE(observer.expired());
}

TEST(PassivePoolTest, TheEndWaitsForWhatIsQueuedAndWhatRuns) {
  std::atomic<int> ran{0};
  {
    auto pool = PassivePool::Create().value();
    for (int i = 0; i < 100; ++i) {
      const auto work = MakeWork(*pool, [&] { ++ran; });
      work->strand.Request(work);
    }
  }
  EXPECT_EQ(ran, 100);
}

std::size_t ThreadCount() {
  std::size_t count = 0;
  DIR* const directory = opendir("/proc/self/task");
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(directory);
  return count;
}

TEST(PassivePoolTest, ThreadsThatFoundNothingToDoGoAwayButTheLastStays) {
  Record record;  // outlives the threads
  auto pool = PassivePool::Create().value();
  constexpr int kStrands = 6;
  std::vector<std::shared_ptr<Work>> all;
  for (int i = 0; i < kStrands; ++i) {
    all.push_back(MakeWork(*pool, [&] {
      record.Note("in");
      record.Await("counted");
    }));
    all.back()->strand.Request(all.back());
  }
  EXPECT_TRUE(record.Await("in", kStrands));
  const std::size_t busy = ThreadCount();  // each strand blocks a thread of its own
  record.Note("counted");
  EXPECT_TRUE(transport::Eventually([&] { return ThreadCount() <= busy - (kStrands - 1); }));
  const auto late = MakeWork(*pool, [&] { record.Note("late"); });
  late->strand.Request(late);
  EXPECT_TRUE(record.Await("late"));
}

}  // namespace
}  // namespace kmcl::endpoint

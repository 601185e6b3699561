#include "endpoint/bus_thread.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "endpoint/test_support.h"
#include "transport/descriptor.h"

namespace kmcl::endpoint {
namespace {

class BusThreadTest : public ::testing::Test {
 protected:
  static transport::Descriptor EventFd() {
    return transport::Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  Record record_;
  std::unique_ptr<BusThread> bus_ = BusThread::Create().value();
};

TEST_F(BusThreadTest, TasksOfOneThreadRunInOrder) {
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) bus_->Post([&order, i] { order.push_back(i); });
  bus_->Call([] {});
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST_F(BusThreadTest, CallWaitsForItsTaskAndRunsAtOnceOnTheThreadItself) {
  EXPECT_FALSE(bus_->IsCurrent());
  bool inner = false;
  bus_->Call([&] {
    EXPECT_TRUE(bus_->IsCurrent());
    bus_->Call([&] { inner = true; });
    EXPECT_TRUE(inner);
  });
  EXPECT_TRUE(inner);
}

TEST_F(BusThreadTest, CallsFromManyThreadsAllReturn) {
  int sum = 0;  // the bus thread's
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 2000; ++n) bus_->Call([&] { ++sum; });
    });
  }
  for (auto& thread : threads) thread.join();
  bus_->Call([&] { EXPECT_EQ(sum, 8000); });
}

TEST_F(BusThreadTest, WhatWasPostedRunsBeforeTheEnd) {
  std::atomic<int> ran{0};
  for (int i = 0; i < 100; ++i) bus_->Post([&] { ++ran; });
  bus_.reset();
  EXPECT_EQ(ran, 100);
}

TEST_F(BusThreadTest, AWatchedDescriptorIsToldOfUntilItIsUnwatched) {
  const transport::Descriptor fd = EventFd();
  BusThread::Token token = 0;
  bus_->Call([&] {
    token = bus_->Watch(fd.get(), EPOLLIN,
                        [&](std::uint32_t events) {
                          EXPECT_NE(events & EPOLLIN, 0u);
                          eventfd_t value = 0;
                          eventfd_read(fd.get(), &value);
                          record_.Note("event");
                        })
                .value();
  });
  eventfd_write(fd.get(), 1);
  EXPECT_TRUE(record_.Await("event", 1));
  eventfd_write(fd.get(), 1);
  EXPECT_TRUE(record_.Await("event", 2));
  bus_->Call([&] { bus_->Unwatch(token); });
  eventfd_write(fd.get(), 1);
  bus_->Call([] {});
  EXPECT_EQ(record_.count("event"), 2);
}

TEST_F(BusThreadTest, SetEventsTurnsATokenOffAndOn) {
  const transport::Descriptor fd = EventFd();
  BusThread::Token token = 0;
  bus_->Call([&] {
    token = bus_->Watch(fd.get(), 0,
                        [&](std::uint32_t) {
                          bus_->SetEvents(token, 0);
                          record_.Note("event");
                        })
                .value();
  });
  eventfd_write(fd.get(), 1);
  bus_->Call([] {});
  EXPECT_EQ(record_.count("event"), 0);
  for (int round = 1; round <= 3; ++round) {
    bus_->Call([&] { bus_->SetEvents(token, EPOLLIN); });
    EXPECT_TRUE(record_.Await("event", round));
  }
}

TEST_F(BusThreadTest, AnEventMayUnwatchItselfAndTheOthersOfItsRound) {
  const transport::Descriptor first = EventFd();
  const transport::Descriptor second = EventFd();
  std::vector<BusThread::Token> tokens;
  bus_->Call([&] {
    const auto once = [&](std::uint32_t) {
      record_.Note("event");
      for (const auto token : tokens) bus_->Unwatch(token);
    };
    // Both are ready before the thread looks.
    eventfd_write(first.get(), 1);
    eventfd_write(second.get(), 1);
    tokens.push_back(bus_->Watch(first.get(), EPOLLIN, once).value());
    tokens.push_back(bus_->Watch(second.get(), EPOLLIN, once).value());
  });
  EXPECT_TRUE(record_.Await("event"));
  bus_->Call([] {});
  EXPECT_EQ(record_.count("event"), 1);
}

TEST_F(BusThreadTest, WhatIsPostedForLaterRunsInTheOrderOfItsTimesAndOnTheThread) {
  std::string order;
  const auto done = std::make_shared<std::promise<void>>();
  bus_->Call([&] {
    using std::chrono::milliseconds;
    const auto run = [&, done](char name) {
      EXPECT_TRUE(bus_->IsCurrent());
      order += name;
      if (order.size() == 3) done->set_value();
    };
    bus_->PostLater(milliseconds(30), [run] { run('c'); });
    bus_->PostLater(milliseconds(10), [this, run] {
      run('a');
      bus_->PostLater(milliseconds(0), [run] { run('b'); });
    });
    bus_->PostLater(std::chrono::hours(1), [run] { run('n'); });
  });
  done->get_future().wait();
  // The third's time comes before the second's, unless the thread had to wait for a processor.
  EXPECT_TRUE(order == "abc" || order == "acb") << order;
}

TEST_F(BusThreadTest, WhatCannotBeWatchedIsAnError) {
  bus_->Call([&] {
    QuietLog quiet;
    EXPECT_FALSE(bus_->Watch(-1, EPOLLIN, [](std::uint32_t) {}));
    bus_->SetEvents(12345, EPOLLIN);
    bus_->Unwatch(12345);
  });
}

}  // namespace
}  // namespace kmcl::endpoint

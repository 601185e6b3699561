// Each check runs in a child, which is without the calls ever after.
#include "vmm/call_filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <latch>
#include <string>
#include <thread>
#include <vector>

namespace kmcl::vmm {
namespace {

class CallFilterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CanRestrictCalls()) {
      GTEST_SKIP() << "built with sanitizers, which need more calls";
    }
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
  static void Restrict() {
    if (const auto restricted = RestrictCalls(nullptr); !restricted) {
      std::fprintf(stderr, "%s\n", restricted.error().c_str());
      _exit(99);
    }
  }
  static void Check(bool holds, const char* what) {
    if (!holds) {
      std::fprintf(stderr, "NOT SO: %s\n", what);
      _exit(98);
    }
  }
  static std::string SaysCall(long number) {
    return "system call " + std::to_string(number) + " is none";
  }
};

#define EXPECT_FORBIDDEN(number, ...) \
  EXPECT_EXIT(                        \
      {                               \
        Restrict();                   \
        __VA_ARGS__;                  \
        _exit(97);                    \
      },                              \
      ::testing::ExitedWithCode(kForbiddenCallExit), SaysCall(number))

TEST_F(CallFilterTest, NoFileIsOpened) {
  EXPECT_EXIT(
      {
        Restrict();
        const int file = open("/etc/hostname", O_RDONLY);
        Check(file < 0 && errno == EACCES, "a file is refused");
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(CallFilterTest, NoProgramIsStarted) {
  EXPECT_FORBIDDEN(SYS_execve, (void)execl("/bin/true", "true", nullptr));
  EXPECT_FORBIDDEN(SYS_clone, (void)fork());
  EXPECT_FORBIDDEN(SYS_ptrace, (void)syscall(SYS_ptrace, 0, 0, 0, 0));
}

TEST_F(CallFilterTest, NoNetworkIsReached) {
  EXPECT_FORBIDDEN(SYS_socket, (void)socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_FORBIDDEN(SYS_socket, (void)socket(AF_NETLINK, SOCK_RAW, 0));
}

TEST_F(CallFilterTest, NoMemoryBecomesExecutable) {
  EXPECT_FORBIDDEN(SYS_mmap, (void)mmap(nullptr, 4096, PROT_READ | PROT_EXEC,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_FORBIDDEN(SYS_mprotect, {
    void* const page =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)mprotect(page, 4096, PROT_READ | PROT_EXEC);
  });
}

TEST_F(CallFilterTest, NobodyElseGetsASignal) {
  EXPECT_FORBIDDEN(SYS_kill, (void)kill(1, 0));
  EXPECT_FORBIDDEN(SYS_tgkill, (void)syscall(SYS_tgkill, 1, 1, 0));
}

TEST_F(CallFilterTest, AnIoctlIsOneOfKvms) {
  EXPECT_FORBIDDEN(SYS_ioctl, {
    char byte = 0;
    (void)ioctl(0, TIOCSTI, &byte);  // types at the terminal
  });
}

TEST_F(CallFilterTest, HoldsForThreadsThatWereThere) {
  EXPECT_EXIT(
      {
        std::latch ready(1);
        std::thread other([&] {
          ready.wait();
          (void)syscall(SYS_ptrace, 0, 0, 0, 0);
          _exit(97);
        });
        Restrict();
        ready.count_down();
        other.join();
      },
      ::testing::ExitedWithCode(kForbiddenCallExit), SaysCall(SYS_ptrace));
}

TEST_F(CallFilterTest, HoldsForThreadsToCome) {
  EXPECT_FORBIDDEN(SYS_ptrace, std::thread([] { (void)syscall(SYS_ptrace, 0, 0, 0, 0); }).join());
}

TEST_F(CallFilterTest, LastWordsAreSaidFirst) {
  EXPECT_EXIT(
      {
        const auto restricted =
            RestrictCalls([] { (void)!write(STDERR_FILENO, "farewell; ", 10); });
        (void)restricted;
        (void)syscall(SYS_ptrace, 0, 0, 0, 0);
      },
      ::testing::ExitedWithCode(kForbiddenCallExit), "farewell; vmbus vm: system call");
}

TEST_F(CallFilterTest, WhatAMachineDoesGoesOn) {
  EXPECT_EXIT(
      {
        Restrict();
        const int event = eventfd(0, EFD_CLOEXEC);
        Check(event >= 0, "an eventfd");
        std::thread writer([event] {
          const std::uint64_t one = 1;
          Check(write(event, &one, sizeof(one)) == sizeof(one), "a write");
        });
        writer.join();
        std::uint64_t count = 0;
        Check(read(event, &count, sizeof(count)) == sizeof(count) && count == 1, "a read");
        Check(fcntl(event, F_DUPFD_CLOEXEC, 0) >= 0, "a duplicate");
        const int memory = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        Check(memory >= 0 && ftruncate(memory, 1 << 20) == 0 &&
                  fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0,
              "memory");
        void* const mapped = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        Check(mapped != MAP_FAILED && munmap(mapped, 1 << 20) == 0, "a mapping");
        Check(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0, "a Unix socket");
        Check(signal(SIGUSR1, [](int) {}) != SIG_ERR && pthread_kill(pthread_self(), SIGUSR1) == 0,
              "a signal to a thread of its own");
        // More threads at once than the C library has heaps for, each of which allocates.
        std::vector<std::thread> threads;
        std::latch all(64);
        for (int number = 0; number < 64; ++number) {
          threads.emplace_back([&all] {
            const std::string text(1000, 'x');
            all.arrive_and_wait();
            Check(text.size() == 1000, "the heap");
          });
        }
        for (std::thread& thread : threads) {
          thread.join();
        }
        // A heap of a thread's own that is empty in the end: it could shrink.
        std::thread([] {
          std::vector<std::string> pieces;
          for (int number = 0; number < 64; ++number) {
            pieces.emplace_back(1 << 16, 'x');
          }
          Check(pieces.back().size() == 1 << 16, "a heap that grows");
        }).join();
        const std::string large(1 << 22, 'x');
        Check(large.size() == 1 << 22, "much of the heap");
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace kmcl::vmm

// Two threads that really sleep. A bell that is not rung, or a look that is not taken, leaves one
// of them asleep for good; its wait then ends at the deadline and the test fails. Every packet is
// checked, and the thread sanitizer watches the bytes.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <tuple>

#include "ring/ring_test_ends.h"
#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

constexpr int kDeadlineMs = 30000;

class TestBell {
 public:
  TestBell() : fd_(eventfd(0, EFD_CLOEXEC)) {}
  ~TestBell() { close(fd_); }
  TestBell(const TestBell&) = delete;
  TestBell& operator=(const TestBell&) = delete;

  void Ring() { eventfd_write(fd_, 1); }
  // False: nobody rang until the deadline.
  bool Wait() {
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&wait, 1, kDeadlineMs) != 1) return false;
    eventfd_t count;
    return eventfd_read(fd_, &count) == 0;
  }

 private:
  int fd_;
};

// Packet number `n` of a run; both threads can make it.
ModelPacket Numbered(std::uint64_t n, std::uint32_t data_bytes) {
  std::minstd_rand random(static_cast<unsigned>(n * 2654435761u + 1));
  const std::uint32_t longest = data_bytes - 16 - 24 - 8;
  const std::uint32_t limit = random() % 16 == 0 ? longest + 1 : 128;
  return {.type = static_cast<std::uint16_t>(random() % 2 == 0 ? 6 : 9),
          .flags = static_cast<std::uint16_t>(n % 2),
          .transaction_id = n,
          .header = TestBytes(n % 3 == 0 ? 8 : 0, static_cast<unsigned>(n)),
          .payload = TestBytes(random() % limit / 8 * 8, static_cast<unsigned>(n))};
}

struct Scenario {
  std::uint32_t data_bytes;
  Mapped mapped;
  Maker writer, reader;
};

void PrintTo(const Scenario& scenario, std::ostream* out) { *out << "S=" << scenario.data_bytes; }

std::string ScenarioName(const testing::TestParamInfo<Scenario>& param) {
  const Scenario& scenario = param.param;
  return "S" + std::to_string(scenario.data_bytes) +
         (scenario.mapped == Mapped::kOnce ? "Once" : "Twice") +
         (scenario.writer == Maker::kOurs ? "OurWriter" : "NaiveWriter") +
         (scenario.reader == Maker::kOurs ? "OurReader" : "NaiveReader");
}

class RingThreadsTest : public testing::TestWithParam<Scenario> {};

INSTANTIATE_TEST_SUITE_P(
    , RingThreadsTest,
    testing::Values(Scenario{4096, Mapped::kOnce, Maker::kOurs, Maker::kOurs},
                    Scenario{4096, Mapped::kTwice, Maker::kOurs, Maker::kOurs},
                    Scenario{3 * 4096, Mapped::kOnce, Maker::kOurs, Maker::kOurs},
                    Scenario{3 * 4096, Mapped::kTwice, Maker::kOurs, Maker::kOurs},
                    Scenario{16 * 4096, Mapped::kTwice, Maker::kOurs, Maker::kOurs},
                    Scenario{4096, Mapped::kOnce, Maker::kOurs, Maker::kModel},
                    Scenario{4096, Mapped::kOnce, Maker::kModel, Maker::kOurs},
                    Scenario{3 * 4096, Mapped::kTwice, Maker::kOurs, Maker::kModel},
                    Scenario{3 * 4096, Mapped::kTwice, Maker::kModel, Maker::kOurs}),
    ScenarioName);

TEST_P(RingThreadsTest, NoPacketAndNoWakeUpIsLost) {
  constexpr std::uint64_t kPacketCount = 20000;
  const Scenario scenario = GetParam();
  RingMemory memory(scenario.data_bytes, scenario.mapped);
  memory.set_word(RingMemory::kFeatureBits, 1);
  const auto writer = MakeWriter(scenario.writer, memory.pages());
  const auto reader = MakeReader(scenario.reader, memory.pages());
  TestBell data_bell, space_bell;
  std::atomic<bool> broken = false;
  std::uint64_t writer_sleeps = 0, reader_sleeps = 0;

  std::thread producer([&] {
    std::minstd_rand random(1);
    const auto publish = [&] {
      if (writer->Publish()) data_bell.Ring();
    };
    for (std::uint64_t n = 0; n < kPacketCount && !broken; ++n) {
      const ModelPacket packet = Numbered(n, scenario.data_bytes);
      const std::uint32_t bytes =
          OutgoingRing::PacketBytes(packet.header.size(), packet.payload.size());
      while (!writer->Put(packet)) {
        publish();
        while (!writer->Request(bytes) && !broken) {
          ++writer_sleeps;
          if (space_bell.Wait()) continue;
          ADD_FAILURE() << "the writer was never woken, at packet " << n;
          broken = true;
          data_bell.Ring();
        }
        if (broken) return;
      }
      if (random() % 4 == 0) publish();
    }
    publish();
  });

  std::thread consumer([&] {
    std::minstd_rand random(2);
    const auto commit = [&] {
      if (reader->Commit()) space_bell.Ring();
    };
    for (std::uint64_t n = 0; n < kPacketCount && !broken;) {
      if (const auto packet = reader->Take()) {
        if (*packet != Numbered(n, scenario.data_bytes)) {
          ADD_FAILURE() << "packet " << n << " arrived damaged or out of order";
          broken = true;
          space_bell.Ring();
          return;
        }
        ++n;
        if (random() % 8 == 0) commit();
        continue;
      }
      commit();
      if (reader->Unmask()) {
        ++reader_sleeps;
        if (!data_bell.Wait()) {
          ADD_FAILURE() << "the reader was never woken, at packet " << n;
          broken = true;
          space_bell.Ring();
        }
      }
      reader->Mask();
    }
    commit();
  });

  producer.join();
  consumer.join();
  EXPECT_GT(reader_sleeps, 0u) << "nothing was tried";
  if (scenario.data_bytes == 4096) {
    EXPECT_GT(writer_sleeps, 0u) << "nothing was tried";
  }
  RecordProperty("writer_sleeps", static_cast<int>(writer_sleeps));
  RecordProperty("reader_sleeps", static_cast<int>(reader_sleeps));
}

}  // namespace
}  // namespace kmcl::ring

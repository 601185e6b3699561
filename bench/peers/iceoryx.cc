// iceoryx, publish and subscribe in shared memory: the publisher loans a chunk, copies the message
// into it and publishes it; the subscriber looks at it in place and gives it back. Its reader looks
// again and again, as iceoryx's own throughput example does. RouDi, its daemon, runs beside each
// cell.
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>

#include "rows.h"

namespace kmcl::bench {
namespace {

// Started before the ends fork, and ended after them.
class RouDi {
 public:
  void Start(Stage& stage) {
    const std::string configuration = Scratch() + "/roudi.toml";
    std::ofstream file(configuration);
    file << "[general]\nversion = 1\n[[segment]]\n";
    for (const auto& [bytes, count] : {std::pair{256, 4096}, {1280, 2048}, {5120, 1024}}) {
      file << "[[segment.mempool]]\nsize = " << bytes << "\ncount = " << count << "\n";
    }
    file.close();
    if (!file) stage.Fail("cannot write RouDi's configuration");
    child_ = fork();
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int nowhere = open("/dev/null", O_RDWR);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    execlp("iox-roudi", "iox-roudi", "-m", "off", "-c", configuration.c_str(), nullptr);
    _exit(127);
  }
  // At SIGTERM it would send one to everybody who has joined, this process first. So it is killed,
  // and what it leaves is removed here.
  void Stop() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    shm_unlink("/iceoryx_mgmt");
    if (const group* const own = getgrgid(getegid())) {
      shm_unlink((std::string("/") + own->gr_name).c_str());
    }
  }

 private:
  pid_t child_ = -1;
};

iox::capro::ServiceDescription Service(const char* direction) {
  return {"kmcl_bench", iox::capro::IdString_t(iox::cxx::TruncateToCapacity, direction), "message"};
}

// A process' name must be its own: RouDi takes a second one for the first one's return.
void Join(const char* end) {
  iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff,
                                                           iox::log::LogLevelOutput::kHideLogLevel);
  const std::string name = std::string("kmcl_bench_") + end + "_" + std::to_string(getpid());
  iox::runtime::PoshRuntime::initRuntime({iox::cxx::TruncateToCapacity, name});
}

class Publisher {
 public:
  explicit Publisher(const char* direction) : publisher_(Service(direction), Options()) {}
  void AwaitSubscriber() {
    while (!publisher_.hasSubscribers()) Stage::Nap(1'000'000);
  }
  void Send(Stage& stage, const std::byte* message, std::size_t bytes) {
    for (;;) {
      auto chunk = publisher_.loan(static_cast<std::uint32_t>(bytes));
      if (!chunk.has_error()) {
        std::memcpy(chunk.value(), message, bytes);
        publisher_.publish(chunk.value());
        return;
      }
      if (chunk.get_error() != iox::popo::AllocationError::RUNNING_OUT_OF_CHUNKS) {
        stage.Fail("loan failed");
      }
      Pause();
    }
  }

 private:
  static iox::popo::PublisherOptions Options() {
    iox::popo::PublisherOptions options;
    options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    return options;
  }
  iox::popo::UntypedPublisher publisher_;
};

class Subscriber {
 public:
  explicit Subscriber(const char* direction) : subscriber_(Service(direction), Options()) {}
  // Waits for a message; then(const void*) looks at it.
  template <class Then>
  auto Take(Then&& then) {
    for (;;) {
      auto message = subscriber_.take();
      if (message.has_error()) {
        Pause();
        continue;
      }
      const auto result = then(message.value());
      subscriber_.release(message.value());
      return result;
    }
  }

 private:
  static iox::popo::SubscriberOptions Options() {
    iox::popo::SubscriberOptions options;
    options.queueCapacity = 256;
    options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    return options;
  }
  iox::popo::UntypedSubscriber subscriber_;
};

class IceoryxStream final : public Pair {
 public:
  explicit IceoryxStream(std::size_t bytes) : bytes_(bytes) {}
  void Open(Stage& stage) override { daemon_.Start(stage); }
  void Near(Stage& stage) override {
    Join("near");
    {
      Publisher publisher("there");
      publisher.AwaitSubscriber();
      SendStream(
          stage, bytes_, [&](const std::byte* message) { publisher.Send(stage, message, bytes_); },
          [] {});
      stage.Meet();  // messages go with their publisher
    }
    stage.Meet();
    daemon_.Stop();
  }
  void Far(Stage& stage) override {
    Join("far");
    {
      Subscriber subscriber("there");
      Inflow inflow(stage, bytes_);
      inflow.Begin();
      while (subscriber.Take([&](const void* message) { return inflow.Take(message, bytes_); })) {
      }
      stage.Meet();
    }
    stage.Meet();
  }

 private:
  const std::size_t bytes_;
  RouDi daemon_;
};

class IceoryxTrip final : public Pair {
 public:
  explicit IceoryxTrip(std::size_t bytes) : bytes_(bytes) {}
  void Open(Stage& stage) override { daemon_.Start(stage); }
  void Near(Stage& stage) override {
    Join("near");
    {
      Publisher publisher("there");
      Subscriber subscriber("back");
      publisher.AwaitSubscriber();
      Ask(stage, bytes_, [&](const std::byte* message) {
        publisher.Send(stage, message, bytes_);
        return subscriber.Take([&](const void* answer) { return ReadMessage(answer, bytes_); });
      });
      stage.Meet();
    }
    stage.Meet();
    daemon_.Stop();
  }
  void Far(Stage& stage) override {
    Join("far");
    {
      Publisher publisher("back");
      Subscriber subscriber("there");
      publisher.AwaitSubscriber();
      stage.Meet();
      const auto answer = [&](const void* message) {
        const std::uint64_t number = ReadMessage(message, bytes_);
        publisher.Send(stage, static_cast<const std::byte*>(message), bytes_);
        return number;
      };
      while ((subscriber.Take(answer) & kLast) == 0) {
      }
      stage.Meet();
    }
    stage.Meet();
  }

 private:
  const std::size_t bytes_;
  RouDi daemon_;
};

}  // namespace

void AddIceoryxRows(Registry& registry) {
  for (const std::size_t bytes : {64u, 1024u, 4096u}) {
    registry.rows.push_back({.name = RowName("stream", "iceoryx", bytes),
                             .bytes = bytes,
                             .make = [=] { return std::make_unique<IceoryxStream>(bytes); },
                             .quick = bytes == 64});
  }
  registry.rows.push_back({.name = RowName("roundtrip", "iceoryx", 64),
                           .bytes = 64,
                           .make = [] { return std::make_unique<IceoryxTrip>(64); },
                           .quick = false});
}

}  // namespace kmcl::bench

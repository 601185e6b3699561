// Boost.Lockfree's queue for one producer and one consumer, in shared memory. It holds 64-byte
// elements and nothing else: no lengths, no types, no bell. It shows each element as it is pushed.
#include <sys/mman.h>

#include <boost/lockfree/spsc_queue.hpp>

#include "rows.h"

namespace kmcl::bench {
namespace {

struct alignas(8) Element {
  std::byte bytes[64];
};
// As many as fit into our ring of 256 KiB without descriptors.
using Queue = boost::lockfree::spsc_queue<Element, boost::lockfree::capacity<4096>>;

enum class Reader : std::uint8_t { kPops, kPopsAndBacksOff, kConsumesAll, kConsumesAllAndBacksOff };

Queue* MakeQueue(Stage& stage) {
  void* const at =
      mmap(nullptr, sizeof(Queue), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) stage.Fail("no shared memory");
  return new (at) Queue;
}

class BoostStream final : public Pair {
 public:
  explicit BoostStream(Reader reader) : reader_(reader) {}
  void Open(Stage& stage) override { queue_ = MakeQueue(stage); }
  void Near(Stage& stage) override {
    SendStream(
        stage, sizeof(Element),
        [&](const std::byte* message) {
          Element element;
          std::memcpy(element.bytes, message, sizeof(element));
          while (!queue_->push(element)) Pause();
        },
        [] {});
  }
  void Far(Stage& stage) override {
    const bool all = reader_ == Reader::kConsumesAll || reader_ == Reader::kConsumesAllAndBacksOff;
    Backoff backoff(reader_ == Reader::kPopsAndBacksOff ||
                    reader_ == Reader::kConsumesAllAndBacksOff);
    Inflow inflow(stage, sizeof(Element));
    inflow.Begin();
    bool more = true;
    const auto take = [&](const Element& element) {
      backoff.Took();
      more = inflow.Take(element.bytes, sizeof(element));
    };
    Element element;
    while (more) {
      if (all) {
        if (queue_->consume_all(take) != 0) continue;
      } else if (queue_->pop(element)) {
        take(element);
        continue;
      }
      backoff.Empty();
    }
  }

 private:
  const Reader reader_;
  Queue* queue_ = nullptr;
};

class BoostRoundTrip final : public Pair {
 public:
  void Open(Stage& stage) override {
    there_ = MakeQueue(stage);
    back_ = MakeQueue(stage);
  }
  void Near(Stage& stage) override {
    Ask(stage, sizeof(Element), [&](const std::byte* message) {
      Element element;
      std::memcpy(element.bytes, message, sizeof(element));
      there_->push(element);
      while (!back_->pop(element)) {
      }
      return ReadMessage(element.bytes, sizeof(element));
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    Element element;
    do {
      while (!there_->pop(element)) {
      }
      back_->push(element);
    } while ((ReadMessage(element.bytes, sizeof(element)) & kLast) == 0);
  }

 private:
  Queue* there_ = nullptr;
  Queue* back_ = nullptr;
};

}  // namespace

void AddBoostSpscRows(Registry& registry) {
  const auto add = [&](std::string_view contender, Reader reader) {
    registry.rows.push_back({.name = RowName("stream", contender, sizeof(Element)),
                             .bytes = sizeof(Element),
                             .make = [=] { return std::make_unique<BoostStream>(reader); }});
  };
  add("boost-spsc-pop", Reader::kPops);
  add("boost-spsc-pop-adaptive", Reader::kPopsAndBacksOff);
  add("boost-spsc-all", Reader::kConsumesAll);
  add("boost-spsc-all-adaptive", Reader::kConsumesAllAndBacksOff);
  registry.rows.push_back({.name = RowName("roundtrip", "boost-spsc", sizeof(Element)),
                           .bytes = sizeof(Element),
                           .make = [] { return std::make_unique<BoostRoundTrip>(); }});
}

}  // namespace kmcl::bench

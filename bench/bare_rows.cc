// What the machine allows: the bytes of a ring's packets at the distance they have there, copied in and out, and nothing
// else. No descriptor, no look at what the other end wrote.
#include <sys/mman.h>

#include "ring/copy_bytes.h"
#include "rows.h"

namespace kmcl::bench {
namespace {

// As in the ring's own rows.
constexpr std::size_t kBytes = 256 * 1024;
constexpr int kBatch = 32;
constexpr std::size_t kDescriptorAndTrailer = 16 + 8;

struct Shared {
  alignas(128) std::atomic<std::uint64_t> written{0};  // bytes, from the beginning
  alignas(128) std::atomic<std::uint64_t> read{0};
  alignas(4096) std::byte data[kBytes];
};

class BareStream final : public Pair {
 public:
  explicit BareStream(std::size_t bytes)
      : bytes_(bytes),
        stride_(bytes + kDescriptorAndTrailer),
        end_(kBytes / stride_ * stride_),
        release_every_(end_ / stride_ / 8 * stride_) {}

  void Open(Stage& stage) override {
    void* const at =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) stage.Fail("no shared memory");
    shared_ = new (at) Shared;
  }

  void Near(Stage& stage) override {
    std::uint64_t written = 0, read = 0;
    std::size_t at = 0;
    int held = 0;
    const auto publish = [&] {
      shared_->written.store(written, std::memory_order_release);
      held = 0;
    };
    SendStream(
        stage, bytes_,
        [&](const std::byte* message) __attribute__((always_inline)) {
          while (written + stride_ - read > end_) {
            if ((read = shared_->read.load(std::memory_order_acquire)) + end_ < written + stride_) {
              publish();
              Pause();
            }
          }
          ring::CopyFreshBytes(shared_->data + at, message, bytes_);
          ring::AskForLineToWrite(shared_->data + at + bytes_ + ring::kBytesAhead);
          written += stride_;
          if ((at += stride_) == end_) at = 0;
          if (++held == kBatch) publish();
        },
        publish);
  }

  void Far(Stage& stage) override {
    std::vector<std::byte> buffer(bytes_);
    std::uint64_t written = 0, read = 0, released = 0;
    std::size_t at = 0;
    Backoff backoff(true);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    for (;;) {
      if (read == written) {
        shared_->read.store(released = read, std::memory_order_release);
        if ((written = shared_->written.load(std::memory_order_acquire)) == read) backoff.Empty();
        continue;
      }
      backoff.Took();
      ring::CopyBytes(buffer.data(), shared_->data + at, bytes_);
      read += stride_;
      if ((at += stride_) == end_) at = 0;
      if (!inflow.Take(buffer.data(), bytes_)) return;
      if (read - released >= release_every_) {
        shared_->read.store(released = read, std::memory_order_release);
      }
    }
  }

 private:
  const std::size_t bytes_, stride_, end_, release_every_;
  Shared* shared_ = nullptr;
};

}  // namespace

void AddBareRows(Registry& registry) {
  for (const std::size_t bytes : {64u, 4096u}) {
    registry.rows.push_back({.name = RowName("stream", "bare-batch32", bytes),
                             .bytes = bytes,
                             .make = [=] { return std::make_unique<BareStream>(bytes); }});
  }
}

}  // namespace kmcl::bench

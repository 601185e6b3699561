// One memfd that both ends of a connection map: made by its owner or adopted from a stranger, how
// long it is now, and a standing view of it. It never shrinks. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "mutex.h"
#include "result.h"
#include "transport/descriptor.h"
#include "transport/link.h"

namespace kmcl::transport {

// Standing views end here; what lies beyond is mapped piece by piece. A file costs its owner
// nothing as long as it is empty, so this keeps a thousand hostile clients from using up the
// addresses of their server: for each of two regions, at most twice this.
inline constexpr std::uint64_t kMaximumWindowPages = (std::uint64_t{16} << 30) / wire::kPageBytes;

// What a failed system call on a memfd means; `what` is for the log.
Error MemoryErrorFromErrno(const char* what);

class MemoryRegion {
 public:
  // An empty memfd, sealed against shrinking. kOutOfMemory, kOutOfDescriptors, kSystemCall.
  [[nodiscard]] static Result<std::unique_ptr<MemoryRegion>> Create(const char* name);

  // Takes a descriptor that came from a stranger.
  // kMemoryNotSealed: the memory could shrink, and a mapped page that is gone kills who touches it.
  // kMemoryKind: not a memfd of ordinary pages that we may write.
  // kPageOutOfRange: smaller than `minimum_pages`.
  [[nodiscard]] static Result<std::unique_ptr<MemoryRegion>> Adopt(Descriptor memory,
                                                                   std::uint64_t minimum_pages);

  // Whole pages that exist now; they stay. kSystemCall.
  [[nodiscard]] Result<std::uint64_t> PageCount() const;
  // At least so many from now on. kOutOfMemory.
  [[nodiscard]] Result<void> Grow(std::uint64_t pages);
  // Gives the memory of these pages back to the system; they read as zeroes from now on. False when
  // it could not be done (logged): they still hold their bytes.
  bool Punch(std::uint64_t first, std::uint64_t count);

  // Where `count` pages from `first` on stand in our address space, for as long as this object
  // lives; nullptr when some do not exist, or lie beyond kMaximumWindowPages, or the system has no
  // addresses left. Costs a comparison once pages near them were asked for. Pages are populated on
  // first touch.
  std::byte* Window(std::uint64_t first, std::uint64_t count);

  // Another descriptor of the same memory, to pass on. kOutOfDescriptors.
  [[nodiscard]] Result<Descriptor> Duplicate() const;
  int fd() const { return memory_.get(); }

 private:
  explicit MemoryRegion(Descriptor memory) : memory_(std::move(memory)) {}
  bool Widen(std::uint64_t pages) KMCL_EXCLUDES(mutex_);

  const Descriptor memory_;
  // The first `window_pages_` pages stand at `window_`. Both only change for the better: a newer
  // window has the older ones' pages too, and the older ones stay mapped for who holds a pointer.
  std::atomic<std::byte*> window_{nullptr};
  std::atomic<std::uint64_t> window_pages_{0};
  Mutex mutex_;
  std::vector<Mapping> mappings_ KMCL_GUARDED_BY(mutex_);  // the present window's is the last
};

}  // namespace kmcl::transport

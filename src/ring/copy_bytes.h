// Moving bytes into and out of shared pages.
//
// Most packets are short, and a call per packet is a good part of their price: copies up to 256
// bytes are laid out inline, longer ones go to memcpy, and from 1 KiB on to the processor's own
// string instruction, which moves whole cache lines and fetches them early. Blocks may overlap
// inside one copy, so a byte of the source can be read twice. That is harmless for what we do with
// it: only the copy is ever looked at.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// A sanitizer has to see what is read and written: it knows memcpy.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define KMCL_SANITIZER_WATCHES_COPIES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || \
    __has_feature(memory_sanitizer)
#define KMCL_SANITIZER_WATCHES_COPIES 1
#endif
#endif

namespace kmcl::ring {

static_assert(std::endian::native == std::endian::little, "VMBus is little-endian");

inline constexpr std::size_t kInlineCopyBytes = 256;
inline constexpr std::size_t kStringCopyBytes = 1024;

inline void StoreWord(std::byte* to, std::uint64_t word) { std::memcpy(to, &word, sizeof(word)); }

// Loads an aligned word of shared memory exactly once. A plain load would allow the compiler to
// load it again later, after the peer has changed it. Ordered by the acquire that made the packet
// visible (R1).
inline std::uint64_t LoadWordOnce(std::byte* from) {
  return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(from))
      .load(std::memory_order_relaxed);
}

// At most kInlineCopyBytes.
inline void CopyShort(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes >= 64) {
    //  |  64  |  64  | .. |   the last block ends where the copy ends, and may overlap the one
    //  before
    std::byte* const last = to + (bytes - 64);
    const std::byte* const last_from = from + (bytes - 64);
    for (; to < last; to += 64, from += 64) std::memcpy(to, from, 64);
    std::memcpy(last, last_from, 64);
  } else if (bytes >= 32) {
    std::memcpy(to, from, 32);
    std::memcpy(to + (bytes - 32), from + (bytes - 32), 32);
  } else if (bytes >= 16) {
    std::memcpy(to, from, 16);
    std::memcpy(to + (bytes - 16), from + (bytes - 16), 16);
  } else if (bytes >= 8) {
    std::memcpy(to, from, 8);
    std::memcpy(to + (bytes - 8), from + (bytes - 8), 8);
  } else {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = from[i];
  }
}

// The same, out of memory that has probably just been written a field at a time, as a packet's
// first fields are. A load that covers more than one of these stores waits until they have left the
// store buffer; there they stand behind our stores of the packet before, into lines that the peer's
// CPU holds. Word by word each load takes its value from one store, and nothing waits for a line.
inline void CopyFreshShort(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes >= 64) [[likely]] {
    for (std::size_t at = 0; at < 16; at += sizeof(std::uint64_t)) {
      std::uint64_t word;
      std::memcpy(&word, from + at, sizeof(word));
      asm volatile("" : "+r"(word));  // or the compiler makes one load of two
      StoreWord(to + at, word);
    }
    std::memcpy(to + 16, from + 16, 48);
    if (bytes > 64) CopyShort(to + 64, from + 64, bytes - 64);
  } else {
    CopyShort(to, from, bytes);
  }
}

// More than kInlineCopyBytes.
inline void CopyLong(std::byte* to, const std::byte* from, std::size_t bytes) {
#if defined(__x86_64__) && !defined(KMCL_SANITIZER_WATCHES_COPIES)
  if (bytes >= kStringCopyBytes) {
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

inline void CopyBytes(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > kInlineCopyBytes) {
    CopyLong(to, from, bytes);
  } else {
    CopyShort(to, from, bytes);
  }
}

inline void CopyFreshBytes(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > kInlineCopyBytes) {
    CopyLong(to, from, bytes);
  } else {
    CopyFreshShort(to, from, bytes);
  }
}

// For multiples of 8 that are mostly empty or one word: type-specific headers and pipe headers.
inline void CopyUnits(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes == sizeof(std::uint64_t)) {
    std::memcpy(to, from, sizeof(std::uint64_t));
  } else if (bytes != 0) {
    std::memcpy(to, from, bytes);
  }
}

// Has the line of `at` brought here for writing, if there is one: whoever reads the ring still has
// it from the last time round. Lines that come one after the other, each when it is stored to, are
// what a stream of short packets otherwise waits for.
inline void AskForLineToWrite(const std::byte* at) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*at));  // the built-in one would ask for a line to read
#else
  __builtin_prefetch(at, 1);
#endif
}
inline constexpr std::size_t kBytesAhead = 2 * 64;

// The compiler must not satisfy later reads of a private copy from the shared bytes it was made of:
// the peer may have changed them after they were checked. Costs no instruction.
inline void ForgetSharedSource() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace kmcl::ring

// What the compiler calls for each atomic operation of the library, and for each other access to
// memory: the library's sources are compiled with -fsanitize=thread and linked with this in place
// of the thread sanitizer. So every atomic operation is a place where another thread may come
// between, whoever wrote it and wherever it stands, and the library itself knows nothing of it.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "memory.h"
#include "scheduler.h"

namespace kmcl::sim {
namespace {

constexpr int kSequential = __ATOMIC_SEQ_CST;

template <typename T>
T Load(const volatile T* from) {
  CheckAccess(const_cast<T*>(from));
  Step();
  if constexpr (sizeof(T) <= 8) {
    if (store_buffers) {
      if (const BufferedStore* const own = FindBuffered(from)) return static_cast<T>(own->value);
    }
  }
  return __atomic_load_n(from, kSequential);
}

template <typename T>
void Store(volatile T* to, T value, int order) {
  CheckAccess(const_cast<T*>(to));
  Step();
  if constexpr (sizeof(T) <= 8) {
    if (store_buffers && order != kSequential) {
      return Buffer(const_cast<T*>(to), static_cast<std::uint64_t>(value), sizeof(T));
    }
  }
  FlushStores();
  __atomic_store_n(to, value, kSequential);
}

// Before one that reads and writes: nothing of ours stays behind.
template <typename T>
void BeforeUpdate(volatile T* word) {
  CheckAccess(const_cast<T*>(word));
  Step();
  FlushStores();
}

template <typename T>
bool CompareExchange(volatile T* word, T* expected, T desired, bool weak) {
  BeforeUpdate(word);
  // A weak one may fail for no reason.
  if (weak && Choices().OneIn(16)) {
    *expected = __atomic_load_n(word, kSequential);
    return false;
  }
  return __atomic_compare_exchange_n(word, expected, desired, false, kSequential, kSequential);
}

}  // namespace
}  // namespace kmcl::sim

using namespace kmcl::sim;

#define KMCL_SIM_ATOMICS(bits, type)                                                      \
  type __tsan_atomic##bits##_load(const volatile type* from, int) { return Load(from); }  \
  void __tsan_atomic##bits##_store(volatile type* to, type value, int order) {            \
    Store(to, value, order);                                                              \
  }                                                                                       \
  type __tsan_atomic##bits##_exchange(volatile type* word, type value, int) {             \
    BeforeUpdate(word);                                                                   \
    return __atomic_exchange_n(word, value, kSequential);                                 \
  }                                                                                       \
  type __tsan_atomic##bits##_fetch_add(volatile type* word, type value, int) {            \
    BeforeUpdate(word);                                                                   \
    return __atomic_fetch_add(word, value, kSequential);                                  \
  }                                                                                       \
  type __tsan_atomic##bits##_fetch_sub(volatile type* word, type value, int) {            \
    BeforeUpdate(word);                                                                   \
    return __atomic_fetch_sub(word, value, kSequential);                                  \
  }                                                                                       \
  type __tsan_atomic##bits##_fetch_and(volatile type* word, type value, int) {            \
    BeforeUpdate(word);                                                                   \
    return __atomic_fetch_and(word, value, kSequential);                                  \
  }                                                                                       \
  type __tsan_atomic##bits##_fetch_or(volatile type* word, type value, int) {             \
    BeforeUpdate(word);                                                                   \
    return __atomic_fetch_or(word, value, kSequential);                                   \
  }                                                                                       \
  type __tsan_atomic##bits##_fetch_xor(volatile type* word, type value, int) {            \
    BeforeUpdate(word);                                                                   \
    return __atomic_fetch_xor(word, value, kSequential);                                  \
  }                                                                                       \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile type* word, type* expected, \
                                                     type desired, int, int) {            \
    return CompareExchange(word, expected, desired, false);                               \
  }                                                                                       \
  bool __tsan_atomic##bits##_compare_exchange_weak(volatile type* word, type* expected,   \
                                                   type desired, int, int) {              \
    return CompareExchange(word, expected, desired, true);                                \
  }                                                                                       \
  type __tsan_atomic##bits##_compare_exchange_val(volatile type* word, type expected,     \
                                                  type desired, int, int) {               \
    CompareExchange(word, &expected, desired, false);                                     \
    return expected;                                                                      \
  }

#define KMCL_SIM_ACCESS(bytes)                                         \
  void __tsan_read##bytes(void* from) { CheckAccess(from); }           \
  void __tsan_write##bytes(void* to) { CheckAccess(to); }              \
  void __tsan_unaligned_read##bytes(void* from) { CheckAccess(from); } \
  void __tsan_unaligned_write##bytes(void* to) { CheckAccess(to); }    \
  void __tsan_volatile_read##bytes(void* from) { CheckAccess(from); }  \
  void __tsan_volatile_write##bytes(void* to) { CheckAccess(to); }

extern "C" {
KMCL_SIM_ATOMICS(8, std::uint8_t)
KMCL_SIM_ATOMICS(16, std::uint16_t)
KMCL_SIM_ATOMICS(32, std::uint32_t)
KMCL_SIM_ATOMICS(64, std::uint64_t)

// The list without a lock exchanges two words at once.
__extension__ typedef unsigned __int128 TwoWords;
bool __tsan_atomic128_compare_exchange_strong(volatile TwoWords* word, TwoWords* expected,
                                              TwoWords desired, int, int) {
  BeforeUpdate(word);
  const TwoWords before = __sync_val_compare_and_swap(word, *expected, desired);
  const bool same = before == *expected;
  *expected = before;
  return same;
}

KMCL_SIM_ACCESS(1)
KMCL_SIM_ACCESS(2)
KMCL_SIM_ACCESS(4)
KMCL_SIM_ACCESS(8)
KMCL_SIM_ACCESS(16)
void __tsan_read_range(void* from, std::size_t) { CheckAccess(from); }
void __tsan_write_range(void* to, std::size_t) { CheckAccess(to); }
// clang's, for what the compiler makes calls of anyway.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  CheckAccess(to);
  CheckAccess(from);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  CheckAccess(to);
  CheckAccess(from);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  CheckAccess(to);
  return std::memset(to, value, bytes);
}
void __tsan_vptr_update(void** object, void*) { CheckAccess(object); }
void __tsan_vptr_read(void** object) { CheckAccess(object); }

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_atomic_thread_fence(int) {
  Step();
  FlushStores();
}
void __tsan_atomic_signal_fence(int) {}

// What src/mutex.h tells the thread sanitizer. We keep who holds how many locks: none may be held
// when the library calls a driver.
void __tsan_mutex_create(void*, unsigned) {}
void __tsan_mutex_destroy(void*, unsigned) {}
void __tsan_mutex_pre_lock(void*, unsigned) {}
void __tsan_mutex_post_lock(void* mutex, unsigned flags, int) {
  if ((flags & 0x20) != 0) return;  // __tsan_mutex_try_lock_failed
  Fiber& self = Current();
  if (self.locks_held < self.locks.size()) self.locks[self.locks_held] = mutex;
  ++self.locks_held;
}
int __tsan_mutex_pre_unlock(void*, unsigned) { return 0; }
void __tsan_mutex_post_unlock(void* mutex, unsigned) {
  Fiber& self = Current();
  if (self.locks_held == 0) Fail("a lock is given back that is not held");
  --self.locks_held;
  // They are not always given back in the opposite order.
  for (std::uint32_t i = 0; i < self.locks_held && i < self.locks.size(); ++i) {
    if (self.locks[i] == mutex && self.locks_held < self.locks.size()) {
      self.locks[i] = self.locks[self.locks_held];
      break;
    }
  }
  Step();
}
}

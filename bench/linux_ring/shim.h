/* What drivers/hv/ring_buffer.c and the three headers that describe its structures ask of a kernel,
 * in user space. They come unchanged out of Debian's linux-source package when the benchmark is
 * built; everything here was written for it. What costs something in the kernel costs the same
 * here: the spinlock is a locked exchange, a full barrier is a locked instruction. Switching
 * interrupts off is not charged. What the ring never touches is an empty structure. */
#ifndef KMCL_BENCH_LINUX_RING_SHIM_H
#define KMCL_BENCH_LINUX_RING_SHIM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef uint64_t u64, __u64;
typedef int32_t s32, __s32;
typedef int64_t s64, __s64;
typedef struct {
  u8 b[16];
} guid_t;
typedef guid_t uuid_le;
typedef u64 resource_size_t, phys_addr_t, dma_addr_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define HV_HYP_PAGE_SHIFT 12
#define HV_HYP_PAGE_SIZE 4096UL
#define PFN_DOWN(bytes) ((bytes) >> PAGE_SHIFT)
#define PAGE_ALIGN(bytes) (((bytes) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1))
#define BIT(n) (1UL << (n))
#define U64_MAX UINT64_MAX
#define __packed __attribute__((packed))
#define __init
#define __must_check
#define __always_inline inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define container_of(pointer, type, member) ((type*)((char*)(pointer) - offsetof(type, member)))
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), #condition)
#define EXPORT_SYMBOL_GPL(name)

#define READ_ONCE(x) (*(const volatile __typeof__(x)*)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x)*)&(x) = (value))
#define barrier() __asm__ volatile("" ::: "memory")
#if defined(__x86_64__)
#define virt_mb() __asm__ volatile("lock; addl $0,-4(%%rsp)" ::: "memory", "cc")
#define virt_rmb() barrier()
#define cpu_relax() __builtin_ia32_pause()
#else
#define virt_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define virt_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define cpu_relax() barrier()
#endif
#define virt_load_acquire(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)

typedef struct {
  u32 held;
} spinlock_t;
#define spin_lock_init(lock) ((lock)->held = 0)
#define spin_is_locked(lock) (READ_ONCE((lock)->held) != 0)
#define spin_lock_irqsave(lock, flags)                                     \
  do {                                                                     \
    (flags) = 0;                                                           \
    while (__atomic_exchange_n(&(lock)->held, 1, __ATOMIC_ACQUIRE) != 0) { \
      cpu_relax();                                                         \
    }                                                                      \
  } while (0)
#define spin_unlock_irqrestore(lock, flags)               \
  do {                                                    \
    (void)(flags);                                        \
    __atomic_store_n(&(lock)->held, 0, __ATOMIC_RELEASE); \
  } while (0)

/* Only around what makes and ends a ring. */
struct mutex {
  int unused;
};
#define mutex_init(m) ((void)(m))
#define mutex_lock(m) ((void)(m))
#define mutex_unlock(m) ((void)(m))

struct kvec {
  void* iov_base;
  size_t iov_len;
};
struct page {
  char bytes[PAGE_SIZE];
};
struct reciprocal_value {
  u32 m;
  u8 sh1, sh2;
};
static inline struct reciprocal_value reciprocal_value(u32 d) {
  (void)d;
  return (struct reciprocal_value){0, 0, 0};
}
#define reciprocal_divide(a, r) ((a) / ((r).m + 1))

#define GFP_KERNEL 0
#define VM_MAP 0
#define PAGE_KERNEL 0
#define kcalloc(count, bytes, flags) calloc(count, bytes)
#define kzalloc(bytes, flags) calloc(1, bytes)
#define kfree(pointer) free(pointer)
/* glue.c has mapped the pages already, twice in a row as the caller wants them. */
void* linux_ring_mapping(void);
#define vmap(pages, count, flags, protection) ((void)(pages), linux_ring_mapping())
#define vmap_pfn(pfns, count, protection) ((void)(pfns), linux_ring_mapping())
#define vunmap(pointer) ((void)(pointer))
#define page_to_pfn(page) ((u64)(uintptr_t)(page) >> PAGE_SHIFT)
#define hv_isolation_type_snp() false
static const struct {
  u64 shared_gpa_boundary;
} ms_hyperv = {0};

struct list_head {
  struct list_head *next, *prev;
};
struct rcu_head {
  void* unused[2];
};
struct kobject {
  void* unused[8];
};
struct completion {
  u32 done;
  void* unused[2];
};
struct tasklet_struct {
  void* unused[5];
};
struct work_struct {
  void* unused[4];
};
struct device {
  void* driver_data;
};
struct device_driver {
  void* unused;
};
struct device_dma_parameters {
  u32 unused;
};
struct dentry;
struct kset;
struct resource;
struct hv_vmbus_device_id;
struct vmbus_channel;
static inline void dev_set_drvdata(struct device* d, void* data) { d->driver_data = data; }
static inline void* dev_get_drvdata(const struct device* d) { return d->driver_data; }

/* What drivers/hv/hyperv_vmbus.h and asm/hyperv-tlfs.h would have declared. */
void vmbus_setevent(struct vmbus_channel* channel);
#define hv_debug_delay_test(channel, kind) ((void)0)

#endif

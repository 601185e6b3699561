/* kmcl/wdk/interlocked.h - atomic operations on variables of the driver's.
 *
 * Each is a full barrier, as on Windows. Names without suffix work on 32 bits, 64 on 64, 16 and 8 on
 * those, Pointer on pointers. Any thread, any level.
 */
#ifndef KMCL_WDK_INTERLOCKED_H
#define KMCL_WDK_INTERLOCKED_H

#include <kmcl/nt.h>

#define KMCL_INTERLOCKED_FAMILY(suffix, type)                                                      \
    FORCEINLINE type InterlockedIncrement##suffix(type volatile *Target) {                         \
        return __atomic_add_fetch(Target, 1, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    FORCEINLINE type InterlockedDecrement##suffix(type volatile *Target) {                         \
        return __atomic_sub_fetch(Target, 1, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    /* These five return the value before. */                                                      \
    FORCEINLINE type InterlockedExchange##suffix(type volatile *Target, type Value) {              \
        return __atomic_exchange_n(Target, Value, __ATOMIC_SEQ_CST);                               \
    }                                                                                              \
    FORCEINLINE type InterlockedExchangeAdd##suffix(type volatile *Target, type Value) {           \
        return __atomic_fetch_add(Target, Value, __ATOMIC_SEQ_CST);                                \
    }                                                                                              \
    FORCEINLINE type InterlockedOr##suffix(type volatile *Target, type Value) {                    \
        return __atomic_fetch_or(Target, Value, __ATOMIC_SEQ_CST);                                 \
    }                                                                                              \
    FORCEINLINE type InterlockedAnd##suffix(type volatile *Target, type Value) {                   \
        return __atomic_fetch_and(Target, Value, __ATOMIC_SEQ_CST);                                \
    }                                                                                              \
    FORCEINLINE type InterlockedXor##suffix(type volatile *Target, type Value) {                   \
        return __atomic_fetch_xor(Target, Value, __ATOMIC_SEQ_CST);                                \
    }                                                                                              \
    FORCEINLINE type InterlockedAdd##suffix(type volatile *Target, type Value) {                   \
        return __atomic_add_fetch(Target, Value, __ATOMIC_SEQ_CST);                                \
    }                                                                                              \
    /* Stores Value if *Target is Comparand; returns what *Target was. */                          \
    FORCEINLINE type InterlockedCompareExchange##suffix(type volatile *Target, type Value,         \
                                                        type Comparand) {                          \
        (void)__atomic_compare_exchange_n(Target, &Comparand, Value, 0, __ATOMIC_SEQ_CST,          \
                                          __ATOMIC_SEQ_CST);                                       \
        return Comparand;                                                                          \
    }

#ifdef __cplusplus
extern "C" {
#endif

KMCL_INTERLOCKED_FAMILY(, LONG)
KMCL_INTERLOCKED_FAMILY(64, LONG64)
KMCL_INTERLOCKED_FAMILY(16, SHORT)
KMCL_INTERLOCKED_FAMILY(8, CHAR)
#undef KMCL_INTERLOCKED_FAMILY

FORCEINLINE PVOID InterlockedExchangePointer(PVOID volatile *Target, PVOID Value) {
    return __atomic_exchange_n(Target, Value, __ATOMIC_SEQ_CST);
}
FORCEINLINE PVOID InterlockedCompareExchangePointer(PVOID volatile *Target, PVOID Value,
                                                    PVOID Comparand) {
    (void)__atomic_compare_exchange_n(Target, &Comparand, Value, 0, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST);
    return Comparand;
}

/* Sets or clears bit `Bit` of the bits that begin at *Base; returns what it was. */
FORCEINLINE BOOLEAN InterlockedBitTestAndSet(LONG volatile *Base, LONG Bit) {
    const ULONG mask = 1u << (Bit & 31);
    return ((ULONG)__atomic_fetch_or(Base + (Bit >> 5), (LONG)mask, __ATOMIC_SEQ_CST) & mask) != 0;
}
FORCEINLINE BOOLEAN InterlockedBitTestAndReset(LONG volatile *Base, LONG Bit) {
    const ULONG mask = 1u << (Bit & 31);
    return ((ULONG)__atomic_fetch_and(Base + (Bit >> 5), (LONG)~mask, __ATOMIC_SEQ_CST) & mask) !=
           0;
}

FORCEINLINE VOID KeMemoryBarrier(VOID) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#define MemoryBarrier() KeMemoryBarrier()

FORCEINLINE LONG ReadAcquire(LONG const volatile *Source) {
    return __atomic_load_n(Source, __ATOMIC_ACQUIRE);
}
FORCEINLINE LONG ReadNoFence(LONG const volatile *Source) {
    return __atomic_load_n(Source, __ATOMIC_RELAXED);
}
FORCEINLINE VOID WriteRelease(LONG volatile *Destination, LONG Value) {
    __atomic_store_n(Destination, Value, __ATOMIC_RELEASE);
}
FORCEINLINE VOID WriteNoFence(LONG volatile *Destination, LONG Value) {
    __atomic_store_n(Destination, Value, __ATOMIC_RELAXED);
}

/* Tells the processor that this thread waits in a loop. */
FORCEINLINE VOID YieldProcessor(VOID) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_INTERLOCKED_H */

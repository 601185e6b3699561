/* kmcl/wdk/debug.h - what a driver says to its author, and what it insists on.
 *
 * Messages go where the library's own log lines go (KmclSetLogSink). Formats are those of Windows: %d,
 * %u, %x and %lu take 32 bits, %I64 and %ll 64, %Iu and %zu the size of a pointer, %wZ a UNICODE_STRING,
 * %ws and %S a string of UTF-16, %p, %s, %c.
 */
#ifndef KMCL_WDK_DEBUG_H
#define KMCL_WDK_DEBUG_H

#include <kmcl/nt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A checked build of the driver: DBG is 1 unless NDEBUG is defined. */
#ifndef DBG
#ifdef NDEBUG
#define DBG 0
#else
#define DBG 1
#endif
#endif

/* Levels of DbgPrintEx. An error is always logged; the others from the log level of their kind on. */
#define DPFLTR_ERROR_LEVEL 0
#define DPFLTR_WARNING_LEVEL 1
#define DPFLTR_TRACE_LEVEL 2
#define DPFLTR_INFO_LEVEL 3
/* Components are not told apart. */
#define DPFLTR_SYSTEM_ID 0
#define DPFLTR_IHVDRIVER_ID 77
#define DPFLTR_IHVNETWORK_ID 80
#define DPFLTR_DEFAULT_ID 101

/* One message, of at most 500 characters; a newline at its end is left out. DbgPrint is at
 * DPFLTR_INFO_LEVEL. <= DISPATCH, any thread. STATUS_SUCCESS. */
ULONG DbgPrint(_In_ PCSTR Format, ...);
ULONG DbgPrintEx(_In_ ULONG ComponentId, _In_ ULONG Level, _In_ PCSTR Format, ...);

/* An assertion that does not hold: logs it and aborts. */
__attribute__((noreturn)) VOID RtlAssert(_In_ const char *FailedAssertion, _In_ const char *FileName,
                                         _In_ ULONG LineNumber, _In_opt_ const char *Message);
/* Logs the numbers and aborts. */
__attribute__((noreturn)) VOID KeBugCheckEx(_In_ ULONG BugCheckCode, _In_ ULONG_PTR P1,
                                            _In_ ULONG_PTR P2, _In_ ULONG_PTR P3,
                                            _In_ ULONG_PTR P4);

#if DBG
#define KdPrint(_x_) ((void)DbgPrint _x_)
#define KdPrintEx(_x_) ((void)DbgPrintEx _x_)
#define NT_ASSERT(e) ((e) ? (void)0 : RtlAssert(#e, __FILE__, __LINE__, NULL))
#define NT_ASSERTMSG(m, e) ((e) ? (void)0 : RtlAssert(#e, __FILE__, __LINE__, (m)))
#define NT_VERIFY(e) NT_ASSERT(e)
/* This code may be paged, so it must run below DISPATCH_LEVEL. */
#define PAGED_CODE() NT_ASSERT(KeGetCurrentIrql() <= APC_LEVEL)
#else
#define KdPrint(_x_) ((void)0)
#define KdPrintEx(_x_) ((void)0)
#define NT_ASSERT(e) ((void)0)
#define NT_ASSERTMSG(m, e) ((void)0)
#define NT_VERIFY(e) ((void)(e))
#define PAGED_CODE() ((void)0)
#endif
#ifndef ASSERT
#define ASSERT(e) NT_ASSERT(e)
#define ASSERTMSG(m, e) NT_ASSERTMSG(m, e)
#endif
#define DbgBreakPoint() __builtin_trap()

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_DEBUG_H */

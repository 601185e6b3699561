/* kmcl/wdk/events.h - events, waiting for them, and waiting for time to pass.
 *
 * Timeouts and intervals: units of 100 ns, negative from now on, positive an absolute system time
 * (since 1601). NULL is for ever, a value of 0 is not at all (KMCL reference 5.6).
 */
#ifndef KMCL_WDK_EVENTS_H
#define KMCL_WDK_EVENTS_H

#include <kmcl/nt.h>
#include <kmcl/wdk/mdl.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct _LIST_ENTRY {
    struct _LIST_ENTRY *Flink;
    struct _LIST_ENTRY *Blink;
} LIST_ENTRY, *PLIST_ENTRY;

typedef enum _EVENT_TYPE { NotificationEvent = 0, SynchronizationEvent = 1 } EVENT_TYPE;
typedef LONG KPRIORITY;
#define IO_NO_INCREMENT 0
#define EVENT_INCREMENT 1

/* What can be waited for begins with one of these. Its fields are the library's. */
typedef struct _DISPATCHER_HEADER {
    UCHAR Type; /* an EVENT_TYPE */
    UCHAR Reserved[3];
    LONG SignalState; /* bit 0: signalled; bit 1: somebody may wait. Read it with KeReadStateEvent. */
    LIST_ENTRY WaitListHead;
} DISPATCHER_HEADER;

/* Signalled or not. A notification event stays signalled until it is cleared, and lets everybody
 * through; a synchronization event lets one waiter through and clears itself. In the driver's own
 * memory, which may go as soon as a wait for its last KeSetEvent has returned. */
typedef struct _KEVENT {
    DISPATCHER_HEADER Header;
} KEVENT, *PKEVENT, *PRKEVENT;

/* Any thread. <= DISPATCH, does not block. */
VOID KeInitializeEvent(_Out_ PRKEVENT Event, _In_ EVENT_TYPE Type, _In_ BOOLEAN State);
/* Both return whether the event was signalled before: not 0. Increment means nothing here. `Wait`
 * promises a wait right behind the call, and changes nothing here. */
LONG KeSetEvent(_Inout_ PRKEVENT Event, _In_ KPRIORITY Increment, _In_ BOOLEAN Wait);
LONG KeResetEvent(_Inout_ PRKEVENT Event);
VOID KeClearEvent(_Inout_ PRKEVENT Event);
LONG KeReadStateEvent(_In_ PRKEVENT Event);

typedef enum _KWAIT_REASON {
    Executive = 0,
    FreePage,
    PageIn,
    PoolAllocation,
    DelayExecution,
    Suspended,
    UserRequest
} KWAIT_REASON;

/* Waits until a KEVENT is signalled. Reason, mode and Alertable mean nothing here: no wait is
 * interrupted. Below DISPATCH_LEVEL, or at DISPATCH_LEVEL with a timeout of 0; anything else aborts, as
 * it stops Windows.
 *   STATUS_SUCCESS  it was signalled.
 *   STATUS_TIMEOUT  the time was up first. NT_SUCCESS is true for it. */
NTSTATUS KeWaitForSingleObject(_In_ PVOID Object, _In_ KWAIT_REASON WaitReason,
                               _In_ KPROCESSOR_MODE WaitMode, _In_ BOOLEAN Alertable,
                               _In_opt_ PLARGE_INTEGER Timeout);

/* Waits. PASSIVE_LEVEL or APC_LEVEL (checked: aborts). STATUS_SUCCESS. */
NTSTATUS KeDelayExecutionThread(_In_ KPROCESSOR_MODE WaitMode, _In_ BOOLEAN Alertable,
                                _In_ PLARGE_INTEGER Interval);
/* Waits for so many microseconds without letting go of the processor. Any level. */
VOID KeStallExecutionProcessor(_In_ ULONG MicroSeconds);

/* ---- Clocks. Any thread, any level. ---------------------------------------------------------- */

/* A counter that never goes back. *PerformanceFrequency, if not NULL, receives its steps a second. */
LARGE_INTEGER KeQueryPerformanceCounter(_Out_opt_ PLARGE_INTEGER PerformanceFrequency);
/* 100 ns since the beginning of 1601, as the system's clock is set. */
VOID KeQuerySystemTime(_Out_ PLARGE_INTEGER CurrentTime);
#define KeQuerySystemTimePrecise KeQuerySystemTime
/* 100 ns since the system started. */
ULONGLONG KeQueryInterruptTime(VOID);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_EVENTS_H */

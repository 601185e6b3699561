/* kmcl/verifier.h - what Driver Verifier is to Windows drivers: misuse of KMCL is caught where it happens.
 *
 * An extension of kmcl. The verifier follows every channel, packet and callback of a program. When the
 * program breaks a rule of the contract it says so: a numbered check, what was done wrong, what to do
 * instead, where (function, file and line, as far as the program's symbols tell), and a stack trace.
 * Then it stops the program, or goes on, by choice. docs/verifier.md explains each check, with wrong and
 * right code.
 *
 * It is off at first and then costs nothing on the packet path. On, everything is slower; it is for
 * development and tests. It is switched on by KmclVerifierEnable or, without a change to the program, by
 * the environment variable KMCL_VERIFIER: a list of words with commas between them.
 *
 *   1, on, stop    on; a violation stops the program
 *   log            on; a violation is logged, and the call that made it does nothing or fails
 *   0, off         off, as without the variable
 *   -V07           leaves out check 7
 *   callback=MS    milliseconds for a callback at DISPATCH_LEVEL; default 1000; 0: no limit
 *   passive=MS     milliseconds for a callback at PASSIVE_LEVEL; default 30000; 0: no limit
 *   drain=MS       milliseconds that received packets may stay outstanding after EvtVmbChannelSuspend;
 *                  default 10000; 0: no limit
 *
 * Freed packets and cleaned-up channels are kept from reuse for a while (the last 4096 of them, 16 MiB at
 * most), so that a stale handle is recognised.
 */
#ifndef KMCL_VERIFIER_H
#define KMCL_VERIFIER_H

#include <kmcl/kmcl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The checks. A number never changes its meaning. */
typedef enum KMCL_VERIFIER_CHECK {
    KmclCheckCompletedTwice = 1,      /* V01: a received packet was retired twice */
    KmclCheckNotCompleted = 2,        /* V02: a received packet is still outstanding long after Suspend */
    KmclCheckPacketFreed = 3,         /* V03: use of a packet that was freed */
    KmclCheckChannelFreed = 4,        /* V04: use of a channel that was cleaned up */
    KmclCheckFreedInFlight = 5,       /* V05: a packet was freed while it is in flight */
    KmclCheckSentInFlight = 6,        /* V06: a packet was sent while it is in flight */
    KmclCheckNoRoutine = 7,           /* V07: a packet was sent without a completion routine */
    KmclCheckLevel = 8,               /* V08: a call for PASSIVE_LEVEL, above it */
    KmclCheckInCallback = 9,          /* V09: a call that this callback must not make */
    KmclCheckInitWindow = 10,         /* V10: an Init function outside of the Init window */
    KmclCheckGpadlLeft = 11,          /* V11: a GPADL was left behind at EvtVmbChannelClosed */
    KmclCheckGpadlUnbalanced = 12,    /* V12: map and unmap of a GPADL do not pair */
    KmclCheckSlowCallback = 13,       /* V13: a callback has run for too long */
    KmclCheckSendAfterSuspend = 14,   /* V14: a send between Suspend and the next start */
    KmclCheckPacketLeaked = 15,       /* V15: packets were not freed before VmbChannelCleanup */
    KmclCheckFreeOfCallers = 16,      /* V16: VmbPacketFree of a packet of VmbPacketInitialize */
    KmclCheckInitializeInFlight = 17, /* V17: VmbPacketInitialize over a packet that is in use */
    KmclCheckRoutineChanged = 18,     /* V18: the completion routine changed in flight */
    KmclCheckLevelChanged = 19,       /* V19: a callback returned at another level, or with a lock */
    KmclCheckHandle = 20,             /* V20: not a handle, or of the wrong kind or end */
    KmclCheckWrittenAfterFree = 21,   /* V21: freed memory was written */
    KmclCheckDeferred = 22,           /* V22: VmbChannelPacketDeferToPassive at the wrong time */
    KmclCheckCompletionTooLong = 23,  /* V23: a completion longer than the maximum packet size */
    KmclCheckCleanupEnabled = 24,     /* V24: VmbChannelCleanup of a channel that is not Disabled */
    KmclCheckEndpointInUse = 25       /* V25: an endpoint was destroyed before its channels */
} KMCL_VERIFIER_CHECK;
#define KMCL_VERIFIER_LAST_CHECK 25

typedef enum KMCL_VERIFIER_ACTION {
    KmclVerifierStop = 0, /* report, then abort() */
    KmclVerifierLog = 1   /* report, then go on: the call does nothing or fails, where it can */
} KMCL_VERIFIER_ACTION;

typedef struct KMCL_VERIFIER_OPTIONS {
    ULONG Size;                 /* sizeof(KMCL_VERIFIER_OPTIONS) */
    KMCL_VERIFIER_ACTION Action;
    UINT64 LeaveOut;            /* bit n: check n is not made */
    ULONG CallbackMilliseconds; /* as callback=MS above */
    ULONG PassiveMilliseconds;  /* as passive=MS */
    ULONG DrainMilliseconds;    /* as drain=MS */
} KMCL_VERIFIER_OPTIONS, *PKMCL_VERIFIER_OPTIONS;

/* Fills `Options` with the defaults: stop, all checks. */
VOID KmclVerifierOptionsInit(PKMCL_VERIFIER_OPTIONS Options);

/* Switches the verifier on, or changes its options. It follows the channels allocated from now on, so the
 * best place is the start of the program. There is no way back. `Options` may be NULL (defaults); it is
 * copied. What KMCL_VERIFIER says does not count any more. Any thread.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  Size or Action is wrong, or a bit of LeaveOut names no check.
 *   STATUS_NOT_SUPPORTED        the library was built without it (KMCL_VERIFIER=OFF). */
NTSTATUS KmclVerifierEnable(const KMCL_VERIFIER_OPTIONS *Options);

/* TRUE once the verifier is on. With the environment variable that is from the first VmbChannelAllocate. */
BOOLEAN KmclVerifierIsEnabled(VOID);

/* One violation. Everything is valid during the callback only. */
typedef struct KMCL_VERIFIER_REPORT {
    ULONG Size;
    KMCL_VERIFIER_CHECK Check;
    const char *Name;      /* "KMCL-V01" */
    const char *Violation; /* one sentence: what was done wrong */
    const char *Advice;    /* one sentence: what to do instead */
    VMBCHANNEL Channel;    /* or NULL. May be stale: not to be used, only to be compared */
    PVOID Object;          /* the packet or handle in question, or NULL; the same holds */
    PVOID FirstSite;       /* return address in the program of what came first (first completion,
                              allocation, free), or NULL */
    PVOID SecondSite;      /* return address of the call that is the violation, or NULL */
    const char *Text;      /* the whole report, with sites and stack traces, in lines */
} KMCL_VERIFIER_REPORT, *PKMCL_VERIFIER_REPORT;

/* Hands violations to `Report` instead of writing them to the log. With KmclVerifierStop the program is
 * stopped when it returns. It runs on the thread that made the mistake, or on the verifier's own (V02,
 * V13), and must not call KMCL. NULL goes back to the log. Reports that run already may still use the
 * earlier function. Any thread. */
VOID KmclVerifierSetReport(VOID (*Report)(PVOID Context, const KMCL_VERIFIER_REPORT *Violation),
                           PVOID Context);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_VERIFIER_H */

/* kmcl/nt.h - the words of the Windows kernel that KMCL's functions are spelled in.
 *
 * Types, annotations, structures, status values and the interrupt level, as far as kmcl/kmcl.h
 * needs them (KMCL reference sections 13 and 14). What else drivers borrow from a kernel (MDLs, pool,
 * events, locks, lists, work items) is in kmcl/wdk.h and the headers it names.
 *
 * C11 and C++, LP64 Linux. LONG and ULONG have 32 bits as on Windows, never the 64 of `long`.
 */
#ifndef KMCL_NT_H
#define KMCL_NT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifndef __cplusplus
#include <uchar.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions -------------------------------------------------------------------------------- */

#define NTDDI_WINBLUE 0x06030000
#define NTDDI_WIN10 0x0A000000
#ifndef NTDDI_VERSION
#define NTDDI_VERSION NTDDI_WIN10
#endif

/* ---- Annotations ----------------------------------------------------------------------------- */

#define _In_
#define _In_opt_
#define _Out_
#define _Out_opt_
#define _Inout_
#define _Inout_opt_
#define _Outptr_
#define _In_reads_(x)
#define _In_reads_opt_(x)
#define _In_reads_bytes_(x)
#define _In_reads_bytes_opt_(x)
#define _Out_writes_(x)
#define _Out_writes_bytes_(x)
#define _Out_writes_bytes_opt_(x)
#define _Out_writes_bytes_to_(a, b)
#define _Out_writes_bytes_to_opt_(a, b)
#define _In_range_(a, b)
#define _At_(a, b)
#define _When_(a, b)
#define _Pre_satisfies_(x)
#define _Success_(x)
#define _Use_decl_annotations_
#define _Function_class_(x)
#define _IRQL_requires_(x)
#define _IRQL_requires_max_(x)
#define _IRQL_requires_min_(x)
#define _IRQL_requires_same_
#define __drv_allocatesMem(x)
#define __drv_freesMem(x)
#define __drv_aliasesMem
/* The one annotation that the compiler can check. It stands before the return type. */
#define _Must_inspect_result_ __attribute__((warn_unused_result))

/* ---- Calling and compiling ------------------------------------------------------------------- */

#define FASTCALL
#define NTAPI
#define FORCEINLINE static inline __attribute__((always_inline))
#define UNREFERENCED_PARAMETER(P) ((void)(P))
#ifdef __cplusplus
#define C_ASSERT(e) static_assert(e, #e)
#else
#define C_ASSERT(e) _Static_assert(e, #e)
#endif
/* A handle type of its own: one handle cannot be passed for another. */
#define DECLARE_HANDLE(name) \
    struct name##__ {        \
        int unused;          \
    };                       \
    typedef struct name##__ *name

#define FIELD_OFFSET(type, field) ((LONG)offsetof(type, field))
#define CONTAINING_RECORD(address, type, field) \
    ((type *)(void *)((char *)(address) - offsetof(type, field)))

/* ---- Scalars --------------------------------------------------------------------------------- */

#define VOID void
#define TRUE 1
#define FALSE 0

typedef void *PVOID;
typedef void *HANDLE, **PHANDLE;
typedef char CHAR, *PCHAR;
typedef const char *PCSTR;
typedef uint8_t UCHAR, *PUCHAR;
typedef uint8_t UINT8, *PUINT8;
typedef uint8_t BOOLEAN, *PBOOLEAN;
typedef int16_t SHORT, CSHORT;
typedef uint16_t USHORT, *PUSHORT;
typedef uint16_t UINT16, *PUINT16;
typedef int32_t INT, LONG, *PLONG;
typedef int32_t INT32, *PINT32;
typedef uint32_t UINT, ULONG, *PULONG;
typedef uint32_t UINT32, *PUINT32;
typedef int64_t LONGLONG, *PLONGLONG;
typedef int64_t INT64, LONG64, *PINT64;
typedef uint64_t ULONGLONG, *PULONGLONG;
typedef uint64_t UINT64, ULONG64, *PUINT64;
typedef intptr_t LONG_PTR;
typedef uintptr_t ULONG_PTR, *PULONG_PTR;
typedef uintptr_t SIZE_T, *PSIZE_T;
typedef ULONG_PTR PFN_NUMBER, *PPFN_NUMBER;

/* One UTF-16 unit. Write string literals as u"..."; L"..." works when the driver is compiled with
 * -fshort-wchar. */
#if defined(__SIZEOF_WCHAR_T__) && __SIZEOF_WCHAR_T__ == 2
typedef wchar_t WCHAR;
#else
typedef char16_t WCHAR;
#endif
typedef WCHAR *PWSTR, *PWCHAR;
typedef const WCHAR *PCWSTR;

C_ASSERT(sizeof(LONG) == 4 && sizeof(ULONG) == 4 && sizeof(ULONG_PTR) == 8 && sizeof(WCHAR) == 2);

/* ---- Status values --------------------------------------------------------------------------- */

typedef LONG NTSTATUS, *PNTSTATUS;

#define NT_SUCCESS(s) (((NTSTATUS)(s)) >= 0)
#define NT_INFORMATION(s) ((((ULONG)(s)) >> 30) == 1)
#define NT_WARNING(s) ((((ULONG)(s)) >> 30) == 2)
#define NT_ERROR(s) ((((ULONG)(s)) >> 30) == 3)

#define STATUS_SUCCESS ((NTSTATUS)0x00000000)
#define STATUS_TIMEOUT ((NTSTATUS)0x00000102)
#define STATUS_PENDING ((NTSTATUS)0x00000103)
/* Warnings: NT_SUCCESS is false for them. */
#define STATUS_BUFFER_OVERFLOW ((NTSTATUS)0x80000005)
#define STATUS_DEVICE_BUSY ((NTSTATUS)0x80000011)
/* Errors. */
#define STATUS_UNSUCCESSFUL ((NTSTATUS)0xC0000001)
#define STATUS_NOT_IMPLEMENTED ((NTSTATUS)0xC0000002)
#define STATUS_INVALID_HANDLE ((NTSTATUS)0xC0000008)
#define STATUS_INVALID_PARAMETER ((NTSTATUS)0xC000000D)
#define STATUS_NO_SUCH_DEVICE ((NTSTATUS)0xC000000E)
#define STATUS_INVALID_DEVICE_REQUEST ((NTSTATUS)0xC0000010)
#define STATUS_MORE_PROCESSING_REQUIRED ((NTSTATUS)0xC0000016)
#define STATUS_NO_MEMORY ((NTSTATUS)0xC0000017)
#define STATUS_ACCESS_DENIED ((NTSTATUS)0xC0000022)
#define STATUS_BUFFER_TOO_SMALL ((NTSTATUS)0xC0000023)
#define STATUS_OBJECT_NAME_NOT_FOUND ((NTSTATUS)0xC0000034)
#define STATUS_OBJECT_NAME_COLLISION ((NTSTATUS)0xC0000035)
#define STATUS_DATA_ERROR ((NTSTATUS)0xC000003E)
#define STATUS_DELETE_PENDING ((NTSTATUS)0xC0000056)
#define STATUS_REVISION_MISMATCH ((NTSTATUS)0xC0000059)
#define STATUS_INSUFFICIENT_RESOURCES ((NTSTATUS)0xC000009A)
#define STATUS_DEVICE_NOT_CONNECTED ((NTSTATUS)0xC000009D)
#define STATUS_DEVICE_NOT_READY ((NTSTATUS)0xC00000A3)
#define STATUS_NOT_SUPPORTED ((NTSTATUS)0xC00000BB)
#define STATUS_INVALID_PARAMETER_1 ((NTSTATUS)0xC00000EF)
#define STATUS_INVALID_PARAMETER_2 ((NTSTATUS)0xC00000F0)
#define STATUS_INVALID_PARAMETER_3 ((NTSTATUS)0xC00000F1)
#define STATUS_INVALID_PARAMETER_4 ((NTSTATUS)0xC00000F2)
#define STATUS_INVALID_PARAMETER_5 ((NTSTATUS)0xC00000F3)
#define STATUS_INVALID_PARAMETER_6 ((NTSTATUS)0xC00000F4)
#define STATUS_INVALID_PARAMETER_7 ((NTSTATUS)0xC00000F5)
#define STATUS_INVALID_PARAMETER_8 ((NTSTATUS)0xC00000F6)
#define STATUS_CANCELLED ((NTSTATUS)0xC0000120)
#define STATUS_INVALID_DEVICE_STATE ((NTSTATUS)0xC0000184)
#define STATUS_INVALID_BUFFER_SIZE ((NTSTATUS)0xC0000206)
#define STATUS_CONNECTION_DISCONNECTED ((NTSTATUS)0xC000020C)
#define STATUS_NOT_FOUND ((NTSTATUS)0xC0000225)
#define STATUS_DEVICE_REMOVED ((NTSTATUS)0xC00002B6)
#define STATUS_NOINTERFACE ((NTSTATUS)0xC00002B9)

/* ---- Structures ------------------------------------------------------------------------------ */

typedef struct _GUID {
    uint32_t Data1;
    uint16_t Data2;
    uint16_t Data3;
    uint8_t Data4[8];
} GUID, *LPGUID;
typedef const GUID *LPCGUID;

typedef union _LARGE_INTEGER {
    __extension__ struct {
        ULONG LowPart;
        LONG HighPart;
    };
    struct {
        ULONG LowPart;
        LONG HighPart;
    } u;
    LONGLONG QuadPart;
} LARGE_INTEGER, *PLARGE_INTEGER;

typedef struct _UNICODE_STRING {
    USHORT Length;        /* bytes, without a terminator */
    USHORT MaximumLength; /* bytes that Buffer has */
    PWSTR Buffer;
} UNICODE_STRING, *PUNICODE_STRING;
typedef const UNICODE_STRING *PCUNICODE_STRING;

/* Describes locked pages; their numbers follow the structure. Chained with Next. */
typedef struct _MDL {
    struct _MDL *Next;
    CSHORT Size;
    CSHORT MdlFlags;
    struct _EPROCESS *Process;
    PVOID MappedSystemVa;
    PVOID StartVa;
    ULONG ByteCount;
    ULONG ByteOffset;
} MDL, *PMDL;

/* The device a channel belongs to. Programs get one from KmclServerDeviceObject or
 * KmclClientDeviceObject (kmcl/endpoint.h). DeviceExtension is the program's; the library neither
 * reads nor frees it. */
typedef struct _DEVICE_OBJECT {
    CSHORT Type;
    USHORT Size;
    LONG ReferenceCount;
    struct _DRIVER_OBJECT *DriverObject;
    struct _DEVICE_OBJECT *NextDevice;
    struct _DEVICE_OBJECT *AttachedDevice;
    struct _IRP *CurrentIrp;
    ULONG Flags;
    ULONG Characteristics;
    PVOID DeviceExtension;
    ULONG DeviceType;
    signed char StackSize;
    PVOID KmclBinding; /* the library's: the bus behind this device */
} DEVICE_OBJECT, *PDEVICE_OBJECT;

/* The beginning of a table of functions that one driver lends another. Whoever fills it in takes a
 * reference for the caller, who gives it back with InterfaceDereference (KMCL reference 2.5). */
typedef VOID INTERFACE_REFERENCE_ROUTINE(PVOID Context);
typedef VOID INTERFACE_DEREFERENCE_ROUTINE(PVOID Context);
typedef INTERFACE_REFERENCE_ROUTINE *PINTERFACE_REFERENCE;
typedef INTERFACE_DEREFERENCE_ROUTINE *PINTERFACE_DEREFERENCE;
typedef struct _INTERFACE {
    USHORT Size;
    USHORT Version;
    PVOID Context;
    PINTERFACE_REFERENCE InterfaceReference;
    PINTERFACE_DEREFERENCE InterfaceDereference;
} INTERFACE, *PINTERFACE;

/* ---- Pages ----------------------------------------------------------------------------------- */

/* VMBus counts in pages of 4 KiB, whatever the machine's page size. */
#define PAGE_SHIFT 12
#define PAGE_SIZE 0x1000
#define PAGE_ALIGN(Va) ((PVOID)((ULONG_PTR)(Va) & ~((ULONG_PTR)PAGE_SIZE - 1)))
#define BYTE_OFFSET(Va) ((ULONG)((ULONG_PTR)(Va) & (PAGE_SIZE - 1)))
#define BYTES_TO_PAGES(Size) \
    (((Size) >> PAGE_SHIFT) + (((Size) & (PAGE_SIZE - 1)) != 0 ? 1u : 0u))
#define ROUND_TO_PAGES(Size) \
    (((ULONG_PTR)(Size) + ((ULONG_PTR)PAGE_SIZE - 1)) & ~((ULONG_PTR)PAGE_SIZE - 1))
#define ADDRESS_AND_SIZE_TO_SPAN_PAGES(Va, Size) \
    ((ULONG)((BYTE_OFFSET(Va) + (SIZE_T)(Size) + (PAGE_SIZE - 1)) >> PAGE_SHIFT))

/* ---- Memory ---------------------------------------------------------------------------------- */

#define RtlZeroMemory(Destination, Length) ((void)memset((Destination), 0, (Length)))
#define RtlFillMemory(Destination, Length, Fill) ((void)memset((Destination), (Fill), (Length)))
#define RtlCopyMemory(Destination, Source, Length) ((void)memcpy((Destination), (Source), (Length)))
#define RtlMoveMemory(Destination, Source, Length) \
    ((void)memmove((Destination), (Source), (Length)))
#define RtlEqualMemory(A, B, Length) (memcmp((A), (B), (Length)) == 0)

/* How many leading bytes are equal. */
static inline SIZE_T RtlCompareMemory(const void *A, const void *B, SIZE_T Length) {
    const unsigned char *a = (const unsigned char *)A;
    const unsigned char *b = (const unsigned char *)B;
    SIZE_T equal = 0;
    while (equal < Length && a[equal] == b[equal]) {
        ++equal;
    }
    return equal;
}

/* ---- Strings --------------------------------------------------------------------------------- */

#define RTL_CONSTANT_STRING(s) {sizeof(s) - sizeof((s)[0]), sizeof(s), (PWSTR)(s)}
#define DECLARE_CONST_UNICODE_STRING(name, literal)  \
    static const WCHAR name##_buffer[] = literal;    \
    static const UNICODE_STRING name = {             \
        sizeof(literal) - sizeof(WCHAR), sizeof(literal), (PWSTR)(name##_buffer)}

/* Points *Destination at Source, which stays the caller's; NULL gives lengths 0. A string too long
 * for the 16-bit lengths is cut. */
static inline VOID RtlInitUnicodeString(PUNICODE_STRING Destination, PCWSTR Source) {
    SIZE_T units = 0;
    Destination->Length = 0;
    Destination->MaximumLength = 0;
    Destination->Buffer = (PWSTR)Source;
    if (Source == NULL) {
        return;
    }
    while (units < 0x7FFE && Source[units] != 0) {
        ++units;
    }
    Destination->Length = (USHORT)(units * sizeof(WCHAR));
    Destination->MaximumLength = (USHORT)((units + 1) * sizeof(WCHAR));
}

/* ---- GUIDs ----------------------------------------------------------------------------------- */

FORCEINLINE BOOLEAN KmclGuidsAreEqual(LPCGUID A, LPCGUID B) {
    return memcmp(A, B, sizeof(GUID)) == 0 ? TRUE : FALSE;
}

/* As on Windows: pointers in C, references in C++. */
#ifdef __cplusplus
#define REFGUID const GUID &
#define IsEqualGUID(A, B) KmclGuidsAreEqual(&(A), &(B))
#else
#define REFGUID const GUID *
#define IsEqualGUID(A, B) KmclGuidsAreEqual((A), (B))
#endif
#define InlineIsEqualGUID(A, B) IsEqualGUID(A, B)

/* ---- Interrupt level --------------------------------------------------------------------------- */

/* The level belongs to the calling thread. It says what a callback may do: at PASSIVE_LEVEL block,
 * at DISPATCH_LEVEL not. The library's threads carry the level that the reference gives each
 * callback; any other thread starts at PASSIVE_LEVEL. Nothing is masked or locked by raising it. */
typedef UCHAR KIRQL, *PKIRQL;
#define PASSIVE_LEVEL 0
#define APC_LEVEL 1
#define DISPATCH_LEVEL 2

KIRQL KeGetCurrentIrql(VOID);
/* *OldIrql receives the level that was. NewIrql must not be below it (checked: aborts). */
VOID KeRaiseIrql(KIRQL NewIrql, PKIRQL OldIrql);
/* NewIrql must not be above the current level (checked: aborts). */
VOID KeLowerIrql(KIRQL NewIrql);

/* ---- Handles --------------------------------------------------------------------------------- */

/* Closes a handle that VmbConvertVmbusHandleToKernelHandle gave. Any thread; does not block.
 *   STATUS_SUCCESS         the handle is gone.
 *   STATUS_INVALID_HANDLE  it is no such handle, or was closed before. */
NTSTATUS NtClose(HANDLE Handle);
NTSTATUS ZwClose(HANDLE Handle);

#ifdef __cplusplus
} /* extern "C" */

inline bool operator==(const GUID &a, const GUID &b) { return KmclGuidsAreEqual(&a, &b) != FALSE; }
#if __cplusplus < 202002L
inline bool operator!=(const GUID &a, const GUID &b) { return !(a == b); }
#endif
#endif

#endif /* KMCL_NT_H */

/* DEFINE_GUID declares a GUID, and defines it too in the one source file that defines INITGUID
 * before it includes this header. Outside of the include guard, as on Windows: the file may define
 * INITGUID between two inclusions. */
#undef DEFINE_GUID
#ifdef __cplusplus
#define KMCL_EXTERN_C extern "C"
#else
#define KMCL_EXTERN_C extern
#endif
#ifdef INITGUID
#define DEFINE_GUID(name, l, w1, w2, b1, b2, b3, b4, b5, b6, b7, b8) \
    KMCL_EXTERN_C const GUID name;                                   \
    const GUID name = {l, w1, w2, {b1, b2, b3, b4, b5, b6, b7, b8}}
#else
#define DEFINE_GUID(name, l, w1, w2, b1, b2, b3, b4, b5, b6, b7, b8) KMCL_EXTERN_C const GUID name
#endif

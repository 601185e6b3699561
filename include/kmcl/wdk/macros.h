/* kmcl/wdk/macros.h - small arithmetic that every driver uses. */
#ifndef KMCL_WDK_MACROS_H
#define KMCL_WDK_MACROS_H

#include <kmcl/nt.h>

/* Evaluates its arguments twice, as on Windows. Define NOMINMAX to do without. */
#ifndef NOMINMAX
#ifdef __cplusplus
template <typename A, typename B>
constexpr auto min(const A& a, const B& b) -> decltype(a < b ? a : b) {
    return a < b ? a : b;
}
template <typename A, typename B>
constexpr auto max(const A& a, const B& b) -> decltype(a > b ? a : b) {
    return a > b ? a : b;
}
#else
#ifndef min
#define min(a, b) (((a) < (b)) ? (a) : (b))
#endif
#ifndef max
#define max(a, b) (((a) > (b)) ? (a) : (b))
#endif
#endif
#endif

#define ARRAYSIZE(A) (sizeof(A) / sizeof((A)[0]))
#define RTL_NUMBER_OF(A) ARRAYSIZE(A)
#define RTL_FIELD_SIZE(type, field) (sizeof(((type *)0)->field))
#define RTL_SIZEOF_THROUGH_FIELD(type, field) \
    (offsetof(type, field) + RTL_FIELD_SIZE(type, field))

/* To a multiple of `alignment`, a power of two or a type. */
#define ALIGN_DOWN_BY(length, alignment) ((ULONG_PTR)(length) & ~((ULONG_PTR)(alignment) - 1))
#define ALIGN_UP_BY(length, alignment) \
    (((ULONG_PTR)(length) + ((ULONG_PTR)(alignment) - 1)) & ~((ULONG_PTR)(alignment) - 1))
#define ALIGN_DOWN(length, type) ALIGN_DOWN_BY(length, sizeof(type))
#define ALIGN_UP(length, type) ALIGN_UP_BY(length, sizeof(type))
#define ALIGN_DOWN_POINTER_BY(address, alignment) ((PVOID)ALIGN_DOWN_BY(address, alignment))
#define ALIGN_UP_POINTER_BY(address, alignment) ((PVOID)ALIGN_UP_BY(address, alignment))

#define FlagOn(flags, flag) ((flags) & (flag))
#define SetFlag(flags, flag) ((flags) |= (flag))
#define ClearFlag(flags, flag) ((flags) &= ~(flag))
#define BooleanFlagOn(flags, flag) ((BOOLEAN)(((flags) & (flag)) != 0))

#define UNREFERENCED_LOCAL_VARIABLE(v) ((void)(v))
#define DBG_UNREFERENCED_PARAMETER(p) ((void)(p))

#endif /* KMCL_WDK_MACROS_H */

// <linux/kvm.h> for C++. The kernel's headers declare arrays of variable length by an anonymous
// struct with an empty member, which has a size in C++ and none in C: structures grow, and with
// them the numbers of the ioctls that name them.
#pragma once
#pragma GCC system_header  // arrays without members are no ISO C++

#include <linux/stddef.h>

#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_cpuid2) == 8);

// <linux/kvm.h>, fit for C++.
//
// Linux 6.1's headers give their variable arrays an empty struct as a neighbour. It takes no space
// in C and one byte in C++, which makes the structures larger, and with them the numbers of the
// ioctls.
#pragma once

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <linux/kvm.h>
#pragma GCC diagnostic pop

static_assert(sizeof(struct kvm_cpuid2) == 8);
static_assert(sizeof(struct kvm_msrs) == 8);

/* SPDX-License-Identifier: BSD-2-Clause */
/* Atomics in structs that C and C++ both see: same size, same layout. */
#ifndef BASE_ATOMIC_H
#define BASE_ATOMIC_H

#ifdef __cplusplus
#include <atomic>
#define BASE_ATOMIC(type) std::atomic<type>
using std::atomic_fetch_add_explicit;
using std::atomic_load_explicit;
using std::memory_order_acquire;
using std::memory_order_relaxed;
#else
#include <stdatomic.h>
#define BASE_ATOMIC(type) _Atomic(type)
#endif

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of base share. */
#ifndef BASE_INTERNAL_H
#define BASE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

/* Consumes one allocation of this thread; true when the test wants it to fail. */
bool base_alloc_fails(void);
/* Time is the fake clock's: whoever sleeps until a time must look again now and then. */
bool base_clock_is_fake(void);
/* CLOCK_MONOTONIC, whatever a test says. */
uint64_t base_real_ns(void);
/* Sleeps while *word == expected, until base_futex_wake. May return early. */
void base_futex_wait(_Atomic(uint32_t) *word, uint32_t expected);
/* Wakes all sleepers on word; the memory may already be somebody else's. */
void base_futex_wake(_Atomic(uint32_t) *word);

#endif

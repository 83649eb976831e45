/* SPDX-License-Identifier: BSD-2-Clause */
/* Small helpers every layer uses. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/api.h"

/* clang-format off */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define UTIL_JOIN_(a, b) a##b
#define UTIL_JOIN(a, b) UTIL_JOIN_(a, b)
#define UTIL_PICK_(a, op, b, x, y) __extension__({ __auto_type x = (a); __auto_type y = (b); x op y ? x : y; })
#define UTIL_PICK(a, op, b, n) UTIL_PICK_(a, op, b, UTIL_JOIN(pick_a, n), UTIL_JOIN(pick_b, n))
/* Each argument is evaluated once: it may be a call, or load what others change. In functions only. */
#define MIN(a, b) UTIL_PICK(a, <, b, __COUNTER__)
#define MAX(a, b) UTIL_PICK(a, >, b, __COUNTER__)
#define KiB (1024ull)
#define MiB (1024ull * KiB)
#define GiB (1024ull * MiB)
#define TiB (1024ull * GiB)

BLOBFS_C_BEGIN

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BASE_LE(bits, v) (v)
#else
#define BASE_LE(bits, v) __builtin_bswap##bits(v)
#endif

/* On-disk little-endian integers: a type of their own, so that one cannot be used unconverted. */
typedef struct { uint16_t v; } __attribute__((packed)) le16;
typedef struct { uint32_t v; } __attribute__((packed)) le32;
typedef struct { uint64_t v; } __attribute__((packed)) le64;
static inline uint16_t le16_get(le16 x) { return BASE_LE(16, x.v); }
static inline uint32_t le32_get(le32 x) { return BASE_LE(32, x.v); }
static inline uint64_t le64_get(le64 x) { return BASE_LE(64, x.v); }
static inline le16 le16_make(uint16_t v) { le16 x = { BASE_LE(16, v) }; return x; }
static inline le32 le32_make(uint32_t v) { le32 x = { BASE_LE(32, v) }; return x; }
static inline le64 le64_make(uint64_t v) { le64 x = { BASE_LE(64, v) }; return x; }

static inline uint64_t div_round_up(uint64_t n, uint64_t d) { return (n + d - 1) / d; }
static inline uint64_t round_up(uint64_t n, uint64_t pow2) { return (n + pow2 - 1) & ~(pow2 - 1); }
static inline uint64_t round_down(uint64_t n, uint64_t pow2) { return n & ~(pow2 - 1); }
static inline bool is_pow2(uint64_t n) { return n && !(n & (n - 1)); }
/* clang-format on */

/* Size given by a person: 4096, 64K, 1.5G, 2TiB (binary multiples). -EINVAL, -ERANGE. */
BLOBFS_API int base_parse_size(const char *text, uint64_t *bytes);
/* "1.5 GiB" into buf; returns buf. */
BLOBFS_API const char *base_format_size(uint64_t bytes, char *buf, size_t len);
/* n bytes of the kernel's randomness; never fails. */
BLOBFS_API void base_random(void *buf, size_t n);
/* Tests: base_random gives numbers by this seed, the same each time; 0 gives the kernel's back. */
BLOBFS_API void base_set_fake_random(uint64_t seed);
/* CLOCK_MONOTONIC nanoseconds, or the fake clock's. */
BLOBFS_API uint64_t base_now_ns(void);
/* CLOCK_REALTIME nanoseconds since 1970, or the fake clock's. */
BLOBFS_API int64_t base_wall_ns(void);
/* Tests: time stands still at ns (both clocks); 0 gives the real clock back. */
BLOBFS_API void base_set_fake_clock(uint64_t ns);

/* The allocator of every layer: malloc and friends, which a test can make fail. free() frees. */
BLOBFS_API void *base_malloc(size_t size);
BLOBFS_API void *base_calloc(size_t n, size_t size);
BLOBFS_API void *base_realloc(void *p, size_t size);
BLOBFS_API char *base_strdup(const char *s);
/* Tests: the nth allocation from now of this thread fails, once; 0 switches it off. */
BLOBFS_API void base_fail_alloc_after(uint64_t nth);
/* The same, and so do all that follow until it is switched off. */
BLOBFS_API void base_fail_allocs_from(uint64_t nth);

BLOBFS_C_END
#endif

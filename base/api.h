/* SPDX-License-Identifier: BSD-2-Clause */
/* What every public header needs: symbol visibility and C++ linkage. */
#ifndef BASE_API_H
#define BASE_API_H

/* Marks what libblobfs.so exports. Everything else is hidden. */
#define BLOBFS_API __attribute__((visibility("default")))

/* An atomic member of a struct that C++ only embeds and never touches: same size and alignment. */
#ifdef __cplusplus
/* A struct and the function that gives it may share a name, which g++ takes for shadowing. */
#define BLOBFS_C_BEGIN _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"") extern "C" {
#define BLOBFS_C_END } _Pragma("GCC diagnostic pop")
#define BLOBFS_ATOMIC(type) type
#else
#define BLOBFS_C_BEGIN
#define BLOBFS_C_END
#define BLOBFS_ATOMIC(type) _Atomic(type)
#endif

#endif

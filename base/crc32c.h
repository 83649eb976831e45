/* SPDX-License-Identifier: BSD-2-Clause */
/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "base/api.h"

BLOBFS_C_BEGIN

/* base_crc32c(0, "123456789", 9) == 0xe3069283. base_crc32c(base_crc32c(0, a), b) is the CRC of a then b. */
BLOBFS_API uint32_t base_crc32c(uint32_t crc, const void *data, size_t len);

BLOBFS_C_END
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* CRC-32C by ISA-L, which leaves the two inversions to its caller. */
#include <isa-l/crc.h>

#include "base/crc32c.h"
#include "base/util.h"

uint32_t base_crc32c(uint32_t crc, const void *data, size_t len)
{
	/* ISA-L does not write to the buffer; its prototype only lacks the const. */
	unsigned char *p = (unsigned char *)(uintptr_t)data;

	crc = ~crc;
	while (len) {
		int part = (int)MIN(len, (size_t)GiB);

		crc = crc32_iscsi(p, part, crc);
		p += part;
		len -= (size_t)part;
	}
	return ~crc;
}

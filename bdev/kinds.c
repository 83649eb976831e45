/* SPDX-License-Identifier: BSD-2-Clause */
/* Which module a device's name belongs to. A new kind of device is one line here. */
#include <string.h>

#include "bdev/internal.h"

static const struct bdev_kind kinds[] = {
	{ "ram:", ram_choose_module, ram_identify },
	{ "nvme:", nvme_choose_module, nvme_identify_name },
	{ "", file_choose_module, file_identify },
};

const struct bdev_kind *bdev_kind_of(const char *name)
{
	const struct bdev_kind *k = kinds;

	while (strncmp(name, k->prefix, strlen(k->prefix)))
		k++;
	return k;
}

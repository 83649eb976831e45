/* SPDX-License-Identifier: BSD-2-Clause */
/* Controllers that several devices of this process share: one for each of their namespaces. */
#ifndef BDEV_NVME_SHARE_H
#define BDEV_NVME_SHARE_H

#include "nvme/nvme.h"

struct nvme_share;
/* The controller at this address, attached once for all: the timeout is the shortest that anybody names. As nvme_attach. */
int nvme_share_get(const struct nvme_name *name, struct nvme_share **out, struct base_err *err);
/* The last one detaches. */
void nvme_share_put(struct nvme_share *s);
struct nvme_ctrlr *nvme_share_ctrlr(const struct nvme_share *s);
/* In the child of a fork, by each device that has it. */
void nvme_share_forked(struct nvme_share *s);

#endif

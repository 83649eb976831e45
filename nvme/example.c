/* SPDX-License-Identifier: BSD-2-Clause */
/* Attaches a controller, reads a block asynchronously, detaches: example ADDRESS [BLOCK]. */
#include <stdio.h>
#include <stdlib.h>

#include "nvme/nvme.h"

struct result {
	int done, rc;
};

static void read_done(struct nvme_cmd *cmd, int rc)
{
	struct result *r = cmd->cb_arg;

	r->done = 1;
	r->rc = rc;
}

static int read_block(struct nvme_ctrlr *c, const struct nvme_ns_info *ns, uint64_t lba)
{
	struct result r = { 0, 0 };
	struct iovec v = { nvme_alloc(ns->block_size, ns->block_size), ns->block_size };
	struct nvme_cmd cmd = { .op = NVME_READ,
				.nsid = ns->nsid,
				.lba = lba,
				.blocks = 1,
				.iov = &v,
				.iovcnt = 1,
				.cb = read_done,
				.cb_arg = &r };
	struct nvme_qpair *q;
	int rc = v.iov_base ? nvme_qpair_create(c, 0, &q) : -1;

	if (rc) {
		nvme_free(v.iov_base);
		return rc;
	}
	nvme_submit(q, &cmd);
	while (!r.done)
		nvme_poll(q, 0);
	if (r.rc)
		fprintf(stderr, "block %llu: %s\n", (unsigned long long)lba,
			nvme_status_text(cmd.status));
	for (int i = 0; i < 16 && !r.rc; i++)
		printf("%02x%c", ((unsigned char *)v.iov_base)[i], i < 15 ? ' ' : '\n');
	nvme_qpair_free(q);
	nvme_free(v.iov_base);
	return r.rc;
}

int main(int argc, char **argv)
{
	struct nvme_ns_info ns;
	struct nvme_ctrlr *c;
	struct base_err err;
	int rc;

	if (argc < 2 || nvme_attach(argv[1], NULL, &c, &err)) {
		fprintf(stderr, "%s\n",
			argc < 2 ? "usage: example 0000:01:00.0|vfio-user:SOCKET [BLOCK]" : err.text);
		return 1;
	}
	rc = nvme_ns_next(c, 0, &ns);
	if (!rc) {
		printf("%s, namespace %u: %llu blocks of %u bytes\n", nvme_info(c)->model, ns.nsid,
		       (unsigned long long)ns.blocks, ns.block_size);
		rc = read_block(c, &ns, argc > 2 ? strtoull(argv[2], NULL, 0) : 0);
	}
	nvme_detach(c);
	return rc ? 1 : 0;
}

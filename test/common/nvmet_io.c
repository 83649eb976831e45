/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of the NVM command set, and the buffers of any command. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

struct pages {
	struct iovec *iov;
	int n;
	uint64_t left;
};

/* Adds a page, or what is left of the transfer; joins what lies together. */
static bool add_page(struct nvmet *t, struct pages *p, uint64_t iova, bool write)
{
	uint64_t len = MIN(p->left, NVME_PAGE - iova % NVME_PAGE);
	char *at = nvmet_memory(t, iova, len, write);

	if (!at)
		return false;
	p->left -= len;
	if (p->n && (char *)p->iov[p->n - 1].iov_base + p->iov[p->n - 1].iov_len == at) {
		p->iov[p->n - 1].iov_len += len;
		return true;
	}
	if (p->n == NVMET_MAX_IOV)
		return false;
	p->iov[p->n++] = (struct iovec){ at, len };
	return true;
}

static int follow_list(struct nvmet *t, struct pages *p, uint64_t list, bool write)
{
	while (p->left) {
		uint64_t room = (NVME_PAGE - list % NVME_PAGE) / 8;
		const uint64_t *entry = list % 8 ? NULL : nvmet_memory(t, list, room * 8, false);

		if (list % 8)
			return -NVME_SC_PRP_OFFSET;
		if (!entry)
			return -NVME_SC_DATA_TRANSFER;
		for (uint64_t i = 0; i < room && p->left; i++) {
			if (i == room - 1 && p->left > NVME_PAGE) {
				list = entry[i]; /* the list goes on there */
				break;
			}
			if (entry[i] % NVME_PAGE)
				return -NVME_SC_PRP_OFFSET;
			if (!add_page(t, p, entry[i], write))
				return -NVME_SC_DATA_TRANSFER;
		}
	}
	return p->n;
}

int nvmet_buffers(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t len, bool write,
		  struct iovec iov[NVMET_MAX_IOV])
{
	struct pages p = { .iov = iov, .left = len };

	if (sqe->flags == NVME_SQE_SGL && t->o.sgl)
		return nvmet_sgl(t, sqe, len, write, iov);
	if (sqe->flags) {
		nvmet_host_error(t, "fused, or an SGL");
		return -NVME_SC_INVALID_FIELD;
	}
	if (sqe->prp1 % 4) {
		nvmet_host_error(t, "PRP1 is not aligned to 4 bytes");
		return -NVME_SC_PRP_OFFSET;
	}
	if (!add_page(t, &p, sqe->prp1, write))
		return -NVME_SC_DATA_TRANSFER;
	if (!p.left) {
		if (sqe->prp2)
			nvmet_host_error(t, "PRP2 is set and not used");
		return p.n;
	}
	if (p.left > NVME_PAGE)
		return follow_list(t, &p, sqe->prp2, write);
	if (sqe->prp2 % NVME_PAGE) {
		nvmet_host_error(t, "PRP2 is not a page");
		return -NVME_SC_PRP_OFFSET;
	}
	return add_page(t, &p, sqe->prp2, write) ? p.n : -NVME_SC_DATA_TRANSFER;
}

/* ---- data ---- */

static uint16_t compare(struct nvmet *t, const struct iovec *iov, int n, uint64_t at)
{
	for (int i = 0; i < n; i++) {
		if (pread(t->store, t->scratch, iov[i].iov_len, (off_t)at) !=
		    (ssize_t)iov[i].iov_len)
			return NVME_SC_READ_ERROR;
		if (memcmp(t->scratch, iov[i].iov_base, iov[i].iov_len))
			return NVME_SC_COMPARE;
		at += iov[i].iov_len;
	}
	return 0;
}

static uint16_t transfer(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t lba, uint64_t blocks)
{
	struct iovec iov[NVMET_MAX_IOV];
	uint64_t len = blocks * t->block, at = nvmet_base(t, sqe->nsid) + lba * t->block;
	int n = nvmet_buffers(t, sqe, len, sqe->opcode == NVME_NVM_READ, iov);
	ssize_t got;

	if (n < 0)
		return (uint16_t)-n;
	if (t->store < 0)
		return 0;
	if (sqe->opcode == NVME_NVM_COMPARE)
		return compare(t, iov, n, at);
	if (sqe->opcode == NVME_NVM_READ) {
		got = preadv(t->store, iov, n, (off_t)at);
	} else {
		nvmet_cache_before(t, at, len);
		got = pwritev(t->store, iov, n, (off_t)at);
		nvmet_cache_after(t, at, len, sqe->cdw12 & NVME_RW_FUA);
	}
	if (got != (ssize_t)len)
		return sqe->opcode == NVME_NVM_READ ? NVME_SC_READ_ERROR : NVME_SC_WRITE_FAULT;
	if (sqe->cdw12 & NVME_RW_FUA && sqe->opcode == NVME_NVM_WRITE) {
		atomic_fetch_add(&t->n.fua, 1);
		if (fdatasync(t->store))
			return NVME_SC_WRITE_FAULT;
	}
	return 0;
}

bool nvmet_in_range(const struct nvmet *t, uint64_t lba, uint64_t blocks)
{
	uint64_t all = t->o.size / t->block;

	return lba < all && blocks <= all - lba;
}

static uint16_t punch(struct nvmet *t, uint32_t nsid, uint64_t lba, uint64_t blocks)
{
	uint64_t at = nvmet_base(t, nsid) + lba * t->block, len = blocks * t->block;
	int rc;

	if (t->store < 0)
		return 0;
	nvmet_cache_before(t, at, len);
	rc = fallocate(t->store, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len);
	nvmet_cache_after(t, at, len, false);
	return rc ? NVME_SC_WRITE_FAULT : 0;
}

static uint16_t deallocate(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned n = (sqe->cdw10 & 0xff) + 1;
	const struct nvme_dsm_range *r;
	struct iovec iov[NVMET_MAX_IOV];
	int got = nvmet_buffers(t, sqe, n * sizeof(*r), false, iov);
	uint16_t status = 0;

	if (sqe->cdw10 & ~0xffu || sqe->cdw11 & ~7u || sqe->cdw12 || sqe->cdw13 || sqe->cdw14)
		nvmet_host_error(t, "reserved bits of a deallocation are set");
	if (got < 0)
		return (uint16_t)-got;
	if (got != 1)
		return NVME_SC_INTERNAL;
	r = iov[0].iov_base;
	for (unsigned i = 0; i < n; i++)
		if (r[i].blocks && !nvmet_in_range(t, r[i].lba, r[i].blocks))
			return NVME_SC_LBA_RANGE;
	for (unsigned i = 0, most = atomic_load(&t->f.dmrsl); most && i < n; i++)
		if (r[i].blocks > most)
			return NVME_SC_INVALID_FIELD;
	for (unsigned i = 0; i < n && !status && sqe->cdw11 & NVME_DSM_AD; i++)
		if (r[i].blocks)
			status = punch(t, sqe->nsid, r[i].lba, r[i].blocks);
	atomic_fetch_add(&t->n.deallocates, 1);
	return status;
}

static uint16_t flush(struct nvmet *t)
{
	atomic_fetch_add(&t->n.flushes, 1);
	nvmet_cache_flush(t);
	return t->store >= 0 && fdatasync(t->store) ? NVME_SC_WRITE_FAULT : 0;
}

static bool use_metadata(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t blocks)
{
	uint64_t len = blocks * atomic_load(&t->f.metadata);
	bool out = sqe->opcode == NVME_NVM_READ;
	char *at = nvmet_memory(t, sqe->mptr, len, out);

	if (!at)
		return false;
	if (out)
		memset(at, 0xff, len);
	for (uint64_t i = 0; !out && i < len; i++)
		if (at[i])
			nvmet_host_error(t, "metadata that nobody has set are not zeroes");
	return true;
}

/* What transfers nothing: by what it says itself, or (as some controllers are) as if it did. */
static bool too_long(struct nvmet *t, uint8_t opcode, uint64_t blocks)
{
	unsigned exponent = t->o.mdts;

	if (opcode != NVME_NVM_WRITE_ZEROES && opcode != NVME_NVM_VERIFY)
		return false;
	if (atomic_load(&t->f.limits))
		exponent = atomic_load(opcode == NVME_NVM_VERIFY ? &t->f.vsl : &t->f.wzsl);
	return exponent && blocks * t->block > (uint64_t)NVME_PAGE << exponent;
}

static uint16_t blocks_command(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint64_t lba = sqe->cdw10 | (uint64_t)sqe->cdw11 << 32;
	uint64_t blocks = (uint64_t)(sqe->cdw12 & 0xffff) + 1;
	uint64_t limit = (uint64_t)NVME_PAGE << t->o.mdts;
	uint16_t status;

	if (sqe->cdw12 & 0xf0000)
		nvmet_host_error(t, "reserved bits of CDW12 are set");
	/* What the data are like, and which stream they are of. */
	if (sqe->cdw13 & (sqe->opcode == NVME_NVM_WRITE && t->o.streams ? 0xff00u : ~0u))
		nvmet_host_error(t, "CDW13 is set");
	if (!nvmet_in_range(t, lba, blocks))
		return NVME_SC_LBA_RANGE;
	nvmet_check_protection(t, sqe);
	status = nvmet_check_stream(t, sqe, blocks);
	if (status)
		return status;
	if (too_long(t, sqe->opcode, blocks))
		return NVME_SC_INVALID_FIELD;
	switch (sqe->opcode) {
	case NVME_NVM_WRITE_ZEROES:
		return punch(t, sqe->nsid, lba, blocks);
	case NVME_NVM_VERIFY:
		return 0;
	default:
		break;
	}
	if (blocks * t->block > limit) {
		nvmet_host_error(t, "more than MDTS");
		return NVME_SC_INVALID_FIELD;
	}
	if (t->o.noiob && lba / t->o.noiob != (lba + blocks - 1) / t->o.noiob)
		nvmet_host_error(t, "across the optimal boundary");
	if (atomic_load(&t->f.metadata) && !use_metadata(t, sqe, blocks))
		return NVME_SC_DATA_TRANSFER;
	if (blocks > atomic_load(&t->n.largest))
		atomic_store(&t->n.largest, (unsigned)blocks);
	return transfer(t, sqe, lba, blocks);
}

uint16_t nvmet_io_command(struct nvmet *t, const struct nvme_sqe *sqe)
{
	bool ours = sqe->nsid && sqe->nsid <= t->o.namespaces;

	bool meta = atomic_load(&t->f.metadata) && (sqe->opcode == NVME_NVM_READ || sqe->opcode == NVME_NVM_WRITE);

	/* There are no metadata apart, and no tags of applications. */
	if (!sqe->mptr == meta || sqe->cdw15)
		nvmet_host_error(t, "metadata or a tag are named that there are not");
	if (sqe->opcode == NVME_NVM_FLUSH && (ours || sqe->nsid == NVME_NSID_ALL)) {
		if (sqe->prp1 || sqe->prp2 || sqe->cdw10 || sqe->cdw11 || sqe->cdw12 || sqe->cdw13 ||
		    sqe->cdw14)
			nvmet_host_error(t, "reserved fields of a flush are set");
		return flush(t);
	}
	if (!ours)
		return NVME_SC_INVALID_NS;
	if (sqe->cdw2 || sqe->cdw3)
		nvmet_host_error(t, "reserved fields are set");
	switch (sqe->opcode) {
	case NVME_NVM_READ:
	case NVME_NVM_WRITE:
	case NVME_NVM_COMPARE:
	case NVME_NVM_WRITE_ZEROES:
	case NVME_NVM_VERIFY:
		return blocks_command(t, sqe);
	case NVME_NVM_DSM:
		return deallocate(t, sqe);
	case NVME_NVM_COPY:
		return nvmet_copy(t, sqe);
	default:
		return NVME_SC_INVALID_OPCODE;
	}
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Data: what is written is what is read, of every size, wherever it lies in memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "nvme/spec.h"
#include "test/qemu/guest.h"

#define PAGE 4096u

/* The serial number is as the machine was given it, by whatever way one asks. */
void test_identify(const char *address, const char *serial)
{
	struct nvme_id_ctrlr *id = calloc(1, sizeof(*id));
	uint8_t smart[512];
	struct target t;
	uint32_t value;

	if (!id || !target_open(&t, address, 0, NULL))
		return;
	const struct nvme_ctrlr_info *i = nvme_info(t.c);

	check(!strcmp(i->serial, serial) && strstr(i->model, "QEMU"), "names", "%s, %s", i->model,
	      i->serial);
	check(!nvme_identify(t.c, NVME_CNS_CTRLR, 0, id) && !memcmp(id->sn, serial, strlen(serial)),
	      "identify", "%.20s", id->sn);
	check(!nvme_get_log(t.c, 2, 0xffffffff, smart, sizeof(smart)) && (smart[1] || smart[2]),
	      "smart_log", "no temperature in it");
	check(!nvme_get_feature(t.c, 6, &value) && value & 1, "write_cache_is_on", "%#x", value);
	check(i->version >= 0x10300 && i->volatile_cache && i->write_zeroes && i->deallocate,
	      "capabilities", "version %#x", i->version);
	target_close(&t);
	free(id);
}

/* ---- every size ---- */

struct sizes {
	struct target t;
	char *out, *in;
	size_t room;
};

/* Writes and reads `blocks` blocks from memory at `skew` bytes after a page's beginning, then at another. */
static bool one_size(struct sizes *s, uint64_t blocks, unsigned skew)
{
	size_t len = (size_t)blocks * s->t.ns.block_size;
	uint64_t lba = blocks % 7;
	char *out = s->out + skew, *in = s->in + (skew * 3 + 512) % PAGE;
	long at;
	int rc;

	fill(out, len, lba, blocks);
	memset(in, 0, len);
	rc = run_cmd(&s->t, NVME_WRITE, lba, blocks, out, len, NULL);
	if (!rc)
		rc = run_cmd(&s->t, NVME_READ, lba, blocks, in, len, NULL);
	if (rc)
		return check(false, "sizes", "%zu bytes at %u: %s", len, skew, strerror(-rc));
	at = differs(in, len, lba, blocks);
	return at < 0 || check(false, "sizes", "%zu bytes at %u: byte %ld differs", len, skew, at);
}

/* What the host looks for in the image afterwards. */
void test_mark(const char *address, const char *nsid)
{
	struct target t;
	char *buf;

	if (!target_open(&t, address, (uint32_t)atoi(nsid), NULL))
		return;
	buf = nvme_alloc(MiB, 0);
	fill(buf, MiB, 0, t.ns.nsid);
	check(!run_cmd(&t, NVME_WRITE, 0, MiB / t.ns.block_size, buf, MiB, NULL) &&
		      !run_cmd(&t, NVME_FLUSH, 0, 0, NULL, 0, NULL),
	      "mark", "not written");
	nvme_free(buf);
	target_close(&t);
}

void test_sizes(const char *address, const char *nsid)
{
	struct sizes s = { .room = 0 };
	uint64_t most;
	bool well = true;

	if (!target_open(&s.t, address, (uint32_t)atoi(nsid), NULL))
		return;
	/* Every number of blocks until a command does not do it, and some that take more. */
	most = nvme_info(s.t.c)->max_transfer / s.t.ns.block_size + 3;
	s.room = (size_t)MAX(most * s.t.ns.block_size * 4, 2 * MiB);
	s.out = nvme_alloc(s.room, 0);
	s.in = nvme_alloc(s.room, 0);
	if (!check(s.out && s.in, "memory", "%zu bytes", 2 * s.room))
		return;
	for (uint64_t n = 1; n <= most && well; n++)
		well = one_size(&s, n, (unsigned)(n * 36 % PAGE) & ~3u);
	for (uint64_t n = 2; n <= 3 && well; n++)
		well = one_size(&s, most * n + n, 4);
	if (well)
		check(true, "sizes", " ");
	nvme_free(s.out);
	nvme_free(s.in);
	target_close(&s.t);
}

/* ---- many pieces of memory ---- */

/* Random iovecs, of whole pages and of whole blocks, within a few granules of memory. */
void test_vectors(const char *address, const char *nsid)
{
	enum { MOST = 40, ROUNDS = 60 };
	struct iovec v[MOST];
	struct target t;
	size_t room = 8 * MiB, len;
	char *a, *at;
	bool well = true;

	if (!target_open(&t, address, (uint32_t)atoi(nsid), NULL))
		return;
	a = nvme_alloc(room, 0);
	srandom(1);
	for (unsigned r = 0; r < ROUNDS && a && well; r++) {
		int n = 1 + (int)(random() % MOST), rc;
		/* Blocks need not be aligned to pages, but the pieces between the first and the last must be. */
		unsigned unit = r % 2 ? PAGE : t.ns.block_size;

		len = 0;
		at = a + (r % 2 ? 0 : (size_t)(random() % 1024) * 4);
		for (int i = 0; i < n; i++) {
			v[i] = (struct iovec){ at, (1 + (size_t)(random() % 8)) * unit };
			fill(v[i].iov_base, v[i].iov_len, len, r);
			len += v[i].iov_len;
			at += v[i].iov_len + (size_t)(random() % 30) * PAGE;
		}
		rc = run_cmdv(&t, NVME_WRITE, 8, len / t.ns.block_size, v, n, NULL);
		for (int i = 0; i < n; i++)
			memset(v[i].iov_base, 0, v[i].iov_len);
		if (!rc)
			rc = run_cmdv(&t, NVME_READ, 8, len / t.ns.block_size, v, n, NULL);
		well = !rc || check(false, "vectors", "round %u: %s", r, strerror(-rc));
		len = 0;
		for (int i = 0; i < n && well; i++) {
			well = differs(v[i].iov_base, v[i].iov_len, len, r) < 0 ||
			       check(false, "vectors", "round %u: piece %d differs", r, i);
			len += v[i].iov_len;
		}
	}
	if (well)
		check(a, "vectors", "no memory");
	nvme_free(a);
	target_close(&t);
}

/* ---- other controllers ---- */

/* Two at once, each with its own data, from the same memory. */
void test_two(const char *one, const char *other)
{
	struct target t[2];
	size_t len = 64 * KiB;
	char *buf = NULL;
	int rc = 0;

	if (!target_open(&t[0], one, 0, NULL))
		return;
	if (!target_open(&t[1], other, 0, NULL)) {
		target_close(&t[0]);
		return;
	}
	buf = nvme_alloc(len, 0);
	for (unsigned i = 0; i < 32 && !rc; i++) {
		struct target *x = &t[i % 2];

		fill(buf, len, i, 100);
		rc = run_cmd(x, NVME_WRITE, i * (len / x->ns.block_size), len / x->ns.block_size,
			     buf, len, NULL);
	}
	for (unsigned i = 0; i < 32 && !rc; i++) {
		struct target *x = &t[i % 2];

		rc = run_cmd(x, NVME_READ, i * (len / x->ns.block_size), len / x->ns.block_size,
			     buf, len, NULL);
		if (!rc && differs(buf, len, i, 100) >= 0)
			rc = -EILSEQ;
	}
	check(!rc, "two_controllers", "%s", strerror(-rc));
	nvme_free(buf);
	target_close(&t[1]);
	target_close(&t[0]);
}

/* A controller with few queues: no more are made than it has, and those that there are work. */
void test_limits(const char *address, const char *queues)
{
	struct nvme_qpair *more[8];
	unsigned n = 1, want = (unsigned)atoi(queues);
	struct target t;
	size_t len = 256 * KiB;
	char *buf;
	int rc;

	if (!target_open(&t, address, 0, NULL))
		return;
	while (n < 8 && !(rc = nvme_qpair_create(t.c, 0, &more[n])))
		n++;
	check(n == want && rc == -ENOSPC && nvme_info(t.c)->max_qpairs == want, "queues",
	      "%u queues, %u expected, then %s", n, want, strerror(-rc));
	check(nvme_info(t.c)->max_transfer == 16 * KiB, "transfers", "%u bytes",
	      nvme_info(t.c)->max_transfer);
	buf = nvme_alloc(len, 0);
	rc = buf ? write_and_read(&t, 1, buf, len, 3) : -ENOMEM;
	check(!rc, "split", "%s", strerror(-rc));
	nvme_free(buf);
	while (n-- > 1)
		nvme_qpair_free(more[n]);
	target_close(&t);
}

/* Metadata of 16 bytes beside the blocks are nobody's; the same in the blocks cannot be used. */
static void test_other_metadata(const char *address, uint32_t nsid)
{
	struct nvme_ns_info ns;
	size_t len = 300 * KiB;
	struct target t;
	char *buf;
	int rc;

	if (!target_open(&t, address, nsid, NULL))
		return;
	buf = nvme_alloc(len, 0);
	rc = buf ? write_and_read(&t, 3, buf, len, 11) : -ENOMEM;
	check(!rc, "data_beside_metadata", "%s", strerror(-rc));
	nvme_free(buf);
	rc = nvme_ns_get(t.c, nsid + 1, &ns);
	check(rc == -ENOTSUP, "the_one_with_metadata_in_blocks_is_refused", "%s", strerror(-rc));
	target_close(&t);
}

/* Protection information is added and checked by the controller. */
void test_metadata(const char *address, const char *other)
{
	struct nvme_ns_info ns;
	size_t len = 300 * KiB;
	struct target t;
	char *buf;
	int rc;

	if (!target_open(&t, address, 0, NULL))
		return;
	check(t.ns.nsid == 1 && t.ns.protection == 1, "the_one_with_protection_is_used",
	      "namespace %u, protection of type %u", t.ns.nsid, t.ns.protection);
	buf = nvme_alloc(len, 0);
	fill(buf, len, 0, 9);
	rc = run_cmd(&t, NVME_WRITE, 3, len / t.ns.block_size, buf, len, NULL);
	for (unsigned i = 0; i < 8 && !rc; i++)
		rc = run_cmd(&t, NVME_WRITE, 3 + i, 1, buf + i * t.ns.block_size, t.ns.block_size,
			     NULL);
	if (!rc)
		rc = read_back(&t, 3, buf, len, 9);
	check(!rc, "protected_data", "%s", strerror(-rc));
	rc = run_cmd(&t, NVME_VERIFY, 3, len / t.ns.block_size, NULL, 0, NULL);
	check(!rc || rc == -EOPNOTSUPP, "protected_data_is_verified", "%s", strerror(-rc));
	nvme_free(buf);
	check(nvme_ns_get(t.c, 77, &ns) == -ENOENT, "no_such_namespace", "it is there");
	target_close(&t);
	test_other_metadata(address, (uint32_t)atoi(other));
}

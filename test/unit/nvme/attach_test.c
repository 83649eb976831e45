/* SPDX-License-Identifier: BSD-2-Clause */
/* Bring-up, administration, refusals, memory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dma.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

TEST(nvme_attach, says_what_the_controller_is)
{
	struct nvme_ns_info ns;
	struct nvme_ctrlr *c;
	struct peer p;

	peer_start(&p, NULL);
	peer_attach(&p, NULL, &c);
	EXPECT_STREQ("BlobFS test controller", nvme_info(c)->model);
	EXPECT_STREQ("NVMET0001", nvme_info(c)->serial);
	EXPECT_STREQ("1.0", nvme_info(c)->firmware);
	EXPECT_EQ_INT(0x10400, nvme_info(c)->version);
	EXPECT_EQ_INT(128 * 1024, nvme_info(c)->max_transfer);
	EXPECT_EQ_INT(64, nvme_info(c)->max_qpairs);
	EXPECT_TRUE(nvme_info(c)->volatile_cache);
	ASSERT_OK(nvme_ns_next(c, 0, &ns));
	EXPECT_EQ_INT(1, ns.nsid);
	EXPECT_EQ_INT(512, ns.block_size);
	EXPECT_EQ_INT(64 * MiB / 512, ns.blocks);
	EXPECT_TRUE(ns.deallocated_zeroes);
	EXPECT_ERR(-ENOENT, nvme_ns_next(c, 1, &ns));
	EXPECT_ERR(-ENOENT, nvme_ns_get(c, 2, &ns));
	nvme_detach(c);
	EXPECT_EQ_INT(1, atomic_load(&p.t->n.shutdowns));
	peer_stop(&p);
}

TEST(nvme_attach, administration)
{
	struct nvme_sqe sqe = { .opcode = 0x7f };
	struct nvme_ctrlr *c;
	uint8_t smart[512];
	uint32_t value;
	struct peer p;

	peer_start(&p, NULL);
	peer_attach(&p, NULL, &c);
	ASSERT_OK(nvme_get_log(c, 2, NVME_NSID_ALL, smart, sizeof(smart)));
	EXPECT_EQ_INT(100, smart[3]);
	EXPECT_ERR(-EINVAL, nvme_get_log(c, 0x77, NVME_NSID_ALL, smart, sizeof(smart)));
	EXPECT_ERR(-EINVAL, nvme_get_log(c, 2, NVME_NSID_ALL, smart, 3));
	ASSERT_OK(nvme_set_feature(c, NVME_FEAT_TEMPERATURE, 345, NULL));
	ASSERT_OK(nvme_get_feature(c, NVME_FEAT_TEMPERATURE, &value));
	EXPECT_EQ_INT(345, value);
	EXPECT_ERR(-EINVAL, nvme_get_feature(c, 0x55, &value));
	EXPECT_ERR(-EOPNOTSUPP, nvme_admin(c, &sqe, NULL, 0, NULL));
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_attach, what_is_not_there_is_refused_by_name)
{
	struct base_err err;
	struct nvme_ctrlr *c;

	EXPECT_ERR(-ENOENT, nvme_attach("vfio-user:/nowhere/at/all", NULL, &c, &err));
	EXPECT_TRUE(strstr(err.text, "/nowhere/at/all"));
	EXPECT_ERR(-EINVAL, nvme_attach("carrier-pigeon:1", NULL, &c, &err));
	EXPECT_TRUE(strstr(err.text, "carrier-pigeon"));
}

TEST(nvme_attach, a_second_client_is_told_that_it_is_busy)
{
	struct nvme_ctrlr *c, *second;
	struct base_err err;
	struct peer p;

	peer_start(&p, NULL);
	peer_attach(&p, NULL, &c);
	EXPECT_ERR(-EBUSY, nvme_attach(p.address, NULL, &second, &err));
	EXPECT_TRUE(strstr(err.text, "in use"));
	nvme_detach(c);
	peer_stop(&p);
}

static void expect_refusal(struct peer *p, int want, const char *word)
{
	struct nvme_ctrlr *c;
	struct base_err err;

	test_note("%s", word);
	ASSERT_ERR(want, nvme_attach(p->address, NULL, &c, &err));
	if (!strstr(err.text, word))
		FAIL("the reason is given as '%s'", err.text);
	/* The server must have seen the client leave. */
	while (atomic_load(&p->t->connected))
		usleep(1000);
}

TEST(nvme_attach, controllers_that_misreport_are_refused_with_a_sentence)
{
	struct nvme_ctrlr *c;
	struct peer p;

	peer_start(&p, NULL);
#define REFUSE(field, value, want, word)    \
	atomic_store(&p.t->f.field, value); \
	expect_refusal(&p, want, word);     \
	atomic_store(&p.t->f.field, 0)
	REFUSE(no_entries, true, -EPROTO, "one entry");
	REFUSE(large_pages, true, -ENOTSUP, "smallest page is 16384");
	REFUSE(no_namespace, true, -ENODEV, "no namespace");
	REFUSE(no_blocks, true, -EPROTO, "no blocks");
	REFUSE(lbads, 8, -ENOTSUP, "2^8");
	REFUSE(lbads, 13, -ENOTSUP, "2^13");
	atomic_store(&p.t->f.extended, true);
	REFUSE(metadata, 8, -ENOTSUP, "8 bytes of metadata a block, in the block");
	atomic_store(&p.t->f.extended, false);
	REFUSE(bad_ns, 1, -EIO, "cannot identify namespace 1: Internal Error");
	REFUSE(mdts, 77, -EPROTO, "2^77");
	REFUSE(sqes, 0x77, -EPROTO, "another size");
	REFUSE(all_ones, true, -ENODEV, "gone");
	REFUSE(cfs, true, -EIO, "fatal");
	REFUSE(never_ready, true, -ETIMEDOUT, "not ready after 1000 ms");
	test_note("%s", "");
	peer_attach(&p, NULL, &c);
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_attach, failed_allocations_are_errors)
{
	struct nvme_ctrlr *c;
	struct peer p;
	int rc = -1;

	peer_start(&p, NULL);
	for (uint64_t i = 1; rc; i++) {
		ASSERT_LT_INT(i, 100);
		base_fail_alloc_after(i);
		rc = nvme_attach(p.address, NULL, &c, NULL);
		base_fail_alloc_after(0);
		if (rc)
			ASSERT_ERR(-ENOMEM, rc);
		while (rc && atomic_load(&p.t->connected))
			usleep(500);
	}
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_memory, pieces_are_apart_aligned_and_merged_when_freed)
{
	char *a[64];
	void *all;

	for (unsigned i = 0; i < 64; i++) {
		a[i] = nvme_alloc(1 + i * 1000, (size_t)4096 << i % 5);
		ASSERT_TRUE(a[i]);
		EXPECT_EQ_INT(0, (uintptr_t)a[i] % ((size_t)4096 << i % 5));
		EXPECT_TRUE(nvme_memory_ok(a[i], 1 + i * 1000));
		memset(a[i], (int)i, 1 + i * 1000);
	}
	for (unsigned i = 0; i < 64; i++) {
		EXPECT_EQ_INT(i, a[i][0]);
		EXPECT_EQ_INT(i, a[i][i * 1000]);
	}
	for (unsigned i = 0; i < 64; i += 2)
		nvme_free(a[i]);
	for (unsigned i = 1; i < 64; i += 2)
		nvme_free(a[i]);
	all = nvme_alloc(nvme_pool.size / 16 * 15, 0);
	EXPECT_TRUE(all);
	nvme_free(all);
	nvme_free(NULL);
	EXPECT_FALSE(nvme_memory_ok(&all, sizeof(all)));
	EXPECT_TRUE(!nvme_alloc(100 * GiB, 0));
}

TEST(nvme_memory, a_forked_child_cannot_write_into_its_parents)
{
	char *p = nvme_alloc(8192, 0), *own;
	int status;
	pid_t pid;

	ASSERT_TRUE(p);
	strcpy(p, "parent");
	pid = fork();
	if (!pid) {
		strcpy(p, "child");
		own = nvme_alloc(8192, 0);
		if (own)
			strcpy(own, "child");
		nvme_free(p);
		_exit(own && own != p && !strcmp(own, "child") ? 0 : 1);
	}
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, status);
	EXPECT_STREQ("parent", p);
	nvme_free(p);
}

TEST(nvme_status, has_a_text_and_an_errno)
{
	EXPECT_STREQ("Invalid Field in Command (0/02)", nvme_status_text(0x002));
	EXPECT_STREQ("Vendor Specific Status (7/c3)", nvme_status_text(0x7c3));
	EXPECT_EQ_INT(0, nvme_status_errno(0));
	EXPECT_ERR(-ENOSPC, nvme_status_errno(NVME_SC_CAPACITY));
	EXPECT_ERR(-EIO, nvme_status_errno(0x7c3));
}

/* Pages of the pool that hold memory. */
static uint64_t pool_bytes(void)
{
	struct stat st;

	ASSERT_OK(fstat(nvme_pool.fd, &st));
	return (uint64_t)st.st_blocks * 512;
}

TEST(nvme_memory, pages_stay_where_they_are_while_a_server_has_them_and_go_when_it_leaves)
{
	struct nvme_ctrlr *c;
	uint64_t before, used;
	struct peer p;
	char *buf;

	buf = nvme_alloc(4096, 0);
	nvme_free(buf);
	if (nvme_pool.huge_fd >= 0)
		SKIP("huge pages are never given back");
	peer_start(&p, NULL);
	peer_attach(&p, NULL, &c);
	before = pool_bytes();
	buf = nvme_alloc(4 * MiB, 0);
	ASSERT_TRUE(buf);
	memset(buf, 1, 4 * MiB);
	used = pool_bytes();
	EXPECT_GE_INT(used, before + 3 * MiB);
	nvme_free(buf);
	EXPECT_EQ_INT(used, pool_bytes());
	nvme_detach(c);
	EXPECT_LT_INT(pool_bytes(), used - 3 * MiB);
	/* Without one they go at once. */
	buf = nvme_alloc(4 * MiB, 0);
	memset(buf, 1, 4 * MiB);
	used = pool_bytes();
	nvme_free(buf);
	EXPECT_LT_INT(pool_bytes(), used - 3 * MiB);
	peer_stop(&p);
}

TEST(nvme_memory, nobody_who_has_its_file_can_make_it_shorter_or_read_only)
{
	char *buf = nvme_alloc(4096, 0);
	int fd = nvme_pool.fd;

	ASSERT_TRUE(buf);
	EXPECT_EQ_INT(-1, ftruncate(fd, 4096));
	EXPECT_EQ_INT(EPERM, errno);
	EXPECT_EQ_INT(-1, ftruncate(fd, (off_t)(nvme_pool.plain + MiB)));
	EXPECT_EQ_INT(-1, fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_EQ_INT(EPERM, errno);
	memset(buf, 1, 4096);
	nvme_free(buf);
	/* What is freed is still given back. */
	buf = nvme_alloc(1 * MiB, 0);
	ASSERT_TRUE(buf);
	memset(buf, 1, 1 * MiB);
	EXPECT_OK(madvise(buf, 1 * MiB, MADV_REMOVE));
	EXPECT_EQ_INT(0, buf[MiB - 1]);
	nvme_free(buf);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Controllers of this machine, as far as none is needed: addresses, what sysfs says, memory for an IOMMU, EAL. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "nvme/internal.h"
#include "test/common/temp.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

TEST(nvme_pcie, addresses_are_written_in_one_way)
{
	static const char *const none[] = { "",
					    "1",
					    "00:00",
					    "0000:00:00",
					    "0000:00:00.8",
					    "0000:00:20.0",
					    "0000:00:00.0.0",
					    "00000:00:00.0",
					    "0000:000:00.0",
					    "g:00:00.0",
					    "0000:01:00.0 ",
					    "0000:01:00.0/1" };
	char out[64];

	EXPECT_OK(nvme_normal_address("01:00.0", out, sizeof(out)));
	EXPECT_STREQ("pcie:0000:01:00.0", out);
	EXPECT_OK(nvme_normal_address("pcie:FFFF:AB:1f.7", out, sizeof(out)));
	EXPECT_STREQ("pcie:ffff:ab:1f.7", out);
	EXPECT_OK(nvme_normal_address("vfio-user:/01:00.0", out, sizeof(out)));
	EXPECT_STREQ("vfio-user:/01:00.0", out);
	EXPECT_ERR(-ENAMETOOLONG, nvme_normal_address("01:00.0", out, 17));
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		EXPECT_ERR(-EINVAL, nvme_normal_address(none[i], out, sizeof(out)));
}

/* ---- a tree in the place of /sys and /dev ---- */

static char root[TEMP_PATH];

static void put(const char *path, const char *text)
{
	char full[256], *slash;
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(full, 0755);
		*slash = '/';
	}
	f = fopen(full, "w");
	ASSERT_TRUE(f);
	fputs(text, f);
	fclose(f);
}

static void point(const char *path, const char *target)
{
	char full[256];

	snprintf(full, sizeof(full), "%s%s", root, path);
	unlink(full);
	ASSERT_OK(symlink(target, full));
}

static bool mine, none_is_held_said;

static bool held(int group)
{
	none_is_held_said = group == 7;
	return mine;
}

/* Looks for the device; it must fail with rc and say text. */
static void refused(int rc, const char *text)
{
	struct pcie_place p;
	struct base_err err = { "" };

	EXPECT_ERR(rc, pcie_find("01:00.0", held, &p, &err));
	if (!strstr(err.text, text) || strncmp(err.text, "0000:01:00.0: ", 14))
		EXPECT_STREQ(text, err.text);
}

#define DEVICE "/sys/bus/pci/devices/0000:01:00.0"

static void remove_tree(void)
{
	char command[128];

	pcie_root = "";
	snprintf(command, sizeof(command), "rm -rf %s", root);
	EXPECT_EQ_INT(0, system(command));
}

TEST(nvme_pcie, what_keeps_us_from_a_controller_is_said_with_its_remedy)
{
	struct pcie_place p;
	struct base_err err;

	ASSERT_TRUE(temp_dir(root, "blobfs-pcie"));
	pcie_root = root;
	refused(-ENOENT, "no such PCI device");
	put(DEVICE "/class", "0x020000\n");
	refused(-ENODEV, "class 020000, not an NVMe controller");
	put(DEVICE "/class", "0x010802\n");
	refused(-ENODEV, "not bound to vfio-pci: dpdk-devbind.py -b vfio-pci 0000:01:00.0");
	point(DEVICE "/driver", "../../../../bus/pci/drivers/nvme");
	refused(-EBUSY, "the kernel's driver nvme: dpdk-devbind.py -b vfio-pci 0000:01:00.0");

	point(DEVICE "/driver", "../../../../bus/pci/drivers/vfio-pci");
	refused(-ENODEV, "no IOMMU before it");
	point(DEVICE "/iommu_group", "../../../../kernel/iommu_groups/7");
	refused(-ENODEV, "modprobe vfio_iommu_type1");
	put("/sys/module/vfio_iommu_type1/refcnt", "0\n");
	refused(-ENODEV, "modprobe vfio-pci");
	put("/dev/vfio/vfio", "");
	refused(-ENOENT, "/dev/vfio/7: No such file");
	put("/dev/vfio/7", "");
	EXPECT_OK(pcie_find("01:00.0", held, &p, &err));
	EXPECT_TRUE(p.driver == PCIE_VFIO && p.group == 7 && none_is_held_said);
	EXPECT_STREQ("0000:01:00.0", p.bdf);
	mine = true;
	unlink(strcat(strcpy(err.text, root), "/dev/vfio/7"));
	EXPECT_OK(pcie_find("01:00.0", held, &p, &err));
	mine = false;
	remove_tree();
}

TEST(nvme_pcie, uio_is_for_where_no_iommu_translates)
{
	struct pcie_place p;
	struct base_err err;

	ASSERT_TRUE(temp_dir(root, "blobfs-pcie"));
	pcie_root = root;
	put(DEVICE "/class", "0x010802\n");
	point(DEVICE "/driver", "../../../../bus/pci/drivers/uio_pci_generic");
	put(DEVICE "/iommu_group/type", "DMA-FQ\n");
	refused(-ENOTSUP, "an IOMMU translates");
	put(DEVICE "/iommu_group/type", "identity\n");
	refused(-ENODEV, "no uio device");
	put(DEVICE "/uio/uio12/name", "");
	refused(-ENOENT, "/dev/uio12: No such file");
	put("/dev/uio12", "");
	EXPECT_OK(pcie_find("0:1:0.0", held, &p, &err));
	EXPECT_TRUE(p.driver == PCIE_UIO && p.uio == 12);
	remove_tree();
}

/* ---- memory: in a child, where there is no pool yet ---- */

#define CHECK(x)                                                                \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			_exit(1);                                               \
		}                                                               \
	} while (0)

static void in_a_child(void (*run)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		run();
		_exit(0);
	}
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, status);
}

static struct {
	uint64_t bytes, low, high;
	unsigned fail_after; /* 0: never */
} told;

static int fake_map(void *va, uint64_t iova, uint64_t len)
{
	if (told.fail_after && !--told.fail_after)
		return -ENOMEM;
	CHECK(!((uintptr_t)va % NVME_GRANULE) && !(iova % NVME_GRANULE) && len == NVME_GRANULE);
	told.low = told.low ? MIN(told.low, iova) : iova;
	told.high = MAX(told.high, iova + len);
	told.bytes += len;
	return 0;
}

static const struct nvme_reach fake_iommu = { NVME_REACH_IOMMU, fake_map, NULL };

static int no_physical(const void *p, uint64_t *address)
{
	(void)p;
	(void)address;
	return -EPERM;
}

static const struct nvme_reach fake_physical = { NVME_REACH_PHYSICAL, NULL, no_physical };
static const struct nvme_reach file = { .kind = NVME_REACH_FILE };

static bool known(const void *p, uint64_t len)
{
	uint64_t iova = nvme_iova(p);

	return iova >= told.low && iova + len <= told.high;
}

static void run_iommu(void)
{
	char *before = nvme_alloc(5 * MiB, 0), *a, *b;
	uint64_t bytes;

	CHECK(before && !told.bytes);
	/* What is there when the IOMMU comes gets known to it. */
	CHECK(!nvme_pool_use(&fake_iommu));
	CHECK(told.bytes == 6 * MiB && known(before, 5 * MiB));
	a = nvme_alloc(64 * MiB, 0);
	CHECK(a && known(a, 64 * MiB) && told.high < 1ull << 39);
	memset(a, 1, 64 * MiB);
	/* What it knows stays as it is, and is told once. */
	bytes = told.bytes;
	nvme_free(a);
	CHECK(a[12345] == 1);
	b = nvme_alloc(64 * MiB, 0);
	CHECK(a == b && told.bytes == bytes);
	/* Nobody is there: what is taken now is for the next one. */
	nvme_pool_unuse(&fake_iommu);
	a = nvme_alloc(64 * MiB, 0);
	CHECK(a && told.bytes == bytes);
	CHECK(!nvme_pool_use(&fake_iommu));
	CHECK(told.bytes >= bytes + 64 * MiB && known(a, 64 * MiB));
	/* It may refuse. */
	told.fail_after = 3;
	CHECK(!nvme_alloc(64 * MiB, 0));
	CHECK(told.fail_after == 0 && nvme_alloc(64 * MiB, 0));
	CHECK(nvme_pool_use(&fake_physical) == -EBUSY);
	CHECK(!nvme_pool_use(&file));
}

static void run_refusal(void)
{
	CHECK(nvme_alloc(8 * MiB, 0));
	told.fail_after = 2;
	CHECK(nvme_pool_use(&fake_iommu) == -ENOMEM);
	CHECK(!nvme_pool_use(&fake_iommu) && told.bytes >= 8 * MiB);
}

static uint64_t nth;

/* Whatever allocation fails, what follows finds nothing half done. */
static void run_memory_short(void)
{
	char *p = NULL;
	int rc;

	base_fail_alloc_after(nth);
	rc = nvme_pool_use(&fake_iommu);
	if (!rc)
		p = nvme_alloc(3 * MiB, 0);
	base_fail_alloc_after(0);
	CHECK(!rc || rc == -ENOMEM);
	CHECK(p ? nth > 3 : nth < 8);
	CHECK(!rc || !nvme_pool_use(&fake_iommu));
	p = nvme_alloc(3 * MiB, 0);
	CHECK(p && known(p, 3 * MiB));
}

TEST(nvme_memory, an_iommu_knows_what_is_taken)
{
	base_log_set_sink(quiet, NULL);
	in_a_child(run_iommu);
	in_a_child(run_refusal);
	for (nth = 1; nth < 10; nth++)
		in_a_child(run_memory_short);
	base_log_set_sink(NULL, NULL);
}

/* ---- EAL ---- */

static void run_eal(void)
{
	cpu_set_t before, after;
	struct base_err err = { "" };
	int status;
	pid_t pid;

	CHECK(!sched_getaffinity(0, sizeof(before), &before));
	if (nvme_eal_start("x", &err)) {
		fprintf(stderr, "%s\n", err.text);
		_exit(1);
	}
	CHECK(!sched_getaffinity(0, sizeof(after), &after) && CPU_EQUAL(&before, &after));
	CHECK(!nvme_eal_start("x", &err));
	pid = fork();
	if (!pid) {
		CHECK(nvme_eal_start("x", &err) == -EPERM &&
		      !strncmp(err.text, "x: this process", 15));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

TEST(nvme_pcie, eal_starts_once_where_it_is_needed_and_moves_nobody)
{
	in_a_child(run_eal);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Failures: no memory at any point, a store that froze, read-only mounts, deletions that must wait. */
#include "bdev/wrap.h"
#include "test/unit/blobfs/names.h"

/* ---- a picture of the tree, to be compared ---- */

struct picture {
	char *text;
	size_t len, room;
};

struct level {
	struct bfs *fs;
	struct picture *p;
	uint64_t dirs[64];
	unsigned n;
};

static int draw_one(const struct bfs_dirent *e, void *arg)
{
	struct level *l = arg;
	struct picture *p = l->p;

	ASSERT_TRUE(e->attr != NULL);
	ASSERT_GT_INT(p->room - p->len, 512);
	p->len += (size_t)snprintf(p->text + p->len, p->room - p->len, "%s %llu %o %u %llu %u\n", e->name,
				   (unsigned long long)e->ino, e->attr->mode, e->attr->nlink,
				   (unsigned long long)e->attr->size, e->attr->uid);
	if (S_ISDIR(e->mode) && e->name[0] != '.')
		l->dirs[l->n++] = e->ino;
	return 0;
}

static void draw(struct bfs *fs, uint64_t dir, struct picture *p)
{
	struct level l = { .fs = fs, .p = p };

	ASSERT_OK(bfs_readdir(fs, dir, 0, true, draw_one, &l));
	for (unsigned i = 0; i < l.n; i++)
		draw(fs, l.dirs[i], p);
}

static char *picture(struct bfs *fs)
{
	struct picture p = { .text = calloc(1, 65536), .room = 65536 };

	draw(fs, ROOT, &p);
	return p.text;
}

/* ---- no memory ---- */

static int do_mknod(struct bfs *fs)
{
	return bfs_mknod(fs, NULL, ino_of(fs, "d"), "new", S_IFREG | 0644, 0, 0, NULL);
}
static int do_mknod_ref(struct bfs *fs)
{
	struct bfs_attr attr;
	int rc = bfs_mknod(fs, NULL, ino_of(fs, "d"), "new", S_IFREG | 0644, 0, BFS_REF, &attr);

	if (!rc)
		bfs_unref(fs, attr.ino, 1);
	return rc;
}
static int do_mkdir(struct bfs *fs) { return bfs_mkdir(fs, NULL, ino_of(fs, "d"), "new", 0755, 0, NULL); }
static int do_symlink(struct bfs *fs) { return bfs_symlink(fs, NULL, ino_of(fs, "d"), "new", "there", 0, NULL); }
static int do_link(struct bfs *fs) { return bfs_link(fs, NULL, ino_of(fs, "d/f"), ROOT, "new", 0, NULL); }
static int do_unlink(struct bfs *fs) { return bfs_unlink(fs, NULL, ino_of(fs, "d"), "f"); }
static int do_rmdir(struct bfs *fs) { return bfs_rmdir(fs, NULL, ino_of(fs, "d"), "empty"); }
static int do_rename(struct bfs *fs) { return bfs_rename(fs, NULL, ino_of(fs, "d"), "f", ROOT, "new", 0); }
static int do_replace(struct bfs *fs) { return bfs_rename(fs, NULL, ino_of(fs, "d"), "f", ino_of(fs, "d"), "g", 0); }
static int do_exchange(struct bfs *fs)
{
	return bfs_rename(fs, NULL, ino_of(fs, "d"), "empty", ROOT, "h", RENAME_EXCHANGE);
}
static int do_chown(struct bfs *fs)
{
	return bfs_setattr(fs, NULL, ino_of(fs, "d/f"), &(struct bfs_attr){ .uid = 7 }, BFS_SET_UID, NULL);
}
static int do_setxattr(struct bfs *fs) { return bfs_setxattr(fs, NULL, ino_of(fs, "d/f"), "user.a", "b", 1, 0); }

static struct bfs *prepare(struct world *w)
{
	struct bfs *fs = world_make(w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d");

	make_file(fs, d, "f");
	make_file(fs, d, "g");
	make_dir(fs, d, "empty");
	make_file(fs, ROOT, "h");
	return fs;
}

static void fails_cleanly(const char *name, int (*fn)(struct bfs *fs))
{
	struct world w;
	struct bfs *fs = prepare(&w);
	char *before = picture(fs), *after;
	uint64_t n;
	int rc = -ENOMEM;

	for (n = 1; rc == -ENOMEM && n < 1000; n++) {
		test_note("%s, allocation %llu fails", name, (unsigned long long)n);
		base_fail_alloc_after(n);
		rc = fn(fs);
		base_fail_alloc_after(0);
		if (rc != -ENOMEM)
			break;
		after = picture(fs);
		ASSERT_STREQ(before, after);
		free(after);
	}
	ASSERT_OK(rc);
	EXPECT_GT_INT(n, 1); /* it was tried at least once */
	free(before);
	world_end(&w);
	test_note("%s", "");
}

TEST(bfs_failure, without_memory_a_call_changes_nothing)
{
	fails_cleanly("mknod", do_mknod);
	fails_cleanly("mknod with a reference", do_mknod_ref);
	fails_cleanly("mkdir", do_mkdir);
	fails_cleanly("symlink", do_symlink);
	fails_cleanly("link", do_link);
	fails_cleanly("unlink", do_unlink);
	fails_cleanly("rmdir", do_rmdir);
	fails_cleanly("rename", do_rename);
	fails_cleanly("rename over", do_replace);
	fails_cleanly("exchange", do_exchange);
	fails_cleanly("chown", do_chown);
	fails_cleanly("setxattr", do_setxattr);
}

TEST(bfs_failure, a_mount_without_memory_fails_and_leaves_nothing)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_NO_SERVICE, .cache_size = 8 * MiB };
	struct world w;
	uint64_t n;
	int rc = -ENOMEM;

	world_make(&w, "64M", 0);
	make_file(w.fs, ROOT, "f");
	ASSERT_OK(bfs_unmount(w.fs));
	for (n = 1; n < 10000 && rc == -ENOMEM; n++) {
		test_note("allocation %llu fails", (unsigned long long)n);
		bdev_ref(w.keep);
		base_fail_alloc_after(n);
		rc = bfs_mount_bdev(w.keep, &opts, &w.fs, &w.err);
		base_fail_alloc_after(0);
		if (rc) {
			EXPECT_ERR(-ENOMEM, rc);
			bdev_close(w.keep);
		}
	}
	ASSERT_OK(rc);
	EXPECT_GT_INT(n, 2);
	ino_of(w.fs, "f");
	world_end(&w);
}

TEST(bfs_failure, an_orphan_that_could_not_be_deleted_goes_later)
{
	struct world w;
	struct bfs *fs = prepare(&w);
	uint64_t f = ino_of(fs, "d/f"), g = ino_of(fs, "d/g");
	struct bfs_statfs st, now;

	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_ref(fs, g));
	ASSERT_OK(bfs_unlink(fs, NULL, ino_of(fs, "d"), "f"));
	ASSERT_OK(bfs_unlink(fs, NULL, ino_of(fs, "d"), "g"));
	ASSERT_OK(bfs_get_statfs(fs, &st));
	base_fail_alloc_after(1);
	bfs_unref(fs, f, 1);
	base_fail_alloc_after(0);
	EXPECT_ERR(-ENOENT, bfs_ref(fs, f));
	bfs_unref(fs, g, 1);
	ASSERT_OK(bfs_get_statfs(fs, &now));
	EXPECT_EQ_INT(st.files - 2, now.files);
	world_end(&w);
}

/* ---- a store that takes no changes ---- */

static void expect_refused(struct bfs *fs, int want)
{
	EXPECT_ERR(want, do_mknod(fs));
	EXPECT_ERR(want, do_mkdir(fs));
	EXPECT_ERR(want, do_symlink(fs));
	EXPECT_ERR(want, do_link(fs));
	EXPECT_ERR(want, do_unlink(fs));
	EXPECT_ERR(want, do_rmdir(fs));
	EXPECT_ERR(want, do_rename(fs));
	EXPECT_ERR(want, do_exchange(fs));
	EXPECT_ERR(want, do_chown(fs));
	EXPECT_ERR(want, do_setxattr(fs));
}

TEST(bfs_failure, a_read_only_mount_shows_everything_and_changes_nothing)
{
	struct world w;
	struct bfs *fs = prepare(&w);
	char *before = picture(fs), *after;
	struct bdev_stats old, new;

	ASSERT_OK(bfs_unmount(fs));
	bdev_get_stats(w.keep, &old);
	fs = world_mount(&w, BFS_RDONLY | BFS_NO_SERVICE);
	expect_refused(fs, -EROFS);
	EXPECT_ERR(-EROFS, bfs_access(fs, NULL, ROOT, 2));
	EXPECT_OK(bfs_access(fs, NULL, ROOT, 4));
	after = picture(fs);
	EXPECT_STREQ(before, after);
	ASSERT_OK(bfs_unmount(fs));
	bdev_get_stats(w.keep, &new);
	EXPECT_EQ_INT(old.writes, new.writes);
	free(before);
	free(after);
	fs = world_mount(&w, BFS_NO_SERVICE);
	world_end(&w);
}

TEST(bfs_failure, after_a_failed_log_write_reads_go_on_and_changes_are_refused)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX, .rc = -EIO };
	struct world w = { .fs = NULL };
	struct bdev *ram;
	struct bfs *fs;
	uint64_t f;

	ASSERT_OK(bdev_open("ram:64M", NULL, &ram, &w.err));
	ASSERT_OK(bdev_fault_create(ram, &w.keep));
	ASSERT_OK(bfs_format(w.keep, NULL, &w.err));
	fs = world_mount(&w, BFS_NO_SERVICE);
	make_dir(fs, ROOT, "d");
	f = make_file(fs, ino_of(fs, "d"), "f");
	make_dir(fs, ino_of(fs, "d"), "empty");
	make_file(fs, ROOT, "h");
	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_link(fs, NULL, f, ino_of(fs, "d"), "f2", 0, NULL));
	ASSERT_OK(bs_commit(bfs_store(fs), 0));
	ASSERT_OK(bdev_fault_add(w.keep, &fault));
	make_file(fs, ROOT, "lost");
	EXPECT_ERR(-EIO, bs_commit(bfs_store(fs), 0));
	expect_refused(fs, -EROFS);
	EXPECT_EQ_INT(f, ino_of(fs, "d/f"));
	bfs_unref(fs, f, 1);
	EXPECT_NE_INT(0, bfs_unmount(fs));
	bdev_fault_clear(w.keep);
	fs = world_mount(&w, BFS_NO_SERVICE);
	EXPECT_EQ_INT(f, ino_of(fs, "d/f2"));
	EXPECT_ERR(-ENOENT, bfs_lookup(fs, NULL, ROOT, "lost", NULL));
	world_end(&w);
}

/* ---- mounting ---- */

TEST(bfs_mount, twice_is_the_same_file_system_counted)
{
	static const char device[] = "ram:64M,name=mount-twice";
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 8 * MiB };
	struct base_err err;
	struct bdev *dev;
	struct bfs *a, *b;

	ASSERT_OK(bdev_open(device, NULL, &dev, &err));
	ASSERT_OK(bfs_format(dev, NULL, &err));
	bdev_close(dev);
	ASSERT_OK(bfs_mount(device, &opts, &a, &err));
	ASSERT_OK(bfs_mount(device, &opts, &b, &err));
	EXPECT_EQ_PTR(a, b);
	opts.flags = BFS_NOATIME;
	EXPECT_ERR(-EBUSY, bfs_mount(device, &opts, &b, &err));
	EXPECT_TRUE(strstr(err.text, device) != NULL);
	ASSERT_OK(bfs_unmount(a));
	make_file(a, ROOT, "f");
	ASSERT_OK(bfs_unmount(a));
	ASSERT_OK(bfs_mount(device, &opts, &a, &err));
	ino_of(a, "f");
	ASSERT_OK(bfs_unmount(a));
	opts.flags = 1u << 20;
	EXPECT_ERR(-EINVAL, bfs_mount(device, &opts, &a, &err));
}

TEST(bfs_mount, what_is_no_file_system_is_refused_with_a_line)
{
	struct bs_format_opts opts = { .size = sizeof(opts), .owner = "other" };
	struct base_err err = { { 0 } };
	struct bdev *dev;
	struct bfs *fs;

	ASSERT_OK(bdev_open("ram:64M", NULL, &dev, &err));
	EXPECT_ERR(-EINVAL, bfs_mount_bdev(dev, NULL, &fs, &err));
	EXPECT_TRUE(strstr(err.text, "ram:64M") != NULL);
	ASSERT_OK(bs_format(dev, &opts, &err));
	EXPECT_ERR(-EINVAL, bfs_mount_bdev(dev, NULL, &fs, &err));
	EXPECT_TRUE(strstr(err.text, "other") != NULL);
	strcpy(opts.owner, "blobfs");
	ASSERT_OK(bs_format(dev, &opts, &err));
	EXPECT_ERR(-EUCLEAN, bfs_mount_bdev(dev, NULL, &fs, &err));
	EXPECT_TRUE(strstr(err.text, "root") != NULL);
	ASSERT_OK(bfs_format(dev, NULL, &err));
	ASSERT_OK(bfs_mount_bdev(dev, NULL, &fs, &err));
	EXPECT_ERR(-EBUSY, bfs_mount_bdev(dev, NULL, &fs, &err));
	ASSERT_OK(bfs_unmount(fs));
	EXPECT_ERR(-ENOENT, bfs_mount("/nonexistent/device", NULL, &fs, &err));
	EXPECT_TRUE(strstr(err.text, "/nonexistent/device") != NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs about the whole: info, df; and of one inode: stat, cat. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

static void add_u64(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_text(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

int verb_info(struct bfs *fs, const struct call *call)
{
	return numbers_of(fs, call);
}

int verb_df(struct bfs *fs, const struct call *call)
{
	struct json_object *o;
	struct bfs_statfs sf;
	uint64_t total, used, avail;
	char a[32], b[32], c[32];
	int rc = bfs_get_statfs(fs, &sf);

	if (rc)
		return verb_fail("df", call->device, rc);
	total = sf.blocks * sf.block_size;
	used = (sf.blocks - sf.free_blocks) * sf.block_size;
	avail = sf.avail_blocks * sf.block_size;
	if (call->json) {
		o = json_object_new_object();
		add_text(o, "device", call->device);
		add_u64(o, "size", total);
		add_u64(o, "used", used);
		add_u64(o, "available", avail);
		add_u64(o, "inodes", sf.files);
		return verb_print_json(o);
	}
	if (call->opt['h']) {
		printf("%-20s %12s %12s %12s %5s %10s\n", "Filesystem", "Size", "Used", "Avail", "Use%", "Inodes");
		base_format_size(total, a, sizeof(a));
		base_format_size(used, b, sizeof(b));
		base_format_size(avail, c, sizeof(c));
	} else {
		printf("%-20s %12s %12s %12s %5s %10s\n", "Filesystem", "1K-blocks", "Used", "Available", "Use%", "Inodes");
		snprintf(a, sizeof(a), "%" PRIu64, total / 1024);
		snprintf(b, sizeof(b), "%" PRIu64, used / 1024);
		snprintf(c, sizeof(c), "%" PRIu64, avail / 1024);
	}
	printf("%-20s %12s %12s %12s %4u%% %10" PRIu64 "\n", call->device, a, b, c,
	       used + avail ? (unsigned)((used * 100 + used + avail - 1) / (used + avail)) : 0, sf.files);
	return EXIT_OK;
}

static void format_time(int64_t ns, char *buf, size_t len)
{
	time_t t = (time_t)(ns / 1000000000 - (ns % 1000000000 < 0));
	long frac = (long)((ns % 1000000000 + 1000000000) % 1000000000);
	char date[40], zone[10];
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%z", &tm);
	snprintf(buf, len, "%s.%09ld %s", date, frac, zone);
}

/* What of it is freed with it, and what others have, too. */
static struct bs_usage usage_of(struct bfs *fs, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(bfs_store(fs), ino);
	struct bs_usage u = { 0 };

	if (blob)
		bs_blob_get_usage(blob, &u);
	bs_blob_put(blob);
	return u;
}

static struct json_object *stat_json(const char *path, const struct bfs_attr *a, const struct bs_usage *u, const char *target)
{
	struct json_object *o = json_object_new_object();
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", a->mode & 07777);
	add_text(o, "path", path);
	add_u64(o, "inode", a->ino);
	add_text(o, "type", verb_type_name(a->mode));
	add_text(o, "mode", mode);
	add_u64(o, "links", a->nlink);
	add_u64(o, "uid", a->uid);
	add_u64(o, "gid", a->gid);
	add_u64(o, "size", a->size);
	add_u64(o, "blocks", a->blocks);
	add_u64(o, "exclusive_bytes", u->exclusive * BS_BLOCK);
	add_u64(o, "shared_bytes", u->shared * BS_BLOCK);
	json_object_object_add(o, "atime_ns", json_object_new_int64(a->atime));
	json_object_object_add(o, "mtime_ns", json_object_new_int64(a->mtime));
	json_object_object_add(o, "ctime_ns", json_object_new_int64(a->ctime));
	json_object_object_add(o, "btime_ns", json_object_new_int64(a->btime));
	if (target)
		add_text(o, "target", target);
	return o;
}

static void stat_text(const char *path, const struct bfs_attr *a, const struct bs_usage *u, const char *target)
{
	char mode[11], t[64];

	verb_mode_text(a->mode, mode);
	printf("  File: %s%s%s\n", path, target ? " -> " : "", target ? target : "");
	printf("  Size: %-12" PRIu64 " Blocks: %-12" PRIu64 " %s\n", a->size, a->blocks, verb_type_name(a->mode));
	printf(" Inode: %-12" PRIu64 " Links: %u", a->ino, a->nlink);
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode))
		printf("  Device: %u,%u", major(a->rdev), minor(a->rdev));
	if (u->shared)
		printf("  Shared: %" PRIu64 " bytes", u->shared * BS_BLOCK);
	printf("\nAccess: (%04o/%s)  Uid: %u  Gid: %u\n", a->mode & 07777, mode, a->uid, a->gid);
	const struct { const char *name; int64_t ns; } times[] = {
		{ "Access", a->atime }, { "Modify", a->mtime }, { "Change", a->ctime }, { " Birth", a->btime } };
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		format_time(times[i].ns, t, sizeof(t));
		printf("%s: %s\n", times[i].name, t);
	}
}

int verb_stat(struct bfs *fs, const struct call *call)
{
	struct json_object *all = call->json && !call->opt['F'] ? json_object_new_array() : NULL;
	int result = EXIT_OK;

	if (call->opt['F'])
		return numbers_of(fs, call);
	for (int i = 0; i < call->argc; i++) {
		char target[BFS_SYMLINK_MAX + 1];
		struct bs_usage u;
		struct bfs_attr a;
		bool link;
		int rc = bfs_resolve(fs, NULL, call->argv[i], BFS_NOFOLLOW, &a);

		link = rc == 0 && S_ISLNK(a.mode);
		if (link) {
			rc = bfs_readlink(fs, a.ino, target, BFS_SYMLINK_MAX);
			if (rc >= 0)
				target[rc] = '\0';
		}
		if (rc < 0) {
			result = verb_fail("stat", call->argv[i], rc);
			continue;
		}
		u = usage_of(fs, a.ino);
		if (all)
			json_object_array_add(all, stat_json(call->argv[i], &a, &u, link ? target : NULL));
		else
			stat_text(call->argv[i], &a, &u, link ? target : NULL);
	}
	if (all && verb_print_json(all))
		result = EXIT_FAILED;
	return result;
}

static int cat_one(struct bfs *fs, const char *path, char *buf)
{
	struct bfs_file *file;
	uint64_t at = 0;
	int64_t n;
	int rc = bfs_open_path(fs, NULL, path, O_RDONLY, 0, BS_STREAM_UNKNOWN, &file);

	if (rc)
		return rc;
	while ((n = bfs_pread(file, buf, COPY_CHUNK, at)) > 0) {
		at += (uint64_t)n;
		if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n) {
			n = -errno;
			break;
		}
	}
	bfs_close(file);
	return (int)n;
}

int verb_cat(struct bfs *fs, const struct call *call)
{
	char *buf = malloc(COPY_CHUNK);
	int result = EXIT_OK;

	if (!buf)
		return verb_fail("cat", call->argv[0], -ENOMEM);
	for (int i = 0; i < call->argc; i++) {
		int rc = cat_one(fs, call->argv[i], buf);

		if (rc < 0)
			result = verb_fail("cat", call->argv[i], rc);
	}
	free(buf);
	return result;
}

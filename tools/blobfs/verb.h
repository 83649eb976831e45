/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs of blobfs(1). Each is one function with its own options; the table in main.c names them. */
#ifndef TOOLS_BLOBFS_VERB_H
#define TOOLS_BLOBFS_VERB_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "blobfs/blobfs.h"

struct json_object;
struct call;

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DAMAGE = 4 };

struct verb {
	const char *name;
	const char *args;    /* after "blobfs NAME DEVICE" */
	const char *summary; /* one line */
	const char *options; /* help for each option, or NULL */
	const char *short_options;
	int min_args, max_args; /* after DEVICE; max -1: any */
	bool writes;
	bool json;           /* takes --json */
	int (*run)(struct bfs *fs, const struct call *call);
	int (*raw)(const struct call *call); /* instead of run: opens the device itself */
};

/* A call taken apart. */
struct call {
	const char *device;
	int argc; /* after DEVICE */
	char **argv;
	bool json;
	bool opt[128]; /* short options given */
	const char *value[128]; /* of those that take one */
};

int verb_info(struct bfs *fs, const struct call *call);
int verb_df(struct bfs *fs, const struct call *call);
int verb_ls(struct bfs *fs, const struct call *call);
int verb_stat(struct bfs *fs, const struct call *call);
int verb_cat(struct bfs *fs, const struct call *call);
int verb_put(struct bfs *fs, const struct call *call);
int verb_get(struct bfs *fs, const struct call *call);
int verb_mkdir(struct bfs *fs, const struct call *call);
int verb_rm(struct bfs *fs, const struct call *call);
int verb_mv(struct bfs *fs, const struct call *call);
int verb_snapshot(struct bfs *fs, const struct call *call);
int verb_clone(struct bfs *fs, const struct call *call);
int verb_rollback(struct bfs *fs, const struct call *call);
int verb_dump(const struct call *call);
int verb_metadump(const struct call *call);
int verb_metarestore(const struct call *call);
int verb_export(const struct call *call);
int verb_scrub(const struct call *call);
int verb_grow(const struct call *call);
/* info, and stat --fs: of an open file system; of a mount, or -1: DEVICE is none. */
int numbers_of(struct bfs *fs, const struct call *call);
int numbers_of_mount(const struct call *call);
int verb_trim(const struct call *call);

/* snapshot, clone, rollback: of a mount, or -1: DEVICE is none. */
int copy_in_mount(const struct call *call, const struct verb *v);
/* Where a copy of this name is; to be freed; NULL when memory is short. */
#define COPIES "/.snapshots"
char *copy_path(const char *name);
/* verb_fail, with what is to be done about it. */
int copy_fail(const char *verb, const char *path, int rc);
/* Of a rollback, 1 when it has said so: the name beside is taken; what was there could not be removed. Else 0, or rc. */
int copy_in_the_way(const char *aside, int rc);
int copy_left(const char *name, const char *aside, int rc);
/* Then it says that this cannot be. */
bool copy_is_root(const char *verb, const char *path);

/*
 * A mount to talk to: DEVICE may be a directory of it, or what is mounted. A descriptor for ioctl; -ENODEV: it is not mounted (or a
 * directory is not of ours, which is said). *where: its directory.
 */
int live_open(const struct call *call, char *where, size_t len);

/* Opens what the device holds, mended if it must be, all in memory; bs_abandon ends it. */
int view_open(struct bdev *dev, struct bs **bs, struct base_err *err);
/* Calls fn for the pages of data checksums; of a store without them for none. */
int view_walk_sums(struct bdev *dev, bs_piece_fn fn, void *arg, struct base_err *err);
/* Prints what each extent is used for, as lines or the elements of a JSON array. */
int dump_space(struct bdev *dev, const struct call *call, struct base_err *err);
/* Copies everything out, going on after errors; salvage: keeps what can be read of a file. EXIT_OK or EXIT_FAILED. */
int get_everything(struct bfs *fs, const struct call *call, const char *dir, bool salvage);

/* Says "verb: path: why" and returns EXIT_FAILED. */
int verb_fail(const char *what, const char *path, int rc);
/* Prints a JSON object and frees it. EXIT_OK or EXIT_FAILED. */
int verb_print_json(struct json_object *o);
/* "dir/name" in a buffer to be freed; NULL when memory is short. */
char *verb_join(const char *dir, const char *name);
/* Last component of a path: "a" of "/x/a/". Points into path; *len its length. */
const char *verb_base(const char *path, size_t *len);
/* ls -l's ten characters. */
void verb_mode_text(uint32_t mode, char out[11]);
const char *verb_type_name(uint32_t mode);

/* Names of one directory, without "." and "..", sorted. */
struct name_list {
	char **name;
	size_t n, cap;
	int rc;
};
int verb_list(struct bfs *fs, uint64_t dir, struct name_list *out);
void verb_list_free(struct name_list *list);
/* Where a walk down a tree stands. On a damaged device a directory may lie below itself. */
struct trail {
	const struct trail *up;
	uint64_t ino;
};
bool verb_goes_round(const struct trail *t);
/* Removes a tree (rm -r, put's clean-up). 0 or negative errno of the first failure. */
int verb_remove_tree(struct bfs *fs, uint64_t dir, const char *name);

#define COPY_CHUNK (1u << 20)

#endif

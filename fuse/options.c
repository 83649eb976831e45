/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuse/options.h"

enum kind {
	IGNORED, /* mount(8)'s own, or what is so anyway */
	KERNEL,  /* handed on to the kernel */
	RW, RO, NOATIME, RELATIME, DISCARD, NODISCARD, GROW, ALLOW_OTHER, DEBUG, /* no value */
	CACHE, DIRTY, DISCARD_MIN, REACTORS, FSNAME, /* with a value */
	REMOUNT,
};

/* A name ending in '=' wants a value; in '*', any rest. */
static const struct option_name {
	const char *name;
	enum kind kind;
} names[] = {
	{ "rw", RW }, { "ro", RO },
	{ "noatime", NOATIME }, { "relatime", RELATIME }, { "atime", RELATIME }, { "norelatime", RELATIME },
	{ "discard", DISCARD }, { "nodiscard", NODISCARD }, { "discard=", DISCARD_MIN }, { "grow", GROW },
	{ "allow_other", ALLOW_OTHER }, { "debug", DEBUG },
	{ "cache=", CACHE }, { "dirty=", DIRTY }, { "reactors=", REACTORS }, { "fsname=", FSNAME },
	{ "dev", KERNEL }, { "nodev", KERNEL }, { "suid", KERNEL }, { "nosuid", KERNEL },
	{ "exec", KERNEL }, { "noexec", KERNEL }, { "sync", KERNEL }, { "async", KERNEL },
	{ "default_permissions", IGNORED }, { "subtype=blobfs", IGNORED }, { "defaults", IGNORED },
	{ "auto", IGNORED }, { "noauto", IGNORED }, { "nofail", IGNORED }, { "_netdev", IGNORED },
	{ "user", IGNORED }, { "user=*", IGNORED }, { "nouser", IGNORED }, { "users", IGNORED },
	{ "owner", IGNORED }, { "noowner", IGNORED }, { "group", IGNORED }, { "nogroup", IGNORED },
	{ "comment=*", IGNORED }, { "uhelper=*", IGNORED }, { "helper=*", IGNORED },
	{ "x-*", IGNORED }, { "X-*", IGNORED },
	{ "diratime", IGNORED }, { "nodiratime", IGNORED }, { "silent", IGNORED }, { "loud", IGNORED },
	{ "remount", REMOUNT },
};

static const struct option_name *find(const char *opt)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t n = strlen(names[i].name);
		char last = names[i].name[n - 1];

		if (last == '*' ? !strncmp(opt, names[i].name, n - 1) :
		    last == '=' ? !strncmp(opt, names[i].name, n) :
				  !strcmp(opt, names[i].name))
			return &names[i];
	}
	return NULL;
}

static int add_kernel(struct mount_args *a, const char *opt, struct base_err *err)
{
	size_t n = strlen(a->kernel);

	if (n + strlen(opt) + 2 > sizeof(a->kernel))
		return base_err_set(err, -EINVAL, "option %s: too many options", opt);
	snprintf(a->kernel + n, sizeof(a->kernel) - n, "%s%s", n ? "," : "", opt);
	return 0;
}

static int set_size(const char *opt, const char *value, uint64_t *out, struct base_err *err)
{
	if (base_parse_size(value, out) || !*out)
		return base_err_set(err, -EINVAL, "option %s: not a size (as in 64M or 1.5G)", opt);
	return 0;
}

static int set_reactors(const char *opt, const char *value, struct mount_args *a, struct base_err *err)
{
	char *end;
	long n = strtol(value, &end, 10);

	if (end == value || *end || n < 1 || n > 64)
		return base_err_set(err, -EINVAL, "option %s: not a number from 1 to 64", opt);
	a->fuse.reactors = (uint32_t)n;
	return 0;
}

static int set_fsname(const char *opt, const char *value, struct mount_args *a, struct base_err *err)
{
	if (!*value || strlen(value) >= sizeof(a->fsname))
		return base_err_set(err, -EINVAL, "option %s: empty or too long", opt);
	strcpy(a->fsname, value);
	return 0;
}

static void set_readonly(struct mount_args *a, bool ro)
{
	a->fs.flags = ro ? a->fs.flags | BFS_RDONLY : a->fs.flags & ~(uint32_t)BFS_RDONLY;
	a->fuse.readonly = ro;
}

static void set_flag(struct mount_args *a, uint32_t flag, bool on)
{
	a->fs.flags = on ? a->fs.flags | flag : a->fs.flags & ~flag;
}

static int set_one(struct mount_args *a, const char *opt, struct base_err *err)
{
	const struct option_name *o = find(opt);
	const char *value = strchr(opt, '=') ? strchr(opt, '=') + 1 : "";

	if (!o)
		return a->sloppy ? 0 : base_err_set(err, -EINVAL, "unknown option '%s'", opt);
	switch (o->kind) {
	case IGNORED:
		return 0;
	case KERNEL:
		return add_kernel(a, opt, err);
	case RW:
	case RO:
		set_readonly(a, o->kind == RO);
		return 0;
	case NOATIME:
	case RELATIME:
		set_flag(a, BFS_NOATIME, o->kind == NOATIME);
		return 0;
	case DISCARD:
	case NODISCARD:
		set_flag(a, BFS_DISCARD, o->kind == DISCARD);
		return 0;
	case DISCARD_MIN:
		set_flag(a, BFS_DISCARD, true);
		return set_size(opt, value, &a->fs.discard_min, err);
	case GROW:
		set_flag(a, BFS_GROW, true);
		return 0;
	case ALLOW_OTHER:
		a->fuse.allow_other = true;
		return 0;
	case DEBUG:
		a->fuse.debug = a->foreground = true;
		return 0;
	case CACHE:
		return set_size(opt, value, &a->fs.cache_size, err);
	case DIRTY:
		return set_size(opt, value, &a->fs.dirty_limit, err);
	case REACTORS:
		return set_reactors(opt, value, a, err);
	case FSNAME:
		return set_fsname(opt, value, a, err);
	case REMOUNT:
		return base_err_set(err, -EINVAL, "option remount: not offered; unmount and mount again");
	}
	return -EINVAL;
}

static int set_list(struct mount_args *a, const char *list, struct base_err *err)
{
	char *copy = base_strdup(list), *rest = copy, *opt;
	int rc = 0;

	if (!copy)
		return base_err_set(err, -ENOMEM, "out of memory");
	while (!rc && (opt = strsep(&rest, ",")))
		if (*opt)
			rc = set_one(a, opt, err);
	free(copy);
	return rc;
}

/* word: the one of the command line it stands in. */
static int set_letter(struct mount_args *a, int letter, const char *word, struct base_err *err)
{
	switch (letter) {
	case 'f': a->foreground = true; return 0;
	case 'v': a->verbose = true; return 0;
	case 'h': a->help = true; return 0;
	case 'V': a->version = true; return 0;
	case 'r': set_readonly(a, true); return 0;
	case 'w': set_readonly(a, false); return 0;
	case 'n': /* no mtab: there is none */
	case 't': /* mount(8) tells the type it found us by */
	case 's': /* seen to before */
		return 0;
	case 'o': return set_list(a, optarg, err);
	case ':': return base_err_set(err, -EINVAL, "-%c wants an argument", optopt);
	default: break;
	}
	if (optopt)
		return base_err_set(err, -EINVAL, "unknown option '-%c'", optopt);
	return base_err_set(err, -EINVAL, "unknown option '%s'", word);
}

static const char short_options[] = ":fvhVrwnst:o:";

int mount_args_parse(int argc, char **argv, struct mount_args *a, struct base_err *err)
{
	static const struct option long_options[] = {
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 }
	};
	int letter, rc = 0;

	memset(a, 0, sizeof(*a));
	a->fs.size = sizeof(a->fs);
	a->fuse.size = sizeof(a->fuse);
	/* -s counts wherever it stands. */
	optind = 0;
	while ((letter = getopt_long(argc, argv, short_options, long_options, NULL)) != -1)
		a->sloppy |= letter == 's';
	optind = 0;
	while (!rc && (letter = getopt_long(argc, argv, short_options, long_options, NULL)) != -1)
		rc = set_letter(a, letter, argv[optind - 1], err);
	if (rc || a->help || a->version)
		return rc;
	if (argc - optind != 2)
		return base_err_set(err, -EINVAL, argc - optind < 2 ? "DEVICE and DIR are wanted" :
								      "more than DEVICE and DIR given");
	a->device = argv[optind];
	a->dir = argv[optind + 1];
	a->fuse.mount_options = a->kernel;
	return 0;
}

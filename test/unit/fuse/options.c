/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "fuse/options.h"
#include "test/shim/test.h"

static struct mount_args args;
static struct base_err err;

static int parse_all(const char *const *words)
{
	char *argv[16] = { "mount.blobfs" };
	int argc = 1;

	while (*words)
		argv[argc++] = (char *)*words++;
	argv[argc] = NULL;
	err.text[0] = '\0';
	return mount_args_parse(argc, argv, &args, &err);
}

#define PARSE(...) parse_all((const char *const[]){ __VA_ARGS__, NULL })

TEST(mount_options, device_and_directory_are_enough)
{
	ASSERT_OK(PARSE("img", "/mnt"));
	EXPECT_STREQ("img", args.device);
	EXPECT_STREQ("/mnt", args.dir);
	EXPECT_FALSE(args.foreground);
	EXPECT_EQ_INT(0, args.fs.flags);
	EXPECT_EQ_INT(BFS_FUSE_SOLE, args.fuse.mode);
}

TEST(mount_options, are_taken_as_mount_8_gives_them)
{
	ASSERT_OK(PARSE("/dev/x", "/mnt", "-n", "-v", "-t", "blobfs", "-o",
			"rw,relatime,_netdev,x-systemd.automount,user=joe,nofail"));
	EXPECT_TRUE(args.verbose);
	EXPECT_STREQ("", args.kernel);
	EXPECT_EQ_INT(0, args.fs.flags);
}

TEST(mount_options, set_what_they_name)
{
	ASSERT_OK(PARSE("-f", "-o", "ro,noatime,discard,cache=1.5G,dirty=64M", "img", "/mnt", "-o",
			"reactors=3,fsname=x=y,nodev,nosuid,noexec,allow_other"));
	EXPECT_TRUE(args.foreground);
	EXPECT_TRUE(args.fuse.readonly);
	EXPECT_TRUE(args.fuse.allow_other);
	EXPECT_EQ_INT(BFS_RDONLY | BFS_NOATIME | BFS_DISCARD, args.fs.flags);
	EXPECT_EQ_INT(1536 * MiB, args.fs.cache_size);
	EXPECT_EQ_INT(64 * MiB, args.fs.dirty_limit);
	EXPECT_EQ_INT(3, args.fuse.reactors);
	EXPECT_STREQ("x=y", args.fsname);
	EXPECT_STREQ("nodev,nosuid,noexec", args.fuse.mount_options);
}

TEST(mount_options, the_later_of_two_contrary_ones_counts)
{
	ASSERT_OK(PARSE("-o", "ro,noatime,discard,rw,relatime,nodiscard", "img", "/mnt"));
	EXPECT_EQ_INT(0, args.fs.flags);
	EXPECT_FALSE(args.fuse.readonly);
}

TEST(mount_options, an_unknown_one_is_refused_by_name)
{
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "ro,chache=1M"));
	EXPECT_STREQ("unknown option 'chache=1M'", err.text);
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "rox"));
	EXPECT_STREQ("unknown option 'rox'", err.text);
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-q"));
	EXPECT_STREQ("unknown option '-q'", err.text);
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "--magic"));
}

TEST(mount_options, a_sloppy_mount_lets_unknown_ones_pass)
{
	ASSERT_OK(PARSE("img", "/mnt", "-o", "magic,ro", "-s"));
	EXPECT_TRUE(args.fuse.readonly);
}

TEST(mount_options, a_wrong_value_is_refused)
{
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "cache=much"));
	EXPECT_STREQ("option cache=much: not a size (as in 64M or 1.5G)", err.text);
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "cache=0"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "reactors=0"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "reactors=2x"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "reactors=99999999999999999999"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "fsname="));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", "remount,ro"));
}

TEST(mount_options, missing_and_superfluous_words_are_refused)
{
	EXPECT_ERR(-EINVAL, PARSE("img"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "more"));
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o"));
	ASSERT_OK(PARSE("-h"));
	EXPECT_TRUE(args.help);
	ASSERT_OK(PARSE("--version"));
	EXPECT_TRUE(args.version);
}

TEST(mount_options, a_long_list_of_kernel_options_is_refused_not_cut)
{
	char list[1024] = "nodev";

	while (strlen(list) < 600)
		strcat(list, ",nodev");
	EXPECT_ERR(-EINVAL, PARSE("img", "/mnt", "-o", list));
}

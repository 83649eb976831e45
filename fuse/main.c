/* SPDX-License-Identifier: BSD-2-Clause */
/* mount.blobfs DEVICE DIR: the mount helper and daemon. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "config.h"
#include "fuse/daemon.h"
#include "fuse/kmount.h"
#include "fuse/options.h"

#define LOG_COMPONENT "fuse"
#include "base/log.h"

#define NAME "mount.blobfs"
#define PATIENCE_NS 3000000000ull
enum { EXIT_USAGE = 1, EXIT_MOUNT = 32 }; /* as mount(8) */

static const char usage[] =
	"usage: " NAME " DEVICE DIR [-f] [-v] [-o OPTION,…]\n"
	"Mounts the BlobFS on DEVICE (an image file or block device) at DIR.\n"
	"  -f                 stay in the foreground\n"
	"  -r                 read-only, as -o ro\n"
	"  -v                 say what was mounted\n"
	"  -h, -V             this help, the version\n"
	"options: ro rw noatime relatime nodev nosuid noexec sync\n"
	"  discard[=SIZE]     tell the device of extents that became free, of SIZE at least (64K)\n"
	"  grow               take all of a device that has grown\n"
	"  cache=SIZE         page cache of the daemon (128M)\n"
	"  dirty=SIZE         how much of it may be unwritten (a quarter)\n"
	"  reactors=N         threads that serve (half the cores)\n"
	"  allow_other        other users may enter (always so for root)\n"
	"  fsname=NAME        the source /proc/mounts shows (DEVICE)\n"
	"  debug              show every request; stays in the foreground\n"
	"End it with: umount DIR (or fusermount3 -u DIR)\n";

static struct bfs_fuse *serving;

static void on_signal(int sig)
{
	(void)sig;
	if (serving)
		bfs_fuse_interrupt(serving);
}

static void block_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(how, &set, NULL);
}

static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
}

/* The daemon changes to "/"; and umount(8) finds a mount by its source only if that is absolute. */
static char *absolute(const char *device)
{
	char *path = strncmp(device, "ram:", 4) && strncmp(device, "nvme:", 5) ? realpath(device, NULL) : NULL;

	return path ? path : base_strdup(device);
}

/* Everything that can be found wrong before the device is touched. */
static void check_first(const char *dir)
{
	struct base_err err = { "" };
	char *path;
	int rc = kmount_check_device(&err);

	if (!rc)
		rc = kmount_check_dir(dir, &path, &err);
	if (rc)
		daemon_fail(EXIT_MOUNT, base_err_text(&err, rc));
	free(path);
}

/* umount(8) returns before the daemon of that mount has closed the device: a device that is held but not mounted is
 * waited for a little. */
static int open_device(struct mount_args *a, const char *device, struct bfs **fs, struct base_err *err)
{
	uint64_t until = base_now_ns() + PATIENCE_NS;
	char dir[256];
	int rc;

	for (;;) {
		rc = bfs_mount(device, &a->fs, fs, err);
		if (rc != -EBUSY)
			return rc;
		if (kmount_source_is_mounted(a->fuse.fsname, dir, sizeof(dir)))
			return base_err_set(err, rc, "%s: in use: mounted at %s", device, dir);
		if (base_now_ns() > until)
			return rc;
		usleep(20000);
	}
}

static struct bfs *mount_store(struct mount_args *a, const char *device)
{
	struct base_err err = { "" };
	struct bfs *fs;
	int rc;

	/* What sync(2) pushed to us is durable within two seconds, whatever happens then. */
	a->fs.writeback_ms = 500;
	a->fs.commit_ms = 500;
	rc = open_device(a, device, &fs, &err);
	if (rc)
		daemon_fail(EXIT_MOUNT, base_err_text(&err, rc));
	return fs;
}

static void serve(struct mount_args *a, struct bfs *fs)
{
	struct base_err err = { "" };
	int rc = bfs_fuse_start(fs, a->dir, &a->fuse, &serving, &err);

	if (rc) {
		bfs_unmount(fs);
		daemon_fail(EXIT_MOUNT, base_err_text(&err, rc));
	}
	if (a->verbose)
		printf(NAME ": %s on %s\n", a->fuse.fsname, a->dir);
	if (chdir("/"))
		log_warn("/: %s", strerror(errno));
	daemon_ready();
	block_signals(SIG_UNBLOCK);
	bfs_fuse_wait(serving);
	block_signals(SIG_BLOCK);
	bfs_fuse_stop(serving);
}

static int run(struct mount_args *a)
{
	char *device = absolute(a->device);
	struct bfs *fs;
	int rc;

	if (!device)
		daemon_fail(EXIT_MOUNT, strerror(ENOMEM));
	a->fuse.fsname = a->fsname[0] ? a->fsname : device;
	block_signals(SIG_BLOCK);
	catch_signals();
	check_first(a->dir);
	fs = mount_store(a, device);
	serve(a, fs);
	rc = bfs_unmount(fs);
	if (rc)
		log_err("%s: unmounting: %s", device, strerror(-rc));
	free(device);
	return rc ? EXIT_MOUNT : 0;
}

int main(int argc, char **argv)
{
	struct base_err err = { "" };
	struct mount_args args;

	if (mount_args_parse(argc, argv, &args, &err)) {
		fprintf(stderr, NAME ": %s (see " NAME " -h)\n", err.text);
		return EXIT_USAGE;
	}
	if (args.help || args.version) {
		fputs(args.help ? usage : NAME " " BLOBFS_VERSION "\n", stdout);
		return fflush(stdout) ? EXIT_MOUNT : 0;
	}
	daemon_begin(NAME, !args.foreground);
	return run(&args);
}

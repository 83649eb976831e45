/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is agreed with the kernel.
 *
 *   sole writer             writeback cache, endless timeouts, negative entries, cached symlinks, no OPENDIR, no FLUSH,
 *                           locks kept by the kernel
 *   beside a library user   nothing cached: timeouts 0, direct I/O, locks answered from the library's table
 *   both                    readdirplus, asynchronous reads and direct I/O, 1 MiB requests, parallel directory
 *                           operations, the kernel checks permissions (default_permissions) and applies
 *                           the umask
 *   never                   POSIX ACLs (not offered), atomic O_TRUNC (a SETATTR follows the OPEN and is asynchronous),
 *                           splice (requests are read whole into page-aligned buffers)
 */
#include <linux/fuse.h>

#include "fuse/control.h"

#define MAX_BACKGROUND 128
#define FUSE_DIRECT_IO_ALLOW_MMAP_BIT (1ull << 36) /* newer than the headers: shared mmap of direct files */

uint64_t session_want(const struct bfs_fuse *f)
{
	return FUSE_HANDLE_KILLPRIV_V2 | (f->sole ? 0 : FUSE_DIRECT_IO_ALLOW_MMAP_BIT);
}

bool session_kills_privileges(uint64_t granted)
{
	return granted & FUSE_HANDLE_KILLPRIV_V2;
}

static void want(struct fuse_conn_info *conn, unsigned int caps)
{
	conn->want |= caps & conn->capable;
}

static void do_init(void *userdata, struct fuse_conn_info *conn)
{
	struct bfs_fuse *f = transport_init_arg(userdata);

	/* Version 1 of KILLPRIV would have us clear suid when root writes, too. */
	conn->want &= ~(unsigned int)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ |
				      FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_DONT_MASK |
				      FUSE_CAP_POSIX_ACL | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_WRITEBACK_CACHE |
				      FUSE_CAP_AUTO_INVAL_DATA);
	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
			   FUSE_CAP_READDIRPLUS_AUTO);
	if (f->sole)
		want(conn, FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_NO_OPENDIR_SUPPORT |
				   FUSE_CAP_EXPLICIT_INVAL_DATA);
	else
		want(conn, FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_POSIX_LOCKS);
	conn->max_write = TRANSPORT_MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

#define COMMON_OPS                                                                                     \
	.init = do_init, .lookup = do_lookup, .forget = do_forget, .forget_multi = do_forget_multi,    \
	.getattr = do_getattr, .setattr = do_setattr, .readlink = do_readlink, .mknod = do_mknod,      \
	.mkdir = do_mkdir, .unlink = do_unlink, .rmdir = do_rmdir, .symlink = do_symlink,              \
	.rename = do_rename, .link = do_link, .open = do_open, .read = do_read, .write = do_write,     \
	.flush = do_flush, .release = do_release, .fsync = do_fsync, .opendir = do_opendir,            \
	.readdir = do_readdir, .readdirplus = do_readdirplus, .fsyncdir = do_fsyncdir,                 \
	.statfs = do_statfs, .setxattr = do_setxattr, .getxattr = do_getxattr,                         \
	.listxattr = do_listxattr, .removexattr = do_removexattr, .create = do_create,                 \
	.fallocate = do_fallocate, .copy_file_range = do_copy_file_range, .lseek = do_lseek, \
	.ioctl = do_ioctl

static const struct fuse_lowlevel_ops sole_ops = { COMMON_OPS };
static const struct fuse_lowlevel_ops beside_ops = { COMMON_OPS, .getlk = do_getlk, .setlk = do_setlk };

const struct fuse_lowlevel_ops *session_ops(const struct bfs_fuse *f)
{
	return f->sole ? &sole_ops : &beside_ops;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the FUSE binding share.
 *
 *   serve.c      a mount: start, wait, stop; its workers
 *   session.c    what is negotiated with the kernel; the tables of operations
 *   transport.c  how requests arrive; kmount.c: mounting and unmounting
 *   ops_*.c      operations; handles.c: open files; full.c: ENOSPC for delayed writes
 *   locks.c      POSIX locks beside a library user
 *   control.c    what can be asked by ioctl; device.c: growing, trimming, copies, numbers
 *   main.c, options.c, daemon.c   mount.blobfs
 *
 * A worker is a reactor with a port of the transport and a queue of the file system. Metadata is answered in the
 * handler; data goes through the queue and is answered when done, by whichever thread that is; the few calls that
 * would block go to the side thread.
 */
#ifndef FUSE_INTERNAL_H
#define FUSE_INTERNAL_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "fuse/libfuse.h"

#include "base/reactor.h"
#include "fuse/fuse.h"
#include "fuse/transport.h"

#define FUSE_FSTYPE "fuse.blobfs"

/* An open file. The kernel names it by fuse_file_info.fh. */
struct handle {
	struct bfs_file *file;
	uint64_t ino;
	bool writable;
	LIST_ENTRY(handle) link; /* in handles.all */
};

/* An inode somebody has open for writing: the kernel may hold pages of it that we have not seen. */
struct writer {
	RB_ENTRY(writer) node;
	uint64_t ino;
	unsigned int handles;
	bool full; /* a delayed write found no space */
};
RB_HEAD(writer_tree, writer);

struct handles {
	pthread_mutex_t lock;
	LIST_HEAD(, handle) all;
	struct writer_tree writers;
};

struct locks;
struct control;

struct worker {
	struct bfs_fuse *f;
	struct reactor *r;
	struct bfs_queue *q;
	struct reactor_fd *q_watch;
	bool started;
};

enum slow { SLOW_DEVICE, SLOW_COPIES, N_SLOW };

struct bfs_fuse {
	struct bfs *fs;
	struct bfs_fuse_opts opts;
	char *dir;
	bool sole;
	bool killpriv; /* clearing suid, sgid and capabilities is ours (FUSE_HANDLE_KILLPRIV_V2) */
	double timeout;
	struct transport *t;
	struct handles handles;
	struct locks *locks; /* NULL: the kernel keeps them */
	struct control *control;
	struct reactor *side;
	bool side_started;
	pthread_mutex_t slow_lock;
	struct reactor *slow[N_SLOW]; /* for what takes long; NULL: nothing has come yet */
	unsigned int n_workers;
	struct worker *workers;
	sem_t event;
	_Atomic bool gone, interrupted, stopping;
};

/* ---- session.c ---- */
/* INIT flags to ask for that libfuse does not know. */
uint64_t session_want(const struct bfs_fuse *f);
bool session_kills_privileges(uint64_t granted);
const struct fuse_lowlevel_ops *session_ops(const struct bfs_fuse *f);

/* ---- replies ---- */
static inline struct bfs_fuse *req_fuse(fuse_req_t req)
{
	return ((struct worker *)transport_user(req))->f;
}
void reply_attr(fuse_req_t req, const struct bfs_attr *attr);
/* Answers with an inode that was referenced once for the kernel; takes the reference back if the asker is gone. */
void reply_entry(fuse_req_t req, const struct bfs_attr *attr);
void fill_entry(const struct bfs_fuse *f, const struct bfs_attr *attr, struct fuse_entry_param *e);
/* Ownership of what is made; the kernel has checked permissions and applied the umask. */
struct bfs_cred req_cred(fuse_req_t req);
/* What a write, truncation or change of owner takes away; suid: the kernel said that the bits are to go. */
int kill_privileges(struct bfs_fuse *f, uint64_t ino, bool suid);

/* ---- handles.c ---- */
void handles_init(struct handles *h);
/* Closes what the kernel did not close (a mount that was aborted). */
void handles_close_all(struct handles *h);
int handle_open(struct bfs_fuse *f, uint64_t ino, int flags, struct handle **out);
void handle_close(struct bfs_fuse *f, struct handle *h);
bool handles_has_writer(struct handles *h, uint64_t ino);
/* Changes the mark that delayed writes of this inode find no space; returns what it was. */
bool handles_set_full(struct handles *h, uint64_t ino, bool full);
/* For all that have the inode open for writing; false: nobody has. */
bool handles_set_stream(struct handles *h, uint64_t ino, enum bs_stream stream);
bool handles_is_full(struct handles *h, uint64_t ino);

/* ---- full.c ---- */
/* A delayed write failed for want of space: the writer's next write(2) hears of it. Any thread. */
void full_note(struct bfs_fuse *f, uint64_t ino);
/* A writer's GETATTR: -ENOSPC if its delayed writes found no space: once, and while there is none. */
int full_check(struct bfs_fuse *f, uint64_t ino);

/* ---- locks.c ---- */
int locks_create(struct bfs_fuse *f, struct locks **out);
void locks_destroy(struct locks *l);
void locks_interrupt(struct locks *l, uint64_t unique);
/* Somebody may have let go: looks whether waiters can go on. */
void locks_changed(struct locks *l);

/* ---- operations ---- */
void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void do_readlink(fuse_req_t req, fuse_ino_t ino);
void do_statfs(fuse_req_t req, fuse_ino_t ino);
void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned int flags);
void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	      struct fuse_file_info *fi);
void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void do_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags);
void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void do_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void do_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);

#endif

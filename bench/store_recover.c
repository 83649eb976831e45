/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What recovery costs after a SIGKILL, and what files and runs cost in memory.
 *
 *	store_recover make IMAGE SIZE FILES       a file system on a sparse image: so many files of one block in a thousandth as many
 *	                                          directories, a checkpoint, then changes until the log is as long as it may be; SIGKILL
 *	store_recover open IMAGE                  recovers it once, cold, and is killed: prints one line of numbers
 *	store_recover pairs IMAGE IMAGE [PAIRS]   recovers both in turns, each time in a new process; the table
 *	store_recover memory IMAGE [FILES [RUNS]] bytes of memory a file and a run
 */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dma.h"
#include "bench/store.h"
#include "blobfs/blobfs.h"
#include "blobfs/format.h"

#define DIR_FILES 1000u

/* ---- making ---- */

struct make {
	struct bfs *fs;
	uint64_t dir, names; /* bytes of names */
};

/* Transactions wait for a checkpoint at the log's limit, which this thread has to write itself where there is no service. */
static void let_in(struct bfs *fs)
{
	struct bs_stat st;

	bs_get_stat(bfs_store(fs), &st);
	if (st.log_bytes + 8 * MiB > st.log_limit)
		bench_must("checkpoint", bs_checkpoint(bfs_store(fs)));
	else
		bench_must("commit", bs_commit(bfs_store(fs), 0));
}

static uint64_t make_file(struct make *m, uint64_t i)
{
	struct bfs_attr attr;
	char name[64];

	if (i % DIR_FILES == 0) {
		snprintf(name, sizeof(name), "directory-%" PRIu64, i / DIR_FILES);
		bench_must("mkdir", bfs_mkdir(m->fs, NULL, BFS_ROOT_INO, name, 0755, 0, &attr));
		m->dir = attr.ino;
		let_in(m->fs);
	}
	snprintf(name, sizeof(name), "file-%010" PRIu64, i);
	m->names += strlen(name);
	bench_must("mknod", bfs_mknod(m->fs, NULL, m->dir, name, S_IFREG | 0644, 0, BFS_REF, &attr));
	return attr.ino;
}

/* Files of one block, which is preallocated: what recovery reads is the same as if it had been written. */
static uint64_t make_files(struct make *m, uint64_t files)
{
	uint64_t first = 0;

	for (uint64_t i = 0; i < files; i++) {
		uint64_t ino = make_file(m, i);
		struct bfs_file *f;

		first = first ? first : ino;
		bench_must("open", bfs_open(m->fs, NULL, ino, O_RDWR, BS_STREAM_LONG, &f));
		bench_must("fallocate", bfs_fallocate(f, 0, 0, 4096));
		bfs_close(f);
		bfs_unref(m->fs, ino, 1);
	}
	return first;
}

/* Changes of random files, each a transaction, until one more would have to wait. */
static uint64_t grow_log(struct bfs *fs, uint64_t first, uint64_t files)
{
	struct bfs_attr attr = { .mode = S_IFREG | 0600 };
	uint64_t random = 1, n = 0;
	struct bs_stat st;

	for (;; n++) {
		uint64_t ino = first + bench_random(&random) % files;

		if (n % 1000 == 0) {
			bench_must("commit", bs_commit(bfs_store(fs), 0));
			bs_get_stat(bfs_store(fs), &st);
			if (st.log_bytes + 2 * MiB > st.log_limit)
				return n;
		}
		attr.mode ^= 0111;
		if (bfs_setattr(fs, NULL, ino, &attr, BFS_SET_MODE | BFS_SET_MTIME_NOW, NULL) == -ENOENT)
			n--; /* a directory's number */
	}
}

static struct bfs *open_fs(const char *device, uint32_t flags)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = flags, .cache_size = 16 * MiB };
	struct base_err err = { "" };
	struct bfs *fs;

	if (bfs_mount(device, &opts, &fs, &err))
		bench_die(device, err.text);
	return fs;
}

static struct bfs *format_fs(const char *device)
{
	struct base_err err = { "" };
	struct bdev *dev;

	if (bdev_open(device, NULL, &dev, &err) || bfs_format(dev, NULL, &err))
		bench_die(device, err.text);
	bdev_close(dev);
	return open_fs(device, BFS_NO_SERVICE);
}

/* Sparse. */
static void make_image(const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		bench_die(path, strerror(errno));
	close(fd);
}

static int make(const char *image, const char *size, uint64_t files)
{
	struct make m = { .fs = NULL };
	uint64_t first, changes;
	struct bs_stat st;
	uint64_t bytes;

	if (base_parse_size(size, &bytes) || !files)
		bench_die(size, "not a size");
	make_image(image, bytes);
	m.fs = format_fs(image);
	first = make_files(&m, files);
	bench_must("checkpoint", bs_checkpoint(bfs_store(m.fs)));
	changes = grow_log(m.fs, first, files);
	bs_get_stat(bfs_store(m.fs), &st);
	printf("  %s: %" PRIu64 " files, checkpoint of %.0f MiB, log of %.0f MiB (limit %.0f), %" PRIu64 " changes in it\n", size, files,
	       (double)st.meta_bytes / MiB, (double)st.log_bytes / MiB, (double)st.log_limit / MiB, changes);
	fflush(stdout);
	return raise(SIGKILL);
}

/* ---- recovering ---- */

static uint64_t bytes_read(void)
{
	FILE *f = fopen("/proc/self/io", "re");
	unsigned long long n = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "read_bytes: %llu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

static int open_once(const char *image)
{
	uint64_t read = bytes_read();
	double cpu = bench_cpu(RUSAGE_SELF), took = bench_now();
	struct bfs *fs = open_fs(image, 0);
	struct bs_stat st;

	took = bench_now() - took;
	cpu = bench_cpu(RUSAGE_SELF) - cpu;
	read = bytes_read() - read;
	bs_get_stat(bfs_store(fs), &st);
	printf("%f %f %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", took, cpu, read, st.blobs, st.log_bytes);
	fflush(stdout);
	return raise(SIGKILL);
}

struct sample {
	double wall, cpu, read, files, log;
};

/* In a process of its own, started anew, so that nothing is warm. */
static struct sample recover(const char *self, const char *image)
{
	struct sample s = { .wall = 0 };
	char command[1200];
	FILE *p;
	int fd = open(image, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		bench_die(image, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	snprintf(command, sizeof(command), "exec '%s' open '%s'", self, image);
	p = popen(command, "re");
	if (!p || fscanf(p, "%lf %lf %lf %lf %lf", &s.wall, &s.cpu, &s.read, &s.files, &s.log) != 5)
		bench_die(image, "recovery failed");
	pclose(p);
	return s;
}

/* Of the smaller device and the larger one; pairs are compared before medians put them in order. */
static void rows(const struct sample *s, double (*wall)[PAIRS_MAX], double (*cpu)[PAIRS_MAX], unsigned n)
{
	static const char *const device[2] = { "smaller", "larger" };
	double wall_ratio = bench_ratio(wall[1], wall[0], n), cpu_ratio = bench_ratio(cpu[1], cpu[0], n);
	char what[96];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(what, sizeof(what), "recovery of %.0f files, %s device, wall", s[i].files, device[i]);
		bench_row(what, false, 2, bench_median(wall[i], n), " s");
		snprintf(what, sizeof(what), "recovery, %s device, CPU a file", device[i]);
		bench_row(what, false, 2, bench_median(cpu[i], n), " us");
		snprintf(what, sizeof(what), "recovery, %s device, bytes read a file", device[i]);
		bench_row(what, false, 500, s[i].read / s[i].files, "");
	}
	bench_row("recovery, the larger device over the smaller, wall", false, 1.1, wall_ratio, "");
	bench_row("recovery, the larger device over the smaller, CPU", false, 1.1, cpu_ratio, "");
}

static int pairs(const char *self, const char *const image[2], unsigned n)
{
	static double wall[2][PAIRS_MAX], cpu[2][PAIRS_MAX];
	struct sample s[2] = { { .wall = 0 }, { .wall = 0 } };

	for (unsigned p = 0; p < n; p++) {
		for (unsigned k = 0; k < 2; k++) {
			unsigned i = (p + k) % 2;

			s[i] = recover(self, image[i]);
			wall[i][p] = s[i].wall;
			cpu[i][p] = s[i].cpu * 1e6 / s[i].files;
		}
	}
	rows(s, wall, cpu, n);
	for (unsigned i = 0; i < 2; i++) {
		printf("  %s: %.0f blobs, log of %.0f MiB: median of %u: %.2f s, %.2f us of CPU and %.0f bytes read a file\n", image[i],
		       s[i].files, s[i].log / MiB, n, bench_median(wall[i], n), bench_median(cpu[i], n), s[i].read / s[i].files);
	}
	return 0;
}

/* ---- memory ---- */

static double in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return (double)m.uordblks + (double)m.hblkhd;
}

static double resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long size = 0, rss = 0;

	if (!f || fscanf(f, "%llu %llu", &size, &rss) != 2)
		bench_die("/proc/self/statm", "cannot be read");
	fclose(f);
	return (double)rss * (double)sysconf(_SC_PAGESIZE);
}

/* What a change in between has taken, by malloc and by the kernel. */
struct memory {
	double used, rss;
};

static struct memory memory_now(void)
{
	malloc_trim(0);
	return (struct memory){ in_use(), resident() };
}

static void files_memory(const char *image, uint64_t files)
{
	struct make m = { .fs = format_fs(image) };
	struct memory before, after;
	struct bs_stat st0, st1;
	double names, used;

	bench_must("unmount", bfs_unmount(m.fs));
	m.fs = open_fs(image, BFS_NO_SERVICE);
	before = memory_now();
	bs_get_stat(bfs_store(m.fs), &st0);
	bench_must("unmount", bfs_unmount(m.fs));
	m.fs = open_fs(image, BFS_NO_SERVICE);
	make_files(&m, files);
	bench_must("unmount", bfs_unmount(m.fs));
	m.fs = open_fs(image, BFS_NO_SERVICE);
	after = memory_now();
	bs_get_stat(bfs_store(m.fs), &st1);
	names = (double)m.names / (double)files;
	used = (after.used - before.used) / (double)files;
	printf("  %" PRIu64 " files of one run, after opening: %.0f bytes of malloc each, %.0f of resident memory; of it %.0f of name, %zu of attributes\n",
	       files, used, (after.rss - before.rss) / (double)files, names, sizeof(struct bfs_inode_disk));
	bench_row("memory a file over its name and attributes", false, 300, used - names - (double)sizeof(struct bfs_inode_disk), " bytes");
	bench_must("unmount", bfs_unmount(m.fs));
}

/* A blob of so many runs of one block, mapped in order or at random; then as it is after opening. */
static void runs_memory(const char *image, uint64_t runs, bool shuffled, bool count)
{
	struct bs_format_opts fo = { .size = sizeof(fo), .cluster_size = 4096 };
	struct bs_open_opts o = { .size = sizeof(o), .flags = BS_NO_SERVICE };
	struct memory before, grown, opened;
	struct base_err err = { "" };
	struct bdev *dev;
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bs *bs;

	if (bdev_open(image, NULL, &dev, &err) || bs_format(dev, &fo, &err) || bs_open(dev, &o, &bs, &err))
		bench_die("runs", err.text);
	bench_must("begin", bs_txn_begin(bs, 0, &txn));
	bench_must("create", bs_txn_create(txn, 0, NULL, 0, &blob));
	bs_txn_end(txn);
	before = memory_now();
	for (uint64_t i = 0; i < runs; i++) {
		/* An odd factor goes over all of a power of two once. */
		uint64_t at = shuffled ? i * 0x9e3779b1ull & (runs - 1) : i;

		if (i % 100000 == 0)
			bench_must("checkpoint", bs_checkpoint(bs));
		bench_must("begin", bs_txn_begin(bs, 0, &txn));
		bench_must("prealloc", bs_txn_prealloc(txn, blob, 2 * at, 1, BS_STREAM_LONG));
		bs_txn_end(txn);
		if (i % 1000 == 0)
			bench_must("commit", bs_commit(bs, 0));
	}
	bench_must("checkpoint", bs_checkpoint(bs));
	grown = memory_now();
	bs_blob_put(blob);
	bench_must("close", bs_close(bs));
	if (bdev_open(image, NULL, &dev, &err) || bs_open(dev, &o, &bs, &err))
		bench_die("runs", err.text);
	opened = memory_now();
	bench_must("close", bs_close(bs));
	printf("  %" PRIu64 " runs mapped %s: %.1f bytes of malloc each, %.1f after opening\n", runs, shuffled ? "at random" : "in order",
	       (grown.used - before.used) / (double)runs, (opened.used - before.used) / (double)runs);
	if (count)
		bench_row("memory a run, after opening", false, 16, (opened.used - before.used) / (double)runs, " bytes");
}

static int memory(const char *image, uint64_t files, uint64_t runs)
{
	while (runs & (runs - 1))
		runs &= runs - 1;
	make_image(image, 64 * GiB);
	files_memory(image, files);
	runs_memory(image, runs, true, false);
	runs_memory(image, runs, false, true);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "make") && argc == 5)
		return make(argv[2], argv[3], strtoull(argv[4], NULL, 0));
	if (!strcmp(what, "open") && argc == 3)
		return open_once(argv[2]);
	if (!strcmp(what, "pairs") && argc >= 4)
		return pairs(argv[0], (const char *const[]){ argv[2], argv[3] },
			     argc > 4 ? MIN(MAX((unsigned)atoi(argv[4]), 1u), PAIRS_MAX) : 11);
	if (!strcmp(what, "memory") && argc >= 3)
		return memory(argv[2], argc > 3 ? strtoull(argv[3], NULL, 0) : 1000000, argc > 4 ? strtoull(argv[4], NULL, 0) : 1 << 20);
	fprintf(stderr, "usage: store_recover make IMAGE SIZE FILES | open IMAGE | pairs IMAGE IMAGE [PAIRS] | memory IMAGE [FILES [RUNS]]\n");
	return 2;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the RocksDB plugin share. */
#ifndef ROCKSDB_ENV_INTERNAL_H
#define ROCKSDB_ENV_INTERNAL_H

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "blobfs/blobfs.h"
#include "rocksdb/file_system.h"

namespace blobfs {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

/* What direct I/O wants of offsets, lengths and buffers. */
constexpr size_t kDirectAlignment = 4096;

/* ---- uri.cc ---- */

/* blobfs://DEVICE[?option[&option]…], taken apart. */
struct Uri {
	std::string device;
	std::string mount;  /* directory to serve the file system at; empty: none */
	uint64_t cache = 0; /* bytes; 0: not given */
	uint64_t dirty = 0; /* bytes; 0: not given */
	bool readonly = false;
	bool discard = false;
	bool noatime = false;
};
/* False: *why is one line that names what is wrong. */
bool ParseUri(const std::string &text, Uri *uri, std::string *why);

/* ---- status.cc ---- */

/* rc is a negative errno. The codes and flags are those of RocksDB's file system on the kernel's.
 */
IOStatus Failure(const std::string &context, const std::string &path, int rc);
/* Failure's, or OK when rc >= 0. */
IOStatus ToStatus(const char *context, const std::string &path, int64_t rc);
/* How a write of `want` bytes ended that returned `done`. */
IOStatus WriteStatus(const std::string &path, int64_t done, size_t want);

/* Runs a function that may throw for want of memory; no exception may reach RocksDB. */
template <typename F> IOStatus Guarded(const std::string &path, F function)
{
	try {
		return function();
	} catch (const std::bad_alloc &) {
		return Failure("allocating memory", path, -ENOMEM);
	}
}

/* ---- mount.cc ---- */

/* The live file system, served over FUSE at a directory by this process. */
class Mount {
public:
	/* Null with one line in *why when it cannot be served. */
	static std::unique_ptr<Mount> Start(struct bfs *fs, const Uri &uri, std::string *why);
	~Mount();
	const std::string &dir() const { return dir_; }
	Mount(const Mount &) = delete;
	Mount &operator=(const Mount &) = delete;

private:
	explicit Mount(const std::string &dir) : dir_(dir) {}
	std::string dir_;
	struct bfs_fuse *fuse_ = nullptr;
};

/* ---- store.cc ---- */

/*
 * A mounted file system. One per device string and process; whoever holds a pointer (file system
 * objects, open files, locks) keeps it mounted. What is still held when the process ends is taken
 * off FUSE and synced, and stays usable until the process is gone.
 */
class Store {
public:
	/* The store of uri's device, mounted now if it is not yet. Null with one line in *why. */
	static std::shared_ptr<Store> Open(const Uri &uri, std::string *why);
	/* A file system of the caller's, which stays its own. */
	static std::shared_ptr<Store> Lend(struct bfs *fs);
	~Store();
	struct bfs *fs() const { return fs_; }
	/* Differs between the file systems this process has open; the same as long as the device
	 * is. */
	uint64_t id() const { return id_; }
	Store(const Store &) = delete;
	Store &operator=(const Store &) = delete;
	/* At the end of the process. */
	static void SyncAll();

private:
	Store() = default;
	bool Init(const Uri &uri, std::string *why);
	bool Agrees(const Uri &uri, std::string *why);
	void Identify();
	void Shutdown();

	Uri uri_;
	struct bfs *fs_ = nullptr;
	uint64_t id_ = 0;
	pid_t pid_ = 0;
	bool lent_ = false;
	std::unique_ptr<Mount> mount_;
};

/* ---- file.cc ---- */

/* An open file and what names it in messages. */
class Handle {
public:
	Handle(std::shared_ptr<Store> store, std::string path)
	    : store_(std::move(store)), path_(std::move(path))
	{
	}
	~Handle() { Close(); }
	Handle(const Handle &) = delete;
	Handle &operator=(const Handle &) = delete;

	/* flags as bfs_open_path. */
	int Open(int flags, mode_t mode, enum bs_stream stream = BS_STREAM_UNKNOWN);
	void Close();
	bool closed() const { return !file_; }
	struct bfs_file *file() const { return file_; }
	struct bfs *fs() const { return store_->fs(); }
	const std::string &path() const { return path_; }
	void set_path(std::string path) { path_ = std::move(path); }
	/* All of it, from an offset: reads stop at the end of file only. */
	IOStatus Read(uint64_t offset, size_t n, Slice *result, char *scratch) const;
	IOStatus Sync(bool datasync) const;
	IOStatus Drop(uint64_t offset, uint64_t length) const; /* cached pages */
	size_t UniqueId(char *id, size_t max_size) const;

private:
	std::shared_ptr<Store> store_;
	std::string path_;
	struct bfs_file *file_ = nullptr;
};

/* Writes RocksDB's kind of unique id for an inode; 0 when it does not fit. */
size_t UniqueId(const Store &store, uint64_t ino, char *id, size_t max_size);

/* ---- sequential.cc, random.cc, writable.cc, randomrw.cc, directory.cc, lock.cc ---- */

IOStatus OpenSequential(const std::shared_ptr<Store> &store, const std::string &path,
			const FileOptions &options,
			std::unique_ptr<rocksdb::FSSequentialFile> *result);
IOStatus OpenRandomAccess(const std::shared_ptr<Store> &store, const std::string &path,
			  const FileOptions &options,
			  std::unique_ptr<rocksdb::FSRandomAccessFile> *result);
enum class WriteMode { kNew, kReopen, kReuse };
/* kNew empties or makes the file, kReopen goes on at its end, kReuse takes old_path's file and goes
 * on at offset 0. */
IOStatus OpenWritable(const std::shared_ptr<Store> &store, const std::string &path, WriteMode mode,
		      const std::string &old_path, const FileOptions &options,
		      std::unique_ptr<rocksdb::FSWritableFile> *result);
IOStatus OpenRandomRW(const std::shared_ptr<Store> &store, const std::string &path,
		      std::unique_ptr<rocksdb::FSRandomRWFile> *result);
IOStatus OpenDirectory(const std::shared_ptr<Store> &store, const std::string &path,
		       std::unique_ptr<rocksdb::FSDirectory> *result);
IOStatus LockPath(const std::shared_ptr<Store> &store, const std::string &path,
		  rocksdb::FileLock **lock);
IOStatus UnlockPath(rocksdb::FileLock *lock);

/* ---- fs.cc ---- */

/* Null with one line in *why. */
std::unique_ptr<rocksdb::FileSystem> NewFileSystem(const std::string &uri, std::string *why);
std::unique_ptr<rocksdb::FileSystem> NewFileSystem(std::shared_ptr<Store> store);

} // namespace blobfs

#endif

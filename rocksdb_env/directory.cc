/* SPDX-License-Identifier: BSD-2-Clause */
/* Open directories: RocksDB has them only to make names durable. The inode is held, so that a
 * renamed directory stays itself. */
#include <sys/stat.h>

#include <atomic>

#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

class Directory : public rocksdb::FSDirectory {
public:
	Directory(const std::shared_ptr<Store> &store, const std::string &path, uint64_t ino)
	    : store_(store), path_(path), ino_(ino)
	{
	}
	~Directory() override { Release(); }

	IOStatus Fsync(const IOOptions &, IODebugContext *) override
	{
		return ToStatus("syncing directory", path_,
				held_ ? bfs_fsync_ino(store_->fs(), ino_, false) : -EBADF);
	}

	/* Whatever the reason, all names of the directory are wanted. */
	IOStatus FsyncWithDirOptions(const IOOptions &options, IODebugContext *dbg,
				     const rocksdb::DirFsyncOptions &) override
	{
		return Fsync(options, dbg);
	}

	IOStatus Close(const IOOptions &, IODebugContext *) override
	{
		Release();
		return IOStatus::OK();
	}

	size_t GetUniqueId(char *id, size_t max_size) const override
	{
		return UniqueId(*store_, ino_, id, max_size);
	}

private:
	void Release()
	{
		if (held_.exchange(false))
			bfs_unref(store_->fs(), ino_, 1);
	}

	std::shared_ptr<Store> store_;
	std::string path_;
	uint64_t ino_;
	std::atomic<bool> held_{ true }; /* Fsync may come from many threads */
};

} // namespace

IOStatus OpenDirectory(const std::shared_ptr<Store> &store, const std::string &path,
		       std::unique_ptr<rocksdb::FSDirectory> *result)
{
	struct bfs_attr attr;
	int rc = bfs_resolve(store->fs(), nullptr, path.c_str(), 0, &attr);

	result->reset();
	if (!rc && !S_ISDIR(attr.mode))
		rc = -ENOTDIR;
	if (!rc)
		rc = bfs_ref(store->fs(), attr.ino);
	if (rc)
		return Failure("opening directory", path, rc);
	result->reset(new Directory(store, path, attr.ino));
	return IOStatus::OK();
}

} // namespace blobfs

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lock files. Other processes are kept out by the lock on the device; within this process, and for
 * those who come over FUSE, the file system's lock table decides. Each lock is an owner of its own,
 * so that a second one by the same thread fails too.
 */
#include <fcntl.h>

#include "base/util.h"
#include "rocksdb_env/internal.h"

#include <unistd.h>

namespace blobfs {

namespace {

class Lock : public rocksdb::FileLock {
public:
	Lock(const std::shared_ptr<Store> &store, const std::string &path) : handle_(store, path)
	{
		base_random(&owner_, sizeof(owner_));
	}
	~Lock() override { Release(); }

	int Acquire()
	{
		struct bfs_lock lock = {};
		int rc = handle_.Open(O_RDWR | O_CREAT, 0644);

		if (rc)
			return rc;
		lock.owner = owner_;
		lock.end = UINT64_MAX;
		lock.type = F_WRLCK;
		lock.pid = getpid();
		return bfs_setlk(handle_.fs(), bfs_file_ino(handle_.file()), &lock);
	}

	void Release()
	{
		if (!handle_.closed())
			bfs_unlock_all(handle_.fs(), bfs_file_ino(handle_.file()), owner_);
		handle_.Close();
	}

private:
	Handle handle_;
	uint64_t owner_;
};

} // namespace

IOStatus LockPath(const std::shared_ptr<Store> &store, const std::string &path,
		  rocksdb::FileLock **result)
{
	std::unique_ptr<Lock> lock(new Lock(store, path));
	int rc = lock->Acquire();

	*result = nullptr;
	if (rc)
		return Failure(rc == -EAGAIN ? "locking, held by another user of the file system"
					     : "locking",
			       path, rc);
	*result = lock.release();
	return IOStatus::OK();
}

IOStatus UnlockPath(rocksdb::FileLock *lock)
{
	delete lock;
	return IOStatus::OK();
}

} // namespace blobfs

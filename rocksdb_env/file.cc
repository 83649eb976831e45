/* SPDX-License-Identifier: BSD-2-Clause */
/* What all kinds of open files have in common. */
#include <cerrno>

#include "rocksdb_env/internal.h"

namespace blobfs {

int Handle::Open(int flags, mode_t mode, enum bs_stream stream)
{
	int rc = bfs_open_path(store_->fs(), nullptr, path_.c_str(), flags, mode, stream, &file_);

	if (rc)
		file_ = nullptr;
	return rc;
}

void Handle::Close()
{
	if (file_)
		bfs_close(file_);
	file_ = nullptr;
}

IOStatus Handle::Read(uint64_t offset, size_t n, Slice *result, char *scratch) const
{
	int64_t got = file_ ? bfs_pread(file_, scratch, n, offset) : -EBADF;

	*result = Slice(scratch, got > 0 ? static_cast<size_t>(got) : 0);
	return ToStatus("reading", path_, got);
}

IOStatus Handle::Sync(bool datasync) const
{
	return ToStatus("syncing", path_, file_ ? bfs_fsync(file_, datasync) : -EBADF);
}

IOStatus Handle::Drop(uint64_t offset, uint64_t length) const
{
	return ToStatus("dropping cached pages of", path_,
			file_ ? bfs_advise(file_, offset, length, BFS_ADV_DONTNEED) : -EBADF);
}

size_t Handle::UniqueId(char *id, size_t max_size) const
{
	return file_ ? blobfs::UniqueId(*store_, bfs_file_ino(file_), id, max_size) : 0;
}

/* Two numbers of seven bits a byte, the last byte of each with the top bit clear: no such id is
 * another's prefix, nor is it a single number of that kind. Inode numbers are never used again. */
size_t UniqueId(const Store &store, uint64_t ino, char *id, size_t max_size)
{
	const uint64_t numbers[] = { store.id(), ino };
	size_t n = 0;

	if (max_size < 20)
		return 0;
	for (uint64_t number : numbers) {
		for (; number >= 0x80; number >>= 7)
			id[n++] = static_cast<char>(number | 0x80);
		id[n++] = static_cast<char>(number);
	}
	return n;
}

} // namespace blobfs

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files written from front to back: logs, tables, manifests.
 *
 * Append, Flush, GetFileSize and PrepareWrite are called for every write of the database: they take
 * no lock and make no system call of their own. What Append handed over is the file system's at
 * once, so Flush has nothing to do.
 */
#include <algorithm>
#include <fcntl.h>
#include <linux/falloc.h>

#include <atomic>

#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

/* Lifetimes keep their order: logs die first, upper levels next, lower levels last. */
enum bs_stream StreamOf(rocksdb::Env::WriteLifeTimeHint hint)
{
	switch (hint) {
	case rocksdb::Env::WLTH_SHORT:
		return BS_STREAM_SHORT;
	case rocksdb::Env::WLTH_LONG:
	case rocksdb::Env::WLTH_EXTREME:
		return BS_STREAM_LONG;
	default:
		return BS_STREAM_UNKNOWN;
	}
}

class WritableFile : public rocksdb::FSWritableFile {
public:
	WritableFile(const std::shared_ptr<Store> &store, const std::string &path, WriteMode mode,
		     const FileOptions &options)
	    : FSWritableFile(options), handle_(store, path),
	      direct_(options.use_direct_writes && !options.use_mmap_writes),
	      reuse_(mode == WriteMode::kReuse), allocate_(options.allow_fallocate),
	      keep_size_(options.fallocate_with_keep_size)
	{
	}

	~WritableFile() override
	{
		WritableFile::Close(IOOptions(), nullptr).PermitUncheckedError();
	}

	int Open(WriteMode mode);
	void Rename(const std::string &path) { handle_.set_path(path); }

	IOStatus Append(const Slice &data, const IOOptions &, IODebugContext *) override;
	IOStatus Append(const Slice &data, const IOOptions &options,
			const rocksdb::DataVerificationInfo &, IODebugContext *dbg) override
	{
		return Append(data, options, dbg);
	}
	IOStatus PositionedAppend(const Slice &data, uint64_t offset, const IOOptions &,
				  IODebugContext *) override;
	IOStatus PositionedAppend(const Slice &data, uint64_t offset, const IOOptions &options,
				  const rocksdb::DataVerificationInfo &,
				  IODebugContext *dbg) override
	{
		return PositionedAppend(data, offset, options, dbg);
	}
	IOStatus Truncate(uint64_t size, const IOOptions &, IODebugContext *) override;
	IOStatus Close(const IOOptions &, IODebugContext *) override;
	IOStatus Flush(const IOOptions &, IODebugContext *) override { return IOStatus::OK(); }
	IOStatus Sync(const IOOptions &, IODebugContext *) override { return handle_.Sync(true); }
	IOStatus Fsync(const IOOptions &, IODebugContext *) override { return handle_.Sync(false); }
	bool IsSyncThreadSafe() const override { return true; }
	uint64_t GetFileSize(const IOOptions &, IODebugContext *) override
	{
		return end_.load(std::memory_order_relaxed);
	}
	IOStatus RangeSync(uint64_t offset, uint64_t length, const IOOptions &,
			   IODebugContext *) override;
	IOStatus Allocate(uint64_t offset, uint64_t length, const IOOptions &,
			  IODebugContext *) override;
	void SetWriteLifeTimeHint(rocksdb::Env::WriteLifeTimeHint hint) override;

	IOStatus InvalidateCache(size_t offset, size_t length) override
	{
		return direct_ ? IOStatus::OK() : handle_.Drop(offset, length);
	}
	size_t GetUniqueId(char *id, size_t max_size) const override
	{
		return handle_.UniqueId(id, max_size);
	}
	bool use_direct_io() const override { return direct_; }
	size_t GetRequiredBufferAlignment() const override { return kDirectAlignment; }

private:
	void set_end(uint64_t end) { end_.store(end, std::memory_order_relaxed); }

	Handle handle_;
	const bool direct_;
	const bool reuse_; /* writes go over what the file held before */
	const bool allocate_, keep_size_;
	uint64_t allocated_ = 0; /* space is reserved up to here */
	/* The end of what this object wrote or found; changed by the one thread that writes. */
	std::atomic<uint64_t> end_{ 0 };
};

int WritableFile::Open(WriteMode mode)
{
	int flags = O_WRONLY | (direct_ ? O_DIRECT : 0);
	int rc;

	if (mode == WriteMode::kNew)
		flags |= O_CREAT | O_TRUNC;
	else if (mode == WriteMode::kReopen)
		flags |= O_CREAT;
	rc = handle_.Open(flags, 0644, StreamOf(write_hint_));
	if (!rc && mode == WriteMode::kReopen)
		set_end(bfs_file_size(handle_.file()));
	return rc;
}

IOStatus WritableFile::Append(const Slice &data, const IOOptions &, IODebugContext *)
{
	struct bfs_file *file = handle_.file();
	uint64_t end = end_.load(std::memory_order_relaxed);
	int64_t done;

	if (!file)
		done = -EBADF;
	else if (reuse_)
		done = bfs_pwrite(file, data.data(), data.size(), end);
	else
		done = bfs_append(file, data.data(), data.size());
	if (done > 0)
		set_end(end + static_cast<uint64_t>(done));
	return WriteStatus(handle_.path(), done, data.size());
}

IOStatus WritableFile::PositionedAppend(const Slice &data, uint64_t offset, const IOOptions &,
					IODebugContext *)
{
	int64_t done = handle_.closed()
			       ? -EBADF
			       : bfs_pwrite(handle_.file(), data.data(), data.size(), offset);

	if (done > 0)
		set_end(std::max(end_.load(std::memory_order_relaxed), offset + static_cast<uint64_t>(done)));
	return WriteStatus(handle_.path(), done, data.size());
}

IOStatus WritableFile::Truncate(uint64_t size, const IOOptions &, IODebugContext *)
{
	int rc = handle_.closed()
			 ? -EBADF
			 : bfs_truncate(handle_.fs(), nullptr, bfs_file_ino(handle_.file()), size);

	if (!rc) {
		set_end(size);
		allocated_ = 0;
	}
	return ToStatus("truncating", handle_.path(), rc);
}

/* Gives back what was reserved and not written. */
IOStatus WritableFile::Close(const IOOptions &, IODebugContext *)
{
	int rc = 0;

	if (!handle_.closed() && allocated_ > end_.load(std::memory_order_relaxed))
		rc = bfs_truncate(handle_.fs(), nullptr, bfs_file_ino(handle_.file()),
				  end_.load(std::memory_order_relaxed));
	handle_.Close();
	return ToStatus("closing", handle_.path(), rc);
}

/* The caller throttles itself by this: strict means that what came before is really out. */
IOStatus WritableFile::RangeSync(uint64_t offset, uint64_t length, const IOOptions &,
				 IODebugContext *)
{
	int rc = -EBADF;

	if (!handle_.closed() && strict_bytes_per_sync_)
		rc = bfs_sync_range(handle_.file(), 0, offset + length, true);
	else if (!handle_.closed())
		rc = bfs_sync_range(handle_.file(), offset, length, false);
	return ToStatus("writing back", handle_.path(), rc);
}

IOStatus WritableFile::Allocate(uint64_t offset, uint64_t length, const IOOptions &,
				IODebugContext *)
{
	int rc;

	if (!allocate_)
		return IOStatus::OK();
	rc = handle_.closed() ? -EBADF
			      : bfs_fallocate(handle_.file(), keep_size_ ? FALLOC_FL_KEEP_SIZE : 0,
					      offset, length);
	if (!rc)
		allocated_ = offset + length;
	return ToStatus("reserving space for", handle_.path(), rc);
}

void WritableFile::SetWriteLifeTimeHint(rocksdb::Env::WriteLifeTimeHint hint)
{
	write_hint_ = hint;
	if (!handle_.closed())
		bfs_set_stream(handle_.file(), StreamOf(hint));
}

} // namespace

IOStatus OpenWritable(const std::shared_ptr<Store> &store, const std::string &path, WriteMode mode,
		      const std::string &old_path, const FileOptions &options,
		      std::unique_ptr<rocksdb::FSWritableFile> *result)
{
	std::unique_ptr<WritableFile> file(new WritableFile(
		store, mode == WriteMode::kReuse ? old_path : path, mode, options));
	int rc = file->Open(mode);

	result->reset();
	if (rc)
		return Failure("opening for writing", path, rc);
	if (mode == WriteMode::kReuse) {
		uint64_t from, to;
		char from_name[BFS_NAME_MAX + 1], to_name[BFS_NAME_MAX + 1];

		rc = bfs_resolve_parent(store->fs(), nullptr, old_path.c_str(), &from, from_name);
		if (!rc)
			rc = bfs_resolve_parent(store->fs(), nullptr, path.c_str(), &to, to_name);
		if (!rc)
			rc = bfs_rename(store->fs(), nullptr, from, from_name, to, to_name, 0);
		if (rc)
			return Failure("renaming to " + path, old_path, rc);
		file->Rename(path);
	}
	*result = std::move(file);
	return IOStatus::OK();
}

} // namespace blobfs

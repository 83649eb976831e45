/* SPDX-License-Identifier: BSD-2-Clause */
/* Files read anywhere by many threads: table and blob files. */
#include <fcntl.h>

#include <algorithm>

#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

constexpr size_t kReadsAtOnce = 64;

class RandomAccessFile : public rocksdb::FSRandomAccessFile {
public:
	RandomAccessFile(const std::shared_ptr<Store> &store, const std::string &path, bool direct)
	    : handle_(store, path), direct_(direct)
	{
	}

	int Open() { return handle_.Open(O_RDONLY | (direct_ ? O_DIRECT : 0), 0); }

	IOStatus Read(uint64_t offset, size_t n, const IOOptions &, Slice *result, char *scratch,
		      IODebugContext *) const override
	{
		return handle_.Read(offset, n, result, scratch);
	}

	IOStatus MultiRead(rocksdb::FSReadRequest *reqs, size_t count, const IOOptions &,
			   IODebugContext *) override
	{
		for (size_t i = 0; i < count; i += kReadsAtOnce)
			ReadBatch(reqs + i, std::min(kReadsAtOnce, count - i));
		return IOStatus::OK();
	}

	/* A direct file has no cache to read ahead into. */
	IOStatus Prefetch(uint64_t offset, size_t n, const IOOptions &, IODebugContext *) override
	{
		if (direct_ || !n)
			return IOStatus::OK();
		return ToStatus("prefetching from", handle_.path(),
				bfs_advise(handle_.file(), offset, n, BFS_ADV_WILLNEED));
	}

	void Hint(AccessPattern pattern) override;

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
	void ReadBatch(rocksdb::FSReadRequest *reqs, size_t count);

	Handle handle_;
	const bool direct_;
};

/* All reads are on their way before the first is waited for. */
void RandomAccessFile::ReadBatch(rocksdb::FSReadRequest *reqs, size_t count)
{
	struct bfs_read reads[kReadsAtOnce];
	int rc;

	for (size_t i = 0; i < count; i++)
		reads[i] = { reqs[i].offset, reqs[i].len, reqs[i].scratch, -EIO };
	rc = bfs_read_many(handle_.file(), reads, count);
	for (size_t i = 0; i < count; i++) {
		/* Without a result of its own a read shares the call's. */
		int64_t got = rc < 0 && reads[i].result >= 0 ? rc : reads[i].result;

		reqs[i].result = Slice(reqs[i].scratch, got > 0 ? static_cast<size_t>(got) : 0);
		reqs[i].status = ToStatus("reading", handle_.path(), got);
	}
}

void RandomAccessFile::Hint(AccessPattern pattern)
{
	static const enum bfs_advice advice[] = { BFS_ADV_NORMAL, BFS_ADV_RANDOM,
						  BFS_ADV_SEQUENTIAL, BFS_ADV_WILLNEED,
						  BFS_ADV_DONTNEED };

	if (!direct_ && static_cast<size_t>(pattern) < sizeof(advice) / sizeof(advice[0]))
		bfs_advise(handle_.file(), 0, 0, advice[pattern]);
}

} // namespace

IOStatus OpenRandomAccess(const std::shared_ptr<Store> &store, const std::string &path,
			  const FileOptions &options,
			  std::unique_ptr<rocksdb::FSRandomAccessFile> *result)
{
	result->reset();
	/* With it RocksDB keeps pointers into the file for as long as it is open, and passes no
	 * buffer to read into. */
	if (options.use_mmap_reads)
		return IOStatus::NotSupported("BlobFS files cannot be mapped (allow_mmap_reads)",
					      path);
	std::unique_ptr<RandomAccessFile> file(
		new RandomAccessFile(store, path, options.use_direct_reads));
	int rc = file->Open();

	if (rc)
		return Failure("opening for random reading", path, rc);
	*result = std::move(file);
	return IOStatus::OK();
}

} // namespace blobfs

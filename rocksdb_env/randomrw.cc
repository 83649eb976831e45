/* SPDX-License-Identifier: BSD-2-Clause */
/* Files read and written anywhere: ingested tables, whose number is written into them. */
#include <fcntl.h>

#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

class RandomRWFile : public rocksdb::FSRandomRWFile {
public:
	RandomRWFile(const std::shared_ptr<Store> &store, const std::string &path)
	    : handle_(store, path)
	{
	}

	int Open() { return handle_.Open(O_RDWR, 0); }

	IOStatus Write(uint64_t offset, const Slice &data, const IOOptions &,
		       IODebugContext *) override
	{
		return WriteStatus(handle_.path(),
				   handle_.closed() ? -EBADF
						    : bfs_pwrite(handle_.file(), data.data(),
								 data.size(), offset),
				   data.size());
	}

	IOStatus Read(uint64_t offset, size_t n, const IOOptions &, Slice *result, char *scratch,
		      IODebugContext *) const override
	{
		return handle_.Read(offset, n, result, scratch);
	}

	IOStatus Flush(const IOOptions &, IODebugContext *) override { return IOStatus::OK(); }
	IOStatus Sync(const IOOptions &, IODebugContext *) override { return handle_.Sync(true); }
	IOStatus Fsync(const IOOptions &, IODebugContext *) override { return handle_.Sync(false); }

	IOStatus Close(const IOOptions &, IODebugContext *) override
	{
		handle_.Close();
		return IOStatus::OK();
	}

private:
	Handle handle_;
};

} // namespace

IOStatus OpenRandomRW(const std::shared_ptr<Store> &store, const std::string &path,
		      std::unique_ptr<rocksdb::FSRandomRWFile> *result)
{
	std::unique_ptr<RandomRWFile> file(new RandomRWFile(store, path));
	int rc = file->Open();

	result->reset();
	if (rc)
		return Failure("opening for random reading and writing", path, rc);
	*result = std::move(file);
	return IOStatus::OK();
}

} // namespace blobfs

/* SPDX-License-Identifier: BSD-2-Clause */
/* Files read from front to back: logs, manifests, what a backup copies. */
#include <fcntl.h>

#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

class SequentialFile : public rocksdb::FSSequentialFile {
public:
	SequentialFile(const std::shared_ptr<Store> &store, const std::string &path, bool direct)
	    : handle_(store, path), direct_(direct)
	{
	}

	int Open() { return handle_.Open(O_RDONLY | (direct_ ? O_DIRECT : 0), 0); }

	IOStatus Read(size_t n, const IOOptions &, Slice *result, char *scratch,
		      IODebugContext *) override
	{
		IOStatus s = handle_.Read(offset_, n, result, scratch);

		offset_ += result->size();
		return s;
	}

	IOStatus PositionedRead(uint64_t offset, size_t n, const IOOptions &, Slice *result,
				char *scratch, IODebugContext *) override
	{
		return handle_.Read(offset, n, result, scratch);
	}

	/* Past the end too, where nothing is read: as lseek(2) has it. */
	IOStatus Skip(uint64_t n) override
	{
		offset_ += n;
		return IOStatus::OK();
	}

	IOStatus InvalidateCache(size_t offset, size_t length) override
	{
		return direct_ ? IOStatus::OK() : handle_.Drop(offset, length);
	}

	bool use_direct_io() const override { return direct_; }
	size_t GetRequiredBufferAlignment() const override { return kDirectAlignment; }

private:
	Handle handle_;
	uint64_t offset_ = 0;
	const bool direct_;
};

} // namespace

IOStatus OpenSequential(const std::shared_ptr<Store> &store, const std::string &path,
			const FileOptions &options,
			std::unique_ptr<rocksdb::FSSequentialFile> *result)
{
	std::unique_ptr<SequentialFile> file(new SequentialFile(
		store, path, options.use_direct_reads && !options.use_mmap_reads));
	int rc = file->Open();

	result->reset();
	if (rc)
		return Failure("opening for sequential reading", path, rc);
	*result = std::move(file);
	return IOStatus::OK();
}

} // namespace blobfs

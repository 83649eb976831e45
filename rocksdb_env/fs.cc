/* SPDX-License-Identifier: BSD-2-Clause */
/* The file system as RocksDB sees it: files are opened here, names are in names.cc. */
#include "rocksdb_env/filesystem.h"

namespace blobfs {

FileSystem::FileSystem(const std::string &uri, std::shared_ptr<Store> store)
    : uri_(uri), store_(std::move(store))
{
}

std::string FileSystem::Path(const std::string &name)
{
	return !name.empty() && name[0] == '/' ? name : "/" + name;
}

IOStatus FileSystem::NewSequentialFile(const std::string &name, const FileOptions &options,
				       std::unique_ptr<rocksdb::FSSequentialFile> *result,
				       IODebugContext *)
{
	return Guarded(name, [&] { return OpenSequential(store_, Path(name), options, result); });
}

IOStatus FileSystem::NewRandomAccessFile(const std::string &name, const FileOptions &options,
					 std::unique_ptr<rocksdb::FSRandomAccessFile> *result,
					 IODebugContext *)
{
	return Guarded(name, [&] { return OpenRandomAccess(store_, Path(name), options, result); });
}

IOStatus FileSystem::NewWritableFile(const std::string &name, const FileOptions &options,
				     std::unique_ptr<rocksdb::FSWritableFile> *result,
				     IODebugContext *)
{
	return Guarded(name, [&] {
		return OpenWritable(store_, Path(name), WriteMode::kNew, "", options, result);
	});
}

IOStatus FileSystem::ReopenWritableFile(const std::string &name, const FileOptions &options,
					std::unique_ptr<rocksdb::FSWritableFile> *result,
					IODebugContext *)
{
	return Guarded(name, [&] {
		return OpenWritable(store_, Path(name), WriteMode::kReopen, "", options, result);
	});
}

IOStatus FileSystem::ReuseWritableFile(const std::string &name, const std::string &old_name,
				       const FileOptions &options,
				       std::unique_ptr<rocksdb::FSWritableFile> *result,
				       IODebugContext *)
{
	return Guarded(name, [&] {
		return OpenWritable(store_, Path(name), WriteMode::kReuse, Path(old_name), options,
				    result);
	});
}

IOStatus FileSystem::NewRandomRWFile(const std::string &name, const FileOptions &,
				     std::unique_ptr<rocksdb::FSRandomRWFile> *result,
				     IODebugContext *)
{
	return Guarded(name, [&] { return OpenRandomRW(store_, Path(name), result); });
}

IOStatus FileSystem::NewMemoryMappedFileBuffer(
	const std::string &name, std::unique_ptr<rocksdb::MemoryMappedFileBuffer> *result)
{
	result->reset();
	return IOStatus::NotSupported("BlobFS files cannot be mapped", name);
}

IOStatus FileSystem::NewDirectory(const std::string &name, const IOOptions &,
				  std::unique_ptr<rocksdb::FSDirectory> *result, IODebugContext *)
{
	return Guarded(name, [&] { return OpenDirectory(store_, Path(name), result); });
}

IOStatus FileSystem::LockFile(const std::string &name, const IOOptions &, rocksdb::FileLock **lock,
			      IODebugContext *)
{
	return Guarded(name, [&] { return LockPath(store_, Path(name), lock); });
}

IOStatus FileSystem::UnlockFile(rocksdb::FileLock *lock, const IOOptions &, IODebugContext *)
{
	return UnlockPath(lock);
}

/* Logs are synced often and read once: never direct, and reserved ahead without changing their
 * size. */
FileOptions FileSystem::OptimizeForLogWrite(const FileOptions &options,
					    const rocksdb::DBOptions &db) const
{
	FileOptions o = rocksdb::FileSystem::OptimizeForLogWrite(options, db);

	o.use_mmap_writes = false;
	o.use_direct_writes = false;
	o.fallocate_with_keep_size = true;
	return o;
}

FileOptions FileSystem::OptimizeForManifestWrite(const FileOptions &options) const
{
	FileOptions o = rocksdb::FileSystem::OptimizeForManifestWrite(options);

	o.use_mmap_writes = false;
	o.use_direct_writes = false;
	o.fallocate_with_keep_size = true;
	return o;
}

std::unique_ptr<rocksdb::FileSystem> NewFileSystem(std::shared_ptr<Store> store)
{
	return std::unique_ptr<rocksdb::FileSystem>(new FileSystem("", std::move(store)));
}

std::unique_ptr<rocksdb::FileSystem> NewFileSystem(const std::string &text, std::string *why)
{
	Uri uri;

	try {
		if (!ParseUri(text, &uri, why))
			return nullptr;
		std::shared_ptr<Store> store = Store::Open(uri, why);

		if (!store)
			return nullptr;
		return std::unique_ptr<rocksdb::FileSystem>(new FileSystem(text, std::move(store)));
	} catch (const std::bad_alloc &) {
		*why = "blobfs: out of memory";
		return nullptr;
	}
}

} // namespace blobfs

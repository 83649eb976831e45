/* SPDX-License-Identifier: BSD-2-Clause */
/* RocksDB's FileSystem on a BlobFS: the declarations for fs.cc and names.cc. */
#ifndef ROCKSDB_ENV_FILESYSTEM_H
#define ROCKSDB_ENV_FILESYSTEM_H

#include "rocksdb_env/internal.h"

namespace blobfs {

/* Names are paths from the root of the file system; a relative one starts there too. */
class FileSystem : public rocksdb::FileSystem {
public:
	FileSystem(const std::string &uri, std::shared_ptr<Store> store);

	static const char *kClassName() { return "BlobFS"; }
	const char *Name() const override { return kClassName(); }
	/* What makes this object again, by FileSystem::CreateFromString; nothing does when the store is lent. */
	std::string GetId() const override { return uri_.empty() ? Name() : uri_; }

	IOStatus NewSequentialFile(const std::string &name, const FileOptions &options,
				   std::unique_ptr<rocksdb::FSSequentialFile> *result,
				   IODebugContext *) override;
	IOStatus NewRandomAccessFile(const std::string &name, const FileOptions &options,
				     std::unique_ptr<rocksdb::FSRandomAccessFile> *result,
				     IODebugContext *) override;
	IOStatus NewWritableFile(const std::string &name, const FileOptions &options,
				 std::unique_ptr<rocksdb::FSWritableFile> *result,
				 IODebugContext *) override;
	IOStatus ReopenWritableFile(const std::string &name, const FileOptions &options,
				    std::unique_ptr<rocksdb::FSWritableFile> *result,
				    IODebugContext *) override;
	IOStatus ReuseWritableFile(const std::string &name, const std::string &old_name,
				   const FileOptions &options,
				   std::unique_ptr<rocksdb::FSWritableFile> *result,
				   IODebugContext *) override;
	IOStatus NewRandomRWFile(const std::string &name, const FileOptions &options,
				 std::unique_ptr<rocksdb::FSRandomRWFile> *result,
				 IODebugContext *) override;
	IOStatus NewMemoryMappedFileBuffer(
		const std::string &name,
		std::unique_ptr<rocksdb::MemoryMappedFileBuffer> *result) override;
	IOStatus NewDirectory(const std::string &name, const IOOptions &,
			      std::unique_ptr<rocksdb::FSDirectory> *result,
			      IODebugContext *) override;

	IOStatus FileExists(const std::string &name, const IOOptions &, IODebugContext *) override;
	IOStatus GetChildren(const std::string &name, const IOOptions &,
			     std::vector<std::string> *result, IODebugContext *) override;
	IOStatus GetChildrenFileAttributes(const std::string &name, const IOOptions &,
					   std::vector<rocksdb::FileAttributes> *result,
					   IODebugContext *) override;
	IOStatus DeleteFile(const std::string &name, const IOOptions &, IODebugContext *) override;
	IOStatus Truncate(const std::string &name, size_t size, const IOOptions &,
			  IODebugContext *) override;
	IOStatus CreateDir(const std::string &name, const IOOptions &, IODebugContext *) override;
	IOStatus CreateDirIfMissing(const std::string &name, const IOOptions &,
				    IODebugContext *) override;
	IOStatus DeleteDir(const std::string &name, const IOOptions &, IODebugContext *) override;
	IOStatus GetFileSize(const std::string &name, const IOOptions &, uint64_t *size,
			     IODebugContext *) override;
	IOStatus GetFileModificationTime(const std::string &name, const IOOptions &,
					 uint64_t *mtime, IODebugContext *) override;
	IOStatus RenameFile(const std::string &from, const std::string &to, const IOOptions &,
			    IODebugContext *) override;
	IOStatus LinkFile(const std::string &from, const std::string &to, const IOOptions &,
			  IODebugContext *) override;
	IOStatus NumFileLinks(const std::string &name, const IOOptions &, uint64_t *count,
			      IODebugContext *) override;
	IOStatus AreFilesSame(const std::string &a, const std::string &b, const IOOptions &,
			      bool *same, IODebugContext *) override;
	IOStatus IsDirectory(const std::string &name, const IOOptions &, bool *is_dir,
			     IODebugContext *) override;

	IOStatus LockFile(const std::string &name, const IOOptions &, rocksdb::FileLock **lock,
			  IODebugContext *) override;
	IOStatus UnlockFile(rocksdb::FileLock *lock, const IOOptions &, IODebugContext *) override;

	IOStatus GetTestDirectory(const IOOptions &, std::string *path, IODebugContext *) override;
	IOStatus GetAbsolutePath(const std::string &name, const IOOptions &, std::string *path,
				 IODebugContext *) override;
	IOStatus GetFreeSpace(const std::string &name, const IOOptions &, uint64_t *bytes,
			      IODebugContext *) override;

	FileOptions OptimizeForLogWrite(const FileOptions &options,
					const rocksdb::DBOptions &db) const override;
	FileOptions OptimizeForManifestWrite(const FileOptions &options) const override;

private:
	static std::string Path(const std::string &name);
	/* Follows symbolic links. */
	int Attributes(const std::string &name, struct bfs_attr *attr) const;
	int MakeDirectory(const std::string &name) const;

	const std::string uri_;
	std::shared_ptr<Store> store_;
};

} // namespace blobfs

#endif

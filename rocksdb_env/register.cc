/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes blobfs://… known to RocksDB when the library is loaded, as a FileSystem (--fs_uri) and as
 * an Env (--env_uri). A factory that fails says why in one line and gives nothing; RocksDB passes
 * both on.
 */
#include "rocksdb/env.h"
#include "rocksdb/utilities/object_registry.h"
#include "rocksdb_env/blobfs_env.h"
#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

rocksdb::FileSystem *MakeFileSystem(const std::string &uri,
				    std::unique_ptr<rocksdb::FileSystem> *guard, std::string *why)
{
	*guard = NewFileSystem(uri, why);
	return guard->get();
}

rocksdb::Env *MakeEnv(const std::string &uri, std::unique_ptr<rocksdb::Env> *guard,
		      std::string *why)
{
	std::shared_ptr<rocksdb::FileSystem> fs = NewFileSystem(uri, why);

	guard->reset();
	if (fs)
		*guard = rocksdb::NewCompositeEnv(fs);
	return guard->get();
}

rocksdb::ObjectLibrary::PatternEntry Scheme()
{
	return rocksdb::ObjectLibrary::PatternEntry("blobfs", false).AddSeparator("://", false);
}

int Register()
{
	std::shared_ptr<rocksdb::ObjectLibrary> &library = rocksdb::ObjectLibrary::Default();

	library->AddFactory<rocksdb::FileSystem>(Scheme(), MakeFileSystem);
	library->AddFactory<rocksdb::Env>(Scheme(), MakeEnv);
	return 2;
}

} // namespace

rocksdb::Status NewBlobFileSystem(const std::string &uri,
				  std::shared_ptr<rocksdb::FileSystem> *result)
{
	std::string why;

	*result = NewFileSystem(uri, &why);
	return *result ? rocksdb::Status::OK() : rocksdb::Status::InvalidArgument(why);
}

rocksdb::Status NewBlobFileSystem(struct bfs *fs, std::shared_ptr<rocksdb::FileSystem> *result)
{
	try {
		*result = NewFileSystem(Store::Lend(fs));
		return rocksdb::Status::OK();
	} catch (const std::bad_alloc &) {
		return rocksdb::Status::MemoryLimit("blobfs: out of memory");
	}
}

} // namespace blobfs

/* Named for the linker's -u: a program that links the plugin statically keeps it by this. */
extern "C" int blobfs_rocksdb_registered;
BLOBFS_API int blobfs_rocksdb_registered = blobfs::Register();

/* SPDX-License-Identifier: BSD-2-Clause */
/* Names and attributes. */
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "rocksdb_env/filesystem.h"

namespace blobfs {

namespace {

/* The directory a path's last component is in, and that component. */
struct Place {
	uint64_t dir = 0;
	char name[BFS_NAME_MAX + 1];

	int Find(struct bfs *fs, const std::string &path)
	{
		return bfs_resolve_parent(fs, nullptr, path.c_str(), &dir, name);
	}
};

/* A path that cannot be there is not there: RocksDB asks this way whether to create a database. */
bool MeansAbsent(int rc)
{
	return rc == -ENOENT || rc == -ENOTDIR || rc == -EACCES || rc == -ELOOP ||
	       rc == -ENAMETOOLONG;
}

/* What one pass over a directory gathers. */
struct Listing {
	std::vector<std::string> *names = nullptr;
	std::vector<rocksdb::FileAttributes> *attributes = nullptr;
	bool out_of_memory = false;
};

/* Called from C: no exception may leave it. */
int Gather(const struct bfs_dirent *entry, void *arg)
{
	Listing *listing = static_cast<Listing *>(arg);
	std::string_view name(entry->name, entry->name_len);

	if (name == "." || name == "..")
		return 0;
	try {
		if (listing->names)
			listing->names->emplace_back(name);
		else if (entry->attr) /* else it was deleted since */
			listing->attributes->push_back({ std::string(name), entry->attr->size });
	} catch (const std::bad_alloc &) {
		listing->out_of_memory = true;
	}
	return listing->out_of_memory;
}

IOStatus List(struct bfs *fs, const std::string &path, Listing *listing)
{
	struct bfs_attr attr;
	int rc = bfs_resolve(fs, nullptr, path.c_str(), 0, &attr);

	if (!rc && !S_ISDIR(attr.mode))
		rc = -ENOTDIR;
	if (!rc)
		rc = bfs_readdir(fs, attr.ino, 0, listing->attributes != nullptr, Gather, listing);
	if (listing->out_of_memory)
		rc = -ENOMEM;
	if (rc == -ENOENT || rc == -ENOTDIR || rc == -EACCES)
		return IOStatus::NotFound(path);
	return ToStatus("listing", path, rc < 0 ? rc : 0);
}

} // namespace

int FileSystem::Attributes(const std::string &name, struct bfs_attr *attr) const
{
	return bfs_resolve(store_->fs(), nullptr, Path(name).c_str(), 0, attr);
}

IOStatus FileSystem::FileExists(const std::string &name, const IOOptions &, IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	return MeansAbsent(rc) ? IOStatus::NotFound(name) : ToStatus("looking for", name, rc);
}

IOStatus FileSystem::GetChildren(const std::string &name, const IOOptions &,
				 std::vector<std::string> *result, IODebugContext *)
{
	Listing listing;

	result->clear();
	listing.names = result;
	return Guarded(name, [&] { return List(store_->fs(), Path(name), &listing); });
}

IOStatus FileSystem::GetChildrenFileAttributes(const std::string &name, const IOOptions &,
					       std::vector<rocksdb::FileAttributes> *result,
					       IODebugContext *)
{
	Listing listing;

	result->clear();
	listing.attributes = result;
	return Guarded(name, [&] { return List(store_->fs(), Path(name), &listing); });
}

IOStatus FileSystem::DeleteFile(const std::string &name, const IOOptions &, IODebugContext *)
{
	Place place;
	int rc = place.Find(store_->fs(), Path(name));

	if (!rc)
		rc = bfs_unlink(store_->fs(), nullptr, place.dir, place.name);
	return ToStatus("deleting", name, rc);
}

IOStatus FileSystem::Truncate(const std::string &name, size_t size, const IOOptions &,
			      IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	if (!rc)
		rc = bfs_truncate(store_->fs(), nullptr, attr.ino, size);
	return ToStatus("truncating", name, rc);
}

int FileSystem::MakeDirectory(const std::string &name) const
{
	Place place;
	std::string path = Path(name);
	struct bfs_attr attr;
	int rc;

	/* The root has no place; it is there. */
	if (path.find_first_not_of('/') == std::string::npos)
		return -EEXIST;
	rc = place.Find(store_->fs(), path);
	return rc ? rc : bfs_mkdir(store_->fs(), nullptr, place.dir, place.name, 0755, 0, &attr);
}

IOStatus FileSystem::CreateDir(const std::string &name, const IOOptions &, IODebugContext *)
{
	return ToStatus("creating directory", name, MakeDirectory(name));
}

IOStatus FileSystem::CreateDirIfMissing(const std::string &name, const IOOptions &,
					IODebugContext *)
{
	struct bfs_attr attr;
	int rc = MakeDirectory(name);

	if (rc == -EEXIST && !Attributes(name, &attr))
		rc = S_ISDIR(attr.mode) ? 0 : -ENOTDIR;
	if (rc == -ENOTDIR)
		return IOStatus::IOError("`" + name + "' exists but is not a directory");
	return ToStatus("creating directory", name, rc);
}

IOStatus FileSystem::DeleteDir(const std::string &name, const IOOptions &, IODebugContext *)
{
	Place place;
	int rc = place.Find(store_->fs(), Path(name));

	if (!rc)
		rc = bfs_rmdir(store_->fs(), nullptr, place.dir, place.name);
	return ToStatus("deleting directory", name, rc);
}

IOStatus FileSystem::GetFileSize(const std::string &name, const IOOptions &, uint64_t *size,
				 IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	*size = rc ? 0 : attr.size;
	return ToStatus("asking the size of", name, rc);
}

IOStatus FileSystem::GetFileModificationTime(const std::string &name, const IOOptions &,
					     uint64_t *mtime, IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	if (!rc)
		*mtime = static_cast<uint64_t>(attr.mtime / 1000000000);
	return ToStatus("asking the modification time of", name, rc);
}

IOStatus FileSystem::RenameFile(const std::string &from, const std::string &to, const IOOptions &,
				IODebugContext *)
{
	Place source, target;
	int rc = source.Find(store_->fs(), Path(from));

	if (!rc)
		rc = target.Find(store_->fs(), Path(to));
	if (!rc)
		rc = bfs_rename(store_->fs(), nullptr, source.dir, source.name, target.dir,
				target.name, 0);
	return rc ? Failure("renaming to " + to, from, rc) : IOStatus::OK();
}

IOStatus FileSystem::LinkFile(const std::string &from, const std::string &to, const IOOptions &,
			      IODebugContext *)
{
	struct bfs_attr attr, linked;
	Place target;
	int rc = bfs_resolve(store_->fs(), nullptr, Path(from).c_str(), BFS_NOFOLLOW, &attr);

	if (!rc)
		rc = target.Find(store_->fs(), Path(to));
	if (!rc)
		rc = bfs_link(store_->fs(), nullptr, attr.ino, target.dir, target.name, 0, &linked);
	return rc ? Failure("linking to " + to, from, rc) : IOStatus::OK();
}

IOStatus FileSystem::NumFileLinks(const std::string &name, const IOOptions &, uint64_t *count,
				  IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	if (!rc)
		*count = attr.nlink;
	return ToStatus("counting the links of", name, rc);
}

IOStatus FileSystem::AreFilesSame(const std::string &a, const std::string &b, const IOOptions &,
				  bool *same, IODebugContext *)
{
	struct bfs_attr first, second;
	int rc = Attributes(a, &first);

	if (rc)
		return Failure("comparing", a, rc);
	rc = Attributes(b, &second);
	if (rc)
		return Failure("comparing", b, rc);
	*same = first.ino == second.ino;
	return IOStatus::OK();
}

IOStatus FileSystem::IsDirectory(const std::string &name, const IOOptions &, bool *is_dir,
				 IODebugContext *)
{
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	if (!rc && is_dir)
		*is_dir = S_ISDIR(attr.mode);
	return ToStatus("asking the kind of", name, rc);
}

/* $TEST_TMPDIR as on other file systems, but inside this one; made if it is missing. */
IOStatus FileSystem::GetTestDirectory(const IOOptions &, std::string *path, IODebugContext *)
{
	const char *given = getenv("TEST_TMPDIR");
	int rc;

	*path = given && *given ? Path(given) : "/tmp/rocksdbtest-" + std::to_string(geteuid());
	rc = bfs_make_path(store_->fs(), nullptr, path->c_str(), 0755);
	return ToStatus("creating directory", *path, rc == -EEXIST || rc == -EROFS ? 0 : rc);
}

IOStatus FileSystem::GetAbsolutePath(const std::string &name, const IOOptions &, std::string *path,
				     IODebugContext *)
{
	*path = Path(name);
	return IOStatus::OK();
}

IOStatus FileSystem::GetFreeSpace(const std::string &name, const IOOptions &, uint64_t *bytes,
				  IODebugContext *)
{
	struct bfs_statfs stat;
	struct bfs_attr attr;
	int rc = Attributes(name, &attr);

	if (!rc)
		rc = bfs_get_statfs(store_->fs(), &stat);
	if (!rc)
		*bytes = stat.avail_blocks * stat.block_size;
	return ToStatus("asking the free space at", name, rc);
}

} // namespace blobfs

/* SPDX-License-Identifier: BSD-2-Clause */
/* The option mount=DIR: what the library does is what the kernel shows, at once, and the other way
 * round. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "test/rocksdb/subject.h"
#include "test/rocksdb/verbs.h"

namespace {

const rocksdb::IOOptions kIo;

#define CHECK(condition)                                                           \
	do {                                                                       \
		if (!(condition)) {                                                \
			printf("line %d: not so: %s (%s)\n", __LINE__, #condition, \
			       strerror(errno));                                   \
			return false;                                              \
		}                                                                  \
	} while (0)

int64_t SizeAt(const std::string &path)
{
	struct stat st;

	return stat(path.c_str(), &st) ? -1 : st.st_size;
}

std::string ReadAt(const std::string &path)
{
	std::ifstream in(path, std::ios::binary);

	return std::string(std::istreambuf_iterator<char>(in), {});
}

bool SizesAreNeverStale(rocksdb::FileSystem *fs, const std::string &mnt)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;
	std::string all;

	CHECK(SizeAt(mnt + "/grows") == -1);
	CHECK(fs->NewWritableFile("/grows", rocksdb::FileOptions(), &file, nullptr).ok());
	for (unsigned i = 0; i < 200; i++) {
		std::string piece = Pattern(i * 61, i);

		CHECK(file->Append(piece, kIo, nullptr).ok());
		all += piece;
		CHECK(SizeAt(mnt + "/grows") == static_cast<int64_t>(all.size()));
		if (i % 20 == 0)
			CHECK(ReadAt(mnt + "/grows") == all);
	}
	CHECK(fs->Truncate("/grows", 1000, kIo, nullptr).ok());
	CHECK(SizeAt(mnt + "/grows") == 1000);
	CHECK(ReadAt(mnt + "/grows") == all.substr(0, 1000));
	return true;
}

bool NamesAreNeverStale(rocksdb::FileSystem *fs, const std::string &mnt)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;

	for (int i = 0; i < 50; i++) {
		std::string name = "/n" + std::to_string(i), other = "/m" + std::to_string(i);

		CHECK(SizeAt(mnt + name) == -1 && errno == ENOENT);
		CHECK(fs->NewWritableFile(name, rocksdb::FileOptions(), &file, nullptr).ok());
		CHECK(SizeAt(mnt + name) == 0);
		CHECK(fs->RenameFile(name, other, kIo, nullptr).ok());
		CHECK(SizeAt(mnt + name) == -1 && errno == ENOENT);
		CHECK(SizeAt(mnt + other) == 0);
		CHECK(fs->DeleteFile(other, kIo, nullptr).ok());
		CHECK(SizeAt(mnt + other) == -1 && errno == ENOENT);
	}
	return true;
}

bool TheKernelsWritesAreSeen(rocksdb::FileSystem *fs, const std::string &mnt)
{
	uint64_t size = 0;
	std::string read;

	std::ofstream(mnt + "/kernel") << "written by the kernel";
	CHECK(fs->GetFileSize("/kernel", kIo, &size, nullptr).ok() && size == 21);
	CHECK(rocksdb::ReadFileToString(fs, "/kernel", &read).ok() &&
	      read == "written by the kernel");
	std::ofstream(mnt + "/kernel", std::ios::app) << ", and more";
	CHECK(fs->GetFileSize("/kernel", kIo, &size, nullptr).ok() && size == 31);
	CHECK(!unlink((mnt + "/kernel").c_str()));
	CHECK(fs->FileExists("/kernel", kIo, nullptr).IsNotFound());
	return true;
}

bool LocksAreShared(rocksdb::FileSystem *fs, const std::string &mnt)
{
	rocksdb::FileLock *lock = nullptr;
	struct flock f = {};
	int fd;

	CHECK(fs->LockFile("/LOCK", kIo, &lock, nullptr).ok());
	fd = open((mnt + "/LOCK").c_str(), O_RDWR);
	CHECK(fd >= 0);
	f.l_type = F_WRLCK;
	CHECK(fcntl(fd, F_SETLK, &f) == -1 && (errno == EAGAIN || errno == EACCES));
	CHECK(fs->UnlockFile(lock, kIo, nullptr).ok());
	CHECK(fcntl(fd, F_SETLK, &f) == 0);
	CHECK(!fs->LockFile("/LOCK", kIo, &lock, nullptr).ok());
	f.l_type = F_UNLCK;
	CHECK(fcntl(fd, F_SETLK, &f) == 0);
	close(fd);
	CHECK(fs->LockFile("/LOCK", kIo, &lock, nullptr).ok() &&
	      fs->UnlockFile(lock, kIo, nullptr).ok());
	return true;
}

bool LiveTablesCanBeCopied(Database *d, const std::string &mnt)
{
	rocksdb::Options options;
	int tables = 0;

	options.write_buffer_size = 256 << 10;
	CHECK(d->Open("", "/live-db", options));
	for (uint64_t n = 0; n < 5000; n++)
		CHECK(d->db->Put(rocksdb::WriteOptions(), KeyOf(n), ValueOf(n)).ok());
	CHECK(d->db->Flush(rocksdb::FlushOptions()).ok() && d->db->DisableFileDeletions().ok());
	DIR *dir = opendir((mnt + "/live-db").c_str());

	CHECK(dir);
	while (struct dirent *entry = readdir(dir)) {
		std::string name = entry->d_name, ours;

		if (name.find(".sst") == std::string::npos)
			continue;
		CHECK(rocksdb::ReadFileToString(d->env->GetFileSystem().get(), "/live-db/" + name,
						&ours)
			      .ok());
		CHECK(!ours.empty() && ReadAt(mnt + "/live-db/" + name) == ours);
		tables++;
	}
	closedir(dir);
	CHECK(tables > 0);
	CHECK(HasAll(d->db.get(), 5000));
	d->db.reset();
	return true;
}

} // namespace

int Live(const Arguments &args)
{
	int failed = 0;
	const std::string &mnt = args[1];

	{
		Database d;

		if (!d.OpenEnv(args[0]))
			return 1;
		rocksdb::FileSystem *fs = d.env->GetFileSystem().get();
		const struct {
			const char *name;
			bool good;
		} results[] = { { "sizes_are_never_stale", SizesAreNeverStale(fs, mnt) },
				{ "names_are_never_stale", NamesAreNeverStale(fs, mnt) },
				{ "the_kernels_writes_are_seen", TheKernelsWritesAreSeen(fs, mnt) },
				{ "locks_are_shared", LocksAreShared(fs, mnt) },
				{ "live_tables_can_be_copied", LiveTablesCanBeCopied(&d, mnt) } };

		for (auto &result : results) {
			printf(result.good ? "ok rocksdb_mount/%s\n"
					   : "not ok rocksdb_mount/%s: see above\n",
			       result.name);
			failed += !result.good;
		}
	}
	return failed != 0;
}

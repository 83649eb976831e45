/* SPDX-License-Identifier: BSD-2-Clause */
/* Situations around a database: two openings, ingestion, recycled logs, forks, URIs. */
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "rocksdb/convenience.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "rocksdb/sst_file_writer.h"
#include "test/rocksdb/subject.h"
#include "test/rocksdb/verbs.h"

namespace {

bool PutAll(rocksdb::DB *db, uint64_t from, uint64_t to)
{
	for (uint64_t n = from; n < to; n++)
		if (!Ok("put", db->Put(rocksdb::WriteOptions(), KeyOf(n), ValueOf(n))))
			return false;
	return true;
}

bool WriteTable(const rocksdb::Options &options, const std::string &path, uint64_t from,
		uint64_t to)
{
	rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), options);

	if (!Ok("table", writer.Open(path)))
		return false;
	for (uint64_t n = from; n < to; n++)
		if (!Ok("table put", writer.Put(KeyOf(n), ValueOf(n))))
			return false;
	return Ok("table finish", writer.Finish());
}

} // namespace

int OpenTwice(const Arguments &args)
{
	Database first;
	rocksdb::Options options;
	rocksdb::DB *second = nullptr;

	if (!first.Open(args[0], args[1]))
		return 1;
	options.env = first.env;
	rocksdb::Status s = rocksdb::DB::Open(options, args[1], &second);

	delete second;
	printf("second opening: %s\n", s.ToString().c_str());
	if (s.ok())
		return 1;
	first.db.reset();
	return first.Open(args[0], args[1]) ? 0 : 1;
}

int Ingest(const Arguments &args)
{
	Database d;
	rocksdb::Options options;
	rocksdb::IngestExternalFileOptions how;

	if (!d.Open(args[0], args[1]))
		return 1;
	options.env = d.env;
	if (!WriteTable(options, "/moved.sst", 0, 1000) ||
	    !WriteTable(options, "/copied.sst", 1000, 2000) ||
	    !WriteTable(options, "/numbered.sst", 2000, 3000))
		return 1;
	how.move_files = true;
	if (!Ok("ingest by link", d.db->IngestExternalFile({ "/moved.sst" }, how)))
		return 1;
	how.move_files = false;
	if (!Ok("ingest by copy", d.db->IngestExternalFile({ "/copied.sst" }, how)))
		return 1;
	how.write_global_seqno = true;
	if (!Ok("ingest with number", d.db->IngestExternalFile({ "/numbered.sst" }, how)))
		return 1;
	d.db.reset();
	return d.Open(args[0], args[1]) && HasAll(d.db.get(), 3000) &&
			       Ok("checksums", d.db->VerifyChecksum())
		       ? 0
		       : 1;
}

/* With one log kept for use again, every new log is an old file written over. */
int Recycle(const Arguments &args)
{
	Database d;
	rocksdb::Options options;

	options.recycle_log_file_num = 2;
	options.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
	options.write_buffer_size = 512 << 10;
	for (uint64_t round = 0; round < 3; round++) {
		if (!d.Open(args[0], args[1], options) || !HasAll(d.db.get(), round * 4000) ||
		    !PutAll(d.db.get(), round * 4000, (round + 1) * 4000))
			return 1;
		d.db.reset();
	}
	return d.Open(args[0], args[1], options) && HasAll(d.db.get(), 12000) ? 0 : 1;
}

/*
 * The child inherits everything and owns nothing. It is made before a database is opened: RocksDB
 * joins its threads at exit, which a child does not have.
 */
int Fork(const Arguments &args)
{
	Database d;
	int status;
	pid_t child;

	if (!d.OpenEnv(args[0]) ||
	    !Ok("write", rocksdb::WriteStringToFile(d.env, "kept", "/before", false)))
		return 1;
	child = fork();
	if (!child) {
		std::unique_ptr<rocksdb::FSWritableFile> file;
		rocksdb::IOStatus s = d.env->GetFileSystem()->NewWritableFile(
			"/by-the-child", rocksdb::FileOptions(), &file, nullptr);

		if (s.ok())
			s = file->Append("no", rocksdb::IOOptions(), nullptr);
		if (s.ok())
			s = file->Fsync(rocksdb::IOOptions(), nullptr);
		exit(s.ok() ? 3 : 0); /* the handlers at exit must not touch the parent's store */
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 1;
	printf("child: status %x\n", status);
	if (status || !d.env->FileExists("/by-the-child").IsNotFound() ||
	    !Ok("before", d.env->FileExists("/before")))
		return 1;
	return d.Open(args[0], args[1]) && PutAll(d.db.get(), 0, 2000) && HasAll(d.db.get(), 2000)
		       ? 0
		       : 1;
}

/* Appends until the space runs out; what was appended is there, and space that is freed can be
 * used. */
int FullFiles(const Arguments &args)
{
	const rocksdb::IOOptions io;
	rocksdb::FileOptions options;
	std::unique_ptr<rocksdb::FSWritableFile> file;
	std::string piece = Pattern(100000, 1), all;
	rocksdb::IOStatus s;
	uint64_t free = 0, whole = 0;
	Database d;

	if (!d.OpenEnv(args[0]))
		return 1;
	rocksdb::FileSystem *fs = d.env->GetFileSystem().get();

	if (!Ok("ballast",
		rocksdb::WriteStringToFile(d.env, Pattern(16 << 20, 1), "/ballast", true)) ||
	    !Ok("create", fs->NewWritableFile("/full", options, &file, nullptr)))
		return 1;
	for (; s.ok() && whole < 100000; whole += s.ok())
		s = file->Append(piece, io, nullptr);
	printf("after %llu pieces: %s%s\n", static_cast<unsigned long long>(whole),
	       s.ToString().c_str(), s.GetRetryable() ? ", retryable" : "");
	if (!s.IsNoSpace() || !s.GetRetryable() || whole < 100)
		return 1;
	if (!Ok("sync when full", file->Fsync(io, nullptr)) ||
	    !Ok("free space", fs->GetFreeSpace("/", io, &free, nullptr)) || free > 1 << 20)
		return 1;
	/* A piece may be there in part: it goes. */
	if (!Ok("truncate", file->Truncate(whole * piece.size(), io, nullptr)) ||
	    !Ok("delete", fs->DeleteFile("/ballast", io, nullptr)))
		return 1;
	for (int i = 0; i < 100; i++, whole++)
		if (!Ok("append after space was freed", file->Append(piece, io, nullptr)))
			return 1;
	if (!Ok("sync", file->Fsync(io, nullptr)) || !Ok("close", file->Close(io, nullptr)) ||
	    !Ok("read", rocksdb::ReadFileToString(fs, "/full", &all)) ||
	    all.size() != whole * piece.size())
		return 1;
	for (size_t at = 0; at < all.size(); at += piece.size())
		if (all.compare(at, piece.size(), piece))
			return 1;
	printf("all %llu pieces are right\n", static_cast<unsigned long long>(whole));
	return 0;
}

/* Opens each while the ones before are open. */
int Uris(const Arguments &args)
{
	std::vector<std::shared_ptr<rocksdb::FileSystem>> open;
	int failed = 0;

	for (const std::string &uri : args) {
		std::shared_ptr<rocksdb::FileSystem> fs;
		rocksdb::Status s = rocksdb::FileSystem::CreateFromString(rocksdb::ConfigOptions(),
									  uri, &fs);

		printf("%s: %s\n", uri.c_str(),
		       s.ok() ? fs->GetId().c_str() : s.ToString().c_str());
		failed += !s.ok();
		if (s.ok())
			open.push_back(fs);
	}
	return failed != 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Databases with keys and values that can be checked one by one. */
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "rocksdb/convenience.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "test/rocksdb/subject.h"
#include "test/rocksdb/verbs.h"

bool Ok(const char *what, const rocksdb::Status &s)
{
	if (!s.ok())
		printf("%s: %s\n", what, s.ToString().c_str());
	return s.ok();
}

std::string KeyOf(uint64_t n)
{
	char key[32];

	snprintf(key, sizeof(key), "key-%016llx", static_cast<unsigned long long>(n));
	return key;
}

std::string ValueOf(uint64_t n)
{
	return Pattern(50 + n * 37 % 2000, static_cast<unsigned>(n));
}

bool Database::OpenEnv(const std::string &uri)
{
	if (!Ok("environment",
		rocksdb::Env::CreateFromUri(rocksdb::ConfigOptions(), "", uri, &env, &guard)))
		return false;
	if (std::string(env->GetFileSystem()->Name()) != "BlobFS") {
		printf("this is not BlobFS but %s\n", env->GetFileSystem()->Name());
		return false;
	}
	return true;
}

bool Database::Open(const std::string &uri, const std::string &path, rocksdb::Options options)
{
	rocksdb::DB *opened = nullptr;

	if (!env && !OpenEnv(uri))
		return false;
	options.env = env;
	options.create_if_missing = true;
	if (!Ok("open", rocksdb::DB::Open(options, path, &opened)))
		return false;
	db.reset(opened);
	return true;
}

bool HasAll(rocksdb::DB *db, uint64_t count)
{
	std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
	uint64_t next = 0, wrong = 0;

	for (it->SeekToFirst(); it->Valid() && wrong < 5; it->Next(), next++) {
		uint64_t n = strtoull(it->key().ToString().c_str() + 4, nullptr, 16);

		if (it->key() != KeyOf(n) || it->value() != ValueOf(n) ||
		    (next < count && n != next)) {
			printf("wrong at %llu: key %s\n", static_cast<unsigned long long>(next),
			       it->key().ToString().c_str());
			wrong++;
		}
	}
	if (!Ok("iterate", it->status()))
		return false;
	if (next < count) {
		printf("%llu keys of %llu are there\n", static_cast<unsigned long long>(next),
		       static_cast<unsigned long long>(count));
		return false;
	}
	return !wrong;
}

int Verify(const Arguments &args)
{
	Database d;
	uint64_t count = strtoull(args[2].c_str(), nullptr, 10);

	if (!d.Open(args[0], args[1]) || !HasAll(d.db.get(), count) ||
	    !Ok("checksums", d.db->VerifyChecksum()))
		return 1;
	printf("verified %llu keys\n", static_cast<unsigned long long>(count));
	return 0;
}

/* Small buffers, so that tables, manifests and compactions come into it soon. */
int Acknowledge(const Arguments &args)
{
	Database d;
	rocksdb::Options options;
	rocksdb::WriteOptions write;

	options.write_buffer_size = 256 << 10;
	options.target_file_size_base = 256 << 10;
	options.max_bytes_for_level_base = 1 << 20;
	write.sync = true;
	if (!d.Open(args[0], args[1], options))
		return 1;
	for (uint64_t n = 0;; n++) {
		char line[32];
		int len;

		if (!Ok("put", d.db->Put(write, KeyOf(n), ValueOf(n))))
			return 1;
		len = snprintf(line, sizeof(line), "%llu\n",
			       static_cast<unsigned long long>(n + 1));
		if (::write(STDOUT_FILENO, line, static_cast<size_t>(len)) != len)
			return 1;
	}
}

namespace {

/* Puts keys from 0 on until the device is full; how many were acknowledged. */
bool PutUntilFull(rocksdb::DB *db, rocksdb::WriteOptions write, uint64_t *count)
{
	rocksdb::Status s;
	uint64_t n = 0;

	while (s.ok() && n < 1000000) {
		write.sync = !write.disableWAL && n % 64 == 0;
		s = db->Put(write, KeyOf(n), ValueOf(n));
		n += s.ok();
	}
	printf("after %llu keys: %s\n", static_cast<unsigned long long>(n), s.ToString().c_str());
	*count = n;
	return s.IsNoSpace();
}

} // namespace

/*
 * Until the device is full; then space is freed, and the database goes on. Without a log only
 * flushes fail, and RocksDB tries those again by itself. Once an append to its log failed it wants
 * to be opened again.
 */
int FillUp(const Arguments &args)
{
	bool logged = args.size() < 3 || args[2] != "unlogged";
	Database d;
	rocksdb::Options options;
	rocksdb::WriteOptions write;
	rocksdb::Status s;
	uint64_t n;

	options.write_buffer_size = 1 << 20;
	write.disableWAL = !logged;
	if (!d.OpenEnv(args[0]) ||
	    !Ok("ballast",
		rocksdb::WriteStringToFile(d.env, Pattern(32 << 20, 1), "/ballast", true)) ||
	    !d.Open(args[0], args[1], options))
		return 1;
	if (!PutUntilFull(d.db.get(), write, &n)) {
		printf("the database was not told that space ran out\n");
		return 1;
	}
	if (logged)
		d.db.reset();
	if (!Ok("delete ballast", d.env->DeleteFile("/ballast")))
		return 1;
	if (logged && (!d.Open(args[0], args[1], options) || !HasAll(d.db.get(), n)))
		return 1;
	for (int tries = 0; tries < 300; tries++) { /* it tries once a second */
		s = d.db->Put(write, KeyOf(n), ValueOf(n));
		if (s.ok())
			break;
		d.env->SleepForMicroseconds(100000);
	}
	if (!Ok("put after space was freed", s) ||
	    !Ok("flush", d.db->Flush(rocksdb::FlushOptions())) || !HasAll(d.db.get(), n + 1))
		return 1;
	d.db.reset();
	if (!d.Open(args[0], args[1], options) || !HasAll(d.db.get(), n + 1) ||
	    !Ok("checksums", d.db->VerifyChecksum()))
		return 1;
	printf("recovered with %llu keys\n", static_cast<unsigned long long>(n + 1));
	return 0;
}

int Leak(const Arguments &args)
{
	Database *d = new Database;
	uint64_t count = strtoull(args[2].c_str(), nullptr, 10);

	if (!d->Open(args[0], args[1]))
		return 1;
	for (uint64_t n = 0; n < count; n++)
		if (!Ok("put", d->db->Put(rocksdb::WriteOptions(), KeyOf(n), ValueOf(n))))
			return 1;
	exit(0); /* d, its database and its file system are never destroyed */
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs of the test program, and what they share. */
#ifndef TEST_ROCKSDB_VERBS_H
#define TEST_ROCKSDB_VERBS_H

#include <memory>
#include <string>
#include <vector>

#include "rocksdb/db.h"

using Arguments = std::vector<std::string>;

/* Each returns the exit code; what is wrong is printed. */
int Conformance(const Arguments &args); /* URI SCRATCH-DIR */
int Acknowledge(const Arguments &args); /* URI DB */
int Verify(const Arguments &args);      /* URI DB COUNT */
int FillUp(const Arguments &args);      /* URI DB [unlogged] */
int FullFiles(const Arguments &args);   /* URI */
int Ingest(const Arguments &args);      /* URI DB */
int OpenTwice(const Arguments &args);   /* URI DB */
int Leak(const Arguments &args);        /* URI DB COUNT */
int Fork(const Arguments &args);        /* URI DB */
int Recycle(const Arguments &args);     /* URI DB */
int Live(const Arguments &args);        /* URI MOUNT-POINT */
int Uris(const Arguments &args);        /* URI... */

/* A database on the file system a URI names; through --env_uri's way when by_env. */
struct Database {
	std::shared_ptr<rocksdb::Env> guard;
	rocksdb::Env *env = nullptr;
	std::unique_ptr<rocksdb::DB> db;

	/* Says what failed. */
	bool Open(const std::string &uri, const std::string &path,
		  rocksdb::Options options = rocksdb::Options());
	/* The environment alone. */
	bool OpenEnv(const std::string &uri);
	~Database() { db.reset(); }
};

std::string KeyOf(uint64_t n);
std::string ValueOf(uint64_t n);
/* Keys 0 … count - 1 are there with their values; whatever else is there has its value too. Says
 * what is not. */
bool HasAll(rocksdb::DB *db, uint64_t count);
/* Prints and returns false when a status is not OK. */
bool Ok(const char *what, const rocksdb::Status &s);

#endif

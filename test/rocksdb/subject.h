/* SPDX-License-Identifier: BSD-2-Clause */
/* One sequence of calls, made on the kernel's file system and on BlobFS; what comes out must be the
 * same text. */
#ifndef TEST_ROCKSDB_SUBJECT_H
#define TEST_ROCKSDB_SUBJECT_H

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "rocksdb/file_system.h"

/* A file system, a directory in it, and what was seen there so far. */
class Subject {
public:
	Subject(const std::shared_ptr<rocksdb::FileSystem> &fs, const std::string &dir)
	    : fs_(fs), dir_(dir)
	{
	}

	rocksdb::FileSystem *operator->() const { return fs_.get(); }
	std::string Path(const std::string &name) const { return dir_ + "/" + name; }
	std::string Seen() const { return seen_.str(); }
	bool IsBlob() const { return std::string(fs_->Name()) == "BlobFS"; }

	/* Notes a status: all of it but the words. Returns whether it was OK. */
	bool Note(const char *what, const rocksdb::IOStatus &s)
	{
		seen_ << what << ": code " << int(s.code()) << '.' << int(s.subcode())
		      << (s.GetRetryable() ? " retryable" : "") << (s.GetDataLoss() ? " loss" : "")
		      << "\n";
		return s.ok();
	}
	template <typename T> void Note(const char *what, const T &value)
	{
		seen_ << what << ": " << value << "\n";
	}

	/* Short forms for what most tests need. */
	void Write(const std::string &name, const std::string &data);
	std::string Contents(const std::string &name);
	void NoteContents(const std::string &name);
	void NoteList(const std::string &name);
	/* By name. RocksDB's file system on the kernel's does not offer it: there truncate(2) says
	 * what is right. */
	rocksdb::IOStatus Truncate(const std::string &name, size_t size);

	const rocksdb::IOOptions io;
	rocksdb::FileOptions options;

private:
	std::shared_ptr<rocksdb::FileSystem> fs_;
	std::string dir_;
	std::ostringstream seen_;
};

struct Case {
	const char *name;
	void (*run)(Subject &s);
};

/* len bytes that depend on seed and place. */
std::string Pattern(size_t len, unsigned seed);
uint64_t Sum(const std::string &data);

/* cases_files.cc, cases_names.cc, cases_direct.cc; each ends with a null name. */
extern const Case kFileCases[], kNameCases[], kDirectCases[];

#endif

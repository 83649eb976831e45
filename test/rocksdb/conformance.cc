/* SPDX-License-Identifier: BSD-2-Clause */
/* Every case on both file systems; one that differs is shown line by line. */
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "rocksdb/convenience.h"
#include "test/rocksdb/subject.h"
#include "test/rocksdb/verbs.h"

std::string Pattern(size_t len, unsigned seed)
{
	std::string data(len, 0);
	uint64_t x = seed * 2654435761u + 88172645463325252ull;

	for (char &c : data) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		c = static_cast<char>(x);
	}
	return data;
}

uint64_t Sum(const std::string &data)
{
	uint64_t h = 1469598103934665603ull;

	for (unsigned char c : data)
		h = (h ^ c) * 1099511628211ull;
	return h;
}

void Subject::Write(const std::string &name, const std::string &data)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;

	if (!Note("create", fs_->NewWritableFile(Path(name), options, &file, nullptr)))
		return;
	Note("append", file->Append(data, io, nullptr));
	Note("close", file->Close(io, nullptr));
}

std::string Subject::Contents(const std::string &name)
{
	std::unique_ptr<rocksdb::FSSequentialFile> file;
	std::string all, piece(10000, 0);
	rocksdb::Slice got;

	if (!Note("open", fs_->NewSequentialFile(Path(name), options, &file, nullptr)))
		return all;
	do {
		rocksdb::IOStatus s = file->Read(piece.size(), io, &got, &piece[0], nullptr);

		if (!s.ok()) {
			Note("read", s);
			break;
		}
		all.append(got.data(), got.size());
	} while (got.size() == piece.size());
	return all;
}

void Subject::NoteContents(const std::string &name)
{
	std::string all = Contents(name);

	Note("length", all.size());
	Note("sum", Sum(all));
}

void Subject::NoteList(const std::string &name)
{
	std::vector<std::string> names;

	if (!Note("list", fs_->GetChildren(name.empty() ? dir_ : Path(name), io, &names, nullptr)))
		return;
	std::sort(names.begin(), names.end());
	for (const std::string &n : names)
		Note("name", n);
}

rocksdb::IOStatus Subject::Truncate(const std::string &name, size_t size)
{
	if (IsBlob())
		return fs_->Truncate(Path(name), size, io, nullptr);
	if (!truncate(Path(name).c_str(), static_cast<off_t>(size)))
		return rocksdb::IOStatus::OK();
	return errno == ENOENT ? rocksdb::IOStatus::PathNotFound() : rocksdb::IOStatus::IOError();
}

namespace {

int RunCase(const Case &c, const std::shared_ptr<rocksdb::FileSystem> &posix,
	    const std::string &posix_dir, const std::shared_ptr<rocksdb::FileSystem> &blob)
{
	Subject a(posix, posix_dir + "/" + c.name), b(blob, std::string("/") + c.name);
	rocksdb::IOOptions io;

	if (!posix->CreateDir(a.Path(""), io, nullptr).ok() ||
	    !blob->CreateDir(b.Path(""), io, nullptr).ok()) {
		printf("not ok rocksdb_conformance/%s: no directory for it\n", c.name);
		return 1;
	}
	c.run(a);
	c.run(b);
	if (a.Seen() == b.Seen() && !a.Seen().empty()) {
		printf("ok rocksdb_conformance/%s\n", c.name);
		return 0;
	}
	std::istringstream left(a.Seen()), right(b.Seen());
	std::string x, y;

	for (int line = 1;; line++) {
		bool more_left = !!std::getline(left, x), more_right = !!std::getline(right, y);

		if (!more_left && !more_right)
			break;
		if (!more_left || !more_right || x != y)
			printf("    line %d: kernel \"%s\", blobfs \"%s\"\n", line,
			       more_left ? x.c_str() : "(end)", more_right ? y.c_str() : "(end)");
	}
	printf("not ok rocksdb_conformance/%s: not what the kernel's file system does\n", c.name);
	return 1;
}

} // namespace

int Conformance(const Arguments &args)
{
	std::shared_ptr<rocksdb::FileSystem> blob, posix = rocksdb::FileSystem::Default();
	int failed = 0;
	rocksdb::Status s = rocksdb::FileSystem::CreateFromString(rocksdb::ConfigOptions(), args[0],
								  &blob);

	if (!s.ok() || std::string(blob->Name()) != "BlobFS") {
		printf("not ok rocksdb_conformance/open: %s\n", s.ToString().c_str());
		return 1;
	}
	for (const Case *cases : { kFileCases, kNameCases, kDirectCases })
		for (const Case *c = cases; c->name; c++)
			failed += RunCase(*c, posix, args[1], blob);
	return failed != 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Conformance: names, directories, attributes, locks; above all what is answered when something is
 * wrong. */
#include <algorithm>
#include <ctime>

#include "test/rocksdb/subject.h"

namespace {

void MissingFilesAreMissing(Subject &s)
{
	std::unique_ptr<rocksdb::FSSequentialFile> seq;
	std::unique_ptr<rocksdb::FSRandomAccessFile> random;
	std::unique_ptr<rocksdb::FSWritableFile> writable;
	std::unique_ptr<rocksdb::FSDirectory> dir;
	uint64_t n = 0;
	bool yes = false;

	s.Write("file", "x");
	for (const char *name : { "missing", "missing/below", "file/below" }) {
		std::string path = s.Path(name);

		s.Note("sequential", s->NewSequentialFile(path, s.options, &seq, nullptr));
		s.Note("random", s->NewRandomAccessFile(path, s.options, &random, nullptr));
		s.Note("directory", s->NewDirectory(path, s.io, &dir, nullptr));
		s.Note("exists", s->FileExists(path, s.io, nullptr));
		s.Note("delete", s->DeleteFile(path, s.io, nullptr));
		s.Note("rmdir", s->DeleteDir(path, s.io, nullptr));
		s.Note("size", s->GetFileSize(path, s.io, &n, nullptr));
		s.Note("mtime", s->GetFileModificationTime(path, s.io, &n, nullptr));
		s.Note("links", s->NumFileLinks(path, s.io, &n, nullptr));
		s.Note("same", s->AreFilesSame(path, s.Path("file"), s.io, &yes, nullptr));
		s.Note("same", s->AreFilesSame(s.Path("file"), path, s.io, &yes, nullptr));
		s.Note("truncate", s.Truncate(name, 10));
		s.Note("is dir", s->IsDirectory(path, s.io, &yes, nullptr));
		s.Note("rename", s->RenameFile(path, s.Path("other"), s.io, nullptr));
		s.Note("link", s->LinkFile(path, s.Path("other"), s.io, nullptr));
		s.NoteList(name);
	}
	for (const char *name : { "missing/below", "file/below" }) {
		rocksdb::FileLock *lock = nullptr;

		s.Note("new", s->NewWritableFile(s.Path(name), s.options, &writable, nullptr));
		s.Note("reopen",
		       s->ReopenWritableFile(s.Path(name), s.options, &writable, nullptr));
		s.Note("mkdir", s->CreateDir(s.Path(name), s.io, nullptr));
		s.Note("mkdir", s->CreateDirIfMissing(s.Path(name), s.io, nullptr));
		s.Note("lock", s->LockFile(s.Path(name), s.io, &lock, nullptr));
		s.Note("no lock", lock == nullptr);
	}
}

void NamesThatAreTooLong(Subject &s)
{
	std::string longest = s.Path(std::string(255, 'n')),
		    too_long = s.Path(std::string(256, 'n'));
	std::unique_ptr<rocksdb::FSWritableFile> file;

	s.Note("longest", s->NewWritableFile(longest, s.options, &file, nullptr));
	s.Note("exists", s->FileExists(longest, s.io, nullptr));
	s.Note("too long", s->NewWritableFile(too_long, s.options, &file, nullptr));
	s.Note("exists", s->FileExists(too_long, s.io, nullptr));
	s.Note("mkdir", s->CreateDir(too_long, s.io, nullptr));
	s.Note("rename", s->RenameFile(longest, too_long, s.io, nullptr));
}

void DirectoriesAreMadeAndRemoved(Subject &s)
{
	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("again", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("if missing", s->CreateDirIfMissing(s.Path("d"), s.io, nullptr));
	s.Note("trailing slash", s->CreateDirIfMissing(s.Path("d/"), s.io, nullptr));
	s.Note("if missing", s->CreateDirIfMissing(s.Path("e"), s.io, nullptr));
	s.Write("file", "x");
	s.Note("over a file", s->CreateDirIfMissing(s.Path("file"), s.io, nullptr));
	s.Note("over a file", s->CreateDir(s.Path("file"), s.io, nullptr));
	s.Write("d/inner", "x");
	s.NoteList("");
	s.NoteList("d");
	s.NoteList("e");
	s.NoteList("file");
	s.Note("not empty", s->DeleteDir(s.Path("d"), s.io, nullptr));
	s.Note("a file", s->DeleteDir(s.Path("file"), s.io, nullptr));
	s.Note("a directory", s->DeleteFile(s.Path("d"), s.io, nullptr));
	s.Note("delete", s->DeleteFile(s.Path("d/inner"), s.io, nullptr));
	s.Note("empty", s->DeleteDir(s.Path("d"), s.io, nullptr));
	s.NoteList("");
}

void ChildrenHaveSizes(Subject &s)
{
	std::vector<rocksdb::FileAttributes> children;

	s.Write("one", Pattern(1, 1));
	s.Write("two", Pattern(20000, 1));
	s.Write("three", "");
	s.Note("children", s->GetChildrenFileAttributes(s.Path(""), s.io, &children, nullptr));
	std::sort(children.begin(), children.end(),
		  [](auto &a, auto &b) { return a.name < b.name; });
	for (auto &child : children) {
		s.Note("name", child.name);
		s.Note("size", child.size_bytes);
	}
	s.Note("missing",
	       s->GetChildrenFileAttributes(s.Path("missing"), s.io, &children, nullptr));
}

void ManyChildrenAreListedOnce(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;
	rocksdb::IOStatus status;

	for (int i = 0; i < 1000 && status.ok(); i++)
		status = s->NewWritableFile(s.Path("child-" + std::to_string(i)), s.options, &file,
					    nullptr);
	s.Note("create", status);
	file.reset();
	s.NoteList("");
	for (int i = 0; i < 1000 && status.ok(); i += 2)
		status = s->DeleteFile(s.Path("child-" + std::to_string(i)), s.io, nullptr);
	s.Note("delete", status);
	s.NoteList("");
}

void RenamesReplace(Subject &s)
{
	s.Write("a", "a");
	s.Write("b", "b");
	s.Note("over a file", s->RenameFile(s.Path("a"), s.Path("b"), s.io, nullptr));
	s.Note("contents", s.Contents("b"));
	s.Note("itself", s->RenameFile(s.Path("b"), s.Path("b"), s.io, nullptr));
	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("mkdir", s->CreateDir(s.Path("e"), s.io, nullptr));
	s.Write("e/inner", "x");
	s.Note("file over directory", s->RenameFile(s.Path("b"), s.Path("d"), s.io, nullptr));
	s.Note("directory over file", s->RenameFile(s.Path("d"), s.Path("b"), s.io, nullptr));
	s.Note("over full directory", s->RenameFile(s.Path("d"), s.Path("e"), s.io, nullptr));
	s.Note("into itself", s->RenameFile(s.Path("e"), s.Path("e/below"), s.io, nullptr));
	s.Note("over empty directory", s->RenameFile(s.Path("e"), s.Path("d"), s.io, nullptr));
	s.Note("out", s->RenameFile(s.Path("d/inner"), s.Path("out"), s.io, nullptr));
	s.NoteList("");
	s.NoteList("d");
}

void LinksAreCounted(Subject &s)
{
	uint64_t links = 0;
	bool same = false;

	s.Write("a", "linked");
	s.Write("other", "x");
	s.Note("link", s->LinkFile(s.Path("a"), s.Path("b"), s.io, nullptr));
	s.Note("taken", s->LinkFile(s.Path("a"), s.Path("other"), s.io, nullptr));
	s.Note("count", s->NumFileLinks(s.Path("b"), s.io, &links, nullptr));
	s.Note("links", links);
	s.Note("same", s->AreFilesSame(s.Path("a"), s.Path("b"), s.io, &same, nullptr));
	s.Note("yes", same);
	s.Note("same", s->AreFilesSame(s.Path("a"), s.Path("other"), s.io, &same, nullptr));
	s.Note("no", same);
	s.Note("rename to a link", s->RenameFile(s.Path("a"), s.Path("b"), s.io, nullptr));
	s.NoteList("");
	s.Note("delete", s->DeleteFile(s.Path("a"), s.io, nullptr));
	s.Note("count", s->NumFileLinks(s.Path("b"), s.io, &links, nullptr));
	s.Note("links", links);
	s.Note("contents", s.Contents("b"));
	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("a directory", s->LinkFile(s.Path("d"), s.Path("e"), s.io, nullptr));
}

void TruncatesUpAndDown(Subject &s)
{
	uint64_t size = 0;

	s.Write("f", Pattern(10000, 1));
	for (size_t to : { 5000, 9000, 4096, 4097, 0, 100, 1 << 20 }) {
		s.Note("truncate", s.Truncate("f", to));
		s.Note("size", s->GetFileSize(s.Path("f"), s.io, &size, nullptr));
		s.Note("size", size);
		s.NoteContents("f");
	}
	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("a directory", s.Truncate("d", 0));
}

void LocksExclude(Subject &s)
{
	rocksdb::FileLock *lock = nullptr, *second = nullptr;

	s.Note("lock", s->LockFile(s.Path("LOCK"), s.io, &lock, nullptr));
	s.Note("exists", s->FileExists(s.Path("LOCK"), s.io, nullptr));
	s.Note("again", s->LockFile(s.Path("LOCK"), s.io, &second, nullptr));
	s.Note("none", second == nullptr);
	s.Note("other", s->LockFile(s.Path("LOCK2"), s.io, &second, nullptr));
	s.Note("unlock", s->UnlockFile(second, s.io, nullptr));
	s.Note("unlock", s->UnlockFile(lock, s.io, nullptr));
	s.Note("lock", s->LockFile(s.Path("LOCK"), s.io, &lock, nullptr));
	s.Note("unlock", s->UnlockFile(lock, s.io, nullptr));
}

void DirectoriesAreSynced(Subject &s)
{
	std::unique_ptr<rocksdb::FSDirectory> dir;

	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Note("open", s->NewDirectory(s.Path("d"), s.io, &dir, nullptr));
	s.Note("fsync", dir->Fsync(s.io, nullptr));
	s.Write("d/f", "x");
	for (auto reason :
	     { rocksdb::DirFsyncOptions::kNewFileSynced, rocksdb::DirFsyncOptions::kFileDeleted,
	       rocksdb::DirFsyncOptions::kDirRenamed, rocksdb::DirFsyncOptions::kDefault })
		s.Note("fsync",
		       dir->FsyncWithDirOptions(s.io, nullptr, rocksdb::DirFsyncOptions(reason)));
	s.Note("renamed",
	       dir->FsyncWithDirOptions(s.io, nullptr, rocksdb::DirFsyncOptions(s.Path("d/f"))));
	s.Note("rename", s->RenameFile(s.Path("d"), s.Path("e"), s.io, nullptr));
	s.Note("fsync", dir->Fsync(s.io, nullptr));
	s.Note("close", dir->Close(s.io, nullptr));
}

void KindsAndTimes(Subject &s)
{
	uint64_t mtime = 0;
	time_t now = time(nullptr);
	bool dir = false;

	s.Note("mkdir", s->CreateDir(s.Path("d"), s.io, nullptr));
	s.Write("f", "x");
	s.Note("is dir", s->IsDirectory(s.Path("d"), s.io, &dir, nullptr));
	s.Note("yes", dir);
	s.Note("is dir", s->IsDirectory(s.Path("f"), s.io, &dir, nullptr));
	s.Note("no", dir);
	s.Note("mtime", s->GetFileModificationTime(s.Path("f"), s.io, &mtime, nullptr));
	s.Note("now",
	       static_cast<time_t>(mtime) >= now - 1 && static_cast<time_t>(mtime) <= now + 2);
}

void PathsAreAbsolute(Subject &s)
{
	std::string path;
	uint64_t bytes = 0;

	s.Note("absolute", s->GetAbsolutePath("/some/where", s.io, &path, nullptr));
	s.Note("path", path);
	s.Note("relative", s->GetAbsolutePath("db", s.io, &path, nullptr));
	s.Note("begins with", path[0]);
	s.Note("test directory", s->GetTestDirectory(s.io, &path, nullptr));
	s.Note("path", path);
	s.Note("exists", s->FileExists(path, s.io, nullptr));
	s.Note("free", s->GetFreeSpace(s.Path(""), s.io, &bytes, nullptr));
	s.Note("some", bytes > 0);
	s.Note("missing", s->GetFreeSpace(s.Path("missing"), s.io, &bytes, nullptr));
}

} // namespace

const Case kNameCases[] = { { "missing_files_are_missing", MissingFilesAreMissing },
			    { "names_that_are_too_long", NamesThatAreTooLong },
			    { "directories_are_made_and_removed", DirectoriesAreMadeAndRemoved },
			    { "children_have_sizes", ChildrenHaveSizes },
			    { "many_children_are_listed_once", ManyChildrenAreListedOnce },
			    { "renames_replace", RenamesReplace },
			    { "links_are_counted", LinksAreCounted },
			    { "truncates_up_and_down", TruncatesUpAndDown },
			    { "locks_exclude", LocksExclude },
			    { "directories_are_synced", DirectoriesAreSynced },
			    { "kinds_and_times", KindsAndTimes },
			    { "paths_are_absolute", PathsAreAbsolute },
			    { nullptr, nullptr } };

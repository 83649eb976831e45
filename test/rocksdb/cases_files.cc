/* SPDX-License-Identifier: BSD-2-Clause */
/* Conformance: reading and writing through the page cache. */
#include <thread>

#include "test/rocksdb/subject.h"

using rocksdb::Slice;

namespace {

void AppendsAreReadBack(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;
	uint64_t size = 0;

	s.Note("create", s->NewWritableFile(s.Path("f"), s.options, &file, nullptr));
	for (size_t len : { 0, 1, 100, 4095, 4096, 4097, 70000, 3, 1 << 20, 12345 }) {
		s.Note("append",
		       file->Append(Pattern(len, static_cast<unsigned>(len)), s.io, nullptr));
		s.Note("size", file->GetFileSize(s.io, nullptr));
		s.Note("flush", file->Flush(s.io, nullptr));
		s.Note("by name", s->GetFileSize(s.Path("f"), s.io, &size, nullptr));
		s.Note("size", size);
	}
	s.Note("range", file->RangeSync(0, 65536, s.io, nullptr));
	s.Note("sync", file->Sync(s.io, nullptr));
	s.Note("fsync", file->Fsync(s.io, nullptr));
	s.Note("drop", file->InvalidateCache(0, 0));
	s.Note("thread safe", file->IsSyncThreadSafe());
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("f");
}

void RandomReadsKnowTheEnd(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> file;
	std::string scratch(100000, 0);
	Slice got;

	s.Write("f", Pattern(50001, 7));
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &file, nullptr));
	for (uint64_t offset : { 0, 1, 4095, 4096, 49000, 50000, 50001, 50002, 1 << 30 }) {
		for (size_t len : { 1, 4096, 60000 }) {
			s.Note("read", file->Read(offset, len, s.io, &got, &scratch[0], nullptr));
			s.Note("length", got.size());
			s.Note("sum", Sum(got.ToString()));
		}
	}
	s.Note("prefetch", file->Prefetch(100, 20000, s.io, nullptr));
	for (int hint = 0; hint < 5; hint++)
		file->Hint(static_cast<rocksdb::FSRandomAccessFile::AccessPattern>(hint));
	s.Note("drop", file->InvalidateCache(0, 8192));
	s.Note("read", file->Read(4000, 10000, s.io, &got, &scratch[0], nullptr));
	s.Note("sum", Sum(got.ToString()));
	s.Note("direct", file->use_direct_io());
}

void ManyReadsAtOnce(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> file;
	std::vector<rocksdb::FSReadRequest> reqs(200);
	std::vector<std::string> buffers;

	s.Write("f", Pattern(1 << 20, 9));
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("drop", file->InvalidateCache(0, 0));
	for (size_t i = 0; i < reqs.size(); i++) {
		reqs[i].len = 100 + i * 20;
		buffers.emplace_back(reqs[i].len, 0);
		reqs[i].offset = i * 5300;
		reqs[i].scratch = &buffers[i][0];
	}
	s.Note("multiread", file->MultiRead(reqs.data(), reqs.size(), s.io, nullptr));
	for (rocksdb::FSReadRequest &r : reqs) {
		s.Note("status", r.status);
		s.Note("sum", Sum(r.result.ToString()));
	}
}

void SequentialReadsAndSkips(Subject &s)
{
	std::unique_ptr<rocksdb::FSSequentialFile> file;
	std::string scratch(30000, 0);
	Slice got;

	s.Write("f", Pattern(40000, 3));
	s.Note("open", s->NewSequentialFile(s.Path("f"), s.options, &file, nullptr));
	for (size_t len : { 1, 4095, 0, 10000 }) {
		s.Note("read", file->Read(len, s.io, &got, &scratch[0], nullptr));
		s.Note("sum", Sum(got.ToString()));
		s.Note("skip", file->Skip(len / 2));
	}
	for (int i = 0; i < 3; i++) {
		s.Note("read", file->Read(30000, s.io, &got, &scratch[0], nullptr));
		s.Note("length", got.size());
	}
	s.Note("skip", file->Skip(1 << 20));
	s.Note("read", file->Read(1, s.io, &got, &scratch[0], nullptr));
	s.Note("length", got.size());
	s.Note("drop", file->InvalidateCache(0, 0));
}

void NewFilesAreEmptied(Subject &s)
{
	s.Write("f", Pattern(10000, 1));
	s.Write("f", "short");
	s.NoteContents("f");
}

void ReopenedFilesGoOn(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;

	s.Write("f", Pattern(5000, 1));
	s.Note("reopen", s->ReopenWritableFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("append", file->Append(Pattern(5000, 2), s.io, nullptr));
	s.Note("truncate", file->Truncate(7000, s.io, nullptr));
	s.Note("append", file->Append("after the truncation", s.io, nullptr));
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("f");
	s.Note("reopen", s->ReopenWritableFile(s.Path("fresh"), s.options, &file, nullptr));
	s.Note("append", file->Append("made by it", s.io, nullptr));
	file.reset();
	s.NoteContents("fresh");
}

void ReusedFilesAreWrittenOver(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;

	s.Write("old", Pattern(20000, 1));
	s.Note("reuse",
	       s->ReuseWritableFile(s.Path("new"), s.Path("old"), s.options, &file, nullptr));
	s.Note("size", file->GetFileSize(s.io, nullptr));
	s.Note("append", file->Append(Pattern(5001, 2), s.io, nullptr));
	s.Note("append", file->Append(Pattern(4097, 3), s.io, nullptr));
	s.Note("size", file->GetFileSize(s.io, nullptr));
	s.Note("sync", file->Sync(s.io, nullptr));
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("new");
	s.NoteList("");
	s.Note("no such",
	       s->ReuseWritableFile(s.Path("x"), s.Path("missing"), s.options, &file, nullptr));
	s.Note("nowhere",
	       s->ReuseWritableFile(s.Path("d/x"), s.Path("new"), s.options, &file, nullptr));
	s.NoteList("");
}

void RandomReadingAndWriting(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomRWFile> file;
	std::string scratch(20000, 0);
	Slice got;

	s.Note("missing", s->NewRandomRWFile(s.Path("f"), s.options, &file, nullptr));
	s.Write("f", Pattern(10000, 1));
	s.Note("open", s->NewRandomRWFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("write", file->Write(5000, Pattern(100, 2), s.io, nullptr));
	s.Note("write", file->Write(9990, Pattern(5000, 3), s.io, nullptr));
	s.Note("read", file->Read(4990, 5100, s.io, &got, &scratch[0], nullptr));
	s.Note("sum", Sum(got.ToString()));
	s.Note("past", file->Read(20000, 10, s.io, &got, &scratch[0], nullptr));
	s.Note("length", got.size());
	s.Note("flush", file->Flush(s.io, nullptr));
	s.Note("sync", file->Sync(s.io, nullptr));
	s.Note("fsync", file->Fsync(s.io, nullptr));
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("f");
}

void ReservedSpaceKeepsTheSize(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;
	uint64_t size = 0, before = 0, after = 0;
	size_t block = 0, last = 0;

	s.Write("warm", "up");
	s->GetFreeSpace(s.Path(""), s.io, &before, nullptr);
	s.Note("create", s->NewWritableFile(s.Path("f"), s.options, &file, nullptr));
	file->SetPreallocationBlockSize(8 << 20);
	for (int i = 0; i < 3; i++) {
		file->PrepareWrite(static_cast<size_t>(i) * 3000, 3000, s.io, nullptr);
		s.Note("append", file->Append(Pattern(3000, 4), s.io, nullptr));
	}
	file->GetPreallocationStatus(&block, &last);
	s.Note("block", block);
	s.Note("last", last);
	s.Note("size", s->GetFileSize(s.Path("f"), s.io, &size, nullptr));
	s.Note("size", size);
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("f");
	s->GetFreeSpace(s.Path(""), s.io, &after, nullptr);
	/* Others write to the kernel's file system meanwhile; what this is about is ours. */
	s.Note("given back", !s.IsBlob() || before - after < 1 << 20);
}

void UnlinkedFilesAreReadOn(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> file;
	std::string scratch(10000, 0);
	Slice got;

	s.Write("f", Pattern(10000, 5));
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("delete", s->DeleteFile(s.Path("f"), s.io, nullptr));
	s.Note("exists", s->FileExists(s.Path("f"), s.io, nullptr));
	s.Write("f", Pattern(10000, 6));
	s.Note("read", file->Read(0, 10000, s.io, &got, &scratch[0], nullptr));
	s.Note("sum", Sum(got.ToString()));
	s.NoteContents("f");
}

void RenamedFilesAreWrittenOn(Subject &s)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;

	s.Note("create", s->NewWritableFile(s.Path("a"), s.options, &file, nullptr));
	s.Note("append", file->Append("one ", s.io, nullptr));
	s.Note("rename", s->RenameFile(s.Path("a"), s.Path("b"), s.io, nullptr));
	s.Note("append", file->Append("two", s.io, nullptr));
	s.Note("close", file->Close(s.io, nullptr));
	s.Note("contents", s.Contents("b"));
	s.NoteList("");
}

void UniqueIdsAreUnique(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> a, b, again;
	std::unique_ptr<rocksdb::FSWritableFile> writable;
	char ids[3][64];
	size_t len[3];

	s.Write("a", "a");
	s.Write("b", "b");
	s.Note("open", s->NewRandomAccessFile(s.Path("a"), s.options, &a, nullptr));
	s.Note("open", s->NewRandomAccessFile(s.Path("b"), s.options, &b, nullptr));
	s.Note("open", s->NewRandomAccessFile(s.Path("a"), s.options, &again, nullptr));
	len[0] = a->GetUniqueId(ids[0], sizeof(ids[0]));
	len[1] = b->GetUniqueId(ids[1], sizeof(ids[1]));
	len[2] = again->GetUniqueId(ids[2], sizeof(ids[2]));
	s.Note("has one", len[0] > 0);
	s.Note("same", std::string(ids[0], len[0]) == std::string(ids[2], len[2]));
	s.Note("different", std::string(ids[0], len[0]) != std::string(ids[1], len[1]));
	s.Note("no room", a->GetUniqueId(ids[0], 3));
}

void ReadersBesideAWriter(Subject &s)
{
	constexpr size_t kPiece = 1000, kPieces = 3000;
	std::unique_ptr<rocksdb::FSWritableFile> file;
	std::vector<std::thread> readers;
	std::atomic<int> wrong{ 0 };
	std::atomic<size_t> written{ 0 };

	s.Note("create", s->NewWritableFile(s.Path("f"), s.options, &file, nullptr));
	for (unsigned r = 0; r < 4; r++) {
		readers.emplace_back([&, r] {
			std::unique_ptr<rocksdb::FSRandomAccessFile> in;
			std::string scratch(kPiece, 0);
			Slice got;

			if (!s->NewRandomAccessFile(s.Path("f"), s.options, &in, nullptr).ok())
				wrong++;
			for (size_t i = 0; in && i < 3000; i++) {
				size_t there = written.load(), piece = (i * 7919 + r) % (there + 1);

				if (piece == there)
					continue;
				if (!in->Read(piece * kPiece, kPiece, s.io, &got, &scratch[0],
					      nullptr)
					     .ok() ||
				    got.ToString() != Pattern(kPiece, static_cast<unsigned>(piece)))
					wrong++;
			}
		});
	}
	for (size_t i = 0; i < kPieces; i++) {
		if (!file->Append(Pattern(kPiece, static_cast<unsigned>(i)), s.io, nullptr).ok())
			wrong++;
		written++;
	}
	for (std::thread &t : readers)
		t.join();
	s.Note("wrong", wrong.load());
	s.Note("close", file->Close(s.io, nullptr));
	s.NoteContents("f");
}

void LoggersWriteLines(Subject &s)
{
	std::shared_ptr<rocksdb::Logger> logger;
	uint64_t size = 0;

	s.Note("logger", s->NewLogger(s.Path("LOG"), s.io, &logger, nullptr));
	rocksdb::Log(rocksdb::InfoLogLevel::ERROR_LEVEL, logger, "a line");
	s.Note("close", logger->Close().ok());
	s.Note("size", s->GetFileSize(s.Path("LOG"), s.io, &size, nullptr));
	s.Note("written", size > 0);
}

} // namespace

const Case kFileCases[] = { { "appends_are_read_back", AppendsAreReadBack },
			    { "random_reads_know_the_end", RandomReadsKnowTheEnd },
			    { "many_reads_at_once", ManyReadsAtOnce },
			    { "sequential_reads_and_skips", SequentialReadsAndSkips },
			    { "new_files_are_emptied", NewFilesAreEmptied },
			    { "reopened_files_go_on", ReopenedFilesGoOn },
			    { "reused_files_are_written_over", ReusedFilesAreWrittenOver },
			    { "random_reading_and_writing", RandomReadingAndWriting },
			    { "reserved_space_keeps_the_size", ReservedSpaceKeepsTheSize },
			    { "unlinked_files_are_read_on", UnlinkedFilesAreReadOn },
			    { "renamed_files_are_written_on", RenamedFilesAreWrittenOn },
			    { "unique_ids_are_unique", UniqueIdsAreUnique },
			    { "readers_beside_a_writer", ReadersBesideAWriter },
			    { "loggers_write_lines", LoggersWriteLines },
			    { nullptr, nullptr } };

/* SPDX-License-Identifier: BSD-2-Clause */
/* Conformance: direct I/O, as RocksDB uses it for tables. */
#include <cstdlib>
#include <cstring>

#include "test/rocksdb/subject.h"

using rocksdb::Slice;

namespace {

struct Free {
	void operator()(char *p) const { free(p); }
};
using Aligned = std::unique_ptr<char, Free>;

Aligned AlignedBuffer(size_t len)
{
	return Aligned(static_cast<char *>(aligned_alloc(4096, len)));
}

void SetDirect(Subject &s)
{
	s.options.use_mmap_writes = false;
	s.options.use_direct_reads = s.options.use_direct_writes = true;
}

/* Whole blocks, the last padded and written again, then cut to size: how RocksDB writes a table. */
void WriteDirect(Subject &s, const std::string &name, const std::string &data)
{
	std::unique_ptr<rocksdb::FSWritableFile> file;
	size_t padded = (data.size() + 4095) & ~size_t(4095);
	Aligned buffer = AlignedBuffer(padded);

	memset(buffer.get(), 0, padded);
	memcpy(buffer.get(), data.data(), data.size());
	s.Note("create", s->NewWritableFile(s.Path(name), s.options, &file, nullptr));
	s.Note("direct", file->use_direct_io());
	s.Note("aligned", file->GetRequiredBufferAlignment() >= 512 &&
				  file->GetRequiredBufferAlignment() <= 4096);
	for (size_t at = 0; at < padded; at += 65536) {
		size_t len = std::min<size_t>(65536, padded - at);

		s.Note("write",
		       file->PositionedAppend(Slice(buffer.get() + at, len), at, s.io, nullptr));
	}
	s.Note("last again", file->PositionedAppend(Slice(buffer.get() + padded - 4096, 4096),
						    padded - 4096, s.io, nullptr));
	s.Note("truncate", file->Truncate(data.size(), s.io, nullptr));
	s.Note("fsync", file->Fsync(s.io, nullptr));
	s.Note("size", file->GetFileSize(s.io, nullptr));
	s.Note("close", file->Close(s.io, nullptr));
}

void DirectWritesAreReadBuffered(Subject &s)
{
	SetDirect(s);
	WriteDirect(s, "f", Pattern(300001, 1));
	s.options.use_direct_reads = false;
	s.NoteContents("f");
}

void BufferedWritesAreReadDirect(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> file;
	Aligned buffer = AlignedBuffer(65536);
	Slice got;

	s.Write("f", Pattern(100001, 2));
	SetDirect(s);
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("direct", file->use_direct_io());
	for (uint64_t at : { 0, 4096, 98304, 102400, 1 << 20 }) {
		s.Note("read", file->Read(at, 65536, s.io, &got, buffer.get(), nullptr));
		s.Note("length", got.size());
		s.Note("sum", Sum(got.ToString()));
	}
	s.Note("prefetch", file->Prefetch(0, 8192, s.io, nullptr));
	s.Note("drop", file->InvalidateCache(0, 0));
}

void ManyDirectReadsAtOnce(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> file;
	std::vector<rocksdb::FSReadRequest> reqs(100);
	std::vector<Aligned> buffers;

	SetDirect(s);
	WriteDirect(s, "f", Pattern(1 << 20, 3));
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &file, nullptr));
	for (size_t i = 0; i < reqs.size(); i++) {
		buffers.push_back(AlignedBuffer(8192));
		reqs[i].offset = (i * 37 % 250) * 4096;
		reqs[i].len = 4096 + 4096 * (i % 2);
		reqs[i].scratch = buffers[i].get();
	}
	s.Note("multiread", file->MultiRead(reqs.data(), reqs.size(), s.io, nullptr));
	for (rocksdb::FSReadRequest &r : reqs) {
		s.Note("status", r.status);
		s.Note("sum", Sum(r.result.ToString()));
	}
}

void DirectSequentialReads(Subject &s)
{
	std::unique_ptr<rocksdb::FSSequentialFile> file;
	Aligned buffer = AlignedBuffer(8192);
	Slice got;

	s.Write("f", Pattern(20000, 4));
	SetDirect(s);
	s.Note("open", s->NewSequentialFile(s.Path("f"), s.options, &file, nullptr));
	s.Note("direct", file->use_direct_io());
	for (uint64_t at : { 0, 8192, 16384, 24576 }) {
		s.Note("read", file->PositionedRead(at, 8192, s.io, &got, buffer.get(), nullptr));
		s.Note("sum", Sum(got.ToString()));
	}
}

void DirectAndBufferedSeeTheSame(Subject &s)
{
	std::unique_ptr<rocksdb::FSRandomAccessFile> direct, buffered;
	std::unique_ptr<rocksdb::FSRandomRWFile> writer;
	Aligned buffer = AlignedBuffer(4096);
	std::string scratch(4096, 0);
	Slice got;

	s.Write("f", Pattern(40960, 5));
	s.Note("open", s->NewRandomRWFile(s.Path("f"), s.options, &writer, nullptr));
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &buffered, nullptr));
	SetDirect(s);
	s.Note("open", s->NewRandomAccessFile(s.Path("f"), s.options, &direct, nullptr));
	for (unsigned i = 0; i < 10; i++) {
		s.Note("write", writer->Write(i * 4096 + 17, Pattern(99, i), s.io, nullptr));
		s.Note("direct", direct->Read(i * 4096, 4096, s.io, &got, buffer.get(), nullptr));
		s.Note("sum", Sum(got.ToString()));
		s.Note("buffered",
		       buffered->Read(i * 4096, 4096, s.io, &got, &scratch[0], nullptr));
		s.Note("sum", Sum(got.ToString()));
	}
}

} // namespace

const Case kDirectCases[] = { { "direct_writes_are_read_buffered", DirectWritesAreReadBuffered },
			      { "buffered_writes_are_read_direct", BufferedWritesAreReadDirect },
			      { "many_direct_reads_at_once", ManyDirectReadsAtOnce },
			      { "direct_sequential_reads", DirectSequentialReads },
			      { "direct_and_buffered_see_the_same", DirectAndBufferedSeeTheSame },
			      { nullptr, nullptr } };

/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 3: what RocksDB does with its log, tables, manifest and names, and what it finds of them after a cut. */
#include "test/powercut/rocksdb_load.h"

#include <cinttypes>
#include <cstring>
#include <memory>

#include "blobfs/blobfs.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/write_batch.h"
#include "rocksdb_env/blobfs_env.h"
#include "test/powercut/rocksdb_model.h"

namespace {

using rocksdb::Status;

/* A database on a file system that is mounted by others. */
class Database {
public:
	Database(struct bfs *fs, bool direct, uint64_t sync_bytes) : fs_(fs), direct_(direct), sync_bytes_(sync_bytes) {}
	~Database() { Close(); }
	Database(const Database &) = delete;
	Database &operator=(const Database &) = delete;

	Status Open(bool create);
	void Close();
	rocksdb::DB *operator->() const { return db_.get(); }
	rocksdb::ColumnFamilyHandle *family(bool second) const { return handles_[second]; }
	Status Write(uint64_t number, const std::vector<Change> &changes, bool sync);
	/* Both column families, as the model names them. */
	Status ReadAll(std::map<std::string, std::string> *all) const;

private:
	rocksdb::Options Options(bool create) const;

	struct bfs *const fs_;
	const bool direct_;
	const uint64_t sync_bytes_;
	std::unique_ptr<rocksdb::Env> env_;
	std::unique_ptr<rocksdb::DB> db_;
	std::vector<rocksdb::ColumnFamilyHandle *> handles_;
};

/* Everything that RocksDB itself can check is checked. Small, so that a short run sees flushes and compactions. */
rocksdb::Options Database::Options(bool create) const
{
	rocksdb::Options o;

	o.env = env_.get();
	o.create_if_missing = o.create_missing_column_families = create;
	o.paranoid_checks = o.paranoid_file_checks = o.force_consistency_checks = true;
	o.track_and_verify_wals_in_manifest = true;
	o.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
	o.compression = rocksdb::kNoCompression;
	o.write_buffer_size = 64 << 10;
	o.level0_file_num_compaction_trigger = 3;
	o.target_file_size_base = 64 << 10;
	o.max_bytes_for_level_base = 256 << 10;
	o.use_direct_io_for_flush_and_compaction = direct_;
	o.bytes_per_sync = o.wal_bytes_per_sync = sync_bytes_;
	o.stats_dump_period_sec = o.stats_persist_period_sec = 0;
	o.info_log_level = rocksdb::FATAL_LEVEL;
	return o;
}

Status Database::Open(bool create)
{
	std::shared_ptr<rocksdb::FileSystem> files;
	rocksdb::DB *db = nullptr;
	Status s = blobfs::NewBlobFileSystem(fs_, &files);

	if (!s.ok())
		return s;
	env_ = rocksdb::NewCompositeEnv(files);
	rocksdb::Options o = Options(create);

	s = rocksdb::DB::Open(o, "/db",
			      { { rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions(o) },
				{ "second", rocksdb::ColumnFamilyOptions(o) } },
			      &handles_, &db);
	db_.reset(db);
	return s;
}

void Database::Close()
{
	for (rocksdb::ColumnFamilyHandle *h : handles_)
		db_->DestroyColumnFamilyHandle(h).PermitUncheckedError();
	handles_.clear();
	db_.reset();
	env_.reset();
}

Status Database::Write(uint64_t number, const std::vector<Change> &changes, bool sync)
{
	rocksdb::WriteOptions how;
	rocksdb::WriteBatch batch;
	Status s = batch.Put(family(false), DatabaseModel::kNumber, std::to_string(number));

	for (const Change &c : changes) {
		std::string name = (c.second ? DatabaseModel::kSecond : "") + c.key;

		if (s.ok() && c.length)
			s = batch.Put(family(c.second), c.key, DatabaseModel::Value(name, number, c.length));
		else if (s.ok())
			s = batch.Delete(family(c.second), c.key);
	}
	how.sync = sync;
	return s.ok() ? db_->Write(how, &batch) : s;
}

Status Database::ReadAll(std::map<std::string, std::string> *all) const
{
	rocksdb::ReadOptions how;

	for (bool second : { false, true }) {
		std::unique_ptr<rocksdb::Iterator> i(db_->NewIterator(how, family(second)));

		for (i->SeekToFirst(); i->Valid(); i->Next())
			(*all)[(second ? DatabaseModel::kSecond : "") + i->key().ToString()] = i->value().ToString();
		if (!i->status().ok())
			return i->status();
	}
	return Status::OK();
}

struct Load {
	explicit Load(struct run *r) : run(r) {}
	struct run *const run;
	struct bfs *fs = nullptr;
	std::unique_ptr<Database> db;
	DatabaseModel model;
	bool direct = false;
	uint64_t sync_bytes = 0;
};

uint64_t Mark(const Load *l)
{
	return bdev_powercut_mark(l->run->dev);
}

void Must(const Load *l, const char *what, const Status &s)
{
	if (!s.ok())
		broken(l->run, "%s: %s", what, s.ToString().c_str());
}

int MountDevice(struct bdev *dev, bool service, struct bfs **fs, struct base_err *err)
{
	struct bfs_mount_opts opts = {};

	opts.size = sizeof(opts);
	opts.flags = service ? 0 : BFS_NO_SERVICE;
	opts.cache_size = 2 * MiB;
	opts.dirty_limit = 256 * KiB;
	opts.writeback_ms = opts.commit_ms = 20;
	return bfs_mount_bdev(dev, &opts, fs, err);
}

void *LoadBegin(struct run *run)
{
	struct bfs_format_opts opts = {};
	struct base_err err = {};
	Load *l = new Load(run);
	int rc;

	opts.size = sizeof(opts);
	opts.cluster_size = 4096u << rng_below(&run->rng, 4);
	l->direct = rng_chance(&run->rng, 40);
	l->sync_bytes = rng_chance(&run->rng, 40) ? 16 << 10 : 0;
	rc = bfs_format(run->dev, &opts, &err);
	bdev_ref(run->dev);
	if (!rc)
		rc = MountDevice(run->dev, true, &l->fs, &err);
	if (rc)
		broken(run, "%s", base_err_text(&err, rc));
	l->db = std::make_unique<Database>(l->fs, l->direct, l->sync_bytes);
	Must(l, "creating the database", l->db->Open(true));
	if (bfs_sync(l->fs))
		broken(run, "sync");
	return l;
}

/* ---- what is done ---- */

void WriteBatch(Load *l)
{
	struct rng *r = &l->run->rng;
	bool sync = rng_chance(r, 50);
	std::vector<Change> changes;
	uint64_t number;

	for (uint64_t n = 1 + rng_below(r, rng_chance(r, 80) ? 3 : 20); n; n--) {
		Change c = { rng_chance(r, 30), "k" + std::to_string(rng_below(r, 60)) };

		c.length = rng_chance(r, 20) ? 0 : 1 + rng_below(r, rng_chance(r, 80) ? 400 : 12000);
		changes.push_back(c);
	}
	number = l->model.Begin(changes, Mark(l));
	trace(l->run, "batch %" PRIu64 " of %zu changes%s", number, changes.size(), sync ? ", synced" : "");
	Must(l, "write", l->db->Write(number, changes, sync));
	if (sync)
		l->model.Durable(number, Mark(l));
	l->run->coverage.commits += sync;
}

void SyncLog(Load *l)
{
	trace(l->run, "sync of the log");
	Must(l, "sync of the log", (*l->db)->SyncWAL());
	l->model.Durable(l->model.last(), Mark(l));
}

/* A flush of one column family alone leaves the other's changes to the log. */
void Flush(Load *l)
{
	bool second = rng_chance(&l->run->rng, 40);

	trace(l->run, "flush of %s", second ? "the second" : "the first");
	Must(l, "flush", (*l->db)->Flush(rocksdb::FlushOptions(), l->db->family(second)));
	l->run->coverage.published++;
}

void Compact(Load *l)
{
	bool second = rng_chance(&l->run->rng, 40);

	trace(l->run, "compaction of %s", second ? "the second" : "the first");
	Must(l, "compaction",
	     (*l->db)->CompactRange(rocksdb::CompactRangeOptions(), l->db->family(second), nullptr, nullptr));
	l->run->coverage.checkpoints++;
}

void Reopen(Load *l)
{
	trace(l->run, "close and open");
	l->db->Close();
	Must(l, "open", l->db->Open(false));
	l->run->coverage.reopened++;
}

void LoadStep(void *w)
{
	static const struct {
		unsigned weight;
		void (*fn)(Load *l);
	} ops[] = { { 84, WriteBatch }, { 4, SyncLog }, { 7, Flush }, { 2, Compact }, { 3, Reopen } };
	Load *l = static_cast<Load *>(w);
	uint64_t dice = rng_below(&l->run->rng, 100);

	for (const auto &op : ops) {
		if (dice < op.weight) {
			op.fn(l);
			return;
		}
		dice -= op.weight;
	}
}

void LoadEnd(void *w)
{
	Load *l = static_cast<Load *>(w);
	struct bs_stat st;

	l->db.reset();
	bs_get_stat(bfs_store(l->fs), &st);
	l->run->coverage.segments += st.log_segments;
	l->run->coverage.carried += st.carries;
	bfs_abandon(l->fs);
	l->fs = nullptr;
}

void LoadFree(void *w)
{
	delete static_cast<Load *>(w);
}

/* ---- verifying ---- */

bool Compare(struct run *run, const std::map<std::string, std::string> &is, const std::map<std::string, std::string> &want)
{
	for (const auto &w : want) {
		auto found = is.find(w.first);

		if (found == is.end())
			return finding(run, "key %s is lost", w.first.c_str());
		if (found->second != w.second)
			return finding(run, "key %s holds \"%.40s…\" (%zu bytes), and must hold \"%.40s…\" (%zu bytes)", w.first.c_str(),
				       found->second.c_str(), found->second.size(), w.second.c_str(), w.second.size());
	}
	for (const auto &i : is)
		if (!want.count(i.first))
			return finding(run, "key %s must not be there", i.first.c_str());
	return true;
}

/* RocksDB opens it, and finds its tables whole and the batches in order; then it takes another. */
bool VerifyDatabase(const Load *l, struct run *run, struct bfs *fs, uint64_t event)
{
	Database db(fs, l->direct, l->sync_bytes);
	std::map<std::string, std::string> all;
	Status s = db.Open(false);
	uint64_t number = 0;

	if (s.ok())
		s = db->VerifyChecksum();
	if (s.ok())
		s = db.ReadAll(&all);
	if (!s.ok())
		return finding(run, "RocksDB: %s", s.ToString().c_str());
	if (all.count(DatabaseModel::kNumber))
		number = std::stoull(all[DatabaseModel::kNumber]);
	if (number < l->model.Least(event) || number > l->model.Most(event))
		return finding(run, "the database came back to batch %" PRIu64 ", and must to %" PRIu64 " to %" PRIu64, number,
			       l->model.Least(event), l->model.Most(event));
	if (!Compare(run, all, l->model.After(number)))
		return false;
	run->coverage.replayed++;
	s = db.Write(UINT64_MAX, { { false, "after", 5000 } }, true);
	return s.ok() || finding(run, "writing after recovery: %s", s.ToString().c_str());
}

bool LoadVerify(void *w, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg)
{
	const Load *l = static_cast<Load *>(w);
	struct base_err err = {};
	struct bdev *dev;
	struct bfs *fs;
	bool ok;
	int rc;

	if (!files_are_clean(run, open_state(arg)))
		return false;
	dev = open_state(arg);
	rc = MountDevice(dev, false, &fs, &err);
	if (rc) {
		bdev_close(dev);
		return finding(run, "mount: %s", base_err_text(&err, rc));
	}
	ok = VerifyDatabase(l, run, fs, event);
	rc = bfs_unmount(fs);
	return ok && (!rc || finding(run, "unmount: %s", strerror(-rc)));
}

} // namespace

const struct workload rocksdb_workload = { "rocksdb", LoadBegin, LoadStep, LoadEnd, LoadVerify, LoadFree };

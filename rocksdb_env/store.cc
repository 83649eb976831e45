/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mounted file systems of this process.
 *
 * RocksDB keeps some of its objects until the process ends and never destroys others, so that a
 * store cannot rely on being closed: at the end what is left is taken off FUSE and synced, not
 * unmounted, because threads may still be inside. A fork's child inherits the memory but not the
 * devices: there nothing is done at all.
 */
#define LOG_COMPONENT "rocksdb"
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "base/log.h"
#include "base/util.h"
#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

/* Never destroyed: used until the last moment of the process. */
struct Registry {
	std::mutex lock; /* held while mounting and unmounting: a device is not opened again before
			    it is closed */
	std::map<std::string, std::weak_ptr<Store>> by_device;
	std::set<Store *> live;
};

Registry *registry;

/* A child owns none of its parent's stores, and the lock may have been held when it was made. */
void AfterForkInChild()
{
	registry = new Registry;
}

__attribute__((constructor)) void MakeRegistry()
{
	registry = new Registry;
	pthread_atfork(nullptr, nullptr, AfterForkInChild);
}

/* RocksDB is used to a page cache of all the memory there is; an eighth of it, at most 1 GiB, is
 * taken as it fills. */
uint64_t DefaultCache()
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t share = pages > 0 && page > 0
				 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) / 8
				 : 0;

	return std::min<uint64_t>(std::max<uint64_t>(share, 128 * MiB), GiB);
}

bool Differs(const char *name, uint64_t now, uint64_t wanted, const Uri &uri, std::string *why)
{
	if (!wanted || now == wanted)
		return false;
	*why = "blobfs: " + uri.device + ": is open in this process with another value of '" +
	       name + "'";
	return true;
}

} // namespace

std::shared_ptr<Store> Store::Open(const Uri &uri, std::string *why)
{
	std::shared_ptr<Store> store; /* let go after the lock, which its destructor takes */
	std::lock_guard<std::mutex> guard(registry->lock);
	auto found = registry->by_device.find(uri.device);

	if (found != registry->by_device.end())
		store = found->second.lock();
	if (store)
		return store->Agrees(uri, why) ? store : nullptr;
	std::unique_ptr<Store> fresh(new Store);

	if (!fresh->Init(uri, why)) {
		fresh->Shutdown();
		return nullptr;
	}
	store.reset(fresh.release());
	registry->live.insert(store.get());
	registry->by_device[uri.device] = store;
	return store;
}

bool Store::Init(const Uri &uri, std::string *why)
{
	struct bfs_mount_opts opts = {};
	struct base_err err = {};
	int rc;

	uri_ = uri;
	opts.size = sizeof(opts);
	opts.cache_size = uri.cache ? uri.cache : DefaultCache();
	opts.dirty_limit = uri.dirty;
	opts.flags = (uri.readonly ? BFS_RDONLY : 0) | (uri.discard ? BFS_DISCARD : 0) |
		     (uri.noatime ? BFS_NOATIME : 0);
	rc = bfs_mount(uri.device.c_str(), &opts, &fs_, &err);
	if (rc) {
		fs_ = nullptr;
		*why = std::string("blobfs: ") + base_err_text(&err, rc);
		return false;
	}
	Identify();
	/* Two copies of one image have one uuid: the device tells them apart. */
	id_ ^= std::hash<std::string>()(uri.device);
	if (!uri.mount.empty()) {
		mount_ = Mount::Start(fs_, uri, why);
		if (!mount_)
			return false;
	}
	log_info("%s opened%s%s", uri.device.c_str(), mount_ ? ", served at " : "",
		 uri.mount.c_str());
	return true;
}

void Store::Identify()
{
	struct bfs_statfs stat = {};

	pid_ = getpid();
	bfs_get_statfs(fs_, &stat);
	memcpy(&id_, stat.uuid, sizeof(id_));
}

std::shared_ptr<Store> Store::Lend(struct bfs *fs)
{
	std::shared_ptr<Store> store(new Store);

	store->fs_ = fs;
	store->lent_ = true;
	store->Identify();
	store->id_ ^= reinterpret_cast<uintptr_t>(fs); /* copies of one image, as above */
	return store;
}

/* Another URI for a device that is open: it may ask for less, or for a mount where there is none.
 */
bool Store::Agrees(const Uri &uri, std::string *why)
{
	if (uri.readonly != uri_.readonly) {
		*why = "blobfs: " + uri.device + ": is open in this process " +
		       (uri_.readonly ? "read-only" : "for writing");
		return false;
	}
	if (Differs("cache", uri_.cache, uri.cache, uri, why) ||
	    Differs("dirty", uri_.dirty, uri.dirty, uri, why) ||
	    Differs("discard", uri_.discard, uri.discard, uri, why) ||
	    Differs("noatime", uri_.noatime, uri.noatime, uri, why))
		return false;
	if (uri.mount.empty() || (mount_ && mount_->dir() == uri.mount))
		return true;
	if (mount_) {
		*why = "blobfs: " + uri.device + ": is served at " + mount_->dir() + " already";
		return false;
	}
	mount_ = Mount::Start(fs_, uri, why);
	return mount_ != nullptr;
}

void Store::Shutdown()
{
	if (!fs_)
		return;
	mount_.reset();
	int rc = bfs_unmount(fs_);

	fs_ = nullptr;
	if (rc)
		log_err("%s: closing: %s", uri_.device.c_str(), base_err_text(nullptr, rc));
	else
		log_info("%s closed", uri_.device.c_str());
}

Store::~Store()
{
	if (!fs_ || lent_)
		return;
	if (pid_ != getpid()) {
		mount_.release(); /* the parent's */
		return;
	}
	std::lock_guard<std::mutex> guard(registry->lock);

	registry->live.erase(this);
	Shutdown();
}

void Store::SyncAll()
{
	std::lock_guard<std::mutex> guard(registry->lock);

	for (Store *store : registry->live) {
		store->mount_.reset();
		int rc = store->uri_.readonly ? 0 : bfs_sync(store->fs_);

		if (rc)
			log_err("%s: syncing at exit: %s", store->uri_.device.c_str(),
				base_err_text(nullptr, rc));
		else
			log_info("%s synced at exit", store->uri_.device.c_str());
	}
}

namespace {

/* After the destructors of the program's own static objects, before those of the libraries below.
 */
__attribute__((destructor)) void AtExit()
{
	Store::SyncAll();
}

} // namespace

} // namespace blobfs

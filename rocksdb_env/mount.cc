/* SPDX-License-Identifier: BSD-2-Clause */
/* The option mount=DIR: the file system RocksDB uses, seen live by the kernel through FUSE. */
#define LOG_COMPONENT "rocksdb"
#include "base/log.h"
#include "fuse/fuse.h"
#include "rocksdb_env/internal.h"

namespace blobfs {

std::unique_ptr<Mount> Mount::Start(struct bfs *fs, const Uri &uri, std::string *why)
{
	std::unique_ptr<Mount> mount(new Mount(uri.mount));
	struct bfs_fuse_opts opts = {};
	struct base_err err = {};
	int rc;

	opts.size = sizeof(opts);
	opts.mode = BFS_FUSE_BESIDE;
	opts.readonly = uri.readonly;
	opts.fsname = uri.device.c_str();
	rc = bfs_fuse_start(fs, uri.mount.c_str(), &opts, &mount->fuse_, &err);
	if (rc) {
		mount->fuse_ = nullptr;
		*why = "blobfs: mount " + uri.mount + ": " + base_err_text(&err, rc);
		return nullptr;
	}
	return mount;
}

Mount::~Mount()
{
	int rc = fuse_ ? bfs_fuse_stop(fuse_) : 0;

	if (rc == -EBUSY)
		log_warn("%s: was in use and is detached", dir_.c_str());
	else if (rc)
		log_err("%s: unmounting: %s", dir_.c_str(), base_err_text(nullptr, rc));
}

} // namespace blobfs

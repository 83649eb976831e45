/* SPDX-License-Identifier: BSD-2-Clause */
/* Errors as RocksDB knows them from a local file system: its error handler decides by these codes
 * what it can recover from. */
#include <cerrno>
#include <cstring>

#include "rocksdb_env/internal.h"

namespace blobfs {

IOStatus Failure(const std::string &context, const std::string &path, int rc)
{
	std::string what = path.empty() ? context : context + ": " + path;
	char buf[128];
	const char *reason = strerror_r(-rc, buf, sizeof(buf));

	if (rc == -ENOSPC || rc == -EDQUOT) {
		IOStatus s = IOStatus::NoSpace(what, reason);

		s.SetRetryable(true); /* space may be freed, and the write be tried again */
		return s;
	}
	if (rc == -ENOENT)
		return IOStatus::PathNotFound(what, reason);
	return IOStatus::IOError(what, reason);
}

IOStatus ToStatus(const char *context, const std::string &path, int64_t rc)
{
	return rc >= 0 ? IOStatus::OK() : Failure(context, path, static_cast<int>(rc));
}

IOStatus WriteStatus(const std::string &path, int64_t done, size_t want)
{
	if (done >= 0 && static_cast<size_t>(done) == want)
		return IOStatus::OK();
	/* A write is short only when the space ran out on the way. */
	return Failure("writing", path, done < 0 ? static_cast<int>(done) : -ENOSPC);
}

} // namespace blobfs

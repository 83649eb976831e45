/* SPDX-License-Identifier: BSD-2-Clause */
/* rocksdb VERB ARGUMENT…: checks that the stock tools cannot make. The plugin comes by LD_PRELOAD.
 */
#include <cstdio>
#include <cstring>

#include "test/rocksdb/verbs.h"

namespace {

const struct {
	const char *name;
	int (*run)(const Arguments &args);
	size_t least;
	const char *usage;
} kVerbs[] = {
	{ "conformance", Conformance, 2,
	  "URI SCRATCH-DIR: every call, compared with the kernel's file system" },
	{ "acknowledge", Acknowledge, 2,
	  "URI DB: synced writes until killed, each number printed when acknowledged" },
	{ "verify", Verify, 3,
	  "URI DB COUNT: the first COUNT keys are there, and nothing that is not right" },
	{ "fill", FillUp, 2,
	  "URI DB [unlogged]: until the device is full; delete /ballast; go on" },
	{ "full-files", FullFiles, 1,
	  "URI: appends until the device is full, and after space was freed" },
	{ "ingest", Ingest, 2, "URI DB: tables made outside, linked and copied in" },
	{ "twice", OpenTwice, 2, "URI DB: a second opening is refused" },
	{ "leak", Leak, 3, "URI DB COUNT: unsynced writes, then exit() with everything open" },
	{ "fork", Fork, 2, "URI DB: a child that uses the store and exits does no harm" },
	{ "recycle", Recycle, 2, "URI DB: logs are written over" },
	{ "live", Live, 2, "URI MOUNT-POINT: what the library does is seen there at once" },
	{ "uris", Uris, 1, "URI…: whether each opens, and what is said if not" },
};

} // namespace

int main(int argc, char **argv)
{
	for (auto &verb : kVerbs)
		if (argc > 1 && !strcmp(argv[1], verb.name) &&
		    argc >= 2 + static_cast<int>(verb.least))
			return verb.run(Arguments(argv + 2, argv + argc));
	for (auto &verb : kVerbs)
		fprintf(stderr, "%s %s\n", verb.name, verb.usage);
	return 2;
}

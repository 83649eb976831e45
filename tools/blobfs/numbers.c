/* SPDX-License-Identifier: BSD-2-Clause */
/* The numbers of a whole file system: info, and stat --fs, which tells of what it did since it was opened or mounted. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "blobfs/control.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

static const char *const streams[BS_STREAMS] = { "unknown", "meta", "short", "long" };

static void add_u64(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_text(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

/* One list of the numbers serves both forms. */
struct number {
	const char *key, *label;
	uint64_t value;
	bool bytes;
};

static void print_numbers(const struct number *n, size_t count)
{
	char text[32];

	for (size_t i = 0; i < count; i++)
		if (n[i].bytes)
			printf("%-22s %s\n", n[i].label, base_format_size(n[i].value, text, sizeof(text)));
		else
			printf("%-22s %" PRIu64 "\n", n[i].label, n[i].value);
}

/* ---- info ---- */

static int print_info(const struct call *call, const struct bfs_control_stat *s)
{
	const struct bs_stat *st = &s->store;
	struct json_object *o;
	char uuid[37], version[32];

	uuid_unparse(st->uuid, uuid);
	snprintf(version, sizeof(version), "%u.%u", st->version_major, st->version_minor);
	const struct number n[] = {
		{ "size", "size", st->blocks * BS_BLOCK, true },
		{ "device_size", "size of the device", s->device_size, true },
		{ "cluster_size", "cluster size", st->cluster_size, true },
		{ "used", "data", st->used_blocks * BS_BLOCK, true },
		{ "free", "free", st->free_blocks * BS_BLOCK, true },
		{ "available", "available", st->avail_blocks * BS_BLOCK, true },
		{ "metadata", "metadata", st->meta_bytes, true },
		{ "log", "log", st->log_bytes, true },
		{ "log_limit", "log limit", st->log_limit, true },
		{ "blobs", "inodes", st->blobs, false },
		{ "runs", "runs", st->runs, false },
		{ "items", "items", st->items, false },
		{ "next_id", "next inode number", st->next_id, false },
		{ "lsn", "LSN", st->lsn, false },
		{ "checkpoint_lsn", "checkpoint LSN", st->checkpoint_lsn, false },
		{ "datasum", "data checksums", st->datasum, false },
		{ "replayed_records", "records replayed", st->replayed_records, false },
	};
	if (!call->json) {
		printf("%-22s %s (%s)\n%-22s %s\n%-22s %s\n%-22s %s\n", "device", s->device, s->module, "UUID",
		       uuid, "label", st->label[0] ? st->label : "-", "format", version);
		print_numbers(n, ARRAY_SIZE(n));
		return EXIT_OK;
	}
	o = json_object_new_object();
	add_text(o, "device", s->device);
	add_text(o, "module", s->module);
	add_text(o, "uuid", uuid);
	add_text(o, "label", st->label);
	add_text(o, "format", version);
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		add_u64(o, n[i].key, n[i].value);
	return verb_print_json(o);
}

/* ---- stat --fs ---- */

static void print_hist(const char *label, const struct bs_hist *h)
{
	printf("%-22s %" PRIu64 " times", label, h->count);
	if (h->count)
		printf(", half of them below %" PRIu64 " us, 99 %% %" PRIu64 ", 99.9 %% %" PRIu64 ", longest %" PRIu64 " us",
		       div_round_up(bs_hist_quantile(h, 0.5), 1000), div_round_up(bs_hist_quantile(h, 0.99), 1000),
		       div_round_up(bs_hist_quantile(h, 0.999), 1000), div_round_up(h->max_ns, 1000));
	putchar('\n');
}

static void print_slots(const struct bs_stat *st)
{
	printf("\n%-12s %12s %12s %12s %12s %12s\n", "below us", "lock held", "lock awaited", "log full", "then woken", "buffer full");
	for (unsigned i = 0; i < BS_HIST_SLOTS; i++)
		if (st->held.slot[i] || st->waited.slot[i] || st->stopped.slot[i] || st->woken.slot[i] || st->buffered.slot[i])
			printf("%-12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n", (uint64_t)1 << i,
			       st->held.slot[i], st->waited.slot[i], st->stopped.slot[i], st->woken.slot[i], st->buffered.slot[i]);
}

static struct json_object *hist_json(const struct bs_hist *h)
{
	struct json_object *o = json_object_new_object(), *slots = json_object_new_array();

	add_u64(o, "count", h->count);
	add_u64(o, "max_ns", h->max_ns);
	for (unsigned i = 0; i < BS_HIST_SLOTS; i++)
		json_object_array_add(slots, json_object_new_uint64(h->slot[i]));
	json_object_object_add(o, "below_us_power_of_two", slots);
	return o;
}

/* What the device was given for each byte that programs wrote; where they wrote none, only names, say, there is no such number. */
static bool has_amplification(const struct bfs_control_stat *s)
{
	return s->cache.written_bytes;
}

static double amplification(const struct bfs_control_stat *s)
{
	return (double)s->store.device_write_bytes / (double)s->cache.written_bytes;
}

static uint64_t other_writes(const struct bs_stat *st)
{
	uint64_t known = st->data_write_bytes + st->log_write_bytes + st->checkpoint_bytes + st->zero_write_bytes;

	return st->device_write_bytes > known ? st->device_write_bytes - known : 0;
}

static int print_json(const struct bfs_control_stat *s, const struct number *n, size_t count)
{
	struct json_object *o = json_object_new_object(), *by = json_object_new_object();

	add_text(o, "device", s->device);
	for (size_t i = 0; i < count; i++)
		add_u64(o, n[i].key, n[i].value);
	for (unsigned i = 0; i < BS_STREAMS; i++)
		add_u64(by, streams[i], s->store.stream_bytes[i]);
	json_object_object_add(o, "data_by_stream", by);
	json_object_object_add(o, "write_amplification", has_amplification(s) ? json_object_new_double(amplification(s)) : NULL);
	json_object_object_add(o, "lock_held", hist_json(&s->store.held));
	json_object_object_add(o, "lock_awaited", hist_json(&s->store.waited));
	json_object_object_add(o, "log_full", hist_json(&s->store.stopped));
	json_object_object_add(o, "log_full_woken", hist_json(&s->store.woken));
	json_object_object_add(o, "log_buffer_full", hist_json(&s->store.buffered));
	return verb_print_json(o);
}

static int print_activity(const struct call *call, const struct bfs_control_stat *s)
{
	const struct bs_stat *st = &s->store;
	char text[32];
	const struct number n[] = {
		{ "written", "written by programs", s->cache.written_bytes, true },
		{ "zeroed", "zeroed for them", s->cache.zeroed_bytes, true },
		{ "device_writes", "device writes", st->device_write_bytes, true },
		{ "device_writes_data", "  data", st->data_write_bytes, true },
		{ "device_writes_log", "  log", st->log_write_bytes, true },
		{ "device_writes_checkpoint", "  checkpoints", st->checkpoint_bytes, true },
		{ "device_writes_zeroing", "  zeroing", st->zero_write_bytes, true },
		{ "device_writes_other", "  anything else", other_writes(st), true },
		{ "commits", "commits", st->commits, false },
		{ "log_writes", "log writes", st->log_writes, false },
		{ "flushes", "flushes", st->flushes, false },
		{ "carried", "carried in the log", st->carried_bytes, true },
		{ "carried_blocks", "  blocks not home yet", st->carried_blocks, false },
		{ "checkpoints", "checkpoints", st->checkpoints, false },
		{ "data_read", "data read", st->data_read_bytes, true },
		{ "discards", "discards", st->discards, false },
		{ "discarded", "discarded", st->discarded_bytes, true },
		{ "reserve", "kept for log, checkpoint", st->reserve_bytes, true },
		{ "log", "log", st->log_bytes, true },
		{ "sum_checked", "compared with checksums", st->sum_checked_bytes, true },
		{ "sum_errors", "wrong checksums", st->sum_errors, false },
		{ "sum_pages", "pages of checksums", st->sum_pages, false },
		{ "sum_paged", "  written", st->sum_paged, false },
		{ "sums_young", "  only in memory, log", st->sums_young, false },
	};
	const size_t count = ARRAY_SIZE(n) - (st->datasum ? 0 : 5);

	if (call->json)
		return print_json(s, n, count);
	printf("%-22s %s (%s)\n", "device", s->device, s->module);
	print_numbers(n, count);
	printf("%-22s", "data by stream");
	for (unsigned i = 0; i < BS_STREAMS; i++)
		printf(" %s %s%s", streams[i], base_format_size(st->stream_bytes[i], text, sizeof(text)), i + 1 < BS_STREAMS ? "," : "\n");
	if (has_amplification(s))
		printf("%-22s %.2f\n", "write amplification", amplification(s));
	else
		printf("%-22s -\n", "write amplification");
	print_hist("lock held", &st->held);
	print_hist("lock awaited", &st->waited);
	print_hist("log full", &st->stopped);
	print_hist("  then woken within", &st->woken);
	print_hist("log's buffer full", &st->buffered);
	print_slots(st);
	return EXIT_OK;
}

/* ---- where they come from ---- */

static int print_one(const struct call *call, const struct bfs_control_stat *s)
{
	return call->opt['F'] ? print_activity(call, s) : print_info(call, s);
}

int numbers_of(struct bfs *fs, const struct call *call)
{
	const struct bdev_info *info = bdev_info(bs_bdev(bfs_store(fs)));
	struct bfs_control_stat s;

	memset(&s, 0, sizeof(s));
	bs_get_stat(bfs_store(fs), &s.store);
	bfs_get_cache_stat(fs, &s.cache);
	snprintf(s.device, sizeof(s.device), "%s", call->device);
	snprintf(s.module, sizeof(s.module), "%s", info->module);
	s.device_size = info->size;
	return print_one(call, &s);
}

int numbers_of_mount(const struct call *call)
{
	static struct bfs_control_stat s;
	char where[PATH_MAX];
	int fd = live_open(call, where, sizeof(where)), rc;

	if (fd == -ENODEV)
		return -1;
	rc = fd < 0 ? fd : ioctl(fd, BFS_CONTROL_STAT, &s) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	/* Of a device that another program serves or mounts the numbers are read from it, as ever. */
	if (rc == -ENOTTY && strcmp(where, call->device))
		return -1;
	if (!rc)
		return print_one(call, &s);
	tool_error(rc == -ENOTTY ? "%s: not in a mounted BlobFS of this version" : "%s: %s", where, strerror(-rc));
	return EXIT_FAILED;
}

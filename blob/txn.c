/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transactions. A call checks, reserves and encodes; bs_txn_end hands the records to the log and
 * applies them, and cannot fail. There is one transaction at a time, under bs->lock, so its buffers
 * are the store's and are kept.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"
#include "blob/mutation.h"
#include "blob/share.h"
#include "blob/sum.h"

#define KEEP_BYTES (256u * 1024) /* a larger buffer is not kept */
#define KEEP_CHUNKS 320u         /* for the longest publication */

enum entry_flags {
	ENTRY_ALLOC = 1,  /* its runs are new space, given back by a cancel */
	ENTRY_CREATE = 2, /* makes a blob, of which the caller has a count */
};

struct entry {
	struct bs_rec rec; /* its value is at offset `at` of the buffer */
	uint32_t at, flags;
	uint64_t grows;
	struct bs_prep prep;
};

struct bs_txn {
	struct bs *bs;
	uint32_t flags;
	bool open;
	uint8_t *buf;
	uint64_t bytes, buf_cap;
	struct entry *entry;
	uint32_t n, cap;
	uint64_t grows; /* bytes of items it adds */
	uint64_t next_id;
};

int bs_txn_create_store(struct bs *bs)
{
	bs->txn = base_calloc(1, sizeof(*bs->txn));
	if (!bs->txn)
		return -ENOMEM;
	bs->txn->bs = bs;
	return 0;
}

void bs_txn_destroy_store(struct bs *bs)
{
	if (!bs->txn)
		return;
	assert(!bs->txn->open);
	free(bs->txn->buf);
	free(bs->txn->entry);
	free(bs->txn);
	bs->txn = NULL;
}

/* ---- begin and end ---- */

int bs_txn_try(struct bs *bs, uint32_t flags, struct bs_txn **out)
{
	struct bs_txn *txn = bs->txn;
	int rc;

	if (bs->flags & BS_RDONLY)
		return -EROFS;
	bs_lock_foreground(bs);
	rc = atomic_load(&bs->frozen) ? -EROFS : bs_log_room(bs, flags, 0);
	if (rc) {
		pthread_mutex_unlock(&bs->lock);
		return rc;
	}
	txn->flags = flags;
	txn->open = true;
	bs->txn_number++;
	txn->bytes = 0;
	txn->n = 0;
	txn->grows = 0;
	txn->next_id = bs->next_id;
	bs->spare_want = 0;
	bs->txn_carries = 0;
	*out = txn;
	return 0;
}

int bs_txn_begin(struct bs *bs, uint32_t flags, struct bs_txn **out)
{
	struct bs_turn turn = { .again = false };
	int rc;

	rc = bs_txn_try(bs, flags, out);
	if (rc != -EAGAIN)
		return rc;
	/* The service thread makes the room: it would wait for itself. */
	if (bs_has_service(bs) && reactor_current() == bs_service_reactor(bs))
		return bs_txn_try(bs, flags | BS_TXN_NOW, out);
	turn.since_ns = bs_clock_ns();
	do {
		rc = bs_log_wait_turn(bs, &turn);
		if (!rc)
			rc = bs_txn_try(bs, turn.mine ? flags | BS_TXN_TURN : flags, out);
	} while (rc == -EAGAIN);
	bs_stopped(bs, &turn);
	return rc;
}

/* Nothing of it is left; releases the lock. */
static void txn_close(struct bs_txn *txn)
{
	struct bs *bs = txn->bs;

	if (txn->buf_cap > KEEP_BYTES) {
		free(txn->buf);
		txn->buf = NULL;
		txn->buf_cap = 0;
	}
	txn->open = false;
	bs->spare_want = 0;
	bs_spare_trim(&bs->spare, KEEP_CHUNKS);
	bs_share_forget(bs);
	pthread_mutex_unlock(&bs->lock);
	if (atomic_load_explicit(&bs->log->pace.waiting, memory_order_relaxed))
		bs_pace_next(bs);
}

static struct bs_rec *entry_rec(struct bs_txn *txn, struct entry *e)
{
	e->rec.value = txn->buf + e->at;
	return &e->rec;
}

uint64_t bs_txn_end(struct bs_txn *txn)
{
	struct bs *bs = txn->bs;
	uint64_t last = 0;

	assert(txn->open);
	if (txn->n) {
		last = bs_log_append(bs, txn->buf, (uint32_t)txn->bytes, txn->n);
		for (uint32_t i = 0; i < txn->n; i++) {
			struct entry *e = &txn->entry[i];
			int rc = bs_apply(bs, entry_rec(txn, e), last - txn->n + 1 + i, &e->prep);

			assert(!rc);
			(void)rc;
			bs_prep_drop(&e->prep);
		}
		bs_maps_settled(bs);
	}
	txn_close(txn);
	if (last)
		bs_release_if_much(bs);
	if (last && bs_sums_wanted(bs))
		bs_service_kick(bs, BS_KICK_SUMS);
	return last;
}

/* Gives back the space of a record of preallocation. */
static void free_runs(struct bs *bs, const struct bs_rec *rec)
{
	const struct bs_run_disk *d = rec->value;
	struct bs_run run;

	for (uint32_t i = 0; i < rec->len / sizeof(*d); i++) {
		bs_run_from_disk(&d[i], &run);
		bs_space_free_now(bs, bs_run_phys(&run), run.count);
	}
}

static void entry_undo(struct bs_txn *txn, struct entry *e)
{
	struct bs_blob *blob = e->rec.op == BS_REC_DEL_BLOB ? bs_index_find(txn->bs, e->rec.blob)
							    : NULL;

	if (blob)
		blob->dying = false;
	if (e->flags & ENTRY_ALLOC)
		free_runs(txn->bs, entry_rec(txn, e));
	bs_prep_drop(&e->prep);
}

/* Undoes all after the first n entries. */
void bs_txn_rewind(struct bs_txn *txn, uint32_t n)
{
	while (txn->n > n) {
		struct entry *e = &txn->entry[--txn->n];

		entry_undo(txn, e);
		txn->bytes -= bs_rec_size(e->rec.len);
		txn->grows -= e->grows;
	}
}

void bs_txn_cancel(struct bs_txn *txn)
{
	struct entry *e;

	assert(txn->open);
	/* A blob made here goes with its header's preparation; the caller's count is put as well.
	 * */
	for (uint32_t i = 0; i < txn->n; i++) {
		e = &txn->entry[i];
		if (e->flags & ENTRY_CREATE)
			bs_blob_put(e->prep.blob);
	}
	bs_txn_rewind(txn, 0);
	txn_close(txn);
}

/* ---- records ---- */

static int grow(struct bs_txn *txn, uint32_t size)
{
	if (txn->bytes + size > txn->buf_cap) {
		uint64_t cap = MAX(txn->buf_cap * 2, MAX(4096ull, round_up(txn->bytes + size, 4096)));
		uint8_t *buf = base_realloc(txn->buf, cap);

		if (!buf)
			return -ENOMEM;
		txn->buf = buf;
		txn->buf_cap = cap;
	}
	if (txn->n == txn->cap) {
		uint32_t cap = MAX(16u, txn->cap * 2);
		struct entry *entry = base_realloc(txn->entry, cap * sizeof(*entry));

		if (!entry)
			return -ENOMEM;
		txn->entry = entry;
		txn->cap = cap;
	}
	return 0;
}

/* Adds a record that grows the items by at most `grows` bytes. blob: the new one a header makes, or
 * NULL. */
static int txn_add(struct bs_txn *txn, const struct bs_rec *rec, uint64_t grows,
		   struct bs_blob *blob, uint32_t flags)
{
	struct bs *bs = txn->bs;
	uint32_t size = bs_rec_size(rec->len);
	struct entry *e;
	int rc;

	rc = bs_log_room(bs, txn->flags, txn->bytes + size);
	if (!rc && grows && !(txn->flags & BS_TXN_FREES) && !bs_meta_fits(bs, txn->grows + grows))
		rc = -ENOSPC;
	if (!rc)
		rc = grow(txn, size);
	if (rc)
		return rc;
	e = &txn->entry[txn->n];
	rc = bs_prep_make_blob(bs, rec, blob, &e->prep);
	if (rc)
		return rc;
	bs->spare_want += e->prep.chunks;
	bs_rec_encode(rec, txn->buf + txn->bytes);
	e->rec = *rec;
	e->at = (uint32_t)(txn->bytes + sizeof(struct bs_rec_disk));
	e->flags = flags | (blob ? ENTRY_CREATE : 0);
	e->grows = grows;
	txn->bytes += size;
	txn->grows += grows;
	txn->n++;
	return 0;
}

/* May this transaction change the blob? */
static int check_blob(const struct bs_txn *txn, const struct bs_blob *blob)
{
	assert(txn->open && blob->bs == txn->bs);
	return blob->deleted || blob->dying ? -ENOENT : 0;
}

static int put_header(struct bs_txn *txn, uint64_t id, uint64_t size, uint32_t flags, const void *user,
		      uint32_t user_len, struct bs_blob *made, uint32_t old_size)
{
	struct {
		struct bs_header_disk head;
		uint8_t user[BS_USER_MAX];
	} value;
	struct bs_rec rec = {
		.op = BS_REC_PUT, .kind = BS_KIND_HEADER, .blob = id, .value = &value
	};
	uint32_t new_size;

	if (user_len > BS_USER_MAX || size > (1ull << BS_RUN_BITS) * BS_BLOCK)
		return user_len > BS_USER_MAX ? -EINVAL : -EFBIG;
	memset(&value.head, 0, sizeof(value.head));
	value.head.size = le64_make(size);
	value.head.flags = le32_make(flags);
	value.head.user_len = le32_make(user_len);
	if (user_len)
		memcpy(value.user, user, user_len);
	rec.len = (uint32_t)sizeof(value.head) + user_len;
	new_size = bs_rec_size(rec.len);
	return txn_add(txn, &rec, new_size > old_size ? new_size - old_size : 0, made, 0);
}

int bs_txn_create(struct bs_txn *txn, uint64_t id_hint, const void *user, uint32_t user_len,
		  struct bs_blob **out)
{
	uint64_t id = id_hint ? id_hint : txn->next_id;
	struct bs_blob *blob;
	int rc;

	if (id > BS_ID_MAX || (txn->bs->sums && id == BS_SUM_ID))
		return id_hint ? -EINVAL : -ENOSPC;
	if (id < txn->next_id)
		return -EEXIST;
	blob = bs_blob_new(txn->bs, id);
	if (!blob)
		return -ENOMEM;
	rc = put_header(txn, id, 0, 0, user, user_len, blob, 0);
	if (rc) {
		bs_blob_put(blob);
		return rc;
	}
	bs_blob_ref(blob);
	txn->next_id = id + 1;
	*out = blob;
	return 0;
}

/* A snapshot that turns out to be damaged is repaired as any other blob is, and stays a snapshot. */
static bool is_closed_by_seal(const struct bs_blob *blob)
{
	return blob->sealed && !(blob->bs->flags & BS_BREAK_SEALS);
}

int bs_txn_header(struct bs_txn *txn, struct bs_blob *blob, uint64_t size, const void *user,
		  uint32_t user_len)
{
	int rc = check_blob(txn, blob);

	if (!rc && is_closed_by_seal(blob) && size != blob->size)
		rc = -EROFS;
	if (rc)
		return rc;
	return put_header(txn, blob->id, size, blob->sealed ? BS_HEADER_SEALED : 0, user, user_len, NULL,
			  bs_rec_size((uint32_t)sizeof(struct bs_header_disk) + blob->user_len));
}

int bs_txn_seal(struct bs_txn *txn, struct bs_blob *blob, uint64_t size, const void *user,
		uint32_t user_len)
{
	int rc = check_blob(txn, blob);

	if (!rc && !bs_can_share(blob->bs))
		rc = -EOPNOTSUPP;
	if (!rc && (bs_carried_any(blob, 0, UINT64_MAX) || blob->bs->txn_carries))
		rc = -EBUSY;
	if (!rc && is_closed_by_seal(blob) && size != blob->size)
		rc = -EROFS;
	if (rc)
		return rc;
	return put_header(txn, blob->id, size, BS_HEADER_SEALED, user, user_len, NULL,
			  bs_rec_size((uint32_t)sizeof(struct bs_header_disk) + blob->user_len));
}

int bs_txn_put(struct bs_txn *txn, struct bs_blob *blob, unsigned kind, uint64_t key,
	       const void *value, uint32_t len)
{
	struct bs_rec rec = { .op = BS_REC_PUT,
			      .kind = (uint8_t)kind,
			      .len = len,
			      .blob = blob->id,
			      .key = key,
			      .value = value };
	const struct bs_item *old;
	uint32_t old_size, new_size = bs_rec_size(len);
	int rc = check_blob(txn, blob);

	if (rc)
		return rc;
	if (kind < BS_KIND_USER || kind > BS_KIND_MAX || len > BS_VALUE_MAX)
		return -EINVAL;
	old = bs_item_find(blob, kind, key);
	old_size = old ? bs_rec_size(old->len) : 0;
	return txn_add(txn, &rec, new_size > old_size ? new_size - old_size : 0, NULL, 0);
}

int bs_txn_del(struct bs_txn *txn, struct bs_blob *blob, unsigned kind, uint64_t key)
{
	struct bs_rec rec = {
		.op = BS_REC_DEL, .kind = (uint8_t)kind, .blob = blob->id, .key = key
	};
	int rc = check_blob(txn, blob);

	if (rc)
		return rc;
	if (kind < BS_KIND_USER || kind > BS_KIND_MAX)
		return -EINVAL;
	return txn_add(txn, &rec, 0, NULL, 0);
}

int bs_txn_delete(struct bs_txn *txn, struct bs_blob *blob)
{
	struct bs_rec rec = { .op = BS_REC_DEL_BLOB, .kind = BS_KIND_HEADER, .blob = blob->id };
	int rc = check_blob(txn, blob);

	if (!rc)
		rc = txn_add(txn, &rec, 0, NULL, 0);
	if (!rc)
		blob->dying = true;
	return rc;
}

/* ---- runs ---- */

int bs_txn_check_data(struct bs_txn *txn, struct bs_blob *blob)
{
	int rc = check_blob(txn, blob);

	if (rc)
		return rc;
	if (is_closed_by_seal(blob))
		return -EROFS;
	blob->runs_txn = (uint32_t)txn->bs->txn_number;
	return 0;
}

int bs_txn_add(struct bs_txn *txn, const struct bs_rec *rec, uint64_t grows)
{
	return txn_add(txn, rec, grows, NULL, 0);
}

bool bs_txn_carries(const struct bs_txn *txn, const struct bs_blob *blob, uint64_t block)
{
	for (uint32_t i = 0; txn->bs->txn_carries && i < txn->n; i++) {
		const struct bs_rec *rec = &txn->entry[i].rec;

		if (rec->op == BS_REC_PUT && rec->kind == BS_KIND_LOGDATA && rec->blob == blob->id && rec->key == block)
			return true;
	}
	return false;
}

uint32_t bs_txn_mark(const struct bs_txn *txn)
{
	return txn->n;
}

/* Does a hole here leave a run on both sides? */
static bool splits(const struct bs_blob *blob, uint64_t block, uint64_t count)
{
	struct bs_extent e;

	if (!block || count >= bs_runmap_end(&blob->map) - MIN(block, bs_runmap_end(&blob->map)))
		return false;
	bs_runmap_lookup(&blob->map, block - 1, count + 2, &e);
	return !(e.flags & BS_RUN_HOLE) && e.count == count + 2;
}

int bs_txn_unmap(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	uint64_t limit = 1ull << BS_RUN_BITS;
	le64 value;
	struct bs_rec rec = { .op = BS_REC_DEL,
			      .kind = BS_KIND_RUN,
			      .len = sizeof(value),
			      .blob = blob->id,
			      .key = block,
			      .value = &value };
	uint32_t mark = txn->n;
	int rc = bs_txn_check_data(txn, blob);

	if (rc || !count || block >= limit)
		return rc;
	value = le64_make(MIN(count, limit - block));
	if (txn->flags & BS_TXN_FREES && splits(blob, block, count) && !bs_meta_fits_hole(txn->bs, txn->grows + sizeof(struct bs_run_disk)))
		return -ENOSPC;
	/* A hole in a run makes two of it. */
	rc = txn_add(txn, &rec, sizeof(struct bs_run_disk), NULL, 0);
	if (!rc && !BS_MUTATE(carried_unmap))
		rc = bs_txn_del_carried(txn, blob, block, MIN(count, limit - block));
	if (rc)
		bs_txn_rewind(txn, mark);
	return rc;
}

int bs_txn_put_runs(struct bs_txn *txn, struct bs_blob *blob, const struct bs_run *run, uint32_t n,
		    bool alloc)
{
	struct bs_run_disk disk[BS_PUT_RUNS];
	struct bs_rec rec = {
		.op = BS_REC_PUT, .kind = BS_KIND_RUN, .blob = blob->id, .value = disk
	};
	/* What is unwritten counts as what it may become. */
	uint64_t grows = alloc ? bs_runs_bytes(2 * n) : 0;
	int rc = bs_txn_check_data(txn, blob);

	assert(n && n <= BS_PUT_RUNS);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n; i++) {
		bs_run_to_disk(&run[i], &disk[i]);
		if (run[i].flags & BS_RUN_UNWRITTEN)
			grows += run[i].count * bs_unwritten_bytes(txn->bs);
	}
	rec.key = run[0].logical;
	rec.len = n * (uint32_t)sizeof(disk[0]);
	return txn_add(txn, &rec, grows, NULL, alloc ? ENTRY_ALLOC : 0);
}

struct run_batch { /* runs on their way into records of BS_PUT_RUNS */
	struct bs_txn *txn;
	struct bs_blob *blob;
	bool alloc;
	uint32_t n;
	struct bs_run run[BS_PUT_RUNS];
};

static int batch_flush(struct run_batch *b)
{
	int rc = b->n ? bs_txn_put_runs(b->txn, b->blob, b->run, b->n, b->alloc) : 0;

	if (!rc)
		b->n = 0;
	return rc;
}

static int batch_add(struct run_batch *b, uint64_t logical, uint64_t phys, uint64_t count)
{
	int rc = b->n == BS_PUT_RUNS ? batch_flush(b) : 0;

	if (!rc)
		bs_run_set(&b->run[b->n++], logical, phys, count, BS_RUN_UNWRITTEN);
	return rc;
}

int bs_txn_zero(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	uint64_t end = bs_runmap_end(&blob->map), first = block, limit = 1ull << BS_RUN_BITS;
	struct run_batch b = { .txn = txn, .blob = blob };
	uint32_t mark = txn->n;
	struct bs_extent e;
	int rc = bs_txn_check_data(txn, blob);

	if (count < end - MIN(block, end))
		end = block + count;
	for (; !rc && block < end; block += e.count) {
		bs_runmap_lookup(&blob->map, block, end - block, &e);
		/* Others still have what is shared, and what has a checksum is not written where it is: both become holes. */
		if (e.flags & (BS_RUN_SHARED | BS_RUN_SUM))
			rc = bs_txn_unmap(txn, blob, e.block, e.count);
		else if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			rc = batch_add(&b, e.block, e.phys, e.count);
	}
	if (!rc)
		rc = batch_flush(&b);
	if (!rc && first < limit && !BS_MUTATE(carried_zero))
		rc = bs_txn_del_carried(txn, blob, first, MIN(count, limit - first));
	if (rc)
		bs_txn_rewind(txn, mark);
	return rc;
}

static int prealloc_place(void *arg, uint64_t logical, uint64_t phys, uint64_t count)
{
	return batch_add(arg, logical, phys, count);
}

int bs_txn_prealloc(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count,
		    enum bs_stream stream)
{
	uint64_t end = block + count;
	struct run_batch b = { .txn = txn, .blob = blob, .alloc = true };
	struct bs_place_req req = {
		.blob = blob, .stream = stream, .fn = prealloc_place, .arg = &b
	};
	uint32_t mark = txn->n;
	struct bs_extent e;
	int rc = bs_txn_check_data(txn, blob);

	if (rc || !count)
		return rc;
	if (block >= 1ull << BS_RUN_BITS || count > (1ull << BS_RUN_BITS) - block)
		return -EFBIG;
	if (count / txn->bs->cluster_blocks > txn->bs->blocks)
		return -ENOSPC;
	for (; !rc && block < end; block += e.count) {
		bs_runmap_lookup(&blob->map, block, end - block, &e);
		if (e.flags & BS_RUN_HOLE)
			rc = bs_place(txn->bs, &req, e.block, e.count);
	}
	if (!rc)
		rc = batch_flush(&b);
	if (!rc)
		return 0;
	/* What is in no record yet is given back here, the rest by its record. */
	for (uint32_t i = 0; i < b.n; i++)
		bs_space_free_now(txn->bs, bs_run_phys(&b.run[i]), b.run[i].count);
	bs_txn_rewind(txn, mark);
	return rc;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 1: a medium after a cut is checked, recovered, compared; recovered twice; recovered beside a cache that is lost then. */
#include <inttypes.h>
#include <string.h>

#include "test/powercut/device.h"
#include "test/powercut/store_model.h"

#define SECTOR 512u

static void on_problem(const struct bs_problem *p, void *arg)
{
	finding(arg, "check: %s: %s: %s", p->pass, p->code, p->text);
}

static bool check_clean(struct run *run, struct bdev *dev)
{
	struct base_err err = { "" };
	int n = bs_check(dev, on_problem, run, NULL, &err);

	bdev_close(dev);
	if (n < 0)
		return finding(run, "check: %s", base_err_text(&err, n));
	return n == 0;
}

/* Writes what is in `from` and not in `to` as if it were in to's volatile cache. */
static void overlay(struct run *run, struct bdev *to, struct bdev *from)
{
	static uint8_t a[MiB] __attribute__((aligned(4096))), b[MiB] __attribute__((aligned(4096)));
	struct bdev_channel *x = bdev_channel_borrow(to), *y = bdev_channel_borrow(from);
	int rc = 0;

	for (uint64_t at = 0; !rc && at < run->device_size; at += MiB) {
		rc = bdev_io_sync(x, BDEV_READ, a, at, MiB, 0);
		rc = rc ? rc : bdev_io_sync(y, BDEV_READ, b, at, MiB, 0);
		for (uint64_t i = 0; !rc && i < MiB; i += SECTOR)
			if (memcmp(a + i, b + i, SECTOR) != 0)
				rc = bdev_io_sync(x, BDEV_WRITE, b + i, at + i, SECTOR, 0);
	}
	bdev_channel_return(x);
	bdev_channel_return(y);
	if (rc)
		broken(run, "cannot fill the cache: %s", strerror(-rc));
}

/*
 * The process dies, the device's cache lives on; recovery answers; then the power is cut. What was answered must still be there,
 * though all that recovery read may have been in the cache only.
 */
static bool verify_cache_lost(const struct store_model *m, struct run *run, uint64_t event)
{
	static const uint8_t none[4096], all[4096] = { [0 ... 4095] = 0xff };
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct bdev_cut cut = { .event = event, .mask = none };
	struct base_err err = { "" };
	struct bdev *medium, *cached, *dev, *state;
	uint64_t lsn, undecided = bdev_powercut_undecided(run->dev, event);
	struct bs *bs;
	bool ok;
	int rc;

	if (!undecided || undecided > 8 * sizeof(none))
		return true;
	if (bdev_powercut_state(run->dev, &cut, &medium) || bdev_powercut_create(medium, &dev))
		broken(run, "cannot make the device");
	cut.mask = all;
	if (bdev_powercut_state(run->dev, &cut, &cached))
		broken(run, "cannot make the device");
	overlay(run, dev, cached);
	run->coverage.cached++;
	bdev_close(cached);
	bdev_ref(dev);
	rc = bs_open(dev, &opts, &bs, &err);
	if (rc)
		return finding(run, "recovery beside a cache: %s", base_err_text(&err, rc));
	lsn = bs_lsn(bs);
	cut = (struct bdev_cut){ .event = bdev_powercut_mark(dev), .mask = none };
	bs_abandon(bs);
	if (bdev_powercut_state(dev, &cut, &state))
		broken(run, "cannot rebuild the medium");
	bdev_close(dev);
	opts.flags = BS_RDONLY;
	rc = bs_open(state, &opts, &bs, &err);
	if (rc) {
		bdev_close(state);
		return finding(run, "after the cache was lost: %s", base_err_text(&err, rc));
	}
	ok = bs_lsn(bs) >= lsn || finding(run, "recovery answered from LSN %" PRIu64 ", and only %" PRIu64 " was durable", lsn,
					  bs_lsn(bs));
	ok = ok && sm_verify(m, run, bs, bs_lsn(bs), event);
	bs_close(bs);
	return ok;
}

/* Recovery that was cut itself must come back to the same. */
static bool verify_again(const struct store_model *m, struct run *run, uint64_t event, uint64_t lsn, struct bdev *medium)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct run second = { .seed = run->seed + event };
	struct bdev_cut cut = { .seed = run->seed ^ event, .torn = 512 };
	struct base_err err = { "" };
	struct bdev *state;
	struct bs *bs;
	uint64_t events;
	bool ok;
	int rc;

	if (bdev_powercut_create(medium, &second.dev))
		broken(run, "cannot make the device");
	bdev_ref(second.dev);
	rc = bs_open(second.dev, &opts, &bs, &err);
	if (rc)
		return finding(run, "recovery: %s", base_err_text(&err, rc));
	rng_seed(&second.rng, second.seed);
	if (rng_chance(&second.rng, 50))
		bs_abandon(bs);
	else
		rc = bs_close(bs);
	if (rc)
		return finding(run, "close after recovery: %s", strerror(-rc));
	events = bdev_powercut_events(second.dev);
	cut.event = rng_below(&second.rng, events + 1);
	rc = bdev_powercut_state(second.dev, &cut, &state);
	if (rc)
		broken(run, "cannot rebuild the medium: %s", strerror(-rc));
	opts.flags = BS_RDONLY;
	rc = bs_open(state, &opts, &bs, &err);
	if (rc) {
		bdev_close(second.dev);
		bdev_close(state);
		return finding(run, "second recovery, cut at %" PRIu64 " of %" PRIu64 ": %s", cut.event, events, base_err_text(&err, rc));
	}
	ok = bs_lsn(bs) == lsn || finding(run, "second recovery came to LSN %" PRIu64 ", the first to %" PRIu64, bs_lsn(bs), lsn);
	ok = ok && sm_verify(m, run, bs, lsn, event);
	bs_close(bs);
	bdev_close(second.dev);
	return ok;
}

bool sm_verify_state(const struct store_model *m, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_RDONLY };
	struct base_err err = { "" };
	struct bs_stat st;
	struct bdev *dev;
	uint64_t lsn;
	struct bs *bs;
	bool ok;
	int rc;

	if (!check_clean(run, open_state(arg)))
		return false;
	dev = open_state(arg);
	rc = bs_open(dev, &opts, &bs, &err);
	if (rc) {
		bdev_close(dev);
		return finding(run, "open: %s", base_err_text(&err, rc));
	}
	bs_get_stat(bs, &st);
	run->coverage.replayed += st.carried_blocks != 0;
	lsn = bs_lsn(bs);
	ok = sm_verify(m, run, bs, lsn, event) && device_verify(run, bs, event);
	bs_close(bs);
	if (ok && event % 4 == 0)
		ok = verify_again(m, run, event, lsn, open_state(arg));
	if (ok && event % 16 == 0)
		ok = verify_cache_lost(m, run, event);
	return ok;
}

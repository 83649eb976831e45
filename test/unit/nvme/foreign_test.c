/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Servers as others write them: whatever form the protocol allows for versions, regions, interrupts and messages, the driver works; where
 * it cannot, it says so. And servers that fall silent: no poll waits for them.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/vfio_user_dev.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

/* Asleep until it is called back. `wakes`: only the interrupt wakes it, else it looks now and then. */
static void sleep_for(struct nvme_qpair *q, struct todo *d, bool wakes)
{
	struct pollfd fd = { .fd = nvme_qpair_fd(q), .events = POLLIN };

	for (unsigned i = 0; i < 10000 && !d->calls; i++) {
		nvme_poll(q, 0);
		if (!d->calls && !nvme_qpair_arm(q) && !poll(&fd, 1, wakes ? 10000 : 1) && wakes)
			FAIL("no interrupt came");
	}
	ASSERT_EQ_INT(1, d->calls);
}

/* Everything a file system asks of a controller; `wakes`: its interrupts come. */
static void use(struct peer *p, const struct nvme_opts *o, bool wakes)
{
	struct nvme_ctrlr *c;
	struct nvme_qpair *q[3];
	struct todo d;
	char *buf;

	peer_attach(p, o, &c);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_OK(nvme_qpair_create(c, 8, &q[i]));
	buf = nvme_alloc(256 * KiB, 0);
	ASSERT_TRUE(buf);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 3; i++) {
			fill(buf, 256 * KiB, i + round);
			EXPECT_OK(do_cmd(q[i], NVME_WRITE, i * 512, 512, buf, 256 * KiB));
			EXPECT_OK(do_cmd(q[i], NVME_FLUSH, 0, 0, NULL, 0));
			EXPECT_OK(do_cmd(q[i], NVME_COMPARE, i * 512, 512, buf, 256 * KiB));
			todo_init(&d, NVME_READ, i * 512, 8, buf, 4096);
			nvme_submit(q[i], &d.cmd);
			sleep_for(q[i], &d, wakes);
			EXPECT_OK(d.rc);
		}
		ASSERT_OK(nvme_reset(c));
	}
	for (unsigned i = 0; i < 3; i++)
		nvme_qpair_free(q[i]);
	nvme_free(buf);
	nvme_detach(c);
}

static const struct {
	const char *name;
	struct nvmet_style style;
	bool messages, asleep; /* asleep: no interrupts are to be had */
} ways[] = {
	{ "as usual", { .json = NULL }, false, false },
	{ "no version data", { .json = "" }, false, false },
	{ "data nobody knows",
	  { .json = "{\"capabilities\":{\"max_msg_fds\":1,\"migration\":{\"pgsize\":4096},\"pgsizes\":2097152,"
		    "\"twin_socket\":{\"supported\":false},\"x\":[null,1e9,\"\\u0000\"]},\"other\":{}}" },
	  false, false },
	{ "no JSON at all", { .json = "}\"{" }, false, false },
	{ "an older version", { .older = true }, false, false },
	{ "all of the BAR mapped", { .whole_bar = true }, false, false },
	{ "many areas", { .many_areas = true }, false, false },
	{ "an empty list of areas", { .no_area = true }, false, false },
	{ "an area that is no page", { .odd_area = true }, false, false },
	{ "an area beyond the region", { .far_area = true }, false, false },
	{ "endless areas", { .endless_areas = true, .many_areas = true }, false, false },
	{ "other capabilities", { .other_caps = true, .many_areas = true }, false, false },
	{ "capabilities in a circle", { .caps_in_a_circle = true, .msix = true, .other_caps = true }, false, true },
	{ "nothing to map", { .no_fd = true }, false, false },
	{ "elsewhere in the file", { .bar_offset = 0x7000 }, false, false },
	{ "doorbells 64 bytes apart", { .dstrd = 4 }, false, false },
	{ "doorbells beyond the page", { .dstrd = 7, .bar_size = 0x2000 }, false, false },
	{ "registers by halves", { .words = true }, false, false },
	{ "answers to maps", { .map_answers = true }, false, false },
	{ "short answers", { .short_answers = true }, true, false },
	{ "talkative", { .talkative = true }, false, false },
	{ "talkative, by message", { .talkative = true, .words = true }, true, false },
	{ "no vectors", { .no_vectors = true }, false, true },
	{ "no interrupt information", { .irqs_refused = true }, false, true },
	{ "vectors all at once", { .noresize = true }, false, true },
	{ "no eventfds", { .bind_refused = true }, false, true },
	{ "mute", { .mute = true }, false, true },
	{ "MSI-X as on a bus", { .msix = true }, false, false },
	{ "all by message", { .words = true, .msix = true }, true, false },
};

TEST(nvme_foreign, whatever_form_a_server_chooses)
{
	base_log_set_sink(quiet, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
		struct nvmet_opts t = { .size = 16 * MiB,
					.queues = 8,
					.messages = ways[i].messages,
					.style = ways[i].style };
		struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
		struct peer p;

		printf("    %s\n", ways[i].name);
		peer_start(&p, &t);
		use(&p, &o, !ways[i].asleep);
		EXPECT_TRUE(!ways[i].style.talkative || atomic_load(&p.t->n.refusals) > 10);
		peer_stop(&p);
	}
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_foreign, doorbells_beyond_the_registers_are_refused_and_queues_without_not_asked_for)
{
	struct nvmet_opts t = { .size = 16 * MiB, .style = { .bar_size = 0x1020 } };
	struct nvme_opts o = { .size = sizeof(o) };
	struct nvme_ctrlr *c;
	struct nvme_qpair *q[4];
	struct base_err err;
	struct peer p;

	peer_start(&p, &t);
	peer_attach(&p, &o, &c);
	EXPECT_EQ_INT(3, nvme_info(c)->max_qpairs);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_OK(nvme_qpair_create(c, 4, &q[i]));
	EXPECT_ERR(-ENOSPC, nvme_qpair_create(c, 4, &q[3]));
	for (unsigned i = 0; i < 3; i++)
		nvme_qpair_free(q[i]);
	nvme_detach(c);
	peer_stop(&p);
	t.style = (struct nvmet_style){ .bar_size = 0x2000, .dstrd = 15 };
	peer_start(&p, &t);
	EXPECT_ERR(-EPROTO, nvme_attach(p.address, &o, &c, &err));
	EXPECT_TRUE(strstr(err.text, "131072 bytes apart, lie beyond its registers"));
	peer_stop(&p);
}

TEST(nvme_foreign, what_a_controller_tells_is_heard_without_a_poll)
{
	struct nvmet_opts t = { .size = 16 * MiB, .events = true };
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
	struct nvme_ns_info ns;
	struct nvme_ctrlr *c;
	struct pollfd fd = { .events = POLLIN };
	struct peer p;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, &o, &c);
	fd.fd = nvme_event_fd(c);
	ASSERT_GE_INT(fd.fd, 0);
	/* What attaching has left. */
	while (poll(&fd, 1, 20) == 1)
		nvme_poll_events(c);
	atomic_store(&p.t->f.blocks, 4096);
	atomic_store(&p.t->f.event, NVME_LOG_CHANGED_NS << 16 | 2);
	for (unsigned i = 0; i < 20 && poll(&fd, 1, 2000) == 1; i++) {
		nvme_poll_events(c);
		ASSERT_OK(nvme_ns_get(c, 1, &ns));
		if (ns.blocks == 4096)
			break;
	}
	EXPECT_EQ_INT(4096, ns.blocks);
	while (poll(&fd, 1, 20) == 1)
		nvme_poll_events(c);
	EXPECT_EQ_INT(0, poll(&fd, 1, 50));
	nvme_detach(c);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

/* ---- memory ---- */

TEST(nvme_foreign, memory_goes_to_a_server_in_pieces_as_far_as_it_takes_it)
{
	struct nvmet_opts t = { .size = 16 * MiB, .style = { .map_most = 128 * MiB, .maps = 3 } };
	uint64_t most = nvme_pool.plain_end;
	struct nvme_ctrlr *c;
	struct base_err err;
	struct peer p;
	void *a, *b;

	/* What others have left in this process lies before the limit. */
	peer_start(&p, &t);
	use(&p, NULL, false);
	EXPECT_EQ_INT(384 * MiB, nvme_pool.plain_end);
	/* Of another file it takes nothing then, and need not. */
	nvme_pool.huge_fd = nvme_pool.fd;
	nvme_pool.size += 2 * MiB;
	use(&p, NULL, false);
	nvme_pool.size -= 2 * MiB;
	nvme_pool.huge_fd = -1;
	a = nvme_alloc(300 * MiB, 0);
	EXPECT_TRUE(a);
	b = nvme_alloc(100 * MiB, 0);
	EXPECT_FALSE(b);
	peer_stop(&p);
	/* Beyond what this one takes there is memory in use. */
	t.style.maps = 1;
	peer_start(&p, &t);
	EXPECT_ERR(-ENOMEM, nvme_attach(p.address, NULL, &c, &err));
	EXPECT_TRUE(strstr(err.text, "takes only 128 MiB of our memory"));
	peer_stop(&p);
	nvme_free(a);
	t.style.map_most = 1 * MiB;
	peer_start(&p, &t);
	EXPECT_ERR(-EINVAL, nvme_attach(p.address, NULL, &c, &err));
	EXPECT_TRUE(strstr(err.text, "does not take our memory"));
	peer_stop(&p);
	nvme_pool.plain_end = most ? most : nvme_pool.plain;
}

/* ---- silence ---- */

#define PATIENCE_MS 300u

/* The server reads no message any more: until it is given up, polls come and go. */
static void fall_silent(bool messages, bool reset)
{
	struct nvmet_opts t = { .size = 16 * MiB, .messages = messages };
	struct nvme_opts o = { .size = sizeof(o), .timeout_ms = 400 };
	uint64_t polls = 0, start;
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	struct todo d;
	struct peer p;
	char *buf;

	peer_start(&p, &t);
	peer_attach(&p, &o, &c);
	/* Longer than a test has time for. */
	EXPECT_EQ_INT(2000000000, ((struct vu *)c->tp)->conn.patience_ns);
	((struct vu *)c->tp)->conn.patience_ns = PATIENCE_MS * 1000000ull;
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(4096, 0);
	ASSERT_TRUE(buf);
	EXPECT_OK(do_cmd(q, NVME_WRITE, 0, 8, buf, 4096));
	atomic_store(&p.t->f.hold, true);
	atomic_store(&p.t->f.silent, true);
	usleep(50000);
	todo_init(&d, NVME_READ, 0, 8, buf, 4096);
	nvme_submit(q, &d.cmd);
	if (reset)
		begin_reset(c);
	for (start = nvme_now_ns(); !d.calls && nvme_now_ns() - start < 20000000000ull;) {
		nvme_poll(q, 0);
		polls++;
		usleep(1000);
	}
	EXPECT_ERR(-ENODEV, d.rc);
	EXPECT_TRUE(nvme_failed(c));
	/* Whatever the machine does to a thread: one that waits for the server polls once or twice. */
	EXPECT_GE_INT(polls, 10);
	/* It may have been asked a little before. */
	EXPECT_GE_INT(nvme_now_ns() - start, PATIENCE_MS * 500000);
	nvme_qpair_free(q);
	nvme_free(buf);
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_foreign, no_poll_waits_for_a_server_that_falls_silent)
{
	base_log_set_sink(quiet, NULL);
	fall_silent(false, false);
	fall_silent(true, false);
	fall_silent(false, true);
	base_log_set_sink(NULL, NULL);
}

/* ---- slowness ---- */

static void *listen_soon(void *arg)
{
	struct peer *p = arg;

	usleep(50000);
	atomic_store(&p->t->f.silent, false);
	return NULL;
}

/* Asks for 40 writes of a register that change nothing, while the server reads nothing; returns how many could be sent. */
static unsigned write_many(struct nvme_ctrlr *c, uint64_t cc)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 40; i++) {
		int rc = nvme_vfio_user.write(c, NVME_REG_CC, 4, cc);

		EXPECT_TRUE(!rc || rc == -EINPROGRESS);
		n += !rc;
	}
	return n;
}

/* The server reads nothing, and there is no room for another write. small: in the socket, before as many are under way as may be. */
static void take_room(struct peer *p, struct nvme_ctrlr *c, bool small)
{
	int size = 1;
	uint64_t cc;

	EXPECT_OK(ctrlr_read(c, NVME_REG_CC, 4, &cc));
	if (small)
		ASSERT_OK(setsockopt(((struct vu *)c->tp)->conn.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	atomic_store(&p->t->f.silent, true);
	usleep(5000);
	EXPECT_LT_INT(write_many(c, cc), small ? VU_POSTED : VU_POSTED + 1);
}

static void have_no_room(bool small)
{
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	pthread_t thread;
	struct peer p;
	char *buf;

	peer_start(&p, NULL);
	peer_attach(&p, NULL, &c);
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(4096, 0);
	ASSERT_TRUE(buf);
	take_room(&p, c, small);
	begin_reset(c);
	ASSERT_OK(pthread_create(&thread, NULL, listen_soon, &p));
	EXPECT_OK(ctrlr_await_reset(c));
	pthread_join(thread, NULL);
	EXPECT_OK(do_cmd(q, NVME_READ, 0, 8, buf, 4096));
	nvme_qpair_free(q);
	nvme_free(buf);
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_foreign, a_server_that_has_no_room_for_writes_just_now_keeps_its_client)
{
	base_log_set_sink(quiet, NULL);
	have_no_room(true);
	have_no_room(false);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_foreign, a_doorbell_for_which_there_is_no_room_is_rung_later_while_a_controller_is_set_up)
{
	struct nvmet_opts t = { .size = 16 * MiB, .messages = true };
	struct base_err err = { "" };
	struct nvme_ctrlr *c;
	pthread_t thread;
	struct peer p;

	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	take_room(&p, c, true);
	ASSERT_OK(pthread_create(&thread, NULL, listen_soon, &p));
	EXPECT_OK(start_run(c, START_SETUP, &err));
	pthread_join(thread, NULL);
	nvme_detach(c);
	peer_stop(&p);
}

/* ---- given up ---- */

#define READS 6u

static void submit_reads(struct nvme_qpair *q, struct todo d[READS], char *buf)
{
	for (unsigned i = 0; i < READS; i++) {
		todo_init(&d[i], NVME_READ, 8, 8, buf + i * 4096, 4096);
		nvme_submit(q, &d[i].cmd);
	}
	nvme_kick(q);
}

static bool all_bytes(const char *p, char c, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != c)
			return false;
	return true;
}

TEST(nvme_foreign, a_server_that_stands_still_and_goes_on_when_it_was_given_up_writes_nowhere)
{
	struct nvmet_opts t = { .size = 16 * MiB };
	struct nvme_opts o = { .size = sizeof(o), .timeout_ms = 400 };
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	struct todo d[READS];
	char *buf, *later;
	struct peer p;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, &o, &c);
	((struct vu *)c->tp)->conn.patience_ns = PATIENCE_MS * 1000000ull;
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(READS * 4096, 0);
	ASSERT_TRUE(buf);
	memset(buf, 'w', 4096);
	EXPECT_OK(do_cmd(q, NVME_WRITE, 8, 8, buf, 4096));
	atomic_store(&p.t->f.frozen, true);
	usleep(20000);
	submit_reads(q, d, buf);
	for (unsigned i = 0; i < READS; i++)
		EXPECT_ERR(-ENODEV, todo_wait(q, &d[i]));
	EXPECT_TRUE(nvme_failed(c));
	/* All of it is used for something else. */
	memset(buf, 'b', READS * 4096);
	nvme_qpair_free(q);
	nvme_detach(c);
	later = nvme_alloc(1 * MiB, 0);
	ASSERT_TRUE(later);
	memset(later, 'l', 1 * MiB);
	atomic_store(&p.t->f.frozen, false);
	for (unsigned i = 0; i < 5000 && atomic_load(&p.t->connected); i++)
		usleep(1000);
	EXPECT_FALSE(atomic_load(&p.t->connected));
	/* It did look into its queue. */
	EXPECT_GE_INT(atomic_load(&p.t->n.commands), 1 + READS);
	EXPECT_TRUE(all_bytes(buf, 'b', READS * 4096));
	EXPECT_TRUE(all_bytes(later, 'l', 1 * MiB));
	nvme_free(later);
	nvme_free(buf);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_foreign, a_server_that_listens_has_let_go_of_memory_when_commands_end)
{
	struct nvmet_opts t = { .size = 16 * MiB };
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	struct todo d[READS];
	struct peer p;
	char *buf;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(READS * 4096, 0);
	ASSERT_TRUE(buf);
	atomic_store(&p.t->f.hold, true);
	usleep(20000);
	submit_reads(q, d, buf);
	ctrlr_fail(c, "a test");
	for (unsigned i = 0; i < READS; i++)
		EXPECT_ERR(-ENODEV, todo_wait(q, &d[i]));
	/* Its end is closed after it has unmapped the memory. */
	EXPECT_FALSE(atomic_load(&c->at_large));
	EXPECT_FALSE(p.t->maps[0].p);
	nvme_qpair_free(q);
	nvme_free(buf);
	nvme_detach(c);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

/* ---- names ---- */

TEST(nvme_foreign, names_are_taken_apart)
{
	struct base_err err = { "" };
	struct nvme_name n;

	ASSERT_OK(nvme_split_name("01:00.0", &n, NULL));
	EXPECT_STREQ("pcie:0000:01:00.0", n.address);
	EXPECT_EQ_INT(0, n.nsid);
	EXPECT_EQ_INT(0, n.timeout_ms);
	ASSERT_OK(nvme_split_name("0000:01:00.0/7,timeout=2.5", &n, NULL));
	EXPECT_STREQ("pcie:0000:01:00.0", n.address);
	EXPECT_EQ_INT(7, n.nsid);
	EXPECT_EQ_INT(2500, n.timeout_ms);
	ASSERT_OK(nvme_split_name("vfio-user:/a,b/c,timeout=60", &n, NULL));
	EXPECT_STREQ("vfio-user:/a,b/c", n.address);
	EXPECT_EQ_INT(60000, n.timeout_ms);
	ASSERT_OK(nvme_split_name("vfio-user:/a,b", &n, NULL));
	EXPECT_STREQ("vfio-user:/a,b", n.address);
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,timeout=0", &n, &err));
	EXPECT_TRUE(strstr(err.text, "the timeout is 0.1 to 3600 seconds"));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,timeout=", &n, &err));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,timeout=nan", &n, &err));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,timeout=5s", &n, &err));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,timeout=1e9", &n, &err));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0/0", &n, &err));
	EXPECT_ERR(-EINVAL, nvme_split_name("01:00.0,speed=5", &n, &err));
}

TEST(nvme_foreign, a_socket_may_be_named_like_an_option)
{
	char path[200], from[300];
	struct nvme_name n;
	struct peer p;

	peer_start(&p, NULL);
	snprintf(from, sizeof(from), "%s", p.path);
	snprintf(path, sizeof(path), "%s/1,timeout=3", p.dir);
	ASSERT_OK(rename(from, path));
	snprintf(from, sizeof(from), "vfio-user:%s", path);
	ASSERT_OK(nvme_split_name(from, &n, NULL));
	EXPECT_STREQ(from, n.address);
	EXPECT_EQ_INT(0, n.nsid);
	EXPECT_EQ_INT(0, n.timeout_ms);
	ASSERT_OK(unlink(path));
	peer_stop(&p);
}

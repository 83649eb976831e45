/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers that never stop: nobody is held up by them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "nvme/internal.h"
#include "nvme/vfio_user_msg.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

TEST(nvme_hostile, a_list_of_namespaces_that_begins_anew_has_an_end)
{
	struct nvmet_opts t = { .size = 1 * MiB, .namespaces = 2 };
	struct nvme_ctrlr *c;
	struct peer p;

	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	EXPECT_OK(ns_refresh(c, NVME_NSID_ALL));
	atomic_store(&p.t->f.same_ns, true);
	EXPECT_ERR(-EPROTO, ns_refresh(c, NVME_NSID_ALL));
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_hostile, admin_completions_are_taken_a_few_at_a_time)
{
	static struct nvme_cqe cq[ADMIN_ENTRIES];
	struct nvme_ctrlr *c = base_calloc(1, sizeof(*c));
	uint32_t db = 0;

	ASSERT_TRUE(c);
	for (unsigned i = 0; i < ADMIN_ENTRIES; i++)
		cq[i] = (struct nvme_cqe){ .cid = 0xffff, .status = NVME_CQE_PHASE };
	c->admin.cq = cq;
	c->admin.cq_db = &db;
	c->admin.phase = 1;
	admin_poll(c);
	EXPECT_EQ_INT(ADMIN_SLOTS, db);
	admin_poll(c);
	EXPECT_EQ_INT(0, db);
	EXPECT_EQ_INT(0, c->admin.phase);
	admin_poll(c);
	EXPECT_EQ_INT(0, c->admin.head);
	free(c);
}

TEST(nvme_hostile, messages_are_taken_a_few_at_a_time)
{
	struct vu_header h = { .id = 77, .size = sizeof(h), .flags = VU_REPLY };
	struct vu_conn *v = base_calloc(1, sizeof(*v));
	int fd[2], left = 0, calls = 0;

	ASSERT_TRUE(v);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	v->fd = fd[0];
	v->tail = &v->head;
	for (unsigned i = 0; i < 100; i++)
		ASSERT_EQ_INT(sizeof(h), write(fd[1], &h, sizeof(h)));
	do {
		vu_progress(v);
		calls++;
		ASSERT_OK(ioctl(fd[0], FIONREAD, &left));
	} while (left && calls < 100);
	EXPECT_FALSE(v->dead);
	EXPECT_EQ_INT(2, calls);
	close(fd[0]);
	close(fd[1]);
	free(v);
}

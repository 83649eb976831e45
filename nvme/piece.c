/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands in pieces, as the controller takes them: at most its largest transfer, not across the namespace's optimal boundary, and
 * no further than a list of pages can name the buffers. Such a list wants every page but the first to be used from its beginning
 * and every one but the last to its end; where the iovecs do not go on like that, the piece ends, if whole blocks
 * have been named.
 */
#include <errno.h>
#include <string.h>

#include "nvme/internal.h"

/* ---- checking ---- */

/* The namespace of the command at hand. */
static int choose_ns(struct nvme_qpair *q, uint32_t nsid)
{
	const struct nvme_ns *ns;

	if (q->ns->info.nsid == nsid && nsid && !ns_unusable(q->ns))
		return 0;
	q->ns = &nvme_no_ns;
	ns = ns_find(q->c, nsid);
	if (!ns || ns_unusable(ns))
		return -EINVAL;
	q->ns = ns;
	return 0;
}

static bool has_data(enum nvme_op op)
{
	return op == NVME_READ || op == NVME_WRITE || op == NVME_COMPARE;
}

static int check_data(const struct nvme_qpair *q, const struct nvme_cmd *cmd)
{
	uint64_t left = cmd->blocks << q->ns->shift;

	for (int i = 0; i < cmd->iovcnt; i++) {
		const struct iovec *v = &cmd->iov[i];

		if (((uintptr_t)v->iov_base | v->iov_len) & 3 || !v->iov_len || v->iov_len > left)
			return -EINVAL;
		if (!nvme_memory_ok(v->iov_base, v->iov_len))
			return -EFAULT;
		left -= v->iov_len;
	}
	return left ? -EINVAL : 0;
}

static int check_op(const struct nvme_ctrlr *c, enum nvme_op op)
{
	switch (op) {
	case NVME_READ:
	case NVME_WRITE:
	case NVME_FLUSH:
		return 0;
	case NVME_WRITE_ZEROES:
		return c->info.write_zeroes ? 0 : -EOPNOTSUPP;
	case NVME_DEALLOCATE:
		return c->info.deallocate ? 0 : -EOPNOTSUPP;
	case NVME_COMPARE:
		return c->info.compare ? 0 : -EOPNOTSUPP;
	case NVME_VERIFY:
		return c->info.verify ? 0 : -EOPNOTSUPP;
	case NVME_COPY:
		return c->info.copy ? 0 : -EOPNOTSUPP;
	case NVME_RAW:
		return 0;
	}
	return -EINVAL;
}

static int check_range(const struct nvme_ns *ns, uint64_t lba, uint64_t blocks)
{
	uint64_t all = ns_blocks(ns);

	return blocks && lba < all && blocks <= all - lba ? 0 : -EINVAL;
}

static int check_copy(const struct nvme_ns *ns, const struct nvme_cmd *cmd)
{
	if (!ns->copy_blocks)
		return -EOPNOTSUPP;
	if (cmd->source < cmd->lba + cmd->blocks && cmd->lba < cmd->source + cmd->blocks)
		return -EINVAL;
	return check_range(ns, cmd->source, cmd->blocks);
}

static int check_raw(const struct nvme_ctrlr *c, const struct nvme_cmd *cmd)
{
	uint64_t len = 0;

	for (int i = 0; i < cmd->iovcnt; i++) {
		const struct iovec *v = &cmd->iov[i];

		if (((uintptr_t)v->iov_base | v->iov_len) & 3 || !v->iov_len)
			return -EINVAL;
		if (!nvme_memory_ok(v->iov_base, v->iov_len))
			return -EFAULT;
		len += v->iov_len;
	}
	return cmd->raw && len <= c->info.max_transfer ? 0 : -EINVAL;
}

int piece_check(struct nvme_qpair *q, const struct nvme_cmd *cmd)
{
	int rc = check_op(q->c, cmd->op);

	if (rc)
		return rc;
	if (cmd->op == NVME_RAW)
		return check_raw(q->c, cmd);
	rc = choose_ns(q, cmd->nsid);
	if (rc || cmd->op == NVME_FLUSH)
		return rc;
	/* The controller would compare metadata as well, of which the caller has none. */
	if (cmd->op == NVME_COMPARE && (q->ns->prinfo || q->ns->meta))
		return -EOPNOTSUPP;
	rc = check_range(q->ns, cmd->lba, cmd->blocks);
	if (!rc && cmd->op == NVME_COPY)
		return check_copy(q->ns, cmd);
	return !rc && has_data(cmd->op) ? check_data(q, cmd) : rc;
}

/* ---- pages ---- */

static uint64_t *list_of(const struct nvme_qpair *q, const struct nvme_req *r)
{
	return q->lists + (size_t)(r - q->reqs) * NVME_LIST_ENTRIES;
}

/* How far the pages named so far, and what is named next. */
struct walk {
	uint64_t *list;
	unsigned pages; /* named */
	uint64_t named; /* bytes */
	uint64_t end;   /* address after the last byte */
};

static void name_page(struct nvme_req *r, struct walk *w, uint64_t address)
{
	if (!w->pages)
		r->prp1 = address;
	else
		w->list[w->pages - 1] = address;
	w->pages++;
}

/* Names up to len bytes at p; returns how many it could. */
static uint64_t name_bytes(struct nvme_req *r, struct walk *w, const char *p, uint64_t len)
{
	uint64_t at = nvme_iova(p), done = 0;

	if (w->pages && at == w->end && at % NVME_PAGE) {
		/* It goes on in the page that was named last. */
		done = MIN(len, NVME_PAGE - at % NVME_PAGE);
	} else if (w->pages && (w->end % NVME_PAGE || at % NVME_PAGE)) {
		return 0;
	}
	while (done < len && w->pages <= NVME_LIST_ENTRIES) {
		uint64_t a = at + done;

		name_page(r, w, a);
		done += MIN(len - done, NVME_PAGE - a % NVME_PAGE);
	}
	w->named += done;
	w->end = at + done;
	return done;
}

/* False: not all of it could be named. */
static bool name_all(struct nvme_req *r, struct walk *w, const char *p, uint64_t len)
{
	while (len) {
		uint64_t part = nvme_contiguous(p, len);

		if (name_bytes(r, w, p, part) < part)
			return false;
		p += part;
		len -= part;
	}
	return true;
}

static void advance(struct nvme_cmd *cmd, uint64_t bytes)
{
	cmd->iov_offset += bytes;
	while (cmd->iov_index < cmd->iovcnt &&
	       cmd->iov_offset >= cmd->iov[cmd->iov_index].iov_len) {
		cmd->iov_offset -= cmd->iov[cmd->iov_index].iov_len;
		cmd->iov_index++;
	}
}

/* The common case: all of it in one iovec and at most two pages, which need no list. */
static bool name_two_pages(struct nvme_cmd *cmd, struct nvme_req *r, uint64_t want)
{
	const struct iovec *v = &cmd->iov[cmd->iov_index];
	uint64_t at = nvme_iova(v->iov_base) + cmd->iov_offset;
	uint64_t end = at % NVME_PAGE + want;

	/* Physical addresses of the two need not follow each other. */
	if (__builtin_expect(nvme_pool.physical != NULL, 0))
		return false;
	if (end > 2 * NVME_PAGE || v->iov_len - cmd->iov_offset < want)
		return false;
	r->prp1 = at;
	r->prp2 = end > NVME_PAGE ? round_down(at, NVME_PAGE) + NVME_PAGE : 0;
	cmd->iov_offset += want;
	if (cmd->iov_offset == v->iov_len) {
		cmd->iov_offset = 0;
		cmd->iov_index++;
	}
	return true;
}

/* By a list of buffers of any form, where pages do not name all of it; returns how many bytes it names. */
static uint64_t name_sgl(struct nvme_qpair *q, const struct nvme_cmd *cmd, struct nvme_req *r,
			 uint64_t want)
{
	struct nvme_sgl *list = (void *)list_of(q, r);
	uint64_t named = 0, offset = cmd->iov_offset;
	uint32_t n = 0;

	for (int i = cmd->iov_index; named < want && n < NVME_PAGE / sizeof(*list);) {
		const struct iovec *v = &cmd->iov[i];
		const char *at = (const char *)v->iov_base + offset;
		uint64_t len = nvme_contiguous(at, MIN(v->iov_len - offset, want - named));

		list[n++] = (struct nvme_sgl){
			.address = nvme_iova(at),
			.length = (uint32_t)len,
		};
		named += len;
		offset += len;
		if (offset == v->iov_len) {
			offset = 0;
			i++;
		}
	}
	/* Whole blocks only: what is too much is taken off the end again. */
	while (named % (1u << q->ns->shift) && cmd->op != NVME_RAW) {
		uint64_t extra = MIN(named % (1u << q->ns->shift), (uint64_t)list[n - 1].length);

		list[n - 1].length -= (uint32_t)extra;
		named -= extra;
		if (!list[n - 1].length)
			n--;
	}
	r->sgl = true;
	r->prp1 = nvme_iova(list);
	r->prp2 = n * sizeof(*list) | (uint64_t)NVME_SGL_LAST_SEGMENT << 56;
	return named;
}

/* Names the buffers of at most *units units of 1 << shift bytes; fewer may be possible. */
static int name_data(struct nvme_qpair *q, struct nvme_cmd *cmd, struct nvme_req *r, unsigned shift,
		     uint32_t *units)
{
	struct walk w = { .list = list_of(q, r) };
	uint64_t want = (uint64_t)*units << shift, offset = cmd->iov_offset;

	if (name_two_pages(cmd, r, want))
		return 0;
	for (int i = cmd->iov_index; w.named < want; i++, offset = 0) {
		const struct iovec *v = &cmd->iov[i];
		uint64_t len = MIN(v->iov_len - offset, want - w.named);

		if (!name_all(r, &w, (const char *)v->iov_base + offset, len))
			break;
	}
	if (w.named < want && q->c->info.sgl) {
		*units = (uint32_t)(name_sgl(q, cmd, r, want) >> shift);
		advance(cmd, (uint64_t)*units << shift);
		return *units ? 0 : -EINVAL;
	}
	*units = (uint32_t)(w.named >> shift);
	if (!*units)
		return -EINVAL;
	/* A page too many does no harm in a list, but PRP2 changes its meaning with the number: count again. */
	want = (uint64_t)*units << shift;
	w.pages = (unsigned)div_round_up(r->prp1 % NVME_PAGE + want, NVME_PAGE);
	r->prp2 = w.pages == 1 ? 0 : w.pages == 2 ? w.list[0] : nvme_iova(w.list);
	advance(cmd, want);
	return 0;
}

static void name_range(struct nvme_qpair *q, struct nvme_req *r)
{
	struct nvme_dsm_range *range = (void *)list_of(q, r);

	*range = (struct nvme_dsm_range){ .blocks = r->blocks, .lba = r->lba };
	r->prp1 = nvme_iova(range);
}

static void name_source(struct nvme_qpair *q, struct nvme_req *r)
{
	struct nvme_copy_range *range = (void *)list_of(q, r);

	*range = (struct nvme_copy_range){
		.lba = r->cmd->source + r->cmd->issued,
		.blocks = (uint16_t)(r->blocks - 1),
	};
	r->prp1 = nvme_iova(range);
}

/* ---- pieces ---- */

/* All of its data at once, or not at all. */
static int make_raw(struct nvme_qpair *q, struct nvme_cmd *cmd, struct nvme_req *r)
{
	uint32_t dwords = 0, named;
	int rc = 0;

	for (int i = 0; i < cmd->iovcnt; i++)
		dwords += (uint32_t)(cmd->iov[i].iov_len / 4);
	named = dwords;
	if (dwords)
		rc = name_data(q, cmd, r, 2, &named);
	return rc ? rc : named == dwords ? PIECE_LAST : -EINVAL;
}

static uint32_t up_to_boundary(const struct nvme_ns *ns, uint64_t lba, uint32_t blocks)
{
	uint32_t b = ns->info.optimal_boundary;

	if (is_pow2(b))
		return MIN(blocks, b - (uint32_t)(lba & (b - 1)));
	return MIN(blocks, b - (uint32_t)(lba % b));
}

int piece_make(struct nvme_qpair *q, struct nvme_cmd *cmd, struct nvme_req *r)
{
	uint64_t left = cmd->blocks - cmd->issued;
	int rc = cmd->op == NVME_RAW ? 0 : choose_ns(q, cmd->nsid);

	if (rc)
		return rc;
	/* Its blocks and buffers were counted in those of the namespace as it was. */
	if (cmd->op != NVME_RAW && cmd->shift != q->ns->shift)
		return -ENODEV;
	r->cmd = cmd;
	r->ns = q->ns;
	r->lba = cmd->lba + cmd->issued;
	r->prp1 = r->prp2 = 0;
	r->blocks = 0;
	r->sgl = false;
	r->prinfo = q->ns->prinfo;
	if (cmd->op == NVME_RAW)
		return make_raw(q, cmd, r);
	if (cmd->op == NVME_FLUSH)
		return PIECE_LAST;
	if (has_data(cmd->op)) {
		r->blocks = (uint32_t)MIN(left, (uint64_t)q->ns->max_blocks);
		if (q->ns->info.optimal_boundary)
			r->blocks = up_to_boundary(q->ns, r->lba, r->blocks);
		rc = name_data(q, cmd, r, q->ns->shift, &r->blocks);
		if (rc)
			return rc;
	} else if (cmd->op == NVME_COPY) {
		r->blocks = (uint32_t)MIN(left, (uint64_t)q->ns->copy_blocks);
		name_source(q, r);
	} else if (cmd->op == NVME_DEALLOCATE) {
		r->blocks = (uint32_t)MIN(left, (uint64_t)q->ns->range_blocks);
		name_range(q, r);
	} else {
		r->blocks = (uint32_t)MIN(
			left, (uint64_t)(cmd->op == NVME_VERIFY ? q->ns->verify_blocks : q->ns->zero_blocks));
	}
	cmd->issued += r->blocks;
	return cmd->issued == cmd->blocks ? PIECE_LAST : PIECE_MORE;
}

void piece_fill(const struct nvme_req *r, struct nvme_sqe *sqe)
{
	const struct nvme_cmd *cmd = r->cmd;

	if (cmd->op == NVME_RAW) {
		memcpy(sqe, cmd->raw, sizeof(*sqe));
		sqe->cid = r->cid;
		sqe->prp1 = r->prp1;
		sqe->prp2 = r->prp2;
		if (r->sgl)
			sqe->flags |= NVME_SQE_SGL;
		return;
	}
	*sqe = (struct nvme_sqe){
		.opcode = (uint8_t)piece_opcode(cmd->op),
		.cid = r->cid,
		.nsid = cmd->nsid,
		.flags = r->sgl ? NVME_SQE_SGL : 0,
		.prp1 = r->prp1,
		.prp2 = r->prp2,
	};
	if (cmd->op == NVME_FLUSH)
		return;
	if (cmd->op == NVME_DEALLOCATE) {
		sqe->cdw11 = NVME_DSM_AD; /* one range: CDW10 is 0 */
		return;
	}
	sqe->cdw10 = (uint32_t)r->lba;
	sqe->cdw11 = (uint32_t)(r->lba >> 32);
	sqe->cdw12 = cmd->op == NVME_COPY ? 0 : r->blocks - 1; /* one range */
	if (cmd->flags & NVME_FUA)
		sqe->cdw12 |= NVME_RW_FUA;
	if (r->prinfo) {
		/* Verifying makes none, and zeroes come with nothing to check. */
		sqe->cdw12 |= r->prinfo & ~(cmd->op == NVME_VERIFY	   ? NVME_RW_PRACT :
					    cmd->op == NVME_WRITE_ZEROES ? NVME_RW_PRCHK :
									   0);
		sqe->cdw14 = r->prinfo & NVME_RW_PRCHK_REF ? (uint32_t)r->lba : 0;
	}
	if (r->ns->meta && cmd->op <= NVME_WRITE)
		sqe->mptr = cmd->op == NVME_READ ? r->ns->meta_in : r->ns->meta_out;
	if (cmd->op == NVME_WRITE_ZEROES && cmd->flags & NVME_MAY_DEALLOCATE)
		sqe->cdw12 |= NVME_WZ_DEAC;
}

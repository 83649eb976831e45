/* SPDX-License-Identifier: BSD-2-Clause */
/* Namespaces: which are active, and how they are formatted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define COUNT_LIMIT 65536u /* blocks that CDW12 can name */

const struct nvme_ns nvme_no_ns;

/* Of a command that transfers nothing. */
static uint32_t blocks_of(const struct nvme_ctrlr *c, const struct nvme_ns *ns, uint64_t bytes)
{
	return (uint32_t)MIN((bytes ? bytes : c->info.max_transfer) >> ns->shift, (uint64_t)COUNT_LIMIT);
}

static void set_limits(struct nvme_ctrlr *c, struct nvme_ns *ns, const struct nvme_id_ns *id)
{
	const struct nvme_lbaf *f = &id->lbaf[id->flbas & 0xf];
	bool own = id->nsfeat & NVME_NSFEAT_NSABP;
	uint32_t atomic = own ? id->nawupf : c->awupf;

	ns->info.blocks = id->nsze;
	ns->info.block_size = 1u << ns->shift;
	ns->info.optimal_boundary = id->noiob;
	ns->info.atomic_write = (uint32_t)MIN(((uint64_t)atomic + 1) << ns->shift, MiB);
	ns->info.deallocated_zeroes = NVME_DLFEAT_READ(id->dlfeat) == NVME_DLFEAT_ZEROES;
	ns->max_blocks = MIN(c->info.max_transfer >> ns->shift, COUNT_LIMIT);
	if (ns->meta)
		ns->max_blocks = MIN(ns->max_blocks, NVME_PAGE / ns->meta);
	ns->zero_blocks = blocks_of(c, ns, c->max_zeroes);
	ns->verify_blocks = blocks_of(c, ns, c->max_verify);
	ns->range_blocks = c->max_range;
	/* Two pages need no list; what is no power of two wants a division. */
	ns->short_blocks = MIN(ns->max_blocks, 2 * NVME_PAGE >> ns->shift);
	ns->boundary_mask = id->noiob ? id->noiob - 1u : UINT64_MAX;
	/* Physical addresses of two pages need not follow each other. */
	if ((id->noiob && !is_pow2(id->noiob)) || nvme_pool.physical || ns->meta)
		ns->short_blocks = 0;
	ns->info.protection = ns->meta ? 0 : f->ms ? NVME_DPS_TYPE(id->dps) : 0;
	if (ns->info.protection) {
		/* Types 1 and 2 have the place as reference tag. */
		ns->tag_mask = ns->info.protection < 3 ? UINT32_MAX : 0;
		ns->prinfo = NVME_RW_PRACT | NVME_RW_PRCHK_GUARD |
			     (ns->tag_mask ? NVME_RW_PRCHK_REF : 0);
		return;
	}
	ns->copy_blocks = MIN((uint32_t)id->mssrl, id->mcl);
}

/* What the page says is a namespace that can be used, or why not. */
static int judge(struct nvme_ctrlr *c, struct nvme_ns *ns, const struct nvme_id_ns *id,
		 struct base_err *err)
{
	unsigned format = id->flbas & 0xf;
	const struct nvme_lbaf *f = &id->lbaf[format];
	const char *name = c->info.address;
	uint32_t nsid = ns->info.nsid;

	if (format > id->nlbaf)
		return base_err_set(err, -EPROTO, "%s: namespace %u has format %u of %u", name,
				    nsid, format, id->nlbaf + 1u);
	if (!id->nsze)
		return base_err_set(err, -EPROTO, "%s: namespace %u has no blocks", name, nsid);
	if (f->lbads < 9 || f->lbads > 12)
		return base_err_set(err, -ENOTSUP, "%s: namespace %u has blocks of 2^%u bytes",
				    name, nsid, f->lbads);
	if (id->nsze > UINT64_MAX >> f->lbads)
		return base_err_set(err, -EPROTO, "%s: namespace %u says it has %llu blocks", name,
				    nsid, (unsigned long long)id->nsze);
	/* Metadata beside the blocks get a place of their own. Protection information alone is added and taken off by the controller. */
	if (f->ms && f->ms <= NVME_PAGE && !NVME_DPS_TYPE(id->dps) && !(id->flbas & NVME_FLBAS_EXTENDED)) {
		ns->meta = f->ms;
		ns->meta_in = nvme_iova(c->meta);
		ns->meta_out = nvme_iova(c->meta + NVME_PAGE);
	} else if (f->ms && (f->ms != 8 || !NVME_DPS_TYPE(id->dps)))
		return base_err_set(
			err, -ENOTSUP,
			"%s: namespace %u has %u bytes of metadata a block%s%s; format it without",
			name, nsid, f->ms,
			id->flbas & NVME_FLBAS_EXTENDED ? ", in the block" : " beside it",
			NVME_DPS_TYPE(id->dps) ? ", protection information among them" : "");
	if (NVME_DPS_TYPE(id->dps) > 3)
		return base_err_set(err, -EPROTO, "%s: namespace %u has protection of type %u",
				    name, nsid, NVME_DPS_TYPE(id->dps));
	ns->shift = f->lbads;
	set_limits(c, ns, id);
	return 0;
}

static bool same_form(const struct nvme_ns *a, const struct nvme_ns *b)
{
	return a->shift == b->shift && a->max_blocks == b->max_blocks &&
	       a->short_blocks == b->short_blocks && a->boundary_mask == b->boundary_mask &&
	       a->zero_blocks == b->zero_blocks && a->verify_blocks == b->verify_blocks &&
	       a->copy_blocks == b->copy_blocks && a->prinfo == b->prinfo && a->meta == b->meta;
}

/*
 * Lock held. Queue pairs read namespaces without it, so one that is known changes only its size and whether it can be used. When its
 * form is another the old one ends, and one that was like the new one lives again, or one is added.
 */
static void update(struct nvme_ctrlr *c, const struct nvme_ns *now)
{
	unsigned n = atomic_load(&c->nns);
	struct nvme_ns *found = NULL;
	bool known = false;

	for (unsigned i = 0; i < n; i++) {
		struct nvme_ns *ns = &c->ns[i];

		if (ns->info.nsid != now->info.nsid)
			continue;
		known = true;
		if (!found && !now->unusable && same_form(ns, now))
			found = ns;
		else
			__atomic_store_n(&ns->unusable, now->unusable ? now->unusable : -ENODEV,
					 __ATOMIC_RELAXED);
	}
	if (found) {
		__atomic_store_n(&found->info.blocks, now->info.blocks, __ATOMIC_RELAXED);
		__atomic_store_n(&found->unusable, 0, __ATOMIC_RELAXED);
	} else if (known && now->unusable) {
		return; /* it is marked */
	} else if (n < NVME_MAX_NS) {
		c->ns[n] = *now;
		atomic_store(&c->nns, n + 1);
	} else {
		log_warn("%s: only %u namespaces are used", c->info.address, NVME_MAX_NS);
	}
}

int ns_learn(struct nvme_ctrlr *c, uint32_t nsid, const struct nvme_id_ns *id, struct base_err *err)
{
	struct nvme_ns now = { .info.nsid = nsid };

	now.unusable = judge(c, &now, id, err);
	update(c, &now);
	return now.unusable;
}

void ns_lose(struct nvme_ctrlr *c, uint32_t nsid, int why)
{
	struct nvme_ns now = { .info.nsid = nsid, .unusable = why };

	update(c, &now);
}

uint32_t ns_known_after(const struct nvme_ctrlr *c, uint32_t nsid)
{
	uint32_t next = 0;

	for (unsigned i = 0; i < c->nns; i++)
		if (c->ns[i].info.nsid > nsid && (!next || c->ns[i].info.nsid < next))
			next = c->ns[i].info.nsid;
	return next;
}

/* One that the controller says it cannot identify is no reason to do without the others. */
static int read_one(struct nvme_ctrlr *c, uint32_t nsid, struct nvme_id_ns *id,
		    struct base_err *err)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_IDENTIFY, .nsid = nsid, .cdw10 = NVME_CNS_NS };
	struct nvme_admin_cmd cmd = { .sqe = &sqe, .data = id, .len = sizeof(*id) };
	int rc;

	memset(id, 0, sizeof(*id));
	rc = nvme_admin_cmd(c, &cmd);
	if (rc)
		base_err_set(err, rc, "%s: cannot identify namespace %u: %s", c->info.address, nsid,
			     cmd.status ? nvme_status_text(cmd.status) : strerror(-rc));
	if (rc && !cmd.status)
		return rc;
	pthread_mutex_lock(&c->lock);
	if (rc) {
		log_warn("%s: namespace %u cannot be identified: %s", c->info.address, nsid,
			 nvme_status_text(cmd.status));
		ns_lose(c, nsid, rc);
	} else {
		ns_learn(c, nsid, id, err);
	}
	pthread_mutex_unlock(&c->lock);
	return 0;
}

int ns_refresh(struct nvme_ctrlr *c, uint32_t nsid)
{
	struct nvme_id_ns *id = base_malloc(sizeof(*id));
	int rc = id ? 0 : -ENOMEM;

	if (!rc && nsid != NVME_NSID_ALL)
		rc = read_one(c, nsid, id, NULL);
	for (uint32_t last = 0, next = 0; !rc && nsid == NVME_NSID_ALL; last = next) {
		rc = nvme_list_namespaces(c, last, false, &next, 1);
		if (rc <= 0)
			break;
		/* A list that does not grow has no end. */
		rc = next > last ? read_one(c, next, id, NULL) : -EPROTO;
	}
	free(id);
	return rc;
}

static int read_list(struct nvme_ctrlr *c, uint32_t *ids, struct nvme_id_ns *id,
		     struct base_err *err)
{
	uint32_t last = 0;
	int rc = nvme_identify(c, NVME_CNS_ACTIVE_NS, 0, ids);

	if (rc)
		return base_err_set(err, rc, "%s: no list of namespaces: %s", c->info.address,
				    strerror(-rc));
	for (unsigned i = 0; i < NVME_IDS_OF_A_PAGE && ids[i] && !rc; i++) {
		if (ids[i] <= last)
			return base_err_set(err, -EPROTO,
					    "%s: the list of namespaces is not in order",
					    c->info.address);
		last = ids[i];
		rc = read_one(c, last, id, err);
	}
	return rc;
}

/* A controller of which no namespace can be used is refused, with what is wrong with the last. */
int ns_read_all(struct nvme_ctrlr *c, struct base_err *err)
{
	struct nvme_id_ns *id = base_malloc(sizeof(*id));
	uint32_t *ids = base_malloc(NVME_PAGE);
	int rc = -ENOMEM, why = -ENODEV;

	if (id && ids)
		rc = read_list(c, ids, id, err);
	free(id);
	free(ids);
	if (rc)
		return err && *err->text
			       ? rc
			       : base_err_set(err, rc, "%s: %s", c->info.address, strerror(-rc));
	c->info.namespaces = c->nns;
	for (unsigned i = 0; i < c->nns; i++) {
		if (!c->ns[i].unusable)
			return 0;
		why = c->ns[i].unusable;
	}
	return c->nns ? why
		      : base_err_set(err, why, "%s: the controller has no namespace",
				     c->info.address);
}

const struct nvme_ns *ns_find(const struct nvme_ctrlr *c, uint32_t nsid)
{
	const struct nvme_ns *ns = NULL;

	/* One that can be used comes before what it was. */
	for (unsigned i = 0; i < c->nns && (!ns || ns_unusable(ns)); i++)
		if (c->ns[i].info.nsid == nsid)
			ns = &c->ns[i];
	return ns;
}

/* Its size may change while we look, the rest not. */
static void tell(const struct nvme_ns *ns, struct nvme_ns_info *out)
{
	*out = (struct nvme_ns_info){
		.nsid = ns->info.nsid,
		.block_size = ns->info.block_size,
		.blocks = ns_blocks(ns),
		.optimal_boundary = ns->info.optimal_boundary,
		.atomic_write = ns->info.atomic_write,
		.deallocated_zeroes = ns->info.deallocated_zeroes,
		.protection = ns->info.protection,
	};
}

int nvme_ns_next(const struct nvme_ctrlr *c, uint32_t after, struct nvme_ns_info *out)
{
	const struct nvme_ns *next = NULL;

	for (unsigned i = 0; i < c->nns; i++) {
		const struct nvme_ns *ns = &c->ns[i];

		if (ns->info.nsid > after && !ns_unusable(ns) &&
		    (!next || ns->info.nsid < next->info.nsid))
			next = ns;
	}
	if (!next)
		return -ENOENT;
	tell(next, out);
	return 0;
}

int nvme_ns_get(const struct nvme_ctrlr *c, uint32_t nsid, struct nvme_ns_info *out)
{
	const struct nvme_ns *ns = ns_find(c, nsid);

	if (!ns)
		return -ENOENT;
	if (ns_unusable(ns))
		return ns_unusable(ns);
	tell(ns, out);
	return 0;
}

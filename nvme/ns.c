/* SPDX-License-Identifier: BSD-2-Clause */
/* Namespaces: which are active, and how they are formatted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define IDS_OF_A_PAGE 1024u

const struct nvme_ns nvme_no_ns;

static void set_limits(struct nvme_ctrlr *c, struct nvme_ns *ns, const struct nvme_id_ns *id,
		       const struct nvme_id_ctrlr *idc)
{
	bool own = id->nsfeat & NVME_NSFEAT_NSABP;
	uint32_t atomic = own ? id->nawupf : idc->awupf;

	ns->info.blocks = id->nsze;
	ns->info.block_size = 1u << ns->shift;
	ns->info.optimal_boundary = id->noiob;
	ns->info.atomic_write = (uint32_t)MIN(((uint64_t)atomic + 1) << ns->shift, MiB);
	ns->info.deallocated_zeroes = NVME_DLFEAT_READ(id->dlfeat) == NVME_DLFEAT_ZEROES;
	ns->max_blocks = MIN(c->info.max_transfer >> ns->shift, 65536u);
	/* Two pages need no list; what is no power of two wants a division. */
	ns->short_blocks = MIN(ns->max_blocks, 2 * NVME_PAGE >> ns->shift);
	ns->boundary_mask = id->noiob ? id->noiob - 1u : UINT64_MAX;
	if (id->noiob && !is_pow2(id->noiob))
		ns->short_blocks = 0;
}

/* What the page says is a namespace that can be used, or why not. */
static int judge(struct nvme_ctrlr *c, struct nvme_ns *ns, const struct nvme_id_ns *id,
		 const struct nvme_id_ctrlr *idc, struct base_err *err)
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
	if (f->ms)
		return base_err_set(err, -ENOTSUP,
				    "%s: namespace %u has %u bytes of metadata a block", name, nsid,
				    f->ms);
	ns->shift = f->lbads;
	set_limits(c, ns, id, idc);
	return 0;
}

static int read_one(struct nvme_ctrlr *c, uint32_t nsid, struct nvme_id_ns *id,
		    const struct nvme_id_ctrlr *idc, struct base_err *err)
{
	struct nvme_ns *ns = &c->ns[c->nns];
	int rc;

	if (c->nns == NVME_MAX_NS) {
		log_warn("%s: only the first %u namespaces are used", c->info.address, NVME_MAX_NS);
		return 0;
	}
	rc = nvme_identify(c, NVME_CNS_NS, nsid, id);
	if (rc)
		return base_err_set(err, rc, "%s: cannot identify namespace %u: %s",
				    c->info.address, nsid, strerror(-rc));
	ns->info.nsid = nsid;
	ns->unusable = judge(c, ns, id, idc, err);
	c->nns++;
	return 0;
}

static int read_list(struct nvme_ctrlr *c, uint32_t *ids, struct nvme_id_ns *id,
		     const struct nvme_id_ctrlr *idc, struct base_err *err)
{
	uint32_t last = 0;
	int rc = nvme_identify(c, NVME_CNS_ACTIVE_NS, 0, ids);

	if (rc)
		return base_err_set(err, rc, "%s: no list of namespaces: %s", c->info.address,
				    strerror(-rc));
	for (unsigned i = 0; i < IDS_OF_A_PAGE && ids[i] && !rc; i++) {
		if (ids[i] <= last)
			return base_err_set(err, -EPROTO,
					    "%s: the list of namespaces is not in order",
					    c->info.address);
		last = ids[i];
		rc = read_one(c, last, id, idc, err);
	}
	return rc;
}

/* A controller of which no namespace can be used is refused, with what is wrong with the last. */
int ns_read_all(struct nvme_ctrlr *c, struct base_err *err)
{
	struct nvme_id_ctrlr *idc = base_malloc(sizeof(*idc));
	struct nvme_id_ns *id = base_malloc(sizeof(*id));
	uint32_t *ids = base_malloc(NVME_PAGE);
	int rc = -ENOMEM, why = -ENODEV;

	if (idc && id && ids)
		rc = nvme_identify(c, NVME_CNS_CTRLR, 0, idc);
	if (!rc)
		rc = read_list(c, ids, id, idc, err);
	free(idc);
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

static const struct nvme_ns *find(const struct nvme_ctrlr *c, uint32_t nsid)
{
	for (unsigned i = 0; i < c->nns; i++)
		if (c->ns[i].info.nsid == nsid)
			return &c->ns[i];
	return NULL;
}

int nvme_ns_next(const struct nvme_ctrlr *c, uint32_t after, struct nvme_ns_info *out)
{
	for (unsigned i = 0; i < c->nns; i++) {
		if (c->ns[i].info.nsid > after && !c->ns[i].unusable) {
			*out = c->ns[i].info;
			return 0;
		}
	}
	return -ENOENT;
}

int nvme_ns_get(const struct nvme_ctrlr *c, uint32_t nsid, struct nvme_ns_info *out)
{
	const struct nvme_ns *ns = find(c, nsid);

	if (!ns)
		return -ENOENT;
	if (ns->unusable)
		return ns->unusable;
	*out = ns->info;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* identify: the controller's page, and those of its namespaces. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "nvme/spec.h"
#include "tools/common/common.h"
#include "tools/nvme/verb.h"

#define F(page_, name_, kind_)                                                             \
	{                                                                                  \
#name_, offsetof(page_, name_), sizeof(((page_ *)0)->name_), FIELD_##kind_ \
	}
#define C(name_, kind_) F(struct nvme_id_ctrlr, name_, kind_)
#define N(name_, kind_) F(struct nvme_id_ns, name_, kind_)

static const struct field ctrlr_fields[] = {
	C(vid, HEX),     C(ssvid, HEX), C(sn, TEXT),    C(mn, TEXT),   C(fr, TEXT),
	C(rab, DEC),     C(ieee, HEX),  C(cmic, HEX),   C(mdts, DEC),  C(cntlid, HEX),
	C(ver, HEX),     C(rtd3r, DEC), C(rtd3e, DEC),  C(oaes, HEX),  C(ctratt, HEX),
	C(oacs, HEX),    C(acl, DEC),   C(aerl, DEC),   C(frmw, HEX),  C(lpa, HEX),
	C(elpe, DEC),    C(npss, DEC),  C(avscc, HEX),  C(apsta, HEX), C(wctemp, DEC),
	C(cctemp, DEC),  C(mtfa, DEC),  C(hmpre, DEC),  C(hmmin, DEC), C(tnvmcap, BIG),
	C(unvmcap, BIG), C(rpmbs, HEX), C(edstt, DEC),  C(dsto, DEC),  C(fwug, DEC),
	C(kas, DEC),     C(hctma, HEX), C(mntmt, DEC),  C(mxtmt, DEC), C(sanicap, HEX),
	C(sqes, HEX),    C(cqes, HEX),  C(maxcmd, DEC), C(nn, DEC),    C(oncs, HEX),
	C(fuses, HEX),   C(fna, HEX),   C(vwc, HEX),    C(awun, DEC),  C(awupf, DEC),
	C(nvscc, HEX),   C(nwpc, HEX),  C(acwu, DEC),   C(sgls, HEX),  C(mnan, DEC),
	C(subnqn, TEXT),
};

static const struct field ns_fields[] = {
	N(nsze, DEC),   N(ncap, DEC),  N(nuse, DEC),   N(nsfeat, HEX), N(nlbaf, DEC),
	N(flbas, HEX),  N(mc, HEX),    N(dpc, HEX),    N(dps, HEX),    N(nmic, HEX),
	N(rescap, HEX), N(fpi, HEX),   N(dlfeat, HEX), N(nawun, DEC),  N(nawupf, DEC),
	N(nacwu, DEC),  N(nabsn, DEC), N(nabo, DEC),   N(nabspf, DEC), N(noiob, DEC),
	N(nvmcap, BIG), N(npwg, DEC),  N(npwa, DEC),   N(npdg, DEC),   N(npda, DEC),
	N(nows, DEC),   N(nguid, RAW), N(eui64, RAW),
};

static unsigned formats(const struct nvme_id_ns *id)
{
	return MIN(id->nlbaf + 1u, (unsigned)ARRAY_SIZE(id->lbaf));
}

static void print_ns(uint32_t nsid, const struct nvme_id_ns *id)
{
	unsigned used = id->flbas & 0xf;
	const struct nvme_lbaf *f = &id->lbaf[used];
	char text[32] = "?";

	if (f->lbads >= 9 && f->lbads < 32)
		base_format_size(id->nsze << f->lbads, text, sizeof(text));
	printf("\nnamespace %u (%s)\n", nsid, text);
	fields_print(ns_fields, ARRAY_SIZE(ns_fields), id);
	for (unsigned i = 0; i < formats(id); i++)
		printf("lbaf %-19u: ms:%u lbads:%u rp:%u%s\n", i, id->lbaf[i].ms, id->lbaf[i].lbads,
		       id->lbaf[i].rp & 3u, i == used ? " (in use)" : "");
}

static void add_ns(struct json_object *list, uint32_t nsid, const struct nvme_id_ns *id)
{
	struct json_object *o = fields_json(ns_fields, ARRAY_SIZE(ns_fields), id);
	struct json_object *lbafs = json_object_new_array();

	for (unsigned i = 0; i < formats(id); i++) {
		struct json_object *f = json_object_new_object();

		json_object_object_add(f, "ms", json_object_new_int(id->lbaf[i].ms));
		json_object_object_add(f, "ds", json_object_new_int(id->lbaf[i].lbads));
		json_object_object_add(f, "rp", json_object_new_int(id->lbaf[i].rp & 3));
		json_object_array_add(lbafs, f);
	}
	json_object_object_add(o, "nsid", json_object_new_int64(nsid));
	json_object_object_add(o, "lbafs", lbafs);
	json_object_array_add(list, o);
}

/* An inactive one is a page of zeroes. */
static int read_ns(struct nvme_ctrlr *c, const char *device, uint32_t nsid, struct nvme_id_ns *id)
{
	int rc = nvme_identify(c, NVME_CNS_NS, nsid, id);

	if (!rc && id->nsze)
		return 0;
	tool_error("%s: cannot identify namespace %u: %s", device, nsid,
		   rc ? strerror(-rc) : "it is not active");
	return EXIT_FAILED;
}

/* Of one namespace, or of all that are active. json: NULL to print. */
static int namespaces(struct nvme_ctrlr *c, const char *device, uint32_t only,
		      struct json_object *json)
{
	uint32_t ids[NVME_PAGE / 4] = { only };
	struct nvme_id_ns id;
	int rc = only ? 0 : nvme_identify(c, NVME_CNS_ACTIVE_NS, 0, ids);

	if (rc)
		return device_failed(device, "cannot list its namespaces", rc);
	for (unsigned i = 0; i < ARRAY_SIZE(ids) && ids[i]; i++) {
		rc = read_ns(c, device, ids[i], &id);
		if (rc)
			return rc;
		if (json)
			add_ns(json, ids[i], &id);
		else
			print_ns(ids[i], &id);
	}
	return 0;
}

static void print_ctrlr(const char *device, const struct nvme_id_ctrlr *id)
{
	char text[32] = "no limit";

	if (id->mdts && id->mdts < 20)
		base_format_size(4096ull << id->mdts, text, sizeof(text));
	printf("%s: NVMe %u.%u, transfers up to %s\n", device, id->ver >> 16, id->ver >> 8 & 0xff,
	       text);
	fields_print(ctrlr_fields, ARRAY_SIZE(ctrlr_fields), id);
}

static int identify(struct nvme_ctrlr *c, const char *device, uint32_t nsid, bool json)
{
	struct json_object *o, *list;
	struct nvme_id_ctrlr id;
	struct nvme_id_ns ns;
	int rc = nvme_identify(c, NVME_CNS_CTRLR, 0, &id);

	if (rc)
		return device_failed(device, "cannot identify the controller", rc);
	if (nsid && read_ns(c, device, nsid, &ns))
		return EXIT_FAILED;
	if (!json) {
		print_ctrlr(device, &id);
		return namespaces(c, device, nsid, NULL);
	}
	o = json_object_new_object();
	list = json_object_new_array();
	json_object_object_add(o, "device", json_object_new_string(device));
	json_object_object_add(o, "controller",
			       fields_json(ctrlr_fields, ARRAY_SIZE(ctrlr_fields), &id));
	json_object_object_add(o, "namespaces", list);
	rc = namespaces(c, device, nsid, list);
	if (!rc)
		return print_json(o);
	json_object_put(o);
	return rc;
}

static int run(int argc, char **argv)
{
	struct nvme_ctrlr *c;
	const char *device;
	bool json = false;
	uint32_t nsid;
	int rc = parse_device(&verb_identify, argc, argv, &device, &json);

	if (rc >= 0)
		return rc;
	rc = device_attach(device, &c, &nsid);
	if (rc)
		return rc;
	rc = identify(c, device, nsid, json);
	nvme_detach(c);
	return rc;
}

const struct verb verb_identify = {
	"identify", "DEVICE [--json]", "What a controller says of itself and its namespaces", NULL,
	run,
};

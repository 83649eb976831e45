/* SPDX-License-Identifier: BSD-2-Clause */
/* smart and errors: the log pages of health and of errors. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "nvme/spec.h"
#include "tools/common/common.h"
#include "tools/nvme/verb.h"

#define S(key_, name_, kind_)                                                                      \
	{                                                                                          \
		key_, offsetof(struct nvme_smart, name_), sizeof(((struct nvme_smart *)0)->name_), \
			FIELD_##kind_                                                              \
	}

/* Keys are those of nvme-cli. */
static const struct field smart_fields[] = {
	S("critical_warning", critical_warning, HEX),
	S("temperature", temperature, DEC),
	S("avail_spare", available_spare, DEC),
	S("spare_thresh", spare_threshold, DEC),
	S("percent_used", percentage_used, DEC),
	S("endurance_grp_critical_warning_summary", endurance_warning, HEX),
	S("data_units_read", units_read, BIG),
	S("data_units_written", units_written, BIG),
	S("host_read_commands", reads, BIG),
	S("host_write_commands", writes, BIG),
	S("controller_busy_time", busy_minutes, BIG),
	S("power_cycles", power_cycles, BIG),
	S("power_on_hours", power_on_hours, BIG),
	S("unsafe_shutdowns", unsafe_shutdowns, BIG),
	S("media_errors", media_errors, BIG),
	S("num_err_log_entries", error_entries, BIG),
	S("warning_temp_time", warning_minutes, DEC),
	S("critical_comp_time", critical_minutes, DEC),
};

static const char *const warnings[] = {
	"the spare space is below its threshold",
	"a temperature is out of its range",
	"reliability is degraded",
	"the medium is read-only",
	"the backup of volatile memory failed",
	"the persistent memory region is read-only",
};

static void print_smart(const char *device, const struct nvme_smart *s)
{
	unsigned kelvin = s->temperature[0] | s->temperature[1] << 8;

	printf("%s: health\n", device);
	fields_print(smart_fields, ARRAY_SIZE(smart_fields), s);
	for (unsigned i = 0; i < ARRAY_SIZE(s->sensors); i++)
		if (s->sensors[i])
			printf("temperature_sensor_%-5u: %u\n", i + 1, s->sensors[i]);
	printf("\n%d degrees Celsius, %u %% of its life used, %u %% spare\n", (int)kelvin - 273,
	       s->percentage_used, s->available_spare);
	for (unsigned i = 0; i < ARRAY_SIZE(warnings); i++)
		if (s->critical_warning & 1u << i)
			printf("WARNING: %s\n", warnings[i]);
}

static int json_smart(const char *device, const struct nvme_smart *s)
{
	struct json_object *o = fields_json(smart_fields, ARRAY_SIZE(smart_fields), s);
	char key[32];

	for (unsigned i = 0; i < ARRAY_SIZE(s->sensors); i++) {
		snprintf(key, sizeof(key), "temperature_sensor_%u", i + 1);
		if (s->sensors[i])
			json_object_object_add(o, key, json_object_new_int(s->sensors[i]));
	}
	json_object_object_add(o, "device", json_object_new_string(device));
	return print_json(o);
}

static int run_smart(int argc, char **argv)
{
	struct nvme_smart smart;
	struct nvme_ctrlr *c;
	const char *device;
	bool json = false;
	uint32_t nsid;
	int rc = parse_device(&verb_smart, argc, argv, &device, &json);

	if (rc >= 0)
		return rc;
	rc = device_attach(device, &c, &nsid);
	if (rc)
		return rc;
	rc = nvme_get_log(c, NVME_LOG_SMART, nsid ? nsid : NVME_NSID_ALL, &smart, sizeof(smart));
	nvme_detach(c);
	if (rc)
		return device_failed(device, "cannot read the health log", rc);
	if (json)
		return json_smart(device, &smart);
	print_smart(device, &smart);
	return EXIT_OK;
}

const struct verb verb_smart = {
	"smart",
	"DEVICE [--json]",
	"The health log: wear, temperature, errors, what was read and written",
	NULL,
	run_smart,
};

/* ---- errors ---- */

static void print_error(unsigned i, const struct nvme_error_entry *e)
{
	uint16_t code = NVME_CQE_CODE(e->status);

	printf("entry %u: error %" PRIu64 ": %s%s\n", i, e->count, nvme_status_text(code),
	       e->status & NVME_CQE_DNR ? ", not to be repeated" : "");
	printf("    queue %u, command %#06x, namespace %u, block %" PRIu64 "\n", e->sqid, e->cid,
	       e->nsid, e->lba);
	if (e->location != 0xffff)
		printf("    the parameter at byte %u, bit %u\n", e->location & 0xffu,
		       e->location >> 8 & 7u);
}

static struct json_object *json_error(const struct nvme_error_entry *e)
{
	struct json_object *o = json_object_new_object();

#define NUMBER(key_, v_) json_object_object_add(o, key_, json_object_new_uint64(v_))
	NUMBER("error_count", e->count);
	NUMBER("sqid", e->sqid);
	NUMBER("cmdid", e->cid);
	NUMBER("status_field", e->status >> 1);
	NUMBER("phase_tag", e->status & NVME_CQE_PHASE);
	NUMBER("parm_error_location", e->location);
	NUMBER("lba", e->lba);
	NUMBER("nsid", e->nsid);
	NUMBER("vs", e->vendor);
	NUMBER("trtype", e->trtype);
	NUMBER("cs", e->specific);
	NUMBER("trtype_spec_info", e->trtype_specific);
#undef NUMBER
	json_object_object_add(o, "status_text",
			       json_object_new_string(nvme_status_text(NVME_CQE_CODE(e->status))));
	return o;
}

static int show_errors(const char *device, const struct nvme_error_entry *e, unsigned n, bool json)
{
	struct json_object *o, *list;
	unsigned used = 0;

	if (!json) {
		for (unsigned i = 0; i < n; i++) {
			if (!e[i].count)
				continue;
			print_error(i, &e[i]);
			used++;
		}
		printf("%s: %u of %u entries of the error log are used\n", device, used, n);
		return EXIT_OK;
	}
	o = json_object_new_object();
	list = json_object_new_array();
	for (unsigned i = 0; i < n; i++)
		if (e[i].count)
			json_object_array_add(list, json_error(&e[i]));
	json_object_object_add(o, "device", json_object_new_string(device));
	json_object_object_add(o, "entries", json_object_new_int64(n));
	json_object_object_add(o, "errors", list);
	return print_json(o);
}

static int read_errors(struct nvme_ctrlr *c, const char *device, bool json)
{
	struct nvme_error_entry log[256] = { 0 };
	struct nvme_id_ctrlr id;
	unsigned n;
	int rc = nvme_identify(c, NVME_CNS_CTRLR, 0, &id);

	if (rc)
		return device_failed(device, "cannot identify the controller", rc);
	n = id.elpe + 1u;
	/* Whole, or as much as fits into one transfer. */
	n = MIN(n, nvme_info(c)->max_transfer / (uint32_t)sizeof(log[0]));
	rc = nvme_get_log(c, NVME_LOG_ERROR, NVME_NSID_ALL, log, n * (uint32_t)sizeof(log[0]));
	if (rc)
		return device_failed(device, "cannot read the error log", rc);
	return show_errors(device, log, n, json);
}

static int run_errors(int argc, char **argv)
{
	struct nvme_ctrlr *c;
	const char *device;
	bool json = false;
	uint32_t nsid;
	int rc = parse_device(&verb_errors, argc, argv, &device, &json);

	if (rc >= 0)
		return rc;
	rc = device_attach(device, &c, &nsid);
	if (rc)
		return rc;
	rc = read_errors(c, device, json);
	nvme_detach(c);
	return rc;
}

const struct verb verb_errors = {
	"errors", "DEVICE [--json]", "The error log, newest first", NULL, run_errors,
};

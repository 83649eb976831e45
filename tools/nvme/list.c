/* SPDX-License-Identifier: BSD-2-Clause */
/* list: the controllers of the machine, and what is missing before they can be used from user space. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "tools/common/common.h"
#include "tools/nvme/sysfs.h"
#include "tools/nvme/verb.h"

#define MAX_ADVICE 8

/* What somebody should type, or know. */
struct todo {
	char text[MAX_ADVICE][256];
	unsigned n, required; /* the others make it better */
};

static void add(struct todo *t, bool required, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void add(struct todo *t, bool required, const char *fmt, ...)
{
	va_list ap;

	t->required += required;
	va_start(ap, fmt);
	if (t->n < MAX_ADVICE)
		vsnprintf(t->text[t->n++], sizeof(t->text[0]), fmt, ap);
	va_end(ap);
}

/* The driver takes those of 2 MiB and no others. */
static bool has_huge(const struct machine *m)
{
	for (unsigned i = 0; i < m->npages; i++)
		if (m->pages[i].size == 2 * MiB && m->pages[i].free)
			return true;
	return false;
}

static bool is_vfio(const struct controller *c)
{
	return !strcmp(c->driver, "vfio-pci");
}

static bool is_ours(const struct controller *c)
{
	return is_vfio(c) || !strcmp(c->driver, "uio_pci_generic") || !strcmp(c->driver, "igb_uio");
}

/* dpdk-hugepages.py and dpdk-devbind.py are in Debian's package dpdk. */
static void needed(const struct machine *m, const struct controller *c, struct todo *t)
{
	const char *driver = m->iommu_groups ? "vfio-pci" : "uio_pci_generic";

	if (*c->used)
		add(t, true, "# %s: free it first", c->used);
	if (!m->iommu_groups && !is_ours(c))
		add(t, true,
		    "# no IOMMU: boot with intel_iommu=on (AMD: amd_iommu=on), or take uio_pci_generic as below, as root");
	/* Without an IOMMU nothing else can be reached; behind one they make it faster. */
	if (!has_huge(m))
		add(t, !m->iommu_groups, "dpdk-hugepages.py --pagesize 2M --setup 1G%s",
		    m->iommu_groups ? "    # better, not needed" : "");
	if (m->iommu_groups && !m->vfio_pci)
		add(t, true, "modprobe vfio-pci");
	else if (!m->iommu_groups && !is_ours(c))
		add(t, true, "modprobe uio_pci_generic");
	if (!is_ours(c))
		add(t, true, "dpdk-devbind.py --bind=%s %s", driver, c->address);
	if (*c->partner && m->iommu_groups)
		add(t, true,
		    "# in its IOMMU group %s is %s, which must be bound to vfio-pci as well",
		    c->group, c->partner);
	if (c->no_access)
		add(t, true, "chown $USER /dev/vfio/%s    # or run as root", c->group);
}

/* ---- for people ---- */

static const char *state_of(const struct controller *c, const struct todo *t)
{
	if (*c->used)
		return c->used;
	return t->required ? "not ready" : "ready";
}

static void print_one(const struct machine *m, const struct controller *c)
{
	struct todo t = { .n = 0 };
	char size[32] = "-", model[80];

	needed(m, c, &t);
	if (c->bytes)
		base_format_size(c->bytes, size, sizeof(size));
	if (*c->model)
		snprintf(model, sizeof(model), "%s", c->model);
	else
		snprintf(model, sizeof(model), "[%04x:%04x]", c->vendor, c->device);
	printf("%-12s  %-15s  %-40s  %9s  %s\n", c->address, *c->driver ? c->driver : "-", model,
	       size, state_of(c, &t));
}

static void print_machine(const struct machine *m)
{
	char a[32];

	printf("\nhugepages: ");
	for (unsigned i = 0; i < m->npages; i++)
		printf("%s%" PRIu64 " of %s (%" PRIu64 " free)", i ? ", " : "", m->pages[i].total,
		       base_format_size(m->pages[i].size, a, sizeof(a)), m->pages[i].free);
	printf("%s\nIOMMU: ", m->npages ? "" : "none");
	if (m->iommu_groups)
		printf("on, %u groups\n", m->iommu_groups);
	else
		printf("off\n");
	printf("vfio-pci: %s\n", m->vfio_pci ? "loaded" : "not loaded");
}

static void print_needs(const struct machine *m, const struct controller *c)
{
	struct todo t = { .n = 0 };

	needed(m, c, &t);
	printf("\nto use %s%s:\n", c->address, t.n ? ", as root" : "");
	for (unsigned i = 0; i < t.n; i++)
		printf("    %s\n", t.text[i]);
	printf("    blobfs-nvme identify nvme:%s\n", c->address);
}

static int show(const struct machine *m, const struct controller *c, int n)
{
	if (!n)
		printf("There is no NVMe controller on PCI here.\n");
	else
		printf("%-12s  %-15s  %-40s  %9s  %s\n", "ADDRESS", "DRIVER", "MODEL", "SIZE",
		       "STATE");
	for (int i = 0; i < n; i++)
		print_one(m, &c[i]);
	print_machine(m);
	for (int i = 0; i < n; i++)
		print_needs(m, &c[i]);
	return EXIT_OK;
}

/* ---- for programs ---- */

static void put_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, *text ? json_object_new_string(text) : NULL);
}

static struct json_object *json_controller(const struct machine *m, const struct controller *c)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	struct todo t = { .n = 0 };

	needed(m, c, &t);
	put_text(o, "address", c->address);
	put_text(o, "driver", c->driver);
	put_text(o, "model", c->model);
	put_text(o, "serial", c->serial);
	put_text(o, "firmware", c->firmware);
	json_object_object_add(o, "vendor", json_object_new_int(c->vendor));
	json_object_object_add(o, "device", json_object_new_int(c->device));
	json_object_object_add(o, "size", json_object_new_uint64(c->bytes));
	json_object_object_add(o, "numa_node", json_object_new_int(c->node));
	put_text(o, "iommu_group", c->group);
	put_text(o, "used", c->used);
	json_object_object_add(o, "ready", json_object_new_boolean(!t.required));
	for (unsigned i = 0; i < t.n; i++)
		json_object_array_add(list, json_object_new_string(t.text[i]));
	json_object_object_add(o, "todo", list);
	return o;
}

static struct json_object *json_machine(const struct machine *m)
{
	struct json_object *o = json_object_new_object(), *pages = json_object_new_array();

	for (unsigned i = 0; i < m->npages; i++) {
		struct json_object *p = json_object_new_object();

		json_object_object_add(p, "size", json_object_new_uint64(m->pages[i].size));
		json_object_object_add(p, "total", json_object_new_uint64(m->pages[i].total));
		json_object_object_add(p, "free", json_object_new_uint64(m->pages[i].free));
		json_object_array_add(pages, p);
	}
	json_object_object_add(o, "hugepages", pages);
	json_object_object_add(o, "iommu_groups", json_object_new_int((int)m->iommu_groups));
	json_object_object_add(o, "vfio_pci", json_object_new_boolean(m->vfio_pci));
	return o;
}

static int show_json(const struct machine *m, const struct controller *c, int n)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();

	for (int i = 0; i < n; i++)
		json_object_array_add(list, json_controller(m, &c[i]));
	json_object_object_add(o, "controllers", list);
	json_object_object_add(o, "machine", json_machine(m));
	return print_json(o);
}

static int run(int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "root", required_argument, NULL, 'r' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	static struct controller found[SYSFS_MAX_CONTROLLERS];
	const char *root = "";
	struct machine m;
	bool json = false;
	int c, n;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'h')
			return verb_help(&verb_list);
		if (c == 'j')
			json = true;
		else if (c == 'r')
			root = optarg;
		else
			return usage_error(&verb_list, "%s", "");
	}
	if (optind != argc)
		return usage_error(&verb_list, "too many arguments");
	sysfs_machine(root, &m);
	n = sysfs_controllers(root, found);
	if (n < 0) {
		tool_error("cannot look at the PCI bus: %s", strerror(-n));
		return EXIT_FAILED;
	}
	return json ? show_json(&m, found, n) : show(&m, found, n);
}

const struct verb verb_list = {
	"list",
	"[--json] [--root DIR]",
	"The machine's NVMe controllers, and what is missing before they can be used",
	"  --root DIR  look at the /sys, /proc and /dev below DIR\n",
	run,
};

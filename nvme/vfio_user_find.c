/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a vfio-user server serves: the first words, the device, its registers and interrupts, and our memory for it. Waits for each
 * answer. Servers differ in what they offer: what is not needed may be missing, be refused, or be told in another form.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/vfio_user_dev.h"

#define MAX_BAR (1 * MiB) /* of which doorbells are mapped */
#define MAX_VECTORS 2048u

/* ---- regions ---- */

int vu_region_read(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size)
{
	struct vu_region_access r = { offset, region, size };
	struct vu_answer a;
	int rc = vu_ask_simple(&v->conn, VU_REGION_READ, &r, sizeof(r), &a,
			       (uint32_t)sizeof(r) + size);

	if (rc)
		return rc;
	vu_drop_fds(&a);
	memcpy(buf, a.data + sizeof(r), size);
	return 0;
}

int vu_region_write(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size)
{
	struct vu_region_access r = { offset, region, size };
	struct iovec part[2] = { { &r, sizeof(r) }, { buf, size } };
	struct vu_answer a;
	int rc = vu_ask(&v->conn, VU_REGION_WRITE, part, -1, &a, 0);

	vu_drop_fds(&a);
	return rc;
}

/* ---- the first words ---- */

static int negotiate(struct vu *v, const char *path, struct base_err *err)
{
	/* Whatever the server answers to these, we send single registers and single descriptors. */
	static char json[] =
		"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":4080}}";
	struct vu_version want = { VU_MAJOR, VU_MINOR }, got;
	struct iovec part[2] = { { &want, sizeof(want) }, { json, sizeof(json) } };
	struct vu_answer a;
	int rc = vu_ask(&v->conn, VU_VERSION, part, -1, &a, sizeof(want));

	if (rc == -ENODEV || rc == -EBUSY)
		return base_err_set(err, -EBUSY,
				    "%s: the server hangs up; is it in use by another program?",
				    path);
	if (rc == -ETIMEDOUT)
		return base_err_set(
			err, rc, "%s: the server does not answer; is it in use by another program?",
			path);
	if (rc)
		return base_err_set(err, rc, "%s: not a vfio-user server: %s", path, strerror(-rc));
	vu_drop_fds(&a);
	memcpy(&got, a.data, sizeof(got));
	if (got.major != VU_MAJOR || got.minor > VU_MINOR)
		return base_err_set(err, -EPROTO, "%s: speaks vfio-user %u.%u, not %u.%u", path,
				    got.major, got.minor, VU_MAJOR, VU_MINOR);
	return 0;
}

/* Without interrupts that can be bound one by one, who waits has to look by himself. */
static int find_vectors(struct vu *v)
{
	struct vu_irq_info i = { .argsz = sizeof(i), .index = VU_PCI_MSIX };
	struct vu_answer a;
	int rc = vu_ask_simple(&v->conn, VU_IRQ_INFO, &i, sizeof(i), &a, 0);

	if (rc)
		return v->conn.dead ? rc : 0;
	vu_drop_fds(&a);
	if (a.len < sizeof(i))
		return 0;
	memcpy(&i, a.data, sizeof(i));
	if (i.flags & VU_IRQ_EVENTFD && !(i.flags & VU_IRQ_NORESIZE))
		v->vectors = MIN(i.count, MAX_VECTORS);
	return 0;
}

static int check_device(struct vu *v, const char *path, struct base_err *err)
{
	struct vu_device_info d = { .argsz = sizeof(d) };
	struct vu_answer a;
	int rc = vu_ask_simple(&v->conn, VU_DEVICE_INFO, &d, sizeof(d), &a, sizeof(d));

	if (rc)
		return base_err_set(err, rc, "%s: no device information: %s", path, strerror(-rc));
	vu_drop_fds(&a);
	memcpy(&d, a.data, sizeof(d));
	if (!(d.flags & VU_DEVICE_PCI) || d.regions <= VU_PCI_CONFIG)
		return base_err_set(err, -ENODEV, "%s: serves no PCI device", path);
	if (d.irqs <= VU_PCI_MSIX)
		return 0;
	rc = find_vectors(v);
	return rc ? base_err_set(err, rc, "%s: no interrupt information: %s", path, strerror(-rc))
		  : 0;
}

/* ---- registers ---- */

/* The largest part of the BAR that begins where the doorbells do, or before, and may be mapped. */
static void find_area(const struct vu_answer *a, const struct vu_region_info *r, struct vu_area *out)
{
	struct vu_cap_sparse s;
	uint32_t at = r->flags & VU_REGION_CAPS ? r->cap_offset : 0;

	*out = (struct vu_area){ 0, r->size };
	/* Each step must lead on, so a list in a circle ends too. */
	while (at >= sizeof(*r) && a->len >= sizeof(s) && at <= a->len - sizeof(s)) {
		memcpy(&s, a->data + at, sizeof(s));
		if (s.head.id == VU_CAP_SPARSE_MMAP) {
			*out = (struct vu_area){ 0 };
			for (uint32_t i = 0; i < s.areas; i++) {
				uint64_t pos = at + sizeof(s) + (uint64_t)i * sizeof(*out);

				if (pos + sizeof(*out) > a->len)
					break;
				memcpy(out, a->data + pos, sizeof(*out));
				if (out->offset <= NVME_REG_DOORBELLS &&
				    out->size > NVME_REG_DOORBELLS - out->offset)
					return;
				*out = (struct vu_area){ 0 };
			}
			return;
		}
		if (s.head.next <= at)
			return;
		at = s.head.next;
	}
}

/* Maps the doorbells where the server lets us; where it does not, messages do. */
static void map_doorbells(struct vu *v, const struct vu_answer *a, const struct vu_region_info *r)
{
	struct vu_area area;
	void *p;

	if (!(r->flags & VU_REGION_MMAP) || !a->nfds)
		return;
	find_area(a, r, &area);
	area.size = MIN(area.size, MAX_BAR);
	if (area.size < 8 || area.offset % NVME_PAGE || area.offset > r->size ||
	    area.size > r->size - area.offset)
		return;
	p = mmap(NULL, area.size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fds[0],
		 (off_t)(r->offset + area.offset));
	if (p == MAP_FAILED)
		return;
	v->map = p;
	v->map_offset = area.offset;
	v->map_size = area.size;
}

/* Some take registers of eight bytes only by halves. */
static int find_width(struct vu *v)
{
	uint64_t cap;
	int rc = vu_region_read(v, VU_PCI_BAR0, NVME_REG_CAP, &cap, sizeof(cap));

	if (!rc || v->conn.dead)
		return rc;
	v->words = true;
	return vu_region_read(v, VU_PCI_BAR0, NVME_REG_CAP, &cap, 4);
}

static int region_info(struct vu *v, uint32_t index, struct vu_region_info *r, struct vu_answer *a)
{
	int rc;

	*r = (struct vu_region_info){ .argsz = VU_MAX_PAYLOAD, .index = index };
	rc = vu_ask_simple(&v->conn, VU_REGION_INFO, r, sizeof(*r), a, sizeof(*r));
	if (!rc)
		memcpy(r, a->data, sizeof(*r));
	return rc;
}

static int find_registers(struct vu *v, const char *path, struct base_err *err)
{
	struct vu_region_info r;
	struct vu_answer a;
	int rc = region_info(v, VU_PCI_BAR0, &r, &a);

	if (rc)
		return base_err_set(err, rc, "%s: no region information: %s", path, strerror(-rc));
	if (r.size < NVME_REG_DOORBELLS + 8) {
		vu_drop_fds(&a);
		return base_err_set(err, -ENODEV, "%s: BAR 0 is no NVMe controller's", path);
	}
	v->bar_size = r.size;
	map_doorbells(v, &a, &r);
	vu_drop_fds(&a);
	rc = find_width(v);
	return rc ? base_err_set(err, rc, "%s: the registers cannot be read: %s", path,
				 strerror(-rc))
		  : 0;
}

/* ---- the configuration space ---- */

#define CONFIG_COMMAND 4u
#define CONFIG_CLASS 8u /* with the revision below it */
#define CONFIG_CAPS 0x34u
#define CAP_MSIX 0x11u
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u

/* Memory access and bus mastering in the PCI command register, as any driver of a PCI device sets. */
static int enable_pci(struct vu *v, const char *path, struct base_err *err)
{
	uint16_t command;
	uint32_t class;
	int rc = vu_region_read(v, VU_PCI_CONFIG, CONFIG_CLASS, &class, sizeof(class));

	if (!rc && class >> 8 != 0x010802)
		return base_err_set(
			err, -ENODEV,
			"%s: serves a PCI device of class %06x, not an NVMe controller", path,
			class >> 8);
	if (!rc)
		rc = vu_region_read(v, VU_PCI_CONFIG, CONFIG_COMMAND, &command, 2);
	if (!rc) {
		command |= 6;
		rc = vu_region_write(v, VU_PCI_CONFIG, CONFIG_COMMAND, &command, 2);
	}
	return rc ? base_err_set(err, rc, "%s: no access to the configuration space: %s", path,
				 strerror(-rc))
		  : 0;
}

/* Where the capability of MSI-X is in the configuration space; 0: there is none. */
static uint32_t find_msix(struct vu *v)
{
	uint8_t at = 0, cap[2];

	if (vu_region_read(v, VU_PCI_CONFIG, CONFIG_CAPS, &at, 1))
		return 0;
	/* There is room for no more of them, so a list in a circle ends too. */
	for (unsigned n = 0; n < 48 && (at &= 0xfc) >= 0x40; n++, at = cap[1]) {
		if (vu_region_read(v, VU_PCI_CONFIG, at, cap, 2))
			return 0;
		if (cap[0] == CAP_MSIX)
			return at;
	}
	return 0;
}

/*
 * MSI-X is turned on where the device has it, and its table is noted: some servers signal only vectors that are on there, too, as a
 * real device does. Others have no table and need none, so nothing of this has to succeed.
 */
static void turn_on_msix(struct vu *v)
{
	uint32_t at = v->vectors ? find_msix(v) : 0, table;
	struct vu_region_info r;
	struct vu_answer a;
	uint16_t control;

	if (!at || vu_region_read(v, VU_PCI_CONFIG, at + 2, &control, 2) ||
	    vu_region_read(v, VU_PCI_CONFIG, at + 4, &table, 4))
		return;
	control = (uint16_t)((control & ~MSIX_MASK_ALL) | MSIX_ENABLE);
	if (vu_region_write(v, VU_PCI_CONFIG, at + 2, &control, 2) ||
	    region_info(v, table & 7, &r, &a))
		return;
	vu_drop_fds(&a);
	if (!(r.flags & VU_REGION_WRITABLE))
		return;
	v->table_region = table & 7;
	v->table_offset = table & ~7u;
	atomic_store(&v->table_entries, (control & 0x7ffu) + 1);
}

/* ---- memory ---- */

static const struct nvme_reach file_reach = { .kind = NVME_REACH_FILE };

#define LEAST_PIECE (2 * MiB)
#define LEAST_MEMORY (64 * MiB)
#define MOST_PIECES 4096u

/* len bytes of the file from `from` on, which begins at `begin` of the pool. */
static int share_piece(struct vu *v, int fd, uint64_t begin, uint64_t from, uint64_t len)
{
	struct vu_dma_map m = {
		.argsz = sizeof(m),
		.flags = VU_DMA_READABLE | VU_DMA_WRITABLE,
		.offset = from,
		.address = NVME_IOVA_BASE + begin + from,
		.size = len,
	};
	struct iovec part[2] = { { &m, sizeof(m) }, { NULL, 0 } };
	struct vu_answer a;
	int rc = vu_ask(&v->conn, VU_DMA_MAP, part, fd, &a, 0);

	vu_drop_fds(&a);
	return rc;
}

/*
 * The file, whole or, where the server takes not so much at once, in pieces, each as large as it takes; *reached: how far it has gone when
 * no more is taken.
 */
static int share_file(struct vu *v, int fd, uint64_t begin, uint64_t len, uint64_t *reached)
{
	uint64_t piece = len, done = 0;
	int rc = 0;

	for (unsigned n = 0; done < len && n < MOST_PIECES && !v->conn.dead; n++) {
		rc = share_piece(v, fd, begin, done, MIN(piece, len - done));
		if (!rc)
			done += MIN(piece, len - done);
		else if (piece <= LEAST_PIECE)
			break;
		else
			piece = piece / 2 / LEAST_PIECE * LEAST_PIECE;
	}
	*reached = begin + done;
	return v->conn.dead || !done ? rc : 0;
}

static int share_memory(struct vu *v, const char *path, struct base_err *err)
{
	uint64_t plain, plain_end, huge_end;
	int rc = nvme_pool_use(&file_reach);

	if (rc == -EBUSY)
		return base_err_set(err, rc,
				    "%s: this process uses physical addresses for DMA, which no server can reach",
				    path);
	if (rc)
		return base_err_set(err, rc, "%s: no memory for DMA", path);
	v->reach = &file_reach;
	plain = nvme_pool.plain;
	huge_end = plain;
	rc = share_file(v, nvme_pool.fd, 0, plain, &plain_end);
	if (!rc && nvme_pool.size > plain) {
		rc = share_file(v, nvme_pool.huge_fd, plain, nvme_pool.size - plain, &huge_end);
		/* It does without them. */
		rc = v->conn.dead ? rc : 0;
	}
	if (rc)
		return base_err_set(err, rc, "%s: the server does not take our memory: %s", path,
				    strerror(-rc));
	if (plain_end >= LEAST_MEMORY && !nvme_pool_limit(plain_end, huge_end))
		return 0;
	return base_err_set(err, -ENOMEM, "%s: the server takes only %llu MiB of our memory", path,
			    (unsigned long long)((plain_end + huge_end - plain) / MiB));
}

int vu_find(struct vu *v, const char *path, struct base_err *err)
{
	int rc = negotiate(v, path, err);

	if (!rc)
		rc = check_device(v, path, err);
	if (!rc)
		rc = find_registers(v, path, err);
	if (!rc)
		rc = enable_pci(v, path, err);
	if (rc)
		return rc;
	turn_on_msix(v);
	return share_memory(v, path, err);
}

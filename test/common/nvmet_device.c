/* SPDX-License-Identifier: BSD-2-Clause */
/* What the server says of its device: version, regions, interrupts, configuration space, in the forms that servers give it (struct nvmet_style). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

#define CONFIG_CAPS 0x34u
#define CAP_POWER 0x40u /* another one, before MSI-X */
#define CAP_MSIX 0x50u
#define TABLE_REGION 4u
#define TABLE_OFFSET 0x20u
#define ENABLED 0x8000u
#define ALL_MASKED 0x4000u
#define CAP_OF_OUR_OWN 0x77u

int nvmet_say_version(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	const char *json = t->o.style.json ? t->o.style.json : "{\"capabilities\":{\"max_msg_fds\":8}}";
	struct vu_version v;

	if (q->len < sizeof(v))
		return EINVAL;
	memcpy(&v, q->data, sizeof(v));
	if (v.major != VU_MAJOR)
		return EINVAL;
	if (q->len > sizeof(v) && q->data[q->len - 1])
		nvmet_host_error(t, "version data without a NUL at their end");
	v.minor = MIN(v.minor, t->o.style.older ? 0 : (uint16_t)VU_MINOR);
	memcpy(r->data, &v, sizeof(v));
	r->len = sizeof(v);
	if (*json) {
		strcpy((char *)r->data + sizeof(v), json);
		r->len += (uint32_t)strlen(json) + 1;
	}
	return 0;
}

int nvmet_say_device(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_device_info d = { sizeof(d), VU_DEVICE_CAN_RESET | VU_DEVICE_PCI, VU_PCI_REGIONS,
				    VU_PCI_IRQS };

	if (q->len < sizeof(d))
		return EINVAL;
	if (t->o.style.no_vectors)
		d.irqs = 1; /* INTx */
	memcpy(r->data, &d, sizeof(d));
	r->len = sizeof(d);
	return 0;
}

/* ---- regions ---- */

static uint64_t size_of(const struct nvmet *t, uint32_t region)
{
	switch (region) {
	case VU_PCI_BAR0:
		return t->o.style.bar_size ? t->o.style.bar_size : NVMET_BAR_SIZE;
	case TABLE_REGION:
		return t->o.style.msix ? sizeof(t->table) + TABLE_OFFSET : 0;
	case VU_PCI_CONFIG:
		return sizeof(t->config);
	default:
		return 0;
	}
}

struct region_reply {
	struct vu_region_info info;
	struct {
		struct vu_cap head;
		uint64_t what;
	} other;
	struct vu_cap_sparse sparse;
	struct vu_area area[3];
};

/* Which areas of the registers may be mapped. */
static void list_areas(const struct nvmet *t, struct region_reply *a)
{
	const struct nvmet_style *s = &t->o.style;
	uint32_t n = s->no_area ? 0 : 1;

	a->sparse.head = (struct vu_cap){ VU_CAP_SPARSE_MMAP, 1, 0 };
	a->area[0] = (struct vu_area){ NVME_REG_DOORBELLS, 4096 };
	if (s->many_areas) {
		a->area[0] = (struct vu_area){ 0x3000, 0x1000 };
		a->area[1] = (struct vu_area){ NVME_REG_DOORBELLS, 4096 };
		a->area[2] = (struct vu_area){ 0x2000, 0x1000 };
		n = 3;
	}
	if (s->odd_area)
		a->area[0].offset += 8;
	if (s->far_area)
		a->area[0].size = 1ull << 40;
	a->sparse.areas = s->endless_areas ? UINT32_MAX : n;
	a->info.cap_offset = offsetof(struct region_reply, sparse);
	if (s->other_caps) {
		a->other.head = (struct vu_cap){ CAP_OF_OUR_OWN, 3,
						 offsetof(struct region_reply, sparse) };
		a->info.cap_offset = offsetof(struct region_reply, other);
	}
	if (s->caps_in_a_circle)
		a->other.head.next = a->info.cap_offset = offsetof(struct region_reply, other);
	a->info.flags |= VU_REGION_CAPS;
	a->info.argsz = (uint32_t)(offsetof(struct region_reply, area) + n * sizeof(a->area[0]));
}

int nvmet_say_region(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct region_reply a = { 0 };
	uint32_t room;

	if (q->len < sizeof(a.info))
		return EINVAL;
	memcpy(&a.info, q->data, sizeof(a.info));
	room = a.info.argsz;
	if (a.info.index >= VU_PCI_REGIONS || room < sizeof(a.info))
		return EINVAL;
	if (a.info.flags || a.info.cap_offset || a.info.size || a.info.offset)
		nvmet_host_error(t, "region information is asked for with fields that must be 0");
	a.info = (struct vu_region_info){ .argsz = sizeof(a.info),
					  .index = a.info.index,
					  .size = size_of(t, a.info.index) };
	if (a.info.size)
		a.info.flags = VU_REGION_READABLE | VU_REGION_WRITABLE;
	if (a.info.index == VU_PCI_BAR0 && !t->o.messages) {
		a.info.flags |= VU_REGION_MMAP;
		a.info.offset = t->o.style.bar_offset;
		if (!t->o.style.whole_bar)
			list_areas(t, &a);
		r->fd = t->o.style.no_fd ? -1 : t->bar_fd;
	}
	r->len = MIN(a.info.argsz, room);
	memcpy(r->data, &a, r->len);
	return 0;
}

/* ---- interrupts ---- */

int nvmet_say_irqs(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_irq_info i;

	if (q->len < sizeof(i))
		return EINVAL;
	memcpy(&i, q->data, sizeof(i));
	if (i.index >= VU_PCI_IRQS || t->o.style.irqs_refused)
		return EINVAL;
	i.argsz = sizeof(i);
	i.flags = VU_IRQ_EVENTFD | (t->o.style.noresize ? VU_IRQ_NORESIZE : 0);
	i.count = i.index == VU_PCI_MSIX ? t->o.vectors : i.index == 0;
	memcpy(r->data, &i, sizeof(i));
	r->len = sizeof(i);
	return 0;
}

int nvmet_set_irqs(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_set_irqs s;

	(void)r;
	if (q->len != sizeof(s))
		return EINVAL;
	memcpy(&s, q->data, sizeof(s));
	if (s.index != VU_PCI_MSIX || s.start >= t->o.vectors || s.count != 1 ||
	    s.argsz != sizeof(s) || s.flags != (VU_IRQ_DATA_EVENTFD | VU_IRQ_ACTION_TRIGGER) ||
	    q->fd < 0 || t->o.style.noresize) {
		nvmet_host_error(t, "interrupts are set in a way that was not offered");
		return EINVAL;
	}
	if (t->o.style.bind_refused)
		return ENOSPC;
	if (t->irq[s.start] >= 0)
		close(t->irq[s.start]);
	t->irq[s.start] = q->fd;
	q->fd = -1;
	return 0;
}

void nvmet_signal(struct nvmet *t, unsigned vector)
{
	uint64_t one = 1;
	uint16_t control;

	memcpy(&control, t->config + CAP_MSIX + 2, 2);
	if (t->irq[vector] < 0 || t->o.style.mute || atomic_load(&t->f.mute))
		return;
	if (t->o.style.msix && (!(control & ENABLED) || control & ALL_MASKED ||
				t->table[vector].control & 1 || !t->table[vector].address))
		return;
	if (write(t->irq[vector], &one, sizeof(one)) < 0)
		nvmet_host_error(t, "an interrupt cannot be delivered");
}

/* ---- the configuration space, and the table of vectors ---- */

void nvmet_config_reset(struct nvmet *t)
{
	static const uint8_t class[] = { 0x02, 0x08, 0x01 };
	uint32_t table = TABLE_OFFSET | TABLE_REGION;
	uint16_t control = (uint16_t)(t->o.vectors - 1);

	memset(t->config, 0, sizeof(t->config));
	memset(t->table, 0, sizeof(t->table));
	t->config[0] = t->config[1] = 0x1d;
	memcpy(t->config + 9, class, sizeof(class));
	if (!t->o.style.msix)
		return;
	t->config[CONFIG_CAPS] = CAP_POWER;
	t->config[CAP_POWER] = 1;
	t->config[CAP_POWER + 1] = CAP_MSIX;
	t->config[CAP_MSIX] = 0x11;
	t->config[CAP_MSIX + 1] = t->o.style.caps_in_a_circle ? CAP_POWER : 0;
	if (t->o.style.caps_in_a_circle)
		t->config[CAP_MSIX] = 9;
	memcpy(t->config + CAP_MSIX + 2, &control, 2);
	memcpy(t->config + CAP_MSIX + 4, &table, 4);
	for (unsigned i = 0; i < NVMET_VECTORS; i++)
		t->table[i].control = 1;
}

static void *place_of(struct nvmet *t, const struct vu_region_access *a)
{
	if (a->region == VU_PCI_CONFIG && a->offset < sizeof(t->config) &&
	    a->count <= sizeof(t->config) - a->offset)
		return t->config + a->offset;
	if (a->region == TABLE_REGION && t->o.style.msix && a->offset >= TABLE_OFFSET &&
	    a->offset - TABLE_OFFSET < sizeof(t->table) && a->count == 4)
		return (char *)t->table + (a->offset - TABLE_OFFSET);
	return NULL;
}

int nvmet_access(struct nvmet *t, const struct vu_region_access *a, void *data, bool write)
{
	void *at = place_of(t, a);

	/* As a processor makes them on a bus. */
	if (!at || (a->count != 1 && a->count != 2 && a->count != 4) || a->offset % a->count) {
		nvmet_host_error(t, "an access that no bus knows");
		return EINVAL;
	}
	if (!write) {
		memcpy(data, at, a->count);
		return 0;
	}
	if (a->region == VU_PCI_CONFIG && !(a->offset == 4 && a->count == 2) &&
	    !(t->o.style.msix && a->offset == CAP_MSIX + 2 && a->count == 2)) {
		nvmet_host_error(t, "a write to what cannot be written of the configuration space");
		return EINVAL;
	}
	memcpy(at, data, a->count);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the targets share: the file systems they change, and what is done with them afterwards. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "test/fuzz/fuzz.h"

static struct {
	struct image image;
	struct map map;
	struct scratch scratch;
	struct contents contents;
} base[FUZZ_IMAGES];

static const struct fuzz_target *const targets[] = { &fuzz_super, &fuzz_frame, &fuzz_record, &fuzz_image };

const struct fuzz_target *fuzz_nth(unsigned i)
{
	return i < ARRAY_SIZE(targets) ? targets[i] : NULL;
}

const struct fuzz_target *fuzz_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(targets); i++)
		if (strcmp(targets[i]->name, name) == 0)
			return targets[i];
	return NULL;
}

void fuzz_finding(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FINDING: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

static void quiet(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)level, (void)component, (void)line, (void)arg;
}

void fuzz_init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	if (!getenv("BLOBFS_LOG"))
		base_log_set_sink(quiet, NULL);
	for (unsigned i = 0; i < FUZZ_IMAGES; i++) {
		image_make_small(&base[i].image, i == FUZZ_TAIL);
		map_make(&base[i].image, &base[i].map);
		base[i].scratch = (struct scratch){ .image = &base[i].image, .map = &base[i].map };
		base[i].scratch.mem = mmap(NULL, IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (base[i].scratch.mem == MAP_FAILED)
			fuzz_finding("no memory for the test itself");
		damage_undo(&base[i].scratch);
		contents_take(&base[i].contents, &base[i].image);
	}
}

struct scratch *fuzz_scratch(unsigned which)
{
	fuzz_init();
	return &base[which % FUZZ_IMAGES].scratch;
}

const struct structure *fuzz_last(const struct scratch *s, enum structure_kind kind)
{
	for (int i = s->map->n - 1; i >= 0; i--)
		if (s->map->s[i].kind == kind)
			return &s->map->s[i];
	fuzz_finding("an image without a structure of kind %d", (int)kind);
}

static bool is_changed(const struct scratch *s, uint32_t block, uint32_t blocks)
{
	uint64_t at = (uint64_t)block * BS_BLOCK;

	return memcmp(s->mem + at, s->image->mem + at, (size_t)blocks * BS_BLOCK) != 0;
}

/* No superblock, no copy of it beside a checkpoint and no segment's header is as it was: there is nothing to find a store by. */
static bool nothing_is_left(const struct scratch *s)
{
	for (int i = 0; i < s->map->n; i++) {
		const struct structure *is = &s->map->s[i];

		if ((is->kind == SUPER || is->kind == SEGMENT) && !is_changed(s, is->block, is->blocks))
			return false;
	}
	for (uint32_t i = 0; i < s->image->n_used; i++) {
		uint32_t block = s->image->used[i];
		const struct bs_page_disk *page = (const struct bs_page_disk *)(s->image->mem + (uint64_t)block * BS_BLOCK);

		if (le32_get(page->magic) == BS_MAGIC_PAGE && le16_get(page->kind) == BS_PAGE_SUPER && !is_changed(s, block, 2))
			return false;
	}
	return true;
}

void fuzz_use(struct scratch *s, enum fuzz_how how, uint64_t seed)
{
	struct rnd r = { seed };
	struct verdict v;
	bool left = !nothing_is_left(s);

	s->size = IMAGE_SIZE;
	base_set_fake_random(seed | 1);
	if (how == FUZZ_USE)
		use_device(image_device(s->image, s->mem, IMAGE_SIZE), &r, &v);
	else
		repair_device(s, &base[s == &base[FUZZ_TAIL].scratch].contents, false, &r, &v);
	damage_undo(s);
	if (v.fault[0] && (left || how != FUZZ_REPAIR || v.mount_rc != -EUCLEAN))
		fuzz_finding("%s", v.fault);
}

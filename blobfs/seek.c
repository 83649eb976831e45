/* SPDX-License-Identifier: BSD-2-Clause */
/* Where data and holes are. Dirty pages are data; unwritten space is a hole. */
#include <unistd.h>

#include "blobfs/data.h"

/* Is the block data? *end: the block after the last that is sure to be the same. What is dirty is asked first: it may become mapped
 * meanwhile, but not the other way round. */
static bool is_data(struct bfs_inode *inode, uint64_t block, uint64_t last, uint64_t *end)
{
	uint64_t dirty = bfs_range_next_dirty(inode, block, last);
	struct bs_carried_range carried;
	struct bs_extent e;

	*end = block + 1;
	if (dirty == block)
		return true;
	if (bs_carried_next(inode->blob, block, last - block + 1, &carried))
		dirty = MIN(dirty, carried.block);
	if (dirty == block)
		return true;
	bs_map_lookup(inode->blob, block, last - block + 1, &e);
	if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN))) {
		*end = block + e.count;
		return true;
	}
	*end = MIN(block + e.count, dirty);
	return false;
}

int64_t bfs_seek(struct bfs_file *file, uint64_t offset, int whence)
{
	struct bfs_inode *inode = file->inode;
	uint64_t size = atomic_load(&inode->size), block = offset >> PAGE_SHIFT, last, end;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (offset >= size)
		return -ENXIO;
	last = (size - 1) >> PAGE_SHIFT;
	while (block <= last) {
		if (is_data(inode, block, last, &end) == (whence == SEEK_DATA))
			return (int64_t)MAX(offset, block << PAGE_SHIFT);
		block = end;
	}
	return whence == SEEK_HOLE ? (int64_t)size : -ENXIO;
}

// SPDX-License-Identifier: MIT
/*
 * The ring. Head and tail run freely modulo 2^32; their difference is what is in it. Each side reads
 * the other's index with acquire and publishes its own with release, so that slot contents follow.
 */
#include "base/ring.h"

#include <stdlib.h>

#define RING_ALIGN 64u

int sm_ring_init(struct sm_ring *ring, uint32_t slot_count, uint32_t slot_size)
{
	size_t total;

	ring->slots = NULL;
	ring->slot_size = ring->mask = 0;
	atomic_init(&ring->head, 0);
	atomic_init(&ring->tail, 0);
	if (slot_count == 0 || (slot_count & (slot_count - 1)) != 0 || slot_size == 0)
		return -EINVAL;
	if (__builtin_mul_overflow((size_t)slot_count, slot_size, &total) ||
	    __builtin_add_overflow(total, RING_ALIGN - 1, &total))
		return -ENOMEM;
	ring->slots = aligned_alloc(RING_ALIGN, total & ~(size_t)(RING_ALIGN - 1));
	if (!ring->slots)
		return -ENOMEM;
	ring->slot_size = slot_size;
	ring->mask = slot_count - 1;
	return 0;
}

void sm_ring_done(struct sm_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}

static void *slot_at(struct sm_ring *ring, uint32_t index)
{
	return ring->slots + (size_t)(index & ring->mask) * ring->slot_size;
}

void *sm_ring_reserve(struct sm_ring *ring)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);

	return head - tail > ring->mask ? NULL : slot_at(ring, head);
}

void sm_ring_commit(struct sm_ring *ring)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

void *sm_ring_peek(struct sm_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

	return head == tail ? NULL : slot_at(ring, tail);
}

void sm_ring_release(struct sm_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

// SPDX-License-Identifier: MIT
/*
 * A bounded ring from one thread to one other: slots of equal size, copied in and read in place.
 */
#ifndef SM_BASE_RING_H
#define SM_BASE_RING_H

#include "base/base.h"

#include <stdatomic.h>

/* Aligned to 64 bytes: on the heap it wants aligned_alloc(), and so does a struct around it. */
struct sm_ring {
	uint8_t *slots;
	uint32_t slot_size, mask;
	_Alignas(64) _Atomic uint32_t head; /* written by the producer */
	_Alignas(64) _Atomic uint32_t tail; /* written by the consumer */
};

/** sm_ring_init() - @slot_count is a power of two; Return: 0, -EINVAL, -ENOMEM */
SM_MUST_CHECK int sm_ring_init(struct sm_ring *ring, uint32_t slot_count, uint32_t slot_size);
void sm_ring_done(struct sm_ring *ring);

/** sm_ring_reserve() - Producer; Return: the next free slot to fill, NULL when full */
void *sm_ring_reserve(struct sm_ring *ring);
/** sm_ring_commit() - Producer: hand the reserved slot over (release) */
void sm_ring_commit(struct sm_ring *ring);

/** sm_ring_peek() - Consumer; Return: the oldest slot, NULL when empty */
void *sm_ring_peek(struct sm_ring *ring);
/** sm_ring_release() - Consumer: give the peeked slot back */
void sm_ring_release(struct sm_ring *ring);

#endif

// SPDX-License-Identifier: MIT
/*
 * The pool of packet buffers: one piece of memory, and a stack of free ones, so that the buffer used
 * last, still in the cache, is used next.
 */
#include "base/pbuf.h"

#include <stdlib.h>

#define PBUF_ALIGN 64u

int sm_pbuf_pool_init(struct sm_pbuf_pool *pool, uint32_t count, uint32_t size)
{
	uint64_t cap = ((uint64_t)SM_PBUF_HEADROOM + size + SM_PBUF_TAILROOM + PBUF_ALIGN - 1) &
		       ~(uint64_t)(PBUF_ALIGN - 1);
	size_t total;

	*pool = (struct sm_pbuf_pool){.size = size};
	if (count == 0)
		return 0;
	if (cap > UINT32_MAX || __builtin_mul_overflow(count, cap, &total))
		return -ENOMEM;
	pool->all = calloc(count, sizeof(*pool->all));
	pool->memory = aligned_alloc(PBUF_ALIGN, total);
	if (!pool->all || !pool->memory) {
		sm_pbuf_pool_done(pool);
		return -ENOMEM;
	}
	pool->count = count;
	for (uint32_t i = count; i > 0; i--) {
		struct sm_pbuf *p = &pool->all[i - 1];

		p->buf = pool->memory + (i - 1) * cap;
		p->cap = (uint32_t)cap;
		sm_pbuf_put(pool, p);
	}
	return 0;
}

void sm_pbuf_pool_done(struct sm_pbuf_pool *pool)
{
	free(pool->all);
	free(pool->memory);
	*pool = (struct sm_pbuf_pool){0};
}

struct sm_pbuf *sm_pbuf_get(struct sm_pbuf_pool *pool)
{
	struct sm_pbuf *p = pool->free;

	if (!p)
		return NULL;
	pool->free = p->next;
	pool->free_count--;
	p->next = NULL;
	sm_pbuf_reset(p);
	return p;
}

void sm_pbuf_put(struct sm_pbuf_pool *pool, struct sm_pbuf *p)
{
	assert(p >= pool->all && p < pool->all + pool->count);
	assert(pool->free_count < pool->count);
	p->next = pool->free;
	pool->free = p;
	pool->free_count++;
}

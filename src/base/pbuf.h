// SPDX-License-Identifier: MIT
/*
 * Packet buffers with room at both ends, made once and reused.
 *
 * A frame is read behind the headroom; the header is pushed in front, the kind and tag put behind,
 * so nothing is copied between TAP and UDP. The pool belongs to one thread.
 */
#ifndef SM_BASE_PBUF_H
#define SM_BASE_PBUF_H

#include "base/base.h"

#define SM_PBUF_HEADROOM 128u /* data header, vnet_hdr, a relay's hop header to come */
#define SM_PBUF_TAILROOM 128u /* kind, descriptor and header template to come, tag */

/**
 * struct sm_pbuf - One packet
 * @data: first byte in use; @len: bytes in use; @cap: bytes of @buf in all
 */
struct sm_pbuf {
	uint8_t *buf;
	uint8_t *data;
	uint32_t len, cap;
	struct sm_pbuf *next;
};

struct sm_pbuf_pool {
	struct sm_pbuf *all, *free;
	uint8_t *memory;
	uint32_t count, size, free_count;
};

/** sm_pbuf_pool_init() - @count buffers for @size payload bytes each plus both rooms; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_pbuf_pool_init(struct sm_pbuf_pool *pool, uint32_t count, uint32_t size);
void sm_pbuf_pool_done(struct sm_pbuf_pool *pool);

/** sm_pbuf_get() - Return: an empty buffer with data behind the headroom, NULL when none is left */
struct sm_pbuf *sm_pbuf_get(struct sm_pbuf_pool *pool);
void sm_pbuf_put(struct sm_pbuf_pool *pool, struct sm_pbuf *p);

static inline void sm_pbuf_reset(struct sm_pbuf *p)
{
	p->data = p->buf + SM_PBUF_HEADROOM;
	p->len = 0;
}

static inline uint32_t sm_pbuf_tailroom(const struct sm_pbuf *p)
{
	return (uint32_t)(p->buf + p->cap - (p->data + p->len));
}

/** sm_pbuf_push() - Take @n bytes of headroom; Return: the new first byte (asserts there is room) */
static inline uint8_t *sm_pbuf_push(struct sm_pbuf *p, uint32_t n)
{
	assert((size_t)(p->data - p->buf) >= n);
	p->data -= n;
	p->len += n;
	return p->data;
}

/** sm_pbuf_put_tail() - Take @n bytes of tailroom; Return: the first of them (asserts there is room) */
static inline uint8_t *sm_pbuf_put_tail(struct sm_pbuf *p, uint32_t n)
{
	uint8_t *tail = p->data + p->len;

	assert(sm_pbuf_tailroom(p) >= n);
	p->len += n;
	return tail;
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Splitting and rejoining. The place of a piece is its index times the pieces' length, which any but the
 * last one tells; the last one waits at the end of the buffer and is moved down when all are there.
 */
#include "plane/parts.h"

uint32_t sm_parts_plan(uint32_t frame_len, uint32_t room, uint32_t *ret_len)
{
	uint32_t count, len;

	if (room == 0 || frame_len <= 1)
		return 0;
	count = SM_MAX((frame_len + room - 1) / room, 2u);
	if (count > SM_PART_COUNT_MAX)
		return 0;
	len = (frame_len + count - 1) / count;
	*ret_len = len;
	return (frame_len + len - 1) / len;
}

void sm_parts_init(struct sm_parts *parts, struct sm_pbuf_pool *pool, uint32_t frame_max)
{
	*parts = (struct sm_parts){.pool = pool, .frame_max = frame_max};
}

static void release(struct sm_parts *parts, struct sm_parts_slot *slot)
{
	sm_pbuf_put(parts->pool, slot->pkt);
	slot->pkt = NULL;
}

void sm_parts_done(struct sm_parts *parts)
{
	for (uint32_t i = 0; i < SM_PARTS_SLOTS; i++) {
		if (parts->slot[i].pkt)
			release(parts, &parts->slot[i]);
	}
}

static bool same_key(const struct sm_parts_key *a, const struct sm_parts_key *b)
{
	return a->first == b->first && a->session == b->session && a->epoch == b->epoch &&
	       a->lane == b->lane;
}

/* Looks for a frame in the making, and frees expired ones on the way. */
static struct sm_parts_slot *find(struct sm_parts *parts, const struct sm_parts_key *key,
				  uint64_t now_us)
{
	struct sm_parts_slot *found = NULL;

	for (uint32_t i = 0; i < SM_PARTS_SLOTS; i++) {
		struct sm_parts_slot *slot = &parts->slot[i];

		if (!slot->pkt)
			continue;
		if (now_us > slot->begun_us && now_us - slot->begun_us > SM_PARTS_EXPIRE_US)
			release(parts, slot);
		else if (same_key(&slot->key, key))
			found = slot;
	}
	return found;
}

static uint32_t held_by(const struct sm_parts *parts, uint32_t session)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SM_PARTS_SLOTS; i++)
		n += parts->slot[i].pkt && parts->slot[i].key.session == session;
	return n;
}

static struct sm_parts_slot *oldest_of(struct sm_parts *parts, uint32_t session)
{
	struct sm_parts_slot *oldest = NULL;

	for (uint32_t i = 0; i < SM_PARTS_SLOTS; i++) {
		struct sm_parts_slot *slot = &parts->slot[i];

		if (slot->pkt && slot->key.session == session &&
		    (!oldest || slot->begun_us < oldest->begun_us))
			oldest = slot;
	}
	return oldest;
}

/* The session that holds most gives its oldest: others lose nothing through it. */
static struct sm_parts_slot *greediest(struct sm_parts *parts)
{
	uint32_t session = parts->slot[0].key.session, most = 0;

	for (uint32_t i = 0; i < SM_PARTS_SLOTS; i++) {
		uint32_t n = held_by(parts, parts->slot[i].key.session);

		if (parts->slot[i].pkt && n > most) {
			most = n;
			session = parts->slot[i].key.session;
		}
	}
	return oldest_of(parts, session);
}

static struct sm_parts_slot *take_slot(struct sm_parts *parts, uint32_t session)
{
	struct sm_parts_slot *slot = NULL;

	if (held_by(parts, session) >= SM_PARTS_PER_SESSION) {
		slot = oldest_of(parts, session);
	} else {
		for (uint32_t i = 0; i < SM_PARTS_SLOTS && !slot; i++) {
			if (!parts->slot[i].pkt)
				slot = &parts->slot[i];
		}
		if (!slot)
			slot = greediest(parts);
	}
	if (slot->pkt) {
		release(parts, slot);
		parts->evicted++;
	}
	return slot;
}

/* Does a piece of @len agree with the lengths known so far? Notes what it tells. */
static bool agrees(struct sm_parts_slot *slot, const struct sm_part *part, uint32_t len,
		   uint32_t frame_max)
{
	uint64_t total;

	if (part->count != slot->count || (slot->have >> part->index & 1) || len == 0)
		return false;
	if (part->index == slot->count - 1)
		slot->last_len = len;
	else if (slot->piece_len != 0 && slot->piece_len != len)
		return false;
	else
		slot->piece_len = len;
	if (slot->piece_len != 0 && slot->last_len > slot->piece_len)
		return false;
	total = (uint64_t)slot->piece_len * (slot->count - 1u) + slot->last_len;
	return total <= frame_max;
}

static struct sm_pbuf *finish(struct sm_parts_slot *slot, uint32_t frame_max)
{
	struct sm_pbuf *pkt = slot->pkt;
	uint32_t before = slot->piece_len * (slot->count - 1u);

	memmove(pkt->data + before, pkt->data + frame_max - slot->last_len, slot->last_len);
	pkt->len = before + slot->last_len;
	slot->pkt = NULL;
	return pkt;
}

int sm_parts_add(struct sm_parts *parts, const struct sm_parts_key *key, const struct sm_part *part,
		 const uint8_t *body, uint32_t len, uint64_t now_us, struct sm_pbuf **ret_frame)
{
	struct sm_parts_slot *slot = find(parts, key, now_us);
	uint32_t at;

	if (!slot) {
		slot = take_slot(parts, key->session);
		slot->pkt = sm_pbuf_get(parts->pool);
		if (!slot->pkt)
			return -ENOBUFS;
		slot->key = *key;
		slot->count = part->count;
		slot->have = 0;
		slot->piece_len = slot->last_len = 0;
		slot->begun_us = now_us;
	}
	if (!agrees(slot, part, len, parts->frame_max)) {
		release(parts, slot);
		return -EBADMSG;
	}
	at = part->index == slot->count - 1 ? parts->frame_max - len : part->index * len;
	memcpy(slot->pkt->data + at, body, len);
	slot->have |= UINT64_C(1) << part->index;
	if (slot->have != UINT64_MAX >> (64 - slot->count))
		return 0;
	*ret_frame = finish(slot, parts->frame_max);
	return 1;
}

// SPDX-License-Identifier: MIT
/*
 * Frames that do not fit the path: cut into pieces by the sender, put together again by the receiver.
 *
 * The pieces of a frame are of equal length but for the last, which may be shorter. A worker has a small
 * table of frames in the making; a session holds a quarter of it at most, so that one member cannot
 * push out the others' pieces.
 *
 * Spec: PROTOCOL.md, "Parts"
 * Context: the worker that owns the lane; never allocates, logs or blocks
 */
#ifndef SM_PLANE_PARTS_H
#define SM_PLANE_PARTS_H

#include "base/pbuf.h"
#include "wire/data.h"

#define SM_PARTS_SLOTS       32u
#define SM_PARTS_PER_SESSION (SM_PARTS_SLOTS / 4)
#define SM_PARTS_EXPIRE_US   SM_SEC_US

/**
 * sm_parts_plan() - Into how many pieces does a frame go?
 * @frame_len: bytes
 * @room:      bytes of frame that one datagram carries
 * @ret_len:   bytes of each piece but the last
 * Return: pieces, 2 to SM_PART_COUNT_MAX; 0 if they would be too many
 */
uint32_t sm_parts_plan(uint32_t frame_len, uint32_t room, uint32_t *ret_len);

/** struct sm_parts_key - Which frame a piece belongs to; @first: packet number of its first piece */
struct sm_parts_key {
	uint64_t first;
	uint32_t session, epoch;
	uint8_t lane;
};

struct sm_parts_slot {
	struct sm_parts_key key;
	struct sm_pbuf *pkt; /* NULL: the slot is free */
	uint64_t have;       /* bit for each piece */
	uint64_t begun_us;
	uint32_t piece_len, last_len; /* 0: not known yet */
	uint8_t count;
};

/**
 * struct sm_parts - Frames in the making
 * @evicted: frames given up to make room for others
 */
struct sm_parts {
	struct sm_pbuf_pool *pool;
	uint32_t frame_max;
	uint64_t evicted;
	struct sm_parts_slot slot[SM_PARTS_SLOTS];
};

/** sm_parts_init() - Buffers come from @pool, whose payload size is @frame_max at least */
void sm_parts_init(struct sm_parts *parts, struct sm_pbuf_pool *pool, uint32_t frame_max);
void sm_parts_done(struct sm_parts *parts);

/**
 * sm_parts_add() - Take one piece; pieces of a frame may come in any order
 * @body, @len:  the piece without its trailer
 * @ret_frame: the whole frame, the caller's to give back to the pool
 * Return: 1 the frame is whole; 0 taken; -EBADMSG it contradicts the others (then the frame is given
 *         up) or makes the frame too long; -ENOBUFS
 */
SM_MUST_CHECK int sm_parts_add(struct sm_parts *parts, const struct sm_parts_key *key,
			       const struct sm_part *part, const uint8_t *body, uint32_t len,
			       uint64_t now_us, struct sm_pbuf **ret_frame);

#endif

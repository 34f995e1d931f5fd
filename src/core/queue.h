// SPDX-License-Identifier: MIT
/*
 * A fair queue of frames that were read and wait to be sent.
 *
 * Theory of operation: frames of flows that send little (core/flow.h) leave first, in the order of their
 * arrival. The others wait in the queue of their flow; the flows take turns, each for SM_QUEUE_QUANTUM bytes
 * (deficit round robin, Shreedhar and Varghese 1995). When SM_QUEUE_AHEAD frames went ahead of others, one of
 * those leaves if it is older than what would go next, so that a crowd of little flows does not shut them out.
 * Older it must be because a flow that has just become bulk still has its first frames among the little ones.
 * Within a flow nothing is reordered as long as it does not go from bulk to little while it has frames here.
 * A frame is known by an index of the caller's.
 */
#ifndef SM_CORE_QUEUE_H
#define SM_CORE_QUEUE_H

#include "base/base.h"

#define SM_QUEUE_FRAMES  256u
#define SM_QUEUE_FLOWS   32u
#define SM_QUEUE_QUANTUM 65536
#define SM_QUEUE_AHEAD   32u
#define SM_QUEUE_NONE    UINT16_MAX

/** struct sm_queue_list - First in, first out; linked by sm_queue.next */
struct sm_queue_list {
	uint16_t head, tail; /* SM_QUEUE_NONE: empty */
};

struct sm_queue {
	uint32_t count, added;
	uint32_t ahead; /* frames that passed others since one of those left */
	struct sm_queue_list express;
	struct sm_queue_list active; /* of flows that have frames; linked by @flow[].next */
	struct {
		struct sm_queue_list frames;
		int32_t deficit;
		uint16_t next;
	} flow[SM_QUEUE_FLOWS];
	uint16_t next[SM_QUEUE_FRAMES];
	uint32_t len[SM_QUEUE_FRAMES],
		number[SM_QUEUE_FRAMES]; /* @number: in the order of arrival */
};

void sm_queue_init(struct sm_queue *q);

/**
 * sm_queue_add() - A frame waits
 * @frame: below SM_QUEUE_FRAMES, and not in the queue
 * @hash:  of its flow; not looked at if it is @express
 */
void sm_queue_add(struct sm_queue *q, uint16_t frame, uint32_t len, bool express, uint32_t hash);

/** sm_queue_take() - Return: the next one, SM_QUEUE_NONE if there is none */
uint16_t sm_queue_take(struct sm_queue *q);

#endif

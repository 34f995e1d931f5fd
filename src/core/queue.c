// SPDX-License-Identifier: MIT
#include "core/queue.h"

static void append(struct sm_queue_list *list, uint16_t *next, uint16_t item)
{
	next[item] = SM_QUEUE_NONE;
	if (list->head == SM_QUEUE_NONE)
		list->head = item;
	else
		next[list->tail] = item;
	list->tail = item;
}

static uint16_t take_first(struct sm_queue_list *list, const uint16_t *next)
{
	const uint16_t item = list->head;

	list->head = next[item];
	return item;
}

static void activate(struct sm_queue *q, uint16_t flow)
{
	q->flow[flow].next = SM_QUEUE_NONE;
	if (q->active.head == SM_QUEUE_NONE)
		q->active.head = flow;
	else
		q->flow[q->active.tail].next = flow;
	q->active.tail = flow;
}

void sm_queue_init(struct sm_queue *q)
{
	const struct sm_queue_list empty = {SM_QUEUE_NONE, SM_QUEUE_NONE};

	*q = (struct sm_queue){.express = empty, .active = empty};
	for (uint32_t i = 0; i < SM_QUEUE_FLOWS; i++)
		q->flow[i].frames = empty;
}

void sm_queue_add(struct sm_queue *q, uint16_t frame, uint32_t len, bool express, uint32_t hash)
{
	const uint16_t flow = (uint16_t)(hash % SM_QUEUE_FLOWS);

	assert(frame < SM_QUEUE_FRAMES);
	q->count++;
	q->len[frame] = len;
	q->number[frame] = q->added++;
	if (express) {
		append(&q->express, q->next, frame);
		return;
	}
	if (q->flow[flow].frames.head == SM_QUEUE_NONE) {
		q->flow[flow].deficit = SM_QUEUE_QUANTUM;
		activate(q, flow);
	}
	append(&q->flow[flow].frames, q->next, frame);
}

/* Return: the flow whose turn it is; there is one */
static uint16_t rotate(struct sm_queue *q)
{
	uint16_t flow = q->active.head;

	while (q->flow[flow].deficit <= 0) { /* its turn is over: to the end of the line */
		q->flow[flow].deficit += SM_QUEUE_QUANTUM;
		q->active.head = q->flow[flow].next;
		activate(q, flow);
		flow = q->active.head;
	}
	return flow;
}

static uint16_t take_bulk(struct sm_queue *q)
{
	const uint16_t flow = rotate(q), frame = take_first(&q->flow[flow].frames, q->next);

	q->flow[flow].deficit -= (int32_t)q->len[frame];
	if (q->flow[flow].frames.head == SM_QUEUE_NONE)
		q->active.head = q->flow[flow].next;
	return frame;
}

static bool bulk_is_older(struct sm_queue *q)
{
	const uint16_t frame = q->flow[rotate(q)].frames.head;

	return (int32_t)(q->number[frame] - q->number[q->express.head]) < 0;
}

uint16_t sm_queue_take(struct sm_queue *q)
{
	const bool bulk = q->active.head != SM_QUEUE_NONE;

	if (q->count == 0)
		return SM_QUEUE_NONE;
	q->count--;
	if (q->express.head != SM_QUEUE_NONE &&
	    !(bulk && q->ahead >= SM_QUEUE_AHEAD && bulk_is_older(q))) {
		q->ahead += bulk;
		return take_first(&q->express, q->next);
	}
	q->ahead = 0;
	return take_bulk(q);
}

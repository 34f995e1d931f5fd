// SPDX-License-Identifier: MIT
/*
 * Held frames: see held.h.
 */
#include "plane/held.h"

#include <stdlib.h>

int sm_held_init(struct sm_held *held, uint32_t frame_max)
{
	uint8_t *memory = calloc(SM_HELD_MAX, frame_max);

	*held = (struct sm_held){.frame_max = frame_max};
	if (!memory)
		return -ENOMEM;
	for (uint32_t i = 0; i < SM_HELD_MAX; i++)
		held->frame[i].data = memory + (size_t)i * frame_max;
	return 0;
}

void sm_held_done(struct sm_held *held)
{
	free(held->frame[0].data);
	*held = (struct sm_held){0};
}

void sm_held_keep(struct sm_held *held, sm_port_t port, const uint8_t *data, uint32_t len,
		  uint64_t now_us)
{
	struct sm_held_frame *f = &held->frame[held->next];

	if (len == 0 || len > held->frame_max)
		return;
	held->next = (held->next + 1) % SM_HELD_MAX;
	held->count += f->len == 0;
	f->at_us = now_us;
	f->port = port;
	f->len = len;
	memcpy(f->data, data, len);
	if (port == SM_PORT_NONE)
		memcpy(f->had, held->connected, sizeof(f->had));
	else
		memset(f->had, 0, sizeof(f->had));
}

static bool has(const uint64_t *ports, sm_port_t port)
{
	return ports[port / 64] >> port % 64 & 1;
}

static void add(uint64_t *ports, sm_port_t port)
{
	ports[port / 64] |= UINT64_C(1) << port % 64;
}

static void release_to(struct sm_held *held, sm_port_t port, uint64_t now_us,
		       void (*send)(void *arg, sm_port_t port, const uint8_t *data, uint32_t len),
		       void *arg)
{
	for (uint32_t i = 0; i < SM_HELD_MAX; i++) {
		struct sm_held_frame *f = &held->frame[(held->next + i) % SM_HELD_MAX];

		if (f->len == 0 || now_us >= f->at_us + SM_HELD_US ||
		    (f->port != port && f->port != SM_PORT_NONE) || has(f->had, port))
			continue;
		add(f->had, port);
		send(arg, port, f->data, f->len);
	}
}

static void forget_old(struct sm_held *held, uint64_t now_us)
{
	for (uint32_t i = 0; i < SM_HELD_MAX; i++) {
		struct sm_held_frame *f = &held->frame[i];

		if (f->len > 0 && now_us >= f->at_us + SM_HELD_US) {
			f->len = 0;
			held->count--;
		}
	}
}

void sm_held_release(struct sm_held *held, const struct sm_snapshot *s, uint64_t now_us,
		     void (*send)(void *arg, sm_port_t port, const uint8_t *data, uint32_t len),
		     void *arg)
{
	uint64_t connected[SM_PORT_MAX / 64] = {0};

	for (uint32_t i = 0; s && i < s->member_count; i++) {
		sm_port_t port = s->members[i];

		add(connected, port);
		if (held->count > 0 && !has(held->connected, port))
			release_to(held, port, now_us, send, arg);
	}
	memcpy(held->connected, connected, sizeof(connected));
	forget_old(held, now_us);
}

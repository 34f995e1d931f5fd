// SPDX-License-Identifier: MIT
/*
 * Frames that came before the session they need: kept for a moment, sent when it is up.
 *
 * Without this the first ARP request of every connection is lost, and the kernel repeats it only after a
 * second. A few frames, the newest ones, none older than SM_HELD_US. Belongs to one worker.
 */
#ifndef SM_PLANE_HELD_H
#define SM_PLANE_HELD_H

#include "core/snapshot.h"

#define SM_HELD_MAX 16u
#define SM_HELD_US  (UINT64_C(1) * SM_SEC_US)

/**
 * struct sm_held_frame - @port: where it goes, SM_PORT_NONE: to all (len 0: free)
 * @had: ports that got it already, now or when it was kept: who comes back gets it no second time
 */
struct sm_held_frame {
	uint64_t at_us;
	uint32_t len;
	sm_port_t port;
	uint8_t *data;
	uint64_t had[SM_PORT_MAX / 64];
};

struct sm_held {
	struct sm_held_frame frame[SM_HELD_MAX];
	uint32_t next, count;
	uint32_t frame_max;
	uint64_t connected[SM_PORT_MAX / 64]; /* ports that had a session when last looked at */
};

/** sm_held_init() - Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_held_init(struct sm_held *held, uint32_t frame_max);
void sm_held_done(struct sm_held *held);

/** sm_held_keep() - Copy a frame; the oldest one gives way */
void sm_held_keep(struct sm_held *held, sm_port_t port, const uint8_t *data, uint32_t len,
		  uint64_t now_us);

/**
 * sm_held_release() - Hand out what the ports that are newly connected in @s have missed
 * @send: called for each frame and port, the oldest frame first
 *
 * Must be called for every new snapshot, also while nothing is held.
 */
void sm_held_release(struct sm_held *held, const struct sm_snapshot *s, uint64_t now_us,
		     void (*send)(void *arg, sm_port_t port, const uint8_t *data, uint32_t len),
		     void *arg);

#endif

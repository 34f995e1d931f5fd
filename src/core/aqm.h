// SPDX-License-Identifier: MIT
/*
 * A queue that never empties: when to tell those who fill it.
 *
 * Theory of operation: a queue that takes up bursts empties now and then; one that does not for SM_AQM_US holds
 * only what its senders keep in it, and all who come wait for nothing. TCP slows down when a segment is lost. So
 * one is, then another one after a time that shrinks with the root of their count, until the queue was empty
 * once: the control law of CoDel (RFC 8289, 3.3) with a look at emptiness in place of time stamps, which the
 * kernel's queue in front of a card has not. A count that was enough lately is begun with at half.
 *
 * Context: worker; never allocates, logs or blocks
 */
#ifndef SM_CORE_AQM_H
#define SM_CORE_AQM_H

#include "base/base.h"

#define SM_AQM_US (20 * SM_MSEC_US)

/** struct sm_aqm - Zero to begin with; @since_us: not empty since then at least, 0: empty */
struct sm_aqm {
	uint64_t since_us, next_us;
	uint32_t count;
};

/** sm_aqm_look() - The queue was just seen @empty, or not */
void sm_aqm_look(struct sm_aqm *aqm, bool empty, uint64_t now_us);

/** sm_aqm_due() - Return: true if a segment is to be lost now; counts it */
bool sm_aqm_due(struct sm_aqm *aqm, uint64_t now_us);

#endif

// SPDX-License-Identifier: MIT
/*
 * Proof of batches: see batch.h.
 */
#include "core/batch.h"

#define WAIT_FIRST_US (1 * SM_SEC_US) /* the round-trip time is not known */
/* Packets that left in batches since the last proof: what makes another one worth its five packets */
#define BUSY_US      (1 * SM_SEC_US)
#define BUSY_PACKETS 500u
#define SOME_US      (2 * SM_SEC_US)
#define SOME_PACKETS 32u

static const char *const state_names[] = {
	[SM_BATCH_OFF] = "off",   [SM_BATCH_UNPROVEN] = "unproven", [SM_BATCH_PROVEN] = "proven",
	[SM_BATCH_LOST] = "lost", [SM_BATCH_REFUSED] = "refused",
};
static_assert(SM_ARRAY_SIZE(state_names) == SM_BATCH_STATE_COUNT, "every state has a name");

const char *sm_batch_state_name(enum sm_batch_state state)
{
	return state_names[state];
}

void sm_batch_init(struct sm_batch *b, bool allowed)
{
	*b = (struct sm_batch){
		.state = allowed ? SM_BATCH_UNPROVEN : SM_BATCH_OFF,
		.again_at_us = SM_NEVER,
	};
}

/* -- trials -- */

static void end_trial(struct sm_batch *b, uint64_t again_at_us)
{
	b->trying = b->due = false;
	b->again_at_us = again_at_us;
	memset(b->token, 0, sizeof(b->token));
	b->lone_token = 0;
}

static void begin_trial(struct sm_batch *b)
{
	end_trial(b, SM_NEVER);
	memset(b->answered, 0, sizeof(b->answered));
	b->rounds = b->failed = 0;
	b->trying = b->due = true;
}

static bool is_complete(const struct sm_batch *b)
{
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++)
		if (!b->answered[i])
			return false;
	return true;
}

static bool set_state(struct sm_batch *b, enum sm_batch_state state)
{
	const bool changed = b->state != state;

	b->state = state;
	return changed;
}

bool sm_batch_allow(struct sm_batch *b, bool allowed, uint64_t now_us)
{
	const bool was_on = sm_batch_is_on(b);

	if (allowed == (b->state != SM_BATCH_OFF))
		return false;
	if (allowed) {
		b->state = SM_BATCH_UNPROVEN;
		sm_batch_start(b, now_us);
	} else {
		end_trial(b, SM_NEVER);
		b->state = SM_BATCH_OFF;
	}
	return sm_batch_is_on(b) != was_on;
}

void sm_batch_start(struct sm_batch *b, uint64_t now_us)
{
	if (b->state == SM_BATCH_OFF)
		return;
	b->state = SM_BATCH_UNPROVEN;
	b->rtt_us = 0;
	b->proven_us = now_us;
	b->unproven_packets = 0;
	begin_trial(b);
}

void sm_batch_inherit(struct sm_batch *b, const struct sm_batch *old, uint64_t now_us)
{
	if (b->state == SM_BATCH_OFF)
		return;
	if (old->state == SM_BATCH_OFF) {
		sm_batch_start(b, now_us);
		return;
	}
	*b = *old;
	b->asleep = false;
	if (b->state == SM_BATCH_PROVEN || b->state == SM_BATCH_UNPROVEN)
		begin_trial(b);
}

void sm_batch_verify(struct sm_batch *b, uint64_t now_us)
{
	(void)now_us;
	if (b->state != SM_BATCH_OFF && !b->trying && !b->asleep)
		begin_trial(b);
}

void sm_batch_sleep(struct sm_batch *b, bool asleep, uint64_t now_us)
{
	if (b->state == SM_BATCH_OFF || asleep == b->asleep)
		return;
	b->asleep = asleep;
	if (asleep)
		end_trial(b, b->again_at_us);
	else
		sm_batch_verify(b, now_us);
}

void sm_batch_second(struct sm_batch *b, uint64_t packets, bool received, uint64_t now_us)
{
	const uint64_t age_us = now_us - b->proven_us;

	b->unproven_packets += packets;
	if (b->state != SM_BATCH_PROVEN || b->trying || b->asleep || !b->unproven_packets)
		return;
	if (age_us >= SM_BATCH_REPEAT_US ||
	    (age_us >= SOME_US && b->unproven_packets >= SOME_PACKETS) ||
	    (age_us >= BUSY_US && (!received || b->unproven_packets >= BUSY_PACKETS)))
		begin_trial(b);
}

/* -- time -- */

static uint64_t wait_us(const struct sm_batch *b)
{
	if (!b->rtt_us)
		return WAIT_FIRST_US;
	return SM_MIN(2 * b->rtt_us + SM_BATCH_WAIT_MIN_US, SM_BATCH_WAIT_MAX_US);
}

static bool fail(struct sm_batch *b, enum sm_batch_state state, uint64_t now_us)
{
	end_trial(b, now_us + SM_BATCH_RETRY_US);
	b->losses += state == SM_BATCH_LOST && b->state != state;
	return set_state(b, state);
}

bool sm_batch_tick(struct sm_batch *b, uint64_t rtt_us, uint64_t now_us)
{
	if (b->state == SM_BATCH_OFF || b->asleep)
		return false;
	if (rtt_us)
		b->rtt_us = rtt_us;
	if (!b->trying) {
		if (now_us >= b->again_at_us)
			begin_trial(b);
		return false;
	}
	if (b->due || now_us < b->sent_us + wait_us(b))
		return false;
	b->failed += b->lone_token == 0;
	if (b->failed >= SM_BATCH_ATTEMPTS)
		return fail(b, SM_BATCH_LOST, now_us);
	if (b->rounds >= SM_BATCH_ROUNDS_MAX)
		end_trial(b, now_us + SM_BATCH_REPEAT_US);
	else
		b->due = true;
	return false;
}

uint64_t sm_batch_deadline(const struct sm_batch *b)
{
	if (b->state == SM_BATCH_OFF || b->asleep)
		return SM_NEVER;
	if (!b->trying)
		return b->again_at_us;
	return b->due ? 0 : b->sent_us + wait_us(b);
}

bool sm_batch_next(struct sm_batch *b, const uint64_t fresh[SM_BATCH_PROBES + 1], uint64_t now_us,
		   uint64_t ret_tokens[SM_BATCH_PROBES], uint64_t *ret_lone)
{
	if (!b->due || b->asleep)
		return false;
	b->due = false;
	b->sent_us = now_us;
	b->rounds++;
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++) {
		if (!b->token[i]) /* the answer to an earlier round is as good */
			b->token[i] = fresh[i];
		ret_tokens[i] = b->token[i];
	}
	b->lone_token = *ret_lone = fresh[SM_BATCH_PROBES];
	return true;
}

/* -- what comes -- */

bool sm_batch_on_refused(struct sm_batch *b, int err, uint64_t now_us)
{
	if (b->state == SM_BATCH_OFF)
		return false;
	b->err = err;
	return fail(b, SM_BATCH_REFUSED, now_us);
}

int sm_batch_on_answer(struct sm_batch *b, uint64_t token, uint64_t now_us)
{
	bool ours = b->lone_token == token;

	if (!b->trying || !token)
		return -ENOENT;
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++)
		if (b->token[i] == token)
			ours = b->answered[i] = true;
	if (!ours)
		return -ENOENT;
	if (b->rounds == 1 && !b->rtt_us)
		b->rtt_us = SM_MAX(now_us - b->sent_us, UINT64_C(1));
	if (b->lone_token == token)
		b->lone_token = 0;
	if (!is_complete(b))
		return 0;
	end_trial(b, SM_NEVER);
	b->proven_us = b->sent_us;
	b->unproven_packets = 0;
	return set_state(b, SM_BATCH_PROVEN);
}

// SPDX-License-Identifier: MIT
/*
 * Proof that batches reach one peer: several datagrams in one message, which the kernel, a card, or whatever
 * is on the way cuts apart (UDP_SEGMENT).
 *
 * Theory of operation: one message of SM_BATCH_PROBES probe requests of one size goes out, and a probe of
 * that size alone behind it. When each place in the batch has been answered once, batches are proven: on a
 * sound path after one round trip. A round has failed when the lone probe was answered and some place in
 * the batch was not; the next round asks the unanswered places again. After SM_BATCH_ATTEMPTS such rounds some
 * place was never answered while the lone ones were: batches are lost, where single datagrams are not. Rounds
 * whose lone probe was lost as well say nothing, so a path that is down or narrow proves nothing either.
 *
 * Until the proof, and for SM_BATCH_RETRY_US after they were found lost or the kernel refused one, datagrams
 * go one by one. The proof is repeated while batches are sent, more often when many are or nothing comes back.
 *
 *      OFF --allowed--> UNPROVEN --all places answered--> PROVEN <--all places answered--.
 *                          |                                |                            |
 *                          `--------the rounds failed-------+--> LOST, REFUSED --time----'
 *
 * No clock, no socket: the caller sends what sm_batch_next() asks for. Sizes are bytes of outer IP packet.
 * Spec: PROTOCOL.md, "Batches"
 */
#ifndef SM_CORE_BATCH_H
#define SM_CORE_BATCH_H

#include "wire/const.h"

#define SM_BATCH_PROBES      4u
#define SM_BATCH_ATTEMPTS    5u
#define SM_BATCH_ROUNDS_MAX  10u /* of one trial; without a result it ends and begins again later */
#define SM_BATCH_WAIT_MIN_US (200 * SM_MSEC_US)
#define SM_BATCH_WAIT_MAX_US (2 * SM_SEC_US)
#define SM_BATCH_REPEAT_US   (10 * SM_SEC_US)           /* PROVEN, while batches are sent */
#define SM_BATCH_RETRY_US    (UINT64_C(60) * SM_SEC_US) /* LOST and REFUSED */
#define SM_BATCH_PACKET_MAX  (65535u / SM_BATCH_PROBES) /* one message takes no more */

enum sm_batch_state {
	SM_BATCH_OFF,      /* not wanted: nothing is probed */
	SM_BATCH_UNPROVEN, /* nothing is known of the path yet */
	SM_BATCH_PROVEN,   /* the only one in which batches are sent */
	SM_BATCH_LOST,     /* single datagrams arrive, those of a batch do not */
	SM_BATCH_REFUSED,  /* the kernel does not take a batch, see @err */
	SM_BATCH_STATE_COUNT,
};

const char *sm_batch_state_name(enum sm_batch_state state);

struct sm_batch {
	enum sm_batch_state state;
	int err; /* REFUSED: negative errno */
	bool trying, asleep;
	bool due;                        /* a round is to be sent by sm_batch_next() */
	uint64_t token[SM_BATCH_PROBES]; /* of each place, kept over the rounds of a trial */
	bool answered[SM_BATCH_PROBES];
	uint64_t lone_token;       /* 0: answered */
	uint64_t sent_us;          /* the last round */
	uint32_t rounds, failed;   /* of this trial */
	uint64_t rtt_us;           /* 0: not known */
	uint64_t again_at_us;      /* without being asked: LOST, REFUSED, a trial without result */
	uint64_t proven_us;        /* begin of the last trial that succeeded */
	uint64_t unproven_packets; /* sent in batches since */
	uint32_t losses;           /* times that LOST began */
};

/** sm_batch_init() - Before the path is used; @allowed: by configuration and by what this kernel can do */
void sm_batch_init(struct sm_batch *b, bool allowed);

/** sm_batch_allow() - The same later; Return: true if sm_batch_is_on() changed: publish */
bool sm_batch_allow(struct sm_batch *b, bool allowed, uint64_t now_us);

/** sm_batch_start() - The path leads to another address from now on, or begins: nothing is known of it */
void sm_batch_start(struct sm_batch *b, uint64_t now_us);

/** sm_batch_inherit() - The same path in a new session: what @old knows is tried, not found anew */
void sm_batch_inherit(struct sm_batch *b, const struct sm_batch *old, uint64_t now_us);

/** sm_batch_is_on() - May datagrams to the peer go in batches? */
static inline bool sm_batch_is_on(const struct sm_batch *b)
{
	return b->state == SM_BATCH_PROVEN;
}

/** sm_batch_verify() - Something happened to the network: do they still pass? */
void sm_batch_verify(struct sm_batch *b, uint64_t now_us);

/** sm_batch_sleep() - The path is down, or up again, which is a reason to verify */
void sm_batch_sleep(struct sm_batch *b, bool asleep, uint64_t now_us);

/**
 * sm_batch_second() - Once a second
 * @packets: that left in batches in it
 * @received: did anything come from the peer meanwhile, beside answers to probes?
 */
void sm_batch_second(struct sm_batch *b, uint64_t packets, bool received, uint64_t now_us);

/**
 * sm_batch_tick() - At the deadline; afterwards sm_batch_next() may have something to send
 * @rtt_us: smoothed round-trip time of the path, 0: not known
 * Return: true if the state changed: publish
 */
bool sm_batch_tick(struct sm_batch *b, uint64_t rtt_us, uint64_t now_us);
uint64_t sm_batch_deadline(const struct sm_batch *b);

/**
 * sm_batch_next() - Is a round to be sent now? First the batch, then the lone probe
 * @fresh: SM_BATCH_PROBES + 1 random numbers that are not 0
 * @ret_tokens: those of the batch's probes, in order
 * @ret_lone:   that of the lone probe
 */
bool sm_batch_next(struct sm_batch *b, const uint64_t fresh[SM_BATCH_PROBES + 1], uint64_t now_us,
		   uint64_t ret_tokens[SM_BATCH_PROBES], uint64_t *ret_lone);

/** sm_batch_on_refused() - The kernel took no batch (@err: negative errno); Return: true if the state changed */
bool sm_batch_on_refused(struct sm_batch *b, int err, uint64_t now_us);

/** sm_batch_on_answer() - From the path's remote; Return: 1 the state changed, 0, -ENOENT not a token of ours */
SM_MUST_CHECK int sm_batch_on_answer(struct sm_batch *b, uint64_t token, uint64_t now_us);

#endif

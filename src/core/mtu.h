// SPDX-License-Identifier: MIT
/*
 * The path MTU of one path: how large a packet may be, found out by probing (RFC 8899).
 *
 * Theory of operation: any path is taken to carry SM_PATH_MTU_MIN bytes. What the local link carries is
 * probed first, so in the usual case one answer ends the search. If none comes, the usual sizes are probed
 * all at once, and then evenly spaced ones between the largest that was answered and the smallest that was
 * not, until SM_MTU_STEP bytes are left between them. Every answer counts at once. A size has failed only
 * when SM_MTU_ATTEMPTS probes were not answered while a small one, sent beside the last of them, was: so a
 * path that is down, or loses much, proves nothing.
 *
 * The size found is verified while data is sent, most often when much is sent or nothing comes back. If it
 * fails, the path has become a black hole for it: the size is the base again at once, and a new search
 * begins. After SM_MTU_RAISE_US a new search looks whether more passes now.
 *
 *      BASE --answer--> SEARCHING --nothing is left to try--> COMPLETE --time, larger link--> SEARCHING
 *       ^ `--not even the base--> ERROR                          |
 *       `------------------------the size fails------------------'
 *
 * No clock, no socket: the caller sends what sm_mtu_next() asks for. Sizes are bytes of outer IP packet.
 * Spec: PROTOCOL.md, "Path MTU"
 */
#ifndef SM_CORE_MTU_H
#define SM_CORE_MTU_H

#include "wire/const.h"

#define SM_MTU_MAX         65535u
#define SM_MTU_STEP        8u  /* bytes: finer than that is not searched */
#define SM_MTU_PROBES_MAX  16u /* that wait for their answers */
#define SM_MTU_ATTEMPTS    3u
#define SM_MTU_WAIT_MIN_US (250 * SM_MSEC_US)
#define SM_MTU_WAIT_MAX_US (2 * SM_SEC_US)
#define SM_MTU_RAISE_US    (UINT64_C(600) * SM_SEC_US) /* RFC 8899: PMTU_RAISE_TIMER */
#define SM_MTU_VERIFY_US   (UINT64_C(30) * SM_SEC_US)  /* while anything is sent */
#define SM_MTU_RETRY_US    (UINT64_C(30) * SM_SEC_US)  /* ERROR: is the base carried again? */
#define SM_MTU_LARGER_US \
	(UINT64_C(60) * SM_SEC_US) /* a hint of the peer's begins no search sooner */

enum sm_mtu_state {
	SM_MTU_FIXED,     /* set by configuration: nothing is probed */
	SM_MTU_BASE,      /* nothing was confirmed yet */
	SM_MTU_SEARCHING, /* the size is confirmed, larger ones are tried */
	SM_MTU_COMPLETE,
	SM_MTU_ERROR, /* small packets pass, those of SM_PATH_MTU_MIN do not */
	SM_MTU_STATE_COUNT,
};

const char *sm_mtu_state_name(enum sm_mtu_state state);

/** struct sm_mtu_probe - One size that waits for its answer */
struct sm_mtu_probe {
	uint64_t token;   /* 0: not sent yet */
	uint64_t sent_us; /* the last time */
	uint32_t size;    /* 0: without padding, to see whether the path is there at all */
	uint32_t attempts;
	bool due; /* to be sent by sm_mtu_next() */
};

struct sm_mtu {
	enum sm_mtu_state state;
	uint32_t size;   /* what packets may have now */
	uint32_t max;    /* the local link's */
	uint32_t failed; /* smallest size known to fail; max + 1: none */
	struct sm_mtu_probe probe[SM_MTU_PROBES_MAX];
	uint32_t probes;
	bool asleep;           /* the path is down: nothing is sent */
	uint64_t rtt_us;       /* the path's, 0: not known */
	uint64_t probe_rtt_us; /* of the last probe that was answered at the first attempt */
	uint64_t alive_us;     /* any answer */
	uint64_t raise_at_us;
	uint64_t ended_us;    /* the last search */
	uint64_t verified_us; /* when a probe of the size was sent last */
	uint64_t unverified_packets, unverified_bytes;
	uint32_t black_holes;
};

/**
 * sm_mtu_init() - Before the path is used
 * @fixed: from the configuration; 0: search
 * @max:   what the local link carries
 */
void sm_mtu_init(struct sm_mtu *m, uint32_t fixed, uint32_t max);

/** sm_mtu_start() - The path leads to another address from now on, or begins: nothing is known of it */
void sm_mtu_start(struct sm_mtu *m, uint32_t max, uint64_t now_us);

/** sm_mtu_inherit() - The same path in a new session: what @old knows is verified, not found anew */
void sm_mtu_inherit(struct sm_mtu *m, const struct sm_mtu *old, uint64_t now_us);

/** sm_mtu_verify() - Something happened to the network: is the size still right? */
void sm_mtu_verify(struct sm_mtu *m, uint64_t now_us);

/** sm_mtu_set_max() - The local link may have changed; Return: true if the size did: publish */
bool sm_mtu_set_max(struct sm_mtu *m, uint32_t max, uint64_t now_us);

/** sm_mtu_sleep() - The path is down, or up again, which is a reason to verify */
void sm_mtu_sleep(struct sm_mtu *m, bool asleep, uint64_t now_us);

/**
 * sm_mtu_second() - Once a second
 * @packets, @bytes: of data sent in it
 * @received: did anything come from the peer meanwhile, beside answers to probes?
 */
void sm_mtu_second(struct sm_mtu *m, uint64_t packets, uint64_t bytes, bool received,
		   uint64_t now_us);

/**
 * sm_mtu_tick() - At the deadline; afterwards sm_mtu_next() may have something to send
 * @rtt_us: smoothed round-trip time of the path, 0: not known
 * Return: true if the size changed: publish
 */
bool sm_mtu_tick(struct sm_mtu *m, uint64_t rtt_us, uint64_t now_us);
uint64_t sm_mtu_deadline(const struct sm_mtu *m);

/** struct sm_mtu_send - A probe to be sent: padded so that the outer packet has @size bytes; 0: not at all */
struct sm_mtu_send {
	uint64_t token;
	uint32_t size;
};

/**
 * sm_mtu_next() - What to send now; call until there is no more
 * @token: random and not 0
 * Return: false if nothing is due
 */
bool sm_mtu_next(struct sm_mtu *m, uint64_t token, uint64_t now_us, struct sm_mtu_send *ret_send);
/** sm_mtu_is_due() - Return: true if sm_mtu_next() has something */
bool sm_mtu_is_due(const struct sm_mtu *m);

/** sm_mtu_on_answer() - From the path's remote; Return: 1 the size changed, 0, -ENOENT not a token of ours */
SM_MUST_CHECK int sm_mtu_on_answer(struct sm_mtu *m, uint64_t token, uint64_t now_us);

/** sm_mtu_on_refused() - The local kernel takes no packet of @size bytes; Return: true if the size changed */
bool sm_mtu_on_refused(struct sm_mtu *m, uint32_t size, uint64_t now_us);

/** sm_mtu_on_larger() - A packet of @size bytes came from the peer: perhaps one can go, too */
void sm_mtu_on_larger(struct sm_mtu *m, uint32_t size, uint64_t now_us);

#endif

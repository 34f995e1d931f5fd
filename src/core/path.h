// SPDX-License-Identifier: MIT
/*
 * Where a session's packets go: probing, round-trip time, following a peer whose address changes.
 *
 * Theory of operation: probes carry a random token and are sealed, so an answer from an address proves that
 * the peer is there. A newest packet from elsewhere only raises a suspicion: the new address is challenged
 * and the old one asked as well; when the new one has answered and the old one has stayed silent for a
 * grace time, the path moves (RFC 9000, section 9.3). At most one challenge a second. A silent path is
 * probed every second, and so are the other candidates, until one answers.
 *
 * No clock, no socket: the caller sends what sm_path_next() asks for.
 * Spec: PROTOCOL.md, "Paths"
 */
#ifndef SM_CORE_PATH_H
#define SM_CORE_PATH_H

#include "wire/ctrl.h"
#include "wire/data.h"

#define SM_PATH_CANDIDATES_MAX (SM_ENDPOINTS_MAX + 4u)
#define SM_PATH_PROBES_MAX     32u
#define SM_PATH_GRACE_MIN_US   (100 * SM_MSEC_US)

enum sm_path_state {
	SM_PATH_UNPROVEN, /* nothing authenticated came from there yet; used all the same */
	SM_PATH_UP,
	SM_PATH_DOWN, /* silent for SM_PATH_SILENT_US although probed */
	SM_PATH_STATE_COUNT,
};

const char *sm_path_state_name(enum sm_path_state state);

/** struct sm_path_probe - One probe that waits for its answer (token 0: free) */
struct sm_path_probe {
	uint64_t token, sent_us;
	struct sm_addr to;
	uint64_t tag; /* not 0: asked for by a command; told in sm_path_answer */
};

struct sm_path {
	enum sm_path_state state;
	struct sm_addr remote, local;
	struct sm_addr candidate[SM_PATH_CANDIDATES_MAX];
	uint32_t candidates;
	struct sm_path_probe probe[SM_PATH_PROBES_MAX];
	uint32_t next_probe;
	uint64_t srtt_us, min_rtt_us, last_rtt_us;
	uint64_t last_rx_us, last_tx_us, last_probe_us, up_us;
	uint64_t answered_us;   /* last answer from remote */
	uint64_t asking_us;     /* since when the path owes an answer, 0: it does not */
	struct sm_addr suspect; /* family 0: none */
	struct sm_addr suspect_local;
	uint64_t challenged_us, suspect_answered_us;
	uint32_t moves;
	struct sm_addr observed; /* what the peer sees us come from */
};

void sm_path_init(struct sm_path *p, const struct sm_addr *remote, uint64_t now_us);

/** sm_path_add_candidate() - Known ones are kept once; beyond the limit they are ignored */
void sm_path_add_candidate(struct sm_path *p, const struct sm_addr *candidate);

/** struct sm_path_send - A probe to be sent */
struct sm_path_send {
	struct sm_probe probe;
	struct sm_addr to, from;
};

/** sm_path_probe() - Make a probe to @to (family 0: the remote); @token: random and not 0; @tag: see sm_path_probe */
void sm_path_probe(struct sm_path *p, const struct sm_addr *to, uint64_t token, uint64_t tag,
		   uint64_t now_us, struct sm_path_send *ret_send);

enum sm_path_change {
	SM_PATH_SAME = 0,
	SM_PATH_STATE = 1, /* state changed */
	SM_PATH_MOVED = 2, /* remote or local changed: publish */
};

/**
 * sm_path_tick() - Once a second or at the deadline
 * @received, @sent: did packets move since the last tick?
 * @keepalive_us: probe when nothing came for that long
 * @ret_ask: addresses to probe now; SM_PATH_CANDIDATES_MAX + 1 entries
 * @ret_count: how many
 * Return: mask of SM_PATH_*
 */
SM_MUST_CHECK unsigned sm_path_tick(struct sm_path *p, bool received, bool sent,
				    uint64_t keepalive_us, uint64_t now_us, struct sm_addr *ret_ask,
				    uint32_t *ret_count);
uint64_t sm_path_deadline(const struct sm_path *p);

/**
 * sm_path_on_suspect() - A newest authenticated packet came from another address
 * Return: true if that address is to be challenged now, and the old one asked
 */
bool sm_path_on_suspect(struct sm_path *p, const struct sm_addr *from, const struct sm_addr *local,
			uint64_t now_us);

struct sm_path_answer {
	uint64_t tag, rtt_us;
	struct sm_addr from;
};

/**
 * sm_path_on_answer() - An authenticated answer came
 * @ret_answer: filled if the token is one of ours
 * Return: mask of SM_PATH_*, or -ENOENT for an unknown token
 */
SM_MUST_CHECK int sm_path_on_answer(struct sm_path *p, const struct sm_probe *answer,
				    const struct sm_addr *from, const struct sm_addr *local,
				    uint64_t now_us, struct sm_path_answer *ret_answer);

/** sm_path_on_received() - Any authenticated packet from the remote came; Return: mask of SM_PATH_* */
SM_MUST_CHECK unsigned sm_path_on_received(struct sm_path *p, uint64_t now_us);

/** sm_path_reset_local() - This machine's addresses changed: let the kernel choose again; Return: mask */
SM_MUST_CHECK unsigned sm_path_reset_local(struct sm_path *p);

#endif

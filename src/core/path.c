// SPDX-License-Identifier: MIT
/*
 * Paths: see path.h.
 */
#include "core/path.h"

static const char *const state_names[] = {
	[SM_PATH_UNPROVEN] = "unproven",
	[SM_PATH_UP] = "up",
	[SM_PATH_DOWN] = "down",
};
static_assert(SM_ARRAY_SIZE(state_names) == SM_PATH_STATE_COUNT, "every state has a name");

const char *sm_path_state_name(enum sm_path_state state)
{
	return state_names[state];
}

void sm_path_init(struct sm_path *p, const struct sm_addr *remote, uint64_t now_us)
{
	*p = (struct sm_path){.state = SM_PATH_UNPROVEN, .remote = *remote, .last_rx_us = now_us};
	sm_path_add_candidate(p, remote);
}

void sm_path_add_candidate(struct sm_path *p, const struct sm_addr *candidate)
{
	for (uint32_t i = 0; i < p->candidates; i++)
		if (sm_addr_equal(&p->candidate[i], candidate))
			return;
	if (p->candidates < SM_PATH_CANDIDATES_MAX)
		p->candidate[p->candidates++] = *candidate;
}

void sm_path_probe(struct sm_path *p, const struct sm_addr *to, uint64_t token, uint64_t tag,
		   uint64_t now_us, struct sm_path_send *ret_send)
{
	const struct sm_addr dst = to->family ? *to : p->remote;
	struct sm_path_probe *slot = &p->probe[p->next_probe];

	p->next_probe = (p->next_probe + 1) % SM_PATH_PROBES_MAX;
	*slot = (struct sm_path_probe){.token = token, .sent_us = now_us, .to = dst, .tag = tag};
	*ret_send = (struct sm_path_send){.probe = {.op = SM_PROBE_REQUEST, .token = token},
					  .to = dst};
	if (sm_addr_equal(&dst, &p->remote)) {
		ret_send->from = p->local;
		p->last_probe_us = now_us;
		if (!p->asking_us)
			p->asking_us = now_us;
	} else if (p->suspect.family && sm_addr_equal(&dst, &p->suspect)) {
		ret_send->from = p->suspect_local; /* a NAT in between lets only that one back in */
	}
}

static unsigned set_state(struct sm_path *p, enum sm_path_state state, uint64_t now_us)
{
	if (p->state == state)
		return SM_PATH_SAME;
	p->state = state;
	if (state == SM_PATH_UP)
		p->up_us = now_us;
	return SM_PATH_STATE;
}

static unsigned move(struct sm_path *p, const struct sm_addr *remote, const struct sm_addr *local)
{
	if (sm_addr_equal(&p->remote, remote) && sm_addr_equal(&p->local, local))
		return SM_PATH_SAME;
	if (!sm_addr_equal(&p->remote, remote)) {
		p->moves++;
		p->srtt_us = p->min_rtt_us = 0;
		p->suspect.family = 0;
		p->asking_us = 0;
	}
	p->remote = *remote;
	p->local = *local;
	return SM_PATH_MOVED;
}

static uint64_t grace_us(const struct sm_path *p)
{
	return SM_MAX(3 * p->srtt_us, SM_PATH_GRACE_MIN_US);
}

/* The suspect has answered; did the old address stay silent meanwhile? */
static unsigned settle_suspect(struct sm_path *p, uint64_t now_us)
{
	if (!p->suspect.family || !p->suspect_answered_us)
		return SM_PATH_SAME;
	if (p->answered_us >= p->challenged_us) { /* the old address works: stay */
		p->suspect.family = 0;
		return SM_PATH_SAME;
	}
	if (now_us < p->challenged_us + grace_us(p))
		return SM_PATH_SAME;
	const struct sm_addr remote = p->suspect;

	return move(p, &remote, &p->suspect_local) | set_state(p, SM_PATH_UP, now_us);
}

unsigned sm_path_tick(struct sm_path *p, bool received, bool sent, uint64_t keepalive_us,
		      uint64_t now_us, struct sm_addr *ret_ask, uint32_t *ret_count)
{
	unsigned change = settle_suspect(p, now_us);
	uint32_t n = 0;
	bool silent;

	if (received)
		change |= sm_path_on_received(p, now_us);
	if (sent)
		p->last_tx_us = now_us;
	if (p->asking_us && now_us >= p->asking_us + SM_PATH_SILENT_US)
		change |= set_state(p, SM_PATH_DOWN, now_us);

	silent = now_us >= p->last_rx_us + SM_PROBE_INTERVAL_US;
	if (silent && now_us >= p->last_probe_us + SM_PROBE_INTERVAL_US &&
	    (sent || p->asking_us || p->state != SM_PATH_UP ||
	     now_us >= p->last_rx_us + keepalive_us))
		ret_ask[n++] = p->remote;
	/* an answer is overdue by a second: any address of the peer is as good as this one */
	if (n && p->asking_us && now_us >= p->asking_us + SM_PROBE_INTERVAL_US) {
		if (p->local.family)
			change |= sm_path_reset_local(p);
		for (uint32_t i = 0; i < p->candidates; i++)
			if (!sm_addr_equal(&p->candidate[i], &p->remote))
				ret_ask[n++] = p->candidate[i];
	}
	*ret_count = n;
	return change;
}

uint64_t sm_path_deadline(const struct sm_path *p)
{
	if (p->suspect.family && p->suspect_answered_us)
		return p->challenged_us + grace_us(p);
	return SM_NEVER; /* the rest happens at the owner's tick, once a second */
}

bool sm_path_on_suspect(struct sm_path *p, const struct sm_addr *from, const struct sm_addr *local,
			uint64_t now_us)
{
	if (sm_addr_equal(from, &p->remote))
		return false;
	if (p->challenged_us && now_us < p->challenged_us + SM_PROBE_INTERVAL_US)
		return false;
	p->suspect = *from;
	p->suspect_local = *local;
	p->challenged_us = now_us;
	p->suspect_answered_us = 0;
	return true;
}

int sm_path_on_answer(struct sm_path *p, const struct sm_probe *answer, const struct sm_addr *from,
		      const struct sm_addr *local, uint64_t now_us,
		      struct sm_path_answer *ret_answer)
{
	struct sm_path_probe *probe = NULL;
	unsigned change = SM_PATH_SAME;

	for (uint32_t i = 0; i < SM_PATH_PROBES_MAX && answer->token; i++)
		if (p->probe[i].token == answer->token)
			probe = &p->probe[i];
	if (!probe)
		return -ENOENT;
	*ret_answer = (struct sm_path_answer){
		.tag = probe->tag, .rtt_us = now_us - probe->sent_us, .from = *from};
	probe->token = 0;
	if (!sm_addr_equal(
		    from,
		    &probe->to)) /* came another way than it was asked: proves nothing of a path */
		return SM_PATH_SAME;
	p->observed = answer->observed;

	if (sm_addr_equal(from, &p->remote)) {
		p->last_rtt_us = ret_answer->rtt_us;
		p->srtt_us = p->srtt_us ? (7 * p->srtt_us + p->last_rtt_us) / 8 : p->last_rtt_us;
		p->min_rtt_us = p->min_rtt_us ? SM_MIN(p->min_rtt_us, p->last_rtt_us)
					      : p->last_rtt_us;
		p->answered_us = now_us;
		change |= sm_path_on_received(p, now_us);
		if (!sm_addr_equal(&p->local, local))
			change |= move(p, &p->remote, local);
	} else if (p->suspect.family && sm_addr_equal(from, &p->suspect)) {
		p->suspect_answered_us = now_us;
		p->suspect_local = *local;
		change |= settle_suspect(p, now_us);
	} else if (p->state != SM_PATH_UP ||
		   (p->asking_us && now_us >= p->asking_us + SM_PROBE_INTERVAL_US)) {
		/* another candidate works while ours does not */
		change |= move(p, from, local);
		change |= sm_path_on_received(p, now_us);
	}
	return (int)change;
}

unsigned sm_path_on_received(struct sm_path *p, uint64_t now_us)
{
	p->last_rx_us = now_us;
	p->asking_us = 0;
	return set_state(p, SM_PATH_UP, now_us);
}

unsigned sm_path_reset_local(struct sm_path *p)
{
	static const struct sm_addr any;

	return move(p, &p->remote, &any);
}

// SPDX-License-Identifier: MIT
/*
 * Path MTU: see mtu.h.
 */
#include "core/mtu.h"

#define FINE_PROBES   7u   /* of one round between what passes and what does not */
#define SOME_PACKETS  8u   /* since the size was verified: it is worth a probe */
#define MUCH          100u /* times the size sent since: a probe is a hundredth of it */
#define BUSY_US       (1 * SM_SEC_US)
#define SOME_US       (2 * SM_SEC_US)
#define WAIT_FIRST_US (1 * SM_SEC_US) /* the round-trip time is not known */

/* IP over Ethernet and what is usual to be taken off it; FDDI, jumbo frames, half of the largest */
static const uint32_t usual[] = {1400, 1420, 1450, 1480, 1492, 1500, 4352, 9000, 16384, 32768};

static_assert(SM_ARRAY_SIZE(usual) + 3 <= SM_MTU_PROBES_MAX,
	      "and the base, the link's, a small one");
static_assert(FINE_PROBES + 2 <= SM_MTU_PROBES_MAX, "and a small one");

static const char *const state_names[] = {
	[SM_MTU_FIXED] = "fixed",       [SM_MTU_BASE] = "base",   [SM_MTU_SEARCHING] = "searching",
	[SM_MTU_COMPLETE] = "complete", [SM_MTU_ERROR] = "error",
};
static_assert(SM_ARRAY_SIZE(state_names) == SM_MTU_STATE_COUNT, "every state has a name");

const char *sm_mtu_state_name(enum sm_mtu_state state)
{
	return state_names[state];
}

static uint32_t bounded(uint32_t max)
{
	return SM_MIN(SM_MAX(max, SM_PATH_MTU_MIN), SM_MTU_MAX);
}

void sm_mtu_init(struct sm_mtu *m, uint32_t fixed, uint32_t max)
{
	*m = (struct sm_mtu){
		.state = fixed ? SM_MTU_FIXED : SM_MTU_BASE,
		.size = fixed ? fixed : SM_PATH_MTU_MIN,
		.max = bounded(max),
		.raise_at_us = SM_NEVER,
	};
	m->failed = m->max + 1;
}

/* -- the probes that are out -- */

static struct sm_mtu_probe *find(struct sm_mtu *m, uint32_t size)
{
	for (uint32_t i = 0; i < m->probes; i++)
		if (m->probe[i].size == size)
			return &m->probe[i];
	return NULL;
}

static void add(struct sm_mtu *m, uint32_t size)
{
	struct sm_mtu_probe *p = find(m, size);

	if (p)
		p->due = true;
	else if (m->probes < SM_MTU_PROBES_MAX)
		m->probe[m->probes++] = (struct sm_mtu_probe){.size = size, .due = true};
}

static void drop(struct sm_mtu *m, struct sm_mtu_probe *p)
{
	*p = m->probe[--m->probes];
}

/* Takes away those of @from to @to bytes, both included */
static void drop_range(struct sm_mtu *m, uint32_t from, uint32_t to)
{
	for (uint32_t i = m->probes; i-- > 0;)
		if (m->probe[i].size >= from && m->probe[i].size <= to)
			drop(m, &m->probe[i]);
}

static bool is_trying_larger(const struct sm_mtu *m)
{
	for (uint32_t i = 0; i < m->probes; i++)
		if (m->probe[i].size > m->size)
			return true;
	return false;
}

static bool is_confirmed(const struct sm_mtu *m)
{
	return m->state == SM_MTU_SEARCHING || m->state == SM_MTU_COMPLETE;
}

/* -- the search -- */

/* All usual sizes between what passes and what does not, and the base if it was never seen to pass */
static void add_usual(struct sm_mtu *m)
{
	if (!is_confirmed(m))
		add(m, m->size);
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(usual); i++)
		if (usual[i] > m->size && usual[i] < m->failed && usual[i] <= m->max)
			add(m, usual[i]);
}

static void add_fine(struct sm_mtu *m)
{
	const uint32_t gap = m->failed - m->size;
	const uint32_t n = SM_MIN(gap / SM_MTU_STEP, FINE_PROBES);

	for (uint32_t i = 1; i <= n; i++)
		add(m, m->size + gap * i / (n + 1));
}

static void search(struct sm_mtu *m, bool all_at_once)
{
	m->probes = 0;
	m->failed = m->max + 1;
	m->raise_at_us = SM_NEVER;
	if (m->state == SM_MTU_COMPLETE)
		m->state = SM_MTU_SEARCHING;
	else if (m->state == SM_MTU_ERROR)
		m->state = SM_MTU_BASE;
	add(m, m->max);
	if (all_at_once)
		add_usual(m);
}

static void complete(struct sm_mtu *m, uint64_t now_us)
{
	if (m->state == SM_MTU_COMPLETE)
		return;
	m->state = SM_MTU_COMPLETE;
	m->ended_us = now_us;
	m->raise_at_us = m->size < m->max ? now_us + SM_MTU_RAISE_US : SM_NEVER;
	m->probes = 0;
}

/* Something larger passed or failed: is there still anything between the two? */
static void go_on(struct sm_mtu *m, uint64_t now_us)
{
	if (is_trying_larger(m))
		return;
	if (!is_confirmed(m)) {
		add_usual(m);
		return;
	}
	if (m->size >= m->max || m->failed - m->size <= SM_MTU_STEP)
		complete(m, now_us);
	else if (m->state == SM_MTU_SEARCHING)
		add_fine(m);
}

void sm_mtu_start(struct sm_mtu *m, uint32_t max, uint64_t now_us)
{
	if (m->state == SM_MTU_FIXED)
		return;
	m->max = bounded(max);
	m->size = SM_PATH_MTU_MIN;
	m->state = SM_MTU_BASE;
	m->rtt_us = m->probe_rtt_us = m->alive_us = 0;
	m->verified_us = now_us;
	m->unverified_packets = m->unverified_bytes = 0;
	search(m, false);
}

void sm_mtu_inherit(struct sm_mtu *m, const struct sm_mtu *old, uint64_t now_us)
{
	if (m->state == SM_MTU_FIXED)
		return;
	const uint32_t max = m->max;

	*m = *old;
	m->asleep = false;
	m->probes = 0;
	(void)sm_mtu_set_max(m, max, now_us);
	if (m->state == SM_MTU_COMPLETE)
		sm_mtu_verify(m, now_us);
	else
		search(m, false);
}

void sm_mtu_verify(struct sm_mtu *m, uint64_t now_us)
{
	/* a search under way, or one without a confirmed size, finds it out by itself */
	if (m->state != SM_MTU_COMPLETE || m->probes)
		return;
	add(m, m->size);
	m->verified_us = now_us;
	m->unverified_packets = m->unverified_bytes = 0;
}

bool sm_mtu_set_max(struct sm_mtu *m, uint32_t max, uint64_t now_us)
{
	const uint32_t size = m->size;

	max = bounded(max);
	if (m->state == SM_MTU_FIXED || max == m->max)
		return false;
	m->max = max;
	m->size = SM_MIN(m->size, max); /* less than what passes passes, too */
	drop_range(m, max + 1, SM_MTU_MAX);
	if (m->size < max) {
		search(m, false);
	} else {
		m->failed = max + 1;
		m->probes = 0;
		if (is_confirmed(m)) {
			complete(m, now_us);
			sm_mtu_verify(m, now_us);
		} else {
			search(m, false);
		}
	}
	return m->size != size;
}

void sm_mtu_sleep(struct sm_mtu *m, bool asleep, uint64_t now_us)
{
	if (m->state == SM_MTU_FIXED || asleep == m->asleep)
		return;
	m->asleep = asleep;
	if (asleep) {
		m->probes = 0;
		return;
	}
	if (m->state == SM_MTU_COMPLETE)
		sm_mtu_verify(m, now_us);
	else
		search(m, false);
}

void sm_mtu_second(struct sm_mtu *m, uint64_t packets, uint64_t bytes, bool received,
		   uint64_t now_us)
{
	const uint64_t age_us = now_us - m->verified_us;

	m->unverified_packets += packets;
	m->unverified_bytes += bytes;
	if (m->state != SM_MTU_COMPLETE || m->probes || m->asleep || !m->unverified_packets)
		return;
	if (age_us >= SM_MTU_VERIFY_US ||
	    (age_us >= SOME_US && m->unverified_packets >= SOME_PACKETS) ||
	    (age_us >= BUSY_US && (!received || m->unverified_bytes >= (uint64_t)MUCH * m->size)))
		sm_mtu_verify(m, now_us);
}

/* -- time -- */

static uint64_t wait_us(const struct sm_mtu *m)
{
	/* under load it may have grown since the path was asked */
	const uint64_t rtt_us = SM_MAX(m->rtt_us, m->probe_rtt_us);

	if (!rtt_us)
		return WAIT_FIRST_US;
	return SM_MIN(2 * rtt_us + SM_MTU_WAIT_MIN_US, SM_MTU_WAIT_MAX_US);
}

static bool is_over(const struct sm_mtu *m, const struct sm_mtu_probe *p, uint64_t now_us)
{
	return !p->due && now_us >= p->sent_us + wait_us(m);
}

static bool has_failed(const struct sm_mtu *m, const struct sm_mtu_probe *p, uint64_t now_us)
{
	return p->size && is_over(m, p, now_us) && p->attempts >= SM_MTU_ATTEMPTS &&
	       m->alive_us >= p->sent_us;
}

static uint32_t smallest_failed(const struct sm_mtu *m, uint64_t now_us)
{
	uint32_t size = SM_MTU_MAX + 1;

	for (uint32_t i = 0; i < m->probes; i++)
		if (has_failed(m, &m->probe[i], now_us))
			size = SM_MIN(size, m->probe[i].size);
	return size;
}

/* Return: true if the size changed */
static bool fail(struct sm_mtu *m, uint32_t size, uint64_t now_us)
{
	if (size > m->size) {
		m->failed = SM_MIN(m->failed, size);
		drop_range(m, size, SM_MTU_MAX);
		go_on(m, now_us);
		return false;
	}
	if (m->size == SM_PATH_MTU_MIN) {
		m->state = SM_MTU_ERROR;
		m->probes = 0;
		m->raise_at_us = now_us + SM_MTU_RETRY_US;
		return false;
	}
	/* a black hole; what may be wrong about that, the search corrects */
	m->black_holes++;
	m->size = SM_PATH_MTU_MIN;
	m->state = SM_MTU_BASE;
	search(m, true);
	return true;
}

/* Those that were not answered in time go out again, a small one with them. */
static void repeat(struct sm_mtu *m, uint64_t now_us)
{
	bool larger = false, again = false, first = false;

	for (uint32_t i = 0; i < m->probes; i++) {
		struct sm_mtu_probe *p = &m->probe[i];

		if (!p->size || !is_over(m, p, now_us))
			continue;
		p->due = again = true;
		first |= p->attempts == 1;
		larger |= p->size > m->size || !is_confirmed(m);
	}
	if (!again) {
		struct sm_mtu_probe *small = find(m, 0);

		if (small && is_over(m, small, now_us))
			drop(m, small); /* it goes along with the next that are repeated */
		return;
	}
	if (larger && first && m->state != SM_MTU_COMPLETE && m->failed > m->max)
		add_usual(m);
	add(m, 0);
}

bool sm_mtu_tick(struct sm_mtu *m, uint64_t rtt_us, uint64_t now_us)
{
	uint32_t failed;
	bool changed = false;

	if (m->state == SM_MTU_FIXED || m->asleep)
		return false;
	if (rtt_us)
		m->rtt_us = rtt_us;
	if (now_us >= m->raise_at_us)
		search(m, m->state == SM_MTU_ERROR);
	failed = smallest_failed(m, now_us);
	if (failed <= SM_MTU_MAX)
		changed = fail(m, failed, now_us);
	repeat(m, now_us);
	return changed;
}

uint64_t sm_mtu_deadline(const struct sm_mtu *m)
{
	uint64_t at = m->raise_at_us;

	if (m->state == SM_MTU_FIXED || m->asleep)
		return SM_NEVER;
	for (uint32_t i = 0; i < m->probes; i++)
		at = SM_MIN(at, m->probe[i].due ? 0 : m->probe[i].sent_us + wait_us(m));
	return at;
}

bool sm_mtu_is_due(const struct sm_mtu *m)
{
	for (uint32_t i = 0; i < m->probes && !m->asleep; i++)
		if (m->probe[i].due)
			return true;
	return false;
}

bool sm_mtu_next(struct sm_mtu *m, uint64_t token, uint64_t now_us, struct sm_mtu_send *ret_send)
{
	for (uint32_t i = 0; i < m->probes && !m->asleep; i++) {
		struct sm_mtu_probe *p = &m->probe[i];

		if (!p->due)
			continue;
		p->due = false;
		p->sent_us = now_us;
		p->attempts++;
		if (!p->token) /* the answer to an earlier attempt is as good */
			p->token = token;
		*ret_send = (struct sm_mtu_send){.token = p->token, .size = p->size};
		return true;
	}
	return false;
}

/* -- what comes -- */

int sm_mtu_on_answer(struct sm_mtu *m, uint64_t token, uint64_t now_us)
{
	struct sm_mtu_probe *p = NULL;
	const uint32_t before = m->size;
	uint64_t sent_us;
	uint32_t size;

	for (uint32_t i = 0; i < m->probes && token; i++)
		if (m->probe[i].token == token)
			p = &m->probe[i];
	if (!p)
		return -ENOENT;
	size = p->size;
	sent_us = p->sent_us;
	if (p->attempts == 1)
		m->probe_rtt_us = SM_MAX(now_us - p->sent_us, UINT64_C(1));
	m->alive_us = now_us;
	drop(m, p);
	if (size < m->size) /* the small one */
		return 0;
	m->size = size;
	m->verified_us = sent_us;
	m->unverified_packets = m->unverified_bytes = 0;
	if (!is_confirmed(m))
		m->state = SM_MTU_SEARCHING;
	drop_range(m, 1, size);
	if (size >= m->failed) /* it was only lost */
		m->failed = m->max + 1;
	go_on(m, now_us);
	return m->size != before;
}

bool sm_mtu_on_refused(struct sm_mtu *m, uint32_t size, uint64_t now_us)
{
	if (m->state == SM_MTU_FIXED || !size)
		return false;
	return fail(m, size, now_us);
}

void sm_mtu_on_larger(struct sm_mtu *m, uint32_t size, uint64_t now_us)
{
	if (m->state != SM_MTU_COMPLETE || size <= m->size || m->size >= m->max ||
	    now_us < m->ended_us + SM_MTU_LARGER_US)
		return;
	search(m, false);
}

// SPDX-License-Identifier: MIT
/*
 * Paths, as a table of what happens: when they are up, asked and down, and whom they follow.
 */
#include "core/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>

#include <cmocka.h>

#define MS SM_MSEC_US

/* Addresses, by number: 0 is the path's first remote */
static struct sm_addr addr(uint32_t n)
{
	const uint8_t ip[4] = {192, 0, 2, (uint8_t)(n + 1)};
	struct sm_addr a;

	if (sm_addr_from_ip(4, ip, SM_DATA_PORT, &a))
		abort();
	return a;
}

enum op {
	END,
	PROBE,    /* a: to; the token is its number in the script */
	ANSWER,   /* a: from; token b */
	RECEIVED, /* from the remote */
	SUSPECT,  /* a: from; b: is it to be challenged? */
	TICK,     /* a: bit 0 received, bit 1 sent; b: addresses asked */
	CANDIDATE,
	STATE,  /* a: expected */
	REMOTE, /* a: expected */
};

struct step {
	enum op op;
	uint64_t at_ms;
	uint32_t a, b;
};

static void run_step(struct sm_path *p, const struct step *s, uint32_t number)
{
	const uint64_t now_us = SM_SEC_US + s->at_ms * MS;
	struct sm_addr a = addr(s->a), local = addr(100), ask[SM_PATH_CANDIDATES_MAX + 1];
	struct sm_path_answer answer;
	struct sm_path_send send;
	uint32_t count;

	switch (s->op) {
	case PROBE:
		sm_path_probe(p, &a, number + 1, 0, now_us, &send);
		assert_true(sm_addr_equal(&send.to, &a));
		break;
	case ANSWER: {
		const struct sm_probe probe = {
			.op = SM_PROBE_ANSWER, .token = s->b + 1, .observed = local};

		(void)!sm_path_on_answer(p, &probe, &a, &local, now_us, &answer);
		break;
	}
	case RECEIVED:
		(void)!sm_path_on_received(p, now_us);
		break;
	case SUSPECT:
		assert_int_equal(sm_path_on_suspect(p, &a, &local, now_us), s->b);
		break;
	case TICK:
		(void)!sm_path_tick(p, s->a & 1, s->a & 2, 10 * SM_SEC_US, now_us, ask, &count);
		assert_int_equal(count, s->b);
		break;
	case CANDIDATE:
		sm_path_add_candidate(p, &a);
		break;
	case STATE:
		assert_int_equal(p->state, s->a);
		break;
	case REMOTE:
		assert_true(sm_addr_equal(&p->remote, &a));
		break;
	case END:
		break;
	}
}

static const struct script {
	const char *name;
	struct step step[20];
} scripts[] = {
	{"an answer proves it",
	 {{STATE, 0, SM_PATH_UNPROVEN, 0},
	  {PROBE, 0, 0, 0},
	  {ANSWER, 20, 0, 1},
	  {STATE, 20, SM_PATH_UP, 0}}},
	{"an answer from elsewhere proves nothing",
	 {{PROBE, 0, 0, 0},
	  {ANSWER, 20, 1, 0},
	  {STATE, 20, SM_PATH_UNPROVEN, 0},
	  {REMOTE, 20, 0, 0}}},
	{"an unknown token proves nothing",
	 {{PROBE, 0, 0, 0}, {ANSWER, 20, 0, 7}, {STATE, 20, SM_PATH_UNPROVEN, 0}}},
	{"a token counts once",
	 {{CANDIDATE, 0, 1, 0},
	  {PROBE, 0, 1, 0},
	  {ANSWER, 5, 1, 1},
	  {REMOTE, 5, 1, 0},
	  {PROBE, 6, 0, 0},
	  {ANSWER, 7, 1, 1},
	  {REMOTE, 7, 1, 0}}},
	{"three seconds of silence after a probe take it down",
	 {{RECEIVED, 0, 0, 0},
	  {STATE, 0, SM_PATH_UP, 0},
	  {PROBE, 1000, 0, 0},
	  {TICK, 2500, 0, 1},
	  {PROBE, 2500, 0, 0},
	  {TICK, 3900, 0, 1},
	  {STATE, 3900, SM_PATH_UP, 0},
	  {TICK, 4000, 0, 1},
	  {STATE, 4000, SM_PATH_DOWN, 0},
	  {RECEIVED, 4100, 0, 0},
	  {STATE, 4100, SM_PATH_UP, 0}}},
	{"idle: asked after the keepalive only",
	 {{RECEIVED, 0, 0, 0}, {TICK, 2000, 0, 0}, {TICK, 9000, 0, 0}, {TICK, 10000, 0, 1}}},
	{"what was sent and not answered is asked for", {{RECEIVED, 0, 0, 0}, {TICK, 2000, 2, 1}}},
	{"traffic in: nothing to ask", {{RECEIVED, 0, 0, 0}, {TICK, 2000, 3, 0}}},
	{"silent: candidates are asked too, and one takes over",
	 {{CANDIDATE, 0, 1, 0},
	  {CANDIDATE, 0, 2, 0},
	  {CANDIDATE, 0, 1, 0},
	  {RECEIVED, 0, 0, 0},
	  {PROBE, 1000, 0, 0},
	  {TICK, 2100, 2, 3},
	  {PROBE, 2100, 2, 0},
	  {ANSWER, 2150, 2, 6},
	  {REMOTE, 2150, 2, 0},
	  {STATE, 2150, SM_PATH_UP, 0}}},
	{"a candidate that answers does not displace a path that works",
	 {{CANDIDATE, 0, 1, 0},
	  {RECEIVED, 0, 0, 0},
	  {PROBE, 10, 1, 0},
	  {ANSWER, 20, 1, 2},
	  {REMOTE, 20, 0, 0}}},
	{"a new address that answers while the old is silent",
	 {{RECEIVED, 0, 0, 0},
	  {SUSPECT, 100, 1, 1},
	  {PROBE, 100, 1, 0},
	  {PROBE, 100, 0, 0},
	  {ANSWER, 120, 1, 2},
	  {REMOTE, 120, 0, 0},
	  {TICK, 150, 1, 0},
	  {REMOTE, 150, 0, 0},
	  {TICK, 210, 1, 0},
	  {REMOTE, 210, 1, 0}}},
	{"the old one answers: it stays",
	 {{RECEIVED, 0, 0, 0},
	  {SUSPECT, 100, 1, 1},
	  {PROBE, 100, 1, 0},
	  {PROBE, 100, 0, 0},
	  {ANSWER, 120, 0, 3},
	  {ANSWER, 130, 1, 2},
	  {TICK, 900, 1, 0},
	  {REMOTE, 900, 0, 0}}},
	{"the old one answers last: it stays",
	 {{RECEIVED, 0, 0, 0},
	  {SUSPECT, 100, 1, 1},
	  {PROBE, 100, 1, 0},
	  {PROBE, 100, 0, 0},
	  {ANSWER, 110, 1, 2},
	  {ANSWER, 150, 0, 3},
	  {TICK, 300, 1, 0},
	  {REMOTE, 300, 0, 0}}},
	{"a suspect that does not answer is forgotten",
	 {{RECEIVED, 0, 0, 0},
	  {SUSPECT, 100, 1, 1},
	  {PROBE, 100, 1, 0},
	  {TICK, 900, 1, 0},
	  {REMOTE, 900, 0, 0}}},
	{"one challenge a second",
	 {{RECEIVED, 0, 0, 0},
	  {SUSPECT, 100, 1, 1},
	  {SUSPECT, 200, 2, 0},
	  {SUSPECT, 1099, 1, 0},
	  {SUSPECT, 1100, 2, 1},
	  {SUSPECT, 1100, 0, 0}}},
	{"the same address raises no suspicion", {{RECEIVED, 0, 0, 0}, {SUSPECT, 100, 0, 0}}},
};

static void test_scripts(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(scripts); i++) {
		const struct sm_addr first = addr(0);
		struct sm_path p;

		printf("%s\n", scripts[i].name);
		sm_path_init(&p, &first, SM_SEC_US);
		for (uint32_t k = 0; k < SM_ARRAY_SIZE(scripts[i].step); k++)
			run_step(&p, &scripts[i].step[k], k);
	}
}

static void test_limits(void **state)
{
	struct sm_addr a = addr(0), ask[SM_PATH_CANDIDATES_MAX + 1];
	struct sm_path_send send;
	struct sm_path p;
	uint32_t count;

	(void)state;
	sm_path_init(&p, &a, SM_SEC_US);
	for (uint32_t i = 0; i < 200; i++) {
		a = addr(i);
		sm_path_add_candidate(&p, &a);
		sm_path_probe(&p, &a, i + 1, 0, SM_SEC_US, &send);
	}
	assert_int_equal(p.candidates, SM_PATH_CANDIDATES_MAX);
	(void)!sm_path_tick(&p, false, true, SM_SEC_US, 100 * SM_SEC_US, ask, &count);
	assert_int_equal(count, SM_PATH_CANDIDATES_MAX);
}

static void test_round_trip(void **state)
{
	const struct sm_addr a = addr(0), local = addr(100);
	struct sm_probe probe = {.op = SM_PROBE_ANSWER, .observed = local};
	struct sm_path_answer answer;
	struct sm_path_send send;
	struct sm_path p;

	(void)state;
	sm_path_init(&p, &a, SM_SEC_US);
	for (uint32_t i = 0; i < 50; i++) {
		const uint64_t now_us = SM_SEC_US * (i + 2);

		sm_path_probe(&p, &(struct sm_addr){0}, i + 1, 7000 + i, now_us, &send);
		assert_true(sm_addr_equal(&send.to, &a));
		probe.token = i + 1;
		assert_true(sm_path_on_answer(&p, &probe, &a, &local, now_us + 10 * MS + i,
					      &answer) >= 0);
		assert_int_equal(answer.tag, 7000 + i);
		assert_int_equal(answer.rtt_us, 10 * MS + i);
	}
	assert_int_equal(p.min_rtt_us, 10 * MS);
	assert_in_range(p.srtt_us, 10 * MS, 10 * MS + 50);
	assert_true(sm_addr_equal(&p.observed, &local));
	assert_true(sm_addr_equal(&p.local, &local));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

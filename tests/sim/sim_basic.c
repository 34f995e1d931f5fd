// SPDX-License-Identifier: MIT
/*
 * Nodes that find each other: one dials, both dial, many do; nobody flaps, nothing is lost.
 */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define RUNS    12u
#define PACE_US (2 * SM_MSEC_US)

static void add_pair(struct sim_world *w)
{
	for (uint32_t i = 0; i < 2; i++)
		sim_start(w, sim_add(w));
}

static void test_one_dials(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct sim_world *w = sim_world_new("one dials", run);

		add_pair(w);
		sim_peer(w, 0, 1, true);
		assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
		struct sim_flow *f = sim_flow_start(w, 0, 1, PACE_US),
				*g = sim_flow_start(w, 1, 0, PACE_US);

		sim_run(w, 5 * SM_SEC_US);
		sim_flow_stop(f);
		sim_flow_stop(g);
		sim_run(w, SM_SEC_US);
		assert_true(f->sent > 2000 && g->sent > 2000);
		assert_int_equal(sim_flow_lost(f) + sim_flow_lost(g) + f->refused + g->refused +
					 f->twice + g->twice,
				 0);
		assert_int_equal(w->node[0].counts.dials, 1);
		assert_int_equal(w->node[1].counts.dials, 0);
		assert_int_equal(w->node[0].counts.events[SM_NODE_SESSION_UP], 1);
		sim_world_free(w);
	}
}

static bool first_up(struct sim_world *w)
{
	return w->node[0].counts.events[SM_NODE_SESSION_UP] &&
	       w->node[1].counts.events[SM_NODE_SESSION_UP];
}

/* Whatever the order in which two connections open: one survives, and frames never notice. */
static void test_both_dial(void **state)
{
	uint32_t glares = 0;

	(void)state;
	for (uint32_t run = 0; run < 20 * RUNS; run++) {
		struct sim_world *w = sim_world_new("both dial", run);

		w->net.delay_us = 200 + rng_below(&w->rng, 80000);
		w->net.jitter_us = 1 + rng_below(&w->rng, 60000);
		add_pair(w);
		sim_peer(w, 0, 1, true);
		sim_run(w, rng_below(&w->rng, 300000));
		sim_peer(w, 1, 0, true);
		assert_true(sim_run_until(w, first_up, 5 * SM_SEC_US));
		struct sim_flow *f = sim_flow_start(w, 0, 1, PACE_US),
				*g = sim_flow_start(w, 1, 0, PACE_US);

		sim_run(w, 8 * SM_SEC_US);
		assert_true(sim_connected(w, 0, 1));
		const uint64_t ups = w->node[0].counts.events[SM_NODE_SESSION_UP] +
				     w->node[1].counts.events[SM_NODE_SESSION_UP];

		sim_run(w, 30 * SM_SEC_US);
		sim_flow_stop(f);
		sim_flow_stop(g);
		sim_run(w, SM_SEC_US);
		assert_true(sim_connected(w, 0, 1));
		assert_int_equal(sim_flow_lost(f) + sim_flow_lost(g) + f->refused + g->refused, 0);
		/* no flapping: at most one change of mind at each side, none later */
		assert_true(ups <= 6);
		assert_int_equal(w->node[0].counts.events[SM_NODE_SESSION_UP] +
					 w->node[1].counts.events[SM_NODE_SESSION_UP],
				 ups);
		assert_int_equal(sim_sessions(w, 0, 1), 1);
		assert_int_equal(sim_sessions(w, 1, 0), 1);
		glares += w->node[0].counts.dials && w->node[1].counts.dials;
		sim_world_free(w);
	}
	printf("%u of %u runs had both dial\n", glares, 20 * RUNS);
	assert_true(glares > RUNS);
}

static void mesh(uint32_t nodes, uint32_t run)
{
	struct sim_world *w = sim_world_new("mesh", run);
	struct sim_flow *f[6];

	w->net.jitter_us = 20000;
	for (uint32_t i = 0; i < nodes; i++)
		sim_start(w, sim_add(w));
	for (uint32_t i = 0; i < nodes; i++)
		for (uint32_t k = 0; k < nodes; k++)
			if (i != k)
				sim_peer(w, i, k, true);
	assert_true(sim_run_until(w, sim_all_connected, 20 * SM_SEC_US));
	for (uint32_t i = 0; i < 6; i++)
		f[i] = sim_flow_start(w, i % 3, (i % 3 + 1 + i / 3) % 3, PACE_US);
	sim_run(w, 10 * SM_SEC_US);
	for (uint32_t i = 0; i < 6; i++)
		sim_flow_stop(f[i]);
	sim_run(w, SM_SEC_US);
	assert_true(sim_all_connected(w));
	for (uint32_t i = 0; i < 6; i++) {
		assert_true(f[i]->sent > 4000);
		assert_int_equal(sim_flow_lost(f[i]) + f[i]->refused, 0);
	}
	sim_world_free(w);
}

static void test_three(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++)
		mesh(3, run);
}

static void test_twenty(void **state)
{
	(void)state;
	mesh(20, 0);
	mesh(20, 1);
}

/* Two hundred nodes around one come back at once: they converge, and nobody tells more than its part. */
static void test_star_restart(void **state)
{
	const uint32_t nodes = 200;
	struct sim_world *w = sim_world_new("star restart", 0);
	uint64_t messages = 0, dials = 0, start_us;

	(void)state;
	for (uint32_t i = 0; i < nodes; i++) {
		sim_add(w);
		w->node[i].config.workers = 1;
		sim_start(w, i);
	}
	for (uint32_t i = 1; i < nodes; i++)
		sim_peer(w, i, 0, true);
	assert_true(sim_run_until(w, sim_all_connected, 20 * SM_SEC_US));
	for (uint32_t i = 0; i < nodes; i++) {
		sim_crash(w, i);
		w->node[i].counts = (struct sim_counts){0};
		sim_start(w, i);
		if (i)
			sim_peer(w, i, 0, true);
	}
	start_us = w->now_us;
	assert_true(sim_run_until(w, sim_all_connected, 20 * SM_SEC_US));
	const uint64_t took_us = w->now_us - start_us;

	sim_run(w, 60 * SM_SEC_US);
	assert_true(sim_all_connected(w));
	for (uint32_t i = 0; i < nodes; i++) {
		messages += w->node[i].counts.conn_messages;
		dials += w->node[i].counts.dials;
	}
	printf("%u nodes: connected after %.3f s, %llu messages and %llu dials in 60 s\n", nodes,
	       (double)took_us / 1e6, (unsigned long long)messages, (unsigned long long)dials);
	assert_true(took_us < 3 * SM_SEC_US);
	assert_true(dials < 3 * nodes);
	assert_true(messages < 40 * nodes);
	sim_world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_dials),    cmocka_unit_test(test_both_dial),
		cmocka_unit_test(test_three),        cmocka_unit_test(test_twenty),
		cmocka_unit_test(test_star_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

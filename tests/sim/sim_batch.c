// SPDX-License-Identifier: MIT
/*
 * Ways on which several datagrams in one message get lost, all or some of them, where single ones pass.
 */
#include "world.h"
#include "core/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define RUNS     10u
#define ALL      UINT32_MAX
#define FALLBACK (5 * SM_SEC_US)

struct pair {
	struct sim_world *w;
	struct sim_flow *there, *back;
};

static struct pair pair_up(const char *scenario, uint32_t run, uint32_t loses)
{
	struct pair p = {.w = sim_world_new(scenario, run)};

	p.w->net.batch_loses = loses;
	for (uint32_t i = 0; i < 2; i++) {
		sim_add(p.w);
		sim_start(p.w, i);
	}
	sim_peer(p.w, run % 2, 1 - run % 2, true);
	assert_true(sim_run_until(p.w, sim_all_connected, 2 * SM_SEC_US));
	return p;
}

static void flows(struct pair *p, uint64_t period_us)
{
	p->there = sim_flow_start(p->w, 0, 1, period_us);
	p->back = sim_flow_start(p->w, 1, 0, period_us);
}

static const struct sm_batch *batch(struct sim_world *w, uint32_t id)
{
	return &sim_peer_of(w, id, 1 - id)->active->batch;
}

static bool are(struct sim_world *w, enum sm_batch_state state)
{
	return batch(w, 0)->state == state && batch(w, 1)->state == state;
}

static bool are_proven(struct sim_world *w)
{
	return are(w, SM_BATCH_PROVEN) && w->node[0].picture->send[1]->batches &&
	       w->node[1].picture->send[1]->batches;
}

static bool are_lost(struct sim_world *w)
{
	return are(w, SM_BATCH_LOST) && !w->node[0].picture->send[1]->batches;
}

static void stop(struct pair *p)
{
	sim_flow_stop(p->there);
	sim_flow_stop(p->back);
	sim_run(p->w, SM_SEC_US);
}

static void test_proven_in_a_round_trip(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("proven in a round trip", run, 0);
		uint64_t asked;

		assert_true(sim_run_until(p.w, are_proven, 30 * SM_MSEC_US));
		sim_run(p.w, SM_SEC_US);
		asked = p.w->node[0].counts.batches;
		assert_in_range(asked, 1,
				2); /* twice where its own address was learned meanwhile */
		sim_run(p.w, 100 * SM_SEC_US); /* nobody sends: nothing is asked again */
		assert_int_equal(p.w->node[0].counts.batches, asked);
		sim_world_free(p.w);
	}
}

/* A way that never took batches: found out, and no frame was lost for it. */
static void test_never_carried(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		/* some places are lost, or all */
		struct pair p = pair_up("never carried", run, run % 2 ? ALL : 1u << run % 4);

		flows(&p, 5 * SM_MSEC_US);
		assert_true(sim_run_until(p.w, are_lost, 4 * SM_SEC_US));
		sim_run(p.w, 200 * SM_SEC_US);
		assert_true(are_lost(p.w));
		assert_int_equal(batch(p.w, 0)->losses, 1); /* each retry found it as it was */
		assert_in_range(p.w->node[0].counts.batches, 3 * SM_BATCH_ATTEMPTS,
				4 * SM_BATCH_ATTEMPTS);
		assert_int_equal(p.w->node[0].counts.events[SM_NODE_BATCHES], 1);
		stop(&p);
		assert_int_equal(sim_flow_lost(p.there) + sim_flow_lost(p.back), 0);
		sim_world_free(p.w);
	}
}

/* They vanish amid traffic: back within seconds, one by one; in batches again when the cause is gone. */
static void test_lost_and_back(void **state)
{
	uint64_t longest_us = 0;

	(void)state;
	for (uint32_t run = 0; run < 2 * RUNS; run++) {
		struct pair p = pair_up("lost and back", run, 0);
		uint32_t lost;

		flows(&p, 5 * SM_MSEC_US);
		sim_run(p.w, 3 * SM_SEC_US + rng_u64(&p.w->rng) % (12 * SM_SEC_US));
		assert_true(are_proven(p.w));
		p.there->gap_us = p.back->gap_us = 0;
		p.w->net.batch_loses = ALL;
		assert_true(sim_run_until(p.w, are_lost, FALLBACK));
		sim_run(p.w, 100 * SM_MSEC_US);
		longest_us = SM_MAX(longest_us, SM_MAX(p.there->gap_us, p.back->gap_us));
		lost = sim_flow_lost(p.there);
		sim_run(p.w, 90 * SM_SEC_US);
		assert_true(are_lost(p.w));
		assert_in_range(sim_flow_lost(p.there), lost > 5 ? lost - 5 : 0, lost);
		p.w->net.batch_loses = 0;
		assert_true(sim_run_until(p.w, are_proven, SM_BATCH_RETRY_US + 5 * SM_SEC_US));
		stop(&p);
		assert_in_range(sim_flow_lost(p.there), 0, lost);
		sim_world_free(p.w);
	}
	printf("longest silence %.3f s\n", (double)longest_us / 1e6);
	assert_true(longest_us < FALLBACK);
}

/* Only one place of a batch is lost, as where a card forgets the last one. */
static void test_one_place(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("one place", run, 0);

		flows(&p, 5 * SM_MSEC_US);
		sim_run(p.w, 3 * SM_SEC_US);
		p.w->net.batch_loses = 1u << run % SM_BATCH_PROBES;
		assert_true(sim_run_until(p.w, are_lost, SM_BATCH_REPEAT_US + FALLBACK));
		sim_world_free(p.w);
	}
}

/* What loses single datagrams as well says nothing about batches. */
static void test_not_blamed(void **state)
{
	uint32_t losses = 0, proven = 0;

	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("not blamed", run, 0);

		flows(&p, 10 * SM_MSEC_US);
		sim_run(p.w, 5 * SM_SEC_US);
		p.w->net.mtu = 1300; /* a black hole for what was large enough before */
		sim_run(p.w, 20 * SM_SEC_US);
		assert_true(are_proven(p.w));
		sim_cut(p.w, 0, 1, false, true);
		sim_run(p.w, 30 * SM_SEC_US);
		sim_cut(p.w, 0, 1, false, false);
		sim_run(p.w, 10 * SM_SEC_US);
		assert_true(are_proven(p.w));
		p.w->net.loss = 20;
		p.w->net.copies = 50;
		p.w->net.jitter_us = 40 * SM_MSEC_US;
		sim_run(p.w, 100 * SM_SEC_US);
		assert_true(are_proven(p.w));
		assert_int_equal(batch(p.w, 0)->losses + batch(p.w, 1)->losses, 0);
		p.w->net.loss = 100; /* one in five round trips */
		sim_run(p.w, 200 * SM_SEC_US);
		losses += batch(p.w, 0)->losses + batch(p.w, 1)->losses;
		proven += are_proven(p.w);
		sim_world_free(p.w);
	}
	printf("%u losses in %u times 200 s with 10 %% lost\n", losses, 2 * RUNS);
	assert_true(losses <= 3 && proven >= RUNS - 2);
}

/* The kernel takes no batch: known at once, and not tried again for a minute. */
static void test_refused(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("refused", run, 0);

		assert_true(sim_run_until(p.w, are_proven, SM_SEC_US));
		flows(&p, 5 * SM_MSEC_US);
		p.w->node[0].batch_err = -EIO;
		sim_run(p.w, SM_BATCH_REPEAT_US + 2 * SM_SEC_US);
		assert_int_equal(batch(p.w, 0)->state, SM_BATCH_REFUSED);
		assert_int_equal(batch(p.w, 0)->err, -EIO);
		assert_int_equal(batch(p.w, 1)->state, SM_BATCH_PROVEN);
		p.w->node[0].batch_err = 0;
		assert_true(sim_run_until(p.w, are_proven, SM_BATCH_RETRY_US + SM_SEC_US));
		sim_world_free(p.w);
	}
}

/* A new address is another path; a new session on the same path is not. */
static void test_path_and_session(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("path and session", run, 0);

		flows(&p, 10 * SM_MSEC_US);
		sim_run(p.w, 2 * SM_SEC_US);
		sim_break(p.w, 0, 1);
		sim_run(p.w, 2 * SM_SEC_US);
		assert_true(sim_connected(p.w, 0, 1) && are_proven(p.w));
		assert_int_equal(p.w->node[0].counts.events[SM_NODE_BATCHES], 1);
		p.w->net.batch_loses = ALL;
		sim_move(p.w, 1);
		assert_true(sim_run_until(p.w, are_lost, 10 * SM_SEC_US));
		p.w->net.batch_loses = 0;
		sim_move(p.w, 1); /* not asked to wait a minute: it is another path */
		sim_run(p.w, 4 * SM_SEC_US);
		assert_true(sim_addr_is(p.w, 0, 1));
		assert_int_equal(batch(p.w, 0)->state, SM_BATCH_PROVEN);
		sim_world_free(p.w);
	}
}

/* Switched off and on while sessions are there */
static void test_allowed(void **state)
{
	struct pair p = pair_up("allowed", 0, 0);
	uint64_t asked;

	(void)state;
	assert_true(sim_run_until(p.w, are_proven, SM_SEC_US));
	asked = p.w->node[0].counts.batches;
	sm_node_allow_batches(p.w->node[0].core, false, p.w->now_us);
	sim_kick(&p.w->node[0]);
	assert_false(p.w->node[0].picture->send[1]->batches);
	sim_run(p.w, 100 * SM_SEC_US);
	assert_int_equal(batch(p.w, 0)->state, SM_BATCH_OFF);
	assert_int_equal(p.w->node[0].counts.batches, asked);
	sm_node_allow_batches(p.w->node[0].core, true, p.w->now_us);
	sim_kick(&p.w->node[0]);
	assert_false(p.w->node[0].picture->send[1]->batches);
	assert_true(sim_run_until(p.w, are_proven, 30 * SM_MSEC_US));
	sim_world_free(p.w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proven_in_a_round_trip),
		cmocka_unit_test(test_never_carried),
		cmocka_unit_test(test_lost_and_back),
		cmocka_unit_test(test_one_place),
		cmocka_unit_test(test_not_blamed),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_path_and_session),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

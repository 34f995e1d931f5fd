// SPDX-License-Identifier: MIT
/*
 * Paths that carry less than their ends' links, and change: the size is found, frames that fill it go on.
 */
#include "world.h"
#include "core/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define RUNS 10u

struct pair {
	struct sim_world *w;
	struct sim_flow *there, *back;
};

/* Two nodes whose links take @link and whose path takes @mtu; full frames go there, and back if @both. */
static struct pair pair_up(const char *scenario, uint32_t run, uint32_t link, uint32_t mtu,
			   bool both)
{
	struct pair p = {.w = sim_world_new(scenario, run)};

	p.w->net.mtu = mtu;
	for (uint32_t i = 0; i < 2; i++) {
		sim_add(p.w);
		p.w->node[i].link_mtu = link;
		sim_start(p.w, i);
	}
	sim_peer(p.w, run % 2, 1 - run % 2, true);
	assert_true(sim_run_until(p.w, sim_all_connected, 2 * SM_SEC_US));
	p.there = sim_flow_start(p.w, 0, 1, 10 * SM_MSEC_US);
	p.there->full = true;
	p.back = sim_flow_start(p.w, 1, 0, 10 * SM_MSEC_US);
	p.back->full = both;
	return p;
}

static bool is_found(struct sim_world *w)
{
	const uint32_t mtu = w->net.mtu;

	for (uint32_t i = 0; i < 2; i++) {
		const uint32_t size = sim_mtu_of(w, i, 1 - i);
		const uint32_t reach = SM_MIN(mtu, w->node[i].link_mtu);

		if (size > reach || size + SM_MTU_STEP <= reach ||
		    sim_peer_of(w, i, 1 - i)->active->mtu.state != SM_MTU_COMPLETE)
			return false;
	}
	return true;
}

static void assert_nothing_lost(const struct pair *p)
{
	sim_flow_stop(p->there);
	sim_flow_stop(p->back);
	sim_run(p->w, SM_SEC_US);
	assert_int_equal(sim_flow_lost(p->there) + sim_flow_lost(p->back), 0);
}

/* The first frames are small enough for any path, so none is lost, whatever the path carries. */
static void test_found_without_loss(void **state)
{
	static const uint32_t paths[] = {1280, 1287, 1333, 1400, 1420, 1472, 1492, 1499, 1500};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(paths); i++) {
		struct pair p = pair_up("found without loss", i, i % 2 ? 9000 : 1500, paths[i],
					true);

		assert_true(sim_run_until(p.w, is_found, 5 * SM_SEC_US));
		sim_run(p.w, 20 * SM_SEC_US);
		assert_true(is_found(p.w));
		assert_nothing_lost(&p);
		sim_world_free(p.w);
	}
}

/* All of the path takes large packets: one round trip, without configuration. */
static void test_jumbo(void **state)
{
	static const uint32_t links[] = {1500, 4352, 9000, 9216, 65535};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(links); i++) {
		struct pair p = pair_up("jumbo", i, links[i], 0, true);

		sim_run(p.w, 30 * SM_MSEC_US);
		assert_int_equal(sim_mtu_of(p.w, 0, 1), links[i]);
		assert_int_equal(sim_mtu_of(p.w, 1, 0), links[i]);
		assert_nothing_lost(&p);
		sim_world_free(p.w);
	}
}

/* The middle becomes narrow without a word, and wide again. */
static void test_falls_and_rises(void **state)
{
	uint64_t longest_us = 0;

	(void)state;
	for (uint32_t run = 0; run < 2 * RUNS; run++) {
		const bool both = run % 2;
		uint64_t silent_us = 0;
		struct pair p = pair_up("falls and rises", run, 1500, 1500, both);

		assert_true(sim_run_until(p.w, is_found, SM_SEC_US));
		sim_run(p.w, 5 * SM_SEC_US + rng_u64(&p.w->rng) % (2 * SM_SEC_US));
		for (uint32_t mtu = 1400; mtu >= 1280; mtu -= 60) {
			p.there->gap_us = 0;
			p.w->net.mtu = mtu;
			sim_run(p.w, 6 * SM_SEC_US);
			assert_true(p.w->now_us - p.there->last_us < 100 * SM_MSEC_US);
			longest_us = SM_MAX(longest_us, p.there->gap_us);
			assert_true(sim_run_until(p.w, is_found, 30 * SM_SEC_US));
			sim_run(p.w, 3 * SM_SEC_US);
			silent_us += p.there->gap_us;
			/* what was sent into the hole is lost, and nothing else */
			assert_true(sim_flow_lost(p.there) <= silent_us / (10 * SM_MSEC_US) + 2);
		}
		p.w->net.mtu = 1500;
		assert_true(sim_run_until(p.w, is_found, SM_MTU_RAISE_US + 10 * SM_SEC_US));
		sim_world_free(p.w);
	}
	printf("longest silence %.3f s\n", (double)longest_us / 1e6);
	assert_true(longest_us < 5 * SM_SEC_US);
}

/* The first link is the one that changes: its kernel says so. */
static void test_own_link_changes(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("own link changes", run, 1500, 9000, true);

		sim_run(p.w, 2 * SM_SEC_US);
		p.there->gap_us = 0;
		p.w->node[0].link_mtu = 1300; /* found out by the packets that are refused */
		sim_run(p.w, SM_SEC_US);
		assert_int_equal(sim_mtu_of(p.w, 0, 1), 1300);
		assert_int_equal(sim_mtu_of(p.w, 1, 0), 1500); /* its packets still pass here */
		assert_true(p.there->gap_us < 50 * SM_MSEC_US);
		assert_true(p.w->node[0].counts.refused_large < 10);
		p.w->node[0].link_mtu = 9000; /* told by the kernel */
		sm_node_on_network_change(p.w->node[0].core, p.w->now_us);
		sim_kick(&p.w->node[0]);
		sim_run(p.w, 100 * SM_MSEC_US);
		assert_int_equal(sim_mtu_of(p.w, 0, 1), 9000);
		sim_world_free(p.w);
	}
}

/* Loss, jitter and copies beside a narrow place: too little may be found, never too much for long. */
static void test_bad_wire(void **state)
{
	uint32_t right = 0;

	(void)state;
	for (uint32_t run = 0; run < 2 * RUNS; run++) {
		struct pair p = pair_up("bad wire", run, 1500, 1400, true);

		p.w->net.loss = 100;
		p.w->net.copies = 50;
		p.w->net.jitter_us = 40 * SM_MSEC_US;
		sim_run(p.w, 30 * SM_SEC_US);
		assert_true(sim_mtu_of(p.w, 0, 1) <= 1400 && sim_mtu_of(p.w, 1, 0) <= 1400);
		right += is_found(p.w);
		assert_true(sim_flow_lost(p.there) < p.there->sent / 5);
		sim_world_free(p.w);
	}
	assert_true(right > RUNS);
}

/* A new address is another path; a new session on the same path is not. */
static void test_path_and_session(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("path and session", run, 1500, 1400, true);
		uint32_t lost;

		assert_true(sim_run_until(p.w, is_found, 5 * SM_SEC_US));
		sim_break(p.w, 0, 1);
		sim_run(p.w, 2 * SM_SEC_US);
		assert_true(sim_connected(p.w, 0, 1) && is_found(p.w));
		assert_true(sim_flow_lost(p.there) <= 1); /* under way */

		/* the new way is narrower than the old one was */
		sim_move(p.w, 1);
		p.w->net.mtu = 1290;
		sim_run(p.w, 3 * SM_SEC_US);
		assert_true(sim_addr_is(p.w, 0, 1));
		assert_true(sim_run_until(p.w, is_found, 5 * SM_SEC_US));
		lost = sim_flow_lost(p.there);
		sim_run(p.w, 10 * SM_SEC_US);
		assert_in_range(sim_flow_lost(p.there), lost > 3 ? lost - 3 : 0, lost + 3);
		sim_world_free(p.w);
	}
}

/* UDP is gone for a while, then comes back narrower. */
static void test_outage(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("outage", run, 1500, 1500, true);
		uint64_t before;

		sim_run(p.w, 2 * SM_SEC_US);
		sim_cut(p.w, 0, 1, false, true);
		sim_run(p.w, 10 * SM_SEC_US);
		assert_int_equal(sim_mtu_of(p.w, 0, 1),
				 1500); /* silence says nothing about sizes */
		before = p.w->node[0].counts.datagrams - p.there->sent;
		sim_run(p.w, 60 * SM_SEC_US);
		assert_true(p.w->node[0].counts.datagrams - p.there->sent - before < 130);
		p.w->net.mtu = 1300;
		sim_cut(p.w, 0, 1, false, false);
		sim_run(p.w, 4 * SM_SEC_US);
		assert_true(p.w->now_us - p.there->last_us < 100 * SM_MSEC_US);
		assert_true(sim_run_until(p.w, is_found, 5 * SM_SEC_US));
		sim_world_free(p.w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_without_loss),
		cmocka_unit_test(test_jumbo),
		cmocka_unit_test(test_falls_and_rises),
		cmocka_unit_test(test_own_link_changes),
		cmocka_unit_test(test_bad_wire),
		cmocka_unit_test(test_path_and_session),
		cmocka_unit_test(test_outage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

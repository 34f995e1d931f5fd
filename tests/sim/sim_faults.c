// SPDX-License-Identifier: MIT
/*
 * What breaks between two nodes, and how soon and how completely they recover.
 */
#include "world.h"
#include "core/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define RUNS    10u
#define PACE_US (2 * SM_MSEC_US)

struct pair {
	struct sim_world *w;
	struct sim_flow *there, *back;
};

/* Two nodes that are connected, with frames going both ways. */
static struct pair pair_up(const char *scenario, uint32_t run, uint64_t rekey_us, uint64_t pace_us)
{
	struct pair p = {.w = sim_world_new(scenario, run)};

	for (uint32_t i = 0; i < 2; i++) {
		sim_add(p.w);
		p.w->node[i].config.rekey_after_us = rekey_us;
		sim_start(p.w, i);
	}
	sim_peer(p.w, run % 2, 1 - run % 2, true);
	assert_true(sim_run_until(p.w, sim_all_connected, 2 * SM_SEC_US));
	sim_run(p.w, SM_SEC_US);
	p.there = sim_flow_start(p.w, 0, 1, pace_us);
	p.back = sim_flow_start(p.w, 1, 0, pace_us);
	sim_run(p.w, SM_SEC_US);
	return p;
}

static void watch(struct pair *p)
{
	p->there->gap_us = p->back->gap_us = 0;
}

static uint64_t longest_gap(const struct pair *p)
{
	return SM_MAX(p->there->gap_us, p->back->gap_us);
}

static void pair_stop(struct pair *p)
{
	sim_flow_stop(p->there);
	sim_flow_stop(p->back);
	sim_run(p->w, SM_SEC_US);
}

static void assert_nothing_lost(const struct pair *p)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct sim_flow *f = i ? p->back : p->there;

		if (sim_flow_lost(f) + f->refused + f->twice)
			printf("%u -> %u: %u of %u lost, %u refused, %u twice\n", f->from, f->to,
			       sim_flow_lost(f), f->sent, f->refused, f->twice);
		assert_int_equal(sim_flow_lost(f) + f->refused + f->twice, 0);
	}
}

static void assert_all_opened(const struct pair *p)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct sim_counts *c = &p->w->node[i].counts;

		assert_int_equal(c->unknown_session + c->unknown_epoch + c->forged, 0);
	}
}

/* A frame number after which all that was sent has arrived: the flow is back. */
static void assert_flowing(const struct pair *p, uint64_t within_us)
{
	const uint32_t a = p->there->received, b = p->back->received;

	sim_run(p->w, within_us);
	assert_true(p->there->received > a && p->back->received > b);
	assert_true(p->w->now_us - p->there->last_us < 100 * SM_MSEC_US);
	assert_true(p->w->now_us - p->back->last_us < 100 * SM_MSEC_US);
}

/* The connection breaks, again and again; the session outlives it, a new one takes over. */
static void test_connection_breaks(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("connection breaks", run, SM_REKEY_AFTER_US, PACE_US);

		sim_peer(p.w, 1 - run % 2, run % 2, run % 3 > 0);
		for (uint32_t i = 0; i < 12; i++) {
			sim_break(p.w, 0, 1);
			sim_run(p.w, rng_u64(&p.w->rng) % (4 * SM_SEC_US));
		}
		sim_run(p.w, 15 * SM_SEC_US);
		pair_stop(&p);
		assert_true(sim_connected(p.w, 0, 1));
		assert_nothing_lost(&p);
		sim_world_free(p.w);
	}
}

/* It breaks while the next one greets, and no other comes: both still send on what the other opens. */
static void test_greeting_breaks(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < 6 * RUNS; run++) {
		struct pair p = pair_up("greeting breaks", run, SM_REKEY_AFTER_US, 5 * SM_MSEC_US);

		if (run % 3 == 0)
			sim_peer(p.w, 1 - run % 2, run % 2, true);
		sim_break(p.w, 0, 1);
		sim_run(p.w, 60 * SM_MSEC_US + rng_u64(&p.w->rng) % (100 * SM_MSEC_US));
		sim_break(p.w, 0, 1);
		sim_cut(p.w, 0, 1, true, false);
		sim_run(p.w, 20 * SM_SEC_US);
		pair_stop(&p);
		assert_nothing_lost(&p);
		assert_int_equal(sim_peer_of(p.w, 0, 1)->active->config.index,
				 sim_peer_of(p.w, 1, 0)->active->config.remote_index);
		sim_world_free(p.w);
	}
}

/* No connection at all, and a bad path: keys are changed through the stream, frames go on. */
static void test_stream_carries_rekeying(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("stream carries rekeying", run, 20 * SM_SEC_US,
					20 * SM_MSEC_US);

		p.w->tcp_cut[0][1] = p.w->tcp_cut[1][0] = true;
		p.w->net.loss = 300;
		p.w->net.copies = 100;
		p.w->net.jitter_us = 30 * SM_MSEC_US;
		sim_run(p.w, 40 * SM_SEC_US);
		watch(&p);
		sim_run(p.w, 400 * SM_SEC_US);
		assert_int_equal(sim_links(p.w, 0, 1) + sim_links(p.w, 1, 0), 0);
		/* 420 s, every 20 s and what the exchange takes; the overlap may put one off by 10 s */
		assert_in_range(p.w->node[0].counts.events[SM_NODE_REKEYED], 12, 22);
		assert_in_range(p.w->node[1].counts.events[SM_NODE_REKEYED], 12, 22);
		assert_true(longest_gap(&p) < SM_SEC_US); /* 0.3 ^ 50 */
		assert_true(p.there->received > p.there->sent * 6 / 10 &&
			    p.back->received > p.back->sent * 6 / 10);
		assert_all_opened(&p);
		p.w->tcp_cut[0][1] = p.w->tcp_cut[1][0] = false;
		p.w->net.loss = 0;
		assert_true(sim_run_until(p.w, sim_all_connected, 18 * SM_SEC_US));
		sim_world_free(p.w);
	}
}

static void outage(struct pair *p, bool tcp, bool udp, uint64_t us)
{
	sim_cut(p->w, 0, 1, tcp, udp);
	sim_run(p->w, us);
	sim_cut(p->w, 0, 1, false, false);
}

static void test_udp_down(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("udp down", run, SM_REKEY_AFTER_US, 10 * SM_MSEC_US);
		uint64_t us = run % 2 ? 300 * SM_SEC_US : 30 * SM_SEC_US;

		outage(&p, false, true, us);
		assert_int_equal(sim_peer_of(p.w, 0, 1)->state, SM_PEER_SILENT);
		assert_flowing(&p, 2 * SM_SEC_US);
		assert_int_equal(sim_peer_of(p.w, 0, 1)->state, SM_PEER_UP);
		sim_world_free(p.w);
	}
}

static void test_both_down_a_minute(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("both down 60 s", run, SM_REKEY_AFTER_US, 10 * SM_MSEC_US);

		sim_run(p.w, rng_u64(&p.w->rng) % (130 * SM_SEC_US));
		outage(&p, true, true, 60 * SM_SEC_US);
		assert_flowing(&p, 2 * SM_SEC_US);
		assert_true(sim_run_until(p.w, sim_all_connected, 5 * SM_SEC_US));
		sim_world_free(p.w);
	}
}

static void test_both_down_for_good(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("both down 300 s", run, SM_REKEY_AFTER_US, 10 * SM_MSEC_US);

		sim_cut(p.w, 0, 1, true, true);
		sim_run(p.w, 245 * SM_SEC_US);
		/* no keys that are older than that are left */
		assert_null(sim_peer_of(p.w, 0, 1)->active);
		assert_null(sim_peer_of(p.w, 1, 0)->active);
		assert_int_equal(sim_sessions(p.w, 0, 1) + sim_sessions(p.w, 1, 0), 0);
		sim_run(p.w, 55 * SM_SEC_US);
		sim_cut(p.w, 0, 1, false, false);
		assert_flowing(&p, 5 * SM_SEC_US);
		sim_world_free(p.w);
	}
}

/* The other one starts anew while this one still holds the session and perhaps the connection. */
static void test_restart(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < 2 * RUNS; run++) {
		struct pair p = pair_up("restart", run, SM_REKEY_AFTER_US, 10 * SM_MSEC_US);
		const uint32_t victim = rng_below(&p.w->rng, 2);

		sim_peer(p.w, 0, 1, true);
		sim_peer(p.w, 1, 0, true);
		if (run % 4 == 0)
			sim_stop(p.w, victim);
		else if (run % 4 < 3)
			sim_crash(p.w, victim);
		else
			sim_power_off(p.w, victim);
		sim_run(p.w, rng_u64(&p.w->rng) % (3 * SM_SEC_US));
		sim_start(p.w, victim);
		sim_peer(p.w, victim, 1 - victim, run % 3 > 0);
		/* one that lost its power and does not dial is found gone, not told */
		assert_flowing(&p, run % 4 == 3 && run % 3 == 0 ? 10 * SM_SEC_US : 3 * SM_SEC_US);
		sim_run(p.w, 15 * SM_SEC_US);
		assert_true(sim_connected(p.w, 0, 1));
		sim_world_free(p.w);
	}
}

static void test_roaming(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("roaming", run, SM_REKEY_AFTER_US, 10 * SM_MSEC_US);

		for (uint32_t i = 0; i < 5; i++) {
			const uint32_t who = rng_below(&p.w->rng, 2);

			sim_run(p.w, 2 * SM_SEC_US);
			watch(&p);
			sim_move(p.w, who);
			sim_run(p.w, 2 * SM_SEC_US);
			assert_true(sim_addr_is(p.w, 1 - who, who));
			assert_true(longest_gap(&p) < SM_SEC_US);
		}
		sim_world_free(p.w);
	}
}

/* Behind a NAT: the port that HELLO names is not the one that packets come from, and that one changes. */
static void test_nat(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = {.w = sim_world_new("nat", run)};

		sim_add(p.w);
		sim_add(p.w);
		p.w->node[0].behind_nat = true;
		p.w->node[0].visible.port = 40001;
		sim_start(p.w, 0);
		sim_start(p.w, 1);
		sim_peer(p.w, 0, 1, true);
		assert_true(sim_run_until(p.w, sim_all_connected, 2 * SM_SEC_US));
		p.there = sim_flow_start(p.w, 0, 1, PACE_US);
		p.back = sim_flow_start(p.w, 1, 0, PACE_US);
		sim_run(p.w, 1500 * SM_MSEC_US);
		watch(&p);
		sim_run(p.w, 3 * SM_SEC_US);
		assert_true(longest_gap(&p) < 50 * SM_MSEC_US);
		p.w->node[0].visible.port = 40002;
		assert_flowing(&p, SM_SEC_US);
		sim_world_free(p.w);
	}
}

/* Copies of true packets from a false address, which come first: nobody follows them. */
static void test_spoofed_address(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < 2 * RUNS; run++) {
		struct pair p = pair_up("spoofed address", run, 10 * SM_SEC_US, PACE_US);

		p.w->attacker = p.w->node[0].visible;
		p.w->attacker.ip[3] ^= 0x55;
		p.w->victim = 1;
		p.w->attacker_delay_us = run % 2 ? 100 : 5500;
		p.w->attacker_relays = run % 4 >= 2;
		p.w->net.wiretap = true;
		sim_run(p.w, 20 * SM_SEC_US);
		assert_true(p.w->stolen > 9000);
		assert_true(sim_addr_is(p.w, 1, 0));
		assert_int_equal(p.w->node[1].counts.events[SM_NODE_PATH_MOVED], 0);
		p.w->net.wiretap = false;
		pair_stop(&p);
		assert_nothing_lost(&p);
		assert_true(p.w->node[1].counts.replayed > 9000);
		sim_world_free(p.w);
	}
}

/* Full rate, new keys all the time, packets late and doubled: each frame arrives, once. */
static void test_rekey_under_load(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("rekey under load", run, 2 * SM_SEC_US, SM_MSEC_US);

		p.w->net.jitter_us = 40 * SM_MSEC_US;
		p.w->net.copies = 200;
		if (run % 3 == 0)
			p.w->tcp_cut[0][1] = p.w->tcp_cut[1][0] =
				true; /* by the stream, reordered */
		sim_run(p.w, 40 * SM_SEC_US);
		pair_stop(&p);
		assert_in_range(p.w->node[0].counts.events[SM_NODE_REKEYED], run % 3 ? 12 : 5, 25);
		assert_nothing_lost(&p);
		assert_all_opened(&p);
		sim_world_free(p.w);
	}
}

/* All goes one way: only the probes tell the server that the client has the new keys. */
static void test_rekey_one_way(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("rekey one way", run, 5 * SM_SEC_US, 5 * SM_MSEC_US);

		sim_flow_stop(run % 2 ? p.there : p.back); /* the client's */
		p.w->net.loss = 500;
		sim_run(p.w, 200 * SM_SEC_US);
		assert_true(p.w->node[0].counts.events[SM_NODE_REKEYED] > 15);
		assert_all_opened(&p);
		sim_world_free(p.w);
	}
}

#define LANES 4u /* of two workers, with the express ones */

static struct sm_tx_lane *lane_of(struct sim_world *w, uint32_t from, uint32_t to, uint32_t lane)
{
	return &sim_peer_of(w, from, to)->active->epoch[SM_EPOCH_CURRENT]->tx[lane];
}

static void test_worn_lane(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("worn lane", run, SM_REKEY_AFTER_US, SM_MSEC_US);

		p.w->node[run / 2 % 2].worn_after = 3000;
		sim_run(p.w, 60 * SM_SEC_US - SM_SEC_US);
		pair_stop(&p);
		assert_in_range(p.w->node[0].counts.events[SM_NODE_REKEYED], 3, 10);
		assert_nothing_lost(&p);
		sim_world_free(p.w);
	}
}

/* No way to rekey, and a lane at its end: it stops, and goes on under new keys. */
static void test_hard_stop(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct pair p = pair_up("hard stop", run, SM_REKEY_AFTER_US, SM_MSEC_US);

		p.w->net.delay_us = 100 * SM_MSEC_US;
		for (uint32_t lane = 1; lane <= LANES; lane++)
			atomic_store(&lane_of(p.w, 0, 1, lane)->next, SM_PACKET_LIMIT - 10);
		sim_run(p.w, 150 * SM_MSEC_US);
		for (uint32_t lane = 1; lane <= LANES; lane++)
			assert_true(atomic_load(&lane_of(p.w, 0, 1, lane)->next) ==
				    SM_PACKET_LIMIT);
		assert_true(p.w->node[0].counts.sealed_refused > 50);
		assert_flowing(&p, SM_SEC_US);
		assert_int_equal(sim_flow_lost(p.there) > 250, 0); /* only what is on its way */
		sim_world_free(p.w);
	}
}

/* A peer that is not there: asked often while young, never in step, and not more than that. */
static void test_backoff(void **state)
{
	uint64_t first = 0;

	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct sim_world *w = sim_world_new("back-off", run);
		uint64_t dials;

		sim_add(w);
		sim_add(w);
		sim_start(w, 0);
		sim_peer(w, 0, 1, true);
		sim_run(w, 60 * SM_SEC_US);
		dials = w->node[0].counts.dials;
		assert_in_range(dials, 25, 90);
		sim_run(w, 60 * SM_SEC_US);
		assert_in_range(w->node[0].counts.dials - dials, 24,
				80); /* every 1 to 2 s, more or less a quarter */
		/* it comes: within one turn */
		sim_start(w, 1);
		assert_true(sim_run_until(w, sim_all_connected, 3 * SM_SEC_US));
		first |= UINT64_C(1) << (w->now_us / 1000 % 64);
		sim_world_free(w);
	}
	assert_true(__builtin_popcountll(first) > 3); /* not in step */
}

/* Anything at any time; afterwards all is well again, and nothing has piled up. */
static void chaos_step(struct sim_world *w, uint32_t nodes)
{
	const uint32_t a = rng_below(&w->rng, nodes),
		       b = (a + 1 + rng_below(&w->rng, nodes - 1)) % nodes;

	switch (rng_below(&w->rng, 10)) {
	case 0:
		sim_cut(w, a, b, rng_below(&w->rng, 2), rng_below(&w->rng, 2));
		break;
	case 1:
		sim_move(w, a);
		break;
	case 2:
		if (!w->node[a].core)
			break;
		if (rng_below(&w->rng, 2))
			sim_stop(w, a);
		else
			sim_crash(w, a);
		break;
	case 3:
		if (w->node[a].core)
			break;
		sim_start(w, a);
		for (uint32_t i = 0; i < nodes; i++)
			if (i != a)
				sim_peer(w, a, i, true);
		break;
	case 4:
		if (w->node[a].core && sim_peer_of(w, a, b))
			(void)!sm_node_rekey(w->node[a].core, sim_peer_of(w, a, b), w->now_us);
		break;
	case 5:
		w->net.loss = rng_below(&w->rng, 400);
		w->net.copies = rng_below(&w->rng, 300);
		w->net.jitter_us = rng_below(&w->rng, 100000);
		break;
	case 6:
		if (w->node[a].core)
			sm_node_on_network_change(w->node[a].core, w->now_us);
		break;
	default:
		sim_break(w, a, b);
	}
	sim_kick(&w->node[a]);
}

static void test_chaos(void **state)
{
	const uint32_t nodes = 4;

	(void)state;
	for (uint32_t run = 0; run < RUNS; run++) {
		struct sim_world *w = sim_world_new("chaos", run);

		for (uint32_t i = 0; i < nodes; i++) {
			sim_add(w);
			w->node[i].config.rekey_after_us = 7 * SM_SEC_US;
			sim_start(w, i);
		}
		for (uint32_t i = 0; i < nodes; i++)
			for (uint32_t k = 0; k < nodes; k++)
				if (i != k)
					sim_peer(w, i, k, true);
		for (uint32_t i = 0; i < nodes; i++)
			sim_flow_start(w, i, (i + 1) % nodes, 20 * SM_MSEC_US);
		for (uint32_t i = 0; i < 400; i++) {
			chaos_step(w, nodes);
			sim_run(w, rng_u64(&w->rng) % (2 * SM_SEC_US));
			for (uint32_t a = 0; a < nodes; a++)
				assert_true(w->node[a].retired_count < 64);
		}
		w->net = (struct sim_net){.delay_us = 5000, .jitter_us = 5000};
		for (uint32_t a = 0; a < nodes; a++) {
			for (uint32_t b = 0; b < a; b++)
				sim_cut(w, a, b, false, false);
			if (w->node[a].core)
				continue;
			sim_start(w, a);
			for (uint32_t b = 0; b < nodes; b++)
				if (a != b)
					sim_peer(w, a, b, true);
		}
		sim_run(w, 45 * SM_SEC_US);
		assert_true(sim_all_connected(w));
		for (uint32_t i = 0; i < nodes; i++) {
			const uint32_t had = w->flow[i]->received, sent = w->flow[i]->sent;

			sim_run(w, SM_SEC_US);
			assert_in_range(w->flow[i]->received - had, w->flow[i]->sent - sent - 2,
					w->flow[i]->sent - sent + 2);
		}
		for (uint32_t a = 0; a < nodes; a++)
			for (uint32_t b = 0; b < nodes; b++)
				if (a != b)
					assert_int_equal(sim_sessions(w, a, b), 1);
		sim_world_free(w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connection_breaks),
		cmocka_unit_test(test_greeting_breaks),
		cmocka_unit_test(test_stream_carries_rekeying),
		cmocka_unit_test(test_udp_down),
		cmocka_unit_test(test_both_down_a_minute),
		cmocka_unit_test(test_both_down_for_good),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_roaming),
		cmocka_unit_test(test_nat),
		cmocka_unit_test(test_spoofed_address),
		cmocka_unit_test(test_rekey_under_load),
		cmocka_unit_test(test_rekey_one_way),
		cmocka_unit_test(test_worn_lane),
		cmocka_unit_test(test_hard_stop),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_chaos),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

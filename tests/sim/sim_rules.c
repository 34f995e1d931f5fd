// SPDX-License-Identifier: MIT
/*
 * Who may be connected and for how long: refusals with their reasons, revocation, reload, renewal.
 */
#include "world.h"
#include "core/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static struct sim_world *two(const char *scenario, uint32_t run)
{
	struct sim_world *w = sim_world_new(scenario, run);

	sim_add(w);
	sim_add(w);
	return w;
}

static void start_both(struct sim_world *w)
{
	sim_start(w, 0);
	sim_start(w, 1);
	sim_peer(w, 0, 1, true);
}

/* Both name the same reason, ask seldom from then on, and never get a session. */
static void assert_refused(struct sim_world *w, enum sm_close_reason reason)
{
	start_both(w);
	sim_run(w, 60 * SM_SEC_US);
	assert_true(w->node[0].counts.closed[reason] > 0);
	assert_true(w->node[1].counts.closed[reason] > 0);
	assert_in_range(w->node[0].counts.dials, 2, 10);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(w->node[i].counts.events[SM_NODE_SESSION_UP], 0);
		assert_int_equal(sim_sessions(w, i, 1 - i), 0);
	}
	assert_non_null(strstr(sim_peer_of(w, 0, 1)->last_error, "n00"));
	sim_world_free(w);
}

static void test_mode_mismatch(void **state)
{
	struct sim_world *w = two("mode", 0);

	(void)state;
	w->node[1].config.mode = SM_MODE_TUN;
	assert_refused(w, SM_CLOSE_MODE);
}

static void test_no_common_cipher(void **state)
{
	struct sim_world *w = two("cipher", 0);

	(void)state;
	w->node[0].config.ciphers = 1u << SM_CIPHER_AES256GCM;
	w->node[1].config.ciphers = 1u << SM_CIPHER_CHACHA20POLY1305;
	w->node[1].config.preferred = SM_CIPHER_CHACHA20POLY1305;
	assert_refused(w, SM_CLOSE_CIPHER);
}

/* One side without AES decides for both. */
static void test_chosen_cipher(void **state)
{
	struct sim_world *w = two("chosen cipher", 0);

	(void)state;
	w->node[1].config.preferred = SM_CIPHER_CHACHA20POLY1305;
	start_both(w);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	assert_int_equal(sim_peer_of(w, 0, 1)->active->config.cipher, SM_CIPHER_CHACHA20POLY1305);
	assert_int_equal(sim_peer_of(w, 1, 0)->active->config.cipher, SM_CIPHER_CHACHA20POLY1305);
	struct sim_flow *f = sim_flow_start(w, 0, 1, 10000);

	sim_run(w, SM_SEC_US);
	assert_true(f->received > 90);
	sim_world_free(w);
}

static void test_self(void **state)
{
	struct sim_world *w = two("self", 0);

	(void)state;
	start_both(w);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	/* another machine with our name */
	w->node[1].config.self = w->node[0].config.self;
	sim_break(w, 0, 1);
	sim_run(w, 10 * SM_SEC_US);
	assert_true(w->node[0].counts.events[SM_NODE_REFUSED] > 0);
	assert_int_equal(sim_links(w, 0, 1), 0);
	sim_world_free(w);
}

/* A third node comes with the name of the second. */
static void collide(int64_t not_before, bool newcomer_wins)
{
	struct sim_world *w = two(newcomer_wins ? "newer certificate" : "older certificate", 0);
	const uint32_t third = sim_add(w);

	start_both(w);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	const uint8_t first = w->node[1].config.self.fingerprint[0];

	strcpy(w->node[third].config.self.name, "n001");
	memcpy(w->node[third].config.self.node_id, w->node[1].config.self.node_id, SM_NODE_ID_LEN);
	w->node[third].config.self.fingerprint[0] = (uint8_t)~first;
	w->node[third].config.self.not_before = not_before;
	sim_start(w, third);
	sim_peer(w, third, 0, true);
	sim_run(w, 20 * SM_SEC_US);
	assert_int_equal(sim_peer_of(w, 0, 1)->identity.fingerprint[0],
			 newcomer_wins ? (uint8_t)~first : first);
	assert_int_equal(sim_links(w, 0, 1), 1);
	assert_true(w->node[newcomer_wins ? 1 : third].counts.closed[SM_CLOSE_SUPERSEDED] > 0);
	assert_int_equal(sim_links(w, newcomer_wins ? 1 : third, 0), 0);
	assert_int_equal(sim_links(w, newcomer_wins ? third : 1, 0), 1);
	sim_world_free(w);
}

static void test_superseded(void **state)
{
	(void)state;
	collide(2000, true);
	collide(500, false);
}

static enum sm_close_reason refuse_n001(void *arg, const struct sm_identity *peer, char *text)
{
	(void)arg;
	if (strcmp(peer->name, "n001") != 0)
		return SM_CLOSE_NONE;
	strcpy(text, "revoked by list 7");
	return SM_CLOSE_REVOKED;
}

/* Revoked in mid-session: both ends close at once, whatever carries the message; no way back. */
static void test_revoked(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < 6; run++) {
		struct sim_world *w = two("revoked", run);
		struct sim_flow *f;

		start_both(w);
		assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
		f = sim_flow_start(w, 1, 0, 10000);
		if (run % 2) { /* no connection any more: by the stream */
			w->tcp_cut[0][1] = w->tcp_cut[1][0] = true;
			sim_break(w, 0, 1);
		} else if (run % 3 == 2) { /* a connection that nobody knows to be dead */
			w->tcp_cut[0][1] = w->tcp_cut[1][0] = true;
		}
		sim_run(w, SM_SEC_US);
		assert_true(f->received > 90);
		w->node[0].revoked = 2;
		sm_node_recheck(w->node[0].core, refuse_n001, NULL, w->now_us);
		sim_kick(&w->node[0]);
		const uint32_t had = f->received;

		sim_run(w, SM_SEC_US);
		assert_int_equal(f->received, had);
		for (uint32_t i = 0; i < 2; i++) {
			assert_null(sim_peer_of(w, i, 1 - i)->active);
			assert_true(w->node[i].counts.closed[SM_CLOSE_REVOKED] > 0);
		}
		w->tcp_cut[0][1] = w->tcp_cut[1][0] = false;
		sim_run(w, 60 * SM_SEC_US);
		/* an attempt may be under way, but nothing that could carry data */
		assert_int_equal(sim_started(w, 0, 1) + sim_started(w, 1, 0), 0);
		assert_int_equal(f->received, had);
		/* pardoned */
		w->node[0].revoked = 0;
		assert_true(sim_run_until(w, sim_all_connected, 40 * SM_SEC_US));
		sim_world_free(w);
	}
}

static void test_reload(void **state)
{
	struct sim_world *w = two("reload", 0);
	const uint32_t third = sim_add(w);
	struct sim_flow *f;

	(void)state;
	start_both(w);
	sim_start(w, third);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	f = sim_flow_start(w, 0, 1, 5000);
	/* one more, the first stays untouched */
	sim_peer(w, 0, third, true);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	assert_non_null(sim_peer_of(w, 0, third)->live);
	/* none: the connected ones stay connected, and are looked for a while */
	if (sm_node_set_peers(w->node[0].core, NULL, 0, w->now_us))
		fail();
	sim_kick(&w->node[0]);
	sim_run(w, 5 * SM_SEC_US);
	assert_true(sim_connected(w, 0, 1) && sim_connected(w, 0, third));
	sim_flow_stop(f);
	sim_run(w, SM_SEC_US);
	assert_int_equal(sim_flow_lost(f) + f->refused, 0);
	/* gone for an hour: forgotten, and nobody dials any more */
	sim_crash(w, third);
	sim_run(w, 2 * 3600 * SM_SEC_US);
	assert_null(sim_peer_of(w, 0, third));
	const uint64_t dials = w->node[0].counts.dials;

	sim_run(w, 600 * SM_SEC_US);
	assert_int_equal(w->node[0].counts.dials, dials);
	assert_true(sim_connected(w, 0, 1));
	sim_world_free(w);
}

/* A day and an hour: a full handshake renews the session; not a frame is lost in all that time. */
static void test_daily_handshake(void **state)
{
	(void)state;
	for (uint32_t run = 0; run < 2; run++) {
		struct sim_world *w = two("daily handshake", run);
		struct sim_flow *f, *g;

		start_both(w);
		if (run)
			sim_peer(w, 1, 0, true);
		assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
		f = sim_flow_start(w, 0, 1, 2 * SM_SEC_US);
		g = sim_flow_start(w, 1, 0, 3 * SM_SEC_US);
		sim_run(w, 24 * 3600 * SM_SEC_US - 5 * SM_SEC_US);
		const uint64_t ups = w->node[0].counts.events[SM_NODE_SESSION_UP];

		w->tcp_cut[0][1] = w->tcp_cut[1][0] = run; /* a first attempt that fails */
		sim_run(w, 8 * SM_SEC_US);
		w->tcp_cut[0][1] = w->tcp_cut[1][0] = false;
		sim_run(w, 3600 * SM_SEC_US);
		assert_int_equal(w->node[0].counts.events[SM_NODE_SESSION_UP], ups + 1);
		assert_true(sim_connected(w, 0, 1));
		sim_flow_stop(f);
		sim_flow_stop(g);
		sim_run(w, SM_SEC_US);
		assert_int_equal(sim_flow_lost(f) + f->refused + sim_flow_lost(g) + g->refused, 0);
		assert_int_equal(sim_sessions(w, 0, 1), 1);
		assert_in_range(w->node[0].counts.events[SM_NODE_REKEYED], 700, 760);
		sim_world_free(w);
	}
}

/* Idle: no new keys, few packets, and the connection stays. */
static void test_idle(void **state)
{
	struct sim_world *w = two("idle", 0);

	(void)state;
	start_both(w);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	sim_run(w, 3600 * SM_SEC_US);
	assert_true(sim_connected(w, 0, 1));
	assert_int_equal(w->node[0].counts.events[SM_NODE_REKEYED], 0);
	assert_true(w->node[0].counts.datagrams < 3600 / 5);
	assert_true(w->node[0].counts.conn_messages < 3600 / 4);
	printf("idle: %llu datagrams, %llu messages, %llu turns in an hour\n",
	       (unsigned long long)w->node[0].counts.datagrams,
	       (unsigned long long)w->node[0].counts.conn_messages,
	       (unsigned long long)w->node[0].counts.ticks);
	sim_world_free(w);
}

static void test_ping(void **state)
{
	struct sim_world *w = two("ping", 0);

	(void)state;
	start_both(w);
	assert_true(sim_run_until(w, sim_all_connected, SM_SEC_US));
	for (uint64_t tag = 1; tag <= 10; tag++) {
		assert_int_equal(
			sm_node_ping(w->node[0].core, sim_peer_of(w, 0, 1), tag, w->now_us), 0);
		sim_run(w, 100 * SM_MSEC_US);
	}
	assert_int_equal(w->node[0].counts.pings_answered, 10);
	sim_stop(w, 1);
	sim_run(w, SM_SEC_US);
	assert_int_equal(sm_node_ping(w->node[0].core, sim_peer_of(w, 0, 1), 1, w->now_us),
			 -ENOTCONN);
	sim_world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mode_mismatch), cmocka_unit_test(test_no_common_cipher),
		cmocka_unit_test(test_chosen_cipher), cmocka_unit_test(test_self),
		cmocka_unit_test(test_superseded),    cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_reload),        cmocka_unit_test(test_daily_handshake),
		cmocka_unit_test(test_idle),          cmocka_unit_test(test_ping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * The search for a path's MTU, against a model path that carries so much, takes so long and loses so often.
 */
#include "core/mtu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rng.h"

#define MS SM_MSEC_US

#define FLIGHT_MAX 256u

struct world {
	struct sm_mtu m;
	struct rng rng;
	uint64_t now_us, rtt_us;
	uint32_t carries; /* 0: nothing at all, not even small ones */
	uint32_t link;    /* what the local kernel takes */
	uint32_t loss;    /* of 1000 */
	bool knows_rtt;   /* the path has measured it */
	uint64_t token;
	struct {
		uint64_t token, at_us;
	} flight[FLIGHT_MAX];
	uint32_t flying;
	uint32_t sent, large; /* probes; of more bytes than the size */
	uint32_t changes;
	uint64_t packets, bytes; /* data that each second sends */
	bool received;
	uint64_t second_at_us;
};

static struct world world(uint32_t link, uint32_t carries)
{
	struct world w = {.now_us = 1000 * SM_SEC_US,
			  .rtt_us = 20 * MS,
			  .carries = carries,
			  .link = link,
			  .knows_rtt = true,
			  .received = true};

	w.rng.state = link * 65536u + carries;
	w.second_at_us = w.now_us;
	sm_mtu_init(&w.m, 0, link);
	assert_int_equal(w.m.size, SM_PATH_MTU_MIN);
	assert_int_equal(sm_mtu_deadline(&w.m), SM_NEVER); /* not used yet */
	sm_mtu_start(&w.m, link, w.now_us);
	return w;
}

static void check(const struct world *w)
{
	assert_in_range(w->m.size, SM_PATH_MTU_MIN, SM_MTU_MAX);
	assert_true(w->m.size <= w->m.max);
	assert_true(w->m.probes <= SM_MTU_PROBES_MAX);
	for (uint32_t i = 0; i < w->m.probes; i++) {
		assert_true(w->m.probe[i].size <= w->m.max);
		for (uint32_t k = 0; k < i; k++)
			assert_int_not_equal(w->m.probe[i].size, w->m.probe[k].size);
	}
}

static void send(struct world *w)
{
	struct sm_mtu_send send;

	while (sm_mtu_is_due(&w->m)) {
		assert_true(sm_mtu_next(&w->m, ++w->token, w->now_us, &send));
		assert_int_not_equal(send.token, 0);
		w->sent++;
		w->large += send.size > w->m.size;
		if (send.size > w->link) {
			w->changes += sm_mtu_on_refused(&w->m, send.size, w->now_us);
		} else if (w->carries && send.size <= w->carries &&
			   rng_below(&w->rng, 1000) >= w->loss && w->flying < FLIGHT_MAX) {
			w->flight[w->flying].token = send.token;
			w->flight[w->flying++].at_us = w->now_us + w->rtt_us;
		}
	}
	assert_false(sm_mtu_next(&w->m, ++w->token, w->now_us, &send));
}

static void land(struct world *w)
{
	for (uint32_t i = 0; i < w->flying;) {
		int r;

		if (w->flight[i].at_us > w->now_us) {
			i++;
			continue;
		}
		r = sm_mtu_on_answer(&w->m, w->flight[i].token, w->now_us);
		assert_true(r == 0 || r == 1 || r == -ENOENT);
		w->changes += r == 1;
		w->flight[i] = w->flight[--w->flying];
	}
}

static uint64_t next_us(const struct world *w)
{
	uint64_t at = SM_MIN(sm_mtu_deadline(&w->m), w->second_at_us);

	for (uint32_t i = 0; i < w->flying; i++)
		at = SM_MIN(at, w->flight[i].at_us);
	return at;
}

static void step(struct world *w)
{
	land(w);
	if (w->now_us >= w->second_at_us) {
		sm_mtu_second(&w->m, w->packets, w->bytes, w->received, w->now_us);
		w->second_at_us += SM_SEC_US;
	}
	if (w->now_us >= sm_mtu_deadline(&w->m)) {
		w->changes += sm_mtu_tick(&w->m, w->knows_rtt ? w->rtt_us : 0, w->now_us);
		send(w);
		assert_true(sm_mtu_deadline(&w->m) > w->now_us); /* or the owner would spin */
	}
	check(w);
}

static void run(struct world *w, uint64_t us)
{
	const uint64_t end_us = w->now_us + us;

	step(w);
	while (next_us(w) <= end_us) {
		w->now_us = SM_MAX(w->now_us, next_us(w));
		step(w);
	}
	w->now_us = end_us;
}

/* Return: microseconds until the search was over */
static uint64_t settle(struct world *w, uint64_t within_us)
{
	const uint64_t begin_us = w->now_us;

	while (w->m.state != SM_MTU_COMPLETE && w->now_us < begin_us + within_us)
		run(w, 5 * MS);
	assert_int_equal(w->m.state, SM_MTU_COMPLETE);
	return w->now_us - begin_us;
}

static void assert_found(const struct world *w)
{
	assert_int_equal(w->m.state, SM_MTU_COMPLETE);
	assert_true(w->m.size <= w->carries);
	assert_true(w->m.size == w->carries || w->m.size + SM_MTU_STEP > w->carries);
}

/* The usual case: one probe, one round trip, and then silence. */
static void test_link_decides(void **state)
{
	static const uint32_t links[] = {1280, 1281, 1400, 1420, 1492,
					 1500, 4352, 9000, 9216, 65535};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(links); i++) {
		struct world w = world(links[i], links[i]);

		run(&w, w.rtt_us);
		assert_int_equal(w.m.state, SM_MTU_COMPLETE);
		assert_int_equal(w.m.size, links[i]);
		assert_int_equal(w.sent, 1);
		run(&w, 3600 * SM_SEC_US);
		assert_int_equal(w.sent, 1); /* nothing is sent: nothing is probed */
	}
}

/* A narrow place on the way, wherever: found to the step, and soon. */
static void test_narrow_way(void **state)
{
	static const uint32_t links[] = {1300, 1500, 9000, 16384, 65535};
	uint64_t longest_us = 0;

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(links); i++)
		for (uint32_t carries = SM_PATH_MTU_MIN; carries < links[i];
		     carries += carries < 1520 ? 1 : 97) {
			struct world w = world(links[i], carries);
			const uint64_t us = settle(&w, 10 * SM_SEC_US);

			assert_found(&w);
			longest_us = SM_MAX(longest_us, us);
			assert_true(w.sent < 120);
		}
	assert_true(longest_us < 6 * SM_SEC_US);
}

/* The usual sizes are used after the first time-out and one more round trip. */
static void test_usual_sizes_at_once(void **state)
{
	static const uint32_t sizes[] = {1400, 1420, 1450, 1480, 1492};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(sizes); i++) {
		struct world w = world(1500, sizes[i]);

		run(&w, SM_MTU_WAIT_MIN_US + 3 * w.rtt_us);
		assert_int_equal(w.m.size, sizes[i]);
		assert_int_equal(w.m.state, SM_MTU_SEARCHING);
		settle(&w, 5 * SM_SEC_US);
		assert_found(&w);
	}
}

/* Neither loss nor a long way leads to a wrong end, but for the odds of losing three. */
static void test_loss_and_delay(void **state)
{
	uint32_t right = 0;

	(void)state;
	for (uint32_t i = 0; i < 200; i++) {
		struct world w = world(1500, i % 2 ? 1500 : 1400);

		w.rng.state = i;
		w.loss = 100;
		w.knows_rtt = i % 3;
		w.rtt_us = 1 + i % 5 * 180 * MS;
		settle(&w, 120 * SM_SEC_US);
		assert_true(w.m.size <= w.carries);
		right += w.m.size + SM_MTU_STEP > w.carries;
	}
	assert_in_range(right, 190, 200);
}

/* A path that answers nothing proves nothing, and the search goes on when it does again. */
static void test_silence(void **state)
{
	struct world w = world(1500, 0);

	(void)state;
	run(&w, 60 * SM_SEC_US);
	assert_int_equal(w.m.state, SM_MTU_BASE);
	assert_int_equal(w.m.size, SM_PATH_MTU_MIN);
	w.carries = 1500;
	run(&w, 3 * SM_SEC_US);
	assert_int_equal(w.m.size, 1500);

	/* once found: silence does not take it away, and while it is down nothing is sent */
	w.carries = 0;
	w.packets = 100;
	w.bytes = 100000;
	w.received = false;
	run(&w, 10 * SM_SEC_US);
	assert_int_equal(w.m.size, 1500);
	sm_mtu_sleep(&w.m, true, w.now_us);
	w.sent = 0;
	run(&w, 600 * SM_SEC_US);
	assert_int_equal(w.sent, 0);
	assert_int_equal(sm_mtu_deadline(&w.m), SM_NEVER);
	assert_int_equal(w.m.size, 1500);
	/* another way it came back */
	w.carries = 1450;
	w.packets = 0;
	sm_mtu_sleep(&w.m, false, w.now_us);
	run(&w, 6 * SM_SEC_US);
	assert_found(&w);
}

/* The way becomes narrower and nobody says so: how long until packets pass again, by what is sent. */
static void test_black_hole(void **state)
{
	static const struct {
		uint64_t packets, bytes;
		bool received;
		uint64_t within_ms;
	} rows[] = {
		{1000, 1000000, true, 2500}, /* much */
		{1, 1400, false, 2500},      /* repeated, and nothing comes back */
		{10, 1000, true, 4000},      /* some */
		{1, 100, true, 32000},       /* hardly anything */
	};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(rows); i++)
		for (uint32_t k = 0; k < 20; k++) {
			struct world w = world(1500, 1500);
			uint64_t begin_us;

			w.packets = rows[i].packets;
			w.bytes = rows[i].bytes;
			w.received = rows[i].received;
			run(&w, 40 * SM_SEC_US + k * 111 * MS);
			assert_int_equal(w.m.size, 1500);
			w.carries = 1300;
			begin_us = w.now_us;
			while (w.m.size > w.carries && w.now_us < begin_us + 60 * SM_SEC_US)
				run(&w, 10 * MS);
			assert_true(w.now_us - begin_us <= rows[i].within_ms * MS);
			assert_int_equal(w.m.black_holes, 1);
			settle(&w, 6 * SM_SEC_US);
			assert_found(&w);
			assert_true(w.changes >= 3);

			/* wide again: found out after a while, unasked */
			w.carries = 1500;
			run(&w, SM_MTU_RAISE_US - SM_SEC_US);
			assert_true(w.m.size <= 1300);
			run(&w, 2 * SM_SEC_US);
			assert_int_equal(w.m.size, 1500);
			assert_int_equal(w.m.black_holes, 1);
		}
}

/* What verifying costs: a hundredth of what is sent, or one probe in some seconds */
static void test_cost(void **state)
{
	struct world w = world(1500, 1500);

	(void)state;
	settle(&w, SM_SEC_US);
	w.sent = 0;
	run(&w, 3600 * SM_SEC_US);
	assert_int_equal(w.sent, 0);
	w.packets = 1;
	w.bytes = 100;
	w.sent = 0;
	run(&w, 3600 * SM_SEC_US); /* every 8 packets, as long as they are so small */
	assert_in_range(w.sent, 100, 460);
	w.packets = 1000;
	w.bytes = 1000000;
	w.sent = 0;
	run(&w, 3600 * SM_SEC_US);
	assert_in_range(w.sent, 3000, 3600);
	assert_int_equal(w.large, 1); /* the first one */
}

/* The local link changes: smaller counts at once, larger is tried at once. */
static void test_link_changes(void **state)
{
	struct world w = world(1500, 1500);

	(void)state;
	settle(&w, SM_SEC_US);
	w.link = w.carries = 1400;
	assert_true(sm_mtu_set_max(&w.m, 1400, w.now_us));
	assert_int_equal(w.m.size, 1400);
	assert_false(sm_mtu_set_max(&w.m, 1400, w.now_us));
	run(&w, SM_SEC_US);
	assert_int_equal(w.m.state, SM_MTU_COMPLETE);
	assert_int_equal(w.m.size, 1400);

	w.link = w.carries = 9000;
	assert_false(sm_mtu_set_max(&w.m, 9000, w.now_us));
	assert_int_equal(w.m.size, 1400);
	run(&w, w.rtt_us);
	assert_int_equal(w.m.size, 9000);
	assert_int_equal(w.m.state, SM_MTU_COMPLETE);

	/* below the base it does not go, and what is larger than possible is not tried */
	w.link = w.carries = 1000;
	assert_true(sm_mtu_set_max(&w.m, 1000, w.now_us));
	assert_int_equal(w.m.size, SM_PATH_MTU_MIN);
	w.link = w.carries = 65535;
	(void)sm_mtu_set_max(&w.m, 65536, w.now_us);
	assert_int_equal(w.m.max, 65535);

	/* in the midst of a search */
	w = world(1500, 1400);
	run(&w, 400 * MS);
	w.link = 1450;
	(void)sm_mtu_set_max(&w.m, 1450, w.now_us);
	settle(&w, 6 * SM_SEC_US);
	assert_found(&w);
}

/* The kernel refuses what the route seemed to carry. */
static void test_refused(void **state)
{
	struct world w = world(9000, 1500);

	(void)state;
	w.link = 1500;
	settle(&w, 6 * SM_SEC_US);
	assert_found(&w);
	w.link = w.carries = 1350;
	sm_mtu_verify(&w.m, w.now_us);
	run(&w, 0);
	assert_int_equal(w.m.size, SM_PATH_MTU_MIN);
	settle(&w, 6 * SM_SEC_US);
	assert_found(&w);
}

/* Too narrow for the base: said so, and asked again. */
static void test_below_base(void **state)
{
	struct world w = world(1500, 1200);

	(void)state;
	run(&w, 5 * SM_SEC_US);
	assert_int_equal(w.m.state, SM_MTU_ERROR);
	assert_int_equal(w.m.size, SM_PATH_MTU_MIN);
	run(&w, 100 * SM_SEC_US);
	assert_true(w.sent < 200);
	w.carries = 1400;
	run(&w, SM_MTU_RETRY_US + 4 * SM_SEC_US);
	assert_found(&w);
	w.carries = 1200;
	w.packets = 1000;
	w.bytes = 1000000;
	run(&w, 5 * SM_SEC_US);
	assert_int_equal(w.m.state, SM_MTU_ERROR);
}

static void test_fixed(void **state)
{
	struct world w = {.now_us = SM_SEC_US, .link = 1500, .carries = 1300};

	(void)state;
	sm_mtu_init(&w.m, 1400, 1500);
	sm_mtu_start(&w.m, 1500, w.now_us);
	sm_mtu_verify(&w.m, w.now_us);
	assert_false(sm_mtu_set_max(&w.m, 9000, w.now_us));
	assert_false(sm_mtu_on_refused(&w.m, 1400, w.now_us));
	sm_mtu_on_larger(&w.m, 1500, w.now_us);
	sm_mtu_second(&w.m, 100, 100000, false, w.now_us);
	sm_mtu_sleep(&w.m, true, w.now_us);
	sm_mtu_sleep(&w.m, false, w.now_us);
	assert_false(sm_mtu_tick(&w.m, 0, w.now_us));
	assert_false(sm_mtu_is_due(&w.m));
	assert_int_equal(sm_mtu_deadline(&w.m), SM_NEVER);
	assert_int_equal(w.m.size, 1400);
	assert_int_equal(w.m.state, SM_MTU_FIXED);
}

static void test_inherit(void **state)
{
	struct world w = world(1500, 1400), next;
	uint32_t sent;

	(void)state;
	settle(&w, 6 * SM_SEC_US);
	next = world(1500, 1400);
	sm_mtu_init(&next.m, 0, 1500);
	sm_mtu_inherit(&next.m, &w.m, next.now_us);
	assert_int_equal(next.m.size, w.m.size);
	sent = next.sent;
	run(&next, SM_SEC_US);
	assert_int_equal(next.sent, sent + 1); /* verified, not searched */
	assert_int_equal(next.m.state, SM_MTU_COMPLETE);

	/* in the midst of a search; and the link has changed since */
	w = world(1500, 1400);
	run(&w, 300 * MS);
	assert_int_not_equal(w.m.state, SM_MTU_COMPLETE);
	next = world(1480, 1400);
	sm_mtu_init(&next.m, 0, 1480);
	sm_mtu_inherit(&next.m, &w.m, next.now_us);
	assert_int_equal(next.m.max, 1480);
	settle(&next, 6 * SM_SEC_US);
	assert_found(&next);
}

/* The peer sends larger ones than we do. */
static void test_larger(void **state)
{
	struct world w = world(1500, 1400);

	(void)state;
	settle(&w, 6 * SM_SEC_US);
	w.carries = 1500;
	sm_mtu_on_larger(&w.m, 1500, w.now_us);
	assert_int_equal(w.m.state, SM_MTU_COMPLETE); /* it may be of the time of our own search */
	run(&w, SM_MTU_LARGER_US);
	sm_mtu_on_larger(&w.m, w.m.size, w.now_us);
	assert_int_equal(w.m.state, SM_MTU_COMPLETE);
	sm_mtu_on_larger(&w.m, 1500, w.now_us);
	run(&w, w.rtt_us);
	assert_int_equal(w.m.size, 1500);
}

/* Tokens that are not ours, and ours a second time */
static void test_tokens(void **state)
{
	struct world w = world(1500, 1500);
	struct sm_mtu_send send;

	(void)state;
	assert_int_equal(sm_mtu_on_answer(&w.m, 0, w.now_us), -ENOENT);
	assert_int_equal(sm_mtu_on_answer(&w.m, 77, w.now_us), -ENOENT);
	assert_true(sm_mtu_next(&w.m, 77, w.now_us, &send));
	assert_int_equal(send.token, 77);
	assert_int_equal(send.size, 1500);
	/* repeated under its first token, and the answer to the first attempt counts */
	w.now_us += SM_SEC_US;
	assert_false(sm_mtu_tick(&w.m, w.rtt_us, w.now_us));
	assert_true(sm_mtu_next(&w.m, 78, w.now_us, &send));
	assert_int_equal(send.token, 77);
	assert_int_equal(sm_mtu_on_answer(&w.m, 77, w.now_us), 1);
	assert_int_equal(w.m.size, 1500);
	assert_int_equal(sm_mtu_on_answer(&w.m, 77, w.now_us), -ENOENT);
}

/* Anything at any time: the checks of step() hold, and in the end it is right. */
static void test_anything(void **state)
{
	static const uint32_t sizes[] = {1280, 1300, 1400, 1420, 1500, 4000, 9000, 65535};

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		struct world w = world(1500, 1500);

		w.rng.state = i + 1;
		for (uint32_t k = 0; k < 200; k++) {
			const uint32_t size = sizes[rng_below(&w.rng, SM_ARRAY_SIZE(sizes))];

			switch (rng_below(&w.rng, 8)) {
			case 0:
				w.carries = size;
				break;
			case 1:
				w.link = size;
				w.changes += sm_mtu_set_max(&w.m, size, w.now_us);
				break;
			case 2:
				sm_mtu_sleep(&w.m, rng_below(&w.rng, 2), w.now_us);
				break;
			case 3:
				sm_mtu_start(&w.m, w.link, w.now_us);
				break;
			case 4:
				w.loss = rng_below(&w.rng, 800);
				w.rtt_us = rng_below(&w.rng, 2000000);
				break;
			case 5:
				w.packets = rng_below(&w.rng, 20);
				w.bytes = w.packets * 1000;
				w.received = rng_below(&w.rng, 2);
				break;
			case 6:
				sm_mtu_verify(&w.m, w.now_us);
				break;
			default:
				sm_mtu_on_larger(&w.m, size, w.now_us);
			}
			run(&w, rng_u64(&w.rng) % (3 * SM_SEC_US));
		}
		w.loss = 0;
		w.rtt_us = 20 * MS;
		w.link = 9000;
		w.carries = 4000;
		w.packets = 100;
		w.bytes = 100000;
		(void)sm_mtu_set_max(&w.m, w.link, w.now_us);
		sm_mtu_sleep(&w.m, false, w.now_us);
		sm_mtu_start(&w.m, w.link, w.now_us);
		run(&w, 10 * SM_SEC_US);
		assert_found(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_link_decides),
		cmocka_unit_test(test_narrow_way),
		cmocka_unit_test(test_usual_sizes_at_once),
		cmocka_unit_test(test_loss_and_delay),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_black_hole),
		cmocka_unit_test(test_cost),
		cmocka_unit_test(test_link_changes),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_below_base),
		cmocka_unit_test(test_fixed),
		cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_larger),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

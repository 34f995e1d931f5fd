// SPDX-License-Identifier: MIT
/*
 * Two planes talking: what goes into one TAP comes out of the other, once, whole and in order; also while
 * epochs and snapshots change.
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "plane/worker.h"
#include "planes.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define WINDOW 48u /* frames on their way at a time: no queue overflows */

static struct node a, b;
static uint8_t buf[66000];

/**
 * struct stream - Frames from queue i of one node to the other
 * @next: number of the next frame; @got: the one expected next, by sending queue
 */
struct stream {
	struct node *from, *to;
	uint32_t next[SM_WORKER_MAX], got[SM_WORKER_MAX];
};

#define QUEUE_SHIFT 24

static void stream_put(struct stream *s, uint32_t queue, uint32_t len)
{
	uint32_t number = queue << QUEUE_SHIFT | s->next[queue]++;

	bool second = s->from->second;

	(void)planes_frame(buf, OWN_MAC(second ? 0 : 1), OWN_MAC(second ? 1 : 0), number, len);
	tap_put(s->from->tap[queue], buf, len);
}

static void stream_take(struct stream *s, const uint8_t *frame, uint32_t len)
{
	uint32_t number = planes_frame_number(frame, len);
	uint32_t queue = number >> QUEUE_SHIFT;

	assert_true(queue < s->from->workers);
	assert_int_equal(number & ((1u << QUEUE_SHIFT) - 1), s->got[queue]);
	s->got[queue]++;
}

/* Reads from all queues until all that was sent has come. */
static void stream_drain(struct stream *s, uint32_t in_flight)
{
	uint64_t since_us = sm_clock_now_us();

	for (;;) {
		uint32_t missing = 0;

		for (uint32_t q = 0; q < s->from->workers; q++)
			missing += s->next[q] - s->got[q];
		if (missing <= in_flight)
			return;
		if (sm_clock_now_us() - since_us > 5 * SM_SEC_US)
			fail_msg("%u frames did not come", missing);
		for (uint32_t q = 0; q < s->to->workers; q++) {
			uint32_t len = tap_get(s->to->tap[q], buf, sizeof(buf),
					       s->to->workers == 1 ? 100 : 0);

			if (len > 0)
				stream_take(s, buf, len);
		}
	}
}

static void both_ways(uint32_t workers, uint32_t frames)
{
	struct stream to_b = {.from = &a, .to = &b}, to_a = {.from = &b, .to = &a};
	struct rng rng = rng_init("traffic");
	struct sm_plane_counters ca, cb;
	struct sm_port_counters port;

	planes_join(&a, &b, workers, PLANES_FRAME_MAX);
	node_start(&a);
	node_start(&b);
	for (uint32_t i = 0; i < frames; i++) {
		uint32_t len = 18 + rng_below(&rng, PLANES_FRAME_MAX - 17);

		stream_put(&to_b, rng_below(&rng, workers), len);
		stream_put(&to_a, rng_below(&rng, workers), len);
		stream_drain(&to_b, WINDOW);
		stream_drain(&to_a, WINDOW);
	}
	stream_drain(&to_b, 0);
	stream_drain(&to_a, 0);
	assert_int_equal(tap_get(b.tap[0], buf, sizeof(buf), 0), 0);

	sm_plane_counters(a.plane, &ca);
	sm_plane_counters(b.plane, &cb);
	assert_int_equal(ca.tap_read_frames, frames);
	assert_int_equal(cb.tap_write_frames, frames);
	assert_int_equal(ca.tap_read_bytes, cb.tap_write_bytes);
	assert_int_equal(ca.udp_send_packets, frames);
	assert_int_equal(ca.udp_send_bytes, ca.tap_read_bytes + frames * SM_DATA_OVERHEAD);
	for (uint32_t i = 0; i < SM_DROP_COUNT; i++) {
		assert_int_equal(ca.drops[i], 0);
		assert_int_equal(cb.drops[i], 0);
	}
	/* All come from one address and port, so the kernel gives them to one socket of several. */
	assert_true(workers == 1 ? cb.handed_over == 0 : cb.handed_over > 0);
	sm_plane_port_counters(a.plane, 1, &port);
	assert_int_equal(port.tx_frames, frames);
	assert_int_equal(port.rx_frames, frames);
	assert_int_equal(port.tx_bytes, ca.tap_read_bytes);
	planes_part(&a, &b);
}

static void test_one_worker(void **state)
{
	(void)state;
	both_ways(1, 3000);
}

static void test_two_workers(void **state)
{
	(void)state;
	both_ways(2, 3000);
}

static void test_four_workers(void **state)
{
	(void)state;
	both_ways(4, 3000);
}

static void test_profile(void **state)
{
	struct stream to_b = {.from = &a, .to = &b};
	struct sm_stage_profile *profile = calloc(SM_STAGE_COUNT, sizeof(*profile));

	(void)state;
	assert_non_null(profile);
	planes_join(&a, &b, 1, PLANES_FRAME_MAX);
	node_start(&a);
	node_start(&b);
	for (uint32_t i = 0; i < 100; i++)
		stream_put(&to_b, 0, 500);
	stream_drain(&to_b, 0);
	sm_plane_stop(a.plane);
	sm_plane_stop(b.plane);
	sm_plane_profile(a.plane, profile);
	assert_int_equal(profile[SM_STAGE_TAP_READ].per_frame.count, 100);
	assert_int_equal(profile[SM_STAGE_SEAL].per_frame.count, 100);
	assert_int_equal(profile[SM_STAGE_UDP_SEND].per_frame.count, 100);
	assert_in_range(profile[SM_STAGE_SEAL].per_batch.count, 2, 100);
	assert_true(sm_hist_quantile(&profile[SM_STAGE_SEAL].per_frame, 0.5) > 0);
	sm_plane_profile(b.plane, profile);
	assert_int_equal(profile[SM_STAGE_UDP_RECEIVE].per_frame.count, 100);
	assert_int_equal(profile[SM_STAGE_OPEN].per_frame.count, 100);
	assert_int_equal(profile[SM_STAGE_TAP_WRITE].per_frame.count, 100);
	for (uint32_t i = 0; i < SM_STAGE_COUNT; i++)
		assert_string_not_equal(sm_stage_name((enum sm_stage)i), "unknown");
	free(profile);
	planes_part(&a, &b);
}

/* Frames of all lengths over a path that carries far less; small ones between them stay in order. */
static void test_parts(void **state)
{
	struct stream to_b = {.from = &a, .to = &b};
	struct sm_plane_counters c;

	(void)state;
	planes_join(&a, &b, 2, 9022);
	a.path_mtu = 600;
	node_start(&a);
	node_start(&b);
	for (uint32_t i = 0; i < 600; i++) {
		stream_put(&to_b, i % 2, i % 3 == 0 ? 18 + i : 9022 - i);
		stream_drain(&to_b, 8);
	}
	stream_drain(&to_b, 0);
	sm_plane_counters(a.plane, &c);
	assert_true(c.udp_send_packets > 400 * 16);
	sm_plane_counters(b.plane, &c);
	assert_int_equal(c.tap_write_frames, 600);

	/* To a peer that takes none: dropped and counted; smaller ones pass. */
	a.takes_parts = false;
	node_publish(&a);
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 0, 1000);
	tap_put(a.tap[0], buf, 1000);
	node_wait_drop(&a, SM_DROP_TOO_BIG, 1);
	stream_put(&to_b, 0, 600 - 20 - 8 - SM_DATA_OVERHEAD);
	stream_drain(&to_b, 0);
	assert_int_equal(node_drops(&a, SM_DROP_TOO_BIG), 1);
	/* More pieces than are allowed, and a path that carries not even an empty one */
	a.takes_parts = true;
	a.path_mtu = 100;
	node_publish(&a);
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 0, 9000);
	tap_put(a.tap[0], buf, 9000);
	node_wait_drop(&a, SM_DROP_TOO_BIG, 2);
	a.path_mtu = 60;
	node_publish(&a);
	tap_put(a.tap[0], buf, 100);
	node_wait_drop(&a, SM_DROP_TOO_BIG, 3);
	planes_part(&a, &b);
}

/*
 * Rekeying as the protocol does it, again and again under load: B accepts the new epoch, A sends on it,
 * B sends on it, the old one goes. Nothing is lost.
 */
static void test_epoch_switch_under_load(void **state)
{
	struct stream to_b = {.from = &a, .to = &b}, to_a = {.from = &b, .to = &a};

	(void)state;
	planes_join(&a, &b, 2, PLANES_FRAME_MAX);
	node_start(&a);
	node_start(&b);
	for (uint32_t number = 1; number <= 300; number++) {
		struct node *nodes[] = {&b, &a};

		for (uint32_t step = 0; step < 2; step++) {
			struct node *n = nodes[step];

			n->rx[1] = planes_epoch(n == &a, number, 3);
			if (n == &a)
				n->tx = n->rx[1];
			node_publish(n);
			for (uint32_t i = 0; i < 8; i++) {
				stream_put(&to_b, i % 2, 200);
				stream_put(&to_a, i % 2, 200);
			}
		}
		b.tx = b.rx[1];
		node_publish(&b);
		stream_put(&to_a, 0, 100);
		stream_drain(&to_b, 0);
		stream_drain(&to_a, 0);
		for (uint32_t i = 0; i < 2; i++) {
			struct node *n = nodes[i];
			struct sm_epoch *old = n->rx[0];

			n->rx[0] = n->rx[1];
			n->rx[1] = NULL;
			node_publish(n);
			/* Freed only when no worker can see it. */
			while (sm_plane_has_retired_pending(n->plane))
				node_poll(n);
			sm_epoch_free(old);
			n->event_count = 0;
		}
	}
	assert_int_equal(node_drops(&a, SM_DROP_EPOCH_OVER), 0);
	assert_int_equal(node_drops(&b, SM_DROP_EPOCH_OVER), 0);
	planes_part(&a, &b);
}

/* Snapshots come and go as fast as the control thread can, while frames pass. */
static void test_publish_under_load(void **state)
{
	struct stream to_b = {.from = &a, .to = &b};

	(void)state;
	planes_join(&a, &b, 3, PLANES_FRAME_MAX);
	node_start(&a);
	node_start(&b);
	for (uint32_t i = 0; i < 6000; i++) {
		stream_put(&to_b, i % 3, 100);
		node_publish(&a);
		node_publish(&b);
		stream_drain(&to_b, WINDOW);
	}
	stream_drain(&to_b, 0);
	/* Workers fall asleep when there is nothing to do: then nothing is held back. */
	while (sm_plane_has_retired_pending(a.plane))
		node_poll(&a);
	assert_int_equal(a.published - a.frees, 1);
	planes_part(&a, &b);
}

/* Workers asleep in poll hold up no grace period: nothing wakes them here, and yet all come back. */
static void test_idle_retire(void **state)
{
	uint64_t since_us = sm_clock_now_us();

	(void)state;
	planes_join(&a, &b, 2, PLANES_FRAME_MAX);
	node_start(&a);
	for (uint32_t i = 0; i < 1000; i++)
		node_publish(&a);
	/* Threads that are only starting may hold one for a moment. */
	while (sm_plane_has_retired_pending(a.plane)) {
		node_poll(&a);
		assert_true(sm_clock_now_us() - since_us < 5 * SM_SEC_US);
	}
	assert_int_equal(a.published - a.frees, 1);
	planes_part(&a, &b);
}

/* A burst of broadcast to many members: every one gets every frame, in pieces of one batch each. */
static void test_flood(void **state)
{
	struct sm_plane_counters c;
	uint64_t since_us = sm_clock_now_us();
	uint32_t frames = 40;

	(void)state;
	planes_join(&a, &b, 1, PLANES_FRAME_MAX);
	a.members = 400;
	node_publish(&a);
	for (uint32_t i = 0; i < frames; i++) {
		(void)planes_frame(buf, UINT64_C(0xffffffffffff), OWN_MAC(0), i, 100);
		tap_put(a.tap[0], buf, 100);
	}
	node_start(&a);
	do {
		sm_plane_counters(a.plane, &c);
		assert_true(sm_clock_now_us() - since_us < 5 * SM_SEC_US);
	} while (c.udp_send_packets + c.drops[SM_DROP_SEND] < frames * a.members);
	sm_plane_stop(a.plane);
	sm_plane_counters(a.plane, &c);
	assert_int_equal(c.udp_send_packets + c.drops[SM_DROP_SEND], frames * a.members);
	assert_int_equal(c.drops[SM_DROP_NO_BUFFER], 0);
	if (c.drops[SM_DROP_SEND] == 0) {
		for (sm_port_t port = 1; port <= a.members; port++) {
			struct sm_port_counters p;

			sm_plane_port_counters(a.plane, port, &p);
			assert_int_equal(p.tx_frames, frames);
		}
	}
	planes_part(&a, &b);
}

/* What is sent before there is a session comes when there is one: in order, once, to whom it is meant. */
static void test_held_until_connected(void **state)
{
	(void)state;
	planes_join(&a, &b, 1, PLANES_FRAME_MAX);
	a.unconnected = true;
	node_start(&a);
	node_start(&b);
	(void)planes_frame(buf, UINT64_C(0xffffffffffff), OWN_MAC(0), 1, 60);
	tap_put(a.tap[0], buf, 60);
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 2, 1500);
	tap_put(a.tap[0], buf, 1500);
	assert_int_equal(tap_get(b.tap[0], buf, sizeof(buf), 20), 0);
	a.unconnected = false;
	node_publish(&a);
	for (uint32_t i = 1; i <= 2; i++) {
		uint32_t len = tap_get(b.tap[0], buf, sizeof(buf), 5000);

		assert_int_equal(len, i == 1 ? 60 : 1500);
		assert_int_equal(planes_frame_number(buf, len), i);
	}
	/* Another publication, and a loss of the session, bring nothing again. */
	node_publish(&a);
	a.unconnected = true;
	node_publish(&a);
	a.unconnected = false;
	assert_int_equal(tap_get(b.tap[0], buf, sizeof(buf), 20), 0);
	assert_int_equal(node_drops(&a, SM_DROP_NO_SESSION), 0);
	planes_part(&a, &b);
}

/* What another worker handed over takes no more of a turn than what comes straight. */
static uint32_t handed_in_one_turn(struct sm_worker *w, struct sm_ring *ring, uint32_t len)
{
	uint32_t put = 0, left = 0;
	struct sm_handed *slot;

	while ((slot = sm_ring_reserve(ring)) != NULL) {
		memset(slot->data, 0, len); /* nothing that anybody sealed */
		slot->len = slot->segment = len;
		sm_ring_commit(ring);
		put++;
	}
	assert_true(sm_ingress_handed_turn(w));
	while (sm_ring_peek(ring)) {
		sm_ring_release(ring);
		left++;
	}
	return put - left;
}

static void test_bound_of_what_is_handed_over(void **state)
{
	struct sm_worker *w;

	(void)state;
	node_init(&a, 2, PLANES_FRAME_MAX);
	w = &a.plane->workers[0]; /* not started: this thread is the worker */
	assert_int_equal(handed_in_one_turn(w, &w->handed[1], 65536), SM_OPENED_LEN / 65536);
	assert_int_equal(handed_in_one_turn(w, &w->handed[1], 100), SM_BATCH_MAX);
	node_done(&a);
}

/* The picture that connects the receiver may come between the look at what is held and the next frame. */
static void test_held_before_what_came_later(void **state)
{
	struct sm_worker *w;

	(void)state;
	planes_join(&a, &b, 1, PLANES_FRAME_MAX);
	w = &a.plane->workers[0]; /* not started: this thread is the worker */
	for (uint32_t i = 0; i < 2; i++) {
		a.unconnected = i == 0;
		node_publish(&a);
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), i, 60);
		tap_put(a.tap[0], buf, 60);
		w->now_us = sm_clock_now_us();
		sm_egress_turn(w, true);
	}
	node_start(&a);
	node_start(&b);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(tap_get(b.tap[0], buf, sizeof(buf), 5000), 60);
		assert_int_equal(planes_frame_number(buf, 60), i);
	}
	planes_part(&a, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bound_of_what_is_handed_over),
		cmocka_unit_test(test_one_worker),
		cmocka_unit_test(test_two_workers),
		cmocka_unit_test(test_four_workers),
		cmocka_unit_test(test_profile),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_epoch_switch_under_load),
		cmocka_unit_test(test_publish_under_load),
		cmocka_unit_test(test_idle_retire),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_held_until_connected),
		cmocka_unit_test(test_held_before_what_came_later),
	};

	if (sm_crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Who sends little goes ahead of who sends much, at the sender and at the receiver, and nobody ahead of himself.
 *
 *   test -- tap == plane A ==== UDP ==== plane B == tap -- test
 *
 * A film of FILM datagrams and one call, of another port, which was put behind all of them. And connections that
 * keep the card's queue full.
 */
#include "base/clock.h"
#include "core/flow.h"
#include "crypto/crypto.h"
#include "frames.h"
#include "planes.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define FILM     60u
#define CALL     1000u
#define BODY_LEN 1400u
#define PORT_AT  (14u + 20 + 1) /* low byte of the source port */
#define BODY_AT  (14u + 20 + 8)
#define WAIT_MS  5000

/* Frames of the film that pass before it counts as one */
#define TRAILER (SM_FLOW_BYTES / (BODY_AT + BODY_LEN))

static struct node a, b;

static void put(uint32_t number)
{
	const struct shape shape = {.mode = SM_MODE_TAP, .version = 4, .proto = SM_PROTO_UDP};
	uint8_t frame[PLANES_FRAME_MAX], body[BODY_LEN] = {0};
	uint32_t len;

	memcpy(body, &number, sizeof(number));
	len = frame_build(&shape, body, number == CALL ? 100 : BODY_LEN, true, frame);
	for (uint32_t i = 0; i < 6; i++) {
		frame[i] = (uint8_t)(OWN_MAC(1) >> 8 * (5 - i));
		frame[6 + i] = (uint8_t)(OWN_MAC(0) >> 8 * (5 - i));
	}
	if (number == CALL)
		frame[PORT_AT] ^= 1; /* its checksum is nobody's business here */
	tap_put(a.tap[0], frame, len);
}

static void wait_sent(uint64_t packets)
{
	const uint64_t begin_us = sm_clock_now_us();
	struct sm_plane_counters c;

	do {
		assert_true(sm_clock_now_us() - begin_us < WAIT_MS * SM_MSEC_US);
		(void)poll(NULL, 0, 1);
		sm_plane_counters(a.plane, &c);
	} while (c.udp_send_packets < packets);
}

/* Return: how many frames of the film came before the call; all must come, in order */
static uint32_t before_the_call(void)
{
	uint32_t next = 0, before = UINT32_MAX;

	for (uint32_t i = 0; i < FILM + 1; i++) {
		uint8_t frame[PLANES_FRAME_MAX];
		uint32_t len = tap_get(b.tap[0], frame, sizeof(frame), WAIT_MS), number;

		assert_true(len > BODY_AT + sizeof(number));
		memcpy(&number, frame + BODY_AT, sizeof(number));
		if (number == CALL)
			before = next;
		else
			assert_int_equal(number, next++);
	}
	assert_int_equal(next, FILM);
	return before;
}

/* The kernel's queue in front of B keeps the order in which A sent. */
static uint32_t run(bool express, bool later)
{
	uint32_t before;

	planes_join(&a, &b, 1, PLANES_FRAME_MAX);
	if (!express) {
		/* as with a peer that has not the feature */
		a.tx->tx_count = a.tx->tx_plain;
		b.tx->tx_count = b.tx->tx_plain;
	}
	for (uint32_t i = 0; i < FILM; i++)
		put(i);
	if (!later)
		put(CALL);
	node_start(&a);
	wait_sent(FILM);
	if (later)
		put(CALL);
	wait_sent(FILM + 1);
	node_start(&b);
	before = before_the_call();
	a.tx->tx_count = a.tx->rx_count;
	b.tx->tx_count = b.tx->rx_count;
	planes_part(&a, &b);
	return before;
}

static void test_sender_and_receiver(void **state)
{
	(void)state;
	assert_int_equal(run(true, false), TRAILER);
}

static void test_receiver(void **state)
{
	(void)state;
	assert_int_equal(run(true, true), TRAILER);
}

/* What goes ahead at the sender is still ahead; what was sent later stays behind. */
static void test_without_express_lanes(void **state)
{
	(void)state;
	assert_int_equal(run(false, false), TRAILER);
	assert_int_equal(run(false, true), FILM);
}

/* --- a card's queue that never empties --- */

#define MEMBERS  16u
#define GSO_SIZE 1000u

/* Floods to MEMBERS until something was lost for standing, or a second long. Return: frames put */
static uint32_t fill(const struct shape *shape, uint32_t gso_size, uint32_t payload_len)
{
	const struct sm_vnet whole = {0};
	const struct sm_vnet vnet = gso_size > 0 ? frame_vnet(shape, gso_size) : whole;
	const uint64_t begin_us = sm_clock_now_us();
	static uint8_t frame[66000], body[65000];
	const uint32_t len = frame_build(shape, body, payload_len, gso_size == 0, frame);
	uint32_t count = 0;

	memset(frame, 0xff, 6);
	for (uint32_t i = 0; i < 6; i++)
		frame[6 + i] = (uint8_t)(OWN_MAC(0) >> 8 * (5 - i));
	do {
		tap_put_vnet(a.tap[0], &vnet, frame, len);
		count++;
	} while (node_drops(&a, SM_DROP_STANDING) < 3 &&
		 sm_clock_now_us() - begin_us <
			 (shape->proto == SM_PROTO_TCP ? WAIT_MS * SM_MSEC_US : SM_SEC_US));
	return count;
}

/* Each receiver lacks the last segment of a frame for each that was counted. */
static void check_sent(uint32_t frames)
{
	const uint64_t begin_us = sm_clock_now_us();
	struct sm_port_counters c;
	uint64_t sent = 0, wanted;

	do {
		assert_true(sm_clock_now_us() - begin_us < WAIT_MS * SM_MSEC_US);
		(void)poll(NULL, 0, 1);
		sent = 0;
		for (sm_port_t port = 1; port <= MEMBERS; port++) {
			sm_plane_port_counters(a.plane, port, &c);
			sent += c.tx_frames;
		}
		wanted = (uint64_t)MEMBERS * frames - node_drops(&a, SM_DROP_STANDING);
	} while (sent != wanted);
}

static void stand(const struct shape *shape, uint32_t gso_size, uint32_t payload_len, bool chunks,
		  bool loses)
{
	static const struct planes_offload all = {
		.tso = true, .uso = true, .batches = true, .gro = true};
	const uint32_t segments = gso_size > 0 ? payload_len / gso_size : 1;
	uint32_t frames;

	planes_join_offload(&a, &b, 1, 2000, &all, &all);
	a.members = MEMBERS;
	a.chunk_ports = chunks ? UINT64_MAX : 0;
	node_start(&a);
	frames = fill(shape, gso_size, payload_len);
	check_sent(frames * segments);
	assert_int_equal(node_drops(&a, SM_DROP_STANDING) >= 3, loses);
	planes_part(&a, &b);
}

static void test_standing_queue(void **state)
{
	const struct shape tcp = {
		.mode = SM_MODE_TAP, .version = 4, .proto = SM_PROTO_TCP, .flags = SM_TCP_ACK};
	const struct shape udp = {.mode = SM_MODE_TAP, .version = 4, .proto = SM_PROTO_UDP};

	(void)state;
	stand(&tcp, 0, BODY_LEN, true, true);
	stand(&tcp, GSO_SIZE, 20 * GSO_SIZE, true, true);
	stand(&tcp, GSO_SIZE, 20 * GSO_SIZE, false, true);
	stand(&udp, 0, BODY_LEN, true, false); /* it would not slow down */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sender_and_receiver),
		cmocka_unit_test(test_receiver),
		cmocka_unit_test(test_without_express_lanes),
		cmocka_unit_test(test_standing_queue),
	};

	if (sm_crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

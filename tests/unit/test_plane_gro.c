// SPDX-License-Identifier: MIT
/*
 * Messages of several datagrams (UDP_GRO) that arrive damaged: they are no longer asked for when single ones
 * are sound, and only then; after a while they are tried again.
 */
#include "base/clock.h"
#include "io/udp.h"
#include "plane/worker.h"
#include "planes.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#define BATCH   8u
#define LEN     100u /* of a frame */
#define SEALED  (LEN + SM_DATA_OVERHEAD)
#define ROUNDS  30u
#define PACE_MS 50

static const struct planes_offload gro = {.gro = true};
static struct node node;
static struct sm_epoch *ours;
static int peer_fd, other_fd;
static uint32_t sent;

static int setup(void **state)
{
	struct sm_addr other;

	(void)state;
	node_init_offload(&node, 1, PLANES_FRAME_MAX, &gro);
	peer_fd = planes_socket(&node.remote);
	other_fd = planes_socket(&other);
	ours = planes_epoch(true, 0, 2);
	node.tx = node.rx[0] = planes_epoch(false, 0, 2);
	sent = 0;
	node_start(&node);
	return 0;
}

static int teardown(void **state)
{
	struct sm_epoch *epoch = node.rx[0];

	(void)state;
	node_done(&node);
	sm_epoch_free(epoch);
	sm_epoch_free(ours);
	close(peer_fd);
	close(other_fd);
	return 0;
}

/* @count datagrams in one message, all but @sound of them damaged behind their headers */
static void send_batch(int fd, uint32_t count, uint32_t sound)
{
	static uint8_t room[SM_PBUF_HEADROOM + SEALED + SM_PBUF_TAILROOM];
	uint8_t batch[BATCH * SEALED];
	const uint8_t kind = SM_KIND_FRAME;
	struct sm_udp_message msg = {
		.peer = node.addr, .data = batch, .len = count * SEALED, .segment = SEALED};
	int err;

	for (uint32_t i = 0; i < count; i++) {
		struct sm_pbuf p = {.buf = room, .cap = sizeof(room)}, *list = &p;

		sm_pbuf_reset(&p);
		planes_frame(sm_pbuf_put_tail(&p, LEN), OWN_MAC(0), OWN_MAC(1), sent++, LEN);
		assert_int_equal(sm_tx_lane_seal(&ours->tx[1], &list, &kind, 1, 1), 1);
		assert_int_equal(p.len, SEALED);
		memcpy(batch + i * SEALED, p.data, SEALED);
		batch[i * SEALED + 50] ^= i >= sound;
	}
	assert_int_equal(sm_udp_send(fd, false, &msg, 1, &err), 1);
}

static uint32_t take_frames(void)
{
	uint8_t frame[2000];
	uint32_t n = 0;

	while (tap_get(node.tap[0], frame, sizeof(frame), 20) > 0)
		n++;
	return n;
}

/* Return: was it told that they are damaged? */
static bool is_told(void)
{
	node_poll(&node);
	return node_count_events(&node, SM_EVENT_OFFLOAD) > 0;
}

static void pause_round(void)
{
	(void)take_frames();
	(void)poll(NULL, 0, PACE_MS);
}

static void test_damaged_batches(void **state)
{
	const struct sm_plane_event *event;
	struct sm_worker *w = &node.plane->workers[0];
	uint32_t rounds = 0;

	(void)state;
	while (!is_told() && rounds++ < ROUNDS * 4) {
		send_batch(peer_fd, BATCH, 2);
		send_batch(peer_fd, 1, 1);
		pause_round();
	}
	event = node_wait_event(&node, SM_EVENT_OFFLOAD, 0);
	assert_true(event->receiving && event->err == EBADMSG);
	assert_true(sm_plane_gro_is_off(node.plane));

	/* the kernel takes apart what is joined on the way: as good as sent alone */
	send_batch(peer_fd, BATCH, BATCH);
	assert_int_equal(take_frames(), BATCH);

	/* the time is over */
	sm_plane_stop(node.plane);
	w->gro.off_us = 1;
	assert_int_equal(sm_plane_start(node.plane), 0);
	send_batch(peer_fd, 1, 1);
	event = node_wait_event(&node, SM_EVENT_OFFLOAD, node.event_count);
	assert_true(event->receiving && event->err == 0);
	assert_false(sm_plane_gro_is_off(node.plane));
}

/* Sound ones, and half of them damaged */
static void test_sound_batches(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		send_batch(peer_fd, BATCH, BATCH - i % 2 * BATCH / 2);
		send_batch(peer_fd, 1, 1);
		pause_round();
	}
	assert_false(is_told());
}

/* Someone else's forgeries, though they come several at a time, are no reason. */
static void test_forged_by_others(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		send_batch(other_fd, BATCH, 0);
		send_batch(peer_fd, 1, 1);
		pause_round();
	}
	assert_true(node_drops(&node, SM_DROP_FORGED) >= ROUNDS * BATCH);
	assert_false(is_told());
}

/* When single ones are damaged as well, joining them is not the cause. */
static void test_all_damaged(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		send_batch(peer_fd, BATCH, 0);
		send_batch(peer_fd, 1, 0);
		pause_round();
	}
	assert_false(is_told());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_damaged_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sound_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forged_by_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_damaged, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

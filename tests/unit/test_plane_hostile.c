// SPDX-License-Identifier: MIT
/*
 * One plane and a peer played by the test, honest or not: nothing that is forged, replayed, truncated or
 * out of place reaches the TAP, moves the peer's address or makes a worker spin; and what the control
 * thread is told about honest packets.
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "io/udp.h"
#include "planes.h"
#include "rng.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LANES 3u

/**
 * struct packet - A datagram as it travels
 */
struct packet {
	uint8_t b[2600];
	uint32_t len;
};

static struct node node;
static struct sm_epoch *ours; /* the peer's side of epoch 0 */
static int peer_fd, other_fd;
static struct sm_addr peer_addr, other_addr;
static uint32_t sentinels;
static uint8_t buf[66000];

static int socket_at(struct sm_addr *ret_addr)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, ret_addr), 0);
	return fd;
}

static void begin(uint32_t workers, uint32_t frame_max)
{
	node_init(&node, workers, frame_max);
	peer_fd = socket_at(&peer_addr);
	other_fd = socket_at(&other_addr);
	ours = planes_epoch(true, 0, LANES);
	node.remote = peer_addr;
	node.tx = node.rx[0] = planes_epoch(false, 0, LANES);
	sentinels = 0;
}

static int setup_one(void **state)
{
	(void)state;
	begin(1, PLANES_FRAME_MAX);
	node_start(&node);
	return 0;
}

static int setup_not_started(void **state)
{
	(void)state;
	begin(1, PLANES_FRAME_MAX);
	return 0;
}

static int setup_two(void **state)
{
	(void)state;
	begin(2, PLANES_FRAME_MAX);
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

static struct packet seal(uint32_t lane, uint8_t kind, const void *body, uint32_t len)
{
	static uint8_t room[SM_PBUF_HEADROOM + 2600 + SM_PBUF_TAILROOM];
	struct sm_pbuf p = {.buf = room, .cap = sizeof(room)}, *list = &p;
	struct packet packet;

	sm_pbuf_reset(&p);
	memcpy(sm_pbuf_put_tail(&p, len), body, len);
	assert_int_equal(sm_tx_lane_seal(&ours->tx[lane], &list, &kind, 1, 1), 1);
	memcpy(packet.b, p.data, p.len);
	packet.len = p.len;
	return packet;
}

static struct packet seal_frame(uint32_t lane, uint32_t number)
{
	uint8_t frame[100];

	return seal(lane, SM_KIND_FRAME, frame,
		    planes_frame(frame, OWN_MAC(0), OWN_MAC(1), number, sizeof(frame)));
}

static void send_from(int fd, const struct packet *p)
{
	struct sockaddr_storage sa;
	socklen_t len = sm_addr_to_sockaddr(&node.addr, false, &sa);

	assert_int_equal(sendto(fd, p->b, p->len, 0, (struct sockaddr *)&sa, len), p->len);
}

static uint32_t take_frame(void)
{
	for (int tries = 0; tries < 5000; tries++) {
		for (uint32_t q = 0; q < node.workers; q++) {
			uint32_t len = tap_get(node.tap[q], buf, sizeof(buf), 0);

			if (len > 0)
				return planes_frame_number(buf, len);
		}
		(void)poll(NULL, 0, 1);
	}
	fail_msg("no frame came");
	return 0;
}

/* An honest frame on each data lane, at the end of what was tried: only they come out. */
static void expect_nothing_but_sentinels(void)
{
	for (uint32_t lane = 1; lane < LANES; lane++) {
		uint32_t number = 0x1000000 + sentinels++;
		struct packet p = seal_frame(lane, number);

		send_from(peer_fd, &p);
		assert_int_equal(take_frame(), number);
	}
	for (uint32_t q = 0; q < node.workers; q++)
		assert_int_equal(tap_get(node.tap[q], buf, sizeof(buf), 0), 0);
}

static void test_flipped(void **state)
{
	struct packet honest = seal_frame(1, 1);
	uint64_t bad;

	(void)state;
	for (uint32_t bit = 0; bit < honest.len * 8; bit++) {
		honest.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		send_from(peer_fd, &honest);
		honest.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (bit % 100 == 99) /* the socket's buffer is finite */
			expect_nothing_but_sentinels();
	}
	expect_nothing_but_sentinels();
	bad = node_drops(&node, SM_DROP_FORGED) + node_drops(&node, SM_DROP_MALFORMED) +
	      node_drops(&node, SM_DROP_UNKNOWN_SESSION) + node_drops(&node, SM_DROP_EPOCH_OVER);
	assert_int_equal(bad, honest.len * 8);
	assert_int_equal(node_drops(&node, SM_DROP_UNKNOWN_SESSION), 32);
	/* It was good all the time. */
	send_from(peer_fd, &honest);
	assert_int_equal(take_frame(), 1);
}

static void test_truncated(void **state)
{
	struct packet honest = seal_frame(2, 2), longer;

	(void)state;
	for (uint32_t len = 0; len < honest.len; len++) {
		struct packet p = honest;

		p.len = len;
		send_from(peer_fd, &p);
	}
	longer = honest;
	longer.b[longer.len++] = 0;
	send_from(peer_fd, &longer);
	longer.len = 2500; /* longer than any buffer of the plane */
	send_from(peer_fd, &longer);
	expect_nothing_but_sentinels();
	assert_int_equal(node_drops(&node, SM_DROP_FORGED) + node_drops(&node, SM_DROP_MALFORMED),
			 honest.len + 2);
}

static void test_replayed(void **state)
{
	struct packet kept[50];

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(kept); i++) {
		kept[i] = seal_frame(1 + i % 2, 100 + i);
		send_from(peer_fd, &kept[i]);
		assert_int_equal(take_frame(), 100 + i);
	}
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(kept); i++)
		send_from(i % 3 ? peer_fd : other_fd, &kept[i]);
	/* Two sockets of the plane may have them: only the count says that all were looked at. */
	node_wait_drop(&node, SM_DROP_REPLAYED, SM_ARRAY_SIZE(kept));
	expect_nothing_but_sentinels();
	assert_int_equal(node_drops(&node, SM_DROP_REPLAYED), SM_ARRAY_SIZE(kept));
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_ADDRESS), 0);
}

static void test_garbage(void **state)
{
	struct rng rng = rng_init("hostile");
	struct packet p;

	(void)state;
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 50; i++) {
			p.len = rng_below(&rng, 1500);
			rng_fill(&rng, p.b, p.len);
			if (i % 2 && p.len >= SM_DATA_HEADER_LEN) {
				struct sm_data_header h = {.epoch = 0,
							   .lane = (uint8_t)rng_below(&rng, 4),
							   .session = 0x77000001,
							   .number = rng_u64(&rng) >>
								     rng_below(&rng, 64)};

				sm_data_header_encode(&h, p.b);
			}
			send_from(i % 3 ? peer_fd : other_fd, &p);
		}
		expect_nothing_but_sentinels();
	}
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_ADDRESS), 0);
	assert_int_equal(node_count_events(&node, SM_EVENT_CONTROL), 0);
}

/* Authentic, but not what this lane, kind or trailer may be. */
static void test_out_of_place(void **state)
{
	uint8_t frame[100];
	uint32_t len = planes_frame(frame, OWN_MAC(0), OWN_MAC(1), 7, sizeof(frame));
	static const uint8_t long_body[SM_EVENT_BODY_MAX + 1] = {[SM_EVENT_BODY_MAX] = 1};
	const struct packet bad[] = {
		seal(0, SM_KIND_FRAME, frame, len),
		seal(0, SM_KIND_PART, frame, len),
		seal(1, SM_KIND_PROBE, frame, len),
		seal(2, SM_KIND_STREAM, frame, len),
		seal(1, 0x00, frame, len),
		seal(1, 0x06, frame, len),
		seal(0, 0xff, frame, len),
		seal(1, SM_KIND_PART, frame, 0),
		seal(1, SM_KIND_PART, frame, 4),
		seal(1, SM_KIND_PART, frame, len),
		seal(0, SM_KIND_STREAM, long_body, SM_EVENT_BODY_MAX + 1),
		seal(0, SM_KIND_PROBE, long_body, SM_EVENT_BODY_MAX + 1),
	};
	struct packet p;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		send_from(peer_fd, &bad[i]);
	expect_nothing_but_sentinels();
	assert_int_equal(node_drops(&node, SM_DROP_MALFORMED), SM_ARRAY_SIZE(bad));

	/* Not the sender's MAC, our own MAC, a runt */
	len = planes_frame(frame, OWN_MAC(0), OWN_MAC(0), 7, sizeof(frame));
	p = seal(1, SM_KIND_FRAME, frame, len);
	send_from(peer_fd, &p);
	p = seal(1, SM_KIND_FRAME, frame, 13);
	send_from(peer_fd, &p);
	p = seal(1, SM_KIND_FRAME, frame, 0);
	send_from(peer_fd, &p);
	expect_nothing_but_sentinels();
	assert_int_equal(node_drops(&node, SM_DROP_SOURCE_OWNED), 1);
	assert_int_equal(node_drops(&node, SM_DROP_RUNT), 2);
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_CONTROL), 0);
}

/* A probe of a large path is longer than an event: its padding is left out, and only that. */
static void test_padded_probe(void **state)
{
	uint8_t body[SM_EVENT_BODY_MAX + 300] = {[20] = 7};
	const struct sm_plane_event *event;
	struct packet p = seal(0, SM_KIND_PROBE, body, sizeof(body));

	(void)state;
	send_from(peer_fd, &p);
	event = node_wait_event(&node, SM_EVENT_CONTROL, 0);
	assert_int_equal(event->kind, SM_KIND_PROBE);
	assert_int_equal(event->len, SM_EVENT_BODY_MAX);
	assert_memory_equal(event->body, body, SM_EVENT_BODY_MAX);
}

/* Datagrams of one size in one message, as a member may send them */
static void send_train(const struct packet *p, uint32_t n)
{
	uint8_t train[64 * 200];
	struct sm_udp_message msg = {.peer = node.addr, .data = train, .segment = p[0].len};
	int err;

	for (uint32_t i = 0; i < n; i++) {
		assert_true(p[i].len == p[0].len && msg.len + p[i].len <= sizeof(train));
		memcpy(train + msg.len, p[i].b, p[i].len);
		msg.len += p[i].len;
	}
	assert_int_equal(sm_udp_send(peer_fd, false, &msg, 1, &err), 1);
}

/* More frames in one batch than are written at once: none takes another's place before it is written. */
static void test_large_batch(void **state)
{
	const uint32_t train = 64, longer = 8;
	uint8_t frame[PLANES_FRAME_MAX];
	struct packet p[64];

	(void)state;
	assert_int_equal(sm_udp_set_gro(node.udp[0], true), 0);
	for (uint32_t i = 0; i < train; i++)
		p[i] = seal_frame(1, i);
	send_train(p, train);
	for (uint32_t i = 0; i <= longer + 1; i++) {
		const uint32_t len = i > 0 && i <= longer ? sizeof(frame) : 100;

		p[0] = seal(1, SM_KIND_FRAME, frame,
			    planes_frame(frame, OWN_MAC(0), OWN_MAC(1), train + i, len));
		send_from(peer_fd, &p[0]);
	}
	node_start(&node); /* all of it waits, and is one batch */
	for (uint32_t i = 0; i < train + longer + 2; i++)
		assert_int_equal(take_frame(), i);
}

/* A member that begins frames and ends none: the others' pieces and frames still come through. */
static void test_unfinished_parts(void **state)
{
	uint8_t body[64] = {0};
	struct sm_part part = {.index = 0, .count = 2};

	(void)state;
	sm_part_encode(&part, body + sizeof(body) - SM_PART_TRAILER_LEN);
	for (uint32_t i = 0; i < 500; i++) {
		struct packet p = seal(1, SM_KIND_PART, body, sizeof(body));

		send_from(peer_fd, &p);
		if (i % 50 == 49)
			expect_nothing_but_sentinels();
	}
	expect_nothing_but_sentinels();
	assert_true(node_drops(&node, SM_DROP_NO_BUFFER) > 0);
}

static void test_address(void **state)
{
	const struct sm_plane_event *event;
	struct packet p = seal_frame(1, 1), late = seal_frame(1, 2), forged;
	uint64_t since_us = sm_clock_now_us();

	(void)state;
	send_from(peer_fd, &p);
	assert_int_equal(take_frame(), 1);
	/* Forged from elsewhere: nothing. Newest from elsewhere: told, but only once in a while. */
	forged = seal_frame(1, 3);
	forged.b[20] ^= 1;
	send_from(other_fd, &forged);
	for (uint32_t i = 0; i < 20; i++) {
		p = seal_frame(1, 10 + i);
		send_from(other_fd, &p);
		assert_int_equal(take_frame(), 10 + i);
	}
	event = node_wait_event(&node, SM_EVENT_ADDRESS, 0);
	assert_true(sm_addr_equal(&event->from, &other_addr));
	assert_int_equal(event->session, 0x77000001);
	assert_int_equal(event->to.family, 4);
	assert_memory_equal(event->to.ip, node.addr.ip, 4);
	assert_in_range(node_count_events(&node, SM_EVENT_ADDRESS), 1,
			1 + (sm_clock_now_us() - since_us) / (100 * SM_MSEC_US));

	/* A late one from elsewhere is delivered and says nothing, however long after. */
	(void)poll(NULL, 0, 120);
	node.event_count = 0;
	send_from(other_fd, &late);
	assert_int_equal(take_frame(), 2);
	expect_nothing_but_sentinels();
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_ADDRESS), 0);
	/* Where it sends to is not the plane's to change. */
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 5, 100);
	tap_put(node.tap[0], buf, 100);
	assert_int_equal(poll(&(struct pollfd){.fd = peer_fd, .events = POLLIN}, 1, 5000), 1);
	assert_int_equal(recv(other_fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
}

static void test_epoch_events(void **state)
{
	struct packet p = seal(0, SM_KIND_PROBE, "probe!", 6);
	const struct sm_plane_event *event;

	(void)state;
	send_from(peer_fd, &p);
	event = node_wait_event(&node, SM_EVENT_CONTROL, 0);
	assert_int_equal(event->kind, SM_KIND_PROBE);
	assert_int_equal(event->len, 6);
	assert_memory_equal(event->body, "probe!", 6);
	assert_true(event->newest);
	assert_true(sm_addr_equal(&event->from, &peer_addr));
	/* Told in order: the epoch first. */
	assert_int_equal(node.events[0].type, SM_EVENT_EPOCH_RECEIVED);
	assert_int_equal(node.event_count, 2);
	assert_true(atomic_load(&node.wakes) > 0);

	expect_nothing_but_sentinels();
	(void)node_wait_event(&node, SM_EVENT_EPOCH_USED, 0);
	for (int i = 0; i < 5; i++)
		expect_nothing_but_sentinels();
	ours->tx[1].next = SM_REKEY_AFTER_PACKETS - 2;
	expect_nothing_but_sentinels();
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_WORN), 0);
	for (int i = 0; i < 5; i++)
		expect_nothing_but_sentinels();
	(void)node_wait_event(&node, SM_EVENT_EPOCH_WORN, 0);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_RECEIVED), 1);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_USED), 1);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_WORN), 1);
}

/* The sending side: used, worn, and at the limit no packet any more. */
static void test_sending_limit(void **state)
{
	struct sm_plane_counters c;

	(void)state;
	begin(1, PLANES_FRAME_MAX);
	sm_epoch_tx(node.tx, 0, true)->next = SM_PACKET_LIMIT - 1;
	node_start(&node);
	for (uint32_t i = 0; i < 3; i++) {
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), i, 100);
		tap_put(node.tap[0], buf, 100);
		if (i == 0)
			(void)node_wait_event(&node, SM_EVENT_EPOCH_USED, 0);
	}
	node_wait_drop(&node, SM_DROP_LIMIT, 2);
	(void)node_wait_event(&node, SM_EVENT_EPOCH_WORN, 0);
	sm_plane_counters(node.plane, &c);
	assert_int_equal(c.udp_send_packets, 1);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_WORN), 1);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_RECEIVED), 0);
	(void)teardown(NULL);
}

/* A sending lane that comes to the number from which a new epoch is wanted */
static void test_sending_worn(void **state)
{
	(void)state;
	begin(1, PLANES_FRAME_MAX);
	sm_epoch_tx(node.tx, 0, true)->next = SM_REKEY_AFTER_PACKETS - 2;
	node_start(&node);
	for (uint32_t i = 0; i < 2; i++) {
		node_poll(&node);
		assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_WORN), 0);
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), i, 100);
		tap_put(node.tap[0], buf, 100);
		assert_int_equal(poll(&(struct pollfd){.fd = peer_fd, .events = POLLIN}, 1, 5000),
				 1);
		assert_int_equal(recv(peer_fd, buf, sizeof(buf), 0), 100 + SM_DATA_OVERHEAD);
		(void)node_wait_event(&node, SM_EVENT_EPOCH_USED, 0);
	}
	(void)node_wait_event(&node, SM_EVENT_EPOCH_WORN, 0);
	(void)teardown(NULL);
}

/* Nobody reads events: the ring fills and nothing else stops; what must be told once is told later. */
static void test_full_event_ring(void **state)
{
	uint32_t sent = 300;

	(void)state;
	for (uint32_t i = 0; i < sent; i++) {
		struct packet p = seal(0, SM_KIND_STREAM, &i, sizeof(i));

		send_from(peer_fd, &p);
	}
	node_wait_drop(&node, SM_DROP_NO_BUFFER, 100);
	expect_nothing_but_sentinels();
	node_poll(&node);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_USED), 0);
	assert_int_equal(node_count_events(&node, SM_EVENT_CONTROL) +
				 node_drops(&node, SM_DROP_NO_BUFFER),
			 sent);
	expect_nothing_but_sentinels();
	(void)node_wait_event(&node, SM_EVENT_EPOCH_USED, 0);
	assert_int_equal(node_count_events(&node, SM_EVENT_EPOCH_USED), 1);
}

/* The card goes away: told once, and the control lane still works. */
static void test_tap_gone(void **state)
{
	struct packet p;
	uint64_t since_us;
	struct sm_plane_counters before, after;

	(void)state;
	expect_nothing_but_sentinels();
	for (uint32_t q = 0; q < node.workers; q++) {
		close(node.tap[q]);
		node.tap[q] = -1;
	}
	(void)node_wait_event(&node, SM_EVENT_TAP_GONE, 0);
	p = seal_frame(1, 1);
	send_from(peer_fd, &p);
	node_wait_drop(&node, SM_DROP_TAP_WRITE, 1);
	node.event_count = 0;
	p = seal(0, SM_KIND_PROBE, "still here", 10);
	send_from(peer_fd, &p);
	(void)node_wait_event(&node, SM_EVENT_CONTROL, 0);
	assert_int_equal(node_count_events(&node, SM_EVENT_TAP_GONE), 0);

	/* And nobody spins. */
	sm_plane_counters(node.plane, &before);
	since_us = sm_clock_now_us();
	while (sm_clock_now_us() - since_us < 50 * SM_MSEC_US)
		(void)poll(NULL, 0, 10);
	sm_plane_counters(node.plane, &after);
	assert_in_range(after.syscalls - before.syscalls, 0, 20);
}

/* ICMP's answer to packets for a port that nobody has: no error of ours, and no spinning. */
static void test_refused_port(void **state)
{
	struct sm_plane_counters before, after;

	(void)state;
	begin(1, PLANES_FRAME_MAX);
	node.remote = other_addr;
	/* A plane may be given a socket that reports errors. */
	(void)setsockopt(node.udp[0], IPPROTO_IP, IP_RECVERR, &(int){1}, sizeof(int));
	close(other_fd);
	other_fd = dup(peer_fd);
	node_start(&node);
	for (uint32_t i = 0; i < 30; i++) {
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), i, 100);
		tap_put(node.tap[0], buf, 100);
	}
	node.event_count = 0;
	expect_nothing_but_sentinels();
	(void)poll(NULL, 0, 50);
	sm_plane_counters(node.plane, &before);
	(void)poll(NULL, 0, 50);
	sm_plane_counters(node.plane, &after);
	assert_in_range(after.syscalls - before.syscalls, 0, 20);
	(void)teardown(NULL);
}

/* More than a datagram can hold: counted, told, and no other frame suffers. */
static void test_too_big_for_the_kernel(void **state)
{
	const struct sm_plane_event *event;
	uint64_t since_us = sm_clock_now_us();

	(void)state;
	begin(1, 65535);
	node.path_mtu = 100000;
	node_start(&node);
	for (int i = 0; i < 3; i++) {
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 1, 65530);
		tap_put(node.tap[0], buf, 65530);
	}
	node_wait_drop(&node, SM_DROP_TOO_BIG, 3);
	event = node_wait_event(&node, SM_EVENT_PATH_MTU, 0);
	assert_int_equal(event->session, 0x77000001);
	assert_in_range(node_count_events(&node, SM_EVENT_PATH_MTU), 1,
			1 + (sm_clock_now_us() - since_us) / (100 * SM_MSEC_US));
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 2, 60000);
	tap_put(node.tap[0], buf, 60000);
	assert_int_equal(poll(&(struct pollfd){.fd = peer_fd, .events = POLLIN}, 1, 5000), 1);
	assert_int_equal(recv(peer_fd, buf, sizeof(buf), 0), 60000 + SM_DATA_OVERHEAD);
	(void)teardown(NULL);
}

static void test_control_send(void **state)
{
	uint8_t data[64] = "sealed elsewhere";
	struct sm_plane_counters c;

	(void)state;
	assert_int_equal(sm_plane_send(node.plane, &peer_addr, NULL, data, sizeof(data)), 0);
	assert_int_equal(poll(&(struct pollfd){.fd = peer_fd, .events = POLLIN}, 1, 5000), 1);
	assert_int_equal(recv(peer_fd, buf, sizeof(buf), 0), sizeof(data));
	assert_memory_equal(buf, data, sizeof(data));
	assert_int_equal(sm_plane_send(node.plane, &peer_addr, NULL, buf, 66000), -EMSGSIZE);
	sm_plane_counters(node.plane, &c);
	assert_int_equal(c.udp_send_packets, 1);
}

/* Before there is a session, and when it only receives */
static void test_no_session(void **state)
{
	(void)state;
	begin(1, PLANES_FRAME_MAX);
	assert_int_equal(sm_plane_start(node.plane), 0);
	assert_int_equal(sm_plane_start(node.plane), -EALREADY);
	(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), 1, 100);
	tap_put(node.tap[0], buf, 100);
	node_wait_drop(&node, SM_DROP_NO_SESSION, 1);
	send_from(peer_fd, &(struct packet){.b = {SM_PACKET_DATA}, .len = 60});
	node_wait_drop(&node, SM_DROP_UNKNOWN_SESSION, 1);
	node.tx = NULL;
	node_publish(&node);
	tap_put(node.tap[0], buf, 100);
	node_wait_drop(&node, SM_DROP_NO_SESSION, 2);
	expect_nothing_but_sentinels();
	/* Stopped and started again, it goes on. */
	sm_plane_stop(node.plane);
	assert_int_equal(sm_plane_start(node.plane), 0);
	expect_nothing_but_sentinels();
	(void)teardown(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_flipped, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_truncated, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_replayed, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_out_of_place, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_padded_probe, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_large_batch, setup_not_started, teardown),
		cmocka_unit_test_setup_teardown(test_unfinished_parts, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_address, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_epoch_events, setup_one, teardown),
		cmocka_unit_test(test_sending_limit),
		cmocka_unit_test(test_sending_worn),
		cmocka_unit_test_setup_teardown(test_full_event_ring, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_tap_gone, setup_two, teardown),
		cmocka_unit_test(test_refused_port),
		cmocka_unit_test(test_too_big_for_the_kernel),
		cmocka_unit_test_setup_teardown(test_control_send, setup_one, teardown),
		cmocka_unit_test(test_no_session),
	};

	if (sm_crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Super-frames from TAP to TAP: whatever the two ends can do and whatever is lost between them, what the
 * receiving kernel makes of it are the segments that the sending one meant, each once, in order, whole.
 *
 *   test -- tap == plane A ==== UDP, or the relay of the test ==== plane B == tap -- test
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "io/udp.h"
#include "planes.h"
#include "rng.h"
#include "taken.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define TAP        SM_MODE_TAP
#define TCP        SM_PROTO_TCP
#define UDP        SM_PROTO_UDP
#define SUPERS_MAX 64u
#define SEGMENTS   2048u
#define OVERHEAD   (20u + 8u + SM_DATA_OVERHEAD)
#define RETRY_US   (60 * SM_SEC_US)

static const uint8_t stamp[] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};
#define STAMP .options = stamp, .options_len = sizeof(stamp)

static const struct planes_offload all = {.tso = true, .uso = true, .batches = true, .gro = true};
static const struct planes_offload tcp_only = {.tso = true, .batches = true, .gro = true};
static const struct planes_offload single = {.tso = true, .uso = true};
static const struct planes_offload none;

static struct node a, b;
static uint8_t payload[65536], buf[TAKEN_LEN_MAX], datagrams[1 << 20];

/* --- what the system may refuse --- */

static _Atomic int writev_error, segment_error;
static _Atomic uint32_t writev_refused, segment_refused;
static _Atomic uint64_t clock_ahead_us;

ssize_t __real_writev(int fd, const struct iovec *views, int n);
ssize_t __wrap_writev(int fd, const struct iovec *views, int n);
int __real_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags);
uint64_t __real_sm_clock_now_us(void);
uint64_t __wrap_sm_clock_now_us(void);

/* A TAP that takes no super-frames */
ssize_t __wrap_writev(int fd, const struct iovec *views, int n)
{
	int error = atomic_load(&writev_error);
	struct sm_vnet vnet;

	if (error && n > 0 && views[0].iov_len == SM_VNET_HDR_LEN) {
		sm_vnet_decode(views[0].iov_base, &vnet);
		if (vnet.gso_type != SM_VNET_GSO_NONE) {
			atomic_fetch_add(&writev_refused, 1);
			errno = error;
			return -1;
		}
	}
	return __real_writev(fd, views, n);
}

/* A card that does not cut: fails at the first message with UDP_SEGMENT, as the kernel does */
int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	int error = atomic_load(&segment_error);
	unsigned good = 0;

	while (error && good < n && msgs[good].msg_hdr.msg_controllen == 0)
		good++;
	if (!error || good > 0)
		return __real_sendmmsg(fd, msgs, error ? good : n, flags);
	atomic_fetch_add(&segment_refused, 1);
	errno = error;
	return -1;
}

uint64_t __wrap_sm_clock_now_us(void)
{
	return __real_sm_clock_now_us() + atomic_load(&clock_ahead_us);
}

/* --- super-frames that are sent, segments that are expected --- */

/**
 * struct given - A super-frame of @len bytes of payload, or a lone frame with an unfinished checksum
 * @gso_size: 0: a lone frame
 */
struct given {
	struct shape shape;
	uint32_t gso_size, len;
};

/**
 * struct expected - The segments of one flow in their order
 * @copies: how often each comes (a flood)
 * @gaps:   some may be lost
 */
struct expected {
	struct segment {
		uint8_t *frame;
		uint32_t len, seen, ipv4; /* @ipv4: where its header is, 0: it has none */
	} segment[SEGMENTS];
	uint32_t count, next, copies;
	bool gaps;
};

static struct expected expected;
static uint64_t destination;

static void set_macs(uint8_t *frame)
{
	uint8_t *p = frame_put(frame, (uint32_t)(destination >> 32), 2);

	p = frame_put(p, (uint32_t)destination, 4);
	p = frame_put(p, (uint32_t)(OWN_MAC(0) >> 32), 2);
	(void)frame_put(p, (uint32_t)OWN_MAC(0), 4);
}

static void expect(const struct given *g, uint32_t piece)
{
	uint32_t at = 0, index = 0;

	do {
		uint32_t len = SM_MIN(piece, g->len - at);
		struct segment *s = &expected.segment[expected.count++];

		assert_true(expected.count <= SEGMENTS);
		s->seen = 0;
		s->ipv4 = g->shape.version == 4 ? shape_l3(&g->shape) : 0;
		s->frame = malloc(FRAME_HEADERS_MAX + len);
		assert_non_null(s->frame);
		s->len = frame_segment(&g->shape, payload, at, len, g->len, index++, s->frame);
		set_macs(s->frame);
		at += len;
	} while (at < g->len);
}

static void forget(void)
{
	for (uint32_t i = 0; i < expected.count; i++)
		free(expected.segment[i].frame);
	expected.count = expected.next = 0;
}

static void put(const struct given *g, int fd)
{
	const struct sm_vnet vnet = frame_vnet(&g->shape, g->gso_size);
	uint32_t len = frame_build(&g->shape, payload, g->len, false, buf);

	set_macs(buf);
	tap_put_vnet(fd, &vnet, buf, len);
}

/*
 * Copies of a datagram that come one behind another are joined as any, and numbered anew: the identification
 * of one with DF says nothing (RFC 6864).
 */
static bool is_same(const struct segment *s, const uint8_t *frame, uint32_t len)
{
	const uint8_t *want = s->frame;
	uint32_t at = s->ipv4;

	if (s->len != len || expected.copies == 1 || at == 0)
		return s->len == len && memcmp(want, frame, len) == 0;
	return memcmp(want, frame, at + 4) == 0 && memcmp(want + at + 6, frame + at + 6, 4) == 0 &&
	       memcmp(want + at + 12, frame + at + 12, len - at - 12) == 0;
}

/* One frame as the stack sees it */
static void on_segment(void *arg, const uint8_t *frame, uint32_t len)
{
	uint32_t i = expected.copies > 1 ? 0 : expected.next;

	(void)arg;
	for (; i < expected.count; i++) {
		struct segment *s = &expected.segment[i];

		if (s->seen < expected.copies && is_same(s, frame, len))
			break;
		if (!expected.gaps && expected.copies == 1)
			fail_msg("segment %u of %u is another one, or not the next", i,
				 expected.count);
	}
	if (i == expected.count)
		fail_msg(
			"a segment that was not sent, came twice or out of order, after %u: %u bytes",
			expected.next, len);
	expected.segment[i].seen++;
	expected.next = i + 1;
}

static uint32_t seen(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < expected.count; i++)
		n += expected.segment[i].seen;
	return n;
}

/* Return: true if a frame came from one of B's queues and was looked at */
static bool take(int timeout_ms, uint32_t frame_max)
{
	for (uint32_t q = 0; q < b.workers; q++) {
		struct sm_vnet vnet;
		uint32_t len = tap_get_vnet(b.tap[q], &vnet, buf, sizeof(buf),
					    b.workers == 1 ? timeout_ms : 0);
		const char *problem;

		if (len == 0)
			continue;
		problem = taken_problem(TAP, &vnet, buf, len, frame_max, on_segment, NULL);
		if (problem)
			fail_msg(
				"a kernel would not take it: %s (%u bytes, flags %#x, gso_type %#x, "
				"gso_size %u, hdr_len %u, csum at %u + %u)",
				problem, len, vnet.flags, vnet.gso_type, vnet.gso_size,
				vnet.hdr_len, vnet.csum_start, vnet.csum_offset);
		return true;
	}
	if (b.workers > 1 && timeout_ms > 0)
		(void)poll(NULL, 0, 1);
	return false;
}

/* Return: frames that were written to the TAP until all had come */
static uint32_t take_all(uint32_t frame_max)
{
	uint64_t since_us = __real_sm_clock_now_us();
	uint32_t writes = 0;

	while (seen() < expected.count * expected.copies) {
		writes += take(100, frame_max);
		if (__real_sm_clock_now_us() - since_us > 10 * SM_SEC_US)
			fail_msg("%u of %u segments came", seen(),
				 expected.count * expected.copies);
	}
	assert_false(take(0, frame_max));
	return writes;
}

static void no_drops(const struct node *n)
{
	for (uint32_t why = 0; why < SM_DROP_COUNT; why++)
		assert_int_equal(node_drops(n, why), 0);
}

static void begin(uint32_t workers, uint32_t frame_max, const struct planes_offload *of_a,
		  const struct planes_offload *of_b)
{
	planes_join_offload(&a, &b, workers, frame_max, of_a, of_b);
	expected = (struct expected){.copies = 1};
	destination = OWN_MAC(1);
	atomic_store(&writev_error, 0);
	atomic_store(&segment_error, 0);
	atomic_store(&writev_refused, 0);
	atomic_store(&segment_refused, 0);
	atomic_store(&clock_ahead_us, 0);
}

static void start(void)
{
	node_start(&a);
	node_start(&b);
}

static void end(void)
{
	forget();
	planes_part(&a, &b);
}

/* --- every kind, every ability --- */

/* @mtu: of the path; @piece: payload of each segment if it travels as chunks, else gso_size */
static const struct {
	struct given g;
	uint32_t mtu, piece;
} kinds[] = {
	{{{TAP, 0, 4, TCP, 0, STAMP, 1000, 7, 0, 0x18}, 1448, 64000}, 1600, 1448},
	{{{TAP, 0, 4, TCP, 0, STAMP, 0xfffff000, 0xfff0, 0, 0x19}, 1448, 65483}, 1600, 1448},
	{{{TAP, 0, 4, TCP, 0, NULL, 0, 1, 9, 0, 0x10}, 536, 5000}, 1500, 536},
	{{{TAP, 1, 4, TCP, 0, STAMP, 5, 9, 0, 0x98}, 1448, 20000}, 1600, 1448},
	{{{TAP, 2, 6, TCP, 0, STAMP, 5, 9, 0, 0x18}, 1428, 60001}, 1600, 1428},
	{{{TAP, 0, 6, TCP, 0, STAMP, 5, 9, 0, 0xd1}, 1428, 2857}, 1600, 1428},
	{{{TAP, 0, 6, TCP, 2, NULL, 0, 5, 9, 0, 0x18}, 1000, 9999}, 1600, 1000},
	{{{TAP, 0, 4, TCP, 3, STAMP, 5, 9, 0, 0x18}, 1400, 30000}, 1600, 1400},
	/* the path carries less than a segment */
	{{{TAP, 0, 4, TCP, 0, STAMP, 5, 9, 0, 0x99}, 1448, 50000},
	 1300,
	 1300 - OVERHEAD - SM_CHUNK_LEN - 66},
	{{{TAP, 1, 6, TCP, 0, STAMP, 5, 9, 0, 0x18}, 1400, 3000},
	 700,
	 700 - OVERHEAD - SM_CHUNK_LEN - 90},
	/* UDP's datagrams have edges */
	{{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 1472, 60000}, 1600, 1472},
	{{{TAP, 1, 6, UDP, 0, NULL, 0, 0, 9, 0, 0}, 1200, 64 * 1000}, 1600, 1200},
	{{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 100, 64 * 100}, 1600, 100},
	{{{TAP, 0, 6, UDP, 0, NULL, 0, 0, 9, 0, 0}, 1452, 50000}, 1300, 1452},
	/* lone frames, of which only the checksum is open; the last ones do not fit the path */
	{{{TAP, 0, 4, TCP, 0, STAMP, 5, 9, 0, 0x18}, 0, 1448}, 1600, 1448},
	{{{TAP, 1, 6, TCP, 0, NULL, 0, 5, 9, 0, 0x11}, 0, 0}, 1600, 1},
	{{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 0, 1}, 1600, 1},
	{{{TAP, 2, 6, UDP, 1, NULL, 0, 0, 9, 0, 0}, 0, 333}, 1600, 333},
	{{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 0, 1472}, 1400, 1472},
	{{{TAP, 0, 6, TCP, 0, NULL, 0, 5, 9, 0, 0x18}, 0, 1400}, 600, 1400},
};

static const struct {
	const char *name;
	const struct planes_offload *a, *b;
	bool chunks;
} abilities[] = {
	{"all", &all, &all, true},
	{"no datagram joined", &single, &single, true},
	{"B's TAP takes none", &all, &none, true},
	{"B's TAP takes TCP", &all, &tcp_only, true},
	{"B takes no chunks", &all, &all, false},
	{"B takes nothing", &all, &none, false},
	{"A joins none", &single, &all, true},
};

static void test_every_kind(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(abilities); i++) {
		begin(1, 1600, abilities[i].a, abilities[i].b);
		if (!abilities[i].chunks)
			a.chunk_ports = 0;
		start();
		for (size_t k = 0; k < SM_ARRAY_SIZE(kinds); k++) {
			const struct given *g = &kinds[k].g;
			uint32_t piece = kinds[k].piece;

			if (!abilities[i].chunks && g->gso_size > 0)
				piece = g->gso_size;
			print_message("%s, kind %zu\n", abilities[i].name, k);
			a.path_mtu = kinds[k].mtu;
			node_publish(&a);
			expect(g, piece);
			put(g, a.tap[0]);
			(void)take_all(1600);
			forget();
		}
		no_drops(&a);
		no_drops(&b);
		end();
	}
}

/* Segments of a jumbo card, over paths that carry them, or less, or far less */
static void test_jumbo(void **state)
{
	static const struct given jumbo[] = {
		{{TAP, 0, 4, TCP, 0, STAMP, 1, 7, 0, 0x18}, 8948, 65000},
		{{TAP, 2, 6, TCP, 0, STAMP, 1, 7, 0, 0x19}, 8928, 60000},
		{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 7, 0, 0}, 8972, 65000},
		{{TAP, 1, 6, UDP, 0, NULL, 0, 0, 7, 0, 0}, 0, 8952},
	};
	static const uint32_t paths[] = {65535, 9300, 4000, 1500, 600};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(paths) * SM_ARRAY_SIZE(jumbo); i++) {
		const struct given *g = &jumbo[i % SM_ARRAY_SIZE(jumbo)];
		uint32_t mtu = paths[i / SM_ARRAY_SIZE(jumbo)], piece = g->gso_size;
		uint32_t headers = OVERHEAD + SM_CHUNK_LEN + shape_headers(&g->shape);

		print_message("jumbo %zu, path %u\n", i % SM_ARRAY_SIZE(jumbo), mtu);
		begin(1, 9022, &all, i % 2 ? &all : &none);
		a.path_mtu = mtu;
		start();
		if (g->shape.proto == TCP)
			piece = SM_MIN(piece, mtu - headers);
		expect(g, piece > 0 ? piece : g->len);
		put(g, a.tap[0]);
		(void)take_all(9022);
		no_drops(&a);
		no_drops(&b);
		end();
	}
}

/* As few writes as there are messages: that is what it is for. */
static void test_joined(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1448, 64000};
	struct sm_plane_counters ca, cb;
	struct sm_port_counters port;

	(void)state;
	begin(1, 1600, &all, &all);
	a.path_mtu = 1600;
	start();
	for (uint32_t i = 0; i < 20; i++) {
		expect(&g, 1448);
		put(&g, a.tap[0]);
		assert_in_range(take_all(1600), 1, 3);
		forget();
	}
	sm_plane_counters(a.plane, &ca);
	sm_plane_counters(b.plane, &cb);
	assert_int_equal(ca.tap_read_frames, 20);
	assert_int_equal(ca.udp_send_packets, 20 * 45);
	assert_int_equal(cb.udp_receive_packets, 20 * 45);
	assert_in_range(cb.tap_write_frames, 20, 60);
	assert_int_equal(ca.offload_faults + cb.offload_faults, 0);
	/* Counted as what they are to others: frames */
	sm_plane_port_counters(a.plane, 1, &port);
	assert_int_equal(port.tx_frames, 20 * 45);
	assert_int_equal(port.tx_bytes, 20 * (64000 + 45 * 66));
	sm_plane_port_counters(b.plane, 1, &port);
	assert_int_equal(port.rx_frames, 20 * 45);
	assert_int_equal(port.rx_bytes, 20 * (64000 + 45 * 66));
	end();
}

/* Plain frames of one flow that come in one batch are joined, too, and what a batch has besides stays. */
static void test_plain_frames(void **state)
{
	const struct given g = {{TAP, 0, 6, TCP, 0, STAMP, 1, 2, 0, 0x10}, 1400, 40 * 1400};

	(void)state;
	begin(1, 1600, &all, &all);
	start();
	for (uint32_t round = 0; round < 20; round++) {
		expect(&g, 1400);
		for (uint32_t i = 0; i < expected.count; i++)
			tap_put(a.tap[0], expected.segment[i].frame, expected.segment[i].len);
		(void)take_all(1600);
		forget();
	}
	no_drops(&a);
	no_drops(&b);
	end();
}

/* --- to several members --- */

static void flood(const struct given *g, uint32_t mtu, uint64_t chunk_ports, uint32_t piece)
{
	print_message("protocol %u, gso_size %u, path %u, chunks to %#llx\n", g->shape.proto,
		      g->gso_size, mtu, (unsigned long long)chunk_ports);
	begin(1, 1600, &all, &all);
	destination = UINT64_C(0xffffffffffff);
	a.members = expected.copies = 5;
	a.path_mtu = mtu;
	a.chunk_ports = chunk_ports;
	start();
	for (uint32_t i = 0; i < 3; i++) {
		expect(g, piece);
		put(g, a.tap[0]);
		(void)take_all(1600);
		forget();
	}
	no_drops(&a);
	no_drops(&b);
	end();
}

static void test_flood(void **state)
{
	const struct given tcp = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 60000};
	const struct given udp = {{TAP, 1, 6, UDP, 0, NULL, 0, 0, 2, 0, 0}, 1300, 20000};
	const struct given lone = {{TAP, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0}, 0, 1472};

	(void)state;
	flood(&tcp, 1600, UINT64_MAX, 1400);
	flood(&udp, 1600, UINT64_MAX, 1300);
	flood(&lone, 1600, UINT64_MAX, 1472);
	/* some take chunks, some segments */
	flood(&tcp, 1600, 0x14, 1400);
	flood(&udp, 1600, 0x2a, 1300);
	flood(&lone, 1600, 0x12, 1472);
	/* and what goes in parts */
	flood(&udp, 900, 0x2a, 1300);
	flood(&udp, 900, UINT64_MAX, 1300);
	flood(&lone, 500, UINT64_MAX, 1472);
	flood(&lone, 500, 0x12, 1472);
	flood(&tcp, 700, 0, 1400);
}

/* More than a turn may seal: every member gets every super-frame all the same. */
static void test_flood_over_turns(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 63000};
	uint64_t since_us = __real_sm_clock_now_us();
	struct sm_plane_counters c;

	(void)state;
	begin(1, 1600, &all, &none);
	destination = UINT64_C(0xffffffffffff);
	a.members = 50;
	for (uint32_t i = 0; i < 10; i++)
		put(&g, a.tap[0]);
	node_start(&a);
	do {
		sm_plane_counters(a.plane, &c);
		assert_true(__real_sm_clock_now_us() - since_us < 10 * SM_SEC_US);
	} while (c.udp_send_packets + c.drops[SM_DROP_SEND] < 10 * 50 * 45);
	assert_int_equal(c.udp_send_packets, 10 * 50 * 45);
	for (sm_port_t port = 1; port <= a.members; port++) {
		struct sm_port_counters p;

		sm_plane_port_counters(a.plane, port, &p);
		assert_int_equal(p.tx_frames, 10 * 45);
		assert_int_equal(p.tx_bytes, 10 * (63000 + 45 * 66));
	}
	end();
}

/* --- a wire that loses --- */

static struct sm_addr relay_addr;
static int relay_fd;

/* Everything from A goes by the test. */
static void relay_begin(void)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool mapped;

	assert_int_equal(sm_addr_parse("127.0.0.1", 0, &relay_addr), 0);
	relay_fd = sm_udp_open(&relay_addr, 0, false, 4u << 20, &mapped);
	assert_true(relay_fd >= 0);
	assert_int_equal(getsockname(relay_fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, &relay_addr), 0);
	a.remote = relay_addr;
}

/* Return: length of the next datagram from A; fails when none comes */
static uint32_t relay_take(uint8_t *data, uint32_t room)
{
	struct sm_udp_message msg = {.data = data, .room = room};

	assert_int_equal(poll(&(struct pollfd){.fd = relay_fd, .events = POLLIN}, 1, 10000), 1);
	assert_int_equal(sm_udp_receive(relay_fd, &msg, 1), 1);
	assert_true(msg.len > 0);
	return msg.len;
}

/* @segment: several datagrams of that size at once */
static void relay_send(uint8_t *data, uint32_t len, uint32_t segment)
{
	struct sm_udp_message msg = {.peer = b.addr, .data = data, .len = len, .segment = segment};
	int err;

	assert_int_equal(sm_udp_send(relay_fd, false, &msg, 1, &err), 1);
}

static void lossy(const struct given *g, uint32_t count, uint64_t lost, bool joined)
{
	uint32_t sent = 0, at = 0, size = 0;

	expect(g, g->gso_size);
	assert_int_equal(expected.count, count);
	put(g, a.tap[0]);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t len = relay_take(datagrams + at, 4096);

		if (lost >> i & 1) {
			expected.segment[i].seen = 1;
			continue;
		}
		sent++;
		size = size == 0 ? len : size;
		if (!joined) {
			relay_send(datagrams + at, len, 0);
			continue;
		}
		at += len;
		if (len < size || i + 1 == count) {
			relay_send(datagrams, at, size);
			at = 0;
		}
	}
	if (at > 0)
		relay_send(datagrams, at, size);
	expected.gaps = true;
	(void)take_all(1600);
	assert_true(sent < count || lost == 0);
	forget();
}

static void lose_all_ways(const struct planes_offload *of, bool joined)
{
	static const struct given six[] = {
		{{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x99}, 1400, 6 * 1400 - 9},
		{{TAP, 1, 6, TCP, 0, STAMP, 1, 2, 0, 0x19}, 1300, 6 * 1300 - 1},
		{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0}, 1000, 6 * 1000 - 500},
	};
	const struct given big = {{TAP, 0, 4, TCP, 0, STAMP, 9, 2, 0, 0x18}, 1400, 45 * 1400};
	struct rng rng = rng_init("lossy");

	begin(1, 1600, &all, of);
	relay_begin();
	a.path_mtu = 1600;
	start();
	for (size_t i = 0; i < SM_ARRAY_SIZE(six); i++) {
		for (uint64_t lost = 0; lost < 64; lost++)
			lossy(&six[i], 6, lost, joined);
	}
	for (uint32_t i = 0; i < 50; i++)
		lossy(&big, 45, rng_u64(&rng) & rng_u64(&rng) & ((UINT64_C(1) << 45) - 1), joined);
	no_drops(&b);
	close(relay_fd);
	end();
}

static void test_lost_in_the_middle(void **state)
{
	(void)state;
	lose_all_ways(&all, true);
	lose_all_ways(&all, false);
	lose_all_ways(&none, true);
}

/* Chunks twice, and a forged one in between: the super-frame is whole all the same. */
static void test_forged_between(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 5 * 1400};
	uint32_t len, size = 0, at = 0;

	(void)state;
	begin(1, 1600, &all, &all);
	relay_begin();
	start();
	expect(&g, 1400);
	put(&g, a.tap[0]);
	for (uint32_t i = 0; i < 5; i++) {
		uint8_t *first = datagrams + at;

		len = relay_take(first, 4096);
		size = len;
		/* It says to be the next one, and is not. */
		memcpy(first + len, first, len);
		first[len - 1] ^= 1;
		at += 2 * len;
		memcpy(datagrams + at, first + len, len);
		at += len;
	}
	relay_send(datagrams, at, size);
	(void)take_all(1600);
	node_wait_drop(&b, SM_DROP_FORGED, 5);
	node_wait_drop(&b, SM_DROP_REPLAYED, 5);
	assert_int_equal(node_drops(&b, SM_DROP_MALFORMED), 0);
	close(relay_fd);
	end();
}

/* --- a peer that is not one of ours --- */

/* Seals one content of A's under the next number of its first lane; Return: bytes at @out */
static uint32_t craft(uint8_t *content, uint32_t len, uint8_t kind, uint8_t *out)
{
	struct sm_tx_lane *lane = &a.tx->tx[1];
	uint64_t number;

	content[len++] = kind;
	assert_int_equal(sm_tx_lane_reserve(lane, 1, 1, &number), 0);
	assert_int_equal(sm_tx_lane_seal_to(lane, number, content, len, out), 0);
	return SM_DATA_HEADER_LEN + len + SM_TAG_LEN;
}

/* Chunk @index of @count, or all of a lone frame */
static uint32_t craft_chunk(const struct given *g, uint32_t index, uint32_t count, uint8_t *out)
{
	struct sm_chunk chunk = {.index = (uint16_t)index, .count = (uint16_t)count};
	static uint8_t frame[66000], content[4096];
	uint32_t headers = shape_headers(&g->shape), len;

	(void)frame_build(&g->shape, payload, g->len, false, frame);
	set_macs(frame);
	if (g->gso_size == 0) {
		len = headers + g->len;
		memcpy(content, frame, len);
	} else {
		uint32_t at = index * g->gso_size;

		len = SM_MIN(g->gso_size, g->len - at);
		memcpy(content, payload + at, len);
		memcpy(content + len, frame, headers);
		len += headers;
		chunk.gso_size = (uint16_t)g->gso_size;
		chunk.header_len = (uint8_t)headers;
	}
	sm_chunk_encode(&chunk, content + len);
	return craft(content, len + SM_CHUNK_LEN, SM_KIND_CHUNK, out);
}

/* Two chunks of three; under the number of the third comes something else. All of it arrives, in order. */
static void test_something_else(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, 0x18}, 1000, 3000};
	const struct given others[] = {
		{{TAP, 0, 4, TCP, 0, NULL, 0, 2001, 4, 0, 0x18}, 0, 900}, /* a lone frame */
		{{TAP, 0, 4, TCP, 0, NULL, 0, 2001, 4, 0, 0x10},
		 1000,
		 2000},                                                    /* another super-frame */
		{{TAP, 0, 4, TCP, 0, NULL, 0, 2001, 4, 0, 0x18}, 1, 1000}, /* a plain frame */
	};

	(void)state;
	begin(1, 1600, &all, &all);
	relay_begin();
	node_start(&b);
	for (size_t i = 0; i < SM_ARRAY_SIZE(others); i++) {
		const struct given *other = &others[i];
		bool super = other->gso_size > 1, plain = other->gso_size == 1;
		uint32_t at = 0, size = 0;

		expect(&g, 1000);
		free(expected.segment[--expected.count].frame);
		expect(other, 1000);
		for (uint32_t k = 0; k < 2; k++) {
			size = craft_chunk(&g, k, 3, datagrams + at);
			at += size;
		}
		if (plain) {
			uint8_t content[2000];

			memcpy(content, expected.segment[2].frame, expected.segment[2].len);
			at += craft(content, expected.segment[2].len, SM_KIND_FRAME,
				    datagrams + at);
		}
		for (uint32_t k = 0; !plain && k < (super ? 2 : 1); k++)
			at += craft_chunk(other, k, super ? 2 : 1, datagrams + at);
		relay_send(datagrams, at, size);
		(void)take_all(1600);
		forget();
	}
	no_drops(&b);
	close(relay_fd);
	end();
}

/* Chunks with the numbers of a super-frame that are of another one, or of another place */
static void test_wrong_successor(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, 0x18}, 1000, 4000};
	const struct given near[] = {
		{{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, 0x18}, 1000, 4000},    /* the same: index */
		{{TAP, 0, 4, TCP, 0, NULL, 0, 7777, 2, 0, 0x18}, 1000, 4000}, /* template */
		{{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, 0x18}, 1000, 5000},    /* count */
	};

	(void)state;
	begin(1, 1600, &all, &all);
	relay_begin();
	node_start(&b);
	for (size_t i = 0; i < SM_ARRAY_SIZE(near); i++) {
		uint32_t at = 0, size = 0, index = i == 0 ? 3 : 2;
		struct segment other;

		expect(&g, 1000);
		for (uint32_t k = 2; k < 4; k++)
			free(expected.segment[k].frame);
		expected.count = 2;
		expect(&near[i], 1000);
		other = expected.segment[2 + index];
		for (uint32_t k = 2; k < expected.count; k++) {
			if (k != 2 + index)
				free(expected.segment[k].frame);
		}
		expected.segment[2] = other;
		expected.count = 3;
		for (uint32_t k = 0; k < 2; k++) {
			size = craft_chunk(&g, k, 4, datagrams + at);
			at += size;
		}
		at += craft_chunk(&near[i], index, near[i].len / 1000, datagrams + at);
		relay_send(datagrams, at, size);
		(void)take_all(1600);
		forget();
	}
	no_drops(&b);
	close(relay_fd);
	end();
}

/* --- a message that several workers share --- */

/* One message with datagrams of both lanes in any order: none is lost, none overtakes in its lane. */
static void test_mixed_lanes(void **state)
{
	const struct given g[] = {
		{{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1000, 20 * 1000},
		{{TAP, 0, 4, TCP, 0, STAMP, 0x40000000, 0x8000, 0, 0x18}, 1000, 20 * 1000},
	};
	struct rng rng = rng_init("mixed");
	struct sm_plane_counters c;

	(void)state;
	begin(2, 1600, &all, &all);
	relay_begin();
	start();
	for (uint32_t round = 0; round < 100; round++) {
		static uint8_t lane[2][32 * 2048];
		uint32_t count[2] = {0}, taken[2] = {0}, size = 0, at = 0;

		expect(&g[0], 1000);
		expect(&g[1], 1000);
		put(&g[0], a.tap[0]);
		put(&g[1], a.tap[1]);
		for (uint32_t i = 0; i < 40; i++) {
			size = relay_take(datagrams, 4096);
			at = datagrams[SM_DATA_LANE_AT] & ~SM_LANE_EXPRESS;
			assert_in_range(at, 1, 2);
			at--;
			memcpy(lane[at] + count[at]++ * size, datagrams, size);
		}
		at = 0;
		while (taken[0] + taken[1] < 40) {
			uint32_t which = rng_below(&rng, 2);

			which = taken[which] == count[which] ? 1 - which : which;
			memcpy(datagrams + at, lane[which] + taken[which]++ * size, size);
			at += size;
		}
		relay_send(datagrams, at, size);
		/* The two flows may come in either order, each in its own. */
		expected.copies = 1;
		expected.gaps = true;
		while (seen() < expected.count) {
			expected.next = 0;
			(void)take(100, 1600);
		}
		forget();
	}
	sm_plane_counters(b.plane, &c);
	assert_true(c.handed_over >= 100 * 20);
	no_drops(&b);
	close(relay_fd);
	end();
}

/* --- refusals --- */

static uint32_t wait_offload(struct node *n, uint32_t from, bool writing, int err)
{
	const struct sm_plane_event *event = node_wait_event(n, SM_EVENT_OFFLOAD, from);

	assert_int_equal(event->writing, writing);
	assert_int_equal(event->err, err);
	assert_int_equal(event->port, writing ? SM_PORT_LOCAL : 1);
	return (uint32_t)(event - n->events) + 1;
}

static void send_some(const struct given *g, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		expect(g, g->gso_size);
		put(g, a.tap[0]);
		(void)take_all(1600);
		forget();
	}
}

/* The TAP says EINVAL: software does it, nothing is lost, a minute later the TAP is asked again. */
static void test_tap_refuses(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 60000};
	struct sm_plane_counters c;
	uint32_t from;

	(void)state;
	begin(1, 1600, &all, &all);
	start();
	send_some(&g, 3);
	assert_int_equal(sm_plane_write_fault(b.plane), 0);
	atomic_store(&writev_error, EINVAL);
	send_some(&g, 5);
	from = wait_offload(&b, 0, true, EINVAL);
	assert_int_equal(sm_plane_write_fault(b.plane), EINVAL);
	assert_int_equal(atomic_load(&writev_refused), 1);
	sm_plane_counters(b.plane, &c);
	assert_int_equal(c.offload_faults, 1);
	/* Still refused a minute later: one try, no second word about it */
	atomic_store(&clock_ahead_us, RETRY_US + SM_SEC_US);
	send_some(&g, 5);
	assert_int_equal(atomic_load(&writev_refused), 2);
	assert_int_equal(node_count_events(&b, SM_EVENT_OFFLOAD), 1);
	/* The cause is gone, and a minute over */
	atomic_store(&writev_error, 0);
	send_some(&g, 2);
	assert_int_equal(sm_plane_write_fault(b.plane), EINVAL);
	atomic_store(&clock_ahead_us, 2 * (RETRY_US + SM_SEC_US));
	send_some(&g, 2);
	(void)wait_offload(&b, from, true, 0);
	assert_int_equal(sm_plane_write_fault(b.plane), 0);
	no_drops(&a);
	no_drops(&b);
	end();
}

/* The card says EIO to UDP_SEGMENT: one by one, nothing is lost, a minute later it is asked again. */
static void test_card_refuses(void **state)
{
	static const int errors[] = {EIO, EINVAL, EMSGSIZE};
	const struct given g = {{TAP, 0, 6, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 60000};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(errors); i++) {
		uint32_t from, refused;

		begin(1, 1600, &all, &all);
		start();
		send_some(&g, 3);
		assert_int_equal(sm_plane_offload_fault(a.plane, 1), 0);
		atomic_store(&segment_error, errors[i]);
		send_some(&g, 5);
		from = wait_offload(&a, 0, false, errors[i]);
		assert_int_equal(sm_plane_offload_fault(a.plane, 1), errors[i]);
		/* the first super-frame's messages, and none since then */
		refused = atomic_load(&segment_refused);
		assert_in_range(refused, 1, 3);
		atomic_store(&segment_error, 0);
		send_some(&g, 2);
		assert_int_equal(sm_plane_offload_fault(a.plane, 1), errors[i]);
		atomic_store(&clock_ahead_us, RETRY_US + SM_SEC_US);
		send_some(&g, 2);
		(void)wait_offload(&a, from, false, 0);
		assert_int_equal(sm_plane_offload_fault(a.plane, 1), 0);
		no_drops(&a);
		no_drops(&b);
		end();
	}
}

/* What is lost as a whole is counted in datagrams and in frames, as it would be one by one. */
static void test_lost_as_a_whole(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 40 * 1400};
	struct sm_plane_counters c;
	struct sm_port_counters p;

	(void)state;
	begin(1, 1600, &all, &all);
	start();
	atomic_store(&segment_error, ENOBUFS);
	put(&g, a.tap[0]);
	node_wait_drop(&a, SM_DROP_SEND, 40);
	atomic_store(&segment_error, 0);
	atomic_store(&writev_error, EIO);
	put(&g, a.tap[0]);
	node_wait_drop(&b, SM_DROP_TAP_WRITE, 40);
	sm_plane_stop(a.plane);
	sm_plane_counters(a.plane, &c);
	assert_int_equal(c.drops[SM_DROP_SEND], 40);
	assert_int_equal(c.udp_send_packets, 40);
	sm_plane_port_counters(a.plane, 1, &p);
	assert_int_equal(p.tx_frames, 40);
	assert_int_equal(node_drops(&b, SM_DROP_TAP_WRITE), 40);
	end();
}

/* Really too big for the path: not the card's fault, and told as what it is. */
static void test_too_big(void **state)
{
	const struct given g = {{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400, 6 * 1400};

	(void)state;
	begin(1, 65535, &all, &all);
	a.path_mtu = 200000; /* the loopback's real one is smaller */
	start();
	for (uint32_t i = 0; i < 2; i++) {
		(void)planes_frame(buf, OWN_MAC(1), OWN_MAC(0), i, 65530);
		tap_put(a.tap[0], buf, 65530);
	}
	node_wait_drop(&a, SM_DROP_TOO_BIG, 2);
	(void)node_wait_event(&a, SM_EVENT_PATH_MTU, 0);
	assert_int_equal(sm_plane_offload_fault(a.plane, 1), 0);
	a.path_mtu = 1600;
	node_publish(&a);
	send_some(&g, 2);
	assert_int_equal(node_count_events(&a, SM_EVENT_OFFLOAD), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind),
		cmocka_unit_test(test_jumbo),
		cmocka_unit_test(test_joined),
		cmocka_unit_test(test_plain_frames),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_flood_over_turns),
		cmocka_unit_test(test_lost_in_the_middle),
		cmocka_unit_test(test_forged_between),
		cmocka_unit_test(test_something_else),
		cmocka_unit_test(test_wrong_successor),
		cmocka_unit_test(test_mixed_lanes),
		cmocka_unit_test(test_tap_refuses),
		cmocka_unit_test(test_card_refuses),
		cmocka_unit_test(test_lost_as_a_whole),
		cmocka_unit_test(test_too_big),
	};

	for (uint32_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)((i * 2654435761u) >> 13);
	if (sm_crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

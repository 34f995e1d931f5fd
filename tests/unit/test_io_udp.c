// SPDX-License-Identifier: MIT
/*
 * Batches over loopback: both families, the address that was asked, faults in the middle.
 */
#include "io/udp.h"
#include "netns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFER (4u << 20)
#define COUNT  (2 * SM_UDP_BATCH + 3)

#define ROOM 66000u

static void take(struct sm_udp_message *m)
{
	m->room = ROOM;
	m->data = malloc(ROOM);
	assert_non_null(m->data);
}

static struct sm_addr addr(const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return a;
}

static int open_at(const char *bind_to, bool *ret_mapped, uint16_t *ret_port)
{
	struct sm_addr local = {0}, bound;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int fd;

	if (bind_to)
		local = addr(bind_to);
	fd = sm_udp_open(&local, 0, false, BUFFER, ret_mapped);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, &bound), 0);
	*ret_port = bound.port;
	return fd;
}

static struct sm_udp_message message(struct sm_addr peer, uint8_t fill, uint32_t len)
{
	struct sm_udp_message m = {.peer = peer, .len = len};

	take(&m);
	memset(m.data, fill, len);
	return m;
}

static void put_all(struct sm_udp_message *msgs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(msgs[i].data);
}

/* Fills @msgs with @n datagrams, however many calls that takes. */
static void receive_all(int fd, struct sm_udp_message *msgs, uint32_t n)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (uint32_t i = 0; i < n; i++)
		take(&msgs[i]);
	for (uint32_t done = 0; done < n;) {
		int count;

		assert_int_equal(poll(&p, 1, 5000), 1);
		count = sm_udp_receive(fd, &msgs[done], n - done);
		assert_in_range(count, 1, SM_UDP_BATCH);
		done += (uint32_t)count;
	}
}

static void test_both_families(void **state)
{
	static const struct {
		const char *from, *to, *want_source;
		bool from_mapped;
	} cases[] = {
		{NULL, "127.0.0.1", "127.0.0.1", true},
		{NULL, "127.0.0.77", "127.0.0.1", true},
		{NULL, "::1", "::1", true},
		{"127.0.0.1", "127.0.0.1", "127.0.0.1", false},
		{"127.0.0.5", "127.0.0.1", "127.0.0.5", false},
		{"::1", "::1", "::1", false},
	};
	uint16_t port, from_port;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port);

	(void)state;
	assert_true(mapped);
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		int from = open_at(cases[i].from, &from_mapped, &from_port);
		struct sm_addr peer = addr(cases[i].to), want = addr(cases[i].want_source);
		struct sm_udp_message in, out;
		int err = 1;

		assert_int_equal(from_mapped, cases[i].from_mapped);
		peer.port = port;
		out = message(peer, (uint8_t)i, 100);
		assert_int_equal(sm_udp_send(from, from_mapped, &out, 1, &err), 1);
		assert_int_equal(err, 0);
		receive_all(to, &in, 1);
		want.port = from_port;
		assert_true(sm_addr_equal(&in.peer, &want));
		peer.port = 0;
		assert_true(sm_addr_equal(&in.local, &peer));
		assert_int_equal(in.len, 100);
		assert_memory_equal(in.data, out.data, 100);

		/* And back from the address that was asked. */
		in.data[0]++;
		assert_int_equal(sm_udp_send(to, mapped, &in, 1, &err), 1);
		put_all(&out, 1);
		receive_all(from, &out, 1);
		peer.port = port;
		assert_true(sm_addr_equal(&out.peer, &peer));
		put_all(&in, 1);
		put_all(&out, 1);
		close(from);
	}
	close(to);
}

static void test_many_in_order(void **state)
{
	struct sm_udp_message out[COUNT], in[COUNT];
	uint16_t port, other;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port), from = open_at(NULL, &from_mapped, &other);
	struct sm_addr peers[2] = {addr("127.0.0.1"), addr("::1")};
	int err[COUNT];

	(void)state;
	peers[0].port = peers[1].port = port;
	for (uint32_t i = 0; i < COUNT; i++) {
		out[i] = message(peers[i % 2], (uint8_t)i, 1 + i);
		err[i] = 1;
	}
	assert_int_equal(sm_udp_send(from, from_mapped, out, COUNT, err), COUNT);
	receive_all(to, in, COUNT);
	for (uint32_t i = 0; i < COUNT; i++) {
		assert_int_equal(err[i], 0);
		assert_int_equal(in[i].len, 1 + i);
		assert_memory_equal(in[i].data, out[i].data, 1 + i);
		assert_true(sm_addr_same_ip(&in[i].peer, &peers[i % 2]));
	}
	put_all(in, COUNT);
	put_all(out, COUNT);
	close(to);
	close(from);
}

static void test_one_fault_holds_nobody_up(void **state)
{
	uint16_t port, other;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port), from = open_at(NULL, &from_mapped, &other);
	struct sm_addr peer = addr("127.0.0.1"), nowhere = addr("192.0.2.1"),
		       own = addr("10.9.9.9");
	struct sm_udp_message out[6], in[3];
	static const int want[6] = {0, -EMSGSIZE, 0, -ENETUNREACH, 1, 0};
	int err[6];

	(void)state;
	peer.port = nowhere.port = port;
	for (uint32_t i = 0; i < 6; i++)
		out[i] = message(i == 3 ? nowhere : peer, (uint8_t)i, i == 1 ? 65508 : 10);
	out[4].local = own;
	assert_int_equal(sm_udp_send(from, from_mapped, out, 6, err), 3);
	/* A source that is not ours: kernels differ in the number. */
	assert_true(err[4] == -EINVAL || err[4] == -ENETUNREACH);
	err[4] = 1;
	assert_memory_equal(err, want, sizeof(want));
	receive_all(to, in, 3);
	assert_int_equal(in[0].data[0], 0);
	assert_int_equal(in[1].data[0], 2);
	assert_int_equal(in[2].data[0], 5);
	put_all(in, 3);
	put_all(out, 6);
	close(to);
	close(from);
}

static void test_source_is_chosen(void **state)
{
	uint16_t port, other;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port), from = open_at(NULL, &from_mapped, &other);
	struct sm_addr peer = addr("127.0.0.1"), wrong_family = addr("::1");
	struct sm_udp_message out[2], in[2];
	int err[2];

	(void)state;
	peer.port = port;
	out[0] = message(peer, 0, 10);
	out[0].local = addr("127.9.9.9");
	out[1] = message(peer, 1, 10);
	out[1].local = wrong_family;
	assert_int_equal(sm_udp_send(from, from_mapped, out, 2, err), 2);
	receive_all(to, in, 2);
	assert_true(sm_addr_same_ip(&in[0].peer, &out[0].local));
	assert_true(sm_addr_same_ip(&in[1].peer, &peer));
	put_all(in, 2);
	put_all(out, 2);
	close(to);
	close(from);
}

static void test_largest_and_too_long(void **state)
{
	uint16_t port, other;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port), from = open_at(NULL, &from_mapped, &other);
	struct sm_addr peer = addr("127.0.0.1");
	struct sm_udp_message out[2], in[3];
	struct pollfd p = {.fd = to, .events = POLLIN};
	int err[2];

	(void)state;
	peer.port = port;
	out[0] = message(peer, 7, 65507);
	out[1] = message(peer, 8, 100);
	assert_int_equal(sm_udp_send(from, from_mapped, out, 2, err), 2);
	receive_all(to, in, 2);
	assert_int_equal(in[0].len, 65507);
	put_all(in, 2);

	for (uint32_t i = 0; i < 3; i++) {
		take(&in[i]);
		in[i].room = 1000;
	}
	assert_int_equal(sm_udp_send(from, from_mapped, out, 2, err), 2);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(sm_udp_receive(to, in, 3), 2);
	assert_int_equal(in[0].len, 0);
	assert_int_equal(in[1].len, 100);
	assert_int_equal(in[1].data[99], 8);
	assert_int_equal(sm_udp_receive(to, in, 3), 0);
	put_all(in, 3);
	put_all(out, 2);
	close(to);
	close(from);
}

static void test_options(void **state)
{
	static const char *const bind_to[] = {NULL, "127.0.0.1", "::1"};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bind_to); i++) {
		int value = -1;
		socklen_t len = sizeof(value);
		uint16_t port;
		bool mapped;
		int fd = open_at(bind_to[i], &mapped, &port);

		if (i != 2) {
			assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &value, &len),
					 0);
			assert_int_equal(value, IP_PMTUDISC_PROBE);
		}
		if (i != 1) {
			value = -1;
			assert_int_equal(
				getsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &value, &len), 0);
			assert_int_equal(value, IPV6_PMTUDISC_PROBE);
		}
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &len), 0);
		assert_true(value >= (int)BUFFER);
		close(fd);
	}
}

static void test_port_in_use(void **state)
{
	const struct sm_addr any = {0}, elsewhere = addr("192.0.2.1");
	uint16_t port;
	bool mapped = false;
	int first = open_at(NULL, &mapped, &port), a, b;

	(void)state;
	assert_int_equal(sm_udp_open(&any, port, false, BUFFER, &mapped), -EADDRINUSE);
	assert_int_equal(sm_udp_open(&any, port, true, BUFFER, &mapped), -EADDRINUSE);
	close(first);
	a = sm_udp_open(&any, port, true, BUFFER, &mapped);
	b = sm_udp_open(&any, port, true, BUFFER, &mapped);
	assert_true(a >= 0);
	assert_true(b >= 0);
	close(a);
	close(b);
	assert_int_equal(sm_udp_open(&elsewhere, 0, false, BUFFER, &mapped), -EADDRNOTAVAIL);
}

/* Segments cut by the kernel, put together again on the way, and taken apart here. */
static void test_segments(void **state)
{
	static const struct {
		uint32_t len, segment;
		bool gro;
	} cases[] = {
		{64 * 1000, 1000, true}, {10 * 1200 + 7, 1200, true}, {3 * 1472, 1472, false},
		{1000, 0, true},         {1000, 1000, true},          {5, 9, false},
	};
	uint16_t port, other;
	bool mapped, from_mapped;
	int to = open_at(NULL, &mapped, &port), from = open_at(NULL, &from_mapped, &other);
	struct sm_addr peers[2] = {addr("127.0.0.1"), addr("::1")};

	(void)state;
	for (size_t i = 0; i < 2 * SM_ARRAY_SIZE(cases); i++) {
		uint32_t len = cases[i / 2].len, segment = cases[i / 2].segment, got = 0;
		struct sm_udp_message out = message(peers[i % 2], 0, len), in;
		int err;

		for (uint32_t k = 0; k < len; k++)
			out.data[k] = (uint8_t)(k * 7 + k / 251);
		out.peer.port = port;
		out.segment = segment;
		out.local = peers[i % 2];
		assert_int_equal(sm_udp_set_gro(to, cases[i / 2].gro), 0);
		assert_int_equal(sm_udp_send(from, from_mapped, &out, 1, &err), 1);
		while (got < len) {
			receive_all(to, &in, 1);
			assert_memory_equal(in.data, out.data + got, in.len);
			got += in.len;
			if (segment > 0 && segment < len && in.len > segment)
				assert_int_equal(in.segment, segment);
			else
				assert_true(in.segment == 0 || in.segment >= in.len);
			put_all(&in, 1);
		}
		put_all(&out, 1);
	}
	close(to);
	close(from);
}

/* The lane in the third byte decides which of the sockets gets a datagram: lane 1 the first, express or not. */
static void test_steering(void **state)
{
	const struct sm_addr any = {0};
	struct sm_addr peer = addr("127.0.0.1");
	uint16_t port, other;
	bool mapped, from_mapped;
	int from = open_at(NULL, &from_mapped, &other), probe = open_at(NULL, &mapped, &port);
	int fd[3];

	(void)state;
	close(probe);
	for (size_t i = 0; i < 3; i++) {
		fd[i] = sm_udp_open(&any, port, true, BUFFER, &mapped);
		assert_true(fd[i] >= 0);
	}
	assert_int_equal(sm_udp_steer(fd[0], 3), 0);
	peer.port = port;
	for (uint8_t i = 0; i < 34; i++) {
		struct sm_udp_message out = message(peer, 0, 100), in;
		const uint8_t number = i % 17, lane = number | (i < 17 ? 0 : 0x80);
		int err;

		out.data[2] = lane;
		assert_int_equal(sm_udp_send(from, from_mapped, &out, 1, &err), 1);
		receive_all(fd[(number + 2) % 3], &in, 1);
		assert_int_equal(in.data[2], lane);
		put_all(&in, 1);
		put_all(&out, 1);
	}
	for (size_t i = 0; i < 3; i++)
		close(fd[i]);
	close(from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_families),
		cmocka_unit_test(test_many_in_order),
		cmocka_unit_test(test_one_fault_holds_nobody_up),
		cmocka_unit_test(test_source_is_chosen),
		cmocka_unit_test(test_largest_and_too_long),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_steering),
		cmocka_unit_test(test_port_in_use),
	};
	int failed;

	netns_enter();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	netns_leave();
	return failed;
}

// SPDX-License-Identifier: MIT
/*
 * A node against a peer that the test plays byte by byte: the order of messages, what is refused and with
 * which reason, and that nobody makes it grow.
 */
#include "core/peer.h"
#include "host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct host *node_new(void)
{
	return host_new(1u << SM_CIPHER_AES256GCM);
}

static void feed(struct host *h, uint32_t n, struct sm_link *link, const void *data, size_t len)
{
	assert_ptr_equal(h->conn[n].link, link);
	host_feed(h, n, data, len);
}

static void say(struct host *h, uint32_t n, struct sm_link *link, const struct sm_msg *msg)
{
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	const int len = sm_msg_encode(msg, buf, sizeof(buf));

	assert_true(len > 0);
	feed(h, n, link, buf, (size_t)len);
}

static const struct sm_msg hello = {.type = SM_MSG_HELLO,
				    .hello = {.version = SM_PROTOCOL_VERSION,
					      .mode = SM_MODE_TAP,
					      .ciphers = 1u << SM_CIPHER_AES256GCM,
					      .workers = 1,
					      .data_port = 9443,
					      .mtu = 1500,
					      .session = 77,
					      .instance = 5}};
static const struct sm_msg ready = {.type = SM_MSG_READY};

/* The reason of the CLOSE that the node sent last; SM_CLOSE_NONE if it sent none */
static unsigned close_reason(const struct host_conn *c)
{
	unsigned type, reason = SM_CLOSE_NONE;
	size_t len;

	for (size_t at = 0; at < c->len; at += len) {
		assert_int_equal(sm_msg_peek(c->sent + at, c->len - at, &type, &len), 1);
		if (type == SM_MSG_CLOSE)
			reason = (unsigned)c->sent[at + 4] << 8 | c->sent[at + 5];
	}
	return reason;
}

static const struct {
	const char *name;
	bool dialled;
	unsigned greeting; /* 0 nothing, 1 HELLO, 2 HELLO and READY before it */
	const char *bytes;
	size_t len;
	unsigned reason; /* NONE: the connection stays */
} rows[] = {
#define BYTES(b) b, sizeof(b) - 1
	{"READY first", false, 0, BYTES("\x80\x02\0\0"), SM_CLOSE_PROTOCOL},
	{"READY twice", false, 2, BYTES("\x80\x02\0\0"), SM_CLOSE_PROTOCOL},
	{"PING before HELLO", false, 0, BYTES("\0\x05\0\x08 1234567"), SM_CLOSE_PROTOCOL},
	{"PING", false, 2, BYTES("\0\x05\0\x08 1234567"), SM_CLOSE_NONE},
	{"PONG unasked", false, 2, BYTES("\0\x06\0\x08 1234567"), SM_CLOSE_NONE},
	{"PING too short", false, 2, BYTES("\0\x05\0\x07 123456"), SM_CLOSE_PROTOCOL},
	{"PING too long", false, 2, BYTES("\0\x05\0\x09"), SM_CLOSE_PROTOCOL},
	{"HELLO too long", false, 0, BYTES("\x80\x01\xff\xff"), SM_CLOSE_PROTOCOL},
	{"unknown, critical", false, 2, BYTES("\x81\x23\0\0"), SM_CLOSE_PROTOCOL},
	{"unknown, critical, before HELLO", false, 0, BYTES("\x81\x23\0\0"), SM_CLOSE_PROTOCOL},
	{"unknown, skipped", false, 2, BYTES("\x01\x23\0\x02hi\0\x05\0\x08 1234567"),
	 SM_CLOSE_NONE},
	{"unknown, too long", false, 2, BYTES("\x01\x23\xff\xff"), SM_CLOSE_PROTOCOL},
	{"WANTED from the client", false, 2, BYTES("\0\x09\0\0"), SM_CLOSE_PROTOCOL},
	{"WANTED before READY", true, 1, BYTES("\0\x09\0\0"), SM_CLOSE_PROTOCOL},
	{"WANTED from the server", true, 2, BYTES("\0\x09\0\0"), SM_CLOSE_NONE},
	{"ENDPOINTS with a bad count", false, 2, BYTES("\0\x03\0\x01\xff"), SM_CLOSE_PROTOCOL},
	{"ENDPOINTS, none", false, 2, BYTES("\0\x03\0\x01\0"), SM_CLOSE_NONE},
	{"ENDPOINTS with bytes behind", false, 2, BYTES("\0\x03\0\x02\0\0"), SM_CLOSE_PROTOCOL},
	{"CLOSE with no reason", false, 2, BYTES("\x80\x0a\0\x02\0\0"), SM_CLOSE_PROTOCOL},
	{"half a message", false, 2, BYTES("\0\x05\0\x08 12"), SM_CLOSE_NONE},
#undef BYTES
};

static void test_order(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		for (uint32_t piece = 0; piece < 2; piece++) { /* whole, and byte by byte */
			struct host *h = node_new();
			const struct sm_peer_config config = {.name = "peer"};
			struct sm_link *link;

			assert_int_equal(sm_node_set_peers(h->node, &config, 1, h->now_us), 0);
			link = host_open(h, 0, rows[i].dialled);
			if (rows[i].greeting > 0)
				say(h, 0, link, &hello);
			if (rows[i].greeting > 1)
				say(h, 0, link, &ready);
			assert_int_equal(h->events[SM_NODE_SESSION_UP], rows[i].greeting > 1);
			if (piece)
				for (size_t k = 0; k < rows[i].len; k++)
					feed(h, 0, link, rows[i].bytes + k, 1);
			else
				feed(h, 0, link, rows[i].bytes, rows[i].len);
			if (close_reason(&h->conn[0]) != rows[i].reason)
				printf("%s\n", rows[i].name);
			assert_int_equal(close_reason(&h->conn[0]), rows[i].reason);
			assert_int_equal(h->conn[0].closed, rows[i].reason != SM_CLOSE_NONE);
			if (rows[i].reason) /* nor does its session go on */
				assert_null(sm_node_find_peer(h->node, "peer")->active);
			assert_int_equal(h->events[SM_NODE_PROTOCOL],
					 rows[i].reason == SM_CLOSE_PROTOCOL);
			host_free(h);
		}
	}
}

static void test_hello(void **state)
{
	static const struct {
		uint16_t version;
		uint8_t mode, ciphers;
		unsigned reason;
	} cases[] = {
		{SM_PROTOCOL_VERSION, SM_MODE_TAP, 1, SM_CLOSE_NONE},
		{SM_PROTOCOL_VERSION + 1, SM_MODE_TAP, 1, SM_CLOSE_VERSION},
		{0, SM_MODE_TUN, 2, SM_CLOSE_VERSION},
		{SM_PROTOCOL_VERSION, SM_MODE_TUN, 1, SM_CLOSE_MODE},
		{SM_PROTOCOL_VERSION, SM_MODE_TAP, 2, SM_CLOSE_CIPHER},
		{SM_PROTOCOL_VERSION, SM_MODE_TAP, 0x80, SM_CLOSE_CIPHER},
	};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct host *h = node_new();
		struct sm_msg msg = hello;
		struct sm_link *link = host_open(h, 0, false);

		msg.hello.version = cases[i].version;
		msg.hello.mode = cases[i].mode;
		msg.hello.ciphers = cases[i].ciphers;
		say(h, 0, link, &msg);
		assert_int_equal(close_reason(&h->conn[0]), cases[i].reason);
		say(h, 0, link, &msg); /* twice */
		assert_int_equal(close_reason(&h->conn[0]),
				 cases[i].reason ? cases[i].reason : SM_CLOSE_PROTOCOL);
		host_free(h);
	}
}

static void test_rekey_refused(void **state)
{
	static const enum sm_msg_type types[] = {SM_MSG_REKEY_REPLY, SM_MSG_REKEY_REQUEST};

	(void)state;
	for (uint32_t i = 0; i < 4; i++) { /* by its role, and out of the blue */
		struct host *h = node_new();
		const struct sm_peer_config config = {.name = "peer"};
		struct sm_msg msg = {.type = types[i % 2], .rekey.epoch = 1};
		struct sm_link *link;

		assert_int_equal(sm_node_set_peers(h->node, &config, 1, h->now_us), 0);
		link = host_open(h, 0, i / 2);
		say(h, 0, link, &hello);
		say(h, 0, link, &ready);
		say(h, 0, link, &msg);
		assert_int_equal(close_reason(&h->conn[0]), SM_CLOSE_PROTOCOL);
		assert_null(sm_node_find_peer(h->node, "peer")->active);
		host_free(h);
	}
}

/* In a segment of the control stream, at its beginning; @bytes may be no message at all */
static void stream(struct host *h, uint32_t session, const void *bytes, size_t len)
{
	const struct sm_segment segment = {.data = bytes, .len = len};
	uint8_t body[SM_STREAM_HEADER_LEN + SM_STREAM_SEGMENT_MAX];
	const struct sm_addr from = sm_node_session(h->node, session)->path.remote, to = {0};

	sm_node_on_control_packet(h->node, session, SM_KIND_STREAM, body,
				  sm_segment_encode(&segment, body), &from, &to, h->now_us);
}

/* Packets may come before READY does: what is wrong in them ends the session, once. */
static void test_stream_refused(void **state)
{
	(void)state;
	for (unsigned greeting = 1; greeting <= 2; greeting++) {
		for (uint32_t close = 0; close < 2; close++) {
			static const uint8_t critical[] = {0x81, 0x23, 0, 0},
					     shutdown[] = {0x80, 0x0a, 0, 2, 0, 1};
			struct host *h = node_new();
			struct sm_link *link = host_open(h, 0, false);
			const uint32_t session = link->session->config.index;

			say(h, 0, link, &hello);
			if (greeting > 1)
				say(h, 0, link, &ready);
			if (close)
				stream(h, session, shutdown, sizeof(shutdown));
			else
				stream(h, session, critical, sizeof(critical));
			assert_true(h->conn[0].closed);
			assert_int_equal(close_reason(&h->conn[0]),
					 close ? SM_CLOSE_NONE : SM_CLOSE_PROTOCOL);
			assert_null(sm_node_session(h->node, session));
			host_free(h);
		}
	}
}

/* Heard of all the time, ticking; Return: dials in that time */
static uint32_t live_on(struct host *h, uint32_t n, struct sm_link *link, uint64_t us)
{
	static const struct sm_msg pong = {.type = SM_MSG_PONG};
	const uint64_t until_us = h->now_us + us;
	const uint32_t before = h->dials;

	for (; h->now_us < until_us; h->now_us += SM_SEC_US / 4) {
		h->conn[n].len = 0;
		say(h, n, link, &pong);
		assert_true(sm_node_tick(h->node, h->now_us) > h->now_us);
	}
	assert_false(h->conn[n].closed);
	return h->dials - before;
}

/* A full handshake that is due and fails is tried again, although the old connection still works. */
static void test_renewal_repeated(void **state)
{
	(void)state;
	for (uint32_t fault = 0; fault < 4; fault++) {
		static const struct sm_msg limit = {.type = SM_MSG_CLOSE,
						    .close.reason = SM_CLOSE_LIMIT};
		const struct sm_peer_config config = {.name = "peer"};
		struct host *h = node_new();
		struct sm_msg dialable = hello;
		struct sm_link *old, *fresh;

		dialable.hello.control_port = SM_CONTROL_PORT;
		assert_int_equal(sm_node_set_peers(h->node, &config, 1, h->now_us), 0);
		old = host_open(h, 0, true);
		say(h, 0, old, &dialable);
		say(h, 0, old, &ready);
		h->now_us += SM_FULL_HANDSHAKE_US;
		assert_int_equal(live_on(h, 0, old, 2 * SM_SEC_US), 1);
		if (fault == 3)
			h->id.name[0] = 'q'; /* somebody else answers */
		fresh = host_open(h, 1, true);
		h->id.name[0] = 'p';
		if (fault < 2)
			say(h, 1, fresh, &hello);
		if (fault == 0)
			sm_node_on_link_lost(h->node, fresh, "lost", h->now_us);
		else if (fault == 1)
			say(h, 1, fresh, &limit);
		/* 2: it never says HELLO */
		assert_int_equal(live_on(h, 0, old, 20 * SM_SEC_US), 1);
		fresh = host_open(h, 1, true);
		say(h, 1, fresh, &dialable);
		say(h, 1, fresh, &ready);
		assert_ptr_equal(sm_node_find_peer(h->node, "peer")->live, fresh);
		host_free(h);
	}
}

/* An answer goes to whatever address stands in the packet, so it is never longer than the request. */
static void test_probe_amplifies_nothing(void **state)
{
	static const struct {
		uint8_t family;
		uint32_t len;
		bool answered;
	} cases[] = {
		{4, 9, false},  {4, 15, false}, {4, 16, true}, {6, 16, false},
		{6, 27, false}, {6, 28, true},  {4, 28, true},
	};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		static const uint8_t ip[16] = {0x20, 0x01, 0x0d, 0xb8};
		const uint8_t request[28] = {SM_PROBE_REQUEST, 1, 2, 3, 4, 5, 6, 7, 8};
		const struct sm_addr to = {0};
		struct host *h = node_new();
		struct sm_link *link = host_open(h, 0, false);
		struct sm_addr from;
		uint32_t before;

		say(h, 0, link, &hello);
		say(h, 0, link, &ready);
		before = h->datagrams;
		assert_int_equal(sm_addr_from_ip(cases[i].family, ip, 5, &from), 0);
		sm_node_on_control_packet(h->node, link->session->config.index, SM_KIND_PROBE,
					  request, cases[i].len, &from, &to, h->now_us);
		assert_int_equal(h->datagrams - before, cases[i].answered);
		host_free(h);
	}
}

static void pass_time(struct host *h, uint64_t us)
{
	const uint64_t until_us = h->now_us + us;

	for (; h->now_us < until_us; h->now_us += 10 * SM_MSEC_US)
		assert_true(sm_node_tick(h->node, h->now_us) > h->now_us);
}

/* An address that the peer only claims gets small probes; large ones and batches once it has answered. */
static void test_unproven_address_gets_little(void **state)
{
	struct host *h = node_new();
	struct sm_link *link = host_open(h, 0, false);

	(void)state;
	say(h, 0, link, &hello);
	say(h, 0, link, &ready);
	pass_time(h, 5 * SM_SEC_US);
	assert_in_range(h->datagrams, 1, 20);
	assert_in_range(h->largest, 1, SM_DATA_OVERHEAD + SM_PROBE_LEN_MAX);
	assert_int_equal(h->batches, 0);
	link->session->path.answered_us = h->now_us;
	(void)!sm_path_on_received(&link->session->path, h->now_us);
	pass_time(h, SM_SEC_US);
	assert_true(h->largest > SM_PATH_MTU_MIN);
	assert_true(h->batches > 0);
	host_free(h);
}

/* A look-up that cannot even begin is tried again, and what is known without it is dialled. */
static void test_resolve_fails(void **state)
{
	const struct sm_peer_config config = {.name = "peer", .has_endpoints = true};
	const struct sm_peer *peer;
	struct host *h = node_new();
	struct sm_msg dialable = hello;
	struct sm_link *link;

	(void)state;
	h->resolve_err = -ENOMEM;
	assert_int_equal(sm_node_set_peers(h->node, &config, 1, h->now_us), 0);
	peer = sm_node_find_peer(h->node, "peer");
	pass_time(h, 5 * SM_SEC_US);
	assert_in_range(h->resolves, 4, 20); /* with back-off */
	assert_int_equal(h->dials, 0);
	assert_int_equal(peer->state, SM_PEER_BACKOFF);
	assert_non_null(strstr(peer->last_error, strerror(ENOMEM)));

	dialable.hello.control_port = SM_CONTROL_PORT;
	link = host_open(h, 0, false);
	say(h, 0, link, &dialable);
	say(h, 0, link, &ready);
	sm_node_on_link_lost(h->node, link, "lost", h->now_us);
	pass_time(h, 5 * SM_SEC_US);
	assert_int_equal(h->dials, 1);
	host_free(h);
}

/* Addresses of a session, and those that a configured peer's endpoints were looked up to be */
static void test_remote_is_known(void **state)
{
	const struct sm_peer_config named = {.name = "peer", .has_endpoints = true};
	const struct sm_addr at = host_address(1, 1), elsewhere = host_address(2, 9443);
	const struct sm_endpoint_set none = {0}, looked_up = {.addr = {host_address(2, 8443),
								       host_address(3, 8443)},
							      .count = 2};
	struct host *h = node_new();
	struct sm_link *link = host_open(h, 0, false);
	uint16_t port;

	(void)state;
	assert_false(sm_node_is_known(h->node, &at)); /* whatever the port */
	say(h, 0, link, &hello);
	assert_false(sm_node_is_known(h->node, &at));
	say(h, 0, link, &ready);
	assert_true(sm_node_is_known(h->node, &at));
	assert_false(sm_node_is_known(h->node, &elsewhere));
	host_free(h);

	h = node_new();
	assert_int_equal(sm_node_set_peers(h->node, &named, 1, h->now_us), 0);
	port = sm_node_find_peer(h->node, "peer")->port;
	pass_time(h, SM_SEC_US);
	assert_int_equal(h->resolves, 1);
	assert_false(sm_node_is_known(h->node, &elsewhere));
	sm_node_on_resolved(h->node, port, &looked_up, "", h->now_us);
	assert_true(sm_node_is_known(h->node, &elsewhere));
	assert_false(sm_node_is_known(h->node, &at));
	sm_node_on_dial_failed(h->node, port, SM_CLOSE_NONE, "no answer", h->now_us);
	sm_node_on_dial_failed(h->node, port, SM_CLOSE_NONE, "no answer", h->now_us);
	pass_time(h, SM_SEC_US);
	assert_int_equal(h->resolves, 2); /* a name server that is away changes nothing */
	sm_node_on_resolved(h->node, port, &none, "no server answers", h->now_us);
	assert_true(sm_node_is_known(h->node, &elsewhere));
	assert_int_equal(sm_node_set_peers(h->node, NULL, 0, h->now_us), 0);
	assert_false(sm_node_is_known(h->node, &elsewhere));
	host_free(h);
}

static void test_silent_greeting(void **state)
{
	struct host *h = node_new();

	(void)state;
	assert_non_null(host_open(h, 0, false));
	for (uint64_t us = 0; us < SM_GREETING_US; us += SM_SEC_US) {
		assert_false(h->conn[0].closed);
		h->now_us += SM_SEC_US;
		assert_true(sm_node_tick(h->node, h->now_us) > h->now_us);
	}
	assert_true(h->conn[0].closed);
	assert_int_equal(close_reason(&h->conn[0]), SM_CLOSE_TIMEOUT);
	host_free(h);
}

static uint32_t sessions_of(const struct host *h)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < h->node->session_slots; i++)
		n += h->node->sessions[i] != NULL;
	return n;
}

/* Links opened without end, in any state: their number and that of sessions stay where they were. */
static void test_hostile_member(void **state)
{
	struct host *h = node_new();
	struct sm_link *link[HOST_CONNS] = {NULL};

	(void)state;
	h->rng = rng_init("hostile member");
	for (uint32_t i = 0; i < 20000; i++) {
		const uint32_t n = rng_below(&h->rng, HOST_CONNS);

		h->now_us += rng_below(&h->rng, 100000);
		if (!link[n] || h->conn[n].closed) {
			link[n] = host_open(h, n, rng_below(&h->rng, 2));
		} else {
			switch (rng_below(&h->rng, 4)) {
			case 0:
				say(h, n, link[n], &hello);
				break;
			case 1:
				say(h, n, link[n], &ready);
				break;
			case 2:
				sm_node_on_link_lost(h->node, link[n], "lost", h->now_us);
				link[n] = NULL;
				break;
			case 3:
				h->conn[n].len = 0; /* it reads */
				break;
			}
		}
		if (rng_below(&h->rng, 3) == 0)
			assert_true(sm_node_tick(h->node, h->now_us) > h->now_us);
		assert_true(sessions_of(h) <= SM_PEER_SESSIONS_MAX);
		assert_true(h->node->session_slots <= 16);
	}
	assert_true(h->events[SM_NODE_REFUSED] > 100 && h->events[SM_NODE_SESSION_UP] > 100);
	for (uint32_t i = 0; i < HOST_CONNS; i++)
		if (link[i] && !h->conn[i].closed)
			sm_node_on_link_lost(h->node, link[i], "lost", h->now_us);
	host_free(h);
}

static void test_too_many_peers(void **state)
{
	struct host *h = node_new();
	char name[8];

	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		host_identity(name, &h->id);
		h->conn[0].len = 0;
		struct sm_link *link = host_open(h, 0, false);

		assert_int_equal(link != NULL, i < 16);
		assert_int_equal(close_reason(&h->conn[0]),
				 i < 16 ? SM_CLOSE_NONE : SM_CLOSE_LIMIT);
		if (link)
			sm_node_on_link_lost(h->node, link, "lost", h->now_us);
	}
	host_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_rekey_refused),
		cmocka_unit_test(test_silent_greeting),
		cmocka_unit_test(test_hostile_member),
		cmocka_unit_test(test_too_many_peers),
		cmocka_unit_test(test_stream_refused),
		cmocka_unit_test(test_renewal_repeated),
		cmocka_unit_test(test_probe_amplifies_nothing),
		cmocka_unit_test(test_remote_is_known),
		cmocka_unit_test(test_unproven_address_gets_little),
		cmocka_unit_test(test_resolve_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

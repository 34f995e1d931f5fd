// SPDX-License-Identifier: MIT
/*
 * Control messages: bytes as PROTOCOL.md gives them, contexts, bounds, hostile text, and random
 * messages there and back.
 */
#include "rng.h"
#include "wire/ctrl.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TLS         SM_MSG_CTX_TLS
#define STREAM      SM_MSG_CTX_STREAM
#define SEEN        SM_MSG_CTX_HELLO_SEEN
#define CLIENT      SM_MSG_CTX_FROM_CLIENT
#define MSG_LEN_MAX (SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX)

static const unsigned types[] = {
	SM_MSG_HELLO, SM_MSG_READY,         SM_MSG_ENDPOINTS,   SM_MSG_OBSERVED,     SM_MSG_PING,
	SM_MSG_PONG,  SM_MSG_REKEY_REQUEST, SM_MSG_REKEY_REPLY, SM_MSG_REKEY_WANTED, SM_MSG_CLOSE,
};

/* A context in which @type is allowed */
static unsigned context_for(unsigned type)
{
	if (type == SM_MSG_HELLO)
		return TLS;
	return TLS | SEEN | (type == SM_MSG_REKEY_REQUEST ? CLIENT : 0);
}

static struct sm_addr random_addr(struct rng *rng)
{
	struct sm_addr a = {0};
	uint8_t ip[16];

	rng_fill(rng, ip, sizeof(ip));
	ip[0] |= 1; /* not mapped */
	assert_int_equal(sm_addr_from_ip(rng_below(rng, 2) ? 4 : 6, ip,
					 (uint16_t)(1 + rng_below(rng, 65535)), &a),
			 0);
	return a;
}

static struct sm_msg random_msg(struct rng *rng, unsigned type)
{
	struct sm_msg msg;

	memset(&msg, 0, sizeof(msg));
	msg.type = (enum sm_msg_type)type;
	switch (msg.type) {
	case SM_MSG_HELLO:
		msg.hello = (struct sm_msg_hello){
			.version = (uint16_t)rng_u64(rng),
			.mode = (uint8_t)(1 + rng_below(rng, 2)),
			.ciphers = (uint8_t)(1 + rng_below(rng, 255)),
			.preferred = (uint8_t)rng_below(rng, 8),
			.workers = (uint8_t)(1 + rng_below(rng, SM_WORKER_MAX)),
			.data_port = (uint16_t)rng_u64(rng),
			.control_port = (uint16_t)rng_u64(rng),
			.mtu = (uint16_t)rng_u64(rng),
			.session = (uint32_t)rng_u64(rng),
			.instance = rng_u64(rng),
			.features = rng_u64(rng),
		};
		break;
	case SM_MSG_ENDPOINTS:
		msg.endpoints.count = (uint8_t)rng_below(rng, SM_ENDPOINTS_MAX + 1);
		for (unsigned i = 0; i < msg.endpoints.count; i++) {
			msg.endpoints.candidate[i].data = random_addr(rng);
			msg.endpoints.candidate[i].control_port = (uint16_t)rng_u64(rng);
			msg.endpoints.candidate[i].type = (uint8_t)rng_below(
				rng, SM_CANDIDATE_TYPE_COUNT);
		}
		break;
	case SM_MSG_OBSERVED:
		if (rng_below(rng, 3))
			msg.observed.control = random_addr(rng);
		if (rng_below(rng, 3))
			msg.observed.data = random_addr(rng);
		break;
	case SM_MSG_PING:
	case SM_MSG_PONG:
		msg.ping.token = rng_u64(rng);
		break;
	case SM_MSG_REKEY_REQUEST:
	case SM_MSG_REKEY_REPLY:
		msg.rekey.epoch = (uint32_t)rng_u64(rng);
		rng_fill(rng, msg.rekey.kem, sizeof(msg.rekey.kem));
		break;
	case SM_MSG_CLOSE:
		msg.close.reason = (uint16_t)(1 + rng_below(rng, 65535));
		for (unsigned i = 0, n = rng_below(rng, SM_CLOSE_TEXT_MAX + 1); i < n; i++)
			msg.close.text[i] = (char)(' ' + rng_below(rng, 95));
		break;
	case SM_MSG_READY:
	case SM_MSG_REKEY_WANTED:
		break;
	}
	return msg;
}

/* Decodes out of memory that ends exactly behind the message, so that ASAN sees a read past it */
static int decode_exact(const uint8_t *bytes, size_t len, unsigned ctx, struct sm_msg *ret_msg)
{
	uint8_t *copy = malloc(len ? len : 1);
	int r;

	assert_non_null(copy);
	if (len > 0)
		memcpy(copy, bytes, len);
	r = sm_msg_decode(copy, len, ctx, ret_msg);
	free(copy);
	return r;
}

static void test_round_trip(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned type = types[i % SM_ARRAY_SIZE(types)], peeked = 0;
		struct sm_msg msg = random_msg(&rng, type), back;
		uint8_t buf[MSG_LEN_MAX], again[MSG_LEN_MAX];
		size_t total = 0;
		int len = sm_msg_encode(&msg, buf, sizeof(buf));

		assert_true(len >= (int)SM_MSG_HEADER_LEN);
		assert_int_equal(decode_exact(buf, (size_t)len, context_for(type), &back), 0);
		assert_memory_equal(&back, &msg, sizeof(msg));
		assert_int_equal(sm_msg_encode(&back, again, (size_t)len), len);
		assert_memory_equal(again, buf, (size_t)len);
		assert_int_equal(sm_msg_peek(buf, (size_t)len + 1, &peeked, &total), 1);
		assert_int_equal(peeked, type);
		assert_int_equal(total, len);
	}
}

/* Cut off anywhere a message is malformed, incomplete to peek at, and does not fit to be written. */
static void test_every_length(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (size_t t = 0; t < SM_ARRAY_SIZE(types); t++) {
		struct sm_msg msg = random_msg(&rng, types[t]), back;
		uint8_t buf[MSG_LEN_MAX + 1] = {0}, small[MSG_LEN_MAX];
		unsigned type = 99;
		size_t total = 99;
		int len = sm_msg_encode(&msg, buf, sizeof(buf));

		assert_true(len > 0);
		memset(&back, 0x55, sizeof(back));
		for (size_t cut = 0; cut < (size_t)len; cut++) {
			memset(small, 0xee, sizeof(small));
			assert_int_equal(decode_exact(buf, cut, context_for(types[t]), &back),
					 -EBADMSG);
			assert_int_equal(sm_msg_peek(buf, cut, &type, &total), 0);
			assert_int_equal(sm_msg_encode(&msg, small, cut), -ENOSPC);
			assert_int_equal(small[cut], 0xee);
		}
		assert_int_equal(type, 99);
		assert_int_equal(total, 99);
		/* One byte too many, whether the length counts it or not */
		assert_int_equal(decode_exact(buf, (size_t)len + 1, context_for(types[t]), &back),
				 -EBADMSG);
		assert_int_equal(((uint8_t *)&back)[0], 0x55);
		if (types[t] == SM_MSG_HELLO || types[t] == SM_MSG_CLOSE)
			continue; /* may be longer */
		buf[2] = (uint8_t)((len - 3) >> 8);
		buf[3] = (uint8_t)(len - 3);
		assert_int_equal(decode_exact(buf, (size_t)len + 1, context_for(types[t]), &back),
				 -EBADMSG);
	}
}

static const uint8_t hello_bytes[36] = {
	0x80, 0x01, 0,    32,                     /* type, length */
	0,    1,    1,    3,    1,    4,          /* version ... workers */
	0x24, 0xe3, 0x20, 0xfb, 0x05, 0xdc,       /* ports, mtu */
	0xde, 0xad, 0xbe, 0xef,                   /* session */
	1,    2,    3,    4,    5,    6,    7, 8, /* instance */
	0,    0,    0,    0,    0,    0,    0, 1, /* features */
};

static void test_known_bytes(void **state)
{
	static const struct {
		size_t len;
		uint8_t bytes[48];
	} cases[] = {
		{4, {0x80, 0x02, 0, 0}},
		{5, {0x00, 0x03, 0, 1, 0}},
		{37, {0x00, 0x03, 0, 33, 2,    0,    4, 0x24, 0xe3, 0x20, 0xfb, 192,  0,
		      2,    1,    3, 6,  0x24, 0xe4, 0, 0,    0x20, 1,    0xd,  0xb8, 0,
		      0,    0,    0, 0,  0,    0,    0, 0,    0,    0,    9}},
		{6, {0x00, 0x04, 0, 2, 0, 0}},
		{12, {0x00, 0x04, 0, 8, 4, 0x12, 0x34, 192, 0, 2, 1, 0}},
		{12, {0x00, 0x05, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}},
		{12, {0x00, 0x06, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}},
		{4, {0x00, 0x09, 0, 0}},
		{6, {0x80, 0x0a, 0, 2, 0, 1}},
		{9, {0x80, 0x0a, 0, 5, 0, 9, 'b', 'y', 'e'}},
	};
	struct sm_msg msg;
	uint8_t buf[MSG_LEN_MAX];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(decode_exact(cases[i].bytes, cases[i].len, TLS | SEEN, &msg), 0);
		assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), cases[i].len);
		assert_memory_equal(buf, cases[i].bytes, cases[i].len);
	}
	assert_int_equal(decode_exact(cases[2].bytes, cases[2].len, TLS | SEEN, &msg), 0);
	assert_int_equal(msg.endpoints.count, 2);
	assert_int_equal(msg.endpoints.candidate[0].type, SM_CANDIDATE_HOST);
	assert_int_equal(msg.endpoints.candidate[0].data.port, 9443);
	assert_int_equal(msg.endpoints.candidate[0].control_port, 8443);
	assert_int_equal(msg.endpoints.candidate[1].type, SM_CANDIDATE_RELAYED);
	assert_int_equal(msg.endpoints.candidate[1].data.family, 6);
	assert_int_equal(msg.endpoints.candidate[1].data.ip[15], 9);
	assert_int_equal(decode_exact(cases[9].bytes, cases[9].len, STREAM, &msg), 0);
	assert_string_equal(msg.close.text, "bye");
	assert_int_equal(msg.close.reason, SM_CLOSE_REVOKED);
}

static void test_hello_bytes(void **state)
{
	uint8_t longer[4 + 257] = {0}, buf[64];
	struct sm_msg msg, same;

	(void)state;
	assert_int_equal(decode_exact(hello_bytes, sizeof(hello_bytes), TLS, &msg), 0);
	assert_int_equal(msg.hello.version, 1);
	assert_int_equal(msg.hello.mode, SM_MODE_TAP);
	assert_int_equal(msg.hello.ciphers, 3);
	assert_int_equal(msg.hello.preferred, SM_CIPHER_CHACHA20POLY1305);
	assert_int_equal(msg.hello.workers, 4);
	assert_int_equal(msg.hello.data_port, 9443);
	assert_int_equal(msg.hello.control_port, 8443);
	assert_int_equal(msg.hello.mtu, 1500);
	assert_int_equal(msg.hello.session, 0xdeadbeef);
	assert_true(msg.hello.instance == UINT64_C(0x0102030405060708));
	assert_true(msg.hello.features == SM_FEATURE_PART);
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), sizeof(hello_bytes));
	assert_memory_equal(buf, hello_bytes, sizeof(hello_bytes));

	/* What a later version appends is ignored, up to 256 bytes of value. */
	memcpy(longer, hello_bytes, sizeof(hello_bytes));
	for (size_t value = 33; value <= 257; value++) {
		longer[2] = (uint8_t)(value >> 8);
		longer[3] = (uint8_t)value;
		memset(longer + 36, 0xab, value - 32);
		memset(&same, 0, sizeof(same));
		assert_int_equal(decode_exact(longer, 4 + value, TLS, &same),
				 value <= 256 ? 0 : -EBADMSG);
		if (value <= 256)
			assert_memory_equal(&same, &msg, sizeof(msg));
	}
}

/* One byte of a good HELLO replaced */
static void test_hello_bounds(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		int result;
	} cases[] = {
		{4, 0xff, 0},     {5, 0, 0}, /* any version: the state machine answers */
		{6, 0, -EBADMSG}, {6, 2, 0},  {6, 3, -EBADMSG}, {7, 0, -EBADMSG},
		{7, 0xff, 0},     {7, 1, 0},  {8, 7, 0},        {8, 8, -EBADMSG},
		{9, 0, -EBADMSG}, {9, 1, 0},  {9, 16, 0},       {9, 17, -EBADMSG},
		{11, 0, 0},       {16, 0, 0}, {35, 0xff, 0},
	};
	uint8_t bytes[sizeof(hello_bytes)], buf[64];
	struct sm_msg msg;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		memcpy(bytes, hello_bytes, sizeof(bytes));
		bytes[cases[i].at] = cases[i].value;
		if (decode_exact(bytes, sizeof(bytes), TLS, &msg) != cases[i].result)
			fail_msg("byte %zu as %u", cases[i].at, cases[i].value);
	}
	assert_int_equal(decode_exact(hello_bytes, sizeof(hello_bytes), TLS, &msg), 0);
	msg.hello.workers = 0;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
	msg.hello.workers = 1;
	msg.hello.mode = 0;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
}

/* All sixteen contexts for all messages, against the rules written another way */
static void test_contexts(void **state)
{
	struct rng rng = rng_init(__func__);
	unsigned allowed = 0;

	(void)state;
	for (size_t t = 0; t < SM_ARRAY_SIZE(types); t++) {
		unsigned type = types[t];
		struct sm_msg msg = random_msg(&rng, type), back;
		uint8_t buf[MSG_LEN_MAX];
		int len = sm_msg_encode(&msg, buf, sizeof(buf));

		assert_true(len > 0);
		for (unsigned ctx = 0; ctx < 16; ctx++) {
			bool tls = ctx & TLS, stream = ctx & STREAM, seen = ctx & SEEN;
			bool client = ctx & CLIENT, good;

			if (tls == stream)
				continue;
			if (type == SM_MSG_CLOSE)
				good = true;
			else if (type == SM_MSG_HELLO)
				good = tls && !seen;
			else if (type == SM_MSG_READY)
				good = tls && seen;
			else if (type == SM_MSG_REKEY_REQUEST)
				good = seen && client;
			else if (type == SM_MSG_REKEY_REPLY || type == SM_MSG_REKEY_WANTED)
				good = seen && !client;
			else
				good = seen;
			assert_int_equal(decode_exact(buf, (size_t)len, ctx, &back),
					 good ? 0 : -EPROTO);
			allowed += good;
		}
	}
	assert_int_equal(allowed, 2 + 2 + 4 * 4 + 2 + 2 + 2 + 8);
}

static void test_unknown(void **state)
{
	static const uint16_t unknown[] = {0x0000, 0x0001, 0x0002, 0x0007, 0x000a, 0x000b, 0x7fff,
					   0x8000, 0x8003, 0x8005, 0x8009, 0x800b, 0xffff};
	static uint8_t buf[MSG_LEN_MAX + 1];
	struct sm_msg msg = {.type = SM_MSG_PING};
	unsigned type;
	size_t total;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(unknown); i++) {
		for (size_t value = 0; value <= SM_MSG_VALUE_MAX + 1; value += 241) {
			int expected = unknown[i] & SM_MSG_CRITICAL ? -EOPNOTSUPP : -ENOMSG;
			size_t len = 4 + value;

			buf[0] = (uint8_t)(unknown[i] >> 8);
			buf[1] = (uint8_t)unknown[i];
			buf[2] = (uint8_t)(value >> 8);
			buf[3] = (uint8_t)value;
			assert_int_equal(decode_exact(buf, len, TLS | SEEN, &msg), expected);
			assert_int_equal(sm_msg_peek(buf, len, &type, &total),
					 value <= SM_MSG_VALUE_MAX ? 1 : -EMSGSIZE);
			/* A wrong length is malformed before it is unknown. */
			buf[3] ^= 1;
			assert_int_equal(decode_exact(buf, len, TLS | SEEN, &msg), -EBADMSG);
		}
		assert_string_equal(sm_msg_name(unknown[i]), "unknown");
	}
	assert_int_equal(msg.type, SM_MSG_PING);
	msg.type = (enum sm_msg_type)0x0001;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
}

/* The bounds show in the header alone: nobody waits for bytes of a message that will be refused. */
static void test_peek_bounds(void **state)
{
	static const struct {
		uint16_t type, len;
		int result;
	} cases[] = {
		{SM_MSG_HELLO, 31, -EMSGSIZE},
		{SM_MSG_HELLO, 32, 0},
		{SM_MSG_HELLO, 256, 0},
		{SM_MSG_HELLO, 257, -EMSGSIZE},
		{SM_MSG_READY, 0, 1},
		{SM_MSG_READY, 1, -EMSGSIZE},
		{SM_MSG_ENDPOINTS, 0, -EMSGSIZE},
		{SM_MSG_ENDPOINTS, 353, 0},
		{SM_MSG_ENDPOINTS, 354, -EMSGSIZE},
		{SM_MSG_OBSERVED, 1, -EMSGSIZE},
		{SM_MSG_OBSERVED, 38, 0},
		{SM_MSG_OBSERVED, 39, -EMSGSIZE},
		{SM_MSG_PING, 7, -EMSGSIZE},
		{SM_MSG_PING, 8, 0},
		{SM_MSG_PONG, 9, -EMSGSIZE},
		{SM_MSG_REKEY_REQUEST, 1668, -EMSGSIZE},
		{SM_MSG_REKEY_REQUEST, 1669, 0},
		{SM_MSG_REKEY_REPLY, 1670, -EMSGSIZE},
		{SM_MSG_REKEY_WANTED, 1, -EMSGSIZE},
		{SM_MSG_CLOSE, 1, -EMSGSIZE},
		{SM_MSG_CLOSE, 202, 0},
		{SM_MSG_CLOSE, 203, -EMSGSIZE},
		{0x1234, 4096, 0},
		{0x1234, 4097, -EMSGSIZE},
		{0x9234, 65535, -EMSGSIZE},
	};
	unsigned type = 99;
	size_t total = 99;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		uint8_t header[4] = {(uint8_t)(cases[i].type >> 8), (uint8_t)cases[i].type,
				     (uint8_t)(cases[i].len >> 8), (uint8_t)cases[i].len};

		if (sm_msg_peek(header, 4, &type, &total) != cases[i].result)
			fail_msg("%s of %u", sm_msg_name(cases[i].type), cases[i].len);
		assert_int_equal(sm_msg_peek(header, 3, &type, &total), 0);
	}
	assert_int_equal(type, SM_MSG_READY);
	assert_int_equal(total, 4);
}

static void test_malformed(void **state)
{
	static const struct {
		size_t len;
		uint8_t bytes[48];
	} cases[] = {
		{5, {0x00, 0x03, 0, 1, 1}}, /* counts more */
		{5, {0x00, 0x03, 0, 1, 17}},
		{15, {0x00, 0x03, 0, 11, 0, 0, 4, 1, 1, 0, 0, 1, 2, 3, 4}}, /* counts less */
		{15, {0x00, 0x03, 0, 11, 1, 4, 4, 1, 1, 0, 0, 1, 2, 3, 4}}, /* type */
		{15, {0x00, 0x03, 0, 11, 1, 0, 5, 1, 1, 0, 0, 1, 2, 3, 4}}, /* family */
		{15, {0x00, 0x03, 0, 11, 1, 0, 0, 1, 1, 0, 0, 1, 2, 3, 4}},
		{15, {0x00, 0x03, 0, 11, 1, 0, 6, 1, 1, 0, 0, 1, 2, 3, 4}},
		{15, {0x00, 0x03, 0, 11, 1, 0, 4, 0, 0, 0, 0, 1, 2, 3, 4}}, /* port 0 */
		{27,
		 {0x00, 0x03, 0, 23, 1, 0, 6, 1, 1, 0, 0, [21] = 0xff, 0xff, 1, 2, 3,
		  4}},                            /* mapped */
		{7, {0x00, 0x04, 0, 3, 0, 0, 0}}, /* a byte too many */
		{13, {0x00, 0x04, 0, 9, 7, 1, 1, 1, 2, 3, 4, 0, 0}},
		{13, {0x00, 0x04, 0, 9, 0, 6, 1, 1, 2, 3, 4, 0, 0}},
		{6, {0x80, 0x0a, 0, 2, 0, 0}}, /* reason "none" */
	};
	struct sm_msg msg;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		if (decode_exact(cases[i].bytes, cases[i].len, TLS | SEEN, &msg) != -EBADMSG)
			fail_msg("case %zu", i);
	}
}

static void test_close_text(void **state)
{
	static const struct {
		const char *sent;
		size_t len;
		const char *shown;
	} cases[] = {
		{"", 0, ""},
		{"certificate revoked", 19, "certificate revoked"},
		{"a\nb\rc\td", 7, "a?b?c?d"},
		{"\x1b[2J", 4, "?[2J"},
		{"a\0b", 3, "a?b"},
		{"\xc3\xa4", 2, "\xc3\xa4"},
		{"\xc2\x9b"
		 "31m",
		 5, "??31m"},
		{"\xe2\x80\xae"
		 "x",
		 4, "???x"},
		{"\xc3", 1, "?"},
		{"\xff\xfe", 2, "??"},
		{"\xe2\x82", 2, "??"},
	};
	struct sm_msg msg;
	uint8_t buf[SM_MSG_HEADER_LEN + 2 + SM_CLOSE_TEXT_MAX] = {0x80, 0x0a, 0, 0, 0, 4};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		buf[3] = (uint8_t)(2 + cases[i].len);
		memcpy(buf + 6, cases[i].sent, cases[i].len);
		assert_int_equal(decode_exact(buf, 6 + cases[i].len, STREAM, &msg), 0);
		assert_string_equal(msg.close.text, cases[i].shown);
	}

	/* The encoder sends nothing that a decoder would have to mend. */
	memset(&msg, 0, sizeof(msg));
	msg.type = SM_MSG_CLOSE;
	msg.close.reason = SM_CLOSE_INTERNAL;
	strcpy(msg.close.text, "x\ny");
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), 9);
	assert_memory_equal(buf + 4, "\0\x11x?y", 5);

	memset(msg.close.text, 'x', SM_CLOSE_TEXT_MAX);
	msg.close.text[SM_CLOSE_TEXT_MAX] = '\0';
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), sizeof(buf));
	msg.close.text[SM_CLOSE_TEXT_MAX] = 'x'; /* not terminated */
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
	msg.close.text[1] = '\0';
	msg.close.reason = SM_CLOSE_NONE;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
}

static void test_encode_refuses(void **state)
{
	struct rng rng = rng_init(__func__);
	struct sm_msg msg = random_msg(&rng, SM_MSG_ENDPOINTS);
	uint8_t buf[MSG_LEN_MAX];

	(void)state;
	msg.endpoints.count = 1;
	msg.endpoints.candidate[0].data = random_addr(&rng);
	msg.endpoints.candidate[0].type = SM_CANDIDATE_TYPE_COUNT;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
	msg.endpoints.candidate[0].type = 0;
	msg.endpoints.candidate[0].data.family = 0;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
	msg.endpoints.count = SM_ENDPOINTS_MAX + 1;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
	msg = random_msg(&rng, SM_MSG_OBSERVED);
	msg.observed.data.family = 3;
	assert_int_equal(sm_msg_encode(&msg, buf, sizeof(buf)), -EINVAL);
}

static void test_names(void **state)
{
	static const char *const names[] = {
		"HELLO", "READY",         "ENDPOINTS",   "OBSERVED",     "PING",
		"PONG",  "REKEY_REQUEST", "REKEY_REPLY", "REKEY_WANTED", "CLOSE",
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(types); i++)
		assert_string_equal(sm_msg_name(types[i]), names[i]);
	for (unsigned i = 0; i < SM_CLOSE_REASON_COUNT; i++) {
		assert_non_null(sm_close_reason_name(i));
		assert_string_not_equal(sm_close_reason_name(i), "unknown");
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(sm_close_reason_name(i), sm_close_reason_name(j));
	}
	assert_string_equal(sm_close_reason_name(SM_CLOSE_SUPERSEDED), "superseded");
	assert_string_equal(sm_close_reason_name(SM_CLOSE_INTERNAL), "internal");
	assert_string_equal(sm_close_reason_name(SM_CLOSE_REASON_COUNT), "unknown");
	assert_string_equal(sm_close_reason_name(UINT32_MAX), "unknown");
}

/* Random values behind true headers: no decoder reads past the end, whatever it takes is encodable. */
static void test_random_values(void **state)
{
	struct rng rng = rng_init(__func__);
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 50000; i++) {
		unsigned type = types[i % SM_ARRAY_SIZE(types)];
		uint8_t buf[512], again[MSG_LEN_MAX];
		uint32_t value = rng_below(&rng, 64);
		struct sm_msg msg;

		rng_fill(&rng, buf, 4 + value);
		for (uint32_t j = 4; j < 4 + value; j++)
			buf[j] &= rng_below(&rng, 3) ? 0x07
						     : 0xff; /* small numbers are likelier legal */
		buf[0] = (uint8_t)(type >> 8);
		buf[1] = (uint8_t)type;
		buf[2] = 0;
		buf[3] = (uint8_t)value;
		if (decode_exact(buf, 4 + value, context_for(type), &msg) < 0)
			continue;
		taken++;
		assert_true(sm_msg_encode(&msg, again, sizeof(again)) > 0);
	}
	assert_true(taken > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_known_bytes),    cmocka_unit_test(test_hello_bytes),
		cmocka_unit_test(test_hello_bounds),   cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_unknown),        cmocka_unit_test(test_peek_bounds),
		cmocka_unit_test(test_malformed),      cmocka_unit_test(test_close_text),
		cmocka_unit_test(test_encode_refuses), cmocka_unit_test(test_names),
		cmocka_unit_test(test_random_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

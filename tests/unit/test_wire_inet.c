// SPDX-License-Identifier: MIT
/*
 * TCP and UDP inside frames. The frames were captured on a veth with all offloads off, so headers, lengths
 * and checksums are those of a Linux kernel (6.18), not of our own code.
 */
#include "wire/inet.h"
#include "base/text.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define L2     "020000000002020000000001"
#define V4     L2 "0800"
#define V6     L2 "86dd"
#define V6_TO  "20010db800000000000000000000000120010db8000000000000000000000002"
#define V4_TO  "c0000201c0000202"
#define HELLO  "68656c6c6f2c20776f726c640a"
#define STAMP4 "0101080a1dfe37f3f5ea09ea"
#define STAMP6 "0101080af8681a7a73ccc5f1"

enum {
	TCP4_SYN,
	TCP4_ACK,
	TCP4_DATA,
	TCP6_SYN,
	TCP6_ACK,
	TCP6_DATA,
	UDP4,
	UDP4_NO_CSUM,
	UDP4_OPTIONS,
	UDP6,
	UDP6_EMPTY,
	UDP6_CHAIN,
	CAPTURES
};

static const struct {
	const char *hex;
	struct sm_inet inet;
} captures[CAPTURES] = {
	[TCP4_SYN] =
		{V4
		 "4500003c148d40004006a22b" V4_TO
		 "e3a61f907e2404cc00000000a002faf0ecef0000020405b40402080a1dfe37f3000000000103030a",
		 {14, 34, 74, 74, 4, SM_PROTO_TCP}},
	[TCP4_ACK] = {V4 "45000034148e40004006a232" V4_TO
			 "e3a61f907e2404cd7e5f72798010003f25b30000" STAMP4,
		      {14, 34, 66, 66, 4, SM_PROTO_TCP}},
	[TCP4_DATA] = {V4 "45000041148f40004006a224" V4_TO
			  "e3a61f907e2404cd7e5f72798018003fdb510000" STAMP4 HELLO,
		       {14, 34, 66, 79, 4, SM_PROTO_TCP}},
	[TCP6_SYN] =
		{V6
		 "6000a22c00280640" V6_TO
		 "a0ac1f904367c84900000000a002fd2010ab0000020405a00402080af8681a7a000000000103030a",
		 {14, 54, 94, 94, 6, SM_PROTO_TCP}},
	[TCP6_ACK] = {V6 "6000a22c00200640" V6_TO "a0ac1f904367c84a383d60928010004069a90000"
			 "0101080af8681a7a73ccc5f1",
		      {14, 54, 86, 86, 6, SM_PROTO_TCP}},
	[TCP6_DATA] = {V6 "6000a22c002d0640" V6_TO
			  "a0ac1f904367c84a383d6092801800401f480000" STAMP6 HELLO,
		       {14, 54, 86, 99, 6, SM_PROTO_TCP}},
	[UDP4] = {V4 "4500001fc20d40004011f4bc" V4_TO "c96214e9000bd925616263",
		  {14, 34, 42, 45, 4, SM_PROTO_UDP}},
	[UDP4_NO_CSUM] = {V4 "45000020c20e40004011f4ba" V4_TO "c96214e9000c00006e6f6e65",
			  {14, 34, 42, 46, 4, SM_PROTO_UDP}},
	[UDP4_OPTIONS] = {V4 "46000027c20f40004011f1b1" V4_TO
			     "01010100c96214e9000fd7376f7074696f6e73",
			  {14, 38, 46, 53, 4, SM_PROTO_UDP}},
	[UDP6] = {V6 "600d76af000b1140" V6_TO "872b14e9000b43ec616263",
		  {14, 54, 62, 65, 6, SM_PROTO_UDP}},
	[UDP6_EMPTY] = {V6 "600d76af00081140" V6_TO "872b14e900080855",
			{14, 54, 62, 62, 6, SM_PROTO_UDP}},
	[UDP6_CHAIN] = {V6 "600d76af00250040" V6_TO "3c00010400000000" /* hop-by-hop */
			   "1101010c000000000000000000000000"          /* destination */
			   "872b14e9000dd578636861696e",
			{14, 78, 86, 91, 6, SM_PROTO_UDP}},
};

/* Return: the bytes, in memory that ends with them */
static uint8_t *capture_of(int which, size_t *ret_len)
{
	size_t len = strlen(captures[which].hex) / 2;
	uint8_t *frame = malloc(len);

	assert_int_equal(sm_text_parse_hex(captures[which].hex, frame, len), 0);
	*ret_len = len;
	return frame;
}

/* As sm_inet_parse(), out of memory that ends after @len bytes */
static int parse(enum sm_mode mode, const uint8_t *frame, size_t len, struct sm_inet *inet)
{
	uint8_t *copy = malloc(len);
	int error;

	memcpy(copy, frame, len);
	error = sm_inet_parse(mode, copy, len, inet);
	free(copy);
	return error;
}

static void expect_inet(const struct sm_inet *inet, int which, uint32_t shift)
{
	const struct sm_inet *want = &captures[which].inet;

	assert_int_equal(inet->l3, want->l3 + shift);
	assert_int_equal(inet->l4, want->l4 + shift);
	assert_int_equal(inet->payload, want->payload + shift);
	assert_int_equal(inet->end, want->end + shift);
	assert_int_equal(inet->version, want->version);
	assert_int_equal(inet->proto, want->proto);
}

static void test_sum_known(void **state)
{
	static const uint8_t rfc1071[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
	uint8_t out[2];

	(void)state;
	sm_csum_store(sm_csum_fold(sm_csum_add(0, rfc1071, sizeof(rfc1071))), out);
	assert_memory_equal(out, "\xdd\xf2", 2);
	/* In parts, as long as only the last is odd */
	sm_csum_store(sm_csum_fold(sm_csum_add(sm_csum_add(0, rfc1071, 6), rfc1071 + 6, 2)), out);
	assert_memory_equal(out, "\xdd\xf2", 2);
	sm_csum_store(sm_csum_fold(sm_csum_add(0, rfc1071 + 1, 3)), out);
	assert_memory_equal(out, "\x04\xf2", 2);
	assert_int_equal(sm_csum_fold(sm_csum_add(0, rfc1071, 0)), 0);
	/* The headers of the captures: a right checksum makes the sum 0xffff. */
	for (int i = 0; i < CAPTURES; i++) {
		const struct sm_inet *inet = &captures[i].inet;
		size_t len;
		uint8_t *frame = capture_of(i, &len);

		if (inet->version == 4)
			assert_int_equal(sm_csum_fold(sm_csum_add(0, frame + 14, inet->l4 - 14)),
					 0xffff);
		free(frame);
	}
}

static uint16_t sum_slowly(uint64_t sum, const uint8_t *data, size_t len)
{
	sum = (sum >> 32) + (sum & UINT32_MAX);
	for (size_t i = 0; i < len; i++) {
		uint16_t word;

		memcpy(&word, i & 1 ? (uint8_t[]){0, data[i]} : (uint8_t[]){data[i], 0}, 2);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

static void test_sum_any_alignment(void **state)
{
	static const uint64_t onto[] = {0, 1, 0xffff, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
	const size_t longest = 300;

	(void)state;
	srand(1071);
	for (int fill = 0; fill < 3; fill++) {
		for (size_t at = 0; at < 32; at++) {
			uint8_t *data = malloc(at + longest);

			for (size_t i = 0; i < at + longest; i++)
				data[i] = (uint8_t)(fill == 0   ? 0xff
						    : fill == 1 ? rand()
								: rand() | 0xfe);
			/* The end of the memory is the end of the data. */
			for (size_t len = 0; len <= longest; len++) {
				const uint8_t *from = data + at + longest - len;
				uint64_t sum = onto[len % SM_ARRAY_SIZE(onto)];

				assert_int_equal(sm_csum_fold(sm_csum_add(sum, from, len)),
						 sum_slowly(sum, from, len));
			}
			free(data);
		}
	}
}

static void test_sum_carries(void **state)
{
	uint8_t *ones = malloc(SM_FRAME_MAX);
	uint64_t sum = UINT64_MAX;

	(void)state;
	memset(ones, 0xff, SM_FRAME_MAX);
	for (int i = 0; i < 1000; i++)
		sum = sm_csum_add(sum, ones, SM_FRAME_MAX - 1);
	assert_int_equal(sm_csum_fold(sum), 0xffff);
	assert_int_equal(sm_csum_fold(sm_csum_add(sum, ones + 1, 1)), sum_slowly(0, ones, 1));
	free(ones);
}

static void test_parse(void **state)
{
	(void)state;
	for (int i = 0; i < CAPTURES; i++) {
		struct sm_inet inet = {0};
		size_t len;
		uint8_t *frame = capture_of(i, &len), padded[128] = {0};

		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, len, &inet), 0);
		expect_inet(&inet, i, 0);
		assert_int_equal(sm_inet_parse(SM_MODE_TUN, frame + 14, len - 14, &inet), 0);
		expect_inet(&inet, i, (uint32_t)-14);
		memcpy(padded, frame, len);
		assert_int_equal(sm_inet_parse(SM_MODE_TAP, padded, sizeof(padded), &inet), 0);
		expect_inet(&inet, i, 0);
		/* Wholly there or only its headers; but never less */
		for (size_t cut = 1; cut < len; cut++) {
			int error = parse(SM_MODE_TAP, frame, cut, &inet);

			assert_int_equal(error, cut < captures[i].inet.payload ? -EBADMSG : 0);
			if (error == 0)
				expect_inet(&inet, i, 0);
		}
		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, 0, &inet), -EBADMSG);
		assert_int_equal(sm_inet_parse(SM_MODE_TUN, frame, 0, &inet), -EBADMSG);
		free(frame);
	}
}

static void test_parse_vlan(void **state)
{
	static const uint8_t tags[] = {0x88, 0xa8, 0x00, 0x05, 0x81, 0x00,
				       0x20, 0x06, 0x81, 0,    0,    7};

	(void)state;
	for (int i = 0; i < CAPTURES; i++) {
		size_t len;
		uint8_t *frame = capture_of(i, &len), tagged[128];

		for (uint32_t n = 0; n <= 3; n++) {
			struct sm_inet inet = {0};
			int error;

			memcpy(tagged, frame, 12);
			memcpy(tagged + 12, tags, n * 4);
			memcpy(tagged + 12 + n * 4, frame + 12, len - 12);
			error = parse(SM_MODE_TAP, tagged, len + n * 4, &inet);
			assert_int_equal(error, n < 3 ? 0 : -EBADMSG);
			if (error == 0)
				expect_inet(&inet, i, n * 4);
			for (size_t cut = 1; cut < captures[i].inet.payload + n * 4; cut++)
				assert_int_equal(parse(SM_MODE_TAP, tagged, cut, &inet), -EBADMSG);
		}
		free(frame);
	}
}

static void test_parse_refused(void **state)
{
	static const struct {
		int which;
		uint32_t at; /* in the captured frame */
		uint8_t len, bytes[4];
	} cases[] = {
		{TCP4_DATA, 12, 2, {0x08, 0x06}}, /* ARP */
		{TCP4_DATA, 12, 2, {0x86, 0xdd}}, /* not that version */
		{TCP6_DATA, 12, 2, {0x08, 0x00}},
		{TCP4_DATA, 12, 2, {0x00, 0x41}}, /* 802.3 length */
		{TCP4_DATA, 14, 1, {0x44}},       /* IPv4 header too short */
		{TCP4_DATA, 14, 1, {0x55}},       /* version */
		{TCP6_DATA, 14, 1, {0x50}},
		{TCP4_DATA, 16, 2, {0, 0}}, /* total: less than the headers */
		{TCP4_DATA, 16, 2, {0, 19}},
		{TCP4_DATA, 16, 2, {0, 51}},
		{TCP4_DATA, 20, 2, {0x60, 0x00}}, /* fragments: first */
		{TCP4_DATA, 20, 2, {0x20, 0x01}}, /* middle */
		{TCP4_DATA, 20, 2, {0x00, 0x01}}, /* last */
		{TCP4_DATA, 20, 2, {0x10, 0x00}},
		{TCP4_DATA, 23, 1, {1}},            /* ICMP */
		{TCP4_DATA, 23, 1, {132}},          /* SCTP */
		{TCP4_DATA, 23, 1, {SM_PROTO_UDP}}, /* its length is the low sequence number */
		{TCP4_DATA, 46, 1, {0x40}},         /* TCP header too short */
		{TCP4_DATA, 46, 1, {0xc0}},         /* beyond the packet */
		{UDP4, 38, 2, {0, 10}},             /* UDP length: less than IP's */
		{UDP4, 38, 2, {0, 12}},             /* more */
		{UDP4, 38, 2, {0, 0}},
		{UDP4_OPTIONS, 14, 1, {0x45}}, /* UDP read at the options */
		{TCP6_DATA, 18, 2, {0, 0}},    /* jumbogram */
		{TCP6_DATA, 18, 2, {0, 31}},   /* less than the headers */
		{TCP6_DATA, 20, 1, {44}},      /* fragment header */
		{TCP6_DATA, 20, 1, {51}},      /* authentication header */
		{TCP6_DATA, 20, 1, {58}},      /* ICMPv6 */
		{TCP6_DATA, 20, 1, {59}},      /* nothing */
		{UDP6, 18, 2, {0, 7}},
		{UDP6, 58, 2, {0, 0}},
		{UDP6_CHAIN, 18, 2, {0, 23}}, /* ends within the chain */
		{UDP6_CHAIN, 54, 2, {60, 1}}, /* chain out of step */
		{UDP6_CHAIN, 54, 2, {44, 0}},
		{UDP6_CHAIN, 62, 2, {17, 255}}, /* chain beyond the packet */
		{UDP6_CHAIN, 20, 1, {43}},      /* routing header, segments left: 4 */
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_inet inet = {.proto = 99};
		size_t len;
		uint8_t *frame = capture_of(cases[i].which, &len);

		memcpy(frame + cases[i].at, cases[i].bytes, cases[i].len);
		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, len, &inet), -EBADMSG);
		assert_int_equal(inet.proto, 99);
		free(frame);
	}
}

/* Flags that are not fragments', reserved bits and ECN included, do not stop a packet. */
static void test_parse_accepted(void **state)
{
	static const struct {
		int which;
		uint32_t at;
		uint8_t value;
	} cases[] = {
		{TCP4_DATA, 20, 0x00}, {TCP4_DATA, 20, 0x80}, {TCP4_DATA, 15, 0x03},
		{TCP4_DATA, 46, 0x8f}, {TCP4_DATA, 47, 0xff}, {TCP6_DATA, 15, 0xff},
		{UDP6_CHAIN, 57, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_inet inet;
		size_t len;
		uint8_t *frame = capture_of(cases[i].which, &len);

		frame[cases[i].at] = cases[i].value;
		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, len, &inet), 0);
		expect_inet(&inet, cases[i].which, 0);
		free(frame);
	}
}

static void test_parse_chain(void **state)
{
	static const uint8_t kinds[] = {0, 60, 43};
	const struct sm_inet *plain = &captures[UDP6].inet;
	size_t len;
	uint8_t *frame = capture_of(UDP6, &len);

	(void)state;
	for (uint32_t n = 0; n <= 9; n++) {
		struct sm_inet inet = {0};
		uint8_t chained[160] = {0};
		uint8_t next = SM_PROTO_UDP;
		int error;

		memcpy(chained, frame, 54);
		memcpy(chained + 54 + n * 8, frame + 54, len - 54);
		for (uint32_t i = n; i > 0; i--) {
			chained[54 + (i - 1) * 8] = next;
			next = kinds[(i - 1) % SM_ARRAY_SIZE(kinds)];
		}
		chained[20] = next;
		chained[19] = (uint8_t)(chained[19] + n * 8);
		error = parse(SM_MODE_TAP, chained, len + n * 8, &inet);
		assert_int_equal(error, n <= 8 ? 0 : -EBADMSG);
		if (error < 0)
			continue;
		assert_int_equal(inet.l4, plain->l4 + n * 8);
		assert_int_equal(inet.end, plain->end + n * 8);
		assert_true(sm_inet_verify(&inet, chained));
	}
	free(frame);
}

static void test_pseudo(void **state)
{
	(void)state;
	for (int i = 0; i < CAPTURES; i++) {
		const struct sm_inet *inet = &captures[i].inet;
		uint32_t l4_len = inet->end - inet->l4;
		size_t len, n = 0, ip_len = inet->version == 4 ? 4 : 16;
		uint8_t *frame = capture_of(i, &len), pseudo[40] = {0};

		/* RFC 9293, section 3.1, and RFC 8200, section 8.1 */
		memcpy(pseudo, frame + (inet->version == 4 ? 26 : 22), 2 * ip_len);
		n = 2 * ip_len;
		if (inet->version == 4) {
			pseudo[n + 1] = inet->proto;
			pseudo[n + 3] = (uint8_t)l4_len;
			n += 4;
		} else {
			pseudo[n + 3] = (uint8_t)l4_len;
			pseudo[n + 7] = inet->proto;
			n += 8;
		}
		assert_int_equal(sm_csum_fold(sm_inet_pseudo(inet, frame, l4_len)),
				 sum_slowly(0, pseudo, n));
		free(frame);
	}
}

static void test_verify(void **state)
{
	(void)state;
	for (int i = 0; i < CAPTURES; i++) {
		struct sm_inet inet;
		size_t len;
		uint8_t *frame = capture_of(i, &len);

		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, len, &inet), 0);
		assert_true(sm_inet_verify(&inet, frame));
		for (uint32_t bit = inet.l4 * 8; bit < inet.end * 8; bit++) {
			frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
			/* Without a checksum all is right, unless the bit makes one. */
			if (i != UDP4_NO_CSUM || bit / 8 == inet.l4 + 6 || bit / 8 == inet.l4 + 7)
				assert_false(sm_inet_verify(&inet, frame));
			else
				assert_true(sm_inet_verify(&inet, frame));
			frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		free(frame);
	}
}

static void test_verify_addresses(void **state)
{
	static const int both[] = {TCP4_DATA, UDP6};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(both); i++) {
		const struct sm_inet *inet = &captures[both[i]].inet;
		uint32_t from = inet->version == 4 ? 26 : 22;
		size_t len;
		uint8_t *frame = capture_of(both[i], &len);

		for (uint32_t at = from; at < inet->l4; at++) {
			frame[at] ^= 0x10;
			assert_false(sm_inet_verify(inet, frame));
			frame[at] ^= 0x10;
		}
		free(frame);
	}
}

/* RFC 768: zero says that there is none; RFC 8200, section 8.1: over IPv6 there is always one. */
static void test_verify_zero(void **state)
{
	static const int udp[] = {UDP4, UDP6};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(udp); i++) {
		const struct sm_inet *inet = &captures[udp[i]].inet;
		size_t len;
		uint8_t *frame = capture_of(udp[i], &len);
		uint16_t rest;

		frame[inet->l4 + 6] = frame[inet->l4 + 7] = 0;
		assert_int_equal(sm_inet_verify(inet, frame), inet->version == 4);
		/* A sum that comes out as zero is sent as 0xffff and right in both. */
		frame[inet->payload] = frame[inet->payload + 1] = 0;
		rest = (uint16_t)~sm_csum_fold(
			sm_csum_add(sm_inet_pseudo(inet, frame, inet->end - inet->l4),
				    frame + inet->l4, inet->end - inet->l4));
		sm_csum_store(rest, frame + inet->payload);
		memset(frame + inet->l4 + 6, 0xff, 2);
		assert_true(sm_inet_verify(inet, frame));
		free(frame);
	}
}

/* Each pair was captured one after the other: the first's IP header becomes the second's. */
static void test_set_length(void **state)
{
	static const struct {
		int from, to;
		uint32_t id_add;
	} pairs[] = {
		{TCP4_ACK, TCP4_DATA, 1}, {TCP4_DATA, TCP4_ACK, UINT32_MAX},
		{UDP4, UDP4_NO_CSUM, 1},  {TCP6_ACK, TCP6_DATA, 7},
		{TCP6_DATA, TCP6_ACK, 0}, {UDP6, UDP6_EMPTY, 1},
		{UDP6_EMPTY, UDP6, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(pairs); i++) {
		const struct sm_inet *want = &captures[pairs[i].to].inet;
		struct sm_inet inet = captures[pairs[i].from].inet;
		size_t len, want_len;
		uint8_t *frame = capture_of(pairs[i].from, &len);
		uint8_t *wanted = capture_of(pairs[i].to, &want_len);

		sm_inet_set_length(&inet, frame, want->end - want->payload, pairs[i].id_add);
		expect_inet(&inet, pairs[i].to, 0);
		assert_memory_equal(frame, wanted, inet.l4);
		if (inet.proto == SM_PROTO_UDP)
			assert_memory_equal(frame + inet.l4, wanted + inet.l4, 6);
		free(frame);
		free(wanted);
	}
}

static void test_set_length_kept(void **state)
{
	(void)state;
	for (int i = 0; i < CAPTURES; i++) {
		struct sm_inet inet = captures[i].inet;
		size_t len;
		uint8_t *frame = capture_of(i, &len), *same = capture_of(i, &len);

		sm_inet_set_length(&inet, frame, inet.end - inet.payload, 0);
		assert_memory_equal(frame, same, len);
		sm_inet_set_length(&inet, frame, 60000, 0);
		assert_int_equal(inet.end, inet.payload + 60000);
		assert_int_equal(sm_inet_parse(SM_MODE_TAP, frame, len, &inet), 0);
		assert_int_equal(inet.end, inet.payload + 60000);
		free(frame);
		free(same);
	}
}

static void test_set_length_wraps(void **state)
{
	struct sm_inet inet = captures[UDP4].inet;
	size_t len;
	uint8_t *frame = capture_of(UDP4, &len);

	(void)state;
	sm_inet_set_length(&inet, frame, 3, 0x10000 - 0xc20d);
	assert_memory_equal(frame + 18, "\0\0", 2);
	assert_int_equal(sm_csum_fold(sm_csum_add(0, frame + 14, 20)), 0xffff);
	sm_inet_set_length(&inet, frame, 3, UINT32_MAX);
	assert_memory_equal(frame + 18, "\xff\xff", 2);
	free(frame);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum_known),        cmocka_unit_test(test_sum_any_alignment),
		cmocka_unit_test(test_sum_carries),      cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_vlan),       cmocka_unit_test(test_parse_refused),
		cmocka_unit_test(test_parse_accepted),   cmocka_unit_test(test_parse_chain),
		cmocka_unit_test(test_pseudo),           cmocka_unit_test(test_verify),
		cmocka_unit_test(test_verify_addresses), cmocka_unit_test(test_verify_zero),
		cmocka_unit_test(test_set_length),       cmocka_unit_test(test_set_length_kept),
		cmocka_unit_test(test_set_length_wraps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

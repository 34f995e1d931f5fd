// SPDX-License-Identifier: MIT
/*
 * Frames and IP packets: VLAN tags, claims of addresses by ARP and neighbour discovery, and the ways
 * in which one may try to hide them.
 */
#include "wire/ether.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A frame under construction; all of its bytes are in an exact heap copy when it is looked at. */
struct frame {
	uint8_t b[2048];
	size_t len;
};

static void add(struct frame *f, const void *bytes, size_t len)
{
	assert_true(f->len + len <= sizeof(f->b));
	memcpy(f->b + f->len, bytes, len);
	f->len += len;
}

#define ADD(f, ...) add(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void begin(struct frame *f)
{
	f->len = 0;
	ADD(f, 0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2);
}

static void test_mac_text(void **state)
{
	static const char *const bad[] = {"",
					  "02:00:00:00:00",
					  "02:00:00:00:00:0",
					  "02:00:00:00:00:0g",
					  "02-00-00-00-00-01",
					  "2:00:00:00:00:001",
					  "02:00:00:00:00:01:",
					  "020000000000:0102",
					  " 02:00:00:00:00:1"};
	struct sm_mac mac = {{9, 9, 9, 9, 9, 9}};
	char buf[SM_MAC_STRLEN];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		assert_int_equal(sm_mac_parse(bad[i], &mac), -EINVAL);
	assert_int_equal(mac.b[0], 9);
	assert_int_equal(sm_mac_parse("02:1f:A0:00:Ff:01", &mac), 0);
	assert_memory_equal(mac.b, "\x02\x1f\xa0\x00\xff\x01", 6);
	assert_string_equal(sm_mac_format(&mac, buf), "02:1f:a0:00:ff:01");
	assert_true(sm_mac_to_u64(mac.b) == UINT64_C(0x021fa000ff01));
}

static void test_ether_parse(void **state)
{
	static const struct {
		size_t len;
		uint8_t bytes[32]; /* what follows both addresses */
		uint16_t type, l3;
	} cases[] = {
		{14, {0x08, 0x00}, 0x0800, 14},
		{60, {0x86, 0xdd}, 0x86dd, 14},
		{60, {0x00, 0x2e}, 0x002e, 14}, /* 802.3 length */
		{60, {0x81, 0x00, 0, 5, 0x08, 0x06}, 0x0806, 18},
		{60, {0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x12, 0x34}, 0x1234, 22},
		{60, {0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 8, 0}, 0x8100, 22},
		{18, {0x81, 0x00, 0, 5, 0x08, 0x06}, 0x0806, 18},
		{17, {0x81, 0x00, 0, 5, 0x08}, 0, 17},
		{14, {0x81, 0x00}, 0, 14},
		{21, {0x81, 0x00, 0, 5, 0x81, 0x00, 0, 6, 0x12}, 0, 21},
	};
	struct sm_ether e = {.type = 77};

	(void)state;
	for (size_t len = 0; len < 14; len++)
		assert_int_equal(sm_ether_parse((const uint8_t[14]){0}, len, &e), -EBADMSG);
	assert_int_equal(e.type, 77);
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		uint8_t *frame = calloc(1, cases[i].len);

		memcpy(frame, "\x03\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
		memcpy(frame + 12, cases[i].bytes,
		       SM_MIN(cases[i].len - 12, sizeof(cases[i].bytes)));
		assert_int_equal(sm_ether_parse(frame, cases[i].len, &e), 0);
		assert_true(e.dst == UINT64_C(0x030000000001) && e.src == UINT64_C(0x020000000002));
		assert_true(e.multicast);
		assert_int_equal(e.type, cases[i].type);
		assert_int_equal(e.l3, cases[i].l3);
		frame[0] = 0x02;
		assert_int_equal(sm_ether_parse(frame, cases[i].len, &e), 0);
		assert_false(e.multicast);
		free(frame);
	}
}

/* Looks at the first @len bytes of a frame, out of memory that ends there */
static bool claim_of(const struct frame *f, size_t len, struct sm_addr *ret_ip, bool *ret_hidden)
{
	uint8_t *copy = malloc(len);
	struct sm_ether e;
	bool claimed;

	memcpy(copy, f->b, len);
	assert_int_equal(sm_ether_parse(copy, len, &e), 0);
	claimed = sm_ether_claimed_ip(copy, len, &e, ret_ip);
	*ret_hidden = sm_ether_nd_fragmented(copy, len, &e);
	free(copy);
	return claimed;
}

static void expect_claim(const struct frame *f, const char *ip)
{
	struct sm_addr claimed = {0}, expected;
	bool hidden;

	assert_int_equal(sm_addr_parse(ip, 0, &expected), 0);
	assert_true(claim_of(f, f->len, &claimed, &hidden));
	assert_true(sm_addr_equal(&claimed, &expected));
	assert_false(hidden);
}

static void expect_none(const struct frame *f)
{
	struct sm_addr claimed;
	bool hidden;

	assert_false(claim_of(f, f->len, &claimed, &hidden));
	assert_false(hidden);
}

/* @at: byte of the ARP packet to change, @value: into what */
static void arp(struct frame *f, bool vlan, size_t at, uint8_t value)
{
	size_t start;

	begin(f);
	if (vlan)
		ADD(f, 0x81, 0x00, 0x00, 0x07);
	ADD(f, 0x08, 0x06);
	start = f->len;
	ADD(f, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 7, 0, 2, 0, 0, 0, 0, 0, 0, 10, 7, 0,
	    1);
	f->b[start + at] = value;
}

static void test_arp(void **state)
{
	struct sm_addr ip;
	struct frame f;
	bool hidden;

	(void)state;
	for (int vlan = 0; vlan <= 1; vlan++) {
		arp(&f, vlan, 7, 1); /* request */
		expect_claim(&f, "10.7.0.2");
		for (size_t len = SM_ETH_HEADER_LEN; len < f.len - 10; len++)
			assert_false(claim_of(&f, len, &ip, &hidden));
		arp(&f, vlan, 7, 2); /* reply */
		expect_claim(&f, "10.7.0.2");
		arp(&f, vlan, 1, 6); /* IEEE 802 as hardware type: Linux takes it */
		expect_claim(&f, "10.7.0.2");
		arp(&f, vlan, 2, 9); /* not IPv4 */
		expect_none(&f);
		arp(&f, vlan, 4, 8); /* long hardware address */
		expect_none(&f);
		arp(&f, vlan, 5, 16);
		expect_none(&f);
		arp(&f, vlan, 14, 0); /* 0.7.0.2 is odd, but a claim */
		expect_claim(&f, "0.7.0.2");
		f.b[f.len - 13] = 0;
		f.b[f.len - 11] = 0;
		expect_none(&f); /* 0.0.0.0: a probe */
	}
}

/* Source 2001:db8::2, or none */
static void ipv6(struct frame *f, uint8_t next, bool source)
{
	begin(f);
	ADD(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, next, 255);
	ADD(f, (uint8_t)(source ? 0x20 : 0), (uint8_t)source, (uint8_t)(source ? 0x0d : 0),
	    (uint8_t)(source ? 0xb8 : 0), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	    (uint8_t)(source ? 2 : 0));
	ADD(f, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
}

/* ICMPv6 with target 2001:db8::7 */
static void icmpv6(struct frame *f, uint8_t type)
{
	ADD(f, type, 0, 0, 0, 0, 0, 0, 0);
	ADD(f, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7);
}

static void extension(struct frame *f, uint8_t next, uint8_t units)
{
	static const uint8_t zero[8];

	ADD(f, next, units, 1, 4, 0, 0, 0, 0);
	for (unsigned i = 0; i < units; i++)
		add(f, zero, sizeof(zero));
}

static void fragment(struct frame *f, uint8_t next, uint16_t offset, bool more)
{
	uint16_t field = (uint16_t)(offset << 3 | more);

	ADD(f, next, 0, (uint8_t)(field >> 8), (uint8_t)field, 1, 2, 3, 4);
}

static const struct {
	uint8_t type;
	const char *with_source, *without;
} nd_types[] = {
	{133, "2001:db8::2", NULL},
	{134, "2001:db8::2", NULL},
	{135, "2001:db8::2", NULL},
	{136, "2001:db8::7", "2001:db8::7"},
	{137, "2001:db8::7", "2001:db8::7"},
	{128, NULL, NULL},
	{129, NULL, NULL},
	{132, NULL, NULL},
	{138, NULL, NULL},
};

/* All that stands between the IPv6 header and ICMPv6 in the tables below */
static const struct {
	uint8_t count;
	uint8_t header[9], units[9];
} chains[] = {
	{0, {0}, {0}},
	{1, {0}, {0}},  /* hop by hop */
	{1, {60}, {3}}, /* destination options */
	{1, {43}, {2}}, /* routing */
	{3, {0, 60, 43}, {1, 0, 2}},
	{8, {60, 60, 60, 60, 60, 60, 60, 60}, {0, 1, 2, 3, 4, 5, 6, 7}},
};

static void test_nd(void **state)
{
	struct sm_addr ip;
	struct frame f;
	bool hidden;

	(void)state;
	for (size_t c = 0; c < SM_ARRAY_SIZE(chains); c++) {
		for (size_t t = 0; t < 2 * SM_ARRAY_SIZE(nd_types); t++) {
			bool source = t % 2 == 0;
			uint8_t type = nd_types[t / 2].type, count = chains[c].count;
			const char *claim = source ? nd_types[t / 2].with_source
						   : nd_types[t / 2].without;

			ipv6(&f, count > 0 ? chains[c].header[0] : 58, source);
			for (unsigned i = 0; i < count; i++)
				extension(&f, i + 1 < count ? chains[c].header[i + 1] : 58,
					  chains[c].units[i]);
			icmpv6(&f, type);
			if (claim)
				expect_claim(&f, claim);
			else
				expect_none(&f);
			/* Cut off anywhere: no read past the end, and no invented address */
			for (size_t len = SM_ETH_HEADER_LEN; len < f.len; len++) {
				if (claim_of(&f, len, &ip, &hidden))
					assert_true(claim && len > f.len - 24);
			}
		}
	}
}

static void test_nd_authenticated(void **state)
{
	struct frame f;

	(void)state;
	ipv6(&f, 51, true);
	extension(&f, 58, 1); /* counts in units of four bytes: 12 in all */
	f.len -= 4;
	icmpv6(&f, 136);
	expect_claim(&f, "2001:db8::7");
}

static void test_not_nd(void **state)
{
	struct frame f;

	(void)state;
	ipv6(&f, 17, true); /* UDP */
	icmpv6(&f, 136);
	expect_none(&f);
	ipv6(&f, 59, true); /* no next header, nothing follows */
	expect_none(&f);
	ipv6(&f, 50, true); /* ESP */
	icmpv6(&f, 136);
	expect_none(&f);
	ipv6(&f, 58, true);
	icmpv6(&f, 136);
	f.b[14] = 0x40; /* says version 4 */
	expect_none(&f);
	f.b[14] = 0x60;
	f.b[12] = 0x08, f.b[13] = 0x00; /* EtherType of IPv4 */
	expect_none(&f);
	ipv6(&f, 58, true);
	icmpv6(&f, 136);
	memcpy(f.b + f.len - 16, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x07\x00\x01", 16);
	expect_none(&f); /* a mapped target is no address */
}

static bool hidden_in(const struct frame *f)
{
	struct sm_addr ip;
	bool hidden;

	(void)claim_of(f, f->len, &ip, &hidden);
	return hidden;
}

static void test_nd_in_fragments(void **state)
{
	struct frame f;

	(void)state;
	for (size_t t = 0; t < SM_ARRAY_SIZE(nd_types); t++) {
		bool nd = nd_types[t].with_source != NULL;

		for (int more = 0; more <= 1; more++) { /* without: an atomic fragment */
			ipv6(&f, 44, true);
			fragment(&f, 58, 0, more);
			icmpv6(&f, nd_types[t].type);
			assert_int_equal(hidden_in(&f), nd);

			ipv6(&f, 0, true);
			extension(&f, 44, 1);
			fragment(&f, 60, 0, more);
			extension(&f, 58, 0);
			icmpv6(&f, nd_types[t].type);
			assert_int_equal(hidden_in(&f), nd);
		}
		/* A later fragment passes, whatever it looks like. */
		ipv6(&f, 44, true);
		fragment(&f, 58, 1, false);
		icmpv6(&f, nd_types[t].type);
		expect_none(&f);
	}
	ipv6(&f, 44, true);
	fragment(&f, 17, 0, true);
	icmpv6(&f, 136);
	assert_false(hidden_in(&f));
}

static void test_first_fragment_cut(void **state)
{
	struct frame f;

	(void)state;
	ipv6(&f, 44, true);
	fragment(&f, 60, 0, true); /* promises options, and ends */
	assert_true(hidden_in(&f));
	extension(&f, 58, 1);
	assert_true(hidden_in(&f)); /* promises ICMPv6, and ends */
	f.len -= 8;
	assert_true(hidden_in(&f)); /* ends within the options */
	ipv6(&f, 44, true);
	fragment(&f, 58, 0, true);
	f.len -= 3;
	assert_true(hidden_in(&f)); /* ends within the fragment header */
}

static void test_chain_too_long(void **state)
{
	struct sm_addr ip;
	struct frame f;
	bool hidden;

	(void)state;
	for (unsigned count = 7; count < 12; count++) {
		ipv6(&f, 60, true);
		for (unsigned i = 0; i < count; i++)
			extension(&f, i + 1 < count ? 60 : 58, 0);
		icmpv6(&f, 136);
		assert_int_equal(claim_of(&f, f.len, &ip, &hidden), count <= 8);
		assert_int_equal(hidden, count > 8);
	}
}

static void test_ip_parse(void **state)
{
	static const uint8_t v4[] = {0x45, 0, 0,  28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 7,
				     0,    1, 10, 7,  0, 2, 0, 1, 0,  2,  0, 8, 0,  0};
	uint8_t v6[48] = {0x60, 0,   0,    0,        0,    8, 17,  64,   0x20,
			  1,    0xd, 0xb8, [23] = 1, 0x20, 1, 0xd, 0xb8, [39] = 2};
	static const struct {
		size_t at;
		uint8_t value;
	} bad_v4[] = {{0, 0x44}, {0, 0x4f}, {0, 0x55}, {0, 0x05}, {3, 29}, {3, 19}, {2, 1}},
	  bad_v6[] = {{0, 0x50}, {5, 9}, {4, 1}};
	struct sm_addr src, dst;
	char buf[SM_ADDR_STRLEN];
	uint8_t copy[sizeof(v6)];

	(void)state;
	assert_int_equal(sm_ip_parse(v4, sizeof(v4), &src, &dst), 0);
	assert_string_equal(sm_addr_format(&src, buf), "10.7.0.1:0");
	assert_string_equal(sm_addr_format(&dst, buf), "10.7.0.2:0");
	assert_int_equal(sm_ip_parse(v6, sizeof(v6), &src, &dst), 0);
	assert_string_equal(sm_addr_format(&src, buf), "[2001:db8::1]:0");
	assert_string_equal(sm_addr_format(&dst, buf), "[2001:db8::2]:0");

	for (size_t len = 0; len < sizeof(v4); len++)
		assert_int_equal(sm_ip_parse(v4, len, &src, &dst), -EBADMSG);
	for (size_t len = 0; len < sizeof(v6); len++)
		assert_int_equal(sm_ip_parse(v6, len, &src, &dst), -EBADMSG);
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad_v4); i++) {
		memcpy(copy, v4, sizeof(v4));
		copy[bad_v4[i].at] = bad_v4[i].value;
		assert_int_equal(sm_ip_parse(copy, sizeof(v4), &src, &dst), -EBADMSG);
	}
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad_v6); i++) {
		memcpy(copy, v6, sizeof(v6));
		copy[bad_v6[i].at] = bad_v6[i].value;
		assert_int_equal(sm_ip_parse(copy, sizeof(v6), &src, &dst), -EBADMSG);
	}
	assert_string_equal(sm_addr_format(&src, buf),
			    "[2001:db8::1]:0"); /* untouched by failures */
	memcpy(v6 + 8, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x07\x00\x01", 16);
	assert_int_equal(sm_ip_parse(v6, sizeof(v6), &src, &dst), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mac_text),
		cmocka_unit_test(test_ether_parse),
		cmocka_unit_test(test_arp),
		cmocka_unit_test(test_nd),
		cmocka_unit_test(test_nd_authenticated),
		cmocka_unit_test(test_not_nd),
		cmocka_unit_test(test_nd_in_fragments),
		cmocka_unit_test(test_first_fragment_cut),
		cmocka_unit_test(test_chain_too_long),
		cmocka_unit_test(test_ip_parse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

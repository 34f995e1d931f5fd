// SPDX-License-Identifier: MIT
/*
 * Addresses and prefixes: text, sockaddr and the invariants between them.
 */
#include "base/addr.h"
#include "rng.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_parse_and_format(void **state)
{
	static const struct {
		const char *text, *printed; /* printed NULL: refused */
	} cases[] = {
		{"192.0.2.1", "192.0.2.1:9"},
		{"192.0.2.1:1", "192.0.2.1:1"},
		{"192.0.2.1:65535", "192.0.2.1:65535"},
		{"192.0.2.1:0", "192.0.2.1:0"},
		{"[192.0.2.1]:1", NULL},
		{"::", "[::]:9"},
		{"::1", "[::1]:9"},
		{"[::1]", "[::1]:9"},
		{"[::1]:1", "[::1]:1"},
		{"[2001:DB8:0:0::5]:9443", "[2001:db8::5]:9443"},
		{"2001:db8:1:2:3:4:5:6", "[2001:db8:1:2:3:4:5:6]:9"},
		{"::ffff:192.0.2.1", "192.0.2.1:9"},
		{"[::ffff:192.0.2.1]:5", "192.0.2.1:5"},
		{"fe80::1", "[fe80::1]:9"},
		{"fe80::1%lo", "[fe80::1%lo]:9"},
		{"[fe80::1%lo]:7", "[fe80::1%lo]:7"},
		{"fe80::1%4000000000", "[fe80::1%4000000000]:9"},
		{"fe80::1%", NULL},
		{"fe80::1%0", NULL},
		{"fe80::1%4294967296", NULL},
		{"fe80::1%no-such-if", NULL},
		{"2001:db8::1%lo", NULL},
		{"192.0.2.1%lo", NULL},
		{"", NULL},
		{"192.0.2", NULL},
		{"192.0.2.256", NULL},
		{"192.0.2.1:", NULL},
		{"192.0.2.1:65536", NULL},
		{"192.0.2.1:000001", NULL},
		{"192.0.2.1:-1", NULL},
		{"192.0.2.1: 1", NULL},
		{"192.0.2.1 ", NULL},
		{"[::1", NULL},
		{"[::1]1", NULL},
		{"[::1]:", NULL},
		{"[]:1", NULL},
		{"::1]:1", NULL},
		{":1", NULL},
		{":", NULL},
		{"[", NULL},
		{"host:1", NULL},
		{"2001:db8:1:2:3:4:5:6:7", NULL},
		{"1111111111111111111111111111111111111111111111111111111111111111111111111111",
		 NULL},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_addr a, before;
		char buf[SM_ADDR_STRLEN];
		int r;

		memset(&a, 0x55, sizeof(a));
		before = a;
		r = sm_addr_parse(cases[i].text, 9, &a);
		if (r != (cases[i].printed ? 0 : -EINVAL))
			fail_msg("\"%s\" gave %d", cases[i].text, r);
		if (cases[i].printed)
			assert_string_equal(sm_addr_format(&a, buf), cases[i].printed);
		else
			assert_memory_equal(&a, &before, sizeof(a));
	}
}

static void test_format_ip(void **state)
{
	struct sm_addr a = {0};
	char buf[SM_ADDR_STRLEN];

	(void)state;
	assert_string_equal(sm_addr_format(&a, buf), "none");
	assert_string_equal(sm_addr_format_ip(&a, buf), "none");
	assert_int_equal(sm_addr_parse("[fe80::2%lo]:80", 0, &a), 0);
	assert_int_equal(a.scope, if_nametoindex("lo"));
	assert_string_equal(sm_addr_format_ip(&a, buf), "fe80::2%lo");
	/* The longest: all digits, a scope of ten */
	memset(a.ip, 0xfe, sizeof(a.ip));
	a.ip[1] = 0x9e;
	a.scope = UINT32_MAX;
	a.port = 65535;
	assert_string_equal(sm_addr_format(&a, buf),
			    "[fe9e:fefe:fefe:fefe:fefe:fefe:fefe:fefe%4294967295]:65535");
}

static void test_equal(void **state)
{
	struct sm_addr a, b;

	(void)state;
	assert_int_equal(sm_addr_parse("192.0.2.1:1", 0, &a), 0);
	assert_int_equal(sm_addr_parse("192.0.2.1:1", 0, &b), 0);
	assert_true(sm_addr_equal(&a, &b) && sm_addr_same_ip(&a, &b));
	b.port = 2;
	assert_false(sm_addr_equal(&a, &b));
	assert_true(sm_addr_same_ip(&a, &b));
	b = a;
	b.ip[3] = 2;
	assert_false(sm_addr_equal(&a, &b) || sm_addr_same_ip(&a, &b));
	b = a;
	b.family = 6;
	assert_false(sm_addr_equal(&a, &b) || sm_addr_same_ip(&a, &b));
}

static void test_sockaddr_round_trip(void **state)
{
	static const char *const texts[] = {"192.0.2.1:9443", "[2001:db8::1]:1", "[fe80::1%lo]:5"};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(texts); i++) {
		for (int mapped = 0; mapped <= 1; mapped++) {
			struct sm_addr a, back;
			struct sockaddr_storage sa;
			socklen_t len;

			assert_int_equal(sm_addr_parse(texts[i], 0, &a), 0);
			memset(&sa, 0xff, sizeof(sa));
			memset(&back, 0xff, sizeof(back));
			len = sm_addr_to_sockaddr(&a, mapped, &sa);
			assert_int_equal(sa.ss_family,
					 a.family == 4 && !mapped ? AF_INET : AF_INET6);
			assert_int_equal(len, sa.ss_family == AF_INET
						      ? sizeof(struct sockaddr_in)
						      : sizeof(struct sockaddr_in6));
			assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, &back), 0);
			assert_true(sm_addr_equal(&a, &back));
		}
	}
}

static void test_sockaddr_details(void **state)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(0x1234),
				   .sin6_scope_id = 3,
				   .sin6_flowinfo = 7};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(0x1234)};
	struct sockaddr other = {.sa_family = AF_UNIX};
	struct sockaddr_storage sa;
	struct sm_addr a = {.port = 99};

	(void)state;
	assert_int_equal(sm_addr_from_sockaddr(&other, &a), -EAFNOSUPPORT);
	assert_int_equal(a.port, 99);

	memset(&in6.sin6_addr, 0x20, 16);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&in6, &a), 0);
	assert_int_equal(a.scope, 0); /* not link-local: the scope means nothing */
	assert_int_equal(a.port, 0x1234);
	assert_int_equal(inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr), 1);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&in6, &a), 0);
	assert_int_equal(a.scope, 3);
	assert_int_equal(inet_pton(AF_INET6, "::ffff:10.1.2.3", &in6.sin6_addr), 1);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&in6, &a), 0);
	assert_int_equal(a.family, 4);
	assert_int_equal(a.scope, 0);
	assert_memory_equal(a.ip, "\x0a\x01\x02\x03\0\0\0\0\0\0\0\0\0\0\0", 16);

	in.sin_addr.s_addr = htonl(0x0a010203);
	assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&in, &a), 0);
	assert_int_equal(sm_addr_to_sockaddr(&a, true, &sa), sizeof(struct sockaddr_in6));
	memcpy(&in6, &sa, sizeof(in6));
	assert_memory_equal(&in6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x01\x02\x03", 16);
	assert_int_equal(ntohs(in6.sin6_port), 0x1234);
	assert_int_equal(in6.sin6_flowinfo, 0);
}

static void test_from_ip(void **state)
{
	static const uint8_t mapped[16] = {[10] = 0xff, 0xff, 1, 2, 3, 4};
	struct sm_addr a = {.port = 5};

	(void)state;
	assert_int_equal(sm_addr_from_ip(6, mapped, 1, &a), -EINVAL);
	assert_int_equal(sm_addr_from_ip(0, mapped, 1, &a), -EINVAL);
	assert_int_equal(sm_addr_from_ip(5, mapped, 1, &a), -EINVAL);
	assert_int_equal(a.port, 5);
	assert_int_equal(sm_addr_from_ip(4, mapped + 12, 1, &a), 0);
	assert_memory_equal(a.ip, "\1\2\3\4\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(a.port, 1);
}

static void test_prefix_parse(void **state)
{
	static const struct {
		const char *text, *printed;
	} cases[] = {
		{"10.7.0.1/24", "10.7.0.1/24"},
		{"10.7.0.1", "10.7.0.1/32"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"2001:db8::1", "2001:db8::1/128"},
		{"::/0", "::/0"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8"},
		{"::ffff:10.0.0.1", "10.0.0.1/32"},
		{"::ffff:0.0.0.0/95", NULL},
		{"10.7.0.1/33", NULL},
		{"10.7.0.1/", NULL},
		{"10.7.0.1/-1", NULL},
		{"10.7.0.1/0024", NULL},
		{"10.7.0.1/24/24", NULL},
		{"10.7.0.1/255.255.255.0", NULL},
		{"2001:db8::/129", NULL},
		{"10.7.0/24", NULL},
		{"/24", NULL},
		{"", NULL},
		{"fe80::1%lo/64", NULL},
		{"1111111111111111111111111111111111111111111111111111111111111111111111111111",
		 NULL},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_prefix p = {.len = 77};
		char buf[SM_ADDR_STRLEN];
		int r = sm_prefix_parse(cases[i].text, &p);

		if (r != (cases[i].printed ? 0 : -EINVAL))
			fail_msg("\"%s\" gave %d", cases[i].text, r);
		if (cases[i].printed)
			assert_string_equal(sm_prefix_format(&p, buf), cases[i].printed);
		else
			assert_int_equal(p.len, 77);
	}
}

static void test_prefix_contains(void **state)
{
	static const struct {
		const char *prefix, *ip;
		bool inside;
	} cases[] = {
		{"10.7.0.9/24", "10.7.0.1", true},
		{"10.7.0.0/24", "10.7.1.1", false},
		{"10.7.0.0/23", "10.7.1.1", true},
		{"10.7.0.0/23", "10.7.2.1", false},
		{"10.7.0.1", "10.7.0.1", true},
		{"10.7.0.1", "10.7.0.2", false},
		{"0.0.0.0/0", "255.1.2.3", true},
		{"0.0.0.0/0", "::1", false},
		{"::/0", "1.2.3.4", false},
		{"2001:db8::/33", "2001:db8:7fff::1", true},
		{"2001:db8::/33", "2001:db8:8000::1", false},
		{"2001:db8::1", "2001:db8::1", true},
		{"2001:db8::1", "2001:db8::", false},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_prefix p;
		struct sm_addr a;

		assert_int_equal(sm_prefix_parse(cases[i].prefix, &p), 0);
		assert_int_equal(sm_addr_parse(cases[i].ip, 0, &a), 0);
		assert_int_equal(sm_prefix_contains(&p, a.family, a.ip), cases[i].inside);
	}
}

/* Two prefixes overlap exactly when one of them contains the other's first address. */
static void test_prefix_overlaps(void **state)
{
	struct rng rng = rng_init(__func__);
	unsigned overlapping = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct sm_prefix a = {.family = 4, .len = (uint8_t)rng_below(&rng, 33)}, b = a;
		uint32_t differ = 1u << rng_below(&rng, 32);
		bool expected;

		rng_fill(&rng, a.ip, 4);
		b.len = (uint8_t)rng_below(&rng, 33);
		memcpy(b.ip, a.ip, 4);
		for (int j = 0; j < 4; j++)
			b.ip[j] ^= (uint8_t)(differ >> 8 * j);
		expected = sm_prefix_contains(&a, 4, b.ip) || sm_prefix_contains(&b, 4, a.ip);
		overlapping += expected;
		assert_int_equal(sm_prefix_overlaps(&a, &b), expected);
		assert_int_equal(sm_prefix_overlaps(&b, &a), expected);
		b.family = 6;
		assert_false(sm_prefix_overlaps(&a, &b));
	}
	assert_in_range(overlapping, 1000, 19000);
}

static void test_prefix_malformed(void **state)
{
	static const uint8_t ip[16] = {0};
	struct sm_prefix none = {0}, too_long = {.family = 4, .len = 33}, all = {.family = 4};

	(void)state;
	assert_false(sm_prefix_contains(&none, 0, ip));
	assert_false(sm_prefix_overlaps(&none, &none));
	assert_false(sm_prefix_contains(&too_long, 4, ip));
	assert_false(sm_prefix_overlaps(&too_long, &all));
	assert_true(sm_prefix_overlaps(&all, &all));
}

static void test_global_unicast(void **state)
{
	static const struct {
		const char *ip;
		bool global;
	} cases[] = {
		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"127.0.0.1", false},
		{"127.255.255.255", false},
		{"128.0.0.1", true},
		{"169.254.1.1", false},
		{"169.253.1.1", true},
		{"224.0.0.1", false},
		{"223.255.255.255", true},
		{"239.1.1.1", false},
		{"255.255.255.255", false},
		{"10.0.0.1", true},
		{"192.168.1.1", true},
		{"1.1.1.1", true},
		{"::", false},
		{"::1", false},
		{"::2", true},
		{"fe80::1", false},
		{"febf::1", false},
		{"fec0::1", true},
		{"ff02::1", false},
		{"fd00::1", true},
		{"2001:db8::1", true},
	};
	struct sm_addr a = {0};

	(void)state;
	assert_false(sm_addr_is_global_unicast(&a));
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(sm_addr_parse(cases[i].ip, 0, &a), 0);
		if (sm_addr_is_global_unicast(&a) != cases[i].global)
			fail_msg("%s", cases[i].ip);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_format),
		cmocka_unit_test(test_format_ip),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_sockaddr_round_trip),
		cmocka_unit_test(test_sockaddr_details),
		cmocka_unit_test(test_from_ip),
		cmocka_unit_test(test_prefix_parse),
		cmocka_unit_test(test_prefix_contains),
		cmocka_unit_test(test_prefix_overlaps),
		cmocka_unit_test(test_prefix_malformed),
		cmocka_unit_test(test_global_unicast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Text to values and back, with what must be refused.
 */
#include "base/text.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_hex(void **state)
{
	static const char *const bad[] = {"",         "0",         "00112",
					  "0011223",  "001122334", "0011gg33",
					  "0x112233", " 0112233",  "001122 3"};
	uint8_t data[4] = {9, 9, 9, 9};
	char out[9];

	(void)state;
	assert_string_equal(sm_text_hex("\x00\x1f\xa0\xff", 4, out), "001fa0ff");
	assert_string_equal(sm_text_hex("", 0, out), "");
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		assert_int_equal(sm_text_parse_hex(bad[i], data, 4), -EINVAL);
	assert_memory_equal(data, "\x09\x09\x09\x09", 4);
	assert_int_equal(sm_text_parse_hex("001fA0Ff", data, 4), 0);
	assert_memory_equal(data, "\x00\x1f\xa0\xff", 4);
	assert_int_equal(sm_text_parse_hex("", data, 0), 0);
}

static void test_u64(void **state)
{
	static const struct {
		const char *text;
		uint64_t min, max;
		int result;
		uint64_t value;
	} cases[] = {
		{"0", 0, 9, 0, 0},
		{"007", 0, 9, 0, 7},
		{"9", 0, 9, 0, 9},
		{"10", 0, 9, -ERANGE, 0},
		{"4", 5, 9, -ERANGE, 0},
		{"18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX},
		{"18446744073709551616", 0, UINT64_MAX, -ERANGE, 0},
		{"99999999999999999999999", 0, UINT64_MAX, -ERANGE, 0},
		{"99999999999999999999999x", 0, UINT64_MAX, -EINVAL, 0},
		{"", 0, 9, -EINVAL, 0},
		{"-1", 0, UINT64_MAX, -EINVAL, 0},
		{"+1", 0, 9, -EINVAL, 0},
		{" 1", 0, 9, -EINVAL, 0},
		{"1 ", 0, 9, -EINVAL, 0},
		{"0x1", 0, 9, -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		uint64_t value = 77;

		assert_int_equal(sm_text_parse_u64(cases[i].text, cases[i].min, cases[i].max,
						   &value),
				 cases[i].result);
		assert_true(value == (cases[i].result < 0 ? 77 : cases[i].value));
	}
}

static void test_bool(void **state)
{
	static const char *const yes[] = {"yes", "true", "on", "1", "Yes", "TRUE"};
	static const char *const no[] = {"no", "false", "off", "0", "Off"};
	static const char *const bad[] = {"", "y", "2", "yes ", "01"};
	bool value;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(yes); i++) {
		value = false;
		assert_int_equal(sm_text_parse_bool(yes[i], &value), 0);
		assert_true(value);
	}
	for (size_t i = 0; i < SM_ARRAY_SIZE(no); i++) {
		value = true;
		assert_int_equal(sm_text_parse_bool(no[i], &value), 0);
		assert_false(value);
	}
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		assert_int_equal(sm_text_parse_bool(bad[i], &value), -EINVAL);
}

#define S SM_SEC_US

static void test_duration_parse(void **state)
{
	static const struct {
		const char *text;
		int result;
		uint64_t us;
	} cases[] = {
		{"0", 0, 0},
		{"10", 0, 10 * S},
		{"10s", 0, 10 * S},
		{"10 s", 0, 10 * S},
		{"7us", 0, 7},
		{"200ms", 0, 200000},
		{"5min", 0, 300 * S},
		{"5m", 0, 300 * S},
		{"2h", 0, 7200 * S},
		{"365d", 0, 31536000 * S},
		{"1y", 0, 31536000 * S},
		{"2w", 0, 1209600 * S},
		{"1h 30min", 0, 5400 * S},
		{"1h30min", 0, 5400 * S},
		{"1 d 3 h ", 0, 97200 * S},
		{"9223372036854775807us", 0, INT64_MAX},
		{"9223372036854775808us", -ERANGE, 0},
		{"9223372036854775807us 1us", -ERANGE, 0},
		{"18446744073709551616us", -ERANGE, 0},
		{"999999999y", -ERANGE, 0},
		{"", -EINVAL, 0},
		{" 1s", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{"-1s", -EINVAL, 0},
		{"1.5s", -EINVAL, 0},
		{"1S", -EINVAL, 0},
		{"1sec", -EINVAL, 0},
		{"1h 30", -EINVAL, 0},
		{"10 10", -EINVAL, 0},
		{"1h,", -EINVAL, 0},
		{"999999999y x", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		uint64_t us = 77;

		if (sm_text_parse_duration(cases[i].text, &us) != cases[i].result ||
		    us != (cases[i].result < 0 ? 77 : cases[i].us))
			fail_msg("\"%s\" gave %llu", cases[i].text, (unsigned long long)us);
	}
}

static void test_duration_format(void **state)
{
	static const struct {
		uint64_t us;
		const char *text;
	} cases[] = {
		{0, "0 s"},
		{1, "1 us"},
		{999, "999 us"},
		{1000, "1 ms"},
		{812999, "812 ms"},
		{S, "1 s"},
		{59999999, "59 s"},
		{60 * S, "1 min"},
		{250 * S, "4 min 10 s"},
		{3600 * S, "1 h"},
		{5400 * S, "1 h 30 min"},
		{97200 * S, "1 d 3 h"},
		{86400 * S * 1000, "1000 d"},
		{UINT64_MAX, "213503982 d 8 h"},
	};
	char buf[40], tiny[4];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++)
		assert_string_equal(sm_text_format_duration(cases[i].us, buf, sizeof(buf)),
				    cases[i].text);
	assert_string_equal(sm_text_format_duration(250 * S, tiny, sizeof(tiny)), "4 m");
}

/* What was printed can be read again, and is not more than what it was made of. */
static void test_duration_round_trip(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (int i = 0; i < 20000; i++) {
		uint64_t us = rng_u64(&rng) >> (1 + rng_below(&rng, 63)), back = 0, unit;
		char buf[40], again[40];

		sm_text_format_duration(us, buf, sizeof(buf));
		assert_int_equal(sm_text_parse_duration(buf, &back), 0);
		unit = us < 1000        ? 1
		       : us < S         ? 1000
		       : us < 3600 * S  ? S
		       : us < 86400 * S ? 60 * S
					: 3600 * S;
		assert_true(back <= us && us - back < unit);
		assert_string_equal(sm_text_format_duration(back, again, sizeof(again)), buf);
	}
}

static void test_bytes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{999, "999 B"},
		{1000, "1.0 kB"},
		{1049, "1.0 kB"},
		{1050, "1.1 kB"},
		{999949, "999.9 kB"},
		{999950, "1.0 MB"},
		{1500000, "1.5 MB"},
		{999950000000000000, "1.0 EB"},
		{UINT64_MAX, "18.4 EB"},
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++)
		assert_string_equal(sm_text_format_bytes(cases[i].bytes, buf, sizeof(buf)),
				    cases[i].text);
}

static void test_name(void **state)
{
	static const char *const good[] = {
		"a", "0", "a-b", "node-1",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 63 */};
	static const char *const bad[] = {
		"",
		"-",
		"-a",
		"a-",
		"A",
		"a.b",
		"a_b",
		"a b",
		"a\n",
		"\xc3\xa4",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 64 */};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(good); i++)
		assert_true(sm_text_is_name(good[i]));
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++)
		assert_false(sm_text_is_name(bad[i]));
}

static void test_trim(void **state)
{
	static const struct {
		const char *text, *kept;
	} cases[] = {
		{"", ""},     {"   ", ""},           {"a", "a"},
		{" a ", "a"}, {"\t a b\r\n", "a b"}, {"a\v\f", "a"},
	};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++)
		assert_string_equal(sm_text_trim(strcpy(buf, cases[i].text)), cases[i].kept);
}

static void test_char_len(void **state)
{
	static const struct {
		const char *text;
		size_t given, len;
	} cases[] = {
		{"a", 1, 1},
		{"a", 0, 0},
		{"~", 1, 1},
		{" ", 1, 1},
		{"\x00", 1, 0},
		{"\n", 1, 0},
		{"\x1b", 1, 0},
		{"\x7f", 1, 0},
		{"\xc3\xa4", 2, 2}, /* a umlaut */
		{"\xc3\xa4", 1, 0}, /* cut off */
		{"\xc3x", 2, 0},
		{"\xc2\x9b", 2, 0}, /* CSI, a control character */
		{"\xc2\xa0", 2, 2},
		{"\x9b", 1, 0},
		{"\xe2\x82\xac", 3, 3},     /* euro sign */
		{"\xe2\x80\xa8", 3, 0},     /* line separator */
		{"\xe2\x80\xae", 3, 0},     /* right-to-left override */
		{"\xed\xa0\x80", 3, 0},     /* surrogate */
		{"\xef\xbb\xbf", 3, 0},     /* byte order mark */
		{"\xf0\x9f\x99\x82", 4, 4}, /* a face */
		{"\xf0\x9f\x99", 3, 0},
		{"\xc0\xaf", 2, 0}, /* overlong */
		{"\xe0\x80\xaf", 3, 0},
		{"\xf0\x80\x80\xaf", 4, 0},
		{"\xf4\x90\x80\x80", 4, 0}, /* above U+10FFFF */
		{"\xf8\x88\x80\x80\x80", 5, 0},
		{"\xff", 1, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		if (sm_text_char_len(cases[i].text, cases[i].given) != cases[i].len)
			fail_msg("case %zu", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_duration_parse),
		cmocka_unit_test(test_duration_format),
		cmocka_unit_test(test_duration_round_trip),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_char_len),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

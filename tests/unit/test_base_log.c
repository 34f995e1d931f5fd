// SPDX-License-Identifier: MIT
/*
 * Log lines: levels, escaping, cutting, what reaches stderr, and the limit.
 */
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct {
	unsigned count;
	enum sm_log_level level;
	char text[4096];
} seen;

static void sink(void *arg, enum sm_log_level level, const char *text)
{
	assert_ptr_equal(arg, &seen);
	seen.count++;
	seen.level = level;
	(void)snprintf(seen.text, sizeof(seen.text), "%s", text);
}

static int set_sink(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	sm_log_set_sink(sink, &seen);
	sm_log_set_level(SM_LOG_INFO);
	return 0;
}

static int reset_sink(void **state)
{
	(void)state;
	sm_log_set_sink(NULL, NULL);
	sm_log_set_level(SM_LOG_INFO);
	return 0;
}

static void test_levels(void **state)
{
	static const char *const names[] = {"error", "warn", "notice", "info", "debug"};
	enum sm_log_level level;

	(void)state;
	assert_int_equal(sm_log_get_level(), SM_LOG_INFO);
	for (unsigned i = 0; i < SM_LOG_LEVEL_COUNT; i++) {
		assert_string_equal(sm_log_level_name((enum sm_log_level)i), names[i]);
		assert_int_equal(sm_log_level_parse(names[i], &level), 0);
		assert_int_equal(level, i);

		/* With this level set, lines up to it pass and the others do not. */
		sm_log_set_level((enum sm_log_level)i);
		assert_int_equal(sm_log_get_level(), i);
		seen.count = 0;
		sm_error("x");
		sm_warn("x");
		sm_notice("x");
		sm_info("x");
		sm_debug("x");
		assert_int_equal(seen.count, i + 1);
		assert_int_equal(seen.level, i);
	}
	assert_int_equal(sm_log_level_parse("Error", &level), -EINVAL);
	assert_int_equal(sm_log_level_parse("", &level), -EINVAL);
}

static void test_escaping(void **state)
{
	static const struct {
		const char *raw, *text;
	} cases[] = {
		{"plain", "plain"},
		{"", ""},
		{"two\nlines\r", "two\\x0alines\\x0d"},
		{"\x1b[31mred\x7f", "\\x1b[31mred\\x7f"},
		{"tab\t", "tab\\x09"},
		{"\xc3\xa4 \xe2\x82\xac", "\xc3\xa4 \xe2\x82\xac"},
		{"\xc2\x9b", "\\xc2\\x9b"},
		{"\x9b\xff", "\\x9b\\xff"},
		{"\xc3", "\\xc3"},
		{"100%", "100%"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		sm_info("%s", cases[i].raw);
		assert_string_equal(seen.text, cases[i].text);
	}
	assert_int_equal(seen.count, SM_ARRAY_SIZE(cases));
}

static void test_long_lines(void **state)
{
	char raw[5000], filler;

	(void)state;
	memset(raw, 'a', sizeof(raw) - 1);
	raw[sizeof(raw) - 1] = '\0';
	sm_info("%s", raw);
	assert_in_range(strlen(seen.text), 1000, 2047);
	assert_string_equal(seen.text + strlen(seen.text) - 4, "a...");

	/* All to be escaped: four times as long */
	memset(raw, '\n', sizeof(raw) - 1);
	sm_info("%s", raw);
	assert_in_range(strlen(seen.text), 1000, 2047);
	assert_string_equal(seen.text + strlen(seen.text) - 7, "\\x0a...");

	/* The cut through a character leaves no half of it, wherever it falls. */
	for (unsigned shift = 0; shift < 4; shift++) {
		memset(raw, 'b', shift);
		for (size_t i = shift; i + 4 < sizeof(raw); i += 4)
			memcpy(raw + i, "\xf0\x9f\x99\x82", 4);
		raw[sizeof(raw) - 5] = '\0';
		sm_info("%s", raw);
		assert_null(strstr(seen.text, "\\x"));
		assert_string_equal(seen.text + strlen(seen.text) - 4, "\x82...");
	}

	/* Exactly what fits is not marked as cut. */
	for (size_t len = 1000; len < 1030; len++) {
		memset(raw, 'c', len);
		raw[len] = '\0';
		sm_info("%s", raw);
		filler = seen.text[strlen(seen.text) - 1];
		assert_int_equal(filler, len < 1024 ? 'c' : '.');
	}
}

static void test_errno_survives(void **state)
{
	(void)state;
	errno = ENOENT;
	sm_info("%m");
	assert_string_equal(seen.text, "No such file or directory");
	assert_int_equal(errno, ENOENT);
}

/* Replaces stderr by a datagram socket, on which each write(2) stays one message. */
static int capture_stderr(int *ret_saved)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	*ret_saved = dup(STDERR_FILENO);
	assert_true(*ret_saved >= 0);
	assert_int_equal(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
	close(pair[1]);
	return pair[0];
}

static void restore_stderr(int saved)
{
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	close(saved);
}

static void test_stderr(void **state)
{
	unsigned y, mo, d, h, mi, s, ms;
	char lines[4][256] = {{0}}, rest[64];
	ssize_t len[4];
	int saved, fd;

	(void)state;
	sm_log_set_sink(NULL, NULL);
	fd = capture_stderr(&saved);
	unsetenv("JOURNAL_STREAM");
	sm_warn("text %d", 5);
	sm_notice("n");
	setenv("JOURNAL_STREAM", "8:1234", 1);
	sm_warn("text\n%d", 5);
	sm_debug("dropped");
	sm_error("e");
	unsetenv("JOURNAL_STREAM");
	for (int i = 0; i < 4; i++)
		len[i] = recv(fd, lines[i], sizeof(lines[i]) - 1, MSG_DONTWAIT);
	restore_stderr(saved);
	close(fd);

	for (int i = 0; i < 4; i++) {
		assert_true(len[i] > 1);
		assert_int_equal(lines[i][len[i] - 1], '\n');
		lines[i][len[i] - 1] = '\0';
	}
	assert_int_equal(sscanf(lines[0], "%4u-%2u-%2u %2u:%2u:%2u.%3u %63[^\n]", &y, &mo, &d, &h,
				&mi, &s, &ms, rest),
			 8);
	assert_string_equal(rest, "warn  text 5");
	assert_true(y >= 2024 && mo >= 1 && mo <= 12 && d >= 1 && d <= 31 && h < 24 && mi < 60 &&
		    s <= 60);
	assert_string_equal(lines[0] + 23, " warn  text 5");
	assert_string_equal(lines[1] + 23, " notice n");
	assert_string_equal(lines[2], "<4>text\\x0a5");
	assert_string_equal(lines[3], "<3>e");
}

static void *log_many(void *arg)
{
	for (int i = 0; i < 1000; i++)
		sm_info("%s", (const char *)arg);
	return NULL;
}

static void count_sink(void *arg, enum sm_log_level level, const char *text)
{
	unsigned *count = arg;

	(void)level;
	(*count)++; /* unguarded: calls of the sink must not overlap */
	(void)text;
}

static void test_threads(void **state)
{
	static char names[][8] = {"one", "two", "three"};
	pthread_t threads[3];
	unsigned count = 0;

	(void)state;
	sm_log_set_sink(count_sink, &count);
	for (size_t i = 0; i < SM_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(count, 3000);
}

static void test_limit(void **state)
{
	struct sm_log_limit limit = {0};
	uint32_t suppressed = 99;
	uint64_t now = 5 * SM_SEC_US;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_true(sm_log_allow(&limit, now, 3, 6, &suppressed));
		assert_int_equal(suppressed, 0);
	}
	suppressed = 99;
	for (int i = 0; i < 4; i++)
		assert_false(sm_log_allow(&limit, now, 3, 6, &suppressed));
	assert_int_equal(suppressed, 99);
	/* six a minute: one every ten seconds */
	assert_false(sm_log_allow(&limit, now + 9999999, 3, 6, &suppressed));
	assert_true(sm_log_allow(&limit, now + 10 * SM_SEC_US, 3, 6, &suppressed));
	assert_int_equal(suppressed, 5);
	assert_false(sm_log_allow(&limit, now + 10 * SM_SEC_US, 3, 6, NULL));
	/* never more than the burst, however long it was quiet */
	now += UINT64_C(1) << 60;
	for (int i = 0; i < 3; i++)
		assert_true(sm_log_allow(&limit, now, 3, 6, NULL));
	assert_false(sm_log_allow(&limit, now, 3, 6, NULL));
	/* a clock that goes back opens nothing and breaks nothing */
	assert_false(sm_log_allow(&limit, 0, 3, 6, NULL));
	assert_false(sm_log_allow(&limit, now, 3, 6, NULL));
	assert_true(sm_log_allow(&limit, now + 10 * SM_SEC_US, 3, 6, NULL));
}

/* However often it is asked, the rate is kept: no fraction is lost, none is given twice. */
static void test_limit_rate(void **state)
{
	static const uint64_t steps_us[] = {1, 7, 999, 61000, 1500000};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(steps_us); i++) {
		struct sm_log_limit limit = {0};
		uint64_t now = 1, step = steps_us[i], end = SM_MAX(step * 400000, SM_SEC_US),
			 lines = 0;
		uint64_t expected = 2 + end * 600 / (60 * SM_SEC_US);

		for (; now <= end; now += step)
			lines += sm_log_allow(&limit, now, 2, 600, NULL);
		if (step < 100000)
			assert_in_range(lines, expected - 1 - expected / 1000, expected + 1);
		else
			assert_int_equal(lines, end / step); /* slower than the limit: all */
	}
}

static void test_limit_zero_rate(void **state)
{
	struct sm_log_limit limit = {0};

	(void)state;
	assert_true(sm_log_allow(&limit, 0, 1, 0, NULL));
	assert_false(sm_log_allow(&limit, UINT64_MAX - 1, 1, 0, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_levels, set_sink, reset_sink),
		cmocka_unit_test_setup_teardown(test_escaping, set_sink, reset_sink),
		cmocka_unit_test_setup_teardown(test_long_lines, set_sink, reset_sink),
		cmocka_unit_test_setup_teardown(test_errno_survives, set_sink, reset_sink),
		cmocka_unit_test_setup_teardown(test_stderr, set_sink, reset_sink),
		cmocka_unit_test_setup_teardown(test_threads, set_sink, reset_sink),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_limit_rate),
		cmocka_unit_test(test_limit_zero_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Held frames: the newest ones, for a second, to those who come new and to whom they were meant.
 */
#include "plane/held.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static char sent[512];

static void on_send(void *arg, sm_port_t port, const uint8_t *data, uint32_t len)
{
	size_t at = strlen(sent);

	(void)arg;
	snprintf(sent + at, sizeof(sent) - at, "%u:%.*s ", port, (int)len, (const char *)data);
}

static const char *release(struct sm_held *held, sm_port_t *members, uint32_t n, uint64_t now_us)
{
	struct sm_snapshot s = {.members = members, .member_count = n};

	sent[0] = '\0';
	sm_held_release(held, &s, now_us, on_send, NULL);
	return sent;
}

static void keep(struct sm_held *held, sm_port_t port, const char *text, uint64_t now_us)
{
	sm_held_keep(held, port, (const uint8_t *)text, (uint32_t)strlen(text), now_us);
}

static void test_who_gets_what(void **state)
{
	sm_port_t one[] = {1}, both[] = {1, 4095};
	struct sm_held held;

	(void)state;
	assert_int_equal(sm_held_init(&held, 64), 0);
	keep(&held, SM_PORT_NONE, "arp", 10);
	keep(&held, 4095, "syn", 20);
	assert_string_equal(release(&held, one, 0, 30), "");
	assert_string_equal(release(&held, one, 1, 30), "1:arp ");
	assert_string_equal(release(&held, one, 1, 31), ""); /* it had them */
	assert_string_equal(release(&held, both, 2, 32), "4095:arp 4095:syn ");
	assert_string_equal(release(&held, one, 1, 33), "");
	assert_string_equal(release(&held, both, 2, 34), ""); /* nothing comes twice */
	sm_held_done(&held);
}

static void test_age_and_number(void **state)
{
	sm_port_t one[] = {1};
	struct sm_held held;
	char text[8];

	(void)state;
	assert_int_equal(sm_held_init(&held, 64), 0);
	keep(&held, SM_PORT_NONE, "old", 0);
	keep(&held, SM_PORT_NONE, "new", 1);
	assert_string_equal(release(&held, one, 1, SM_HELD_US), "1:new ");
	assert_int_equal(held.count, 1);
	assert_string_equal(release(&held, one, 0, SM_HELD_US + 1), "");
	assert_int_equal(held.count, 0);
	for (uint32_t i = 0; i < SM_HELD_MAX + 2; i++) {
		snprintf(text, sizeof(text), "%u", i);
		keep(&held, SM_PORT_NONE, text, SM_HELD_US);
	}
	assert_int_equal(held.count, SM_HELD_MAX);
	assert_string_equal(release(&held, one, 1, SM_HELD_US),
			    "1:2 1:3 1:4 1:5 1:6 1:7 1:8 1:9 1:10 1:11 1:12 1:13 1:14 1:15 1:16 "
			    "1:17 ");
	keep(&held, SM_PORT_NONE, "", SM_HELD_US);
	sm_held_keep(&held, SM_PORT_NONE, (const uint8_t *)"x", 65, SM_HELD_US); /* too long */
	assert_string_equal(release(&held, one, 0, SM_HELD_US), "");
	assert_int_equal(held.count, SM_HELD_MAX);
	sm_held_done(&held);
}

/* A session that goes and comes back within the second must not make frames come twice. */
static void test_once(void **state)
{
	sm_port_t both[] = {1, 2};
	struct sm_held held;

	(void)state;
	assert_int_equal(sm_held_init(&held, 64), 0);
	assert_string_equal(release(&held, both, 1, 0), ""); /* 1 is connected */
	keep(&held, SM_PORT_NONE, "all", 0);                 /* and had this */
	keep(&held, 2, "two", 0);
	assert_string_equal(release(&held, both, 0, 1), "");
	assert_string_equal(release(&held, both, 2, 2), "2:all 2:two ");
	assert_string_equal(release(&held, both, 0, 3), "");
	assert_string_equal(release(&held, both, 2, 4), "");
	keep(&held, 2, "late", 5);
	assert_string_equal(release(&held, both, 0, 6), "");
	assert_string_equal(release(&held, both, 2, 7), "2:late ");
	sm_held_done(&held);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_gets_what),
		cmocka_unit_test(test_age_and_number),
		cmocka_unit_test(test_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

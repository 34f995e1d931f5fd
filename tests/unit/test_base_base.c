// SPDX-License-Identifier: MIT
/*
 * Secrets, clocks and lists: the small things of base.
 */
#include "base/base.h"
#include "base/clock.h"
#include "base/list.h"

#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_equal_ct_sees_every_bit(void **state)
{
	uint8_t a[64], b[64];

	(void)state;
	memset(a, 0x5a, sizeof(a));
	memcpy(b, a, sizeof(b));
	assert_true(sm_equal_ct(a, b, sizeof(a)));
	assert_true(sm_equal_ct(a, b, 0));
	for (size_t bit = 0; bit < 8 * sizeof(a); bit++) {
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(sm_equal_ct(a, b, sizeof(a)));
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void test_equal_ct_no_cancelling(void **state)
{
	(void)state;
	/* Sums or xors over the differences would be 0 here. */
	assert_false(sm_equal_ct("\x80\x80", "\x00\x00", 2));
	assert_false(sm_equal_ct("\x01\x02", "\x02\x01", 2));
}

static void test_wipe(void **state)
{
	uint8_t mem[32], zero[30] = {0};

	(void)state;
	memset(mem, 0xff, sizeof(mem));
	sm_wipe(mem + 1, 30);
	assert_memory_equal(mem + 1, zero, 30);
	assert_int_equal(mem[0], 0xff);
	assert_int_equal(mem[31], 0xff);
	sm_wipe(NULL, 0);
}

static void test_clocks(void **state)
{
	struct timespec ts;
	uint64_t us = sm_clock_now_us(), ns = sm_clock_now_ns();
	int64_t wall = sm_clock_wall_s();

	(void)state;
	assert_true(sm_clock_now_us() >= us);
	assert_true(sm_clock_now_ns() >= ns);
	assert_int_equal(clock_gettime(CLOCK_BOOTTIME, &ts), 0);
	/* A minute of tolerance: a wrong unit or clock is off by far more. */
	assert_in_range(us / SM_SEC_US, (uint64_t)SM_MAX(ts.tv_sec - 60, 0), (uint64_t)ts.tv_sec);
	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
	assert_in_range(ns / 1000000000, (uint64_t)SM_MAX(ts.tv_sec - 60, 0), (uint64_t)ts.tv_sec);
	assert_in_range(wall, (uint64_t)time(NULL) - 60, (uint64_t)time(NULL));
}

struct item {
	int number;
	struct sm_list node;
};

/* The numbers in list order as decimal digits */
static int digits(const struct sm_list *head)
{
	struct sm_list *node, *after;
	int sum = 0;

	sm_list_for_each_safe(node, after, head)
		sum = sum * 10 + SM_LIST_ENTRY(node, struct item, node)->number;
	return sum;
}

static void test_list(void **state)
{
	struct item items[4];
	struct sm_list head, *node, *after;

	(void)state;
	sm_list_init(&head);
	assert_true(sm_list_empty(&head));
	assert_int_equal(digits(&head), 0);
	for (int i = 0; i < 4; i++) {
		items[i].number = i + 1;
		sm_list_add_tail(&head, &items[i].node);
	}
	assert_false(sm_list_empty(&head));
	assert_int_equal(digits(&head), 1234);
	sm_list_del(&items[1].node);
	assert_int_equal(digits(&head), 134);
	sm_list_del(&items[1].node); /* twice does no harm */
	sm_list_del(&items[0].node);
	sm_list_del(&items[3].node);
	assert_int_equal(digits(&head), 3);
	sm_list_add_tail(&head, &items[1].node);
	assert_int_equal(digits(&head), 32);
	assert_ptr_equal(head.prev, &items[1].node);
	assert_ptr_equal(items[2].node.prev, &head);

	sm_list_for_each_safe(node, after, &head)
	{
		sm_list_del(node);
		memset(node, 0xff, sizeof(*node)); /* as if it were freed */
	}
	assert_true(sm_list_empty(&head));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_ct_sees_every_bit),
		cmocka_unit_test(test_equal_ct_no_cancelling),
		cmocka_unit_test(test_wipe),
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Learned MACs: moves, ageing, limits, and several threads at once.
 */
#include "core/mactable.h"
#include "rng.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define T0 UINT64_C(5000000000)

static struct sm_mactable *table(uint32_t capacity, uint32_t ports)
{
	struct sm_mactable *t = NULL;

	assert_int_equal(sm_mactable_new(capacity, ports, 42, &t), 0);
	return t;
}

static void test_bad_sizes(void **state)
{
	struct sm_mactable *t = NULL;

	(void)state;
	assert_int_equal(sm_mactable_new(0, 1, 0, &t), -EINVAL);
	assert_int_equal(sm_mactable_new(100, 1, 0, &t), -EINVAL);
	assert_int_equal(sm_mactable_new(64, 0, 0, &t), -EINVAL);
	assert_null(t);
	sm_mactable_free(NULL);
}

static void test_learn_move_age(void **state)
{
	struct sm_mactable *t = table(1024, 8);
	uint64_t mac = UINT64_C(0x020000000001);

	(void)state;
	assert_int_equal(sm_mactable_lookup(t, mac, T0), -ENOENT);
	assert_int_equal(sm_mactable_learn(t, mac, 3, T0), 0);
	assert_int_equal(sm_mactable_lookup(t, mac, T0), 3);

	/* Too soon, then in time, then damped again */
	assert_int_equal(sm_mactable_learn(t, mac, 4, T0 + SM_MAC_MOVE_US - 1), -EAGAIN);
	assert_int_equal(sm_mactable_lookup(t, mac, T0 + SM_MAC_MOVE_US), 3);
	assert_int_equal(sm_mactable_learn(t, mac, 4, T0 + SM_MAC_MOVE_US), 0);
	assert_int_equal(sm_mactable_lookup(t, mac, T0 + SM_MAC_MOVE_US), 4);
	assert_int_equal(sm_mactable_learn(t, mac, 3, T0 + SM_MAC_MOVE_US + 1), -EAGAIN);

	/* It ages from the last frame on, not from the first. */
	assert_int_equal(sm_mactable_learn(t, mac, 4, T0 + 10 * SM_SEC_US), 0);
	assert_int_equal(sm_mactable_lookup(t, mac, T0 + 10 * SM_SEC_US + SM_MAC_AGE_US), 4);
	assert_int_equal(sm_mactable_lookup(t, mac, T0 + 10 * SM_SEC_US + SM_MAC_AGE_US + 1),
			 -ENOENT);
	assert_int_equal(sm_mactable_age(t, T0 + 10 * SM_SEC_US), 1);
	assert_int_equal(sm_mactable_age(t, T0 + 11 * SM_SEC_US + SM_MAC_AGE_US), 0);
	sm_mactable_free(t);
}

static void test_odd_macs(void **state)
{
	struct sm_mactable *t = table(64, 8);

	(void)state;
	assert_int_equal(sm_mactable_learn(t, 0, 0, T0), 0);
	assert_int_equal(sm_mactable_lookup(t, 0, T0), 0);
	assert_int_equal(sm_mactable_learn(t, UINT64_C(0xffffffffffff), 7, T0), 0);
	assert_int_equal(sm_mactable_lookup(t, UINT64_C(0xffffffffffff), T0), 7);
	assert_int_equal(sm_mactable_learn(t, UINT64_C(1) << 48, 1, T0), -ENOSPC);
	assert_int_equal(sm_mactable_learn(t, 5, 8, T0), -ENOSPC); /* no such port */
	assert_int_equal(sm_mactable_lookup(t, 5, T0), -ENOENT);
	sm_mactable_free(t);
}

static void test_port_limit(void **state)
{
	struct sm_mactable *t = table(16384, 4);
	uint64_t mac;

	(void)state;
	for (mac = 0; mac < SM_MAC_PER_PORT; mac++)
		assert_int_equal(sm_mactable_learn(t, mac, 1, T0), 0);
	assert_int_equal(sm_mactable_learn(t, mac, 1, T0), -ENOSPC);
	assert_int_equal(sm_mactable_lookup(t, mac, T0), -ENOENT);
	/* A full port takes none from another one either, and another one is not full. */
	assert_int_equal(sm_mactable_learn(t, mac, 2, T0), 0);
	assert_int_equal(sm_mactable_learn(t, mac, 1, T0 + 2 * SM_MAC_MOVE_US), -ENOSPC);
	assert_int_equal(sm_mactable_lookup(t, mac, T0), 2);
	/* One that moves away makes room. */
	assert_int_equal(sm_mactable_learn(t, 0, 2, T0 + 2 * SM_MAC_MOVE_US), 0);
	assert_int_equal(sm_mactable_learn(t, mac, 1, T0 + 2 * SM_MAC_MOVE_US), 0);

	sm_mactable_forget_port(t, 1);
	assert_int_equal(sm_mactable_lookup(t, 1, T0), -ENOENT);
	assert_int_equal(sm_mactable_lookup(t, 0, T0), 2);
	assert_int_equal(sm_mactable_age(t, T0), 1);
	for (mac = 100; mac < 100 + SM_MAC_PER_PORT; mac++)
		assert_int_equal(sm_mactable_learn(t, mac, 1, T0), 0);
	sm_mactable_free(t);
}

/* A full table refuses, keeps what it has, and takes new ones once the old have aged. */
static void test_full_table(void **state)
{
	struct sm_mactable *t = table(64, 4);
	uint32_t learned = 0;

	(void)state;
	for (uint64_t mac = 0; mac < 1000; mac++) {
		if (sm_mactable_learn(t, mac, 1, T0) == 0) {
			assert_int_equal(sm_mactable_lookup(t, mac, T0), 1);
			learned++;
		}
	}
	assert_in_range(learned, 60, 64);
	assert_int_equal(sm_mactable_age(t, T0), learned);
	assert_int_equal(sm_mactable_learn(t, 5000, 2, T0 + SM_MAC_AGE_US + 1), 0);
	assert_int_equal(sm_mactable_lookup(t, 5000, T0 + SM_MAC_AGE_US + 1), 2);
	sm_mactable_free(t);
}

static void count_entry(void *arg, uint64_t mac, uint16_t port, uint64_t age_us)
{
	uint64_t *sums = arg;

	sums[0]++;
	sums[1] += mac;
	sums[2] += port;
	sums[3] += age_us;
}

static void test_each(void **state)
{
	struct sm_mactable *t = table(64, 8);
	uint64_t sums[4] = {0};

	(void)state;
	assert_int_equal(sm_mactable_learn(t, 10, 1, T0), 0);
	assert_int_equal(sm_mactable_learn(t, 20, 2, T0 + 5), 0);
	assert_int_equal(sm_mactable_learn(t, 30, 3, T0 - SM_MAC_AGE_US), 0);
	sm_mactable_each(t, T0 + 10, count_entry, sums);
	assert_int_equal(sums[0], 2);
	assert_int_equal(sums[1], 30);
	assert_int_equal(sums[2], 3);
	assert_int_equal(sums[3], 15);
	sm_mactable_free(t);
}

#define CROWD 4

struct crowd {
	struct sm_mactable *table;
	uint64_t seed;
};

static void *hammer(void *arg)
{
	struct crowd *c = arg;
	struct rng rng = {.state = c->seed};

	for (int i = 0; i < 40000; i++) {
		uint64_t mac = rng_below(&rng, 300);
		uint16_t port = (uint16_t)rng_below(&rng, 4);
		uint64_t now = T0 + (uint64_t)i * 50000;
		int found;

		(void)sm_mactable_learn(c->table, mac, port, now);
		found = sm_mactable_lookup(c->table, mac, now);
		if (found >= 4)
			return (void *)1;
		if (i % 1000 == 0)
			sm_mactable_forget_port(c->table, port);
		if (i % 1500 == 0)
			(void)sm_mactable_age(c->table, now);
	}
	return NULL;
}

/* Afterwards the counts agree with the entries: every port can be filled to its limit again. */
static void test_threads(void **state)
{
	struct sm_mactable *t = table(32768, 4);
	struct crowd crowd[CROWD];
	pthread_t thread[CROWD];

	(void)state;
	for (int i = 0; i < CROWD; i++) {
		crowd[i] = (struct crowd){.table = t, .seed = (uint64_t)i + 1};
		assert_int_equal(pthread_create(&thread[i], NULL, hammer, &crowd[i]), 0);
	}
	for (int i = 0; i < CROWD; i++) {
		void *bad;

		assert_int_equal(pthread_join(thread[i], &bad), 0);
		assert_null(bad);
	}
	for (uint16_t port = 0; port < 4; port++)
		sm_mactable_forget_port(t, port);
	assert_int_equal(sm_mactable_age(t, T0), 0);
	for (uint16_t port = 0; port < 4; port++) {
		uint64_t first = 10000u * (port + 1u);

		for (uint64_t i = 0; i < SM_MAC_PER_PORT; i++)
			assert_int_equal(sm_mactable_learn(t, first + i, port, T0), 0);
		assert_int_equal(sm_mactable_learn(t, first + SM_MAC_PER_PORT, port, T0), -ENOSPC);
	}
	sm_mactable_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_sizes),  cmocka_unit_test(test_learn_move_age),
		cmocka_unit_test(test_odd_macs),   cmocka_unit_test(test_port_limit),
		cmocka_unit_test(test_full_table), cmocka_unit_test(test_each),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

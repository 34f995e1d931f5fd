// SPDX-License-Identifier: MIT
/*
 * The hash table against a plain array as model, and clusters that removal must not tear.
 */
#include "base/table.h"
#include "rng.h"

#include <pthread.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_basics(void **state)
{
	struct sm_map64 map;
	uint32_t value = 7;

	(void)state;
	sm_map64_init(&map, 1);
	assert_false(sm_map64_lookup(&map, 0, &value));
	assert_false(sm_map64_remove(&map, 0));
	assert_int_equal(value, 7);
	assert_int_equal(sm_map64_insert(&map, 0, 10), 0);
	assert_int_equal(sm_map64_insert(&map, UINT64_MAX, 0), 0);
	assert_int_equal(sm_map64_insert(&map, 0, 11), -EEXIST);
	assert_true(sm_map64_lookup(&map, 0, &value));
	assert_int_equal(value, 10);
	assert_int_equal(sm_map64_set(&map, 0, 12), 0);
	assert_true(sm_map64_lookup(&map, 0, &value));
	assert_int_equal(value, 12);
	assert_true(sm_map64_lookup(&map, UINT64_MAX, &value));
	assert_int_equal(value, 0);
	assert_false(sm_map64_lookup(&map, 1, &value));
	assert_int_equal(map.count, 2);
	assert_true(sm_map64_remove(&map, 0));
	assert_false(sm_map64_remove(&map, 0));
	assert_int_equal(map.count, 1);
	sm_map64_clear(&map);
	assert_false(sm_map64_lookup(&map, UINT64_MAX, &value));
	assert_int_equal(map.count, 0);
	sm_map64_done(&map);
	assert_int_equal(sm_map64_reserve(&map, UINT32_MAX), -ENOMEM);
	sm_map64_done(&map);
}

#define KEYS 300u

/* Compares the table with the model, each way */
static void check_model(const struct sm_map64 *map, const bool *there, const uint32_t *values)
{
	uint32_t pos = 0, value, count = 0, visited = 0;
	uint64_t key;

	for (uint32_t i = 0; i < KEYS; i++) {
		bool found = sm_map64_lookup(map, i, &value);

		assert_int_equal(found, there[i]);
		if (found)
			assert_int_equal(value, values[i]);
		count += there[i];
	}
	assert_int_equal(map->count, count);
	while (sm_map64_next(map, &pos, &key, &value)) {
		assert_true(key < KEYS && there[key] && values[key] == value);
		visited++;
	}
	assert_int_equal(visited, count);
}

static void test_against_model(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (int round = 0; round < 20; round++) {
		bool there[KEYS] = {false};
		uint32_t values[KEYS] = {0};
		struct sm_map64 map;

		sm_map64_init(&map, rng_u64(&rng));
		for (int step = 0; step < 3000; step++) {
			uint32_t key = rng_below(&rng, KEYS), value = rng_below(&rng, 1000000);

			switch (rng_below(&rng, 3)) {
			case 0:
				assert_int_equal(sm_map64_insert(&map, key, value),
						 there[key] ? -EEXIST : 0);
				if (!there[key])
					values[key] = value;
				there[key] = true;
				break;
			case 1:
				assert_int_equal(sm_map64_set(&map, key, value), 0);
				there[key] = true;
				values[key] = value;
				break;
			case 2:
				assert_int_equal(sm_map64_remove(&map, key), there[key]);
				there[key] = false;
				break;
			}
			if (step % 100 == 0)
				check_model(&map, there, values);
		}
		check_model(&map, there, values);
		sm_map64_done(&map);
	}
}

static void test_reserve(void **state)
{
	struct sm_map64 map;
	const struct sm_map64_slot *slots;
	uint32_t value;

	(void)state;
	sm_map64_init(&map, 3);
	assert_int_equal(sm_map64_reserve(&map, 1000), 0);
	slots = map.slots;
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(sm_map64_insert(&map, i * UINT64_C(0x10000), i), 0);
	assert_ptr_equal(map.slots, slots);
	for (uint32_t i = 0; i < 1000; i++) {
		assert_true(sm_map64_lookup(&map, i * UINT64_C(0x10000), &value));
		assert_int_equal(value, i);
	}
	sm_map64_done(&map);
}

/* The longest run of used slots: what a search may have to walk */
static uint32_t longest_run(const struct sm_map64 *map)
{
	uint32_t longest = 0, run = 0;

	for (uint32_t i = 0; i <= map->mask; i++) {
		run = map->slots[i].used ? run + 1 : 0;
		longest = SM_MAX(longest, run);
	}
	return longest;
}

/* Regular keys (MAC addresses of one maker, multiples of a power of two) must spread. */
static void test_spread(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (unsigned shift = 0; shift < 40; shift += 8) {
		struct sm_map64 map;

		sm_map64_init(&map, rng_u64(&rng));
		for (uint64_t i = 0; i < 8192; i++)
			assert_int_equal(sm_map64_insert(&map, i << shift, 0), 0);
		assert_true(longest_run(&map) < 200);
		sm_map64_done(&map);
	}
}

static void test_seed_matters(void **state)
{
	struct sm_map64 a, b;
	uint32_t pos_a = 0, pos_b = 0, value, same = 0;
	uint64_t key_a, key_b;

	(void)state;
	sm_map64_init(&a, 1);
	sm_map64_init(&b, 2);
	for (uint64_t i = 0; i < 100; i++) {
		assert_int_equal(sm_map64_insert(&a, i, 0), 0);
		assert_int_equal(sm_map64_insert(&b, i, 0), 0);
	}
	while (sm_map64_next(&a, &pos_a, &key_a, &value) &&
	       sm_map64_next(&b, &pos_b, &key_b, &value))
		same += key_a == key_b;
	assert_true(same < 20);
	sm_map64_done(&a);
	sm_map64_done(&b);
}

static void *look_up_all(void *arg)
{
	const struct sm_map64 *map = arg;
	uintptr_t found = 0;
	uint32_t value;

	for (uint64_t i = 0; i < 2000; i++)
		found += sm_map64_lookup(map, i, &value) && value == i;
	return (void *)found;
}

static void test_readers(void **state)
{
	struct sm_map64 map;
	pthread_t threads[3];

	(void)state;
	sm_map64_init(&map, 9);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(sm_map64_insert(&map, i, i), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_up_all, &map), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(threads); i++) {
		void *found;

		assert_int_equal(pthread_join(threads[i], &found), 0);
		assert_int_equal((uintptr_t)found, 1000);
	}
	sm_map64_done(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basics),       cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_reserve),      cmocka_unit_test(test_spread),
		cmocka_unit_test(test_seed_matters), cmocka_unit_test(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Splitting and rejoining: every order, contradictions, expiry, and the share of a greedy session.
 */
#include "plane/parts.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define FRAME_MAX 1522u
#define T0        UINT64_C(7000000)

static struct sm_pbuf_pool pool;
static struct sm_parts parts;
static uint8_t frame[FRAME_MAX];

static int setup(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < FRAME_MAX; i++)
		frame[i] = (uint8_t)(i * 11 + i / 251);
	if (sm_pbuf_pool_init(&pool, SM_PARTS_SLOTS + 4, FRAME_MAX) < 0)
		return -1;
	sm_parts_init(&parts, &pool, FRAME_MAX);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sm_parts_done(&parts);
	assert_int_equal(pool.free_count, pool.count);
	sm_pbuf_pool_done(&pool);
	return 0;
}

static struct sm_parts_key key_of(uint32_t session, uint64_t first)
{
	return (struct sm_parts_key){.first = first, .session = session, .epoch = 3, .lane = 1};
}

/* Adds @len bytes of @frame at @at as piece @index of @count. */
static int add_at(struct sm_parts_key key, uint32_t index, uint32_t count, uint32_t at,
		  uint32_t len, uint64_t now_us, struct sm_pbuf **ret_frame)
{
	struct sm_part part = {.index = (uint8_t)index, .count = (uint8_t)count};

	return sm_parts_add(&parts, &key, &part, frame + at, len, now_us, ret_frame);
}

static int add(uint32_t session, uint64_t first, uint32_t index, uint32_t count, uint32_t len,
	       uint64_t now_us, struct sm_pbuf **ret_frame)
{
	return add_at(key_of(session, first), index, count, 0, len, now_us, ret_frame);
}

static void test_plan(void **state)
{
	uint32_t len;

	(void)state;
	for (uint32_t size = 2; size <= 9022; size++) {
		for (uint32_t room = 1; room < size; room += 1 + room / 9) {
			uint32_t count = sm_parts_plan(size, room, &len);

			if (count == 0) {
				assert_true((size + room - 1) / room > SM_PART_COUNT_MAX);
				continue;
			}
			assert_in_range(count, 2, SM_PART_COUNT_MAX);
			assert_in_range(len, 1, room);
			assert_true((count - 1) * len < size);
			assert_true(count * len >= size);
			/* No more pieces than needed */
			assert_true((count - 1) * room < size);
		}
	}
	assert_int_equal(sm_parts_plan(1000, 0, &len), 0);
	assert_int_equal(sm_parts_plan(1, 10, &len), 0);
	assert_int_equal(sm_parts_plan(65 * 10, 10, &len), 0);
	assert_int_equal(sm_parts_plan(64 * 10, 10, &len), 64);
}

static void test_any_order(void **state)
{
	struct rng rng = rng_init("parts");

	(void)state;
	for (int round = 0; round < 3000; round++) {
		uint32_t size = 64 + rng_below(&rng, FRAME_MAX - 63);
		uint32_t room = SM_MAX(size / (2 + rng_below(&rng, 60)), 1u), len = 0;
		uint32_t count = sm_parts_plan(size, SM_MIN(room, size - 1), &len);
		uint32_t order[SM_PART_COUNT_MAX];
		struct sm_pbuf *whole = NULL;

		if (count == 0)
			continue;
		for (uint32_t i = 0; i < count; i++)
			order[i] = i;
		for (uint32_t i = count; i > 1; i--) {
			uint32_t k = rng_below(&rng, i), t = order[i - 1];

			order[i - 1] = order[k];
			order[k] = t;
		}
		for (uint32_t i = 0; i < count; i++) {
			uint32_t at = order[i] * len;
			int r = add_at(key_of(1, 100), order[i], count, at, SM_MIN(len, size - at),
				       T0, &whole);

			assert_int_equal(r, i + 1 == count);
		}
		assert_int_equal(whole->len, size);
		assert_memory_equal(whole->data, frame, size);
		sm_pbuf_put(&pool, whole);
	}
	assert_int_equal(parts.evicted, 0);
}

/* Frames whose pieces come mixed, and keys that differ in one field only */
static void test_keys(void **state)
{
	struct sm_parts_key keys[] = {key_of(1, 100), key_of(2, 100), key_of(1, 101),
				      key_of(1, 100), key_of(1, 100)};
	struct sm_pbuf *whole = NULL;

	(void)state;
	keys[3].epoch = 4;
	keys[4].lane = 2;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(keys); i++)
		assert_int_equal(add_at(keys[i], 0, 2, 10 * i, 10, T0, &whole), 0);
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(keys); i++) {
		assert_int_equal(add_at(keys[i], 1, 2, 100 + i, 1, T0, &whole), 1);
		assert_int_equal(whole->len, 11);
		assert_memory_equal(whole->data, frame + 10 * i, 10);
		assert_int_equal(whole->data[10], frame[100 + i]);
		sm_pbuf_put(&pool, whole);
	}
}

static void test_contradictions(void **state)
{
	struct sm_pbuf *whole = NULL;

	(void)state;
	/* Another count; the frame is given up, so that its last piece starts a new one */
	assert_int_equal(add(1, 1, 0, 3, 100, T0, &whole), 0);
	assert_int_equal(add(1, 1, 1, 4, 100, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 1, 2, 3, 10, T0, &whole), 0);
	/* Another length; the same piece twice; no length */
	assert_int_equal(add(1, 10, 0, 3, 100, T0, &whole), 0);
	assert_int_equal(add(1, 10, 1, 3, 101, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 20, 0, 3, 100, T0, &whole), 0);
	assert_int_equal(add(1, 20, 0, 3, 100, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 30, 0, 3, 0, T0, &whole), -EBADMSG);
	/* A last piece that is longer than the others, whichever comes first */
	assert_int_equal(add(1, 40, 0, 2, 100, T0, &whole), 0);
	assert_int_equal(add(1, 40, 1, 2, 101, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 50, 1, 2, 101, T0, &whole), 0);
	assert_int_equal(add(1, 50, 0, 2, 100, T0, &whole), -EBADMSG);
	/* Too long: at once, with the last one, by what the count says */
	assert_int_equal(add(1, 60, 0, 64, 25, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 70, 0, 2, FRAME_MAX - 1, T0, &whole), 0);
	assert_int_equal(add(1, 70, 1, 2, 2, T0, &whole), -EBADMSG);
	assert_int_equal(add(1, 80, 1, 2, FRAME_MAX, T0, &whole), 0);
	assert_int_equal(add(1, 80, 0, 2, FRAME_MAX, T0, &whole), -EBADMSG);
	assert_null(whole);
	/* Exactly as long as allowed */
	assert_int_equal(add(1, 90, 0, 2, FRAME_MAX - 1, T0, &whole), 0);
	assert_int_equal(add(1, 90, 1, 2, 1, T0, &whole), 1);
	assert_int_equal(whole->len, FRAME_MAX);
	sm_pbuf_put(&pool, whole);
}

static void test_expiry(void **state)
{
	struct sm_pbuf *whole = NULL;

	(void)state;
	assert_int_equal(add(1, 1, 0, 2, 100, T0, &whole), 0);
	assert_int_equal(add(1, 1, 1, 2, 100, T0 + SM_PARTS_EXPIRE_US, &whole), 1);
	sm_pbuf_put(&pool, whole);
	assert_int_equal(add(1, 2, 0, 2, 100, T0, &whole), 0);
	assert_int_equal(add(1, 2, 1, 2, 100, T0 + SM_PARTS_EXPIRE_US + 1, &whole), 0);
	/* That began anew. */
	assert_int_equal(add(1, 2, 0, 2, 100, T0 + SM_PARTS_EXPIRE_US + 1, &whole), 1);
	sm_pbuf_put(&pool, whole);
	assert_int_equal(parts.evicted, 0);
}

/* A session that never finishes a frame costs others nothing. */
static void test_greedy_session(void **state)
{
	struct sm_pbuf *whole = NULL;

	(void)state;
	for (uint32_t session = 1; session <= 4; session++)
		assert_int_equal(add(session, 1, 0, 2, 100, T0, &whole), 0);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(add(9, 100 + 2 * i, 0, 2, 100, T0 + 1 + i, &whole), 0);
	assert_int_equal(parts.evicted, 1000 - SM_PARTS_PER_SESSION);
	for (uint32_t session = 1; session <= 4; session++) {
		assert_int_equal(add(session, 1, 1, 2, 100, T0 + 2000, &whole), 1);
		sm_pbuf_put(&pool, whole);
	}
	/* The newest of the greedy one are still there, the oldest are not. */
	assert_int_equal(add(9, 100 + 2 * 999, 1, 2, 100, T0 + 2000, &whole), 1);
	sm_pbuf_put(&pool, whole);
	assert_int_equal(add(9, 100, 1, 2, 100, T0 + 2000, &whole), 0);
}

/* When all slots are taken, whoever has most gives one. */
static void test_full_table(void **state)
{
	struct sm_pbuf *whole = NULL;

	(void)state;
	for (uint32_t session = 1; session <= 3; session++) {
		for (uint32_t i = 0; i < SM_PARTS_PER_SESSION; i++)
			assert_int_equal(add(session, 10 * i, 0, 2, 100, T0 + 1, &whole), 0);
	}
	for (uint32_t session = 101; session <= 108; session++)
		assert_int_equal(add(session, 1, 0, 2, 100, T0, &whole), 0);
	for (uint32_t session = 201; session <= 210; session++)
		assert_int_equal(add(session, 1, 0, 2, 100, T0 + 2, &whole), 0);
	assert_int_equal(parts.evicted, 10);
	/* Although theirs were the oldest, the modest ones kept them. */
	for (uint32_t session = 101; session <= 108; session++) {
		assert_int_equal(add(session, 1, 1, 2, 100, T0 + 3, &whole), 1);
		sm_pbuf_put(&pool, whole);
	}
}

static void test_no_buffer(void **state)
{
	struct sm_pbuf *taken[SM_PARTS_SLOTS + 5], *whole = NULL;
	uint32_t n = 0;

	(void)state;
	while ((taken[n] = sm_pbuf_get(&pool)) != NULL)
		n++;
	assert_int_equal(add(1, 1, 0, 2, 100, T0, &whole), -ENOBUFS);
	sm_pbuf_put(&pool, taken[--n]);
	assert_int_equal(add(1, 1, 0, 2, 100, T0, &whole), 0);
	while (n > 0)
		sm_pbuf_put(&pool, taken[--n]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan),
		cmocka_unit_test_setup_teardown(test_any_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_contradictions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_greedy_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_buffer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

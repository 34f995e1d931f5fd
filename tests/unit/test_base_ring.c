// SPDX-License-Identifier: MIT
/*
 * The ring: bounds, order, wrap-around of its indices, and two threads for the thread sanitizer.
 */
#include "base/ring.h"

#include <pthread.h>
#include <sched.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_refused(void **state)
{
	static const uint32_t bad[] = {0, 3, 6, UINT32_MAX};
	struct sm_ring ring;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++) {
		assert_int_equal(sm_ring_init(&ring, bad[i], 8), -EINVAL);
		sm_ring_done(&ring);
	}
	assert_int_equal(sm_ring_init(&ring, 4, 0), -EINVAL);
}

static void fill_and_drain(struct sm_ring *ring, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t *slot = sm_ring_reserve(ring);

		assert_non_null(slot);
		assert_ptr_equal(sm_ring_reserve(ring), slot); /* until the commit, the same */
		*slot = i;
		sm_ring_commit(ring);
	}
	assert_null(sm_ring_reserve(ring));
	for (uint32_t i = 0; i < count; i++) {
		uint32_t *slot = sm_ring_peek(ring);

		assert_non_null(slot);
		assert_int_equal(*slot, i);
		sm_ring_release(ring);
	}
	assert_null(sm_ring_peek(ring));
}

static void test_full_and_empty(void **state)
{
	static const uint32_t counts[] = {1, 2, 64};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(counts); i++) {
		struct sm_ring ring;

		assert_int_equal(sm_ring_init(&ring, counts[i], sizeof(uint32_t)), 0);
		assert_null(sm_ring_peek(&ring));
		fill_and_drain(&ring, counts[i]);
		fill_and_drain(&ring, counts[i]);
		sm_ring_done(&ring);
	}
}

static void test_index_wraps(void **state)
{
	struct sm_ring ring;

	(void)state;
	assert_int_equal(sm_ring_init(&ring, 8, sizeof(uint32_t)), 0);
	atomic_store(&ring.head, UINT32_MAX - 3);
	atomic_store(&ring.tail, UINT32_MAX - 3);
	fill_and_drain(&ring, 8);
	assert_true(atomic_load(&ring.head) == 4);
	sm_ring_done(&ring);
}

#define MESSAGES 50000u

struct message {
	uint64_t number, square;
};

static void *produce(void *arg)
{
	struct sm_ring *ring = arg;

	for (uint64_t i = 0; i < MESSAGES;) {
		struct message *m = sm_ring_reserve(ring);

		if (!m) {
			sched_yield();
			continue;
		}
		m->number = i;
		m->square = i * i;
		sm_ring_commit(ring);
		i++;
	}
	return NULL;
}

static void test_two_threads(void **state)
{
	struct sm_ring ring;
	pthread_t producer;
	uint64_t wrong = 0;

	(void)state;
	assert_int_equal(sm_ring_init(&ring, 16, sizeof(struct message)), 0);
	assert_int_equal(pthread_create(&producer, NULL, produce, &ring), 0);
	for (uint64_t i = 0; i < MESSAGES;) {
		const struct message *m = sm_ring_peek(&ring);

		if (!m) {
			sched_yield();
			continue;
		}
		wrong += m->number != i || m->square != i * i;
		sm_ring_release(&ring);
		i++;
	}
	assert_int_equal(pthread_join(producer, NULL), 0);
	assert_int_equal(wrong, 0);
	assert_null(sm_ring_peek(&ring));
	sm_ring_done(&ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_full_and_empty),
		cmocka_unit_test(test_index_wraps),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * The fair queue against a model: nothing lost, nothing twice, flows in order, little ones first, big ones by turns.
 */
#include "core/queue.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define FLOWS 6u /* hashes 0 to 5: a queue each */

static struct sm_queue q;

static int setup(void **state)
{
	(void)state;
	sm_queue_init(&q);
	return 0;
}

static void test_empty(void **state)
{
	(void)state;
	assert_int_equal(sm_queue_take(&q), SM_QUEUE_NONE);
	sm_queue_add(&q, 255, 1, false, 31);
	assert_int_equal(sm_queue_take(&q), 255);
	assert_int_equal(sm_queue_take(&q), SM_QUEUE_NONE);
	assert_int_equal(q.count, 0);
}

static void test_little_ones_first(void **state)
{
	(void)state;
	for (uint16_t i = 0; i < 10; i++)
		sm_queue_add(&q, i, 65000, false, 7);
	assert_int_equal(sm_queue_take(&q), 0);
	sm_queue_add(&q, 100, 60, true, 7);
	sm_queue_add(&q, 101, 60, true, 8);
	assert_int_equal(sm_queue_take(&q), 100);
	assert_int_equal(sm_queue_take(&q), 101);
	for (uint16_t i = 1; i < 10; i++)
		assert_int_equal(sm_queue_take(&q), i);
}

static void test_a_crowd_leaves_room(void **state)
{
	uint32_t ahead = 0;
	uint16_t frame;

	(void)state;
	sm_queue_add(&q, 0, 1500, false, 1);
	sm_queue_add(&q, 1, 1500, false, 1);
	for (uint16_t i = 2; i < SM_QUEUE_FRAMES; i++)
		sm_queue_add(&q, i, 60, true, i);
	while ((frame = sm_queue_take(&q)) > 1)
		ahead++;
	assert_int_equal(frame, 0);
	assert_int_equal(ahead, SM_QUEUE_AHEAD);
	while ((frame = sm_queue_take(&q)) > 1)
		ahead++;
	assert_int_equal(frame, 1);
	assert_int_equal(ahead, 2 * SM_QUEUE_AHEAD);
	for (uint32_t i = ahead + 2; i < SM_QUEUE_FRAMES; i++)
		assert_int_equal(sm_queue_take(&q), i);
	assert_int_equal(q.count, 0);
}

/* One with large frames, one with small ones: each gets its share of the bytes. */
static void test_by_turns(void **state)
{
	uint64_t bytes[2] = {0};

	(void)state;
	for (uint16_t i = 0; i < 20; i++)
		sm_queue_add(&q, i, 65000, false, 1);
	for (uint16_t i = 20; i < 240; i++)
		sm_queue_add(&q, i, 1500, false, 2);
	while (bytes[1] < 200 * UINT64_C(1500)) {
		uint16_t frame = sm_queue_take(&q);

		bytes[frame >= 20] += frame < 20 ? 65000 : 1500;
		assert_true(bytes[0] <= bytes[1] + 3 * SM_QUEUE_QUANTUM);
		assert_true(bytes[1] <= bytes[0] + 3 * SM_QUEUE_QUANTUM);
	}
}

/* 40 little ones went by long ago; now a flow becomes bulk in the middle. */
static void test_becoming_bulk(void **state)
{
	(void)state;
	for (uint16_t i = 0; i < 40; i++) {
		sm_queue_add(&q, i, 60, true, 3);
		assert_int_equal(sm_queue_take(&q), i);
	}
	for (uint16_t i = 0; i < 100; i++)
		sm_queue_add(&q, i, 1500, i < 50, 9);
	for (uint16_t i = 0; i < 100; i++)
		assert_int_equal(sm_queue_take(&q), i);
}

/* Flows come and go, become bulk at any time, and little again when they have nothing here. */
static void test_against_a_model(void **state)
{
	struct rng rng = rng_init("queue");
	struct {
		uint16_t frame[SM_QUEUE_FRAMES];
		uint32_t head, tail;
		bool bulk;
	} model[FLOWS] = {0};
	uint8_t flow_of[SM_QUEUE_FRAMES];
	uint16_t free_frame[SM_QUEUE_FRAMES];
	uint32_t free_count = 0;

	(void)state;
	while (free_count < SM_QUEUE_FRAMES) {
		free_frame[free_count] = (uint16_t)free_count;
		free_count++;
	}
	for (uint32_t round = 0; round < 500000; round++) {
		const bool adding = rng_below(&rng, 100) < (round / 500 % 2 ? 60 : 40);

		if (adding && free_count > 0) {
			const uint16_t frame = free_frame[--free_count];
			const uint32_t flow = rng_below(&rng, FLOWS);

			if (model[flow].head == model[flow].tail)
				model[flow].bulk = false;
			model[flow].bulk |= rng_below(&rng, 20) == 0;
			flow_of[frame] = (uint8_t)flow;
			model[flow].frame[model[flow].tail++ % SM_QUEUE_FRAMES] = frame;
			sm_queue_add(&q, frame, 1 + rng_below(&rng, 65535), !model[flow].bulk,
				     flow);
		} else if (!adding) {
			const uint16_t frame = sm_queue_take(&q);
			uint32_t flow;

			if (frame == SM_QUEUE_NONE) {
				assert_int_equal(free_count, SM_QUEUE_FRAMES);
				continue;
			}
			flow = flow_of[frame];
			assert_int_equal(frame,
					 model[flow].frame[model[flow].head++ % SM_QUEUE_FRAMES]);
			free_frame[free_count++] = frame;
		}
		assert_int_equal(q.count, SM_QUEUE_FRAMES - free_count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_empty, setup),
		cmocka_unit_test_setup(test_little_ones_first, setup),
		cmocka_unit_test_setup(test_a_crowd_leaves_room, setup),
		cmocka_unit_test_setup(test_by_turns, setup),
		cmocka_unit_test_setup(test_becoming_bulk, setup),
		cmocka_unit_test_setup(test_against_a_model, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

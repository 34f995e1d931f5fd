// SPDX-License-Identifier: MIT
/*
 * The replay window against a set that remembers everything.
 */
#include "core/lane.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A naive window: one byte for each number up to MODEL_MAX */
#define MODEL_MAX (8u * SM_REPLAY_WINDOW)

struct model {
	uint8_t seen[MODEL_MAX];
	uint64_t top;
};

static int model_check(const struct model *m, uint64_t number)
{
	if (number < m->top && m->top - number > SM_REPLAY_WINDOW)
		return -ERANGE;
	return m->seen[number] ? -EALREADY : 0;
}

static struct sm_replay window;
static struct model model;

static void reset(void)
{
	memset(&window, 0, sizeof(window));
	memset(&model, 0, sizeof(model));
}

static void step(uint64_t number)
{
	int want = model_check(&model, number), got = sm_replay_check(&window, number);

	if (want != got)
		fail_msg("number %llu, top %llu: got %d, want %d", (unsigned long long)number,
			 (unsigned long long)model.top, got, want);
	if (got == 0) {
		uint64_t moved = number >= model.top ? number + 1 - model.top : 0;

		assert_int_equal(sm_replay_accept(&window, number), moved);
		model.seen[number] = 1;
		model.top = SM_MAX(model.top, number + 1);
		assert_int_equal(window.top, model.top);
	}
}

static void test_first_number(void **state)
{
	static const uint64_t firsts[] = {
		0, 1, 63, 64, SM_REPLAY_WINDOW - 1, SM_REPLAY_WINDOW, SM_REPLAY_WINDOW + 1};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(firsts); i++) {
		reset();
		step(firsts[i]);
		step(firsts[i]);
		step(firsts[i] + 1);
		for (uint64_t n = 0; n <= firsts[i]; n += 61)
			step(n);
	}
}

static void test_edges(void **state)
{
	(void)state;
	reset();
	step(SM_REPLAY_WINDOW + 100); /* top is that + 1 */
	assert_int_equal(sm_replay_check(&window, 100), -ERANGE);
	assert_int_equal(sm_replay_check(&window, 101), 0);
	step(101);
	assert_int_equal(sm_replay_check(&window, 101), -EALREADY);
	/* One further: 101 has fallen out, and says so rather than "seen". */
	step(SM_REPLAY_WINDOW + 101);
	assert_int_equal(sm_replay_check(&window, 101), -ERANGE);
	assert_int_equal(sm_replay_check(&window, 102), 0);
	assert_int_equal(sm_replay_check(&window, UINT64_MAX), -ERANGE);
}

/* Far jumps, whose blocks lie on each other in the ring */
static void test_jumps(void **state)
{
	(void)state;
	for (uint64_t jump = SM_REPLAY_WINDOW - 65; jump <= SM_REPLAY_WINDOW + 330; jump++) {
		reset();
		for (uint64_t n = 0; n < 130; n++)
			step(n);
		step(jump);
		for (uint64_t n = 0; n < 200; n++)
			step(n);
		for (uint64_t n = jump - 70; n < jump + 70; n++)
			step(n);
	}
}

static void test_random(void **state)
{
	struct rng rng = rng_init("replay");

	(void)state;
	for (int round = 0; round < 6; round++) {
		reset();
		while (model.top < MODEL_MAX - 2 * SM_REPLAY_WINDOW) {
			uint32_t what = rng_below(&rng, 20000);
			uint64_t back = rng_below(&rng, what < 14000 ? 40 : SM_REPLAY_WINDOW + 200);

			if (what < 2) /* a gap */
				step(model.top + rng_below(&rng, SM_REPLAY_WINDOW + 300));
			else if (what < 8000)
				step(model.top + rng_below(&rng, 4));
			else
				step(model.top > back ? model.top - back : 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_number),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_jumps),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * The proof of batches, step by step: what counts as one, what as a failure, and what as neither.
 */
#include "core/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define RTT_US    (10 * SM_MSEC_US)
#define BEGIN_US  (1000 * SM_SEC_US)
#define ALL       ((1u << SM_BATCH_PROBES) - 1)
#define LONE      (1u << SM_BATCH_PROBES) /* beside the places of the batch */
#define TRIAL_MAX (SM_BATCH_ROUNDS_MAX * (2 * RTT_US + SM_BATCH_WAIT_MIN_US) + SM_SEC_US)

/* One peer's proof, its clock, and a path that answers what @passes says */
struct world {
	struct sm_batch b;
	uint64_t now_us, tokens;
	uint32_t passes;  /* mask of places, and LONE */
	uint32_t rounds;  /* sent */
	uint32_t changes; /* of the state */
};

static struct world world_new(void)
{
	struct world w = {.now_us = BEGIN_US, .passes = ALL | LONE};

	sm_batch_init(&w.b, true);
	sm_batch_start(&w.b, w.now_us);
	return w;
}

static void answer(struct world *w, uint64_t token)
{
	const int r = sm_batch_on_answer(&w->b, token, w->now_us);

	assert_true(r >= 0 || r == -ENOENT);
	w->changes += r == 1;
}

/* Sends a round if one is due; its answers come after a round trip. */
static void step(struct world *w)
{
	uint64_t fresh[SM_BATCH_PROBES + 1], sent[SM_BATCH_PROBES], lone;

	for (uint32_t i = 0; i < SM_ARRAY_SIZE(fresh); i++)
		fresh[i] = ++w->tokens;
	w->changes += sm_batch_tick(&w->b, RTT_US, w->now_us);
	if (!sm_batch_next(&w->b, fresh, w->now_us, sent, &lone))
		return;
	w->rounds++;
	w->now_us += RTT_US;
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++)
		if (w->passes >> i & 1)
			answer(w, sent[i]);
	if (w->passes & LONE)
		answer(w, lone);
}

/* Lets @us pass, with a turn at each deadline */
static void pass(struct world *w, uint64_t us)
{
	const uint64_t end_us = w->now_us + us;

	while (sm_batch_deadline(&w->b) <= end_us) {
		w->now_us = SM_MAX(w->now_us, sm_batch_deadline(&w->b));
		step(w);
		assert_true(sm_batch_deadline(&w->b) >
			    w->now_us); /* each turn serves its deadline */
	}
	w->now_us = SM_MAX(w->now_us, end_us);
}

static struct world proven(void)
{
	struct world w = world_new();

	pass(&w, 0);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
	assert_int_equal(w.rounds, 1);
	w.rounds = w.changes = 0;
	return w;
}

static void test_off(void **state)
{
	struct world w = {.now_us = BEGIN_US};

	(void)state;
	sm_batch_init(&w.b, false);
	sm_batch_start(&w.b, w.now_us);
	sm_batch_verify(&w.b, w.now_us);
	sm_batch_second(&w.b, 1000000, false, w.now_us);
	sm_batch_sleep(&w.b, true, w.now_us);
	sm_batch_sleep(&w.b, false, w.now_us);
	assert_true(sm_batch_deadline(&w.b) == SM_NEVER);
	step(&w);
	assert_int_equal(w.rounds, 0);
	assert_false(sm_batch_on_refused(&w.b, -EIO, w.now_us));
	assert_int_equal(w.b.state, SM_BATCH_OFF);
}

/* On only when all places were answered, in whatever order, each once or more */
static void test_each_place_counts(void **state)
{
	(void)state;
	for (uint32_t first = 0; first < SM_BATCH_PROBES; first++) {
		struct world w = world_new();
		const uint64_t fresh[SM_BATCH_PROBES + 1] = {11, 12, 13, 14, 15};
		uint64_t sent[SM_BATCH_PROBES], lone;

		assert_true(sm_batch_next(&w.b, fresh, w.now_us, sent, &lone));
		assert_false(sm_batch_next(&w.b, fresh, w.now_us, sent, &lone));
		assert_int_equal(lone, 15);
		assert_int_equal(sm_batch_on_answer(&w.b, lone, w.now_us), 0);
		for (uint32_t i = 0; i < SM_BATCH_PROBES - 1; i++)
			for (int twice = 0; twice < 2; twice++)
				assert_int_equal(sm_batch_on_answer(
							 &w.b, sent[(first + i) % SM_BATCH_PROBES],
							 w.now_us),
						 0);
		assert_false(sm_batch_is_on(&w.b));
		assert_int_equal(sm_batch_on_answer(&w.b, 0, w.now_us), -ENOENT);
		assert_int_equal(sm_batch_on_answer(&w.b, 99, w.now_us), -ENOENT);
		assert_int_equal(
			sm_batch_on_answer(&w.b, sent[(first + 3) % SM_BATCH_PROBES], w.now_us), 1);
		assert_true(sm_batch_is_on(&w.b));
		/* what comes late belongs to nothing any more */
		assert_int_equal(sm_batch_on_answer(&w.b, sent[0], w.now_us), -ENOENT);
		assert_true(sm_batch_deadline(&w.b) == SM_NEVER);
	}
}

/* A place answered in one round need not be in the next. */
static void test_places_over_rounds(void **state)
{
	struct world w = world_new();

	(void)state;
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++) {
		assert_false(sm_batch_is_on(&w.b));
		w.passes = LONE | 1u << i;
		w.now_us = SM_MAX(w.now_us, sm_batch_deadline(&w.b));
		step(&w);
	}
	assert_true(sm_batch_is_on(&w.b));
	assert_int_equal(w.rounds, SM_BATCH_PROBES);
}

/* What was asked in one round may be answered in the next. */
static void test_late_answers(void **state)
{
	const uint64_t first[SM_BATCH_PROBES + 1] = {11, 12, 13, 14, 15},
					       second[SM_BATCH_PROBES + 1] = {21, 22, 23, 24, 25};
	uint64_t sent[SM_BATCH_PROBES], again[SM_BATCH_PROBES], lone;
	struct world w = world_new();

	(void)state;
	assert_true(sm_batch_next(&w.b, first, w.now_us, sent, &lone));
	w.now_us = sm_batch_deadline(&w.b);
	assert_false(sm_batch_tick(&w.b, RTT_US, w.now_us));
	assert_true(sm_batch_next(&w.b, second, w.now_us, again, &lone));
	assert_int_equal(lone, 25);
	assert_memory_equal(again, sent, sizeof(sent));
	assert_int_equal(sm_batch_on_answer(&w.b, 15, w.now_us), -ENOENT); /* of another round */
	for (uint32_t i = 0; i < SM_BATCH_PROBES; i++)
		assert_int_equal(sm_batch_on_answer(&w.b, sent[i], w.now_us),
				 i == SM_BATCH_PROBES - 1);
}

static void test_lost(void **state)
{
	(void)state;
	for (uint32_t loses = 1; loses <= ALL; loses++) {
		struct world w = proven();
		const uint64_t begin_us = w.now_us;

		w.passes = LONE | (ALL & ~loses);
		sm_batch_verify(&w.b, w.now_us);
		while (w.b.state == SM_BATCH_PROVEN)
			pass(&w, 50 * SM_MSEC_US);
		assert_int_equal(w.b.state, SM_BATCH_LOST);
		assert_true(w.now_us - begin_us < 3 * SM_SEC_US);
		assert_int_equal(w.rounds, SM_BATCH_ATTEMPTS);
		assert_int_equal(w.changes, 1);

		/* left alone for a minute, then tried: still lost, which is no change */
		pass(&w, SM_BATCH_RETRY_US - SM_SEC_US);
		assert_int_equal(w.rounds, SM_BATCH_ATTEMPTS);
		pass(&w, 5 * SM_SEC_US);
		assert_int_equal(w.rounds, 2 * SM_BATCH_ATTEMPTS);
		assert_int_equal(w.b.state, SM_BATCH_LOST);
		assert_int_equal(w.b.losses, 1);
		assert_int_equal(w.changes, 1);

		w.passes = ALL | LONE;
		pass(&w, SM_BATCH_RETRY_US + SM_SEC_US);
		assert_int_equal(w.b.state, SM_BATCH_PROVEN);
		assert_int_equal(w.changes, 2);
	}
}

/* As long as the lone probe is lost too, nothing is known, and little is sent. */
static void test_silence_proves_nothing(void **state)
{
	struct world w = proven();

	(void)state;
	w.passes = 0;
	sm_batch_verify(&w.b, w.now_us);
	pass(&w, TRIAL_MAX);
	assert_int_equal(w.rounds, SM_BATCH_ROUNDS_MAX);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
	pass(&w, 100 * SM_SEC_US);
	assert_in_range(w.rounds, SM_BATCH_ROUNDS_MAX, 10 * SM_BATCH_ROUNDS_MAX);
	assert_int_equal(w.changes, 0);
	w.passes = ALL | LONE;
	pass(&w, SM_BATCH_REPEAT_US + SM_SEC_US);
	assert_true(sm_batch_deadline(&w.b) == SM_NEVER);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
}

/* Rounds without an answer to the lone probe do not count among those that failed. */
static void test_lone_probe_decides(void **state)
{
	struct world w = proven();

	(void)state;
	sm_batch_verify(&w.b, w.now_us);
	for (uint32_t i = 0; i < 2 * SM_BATCH_ATTEMPTS - 1; i++) {
		assert_int_equal(w.b.state, SM_BATCH_PROVEN);
		w.passes = i % 2 ? 0 : LONE;
		w.now_us = SM_MAX(w.now_us, sm_batch_deadline(&w.b));
		step(&w);
	}
	w.now_us = sm_batch_deadline(&w.b);
	step(&w);
	assert_int_equal(w.b.state, SM_BATCH_LOST);
}

static void test_refused(void **state)
{
	struct world w = proven();

	(void)state;
	assert_true(sm_batch_on_refused(&w.b, -EIO, w.now_us));
	assert_int_equal(w.b.state, SM_BATCH_REFUSED);
	assert_int_equal(w.b.err, -EIO);
	assert_int_equal(w.b.losses, 0);
	assert_false(sm_batch_on_refused(&w.b, -EINVAL, w.now_us));
	pass(&w, SM_BATCH_RETRY_US - 1);
	assert_int_equal(w.rounds, 0);
	pass(&w, SM_SEC_US);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
}

/* How soon is the proof repeated? */
static void test_repeated_while_used(void **state)
{
	static const struct {
		uint64_t packets, after_s; /* each second; 0: never */
		bool received;
	} cases[] = {
		{0, 0, true},     {0, 0, false},  {1, 10, true},   {4, 8, true},
		{31, 2, true},    {100, 2, true}, {499, 2, true},  {500, 1, true},
		{90000, 1, true}, {1, 1, false},  {100, 1, false},
	};

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct world w = proven();
		uint64_t second = 0;

		w.now_us = w.b.proven_us; /* seconds are counted from there */
		while (second < 60 && w.rounds == 0) {
			second++;
			w.now_us += SM_SEC_US;
			sm_batch_second(&w.b, cases[i].packets, cases[i].received, w.now_us);
			step(&w);
		}
		assert_int_equal(w.rounds ? second : 0, cases[i].after_s);
	}
}

static void test_asleep(void **state)
{
	struct world w = proven();

	(void)state;
	sm_batch_verify(&w.b, w.now_us);
	sm_batch_sleep(&w.b, true, w.now_us);
	assert_true(sm_batch_deadline(&w.b) == SM_NEVER);
	sm_batch_verify(&w.b, w.now_us);
	sm_batch_second(&w.b, 1000000, false, w.now_us + 100 * SM_SEC_US);
	pass(&w, 100 * SM_SEC_US);
	assert_int_equal(w.rounds, 0);
	sm_batch_sleep(&w.b, false, w.now_us);
	pass(&w, 0);
	assert_int_equal(w.rounds, 1);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
}

static void test_inherited(void **state)
{
	struct world old = proven(), w = {.now_us = old.now_us, .passes = ALL | LONE};

	(void)state;
	sm_batch_init(&w.b, true);
	sm_batch_inherit(&w.b, &old.b, w.now_us);
	assert_true(sm_batch_is_on(&w.b)); /* on meanwhile */
	pass(&w, 0);
	assert_int_equal(w.rounds, 1);

	/* a loss is remembered, and its time runs on */
	old.passes = LONE;
	sm_batch_verify(&old.b, old.now_us);
	pass(&old, TRIAL_MAX);
	assert_int_equal(old.b.state, SM_BATCH_LOST);
	w = (struct world){.now_us = old.now_us, .passes = ALL | LONE};
	sm_batch_init(&w.b, true);
	sm_batch_inherit(&w.b, &old.b, w.now_us);
	assert_int_equal(w.b.state, SM_BATCH_LOST);
	pass(&w, SM_BATCH_RETRY_US - TRIAL_MAX);
	assert_int_equal(w.rounds, 0);
	pass(&w, TRIAL_MAX);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);

	/* what is off says nothing of the path, nor does it become on */
	sm_batch_init(&old.b, false);
	sm_batch_inherit(&w.b, &old.b, w.now_us);
	assert_int_equal(w.b.state, SM_BATCH_UNPROVEN);
	sm_batch_init(&w.b, false);
	old = proven();
	sm_batch_inherit(&w.b, &old.b, w.now_us);
	assert_int_equal(w.b.state, SM_BATCH_OFF);
}

static void test_allowed(void **state)
{
	struct world w = proven();

	(void)state;
	assert_false(sm_batch_allow(&w.b, true, w.now_us));
	assert_true(sm_batch_allow(&w.b, false, w.now_us));
	assert_int_equal(w.b.state, SM_BATCH_OFF);
	assert_true(sm_batch_deadline(&w.b) == SM_NEVER);
	assert_false(sm_batch_allow(&w.b, true, w.now_us)); /* on only after the proof */
	assert_int_equal(w.b.state, SM_BATCH_UNPROVEN);
	pass(&w, 0);
	assert_int_equal(w.b.state, SM_BATCH_PROVEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_each_place_counts),
		cmocka_unit_test(test_places_over_rounds),
		cmocka_unit_test(test_late_answers),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_silence_proves_nothing),
		cmocka_unit_test(test_lone_probe_decides),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_repeated_while_used),
		cmocka_unit_test(test_asleep),
		cmocka_unit_test(test_inherited),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

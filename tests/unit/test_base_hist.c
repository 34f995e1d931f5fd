// SPDX-License-Identifier: MIT
/*
 * The histogram: error bound against exact quantiles, edges, merging.
 */
#include "base/hist.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void test_empty(void **state)
{
	static struct sm_hist h;

	(void)state;
	assert_true(sm_hist_quantile(&h, 0.5) == 0);
	sm_hist_add(&h, 1000, 0);
	assert_true(load(&h.count) == 0 && load(&h.max_ns) == 0);
}

/* One value alone: every quantile is exact, because the maximum bounds the bucket. */
static void test_single_values(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (int around = -1; around <= 1; around++) {
			uint64_t ns = (UINT64_C(1) << bit) + (uint64_t)around;
			static struct sm_hist h;

			memset(&h, 0, sizeof(h));
			sm_hist_add(&h, ns, 3);
			assert_true(sm_hist_quantile(&h, 0) == ns);
			assert_true(sm_hist_quantile(&h, 1) == ns);
			assert_true(load(&h.count) == 3);
			assert_true(load(&h.sum_ns) == 3 * ns);
		}
	}
}

/* With a larger value present the bucket's own bound shows. */
static void test_error_bound_everywhere(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 42; bit++) {
		for (uint64_t step = 0; step < 64; step++) {
			uint64_t ns = (UINT64_C(1) << bit) + ((UINT64_C(1) << bit) * step >> 6),
				 upper;
			static struct sm_hist h;

			memset(&h, 0, sizeof(h));
			sm_hist_add(&h, ns, 1);
			sm_hist_add(&h, UINT64_C(1) << 50, 1);
			upper = sm_hist_quantile(&h, 0.5);
			assert_true(upper >= ns);
			assert_true((upper - ns) * 16 <= ns);
			assert_true(sm_hist_quantile(&h, 1) == UINT64_C(1) << 50);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_random_quantiles(void **state)
{
	enum { COUNT = 5000 };
	static const double quantiles[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
	static uint64_t values[COUNT];
	static struct sm_hist whole, even, odd;
	struct rng rng = rng_init(__func__);
	uint64_t sum = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		values[i] = rng_u64(&rng) >> (21 + rng_below(&rng, 40));
		sum += values[i];
		sm_hist_add(&whole, values[i], 1);
		sm_hist_add(i % 2 ? &odd : &even, values[i], 1);
	}
	sm_hist_merge(&even, &odd);
	assert_true(load(&even.count) == COUNT && load(&even.sum_ns) == sum);
	assert_true(load(&even.max_ns) == load(&whole.max_ns));

	qsort(values, COUNT, sizeof(values[0]), by_value);
	assert_true(load(&whole.max_ns) == values[COUNT - 1]);
	for (size_t i = 0; i < SM_ARRAY_SIZE(quantiles); i++) {
		double at = quantiles[i] * COUNT;
		uint64_t rank = (uint64_t)at, exact, got = sm_hist_quantile(&whole, quantiles[i]);

		if ((double)rank < at || rank == 0)
			rank++;
		exact = values[rank - 1];
		assert_true(got >= exact && (got - exact) * 16 <= exact);
		assert_true(sm_hist_quantile(&even, quantiles[i]) == got);
	}
}

static void test_weights(void **state)
{
	static struct sm_hist h;

	(void)state;
	sm_hist_add(&h, 5, 90);
	sm_hist_add(&h, 10, 10);
	assert_true(sm_hist_quantile(&h, 0.90) == 5);
	assert_true(sm_hist_quantile(&h, 0.91) == 10);
	assert_true(sm_hist_quantile(&h, -1) == 5);
	assert_true(sm_hist_quantile(&h, 2) == 10);
	/* More than 32 bits can count */
	for (int i = 0; i < 3; i++)
		sm_hist_add(&h, 7, UINT32_MAX);
	assert_true(sm_hist_quantile(&h, 0.5) == 7);
	assert_true(load(&h.count) == 100 + 3 * (uint64_t)UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_single_values),
		cmocka_unit_test(test_error_bound_everywhere),
		cmocka_unit_test(test_random_quantiles),
		cmocka_unit_test(test_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

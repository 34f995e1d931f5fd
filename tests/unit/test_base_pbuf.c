// SPDX-License-Identifier: MIT
/*
 * Packet buffers: room, alignment, no overlap, last in first out.
 */
#include "base/pbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_rooms(void **state)
{
	static const uint32_t sizes[] = {0, 1, 63, 64, 1500, 1514, 65535};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(sizes); i++) {
		struct sm_pbuf_pool pool;
		struct sm_pbuf *p;

		assert_int_equal(sm_pbuf_pool_init(&pool, 3, sizes[i]), 0);
		p = sm_pbuf_get(&pool);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p->buf % 64, 0);
		assert_int_equal(p->data - p->buf, SM_PBUF_HEADROOM);
		assert_int_equal(p->len, 0);
		assert_true(sm_pbuf_tailroom(p) >= sizes[i] + SM_PBUF_TAILROOM);

		/* Payload, both rooms to the last byte: ASAN sees a byte too many. */
		memset(sm_pbuf_put_tail(p, sizes[i]), 1, sizes[i]);
		assert_ptr_equal(sm_pbuf_push(p, SM_PBUF_HEADROOM), p->buf);
		memset(p->data, 2, SM_PBUF_HEADROOM);
		memset(sm_pbuf_put_tail(p, SM_PBUF_TAILROOM), 3, SM_PBUF_TAILROOM);
		assert_int_equal(p->len, SM_PBUF_HEADROOM + sizes[i] + SM_PBUF_TAILROOM);
		sm_pbuf_put(&pool, p);
		assert_ptr_equal(sm_pbuf_get(&pool), p);
		assert_int_equal(p->len, 0);
		assert_int_equal(p->data - p->buf, SM_PBUF_HEADROOM);
		sm_pbuf_pool_done(&pool);
	}
}

static void test_exhaustion_and_order(void **state)
{
	enum { COUNT = 17 };
	struct sm_pbuf *taken[COUNT];
	struct sm_pbuf_pool pool;

	(void)state;
	assert_int_equal(sm_pbuf_pool_init(&pool, COUNT, 100), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(pool.free_count, COUNT - i);
		taken[i] = sm_pbuf_get(&pool);
		assert_non_null(taken[i]);
		memset(taken[i]->buf, (int)i, taken[i]->cap);
	}
	assert_null(sm_pbuf_get(&pool));
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(taken[i]->buf[0], i);
		assert_int_equal(taken[i]->buf[taken[i]->cap - 1], i);
		sm_pbuf_put(&pool, taken[i]);
	}
	for (unsigned i = COUNT; i > 0; i--)
		assert_ptr_equal(sm_pbuf_get(&pool), taken[i - 1]);
	assert_null(sm_pbuf_get(&pool));
	sm_pbuf_pool_done(&pool);
	sm_pbuf_pool_done(&pool); /* done twice, and of nothing */
}

static void test_impossible(void **state)
{
	struct sm_pbuf_pool pool;

	(void)state;
	assert_int_equal(sm_pbuf_pool_init(&pool, 1, UINT32_MAX), -ENOMEM);
	assert_int_equal(sm_pbuf_pool_init(&pool, 0, 100), 0);
	assert_null(sm_pbuf_get(&pool));
	sm_pbuf_pool_done(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rooms),
		cmocka_unit_test(test_exhaustion_and_order),
		cmocka_unit_test(test_impossible),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

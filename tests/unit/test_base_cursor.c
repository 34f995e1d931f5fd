// SPDX-License-Identifier: MIT
/*
 * Cursors: byte order, stickiness at every possible end, trailing bytes.
 */
#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const uint8_t bytes[15] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
				  0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc};

static void test_read_order(void **state)
{
	struct sm_reader r = sm_reader_init(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(sm_read_u8(&r), 0x01);
	assert_int_equal(sm_read_u16(&r), 0x2345);
	assert_int_equal(sm_read_u32(&r), 0x6789abcd);
	assert_int_equal(sm_reader_done(&r), -EBADMSG);
	assert_true(sm_read_u64(&r) == UINT64_C(0xef1032547698badc));
	assert_int_equal(sm_reader_done(&r), 0);
}

static void test_write_order(void **state)
{
	uint8_t buf[15];
	struct sm_writer w = sm_writer_init(buf, sizeof(buf));

	(void)state;
	sm_write_u8(&w, 0x01);
	sm_write_u16(&w, 0x2345);
	sm_write_u32(&w, 0x6789abcd);
	sm_write_u64(&w, UINT64_C(0xef1032547698badc));
	assert_int_equal(sm_writer_done(&w), 15);
	assert_memory_equal(buf, bytes, sizeof(bytes));
	sm_write_bytes(&w, NULL, 0);
	assert_int_equal(sm_writer_done(&w), 15);
	sm_write_u8(&w, 1);
	assert_int_equal(sm_writer_done(&w), -ENOSPC);
}

/* Reads 1, 2, 4 and 8 bytes and a view of what is available; whatever lies past @len reads as zero. */
static void test_read_past_every_end(void **state)
{
	(void)state;
	for (size_t len = 0; len < sizeof(bytes); len++) {
		struct sm_reader r = sm_reader_init(bytes, len);
		uint8_t rest[4] = {1, 1, 1, 1};

		assert_int_equal(sm_read_u8(&r), len >= 1 ? 0x01 : 0);
		assert_int_equal(sm_read_u16(&r), len >= 3 ? 0x2345 : 0);
		assert_int_equal(sm_read_u32(&r), len >= 7 ? 0x6789abcd : 0);
		assert_true(sm_read_u64(&r) == 0);
		assert_true(r.failed);
		/* Sticky: although bytes may be left, none comes any more. */
		assert_null(sm_read_view(&r, 0));
		sm_read_bytes(&r, rest, sizeof(rest));
		assert_memory_equal(rest, ((uint8_t[4]){0}), 4);
		assert_int_equal(sm_read_u8(&r), 0);
		assert_int_equal(sm_reader_done(&r), -EBADMSG);
	}
}

static void test_write_past_every_end(void **state)
{
	(void)state;
	for (size_t len = 0; len < 15; len++) {
		uint8_t buf[16];
		struct sm_writer w = sm_writer_init(buf, len);

		memset(buf, 0xee, sizeof(buf));
		sm_write_u8(&w, 0x01);
		sm_write_u16(&w, 0x2345);
		sm_write_u32(&w, 0x6789abcd);
		sm_write_u64(&w, 1);
		assert_true(w.failed);
		sm_write_u8(&w, 0x55); /* would fit in most cases, but the mark stays */
		assert_int_equal(sm_writer_len(&w), len >= 7 ? 7 : len >= 3 ? 3 : len >= 1 ? 1 : 0);
		assert_int_equal(sm_writer_done(&w), -ENOSPC);
		for (size_t i = sm_writer_len(&w); i < sizeof(buf); i++)
			assert_int_equal(buf[i], 0xee);
	}
}

static void test_views_and_bytes(void **state)
{
	struct sm_reader r = sm_reader_init(bytes, 5);
	uint8_t two[2] = {0};

	(void)state;
	assert_ptr_equal(sm_read_view(&r, 3), bytes);
	assert_int_equal(sm_reader_left(&r), 2);
	sm_read_bytes(&r, two, 2);
	assert_memory_equal(two, bytes + 3, 2);
	assert_int_equal(sm_reader_done(&r), 0);
	assert_null(sm_read_view(&r, SIZE_MAX));
	assert_true(r.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_order),
		cmocka_unit_test(test_write_order),
		cmocka_unit_test(test_read_past_every_end),
		cmocka_unit_test(test_write_past_every_end),
		cmocka_unit_test(test_views_and_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

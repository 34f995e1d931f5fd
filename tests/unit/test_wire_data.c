// SPDX-License-Identifier: MIT
/*
 * Data packets: the header byte for byte, and the bodies inside of them.
 */
#include "rng.h"
#include "wire/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const uint8_t header_bytes[16] = {0x80, 0x12, 0x03, 0x00, 0xde, 0xad, 0xbe, 0xef,
					 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08};

static void test_header(void **state)
{
	struct sm_data_header h = {.epoch = 0x12,
				   .lane = 3,
				   .session = 0xdeadbeef,
				   .number = UINT64_C(0x0102030405060708)};
	struct sm_data_header back = {0};
	uint8_t buf[33] = {0};

	(void)state;
	sm_data_header_encode(&h, buf);
	assert_memory_equal(buf, header_bytes, sizeof(header_bytes));
	assert_int_equal(sm_data_header_decode(buf, sizeof(buf), &back), 0);
	assert_int_equal(back.epoch, h.epoch);
	assert_int_equal(back.lane, h.lane);
	assert_int_equal(back.session, h.session);
	assert_true(back.number == h.number);
	assert_int_equal(sm_data_header_decode(buf, 65507, &back), 0); /* reads the header alone */
}

static void test_header_refused(void **state)
{
	struct sm_data_header h = {.session = 77};
	uint8_t buf[33] = {0};

	(void)state;
	memcpy(buf, header_bytes, sizeof(header_bytes));
	for (size_t len = 0; len < sizeof(buf); len++)
		assert_int_equal(sm_data_header_decode(buf, len, &h), -EBADMSG);
	for (unsigned type = 0; type < 256; type++) {
		buf[0] = (uint8_t)type;
		assert_int_equal(sm_data_header_decode(buf, sizeof(buf), &h),
				 type == 0x80 ? 0 : -EBADMSG);
	}
	buf[0] = 0x80;
	h.session = 77;
	for (unsigned reserved = 1; reserved < 256; reserved++) {
		buf[3] = (uint8_t)reserved;
		assert_int_equal(sm_data_header_decode(buf, sizeof(buf), &h), -EBADMSG);
	}
	assert_int_equal(h.session, 77);
}

static void test_part(void **state)
{
	(void)state;
	for (unsigned count = 0; count < 256; count++) {
		for (unsigned index = 0; index < 256; index++) {
			struct sm_part part = {.index = (uint8_t)index, .count = (uint8_t)count};
			struct sm_part back = {.index = 9, .count = 9};
			bool good = count >= 2 && count <= SM_PART_COUNT_MAX && index < count;
			uint8_t buf[4];

			sm_part_encode(&part, buf);
			assert_memory_equal(buf, ((uint8_t[]){part.index, part.count, 0, 0}), 4);
			assert_int_equal(sm_part_decode(buf, &back), good ? 0 : -EBADMSG);
			assert_int_equal(back.index, good ? index : 9);
			assert_int_equal(back.count, good ? count : 9);
		}
	}
	assert_int_equal(sm_part_decode((uint8_t[]){0, 2, 0, 1}, &(struct sm_part){0}), -EBADMSG);
	assert_int_equal(sm_part_decode((uint8_t[]){0, 2, 1, 0}, &(struct sm_part){0}), -EBADMSG);
}

static void test_chunk(void **state)
{
	static const struct {
		uint8_t bytes[SM_CHUNK_LEN];
		struct sm_chunk chunk;
		int result;
	} cases[] = {
		{{0, 0, 0, 3, 5, 0xa8, 66, 0}, {0, 3, 1448, 66}, 0},
		{{0, 2, 0, 3, 5, 0xa8, 66, 0}, {2, 3, 1448, 66}, 0},
		{{3, 0xff, 4, 0, 0, 1, 255, 0}, {1023, 1024, 1, 255}, 0},
		{{0, 0, 0, 1, 0xff, 0xff, 28, 0}, {0, 1, 65535, 28}, 0},
		{{0, 0, 0, 1, 0, 0, 0, 0}, {0, 1, 0, 0}, 0},
		/* not below the count, none, too many */
		{{0, 3, 0, 3, 5, 0xa8, 66, 0}, {0}, -EBADMSG},
		{{0xff, 0xff, 0, 3, 5, 0xa8, 66, 0}, {0}, -EBADMSG},
		{{0, 0, 0, 0, 5, 0xa8, 66, 0}, {0}, -EBADMSG},
		{{0, 0, 4, 1, 5, 0xa8, 66, 0}, {0}, -EBADMSG},
		{{0, 0, 0xff, 0xff, 5, 0xa8, 66, 0}, {0}, -EBADMSG},
		/* flags, short headers */
		{{0, 0, 0, 3, 5, 0xa8, 66, 1}, {0}, -EBADMSG},
		{{0, 0, 0, 3, 5, 0xa8, 66, 0x80}, {0}, -EBADMSG},
		{{0, 0, 0, 3, 5, 0xa8, 27, 0}, {0}, -EBADMSG},
		{{0, 0, 0, 3, 5, 0xa8, 0, 0}, {0}, -EBADMSG},
		/* a lone frame that is not alone */
		{{0, 0, 0, 2, 0, 0, 0, 0}, {0}, -EBADMSG},
		{{0, 1, 0, 2, 0, 0, 0, 0}, {0}, -EBADMSG},
		{{0, 1, 0, 1, 0, 0, 0, 0}, {0}, -EBADMSG},
		{{0, 0, 0, 0, 0, 0, 0, 0}, {0}, -EBADMSG},
		{{0, 0, 0, 1, 0, 0, 66, 0}, {0}, -EBADMSG},
		{{0, 0, 0, 1, 0, 0, 0, 1}, {0}, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		const struct sm_chunk *want = &cases[i].chunk;
		struct sm_chunk back = {.index = 9};
		uint8_t buf[SM_CHUNK_LEN];

		if (sm_chunk_decode(cases[i].bytes, &back) != cases[i].result)
			fail_msg("case %zu", i);
		if (cases[i].result < 0) {
			assert_int_equal(back.index, 9);
			continue;
		}
		assert_true(back.index == want->index && back.count == want->count);
		assert_true(back.gso_size == want->gso_size && back.header_len == want->header_len);
		sm_chunk_encode(&back, buf);
		assert_memory_equal(buf, cases[i].bytes, sizeof(buf));
	}
}

/* Every count and index: what is taken encodes to the bytes it came from */
static void test_chunk_places(void **state)
{
	(void)state;
	for (unsigned count = 0; count < 1100; count++) {
		for (unsigned index = 0; index < 1100; index++) {
			uint8_t bytes[] = {(uint8_t)(index >> 8),
					   (uint8_t)index,
					   (uint8_t)(count >> 8),
					   (uint8_t)count,
					   0,
					   9,
					   54,
					   0};
			bool good = index < count && count <= 1024;
			struct sm_chunk chunk;
			uint8_t buf[SM_CHUNK_LEN];

			if (sm_chunk_decode(bytes, &chunk) != (good ? 0 : -EBADMSG))
				fail_msg("%u of %u", index, count);
			if (!good)
				continue;
			sm_chunk_encode(&chunk, buf);
			if (memcmp(buf, bytes, sizeof(buf)) != 0)
				fail_msg("%u of %u", index, count);
		}
	}
}

static void test_probe(void **state)
{
	static const struct {
		size_t len;
		uint8_t bytes[32];
		int result;
	} cases[] = {
		{9, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 0},
		{8, {0, 1, 2, 3, 4, 5, 6, 7, 8}, -EBADMSG},
		{0, {0}, -EBADMSG},
		{30, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 0}, /* padded */
		{30, {0, 1, 2, 3, 4, 5, 6, 7, 8, [29] = 1}, -EBADMSG},
		{9, {2, 1, 2, 3, 4, 5, 6, 7, 8}, -EBADMSG},
		{9, {1, 1, 2, 3, 4, 5, 6, 7, 8}, -EBADMSG},
		{16, {1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0x24, 0xe3, 192, 0, 2, 1}, 0},
		{20, {1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0x24, 0xe3, 192, 0, 2, 1}, 0},
		{20, {1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0x24, 0xe3, 192, 0, 2, 1, 1}, -EBADMSG},
		{15, {1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0x24, 0xe3, 192, 0, 2, 1}, -EBADMSG},
		{28, {1, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0x24, 0xe3, 0x20, 1, 0xd, 0xb8, [27] = 1}, 0},
		{27, {1, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0x24, 0xe3, 0x20, 1, 0xd, 0xb8}, -EBADMSG},
		{28, {1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0}, -EBADMSG},
		{28, {1, 1, 2, 3, 4, 5, 6, 7, 8, 5, 0, 0}, -EBADMSG},
		{28, {1, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0, 1, [22] = 0xff, 0xff, 1}, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_probe probe = {.token = 77};
		uint8_t again[SM_PROBE_LEN_MAX];
		size_t len;

		if (sm_probe_decode(cases[i].bytes, cases[i].len, &probe) != cases[i].result)
			fail_msg("case %zu", i);
		if (cases[i].result < 0) {
			assert_true(probe.token == 77);
			continue;
		}
		assert_true(probe.token == UINT64_C(0x0102030405060708));
		len = sm_probe_encode(&probe, again);
		assert_true(len <= cases[i].len);
		assert_memory_equal(again, cases[i].bytes, len);
	}
}

static void test_probe_fields(void **state)
{
	struct sm_probe probe = {.op = SM_PROBE_ANSWER, .token = 5}, back;
	uint8_t buf[SM_PROBE_LEN_MAX];
	size_t len;

	(void)state;
	assert_int_equal(sm_addr_parse("[2001:db8::1]:9443", 0, &probe.observed), 0);
	len = sm_probe_encode(&probe, buf);
	assert_int_equal(len, SM_PROBE_LEN_MAX);
	assert_int_equal(sm_probe_decode(buf, len, &back), 0);
	assert_int_equal(back.op, SM_PROBE_ANSWER);
	assert_true(back.token == 5 && sm_addr_equal(&back.observed, &probe.observed));
}

static void test_segment(void **state)
{
	static uint8_t buf[SM_STREAM_HEADER_LEN + SM_STREAM_SEGMENT_MAX + 1],
		data[SM_STREAM_SEGMENT_MAX];
	static const size_t lens[] = {0, 1, 500, SM_STREAM_SEGMENT_MAX};
	struct rng rng = rng_init(__func__);
	struct sm_segment back;

	(void)state;
	rng_fill(&rng, data, sizeof(data));
	for (size_t i = 0; i < SM_ARRAY_SIZE(lens); i++) {
		struct sm_segment segment = {
			.offset = 0x01020304, .acked = 0xfffefdfc, .data = data, .len = lens[i]};
		size_t len = sm_segment_encode(&segment, buf);

		assert_int_equal(len, SM_STREAM_HEADER_LEN + lens[i]);
		assert_memory_equal(buf, "\x01\x02\x03\x04\xff\xfe\xfd\xfc", 8);
		assert_int_equal(sm_segment_decode(buf, len, &back), 0);
		assert_int_equal(back.offset, segment.offset);
		assert_int_equal(back.acked, segment.acked);
		assert_int_equal(back.len, lens[i]);
		assert_ptr_equal(back.data, buf + SM_STREAM_HEADER_LEN);
		assert_memory_equal(back.data, data, lens[i]);
	}
	for (size_t len = 0; len < SM_STREAM_HEADER_LEN; len++)
		assert_int_equal(sm_segment_decode(buf, len, &back), -EBADMSG);
	assert_int_equal(sm_segment_decode(buf, sizeof(buf), &back), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),       cmocka_unit_test(test_header_refused),
		cmocka_unit_test(test_part),         cmocka_unit_test(test_chunk),
		cmocka_unit_test(test_chunk_places), cmocka_unit_test(test_probe),
		cmocka_unit_test(test_probe_fields), cmocka_unit_test(test_segment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

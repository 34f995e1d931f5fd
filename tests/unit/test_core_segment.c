// SPDX-License-Identifier: MIT
/*
 * Segmentation in software, compared with frames that were written from nothing. Whole super-frames of all
 * shapes are cut in test_core_super.c too.
 */
#include "frames.h"
#include "rng.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TAP SM_MODE_TAP
#define TUN SM_MODE_TUN
#define TCP SM_PROTO_TCP
#define UDP SM_PROTO_UDP

static uint8_t payload[4096];

/* --- finishing --- */

static void test_finish(void **state)
{
	/* RFC 1071's example: the sum is 0xddf2 */
	static const struct {
		uint16_t start, offset;
		size_t len;
		uint8_t in[16], out[16];
		int result;
	} cases[] = {
		{0,
		 8,
		 10,
		 {0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0},
		 {0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7, 0x22, 0x0d},
		 0},
		/* from an odd place on, with what stands in the field */
		{1, 2, 5, {9, 0x12, 0x34, 0, 1}, {9, 0x12, 0x34, 0xed, 0xca}, 0},
		/* an odd last byte */
		{0, 0, 3, {0, 1, 0x10}, {0xef, 0xfe, 0x10}, 0},
		/* zero is written as the other zero */
		{0, 2, 4, {0xff, 0xfe, 0, 1}, {0xff, 0xfe, 0xff, 0xff}, 0},
		{4, 0, 6, {1, 2, 3, 4, 0, 5}, {1, 2, 3, 4, 0xff, 0xfa}, 0},
		{4, 1, 6, {1, 2, 3, 4, 0, 5}, {1, 2, 3, 4, 0, 5}, -EBADMSG},
		{5, 0, 6, {1, 2, 3, 4, 0, 5}, {1, 2, 3, 4, 0, 5}, -EBADMSG},
		{0, 5, 6, {1, 2, 3, 4, 0, 5}, {1, 2, 3, 4, 0, 5}, -EBADMSG},
		{0xffff, 0xffff, 6, {1, 2, 3, 4, 0, 5}, {1, 2, 3, 4, 0, 5}, -EBADMSG},
		{0, 0, 1, {1}, {1}, -EBADMSG},
		{0, 0, 0, {0}, {0}, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_vnet vnet = {.csum_start = cases[i].start,
				       .csum_offset = cases[i].offset};
		uint8_t *frame = malloc(cases[i].len);

		if (cases[i].len > 0)
			memcpy(frame, cases[i].in, cases[i].len);
		assert_int_equal(sm_segment_finish(&vnet, frame, cases[i].len), 0);
		assert_memory_equal(frame, cases[i].in, cases[i].len);
		vnet.flags = SM_VNET_NEEDS_CSUM | SM_VNET_DATA_VALID;
		if (sm_segment_finish(&vnet, frame, cases[i].len) != cases[i].result ||
		    memcmp(frame, cases[i].out, cases[i].len) != 0)
			fail_msg("case %zu", i);
		free(frame);
	}
}

static void test_finish_frames(void **state)
{
	static const struct shape shapes[] = {
		{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, 0x18},
		{TAP, 2, 6, TCP, 2, NULL, 0, 1, 2, 0, 0x18},
		{TUN, 0, 4, UDP, 3, NULL, 0, 0, 2, 0, 0},
		{TUN, 0, 6, UDP, 1, NULL, 0, 0, 2, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(shapes); i++) {
		struct sm_vnet vnet = frame_vnet(&shapes[i], 0);

		for (uint32_t n = 0; n < 300; n++) {
			uint8_t frame[512], want[512];
			uint32_t len = frame_build(&shapes[i], payload, n, false, frame);

			(void)frame_build(&shapes[i], payload, n, true, want);
			assert_int_equal(sm_segment_finish(&vnet, frame, len), 0);
			assert_memory_equal(frame, want, len);
		}
	}
}

/* UDP says with zero that there is no checksum: a sum of zero is written as the other zero. */
static void test_finish_zero(void **state)
{
	static const struct shape shape = {TUN, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0};
	struct sm_vnet vnet = frame_vnet(&shape, 0);
	uint8_t data[2] = {0}, frame[64], plain[64];
	uint32_t len = frame_build(&shape, data, 2, true, frame);

	(void)state;
	memcpy(data, frame + 26, 2); /* what is missing to all ones */
	len = frame_build(&shape, data, 2, false, frame);
	memcpy(plain, frame, len);
	assert_int_equal(sm_segment_finish(&vnet, frame, len), 0);
	assert_memory_equal(frame + 26, "\xff\xff", 2);
	assert_memory_equal(frame, plain, 26);
}

/* --- segments --- */

static struct sm_segmenter start(const struct shape *shape, uint32_t gso_size, uint8_t *frame,
				 uint32_t len)
{
	struct sm_vnet vnet = frame_vnet(shape, gso_size);
	struct sm_segmenter s;

	assert_int_equal(sm_segmenter_init(&s, shape->mode, &vnet, frame, len), 0);
	return s;
}

/* Every size of payload about the size of a segment, none included */
static void test_sizes(void **state)
{
	static const struct shape shapes[] = {{TAP, 0, 4, TCP, 0, NULL, 0, 1, 0xfffe, 0, 0xd9},
					      {TAP, 2, 6, UDP, 1, NULL, 0, 0, 0, 0, 0}};

	(void)state;
	for (uint32_t n = 0; n < 100; n++) {
		const struct shape *shape = &shapes[n % 2];
		uint32_t gso_size = 1 + n % 33, at = 0, index = 0, segment_len;
		uint8_t frame[256], before[256], segment[256], want[256];
		uint32_t len = frame_build(shape, payload, n, false, frame);
		struct sm_segmenter s = start(shape, gso_size, frame, len);

		memcpy(before, frame, len);
		do {
			uint32_t piece = SM_MIN(gso_size, n - at);
			uint32_t want_len = frame_segment(shape, payload, at, piece, n, index++,
							  want);

			segment_len = sm_segmenter_frame_len(&s);
			assert_int_equal(segment_len, want_len);
			sm_segmenter_next(&s, segment);
			assert_memory_equal(segment, want, want_len);
			at += piece;
		} while (at < n);
		assert_int_equal(sm_segmenter_frame_len(&s), 0);
		assert_memory_equal(frame, before, len);
	}
}

/* Verified by a card, and joined by it: the checksum says nothing, and comes out right. */
static void test_verified(void **state)
{
	static const struct shape shape = {TAP, 0, 6, TCP, 0, NULL, 0, 1, 2, 0, 0x18};
	struct sm_vnet vnet = frame_vnet(&shape, 1000);
	uint8_t frame[4096], segment[2000], want[2000];
	uint32_t len = frame_build(&shape, payload, 2500, false, frame), n;
	struct sm_segmenter s;

	(void)state;
	vnet.flags = SM_VNET_DATA_VALID;
	vnet.csum_start = vnet.csum_offset = 0;
	memset(frame + shape_l4(&shape) + 16, 0xa5, 2);
	assert_int_equal(sm_segmenter_init(&s, TAP, &vnet, frame, len), 0);
	for (uint32_t i = 0; i < 3; i++) {
		n = frame_segment(&shape, payload, i * 1000, i < 2 ? 1000 : 500, 2500, i, want);
		assert_int_equal(sm_segmenter_frame_len(&s), n);
		sm_segmenter_next(&s, segment);
		assert_memory_equal(segment, want, n);
	}
}

/* Flags of which chunks know nothing: three segments of 1,000 bytes at a time */
static void test_flags(void **state)
{
	static const struct {
		uint8_t flags;
		uint16_t urgent;
		struct {
			uint32_t seq;
			uint8_t flags;
			uint16_t urgent;
		} want[3];
	} cases[] = {
		{0x10, 0, {{7, 0x10, 0}, {1007, 0x10, 0}, {2007, 0x10, 0}}},
		{0x10, 9, {{7, 0x10, 9}, {1007, 0x10, 9}, {2007, 0x10, 9}}}, /* not said to be */
		{0xdb, 0, {{7, 0xd2, 0}, {1008, 0x50, 0}, {2008, 0x59, 0}}},
		{0x14, 0, {{7, 0x10, 0}, {1007, 0x10, 0}, {2007, 0x14, 0}}},
		{0x38, 1, {{7, 0x30, 1}, {1007, 0x10, 0}, {2007, 0x18, 0}}},
		{0x38, 1000, {{7, 0x30, 1000}, {1007, 0x10, 0}, {2007, 0x18, 0}}},
		{0x38, 1001, {{7, 0x30, 1001}, {1007, 0x30, 1}, {2007, 0x18, 0}}},
		{0x38, 3000, {{7, 0x30, 3000}, {1007, 0x30, 2000}, {2007, 0x38, 1000}}},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct shape shape = {TAP,           0, 4, TCP, 0, NULL, 0, 7, 40, cases[i].urgent,
				      cases[i].flags};
		uint8_t frame[4096], segment[2000], want[2000];
		uint32_t len = frame_build(&shape, payload, 3000, false, frame);
		struct sm_segmenter s = start(&shape, 1000, frame, len);

		for (uint32_t k = 0; k < 3; k++) {
			shape.seq = cases[i].want[k].seq;
			shape.flags = cases[i].want[k].flags;
			shape.urgent = cases[i].want[k].urgent;
			shape.id = (uint16_t)(40 + k);
			len = frame_build(&shape, payload + k * 1000, 1000, true, want);
			assert_int_equal(sm_segmenter_frame_len(&s), len);
			sm_segmenter_next(&s, segment);
			if (memcmp(segment, want, len) != 0)
				fail_msg("case %zu, segment %u", i, k);
		}
		assert_int_equal(sm_segmenter_frame_len(&s), 0);
	}
}

/* A partial sum that is off by something leads to segments that are off by it, as with a kernel. */
static void test_odd_partial(void **state)
{
	static const struct shape shape = {TUN, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0};
	uint8_t frame[4096], segment[2000];
	uint32_t len = frame_build(&shape, payload, 2500, false, frame);
	struct sm_segmenter s;

	(void)state;
	frame[26 + 1] ^= 4;
	s = start(&shape, 1000, frame, len);
	while ((len = sm_segmenter_frame_len(&s)) > 0) {
		struct sm_inet inet;

		sm_segmenter_next(&s, segment);
		assert_int_equal(sm_inet_parse(TUN, segment, len, &inet), 0);
		assert_false(sm_inet_verify(&inet, segment));
	}
}

static int fill_payload(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	rng_fill(&rng, payload, sizeof(payload));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finish),      cmocka_unit_test(test_finish_frames),
		cmocka_unit_test(test_finish_zero), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_verified),    cmocka_unit_test(test_flags),
		cmocka_unit_test(test_odd_partial),
	};

	return cmocka_run_group_tests(tests, fill_payload, NULL);
}

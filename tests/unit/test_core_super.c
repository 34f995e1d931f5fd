// SPDX-License-Identifier: MIT
/*
 * Super-frames: cut into chunks, some of them lost, joined again and cut by software. What comes out is
 * compared with frames that were written from nothing.
 */
#include "frames.h"
#include "rng.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TAP       SM_MODE_TAP
#define TUN       SM_MODE_TUN
#define TCP       SM_PROTO_TCP
#define UDP       SM_PROTO_UDP
#define FRAME_MAX 1536u
#define ROOM      9000u

static const uint8_t stamp[] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t long_options[40] = {[0 ... 27] = 1, [28] = 8, [29] = 10, [38] = 1, [39] = 1};
#define STAMP .options = stamp, .options_len = sizeof(stamp)
#define LONG  .options = long_options, .options_len = sizeof(long_options)

static uint8_t payload[65536];

/* --- one super-frame's way --- */

/**
 * struct given - A super-frame with @len bytes of payload
 * @room: what a datagram carries of payload, template and descriptor
 */
struct given {
	struct shape shape;
	uint32_t gso_size, len, room;
};

/* A super-frame under way */
struct trip {
	struct shape shape;
	uint32_t gso_size, len, room;
	uint32_t piece, count;
	uint8_t template[SM_TEMPLATE_MAX];
	struct sm_inet inet;
};

static uint32_t piece_len(const struct trip *t, uint32_t index)
{
	return SM_MIN(t->piece, t->len - index * t->piece);
}

/* One of the frames that came out */
static void expect_segment(const struct trip *t, uint32_t index, const uint8_t *frame, uint32_t len)
{
	static uint8_t want[FRAME_HEADERS_MAX + 65536];
	uint32_t want_len = frame_segment(&t->shape, payload, index * t->piece, piece_len(t, index),
					  t->len, index, want);

	if (len != want_len || memcmp(frame, want, len) != 0)
		fail_msg("segment %u of %u is another one", index, t->count);
}

/* Cut by software: the segments from @first on, and no other */
static void expect_segments(const struct trip *t, uint32_t first, uint32_t n,
			    const struct sm_vnet *vnet, const uint8_t *frame, size_t len)
{
	struct sm_segmenter s;

	assert_int_equal(sm_segmenter_init(&s, t->shape.mode, vnet, frame, len), 0);
	for (uint32_t i = first; i < first + n; i++) {
		uint32_t segment_len = sm_segmenter_frame_len(&s);
		uint8_t *segment = malloc(segment_len);

		sm_segmenter_next(&s, segment);
		expect_segment(t, i, segment, segment_len);
		free(segment);
	}
	assert_int_equal(sm_segmenter_frame_len(&s), 0);
}

/* The sender: classified and planned; also what classic segmentation makes of it */
static void depart(struct trip *t)
{
	uint32_t headers = shape_headers(&t->shape);
	uint8_t *frame = malloc(headers + t->len);
	uint32_t len = frame_build(&t->shape, payload, t->len, false, frame);
	struct sm_vnet vnet = frame_vnet(&t->shape, t->gso_size);
	struct sm_super super;

	assert_int_equal(sm_super_classify(t->shape.mode, &vnet, frame, len, &super), 0);
	assert_int_equal(super.header_len, headers);
	assert_int_equal(super.payload_len, t->len);
	assert_int_equal(super.gso_size, t->gso_size);
	t->piece = t->gso_size;
	t->count = (t->len + t->piece - 1) / t->piece;
	expect_segments(t, 0, t->count, &vnet, frame, len);
	t->count = sm_super_plan(&super, t->room, &t->piece);
	assert_true(t->count > 0);
	assert_int_equal(t->piece, SM_MIN(t->gso_size, t->room - headers - SM_CHUNK_LEN));
	assert_int_equal(t->count, (t->len + t->piece - 1) / t->piece);
	memcpy(t->template, frame, headers);
	free(frame);
}

/* One chunk over the wire: the receiver takes it */
static struct sm_chunk travel(struct trip *t, uint32_t index)
{
	struct sm_chunk sent = {.index = (uint16_t)index,
				.count = (uint16_t)t->count,
				.gso_size = (uint16_t)t->piece,
				.header_len = (uint8_t)shape_headers(&t->shape)};
	uint8_t *template = malloc(sent.header_len), wire[SM_CHUNK_LEN];
	struct sm_chunk chunk;

	sm_chunk_encode(&sent, wire);
	assert_int_equal(sm_chunk_decode(wire, &chunk), 0);
	memcpy(template, t->template, sent.header_len);
	assert_int_equal(sm_chunk_check(t->shape.mode, &chunk, piece_len(t, index), template,
					sent.header_len + t->piece, &t->inet),
			 0);
	free(template);
	return chunk;
}

static void expect_vnet(const struct trip *t, uint32_t first, uint32_t n,
			const struct sm_vnet *vnet)
{
	struct shape shape = t->shape;
	struct sm_vnet want;

	if (first > 0)
		shape.flags &= 0x7f;
	want = frame_vnet(&shape, n > 1 ? t->piece : 0);
	assert_memory_equal(vnet, &want, sizeof(want));
}

/* The receiver has the chunks from @first on, @n of them */
static void arrive(struct trip *t, uint32_t first, uint32_t n)
{
	uint32_t headers = shape_headers(&t->shape), at = first * t->piece;
	uint32_t len = SM_MIN(n * t->piece, t->len - at);
	struct sm_chunk chunk = travel(t, first);
	uint8_t *frame = malloc(headers + len);
	struct sm_super super;
	struct sm_vnet vnet;

	for (uint32_t i = first + 1; i < first + n; i++)
		(void)travel(t, i);
	memcpy(frame, t->template, headers);
	memcpy(frame + headers, payload + at, len);
	sm_super_rebuild(&t->inet, &chunk, n, len, frame, &vnet);
	expect_vnet(t, first, n, &vnet);
	/* It could travel on. */
	assert_int_equal(sm_super_classify(t->shape.mode, &vnet, frame, headers + len, &super), 0);
	assert_int_equal(super.gso_size, n > 1 ? t->piece : 0);
	if (n > 1) {
		expect_segments(t, first, n, &vnet, frame, headers + len);
	} else {
		assert_int_equal(sm_segment_finish(&vnet, frame, headers + len), 0);
		expect_segment(t, first, frame, headers + len);
	}
	free(frame);
}

/* Bit i of @lost: chunk i did not come */
static void arrive_but(struct trip *t, uint64_t lost)
{
	for (uint32_t i = 0, n; i < t->count; i += n) {
		for (n = 0; i + n < t->count && !(lost >> (i + n) % 64 & 1); n++)
			;
		if (n > 0)
			arrive(t, i, n);
		else
			n = 1;
	}
}

static struct trip begin(const struct given *g)
{
	return (struct trip){
		.shape = g->shape, .gso_size = g->gso_size, .len = g->len, .room = g->room};
}

static const struct given trips[] = {
	{{TAP, 0, 4, TCP, 0, STAMP, 1000, 7, 0, 0x10}, 1448, 5 * 1448, ROOM},
	{{TAP, 0, 4, TCP, 0, STAMP, 0xfffffff0, 0xfffe, 0, 0x18}, 1448, 4 * 1448 + 1, ROOM},
	{{TAP, 0, 6, TCP, 0, STAMP, 0x7fffffff, 0, 0, 0x11}, 1428, 3 * 1428 + 1427, ROOM},
	{{TAP, 1, 4, TCP, 0, NULL, 0, 5, 0, 1, 0x19}, 1001, 4004, ROOM},
	{{TAP, 2, 6, TCP, 0, LONG, 5, 0, 0, 0xd9}, 1000, 3999, ROOM},
	{{TAP, 2, 4, TCP, 10, LONG, 5, 9, 0, 0xd8}, 777, 778, ROOM},
	{{TAP, 0, 6, TCP, 1, STAMP, 5, 0, 0, 0x90}, 536, 1073, ROOM},
	{{TAP, 0, 6, TCP, 2, STAMP, 5, 0, 0, 0x59}, 1, 5, ROOM},
	{{TUN, 0, 4, TCP, 0, STAMP, 5, 1, 0, 0xd9}, 1460, 4381, ROOM},
	{{TUN, 0, 6, TCP, 0, NULL, 0, 5, 1, 0, 0x18}, 1440, 2881, ROOM},
	{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 0xffff, 0, 0}, 1472, 4 * 1472, ROOM},
	{{TAP, 1, 4, UDP, 3, NULL, 0, 0, 1, 0, 0}, 1401, 3 * 1401 + 1, ROOM},
	{{TAP, 0, 6, UDP, 0, NULL, 0, 0, 1, 0, 0}, 1452, 2 * 1452 + 3, ROOM},
	{{TAP, 2, 6, UDP, 2, NULL, 0, 0, 1, 0, 0}, 99, 5 * 99 - 1, ROOM},
	{{TUN, 0, 4, UDP, 0, NULL, 0, 0, 1, 0, 0}, 1, 4, ROOM},
	{{TUN, 0, 6, UDP, 1, NULL, 0, 0, 1, 0, 0}, 3, 10, ROOM},
	/* the path carries less than a segment */
	{{TAP, 0, 4, TCP, 0, STAMP, 0xfffff000, 7, 0, 0x99}, 1448, 3 * 1448 + 5, 1219},
	{{TAP, 2, 6, TCP, 2, LONG, 0xfffff000, 7, 0, 0xd9}, 1428, 2 * 1428 + 1, 1199},
	{{TUN, 0, 6, TCP, 0, STAMP, 1, 7, 0, 0x18}, 8948, 8949, 1199},
};

/* Every loss of a few chunks */
static void test_losses(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(trips); i++) {
		struct trip t = begin(&trips[i]);

		depart(&t);
		assert_true(t.count > 1 && t.count < 12);
		for (uint64_t lost = 0; lost < UINT64_C(1) << t.count; lost++)
			arrive_but(&t, lost);
	}
}

/* As large as they come */
static void test_largest(void **state)
{
	static const struct given large[] = {
		{{TAP, 0, 4, TCP, 0, STAMP, 9, 65500, 0, 0x99}, 1448, 65535 - 52, ROOM},
		{{TUN, 0, 6, TCP, 0, STAMP, 9, 0, 0, 0x19}, 1428, 65535 - 72, 1219},
		{{TAP, 0, 4, TCP, 0, STAMP, 9, 65500, 0, 0x99}, 64, 65535 - 52, ROOM},
		{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 1200, 64 * 1012, ROOM},
		{{TAP, 0, 6, UDP, 0, NULL, 0, 0, 9, 0, 0}, 1024, 65535 - 48, ROOM},
	};
	struct rng rng = rng_init(__func__);

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(large); i++) {
		struct trip t = begin(&large[i]);

		depart(&t);
		assert_in_range(t.count, 45, SM_CHUNK_COUNT_MAX);
		arrive_but(&t, 0);
		for (int round = 0; round < 8; round++)
			arrive_but(&t, rng_u64(&rng) & rng_u64(&rng));
	}
}

static void random_trip(struct rng *rng, struct trip *t)
{
	*t = (struct trip){.shape = {.mode = rng_below(rng, 2) ? TAP : TUN,
				     .version = rng_below(rng, 2) ? 4 : 6,
				     .proto = rng_below(rng, 2) ? TCP : UDP,
				     .seq = (uint32_t)rng_u64(rng),
				     .id = (uint16_t)rng_u64(rng),
				     .ip_extra = (uint8_t)rng_below(rng, 3),
				     .options = long_options}};
	if (t->shape.mode == TAP)
		t->shape.tags = (uint8_t)rng_below(rng, 3);
	t->room = ROOM;
	if (t->shape.proto == TCP) {
		t->shape.flags = (uint8_t)(0x10 | (rng_u64(rng) & 0xc9));
		t->shape.options_len = (uint8_t)(4 * rng_below(rng, 11));
		t->room = 200 + rng_below(rng, 2000);
	}
	t->gso_size = 1 + rng_below(rng, 2000);
	t->len = t->gso_size + 1 + rng_below(rng, 8 * t->gso_size);
	if (t->shape.proto == TCP &&
	    t->gso_size > t->room - shape_headers(&t->shape) - SM_CHUNK_LEN)
		t->len = SM_MIN(t->len, 4000);
	t->len = SM_MAX(t->len, t->gso_size + 1);
}

static void test_random(void **state)
{
	struct rng rng = rng_init(__func__);

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct trip t;

		random_trip(&rng, &t);
		depart(&t);
		arrive_but(&t, rng_u64(&rng) & rng_u64(&rng));
	}
}

/* --- lone frames --- */

static const struct {
	struct shape shape;
	uint32_t len;
} lone[] = {
	{{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, SM_TCP_SYN}, 0},
	{{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 9, 0xff}, 17},
	{{TAP, 2, 6, TCP, 2, LONG, 1, 2, 0, SM_TCP_ACK}, 0},
	{{TUN, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, SM_TCP_RST}, 0},
	{{TUN, 0, 6, TCP, 0, STAMP, 1, 2, 0, 0x18}, 1400},
	{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 9, 0, 0}, 0},
	{{TAP, 1, 6, UDP, 1, NULL, 0, 0, 9, 0, 0}, 1201},
	{{TUN, 0, 4, UDP, 2, NULL, 0, 0, 9, 0, 0}, 5},
};

static void arrive_lone(const struct shape *shape, const uint8_t *sent, uint32_t len,
			const uint8_t *want)
{
	static const struct sm_chunk chunk = {.count = 1};
	uint8_t *frame = malloc(len);
	struct sm_chunk back = {0};
	uint8_t wire[SM_CHUNK_LEN];
	struct sm_inet inet;
	struct sm_vnet vnet, want_vnet = frame_vnet(shape, 0);

	memcpy(frame, sent, len);
	/* The receiver takes nobody's word for the sum. */
	memset(frame + shape_l4(shape) + shape_csum_offset(shape), 0x55, 2);
	sm_chunk_encode(&chunk, wire);
	assert_int_equal(sm_chunk_decode(wire, &back), 0);
	assert_int_equal(sm_chunk_check(shape->mode, &back, len, frame, len, &inet), 0);
	assert_int_equal(sm_chunk_check(shape->mode, &back, len, frame, len - 1, &inet), -EBADMSG);
	assert_int_equal(sm_chunk_check(shape->mode, &back, len - 1, frame, len, &inet), -EBADMSG);
	sm_super_rebuild(&inet, &back, 1, len, frame, &vnet);
	assert_memory_equal(&vnet, &want_vnet, sizeof(vnet));
	assert_memory_equal(frame, sent, len);
	assert_int_equal(sm_segment_finish(&vnet, frame, len), 0);
	assert_memory_equal(frame, want, len);
	free(frame);
}

static void test_lone(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(lone); i++) {
		const struct shape *shape = &lone[i].shape;
		uint8_t sent[2000], want[2000];
		uint32_t len = frame_build(shape, payload, lone[i].len, false, sent), piece = 77;
		struct sm_vnet vnet = frame_vnet(shape, 0);
		struct sm_super super;

		(void)frame_build(shape, payload, lone[i].len, true, want);
		/* A super-frame of one segment is the same. */
		for (int gso = 0; gso < 2; gso++) {
			if (gso)
				vnet = frame_vnet(shape, SM_MAX(lone[i].len, 1));
			assert_int_equal(sm_super_classify(shape->mode, &vnet, sent, len, &super),
					 0);
			assert_int_equal(super.gso_size, 0);
			assert_int_equal(super.header_len, len - lone[i].len);
			assert_int_equal(super.payload_len, lone[i].len);
		}
		assert_int_equal(sm_super_plan(&super, len + SM_CHUNK_LEN - 1, &piece), 0);
		assert_int_equal(piece, 77);
		assert_int_equal(sm_super_plan(&super, len + SM_CHUNK_LEN, &piece), 1);
		assert_int_equal(piece, len);
		arrive_lone(shape, sent, len, want);
	}
}

static void test_lone_refused(void **state)
{
	static const struct sm_chunk chunk = {.count = 1};
	struct shape shape = {TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18};
	uint8_t frame[256];
	uint32_t len = frame_build(&shape, payload, 40, false, frame);
	struct sm_inet inet;

	(void)state;
	for (uint32_t n = 0; n <= len + 20; n++)
		assert_int_equal(sm_chunk_check(TAP, &chunk, n, frame, FRAME_MAX, &inet),
				 n == len ? 0 : -EBADMSG);
	assert_int_equal(sm_chunk_check(TUN, &chunk, len, frame, FRAME_MAX, &inet), -EBADMSG);
	frame[14 + 9] = 1; /* ICMP */
	assert_int_equal(sm_chunk_check(TAP, &chunk, len, frame, FRAME_MAX, &inet), -EBADMSG);
	frame[14 + 9] = 6;
	frame[14 + 6] = 0x20; /* more fragments */
	assert_int_equal(sm_chunk_check(TAP, &chunk, len, frame, FRAME_MAX, &inet), -EBADMSG);
}

/* --- sender's judgement --- */

static const struct shape tcp4 = {TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18};
static const struct shape tcp6 = {TAP, 0, 6, TCP, 0, STAMP, 1, 2, 0, 0x18};
static const struct shape udp6 = {TAP, 0, 6, UDP, 0, NULL, 0, 0, 2, 0, 0};

enum field {
	NOTHING,
	FLAGS,
	GSO_TYPE,
	HDR_LEN,
	GSO_SIZE,
	CSUM_START,
	CSUM_OFFSET,
	CUT, /* the frame ends that much earlier */
	TCPBITS,
	PARTIAL /* the checksum field */
};

static void change_vnet(struct sm_vnet *v, enum field field, uint32_t value)
{
	if (field == FLAGS)
		v->flags = (uint8_t)value;
	else if (field == GSO_TYPE)
		v->gso_type = (uint8_t)value;
	else if (field == HDR_LEN)
		v->hdr_len = (uint16_t)value;
	else if (field == GSO_SIZE)
		v->gso_size = (uint16_t)value;
	else if (field == CSUM_START)
		v->csum_start = (uint16_t)value;
	else if (field == CSUM_OFFSET)
		v->csum_offset = (uint16_t)value;
}

/* @segments: what the segmenter says to it */
static const struct {
	const struct shape *shape;
	uint32_t gso_size;
	enum field field;
	uint32_t value;
	int classify, segmenter;
} judged[] = {
	{&tcp4, 1000, NOTHING, 0, 0, 0},
	{&udp6, 1000, NOTHING, 0, 0, 0},
	{&tcp4, 0, NOTHING, 0, 0, -EBADMSG},
	{&tcp4, 1000, HDR_LEN, 0, 0, 0}, /* a hint, and nothing but that */
	{&tcp4, 1000, HDR_LEN, 0xffff, 0, 0},
	{&tcp4, 1000, FLAGS, SM_VNET_DATA_VALID, 0, 0},
	{&tcp4, 1000, FLAGS, SM_VNET_DATA_VALID | SM_VNET_NEEDS_CSUM, 0, 0},
	{&udp6, 1000, FLAGS, SM_VNET_DATA_VALID, 0, 0},
	{&tcp4, 1000, FLAGS, 0, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_TYPE, SM_VNET_GSO_TCPV4 | SM_VNET_GSO_ECN, 0, 0},
	{&tcp4, 1000, GSO_TYPE, SM_VNET_GSO_TCPV6, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_TYPE, SM_VNET_GSO_UDP, -EBADMSG, -EBADMSG},
	{&tcp6, 1000, GSO_TYPE, SM_VNET_GSO_TCPV4, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_TYPE, 3, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_TYPE, SM_VNET_GSO_ECN, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_TYPE, SM_VNET_GSO_TCPV4 | 0x40, -EBADMSG, -EBADMSG},
	{&udp6, 1000, GSO_TYPE, SM_VNET_GSO_UDP | SM_VNET_GSO_ECN, -EBADMSG, -EBADMSG},
	{&udp6, 1000, GSO_TYPE, SM_VNET_GSO_TCPV6, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, GSO_SIZE, 0, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CSUM_START, 35, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CSUM_START, 0xffff, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CSUM_OFFSET, 6, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CSUM_OFFSET, 0xffff, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CUT, 1, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CUT, 3000 - 1, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, CUT, 3066, -EBADMSG, -EBADMSG},
	{&tcp4, 1000, TCPBITS, 0x1a, -EOPNOTSUPP, 0}, /* SYN */
	{&tcp4, 1000, TCPBITS, 0x1c, -EOPNOTSUPP, 0}, /* RST */
	{&tcp4, 1000, TCPBITS, 0x38, -EOPNOTSUPP, 0}, /* URG */
	{&tcp4, 1000, TCPBITS, 0xd9, 0, 0},
	{&tcp4, 1000, PARTIAL, 0x1234, -EOPNOTSUPP, 0},
	{&tcp4, 0, PARTIAL, 0x1234, -EOPNOTSUPP, -EBADMSG},
	{&tcp4, 0, FLAGS, 0, -EOPNOTSUPP, -EBADMSG}, /* nothing is left to do */
	{&tcp4, 0, FLAGS, SM_VNET_DATA_VALID, -EOPNOTSUPP, -EBADMSG},
	{&tcp4, 0, CSUM_START, 50, -EOPNOTSUPP, -EBADMSG}, /* of what is inside */
	{&tcp4, 0, CSUM_OFFSET, 6, -EOPNOTSUPP, -EBADMSG},
	{&tcp4, 0, CSUM_START, 3066 - 17, -EBADMSG, -EBADMSG},
	{&tcp4, 0, CSUM_START, 3066 - 18, -EOPNOTSUPP, -EBADMSG},
	{&tcp4, 0, CUT, 1, -EOPNOTSUPP, -EBADMSG},
	{&tcp4, 0, CUT, 3060, -EBADMSG, -EBADMSG},
};

static void test_judged(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(judged); i++) {
		struct sm_vnet vnet = frame_vnet(judged[i].shape, judged[i].gso_size);
		uint8_t frame[4000], *exact;
		uint32_t len = frame_build(judged[i].shape, payload, 3000, false, frame);
		uint32_t l4 = shape_l4(judged[i].shape);
		struct sm_super super = {.header_len = 77};
		struct sm_segmenter s = {.index = 77};
		int classify, segmenter;

		change_vnet(&vnet, judged[i].field, judged[i].value);
		if (judged[i].field == CUT)
			len -= judged[i].value;
		if (judged[i].field == TCPBITS)
			frame[l4 + 13] = (uint8_t)judged[i].value;
		if (judged[i].field == PARTIAL)
			(void)frame_put(frame + l4 + 16, judged[i].value, 2);
		exact = malloc(len);
		memcpy(exact, frame, len);
		classify = sm_super_classify(TAP, &vnet, exact, len, &super);
		segmenter = sm_segmenter_init(&s, TAP, &vnet, exact, len);
		free(exact);
		if (classify != judged[i].classify || segmenter != judged[i].segmenter)
			fail_msg("case %zu: %d, %d", i, classify, segmenter);
		assert_int_equal(super.header_len == 77, classify < 0);
		assert_int_equal(s.index == 77, segmenter < 0);
	}
}

/* Headers longer than a template, and more than 65,535 bytes of IP, are for software. */
static void test_judged_long(void **state)
{
	static uint8_t frame[66000];
	struct shape udp = udp6;
	struct sm_vnet vnet = frame_vnet(&udp, 1400);
	struct sm_segmenter s;
	struct sm_super super;
	uint32_t len = frame_build(&udp, payload, 65535 - 48, false, frame);

	(void)state;
	assert_int_equal(sm_super_classify(TAP, &vnet, frame, len, &super), 0);
	len = frame_build(&udp, payload, 65535 - 47, false, frame);
	assert_int_equal(sm_super_classify(TAP, &vnet, frame, len, &super), -EOPNOTSUPP);
	assert_int_equal(sm_segmenter_init(&s, TAP, &vnet, frame, len), 0);
}

/* A hop-by-hop header of @units times 8 bytes, and the first one */
static uint32_t build_long_header(struct shape *shape, uint32_t units, uint8_t *frame)
{
	static uint8_t plain[4000];
	uint32_t len, extra = units * 8;

	shape->ip_extra = 1;
	len = frame_build(shape, payload, 3000, false, plain);
	memcpy(frame, plain, 14 + 40 + 8);
	memset(frame + 62, 0, extra);
	memcpy(frame + 62 + extra, plain + 62, len - 62);
	frame[14 + 40 + 1] = (uint8_t)units;
	(void)frame_put(frame + 14 + 4, len + extra - 54, 2);
	return len + extra;
}

static void test_judged_template(void **state)
{
	/* 14 + 40 + 8 + 32: 94 bytes, and 160 or 168 */
	static const struct {
		uint32_t units;
		int result;
	} cases[] = {{0, 0}, {20, 0}, {21, -EOPNOTSUPP}, {100, -EOPNOTSUPP}};
	struct shape shape = {TAP, 0, 6, TCP, 1, STAMP, 1, 2, 0, 0x18};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		uint8_t frame[6000], segment[3000];
		uint32_t len = build_long_header(&shape, cases[i].units, frame), n = 0;
		struct sm_vnet vnet = frame_vnet(&shape, 1000);
		struct sm_segmenter s;
		struct sm_super super;
		struct sm_inet inet;

		vnet.csum_start = (uint16_t)(vnet.csum_start + 8 * cases[i].units);
		assert_int_equal(sm_super_classify(TAP, &vnet, frame, len, &super),
				 cases[i].result);
		assert_int_equal(sm_segmenter_init(&s, TAP, &vnet, frame, len), 0);
		while ((len = sm_segmenter_frame_len(&s)) > 0) {
			sm_segmenter_next(&s, segment);
			assert_int_equal(sm_inet_parse(TAP, segment, len, &inet), 0);
			assert_int_equal(inet.end, len);
			assert_true(sm_inet_verify(&inet, segment));
			n++;
		}
		assert_int_equal(n, 3);
	}
}

static void test_plan(void **state)
{
	static const struct {
		uint8_t proto;
		uint32_t header_len, gso_size, payload_len, room, count, piece;
	} cases[] = {
		{TCP, 66, 1448, 60000, 1522, 42, 1448}, {TCP, 66, 1448, 60000, 1521, 42, 1447},
		{TCP, 66, 1448, 60000, 75, 0, 0}, /* 60,000 chunks */
		{TCP, 66, 1448, 1500, 75, 0, 0},        {TCP, 66, 1448, 1449, 76, 725, 2},
		{TCP, 66, 1448, 1500, 74, 0, 0},        {TCP, 66, 1448, 1500, 0, 0, 0},
		{TCP, 54, 1, 1024, 1000, 1024, 1},      {TCP, 54, 1, 1025, 1000, 0, 0},
		{UDP, 42, 1472, 60000, 1522, 41, 1472}, {UDP, 42, 1472, 60000, 1521, 0, 0},
		{UDP, 42, 10, 640, 1521, 64, 10},       {UDP, 42, 10, 641, 1521, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_super super = {.inet = {.proto = cases[i].proto},
					 .header_len = cases[i].header_len,
					 .gso_size = cases[i].gso_size,
					 .payload_len = cases[i].payload_len};
		uint32_t piece = 77, count = sm_super_plan(&super, cases[i].room, &piece);

		if (count != cases[i].count || piece != (count ? cases[i].piece : 77))
			fail_msg("case %zu: %u of %u", i, count, piece);
	}
}

/* --- receiver's judgement --- */

static const struct shape hostile4 = {TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, 0x18};

/* The template's byte @at is @value; @at 0: none */
static const struct {
	struct sm_chunk chunk;
	uint32_t payload_len, frame_max, at, value;
	int result;
} checked[] = {
	{{0, 3, 1000, 66}, 1000, 1066, 0, 0, 0},
	{{2, 3, 1000, 66}, 1000, 1066, 0, 0, 0},
	{{2, 3, 1000, 66}, 1, 1066, 0, 0, 0},
	{{0, 1, 1000, 66}, 1, 1066, 0, 0, 0},
	{{0, 1, 65000, 66}, 1, 1066, 0, 0, 0},
	/* another length */
	{{0, 3, 1000, 66}, 999, 1066, 0, 0, -EBADMSG},
	{{0, 3, 1000, 66}, 1001, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 66}, 0, 1066, 0, 0, -EBADMSG},
	{{2, 3, 1000, 66}, 0, 1066, 0, 0, -EBADMSG},
	{{2, 3, 1000, 66}, 1001, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 1065, 0, 0, -EBADMSG},
	{{2, 3, 1000, 66}, 1000, 1065, 0, 0, -EBADMSG},
	/* another place */
	{{3, 3, 1000, 66}, 1000, 1066, 0, 0, -EBADMSG},
	{{0, 0, 1000, 66}, 1000, 1066, 0, 0, -EBADMSG},
	{{0, 1025, 10, 66}, 10, 1066, 0, 0, -EBADMSG},
	{{0xffff, 0xffff, 1000, 66}, 1000, 1066, 0, 0, -EBADMSG},
	{{1023, 1024, 10, 66}, 10, 1066, 0, 0, 0},
	/* a total of 52 + n bytes of IP */
	{{0, 66, 1007, 66}, 1007, 1500, 0, 0, 0},
	{{65, 66, 1007, 66}, 28, 1500, 0, 0, 0},
	{{65, 66, 1007, 66}, 29, 1500, 0, 0, -EBADMSG},
	{{0, 66, 1008, 66}, 1008, 1500, 0, 0, -EBADMSG},
	{{0, 1024, 0xffff, 66}, 0xffff, 0xffffff, 0, 0, -EBADMSG},
	/* headers that end elsewhere */
	{{0, 3, 1000, 65}, 1000, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 67}, 1000, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 255}, 1000, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 28}, 1000, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 0}, 1000, 2000, 0, 0, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 12, 0x50, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 12, 0x40, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 12, 0xf0, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14, 0x46, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14, 0x44, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14, 0x65, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 12, 0x86, -EBADMSG},
	/* neither TCP nor UDP, and fragments */
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 9, 1, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 9, 17, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 6, 0x20, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 7, 1, -EBADMSG},
	/* flags */
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 13, 0x12, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 13, 0x14, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 13, 0x30, -EBADMSG},
	{{2, 3, 1000, 66}, 1, 2000, 14 + 20 + 13, 0x12, -EBADMSG},
	{{0, 3, 1000, 66}, 1000, 2000, 14 + 20 + 13, 0xd9, 0},
};

static void test_checked(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(checked); i++) {
		struct sm_inet inet = {.payload = 77};
		uint8_t frame[4000], *template = malloc(checked[i].chunk.header_len + 1);
		int result;

		(void)frame_build(&hostile4, payload, 3000, false, frame);
		if (checked[i].at > 0)
			frame[checked[i].at] = (uint8_t)checked[i].value;
		memcpy(template, frame, checked[i].chunk.header_len);
		result = sm_chunk_check(TAP, &checked[i].chunk, checked[i].payload_len, template,
					checked[i].frame_max, &inet);
		if (result != checked[i].result || inet.payload != (result ? 77 : 66))
			fail_msg("case %zu: %d", i, result);
		free(template);
	}
}

static void test_checked_udp(void **state)
{
	struct shape shape = {TUN, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0};
	struct sm_chunk chunk = {.count = SM_SUPER_UDP_MAX, .gso_size = 10, .header_len = 28};
	struct sm_inet inet;
	uint8_t frame[1000];

	(void)state;
	(void)frame_build(&shape, payload, 640, false, frame);
	assert_int_equal(sm_chunk_check(TUN, &chunk, 10, frame, FRAME_MAX, &inet), 0);
	assert_int_equal(sm_chunk_check(TAP, &chunk, 10, frame, FRAME_MAX, &inet), -EBADMSG);
	chunk.count++;
	assert_int_equal(sm_chunk_check(TUN, &chunk, 10, frame, FRAME_MAX, &inet), -EBADMSG);
}

/* --- MSS --- */

#define OPTIONS(...)                               \
	.options = (const uint8_t[]){__VA_ARGS__}, \
	.options_len = sizeof((const uint8_t[]){__VA_ARGS__})

/* @at: offset of the option's value in the TCP header; 0: the frame stays as it is */
static const struct {
	struct shape shape;
	uint32_t mss_max, at;
} clamped[] = {
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_SYN}, 1400, 22},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_SYN}, 1459, 22},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_SYN}, 1460, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_SYN}, 100000, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 0xff, 0xff), 1, 2, 0, SM_TCP_SYN}, 0xfffe, 22},
	{{TAP, 2, 6, TCP, 2, OPTIONS(2, 4, 5, 0xa0), 1, 2, 0, SM_TCP_SYN | SM_TCP_ACK}, 1280, 22},
	{{TUN, 0, 6, TCP, 0, OPTIONS(2, 4, 5, 0xa0), 1, 2, 0, 0xc2}, 1280, 22},
	{{TAP, 1, 4, TCP, 3, OPTIONS(1, 2, 4, 0x23, 0, 0, 0, 0), 1, 2, 0, SM_TCP_SYN}, 1280, 23},
	{{TUN, 0, 4, TCP, 0, OPTIONS(3, 3, 7, 2, 4, 0x23, 0, 0), 1, 2, 0, SM_TCP_SYN}, 88, 25},
	{{TAP, 0, 4, TCP, 0, OPTIONS(1, 1, 1, 1, 4, 2, 2, 4, 5, 0xb4, 0, 0), 1, 2, 0, 2}, 5, 28},
	/* no SYN, no option, an end before it, lengths that are none */
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_ACK}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, NULL, 0, 1, 2, 0, SM_TCP_SYN}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, STAMP, 1, 2, 0, SM_TCP_SYN}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(1, 1, 0, 2, 4, 5, 0xb4, 0), 1, 2, 0, SM_TCP_SYN}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(8, 0, 0, 0, 2, 4, 5, 0xb4), 1, 2, 0, SM_TCP_SYN}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(8, 1, 2, 4, 5, 0xb4, 0, 0), 1, 2, 0, SM_TCP_SYN}, 1400, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 3, 5, 0), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(2, 6, 5, 0xb4, 0, 0, 0, 0), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(1, 2, 4, 5), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(1, 1, 2, 4), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(1, 1, 1, 2), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, TCP, 0, OPTIONS(8, 200, 2, 4), 1, 2, 0, SM_TCP_SYN}, 100, 0},
	{{TAP, 0, 4, UDP, 0, NULL, 0, 0, 2, 0, 0}, 1, 0},
};

/* The frame as it would have been with the smaller MSS from the start */
static void build_clamped(struct shape shape, uint32_t at, uint32_t mss_max, uint32_t len,
			  bool finished, uint8_t *out)
{
	uint8_t options[40];

	if (shape.options_len > 0)
		memcpy(options, shape.options, shape.options_len);
	if (at > 0)
		(void)frame_put(options + at - 20, mss_max, 2);
	shape.options = options;
	(void)frame_build(&shape, payload, len, finished, out);
}

static void test_clamp(void **state)
{
	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(clamped); i++) {
		const struct shape *shape = &clamped[i].shape;
		uint32_t mss_max = clamped[i].mss_max, at = clamped[i].at;

		for (uint32_t n = 0; n < 6; n++) {
			uint8_t built[256], want[256], *frame;
			bool finished = n % 2 == 0;
			uint32_t len = frame_build(shape, payload, n / 2, finished, built);
			bool changed;

			frame = malloc(len);
			memcpy(frame, built, len);
			build_clamped(*shape, at, mss_max, n / 2, finished, want);
			changed = sm_super_clamp_mss(shape->mode, frame, len, !finished, mss_max);
			if (changed != (at > 0) || memcmp(frame, want, len) != 0)
				fail_msg("case %zu, %u bytes of payload", i, n / 2);
			assert_false(
				sm_super_clamp_mss(shape->mode, frame, len, !finished, mss_max));
			free(frame);
		}
	}
}

/* Damage is not laundered. */
static void test_clamp_damaged(void **state)
{
	(void)state;
	for (uint32_t at = 34 + 24; at < 34 + 24 + 5; at++) {
		uint8_t frame[256];
		uint32_t len = frame_build(&clamped[0].shape, payload, 5, true, frame);
		struct sm_inet inet;

		assert_int_equal(sm_inet_parse(TAP, frame, len, &inet), 0);
		assert_true(sm_inet_verify(&inet, frame));
		frame[at] ^= 0x10;
		assert_true(sm_super_clamp_mss(TAP, frame, len, false, 1000));
		assert_false(sm_inet_verify(&inet, frame));
		frame[at] ^= 0x10;
		assert_true(sm_inet_verify(&inet, frame));
	}
}

static void test_clamp_cut(void **state)
{
	uint8_t frame[256];
	uint32_t len = frame_build(&clamped[0].shape, payload, 0, true, frame);

	(void)state;
	for (uint32_t n = 0; n < len; n++) {
		uint8_t *exact = malloc(n);

		memcpy(exact, frame, n);
		assert_false(sm_super_clamp_mss(TAP, exact, n, false, 1));
		assert_memory_equal(exact, frame, n);
		free(exact);
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
		cmocka_unit_test(test_losses),        cmocka_unit_test(test_largest),
		cmocka_unit_test(test_random),        cmocka_unit_test(test_lone),
		cmocka_unit_test(test_lone_refused),  cmocka_unit_test(test_judged),
		cmocka_unit_test(test_judged_long),   cmocka_unit_test(test_judged_template),
		cmocka_unit_test(test_plan),          cmocka_unit_test(test_checked),
		cmocka_unit_test(test_checked_udp),   cmocka_unit_test(test_clamp),
		cmocka_unit_test(test_clamp_damaged), cmocka_unit_test(test_clamp_cut),
	};

	return cmocka_run_group_tests(tests, fill_payload, NULL);
}

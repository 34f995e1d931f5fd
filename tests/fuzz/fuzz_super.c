// SPDX-License-Identifier: MIT
/*
 * Super-frames from a peer and from a TAP.
 *
 * Input: one byte, of which bit 7 chooses TUN and the rest modulo 3 what follows:
 *   0 chunk  length of the run (16), then as in a datagram: payload, template, descriptor
 *   1 frame  vnet header (10 bytes), then the frame
 *   2 model  the fields of a sound super-frame and the chunks that are lost: see read_shape(), check_model()
 *
 * What must hold: what is taken and rebuilt is sound and can be cut into segments that are right, whatever the
 * bytes were. A sound super-frame arrives as those segments that classic segmentation makes of it, but for the
 * lost ones.
 */
#include "../unit/frames.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_MAX 9022u
#define LEN_MAX   (FRAME_HEADERS_MAX + 65536u)

#define REQUIRE(what)                                                                    \
	do {                                                                             \
		if (!(what)) {                                                           \
			(void)fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #what); \
			abort();                                                         \
		}                                                                        \
	} while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t payload[65536], segment[LEN_MAX], expected[LEN_MAX];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (uint32_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)((i * 2654435761u) >> 13);
	return 0;
}

/* Memory that ends with what is in it */
static uint8_t *exact(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len);

	if (len > 0)
		memcpy(copy, data, len);
	return copy;
}

static void require_sound(enum sm_mode mode, const uint8_t *frame, uint32_t len)
{
	struct sm_inet inet;

	REQUIRE(sm_inet_parse(mode, frame, len, &inet) == 0);
	REQUIRE(inet.end == len && sm_inet_verify(&inet, frame));
}

/* Return: segments, each of them sound; their payload is that of the super-frame */
static uint32_t require_segments(enum sm_mode mode, const struct sm_vnet *vnet,
				 const uint8_t *frame, uint32_t len, uint32_t headers, bool usual)
{
	uint32_t at = headers, n = 0, segment_len;
	struct sm_segmenter s;

	REQUIRE(sm_segmenter_init(&s, mode, vnet, frame, len) == 0);
	while ((segment_len = sm_segmenter_frame_len(&s)) > 0) {
		uint32_t piece = segment_len - headers;
		uint8_t *out = malloc(segment_len);

		REQUIRE(segment_len >= headers && piece <= vnet->gso_size && at + piece <= len);
		sm_segmenter_next(&s, out);
		REQUIRE(memcmp(out + headers, frame + at, piece) == 0);
		if (usual)
			require_sound(mode, out, segment_len);
		free(out);
		at += piece;
		n++;
	}
	REQUIRE(at == len);
	return n;
}

/* --- chunks --- */

/* Return: bytes of payload of a run of @n, 0 if there cannot be such a run */
static uint32_t run_payload(enum sm_mode mode, const struct sm_chunk *chunk, uint32_t n,
			    uint32_t payload_len, const uint8_t *template)
{
	struct sm_chunk last = *chunk;
	struct sm_inet inet;

	if (n == 1)
		return payload_len;
	last.index = (uint16_t)(chunk->index + n - 1);
	if (last.index + 1u == last.count)
		payload_len = 1 + (payload_len * 7 + n) % chunk->gso_size;
	if (sm_chunk_check(mode, &last, payload_len, template, FRAME_MAX, &inet) < 0)
		return 0;
	return (n - 1) * chunk->gso_size + payload_len;
}

static void check_run(enum sm_mode mode, const struct sm_inet *inet, const struct sm_chunk *chunk,
		      uint32_t n, uint32_t payload_len, const uint8_t *template)
{
	uint32_t headers = chunk->header_len, len = headers + payload_len;
	uint8_t *frame = malloc(len);
	struct sm_super super;
	struct sm_vnet vnet;

	memcpy(frame, template, headers);
	memcpy(frame + headers, payload, payload_len);
	sm_super_rebuild(inet, chunk, n, payload_len, frame, &vnet);
	REQUIRE(vnet.hdr_len == headers && vnet.flags == SM_VNET_NEEDS_CSUM);
	REQUIRE(sm_super_classify(mode, &vnet, frame, len, &super) == 0);
	REQUIRE(super.gso_size == (n > 1 ? chunk->gso_size : 0));
	if (n > 1) {
		REQUIRE(require_segments(mode, &vnet, frame, len, headers, true) == n);
	} else {
		REQUIRE(vnet.gso_type == SM_VNET_GSO_NONE);
		REQUIRE(sm_segment_finish(&vnet, frame, len) == 0);
		require_sound(mode, frame, len);
	}
	free(frame);
}

static void check_lone(enum sm_mode mode, const struct sm_chunk *chunk, const uint8_t *data,
		       uint32_t len)
{
	uint8_t *frame = exact(data, len);
	struct sm_inet inet;
	struct sm_vnet vnet;

	if (sm_chunk_check(mode, chunk, len, frame, FRAME_MAX, &inet) == 0) {
		REQUIRE(len <= FRAME_MAX && inet.end == len);
		sm_super_rebuild(&inet, chunk, 1, len, frame, &vnet);
		REQUIRE(vnet.gso_type == SM_VNET_GSO_NONE && vnet.flags == SM_VNET_NEEDS_CSUM);
		REQUIRE(sm_segment_finish(&vnet, frame, len) == 0);
		require_sound(mode, frame, len);
	}
	free(frame);
}

static void check_chunk(enum sm_mode mode, const uint8_t *data, size_t size)
{
	uint8_t wire[SM_CHUNK_LEN], *template;
	uint32_t n, payload_len;
	struct sm_chunk chunk;
	struct sm_inet inet;

	if (size < 2 + SM_CHUNK_LEN || size > SM_DATAGRAM_MAX)
		return;
	n = (uint32_t)(data[0] << 8 | data[1]);
	data += 2;
	size -= 2 + SM_CHUNK_LEN;
	if (sm_chunk_decode(data + size, &chunk) < 0)
		return;
	sm_chunk_encode(&chunk, wire);
	REQUIRE(memcmp(wire, data + size, sizeof(wire)) == 0);
	if (chunk.gso_size == 0) {
		check_lone(mode, &chunk, data, (uint32_t)size);
		return;
	}
	if (size < chunk.header_len)
		return;
	payload_len = (uint32_t)size - chunk.header_len;
	template = exact(data + payload_len, chunk.header_len);
	if (sm_chunk_check(mode, &chunk, payload_len, template, FRAME_MAX, &inet) == 0) {
		REQUIRE(inet.payload == chunk.header_len && payload_len <= chunk.gso_size);
		n = 1 + n % (chunk.count - chunk.index);
		payload_len = run_payload(mode, &chunk, n, payload_len, template);
		if (payload_len > 0)
			check_run(mode, &inet, &chunk, n, payload_len, template);
	}
	free(template);
}

/* --- frames --- */

static bool is_right(enum sm_mode mode, const uint8_t *frame, size_t len)
{
	struct sm_inet inet;

	return sm_inet_parse(mode, frame, len, &inet) == 0 && inet.end <= len &&
	       sm_inet_verify(&inet, frame);
}

static void check_clamp(enum sm_mode mode, const uint8_t *data, size_t len, uint32_t mss_max)
{
	uint8_t *frame = exact(data, len);
	bool right = is_right(mode, frame, len);
	uint32_t differ = 0;

	if (sm_super_clamp_mss(mode, frame, len, true, mss_max)) {
		for (size_t i = 0; i < len; i++)
			differ += frame[i] != data[i];
		REQUIRE(differ == 1 || differ == 2);
		if (len > 0)
			memcpy(frame, data, len);
		REQUIRE(sm_super_clamp_mss(mode, frame, len, false, mss_max));
		REQUIRE(is_right(mode, frame, len) == right);
		REQUIRE(!sm_super_clamp_mss(mode, frame, len, false, mss_max));
	} else {
		REQUIRE(len == 0 || memcmp(frame, data, len) == 0);
	}
	free(frame);
}

static void check_frame(enum sm_mode mode, const uint8_t *data, size_t size)
{
	struct sm_segmenter s;
	struct sm_super super;
	struct sm_vnet vnet;
	uint8_t *frame;
	int result;

	if (size < SM_VNET_HDR_LEN || size > SM_FRAME_MAX)
		return;
	sm_vnet_decode(data, &vnet);
	size -= SM_VNET_HDR_LEN;
	check_clamp(mode, data + SM_VNET_HDR_LEN, size, vnet.gso_size);
	frame = exact(data + SM_VNET_HDR_LEN, size);
	result = sm_super_classify(mode, &vnet, frame, size, &super);
	if (sm_segmenter_init(&s, mode, &vnet, frame, size) == 0) {
		REQUIRE(result != -EBADMSG);
		(void)require_segments(mode, &vnet, frame, (uint32_t)size, s.inet.payload,
				       result == 0);
	} else {
		REQUIRE(result != 0 || vnet.gso_type == SM_VNET_GSO_NONE);
	}
	if (sm_segment_finish(&vnet, frame, size) == 0 && result == 0 &&
	    vnet.gso_type == SM_VNET_GSO_NONE)
		require_sound(mode, frame, (uint32_t)size);
	free(frame);
}

/* --- model --- */

/**
 * struct model - A sound super-frame on its way
 * @lost: bit i: chunk i, i + 64 and so on do not come
 */
struct model {
	struct shape shape;
	uint32_t gso_size, len, room, piece, count;
	uint64_t lost;
	uint8_t template[FRAME_HEADERS_MAX];
};

static struct shape read_shape(enum sm_mode mode, struct sm_reader *r)
{
	static const uint8_t options[40] = {1, 1, 8, 10, [12 ... 39] = 1};
	struct shape s = {.mode = mode, .options = options};
	uint8_t which = sm_read_u8(r);

	s.version = which & 1 ? 6 : 4;
	s.proto = which & 2 ? SM_PROTO_UDP : SM_PROTO_TCP;
	s.ip_extra = which >> 2 & 3;
	if (s.version == 6 && s.ip_extra == 3)
		s.ip_extra = 0;
	if (mode == SM_MODE_TAP)
		s.tags = (which >> 4) % 3;
	s.seq = sm_read_u32(r);
	s.id = sm_read_u16(r);
	if (s.proto == SM_PROTO_TCP) {
		s.options_len = (uint8_t)(4 * (sm_read_u8(r) % 11));
		s.flags = sm_read_u8(r) & 0xd9;
	}
	return s;
}

/* Return: the length of the segment in @expected */
static uint32_t expect(const struct model *m, uint32_t index)
{
	uint32_t at = index * m->piece;

	return frame_segment(&m->shape, payload, at, SM_MIN(m->piece, m->len - at), m->len, index,
			     expected);
}

static void require_same(const struct model *m, uint32_t first, uint32_t n,
			 const struct sm_vnet *vnet, const uint8_t *frame, uint32_t len)
{
	struct sm_segmenter s;

	REQUIRE(sm_segmenter_init(&s, m->shape.mode, vnet, frame, len) == 0);
	for (uint32_t i = first; i < first + n; i++) {
		len = sm_segmenter_frame_len(&s);
		REQUIRE(len == expect(m, i));
		sm_segmenter_next(&s, segment);
		REQUIRE(memcmp(segment, expected, len) == 0);
	}
	REQUIRE(sm_segmenter_frame_len(&s) == 0);
}

static void arrive(const struct model *m, uint32_t first, uint32_t n)
{
	uint32_t headers = shape_headers(&m->shape), at = first * m->piece;
	uint32_t len = SM_MIN(n * m->piece, m->len - at);
	struct sm_chunk chunk = {.index = (uint16_t)first,
				 .count = (uint16_t)m->count,
				 .gso_size = (uint16_t)m->piece,
				 .header_len = (uint8_t)headers};
	uint8_t *frame = malloc(headers + len);
	struct sm_inet inet;
	struct sm_vnet vnet;

	memcpy(frame, m->template, headers);
	memcpy(frame + headers, payload + at, len);
	REQUIRE(sm_chunk_check(m->shape.mode, &chunk, SM_MIN(len, m->piece), frame,
			       headers + m->piece, &inet) == 0);
	sm_super_rebuild(&inet, &chunk, n, len, frame, &vnet);
	if (n > 1) {
		require_same(m, first, n, &vnet, frame, headers + len);
	} else {
		REQUIRE(sm_segment_finish(&vnet, frame, headers + len) == 0);
		REQUIRE(headers + len == expect(m, first));
		REQUIRE(memcmp(frame, expected, headers + len) == 0);
	}
	free(frame);
}

/* Return: true if it is to be sent as chunks */
static bool depart(struct model *m)
{
	uint32_t len = shape_headers(&m->shape) + m->len;
	uint8_t *frame = malloc(len);
	struct sm_vnet vnet = frame_vnet(&m->shape, m->gso_size);
	struct sm_super super;

	(void)frame_build(&m->shape, payload, m->len, false, frame);
	memcpy(m->template, frame, shape_headers(&m->shape));
	m->piece = m->gso_size;
	require_same(m, 0, (m->len + m->piece - 1) / m->piece, &vnet, frame, len);
	REQUIRE(sm_super_classify(m->shape.mode, &vnet, frame, len, &super) == 0);
	free(frame);
	m->count = sm_super_plan(&super, m->room, &m->piece);
	REQUIRE(m->count == 0 || m->piece + shape_headers(&m->shape) + SM_CHUNK_LEN <= m->room);
	return m->count > 0;
}

static void check_model(enum sm_mode mode, const uint8_t *data, size_t size)
{
	struct sm_reader r = sm_reader_init(data, size);
	struct model m = {.shape = read_shape(mode, &r)};
	uint32_t most = 65535 - (shape_headers(&m.shape) - shape_l3(&m.shape));

	m.gso_size = 1 + sm_read_u16(&r) % 9000u;
	m.len = m.gso_size + 1 + sm_read_u16(&r);
	m.room = sm_read_u16(&r);
	m.lost = sm_read_u64(&r);
	/* No more than some segments: time is better spent on other inputs. */
	m.len = SM_MIN(m.len, SM_MIN(most, 80 * m.gso_size));
	if (m.len <= m.gso_size || !depart(&m) || m.count > 400)
		return;
	for (uint32_t i = 0, n; i < m.count; i += SM_MAX(n, 1)) {
		for (n = 0; i + n < m.count && !(m.lost >> (i + n) % 64 & 1); n++)
			;
		if (n > 0)
			arrive(&m, i, n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(enum sm_mode, const uint8_t *, size_t) = {
		check_chunk,
		check_frame,
		check_model,
	};

	if (size > 0)
		checks[(data[0] & 0x7f) % SM_ARRAY_SIZE(checks)](
			data[0] & 0x80 ? SM_MODE_TUN : SM_MODE_TAP, data + 1, size - 1);
	return 0;
}

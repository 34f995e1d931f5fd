// SPDX-License-Identifier: MIT
/*
 * The data packet's header and the small bodies that stand inside sealed packets.
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---------------+---------------+---------------+---------------+
 * |  type (0x80)  |     epoch     |     lane      | reserved (0)  |
 * +---------------+---------------+---------------+---------------+
 * |                receiver's session index                       |
 * +---------------------------------------------------------------+
 * |                packet number (64 bits)                        |
 * |                                                               |
 * +---------------------------------------------------------------+
 * |  sealed: body ...                                | kind (8)   |
 * +---------------------------------------------------------------+
 * |  authentication tag (128 bits)                                |
 */
#ifndef SM_WIRE_DATA_H
#define SM_WIRE_DATA_H

#include "base/addr.h"
#include "base/cursor.h"
#include "wire/const.h"

#define SM_DATA_LANE_AT 2u /* offset of the lane in it */

struct sm_data_header {
	uint8_t epoch; /* low 8 bits of the epoch number */
	uint8_t lane;
	uint32_t session; /* the receiver's session index */
	uint64_t number;
};

/** sm_data_header_encode() - Write SM_DATA_HEADER_LEN bytes to @buf */
void sm_data_header_encode(const struct sm_data_header *h, uint8_t *buf);

/**
 * sm_data_header_decode() - Read the header of a datagram
 * Return: 0; -EBADMSG when too short for header, kind and tag, of another type, or reserved is set
 */
SM_MUST_CHECK int sm_data_header_decode(const uint8_t *buf, size_t len,
					struct sm_data_header *ret_header);

/*
 * SM_KIND_PART trailer, before the kind: index (8), count (8), reserved (16, zero). The pieces of one
 * frame have consecutive packet numbers of one lane; the piece with index i has number first + i.
 */
#define SM_PART_TRAILER_LEN 4u
#define SM_PART_COUNT_MAX   64u

struct sm_part {
	uint8_t index, count;
};

void sm_part_encode(const struct sm_part *part, uint8_t *buf);
/** sm_part_decode() - Return: 0; -EBADMSG if index >= count, count < 2 or > SM_PART_COUNT_MAX, reserved set */
SM_MUST_CHECK int sm_part_decode(const uint8_t *buf, struct sm_part *ret_part);

/*
 * SM_KIND_CHUNK: payload, template (header_len bytes), descriptor, kind. The descriptor: index (16),
 * count (16), gso_size (16), header_len (8), flags (8, zero). The chunks of one super-frame have consecutive
 * packet numbers of one lane. gso_size 0: a lone frame (index 0, count 1, header_len 0: all of it stands in
 * front of the descriptor) whose TCP or UDP checksum is for the receiver to finish.
 */
#define SM_CHUNK_LEN       8u
#define SM_TEMPLATE_MIN    28u /* IPv4 and UDP */
#define SM_TEMPLATE_MAX    255u
#define SM_CHUNK_COUNT_MAX 1024u

struct sm_chunk {
	uint16_t index, count, gso_size;
	uint8_t header_len;
};

void sm_chunk_encode(const struct sm_chunk *chunk, uint8_t *buf);
/**
 * sm_chunk_decode() - Read SM_CHUNK_LEN bytes
 * Return: 0; -EBADMSG if index >= count, count is 0 or > SM_CHUNK_COUNT_MAX, flags are set, a lone frame has
 *         index, count or header_len of another kind, or a super-frame's header_len is below
 *         SM_TEMPLATE_MIN
 */
SM_MUST_CHECK int sm_chunk_decode(const uint8_t *buf, struct sm_chunk *ret_chunk);

/*
 * SM_KIND_PROBE body: op (8), token (64), and in an answer the address the request came from:
 * family (8), port (16), ip (4 or 16 bytes). Zero bytes may follow as padding in either.
 */
enum sm_probe_op {
	SM_PROBE_REQUEST = 0,
	SM_PROBE_ANSWER = 1,
};

struct sm_probe {
	enum sm_probe_op op;
	uint64_t token;
	struct sm_addr observed; /* answers only */
};

#define SM_PROBE_LEN_MAX 28u
/** sm_probe_encode() - Return: bytes written to @buf (SM_PROBE_LEN_MAX at most) */
size_t sm_probe_encode(const struct sm_probe *probe, uint8_t *buf);
SM_MUST_CHECK int sm_probe_decode(const uint8_t *buf, size_t len, struct sm_probe *ret_probe);

/*
 * SM_KIND_STREAM body: offset (32), acknowledged (32), data (0 to SM_STREAM_SEGMENT_MAX bytes).
 * Both count bytes of the stream modulo 2^32. Every segment acknowledges; one without data only that.
 */
#define SM_STREAM_HEADER_LEN 8u

struct sm_segment {
	uint32_t offset, acked;
	const uint8_t *data; /* view into the packet */
	size_t len;
};

/** sm_segment_encode() - Return: bytes written (SM_STREAM_HEADER_LEN + len) */
size_t sm_segment_encode(const struct sm_segment *segment, uint8_t *buf);
SM_MUST_CHECK int sm_segment_decode(const uint8_t *buf, size_t len, struct sm_segment *ret_segment);

#endif

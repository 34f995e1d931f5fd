// SPDX-License-Identifier: MIT
/*
 * Encoders and decoders of the data packet's header and of the bodies inside sealed packets.
 */
#include "wire/data.h"

#include <endian.h>

#define DATAGRAM_LEN_MIN SM_DATA_OVERHEAD

/* The header is written and read for every datagram: at fixed places, without a cursor. */
void sm_data_header_encode(const struct sm_data_header *h, uint8_t *buf)
{
	uint32_t session = htobe32(h->session);
	uint64_t number = htobe64(h->number);

	buf[0] = SM_PACKET_DATA;
	buf[1] = h->epoch;
	buf[SM_DATA_LANE_AT] = h->lane;
	buf[3] = 0;
	memcpy(buf + 4, &session, sizeof(session));
	memcpy(buf + 8, &number, sizeof(number));
}

int sm_data_header_decode(const uint8_t *buf, size_t len, struct sm_data_header *ret_header)
{
	uint32_t session;
	uint64_t number;

	if (len < DATAGRAM_LEN_MIN || buf[0] != SM_PACKET_DATA || buf[3] != 0)
		return -EBADMSG;
	memcpy(&session, buf + 4, sizeof(session));
	memcpy(&number, buf + 8, sizeof(number));
	*ret_header = (struct sm_data_header){.epoch = buf[1],
					      .lane = buf[SM_DATA_LANE_AT],
					      .session = be32toh(session),
					      .number = be64toh(number)};
	return 0;
}

void sm_part_encode(const struct sm_part *part, uint8_t *buf)
{
	struct sm_writer w = sm_writer_init(buf, SM_PART_TRAILER_LEN);

	sm_write_u8(&w, part->index);
	sm_write_u8(&w, part->count);
	sm_write_u16(&w, 0);
}

int sm_part_decode(const uint8_t *buf, struct sm_part *ret_part)
{
	struct sm_reader r = sm_reader_init(buf, SM_PART_TRAILER_LEN);
	struct sm_part part;
	uint16_t reserved;

	part.index = sm_read_u8(&r);
	part.count = sm_read_u8(&r);
	reserved = sm_read_u16(&r);
	if (sm_reader_done(&r) < 0 || part.count < 2 || part.count > SM_PART_COUNT_MAX ||
	    part.index >= part.count || reserved != 0)
		return -EBADMSG;
	*ret_part = part;
	return 0;
}

/* Once a datagram: a cursor would cost a tenth of what sealing it does. */
static uint16_t get16(const uint8_t *buf)
{
	return (uint16_t)(buf[0] << 8 | buf[1]);
}

static void put16(uint8_t *buf, uint16_t value)
{
	buf[0] = (uint8_t)(value >> 8);
	buf[1] = (uint8_t)value;
}

void sm_chunk_encode(const struct sm_chunk *chunk, uint8_t *buf)
{
	put16(buf, chunk->index);
	put16(buf + 2, chunk->count);
	put16(buf + 4, chunk->gso_size);
	buf[6] = chunk->header_len;
	buf[7] = 0;
}

static bool is_chunk_sound(const struct sm_chunk *chunk)
{
	if (chunk->gso_size == 0)
		return chunk->index == 0 && chunk->count == 1 && chunk->header_len == 0;
	return chunk->index < chunk->count && chunk->count <= SM_CHUNK_COUNT_MAX &&
	       chunk->header_len >= SM_TEMPLATE_MIN;
}

int sm_chunk_decode(const uint8_t *buf, struct sm_chunk *ret_chunk)
{
	struct sm_chunk chunk = {
		.index = get16(buf),
		.count = get16(buf + 2),
		.gso_size = get16(buf + 4),
		.header_len = buf[6],
	};

	if (buf[7] != 0 || !is_chunk_sound(&chunk))
		return -EBADMSG;
	*ret_chunk = chunk;
	return 0;
}

size_t sm_probe_encode(const struct sm_probe *probe, uint8_t *buf)
{
	struct sm_writer w = sm_writer_init(buf, SM_PROBE_LEN_MAX);

	sm_write_u8(&w, (uint8_t)probe->op);
	sm_write_u64(&w, probe->token);
	if (probe->op == SM_PROBE_ANSWER) {
		sm_write_u8(&w, probe->observed.family);
		sm_write_u16(&w, probe->observed.port);
		sm_write_bytes(&w, probe->observed.ip, sm_addr_ip_len(probe->observed.family));
	}
	return sm_writer_len(&w);
}

int sm_probe_decode(const uint8_t *buf, size_t len, struct sm_probe *ret_probe)
{
	struct sm_reader r = sm_reader_init(buf, len);
	struct sm_probe probe = {0};
	uint8_t op = sm_read_u8(&r);

	probe.token = sm_read_u64(&r);
	switch (op) {
	case SM_PROBE_REQUEST:
		probe.op = SM_PROBE_REQUEST;
		break;
	case SM_PROBE_ANSWER: {
		uint8_t family = sm_read_u8(&r);
		uint16_t port = sm_read_u16(&r);
		const uint8_t *ip = sm_read_view(&r, sm_addr_ip_len(family));

		if (!ip || sm_addr_from_ip(family, ip, port, &probe.observed) < 0)
			return -EBADMSG;
		probe.op = SM_PROBE_ANSWER;
		break;
	}
	default:
		return -EBADMSG;
	}
	if (r.failed)
		return -EBADMSG;
	while (sm_reader_left(&r) > 0) {
		if (sm_read_u8(&r) != 0)
			return -EBADMSG;
	}
	*ret_probe = probe;
	return 0;
}

size_t sm_segment_encode(const struct sm_segment *segment, uint8_t *buf)
{
	struct sm_writer w = sm_writer_init(buf, SM_STREAM_HEADER_LEN + segment->len);

	assert(segment->len <= SM_STREAM_SEGMENT_MAX);
	sm_write_u32(&w, segment->offset);
	sm_write_u32(&w, segment->acked);
	sm_write_bytes(&w, segment->data, segment->len);
	return sm_writer_len(&w);
}

int sm_segment_decode(const uint8_t *buf, size_t len, struct sm_segment *ret_segment)
{
	struct sm_reader r = sm_reader_init(buf, len);
	struct sm_segment segment = {0};

	segment.offset = sm_read_u32(&r);
	segment.acked = sm_read_u32(&r);
	segment.len = sm_reader_left(&r);
	segment.data = sm_read_view(&r, segment.len);
	if (sm_reader_done(&r) < 0 || segment.len > SM_STREAM_SEGMENT_MAX)
		return -EBADMSG;
	*ret_segment = segment;
	return 0;
}

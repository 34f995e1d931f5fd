// SPDX-License-Identifier: MIT
/*
 * What a kernel demands of a frame with a vnet header before it takes it (virtio_net_hdr_to_skb() and what
 * comes after it), and what its stack then makes of it. Written with nothing of the code under test but the
 * segmenter, whose every frame is looked at here.
 */
#ifndef SM_TESTS_TAKEN_H
#define SM_TESTS_TAKEN_H

#include "frames.h"

#include <stdlib.h>

#define TAKEN_LEN_MAX (65535u + 22u)

/** struct taken_at - Where the headers of a TCP or UDP packet stand, for a reader of its own */
struct taken_at {
	uint32_t l3, l4, payload;
	uint8_t version, proto;
};

static inline uint32_t taken_u16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* Return: NULL, or what is wrong with the headers of @frame, all @len bytes of which belong to the packet */
static inline const char *taken_headers(enum sm_mode mode, const uint8_t *frame, uint32_t len,
					struct taken_at *ret_at)
{
	struct taken_at at = {0};
	uint32_t type = 0;

	if (mode == SM_MODE_TAP) {
		for (at.l3 = 14; at.l3 <= len; at.l3 += 4) {
			type = taken_u16(frame + at.l3 - 2);
			if (type != 0x8100 && type != 0x88a8)
				break;
		}
	}
	if (at.l3 + 20 > len)
		return "no room for IP";
	at.version = frame[at.l3] >> 4;
	if (mode == SM_MODE_TAP && type != (at.version == 4 ? 0x0800u : 0x86ddu))
		return "EtherType and version";
	if (at.version == 4) {
		uint32_t header = (frame[at.l3] & 15u) * 4;

		at.l4 = at.l3 + header;
		at.proto = frame[at.l3 + 9];
		if (header < 20 || at.l4 > len)
			return "IPv4 header length";
		if (taken_u16(frame + at.l3 + 2) != len - at.l3)
			return "IPv4 length";
		if (taken_u16(frame + at.l3 + 6) & 0x3fff)
			return "a fragment";
	} else if (at.version == 6) {
		at.l4 = at.l3 + 40;
		if (at.l4 > len || taken_u16(frame + at.l3 + 4) != len - at.l4)
			return "IPv6 length";
		at.proto = frame[at.l3 + 6];
		while (at.proto == 0 || at.proto == 43 || at.proto == 60) {
			if (at.l4 + 8 > len)
				return "IPv6 extension header";
			at.proto = frame[at.l4];
			at.l4 += 8 + 8u * frame[at.l4 + 1];
		}
	} else {
		return "neither IPv4 nor IPv6";
	}
	if (at.proto != 6 && at.proto != 17)
		return "neither TCP nor UDP";
	if (at.l4 + (at.proto == 6 ? 20 : 8) > len)
		return "no room for TCP or UDP";
	at.payload = at.l4 + (at.proto == 6 ? (uint32_t)(frame[at.l4 + 12] >> 4) * 4 : 8);
	if (at.payload > len || at.payload < at.l4 + 8 ||
	    (at.proto == 6 && at.payload < at.l4 + 20))
		return "TCP header length";
	if (at.proto == 17 && taken_u16(frame + at.l4 + 4) != len - at.l4)
		return "UDP length";
	*ret_at = at;
	return NULL;
}

static inline uint32_t taken_pseudo(const struct taken_at *at, const uint8_t *frame, uint32_t len)
{
	const struct shape s = {.version = at->version, .proto = at->proto};

	return frame_pseudo(&s, frame + at->l3, len - at->l4);
}

/* Return: NULL, or what is wrong: the stack drops it, as it would drop it from a card */
static inline const char *taken_ip_sum(const struct taken_at *at, const uint8_t *frame)
{
	uint32_t header = at->l4 - at->l3;

	return at->version == 4 && frame_sum(0, frame + at->l3, header) != 0xffff ? "IPv4 checksum"
										  : NULL;
}

/* A frame without anything left to do; Return: NULL, or what is wrong */
static inline const char *taken_complete(enum sm_mode mode, const uint8_t *frame, uint32_t len,
					 struct taken_at *ret_at)
{
	const char *problem = taken_headers(mode, frame, len, ret_at);

	if (!problem && frame_sum(taken_pseudo(ret_at, frame, len), frame + ret_at->l4,
				  len - ret_at->l4) != 0xffff)
		problem = "checksum";
	return problem;
}

static inline const char *taken_gso(const struct sm_vnet *v, const struct taken_at *at,
				    uint32_t len)
{
	uint32_t payload = len - at->payload;
	uint8_t type = at->proto != 6 ? 5 : at->version == 4 ? 1 : 4;

	if ((v->gso_type & (at->proto == 6 ? 0x7f : 0xff)) != type)
		return "gso_type";
	if (v->hdr_len != at->payload)
		return "hdr_len";
	if (v->gso_size == 0 || v->gso_size >= payload)
		return "gso_size";
	if (at->proto == 17 && (payload + v->gso_size - 1) / v->gso_size > 64)
		return "more than 64 segments of UDP";
	return NULL;
}

/* @each: given each frame that the stack makes of it; Return: NULL, or what is wrong */
static inline const char *taken_segments(
	enum sm_mode mode, const struct sm_vnet *v, const uint8_t *frame, uint32_t len,
	uint32_t frame_max, void (*each)(void *arg, const uint8_t *frame, uint32_t len), void *arg)
{
	uint32_t headers = v->hdr_len, at = headers, one;
	uint8_t *out = malloc(TAKEN_LEN_MAX);
	const char *problem = out ? NULL : "memory";
	struct sm_segmenter s;

	if (!problem && sm_segmenter_init(&s, mode, v, frame, len) < 0)
		problem = "cannot be cut";
	while (!problem && (one = sm_segmenter_frame_len(&s)) > 0) {
		struct taken_at where;
		uint32_t piece = one - headers;

		sm_segmenter_next(&s, out);
		problem = one > frame_max ? "segment too long"
					  : taken_complete(mode, out, one, &where);
		problem = problem ? problem : taken_ip_sum(&where, out);
		if (!problem && (one < headers || at + piece > len || where.payload != headers ||
				 memcmp(out + headers, frame + at, piece) != 0))
			problem = "payload of a segment";
		if (!problem && each)
			each(arg, out, one);
		at += piece;
	}
	if (!problem && at != len)
		problem = "payload that no segment has";
	free(out);
	return problem;
}

/**
 * taken_problem() - Look at a frame that was written to a TAP
 * @each: given each frame, complete, that the stack makes of it; or NULL
 * Return: NULL, or what a kernel would not take, or what is wrong with what comes of it
 */
static inline const char *taken_problem(enum sm_mode mode, const struct sm_vnet *v,
					const uint8_t *frame, uint32_t len, uint32_t frame_max,
					void (*each)(void *arg, const uint8_t *frame, uint32_t len),
					void *arg)
{
	struct taken_at at;
	const char *problem;
	uint8_t *whole;

	if (len > TAKEN_LEN_MAX)
		return "longer than anything";
	if (v->gso_type == 0 && len > frame_max)
		return "longer than the TAP's MTU";
	if (v->flags == 0) {
		static const struct sm_vnet complete;

		if (memcmp(v, &complete, sizeof(complete)) != 0)
			return "an offload without NEEDS_CSUM";
		if (each)
			each(arg, frame, len);
		return NULL;
	}
	if (v->flags != 1)
		return "flags";
	problem = taken_headers(mode, frame, len, &at);
	if (problem)
		return problem;
	if (v->csum_start != at.l4 || v->csum_offset != (at.proto == 6 ? 16 : 6))
		return "csum_start or csum_offset";
	if (taken_u16(frame + at.l4 + v->csum_offset) != taken_pseudo(&at, frame, len))
		return "the pseudo header's sum";
	if (v->gso_type != 0) {
		problem = taken_ip_sum(&at, frame);
		problem = problem ? problem : taken_gso(v, &at, len);
		return problem ? problem
			       : taken_segments(mode, v, frame, len, frame_max, each, arg);
	}
	if (v->gso_size != 0 || v->hdr_len > len)
		return "a gso_size without a type, or hdr_len";
	whole = malloc(len);
	if (!whole)
		return "memory";
	memcpy(whole, frame, len);
	(void)frame_put(whole + at.l4 + v->csum_offset, 0, 2);
	{
		uint32_t sum = ~frame_sum(taken_pseudo(&at, frame, len), whole + at.l4,
					  len - at.l4) &
			       0xffff;

		(void)frame_put(whole + at.l4 + v->csum_offset, sum == 0 ? 0xffff : sum, 2);
	}
	problem = taken_complete(mode, whole, len, &at);
	if (!problem && each)
		each(arg, whole, len);
	free(whole);
	return problem;
}

#endif

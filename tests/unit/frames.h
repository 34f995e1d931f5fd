// SPDX-License-Identifier: MIT
/*
 * TCP and UDP frames written from nothing, byte by byte, with nothing of the code under test: what a host
 * sends, and what it would have sent as segments.
 */
#ifndef SM_TESTS_FRAMES_H
#define SM_TESTS_FRAMES_H

#include "core/segment.h"
#include "core/super.h"

#define FRAME_HEADERS_MAX (14u + 2 * 4 + 40 + 2 * 8 + 60)

/**
 * struct shape - The headers of a frame
 * @tags:        VLAN tags, none in TUN mode
 * @ip_extra:    IPv4: words of options; IPv6: extension headers, two at most
 * @options:     TCP's, @options_len (a multiple of 4) bytes
 * @seq, @id, @flags, @urgent: TCP's and IPv4's fields of the first segment
 */
struct shape {
	enum sm_mode mode;
	uint8_t tags, version, proto, ip_extra;
	const uint8_t *options;
	uint8_t options_len;
	uint32_t seq;
	uint16_t id, urgent;
	uint8_t flags;
};

static inline uint32_t shape_l3(const struct shape *s)
{
	return s->mode == SM_MODE_TUN ? 0 : 14 + 4u * s->tags;
}

static inline uint32_t shape_l4(const struct shape *s)
{
	return shape_l3(s) + (s->version == 4 ? 20 + 4u * s->ip_extra : 40 + 8u * s->ip_extra);
}

static inline uint32_t shape_csum_offset(const struct shape *s)
{
	return s->proto == 6 ? 16 : 6;
}

static inline uint32_t shape_headers(const struct shape *s)
{
	return shape_l4(s) + (s->proto == 6 ? 20u + s->options_len : 8u);
}

static inline uint8_t *frame_put(uint8_t *p, uint32_t value, unsigned bytes)
{
	while (bytes-- > 0)
		*p++ = (uint8_t)(value >> 8 * bytes);
	return p;
}

/* The words summed up as the RFC's text has it */
static inline uint32_t frame_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static inline void frame_ether(const struct shape *s, uint8_t *p)
{
	if (s->mode == SM_MODE_TUN)
		return;
	p = frame_put(p, 0x02000000, 4);
	p = frame_put(p, 0x00020200, 4);
	p = frame_put(p, 0x00000001, 4);
	for (unsigned i = 0; i < s->tags; i++) {
		p = frame_put(p, i + 1 < s->tags ? 0x88a8 : 0x8100, 2);
		p = frame_put(p, 0x6000 + 100 + i, 2);
	}
	(void)frame_put(p, s->version == 4 ? 0x0800 : 0x86dd, 2);
}

static inline void frame_ipv4(const struct shape *s, uint8_t *ip, uint32_t total)
{
	uint32_t header_len = 20 + 4u * s->ip_extra;
	uint8_t *p = ip;

	p = frame_put(p, 0x4500 + (header_len / 4 << 8) - 0x500 + 0x12, 2);
	p = frame_put(p, total, 2);
	p = frame_put(p, s->id, 2);
	p = frame_put(p, 0x4000, 2); /* DF */
	p = frame_put(p, 64u << 8 | s->proto, 2);
	p = frame_put(p, 0, 2);
	p = frame_put(p, 0xc0000201, 4);
	p = frame_put(p, 0xc6336402, 4);
	for (unsigned i = 0; i < s->ip_extra; i++)
		p = frame_put(p, 0x01010101, 4);
	(void)frame_put(ip + 10, ~frame_sum(0, ip, header_len), 2);
}

static inline void frame_ipv6(const struct shape *s, uint8_t *ip, uint32_t total)
{
	static const uint8_t extra[] = {0, 60}; /* hop-by-hop, destination */
	uint8_t *p = ip;

	p = frame_put(p, 0x60212345, 4);
	p = frame_put(p, total - 40, 2);
	p = frame_put(p, s->ip_extra > 0 ? extra[0] : s->proto, 1);
	p = frame_put(p, 64, 1);
	for (unsigned i = 0; i < 8; i++)
		p = frame_put(p, (i % 4 == 0 ? 0x20010db8 : 0xfd000000) + i, 4);
	for (unsigned i = 0; i < s->ip_extra; i++) {
		p = frame_put(p, i + 1u < s->ip_extra ? extra[i + 1] : s->proto, 1);
		p = frame_put(p, 0, 1);
		p = frame_put(p, 0x0104, 2); /* PadN */
		p = frame_put(p, 0, 4);
	}
}

static inline void frame_l4(const struct shape *s, uint8_t *p, uint32_t l4_len)
{
	p = frame_put(p, 50000u << 16 | 443, 4);
	if (s->proto != 6) {
		p = frame_put(p, l4_len, 2);
		(void)frame_put(p, 0, 2);
		return;
	}
	p = frame_put(p, s->seq, 4);
	p = frame_put(p, 0x12345678, 4);
	p = frame_put(p, (20u + s->options_len) / 4 << 4, 1);
	p = frame_put(p, s->flags, 1);
	p = frame_put(p, 0x0400, 2);
	p = frame_put(p, 0, 2);
	p = frame_put(p, s->urgent, 2);
	if (s->options_len > 0)
		memcpy(p, s->options, s->options_len);
}

/* Return: the sum of addresses, protocol and length */
static inline uint32_t frame_pseudo(const struct shape *s, const uint8_t *ip, uint32_t l4_len)
{
	uint32_t sum = s->version == 4 ? frame_sum(0, ip + 12, 8) : frame_sum(0, ip + 8, 32);

	return frame_sum(sum + s->proto + l4_len, NULL, 0);
}

/**
 * frame_build() - Write a frame to @out
 * @finished: with its checksum; else with the sum of the pseudo header in the place of it
 * Return: its length
 */
static inline uint32_t frame_build(const struct shape *s, const uint8_t *payload, uint32_t len,
				   bool finished, uint8_t *out)
{
	uint32_t l3 = shape_l3(s), l4 = shape_l4(s), headers = shape_headers(s), csum;
	uint32_t end = headers + len;

	frame_ether(s, out);
	if (s->version == 4)
		frame_ipv4(s, out + l3, end - l3);
	else
		frame_ipv6(s, out + l3, end - l3);
	frame_l4(s, out + l4, end - l4);
	if (len > 0)
		memcpy(out + headers, payload, len);
	csum = frame_pseudo(s, out + l3, end - l4);
	if (finished) {
		csum = ~frame_sum(csum, out + l4, end - l4) & 0xffff;
		csum = csum == 0 ? 0xffff : csum;
	}
	(void)frame_put(out + l4 + shape_csum_offset(s), csum, 2);
	return end;
}

/* The segment that carries @len bytes from @at on of @total; @index counts them */
static inline uint32_t frame_segment(const struct shape *s, const uint8_t *payload, uint32_t at,
				     uint32_t len, uint32_t total, uint32_t index, uint8_t *out)
{
	struct shape now = *s;

	now.id = (uint16_t)(s->id + index);
	now.seq += at;
	if (at > 0)
		now.flags &= 0x7f; /* CWR */
	if (at + len < total)
		now.flags &= 0xf6; /* PSH, FIN */
	return frame_build(&now, payload + at, len, true, out);
}

/* What a kernel says of a super-frame of that shape (@gso_size > 0), or of an unfinished frame */
static inline struct sm_vnet frame_vnet(const struct shape *s, uint32_t gso_size)
{
	struct sm_vnet v = {.flags = SM_VNET_NEEDS_CSUM,
			    .hdr_len = (uint16_t)shape_headers(s),
			    .gso_size = (uint16_t)gso_size,
			    .csum_start = (uint16_t)shape_l4(s),
			    .csum_offset = (uint16_t)shape_csum_offset(s)};

	if (gso_size > 0) {
		v.gso_type = s->proto != 6 ? 5 : s->version == 4 ? 1 : 4;
		if (s->proto == 6 && s->flags & 0x80)
			v.gso_type |= 0x80;
	}
	return v;
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Checksums and segments as a kernel would make them.
 */
#include "core/segment.h"
#include "base/cursor.h"

#define TCP_SEQ_AT    4u
#define TCP_FLAGS_AT  13u
#define TCP_CSUM_AT   16u
#define TCP_URGENT_AT 18u
#define UDP_CSUM_AT   6u

/* Zero says of UDP that there is none; the other zero of one's complement says the same of all others. */
static void store_csum(uint64_t sum, uint8_t *buf)
{
	uint16_t csum = (uint16_t)~sm_csum_fold(sum);

	sm_csum_store(csum == 0 ? 0xffff : csum, buf);
}

int sm_segment_finish(const struct sm_vnet *vnet, uint8_t *frame, size_t len)
{
	size_t start = vnet->csum_start, at = start + vnet->csum_offset;

	if (!(vnet->flags & SM_VNET_NEEDS_CSUM))
		return 0;
	if (at + sizeof(uint16_t) > len)
		return -EBADMSG;
	store_csum(sm_csum_add(0, frame + start, len - start), frame + at);
	return 0;
}

static bool is_type_of(uint8_t gso_type, const struct sm_inet *inet)
{
	switch (gso_type & ~SM_VNET_GSO_ECN) {
	case SM_VNET_GSO_TCPV4:
		return inet->proto == SM_PROTO_TCP && inet->version == 4;
	case SM_VNET_GSO_TCPV6:
		return inet->proto == SM_PROTO_TCP && inet->version == 6;
	case SM_VNET_GSO_UDP:
		return inet->proto == SM_PROTO_UDP && !(gso_type & SM_VNET_GSO_ECN);
	default:
		return false;
	}
}

static uint32_t csum_offset_of(const struct sm_inet *inet)
{
	return inet->proto == SM_PROTO_TCP ? TCP_CSUM_AT : UDP_CSUM_AT;
}

static uint64_t add_u32(uint64_t sum, uint32_t value)
{
	uint8_t buf[sizeof(value)];
	struct sm_writer w = sm_writer_init(buf, sizeof(buf));

	sm_write_u32(&w, value);
	return sm_csum_add(sum, buf, sizeof(buf));
}

/* The kernel's own sum, if there is one: what it would have made of it is to come out. Its length goes again. */
static uint64_t pseudo_of(const struct sm_vnet *vnet, const struct sm_inet *inet,
			  const uint8_t *frame)
{
	if (!(vnet->flags & SM_VNET_NEEDS_CSUM))
		return sm_inet_pseudo(inet, frame, 0);
	return add_u32(sm_csum_add(0, frame + inet->l4 + csum_offset_of(inet), sizeof(uint16_t)),
		       ~(inet->end - inet->l4));
}

int sm_segmenter_init(struct sm_segmenter *s, enum sm_mode mode, const struct sm_vnet *vnet,
		      const uint8_t *frame, size_t len)
{
	struct sm_inet inet;

	if (sm_inet_parse(mode, frame, len, &inet) < 0 || inet.end != len || vnet->gso_size == 0 ||
	    !is_type_of(vnet->gso_type, &inet))
		return -EBADMSG;
	if (!(vnet->flags & (SM_VNET_NEEDS_CSUM | SM_VNET_DATA_VALID)))
		return -EBADMSG;
	if (vnet->flags & SM_VNET_NEEDS_CSUM &&
	    (vnet->csum_start != inet.l4 || vnet->csum_offset != csum_offset_of(&inet)))
		return -EBADMSG;
	*s = (struct sm_segmenter){
		.frame = frame,
		.inet = inet,
		.gso_size = vnet->gso_size,
		.payload_len = inet.end - inet.payload,
		.pseudo = pseudo_of(vnet, &inet, frame),
	};
	return 0;
}

static uint32_t next_payload(const struct sm_segmenter *s)
{
	return SM_MIN(s->gso_size, s->payload_len - s->at);
}

uint32_t sm_segmenter_frame_len(const struct sm_segmenter *s)
{
	if (s->index > 0 && s->at == s->payload_len)
		return 0;
	return s->inet.payload + next_payload(s);
}

static void set_seq(const struct sm_segmenter *s, uint8_t *tcp, bool syn)
{
	struct sm_reader r = sm_reader_init(tcp + TCP_SEQ_AT, sizeof(uint32_t));
	struct sm_writer w = sm_writer_init(tcp + TCP_SEQ_AT, sizeof(uint32_t));

	/* A SYN takes a number of its own. */
	sm_write_u32(&w, sm_read_u32(&r) + s->at + (syn && s->index > 0));
}

static void set_urgent(const struct sm_segmenter *s, uint8_t *tcp)
{
	struct sm_reader r = sm_reader_init(tcp + TCP_URGENT_AT, sizeof(uint16_t));
	struct sm_writer w = sm_writer_init(tcp + TCP_URGENT_AT, sizeof(uint16_t));
	uint32_t pointer = sm_read_u16(&r);

	if (pointer <= s->at)
		tcp[TCP_FLAGS_AT] &= (uint8_t)~SM_TCP_URG;
	sm_write_u16(&w, (uint16_t)(pointer > s->at ? pointer - s->at : 0));
}

static void set_tcp(const struct sm_segmenter *s, uint8_t *tcp, uint32_t payload_len)
{
	uint8_t flags = tcp[TCP_FLAGS_AT];

	set_seq(s, tcp, flags & SM_TCP_SYN);
	if (s->index > 0)
		tcp[TCP_FLAGS_AT] &= (uint8_t) ~(SM_TCP_SYN | SM_TCP_CWR);
	if (s->at + payload_len < s->payload_len)
		tcp[TCP_FLAGS_AT] &= (uint8_t) ~(SM_TCP_FIN | SM_TCP_PSH | SM_TCP_RST);
	if (flags & SM_TCP_URG && s->index > 0)
		set_urgent(s, tcp);
}

void sm_segmenter_next(struct sm_segmenter *s, uint8_t *out)
{
	uint32_t header_len = s->inet.payload, payload_len = next_payload(s), l4_len;
	struct sm_inet inet = s->inet;
	uint8_t *l4 = out + inet.l4, *csum = l4 + csum_offset_of(&inet);

	memcpy(out, s->frame, header_len);
	memcpy(out + header_len, s->frame + header_len + s->at, payload_len);
	sm_inet_set_length(&inet, out, payload_len, s->index);
	if (inet.proto == SM_PROTO_TCP)
		set_tcp(s, l4, payload_len);
	l4_len = inet.end - inet.l4;
	sm_csum_store(0, csum);
	store_csum(add_u32(sm_csum_add(s->pseudo, l4, l4_len), l4_len), csum);
	s->at += payload_len;
	s->index++;
}

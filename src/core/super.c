// SPDX-License-Identifier: MIT
/*
 * What the kernel hands over is judged, cut and put together again by its headers alone.
 *
 * A checksum that is not finished holds the sum of the pseudo header, folded and not complemented; whoever
 * finishes it adds the rest. That is the same for a frame and for a super-frame, whose sum is about all of it.
 */
#include "core/super.h"

#define TCP_SEQ_AT    4u
#define TCP_FLAGS_AT  13u
#define TCP_CSUM_AT   16u
#define TCP_HEADER    20u
#define UDP_CSUM_AT   6u
#define TCP_LAST_ONLY (SM_TCP_FIN | SM_TCP_PSH)
#define TCP_NEVER     (SM_TCP_SYN | SM_TCP_RST | SM_TCP_URG)

#define IP_LEN_MAX 65535u

enum tcp_option {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
};
#define OPTION_MSS_LEN 4u

static bool is_tcp(const struct sm_inet *inet)
{
	return inet->proto == SM_PROTO_TCP;
}

static uint16_t csum_offset_of(const struct sm_inet *inet)
{
	return is_tcp(inet) ? TCP_CSUM_AT : UDP_CSUM_AT;
}

static uint8_t gso_type_of(const struct sm_inet *inet)
{
	if (!is_tcp(inet))
		return SM_VNET_GSO_UDP;
	return inet->version == 4 ? SM_VNET_GSO_TCPV4 : SM_VNET_GSO_TCPV6;
}

/* Return: the checksum field of a packet whose checksum is not finished */
static uint16_t partial_csum(const struct sm_inet *inet, const uint8_t *frame)
{
	return sm_csum_fold(sm_inet_pseudo(inet, frame, inet->end - inet->l4));
}

/* Can packets with these headers be segments of one super-frame? */
static bool has_segments(const struct sm_inet *inet, const uint8_t *frame)
{
	return !is_tcp(inet) || !(frame[inet->l4 + TCP_FLAGS_AT] & TCP_NEVER);
}

/* --- sender --- */

static bool is_vnet_sound(const struct sm_vnet *vnet, size_t len)
{
	uint8_t type = vnet->gso_type & (uint8_t)~SM_VNET_GSO_ECN;

	if (vnet->flags & SM_VNET_NEEDS_CSUM &&
	    (uint32_t)vnet->csum_start + vnet->csum_offset + sizeof(uint16_t) > len)
		return false;
	if (vnet->gso_type == SM_VNET_GSO_NONE)
		return true;
	/* Without NEEDS_CSUM: a card had joined what it had verified, and it was bridged to here. */
	return vnet->gso_size > 0 && vnet->flags & (SM_VNET_NEEDS_CSUM | SM_VNET_DATA_VALID) &&
	       (type == SM_VNET_GSO_TCPV4 || type == SM_VNET_GSO_TCPV6 ||
		vnet->gso_type == SM_VNET_GSO_UDP);
}

/* Is it about this packet, and not about one that is inside of it? */
static bool is_about(const struct sm_vnet *vnet, const struct sm_inet *inet, size_t len)
{
	if (vnet->flags & SM_VNET_NEEDS_CSUM &&
	    (vnet->csum_start != inet->l4 || vnet->csum_offset != csum_offset_of(inet)))
		return false;
	if (vnet->gso_type != SM_VNET_GSO_NONE &&
	    (vnet->gso_type & (uint8_t)~SM_VNET_GSO_ECN) != gso_type_of(inet))
		return false;
	return inet->end == len;
}

/* Is the checksum what the receiver will put in its place? */
static bool is_partial_usual(const struct sm_vnet *vnet, const struct sm_inet *inet,
			     const uint8_t *frame)
{
	uint8_t usual[sizeof(uint16_t)];

	if (!(vnet->flags & SM_VNET_NEEDS_CSUM))
		return true;
	sm_csum_store(partial_csum(inet, frame), usual);
	return memcmp(usual, frame + inet->l4 + csum_offset_of(inet), sizeof(usual)) == 0;
}

int sm_super_classify(enum sm_mode mode, const struct sm_vnet *vnet, const uint8_t *frame,
		      size_t len, struct sm_super *ret_super)
{
	struct sm_super super = {0};
	bool gso = vnet->gso_type != SM_VNET_GSO_NONE;

	if (!is_vnet_sound(vnet, len))
		return -EBADMSG;
	if (!gso && !(vnet->flags & SM_VNET_NEEDS_CSUM))
		return -EOPNOTSUPP;
	if (sm_inet_parse(mode, frame, len, &super.inet) < 0 || !is_about(vnet, &super.inet, len))
		return gso ? -EBADMSG : -EOPNOTSUPP;
	super.header_len = super.inet.payload;
	super.payload_len = (uint32_t)len - super.header_len;
	super.gso_size = gso && super.payload_len > vnet->gso_size ? vnet->gso_size : 0;
	if (super.inet.end - super.inet.l3 > IP_LEN_MAX ||
	    !is_partial_usual(vnet, &super.inet, frame))
		return -EOPNOTSUPP;
	if (super.gso_size > 0 &&
	    (super.header_len > SM_TEMPLATE_MAX || !has_segments(&super.inet, frame)))
		return -EOPNOTSUPP;
	*ret_super = super;
	return 0;
}

uint32_t sm_super_plan(const struct sm_super *super, uint32_t room, uint32_t *ret_piece)
{
	uint32_t whole = super->header_len + super->payload_len;
	uint32_t headers = super->header_len + SM_CHUNK_LEN, piece, count, most;

	if (super->gso_size == 0) {
		if (whole + SM_CHUNK_LEN > room)
			return 0;
		*ret_piece = whole;
		return 1;
	}
	if (room <= headers)
		return 0;
	piece = SM_MIN(super->gso_size, room - headers);
	if (piece < super->gso_size && !is_tcp(&super->inet))
		return 0;
	count = (super->payload_len + piece - 1) / piece;
	most = is_tcp(&super->inet) ? SM_CHUNK_COUNT_MAX : SM_SUPER_UDP_MAX;
	if (count > most)
		return 0;
	*ret_piece = piece;
	return count;
}

/* --- receiver --- */

static int check_lone(enum sm_mode mode, uint32_t len, const uint8_t *frame, uint32_t frame_max,
		      struct sm_inet *ret_inet)
{
	struct sm_inet inet;

	if (len > frame_max || sm_inet_parse(mode, frame, len, &inet) < 0 || inet.end != len)
		return -EBADMSG;
	*ret_inet = inet;
	return 0;
}

static bool is_length_sound(const struct sm_chunk *chunk, uint32_t payload_len)
{
	bool last = chunk->index + 1u == chunk->count;

	if (chunk->index >= chunk->count || chunk->count > SM_CHUNK_COUNT_MAX)
		return false;
	return last ? payload_len > 0 && payload_len <= chunk->gso_size
		    : payload_len == chunk->gso_size;
}

int sm_chunk_check(enum sm_mode mode, const struct sm_chunk *chunk, uint32_t payload_len,
		   const uint8_t *template, uint32_t frame_max, struct sm_inet *ret_inet)
{
	uint32_t header_len = chunk->header_len, rest;
	struct sm_inet inet;

	if (chunk->gso_size == 0)
		return check_lone(mode, payload_len, template, frame_max, ret_inet);
	if (!is_length_sound(chunk, payload_len) || header_len + payload_len > frame_max)
		return -EBADMSG;
	if (sm_inet_parse(mode, template, header_len, &inet) < 0 || inet.payload != header_len ||
	    !has_segments(&inet, template))
		return -EBADMSG;
	if (!is_tcp(&inet) && chunk->count > SM_SUPER_UDP_MAX)
		return -EBADMSG;
	/* What is not known yet of the last one: it has a byte. */
	rest = chunk->index + 1u == chunk->count ? payload_len : 1;
	if (header_len - inet.l3 + (chunk->count - 1u) * chunk->gso_size + rest > IP_LEN_MAX)
		return -EBADMSG;
	*ret_inet = inet;
	return 0;
}

static void add_seq(uint8_t *tcp, uint32_t add)
{
	struct sm_reader r = sm_reader_init(tcp + TCP_SEQ_AT, sizeof(uint32_t));
	struct sm_writer w = sm_writer_init(tcp + TCP_SEQ_AT, sizeof(uint32_t));

	sm_write_u32(&w, sm_read_u32(&r) + add);
}

static void rebuild_tcp(const struct sm_chunk *first, uint32_t n, uint8_t *tcp)
{
	if (first->index > 0) {
		add_seq(tcp, (uint32_t)first->index * first->gso_size);
		tcp[TCP_FLAGS_AT] &= (uint8_t)~SM_TCP_CWR;
	}
	if (first->index + n < first->count)
		tcp[TCP_FLAGS_AT] &= (uint8_t)~TCP_LAST_ONLY;
}

static void rebuild_vnet(const struct sm_inet *inet, const struct sm_chunk *first, uint32_t n,
			 const uint8_t *template, struct sm_vnet *ret_vnet)
{
	*ret_vnet = (struct sm_vnet){
		.flags = SM_VNET_NEEDS_CSUM,
		.hdr_len = (uint16_t)inet->payload,
		.csum_start = (uint16_t)inet->l4,
		.csum_offset = csum_offset_of(inet),
	};
	if (n < 2)
		return;
	ret_vnet->gso_type = gso_type_of(inet);
	ret_vnet->gso_size = first->gso_size;
	if (is_tcp(inet) && template[inet->l4 + TCP_FLAGS_AT] & SM_TCP_CWR)
		ret_vnet->gso_type |= SM_VNET_GSO_ECN;
}

void sm_super_rebuild(const struct sm_inet *inet, const struct sm_chunk *first, uint32_t n,
		      uint32_t payload_len, uint8_t *template, struct sm_vnet *ret_vnet)
{
	struct sm_inet now = *inet;

	if (first->gso_size > 0) {
		sm_inet_set_length(&now, template, payload_len, first->index);
		if (is_tcp(inet))
			rebuild_tcp(first, n, template + inet->l4);
	}
	sm_csum_store(partial_csum(&now, template), template + inet->l4 + csum_offset_of(inet));
	rebuild_vnet(&now, first, n, template, ret_vnet);
}

/* --- MSS --- */

/* Return: offset in the header of the option's value, 0 if there is none */
static uint32_t find_mss(const uint8_t *tcp, uint32_t header_len)
{
	uint32_t at = TCP_HEADER;

	while (at < header_len && tcp[at] != OPTION_END) {
		if (tcp[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 2 > header_len || tcp[at + 1] < 2 || tcp[at + 1] > header_len - at)
			return 0;
		if (tcp[at] == OPTION_MSS)
			return tcp[at + 1] == OPTION_MSS_LEN ? at + 2 : 0;
		at += tcp[at + 1];
	}
	return 0;
}

/* RFC 1624, equation 3: the checksum of a packet in which @old became @now; @len is even */
static void adjust_csum(uint8_t *csum, const uint8_t *old, const uint8_t *now, size_t len)
{
	uint8_t gone[sizeof(uint32_t) + sizeof(uint16_t)];
	uint64_t sum;

	assert(len <= sizeof(uint32_t));
	for (size_t i = 0; i < len; i++)
		gone[i] = (uint8_t)~old[i];
	gone[len] = (uint8_t)~csum[0];
	gone[len + 1] = (uint8_t)~csum[1];
	sum = sm_csum_add(sm_csum_add(0, gone, len + sizeof(uint16_t)), now, len);
	sm_csum_store((uint16_t)~sm_csum_fold(sum), csum);
}

bool sm_super_clamp_mss(enum sm_mode mode, uint8_t *frame, size_t len, bool unfinished,
			uint32_t mss_max)
{
	uint8_t *tcp, *words, old[sizeof(uint32_t)];
	struct sm_inet inet;
	uint32_t at, words_len;

	if (sm_inet_parse(mode, frame, len, &inet) < 0 || !is_tcp(&inet))
		return false;
	tcp = frame + inet.l4;
	if (!(tcp[TCP_FLAGS_AT] & SM_TCP_SYN))
		return false;
	at = find_mss(tcp, inet.payload - inet.l4);
	if (at == 0 || ((uint32_t)tcp[at] << 8 | tcp[at + 1]) <= mss_max)
		return false;
	/* The value may stand across two of the words that are summed up. */
	words = tcp + (at & ~1u);
	words_len = at & 1 ? 4 : 2;
	memcpy(old, words, words_len);
	tcp[at] = (uint8_t)(mss_max >> 8);
	tcp[at + 1] = (uint8_t)mss_max;
	if (!unfinished)
		adjust_csum(tcp + TCP_CSUM_AT, old, words, words_len);
	return true;
}

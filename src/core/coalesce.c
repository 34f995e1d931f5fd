// SPDX-License-Identifier: MIT
/*
 * Joining frames.
 *
 * Which frames may be joined is what makes cutting exact: one set of headers must stand for all of them, but
 * for what a kernel derives when it cuts. That is the sequence number and the identification (counted up),
 * lengths and checksums, FIN and PSH (the last segment's) and CWR (the first's). All else has to agree.
 * Checksums are verified before a frame is joined with the first of its like, not earlier: most frames that
 * stay alone never pay for it.
 */
#include "core/coalesce.h"

#include "core/flow.h"
#include "wire/ether.h"

#define IPV4_HEADER_LEN    20u
#define IPV4_DONT_FRAGMENT 0x40u
#define IPV6_HEADER_LEN    40u
#define TCP_CSUM           16u /* offsets of the checksums in the headers */
#define UDP_CSUM           6u
#define IPV4_CSUM          10u

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd

enum next_header {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_DESTINATION = 60,
};

/**
 * struct offer - A frame of a TCP or UDP flow that looks for its run
 * @flags: TCP's byte 13; 0 for UDP
 */
struct offer {
	uint8_t *frame;
	uint32_t len;
	const struct sm_vnet *vnet;
	struct sm_inet inet;
	uint32_t payload_len, seq, hash;
	uint8_t flags;
};

static uint16_t get16(const uint8_t *data)
{
	return (uint16_t)(data[0] << 8 | data[1]);
}

static uint32_t get32(const uint8_t *data)
{
	return (uint32_t)get16(data) << 16 | get16(data + 2);
}

void sm_coalesce_init(struct sm_coalesce *c, enum sm_mode mode, bool tcp, bool udp)
{
	c->mode = mode;
	c->tcp = tcp;
	c->udp = udp;
	c->count = 0;
	memset(c->bucket, 0, sizeof(c->bucket));
}

static uint32_t csum_offset(const struct sm_inet *inet)
{
	return inet->proto == SM_PROTO_TCP ? TCP_CSUM : UDP_CSUM;
}

static uint8_t *bucket_of(struct sm_coalesce *c, uint32_t hash)
{
	return &c->bucket[(uint64_t)hash * SM_RUN_BUCKETS >> 32];
}

static bool same_flow(const struct sm_run *run, const struct offer *o)
{
	const uint8_t *a = run->head + run->inet.l3, *b = o->frame + o->inet.l3;

	if (run->hash != o->hash || run->inet.version != o->inet.version ||
	    run->inet.proto != o->inet.proto ||
	    sm_load32(run->head + run->inet.l4) != sm_load32(o->frame + o->inet.l4))
		return false;
	return o->inet.version == 4 ? sm_load64(a + 12) == sm_load64(b + 12)
				    : memcmp(a + 8, b + 8, 32) == 0;
}

/* Return: where the index of the flow's open run stands; that is 0 if there is none */
static uint8_t *find_open(struct sm_coalesce *c, const struct offer *o)
{
	uint8_t *link = bucket_of(c, o->hash);

	while (*link != 0 && !same_flow(&c->run[*link - 1], o))
		link = &c->run[*link - 1].next;
	return link;
}

/*
 * May a frame that is not a whole TCP or UDP packet belong to such a flow all the same? Fragments do, and
 * what hides behind extension headers, or has lengths that contradict each other.
 */
static bool may_be_of_flow(enum sm_mode mode, const uint8_t *frame, uint32_t len)
{
	struct sm_ether e = {.type = ETHERTYPE_IPV4};
	uint8_t proto;

	if (mode == SM_MODE_TUN) {
		if (len > 0 && frame[0] >> 4 == 6)
			e.type = ETHERTYPE_IPV6;
	} else if (sm_ether_parse(frame, len, &e) < 0) {
		return false;
	}
	if (e.type != ETHERTYPE_IPV4 && e.type != ETHERTYPE_IPV6)
		return false;
	if (len < e.l3 + IPV4_HEADER_LEN)
		return false;
	if (e.type == ETHERTYPE_IPV4) {
		proto = frame[e.l3 + 9];
		return proto == SM_PROTO_TCP || proto == SM_PROTO_UDP;
	}
	proto = frame[e.l3 + 6];
	return proto == SM_PROTO_TCP || proto == SM_PROTO_UDP || proto == NEXT_HOP_BY_HOP ||
	       proto == NEXT_ROUTING || proto == NEXT_FRAGMENT || proto == NEXT_DESTINATION;
}

/* Return: false if there is room for no more; the run is not open yet */
static bool add_run(struct sm_coalesce *c, const struct offer *o)
{
	struct sm_run *run = &c->run[c->count];

	if (c->count == SM_RUNS_MAX)
		return false;
	c->count++;
	run->head = o->frame;
	run->head_len = o->len;
	run->count = 1;
	run->payload_len = o->payload_len;
	run->gso_size = o->payload_len;
	run->inet = o->inet;
	run->vnet = *o->vnet;
	run->next_seq = o->seq + o->payload_len;
	run->hash = o->hash;
	run->next = 0;
	return true;
}

/* Can this frame be one of several, whatever the others are? */
static bool is_joinable(const struct offer *o)
{
	const struct sm_inet *inet = &o->inet;
	const uint8_t *l4 = o->frame + inet->l4;

	/* Options and extension headers are not worth it; padding could not be restored. */
	if (inet->l4 - inet->l3 != (inet->version == 4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN) ||
	    o->payload_len == 0 || inet->end != o->len || o->vnet->gso_type != SM_VNET_GSO_NONE)
		return false;
	if (o->vnet->flags & SM_VNET_NEEDS_CSUM) {
		if (o->vnet->csum_start != inet->l4 || o->vnet->csum_offset != csum_offset(inet))
			return false;
	} else if (inet->proto == SM_PROTO_UDP && get16(l4 + UDP_CSUM) == 0) {
		return false; /* cutting would give it a checksum */
	}
	if (inet->proto == SM_PROTO_UDP)
		return true;
	return (o->flags & (SM_TCP_SYN | SM_TCP_RST | SM_TCP_URG | SM_TCP_ACK)) == SM_TCP_ACK;
}

/* Nothing can follow this segment in its run. */
static bool is_last(const struct sm_run *run, const struct offer *o)
{
	return o->payload_len < run->gso_size || (o->flags & (SM_TCP_PSH | SM_TCP_FIN)) != 0;
}

static bool ipv4_agrees(const struct sm_run *run, const uint8_t *a, const uint8_t *b)
{
	/* Type of service, flags, time to live */
	if (a[1] != b[1] || a[6] != b[6] || a[8] != b[8])
		return false;
	return (a[6] & IPV4_DONT_FRAGMENT) != 0 ||
	       get16(b + 4) == (uint16_t)(get16(a + 4) + run->count);
}

static bool ipv6_agrees(const uint8_t *a, const uint8_t *b)
{
	/* Traffic class and flow label, hop limit */
	return sm_load32(a) == sm_load32(b) && a[7] == b[7];
}

static bool tcp_agrees(const struct sm_run *run, const struct offer *o)
{
	const uint8_t *a = run->head + run->inet.l4, *b = o->frame + o->inet.l4;
	uint8_t differ = a[13] ^ b[13];

	/* Acknowledgement, reserved bits, window, urgent pointer, options; headers are of one length */
	return o->seq == run->next_seq && (o->flags & SM_TCP_CWR) == 0 &&
	       (differ & ~(SM_TCP_CWR | SM_TCP_PSH | SM_TCP_FIN)) == 0 &&
	       sm_load32(a + 8) == sm_load32(b + 8) && a[12] == b[12] &&
	       get16(a + 14) == get16(b + 14) && get16(a + 18) == get16(b + 18) &&
	       memcmp(a + 20, b + 20, o->inet.payload - o->inet.l4 - 20) == 0;
}

/* Does a frame continue the open run of its flow? */
static bool continues(const struct sm_run *run, const struct offer *o)
{
	const struct sm_inet *inet = &o->inet;
	const uint8_t *a = run->head, *b = o->frame;

	if (o->payload_len > run->gso_size || run->count == SM_RUN_SEGMENTS_MAX ||
	    inet->payload + run->payload_len + o->payload_len > SM_FRAME_MAX ||
	    inet->payload != run->inet.payload || inet->l3 != run->inet.l3 ||
	    memcmp(a, b, inet->l3) != 0)
		return false;
	if (inet->version == 4 ? !ipv4_agrees(run, a + inet->l3, b + inet->l3)
			       : !ipv6_agrees(a + inet->l3, b + inet->l3))
		return false;
	return inet->proto == SM_PROTO_UDP || tcp_agrees(run, o);
}

/*
 * Are the checksums right, and such as cutting makes them? A one's complement sum has two zeros. IPv4's header
 * gets 0x0000, UDP gets 0xffff; with TCP, some software gives the one and some the other.
 */
static bool is_sound(const struct sm_inet *inet, const uint8_t *frame, const struct sm_vnet *vnet)
{
	const uint8_t *ip = frame + inet->l3;
	uint16_t csum = get16(frame + inet->l4 + csum_offset(inet));

	if (inet->version == 4 && (sm_csum_fold(sm_csum_add(0, ip, IPV4_HEADER_LEN)) != 0xffff ||
				   get16(ip + IPV4_CSUM) == 0xffff))
		return false;
	if (vnet->flags & SM_VNET_NEEDS_CSUM)
		return true;
	if (inet->proto == SM_PROTO_TCP && (csum == 0 || csum == 0xffff))
		return false;
	return sm_inet_verify(inet, frame);
}

static void append(struct sm_run *run, const struct offer *o)
{
	if (run->count == 1) {
		run->head_len = run->inet.payload;
		run->segment[0].data = run->head + run->head_len;
		run->segment[0].len = run->payload_len;
	}
	run->segment[run->count].data = o->frame + o->inet.payload;
	run->segment[run->count].len = o->payload_len;
	run->count++;
	run->payload_len += o->payload_len;
	run->next_seq += o->payload_len;
	if (o->inet.proto == SM_PROTO_TCP)
		run->head[run->inet.l4 + 13] |= o->flags & (SM_TCP_PSH | SM_TCP_FIN);
}

static bool add_to_flow(struct sm_coalesce *c, struct offer *o)
{
	bool joinable = is_joinable(o);
	uint8_t *link, index;

	o->hash = sm_flow_hash_inet(o->frame, &o->inet);
	link = find_open(c, o);
	if (*link != 0) {
		struct sm_run *run = &c->run[*link - 1];

		if (joinable && continues(run, o) &&
		    (run->count > 1 || is_sound(&run->inet, run->head, &run->vnet))) {
			joinable = is_sound(&o->inet, o->frame, o->vnet);
			if (joinable) {
				append(run, o);
				if (is_last(run, o))
					*link = run->next;
				return true;
			}
		}
		*link = run->next;
	}
	index = (uint8_t)c->count;
	if (!add_run(c, o))
		return false;
	if (joinable && !is_last(&c->run[index], o)) {
		link = bucket_of(c, o->hash);
		c->run[index].next = *link;
		*link = (uint8_t)(index + 1);
	}
	return true;
}

bool sm_coalesce_add(struct sm_coalesce *c, uint8_t *frame, uint32_t len,
		     const struct sm_vnet *vnet)
{
	struct offer o = {.frame = frame, .len = len, .vnet = vnet};

	if (sm_inet_parse(c->mode, frame, len, &o.inet) < 0) {
		if (may_be_of_flow(c->mode, frame, len))
			memset(c->bucket, 0, sizeof(c->bucket));
		return add_run(c, &o);
	}
	o.payload_len = o.inet.end - o.inet.payload;
	if (o.inet.proto == SM_PROTO_TCP) {
		if (!c->tcp)
			return add_run(c, &o);
		o.seq = get32(frame + o.inet.l4 + 4);
		o.flags = frame[o.inet.l4 + 13];
	} else if (!c->udp) {
		return add_run(c, &o);
	}
	return add_to_flow(c, &o);
}

static void finish_run(struct sm_run *run)
{
	struct sm_inet *inet = &run->inet;
	uint32_t offset = csum_offset(inet);

	sm_inet_set_length(inet, run->head, run->payload_len, 0);
	sm_csum_store(sm_csum_fold(sm_inet_pseudo(inet, run->head, inet->end - inet->l4)),
		      run->head + inet->l4 + offset);
	run->vnet = (struct sm_vnet){.flags = SM_VNET_NEEDS_CSUM,
				     .hdr_len = (uint16_t)run->head_len,
				     .gso_size = (uint16_t)run->gso_size,
				     .csum_start = (uint16_t)inet->l4,
				     .csum_offset = (uint16_t)offset};
	if (inet->proto == SM_PROTO_UDP) {
		run->vnet.gso_type = SM_VNET_GSO_UDP;
		return;
	}
	run->vnet.gso_type = inet->version == 4 ? SM_VNET_GSO_TCPV4 : SM_VNET_GSO_TCPV6;
	if (run->head[inet->l4 + 13] & SM_TCP_CWR)
		run->vnet.gso_type |= SM_VNET_GSO_ECN;
}

void sm_coalesce_finish(struct sm_coalesce *c)
{
	for (uint32_t i = 0; i < c->count; i++) {
		if (c->run[i].count > 1)
			finish_run(&c->run[i]);
		else
			c->run[i].payload_len = 0;
	}
}

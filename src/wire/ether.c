// SPDX-License-Identifier: MIT
/*
 * What a switch reads of a frame. Nothing here trusts a length that the frame itself gives.
 */
#include "wire/ether.h"
#include "base/cursor.h"
#include "base/text.h"

#include <stdio.h>

#define ETHERTYPE_IPV4         0x0800
#define ETHERTYPE_ARP          0x0806
#define ETHERTYPE_VLAN         0x8100
#define ETHERTYPE_IPV6         0x86dd
#define ETHERTYPE_SERVICE_VLAN 0x88a8
#define VLAN_TAGS_MAX          2

#define IPV6_HEADER_LEN 40u
#define IPV6_CHAIN_MAX  8 /* extension headers that are looked through */

enum next_header {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_AUTHENTICATION = 51,
	NEXT_ICMPV6 = 58,
	NEXT_DESTINATION = 60,
};

enum icmpv6_type {
	ND_ROUTER_SOLICITATION = 133,
	ND_ROUTER_ADVERTISEMENT = 134,
	ND_NEIGHBOUR_SOLICITATION = 135,
	ND_NEIGHBOUR_ADVERTISEMENT = 136,
	ND_REDIRECT = 137,
};

const char *sm_mac_format(const struct sm_mac *mac, char buf[SM_MAC_STRLEN])
{
	(void)snprintf(buf, SM_MAC_STRLEN, "%02x:%02x:%02x:%02x:%02x:%02x", mac->b[0], mac->b[1],
		       mac->b[2], mac->b[3], mac->b[4], mac->b[5]);
	return buf;
}

int sm_mac_parse(const char *text, struct sm_mac *ret_mac)
{
	struct sm_mac mac;

	if (strlen(text) != SM_MAC_STRLEN - 1)
		return -EINVAL;
	for (size_t i = 0; i < SM_MAC_LEN; i++, text += 3) {
		char digits[] = {text[0], text[1], '\0'};

		if (sm_text_parse_hex(digits, &mac.b[i], 1) < 0 ||
		    text[2] != (i + 1 < SM_MAC_LEN ? ':' : '\0'))
			return -EINVAL;
	}
	*ret_mac = mac;
	return 0;
}

int sm_ether_parse(const uint8_t *frame, size_t len, struct sm_ether *ret_ether)
{
	struct sm_reader r = sm_reader_init(frame, SM_MIN(len, SM_FRAME_MAX));
	struct sm_ether e = {0};
	int tags = 0;

	if (len < SM_ETH_HEADER_LEN)
		return -EBADMSG;
	e.dst = sm_mac_to_u64(sm_read_view(&r, SM_MAC_LEN));
	e.src = sm_mac_to_u64(sm_read_view(&r, SM_MAC_LEN));
	e.multicast = (frame[0] & 1) != 0;
	e.type = sm_read_u16(&r);
	while ((e.type == ETHERTYPE_VLAN || e.type == ETHERTYPE_SERVICE_VLAN) &&
	       tags++ < VLAN_TAGS_MAX) {
		(void)sm_read_u16(&r);    /* priority and VLAN */
		e.type = sm_read_u16(&r); /* 0 past the end */
	}
	e.l3 = (uint16_t)(r.failed ? SM_MIN(len, SM_FRAME_MAX) : (size_t)(r.pos - frame));
	*ret_ether = e;
	return 0;
}

/**
 * struct chain - What stands behind the extension headers of an IPv6 packet
 * @next:     protocol number of what follows
 * @body:     what follows, if the chain is @whole
 * @fragment: a fragment header was among them
 * @first:    false if it was a later fragment's; the chain ends there
 * @whole:    the chain was followed to its end
 */
struct chain {
	uint8_t next;
	const uint8_t *body;
	size_t body_len;
	bool fragment, first, whole;
};

static bool is_extension(uint8_t next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTHENTICATION || next == NEXT_DESTINATION;
}

static struct chain follow_chain(const uint8_t *packet, size_t len)
{
	struct sm_reader r = sm_reader_init(packet, len);
	struct chain c = {.first = true};

	(void)sm_read_view(&r, 6);
	c.next = sm_read_u8(&r);
	(void)sm_read_view(&r, IPV6_HEADER_LEN - 7);
	for (int i = 0; i < IPV6_CHAIN_MAX && is_extension(c.next); i++) {
		uint8_t next = sm_read_u8(&r), units = sm_read_u8(&r);

		if (c.next == NEXT_FRAGMENT) {
			c.fragment = true;
			c.first = (sm_read_u16(&r) & 0xfff8) == 0;
			(void)sm_read_u32(&r);
		} else {
			(void)sm_read_view(&r,
					   6 + units * (c.next == NEXT_AUTHENTICATION ? 4u : 8u));
		}
		c.next = next;
		if (!c.first || r.failed)
			return c;
	}
	c.whole = !is_extension(c.next);
	c.body = r.pos;
	c.body_len = sm_reader_left(&r);
	return c;
}

static bool is_nd(uint8_t type)
{
	return type >= ND_ROUTER_SOLICITATION && type <= ND_REDIRECT;
}

/* Return: where the IPv6 packet stands in the frame, NULL if there is none */
static const uint8_t *ipv6_of(const uint8_t *frame, size_t len, const struct sm_ether *ether,
			      size_t *ret_len)
{
	if (ether->type != ETHERTYPE_IPV6 || len < ether->l3 + IPV6_HEADER_LEN ||
	    frame[ether->l3] >> 4 != 6)
		return NULL;
	*ret_len = len - ether->l3;
	return frame + ether->l3;
}

static bool is_unspecified(const uint8_t *ip, size_t len)
{
	static const uint8_t zero[16];

	return memcmp(ip, zero, len) == 0;
}

static bool arp_claim(const uint8_t *packet, size_t len, struct sm_addr *ret_ip)
{
	struct sm_reader r = sm_reader_init(packet, len);
	uint16_t protocol;
	uint8_t mac_len, ip_len;
	const uint8_t *sender;

	/* Any hardware type: receivers are known to take IEEE 802's for Ethernet's. */
	(void)sm_read_u16(&r);
	protocol = sm_read_u16(&r);
	mac_len = sm_read_u8(&r);
	ip_len = sm_read_u8(&r);
	(void)sm_read_u16(&r); /* operation: requests and replies are believed alike */
	(void)sm_read_view(&r, SM_MAC_LEN);
	sender = sm_read_view(&r, 4);
	if (!sender || protocol != ETHERTYPE_IPV4 || mac_len != SM_MAC_LEN || ip_len != 4 ||
	    is_unspecified(sender, 4))
		return false;
	return sm_addr_from_ip(4, sender, 0, ret_ip) == 0;
}

static bool nd_claim(const uint8_t *packet, size_t len, struct sm_addr *ret_ip)
{
	const uint8_t *source = packet + 8;
	struct chain c = follow_chain(packet, len);

	if (!c.whole || c.next != NEXT_ICMPV6 || c.body_len < 1)
		return false;
	switch (c.body[0]) {
	case ND_ROUTER_SOLICITATION:
	case ND_ROUTER_ADVERTISEMENT:
	case ND_NEIGHBOUR_SOLICITATION:
		return !is_unspecified(source, 16) && sm_addr_from_ip(6, source, 0, ret_ip) == 0;
	case ND_NEIGHBOUR_ADVERTISEMENT:
	case ND_REDIRECT:
		return c.body_len >= 24 && sm_addr_from_ip(6, c.body + 8, 0, ret_ip) == 0;
	default:
		return false;
	}
}

bool sm_ether_claimed_ip(const uint8_t *frame, size_t len, const struct sm_ether *ether,
			 struct sm_addr *ret_ip)
{
	const uint8_t *packet;
	size_t packet_len = 0;

	if (ether->type == ETHERTYPE_ARP && len >= ether->l3)
		return arp_claim(frame + ether->l3, len - ether->l3, ret_ip);
	packet = ipv6_of(frame, len, ether, &packet_len);
	return packet && nd_claim(packet, packet_len, ret_ip);
}

bool sm_ether_nd_fragmented(const uint8_t *frame, size_t len, const struct sm_ether *ether)
{
	size_t packet_len = 0;
	const uint8_t *packet = ipv6_of(frame, len, ether, &packet_len);
	struct chain c;

	if (!packet)
		return false;
	c = follow_chain(packet, packet_len);
	if (!c.first)
		return false;
	if (!c.whole)
		return true;
	return c.fragment && c.next == NEXT_ICMPV6 && (c.body_len < 1 || is_nd(c.body[0]));
}

static int ipv4_parse(const uint8_t *packet, size_t len, struct sm_addr *ret_src,
		      struct sm_addr *ret_dst)
{
	size_t header_len, total;

	if (len < 20)
		return -EBADMSG;
	header_len = (size_t)(packet[0] & 15u) * 4;
	total = (size_t)packet[2] << 8 | packet[3];
	if (header_len < 20 || total < header_len || total > len)
		return -EBADMSG;
	if (sm_addr_from_ip(4, packet + 12, 0, ret_src) < 0 ||
	    sm_addr_from_ip(4, packet + 16, 0, ret_dst) < 0)
		return -EBADMSG;
	return 0;
}

static int ipv6_parse(const uint8_t *packet, size_t len, struct sm_addr *ret_src,
		      struct sm_addr *ret_dst)
{
	struct sm_addr src, dst;

	if (len < IPV6_HEADER_LEN || IPV6_HEADER_LEN + ((size_t)packet[4] << 8 | packet[5]) > len)
		return -EBADMSG;
	if (sm_addr_from_ip(6, packet + 8, 0, &src) < 0 ||
	    sm_addr_from_ip(6, packet + 24, 0, &dst) < 0)
		return -EBADMSG;
	*ret_src = src;
	*ret_dst = dst;
	return 0;
}

int sm_ip_parse(const uint8_t *packet, size_t len, struct sm_addr *ret_src, struct sm_addr *ret_dst)
{
	if (len == 0)
		return -EBADMSG;
	if (packet[0] >> 4 == 4)
		return ipv4_parse(packet, len, ret_src, ret_dst);
	if (packet[0] >> 4 == 6)
		return ipv6_parse(packet, len, ret_src, ret_dst);
	return -EBADMSG;
}

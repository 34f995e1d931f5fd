// SPDX-License-Identifier: MIT
/*
 * Views of Ethernet frames and IP packets: only what a switch needs, never past the end.
 */
#ifndef SM_WIRE_ETHER_H
#define SM_WIRE_ETHER_H

#include "base/addr.h"
#include "wire/const.h"

#define SM_ETH_HEADER_LEN 14u

struct sm_mac {
	uint8_t b[SM_MAC_LEN];
};

/** sm_mac_to_u64() - Return: the address as a number below 2^48 */
static inline uint64_t sm_mac_to_u64(const uint8_t *b)
{
	return (uint64_t)b[0] << 40 | (uint64_t)b[1] << 32 | (uint64_t)b[2] << 24 |
	       (uint64_t)b[3] << 16 | (uint64_t)b[4] << 8 | b[5];
}

#define SM_MAC_STRLEN 18
const char *sm_mac_format(const struct sm_mac *mac, char buf[SM_MAC_STRLEN]);
SM_MUST_CHECK int sm_mac_parse(const char *text, struct sm_mac *ret_mac);

/**
 * struct sm_ether - A frame's outer shape
 * @type:     EtherType behind up to two VLAN tags, 0 if the frame ends before
 * @l3:       offset of what follows it
 */
struct sm_ether {
	uint64_t dst, src; /* as sm_mac_to_u64() */
	uint16_t type;
	uint16_t l3;
	bool multicast; /* destination is a group address, broadcast included */
};

/** sm_ether_parse() - Return: 0, -EBADMSG for a runt of less than 14 bytes */
SM_MUST_CHECK int sm_ether_parse(const uint8_t *frame, size_t len, struct sm_ether *ret_ether);

/**
 * sm_ether_claimed_ip() - The IP address whose owner this frame claims to be
 *
 * All that makes a host enter a link-layer address for somebody: ARP (sender protocol address, probes
 * with 0.0.0.0 excepted), neighbour advertisement and redirect (target), neighbour solicitation,
 * router solicitation and advertisement (source; with the unspecified source none). IPv6 extension
 * headers are looked through, eight at most; what hides behind more of them, or behind fragments, is
 * sm_ether_nd_fragmented()'s.
 * Return: true if there is one
 */
bool sm_ether_claimed_ip(const uint8_t *frame, size_t len, const struct sm_ether *ether,
			 struct sm_addr *ret_ip);

/**
 * sm_ether_nd_fragmented() - May neighbour discovery hide in this frame where it must not?
 *
 * A frame for which this is true is dropped: neighbour discovery in fragments is illegal (RFC 6980),
 * and so is a first fragment that ends before its headers do (RFC 7112); the same is said of a packet
 * with more extension headers than sm_ether_claimed_ip() looks through. Other ICMPv6, such as a long
 * echo request, may be fragmented. Later fragments pass: without the first they are nothing.
 * Return: true if so
 */
bool sm_ether_nd_fragmented(const uint8_t *frame, size_t len, const struct sm_ether *ether);

/** sm_ip_parse() - Source and destination of an IP packet (TUN); Return: 0, -EBADMSG */
SM_MUST_CHECK int sm_ip_parse(const uint8_t *packet, size_t len, struct sm_addr *ret_src,
			      struct sm_addr *ret_dst);

#endif

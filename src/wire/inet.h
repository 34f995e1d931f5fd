// SPDX-License-Identifier: MIT
/*
 * TCP and UDP inside a frame: where the headers stand, and the Internet checksum (RFC 1071).
 */
#ifndef SM_WIRE_INET_H
#define SM_WIRE_INET_H

#include "wire/const.h"

#define SM_PROTO_TCP 6u
#define SM_PROTO_UDP 17u

/* Bits of the TCP header's byte 13 */
#define SM_TCP_FIN 0x01u
#define SM_TCP_SYN 0x02u
#define SM_TCP_RST 0x04u
#define SM_TCP_PSH 0x08u
#define SM_TCP_ACK 0x10u
#define SM_TCP_URG 0x20u
#define SM_TCP_ECE 0x40u
#define SM_TCP_CWR 0x80u

/**
 * struct sm_inet - The shape of an unfragmented TCP or UDP packet
 * @l3, @l4:   offsets in the frame of the IP header and of the TCP or UDP header
 * @payload:   offset of what follows the TCP or UDP header
 * @end:       offset at which the packet ends by IP's own length (a frame may have padding behind)
 * @version:   4 or 6
 * @proto:     SM_PROTO_TCP or SM_PROTO_UDP
 */
struct sm_inet {
	uint32_t l3, l4, payload, end;
	uint8_t version, proto;
};

/**
 * sm_inet_parse() - Find TCP or UDP in an Ethernet frame (up to two VLAN tags) or IP packet
 * @mode: SM_MODE_TAP: @frame begins with an Ethernet header; SM_MODE_TUN: with an IP header
 * @len:  bytes that may be read: the whole frame, or only its headers
 *
 * IPv4 options and IPv6 hop-by-hop, routing and destination headers are looked through (eight at most); a
 * routing header with segments left is not, since the checksum is about another destination then.
 * @ret_inet->end may lie past @len when only the headers are given, and never lies before payload.
 * Return: 0; -EBADMSG if it is anything else: other protocols, fragments, headers cut off, lengths that
 *         contradict each other
 */
SM_MUST_CHECK int sm_inet_parse(enum sm_mode mode, const uint8_t *frame, size_t len,
				struct sm_inet *ret_inet);

/**
 * sm_inet_find() - Find IP, whatever it carries
 * @ret_inet: l3, version, and as proto what the fixed header says, which is there whole; nothing else is set
 * Return: 0; -EBADMSG if it is not IP or cut off
 */
SM_MUST_CHECK int sm_inet_find(enum sm_mode mode, const uint8_t *frame, size_t len,
			       struct sm_inet *ret_inet);

/** sm_csum_add() - One's complement sum of @len bytes (an odd last one padded with zero) onto @sum */
uint64_t sm_csum_add(uint64_t sum, const uint8_t *data, size_t len);
/** sm_csum_fold() - Return: the 16 bits of a sum, in the order in which they stand in a packet; not complemented */
uint16_t sm_csum_fold(uint64_t sum);
/** sm_csum_store() - Write a 16-bit value of sm_csum_fold() to @buf as it is */
void sm_csum_store(uint16_t value, uint8_t *buf);

/**
 * sm_inet_pseudo() - The pseudo header's sum: addresses, protocol, and @l4_len bytes from the TCP or UDP header on
 */
uint64_t sm_inet_pseudo(const struct sm_inet *inet, const uint8_t *frame, uint32_t l4_len);

/**
 * sm_inet_verify() - Is the TCP or UDP checksum of a whole frame right?
 *
 * UDP over IPv4 without a checksum (zero) is right; over IPv6 it is not.
 */
bool sm_inet_verify(const struct sm_inet *inet, const uint8_t *frame);

/**
 * sm_inet_set_length() - Make the headers say that @payload_len bytes follow them
 * @id_add: added to the IPv4 identification
 *
 * Writes IP's and UDP's length and IPv4's header checksum, and @inet->end.
 */
void sm_inet_set_length(struct sm_inet *inet, uint8_t *frame, uint32_t payload_len,
			uint32_t id_add);

#endif

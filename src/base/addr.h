// SPDX-License-Identifier: MIT
/*
 * A transport address and an IP prefix, as values: comparable, printable, without sockaddr's traps.
 */
#ifndef SM_BASE_ADDR_H
#define SM_BASE_ADDR_H

#include "base/base.h"

#include <sys/socket.h>

/**
 * struct sm_addr - IP address and port
 * @ip:     network order; IPv4 uses the first 4 bytes, the rest is zero
 * @scope:  interface index of a link-local IPv6 address, else 0
 * @port:   host order
 * @family: 4, 6, or 0 for "none"
 *
 * Padding-free and always fully initialised, so memcmp() compares it. IPv4-mapped IPv6
 * addresses never appear: sm_addr_from_sockaddr() turns them into family 4.
 */
struct sm_addr {
	uint8_t ip[16];
	uint32_t scope;
	uint16_t port;
	uint8_t family;
	uint8_t zero;
};
static_assert(sizeof(struct sm_addr) == 24, "no padding");

/** struct sm_prefix - IP prefix; host bits may be set where an interface address is meant */
struct sm_prefix {
	uint8_t ip[16];
	uint8_t family;
	uint8_t len;
};

#define SM_ADDR_STRLEN 72

/** sm_addr_equal() - Return: true if family, address, scope and port agree */
bool sm_addr_equal(const struct sm_addr *a, const struct sm_addr *b);

/** sm_addr_same_ip() - Return: true if family and address agree, whatever the ports */
bool sm_addr_same_ip(const struct sm_addr *a, const struct sm_addr *b);

/** sm_addr_ip_len() - Return: bytes of an address: 4 or 16; 0 for another family */
static inline size_t sm_addr_ip_len(uint8_t family)
{
	return family == 4 ? 4 : family == 6 ? 16 : 0;
}

/**
 * sm_addr_from_ip() - Make an address of what stands in a packet
 * @family: 4 or 6
 * @ip:     sm_addr_ip_len() bytes
 * Return: 0; -EINVAL for another family or an IPv4-mapped IPv6 address (@ret_addr untouched)
 */
SM_MUST_CHECK int sm_addr_from_ip(uint8_t family, const uint8_t *ip, uint16_t port,
				  struct sm_addr *ret_addr);

/** sm_addr_from_sockaddr() - Return: 0, -EAFNOSUPPORT (@ret_addr untouched) */
SM_MUST_CHECK int sm_addr_from_sockaddr(const struct sockaddr *sa, struct sm_addr *ret_addr);

/**
 * sm_addr_to_sockaddr() - Fill a sockaddr
 * @mapped: give IPv4 as ::ffff:a.b.c.d, for a dual-stack socket
 * Return: its length
 */
socklen_t sm_addr_to_sockaddr(const struct sm_addr *a, bool mapped,
			      struct sockaddr_storage *ret_sa);

/** sm_addr_format() - Print "192.0.2.1:9443", "[2001:db8::1]:9443" or "none"; Return: @buf */
const char *sm_addr_format(const struct sm_addr *a, char buf[SM_ADDR_STRLEN]);

/** sm_addr_format_ip() - Print the address alone; Return: @buf */
const char *sm_addr_format_ip(const struct sm_addr *a, char buf[SM_ADDR_STRLEN]);

/**
 * sm_addr_parse() - Read a numeric address with or without a port
 * @text: "192.0.2.1", "192.0.2.1:1", "::1", "[::1]:1", "fe80::1%eth0"
 * @default_port: used where the text has none
 * Return: 0, -EINVAL
 */
SM_MUST_CHECK int sm_addr_parse(const char *text, uint16_t default_port, struct sm_addr *ret_addr);

/**
 * sm_prefix_parse() - Read "10.7.0.1/24"; without a length it is /32 or /128
 *
 * An IPv4-mapped one becomes IPv4, as in struct sm_addr.
 * Return: 0, -EINVAL
 */
SM_MUST_CHECK int sm_prefix_parse(const char *text, struct sm_prefix *ret_prefix);

/** sm_prefix_format() - Print "10.7.0.0/24"; Return: @buf */
const char *sm_prefix_format(const struct sm_prefix *p, char buf[SM_ADDR_STRLEN]);

/** sm_prefix_contains() - Return: true if @ip (of @family, 4 or 6) lies in @p */
bool sm_prefix_contains(const struct sm_prefix *p, uint8_t family, const uint8_t *ip);

/** sm_prefix_overlaps() - Return: true if the prefixes share an address */
bool sm_prefix_overlaps(const struct sm_prefix *a, const struct sm_prefix *b);

/** sm_addr_is_global_unicast() - Return: false for unspecified, loopback, multicast, broadcast, link-local */
bool sm_addr_is_global_unicast(const struct sm_addr *a);

#endif

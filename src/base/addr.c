// SPDX-License-Identifier: MIT
/*
 * Addresses and prefixes. The invariants of struct sm_addr are made here and nowhere else: IPv4 is
 * never mapped, the scope belongs to link-local IPv6, unused bytes are zero.
 */
#include "base/addr.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_mapped(const uint8_t *ip)
{
	return memcmp(ip, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

static bool is_link_local6(const uint8_t *ip)
{
	return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

bool sm_addr_equal(const struct sm_addr *a, const struct sm_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool sm_addr_same_ip(const struct sm_addr *a, const struct sm_addr *b)
{
	return a->family == b->family && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

int sm_addr_from_ip(uint8_t family, const uint8_t *ip, uint16_t port, struct sm_addr *ret_addr)
{
	size_t len = sm_addr_ip_len(family);

	if (len == 0 || (family == 6 && is_mapped(ip)))
		return -EINVAL;
	*ret_addr = (struct sm_addr){.family = family, .port = port};
	memcpy(ret_addr->ip, ip, len);
	return 0;
}

/* An address as the kernel or a person gives it: a mapped one is IPv4. */
static struct sm_addr from_ip6(const uint8_t *ip, uint16_t port, uint32_t scope)
{
	struct sm_addr a = {.port = port};

	if (is_mapped(ip)) {
		a.family = 4;
		memcpy(a.ip, ip + sizeof(mapped_prefix), 4);
		return a;
	}
	a.family = 6;
	memcpy(a.ip, ip, 16);
	if (is_link_local6(ip))
		a.scope = scope;
	return a;
}

int sm_addr_from_sockaddr(const struct sockaddr *sa, struct sm_addr *ret_addr)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&in, sa, sizeof(in));
		return sm_addr_from_ip(4, (const uint8_t *)&in.sin_addr, ntohs(in.sin_port),
				       ret_addr);
	case AF_INET6:
		memcpy(&in6, sa, sizeof(in6));
		*ret_addr = from_ip6(in6.sin6_addr.s6_addr, ntohs(in6.sin6_port),
				     in6.sin6_scope_id);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

socklen_t sm_addr_to_sockaddr(const struct sm_addr *a, bool mapped, struct sockaddr_storage *ret_sa)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a->port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};

	memset(ret_sa, 0, sizeof(*ret_sa));
	if (a->family == 4 && !mapped) {
		memcpy(&in.sin_addr, a->ip, 4);
		memcpy(ret_sa, &in, sizeof(in));
		return sizeof(in);
	}
	if (a->family == 4) {
		memcpy(in6.sin6_addr.s6_addr, mapped_prefix, sizeof(mapped_prefix));
		memcpy(in6.sin6_addr.s6_addr + sizeof(mapped_prefix), a->ip, 4);
	} else {
		memcpy(in6.sin6_addr.s6_addr, a->ip, 16);
		in6.sin6_scope_id = a->scope;
	}
	memcpy(ret_sa, &in6, sizeof(in6));
	return sizeof(in6);
}

const char *sm_addr_format_ip(const struct sm_addr *a, char buf[SM_ADDR_STRLEN])
{
	char name[IF_NAMESIZE];
	size_t len;

	if (sm_addr_ip_len(a->family) == 0)
		return memcpy(buf, "none", sizeof("none"));
	(void)inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->ip, buf, SM_ADDR_STRLEN);
	if (a->scope == 0)
		return buf;
	len = strlen(buf);
	if (if_indextoname(a->scope, name))
		(void)snprintf(buf + len, SM_ADDR_STRLEN - len, "%%%s", name);
	else
		(void)snprintf(buf + len, SM_ADDR_STRLEN - len, "%%%u", a->scope);
	return buf;
}

const char *sm_addr_format(const struct sm_addr *a, char buf[SM_ADDR_STRLEN])
{
	char ip[SM_ADDR_STRLEN];

	sm_addr_format_ip(a, ip);
	if (sm_addr_ip_len(a->family) == 0)
		return memcpy(buf, ip, strlen(ip) + 1);
	/* 64 is more than the longest: 39 digits and colons, a percent sign, 15 for the interface. */
	(void)snprintf(buf, SM_ADDR_STRLEN, a->family == 6 ? "[%.62s]:%u" : "%.62s:%u", ip,
		       a->port);
	return buf;
}

/* Reads the interface behind a percent sign, by name or number */
static int parse_scope(const char *text, uint32_t *ret_scope)
{
	uint64_t number;

	*ret_scope = if_nametoindex(text);
	if (*ret_scope != 0)
		return 0;
	if (sm_text_parse_u64(text, 1, UINT32_MAX, &number) < 0)
		return -EINVAL;
	*ret_scope = (uint32_t)number;
	return 0;
}

static int parse_ip(char *text, struct sm_addr *ret_addr)
{
	uint8_t ip[16];
	uint32_t scope = 0;
	char *percent;

	if (inet_pton(AF_INET, text, ip) == 1)
		return sm_addr_from_ip(4, ip, 0, ret_addr);
	percent = strchr(text, '%');
	if (percent)
		*percent = '\0';
	if (inet_pton(AF_INET6, text, ip) != 1)
		return -EINVAL;
	if (percent && (!is_link_local6(ip) || parse_scope(percent + 1, &scope) < 0))
		return -EINVAL;
	*ret_addr = from_ip6(ip, 0, scope);
	return 0;
}

int sm_addr_parse(const char *text, uint16_t default_port, struct sm_addr *ret_addr)
{
	char ip[SM_ADDR_STRLEN], *start = ip, *end, *port = NULL;
	uint64_t number = default_port;
	struct sm_addr a;

	if (strlen(text) >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, strlen(text) + 1);
	if (ip[0] == '[') {
		start = ip + 1;
		end = strchr(ip, ']');
		if (!end || (end[1] != '\0' && end[1] != ':') ||
		    !memchr(ip, ':', (size_t)(end - ip)))
			return -EINVAL;
		if (end[1] == ':')
			port = end + 2;
		*end = '\0';
	} else {
		end = strchr(ip, ':');
		if (end && !strchr(end + 1, ':')) {
			port = end + 1;
			*end = '\0';
		}
	}
	if (port && (strlen(port) > 5 || sm_text_parse_u64(port, 0, UINT16_MAX, &number) < 0))
		return -EINVAL;
	if (parse_ip(start, &a) < 0)
		return -EINVAL;
	a.port = (uint16_t)number;
	*ret_addr = a;
	return 0;
}

int sm_prefix_parse(const char *text, struct sm_prefix *ret_prefix)
{
	char ip[SM_ADDR_STRLEN], *slash;
	uint8_t bytes[16];
	struct sm_prefix p = {0};
	uint64_t len;

	if (strlen(text) >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, strlen(text) + 1);
	slash = strchr(ip, '/');
	if (slash)
		*slash = '\0';
	if (inet_pton(AF_INET, ip, bytes) == 1)
		p.family = 4;
	else if (inet_pton(AF_INET6, ip, bytes) == 1)
		p.family = 6;
	else
		return -EINVAL;
	len = 8 * sm_addr_ip_len(p.family);
	if (slash && (strlen(slash + 1) > 3 || sm_text_parse_u64(slash + 1, 0, len, &len) < 0))
		return -EINVAL;
	if (p.family == 6 && is_mapped(bytes)) {
		if (len < 96)
			return -EINVAL;
		len -= 96;
		p.family = 4;
		memmove(bytes, bytes + sizeof(mapped_prefix), 4);
	}
	p.len = (uint8_t)len;
	memcpy(p.ip, bytes, sm_addr_ip_len(p.family));
	*ret_prefix = p;
	return 0;
}

const char *sm_prefix_format(const struct sm_prefix *p, char buf[SM_ADDR_STRLEN])
{
	size_t len;

	if (sm_addr_ip_len(p->family) == 0)
		return memcpy(buf, "none", sizeof("none"));
	(void)inet_ntop(p->family == 4 ? AF_INET : AF_INET6, p->ip, buf, SM_ADDR_STRLEN);
	len = strlen(buf);
	(void)snprintf(buf + len, SM_ADDR_STRLEN - len, "/%u", p->len);
	return buf;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;

	if (memcmp(a, b, bytes) != 0)
		return false;
	return rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0;
}

static bool is_prefix(const struct sm_prefix *p)
{
	return sm_addr_ip_len(p->family) != 0 && p->len <= 8 * sm_addr_ip_len(p->family);
}

bool sm_prefix_contains(const struct sm_prefix *p, uint8_t family, const uint8_t *ip)
{
	return is_prefix(p) && p->family == family && same_bits(p->ip, ip, p->len);
}

bool sm_prefix_overlaps(const struct sm_prefix *a, const struct sm_prefix *b)
{
	return is_prefix(a) && is_prefix(b) && a->family == b->family &&
	       same_bits(a->ip, b->ip, SM_MIN(a->len, b->len));
}

bool sm_addr_is_global_unicast(const struct sm_addr *a)
{
	static const struct sm_prefix special[] = {
		{.family = 4, .len = 8},                      /* this network */
		{.family = 4, .len = 8, .ip = {127}},         /* loopback */
		{.family = 4, .len = 16, .ip = {169, 254}},   /* link-local */
		{.family = 4, .len = 3, .ip = {224}},         /* multicast, reserved, broadcast */
		{.family = 6, .len = 127},                    /* unspecified, loopback */
		{.family = 6, .len = 10, .ip = {0xfe, 0x80}}, /* link-local */
		{.family = 6, .len = 8, .ip = {0xff}},        /* multicast */
	};

	if (sm_addr_ip_len(a->family) == 0)
		return false;
	for (size_t i = 0; i < SM_ARRAY_SIZE(special); i++) {
		if (sm_prefix_contains(&special[i], a->family, a->ip))
			return false;
	}
	return true;
}

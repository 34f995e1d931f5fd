// SPDX-License-Identifier: MIT
/*
 * Look-ups in a snapshot. Routes are ordered by length, longest first, then family and address, so that
 * each length present costs two binary searches.
 */
#include "core/snapshot.h"

#include <stdlib.h>

#define SLOT_MASK 0xffffu

const struct sm_session_view *sm_snapshot_session(const struct sm_snapshot *s, uint32_t index)
{
	uint32_t slot = index & SLOT_MASK;
	const struct sm_session_view *view;

	if (slot >= s->session_count)
		return NULL;
	view = s->sessions[slot];
	return view && view->index == index ? view : NULL;
}

static uint8_t full_len(uint8_t family)
{
	return family == 4 ? 32 : 128;
}

static void clear_host_bits(uint8_t ip[16], uint8_t len)
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = len > i * 8 ? SM_MIN(len - i * 8, 8u) : 0;

		ip[i] &= (uint8_t)(0xff00u >> keep);
	}
}

static int compare_address(uint8_t family_a, const uint8_t *a, uint8_t family_b, const uint8_t *b)
{
	return family_a != family_b ? family_a - family_b : memcmp(a, b, 16);
}

static int compare_routes(const void *left, const void *right)
{
	const struct sm_route *a = left, *b = right;
	int r;

	if (a->prefix.len != b->prefix.len)
		return b->prefix.len - a->prefix.len;
	r = compare_address(a->prefix.family, a->prefix.ip, b->prefix.family, b->prefix.ip);
	return r != 0 ? r : a->port - b->port;
}

void sm_snapshot_sort_routes(struct sm_snapshot *s)
{
	for (uint32_t i = 0; i < s->route_count; i++)
		clear_host_bits(s->routes[i].prefix.ip, s->routes[i].prefix.len);
	if (s->route_count > 1)
		qsort(s->routes, s->route_count, sizeof(*s->routes), compare_routes);
	s->routes_sorted = true;
}

/* Return: the first route from @begin on whose length is below @len */
static uint32_t group_end(const struct sm_snapshot *s, uint32_t begin, uint8_t len)
{
	uint32_t end = s->route_count;

	while (begin < end) {
		uint32_t middle = begin + (end - begin) / 2;

		if (s->routes[middle].prefix.len >= len)
			begin = middle + 1;
		else
			end = middle;
	}
	return begin;
}

/* Looks among routes [@begin, @end), all of length @len. */
static sm_port_t find_in_group(const struct sm_snapshot *s, uint32_t begin, uint32_t end,
			       const struct sm_addr *ip, uint8_t len)
{
	uint8_t wanted[16];
	uint32_t last = end;

	memcpy(wanted, ip->ip, sizeof(wanted));
	clear_host_bits(wanted, len);
	while (begin < end) {
		uint32_t middle = begin + (end - begin) / 2;
		const struct sm_prefix *p = &s->routes[middle].prefix;

		if (compare_address(p->family, p->ip, ip->family, wanted) < 0)
			begin = middle + 1;
		else
			end = middle;
	}
	if (begin < last && compare_address(s->routes[begin].prefix.family,
					    s->routes[begin].prefix.ip, ip->family, wanted) == 0)
		return s->routes[begin].port;
	return SM_PORT_NONE;
}

sm_port_t sm_snapshot_route(const struct sm_snapshot *s, const struct sm_addr *ip)
{
	assert(s->routes_sorted || s->route_count == 0);
	if (ip->family != 4 && ip->family != 6)
		return SM_PORT_NONE;
	for (uint32_t begin = 0, end; begin < s->route_count; begin = end) {
		uint8_t len = s->routes[begin].prefix.len;
		sm_port_t port;

		end = group_end(s, begin, len);
		if (len > full_len(ip->family))
			continue;
		port = find_in_group(s, begin, end, ip, len);
		if (port != SM_PORT_NONE)
			return port;
	}
	return SM_PORT_NONE;
}

sm_port_t sm_snapshot_owner(const struct sm_snapshot *s, const struct sm_addr *ip)
{
	uint32_t begin = 0;
	uint8_t len = full_len(ip->family);

	assert(s->routes_sorted || s->route_count == 0);
	if (ip->family != 4 && ip->family != 6)
		return SM_PORT_NONE;
	if (len < 128)
		begin = group_end(s, 0, (uint8_t)(len + 1));
	return find_in_group(s, begin, group_end(s, begin, len), ip, len);
}

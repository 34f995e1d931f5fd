// SPDX-License-Identifier: MIT
/*
 * Look-ups in a snapshot: longest prefix against a linear search, owners, session slots.
 */
#include "core/snapshot.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct sm_addr address(const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return a;
}

static struct sm_route route(const char *prefix, sm_port_t port)
{
	struct sm_route r = {.port = port};

	assert_int_equal(sm_prefix_parse(prefix, &r.prefix), 0);
	return r;
}

static void test_routes(void **state)
{
	static const struct {
		const char *ip;
		sm_port_t route, owner;
	} rows[] = {
		{"10.7.0.1", 1, 1},
		{"10.7.0.2", 9, SM_PORT_NONE},
		{"10.7.1.9", 2, SM_PORT_NONE},
		{"10.8.0.1", 3, SM_PORT_NONE},
		{"192.0.2.1", 4, SM_PORT_NONE},
		{"fd00::1", 5, 5},
		{"fd00::2", 6, SM_PORT_NONE},
		{"fd00:0:0:1::2", 8, SM_PORT_NONE},
		{"2001:db8::1", 7, SM_PORT_NONE},
		{"2001:db9::", SM_PORT_NONE, SM_PORT_NONE},
		{"a07:1::", SM_PORT_NONE, SM_PORT_NONE}, /* as 10.7.0.1, but of the other family */
	};
	struct sm_route routes[] = {
		route("0.0.0.0/0", 4),     route("10.7.1.77/24", 2), route("10.7.0.1/32", 1),
		route("fd00::1/128", 5),   route("10.0.0.0/8", 3),   route("fd00::/64", 6),
		route("2001:db8::/32", 7), route("10.7.0.0/24", 9),  route("fd00::/32", 8),
	};
	struct sm_snapshot s = {.routes = routes, .route_count = SM_ARRAY_SIZE(routes)};

	(void)state;
	sm_snapshot_sort_routes(&s);
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_addr a = address(rows[i].ip);

		if (sm_snapshot_route(&s, &a) != rows[i].route ||
		    sm_snapshot_owner(&s, &a) != rows[i].owner)
			fail_msg("%s: port %u, owner %u", rows[i].ip, sm_snapshot_route(&s, &a),
				 sm_snapshot_owner(&s, &a));
	}
	assert_int_equal(sm_snapshot_route(&s, &(struct sm_addr){.family = 0}), SM_PORT_NONE);
	assert_int_equal(sm_snapshot_owner(&s, &(struct sm_addr){.family = 0}), SM_PORT_NONE);
}

/* Addresses of few different bits, so that prefixes hit and nest. */
static void random_ip(struct rng *rng, uint8_t family, uint8_t ip[16])
{
	memset(ip, 0, 16);
	for (unsigned i = 0; i < (family == 4 ? 4u : 16u); i++)
		ip[i] = (uint8_t)(rng_below(rng, 4) ? 0 : 1u << rng_below(rng, 8));
}

static void test_random_routes(void **state)
{
	struct rng rng = rng_init("snapshot");

	(void)state;
	for (int round = 0; round < 50; round++) {
		struct sm_route routes[80] = {0};
		struct sm_snapshot s = {.routes = routes};
		uint32_t n = rng_below(&rng, SM_ARRAY_SIZE(routes) + 1);

		for (uint32_t i = 0; i < n; i++) {
			struct sm_prefix *p = &routes[i].prefix;

			p->family = rng_below(&rng, 2) ? 4 : 6;
			p->len = (uint8_t)rng_below(&rng, p->family == 4 ? 33 : 129);
			random_ip(&rng, p->family, p->ip);
			routes[i].port = (sm_port_t)i;
		}
		s.route_count = n;
		sm_snapshot_sort_routes(&s);
		for (int i = 0; i < 500; i++) {
			struct sm_addr a = {.family = rng_below(&rng, 2) ? 4 : 6};
			sm_port_t want = SM_PORT_NONE;
			int best = -1;

			random_ip(&rng, a.family, a.ip);
			for (uint32_t k = 0; k < n; k++) {
				const struct sm_prefix *p = &routes[k].prefix;

				if (sm_prefix_contains(p, a.family, a.ip) && p->len > best) {
					best = p->len;
					want = routes[k].port;
				}
			}
			assert_int_equal(sm_snapshot_route(&s, &a), want);
			if (best != (a.family == 4 ? 32 : 128))
				want = SM_PORT_NONE;
			assert_int_equal(sm_snapshot_owner(&s, &a), want);
		}
	}
}

static void test_sessions(void **state)
{
	struct sm_session_view view = {.index = 0xabcd0002, .port = 5};
	const struct sm_session_view *slots[] = {NULL, NULL, &view};
	struct sm_snapshot s = {.sessions = slots, .session_count = SM_ARRAY_SIZE(slots)};

	(void)state;
	assert_ptr_equal(sm_snapshot_session(&s, 0xabcd0002), &view);
	assert_null(sm_snapshot_session(&s, 0xabce0002)); /* an earlier user of the slot */
	assert_null(sm_snapshot_session(&s, 0xabcd0001));
	assert_null(sm_snapshot_session(&s, 0xabcd0003));
	assert_null(sm_snapshot_session(&s, 0xabcdffff));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_random_routes),
		cmocka_unit_test(test_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

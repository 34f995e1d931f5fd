// SPDX-License-Identifier: MIT
/*
 * The switch's rules, a row for each.
 *
 *   port 0: this node, MAC 02:..:00, 10.7.0.1, fd00::1, prefix 192.0.2.0/24
 *   port 1: MAC 02:..:01, 10.7.0.2, fd00::2, prefix 198.51.100.0/24, connected
 *   port 2: MAC 02:..:02, 10.7.0.3, fd00::3, connected
 *   port 3: MAC 02:..:03, 10.7.0.4, not connected
 */
#include "core/switch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define T0        UINT64_C(5000000000)
#define OWN(n)    (UINT64_C(0x020000000000) + (n))
#define HOST(n)   (UINT64_C(0x0a0000000000) + (n)) /* nobody's */
#define BROADCAST UINT64_C(0xffffffffffff)
#define PORTS     4u

static struct sm_snapshot snap;
static const struct sm_session_view *sends[PORTS];
static struct sm_session_view views[PORTS];
static struct sm_route routes[16];
static sm_port_t members[PORTS];

static void add_route(const char *prefix, sm_port_t port)
{
	struct sm_route *r = &routes[snap.route_count++];

	assert_int_equal(sm_prefix_parse(prefix, &r->prefix), 0);
	r->port = port;
}

static int setup(void **state)
{
	(void)state;
	snap = (struct sm_snapshot){.mode = SM_MODE_TAP,
				    .port_count = PORTS,
				    .send = sends,
				    .members = members,
				    .routes = routes};
	sm_map64_init(&snap.owned_macs, 1);
	for (uint32_t port = 0; port < PORTS; port++)
		assert_int_equal(sm_map64_insert(&snap.owned_macs, OWN(port), port), 0);
	for (uint16_t port = 1; port <= 2; port++) {
		views[port].port = port;
		sends[port] = &views[port];
		members[snap.member_count++] = port;
	}
	add_route("10.7.0.1/32", 0);
	add_route("10.7.0.2/32", 1);
	add_route("10.7.0.3/32", 2);
	add_route("10.7.0.4/32", 3);
	add_route("fd00::1/128", 0);
	add_route("fd00::2/128", 1);
	add_route("fd00::3/128", 2);
	add_route("192.0.2.0/24", 0);
	add_route("198.51.100.0/24", 1);
	sm_snapshot_sort_routes(&snap);
	return sm_mactable_new(256, PORTS, 3, &snap.learned);
}

static int teardown(void **state)
{
	(void)state;
	sm_map64_done(&snap.owned_macs);
	sm_mactable_free(snap.learned);
	return 0;
}

/* A frame under construction */
struct frame {
	uint8_t b[256];
	size_t len;
};

static void put(struct frame *f, const void *data, size_t len)
{
	assert_true(f->len + len <= sizeof(f->b));
	memcpy(f->b + f->len, data, len);
	f->len += len;
}

static void put_int(struct frame *f, uint64_t value, unsigned bytes)
{
	for (unsigned i = bytes; i-- > 0;)
		put(f, &(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

static struct frame ether(uint64_t dst, uint64_t src, uint16_t type)
{
	struct frame f = {.len = 0};

	put_int(&f, dst, 6);
	put_int(&f, src, 6);
	put_int(&f, type, 2);
	return f;
}

static struct frame plain(uint64_t dst, uint64_t src)
{
	struct frame f = ether(dst, src, 0x8137); /* IPX: no business of ours */

	put(&f, "some payload of a frame, long enough to be real", 46);
	return f;
}

static void put_ip(struct frame *f, const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	put(f, a.ip, a.family == 4 ? 4 : 16);
}

static struct frame arp(uint64_t src, const char *sender, bool vlan)
{
	struct frame f = ether(BROADCAST, src, vlan ? 0x8100 : 0x0806);

	if (vlan)
		put_int(&f, 0x00050806, 4);
	put_int(&f, UINT64_C(0x0001080006040001), 8);
	put_int(&f, src, 6);
	put_ip(&f, sender);
	put_int(&f, 0, 6);
	put_ip(&f, "10.7.0.99");
	return f;
}

/* A neighbour advertisement, in a fragment or not */
static struct frame advertise(uint64_t src, const char *target, bool fragment)
{
	struct frame f = ether(BROADCAST, src, 0x86dd);

	put_int(&f, 0x60000000, 4);
	put_int(&f, fragment ? 32 : 24, 2);
	put_int(&f, fragment ? 44 : 58, 1);
	put_int(&f, 255, 1);
	put_ip(&f, "fe80::1");
	put_ip(&f, "ff02::1");
	if (fragment)
		put_int(&f, UINT64_C(0x3a00000100000001), 8);
	put_int(&f, UINT64_C(0x8800000020000000), 8);
	put_ip(&f, target);
	return f;
}

static struct frame ip4(const char *src, const char *dst)
{
	struct frame f = {.len = 0};

	put_int(&f, 0x45000014, 4);
	put_int(&f, 0, 4);
	put_int(&f, 0x40110000, 4);
	put_ip(&f, src);
	put_ip(&f, dst);
	return f;
}

static struct frame ip6(const char *src, const char *dst)
{
	struct frame f = {.len = 0};

	put_int(&f, 0x60000000, 4);
	put_int(&f, 0x00003b40, 4);
	put_ip(&f, src);
	put_ip(&f, dst);
	return f;
}

#define DROPPED(why) (-(int)(why))
#define FLOODED      1000

/* Return: port, FLOODED, or DROPPED(reason) */
static int out_at(struct frame f, uint64_t now_us)
{
	sm_port_t port = SM_PORT_NONE;
	enum sm_drop why = SM_DROP_NONE;

	switch (sm_switch_egress(&snap, f.b, f.len, now_us, &port, &why)) {
	case SM_VERDICT_DROP:
		return DROPPED(why);
	case SM_VERDICT_PORT:
		return port;
	case SM_VERDICT_FLOOD:
		return FLOODED;
	}
	return -1000;
}

static int out(struct frame f)
{
	return out_at(f, T0);
}

static int in(sm_port_t from, struct frame f)
{
	return DROPPED(sm_switch_ingress(&snap, from, f.b, f.len, T0));
}

static void test_names(void **state)
{
	(void)state;
	for (int i = 0; i < SM_DROP_COUNT; i++)
		assert_non_null(sm_drop_name((enum sm_drop)i));
	assert_string_equal(sm_drop_name(SM_DROP_FILTERED), "filtered");
	assert_string_equal(sm_drop_name(SM_DROP_COUNT), "unknown");
}

static void test_destinations(void **state)
{
	struct frame runt = plain(OWN(1), OWN(0));

	(void)state;
	assert_int_equal(out(plain(OWN(1), OWN(0))), 1);
	assert_int_equal(out(plain(OWN(2), OWN(0))), 2);
	assert_int_equal(out(plain(OWN(3), OWN(0))), DROPPED(SM_DROP_NO_SESSION));
	assert_int_equal(out(plain(OWN(0), HOST(1))), DROPPED(SM_DROP_FILTERED));
	assert_int_equal(out(plain(BROADCAST, OWN(0))), FLOODED);
	assert_int_equal(out(plain(UINT64_C(0x333300000001), OWN(0))), FLOODED);
	assert_int_equal(out(plain(HOST(9), OWN(0))), FLOODED);
	runt.len = 13;
	assert_int_equal(out(runt), DROPPED(SM_DROP_RUNT));
	assert_int_equal(in(1, runt), DROPPED(SM_DROP_RUNT));

	assert_int_equal(in(1, plain(OWN(0), OWN(1))), 0);
	assert_int_equal(in(1, plain(BROADCAST, OWN(1))), 0);
	assert_int_equal(in(1, plain(HOST(9), OWN(1))), 0);
	assert_int_equal(in(1, plain(OWN(2), OWN(1))), DROPPED(SM_DROP_FILTERED));
}

static void test_sources(void **state)
{
	(void)state;
	assert_int_equal(out(plain(OWN(1), OWN(2))), DROPPED(SM_DROP_SOURCE_OWNED));
	assert_int_equal(out(plain(OWN(1), BROADCAST)), DROPPED(SM_DROP_SOURCE_GROUP));
	assert_int_equal(in(1, plain(OWN(0), OWN(2))), DROPPED(SM_DROP_SOURCE_OWNED));
	assert_int_equal(in(1, plain(OWN(0), OWN(0))), DROPPED(SM_DROP_SOURCE_OWNED));
	assert_int_equal(in(1, plain(OWN(0), OWN(3))), DROPPED(SM_DROP_SOURCE_OWNED));
	assert_int_equal(in(1, plain(OWN(0), OWN(1) | UINT64_C(1) << 40)),
			 DROPPED(SM_DROP_SOURCE_GROUP));
	/* None of these was learned. */
	assert_int_equal(sm_mactable_age(snap.learned, T0), 0);
}

static void test_learning(void **state)
{
	(void)state;
	assert_int_equal(in(2, plain(OWN(0), HOST(1))), 0);
	assert_int_equal(out(plain(HOST(1), OWN(0))), 2);
	/* A host behind our bridge: what another local host sends to it stays here. */
	assert_int_equal(out(plain(OWN(1), HOST(2))), 1);
	assert_int_equal(out(plain(HOST(2), HOST(3))), DROPPED(SM_DROP_FILTERED));
	/* A move is damped, but its frames pass. */
	assert_int_equal(in(1, plain(OWN(0), HOST(1))), 0);
	assert_int_equal(out(plain(HOST(1), OWN(0))), 2);
	/* Owned ones are never learned. */
	assert_int_equal(in(1, plain(OWN(0), OWN(1))), 0);
	assert_int_equal(sm_mactable_lookup(snap.learned, OWN(1), T0), -ENOENT);
	/* Its port lost the session: it may be anywhere. */
	sends[2] = NULL;
	assert_int_equal(out(plain(HOST(1), OWN(0))), FLOODED);
	assert_int_equal(out_at(plain(HOST(2), OWN(0)), T0 + SM_MAC_AGE_US + 1), FLOODED);
}

static void test_claims(void **state)
{
	(void)state;
	for (int vlan = 0; vlan < 2; vlan++) {
		assert_int_equal(in(1, arp(OWN(1), "10.7.0.2", vlan)), 0);
		assert_int_equal(in(1, arp(OWN(1), "10.7.0.3", vlan)), DROPPED(SM_DROP_CLAIM));
		assert_int_equal(in(1, arp(HOST(1), "10.7.0.1", vlan)), DROPPED(SM_DROP_CLAIM));
		assert_int_equal(in(1, arp(HOST(1), "10.7.0.77", vlan)), 0);
		assert_int_equal(in(1, arp(HOST(1), "0.0.0.0", vlan)), 0);
		assert_int_equal(out(arp(OWN(0), "10.7.0.1", vlan)), FLOODED);
		assert_int_equal(out(arp(HOST(2), "10.7.0.2", vlan)), DROPPED(SM_DROP_CLAIM));
	}
	/* A prefix is no claim to each of its addresses on the wire. */
	assert_int_equal(in(2, arp(OWN(2), "198.51.100.5", false)), 0);
	assert_int_equal(in(1, advertise(OWN(1), "fd00::2", false)), 0);
	assert_int_equal(in(1, advertise(OWN(1), "fd00::3", false)), DROPPED(SM_DROP_CLAIM));
	assert_int_equal(in(1, advertise(OWN(1), "fd00::2", true)), DROPPED(SM_DROP_FRAGMENTED_ND));
	assert_int_equal(out(advertise(HOST(4), "fd00::3", false)), DROPPED(SM_DROP_CLAIM));
	/* Whoever lies is not learned. */
	assert_int_equal(in(1, arp(HOST(6), "10.7.0.1", false)), DROPPED(SM_DROP_CLAIM));
	assert_int_equal(sm_mactable_lookup(snap.learned, HOST(6), T0), -ENOENT);
}

static void test_tun(void **state)
{
	struct frame runt = ip4("10.7.0.1", "10.7.0.2");

	(void)state;
	snap.mode = SM_MODE_TUN;
	assert_int_equal(out(ip4("10.7.0.1", "10.7.0.2")), 1);
	assert_int_equal(out(ip4("192.0.2.9", "198.51.100.4")), 1);
	assert_int_equal(out(ip6("fd00::1", "fd00::3")), 2);
	assert_int_equal(out(ip4("10.7.0.1", "10.7.0.4")), DROPPED(SM_DROP_NO_SESSION));
	assert_int_equal(out(ip4("10.7.0.1", "10.7.0.5")), DROPPED(SM_DROP_NO_ROUTE));
	assert_int_equal(out(ip4("10.7.0.1", "224.0.0.251")), DROPPED(SM_DROP_NO_ROUTE));
	assert_int_equal(out(ip4("10.7.0.1", "255.255.255.255")), DROPPED(SM_DROP_NO_ROUTE));
	assert_int_equal(out(ip6("fd00::1", "ff02::1")), DROPPED(SM_DROP_NO_ROUTE));
	assert_int_equal(out(ip4("10.7.0.2", "10.7.0.3")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(out(ip4("203.0.113.1", "10.7.0.2")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(out(ip4("10.7.0.1", "192.0.2.1")), DROPPED(SM_DROP_FILTERED));
	runt.len = 19;
	assert_int_equal(out(runt), DROPPED(SM_DROP_RUNT));
	assert_int_equal(in(1, runt), DROPPED(SM_DROP_RUNT));

	assert_int_equal(in(1, ip4("10.7.0.2", "10.7.0.1")), 0);
	assert_int_equal(in(1, ip4("198.51.100.7", "192.0.2.200")), 0);
	assert_int_equal(in(1, ip4("10.7.0.3", "10.7.0.1")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(in(2, ip4("198.51.100.7", "10.7.0.1")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(in(1, ip4("203.0.113.1", "10.7.0.1")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(in(1, ip4("10.7.0.1", "10.7.0.1")), DROPPED(SM_DROP_SOURCE_IP));
	assert_int_equal(in(1, ip4("10.7.0.2", "10.7.0.3")), DROPPED(SM_DROP_FILTERED));
	assert_int_equal(in(1, ip4("10.7.0.2", "8.8.8.8")), DROPPED(SM_DROP_NO_ROUTE));
	assert_int_equal(in(2, ip6("fd00::3", "fd00::1")), 0);
	assert_int_equal(in(1, ip6("fd00::3", "fd00::1")), DROPPED(SM_DROP_SOURCE_IP));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_destinations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(test_learning, setup, teardown),
		cmocka_unit_test_setup_teardown(test_claims, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tun, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

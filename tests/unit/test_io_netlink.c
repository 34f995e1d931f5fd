// SPDX-License-Identifier: MIT
/*
 * Links, addresses and routes of a private namespace, set and read back.
 */
#include "io/netlink.h"
#include "io/tun.h"
#include "netns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct bed {
	struct sm_netlink *nl;
	struct sm_tun a, b;
};

static int set_up(void **state)
{
	struct bed *bed = calloc(1, sizeof(*bed));
	char error[SM_TUN_ERROR_MAX];

	*state = bed;
	return sm_netlink_open(&bed->nl) || sm_tun_open("sma", SM_MODE_TAP, 1, &bed->a, error) ||
	       sm_tun_open("smb", SM_MODE_TAP, 1, &bed->b, error) ||
	       sm_netlink_set_up(bed->nl, bed->a.ifindex, true) ||
	       sm_netlink_set_up(bed->nl, bed->b.ifindex, true);
}

static int tear_down(void **state)
{
	struct bed *bed = *state;

	sm_tun_close(&bed->a);
	sm_tun_close(&bed->b);
	sm_netlink_close(bed->nl);
	free(bed);
	return 0;
}

static struct sm_prefix prefix(const char *text)
{
	struct sm_prefix p;

	assert_int_equal(sm_prefix_parse(text, &p), 0);
	return p;
}

static struct sm_addr addr(const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return a;
}

/* The interface as the older ioctl interface sees it. */
static struct ifreq look(const char *name, unsigned long what)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	assert_int_equal(ioctl(fd, what, &request), 0);
	close(fd);
	return request;
}

static void test_link(void **state)
{
	const struct sm_mac mac = {{0x02, 1, 2, 3, 4, 5}};
	struct bed *bed = *state;
	struct ifreq seen;

	assert_int_equal(sm_netlink_set_mac(bed->nl, bed->a.ifindex, &mac), 0);
	seen = look("sma", SIOCGIFHWADDR);
	assert_memory_equal(seen.ifr_hwaddr.sa_data, mac.b, 6);
	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 1414), 0);
	assert_int_equal(sm_netlink_link_mtu(bed->nl, bed->a.ifindex), 1414);
	assert_int_equal(look("sma", SIOCGIFMTU).ifr_mtu, 1414);
	assert_int_equal(sm_netlink_set_txqueuelen(bed->nl, bed->a.ifindex, 777), 0);
	assert_int_equal(look("sma", SIOCGIFTXQLEN).ifr_qlen, 777);
	assert_true(look("sma", SIOCGIFFLAGS).ifr_flags & IFF_UP);
	assert_int_equal(sm_netlink_set_up(bed->nl, bed->a.ifindex, false), 0);
	assert_false(look("sma", SIOCGIFFLAGS).ifr_flags & IFF_UP);
}

static void test_errors_have_words(void **state)
{
	const struct sm_mac multicast = {{0x01, 0, 0x5e, 0, 0, 1}};
	struct bed *bed = *state;

	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 100000), -EINVAL);
	assert_string_equal(sm_netlink_error(bed->nl), "mtu greater than device maximum");
	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 1400), 0);
	assert_int_equal(sm_netlink_set_mtu(bed->nl, 99999, 1500), -ENODEV);
	assert_string_equal(sm_netlink_error(bed->nl), "No such device");
	assert_int_equal(sm_netlink_link_mtu(bed->nl, 99999), -ENODEV);
	assert_int_equal(sm_netlink_set_mac(bed->nl, bed->a.ifindex, &multicast), -EADDRNOTAVAIL);
}

static bool is_listed(struct sm_netlink *nl, const char *ifname, const char *text)
{
	struct sm_prefix want = prefix(text);
	struct sm_link_address *list = NULL;
	int count = sm_netlink_addresses(nl, &list);
	bool found = false;

	assert_true(count >= 0);
	for (int i = 0; i < count; i++) {
		if (memcmp(&list[i].prefix, &want, sizeof(want)) != 0)
			continue;
		assert_string_equal(list[i].ifname, ifname);
		assert_int_equal(list[i].ifindex, if_nametoindex(ifname));
		assert_true(list[i].up);
		found = true;
	}
	free(list);
	return found;
}

static void test_addresses(void **state)
{
	static const char *const texts[] = {"10.7.0.1/24", "10.8.0.1/32", "10.9.0.0/31",
					    "fd00:1::1/64", "fd00:2::1/128"};
	struct bed *bed = *state;
	struct sm_prefix p;

	assert_true(is_listed(bed->nl, "lo", "127.0.0.1/8"));
	assert_true(is_listed(bed->nl, "lo", "::1/128"));
	for (size_t i = 0; i < SM_ARRAY_SIZE(texts); i++) {
		p = prefix(texts[i]);
		assert_false(is_listed(bed->nl, "sma", texts[i]));
		assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
		assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
		assert_true(is_listed(bed->nl, "sma", texts[i]));
		assert_int_equal(sm_netlink_del_address(bed->nl, bed->a.ifindex, &p), 0);
		assert_int_equal(sm_netlink_del_address(bed->nl, bed->a.ifindex, &p),
				 -EADDRNOTAVAIL);
		assert_false(is_listed(bed->nl, "sma", texts[i]));
	}
}

/* The list grows by doubling: more than one step of it. */
static void test_many_addresses(void **state)
{
	struct bed *bed = *state;
	struct sm_prefix p = prefix("10.7.0.0/16");
	struct sm_link_address *list;
	uint32_t seen = 0;
	int count;

	for (uint32_t i = 1; i <= 200; i++) {
		p.ip[3] = (uint8_t)i;
		assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
	}
	count = sm_netlink_addresses(bed->nl, &list);
	for (int i = 0; i < count; i++)
		seen += list[i].ifindex == bed->a.ifindex && list[i].prefix.family == 4;
	assert_int_equal(seen, 200);
	free(list);
}

static void test_broadcast_is_set(void **state)
{
	struct bed *bed = *state;
	struct sm_prefix p = prefix("10.7.5.1/22");
	struct ifreq seen;

	assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
	seen = look("sma", SIOCGIFBRDADDR);
	assert_memory_equal(seen.ifr_broadaddr.sa_data + 2, "\x0a\x07\x07\xff", 4);
}

/* With duplicate detection an address could not be bound for a second or more. */
static void test_ipv6_is_usable_at_once(void **state)
{
	struct sm_prefix p = prefix("fd00:1::1/64");
	struct sm_addr a = addr("fd00:1::1");
	struct sockaddr_storage sa;
	socklen_t len = sm_addr_to_sockaddr(&a, false, &sa);
	struct bed *bed = *state;
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	close(fd);
}

static void test_connected_route(void **state)
{
	static const struct {
		const char *address, *peer, *source;
	} cases[] = {
		{"10.7.0.1/24", "10.7.0.9", "10.7.0.1"},
		{"fd00:1::1/64", "fd00:1::9", "fd00:1::1"},
	};
	struct bed *bed = *state;

	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 1333), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_prefix p = prefix(cases[i].address);
		struct sm_addr to = addr(cases[i].peer), want = addr(cases[i].source), source;

		assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, &source), -ENETUNREACH);
		assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
		assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, &source), 1333);
		assert_true(sm_addr_equal(&source, &want));
		assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), 1333);
	}
}

static void test_route_of_its_own_mtu(void **state)
{
	struct sm_addr to = addr("10.20.0.1"), to6 = addr("fd20::1");
	struct bed *bed = *state;

	assert_int_equal(system("ip route add 10.20.0.0/16 dev sma mtu 1300"), 0);
	assert_int_equal(system("ip route add fd20::/16 dev sma mtu 1310"), 0);
	assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), 1300);
	assert_int_equal(sm_netlink_route_mtu(bed->nl, &to6, NULL), 1310);
	assert_int_equal(system("ip route replace unreachable 10.20.0.0/16"), 0);
	assert_int_equal(system("ip route add unreachable fd20::/32"), 0);
	assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), -ENETUNREACH);
	assert_int_equal(sm_netlink_route_mtu(bed->nl, &to6, NULL), -ENETUNREACH);
}

static void test_routes(void **state)
{
	static const struct {
		const char *route, *inside;
	} cases[] = {
		{"10.50.0.7/16", "10.50.1.1"}, {"10.60.0.1/32", "10.60.0.1"},
		{"0.0.0.0/0", "192.0.2.1"},    {"fd50::7/48", "fd50::1"},
		{"fd60::1/128", "fd60::1"},    {"::/0", "2001:db8::1"},
	};
	struct bed *bed = *state;

	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		struct sm_prefix p = prefix(cases[i].route);
		struct sm_addr to = addr(cases[i].inside);
		int a = bed->a.ifindex, b = bed->b.ifindex;

		assert_int_equal(sm_netlink_add_route(bed->nl, a, &p), 0);
		assert_int_equal(sm_netlink_add_route(bed->nl, a, &p), 0);
		assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), 1500);
		assert_int_equal(sm_netlink_del_route(bed->nl, b, &p), -ESRCH);
		assert_int_equal(sm_netlink_del_route(bed->nl, a, &p), 0);
		assert_int_equal(sm_netlink_del_route(bed->nl, a, &p), -ESRCH);
		assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), -ENETUNREACH);
	}
}

/* Two cards with one subnet: the fault that made the older system say "no route to host". */
static void test_route_of_another_device(void **state)
{
	struct sm_prefix p = prefix("10.50.0.0/16");
	struct bed *bed = *state;

	assert_int_equal(sm_netlink_add_route(bed->nl, bed->a.ifindex, &p), 0);
	assert_int_equal(sm_netlink_add_route(bed->nl, bed->b.ifindex, &p), -EEXIST);
	assert_string_equal(sm_netlink_error(bed->nl), "File exists");
}

static void test_connected_route_is_kept(void **state)
{
	struct sm_prefix address = prefix("10.7.0.1/24");
	struct sm_addr to = addr("10.7.0.9");
	struct bed *bed = *state;

	assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &address), 0);
	assert_int_equal(sm_netlink_add_route(bed->nl, bed->a.ifindex, &address), 0);
	assert_int_equal(sm_netlink_del_route(bed->nl, bed->a.ifindex, &address), -ESRCH);
	assert_int_equal(sm_netlink_route_mtu(bed->nl, &to, NULL), 1500);
}

static void test_monitor(void **state)
{
	struct sm_prefix p = prefix("10.7.0.1/24"), route = prefix("10.50.0.0/16");
	struct bed *bed = *state;
	int fd = sm_netlink_monitor();

	assert_true(fd >= 0);
	/* IPv6 on the fresh cards may still be talking. */
	while (sm_netlink_monitor_drain(fd, 0) > 0)
		;
	assert_int_equal(sm_netlink_add_address(bed->nl, bed->a.ifindex, &p), 0);
	assert_int_equal(sm_netlink_monitor_drain(fd, 0), 1);
	assert_int_equal(sm_netlink_add_route(bed->nl, bed->a.ifindex, &route), 0);
	assert_int_equal(sm_netlink_monitor_drain(fd, 0), 1);
	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 1400), 0);
	assert_int_equal(sm_netlink_monitor_drain(fd, 0), 1);
	assert_int_equal(sm_netlink_set_mtu(bed->nl, bed->a.ifindex, 1300), 0);
	assert_int_equal(sm_netlink_monitor_drain(fd, bed->a.ifindex), 0);
	close(fd);
	assert_int_equal(sm_netlink_monitor_drain(fd, 0), -EBADF);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_link),
		TEST(test_errors_have_words),
		TEST(test_addresses),
		TEST(test_many_addresses),
		TEST(test_broadcast_is_set),
		TEST(test_ipv6_is_usable_at_once),
		TEST(test_connected_route),
		TEST(test_route_of_its_own_mtu),
		TEST(test_routes),
		TEST(test_route_of_another_device),
		TEST(test_connected_route_is_kept),
		TEST(test_monitor),
	};
	int failed;

	netns_enter();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	netns_leave();
	return failed;
}

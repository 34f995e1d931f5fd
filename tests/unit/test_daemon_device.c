// SPDX-License-Identifier: MIT
/*
 * What the daemon takes of the machine, in a network namespace of this program's own: interfaces, addresses,
 * routes, ports, locks; and that it gives all of it back, also half-way.
 */
#include "daemons.h"

#include "io/lock.h"
#include "netns.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define NAME  "smdev0"
#define OTHER "smdev1"

static struct daemons journal; /* of it, the log alone is used */
static struct sm_daemon daemon_under_test, second;
static char error[SM_DAEMON_ERROR_MAX];
static struct sm_netlink *nl;

/* A configuration from text; what is of the machine is not open */
static void prepare(struct sm_daemon *d, const char *text)
{
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));
	struct sm_identity *self = &d->credentials.self;

	assert_non_null(errors);
	*d = (struct sm_daemon){
		.network_lock = -1, .udp_lock = -1, .tcp_lock = -1, .monitor_fd = -1, .workers = 1};
	for (uint32_t i = 0; i < SM_WORKER_MAX; i++)
		d->udp_fd[i] = -1;
	if (sm_config_parse(text, strlen(text), "f", "/", &d->config, errors))
		fail_msg("%s", errors->text[0]);
	free(errors);
	d->workers = SM_MAX(d->config->transport.workers, 1u);
	snprintf(self->name, sizeof(self->name), "me");
	memset(self->network_id, 1, sizeof(self->network_id));
	assert_int_equal(sm_ident_node_id(self->network_id, "me", NULL, self->node_id), 0);
	assert_int_equal(sm_prefix_parse("10.70.0.9/24", &self->addresses[0]), 0);
	self->address_count = 1;
	d->ports = calloc(SM_PORT_MAX, sizeof(*d->ports));
	assert_non_null(d->ports);
}

static void finish(struct sm_daemon *d)
{
	sm_device_close(d);
	sm_config_free(d->config);
	free(d->ports);
	d->config = NULL;
	d->ports = NULL;
}

/* After a test that failed half-way */
static int clean_up(void **state)
{
	(void)state;
	if (daemon_under_test.config)
		finish(&daemon_under_test);
	if (second.config)
		finish(&second);
	return setenv("SHADOWMESH_RUNTIME_DIR", netns_runtime_dir(), 1);
}

#define NET(name)  "[Network]\nName = " name "\nCA = ca\n"
#define NODE       "[Node]\nCertificate = c\nPrivateKey = k\n"
#define CARD(name) "[Interface]\nName = " name "\n"

static void open_good(struct sm_daemon *d, const char *text)
{
	prepare(d, text);
	if (sm_device_open(d, error))
		fail_msg("%s", error);
}

/* Nothing of the daemon is left: another one could start at once. */
static void expect_nothing_left(void)
{
	const struct sm_daemon *d = &daemon_under_test;
	char holder[SM_HOLDER_MAX];

	assert_int_equal(if_nametoindex(NAME), 0);
	assert_int_equal(d->network_lock, -1);
	assert_int_equal(d->udp_lock, -1);
	assert_int_equal(d->tcp_lock, -1);
	assert_int_equal(d->monitor_fd, -1);
	assert_int_equal(d->udp_fd[0], -1);
	assert_null(d->netlink);
	assert_int_not_equal(sm_lock_port_holder(true, SM_DATA_PORT, holder), 0);
}

static bool has_address(int ifindex, const char *text)
{
	struct sm_link_address *list = NULL;
	const int n = sm_netlink_addresses(nl, &list);
	struct sm_prefix wanted;
	bool found = false;

	assert_int_equal(sm_prefix_parse(text, &wanted), 0);
	for (int i = 0; i < n; i++)
		found |= list[i].ifindex == ifindex && list[i].prefix.len == wanted.len &&
			 list[i].prefix.family == wanted.family &&
			 !memcmp(list[i].prefix.ip, wanted.ip, sizeof(wanted.ip));
	free(list);
	return found;
}

static bool has_route(const char *to)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(to, 0, &a), 0);
	return sm_netlink_route_mtu(nl, &a, NULL) > 0;
}

static void test_tap(void **state)
{
	struct sm_daemon *d = &daemon_under_test;
	struct sm_prefix ula;
	struct sm_mac mac;
	char text[SM_ADDR_STRLEN];

	(void)state;
	open_good(d, NET("home") NODE CARD(NAME) "MTU = 1300\nTxQueueLen = 77\n");
	assert_string_equal(d->tun.name, NAME);
	assert_int_equal(d->tun.ifindex, if_nametoindex(NAME));
	assert_int_equal(sm_netlink_link_mtu(nl, d->tun.ifindex), 1300);
	assert_int_equal(sm_ident_mac(d->credentials.self.node_id, &mac), 0);
	assert_memory_equal(&d->mac, &mac, sizeof(mac));
	/* the certificate's address, and the derived one */
	assert_int_equal(d->address_count, 2);
	assert_true(has_address(d->tun.ifindex, "10.70.0.9/24"));
	assert_int_equal(
		sm_ident_ula(d->credentials.self.network_id, d->credentials.self.node_id, &ula), 0);
	assert_true(has_address(d->tun.ifindex, sm_prefix_format(&ula, text)));
	assert_true(has_route("10.70.0.1"));
	assert_int_equal(d->data_port, SM_DATA_PORT);
	assert_true(d->monitor_fd >= 0);
	finish(d);
	expect_nothing_left();
	sm_device_close(d); /* nothing is left to close */
}

static void test_configured(void **state)
{
	struct sm_daemon *d = &daemon_under_test;
	struct sm_mac mac;

	(void)state;
	open_good(d, NET("home") NODE CARD(NAME) "Address = 10.71.0.1/16, fd71::1/64\nULA = no\n"
						 "MAC = 02:00:00:00:00:07\n"
						 "[Transport]\nDataPort = 0\nWorkers = 3\n");
	assert_int_equal(d->address_count, 2);
	assert_true(has_address(d->tun.ifindex, "10.71.0.1/16"));
	assert_true(has_address(d->tun.ifindex, "fd71::1/64"));
	assert_false(has_address(d->tun.ifindex, "10.70.0.9/24"));
	assert_int_equal(sm_mac_parse("02:00:00:00:00:07", &mac), 0);
	assert_memory_equal(&d->mac, &mac, sizeof(mac));
	/* any free port, the same for all workers */
	assert_int_not_equal(d->data_port, 0);
	assert_int_equal(d->tun.queues, 3);
	for (uint32_t i = 0; i < 3; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof(sa);
		struct sm_addr bound;

		assert_int_equal(getsockname(d->udp_fd[i], (struct sockaddr *)&sa, &len), 0);
		assert_int_equal(sm_addr_from_sockaddr((struct sockaddr *)&sa, &bound), 0);
		assert_int_equal(bound.port, d->data_port);
	}
	assert_int_equal(d->udp_fd[3], -1);
	finish(d);
	expect_nothing_left();
}

/* What stands in the way, and what the error says: cause and cure */
static void test_in_the_way(void **state)
{
	static const struct {
		const char *text;
		int err;
		const char *words[3];
	} rows[] = {
		{NET("away") NODE CARD(OTHER), -EBUSY, {"network away is up already", "pid "}},
		{NET("home") NODE CARD(NAME),
		 -EBUSY,
		 {"UDP port 9443 is taken by another shadowmesh", "network away", "DataPort"}},
		{NET("home") NODE CARD(NAME) "[Transport]\nDataPort = 5555\n",
		 -EBUSY,
		 {"TCP port 8443 is taken by another shadowmesh", "network away", "ControlPort"}},
		{NET("home") NODE CARD(OTHER) "[Transport]\nDataPort = 5555\nControlPort = 5555\n",
		 -EBUSY,
		 {OTHER}},
		{NET("home") NODE CARD(NAME) "[Transport]\nDataPort = 5555\nControlPort = 5555\n"
					     "Listen = 192.0.2.1\n",
		 -EADDRNOTAVAIL,
		 {"cannot bind UDP port 5555", "no interface of this machine has", "Listen"}},
		{NET("home") NODE CARD(NAME) "[Transport]\nDataPort = 5556\nControlPort = 5555\n",
		 -EADDRINUSE,
		 {"UDP port 5556 is taken by test_daemon_dev", "another DataPort"}},
		{NET("home") NODE CARD("lo") "[Transport]\nDataPort = 5555\nControlPort = 5555\n",
		 0,
		 {"lo"}},
	};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(5556)};
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	open_good(&second, NET("away") NODE CARD(OTHER));
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		int err;

		prepare(&daemon_under_test, rows[i].text);
		error[0] = '\0';
		err = sm_device_open(&daemon_under_test, error);
		if (rows[i].err ? err != rows[i].err : err >= 0)
			fail_msg("row %zu: %d: %s", i, err, error);
		for (size_t w = 0; w < SM_ARRAY_SIZE(rows[i].words) && rows[i].words[w]; w++)
			if (!strstr(error, rows[i].words[w]))
				fail_msg("row %zu: no '%s' in '%s'", i, rows[i].words[w], error);
		sm_device_close(&daemon_under_test);
		assert_int_equal(if_nametoindex(NAME), 0);
		/* it took no lock with it: the same again says the same */
		assert_int_equal(sm_device_open(&daemon_under_test, error), err);
		finish(&daemon_under_test);
	}
	assert_int_not_equal(if_nametoindex(OTHER), 0);
	finish(&second);
	close(fd);
}

/* What the kernel does not take is an error that names it, and nothing stays half-made. */
static void test_refused_by_kernel(void **state)
{
	static const struct {
		const char *text;
		uint32_t mtu; /* 0: as in the text; what no file may say */
		uint8_t mac;  /* first byte of one, likewise */
		const char *error;
	} rows[] = {
		{"Address = fd00::1/64\nMTU = 576\nULA = no\n", 0, 0,
		 "cannot set address fd00::1/64: "},
		{"", 70000, 0, "cannot set MTU 70000: "},
		{"", 0, 1, "cannot set MAC address 01:00:00:00:00:00: "},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_config_interface *c;
		char text[512];

		snprintf(text, sizeof(text), NET("home") NODE CARD(NAME) "%s", rows[i].text);
		prepare(&daemon_under_test, text);
		c = &daemon_under_test.config->interface;
		c->mtu = rows[i].mtu ? rows[i].mtu : c->mtu;
		c->has_mac = rows[i].mac;
		c->mac.b[0] = rows[i].mac;
		assert_true(sm_device_open(&daemon_under_test, error) < 0);
		if (!strstr(error, "interface " NAME ": ") || !strstr(error, rows[i].error))
			fail_msg("%s", error);
		finish(&daemon_under_test);
		expect_nothing_left();
	}
}

/* No place for locks is an error, not a daemon without them. */
static void test_no_runtime_dir(void **state)
{
	(void)state;
	setenv("SHADOWMESH_RUNTIME_DIR", "/proc/nowhere/at/all", 1);
	prepare(&daemon_under_test, NET("home") NODE CARD(NAME));
	assert_true(sm_device_open(&daemon_under_test, error) < 0);
	assert_memory_equal(error, "cannot make a lock in /proc/nowhere/at/all: ", 44);
	finish(&daemon_under_test);
	expect_nothing_left();
	setenv("SHADOWMESH_RUNTIME_DIR", netns_runtime_dir(), 1);
}

static void test_same_subnet(void **state)
{
	(void)state;
	daemons_log_clear(&journal);
	open_good(&second, NET("away") NODE CARD(OTHER) "Address = 10.72.0.1/24\nULA = no\n"
							"[Transport]\nDataPort = 5555\n"
							"ControlPort = 5555\n");
	assert_string_equal(journal.log, "");
	open_good(&daemon_under_test,
		  NET("home") NODE CARD(NAME) "Address = 10.72.0.2/16\nULA = no\n");
	assert_true(daemons_logged(&journal, "warn: interfaces " NAME " (10.72.0.2/16) and " OTHER
					     " (10.72.0.1/24) share a subnet"));
	assert_int_equal(daemons_log_count(&journal, "warn: "), 1);
	finish(&daemon_under_test);
	finish(&second);
}

/* An interface that was there before goes on without our addresses. */
static void test_persistent(void **state)
{
	int ifindex;

	(void)state;
	assert_int_equal(system("ip tuntap add dev " NAME " mode tap"), 0);
	ifindex = (int)if_nametoindex(NAME);
	open_good(&daemon_under_test, NET("home") NODE CARD(NAME));
	assert_true(daemon_under_test.tun.taken_over);
	assert_int_equal(daemon_under_test.tun.ifindex, ifindex);
	assert_true(has_address(ifindex, "10.70.0.9/24"));
	finish(&daemon_under_test);
	assert_int_equal(if_nametoindex(NAME), ifindex);
	assert_false(has_address(ifindex, "10.70.0.9/24"));
	assert_int_equal(system("ip link del " NAME), 0);
}

static void test_tun_routes(void **state)
{
	struct sm_daemon *d = &daemon_under_test;
	struct sm_identity id = {.prefix_count = 2, .address_count = 3};
	const struct sm_peer_info info = {.port = 5, .name = "peer", .identity = &id};

	(void)state;
	assert_int_equal(sm_prefix_parse("10.90.0.0/16", &id.prefixes[0]), 0);
	assert_int_equal(sm_prefix_parse("fd90::/48", &id.prefixes[1]), 0);
	assert_int_equal(sm_prefix_parse("10.70.0.3/24", &id.addresses[0]), 0); /* in ours */
	assert_int_equal(sm_prefix_parse("10.91.0.3/24", &id.addresses[1]), 0);
	assert_int_equal(sm_prefix_parse("fd91::3/64", &id.addresses[2]), 0);
	open_good(d, NET("home\nMode = tun") NODE CARD(NAME));
	assert_true(has_route("10.70.0.3"));
	for (unsigned round = 0; round < 2; round++) {
		assert_false(has_route("10.90.1.1"));
		sm_device_route_peer(d, &info, true);
		assert_int_equal(d->ports[5].route_count, 4);
		sm_device_route_peer(d, &info, true); /* once is enough */
		assert_int_equal(d->ports[5].route_count, 4);
		assert_true(has_route("10.90.1.1"));
		assert_true(has_route("fd90::1"));
		assert_true(has_route("10.91.0.3"));
		assert_false(has_route("10.91.0.4")); /* the host, not its subnet */
		assert_true(has_route("fd91::3"));
		sm_device_route_peer(d, &info, false);
		assert_int_equal(d->ports[5].route_count, 0);
		assert_false(has_route("10.90.1.1"));
		assert_false(has_route("fd91::3"));
		assert_true(has_route("10.70.0.3"));
		sm_device_route_peer(d, &info, false);
	}
	/* a renewed certificate: one prefix stays, one goes, one comes */
	sm_device_route_peer(d, &info, true);
	assert_int_equal(sm_prefix_parse("10.92.0.0/16", &id.prefixes[0]), 0);
	sm_device_route_peer(d, &info, true);
	assert_int_equal(d->ports[5].route_count, 4);
	assert_false(has_route("10.90.1.1"));
	assert_true(has_route("10.92.1.1"));
	assert_true(has_route("fd90::1"));
	sm_device_route_peer(d, &info, false);
	assert_int_equal(sm_prefix_parse("10.90.0.0/16", &id.prefixes[0]), 0);
	/* one that another interface has is not taken from it, the others are set */
	assert_int_equal(system("ip route add 10.90.0.0/16 dev lo"), 0);
	daemons_log_clear(&journal);
	sm_device_route_peer(d, &info, true);
	assert_true(daemons_logged(&journal, "error: cannot add the route to 10.90.0.0/16: "));
	assert_int_equal(d->ports[5].route_count, 3);
	sm_device_route_peer(d, &info, false);
	assert_true(has_route("10.90.1.1"));
	assert_int_equal(system("ip route del 10.90.0.0/16 dev lo"), 0);
	finish(d);
	expect_nothing_left();
}

/* Not where routes are switched off, nor in TAP mode, where the subnet says it all */
static void test_no_routes(void **state)
{
	static const char *const texts[] = {
		NET("home\nMode = tun") NODE CARD(NAME) "Routes = no\n",
		NET("home") NODE CARD(NAME),
	};
	struct sm_identity id = {.prefix_count = 1};
	const struct sm_peer_info info = {.port = 5, .name = "peer", .identity = &id};

	(void)state;
	assert_int_equal(sm_prefix_parse("10.90.0.0/16", &id.prefixes[0]), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(texts); i++) {
		open_good(&daemon_under_test, texts[i]);
		sm_device_route_peer(&daemon_under_test, &info, true);
		assert_false(has_route("10.90.1.1"));
		finish(&daemon_under_test);
	}
}

static void op_random(void *host, void *buf, size_t len)
{
	(void)host;
	memset(buf, 7, len);
}

static void op_event(void *host, const struct sm_node_event *event)
{
	(void)host;
	(void)event;
}

/* Addresses of this machine that peers may be told: not its own card's, no loopback, none that is down */
static void test_candidates(void **state)
{
	static const struct {
		const char *transport;
		const char *wanted[3];
	} rows[] = {
		{"", {"192.0.2.7:9443", "[2001:db8::7]:9443"}},
		{"Listen = 2001:db8::7\n", {"[2001:db8::7]:9443"}},
		{"Listen = 127.0.0.1\n", {NULL}},
		{"DataPort = 5000\nControlPort = 6000\n", {"192.0.2.7:5000", "[2001:db8::7]:5000"}},
	};
	static const struct sm_node_ops ops = {.random = op_random, .event = op_event};
	static const struct sm_node_config config = {.workers = 1, .max_peers = 4};
	struct sm_daemon *d = &daemon_under_test;

	(void)state;
	assert_int_equal(system("ip link add smv0 type veth peer name smv1 && "
				"ip link set smv0 up && ip link set smv1 up && "
				"ip addr add 192.0.2.7/24 dev smv0 && "
				"ip addr add 2001:db8::7/64 dev smv0 nodad && "
				"ip tuntap add dev smv2 mode tap && "
				"ip addr add 198.51.100.7/24 dev smv2"),
			 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char text[256], got[SM_ADDR_STRLEN];
		uint32_t n = 0;

		snprintf(text, sizeof(text), NET("home") NODE CARD(NAME) "[Transport]\n%s",
			 rows[i].transport);
		open_good(d, text);
		d->control_port = d->config->transport.control_port;
		assert_int_equal(sm_node_new(&config, &ops, d, sm_clock_now_us(), &d->node), 0);
		sm_device_candidates(d);
		for (; n < 3 && rows[i].wanted[n]; n++) {
			bool found = false;

			for (uint32_t k = 0; k < d->node->candidate_count; k++)
				found |= !strcmp(sm_addr_format(&d->node->candidates[k].data, got),
						 rows[i].wanted[n]);
			if (!found)
				fail_msg("row %zu: no %s", i, rows[i].wanted[n]);
		}
		assert_int_equal(d->node->candidate_count, n);
		for (uint32_t k = 0; k < n; k++)
			assert_int_equal(d->node->candidates[k].control_port, d->control_port);
		sm_node_free(d->node);
		d->node = NULL;
		finish(d);
	}
	assert_int_equal(system("ip link del smv0 && ip link del smv2"), 0);
}

static int set_up(void **state)
{
	(void)state;
	daemons_log_keep(&journal);
	return sm_crypto_init() || sm_netlink_open(&nl);
}

static int tear_down(void **state)
{
	(void)state;
	sm_netlink_close(nl);
	netns_leave();
	return 0;
}

/* One for two processors, as configured, or what a card that is there allows */
static void test_workers(void **state)
{
	struct sm_daemon *d = &daemon_under_test;
	cpu_set_t all, set;
	const struct {
		int cpus;
		uint32_t workers;
	} cases[] = {{1, 1}, {2, 1}, {4, 2}, {7, 3}, {64, 4}};

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	prepare(d, NET("home") NODE CARD(NAME));
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		if (CPU_COUNT(&all) < cases[i].cpus)
			break;
		CPU_ZERO(&set);
		for (size_t cpu = 0; CPU_COUNT(&set) < cases[i].cpus; cpu++)
			if (CPU_ISSET(cpu, &all))
				CPU_SET(cpu, &set);
		assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
		assert_int_equal(sm_device_workers(d->config), cases[i].workers);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(system("ip tuntap add dev " NAME " mode tap"), 0);
	assert_int_equal(sm_device_workers(d->config), 1);
	assert_int_equal(system("ip link del " NAME), 0);
	finish(d);
	prepare(d, NET("home") NODE CARD(NAME) "[Transport]\nWorkers = 7\n");
	assert_int_equal(sm_device_workers(d->config), 7);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, clean_up)
	const struct CMUnitTest tests[] = {
		TEST(test_tap),         TEST(test_configured),
		TEST(test_in_the_way),  TEST(test_refused_by_kernel),
		TEST(test_same_subnet), TEST(test_no_runtime_dir),
		TEST(test_persistent),  TEST(test_tun_routes),
		TEST(test_no_routes),   TEST(test_candidates),
		TEST(test_workers),
	};

	netns_enter();
	return cmocka_run_group_tests_name("device", tests, set_up, tear_down);
}

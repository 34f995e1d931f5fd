// SPDX-License-Identifier: MIT
/*
 * Endpoints as addresses: numbers at once, names off the loop, in which order, and what is said when there
 * are none. The only name that is looked up is localhost; the others are none that could be asked for.
 */
#include "daemons.h"

#include <err.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/mount.h>
#include <unistd.h>
#include <cmocka.h>

#define LABEL_63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TOO_LONG LABEL_63 "a" /* a label has 63 bytes at most */

static struct daemons bed;

/* A daemon whose node is asked for nothing: it does not listen, and the test alone lets it turn */
static int set_up(void **state)
{
	(void)state;
	daemons_init(&bed);
	daemons_configure(&bed, 0, (struct daemons_conf){.dials = 1u << 1});
	daemons_open(&bed, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	daemons_done(&bed);
	return 0;
}

static void set_endpoints(const char *const *list)
{
	struct sm_config_endpoints *e = &bed.n[0].d.config->peers[0].endpoints;

	memset(e, 0, sizeof(*e));
	for (; *list; list++) {
		struct sm_config_endpoint *one = &e->endpoint[e->count++];

		if (sm_addr_parse(*list, 1, &one->addr))
			one->addr = (struct sm_addr){0};
		else
			one->addr.port = 0;
		snprintf(one->host, sizeof(one->host), "%s", *list);
		one->port = (uint16_t)(100 +
				       e->count); /* shows which endpoint an address came of */
		if (one->addr.family)
			one->addr.port = one->port;
	}
}

/* Asks, and turns until the peer has the answer; Return: the peer */
static const struct sm_peer *resolve(void)
{
	struct sm_peer *peer = daemons_peer(&bed, 0, "n1");
	struct sm_daemon *d = &bed.n[0].d;

	DAEMONS_UNTIL(&bed, !peer->resolving && !peer->in_dial);
	peer->dial = (struct sm_endpoint_set){0};
	peer->last_error[0] = '\0';
	peer->dial_at_us = SM_NEVER;
	peer->resolving = true;
	assert_int_equal(sm_resolve_peer(d, peer->port), 0);
	assert_true(peer->resolving); /* never from within */
	DAEMONS_UNTIL(&bed, !peer->resolving);
	return peer;
}

static void test_numbers(void **state)
{
	static const struct {
		const char *endpoints[6];
		const char *addresses[5];
	} rows[] = {
		{{"127.0.0.1"}, {"127.0.0.1:101"}},
		{{"127.0.0.1", "::1", "127.0.0.2"},
		 {"127.0.0.1:101", "[::1]:102", "127.0.0.2:103"}},
		{{"127.0.0.1", TOO_LONG, "127.0.0.2"}, {"127.0.0.1:101", "127.0.0.2:103"}},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const struct sm_peer *peer;
		uint32_t n = 0;

		set_endpoints(rows[i].endpoints);
		peer = resolve();
		for (; rows[i].addresses[n]; n++) {
			char text[SM_ADDR_STRLEN];

			assert_true(n < peer->dial.count);
			assert_string_equal(sm_addr_format(&peer->dial.addr[n], text),
					    rows[i].addresses[n]);
		}
		assert_int_equal(peer->dial.count, n);
		assert_string_equal(peer->last_error, "");
	}
}

/* Names come after numbers, each address of them with the port of its endpoint */
static void test_names(void **state)
{
	static const char *const list[] = {"localhost", "127.0.0.9", NULL};
	const struct sm_peer *peer;

	(void)state;
	set_endpoints(list);
	peer = resolve();
	assert_true(peer->dial.count >= 2);
	assert_int_equal(peer->dial.addr[0].port, 102);
	for (uint32_t i = 1; i < peer->dial.count; i++) {
		struct sm_addr expected[2];

		assert_int_equal(sm_addr_parse("127.0.0.1:101", 0, &expected[0]), 0);
		assert_int_equal(sm_addr_parse("[::1]:101", 0, &expected[1]), 0);
		assert_true(sm_addr_equal(&peer->dial.addr[i], &expected[0]) ||
			    sm_addr_equal(&peer->dial.addr[i], &expected[1]));
	}
}

static void test_nothing_found(void **state)
{
	static const struct {
		const char *endpoints[3];
		const char *error;
	} rows[] = {
		{{NULL}, "no endpoint is configured"},
		{{TOO_LONG}, "cannot resolve " TOO_LONG},
		{{TOO_LONG, "b" TOO_LONG}, "cannot resolve "},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const struct sm_peer *peer;

		set_endpoints(rows[i].endpoints);
		peer = resolve();
		assert_int_equal(peer->dial.count, 0);
		assert_memory_equal(peer->last_error, rows[i].error, strlen(rows[i].error));
		assert_int_equal(peer->state, SM_PEER_BACKOFF); /* and it is tried again */
	}
}

static void test_as_many_as_allowed(void **state)
{
	static const char *const list[] = {"127.0.1.1", "127.0.1.2", "127.0.1.3",
					   "127.0.1.4", "127.0.1.5", "127.0.1.6",
					   "127.0.1.7", "localhost", NULL};
	const struct sm_peer *peer;

	(void)state;
	set_endpoints(list);
	peer = resolve();
	assert_true(peer->dial.count >= 8 && peer->dial.count <= SM_ENDPOINTS_MAX);
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(peer->dial.addr[i].ip[3], i + 1);
}

/* A reload has taken it out of the configuration; the peer itself is remembered for a while. */
static void test_not_configured(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;
	const struct sm_peer *peer;

	(void)state;
	d->config->peer_count = 0;
	assert_int_equal(sm_control_set_peers(d), 0);
	peer = resolve();
	assert_int_equal(peer->dial.count, 0);
	assert_string_equal(peer->last_error, "no endpoint is configured");
	d->config->peer_count = 1;
}

/* Between question and answer the peer is forgotten, or the daemon ends. */
static void test_nobody_waits(void **state)
{
	static const char *const list[] = {"localhost", "127.0.0.9", NULL};
	struct sm_daemon *d = &bed.n[0].d;
	struct sm_peer *peer = daemons_peer(&bed, 0, "n1");
	const uint16_t port = peer->port;

	(void)state;
	set_endpoints(list);
	assert_int_equal(sm_resolve_peer(d, port), 0);
	assert_int_equal(sm_resolve_peer(d, port), 0); /* twice */
	assert_int_equal(sm_resolve_peer(d, 77), 0);   /* a port without a peer */
	sm_peer_free(peer);
	assert_int_equal(sm_resolve_peer(d, port), 0);
	for (unsigned i = 0; i < 100; i++)
		daemons_turn(&bed);
	assert_true(sm_list_empty(&d->resolutions));
	assert_int_equal(sm_control_set_peers(d), 0);
	assert_int_equal(sm_resolve_peer(d, port), 0);
	d->stopping = true;
	sm_resolve_deliver(d); /* frees what is there; the name's answer comes while it closes */
	assert_true(sm_list_empty(&d->resolutions));
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	if (!f || fputs(text, f) < 0 || fclose(f))
		err(1, "%s", path);
}

/* What names mean is the test's, not the machine's: an /etc of its own, that nobody else sees */
static void own_names(void)
{
	const uid_t uid = geteuid();
	const gid_t gid = getegid();
	char map[32];

	if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)))
		err(1, "cannot make a mount namespace");
	if (uid) {
		snprintf(map, sizeof(map), "0 %u 1", uid);
		write_file("/proc/self/uid_map", map);
		write_file("/proc/self/setgroups", "deny");
		snprintf(map, sizeof(map), "0 %u 1", gid);
		write_file("/proc/self/gid_map", map);
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("etc", "/etc", "tmpfs", 0, NULL))
		err(1, "cannot mount");
	write_file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
	write_file("/etc/nsswitch.conf", "hosts: files\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_numbers),        TEST(test_names),
		TEST(test_nothing_found),  TEST(test_as_many_as_allowed),
		TEST(test_not_configured), TEST(test_nobody_waits),
	};

	own_names();
	return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}

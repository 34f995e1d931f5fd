// SPDX-License-Identifier: MIT
/*
 * What status and peers say, against what is known of a daemon, with a peer and without.
 */
#include "daemons.h"

#include "planes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemons bed;

static int set_up(void **state)
{
	(void)state;
	daemons_init(&bed);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	daemons_done(&bed);
	return 0;
}

/* Follows "a.b.0.c"; Return: borrowed, NULL where there is none */
static const json_t *at(const json_t *json, const char *path)
{
	char name[64];

	while (json && *path) {
		const size_t len = strcspn(path, ".");

		assert_true(len < sizeof(name));
		snprintf(name, sizeof(name), "%.*s", (int)len, path);
		json = json_is_array(json) ? json_array_get(json, strtoul(name, NULL, 10))
					   : json_object_get(json, name);
		path += len + (path[len] == '.');
	}
	return json;
}

static void expect_text(const json_t *json, const char *path, const char *wanted)
{
	const char *text = json_string_value(at(json, path));

	if (!text || strcmp(text, wanted) != 0)
		fail_msg("%s: '%s', not '%s'", path, text ? text : "(none)", wanted);
}

static json_int_t number(const json_t *json, const char *path)
{
	const json_t *v = at(json, path);

	if (!json_is_integer(v))
		fail_msg("no number at %s", path);
	return json_integer_value(v);
}

static void expect_number(const json_t *json, const char *path, json_int_t wanted)
{
	if (number(json, path) != wanted)
		fail_msg("%s: %lld, not %lld", path, (long long)number(json, path),
			 (long long)wanted);
}

static void expect_between(const json_t *json, const char *path, json_int_t low, json_int_t high)
{
	if (number(json, path) < low || number(json, path) > high)
		fail_msg("%s: %lld", path, (long long)number(json, path));
}

/* It must be possible to print it: a failed json_pack() somewhere leaves a hole. */
static void expect_whole(const json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	assert_non_null(text);
	assert_true(strlen(text) > 100);
	free(text);
}

static void test_alone(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;
	char text[128], mac[SM_MAC_STRLEN];
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0,
			  CONF(.peers = 1u << 1,
			       .interface = "MTU = 1400\nAddress = 10.7.0.1/24, fd00::1/64\n"));
	daemons_open(&bed, 0);
	s = sm_status_daemon(d, false);
	expect_whole(s);
	expect_text(s, "network", "bed");
	expect_text(s, "network_id",
		    sm_text_hex(d->credentials.self.network_id, SM_NETWORK_ID_LEN, text));
	expect_text(s, "mode", "tap");
	expect_text(s, "version", SM_VERSION);
	expect_number(s, "pid", getpid());
	expect_between(s, "uptime_us", 1, 60000000);
	expect_text(s, "node.name", "n0");
	expect_text(s, "node.id", sm_text_hex(d->credentials.self.node_id, SM_NODE_ID_LEN, text));
	expect_text(s, "node.mac", sm_mac_format(&d->mac, mac));
	expect_text(s, "node.addresses.0", "10.7.0.1/24");
	expect_text(s, "node.addresses.1", "fd00::1/64");
	expect_text(s, "node.certificate.fingerprint", bed.n[0].fingerprint);
	assert_null(at(s, "node.certificate.not_after")); /* a pinned key has no end */
	expect_text(s, "interface.name", "n0");
	expect_number(s, "interface.mtu", 1400);
	expect_number(s, "interface.ifindex", INT32_MAX);
	expect_text(s, "interface.mac", sm_mac_format(&d->mac, mac));
	expect_number(s, "transport.control_port", DAEMONS_PORT);
	expect_number(s, "transport.data_port", d->data_port);
	expect_number(s, "transport.workers", 1);
	snprintf(text, sizeof(text), "%s:%u", bed.n[0].address, DAEMONS_PORT);
	expect_text(s, "transport.listen.0", text);
	assert_int_equal(json_array_size(at(s, "transport.listen")), 1);
	assert_int_equal(json_is_true(at(s, "transport.cipher_hardware")), sm_crypto_has_aes());
	expect_number(s, "peers.total", 1);
	expect_number(s, "peers.up", 0);
	expect_number(s, "control.accepted", 0);
	expect_number(s, "control.open", 0);
	assert_int_equal(json_object_size(at(s, "control.refused")), 0);
	expect_between(s, "memory_rss_bytes", 1 << 20, INT64_C(8) << 30);
	assert_true(json_string_length(at(s, "crypto")) > 5);
	assert_null(at(s, "profile"));
	json_decref(s);

	s = sm_status_peers(d);
	expect_whole(s);
	assert_int_equal(json_array_size(at(s, "peers")), 1);
	expect_text(s, "peers.0.name", "n1");
	expect_number(s, "peers.0.port", 1);
	expect_text(s, "peers.0.state", "idle");
	assert_true(json_is_true(at(s, "peers.0.configured")));
	expect_text(s, "peers.0.tls", "down");
	expect_text(s, "peers.0.last_error", "");
	assert_int_equal(json_array_size(at(s, "peers.0.endpoints")), 0);
	assert_true(json_is_null(at(s, "peers.0.path")));
	assert_true(json_is_null(at(s, "peers.0.session")));
	expect_number(s, "peers.0.counters.tx_frames", 0);
	assert_null(at(s, "peers.0.certificate")); /* not known before it was there */
	json_decref(s);
}

/* Every drop reason and every stage has its line, whatever their number */
static void test_all_names(void **state)
{
	char path[64];
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	daemons_open(&bed, 0);
	s = sm_status_daemon(&bed.n[0].d, true);
	assert_int_equal(json_object_size(at(s, "counters.drops")), SM_DROP_COUNT - 1);
	for (unsigned i = 1; i < SM_DROP_COUNT; i++) {
		snprintf(path, sizeof(path), "counters.drops.%s", sm_drop_name(i));
		expect_number(s, path, 0);
	}
	assert_int_equal(json_object_size(at(s, "profile")), SM_STAGE_COUNT);
	for (unsigned i = 0; i < SM_STAGE_COUNT; i++) {
		snprintf(path, sizeof(path), "profile.%s.frame.count", sm_stage_name(i));
		expect_number(s, path, 0);
		snprintf(path, sizeof(path), "profile.%s.batch.p99_us", sm_stage_name(i));
		assert_true(json_is_real(at(s, path)));
	}
	json_decref(s);
}

static void test_connected(void **state)
{
	uint8_t frame[300], got[PLANES_FRAME_MAX];
	struct sm_daemon *d = &bed.n[0].d;
	char text[128];
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0, CONF(.ca = true, .dials = 1u << 1));
	daemons_configure(&bed, 1, CONF(.ca = true));
	daemons_open(&bed, 1);
	daemons_open(&bed, 0);
	daemons_connect(&bed, 0, 1);
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 0, "n1")->active->path.srtt_us > 0);
	planes_frame(frame, sm_mac_to_u64(bed.n[1].d.mac.b), sm_mac_to_u64(d->mac.b), 1,
		     sizeof(frame));
	tap_put(bed.n[0].tap, frame, sizeof(frame));
	assert_int_equal(tap_get(bed.n[1].tap, got, sizeof(got), 5000), sizeof(frame));

	s = sm_status_daemon(d, true);
	expect_whole(s);
	expect_number(s, "peers.total", 1);
	expect_number(s, "peers.up", 1);
	expect_number(s, "counters.tap_read_frames", 1);
	expect_number(s, "counters.tap_read_bytes", sizeof(frame));
	expect_between(s, "counters.udp_send_packets", 1, 1000);
	expect_number(s, "control.dialled", 1);
	expect_number(s, "control.opened", 1);
	expect_number(s, "control.open", 1);
	expect_between(s, "node.certificate.days_left", 89, 90);
	expect_number(s, "node.certificate.not_after", d->credentials.self.not_after);
	expect_number(s, "profile.tap_read.frame.count", 1);
	assert_true(json_real_value(at(s, "profile.tap_read.frame.max_us")) > 0);
	json_decref(s);

	s = sm_status_peers(d);
	expect_whole(s);
	expect_text(s, "peers.0.state", "up");
	expect_text(s, "peers.0.tls", "up");
	snprintf(text, sizeof(text), "%s:%u", bed.n[1].address, DAEMONS_PORT);
	expect_text(s, "peers.0.endpoints.0", text);
	expect_text(s, "peers.0.path.kind", "direct");
	expect_text(s, "peers.0.path.state", "up");
	expect_between(s, "peers.0.path.rtt_us", 1, 5000000);
	expect_between(s, "peers.0.path.min_rtt_us", 1, number(s, "peers.0.path.rtt_us"));
	expect_between(s, "peers.0.path.mtu", SM_PATH_MTU_MIN, 65536);
	expect_number(s, "peers.0.session.index",
		      daemons_peer(&bed, 0, "n1")->active->config.index);
	expect_number(s, "peers.0.session.epoch", 0);
	expect_text(s, "peers.0.session.role", "client");
	expect_text(s, "peers.0.session.cipher",
		    sm_crypto_has_aes() ? "aes-256-gcm" : "chacha20-poly1305");
	expect_text(s, "peers.0.session.group", "SecP384r1MLKEM1024");
	expect_text(s, "peers.0.session.signature", "mldsa87");
	expect_between(s, "peers.0.session.handshake_us", 100, 20000000);
	expect_between(s, "peers.0.session.handshake_bytes_in", 10000, 30000);
	expect_number(s, "peers.0.counters.tx_frames", 1);
	expect_number(s, "peers.0.counters.tx_bytes", sizeof(frame));
	expect_number(s, "peers.0.counters.forged", 0);
	expect_text(s, "peers.0.id",
		    sm_text_hex(bed.n[1].d.credentials.self.node_id, SM_NODE_ID_LEN, text));
	expect_text(s, "peers.0.mac", sm_mac_format(&bed.n[1].d.mac, text));
	expect_text(s, "peers.0.certificate.fingerprint", bed.n[1].fingerprint);
	assert_int_equal(json_array_size(at(s, "peers.0.certificate.roles")), 0);
	json_decref(s);

	s = sm_status_peers(&bed.n[1].d);
	expect_text(s, "peers.0.session.role", "server");
	assert_true(json_is_false(at(s, "peers.0.configured")));
	expect_number(s, "peers.0.counters.rx_frames", 1);
	expect_number(s, "peers.0.counters.rx_bytes", sizeof(frame));
	json_decref(s);
}

static void test_certificate(void **state)
{
	struct sm_peer *peer;
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	daemons_open(&bed, 0);
	peer = daemons_peer(&bed, 0, "n1");
	peer->has_identity = true;
	peer->identity = (struct sm_identity){.name = "n1",
					      .not_after = 1900000000,
					      .roles = SM_ROLE_RELAY | SM_ROLE_ISSUER,
					      .group_count = 2,
					      .groups = {"db", "web"},
					      .address_count = 1,
					      .prefix_count = 1};
	assert_int_equal(sm_prefix_parse("10.7.0.2/24", &peer->identity.addresses[0]), 0);
	assert_int_equal(sm_prefix_parse("10.9.0.0/16", &peer->identity.prefixes[0]), 0);
	s = sm_status_peers(&bed.n[0].d);
	expect_whole(s);
	expect_text(s, "peers.0.addresses.0", "10.7.0.2/24");
	expect_number(s, "peers.0.certificate.not_after", 1900000000);
	expect_text(s, "peers.0.certificate.groups.0", "db");
	expect_text(s, "peers.0.certificate.groups.1", "web");
	expect_text(s, "peers.0.certificate.roles.0", "issuer");
	expect_text(s, "peers.0.certificate.roles.1", "relay");
	expect_text(s, "peers.0.certificate.prefixes.0", "10.9.0.0/16");
	json_decref(s);
	peer->has_identity = false;
}

/* Reasons that occurred and no others; the one without a name is called after its place. */
static void test_reasons(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	daemons_open(&bed, 0);
	d->closed_by_us[SM_CLOSE_NONE] = 3;
	d->closed_by_us[SM_CLOSE_REVOKED] = 1;
	d->closed_by_peer[SM_CLOSE_INTERNAL] = 2;
	s = sm_status_daemon(d, false);
	expect_number(s, "control.closed_by_us.lost", 3);
	expect_number(s, "control.closed_by_us.revoked", 1);
	assert_int_equal(json_object_size(at(s, "control.closed_by_us")), 2);
	assert_int_equal(json_object_size(at(s, "control.closed_by_peer")), 1);
	assert_int_equal(
		json_integer_value(json_object_get(at(s, "control.closed_by_peer"),
						   sm_close_reason_name(SM_CLOSE_INTERNAL))),
		2);
	json_decref(s);
}

/* Endpoints as they stand in the configuration, IPv6 in brackets */
static void test_endpoints(void **state)
{
	struct sm_config_endpoints *e;
	json_t *s;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	daemons_open(&bed, 0);
	e = &bed.n[0].d.config->peers[0].endpoints;
	e->count = 3;
	e->endpoint[0] = (struct sm_config_endpoint){.host = "vpn.example.org", .port = 443};
	e->endpoint[1] = (struct sm_config_endpoint){
		.host = "2001:db8::1", .port = 9443, .addr.family = 6};
	e->endpoint[2] = (struct sm_config_endpoint){
		.host = "192.0.2.1", .port = 1, .addr.family = 4};
	s = sm_status_peers(&bed.n[0].d);
	expect_text(s, "peers.0.endpoints.0", "vpn.example.org:443");
	expect_text(s, "peers.0.endpoints.1", "[2001:db8::1]:9443");
	expect_text(s, "peers.0.endpoints.2", "192.0.2.1:1");
	json_decref(s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_alone),       TEST(test_all_names), TEST(test_connected),
		TEST(test_certificate), TEST(test_reasons),   TEST(test_endpoints),
	};

	return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}

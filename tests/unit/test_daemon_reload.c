// SPDX-License-Identifier: MIT
/*
 * Reloading a running daemon: what changes at once, what is only named, and that nothing changes when
 * anything is wrong.
 */
#include "daemons.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemons bed;
static char note[SM_CONFIG_RESTART_MAX + 64], error[SM_DAEMON_ERROR_MAX];

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

static int reload(void)
{
	return sm_reload(&bed.n[0].d, note, error);
}

static void expect_good(const char *wanted_note)
{
	if (reload())
		fail_msg("%s", error);
	assert_string_equal(note, wanted_note);
}

/* It fails with these words, and all is as before. */
static void expect_bad(int err, const char *part)
{
	const struct sm_daemon *d = &bed.n[0].d;
	const struct sm_credentials before = d->credentials;
	const struct sm_config_peer *peers = d->config->peers;
	const uint32_t peer_count = d->config->peer_count;
	const enum sm_log_level level = sm_log_get_level();
	const int got = reload();

	if (got != err || !strstr(error, part))
		fail_msg("%d: '%s'; wanted %d: '%s'", got, error, err, part);
	assert_string_equal(note, "");
	assert_ptr_equal(d->credentials.tls, before.tls);
	assert_ptr_equal(d->credentials.trust, before.trust);
	assert_ptr_equal(d->credentials.cert, before.cert);
	assert_ptr_equal(d->credentials.key, before.key);
	assert_ptr_equal(d->config->peers, peers);
	assert_int_equal(d->config->peer_count, peer_count);
	assert_int_equal(sm_log_get_level(), level);
}

static void open_first(struct daemons_conf conf)
{
	daemons_configure(&bed, 0, conf);
	daemons_open(&bed, 0);
}

static void test_nothing_changed(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	open_first(CONF(.dials = 1u << 1));
	for (unsigned i = 0; i < 20; i++)
		expect_good("");
	assert_string_equal(d->credentials.self.name, "n0");
	assert_int_equal(d->config->peer_count, 1);
	assert_false(daemons_logged(&bed, "error: "));
}

static void test_peers(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;
	const struct sm_peer *peer;

	(void)state;
	open_first(CONF(.peers = 1u << 1));
	assert_false(daemons_peer(&bed, 0, "n1")->has_endpoints);
	daemons_configure(&bed, 1, CONF(.peers = 1u << 0));
	daemons_open(&bed, 1);
	/* it may be dialled now, and there is another one */
	daemons_configure(&bed, 0, CONF(.peers = 1u << 2, .dials = 1u << 1));
	expect_good("");
	assert_true(daemons_peer(&bed, 0, "n1")->has_endpoints);
	assert_true(daemons_peer(&bed, 0, "n2")->configured);
	daemons_connect(&bed, 0, 1);
	/* the connected one is taken out: its key is pinned no more */
	daemons_configure(&bed, 0, CONF(.peers = 1u << 2));
	expect_good("");
	peer = sm_node_find_peer(d->node, "n1");
	assert_true(!peer || !peer->configured);
	assert_false(daemons_is_up(&bed, 0, "n1"));
	DAEMONS_UNTIL(&bed, !daemons_peer(&bed, 1, "n0")->active);
}

static void test_log_level(void **state)
{
	(void)state;
	open_first(CONF(.peers = 1u << 1));
	assert_int_equal(sm_log_get_level(), SM_LOG_INFO);
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1, .more = "[Log]\nLevel = debug\n"));
	expect_good("");
	assert_int_equal(sm_log_get_level(), SM_LOG_DEBUG);
	/* what the command line said stands above */
	bed.n[0].options.log_level_override = SM_LOG_DEBUG;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1, .more = "[Log]\nLevel = error\n"));
	expect_good("");
	assert_int_equal(sm_log_get_level(), SM_LOG_DEBUG);
	assert_int_equal(bed.n[0].d.config->log_level, SM_LOG_ERROR);
}

static void test_needs_restart(void **state)
{
	static const struct {
		const char *network, *interface, *note;
	} rows[] = {
		{NULL, "MTU = 1400\n", "[Interface] MTU changed and needs a restart"},
		{"Mode = tun\n", NULL, "[Network] Mode changed and needs a restart"},
		{"Policy = cnsa\n", NULL, "[Network] Policy changed and needs a restart"},
		{NULL, "Address = 10.7.0.1/24\nMTU = 1400\n",
		 "[Interface] Address, [Interface] MTU changed and needs a restart"},
		{NULL, NULL, ""},
	};
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	open_first(CONF(.peers = 1u << 1));
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		daemons_configure(&bed, 0,
				  CONF(.peers = 1u << 1, .network = rows[i].network,
				       .interface = rows[i].interface));
		expect_good(rows[i].note);
		/* said each time, for it is never taken */
		expect_good(rows[i].note);
		assert_int_equal(d->config->interface.mtu, 1500);
		assert_int_equal(d->config->network.mode, SM_MODE_TAP);
		assert_int_equal(d->config->network.policy, SM_CONFIG_POLICY_DEFAULT);
	}
}

static void test_bad_configuration(void **state)
{
	static const struct {
		const char *text;
		const char *error;
	} rows[] = {
		{"", "n0.conf"},
		{"[Network]\nName = bed\n", "n0.conf"},
		{"nonsense\n", "n0.conf:1"},
		{"[Network]\nName = bed\nFly = yes\n", "Fly"},
	};

	(void)state;
	open_first(CONF(.peers = 1u << 1));
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		daemons_write(&bed, "n0.conf", rows[i].text);
		expect_bad(-EINVAL, rows[i].error);
	}
	assert_int_equal(unlink(daemons_path(&bed, "n0.conf")), 0);
	expect_bad(-ENOENT, "n0.conf");
	/* the files that it names */
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	assert_int_equal(chmod(daemons_path(&bed, "n0.key"), 0644), 0);
	expect_bad(-EINVAL, "n0.key");
	assert_int_equal(chmod(daemons_path(&bed, "n0.key"), 0600), 0);
	expect_good("");
	daemons_write(&bed, "n0.key", "no key\n");
	expect_bad(-EBADMSG, "private key ");
}

static void test_other_kind_of_trust(void **state)
{
	(void)state;
	open_first(CONF(.peers = 1u << 1));
	daemons_configure(&bed, 0, CONF(.ca = true));
	expect_bad(-EINVAL, "do not change in a reload");
	daemons_close(&bed, 0);
	daemons_open(&bed, 0);
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1));
	expect_bad(-EINVAL, "do not change in a reload");
}

static void test_other_identity(void **state)
{
	(void)state;
	open_first(CONF(.ca = true));
	daemons_certify(&bed, 0, "other", sm_clock_wall_s() + 90 * PKI_DAY_S);
	expect_bad(-EINVAL, "the certificate is for other now, this daemon runs as n0");
	daemons_certify(&bed, 0, "n0", sm_clock_wall_s() + 90 * PKI_DAY_S);
	expect_good("");
	/* another name in pinned mode; the same name in another network */
	daemons_close(&bed, 0);
	open_first(CONF(.peers = 1u << 1));
	daemons_configure(&bed, 0,
			  CONF(.peers = 1u << 1,
			       .network = "NetworkId = 000102030405060708090a0b0c0d0e0f\n"));
	expect_bad(-EINVAL, "this daemon runs as n0");
}

/* A new certificate reaches the peer, over a connection that replaces the old one. */
static void test_renewal(void **state)
{
	const int64_t until_s = sm_clock_wall_s() + 300 * PKI_DAY_S;
	const struct sm_peer *peer;

	(void)state;
	daemons_configure(&bed, 1, CONF(.ca = true));
	daemons_open(&bed, 1);
	open_first(CONF(.ca = true, .dials = 1u << 1));
	daemons_connect(&bed, 0, 1);
	daemons_certify(&bed, 0, "n0", until_s);
	expect_good("");
	assert_int_equal(bed.n[0].d.credentials.self.not_after, until_s);
	peer = daemons_peer(&bed, 1, "n0");
	DAEMONS_UNTIL(&bed, peer->identity.not_after == until_s);
	daemons_connect(&bed, 0, 1);
	/* one that expires within a month is taken, with a warning */
	daemons_certify(&bed, 0, "n0", sm_clock_wall_s() + 3 * PKI_DAY_S);
	expect_good("");
	assert_true(daemons_logged(&bed, "warn: our certificate expires in "));
}

static void test_revocation(void **state)
{
	(void)state;
	daemons_revoke(&bed, DAEMONS_MAX, 5);
	daemons_configure(&bed, 1, CONF(.ca = true));
	daemons_open(&bed, 1);
	open_first(CONF(.ca = true, .crl = true, .dials = 1u << 1));
	daemons_connect(&bed, 0, 1);
	/* an older list, or none any more, would forget what was revoked */
	daemons_revoke(&bed, DAEMONS_MAX, 4);
	expect_bad(-ESTALE, "4");
	daemons_configure(&bed, 0, CONF(.ca = true, .dials = 1u << 1));
	expect_bad(-ESTALE, "");
	assert_true(daemons_is_up(&bed, 0, "n1"));
	/* the next one ends the connection at once */
	daemons_configure(&bed, 0, CONF(.ca = true, .crl = true, .dials = 1u << 1));
	daemons_revoke(&bed, 1, 6);
	expect_good("");
	assert_false(daemons_is_up(&bed, 0, "n1"));
	assert_int_equal(bed.n[0].d.closed_by_us[SM_CLOSE_REVOKED], 1);
	/* and new handshakes are judged by it */
	DAEMONS_UNTIL(&bed, sm_conn_set_counts(bed.n[0].d.conns)->dial_refused[SM_CLOSE_REVOKED]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_changed),   TEST(test_peers),
		TEST(test_log_level),         TEST(test_needs_restart),
		TEST(test_bad_configuration), TEST(test_other_kind_of_trust),
		TEST(test_other_identity),    TEST(test_renewal),
		TEST(test_revocation),
	};

	return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}

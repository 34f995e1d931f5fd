// SPDX-License-Identifier: MIT
/*
 * The control thread: whole daemons that meet over loopback, what they log and count, how they start and
 * how they end.
 */
#include "daemons.h"

#include "planes.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
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

/* Frames of one to the other, through all of both */
static void test_connect(void **state)
{
	uint8_t frame[200], got[PLANES_FRAME_MAX];
	const struct sm_conn_counts *counts;
	const struct sm_handshake *h;
	uint32_t len;

	(void)state;
	daemons_open_pair(&bed, CONF(), CONF());
	assert_true(daemons_logged(&bed, "notice: peer n1 is connected: data at 127."));
	assert_true(daemons_logged(&bed, "notice: peer n0 is connected: data at 127."));
	assert_true(daemons_logged(&bed, "handshake SecP384r1MLKEM1024 with mldsa87 in "));
	for (unsigned i = 0; i < 2; i++) {
		struct daemon *from = &bed.n[i], *to = &bed.n[!i];

		h = &from->d.ports[1].handshake;
		assert_true(h->known);
		assert_string_equal(h->group, "SecP384r1MLKEM1024");
		assert_string_equal(h->signature, "mldsa87");
		assert_true(h->bytes_in > 10000 && h->bytes_out > 10000);
		assert_true(h->work_us > 0 && h->us >= h->work_us / 2);
		planes_frame(frame, sm_mac_to_u64(to->d.mac.b), sm_mac_to_u64(from->d.mac.b), i,
			     sizeof(frame));
		tap_put(from->tap, frame, sizeof(frame));
		len = tap_get(to->tap, got, sizeof(got), 5000);
		assert_int_equal(len, sizeof(frame));
		assert_int_equal(planes_frame_number(got, len), i);
	}
	counts = sm_conn_set_counts(bed.n[1].d.conns);
	assert_int_equal(counts->accepted, 1);
	assert_int_equal(counts->open, 1);
	daemons_close(&bed, 0);
	DAEMONS_UNTIL(&bed, daemons_logged(&bed, "notice: peer n0: closed by the peer: shutdown"));
	assert_int_equal(bed.n[1].d.closed_by_peer[SM_CLOSE_SHUTDOWN], 1);
	assert_false(daemons_is_up(&bed, 1, "n0"));
	assert_true(sm_list_empty(&bed.n[1].d.handles));
}

/* Pulls the plug of the connection that was dialled to @to */
static void break_connection(const struct daemon *to)
{
	struct sockaddr_storage sa;
	struct sm_addr wanted, remote;
	unsigned broken = 0;

	assert_int_equal(sm_addr_parse(to->address, DAEMONS_PORT, &wanted), 0);
	for (int fd = 0; fd < 256; fd++) {
		socklen_t len = sizeof(sa);

		if (getpeername(fd, (struct sockaddr *)&sa, &len) ||
		    sm_addr_from_sockaddr((const struct sockaddr *)&sa, &remote) ||
		    !sm_addr_equal(&remote, &wanted))
			continue;
		assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
		broken++;
	}
	assert_int_equal(broken, 1);
}

/* A connection that breaks is no reason to end a session, and is made anew. */
static void test_link_lost(void **state)
{
	const struct sm_conn_counts *counts;

	(void)state;
	daemons_open_pair(&bed, CONF(), CONF());
	counts = sm_conn_set_counts(bed.n[1].d.conns);
	break_connection(&bed.n[1]);
	DAEMONS_UNTIL(&bed, daemons_logged(&bed, "notice: peer n0: control connection lost: "));
	assert_int_equal(bed.n[1].d.closed_by_us[SM_CLOSE_NONE] +
				 bed.n[1].d.closed_by_peer[SM_CLOSE_NONE],
			 1);
	assert_true(daemons_is_up(&bed, 1, "n0"));
	DAEMONS_UNTIL(&bed, counts->opened == 2 && counts->open == 1);
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 1, "n0")->live);
	assert_true(daemons_is_up(&bed, 0, "n1") && daemons_is_up(&bed, 1, "n0"));
}

/* The same failure is told once, however often it is tried. */
static void test_dial_fails(void **state)
{
	const struct sm_peer *peer;
	char want[160];

	(void)state;
	daemons_configure(&bed, 0, CONF(.dials = 2));
	daemons_open(&bed, 0); /* and nobody listens there */
	peer = daemons_peer(&bed, 0, "n1");
	DAEMONS_UNTIL(&bed, peer->attempts >= 3);
	snprintf(want, sizeof(want), "info: peer n1 at %s:%u: ", bed.n[1].address, DAEMONS_PORT);
	assert_int_equal(daemons_log_count(&bed, want), 1);
	assert_true(peer->last_error[0]);
	assert_int_equal(sm_conn_set_counts(bed.n[0].d.conns)->dial_failed, peer->attempts);
	assert_true(sm_list_empty(&bed.n[0].d.handles));
	/* it comes up: that is news, and so is the next failure */
	daemons_configure(&bed, 1, CONF(.peers = 1));
	daemons_open(&bed, 1);
	daemons_connect(&bed, 0, 1);
	daemons_log_clear(&bed);
	daemons_close(&bed, 1);
	DAEMONS_UNTIL(&bed, daemons_log_count(&bed, want) == 1);
}

static void test_refused(void **state)
{
	(void)state;
	daemons_configure(&bed, 0, CONF(.dials = 2));
	daemons_configure(&bed, 1, CONF(.peers = 4)); /* knows the third one only */
	daemons_open(&bed, 1);
	daemons_open(&bed, 0);
	DAEMONS_UNTIL(&bed, daemons_logged(&bed, "refused our certificate"));
	DAEMONS_UNTIL(&bed,
		      sm_conn_set_counts(bed.n[1].d.conns)->refused[SM_CLOSE_NOT_TRUSTED] == 1);
	assert_false(daemons_is_up(&bed, 0, "n1"));
	assert_null(sm_node_find_peer(bed.n[1].d.node, "n0"));
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 0, "n1")->state == SM_PEER_BACKOFF);
	assert_true(daemons_peer(&bed, 0, "n1")->refused);
}

static void test_mtu_differs(void **state)
{
	(void)state;
	daemons_open_pair(&bed, CONF(.interface = "MTU = 1400\n"), CONF());
	assert_true(daemons_logged(&bed, "warn: peer n1 has MTU 1500, this node 1400: "));
	assert_true(daemons_logged(&bed, "warn: peer n0 has MTU 1400, this node 1500: "));
}

static void test_ciphers(void **state)
{
	static const uint8_t aes = 1u << SM_CIPHER_AES256GCM,
			     chacha = 1u << SM_CIPHER_CHACHA20POLY1305;
	const uint8_t by_machine = sm_crypto_has_aes() ? SM_CIPHER_AES256GCM
						       : SM_CIPHER_CHACHA20POLY1305;
	const struct {
		const char *text;
		uint8_t mask, preferred;
	} rows[] = {
		{"", aes | chacha, by_machine},
		{"Cipher = aes-256-gcm\n", aes, SM_CIPHER_AES256GCM},
		{"Cipher = chacha20-poly1305\n", chacha, SM_CIPHER_CHACHA20POLY1305},
		{"Policy = cnsa\n", aes, SM_CIPHER_AES256GCM},
		{"Policy = cnsa\nCipher = aes-256-gcm\n", aes, SM_CIPHER_AES256GCM},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		daemons_configure(&bed, 0, CONF(.peers = 2, .network = rows[i].text));
		daemons_open(&bed, 0);
		assert_int_equal(bed.n[0].d.node->config.ciphers, rows[i].mask);
		assert_int_equal(bed.n[0].d.node->config.preferred, rows[i].preferred);
		daemons_close(&bed, 0);
	}
}

/* Both ends choose ChaCha20, if one of them must */
static void test_cipher_agreed(void **state)
{
	(void)state;
	daemons_open_pair(&bed, CONF(.network = "Cipher = chacha20-poly1305\n"), CONF());
	assert_int_equal(daemons_log_count(&bed, "ChaCha20-Poly1305, handshake"), 2);
}

static void test_port_taken(void **state)
{
	char error[SM_DAEMON_ERROR_MAX] = "", want[128];
	struct sm_daemon *d = &bed.n[0].d;
	struct sm_addr taken;
	struct sockaddr_storage sa;
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len;

	(void)state;
	assert_int_equal(sm_addr_parse(bed.n[0].address, DAEMONS_PORT, &taken), 0);
	len = sm_addr_to_sockaddr(&taken, false, &sa);
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_load(&bed, 0);
	assert_int_equal(sm_control_open(d, error), -EADDRINUSE);
	snprintf(want, sizeof(want), "TCP port %u is taken by ", DAEMONS_PORT);
	assert_memory_equal(error, want, strlen(want));
	assert_non_null(strstr(error, "choose another ControlPort"));
	close(fd);
	daemons_close(&bed, 0);
}

static void test_listen(void **state)
{
	static const struct {
		const char *address;
		int err;
	} rows[] = {{"192.0.2.1", -EADDRNOTAVAIL}, {"2001:db8::1", -EADDRNOTAVAIL}};
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char error[SM_DAEMON_ERROR_MAX] = "";
		struct sm_addr *second;
		int err;

		daemons_configure(&bed, 0, CONF(.peers = 2));
		daemons_load(&bed, 0);
		second = &d->config->transport.listen.addr[d->config->transport.listen.count++];
		assert_int_equal(sm_addr_parse(rows[i].address, 0, second), 0);
		err = sm_control_open(d, error);
		assert_true(err == rows[i].err || (second->family == 6 && err == -EAFNOSUPPORT));
		assert_non_null(strstr(error, "cannot listen on "));
		assert_non_null(strstr(error, rows[i].address));
		assert_int_equal(d->listening_count, 1);
		daemons_close(&bed, 0);
	}
	/* nowhere at all */
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_load(&bed, 0);
	d->config->transport.control_port = 0;
	assert_int_equal(sm_control_open(d, (char[SM_DAEMON_ERROR_MAX]){0}), 0);
	assert_int_equal(d->listening_count, 0);
	assert_int_equal(d->node->config.control_port, 0);
}

static void test_too_many_peers(void **state)
{
	char error[SM_DAEMON_ERROR_MAX] = "";
	struct sm_daemon *d = &bed.n[0].d;
	struct sm_config_peer *peers;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_load(&bed, 0);
	peers = calloc(SM_PORT_MAX, sizeof(*peers));
	assert_non_null(peers);
	for (uint32_t i = 0; i < SM_PORT_MAX; i++)
		snprintf(peers[i].name, sizeof(peers[i].name), "p%u", i);
	free(d->config->peers);
	d->config->peers = peers;
	d->config->peer_count = SM_PORT_MAX; /* one port is this node's own */
	assert_int_equal(sm_control_open(d, error), -ENOSPC);
	assert_string_equal(error, "too many peers");
}

static void test_recheck(void **state)
{
	struct sm_trust *fresh;

	(void)state;
	daemons_configure(&bed, 0, CONF(.ca = true, .dials = 2));
	daemons_configure(&bed, 1, CONF(.ca = true));
	daemons_open(&bed, 1);
	daemons_open(&bed, 0);
	daemons_connect(&bed, 0, 1);
	sm_control_recheck(&bed.n[1].d);
	assert_true(daemons_is_up(&bed, 1, "n0"));
	fresh = pki_trust(&bed.pki);
	pki_revoke(&bed.pki, &bed.n[0].identity, sm_clock_wall_s(), fresh);
	sm_trust_unref(bed.n[1].d.credentials.trust);
	bed.n[1].d.credentials.trust = fresh;
	sm_control_recheck(&bed.n[1].d);
	assert_false(daemons_is_up(&bed, 1, "n0"));
	assert_int_equal(bed.n[1].d.closed_by_us[SM_CLOSE_REVOKED], 1);
	assert_true(daemons_logged(&bed, "warn: peer n0: closed by us: revoked"));
	DAEMONS_UNTIL(&bed, bed.n[0].d.closed_by_peer[SM_CLOSE_REVOKED] == 1);
	assert_false(daemons_is_up(&bed, 0, "n1"));
}

/* Both dial at once: one connection survives, and nobody logs it as a fault. */
static void test_both_dial(void **state)
{
	const struct sm_conn_counts *counts[2];

	(void)state;
	daemons_open_pair(&bed, CONF(.more = "[Log]\nLevel = debug\n"), CONF(.dials = 1u << 0));
	for (unsigned i = 0; i < 2; i++)
		counts[i] = sm_conn_set_counts(bed.n[i].d.conns);
	DAEMONS_UNTIL(&bed, counts[0]->open == 1 && counts[1]->open == 1 && !counts[0]->dialling &&
				    !counts[1]->dialling && !counts[0]->unfinished &&
				    !counts[1]->unfinished);
	assert_true(daemons_is_up(&bed, 0, "n1") && daemons_is_up(&bed, 1, "n0"));
	assert_false(daemons_logged(&bed, "warn: "));
}

/* What the node tells its host: counted, and logged in these words */
static void test_events(void **state)
{
	static const struct {
		struct sm_node_event event;
		const char *line;
		uint64_t by_us, by_peer; /* closed for this reason */
	} rows[] = {
		{{.type = SM_NODE_REFUSED, .reason = SM_CLOSE_LIMIT, .text = "eve"},
		 "warn: refused eve (limit)",
		 1,
		 0},
		{{.type = SM_NODE_PROTOCOL, .text = "half a message"},
		 "warn: peer n1: half a message",
		 0,
		 0},
		{{.type = SM_NODE_PATH_MOVED,
		  .addr = {.family = 4, .ip = {192, 0, 2, 1}, .port = 7}},
		 "notice: peer n1 moved to 192.0.2.1:7",
		 0,
		 0},
		{{.type = SM_NODE_PEER_STATE, .from = SM_PEER_UP, .to = SM_PEER_SILENT},
		 "warn: peer n1 is silent: probing",
		 0,
		 0},
		{{.type = SM_NODE_PEER_STATE, .from = SM_PEER_SILENT, .to = SM_PEER_UP},
		 "notice: peer n1 answers again",
		 0,
		 0},
		{{.type = SM_NODE_LINK_CLOSED,
		  .reason = SM_CLOSE_MODE,
		  .by_peer = true,
		  .text = "tun"},
		 "warn: peer n1: closed by the peer: mode: tun",
		 0,
		 1},
		{{.type = SM_NODE_LINK_CLOSED, .reason = SM_CLOSE_MODE, .text = ""},
		 "warn: peer n1: closed by us: mode\n",
		 1,
		 0},
		{{.type = SM_NODE_LINK_CLOSED, .reason = SM_CLOSE_DUPLICATE, .text = ""},
		 NULL,
		 1,
		 0},
		/* a reason of a version to come */
		{{.type = SM_NODE_LINK_CLOSED, .reason = 999, .by_peer = true, .text = "x"},
		 "warn: peer n1: closed by the peer: unknown: x",
		 0,
		 1},
	};
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_open(&bed, 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_node_event e = rows[i].event;
		const unsigned reason = e.reason < SM_CLOSE_REASON_COUNT ? e.reason : SM_CLOSE_NONE;

		if (e.type != SM_NODE_REFUSED)
			e.peer = daemons_peer(&bed, 0, "n1");
		memset(d->closed_by_us, 0, sizeof(d->closed_by_us));
		memset(d->closed_by_peer, 0, sizeof(d->closed_by_peer));
		daemons_log_clear(&bed);
		d->node->ops.event(d, &e);
		if (rows[i].line ? !daemons_logged(&bed, rows[i].line) : bed.log_len)
			fail_msg("row %zu: '%s'", i, bed.log);
		assert_int_equal(d->closed_by_us[reason], rows[i].by_us);
		assert_int_equal(d->closed_by_peer[reason], rows[i].by_peer);
	}
}

/* A peer that goes on and on fills no journal: ten lines, then a few a minute. */
static void test_log_is_limited(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;
	struct sm_node_event e = {.type = SM_NODE_PROTOCOL, .text = "nonsense"};

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 6));
	daemons_open(&bed, 0);
	e.peer = daemons_peer(&bed, 0, "n1");
	for (unsigned i = 0; i < 500; i++)
		d->node->ops.event(d, &e);
	assert_in_range(daemons_log_count(&bed, "warn: peer n1: nonsense"), 10, 20);
	/* another peer's lines are not swallowed for it */
	e.peer = daemons_peer(&bed, 0, "n2");
	d->node->ops.event(d, &e);
	assert_int_equal(daemons_log_count(&bed, "warn: peer n2: nonsense"), 1);
	/* when there is room again, the next one says how many are missing */
	e.peer = daemons_peer(&bed, 0, "n1");
	d->ports[daemons_peer(&bed, 0, "n1")->port].log_limit.tokens_milli = 5000;
	d->node->ops.event(d, &e);
	assert_true(daemons_logged(&bed, " such lines left out)"));
}

/* Now and then: certificates are looked at again, and the service manager hears how it is. */
static void test_housekeeping(void **state)
{
	struct sm_daemon *d;
	char text[256] = "";
	bool status = false, watchdog = false;
	int pair[2];

	(void)state;
	daemons_open_pair(&bed, CONF(.peers = 1u << 2), CONF());
	d = &bed.n[0].d;
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	d->notify.fd = pair[1];
	uv_timer_set_repeat(&d->housekeeping, 10);
	assert_int_equal(uv_timer_again(&d->housekeeping), 0);
	while (!status || !watchdog) {
		ssize_t n;

		DAEMONS_UNTIL(&bed, (n = recv(pair[0], text, sizeof(text) - 1, 0)) > 0);
		text[n] = '\0';
		status |= !strcmp(text, "STATUS=bed: 1 of 2 peers up");
		watchdog |= !strcmp(text, "WATCHDOG=1");
	}
	/* who is not trusted any more is put out by it */
	sm_trust_unref(d->credentials.trust);
	assert_int_equal(sm_trust_new(d->credentials.self.network_id, &d->credentials.trust), 0);
	DAEMONS_UNTIL(&bed, !daemons_is_up(&bed, 0, "n1"));
	assert_int_equal(d->closed_by_us[SM_CLOSE_NOT_TRUSTED], 1);
	d->notify.fd = -1;
	close(pair[0]);
	close(pair[1]);
}

static void test_signals(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_open(&bed, 0);
	kill(getpid(), SIGHUP);
	DAEMONS_UNTIL(&bed, daemons_logged(&bed, "notice: reloaded\n"));
	daemons_write(&bed, "n0.conf", "[Network]\n");
	kill(getpid(), SIGHUP);
	DAEMONS_UNTIL(&bed, daemons_logged(&bed, "error: reload failed, nothing has changed: "));
	assert_non_null(sm_node_find_peer(d->node, "n1"));
	assert_false(d->stopping);
	kill(getpid(), SIGTERM);
	sm_control_run(d); /* until then */
	assert_true(d->stopping);
	assert_false(d->failed);
	assert_true(daemons_logged(&bed, "notice: ending on signal 15"));
}

static void test_tap_gone(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 2));
	daemons_open(&bed, 0);
	close(bed.n[0].tap);
	bed.n[0].tap = -1;
	sm_control_run(d);
	assert_true(d->failed);
	assert_true(daemons_logged(&bed, "error: interface n0 is gone: "));
}

/* Taken down half-built, at each step of starting */
static void test_close_early(void **state)
{
	struct sm_daemon *d = &bed.n[0].d;

	(void)state;
	daemons_configure(&bed, 0, CONF(.dials = 2));
	daemons_load(&bed, 0);
	daemons_close(&bed, 0); /* nothing but the machine */
	daemons_open(&bed, 0);
	daemons_close(&bed, 0); /* no turn */
	for (unsigned turns = 1; turns < 100; turns += 30) {
		daemons_open(&bed, 0);
		for (unsigned i = 0; i < turns; i++)
			daemons_turn(&bed);
		daemons_close(&bed, 0);
		assert_null(d->node);
		assert_null(d->plane);
		assert_null(d->conns);
		assert_null(d->ports);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_connect),       TEST(test_link_lost),      TEST(test_dial_fails),
		TEST(test_refused),       TEST(test_mtu_differs),    TEST(test_ciphers),
		TEST(test_cipher_agreed), TEST(test_port_taken),     TEST(test_listen),
		TEST(test_recheck),       TEST(test_too_many_peers), TEST(test_signals),
		TEST(test_both_dial),     TEST(test_events),         TEST(test_log_is_limited),
		TEST(test_housekeeping),  TEST(test_tap_gone),       TEST(test_close_early),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Control connections over loopback: two sets in one loop, and raw sockets that misbehave.
 */
#include "daemon/conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "crypto/crypto.h"
#include "pki.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define RAW_MAX 600

static struct pki net;
static struct pki_node alice, bob, mallory;
static struct sm_trust *trust;
static struct sm_tls_config *alice_config, *bob_config, *mallory_config;
static unsigned log_lines;

static void count_log(void *arg, enum sm_log_level level, const char *text)
{
	(void)arg;
	(void)text;
	if (level <= SM_LOG_WARN)
		log_lines++;
}

/* In the place of libuv's: the next so many sockets find no memory */
static unsigned no_memory;

int uv_tcp_init(uv_loop_t *loop, uv_tcp_t *tcp)
{
	if (no_memory) {
		no_memory--;
		return UV_ENOMEM;
	}
	return uv_tcp_init_ex(loop, tcp, AF_UNSPEC);
}

/* ---- Two sides in one loop ---- */

struct side {
	struct sm_conn_set *set;
	struct sm_conn *conn; /* the newest open one */
	unsigned opens, closes;
	int err; /* of the last on_closed() */
	enum sm_close_reason reason;
	char text[SM_TLS_ERROR_MAX];
	uint8_t secret[SM_ROOT_SECRET_LEN];
	char peer[SM_NAME_MAX + 1];
	uint64_t handshake_us, work_us, bytes_in, bytes_out;
	bool client;
	size_t received;
	bool in_order; /* each byte received is the number of it */
	bool echo, close_on_open, close_on_data;
};

struct bed {
	uv_loop_t loop;
	uv_timer_t pulse;
	struct side server, client;
	struct sm_addr addr;
	int raw[RAW_MAX];
	unsigned raw_count;
};

static void on_open(void *arg, struct sm_conn *conn, const struct sm_conn_info *info)
{
	struct side *side = arg;

	side->opens++;
	side->conn = conn;
	side->client = info->client;
	memcpy(side->secret, info->root_secret, sizeof(side->secret));
	snprintf(side->peer, sizeof(side->peer), "%s", info->peer->name);
	assert_string_equal(info->group, "SecP384r1MLKEM1024");
	assert_string_equal(info->signature, "mldsa87");
	side->handshake_us = info->handshake_us;
	side->work_us = info->work_us;
	side->bytes_in = info->bytes_in;
	side->bytes_out = info->bytes_out;
	if (side->close_on_open) {
		side->conn = NULL;
		sm_conn_close(conn, true);
	}
}

static void on_data(void *arg, struct sm_conn *conn, const uint8_t *data, size_t len)
{
	struct side *side = arg;

	for (size_t i = 0; i < len; i++)
		side->in_order &= data[i] == (uint8_t)(side->received + i);
	side->received += len;
	if (side->echo)
		assert_int_equal(sm_conn_send(conn, data, len), 0);
	if (side->close_on_data) {
		side->conn = NULL;
		sm_conn_close(conn, false);
	}
}

static void on_closed(void *arg, struct sm_conn *conn, int err, enum sm_close_reason reason,
		      const char *text)
{
	struct side *side = arg;

	side->closes++;
	side->err = err;
	side->reason = reason;
	snprintf(side->text, sizeof(side->text), "%s", text);
	if (side->conn == conn)
		side->conn = NULL;
	assert_int_equal(sm_conn_send(conn, "x", 1), -ENOTCONN);
	sm_conn_close(conn, true); /* harmless */
}

/* 127.0.0.1 is a peer's, 127.0.0.2 a stranger's */
static bool known(void *arg, const struct sm_addr *addr)
{
	(void)arg;
	return addr->ip[3] == 1;
}

static void on_pulse(uv_timer_t *timer)
{
	(void)timer;
}

static const struct sm_conn_events events = {on_open, on_data, on_closed, known};

static void bed_init(struct bed *bed, const struct sm_conn_limits *limits,
		     struct sm_tls_config *server, struct sm_tls_config *client)
{
	struct sm_addr any;

	memset(bed, 0, sizeof(*bed));
	bed->server.in_order = bed->client.in_order = true;
	assert_int_equal(uv_loop_init(&bed->loop), 0);
	uv_timer_init(&bed->loop, &bed->pulse);
	uv_timer_start(&bed->pulse, on_pulse, 5, 5);
	assert_int_equal(sm_conn_set_new(&bed->loop, server, limits, &events, &bed->server,
					 &bed->server.set),
			 0);
	assert_int_equal(sm_conn_set_new(&bed->loop, client, limits, &events, &bed->client,
					 &bed->client.set),
			 0);
	assert_int_equal(sm_addr_parse("127.0.0.1", 0, &any), 0);
	assert_int_equal(sm_conn_listen(bed->server.set, &any, &bed->addr), 0);
	assert_int_not_equal(bed->addr.port, 0);
}

static void bed_done(struct bed *bed)
{
	for (unsigned i = 0; i < bed->raw_count; i++)
		close(bed->raw[i]);
	sm_conn_set_stop(bed->server.set);
	sm_conn_set_stop(bed->client.set);
	uv_close((uv_handle_t *)&bed->pulse, NULL);
	assert_int_equal(uv_run(&bed->loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(sm_conn_set_counts(bed->server.set)->open, 0);
	assert_int_equal(sm_conn_set_counts(bed->server.set)->unfinished, 0);
	assert_int_equal(sm_conn_set_counts(bed->client.set)->dialling, 0);
	sm_conn_set_free(bed->server.set);
	sm_conn_set_free(bed->client.set);
	assert_int_equal(uv_loop_close(&bed->loop), 0);
}

/* Turn the loop until the condition holds, 20 s at most */
#define UNTIL(bed, condition)                                          \
	do {                                                           \
		uint64_t end_us_ = sm_clock_now_us() + 20 * SM_SEC_US; \
		while (!(condition)) {                                 \
			if (sm_clock_now_us() > end_us_)               \
				fail_msg("never: %s", #condition);     \
			uv_run(&(bed)->loop, UV_RUN_ONCE);             \
		}                                                      \
	} while (0)

static void turn(struct bed *bed, uint64_t us)
{
	uint64_t end_us = sm_clock_now_us() + us;

	while (sm_clock_now_us() < end_us)
		uv_run(&bed->loop, UV_RUN_ONCE);
}

static const struct sm_conn_counts *counts(const struct bed *bed)
{
	return sm_conn_set_counts(bed->server.set);
}

static struct sm_conn *dial(struct bed *bed)
{
	struct sm_conn *conn;

	assert_int_equal(sm_conn_dial(bed->client.set, &bed->addr, false, bed, &conn), 0);
	assert_ptr_equal(sm_conn_owner(conn), bed);
	return conn;
}

static int raw_socket(const char *source)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(inet_pton(AF_INET, source, &sa.sin_addr), 1);
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void raw_connect(struct bed *bed, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sm_addr_to_sockaddr(&bed->addr, false, &sa);

	assert_int_equal(connect(fd, (const struct sockaddr *)&sa, len), 0);
}

static int raw_dial(struct bed *bed, const char *source)
{
	int fd = raw_socket(source);

	assert_true(bed->raw_count < RAW_MAX);
	bed->raw[bed->raw_count++] = fd;
	raw_connect(bed, fd);
	return fd;
}

/* A valid ClientHello, and nothing more */
static void raw_greet(int fd)
{
	uint8_t buf[4096];
	struct sm_tls *tls;
	size_t n;

	assert_int_equal(sm_tls_new(alice_config, true, &tls), 0);
	assert_int_equal(sm_tls_handshake(tls, sm_clock_wall_s()), 0);
	n = sm_tls_output(tls, buf, sizeof(buf));
	assert_int_equal(write(fd, buf, n), (ssize_t)n);
	sm_tls_free(tls);
}

/* Return: true if the other side has ended it */
static bool raw_ended(int fd)
{
	uint8_t buf[32768];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		;
	return n == 0 || errno != EAGAIN;
}

static int set_up(void **state)
{
	int64_t now = sm_clock_wall_s();
	struct pki other;

	(void)state;
	assert_int_equal(sm_crypto_init(), 0);
	sm_log_set_sink(count_log, NULL);
	pki_init(&net, 0xaa, now);
	pki_init(&other, 0xaa, now);
	pki_issue(&net, "alice", now - PKI_DAY_S, now + PKI_DAY_S, &alice);
	pki_issue(&net, "bob", now - PKI_DAY_S, now + PKI_DAY_S, &bob);
	pki_issue(&other, "mallory", now - PKI_DAY_S, now + PKI_DAY_S, &mallory);
	trust = pki_trust(&net);
	alice_config = pki_config(&alice, trust, SM_POLICY_DEFAULT, NULL);
	bob_config = pki_config(&bob, trust, SM_POLICY_DEFAULT, NULL);
	mallory_config = pki_config(&mallory, trust, SM_POLICY_DEFAULT, NULL);
	pki_done(&other);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sm_tls_config_unref(alice_config);
	sm_tls_config_unref(bob_config);
	sm_tls_config_unref(mallory_config);
	sm_trust_unref(trust);
	pki_node_done(&alice);
	pki_node_done(&bob);
	pki_node_done(&mallory);
	pki_done(&net);
	sm_log_set_sink(NULL, NULL);
	return 0;
}

/* ---- Going well ---- */

static void test_open(void **state)
{
	static uint8_t data[300000];
	struct bed bed;
	struct sm_conn *conn;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	bed_init(&bed, NULL, bob_config, alice_config);
	bed.server.echo = true;
	conn = dial(&bed);
	assert_false(sm_conn_is_open(conn));
	assert_true(sm_conn_is_client(conn));
	assert_int_equal(sm_conn_send(conn, "x", 1), -ENOTCONN);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	assert_ptr_equal(bed.client.conn, conn);
	assert_true(bed.client.client && !bed.server.client);
	assert_string_equal(bed.client.peer, "bob");
	assert_string_equal(bed.server.peer, "alice");
	assert_memory_equal(bed.client.secret, bed.server.secret, SM_ROOT_SECRET_LEN);
	assert_int_equal(bed.client.bytes_in, bed.server.bytes_out);
	assert_int_equal(bed.client.bytes_out, bed.server.bytes_in);
	assert_true(sm_addr_equal(sm_conn_remote(conn), &bed.addr));
	assert_true(sm_addr_equal(sm_conn_local(conn), sm_conn_remote(bed.server.conn)));
	assert_true(sm_addr_equal(sm_conn_local(bed.server.conn), &bed.addr));
	print_message("handshake: client %llu us (%llu working), %llu bytes out; server %llu us "
		      "(%llu working), %llu bytes out\n",
		      (unsigned long long)bed.client.handshake_us,
		      (unsigned long long)bed.client.work_us,
		      (unsigned long long)bed.client.bytes_out,
		      (unsigned long long)bed.server.handshake_us,
		      (unsigned long long)bed.server.work_us,
		      (unsigned long long)bed.server.bytes_out);
	for (size_t i = 0; i < sizeof(data); i += 100000)
		assert_int_equal(sm_conn_send(conn, data + i, 100000), 0);
	UNTIL(&bed, bed.client.received == sizeof(data));
	assert_true(bed.client.in_order && bed.server.in_order);

	/* last bytes arrive, then the end */
	bed.server.echo = false;
	assert_int_equal(sm_conn_send(conn, data, 224), 0);
	sm_conn_close(conn, true);
	UNTIL(&bed, bed.server.closes == 1);
	assert_int_equal(bed.server.received, sizeof(data) + 224);
	assert_int_equal(bed.server.err, -ECONNRESET);
	assert_int_equal(bed.server.reason, SM_CLOSE_NONE);
	assert_int_equal(bed.client.closes, 0);
	assert_int_equal(counts(&bed)->opened, 1);
	assert_int_equal(counts(&bed)->open, 0);
	assert_int_equal(counts(&bed)->unfinished, 0);
	bed_done(&bed);
}

/* The size of segments is settled for both directions by the one who dials. */
static void test_narrow(void **state)
{
	(void)state;
	for (int narrow = 0; narrow <= 1; narrow++) {
		struct sockaddr_storage sa;
		struct sm_conn *conn;
		struct bed bed;
		int listener = raw_socket("127.0.0.3"), fd, mss = 0;
		socklen_t len = sizeof(sa);

		bed_init(&bed, NULL, bob_config, alice_config);
		assert_int_equal(listen(listener, 1), 0);
		assert_int_equal(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
		assert_int_equal(sm_addr_from_sockaddr((const struct sockaddr *)&sa, &bed.addr), 0);
		assert_int_equal(sm_conn_dial(bed.client.set, &bed.addr, narrow, &bed, &conn), 0);
		fd = accept(listener, NULL, NULL);
		assert_true(fd >= 0);
		len = sizeof(mss);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &len), 0);
		if (narrow)
			assert_in_range(mss, 1000, SM_PATH_MTU_MIN - 60);
		else
			assert_true(mss > (int)SM_PATH_MTU_MIN);
		close(fd);
		close(listener);
		UNTIL(&bed, bed.client.closes == 1);
		bed_done(&bed);
	}
}

static void test_listen(void **state)
{
	struct sm_addr six, bound, any4, any6;
	struct bed bed;
	int err;

	(void)state;
	bed_init(&bed, NULL, bob_config, alice_config);
	assert_int_equal(sm_conn_listen(bed.server.set, &bed.addr, NULL), -EADDRINUSE);
	assert_int_equal(sm_conn_listen(bed.client.set, &bed.addr, NULL), -EADDRINUSE);
	assert_int_equal(sm_addr_parse("[::1]:0", 0, &six), 0);
	six.port = bed.addr.port;
	err = sm_conn_listen(bed.server.set, &six, &bound);
	if (err != -EADDRNOTAVAIL && err != -EAFNOSUPPORT) { /* a machine without IPv6 */
		assert_int_equal(err, 0);
		assert_true(sm_addr_equal(&six, &bound));
		bed.addr = six;
		dial(&bed);
		UNTIL(&bed, bed.client.conn && bed.server.conn);
		/* both wildcards bind one port */
		assert_int_equal(sm_addr_parse("0.0.0.0:0", 0, &any4), 0);
		assert_int_equal(sm_addr_parse("[::]:0", 0, &any6), 0);
		assert_int_equal(sm_conn_listen(bed.client.set, &any4, &any4), 0);
		any6.port = any4.port;
		assert_int_equal(sm_conn_listen(bed.client.set, &any6, NULL), 0);
		assert_int_equal(sm_conn_unlisten(bed.server.set, &six), 0);
		assert_int_equal(sm_conn_unlisten(bed.server.set, &six), -ENOENT);
	}
	bed_done(&bed);
}

static void test_new_config(void **state)
{
	struct bed bed;

	(void)state;
	bed_init(&bed, NULL, bob_config, mallory_config);
	dial(&bed);
	UNTIL(&bed, bed.client.closes == 1);
	sm_conn_set_config(bed.client.set, alice_config);
	bed.client.conn = NULL;
	dial(&bed);
	UNTIL(&bed, bed.server.conn);
	assert_string_equal(bed.server.peer, "alice");
	bed_done(&bed);
}

/* ---- Refusals and failures ---- */

static void test_refused(void **state)
{
	struct bed bed;

	(void)state;
	bed_init(&bed, NULL, bob_config, mallory_config);
	log_lines = 0;
	dial(&bed);
	UNTIL(&bed, bed.client.closes == 1);
	assert_int_equal(bed.client.err, -EPROTO);
	assert_int_equal(bed.client.reason, SM_CLOSE_NOT_TRUSTED);
	assert_non_null(strstr(bed.client.text, "refused our certificate"));
	assert_int_equal(bed.server.opens, 0);
	assert_int_equal(bed.server.closes, 0);
	assert_int_equal(counts(&bed)->refused[SM_CLOSE_NOT_TRUSTED], 1);
	assert_int_equal(log_lines, 1);
	bed_done(&bed);
}

static void test_dial_fails(void **state)
{
	struct sm_conn_limits limits = {.connect_timeout_us = 200 * SM_MSEC_US};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	struct bed bed;
	uint64_t start_us;
	int fd;

	(void)state;
	bed_init(&bed, &limits, bob_config, alice_config);
	assert_int_equal(sm_conn_unlisten(bed.server.set, &bed.addr), 0);
	turn(&bed, 20 * SM_MSEC_US);
	dial(&bed);
	assert_int_equal(bed.client.closes, 0); /* never from within */
	UNTIL(&bed, bed.client.closes == 1);
	assert_int_equal(bed.client.err, -ECONNREFUSED);
	assert_int_equal(bed.client.reason, SM_CLOSE_NONE);

	/* a listener whose queue is full answers nothing */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((const struct sockaddr *)&sa, &bed.addr), 0);
	raw_dial(&bed, "127.0.0.1");
	start_us = sm_clock_now_us();
	dial(&bed);
	UNTIL(&bed, bed.client.closes == 2);
	assert_int_equal(bed.client.err, -ETIMEDOUT);
	assert_int_equal(bed.client.reason, SM_CLOSE_TIMEOUT);
	assert_true(sm_clock_now_us() - start_us >= 200 * SM_MSEC_US);
	assert_int_equal(sm_conn_set_counts(bed.client.set)->dial_failed, 2);
	assert_int_equal(sm_conn_set_counts(bed.client.set)->dialling, 0);
	close(fd);
	bed_done(&bed);
}

static void test_garbage(void **state)
{
	static uint8_t flood[SM_HELLO_MAX + 1000] = {0x16, 0x03, 0x01, 0x00, 0x01, 0x01};
	struct bed bed;
	int fd;

	(void)state;
	bed_init(&bed, NULL, bob_config, alice_config);
	fd = raw_dial(&bed, "127.0.0.2");
	assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_PROTOCOL] == 1);
	UNTIL(&bed, raw_ended(fd));
	/* a greeting without end */
	for (size_t i = 6; i + 6 <= sizeof(flood); i += 6)
		memcpy(flood + i, "\x16\x03\x01\x00\x01\x00", 6);
	memcpy(flood + 6, "\x16\x03\x01\x00\x01\x00\x16\x03\x01\x00\x01\x3f", 12);
	fd = raw_dial(&bed, "127.0.0.2");
	assert_int_equal(write(fd, flood, sizeof(flood)), (ssize_t)sizeof(flood));
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_PROTOCOL] == 2);
	UNTIL(&bed, raw_ended(fd));
	/* a port scan */
	fd = raw_dial(&bed, "127.0.0.2");
	shutdown(fd, SHUT_WR);
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_NONE] == 1);
	UNTIL(&bed, counts(&bed)->unfinished == 0);
	bed_done(&bed);
}

static void test_deadlines(void **state)
{
	struct sm_conn_limits limits = {.hello_timeout_us = 150 * SM_MSEC_US,
					.handshake_timeout_us = 400 * SM_MSEC_US};
	struct bed bed;
	uint64_t start_us;
	int silent, greeted;

	(void)state;
	bed_init(&bed, &limits, bob_config, alice_config);
	start_us = sm_clock_now_us();
	silent = raw_dial(&bed, "127.0.0.2");
	greeted = raw_dial(&bed, "127.0.0.2");
	raw_greet(greeted);
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_TIMEOUT] == 1);
	assert_true(sm_clock_now_us() - start_us >= 150 * SM_MSEC_US);
	UNTIL(&bed, raw_ended(silent));
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_TIMEOUT] == 2);
	assert_true(sm_clock_now_us() - start_us >= 400 * SM_MSEC_US);
	UNTIL(&bed, raw_ended(greeted));
	assert_int_equal(counts(&bed)->unfinished, 0);
	/* an open connection has no deadline */
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	turn(&bed, 700 * SM_MSEC_US);
	assert_int_equal(bed.client.closes + bed.server.closes, 0);
	bed_done(&bed);
}

/* ---- Limits ---- */

static void test_per_source(void **state)
{
	struct sm_conn_limits limits = {.unfinished_per_source = 4};
	struct bed bed;
	unsigned ended = 0;

	(void)state;
	bed_init(&bed, &limits, bob_config, alice_config);
	for (unsigned i = 0; i < 12; i++)
		raw_dial(&bed, "127.0.0.2");
	UNTIL(&bed, counts(&bed)->accepted == 12);
	assert_int_equal(counts(&bed)->unfinished, 4);
	assert_int_equal(counts(&bed)->refused[SM_CLOSE_LIMIT], 8);
	turn(&bed, 50 * SM_MSEC_US);
	for (unsigned i = 0; i < 12; i++)
		ended += raw_ended(bed.raw[i]);
	assert_int_equal(ended, 8);
	assert_true(raw_ended(bed.raw[0])); /* the oldest silent one made room */
	assert_false(raw_ended(bed.raw[11]));
	/* who is at work is not thrown out for a newcomer from there */
	for (unsigned i = 8; i < 12; i++)
		raw_greet(bed.raw[i]);
	turn(&bed, 200 * SM_MSEC_US);
	raw_dial(&bed, "127.0.0.2");
	UNTIL(&bed, counts(&bed)->refused[SM_CLOSE_LIMIT] == 9);
	UNTIL(&bed, raw_ended(bed.raw[12]));
	assert_false(raw_ended(bed.raw[8]));
	/* and nobody else minds */
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	bed_done(&bed);
}

static void test_total(void **state)
{
	struct sm_conn_limits limits = {.unfinished_max = 8, .unfinished_per_source = 1000};
	struct bed bed;

	(void)state;
	bed_init(&bed, &limits, bob_config, alice_config);
	/* a crowd of silent strangers costs six places and locks nobody out */
	for (unsigned i = 0; i < 500; i++) {
		raw_dial(&bed, "127.0.0.2");
		if (i % 50 == 0)
			uv_run(&bed.loop, UV_RUN_NOWAIT);
	}
	UNTIL(&bed, counts(&bed)->accepted == 500);
	assert_int_equal(counts(&bed)->unfinished, 6);
	assert_int_equal(counts(&bed)->refused[SM_CLOSE_LIMIT], 494);
	/* a stranger who speaks gets through them */
	raw_greet(raw_dial(&bed, "127.0.0.2"));
	UNTIL(&bed, counts(&bed)->accepted == 501);
	assert_int_equal(counts(&bed)->unfinished, 6);
	/* six strangers at work: no seventh, but the reserve is there for a peer */
	for (unsigned i = 496; i < 500; i++)
		raw_greet(bed.raw[i]);
	turn(&bed, 200 * SM_MSEC_US);
	raw_greet(raw_dial(&bed, "127.0.0.2"));
	turn(&bed, 200 * SM_MSEC_US);
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	assert_true(counts(&bed)->unfinished <= 6);
	bed_done(&bed);
}

/* Silent ones at peers' addresses fill all places, and make room for each other, not for strangers. */
static void test_total_known(void **state)
{
	struct sm_conn_limits limits = {.unfinished_max = 8, .unfinished_per_source = 1000};
	struct bed bed;

	(void)state;
	bed_init(&bed, &limits, bob_config, alice_config);
	for (unsigned i = 0; i < 20; i++)
		raw_dial(&bed, "127.0.0.1");
	UNTIL(&bed, counts(&bed)->accepted == 20);
	assert_int_equal(counts(&bed)->unfinished, 8);
	assert_int_equal(counts(&bed)->refused[SM_CLOSE_LIMIT], 12);
	raw_dial(&bed, "127.0.0.2");
	UNTIL(&bed, counts(&bed)->accepted == 21);
	UNTIL(&bed, raw_ended(bed.raw[20]));
	assert_int_equal(counts(&bed)->unfinished, 8);
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	bed_done(&bed);
}

static void test_no_descriptors(void **state)
{
	struct rlimit before, low;
	struct bed bed;
	int fds[20], next;
	uint64_t turns = 0, end_us;

	(void)state;
	bed_init(&bed, NULL, bob_config, alice_config);
	turn(&bed, 10 * SM_MSEC_US);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		fds[i] = raw_socket("127.0.0.2");
	next = dup(0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		raw_connect(&bed, fds[i]);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++) /* accepted and closed, one by one */
		UNTIL(&bed, raw_ended(fds[i]));
	for (end_us = sm_clock_now_us() + 100 * SM_MSEC_US; sm_clock_now_us() < end_us; turns++)
		uv_run(&bed.loop, UV_RUN_ONCE);
	assert_true(turns < 100); /* the pulse's, and not a spinning loop's */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(counts(&bed)->accepted, 0);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		close(fds[i]);
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	bed_done(&bed);
}

/* Who comes while there is no memory waits, and neither he nor those behind him are lost. */
static void test_no_memory(void **state)
{
	struct bed bed;
	uint64_t turns = 0, end_us;
	int fds[3];

	(void)state;
	bed_init(&bed, NULL, bob_config, alice_config);
	turn(&bed, 10 * SM_MSEC_US);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		fds[i] = raw_socket("127.0.0.2");
	no_memory = UINT32_MAX;
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		raw_connect(&bed, fds[i]);
	UNTIL(&bed, counts(&bed)->accept_errors > 1);
	for (end_us = sm_clock_now_us() + 100 * SM_MSEC_US; sm_clock_now_us() < end_us; turns++)
		uv_run(&bed.loop, UV_RUN_ONCE);
	assert_true(turns < 100); /* the pulse's, and not a spinning loop's */
	assert_int_equal(counts(&bed)->accepted, 0);
	no_memory = 0;
	UNTIL(&bed, counts(&bed)->accepted == SM_ARRAY_SIZE(fds));
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fds); i++)
		close(fds[i]);
	bed_done(&bed);

	/* stopped in the middle of it */
	bed_init(&bed, NULL, bob_config, alice_config);
	no_memory = UINT32_MAX;
	raw_dial(&bed, "127.0.0.2");
	UNTIL(&bed, counts(&bed)->accept_errors > 0);
	bed_done(&bed);
	no_memory = 0;
}

static void test_output_bound(void **state)
{
	struct sm_conn_limits limits = {.output_max = 100000};
	static uint8_t chunk[10240]; /* a multiple of 256 */
	struct bed bed;
	size_t sent = 0;
	int err;

	(void)state;
	for (size_t i = 0; i < sizeof(chunk); i++)
		chunk[i] = (uint8_t)i;
	bed_init(&bed, &limits, bob_config, alice_config);
	dial(&bed);
	UNTIL(&bed, bed.client.conn && bed.server.conn);
	do { /* the loop stands still, so the kernel's buffers fill, then ours */
		err = sm_conn_send(bed.client.conn, chunk, sizeof(chunk));
		if (!err)
			sent += sizeof(chunk);
	} while (!err);
	assert_int_equal(err, -ENOBUFS);
	assert_in_range(sm_conn_queued(bed.client.conn), 80000, 110000);
	UNTIL(&bed, bed.server.received == sent);
	assert_true(bed.server.in_order);
	assert_int_equal(sm_conn_queued(bed.client.conn), 0);
	assert_int_equal(sm_conn_send(bed.client.conn, chunk, sizeof(chunk)), 0);
	/* what is queued goes out before a flushing close, all of it */
	for (size_t i = 0; i < 20; i++)
		if (sm_conn_send(bed.client.conn, chunk, sizeof(chunk)) == 0)
			sent += sizeof(chunk);
	sent += sizeof(chunk);
	sm_conn_close(bed.client.conn, true);
	UNTIL(&bed, bed.server.closes == 1);
	assert_int_equal(bed.server.received, sent);
	bed_done(&bed);
}

/* ---- Letting go ---- */

static void test_close_any_time(void **state)
{
	(void)state;
	for (unsigned turns = 0; turns < 40; turns++) {
		struct sm_conn *conn;
		struct bed bed;

		bed_init(&bed, NULL, bob_config, alice_config);
		conn = dial(&bed);
		for (unsigned i = 0; i < turns; i++)
			uv_run(&bed.loop, turns % 2 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
		sm_conn_close(conn, turns % 3 == 0);
		UNTIL(&bed, counts(&bed)->unfinished == 0 && counts(&bed)->open == 0);
		assert_int_equal(bed.client.closes, 0);
		bed_done(&bed);
	}
}

static void test_stop_any_time(void **state)
{
	(void)state;
	for (unsigned turns = 0; turns < 20; turns++) {
		struct bed bed;

		bed_init(&bed, NULL, bob_config, alice_config);
		for (unsigned i = 0; i < 4; i++)
			dial(&bed);
		raw_greet(raw_dial(&bed, "127.0.0.2"));
		for (unsigned i = 0; i < turns; i++)
			uv_run(&bed.loop, UV_RUN_ONCE);
		bed_done(&bed);
		assert_int_equal(bed.client.closes, 0);
	}
}

static void test_close_within(void **state)
{
	struct bed bed;

	(void)state;
	for (int which = 0; which < 4; which++) {
		bed_init(&bed, NULL, bob_config, alice_config);
		bed.server.close_on_open = which == 0;
		bed.server.close_on_data = which == 1;
		bed.client.close_on_open = which == 2;
		bed.server.echo = which == 3;
		bed.client.close_on_data = which == 3;
		dial(&bed);
		UNTIL(&bed, bed.client.opens == 1);
		if (bed.client.conn)
			assert_int_equal(sm_conn_send(bed.client.conn, "\0\1\2", 3), 0);
		UNTIL(&bed, bed.server.closes + bed.client.closes == 1);
		UNTIL(&bed, counts(&bed)->open == 0);
		bed_done(&bed);
	}
}

/* With an access key, whose memory of greetings the pool's threads share */
static void test_many(void **state)
{
	static const uint8_t key[SM_ACCESS_KEY_LEN] = {7};
	struct sm_conn_limits limits = {.unfinished_per_source = 64};
	struct sm_tls_config *ours, *theirs;
	struct bed bed;
	uint64_t start_us;

	(void)state;
	ours = pki_config(&alice, trust, SM_POLICY_CNSA, key);
	theirs = pki_config(&bob, trust, SM_POLICY_CNSA, key);
	bed_init(&bed, &limits, theirs, ours);
	sm_tls_config_unref(ours);
	sm_tls_config_unref(theirs);
	start_us = sm_clock_now_us();
	for (unsigned i = 0; i < 40; i++)
		dial(&bed);
	UNTIL(&bed, bed.client.opens == 40 && bed.server.opens == 40);
	print_message("40 connections at once, both ends here: %llu us\n",
		      (unsigned long long)(sm_clock_now_us() - start_us));
	assert_int_equal(counts(&bed)->open, 40);
	assert_int_equal(counts(&bed)->opened, 40);
	/* a stranger gets an alert, and a reason to tell its user */
	sm_conn_set_config(bed.client.set, alice_config);
	dial(&bed);
	UNTIL(&bed, bed.client.closes == 1);
	assert_int_equal(bed.client.err, -EACCES);
	assert_int_equal(bed.client.reason, SM_CLOSE_NOT_TRUSTED);
	assert_non_null(strstr(bed.client.text, "access key"));
	assert_int_equal(bed.client.opens, 40);
	bed_done(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),           cmocka_unit_test(test_listen),
		cmocka_unit_test(test_new_config),     cmocka_unit_test(test_refused),
		cmocka_unit_test(test_dial_fails),     cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_deadlines),      cmocka_unit_test(test_per_source),
		cmocka_unit_test(test_total_known),    cmocka_unit_test(test_total),
		cmocka_unit_test(test_no_descriptors), cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_output_bound),   cmocka_unit_test(test_close_any_time),
		cmocka_unit_test(test_stop_any_time),  cmocka_unit_test(test_close_within),
		cmocka_unit_test(test_narrow),         cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("conn", tests, set_up, tear_down);
}

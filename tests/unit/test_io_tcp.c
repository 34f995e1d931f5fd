// SPDX-License-Identifier: MIT
/*
 * TCP over loopback: listening, connecting, the options of every connection, and what fails how.
 */
#include "io/tcp.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define TURNS_MAX 5000u

struct world {
	uv_loop_t loop;
	uv_tcp_t listener, client, server;
	uv_connect_t req;
	bool accepted, connected, ended;
	int status;
	char got[16];
	size_t got_len;
};

static void on_connection(uv_stream_t *listener, int status)
{
	struct world *w = listener->data;

	assert_int_equal(status, 0);
	assert_false(w->accepted);
	assert_int_equal(uv_accept(listener, (uv_stream_t *)&w->server), 0);
	w->accepted = true;
}

static void on_connect(uv_connect_t *req, int status)
{
	struct world *w = req->data;

	w->connected = true;
	w->status = status;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct world *w = handle->data;

	(void)suggested;
	*buf = uv_buf_init(w->got + w->got_len, (unsigned)(sizeof(w->got) - w->got_len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct world *w = stream->data;

	(void)buf;
	if (n > 0)
		w->got_len += (size_t)n;
	else if (n == UV_EOF)
		w->ended = true;
}

static int set_up(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof(w));
	assert_int_equal(uv_loop_init(&w.loop), 0);
	uv_tcp_init(&w.loop, &w.listener);
	uv_tcp_init(&w.loop, &w.client);
	uv_tcp_init(&w.loop, &w.server);
	w.listener.data = w.client.data = w.server.data = w.req.data = &w;
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	uv_close((uv_handle_t *)&w->listener, NULL);
	uv_close((uv_handle_t *)&w->client, NULL);
	uv_close((uv_handle_t *)&w->server, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	return uv_loop_close(&w->loop);
}

#define UNTIL(w, condition)                                                   \
	do {                                                                  \
		for (unsigned i_ = 0; !(condition) && i_ < TURNS_MAX; i_++) { \
			uv_run(&(w)->loop, UV_RUN_NOWAIT);                    \
			(void)poll(NULL, 0, 1);                               \
		}                                                             \
		assert_true(condition);                                       \
	} while (0)

static struct sm_addr address(const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return a;
}

/* Return: false where this machine has no such address (IPv6 off) */
static bool open_both(struct world *w, const char *text)
{
	struct sm_addr at = address(text);
	const int err = sm_tcp_listen(&w->listener, &at, on_connection);

	if (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT)
		return false;
	assert_int_equal(err, 0);
	assert_int_equal(sm_tcp_local(&w->listener, &at), 0);
	assert_int_not_equal(at.port, 0);
	assert_int_equal(sm_tcp_connect(&w->client, &w->req, &at, 0, on_connect), 0);
	assert_false(w->connected); /* never from within */
	UNTIL(w, w->connected && w->accepted);
	assert_int_equal(w->status, 0);
	return true;
}

static void expect_same(const struct sm_addr *a, const struct sm_addr *b)
{
	assert_true(sm_addr_equal(a, b));
}

static void check_addresses(struct world *w, const char *ip)
{
	const struct sm_addr wanted = address(ip);
	struct sm_addr listening, near, far;

	assert_int_equal(sm_tcp_local(&w->listener, &listening), 0);
	assert_true(sm_addr_same_ip(&listening, &wanted));
	assert_int_equal(sm_tcp_remote(&w->client, &far), 0);
	expect_same(&far, &listening);
	assert_int_equal(sm_tcp_local(&w->client, &near), 0);
	assert_int_equal(sm_tcp_remote(&w->server, &far), 0);
	expect_same(&near, &far);
}

static void test_ipv4(void **state)
{
	assert_true(open_both(*state, "127.0.0.1"));
	check_addresses(*state, "127.0.0.1");
}

static void test_ipv6(void **state)
{
	if (!open_both(*state, "[::1]:0"))
		skip();
	check_addresses(*state, "::1");
}

/* One that listens on IPv6's wildcard leaves IPv4's to another. */
static void test_wildcards(void **state)
{
	struct world *w = *state;
	struct sm_addr six = {.family = 6}, four = {.family = 4};
	const int err = sm_tcp_listen(&w->listener, &six, on_connection);

	if (err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL)
		skip();
	assert_int_equal(err, 0);
	assert_int_equal(sm_tcp_local(&w->listener, &six), 0);
	four.port = six.port;
	assert_int_equal(sm_tcp_listen(&w->server, &four, on_connection), 0);
}

static void test_tuned(void **state)
{
	static const struct {
		int level, option, value;
	} rows[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 15000},
		{SOL_SOCKET, SO_KEEPALIVE, 1},   {IPPROTO_TCP, TCP_KEEPIDLE, 10},
		{IPPROTO_TCP, TCP_KEEPINTVL, 2}, {IPPROTO_TCP, TCP_KEEPCNT, 3},
	};
	struct world *w = *state;
	uv_os_fd_t fd;

	sm_tcp_tune(&w->client); /* no socket yet: nothing happens */
	sm_tcp_end_sending(&w->client);
	assert_true(open_both(w, "127.0.0.1"));
	sm_tcp_tune(&w->client);
	assert_int_equal(uv_fileno((uv_handle_t *)&w->client, &fd), 0);
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		int value = -1;
		socklen_t len = sizeof(value);

		assert_int_equal(getsockopt(fd, rows[i].level, rows[i].option, &value, &len), 0);
		assert_int_equal(value, rows[i].value);
	}
}

static void test_end_sending(void **state)
{
	struct world *w = *state;
	uv_buf_t hello = uv_buf_init((char *)(uintptr_t) "hello", 5);

	assert_true(open_both(w, "127.0.0.1"));
	assert_int_equal(uv_read_start((uv_stream_t *)&w->server, on_alloc, on_read), 0);
	assert_int_equal(uv_try_write((uv_stream_t *)&w->client, &hello, 1), 5);
	sm_tcp_end_sending(&w->client);
	UNTIL(w, w->ended);
	assert_int_equal(w->got_len, 5); /* all of it before the end */
	assert_memory_equal(w->got, "hello", 5);
	/* the other direction goes on */
	w->ended = false;
	w->got_len = 0;
	assert_int_equal(uv_read_start((uv_stream_t *)&w->client, on_alloc, on_read), 0);
	assert_int_equal(uv_try_write((uv_stream_t *)&w->server, &hello, 1), 5);
	UNTIL(w, w->got_len == 5);
	assert_false(w->ended);
}

static void test_fails(void **state)
{
	struct world *w = *state;
	struct sm_addr at = address("127.0.0.1"), strange = address("192.0.2.1");

	assert_int_equal(sm_tcp_local(&w->client, &at), -EBADF);
	at = address("127.0.0.1");
	assert_int_equal(sm_tcp_listen(&w->listener, &at, on_connection), 0);
	assert_int_equal(sm_tcp_local(&w->listener, &at), 0);
	assert_int_equal(sm_tcp_remote(&w->listener, &strange), -ENOTCONN);
	strange = address("192.0.2.1");
	assert_int_equal(sm_tcp_listen(&w->server, &at, on_connection), -EADDRINUSE);
	uv_close((uv_handle_t *)&w->server, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
	uv_tcp_init(&w->loop, &w->server);
	assert_int_equal(sm_tcp_listen(&w->server, &strange, on_connection), -EADDRNOTAVAIL);
	/* nobody listens any more */
	uv_close((uv_handle_t *)&w->listener, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
	uv_tcp_init(&w->loop, &w->listener);
	assert_int_equal(sm_tcp_connect(&w->client, &w->req, &at, 0, on_connect), 0);
	UNTIL(w, w->connected);
	assert_int_equal(w->status, -ECONNREFUSED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_ipv4),  TEST(test_ipv6),        TEST(test_wildcards),
		TEST(test_tuned), TEST(test_end_sending), TEST(test_fails),
	};

	return cmocka_run_group_tests_name("tcp", tests, NULL, NULL);
}

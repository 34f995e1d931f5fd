// SPDX-License-Identifier: MIT
/*
 * What a client may ask a daemon over its control socket, and what it must not be able to upset.
 */
#include "daemons.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LINE_SIZE 65536u

static struct daemons bed;

static int set_up(void **state)
{
	(void)state;
	daemons_init(&bed);
	daemons_open_pair(&bed, CONF(), CONF());
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	daemons_done(&bed);
	return 0;
}

static void ask(int fd, const char *request)
{
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	assert_int_equal(send(fd, "\n", 1, MSG_NOSIGNAL), 1);
}

/* Return: the next answer, or NULL if the connection ended; the daemons run meanwhile */
static json_t *hear(int fd)
{
	static char line[LINE_SIZE];
	const uint64_t end_us = sm_clock_now_us() + DAEMONS_NEVER;
	size_t len = 0;

	while (sm_clock_now_us() < end_us) {
		const ssize_t n = recv(fd, line + len, 1, MSG_DONTWAIT);

		if (n == 0)
			return NULL;
		if (n < 0) {
			daemons_turn(&bed);
			continue;
		}
		if (line[len] == '\n')
			return json_loadb(line, len, 0, NULL);
		assert_true(++len < sizeof(line));
	}
	fail_msg("no answer");
	return NULL;
}

/* Return: "result" of the next answer, which must be good */
static json_t *result(int fd)
{
	json_t *answer = hear(fd), *r;

	assert_true(json_is_true(json_object_get(answer, "ok")));
	r = json_incref(json_object_get(answer, "result"));
	assert_true(json_is_object(r));
	json_decref(answer);
	return r;
}

static json_int_t number(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_integer(v))
		fail_msg("no number %s", key);
	return json_integer_value(v);
}

static void expect_error(int fd, const char *code, const char *part)
{
	json_t *answer = hear(fd);
	const char *error;

	assert_non_null(answer);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	assert_string_equal(json_string_value(json_object_get(answer, "code")), code);
	error = json_string_value(json_object_get(answer, "error"));
	if (!error || !strstr(error, part))
		fail_msg("'%s' is not in '%s'", part, error ? error : "nothing");
	json_decref(answer);
}

static void test_refused(void **state)
{
	static const struct {
		const char *request, *code, *error;
	} rows[] = {
		{"{\"command\":\"fly\"}", "bad-request", "has no command fly"},
		{"{\"command\":\"\"}", "bad-request", "has no command "},
		{"{\"command\":\"statu\"}", "bad-request", "has no command statu"},
		{"{\"command\":\"STATUS\"}", "bad-request", "has no command STATUS"},
		{"{\"command\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}",
		 "bad-request", "xxxx"},
		{"{\"command\":\"ping\"}", "bad-request", "ping wants the name of a node"},
		{"{\"command\":\"ping\",\"node\":7}", "bad-request", "ping wants the name"},
		{"{\"command\":\"ping\",\"node\":null}", "bad-request", "ping wants the name"},
		{"{\"command\":\"ping\",\"node\":[\"n1\"]}", "bad-request", "ping wants the name"},
		{"{\"command\":\"ping\",\"node\":\"\"}", "not-found", "no node named  is known"},
		{"{\"command\":\"ping\",\"node\":\"nobody\"}", "not-found", "no node named nobody"},
		{"{\"command\":\"ping\",\"node\":\"%s%n\"}", "not-found", "no node named %s%n"},
		{"{\"command\":\"ping\",\"node\":\"n0\"}", "not-found", "n0 is this node itself"},
		{"{\"command\":\"rekey\"}", "not-connected", "no session with (nobody)"},
		{"{\"command\":\"rekey\",\"node\":1}", "not-connected", "no session with (nobody)"},
		{"{\"command\":\"rekey\",\"node\":\"nobody\"}", "not-connected",
		 "no session with nobody"},
	};
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		ask(fd, rows[i].request);
		expect_error(fd, rows[i].code, rows[i].error);
	}
	close(fd);
	assert_false(bed.n[0].d.stopping);
	assert_true(sm_list_empty(&bed.n[0].d.pings));
}

static void test_status_and_peers(void **state)
{
	const int fd = daemons_dial(&bed, 0);
	json_t *r;

	(void)state;
	ask(fd, "{\"command\":\"status\"}");
	r = result(fd);
	assert_string_equal(json_string_value(json_object_get(r, "network")), "bed");
	assert_null(json_object_get(r, "profile"));
	json_decref(r);
	ask(fd, "{\"command\":\"status\",\"profile\":true}");
	r = result(fd);
	assert_true(json_is_object(json_object_get(r, "profile")));
	json_decref(r);
	ask(fd, "{\"command\":\"status\",\"profile\":1}"); /* only true is true */
	r = result(fd);
	assert_null(json_object_get(r, "profile"));
	json_decref(r);
	ask(fd, "{\"command\":\"peers\"}");
	r = result(fd);
	assert_int_equal(json_array_size(json_object_get(r, "peers")), 1);
	json_decref(r);
	close(fd);
}

static void test_ping(void **state)
{
	const int fd = daemons_dial(&bed, 0);
	json_int_t min = INT64_MAX, max = 0, sum = 0, rtt;

	(void)state;
	ask(fd, "{\"command\":\"ping\",\"node\":\"n1\",\"count\":3,\"interval_us\":10000}");
	for (json_int_t seq = 1; seq <= 3; seq++) {
		json_t *r = result(fd), *path = json_object_get(r, "path");

		assert_int_equal(number(r, "seq"), seq);
		rtt = number(r, "rtt_us");
		assert_true(rtt > 0 && rtt < (json_int_t)(2 * SM_SEC_US));
		min = SM_MIN(min, rtt);
		max = SM_MAX(max, rtt);
		sum += rtt;
		assert_string_equal(json_string_value(json_object_get(path, "kind")), "direct");
		assert_memory_equal(json_string_value(json_object_get(path, "remote")), "127.", 4);
		assert_int_equal(json_is_true(json_object_get(r, "done")), seq == 3);
		if (seq == 3) {
			assert_int_equal(number(r, "sent"), 3);
			assert_int_equal(number(r, "received"), 3);
			assert_int_equal(number(r, "min_us"), min);
			assert_int_equal(number(r, "max_us"), max);
			assert_int_equal(number(r, "avg_us"), sum / 3);
		}
		json_decref(r);
	}
	assert_true(sm_list_empty(&bed.n[0].d.pings));
	/* the connection serves on */
	ask(fd, "{\"command\":\"fly\"}");
	expect_error(fd, "bad-request", "fly");
	close(fd);
}

/* Numbers out of range are moved into it, others are as if they were not there. */
static void test_ping_numbers(void **state)
{
	static const struct {
		const char *request;
		json_int_t count;
	} rows[] = {
		{"{\"command\":\"ping\",\"node\":\"n1\",\"interval_us\":0}", 4},
		{"{\"command\":\"ping\",\"node\":\"n1\",\"interval_us\":1,\"count\":-1}", 4},
		{"{\"command\":\"ping\",\"node\":\"n1\",\"interval_us\":1,\"count\":\"9\"}", 4},
		{"{\"command\":\"ping\",\"node\":\"n1\",\"interval_us\":1,\"count\":1.5}", 4},
		{"{\"command\":\"ping\",\"node\":\"n1\",\"timeout_us\":9223372036854775807,"
		 "\"count\":1}",
		 1},
	};
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		bool done = false;

		ask(fd, rows[i].request);
		for (json_int_t seq = 1; !done; seq++) {
			json_t *r = result(fd);

			assert_int_equal(number(r, "seq"), seq);
			done = json_is_true(json_object_get(r, "done"));
			assert_int_equal(done, seq == rows[i].count);
			json_decref(r);
		}
	}
	close(fd);
}

/* The peer is there no more, and nobody has told: each probe is lost, and the next one comes in time. */
static void test_ping_lost(void **state)
{
	const int fd = daemons_dial(&bed, 0);
	uint64_t start_us;

	(void)state;
	bed.n[1].open = false; /* stands still */
	start_us = sm_clock_now_us();
	ask(fd, "{\"command\":\"ping\",\"node\":\"n1\",\"count\":3,\"interval_us\":100000,"
		"\"timeout_us\":20000}");
	for (json_int_t seq = 1; seq <= 3; seq++) {
		json_t *r = result(fd);

		assert_int_equal(number(r, "seq"), seq);
		assert_true(json_is_true(json_object_get(r, "timeout")));
		assert_null(json_object_get(r, "rtt_us"));
		if (seq == 3) {
			assert_int_equal(number(r, "sent"), 3);
			assert_int_equal(number(r, "received"), 0);
			assert_int_equal(number(r, "min_us"), 0);
			assert_int_equal(number(r, "avg_us"), 0);
		}
		assert_int_equal(json_is_true(json_object_get(r, "done")), seq == 3);
		json_decref(r);
	}
	assert_true(sm_clock_now_us() - start_us >= 2 * 100000 + 20000);
	bed.n[1].open = true;
	close(fd);
}

/* A ping without end stops when its client leaves; an answer to it then finds nobody. */
static void test_ping_client_leaves(void **state)
{
	static const struct sm_path_answer late = {.tag = 1, .rtt_us = 5};
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	ask(fd, "{\"command\":\"ping\",\"node\":\"n1\",\"count\":0,\"interval_us\":10000}");
	for (unsigned i = 0; i < 6; i++) {
		json_t *r = result(fd);

		assert_null(json_object_get(r, "done"));
		json_decref(r);
	}
	assert_false(sm_list_empty(&bed.n[0].d.pings));
	close(fd);
	DAEMONS_UNTIL(&bed, sm_list_empty(&bed.n[0].d.pings));
	for (uint64_t tag = 0; tag <= bed.n[0].d.next_tag + 1; tag++)
		sm_commands_on_ping_answer(&bed.n[0].d, tag, &late);
}

static void test_too_many_pings(void **state)
{
	int fd[33];

	(void)state;
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fd); i++) {
		fd[i] = daemons_dial(&bed, 0);
		ask(fd[i], "{\"command\":\"ping\",\"node\":\"n1\",\"count\":0}");
		if (i + 1 < SM_ARRAY_SIZE(fd))
			json_decref(result(fd[i]));
	}
	expect_error(fd[32], "busy", "too many pings");
	close(fd[7]);
	DAEMONS_UNTIL(&bed, sm_ctl_clients(bed.n[0].d.ctl) == 32);
	ask(fd[32], "{\"command\":\"ping\",\"node\":\"n1\",\"count\":1}");
	json_decref(result(fd[32]));
	for (unsigned i = 0; i < SM_ARRAY_SIZE(fd); i++)
		if (i != 7)
			close(fd[i]);
}

static void test_not_connected(void **state)
{
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	daemons_close(&bed, 1);
	DAEMONS_UNTIL(&bed, !daemons_peer(&bed, 0, "n1")->active);
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 0, "n1")->state == SM_PEER_BACKOFF);
	ask(fd, "{\"command\":\"ping\",\"node\":\"n1\"}");
	expect_error(fd, "not-connected", "n1 is not connected (");
	ask(fd, "{\"command\":\"rekey\",\"node\":\"n1\"}");
	expect_error(fd, "not-connected", "no session with n1");
	close(fd);
}

static void test_rekey(void **state)
{
	const struct sm_session *s = daemons_peer(&bed, 0, "n1")->active;
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	assert_int_equal(s->rekeys, 0);
	ask(fd, "{\"command\":\"rekey\",\"node\":\"n1\"}");
	json_decref(result(fd));
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 0, "n1")->active->rekeys == 1);
	DAEMONS_UNTIL(&bed, daemons_peer(&bed, 1, "n0")->active->rekeys == 1);
	close(fd);
}

static void test_reload(void **state)
{
	const int fd = daemons_dial(&bed, 0);
	json_t *r;

	(void)state;
	ask(fd, "{\"command\":\"reload\"}");
	r = result(fd);
	assert_string_equal(json_string_value(json_object_get(r, "note")), "");
	json_decref(r);
	daemons_configure(&bed, 0, CONF(.dials = 2, .interface = "MTU = 1400\n"));
	ask(fd, "{\"command\":\"reload\"}");
	r = result(fd);
	assert_string_equal(json_string_value(json_object_get(r, "note")),
			    "[Interface] MTU changed and needs a restart");
	json_decref(r);
	assert_true(daemons_logged(&bed, "notice: reloaded: [Interface] MTU changed"));
	daemons_write(&bed, "n0.conf", "[Network]\nName = bed\nFly = yes\n");
	ask(fd, "{\"command\":\"reload\"}");
	expect_error(fd, "failed", "; nothing has changed");
	assert_true(daemons_logged(&bed, "error: reload failed, nothing has changed: "));
	assert_true(daemons_is_up(&bed, 0, "n1"));
	close(fd);
}

static void test_down(void **state)
{
	const int fd = daemons_dial(&bed, 0);

	(void)state;
	ask(fd, "{\"command\":\"down\"}");
	sm_control_run(&bed.n[0].d);
	assert_true(bed.n[0].d.stopping);
	assert_false(bed.n[0].d.failed);
	assert_true(daemons_logged(&bed, "notice: ending on request"));
	daemons_close(&bed, 0); /* the answer goes out with the last words */
	json_decref(result(fd));
	assert_null(hear(fd));
	close(fd);
}

/* Who waits for a ping when the daemon ends is told so. */
static void test_down_while_pinging(void **state)
{
	const int fd = daemons_dial(&bed, 0), other = daemons_dial(&bed, 0);

	(void)state;
	ask(fd, "{\"command\":\"ping\",\"node\":\"n1\",\"count\":0}");
	json_decref(result(fd));
	ask(other, "{\"command\":\"down\"}");
	sm_control_run(&bed.n[0].d);
	daemons_close(&bed, 0);
	expect_error(fd, "failed", "the daemon ends");
	assert_null(hear(fd));
	close(fd);
	close(other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_refused),       TEST(test_status_and_peers),
		TEST(test_ping),          TEST(test_ping_numbers),
		TEST(test_ping_lost),     TEST(test_ping_client_leaves),
		TEST(test_not_connected), TEST(test_too_many_pings),
		TEST(test_rekey),         TEST(test_reload),
		TEST(test_down),          TEST(test_down_while_pinging),
	};

	return cmocka_run_group_tests_name("commands", tests, NULL, NULL);
}

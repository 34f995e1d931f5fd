// SPDX-License-Identifier: MIT
/*
 * The control socket with a real loop: what arrives in pieces, too much, from the wrong user, or leaves
 * too early.
 */
#include "base/log.h"
#include "daemon/ctl.h"

#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS_MAX   20000u
#define STRANGER    65534u
#define OTHER_GROUP 64999u

struct world {
	uv_loop_t loop;
	struct sm_ctl *ctl;
	char dir[64], path[96];
	struct sm_ctl_request *waiting; /* a "wait" that nobody has answered */
	unsigned served, gone;
};

static int stranger_credentials(int fd, struct ucred *ret_cred)
{
	(void)fd;
	*ret_cred = (struct ucred){.pid = 1, .uid = STRANGER, .gid = STRANGER};
	return 0;
}

static int group_credentials(int fd, struct ucred *ret_cred)
{
	(void)fd;
	*ret_cred = (struct ucred){.pid = 1, .uid = STRANGER, .gid = OTHER_GROUP};
	return 0;
}

static int failing_credentials(int fd, struct ucred *ret_cred)
{
	(void)fd;
	/* what it leaves must not count */
	*ret_cred = (struct ucred){.pid = 1, .uid = 0, .gid = 0};
	return -EIO;
}

static void on_gone(void *arg, struct sm_ctl_request *request)
{
	struct world *w = arg;

	assert_ptr_equal(request, w->waiting);
	w->waiting = NULL;
	w->gone++;
}

static void serve(void *arg, struct sm_ctl_request *request, const char *command,
		  const json_t *args)
{
	struct world *w = arg;

	w->served++;
	if (strcmp(command, "echo") == 0) {
		sm_ctl_reply(request, json_pack("{s:O?}", "text", json_object_get(args, "text")),
			     true);
	} else if (strcmp(command, "empty") == 0) {
		sm_ctl_reply(request, NULL, true);
	} else if (strcmp(command, "stream") == 0) {
		for (int i = 1; i < 4; i++)
			sm_ctl_reply(request, json_pack("{s:i}", "seq", i), false);
		sm_ctl_reply(request, json_pack("{s:b}", "done", 1), true);
	} else if (strcmp(command, "wait") == 0) {
		assert_null(w->waiting);
		w->waiting = request;
		sm_ctl_on_gone(request, on_gone, w);
	} else if (strcmp(command, "big") == 0) {
		json_int_t len = json_integer_value(json_object_get(args, "len"));
		char *text = calloc(1, (size_t)len + 1);

		assert_non_null(text);
		memset(text, 'b', (size_t)len);
		sm_ctl_reply(request, json_pack("{s:s}", "text", text), true);
		free(text);
	} else if (strcmp(command, "down") == 0) {
		sm_ctl_reply(request, NULL, true);
		sm_ctl_close(w->ctl);
		w->ctl = NULL;
	} else if (strcmp(command, "latin1") == 0) {
		sm_ctl_fail(request, "failed", "no file caf%c", 0xe9);
	} else {
		sm_ctl_fail(request, "bad-request", "unknown command");
	}
}

static void no_log(void *arg, enum sm_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char error[SM_CTL_ERROR_MAX] = "";

	assert_non_null(w);
	sm_log_set_sink(no_log, NULL);
	snprintf(w->dir, sizeof(w->dir), "/tmp/sm-ctl.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	/* in a directory that is not there yet */
	snprintf(w->path, sizeof(w->path), "%s/run/home.sock", w->dir);
	assert_int_equal(uv_loop_init(&w->loop), 0);
	if (sm_ctl_open(&w->loop, w->path, (gid_t)-1, serve, w, &w->ctl, error) < 0)
		fail_msg("%s", error);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[160];

	sm_ctl_close(w->ctl);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	assert_null(w->waiting);
	/* neither the socket nor its lock may stay */
	assert_int_equal(access(w->path, F_OK), -1);
	snprintf(command, sizeof(command), "%s/run", w->dir);
	assert_int_equal(rmdir(command), 0);
	assert_int_equal(rmdir(w->dir), 0);
	free(w);
	sm_log_set_sink(NULL, NULL);
	return 0;
}

/* --- clients --- */

static int adopt(struct world *w)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	assert_int_equal(sm_ctl_adopt(w->ctl, fd[1]), 0);
	return fd[0];
}

static int dial(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void say_bytes(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

static void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text));
}

static void turn(struct world *w)
{
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

/* Reads one line, running the loop meanwhile; Return: false if the connection ended instead */
static bool hear(struct world *w, int fd, char *line, size_t size)
{
	size_t len = 0;

	for (unsigned i = 0; i < TURNS_MAX; i++) {
		ssize_t n;

		turn(w);
		while ((n = recv(fd, line + len, 1, MSG_DONTWAIT)) == 1) {
			if (line[len] == '\n') {
				line[len] = '\0';
				return true;
			}
			assert_true(++len < size);
		}
		if (n == 0 || errno == ECONNRESET)
			return false;
		if (i > 100)
			(void)poll(NULL, 0, 1);
	}
	fail_msg("no answer");
	return false;
}

static void expect(struct world *w, int fd, const char *line)
{
	char got[1024];

	assert_true(hear(w, fd, got, sizeof(got)));
	assert_string_equal(got, line);
}

static void expect_code(struct world *w, int fd, const char *code)
{
	char got[1024];
	json_t *answer;

	assert_true(hear(w, fd, got, sizeof(got)));
	answer = json_loads(got, 0, NULL);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	assert_string_equal(json_string_value(json_object_get(answer, "code")), code);
	assert_true(json_string_length(json_object_get(answer, "error")) > 0);
	json_decref(answer);
}

static void expect_end(struct world *w, int fd)
{
	char got[1024];

	assert_false(hear(w, fd, got, sizeof(got)));
}

/* Runs the loop until @value is @wanted */
static void await(struct world *w, const unsigned *value, unsigned wanted)
{
	for (unsigned i = 0; i < TURNS_MAX && *value != wanted; i++) {
		turn(w);
		if (i > 100)
			(void)poll(NULL, 0, 1);
	}
	assert_int_equal(*value, wanted);
}

#define ECHO_A   "{\"command\":\"echo\",\"text\":\"a\"}\n"
#define ECHO_B   "{\"command\":\"echo\",\"text\":\"b\"}\n"
#define ANSWER_A "{\"ok\":true,\"result\":{\"text\":\"a\"}}"
#define ANSWER_B "{\"ok\":true,\"result\":{\"text\":\"b\"}}"
#define WAIT     "{\"command\":\"wait\"}\n"
#define EMPTY_OK "{\"ok\":true,\"result\":{}}"

/* --- requests --- */

static void test_real_socket(void **state)
{
	struct world *w = *state;
	struct stat st;
	int fd = dial(w->path);

	assert_true(fd >= 0);
	say(fd, ECHO_A);
	expect(w, fd, ANSWER_A);
	say(fd, "{\"command\":\"empty\"}\n");
	expect(w, fd, EMPTY_OK);
	say(fd, "{\"command\":\"nonsense\"}\n");
	expect_code(w, fd, "bad-request");
	say(fd, "{\"command\":\"latin1\"}\n");
	expect(w, fd, "{\"ok\":false,\"error\":\"no file caf?\",\"code\":\"failed\"}");
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0660);
	close(fd);
}

static void test_pieces(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	for (const char *p = ECHO_A; *p != '\0'; p++) {
		assert_int_equal(w->served, 0);
		say_bytes(fd, p, 1);
		turn(w);
		turn(w);
	}
	expect(w, fd, ANSWER_A);
	assert_int_equal(w->served, 1);
	close(fd);
}

static void test_two_in_one(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	/* in order, though the first streams */
	say(fd, "{\"command\":\"stream\"}\n" ECHO_B "{\"command\":");
	expect(w, fd, "{\"ok\":true,\"result\":{\"seq\":1}}");
	expect(w, fd, "{\"ok\":true,\"result\":{\"seq\":2}}");
	expect(w, fd, "{\"ok\":true,\"result\":{\"seq\":3}}");
	expect(w, fd, "{\"ok\":true,\"result\":{\"done\":true}}");
	expect(w, fd, ANSWER_B);
	say(fd, "\"empty\"}\n");
	expect(w, fd, EMPTY_OK);
	close(fd);
}

static void test_one_after_another(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	say(fd, WAIT ECHO_A);
	await(w, &w->served, 1);
	for (unsigned i = 0; i < 50; i++)
		turn(w);
	assert_int_equal(w->served, 1);
	sm_ctl_reply(w->waiting, json_pack("{s:i}", "n", 7), true);
	w->waiting = NULL;
	expect(w, fd, "{\"ok\":true,\"result\":{\"n\":7}}");
	expect(w, fd, ANSWER_A);
	close(fd);
	turn(w);
	assert_int_equal(w->gone, 0);
}

static void test_not_json(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} rows[] = {
#define ROW(text) {text, sizeof(text) - 1}
		ROW("GET / HTTP/1.1\r\n"),
		ROW("\n"),
		ROW("[]\n"),
		ROW("\"status\"\n"),
		ROW("null\n"),
		ROW("{}\n"),
		ROW("{\"command\":7}\n"),
		ROW("{\"command\":\"echo\"} trailing\n"),
		ROW("{\"command\":\"echo\",\"command\":\"down\"}\n"),
		ROW("{\"command\":\"ec\0ho\"}\n"),
		ROW("{\"command\":\"\xff\"}\n"),
#undef ROW
	};
	struct world *w = *state;
	int fd = adopt(w);

	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		say_bytes(fd, rows[i].text, rows[i].len);
		expect_code(w, fd, "bad-request");
		/* and the connection serves on */
		say(fd, ECHO_A);
		expect(w, fd, ANSWER_A);
	}
	assert_int_equal(w->served, SM_ARRAY_SIZE(rows));
	close(fd);
}

/* Says @len bytes while the loop runs */
static void say_much(struct world *w, int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			data += n;
			len -= (size_t)n;
		} else if (errno != EAGAIN) {
			return; /* turned away: that is the caller's to see */
		}
		turn(w);
	}
}

static void test_longest(void **state)
{
	static const char head[] = "{\"command\":\"empty\",\"x\":\"", tail[] = "\"}";
	struct world *w = *state;
	char *line = malloc(SM_CTL_REQUEST_MAX + 3);

	assert_non_null(line);
	for (size_t over = 0; over < 2; over++) {
		size_t len = SM_CTL_REQUEST_MAX + over;
		int fd = adopt(w);

		memset(line, 'x', len);
		memcpy(line, head, sizeof(head) - 1);
		memcpy(line + len - 2, tail, 2);
		line[len] = '\n';
		say_much(w, fd, line, len + 1);
		if (over == 0) {
			expect(w, fd, EMPTY_OK);
			say(fd, ECHO_A);
			expect(w, fd, ANSWER_A);
		} else {
			expect_code(w, fd, "too-long");
			expect_end(w, fd);
		}
		close(fd);
	}
	assert_int_equal(w->served, 2);
	free(line);
}

static void test_endless(void **state)
{
	struct world *w = *state;
	static char much[1 << 20];
	int fd = adopt(w);

	memset(much, 'z', sizeof(much));
	say_much(w, fd, much, sizeof(much));
	expect_code(w, fd, "too-long");
	expect_end(w, fd);
	assert_int_equal(sm_ctl_clients(w->ctl), 0);
	close(fd);
}

static void test_half_closed(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	/* as "nc -N" does it: all is asked, then the sending side ends */
	say(fd, WAIT ECHO_A ECHO_B "{\"command\":\"cut o");
	shutdown(fd, SHUT_WR);
	await(w, &w->served, 1);
	turn(w);
	sm_ctl_reply(w->waiting, NULL, true);
	w->waiting = NULL;
	expect(w, fd, EMPTY_OK);
	expect(w, fd, ANSWER_A);
	expect(w, fd, ANSWER_B);
	expect_end(w, fd);
	assert_int_equal(w->served, 3);
	close(fd);
}

/* --- leaving --- */

static void test_gone_waiting(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	say(fd, WAIT);
	await(w, &w->served, 1);
	sm_ctl_reply(w->waiting, json_pack("{s:i}", "seq", 1), false);
	expect(w, fd, "{\"ok\":true,\"result\":{\"seq\":1}}");
	assert_int_equal(w->gone, 0);
	close(fd);
	await(w, &w->gone, 1);
	assert_int_equal(sm_ctl_clients(w->ctl), 0);
}

static void test_gone_after_half_close(void **state)
{
	struct world *w = *state;
	struct sm_ctl_tuning tuning = {.idle_us = 20 * SM_MSEC_US}; /* a faster sweep */
	int fd;

	sm_ctl_tune(w->ctl, &tuning);
	fd = adopt(w);
	say(fd, WAIT);
	shutdown(fd, SHUT_WR);
	await(w, &w->served, 1);
	turn(w);
	close(fd);
	await(w, &w->gone, 1);
}

static void test_gone_with_answers_unread(void **state)
{
	struct world *w = *state;
	int fd = adopt(w);

	say(fd, WAIT ECHO_A);
	await(w, &w->served, 1);
	close(fd);
	/* the stream does not know yet: its lines must go nowhere, quietly */
	for (int i = 0; i < 100; i++)
		sm_ctl_reply(w->waiting, json_pack("{s:i}", "seq", i), false);
	await(w, &w->gone, 1);
	assert_int_equal(w->served, 1);
}

static void test_slow_reader(void **state)
{
	struct world *w = *state;
	static char text[4096];
	unsigned lines = 0;
	int fd = adopt(w);

	memset(text, 't', sizeof(text) - 1);
	say(fd, WAIT);
	await(w, &w->served, 1);
	/* a stream that nobody reads: bounded, and its producer is told */
	while (w->waiting != NULL && lines < 20000) {
		sm_ctl_reply(w->waiting, json_pack("{s:s}", "text", text), false);
		lines++;
		turn(w);
		if (lines > 1000)
			(void)poll(NULL, 0, 1);
	}
	assert_int_equal(w->gone, 1);
	assert_int_equal(sm_ctl_clients(w->ctl), 0);
	close(fd);
}

static void test_big_answer(void **state)
{
	struct world *w = *state;
	size_t len = 0, wanted = 3000000 + strlen("{\"ok\":true,\"result\":{\"text\":\"\"}}\n");
	static char buf[70000];
	int fd = adopt(w);

	/* far more than a socket takes at once; the next request waits for its end */
	say(fd, "{\"command\":\"big\",\"len\":3000000}\n" ECHO_A);
	for (unsigned i = 0; i < TURNS_MAX && len < wanted; i++) {
		ssize_t n;

		turn(w);
		n = recv(fd, buf, SM_MIN(sizeof(buf), wanted - len), MSG_DONTWAIT);
		if (n > 0)
			len += (size_t)n;
	}
	assert_int_equal(len, wanted);
	assert_int_equal(buf[0], 'b');
	expect(w, fd, ANSWER_A);
	close(fd);
}

static void test_idle(void **state)
{
	struct world *w = *state;
	struct sm_ctl_tuning tuning = {.idle_us = 60 * SM_MSEC_US};
	int silent, drip, stuck, waits;

	sm_ctl_tune(w->ctl, &tuning);
	silent = adopt(w);
	drip = adopt(w);
	stuck = adopt(w);
	waits = adopt(w);
	say(waits, WAIT);
	say(stuck, "{\"command\":\"big\",\"len\":3000000}\n");
	/* one byte now and then is no request either */
	for (unsigned i = 0; i < 5000 && sm_ctl_clients(w->ctl) > 1; i++) {
		(void)send(drip, " ", 1, MSG_NOSIGNAL);
		turn(w);
		(void)poll(NULL, 0, 2);
	}
	assert_int_equal(sm_ctl_clients(w->ctl), 1);
	/* the one who waits for us is not idle */
	assert_non_null(w->waiting);
	sm_ctl_reply(w->waiting, NULL, true);
	w->waiting = NULL;
	expect(w, waits, EMPTY_OK);
	expect_end(w, silent);
	close(silent);
	close(drip);
	close(stuck);
	close(waits);
}

static void test_too_many(void **state)
{
	struct world *w = *state;
	int fd[SM_CTL_CLIENTS_MAX], one_more;

	for (size_t i = 0; i < SM_CTL_CLIENTS_MAX; i++) {
		fd[i] = dial(w->path);
		assert_true(fd[i] >= 0);
		turn(w);
	}
	for (unsigned i = 0; i < 200; i++)
		turn(w);
	assert_int_equal(sm_ctl_clients(w->ctl), SM_CTL_CLIENTS_MAX);
	one_more = dial(w->path);
	assert_true(one_more >= 0);
	expect_code(w, one_more, "busy");
	expect_end(w, one_more);
	close(one_more);
	/* the others are served, and a place that is free is free */
	say(fd[5], ECHO_A);
	expect(w, fd[5], ANSWER_A);
	close(fd[0]);
	for (unsigned i = 0; i < 200; i++)
		turn(w);
	fd[0] = dial(w->path);
	assert_true(fd[0] >= 0);
	say(fd[0], ECHO_B);
	expect(w, fd[0], ANSWER_B);
	for (size_t i = 0; i < SM_CTL_CLIENTS_MAX; i++)
		close(fd[i]);
}

static void test_close_from_handler(void **state)
{
	struct world *w = *state;
	int fd = adopt(w), other = adopt(w);

	say(other, WAIT);
	await(w, &w->served, 1);
	say(fd, "{\"command\":\"down\"}\n" ECHO_A);
	expect(w, fd, EMPTY_OK);
	expect_end(w, fd);
	expect_end(w, other);
	assert_int_equal(w->gone, 1);
	assert_int_equal(w->served, 2);
	close(fd);
	close(other);
}

/* --- who --- */

static void expect_denied(struct world *w, int (*credentials)(int, struct ucred *))
{
	struct sm_ctl_tuning tuning = {.credentials = credentials};
	int fd[2];

	sm_ctl_tune(w->ctl, &tuning);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	say(fd[0], ECHO_A);
	assert_int_equal(sm_ctl_adopt(w->ctl, fd[1]), -EPERM);
	expect_code(w, fd[0], "denied");
	expect_end(w, fd[0]);
	assert_int_equal(w->served, 0);
	assert_int_equal(sm_ctl_clients(w->ctl), 0);
	close(fd[0]);
}

static void test_stranger(void **state)
{
	expect_denied(*state, stranger_credentials);
	expect_denied(*state, group_credentials); /* no group is configured */
	expect_denied(*state, failing_credentials);
}

/* A second server, with a group */
static void test_group(void **state)
{
	struct world *w = *state;
	struct sm_ctl_tuning tuning = {.credentials = group_credentials};
	gid_t group = geteuid() == 0 ? OTHER_GROUP : getegid();
	char error[SM_CTL_ERROR_MAX] = "", path[sizeof(w->path) + 16];
	struct sm_ctl *ctl = w->ctl;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s.group.sock", w->path);
	w->ctl = NULL;
	if (sm_ctl_open(&w->loop, path, group, serve, w, &w->ctl, error) < 0)
		fail_msg("%s", error);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_gid, group);
	assert_int_equal(st.st_mode & 07777, 0660);
	if (group == OTHER_GROUP) {
		sm_ctl_tune(w->ctl, &tuning);
		fd = adopt(w);
		say(fd, ECHO_A);
		expect(w, fd, ANSWER_A);
		close(fd);
	}
	w->served = 0;
	expect_denied(w, stranger_credentials);
	sm_ctl_close(w->ctl);
	w->ctl = ctl;
}

/* The kernel's own word: another process under another uid, with and without the group */
static void connect_as(struct world *w, const gid_t *groups, size_t group_count, const char *reply)
{
	char got[1024] = "";
	int out[2], status;
	pid_t pid;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		ssize_t n = -1;
		int fd;

		if (setgroups(group_count, groups) < 0 ||
		    setresgid(STRANGER, STRANGER, STRANGER) < 0 ||
		    setresuid(STRANGER, STRANGER, STRANGER) < 0)
			_exit(2);
		fd = dial(w->path);
		if (fd < 0)
			_exit(3);
		(void)send(fd, ECHO_A, strlen(ECHO_A), MSG_NOSIGNAL);
		n = recv(fd, got, sizeof(got), 0);
		_exit(n > 0 && write(out[1], got, (size_t)n) == n ? 0 : 4);
	}
	close(out[1]);
	assert_int_equal(fcntl(out[0], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < TURNS_MAX && read(out[0], got, sizeof(got) - 1) <= 0; i++) {
		turn(w);
		(void)poll(NULL, 0, 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_non_null(strstr(got, reply));
	close(out[0]);
}

static void test_nobody(void **state)
{
	static const gid_t groups[] = {1, 2, OTHER_GROUP};
	struct world *w = *state;
	struct sm_ctl *first = w->ctl;
	char error[SM_CTL_ERROR_MAX], old[sizeof(w->path)];

	if (geteuid() != 0) {
		expect_denied(w, stranger_credentials);
		return;
	}
	assert_int_equal(chmod(w->dir, 0755), 0);
	/* as if somebody had widened the mode: the check does not rest on it */
	assert_int_equal(chmod(w->path, 0666), 0);
	connect_as(w, NULL, 0, "\"code\":\"denied\"");
	connect_as(w, groups, 3, "\"code\":\"denied\"");
	assert_int_equal(w->served, 0);

	memcpy(old, w->path, sizeof(old));
	snprintf(w->path, sizeof(w->path), "%.80s/run/b.sock", w->dir);
	w->ctl = NULL;
	assert_int_equal(sm_ctl_open(&w->loop, w->path, OTHER_GROUP, serve, w, &w->ctl, error), 0);
	connect_as(w, groups, 3, "\"ok\":true");
	assert_int_equal(chmod(w->path, 0666), 0);
	connect_as(w, groups, 2, "\"code\":\"denied\"");
	assert_int_equal(w->served, 1);
	sm_ctl_close(w->ctl);
	w->ctl = first;
	memcpy(w->path, old, sizeof(old));
}

/* --- the file --- */

static void test_live_refused(void **state)
{
	struct world *w = *state;
	struct sm_ctl *second = NULL;
	char error[SM_CTL_ERROR_MAX] = "", pid[32];
	int fd;

	assert_int_equal(sm_ctl_open(&w->loop, w->path, (gid_t)-1, serve, w, &second, error),
			 -EADDRINUSE);
	assert_null(second);
	snprintf(pid, sizeof(pid), "process %d ", (int)getpid());
	assert_non_null(strstr(error, pid));
	/* the first one must not have noticed */
	fd = dial(w->path);
	assert_true(fd >= 0);
	say(fd, ECHO_A);
	expect(w, fd, ANSWER_A);
	close(fd);
}

static void leave_socket(const char *path, bool listening, int *ret_fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	if (listening)
		assert_int_equal(listen(fd, 1), 0);
	*ret_fd = fd;
}

static void test_stale_replaced(void **state)
{
	struct world *w = *state;
	struct sm_ctl *first = w->ctl;
	char error[SM_CTL_ERROR_MAX] = "", path[sizeof(w->path) + 16];
	int fd, client;

	snprintf(path, sizeof(path), "%s.stale", w->path);
	/* a daemon that was killed leaves the file, and nobody behind it */
	leave_socket(path, true, &fd);
	close(fd);
	if (sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &w->ctl, error) < 0)
		fail_msg("%s", error);
	client = dial(path);
	assert_true(client >= 0);
	say(client, ECHO_A);
	expect(w, client, ANSWER_A);
	close(client);
	sm_ctl_close(w->ctl);
	assert_int_equal(access(path, F_OK), -1);
	w->ctl = NULL;

	/* somebody without our lock who does listen is no corpse */
	leave_socket(path, true, &fd);
	assert_int_equal(sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &w->ctl, error),
			 -EADDRINUSE);
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
	unlink(path);
	w->ctl = first;
}

static void test_bad_places(void **state)
{
	struct world *w = *state;
	struct sm_ctl *ctl = NULL;
	char error[SM_CTL_ERROR_MAX], path[256];
	int fd;

	/* a file that is no socket stays */
	snprintf(path, sizeof(path), "%s/run/precious", w->dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &ctl, error), -EEXIST);
	assert_non_null(strstr(error, path));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);

	snprintf(path, sizeof(path), "%s/a/b/x.sock", w->dir);
	assert_int_equal(sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &ctl, error), -ENOENT);
	snprintf(path, sizeof(path), "%s/run/%0120d.sock", w->dir, 0);
	assert_int_equal(sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &ctl, error),
			 -ENAMETOOLONG);
	assert_null(ctl);
}

static void test_not_our_file(void **state)
{
	struct world *w = *state;
	struct sm_ctl *first = w->ctl;
	char error[SM_CTL_ERROR_MAX], path[sizeof(w->path) + 16];
	int fd;

	snprintf(path, sizeof(path), "%s.other", w->path);
	assert_int_equal(sm_ctl_open(&w->loop, path, (gid_t)-1, serve, w, &w->ctl, error), 0);
	/* somebody put another one in its place: closing must not remove that */
	assert_int_equal(unlink(path), 0);
	leave_socket(path, true, &fd);
	sm_ctl_close(w->ctl);
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
	unlink(path);
	w->ctl = first;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_real_socket),
		TEST(test_pieces),
		TEST(test_two_in_one),
		TEST(test_one_after_another),
		TEST(test_not_json),
		TEST(test_longest),
		TEST(test_endless),
		TEST(test_half_closed),
		TEST(test_gone_waiting),
		TEST(test_gone_after_half_close),
		TEST(test_gone_with_answers_unread),
		TEST(test_slow_reader),
		TEST(test_big_answer),
		TEST(test_idle),
		TEST(test_too_many),
		TEST(test_close_from_handler),
		TEST(test_stranger),
		TEST(test_group),
		TEST(test_nobody),
		TEST(test_live_refused),
		TEST(test_stale_replaced),
		TEST(test_bad_places),
		TEST(test_not_our_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * The commands that talk to a daemon, which the test plays: which one they find, what they make of its
 * answers, be they wrong or absent, and what they print.
 */
#include "cli/client.h"

#include "base/clock.h"
#include "capture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define ASKED_MAX 1024u

static char dir[64];
static struct capture got;
static const struct sm_cli_command self = {.name = "test"};

/* -- the daemon that the test plays -- */

struct played {
	char path[108];
	int fd;
	pthread_t thread;
	const char *answer; /* all of it, to the first request of each client; NULL: none */
	bool hangs;         /* until the client goes */
	char asked[ASKED_MAX];
	_Atomic unsigned served;
};

static void serve(struct played *p, int fd)
{
	size_t len = 0;
	ssize_t n;
	char c;

	while (read(fd, &c, 1) == 1 && c != '\n')
		if (len < sizeof(p->asked) - 1)
			p->asked[len++] = c;
	p->asked[len] = '\0';
	/* in pieces, as a stream may bring it */
	for (const char *at = p->answer; at && *at; at += n) {
		n = send(fd, at, SM_MIN(strlen(at), (size_t)1000), MSG_NOSIGNAL);
		if (n < 0)
			break;
	}
	if (p->hangs)
		while (read(fd, &c, 1) == 1)
			;
	close(fd);
	p->served++;
}

static void *play(void *arg)
{
	struct played *p = arg;
	int fd;

	while ((fd = accept(p->fd, NULL, NULL)) >= 0)
		serve(p, fd);
	return NULL;
}

static void played_begin(struct played *p, const char *name, const char *answer)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memset(p, 0, sizeof(*p));
	snprintf(p->path, sizeof(p->path), "%s/%s", dir, name);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", p->path);
	p->answer = answer;
	p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(p->fd >= 0);
	assert_int_equal(bind(p->fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(p->fd, 5), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, play, p), 0);
}

static void played_end(struct played *p)
{
	shutdown(p->fd, SHUT_RDWR); /* wakes accept() */
	pthread_join(p->thread, NULL);
	close(p->fd);
	unlink(p->path);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/sm-client-XXXXXX");
	return !mkdtemp(dir) || setenv("SHADOWMESH_RUNTIME_DIR", dir, 1);
}

static int tear_down(void **state)
{
	(void)state;
	unsetenv("SHADOWMESH_RUNTIME_DIR");
	return rmdir(dir);
}

/* -- which one -- */

static void test_nobody(void **state)
{
	static const struct {
		const char *line;
		int code;
		const char *err;
	} rows[] = {
		{"status", SM_EXIT_NOT_RUNNING,
		 "shadowmesh status: no daemon is running (there is "
		 "no live socket in "},
		{"peers", SM_EXIT_NOT_RUNNING, "no daemon is running"},
		{"down", SM_EXIT_NOT_RUNNING, "no daemon is running"},
		{"reload", SM_EXIT_NOT_RUNNING, "no daemon is running"},
		{"ping n1", SM_EXIT_NOT_RUNNING, "no daemon is running"},
		{"status home", SM_EXIT_NOT_RUNNING,
		 "network 'home' is not up (no daemon answers at "},
		{"status --socket /nowhere/x.sock", SM_EXIT_NOT_RUNNING,
		 "no daemon answers at /nowhere/x.sock"},
		{"status --socket /dev/null/x", SM_EXIT_NOT_RUNNING,
		 "no daemon answers at /dev/null"},
		{"status --socket /dev/null", SM_EXIT_NOT_RUNNING,
		 "no daemon answers at /dev/null"},
		{"status ../x", SM_EXIT_USAGE, "'../x' is no name of a network"},
		{"status Home", SM_EXIT_USAGE, "'Home' is no name of a network"},
		{"status home away", SM_EXIT_USAGE, "one network at a time, 'away' is too much"},
		{"status --socket "
		 "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		 SM_EXIT_FAILURE, "the path of the control socket is longer than 107 bytes"},
		{"ping", SM_EXIT_USAGE, "give the name of one node"},
		{"ping a b", SM_EXIT_USAGE, "give the name of one node"},
		{"ping A", SM_EXIT_USAGE, "'A' is no name of a node"},
		{"ping -c 0 a", SM_EXIT_USAGE, "-c wants a number from 1 to 1000000, got '0'"},
		{"ping -c x a", SM_EXIT_USAGE, "got 'x'"},
		{"ping -i 0.001 a", SM_EXIT_USAGE,
		 "-i wants seconds from 0.01 to 3600, got '0.001'"},
		{"ping -W nan a", SM_EXIT_USAGE, "-W wants seconds from 0.01 to 3600, got 'nan'"},
		{"ping -W -1 a", SM_EXIT_USAGE, "got '-1'"},
		{"ping -W 3601 a", SM_EXIT_USAGE, "got '3601'"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++)
		capture_expect(&got, rows[i].line, rows[i].code, NULL, rows[i].err);
	setenv("SHADOWMESH_RUNTIME_DIR", "/nowhere/at/all", 1);
	capture_expect(&got, "status", SM_EXIT_NOT_RUNNING, NULL, "no live socket in /nowhere");
	setenv("SHADOWMESH_RUNTIME_DIR", dir, 1);
}

static void test_only_one(void **state)
{
	static const char answer[] = "{\"ok\":true,\"result\":{\"peers\":[]}}\n";
	struct sockaddr_un dead = {.sun_family = AF_UNIX};
	struct played home, away;
	char line[160];
	int fd;

	(void)state;
	/* what a dead daemon left behind, and files of other names, are no choice */
	snprintf(dead.sun_path, sizeof(dead.sun_path), "%s/dead.sock", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&dead, sizeof(dead)), 0);
	close(fd);
	capture_expect(&got, "peers", SM_EXIT_NOT_RUNNING, NULL, "no daemon is running");
	capture_expect(&got, "peers dead", SM_EXIT_NOT_RUNNING, NULL, "network 'dead' is not up");
	played_begin(&home, "home.sock", answer);
	capture_expect(&got, "peers", SM_EXIT_OK, "no peers\n", NULL);
	assert_string_equal(home.asked, "{\"command\":\"peers\"}");
	played_begin(&away, "away.sock", answer);
	capture_expect(&got, "peers", SM_EXIT_USAGE, NULL,
		       "several networks are up, name one of them: away, home\n");
	capture_expect(&got, "peers away", SM_EXIT_OK, "no peers\n", NULL);
	snprintf(line, sizeof(line), "peers --socket %s", home.path);
	capture_expect(&got, line, SM_EXIT_OK, "no peers\n", NULL);
	played_end(&away);
	played_end(&home);
	unlink(dead.sun_path);
}

/* -- what comes back -- */

static void test_bad_answers(void **state)
{
	static const struct {
		const char *answer;
		int code;
		const char *err;
	} rows[] = {
		{NULL, SM_EXIT_NOT_RUNNING, " has ended\n"},
		{"", SM_EXIT_NOT_RUNNING, " has ended\n"},
		{"{\"ok\":true", SM_EXIT_NOT_RUNNING, " has ended\n"},
		{"\n", SM_EXIT_FAILURE, "what answers there is not a daemon of ours\n"},
		{"SSH-2.0\r\n", SM_EXIT_FAILURE, "is not a daemon of ours\n"},
		{"[]\n", SM_EXIT_FAILURE, "is not a daemon of ours\n"},
		{"{}\n", SM_EXIT_FAILURE, "is not a daemon of ours\n"},
		{"{\"ok\":1}\n", SM_EXIT_FAILURE, "is not a daemon of ours\n"},
		{"{\"ok\":true} x\n", SM_EXIT_FAILURE, "is not a daemon of ours\n"},
		{"{\"ok\":false}\n", SM_EXIT_FAILURE, "the daemon refused, without a reason\n"},
		{"{\"ok\":false,\"error\":7}\n", SM_EXIT_FAILURE, "without a reason\n"},
		{"{\"ok\":false,\"error\":\"too busy\"}\n", SM_EXIT_FAILURE,
		 "shadowmesh peers: too busy\n"},
		{"{\"ok\":false,\"error\":\"a\\u001b[2Jb\\n\"}\n", SM_EXIT_FAILURE,
		 "shadowmesh peers: a?[2Jb?\n"},
	};
	struct played p;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		played_begin(&p, "home.sock", rows[i].answer);
		capture_expect(&got, "peers", rows[i].code, NULL, rows[i].err);
		played_end(&p);
	}
}

/* Fields that are missing or of another kind are dashes, never a crash. */
static void test_odd_results(void **state)
{
	static const char *const results[] = {
		"{}",
		"[]",
		"7",
		"null",
		"{\"peers\":7}",
		"{\"peers\":{}}",
		"{\"peers\":[7,null,[],{}]}",
		"{\"network\":{},\"node\":[],\"counters\":\"x\"}",
		"{\"profile\":{\"seal\":7,\"open\":{\"frame\":[]}}}",
		"{\"seq\":\"x\",\"rtt_us\":-1,\"done\":true}",
	};
	static const char *const lines[] = {"status",        "status --json", "status --profile",
					    "peers",         "peers --json",  "reload",
					    "ping -c 1 node"};
	struct played p;
	char answer[256];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(results); i++) {
		snprintf(answer, sizeof(answer), "{\"ok\":true,\"result\":%s}\n", results[i]);
		played_begin(&p, "home.sock", answer);
		for (size_t k = 0; k < SM_ARRAY_SIZE(lines); k++) {
			const int code = capture_run(&got, lines[k]);
			const bool pings = !strncmp(lines[k], "ping", 4);

			/* a ping that nobody answered has failed, or the connection ended before */
			if (pings ? code != SM_EXIT_FAILURE && code != SM_EXIT_NOT_RUNNING
				  : code != SM_EXIT_OK)
				fail_msg("%s of %s: %d %s", lines[k], results[i], code, got.err);
		}
		played_end(&p);
	}
}

static void test_timeout(void **state)
{
	struct sm_client_target target = {.network = "home"};
	struct sm_client *client = NULL;
	json_t *result = NULL;
	struct played p;
	const volatile int stop = 1;
	uint64_t start_us;
	int code;

	(void)state;
	played_begin(&p, "home.sock", NULL);
	p.hangs = true;
	assert_int_equal(sm_client_open(&self, &target, &client), SM_EXIT_OK);
	assert_int_equal(sm_client_pid(client), getpid());
	assert_int_equal(sm_client_send(client, json_pack("{s:s}", "command", "x")), SM_EXIT_OK);
	start_us = sm_clock_now_us();
	capture_begin(&got);
	code = sm_client_read(client, 100 * SM_MSEC_US, NULL, &result);
	capture_end(&got);
	assert_int_equal(code, SM_EXIT_FAILURE);
	assert_true(sm_clock_now_us() - start_us >= 100 * SM_MSEC_US);
	assert_non_null(strstr(got.err, "does not answer\n"));
	/* told to stop: no error, no result */
	result = (json_t *)(uintptr_t)&self;
	assert_int_equal(sm_client_read(client, 10 * SM_SEC_US, &stop, &result), SM_EXIT_OK);
	assert_null(result);
	sm_client_close(client);
	sm_client_close(NULL);
	played_end(&p);
}

/* Several lines in one piece, one of them longer than the first buffer */
static void test_lines(void **state)
{
	struct sm_client_target target = {.network = "home"};
	const size_t len = 200000;
	char *answer = malloc(len + 200);
	struct sm_client *client;
	struct played p;

	(void)state;
	assert_non_null(answer);
	strcpy(answer, "{\"ok\":true,\"result\":{\"n\":1}}\n{\"ok\":true,\"result\":{\"t\":\"");
	memset(answer + strlen(answer) + 1, 0, 100);
	memset(answer + strlen(answer), 'x', len - strlen(answer));
	answer[len] = '\0';
	strcat(answer, "\"}}\n{\"ok\":true}\n");
	played_begin(&p, "home.sock", answer);
	assert_int_equal(sm_client_open(&self, &target, &client), SM_EXIT_OK);
	assert_int_equal(sm_client_send(client, json_pack("{s:s}", "command", "x")), SM_EXIT_OK);
	for (unsigned i = 0; i < 3; i++) {
		json_t *result = NULL;

		assert_int_equal(sm_client_read(client, 10 * SM_SEC_US, NULL, &result), SM_EXIT_OK);
		assert_true(json_is_object(result));
		if (i == 0)
			assert_int_equal(json_integer_value(json_object_get(result, "n")), 1);
		if (i == 1)
			assert_true(json_string_length(json_object_get(result, "t")) > 190000);
		json_decref(result);
	}
	sm_client_close(client);
	played_end(&p);
	free(answer);
}

/* -- what the commands ask and print -- */

static void test_status(void **state)
{
	static const char answer[] =
		"{\"ok\":true,\"result\":{\"network\":\"home\",\"mode\":\"tap\",\"node\":{\"name\":"
		"\"alice\",\"certificate\":{\"not_after\":1800000000,\"days_left\":50}},"
		"\"interface\":{\"name\":\"smesh0\",\"addresses\":[\"10.7.0.1/24\",\"fd00::1/64\"]},"
		"\"transport\":{\"workers\":2,\"cipher_hardware\":true},\"peers\":{\"total\":3,"
		"\"up\":2},\"counters\":{\"drops\":{\"runt\":4,\"none\":0}},\"profile\":{\"seal\":"
		"{\"frame\":{\"count\":5,\"median_us\":1.5,\"p99_us\":2,\"max_us\":3}}}}}\n";
	struct played p;

	(void)state;
	played_begin(&p, "home.sock", answer);
	capture_expect(&got, "status", SM_EXIT_OK, "home, tap, id -\n", NULL);
	assert_string_equal(p.asked, "{\"command\":\"status\",\"profile\":false}");
	assert_non_null(strstr(got.out, "until 2027-01-15 08:00 UTC, 50 days left\n"));
	assert_non_null(strstr(got.out, "10.7.0.1/24, fd00::1/64\n"));
	assert_non_null(strstr(got.out, "2 workers, AES in hardware\n"));
	assert_non_null(strstr(got.out, "2 of 3 up\n"));
	assert_non_null(strstr(got.out, "runt 4\n"));
	assert_null(strchr(got.out, '\033'));
	capture_expect(&got, "status home --json", SM_EXIT_OK, "\"total\": 3", NULL);
	capture_expect(&got, "status --profile home", SM_EXIT_OK, "stage  frames  median", NULL);
	assert_string_equal(p.asked, "{\"command\":\"status\",\"profile\":true}");
	assert_non_null(strstr(got.out, "seal        5    1.50  2.00  3.00"));
	played_end(&p);
}

static void test_peers(void **state)
{
	static const char answer[] =
		"{\"ok\":true,\"result\":{\"peers\":[{\"name\":\"bob\",\"state\":\"up\","
		"\"since_us_ago\":65000000,\"addresses\":[\"10.7.0.2/24\"],\"path\":{\"remote\":"
		"\"192.0.2.1:9443\",\"kind\":\"direct\",\"rtt_us\":1234,\"mtu\":1500},\"last_error\":"
		"\"\"},{\"name\":\"eve\\u001b\",\"state\":\"backoff\",\"path\":null,\"last_error\":"
		"\"no route\"}]}}\n";
	struct played p;

	(void)state;
	played_begin(&p, "home.sock", answer);
	capture_expect(&got, "peers", SM_EXIT_OK, "192.0.2.1:9443 (direct)  1.234 ms  1500", NULL);
	assert_memory_equal(got.out, "peer  state ", 12);
	assert_non_null(strstr(got.out, "\neve?  backoff  -"));
	assert_non_null(strstr(got.out, "\neve?: no route\n"));
	assert_null(strstr(got.out, "\nbob: "));
	capture_expect(&got, "peers --json", SM_EXIT_OK, "\"name\": \"bob\"", NULL);
	played_end(&p);
}

static void test_ping(void **state)
{
	static const char answer[] =
		"{\"ok\":true,\"result\":{\"seq\":1,\"rtt_us\":1000,\"path\":{\"remote\":\"192.0.2.1:5\","
		"\"kind\":\"direct\"}}}\n{\"ok\":true,\"result\":{\"seq\":2,\"timeout\":true}}\n"
		"{\"ok\":true,\"result\":{\"seq\":3,\"rtt_us\":3000,\"done\":true}}\n";
	struct played p;

	(void)state;
	played_begin(&p, "home.sock", answer);
	capture_expect(
		&got, "ping -c 3 -i 0.2 -W 150ms --network home bob", SM_EXIT_OK,
		"bob: seq 1, 1.000 ms, direct by 192.0.2.1:5\n"
		"no answer from bob: seq 2\n"
		"bob: seq 3, 3.000 ms, - by -\n"
		"-- bob: 3 sent, 2 answered, 33 % lost; min 1.000, avg 2.000, max 3.000 ms\n",
		NULL);
	assert_string_equal(p.asked, "{\"command\":\"ping\",\"node\":\"bob\",\"count\":3,"
				     "\"interval_us\":200000,\"timeout_us\":150000}");
	played_end(&p);
	played_begin(&p, "home.sock", "{\"ok\":true,\"result\":{\"seq\":1,\"done\":true}}\n");
	capture_expect(&got, "ping -c 1 bob", SM_EXIT_FAILURE,
		       "-- bob: 1 sent, 0 answered, 100 % lost\n", NULL);
	played_end(&p);
}

static void test_reload(void **state)
{
	struct played p;

	(void)state;
	played_begin(&p, "home.sock", "{\"ok\":true,\"result\":{\"note\":\"\"}}\n");
	capture_expect(&got, "reload", SM_EXIT_OK, NULL, NULL);
	assert_string_equal(p.asked, "{\"command\":\"reload\"}");
	played_end(&p);
	played_begin(&p, "home.sock", "{\"ok\":true,\"result\":{\"note\":\"MTU changed\"}}\n");
	capture_expect(&got, "reload home", SM_EXIT_OK, "MTU changed\n", NULL);
	played_end(&p);
}

/* It returns when the process that held the socket has gone, not when it says so. */
static void test_down(void **state)
{
	struct played p;
	uint64_t start_us;
	int ready[2];
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		played_begin(&p, "home.sock", "{\"ok\":true,\"result\":{}}\n");
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		while (!p.served)
			(void)poll(NULL, 0, 1);
		(void)poll(NULL, 0, 300);
		unlink(p.path);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	start_us = sm_clock_now_us();
	capture_expect(&got, "down", SM_EXIT_OK, NULL, NULL);
	assert_true(sm_clock_now_us() - start_us >= 290 * SM_MSEC_US);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(ready[0]);
	close(ready[1]);
	/* a refusal is told */
	played_begin(&p, "home.sock", "{\"ok\":false,\"error\":\"not now\"}\n");
	capture_expect(&got, "down", SM_EXIT_FAILURE, NULL, "shadowmesh down: not now\n");
	played_end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody),      cmocka_unit_test(test_only_one),
		cmocka_unit_test(test_bad_answers), cmocka_unit_test(test_odd_results),
		cmocka_unit_test(test_timeout),     cmocka_unit_test(test_lines),
		cmocka_unit_test(test_status),      cmocka_unit_test(test_peers),
		cmocka_unit_test(test_ping),        cmocka_unit_test(test_reload),
		cmocka_unit_test(test_down),
	};

	return cmocka_run_group_tests_name("client", tests, set_up, tear_down);
}

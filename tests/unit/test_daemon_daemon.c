// SPDX-License-Identifier: MIT
/*
 * The whole daemon as the command line starts it: checked only; failing at each step of its start; running
 * until it is told to end, in front and in the background. It runs in a process and a network namespace of
 * its own, and reports to a service manager that the test plays.
 */
#include "daemons.h"

#include "netns.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemons bed;
static int manager = -1;

static int set_up(void **state)
{
	(void)state;
	daemons_init(&bed);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (manager >= 0)
		close(manager);
	manager = -1;
	unsetenv("NOTIFY_SOCKET");
	daemons_done(&bed);
	return 0;
}

/* -- sm_daemon_check() -- */

static void test_check(void **state)
{
	static const struct {
		const char *file, *text; /* what is put in place of a good one, or nothing */
		int64_t days;            /* that our certificate lasts */
		int err;
		const char *error, *warning;
	} rows[] = {
		{NULL, NULL, 90, 0, NULL, NULL},
		{NULL, NULL, 3, 0, NULL, "our certificate expires in "},
		{"n0.conf", NULL, 90, -ENOENT, "No such file", NULL},
		{"n0.conf", "[Network]\n", 90, -EINVAL, "n0.conf", NULL},
		{"n0.conf", "[Network\n", 90, -EINVAL, "n0.conf:1", NULL},
		{"n0.key", NULL, 90, -EINVAL, "PrivateKey", NULL},
		{"n0.key", "no key\n", 90, -EBADMSG, "private key ", NULL},
		{"ca.pem", "no CA\n", 90, -EBADMSG, "CA ", NULL},
		{"n0.pem", "nothing\n", 90, -EBADMSG, "certificate ", NULL},
	};
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));

	(void)state;
	assert_non_null(errors);
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		int err;

		daemons_done(&bed);
		daemons_init(&bed);
		daemons_certify(&bed, 0, "n0", sm_clock_wall_s() + rows[i].days * PKI_DAY_S);
		daemons_configure(&bed, 0, CONF(.ca = true));
		if (rows[i].file)
			assert_int_equal(unlink(daemons_path(&bed, rows[i].file)), 0);
		if (rows[i].text)
			daemons_write(&bed, rows[i].file, rows[i].text);
		memset(errors, 0, sizeof(*errors));
		err = sm_daemon_check(daemons_path(&bed, "n0.conf"), errors);
		if (err != rows[i].err)
			fail_msg("row %zu: %d %s", i, err, errors->text[0]);
		assert_int_equal(errors->count > 0, rows[i].error != NULL);
		if (rows[i].error && !strstr(errors->text[0], rows[i].error))
			fail_msg("row %zu: '%s'", i, errors->text[0]);
		assert_int_equal(errors->warning_count > 0, rows[i].warning != NULL);
		if (rows[i].warning && !strstr(errors->warning[0], rows[i].warning))
			fail_msg("row %zu: '%s'", i, errors->warning[0]);
		assert_string_equal(bed.log, ""); /* they became entries, not lines */
	}
	free(errors);
}

/* -- sm_daemon_run(), each in a process of its own -- */

static void manager_open(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", daemons_path(&bed, "notify"));
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(manager >= 0);
	assert_int_equal(bind(manager, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	setenv("NOTIFY_SOCKET", addr.sun_path, 1);
}

/* Waits until a notice begins with @wanted; others before it are passed over */
static void await_notice(const char *wanted)
{
	struct pollfd p = {.fd = manager, .events = POLLIN};
	char text[512];

	for (;;) {
		ssize_t n;

		if (poll(&p, 1, (int)(DAEMONS_NEVER / SM_MSEC_US)) != 1)
			fail_msg("never: %s", wanted);
		n = recv(manager, text, sizeof(text) - 1, 0);
		assert_true(n > 0);
		text[n] = '\0';
		if (!strncmp(text, wanted, strlen(wanted)))
			return;
	}
}

/* Return: the process; its stderr goes to the file "err" */
static pid_t start(bool detach)
{
	const char *conf = daemons_path(&bed, "n0.conf"), *err = daemons_path(&bed, "err");
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct sm_daemon_options options = {
			.config_path = conf, .detach = detach, .log_level_override = SM_LOG_INFO};
		const int fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
			_exit(99);
		sm_log_set_sink(NULL, NULL);
		_exit(sm_daemon_run(&options));
	}
	return pid;
}

static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status))
		fail_msg("ended by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static void expect_said(const char *part)
{
	static char text[65536];
	FILE *f = fopen(daemons_path(&bed, "err"), "re");
	size_t len;

	assert_non_null(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[len] = '\0';
	if (!strstr(text, part))
		fail_msg("no '%s' in:\n%s", part, text);
}

static void expect_nothing_left(void)
{
	assert_int_equal(if_nametoindex("n0"), 0);
	assert_int_equal(access(daemons_path(&bed, "n0.sock"), F_OK), -1);
}

static void test_run(void **state)
{
	static const struct {
		const char *interface, *said;
	} rows[] = {
		{NULL,
		 ": TAP n0 is up with MTU 1500, control port 9443, data port 9443, 1 worker, "},
		{"MTU = 1400\n", ": TAP n0 is up with MTU 1400, "},
	};

	(void)state;
	manager_open();
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		pid_t pid;

		daemons_configure(&bed, 0, CONF(.ca = true, .interface = rows[i].interface));
		pid = start(false);
		await_notice("READY=1");
		assert_int_not_equal(if_nametoindex("n0"), 0);
		assert_int_equal(access(daemons_path(&bed, "n0.sock"), F_OK), 0);
		expect_said(rows[i].said);
		assert_int_equal(kill(pid, SIGHUP), 0);
		await_notice("RELOADING=1");
		await_notice("READY=1");
		assert_int_equal(kill(pid, SIGTERM), 0);
		await_notice("STOPPING=1");
		assert_int_equal(wait_for(pid), 0);
		expect_said("ending on signal 15");
		expect_nothing_left();
	}
}

/* Keys in memory must not reach the disk. */
static void test_no_core(void **state)
{
	struct rlimit core;
	pid_t pid;

	(void)state;
	manager_open();
	daemons_configure(&bed, 0, CONF(.ca = true));
	pid = start(false);
	await_notice("READY=1");
	assert_int_equal(prlimit(pid, RLIMIT_CORE, NULL, &core), 0);
	assert_int_equal(core.rlim_max, 0);
	kill(pid, SIGINT);
	assert_int_equal(wait_for(pid), 0);
}

/* Each step of the start fails: exit code 1, the reason, and the machine as before */
static void test_run_fails(void **state)
{
	static const struct {
		const char *file, *text; /* in place of a good one */
		const char *network, *interface, *more, *said;
	} rows[] = {
		{"n0.conf", NULL, NULL, NULL, NULL, "No such file"},
		{"n0.conf", "[Network]\nFly = 1\n", NULL, NULL, NULL, "Fly"},
		{"n0.key", "no key\n", NULL, NULL, NULL, "private key "},
		{NULL, NULL, NULL, "MTU = 576\nAddress = fd00::1/64\n", NULL, "cannot set address"},
		{NULL, NULL, "AccessKey = missing\n", NULL, NULL, "missing"},
		{"n0.sock", "in the way", NULL, NULL, NULL, "n0.sock"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const bool blocks = rows[i].file && !strcmp(rows[i].file, "n0.sock");

		daemons_done(&bed);
		daemons_init(&bed);
		daemons_configure(&bed, 0,
				  CONF(.ca = true, .network = rows[i].network,
				       .interface = rows[i].interface, .more = rows[i].more));
		if (blocks) /* a folder that is not empty: no socket can replace it */
			assert_int_equal(mkdir(daemons_path(&bed, rows[i].file), 0700), 0);
		else if (rows[i].file)
			assert_int_equal(unlink(daemons_path(&bed, rows[i].file)), 0);
		if (!blocks && rows[i].text)
			daemons_write(&bed, rows[i].file, rows[i].text);
		assert_int_equal(wait_for(start(false)), 1);
		expect_said(rows[i].said);
		assert_int_equal(wait_for(start(true)), 1); /* the command tells it, too */
		expect_said(rows[i].said);
		if (blocks)
			assert_int_equal(rmdir(daemons_path(&bed, rows[i].file)), 0);
		expect_nothing_left();
	}
}

static void test_twice(void **state)
{
	pid_t pid;

	(void)state;
	manager_open();
	daemons_configure(&bed, 0, CONF(.ca = true));
	pid = start(false);
	await_notice("READY=1");
	assert_int_equal(wait_for(start(false)), 1);
	expect_said("network bed is up already on this machine (pid ");
	/* and the first one minds nothing */
	assert_int_not_equal(if_nametoindex("n0"), 0);
	assert_int_equal(access(daemons_path(&bed, "n0.sock"), F_OK), 0);
	kill(pid, SIGTERM);
	assert_int_equal(wait_for(pid), 0);
	expect_nothing_left();
}

static void test_background(void **state)
{
	static const char down[] = "{\"command\":\"down\"}\n";
	struct pollfd p;
	char answer[64];
	int fd;

	(void)state;
	manager_open();
	daemons_configure(&bed, 0, CONF(.ca = true));
	/* the command is back when the daemon is ready, not before */
	assert_int_equal(wait_for(start(true)), 0);
	assert_int_not_equal(if_nametoindex("n0"), 0);
	fd = daemons_dial(&bed, 0);
	assert_int_equal(send(fd, down, sizeof(down) - 1, MSG_NOSIGNAL), sizeof(down) - 1);
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, (int)(DAEMONS_NEVER / SM_MSEC_US)), 1);
	assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
	assert_memory_equal(answer, "{\"ok\":true", 10);
	await_notice("STOPPING=1");
	/* the end of its socket is not the end of it: wait until the card has gone */
	for (unsigned i = 0; i < 2000 && if_nametoindex("n0"); i++)
		(void)poll(NULL, 0, 10);
	expect_nothing_left();
	close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest unprivileged[] = {TEST(test_check)};
	const struct CMUnitTest privileged[] = {
		TEST(test_run),   TEST(test_no_core),    TEST(test_run_fails),
		TEST(test_twice), TEST(test_background),
	};
	int failed;

	unsetenv("NOTIFY_SOCKET");
	failed = cmocka_run_group_tests_name("daemon check", unprivileged, NULL, NULL);
	if (failed)
		return failed;
	netns_enter();
	failed = cmocka_run_group_tests_name("daemon", privileged, NULL, NULL);
	netns_leave();
	return failed;
}

// SPDX-License-Identifier: MIT
/*
 * Notices to the service manager, to a socket of our own; and the way to the background.
 */
#include "daemon/detach.h"
#include "daemon/notify.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* --- sd_notify --- */

struct manager {
	int fd;
	char name[108];
	struct sm_notify notify;
};

/* @name: a path, or "@..." */
static void manager_open(struct manager *m, const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = strlen(name);

	snprintf(m->name, sizeof(m->name), "%s", name);
	memcpy(addr.sun_path, m->name, len);
	if (name[0] == '@')
		addr.sun_path[0] = '\0';
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(m->fd >= 0);
	assert_int_equal(bind(m->fd, (struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
			 0);
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(sm_notify_open(&m->notify), 0);
	assert_true(m->notify.fd >= 0);
}

static void manager_close(struct manager *m)
{
	sm_notify_close(&m->notify);
	assert_int_equal(m->notify.fd, -1);
	close(m->fd);
	if (m->name[0] == '/')
		unlink(m->name);
	unsetenv("NOTIFY_SOCKET");
}

static const char *manager_read(struct manager *m)
{
	static char text[2048];
	ssize_t n = recv(m->fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

static uint64_t monotonic_us(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
	return (uint64_t)now.tv_sec * SM_SEC_US + (uint64_t)now.tv_nsec / 1000;
}

static void check_messages(struct manager *m)
{
	uint64_t before = monotonic_us(), us = 0;

	sm_notify_ready(&m->notify);
	assert_string_equal(manager_read(m), "READY=1");
	sm_notify_reloading(&m->notify);
	assert_int_equal(sscanf(manager_read(m), "RELOADING=1\nMONOTONIC_USEC=%" SCNu64, &us), 1);
	assert_in_range(us, before, monotonic_us());
	sm_notify_stopping(&m->notify);
	assert_string_equal(manager_read(m), "STOPPING=1");
	sm_notify_watchdog(&m->notify);
	assert_string_equal(manager_read(m), "WATCHDOG=1");
	/* a status must not be able to carry an assignment of its own */
	sm_notify_status(&m->notify, "%u of 3 up\nREADY=1\x7f", 2u);
	assert_string_equal(manager_read(m), "STATUS=2 of 3 up READY=1 ");
	sm_notify_status(&m->notify, "%s", "");
	assert_string_equal(manager_read(m), "STATUS=");
}

static void test_path(void **state)
{
	struct manager m;
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "/tmp/sm-notify.%d", (int)getpid());
	manager_open(&m, name);
	check_messages(&m);
	manager_close(&m);
}

static void test_abstract(void **state)
{
	struct manager m;
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "@sm-notify.%d", (int)getpid());
	manager_open(&m, name);
	check_messages(&m);
	manager_close(&m);
}

static void test_longest_name(void **state)
{
	struct manager m;
	char name[109];

	(void)state;
	memset(name, 'x', sizeof(name));
	name[0] = '@';
	name[107] = '\0';
	manager_open(&m, name);
	check_messages(&m);
	manager_close(&m);

	memset(name, 'x', sizeof(name));
	name[0] = '@';
	name[108] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(sm_notify_open(&m.notify), -ENAMETOOLONG);
	unsetenv("NOTIFY_SOCKET");
}

static void test_nobody(void **state)
{
	static const struct {
		const char *name;
		int result;
	} rows[] = {
		{NULL, 0},
		{"", 0},
		{"vsock:2:1234", -EAFNOSUPPORT},
		{"/", -EAFNOSUPPORT},
		{"@", -EAFNOSUPPORT},
		{"relative", -EAFNOSUPPORT},
		{"/nowhere/at/all", -ENOENT},
		{"@sm-nobody-listens-here", -ECONNREFUSED},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_notify notify = {.fd = 99};

		if (rows[i].name != NULL)
			setenv("NOTIFY_SOCKET", rows[i].name, 1);
		else
			unsetenv("NOTIFY_SOCKET");
		assert_int_equal(sm_notify_open(&notify), rows[i].result);
		assert_int_equal(notify.fd, -1);
		/* all of these must be harmless */
		sm_notify_ready(&notify);
		sm_notify_reloading(&notify);
		sm_notify_status(&notify, "x");
		sm_notify_stopping(&notify);
		sm_notify_watchdog(&notify);
		sm_notify_close(&notify);
	}
	unsetenv("NOTIFY_SOCKET");
}

static void test_full_queue(void **state)
{
	struct manager m;
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "@sm-full.%d", (int)getpid());
	manager_open(&m, name);
	/* more than net.unix.max_dgram_qlen: a manager that sleeps must not block us */
	alarm(20);
	for (unsigned i = 0; i < 5000; i++)
		sm_notify_watchdog(&m.notify);
	alarm(0);
	assert_string_equal(manager_read(&m), "WATCHDOG=1");
	manager_close(&m);
}

static void test_watchdog(void **state)
{
	static const struct {
		const char *usec, *pid;
		uint64_t us;
	} rows[] = {
		{NULL, NULL, 0},
		{"20000000", NULL, 20000000},
		{"20000000", "1", 0},
		{"", NULL, 0},
		{"-5", NULL, 0},
		{"0", NULL, 0},
		{"12x", NULL, 0},
		{"20000000", "x", 0},
		{"18446744073709551615", NULL, 0},
		{"30", "self", 30},
	};
	char self[16];

	(void)state;
	snprintf(self, sizeof(self), "%d", (int)getpid());
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const char *pid = rows[i].pid;

		unsetenv("WATCHDOG_USEC");
		unsetenv("WATCHDOG_PID");
		if (rows[i].usec != NULL)
			setenv("WATCHDOG_USEC", rows[i].usec, 1);
		if (pid != NULL)
			setenv("WATCHDOG_PID", strcmp(pid, "self") == 0 ? self : pid, 1);
		assert_int_equal(sm_notify_watchdog_us(), rows[i].us);
	}
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

/* --- to the background --- */

enum ending {
	END_READY,
	END_FAIL,
	END_FAIL_SILENT,
	END_DIE,
	END_READY_LATE,
};

struct outcome {
	int code;
	char err[4096];
	pid_t daemon;
	bool daemon_lives; /* when the command ended */
};

/* The daemon's life: it writes its process number, then ends as asked */
static void daemon_part(struct sm_detach *detach, enum ending ending, pid_t session, int pid_fd)
{
	pid_t pid = getpid();

	if (getsid(0) == pid || getsid(0) == session)
		pid = -1; /* a session leader could get a terminal; the caller's session may end */
	(void)!write(pid_fd, &pid, sizeof(pid));
	switch (ending) {
	case END_READY_LATE:
		(void)poll(NULL, 0, 200);
		/* fall through */
	case END_READY:
		sm_detach_ready(detach);
		fprintf(stderr, "this goes nowhere\n");
		(void)poll(NULL, 0, 60000);
		break;
	case END_FAIL:
		sm_detach_fail(detach, 7, "no %s here", "interface");
		break;
	case END_FAIL_SILENT:
		fprintf(stderr, "told already\n");
		sm_detach_fail(detach, 3, NULL);
		break;
	case END_DIE:
		raise(SIGKILL);
		break;
	}
	_exit(0);
}

static void run_command(enum ending ending, struct outcome *o)
{
	int err[2], pids[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	memset(o, 0, sizeof(*o));
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	assert_int_equal(pipe2(pids, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct sm_detach detach = SM_DETACH_FOREGROUND;
		pid_t session = getsid(0);
		int code = 99, r;

		(void)dup2(err[1], STDERR_FILENO);
		close(err[0]);
		close(err[1]); /* only as stderr may it stay open */
		close(pids[0]);
		r = sm_detach_begin(&detach, &code);
		if (r == 0)
			daemon_part(&detach, ending, session, pids[1]);
		_exit(r == 1 ? code : 98);
	}
	close(err[1]);
	close(pids[1]);
	/* a reader of the command's stderr must see its end: nobody may keep it open */
	while ((n = read(err[0], o->err + len, sizeof(o->err) - 1 - len)) > 0)
		len += (size_t)n;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	o->code = WEXITSTATUS(status);
	assert_int_equal(read(pids[0], &o->daemon, sizeof(o->daemon)), sizeof(o->daemon));
	assert_true(o->daemon > 0);
	o->daemon_lives = kill(o->daemon, 0) == 0;
	if (ending == END_READY || ending == END_READY_LATE)
		kill(o->daemon, SIGKILL);
	close(err[0]);
	close(pids[0]);
}

static void test_detach_ready(void **state)
{
	struct outcome o;

	(void)state;
	for (enum ending e = END_READY; e <= END_READY_LATE; e += END_READY_LATE) {
		run_command(e, &o);
		assert_int_equal(o.code, 0);
		assert_string_equal(o.err, "");
		assert_true(o.daemon_lives);
	}
}

static void test_detach_fail(void **state)
{
	struct outcome o;

	(void)state;
	run_command(END_FAIL, &o);
	assert_int_equal(o.code, 7);
	assert_string_equal(o.err, "no interface here\n");
	run_command(END_FAIL_SILENT, &o);
	assert_int_equal(o.code, 3);
	assert_string_equal(o.err, "told already\n");
	run_command(END_DIE, &o);
	assert_int_equal(o.code, 1);
	assert_string_equal(o.err, "shadowmesh: the daemon ended before it was ready\n");
}

static void test_detach_foreground(void **state)
{
	struct sm_detach detach = SM_DETACH_FOREGROUND;
	char before[256], after[256];

	(void)state;
	assert_non_null(getcwd(before, sizeof(before)));
	sm_detach_ready(&detach);
	sm_detach_fail(&detach, 1, "nobody waits");
	assert_non_null(getcwd(after, sizeof(after)));
	assert_string_equal(before, after);
	assert_int_equal(fcntl(STDERR_FILENO, F_GETFD) < 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_abstract),
		cmocka_unit_test(test_longest_name),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_watchdog),
		cmocka_unit_test(test_detach_ready),
		cmocka_unit_test(test_detach_fail),
		cmocka_unit_test(test_detach_foreground),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

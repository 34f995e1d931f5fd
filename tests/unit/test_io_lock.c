// SPDX-License-Identifier: MIT
/*
 * Locks end with their holder and name it; the holder of a port is found by its socket.
 */
#include "io/lock.h"
#include "netns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_taken_once(void **state)
{
	char holder[SM_HOLDER_MAX] = "";
	int fd = sm_lock_take("network-home", "network home, pid 12", NULL);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sm_lock_take("network-home", "other", holder), -EBUSY);
	assert_string_equal(holder, "network home, pid 12");
	assert_int_equal(sm_lock_take("network-home", "other", NULL), -EBUSY);
	sm_lock_release(fd);

	fd = sm_lock_take("network-home", "x", holder);
	assert_true(fd >= 0);
	assert_int_equal(sm_lock_take("network-home", "other", holder), -EBUSY);
	assert_string_equal(holder, "x");
	sm_lock_release(fd);
	sm_lock_release(-1);
}

static void test_names_do_not_meet(void **state)
{
	int a = sm_lock_take("a", "a", NULL), b = sm_lock_take("b", "b", NULL);

	(void)state;
	assert_true(a >= 0);
	assert_true(b >= 0);
	sm_lock_release(a);
	sm_lock_release(b);
	assert_int_equal(sm_lock_take("", "x", NULL), -EINVAL);
	assert_int_equal(sm_lock_take("../x", "x", NULL), -EINVAL);
}

static void test_holder_text_is_tame(void **state)
{
	char holder[SM_HOLDER_MAX], note[3 * SM_HOLDER_MAX];
	int fd = sm_lock_take("tame", "a\033[2Jb\nc", NULL);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sm_lock_take("tame", "x", holder), -EBUSY);
	assert_string_equal(holder, "a?[2Jb");
	sm_lock_release(fd);

	memset(note, 'n', sizeof(note) - 1);
	note[sizeof(note) - 1] = 0;
	fd = sm_lock_take("tame", note, NULL);
	assert_true(fd >= 0);
	assert_int_equal(sm_lock_take("tame", "x", holder), -EBUSY);
	assert_int_equal(strlen(holder), SM_HOLDER_MAX - 1);
	sm_lock_release(fd);
}

/* A child that takes the lock, says so on the pipe and waits to be killed. */
static pid_t holder_process(const char *name, bool own_netns)
{
	int ready[2];
	char answer = 0;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (own_netns && unshare(CLONE_NEWNET) < 0)
			_exit(1);
		answer = sm_lock_take(name, "the child", NULL) >= 0 ? 'y' : 'n';
		if (write(ready[1], &answer, 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &answer, 1), 1);
	assert_int_equal(answer, 'y');
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end_process(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_ends_with_the_process(void **state)
{
	pid_t pid = holder_process("child", false);
	char holder[SM_HOLDER_MAX];
	int fd;

	(void)state;
	assert_int_equal(sm_lock_take("child", "x", holder), -EBUSY);
	assert_string_equal(holder, "the child");
	end_process(pid);
	fd = sm_lock_take("child", "x", holder);
	assert_true(fd >= 0);
	sm_lock_release(fd);
}

static void test_namespaces_have_their_own(void **state)
{
	pid_t pid = holder_process("shared", true);
	int fd = sm_lock_take("shared", "x", NULL);

	(void)state;
	assert_true(fd >= 0);
	sm_lock_release(fd);
	end_process(pid);
}

static void test_runtime_dir(void **state)
{
	char dir[128];
	struct stat st;
	int fd;

	(void)state;
	assert_string_equal(sm_lock_runtime_dir(), netns_runtime_dir());
	snprintf(dir, sizeof(dir), "%s/made", netns_runtime_dir());
	setenv("SHADOWMESH_RUNTIME_DIR", dir, 1);
	umask(077);
	fd = sm_lock_take("x", "x", NULL);
	umask(022);
	assert_true(fd >= 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	sm_lock_release(fd);
	assert_int_equal(system("rm -r \"$SHADOWMESH_RUNTIME_DIR\""), 0);

	setenv("SHADOWMESH_RUNTIME_DIR", "/proc/nowhere", 1);
	assert_int_equal(sm_lock_take("x", "x", NULL), -ENOENT);
	setenv("SHADOWMESH_RUNTIME_DIR", "", 1);
	assert_string_equal(sm_lock_runtime_dir(), "/run/shadowmesh");
	setenv("SHADOWMESH_RUNTIME_DIR", netns_runtime_dir(), 1);
}

static int bound_socket(int family, int type, uint16_t *ret_port)
{
	struct sockaddr_in6 sa = {.sin6_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(sa);
	int fd = socket(family, type, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*ret_port = ntohs(sa.sin6_port); /* at the same place in both families */
	return fd;
}

static void test_port_holder(void **state)
{
	static const int families[] = {AF_INET, AF_INET6};
	char holder[SM_HOLDER_MAX], self[SM_HOLDER_MAX];
	uint16_t port;

	(void)state;
	snprintf(self, sizeof(self), "test_io_lock (pid %d)", (int)getpid());
	for (size_t i = 0; i < SM_ARRAY_SIZE(families); i++) {
		int fd = bound_socket(families[i], SOCK_DGRAM, &port);

		assert_int_equal(sm_lock_port_holder(true, port, holder), 0);
		assert_string_equal(holder, self);
		assert_int_equal(sm_lock_port_holder(false, port, holder), -ENOENT);
		close(fd);
		assert_int_equal(sm_lock_port_holder(true, port, holder), -ENOENT);

		fd = bound_socket(families[i], SOCK_STREAM, &port);
		assert_int_equal(sm_lock_port_holder(false, port, holder), -ENOENT);
		assert_int_equal(listen(fd, 1), 0);
		assert_int_equal(sm_lock_port_holder(false, port, holder), 0);
		assert_string_equal(holder, self);
		assert_int_equal(sm_lock_port_holder(true, port, holder), -ENOENT);
		close(fd);
	}
}

/* A socket that both have stands for one of each on the same port. */
static void test_port_holder_is_another_first(void **state)
{
	char holder[SM_HOLDER_MAX], other[SM_HOLDER_MAX];
	uint16_t port;
	int fd = bound_socket(AF_INET, SOCK_DGRAM, &port);
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(1);
	}
	snprintf(other, sizeof(other), "test_io_lock (pid %d)", (int)pid);
	assert_int_equal(sm_lock_port_holder(true, port, holder), 0);
	assert_string_equal(holder, other);
	end_process(pid);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_once),
		cmocka_unit_test(test_names_do_not_meet),
		cmocka_unit_test(test_holder_text_is_tame),
		cmocka_unit_test(test_ends_with_the_process),
		cmocka_unit_test(test_namespaces_have_their_own),
		cmocka_unit_test(test_runtime_dir),
		cmocka_unit_test(test_port_holder),
		cmocka_unit_test(test_port_holder_is_another_first),
	};
	int failed;

	netns_enter();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	netns_leave();
	return failed;
}

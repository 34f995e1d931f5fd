// SPDX-License-Identifier: MIT
/*
 * Devices made, taken over and refused; a refusal names cause and cure.
 */
#include "io/netlink.h"
#include "io/tun.h"
#include "netns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* A device as another program would open it. Return: its descriptor */
static int stranger(const char *name, int flags, bool persistent)
{
	struct ifreq request = {.ifr_flags = (short)flags};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);

	assert_true(fd >= 0);
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, persistent), 0);
	return fd;
}

static void leave_device(const char *name, int flags)
{
	close(stranger(name, flags, true));
	assert_true(if_nametoindex(name) != 0);
}

static void remove_device(const char *name, int flags)
{
	close(stranger(name, flags, false));
	assert_int_equal(if_nametoindex(name), 0);
}

static void get_info(int ifindex, struct sm_link_tun *ret_info)
{
	struct sm_netlink *nl;

	assert_int_equal(sm_netlink_open(&nl), 0);
	assert_int_equal(sm_netlink_tun(nl, ifindex, ret_info), 0);
	sm_netlink_close(nl);
}

static void test_made_and_gone(void **state)
{
	static const struct {
		enum sm_mode mode;
		uint32_t queues;
	} cases[] = {
		{SM_MODE_TAP, 1},
		{SM_MODE_TUN, 1},
		{SM_MODE_TAP, 4},
		{SM_MODE_TUN, SM_WORKER_MAX},
	};
	char error[SM_TUN_ERROR_MAX];
	struct sm_link_tun info;
	struct sm_tun tun;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(sm_tun_open("sm0", cases[i].mode, cases[i].queues, &tun, error),
				 0);
		assert_string_equal(tun.name, "sm0");
		assert_int_equal(tun.ifindex, if_nametoindex("sm0"));
		assert_int_equal(tun.queues, cases[i].queues);
		assert_false(tun.taken_over);
		for (uint32_t q = 0; q < tun.queues; q++) {
			int len = 0;

			assert_int_equal(ioctl(tun.fd[q], TUNGETVNETHDRSZ, &len), 0);
			assert_int_equal(len, SM_VNET_HDR_LEN);
			assert_true(fcntl(tun.fd[q], F_GETFL) & O_NONBLOCK);
		}
		get_info(tun.ifindex, &info);
		assert_true(info.is_tun);
		assert_false(info.persistent);
		assert_int_equal(info.is_tap, cases[i].mode == SM_MODE_TAP);
		assert_int_equal(info.queues, cases[i].queues > 1 ? cases[i].queues : 0);
		assert_int_equal(info.multi_queue, cases[i].queues > 1);
		sm_tun_close(&tun);
		assert_int_equal(if_nametoindex("sm0"), 0);
	}
}

static void test_numbered(void **state)
{
	char error[SM_TUN_ERROR_MAX];
	struct sm_tun a, b;

	(void)state;
	assert_int_equal(sm_tun_open("smesh%d", SM_MODE_TAP, 1, &a, error), 0);
	assert_int_equal(sm_tun_open("smesh%d", SM_MODE_TAP, 2, &b, error), 0);
	assert_string_equal(a.name, "smesh0");
	assert_string_equal(b.name, "smesh1");
	assert_int_equal(b.ifindex, if_nametoindex("smesh1"));
	sm_tun_close(&a);
	sm_tun_close(&b);
}

/* The kernel greets a new IPv6 interface with multicast: a frame behind a header of 10 bytes. */
static void test_frames_have_a_header(void **state)
{
	char error[SM_TUN_ERROR_MAX];
	struct sm_netlink *nl;
	struct pollfd p = {.events = POLLIN};
	struct sm_ether ether;
	uint8_t buf[2048];
	struct sm_tun tun;
	ssize_t len;

	(void)state;
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 1, &tun, error), 0);
	assert_int_equal(sm_netlink_open(&nl), 0);
	assert_int_equal(read(tun.fd[0], buf, sizeof(buf)), -1);
	assert_int_equal(sm_netlink_set_up(nl, tun.ifindex, true), 0);
	p.fd = tun.fd[0];
	assert_int_equal(poll(&p, 1, 5000), 1);
	len = read(tun.fd[0], buf, sizeof(buf));
	assert_true(len > SM_VNET_HDR_LEN + SM_ETH_HEADER_LEN);
	assert_int_equal(
		sm_ether_parse(buf + SM_VNET_HDR_LEN, (size_t)len - SM_VNET_HDR_LEN, &ether), 0);
	assert_int_equal(ether.type, 0x86dd);
	assert_int_equal(ether.dst >> 32, 0x3333);
	sm_netlink_close(nl);
	sm_tun_close(&tun);
}

static void test_taken_over(void **state)
{
	static const struct {
		int flags;
		enum sm_mode mode;
		uint32_t queues;
	} cases[] = {
		{IFF_TAP, SM_MODE_TAP, 1},
		{IFF_TUN | IFF_NO_PI, SM_MODE_TUN, 1},
		{IFF_TAP | IFF_MULTI_QUEUE, SM_MODE_TAP, 1},
		{IFF_TAP | IFF_MULTI_QUEUE, SM_MODE_TAP, 3},
	};
	char error[SM_TUN_ERROR_MAX] = "";
	struct sm_tun tun;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		int fd = stranger("sm0", cases[i].flags | IFF_VNET_HDR, true), len = 12;

		assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &len), 0);
		close(fd);
		if (sm_tun_open("sm0", cases[i].mode, cases[i].queues, &tun, error))
			fail_msg("%s", error);
		assert_true(tun.taken_over);
		assert_int_equal(ioctl(tun.fd[0], TUNGETVNETHDRSZ, &len), 0);
		assert_int_equal(len, SM_VNET_HDR_LEN);
		sm_tun_close(&tun);
		remove_device("sm0", cases[i].flags);
	}
}

static void test_other_kinds_are_refused(void **state)
{
	static const struct {
		int flags;
		enum sm_mode mode;
		uint32_t queues;
		const char *error;
	} cases[] = {
		{IFF_TUN, SM_MODE_TAP, 1,
		 "sm0 exists as a TUN and a TAP is wanted: delete it with 'ip link del sm0' or "
		 "change the configuration"},
		{IFF_TAP, SM_MODE_TUN, 1,
		 "sm0 exists as a TAP and a TUN is wanted: delete it with 'ip link del sm0' or "
		 "change the configuration"},
		{IFF_TAP, SM_MODE_TAP, 2,
		 "sm0 exists without multi_queue and 2 workers are wanted: delete it with 'ip "
		 "link del sm0' or change the configuration"},
	};
	char error[SM_TUN_ERROR_MAX];
	struct sm_tun tun;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		leave_device("sm0", cases[i].flags);
		assert_int_equal(sm_tun_open("sm0", cases[i].mode, cases[i].queues, &tun, error),
				 -EINVAL);
		assert_string_equal(error, cases[i].error);
		remove_device("sm0", cases[i].flags);
	}
	assert_int_equal(sm_tun_open("lo", SM_MODE_TAP, 1, &tun, error), -EINVAL);
	assert_string_equal(error,
			    "lo exists and is neither TAP nor TUN: choose another interface name");
}

static void test_stranger_is_named(void **state)
{
	static const int flags[] = {IFF_TAP, IFF_TAP | IFF_MULTI_QUEUE};
	char error[SM_TUN_ERROR_MAX], want[SM_TUN_ERROR_MAX];
	struct sm_link_tun info;
	struct sm_tun tun;

	(void)state;
	snprintf(want, sizeof(want),
		 "sm0 is in use by test_io_tun (pid %d): two readers would steal each other's "
		 "frames; end it or choose another interface name",
		 (int)getpid());
	for (size_t i = 0; i < SM_ARRAY_SIZE(flags); i++) {
		for (uint32_t persistent = 0; persistent < 2; persistent++) {
			int fd = stranger("sm0", flags[i], persistent);

			assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 1, &tun, error), -EBUSY);
			assert_string_equal(error, want);
			get_info((int)if_nametoindex("sm0"), &info);
			assert_true(info.queues <= 1);
			ioctl(fd, TUNSETPERSIST, 0);
			close(fd);
		}
	}
}

static void test_own_daemon_is_named(void **state)
{
	char error[SM_TUN_ERROR_MAX], want[64];
	struct sm_tun tun, second;

	(void)state;
	snprintf(want, sizeof(want), "sm0 is in use by shadowmesh (pid %d): ", (int)getpid());
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 2, &tun, error), 0);
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 2, &second, error), -EBUSY);
	assert_memory_equal(error, want, strlen(want));
	sm_tun_close(&tun);
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 2, &tun, error), 0);
	sm_tun_close(&tun);
}

static void test_bad_arguments(void **state)
{
	static const struct {
		const char *name, *error;
	} cases[] = {
		{"", "an interface name has 1 to 15 bytes"},
		{"sixteen-bytes-xx", "an interface name has 1 to 15 bytes"},
		{"a/b", "an interface name has no '/', ':' or white space in it"},
		{"a b", "an interface name has no '/', ':' or white space in it"},
		{"..", "an interface name has no '/', ':' or white space in it"},
		{"sm%s", "an interface name has no '%' but in one \"%d\""},
		{"sm%d%d", "an interface name has no '%' but in one \"%d\""},
	};
	char error[SM_TUN_ERROR_MAX];
	struct sm_tun tun;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(sm_tun_open(cases[i].name, SM_MODE_TAP, 1, &tun, error), -EINVAL);
		assert_string_equal(error, cases[i].error);
	}
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, 0, &tun, error), -EINVAL);
	assert_int_equal(sm_tun_open("sm0", SM_MODE_TAP, SM_WORKER_MAX + 1, &tun, error), -EINVAL);
	assert_string_equal(error, "a device has 1 to 16 queues");
}

/* Locks that another user left may not be opened by this one. */
static bool unlink_lock(void)
{
	char path[256];
	struct stat ns;

	if (stat("/proc/self/ns/net", &ns) < 0)
		return false;
	snprintf(path, sizeof(path), "%s/lock-%ju-tun-sm0", netns_runtime_dir(),
		 (uintmax_t)ns.st_ino);
	return unlink(path) == 0 || errno == ENOENT;
}

/* In a child: what sm_tun_open() says after @prepare. Return: its result; @error is what it said */
static int open_in_child(bool (*prepare)(void), char error[SM_TUN_ERROR_MAX])
{
	struct sm_tun tun;
	int ends[2], err = 1;
	pid_t pid;

	memset(error, 0, SM_TUN_ERROR_MAX);
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (prepare())
			err = sm_tun_open("sm0", SM_MODE_TAP, 1, &tun, error);
		if (write(ends[1], &err, sizeof(err)) < 0 ||
		    write(ends[1], error, SM_TUN_ERROR_MAX) < 0)
			_exit(1);
		_exit(0);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &err, sizeof(err)), sizeof(err));
	assert_int_equal(read(ends[0], error, SM_TUN_ERROR_MAX), SM_TUN_ERROR_MAX);
	close(ends[0]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return err;
}

static bool hide_device(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", "/dev/net", "tmpfs", 0, NULL) == 0;
}

/* A device node for everybody, in a runtime directory for everybody: only the capability lacks. */
static bool drop_capability(void)
{
	return hide_device() && mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) == 0 &&
	       chmod("/dev/net/tun", 0666) == 0 && chmod(netns_runtime_dir(), 0777) == 0 &&
	       unlink_lock() && setuid(65534) == 0;
}

static bool drop_access(void)
{
	return hide_device() && mknod("/dev/net/tun", S_IFCHR | 0600, makedev(10, 200)) == 0 &&
	       chmod(netns_runtime_dir(), 0777) == 0 && unlink_lock() && setuid(65534) == 0;
}

static void test_missing_rights_are_explained(void **state)
{
	char error[SM_TUN_ERROR_MAX];

	(void)state;
	assert_int_equal(open_in_child(hide_device, error), -ENOENT);
	assert_string_equal(error, "/dev/net/tun is missing: load it with 'modprobe tun', or give "
				   "the container the device (--device /dev/net/tun --cap-add "
				   "NET_ADMIN)");
	assert_int_equal(open_in_child(drop_access, error), -EPERM);
	assert_string_equal(error, "/dev/net/tun may not be opened by this user: run as root, or "
				   "in a container allow the device (--device /dev/net/tun)");
	assert_int_equal(open_in_child(drop_capability, error), -EPERM);
	assert_string_equal(error, "sm0 may not be opened: the capability CAP_NET_ADMIN is missing "
				   "(run as root, or give a container --cap-add NET_ADMIN)");
	assert_true(unlink_lock());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made_and_gone),
		cmocka_unit_test(test_numbered),
		cmocka_unit_test(test_frames_have_a_header),
		cmocka_unit_test(test_taken_over),
		cmocka_unit_test(test_other_kinds_are_refused),
		cmocka_unit_test(test_stranger_is_named),
		cmocka_unit_test(test_own_daemon_is_named),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_missing_rights_are_explained),
	};
	int failed;

	netns_enter();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	netns_leave();
	return failed;
}

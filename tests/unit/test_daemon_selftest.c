// SPDX-License-Identifier: MIT
/*
 * The self-test of the offloads: against this kernel, and against one that refuses this or that, which a
 * system call filter plays.
 */
#include "daemon/selftest.h"

#include "base/clock.h"

#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define USO_FLAGS 0x60u /* TUN_F_USO4 | TUN_F_USO6 */

/**
 * struct refusal - A system call that fails
 * @arg, @value: only where this argument has that value; @bits: and the next one any of these bits; 0: always
 */
struct refusal {
	int number, err;
	uint32_t arg, value, bits;
};

#define ARG(n) ((uint32_t)(offsetof(struct seccomp_data, args) + 8u * (n))) /* little-endian */

static void refuse(const struct refusal *r)
{
	const uint32_t err = SECCOMP_RET_ERRNO | (uint32_t)r->err;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r->number, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(r->arg)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->value, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(r->arg + 1)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, r->bits, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = SM_ARRAY_SIZE(code), .filter = code};

	if (!r->bits) /* the number alone decides */
		code[2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, err);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(2);
}

/* In a process of its own, which leaves this one's namespace where it is */
static struct sm_selftest_result run(enum sm_mode mode, const struct refusal *refusal)
{
	struct sm_selftest_result result;
	int fd[2], status;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (refusal)
			refuse(refusal);
		sm_selftest_run(mode, &result);
		_exit(write(fd[1], &result, sizeof(result)) != sizeof(result));
	}
	close(fd[1]);
	assert_int_equal(read(fd[0], &result, sizeof(result)), sizeof(result));
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return result;
}

static void skip_without_privilege(const struct sm_selftest_result *r)
{
	if (r->ran)
		return;
	print_message("not run: %s\n", r->why_not);
	skip();
}

static void assert_works(const struct sm_selftest_result *r, enum sm_selftest_item item)
{
	if (!r->item[item].works)
		fail_msg("%s: %s", sm_selftest_item_name(item), r->item[item].reason);
	assert_string_equal(r->item[item].reason, "");
}

static void assert_fails(const struct sm_selftest_result *r, enum sm_selftest_item item,
			 const char *reason)
{
	assert_false(r->item[item].works);
	if (!strstr(r->item[item].reason, reason))
		fail_msg("%s: \"%s\" is not in \"%s\"", sm_selftest_item_name(item), reason,
			 r->item[item].reason);
}

static void test_this_kernel(void **state)
{
	(void)state;
	for (int mode = SM_MODE_TAP; mode <= SM_MODE_TUN; mode++) {
		const struct sm_selftest_result r = run((enum sm_mode)mode, NULL);

		skip_without_privilege(&r);
		assert_works(&r, SM_SELFTEST_UDP_SEGMENT);
		assert_works(&r, SM_SELFTEST_UDP_GRO);
		assert_works(&r, SM_SELFTEST_TSO);
		/* kernels before 6.2 have none */
		if (!r.item[SM_SELFTEST_USO].works)
			assert_fails(&r, SM_SELFTEST_USO, "does not have it");
		assert_in_range(r.took_us, 1, 10 * SM_SEC_US);
	}
}

static void test_no_namespace(void **state)
{
	static const struct refusal refusal = {.number = SYS_unshare, .err = EPERM};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	assert_false(r.ran);
	assert_non_null(strstr(r.why_not, "namespace"));
	for (int i = 0; i < SM_SELFTEST_ITEM_COUNT; i++)
		assert_false(r.item[i].works);
}

static void test_old_kernel(void **state)
{
	static const struct refusal refusal = {.number = SYS_ioctl,
					       .err = EINVAL,
					       .arg = 1,
					       .value = TUNSETOFFLOAD,
					       .bits = USO_FLAGS};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	skip_without_privilege(&r);
	assert_works(&r, SM_SELFTEST_TSO);
	assert_fails(&r, SM_SELFTEST_USO, "the kernel's TAP does not have it");
	assert_works(&r, SM_SELFTEST_UDP_SEGMENT);
}

static void test_no_offload_at_all(void **state)
{
	static const struct refusal refusal = {.number = SYS_ioctl,
					       .err = EINVAL,
					       .arg = 1,
					       .value = TUNSETOFFLOAD,
					       .bits = UINT32_MAX};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	skip_without_privilege(&r);
	assert_fails(&r, SM_SELFTEST_TSO, "does not have it");
	assert_fails(&r, SM_SELFTEST_USO, "does not have it");
	assert_works(&r, SM_SELFTEST_UDP_SEGMENT);
	assert_works(&r, SM_SELFTEST_UDP_GRO);
}

static void test_no_gro(void **state)
{
	static const struct refusal refusal = {.number = SYS_setsockopt,
					       .err = ENOPROTOOPT,
					       .arg = 1,
					       .value = IPPROTO_UDP,
					       .bits = UDP_GRO};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	skip_without_privilege(&r);
	assert_fails(&r, SM_SELFTEST_UDP_GRO, strerror(ENOPROTOOPT));
	assert_works(&r, SM_SELFTEST_UDP_SEGMENT);
	assert_works(&r, SM_SELFTEST_TSO);
}

/* Nothing can be sent: neither batches, nor the chunks of what the card hands over */
static void test_no_sending(void **state)
{
	static const struct refusal refusal = {.number = SYS_sendmmsg, .err = EIO};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	skip_without_privilege(&r);
	assert_fails(&r, SM_SELFTEST_UDP_SEGMENT, strerror(EIO));
	assert_fails(&r, SM_SELFTEST_UDP_GRO, strerror(EIO));
	assert_fails(&r, SM_SELFTEST_TSO, strerror(EIO));
}

static void test_card_takes_nothing(void **state)
{
	static const struct refusal refusal = {.number = SYS_writev, .err = EINVAL};
	const struct sm_selftest_result r = run(SM_MODE_TAP, &refusal);

	(void)state;
	skip_without_privilege(&r);
	assert_fails(&r, SM_SELFTEST_TSO, "the card takes no");
	assert_fails(&r, SM_SELFTEST_USO, "the card takes no");
	assert_works(&r, SM_SELFTEST_UDP_SEGMENT);
}

static void test_child(void **state)
{
	struct sm_selftest test = {.fd = -1};
	struct sm_selftest_result r;
	struct pollfd over;
	const uint64_t begin_us = sm_clock_now_us();

	(void)state;
	assert_int_equal(sm_selftest_begin("/proc/self/exe", SM_MODE_TAP, &test), 0);
	assert_true(sm_clock_now_us() - begin_us < SM_SEC_US / 5); /* nobody waits for it */
	over = (struct pollfd){.fd = test.fd, .events = POLLIN};
	assert_int_equal(poll(&over, 1, 20000), 1);
	sm_selftest_take(&test, &r);
	assert_int_equal(test.fd, -1);
	assert_true(r.ran || r.why_not[0]);
	while (test.pid) {
		sm_selftest_reap(&test, false);
		(void)poll(NULL, 0, 1);
	}
	sm_selftest_reap(&test, true); /* there is none any more */
}

static void test_child_is_ended(void **state)
{
	struct sm_selftest test = {.fd = -1};
	struct sm_selftest_result r;

	(void)state;
	assert_int_equal(sm_selftest_begin("/proc/self/exe", SM_MODE_TAP, &test), 0);
	sm_selftest_reap(&test, false);
	assert_true(test.pid > 0);
	assert_int_equal(kill(test.pid, SIGKILL), 0); /* by whomever */
	sm_selftest_take(&test, &r);
	assert_false(r.ran);
	assert_non_null(strstr(r.why_not, "ended"));
	sm_selftest_reap(&test, true);
	assert_int_equal(test.pid, 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void test_no_program(void **state)
{
	struct sm_selftest test = {.fd = -1};

	(void)state;
	assert_int_equal(sm_selftest_begin("/nowhere", SM_MODE_TAP, &test), -ENOENT);
	assert_int_equal(test.fd, -1);
	assert_int_equal(sm_selftest_main("neither"), 2);
}

/* Started by sm_selftest_begin(), this program is the child. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_this_kernel),
		cmocka_unit_test(test_no_namespace),
		cmocka_unit_test(test_old_kernel),
		cmocka_unit_test(test_no_offload_at_all),
		cmocka_unit_test(test_no_gro),
		cmocka_unit_test(test_no_sending),
		cmocka_unit_test(test_card_takes_nothing),
		cmocka_unit_test(test_child),
		cmocka_unit_test(test_child_is_ended),
		cmocka_unit_test(test_no_program),
	};

	if (argc == 4 && !strcmp(argv[2], "--self-test"))
		return sm_selftest_main(argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

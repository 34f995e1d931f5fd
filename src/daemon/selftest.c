// SPDX-License-Identifier: MIT
/*
 * The self-test: see selftest.h. The child, and what is tried in which order; selftest_bed.c has the card.
 */
#include "daemon/selftest.h"

#include "base/clock.h"
#include "daemon/selftest_bed.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 20u /* it never takes longer, whatever happens */
#define CHILD_NICE    19
#define SEGMENT       1200u
#define SEGMENTS      9u

static const char *const item_names[] = {
	[SM_SELFTEST_TSO] = "TCP segmentation offload",
	[SM_SELFTEST_USO] = "UDP segmentation offload",
	[SM_SELFTEST_UDP_SEGMENT] = "sending in batches (UDP_SEGMENT)",
	[SM_SELFTEST_UDP_GRO] = "receiving in batches (UDP_GRO)",
};
static_assert(SM_ARRAY_SIZE(item_names) == SM_SELFTEST_ITEM_COUNT, "every item has a name");

const char *sm_selftest_item_name(enum sm_selftest_item item)
{
	return item_names[item];
}

static void judge(struct sm_selftest_result *r, enum sm_selftest_item item, int family,
		  const struct sm_bed_fault *fault)
{
	struct sm_selftest_verdict *v = &r->item[item];

	if (!v->works)
		return; /* by the other family already */
	v->works = !fault->text[0];
	if (!v->works)
		snprintf(v->reason, sizeof(v->reason), "IPv%d: %s", family, fault->text);
}

static void try_sockets(struct sm_bed *bed, int family, struct sm_selftest_result *r)
{
	struct sm_bed_fault fault = {0};
	int err = sm_bed_open_pair(bed, family, &fault);

	if (!err)
		sm_bed_try_pair(bed, SEGMENT, SEGMENTS, false, &fault);
	judge(r, SM_SELFTEST_UDP_SEGMENT, family, &fault);
	fault.text[0] = '\0';
	if (!err)
		sm_bed_try_pair(bed, SEGMENT, SEGMENTS, true, &fault);
	if (!r->item[SM_SELFTEST_UDP_SEGMENT].works && !fault.text[0])
		snprintf(fault.text, sizeof(fault.text), "there is no batch to receive");
	judge(r, SM_SELFTEST_UDP_GRO, family, &fault);
}

static void try_card(struct sm_bed *bed, int family, struct sm_selftest_result *r)
{
	struct sm_bed_fault fault = {0};

	bed->segment = r->item[SM_SELFTEST_UDP_SEGMENT].works;
	sm_bed_set_gro(bed, r->item[SM_SELFTEST_UDP_GRO].works);
	if (bed->tso)
		sm_bed_try_tcp(bed, family, &fault);
	else
		snprintf(fault.text, sizeof(fault.text), "the kernel's TAP does not have it");
	judge(r, SM_SELFTEST_TSO, family, &fault);
	fault.text[0] = '\0';
	if (!bed->uso)
		snprintf(fault.text, sizeof(fault.text), "the kernel's TAP does not have it");
	else if (!r->item[SM_SELFTEST_UDP_SEGMENT].works)
		snprintf(fault.text, sizeof(fault.text), "no socket can send one");
	else
		sm_bed_try_udp(bed, family, &fault);
	judge(r, SM_SELFTEST_USO, family, &fault);
}

void sm_selftest_run(enum sm_mode mode, struct sm_selftest_result *ret_result)
{
	const uint64_t begin_us = sm_clock_now_us();
	struct sm_selftest_result r = {0};
	struct sm_bed *bed = NULL;
	struct sm_bed_fault fault = {0};

	if (sm_bed_new(mode, &bed, &fault)) {
		snprintf(r.why_not, sizeof(r.why_not), "%s", fault.text);
		*ret_result = r;
		return;
	}
	r.ran = true;
	for (int i = 0; i < SM_SELFTEST_ITEM_COUNT; i++)
		r.item[i].works = true;
	for (int family = 4; family <= (bed->ipv6 ? 6 : 4); family += 2) {
		try_sockets(bed, family, &r);
		try_card(bed, family, &r);
	}
	sm_bed_free(bed);
	r.took_us = sm_clock_now_us() - begin_us;
	*ret_result = r;
}

int sm_selftest_main(const char *mode)
{
	const bool tun = !strcmp(mode, "tun");
	struct sm_selftest_result result;

	if (!tun && strcmp(mode, "tap") != 0)
		return 2;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setpriority(PRIO_PROCESS, 0, CHILD_NICE);
	(void)signal(SIGALRM, SIG_DFL);
	(void)alarm(CHILD_SECONDS);
	sm_selftest_run(tun ? SM_MODE_TUN : SM_MODE_TAP, &result);
	return write(STDOUT_FILENO, &result, sizeof(result)) != (ssize_t)sizeof(result);
}

int sm_selftest_begin(const char *program, enum sm_mode mode, struct sm_selftest *ret_test)
{
	char name[] = "shadowmesh", command[] = "up", option[] = "--self-test";
	char tap[] = "tap", tun[] = "tun";
	char *const arguments[] = {name, command, option, mode == SM_MODE_TUN ? tun : tap, NULL};
	posix_spawn_file_actions_t actions;
	int fd[2], err;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	err = posix_spawn_file_actions_init(&actions);
	if (!err) {
		err = posix_spawn_file_actions_adddup2(&actions, fd[1], STDOUT_FILENO);
		if (!err)
			err = posix_spawn(&pid, program, &actions, NULL, arguments, environ);
		(void)posix_spawn_file_actions_destroy(&actions);
	}
	close(fd[1]);
	if (err) {
		close(fd[0]);
		return -err;
	}
	*ret_test = (struct sm_selftest){.pid = pid, .fd = fd[0]};
	return 0;
}

void sm_selftest_take(struct sm_selftest *test, struct sm_selftest_result *ret_result)
{
	ssize_t got;

	do {
		got = read(test->fd, ret_result, sizeof(*ret_result));
	} while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(*ret_result))
		*ret_result = (struct sm_selftest_result){.why_not = "it ended without a result"};
	close(test->fd);
	test->fd = -1;
}

void sm_selftest_reap(struct sm_selftest *test, bool end)
{
	pid_t pid;

	if (test->pid <= 0)
		return;
	if (end)
		(void)kill(test->pid, SIGKILL);
	do {
		pid = waitpid(test->pid, NULL, end ? 0 : WNOHANG);
	} while (pid < 0 && errno == EINTR);
	if (pid != 0)
		test->pid = 0;
}

// SPDX-License-Identifier: MIT
/*
 * Does this machine's kernel do what it says of super-frames and of datagrams sent several at a time?
 *
 * Theory of operation: a child process makes a network namespace of its own (with a user namespace around it
 * where that needs no privilege otherwise) with a card of the network's kind. A socket there sends to an
 * address behind the card. What comes out is classified and cut into chunks as for a peer, goes over the
 * loopback device with UDP_SEGMENT and UDP_GRO, is joined again, and goes back into the card with the
 * addresses exchanged, so that it comes from there: every other time whole, every other time in segments with
 * finished checksums, which the receiving kernel then verifies. Another socket reads and compares.
 *
 * The child is the program itself, started anew: without keys, descriptors and threads of the daemon. Nothing of
 * the daemon's network is touched.
 */
#ifndef SM_DAEMON_SELFTEST_H
#define SM_DAEMON_SELFTEST_H

#include "wire/const.h"

#include <sys/types.h>

enum sm_selftest_item {
	SM_SELFTEST_TSO,         /* super-frames of TCP from and to the card */
	SM_SELFTEST_USO,         /* of UDP */
	SM_SELFTEST_UDP_SEGMENT, /* several datagrams sent in one message */
	SM_SELFTEST_UDP_GRO,     /* several received in one */
	SM_SELFTEST_ITEM_COUNT,
};

#define SM_SELFTEST_TEXT_MAX 120u

struct sm_selftest_verdict {
	bool works;
	char reason[SM_SELFTEST_TEXT_MAX]; /* why not */
};

struct sm_selftest_result {
	bool ran;
	char why_not[SM_SELFTEST_TEXT_MAX]; /* it could not be run */
	struct sm_selftest_verdict item[SM_SELFTEST_ITEM_COUNT];
	uint64_t took_us;
};

const char *sm_selftest_item_name(enum sm_selftest_item item);

/** sm_selftest_run() - All of it; the calling process is in another network namespace afterwards */
void sm_selftest_run(enum sm_mode mode, struct sm_selftest_result *ret_result);

/** struct sm_selftest - One under way in a child (@pid); @fd becomes readable when it is over, -1: none is */
struct sm_selftest {
	pid_t pid; /* 0: none that is not reaped */
	int fd;
};

/**
 * sm_selftest_begin() - Start the child
 * @program: whose `up --self-test MODE` calls sm_selftest_main()
 * Return: 0, -errno: no child
 */
SM_MUST_CHECK int sm_selftest_begin(const char *program, enum sm_mode mode,
				    struct sm_selftest *ret_test);

/** sm_selftest_main() - The child's part: run it, and write the result to standard output; Return: exit code */
int sm_selftest_main(const char *mode);

/** sm_selftest_take() - It is over: what came out; the child may yet be there */
void sm_selftest_take(struct sm_selftest *test, struct sm_selftest_result *ret_result);

/** sm_selftest_reap() - Has the child ended? @end: end it and wait for that */
void sm_selftest_reap(struct sm_selftest *test, bool end);

#endif

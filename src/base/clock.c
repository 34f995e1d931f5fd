// SPDX-License-Identifier: MIT
/*
 * The clocks, read from the kernel. Both exist on every Linux, so reading them cannot fail.
 */
#include "base/clock.h"

#include <time.h>

static struct timespec read_clock(clockid_t id)
{
	struct timespec ts = {0};

	(void)clock_gettime(id, &ts);
	return ts;
}

uint64_t sm_clock_now_us(void)
{
	struct timespec ts = read_clock(CLOCK_BOOTTIME);

	return (uint64_t)ts.tv_sec * SM_SEC_US + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t sm_clock_now_ns(void)
{
	struct timespec ts = read_clock(CLOCK_MONOTONIC);

	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

int64_t sm_clock_wall_s(void)
{
	return (int64_t)read_clock(CLOCK_REALTIME).tv_sec;
}

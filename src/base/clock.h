// SPDX-License-Identifier: MIT
/*
 * The two clocks: CLOCK_BOOTTIME for timers and keys, CLOCK_REALTIME for certificates only.
 */
#ifndef SM_BASE_CLOCK_H
#define SM_BASE_CLOCK_H

#include "base/base.h"

/** sm_clock_now_us() - Return: microseconds of CLOCK_BOOTTIME */
uint64_t sm_clock_now_us(void);

/** sm_clock_now_ns() - Return: nanoseconds of CLOCK_MONOTONIC, for profiling only */
uint64_t sm_clock_now_ns(void);

/** sm_clock_wall_s() - Return: seconds since 1970 */
int64_t sm_clock_wall_s(void);

#endif

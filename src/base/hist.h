// SPDX-License-Identifier: MIT
/*
 * A log-linear histogram of durations: 16 steps per power of two (error below 6.25 %), one writer,
 * any reader. Nanoseconds in, microseconds out where printed.
 */
#ifndef SM_BASE_HIST_H
#define SM_BASE_HIST_H

#include "base/base.h"

#include <stdatomic.h>

#define SM_HIST_SUB_BITS 4
#define SM_HIST_BUCKETS  640 /* covers 0 to 2^43 ns (2.4 hours); larger values go to the last */

struct sm_hist {
	_Atomic uint64_t count, sum_ns, max_ns;
	_Atomic uint64_t bucket[SM_HIST_BUCKETS]; /* 32 bits would wrap within the hour */
};

/** sm_hist_add() - Record @n events of @ns each; relaxed stores, one writing thread */
void sm_hist_add(struct sm_hist *h, uint64_t ns, uint32_t n);

/** sm_hist_merge() - Add the counts of @from to @to (which nobody else writes) */
void sm_hist_merge(struct sm_hist *to, const struct sm_hist *from);

/**
 * sm_hist_quantile() - Look up quantile @q (0 to 1)
 * Return: upper bound of the bucket in which it lies, never above the maximum, ns; 0 when empty
 */
uint64_t sm_hist_quantile(const struct sm_hist *h, double q);

#endif

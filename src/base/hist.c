// SPDX-License-Identifier: MIT
/*
 * The histogram. Values below 16 have a bucket each; above, the bucket is the position of the highest
 * bit and the four bits behind it.
 */
#include "base/hist.h"

#define SUB_COUNT (1u << SM_HIST_SUB_BITS)

static_assert(SM_HIST_BUCKETS % SUB_COUNT == 0, "whole powers of two");

static unsigned bucket_of(uint64_t ns)
{
	unsigned top, index;

	if (ns < SUB_COUNT)
		return (unsigned)ns;
	top = 63u - (unsigned)__builtin_clzll(ns);
	index = (top - SM_HIST_SUB_BITS + 1) * SUB_COUNT +
		(unsigned)(ns >> (top - SM_HIST_SUB_BITS)) % SUB_COUNT;
	return SM_MIN(index, SM_HIST_BUCKETS - 1u);
}

/* The largest value of a bucket */
static uint64_t bucket_end(unsigned index)
{
	unsigned shift;

	if (index < SUB_COUNT)
		return index;
	shift = index / SUB_COUNT - 1;
	return ((uint64_t)(SUB_COUNT + index % SUB_COUNT + 1) << shift) - 1;
}

/* One writer, so that no read-modify-write instruction is needed. */
static void add_u64(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

static void raise_u64(_Atomic uint64_t *mark, uint64_t v)
{
	if (v > atomic_load_explicit(mark, memory_order_relaxed))
		atomic_store_explicit(mark, v, memory_order_relaxed);
}

void sm_hist_add(struct sm_hist *h, uint64_t ns, uint32_t n)
{
	if (n == 0)
		return;
	raise_u64(&h->max_ns, ns);
	add_u64(&h->count, n);
	add_u64(&h->sum_ns, ns * n);
	add_u64(&h->bucket[bucket_of(ns)], n);
}

void sm_hist_merge(struct sm_hist *to, const struct sm_hist *from)
{
	raise_u64(&to->max_ns, atomic_load_explicit(&from->max_ns, memory_order_relaxed));
	add_u64(&to->count, atomic_load_explicit(&from->count, memory_order_relaxed));
	add_u64(&to->sum_ns, atomic_load_explicit(&from->sum_ns, memory_order_relaxed));
	for (unsigned i = 0; i < SM_HIST_BUCKETS; i++)
		add_u64(&to->bucket[i],
			atomic_load_explicit(&from->bucket[i], memory_order_relaxed));
}

uint64_t sm_hist_quantile(const struct sm_hist *h, double q)
{
	uint64_t total = 0, seen = 0, rank, max_ns;

	/* The buckets themselves, not @count: a writer may be between the two. */
	for (unsigned i = 0; i < SM_HIST_BUCKETS; i++)
		total += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
	if (total == 0)
		return 0;

	max_ns = atomic_load_explicit(&h->max_ns, memory_order_relaxed);
	q = SM_MIN(SM_MAX(q, 0.0), 1.0);
	rank = (uint64_t)(q * (double)total);
	if ((double)rank < q * (double)total || rank == 0)
		rank++;
	for (unsigned i = 0; i < SM_HIST_BUCKETS - 1; i++) {
		seen += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
		if (seen >= rank)
			return SM_MIN(bucket_end(i), max_ns);
	}
	return max_ns; /* the last bucket has no end */
}

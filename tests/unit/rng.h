// SPDX-License-Identifier: MIT
/*
 * Repeatable random numbers for property tests. SM_SEED in the environment replaces the seed; it is
 * printed, so that a failure can be run again.
 */
#ifndef SM_TESTS_RNG_H
#define SM_TESTS_RNG_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct rng {
	uint64_t state;
};

static inline struct rng rng_init(const char *who)
{
	const char *seed = getenv("SM_SEED");
	struct rng rng = {.state = seed ? strtoull(seed, NULL, 0) : UINT64_C(0x5eed)};

	printf("%s: SM_SEED=%#llx\n", who, (unsigned long long)rng.state);
	return rng;
}

/* SplitMix64 */
static inline uint64_t rng_u64(struct rng *rng)
{
	uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* A number below @n */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
	return (uint32_t)(rng_u64(rng) % n);
}

static inline void rng_fill(struct rng *rng, void *mem, size_t len)
{
	uint8_t *p = mem;

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rng_u64(rng);
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Hash tables. A table that is no longer changed may be read by any number of threads.
 */
#ifndef SM_BASE_TABLE_H
#define SM_BASE_TABLE_H

#include "base/base.h"

struct sm_map64_slot {
	uint64_t key;
	uint32_t value;
	uint32_t used;
};

/**
 * struct sm_map64 - 64-bit keys to 32-bit values: open addressing, linear probing
 * @mask: slots minus one; 0 while nothing was inserted
 * @seed: random, so that nobody who chooses keys can make them meet
 */
struct sm_map64 {
	struct sm_map64_slot *slots;
	uint32_t mask, count;
	uint64_t seed;
};

/** sm_map64_init() - An empty table; it allocates nothing before the first insertion */
void sm_map64_init(struct sm_map64 *map, uint64_t seed);
void sm_map64_done(struct sm_map64 *map);

/** sm_map64_reserve() - Make room for @count keys in all; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_map64_reserve(struct sm_map64 *map, uint32_t count);

/** sm_map64_insert() - Return: 0; -EEXIST if the key is there (left as it is), -ENOMEM */
SM_MUST_CHECK int sm_map64_insert(struct sm_map64 *map, uint64_t key, uint32_t value);

/** sm_map64_set() - Insert, or replace the value of a key that is there; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_map64_set(struct sm_map64 *map, uint64_t key, uint32_t value);

/** sm_map64_lookup() - Return: true and the value if the key is there */
bool sm_map64_lookup(const struct sm_map64 *map, uint64_t key, uint32_t *ret_value);

/** sm_map64_remove() - Return: true if the key was there */
bool sm_map64_remove(struct sm_map64 *map, uint64_t key);

/** sm_map64_clear() - Remove all keys, keep the memory */
void sm_map64_clear(struct sm_map64 *map);

/**
 * sm_map64_next() - Visit all keys in no particular order: while (sm_map64_next(...))
 * @pos: 0 before the first call; the table must not change between calls
 * Return: true and a pair, false after the last
 */
bool sm_map64_next(const struct sm_map64 *map, uint32_t *pos, uint64_t *ret_key,
		   uint32_t *ret_value);

#endif

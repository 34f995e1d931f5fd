// SPDX-License-Identifier: MIT
/*
 * The hash table: at most three quarters full, and a removal closes its gap at once, so that a search
 * ends at the first free slot and no marks of removed keys pile up.
 */
#include "base/table.h"

#include <stdlib.h>

#define MAP64_MIN_SLOTS 16u
#define MAP64_MAX_SLOTS (1u << 30)

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t home_of(const struct sm_map64 *map, uint64_t key)
{
	uint64_t h = fold(key ^ map->seed, UINT64_C(0x9e3779b97f4a7c15));

	h = fold(h ^ (map->seed << 32 | map->seed >> 32), UINT64_C(0xd1342543de82ef95));
	return (uint32_t)h & map->mask;
}

/* The slot of @key, or the free one where it belongs */
static struct sm_map64_slot *find(const struct sm_map64 *map, uint64_t key)
{
	uint32_t i = home_of(map, key);

	while (map->slots[i].used && map->slots[i].key != key)
		i = (i + 1) & map->mask;
	return &map->slots[i];
}

static uint64_t slots_for(uint64_t count)
{
	uint64_t slots = MAP64_MIN_SLOTS;

	while (slots / 4 * 3 < count)
		slots *= 2;
	return slots;
}

void sm_map64_init(struct sm_map64 *map, uint64_t seed)
{
	*map = (struct sm_map64){.seed = seed};
}

void sm_map64_done(struct sm_map64 *map)
{
	free(map->slots);
	sm_map64_init(map, map->seed);
}

int sm_map64_reserve(struct sm_map64 *map, uint32_t count)
{
	uint64_t slots = slots_for(count);
	struct sm_map64 grown = *map;

	if (map->slots && slots <= (uint64_t)map->mask + 1)
		return 0;
	if (slots > MAP64_MAX_SLOTS)
		return -ENOMEM;
	grown.mask = (uint32_t)slots - 1;
	grown.slots = calloc(slots, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (uint32_t i = 0; map->slots && i <= map->mask; i++) {
		if (map->slots[i].used)
			*find(&grown, map->slots[i].key) = map->slots[i];
	}
	free(map->slots);
	*map = grown;
	return 0;
}

static int put(struct sm_map64 *map, uint64_t key, uint32_t value, bool replace)
{
	struct sm_map64_slot *slot;
	int r;

	if (map->slots) {
		slot = find(map, key);
		if (slot->used && !replace)
			return -EEXIST;
		if (slot->used) {
			slot->value = value;
			return 0;
		}
	}
	if (map->count == UINT32_MAX)
		return -ENOMEM;
	r = sm_map64_reserve(map, map->count + 1);
	if (r < 0)
		return r;
	*find(map, key) = (struct sm_map64_slot){.key = key, .value = value, .used = 1};
	map->count++;
	return 0;
}

int sm_map64_insert(struct sm_map64 *map, uint64_t key, uint32_t value)
{
	return put(map, key, value, false);
}

int sm_map64_set(struct sm_map64 *map, uint64_t key, uint32_t value)
{
	return put(map, key, value, true);
}

bool sm_map64_lookup(const struct sm_map64 *map, uint64_t key, uint32_t *ret_value)
{
	const struct sm_map64_slot *slot;

	if (!map->slots)
		return false;
	slot = find(map, key);
	if (!slot->used)
		return false;
	*ret_value = slot->value;
	return true;
}

/* Moves back what stands behind the gap @hole and was pushed past it, until a free slot ends the run. */
static void close_gap(struct sm_map64 *map, uint32_t hole)
{
	for (uint32_t i = (hole + 1) & map->mask; map->slots[i].used; i = (i + 1) & map->mask) {
		uint32_t pushed = (i - home_of(map, map->slots[i].key)) & map->mask;

		if (pushed < ((i - hole) & map->mask))
			continue;
		map->slots[hole] = map->slots[i];
		hole = i;
	}
	map->slots[hole] = (struct sm_map64_slot){0};
}

bool sm_map64_remove(struct sm_map64 *map, uint64_t key)
{
	struct sm_map64_slot *slot;

	if (!map->slots)
		return false;
	slot = find(map, key);
	if (!slot->used)
		return false;
	close_gap(map, (uint32_t)(slot - map->slots));
	map->count--;
	return true;
}

void sm_map64_clear(struct sm_map64 *map)
{
	if (map->slots)
		memset(map->slots, 0, ((size_t)map->mask + 1) * sizeof(*map->slots));
	map->count = 0;
}

bool sm_map64_next(const struct sm_map64 *map, uint32_t *pos, uint64_t *ret_key,
		   uint32_t *ret_value)
{
	for (; map->slots && *pos <= map->mask; (*pos)++) {
		const struct sm_map64_slot *slot = &map->slots[*pos];

		if (!slot->used)
			continue;
		*ret_key = slot->key;
		*ret_value = slot->value;
		(*pos)++;
		return true;
	}
	return false;
}

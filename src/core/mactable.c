// SPDX-License-Identifier: MIT
/*
 * The table of learned MACs.
 *
 * Theory of operation: a MAC has two buckets of eight words, one cache line each. A word holds the MAC
 * and its port and changes by compare-and-swap alone; whoever swaps also moves the ports' counts. The
 * times beside it are hints: a reader that sees a word with its predecessor's times takes a fresh entry
 * for an old one at worst, and the address is learned again with the next frame. Two workers may learn
 * one MAC into two slots at once; the first slot in search order counts and the other one is removed,
 * or ages. Nothing else is published through a word, so relaxed order is enough everywhere.
 */
#include "core/mactable.h"

#include <stdlib.h>

#define WAYS        8u
#define TABLE_ALIGN 64u
#define MAC_MASK    ((UINT64_C(1) << 48) - 1)
/* The time of an entry in use is refreshed that often, so that busy cores share its cache line. */
#define REFRESH_US SM_SEC_US

struct times {
	_Atomic uint64_t seen_us;   /* last frame, give or take REFRESH_US */
	_Atomic uint64_t placed_us; /* when it came to its port */
};

struct sm_mactable {
	_Atomic uint64_t *words; /* 0: free */
	struct times *times;
	_Atomic uint32_t *port_count;
	uint32_t capacity, ports;
	uint64_t seed;
};

static uint64_t word_of(uint64_t mac, uint16_t port)
{
	return mac << 16 | (uint64_t)(port + 1u);
}

static uint64_t mac_of(uint64_t word)
{
	return word >> 16;
}

static uint16_t port_of(uint64_t word)
{
	return (uint16_t)((word & 0xffff) - 1);
}

static uint64_t get(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static void put(_Atomic uint64_t *p, uint64_t v)
{
	atomic_store_explicit(p, v, memory_order_relaxed);
}

/* Clocks of two workers may be read in either order: what lies ahead is new. */
static uint64_t age_us(uint64_t then_us, uint64_t now_us)
{
	return now_us > then_us ? now_us - then_us : 0;
}

static bool is_aged(const struct sm_mactable *t, uint32_t i, uint64_t now_us)
{
	return age_us(get(&t->times[i].seen_us), now_us) > SM_MAC_AGE_US;
}

/* The two buckets of a MAC, as index of their first slot */
static void buckets_of(const struct sm_mactable *t, uint64_t mac, uint32_t ret_first[2])
{
	uint32_t buckets = t->capacity / WAYS;
	unsigned __int128 product;
	uint64_t h;

	product = (unsigned __int128)(mac ^ t->seed) * UINT64_C(0x9e3779b97f4a7c15);
	h = (uint64_t)product ^ (uint64_t)(product >> 64);
	product = (unsigned __int128)(h ^ (t->seed << 32 | t->seed >> 32)) *
		  UINT64_C(0xd1342543de82ef95);
	h = (uint64_t)product ^ (uint64_t)(product >> 64);
	ret_first[0] = ((uint32_t)h & (buckets - 1)) * WAYS;
	ret_first[1] = ((uint32_t)(h >> 32) & (buckets - 1)) * WAYS;
}

/* Slot number @k of the search for a MAC, 0 to 2 * WAYS - 1 */
static uint32_t slot_at(const uint32_t first[2], uint32_t k)
{
	return first[k / WAYS] + k % WAYS;
}

int sm_mactable_new(uint32_t capacity, uint32_t ports, uint64_t seed,
		    struct sm_mactable **ret_table)
{
	struct sm_mactable *t;

	if (capacity < WAYS || (capacity & (capacity - 1)) != 0 || ports == 0 || ports > UINT16_MAX)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->words = aligned_alloc(TABLE_ALIGN, capacity * sizeof(*t->words));
	t->times = calloc(capacity, sizeof(*t->times));
	t->port_count = calloc(ports, sizeof(*t->port_count));
	if (!t->words || !t->times || !t->port_count) {
		sm_mactable_free(t);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < capacity; i++)
		atomic_init(&t->words[i], 0);
	t->capacity = capacity;
	t->ports = ports;
	t->seed = seed;
	*ret_table = t;
	return 0;
}

void sm_mactable_free(struct sm_mactable *table)
{
	if (!table)
		return;
	free(table->words);
	free(table->times);
	free(table->port_count);
	free(table);
}

/* Return: slot in use for @mac, or -1 */
static int64_t find(const struct sm_mactable *t, const uint32_t first[2], uint64_t mac,
		    uint64_t *ret_word)
{
	for (uint32_t k = 0; k < 2 * WAYS; k++) {
		uint32_t i = slot_at(first, k);
		uint64_t word = get(&t->words[i]);

		if (word != 0 && mac_of(word) == mac) {
			*ret_word = word;
			return i;
		}
	}
	return -1;
}

int sm_mactable_lookup(const struct sm_mactable *table, uint64_t mac, uint64_t now_us)
{
	uint32_t first[2];
	uint64_t word;
	int64_t i;

	buckets_of(table, mac, first);
	i = find(table, first, mac, &word);
	if (i < 0 || is_aged(table, (uint32_t)i, now_us))
		return -ENOENT;
	return port_of(word);
}

static void release_port(struct sm_mactable *t, uint16_t port)
{
	atomic_fetch_sub_explicit(&t->port_count[port], 1, memory_order_relaxed);
}

/* Return: true if @port may have one more entry, which is then counted */
static bool take_port(struct sm_mactable *t, uint16_t port)
{
	if (atomic_fetch_add_explicit(&t->port_count[port], 1, memory_order_relaxed) <
	    SM_MAC_PER_PORT)
		return true;
	release_port(t, port);
	return false;
}

/* Return: true if the slot went from @old to @new (either may be 0) and the old port's count with it */
static bool swap(struct sm_mactable *t, uint32_t i, uint64_t old, uint64_t new)
{
	if (!atomic_compare_exchange_strong_explicit(&t->words[i], &old, new, memory_order_relaxed,
						     memory_order_relaxed))
		return false;
	if (old != 0)
		release_port(t, port_of(old));
	return true;
}

/* Puts @mac, counted for @port already, over @old in slot @i; gives the count back on failure. */
static bool place(struct sm_mactable *t, uint32_t i, uint64_t old, uint64_t mac, uint16_t port,
		  uint64_t now_us)
{
	if (!swap(t, i, old, word_of(mac, port))) {
		release_port(t, port);
		return false;
	}
	put(&t->times[i].seen_us, now_us);
	put(&t->times[i].placed_us, now_us);
	return true;
}

/* Return: a slot that is free or aged, -1 if there is none */
static int64_t find_room(const struct sm_mactable *t, const uint32_t first[2], uint64_t now_us,
			 uint64_t *ret_word)
{
	for (uint32_t k = 0; k < 2 * WAYS; k++) {
		uint32_t i = slot_at(first, k);
		uint64_t word = get(&t->words[i]);

		if (word == 0 || is_aged(t, i, now_us)) {
			*ret_word = word;
			return i;
		}
	}
	return -1;
}

/* Return: 0, -ENOSPC, or -EINTR when another worker was faster: look again */
static int insert(struct sm_mactable *t, const uint32_t first[2], uint64_t mac, uint16_t port,
		  uint64_t now_us)
{
	uint64_t old, word;
	int64_t room = find_room(t, first, now_us, &old);

	if (room < 0 || !take_port(t, port))
		return -ENOSPC;
	if (!place(t, (uint32_t)room, old, mac, port, now_us))
		return -EINTR;
	if (find(t, first, mac, &word) != room)
		(void)swap(t, (uint32_t)room, word_of(mac, port), 0);
	return 0;
}

/* The MAC stands in slot @i as @word. Return: as insert(), -EAGAIN */
static int update(struct sm_mactable *t, uint32_t i, uint64_t word, uint16_t port, uint64_t now_us)
{
	struct times *times = &t->times[i];
	bool aged = is_aged(t, i, now_us);

	if (port_of(word) == port) {
		if (age_us(get(&times->seen_us), now_us) > REFRESH_US)
			put(&times->seen_us, now_us);
		return 0;
	}
	if (!aged && age_us(get(&times->placed_us), now_us) < SM_MAC_MOVE_US)
		return -EAGAIN;
	if (!take_port(t, port))
		return -ENOSPC;
	return place(t, i, word, mac_of(word), port, now_us) ? 0 : -EINTR;
}

int sm_mactable_learn(struct sm_mactable *table, uint64_t mac, uint16_t port, uint64_t now_us)
{
	uint32_t first[2];

	if (mac > MAC_MASK || port >= table->ports)
		return -ENOSPC;
	buckets_of(table, mac, first);
	/* Whoever loses a race three times in a row leaves it to the next frame. */
	for (int attempt = 0; attempt < 3; attempt++) {
		uint64_t word;
		int64_t i = find(table, first, mac, &word);
		int r = i >= 0 ? update(table, (uint32_t)i, word, port, now_us)
			       : insert(table, first, mac, port, now_us);

		if (r != -EINTR)
			return r;
	}
	return -EAGAIN;
}

void sm_mactable_forget_port(struct sm_mactable *table, uint16_t port)
{
	for (uint32_t i = 0; i < table->capacity; i++) {
		uint64_t word = get(&table->words[i]);

		if (word != 0 && port_of(word) == port)
			(void)swap(table, i, word, 0);
	}
}

uint32_t sm_mactable_age(struct sm_mactable *table, uint64_t now_us)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < table->capacity; i++) {
		uint64_t word = get(&table->words[i]);

		if (word == 0)
			continue;
		if (!is_aged(table, i, now_us) || !swap(table, i, word, 0))
			used++;
	}
	return used;
}

void sm_mactable_each(const struct sm_mactable *table, uint64_t now_us,
		      void (*visit)(void *arg, uint64_t mac, uint16_t port, uint64_t age_us),
		      void *arg)
{
	for (uint32_t i = 0; i < table->capacity; i++) {
		uint64_t word = get(&table->words[i]);

		if (word != 0 && !is_aged(table, i, now_us))
			visit(arg, mac_of(word), port_of(word),
			      age_us(get(&table->times[i].seen_us), now_us));
	}
}

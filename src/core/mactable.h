// SPDX-License-Identifier: MIT
/*
 * Learned MAC addresses: which port a MAC that nobody owns was last seen on.
 *
 * Lock-free and of fixed size; every worker reads and writes it. An entry is one 64-bit word (MAC and
 * port) and a time. Shared by all VLANs (SVL). Bounded per port, aged, and damped: a MAC moves to another
 * port at most once a second.
 */
#ifndef SM_CORE_MACTABLE_H
#define SM_CORE_MACTABLE_H

#include "base/base.h"

#include <stdatomic.h>

struct sm_mactable;

#define SM_MAC_AGE_US   (UINT64_C(300) * SM_SEC_US)
#define SM_MAC_MOVE_US  (UINT64_C(1) * SM_SEC_US)
#define SM_MAC_PER_PORT 1024u

/** sm_mactable_new() - @capacity: power of two; @ports: number of ports; @seed: random; Return: 0, -ENOMEM, -EINVAL */
SM_MUST_CHECK int sm_mactable_new(uint32_t capacity, uint32_t ports, uint64_t seed,
				  struct sm_mactable **ret_table);
void sm_mactable_free(struct sm_mactable *table);

/** sm_mactable_lookup() - Return: port, or -ENOENT (also when aged) */
SM_MUST_CHECK int sm_mactable_lookup(const struct sm_mactable *table, uint64_t mac,
				     uint64_t now_us);

/**
 * sm_mactable_learn() - @mac was seen on @port
 * Return: 0 known or learned; -EAGAIN moved less than SM_MAC_MOVE_US ago (stays where it was);
 *         -ENOSPC port's limit or table full
 */
int sm_mactable_learn(struct sm_mactable *table, uint64_t mac, uint16_t port, uint64_t now_us);

/** sm_mactable_forget_port() - Control thread: a peer has gone */
void sm_mactable_forget_port(struct sm_mactable *table, uint16_t port);

/** sm_mactable_age() - Control thread, now and then: free aged entries; Return: entries in use */
uint32_t sm_mactable_age(struct sm_mactable *table, uint64_t now_us);

/** sm_mactable_each() - Visit entries for the status output */
void sm_mactable_each(const struct sm_mactable *table, uint64_t now_us,
		      void (*visit)(void *arg, uint64_t mac, uint16_t port, uint64_t age_us),
		      void *arg);

#endif

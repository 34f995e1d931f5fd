// SPDX-License-Identifier: MIT
/*
 * What the control thread tells the workers: an immutable picture of sessions, peers and ownership.
 *
 * The control thread builds a new one at each change and publishes one pointer; it is freed when every
 * worker has passed on. Workers reach mutable state only through it: their own lanes, the learned MACs.
 */
#ifndef SM_CORE_SNAPSHOT_H
#define SM_CORE_SNAPSHOT_H

#include "base/table.h"
#include "core/lane.h"
#include "core/mactable.h"
#include "wire/const.h"
#include "wire/ether.h"

/* A peer's number on this node, stable while it is known. 0 is this node itself. */
typedef uint16_t sm_port_t; /* a switch port, as IEEE 802.1Q has it: one for each peer */
#define SM_PORT_LOCAL ((sm_port_t)0)
#define SM_PORT_NONE  ((sm_port_t)0xffff)
#define SM_PORT_MAX   4096u /* members at most */

/* Epochs that a session accepts at a time: previous, current, next */
#define SM_EPOCHS_MAX 3u

/**
 * struct sm_session_view - One session as the workers see it
 * @index:     our index; low 16 bits are the slot in sm_snapshot.sessions
 * @tx:        epoch to send on; NULL: receive only (not ready, or being drained)
 * @rx:        epochs accepted, unused ones NULL
 * @remote:    where to send
 * @local:     address to send from (family 0: let the kernel choose)
 * @path_mtu:  bytes of outer IP packet that the path carries
 * @batches:   datagrams to it may leave several in one message (core/batch.h)
 */
struct sm_session_view {
	uint32_t index;
	sm_port_t port;
	bool takes_parts, takes_chunks, batches;
	struct sm_epoch *tx;
	struct sm_epoch *rx[SM_EPOCHS_MAX];
	struct sm_addr remote, local;
	uint32_t path_mtu;
};

struct sm_route {
	struct sm_prefix prefix;
	sm_port_t port;
};

/**
 * struct sm_snapshot
 * @sessions:    by slot, NULL where none
 * @send:        by port: the session to send on, NULL where none
 * @members:     ports that have one, for flooding
 * @awaited:     who may yet get one, known peers and strangers: frames are worth keeping for a moment
 * @owned_macs:  sm_mac_to_u64() -> port, this node's own included (SM_PORT_LOCAL)
 * @routes:      owned addresses as /32 and /128, and in TUN mode the prefixes; this node's own included
 *               (SM_PORT_LOCAL); in the order that sm_snapshot_sort_routes() makes
 */
struct sm_snapshot {
	uint64_t generation;
	enum sm_mode mode;
	uint32_t session_count, port_count, member_count, route_count;
	uint32_t awaited;
	const struct sm_session_view **sessions;
	const struct sm_session_view **send;
	sm_port_t *members;
	struct sm_map64 owned_macs;
	struct sm_route *routes;
	bool routes_sorted;
	struct sm_mactable *learned;
	void *owner; /* the builder's: what to release when the snapshot is freed */

	/* the plane's, while the snapshot waits for workers that may still see it */
	struct sm_snapshot *retired_next;
	uint64_t retired_at;
};

/** sm_snapshot_session() - Find by the index in a packet; Return: NULL if there is no such session */
const struct sm_session_view *sm_snapshot_session(const struct sm_snapshot *s, uint32_t index);

/** sm_snapshot_sort_routes() - Builder: call once when all routes are in; clears host bits */
void sm_snapshot_sort_routes(struct sm_snapshot *s);

/** sm_snapshot_route() - Longest prefix match; Return: port, SM_PORT_NONE */
sm_port_t sm_snapshot_route(const struct sm_snapshot *s, const struct sm_addr *ip);

/** sm_snapshot_owner() - Who owns this very address (/32 or /128)? Return: port, SM_PORT_NONE */
sm_port_t sm_snapshot_owner(const struct sm_snapshot *s, const struct sm_addr *ip);

#endif

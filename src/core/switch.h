// SPDX-License-Identifier: MIT
/*
 * The switch: where a frame goes, and whether one from a peer may come in.
 *
 * Owned MACs and certified addresses belong to their owners and are never learned, answered for or taken
 * over from another port. Frames from the mesh never go back into the mesh (split horizon).
 *
 * Spec: PROTOCOL.md, "Switching"
 */
#ifndef SM_CORE_SWITCH_H
#define SM_CORE_SWITCH_H

#include "core/snapshot.h"

/* Why a frame was not forwarded; counted by the workers under these names */
enum sm_drop {
	SM_DROP_NONE = 0,
	SM_DROP_RUNT,          /* shorter than an Ethernet or IP header */
	SM_DROP_SOURCE_GROUP,  /* source MAC is a group address */
	SM_DROP_SOURCE_OWNED,  /* source MAC belongs to another port */
	SM_DROP_CLAIM,         /* ARP or ND claims an address that belongs to another port */
	SM_DROP_FRAGMENTED_ND, /* RFC 6980 */
	SM_DROP_FILTERED,      /* destination is on the side that the frame came from */
	SM_DROP_SOURCE_IP,     /* TUN: source is not the sender's */
	SM_DROP_NO_ROUTE,      /* TUN: nobody has the destination */
	SM_DROP_NO_SESSION,    /* the port is known but not connected */
	SM_DROP_NO_BUFFER,     /* none free, a frame in parts pushed out, or the event ring full */
	SM_DROP_TOO_BIG,       /* for the path, and the peer takes no parts */
	SM_DROP_LIMIT,         /* packet limit of the epoch */
	SM_DROP_SEND,      /* the kernel refused the datagram (full queue, firewall, unreachable) */
	SM_DROP_TAP_WRITE, /* the kernel refused the frame */
	SM_DROP_MALFORMED, /* unknown kind, bad part */
	SM_DROP_UNKNOWN_SESSION,
	SM_DROP_EPOCH_OVER,
	SM_DROP_FORGED,
	SM_DROP_REPLAYED,
	SM_DROP_HANDOVER, /* ring to another worker was full */
	SM_DROP_STANDING, /* the card's queue never empties: TCP is told to slow down (core/aqm.h) */
	SM_DROP_COUNT,
};

const char *sm_drop_name(enum sm_drop drop);

enum sm_verdict {
	SM_VERDICT_DROP,
	SM_VERDICT_PORT,  /* to one port */
	SM_VERDICT_FLOOD, /* to every member */
};

/**
 * sm_switch_egress() - A frame from the TAP (or packet from the TUN): where does it go?
 * @ret_port: for SM_VERDICT_PORT, and for SM_DROP_NO_SESSION: whose session it needs
 * @ret_drop: for SM_VERDICT_DROP
 *
 * Learns that a foreign source MAC is local (a host behind our bridge).
 */
enum sm_verdict sm_switch_egress(const struct sm_snapshot *s, const uint8_t *frame, size_t len,
				 uint64_t now_us, sm_port_t *ret_port, enum sm_drop *ret_drop);

/**
 * sm_switch_ingress() - A frame from a peer: may it be written to the TAP?
 * @from: the sender's port
 * Return: SM_DROP_NONE if so (its source is learned where nobody owns it), else the reason
 */
enum sm_drop sm_switch_ingress(const struct sm_snapshot *s, sm_port_t from, const uint8_t *frame,
			       size_t len, uint64_t now_us);

#endif

// SPDX-License-Identifier: MIT
/*
 * Plain frames that came in one batch, joined into super-frames for the TAP: one write instead of many.
 *
 * Theory of operation: frames are offered in the order of arrival. A TCP segment with data that continues
 * what a flow's last one ended, or a UDP datagram of the same size as the flow's others, joins that flow's
 * run; anything else of the same flow ends the run first, so that no flow is ever reordered. A fragment, of
 * which the flow cannot be told, ends them all. Nothing is held beyond the batch. As with the kernel's GRO
 * (RFC-conform hardware LRO), cutting the result again gives back the frames that came, byte for byte, but
 * for IPv4 identification of datagrams with DF set. Nothing is copied: a run is a list of views.
 */
#ifndef SM_CORE_COALESCE_H
#define SM_CORE_COALESCE_H

#include "wire/inet.h"
#include "wire/vnet.h"

#define SM_RUN_SEGMENTS_MAX 64u
#define SM_RUNS_MAX         64u /* frames and runs of one batch */
#define SM_RUN_BUCKETS      128u

/**
 * struct sm_run - A frame to be written to the TAP: as it came, or several of one flow
 * @head, @head_len: the first frame whole (count 1), or its headers (count > 1); changed by sm_coalesce_finish()
 * @segment:  payload of each, @segment[0] directly behind @head; none for a frame as it came
 * @payload_len: of all of @segment; once finished, 0 for a frame as it came
 */
struct sm_run {
	uint8_t *head;
	uint32_t head_len, count, payload_len, gso_size;
	struct {
		const uint8_t *data;
		uint32_t len;
	} segment[SM_RUN_SEGMENTS_MAX];
	struct sm_inet inet; /* the first's; zero if it is neither TCP nor UDP */
	struct sm_vnet vnet; /* count 1: as it was offered */
	uint32_t next_seq;   /* TCP */
	uint32_t hash;
	uint8_t next; /* the open run behind this one in its bucket, as there */
};

/**
 * struct sm_coalesce - One batch
 * @tcp, @udp: what the TAP takes as super-frames
 * @bucket:    open runs by their flow's hash: index + 1 of the first, 0 for none; at most one of each flow
 * @run:       in the order in which they are to be written; what lies from @count on is undefined
 */
struct sm_coalesce {
	enum sm_mode mode;
	bool tcp, udp;
	uint32_t count;
	uint8_t bucket[SM_RUN_BUCKETS];
	struct sm_run run[SM_RUNS_MAX];
};

/** sm_coalesce_init() - An empty batch */
void sm_coalesce_init(struct sm_coalesce *c, enum sm_mode mode, bool tcp, bool udp);

/**
 * sm_coalesce_add() - Offer the next frame
 * @frame: stays the caller's, must stay where it is until the batch is written; headers may be changed
 * @vnet:  GSO_NONE, with or without SM_VNET_NEEDS_CSUM (then the payload is known to be sound; otherwise the
 *         checksum is verified before a frame is joined, so that no damage is laundered)
 *
 * Context: worker; never allocates, logs or blocks
 * Return: true; false when SM_RUNS_MAX are in use: write them, sm_coalesce_init(), offer again
 */
SM_MUST_CHECK bool sm_coalesce_add(struct sm_coalesce *c, uint8_t *frame, uint32_t len,
				   const struct sm_vnet *vnet);

/** sm_coalesce_finish() - Set lengths, checksums and vnet headers of all runs: each can be written then */
void sm_coalesce_finish(struct sm_coalesce *c);

#endif

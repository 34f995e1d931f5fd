// SPDX-License-Identifier: MIT
/*
 * Flows: which frames belong together, and which flows send little.
 *
 * Theory of operation: what one program says to another must arrive in order, but a ping need not wait behind a
 * film. A flow that sends little goes ahead on the express lane; one that sends more than SM_FLOW_BYTES in
 * SM_FLOW_WINDOW_US is bulk, and stays so until it was silent for SM_FLOW_SILENT_US, by when nothing of it is on
 * its way any more that could be overtaken. A flow is known by a hash: those that share a place of the table are
 * taken for one, so that a little flow may pass for bulk, which delays it, but never the reverse.
 */
#ifndef SM_CORE_FLOW_H
#define SM_CORE_FLOW_H

#include "wire/inet.h"

#define SM_FLOW_BYTES     32768u
#define SM_FLOW_WINDOW_US (8 * SM_MSEC_US)
#define SM_FLOW_SILENT_US (250 * SM_MSEC_US)
#define SM_FLOW_PLACES    1024u

/** struct sm_flows - What was seen of flows lately; zero to begin with */
struct sm_flows {
	struct {
		uint64_t window_us, bulk_until_us;
		uint32_t bytes; /* in the window that began then */
	} place[SM_FLOW_PLACES];
};

/**
 * sm_flow_hash() - Which flow does a frame belong to?
 * @inet: of the frame if it is TCP or UDP, else NULL
 * Return: from addresses and ports; other packets of IP, fragments among them: from the addresses and the
 *         protocol; other frames: from their addresses and type
 */
uint32_t sm_flow_hash(enum sm_mode mode, const uint8_t *frame, size_t len,
		      const struct sm_inet *inet);

/** sm_flow_hash_inet() - The same of a packet that is TCP or UDP */
uint32_t sm_flow_hash_inet(const uint8_t *frame, const struct sm_inet *inet);

/** sm_flow_is_bulk() - Count @len bytes of a flow; Return: true if it is bulk, this frame included */
bool sm_flow_is_bulk(struct sm_flows *flows, uint32_t hash, uint32_t len, uint64_t now_us);

#endif

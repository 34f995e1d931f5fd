// SPDX-License-Identifier: MIT
/*
 * Lanes: one sender's key, counter and limit; one receiver's key, replay window and gap counts.
 *
 * Theory of operation: an epoch of a session has one sending lane for each local sender and one
 * receiving lane for each remote one. The control thread makes the lanes and frees them after every
 * worker has let go; in between, each lane's changing part is touched by its one owner only. Counters are
 * relaxed atomics that anybody may read.
 *
 * Spec: PROTOCOL.md, "Data packets", "Lanes", "Replay"
 */
#ifndef SM_CORE_LANE_H
#define SM_CORE_LANE_H

#include "base/pbuf.h"
#include "crypto/aead.h"
#include "wire/data.h"

#include <stdatomic.h>

#define SM_BATCH_MAX 64u

struct sm_tx_lane {
	_Alignas(64) struct sm_aead *aead; /* lanes of different threads share no cache line */
	uint32_t session;                  /* the receiver's index */
	uint8_t epoch, lane;
	_Atomic uint64_t next;     /* number of the next packet; packets sent so far */
	_Atomic uint64_t bytes;    /* of sealed content */
	_Atomic uint64_t batched;  /* packets that left with others in one message */
	_Atomic uint64_t refused;  /* packets not sealed because the limit was reached */
	_Atomic uint64_t first_us; /* when the first packet was sealed, 0: never */
};

/**
 * sm_tx_lane_reserve() - Take @n consecutive packet numbers
 * @ret_first: the first of them; a number taken is never given again
 * Context: owner of the lane, as for all of these; never allocates, logs or blocks
 * Return: 0, -EDQUOT when SM_PACKET_LIMIT does not leave room for all (counted as refused)
 */
SM_MUST_CHECK int sm_tx_lane_reserve(struct sm_tx_lane *lane, uint32_t n, uint64_t now_us,
				     uint64_t *ret_first);

/**
 * sm_tx_lane_seal_to() - Seal one content under a number that was taken
 * @content, @len: body and kind
 * @out: receives SM_DATA_HEADER_LEN + @len + SM_TAG_LEN bytes; does not overlap @content, or stands
 *       SM_DATA_HEADER_LEN bytes before it
 * Return: 0, -EIO
 */
SM_MUST_CHECK int sm_tx_lane_seal_to(struct sm_tx_lane *lane, uint64_t number,
				     const uint8_t *content, uint32_t len, uint8_t *out);

/**
 * sm_tx_lane_seal() - Put header, kind and tag around a batch, encrypting in place
 * @pkts:  body each, with SM_DATA_HEADER_LEN headroom and SM_KIND_LEN + SM_TAG_LEN tailroom
 * @kinds: last byte of each (enum sm_kind)
 * @n:     packets, at most SM_BATCH_MAX
 *
 * Numbers are consecutive in the order given. Packets behind the ones sealed are not to be sent.
 * Context: owner of the lane; never allocates, logs or blocks
 * Return: packets sealed: @n, or fewer (0) when SM_PACKET_LIMIT does not leave room for all
 */
SM_MUST_CHECK uint32_t sm_tx_lane_seal(struct sm_tx_lane *lane, struct sm_pbuf *const *pkts,
				       const uint8_t *kinds, uint32_t n, uint64_t now_us);

/** struct sm_replay - Sliding window of SM_REPLAY_WINDOW packet numbers (RFC 6479's blocks) */
struct sm_replay {
	uint64_t top; /* highest accepted number + 1 */
	uint64_t bits[SM_REPLAY_WINDOW / 64 + 1];
};

/** sm_replay_check() - Return: 0 fresh, -EALREADY seen, -ERANGE older than the window; changes nothing */
SM_MUST_CHECK int sm_replay_check(const struct sm_replay *window, uint64_t number);
/** sm_replay_accept() - Mark a checked and authenticated number; Return: how far the top moved (0: late) */
uint64_t sm_replay_accept(struct sm_replay *window, uint64_t number);

struct sm_rx_lane {
	_Alignas(64) struct sm_aead *aead;
	uint8_t epoch, lane;
	struct sm_replay replay;
	_Atomic uint64_t packets, bytes;
	_Atomic uint64_t lost;      /* gaps not filled so far: falls when a late packet comes */
	_Atomic uint64_t late;      /* came after a higher number */
	_Atomic uint64_t duplicate; /* seen before, or older than the window */
	_Atomic uint64_t forged;    /* tag did not verify */
	_Atomic uint64_t first_us;
};

/** struct sm_opened - What was in a datagram; @newest: its number is the highest of the lane so far */
struct sm_opened {
	uint32_t len; /* bytes of the body, without the kind */
	uint8_t kind;
	bool newest;
};

/**
 * sm_rx_lane_open_to() - Authenticate and decrypt one datagram
 * @datagram, @len: all of it; @header: its decoded header
 * @out: receives @len - SM_DATA_HEADER_LEN - SM_TAG_LEN bytes; does not overlap @datagram, or stands
 *       SM_DATA_HEADER_LEN bytes behind its start
 *
 * Nothing but @out and the counter of forged ones changes unless the tag verifies. A number of
 * SM_PACKET_LIMIT or above counts as forged.
 * Return: 0, -EBADMSG bad tag, -EALREADY replayed or too old
 */
SM_MUST_CHECK int sm_rx_lane_open_to(struct sm_rx_lane *lane, const uint8_t *datagram, uint32_t len,
				     const struct sm_data_header *header, uint64_t now_us,
				     uint8_t *out, struct sm_opened *ret_opened);

/**
 * sm_rx_lane_open() - The same in place
 * @pkt:     the whole datagram; on success trimmed to the body
 * @ret_kind: last byte of the content
 * @ret_newest: true if this is the highest number so far (only such a packet may suggest a new address)
 * Return: 0, -EBADMSG bad tag, -EALREADY replayed or too old
 */
SM_MUST_CHECK int sm_rx_lane_open(struct sm_rx_lane *lane, struct sm_pbuf *pkt,
				  const struct sm_data_header *header, uint64_t now_us,
				  uint8_t *ret_kind, bool *ret_newest);

/**
 * struct sm_epoch - All lanes under one epoch secret
 * @tx: control lane, one for each local worker (together @tx_plain), and if there are express lanes another
 *      one for each (together @tx_count)
 * @rx: the same for the peer's workers
 */
struct sm_epoch {
	uint32_t number;
	uint32_t tx_plain, tx_count;
	uint32_t rx_plain, rx_count;
	struct sm_tx_lane *tx;
	struct sm_rx_lane *rx;
	uint32_t refs; /* control thread: session and snapshots that hold it */
	uint16_t port; /* whose counters these are */
	_Atomic uint32_t
		events; /* SM_EPOCH_EVENT_* already reported by a worker, so that each is told once */
};

#define SM_EPOCH_EVENT_RECEIVED 1u /* first packet opened */
#define SM_EPOCH_EVENT_USED     2u /* first data packet in either direction: the epoch's clock starts */
#define SM_EPOCH_EVENT_WORN     4u /* a lane passed SM_REKEY_AFTER_PACKETS */

struct sm_epoch_secret;

/* Where in an array of @plain lanes and their express ones does the lane of that number stand? @count: nowhere */
static inline uint32_t sm_lane_slot(uint32_t plain, uint32_t count, uint8_t lane)
{
	const uint32_t worker = lane & ~SM_LANE_EXPRESS;

	if (worker >= plain)
		return count;
	if (!(lane & SM_LANE_EXPRESS))
		return worker;
	return worker > SM_LANE_CONTROL && count > plain ? plain - 1 + worker : count;
}

/*
 * Which of a node's @workers receives on a lane? That with the sender's number where both have as many, so that
 * the answers, which a kernel steers to where a flow came from, stay with the same two.
 */
static inline uint32_t sm_lane_owner(uint8_t lane, uint32_t workers)
{
	return workers == 1 ? 0 : ((lane & ~SM_LANE_EXPRESS) + workers - 1) % workers;
}

/** sm_epoch_rx() - Return: the receiving lane of that number, NULL: there is none */
static inline struct sm_rx_lane *sm_epoch_rx(const struct sm_epoch *epoch, uint8_t lane)
{
	const uint32_t slot = sm_lane_slot(epoch->rx_plain, epoch->rx_count, lane);

	return slot < epoch->rx_count ? &epoch->rx[slot] : NULL;
}

/**
 * sm_epoch_tx() - The sending lane of a worker
 * @worker:  from 0
 * @express: the express one, if the epoch has them
 * Return: NULL: the epoch has none for that worker
 */
static inline struct sm_tx_lane *sm_epoch_tx(const struct sm_epoch *epoch, uint32_t worker,
					     bool express)
{
	const uint32_t lane = worker + 1;

	if (lane >= epoch->tx_plain)
		return NULL;
	return &epoch->tx[express && epoch->tx_count > epoch->tx_plain ? epoch->tx_plain + worker
								       : lane];
}

/** struct sm_lane_plan - Lanes including the control lane, at most SM_LANE_MAX; @express: and express ones */
struct sm_lane_plan {
	uint32_t tx, rx;
	bool express;
};

/**
 * sm_epoch_new() - Derive every lane
 * @client: we are the TLS client
 * Return: 0, -ENOMEM, -EIO, -EINVAL
 */
SM_MUST_CHECK int sm_epoch_new(const struct sm_epoch_secret *secret, enum sm_cipher cipher,
			       bool client, uint32_t number, uint32_t remote_session,
			       const struct sm_lane_plan *plan, struct sm_epoch **ret_epoch);
void sm_epoch_free(struct sm_epoch *epoch);

#endif

// SPDX-License-Identifier: MIT
/*
 * Lanes and epochs.
 *
 * A lane's counters have one writer, so they are loaded and stored, never added to atomically.
 */
#include "core/lane.h"

#include "crypto/schedule.h"

#include <stdlib.h>

#define LANE_ALIGN 64u

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void store(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_store_explicit(counter, value, memory_order_relaxed);
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	store(counter, load(counter) + n);
}

static void note_first(_Atomic uint64_t *first_us, uint64_t now_us)
{
	if (load(first_us) == 0)
		store(first_us, SM_MAX(now_us, UINT64_C(1)));
}

int sm_tx_lane_reserve(struct sm_tx_lane *lane, uint32_t n, uint64_t now_us, uint64_t *ret_first)
{
	uint64_t first = load(&lane->next);

	if (first + n > SM_PACKET_LIMIT) {
		add(&lane->refused, n);
		return -EDQUOT;
	}
	store(&lane->next, first + n);
	note_first(&lane->first_us, now_us);
	*ret_first = first;
	return 0;
}

int sm_tx_lane_seal_to(struct sm_tx_lane *lane, uint64_t number, const uint8_t *content,
		       uint32_t len, uint8_t *out)
{
	struct sm_data_header header = {.epoch = lane->epoch,
					.lane = lane->lane,
					.session = lane->session,
					.number = number};
	int err;

	sm_data_header_encode(&header, out);
	err = sm_aead_seal(lane->aead, number, out, SM_DATA_HEADER_LEN, content, len,
			   out + SM_DATA_HEADER_LEN);
	add(err ? &lane->refused : &lane->bytes, err ? 1 : len);
	return err;
}

/* Return: 0, -EIO */
static int seal_one(struct sm_tx_lane *lane, struct sm_pbuf *pkt, uint8_t kind, uint64_t number)
{
	uint8_t *content = pkt->data;
	uint32_t len;

	*sm_pbuf_put_tail(pkt, SM_KIND_LEN) = kind;
	len = pkt->len;
	sm_pbuf_put_tail(pkt, SM_TAG_LEN);
	return sm_tx_lane_seal_to(lane, number, content, len,
				  sm_pbuf_push(pkt, SM_DATA_HEADER_LEN));
}

uint32_t sm_tx_lane_seal(struct sm_tx_lane *lane, struct sm_pbuf *const *pkts, const uint8_t *kinds,
			 uint32_t n, uint64_t now_us)
{
	uint64_t first;
	uint32_t done;

	assert(n <= SM_BATCH_MAX);
	if (n == 0 || sm_tx_lane_reserve(lane, n, now_us, &first) < 0)
		return 0;
	for (done = 0; done < n; done++) {
		if (seal_one(lane, pkts[done], kinds[done], first + done) < 0) {
			add(&lane->refused, n - done - 1);
			break;
		}
	}
	return done;
}

static void count_gap(struct sm_rx_lane *lane, uint64_t moved)
{
	uint64_t lost = load(&lane->lost);

	if (moved > 0) {
		store(&lane->lost, lost + moved - 1);
		return;
	}
	add(&lane->late, 1);
	if (lost > 0)
		store(&lane->lost, lost - 1);
}

int sm_rx_lane_open_to(struct sm_rx_lane *lane, const uint8_t *datagram, uint32_t len,
		       const struct sm_data_header *header, uint64_t now_us, uint8_t *out,
		       struct sm_opened *ret_opened)
{
	uint32_t content;
	uint64_t moved;

	/* Beyond the limit nobody seals: it is not worth the decryption. */
	if (len < SM_DATA_OVERHEAD || header->number >= SM_PACKET_LIMIT) {
		add(&lane->forged, 1);
		return -EBADMSG;
	}
	content = len - SM_DATA_HEADER_LEN - SM_TAG_LEN;
	if (sm_aead_open(lane->aead, header->number, datagram, SM_DATA_HEADER_LEN,
			 datagram + SM_DATA_HEADER_LEN, content, out) < 0) {
		add(&lane->forged, 1);
		return -EBADMSG;
	}
	/* After the tag, so that nobody without the key can make up duplicates. */
	if (sm_replay_check(&lane->replay, header->number) < 0) {
		add(&lane->duplicate, 1);
		return -EALREADY;
	}
	moved = sm_replay_accept(&lane->replay, header->number);
	count_gap(lane, moved);
	add(&lane->packets, 1);
	add(&lane->bytes, content);
	note_first(&lane->first_us, now_us);
	ret_opened->len = content - SM_KIND_LEN;
	ret_opened->kind = out[ret_opened->len];
	ret_opened->newest = moved > 0;
	return 0;
}

int sm_rx_lane_open(struct sm_rx_lane *lane, struct sm_pbuf *pkt,
		    const struct sm_data_header *header, uint64_t now_us, uint8_t *ret_kind,
		    bool *ret_newest)
{
	struct sm_opened opened;
	int err = sm_rx_lane_open_to(lane, pkt->data, pkt->len, header, now_us,
				     pkt->data + SM_DATA_HEADER_LEN, &opened);

	if (err)
		return err;
	pkt->data += SM_DATA_HEADER_LEN;
	pkt->len = opened.len;
	*ret_kind = opened.kind;
	*ret_newest = opened.newest;
	return 0;
}

/* Zeroed, and each lane on cache lines of its own: neighbours belong to other threads. */
static void *alloc_lanes(uint32_t count, size_t size)
{
	void *lanes = aligned_alloc(LANE_ALIGN, count * size);

	if (lanes)
		memset(lanes, 0, count * size);
	return lanes;
}

/* The reverse of sm_lane_slot() */
static uint8_t lane_number(uint32_t plain, uint32_t slot)
{
	return (uint8_t)(slot < plain ? slot : SM_LANE_EXPRESS | (slot - plain + 1));
}

int sm_epoch_new(const struct sm_epoch_secret *secret, enum sm_cipher cipher, bool client,
		 uint32_t number, uint32_t remote_session, const struct sm_lane_plan *plan,
		 struct sm_epoch **ret_epoch)
{
	const uint32_t tx_plain = plan->tx, tx_count = plan->express ? 2 * tx_plain - 1 : tx_plain;
	const uint32_t rx_plain = plan->rx, rx_count = plan->express ? 2 * rx_plain - 1 : rx_plain;
	enum sm_direction out = client ? SM_CLIENT_TO_SERVER : SM_SERVER_TO_CLIENT;
	enum sm_direction in = client ? SM_SERVER_TO_CLIENT : SM_CLIENT_TO_SERVER;
	struct sm_epoch *epoch;
	int r = -ENOMEM;

	if (tx_plain == 0 || tx_plain > SM_LANE_MAX || rx_plain == 0 || rx_plain > SM_LANE_MAX)
		return -EINVAL;
	epoch = calloc(1, sizeof(*epoch));
	if (!epoch)
		return -ENOMEM;
	epoch->number = number;
	epoch->tx = alloc_lanes(tx_count, sizeof(*epoch->tx));
	epoch->rx = alloc_lanes(rx_count, sizeof(*epoch->rx));
	if (!epoch->tx || !epoch->rx)
		goto fail;
	epoch->tx_plain = tx_plain;
	epoch->tx_count = tx_count;
	epoch->rx_plain = rx_plain;
	epoch->rx_count = rx_count;
	for (uint32_t i = 0; i < tx_count; i++) {
		struct sm_tx_lane *lane = &epoch->tx[i];

		lane->session = remote_session;
		lane->epoch = (uint8_t)number;
		lane->lane = lane_number(tx_plain, i);
		r = sm_schedule_lane(secret, out, cipher, number, lane->lane, true, &lane->aead);
		if (r < 0)
			goto fail;
	}
	for (uint32_t i = 0; i < rx_count; i++) {
		struct sm_rx_lane *lane = &epoch->rx[i];

		lane->epoch = (uint8_t)number;
		lane->lane = lane_number(rx_plain, i);
		r = sm_schedule_lane(secret, in, cipher, number, lane->lane, false, &lane->aead);
		if (r < 0)
			goto fail;
	}
	*ret_epoch = epoch;
	return 0;

fail:
	sm_epoch_free(epoch);
	return r;
}

void sm_epoch_free(struct sm_epoch *epoch)
{
	if (!epoch)
		return;
	for (uint32_t i = 0; i < epoch->tx_count; i++)
		sm_aead_free(epoch->tx[i].aead);
	for (uint32_t i = 0; i < epoch->rx_count; i++)
		sm_aead_free(epoch->rx[i].aead);
	free(epoch->tx);
	free(epoch->rx);
	free(epoch);
}

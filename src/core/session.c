// SPDX-License-Identifier: MIT
/*
 * Sessions: see session.h.
 */
#include "core/session.h"

#include <stdlib.h>

/* A REQUEST is repeated that often until its REPLY comes; both are idempotent. */
#define REKEY_RETRY_US (2 * SM_SEC_US)
/* The client asks so often for a first packet of the new epoch. */
#define CONFIRM_US (200 * SM_MSEC_US)

int sm_session_new(uint32_t index, uint16_t port, uint64_t now_us, struct sm_session **ret_session)
{
	struct sm_session *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->config.index = index;
	s->config.port = port;
	s->created_us = now_us;
	*ret_session = s;
	return 0;
}

static void exchange_drop(struct sm_session *s)
{
	sm_kem_free(s->kem);
	s->kem = NULL;
	free(s->exchange);
	s->exchange = NULL;
	s->exchange_len = 0;
}

void sm_session_free(struct sm_session *s)
{
	if (!s)
		return;
	for (int i = 0; i < SM_EPOCH_SLOT_COUNT; i++)
		assert(!s->epoch[i]);
	exchange_drop(s);
	sm_stream_done(&s->stream);
	sm_wipe(s, sizeof(*s));
	free(s);
}

static int epoch_make(const struct sm_session *s, const struct sm_epoch_secret *secret,
		      uint32_t number, struct sm_epoch **ret_epoch)
{
	const struct sm_session_config *c = &s->config;
	int err = sm_epoch_new(secret, c->cipher, c->client, number, c->remote_index,
			       &(struct sm_lane_plan){c->tx_lanes, c->rx_lanes, c->express},
			       ret_epoch);

	if (err)
		return err;
	(*ret_epoch)->refs = 1;
	(*ret_epoch)->port = c->port;
	return 0;
}

int sm_session_start(struct sm_session *s, const struct sm_session_config *config,
		     const uint8_t root[SM_ROOT_SECRET_LEN])
{
	int err;

	s->config = *config;
	err = sm_schedule_first(root, &s->secret);
	if (!err)
		err = epoch_make(s, &s->secret, 0, &s->epoch[SM_EPOCH_CURRENT]);
	if (!err)
		s->started = true;
	return err;
}

static uint64_t overlap_end(const struct sm_session *s, uint64_t now_us)
{
	return now_us + SM_MIN(SM_EPOCH_OVERLAP_US, s->config.rekey_after_us / 2);
}

/* Moves @fresh in as the current epoch; the one before is accepted a while longer. */
static void promote(struct sm_session *s, struct sm_epoch *fresh, uint64_t now_us)
{
	assert(!s->epoch[SM_EPOCH_PREVIOUS]);
	s->epoch[SM_EPOCH_PREVIOUS] = s->epoch[SM_EPOCH_CURRENT];
	s->epoch[SM_EPOCH_CURRENT] = fresh;
	s->overlap_until_us = overlap_end(s, now_us);
	s->used_us = 0;
	s->worn = false;
	s->rekeys++;
}

static int encode_rekey(struct sm_session *s, enum sm_msg_type type,
			const struct sm_msg_rekey *rekey)
{
	struct sm_msg msg = {.type = type, .rekey = *rekey};
	uint8_t *buf = malloc(SM_MSG_HEADER_LEN + 4 + SM_KEM_PUBLIC_LEN);
	int len;

	if (!buf)
		return -ENOMEM;
	len = sm_msg_encode(&msg, buf, SM_MSG_HEADER_LEN + 4 + SM_KEM_PUBLIC_LEN);
	if (len < 0) {
		free(buf);
		return len;
	}
	free(s->exchange);
	s->exchange = buf;
	s->exchange_len = (uint32_t)len;
	s->exchange_epoch = rekey->epoch;
	return 0;
}

static int make_request(struct sm_session *s)
{
	struct sm_msg_rekey rekey = {.epoch = s->epoch[SM_EPOCH_CURRENT]->number + 1};
	int err = sm_kem_new(&s->kem, rekey.kem);

	if (err)
		return err;
	err = encode_rekey(s, SM_MSG_REKEY_REQUEST, &rekey);
	if (err) {
		sm_kem_free(s->kem);
		s->kem = NULL;
	}
	return err;
}

static int encode_wanted(uint8_t *buf, size_t size)
{
	const struct sm_msg msg = {.type = SM_MSG_REKEY_WANTED};

	return sm_msg_encode(&msg, buf, size);
}

static bool rekey_due(const struct sm_session *s, uint64_t now_us)
{
	return s->worn || (s->used_us && now_us >= s->used_us + s->config.rekey_after_us);
}

/* What this side must say to get a new epoch: the client asks, the server reminds the client. */
static unsigned drive_rekey(struct sm_session *s, uint64_t now_us, const uint8_t **ret_message,
			    size_t *ret_len)
{
	static _Thread_local uint8_t wanted[SM_MSG_HEADER_LEN];

	if (!s->kem && !rekey_due(s, now_us))
		return SM_SESSION_NOTHING;
	if (s->asked_us && now_us < s->asked_us + REKEY_RETRY_US)
		return SM_SESSION_NOTHING;
	if (s->epoch[SM_EPOCH_PREVIOUS]) /* the last one is hardly over */
		return SM_SESSION_NOTHING;
	s->asked_us = now_us;
	if (!s->config.client) {
		if (s->epoch[SM_EPOCH_NEXT]) /* answered; the client has yet to use it */
			return SM_SESSION_NOTHING;
		*ret_message = wanted;
		*ret_len = (size_t)encode_wanted(wanted, sizeof(wanted));
		return SM_SESSION_SEND;
	}
	if (!s->kem && make_request(s))
		return SM_SESSION_NOTHING; /* out of memory or entropy: tried again at the next turn */
	*ret_message = s->exchange;
	*ret_len = s->exchange_len;
	return SM_SESSION_SEND;
}

/* When the previous epoch is over. Until the server is known to be on the new one, it sends on the old. */
static uint64_t expiry(const struct sm_session *s)
{
	return s->overlap_until_us + (s->unconfirmed ? SM_EPOCH_DIES_US : 0);
}

static bool is_expired(const struct sm_session *s, uint64_t now_us)
{
	return s->epoch[SM_EPOCH_PREVIOUS] && now_us >= expiry(s);
}

unsigned sm_session_tick(struct sm_session *s, uint64_t now_us, const uint8_t **ret_message,
			 size_t *ret_len)
{
	unsigned todo = SM_SESSION_NOTHING;

	*ret_message = NULL;
	*ret_len = 0;
	if (!s->started)
		return todo;
	if (s->draining || s->orphan)
		return now_us >= s->drain_until_us ? SM_SESSION_DEAD : todo;
	if (s->used_us && now_us >= s->used_us + SM_EPOCH_DIES_US)
		return SM_SESSION_DEAD;
	if (s->unconfirmed && now_us >= s->confirm_at_us) {
		s->confirm_at_us = now_us + (now_us < s->overlap_until_us ? CONFIRM_US
									  : SM_PROBE_INTERVAL_US);
		todo |= SM_SESSION_PROBE;
	}
	if (s->ready)
		todo |= drive_rekey(s, now_us, ret_message, ret_len);
	return todo;
}

uint64_t sm_session_deadline(const struct sm_session *s)
{
	uint64_t at = SM_NEVER;

	if (!s->started)
		return at;
	if (s->draining || s->orphan)
		return s->drain_until_us;
	if (s->unconfirmed)
		at = SM_MIN(at, s->confirm_at_us);
	if (s->epoch[SM_EPOCH_PREVIOUS])
		at = SM_MIN(at, expiry(s));
	if (s->used_us)
		at = SM_MIN(at, s->used_us + SM_EPOCH_DIES_US);
	if (s->ready && !s->epoch[SM_EPOCH_PREVIOUS]) {
		const uint64_t retry = s->asked_us ? s->asked_us + REKEY_RETRY_US : 0;

		if (s->worn || s->kem)
			at = SM_MIN(at, retry);
		else if (s->used_us)
			at = SM_MIN(at, SM_MAX(s->used_us + s->config.rekey_after_us, retry));
	}
	return at;
}

struct sm_epoch *sm_session_take_expired(struct sm_session *s, uint64_t now_us)
{
	struct sm_epoch *old = s->epoch[SM_EPOCH_PREVIOUS];

	if (!is_expired(s, now_us))
		return NULL;
	s->epoch[SM_EPOCH_PREVIOUS] = NULL;
	return old;
}

/* The new secret depends on the KEM, on the secret before, and on both messages as they were sent. */
static int next_epoch(struct sm_session *s, const uint8_t kem_secret[SM_KEM_SECRET_LEN],
		      struct sm_bytes request, struct sm_bytes reply, uint32_t number,
		      struct sm_epoch **ret_epoch)
{
	struct sm_epoch_secret secret;
	int err = sm_schedule_next(&s->secret, kem_secret, request, reply, &secret);

	if (!err)
		err = epoch_make(s, &secret, number, ret_epoch);
	if (!err)
		s->secret = secret;
	sm_wipe(&secret, sizeof(secret));
	return err;
}

static int encode_again(enum sm_msg_type type, const struct sm_msg_rekey *rekey, uint8_t *buf,
			size_t size)
{
	const struct sm_msg msg = {.type = type, .rekey = *rekey};

	return sm_msg_encode(&msg, buf, size);
}

int sm_session_on_request(struct sm_session *s, const struct sm_msg_rekey *request, uint64_t now_us,
			  const uint8_t **ret_message, size_t *ret_len)
{
	uint8_t encoded[SM_MSG_HEADER_LEN + 4 + SM_KEM_PUBLIC_LEN];
	uint8_t kem_secret[SM_KEM_SECRET_LEN], digest[SM_SHA256_LEN];
	struct sm_msg_rekey reply = {.epoch = request->epoch};
	struct sm_epoch *fresh = NULL;
	struct sm_bytes bytes;
	int len, err;

	(void)now_us;
	*ret_message = NULL;
	*ret_len = 0;
	if (s->config.client || !s->started)
		return -EPROTO;
	len = encode_again(SM_MSG_REKEY_REQUEST, request, encoded, sizeof(encoded));
	if (len < 0)
		return len;
	bytes = (struct sm_bytes){encoded, (size_t)len};
	err = sm_sha256(&bytes, 1, digest);
	if (err)
		return err;
	if (s->exchange && s->exchange_epoch == request->epoch) {
		if (memcmp(digest, s->request_digest, sizeof(digest)) != 0)
			return -EPROTO; /* another key for the same epoch */
		*ret_message = s->exchange;
		*ret_len = s->exchange_len;
		return SM_SESSION_SEND;
	}
	if (s->epoch[SM_EPOCH_NEXT] || request->epoch != s->epoch[SM_EPOCH_CURRENT]->number + 1) {
		/* an old one, repeated on its way */
		return request->epoch <= s->epoch[SM_EPOCH_CURRENT]->number ? SM_SESSION_NOTHING
									    : -EPROTO;
	}
	if (s->epoch[SM_EPOCH_PREVIOUS])
		return SM_SESSION_NOTHING; /* too early: it will ask again */

	err = sm_kem_encapsulate(request->kem, reply.kem, kem_secret);
	if (!err)
		err = encode_rekey(s, SM_MSG_REKEY_REPLY, &reply);
	if (!err)
		err = next_epoch(s, kem_secret, bytes,
				 (struct sm_bytes){s->exchange, s->exchange_len}, request->epoch,
				 &fresh);
	sm_wipe(kem_secret, sizeof(kem_secret));
	if (err) {
		exchange_drop(s);
		return err;
	}
	memcpy(s->request_digest, digest, sizeof(digest));
	s->epoch[SM_EPOCH_NEXT] = fresh;
	*ret_message = s->exchange;
	*ret_len = s->exchange_len;
	return SM_SESSION_SEND | SM_SESSION_CHANGED;
}

int sm_session_on_reply(struct sm_session *s, const struct sm_msg_rekey *reply, uint64_t now_us)
{
	uint8_t encoded[SM_MSG_HEADER_LEN + 4 + SM_KEM_PUBLIC_LEN];
	uint8_t kem_secret[SM_KEM_SECRET_LEN];
	struct sm_epoch *fresh = NULL;
	int len, err;

	if (!s->config.client || !s->started)
		return -EPROTO;
	if (!s->kem || reply->epoch != s->exchange_epoch) /* repeated, or an answer to nothing */
		return reply->epoch <= s->epoch[SM_EPOCH_CURRENT]->number ? SM_SESSION_NOTHING
									  : -EPROTO;
	len = encode_again(SM_MSG_REKEY_REPLY, reply, encoded, sizeof(encoded));
	if (len < 0)
		return len;
	err = sm_kem_decapsulate(s->kem, reply->kem, kem_secret);
	if (!err)
		err = next_epoch(s, kem_secret, (struct sm_bytes){s->exchange, s->exchange_len},
				 (struct sm_bytes){encoded, (size_t)len}, reply->epoch, &fresh);
	sm_wipe(kem_secret, sizeof(kem_secret));
	if (err)
		return err;
	exchange_drop(s);
	s->asked_us = 0;
	promote(s, fresh, now_us);
	s->unconfirmed = true;
	s->confirm_at_us = now_us + CONFIRM_US;
	return SM_SESSION_CHANGED;
}

unsigned sm_session_on_epoch_event(struct sm_session *s, uint32_t epoch, unsigned event,
				   uint64_t now_us)
{
	const struct sm_epoch *current = s->epoch[SM_EPOCH_CURRENT];
	struct sm_epoch *next = s->epoch[SM_EPOCH_NEXT];
	unsigned todo = SM_SESSION_NOTHING;

	if (!s->started)
		return todo;
	if (next && next->number == epoch) {
		/* whatever was received, the peer has the new keys: send on them */
		s->epoch[SM_EPOCH_NEXT] = NULL;
		s->asked_us = 0;
		promote(s, next, now_us);
		current = next;
		todo |= SM_SESSION_CHANGED;
	}
	if (current->number == epoch) {
		if ((event & SM_EPOCH_EVENT_RECEIVED) && s->unconfirmed) {
			s->unconfirmed = false;
			s->overlap_until_us = overlap_end(s, now_us);
		}
		if ((event & SM_EPOCH_EVENT_USED) && !s->used_us)
			s->used_us = now_us;
		if (event & SM_EPOCH_EVENT_WORN)
			s->worn = true;
	}
	return todo;
}

void sm_session_request_rekey(struct sm_session *s)
{
	s->worn = true;
}

int sm_session_seal(struct sm_session *s, struct sm_pbuf *pkt, enum sm_kind kind, uint64_t now_us)
{
	const uint8_t kinds[1] = {(uint8_t)kind};
	struct sm_epoch *epoch = s->epoch[SM_EPOCH_CURRENT];

	if (!epoch)
		return -EKEYEXPIRED;
	return sm_tx_lane_seal(&epoch->tx[SM_LANE_CONTROL], &pkt, kinds, 1, now_us) == 1
		       ? 0
		       : -EKEYEXPIRED;
}

uint64_t sm_session_packets(const struct sm_session *s, uint64_t *ret_sent)
{
	uint64_t received = 0, sent = 0;

	for (int e = 0; e < SM_EPOCH_SLOT_COUNT; e++) {
		const struct sm_epoch *epoch = s->epoch[e];

		for (uint32_t i = 0; epoch && i < epoch->rx_count; i++)
			received += atomic_load_explicit(&epoch->rx[i].packets,
							 memory_order_relaxed);
		for (uint32_t i = 0; epoch && i < epoch->tx_count; i++)
			sent += atomic_load_explicit(&epoch->tx[i].next, memory_order_relaxed);
	}
	*ret_sent = sent;
	return received;
}

void sm_session_load(const struct sm_session *s, struct sm_session_load *ret_load)
{
	*ret_load = (struct sm_session_load){0};
	for (int e = 0; e < SM_EPOCH_SLOT_COUNT; e++) {
		const struct sm_epoch *epoch = s->epoch[e];

		for (uint32_t i = SM_LANE_CONTROL + 1; epoch && i < epoch->rx_count; i++)
			ret_load->rx_packets += atomic_load_explicit(&epoch->rx[i].packets,
								     memory_order_relaxed);
		for (uint32_t i = SM_LANE_CONTROL + 1; epoch && i < epoch->tx_count; i++) {
			ret_load->tx_packets += atomic_load_explicit(&epoch->tx[i].next,
								     memory_order_relaxed);
			ret_load->tx_bytes += atomic_load_explicit(&epoch->tx[i].bytes,
								   memory_order_relaxed);
			ret_load->tx_batched += atomic_load_explicit(&epoch->tx[i].batched,
								     memory_order_relaxed);
		}
	}
}

bool sm_epoch_unref(struct sm_epoch *epoch)
{
	assert(epoch->refs > 0);
	return --epoch->refs == 0;
}

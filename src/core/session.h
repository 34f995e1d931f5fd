// SPDX-License-Identifier: MIT
/*
 * A session: what one TLS connection seeded. Its indices, its epochs, its rekeying.
 *
 * Theory of operation: the TLS client asks for a new epoch (REQUEST, ephemeral public key); the server
 * answers (REPLY, ciphertext), accepts the new epoch from then on, and sends on it only after it has
 * received on it. The client sends on it at once, and goes on probing until it has received on it: else a
 * lost packet would leave the server on the old epoch. The old epoch is accepted SM_EPOCH_OVERLAP_US longer
 * (at the client: after that), so that nothing in flight is lost. A repeated REQUEST gets the same REPLY; a
 * repeated REPLY does nothing.
 *
 *      client                                        server
 *   current n                                       current n
 *      | -- REQUEST(n+1, public key) ----------------> |  derive n+1, accept n and n+1, send n
 *      | <---------------- REPLY(n+1, ciphertext) ---- |
 *   derive n+1, accept n and n+1, send n+1             |
 *      | -- any packet of epoch n+1 -----------------> |  send n+1, n is over in 10 s
 *
 * Context: control thread only; the lanes inside the epochs belong to their owners (lane.h)
 * Spec: PROTOCOL.md, "Sessions", "Rekeying"
 */
#ifndef SM_CORE_SESSION_H
#define SM_CORE_SESSION_H

#include "core/batch.h"
#include "core/lane.h"
#include "core/mtu.h"
#include "core/path.h"
#include "core/stream.h"
#include "crypto/schedule.h"
#include "wire/ctrl.h"

enum sm_session_slot {
	SM_EPOCH_PREVIOUS, /* accepted until overlap_until_us */
	SM_EPOCH_CURRENT,  /* accepted and sent on */
	SM_EPOCH_NEXT,     /* server: accepted, not yet sent on */
	SM_EPOCH_SLOT_COUNT,
};

/** struct sm_session_config - What both HELLOs settled */
struct sm_session_config {
	uint32_t index, remote_index;
	uint16_t port;
	bool client;
	bool takes_parts, takes_chunks;
	enum sm_cipher cipher;
	uint32_t tx_lanes, rx_lanes; /* without express ones */
	bool express;                /* there are express lanes */
	uint64_t rekey_after_us;
	uint32_t mtu; /* the peer's TAP or TUN */
};

/** struct sm_assembler - Bytes of one carrier until they are a whole message */
struct sm_assembler {
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	uint32_t len;
};

/** struct sm_session_load - Data, without the control lane, in the epochs that are there */
struct sm_session_load {
	uint64_t tx_packets, tx_bytes, tx_batched, rx_packets;
};

struct sm_session {
	struct sm_session_config config;
	bool started; /* keys are there, we accept packets */
	bool ready;   /* the peer does too: we may send */
	bool heard;   /* a packet came: the peer sends on it */
	bool orphan; /* started, but the connection broke before READY came: a packet says it too */
	bool draining; /* receive only, until drain_until_us */
	uint64_t created_us, ready_us, drain_until_us;

	struct sm_epoch *epoch[SM_EPOCH_SLOT_COUNT];
	struct sm_epoch_secret secret; /* of the newest epoch */
	uint64_t overlap_until_us;
	uint64_t used_us;       /* first data packet of the current epoch, 0: none yet */
	bool worn;              /* a lane passed SM_REKEY_AFTER_PACKETS */
	bool unconfirmed;       /* client: nothing was received on the current epoch yet */
	uint64_t confirm_at_us; /* when to probe for that */

	struct sm_kem *kem; /* client: a request is out */
	uint8_t *exchange;  /* client: encoded REQUEST; server: encoded REPLY to the newest one */
	uint32_t exchange_len;
	uint32_t exchange_epoch;
	uint8_t request_digest[SM_SHA256_LEN]; /* server: of the REQUEST that exchange answers */
	uint64_t asked_us;                     /* client: REQUEST sent; server: REKEY_WANTED sent */
	uint32_t rekeys;

	struct sm_stream stream;
	struct sm_assembler in; /* from the stream */
	struct sm_path path;
	struct sm_mtu mtu;                /* of the path */
	struct sm_batch batch;            /* the same */
	uint32_t mtu_moves;               /* path.moves when it was begun */
	struct sm_session_load load_seen; /* at the last second */
	uint64_t rx_seen;                 /* packets counted at the last tick */
	uint64_t tx_seen;
	uint64_t followed; /* packets received at the last sm_contention_follow() */
	uint32_t ahead;    /* seconds in a row in which it received and the active one did not */
};

/** sm_session_new() - Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_session_new(uint32_t index, uint16_t port, uint64_t now_us,
				 struct sm_session **ret_session);

/** sm_session_free() - The owner has taken the epochs away before (and dropped their references) */
void sm_session_free(struct sm_session *s);

/** sm_session_start() - Derive epoch 0 from TLS's root secret; Return: 0, -errno */
SM_MUST_CHECK int sm_session_start(struct sm_session *s, const struct sm_session_config *config,
				   const uint8_t root[SM_ROOT_SECRET_LEN]);

enum sm_session_todo {
	SM_SESSION_NOTHING = 0,
	SM_SESSION_SEND = 1,    /* *ret_message is to be sent to the peer */
	SM_SESSION_CHANGED = 2, /* publish; afterwards a probe should go out on the new epoch */
	SM_SESSION_DEAD = 4,    /* the keys are over: close */
	SM_SESSION_PROBE = 8,   /* a probe should go out on the current epoch */
};

/**
 * sm_session_tick() - Advance timers; sm_session_take_expired() goes before
 * @ret_message, @ret_len: encoded message to send, valid until the next call
 * Return: mask of SM_SESSION_*
 */
SM_MUST_CHECK unsigned sm_session_tick(struct sm_session *s, uint64_t now_us,
				       const uint8_t **ret_message, size_t *ret_len);
/** sm_session_take_expired() - Return: the previous epoch if its overlap is over (caller unrefs), else NULL */
SM_MUST_CHECK struct sm_epoch *sm_session_take_expired(struct sm_session *s, uint64_t now_us);

/** sm_session_deadline() - Return: when sm_session_tick() should be called */
uint64_t sm_session_deadline(const struct sm_session *s);

/** sm_session_on_request() - Server; Return: mask of SM_SESSION_*, or -EPROTO, -EBADMSG, -errno */
SM_MUST_CHECK int sm_session_on_request(struct sm_session *s, const struct sm_msg_rekey *request,
					uint64_t now_us, const uint8_t **ret_message,
					size_t *ret_len);
/** sm_session_on_reply() - Client; Return: mask of SM_SESSION_*, or -EPROTO, -EBADMSG, -errno */
SM_MUST_CHECK int sm_session_on_reply(struct sm_session *s, const struct sm_msg_rekey *reply,
				      uint64_t now_us);

/** sm_session_on_epoch_event() - A worker saw an epoch @received, @used or @worn (core/lane.h); Return: mask */
SM_MUST_CHECK unsigned sm_session_on_epoch_event(struct sm_session *s, uint32_t epoch,
						 unsigned event, uint64_t now_us);

/** sm_session_request_rekey() - Start one now, whatever the clock says */
void sm_session_request_rekey(struct sm_session *s);

/**
 * sm_session_seal() - Make a sealed control-lane datagram
 * @pkt:  body, with headroom and tailroom
 * Return: 0, -EKEYEXPIRED no epoch to send on or its limit is reached
 */
SM_MUST_CHECK int sm_session_seal(struct sm_session *s, struct sm_pbuf *pkt, enum sm_kind kind,
				  uint64_t now_us);

/** sm_session_packets() - Sum over the epochs; Return: packets opened; @ret_sent: packets sealed */
uint64_t sm_session_packets(const struct sm_session *s, uint64_t *ret_sent);

void sm_session_load(const struct sm_session *s, struct sm_session_load *ret_load);

/** sm_epoch_unref() - Drop one reference; Return: true if that was the last and the epoch is to be freed */
bool sm_epoch_unref(struct sm_epoch *epoch);

#endif

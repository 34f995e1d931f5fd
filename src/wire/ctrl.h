// SPDX-License-Identifier: MIT
/*
 * Control messages: type (16 bits, highest bit: critical), length (16 bits), value.
 *
 * One table row per message holds its name, its bounds, when and by whom it may be sent. Encoder and
 * decoder of each stand side by side in ctrl.c. The same messages travel in TLS and in the control
 * stream.
 */
#ifndef SM_WIRE_CTRL_H
#define SM_WIRE_CTRL_H

#include "base/addr.h"
#include "base/cursor.h"
#include "wire/const.h"

enum sm_msg_type {
	SM_MSG_HELLO = 0x8001,     /* the first in each direction, on TLS only */
	SM_MSG_READY = 0x8002,     /* my receiving keys are in place: send */
	SM_MSG_ENDPOINTS = 0x0003, /* where my data and control ports can be reached */
	SM_MSG_OBSERVED = 0x0004,  /* the addresses that I see you come from */
	SM_MSG_PING = 0x0005,
	SM_MSG_PONG = 0x0006,
	SM_MSG_REKEY_REQUEST = 0x8007, /* only the TLS client sends it */
	SM_MSG_REKEY_REPLY = 0x8008,   /* only the TLS server sends it */
	SM_MSG_REKEY_WANTED = 0x0009,  /* the TLS server asks the client for a request */
	SM_MSG_CLOSE = 0x800a,
};

/* HELLO feature bits; unknown ones are ignored */
#define SM_FEATURE_PART  UINT64_C(1) /* takes SM_KIND_PART */
#define SM_FEATURE_CHUNK UINT64_C(2) /* takes SM_KIND_CHUNK */
#define SM_FEATURE_EXPRESS \
	UINT64_C(4) /* has express lanes; they are used if both sides have the bit set */

struct sm_msg_hello {
	uint16_t version;      /* SM_PROTOCOL_VERSION */
	uint8_t mode;          /* enum sm_mode */
	uint8_t ciphers;       /* mask: bit 1 << enum sm_cipher for each it can do */
	uint8_t preferred;     /* enum sm_cipher: what is fast here */
	uint8_t workers;       /* sending lanes beside the control lane, 1 to SM_WORKER_MAX */
	uint16_t data_port;    /* UDP */
	uint16_t control_port; /* TCP, 0 if it does not listen */
	uint16_t mtu;          /* of the TAP or TUN */
	uint32_t session;      /* what the other puts into packets to me */
	uint64_t instance;     /* random at start of the daemon */
	uint64_t features;
};

enum sm_candidate_type {
	SM_CANDIDATE_HOST = 0,
	SM_CANDIDATE_SERVER_REFLEXIVE = 1,
	SM_CANDIDATE_PORT_MAPPED = 2,
	SM_CANDIDATE_RELAYED = 3,
	SM_CANDIDATE_TYPE_COUNT,
};

struct sm_candidate {
	struct sm_addr data;   /* UDP */
	uint16_t control_port; /* TCP at the same address, 0 if none */
	uint8_t type;          /* enum sm_candidate_type */
};

struct sm_msg_endpoints {
	uint8_t count;
	struct sm_candidate candidate[SM_ENDPOINTS_MAX];
};

struct sm_msg_observed {
	struct sm_addr control, data; /* family 0: not seen */
};

struct sm_msg_ping { /* PONG carries it back */
	uint64_t token;
};

struct sm_msg_rekey {
	uint32_t epoch;                 /* the new one */
	uint8_t kem[SM_KEM_PUBLIC_LEN]; /* public key or ciphertext */
};
static_assert(SM_KEM_PUBLIC_LEN == SM_KEM_CIPHERTEXT_LEN, "one struct serves both");

enum sm_close_reason {
	SM_CLOSE_NONE = 0,       /* never on the wire */
	SM_CLOSE_SHUTDOWN = 1,   /* the daemon ends */
	SM_CLOSE_DUPLICATE = 2,  /* another connection to you survives */
	SM_CLOSE_SUPERSEDED = 3, /* a newer certificate of that name, or a newer connection */
	SM_CLOSE_PROTOCOL = 4,   /* malformed, out of order, unknown and critical */
	SM_CLOSE_VERSION = 5,    /* no common protocol version */
	SM_CLOSE_MODE = 6,       /* tap against tun */
	SM_CLOSE_CIPHER = 7,     /* no common cipher */
	SM_CLOSE_NETWORK = 8,    /* another network */
	SM_CLOSE_REVOKED = 9,
	SM_CLOSE_EXPIRED = 10,     /* a certificate's time is over */
	SM_CLOSE_NOT_TRUSTED = 11, /* no CA of ours, or not pinned */
	SM_CLOSE_SELF = 12,        /* connected to itself, or the same name twice */
	SM_CLOSE_TIMEOUT = 13,     /* handshake or keepalive */
	SM_CLOSE_LIMIT = 14,       /* too many */
	SM_CLOSE_CONFIG = 15,      /* the peer was taken out of the configuration */
	SM_CLOSE_REKEY_FAILED = 16,
	SM_CLOSE_INTERNAL = 17,
	SM_CLOSE_REASON_COUNT,
};

/** sm_close_reason_name() - Return: "shutdown" ..., "unknown" for numbers not in the list */
const char *sm_close_reason_name(unsigned reason);

struct sm_msg_close {
	uint16_t reason; /* enum sm_close_reason; unknown ones are kept */
	/* One line for a person, may be empty; on the way what is not printable UTF-8 becomes '?' */
	char text[SM_CLOSE_TEXT_MAX + 1];
};

struct sm_msg {
	enum sm_msg_type type;
	union {
		struct sm_msg_hello hello;
		struct sm_msg_endpoints endpoints;
		struct sm_msg_observed observed;
		struct sm_msg_ping ping;   /* PING and PONG */
		struct sm_msg_rekey rekey; /* REQUEST and REPLY */
		struct sm_msg_close close;
	};
};

/* Where a message may come from; the codec checks, the state machine passes what holds now. */
#define SM_MSG_CTX_TLS         1u /* arrived in TLS */
#define SM_MSG_CTX_STREAM      2u /* arrived in the control stream */
#define SM_MSG_CTX_HELLO_SEEN  4u /* the sender's HELLO was accepted on this connection */
#define SM_MSG_CTX_FROM_CLIENT 8u /* the sender is the TLS client */

/** sm_msg_name() - Return: "HELLO" ..., "unknown" */
const char *sm_msg_name(unsigned type);

/**
 * sm_msg_peek() - Look at the front of received bytes
 * @ret_type, @ret_len: type and total length (header and value) of the first message
 * Return: 1 if it is there whole; 0 if more bytes are needed (nothing is set, nor on failure);
 *         -EMSGSIZE if its length is out of the table's bounds (or over SM_MSG_VALUE_MAX for unknown types)
 */
SM_MUST_CHECK int sm_msg_peek(const uint8_t *buf, size_t len, unsigned *ret_type, size_t *ret_len);

/**
 * sm_msg_decode() - Read one whole message
 * @buf: header and value, exactly @len bytes
 * @ctx: SM_MSG_CTX_*
 * Return: 0; -ENOMSG unknown and not critical: skip it; -EOPNOTSUPP unknown and critical;
 *         -EPROTO not allowed in this context; -EBADMSG malformed
 */
SM_MUST_CHECK int sm_msg_decode(const uint8_t *buf, size_t len, unsigned ctx,
				struct sm_msg *ret_msg);

/** sm_msg_encode() - Return: bytes written (header and value), -ENOSPC, -EINVAL for values outside their bounds */
SM_MUST_CHECK int sm_msg_encode(const struct sm_msg *msg, uint8_t *buf, size_t len);

#endif

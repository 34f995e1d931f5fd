// SPDX-License-Identifier: MIT
/*
 * Every number of the protocol, with its unit and the section of docs/PROTOCOL.md that defines it.
 */
#ifndef SM_WIRE_CONST_H
#define SM_WIRE_CONST_H

#include "base/base.h"

#define SM_PROTOCOL_VERSION 1
#define SM_ALPN             "shadowmesh/1" /* "Control channel" */
#define SM_CONTROL_PORT     8443           /* TCP, "Control channel" */
#define SM_DATA_PORT        9443           /* UDP, "Data packets" */

#define SM_NETWORK_ID_LEN  16 /* bytes, "Identity" */
#define SM_NODE_ID_LEN     16 /* bytes, "Identity" */
#define SM_FINGERPRINT_LEN 32 /* bytes, SHA-256 of the SubjectPublicKeyInfo, "Identity" */
#define SM_MAC_LEN         6  /* bytes */
#define SM_ROOT_SECRET_LEN 48 /* bytes, "Key schedule" */

/* "Data packets" */
#define SM_PACKET_DATA     0x80 /* first byte; STUN's is below 0x40, so both share a port */
#define SM_DATA_HEADER_LEN 16u  /* bytes */
#define SM_TAG_LEN         16u  /* bytes, both AEADs */
#define SM_KIND_LEN        1u   /* bytes: the kind stands last in the sealed content */
#define SM_DATA_OVERHEAD   (SM_DATA_HEADER_LEN + SM_KIND_LEN + SM_TAG_LEN)
#define SM_DATAGRAM_MAX    65507u /* bytes of UDP payload over IPv4 */
#define SM_FRAME_MAX       65535u /* bytes of one Ethernet frame or IP packet */
#define SM_PATH_MTU_MIN    1280u  /* bytes of outer IP packet that any path is taken to carry */

/*
 * "Lanes": 0 is the control lane, 1 to SM_WORKER_MAX belong to the sending workers; with SM_LANE_EXPRESS set,
 * the worker's second, for flows that send little
 */
#define SM_LANE_CONTROL  0u
#define SM_LANE_EXPRESS  0x80u
#define SM_WORKER_MAX    16u
#define SM_LANE_MAX      (SM_WORKER_MAX + 1u) /* without the express ones */
#define SM_REPLAY_WINDOW 65536u               /* packets per lane */

/* "Rekeying" */
#define SM_REKEY_AFTER_US      (UINT64_C(120) * SM_SEC_US) /* since the epoch's first data packet */
#define SM_EPOCH_DIES_US       (UINT64_C(240) * SM_SEC_US) /* same clock: neither sent nor accepted */
#define SM_REKEY_AFTER_PACKETS (UINT64_C(1) << 26)         /* per lane */
#define SM_PACKET_LIMIT        (UINT64_C(1) << 28)         /* per lane: hard stop */
#define SM_SESSION_DIES_US \
	(UINT64_C(25) * 3600 * SM_SEC_US)                /* a full handshake is due after 24 h */
#define SM_EPOCH_OVERLAP_US   (UINT64_C(10) * SM_SEC_US) /* the old epoch is accepted that long */
#define SM_KEM_PUBLIC_LEN     1665u /* bytes: P-384 point (97), ML-KEM-1024 key (1568) */
#define SM_KEM_CIPHERTEXT_LEN 1665u /* bytes: P-384 point (97), ML-KEM-1024 ciphertext (1568) */

/* "Control stream" (messages inside sealed packets) */
#define SM_STREAM_SEGMENT_MAX 1024u  /* bytes of stream data in one packet */
#define SM_STREAM_WINDOW      65536u /* bytes unacknowledged */

/* "Control messages" */
#define SM_MSG_HEADER_LEN 4u      /* bytes: type, length */
#define SM_MSG_VALUE_MAX  4096u   /* bytes: the longest value of any message */
#define SM_MSG_CRITICAL   0x8000u /* bit of the type */
#define SM_ENDPOINTS_MAX  16u     /* candidates in one ENDPOINTS */
#define SM_CLOSE_TEXT_MAX 200u    /* bytes, UTF-8 */

/* "Paths" */
#define SM_PROBE_INTERVAL_US (UINT64_C(1) * SM_SEC_US)  /* to a silent peer */
#define SM_KEEPALIVE_US      (UINT64_C(10) * SM_SEC_US) /* nothing sent for that long: probe */
#define SM_PATH_SILENT_US    (UINT64_C(3) * SM_SEC_US)  /* unanswered that long: path is down */

/* Ciphers of the data plane, bits of HELLO's mask */
enum sm_cipher {
	SM_CIPHER_AES256GCM = 0,
	SM_CIPHER_CHACHA20POLY1305 = 1,
	SM_CIPHER_COUNT,
};

/* What a network carries */
enum sm_mode {
	SM_MODE_TAP = 1,
	SM_MODE_TUN = 2,
};

/* Last byte of the sealed content */
enum sm_kind {
	SM_KIND_FRAME = 0x01, /* one Ethernet frame or IP packet */
	SM_KIND_PART = 0x02, /* piece of a frame that does not fit the path, and a 4-byte trailer */
	SM_KIND_STREAM = 0x03, /* segment of the control stream; control lane only */
	SM_KIND_PROBE = 0x04,  /* path probe or its answer; control lane only */
	SM_KIND_CHUNK = 0x05,  /* chunk of a super-frame, or a frame with an unfinished checksum */
};

#endif

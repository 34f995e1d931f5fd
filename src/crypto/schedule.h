// SPDX-License-Identifier: MIT
/*
 * The key schedule: from TLS's exporter to one key and IV per direction, epoch and lane.
 *
 *   root     = TLS-Exporter("EXPORTER-shadowmesh/1 session", context, 48)
 *   context  = network id (16) || SHA-384(SPKI of the TLS client) || SHA-384(SPKI of the TLS server)
 *   secret_0 = HKDF-Extract(salt = "shadowmesh/1 epoch", IKM = root)
 *   secret_n = HKDF-Extract(salt = secret_{n-1}, IKM = KEM secret || SHA-384(request || reply))
 *              where request and reply are the whole control messages, header included
 *   key      = HKDF-Expand(secret_n, "shadowmesh/1 key" || d || cipher || n || lane, 32)
 *   iv       = HKDF-Expand(secret_n, "shadowmesh/1 iv"  || d || cipher || n || lane, 12)
 *              d: 8 bits, 0 from the TLS client to the server, 1 back; cipher, lane: 8 bits; n: 32 bits
 *
 * Spec: PROTOCOL.md, "Key schedule"
 */
#ifndef SM_CRYPTO_SCHEDULE_H
#define SM_CRYPTO_SCHEDULE_H

#include "crypto/aead.h"
#include "crypto/crypto.h"
#include "crypto/kem.h"

#define SM_EXPORTER_LABEL       "EXPORTER-shadowmesh/1 session"
#define SM_EXPORTER_CONTEXT_LEN (SM_NETWORK_ID_LEN + 2 * SM_SHA384_LEN)

enum sm_direction {
	SM_CLIENT_TO_SERVER = 0,
	SM_SERVER_TO_CLIENT = 1,
};

struct sm_epoch_secret {
	uint8_t b[SM_SHA384_LEN];
};

SM_MUST_CHECK int sm_schedule_first(const uint8_t root[SM_ROOT_SECRET_LEN],
				    struct sm_epoch_secret *ret_secret);

/** sm_schedule_next() - @request, @reply: encoded control messages; @ret_secret may be @previous; Return: 0, -EIO */
SM_MUST_CHECK int sm_schedule_next(const struct sm_epoch_secret *previous,
				   const uint8_t kem_secret[SM_KEM_SECRET_LEN],
				   struct sm_bytes request, struct sm_bytes reply,
				   struct sm_epoch_secret *ret_secret);

/** sm_schedule_lane() - Derive one lane's AEAD; Return: 0, -EIO, -ENOMEM */
SM_MUST_CHECK int sm_schedule_lane(const struct sm_epoch_secret *secret,
				   enum sm_direction direction, enum sm_cipher cipher,
				   uint32_t epoch, uint8_t lane, bool sealing,
				   struct sm_aead **ret_aead);

#endif

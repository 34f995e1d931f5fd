// SPDX-License-Identifier: MIT
/*
 * The access key: a secret of the whole network that strangers lack. Who does not prove it in the first
 * message learns no certificate and costs a hash.
 *
 * The proof is the binder of a pre-shared key (RFC 8446, section 4.2.11.2) that the client offers and no
 * server of ours ever selects: a MAC over the whole ClientHello, key share included, so a replayed
 * greeting begins a handshake that only its author could finish. The handshake itself goes on with
 * certificates as if the offer were not there.
 *
 *   identity = time (64 bits, seconds since 1970) || nonce (16 bytes)
 *   psk      = HKDF-Expand(HKDF-Extract("shadowmesh/1 access", key), network id, 48), SHA-384
 *
 * Clocks may be a day off, so the time is accepted within two days. What was accepted is remembered by
 * its binder (the last SM_ACCESS_SEEN_MAX of them): a replay costs the server no signature unless more
 * greetings than that came in between, and then as much as any other unfinished handshake.
 *
 * Spec: PROTOCOL.md, "Access key"
 */
#ifndef SM_CRYPTO_ACCESS_H
#define SM_CRYPTO_ACCESS_H

#include "crypto/crypto.h"
#include "crypto/hello.h"
#include "wire/const.h"

#define SM_ACCESS_KEY_LEN      32u
#define SM_ACCESS_IDENTITY_LEN 24u
#define SM_ACCESS_PSK_LEN      SM_SHA384_LEN
#define SM_ACCESS_WINDOW_S     UINT64_C(172800) /* two days */
#define SM_ACCESS_SEEN_MAX     4096u

struct sm_access; /* may be used by several threads at once */

/** sm_access_new() - Return: 0, -ENOMEM, -EIO */
SM_MUST_CHECK int sm_access_new(const uint8_t key[SM_ACCESS_KEY_LEN],
				const uint8_t network_id[SM_NETWORK_ID_LEN],
				struct sm_access **ret_access);
void sm_access_free(struct sm_access *access);

/** sm_access_offer() - Client: a fresh identity; Return: 0, -EIO */
SM_MUST_CHECK int sm_access_offer(const struct sm_access *access, int64_t now_s,
				  uint8_t ret_identity[SM_ACCESS_IDENTITY_LEN]);
/** sm_access_psk() - Client: the key of every offer; Return: SM_ACCESS_PSK_LEN bytes */
const uint8_t *sm_access_psk(const struct sm_access *access);

/**
 * sm_access_check() - Server: does this ClientHello come from someone who has the key?
 * @msg, @hello: the message and what sm_hello_parse() found in it
 * @ret_why: on -EACCES a sentence, static
 * Return: 0, -EACCES, -EIO
 */
SM_MUST_CHECK int sm_access_check(struct sm_access *access, const uint8_t *msg,
				  const struct sm_hello *hello, int64_t now_s,
				  const char **ret_why);

#endif

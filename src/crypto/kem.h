// SPDX-License-Identifier: MIT
/*
 * The hybrid KEM of rekeying: P-384 with ML-KEM-1024, laid out as TLS's SecP384r1MLKEM1024
 * (draft-ietf-tls-ecdhe-mlkem): point first, then the ML-KEM part, in public key, ciphertext and secret.
 */
#ifndef SM_CRYPTO_KEM_H
#define SM_CRYPTO_KEM_H

#include "base/base.h"
#include "wire/const.h"

#define SM_KEM_SECRET_LEN 80u /* 48 bytes of P-384, 32 of ML-KEM */

struct sm_kem; /* an ephemeral key pair */

/** sm_kem_new() - Generate; Return: 0, -EIO */
SM_MUST_CHECK int sm_kem_new(struct sm_kem **ret_kem, uint8_t ret_public[SM_KEM_PUBLIC_LEN]);
void sm_kem_free(struct sm_kem *kem);

/** sm_kem_encapsulate() - Return: 0, -EBADMSG for an invalid public key, -EIO */
SM_MUST_CHECK int sm_kem_encapsulate(const uint8_t public_key[SM_KEM_PUBLIC_LEN],
				     uint8_t ret_ciphertext[SM_KEM_CIPHERTEXT_LEN],
				     uint8_t ret_secret[SM_KEM_SECRET_LEN]);

/** sm_kem_decapsulate() - Return: 0, -EBADMSG */
SM_MUST_CHECK int sm_kem_decapsulate(const struct sm_kem *kem,
				     const uint8_t ciphertext[SM_KEM_CIPHERTEXT_LEN],
				     uint8_t ret_secret[SM_KEM_SECRET_LEN]);

#endif

// SPDX-License-Identifier: MIT
/*
 * What the rest needs of a cryptographic library: start-up, hashes, key derivation, randomness.
 * src/crypto is the only place that includes OpenSSL.
 */
#ifndef SM_CRYPTO_CRYPTO_H
#define SM_CRYPTO_CRYPTO_H

#include "base/base.h"

#define SM_SHA256_LEN 32u
#define SM_SHA384_LEN 48u

/**
 * sm_crypto_init() - Prepare the library; call once, before anything else uses it
 *
 * Installs a wiping allocator, ignores the system's openssl.cnf, checks that ML-DSA-87, ML-KEM-1024
 * and AES-256-GCM are there.
 * Return: 0; -ENOTSUP when the library lacks an algorithm
 */
SM_MUST_CHECK int sm_crypto_init(void);

/** sm_crypto_version() - Return: "OpenSSL 3.5.x ...", and what seals packets if that is another library */
const char *sm_crypto_version(void);

/** sm_crypto_has_aes() - Return: true if the CPU computes AES-GCM in hardware */
bool sm_crypto_has_aes(void);

/** sm_crypto_random() - Fill with secret randomness; Return: 0, -EIO */
SM_MUST_CHECK int sm_crypto_random(void *ret_data, size_t len);

struct sm_bytes {
	const void *data;
	size_t len;
};

/** sm_sha256() - Hash @n pieces one after another; Return: 0, -EIO */
SM_MUST_CHECK int sm_sha256(const struct sm_bytes *pieces, size_t n,
			    uint8_t ret_digest[SM_SHA256_LEN]);

/** sm_hmac_sha256() - Return: 0, -EIO */
SM_MUST_CHECK int sm_hmac_sha256(const void *key, size_t key_len, const struct sm_bytes *pieces,
				 size_t n, uint8_t ret_mac[SM_SHA256_LEN]);

/** sm_hkdf_extract() - HKDF-SHA384, RFC 5869; Return: 0, -EIO */
SM_MUST_CHECK int sm_hkdf_extract(const void *salt, size_t salt_len, const void *ikm,
				  size_t ikm_len, uint8_t ret_prk[SM_SHA384_LEN]);

/** sm_hkdf_expand() - @info is made of @n pieces; @len at most 255 * 48; Return: 0, -EIO, -EINVAL */
SM_MUST_CHECK int sm_hkdf_expand(const uint8_t prk[SM_SHA384_LEN], const struct sm_bytes *info,
				 size_t n, void *ret_okm, size_t len);

/** sm_crypto_error() - Return: the library's newest error as text (thread-local buffer), and clear its queue */
const char *sm_crypto_error(void);

#endif

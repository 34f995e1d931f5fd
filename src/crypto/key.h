// SPDX-License-Identifier: MIT
/*
 * ML-DSA-87 key pairs and their files: PKCS#8 PEM, seed only (RFC 9881), mode 0600, optionally
 * encrypted under a passphrase (PBES2: PBKDF2-HMAC-SHA512, AES-256-CBC).
 */
#ifndef SM_CRYPTO_KEY_H
#define SM_CRYPTO_KEY_H

#include "base/base.h"
#include "wire/const.h"

struct sm_key; /* private or public */

#define SM_KEY_ERROR_MAX 256

/** sm_key_generate() - Return: 0, -EIO */
SM_MUST_CHECK int sm_key_generate(struct sm_key **ret_key);
void sm_key_free(struct sm_key *key);

/**
 * sm_key_save() - Write a private key; never overwrites, the file appears whole or not at all
 * @passphrase: NULL for none
 * @error: SM_KEY_ERROR_MAX bytes for a sentence that names cause and cure; may be NULL
 * Return: 0, -EEXIST, -EIO, -ENOSPC, ...
 */
SM_MUST_CHECK int sm_key_save(const struct sm_key *key, const char *path, const char *passphrase,
			      char *error);

/**
 * sm_key_load() - Read a private key
 * @passphrase: asked only if the file is encrypted; returns 0 and fills @buf or -errno; may be NULL
 * Return: 0; -ENOENT; -EPERM when group or others may read the file; -EACCES wrong passphrase or none;
 *         -EBADMSG not a key; -ENOTSUP a key of another algorithm
 */
SM_MUST_CHECK int sm_key_load(const char *path,
			      int (*passphrase)(void *arg, char *buf, size_t size), void *arg,
			      struct sm_key **ret_key, char *error);

/** sm_key_fingerprint() - SHA-256 of the SubjectPublicKeyInfo; Return: 0, -EIO */
SM_MUST_CHECK int sm_key_fingerprint(const struct sm_key *key, uint8_t ret_fp[SM_FINGERPRINT_LEN]);

#endif

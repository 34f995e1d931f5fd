// SPDX-License-Identifier: MIT
/*
 * One AEAD key with its static IV: AES-256-GCM or ChaCha20-Poly1305.
 *
 * The nonce is the static IV XORed with the packet number (64 bits, big-endian, at the end), as in
 * RFC 8446, section 5.3. A context belongs to one thread.
 */
#ifndef SM_CRYPTO_AEAD_H
#define SM_CRYPTO_AEAD_H

#include "base/base.h"
#include "wire/const.h"

#define SM_AEAD_KEY_LEN 32u
#define SM_AEAD_IV_LEN  12u

struct sm_aead;

/** sm_aead_new() - Return: 0, -ENOMEM, -EIO; *@ret_aead is for both sealing and opening in one direction */
SM_MUST_CHECK int sm_aead_new(enum sm_cipher cipher, const uint8_t key[SM_AEAD_KEY_LEN],
			      const uint8_t iv[SM_AEAD_IV_LEN], bool sealing,
			      struct sm_aead **ret_aead);
void sm_aead_free(struct sm_aead *aead);

/**
 * sm_aead_set_portable() - Contexts made from now on are OpenSSL's, also where a faster library is there
 *
 * For tests and measurements; not while other threads make contexts.
 */
void sm_aead_set_portable(bool portable);

/**
 * sm_aead_seal() - Encrypt and authenticate
 * @number: packet number, never used twice with this key
 * @ad, @ad_len: authenticated header
 * @in, @len: plaintext
 * @out: ciphertext of the same length and SM_TAG_LEN bytes of tag; @in itself, or apart from it
 * Return: 0, -EIO
 */
SM_MUST_CHECK int sm_aead_seal(struct sm_aead *aead, uint64_t number, const uint8_t *ad,
			       size_t ad_len, const uint8_t *in, size_t len, uint8_t *out);

/**
 * sm_aead_open() - Verify and decrypt
 * @in, @len: ciphertext without its tag, which stands behind it
 * @out: plaintext of the same length; @in itself, or apart from it
 * Return: 0, -EBADMSG (then what @out holds is undefined and must not be used)
 */
SM_MUST_CHECK int sm_aead_open(struct sm_aead *aead, uint64_t number, const uint8_t *ad,
			       size_t ad_len, const uint8_t *in, size_t len, uint8_t *out);

#endif

// SPDX-License-Identifier: MIT
/*
 * AES-256-GCM and ChaCha20-Poly1305 with a kept context: a packet costs one change of IV.
 */
#include "crypto/aead.h"

#include "crypto/aead_mb.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

struct sm_aead {
	struct sm_aead_mb *mb; /* NULL: @ctx */
	EVP_CIPHER_CTX *ctx;
	uint8_t iv[SM_AEAD_IV_LEN];
};

static const char *const cipher_names[] = {
	[SM_CIPHER_AES256GCM] = "AES-256-GCM",
	[SM_CIPHER_CHACHA20POLY1305] = "ChaCha20-Poly1305",
};
static_assert(SM_ARRAY_SIZE(cipher_names) == SM_CIPHER_COUNT, "a name for each cipher");

static bool portable_only;

void sm_aead_set_portable(bool portable)
{
	portable_only = portable;
}

int sm_aead_new(enum sm_cipher cipher, const uint8_t key[SM_AEAD_KEY_LEN],
		const uint8_t iv[SM_AEAD_IV_LEN], bool sealing, struct sm_aead **ret_aead)
{
	struct sm_aead *aead;
	EVP_CIPHER *algorithm = NULL;
	int err = -ENOMEM;

	if ((unsigned)cipher >= SM_CIPHER_COUNT)
		return -EIO;
	aead = calloc(1, sizeof(*aead));
	if (!aead)
		return -ENOMEM;
	memcpy(aead->iv, iv, sizeof(aead->iv));
	if (cipher == SM_CIPHER_AES256GCM && !portable_only && sm_aead_mb_version()) {
		aead->mb = sm_aead_mb_new(key);
		if (!aead->mb)
			goto out;
		*ret_aead = aead;
		return 0;
	}
	aead->ctx = EVP_CIPHER_CTX_new();
	if (!aead->ctx)
		goto out;
	err = -EIO;
	algorithm = EVP_CIPHER_fetch(NULL, cipher_names[cipher], NULL);
	if (!algorithm || EVP_CipherInit_ex2(aead->ctx, algorithm, key, iv, sealing, NULL) != 1)
		goto out;
	*ret_aead = aead;
	aead = NULL;
	err = 0;
out:
	EVP_CIPHER_free(algorithm);
	sm_aead_free(aead);
	return err;
}

void sm_aead_free(struct sm_aead *aead)
{
	if (!aead)
		return;
	EVP_CIPHER_CTX_free(aead->ctx);
	sm_aead_mb_free(aead->mb);
	sm_wipe(aead, sizeof(*aead));
	free(aead);
}

static void make_nonce(const struct sm_aead *aead, uint64_t number, uint8_t nonce[SM_AEAD_IV_LEN])
{
	memcpy(nonce, aead->iv, SM_AEAD_IV_LEN);
	for (unsigned i = 0; i < 8; i++)
		nonce[SM_AEAD_IV_LEN - 1 - i] ^= (uint8_t)(number >> (8 * i));
}

/* Return: 0, -EIO */
static int evp_seal(struct sm_aead *aead, const uint8_t nonce[SM_AEAD_IV_LEN], const uint8_t *ad,
		    size_t ad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	OSSL_PARAM tag[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, out + len,
						  SM_TAG_LEN),
		OSSL_PARAM_construct_end(),
	};
	int n, rest;

	if (EVP_EncryptInit_ex2(aead->ctx, NULL, NULL, nonce, NULL) != 1 ||
	    (ad_len && EVP_EncryptUpdate(aead->ctx, NULL, &n, ad, (int)ad_len) != 1) ||
	    (len && EVP_EncryptUpdate(aead->ctx, out, &n, in, (int)len) != 1) ||
	    EVP_EncryptFinal_ex(aead->ctx, out + len, &rest) != 1 || rest != 0 ||
	    EVP_CIPHER_CTX_get_params(aead->ctx, tag) != 1) {
		ERR_clear_error();
		return -EIO;
	}
	return 0;
}

/* Return: 0, -EBADMSG */
static int evp_open(struct sm_aead *aead, const uint8_t nonce[SM_AEAD_IV_LEN], const uint8_t *ad,
		    size_t ad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t tag_copy[SM_TAG_LEN];
	const OSSL_PARAM tag[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag_copy, SM_TAG_LEN),
		OSSL_PARAM_construct_end(),
	};
	int n, rest;

	memcpy(tag_copy, in + len, SM_TAG_LEN);
	if (EVP_DecryptInit_ex2(aead->ctx, NULL, NULL, nonce, NULL) != 1 ||
	    EVP_CIPHER_CTX_set_params(aead->ctx, tag) != 1 ||
	    (ad_len && EVP_DecryptUpdate(aead->ctx, NULL, &n, ad, (int)ad_len) != 1) ||
	    (len && EVP_DecryptUpdate(aead->ctx, out, &n, in, (int)len) != 1) ||
	    EVP_DecryptFinal_ex(aead->ctx, out + len, &rest) != 1 || rest != 0) {
		ERR_clear_error();
		return -EBADMSG;
	}
	return 0;
}

int sm_aead_seal(struct sm_aead *aead, uint64_t number, const uint8_t *ad, size_t ad_len,
		 const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t nonce[SM_AEAD_IV_LEN];

	if (len > INT_MAX || ad_len > INT_MAX)
		return -EIO;
	make_nonce(aead, number, nonce);
	if (!aead->mb)
		return evp_seal(aead, nonce, ad, ad_len, in, len, out);
	sm_aead_mb_seal(aead->mb, nonce, ad, ad_len, in, len, out);
	return 0;
}

int sm_aead_open(struct sm_aead *aead, uint64_t number, const uint8_t *ad, size_t ad_len,
		 const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t nonce[SM_AEAD_IV_LEN], tag[SM_TAG_LEN], computed[SM_TAG_LEN];

	if (len > INT_MAX || ad_len > INT_MAX)
		return -EBADMSG;
	make_nonce(aead, number, nonce);
	if (!aead->mb)
		return evp_open(aead, nonce, ad, ad_len, in, len, out);
	memcpy(tag, in + len, SM_TAG_LEN); /* @out may stand over @in */
	sm_aead_mb_open(aead->mb, nonce, ad, ad_len, in, len, out, computed);
	return CRYPTO_memcmp(computed, tag, SM_TAG_LEN) ? -EBADMSG : 0;
}

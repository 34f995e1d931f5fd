// SPDX-License-Identifier: MIT
/*
 * SecP384r1MLKEM1024 of the library's default provider, with the points' form checked by us.
 */
#include "crypto/kem.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

#define KEM_ALGORITHM "SecP384r1MLKEM1024"
#define POINT_UNCOMPRESSED \
	0x04 /* RFC 8446, section 4.2.8.2: the only form; the library takes more */

struct sm_kem {
	EVP_PKEY *pkey;
};

int sm_kem_new(struct sm_kem **ret_kem, uint8_t ret_public[SM_KEM_PUBLIC_LEN])
{
	struct sm_kem *kem = calloc(1, sizeof(*kem));
	unsigned char *public_key = NULL;
	int err = -EIO;

	if (!kem)
		return -EIO;
	kem->pkey = EVP_PKEY_Q_keygen(NULL, NULL, KEM_ALGORITHM);
	if (!kem->pkey ||
	    EVP_PKEY_get1_encoded_public_key(kem->pkey, &public_key) != SM_KEM_PUBLIC_LEN)
		goto out;
	memcpy(ret_public, public_key, SM_KEM_PUBLIC_LEN);
	*ret_kem = kem;
	kem = NULL;
	err = 0;
out:
	ERR_clear_error();
	OPENSSL_free(public_key);
	sm_kem_free(kem);
	return err;
}

void sm_kem_free(struct sm_kem *kem)
{
	if (!kem)
		return;
	EVP_PKEY_free(kem->pkey);
	free(kem);
}

int sm_kem_encapsulate(const uint8_t public_key[SM_KEM_PUBLIC_LEN],
		       uint8_t ret_ciphertext[SM_KEM_CIPHERTEXT_LEN],
		       uint8_t ret_secret[SM_KEM_SECRET_LEN])
{
	uint8_t ciphertext[SM_KEM_CIPHERTEXT_LEN], secret[SM_KEM_SECRET_LEN];
	size_t ciphertext_len = sizeof(ciphertext), secret_len = sizeof(secret);
	EVP_PKEY *pkey = NULL;
	EVP_PKEY_CTX *ctx = NULL;
	int err = -EBADMSG;

	if (public_key[0] != POINT_UNCOMPRESSED)
		return -EBADMSG;
	pkey = EVP_PKEY_new_raw_public_key_ex(NULL, KEM_ALGORITHM, NULL, public_key,
					      SM_KEM_PUBLIC_LEN);
	if (!pkey)
		goto out;
	err = -EIO;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	if (!ctx || EVP_PKEY_encapsulate_init(ctx, NULL) != 1 ||
	    EVP_PKEY_encapsulate(ctx, ciphertext, &ciphertext_len, secret, &secret_len) != 1 ||
	    ciphertext_len != sizeof(ciphertext) || secret_len != sizeof(secret))
		goto out;
	memcpy(ret_ciphertext, ciphertext, sizeof(ciphertext));
	memcpy(ret_secret, secret, sizeof(secret));
	err = 0;
out:
	ERR_clear_error();
	sm_wipe(secret, sizeof(secret));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	return err;
}

int sm_kem_decapsulate(const struct sm_kem *kem, const uint8_t ciphertext[SM_KEM_CIPHERTEXT_LEN],
		       uint8_t ret_secret[SM_KEM_SECRET_LEN])
{
	uint8_t secret[SM_KEM_SECRET_LEN];
	size_t secret_len = sizeof(secret);
	EVP_PKEY_CTX *ctx;
	int err = -EBADMSG;

	if (ciphertext[0] != POINT_UNCOMPRESSED)
		return -EBADMSG;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, kem->pkey, NULL);
	if (ctx && EVP_PKEY_decapsulate_init(ctx, NULL) == 1 &&
	    EVP_PKEY_decapsulate(ctx, secret, &secret_len, ciphertext, SM_KEM_CIPHERTEXT_LEN) ==
		    1 &&
	    secret_len == sizeof(secret)) {
		memcpy(ret_secret, secret, sizeof(secret));
		err = 0;
	}
	ERR_clear_error();
	sm_wipe(secret, sizeof(secret));
	EVP_PKEY_CTX_free(ctx);
	return err;
}

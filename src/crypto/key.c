// SPDX-License-Identifier: MIT
/*
 * ML-DSA-87 key pairs and their PKCS#8 files.
 */
#include "crypto/key.h"

#include "crypto/file.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <stdlib.h>

#define KEY_FILE_MAX      65536u
#define PASSPHRASE_MAX    1024u
#define PBKDF2_ITERATIONS 300000
#define SEED_LEN          32
/* RFC 9881, section 6: seed [0] IMPLICIT OCTET STRING (SIZE (32)) */
#define SEED_CHOICE_TAG 0x80

int sm_key_wrap(EVP_PKEY *pkey, bool private_half, struct sm_key **ret_key)
{
	struct sm_key *key;

	if (!EVP_PKEY_is_a(pkey, SM_KEY_ALGORITHM)) {
		EVP_PKEY_free(pkey);
		return -ENOTSUP;
	}
	key = calloc(1, sizeof(*key));
	if (!key) {
		EVP_PKEY_free(pkey);
		return -ENOMEM;
	}
	key->pkey = pkey;
	key->private_half = private_half;
	*ret_key = key;
	return 0;
}

int sm_key_generate(struct sm_key **ret_key)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, SM_KEY_ALGORITHM);

	if (!pkey) {
		ERR_clear_error();
		return -EIO;
	}
	return sm_key_wrap(pkey, true, ret_key);
}

void sm_key_free(struct sm_key *key)
{
	if (!key)
		return;
	EVP_PKEY_free(key->pkey);
	free(key);
}

/* The PKCS#8 structure, made certain to hold the seed and nothing else */
static PKCS8_PRIV_KEY_INFO *seed_only(const struct sm_key *key)
{
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key->pkey);
	const unsigned char *octets;
	int len;

	if (info && PKCS8_pkey_get0(NULL, &octets, &len, NULL, info) == 1 && len == 2 + SEED_LEN &&
	    octets[0] == SEED_CHOICE_TAG && octets[1] == SEED_LEN)
		return info;
	PKCS8_PRIV_KEY_INFO_free(info);
	return NULL;
}

static X509_SIG *encrypt(PKCS8_PRIV_KEY_INFO *info, const char *passphrase)
{
	X509_ALGOR *pbe = PKCS5_pbe2_set_iv(EVP_aes_256_cbc(), PBKDF2_ITERATIONS, NULL, 16, NULL,
					    NID_hmacWithSHA512);
	X509_SIG *sealed = NULL;

	if (pbe)
		sealed = PKCS8_set0_pbe(passphrase, (int)strlen(passphrase), info, pbe);
	if (!sealed)
		X509_ALGOR_free(pbe);
	return sealed;
}

/* PEM of the private key into @bio */
static int write_pem(const struct sm_key *key, const char *passphrase, BIO *bio)
{
	PKCS8_PRIV_KEY_INFO *info = seed_only(key);
	X509_SIG *sealed = NULL;
	bool ok = false;

	if (info && passphrase) {
		sealed = encrypt(info, passphrase);
		ok = sealed && PEM_write_bio_PKCS8(bio, sealed) == 1;
	} else if (info) {
		ok = PEM_write_bio_PKCS8_PRIV_KEY_INFO(bio, info) == 1;
	}
	X509_SIG_free(sealed);
	PKCS8_PRIV_KEY_INFO_free(info);
	return ok ? 0 : -EIO;
}

int sm_key_save(const struct sm_key *key, const char *path, const char *passphrase, char *error)
{
	BIO *bio = NULL;
	char *pem;
	long len;
	int err = -EIO;

	if (!key->private_half) {
		sm_explain(error, "%s: this key has no private half to save", path);
		return -EINVAL;
	}
	if (passphrase && (!*passphrase || strlen(passphrase) >= PASSPHRASE_MAX)) {
		sm_explain(error, "%s: a passphrase has 1 to %u bytes", path, PASSPHRASE_MAX - 1);
		return -EINVAL;
	}
	bio = BIO_new(BIO_s_mem());
	if (!bio || write_pem(key, passphrase, bio) != 0) {
		sm_explain(error, "%s: cannot encode the key: %s", path, sm_crypto_error());
		goto out;
	}
	len = BIO_get_mem_data(bio, &pem);
	err = sm_file_write(path, 0600, false, pem, (size_t)len, error);
out:
	BIO_free(bio);
	ERR_clear_error();
	return err;
}

struct asking {
	int (*passphrase)(void *arg, char *buf, size_t size);
	void *arg;
};

static int open_encrypted(const char *path, const uint8_t *der, long der_len,
			  const struct asking *ask, PKCS8_PRIV_KEY_INFO **ret_info, char *error)
{
	X509_SIG *sealed = d2i_X509_SIG(NULL, &der, der_len);
	char passphrase[PASSPHRASE_MAX] = "";
	int err;

	if (!sealed) {
		sm_explain(error, "%s: damaged: the encrypted key cannot be parsed", path);
		return -EBADMSG;
	}
	if (!ask->passphrase) {
		sm_explain(error, "%s: encrypted, and no passphrase was given", path);
		err = -EACCES;
		goto out;
	}
	err = ask->passphrase(ask->arg, passphrase, sizeof(passphrase));
	if (err) {
		sm_explain(error, "%s: encrypted, and no passphrase was had: %s", path,
			   strerror(-err));
		err = -EACCES;
		goto out;
	}
	passphrase[sizeof(passphrase) - 1] = '\0';
	*ret_info = PKCS8_decrypt(sealed, passphrase, (int)strlen(passphrase));
	if (!*ret_info) {
		sm_explain(error, "%s: wrong passphrase", path);
		err = -EACCES;
	}
out:
	sm_wipe(passphrase, sizeof(passphrase));
	X509_SIG_free(sealed);
	return err;
}

static int parse_pem(const char *path, const char *name, const uint8_t *der, long der_len,
		     const struct asking *ask, PKCS8_PRIV_KEY_INFO **ret_info, char *error)
{
	if (strcmp(name, PEM_STRING_PKCS8) == 0)
		return open_encrypted(path, der, der_len, ask, ret_info, error);
	if (strcmp(name, PEM_STRING_PKCS8INF) == 0) {
		*ret_info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &der, der_len);
		if (*ret_info)
			return 0;
		sm_explain(error, "%s: damaged: the key cannot be parsed", path);
		return -EBADMSG;
	}
	if (strstr(name, PEM_STRING_PKCS8INF)) { /* "EC PRIVATE KEY", "RSA PRIVATE KEY" */
		sm_explain(error,
			   "%s: holds %.40s, not " SM_KEY_ALGORITHM "; cure: shadowmesh keygen",
			   path, name);
		return -ENOTSUP;
	}
	sm_explain(error, "%s: holds a %.40s where a private key is expected", path, name);
	return -EBADMSG;
}

static int unwrap(const char *path, const PKCS8_PRIV_KEY_INFO *info, struct sm_key **ret_key,
		  char *error)
{
	EVP_PKEY *pkey = EVP_PKCS82PKEY(info);
	const ASN1_OBJECT *oid = NULL;
	int err;

	if (!pkey) {
		bool ours = PKCS8_pkey_get0(&oid, NULL, NULL, NULL, info) == 1 &&
			    OBJ_obj2nid(oid) == NID_ML_DSA_87;

		sm_explain(error,
			   ours ? "%s: damaged: not a valid " SM_KEY_ALGORITHM " key"
				: "%s: a key of an algorithm other than " SM_KEY_ALGORITHM
				  "; cure: shadowmesh keygen",
			   path);
		return ours ? -EBADMSG : -ENOTSUP;
	}
	if (!EVP_PKEY_is_a(pkey, SM_KEY_ALGORITHM)) {
		const char *name = EVP_PKEY_get0_type_name(pkey);

		sm_explain(error,
			   "%s: a key of %s, not " SM_KEY_ALGORITHM "; cure: shadowmesh keygen",
			   path, name ? name : "another kind");
		EVP_PKEY_free(pkey);
		return -ENOTSUP;
	}
	err = sm_key_wrap(pkey, true, ret_key);
	if (err)
		sm_explain(error, "%s: %s", path, strerror(-err));
	return err;
}

int sm_key_load(const char *path, int (*passphrase)(void *arg, char *buf, size_t size), void *arg,
		struct sm_key **ret_key, char *error)
{
	const struct asking ask = {passphrase, arg};
	PKCS8_PRIV_KEY_INFO *info = NULL;
	char *text = NULL, *name = NULL, *header = NULL;
	unsigned char *der = NULL;
	size_t len = 0;
	long der_len = 0;
	BIO *bio = NULL;
	int err = sm_file_read(path, KEY_FILE_MAX, true, &text, &len, error);

	if (err)
		return err == -EFBIG ? -EBADMSG : err;
	bio = BIO_new_mem_buf(text, (int)len);
	if (!bio || PEM_read_bio(bio, &name, &header, &der, &der_len) != 1) {
		sm_explain(error, "%s: not a private key in PEM form", path);
		err = -EBADMSG;
		goto out;
	}
	err = parse_pem(path, name, der, der_len, &ask, &info, error);
	if (!err)
		err = unwrap(path, info, ret_key, error);
out:
	ERR_clear_error();
	PKCS8_PRIV_KEY_INFO_free(info);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_clear_free(der, (size_t)der_len);
	BIO_free(bio);
	sm_file_release(text, len);
	return err;
}

int sm_key_spki_digest(EVP_PKEY *pkey, const char *md, uint8_t *ret_digest)
{
	unsigned char *der = NULL;
	int len = i2d_PUBKEY(pkey, &der);
	bool ok = len > 0 && EVP_Q_digest(NULL, md, NULL, der, (size_t)len, ret_digest, NULL) == 1;

	OPENSSL_free(der);
	if (!ok)
		ERR_clear_error();
	return ok ? 0 : -EIO;
}

int sm_key_fingerprint(const struct sm_key *key, uint8_t ret_fp[SM_FINGERPRINT_LEN])
{
	return sm_key_spki_digest(key->pkey, "SHA256", ret_fp);
}

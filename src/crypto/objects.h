// SPDX-License-Identifier: MIT
/*
 * Private to src/crypto: the OpenSSL objects behind our handles, and sentences for errors.
 */
#ifndef SM_CRYPTO_OBJECTS_H
#define SM_CRYPTO_OBJECTS_H

#include "crypto/cert.h"
#include "crypto/crypto.h"
#include "crypto/key.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define SM_KEY_ALGORITHM "ML-DSA-87"

struct sm_key {
	EVP_PKEY *pkey;
	bool private_half;
};

struct sm_cert {
	X509 *x509;
};

/** struct sm_crl - @entries: sorted by serial; @by_key: the same sorted by fingerprint */
struct sm_crl {
	X509_CRL *x509;
	uint64_t number;
	int64_t this_update, next_update;
	struct sm_crl_entry *entries;
	const struct sm_crl_entry **by_key;
	size_t count;
};

/** sm_key_wrap() - Take over @pkey, in every case; Return: 0, -ENOMEM, -ENOTSUP not ML-DSA-87 */
SM_MUST_CHECK int sm_key_wrap(EVP_PKEY *pkey, bool private_half, struct sm_key **ret_key);

/** sm_key_spki_digest() - @md: "SHA256" or "SHA384" of the canonical SubjectPublicKeyInfo; Return: 0, -EIO */
SM_MUST_CHECK int sm_key_spki_digest(EVP_PKEY *pkey, const char *md, uint8_t *ret_digest);

/** sm_cert_wrap() - A handle with a reference of its own to @x509; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_cert_wrap(X509 *x509, struct sm_cert **ret_cert);

/** sm_crl_wrap() - Take over @x509, in every case, and index it; Return: 0, -ENOMEM, -EBADMSG with @error */
SM_MUST_CHECK int sm_crl_wrap(X509_CRL *x509, struct sm_crl **ret_crl, char *error);

/** sm_cert_signature_name() - Return: name of the algorithm that signed, "ML-DSA-87" where all is well */
const char *sm_cert_signature_name(const X509 *x509);

/**
 * sm_crypto_no_passphrase() - For the library's PEM readers: there is no passphrase
 *
 * Without it, a PEM that claims to be encrypted makes the library ask on the terminal.
 */
int sm_crypto_no_passphrase(char *buf, int size, int writing, void *arg);

/** sm_crypto_seconds() - Return: 0 and seconds since 1970, -EBADMSG */
SM_MUST_CHECK int sm_crypto_seconds(const ASN1_TIME *when, int64_t *ret_s);

/** sm_explain() - Write the sentence of a failure; @error may be NULL, else SM_CERT_ERROR_MAX bytes */
void sm_explain(char *error, const char *fmt, ...) SM_PRINTF(2, 3);

#endif

// SPDX-License-Identifier: MIT
/*
 * Inside src/crypto only: the library's objects behind our opaque ones.
 */
#ifndef SM_CRYPTO_INTERNAL_H
#define SM_CRYPTO_INTERNAL_H

#include "crypto/cert.h"
#include "crypto/key.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

/** sm_cert_x509() - Return: the certificate, borrowed */
X509 *sm_cert_x509(const struct sm_cert *cert);

/** sm_cert_from_x509() - Wrap a certificate, taking a reference of its own; Return: 0, -ENOMEM, -EBADMSG */
SM_MUST_CHECK int sm_cert_from_x509(X509 *x509, struct sm_cert **ret_cert);

/** sm_key_pkey() - Return: the key pair, borrowed */
EVP_PKEY *sm_key_pkey(const struct sm_key *key);

#endif

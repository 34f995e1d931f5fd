// SPDX-License-Identifier: MIT
/*
 * Private to src/crypto: the text in the certificate's attribute extension.
 *
 * "key=value" joined by ';'. address=10.7.0.1/24 gives the subnet's length to an address of the SAN,
 * prefix=10.9.0.0/16, group=db, role=relay. Unknown keys and roles are ignored.
 *
 * Spec: PROTOCOL.md, "Identity"
 */
#ifndef SM_CRYPTO_ATTRIBUTES_H
#define SM_CRYPTO_ATTRIBUTES_H

#include "crypto/ident.h"

#define SM_ATTRIBUTES_MAX 8192u /* bytes of text, no NUL */

/** sm_attributes_encode() - Return: bytes written, without a NUL; -ENOSPC */
SM_MUST_CHECK int sm_attributes_encode(const struct sm_identity *id, char *buf, size_t size);

/**
 * sm_attributes_decode() - Add what @text says to @id, whose addresses stand in it already
 * @error: SM_CERT_ERROR_MAX bytes, may be NULL
 * Return: 0, -EBADMSG (then @id is half filled)
 */
SM_MUST_CHECK int sm_attributes_decode(const char *text, size_t len, struct sm_identity *id,
				       char *error);

#endif

// SPDX-License-Identifier: MIT
/*
 * A stranger's first bytes: finding the whole ClientHello in TLS records, and what we must know of it
 * before memory or public-key work is spent on it.
 *
 * Spec: RFC 8446, sections 4.1.2, 4.2.11 and 5.1
 */
#ifndef SM_CRYPTO_HELLO_H
#define SM_CRYPTO_HELLO_H

#include "base/base.h"

#define SM_HELLO_MAX 16384u /* bytes, record headers included */

/** struct sm_hello_scan - Where a scan stands; zero-initialise */
struct sm_hello_scan {
	size_t pos;      /* of the next record's header */
	size_t have;     /* bytes of the message in the records before */
	uint8_t head[4]; /* its type and length */
};

/**
 * sm_hello_scan() - Has the ClientHello arrived whole?
 * @data, @len: all that the peer sent so far
 * Return: 1 yes; 0 more bytes are needed; -EBADMSG not a ClientHello; -EMSGSIZE above SM_HELLO_MAX
 */
SM_MUST_CHECK int sm_hello_scan(struct sm_hello_scan *scan, const uint8_t *data, size_t len);

/** sm_hello_len() - Return: bytes of the message, its header included; after sm_hello_scan() returned 1 */
size_t sm_hello_len(const struct sm_hello_scan *scan);

/** sm_hello_collect() - Copy the message out of its records; @ret_msg takes sm_hello_len() bytes */
void sm_hello_collect(const struct sm_hello_scan *scan, const uint8_t *data, size_t len,
		      uint8_t *ret_msg);

/**
 * struct sm_hello - What a ClientHello says; pointers lead into the message
 * @tls13:    supported_versions has TLS 1.3
 * @alpn:     an ALPN extension is there; @alpn_ours: with SM_ALPN in it
 * @identity: the only pre-shared key identity and its binder, NULL without
 * @covered:  bytes of the message, from its start, that the binder covers
 */
struct sm_hello {
	bool tls13, alpn, alpn_ours;
	const uint8_t *identity, *binder;
	size_t identity_len, binder_len, covered;
};

/** sm_hello_parse() - Read a whole message, header included; Return: 0, -EBADMSG */
SM_MUST_CHECK int sm_hello_parse(const uint8_t *msg, size_t len, struct sm_hello *ret_hello);

#endif

// SPDX-License-Identifier: MIT
/*
 * The TLS 1.3 channel over memory: bytes in, bytes out, no socket, no clock.
 *
 * Theory of operation: the owner feeds what arrived with sm_tls_feed(), calls sm_tls_handshake() (in a
 * thread of the pool: it signs) until it returns 1 or fails, takes what is to be sent with
 * sm_tls_output() after every call, then reads and writes plaintext. A channel is used by one thread
 * at a time. The server side allocates its SSL object only after a whole ClientHello has arrived and was
 * found to offer TLS 1.3, our protocol and, where one is set, the access key (access.h).
 *
 * In TLS 1.3 the client is done before the server has judged the client's certificate: if the server
 * refuses it, the client learns so from sm_tls_read().
 *
 * The SSL_SESSION of the access key's offer is no trust anchor: a handshake is done only when the peer's
 * certificate was checked in it.
 */
#ifndef SM_CRYPTO_TLS_H
#define SM_CRYPTO_TLS_H

#include "crypto/access.h"
#include "crypto/schedule.h"
#include "crypto/trust.h"

#define SM_TLS_ERROR_MAX 256u

struct sm_tls_config; /* certificate, key, trust, policy: shared by channels, immutable, reference-counted */
struct sm_tls;

enum sm_policy {
	SM_POLICY_DEFAULT, /* SecP384r1MLKEM1024, X25519MLKEM768, MLKEM1024; ChaCha20 allowed */
	SM_POLICY_CNSA,    /* SecP384r1MLKEM1024, MLKEM1024; AES-256-GCM only */
};

/**
 * sm_tls_config_new() - What channels of one node share
 * @access_key: NULL or SM_ACCESS_KEY_LEN bytes: strangers who lack it are turned away before any
 *              public-key work
 * Return: 0, -EINVAL when certificate and key do not match, -EIO
 */
SM_MUST_CHECK int sm_tls_config_new(const struct sm_cert *cert, const struct sm_key *key,
				    struct sm_trust *trust, enum sm_policy policy,
				    const uint8_t *access_key, struct sm_tls_config **ret_config,
				    char *error);
struct sm_tls_config *sm_tls_config_ref(struct sm_tls_config *config); /* atomic */
void sm_tls_config_unref(struct sm_tls_config *config);

/** sm_tls_new() - @client: we dialled; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_tls_new(struct sm_tls_config *config, bool client, struct sm_tls **ret_tls);
void sm_tls_free(struct sm_tls *tls);

/** sm_tls_feed() - Take received bytes; Return: 0; -ENOBUFS if more than 128 kB are unread; -ENOMEM */
SM_MUST_CHECK int sm_tls_feed(struct sm_tls *tls, const void *data, size_t len);

/**
 * sm_tls_hello_complete() - Server: has a whole ClientHello arrived, so that a handshake step makes sense?
 * Return: 1 yes; 0 more bytes are needed; -EBADMSG this is no TLS ClientHello
 */
SM_MUST_CHECK int sm_tls_hello_complete(const struct sm_tls *tls);

/**
 * sm_tls_handshake() - Advance as far as the fed bytes allow
 * @now_s: wall clock, for certificates and the access key's time
 * Return: 1 done (certificate, SAN, ALPN, CRL of the peer all checked); 0 more input needed;
 *         negative: failed: -EACCES access key, -EKEYREJECTED, -EKEYEXPIRED, -EKEYREVOKED peer's
 *         certificate, -EPROTO anything else; sm_tls_error() says why, an alert may be in the output
 */
SM_MUST_CHECK int sm_tls_handshake(struct sm_tls *tls, int64_t now_s);

/** sm_tls_error() - Return: one sentence on why the handshake or the channel failed */
const char *sm_tls_error(const struct sm_tls *tls);
/** sm_tls_close_reason() - Return: the matching reason */
enum sm_close_reason sm_tls_close_reason(const struct sm_tls *tls);

/** sm_tls_output() - Move bytes to be sent into @buf; Return: how many (0: none) */
size_t sm_tls_output(struct sm_tls *tls, void *buf, size_t size);

/** sm_tls_read() - Plaintext; Return: bytes, 0 none yet, -ECONNRESET closed by the peer (close_notify), -EPROTO */
SM_MUST_CHECK int sm_tls_read(struct sm_tls *tls, void *buf, size_t size);
/** sm_tls_write() - Return: 0; -ENOBUFS if more than 1 MiB would wait in the output; -EPROTO */
SM_MUST_CHECK int sm_tls_write(struct sm_tls *tls, const void *data, size_t len);
/** sm_tls_shutdown() - Queue close_notify */
void sm_tls_shutdown(struct sm_tls *tls);

/* After a finished handshake */
const struct sm_identity *sm_tls_peer(const struct sm_tls *tls);
const char *sm_tls_group(const struct sm_tls *tls);     /* "SecP384r1MLKEM1024" */
const char *sm_tls_signature(const struct sm_tls *tls); /* "mldsa87" */
uint64_t sm_tls_bytes_in(const struct sm_tls *tls);     /* of the handshake */
uint64_t sm_tls_bytes_out(const struct sm_tls *tls);
/** sm_tls_root_secret() - Export the session's root secret (schedule.h); Return: 0, -EIO */
SM_MUST_CHECK int sm_tls_root_secret(struct sm_tls *tls, uint8_t ret_secret[SM_ROOT_SECRET_LEN]);

#endif

// SPDX-License-Identifier: MIT
/*
 * The TLS 1.3 channel: OpenSSL between two byte queues, mutual ML-DSA-87 certificates, our ALPN.
 */
#include "crypto/tls.h"

#include "crypto/hello.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_MAX    ((size_t)128 * 1024)  /* bytes fed and not read */
#define OUTPUT_MAX   ((size_t)1024 * 1024) /* bytes of records not taken */
#define QUEUE_STEP   4096u                 /* bytes by which a queue's memory grows */
#define RECORD_MAX   16384u                /* bytes of plaintext in one record */
#define RECORD_EXTRA 64u                   /* bytes of header, tag and type, rounded up */
#define CHAIN_MAX    32768u                /* bytes of a peer's Certificate message */

#define CIPHER "TLS_AES_256_GCM_SHA384"
static const uint8_t cipher_id[2] = {0x13, 0x02};
#define SIGNATURE "mldsa87"
static const uint8_t alpn_wire[] = "\x0c" SM_ALPN;
static_assert(sizeof(SM_ALPN) - 1 == 0x0c, "the length byte of alpn_wire");

struct policy {
	const char *groups; /* the starred one's key share is in the ClientHello */
	int security_level;
};

static const struct policy policies[] = {
	/* X25519MLKEM768 counts as 192 bits, which is level 4 */
	[SM_POLICY_DEFAULT] = {"*SecP384r1MLKEM1024:X25519MLKEM768:MLKEM1024", 4},
	[SM_POLICY_CNSA] = {"*SecP384r1MLKEM1024:MLKEM1024", 5},
};

/* Bytes in, bytes out; holds no memory while it is empty. */
struct queue {
	uint8_t *data;
	size_t start, len, size;
};

struct sm_tls_config {
	atomic_uint refs;
	SSL_CTX *ctx;
	struct sm_trust *trust;
	struct sm_access *access; /* NULL without a key */
	struct sm_identity own;
};

struct sm_tls {
	struct sm_tls_config *config;
	SSL *ssl; /* server: NULL until a good ClientHello is there */
	bool client, done;
	bool verified;   /* in this very handshake; then @peer is filled */
	unsigned hellos; /* ClientHellos that reached OpenSSL */
	int failed;      /* 0 or what every further call returns */
	enum sm_close_reason reason;
	int hello_state; /* what sm_hello_scan() returned last */
	struct sm_hello_scan scan;
	struct queue in, out;
	uint64_t bytes_in, bytes_out; /* through the queues; fixed when @done */
	int64_t now_s;
	struct sm_identity peer;
	char error[SM_TLS_ERROR_MAX];
};

/* ---- Queues ---- */

/* Makes room for @len bytes behind those that are there; memory doubles, so small pieces stay cheap. */
static int queue_reserve(struct queue *q, size_t len)
{
	size_t size = (q->len + len + QUEUE_STEP - 1) / QUEUE_STEP * QUEUE_STEP;
	uint8_t *fresh;

	if (q->data && q->start + q->len + len <= q->size)
		return 0;
	if (q->data && size <= q->size) {
		memmove(q->data, q->data + q->start, q->len);
		q->start = 0;
		return 0;
	}
	size = SM_MAX(size, q->size * 2);
	fresh = malloc(size);
	if (!fresh)
		return -ENOMEM;
	if (q->data)
		memcpy(fresh, q->data + q->start, q->len);
	free(q->data);
	*q = (struct queue){.data = fresh, .len = q->len, .size = size};
	return 0;
}

static int queue_put(struct queue *q, const void *data, size_t len)
{
	int err = queue_reserve(q, len);

	if (err)
		return err;
	memcpy(q->data + q->start + q->len, data, len);
	q->len += len;
	return 0;
}

static size_t queue_take(struct queue *q, void *buf, size_t size)
{
	size_t n = SM_MIN(q->len, size);

	if (n == 0)
		return 0;
	memcpy(buf, q->data + q->start, n);
	q->start += n;
	q->len -= n;
	if (q->len == 0) {
		free(q->data);
		*q = (struct queue){0};
	}
	return n;
}

/* ---- OpenSSL's view of the queues ---- */

static int bio_read(BIO *bio, char *buf, size_t size, size_t *ret_n)
{
	struct sm_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*ret_n = queue_take(&tls->in, buf, size);
	if (*ret_n == 0) {
		BIO_set_retry_read(bio);
		return 0;
	}
	if (!tls->done)
		tls->bytes_in += *ret_n;
	return 1;
}

static int bio_write(BIO *bio, const char *data, size_t len, size_t *ret_n)
{
	struct sm_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	/* twice the limit of sm_tls_write(): alerts and answers to key updates find room */
	if (tls->out.len + len > 2 * OUTPUT_MAX || queue_put(&tls->out, data, len) != 0)
		return 0;
	*ret_n = len;
	if (!tls->done)
		tls->bytes_out += len;
	return 1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *queue_method;
static pthread_once_t queue_method_once = PTHREAD_ONCE_INIT;

static void queue_method_init(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "queues");

	if (!m)
		return;
	if (BIO_meth_set_read_ex(m, bio_read) != 1 || BIO_meth_set_write_ex(m, bio_write) != 1 ||
	    BIO_meth_set_ctrl(m, bio_ctrl) != 1) {
		BIO_meth_free(m);
		return;
	}
	queue_method = m;
}

/* ---- Failing, with a sentence ---- */

static int SM_PRINTF(4, 5)
	fail(struct sm_tls *tls, int err, enum sm_close_reason reason, const char *fmt, ...)
{
	va_list ap;

	if (tls->failed)
		return tls->failed;
	tls->failed = err;
	tls->reason = reason;
	va_start(ap, fmt);
	vsnprintf(tls->error, sizeof(tls->error), fmt, ap);
	va_end(ap);
	return err;
}

/* An alert before there is an SSL object to send it */
static void alert_plainly(struct sm_tls *tls, uint8_t description)
{
	const uint8_t record[] = {SSL3_RT_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, description};

	if (queue_put(&tls->out, record, sizeof(record)) == 0)
		tls->bytes_out += sizeof(record);
}

struct sentence {
	int number; /* alert, or SSL_R_ */
	int err;
	enum sm_close_reason reason;
	const char *text;
};

/* What the other side says to us */
static const struct sentence alerts[] = {
	{SSL_AD_CLOSE_NOTIFY, -EPROTO, SM_CLOSE_NONE, "the peer closed the connection"},
	{SSL_AD_HANDSHAKE_FAILURE, -EPROTO, SM_CLOSE_CIPHER,
	 "the peer found no common group, cipher or signature"},
	{SSL_AD_BAD_CERTIFICATE, -EPROTO, SM_CLOSE_NOT_TRUSTED,
	 "the peer refused our certificate: it is malformed or of the wrong kind"},
	{SSL_AD_UNSUPPORTED_CERTIFICATE, -EPROTO, SM_CLOSE_NETWORK,
	 "the peer refused our certificate: it is of another network"},
	{SSL_AD_CERTIFICATE_REVOKED, -EPROTO, SM_CLOSE_REVOKED,
	 "the peer refused our certificate: it is revoked"},
	{SSL_AD_CERTIFICATE_EXPIRED, -EPROTO, SM_CLOSE_EXPIRED,
	 "the peer refused our certificate: it is expired or not yet valid by the peer's clock"},
	{SSL_AD_CERTIFICATE_UNKNOWN, -EPROTO, SM_CLOSE_NOT_TRUSTED,
	 "the peer refused our certificate"},
	{SSL_AD_UNKNOWN_CA, -EPROTO, SM_CLOSE_NOT_TRUSTED,
	 "the peer refused our certificate: it does not trust who signed it, nor our key alone"},
	{SSL_AD_ACCESS_DENIED, -EACCES, SM_CLOSE_NOT_TRUSTED,
	 "the peer turned us away: it wants its network's access key"},
	{SSL_AD_DECRYPT_ERROR, -EPROTO, SM_CLOSE_PROTOCOL,
	 "the peer found a signature or a handshake's checksum wrong"},
	{SSL_AD_PROTOCOL_VERSION, -EPROTO, SM_CLOSE_VERSION, "the peer does not speak TLS 1.3"},
	{SSL_AD_INSUFFICIENT_SECURITY, -EPROTO, SM_CLOSE_CIPHER,
	 "the peer finds our groups or signatures too weak"},
	{SSL_AD_MISSING_EXTENSION, -EPROTO, SM_CLOSE_PROTOCOL,
	 "the peer misses an extension in our messages"},
	{SSL_AD_CERTIFICATE_REQUIRED, -EPROTO, SM_CLOSE_NOT_TRUSTED,
	 "the peer wants a certificate from us"},
	{SSL_AD_NO_APPLICATION_PROTOCOL, -EPROTO, SM_CLOSE_VERSION,
	 "the peer does not speak " SM_ALPN},
};

/* What we found */
static const struct sentence findings[] = {
	{SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
	 "the peer sent no certificate"},
	{SSL_R_UNSUPPORTED_PROTOCOL, -EPROTO, SM_CLOSE_VERSION, "the peer speaks TLS 1.2 at most"},
	{SSL_R_WRONG_SSL_VERSION, -EPROTO, SM_CLOSE_VERSION, "the peer speaks TLS 1.2 at most"},
	{SSL_R_WRONG_VERSION_NUMBER, -EPROTO, SM_CLOSE_PROTOCOL, "what the peer sent is not TLS"},
	{SSL_R_HTTP_REQUEST, -EPROTO, SM_CLOSE_PROTOCOL, "what the peer sent is HTTP, not TLS"},
	{SSL_R_NO_SUITABLE_KEY_SHARE, -EPROTO, SM_CLOSE_CIPHER,
	 "no common key exchange group: ours are post-quantum only"},
	{SSL_R_NO_SUITABLE_GROUPS, -EPROTO, SM_CLOSE_CIPHER,
	 "no common key exchange group: ours are post-quantum only"},
	{SSL_R_NO_SHARED_GROUPS, -EPROTO, SM_CLOSE_CIPHER,
	 "no common key exchange group: ours are post-quantum only"},
	{SSL_R_NO_SHARED_CIPHER, -EPROTO, SM_CLOSE_CIPHER, "no common cipher: ours is " CIPHER},
	{SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, -EPROTO, SM_CLOSE_CIPHER,
	 "no common signature algorithm: ours is " SIGNATURE},
	{SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, -EPROTO, SM_CLOSE_CIPHER,
	 "no common signature algorithm: ours is " SIGNATURE},
	{SSL_R_WRONG_SIGNATURE_TYPE, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
	 "the peer signed with something else than " SIGNATURE},
	{SSL_R_WRONG_CERTIFICATE_TYPE, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
	 "the peer's certificate has a key that is not " SIGNATURE},
	{SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, -EPROTO, SM_CLOSE_PROTOCOL,
	 "a record was damaged on its way"},
	{SSL_R_BAD_SIGNATURE, -EPROTO, SM_CLOSE_PROTOCOL, "the peer's signature is wrong"},
	{SSL_R_NO_APPLICATION_PROTOCOL, -EPROTO, SM_CLOSE_VERSION,
	 "the peer does not speak " SM_ALPN},
};

/* Names the failure that OpenSSL has just reported. */
static int fail_from_openssl(struct sm_tls *tls)
{
	unsigned long e = ERR_get_error();
	const struct sentence *table = findings, *s;
	size_t count = SM_ARRAY_SIZE(findings);
	int number = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
	const char *text = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	if (tls->failed) /* the verification callback knew better */
		return tls->failed;
	if (number >= SSL_AD_REASON_OFFSET) {
		number -= SSL_AD_REASON_OFFSET;
		table = alerts;
		count = SM_ARRAY_SIZE(alerts);
	}
	for (s = table; s < table + count; s++)
		if (s->number == number && e)
			return fail(tls, s->err, s->reason, "%s", s->text);
	if (table == alerts)
		return fail(tls, -EPROTO, SM_CLOSE_PROTOCOL,
			    "the peer broke off: TLS alert %d (%s)", number,
			    SSL_alert_desc_string_long(number));
	return fail(tls, -EPROTO, SM_CLOSE_PROTOCOL, "TLS failed: %s",
		    text ? text : "no reason known");
}

/* ---- Callbacks ---- */

static int verify_error(enum sm_close_reason reason)
{
	/* chosen by the alert that OpenSSL makes of each; alerts[] is the way back */
	if (reason == SM_CLOSE_REVOKED)
		return X509_V_ERR_CERT_REVOKED;
	if (reason == SM_CLOSE_EXPIRED)
		return X509_V_ERR_CERT_HAS_EXPIRED;
	if (reason == SM_CLOSE_NETWORK)
		return X509_V_ERR_INVALID_PURPOSE;
	return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
}

static int on_certificate(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct sm_tls *tls = SSL_get_app_data(ssl);
	enum sm_close_reason reason = SM_CLOSE_INTERNAL;
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_cert *cert = NULL;
	int err;

	(void)arg;
	err = sm_cert_wrap(X509_STORE_CTX_get0_cert(store), &cert);
	if (err)
		snprintf(error, sizeof(error), "out of memory");
	else
		err = sm_trust_check(tls->config->trust, cert, tls->now_s, &tls->peer, &reason,
				     error);
	sm_cert_free(cert);
	ERR_clear_error();
	if (err) {
		(void)fail(tls, err, reason, "%s", error);
		X509_STORE_CTX_set_error(store, verify_error(reason));
		return 0;
	}
	tls->verified = true;
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

static int on_alpn(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
		   const unsigned char *offered, unsigned int len, void *arg)
{
	unsigned char *name;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&name, ret_len, alpn_wire, sizeof(alpn_wire) - 1, offered, len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret_name = name;
	return SSL_TLSEXT_ERR_OK;
}

static int on_client_hello(SSL *ssl, int *ret_alert, void *arg)
{
	struct sm_tls *tls = SSL_get_app_data(ssl);

	(void)arg;
	/* The access key's proof was checked in the first. Nodes of ours never need a second, and
	 * a replayed first must not be continued with a key share of the replayer's. */
	if (tls->hellos++ > 0 && tls->config->access) {
		(void)fail(tls, -EACCES, SM_CLOSE_NOT_TRUSTED,
			   "a second ClientHello, which the access key does not cover");
		*ret_alert = SSL_AD_ACCESS_DENIED;
		return SSL_CLIENT_HELLO_ERROR;
	}
	return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_offer(SSL *ssl, const EVP_MD *md, const unsigned char **ret_id, size_t *ret_len,
		    SSL_SESSION **ret_session)
{
	static _Thread_local uint8_t
		identity[SM_ACCESS_IDENTITY_LEN]; /* OpenSSL copies it at once */
	struct sm_tls *tls = SSL_get_app_data(ssl);
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, cipher_id);
	SSL_SESSION *session = NULL;

	(void)md;
	if (!tls->config->access)
		return 1;
	if (cipher && sm_access_offer(tls->config->access, tls->now_s, identity) == 0)
		session = SSL_SESSION_new();
	if (!session)
		return 0;
	if (SSL_SESSION_set1_master_key(session, sm_access_psk(tls->config->access),
					SM_ACCESS_PSK_LEN) != 1 ||
	    SSL_SESSION_set_cipher(session, cipher) != 1 ||
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
		SSL_SESSION_free(session);
		return 0;
	}
	*ret_id = identity;
	*ret_len = sizeof(identity);
	*ret_session = session;
	return 1;
}

/* ---- Configuration ---- */

static int set_up(SSL_CTX *ctx, const struct policy *policy)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION | SSL_OP_CLEANSE_PLAINTEXT);
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_cert_list(ctx, CHAIN_MAX);
	SSL_CTX_set_security_level(ctx, policy->security_level);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, on_certificate, NULL);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
	SSL_CTX_set_client_hello_cb(ctx, on_client_hello, NULL);
	SSL_CTX_set_psk_use_session_callback(ctx, on_offer);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, CIPHER) != 1 ||
	    SSL_CTX_set1_groups_list(ctx, policy->groups) != 1 ||
	    SSL_CTX_set1_sigalgs_list(ctx, SIGNATURE) != 1 ||
	    SSL_CTX_set1_client_sigalgs_list(ctx, SIGNATURE) != 1 ||
	    SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
	    SSL_CTX_set_alpn_protos(ctx, alpn_wire, sizeof(alpn_wire) - 1) != 0)
		return -EIO;
	return 0;
}

int sm_tls_config_new(const struct sm_cert *cert, const struct sm_key *key, struct sm_trust *trust,
		      enum sm_policy policy, const uint8_t *access_key,
		      struct sm_tls_config **ret_config, char *error)
{
	struct sm_tls_config *config;
	int err;

	if (!sm_cert_matches_key(cert, key)) {
		sm_explain(error, "the certificate is not for this private key");
		return -EINVAL;
	}
	pthread_once(&queue_method_once, queue_method_init);
	config = calloc(1, sizeof(*config));
	if (!config || !queue_method) {
		free(config);
		sm_explain(error, "out of memory");
		return -ENOMEM;
	}
	atomic_init(&config->refs, 1);
	config->trust = sm_trust_ref(trust);
	err = sm_cert_identity(cert, &config->own, error);
	if (err) {
		err = -EINVAL;
		goto out;
	}
	err = -EIO;
	if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1)
		config->ctx = SSL_CTX_new(TLS_method());
	if (!config->ctx || set_up(config->ctx, &policies[policy]) != 0 ||
	    SSL_CTX_use_certificate(config->ctx, cert->x509) != 1 ||
	    SSL_CTX_use_PrivateKey(config->ctx, key->pkey) != 1) {
		sm_explain(error, "TLS cannot be set up: %s", sm_crypto_error());
		goto out;
	}
	err = 0;
	if (access_key)
		err = sm_access_new(access_key, config->own.network_id, &config->access);
	if (err)
		sm_explain(error, "the access key cannot be set up");
out:
	if (err)
		sm_tls_config_unref(config);
	else
		*ret_config = config;
	return err;
}

struct sm_tls_config *sm_tls_config_ref(struct sm_tls_config *config)
{
	atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
	return config;
}

void sm_tls_config_unref(struct sm_tls_config *config)
{
	if (!config || atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(config->ctx);
	sm_access_free(config->access);
	sm_trust_unref(config->trust);
	free(config);
}

/* ---- A channel ---- */

static int start(struct sm_tls *tls)
{
	SSL *ssl = SSL_new(tls->config->ctx);
	BIO *bio = BIO_new(queue_method);

	if (!ssl || !bio) {
		SSL_free(ssl);
		BIO_free(bio);
		ERR_clear_error();
		return -ENOMEM;
	}
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, tls);
	if (tls->client)
		SSL_set_connect_state(ssl);
	else
		SSL_set_accept_state(ssl);
	tls->ssl = ssl;
	return 0;
}

int sm_tls_new(struct sm_tls_config *config, bool client, struct sm_tls **ret_tls)
{
	struct sm_tls *tls = calloc(1, sizeof(*tls));
	int err = 0;

	if (!tls)
		return -ENOMEM;
	tls->config = sm_tls_config_ref(config);
	tls->client = client;
	if (client)
		err = start(tls);
	if (err)
		sm_tls_free(tls);
	else
		*ret_tls = tls;
	return err;
}

void sm_tls_free(struct sm_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	free(tls->in.data);
	free(tls->out.data);
	sm_tls_config_unref(tls->config);
	free(tls);
}

int sm_tls_feed(struct sm_tls *tls, const void *data, size_t len)
{
	int err;

	if (tls->failed)
		return 0;
	if (tls->in.len + len > INPUT_MAX)
		return -ENOBUFS;
	err = queue_put(&tls->in, data, len);
	if (err)
		return err;
	if (!tls->client && !tls->ssl && tls->hello_state == 0)
		tls->hello_state = sm_hello_scan(&tls->scan, tls->in.data + tls->in.start,
						 tls->in.len);
	if (tls->hello_state == -EMSGSIZE)
		(void)fail(tls, -EPROTO, SM_CLOSE_PROTOCOL, "a ClientHello of more than %u bytes",
			   SM_HELLO_MAX);
	else if (tls->hello_state < 0)
		(void)fail(tls, -EPROTO, SM_CLOSE_PROTOCOL, "what the peer sent is not TLS");
	return 0;
}

int sm_tls_hello_complete(const struct sm_tls *tls)
{
	if (tls->client || tls->ssl)
		return 1;
	return tls->hello_state < 0 ? -EBADMSG : tls->hello_state;
}

static int judge_hello(struct sm_tls *tls, const uint8_t *msg, size_t len)
{
	const char *why = NULL;
	struct sm_hello hello;
	int err;

	err = sm_hello_parse(msg, len, &hello);
	if (err) {
		alert_plainly(tls, SSL_AD_DECODE_ERROR);
		return fail(tls, -EPROTO, SM_CLOSE_PROTOCOL, "a malformed ClientHello");
	}
	if (!hello.tls13) {
		alert_plainly(tls, SSL_AD_PROTOCOL_VERSION);
		return fail(tls, -EPROTO, SM_CLOSE_VERSION, "the peer speaks TLS 1.2 at most");
	}
	if (!hello.alpn_ours) {
		alert_plainly(tls, SSL_AD_NO_APPLICATION_PROTOCOL);
		return fail(tls, -EPROTO, SM_CLOSE_VERSION,
			    hello.alpn ? "the peer asks for another protocol than " SM_ALPN
				       : "the peer asks for no protocol (ALPN); ours is " SM_ALPN);
	}
	if (!tls->config->access)
		return 0;
	err = sm_access_check(tls->config->access, msg, &hello, tls->now_s, &why);
	if (err == -EACCES) {
		alert_plainly(tls, SSL_AD_ACCESS_DENIED);
		return fail(tls, err, SM_CLOSE_NOT_TRUSTED, "%s", why);
	}
	return err ? fail(tls, -EPROTO, SM_CLOSE_INTERNAL, "the access key cannot be checked") : 0;
}

/* The server's first step: nothing is allocated for whom this turns away. */
static int greet(struct sm_tls *tls)
{
	size_t len = sm_hello_len(&tls->scan);
	uint8_t *msg = malloc(len);
	int err;

	if (!msg)
		return fail(tls, -EPROTO, SM_CLOSE_INTERNAL, "out of memory");
	sm_hello_collect(&tls->scan, tls->in.data + tls->in.start, tls->in.len, msg);
	err = judge_hello(tls, msg, len);
	free(msg);
	if (err)
		return err;
	if (start(tls) != 0)
		return fail(tls, -EPROTO, SM_CLOSE_INTERNAL, "out of memory");
	return 0;
}

/* What must hold whatever OpenSSL let pass */
static int finish(struct sm_tls *tls)
{
	const unsigned char *name;
	unsigned int len;

	SSL_get0_alpn_selected(tls->ssl, &name, &len);
	if (len != strlen(SM_ALPN) || memcmp(name, SM_ALPN, len) != 0)
		return fail(tls, -EPROTO, SM_CLOSE_VERSION, "the peer did not agree on " SM_ALPN);
	if (!tls->verified || SSL_session_reused(tls->ssl))
		return fail(tls, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			    "the peer showed no certificate");
	if (SSL_version(tls->ssl) != TLS1_3_VERSION)
		return fail(tls, -EPROTO, SM_CLOSE_VERSION, "the peer does not speak TLS 1.3");
	tls->done = true;
	return 1;
}

int sm_tls_handshake(struct sm_tls *tls, int64_t now_s)
{
	int n, err;

	if (tls->failed)
		return tls->failed;
	if (tls->done)
		return 1;
	tls->now_s = now_s;
	if (!tls->ssl) {
		if (tls->hello_state != 1)
			return 0;
		err = greet(tls);
		if (err)
			return err;
	}
	ERR_clear_error();
	n = SSL_do_handshake(tls->ssl);
	if (n == 1)
		return finish(tls);
	switch (SSL_get_error(tls->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		return tls->failed;
	case SSL_ERROR_ZERO_RETURN:
		return fail(tls, -EPROTO, SM_CLOSE_NONE, "the peer broke off during the handshake");
	default:
		return fail_from_openssl(tls);
	}
}

const char *sm_tls_error(const struct sm_tls *tls)
{
	return tls->error;
}

enum sm_close_reason sm_tls_close_reason(const struct sm_tls *tls)
{
	return tls->reason;
}

size_t sm_tls_output(struct sm_tls *tls, void *buf, size_t size)
{
	return queue_take(&tls->out, buf, size);
}

int sm_tls_read(struct sm_tls *tls, void *buf, size_t size)
{
	size_t n;

	if (tls->failed)
		return tls->failed;
	if (!tls->done)
		return 0;
	ERR_clear_error();
	if (SSL_read_ex(tls->ssl, buf, SM_MIN(size, (size_t)INT32_MAX), &n) == 1)
		return (int)n;
	switch (SSL_get_error(tls->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return fail(tls, -ECONNRESET, SM_CLOSE_NONE, "the peer closed the connection");
	default:
		return fail_from_openssl(tls);
	}
}

int sm_tls_write(struct sm_tls *tls, const void *data, size_t len)
{
	size_t n;

	if (tls->failed)
		return tls->failed == -ECONNRESET ? -EPROTO : tls->failed;
	if (!tls->done)
		return -EPROTO;
	if (len == 0)
		return 0;
	if (tls->out.len + len + (len / RECORD_MAX + 1) * RECORD_EXTRA > OUTPUT_MAX)
		return -ENOBUFS;
	ERR_clear_error();
	if (SSL_write_ex(tls->ssl, data, len, &n) == 1)
		return 0;
	return fail_from_openssl(tls);
}

void sm_tls_shutdown(struct sm_tls *tls)
{
	if (tls->failed || !tls->done)
		return;
	ERR_clear_error();
	(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

/* ---- What came of it ---- */

const struct sm_identity *sm_tls_peer(const struct sm_tls *tls)
{
	return &tls->peer;
}

const char *sm_tls_group(const struct sm_tls *tls)
{
	const char *name = tls->ssl ? SSL_get0_group_name(tls->ssl) : NULL;

	return name ? name : "";
}

const char *sm_tls_signature(const struct sm_tls *tls)
{
	const char *name = NULL;

	if (!tls->ssl || SSL_get0_peer_signature_name(tls->ssl, &name) != 1 || !name)
		return "";
	return name;
}

uint64_t sm_tls_bytes_in(const struct sm_tls *tls)
{
	return tls->bytes_in;
}

uint64_t sm_tls_bytes_out(const struct sm_tls *tls)
{
	return tls->bytes_out;
}

int sm_tls_root_secret(struct sm_tls *tls, uint8_t ret_secret[SM_ROOT_SECRET_LEN])
{
	const struct sm_identity *own = &tls->config->own, *peer = &tls->peer;
	uint8_t context[SM_EXPORTER_CONTEXT_LEN], *p = context;

	if (!tls->done)
		return -EIO;
	memcpy(p, own->network_id, SM_NETWORK_ID_LEN);
	p += SM_NETWORK_ID_LEN;
	memcpy(p, (tls->client ? own : peer)->spki_sha384, SM_SHA384_LEN);
	p += SM_SHA384_LEN;
	memcpy(p, (tls->client ? peer : own)->spki_sha384, SM_SHA384_LEN);
	ERR_clear_error();
	if (SSL_export_keying_material(tls->ssl, ret_secret, SM_ROOT_SECRET_LEN, SM_EXPORTER_LABEL,
				       strlen(SM_EXPORTER_LABEL), context, sizeof(context),
				       1) != 1) {
		ERR_clear_error();
		return -EIO;
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * The TLS channel: pairs of ours in memory, and ours against odd peers made with OpenSSL alone.
 */
#include "crypto/tls.h"

#include "base/clock.h"
#include "crypto/hello.h"
#include "crypto/objects.h"
#include "pki.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define NOW  PKI_NOW_S
#define YEAR (365 * PKI_DAY_S)

static struct pki net;
static struct pki_node alice, bob;
static struct sm_trust *trust;
static struct sm_tls_config *alice_config, *bob_config, *alice_cnsa, *bob_cnsa;

static const uint8_t access_key[SM_ACCESS_KEY_LEN] = {1, 2, 3};
static const uint8_t other_access_key[SM_ACCESS_KEY_LEN] = {3, 2, 1};

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(sm_crypto_init(), 0);
	pki_init(&net, 0xaa, NOW);
	pki_issue(&net, "alice", NOW - PKI_DAY_S, NOW + YEAR, &alice);
	pki_issue(&net, "bob", NOW - PKI_DAY_S, NOW + YEAR, &bob);
	trust = pki_trust(&net);
	alice_config = pki_config(&alice, trust, SM_POLICY_DEFAULT, NULL);
	bob_config = pki_config(&bob, trust, SM_POLICY_DEFAULT, NULL);
	alice_cnsa = pki_config(&alice, trust, SM_POLICY_CNSA, NULL);
	bob_cnsa = pki_config(&bob, trust, SM_POLICY_CNSA, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sm_tls_config_unref(alice_config);
	sm_tls_config_unref(bob_config);
	sm_tls_config_unref(alice_cnsa);
	sm_tls_config_unref(bob_cnsa);
	sm_trust_unref(trust);
	pki_node_done(&alice);
	pki_node_done(&bob);
	pki_done(&net);
	return 0;
}

/* ---- A pair of ours ---- */

struct pair {
	struct sm_tls *client, *server;
	int client_result, server_result; /* of the last handshake step */
	int64_t client_now, server_now;
	size_t chunk; /* bytes handed over at once */
	uint64_t client_us, server_us;
	/* a byte to flip: its position in the bytes of one direction; SIZE_MAX for none */
	size_t flip_up, flip_down, sent_up, sent_down;
	uint8_t record[65536]; /* what the client sent */
	size_t recorded;
};

static void pair_init(struct pair *p, struct sm_tls_config *client, struct sm_tls_config *server)
{
	memset(p, 0, sizeof(*p));
	p->client_now = p->server_now = NOW;
	p->chunk = 65536;
	p->flip_up = p->flip_down = SIZE_MAX;
	assert_int_equal(sm_tls_new(client, true, &p->client), 0);
	assert_int_equal(sm_tls_new(server, false, &p->server), 0);
}

static void pair_done(struct pair *p)
{
	sm_tls_free(p->client);
	sm_tls_free(p->server);
}

static size_t carry(struct sm_tls *from, struct sm_tls *to, size_t chunk, size_t *sent, size_t flip,
		    struct pair *record)
{
	static uint8_t buf[65536];
	size_t total = 0, n;

	while ((n = sm_tls_output(from, buf, chunk)) > 0) {
		if (flip >= *sent && flip < *sent + n)
			buf[flip - *sent] ^= 0x40;
		*sent += n;
		total += n;
		if (record && record->recorded + n <= sizeof(record->record)) {
			memcpy(record->record + record->recorded, buf, n);
			record->recorded += n;
		}
		assert_int_equal(sm_tls_feed(to, buf, n), 0);
	}
	return total;
}

static int step(struct sm_tls *tls, int64_t now, uint64_t *us)
{
	uint64_t start = sm_clock_now_ns();
	int n = sm_tls_handshake(tls, now);

	*us += (sm_clock_now_ns() - start) / 1000;
	return n;
}

/* Both sides until nothing moves any more */
static void shake(struct pair *p)
{
	for (size_t moved = 1; moved > 0;) {
		p->client_result = step(p->client, p->client_now, &p->client_us);
		moved = carry(p->client, p->server, p->chunk, &p->sent_up, p->flip_up, p);
		if (sm_tls_hello_complete(p->server) == 1)
			p->server_result = step(p->server, p->server_now, &p->server_us);
		moved += carry(p->server, p->client, p->chunk, &p->sent_down, p->flip_down, NULL);
	}
}

static void expect_data(struct sm_tls *from, struct sm_tls *to)
{
	static uint8_t out[40000], in[40000];
	size_t sent = 0, got = 0;
	int n;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7);
	assert_int_equal(sm_tls_write(from, out, sizeof(out)), 0);
	carry(from, to, 1000, &sent, SIZE_MAX, NULL);
	while ((n = sm_tls_read(to, in + got, sizeof(in) - got)) > 0)
		got += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(got, sizeof(out));
	assert_memory_equal(in, out, sizeof(out));
	assert_true(sent > sizeof(out));
}

static void expect_success(struct pair *p, const char *group)
{
	uint8_t a[SM_ROOT_SECRET_LEN], b[SM_ROOT_SECRET_LEN], byte;
	size_t sent = 0;

	shake(p);
	if (p->client_result != 1 || p->server_result != 1)
		fail_msg("client %d '%s', server %d '%s'", p->client_result,
			 sm_tls_error(p->client), p->server_result, sm_tls_error(p->server));
	assert_string_equal(sm_tls_group(p->client), group);
	assert_string_equal(sm_tls_group(p->server), group);
	assert_string_equal(sm_tls_signature(p->client), "mldsa87");
	assert_string_equal(sm_tls_signature(p->server), "mldsa87");
	assert_string_equal(sm_tls_peer(p->client)->name, "bob");
	assert_string_equal(sm_tls_peer(p->server)->name, "alice");
	assert_int_equal(sm_tls_bytes_in(p->client), sm_tls_bytes_out(p->server));
	assert_int_equal(sm_tls_bytes_out(p->client), sm_tls_bytes_in(p->server));
	assert_int_equal(sm_tls_root_secret(p->client, a), 0);
	assert_int_equal(sm_tls_root_secret(p->server, b), 0);
	assert_memory_equal(a, b, sizeof(a));
	expect_data(p->client, p->server);
	expect_data(p->server, p->client);
	assert_int_equal(sm_tls_close_reason(p->client), SM_CLOSE_NONE);
	sm_tls_shutdown(p->client);
	carry(p->client, p->server, 65536, &sent, SIZE_MAX, NULL);
	assert_int_equal(sm_tls_read(p->server, &byte, 1), -ECONNRESET);
	assert_int_equal(sm_tls_close_reason(p->server), SM_CLOSE_NONE);
	assert_int_equal(sm_tls_write(p->server, "x", 1), -EPROTO);
}

static void test_success(void **state)
{
	const struct {
		struct sm_tls_config *client, *server;
		size_t chunk;
	} rows[] = {
		{alice_config, bob_config, 65536}, {alice_cnsa, bob_cnsa, 65536},
		{alice_config, bob_cnsa, 65536},   {alice_cnsa, bob_config, 65536},
		{alice_config, bob_config, 1},     {alice_config, bob_config, 1460},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct pair p;

		pair_init(&p, rows[i].client, rows[i].server);
		p.chunk = rows[i].chunk;
		expect_success(&p, "SecP384r1MLKEM1024");
		print_message("handshake: client %llu us, %llu bytes; server %llu us, %llu bytes\n",
			      (unsigned long long)p.client_us,
			      (unsigned long long)sm_tls_bytes_out(p.client),
			      (unsigned long long)p.server_us,
			      (unsigned long long)sm_tls_bytes_out(p.server));
		pair_done(&p);
	}
}

static void test_secrets_differ(void **state)
{
	uint8_t secret[2][SM_ROOT_SECRET_LEN];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct pair p;

		pair_init(&p, alice_config, bob_config);
		shake(&p);
		assert_int_equal(sm_tls_root_secret(p.client, secret[i]), 0);
		pair_done(&p);
	}
	assert_memory_not_equal(secret[0], secret[1], SM_ROOT_SECRET_LEN);
}

/* ---- Certificates that do not do ---- */

enum odd {
	ODD_FOREIGN_CA,
	ODD_EXPIRED,
	ODD_NOT_YET_VALID,
	ODD_REVOKED,
	ODD_WRONG_NETWORK,
	ODD_CLASSICAL_CA,
	ODD_COUNT,
};

static const struct {
	int err;
	enum sm_close_reason reason;
	const char *here;  /* part of the sentence of the side that judges */
	const char *there; /* and of the other */
} odds[ODD_COUNT] = {
	[ODD_FOREIGN_CA] = {-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			    "not signed by a CA of this network", "does not trust who signed it"},
	[ODD_EXPIRED] = {-EKEYEXPIRED, SM_CLOSE_EXPIRED, "expired on", "it is expired"},
	[ODD_NOT_YET_VALID] = {-EKEYEXPIRED, SM_CLOSE_EXPIRED, "not valid before", "not yet valid"},
	[ODD_REVOKED] = {-EKEYREVOKED, SM_CLOSE_REVOKED, "is revoked", "it is revoked"},
	[ODD_WRONG_NETWORK] = {-EKEYREJECTED, SM_CLOSE_NETWORK, "is of network",
			       "of another network"},
	[ODD_CLASSICAL_CA] = {-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "",
			      "does not trust who signed it"},
};

static void sign_classically(struct pki_node *node)
{
	EVP_PKEY *ec = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");

	assert_non_null(ec);
	assert_true(X509_sign(node->cert->x509, ec, EVP_sha384()) > 0);
	EVP_PKEY_free(ec);
}

static void make_odd(enum odd odd, struct pki_node *ret_node)
{
	struct pki other;

	switch (odd) {
	case ODD_FOREIGN_CA:
	case ODD_WRONG_NETWORK:
		pki_init(&other, odd == ODD_FOREIGN_CA ? 0xaa : 0xbb, NOW);
		pki_issue(&other, "odd", NOW - PKI_DAY_S, NOW + YEAR, ret_node);
		pki_done(&other);
		break;
	case ODD_EXPIRED:
		pki_issue(&net, "odd", NOW - YEAR, NOW - 1, ret_node);
		break;
	case ODD_NOT_YET_VALID:
		pki_issue(&net, "odd", NOW + 1, NOW + YEAR, ret_node);
		break;
	case ODD_REVOKED:
		pki_issue(&net, "odd", NOW - PKI_DAY_S, NOW + YEAR, ret_node);
		break;
	case ODD_CLASSICAL_CA:
		pki_issue(&net, "odd", NOW - PKI_DAY_S, NOW + YEAR, ret_node);
		sign_classically(ret_node);
		break;
	case ODD_COUNT:
		break;
	}
}

static void expect_failure(const struct sm_tls *tls, int result, int err,
			   enum sm_close_reason reason, const char *part)
{
	if (result != err || sm_tls_close_reason(tls) != reason || !strstr(sm_tls_error(tls), part))
		fail_msg("got %d, %s, '%s'; want %d, %s, '%s'", result,
			 sm_close_reason_name(sm_tls_close_reason(tls)), sm_tls_error(tls), err,
			 sm_close_reason_name(reason), part);
}

static void test_odd_certificates(void **state)
{
	(void)state;
	for (enum odd odd = 0; odd < ODD_COUNT; odd++) {
		struct sm_trust *judge_trust = pki_trust(&net);
		struct sm_tls_config *judge, *judged;
		struct pki_node node;
		uint8_t byte;

		make_odd(odd, &node);
		if (odd == ODD_REVOKED)
			pki_revoke(&net, &node, NOW, judge_trust);
		judge = pki_config(&bob, judge_trust, SM_POLICY_DEFAULT, NULL);
		judged = pki_config(&node, trust, SM_POLICY_DEFAULT, NULL);
		for (int client_is_odd = 0; client_is_odd < 2; client_is_odd++) {
			struct pair p;

			pair_init(&p, client_is_odd ? judged : judge,
				  client_is_odd ? judge : judged);
			shake(&p);
			if (client_is_odd) {
				/* done before the server has judged: the alert comes after */
				assert_int_equal(p.client_result, 1);
				expect_failure(p.server, p.server_result, odds[odd].err,
					       odds[odd].reason, odds[odd].here);
				expect_failure(p.client, sm_tls_read(p.client, &byte, 1), -EPROTO,
					       odds[odd].reason, odds[odd].there);
			} else {
				expect_failure(p.client, p.client_result, odds[odd].err,
					       odds[odd].reason, odds[odd].here);
				expect_failure(p.server, p.server_result, -EPROTO, odds[odd].reason,
					       odds[odd].there);
			}
			pair_done(&p);
		}
		sm_tls_config_unref(judge);
		sm_tls_config_unref(judged);
		pki_node_done(&node);
		sm_trust_unref(judge_trust);
	}
}

/* Without a CA: self-signed certificates, each pinned by its key at the other side */
static void test_pinned(void **state)
{
	struct sm_identity id = {.name = "whatever"};
	struct sm_trust *pins[2];
	struct sm_tls_config *configs[2];
	struct pki_node nodes[2];
	uint8_t fp[SM_FINGERPRINT_LEN], byte;
	struct pair p;

	(void)state;
	memcpy(id.network_id, net.network_id, sizeof(id.network_id));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(sm_key_generate(&nodes[i].key), 0);
		assert_int_equal(sm_cert_self_signed(nodes[i].key, &id, &nodes[i].cert, NULL), 0);
		assert_int_equal(sm_trust_new(net.network_id, &pins[i]), 0);
		configs[i] = pki_config(&nodes[i], pins[i], SM_POLICY_DEFAULT, NULL);
	}
	/* the client pins the server, the server nobody yet */
	assert_int_equal(sm_key_fingerprint(nodes[1].key, fp), 0);
	assert_int_equal(sm_trust_add_pin(pins[0], "bob", fp), 0);
	pair_init(&p, configs[0], configs[1]);
	shake(&p);
	expect_failure(p.server, p.server_result, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
		       "not pinned");
	expect_failure(p.client, sm_tls_read(p.client, &byte, 1), -EPROTO, SM_CLOSE_NOT_TRUSTED,
		       "does not trust");
	pair_done(&p);
	assert_int_equal(sm_key_fingerprint(nodes[0].key, fp), 0);
	assert_int_equal(sm_trust_add_pin(pins[1], "alice", fp), 0);
	pair_init(&p, configs[0], configs[1]);
	expect_success(&p, "SecP384r1MLKEM1024");
	pair_done(&p);
	for (int i = 0; i < 2; i++) {
		sm_tls_config_unref(configs[i]);
		sm_trust_unref(pins[i]);
		pki_node_done(&nodes[i]);
	}
}

static void test_config_wants_its_key(void **state)
{
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_tls_config *config = NULL;

	(void)state;
	assert_int_equal(sm_tls_config_new(alice.cert, bob.key, trust, SM_POLICY_DEFAULT, NULL,
					   &config, error),
			 -EINVAL);
	assert_null(config);
	assert_true(strlen(error) > 0);
}

/* ---- Ours against OpenSSL alone ---- */

struct raw {
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out;
};

static struct sm_access *raw_access;

static int raw_offer(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_len,
		     SSL_SESSION **session)
{
	static uint8_t identity[SM_ACCESS_IDENTITY_LEN];
	static const unsigned char cipher[2] = {0x13, 0x02};

	(void)md;
	assert_int_equal(sm_access_offer(raw_access, NOW, identity), 0);
	*session = SSL_SESSION_new();
	assert_int_equal(SSL_SESSION_set1_master_key(*session, sm_access_psk(raw_access),
						     SM_ACCESS_PSK_LEN),
			 1);
	assert_int_equal(SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, cipher)), 1);
	assert_int_equal(SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION), 1);
	*id = identity;
	*id_len = sizeof(identity);
	return 1;
}

static int raw_find(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
	const unsigned char *ignored;
	size_t ignored_len;

	(void)id;
	assert_int_equal(id_len, SM_ACCESS_IDENTITY_LEN);
	return raw_offer(ssl, NULL, &ignored, &ignored_len, session);
}

static int raw_select(SSL *ssl, const unsigned char **name, unsigned char *len,
		      const unsigned char *offered, unsigned int offered_len, void *arg)
{
	(void)ssl;
	(void)offered_len;
	(void)arg;
	*name = offered + 1;
	*len = offered[0];
	return SSL_TLSEXT_ERR_OK;
}

static int raw_trusts_all(X509_STORE_CTX *store, void *arg)
{
	(void)store;
	(void)arg;
	return 1;
}

#define RAW_SERVER      1u
#define RAW_TLS12       2u
#define RAW_NO_CERT     4u
#define RAW_NO_ALPN     8u
#define RAW_OTHER_ALPN  16u
#define RAW_EC_CERT     32u
#define RAW_OFFERS      64u
#define RAW_SELECTS_PSK 128u

static void raw_init(struct raw *raw, unsigned flags, const char *groups)
{
	memset(raw, 0, sizeof(*raw));
	raw->ctx = SSL_CTX_new(TLS_method());
	assert_non_null(raw->ctx);
	SSL_CTX_set_max_proto_version(raw->ctx,
				      flags & RAW_TLS12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	if (groups)
		assert_int_equal(SSL_CTX_set1_groups_list(raw->ctx, groups), 1);
	SSL_CTX_set_cert_verify_callback(raw->ctx, raw_trusts_all, NULL);
	if (flags & RAW_EC_CERT) {
		EVP_PKEY *ec = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
		X509 *x509 = X509_new();

		assert_int_equal(X509_set_pubkey(x509, ec), 1);
		X509_gmtime_adj(X509_getm_notBefore(x509), 0);
		X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
		assert_true(X509_sign(x509, ec, EVP_sha384()) > 0);
		assert_int_equal(SSL_CTX_use_certificate(raw->ctx, x509), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(raw->ctx, ec), 1);
		X509_free(x509);
		EVP_PKEY_free(ec);
	} else if (!(flags & RAW_NO_CERT)) {
		struct pki_node *node = flags & RAW_SERVER ? &bob : &alice;

		assert_int_equal(SSL_CTX_use_certificate(raw->ctx, node->cert->x509), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(raw->ctx, node->key->pkey), 1);
	}
	if (flags & RAW_OTHER_ALPN)
		SSL_CTX_set_alpn_protos(raw->ctx, (const unsigned char *)"\x02h2\x0cshadowmesh/9",
					16);
	else if (!(flags & RAW_NO_ALPN))
		SSL_CTX_set_alpn_protos(raw->ctx, (const unsigned char *)"\x02h2\x0cshadowmesh/1",
					16);
	if ((flags & RAW_SERVER) && !(flags & RAW_NO_ALPN))
		SSL_CTX_set_alpn_select_cb(raw->ctx, raw_select, NULL);
	if (flags & RAW_SERVER)
		SSL_CTX_set_verify(raw->ctx, SSL_VERIFY_PEER, NULL);
	if (flags & RAW_OFFERS)
		SSL_CTX_set_psk_use_session_callback(raw->ctx, raw_offer);
	if (flags & RAW_SELECTS_PSK) {
		SSL_CTX_set_session_id_context(raw->ctx, (const unsigned char *)"raw", 3);
		SSL_CTX_set_psk_find_session_callback(raw->ctx, raw_find);
	}
	raw->ssl = SSL_new(raw->ctx);
	raw->in = BIO_new(BIO_s_mem());
	raw->out = BIO_new(BIO_s_mem());
	SSL_set_bio(raw->ssl, raw->in, raw->out);
	if (flags & RAW_SERVER)
		SSL_set_accept_state(raw->ssl);
	else
		SSL_set_connect_state(raw->ssl);
}

static void raw_done(struct raw *raw)
{
	SSL_free(raw->ssl);
	SSL_CTX_free(raw->ctx);
}

/* Return: our last result; *@ret_alert: what the raw side was told, 0 for nothing */
static int raw_shake(struct raw *raw, struct sm_tls *ours, int *ret_alert)
{
	static uint8_t buf[65536];
	int result = 0, alert = 0;

	for (size_t moved = 1, n; moved > 0;) {
		int r;

		moved = 0;
		ERR_clear_error();
		r = SSL_do_handshake(raw->ssl);
		if (r == 1)
			r = SSL_read(raw->ssl, buf, 1); /* an alert may wait */
		if (r <= 0 && SSL_get_error(raw->ssl, r) == SSL_ERROR_SSL && !alert) {
			int reason = ERR_GET_REASON(ERR_peek_error());

			alert = reason > SSL_AD_REASON_OFFSET ? reason - SSL_AD_REASON_OFFSET : -1;
		}
		while ((r = BIO_read(raw->out, buf, sizeof(buf))) > 0) {
			assert_int_equal(sm_tls_feed(ours, buf, (size_t)r), 0);
			moved += (size_t)r;
		}
		if (sm_tls_hello_complete(ours) != 0)
			result = sm_tls_handshake(ours, NOW);
		while ((n = sm_tls_output(ours, buf, sizeof(buf))) > 0) {
			assert_int_equal(BIO_write(raw->in, buf, (int)n), (int)n);
			moved += n;
		}
	}
	*ret_alert = alert;
	ERR_clear_error();
	return result;
}

static void test_odd_clients(void **state)
{
	static const struct {
		unsigned flags;
		const char *groups;
		bool cnsa;
		int err, alert;
		enum sm_close_reason reason;
		const char *text;
	} rows[] = {
		{0, "X25519MLKEM768", false, 1, 0, SM_CLOSE_NONE, ""},
		{0, "MLKEM1024", false, 1, 0, SM_CLOSE_NONE, ""},
		{0, "MLKEM1024", true, 1, 0, SM_CLOSE_NONE, ""},
		{0, "X25519:MLKEM1024", false, 1, 0, SM_CLOSE_NONE, ""},
		{0, "X25519MLKEM768", true, -EPROTO, SSL_AD_HANDSHAKE_FAILURE, SM_CLOSE_CIPHER,
		 "no common key exchange group"},
		{0, "X25519", false, -EPROTO, SSL_AD_HANDSHAKE_FAILURE, SM_CLOSE_CIPHER,
		 "no common key exchange group"},
		{0, "P-384:P-521", false, -EPROTO, SSL_AD_HANDSHAKE_FAILURE, SM_CLOSE_CIPHER,
		 "no common key exchange group"},
		{0, "MLKEM768:SecP256r1MLKEM768", false, -EPROTO, SSL_AD_HANDSHAKE_FAILURE,
		 SM_CLOSE_CIPHER, "no common key exchange group"},
		{RAW_NO_ALPN, NULL, false, -EPROTO, SSL_AD_NO_APPLICATION_PROTOCOL,
		 SM_CLOSE_VERSION, "asks for no protocol"},
		{RAW_OTHER_ALPN, NULL, false, -EPROTO, SSL_AD_NO_APPLICATION_PROTOCOL,
		 SM_CLOSE_VERSION, "another protocol"},
		{RAW_TLS12, NULL, false, -EPROTO, SSL_AD_PROTOCOL_VERSION, SM_CLOSE_VERSION,
		 "TLS 1.2 at most"},
		{RAW_NO_CERT, "MLKEM1024", false, -EKEYREJECTED, SSL_AD_CERTIFICATE_REQUIRED,
		 SM_CLOSE_NOT_TRUSTED, "no certificate"},
		{RAW_EC_CERT, "MLKEM1024", false, -EKEYREJECTED, SSL_AD_CERTIFICATE_REQUIRED,
		 SM_CLOSE_NOT_TRUSTED, "no certificate"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_tls *server;
		struct raw raw;
		int result, alert;

		assert_int_equal(sm_tls_new(rows[i].cnsa ? bob_cnsa : bob_config, false, &server),
				 0);
		raw_init(&raw, rows[i].flags, rows[i].groups);
		result = raw_shake(&raw, server, &alert);
		if (alert != rows[i].alert)
			fail_msg("row %zu: alert %d, want %d (%s)", i, alert, rows[i].alert,
				 sm_tls_error(server));
		expect_failure(server, result, rows[i].err, rows[i].reason, rows[i].text);
		raw_done(&raw);
		sm_tls_free(server);
	}
}

static void test_odd_servers(void **state)
{
	static const struct {
		unsigned flags;
		const char *groups;
		int err;
		enum sm_close_reason reason;
		const char *text;
	} rows[] = {
		{0, NULL, 1, SM_CLOSE_NONE, ""},
		{0, "MLKEM1024", 1, SM_CLOSE_NONE, ""}, /* asks for another key share */
		{RAW_NO_ALPN, NULL, -EPROTO, SM_CLOSE_VERSION, "did not agree"},
		{RAW_TLS12, NULL, -EPROTO, SM_CLOSE_VERSION, "TLS 1."},
		{0, "X25519:P-384", -EPROTO, SM_CLOSE_CIPHER, "no common group"},
		{RAW_EC_CERT, NULL, -EPROTO, SM_CLOSE_CIPHER,
		 "no common group, cipher or signature"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_tls *client;
		struct raw raw;
		int result, alert;

		assert_int_equal(sm_tls_new(alice_config, true, &client), 0);
		raw_init(&raw, rows[i].flags | RAW_SERVER, rows[i].groups);
		result = raw_shake(&raw, client, &alert);
		expect_failure(client, result, rows[i].err, rows[i].reason, rows[i].text);
		raw_done(&raw);
		sm_tls_free(client);
	}
}

static void test_not_tls(void **state)
{
	static const char *const bytes[] = {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x02",
					    "\x16\x03\x01\x01\x01\x02", "\x15\x03\x03"};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(bytes); i++) {
		struct sm_tls *server, *client;
		uint8_t buf[4096];

		assert_int_equal(sm_tls_new(bob_config, false, &server), 0);
		assert_int_equal(sm_tls_feed(server, bytes[i], strlen(bytes[i])), 0);
		assert_int_equal(sm_tls_hello_complete(server), -EBADMSG);
		expect_failure(server, sm_tls_handshake(server, NOW), -EPROTO, SM_CLOSE_PROTOCOL,
			       "not TLS");
		sm_tls_free(server);
		if (i > 1)
			continue;
		assert_int_equal(sm_tls_new(alice_config, true, &client), 0);
		assert_int_equal(sm_tls_handshake(client, NOW), 0);
		assert_true(sm_tls_output(client, buf, sizeof(buf)) > 0);
		assert_int_equal(sm_tls_feed(client, bytes[i], strlen(bytes[i])), 0);
		expect_failure(client, sm_tls_handshake(client, NOW), -EPROTO, SM_CLOSE_PROTOCOL,
			       "not TLS");
		sm_tls_free(client);
	}
}

/* ---- What a ClientHello of ours says ---- */

static size_t greeting(struct sm_tls_config *config, uint8_t *buf, size_t size)
{
	struct sm_tls *client;
	size_t n;

	assert_int_equal(sm_tls_new(config, true, &client), 0);
	assert_int_equal(sm_tls_handshake(client, NOW), 0);
	n = sm_tls_output(client, buf, size);
	assert_in_range(n, 100, size - 1);
	sm_tls_free(client);
	return n;
}

/* The extension's value in a single-record greeting, NULL without */
static const uint8_t *find_extension(const uint8_t *buf, size_t len, unsigned type, size_t *ret_len)
{
	size_t at = 5 + 4 + 2 + 32, n;

	at += 1u + buf[at];
	at += 2u + ((size_t)buf[at] << 8 | buf[at + 1]);
	at += 1u + buf[at];
	for (at += 2; at + 4 <= len; at += 4 + n) {
		n = (size_t)buf[at + 2] << 8 | buf[at + 3];
		if (((unsigned)buf[at] << 8 | buf[at + 1]) == type) {
			*ret_len = n;
			return buf + at + 4;
		}
	}
	return NULL;
}

static void test_greeting(void **state)
{
	uint8_t buf[8192];
	const uint8_t *ext;
	size_t n, ext_len = 0;

	(void)state;
	n = greeting(alice_config, buf, sizeof(buf));
	assert_null(find_extension(buf, n, TLSEXT_TYPE_server_name, &ext_len));
	assert_null(find_extension(buf, n, TLSEXT_TYPE_session_ticket, &ext_len));
	assert_null(find_extension(buf, n, TLSEXT_TYPE_status_request, &ext_len));
	assert_null(find_extension(buf, n, TLSEXT_TYPE_psk, &ext_len));
	ext = find_extension(buf, n, TLSEXT_TYPE_key_share, &ext_len);
	assert_non_null(ext);
	/* one share: SecP384r1MLKEM1024, 97 and 1568 bytes */
	assert_int_equal(ext_len, 2 + 4 + 1665);
	assert_memory_equal(ext + 2, "\x11\xed\x06\x81", 4);
	ext = find_extension(buf, n, TLSEXT_TYPE_signature_algorithms, &ext_len);
	assert_int_equal(ext_len, 4);
	assert_memory_equal(ext, "\x00\x02\x09\x06", 4); /* mldsa87 and nothing else */
	print_message("ClientHello: %zu bytes\n", n);
}

static void test_greeting_in_pieces(void **state)
{
	uint8_t buf[8192], msg[8192], pieces[8192 * 6];
	struct sm_hello_scan scan = {0};
	struct sm_hello hello;
	size_t n = greeting(alice_config, buf, sizeof(buf)), len = 0;

	(void)state;
	/* every prefix of it is incomplete, and the whole is complete */
	for (size_t i = 0; i < n; i++)
		assert_int_equal(sm_hello_scan(&scan, buf, i), 0);
	assert_int_equal(sm_hello_scan(&scan, buf, n), 1);
	assert_int_equal(sm_hello_len(&scan), n - 5);
	sm_hello_collect(&scan, buf, n, msg);
	assert_memory_equal(msg, buf + 5, n - 5);
	assert_int_equal(sm_hello_parse(msg, n - 5, &hello), 0);
	assert_true(hello.tls13 && hello.alpn && hello.alpn_ours && !hello.identity);

	/* the same in records of one byte each, with the same outcome */
	for (size_t i = 5; i < n; i++) {
		memcpy(pieces + len, "\x16\x03\x01\x00\x01", 5);
		pieces[len + 5] = buf[i];
		len += 6;
	}
	memset(&scan, 0, sizeof(scan));
	assert_int_equal(sm_hello_scan(&scan, pieces, len), 1);
	memset(msg, 0, sizeof(msg));
	sm_hello_collect(&scan, pieces, len, msg);
	assert_memory_equal(msg, buf + 5, n - 5);

	/* cut or lengthened, it is malformed */
	for (size_t i = 0; i < n - 5; i++)
		assert_int_equal(sm_hello_parse(msg, i, &hello), -EBADMSG);
	assert_int_equal(sm_hello_parse(msg, n - 4, &hello), -EBADMSG);
}

static void test_greeting_too_long(void **state)
{
	static uint8_t filler[SM_HELLO_MAX];
	struct sm_tls *server;

	(void)state;
	memcpy(filler, "\x16\x03\x01\x3f\x00\x01\x00\x7f\x00", 9);
	assert_int_equal(sm_tls_new(bob_config, false, &server), 0);
	assert_int_equal(sm_tls_feed(server, filler, 5 + 0x3f00), 0);
	assert_int_equal(sm_tls_hello_complete(server), -EBADMSG);
	expect_failure(server, sm_tls_handshake(server, NOW), -EPROTO, SM_CLOSE_PROTOCOL,
		       "more than");
	sm_tls_free(server);
}

static void test_limits(void **state)
{
	static uint8_t big[1024 * 1024];
	struct pair p;

	(void)state;
	pair_init(&p, alice_config, bob_config);
	shake(&p);
	assert_int_equal(p.server_result, 1);
	assert_int_equal(sm_tls_feed(p.server, big, 128 * 1024 + 1), -ENOBUFS);
	assert_int_equal(sm_tls_write(p.client, big, sizeof(big)), -ENOBUFS);
	assert_int_equal(sm_tls_write(p.client, big, sizeof(big) - 65536), 0);
	assert_int_equal(sm_tls_write(p.client, big, 65536), -ENOBUFS);
	pair_done(&p);
}

/* ---- The access key ---- */

static void test_access(void **state)
{
	static const struct {
		const uint8_t *client, *server;
		int64_t client_now;
		int err;
		const char *here;
	} rows[] = {
		{access_key, access_key, NOW, 1, ""},
		{access_key, access_key, NOW + PKI_DAY_S, 1, ""},
		{access_key, access_key, NOW - PKI_DAY_S, 1, ""},
		{access_key, NULL, NOW, 1, ""}, /* the server does not ask */
		{access_key, access_key, NOW + 3 * PKI_DAY_S, -EACCES, "two days apart"},
		{access_key, access_key, NOW - 3 * PKI_DAY_S, -EACCES, "two days apart"},
		{other_access_key, access_key, NOW, -EACCES, "another one"},
		{NULL, access_key, NOW, -EACCES, "no access key"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_tls_config *a, *b;
		struct pair p;

		a = pki_config(&alice, trust, SM_POLICY_DEFAULT, rows[i].client);
		b = pki_config(&bob, trust, SM_POLICY_DEFAULT, rows[i].server);
		pair_init(&p, a, b);
		p.client_now = rows[i].client_now;
		if (rows[i].err == 1) {
			expect_success(&p, "SecP384r1MLKEM1024");
		} else {
			shake(&p);
			expect_failure(p.server, p.server_result, rows[i].err, SM_CLOSE_NOT_TRUSTED,
				       rows[i].here);
			expect_failure(p.client, p.client_result, -EACCES, SM_CLOSE_NOT_TRUSTED,
				       "access key");
			assert_int_equal(p.sent_down, 7); /* an alert, and nothing else */
		}
		pair_done(&p);
		sm_tls_config_unref(a);
		sm_tls_config_unref(b);
	}
}

static int replay(struct sm_tls_config *config, const uint8_t *bytes, size_t len, const char *why,
		  size_t *ret_out)
{
	uint8_t out[65536];
	struct sm_tls *server;
	int result;

	assert_int_equal(sm_tls_new(config, false, &server), 0);
	assert_int_equal(sm_tls_feed(server, bytes, len), 0);
	result = sm_tls_handshake(server, NOW);
	*ret_out = sm_tls_output(server, out, sizeof(out));
	if (!strstr(sm_tls_error(server), why))
		fail_msg("'%s', want '%s'", sm_tls_error(server), why);
	sm_tls_free(server);
	return result;
}

static void test_access_replayed(void **state)
{
	struct sm_tls_config *a, *b, *fresh;
	uint8_t buf[8192];
	const uint8_t *share;
	size_t n, out, ext_len = 0;

	(void)state;
	a = pki_config(&alice, trust, SM_POLICY_DEFAULT, access_key);
	b = pki_config(&bob, trust, SM_POLICY_DEFAULT, access_key);
	fresh = pki_config(&bob, trust, SM_POLICY_DEFAULT, access_key);
	n = greeting(a, buf, sizeof(buf));
	assert_int_equal(replay(b, buf, n, "", &out), 0);
	assert_true(out > 5000);
	assert_int_equal(replay(b, buf, n, "replayed", &out), -EACCES);
	assert_int_equal(out, 7);
	/* to another server: one's own key share in another's greeting breaks the proof */
	share = find_extension(buf, n, TLSEXT_TYPE_key_share, &ext_len);
	buf[share - buf + 1000] ^= 1;
	assert_int_equal(replay(fresh, buf, n, "another one", &out), -EACCES);
	assert_int_equal(out, 7);
	buf[share - buf + 1000] ^= 1;
	assert_int_equal(replay(fresh, buf, n, "", &out), 0);
	sm_tls_config_unref(a);
	sm_tls_config_unref(b);
	sm_tls_config_unref(fresh);
}

/* A first ClientHello with the proof must not lead to a second one without. */
static void test_access_second_hello(void **state)
{
	struct sm_tls_config *b = pki_config(&bob, trust, SM_POLICY_DEFAULT, access_key);
	struct sm_tls *server;
	struct raw raw;
	int result, alert;

	(void)state;
	assert_int_equal(sm_access_new(access_key, net.network_id, &raw_access), 0);
	assert_int_equal(sm_tls_new(b, false, &server), 0);
	raw_init(&raw, RAW_OFFERS, "X25519:MLKEM1024");
	result = raw_shake(&raw, server, &alert);
	expect_failure(server, result, -EACCES, SM_CLOSE_NOT_TRUSTED, "second ClientHello");
	assert_int_equal(alert, SSL_AD_ACCESS_DENIED);
	raw_done(&raw);
	sm_tls_free(server);
	sm_tls_config_unref(b);
	sm_access_free(raw_access);
}

/* Who has the access key and no certificate could select the pre-shared key: the client must not fall
 * for that. */
static void test_access_is_no_identity(void **state)
{
	struct sm_tls_config *a = pki_config(&alice, trust, SM_POLICY_DEFAULT, access_key);
	struct sm_tls *client;
	struct raw raw;
	int result, alert;

	(void)state;
	assert_int_equal(sm_access_new(access_key, net.network_id, &raw_access), 0);
	assert_int_equal(sm_tls_new(a, true, &client), 0);
	raw_init(&raw, RAW_SERVER | RAW_NO_CERT | RAW_SELECTS_PSK, NULL);
	result = raw_shake(&raw, client, &alert);
	assert_true(SSL_session_reused(raw.ssl));
	expect_failure(client, result, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "no certificate");
	raw_done(&raw);
	sm_tls_free(client);
	sm_tls_config_unref(a);
	sm_access_free(raw_access);
}

/* ---- Damage ---- */

static void test_damage(void **state)
{
	unsigned both_done = 0, tried = 0;

	(void)state;
	for (size_t at = 0; at < 13000; at += 131) {
		for (int down = 0; down < 2; down++) {
			uint8_t a[SM_ROOT_SECRET_LEN], b[SM_ROOT_SECRET_LEN], byte;
			struct pair p;

			pair_init(&p, alice_config, bob_config);
			if (down)
				p.flip_down = at;
			else
				p.flip_up = at;
			shake(&p);
			tried++;
			if (p.client_result == 1 && p.server_result == 1 &&
			    sm_tls_read(p.client, &byte, 1) == 0) {
				/* in a field that means nothing; then both agree */
				assert_int_equal(sm_tls_root_secret(p.client, a), 0);
				assert_int_equal(sm_tls_root_secret(p.server, b), 0);
				assert_memory_equal(a, b, sizeof(a));
				both_done++;
			} else {
				assert_true(p.server_result != 1);
			}
			pair_done(&p);
		}
	}
	assert_true(tried > 150);
	assert_true(both_done <= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success),
		cmocka_unit_test(test_secrets_differ),
		cmocka_unit_test(test_odd_certificates),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_config_wants_its_key),
		cmocka_unit_test(test_odd_clients),
		cmocka_unit_test(test_odd_servers),
		cmocka_unit_test(test_not_tls),
		cmocka_unit_test(test_greeting),
		cmocka_unit_test(test_greeting_in_pieces),
		cmocka_unit_test(test_greeting_too_long),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_access),
		cmocka_unit_test(test_access_replayed),
		cmocka_unit_test(test_access_second_hello),
		cmocka_unit_test(test_access_is_no_identity),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests_name("tls", tests, set_up, tear_down);
}

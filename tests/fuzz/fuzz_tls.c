// SPDX-License-Identifier: MIT
/*
 * A stranger's bytes into the server side of the TLS channel, up to the end of the ClientHello and, where
 * the input asks for it, through OpenSSL's first step.
 *
 * Input: one byte of mode (bit 0: an access key is set, bit 1: on into OpenSSL, bits 2 to 7: the size of
 * the pieces), then the stream.
 */
#include "crypto/hello.h"
#include "crypto/tls.h"

#include <stdlib.h>

#define NOW_S          INT64_C(1800000000)
#define MODE_ACCESS    1u
#define MODE_HANDSHAKE 2u
#define OUT_MAX        65536u

static const uint8_t network_id[SM_NETWORK_ID_LEN] = {0xaa};
static const uint8_t access_key[SM_ACCESS_KEY_LEN] = {1, 2, 3};
static struct sm_key *key;
static struct sm_cert *cert;
static struct sm_trust *trust;
static struct sm_tls_config *open_config;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct sm_tls_config *make_config(const uint8_t *with_key)
{
	struct sm_tls_config *config;

	if (sm_tls_config_new(cert, key, trust, SM_POLICY_DEFAULT, with_key, &config, NULL) != 0)
		abort();
	return config;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sm_identity id = {.name = "fuzzed"};

	(void)argc;
	(void)argv;
	memcpy(id.network_id, network_id, sizeof(network_id));
	if (sm_crypto_init() != 0 || sm_key_generate(&key) != 0 ||
	    sm_cert_self_signed(key, &id, &cert, NULL) != 0 ||
	    sm_trust_new(network_id, &trust) != 0)
		abort();
	open_config = make_config(NULL);
	return 0;
}

static void check_span(const uint8_t *msg, size_t len, const uint8_t *part, size_t part_len)
{
	if (part && (part < msg || part_len > len || part + part_len > msg + len))
		abort();
}

/* What the parser found lies in the message; Return: what the scan said */
static int read_directly(const uint8_t *data, size_t len)
{
	struct sm_hello_scan scan = {0};
	int whole = sm_hello_scan(&scan, data, len);
	struct sm_hello hello;

	if (whole == 1) {
		size_t n = sm_hello_len(&scan);
		uint8_t *msg = malloc(n);

		if (!msg)
			abort();
		sm_hello_collect(&scan, data, len, msg);
		if (sm_hello_parse(msg, n, &hello) == 0) {
			check_span(msg, n, hello.identity, hello.identity_len);
			check_span(msg, n, hello.binder, hello.binder_len);
			if (hello.covered > n || (hello.alpn_ours && !hello.alpn))
				abort();
		}
		free(msg);
	}
	return whole < 0 ? -EBADMSG : whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct sm_tls_config *config;
	struct sm_tls *tls;
	static uint8_t out[OUT_MAX];
	int state = 0, result;
	size_t piece;
	uint8_t mode;

	if (len < 1)
		return 0;
	mode = data[0];
	piece = (size_t)(mode >> 2) * 37 + 1;
	data++;
	len--;
	/* a config of its own, because it remembers greetings */
	config = mode & MODE_ACCESS ? make_config(access_key) : sm_tls_config_ref(open_config);
	if (sm_tls_new(config, false, &tls) != 0)
		abort();
	for (size_t at = 0; at < len && state == 0; at += piece) {
		if (sm_tls_feed(tls, data + at, SM_MIN(piece, len - at)) != 0)
			break;
		state = sm_tls_hello_complete(tls);
		/* in pieces or at once, the verdict is the same */
		if (state != 0 && state != read_directly(data, SM_MIN(at + piece, len)))
			abort();
	}
	if (state < 0 || (state == 1 && (mode & MODE_HANDSHAKE))) {
		result = sm_tls_handshake(tls, NOW_S);
		if (result == 1) /* nobody can finish with one message */
			abort();
		if (result < 0 &&
		    (sm_tls_error(tls)[0] == '\0' || sm_tls_handshake(tls, NOW_S) != result))
			abort();
		(void)sm_tls_output(tls, out, sizeof(out));
	}
	sm_tls_free(tls);
	sm_tls_config_unref(config);
	return 0;
}

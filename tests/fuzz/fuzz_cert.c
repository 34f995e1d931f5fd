// SPDX-License-Identifier: MIT
/*
 * A stranger's certificates, revocation lists and attribute texts through our readers and the trust
 * check.
 *
 * Input: one byte of kind (0 certificate, 1 revocation list, 2 attributes; modulo 3), then PEM, DER or
 * text.
 */
#include "crypto/attributes.h"
#include "crypto/crypto.h"
#include "crypto/trust.h"

#include <stdlib.h>

#define NOW_S INT64_C(1800000000)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (sm_crypto_init() != 0)
		abort();
	return 0;
}

static void require(bool condition)
{
	if (!condition)
		abort();
}

/* What holds for every identity that a reader lets through */
static void check_identity(const struct sm_identity *id)
{
	require(sm_text_is_name(id->name));
	require(id->serial_len >= 1 && id->serial_len <= sizeof(id->serial));
	require(id->address_count <= SM_IDENT_ADDRESS_MAX);
	require(id->prefix_count <= SM_IDENT_PREFIX_MAX);
	require(id->group_count <= SM_IDENT_GROUP_MAX);
	for (size_t i = 0; i < id->address_count; i++)
		require(id->addresses[i].len <= (id->addresses[i].family == 4 ? 32 : 128));
	for (size_t i = 0; i < id->prefix_count; i++)
		require(id->prefixes[i].len <= (id->prefixes[i].family == 4 ? 32 : 128));
	for (size_t i = 0; i < id->group_count; i++)
		require(sm_text_is_name(id->groups[i]));
}

/* With the certificate itself as CA where it is one, and pinned on every other turn */
static void judge(const struct sm_cert *cert, const uint8_t network[SM_NETWORK_ID_LEN], bool pinned)
{
	char error[SM_CERT_ERROR_MAX] = "";
	enum sm_close_reason reason = SM_CLOSE_REASON_COUNT;
	uint8_t fp[SM_FINGERPRINT_LEN];
	struct sm_identity id;
	struct sm_trust *trust;
	int err;

	require(sm_trust_new(network, &trust) == 0);
	err = sm_trust_add_ca(trust, cert, error);
	require(err == 0 || err == -ENOTSUP || err == -EINVAL);
	if (pinned && sm_cert_fingerprint(cert, fp) == 0)
		require(sm_trust_add_pin(trust, "pinned", fp) == 0);
	err = sm_trust_check(trust, cert, NOW_S, &id, &reason, error);
	require(err == 0 || err == -EKEYREJECTED || err == -EKEYEXPIRED || err == -EKEYREVOKED);
	require((err == 0) == (reason == SM_CLOSE_NONE));
	if (err == 0) {
		check_identity(&id);
		require(sm_trust_check_identity(trust, &id, NOW_S, &reason, error) == 0);
	}
	sm_trust_unref(trust);
}

static void read_cert(const char *data, size_t len)
{
	char error[SM_CERT_ERROR_MAX] = "", name[SM_NAME_MAX + 1];
	uint8_t network[SM_NETWORK_ID_LEN] = {0};
	struct sm_identity id;
	struct sm_cert *cert;
	int64_t begin, end;

	if (sm_cert_from_pem(data, len, &cert, error) != 0)
		return;
	for (const char *c = sm_cert_common_name(cert, name); *c; c++)
		require(*c >= 0x20 && *c <= 0x7e);
	(void)!sm_cert_times(cert, &begin, &end);
	if (sm_cert_identity(cert, &id, error) == 0) {
		check_identity(&id);
		memcpy(network, id.network_id, sizeof(network));
	}
	(void)sm_cert_is_ca(cert, network);
	judge(cert, network, false);
	judge(cert, network, true);
	sm_cert_free(cert);
}

static void read_crl(const char *data, size_t len)
{
	static const uint8_t network[SM_NETWORK_ID_LEN];
	char error[SM_CERT_ERROR_MAX];
	struct sm_crl_entry entry, before = {0};
	struct sm_trust *trust;
	struct sm_crl *crl;

	if (sm_crl_from_pem(data, len, &crl, error) != 0)
		return;
	for (size_t i = 0; i < sm_crl_count(crl); i++) {
		require(sm_crl_entry(crl, i, &entry) == 0);
		require(entry.serial_len >= 1 && entry.serial_len <= sizeof(entry.serial));
		require(memcmp(before.serial, entry.serial,
			       SM_MIN(before.serial_len, entry.serial_len)) <= 0);
		require(sm_crl_revokes(crl, entry.serial, entry.serial_len, entry.fingerprint));
		require(sm_crl_revokes(crl, entry.serial, entry.serial_len, network));
		before = entry;
	}
	require(sm_crl_entry(crl, sm_crl_count(crl), &entry) == -ENOENT);
	require(sm_trust_new(network, &trust) == 0);
	require(sm_trust_add_crl(trust, crl, error) == -EKEYREJECTED);
	sm_trust_unref(trust);
	sm_crl_free(crl);
}

/* What was read and written again reads the same. */
static void read_attributes(const char *data, size_t len)
{
	char error[SM_CERT_ERROR_MAX], text[SM_ATTRIBUTES_MAX];
	struct sm_identity id = {.address_count = 2}, again = {.address_count = 2};
	int n;

	id.addresses[0] = (struct sm_prefix){.ip = {10, 7, 0, 2}, .family = 4, .len = 32};
	id.addresses[1] = (struct sm_prefix){.ip = {0xfd, 1}, .family = 6, .len = 128};
	memcpy(again.addresses, id.addresses, sizeof(id.addresses));
	if (sm_attributes_decode(data, len, &id, error) != 0)
		return;
	n = sm_attributes_encode(&id, text, sizeof(text));
	require(n > 0);
	require(sm_attributes_decode(text, (size_t)n, &again, error) == 0);
	require(id.prefix_count == again.prefix_count && id.group_count == again.group_count &&
		id.roles == again.roles);
	require(memcmp(id.addresses, again.addresses, sizeof(id.addresses)) == 0);
	require(memcmp(id.prefixes, again.prefixes, sizeof(id.prefixes)) == 0);
	require(memcmp(id.groups, again.groups, sizeof(id.groups)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	switch (data[0] % 3) {
	case 0:
		read_cert((const char *)data + 1, len - 1);
		break;
	case 1:
		read_crl((const char *)data + 1, len - 1);
		break;
	case 2:
		read_attributes((const char *)data + 1, len - 1);
		break;
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Making certificates: CAs, nodes, and the self-signed ones of pinned mode.
 */
#include "base/clock.h"
#include "crypto/attributes.h"
#include "crypto/cert.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

#define SERIAL_LEN    20
#define KEY_ID_LEN    20
#define YEAR_9999_END INT64_C(253402300799) /* RFC 5280, 4.1.2.5: no well-defined expiry */

static int set_serial(X509 *x509)
{
	uint8_t bytes[SERIAL_LEN];
	BIGNUM *number;
	bool ok;

	if (sm_crypto_random(bytes, sizeof(bytes)) != 0)
		return -EIO;
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, and of full length */
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509));
	BN_free(number);
	return ok ? 0 : -EIO;
}

static int set_times(X509 *x509, int64_t not_before, int64_t not_after)
{
	return ASN1_TIME_set(X509_getm_notBefore(x509), (time_t)not_before) &&
			       ASN1_TIME_set(X509_getm_notAfter(x509), (time_t)not_after)
		       ? 0
		       : -EIO;
}

static int set_subject(X509 *x509, const char *common_name)
{
	X509_NAME *name = X509_NAME_new();
	bool ok = name &&
		  X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
					     (const unsigned char *)common_name, -1, -1, 0) == 1 &&
		  X509_set_subject_name(x509, name) == 1;

	X509_NAME_free(name);
	return ok ? 0 : -EIO;
}

/* One extension from its text form, as in openssl.cnf; @value is ours, never a user's */
static int add_extension(X509 *x509, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
	bool ok = extension && X509_add_ext(x509, extension, -1) == 1;

	X509_EXTENSION_free(extension);
	return ok ? 0 : -EIO;
}

static GENERAL_NAME *uri_name(const uint8_t network_id[SM_NETWORK_ID_LEN], const char *name)
{
	char text[sizeof("shadowmesh://") + (size_t)2 * SM_NETWORK_ID_LEN + 1 + SM_NAME_MAX + 1];
	char hex[2 * SM_NETWORK_ID_LEN + 1];
	ASN1_IA5STRING *uri = ASN1_IA5STRING_new();
	GENERAL_NAME *general = GENERAL_NAME_new();
	int len = snprintf(text, sizeof(text), "shadowmesh://%s%s%s",
			   sm_text_hex(network_id, SM_NETWORK_ID_LEN, hex), *name ? "/" : "", name);

	if (!uri || !general || ASN1_STRING_set(uri, text, len) != 1) {
		ASN1_IA5STRING_free(uri);
		GENERAL_NAME_free(general);
		return NULL;
	}
	GENERAL_NAME_set0_value(general, GEN_URI, uri);
	return general;
}

static GENERAL_NAME *ip_name(const struct sm_prefix *address)
{
	ASN1_OCTET_STRING *ip = ASN1_OCTET_STRING_new();
	GENERAL_NAME *general = GENERAL_NAME_new();

	if (!ip || !general ||
	    ASN1_OCTET_STRING_set(ip, address->ip, address->family == 4 ? 4 : 16) != 1) {
		ASN1_OCTET_STRING_free(ip);
		GENERAL_NAME_free(general);
		return NULL;
	}
	GENERAL_NAME_set0_value(general, GEN_IPADD, ip);
	return general;
}

static int push_name(GENERAL_NAMES *names, GENERAL_NAME *name)
{
	if (name && names && sk_GENERAL_NAME_push(names, name) > 0)
		return 0;
	GENERAL_NAME_free(name);
	return -EIO;
}

static int add_san(X509 *x509, const uint8_t network_id[SM_NETWORK_ID_LEN], const char *name,
		   const struct sm_prefix *addresses, size_t count)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	int err = push_name(names, uri_name(network_id, name));

	for (size_t i = 0; !err && i < count; i++)
		err = push_name(names, ip_name(&addresses[i]));
	if (!err && X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 0, 0) != 1)
		err = -EIO;
	GENERAL_NAMES_free(names);
	return err;
}

/* Key identifiers: the first 160 bits of the fingerprint (RFC 7093, section 2, method 4 with SHA-256) */
static int add_key_ids(X509 *x509, EVP_PKEY *subject, EVP_PKEY *issuer)
{
	uint8_t fp[SM_FINGERPRINT_LEN];
	ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
	AUTHORITY_KEYID *authority = AUTHORITY_KEYID_new();
	bool ok = id && authority && sm_key_spki_digest(subject, "SHA256", fp) == 0 &&
		  ASN1_OCTET_STRING_set(id, fp, KEY_ID_LEN) == 1 &&
		  X509_add1_ext_i2d(x509, NID_subject_key_identifier, id, 0, 0) == 1 &&
		  sm_key_spki_digest(issuer, "SHA256", fp) == 0 &&
		  ASN1_OCTET_STRING_set(id, fp, KEY_ID_LEN) == 1;

	if (ok) {
		authority->keyid = id;
		ok = X509_add1_ext_i2d(x509, NID_authority_key_identifier, authority, 0, 0) == 1;
		authority->keyid = NULL;
	}
	ASN1_OCTET_STRING_free(id);
	AUTHORITY_KEYID_free(authority);
	return ok ? 0 : -EIO;
}

static int add_attributes(X509 *x509, const struct sm_identity *id)
{
	char text[SM_ATTRIBUTES_MAX];
	ASN1_UTF8STRING *utf8 = NULL;
	ASN1_OCTET_STRING *octets = NULL;
	ASN1_OBJECT *oid = NULL;
	X509_EXTENSION *extension = NULL;
	unsigned char *der = NULL;
	int der_len, err = -EIO;
	int len = sm_attributes_encode(id, text, sizeof(text));

	if (len <= 0)
		return len;
	utf8 = ASN1_UTF8STRING_new();
	octets = ASN1_OCTET_STRING_new();
	oid = OBJ_txt2obj(SM_CERT_ATTRIBUTES_OID, 1);
	if (!utf8 || !octets || !oid || ASN1_STRING_set(utf8, text, len) != 1)
		goto out;
	der_len = i2d_ASN1_UTF8STRING(utf8, &der);
	if (der_len < 0 || ASN1_OCTET_STRING_set(octets, der, der_len) != 1)
		goto out;
	extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, octets);
	if (extension && X509_add_ext(x509, extension, -1) == 1)
		err = 0;
out:
	X509_EXTENSION_free(extension);
	OPENSSL_free(der);
	ASN1_OBJECT_free(oid);
	ASN1_OCTET_STRING_free(octets);
	ASN1_UTF8STRING_free(utf8);
	return err;
}

/* What all three kinds have in common: version, serial, times, subject, key */
static X509 *begin(const char *common_name, const struct sm_key *key, int64_t not_before,
		   int64_t not_after)
{
	X509 *x509 = X509_new();

	if (x509 && X509_set_version(x509, X509_VERSION_3) == 1 && set_serial(x509) == 0 &&
	    set_times(x509, not_before, not_after) == 0 && set_subject(x509, common_name) == 0 &&
	    X509_set_pubkey(x509, key->pkey) == 1)
		return x509;
	X509_free(x509);
	return NULL;
}

/* Sign, and hand over as a certificate; @x509 may be NULL and is used up; @err: what went before */
static int finish(X509 *x509, const struct sm_key *signer, int err, struct sm_cert **ret_cert,
		  char *error)
{
	if (!err && (!x509 || X509_sign(x509, signer->pkey, NULL) <= 0))
		err = -EIO;
	if (!err)
		err = sm_cert_wrap(x509, ret_cert);
	if (err)
		sm_explain(error, "cannot make the certificate: %s", sm_crypto_error());
	X509_free(x509);
	return err;
}

static int check_dates(int64_t not_before, int64_t not_after, char *error)
{
	if (not_before >= 0 && not_before < not_after && not_after <= YEAR_9999_END)
		return 0;
	sm_explain(error,
		   "a certificate's end must lie behind its begin and before the year 10000");
	return -EINVAL;
}

int sm_cert_new_ca(const struct sm_key *key, const char *network_name,
		   const uint8_t network_id[SM_NETWORK_ID_LEN], int64_t now_s, int64_t valid_s,
		   struct sm_cert **ret_cert, char *error)
{
	int64_t not_before = now_s - SM_CERT_BACKDATE_S;
	int64_t not_after;
	X509 *x509;
	int err;

	if (!sm_text_is_name(network_name)) {
		sm_explain(error,
			   "'%.80s' is no network name: 1 to %d characters of a-z, 0-9 and '-'",
			   network_name, SM_NAME_MAX);
		return -EINVAL;
	}
	if (__builtin_add_overflow(now_s, valid_s, &not_after))
		not_after = INT64_MAX;
	err = check_dates(not_before, not_after, error);
	if (err)
		return err;
	x509 = begin(network_name, key, not_before, not_after);
	if (!x509 || X509_set_issuer_name(x509, X509_get_subject_name(x509)) != 1 ||
	    add_extension(x509, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") != 0 ||
	    add_extension(x509, NID_key_usage, "critical,keyCertSign,cRLSign") != 0 ||
	    add_key_ids(x509, key->pkey, key->pkey) != 0 ||
	    add_san(x509, network_id, "", NULL, 0) != 0)
		err = -EIO;
	return finish(x509, key, err, ret_cert, error);
}

static int check_identity(const struct sm_identity *id, char *error)
{
	if (!sm_text_is_name(id->name)) {
		sm_explain(error, "'%.80s' is no node name: 1 to %d characters of a-z, 0-9 and '-'",
			   id->name, SM_NAME_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < id->address_count; i++) {
		struct sm_addr addr = {.family = id->addresses[i].family};
		char text[SM_ADDR_STRLEN];

		memcpy(addr.ip, id->addresses[i].ip, addr.family == 4 ? 4 : 16);
		if (sm_addr_is_global_unicast(&addr))
			continue;
		sm_explain(error, "%s cannot be a node's address",
			   sm_prefix_format(&id->addresses[i], text));
		return -EINVAL;
	}
	return 0;
}

static int add_node_extensions(X509 *x509, const struct sm_identity *id, EVP_PKEY *node,
			       EVP_PKEY *issuer)
{
	int err = add_extension(x509, NID_basic_constraints, "critical,CA:FALSE");

	if (!err)
		err = add_extension(x509, NID_key_usage, "critical,digitalSignature");
	if (!err)
		err = add_extension(x509, NID_ext_key_usage, "serverAuth,clientAuth");
	if (!err)
		err = add_key_ids(x509, node, issuer);
	if (!err)
		err = add_san(x509, id->network_id, id->name, id->addresses, id->address_count);
	if (!err)
		err = add_attributes(x509, id);
	return err;
}

int sm_cert_issue(const struct sm_cert *ca, const struct sm_key *ca_key,
		  const struct sm_identity *id, const struct sm_key *node_key, int64_t not_before,
		  int64_t not_after, struct sm_cert **ret_cert, char *error)
{
	uint8_t network_id[SM_NETWORK_ID_LEN];
	X509 *x509;
	int err;

	if (!sm_cert_is_ca(ca, network_id) || !sm_cert_matches_key(ca, ca_key) ||
	    !ca_key->private_half) {
		sm_explain(error, "the CA certificate is none, or the CA key is not its key");
		return -EINVAL;
	}
	if (memcmp(network_id, id->network_id, sizeof(network_id)) != 0) {
		sm_explain(error, "the CA is of another network");
		return -EINVAL;
	}
	err = check_identity(id, error);
	if (!err)
		err = check_dates(not_before, not_after, error);
	if (err)
		return err;
	x509 = begin(id->name, node_key, not_before, not_after);
	if (!x509 || X509_set_issuer_name(x509, X509_get_subject_name(ca->x509)) != 1)
		err = -EIO;
	if (!err)
		err = add_node_extensions(x509, id, node_key->pkey, ca_key->pkey);
	return finish(x509, ca_key, err, ret_cert, error);
}

int sm_cert_self_signed(const struct sm_key *key, const struct sm_identity *id,
			struct sm_cert **ret_cert, char *error)
{
	X509 *x509;
	int err = check_identity(id, error);

	if (err)
		return err;
	x509 = begin(id->name, key, sm_clock_wall_s() - SM_CERT_BACKDATE_S, YEAR_9999_END);
	if (!x509 || X509_set_issuer_name(x509, X509_get_subject_name(x509)) != 1)
		err = -EIO;
	if (!err)
		err = add_node_extensions(x509, id, key->pkey, key->pkey);
	return finish(x509, key, err, ret_cert, error);
}

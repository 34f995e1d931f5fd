// SPDX-License-Identifier: MIT
/*
 * Who is trusted and who is refused, each with sentence and close reason; revocation lists.
 *
 * Certificates that our own code would not issue are put together here with the library.
 */
#include "crypto/trust.h"
#include "crypto_fixture.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define NOW     INT64_C(1800000000)
#define DAY     INT64_C(86400)
#define NETWORK "11223300000000000000000000000000"

static const uint8_t network[SM_NETWORK_ID_LEN] = {0x11, 0x22, 0x33};
static struct sm_key *ca_key, *node_key;
static struct sm_cert *ca;
static EVP_PKEY *ca_pkey, *node_pkey, *ec_pkey, *mldsa65_pkey;
static char error[SM_CERT_ERROR_MAX];

/* The library's view of one of our keys, through its file */
static EVP_PKEY *pkey_of(const struct sm_key *key)
{
	const char *path = fixture_path("tmp.key");
	EVP_PKEY *pkey;
	FILE *f;

	if (sm_key_save(key, path, NULL, error) != 0)
		return NULL;
	f = fopen(path, "r");
	pkey = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	unlink(path);
	return pkey;
}

static int setup(void **state)
{
	if (fixture_setup(state) != 0 || sm_key_generate(&ca_key) != 0 ||
	    sm_key_generate(&node_key) != 0 ||
	    sm_cert_new_ca(ca_key, "home", network, NOW, 3650 * DAY, &ca, error) != 0)
		return -1;
	ca_pkey = pkey_of(ca_key);
	node_pkey = pkey_of(node_key);
	ec_pkey = EVP_EC_gen("P-384");
	mldsa65_pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65");
	return ca_pkey && node_pkey && ec_pkey && mldsa65_pkey ? 0 : -1;
}

static int teardown(void **state)
{
	EVP_PKEY_free(ca_pkey);
	EVP_PKEY_free(node_pkey);
	EVP_PKEY_free(ec_pkey);
	EVP_PKEY_free(mldsa65_pkey);
	sm_cert_free(ca);
	sm_key_free(ca_key);
	sm_key_free(node_key);
	return fixture_teardown(state);
}

/* A certificate by its parts; texts as in openssl.cnf, NULL leaves an extension out */
struct forged {
	const char *issuer, *constraints, *usage, *extended, *san, *other;
	EVP_PKEY *key, *signer;
	const EVP_MD *md;
	int64_t not_before, not_after;
};

static const struct forged good = {
	.issuer = "home",
	.constraints = "critical,CA:FALSE",
	.usage = "critical,digitalSignature",
	.extended = "serverAuth,clientAuth",
	.san = "URI:shadowmesh://" NETWORK "/alice,IP:10.7.0.2",
	.not_before = NOW - DAY,
	.not_after = NOW + DAY,
};

static void add(X509 *x509, int nid, const char *value)
{
	X509_EXTENSION *extension;

	if (!value)
		return;
	extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(x509, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static X509_NAME *name_of(const char *cn)
{
	X509_NAME *name = X509_NAME_new();

	assert_int_equal(X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
						    (const unsigned char *)cn, -1, -1, 0),
			 1);
	return name;
}

static struct sm_cert *forge(const struct forged *f)
{
	EVP_PKEY *key = f->key ? f->key : node_pkey, *signer = f->signer ? f->signer : ca_pkey;
	X509_NAME *issuer = name_of(f->issuer), *subject = name_of("al\x01ice");
	X509 *x509 = X509_new();
	BIO *bio = BIO_new(BIO_s_mem());
	struct sm_cert *cert;
	char *pem;
	long len;

	X509_set_version(x509, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x509), 4711);
	ASN1_TIME_set(X509_getm_notBefore(x509), f->not_before);
	ASN1_TIME_set(X509_getm_notAfter(x509), f->not_after);
	X509_set_issuer_name(x509, issuer);
	X509_set_subject_name(x509, subject);
	X509_set_pubkey(x509, key);
	add(x509, NID_basic_constraints, f->constraints);
	add(x509, NID_key_usage, f->usage);
	add(x509, NID_ext_key_usage, f->extended);
	add(x509, NID_subject_alt_name, f->san);
	if (f->other) { /* an unknown critical extension */
		ASN1_OBJECT *oid = OBJ_txt2obj(f->other, 1);
		ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
		X509_EXTENSION *extension;

		ASN1_OCTET_STRING_set(octets, (const unsigned char *)"\x05\x00", 2);
		extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 1, octets);
		X509_add_ext(x509, extension, -1);
		X509_EXTENSION_free(extension);
		ASN1_OCTET_STRING_free(octets);
		ASN1_OBJECT_free(oid);
	}
	assert_true(X509_sign(x509, signer, f->md) > 0);
	assert_int_equal(PEM_write_bio_X509(bio, x509), 1);
	len = BIO_get_mem_data(bio, &pem);
	assert_int_equal(sm_cert_from_pem(pem, (size_t)len, &cert, error), 0);
	BIO_free(bio);
	X509_NAME_free(issuer);
	X509_NAME_free(subject);
	X509_free(x509);
	return cert;
}

static struct sm_trust *trust_with_ca(void)
{
	struct sm_trust *trust;

	assert_int_equal(sm_trust_new(network, &trust), 0);
	assert_int_equal(sm_trust_add_ca(trust, ca, error), 0);
	return trust;
}

/* Judge, free the certificate, compare */
static void expect(struct sm_trust *trust, struct sm_cert *cert, int64_t now, int result,
		   enum sm_close_reason reason, const char *sentence)
{
	struct sm_identity id = {.name = "untouched"};
	enum sm_close_reason got = SM_CLOSE_REASON_COUNT;

	error[0] = '\0';
	assert_int_equal(sm_trust_check(trust, cert, now, &id, &got, error), result);
	assert_int_equal(got, reason);
	if (result) {
		assert_non_null(strstr(error, sentence));
		for (const char *c = error; *c; c++)
			assert_true(*c >= 0x20 && *c < 0x7f);
		assert_string_equal(id.name, "untouched");
	} else {
		assert_string_equal(id.name, sentence);
	}
	sm_cert_free(cert);
}

static void test_accepted(void **state)
{
	struct sm_trust *trust = trust_with_ca();
	struct forged f = good;

	(void)state;
	expect(trust, forge(&f), NOW, 0, SM_CLOSE_NONE, "alice");
	expect(trust, forge(&f), NOW - DAY, 0, SM_CLOSE_NONE, "alice");
	expect(trust, forge(&f), NOW + DAY, 0, SM_CLOSE_NONE, "alice");
	/* What another X.509 tool may leave out */
	f.extended = f.usage = f.constraints = NULL;
	expect(trust, forge(&f), NOW, 0, SM_CLOSE_NONE, "alice");
	f.san = "DNS:alice.example,URI:https://example.org/,URI:ShadowMesh://" NETWORK "/alice";
	expect(trust, forge(&f), NOW, 0, SM_CLOSE_NONE, "alice");
	sm_trust_unref(trust);
	sm_trust_unref(NULL);
}

static void test_refused(void **state)
{
	struct sm_trust *trust = trust_with_ca();
	struct forged f;

	(void)state;
#define REFUSED(result, reason, sentence) expect(trust, forge(&f), NOW, result, reason, sentence)

	/* signatures and keys */
	f = good, f.key = ec_pkey;
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "has a key that is not ML-DSA-87");
	f = good, f.key = mldsa65_pkey;
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "has a key that is not ML-DSA-87");
	f = good, f.signer = ec_pkey, f.md = EVP_sha384();
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "a classical CA");
	f = good, f.signer = mldsa65_pkey;
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "is signed with ML-DSA-65");
	f = good, f.signer = node_pkey; /* a foreign CA that calls itself the same */
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "is not signed by a CA of this network");
	f = good, f.issuer = "elsewhere";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "is not signed by a CA of this network");

	/* network and name */
	f = good, f.san = NULL;
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "no SAN URI");
	f = good, f.san = "DNS:alice";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "no SAN URI");
	f = good, f.san = "URI:shadowmesh://99223300000000000000000000000000/alice";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NETWORK, "is of network 99223300");
	f = good, f.san = "URI:shadowmesh://" NETWORK;
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "names a network and no node");
	f = good, f.san = "URI:shadowmesh://" NETWORK "/alice,URI:shadowmesh://" NETWORK "/bob";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "more than one SAN URI");
	static const char *const bad_uris[] = {
		"URI:shadowmesh://" NETWORK "/Alice",
		"URI:shadowmesh://" NETWORK "/",
		"URI:shadowmesh://" NETWORK "alice",
		"URI:shadowmesh://" NETWORK "/alice/x",
		"URI:shadowmesh://112233/alice",
		"URI:shadowmesh://",
		"URI:shadowmesh://zz223300000000000000000000000000/alice",
		"URI:shadowmesh://" NETWORK "/a-name-that-is-longer-than-sixty-three-characters-is-"
		"no-name-at-all",
	};
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad_uris); i++) {
		f = good, f.san = bad_uris[i];
		REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "is not shadowmesh://NETWORK/NODE");
	}
	f = good, f.san = "URI:shadowmesh://" NETWORK "/alice,IP:127.0.0.1";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "cannot be a node's");

	/* profile */
	f = good, f.constraints = "critical,CA:TRUE", f.usage = "keyCertSign,digitalSignature";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "CA's certificate, not a node's");
	f = good, f.usage = "critical,keyAgreement";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "lacks digitalSignature");
	f = good, f.extended = "serverAuth";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "lacks serverAuth or clientAuth");
	f = good, f.extended = "clientAuth,codeSigning";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "lacks serverAuth or clientAuth");
	f = good, f.other = "1.2.3.4";
	REFUSED(-EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "critical extension");
	sm_trust_unref(trust);
}

static void test_times(void **state)
{
	struct sm_trust *trust = trust_with_ca();
	struct forged f = good;

	(void)state;
	expect(trust, forge(&f), NOW + DAY + 1, -EKEYEXPIRED, SM_CLOSE_EXPIRED,
	       "the certificate of 'alice' expired on 2027-01-16");
	expect(trust, forge(&f), NOW - DAY - 1, -EKEYEXPIRED, SM_CLOSE_EXPIRED,
	       "is not valid before");
	f.not_after = NOW + 10000 * DAY;
	expect(trust, forge(&f), NOW + 5000 * DAY, -EKEYEXPIRED, SM_CLOSE_EXPIRED,
	       "the CA's certificate expired");
	f.not_before = NOW - 100 * DAY;
	expect(trust, forge(&f), NOW - 50 * DAY, -EKEYEXPIRED, SM_CLOSE_EXPIRED,
	       "the CA's certificate is not valid before");
	sm_trust_unref(trust);
}

static void test_add_ca(void **state)
{
	struct forged f = good;
	struct sm_trust *trust;
	struct sm_cert *cert;

	(void)state;
	assert_int_equal(sm_trust_new(network, &trust), 0);
	f.constraints = "critical,CA:TRUE";
	f.usage = "critical,keyCertSign,cRLSign";
	f.extended = NULL;
	f.san = "URI:shadowmesh://" NETWORK;
	f.issuer = "elsewhere";
	f.key = ec_pkey, f.signer = ec_pkey, f.md = EVP_sha384();
	cert = forge(&f);
	assert_false(sm_cert_is_ca(cert, NULL));
	assert_int_equal(sm_trust_add_ca(trust, cert, error), -ENOTSUP);
	assert_non_null(strstr(error, "not ML-DSA-87"));
	sm_cert_free(cert);
	f.key = ca_pkey;
	cert = forge(&f); /* the key is right, the signature classical */
	assert_false(sm_cert_is_ca(cert, NULL));
	assert_int_equal(sm_trust_add_ca(trust, cert, error), -ENOTSUP);
	sm_cert_free(cert);
	f.signer = ca_pkey, f.md = NULL;
	cert = forge(&f);
	assert_true(sm_cert_is_ca(cert, NULL));
	assert_int_equal(sm_trust_add_ca(trust, cert, error), 0);
	assert_int_equal(sm_trust_add_ca(trust, cert, error), 0); /* once more is no harm */
	sm_cert_free(cert);

	static const struct {
		const char *constraints, *usage, *san, *other;
	} bad[] = {
		{"CA:FALSE", "keyCertSign", "URI:shadowmesh://" NETWORK, NULL},
		{NULL, "keyCertSign", "URI:shadowmesh://" NETWORK, NULL},
		{"CA:TRUE", "cRLSign", "URI:shadowmesh://" NETWORK, NULL},
		{"CA:TRUE", "keyCertSign", "URI:shadowmesh://" NETWORK "/alice", NULL},
		{"CA:TRUE", "keyCertSign", NULL, NULL},
		{"CA:TRUE", "keyCertSign", "URI:shadowmesh://00223300000000000000000000000000",
		 NULL},
		{"CA:TRUE", "keyCertSign", "URI:shadowmesh://" NETWORK, "1.2.3.4"},
	};
	for (size_t i = 0; i < SM_ARRAY_SIZE(bad); i++) {
		f.constraints = bad[i].constraints;
		f.usage = bad[i].usage;
		f.san = bad[i].san;
		f.other = bad[i].other;
		cert = forge(&f);
		assert_int_equal(sm_trust_add_ca(trust, cert, error), -EINVAL);
		sm_cert_free(cert);
	}
	sm_trust_unref(trust);
}

static struct sm_crl *make_crl(uint64_t number, const struct sm_crl_entry *entries, size_t n)
{
	struct sm_crl *crl;

	assert_int_equal(sm_crl_issue(ca, ca_key, number, entries, n, NOW, NOW + DAY, &crl, error),
			 0);
	return crl;
}

static struct sm_crl_entry entry_of(const char *serial_hex, const uint8_t *fp)
{
	struct sm_crl_entry entry = {.revoked_s = NOW - 5, .reason = 1};

	entry.serial_len = (uint8_t)unhex(serial_hex, entry.serial, sizeof(entry.serial));
	if (fp)
		memcpy(entry.fingerprint, fp, SM_FINGERPRINT_LEN);
	return entry;
}

static void test_crl_file(void **state)
{
	static char pem[65536];
	const char *path = fixture_path("crl.pem");
	uint8_t fp[SM_FINGERPRINT_LEN], other[SM_FINGERPRINT_LEN] = {1};
	struct sm_crl_entry entries[3], got;
	struct sm_crl *crl, *loaded;
	size_t len;

	(void)state;
	assert_int_equal(sm_key_fingerprint(node_key, fp), 0);
	entries[0] = entry_of("7f00112233445566778899aabbccddeeff001122", fp);
	entries[1] = entry_of("01", NULL);
	entries[2] = entry_of("1267", other);
	crl = make_crl(UINT64_MAX, entries, 3);
	assert_int_equal(sm_crl_save(crl, path, error), 0);
	assert_int_equal(sm_crl_save(crl, path, error), 0); /* replaces */
	assert_int_equal(sm_crl_save(crl, "/dev/full", error), -ENOSPC);
	sm_crl_free(crl);
	assert_int_equal(sm_crl_load(path, &loaded, error), 0);
	assert_true(sm_crl_number(loaded) == UINT64_MAX);
	assert_int_equal(sm_crl_next_update(loaded), NOW + DAY);
	assert_int_equal(sm_crl_count(loaded), 3);
	assert_int_equal(sm_crl_entry(loaded, 2, &got), 0);
	assert_memory_equal(&got, &entries[0], sizeof(got));
	assert_int_equal(sm_crl_entry(loaded, 0, &got), 0);
	assert_memory_equal(&got, &entries[1], sizeof(got));
	assert_int_equal(sm_crl_entry(loaded, 3, &got), -ENOENT);

	assert_true(sm_crl_revokes(loaded, entries[0].serial, 20, other));
	assert_true(sm_crl_revokes(loaded, (const uint8_t *)"\x99", 1, fp));
	assert_true(sm_crl_revokes(loaded, NULL, 0, fp));
	assert_true(sm_crl_revokes(loaded, (const uint8_t *)"\x01", 1, (const uint8_t[32]){7}));
	assert_false(sm_crl_revokes(loaded, (const uint8_t *)"\x12", 1, (const uint8_t[32]){7}));
	assert_false(sm_crl_revokes(loaded, (const uint8_t *)"\x12", 1, (const uint8_t[32]){0}));
	sm_crl_free(loaded);

	len = fixture_read(path, pem, sizeof(pem));
	for (size_t n = 0; n + 2 < len; n += 61)
		assert_int_equal(sm_crl_from_pem(pem, n, &loaded, error), -EBADMSG);
	assert_int_equal(sm_crl_load(fixture_path("none"), &loaded, error), -ENOENT);
	sm_crl_free(NULL);
	assert_int_equal(sm_crl_issue(ca, node_key, 1, NULL, 0, NOW, NOW + 1, &crl, error),
			 -EINVAL);
	fixture_files(true);
}

static void test_revoked(void **state)
{
	uint8_t fp[SM_FINGERPRINT_LEN], other[SM_FINGERPRINT_LEN] = {1};
	struct sm_crl_entry by_serial = entry_of("1267", NULL); /* 4711 */
	struct sm_crl_entry by_key = entry_of("55", NULL), stranger = entry_of("66", other);
	struct sm_trust *trust = trust_with_ca();
	enum sm_close_reason reason;
	struct sm_identity id;
	struct sm_crl *crl;
	struct sm_cert *cert;

	(void)state;
	assert_int_equal(sm_key_fingerprint(node_key, fp), 0);
	memcpy(by_key.fingerprint, fp, sizeof(fp));

	crl = make_crl(1, &stranger, 1);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0);
	sm_crl_free(crl);
	expect(trust, forge(&good), NOW, 0, SM_CLOSE_NONE, "alice");
	cert = forge(&good);
	assert_int_equal(sm_trust_check(trust, cert, NOW, &id, &reason, error), 0);
	sm_cert_free(cert);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), 0);

	crl = make_crl(2, &by_serial, 1);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0); /* the very same again */
	sm_crl_free(crl);
	expect(trust, forge(&good), NOW, -EKEYREVOKED, SM_CLOSE_REVOKED,
	       "is revoked (list number 2)");
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), -EKEYREVOKED);
	assert_int_equal(reason, SM_CLOSE_REVOKED);

	crl = make_crl(1, NULL, 0);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), -ESTALE);
	sm_crl_free(crl);
	crl = make_crl(2, NULL, 0);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), -ESTALE);
	sm_crl_free(crl);

	crl = make_crl(3, &by_key, 1);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0);
	sm_crl_free(crl);
	expect(trust, forge(&good), NOW, -EKEYREVOKED, SM_CLOSE_REVOKED,
	       "is revoked (list number 3)");
	assert_false(sm_trust_crl_stale(trust, NOW + DAY));
	assert_true(sm_trust_crl_stale(trust, NOW + DAY + 1));
	/* A pin does not bring a revoked key back. */
	assert_int_equal(sm_trust_add_pin(trust, "alice", fp), 0);
	expect(trust, forge(&good), NOW, -EKEYREVOKED, SM_CLOSE_REVOKED, "is revoked");
	sm_trust_unref(trust);
}

/* Two CAs in one store: a serial counts against its own issuer, a key against all. */
static void test_two_cas(void **state)
{
	struct sm_crl_entry by_serial = entry_of("1267", NULL), by_key = entry_of("55", NULL);
	struct sm_trust *trust = trust_with_ca();
	struct sm_identity id;
	enum sm_close_reason reason;
	struct sm_key *second_key;
	struct sm_cert *second, *cert;
	struct forged f = good;
	struct sm_crl *crl;

	(void)state;
	assert_int_equal(sm_key_generate(&second_key), 0);
	assert_int_equal(
		sm_cert_new_ca(second_key, "home", network, NOW, 365 * DAY, &second, error), 0);
	f.signer = pkey_of(second_key);
	assert_int_equal(
		sm_crl_issue(second, second_key, 9, &by_serial, 1, NOW, NOW + DAY, &crl, error), 0);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), -EKEYREJECTED);
	expect(trust, forge(&f), NOW, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "not signed by a CA");
	assert_int_equal(sm_trust_add_ca(trust, second, error), 0);
	expect(trust, forge(&f), NOW, 0, SM_CLOSE_NONE, "alice");
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0);
	sm_crl_free(crl);
	expect(trust, forge(&f), NOW, -EKEYREVOKED, SM_CLOSE_REVOKED, "is revoked");
	expect(trust, forge(&good), NOW, 0, SM_CLOSE_NONE, "alice"); /* same serial, other CA */

	cert = forge(&good);
	assert_int_equal(sm_trust_check(trust, cert, NOW, &id, &reason, error), 0);
	sm_cert_free(cert);
	assert_int_equal(sm_key_fingerprint(node_key, by_key.fingerprint), 0);
	assert_int_equal(
		sm_crl_issue(second, second_key, 10, &by_key, 1, NOW, NOW + DAY, &crl, error), 0);
	assert_int_equal(sm_trust_add_crl(trust, crl, error), 0);
	sm_crl_free(crl);
	expect(trust, forge(&good), NOW, -EKEYREVOKED, SM_CLOSE_REVOKED,
	       "is revoked (list number 10)");
	sm_trust_unref(trust);

	/* A reload that drops the first CA ends its sessions. */
	assert_int_equal(sm_trust_new(network, &trust), 0);
	assert_int_equal(sm_trust_add_ca(trust, second, error), 0);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), -EKEYREJECTED);
	assert_int_equal(reason, SM_CLOSE_NOT_TRUSTED);
	assert_non_null(strstr(error, "not trusted any more"));
	sm_trust_unref(trust);
	EVP_PKEY_free(f.signer);
	sm_key_free(second_key);
	sm_cert_free(second);
}

static void test_identity_again(void **state)
{
	struct sm_trust *trust = trust_with_ca();
	enum sm_close_reason reason;
	struct sm_identity id;
	struct sm_cert *cert = forge(&good);

	(void)state;
	assert_int_equal(sm_trust_check(trust, cert, NOW, &id, &reason, error), 0);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW + DAY, &reason, error), 0);
	assert_int_equal(reason, SM_CLOSE_NONE);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW + DAY + 1, &reason, error),
			 -EKEYEXPIRED);
	assert_int_equal(reason, SM_CLOSE_EXPIRED);
	id.network_id[5] ^= 1;
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), -EKEYREJECTED);
	assert_int_equal(reason, SM_CLOSE_NETWORK);
	sm_cert_free(cert);
	sm_trust_unref(trust);
}

static void test_pins(void **state)
{
	struct sm_prefix given;
	uint8_t fp[SM_FINGERPRINT_LEN], other[SM_FINGERPRINT_LEN] = {1}, node_id[SM_NODE_ID_LEN];
	struct sm_identity own = {.name = "alice", .roles = SM_ROLE_RELAY}, id;
	struct sm_trust *trust;
	enum sm_close_reason reason;
	struct sm_cert *cert;
	struct forged f = good;

	(void)state;
	memcpy(own.network_id, network, sizeof(network));
	assert_int_equal(sm_prefix_parse("10.7.0.2/24", &own.addresses[0]), 0);
	assert_int_equal(sm_prefix_parse("0.0.0.0/0", &own.prefixes[0]), 0);
	own.address_count = own.prefix_count = 1;
	assert_int_equal(sm_cert_self_signed(node_key, &own, &cert, error), 0);
	assert_int_equal(sm_trust_new(network, &trust), 0);
	assert_int_equal(sm_trust_check(trust, cert, NOW, &id, &reason, error), -EKEYREJECTED);
	assert_non_null(strstr(error, "is not pinned here"));
	assert_int_equal(reason, SM_CLOSE_NOT_TRUSTED);

	assert_int_equal(sm_key_fingerprint(node_key, fp), 0);
	assert_int_equal(sm_trust_add_pin(trust, "Bad Name", fp), -EINVAL);
	assert_int_equal(sm_trust_add_pin(trust, "laptop", fp), 0);
	assert_int_equal(sm_trust_add_pin(trust, "laptop", other), -EEXIST);
	assert_int_equal(sm_trust_add_pin(trust, "desktop", fp), -EEXIST);
	for (unsigned i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "peer%u", i);
		other[1] = (uint8_t)i;
		assert_int_equal(sm_trust_add_pin(trust, name, other), 0);
	}
	/* The name is the pin's; dates do not matter; claims beyond addresses are not believed. */
	assert_int_equal(sm_trust_check(trust, cert, 0, &id, &reason, error), 0);
	assert_string_equal(id.name, "laptop");
	assert_int_equal(sm_ident_node_id(network, NULL, fp, node_id), 0);
	assert_memory_equal(id.node_id, node_id, sizeof(node_id));
	assert_int_equal(id.address_count, 1);
	assert_int_equal(id.addresses[0].len, 24);
	assert_int_equal(id.prefix_count + id.group_count + id.roles, 0);
	assert_true(id.not_after > NOW + 1000 * DAY);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), 0);

	/* What the pin says of addresses counts, not what the certificate claims. */
	assert_int_equal(sm_prefix_parse("10.7.0.77/16", &given), 0);
	assert_int_equal(sm_trust_limit_pin(trust, "nobody", &given, 1), -ENOENT);
	assert_int_equal(sm_trust_limit_pin(trust, "laptop", &given, SM_IDENT_ADDRESS_MAX + 1),
			 -EINVAL);
	assert_int_equal(sm_trust_limit_pin(trust, "laptop", &given, 1), 0);
	assert_int_equal(sm_trust_check(trust, cert, 0, &id, &reason, error), 0);
	assert_int_equal(id.address_count, 1);
	assert_memory_equal(&id.addresses[0], &given, sizeof(given));
	sm_cert_free(cert);

	/* Whoever signed it */
	f.signer = ec_pkey, f.md = EVP_sha384();
	f.not_after = NOW - DAY / 2;
	expect(trust, forge(&f), NOW, 0, SM_CLOSE_NONE, "laptop");
	f.san = "URI:shadowmesh://00223300000000000000000000000000/alice";
	expect(trust, forge(&f), NOW, -EKEYREJECTED, SM_CLOSE_NETWORK, "is of network 00223300");
	f.key = mldsa65_pkey;
	expect(trust, forge(&f), NOW, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED, "not ML-DSA-87");
	sm_trust_unref(trust);

	/* A reload without the pin, or with another name */
	assert_int_equal(sm_trust_new(network, &trust), 0);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), -EKEYREJECTED);
	assert_non_null(strstr(error, "not pinned here any more"));
	assert_int_equal(sm_trust_add_pin(trust, "desktop", fp), 0);
	assert_int_equal(sm_trust_check_identity(trust, &id, NOW, &reason, error), -EKEYREJECTED);
	sm_trust_unref(sm_trust_ref(trust));
	sm_trust_unref(trust);
}

/* A reload must not bring back a list that has been replaced. */
static void test_older_list(void **state)
{
	struct sm_trust *old = trust_with_ca(), *fresh = trust_with_ca(), *empty;
	struct sm_crl *two = make_crl(2, NULL, 0), *three = make_crl(3, NULL, 0);

	(void)state;
	assert_false(sm_trust_is_older(fresh, old, error));
	assert_int_equal(sm_trust_add_crl(old, three, error), 0);
	assert_true(sm_trust_is_older(fresh, old, error));
	assert_int_equal(sm_trust_add_crl(fresh, two, error), 0);
	assert_true(sm_trust_is_older(fresh, old, error));
	assert_string_equal(error, "the revocation list is number 2, in use is number 3: bring the "
				   "newer one");
	assert_false(sm_trust_is_older(old, fresh, NULL));
	assert_int_equal(sm_trust_add_crl(fresh, three, error), 0);
	assert_false(sm_trust_is_older(fresh, old, error));
	/* Another CA's lists say nothing. */
	assert_int_equal(sm_trust_new(network, &empty), 0);
	assert_false(sm_trust_is_older(empty, old, error));
	sm_crl_free(two);
	sm_crl_free(three);
	sm_trust_unref(old);
	sm_trust_unref(fresh);
	sm_trust_unref(empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_times),    cmocka_unit_test(test_add_ca),
		cmocka_unit_test(test_crl_file), cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_two_cas),  cmocka_unit_test(test_identity_again),
		cmocka_unit_test(test_pins),     cmocka_unit_test(test_older_list),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

// SPDX-License-Identifier: MIT
/*
 * Revocation lists: made, read, and asked whether they name a serial or a key.
 */
#include "crypto/cert.h"
#include "crypto/file.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#define CRL_FILE_MAX ((size_t)16 * 1024 * 1024)

void sm_crl_free(struct sm_crl *crl)
{
	if (!crl)
		return;
	X509_CRL_free(crl->x509);
	free(crl->entries);
	free(crl->by_key);
	free(crl);
}

static int compare_serials(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	int order = memcmp(a, b, SM_MIN(a_len, b_len));

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_serial(const void *a, const void *b)
{
	const struct sm_crl_entry *x = a, *y = b;

	return compare_serials(x->serial, x->serial_len, y->serial, y->serial_len);
}

static int by_fingerprint(const void *a, const void *b)
{
	const struct sm_crl_entry *const *x = a, *const *y = b;

	return memcmp((*x)->fingerprint, (*y)->fingerprint, SM_FINGERPRINT_LEN);
}

/* The key's fingerprint in the private extension; an entry of another program has none */
static int read_fingerprint(const X509_REVOKED *revoked, const ASN1_OBJECT *oid,
			    uint8_t ret_fp[SM_FINGERPRINT_LEN])
{
	int at = X509_REVOKED_get_ext_by_OBJ(revoked, oid, -1);
	const ASN1_OCTET_STRING *octets;
	const unsigned char *start, *der;
	ASN1_OCTET_STRING *inner;
	int err = -EBADMSG;

	if (at < 0)
		return 0;
	octets = X509_EXTENSION_get_data(X509_REVOKED_get_ext(revoked, at));
	start = der = ASN1_STRING_get0_data(octets);
	inner = d2i_ASN1_OCTET_STRING(NULL, &der, ASN1_STRING_length(octets));
	if (inner && der == start + ASN1_STRING_length(octets) &&
	    ASN1_STRING_length(inner) == SM_FINGERPRINT_LEN) {
		memcpy(ret_fp, ASN1_STRING_get0_data(inner), SM_FINGERPRINT_LEN);
		err = 0;
	}
	ASN1_OCTET_STRING_free(inner);
	return err;
}

/* For people only: a list is obeyed whatever reason it gives */
static uint8_t read_reason(const X509_REVOKED *revoked)
{
	ASN1_ENUMERATED *code = X509_REVOKED_get_ext_d2i(revoked, NID_crl_reason, NULL, NULL);
	long reason = code ? ASN1_ENUMERATED_get(code) : 0;

	ASN1_ENUMERATED_free(code);
	return reason > 0 && reason <= UINT8_MAX ? (uint8_t)reason : 0;
}

static int read_entry(const X509_REVOKED *revoked, const ASN1_OBJECT *oid,
		      struct sm_crl_entry *ret_entry)
{
	const ASN1_INTEGER *serial = X509_REVOKED_get0_serialNumber(revoked);
	int len = ASN1_STRING_length(serial);

	if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || len < 1 ||
	    (size_t)len > sizeof(ret_entry->serial))
		return -EBADMSG;
	memcpy(ret_entry->serial, ASN1_STRING_get0_data(serial), (size_t)len);
	ret_entry->serial_len = (uint8_t)len;
	if (sm_crypto_seconds(X509_REVOKED_get0_revocationDate(revoked), &ret_entry->revoked_s) !=
	    0)
		return -EBADMSG;
	ret_entry->reason = read_reason(revoked);
	return read_fingerprint(revoked, oid, ret_entry->fingerprint);
}

static int read_entries(struct sm_crl *crl)
{
	STACK_OF(X509_REVOKED) *revoked = X509_CRL_get_REVOKED(crl->x509);
	int n = sk_X509_REVOKED_num(revoked); /* -1 for no list at all */
	ASN1_OBJECT *oid;
	int err = 0;

	if (n <= 0)
		return 0;
	oid = OBJ_txt2obj(SM_CRL_FINGERPRINT_OID, 1);
	crl->entries = calloc((size_t)n, sizeof(*crl->entries));
	crl->by_key = calloc((size_t)n, sizeof(const struct sm_crl_entry *));
	if (!oid || !crl->entries || !crl->by_key)
		err = -ENOMEM;
	for (int i = 0; !err && i < n; i++)
		err = read_entry(sk_X509_REVOKED_value(revoked, i), oid, &crl->entries[i]);
	ASN1_OBJECT_free(oid);
	if (err)
		return err;
	crl->count = (size_t)n;
	qsort(crl->entries, crl->count, sizeof(*crl->entries), by_serial);
	for (size_t i = 0; i < crl->count; i++)
		crl->by_key[i] = &crl->entries[i];
	qsort(crl->by_key, crl->count, sizeof(const struct sm_crl_entry *), by_fingerprint);
	return 0;
}

static int read_number(struct sm_crl *crl)
{
	int found;
	ASN1_INTEGER *number = X509_CRL_get_ext_d2i(crl->x509, NID_crl_number, &found, NULL);
	int err = 0;

	if (number)
		err = ASN1_INTEGER_get_uint64(&crl->number, number) == 1 ? 0 : -EBADMSG;
	else if (found != -1) /* there, and malformed or twice */
		err = -EBADMSG;
	ASN1_INTEGER_free(number);
	return err;
}

static int read_times(struct sm_crl *crl)
{
	const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl->x509);

	crl->next_update = INT64_MAX;
	if (sm_crypto_seconds(X509_CRL_get0_lastUpdate(crl->x509), &crl->this_update) != 0)
		return -EBADMSG;
	return next ? sm_crypto_seconds(next, &crl->next_update) : 0;
}

int sm_crl_wrap(X509_CRL *x509, struct sm_crl **ret_crl, char *error)
{
	struct sm_crl *crl = calloc(1, sizeof(*crl));
	int err;

	if (!crl) {
		X509_CRL_free(x509);
		return -ENOMEM;
	}
	crl->x509 = x509;
	/* Deltas and lists for a part of the certificates say so in a critical extension. */
	if (X509_CRL_get_ext_by_critical(x509, 1, -1) >= 0) {
		sm_explain(error, "a revocation list with a critical extension, such as a delta");
		err = -EBADMSG;
	} else {
		err = read_times(crl);
		if (!err)
			err = read_number(crl);
		if (!err)
			err = read_entries(crl);
		if (err)
			sm_explain(error, err == -ENOMEM ? "out of memory"
							 : "a malformed revocation list");
	}
	ERR_clear_error();
	if (err)
		sm_crl_free(crl);
	else
		*ret_crl = crl;
	return err;
}

int sm_crl_from_pem(const char *pem, size_t len, struct sm_crl **ret_crl, char *error)
{
	const unsigned char *der = (const unsigned char *)pem;
	X509_CRL *x509 = NULL;
	BIO *bio;

	if (len > CRL_FILE_MAX) {
		sm_explain(error, "longer than a revocation list may be");
		return -EBADMSG;
	}
	if (memmem(pem, len, "-----BEGIN", 10)) {
		bio = BIO_new_mem_buf(pem, (int)len);
		x509 = bio ? PEM_read_bio_X509_CRL(bio, NULL, sm_crypto_no_passphrase, NULL) : NULL;
		BIO_free(bio);
	} else {
		x509 = d2i_X509_CRL(NULL, &der, (long)len);
	}
	ERR_clear_error();
	if (!x509) {
		sm_explain(error, "holds no revocation list that can be read");
		return -EBADMSG;
	}
	return sm_crl_wrap(x509, ret_crl, error);
}

int sm_crl_load(const char *path, struct sm_crl **ret_crl, char *error)
{
	char sentence[SM_CERT_ERROR_MAX];
	char *data;
	size_t len;
	int err = sm_file_read(path, CRL_FILE_MAX, false, &data, &len, error);

	if (err)
		return err == -EFBIG ? -EBADMSG : err;
	err = sm_crl_from_pem(data, len, ret_crl, sentence);
	if (err)
		sm_explain(error, "%s: %s", path, sentence);
	sm_file_release(data, len);
	return err;
}

int sm_crl_save(const struct sm_crl *crl, const char *path, char *error)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem;
	int err = -EIO;

	if (bio && PEM_write_bio_X509_CRL(bio, crl->x509) == 1) {
		long len = BIO_get_mem_data(bio, &pem);

		err = sm_file_write(path, 0644, true, pem, (size_t)len, error);
	} else {
		sm_explain(error, "%s: cannot encode the list: %s", path, sm_crypto_error());
	}
	BIO_free(bio);
	return err;
}

/* The private entry extension */
static X509_EXTENSION *fingerprint_extension(const uint8_t fp[SM_FINGERPRINT_LEN])
{
	ASN1_OBJECT *oid = OBJ_txt2obj(SM_CRL_FINGERPRINT_OID, 1);
	ASN1_OCTET_STRING *inner = ASN1_OCTET_STRING_new(), *outer = ASN1_OCTET_STRING_new();
	X509_EXTENSION *extension = NULL;
	unsigned char *der = NULL;
	int len;

	if (oid && inner && outer && ASN1_OCTET_STRING_set(inner, fp, SM_FINGERPRINT_LEN) == 1) {
		len = i2d_ASN1_OCTET_STRING(inner, &der);
		if (len > 0 && ASN1_OCTET_STRING_set(outer, der, len) == 1)
			extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, outer);
	}
	OPENSSL_free(der);
	ASN1_OCTET_STRING_free(inner);
	ASN1_OCTET_STRING_free(outer);
	ASN1_OBJECT_free(oid);
	return extension;
}

static bool has_fingerprint(const uint8_t fp[SM_FINGERPRINT_LEN])
{
	static const uint8_t none[SM_FINGERPRINT_LEN];

	return memcmp(fp, none, sizeof(none)) != 0;
}

static bool add_reason(X509_REVOKED *revoked, uint8_t reason)
{
	ASN1_ENUMERATED *code = ASN1_ENUMERATED_new();
	bool ok = code && ASN1_ENUMERATED_set(code, reason) == 1 &&
		  X509_REVOKED_add1_ext_i2d(revoked, NID_crl_reason, code, 0, 0) == 1;

	ASN1_ENUMERATED_free(code);
	return ok;
}

static int add_entry(X509_CRL *x509, const struct sm_crl_entry *entry)
{
	BIGNUM *number = BN_bin2bn(entry->serial, entry->serial_len, NULL);
	ASN1_INTEGER *serial = number ? BN_to_ASN1_INTEGER(number, NULL) : NULL;
	ASN1_TIME *when = ASN1_TIME_set(NULL, (time_t)entry->revoked_s);
	X509_REVOKED *revoked = X509_REVOKED_new();
	X509_EXTENSION *extension = NULL;
	bool ok = serial && when && revoked &&
		  X509_REVOKED_set_serialNumber(revoked, serial) == 1 &&
		  X509_REVOKED_set_revocationDate(revoked, when) == 1;

	if (ok && has_fingerprint(entry->fingerprint)) {
		extension = fingerprint_extension(entry->fingerprint);
		ok = extension && X509_REVOKED_add_ext(revoked, extension, -1) == 1;
	}
	ok = ok && (!entry->reason || add_reason(revoked, entry->reason)) &&
	     X509_CRL_add0_revoked(x509, revoked) == 1;
	if (!ok)
		X509_REVOKED_free(revoked);
	X509_EXTENSION_free(extension);
	ASN1_TIME_free(when);
	ASN1_INTEGER_free(serial);
	BN_free(number);
	return ok ? 0 : -EIO;
}

static int set_head(X509_CRL *x509, const struct sm_cert *ca, uint64_t number, int64_t now_s,
		    int64_t next_s)
{
	ASN1_TIME *now = ASN1_TIME_set(NULL, (time_t)now_s);
	ASN1_TIME *next = ASN1_TIME_set(NULL, (time_t)next_s);
	ASN1_INTEGER *crl_number = ASN1_INTEGER_new();
	bool ok = now && next && crl_number && ASN1_INTEGER_set_uint64(crl_number, number) == 1 &&
		  X509_CRL_set_version(x509, X509_CRL_VERSION_2) == 1 &&
		  X509_CRL_set_issuer_name(x509, X509_get_subject_name(ca->x509)) == 1 &&
		  X509_CRL_set1_lastUpdate(x509, now) == 1 &&
		  X509_CRL_set1_nextUpdate(x509, next) == 1 &&
		  X509_CRL_add1_ext_i2d(x509, NID_crl_number, crl_number, 0, 0) == 1;

	ASN1_TIME_free(now);
	ASN1_TIME_free(next);
	ASN1_INTEGER_free(crl_number);
	return ok ? 0 : -EIO;
}

static int add_authority(X509_CRL *x509, const struct sm_cert *ca)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(ca->x509);
	AUTHORITY_KEYID *authority;
	bool ok;

	if (!id)
		return 0;
	authority = AUTHORITY_KEYID_new();
	if (!authority)
		return -EIO;
	authority->keyid = ASN1_OCTET_STRING_dup(id);
	ok = authority->keyid &&
	     X509_CRL_add1_ext_i2d(x509, NID_authority_key_identifier, authority, 0, 0) == 1;
	AUTHORITY_KEYID_free(authority);
	return ok ? 0 : -EIO;
}

/* NOLINTNEXTLINE(readability-function-size): what is signed, each once, and two results */
int sm_crl_issue(const struct sm_cert *ca, const struct sm_key *ca_key, uint64_t number,
		 const struct sm_crl_entry *entries, size_t count, int64_t now_s, int64_t next_s,
		 struct sm_crl **ret_crl, char *error)
{
	X509_CRL *x509;
	int err;

	if (!sm_cert_is_ca(ca, NULL) || !sm_cert_matches_key(ca, ca_key) || !ca_key->private_half) {
		sm_explain(error, "the CA certificate is none, or the CA key is not its key");
		return -EINVAL;
	}
	x509 = X509_CRL_new();
	err = x509 ? set_head(x509, ca, number, now_s, next_s) : -EIO;
	if (!err)
		err = add_authority(x509, ca);
	for (size_t i = 0; !err && i < count; i++)
		err = add_entry(x509, &entries[i]);
	if (!err && (X509_CRL_sort(x509) != 1 || X509_CRL_sign(x509, ca_key->pkey, NULL) <= 0))
		err = -EIO;
	if (err) {
		sm_explain(error, "cannot make the revocation list: %s", sm_crypto_error());
		X509_CRL_free(x509);
		return err;
	}
	return sm_crl_wrap(x509, ret_crl, error);
}

uint64_t sm_crl_number(const struct sm_crl *crl)
{
	return crl->number;
}

int64_t sm_crl_next_update(const struct sm_crl *crl)
{
	return crl->next_update;
}

size_t sm_crl_count(const struct sm_crl *crl)
{
	return crl->count;
}

int sm_crl_entry(const struct sm_crl *crl, size_t index, struct sm_crl_entry *ret_entry)
{
	if (index >= crl->count)
		return -ENOENT;
	*ret_entry = crl->entries[index];
	return 0;
}

bool sm_crl_revokes(const struct sm_crl *crl, const uint8_t *serial, size_t serial_len,
		    const uint8_t fingerprint[SM_FINGERPRINT_LEN])
{
	struct sm_crl_entry wanted = {0};
	const struct sm_crl_entry *key = &wanted;

	if (crl->count == 0 || serial_len > sizeof(wanted.serial))
		return false;
	if (serial_len)
		memcpy(wanted.serial, serial, serial_len);
	wanted.serial_len = (uint8_t)serial_len;
	if (serial_len && bsearch(&wanted, crl->entries, crl->count, sizeof(wanted), by_serial))
		return true;
	memcpy(wanted.fingerprint, fingerprint, SM_FINGERPRINT_LEN);
	return has_fingerprint(fingerprint) &&
	       bsearch(&key, crl->by_key, crl->count, sizeof(const struct sm_crl_entry *),
		       by_fingerprint);
}

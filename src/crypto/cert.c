// SPDX-License-Identifier: MIT
/*
 * Reading certificates: files, and what a certificate of our profile says.
 */
#include "crypto/cert.h"

#include "crypto/attributes.h"
#include "crypto/file.h"
#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <strings.h>

#define CERT_FILE_MAX ((size_t)256 * 1024)
#define URI_SCHEME    "shadowmesh://"

int sm_cert_wrap(X509 *x509, struct sm_cert **ret_cert)
{
	struct sm_cert *cert = calloc(1, sizeof(*cert));

	if (!cert)
		return -ENOMEM;
	if (X509_up_ref(x509) != 1) {
		free(cert);
		return -ENOMEM;
	}
	cert->x509 = x509;
	*ret_cert = cert;
	return 0;
}

void sm_cert_free(struct sm_cert *cert)
{
	if (!cert)
		return;
	X509_free(cert->x509);
	free(cert);
}

static X509 *parse_x509(const char *data, size_t len)
{
	const unsigned char *der = (const unsigned char *)data;
	BIO *bio;
	X509 *x509;

	if (!memmem(data, len, "-----BEGIN", 10))
		return d2i_X509(NULL, &der, (long)len);
	bio = BIO_new_mem_buf(data, (int)len);
	x509 = bio ? PEM_read_bio_X509(bio, NULL, sm_crypto_no_passphrase, NULL) : NULL;
	BIO_free(bio);
	return x509;
}

int sm_cert_from_pem(const char *pem, size_t len, struct sm_cert **ret_cert, char *error)
{
	X509 *x509;
	int err;

	if (len > CERT_FILE_MAX) {
		sm_explain(error, "longer than a certificate may be");
		return -EBADMSG;
	}
	x509 = parse_x509(pem, len);
	ERR_clear_error();
	if (!x509) {
		sm_explain(error, "holds no certificate that can be read");
		return -EBADMSG;
	}
	err = sm_cert_wrap(x509, ret_cert);
	X509_free(x509);
	if (err)
		sm_explain(error, "%s", strerror(-err));
	return err;
}

int sm_cert_load(const char *path, struct sm_cert **ret_cert, char *error)
{
	char sentence[SM_CERT_ERROR_MAX];
	char *data;
	size_t len;
	int err = sm_file_read(path, CERT_FILE_MAX, false, &data, &len, error);

	if (err)
		return err == -EFBIG ? -EBADMSG : err;
	err = sm_cert_from_pem(data, len, ret_cert, sentence);
	if (err)
		sm_explain(error, "%s: %s", path, sentence);
	sm_file_release(data, len);
	return err;
}

int sm_cert_save(const struct sm_cert *cert, const char *path, bool replace, char *error)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem;
	int err = -EIO;

	if (bio && PEM_write_bio_X509(bio, cert->x509) == 1) {
		long len = BIO_get_mem_data(bio, &pem);

		err = sm_file_write(path, 0644, replace, pem, (size_t)len, error);
	} else {
		sm_explain(error, "%s: cannot encode the certificate: %s", path, sm_crypto_error());
	}
	BIO_free(bio);
	return err;
}

const char *sm_cert_signature_name(const X509 *x509)
{
	int nid = X509_get_signature_nid(x509);
	const char *name = nid == NID_undef ? NULL : OBJ_nid2ln(nid);

	return name ? name : "an unknown algorithm";
}

/* The certificate's key if it is ML-DSA-87 */
static EVP_PKEY *ml_dsa_key(const X509 *x509)
{
	EVP_PKEY *pkey = X509_get0_pubkey(x509);

	ERR_clear_error();
	return pkey && EVP_PKEY_is_a(pkey, SM_KEY_ALGORITHM) ? pkey : NULL;
}

int sm_cert_fingerprint(const struct sm_cert *cert, uint8_t ret_fp[SM_FINGERPRINT_LEN])
{
	EVP_PKEY *pkey = ml_dsa_key(cert->x509);

	return pkey ? sm_key_spki_digest(pkey, "SHA256", ret_fp) : -ENOTSUP;
}

const char *sm_cert_common_name(const struct sm_cert *cert, char buf[SM_NAME_MAX + 1])
{
	const X509_NAME *name = X509_get_subject_name(cert->x509);
	int n = X509_NAME_get_text_by_NID(name, NID_commonName, buf, SM_NAME_MAX + 1);

	if (n < 0)
		n = 0;
	buf[SM_MIN((size_t)n, (size_t)SM_NAME_MAX)] = '\0';
	for (char *c = buf; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	return buf;
}

int sm_cert_times(const struct sm_cert *cert, int64_t *ret_not_before, int64_t *ret_not_after)
{
	int64_t before, after;

	if (sm_crypto_seconds(X509_get0_notBefore(cert->x509), &before) != 0 ||
	    sm_crypto_seconds(X509_get0_notAfter(cert->x509), &after) != 0) {
		ERR_clear_error();
		return -EBADMSG;
	}
	*ret_not_before = before;
	*ret_not_after = after;
	return 0;
}

/*
 * "shadowmesh://HEX" or "shadowmesh://HEX/NAME"; @ret_name is "" for the former.
 * Return: 0, -ENOENT not of our scheme, -EBADMSG
 */
static int parse_uri(const ASN1_IA5STRING *uri, uint8_t ret_network[SM_NETWORK_ID_LEN],
		     char ret_name[SM_NAME_MAX + 1])
{
	const char *text = (const char *)ASN1_STRING_get0_data(uri);
	size_t len = (size_t)ASN1_STRING_length(uri);
	const size_t scheme = strlen(URI_SCHEME), hex = (size_t)2 * SM_NETWORK_ID_LEN;
	char copy[sizeof(URI_SCHEME) + (size_t)2 * SM_NETWORK_ID_LEN + 1 + SM_NAME_MAX + 1];
	char *name;

	if (len < scheme || strncasecmp(text, URI_SCHEME, scheme) != 0)
		return -ENOENT;
	if (len >= sizeof(copy) || memchr(text, '\0', len))
		return -EBADMSG;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (len < scheme + hex)
		return -EBADMSG;
	name = copy + scheme + hex;
	if (*name == '/') {
		*name++ = '\0';
		if (!sm_text_is_name(name))
			return -EBADMSG;
	} else if (*name) {
		return -EBADMSG;
	}
	if (sm_text_parse_hex(copy + scheme, ret_network, SM_NETWORK_ID_LEN) != 0)
		return -EBADMSG;
	memcpy(ret_name, name, strlen(name) + 1);
	return 0;
}

static int add_address(struct sm_identity *id, const ASN1_OCTET_STRING *ip, char *error)
{
	size_t len = (size_t)ASN1_STRING_length(ip);
	struct sm_addr addr = {.family = len == 4 ? 4 : 6};

	if (len != 4 && len != 16) {
		sm_explain(error, "a SAN IP address has %zu bytes", len);
		return -EBADMSG;
	}
	memcpy(addr.ip, ASN1_STRING_get0_data(ip), len);
	if (!sm_addr_is_global_unicast(&addr)) {
		char text[SM_ADDR_STRLEN];

		sm_explain(error, "the SAN IP address %s cannot be a node's",
			   sm_addr_format_ip(&addr, text));
		return -EBADMSG;
	}
	if (id->address_count == SM_IDENT_ADDRESS_MAX) {
		sm_explain(error, "more than %u addresses", SM_IDENT_ADDRESS_MAX);
		return -EBADMSG;
	}
	struct sm_prefix *address = &id->addresses[id->address_count++];

	memcpy(address->ip, addr.ip, sizeof(address->ip));
	address->family = addr.family;
	address->len = len == 4 ? 32 : 128;
	return 0;
}

/* Network and name from the one URI of our scheme; @id may be NULL where addresses do not matter */
static int read_san(const X509 *x509, uint8_t ret_network[SM_NETWORK_ID_LEN],
		    char ret_name[SM_NAME_MAX + 1], struct sm_identity *id, char *error)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
	unsigned uris = 0;
	int err = 0;

	ERR_clear_error();
	for (int i = 0; !err && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_IPADD && id) {
			err = add_address(id, name->d.iPAddress, error);
		} else if (name->type == GEN_URI) {
			int found = parse_uri(name->d.uniformResourceIdentifier, ret_network,
					      ret_name);

			if (found == -ENOENT)
				continue;
			if (found == 0 && uris++ == 0)
				continue;
			sm_explain(error, found ? "its SAN URI is not shadowmesh://NETWORK/NODE"
						: "it has more than one SAN URI shadowmesh://");
			err = -EBADMSG;
		}
	}
	if (!err && uris == 0) {
		sm_explain(error, "it has no SAN URI shadowmesh://NETWORK/NODE");
		err = -EBADMSG;
	}
	GENERAL_NAMES_free(names);
	return err;
}

static int read_serial(const X509 *x509, struct sm_identity *id, char *error)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(x509);
	int len = ASN1_STRING_length(serial);

	if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || len < 1 ||
	    (size_t)len > sizeof(id->serial)) {
		sm_explain(error, "its serial number is negative or longer than 20 bytes");
		return -EBADMSG;
	}
	memcpy(id->serial, ASN1_STRING_get0_data(serial), (size_t)len);
	id->serial_len = (uint8_t)len;
	return 0;
}

static int read_attributes(const X509 *x509, struct sm_identity *id, char *error)
{
	ASN1_OBJECT *oid = OBJ_txt2obj(SM_CERT_ATTRIBUTES_OID, 1);
	int at = oid ? X509_get_ext_by_OBJ(x509, oid, -1) : -1;
	ASN1_UTF8STRING *text = NULL;
	int err = 0;

	if (at >= 0) {
		const ASN1_OCTET_STRING *octets = X509_EXTENSION_get_data(X509_get_ext(x509, at));
		const unsigned char *start = ASN1_STRING_get0_data(octets), *der = start;

		text = d2i_ASN1_UTF8STRING(NULL, &der, ASN1_STRING_length(octets));
		if (!text || der != start + ASN1_STRING_length(octets) ||
		    X509_get_ext_by_OBJ(x509, oid, at) >= 0) {
			sm_explain(error, "its attribute extension is not one UTF8String");
			err = -EBADMSG;
		} else {
			err = sm_attributes_decode((const char *)ASN1_STRING_get0_data(text),
						   (size_t)ASN1_STRING_length(text), id, error);
		}
	}
	ERR_clear_error();
	ASN1_UTF8STRING_free(text);
	ASN1_OBJECT_free(oid);
	return oid ? err : -EBADMSG;
}

int sm_cert_identity(const struct sm_cert *cert, struct sm_identity *ret_id, char *error)
{
	struct sm_identity id = {0};
	EVP_PKEY *pkey = ml_dsa_key(cert->x509);
	int err;

	if (!pkey) {
		sm_explain(error, "its key is not " SM_KEY_ALGORITHM);
		return -EBADMSG;
	}
	if (X509_get_extension_flags(cert->x509) & EXFLAG_INVALID) {
		ERR_clear_error();
		sm_explain(error, "its extensions are malformed");
		return -EBADMSG;
	}
	err = read_san(cert->x509, id.network_id, id.name, &id, error);
	if (!err && !*id.name) {
		sm_explain(error, "its SAN URI names a network and no node");
		err = -EBADMSG;
	}
	if (!err)
		err = read_serial(cert->x509, &id, error);
	if (!err)
		err = read_attributes(cert->x509, &id, error);
	if (err)
		return err;
	if (sm_cert_times(cert, &id.not_before, &id.not_after) != 0) {
		sm_explain(error, "its dates are malformed");
		return -EBADMSG;
	}
	if (sm_key_spki_digest(pkey, "SHA256", id.fingerprint) != 0 ||
	    sm_key_spki_digest(pkey, "SHA384", id.spki_sha384) != 0 ||
	    sm_ident_node_id(id.network_id, id.name, NULL, id.node_id) != 0) {
		sm_explain(error, "cannot compute its fingerprints");
		return -EBADMSG;
	}
	*ret_id = id;
	return 0;
}

bool sm_cert_is_ca(const struct sm_cert *cert, uint8_t ret_network[SM_NETWORK_ID_LEN])
{
	uint8_t network[SM_NETWORK_ID_LEN];
	char name[SM_NAME_MAX + 1];
	uint32_t flags = X509_get_extension_flags(cert->x509);

	ERR_clear_error();
	if (!ml_dsa_key(cert->x509) || X509_get_signature_nid(cert->x509) != NID_ML_DSA_87 ||
	    (flags & (EXFLAG_INVALID | EXFLAG_CRITICAL)) || !(flags & EXFLAG_CA) ||
	    !(X509_get_key_usage(cert->x509) & KU_KEY_CERT_SIGN) ||
	    read_san(cert->x509, network, name, NULL, NULL) != 0 || *name)
		return false;
	if (ret_network)
		memcpy(ret_network, network, sizeof(network));
	return true;
}

bool sm_cert_matches_key(const struct sm_cert *cert, const struct sm_key *key)
{
	EVP_PKEY *pkey = ml_dsa_key(cert->x509);

	return pkey && EVP_PKEY_eq(pkey, key->pkey) == 1;
}

// SPDX-License-Identifier: MIT
/*
 * Certificates of the network: issuing, reading, revoking.
 *
 * Profile (PROTOCOL.md, "Identity"): X.509 v3, ML-DSA-87 keys and signatures (RFC 9881).
 *   CA:   subject CN = network name, basicConstraints CA:TRUE pathlen 0 critical, keyUsage keyCertSign
 *         and cRLSign critical, SAN URI shadowmesh://NETWORK-ID-HEX
 *   node: subject CN = node name, basicConstraints CA:FALSE, keyUsage digitalSignature,
 *         extendedKeyUsage serverAuth and clientAuth, SAN URI shadowmesh://NETWORK-ID-HEX/NODE, SAN IP
 *         for each overlay address, random 160-bit serial, notBefore 48 h back
 *   node attributes: private extension SM_CERT_ATTRIBUTES_OID, not critical, a UTF8String of
 *         "key=value" joined by ';': address=10.7.0.1/24 (gives the subnet's length to a SAN IP),
 *         prefix=10.9.0.0/16, group=db, role=relay. Unknown keys are ignored.
 */
#ifndef SM_CRYPTO_CERT_H
#define SM_CRYPTO_CERT_H

#include "base/base.h"
#include "crypto/ident.h"
#include "crypto/key.h"

#define SM_CERT_ATTRIBUTES_OID "2.25.124508153268231950913476801372649015311"
#define SM_CRL_FINGERPRINT_OID "2.25.203712399657050580007274708109339595976"
#define SM_CERT_ERROR_MAX      256
#define SM_CERT_BACKDATE_S     (INT64_C(48) * 3600)

struct sm_cert;

void sm_cert_free(struct sm_cert *cert);

/** sm_cert_load() - Read the first certificate of a PEM (or DER) file; Return: 0, -ENOENT, -EBADMSG, ... */
SM_MUST_CHECK int sm_cert_load(const char *path, struct sm_cert **ret_cert, char *error);
/** sm_cert_from_pem() - The same from memory */
SM_MUST_CHECK int sm_cert_from_pem(const char *pem, size_t len, struct sm_cert **ret_cert,
				   char *error);
/** sm_cert_fingerprint() - SHA-256 of the SubjectPublicKeyInfo; Return: 0, -EIO, -ENOTSUP not ML-DSA-87 */
SM_MUST_CHECK int sm_cert_fingerprint(const struct sm_cert *cert,
				      uint8_t ret_fp[SM_FINGERPRINT_LEN]);
/** sm_cert_common_name() - Subject CN, unprintable bytes as '?', "" if there is none; Return: @buf */
const char *sm_cert_common_name(const struct sm_cert *cert, char buf[SM_NAME_MAX + 1]);
/** sm_cert_times() - notBefore and notAfter, seconds since 1970; Return: 0, -EBADMSG */
SM_MUST_CHECK int sm_cert_times(const struct sm_cert *cert, int64_t *ret_not_before,
				int64_t *ret_not_after);
/** sm_cert_save() - Write PEM, mode 0644; @replace: an existing file may be replaced (atomically) */
SM_MUST_CHECK int sm_cert_save(const struct sm_cert *cert, const char *path, bool replace,
			       char *error);

/** sm_cert_identity() - What a node certificate says, signature unverified; Return: 0, -EBADMSG with @error */
SM_MUST_CHECK int sm_cert_identity(const struct sm_cert *cert, struct sm_identity *ret_id,
				   char *error);

/** sm_cert_is_ca() - Return: true if it is a CA of our profile with an ML-DSA-87 key; @ret_network may be NULL */
bool sm_cert_is_ca(const struct sm_cert *cert, uint8_t ret_network[SM_NETWORK_ID_LEN]);

/** sm_cert_matches_key() - Return: true if the certificate is for that key */
bool sm_cert_matches_key(const struct sm_cert *cert, const struct sm_key *key);

/** sm_cert_new_ca() - A self-signed CA for a new network; Return: 0, -EIO */
SM_MUST_CHECK int sm_cert_new_ca(const struct sm_key *key, const char *network_name,
				 const uint8_t network_id[SM_NETWORK_ID_LEN], int64_t now_s,
				 int64_t valid_s, struct sm_cert **ret_cert, char *error);

/**
 * sm_cert_issue() - A node certificate
 * @id: network_id, name, addresses, prefixes, groups, roles are taken; the rest is not read
 * @node_key: the node's key pair (or its public half)
 * @not_before, @not_after: seconds since 1970, used as given
 */
SM_MUST_CHECK int sm_cert_issue(const struct sm_cert *ca, const struct sm_key *ca_key,
				const struct sm_identity *id, const struct sm_key *node_key,
				int64_t not_before, int64_t not_after, struct sm_cert **ret_cert,
				char *error);

/** sm_cert_self_signed() - Pinned mode: a certificate for one's own key; valid 48 h back to year 9999 */
SM_MUST_CHECK int sm_cert_self_signed(const struct sm_key *key, const struct sm_identity *id,
				      struct sm_cert **ret_cert, char *error);

/* Certificate requests, for keys that never leave their node */
SM_MUST_CHECK int sm_cert_request_save(const struct sm_key *key, const char *name, const char *path,
				       char *error);
/** sm_cert_request_load() - @ret_name: SM_NAME_MAX + 1 bytes. Read and verify a PKCS#10 request; Return: 0, -EBADMSG, -ENOTSUP not ML-DSA-87 */
SM_MUST_CHECK int sm_cert_request_load(const char *path, struct sm_key **ret_public, char *ret_name,
				       char *error);

/*
 * Revocation lists: each entry holds the serial, and the key's fingerprint in a private entry extension
 * SM_CRL_FINGERPRINT_OID, not critical, an OCTET STRING of 32 bytes
 */
struct sm_crl;

void sm_crl_free(struct sm_crl *crl);
/** sm_crl_load() - Read a PEM (or DER) file, signature unverified; Return: 0, -ENOENT, -EBADMSG, ... */
SM_MUST_CHECK int sm_crl_load(const char *path, struct sm_crl **ret_crl, char *error);
/** sm_crl_from_pem() - The same from memory */
SM_MUST_CHECK int sm_crl_from_pem(const char *pem, size_t len, struct sm_crl **ret_crl,
				  char *error);
/** sm_crl_save() - Write PEM, mode 0644, in place of an existing file, atomically */
SM_MUST_CHECK int sm_crl_save(const struct sm_crl *crl, const char *path, char *error);

/**
 * struct sm_crl_entry
 * @fingerprint: all zero where the list, made by another program, has none
 * @reason:      RFC 5280, section 5.3.1; 0 for none given
 */
struct sm_crl_entry {
	uint8_t serial[20];
	uint8_t serial_len;
	uint8_t fingerprint[SM_FINGERPRINT_LEN];
	int64_t revoked_s;
	uint8_t reason;
};

/**
 * sm_crl_issue() - Sign a list
 * @number: higher than any before
 */
SM_MUST_CHECK int sm_crl_issue(const struct sm_cert *ca, const struct sm_key *ca_key,
			       uint64_t number, const struct sm_crl_entry *entries, size_t count,
			       int64_t now_s, int64_t next_s, struct sm_crl **ret_crl, char *error);
uint64_t sm_crl_number(const struct sm_crl *crl);
int64_t sm_crl_next_update(const struct sm_crl *crl);
size_t sm_crl_count(const struct sm_crl *crl);
/** sm_crl_revokes() - Return: true if the list names this serial (@serial_len 0: none) or this key */
bool sm_crl_revokes(const struct sm_crl *crl, const uint8_t *serial, size_t serial_len,
		    const uint8_t fingerprint[SM_FINGERPRINT_LEN]);
/** sm_crl_entry() - The entries are sorted by serial; Return: 0, -ENOENT past the end */
SM_MUST_CHECK int sm_crl_entry(const struct sm_crl *crl, size_t index,
			       struct sm_crl_entry *ret_entry);

#endif

// SPDX-License-Identifier: MIT
/*
 * Whom a node trusts: CAs with their revocation lists, or pinned fingerprints.
 *
 * Theory of operation: a certificate whose key is pinned is judged by the pin alone. Any other must
 * pass, in this order: ML-DSA-87 as key and as signature, a readable identity, this network, a CA of
 * the store that signed it, the profile's usages, the dates of both, the revocation lists. Each step
 * has its own sentence, because a person will read it in the log of the other side.
 */
#include "crypto/trust.h"

#include "crypto/objects.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TRUST_CA_MAX  16u
#define YEAR_9999_END INT64_C(253402300799)

struct authority {
	X509 *x509;
	uint8_t fingerprint[SM_FINGERPRINT_LEN];
	int64_t not_before, not_after;
	struct sm_crl *crl;
};

struct pin {
	char name[SM_NAME_MAX + 1];
	uint8_t fingerprint[SM_FINGERPRINT_LEN];
	struct sm_prefix addresses[SM_IDENT_ADDRESS_MAX];
	uint8_t address_count; /* 0: those that the certificate claims */
};

struct sm_trust {
	atomic_uint refs;
	uint8_t network_id[SM_NETWORK_ID_LEN];
	struct authority authorities[TRUST_CA_MAX];
	size_t authority_count;
	struct pin *pins;
	size_t pin_count, pin_room;
};

int sm_trust_new(const uint8_t network_id[SM_NETWORK_ID_LEN], struct sm_trust **ret_trust)
{
	struct sm_trust *trust = calloc(1, sizeof(*trust));

	if (!trust)
		return -ENOMEM;
	atomic_init(&trust->refs, 1);
	memcpy(trust->network_id, network_id, sizeof(trust->network_id));
	*ret_trust = trust;
	return 0;
}

struct sm_trust *sm_trust_ref(struct sm_trust *trust)
{
	atomic_fetch_add_explicit(&trust->refs, 1, memory_order_relaxed);
	return trust;
}

void sm_trust_unref(struct sm_trust *trust)
{
	if (!trust || atomic_fetch_sub_explicit(&trust->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < trust->authority_count; i++) {
		X509_free(trust->authorities[i].x509);
		sm_crl_free(trust->authorities[i].crl);
	}
	free(trust->pins);
	free(trust);
}

/* Is this certificate's own signature good, where it claims to be self-signed? */
static bool self_signature_holds(X509 *x509)
{
	bool holds = X509_NAME_cmp(X509_get_issuer_name(x509), X509_get_subject_name(x509)) != 0 ||
		     X509_verify(x509, X509_get0_pubkey(x509)) == 1;

	ERR_clear_error();
	return holds;
}

int sm_trust_add_ca(struct sm_trust *trust, const struct sm_cert *ca, char *error)
{
	struct authority authority = {0};
	uint8_t network_id[SM_NETWORK_ID_LEN];

	if (sm_cert_fingerprint(ca, authority.fingerprint) != 0) {
		sm_explain(error, "the CA's key is not " SM_KEY_ALGORITHM
				  "; cure: a CA made by 'shadowmesh ca init'");
		return -ENOTSUP;
	}
	if (X509_get_signature_nid(ca->x509) != NID_ML_DSA_87) {
		sm_explain(error,
			   "the CA's certificate is signed with %.40s, not " SM_KEY_ALGORITHM,
			   sm_cert_signature_name(ca->x509));
		return -ENOTSUP;
	}
	if (!sm_cert_is_ca(ca, network_id)) {
		sm_explain(error, "not a CA certificate: that has CA:TRUE, keyCertSign, and the "
				  "SAN URI shadowmesh://NETWORK");
		return -EINVAL;
	}
	if (memcmp(network_id, trust->network_id, sizeof(network_id)) != 0) {
		char theirs[2 * SM_NETWORK_ID_LEN + 1], ours[2 * SM_NETWORK_ID_LEN + 1];

		sm_explain(error, "the CA is of network %s, not %s",
			   sm_text_hex(network_id, SM_NETWORK_ID_LEN, theirs),
			   sm_text_hex(trust->network_id, SM_NETWORK_ID_LEN, ours));
		return -EINVAL;
	}
	if (!self_signature_holds(ca->x509) ||
	    sm_cert_times(ca, &authority.not_before, &authority.not_after) != 0) {
		sm_explain(error, "the CA's certificate is damaged: its signature is wrong");
		return -EINVAL;
	}
	for (size_t i = 0; i < trust->authority_count; i++)
		if (X509_cmp(trust->authorities[i].x509, ca->x509) == 0)
			return 0;
	if (trust->authority_count == TRUST_CA_MAX) {
		sm_explain(error, "more than %u CAs", TRUST_CA_MAX);
		return -EINVAL;
	}
	if (X509_up_ref(ca->x509) != 1)
		return -EINVAL;
	authority.x509 = ca->x509;
	trust->authorities[trust->authority_count++] = authority;
	return 0;
}

/* Keep a list of one's own, because the caller's ends with the caller */
static int install_crl(struct authority *authority, const struct sm_crl *crl, char *error)
{
	struct sm_crl *own;
	int err;

	if (X509_CRL_up_ref(crl->x509) != 1)
		return -ENOMEM;
	err = sm_crl_wrap(crl->x509, &own, error);
	if (err)
		return err;
	sm_crl_free(authority->crl);
	authority->crl = own;
	return 0;
}

/* By their bytes: X509_CRL_match() takes any two lists that were never parsed for the same */
static bool same_crl(const X509_CRL *a, const X509_CRL *b)
{
	unsigned char *a_der = NULL, *b_der = NULL;
	int a_len = i2d_X509_CRL(a, &a_der), b_len = i2d_X509_CRL(b, &b_der);
	bool same = a_len > 0 && a_len == b_len && memcmp(a_der, b_der, (size_t)a_len) == 0;

	OPENSSL_free(a_der);
	OPENSSL_free(b_der);
	return same;
}

int sm_trust_add_crl(struct sm_trust *trust, const struct sm_crl *crl, char *error)
{
	bool found = false;
	int err = 0;

	/* A CA renewed with the same key stands in the store twice; both get the list. */
	for (size_t i = 0; !err && i < trust->authority_count; i++) {
		struct authority *authority = &trust->authorities[i];

		if (X509_NAME_cmp(X509_CRL_get_issuer(crl->x509),
				  X509_get_subject_name(authority->x509)) != 0 ||
		    !(X509_get_key_usage(authority->x509) & KU_CRL_SIGN) ||
		    X509_CRL_verify(crl->x509, X509_get0_pubkey(authority->x509)) != 1)
			continue;
		found = true;
		if (authority->crl && authority->crl->number > crl->number) {
			sm_explain(error,
				   "revocation list number %llu, and number %llu is in already",
				   (unsigned long long)crl->number,
				   (unsigned long long)authority->crl->number);
			err = -ESTALE;
		} else if (!authority->crl || authority->crl->number < crl->number) {
			err = install_crl(authority, crl, error);
		} else if (!same_crl(authority->crl->x509, crl->x509)) {
			sm_explain(error, "another revocation list with the same number %llu is in",
				   (unsigned long long)crl->number);
			err = -ESTALE;
		}
	}
	ERR_clear_error();
	if (!found) {
		sm_explain(error, "the revocation list is not signed by a CA of this network");
		return -EKEYREJECTED;
	}
	return err;
}

static const struct pin *find_pin(const struct sm_trust *trust,
				  const uint8_t fp[SM_FINGERPRINT_LEN])
{
	for (size_t i = 0; i < trust->pin_count; i++)
		if (memcmp(trust->pins[i].fingerprint, fp, SM_FINGERPRINT_LEN) == 0)
			return &trust->pins[i];
	return NULL;
}

int sm_trust_add_pin(struct sm_trust *trust, const char *name, const uint8_t fp[SM_FINGERPRINT_LEN])
{
	if (!sm_text_is_name(name))
		return -EINVAL;
	for (size_t i = 0; i < trust->pin_count; i++)
		if (strcmp(trust->pins[i].name, name) == 0)
			return -EEXIST;
	if (find_pin(trust, fp))
		return -EEXIST;
	if (trust->pin_count == trust->pin_room) {
		size_t room = trust->pin_room ? 2 * trust->pin_room : 8;
		struct pin *bigger = reallocarray(trust->pins, room, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		trust->pins = bigger;
		trust->pin_room = room;
	}
	struct pin *pin = &trust->pins[trust->pin_count++];

	memset(pin, 0, sizeof(*pin));
	memcpy(pin->name, name, strlen(name));
	memcpy(pin->fingerprint, fp, SM_FINGERPRINT_LEN);
	return 0;
}

bool sm_trust_is_older(const struct sm_trust *fresh, const struct sm_trust *in_use, char *error)
{
	for (size_t i = 0; i < fresh->authority_count; i++) {
		const struct authority *a = &fresh->authorities[i];

		for (size_t k = 0; k < in_use->authority_count; k++) {
			const struct authority *b = &in_use->authorities[k];
			const uint64_t number = a->crl ? a->crl->number : 0;

			if (!b->crl || b->crl->number <= number || X509_cmp(a->x509, b->x509) != 0)
				continue;
			if (error)
				snprintf(
					error, SM_CERT_ERROR_MAX,
					"the revocation list is number %llu, in use is number %llu: "
					"bring the newer one",
					(unsigned long long)number,
					(unsigned long long)b->crl->number);
			return true;
		}
	}
	return false;
}

bool sm_trust_crl_stale(const struct sm_trust *trust, int64_t now_s)
{
	for (size_t i = 0; i < trust->authority_count; i++)
		if (trust->authorities[i].crl && trust->authorities[i].crl->next_update < now_s)
			return true;
	return false;
}

/* A verdict on its way out of sm_trust_check() */
struct verdict {
	enum sm_close_reason *reason;
	char *error;
};

/* Set reason and sentence; Return: @err */
static int refuse(const struct verdict *v, int err, enum sm_close_reason reason, const char *fmt,
		  ...) SM_PRINTF(4, 5);

static int refuse(const struct verdict *v, int err, enum sm_close_reason reason, const char *fmt,
		  ...)
{
	va_list args;

	*v->reason = reason;
	if (v->error) {
		va_start(args, fmt);
		vsnprintf(v->error, SM_CERT_ERROR_MAX, fmt, args);
		va_end(args);
	}
	return err;
}

static const char *format_time(int64_t when_s, char buf[32])
{
	time_t when = (time_t)when_s;
	struct tm tm;

	if (!gmtime_r(&when, &tm) || strftime(buf, 32, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		memcpy(buf, "an odd time", sizeof("an odd time"));
	return buf;
}

static int check_time(const struct verdict *v, const char *whose, int64_t not_before,
		      int64_t not_after, int64_t now_s)
{
	char when[32], now[32];

	if (now_s < not_before)
		return refuse(v, -EKEYEXPIRED, SM_CLOSE_EXPIRED,
			      "%s is not valid before %s; it is %s here: is the clock right?",
			      whose, format_time(not_before, when), format_time(now_s, now));
	if (now_s > not_after)
		return refuse(v, -EKEYEXPIRED, SM_CLOSE_EXPIRED, "%s expired on %s; it is %s here",
			      whose, format_time(not_after, when), format_time(now_s, now));
	return 0;
}

/* Serials are the issuer's own; a key is one key, whoever lists it. */
static int check_revoked(const struct sm_trust *trust, const struct verdict *v,
			 const struct sm_identity *id)
{
	for (size_t i = 0; i < trust->authority_count; i++) {
		const struct authority *authority = &trust->authorities[i];
		bool issuer = memcmp(authority->fingerprint, id->issuer, SM_FINGERPRINT_LEN) == 0;

		if (authority->crl && sm_crl_revokes(authority->crl, id->serial,
						     issuer ? id->serial_len : 0, id->fingerprint))
			return refuse(v, -EKEYREVOKED, SM_CLOSE_REVOKED,
				      "the certificate of '%s' is revoked (list number %llu)",
				      id->name, (unsigned long long)authority->crl->number);
	}
	return 0;
}

static int check_usages(const struct verdict *v, X509 *x509)
{
	uint32_t flags = X509_get_extension_flags(x509);
	uint32_t wanted = XKU_SSL_SERVER | XKU_SSL_CLIENT;

	if (flags & EXFLAG_CA)
		return refuse(v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "it is a CA's certificate, not a node's");
	if (flags & EXFLAG_CRITICAL)
		return refuse(v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "it has a critical extension that is not known here");
	if (!(X509_get_key_usage(x509) & KU_DIGITAL_SIGNATURE))
		return refuse(v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "its key usage lacks digitalSignature");
	if ((flags & EXFLAG_XKUSAGE) && (X509_get_extended_key_usage(x509) & wanted) != wanted)
		return refuse(v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "its extended key usage lacks serverAuth or clientAuth");
	return 0;
}

static const struct authority *find_signer(const struct sm_trust *trust, X509 *x509)
{
	const struct authority *signer = NULL;

	for (size_t i = 0; i < trust->authority_count; i++) {
		const struct authority *authority = &trust->authorities[i];

		if (X509_NAME_cmp(X509_get_issuer_name(x509),
				  X509_get_subject_name(authority->x509)) != 0 ||
		    X509_verify(x509, X509_get0_pubkey(authority->x509)) != 1)
			continue;
		/* Of a CA's certificates for one key, the one that ends last */
		if (!signer || authority->not_after > signer->not_after)
			signer = authority;
	}
	ERR_clear_error();
	return signer;
}

static int check_network(const struct sm_trust *trust, const struct verdict *v,
			 const struct sm_identity *id)
{
	char theirs[2 * SM_NETWORK_ID_LEN + 1], ours[2 * SM_NETWORK_ID_LEN + 1];

	if (memcmp(id->network_id, trust->network_id, SM_NETWORK_ID_LEN) == 0)
		return 0;
	return refuse(v, -EKEYREJECTED, SM_CLOSE_NETWORK,
		      "the certificate of '%s' is of network %s, not %s", id->name,
		      sm_text_hex(id->network_id, SM_NETWORK_ID_LEN, theirs),
		      sm_text_hex(trust->network_id, SM_NETWORK_ID_LEN, ours));
}

int sm_trust_limit_pin(struct sm_trust *trust, const char *name, const struct sm_prefix *addresses,
		       size_t count)
{
	if (count > SM_IDENT_ADDRESS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < trust->pin_count; i++) {
		struct pin *pin = &trust->pins[i];

		if (strcmp(pin->name, name) != 0)
			continue;
		memcpy(pin->addresses, addresses, count * sizeof(*addresses));
		pin->address_count = (uint8_t)count;
		return 0;
	}
	return -ENOENT;
}

static int check_pinned(const struct sm_trust *trust, const struct verdict *v,
			const struct pin *pin, struct sm_identity *id)
{
	int err = check_network(trust, v, id);

	if (err)
		return err;
	memset(id->name, 0, sizeof(id->name));
	memcpy(id->name, pin->name, strlen(pin->name));
	if (sm_ident_node_id(trust->network_id, id->name, id->fingerprint, id->node_id) != 0)
		return refuse(v, -EKEYREJECTED, SM_CLOSE_INTERNAL, "cannot compute the node id");
	id->not_before = 0;
	id->not_after = YEAR_9999_END;
	if (pin->address_count > 0) {
		memcpy(id->addresses, pin->addresses, sizeof(pin->addresses));
		id->address_count = pin->address_count;
	}
	id->prefix_count = 0;
	id->group_count = 0;
	id->roles = 0;
	memset(id->prefixes, 0, sizeof(id->prefixes));
	memset(id->groups, 0, sizeof(id->groups));
	return check_revoked(trust, v, id);
}

static int check_signed(const struct sm_trust *trust, const struct verdict *v, X509 *x509,
			struct sm_identity *id, int64_t now_s)
{
	char whose[SM_NAME_MAX + 32];
	const struct authority *signer;
	int err = check_network(trust, v, id);

	if (err)
		return err;
	signer = find_signer(trust, x509);
	if (!signer)
		return refuse(
			v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			trust->authority_count
				? "the certificate of '%s' is not signed by a CA of this network"
				: "the key of '%s' is not pinned here",
			id->name);
	memcpy(id->issuer, signer->fingerprint, SM_FINGERPRINT_LEN);
	err = check_usages(v, x509);
	if (err)
		return err;
	snprintf(whose, sizeof(whose), "the certificate of '%s'", id->name);
	err = check_time(v, whose, id->not_before, id->not_after, now_s);
	if (!err)
		err = check_time(v, "the CA's certificate", signer->not_before, signer->not_after,
				 now_s);
	return err ? err : check_revoked(trust, v, id);
}

int sm_trust_check(const struct sm_trust *trust, const struct sm_cert *cert, int64_t now_s,
		   struct sm_identity *ret_id, enum sm_close_reason *ret_reason, char *error)
{
	const struct verdict v = {ret_reason, error};
	char sentence[SM_CERT_ERROR_MAX] = "";
	char name[SM_NAME_MAX + 1];
	uint8_t fp[SM_FINGERPRINT_LEN];
	struct sm_identity id;
	const struct pin *pin;
	int err;

	sm_cert_common_name(cert, name);
	if (sm_cert_fingerprint(cert, fp) != 0)
		return refuse(&v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "the certificate of '%s' has a key that is not " SM_KEY_ALGORITHM,
			      name);
	pin = find_pin(trust, fp);
	if (!pin && X509_get_signature_nid(cert->x509) != NID_ML_DSA_87)
		return refuse(&v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "the certificate of '%s' is signed with %s, not " SM_KEY_ALGORITHM
			      ": a classical CA",
			      name, sm_cert_signature_name(cert->x509));
	if (sm_cert_identity(cert, &id, sentence) != 0)
		return refuse(&v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "the certificate of '%s' is not of our profile: %.120s", name,
			      sentence);
	err = pin ? check_pinned(trust, &v, pin, &id)
		  : check_signed(trust, &v, cert->x509, &id, now_s);
	if (err)
		return err;
	*ret_reason = SM_CLOSE_NONE;
	*ret_id = id;
	return 0;
}

int sm_trust_check_identity(const struct sm_trust *trust, const struct sm_identity *id,
			    int64_t now_s, enum sm_close_reason *ret_reason, char *error)
{
	static const uint8_t none[SM_FINGERPRINT_LEN];
	const struct verdict v = {ret_reason, error};
	const struct pin *pin = find_pin(trust, id->fingerprint);
	bool was_pinned = memcmp(id->issuer, none, sizeof(none)) == 0;
	const struct authority *signer = NULL;
	char whose[SM_NAME_MAX + 32];
	int err = check_network(trust, &v, id);

	if (err)
		return err;
	for (size_t i = 0; i < trust->authority_count; i++)
		if (memcmp(trust->authorities[i].fingerprint, id->issuer, sizeof(none)) == 0 &&
		    (!signer || trust->authorities[i].not_after > signer->not_after))
			signer = &trust->authorities[i];
	if (was_pinned && (!pin || strcmp(pin->name, id->name) != 0))
		return refuse(&v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "the key of '%s' is not pinned here any more", id->name);
	if (!was_pinned && !signer)
		return refuse(&v, -EKEYREJECTED, SM_CLOSE_NOT_TRUSTED,
			      "the CA that signed for '%s' is not trusted any more", id->name);
	if (signer) {
		snprintf(whose, sizeof(whose), "the certificate of '%s'", id->name);
		err = check_time(&v, whose, id->not_before, id->not_after, now_s);
		if (!err)
			err = check_time(&v, "the CA's certificate", signer->not_before,
					 signer->not_after, now_s);
	}
	if (!err)
		err = check_revoked(trust, &v, id);
	if (!err)
		*ret_reason = SM_CLOSE_NONE;
	return err;
}

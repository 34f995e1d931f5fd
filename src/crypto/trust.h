// SPDX-License-Identifier: MIT
/*
 * Whom a node trusts: the network's CAs with their revocation lists, or pinned fingerprints.
 *
 * A trust store is immutable once it is in use (handshakes in other threads hold a reference); a reload
 * makes a new one.
 */
#ifndef SM_CRYPTO_TRUST_H
#define SM_CRYPTO_TRUST_H

#include "crypto/cert.h"
#include "wire/ctrl.h"

struct sm_trust;

/** sm_trust_new() - An empty store for one network; Return: 0, -ENOMEM */
SM_MUST_CHECK int sm_trust_new(const uint8_t network_id[SM_NETWORK_ID_LEN],
			       struct sm_trust **ret_trust);
struct sm_trust *sm_trust_ref(struct sm_trust *trust); /* atomic */
void sm_trust_unref(struct sm_trust *trust);

/** sm_trust_add_ca() - Return: 0; -ENOTSUP key is not ML-DSA-87; -EINVAL no CA, or of another network */
SM_MUST_CHECK int sm_trust_add_ca(struct sm_trust *trust, const struct sm_cert *ca, char *error);
/** sm_trust_add_crl() - Return: 0; -EKEYREJECTED not signed by a CA of the store; -ESTALE a newer one is in */
SM_MUST_CHECK int sm_trust_add_crl(struct sm_trust *trust, const struct sm_crl *crl, char *error);
/** sm_trust_add_pin() - Pinned mode: this key may be this name; Return: 0, -EEXIST, -ENOMEM */
SM_MUST_CHECK int sm_trust_add_pin(struct sm_trust *trust, const char *name,
				   const uint8_t fp[SM_FINGERPRINT_LEN]);

/**
 * sm_trust_limit_pin() - Give a pinned name its overlay addresses; what its certificate claims does not count
 * Return: 0, -ENOENT no such pin, -EINVAL more than SM_IDENT_ADDRESS_MAX
 */
SM_MUST_CHECK int sm_trust_limit_pin(struct sm_trust *trust, const char *name,
				     const struct sm_prefix *addresses, size_t count);

/**
 * sm_trust_is_older() - Would @fresh forget revocations that @in_use knows?
 * @error: a sentence with both list numbers; may be NULL
 * Return: true if a CA of both has an older list in @fresh, or none
 */
bool sm_trust_is_older(const struct sm_trust *fresh, const struct sm_trust *in_use, char *error);

/** sm_trust_crl_stale() - Return: true if a revocation list's next update is over (warn, never refuse) */
bool sm_trust_crl_stale(const struct sm_trust *trust, int64_t now_s);

/**
 * sm_trust_check() - May the holder of this certificate take part?
 *
 * With CAs: signed by one of them (ML-DSA-87 throughout), profile, network, time, usages, not revoked by
 * serial or key. With pins: the fingerprint is pinned; signer and dates do not matter, the name is the pin's;
 * of what the certificate claims only the addresses are taken, for nobody vouches for prefixes, groups, roles.
 * A pin goes before the CAs; a key that a revocation list names is refused in either case.
 * @ret_id: filled on success
 * @ret_reason: what to tell the other side, SM_CLOSE_NONE on success
 * @error: SM_CERT_ERROR_MAX bytes: a sentence for the log
 * Return: 0, -EKEYREJECTED, -EKEYEXPIRED, -EKEYREVOKED
 */
SM_MUST_CHECK int sm_trust_check(const struct sm_trust *trust, const struct sm_cert *cert,
				 int64_t now_s, struct sm_identity *ret_id,
				 enum sm_close_reason *ret_reason, char *error);

/**
 * sm_trust_check_identity() - Does what was verified earlier still hold? (time, revocation, pins)
 * Return: as sm_trust_check()
 */
SM_MUST_CHECK int sm_trust_check_identity(const struct sm_trust *trust,
					  const struct sm_identity *id, int64_t now_s,
					  enum sm_close_reason *ret_reason, char *error);

#endif

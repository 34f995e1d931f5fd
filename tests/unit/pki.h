// SPDX-License-Identifier: MIT
/*
 * A network in memory for tests: a CA, nodes with certificates, trust.
 */
#ifndef PKI_H
#define PKI_H

#include "crypto/tls.h"

#define PKI_NOW_S INT64_C(1800000000)
#define PKI_DAY_S INT64_C(86400)

struct pki {
	uint8_t network_id[SM_NETWORK_ID_LEN];
	struct sm_key *ca_key;
	struct sm_cert *ca;
};

struct pki_node {
	struct sm_key *key;
	struct sm_cert *cert;
};

/* Each fails the running test when something does not work. */
void pki_init(struct pki *pki, uint8_t network_byte, int64_t now_s);
void pki_done(struct pki *pki);
void pki_issue(const struct pki *pki, const char *name, int64_t not_before, int64_t not_after,
	       struct pki_node *ret_node);
void pki_node_done(struct pki_node *node);
struct sm_trust *pki_trust(const struct pki *pki);
void pki_revoke(const struct pki *pki, const struct pki_node *node, int64_t now_s,
		struct sm_trust *trust);
struct sm_tls_config *pki_config(const struct pki_node *node, struct sm_trust *trust,
				 enum sm_policy policy, const uint8_t *access_key);

#endif

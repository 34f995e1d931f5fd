// SPDX-License-Identifier: MIT
/*
 * A network in memory for tests.
 */
#include "pki.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

void pki_init(struct pki *pki, uint8_t network_byte, int64_t now_s)
{
	char error[SM_CERT_ERROR_MAX] = "";

	memset(pki, 0, sizeof(*pki));
	memset(pki->network_id, network_byte, sizeof(pki->network_id));
	assert_int_equal(sm_key_generate(&pki->ca_key), 0);
	if (sm_cert_new_ca(pki->ca_key, "test", pki->network_id, now_s - PKI_DAY_S,
			   3650 * PKI_DAY_S, &pki->ca, error) != 0)
		fail_msg("CA: %s", error);
}

void pki_done(struct pki *pki)
{
	sm_cert_free(pki->ca);
	sm_key_free(pki->ca_key);
}

void pki_issue(const struct pki *pki, const char *name, int64_t not_before, int64_t not_after,
	       struct pki_node *ret_node)
{
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_identity id = {0};

	memcpy(id.network_id, pki->network_id, sizeof(id.network_id));
	snprintf(id.name, sizeof(id.name), "%s", name);
	assert_int_equal(sm_key_generate(&ret_node->key), 0);
	if (sm_cert_issue(pki->ca, pki->ca_key, &id, ret_node->key, not_before, not_after,
			  &ret_node->cert, error) != 0)
		fail_msg("issue: %s", error);
}

void pki_node_done(struct pki_node *node)
{
	sm_cert_free(node->cert);
	sm_key_free(node->key);
}

struct sm_trust *pki_trust(const struct pki *pki)
{
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_trust *trust;

	assert_int_equal(sm_trust_new(pki->network_id, &trust), 0);
	if (sm_trust_add_ca(trust, pki->ca, error) != 0)
		fail_msg("trust: %s", error);
	return trust;
}

void pki_revoke(const struct pki *pki, const struct pki_node *node, int64_t now_s,
		struct sm_trust *trust)
{
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_crl_entry entry = {.revoked_s = now_s};
	struct sm_identity id;
	struct sm_crl *crl;

	assert_int_equal(sm_cert_identity(node->cert, &id, error), 0);
	memcpy(entry.serial, id.serial, sizeof(entry.serial));
	entry.serial_len = id.serial_len;
	memcpy(entry.fingerprint, id.fingerprint, sizeof(entry.fingerprint));
	if (sm_crl_issue(pki->ca, pki->ca_key, 1, &entry, 1, now_s, now_s + PKI_DAY_S, &crl,
			 error) != 0 ||
	    sm_trust_add_crl(trust, crl, error) != 0)
		fail_msg("CRL: %s", error);
	sm_crl_free(crl);
}

struct sm_tls_config *pki_config(const struct pki_node *node, struct sm_trust *trust,
				 enum sm_policy policy, const uint8_t *access_key)
{
	char error[SM_CERT_ERROR_MAX] = "";
	struct sm_tls_config *config;

	if (sm_tls_config_new(node->cert, node->key, trust, policy, access_key, &config, error) !=
	    0)
		fail_msg("config: %s", error);
	return config;
}

// SPDX-License-Identifier: MIT
/*
 * Certificate, key, CAs, revocation lists, pins and access key: from files to one TLS configuration.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <stdio.h>

#define EXPIRY_WARN_S (30 * SM_DAY_S)

static int passphrase_from_file(void *arg, char *buf, size_t size)
{
	const struct sm_config *config = arg;
	char error[SM_CONFIG_ERROR_MAX];

	if (!config->node.passphrase_file)
		return -ENOENT;
	return sm_config_read_passphrase(config->node.passphrase_file, buf, size, error);
}

/* Names the file, unless @why begins with it as the loaders' sentences do */
static void explain(char *error, const char *what, const char *path, const char *why)
{
	const bool named = strncmp(why, path, strlen(path)) == 0;

	snprintf(error, SM_DAEMON_ERROR_MAX, "%s %.200s%s%.280s", what, named ? "" : path,
		 named ? "" : ": ", why);
}

static int network_id(const struct sm_config *config, uint8_t ret_id[SM_NETWORK_ID_LEN])
{
	if (!config->network.has_id)
		return sm_ident_network_from_name(config->network.name, ret_id);
	memcpy(ret_id, config->network.id, SM_NETWORK_ID_LEN);
	return 0;
}

/* Without a CA a node is its key: the certificate is made on the spot. */
static int load_pinned(const struct sm_config *config, struct sm_credentials *c, char *error)
{
	int err = network_id(config, c->self.network_id);

	if (!err)
		err = sm_key_fingerprint(c->key, c->self.fingerprint);
	if (!err)
		err = sm_ident_node_id(c->self.network_id, config->node.name, c->self.fingerprint,
				       c->self.node_id);
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot derive this node's identity: %s",
			 sm_crypto_error());
		return err;
	}
	snprintf(c->self.name, sizeof(c->self.name), "%s", config->node.name);
	c->self.address_count = (uint8_t)SM_MIN(config->interface.address.count,
						SM_IDENT_ADDRESS_MAX);
	memcpy(c->self.addresses, config->interface.address.prefix,
	       c->self.address_count * sizeof(c->self.addresses[0]));
	err = sm_cert_self_signed(c->key, &c->self, &c->cert, error);
	if (err)
		return err;
	c->self.not_after = INT64_MAX;
	err = sm_trust_new(c->self.network_id, &c->trust);
	for (uint32_t i = 0; !err && i < config->peer_count; i++) {
		const struct sm_config_peer *p = &config->peers[i];

		err = sm_trust_add_pin(c->trust, p->name, p->fingerprint);
		if (!err && p->address.count > 0)
			err = sm_trust_limit_pin(c->trust, p->name, p->address.prefix,
						 p->address.count);
	}
	if (err)
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot pin the peers' keys: %s",
			 strerror(-err));
	return err;
}

static int add_authorities(const struct sm_config *config, struct sm_credentials *c, char *error)
{
	char why[SM_CERT_ERROR_MAX];
	int err = 0;

	for (uint32_t i = 0; !err && i < config->network.ca.count; i++) {
		struct sm_cert *ca = NULL;

		err = sm_cert_load(config->network.ca.path[i], &ca, why);
		if (!err)
			err = sm_trust_add_ca(c->trust, ca, why);
		if (err)
			explain(error, "CA", config->network.ca.path[i], why);
		sm_cert_free(ca);
	}
	for (uint32_t i = 0; !err && i < config->network.crl.count; i++) {
		struct sm_crl *crl = NULL;

		err = sm_crl_load(config->network.crl.path[i], &crl, why);
		if (!err)
			err = sm_trust_add_crl(c->trust, crl, why);
		if (err)
			explain(error, "CRL", config->network.crl.path[i], why);
		sm_crl_free(crl);
	}
	return err;
}

static int load_certified(const struct sm_config *config, struct sm_credentials *c, char *error)
{
	char why[SM_CERT_ERROR_MAX];
	enum sm_close_reason reason;
	int err = sm_cert_load(config->node.certificate, &c->cert, why);

	if (!err)
		err = sm_cert_identity(c->cert, &c->self, why);
	if (err) {
		explain(error, "certificate", config->node.certificate, why);
		return err;
	}
	if (!sm_cert_matches_key(c->cert, c->key)) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "certificate %s is not for the key in %s",
			 config->node.certificate, config->node.private_key);
		return -EINVAL;
	}
	err = sm_trust_new(c->self.network_id, &c->trust);
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "out of memory");
		return err;
	}
	err = add_authorities(config, c, error);
	if (err)
		return err;
	/* an expired certificate of our own is no reason to stay down: it may be renewed by a reload */
	err = sm_trust_check(c->trust, c->cert, sm_clock_wall_s(), &c->self, &reason, why);
	if (err == -EKEYREJECTED) {
		explain(error, "certificate", config->node.certificate, why);
		return err;
	}
	if (err)
		sm_error("our own certificate: %s; peers will refuse it", why);
	return 0;
}

int sm_credentials_load(const struct sm_config *config, struct sm_credentials *ret_credentials,
			char *error)
{
	struct sm_credentials c = {0};
	uint8_t access[SM_ACCESS_KEY_LEN];
	char why[SM_CONFIG_ERROR_MAX];
	int err;

	err = sm_key_load(config->node.private_key, passphrase_from_file, (void *)(uintptr_t)config,
			  &c.key, why);
	if (err) {
		explain(error, "private key", config->node.private_key, why);
		goto out;
	}
	err = sm_config_is_pinned(config) ? load_pinned(config, &c, error)
					  : load_certified(config, &c, error);
	if (err)
		goto out;
	if (config->network.access_key) {
		err = sm_config_read_access_key(config->network.access_key, access, why);
		if (err) {
			snprintf(error, SM_DAEMON_ERROR_MAX, "access key: %.480s", why);
			goto out;
		}
	}
	err = sm_tls_config_new(c.cert, c.key, c.trust,
				config->network.policy == SM_CONFIG_POLICY_CNSA ? SM_POLICY_CNSA
										: SM_POLICY_DEFAULT,
				config->network.access_key ? access : NULL, &c.tls, why);
	sm_wipe(access, sizeof(access));
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "TLS: %.480s", why);
		goto out;
	}
	*ret_credentials = c;
	return 0;
out:
	sm_credentials_done(&c);
	return err;
}

void sm_credentials_done(struct sm_credentials *c)
{
	sm_tls_config_unref(c->tls);
	sm_trust_unref(c->trust);
	sm_cert_free(c->cert);
	sm_key_free(c->key);
	*c = (struct sm_credentials){0};
}

void sm_credentials_warn(const struct sm_credentials *c)
{
	const int64_t now_s = sm_clock_wall_s();

	if (c->self.not_after != INT64_MAX && c->self.not_after - now_s < EXPIRY_WARN_S &&
	    c->self.not_after > now_s)
		sm_warn("our certificate expires in %lld days: have it issued anew",
			(long long)(c->self.not_after - now_s) / SM_DAY_S);
	if (sm_trust_crl_stale(c->trust, now_s))
		sm_warn("the revocation list is out of date: bring a newer one with 'shadowmesh reload'");
}

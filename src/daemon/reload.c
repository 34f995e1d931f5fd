// SPDX-License-Identifier: MIT
/*
 * Reloading: everything is read and checked first; what is live changes at once, the rest is named.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

static void take_peers(struct sm_config *live, struct sm_config *fresh)
{
	struct sm_config_peer *peers = live->peers;
	const uint32_t count = live->peer_count;

	live->peers = fresh->peers;
	live->peer_count = fresh->peer_count;
	fresh->peers = peers;
	fresh->peer_count = count;
}

int sm_reload(struct sm_daemon *d, char *ret_note, char *error)
{
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));
	struct sm_credentials credentials = {0};
	struct sm_config *fresh = NULL;
	char restart[SM_CONFIG_RESTART_MAX] = "";
	enum sm_config_policy policy = d->config->network.policy, wanted;
	unsigned changed;
	int err = -ENOMEM;

	ret_note[0] = '\0';
	snprintf(error, SM_DAEMON_ERROR_MAX, "out of memory");
	if (!errors)
		return err;
	err = sm_config_load(d->config_path, &fresh, errors);
	if (!err)
		err = sm_config_check_files(fresh, errors);
	for (uint32_t i = 1; err && i < errors->count; i++)
		sm_error("%s", errors->text[i]);
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "%.*s", (int)SM_DAEMON_ERROR_MAX - 1,
			 errors->count ? errors->text[0] : strerror(-err));
		goto out;
	}
	if (sm_config_is_pinned(fresh) != sm_config_is_pinned(d->config)) {
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "trust by CA and trust by fingerprint do not change in a reload: "
			 "restart the daemon");
		err = -EINVAL;
		goto out;
	}
	wanted = fresh->network.policy;
	fresh->network.policy = policy; /* takes a restart: the data ciphers follow it, too */
	err = sm_credentials_load(fresh, &credentials, error);
	fresh->network.policy = wanted;
	if (err)
		goto out;
	if (strcmp(credentials.self.name, d->credentials.self.name) != 0 ||
	    memcmp(credentials.self.network_id, d->credentials.self.network_id,
		   SM_NETWORK_ID_LEN) != 0) {
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "the certificate is for %s now, this daemon runs as %s: restart it",
			 credentials.self.name, d->credentials.self.name);
		err = -EINVAL;
		goto out;
	}
	if (sm_trust_is_older(credentials.trust, d->credentials.trust, error)) {
		err = -ESTALE;
		goto out;
	}
	changed = sm_config_diff(d->config, fresh, restart);
	if (changed & SM_CONFIG_CHANGE_RESTART)
		snprintf(ret_note, SM_CONFIG_RESTART_MAX + 64, "%s changed and needs a restart",
			 restart);

	sm_conn_set_config(d->conns, credentials.tls);
	sm_credentials_done(&d->credentials);
	d->credentials = credentials;
	credentials = (struct sm_credentials){0};
	if (d->options->log_level_override < 0)
		sm_log_set_level(fresh->log_level);
	d->config->log_level = fresh->log_level;
	take_peers(d->config, fresh);
	sm_node_set_identity(d->node, &d->credentials.self);
	sm_control_recheck(d);
	err = sm_control_set_peers(d);
	sm_node_retry_now(d->node, sm_clock_now_us());
	sm_credentials_warn(&d->credentials);
	if (err)
		snprintf(error, SM_DAEMON_ERROR_MAX, "too many peers");
out:
	sm_credentials_done(&credentials);
	sm_config_free(fresh);
	free(errors);
	return err;
}

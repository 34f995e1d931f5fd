// SPDX-License-Identifier: MIT
/*
 * The folder of a certificate authority: ca.key, ca.pem, crl.pem, and issued/ with a copy of every
 * certificate it ever made.
 */
#ifndef SM_CLI_CA_STORE_H
#define SM_CLI_CA_STORE_H

#include "cli/cli.h"
#include "crypto/cert.h"

#include <limits.h>

#define SM_CA_LIST_VALID_S (INT64_C(365) * 86400) /* next update of a revocation list */

struct sm_ca_issued {
	struct sm_cert *cert;
	struct sm_identity id;
};

/** struct sm_ca_store - @crl: NULL if there is none; @issued: by name, then by begin */
struct sm_ca_store {
	char dir[PATH_MAX / 2];
	int lock;
	struct sm_cert *ca;
	uint8_t network_id[SM_NETWORK_ID_LEN];
	char network[SM_NAME_MAX + 1];
	struct sm_crl *crl;
	struct sm_ca_issued *issued;
	size_t count;
};

/** sm_ca_start_crypto() - For commands that need no daemon; Return: SM_EXIT_OK, or after telling why */
int sm_ca_start_crypto(const struct sm_cli_command *self);

/** sm_ca_parse_valid() - "365d", "1y" in seconds; Return: SM_EXIT_OK, SM_EXIT_USAGE after telling why */
int sm_ca_parse_valid(const struct sm_cli_command *self, const char *text, int64_t *ret_s);
/** sm_ca_parse_days() - "365"; Return: as sm_ca_parse_valid() */
int sm_ca_parse_days(const struct sm_cli_command *self, const char *text, int64_t *ret_s);

/** sm_ca_store_path() - Path of a file in the folder; Return: @buf */
const char *sm_ca_store_path(const struct sm_ca_store *store, const char *name, char buf[PATH_MAX]);

/**
 * sm_ca_store_open() - Find the folder and read all but the key
 * @dir:   from --dir; NULL: $SHADOWMESH_CA, else the current folder if it is one, else the only
 *         folder NETWORK-ca in it
 * @write: keep others from changing it meanwhile
 * Return: SM_EXIT_OK, or another exit code after telling why
 */
int sm_ca_store_open(const struct sm_cli_command *self, const char *dir, bool write,
		     struct sm_ca_store *ret_store);
void sm_ca_store_close(struct sm_ca_store *store);

/** sm_ca_store_key() - The CA's private key; Return: SM_EXIT_OK, or another exit code after telling why */
int sm_ca_store_key(const struct sm_cli_command *self, const struct sm_ca_store *store,
		    const char *passphrase_file, struct sm_key **ret_key);

/** sm_ca_store_add() - Keep a copy of a new certificate; Return: SM_EXIT_OK, or after telling why */
int sm_ca_store_add(const struct sm_cli_command *self, const struct sm_ca_store *store,
		    const struct sm_cert *cert);

/** sm_ca_store_status() - Return: "valid", "expired", "revoked", "not yet valid" */
const char *sm_ca_store_status(const struct sm_ca_store *store, const struct sm_identity *id,
			       int64_t now_s);

/** sm_ca_store_live() - Return: true if it is neither expired nor revoked */
bool sm_ca_store_live(const struct sm_ca_store *store, const struct sm_identity *id, int64_t now_s);

/**
 * sm_ca_store_sign_list() - Sign and save a revocation list with the next number
 * @entries: all of them, the old ones included
 * Return: SM_EXIT_OK, or after telling why
 */
int sm_ca_store_sign_list(const struct sm_cli_command *self, struct sm_ca_store *store,
			  const struct sm_key *ca_key, const struct sm_crl_entry *entries,
			  size_t count, int64_t now_s, int64_t valid_s);

#endif

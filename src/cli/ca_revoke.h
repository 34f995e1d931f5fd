// SPDX-License-Identifier: MIT
/*
 * shadowmesh ca revoke and crl.
 */
#ifndef SM_CLI_CA_REVOKE_H
#define SM_CLI_CA_REVOKE_H

#include "cli/cli.h"

extern const struct sm_cli_command sm_ca_revoke, sm_ca_crl;

#endif

// SPDX-License-Identifier: MIT
/*
 * shadowmesh ca list and show.
 */
#ifndef SM_CLI_CA_SHOW_H
#define SM_CLI_CA_SHOW_H

#include "cli/cli.h"

extern const struct sm_cli_command sm_ca_list, sm_ca_show;

/** sm_ca_format_time() - "2027-11-22 14:00:00 UTC"; Return: @buf */
const char *sm_ca_format_time(int64_t when_s, char buf[64]);

#endif

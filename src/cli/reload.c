// SPDX-License-Identifier: MIT
/*
 * shadowmesh reload: have a daemon read its configuration again.
 */
#include "cli/client.h"
#include "cli/print.h"

static int reload_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {SM_CLIENT_SOCKET_OPTION, SM_CLI_HELP_OPTION,
					      SM_CLI_OPTIONS_END};
	struct sm_client_options options;
	char cell[SM_CELL_MAX];
	json_t *result = NULL;
	int code;

	if (sm_client_options(self, argc, argv, longs, &options, &code) < 0)
		return code;
	code = sm_client_call(self, &options.target, json_pack("{s:s}", "command", "reload"),
			      &result);
	if (code != SM_EXIT_OK)
		return code;
	if (json_string_length(json_object_get(result, "note")) > 0)
		printf("%s\n", sm_print_text(result, "note", cell));
	json_decref(result);
	return code;
}

const struct sm_cli_command sm_cli_reload = {
	.name = "reload",
	.synopsis = "[NETWORK] [--socket PATH]",
	.summary = "read the configuration, certificates and revocation lists again",
	.help = "A configuration with an error changes nothing and is told. What can only be changed by a\n"
		"restart is named. Sessions with peers that stay are kept.\n"
		"\n"
		"options:\n" SM_CLIENT_OPTIONS_HELP "\n"
		"examples:\n"
		"  shadowmesh reload home",
	.run = reload_run,
};

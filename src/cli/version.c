// SPDX-License-Identifier: MIT
/*
 * shadowmesh version.
 */
#include "cli/cli.h"
#include "cli/print.h"

#include "crypto/crypto.h"

enum {
	OPT_JSON = 0x100,
};

static int version_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, OPT_JSON},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	bool json = false;
	int opt;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) != SM_CLI_END) {
		if (opt != OPT_JSON)
			return sm_cli_stop(opt);
		json = true;
	}
	if (optind < argc)
		return sm_cli_usage(self, "'%s' is too much", argv[optind]);
	if (json) {
		json_t *all = json_pack("{s:s,s:s,s:b}", "version", SM_VERSION, "crypto",
					sm_crypto_version(), "aes_hardware", sm_crypto_has_aes());

		sm_print_json(all);
		json_decref(all);
	} else {
		printf("shadowmesh %s\n%s, AES %s\n", SM_VERSION, sm_crypto_version(),
		       sm_crypto_has_aes() ? "in hardware" : "in software");
	}
	return SM_EXIT_OK;
}

const struct sm_cli_command sm_cli_version = {
	.name = "version",
	.synopsis = "[--json]",
	.summary = "versions of this program and of its cryptography",
	.help = "options:\n"
		"  --json      for programs\n"
		"  -h, --help  this page\n"
		"\n"
		"examples:\n"
		"  shadowmesh version",
	.run = version_run,
};

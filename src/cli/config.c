// SPDX-License-Identifier: MIT
/*
 * shadowmesh config check: what a daemon would say about a configuration, without starting one.
 */
#include "cli/print.h"

#include "cli/cli.h"
#include "daemon/config.h"
#include "daemon/daemon.h"

#include <stdlib.h>

enum {
	OPT_JSON = 0x100,
};

static json_t *texts(char (*text)[SM_CONFIG_ERROR_MAX], uint32_t count)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < count; i++) {
		/* a file's name need not be UTF-8 */
		json_t *value = json_string(text[i]);

		if (value == NULL) {
			for (char *p = text[i]; *p != '\0'; p++) {
				if ((unsigned char)*p >= 0x80)
					*p = '?';
			}
			value = json_string(text[i]);
		}
		json_array_append_new(list, value);
	}
	return list;
}

static void print_as_json(bool ok, const char *file, struct sm_config_errors *errors)
{
	json_t *name = json_string(file);
	json_t *all = json_pack("{s:b,s:o,s:o,s:o,s:i}", "ok", ok, "file",
				name != NULL ? name : json_null(), "errors",
				texts(errors->text, errors->count), "warnings",
				texts(errors->warning, errors->warning_count), "more_errors",
				(int)errors->dropped);

	sm_print_json(all);
	json_decref(all);
}

static void print_as_text(bool ok, const char *file, const struct sm_config_errors *errors)
{
	for (uint32_t i = 0; i < errors->count; i++)
		fprintf(stderr, "%s\n", errors->text[i]);
	if (errors->dropped > 0)
		fprintf(stderr, "and %u more errors\n", errors->dropped);
	for (uint32_t i = 0; i < errors->warning_count; i++)
		fprintf(stderr, "warning: %s\n", errors->warning[i]);
	if (ok)
		printf("%s: good\n", file);
}

static int check_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, OPT_JSON},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct sm_config_errors *errors;
	bool json = false;
	int opt, r;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) != SM_CLI_END) {
		if (opt != OPT_JSON)
			return sm_cli_stop(opt);
		json = true;
	}
	if (argc - optind != 1)
		return sm_cli_usage(self, "give one configuration file");
	errors = calloc(1, sizeof(*errors));
	if (errors == NULL)
		return sm_cli_fail(self, "out of memory");
	r = sm_daemon_check(argv[optind], errors);
	if (json)
		print_as_json(r == 0, argv[optind], errors);
	else
		print_as_text(r == 0, argv[optind], errors);
	free(errors);
	return r == 0 ? SM_EXIT_OK : SM_EXIT_FAILURE;
}

static const struct sm_cli_command check = {
	.name = "config check",
	.synopsis = "FILE [--json]",
	.summary = "say what is wrong with a configuration",
	.help = "Reads the whole file, and the keys and certificates that it names. Prints every error with its line\n"
		"and what was expected; exits with 0 if 'shadowmesh up' would accept it.\n"
		"\n"
		"options:\n"
		"  --json      {\"ok\", \"file\", \"errors\": [...], \"warnings\": [...], \"more_errors\"}\n"
		"  -h, --help  this page\n"
		"\n"
		"examples:\n"
		"  shadowmesh config check /etc/shadowmesh/home.conf",
	.run = check_run,
};

static int config_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct sm_cli_command *const table[] = {&check, NULL};

	return sm_cli_run_subcommand(self, table, argc, argv);
}

const struct sm_cli_command sm_cli_config = {
	.name = "config",
	.synopsis = "check FILE [--json]",
	.summary = "check a configuration file",
	.help = "  check FILE  say what is wrong with a configuration\n"
		"\n"
		"examples:\n"
		"  shadowmesh config check /etc/shadowmesh/home.conf",
	.run = config_run,
};

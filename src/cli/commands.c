// SPDX-License-Identifier: MIT
/*
 * The table of commands, and the way from the command line into it.
 */
#include "cli/cli.h"

#include <signal.h>
#include <unistd.h>

const struct sm_cli_command *const sm_cli_commands[] = {
	&sm_cli_up,      &sm_cli_down,    &sm_cli_status, &sm_cli_peers,  &sm_cli_ping,
	&sm_cli_reload,  &sm_cli_config,  &sm_cli_ca,     &sm_cli_keygen, &sm_cli_fingerprint,
	&sm_cli_request, &sm_cli_version, &sm_cli_help,   NULL,
};

static void print_overview(FILE *out)
{
	fprintf(out,
		"ShadowMesh joins machines into one encrypted Ethernet, safe from quantum computers.\n"
		"\n"
		"usage: shadowmesh COMMAND [ARGUMENT...]\n"
		"       shadowmesh COMMAND --help\n"
		"\n");
	for (size_t i = 0; sm_cli_commands[i] != NULL; i++)
		fprintf(out, "  %-13s%s\n", sm_cli_commands[i]->name, sm_cli_commands[i]->summary);
	fprintf(out,
		"\n"
		"examples:\n"
		"  shadowmesh up -c /etc/shadowmesh/home.conf -d   start a network\n"
		"  shadowmesh status                               how it is\n"
		"  shadowmesh ping alice                           is that node there, and by which path\n"
		"\n"
		"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon is running.\n"
		"Manual: shadowmesh(1); configuration: shadowmesh.conf(5).\n");
}

static const char *command_name(const void *arg, size_t i)
{
	(void)arg;
	return sm_cli_commands[i] != NULL ? sm_cli_commands[i]->name : NULL;
}

static const struct sm_cli_command *find_command(const char *name)
{
	for (size_t i = 0; sm_cli_commands[i] != NULL; i++) {
		if (strcmp(sm_cli_commands[i]->name, name) == 0)
			return sm_cli_commands[i];
	}
	return NULL;
}

static int unknown_command(const struct sm_cli_command *self, const char *typed)
{
	const char *near = sm_cli_nearest(typed, command_name, NULL);

	if (near != NULL)
		return sm_cli_usage(self, "unknown command '%s', did you mean '%s'?", typed, near);
	return sm_cli_usage(self, "unknown command '%s'", typed);
}

/* help ca issue: the same as ca issue --help */
static int help_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {SM_CLI_HELP_OPTION, SM_CLI_OPTIONS_END};
	const struct sm_cli_command *command;
	int opt = sm_cli_getopt(self, argc, argv, "", longs);

	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	if (optind == argc) {
		print_overview(stdout);
		return SM_EXIT_OK;
	}
	command = find_command(argv[optind]);
	if (command == NULL)
		return unknown_command(self, argv[optind]);
	if (argc - optind > 1) {
		static char help[] = "--help";
		char *args[] = {argv[optind], argv[optind + 1], help, NULL};

		optind = 0;
		return command->run(command, 3, args);
	}
	sm_cli_print_help(command, stdout);
	return SM_EXIT_OK;
}

const struct sm_cli_command sm_cli_help = {
	.name = "help",
	.synopsis = "[COMMAND [SUBCOMMAND]]",
	.summary = "explain a command",
	.help = "Prints the list of commands, or the page of one.\n"
		"\n"
		"examples:\n"
		"  shadowmesh help ping\n"
		"  shadowmesh help ca issue",
	.run = help_run,
};

int sm_cli_main(int argc, char **argv)
{
	const struct sm_cli_command *command;
	int code;

	/* a reader that left early, as in "status | head -1", is an error of write(), not a signal */
	(void)signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_overview(stderr);
		return SM_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		command = &sm_cli_help;
	else if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		command = &sm_cli_version;
	else if (argv[1][0] == '-')
		return sm_cli_usage(NULL, "unknown option '%s'", argv[1]);
	else
		command = find_command(argv[1]);
	if (command == NULL)
		return unknown_command(NULL, argv[1]);
	optind = 0;
	code = command->run(command, argc - 1, argv + 1);
	/* what was not printed was not done: a full disk behind ">" must be seen */
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == SM_EXIT_OK && errno != EPIPE)
		return sm_cli_fail(command, "cannot write: %s", strerror(errno));
	return code;
}

// SPDX-License-Identifier: MIT
/*
 * What the commands share: the command table, options, help, exit codes. One file a command.
 */
#ifndef SM_CLI_CLI_H
#define SM_CLI_CLI_H

#include "base/base.h"

#include <getopt.h>
#include <stdio.h>

/** Exit codes, as shadowmesh(1) documents them */
enum sm_exit {
	SM_EXIT_OK,
	SM_EXIT_FAILURE,
	SM_EXIT_USAGE,
	SM_EXIT_NOT_RUNNING, /* no daemon for that network */
};

/**
 * struct sm_cli_command - One command, or one subcommand such as "ca issue"
 * @name:     as typed, "ca issue" for a subcommand
 * @synopsis: its arguments, "[NETWORK] [--json]"; several lines are several forms
 * @summary:  half a sentence for the list of commands
 * @help:     options and examples, whole lines, after the synopsis
 * @run:      gets the arguments from the command's own name on; returns an enum sm_exit
 */
struct sm_cli_command {
	const char *name, *synopsis, *summary, *help;
	int (*run)(const struct sm_cli_command *self, int argc, char **argv);
};

extern const struct sm_cli_command sm_cli_up, sm_cli_down, sm_cli_status, sm_cli_peers, sm_cli_ping,
	sm_cli_reload, sm_cli_config, sm_cli_version, sm_cli_help;
extern const struct sm_cli_command sm_cli_ca;                                         /* ca.c */
extern const struct sm_cli_command sm_cli_keygen, sm_cli_fingerprint, sm_cli_request; /* key.c */

/** sm_cli_commands - All of them in the order of the help page, ended by NULL */
extern const struct sm_cli_command *const sm_cli_commands[];

/** sm_cli_main() - The whole program behind main(); Return: exit code */
int sm_cli_main(int argc, char **argv);

/* --- options and errors (options.c) --- */

/** What every table of long options begins or ends with: SM_CLI_HELP_OPTION, SM_CLI_OPTIONS_END */
#define SM_CLI_HELP_OPTION                     \
	{                                      \
		"help", no_argument, NULL, 'h' \
	}
#define SM_CLI_OPTIONS_END       \
	{                        \
		NULL, 0, NULL, 0 \
	}

enum {
	SM_CLI_END = -1,
	SM_CLI_HELPED = -2, /* --help was printed */
	SM_CLI_BAD = -3,    /* an error was printed */
};

/**
 * sm_cli_getopt() - getopt_long() with --help and our own messages
 * @shorts: as for getopt, without "h" and without a leading ':'
 * @longs:  with SM_CLI_HELP_OPTION, ended by SM_CLI_OPTIONS_END
 *
 * The first call of a command has optind == 0 (sm_cli_main() and sm_cli_run_subcommand() set it).
 * Return: the option's character; SM_CLI_END, SM_CLI_HELPED or SM_CLI_BAD
 */
int sm_cli_getopt(const struct sm_cli_command *self, int argc, char **argv, const char *shorts,
		  const struct option *longs);

/**
 * sm_cli_options() - All options of a command, by sm_cli_getopt()
 * @take: gets each option's character, its value in optarg; Return: SM_EXIT_OK, or the exit code to end with
 * @ret_code: the exit code, if the command ends here
 * Return: true if the command goes on, with its operands from argv[optind] on
 */
bool sm_cli_options(const struct sm_cli_command *self, int argc, char **argv,
		    const struct option *longs,
		    int (*take)(const struct sm_cli_command *self, int opt, void *arg), void *arg,
		    int *ret_code);

/**
 * sm_cli_take_name() - The one operand, which is a name
 * @whose: "node" or "network", for the error
 * Return: SM_EXIT_OK, SM_EXIT_USAGE
 */
int sm_cli_take_name(const struct sm_cli_command *self, int argc, char **argv, const char *whose,
		     const char **ret_name);

/** sm_cli_stop() - Return: the exit code for SM_CLI_HELPED or SM_CLI_BAD */
int sm_cli_stop(int opt);

/** sm_cli_usage() - "shadowmesh NAME: ..." and where the help is, to stderr; Return: SM_EXIT_USAGE */
int sm_cli_usage(const struct sm_cli_command *self, const char *fmt, ...) SM_PRINTF(2, 3);

/** sm_cli_fail() - "shadowmesh NAME: ..." to stderr; Return: SM_EXIT_FAILURE */
int sm_cli_fail(const struct sm_cli_command *self, const char *fmt, ...) SM_PRINTF(2, 3);

/** sm_cli_print_help() - The page of one command */
void sm_cli_print_help(const struct sm_cli_command *command, FILE *out);

/**
 * sm_cli_run_subcommand() - Let argv[1] choose from a table; knows --help and near misses
 * @table: ended by NULL; names are "PARENT CHILD"
 */
int sm_cli_run_subcommand(const struct sm_cli_command *self,
			  const struct sm_cli_command *const *table, int argc, char **argv);

/**
 * sm_cli_nearest() - What may have been meant
 * @name:  gives the @i-th candidate, NULL past the last
 * Return: the candidate that is close enough to @typed, or NULL
 */
const char *sm_cli_nearest(const char *typed, const char *(*name)(const void *arg, size_t i),
			   const void *arg);

#endif

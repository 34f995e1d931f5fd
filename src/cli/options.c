// SPDX-License-Identifier: MIT
/*
 * Options, help pages and the words for what was typed wrong.
 */
#include "cli/cli.h"

#include "base/text.h"
#include "wire/const.h"

#include <stdarg.h>
#include <stdlib.h>

#define NEAREST_LEN_MAX 32u

static void print_error(const struct sm_cli_command *self, const char *fmt, va_list ap)
	SM_PRINTF(2, 0);

static void print_error(const struct sm_cli_command *self, const char *fmt, va_list ap)
{
	(void)fflush(stdout);
	fprintf(stderr, "shadowmesh%s%s: ", self != NULL ? " " : "",
		self != NULL ? self->name : "");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int sm_cli_fail(const struct sm_cli_command *self, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_error(self, fmt, ap);
	va_end(ap);
	return SM_EXIT_FAILURE;
}

int sm_cli_usage(const struct sm_cli_command *self, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_error(self, fmt, ap);
	va_end(ap);
	if (self != NULL)
		fprintf(stderr, "See 'shadowmesh %s --help'.\n", self->name);
	else
		fprintf(stderr, "See 'shadowmesh help'.\n");
	return SM_EXIT_USAGE;
}

void sm_cli_print_help(const struct sm_cli_command *command, FILE *out)
{
	const char *line = command->synopsis;

	for (bool first = true; line != NULL; first = false) {
		size_t len = strcspn(line, "\n");

		fprintf(out, "%s shadowmesh %s%s%.*s\n", first ? "usage:" : "      ", command->name,
			len > 0 ? " " : "", (int)len, line);
		line = line[len] == '\n' ? line + len + 1 : NULL;
	}
	fprintf(out, "\n%s", command->help);
	if (command->help[0] != '\0' && command->help[strlen(command->help) - 1] != '\n')
		fputc('\n', out);
}

/* --- near misses --- */

/* Edits between two words: insert, delete, replace, exchange neighbours */
static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	size_t d[NEAREST_LEN_MAX + 1][NEAREST_LEN_MAX + 1];

	if (la > NEAREST_LEN_MAX || lb > NEAREST_LEN_MAX)
		return SIZE_MAX;
	for (size_t i = 0; i <= la; i++) {
		for (size_t j = 0; j <= lb; j++) {
			size_t best;

			if (i == 0 || j == 0) {
				d[i][j] = i + j;
				continue;
			}
			best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			best = SM_MIN(best, d[i - 1][j] + 1);
			best = SM_MIN(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = SM_MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[la][lb];
}

const char *sm_cli_nearest(const char *typed, const char *(*name)(const void *arg, size_t i),
			   const void *arg)
{
	size_t len = strlen(typed), nearest = len / 3 + 2;
	const char *found = NULL, *candidate;

	for (size_t i = 0; (candidate = name(arg, i)) != NULL; i++) {
		size_t d = distance(typed, candidate);

		/* a beginning of at least two letters is as near as it gets */
		if (len >= 2 && strncmp(typed, candidate, len) == 0)
			d = 0;
		/* the whole word replaced is no near miss */
		if (d < nearest && d < SM_MAX(len, strlen(candidate))) {
			nearest = d;
			found = candidate;
		}
	}
	return found;
}

static const char *option_name(const void *arg, size_t i)
{
	const struct option *longs = arg;

	return longs[i].name;
}

static const char *subcommand_name(const void *arg, size_t i)
{
	const struct sm_cli_command *const *table = arg;
	const char *blank;

	if (table[i] == NULL)
		return NULL;
	blank = strrchr(table[i]->name, ' ');
	return blank != NULL ? blank + 1 : table[i]->name;
}

/* --- options --- */

static void unknown_option(const struct sm_cli_command *self, char **argv,
			   const struct option *longs)
{
	const char *typed = argv[optind - 1], *near;
	char word[NEAREST_LEN_MAX + 1];

	if (optopt != 0 && strncmp(typed, "--", 2) != 0) {
		(void)sm_cli_usage(self, "unknown option '-%c'", optopt);
		return;
	}
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(typed + 2, "="), typed + 2);
	for (size_t i = 0; optopt != 0 && longs[i].name != NULL; i++) {
		if (longs[i].val == optopt && longs[i].has_arg == no_argument) {
			(void)sm_cli_usage(self, "option '--%s' takes no value", longs[i].name);
			return;
		}
	}
	near = sm_cli_nearest(word, option_name, longs);
	if (near != NULL)
		(void)sm_cli_usage(self, "unknown option '--%s', did you mean '--%s'?", word, near);
	else
		(void)sm_cli_usage(self, "unknown option '--%s'", word);
}

int sm_cli_getopt(const struct sm_cli_command *self, int argc, char **argv, const char *shorts,
		  const struct option *longs)
{
	char all[64];
	int opt;

	snprintf(all, sizeof(all), ":h%s", shorts);
	opterr = 0;
	opt = getopt_long(argc, argv, all, longs, NULL);
	switch (opt) {
	case 'h':
		sm_cli_print_help(self, stdout);
		return SM_CLI_HELPED;
	case ':':
		(void)sm_cli_usage(self, "option '%s' wants a value", argv[optind - 1]);
		return SM_CLI_BAD;
	case '?':
		unknown_option(self, argv, longs);
		return SM_CLI_BAD;
	default:
		return opt;
	}
}

bool sm_cli_options(const struct sm_cli_command *self, int argc, char **argv,
		    const struct option *longs,
		    int (*take)(const struct sm_cli_command *self, int opt, void *arg), void *arg,
		    int *ret_code)
{
	int opt, code = SM_EXIT_OK;

	while (code == SM_EXIT_OK) {
		opt = sm_cli_getopt(self, argc, argv, "", longs);
		if (opt == SM_CLI_END)
			return true;
		if (opt < 0) {
			*ret_code = sm_cli_stop(opt);
			return false;
		}
		code = take(self, opt, arg);
	}
	*ret_code = code;
	return false;
}

int sm_cli_take_name(const struct sm_cli_command *self, int argc, char **argv, const char *whose,
		     const char **ret_name)
{
	if (argc - optind != 1)
		return sm_cli_usage(self, "give the %s's name, and nothing else", whose);
	if (!sm_text_is_name(argv[optind]))
		return sm_cli_usage(self, "'%s' is no name: 1 to %d characters of a-z, 0-9 and '-'",
				    argv[optind], SM_NAME_MAX);
	*ret_name = argv[optind];
	return SM_EXIT_OK;
}

int sm_cli_stop(int opt)
{
	return opt == SM_CLI_HELPED ? SM_EXIT_OK : SM_EXIT_USAGE;
}

int sm_cli_run_subcommand(const struct sm_cli_command *self,
			  const struct sm_cli_command *const *table, int argc, char **argv)
{
	const char *near;

	if (argc < 2) {
		sm_cli_print_help(self, stderr);
		return SM_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		sm_cli_print_help(self, stdout);
		return SM_EXIT_OK;
	}
	for (size_t i = 0; table[i] != NULL; i++) {
		if (strcmp(argv[1], subcommand_name(table, i)) == 0) {
			optind = 0;
			return table[i]->run(table[i], argc - 1, argv + 1);
		}
	}
	near = sm_cli_nearest(argv[1], subcommand_name, table);
	if (near != NULL)
		return sm_cli_usage(self, "unknown command '%s', did you mean '%s'?", argv[1],
				    near);
	return sm_cli_usage(self, "unknown command '%s'", argv[1]);
}

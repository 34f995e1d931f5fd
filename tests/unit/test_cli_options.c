// SPDX-License-Identifier: MIT
/*
 * Command lines: what is understood, what is refused with which words and code, near misses, help pages.
 */
#include "capture.h"

static struct capture got;

static int run(const struct sm_cli_command *self, int argc, char **argv)
{
	(void)argv;
	printf("%s with %d", self->name, argc);
	return SM_EXIT_OK;
}

static const struct sm_cli_command one = {
	.name = "thing one", .synopsis = "A", .help = "", .run = run};
static const struct sm_cli_command two = {.name = "thing second", .synopsis = "", .run = run};
static const struct sm_cli_command thing = {
	.name = "thing",
	.synopsis = "[-f FILE] NODE\n--list",
	.summary = "half a sentence",
	.help = "options:\n  -f FILE  this file",
};

static void test_getopt(void **state)
{
	static const struct option longs[] = {{"file", required_argument, NULL, 'f'},
					      {"list", no_argument, NULL, 0x100},
					      {"lint", no_argument, NULL, 'l'},
					      SM_CLI_HELP_OPTION,
					      SM_CLI_OPTIONS_END};
	static const struct {
		const char *words[4];
		int opts[3]; /* as returned, the last one SM_CLI_END or an end by error */
		const char *arg, *err;
	} rows[] = {
		{{"thing"}, {SM_CLI_END}, NULL, NULL},
		{{"thing", "node"}, {SM_CLI_END}, NULL, NULL},
		{{"thing", "-f", "x"}, {'f', SM_CLI_END}, "x", NULL},
		{{"thing", "-fx"}, {'f', SM_CLI_END}, "x", NULL},
		{{"thing", "--file", "x"}, {'f', SM_CLI_END}, "x", NULL},
		{{"thing", "--file=x"}, {'f', SM_CLI_END}, "x", NULL},
		{{"thing", "--fi=x"}, {'f', SM_CLI_END}, "x", NULL},
		{{"thing", "--file="}, {'f', SM_CLI_END}, "", NULL},
		{{"thing", "node", "--list"}, {0x100, SM_CLI_END}, NULL, NULL},
		{{"thing", "--", "--list"}, {SM_CLI_END}, NULL, NULL},
		{{"thing", "-f"}, {SM_CLI_BAD}, NULL, "option '-f' wants a value\n"},
		{{"thing", "--file"}, {SM_CLI_BAD}, NULL, "option '--file' wants a value\n"},
		{{"thing", "-x"}, {SM_CLI_BAD}, NULL, "unknown option '-x'\n"},
		{{"thing", "--list=5"}, {SM_CLI_BAD}, NULL, "option '--list' takes no value\n"},
		{{"thing", "--files"},
		 {SM_CLI_BAD},
		 NULL,
		 "unknown option '--files', did you mean '--file'?\n"},
		{{"thing", "--flie=x"}, {SM_CLI_BAD}, NULL, "did you mean '--file'?\n"},
		{{"thing", "--zzzzzzz"}, {SM_CLI_BAD}, NULL, "unknown option '--zzzzzzz'\n"},
		{{"thing", "--li"},
		 {SM_CLI_BAD},
		 NULL,
		 "unknown option '--li', did you mean '--li"},
		{{"thing", "-h"}, {SM_CLI_HELPED}, NULL, NULL},
		{{"thing", "--help"}, {SM_CLI_HELPED}, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char words[4][16], *argv[5] = {0};
		int argc = 0;

		for (; argc < 4 && rows[i].words[argc]; argc++) {
			snprintf(words[argc], sizeof(words[0]), "%s", rows[i].words[argc]);
			argv[argc] = words[argc];
		}
		optind = 0;
		for (size_t k = 0; k < 3; k++) {
			int opt;

			capture_begin(&got);
			opt = sm_cli_getopt(&thing, argc, argv, "f:", longs);
			capture_end(&got);
			if (opt != rows[i].opts[k])
				fail_msg("row %zu, step %zu: %d", i, k, opt);
			if (opt == 'f')
				assert_string_equal(optarg, rows[i].arg);
			if (opt == SM_CLI_HELPED)
				assert_memory_equal(got.out, "usage: shadowmesh thing ", 24);
			if (opt == SM_CLI_BAD) {
				assert_memory_equal(got.err, "shadowmesh thing: ", 18);
				if (!strstr(got.err, rows[i].err))
					fail_msg("row %zu: %s", i, got.err);
				assert_non_null(
					strstr(got.err, "See 'shadowmesh thing --help'.\n"));
			} else {
				assert_string_equal(got.err, "");
			}
			if (opt < 0)
				break;
		}
	}
	assert_int_equal(sm_cli_stop(SM_CLI_HELPED), SM_EXIT_OK);
	assert_int_equal(sm_cli_stop(SM_CLI_BAD), SM_EXIT_USAGE);
}

static void test_messages(void **state)
{
	(void)state;
	capture_begin(&got);
	assert_int_equal(sm_cli_fail(&thing, "%s: %d", "a", 7), SM_EXIT_FAILURE);
	assert_int_equal(sm_cli_fail(NULL, "b"), SM_EXIT_FAILURE);
	assert_int_equal(sm_cli_usage(NULL, "c"), SM_EXIT_USAGE);
	capture_end(&got);
	assert_string_equal(got.out, "");
	assert_string_equal(got.err, "shadowmesh thing: a: 7\nshadowmesh: b\nshadowmesh: c\n"
				     "See 'shadowmesh help'.\n");
}

static void test_help(void **state)
{
	(void)state;
	capture_begin(&got);
	sm_cli_print_help(&thing, stdout);
	sm_cli_print_help(&one, stdout);
	capture_end(&got);
	assert_string_equal(got.out, "usage: shadowmesh thing [-f FILE] NODE\n"
				     "       shadowmesh thing --list\n"
				     "\noptions:\n  -f FILE  this file\n"
				     "usage: shadowmesh thing one A\n\n");
}

static const char *candidate(const void *arg, size_t i)
{
	const char *const *list = arg;

	return list[i];
}

static void test_nearest(void **state)
{
	static const char *const list[] = {"status", "peers", "ping", "reload", "up", "ca", NULL};
	static const struct {
		const char *typed, *meant;
	} rows[] = {
		{"status", "status"},
		{"statsu", "status"},
		{"sttus", "status"},
		{"stat", "status"},
		{"stattus", "status"},
		{"sattus", "status"},
		{"peer", "peers"},
		{"pign", "ping"},
		{"pong", "ping"},
		{"relaod", "reload"},
		{"pu", "up"},
		{"", NULL},
		{"x", NULL},
		{"xy", NULL},
		{"zzzzzz", NULL},
		{"statusstatusstatusstatusstatusstatus", NULL}, /* longer than is looked at */
	};
	static const char *const nothing[] = {NULL};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const char *near = sm_cli_nearest(rows[i].typed, candidate, list);

		if (rows[i].meant ? !near || strcmp(near, rows[i].meant) != 0 : near != NULL)
			fail_msg("%s: %s", rows[i].typed, near ? near : "nothing");
	}
	assert_null(sm_cli_nearest("status", candidate, nothing));
}

static void test_subcommands(void **state)
{
	static const struct sm_cli_command *const table[] = {&one, &two, NULL};
	static const struct {
		const char *words[3];
		int code;
		const char *out, *err;
	} rows[] = {
		{{"thing"}, SM_EXIT_USAGE, "", "usage: shadowmesh thing "},
		{{"thing", "--help"}, SM_EXIT_OK, "usage: shadowmesh thing ", ""},
		{{"thing", "-h"}, SM_EXIT_OK, "usage: shadowmesh thing ", ""},
		{{"thing", "one"}, SM_EXIT_OK, "thing one with 1", ""},
		{{"thing", "second", "x"}, SM_EXIT_OK, "thing second with 2", ""},
		{{"thing", "seconds"},
		 SM_EXIT_USAGE,
		 "",
		 "shadowmesh thing: unknown command 'seconds', did you mean 'second'?"},
		{{"thing", "zzzzz"}, SM_EXIT_USAGE, "", "unknown command 'zzzzz'\n"},
		{{"thing", ""}, SM_EXIT_USAGE, "", "unknown command ''\n"},
		{{"thing", "thing one"}, SM_EXIT_USAGE, "", "unknown command 'thing one'"},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char words[3][16], *argv[4] = {0};
		int argc = 0, code;

		for (; argc < 3 && rows[i].words[argc]; argc++) {
			snprintf(words[argc], sizeof(words[0]), "%s", rows[i].words[argc]);
			argv[argc] = words[argc];
		}
		capture_begin(&got);
		code = sm_cli_run_subcommand(&thing, table, argc, argv);
		capture_end(&got);
		assert_int_equal(code, rows[i].code);
		if (!strstr(got.out, rows[i].out) || !strstr(got.err, rows[i].err))
			fail_msg("row %zu: %s%s", i, got.out, got.err);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_getopt),      cmocka_unit_test(test_messages),
		cmocka_unit_test(test_help),        cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_subcommands),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * What a command prints, and a whole command line run in this process.
 */
#ifndef SM_TESTS_CAPTURE_H
#define SM_TESTS_CAPTURE_H

#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define CAPTURE_MAX 65536u

/** struct capture - stdout and stderr, of the last capture_end() on */
struct capture {
	int before[2], now[2];
	char out[CAPTURE_MAX], err[CAPTURE_MAX];
};

static inline void capture_begin(struct capture *c)
{
	(void)fflush(NULL);
	for (int i = 0; i < 2; i++) {
		c->before[i] = dup(i + 1);
		c->now[i] = memfd_create("captured", MFD_CLOEXEC);
		assert_true(c->before[i] >= 0 && c->now[i] >= 0);
		assert_int_equal(dup2(c->now[i], i + 1), i + 1);
	}
}

static inline void capture_end(struct capture *c)
{
	char *text[2] = {c->out, c->err};

	(void)fflush(NULL);
	for (int i = 0; i < 2; i++) {
		ssize_t n;

		assert_int_equal(dup2(c->before[i], i + 1), i + 1);
		n = pread(c->now[i], text[i], CAPTURE_MAX - 1, 0);
		assert_true(n >= 0);
		text[i][n] = '\0';
		close(c->before[i]);
		close(c->now[i]);
	}
}

#define CAPTURE_WORDS_MAX 24

/**
 * capture_run() - sm_cli_main() with the words of @line, which are separated by single blanks
 * Return: its exit code; what it printed is in @c
 */
static inline int capture_run(struct capture *c, const char *line)
{
	static char program[] = "shadowmesh";
	char copy[1024], *argv[CAPTURE_WORDS_MAX + 1] = {program}, *rest = copy;
	int argc = 1, code;

	assert_true(strlen(line) < sizeof(copy));
	strcpy(copy, line);
	while (rest && *line) {
		assert_true(argc < CAPTURE_WORDS_MAX);
		argv[argc++] = strsep(&rest, " ");
	}
	capture_begin(c);
	code = sm_cli_main(argc, argv);
	capture_end(c);
	return code;
}

/** capture_expect() - capture_run(), and it ends with @code, and prints these; NULL: nothing is printed */
static inline void capture_expect(struct capture *c, const char *line, int code, const char *out,
				  const char *err)
{
	const int got = capture_run(c, line);

	if (got != code || (out ? !strstr(c->out, out) : c->out[0] != '\0') ||
	    (err ? !strstr(c->err, err) : c->err[0] != '\0'))
		fail_msg("'%s': code %d, not %d\nstdout: %s\nstderr: %s", line, got, code, c->out,
			 c->err);
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Files that are read with a limit and appear whole or not at all.
 */
#include "crypto/file.h"

#include "crypto/cert.h"
#include "crypto_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <signal.h>

static char error[SM_CERT_ERROR_MAX];

static void expect_read(const char *name, size_t max, bool secret, int err, const char *text)
{
	char *data = NULL;
	size_t len = 99;

	error[0] = '\0';
	assert_int_equal(sm_file_read(fixture_path(name), max, secret, &data, &len, error), err);
	if (err) {
		assert_null(data);
		assert_int_equal(len, 99);
		assert_non_null(strstr(error, text));
		assert_non_null(strstr(error, fixture_path(name)));
		/* a caller that does not want to know */
		assert_int_equal(sm_file_read(fixture_path(name), max, secret, &data, &len, NULL),
				 err);
		return;
	}
	assert_int_equal(len, strlen(text));
	assert_memory_equal(data, text, len + 1); /* the NUL, too */
	sm_file_release(data, len);
}

static void test_read(void **state)
{
	static const struct {
		mode_t mode;
		bool secret;
		int err;
	} modes[] = {
		{0600, true, 0},      {0400, true, 0},      {0700, true, 0},  {0640, true, -EPERM},
		{0604, true, -EPERM}, {0620, true, -EPERM}, {0644, false, 0}, {0601, true, -EPERM},
	};

	(void)state;
	fixture_write(fixture_path("f"), 0600, "12345", 5);
	expect_read("f", 6, false, 0, "12345");
	expect_read("f", 5, false, 0, "12345");
	expect_read("f", 4, false, -EFBIG, "longer than the 4 bytes");
	expect_read("f", 0, false, -EFBIG, "longer than the 0 bytes");
	fixture_write(fixture_path("empty"), 0600, "", 0);
	expect_read("empty", 0, true, 0, "");
	expect_read("none", 10, true, -ENOENT, "cannot open: No such file");
	expect_read(".", 10, false, -EISDIR, "cannot read: Is a directory");
	for (size_t i = 0; i < SM_ARRAY_SIZE(modes); i++) {
		assert_int_equal(chmod(fixture_path("f"), modes[i].mode), 0);
		expect_read("f", 10, modes[i].secret, modes[i].err,
			    modes[i].err ? "cure: chmod 600" : "12345");
	}
	sm_file_release(NULL, 0);
	fixture_files(true);
}

/* A pipe, as in --passphrase-file <(...): whatever its mode, and as long as it gives */
static void test_read_pipe(void **state)
{
	char path[32], *data;
	size_t len;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "secret\n", 7), 7);
	close(ends[1]);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
	assert_int_equal(sm_file_read(path, 100, true, &data, &len, error), 0);
	assert_string_equal(data, "secret\n");
	sm_file_release(data, len);
	close(ends[0]);
	assert_int_equal(sm_file_read("/dev/zero", 1000, true, &data, &len, error), -EFBIG);
}

static void expect_content(const char *name, const char *text)
{
	char got[64];

	assert_int_equal(fixture_read(fixture_path(name), got, sizeof(got)), strlen(text));
	assert_string_equal(got, text);
}

static int put(const char *name, mode_t mode, bool replace, const char *text)
{
	error[0] = '\0';
	return sm_file_write(fixture_path(name), mode, replace, text, strlen(text), error);
}

static void test_write(void **state)
{
	static const mode_t modes[] = {0600, 0644, 0400};
	const mode_t before = umask(0177); /* must not matter */
	struct stat st;

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(modes); i++) {
		assert_int_equal(put("f", modes[i], true, "first"), 0);
		assert_int_equal(stat(fixture_path("f"), &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
	}
	assert_int_equal(put("f", 0600, true, "second"), 0);
	expect_content("f", "second");
	assert_int_equal(put("f", 0600, false, "third"), -EEXIST);
	assert_non_null(strstr(error, "exists already and is not overwritten"));
	expect_content("f", "second");
	assert_int_equal(put("g", 0600, false, ""), 0);
	expect_content("g", "");
	assert_int_equal(fixture_files(false), 2); /* no temporary one is left */
	umask(before);
	fixture_files(true);
}

static void test_write_fails(void **state)
{
	static const struct {
		const char *path;
		int err;
		const char *error;
	} rows[] = {
		{"/nowhere/f", -ENOENT, "/nowhere/f: cannot create: "},
		{"/dev/null/f", -ENOTDIR, "/dev/null/f: cannot create: "},
		{"/tmp", -EISDIR, "/tmp: cannot write: "},
		{"/proc/f", -ENOENT, "/proc/f: cannot create: "},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		const int err = sm_file_write(rows[i].path, 0600, true, "x", 1, error);

		if (err != rows[i].err || !strstr(error, rows[i].error))
			fail_msg("%s: %d %s", rows[i].path, err, error);
		assert_int_equal(sm_file_write(rows[i].path, 0600, true, "x", 1, NULL), err);
	}
}

/* A full disk: what was there stays, and nothing is left behind. */
static void test_disk_full(void **state)
{
	static char much[5000];
	struct rlimit before, low;

	(void)state;
	assert_int_equal(put("f", 0600, true, "precious"), 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	low = before;
	low.rlim_cur = 1000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	assert_int_equal(sm_file_write(fixture_path("f"), 0600, true, much, sizeof(much), error),
			 -EFBIG);
	assert_int_equal(sm_file_write(fixture_path("new"), 0600, false, much, sizeof(much), NULL),
			 -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_non_null(strstr(error, "cannot write: "));
	expect_content("f", "precious");
	assert_int_equal(fixture_files(true), 1);
}

static void test_write_device(void **state)
{
	int ends[2];
	char path[32], got[8] = "";

	(void)state;
	assert_int_equal(sm_file_write("/dev/null", 0600, false, "x", 1, error), 0);
	assert_int_equal(pipe(ends), 0);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[1]);
	assert_int_equal(sm_file_write(path, 0600, false, "hello", 5, error), 0);
	assert_int_equal(read(ends[0], got, sizeof(got)), 5);
	assert_string_equal(got, "hello");
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(sm_file_write("/dev/full", 0600, true, "x", 1, error), -ENOSPC);
	assert_non_null(strstr(error, "/dev/full: cannot write: "));
}

/* In the folder that we are in, and in the root of a path */
static void test_relative(void **state)
{
	(void)state;
	assert_int_equal(chdir(fixture_dir), 0);
	assert_int_equal(sm_file_write("plain", 0600, false, "x", 1, error), 0);
	assert_int_equal(sm_file_write("./dotted", 0600, false, "x", 1, error), 0);
	expect_content("plain", "x");
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(fixture_files(true), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),      cmocka_unit_test(test_read_pipe),
		cmocka_unit_test(test_write),     cmocka_unit_test(test_write_fails),
		cmocka_unit_test(test_disk_full), cmocka_unit_test(test_write_device),
		cmocka_unit_test(test_relative),
	};

	return cmocka_run_group_tests_name("file", tests, fixture_setup, fixture_teardown);
}

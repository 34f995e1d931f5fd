// SPDX-License-Identifier: MIT
/*
 * What the tests of src/crypto share: hexadecimal, a temporary folder, whole files.
 */
#ifndef SM_TESTS_CRYPTO_FIXTURE_H
#define SM_TESTS_CRYPTO_FIXTURE_H

#include "base/text.h"
#include "crypto/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>

/* Bytes of a hexadecimal string; Return: how many */
static inline size_t unhex(const char *hex, uint8_t *ret_data, size_t size)
{
	size_t len = strlen(hex) / 2;

	assert_true(len <= size);
	assert_int_equal(sm_text_parse_hex(hex, ret_data, len), 0);
	return len;
}

static inline void assert_hex(const void *data, size_t len, const char *hex)
{
	char text[2 * 4096 + 1];

	assert_true(len <= 4096);
	assert_string_equal(sm_text_hex(data, len, text), hex);
}

static inline void assert_sha256(const void *data, size_t len, const char *hex)
{
	const struct sm_bytes piece = {data, len};
	uint8_t digest[SM_SHA256_LEN];

	assert_int_equal(sm_sha256(&piece, 1, digest), 0);
	assert_hex(digest, sizeof(digest), hex);
}

static char fixture_dir[64];

/* Group setup: the library, and an empty folder */
static inline int fixture_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	if (sm_crypto_init() != 0)
		return -1;
	snprintf(fixture_dir, sizeof(fixture_dir), "%.32s/sm-crypto-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(fixture_dir) ? 0 : -1;
}

/* Number of names in the folder; each is removed if @remove_all */
static inline size_t fixture_files(bool remove_all)
{
	DIR *dir = opendir(fixture_dir);
	size_t n = 0;

	assert_non_null(dir);
	for (const struct dirent *e; (e = readdir(dir));) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		n++;
		if (remove_all)
			assert_int_equal(unlinkat(dirfd(dir), e->d_name, 0), 0);
	}
	closedir(dir);
	return n;
}

static inline int fixture_teardown(void **state)
{
	(void)state;
	fixture_files(true);
	return rmdir(fixture_dir);
}

/* Path in the folder; valid until the fourth call after */
static inline const char *fixture_path(const char *name)
{
	static char paths[4][256];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", fixture_dir, name);
	return path;
}

static inline void fixture_write(const char *path, mode_t mode, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static inline size_t fixture_read(const char *path, void *data, size_t size)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	assert_non_null(f);
	n = fread(data, 1, size, f);
	fclose(f);
	assert_true(n < size);
	((char *)data)[n] = '\0';
	return n;
}

#endif

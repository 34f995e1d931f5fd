// SPDX-License-Identifier: MIT
/*
 * The folder of a CA: found, locked, read back; what is damaged in it is told and not passed over.
 */
#include "cli/ca_store.h"

#include "capture.h"
#include "crypto/crypto.h"
#include "pki.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define NOW_S PKI_NOW_S

static char dir[64];
static struct capture got;
static struct pki pki;
static struct pki_node node[3];
static const struct sm_cli_command self = {.name = "ca test"};
static const char *const names[] = {"zoe", "bob", "alice"};

static const char *at(const char *name)
{
	static char paths[4][192];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int set_up_group(void **state)
{
	(void)state;
	if (sm_crypto_init())
		return -1;
	pki_init(&pki, 3, NOW_S);
	for (unsigned i = 0; i < 3; i++)
		pki_issue(&pki, names[i], NOW_S, NOW_S + (1 + i) * 10 * PKI_DAY_S, &node[i]);
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		pki_node_done(&node[i]);
	pki_done(&pki);
	return 0;
}

/* A CA without lists and certificates, in the folder home-ca of a folder that we are in */
static int set_up(void **state)
{
	char error[SM_CERT_ERROR_MAX];

	(void)state;
	unsetenv("SHADOWMESH_CA");
	snprintf(dir, sizeof(dir), "/tmp/sm-ca-store-XXXXXX");
	if (!mkdtemp(dir) || chdir(dir) || mkdir("home-ca", 0700) ||
	    sm_cert_save(pki.ca, "home-ca/ca.pem", false, error) ||
	    sm_key_save(pki.ca_key, "home-ca/ca.key", NULL, error))
		return -1;
	return 0;
}

static void remove_tree(const char *path)
{
	DIR *d = opendir(path);

	assert_non_null(d);
	for (const struct dirent *e; (e = readdir(d));) {
		char below[512];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
		if (unlink(below))
			remove_tree(below);
	}
	closedir(d);
	assert_int_equal(rmdir(path), 0);
}

static int tear_down(void **state)
{
	(void)state;
	assert_int_equal(chdir("/"), 0);
	remove_tree(dir);
	return 0;
}

static int store_open(const char *where, bool write, struct sm_ca_store *ret_store)
{
	int code;

	capture_begin(&got);
	code = sm_ca_store_open(&self, where, write, ret_store);
	capture_end(&got);
	assert_int_equal(code == SM_EXIT_OK, got.err[0] == '\0'); /* never without a word */
	return code;
}

static void expect_open_error(const char *where, const char *part)
{
	struct sm_ca_store store = {.lock = -7};

	assert_int_equal(store_open(where, false, &store), SM_EXIT_FAILURE);
	if (!strstr(got.err, part))
		fail_msg("no '%s' in %s", part, got.err);
	assert_int_equal(store.lock, -7); /* untouched */
}

static void test_found(void **state)
{
	struct sm_ca_store store;
	char path[PATH_MAX];

	(void)state;
	/* by name, as the only one here, from within, by the environment */
	assert_int_equal(store_open("home-ca", false, &store), SM_EXIT_OK);
	assert_string_equal(store.dir, "home-ca");
	assert_string_equal(store.network, "test");
	assert_memory_equal(store.network_id, pki.network_id, SM_NETWORK_ID_LEN);
	assert_null(store.crl);
	assert_int_equal(store.count, 0);
	assert_int_equal(store.lock, -1);
	assert_string_equal(sm_ca_store_path(&store, "x", path), "home-ca/x");
	sm_ca_store_close(&store);
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	assert_string_equal(store.dir, "home-ca");
	sm_ca_store_close(&store);
	assert_int_equal(chdir("home-ca"), 0);
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	assert_string_equal(store.dir, ".");
	sm_ca_store_close(&store);
	assert_int_equal(chdir("/"), 0);
	expect_open_error(NULL, "no CA here");
	setenv("SHADOWMESH_CA", at("home-ca"), 1);
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	sm_ca_store_close(&store);
	setenv("SHADOWMESH_CA", "/nowhere", 1);
	expect_open_error(NULL, "/nowhere: holds no ca.pem");
}

static void test_not_found(void **state)
{
	static char much[PATH_MAX];
	char error[SM_CERT_ERROR_MAX];

	(void)state;
	expect_open_error("away-ca", "away-ca: holds no ca.pem");
	memset(much, 'x', sizeof(much) - 1);
	expect_open_error(much, "too long a path");
	assert_int_equal(mkdir(at("empty-ca"), 0700), 0); /* holds none, so it is no choice */
	assert_int_equal(mkdir(at("second-ca"), 0700), 0);
	assert_int_equal(sm_cert_save(pki.ca, at("second-ca/ca.pem"), false, error), 0);
	expect_open_error(NULL, "several CAs here");
}

static void test_lock(void **state)
{
	struct sm_ca_store writer, reader, second = {.lock = -7};

	(void)state;
	assert_int_equal(store_open(NULL, true, &writer), SM_EXIT_OK);
	assert_true(writer.lock >= 0);
	assert_int_equal(store_open(NULL, true, &second), SM_EXIT_FAILURE);
	assert_non_null(strstr(got.err, "another shadowmesh ca is at work there"));
	assert_int_equal(store_open(NULL, false, &reader), SM_EXIT_OK);
	sm_ca_store_close(&reader);
	sm_ca_store_close(&writer);
	assert_int_equal(store_open(NULL, true, &second), SM_EXIT_OK);
	sm_ca_store_close(&second);
}

static void test_add(void **state)
{
	struct sm_ca_store store;

	(void)state;
	assert_int_equal(store_open(NULL, true, &store), SM_EXIT_OK);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(sm_ca_store_add(&self, &store, node[i].cert), SM_EXIT_OK);
	assert_int_equal(store.count, 0); /* as it was read */
	capture_begin(&got);
	assert_int_equal(sm_ca_store_add(&self, &store, node[0].cert), SM_EXIT_FAILURE);
	assert_int_equal(sm_ca_store_add(&self, &store, pki.ca), SM_EXIT_FAILURE);
	capture_end(&got);
	sm_ca_store_close(&store);
	write_file("home-ca/issued/README", "no certificate, nor meant as one\n");
	write_file("home-ca/issued/.hidden.pem", "left by an editor\n");
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	assert_int_equal(store.count, 3);
	assert_string_equal(store.issued[0].id.name, "alice");
	assert_string_equal(store.issued[1].id.name, "bob");
	assert_string_equal(store.issued[2].id.name, "zoe");
	sm_ca_store_close(&store);
	/* one that cannot be read holds an address that might be given twice */
	write_file("home-ca/issued/eve-00.pem", "damaged\n");
	expect_open_error(NULL, "issued/eve-00.pem: ");
}

static void test_damaged(void **state)
{
	static const struct {
		const char *file, *error;
	} rows[] = {
		{"home-ca/ca.pem", "ca.pem"},
		{"home-ca/crl.pem", "crl.pem"},
		{"home-ca/issued", "issued: Not a directory"},
	};
	char error[SM_CERT_ERROR_MAX];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		write_file(rows[i].file, "damaged\n");
		expect_open_error(NULL, rows[i].error);
		assert_int_equal(unlink(at(rows[i].file)), 0);
		assert_int_equal(sm_cert_save(pki.ca, at("home-ca/ca.pem"), true, error), 0);
	}
	assert_int_equal(sm_cert_save(node[0].cert, at("home-ca/ca.pem"), true, error), 0);
	expect_open_error(NULL, "ca.pem: not a CA");
}

static int load_key(const struct sm_ca_store *store, const char *passphrase, struct sm_key **ret)
{
	int code;

	capture_begin(&got);
	code = sm_ca_store_key(&self, store, passphrase, ret);
	capture_end(&got);
	return code;
}

static void test_key(void **state)
{
	struct sm_ca_store store;
	struct sm_key *key = NULL;
	char error[SM_KEY_ERROR_MAX];

	(void)state;
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	assert_int_equal(load_key(&store, NULL, &key), SM_EXIT_OK);
	assert_true(sm_cert_matches_key(pki.ca, key));
	sm_key_free(key);
	key = NULL;
	assert_int_equal(unlink(at("home-ca/ca.key")), 0);
	assert_int_equal(load_key(&store, NULL, &key), SM_EXIT_FAILURE);
	assert_non_null(strstr(got.err, "ca.key"));
	assert_int_equal(sm_key_save(node[0].key, at("home-ca/ca.key"), NULL, error), 0);
	assert_int_equal(load_key(&store, NULL, &key), SM_EXIT_FAILURE);
	assert_non_null(strstr(got.err, "not the key of ca.pem beside it"));
	assert_null(key);
	assert_int_equal(unlink(at("home-ca/ca.key")), 0);
	assert_int_equal(sm_key_save(pki.ca_key, at("home-ca/ca.key"), "horse", error), 0);
	write_file("p", "horse\n");
	assert_int_equal(chmod(at("p"), 0600), 0);
	assert_int_equal(load_key(&store, at("p"), &key), SM_EXIT_OK);
	sm_key_free(key);
	key = NULL;
	write_file("p", "house\n");
	assert_int_equal(load_key(&store, at("p"), &key), SM_EXIT_FAILURE);
	assert_int_equal(load_key(&store, at("none"), &key), SM_EXIT_FAILURE);
	assert_null(key);
	sm_ca_store_close(&store);
}

static void test_list_and_status(void **state)
{
	struct sm_crl_entry entry = {.revoked_s = NOW_S};
	struct sm_ca_store store;
	struct sm_identity id[3];
	char error[SM_CERT_ERROR_MAX];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(sm_cert_identity(node[i].cert, &id[i], error), 0);
	memcpy(entry.serial, id[1].serial, sizeof(entry.serial));
	entry.serial_len = id[1].serial_len;
	memcpy(entry.fingerprint, id[1].fingerprint, sizeof(entry.fingerprint));
	assert_int_equal(store_open(NULL, true, &store), SM_EXIT_OK);
	assert_string_equal(sm_ca_store_status(&store, &id[1], NOW_S), "valid");
	/* each list has the next number, here and in the file */
	for (uint64_t number = 1; number <= 3; number++) {
		assert_int_equal(sm_ca_store_sign_list(&self, &store, pki.ca_key, &entry, 1, NOW_S,
						       PKI_DAY_S),
				 SM_EXIT_OK);
		assert_int_equal(sm_crl_number(store.crl), number);
	}
	sm_ca_store_close(&store);
	assert_int_equal(store_open(NULL, false, &store), SM_EXIT_OK);
	assert_int_equal(sm_crl_number(store.crl), 3);
	assert_int_equal(sm_crl_next_update(store.crl), NOW_S + PKI_DAY_S);
	assert_string_equal(sm_ca_store_status(&store, &id[0], NOW_S), "valid");
	assert_string_equal(sm_ca_store_status(&store, &id[1], NOW_S), "revoked");
	assert_true(sm_ca_store_live(&store, &id[0], NOW_S));
	assert_false(sm_ca_store_live(&store, &id[1], NOW_S));
	/* zoe's lasts ten days, and the last second counts */
	assert_string_equal(sm_ca_store_status(&store, &id[0], id[0].not_after), "valid");
	assert_string_equal(sm_ca_store_status(&store, &id[0], id[0].not_after + 1), "expired");
	assert_false(sm_ca_store_live(&store, &id[0], id[0].not_after + 1));
	assert_string_equal(sm_ca_store_status(&store, &id[0], id[0].not_before - 1),
			    "not yet valid");
	assert_true(sm_ca_store_live(&store, &id[0], id[0].not_before - 1)); /* it will be */
	/* a folder that cannot be written to: told, and the list in use stays */
	snprintf(store.dir, sizeof(store.dir), "/nowhere");
	capture_begin(&got);
	assert_int_equal(sm_ca_store_sign_list(&self, &store, pki.ca_key, NULL, 0, NOW_S,
					       PKI_DAY_S),
			 SM_EXIT_FAILURE);
	capture_end(&got);
	assert_int_equal(sm_crl_number(store.crl), 3);
	sm_ca_store_close(&store);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		bool days;
		int64_t s; /* -1: refused */
	} rows[] = {
		{"1", true, 86400},
		{"365", true, 365 * 86400},
		{"1000000", true, 86400000000},
		{"0", true, -1},
		{"-1", true, -1},
		{"1000001", true, -1},
		{"1d", true, -1},
		{"", true, -1},
		{"90d", false, 90 * 86400},
		{"1y", false, 365 * 86400},
		{"1s", false, 1},
		{"1ms", false, -1},
		{"0s", false, -1},
		{"x", false, -1},
		{"", false, -1},
		{"-1d", false, -1},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		int64_t s = -1;
		int code;

		capture_begin(&got);
		code = rows[i].days ? sm_ca_parse_days(&self, rows[i].text, &s)
				    : sm_ca_parse_valid(&self, rows[i].text, &s);
		capture_end(&got);
		if (code != (rows[i].s < 0 ? SM_EXIT_USAGE : SM_EXIT_OK) || s != rows[i].s)
			fail_msg("'%s': %d, %lld", rows[i].text, code, (long long)s);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_found),   TEST(test_not_found),       TEST(test_lock),
		TEST(test_add),     TEST(test_damaged),         TEST(test_key),
		TEST(test_numbers), TEST(test_list_and_status),
	};

	return cmocka_run_group_tests_name("ca store", tests, set_up_group, tear_down_group);
}

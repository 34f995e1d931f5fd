// SPDX-License-Identifier: MIT
/*
 * Keys, certificates and lists from files: what is taken, what is refused and with which words, and what
 * is only warned of.
 */
#include "daemons.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HEX_KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"

static struct daemons bed;
static struct sm_config *config;
static struct sm_credentials credentials;
static char error[SM_DAEMON_ERROR_MAX];

static int set_up(void **state)
{
	(void)state;
	daemons_init(&bed);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sm_credentials_done(&credentials);
	sm_config_free(config);
	config = NULL;
	daemons_done(&bed);
	return 0;
}

/* With the configuration of n0; Return: what sm_credentials_load() says */
static int load(void)
{
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));
	int err;

	assert_non_null(errors);
	sm_config_free(config);
	config = NULL;
	if (sm_config_load(daemons_path(&bed, "n0.conf"), &config, errors))
		fail_msg("%s", errors->text[0]);
	free(errors);
	sm_credentials_done(&credentials);
	error[0] = '\0';
	err = sm_credentials_load(config, &credentials, error);
	if (!err)
		return 0;
	assert_true(error[0]); /* never without a word, and nothing half built is left */
	assert_null(credentials.key);
	assert_null(credentials.cert);
	assert_null(credentials.trust);
	assert_null(credentials.tls);
	return err;
}

static void expect_error(int err, const char *part)
{
	const int got = load();

	if (got != err || !strstr(error, part))
		fail_msg("%d: '%s'; wanted %d: '%s'", got, error, err, part);
}

static void test_pinned(void **state)
{
	uint8_t id[SM_NETWORK_ID_LEN], node[SM_NODE_ID_LEN];
	struct sm_identity peer = {.name = "n1"}, stranger = {.name = "n2"};
	enum sm_close_reason reason;
	char why[SM_CERT_ERROR_MAX];

	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 1u << 1, .interface = "Address = 10.7.0.1/24\n"));
	assert_int_equal(load(), 0);
	assert_string_equal(credentials.self.name, "n0");
	assert_int_equal(sm_ident_network_from_name("bed", id), 0);
	assert_memory_equal(credentials.self.network_id, id, sizeof(id));
	assert_int_equal(sm_ident_node_id(id, "n0", credentials.self.fingerprint, node), 0);
	assert_memory_equal(credentials.self.node_id, node, sizeof(node));
	assert_int_equal(credentials.self.not_after, INT64_MAX);
	assert_int_equal(credentials.self.address_count, 1);
	assert_int_equal(credentials.self.addresses[0].len, 24);
	assert_true(sm_cert_matches_key(credentials.cert, credentials.key));
	assert_non_null(credentials.tls);
	/* the configured one is trusted by its fingerprint, another one is not */
	memcpy(peer.network_id, id, sizeof(id));
	memcpy(stranger.network_id, id, sizeof(id));
	assert_int_equal(sm_ident_parse_fingerprint(bed.n[1].fingerprint, peer.fingerprint), 0);
	assert_int_equal(sm_ident_parse_fingerprint(bed.n[2].fingerprint, stranger.fingerprint), 0);
	assert_int_equal(sm_trust_check_identity(credentials.trust, &peer, 1, &reason, why), 0);
	assert_int_equal(sm_trust_check_identity(credentials.trust, &stranger, 1, &reason, why),
			 -EKEYREJECTED);
	/* another name, another node */
	daemons_configure(&bed, 0,
			  CONF(.peers = 1u << 1,
			       .network = "NetworkId = 000102030405060708090a0b0c0d0e0f\n"));
	assert_int_equal(load(), 0);
	assert_int_equal(credentials.self.network_id[15], 15);
	assert_memory_not_equal(credentials.self.node_id, node, sizeof(node));
	sm_credentials_warn(&credentials);
	assert_string_equal(bed.log, "");
}

/* An identical pin twice is a mistake that no [Peer] check sees when it is made in memory. */
static void test_pin_twice(void **state)
{
	(void)state;
	daemons_configure(&bed, 0, CONF(.peers = 6));
	assert_int_equal(load(), 0);
	snprintf(config->peers[1].name, sizeof(config->peers[1].name), "n1");
	assert_int_equal(sm_credentials_load(config, &credentials, error), -EEXIST);
	assert_memory_equal(error, "cannot pin the peers' keys: ", 28);
}

static void test_certified(void **state)
{
	(void)state;
	daemons_revoke(&bed, DAEMONS_MAX, 1);
	daemons_configure(&bed, 0, CONF(.ca = true, .crl = true));
	assert_int_equal(load(), 0);
	assert_string_equal(credentials.self.name, "n0");
	assert_memory_equal(credentials.self.network_id, bed.pki.network_id, SM_NETWORK_ID_LEN);
	sm_credentials_warn(&credentials);
	assert_string_equal(bed.log, "");
}

/* Each file missing, or with something else in it */
static void test_bad_files(void **state)
{
	static const struct {
		const char *file, *text; /* NULL: it is not there */
		int err;
		const char *error;
	} rows[] = {
		{"n0.key", NULL, -ENOENT, "private key "},
		{"n0.key", "", -EBADMSG, "private key "},
		{"n0.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		 -EBADMSG, "private key "},
		{"n0.pem", NULL, -ENOENT, "certificate "},
		{"n0.pem", "hello\n", -EBADMSG, "certificate "},
		{"ca.pem", NULL, -ENOENT, "CA "},
		{"ca.pem", "hello\n", -EBADMSG, "CA "},
		{"crl.pem", NULL, -ENOENT, "CRL "},
		{"crl.pem", "hello\n", -EBADMSG, "CRL "},
		{"access", NULL, -ENOENT, "access key: "},
		{"access", "0123\n", -EINVAL, "access key: "},
		{"access", HEX_KEY HEX_KEY, -EINVAL, "access key: "},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char at[160];

		daemons_done(&bed);
		daemons_init(&bed);
		daemons_write(&bed, "access", HEX_KEY);
		daemons_revoke(&bed, DAEMONS_MAX, 1);
		daemons_configure(&bed, 0,
				  CONF(.ca = true, .crl = true, .network = "AccessKey = access\n"));
		assert_int_equal(load(), 0);
		assert_int_equal(unlink(daemons_path(&bed, rows[i].file)), 0);
		if (rows[i].text)
			daemons_write(&bed, rows[i].file, rows[i].text);
		expect_error(rows[i].err, rows[i].error);
		/* the file's name, once */
		snprintf(at, sizeof(at), "%s", daemons_path(&bed, rows[i].file));
		assert_non_null(strstr(error, at));
		assert_null(strstr(strstr(error, at) + 1, at));
	}
}

static void test_mode(void **state)
{
	(void)state;
	daemons_configure(&bed, 0, CONF(.ca = true, .network = "AccessKey = access\n"));
	daemons_write(&bed, "access", HEX_KEY);
	assert_int_equal(chmod(daemons_path(&bed, "access"), 0644), 0);
	expect_error(-EPERM, "access key: ");
	assert_int_equal(chmod(daemons_path(&bed, "access"), 0600), 0);
	assert_int_equal(load(), 0);
	assert_int_equal(chmod(daemons_path(&bed, "n0.key"), 0640), 0);
	expect_error(-EPERM, "private key ");
}

static void copy_file(const char *from, const char *to)
{
	static char text[65536];
	FILE *f = fopen(daemons_path(&bed, from), "re");
	size_t len;

	assert_non_null(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[len] = '\0';
	(void)unlink(daemons_path(&bed, to));
	daemons_write(&bed, to, text);
}

/* Good files that do not belong together */
static void test_mismatch(void **state)
{
	struct pki other;
	char why[SM_CERT_ERROR_MAX];

	(void)state;
	daemons_revoke(&bed, 0, 4);
	daemons_configure(&bed, 0, CONF(.ca = true));
	copy_file("n0.pem", "saved");
	copy_file("n1.pem", "n0.pem");
	expect_error(-EINVAL, " is not for the key in ");
	copy_file("ca.pem", "n0.pem");
	expect_error(-EBADMSG, "certificate ");
	copy_file("saved", "n0.pem");
	assert_int_equal(load(), 0);
	/* the certificate of a node is no CA */
	copy_file("ca.pem", "saved");
	copy_file("n1.pem", "ca.pem");
	expect_error(-EINVAL, "CA ");
	/* a CA of the same network that did not sign ours, and a list that it did not sign */
	pki_init(&other, 7, sm_clock_wall_s());
	assert_int_equal(sm_cert_save(other.ca, daemons_path(&bed, "ca.pem"), true, why), 0);
	expect_error(-EKEYREJECTED, "certificate ");
	daemons_configure(&bed, 0, CONF(.ca = true, .crl = true));
	expect_error(-EKEYREJECTED, "CRL ");
	/* a CA of another network */
	pki_done(&other);
	pki_init(&other, 8, sm_clock_wall_s());
	assert_int_equal(sm_cert_save(other.ca, daemons_path(&bed, "ca.pem"), true, why), 0);
	expect_error(-EINVAL, "CA ");
	pki_done(&other);
}

/* No reason to stay down: a reload may bring a better one */
static void test_warned(void **state)
{
	static const struct {
		int64_t days; /* until it expires */
		const char *loaded, *warned;
	} rows[] = {
		{90, NULL, NULL},
		{31, NULL, NULL},
		{29, NULL, "warn: our certificate expires in 28 days"},
		{1, NULL, "warn: our certificate expires in 0 days"},
		{-1, "error: our own certificate: ", NULL},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		daemons_certify(&bed, 0, "n0",
				sm_clock_wall_s() + rows[i].days * PKI_DAY_S - 1 +
					(rows[i].days < 0 ? PKI_DAY_S / 2 : 0));
		daemons_configure(&bed, 0, CONF(.ca = true));
		daemons_log_clear(&bed);
		assert_int_equal(load(), 0);
		assert_int_equal(daemons_logged(&bed, rows[i].loaded ? rows[i].loaded : "error: "),
				 rows[i].loaded != NULL);
		sm_credentials_warn(&credentials);
		assert_int_equal(daemons_logged(&bed, rows[i].warned ? rows[i].warned : "warn: "),
				 rows[i].warned != NULL);
	}
}

static void test_revoked_ourselves(void **state)
{
	(void)state;
	daemons_revoke(&bed, 0, 1);
	daemons_configure(&bed, 0, CONF(.ca = true, .crl = true));
	assert_int_equal(load(), 0);
	assert_true(daemons_logged(&bed, "error: our own certificate: "));
	assert_true(daemons_logged(&bed, "; peers will refuse it"));
}

static void test_stale_list(void **state)
{
	const int64_t now_s = sm_clock_wall_s();
	char why[SM_CERT_ERROR_MAX];
	struct sm_crl *crl;

	(void)state;
	assert_int_equal(sm_crl_issue(bed.pki.ca, bed.pki.ca_key, 1, NULL, 0, now_s - PKI_DAY_S / 2,
				      now_s - 10, &crl, why),
			 0);
	assert_int_equal(sm_crl_save(crl, daemons_path(&bed, "crl.pem"), why), 0);
	sm_crl_free(crl);
	daemons_configure(&bed, 0, CONF(.ca = true, .crl = true));
	assert_int_equal(load(), 0);
	sm_credentials_warn(&credentials);
	assert_true(daemons_logged(&bed, "warn: the revocation list is out of date"));
}

static void test_passphrase(void **state)
{
	static const struct {
		const char *text;
		int err;
	} rows[] = {
		{"open sesame\n", 0},
		{"open sesame\nsecond line\n", 0},
		{"open says me\n", -EACCES},
		{"\n", -EACCES},
	};
	char why[SM_KEY_ERROR_MAX];

	(void)state;
	assert_int_equal(unlink(daemons_path(&bed, "n0.key")), 0);
	assert_int_equal(sm_key_save(bed.n[0].identity.key, daemons_path(&bed, "n0.key"),
				     "open sesame", why),
			 0);
	daemons_configure(&bed, 0, CONF(.ca = true));
	expect_error(-EACCES, "private key "); /* no PassphraseFile at all */
	daemons_write(&bed, "pass", "open sesame\n");
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		char *text = NULL;
		size_t len;
		FILE *f;

		/* PassphraseFile belongs to [Node], which ends before [Interface] */
		daemons_configure(&bed, 0, CONF(.ca = true));
		f = fopen(daemons_path(&bed, "n0.conf"), "re");
		assert_non_null(f);
		assert_true(getdelim(&text, &len, '\0', f) > 0);
		fclose(f);
		f = fopen(daemons_path(&bed, "n0.conf"), "we");
		assert_non_null(f);
		fprintf(f, "%.*s[Node]\nPassphraseFile = pass\n%s",
			(int)(strstr(text, "[Node]\n") - text), text,
			strstr(text, "[Node]\n") + strlen("[Node]\n"));
		fclose(f);
		free(text);
		daemons_write(&bed, "pass", rows[i].text);
		if (rows[i].err)
			expect_error(rows[i].err, "private key ");
		else
			assert_int_equal(load(), 0);
	}
}

static void test_done_twice(void **state)
{
	struct sm_credentials none = {0};

	(void)state;
	sm_credentials_done(&none);
	daemons_configure(&bed, 0, CONF(.ca = true));
	assert_int_equal(load(), 0);
	sm_credentials_done(&credentials);
	assert_null(credentials.tls);
	sm_credentials_done(&credentials);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_pinned),     TEST(test_pin_twice),
		TEST(test_certified),  TEST(test_bad_files),
		TEST(test_mode),       TEST(test_mismatch),
		TEST(test_warned),     TEST(test_revoked_ourselves),
		TEST(test_stale_list), TEST(test_passphrase),
		TEST(test_done_twice),
	};

	return cmocka_run_group_tests_name("credentials", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Command lines as users type them, in a folder of their own: the life of a CA and of its nodes' keys, the
 * table of commands itself, and what is refused on the way. Each row builds on those before it.
 */
#include "capture.h"
#include "crypto/cert.h"
#include "crypto/crypto.h"

#include "base/clock.h"

#include <dirent.h>
#include <sys/stat.h>

#include <jansson.h>

static char dir[64];
static struct capture got;

struct row {
	const char *line;
	int code;
	const char *out, *err; /* NULL: nothing is printed there */
};

static void expect_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		capture_expect(&got, rows[i].line, rows[i].code, rows[i].out, rows[i].err);
}

static int set_up(void **state)
{
	(void)state;
	unsetenv("SHADOWMESH_CA");
	snprintf(dir, sizeof(dir), "/tmp/sm-ca-XXXXXX");
	return !mkdtemp(dir) || chdir(dir);
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

static void write_secret(const char *name, const char *text)
{
	FILE *f = fopen(name, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(name, 0600), 0);
}

static void test_commands(void **state)
{
	static const struct row rows[] = {
		{"", SM_EXIT_USAGE, NULL, "usage: shadowmesh COMMAND "},
		{"--help", SM_EXIT_OK, "usage: shadowmesh COMMAND ", NULL},
		{"-h", SM_EXIT_OK, "usage: shadowmesh COMMAND ", NULL},
		{"help", SM_EXIT_OK, "  status       ", NULL},
		{"help ping", SM_EXIT_OK, "usage: shadowmesh ping ", NULL},
		{"help ca issue", SM_EXIT_OK, "usage: shadowmesh ca issue NAME", NULL},
		{"help ca fly", SM_EXIT_USAGE, NULL, "unknown command 'fly'"},
		{"help fly", SM_EXIT_USAGE, NULL, "shadowmesh help: unknown command 'fly'"},
		{"statsu", SM_EXIT_USAGE, NULL, "unknown command 'statsu', did you mean 'status'?"},
		{"--fly", SM_EXIT_USAGE, NULL, "shadowmesh: unknown option '--fly'"},
		{"--version", SM_EXIT_OK, "shadowmesh " SM_VERSION "\n", NULL},
		{"-V", SM_EXIT_OK, "shadowmesh " SM_VERSION "\n", NULL},
		{"version --json", SM_EXIT_OK, "\"version\": \"" SM_VERSION "\"", NULL},
		{"version x", SM_EXIT_USAGE, NULL, "'x' is too much"},
		{"up", SM_EXIT_USAGE, NULL, "which network? give its configuration: -c FILE"},
		{"up -c x y", SM_EXIT_USAGE, NULL, "'y' is too much"},
		{"up -L loud -c x", SM_EXIT_USAGE, NULL, "'loud' is no level"},
		{"up -c none.conf", SM_EXIT_FAILURE, NULL, "none.conf: No such file"},
		{"config", SM_EXIT_USAGE, NULL, "usage: shadowmesh config "},
		{"config check", SM_EXIT_USAGE, NULL, "give one configuration file"},
		{"config check none.conf", SM_EXIT_FAILURE, NULL, "none.conf: No such file"},
		{"config check none.conf --json", SM_EXIT_FAILURE, "\"ok\": false", NULL},
	};

	(void)state;
	expect_rows(rows, SM_ARRAY_SIZE(rows));
	/* each has a page with its synopsis, and says no to an option that it does not know */
	for (size_t i = 0; sm_cli_commands[i]; i++) {
		char line[64], want[64];

		snprintf(line, sizeof(line), "%s --help", sm_cli_commands[i]->name);
		snprintf(want, sizeof(want), "usage: shadowmesh %s", sm_cli_commands[i]->name);
		capture_expect(&got, line, SM_EXIT_OK, want, NULL);
		assert_non_null(strstr(got.out, "xample")); /* and an example */
		snprintf(line, sizeof(line), "%s --zzzzzz", sm_cli_commands[i]->name);
		capture_expect(&got, line, SM_EXIT_USAGE, NULL, "--zzzzzz'");
	}
}

static void test_ca(void **state)
{
	static const struct row rows[] = {
		{"ca list", SM_EXIT_FAILURE, NULL, "no CA here"},
		{"ca init", SM_EXIT_USAGE, NULL, "give the network's name"},
		{"ca init Home", SM_EXIT_USAGE, NULL, "'Home' is no name"},
		{"ca init home --days 0", SM_EXIT_USAGE, NULL, "'0' is no number of days"},
		{"ca init home --valid soon", SM_EXIT_USAGE, NULL, "'soon' is no duration"},
		{"ca init home --dir /dev/null/x", SM_EXIT_FAILURE, NULL, "cannot make the folder"},
		{"ca init home", SM_EXIT_OK, "network      home\n", NULL},
		{"ca init home", SM_EXIT_FAILURE, NULL, "home-ca: holds a CA already"},
		{"ca issue", SM_EXIT_USAGE, NULL, "give the node's name"},
		{"ca issue Alice", SM_EXIT_USAGE, NULL, "'Alice' is no name"},
		{"ca issue alice --address x", SM_EXIT_USAGE, NULL, "'x'"},
		{"ca issue alice --prefix 10.0.0.0/40", SM_EXIT_USAGE, NULL,
		 "is no prefix such as"},
		{"ca issue alice --group A;B", SM_EXIT_USAGE, NULL, "A;B"},
		{"ca issue alice --role king", SM_EXIT_USAGE, NULL, "'king' is no role"},
		{"ca issue alice --key a --request b", SM_EXIT_USAGE, NULL, "exclude each other"},
		{"ca issue alice --key none.key", SM_EXIT_FAILURE, NULL, "none.key"},
		{"ca list", SM_EXIT_OK, "", NULL}, /* nothing came of all that */
		{"ca issue alice --address 10.7.0.2/24 --group db --role relay --days 30",
		 SM_EXIT_OK, "./alice.pem    its certificate, valid until ", NULL},
		{"ca issue alice --address 10.7.0.2/24", SM_EXIT_FAILURE, NULL, "alice.key"},
		{"ca issue bob --address 10.7.0.2/24", SM_EXIT_FAILURE, NULL, "alice"},
		{"ca issue bob --address 10.7.0.3/24", SM_EXIT_OK, "./bob.key    ", NULL},
		{"ca list", SM_EXIT_OK, "\nbob ", NULL},
		{"ca list x", SM_EXIT_USAGE, NULL, "takes no name"},
		{"ca list --json", SM_EXIT_OK, "\"name\": \"alice\"", NULL},
		{"ca show", SM_EXIT_OK, "issued       2 certificates\n", NULL},
		{"ca show alice", SM_EXIT_OK, "groups       db\n", NULL},
		{"ca show alice --verify", SM_EXIT_OK, "verdict      accepted\n", NULL},
		{"ca show eve", SM_EXIT_FAILURE, NULL, "eve"},
		{"ca show --verify", SM_EXIT_USAGE, NULL, "--verify wants a name or --file"},
		{"ca show alice --ca x", SM_EXIT_USAGE, NULL, "--ca and --crl go with --file"},
		{"ca show --file alice.pem --verify --ca home-ca/ca.pem", SM_EXIT_OK,
		 "verdict      accepted\n", NULL},
		{"ca show --file none.pem", SM_EXIT_FAILURE, NULL, "none.pem"},
		{"ca revoke", SM_EXIT_USAGE, NULL, "give one name or serial number"},
		{"ca revoke alice --reason bored", SM_EXIT_USAGE, NULL, "bored"},
		{"ca revoke eve", SM_EXIT_FAILURE, NULL, "no certificate of 'eve' was issued here"},
		{"ca revoke alice --reason keyCompromise", SM_EXIT_OK, "revoked: alice, serial ",
		 NULL},
		{"ca revoke alice", SM_EXIT_FAILURE, NULL, "is revoked or expired already"},
		{"ca show alice", SM_EXIT_OK, "status       revoked\n", NULL},
		{"ca show alice --verify", SM_EXIT_FAILURE, "", "refused: "},
		{"ca show --file alice.pem --verify --ca home-ca/ca.pem --crl home-ca/crl.pem",
		 SM_EXIT_FAILURE, "", "refused: "},
		{"ca issue alice --address 10.7.0.2/24 --key alice.key", SM_EXIT_FAILURE, NULL,
		 "this key is revoked"},
		{"ca crl alice", SM_EXIT_USAGE, NULL, "takes no name and no reason"},
		{"ca crl --next-update 90d", SM_EXIT_OK, "list number 3, 1 entry", NULL},
		{"ca show", SM_EXIT_OK, "number 3, 1 revoked\n", NULL},
		/* its address is free again */
		{"ca issue carol --address 10.7.0.2/24", SM_EXIT_OK, "serial ", NULL},
	};

	(void)state;
	expect_rows(rows, SM_ARRAY_SIZE(rows));
}

/* What was written is what was asked for. */
static void test_files(void **state)
{
	char error[SM_CERT_ERROR_MAX], text[SM_ADDR_STRLEN];
	const int64_t now_s = sm_clock_wall_s();
	struct sm_identity id;
	struct sm_cert *cert;
	struct stat st;
	json_t *list;

	(void)state;
	assert_int_equal(stat("bob.key", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat("home-ca/ca.key", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(sm_cert_load("alice.pem", &cert, error), 0);
	assert_int_equal(sm_cert_identity(cert, &id, error), 0);
	assert_string_equal(id.name, "alice");
	assert_int_equal(id.address_count, 1);
	assert_string_equal(sm_prefix_format(&id.addresses[0], text), "10.7.0.2/24");
	assert_int_equal(id.roles, SM_ROLE_RELAY);
	assert_string_equal(id.groups[0], "db");
	assert_in_range(id.not_after, now_s + 30 * 86400 - 120, now_s + 30 * 86400);
	sm_cert_free(cert);
	capture_expect(&got, "ca list --json", SM_EXIT_OK, "carol", NULL);
	list = json_loads(got.out, JSON_DECODE_ANY, NULL);
	assert_non_null(list);
	json_decref(list);
}

static void test_keys(void **state)
{
	static const struct row rows[] = {
		{"keygen x", SM_EXIT_USAGE, NULL, "takes no argument but options"},
		{"keygen -o dave.key", SM_EXIT_OK, "sha256:", NULL},
		{"keygen -o dave.key", SM_EXIT_FAILURE, NULL, "dave.key"},
		{"keygen -o /nowhere/x.key", SM_EXIT_FAILURE, NULL, "/nowhere/x.key"},
		{"keygen -o p.key --passphrase-file pass", SM_EXIT_OK, "sha256:", NULL},
		{"fingerprint p.key --passphrase-file pass", SM_EXIT_OK, "sha256:", NULL},
		{"fingerprint p.key --passphrase-file wrong", SM_EXIT_FAILURE, NULL, "p.key"},
		{"fingerprint", SM_EXIT_USAGE, NULL, "give one file"},
		{"fingerprint none", SM_EXIT_FAILURE, NULL, "none"},
		{"fingerprint pass", SM_EXIT_FAILURE, NULL, "pass"},
		{"request Dave", SM_EXIT_USAGE, NULL, "'Dave' is no name"},
		{"request", SM_EXIT_USAGE, NULL, "give the node's name"},
		{"request dave", SM_EXIT_FAILURE, NULL, "dave.key: exists; cure: --key"},
		{"request dave --key dave.key", SM_EXIT_OK,
		 "for the CA: shadowmesh ca issue dave --request dave.req", NULL},
		{"request erin", SM_EXIT_OK, "erin.key    the private key: stays here\n", NULL},
		{"ca issue dave --request pass", SM_EXIT_FAILURE, NULL, "pass"},
		{"ca issue frank --request dave.req", SM_EXIT_FAILURE, NULL, "dave"},
		{"ca issue dave --request dave.req", SM_EXIT_OK, "./dave.pem    ", NULL},
	};
	static const char *const same[] = {"fingerprint dave.key", "fingerprint dave.req",
					   "fingerprint dave.pem"};
	char first[128] = "";

	(void)state;
	write_secret("pass", "open sesame\n");
	write_secret("wrong", "open says me\n");
	expect_rows(rows, SM_ARRAY_SIZE(rows));
	for (size_t i = 0; i < SM_ARRAY_SIZE(same); i++) {
		capture_expect(&got, same[i], SM_EXIT_OK, "sha256:", NULL);
		if (i == 0)
			snprintf(first, sizeof(first), "%.100s", got.out);
		assert_string_equal(got.out, first);
	}
	assert_int_equal(strlen(first), 7 + 64 + 1);
}

/* A CA whose key is under a passphrase is of use with it alone. */
static void test_ca_passphrase(void **state)
{
	static const struct row rows[] = {
		{"ca init away --passphrase-file empty", SM_EXIT_FAILURE, NULL, "nothing was made"},
		{"ca init away --passphrase-file pass", SM_EXIT_OK, "network      away\n", NULL},
		{"ca issue zoe --dir away-ca --passphrase-file wrong", SM_EXIT_FAILURE, NULL,
		 "ca.key"},
		{"ca issue zoe --dir away-ca --passphrase-file pass --out /nowhere",
		 SM_EXIT_FAILURE, NULL, "/nowhere"},
		{"ca issue zoe --dir away-ca --passphrase-file pass", SM_EXIT_OK, "./zoe.pem",
		 NULL},
		{"ca list", SM_EXIT_FAILURE, NULL, "several CAs here"},
		{"ca show --file zoe.pem --verify --ca home-ca/ca.pem", SM_EXIT_FAILURE, "",
		 "refused: "},
	};

	(void)state;
	write_secret("empty", "\n");
	expect_rows(rows, SM_ARRAY_SIZE(rows));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands),      cmocka_unit_test(test_ca),
		cmocka_unit_test(test_files),         cmocka_unit_test(test_keys),
		cmocka_unit_test(test_ca_passphrase),
	};

	return cmocka_run_group_tests_name("ca", tests, set_up, tear_down);
}

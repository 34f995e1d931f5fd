// SPDX-License-Identifier: MIT
/*
 * shadowmesh keygen, fingerprint, request: a node's own key. Needs no daemon.
 */
#include "cli/ca_store.h"
#include "cli/cli.h"
#include "cli/passphrase.h"
#include "crypto/cert.h"
#include "crypto/crypto.h"
#include "crypto/file.h"

#include <limits.h>
#include <unistd.h>

#define ANY_FILE_MAX ((size_t)256 * 1024)

enum {
	OPT_PASSPHRASE = 256,
	OPT_PASSPHRASE_FILE,
	OPT_KEY,
};

static int print_fingerprint(const struct sm_cli_command *self,
			     const uint8_t fp[SM_FINGERPRINT_LEN])
{
	char text[SM_FINGERPRINT_STRLEN];

	if (puts(sm_ident_format_fingerprint(fp, text)) == EOF || fflush(stdout) != 0)
		return sm_cli_fail(self, "cannot write the answer");
	return SM_EXIT_OK;
}

/* Make a key at @path; @passphrase: NULL for none */
static int make_key(const struct sm_cli_command *self, const char *path,
		    struct sm_passphrase *passphrase, struct sm_key **ret_key)
{
	char error[SM_KEY_ERROR_MAX], text[SM_PASSPHRASE_SIZE] = "";
	int err;

	if (access(path, F_OK) == 0 && strncmp(path, "/dev/", 5) != 0)
		return sm_cli_fail(self,
				   "%s: exists already and is not overwritten; cure: another "
				   "name, or move it away",
				   path);
	if (passphrase && sm_passphrase_choose(passphrase, text, sizeof(text)) != 0)
		return sm_cli_fail(self, "no passphrase, no key: nothing was made");
	if (sm_key_generate(ret_key) != 0) {
		sm_wipe(text, sizeof(text));
		return sm_cli_fail(self, "cannot make a key: %s", sm_crypto_error());
	}
	err = sm_key_save(*ret_key, path, passphrase ? text : NULL, error);
	sm_wipe(text, sizeof(text));
	if (!err)
		return SM_EXIT_OK;
	sm_key_free(*ret_key);
	*ret_key = NULL;
	return sm_cli_fail(self, "%s", error);
}

/* --- keygen --- */

static int run_keygen(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"out", required_argument, NULL, 'o'},
		{"passphrase", no_argument, NULL, OPT_PASSPHRASE},
		{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct sm_passphrase passphrase = {NULL, "the new key"};
	uint8_t fp[SM_FINGERPRINT_LEN];
	const char *path = "node.key";
	struct sm_key *key = NULL;
	bool encrypt = false;
	int opt, code;

	while ((opt = sm_cli_getopt(self, argc, argv, "o:", longs)) >= 0) {
		if (opt == 'o') {
			path = optarg;
			continue;
		}
		encrypt = true;
		if (opt == OPT_PASSPHRASE_FILE)
			passphrase.file = optarg;
	}
	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	if (argc != optind)
		return sm_cli_usage(self,
				    "takes no argument but options; the file's name: -o FILE");
	code = sm_ca_start_crypto(self);
	if (code == SM_EXIT_OK)
		code = make_key(self, path, encrypt ? &passphrase : NULL, &key);
	if (code != SM_EXIT_OK)
		return code;
	if (sm_key_fingerprint(key, fp) != 0)
		code = sm_cli_fail(self, "cannot compute the fingerprint");
	else
		code = print_fingerprint(self, fp);
	sm_key_free(key);
	return code;
}

const struct sm_cli_command sm_cli_keygen = {
	.name = "keygen",
	.synopsis = "[-o FILE] [--passphrase | --passphrase-file FILE]",
	.summary = "make a private key; prints its fingerprint",
	.help = "  -o, --out FILE          where to (default: node.key); never overwritten, mode 0600\n"
		"  --passphrase            ask for a passphrase, and encrypt the key under it\n"
		"  --passphrase-file FILE  take it from the first line of a file of mode 0600;\n"
		"                          - for standard input\n"
		"\n"
		"Examples:\n"
		"  shadowmesh keygen\n"
		"  shadowmesh keygen -o /etc/shadowmesh/home.key\n",
	.run = run_keygen,
};

/* --- fingerprint --- */

static int fingerprint_of_key(const struct sm_cli_command *self, const char *path,
			      const char *passphrase_file, uint8_t *ret_fp)
{
	struct sm_passphrase passphrase = {passphrase_file, path};
	char error[SM_KEY_ERROR_MAX];
	struct sm_key *key = NULL;
	int err;

	if (sm_key_load(path, sm_passphrase_read, &passphrase, &key, error) != 0)
		return sm_cli_fail(self, "%s", error);
	err = sm_key_fingerprint(key, ret_fp);
	sm_key_free(key);
	return err ? sm_cli_fail(self, "%s: cannot compute the fingerprint", path) : SM_EXIT_OK;
}

static int fingerprint_of_request(const struct sm_cli_command *self, const char *path,
				  uint8_t *ret_fp)
{
	char error[SM_KEY_ERROR_MAX], name[SM_NAME_MAX + 1];
	struct sm_key *key = NULL;
	int err;

	if (sm_cert_request_load(path, &key, name, error) != 0)
		return sm_cli_fail(self, "%s", error);
	err = sm_key_fingerprint(key, ret_fp);
	sm_key_free(key);
	return err ? sm_cli_fail(self, "%s: cannot compute the fingerprint", path) : SM_EXIT_OK;
}

static int fingerprint_of_cert(const struct sm_cli_command *self, const char *path, uint8_t *ret_fp)
{
	char error[SM_CERT_ERROR_MAX];
	struct sm_cert *cert;
	int err;

	if (sm_cert_load(path, &cert, error) != 0)
		return sm_cli_fail(self, "%s", error);
	err = sm_cert_fingerprint(cert, ret_fp);
	sm_cert_free(cert);
	return err ? sm_cli_fail(self, "%s: its key is not ML-DSA-87", path) : SM_EXIT_OK;
}

static int run_fingerprint(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	const char *passphrase_file = NULL, *path;
	char error[SM_CERT_ERROR_MAX];
	uint8_t fp[SM_FINGERPRINT_LEN];
	bool is_key, is_request;
	char *data;
	size_t len;
	int opt, code;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) >= 0)
		passphrase_file = optarg;
	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	if (argc - optind != 1)
		return sm_cli_usage(self, "give one file: a key, a certificate or a request");
	path = argv[optind];
	code = sm_ca_start_crypto(self);
	if (code != SM_EXIT_OK)
		return code;
	if (sm_file_read(path, ANY_FILE_MAX, false, &data, &len, error) != 0)
		return sm_cli_fail(self, "%s", error);
	is_key = strstr(data, "PRIVATE KEY-----") && !strstr(data, "-----BEGIN CERTIFICATE-----");
	is_request = strstr(data, "CERTIFICATE REQUEST-----");
	sm_file_release(data, len);
	if (is_key)
		code = fingerprint_of_key(self, path, passphrase_file, fp);
	else if (is_request)
		code = fingerprint_of_request(self, path, fp);
	else
		code = fingerprint_of_cert(self, path, fp);
	return code == SM_EXIT_OK ? print_fingerprint(self, fp) : code;
}

const struct sm_cli_command sm_cli_fingerprint = {
	.name = "fingerprint",
	.synopsis = "FILE [--passphrase-file FILE]",
	.summary = "of a key, a certificate or a request: the same for all three",
	.help = "What others write into their configuration to trust this node without a CA.\n"
		"\n"
		"  --passphrase-file FILE  passphrase of an encrypted key (default: asked)\n"
		"\n"
		"Example:\n"
		"  shadowmesh fingerprint node.key\n",
	.run = run_fingerprint,
};

/* --- request --- */

struct request {
	const char *name, *key, *out, *passphrase_file;
};

static int make_request(const struct sm_cli_command *self, const struct request *in,
			const struct sm_key *key)
{
	char path[PATH_MAX], error[SM_CERT_ERROR_MAX];

	snprintf(path, sizeof(path), "%s.req", in->name);
	if (sm_cert_request_save(key, in->name, in->out ? in->out : path, error) != 0)
		return sm_cli_fail(self, "%s", error);
	if (!in->out || strncmp(in->out, "/dev/", 5) != 0)
		printf("%s    for the CA: shadowmesh ca issue %s --request %s\n",
		       in->out ? in->out : path, in->name, in->out ? in->out : path);
	return SM_EXIT_OK;
}

static int request(const struct sm_cli_command *self, const struct request *in)
{
	struct sm_passphrase passphrase = {in->passphrase_file, "the node's key"};
	char path[PATH_MAX], error[SM_KEY_ERROR_MAX];
	struct sm_key *key = NULL;
	int code;

	if (in->key) {
		if (sm_key_load(in->key, sm_passphrase_read, &passphrase, &key, error) != 0)
			return sm_cli_fail(self, "%s", error);
	} else {
		snprintf(path, sizeof(path), "%s.key", in->name);
		if (access(path, F_OK) == 0)
			return sm_cli_fail(self, "%s: exists; cure: --key %s to use it", path,
					   path);
		code = make_key(self, path, in->passphrase_file ? &passphrase : NULL, &key);
		if (code != SM_EXIT_OK)
			return code;
		printf("%s    the private key: stays here\n", path);
	}
	code = make_request(self, in, key);
	sm_key_free(key);
	return code;
}

static int run_request(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"key", required_argument, NULL, OPT_KEY},
		{"out", required_argument, NULL, 'o'},
		{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct request in = {0};
	int opt, code;

	while ((opt = sm_cli_getopt(self, argc, argv, "o:", longs)) >= 0) {
		switch (opt) {
		case OPT_KEY:
			in.key = optarg;
			break;
		case 'o':
			in.out = optarg;
			break;
		case OPT_PASSPHRASE_FILE:
			in.passphrase_file = optarg;
			break;
		}
	}
	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	code = sm_cli_take_name(self, argc, argv, "node", &in.name);
	if (code == SM_EXIT_OK)
		code = sm_ca_start_crypto(self);
	return code == SM_EXIT_OK ? request(self, &in) : code;
}

const struct sm_cli_command sm_cli_request = {
	.name = "request",
	.synopsis = "NAME [--key FILE] [-o FILE] [--passphrase-file FILE]",
	.summary = "ask the CA for a certificate, for a key that stays here",
	.help = "  --key FILE              an existing key (default: NAME.key is made)\n"
		"  -o, --out FILE          default: NAME.req\n"
		"  --passphrase-file FILE  passphrase of the key; a new key is encrypted under it\n"
		"\n"
		"Example:\n"
		"  shadowmesh request alice && scp alice.req ca-host:\n",
	.run = run_request,
};

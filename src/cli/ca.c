// SPDX-License-Identifier: MIT
/*
 * shadowmesh ca: making a network's authority and its nodes' certificates. Needs no daemon.
 */
#include "base/clock.h"
#include "cli/ca_revoke.h"
#include "cli/ca_show.h"
#include "cli/ca_store.h"
#include "cli/passphrase.h"
#include "crypto/crypto.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CA_VALID_DEFAULT_S   (INT64_C(3652) * 86400)
#define NODE_VALID_DEFAULT_S (INT64_C(365) * 86400)

enum {
	OPT_DIR = 256,
	OPT_DAYS,
	OPT_VALID,
	OPT_PASSPHRASE,
	OPT_PASSPHRASE_FILE,
	OPT_ADDRESS,
	OPT_PREFIX,
	OPT_GROUP,
	OPT_ROLE,
	OPT_KEY,
	OPT_REQUEST,
	OPT_OUT,
	OPT_FORCE,
};

/* --- ca init --- */

struct init {
	const char *network, *dir, *passphrase_file;
	bool passphrase;
	int64_t valid_s;
};

static int make_folder(const struct sm_cli_command *self, const struct init *in,
		       struct sm_ca_store *store)
{
	int n = in->dir ? snprintf(store->dir, sizeof(store->dir), "%s", in->dir)
			: snprintf(store->dir, sizeof(store->dir), "%s-ca", in->network);
	char path[PATH_MAX];

	if (n < 0 || (size_t)n >= sizeof(store->dir))
		return sm_cli_fail(self, "too long a path");
	if (mkdir(store->dir, 0700) != 0 && errno != EEXIST)
		return sm_cli_fail(self, "%s: cannot make the folder: %s", store->dir,
				   strerror(errno));
	if (access(sm_ca_store_path(store, "ca.pem", path), F_OK) == 0 ||
	    access(sm_ca_store_path(store, "ca.key", path), F_OK) == 0)
		return sm_cli_fail(self, "%s: holds a CA already; cure: another --dir", store->dir);
	if (mkdir(sm_ca_store_path(store, "issued", path), 0755) != 0 && errno != EEXIST)
		return sm_cli_fail(self, "%s: cannot make the folder: %s", path, strerror(errno));
	return SM_EXIT_OK;
}

static int save_ca_key(const struct sm_cli_command *self, const struct init *in,
		       const struct sm_ca_store *store, const struct sm_key *key)
{
	struct sm_passphrase passphrase = {in->passphrase_file, "the CA's key"};
	char path[PATH_MAX], error[SM_KEY_ERROR_MAX], text[SM_PASSPHRASE_SIZE];
	int err = 0;

	if (in->passphrase && sm_passphrase_choose(&passphrase, text, sizeof(text)) != 0)
		return sm_cli_fail(self, "no passphrase, no key: nothing was made");
	err = sm_key_save(key, sm_ca_store_path(store, "ca.key", path),
			  in->passphrase ? text : NULL, error);
	sm_wipe(text, sizeof(text));
	return err ? sm_cli_fail(self, "%s", error) : SM_EXIT_OK;
}

static int fill_folder(const struct sm_cli_command *self, const struct init *in,
		       struct sm_ca_store *store)
{
	char path[PATH_MAX], error[SM_CERT_ERROR_MAX] = "no randomness";
	char hex[2 * SM_NETWORK_ID_LEN + 1], fp_text[SM_FINGERPRINT_STRLEN];
	int64_t now_s = sm_clock_wall_s();
	uint8_t fp[SM_FINGERPRINT_LEN];
	struct sm_key *key = NULL;
	int code = SM_EXIT_FAILURE;

	if (sm_crypto_random(store->network_id, sizeof(store->network_id)) != 0 ||
	    sm_key_generate(&key) != 0 || sm_key_fingerprint(key, fp) != 0 ||
	    sm_cert_new_ca(key, in->network, store->network_id, now_s, in->valid_s, &store->ca,
			   error) != 0) {
		code = sm_cli_fail(self, "%s", error);
		goto out;
	}
	code = save_ca_key(self, in, store, key);
	if (code != SM_EXIT_OK)
		goto out;
	code = sm_ca_store_sign_list(self, store, key, NULL, 0, now_s, SM_CA_LIST_VALID_S);
	if (code == SM_EXIT_OK &&
	    sm_cert_save(store->ca, sm_ca_store_path(store, "ca.pem", path), false, error) != 0)
		code = sm_cli_fail(self, "%s", error);
	if (code != SM_EXIT_OK) { /* a folder with half a CA helps nobody */
		(void)unlink(sm_ca_store_path(store, "ca.key", path));
		(void)unlink(sm_ca_store_path(store, "crl.pem", path));
		goto out;
	}
	printf("network      %s\nnetwork id   %s\nfingerprint  %s\n\n", in->network,
	       sm_text_hex(store->network_id, SM_NETWORK_ID_LEN, hex),
	       sm_ident_format_fingerprint(fp, fp_text));
	printf("%s/ca.key     who has it decides who may join: keep it off the nodes\n"
	       "%s/ca.pem     every node needs a copy\n"
	       "%s/crl.pem    the revocation list, empty so far\n",
	       store->dir, store->dir, store->dir);
out:
	sm_key_free(key);
	return code;
}

static int take_init_option(const struct sm_cli_command *self, int opt, void *arg)
{
	struct init *in = arg;

	switch (opt) {
	case OPT_DIR:
		in->dir = optarg;
		break;
	case OPT_DAYS:
		return sm_ca_parse_days(self, optarg, &in->valid_s);
	case OPT_VALID:
		return sm_ca_parse_valid(self, optarg, &in->valid_s);
	case OPT_PASSPHRASE:
		in->passphrase = true;
		break;
	case OPT_PASSPHRASE_FILE:
		in->passphrase = true;
		in->passphrase_file = optarg;
		break;
	}
	return SM_EXIT_OK;
}

static int run_init(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"dir", required_argument, NULL, OPT_DIR},
		{"days", required_argument, NULL, OPT_DAYS},
		{"valid", required_argument, NULL, OPT_VALID},
		{"passphrase", no_argument, NULL, OPT_PASSPHRASE},
		{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct init in = {.valid_s = CA_VALID_DEFAULT_S};
	struct sm_ca_store store = {.lock = -1};
	int code;

	if (!sm_cli_options(self, argc, argv, longs, take_init_option, &in, &code))
		return code;
	code = sm_cli_take_name(self, argc, argv, "network", &in.network);
	if (code != SM_EXIT_OK)
		return code;
	code = sm_ca_start_crypto(self);
	if (code == SM_EXIT_OK)
		code = make_folder(self, &in, &store);
	if (code == SM_EXIT_OK)
		code = fill_folder(self, &in, &store);
	sm_ca_store_close(&store);
	return code;
}

static const struct sm_cli_command ca_init = {
	.name = "ca init",
	.synopsis = "NETWORK [--dir DIR] [--valid DURATION | --days N] [--passphrase]",
	.summary = "make the authority of a new network",
	.help = "  --dir DIR               folder to make (default: NETWORK-ca here)\n"
		"  --valid DURATION        how long the CA is valid (default: 10y)\n"
		"  --days N                the same in days\n"
		"  --passphrase            ask for a passphrase, and encrypt the CA's key under it\n"
		"  --passphrase-file FILE  take it from the first line of a file of mode 0600;\n"
		"                          - for standard input\n"
		"\n"
		"Examples:\n"
		"  shadowmesh ca init home\n"
		"  shadowmesh ca init home --dir /media/usb/home-ca --passphrase\n",
	.run = run_init,
};

/* --- ca issue --- */

struct issue {
	struct sm_identity id;
	const char *dir, *key, *request, *out, *passphrase_file;
	int64_t valid_s;
	bool force;
};

static int add_address(const struct sm_cli_command *self, struct sm_identity *id, const char *text)
{
	struct sm_prefix *address = &id->addresses[id->address_count];

	if (id->address_count == SM_IDENT_ADDRESS_MAX)
		return sm_cli_usage(self, "more than %u addresses", SM_IDENT_ADDRESS_MAX);
	if (!strchr(text, '/') || sm_prefix_parse(text, address) != 0)
		return sm_cli_usage(self,
				    "'%s' is no address with its network's length, such as "
				    "10.7.0.2/24",
				    text);
	id->address_count++;
	return SM_EXIT_OK;
}

static int add_prefix(const struct sm_cli_command *self, struct sm_identity *id, const char *text)
{
	if (id->prefix_count == SM_IDENT_PREFIX_MAX)
		return sm_cli_usage(self, "more than %u prefixes", SM_IDENT_PREFIX_MAX);
	if (!strchr(text, '/') || sm_prefix_parse(text, &id->prefixes[id->prefix_count]) != 0)
		return sm_cli_usage(self, "'%s' is no prefix such as 10.9.0.0/16", text);
	id->prefix_count++;
	return SM_EXIT_OK;
}

static int add_group(const struct sm_cli_command *self, struct sm_identity *id, const char *text)
{
	if (id->group_count == SM_IDENT_GROUP_MAX)
		return sm_cli_usage(self, "more than %u groups", SM_IDENT_GROUP_MAX);
	if (!sm_text_is_name(text) || strlen(text) > SM_GROUP_NAME_MAX)
		return sm_cli_usage(self,
				    "'%s' is no group: 1 to %u characters of a-z, 0-9 and '-'",
				    text, SM_GROUP_NAME_MAX);
	memcpy(id->groups[id->group_count++], text, strlen(text) + 1);
	return SM_EXIT_OK;
}

static int add_role(const struct sm_cli_command *self, struct sm_identity *id, const char *text)
{
	uint32_t role;

	if (sm_ident_parse_role(text, &role) != 0)
		return sm_cli_usage(self, "'%s' is no role: issuer, rendezvous, relay", text);
	id->roles |= role;
	return SM_EXIT_OK;
}

static int take_issue_option(const struct sm_cli_command *self, int opt, void *arg)
{
	struct issue *in = arg;

	switch (opt) {
	case OPT_DIR:
		in->dir = optarg;
		break;
	case OPT_ADDRESS:
		return add_address(self, &in->id, optarg);
	case OPT_PREFIX:
		return add_prefix(self, &in->id, optarg);
	case OPT_GROUP:
		return add_group(self, &in->id, optarg);
	case OPT_ROLE:
		return add_role(self, &in->id, optarg);
	case OPT_VALID:
		return sm_ca_parse_valid(self, optarg, &in->valid_s);
	case OPT_DAYS:
		return sm_ca_parse_days(self, optarg, &in->valid_s);
	case OPT_KEY:
		in->key = optarg;
		break;
	case OPT_REQUEST:
		in->request = optarg;
		break;
	case OPT_OUT:
		in->out = optarg;
		break;
	case OPT_FORCE:
		in->force = true;
		break;
	case OPT_PASSPHRASE_FILE:
		in->passphrase_file = optarg;
		break;
	}
	return SM_EXIT_OK;
}

/* Return: true if the command goes on */
static bool parse_issue(const struct sm_cli_command *self, int argc, char **argv, struct issue *in,
			int *ret_code)
{
	static const struct option longs[] = {
		{"dir", required_argument, NULL, OPT_DIR},
		{"address", required_argument, NULL, OPT_ADDRESS},
		{"prefix", required_argument, NULL, OPT_PREFIX},
		{"group", required_argument, NULL, OPT_GROUP},
		{"role", required_argument, NULL, OPT_ROLE},
		{"valid", required_argument, NULL, OPT_VALID},
		{"days", required_argument, NULL, OPT_DAYS},
		{"key", required_argument, NULL, OPT_KEY},
		{"request", required_argument, NULL, OPT_REQUEST},
		{"out", required_argument, NULL, OPT_OUT},
		{"force", no_argument, NULL, OPT_FORCE},
		{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	const char *name;

	if (!sm_cli_options(self, argc, argv, longs, take_issue_option, in, ret_code))
		return false;
	*ret_code = sm_cli_take_name(self, argc, argv, "node", &name);
	if (*ret_code != SM_EXIT_OK)
		return false;
	if (in->key && in->request) {
		*ret_code = sm_cli_usage(self, "--key and --request exclude each other");
		return false;
	}
	memcpy(in->id.name, name, strlen(name) + 1);
	return true;
}

static bool same_address(const struct sm_prefix *a, const struct sm_prefix *b)
{
	return a->family == b->family && memcmp(a->ip, b->ip, a->family == 4 ? 4 : 16) == 0;
}

/* No address may have two holders; a node's own earlier certificate does not count */
static int check_addresses(const struct sm_cli_command *self, const struct sm_ca_store *store,
			   const struct issue *in, int64_t now_s)
{
	char text[SM_ADDR_STRLEN];

	for (size_t i = 0; !in->force && i < store->count; i++) {
		const struct sm_identity *other = &store->issued[i].id;

		if (strcmp(other->name, in->id.name) == 0 || !sm_ca_store_live(store, other, now_s))
			continue;
		for (size_t a = 0; a < in->id.address_count; a++)
			for (size_t b = 0; b < other->address_count; b++) {
				if (!same_address(&in->id.addresses[a], &other->addresses[b]))
					continue;
				sm_prefix_format(&in->id.addresses[a], text);
				return sm_cli_fail(self,
						   "%s belongs to '%s'; cure: another address, or "
						   "shadowmesh ca revoke %s, or --force",
						   text, other->name, other->name);
			}
	}
	return SM_EXIT_OK;
}

/* Where NAME.key or NAME.pem goes */
static void out_path(const struct issue *in, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", in->out ? in->out : ".", in->id.name, suffix);
}

/* From --request, from --key, or a new one; @ret_made: NAME.key is to be written */
static int node_key(const struct sm_cli_command *self, const struct issue *in,
		    struct sm_key **ret_key, bool *ret_made)
{
	struct sm_passphrase passphrase = {NULL, "the node's key"};
	char error[SM_KEY_ERROR_MAX], name[SM_NAME_MAX + 1], path[PATH_MAX];

	if (in->request) {
		if (sm_cert_request_load(in->request, ret_key, name, error) != 0)
			return sm_cli_fail(self, "%s", error);
		if (strcmp(name, in->id.name) != 0 && !in->force)
			return sm_cli_fail(self,
					   "%s: a request of '%s', not of '%s'; cure: the right "
					   "name, or --force",
					   in->request, name, in->id.name);
		return SM_EXIT_OK;
	}
	if (in->key)
		return sm_key_load(in->key, sm_passphrase_read, &passphrase, ret_key, error) == 0
			       ? SM_EXIT_OK
			       : sm_cli_fail(self, "%s", error);
	out_path(in, ".key", path);
	if (access(path, F_OK) == 0)
		return sm_cli_fail(self,
				   "%s: exists; cure: --key %s to go on using it, or move it "
				   "away",
				   path, path);
	*ret_made = true;
	return sm_key_generate(ret_key) == 0 ? SM_EXIT_OK : sm_cli_fail(self, "cannot make a key");
}

/* A list names keys, and for good: a certificate for such a key would be refused by every node */
static int check_key(const struct sm_cli_command *self, const struct sm_ca_store *store,
		     const struct issue *in, const struct sm_key *key)
{
	uint8_t fingerprint[SM_FINGERPRINT_LEN];

	if (sm_key_fingerprint(key, fingerprint) != 0)
		return sm_cli_fail(self, "cannot take the key's fingerprint");
	if (!in->force && store->crl && sm_crl_revokes(store->crl, NULL, 0, fingerprint))
		return sm_cli_fail(self, "this key is revoked; cure: a new key for the node");
	return SM_EXIT_OK;
}

static int deliver(const struct sm_cli_command *self, const struct issue *in,
		   const struct sm_ca_store *store, const struct sm_key *key, bool made,
		   const struct sm_cert *cert)
{
	char path[PATH_MAX], error[SM_CERT_ERROR_MAX], text[64], serial[41];
	struct sm_identity id;

	if (sm_cert_identity(cert, &id, error) != 0)
		return sm_cli_fail(self, "%s", error);
	if (made) {
		out_path(in, ".key", path);
		if (sm_key_save(key, path, NULL, error) != 0)
			return sm_cli_fail(self, "%s", error);
		printf("%s    the node's private key: for that node alone\n", path);
	}
	out_path(in, ".pem", path);
	if (sm_cert_save(cert, path, true, error) != 0)
		return sm_cli_fail(self, "%s", error);
	printf("%s    its certificate, valid until %s\n", path,
	       sm_ca_format_time(id.not_after, text));
	printf("%s/ca.pem    the node needs a copy of this too\n", store->dir);
	printf("serial %s\n", sm_text_hex(id.serial, id.serial_len, serial));
	return SM_EXIT_OK;
}

static int issue(const struct sm_cli_command *self, struct issue *in, struct sm_ca_store *store)
{
	int64_t now_s = sm_clock_wall_s(), ca_begin, ca_end, end_s = now_s + in->valid_s;
	char error[SM_CERT_ERROR_MAX];
	struct sm_key *ca_key = NULL, *key = NULL;
	struct sm_cert *cert = NULL;
	bool made = false;
	int code = check_addresses(self, store, in, now_s);

	if (code != SM_EXIT_OK)
		return code;
	if (sm_cert_times(store->ca, &ca_begin, &ca_end) != 0 || ca_end <= now_s)
		return sm_cli_fail(self, "the CA itself has expired; cure: a new one");
	if (end_s > ca_end) {
		fprintf(stderr,
			"shadowmesh: the certificate ends with the CA, earlier than asked\n");
		end_s = ca_end;
	}
	memcpy(in->id.network_id, store->network_id, SM_NETWORK_ID_LEN);
	code = node_key(self, in, &key, &made);
	if (code == SM_EXIT_OK)
		code = check_key(self, store, in, key);
	if (code == SM_EXIT_OK)
		code = sm_ca_store_key(self, store, in->passphrase_file, &ca_key);
	if (code != SM_EXIT_OK)
		goto out;
	if (sm_cert_issue(store->ca, ca_key, &in->id, key, now_s - SM_CERT_BACKDATE_S, end_s, &cert,
			  error) != 0) {
		code = sm_cli_fail(self, "%s", error);
		goto out;
	}
	code = sm_ca_store_add(self, store, cert);
	if (code == SM_EXIT_OK)
		code = deliver(self, in, store, key, made, cert);
out:
	sm_cert_free(cert);
	sm_key_free(ca_key);
	sm_key_free(key);
	return code;
}

static int run_issue(const struct sm_cli_command *self, int argc, char **argv)
{
	struct issue in = {.valid_s = NODE_VALID_DEFAULT_S};
	struct sm_ca_store store;
	int code;

	if (!parse_issue(self, argc, argv, &in, &code))
		return code;
	code = sm_ca_start_crypto(self);
	if (code == SM_EXIT_OK)
		code = sm_ca_store_open(self, in.dir, true, &store);
	if (code != SM_EXIT_OK)
		return code;
	code = issue(self, &in, &store);
	sm_ca_store_close(&store);
	return code;
}

static const struct sm_cli_command ca_issue = {
	.name = "ca issue",
	.synopsis = "NAME [--address IP/LEN]... [OPTION]...",
	.summary = "certify a node",
	.help = "  --address IP/LEN        overlay address with its network's length; may be repeated\n"
		"  --prefix PREFIX         network behind the node (TUN mode); may be repeated\n"
		"  --group NAME            may be repeated\n"
		"  --role ROLE             issuer, rendezvous or relay; may be repeated\n"
		"  --valid DURATION        default: 1y\n"
		"  --days N                the same in days\n"
		"  --key FILE              certify this existing key\n"
		"  --request FILE          certify the key in this request (shadowmesh request)\n"
		"                          without either, NAME.key is made\n"
		"  --out DIR               where NAME.key and NAME.pem go (default: here)\n"
		"  --dir DIR               the CA's folder (default: $SHADOWMESH_CA, else the one\n"
		"                          folder NETWORK-ca here)\n"
		"  --passphrase-file FILE  passphrase of the CA's key (default: asked)\n"
		"  --force                 even if the address belongs to another node, the request has\n"
		"                          another name, or the key is revoked\n"
		"\n"
		"Examples:\n"
		"  shadowmesh ca issue alice --address 10.7.0.2/24\n"
		"  shadowmesh ca issue alice --address 10.7.0.2/24 --key alice.key   (renew)\n"
		"  shadowmesh ca issue gate --address 10.7.0.1/24 --prefix 192.168.1.0/24 \\\n"
		"          --role relay --request gate.req\n",
	.run = run_issue,
};

/* --- the command itself --- */

static int run_ca(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct sm_cli_command *const table[] = {
		&ca_init, &ca_issue, &sm_ca_revoke, &sm_ca_crl, &sm_ca_list, &sm_ca_show, NULL,
	};

	return sm_cli_run_subcommand(self, table, argc, argv);
}

const struct sm_cli_command sm_cli_ca = {
	.name = "ca",
	.synopsis = "init|issue|revoke|crl|list|show [ARGUMENT]...",
	.summary = "the network's certificate authority; needs no daemon",
	.help = "  init NETWORK    make the authority of a new network\n"
		"  issue NAME      certify a node\n"
		"  revoke NAME     take a certificate and its key out of the network\n"
		"  crl             sign the revocation list anew\n"
		"  list            what was issued\n"
		"  show [NAME]     the CA, or a certificate; verify one\n"
		"\n"
		"Each has its own --help.\n"
		"\n"
		"Examples:\n"
		"  shadowmesh ca init home\n"
		"  shadowmesh ca issue alice --address 10.7.0.2/24\n"
		"  shadowmesh ca list\n",
	.run = run_ca,
};

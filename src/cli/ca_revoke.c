// SPDX-License-Identifier: MIT
/*
 * shadowmesh ca revoke and crl: revocation lists.
 */
#include "cli/ca_revoke.h"

#include "base/clock.h"
#include "cli/ca_store.h"

#include <stdlib.h>
#include <strings.h>

enum {
	OPT_DIR = 256,
	OPT_PASSPHRASE_FILE,
	OPT_REASON,
	OPT_NEXT_UPDATE,
};

struct revoke {
	const char *dir, *passphrase_file, *what;
	int64_t valid_s;
	uint8_t reason;
};

/* RFC 5280, section 5.3.1, as openssl spells them */
static const struct {
	const char *name;
	uint8_t code;
} reasons[] = {
	{"unspecified", 0}, {"keyCompromise", 1},        {"affiliationChanged", 3},
	{"superseded", 4},  {"cessationOfOperation", 5}, {"privilegeWithdrawn", 9},
};

static int parse_reason(const struct sm_cli_command *self, const char *text, uint8_t *ret_reason)
{
	for (size_t i = 0; i < SM_ARRAY_SIZE(reasons); i++)
		if (strcasecmp(text, reasons[i].name) == 0) {
			*ret_reason = reasons[i].code;
			return SM_EXIT_OK;
		}
	return sm_cli_usage(self,
			    "'%s' is no reason: unspecified, keyCompromise, affiliationChanged, "
			    "superseded, cessationOfOperation, privilegeWithdrawn",
			    text);
}

static int take_option(const struct sm_cli_command *self, int opt, void *arg)
{
	struct revoke *in = arg;

	switch (opt) {
	case OPT_DIR:
		in->dir = optarg;
		break;
	case OPT_REASON:
		return parse_reason(self, optarg, &in->reason);
	case OPT_NEXT_UPDATE:
		return sm_ca_parse_valid(self, optarg, &in->valid_s);
	case OPT_PASSPHRASE_FILE:
		in->passphrase_file = optarg;
		break;
	}
	return SM_EXIT_OK;
}

/* The options of revoke and crl */
static const struct option revoke_options[] = {
	{"dir", required_argument, NULL, OPT_DIR},
	{"reason", required_argument, NULL, OPT_REASON},
	{"next-update", required_argument, NULL, OPT_NEXT_UPDATE},
	{"passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE},
	SM_CLI_HELP_OPTION,
	SM_CLI_OPTIONS_END,
};

static bool is_meant(const struct sm_identity *id, const char *what)
{
	char serial[41];

	return strcmp(id->name, what) == 0 ||
	       (strlen(what) >= 8 && strncasecmp(sm_text_hex(id->serial, id->serial_len, serial),
						 what, strlen(what)) == 0);
}

/* The entries of the old list, and those for @what if it is not NULL; Return: exit code */
static int collect(const struct sm_cli_command *self, const struct sm_ca_store *store,
		   const struct revoke *in, int64_t now_s, struct sm_crl_entry **ret_entries,
		   size_t *ret_count)
{
	size_t old = store->crl ? sm_crl_count(store->crl) : 0, n = old, named = 0;
	struct sm_crl_entry *entries = calloc(old + store->count + 1, sizeof(*entries));

	if (!entries)
		return sm_cli_fail(self, "out of memory");
	for (size_t i = 0; i < old; i++)
		if (sm_crl_entry(store->crl, i, &entries[i]) != 0)
			n = i;
	for (size_t i = 0; in->what && i < store->count; i++) {
		const struct sm_identity *id = &store->issued[i].id;
		char serial[41];

		if (!is_meant(id, in->what))
			continue;
		named++;
		if (!sm_ca_store_live(store, id, now_s))
			continue;
		entries[n].serial_len = id->serial_len;
		memcpy(entries[n].serial, id->serial, sizeof(id->serial));
		memcpy(entries[n].fingerprint, id->fingerprint, sizeof(id->fingerprint));
		entries[n].revoked_s = now_s;
		entries[n].reason = in->reason;
		n++;
		printf("revoked: %s, serial %s\n", id->name,
		       sm_text_hex(id->serial, id->serial_len, serial));
	}
	*ret_entries = entries;
	*ret_count = n;
	if (!in->what || n > old)
		return SM_EXIT_OK;
	return sm_cli_fail(self,
			   named ? "every certificate of '%s' is revoked or expired already"
				 : "no certificate of '%s' was issued here; see: shadowmesh "
				   "ca list",
			   in->what);
}

/* With @in->what NULL only a fresh list is signed */
static int sign_list(const struct sm_cli_command *self, const struct revoke *in)
{
	int64_t now_s = sm_clock_wall_s();
	struct sm_crl_entry *entries = NULL;
	struct sm_key *ca_key = NULL;
	struct sm_ca_store store;
	size_t count = 0;
	char path[PATH_MAX];
	int code = sm_ca_start_crypto(self);

	if (code == SM_EXIT_OK)
		code = sm_ca_store_open(self, in->dir, true, &store);
	if (code != SM_EXIT_OK)
		return code;
	code = sm_ca_store_key(self, &store, in->passphrase_file, &ca_key);
	if (code == SM_EXIT_OK)
		code = collect(self, &store, in, now_s, &entries, &count);
	if (code == SM_EXIT_OK)
		code = sm_ca_store_sign_list(self, &store, ca_key, entries, count, now_s,
					     in->valid_s);
	if (code == SM_EXIT_OK)
		printf("%s    list number %llu, %zu entr%s: give it to the nodes\n",
		       sm_ca_store_path(&store, "crl.pem", path),
		       (unsigned long long)sm_crl_number(store.crl), count,
		       count == 1 ? "y" : "ies");
	free(entries);
	sm_key_free(ca_key);
	sm_ca_store_close(&store);
	return code;
}

static int run_revoke(const struct sm_cli_command *self, int argc, char **argv)
{
	struct revoke in = {.valid_s = SM_CA_LIST_VALID_S};
	int code;

	if (!sm_cli_options(self, argc, argv, revoke_options, take_option, &in, &code))
		return code;
	if (argc - optind != 1)
		return sm_cli_usage(self, "give one name or serial number");
	in.what = argv[optind];
	return sign_list(self, &in);
}

static int run_crl(const struct sm_cli_command *self, int argc, char **argv)
{
	struct revoke in = {.valid_s = SM_CA_LIST_VALID_S};
	int code;

	if (!sm_cli_options(self, argc, argv, revoke_options, take_option, &in, &code))
		return code;
	if (argc != optind || in.reason)
		return sm_cli_usage(self, "takes no name and no reason");
	return sign_list(self, &in);
}

const struct sm_cli_command sm_ca_revoke = {
	.name = "ca revoke",
	.synopsis = "NAME|SERIAL [--reason REASON] [--next-update DURATION] [--dir DIR]",
	.summary = "take a certificate and its key out of the network",
	.help = "NAME means all its certificates that are still valid; SERIAL may be shortened to 8\n"
		"digits. The list names the key too: a new certificate needs a new key.\n"
		"\n"
		"  --reason REASON         unspecified (default), keyCompromise, affiliationChanged,\n"
		"                          superseded, cessationOfOperation, privilegeWithdrawn\n"
		"  --next-update DURATION  nodes warn when they have no newer list by then\n"
		"                          (default: 1y)\n"
		"  --dir DIR               the CA's folder\n"
		"  --passphrase-file FILE  passphrase of the CA's key (default: asked)\n"
		"\n"
		"Examples:\n"
		"  shadowmesh ca revoke alice --reason keyCompromise\n"
		"  shadowmesh ca revoke 5d3f09a1\n",
	.run = run_revoke,
};

const struct sm_cli_command sm_ca_crl = {
	.name = "ca crl",
	.synopsis = "[--next-update DURATION] [--dir DIR]",
	.summary = "sign the revocation list anew, with a later date",
	.help = "  --next-update DURATION  default: 1y\n"
		"  --dir DIR               the CA's folder\n"
		"  --passphrase-file FILE  passphrase of the CA's key (default: asked)\n"
		"\n"
		"Example:\n"
		"  shadowmesh ca crl --next-update 90d\n",
	.run = run_crl,
};

// SPDX-License-Identifier: MIT
/*
 * shadowmesh ca list and show: what was issued, what a certificate says, whether it is accepted.
 */
#include "cli/ca_show.h"

#include "base/clock.h"
#include "cli/ca_store.h"
#include "crypto/trust.h"

#include <jansson.h>
#include <time.h>

enum {
	OPT_DIR = 256,
	OPT_JSON,
	OPT_FILE,
	OPT_CA,
	OPT_CRL,
	OPT_VERIFY,
};

const char *sm_ca_format_time(int64_t when_s, char buf[64])
{
	time_t when = (time_t)when_s;
	struct tm tm;

	if (!gmtime_r(&when, &tm) || strftime(buf, 64, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		snprintf(buf, 64, "%lld", (long long)when_s);
	return buf;
}

static json_t *json_time(int64_t when_s)
{
	time_t when = (time_t)when_s;
	char text[64];
	struct tm tm;

	if (!gmtime_r(&when, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return json_null();
	return json_string(text);
}

static json_t *json_prefixes(const struct sm_prefix *prefixes, size_t count)
{
	json_t *array = json_array();
	char text[SM_ADDR_STRLEN];

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, json_string(sm_prefix_format(&prefixes[i], text)));
	return array;
}

static json_t *json_roles(uint32_t roles)
{
	json_t *array = json_array();

	for (unsigned bit = 0; bit < 32; bit++)
		if (roles & UINT32_C(1) << bit)
			json_array_append_new(array,
					      json_string(sm_ident_role_name(UINT32_C(1) << bit)));
	return array;
}

static json_t *json_identity(const struct sm_identity *id, const char *status)
{
	char network[2 * SM_NETWORK_ID_LEN + 1], node[2 * SM_NODE_ID_LEN + 1];
	char serial[41], fp[SM_FINGERPRINT_STRLEN], mac_text[SM_MAC_STRLEN] = "";
	char ula_text[SM_ADDR_STRLEN] = "";
	json_t *groups = json_array(), *object;
	struct sm_prefix ula;
	struct sm_mac mac;

	for (size_t i = 0; i < id->group_count; i++)
		json_array_append_new(groups, json_string(id->groups[i]));
	if (sm_ident_mac(id->node_id, &mac) == 0)
		sm_mac_format(&mac, mac_text);
	if (sm_ident_ula(id->network_id, id->node_id, &ula) == 0)
		sm_prefix_format(&ula, ula_text);
	object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", id->name, "network_id",
			   sm_text_hex(id->network_id, SM_NETWORK_ID_LEN, network), "node_id",
			   sm_text_hex(id->node_id, SM_NODE_ID_LEN, node), "serial",
			   sm_text_hex(id->serial, id->serial_len, serial), "fingerprint",
			   sm_ident_format_fingerprint(id->fingerprint, fp), "mac", mac_text, "ula",
			   ula_text);
	json_object_set_new(object, "not_before", json_time(id->not_before));
	json_object_set_new(object, "not_after", json_time(id->not_after));
	json_object_set_new(object, "addresses", json_prefixes(id->addresses, id->address_count));
	json_object_set_new(object, "prefixes", json_prefixes(id->prefixes, id->prefix_count));
	json_object_set_new(object, "groups", groups);
	json_object_set_new(object, "roles", json_roles(id->roles));
	if (status)
		json_object_set_new(object, "status", json_string(status));
	return object;
}

/* Print and release; Return: exit code */
static int print_json(const struct sm_cli_command *self, json_t *json)
{
	int bad = !json || json_dumpf(json, stdout, JSON_INDENT(2)) != 0;

	json_decref(json);
	putchar('\n');
	return bad || fflush(stdout) != 0 ? sm_cli_fail(self, "cannot write the answer")
					  : SM_EXIT_OK;
}

static void print_prefixes(const char *label, const struct sm_prefix *prefixes, size_t count)
{
	char text[SM_ADDR_STRLEN];

	for (size_t i = 0; i < count; i++)
		printf("%-13s%s\n", i ? "" : label, sm_prefix_format(&prefixes[i], text));
}

static void print_identity(const struct sm_identity *id, const char *status)
{
	char text[128];
	struct sm_prefix ula;
	struct sm_mac mac;

	printf("%-13s%s\n", "name", id->name);
	printf("%-13s%s\n", "network id", sm_text_hex(id->network_id, SM_NETWORK_ID_LEN, text));
	printf("%-13s%s\n", "serial", sm_text_hex(id->serial, id->serial_len, text));
	printf("%-13s%s\n", "fingerprint", sm_ident_format_fingerprint(id->fingerprint, text));
	printf("%-13s%s\n", "valid from", sm_ca_format_time(id->not_before, text));
	printf("%-13s%s\n", "valid until", sm_ca_format_time(id->not_after, text));
	print_prefixes("addresses", id->addresses, id->address_count);
	print_prefixes("prefixes", id->prefixes, id->prefix_count);
	for (size_t i = 0; i < id->group_count; i++)
		printf("%-13s%s\n", i ? "" : "groups", id->groups[i]);
	for (unsigned bit = 0; bit < 32; bit++)
		if (id->roles & UINT32_C(1) << bit)
			printf("%-13s%s\n", "role", sm_ident_role_name(UINT32_C(1) << bit));
	if (sm_ident_mac(id->node_id, &mac) == 0)
		printf("%-13s%s\n", "MAC", sm_mac_format(&mac, text));
	if (sm_ident_ula(id->network_id, id->node_id, &ula) == 0)
		print_prefixes("IPv6 ULA", &ula, 1);
	if (status)
		printf("%-13s%s\n", "status", status);
}

/* --- ca list --- */

static void print_row(const struct sm_identity *id, const char *status)
{
	char serial[41], end[64], address[SM_ADDR_STRLEN] = "-";

	if (id->address_count)
		sm_prefix_format(&id->addresses[0], address);
	printf("%-20s %-16.16s %-20s %.10s  %s\n", id->name,
	       sm_text_hex(id->serial, id->serial_len, serial), address,
	       sm_ca_format_time(id->not_after, end), status);
}

static int list(const struct sm_cli_command *self, const struct sm_ca_store *store, bool json)
{
	int64_t now_s = sm_clock_wall_s();
	json_t *array = json ? json_array() : NULL;

	if (!json)
		printf("%-20s %-16s %-20s %-10s  %s\n", "NAME", "SERIAL", "ADDRESS", "UNTIL",
		       "STATUS");
	for (size_t i = 0; i < store->count; i++) {
		const struct sm_identity *id = &store->issued[i].id;
		const char *status = sm_ca_store_status(store, id, now_s);

		if (json)
			json_array_append_new(array, json_identity(id, status));
		else
			print_row(id, status);
	}
	return json ? print_json(self, array) : SM_EXIT_OK;
}

static int run_list(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"dir", required_argument, NULL, OPT_DIR},
		{"json", no_argument, NULL, OPT_JSON},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	const char *dir = NULL;
	struct sm_ca_store store;
	bool json = false;
	int opt, code;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) >= 0) {
		if (opt == OPT_DIR)
			dir = optarg;
		else if (opt == OPT_JSON)
			json = true;
	}
	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	if (argc != optind)
		return sm_cli_usage(self, "takes no name; for one certificate: shadowmesh ca show");
	code = sm_ca_start_crypto(self);
	if (code == SM_EXIT_OK)
		code = sm_ca_store_open(self, dir, false, &store);
	if (code != SM_EXIT_OK)
		return code;
	code = list(self, &store, json);
	sm_ca_store_close(&store);
	return code;
}

const struct sm_cli_command sm_ca_list = {
	.name = "ca list",
	.synopsis = "[--json] [--dir DIR]",
	.summary = "what was issued",
	.help = "  --json     for programs\n"
		"  --dir DIR  the CA's folder\n"
		"\n"
		"Example:\n"
		"  shadowmesh ca list --dir /media/usb/home-ca\n",
	.run = run_list,
};

/* --- ca show --- */

struct show {
	const char *dir, *name, *file, *ca, *crl;
	bool json, verify;
};

static json_t *json_ca(const struct sm_cert *ca, const uint8_t *network_id)
{
	char name[SM_NAME_MAX + 1], hex[2 * SM_NETWORK_ID_LEN + 1], fp_text[SM_FINGERPRINT_STRLEN];
	uint8_t fp[SM_FINGERPRINT_LEN] = {0};
	int64_t begin = 0, end = 0;
	json_t *object;

	if (sm_cert_fingerprint(ca, fp) != 0 || sm_cert_times(ca, &begin, &end) != 0)
		return NULL;
	object = json_pack("{s:b, s:s, s:s, s:s}", "ca", 1, "network",
			   sm_cert_common_name(ca, name), "network_id",
			   sm_text_hex(network_id, SM_NETWORK_ID_LEN, hex), "fingerprint",
			   sm_ident_format_fingerprint(fp, fp_text));
	json_object_set_new(object, "not_before", json_time(begin));
	json_object_set_new(object, "not_after", json_time(end));
	return object;
}

static int show_ca(const struct sm_cli_command *self, const struct sm_cert *ca,
		   const uint8_t *network_id, const struct sm_ca_store *store, bool json)
{
	json_t *object = json_ca(ca, network_id);
	const char *until;

	if (!object)
		return sm_cli_fail(self, "the CA's certificate cannot be read");
	if (store && store->crl)
		json_object_set_new(object, "crl",
				    json_pack("{s:I, s:I}", "number",
					      (json_int_t)sm_crl_number(store->crl), "entries",
					      (json_int_t)sm_crl_count(store->crl)));
	if (store)
		json_object_set_new(object, "issued", json_integer((json_int_t)store->count));
	if (json)
		return print_json(self, object);
	until = json_string_value(json_object_get(object, "not_after"));
	printf("%-13s%s\n", "network", json_string_value(json_object_get(object, "network")));
	printf("%-13s%s\n", "network id", json_string_value(json_object_get(object, "network_id")));
	printf("%-13s%s\n", "fingerprint",
	       json_string_value(json_object_get(object, "fingerprint")));
	printf("%-13s%s\n", "valid until", until ? until : "?");
	if (store)
		printf("%-13s%zu certificates\n", "issued", store->count);
	if (store && store->crl)
		printf("%-13snumber %llu, %zu revoked\n", "list",
		       (unsigned long long)sm_crl_number(store->crl), sm_crl_count(store->crl));
	json_decref(object);
	return SM_EXIT_OK;
}

/* Would a node of this network accept the certificate? Exit code 0 yes, 1 no, after printing it */
static int verify(const struct sm_cli_command *self, const struct show *in,
		  const struct sm_cert *cert, const struct sm_cert *ca, const struct sm_crl *crl)
{
	char error[SM_CERT_ERROR_MAX] = "out of memory";
	uint8_t network_id[SM_NETWORK_ID_LEN] = {0};
	enum sm_close_reason reason = SM_CLOSE_NONE;
	struct sm_trust *trust = NULL;
	struct sm_identity id;
	bool accepted;

	(void)sm_cert_is_ca(ca, network_id);
	if (sm_trust_new(network_id, &trust) != 0 || sm_trust_add_ca(trust, ca, error) != 0 ||
	    (crl && sm_trust_add_crl(trust, crl, error) != 0)) {
		sm_trust_unref(trust);
		return sm_cli_fail(self, "%s", error);
	}
	accepted = sm_trust_check(trust, cert, sm_clock_wall_s(), &id, &reason, error) == 0;
	sm_trust_unref(trust);
	if (in->json) {
		json_t *object = accepted ? json_identity(&id, NULL) : json_object();

		json_object_set_new(object, "accepted", json_boolean(accepted));
		json_object_set_new(object, "reason",
				    accepted ? json_null()
					     : json_string(sm_close_reason_name(reason)));
		json_object_set_new(object, "error", accepted ? json_null() : json_string(error));
		int code = print_json(self, object);

		return code == SM_EXIT_OK && !accepted ? SM_EXIT_FAILURE : code;
	}
	if (!accepted)
		return sm_cli_fail(self, "refused: %s", error);
	print_identity(&id, NULL);
	printf("%-13s%s\n", "verdict", "accepted");
	return SM_EXIT_OK;
}

static int show_cert(const struct sm_cli_command *self, const struct show *in,
		     const struct sm_cert *cert, const struct sm_ca_store *store)
{
	const char *status = NULL;
	char error[SM_CERT_ERROR_MAX];
	uint8_t network_id[SM_NETWORK_ID_LEN];
	struct sm_identity id;

	if (sm_cert_is_ca(cert, network_id))
		return show_ca(self, cert, network_id, NULL, in->json);
	if (sm_cert_identity(cert, &id, error) != 0)
		return sm_cli_fail(self, "%s: %s", in->file ? in->file : in->name, error);
	if (store)
		status = sm_ca_store_status(store, &id, sm_clock_wall_s());
	if (in->json)
		return print_json(self, json_identity(&id, status));
	print_identity(&id, status);
	return SM_EXIT_OK;
}

/* A certificate by its file; a CA and a list by theirs, or from the store */
static int show_file(const struct sm_cli_command *self, const struct show *in)
{
	char error[SM_CERT_ERROR_MAX];
	struct sm_ca_store store = {.lock = -1};
	struct sm_cert *cert = NULL, *ca = NULL;
	struct sm_crl *crl = NULL;
	int code = SM_EXIT_OK;

	if (sm_cert_load(in->file, &cert, error) != 0 ||
	    (in->ca && sm_cert_load(in->ca, &ca, error) != 0) ||
	    (in->crl && sm_crl_load(in->crl, &crl, error) != 0))
		code = sm_cli_fail(self, "%s", error);
	else if (!in->verify)
		code = show_cert(self, in, cert, NULL);
	else if (in->ca)
		code = verify(self, in, cert, ca, crl);
	else
		code = sm_ca_store_open(self, in->dir, false, &store);
	if (code == SM_EXIT_OK && store.ca)
		code = verify(self, in, cert, store.ca, crl ? crl : store.crl);
	sm_ca_store_close(&store);
	sm_crl_free(crl);
	sm_cert_free(ca);
	sm_cert_free(cert);
	return code;
}

/* The newest certificate of a name, or the CA; from the store */
static int show_stored(const struct sm_cli_command *self, const struct show *in)
{
	const struct sm_ca_issued *found = NULL;
	struct sm_ca_store store;
	int code = sm_ca_store_open(self, in->dir, false, &store);

	if (code != SM_EXIT_OK)
		return code;
	for (size_t i = 0; in->name && i < store.count; i++)
		if (strcmp(store.issued[i].id.name, in->name) == 0)
			found = &store.issued[i];
	if (!in->name)
		code = show_ca(self, store.ca, store.network_id, &store, in->json);
	else if (!found)
		code = sm_cli_fail(self,
				   "no certificate of '%s' was issued here; see: shadowmesh ca "
				   "list",
				   in->name);
	else if (in->verify)
		code = verify(self, in, found->cert, store.ca, store.crl);
	else
		code = show_cert(self, in, found->cert, &store);
	sm_ca_store_close(&store);
	return code;
}

static int run_show(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"dir", required_argument, NULL, OPT_DIR},
		{"json", no_argument, NULL, OPT_JSON},
		{"file", required_argument, NULL, OPT_FILE},
		{"ca", required_argument, NULL, OPT_CA},
		{"crl", required_argument, NULL, OPT_CRL},
		{"verify", no_argument, NULL, OPT_VERIFY},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct show in = {0};
	int opt, code;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) >= 0) {
		switch (opt) {
		case OPT_DIR:
			in.dir = optarg;
			break;
		case OPT_JSON:
			in.json = true;
			break;
		case OPT_FILE:
			in.file = optarg;
			break;
		case OPT_CA:
			in.ca = optarg;
			in.verify = true;
			break;
		case OPT_CRL:
			in.crl = optarg;
			in.verify = true;
			break;
		case OPT_VERIFY:
			in.verify = true;
			break;
		}
	}
	if (opt != SM_CLI_END)
		return sm_cli_stop(opt);
	if (argc - optind > 1 || (in.file && argc != optind))
		return sm_cli_usage(self, "give one name, or --file, or nothing for the CA itself");
	in.name = argc > optind ? argv[optind] : NULL;
	if (!in.file && (in.ca || in.crl))
		return sm_cli_usage(self, "--ca and --crl go with --file");
	if (in.verify && !in.file && !in.name)
		return sm_cli_usage(self, "--verify wants a name or --file");
	code = sm_ca_start_crypto(self);
	if (code != SM_EXIT_OK)
		return code;
	return in.file ? show_file(self, &in) : show_stored(self, &in);
}

const struct sm_cli_command sm_ca_show = {
	.name = "ca show",
	.synopsis = "[NAME | --file CERT] [--verify] [--ca FILE] [--crl FILE] [--json] [--dir DIR]",
	.summary = "the CA, or a certificate; verify one",
	.help = "  --file CERT  a certificate from anywhere\n"
		"  --verify     would a node accept it? exit code 1 if not\n"
		"  --ca FILE    verify against this CA instead of the one in the folder\n"
		"  --crl FILE   and this revocation list\n"
		"  --json       for programs\n"
		"  --dir DIR    the CA's folder\n"
		"\n"
		"Examples:\n"
		"  shadowmesh ca show\n"
		"  shadowmesh ca show alice --verify\n"
		"  shadowmesh ca show --file alice.pem --ca ca.pem --crl crl.pem\n",
	.run = run_show,
};

// SPDX-License-Identifier: MIT
/*
 * shadowmesh status: one page about a daemon; where its time goes.
 */
#include "cli/client.h"
#include "cli/print.h"

#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

static void head(const char *name)
{
	char padded[16];

	snprintf(padded, sizeof(padded), "%-13s", name);
	sm_print_coloured(SM_COLOUR_BOLD, padded);
}

/* The day of a time in seconds since 1970; text is left as it is */
static const char *day(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	uint64_t s;
	time_t t;
	struct tm tm;

	if (!sm_print_u64(json, path, &s))
		return sm_print_text(json, path, cell);
	t = (time_t)s;
	if (gmtime_r(&t, &tm) == NULL ||
	    strftime(cell, SM_CELL_MAX, "%Y-%m-%d %H:%M UTC", &tm) == 0)
		snprintf(cell, SM_CELL_MAX, "-");
	return cell;
}

static void print_identity(const json_t *s)
{
	char a[SM_CELL_MAX], b[SM_CELL_MAX], c[SM_CELL_MAX], d[SM_CELL_MAX];

	head("network");
	printf("%s, %s, id %s\n", sm_print_text(s, "network", a), sm_print_text(s, "mode", b),
	       sm_print_text(s, "network_id", c));
	head("node");
	printf("%s, id %s\n", sm_print_text(s, "node.name", a), sm_print_text(s, "node.id", b));
	head("certificate");
	if (sm_print_at(s, "node.certificate.not_after") == NULL)
		printf("none that ends: peers know this node by its fingerprint\n");
	else
		printf("until %s, %s days left\n", day(s, "node.certificate.not_after", a),
		       sm_print_text(s, "node.certificate.days_left", b));
	head("fingerprint");
	printf("%s\n", sm_print_text(s, "node.certificate.fingerprint", a));
	head("daemon");
	printf("%s, process %s, up %s, %s of memory\n", sm_print_text(s, "version", a),
	       sm_print_text(s, "pid", b), sm_print_duration(s, "uptime_us", c),
	       sm_print_bytes(s, "memory_rss_bytes", d));
}

static void print_offload(const json_t *s)
{
	static const struct {
		const char *path, *text;
	} parts[] = {
		{"offload.tcp", "TCP"},
		{"offload.udp", "UDP"},
		{"offload.batches", "batches sent"},
		{"offload.batches_received", "batches received"},
	};
	const char *separator = "";
	char reason[SM_CELL_MAX];

	head("offload");
	for (size_t i = 0; i < SM_ARRAY_SIZE(parts); i++) {
		if (!json_is_true(sm_print_at(s, parts[i].path)))
			continue;
		printf("%s%s", separator, parts[i].text);
		separator = ", ";
	}
	(void)sm_print_text(s, "offload.reason", reason);
	if (!*separator)
		printf("none");
	printf("%s%s\n", reason[0] && strcmp(reason, "-") != 0 ? "; " : "",
	       strcmp(reason, "-") != 0 ? reason : "");
}

static void print_network(const json_t *s)
{
	char a[SM_CELL_MAX], b[SM_CELL_MAX], c[SM_CELL_MAX], d[SM_CELL_MAX];
	uint64_t total = 0, up = 0;
	const json_t *hardware = sm_print_at(s, "transport.cipher_hardware");

	head("interface");
	printf("%s (%s), MTU %s, %s\n", sm_print_text(s, "interface.name", a),
	       sm_print_text(s, "interface.ifindex", b), sm_print_text(s, "interface.mtu", c),
	       sm_print_text(s, "interface.mac", d));
	head("addresses");
	printf("%s\n", sm_print_list(s, "interface.addresses", a));
	head("transport");
	(void)sm_print_text(s, "transport.workers", c);
	printf("TCP %s, UDP %s, %s worker%s%s\n", sm_print_text(s, "transport.control_port", a),
	       sm_print_text(s, "transport.data_port", b), c, strcmp(c, "1") == 0 ? "" : "s",
	       json_is_true(hardware)    ? ", AES in hardware"
	       : json_is_false(hardware) ? ", no AES in hardware"
					 : "");
	print_offload(s);
	head("listening");
	printf("%s\n", sm_print_list(s, "transport.listen", a));
	head("cryptography");
	printf("%s\n", sm_print_text(s, "crypto", a));
	head("peers");
	if (sm_print_u64(s, "peers.total", &total) && sm_print_u64(s, "peers.up", &up)) {
		snprintf(a, sizeof(a), "%" PRIu64 " of %" PRIu64 " up", up, total);
		sm_print_coloured(up == total ? SM_COLOUR_GOOD
				  : up > 0    ? SM_COLOUR_FAIR
					      : SM_COLOUR_BAD,
				  a);
		putchar('\n');
	} else {
		printf("-\n");
	}
}

static void print_counters(const json_t *s)
{
	char a[SM_CELL_MAX], b[SM_CELL_MAX], c[SM_CELL_MAX], d[SM_CELL_MAX];

	head("sent");
	printf("%s frames (%s) in %s packets (%s)\n",
	       sm_print_text(s, "counters.tap_read_frames", a),
	       sm_print_bytes(s, "counters.tap_read_bytes", b),
	       sm_print_text(s, "counters.udp_send_packets", c),
	       sm_print_bytes(s, "counters.udp_send_bytes", d));
	head("received");
	printf("%s frames (%s) in %s packets (%s)\n",
	       sm_print_text(s, "counters.tap_write_frames", a),
	       sm_print_bytes(s, "counters.tap_write_bytes", b),
	       sm_print_text(s, "counters.udp_receive_packets", c),
	       sm_print_bytes(s, "counters.udp_receive_bytes", d));
	head("dropped");
	printf("%s\n", sm_print_counts(s, "counters.drops", a));
	head("connections");
	printf("%s accepted, %s dialled, %s open, %s unfinished\n",
	       sm_print_text(s, "control.accepted", a), sm_print_text(s, "control.dialled", b),
	       sm_print_text(s, "control.open", c), sm_print_text(s, "control.unfinished", d));
	head("refused");
	printf("%s\n", sm_print_counts(s, "control.refused", a));
	head("dial refused");
	printf("%s\n", sm_print_counts(s, "control.dial_refused", a));
	head("closed");
	printf("by us %s; by peers %s\n", sm_print_counts(s, "control.closed_by_us", a),
	       sm_print_counts(s, "control.closed_by_peer", b));
}

/* --- profile --- */

static void profile_cell(struct sm_table_cell *cell, const json_t *stage, const char *path)
{
	const json_t *v = sm_print_at(stage, path);

	if (json_is_number(v))
		snprintf(cell->text, sizeof(cell->text), "%.2f", json_number_value(v));
	else
		snprintf(cell->text, sizeof(cell->text), "-");
}

static void print_profile(const json_t *s)
{
	static const char *const heads[] = {"stage",   "frames", "median", "p99", "max",
					    "batches", "median", "p99",    "max"};
	static const char *const paths[] = {"frame.median_us", "frame.p99_us", "frame.max_us",
					    "batch.median_us", "batch.p99_us", "batch.max_us"};
	struct sm_table_out table = {.columns = SM_ARRAY_SIZE(heads), .right = 0x1fe};
	json_t *profile = (json_t *)(uintptr_t)sm_print_at(s, "profile"), *stage;
	struct sm_table_cell *row = sm_table_out_row(&table);
	const char *name;

	if (!json_is_object(profile)) {
		free(table.cells);
		printf("no profile\n");
		return;
	}
	for (size_t i = 0; row != NULL && i < SM_ARRAY_SIZE(heads); i++)
		snprintf(row[i].text, sizeof(row[i].text), "%s", heads[i]);
	json_object_foreach(profile, name, stage)
	{
		json_t *holder = json_pack("{s:s}", "name", name);

		row = row != NULL ? sm_table_out_row(&table) : NULL;
		if (row != NULL) {
			(void)sm_print_text(holder, "name", row[0].text);
			(void)sm_print_text(stage, "frame.count", row[1].text);
			(void)sm_print_text(stage, "batch.count", row[5].text);
			for (size_t i = 0; i < SM_ARRAY_SIZE(paths); i++)
				profile_cell(&row[i < 3 ? i + 2 : i + 3], stage, paths[i]);
		}
		json_decref(holder);
	}
	printf("microseconds per frame, and per batch\n\n");
	sm_table_out_print(&table);
}

static int status_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		SM_CLIENT_SOCKET_OPTION,
		SM_CLIENT_JSON_OPTION,
		{"profile", no_argument, NULL, SM_CLIENT_OPT_PROFILE},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct sm_client_options options;
	json_t *result = NULL;
	int code;

	if (sm_client_options(self, argc, argv, longs, &options, &code) < 0)
		return code;
	code = sm_client_call(
		self, &options.target,
		json_pack("{s:s,s:b}", "command", "status", "profile", options.profile), &result);
	if (code != SM_EXIT_OK)
		return code;
	if (options.json) {
		sm_print_json(result);
	} else if (options.profile) {
		print_profile(result);
	} else {
		print_identity(result);
		print_network(result);
		print_counters(result);
	}
	json_decref(result);
	return code;
}

const struct sm_cli_command sm_cli_status = {
	.name = "status",
	.synopsis = "[NETWORK] [--json] [--profile] [--socket PATH]",
	.summary = "how a network is on this machine",
	.help = "options:\n"
		"  --json            everything, for programs\n"
		"  --profile         where the time of a packet goes: median, 99th percentile and maximum of\n"
		"                    each stage, in microseconds\n" SM_CLIENT_OPTIONS_HELP "\n"
		"examples:\n"
		"  shadowmesh status\n"
		"  shadowmesh status home --profile\n"
		"  shadowmesh status --json | jq .peers.up",
	.run = status_run,
};

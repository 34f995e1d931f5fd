// SPDX-License-Identifier: MIT
/*
 * shadowmesh peers: a row for each peer.
 */
#include "cli/client.h"
#include "cli/print.h"

#include <stdlib.h>

enum column {
	COL_NAME,
	COL_STATE,
	COL_SINCE,
	COL_ADDRESSES,
	COL_PATH,
	COL_RTT,
	COL_MTU,
	COL_CIPHER,
	COL_SENT,
	COL_RECEIVED,
	COL_LOST,
	COL_COUNT,
};

static enum sm_colour state_colour(const char *state)
{
	if (strcmp(state, "up") == 0)
		return SM_COLOUR_GOOD;
	return strcmp(state, "idle") == 0 || strcmp(state, "down") == 0 ? SM_COLOUR_BAD
									: SM_COLOUR_FAIR;
}

/* A size that is not the last word says so. */
static void fill_mtu(struct sm_table_cell *cell, const json_t *peer)
{
	char mtu[SM_CELL_MAX], state[SM_CELL_MAX];

	(void)sm_print_text(peer, "path.mtu", mtu);
	(void)sm_print_text(peer, "path.mtu_state", state);
	if (strcmp(state, "base") == 0 || strcmp(state, "searching") == 0)
		snprintf(cell->text, SM_CELL_MAX, "%.32s+", mtu);
	else if (strcmp(state, "error") == 0)
		snprintf(cell->text, SM_CELL_MAX, "<%.32s", mtu);
	else
		snprintf(cell->text, SM_CELL_MAX, "%.32s", mtu);
}

static void fill_row(struct sm_table_cell *row, const json_t *peer)
{
	char remote[SM_CELL_MAX], kind[SM_CELL_MAX];

	(void)sm_print_text(peer, "name", row[COL_NAME].text);
	(void)sm_print_text(peer, "state", row[COL_STATE].text);
	row[COL_STATE].colour = state_colour(row[COL_STATE].text);
	(void)sm_print_duration(peer, "since_us_ago", row[COL_SINCE].text);
	(void)sm_print_list(peer, "addresses", row[COL_ADDRESSES].text);
	(void)sm_print_text(peer, "path.remote", remote);
	if (strcmp(sm_print_text(peer, "path.kind", kind), "-") == 0)
		snprintf(row[COL_PATH].text, SM_CELL_MAX, "%s", remote);
	else
		snprintf(row[COL_PATH].text, SM_CELL_MAX, "%.160s (%.80s)", remote, kind);
	(void)sm_print_ms(peer, "path.rtt_us", row[COL_RTT].text);
	fill_mtu(&row[COL_MTU], peer);
	(void)sm_print_text(peer, "session.cipher", row[COL_CIPHER].text);
	(void)sm_print_bytes(peer, "counters.tx_bytes", row[COL_SENT].text);
	(void)sm_print_bytes(peer, "counters.rx_bytes", row[COL_RECEIVED].text);
	(void)sm_print_text(peer, "counters.lost", row[COL_LOST].text);
}

static void print_errors(const json_t *peers)
{
	char name[SM_CELL_MAX], error[SM_CELL_MAX];

	for (size_t i = 0; i < json_array_size(peers); i++) {
		const json_t *peer = json_array_get(peers, i);

		(void)sm_print_text(peer, "name", name);
		(void)sm_print_text(peer, "last_error", error);
		if (strcmp(error, "-") != 0)
			printf("%s: %s\n", name, error);
	}
}

static int print_table(const struct sm_cli_command *self, const json_t *peers)
{
	static const char *const heads[] = {"peer", "state",  "since", "addresses", "path", "rtt",
					    "mtu",  "cipher", "sent",  "received",  "lost"};
	struct sm_table_out table = {.columns = COL_COUNT,
				     .right = 1u << COL_RTT | 1u << COL_MTU | 1u << COL_SENT |
					      1u << COL_RECEIVED | 1u << COL_LOST};
	struct sm_table_cell *row = sm_table_out_row(&table);

	static_assert(SM_ARRAY_SIZE(heads) == COL_COUNT, "one for each column");
	for (size_t i = 0; row != NULL && i < COL_COUNT; i++)
		snprintf(row[i].text, sizeof(row[i].text), "%s", heads[i]);
	for (size_t i = 0; row != NULL && i < json_array_size(peers); i++) {
		row = sm_table_out_row(&table);
		if (row != NULL)
			fill_row(row, json_array_get(peers, i));
	}
	if (row == NULL) {
		free(table.cells);
		return sm_cli_fail(self, "out of memory");
	}
	sm_table_out_print(&table);
	print_errors(peers);
	return SM_EXIT_OK;
}

static int peers_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {SM_CLIENT_SOCKET_OPTION, SM_CLIENT_JSON_OPTION,
					      SM_CLI_HELP_OPTION, SM_CLI_OPTIONS_END};
	struct sm_client_options options;
	json_t *result = NULL;
	const json_t *peers;
	int code;

	if (sm_client_options(self, argc, argv, longs, &options, &code) < 0)
		return code;
	code = sm_client_call(self, &options.target, json_pack("{s:s}", "command", "peers"),
			      &result);
	if (code != SM_EXIT_OK)
		return code;
	peers = json_object_get(result, "peers");
	if (options.json)
		sm_print_json(result);
	else if (json_array_size(peers) == 0)
		printf("no peers\n");
	else
		code = print_table(self, peers);
	json_decref(result);
	return code;
}

const struct sm_cli_command sm_cli_peers = {
	.name = "peers",
	.synopsis = "[NETWORK] [--json] [--socket PATH]",
	.summary = "the other nodes: state, path, round-trip time, traffic",
	.help = "One row for each peer, and below them the last error of those that have one.\n"
		"\n"
		"options:\n"
		"  --json            everything, for programs: sessions, handshakes, certificates, counters\n" SM_CLIENT_OPTIONS_HELP
		"\n"
		"examples:\n"
		"  shadowmesh peers home\n"
		"  shadowmesh peers --json | jq '.peers[] | select(.state != \"up\") | .name'",
	.run = peers_run,
};

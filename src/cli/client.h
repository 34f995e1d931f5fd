// SPDX-License-Identifier: MIT
/*
 * The client's side of the control socket: which daemon is meant, ask it, read what it says.
 */
#ifndef SM_CLI_CLIENT_H
#define SM_CLI_CLIENT_H

#include "cli/cli.h"

#include <jansson.h>
#include <sys/types.h>

#define SM_RUNTIME_DIR "/run/shadowmesh"

/** struct sm_client_target - Which daemon: its network's name, its socket, or neither if there is one only */
struct sm_client_target {
	const char *network, *socket;
};

struct sm_client;

/**
 * sm_client_open() - Find the daemon and connect
 * Return: SM_EXIT_OK, or the exit code after an error was printed
 */
SM_MUST_CHECK int sm_client_open(const struct sm_cli_command *self,
				 const struct sm_client_target *target,
				 struct sm_client **ret_client);
void sm_client_close(struct sm_client *client);

/** sm_client_pid() - Return: the daemon's process number as the kernel says, 0 if hidden */
pid_t sm_client_pid(const struct sm_client *client);

/** sm_client_send() - Send one request, stolen; Return: exit code, errors were printed */
SM_MUST_CHECK int sm_client_send(struct sm_client *client, json_t *request);

/**
 * sm_client_read() - Wait for one answer line
 * @stop: ends the wait when it becomes true (from a signal handler); NULL: nothing does
 * @ret_result: "result" of the answer, the caller's reference; NULL after @stop
 * Return: SM_EXIT_OK, or the exit code after an error was printed
 */
SM_MUST_CHECK int sm_client_read(struct sm_client *client, uint64_t timeout_us,
				 const volatile int *stop, json_t **ret_result);

/** sm_client_call() - Open, send one request (stolen), read one answer, close */
SM_MUST_CHECK int sm_client_call(const struct sm_cli_command *self,
				 const struct sm_client_target *target, json_t *request,
				 json_t **ret_result);

/* What the commands that talk to a daemon have in common */
enum {
	SM_CLIENT_OPT_SOCKET = 0x100,
	SM_CLIENT_OPT_JSON,
	SM_CLIENT_OPT_PROFILE,
	SM_CLIENT_OPT_NETWORK,
};
#define SM_CLIENT_SOCKET_OPTION                                         \
	{                                                               \
		"socket", required_argument, NULL, SM_CLIENT_OPT_SOCKET \
	}
#define SM_CLIENT_JSON_OPTION                                 \
	{                                                     \
		"json", no_argument, NULL, SM_CLIENT_OPT_JSON \
	}
#define SM_CLIENT_OPTIONS_HELP                                            \
	"  --socket PATH     talk to the daemon at this control socket\n" \
	"  -h, --help        this page\n"                                 \
	"\n"                                                              \
	"NETWORK may be left out when one daemon runs on this machine.\n"

/** struct sm_client_options - What "[NETWORK] [--json] [--profile] [--socket PATH]" said */
struct sm_client_options {
	struct sm_client_target target;
	bool json, profile;
};

/**
 * sm_client_options() - Read such a command line
 * @longs: which options the command knows
 * Return: 0, or -1 with the exit code in *@ret_code
 */
SM_MUST_CHECK int sm_client_options(const struct sm_cli_command *self, int argc, char **argv,
				    const struct option *longs,
				    struct sm_client_options *ret_options, int *ret_code);

#endif

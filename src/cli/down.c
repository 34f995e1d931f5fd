// SPDX-License-Identifier: MIT
/*
 * shadowmesh down: end a daemon and wait until it is gone.
 */
#include "cli/client.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GONE_TIMEOUT_MS   15000
#define ANSWER_TIMEOUT_US (10 * SM_SEC_US)

/* Return: descriptor that becomes readable when the process is gone; -1 if it is or cannot be seen */
static int open_process(pid_t pid)
{
	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static int await_end(const struct sm_cli_command *self, int process)
{
	struct pollfd p = {.fd = process, .events = POLLIN};
	int n = 1;

	if (process >= 0)
		n = poll(&p, 1, GONE_TIMEOUT_MS);
	if (n < 0)
		return sm_cli_fail(self, "cannot wait: %s", strerror(errno));
	if (n == 0)
		return sm_cli_fail(self, "the daemon was told to end and has not within %d s",
				   GONE_TIMEOUT_MS / 1000);
	return SM_EXIT_OK;
}

static int down_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {SM_CLIENT_SOCKET_OPTION, SM_CLI_HELP_OPTION,
					      SM_CLI_OPTIONS_END};
	struct sm_client_options options;
	struct sm_client *client = NULL;
	json_t *result = NULL;
	int code, process;

	if (sm_client_options(self, argc, argv, longs, &options, &code) < 0)
		return code;
	code = sm_client_open(self, &options.target, &client);
	if (code != SM_EXIT_OK)
		return code;
	process = open_process(sm_client_pid(client));
	code = sm_client_send(client, json_pack("{s:s}", "command", "down"));
	if (code == SM_EXIT_OK)
		code = sm_client_read(client, ANSWER_TIMEOUT_US, NULL, &result);
	json_decref(result);
	if (code == SM_EXIT_OK)
		code = await_end(self, process);
	if (process >= 0)
		close(process);
	sm_client_close(client);
	return code;
}

const struct sm_cli_command sm_cli_down = {
	.name = "down",
	.synopsis = "[NETWORK] [--socket PATH]",
	.summary = "leave a network: end its daemon",
	.help = "Tells the peers, removes the interface, and returns when the daemon is gone.\n"
		"\n"
		"options:\n" SM_CLIENT_OPTIONS_HELP "\n"
		"examples:\n"
		"  shadowmesh down\n"
		"  shadowmesh down home",
	.run = down_run,
};

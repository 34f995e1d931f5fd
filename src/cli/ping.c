// SPDX-License-Identifier: MIT
/*
 * shadowmesh ping: ask a peer through the tunnel; by which path it answers and how fast.
 */
#include "cli/client.h"
#include "cli/print.h"

#include "base/text.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#define TIME_MIN_US      (10 * SM_MSEC_US)
#define TIME_MAX_US      (3600 * SM_SEC_US)
#define COUNT_MAX        1000000u
#define PATIENCE_US      (5 * SM_SEC_US) /* the daemon's own delay, on top of what was asked */
#define DEFAULT_COUNT    4u
#define DEFAULT_INTERVAL (1 * SM_SEC_US)
#define DEFAULT_TIMEOUT  (2 * SM_SEC_US)

struct request {
	struct sm_client_target target;
	const char *node;
	uint64_t count, interval_us, timeout_us;
};

/* What came back, counted here too: an interrupted ping has no summary of the daemon's */
struct tally {
	uint64_t sent, received, min_us, max_us, sum_us;
};

static volatile int stopped;

static void on_interrupt(int signum)
{
	(void)signum;
	stopped = 1;
}

/* Seconds, with a fraction ("0.2"), or a duration with its unit ("200ms") */
static int parse_time(const char *text, uint64_t *ret_us)
{
	char *end = NULL;
	double s = strtod(text, &end);

	if (end != text && *end == '\0' && s >= 0 && s < 1e6)
		*ret_us = (uint64_t)(s * 1e6 + 0.5);
	else if (sm_text_parse_duration(text, ret_us) < 0)
		return -EINVAL;
	return *ret_us < TIME_MIN_US || *ret_us > TIME_MAX_US ? -ERANGE : 0;
}

static void print_reply(const struct request *q, const json_t *reply, struct tally *tally)
{
	char seq[SM_CELL_MAX], rtt[SM_CELL_MAX], remote[SM_CELL_MAX], kind[SM_CELL_MAX];
	uint64_t us;

	if (sm_print_at(reply, "seq") == NULL)
		return;
	tally->sent++;
	(void)sm_print_text(reply, "seq", seq);
	if (!sm_print_u64(reply, "rtt_us", &us)) {
		printf("no answer from %s: seq %s\n", q->node, seq);
	} else {
		tally->min_us = tally->received == 0 ? us : SM_MIN(tally->min_us, us);
		tally->max_us = SM_MAX(tally->max_us, us);
		tally->sum_us += us;
		tally->received++;
		printf("%s: seq %s, %s, %s by %s\n", q->node, seq,
		       sm_print_ms(reply, "rtt_us", rtt), sm_print_text(reply, "path.kind", kind),
		       sm_print_text(reply, "path.remote", remote));
	}
	(void)fflush(stdout);
}

static void print_summary(const struct request *q, const struct tally *t)
{
	printf("-- %s: %" PRIu64 " sent, %" PRIu64 " answered", q->node, t->sent, t->received);
	if (t->sent > 0)
		printf(", %" PRIu64 " %% lost", (t->sent - t->received) * 100 / t->sent);
	if (t->received > 0)
		printf("; min %.3f, avg %.3f, max %.3f ms", (double)t->min_us / 1000,
		       (double)t->sum_us / 1000 / (double)t->received, (double)t->max_us / 1000);
	putchar('\n');
}

static int exchange(struct sm_client *client, const struct request *q, struct tally *tally)
{
	bool done = false;
	int code = sm_client_send(client, json_pack("{s:s,s:s,s:I,s:I,s:I}", "command", "ping",
						    "node", q->node, "count", (json_int_t)q->count,
						    "interval_us", (json_int_t)q->interval_us,
						    "timeout_us", (json_int_t)q->timeout_us));

	while (code == SM_EXIT_OK && !done) {
		json_t *reply = NULL;

		code = sm_client_read(client, q->interval_us + q->timeout_us + PATIENCE_US,
				      &stopped, &reply);
		if (reply != NULL)
			print_reply(q, reply, tally);
		done = reply == NULL || json_is_true(json_object_get(reply, "done"));
		json_decref(reply);
	}
	return code;
}

static int ping(const struct sm_cli_command *self, const struct request *q)
{
	struct sigaction action = {.sa_handler = on_interrupt};
	struct sm_client *client = NULL;
	struct tally tally = {0};
	int code = sm_client_open(self, &q->target, &client);

	if (code != SM_EXIT_OK)
		return code;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	code = exchange(client, q, &tally);
	sm_client_close(client);
	if (code != SM_EXIT_OK)
		return code;
	print_summary(q, &tally);
	return tally.received > 0 ? SM_EXIT_OK : SM_EXIT_FAILURE;
}

static int bad_time(const struct sm_cli_command *self, char option)
{
	return sm_cli_usage(self, "-%c wants seconds from 0.01 to 3600, got '%s'", option, optarg);
}

static int ping_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"count", required_argument, NULL, 'c'},
		{"interval", required_argument, NULL, 'i'},
		{"timeout", required_argument, NULL, 'W'},
		{"network", required_argument, NULL, SM_CLIENT_OPT_NETWORK},
		SM_CLIENT_SOCKET_OPTION,
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct request q = {.count = DEFAULT_COUNT,
			    .interval_us = DEFAULT_INTERVAL,
			    .timeout_us = DEFAULT_TIMEOUT};
	int opt;

	while ((opt = sm_cli_getopt(self, argc, argv, "c:i:W:", longs)) != SM_CLI_END) {
		switch (opt) {
		case 'c':
			if (sm_text_parse_u64(optarg, 1, COUNT_MAX, &q.count) < 0)
				return sm_cli_usage(self,
						    "-c wants a number from 1 to %u, got '%s'",
						    COUNT_MAX, optarg);
			break;
		case 'i':
			if (parse_time(optarg, &q.interval_us) < 0)
				return bad_time(self, 'i');
			break;
		case 'W':
			if (parse_time(optarg, &q.timeout_us) < 0)
				return bad_time(self, 'W');
			break;
		case SM_CLIENT_OPT_NETWORK:
			q.target.network = optarg;
			break;
		case SM_CLIENT_OPT_SOCKET:
			q.target.socket = optarg;
			break;
		default:
			return sm_cli_stop(opt);
		}
	}
	if (argc - optind != 1)
		return sm_cli_usage(self, "give the name of one node");
	q.node = argv[optind];
	if (!sm_text_is_name(q.node))
		return sm_cli_usage(self, "'%s' is no name of a node", q.node);
	return ping(self, &q);
}

const struct sm_cli_command sm_cli_ping = {
	.name = "ping",
	.synopsis = "[-c COUNT] [-i SECONDS] [-W SECONDS] [--network NETWORK] [--socket PATH] NODE",
	.summary = "ask a node through the tunnel",
	.help = "Sends sealed probes between the daemons, so it works whatever the firewalls inside the\n"
		"network say. Exits with 0 if at least one was answered.\n"
		"\n"
		"options:\n"
		"  -c, --count N     probes to send (4)\n"
		"  -i, --interval S  seconds between two of them (1)\n"
		"  -W, --timeout S   seconds to wait for an answer (2)\n"
		"  --network NAME    by which network\n" SM_CLIENT_OPTIONS_HELP "\n"
		"examples:\n"
		"  shadowmesh ping alice\n"
		"  shadowmesh ping -c 100 -i 0.05 --network home alice",
	.run = ping_run,
};

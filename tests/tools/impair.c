// SPDX-License-Identifier: MIT
/*
 * Impairment tool: options and the forwarding loop. Theory of operation: impair.h.
 */
#include "impair.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define READ_BATCH    64 /* frames of one direction before the other gets its turn */
#define MTU_DEFAULT   1500
#define QUEUE_DEFAULT 4000
#define EXIT_USAGE    2

enum opt {
	OPT_A = 256,
	OPT_B,
	OPT_NETNS_A,
	OPT_NETNS_B,
	OPT_A2B,
	OPT_B2A,
	OPT_MTU,
	OPT_TXQUEUELEN,
	OPT_MEMORY,
	OPT_SEED,
	OPT_CONTROL,
	OPT_READY_FD,
	OPT_JSON,
	OPT_HELP,
	OPT_SETTING, /* and up: index into the table of settings */
};

#define SETTINGS_MAX 32

static const struct option fixed_options[] = {
	{"a", required_argument, NULL, OPT_A},
	{"b", required_argument, NULL, OPT_B},
	{"netns-a", required_argument, NULL, OPT_NETNS_A},
	{"netns-b", required_argument, NULL, OPT_NETNS_B},
	{"a2b", required_argument, NULL, OPT_A2B},
	{"b2a", required_argument, NULL, OPT_B2A},
	{"mtu", required_argument, NULL, OPT_MTU},
	{"txqueuelen", required_argument, NULL, OPT_TXQUEUELEN},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"seed", required_argument, NULL, OPT_SEED},
	{"control", required_argument, NULL, OPT_CONTROL},
	{"ready-fd", required_argument, NULL, OPT_READY_FD},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
};

#define FIXED_COUNT (sizeof(fixed_options) / sizeof(fixed_options[0]))

struct args {
	const char *control;
	uint64_t mtu, txqueuelen, memory, ready_fd;
	bool have_seed, have_ready_fd, help;
};

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * IMPAIR_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* --- options --- */

static int set_name(struct impair_port *port, const char *name, char *err)
{
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ || strpbrk(name, "/ :%")) {
		snprintf(err, IMPAIR_ERR_LEN,
			 "\"%.40s\" is no interface name: use 1 to %d "
			 "characters without blank, slash, colon or percent",
			 name, IFNAMSIZ - 1);
		return -EINVAL;
	}
	memcpy(port->name, name, len + 1);
	return 0;
}

/* a direction's settings are applied after those for both, whatever their order */
static int take_option(struct impair *imp, struct args *args, int opt, char *words[], char *err)
{
	switch (opt) {
	case OPT_A:
		return set_name(&imp->ports[0], optarg, err);
	case OPT_B:
		return set_name(&imp->ports[1], optarg, err);
	case OPT_NETNS_A:
		imp->ports[0].netns = optarg;
		return 0;
	case OPT_NETNS_B:
		imp->ports[1].netns = optarg;
		return 0;
	case OPT_A2B:
	case OPT_B2A:
		words[opt - OPT_A2B] = optarg;
		return 0;
	case OPT_MTU:
		return impair_parse_uint(optarg, 65521, &args->mtu, err);
	case OPT_TXQUEUELEN:
		return impair_parse_uint(optarg, 1000000, &args->txqueuelen, err);
	case OPT_MEMORY:
		return impair_parse_bytes(optarg, &args->memory, err);
	case OPT_SEED:
		args->have_seed = true;
		return impair_parse_uint(optarg, UINT64_MAX, &imp->seed, err);
	case OPT_CONTROL:
		args->control = optarg;
		return 0;
	case OPT_READY_FD:
		args->have_ready_fd = true;
		return impair_parse_uint(optarg, 65535, &args->ready_fd, err);
	case OPT_JSON:
		imp->json = true;
		return 0;
	case OPT_HELP:
		args->help = true;
		return 0;
	}
	snprintf(err, IMPAIR_ERR_LEN, "try impair --help");
	return -EINVAL;
}

static int take_named(struct impair *imp, struct args *args, int opt, const char *name,
		      char *words[], char *err)
{
	char why[IMPAIR_ERR_LEN];
	int rc = take_option(imp, args, opt, words, why);

	if (rc < 0 && opt != '?')
		snprintf(err, IMPAIR_ERR_LEN, "--%s: %.220s", name, why);
	else if (rc < 0) /* getopt has named it */
		snprintf(err, IMPAIR_ERR_LEN, "%s", why);
	return rc;
}

static int check_ports(const struct impair *imp, char *err)
{
	const struct impair_port *a = &imp->ports[0], *b = &imp->ports[1];

	if (!a->name[0] || !b->name[0]) {
		snprintf(err, IMPAIR_ERR_LEN, "no name for end %s: give --a NAME and --b NAME",
			 a->name[0] ? "b" : "a");
		return -EINVAL;
	}
	if (strcmp(a->name, b->name) == 0 &&
	    strcmp(a->netns ? a->netns : "", b->netns ? b->netns : "") == 0) {
		snprintf(err, IMPAIR_ERR_LEN,
			 "both ends are called %s in the same namespace: "
			 "choose two names, or give --netns-a and --netns-b",
			 a->name);
		return -EINVAL;
	}
	return 0;
}

static int join_words(char *both, size_t size, const char *key, const char *val, char *err)
{
	size_t len = strlen(both);

	if ((size_t)snprintf(both + len, size - len, " %s %s", key, val) < size - len)
		return 0;
	snprintf(err, IMPAIR_ERR_LEN, "too many settings");
	return -EINVAL;
}

static int parse_args(struct impair *imp, struct args *args, int argc, char **argv, char *err)
{
	struct option options[FIXED_COUNT + SETTINGS_MAX + 1] = {0};
	char *words[IMPAIR_DIR_COUNT] = {0}, both[2048] = "";
	size_t n = FIXED_COUNT;
	int opt, rc = 0, at = 0;

	memcpy(options, fixed_options, sizeof(fixed_options));
	for (size_t i = 0; impair_conf_key(i) && i < SETTINGS_MAX; i++, n++)
		options[n] = (struct option){impair_conf_key(i), required_argument, NULL,
					     OPT_SETTING + (int)i};
	while (rc == 0 && (opt = getopt_long(argc, argv, "", options, &at)) != -1) {
		if (opt >= OPT_SETTING)
			rc = join_words(both, sizeof(both),
					impair_conf_key((size_t)(opt - OPT_SETTING)), optarg, err);
		else
			rc = take_named(imp, args, opt, options[at].name, words, err);
	}
	if (rc < 0 || args->help)
		return rc;
	if (optind < argc) {
		snprintf(err, IMPAIR_ERR_LEN, "\"%.40s\" belongs to no option: try impair --help",
			 argv[optind]);
		return -EINVAL;
	}
	rc = check_ports(imp, err);
	if (rc == 0 && both[0])
		rc = impair_set_words(imp, 3, both, err);
	for (unsigned int d = 0; rc == 0 && d < IMPAIR_DIR_COUNT; d++)
		if (words[d])
			rc = impair_set_words(imp, 1u << d, words[d], err);
	return rc;
}

/* --- forwarding --- */

static int emit_frame(void *ctx, const uint8_t *data, size_t len)
{
	const struct impair_port *port = ctx;

	return write(port->fd, data, len) < 0 ? -errno : 0;
}

/* true when the TAP may have more */
static bool read_batch(struct impair *imp, int dir, uint64_t now_ns, int *ret_rc)
{
	static uint8_t buf[IMPAIR_FRAME_MAX];

	for (int i = 0; i < READ_BATCH; i++) {
		ssize_t n = read(imp->ports[dir].fd, buf, sizeof(buf));

		if (n < 0) {
			/* EIO: its interface is down, which poll reports once it is up again */
			if (errno != EAGAIN && errno != EINTR && errno != EIO)
				*ret_rc = -errno;
			return false;
		}
		impair_line_push(&imp->lines[dir], buf, (size_t)n, now_ns);
	}
	return true;
}

static void sleep_until(struct pollfd *fds, size_t n, uint64_t next_ns, bool busy)
{
	uint64_t now_ns = clock_ns(), left_ns = next_ns > now_ns ? next_ns - now_ns : 0;
	struct timespec ts = {.tv_sec = (time_t)(left_ns / IMPAIR_NS_PER_S),
			      .tv_nsec = (long)(left_ns % IMPAIR_NS_PER_S)};

	if (busy)
		ts = (struct timespec){0};
	if (ppoll(fds, n, next_ns == IMPAIR_NEVER && !busy ? NULL : &ts, NULL) < 0)
		for (size_t i = 0; i < n; i++)
			fds[i].revents = 0;
}

enum { FD_A, FD_B, FD_SIGNAL, FD_LISTEN, FD_CLIENTS };

static void serve_control(struct impair *imp, struct impair_ctl *ctl, const struct pollfd *fds,
			  size_t n_polled)
{
	for (size_t i = n_polled - FD_CLIENTS;
	     i-- > 0;) /* downwards: a closed one moves the last */
		if (fds[FD_CLIENTS + i].revents)
			(void)impair_ctl_read(ctl, i, imp);
	if (fds[FD_LISTEN].revents)
		impair_ctl_accept(ctl);
	if (fds[FD_SIGNAL].revents)
		imp->stop = true;
}

static int forward(struct impair *imp, struct impair_ctl *ctl, int signal_fd)
{
	struct pollfd fds[FD_CLIENTS + IMPAIR_CLIENTS_MAX];
	bool busy = false;
	int rc = 0;

	while (!imp->stop && rc == 0) {
		uint64_t next_ns = impair_line_next(&imp->lines[0]), now_ns;
		size_t n = FD_CLIENTS + ctl->n;

		if (impair_line_next(&imp->lines[1]) < next_ns)
			next_ns = impair_line_next(&imp->lines[1]);
		fds[FD_A] = (struct pollfd){.fd = imp->ports[0].fd, .events = POLLIN};
		fds[FD_B] = (struct pollfd){.fd = imp->ports[1].fd, .events = POLLIN};
		fds[FD_SIGNAL] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
		fds[FD_LISTEN] = (struct pollfd){.fd = ctl->listen_fd, .events = POLLIN};
		for (size_t i = 0; i < ctl->n; i++)
			fds[FD_CLIENTS + i] = (struct pollfd){.fd = ctl->clients[i].in_fd,
							      .events = POLLIN};
		sleep_until(fds, n, next_ns, busy);

		busy = false;
		serve_control(imp, ctl, fds, n);
		now_ns = clock_ns();
		for (int d = 0; d < IMPAIR_DIR_COUNT; d++) {
			impair_line_run(&imp->lines[d], now_ns);
			if (fds[d].revents)
				busy |= read_batch(imp, d, now_ns, &rc);
		}
	}
	return rc;
}

static void announce(const struct impair *imp, const struct args *args)
{
	printf("seed 0x%016" PRIx64 "\nready\n", imp->seed);
	fflush(stdout);
	if (args->have_ready_fd) {
		(void)!write((int)args->ready_fd, "ready\n", 6);
		close((int)args->ready_fd);
	}
}

static int run(struct impair *imp, const struct args *args, char *err)
{
	struct impair_ctl ctl;
	sigset_t set;
	int rc, signal_fd = -1;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1); /* ns: deadlines as exact as the kernel can */

	imp->ports[0].fd = imp->ports[0].dev_fd = imp->ports[1].fd = imp->ports[1].dev_fd = -1;
	rc = impair_ctl_open(&ctl, args->control, err);
	for (int i = 0; rc == 0 && i < IMPAIR_DIR_COUNT; i++)
		rc = impair_port_open(&imp->ports[i], (int)args->mtu, (int)args->txqueuelen, err);
	if (rc < 0)
		goto out;
	signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signal_fd < 0) {
		rc = -errno;
		snprintf(err, IMPAIR_ERR_LEN, "cannot wait for signals: %s", strerror(-rc));
		goto out;
	}
	announce(imp, args);
	rc = forward(imp, &ctl, signal_fd);
	if (rc < 0)
		snprintf(err, IMPAIR_ERR_LEN, "cannot read frames: %s", strerror(-rc));
	impair_stats_print(imp, imp->json, stdout);
	fflush(stdout);
out:
	if (signal_fd >= 0)
		close(signal_fd);
	impair_port_close(&imp->ports[0]);
	impair_port_close(&imp->ports[1]);
	impair_ctl_close(&ctl);
	return rc;
}

int main(int argc, char **argv)
{
	static struct impair imp;
	struct args args = {.mtu = MTU_DEFAULT, .txqueuelen = QUEUE_DEFAULT, .memory = 256u << 20};
	char err[IMPAIR_ERR_LEN] = "";
	int rc;

	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		impair_conf_init(&imp.lines[d].conf);
	rc = parse_args(&imp, &args, argc, argv, err);
	if (rc < 0) {
		fprintf(stderr, "impair: %s\n", err);
		return EXIT_USAGE;
	}
	if (args.help) {
		impair_help(stdout);
		return EXIT_SUCCESS;
	}
	if (!args.have_seed && getrandom(&imp.seed, sizeof(imp.seed), 0) != sizeof(imp.seed))
		imp.seed = clock_ns();
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++) {
		struct impair_conf conf = imp.lines[d].conf;

		impair_line_init(&imp.lines[d], imp.seed, (enum impair_dir)d, args.memory,
				 emit_frame, &imp.ports[!d]);
		imp.lines[d].conf = conf;
	}
	rc = run(&imp, &args, err);
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		impair_line_done(&imp.lines[d]);
	if (rc < 0)
		fprintf(stderr, "impair: %s\n", err);
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

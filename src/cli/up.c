// SPDX-License-Identifier: MIT
/*
 * shadowmesh up: become the daemon of a network.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/selftest.h"

/* Not for users: the daemon starts itself with it (daemon/selftest.h). */
#define OPT_SELF_TEST 256

static int up_run(const struct sm_cli_command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"detach", no_argument, NULL, 'd'},
		{"verbose", no_argument, NULL, 'v'},
		{"quiet", no_argument, NULL, 'q'},
		{"log-level", required_argument, NULL, 'L'},
		{"self-test", required_argument, NULL, OPT_SELF_TEST},
		SM_CLI_HELP_OPTION,
		SM_CLI_OPTIONS_END,
	};
	struct sm_daemon_options options = {.program = "/proc/self/exe", .log_level_override = -1};
	enum sm_log_level level;
	int opt;

	while ((opt = sm_cli_getopt(self, argc, argv, "c:dvqL:", longs)) != SM_CLI_END) {
		switch (opt) {
		case 'c':
			options.config_path = optarg;
			break;
		case 'd':
			options.detach = true;
			break;
		case 'v':
			options.log_level_override = SM_LOG_DEBUG;
			break;
		case 'q':
			options.log_level_override = SM_LOG_WARN;
			break;
		case 'L':
			if (sm_log_level_parse(optarg, &level) < 0)
				return sm_cli_usage(self,
						    "'%s' is no level: error, warn, notice, info "
						    "or debug",
						    optarg);
			options.log_level_override = (int)level;
			break;
		case OPT_SELF_TEST:
			return sm_selftest_main(optarg);
		default:
			return sm_cli_stop(opt);
		}
	}
	if (optind < argc)
		return sm_cli_usage(self, "'%s' is too much", argv[optind]);
	if (options.config_path == NULL)
		return sm_cli_usage(self, "which network? give its configuration: -c FILE");
	return sm_daemon_run(&options);
}

const struct sm_cli_command sm_cli_up = {
	.name = "up",
	.synopsis = "-c FILE [-d] [-v | -q | --log-level LEVEL]",
	.summary = "join a network: run its daemon",
	.help = "Reads the configuration, makes the network interface and stays in the foreground until\n"
		"SIGTERM, SIGINT or 'shadowmesh down'. SIGHUP reads the configuration again.\n"
		"\n"
		"options:\n"
		"  -c, --config FILE      configuration, see shadowmesh.conf(5)\n"
		"  -d, --detach           go to the background; returns when the network is up, or with\n"
		"                         the error that prevented it\n"
		"  -v, --verbose          the same as --log-level debug\n"
		"  -q, --quiet            the same as --log-level warn\n"
		"  -L, --log-level LEVEL  error, warn, notice, info or debug; wins over the configuration\n"
		"  -h, --help             this page\n"
		"\n"
		"examples:\n"
		"  shadowmesh up -c /etc/shadowmesh/home.conf\n"
		"  shadowmesh up -d -c /etc/shadowmesh/home.conf 2>>/var/log/shadowmesh.log\n"
		"  systemctl enable --now shadowmesh@home",
	.run = up_run,
};

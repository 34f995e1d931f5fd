// SPDX-License-Identifier: MIT
/*
 * One daemon for one network: start-up and shut-down in order.
 */
#ifndef SM_DAEMON_DAEMON_H
#define SM_DAEMON_DAEMON_H

#include "base/base.h"

/**
 * struct sm_daemon_options - What the command line says
 * @config_path:        configuration file
 * @program:            this program's file, for the self-test; NULL: it is not run
 * @detach:             go to the background once ready
 * @log_level_override: enum sm_log_level, or -1: as configured
 */
struct sm_daemon_options {
	const char *config_path;
	const char *program;
	bool detach;
	int log_level_override;
};

/**
 * sm_daemon_run() - Run until told to stop
 *
 * Context: the program's only thread, before any other was started
 * Return: exit code: 0 after an orderly end, 1 after a failure, which was reported
 */
int sm_daemon_run(const struct sm_daemon_options *options);

struct sm_config_errors;

/**
 * sm_daemon_check() - Would sm_daemon_run() take this configuration and the files that it names?
 * @errors: appended to; not cleared
 *
 * Context: as sm_daemon_run(); log lines meanwhile become warnings in @errors
 * Return: 0; or -errno with at least one entry more in @errors
 */
SM_MUST_CHECK int sm_daemon_check(const char *path, struct sm_config_errors *errors);

#endif

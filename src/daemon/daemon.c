// SPDX-License-Identifier: MIT
/*
 * Start-up and shut-down in order: see daemon.h.
 */
#include "daemon/state.h"

#include "base/clock.h"
#include "daemon/config_check.h"

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

/* Keys must not reach the disk: no core dumps, no swapping. Best effort, where not allowed. */
static void protect_memory(void)
{
	const struct rlimit none = {0, 0}, all = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit files;

	(void)!setrlimit(RLIMIT_CORE, &none);
	(void)!prctl(PR_SET_DUMPABLE, 0);
	/* without a raised limit the lock would succeed and later allocations would fail */
	if (setrlimit(RLIMIT_MEMLOCK, &all) || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		sm_debug("memory is not locked: %s", strerror(errno));
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)!setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int load_config(struct sm_daemon *d, char *error)
{
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));
	int err;

	if (!errors) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "out of memory");
		return -ENOMEM;
	}
	err = sm_config_load(d->config_path ? d->config_path : d->options->config_path, &d->config,
			     errors);
	if (!err)
		err = sm_config_check_files(d->config, errors);
	for (uint32_t i = 0; i < errors->warning_count; i++)
		sm_warn("%s", errors->warning[i]);
	for (uint32_t i = 0; err && i + 1 < errors->count; i++)
		sm_error("%s", errors->text[i]);
	if (err)
		snprintf(error, SM_DAEMON_ERROR_MAX, "%.*s", (int)SM_DAEMON_ERROR_MAX - 1,
			 errors->count ? errors->text[errors->count - 1] : strerror(-err));
	free(errors);
	return err;
}

static int socket_group(const struct sm_config *config, gid_t *ret_gid, char *error)
{
	const struct group *group;

	*ret_gid = (gid_t)-1;
	if (!config->control.group)
		return 0;
	group = getgrnam(config->control.group);
	if (!group) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "[Control] Group: there is no group %s",
			 config->control.group);
		return -EINVAL;
	}
	*ret_gid = group->gr_gid;
	return 0;
}

static int start(struct sm_daemon *d, char *error)
{
	gid_t gid;
	int err;

	if (d->options->log_level_override < 0)
		sm_log_set_level(d->config->log_level);
	protect_memory();
	d->workers = sm_device_workers(d->config);
	err = sm_credentials_load(d->config, &d->credentials, error);
	if (err)
		return err;
	sm_credentials_warn(&d->credentials);
	err = sm_device_open(d, error);
	if (!err)
		err = sm_control_open(d, error);
	if (!err)
		err = socket_group(d->config, &gid, error);
	if (!err)
		err = sm_ctl_open(&d->loop, d->config->control.socket, gid, sm_commands_handle, d,
				  &d->ctl, error);
	return err;
}

static void to_syslog(void *arg, enum sm_log_level level, const char *text)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG};

	(void)arg;
	static_assert(SM_ARRAY_SIZE(priority) == SM_LOG_LEVEL_COUNT, "every level has a priority");
	syslog(priority[level] | LOG_DAEMON, "%s", text);
}

/* In the background stderr leads nowhere, unless it was sent to a file. */
static void detach_done(struct sm_daemon *d)
{
	struct stat st;

	if (d->detach.fd < 0)
		return;
	sm_detach_ready(&d->detach);
	if (fstat(STDERR_FILENO, &st) || !S_ISREG(st.st_mode)) {
		openlog("shadowmesh", LOG_PID, LOG_DAEMON);
		sm_log_set_sink(to_syslog, NULL);
	}
}

static void announce(struct sm_daemon *d)
{
	sm_notice(
		"network %s, node %s: %s %s is up with MTU %u, control port %u, data port %u, %u worker%s, %s",
		d->config->network.name, d->credentials.self.name,
		d->config->network.mode == SM_MODE_TAP ? "TAP" : "TUN", d->tun.name,
		d->config->interface.mtu, d->control_port, d->data_port, d->workers,
		d->workers == 1 ? "" : "s", sm_crypto_version());
	sm_notify_ready(&d->notify);
	detach_done(d);
}

static void stop(struct sm_daemon *d)
{
	sm_notify_stopping(&d->notify);
	sm_control_close(d);
	sm_offload_close(d);
	sm_device_close(d);
	sm_credentials_done(&d->credentials);
	sm_config_free(d->config);
	sm_notify_close(&d->notify);
}

static int run(struct sm_daemon *d)
{
	char error[SM_DAEMON_ERROR_MAX] = "";
	int err = load_config(d, error);

	if (!err)
		err = start(d, error);
	if (err) {
		sm_error("%s", error);
		stop(d);
		sm_detach_fail(&d->detach, 1, NULL);
		return 1;
	}
	announce(d);
	sm_control_run(d);
	stop(d);
	return d->failed ? 1 : 0;
}

/* What is logged about the credentials, as warnings about the configuration */
static void to_warnings(void *arg, enum sm_log_level level, const char *text)
{
	if (level <= SM_LOG_WARN)
		sm_config_warn(arg, 0, "%s", text);
}

int sm_daemon_check(const char *path, struct sm_config_errors *errors)
{
	struct sm_config_places at = {.file = path, .errors = errors};
	struct sm_credentials credentials = {0};
	struct sm_config *config = NULL;
	char error[SM_DAEMON_ERROR_MAX] = "";
	int err = sm_config_load(path, &config, errors);

	if (!err)
		err = sm_config_check_files(config, errors);
	if (!err && sm_crypto_init()) {
		sm_config_complain(&at, 0, "the cryptographic library lacks what is needed: %s",
				   sm_crypto_version());
		err = -ENOTSUP;
	}
	if (!err) {
		sm_log_set_sink(to_warnings, &at);
		err = sm_credentials_load(config, &credentials, error);
		if (err)
			sm_config_complain(&at, 0, "%s", error);
		else
			sm_credentials_warn(&credentials);
		sm_log_set_sink(NULL, NULL);
	}
	sm_credentials_done(&credentials);
	sm_config_free(config);
	return err;
}

int sm_daemon_run(const struct sm_daemon_options *options)
{
	struct sm_daemon d = {.options = options,
			      .detach = SM_DETACH_FOREGROUND,
			      .network_lock = -1,
			      .udp_lock = -1,
			      .tcp_lock = -1,
			      .monitor_fd = -1,
			      .selftest = {.fd = -1}};
	int code = 0, err = 0;

	for (uint32_t i = 0; i < SM_WORKER_MAX; i++)
		d.udp_fd[i] = -1;
	sm_list_init(&d.resolutions);
	sm_list_init(&d.pings);
	if (options->log_level_override >= 0)
		sm_log_set_level((enum sm_log_level)options->log_level_override);
	if (sm_crypto_init()) {
		sm_error("the cryptographic library lacks what is needed: %s", sm_crypto_version());
		return 1;
	}
	/* a reload must find it from wherever the daemon then is */
	d.config_path = realpath(options->config_path, NULL);
	if (!d.config_path) {
		sm_error("%s: %s", options->config_path, strerror(errno));
		return 1;
	}
	d.started_us = sm_clock_now_us();
	signal(SIGPIPE, SIG_IGN);
	if (options->detach) {
		err = sm_detach_begin(&d.detach, &code);
		if (err < 0) {
			sm_error("cannot go to the background: %s", strerror(-err));
			code = 1;
		}
	}
	if (!err) {
		err = sm_notify_open(&d.notify);
		if (err)
			sm_warn("NOTIFY_SOCKET cannot be used: %s", strerror(-err));
		code = run(&d);
		if (d.loop_busy)
			_exit(code); /* the library's destructor would wait for its threads */
	}
	free(d.config_path);
	return code;
}

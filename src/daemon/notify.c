// SPDX-License-Identifier: MIT
/*
 * sd_notify(3) by hand: datagrams of VARIABLE=value lines to the socket in NOTIFY_SOCKET.
 */
#include "daemon/notify.h"

#include "base/log.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STATUS_MAX 512

int sm_notify_open(struct sm_notify *notify)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const char *name = getenv("NOTIFY_SOCKET");
	size_t len;
	int fd;

	notify->fd = -1;
	if (name == NULL || name[0] == '\0')
		return 0;
	len = strlen(name);
	if ((name[0] != '/' && name[0] != '@') || name[1] == '\0')
		return -EAFNOSUPPORT;
	if (len >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, name, len);
	if (name[0] == '@')
		addr.sun_path[0] = '\0'; /* abstract: no terminator, the length tells its end */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	notify->fd = fd;
	return 0;
}

void sm_notify_close(struct sm_notify *notify)
{
	if (notify->fd >= 0)
		close(notify->fd);
	notify->fd = -1;
}

static void notify_send(const struct sm_notify *notify, const char *text)
{
	if (notify->fd >= 0 &&
	    send(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		sm_debug("service manager: %s", strerror(errno));
}

void sm_notify_ready(const struct sm_notify *notify)
{
	notify_send(notify, "READY=1");
}

void sm_notify_reloading(const struct sm_notify *notify)
{
	char text[64];
	struct timespec now = {0};

	/* CLOCK_MONOTONIC by systemd's definition, not the clock of our timers */
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 (uint64_t)now.tv_sec * SM_SEC_US + (uint64_t)now.tv_nsec / 1000);
	notify_send(notify, text);
}

void sm_notify_stopping(const struct sm_notify *notify)
{
	notify_send(notify, "STOPPING=1");
}

void sm_notify_status(const struct sm_notify *notify, const char *fmt, ...)
{
	char text[STATUS_MAX] = "STATUS=";
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + len, sizeof(text) - len, fmt, ap);
	va_end(ap);
	for (char *p = text + len; *p != '\0'; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	notify_send(notify, text);
}

void sm_notify_watchdog(const struct sm_notify *notify)
{
	notify_send(notify, "WATCHDOG=1");
}

uint64_t sm_notify_watchdog_us(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t us = 0, whom = 0;

	if (usec == NULL || sm_text_parse_u64(usec, 1, UINT64_MAX - 1, &us) < 0)
		return 0;
	if (pid != NULL &&
	    (sm_text_parse_u64(pid, 1, INT32_MAX, &whom) < 0 || (pid_t)whom != getpid()))
		return 0;
	return us;
}

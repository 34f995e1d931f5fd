// SPDX-License-Identifier: MIT
/*
 * Tells the service manager how the daemon is: the datagrams of sd_notify(3), without its library.
 */
#ifndef SM_DAEMON_NOTIFY_H
#define SM_DAEMON_NOTIFY_H

#include "base/base.h"

/** struct sm_notify - Where to tell it; @fd is -1 when nobody asked */
struct sm_notify {
	int fd;
};

/**
 * sm_notify_open() - Look at NOTIFY_SOCKET and connect to it, be it a path or an abstract name ("@...")
 *
 * Connected once: a sandbox that comes later does not matter.
 * Return: 0, also when nobody asked; -EAFNOSUPPORT another kind of name; -errno. @notify is valid in
 *         every case, the calls below do nothing when there is no socket
 */
SM_MUST_CHECK int sm_notify_open(struct sm_notify *notify);
void sm_notify_close(struct sm_notify *notify);

/** sm_notify_ready() - READY=1, after start-up and after a reload */
void sm_notify_ready(const struct sm_notify *notify);

/** sm_notify_reloading() - RELOADING=1 with the time, as Type=notify-reload wants it; READY ends it */
void sm_notify_reloading(const struct sm_notify *notify);

/** sm_notify_stopping() - STOPPING=1 */
void sm_notify_stopping(const struct sm_notify *notify);

/** sm_notify_status() - STATUS=: one line for people, control characters become blanks */
void sm_notify_status(const struct sm_notify *notify, const char *fmt, ...) SM_PRINTF(2, 3);

/** sm_notify_watchdog() - WATCHDOG=1 */
void sm_notify_watchdog(const struct sm_notify *notify);

/**
 * sm_notify_watchdog_us() - How often the service manager wants WATCHDOG=1 at least (WATCHDOG_USEC)
 * Return: microseconds; send twice as often. 0: it does not ask, or it asks another process
 */
uint64_t sm_notify_watchdog_us(void);

#endif

// SPDX-License-Identifier: MIT
/*
 * Going to the background: the caller's command returns when the daemon is ready, or with its error.
 *
 * Theory of operation: two forks and a session of its own between them, so that no terminal and no waiting
 * parent is left; a stream socket leads from the daemon back to the command. Its end without a report
 * means that the daemon died.
 */
#ifndef SM_DAEMON_DETACH_H
#define SM_DAEMON_DETACH_H

#include "base/base.h"

#define SM_DETACH_TEXT_MAX 1024u

/** struct sm_detach - The daemon's end of the way back; @fd is -1 in the foreground and after the report */
struct sm_detach {
	int fd;
};
#define SM_DETACH_FOREGROUND ((struct sm_detach){.fd = -1})

/**
 * sm_detach_begin() - Become a daemon
 * @ret_code: what the command is to exit with
 *
 * Context: before there are threads or an event loop
 * Return: 0 in the daemon; 1 in the command, after the daemon's report, its error being on stderr;
 *         -errno in the command if there was no fork
 */
SM_MUST_CHECK int sm_detach_begin(struct sm_detach *ret_detach, int *ret_code);

/**
 * sm_detach_ready() - Let the command end with 0, and let go of its standard streams
 *
 * stderr stays if it is a file, as in "up -d 2>>log"; else all three lead to /dev/null. Does nothing in the
 * foreground.
 */
void sm_detach_ready(struct sm_detach *detach);

/**
 * sm_detach_fail() - Let the command print a text and end with a code
 * @code: 1 to 255
 * @fmt:  without a line feed at the end; NULL if the error has been printed, stderr is still the command's
 */
void sm_detach_fail(struct sm_detach *detach, int code, const char *fmt, ...) SM_PRINTF(3, 4);

#endif

// SPDX-License-Identifier: MIT
/*
 * The control socket's file: bound, locked, removed. Private to ctl.c.
 */
#ifndef SM_DAEMON_CTL_SOCKET_H
#define SM_DAEMON_CTL_SOCKET_H

#include "base/base.h"

#include <sys/types.h>
#include <sys/un.h>

#define SM_CTL_PATH_MAX sizeof(((struct sockaddr_un *)NULL)->sun_path)

/** struct sm_ctl_socket - A listening UNIX socket with a file of its own */
struct sm_ctl_socket {
	int fd; /* listening, does not block */
	int lock_fd;
	dev_t dev; /* of the file, to remove no other */
	ino_t ino;
	char path[SM_CTL_PATH_MAX];
	gid_t group;
};

/**
 * sm_ctl_socket_open() - Make the file and listen on it
 * @path:  made with mode 0660; its directory is made if it is missing, with mode 0755
 * @group: owner group, (gid_t)-1: as the process
 * @error: SM_CTL_ERROR_MAX bytes; on failure a sentence
 *
 * Return: 0; -EADDRINUSE a daemon answers there; -errno, then there is nothing to close
 */
SM_MUST_CHECK int sm_ctl_socket_open(struct sm_ctl_socket *s, const char *path, gid_t group,
				     char *error);

/** sm_ctl_socket_close() - Stop listening; the file and its lock go */
void sm_ctl_socket_close(struct sm_ctl_socket *s);

#endif

// SPDX-License-Identifier: MIT
/*
 * The control socket's file and the lock beside it.
 *
 * Theory of operation: who holds the lock owns the path. A socket that is found there then is a dead daemon's,
 * unless somebody without a lock listens on it, and is replaced. At the end only our own file is removed.
 */
#include "daemon/ctl_socket.h"

#include "daemon/ctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Holds the lock beside the socket. The file may have been removed between open() and flock(). */
static int lock_file(const char *path, int *ret_fd)
{
	char name[SM_CTL_PATH_MAX + 8];
	struct stat held, there;

	snprintf(name, sizeof(name), "%s.lock", path);
	for (;;) {
		int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		int r;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			r = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
			close(fd);
			return r;
		}
		if (fstat(fd, &held) == 0 && stat(name, &there) == 0 &&
		    held.st_ino == there.st_ino && held.st_dev == there.st_dev) {
			*ret_fd = fd;
			return 0;
		}
		close(fd);
	}
}

/* Return: process that listens at @addr, 0 if that is hidden, -ECONNREFUSED if none does, -errno */
static long listener_pid(const struct sockaddr_un *addr)
{
	struct ucred cred = {.pid = 0};
	socklen_t len = sizeof(cred);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	long r;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		r = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.pid : 0;
	else
		r = errno == EAGAIN ? 0 : -errno; /* its backlog is full: it lives */
	close(fd);
	return r;
}

static int error_in_use(const struct sockaddr_un *addr, char *error)
{
	long pid = listener_pid(addr);

	if (pid > 0)
		snprintf(error, SM_CTL_ERROR_MAX,
			 "process %ld already serves the control socket %s", pid, addr->sun_path);
	else
		snprintf(error, SM_CTL_ERROR_MAX,
			 "another process already serves the control socket %s", addr->sun_path);
	return -EADDRINUSE;
}

/* Return: 0 if nothing stands in the way of bind() any more */
static int clear_path(const struct sockaddr_un *addr, char *error)
{
	struct stat st;
	long pid;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(error, SM_CTL_ERROR_MAX, "%s is there and no socket", addr->sun_path);
		return -EEXIST;
	}
	pid = listener_pid(addr);
	if (pid >= 0)
		return error_in_use(addr, error);
	if (pid == -ECONNREFUSED && unlink(addr->sun_path) == 0)
		return 0;
	snprintf(error, SM_CTL_ERROR_MAX, "cannot replace the old control socket %s: %s",
		 addr->sun_path, strerror(pid == -ECONNREFUSED ? errno : (int)-pid));
	return pid == -ECONNREFUSED ? -errno : (int)pid;
}

static int make_directory(const char *path, char *error)
{
	char dir[SM_CTL_PATH_MAX];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == NULL || slash == dir)
		return 0;
	*slash = '\0';
	if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
		int r = -errno;

		snprintf(error, SM_CTL_ERROR_MAX, "cannot make the directory %s: %s", dir,
			 strerror(-r));
		return r;
	}
	return 0;
}

/* Binds and listens; @s->fd is the caller's to close in every case */
static int listen_at(struct sm_ctl_socket *s, const struct sockaddr_un *addr, char *error)
{
	struct stat st;
	const char *step = "make";
	int r;

	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Linux gives the file the mode of the descriptor: it is never wider than this */
	if (s->fd < 0 || fchmod(s->fd, 0660) < 0 ||
	    bind(s->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		goto failed;
	step = "look at";
	if (lstat(s->path, &st) < 0)
		goto failed;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	step = "set the group of";
	if (s->group != (gid_t)-1 && lchown(s->path, (uid_t)-1, s->group) < 0)
		goto failed;
	step = "set the mode of";
	if (chmod(s->path, 0660) < 0)
		goto failed;
	step = "listen on";
	if (listen(s->fd, SM_CTL_CLIENTS_MAX) < 0)
		goto failed;
	return 0;
failed:
	r = -errno;
	snprintf(error, SM_CTL_ERROR_MAX, "cannot %s the control socket %s: %s", step, s->path,
		 strerror(-r));
	return r;
}

static void remove_files(struct sm_ctl_socket *s)
{
	char name[SM_CTL_PATH_MAX + 8];
	struct stat st;

	if (s->ino != 0 && lstat(s->path, &st) == 0 && st.st_ino == s->ino && st.st_dev == s->dev)
		(void)unlink(s->path);
	if (s->lock_fd >= 0) {
		snprintf(name, sizeof(name), "%s.lock", s->path);
		(void)unlink(name);
		close(s->lock_fd);
	}
}

static int claim(struct sm_ctl_socket *s, const char *path, char *error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		snprintf(error, SM_CTL_ERROR_MAX,
			 "the control socket's path %s is longer than %zu bytes", path,
			 sizeof(addr.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	snprintf(s->path, sizeof(s->path), "%s", path);
	r = make_directory(path, error);
	if (r < 0)
		return r;
	r = lock_file(path, &s->lock_fd);
	if (r == -EADDRINUSE)
		return error_in_use(&addr, error);
	if (r < 0) {
		snprintf(error, SM_CTL_ERROR_MAX, "cannot lock %s.lock: %s", path, strerror(-r));
		return r;
	}
	r = clear_path(&addr, error);
	return r < 0 ? r : listen_at(s, &addr, error);
}

int sm_ctl_socket_open(struct sm_ctl_socket *s, const char *path, gid_t group, char *error)
{
	int r;

	*s = (struct sm_ctl_socket){.fd = -1, .lock_fd = -1, .group = group};
	r = claim(s, path, error);
	if (r < 0)
		sm_ctl_socket_close(s);
	return r;
}

void sm_ctl_socket_close(struct sm_ctl_socket *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	remove_files(s);
}

// SPDX-License-Identifier: MIT
/*
 * Two forks and a way back. A report is one byte, the exit code, and a text.
 */
#include "daemon/detach.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

/* The command's part: wait for the report; Return: exit code */
static int await_report(int fd, pid_t child)
{
	char report[1 + SM_DETACH_TEXT_MAX];
	ssize_t n = read_all(fd, report, sizeof(report));

	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (n <= 0) {
		fprintf(stderr, "shadowmesh: the daemon ended before it was ready\n");
		return EXIT_FAILURE;
	}
	if (n > 1)
		fprintf(stderr, "%.*s\n", (int)(n - 1), report + 1);
	return (unsigned char)report[0];
}

int sm_detach_begin(struct sm_detach *ret_detach, int *ret_code)
{
	int fd[2], null;
	pid_t pid;

	(void)fflush(NULL); /* or both processes would write what is buffered */
	/* a socket, for its MSG_NOSIGNAL: the command may be gone when the report comes */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		int r = -errno;

		close(fd[0]);
		close(fd[1]);
		return r;
	}
	if (pid > 0) {
		close(fd[1]);
		*ret_code = await_report(fd[0], pid);
		close(fd[0]);
		return 1;
	}
	close(fd[0]);
	*ret_detach = (struct sm_detach){.fd = fd[1]};
	if (setsid() < 0) {
		sm_detach_fail(ret_detach, EXIT_FAILURE, "shadowmesh: no session of its own: %s",
			       strerror(errno));
		_exit(EXIT_FAILURE);
	}
	pid = fork();
	if (pid < 0) {
		sm_detach_fail(ret_detach, EXIT_FAILURE, "shadowmesh: cannot fork: %s",
			       strerror(errno));
		_exit(EXIT_FAILURE);
	}
	if (pid > 0)
		_exit(EXIT_SUCCESS);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	return 0;
}

static void report(struct sm_detach *detach, const char *data, size_t len)
{
	if (detach->fd < 0)
		return;
	/* that nobody is there to read it is no loss */
	while (send(detach->fd, data, len, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
	close(detach->fd);
	detach->fd = -1;
}

static void let_go_of_streams(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct stat st;

	if (null < 0)
		return;
	(void)fflush(NULL);
	(void)dup2(null, STDOUT_FILENO);
	if (fstat(STDERR_FILENO, &st) < 0 || !S_ISREG(st.st_mode))
		(void)dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

void sm_detach_ready(struct sm_detach *detach)
{
	if (detach->fd < 0)
		return;
	(void)!chdir("/");
	let_go_of_streams();
	report(detach, "", 1);
}

void sm_detach_fail(struct sm_detach *detach, int code, const char *fmt, ...)
{
	char text[1 + SM_DETACH_TEXT_MAX];
	va_list ap;

	text[0] = (char)code;
	text[1] = '\0';
	if (fmt != NULL) {
		va_start(ap, fmt);
		vsnprintf(text + 1, sizeof(text) - 1, fmt, ap);
		va_end(ap);
	}
	report(detach, text, 1 + strlen(text + 1));
}

// SPDX-License-Identifier: MIT
/*
 * What a client writes to the control socket, through a real socket and loop. The first byte says into
 * which pieces the rest is cut. Every line that comes back must be an answer.
 */
#include "base/log.h"
#include "daemon/ctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define INPUT_MAX (2 * SM_CTL_REQUEST_MAX)
#define TURNS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct sm_ctl *ctl;
static char answers[1 << 20];
static struct sm_ctl_request *waiting;

static void on_gone(void *arg, struct sm_ctl_request *request)
{
	(void)arg;
	if (waiting != request)
		abort();
	waiting = NULL;
}

static void serve(void *arg, struct sm_ctl_request *request, const char *command,
		  const json_t *args)
{
	(void)arg;
	switch (command[0]) {
	case 'f':
		sm_ctl_fail(request, "failed", "%.300s", command);
		return;
	case 's':
		sm_ctl_reply(request, NULL, false);
		sm_ctl_reply(request, json_deep_copy(args), true);
		return;
	case 'w':
		if (waiting == NULL) {
			waiting = request;
			sm_ctl_on_gone(request, on_gone, NULL);
			return;
		}
		break;
	}
	sm_ctl_reply(request, json_deep_copy(args), true);
}

static void no_log(void *arg, enum sm_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

static void start(void)
{
	char path[64], error[SM_CTL_ERROR_MAX];

	sm_log_set_sink(no_log, NULL);
	snprintf(path, sizeof(path), "/tmp/sm-fuzz-ctl.%d.sock", (int)getpid());
	if (uv_loop_init(&loop) < 0 ||
	    sm_ctl_open(&loop, path, (gid_t)-1, serve, NULL, &ctl, error) < 0)
		abort();
	/* clients are adopted: the file is not needed, and would stay when the fuzzer is stopped */
	(void)unlink(path);
	snprintf(error, sizeof(error), "%s.lock", path);
	(void)unlink(error);
}

static void check_answers(size_t len)
{
	const char *line = answers, *end;

	while ((end = memchr(line, '\n', len - (size_t)(line - answers))) != NULL) {
		json_t *answer = json_loadb(line, (size_t)(end - line), 0, NULL);
		bool ok = json_is_true(json_object_get(answer, "ok"));

		if (!json_is_object(answer) ||
		    (ok && !json_is_object(json_object_get(answer, "result"))) ||
		    (!ok && !json_is_string(json_object_get(answer, "error"))) ||
		    (!ok && !json_is_string(json_object_get(answer, "code"))))
			abort();
		json_decref(answer);
		line = end + 1;
	}
	if (line != answers + len)
		abort();
}

/* Return: false when the server has closed */
static bool drain(int fd, size_t *len)
{
	ssize_t n;

	if (waiting != NULL) {
		struct sm_ctl_request *request = waiting;

		waiting = NULL;
		sm_ctl_reply(request, NULL, true);
	}
	uv_run(&loop, UV_RUN_NOWAIT);
	n = recv(fd, answers + *len, sizeof(answers) - *len, MSG_DONTWAIT);
	if (n > 0)
		*len += (size_t)n;
	return n > 0 || (n < 0 && errno == EAGAIN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece, len = 0;
	bool open = true;
	int fd[2];

	if (size < 2 || size > INPUT_MAX)
		return 0;
	if (ctl == NULL)
		start();
	/* 0: all at once, else in pieces of 1 to 255 bytes, and then the client is gone at once */
	piece = data[0] == 0 ? size : data[0];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0 ||
	    sm_ctl_adopt(ctl, fd[1]) < 0)
		abort();
	for (size_t at = 1, turns = 0; at < size && open && turns < TURNS_MAX; turns++) {
		ssize_t n = send(fd[0], data + at, SM_MIN(piece, size - at), MSG_NOSIGNAL);

		if (n > 0)
			at += (size_t)n;
		open = drain(fd[0], &len);
	}
	if (piece % 2 == 0) {
		(void)shutdown(fd[0], SHUT_WR);
		for (unsigned i = 0; i < TURNS_MAX && open; i++)
			open = drain(fd[0], &len);
		/* all that was asked is answered, and the end of it is the end of the connection */
		if (open)
			abort();
		check_answers(len);
	}
	close(fd[0]);
	for (unsigned i = 0; i < TURNS_MAX && sm_ctl_clients(ctl) > 0; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	if (sm_ctl_clients(ctl) > 0 || waiting != NULL)
		abort();
	return 0;
}

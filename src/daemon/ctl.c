// SPDX-License-Identifier: MIT
/*
 * Server side of the control socket. Who may ask is decided once, when a connection comes in.
 */
#include "daemon/ctl.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "daemon/ctl_socket.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SWEEP_MS    1000u
#define GROUPS_MAX  65536u /* NGROUPS_MAX of the kernel */
#define KEEP_BUFFER 65536u /* an answer buffer above this is given back once it has left */

struct sm_ctl {
	uv_poll_t listener;
	uv_timer_t sweep;
	struct sm_list clients;
	uint32_t client_count;
	uint32_t handles; /* not yet closed, as far as libuv goes */
	bool closing, listening;
	struct sm_ctl_socket socket;
	sm_ctl_handler handler;
	void *arg;
	struct sm_ctl_tuning tuning;
	struct sm_log_limit refused_limit, full_limit;
};

struct client {
	struct sm_list node;
	struct sm_ctl *ctl;
	uv_poll_t poll;
	int fd;
	struct sm_ctl_request *request; /* the one being served */
	char *in, *out;
	size_t in_len, out_len, out_off, out_size;
	uint64_t active_us; /* connected, answered, or took some of an answer */
	bool half_closed;   /* will send no more than what has arrived */
	bool eof;           /* and all of that was read */
	bool last;          /* goes once the answer has left */
	bool broken;        /* goes at the next chance */
	bool closing;
};

struct sm_ctl_request {
	struct client *client;
	void (*gone)(void *arg, struct sm_ctl_request *request);
	void *arg;
};

static void client_events(struct client *client);

/* --- leaving --- */

static void handle_closed(struct sm_ctl *ctl)
{
	if (--ctl->handles == 0)
		free(ctl);
}

static void on_own_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *client = handle->data;
	struct sm_ctl *ctl = client->ctl;

	free(client->in);
	free(client->out);
	free(client);
	handle_closed(ctl);
}

static void client_drop(struct client *client)
{
	struct sm_ctl_request *request = client->request;

	if (client->closing)
		return;
	client->closing = true;
	client->request = NULL;
	sm_list_del(&client->node);
	client->ctl->client_count--;
	uv_close((uv_handle_t *)&client->poll, on_client_closed);
	close(client->fd);
	if (request == NULL)
		return;
	if (request->gone != NULL)
		request->gone(request->arg, request);
	free(request);
}

/* --- answers --- */

static size_t client_unsent(const struct client *client)
{
	return client->out_len - client->out_off;
}

static int out_append(struct client *client, const char *data, size_t len)
{
	size_t need = client->out_len + len;

	if (need > client->out_size) {
		size_t size = SM_MAX(need, SM_MIN(2 * client->out_size, (size_t)1 << 20));
		char *out = realloc(client->out, size);

		if (out == NULL)
			return -ENOMEM;
		client->out = out;
		client->out_size = size;
	}
	memcpy(client->out + client->out_len, data, len);
	client->out_len = need;
	return 0;
}

/* Takes @line, an object or NULL for lack of memory */
static void client_answer(struct client *client, json_t *line)
{
	char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;

	json_decref(line);
	if (text == NULL || out_append(client, text, strlen(text)) < 0 ||
	    out_append(client, "\n", 1) < 0) {
		sm_error("control socket: out of memory for an answer");
		client->broken = true;
	}
	free(text);
}

/* A string of JSON, whatever the bytes are: file names need not be UTF-8 */
static json_t *text_value(char *text)
{
	json_t *value = json_string(text);

	if (value != NULL)
		return value;
	for (char *p = text; *p != '\0'; p++) {
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	}
	return json_string(text);
}

static json_t *error_line(const char *code, char *text)
{
	return json_pack("{s:b,s:o,s:s}", "ok", 0, "error", text_value(text), "code", code);
}

static void client_error(struct client *client, const char *code, char *text)
{
	client_answer(client, error_line(code, text));
}

static void request_end(struct sm_ctl_request *request)
{
	struct client *client = request->client;

	client->request = NULL;
	client->active_us = sm_clock_now_us();
	free(request);
}

void sm_ctl_reply(struct sm_ctl_request *request, json_t *result, bool last)
{
	struct client *client = request->client;

	if (client->broken) {
		json_decref(result);
	} else if (client_unsent(client) > SM_CTL_BACKLOG_MAX) {
		sm_warn("control socket: a client does not read its answers, dropped");
		client->broken = true;
		json_decref(result);
	} else {
		if (result == NULL)
			result = json_object();
		client_answer(client, json_pack("{s:b,s:o}", "ok", 1, "result", result));
	}
	if (last)
		request_end(request);
	client_events(client);
}

void sm_ctl_fail(struct sm_ctl_request *request, const char *code, const char *fmt, ...)
{
	struct client *client = request->client;
	char text[SM_CTL_ERROR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!client->broken)
		client_error(client, code, text);
	request_end(request);
	client_events(client);
}

void sm_ctl_on_gone(struct sm_ctl_request *request,
		    void (*gone)(void *arg, struct sm_ctl_request *request), void *arg)
{
	request->gone = gone;
	request->arg = arg;
}

/* --- requests --- */

int sm_ctl_parse(const char *line, size_t len, json_t **ret_args, char *error)
{
	json_error_t why;
	json_t *args = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);

	if (args == NULL) {
		snprintf(error, SM_CTL_ERROR_MAX, "the request is not JSON: %s", why.text);
		return -EINVAL;
	}
	if (!json_is_string(json_object_get(args, "command"))) {
		snprintf(error, SM_CTL_ERROR_MAX,
			 "a request is an object with a string \"command\"");
		json_decref(args);
		return -EINVAL;
	}
	*ret_args = args;
	return 0;
}

static void client_request(struct client *client, const char *line, size_t len)
{
	struct sm_ctl *ctl = client->ctl;
	struct sm_ctl_request *request;
	char error[SM_CTL_ERROR_MAX];
	json_t *args = NULL;

	if (sm_ctl_parse(line, len, &args, error) < 0) {
		client_error(client, "bad-request", error);
		client->active_us = sm_clock_now_us();
		return;
	}
	request = calloc(1, sizeof(*request));
	if (request == NULL) {
		client->broken = true;
	} else {
		request->client = client;
		client->request = request;
		ctl->handler(ctl->arg, request, json_string_value(json_object_get(args, "command")),
			     args);
		/* a request that waits must be told when its client leaves, or it would dangle */
		assert(client->request == NULL || client->request->gone != NULL);
	}
	json_decref(args);
}

/* Serves what is complete, until an answer or a request is under way */
static void client_process(struct client *client)
{
	while (!client->closing && !client->broken && client->request == NULL && !client->last &&
	       client_unsent(client) == 0) {
		char *end = client->in_len > 0 ? memchr(client->in, '\n', client->in_len) : NULL;
		size_t used;

		if (end == NULL) {
			if (client->eof)
				client_drop(client);
			return;
		}
		used = (size_t)(end - client->in) + 1;
		client_request(client, client->in, used - 1);
		client->in_len -= used;
		memmove(client->in, client->in + used, client->in_len);
	}
}

static void client_read(struct client *client)
{
	size_t room = SM_CTL_REQUEST_MAX + 1 - client->in_len;
	ssize_t n;

	if (client->in == NULL) {
		client->in = malloc(SM_CTL_REQUEST_MAX + 1);
		if (client->in == NULL) {
			client_drop(client);
			return;
		}
	}
	n = recv(client->fd, client->in + client->in_len, room, MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_drop(client);
		return;
	}
	if (n == 0)
		client->eof = true;
	client->in_len += (size_t)n;
	client_process(client);
	if (!client->closing && client->request == NULL && !client->last &&
	    client->in_len == SM_CTL_REQUEST_MAX + 1 &&
	    memchr(client->in, '\n', client->in_len) == NULL) {
		char error[SM_CTL_ERROR_MAX];

		snprintf(error, sizeof(error), "the request is longer than %u bytes",
			 SM_CTL_REQUEST_MAX);
		client_error(client, "too-long", error);
		client->last = true;
	}
}

/* Return: 0, or -EIO if the client is gone */
static int client_send(struct client *client)
{
	ssize_t n = send(client->fd, client->out + client->out_off, client_unsent(client),
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -EIO;
	client->out_off += (size_t)n;
	client->active_us = sm_clock_now_us();
	if (client_unsent(client) > 0) {
		/* what has left makes room when it is worth the move */
		if (client->out_off >= KEEP_BUFFER) {
			memmove(client->out, client->out + client->out_off, client_unsent(client));
			client->out_len -= client->out_off;
			client->out_off = 0;
		}
		return 0;
	}
	client->out_off = client->out_len = 0;
	if (client->out_size > KEEP_BUFFER) {
		free(client->out);
		client->out = NULL;
		client->out_size = 0;
	}
	return 0;
}

static void client_flush(struct client *client)
{
	if (client_send(client) < 0 || (client->last && client_unsent(client) == 0)) {
		client_drop(client);
		return;
	}
	client_process(client);
}

/* Gone, as opposed to one that only ended its own sending? */
static bool client_hung_up(const struct client *client)
{
	struct pollfd p = {.fd = client->fd, .events = 0};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

static void on_client_event(uv_poll_t *handle, int status, int events)
{
	struct client *client = handle->data;

	if (status < 0 || client->broken) {
		client_drop(client);
		return;
	}
	if (events & UV_WRITABLE && client_unsent(client) > 0)
		client_flush(client);
	if (!client->closing && events & UV_READABLE)
		client_read(client);
	if (!client->closing && events & UV_DISCONNECT) {
		if (client_hung_up(client))
			client_drop(client);
		else
			client->half_closed = true;
	}
	if (!client->closing && client->eof)
		client_process(client);
	if (!client->closing)
		client_events(client);
}

/* Says to the loop what this client waits for; the sweep sees the end of one that waits for nothing */
static void client_events(struct client *client)
{
	bool unsent = client_unsent(client) > 0;
	int events = 0;

	if (client->closing)
		return;
	if (unsent)
		events |= UV_WRITABLE;
	else if (client->request == NULL && !client->eof && !client->last)
		events |= UV_READABLE;
	if (!client->half_closed)
		events |= UV_DISCONNECT;
	if (events != 0 && uv_poll_start(&client->poll, events, on_client_event) == 0)
		return;
	uv_poll_stop(&client->poll);
}

static bool client_expired(const struct client *client, uint64_t now_us)
{
	bool waits = client->request != NULL && client_unsent(client) == 0;

	return !waits && now_us - client->active_us >= client->ctl->tuning.idle_us;
}

static void on_listener_event(uv_poll_t *handle, int status, int events);

static void on_sweep(uv_timer_t *timer)
{
	struct sm_ctl *ctl = timer->data;
	uint64_t now_us = sm_clock_now_us();
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, &ctl->clients)
	{
		struct client *client = SM_LIST_ENTRY(node, struct client, node);

		if (client->broken || client_expired(client, now_us) || client_hung_up(client))
			client_drop(client);
		if (ctl->closing)
			return;
	}
	if (!ctl->listening)
		ctl->listening = uv_poll_start(&ctl->listener, UV_READABLE, on_listener_event) == 0;
	if (ctl->client_count == 0 && ctl->listening)
		uv_timer_stop(timer);
}

/* --- coming --- */

static int peer_credentials(int fd, struct ucred *ret_cred)
{
	socklen_t len = sizeof(*ret_cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_cred, &len) < 0 ? -errno : 0;
}

static bool peer_in_group(int fd, gid_t group)
{
	socklen_t len = 32 * sizeof(gid_t);
	gid_t *groups = malloc(len);
	bool found = false;

	if (groups == NULL)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0) {
		gid_t *more = NULL;

		if (errno == ERANGE && len <= GROUPS_MAX * sizeof(gid_t))
			more = realloc(groups, len);
		if (more != NULL)
			groups = more;
		if (more == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
			len = 0;
	}
	for (size_t i = 0; i < len / sizeof(gid_t); i++)
		found = found || groups[i] == group;
	free(groups);
	return found;
}

static bool may_ask(const struct sm_ctl *ctl, int fd, const struct ucred *cred)
{
	if (cred->uid == 0 || cred->uid == geteuid())
		return true;
	return ctl->socket.group != (gid_t)-1 &&
	       (cred->gid == ctl->socket.group || peer_in_group(fd, ctl->socket.group));
}

/* One line to one who is not served; a fresh socket has room for it */
static void turn_away(int fd, const char *code, char *why)
{
	json_t *line = error_line(code, why);
	char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;

	if (text != NULL) {
		size_t len = strlen(text);

		text[len] = '\n'; /* over the terminator: what is sent has a length */
		if (send(fd, text, len + 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			sm_debug("control socket: a client that was turned away did not wait");
	}
	free(text);
	json_decref(line);
	close(fd);
}

static int client_admit(struct sm_ctl *ctl, int fd)
{
	struct ucred cred = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
	uint64_t now_us = sm_clock_now_us();
	char why[SM_CTL_ERROR_MAX];
	int r = ctl->tuning.credentials(fd, &cred);

	if (r < 0 || !may_ask(ctl, fd, &cred)) {
		if (sm_log_allow(&ctl->refused_limit, now_us, 5, 6, NULL))
			sm_warn("control socket: refused process %ld of uid %u", (long)cred.pid,
				(unsigned)cred.uid);
		snprintf(why, sizeof(why),
			 "uid %u may not control this daemon; root and the group of the socket may",
			 (unsigned)cred.uid);
		turn_away(fd, "denied", why);
		return -EPERM;
	}
	if (ctl->client_count >= SM_CTL_CLIENTS_MAX) {
		if (sm_log_allow(&ctl->full_limit, now_us, 1, 2, NULL))
			sm_warn("control socket: more than %u clients at once, one refused",
				SM_CTL_CLIENTS_MAX);
		snprintf(why, sizeof(why), "%u clients are connected, no more are served",
			 SM_CTL_CLIENTS_MAX);
		turn_away(fd, "busy", why);
		return -EBUSY;
	}
	return 0;
}

static void sweep_start(struct sm_ctl *ctl)
{
	uint64_t ms = SM_MIN(SWEEP_MS, ctl->tuning.idle_us / (2 * SM_MSEC_US) + 1);

	if (!uv_is_active((uv_handle_t *)&ctl->sweep))
		(void)uv_timer_start(&ctl->sweep, on_sweep, ms, ms);
}

int sm_ctl_adopt(struct sm_ctl *ctl, int fd)
{
	struct client *client;
	int r = client_admit(ctl, fd);

	if (r < 0)
		return r;
	client = calloc(1, sizeof(*client));
	r = client != NULL ? uv_poll_init(ctl->sweep.loop, &client->poll, fd) : -ENOMEM;
	if (r < 0) {
		free(client);
		close(fd);
		return r;
	}
	client->poll.data = client;
	client->ctl = ctl;
	client->fd = fd;
	client->active_us = sm_clock_now_us();
	ctl->handles++;
	ctl->client_count++;
	sm_list_add_tail(&ctl->clients, &client->node);
	sweep_start(ctl);
	client_events(client);
	return 0;
}

/* What cannot be accepted would wake the loop for ever: the sweep tries again */
static void listener_pause(struct sm_ctl *ctl)
{
	sm_error("control socket: cannot accept: %s", strerror(errno));
	uv_poll_stop(&ctl->listener);
	ctl->listening = false;
	sweep_start(ctl);
}

static void on_listener_event(uv_poll_t *handle, int status, int events)
{
	struct sm_ctl *ctl = handle->data;

	(void)events;
	if (status < 0)
		sm_error("control socket: %s", uv_strerror(status));
	/* a bounded number a turn: others on this loop have work too */
	for (unsigned i = 0; i < SM_CTL_CLIENTS_MAX; i++) {
		int fd = accept4(ctl->socket.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS)
				listener_pause(ctl);
			return;
		}
		(void)!sm_ctl_adopt(ctl, fd);
		if (ctl->closing)
			return;
	}
}

/* --- open and close --- */

int sm_ctl_open(uv_loop_t *loop, const char *path, gid_t group, sm_ctl_handler handler, void *arg,
		struct sm_ctl **ret_ctl, char *error)
{
	struct sm_ctl *ctl = calloc(1, sizeof(*ctl));
	int r;

	if (ctl == NULL) {
		snprintf(error, SM_CTL_ERROR_MAX, "out of memory");
		return -ENOMEM;
	}
	sm_list_init(&ctl->clients);
	ctl->handler = handler;
	ctl->arg = arg;
	ctl->tuning = (struct sm_ctl_tuning){.credentials = peer_credentials,
					     .idle_us = SM_CTL_IDLE_US};
	r = sm_ctl_socket_open(&ctl->socket, path, group, error);
	if (r < 0) {
		free(ctl);
		return r;
	}
	r = uv_poll_init(loop, &ctl->listener, ctl->socket.fd);
	if (r < 0) {
		snprintf(error, SM_CTL_ERROR_MAX, "control socket: %s", uv_strerror(r));
		sm_ctl_socket_close(&ctl->socket);
		free(ctl);
		return r;
	}
	(void)uv_timer_init(loop, &ctl->sweep);
	ctl->listener.data = ctl->sweep.data = ctl;
	ctl->handles = 2;
	ctl->listening = true;
	r = uv_poll_start(&ctl->listener, UV_READABLE, on_listener_event);
	if (r < 0) {
		snprintf(error, SM_CTL_ERROR_MAX, "control socket: %s", uv_strerror(r));
		sm_ctl_close(ctl);
		return r;
	}
	*ret_ctl = ctl;
	return 0;
}

void sm_ctl_close(struct sm_ctl *ctl)
{
	struct sm_list *node, *after;

	if (ctl == NULL || ctl->closing)
		return;
	ctl->closing = true;
	uv_close((uv_handle_t *)&ctl->listener, on_own_closed);
	uv_close((uv_handle_t *)&ctl->sweep, on_own_closed);
	sm_ctl_socket_close(&ctl->socket);
	sm_list_for_each_safe(node, after, &ctl->clients)
	{
		struct client *client = SM_LIST_ENTRY(node, struct client, node);

		if (client_unsent(client) > 0)
			(void)!client_send(client);
		client_drop(client);
	}
}

uint32_t sm_ctl_clients(const struct sm_ctl *ctl)
{
	return ctl->client_count;
}

void sm_ctl_tune(struct sm_ctl *ctl, const struct sm_ctl_tuning *tuning)
{
	if (tuning->credentials != NULL)
		ctl->tuning.credentials = tuning->credentials;
	if (tuning->idle_us != 0)
		ctl->tuning.idle_us = tuning->idle_us;
}

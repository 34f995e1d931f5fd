// SPDX-License-Identifier: MIT
/*
 * Finds a daemon's control socket and speaks its JSON lines.
 */
#include "cli/client.h"

#include "base/clock.h"
#include "base/text.h"

#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_US (10 * SM_SEC_US)
#define ANSWER_MAX        ((size_t)64 << 20) /* bytes of one line; 4096 peers need 4 MB */
#define LIST_MAX          1024u

struct sm_client {
	const struct sm_cli_command *self;
	int fd;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char *buf;
	size_t len, size;
};

/* --- which one --- */

static const char *runtime_dir(void)
{
	const char *dir = getenv("SHADOWMESH_RUNTIME_DIR");

	return dir != NULL && dir[0] != '\0' ? dir : SM_RUNTIME_DIR;
}

/* Return: descriptor, -errno */
static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Is there a daemon, be it one that would not let us in? */
static bool is_live(const char *path)
{
	int fd = connect_to(path);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || fd == -EACCES || fd == -EPERM || fd == -EAGAIN;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_socket_name(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > 5 && strcmp(entry->d_name + len - 5, ".sock") == 0;
}

static void list_add(char *list, const char *name)
{
	size_t used = strlen(list);

	snprintf(list + used, LIST_MAX - used, "%s%.*s", used > 0 ? ", " : "",
		 (int)(strlen(name) - 5), name);
}

/* The only daemon of this machine; Return: exit code */
static int find_only(const struct sm_cli_command *self, char *ret_path, size_t size)
{
	const char *dir = runtime_dir();
	struct dirent **entries = NULL;
	char list[LIST_MAX] = "", path[512];
	int n = scandir(dir, &entries, is_socket_name, by_name), found = 0;

	for (int i = 0; i < n; i++) {
		int len = snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name);

		/* a path that is too long for a socket cannot be one */
		if (len > 0 && (size_t)len < size && is_live(path)) {
			if (found++ == 0)
				memcpy(ret_path, path, (size_t)len + 1);
			list_add(list, entries[i]->d_name);
		}
		free(entries[i]);
	}
	free(entries);
	if (n < 0 && errno != ENOENT)
		return sm_cli_fail(self, "cannot look for daemons in %s: %s", dir, strerror(errno));
	if (found == 1)
		return SM_EXIT_OK;
	if (found > 1)
		return sm_cli_usage(self, "several networks are up, name one of them: %s", list);
	(void)sm_cli_fail(self, "no daemon is running (there is no live socket in %s)", dir);
	return SM_EXIT_NOT_RUNNING;
}

static int find_path(const struct sm_cli_command *self, const struct sm_client_target *target,
		     char *ret_path, size_t size)
{
	int len;

	if (target->socket != NULL) {
		len = snprintf(ret_path, size, "%s", target->socket);
	} else if (target->network != NULL) {
		if (!sm_text_is_name(target->network))
			return sm_cli_usage(self, "'%s' is no name of a network", target->network);
		len = snprintf(ret_path, size, "%s/%s.sock", runtime_dir(), target->network);
	} else {
		return find_only(self, ret_path, size);
	}
	if (len < 0 || (size_t)len >= size)
		return sm_cli_fail(self, "the path of the control socket is longer than %zu bytes",
				   size - 1);
	return SM_EXIT_OK;
}

static int connect_failed(const struct sm_cli_command *self, const struct sm_client_target *target,
			  const char *path, int error)
{
	switch (error) {
	case -ENOENT:
	case -ECONNREFUSED:
	case -ENOTDIR:
		if (target->socket == NULL && target->network != NULL)
			(void)sm_cli_fail(self, "network '%s' is not up (no daemon answers at %s)",
					  target->network, path);
		else
			(void)sm_cli_fail(self, "no daemon answers at %s", path);
		return SM_EXIT_NOT_RUNNING;
	case -EACCES:
	case -EPERM:
		return sm_cli_fail(self,
				   "%s: permission denied; be root or a member of the group "
				   "that the configuration names",
				   path);
	default:
		return sm_cli_fail(self, "%s: %s", path, strerror(-error));
	}
}

int sm_client_open(const struct sm_cli_command *self, const struct sm_client_target *target,
		   struct sm_client **ret_client)
{
	struct sm_client *client = calloc(1, sizeof(*client));
	int code;

	if (client == NULL)
		return sm_cli_fail(self, "out of memory");
	client->self = self;
	client->fd = -1;
	code = find_path(self, target, client->path, sizeof(client->path));
	if (code == SM_EXIT_OK) {
		client->fd = connect_to(client->path);
		if (client->fd < 0)
			code = connect_failed(self, target, client->path, client->fd);
	}
	if (code != SM_EXIT_OK) {
		sm_client_close(client);
		return code;
	}
	*ret_client = client;
	return SM_EXIT_OK;
}

void sm_client_close(struct sm_client *client)
{
	if (client == NULL)
		return;
	if (client->fd >= 0)
		close(client->fd);
	free(client->buf);
	free(client);
}

pid_t sm_client_pid(const struct sm_client *client)
{
	struct ucred cred = {.pid = 0};
	socklen_t len = sizeof(cred);

	return getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.pid : 0;
}

/* --- talking --- */

int sm_client_send(struct sm_client *client, json_t *request)
{
	char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t len = text != NULL ? strlen(text) : 0, sent = 0;
	int code = SM_EXIT_OK;

	json_decref(request);
	if (text == NULL)
		return sm_cli_fail(client->self, "out of memory");
	text[len++] = '\n'; /* over the terminator: what is sent has a length */
	while (sent < len) {
		ssize_t n = send(client->fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/* a daemon that refuses us says why before it closes: read on */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			break;
		if (n < 0) {
			code = sm_cli_fail(client->self, "%s: %s", client->path, strerror(errno));
			break;
		}
		sent += (size_t)n;
	}
	free(text);
	return code;
}

static int make_room(struct sm_client *client)
{
	size_t size = client->size == 0 ? 65536 : 2 * client->size;
	char *buf;

	if (client->len < client->size)
		return 0;
	if (size > ANSWER_MAX)
		return -EMSGSIZE;
	buf = realloc(client->buf, size);
	if (buf == NULL)
		return -ENOMEM;
	client->buf = buf;
	client->size = size;
	return 0;
}

/* Waits for more bytes; Return: 0, -ETIMEDOUT, -ENODATA the daemon has closed, -EINTR stopped, -errno */
static int read_more(struct sm_client *client, uint64_t deadline_us, const volatile int *stop)
{
	struct pollfd p = {.fd = client->fd, .events = POLLIN};
	uint64_t now_us = sm_clock_now_us();
	ssize_t n;
	int r = make_room(client);

	if (r < 0)
		return r;
	if (stop != NULL && *stop)
		return -EINTR;
	if (now_us >= deadline_us)
		return -ETIMEDOUT;
	/* in steps: a signal just before poll() must not wait for the deadline */
	r = poll(&p, 1, (int)SM_MIN((deadline_us - now_us) / SM_MSEC_US + 1, (uint64_t)200));
	if (r <= 0)
		return r == 0 || errno == EINTR ? 0 : -errno;
	n = recv(client->fd, client->buf + client->len, client->size - client->len, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return -ENODATA;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	client->len += (size_t)n;
	return 0;
}

static int read_failed(const struct sm_client *client, int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return sm_cli_fail(client->self, "the daemon at %s does not answer", client->path);
	case -ENODATA:
		(void)sm_cli_fail(client->self, "the daemon at %s has ended", client->path);
		return SM_EXIT_NOT_RUNNING;
	default:
		return sm_cli_fail(client->self, "%s: %s", client->path, strerror(-error));
	}
}

/* Prints text from the daemon, which may repeat what a peer said, without its control characters */
static void print_safely(const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		size_t n = sm_text_char_len(text, len);

		if (n > 0)
			(void)fwrite(text, 1, n, stderr);
		else
			fputc('?', stderr);
		n = SM_MAX(n, (size_t)1);
		text += n;
		len -= n;
	}
}

static int take_answer(const struct sm_client *client, const char *line, size_t len,
		       json_t **ret_result)
{
	json_t *answer = json_loadb(line, len, 0, NULL);
	const char *error;

	if (!json_is_object(answer) || !json_is_boolean(json_object_get(answer, "ok"))) {
		json_decref(answer);
		return sm_cli_fail(client->self, "%s: what answers there is not a daemon of ours",
				   client->path);
	}
	if (json_is_true(json_object_get(answer, "ok"))) {
		json_t *result = json_object_get(answer, "result");

		*ret_result = result != NULL ? json_incref(result) : json_object();
		json_decref(answer);
		return SM_EXIT_OK;
	}
	error = json_string_value(json_object_get(answer, "error"));
	fprintf(stderr, "shadowmesh %s: ", client->self->name);
	print_safely(error != NULL ? error : "the daemon refused, without a reason");
	fputc('\n', stderr);
	json_decref(answer);
	return SM_EXIT_FAILURE;
}

int sm_client_read(struct sm_client *client, uint64_t timeout_us, const volatile int *stop,
		   json_t **ret_result)
{
	uint64_t deadline_us = sm_clock_now_us() + timeout_us;
	size_t seen = 0;

	for (;;) {
		char *end = client->len > seen
				    ? memchr(client->buf + seen, '\n', client->len - seen)
				    : NULL;
		int r;

		if (end != NULL) {
			size_t used = (size_t)(end - client->buf) + 1;
			int code = take_answer(client, client->buf, used - 1, ret_result);

			client->len -= used;
			memmove(client->buf, client->buf + used, client->len);
			return code;
		}
		seen = client->len;
		r = read_more(client, deadline_us, stop);
		if (r == -EINTR) {
			*ret_result = NULL;
			return SM_EXIT_OK;
		}
		if (r < 0)
			return read_failed(client, r);
	}
}

int sm_client_call(const struct sm_cli_command *self, const struct sm_client_target *target,
		   json_t *request, json_t **ret_result)
{
	struct sm_client *client = NULL;
	int code = sm_client_open(self, target, &client);

	if (code != SM_EXIT_OK) {
		json_decref(request);
		return code;
	}
	code = sm_client_send(client, request);
	if (code == SM_EXIT_OK)
		code = sm_client_read(client, ANSWER_TIMEOUT_US, NULL, ret_result);
	sm_client_close(client);
	return code;
}

int sm_client_options(const struct sm_cli_command *self, int argc, char **argv,
		      const struct option *longs, struct sm_client_options *ret_options,
		      int *ret_code)
{
	struct sm_client_options o = {.json = false};
	int opt;

	while ((opt = sm_cli_getopt(self, argc, argv, "", longs)) != SM_CLI_END) {
		switch (opt) {
		case SM_CLIENT_OPT_SOCKET:
			o.target.socket = optarg;
			break;
		case SM_CLIENT_OPT_JSON:
			o.json = true;
			break;
		case SM_CLIENT_OPT_PROFILE:
			o.profile = true;
			break;
		default:
			*ret_code = sm_cli_stop(opt);
			return -1;
		}
	}
	if (optind < argc)
		o.target.network = argv[optind++];
	if (optind < argc) {
		*ret_code = sm_cli_usage(self, "one network at a time, '%s' is too much",
					 argv[optind]);
		return -1;
	}
	*ret_options = o;
	return 0;
}

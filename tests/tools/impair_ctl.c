// SPDX-License-Identifier: MIT
/*
 * Control of a running impairment tool: lines from standard input or a UNIX socket, statistics.
 */
#include "impair.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BOTH 3u

static const char *const dir_names[] = {"a2b", "b2a"};

/* --- statistics --- */

struct counter {
	const char *name, *text;
	size_t offset;
};

#define COUNTER(f, t)                                   \
	{                                               \
#f, t, offsetof(struct impair_stats, f) \
	}

static const struct counter counters[] = {
	COUNTER(in_frames, "frames in"),
	COUNTER(in_bytes, "bytes in"),
	COUNTER(out_frames, "frames out"),
	COUNTER(out_bytes, "bytes out"),
	COUNTER(lost, "lost at random"),
	COUNTER(lost_burst, "lost in bursts"),
	COUNTER(bursts, "bursts begun"),
	COUNTER(dropped_queue, "dropped, queue full"),
	COUNTER(dropped_memory, "dropped, memory limit"),
	COUNTER(dropped_down, "dropped, line down"),
	COUNTER(dropped_write, "dropped, receiver's interface down"),
	COUNTER(duplicated, "duplicated"),
	COUNTER(corrupted, "corrupted"),
	COUNTER(reordered, "reordered"),
};

#define COUNTER_COUNT (sizeof(counters) / sizeof(counters[0]))

static uint64_t counter_value(const struct impair_stats *stats, const struct counter *c)
{
	uint64_t n;

	memcpy(&n, (const char *)stats + c->offset, sizeof(n));
	return n;
}

static void print_json(const struct impair *imp, FILE *out)
{
	fprintf(out, "{\"seed\": \"0x%016" PRIx64 "\"", imp->seed);
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++) {
		const struct impair_line *line = &imp->lines[d];

		fprintf(out, ", \"%s\": {", dir_names[d]);
		for (size_t i = 0; i < COUNTER_COUNT; i++)
			fprintf(out, "\"%s\": %" PRIu64 ", ", counters[i].name,
				counter_value(&line->stats, &counters[i]));
		fprintf(out,
			"\"missed\": %" PRIu64 ", \"waiting_frames\": %" PRIu64
			", \"queued_bytes\": %" PRIu64 ", \"memory_bytes\": %" PRIu64
			", \"down\": %s, \"settings\": \"",
			impair_port_missed(&imp->ports[d]), line->fifo_frames + line->heap_len,
			line->fifo_bytes, line->memory, line->down ? "true" : "false");
		impair_conf_print(&line->conf, out);
		fputs("\"}", out);
	}
	fputs("}\n", out);
}

static void print_text(const struct impair *imp, FILE *out)
{
	fprintf(out, "seed 0x%016" PRIx64 "\n%-36s %14s %14s\n", imp->seed, "", dir_names[0],
		dir_names[1]);
	for (size_t i = 0; i < COUNTER_COUNT; i++)
		fprintf(out, "%-36s %14" PRIu64 " %14" PRIu64 "\n", counters[i].text,
			counter_value(&imp->lines[0].stats, &counters[i]),
			counter_value(&imp->lines[1].stats, &counters[i]));
	fprintf(out, "%-36s %14" PRIu64 " %14" PRIu64 "\n", "dropped by the kernel before us",
		impair_port_missed(&imp->ports[0]), impair_port_missed(&imp->ports[1]));
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++) {
		fprintf(out, "%s: %s ", dir_names[d], imp->lines[d].down ? "down" : "up");
		impair_conf_print(&imp->lines[d].conf, out);
		fputc('\n', out);
	}
}

void impair_stats_print(const struct impair *imp, bool json, FILE *out)
{
	if (json)
		print_json(imp, out);
	else
		print_text(imp, out);
}

/* --- commands --- */

static char *next_word(char **text)
{
	char *word;

	while ((word = strsep(text, " \t,=")))
		if (*word)
			return word;
	return NULL;
}

/* an optional direction in front; both without one */
static unsigned int take_dir(char **text)
{
	for (unsigned int d = 0; *text && d < IMPAIR_DIR_COUNT; d++) {
		size_t len = strlen(dir_names[d]);

		*text += strspn(*text, " \t");
		if (strncmp(*text, dir_names[d], len) == 0 &&
		    ((*text)[len] == '\0' || (*text)[len] == ' ')) {
			*text += len;
			return 1u << d;
		}
	}
	return BOTH;
}

int impair_set_words(struct impair *imp, unsigned int mask, char *text, char *err)
{
	struct impair_conf conf[IMPAIR_DIR_COUNT];
	char *key, *val;
	int n = 0;

	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		conf[d] = imp->lines[d].conf;
	for (; (key = next_word(&text)); n++) {
		val = next_word(&text);
		if (!val) {
			snprintf(err, IMPAIR_ERR_LEN,
				 "setting \"%.30s\" without a value: write set KEY VALUE", key);
			return -EINVAL;
		}
		for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
			if ((mask & 1u << d) && impair_conf_set(&conf[d], key, val, err) < 0)
				return -EINVAL;
	}
	if (!n) {
		snprintf(err, IMPAIR_ERR_LEN, "nothing to set: write set [a2b|b2a] KEY VALUE ...");
		return -EINVAL;
	}
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		if (impair_conf_check(&conf[d], err) < 0)
			return -EINVAL;
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		imp->lines[d].conf = conf[d];
	return 0;
}

static int on_set(struct impair *imp, char *args, char *err, FILE *out)
{
	unsigned int mask = take_dir(&args);

	(void)out;
	return impair_set_words(imp, mask, args, err);
}

static int on_clear(struct impair *imp, char *args, char *err, FILE *out)
{
	unsigned int mask = take_dir(&args);

	(void)err;
	(void)out;
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		if (mask & 1u << d)
			impair_conf_init(&imp->lines[d].conf);
	return 0;
}

static int on_down(struct impair *imp, char *args, char *err, FILE *out)
{
	unsigned int mask = take_dir(&args);

	(void)err;
	(void)out;
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		if (mask & 1u << d)
			impair_line_switch(&imp->lines[d], true);
	return 0;
}

static int on_up(struct impair *imp, char *args, char *err, FILE *out)
{
	unsigned int mask = take_dir(&args);

	(void)err;
	(void)out;
	for (int d = 0; d < IMPAIR_DIR_COUNT; d++)
		if (mask & 1u << d)
			impair_line_switch(&imp->lines[d], false);
	return 0;
}

static int set_carrier(struct impair *imp, bool on, char *err)
{
	for (int i = 0; i < IMPAIR_DIR_COUNT; i++) {
		int rc = impair_port_carrier(&imp->ports[i], on);

		if (rc < 0) {
			snprintf(err, IMPAIR_ERR_LEN, "%s: cannot switch the carrier: %s",
				 imp->ports[i].name, strerror(-rc));
			return rc;
		}
		impair_line_switch(&imp->lines[i], !on);
	}
	return 0;
}

static int on_unplug(struct impair *imp, char *args, char *err, FILE *out)
{
	(void)args;
	(void)out;
	return set_carrier(imp, false, err);
}

static int on_plug(struct impair *imp, char *args, char *err, FILE *out)
{
	(void)args;
	(void)out;
	return set_carrier(imp, true, err);
}

static int on_stats(struct impair *imp, char *args, char *err, FILE *out)
{
	(void)err;
	impair_stats_print(imp, imp->json || (args && strcmp(args, "json") == 0), out);
	return 0;
}

static int on_quit(struct impair *imp, char *args, char *err, FILE *out)
{
	(void)args;
	(void)err;
	(void)out;
	imp->stop = true;
	return 0;
}

static const struct command {
	const char *name;
	int (*run)(struct impair *imp, char *args, char *err, FILE *out);
} commands[] = {
	{"set", on_set},       {"clear", on_clear}, {"down", on_down},   {"up", on_up},
	{"unplug", on_unplug}, {"plug", on_plug},   {"stats", on_stats}, {"quit", on_quit},
};

void impair_command(struct impair *imp, char *line, FILE *out)
{
	char err[IMPAIR_ERR_LEN];
	char *args = line + strspn(line, " \t"), *name;

	name = strsep(&args, " \t");
	if (!*name || *name == '#')
		return;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (commands[i].run(imp, args, err, out) < 0)
			fprintf(out, "error: %s\n", err);
		else
			fputs("ok\n", out);
		return;
	}
	fprintf(out,
		"error: unknown command \"%.30s\": there are set, clear, down, up, unplug, plug, "
		"stats, quit\n",
		name);
}

/* --- connections --- */

static int open_socket(struct impair_ctl *ctl, const char *path, char *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int rc;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		snprintf(err, IMPAIR_ERR_LEN, "control path is longer than %zu bytes: shorten it",
			 sizeof(addr.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(addr.sun_path, path);
	ctl->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (ctl->listen_fd >= 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(ctl->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(path); /* left behind by a run that was killed */
	if (ctl->listen_fd < 0 ||
	    bind(ctl->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(ctl->listen_fd, IMPAIR_CLIENTS_MAX) < 0) {
		rc = -errno;
		snprintf(err, IMPAIR_ERR_LEN,
			 "cannot listen on %.100s (%s): choose a path that "
			 "is free, in a directory you may write to",
			 path, strerror(-rc));
		if (ctl->listen_fd >= 0)
			close(ctl->listen_fd);
		ctl->listen_fd = -1;
		return rc;
	}
	ctl->path = path;
	return 0;
}

static void add_client(struct impair_ctl *ctl, int in_fd, int out_fd)
{
	struct impair_client *c = &ctl->clients[ctl->n++];

	c->in_fd = in_fd;
	c->out_fd = out_fd;
	c->len = 0;
}

int impair_ctl_open(struct impair_ctl *ctl, const char *where, char *err)
{
	memset(ctl, 0, sizeof(*ctl));
	ctl->listen_fd = -1;
	if (!where)
		return 0;
	if (strcmp(where, "-") == 0) {
		add_client(ctl, STDIN_FILENO, STDOUT_FILENO);
		return 0;
	}
	return open_socket(ctl, where, err);
}

static void drop_client(struct impair_ctl *ctl, size_t i)
{
	if (ctl->clients[i].in_fd != STDIN_FILENO)
		close(ctl->clients[i].in_fd);
	ctl->clients[i] = ctl->clients[--ctl->n];
}

void impair_ctl_close(struct impair_ctl *ctl)
{
	while (ctl->n)
		drop_client(ctl, 0);
	if (ctl->listen_fd >= 0) {
		close(ctl->listen_fd);
		unlink(ctl->path);
	}
	ctl->listen_fd = -1;
}

void impair_ctl_accept(struct impair_ctl *ctl)
{
	static const char busy[] = "error: too many control connections: close one\n";
	int fd;

	while ((fd = accept4(ctl->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (ctl->n < IMPAIR_CLIENTS_MAX) {
			add_client(ctl, fd, fd);
			continue;
		}
		(void)!send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL);
		close(fd);
	}
}

/* a client that does not read its answers is dropped: -errno */
static int answer(struct impair_client *c, struct impair *imp, char *line)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	ssize_t n;

	if (!out)
		return -ENOMEM;
	impair_command(imp, line, out);
	fclose(out);
	n = write(c->out_fd, text, len);
	free(text);
	return n == (ssize_t)len ? 0 : -EIO;
}

bool impair_ctl_read(struct impair_ctl *ctl, size_t i, struct impair *imp)
{
	static const char too_long[] = "error: line too long: at most 510 characters\n";
	struct impair_client *c = &ctl->clients[i];
	char *end, *line = c->buf;
	ssize_t n = read(c->in_fd, c->buf + c->len, sizeof(c->buf) - 1 - c->len);
	bool gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);

	c->len += n > 0 ? (size_t)n : 0;
	c->buf[c->len] = '\0';
	while (!gone && (end = memchr(line, '\n', c->len - (size_t)(line - c->buf)))) {
		*end = '\0';
		if (end > line && end[-1] == '\r')
			end[-1] = '\0';
		gone = answer(c, imp, line) < 0;
		line = end + 1;
	}
	c->len -= (size_t)(line - c->buf);
	memmove(c->buf, line, c->len);
	if (c->len == sizeof(c->buf) - 1) {
		(void)!write(c->out_fd, too_long, sizeof(too_long) - 1);
		gone = true;
	}
	if (!gone)
		return false;
	if (c->in_fd == STDIN_FILENO)
		imp->stop = true; /* who started us is gone */
	drop_client(ctl, i);
	return true;
}

// SPDX-License-Identifier: MIT
/*
 * The library that splits "Key = value" lines tells neither lines nor sections and cuts what is
 * long. So our reader hands it one line at a time, has looked at that line before, and keeps the
 * section headers to itself; the handler runs before the next line is asked for.
 */
#include "daemon/config.h"

#include "daemon/config_check.h"
#include "daemon/config_key.h"
#include "io/lock.h"

#include <ctype.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define SHOWN_MAX 60u /* bytes of a refused value in a message */

/* Where a file is being read. */
struct parse {
	const char *next, *end; /* text */
	const char *dir;
	uint32_t line;
	enum sm_config_section section; /* SM_CONFIG_SECTION_COUNT: none, or an unknown one */
	bool in_section;                /* a header was seen, known or not */
	uint32_t header[SM_CONFIG_SECTION_COUNT]; /* line of each section, 0: not seen */
	uint32_t peer_row[SM_CONFIG_ROW_MAX];     /* line of each key of this [Peer] */
	uint32_t peer_room;
	bool full; /* too many peers: told once */
	bool no_memory;
	struct sm_config *cfg;
	struct sm_config_places at;
};

static void complain(const struct parse *p, const char *fmt, ...) SM_PRINTF(2, 3);

static void complain(const struct parse *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	sm_config_vcomplain(&p->at, p->line, false, fmt, ap);
	va_end(ap);
}

static struct sm_config_peer *current_peer(const struct parse *p)
{
	return &p->cfg->peers[p->cfg->peer_count - 1];
}

/* What a row's offset counts from. */
static void *base_of(const struct parse *p, const struct sm_config_row *row)
{
	return row->section == SM_CONFIG_PEER ? (void *)current_peer(p) : (void *)p->cfg;
}

static void free_rows(void *base, bool peer)
{
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		if ((sm_config_rows[i].section == SM_CONFIG_PEER) == peer)
			sm_config_value_free(&sm_config_rows[i], base);
	}
}

void sm_config_free(struct sm_config *cfg)
{
	if (!cfg)
		return;
	for (uint32_t i = 0; i < cfg->peer_count; i++)
		free_rows(&cfg->peers[i], true);
	free(cfg->peers);
	free_rows(cfg, false);
	free(cfg->file);
	free(cfg);
}

/* Defaults are texts in the table: read like values, so that they are checked alike. */
static int set_defaults(struct sm_config *cfg, const char *dir)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < sm_config_row_count; i++) {
		const struct sm_config_row *row = &sm_config_rows[i];
		const char *bad;
		char text[64];

		if (!row->fallback)
			continue;
		snprintf(text, sizeof(text), "%s", row->fallback);
		err = sm_config_value_parse(row, cfg, dir, text, &bad);
		assert(err != -EINVAL);
	}
	return err;
}

static void require(const struct parse *p, enum sm_config_section section, const uint32_t *rows,
		    uint32_t line)
{
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		const struct sm_config_row *row = &sm_config_rows[i];

		if (row->section == section && row->required && !rows[i])
			sm_config_complain(&p->at, line, "[%s] %s: missing, expected %s",
					   sm_config_section_name(section), row->name,
					   row->expected);
	}
}

/* The keys of a [Peer] are complete when the next section or the end comes. */
static void end_section(struct parse *p)
{
	if (p->section == SM_CONFIG_PEER)
		require(p, SM_CONFIG_PEER, p->peer_row, current_peer(p)->line);
	p->section = SM_CONFIG_SECTION_COUNT;
}

static bool add_peer(struct parse *p)
{
	struct sm_config *cfg = p->cfg;

	if (cfg->peer_count == SM_CONFIG_PEERS_MAX) {
		if (!p->full)
			complain(p, "[Peer]: more than %u peers", SM_CONFIG_PEERS_MAX);
		p->full = true;
		return false;
	}
	if (cfg->peer_count == p->peer_room) {
		uint32_t room = p->peer_room ? 2 * p->peer_room : 8;
		struct sm_config_peer *grown = realloc(cfg->peers, room * sizeof(*grown));

		if (!grown) {
			p->no_memory = true;
			return false;
		}
		cfg->peers = grown;
		p->peer_room = room;
	}
	cfg->peers[cfg->peer_count++] = (struct sm_config_peer){.line = p->line};
	memset(p->peer_row, 0, sizeof(p->peer_row));
	return true;
}

/* @name: between the brackets */
static void begin_section(struct parse *p, const char *name)
{
	enum sm_config_section section = sm_config_section_find(name);
	const char *near;

	end_section(p);
	p->in_section = true;
	if (section == SM_CONFIG_SECTION_COUNT) {
		near = sm_config_nearest_section(name);
		complain(p, "[%.*s]: unknown section%s%s%s", (int)SHOWN_MAX, name,
			 near ? ", did you mean [" : "", near ? near : "", near ? "]?" : "");
	} else if (section == SM_CONFIG_PEER) {
		if (add_peer(p))
			p->section = section;
	} else if (p->header[section]) {
		complain(p, "[%s]: a second one, the first is in line %u",
			 sm_config_section_name(section), p->header[section]);
		p->section = section;
	} else {
		p->header[section] = p->line;
		p->section = section;
	}
}

static void complain_unknown(const struct parse *p, const char *name)
{
	const char *near = sm_config_nearest_key(p->section, name);
	const struct sm_config_row *other = sm_config_row_elsewhere(name);
	const char *section = sm_config_section_name(p->section);

	if (other)
		complain(p, "[%s] %s: unknown key, it belongs to [%s]", section, name,
			 sm_config_section_name(other->section));
	else
		complain(p, "[%s] %.*s: unknown key%s%s%s", section, (int)SHOWN_MAX, name,
			 near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
}

/* Who puts a secret in place of its file's path must not find it in a log. */
static bool may_be_secret(const struct sm_config_row *row, const char *value)
{
	return row->kind == SM_CONFIG_KIND_PATH && row->section != SM_CONFIG_CONTROL &&
	       strlen(value) >= 32 && value[strspn(value, "0123456789abcdefABCDEF")] == 0;
}

static void complain_value(const struct parse *p, const struct sm_config_row *row,
			   const char *value)
{
	const char *section = sm_config_section_name(row->section);
	bool comment = strstr(value, " #") || strstr(value, " ;");

	complain(p, "[%s] %s: got '%.*s%s', expected %s%s", section, row->name, (int)SHOWN_MAX,
		 value, strlen(value) > SHOWN_MAX ? "..." : "", row->expected,
		 comment ? " (a comment needs a line of its own)" : "");
}

static void take_value(struct parse *p, const struct sm_config_row *row, const char *value)
{
	char text[SM_CONFIG_LINE_MAX + 1];
	const char *bad;
	int err;

	if (may_be_secret(row, value)) {
		complain(p, "[%s] %s: got what looks like a key itself, expected %s",
			 sm_config_section_name(row->section), row->name, row->expected);
		return;
	}
	snprintf(text, sizeof(text), "%s", value);
	err = sm_config_value_parse(row, base_of(p, row), p->dir, text, &bad);
	if (err == -ENOMEM)
		p->no_memory = true;
	else if (err == -E2BIG)
		complain(p, "[%s] %s: '%.*s' is one too many", sm_config_section_name(row->section),
			 row->name, (int)SHOWN_MAX, bad);
	else if (err)
		complain_value(p, row, bad);
}

/* Called by the library for each line that our reader let through. */
static int on_pair(void *arg, const char *no_section, const char *name, const char *value)
{
	struct parse *p = arg;
	const struct sm_config_row *row;
	uint32_t *seen;

	(void)no_section;
	if (p->section == SM_CONFIG_SECTION_COUNT) {
		if (!p->in_section)
			complain(p, "%.*s: stands before the first section", (int)SHOWN_MAX, name);
		return 1;
	}
	row = sm_config_row_find(p->section, name);
	if (!row) {
		complain_unknown(p, name);
		return 1;
	}
	seen = &(p->section == SM_CONFIG_PEER ? p->peer_row : p->at.row)[row - sm_config_rows];
	if (*seen && !sm_config_row_is_list(row)) {
		complain(p, "[%s] %s: given twice, first in line %u",
			 sm_config_section_name(row->section), row->name, *seen);
		return 1;
	}
	*seen = p->line;
	take_value(p, row, value);
	return 1;
}

/* Return: what keeps the bytes from being a line of text, or NULL */
static const char *line_fault(const char *line, size_t len)
{
	if (len > SM_CONFIG_LINE_MAX)
		return "the line is longer than 4000 bytes";
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)line[i];

		if (!c)
			return "there is a NUL byte in the line: is this a text file?";
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return "there is a control character in the line";
	}
	return NULL;
}

static void take_header(struct parse *p, char *line)
{
	size_t len = strlen(line);

	if (line[len - 1] != ']') {
		complain(p, "a section's line begins with '[' and ends with ']'");
		end_section(p);
		p->in_section = true;
		return;
	}
	line[len - 1] = 0;
	begin_section(p, sm_text_trim(line + 1));
}

/* Return: true if the line is "Key = value", for the library to split */
static bool is_pair(struct parse *p, const char *line)
{
	size_t key = strcspn(line, "=");

	if (!line[key]) {
		complain(p, "expected 'Key = value', a [Section] or a comment");
		return false;
	}
	while (key && isblank((unsigned char)line[key - 1]))
		key--;
	for (size_t i = 0; i < key; i++) {
		if (!isalnum((unsigned char)line[i]))
			key = 0;
	}
	if (!key)
		complain(p, "expected 'Key = value' with a key of letters");
	return key;
}

/* Moves past the next line. Return: its first byte, and its length without the line's end */
static const char *cut_line(struct parse *p, size_t *ret_len)
{
	const char *line = p->next;
	size_t left = (size_t)(p->end - line), len;
	const char *feed = memchr(line, '\n', left);

	len = feed ? (size_t)(feed - line) : left;
	p->next = feed ? feed + 1 : p->end;
	if (len && line[len - 1] == '\r')
		len--;
	p->line++;
	*ret_len = len;
	return line;
}

/* The library's reader: hands over a good pair, and an empty line for all else. */
static char *next_line(char *buf, int room, void *arg)
{
	struct parse *p = arg;
	const char *line, *fault;
	size_t len;
	char *text;

	if (p->next == p->end || p->no_memory)
		return NULL;
	assert(room > (int)SM_CONFIG_LINE_MAX);
	line = cut_line(p, &len);
	fault = line_fault(line, len);
	if (fault) {
		complain(p, "%s", fault);
		len = 0;
	}
	memcpy(buf, line, len);
	buf[len] = 0;
	text = sm_text_trim(buf);
	if (*text == '[')
		take_header(p, text);
	if (!*text || strchr("#;[", *text) || !is_pair(p, text))
		*buf = 0;
	return buf;
}

static int read_lines(struct parse *p)
{
	static const char mark[] = "\xef\xbb\xbf";
	int err;

	if (p->end - p->next >= 3 && !memcmp(p->next, mark, 3))
		p->next += 3;
	ini_allow_multiline = false;
	ini_allow_inline_comments = false;
	ini_allow_bom = false;
	ini_stop_on_first_error = false;
	ini_allow_no_value = false;
	ini_use_stack = false;
	ini_allow_realloc = false;
	ini_initial_alloc = ini_max_line = (int)SM_CONFIG_LINE_MAX + 3;
	err = ini_parse_stream(next_line, p, on_pair, p);
	if (err == -2)
		p->no_memory = true;
	else if (err)
		complain(p, "expected 'Key = value'");
	end_section(p);
	for (enum sm_config_section s = 0; s < SM_CONFIG_SECTION_COUNT; s++) {
		if (s != SM_CONFIG_PEER)
			require(p, s, p->at.row, p->header[s]);
	}
	return p->no_memory ? -ENOMEM : 0;
}

/* The socket's default holds the network's name, so it is no text of the table. */
static int set_default_socket(struct sm_config *cfg)
{
	const char *dir = sm_lock_runtime_dir();

	if (cfg->control.socket)
		return 0;
	if (asprintf(&cfg->control.socket, "%s/%s.sock", dir, cfg->network.name) < 0) {
		cfg->control.socket = NULL;
		return -ENOMEM;
	}
	return 0;
}

int sm_config_parse(const char *text, size_t len, const char *file, const char *dir,
		    struct sm_config **ret_cfg, struct sm_config_errors *errors)
{
	struct parse p = {
		.next = text,
		.end = text + len,
		.dir = dir,
		.section = SM_CONFIG_SECTION_COUNT,
		.cfg = calloc(1, sizeof(*p.cfg)),
		.at = {.file = file, .errors = errors},
	};
	int err = -ENOMEM;

	errors->count = errors->dropped = errors->warning_count = 0;
	if (!p.cfg)
		goto out;
	p.cfg->file = strdup(file);
	if (!p.cfg->file)
		goto out;
	err = set_defaults(p.cfg, dir);
	if (!err)
		err = read_lines(&p);
	if (!err && !errors->count)
		err = set_default_socket(p.cfg);
	/* What lines say wrong would be said again in other words. */
	if (!err && !errors->count)
		sm_config_check(p.cfg, &p.at);
	if (!err && errors->count)
		err = -EINVAL;
out:
	if (err == -ENOMEM)
		sm_config_complain(&p.at, 0, "out of memory");
	if (err) {
		sm_config_free(p.cfg);
		return err;
	}
	static_assert(sizeof(p.cfg->line) == sizeof(p.at.row), "a line for each row");
	memcpy(p.cfg->line, p.at.row, sizeof(p.at.row));
	*ret_cfg = p.cfg;
	return 0;
}

/* All of a file, be it a pipe. Return: 0, -EFBIG, -errno; *@ret_text is to be freed */
static int read_file(const char *path, char **ret_text, size_t *ret_len)
{
	size_t len = 0, room = 0;
	char *text = NULL;
	int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t part;

		if (len == room) {
			char *grown = realloc(text, room ? 2 * room : 8192);

			if (!grown) {
				err = -ENOMEM;
				break;
			}
			text = grown;
			room = room ? 2 * room : 8192;
		}
		part = read(fd, text + len, room - len);
		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0) {
			err = part < 0 ? -errno : 0;
			break;
		}
		len += (size_t)part;
		if (len > SM_CONFIG_FILE_MAX) {
			err = -EFBIG;
			break;
		}
	}
	close(fd);
	if (err) {
		free(text);
		return err;
	}
	*ret_text = text;
	*ret_len = len;
	return 0;
}

/* The directory a file lies in; a pipe lies in the current one. */
static int directory_of(const char *path, char ret_dir[PATH_MAX])
{
	char *slash;

	if (!realpath(path, ret_dir))
		return realpath(".", ret_dir) ? 0 : -errno;
	slash = strrchr(ret_dir, '/');
	slash[slash == ret_dir] = 0;
	return 0;
}

int sm_config_load(const char *path, struct sm_config **ret_cfg, struct sm_config_errors *errors)
{
	const struct sm_config_places at = {.file = path, .errors = errors};
	char dir[PATH_MAX], *text = NULL;
	size_t len = 0;
	int err;

	errors->count = errors->dropped = errors->warning_count = 0;
	err = read_file(path, &text, &len);
	if (!err)
		err = directory_of(path, dir);
	if (err) {
		sm_config_complain(&at, 0, "%s", strerror(-err));
		free(text);
		return err;
	}
	err = sm_config_parse(text, len, path, dir, ret_cfg, errors);
	free(text);
	return err;
}

static bool peers_equal(const struct sm_config *a, const struct sm_config *b)
{
	if (a->peer_count != b->peer_count)
		return false;
	for (uint32_t i = 0; i < a->peer_count; i++) {
		for (uint32_t j = 0; j < sm_config_row_count; j++) {
			const struct sm_config_row *row = &sm_config_rows[j];

			if (row->section == SM_CONFIG_PEER &&
			    !sm_config_value_equal(row, &a->peers[i], &b->peers[i]))
				return false;
		}
	}
	return true;
}

unsigned sm_config_diff(const struct sm_config *before, const struct sm_config *after,
			char ret_restart[SM_CONFIG_RESTART_MAX])
{
	unsigned changes = peers_equal(before, after) ? 0 : SM_CONFIG_CHANGE_PEERS;
	size_t len = 0;

	ret_restart[0] = 0;
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		const struct sm_config_row *row = &sm_config_rows[i];
		enum sm_config_change change = row->change;

		if (row->section == SM_CONFIG_PEER || sm_config_value_equal(row, before, after))
			continue;
		/* Another CA is trust; none where there was one is another kind of network. */
		if (change == SM_CONFIG_CHANGE_TRUST &&
		    sm_config_is_pinned(before) != sm_config_is_pinned(after))
			change = SM_CONFIG_CHANGE_RESTART;
		changes |= change;
		if (change == SM_CONFIG_CHANGE_RESTART && len < SM_CONFIG_RESTART_MAX)
			len += (size_t)snprintf(ret_restart + len, SM_CONFIG_RESTART_MAX - len,
						"%s[%s] %s", len ? ", " : "",
						sm_config_section_name(row->section), row->name);
	}
	return changes;
}

static void print_section(enum sm_config_section section, const void *base, FILE *out)
{
	fprintf(out, "[%s]\n", sm_config_section_name(section));
	for (uint32_t i = 0; i < sm_config_row_count; i++) {
		if (sm_config_rows[i].section == section)
			sm_config_value_print(&sm_config_rows[i], base, out);
	}
	fputc('\n', out);
}

void sm_config_print(const struct sm_config *cfg, FILE *out)
{
	for (enum sm_config_section s = 0; s < SM_CONFIG_SECTION_COUNT; s++) {
		if (s != SM_CONFIG_PEER)
			print_section(s, cfg, out);
	}
	for (uint32_t i = 0; i < cfg->peer_count; i++)
		print_section(SM_CONFIG_PEER, &cfg->peers[i], out);
}

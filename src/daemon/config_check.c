// SPDX-License-Identifier: MIT
/*
 * What single keys cannot tell: keys that exclude or need each other, doubles, files that are
 * missing or open to others.
 */
#include "daemon/config_check.h"

#include <ctype.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCESS_KEY_LEN 32u

/* Messages are shown on terminals: bytes that are no printable text are not passed on. */
static void make_printable(char *text)
{
	for (char *c = text; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
}

void sm_config_vcomplain(const struct sm_config_places *at, uint32_t line, bool warning,
			 const char *fmt, va_list ap)
{
	struct sm_config_errors *errors = at->errors;
	uint32_t *count = warning ? &errors->warning_count : &errors->count;
	char *text;
	int len;

	if (*count == SM_CONFIG_ERRORS_MAX) {
		errors->dropped += !warning;
		return;
	}
	text = warning ? errors->warning[*count] : errors->text[*count];
	++*count;
	if (line)
		len = snprintf(text, SM_CONFIG_ERROR_MAX, "%s:%u: ", at->file, line);
	else
		len = snprintf(text, SM_CONFIG_ERROR_MAX, "%s: ", at->file);
	if (len < (int)SM_CONFIG_ERROR_MAX)
		vsnprintf(text + len, SM_CONFIG_ERROR_MAX - (size_t)len, fmt, ap);
	make_printable(text);
}

void sm_config_complain(const struct sm_config_places *at, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	sm_config_vcomplain(at, line, false, fmt, ap);
	va_end(ap);
}

void sm_config_warn(const struct sm_config_places *at, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	sm_config_vcomplain(at, line, true, fmt, ap);
	va_end(ap);
}

/* Return: the line in which the key was given, 0: it was not */
static uint32_t line_of(const struct sm_config_places *at, enum sm_config_section section,
			const char *name)
{
	const struct sm_config_row *row = sm_config_row_find(section, name);

	assert(row);
	return at->row[row - sm_config_rows];
}

static void check_with_ca(const struct sm_config *cfg, const struct sm_config_places *at)
{
	uint32_t id = line_of(at, SM_CONFIG_NETWORK, "NetworkId");
	uint32_t name = line_of(at, SM_CONFIG_NODE, "Name");

	if (id)
		sm_config_complain(at, id,
				   "[Network] NetworkId: not together with CA, whose certificates "
				   "say it");
	if (!cfg->node.certificate)
		sm_config_complain(at, 0, "[Node] Certificate: missing, needed with [Network] CA");
	if (name)
		sm_config_warn(
			at, name,
			"[Node] Name: has no effect together with CA, whose certificates say it");
	for (uint32_t i = 0; i < cfg->peer_count; i++) {
		if (cfg->peers[i].address.count)
			sm_config_complain(at, cfg->peers[i].line,
					   "[Peer] Address: not together with [Network] CA, whose "
					   "certificates say it");
		if (cfg->peers[i].has_fingerprint)
			sm_config_complain(at, cfg->peers[i].line,
					   "[Peer] Fingerprint: not together with [Network] CA; "
					   "trust is either the authority's or the key's");
	}
}

static void check_pinned(const struct sm_config *cfg, const struct sm_config_places *at)
{
	uint32_t crl = line_of(at, SM_CONFIG_NETWORK, "CRL");
	uint32_t certificate = line_of(at, SM_CONFIG_NODE, "Certificate");

	if (certificate)
		sm_config_warn(
			at, certificate,
			"[Node] Certificate: has no effect without a CA; the key is what counts");
	if (crl)
		sm_config_complain(at, crl, "[Network] CRL: not without CA, which signs it");
	if (!*cfg->node.name)
		sm_config_complain(at, 0,
				   "[Node] Name: missing, needed where there is no [Network] CA");
	if (!cfg->peer_count)
		sm_config_complain(at, 0,
				   "neither [Network] CA nor a [Peer] with its Fingerprint: nobody "
				   "could be trusted");
	for (uint32_t i = 0; i < cfg->peer_count; i++) {
		if (cfg->peers[i].address.count > SM_CONFIG_PEER_ADDRESSES_MAX)
			sm_config_complain(at, cfg->peers[i].line,
					   "[Peer] Address: more than %u addresses",
					   SM_CONFIG_PEER_ADDRESSES_MAX);
		if (!cfg->peers[i].has_fingerprint)
			sm_config_complain(at, cfg->peers[i].line,
					   "[Peer] Fingerprint: missing, needed where there is no "
					   "[Network] CA");
	}
}

static int by_name(const void *a, const void *b)
{
	const struct sm_config_peer *const *pa = a, *const *pb = b;
	int order = strcmp((*pa)->name, (*pb)->name);

	return order ? order : ((*pa)->line > (*pb)->line) - ((*pa)->line < (*pb)->line);
}

static int by_fingerprint(const void *a, const void *b)
{
	const struct sm_config_peer *const *pa = a, *const *pb = b;
	int order = memcmp((*pa)->fingerprint, (*pb)->fingerprint, SM_FINGERPRINT_LEN);

	return order ? order : ((*pa)->line > (*pb)->line) - ((*pa)->line < (*pb)->line);
}

static void check_doubles(const struct sm_config *cfg, const struct sm_config_places *at)
{
	const size_t size = sizeof(void *);
	const struct sm_config_peer **sorted = calloc(cfg->peer_count + 1, size);
	uint32_t n = cfg->peer_count;

	if (!sorted) {
		sm_config_complain(at, 0, "out of memory");
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		sorted[i] = &cfg->peers[i];
	qsort(sorted, n, size, by_name);
	for (uint32_t i = 1; i < n; i++) {
		if (!strcmp(sorted[i - 1]->name, sorted[i]->name))
			sm_config_complain(at, sorted[i]->line,
					   "[Peer] Name: '%s' is a peer in line %u already",
					   sorted[i]->name, sorted[i - 1]->line);
	}
	qsort(sorted, n, size, by_fingerprint);
	for (uint32_t i = 1; i < n; i++) {
		if (sorted[i - 1]->has_fingerprint && sorted[i]->has_fingerprint &&
		    !memcmp(sorted[i - 1]->fingerprint, sorted[i]->fingerprint, SM_FINGERPRINT_LEN))
			sm_config_complain(at, sorted[i]->line,
					   "[Peer] Fingerprint: '%s' has that of '%s' in line %u",
					   sorted[i]->name, sorted[i - 1]->name,
					   sorted[i - 1]->line);
	}
	free(sorted);
}

static void check_peers(const struct sm_config *cfg, const struct sm_config_places *at)
{
	check_doubles(cfg, at);
	for (uint32_t i = 0; i < cfg->peer_count; i++) {
		const struct sm_config_peer *peer = &cfg->peers[i];

		if (sm_config_is_pinned(cfg) && !strcmp(peer->name, cfg->node.name))
			sm_config_complain(at, peer->line, "[Peer] Name: '%s' is this node itself",
					   peer->name);
		if (!peer->endpoints.count && !cfg->transport.control_port)
			sm_config_warn(
				at, peer->line,
				"[Peer] Endpoint: '%s' has none and [Transport] ControlPort is 0, so "
				"neither can reach the other",
				peer->name);
	}
}

static void check_interface(const struct sm_config *cfg, const struct sm_config_places *at)
{
	uint32_t line = line_of(at, SM_CONFIG_INTERFACE, "Address");
	uint32_t mac = line_of(at, SM_CONFIG_INTERFACE, "MAC");
	const struct sm_config_prefixes *list = &cfg->interface.address;
	char text[SM_ADDR_STRLEN];

	for (uint32_t i = 0; i < list->count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			const struct sm_prefix *a = &list->prefix[i], *b = &list->prefix[j];

			if (a->family == b->family && !memcmp(a->ip, b->ip, sizeof(a->ip)))
				sm_config_complain(at, line,
						   "[Interface] Address: %s is given twice",
						   sm_prefix_format(a, text));
		}
	}
	if (mac && cfg->network.mode == SM_MODE_TUN)
		sm_config_complain(at, mac,
				   "[Interface] MAC: not together with [Network] Mode = tun, which "
				   "has no MAC addresses");
	else if (mac)
		sm_config_warn(
			at, mac,
			"[Interface] MAC: peers protect the derived address only, this one can be "
			"taken over");
}

static bool is_any(const struct sm_addr *a)
{
	static const uint8_t zero[16];

	return !memcmp(a->ip, zero, sizeof(zero));
}

static void check_listen(const struct sm_config *cfg, const struct sm_config_places *at)
{
	const struct sm_config_addresses *list = &cfg->transport.listen;
	uint32_t line = line_of(at, SM_CONFIG_TRANSPORT, "Listen");
	char a_text[SM_ADDR_STRLEN], b_text[SM_ADDR_STRLEN];

	for (uint32_t i = 0; i < list->count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			const struct sm_addr *a = &list->addr[i], *b = &list->addr[j];

			sm_addr_format_ip(a, a_text);
			sm_addr_format_ip(b, b_text);
			if (sm_addr_equal(a, b))
				sm_config_complain(at, line,
						   "[Transport] Listen: %s is given twice", a_text);
			else if (a->family == b->family && (is_any(a) || is_any(b)))
				sm_config_complain(at, line,
						   "[Transport] Listen: %s includes %s, so both "
						   "want one port",
						   is_any(a) ? a_text : b_text,
						   is_any(a) ? b_text : a_text);
		}
	}
}

static void check_network(const struct sm_config *cfg, const struct sm_config_places *at)
{
	if (cfg->network.policy == SM_CONFIG_POLICY_CNSA &&
	    cfg->network.cipher == SM_CONFIG_CIPHER_CHACHA20POLY1305)
		sm_config_complain(at, line_of(at, SM_CONFIG_NETWORK, "Cipher"),
				   "[Network] Cipher: chacha20-poly1305 is not allowed by Policy = "
				   "cnsa");
	for (uint32_t i = 0; i < cfg->network.ca.count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			if (!strcmp(cfg->network.ca.path[i], cfg->network.ca.path[j]))
				sm_config_complain(at, line_of(at, SM_CONFIG_NETWORK, "CA"),
						   "[Network] CA: %s is given twice",
						   cfg->network.ca.path[i]);
		}
	}
}

void sm_config_check(const struct sm_config *cfg, const struct sm_config_places *at)
{
	check_network(cfg, at);
	if (sm_config_is_pinned(cfg))
		check_pinned(cfg, at);
	else
		check_with_ca(cfg, at);
	check_interface(cfg, at);
	check_listen(cfg, at);
	if (cfg->transport.max_handshakes_per_source > cfg->transport.max_handshakes)
		sm_config_complain(at, line_of(at, SM_CONFIG_TRANSPORT, "MaxHandshakesPerSource"),
				   "[Transport] MaxHandshakesPerSource: %u is more than "
				   "MaxHandshakes, which is %u",
				   cfg->transport.max_handshakes_per_source,
				   cfg->transport.max_handshakes);
	if (strlen(cfg->control.socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		sm_config_complain(at, line_of(at, SM_CONFIG_CONTROL, "Socket"),
				   "[Control] Socket: the path has more than 107 bytes: %s",
				   cfg->control.socket);
	check_peers(cfg, at);
}

/*
 * Opens a file that is to be read. Return: descriptor; or -errno with the reason in @error,
 * SM_CONFIG_ERROR_MAX bytes
 */
static int open_checked(const char *path, bool secret, char *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int err = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		err = -errno;
		snprintf(error, SM_CONFIG_ERROR_MAX, "%s: %s", path, strerror(-err));
	} else if (!S_ISREG(st.st_mode)) {
		err = -EINVAL;
		snprintf(error, SM_CONFIG_ERROR_MAX, "%s: is not a regular file", path);
	} else if (secret && st.st_uid != 0 && st.st_uid != geteuid()) {
		err = -EPERM;
		snprintf(error, SM_CONFIG_ERROR_MAX, "%s: belongs to another user: 'chown %u' it",
			 path, (unsigned)geteuid());
	} else if (secret && (st.st_mode & 077)) {
		err = -EPERM;
		snprintf(error, SM_CONFIG_ERROR_MAX,
			 "%s: others have access (mode %04o): 'chmod 600' it", path,
			 (unsigned)st.st_mode & 07777);
	}
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

static void check_file(const struct sm_config_places *at, enum sm_config_section section,
		       const char *key, const char *path, bool secret)
{
	char error[SM_CONFIG_ERROR_MAX];
	int fd;

	if (!path)
		return;
	fd = open_checked(path, secret, error);
	if (fd < 0)
		sm_config_complain(at, line_of(at, section, key), "[%s] %s: %s",
				   sm_config_section_name(section), key, error);
	else
		close(fd);
}

int sm_config_check_files(const struct sm_config *cfg, struct sm_config_errors *errors)
{
	struct sm_config_places at = {.file = cfg->file, .errors = errors};
	uint32_t before = errors->count + errors->dropped;
	char error[SM_CONFIG_ERROR_MAX];
	uint8_t key[ACCESS_KEY_LEN];

	memcpy(at.row, cfg->line, sizeof(at.row));
	for (uint32_t i = 0; i < cfg->network.ca.count; i++)
		check_file(&at, SM_CONFIG_NETWORK, "CA", cfg->network.ca.path[i], false);
	for (uint32_t i = 0; i < cfg->network.crl.count; i++)
		check_file(&at, SM_CONFIG_NETWORK, "CRL", cfg->network.crl.path[i], false);
	if (cfg->network.access_key &&
	    sm_config_read_access_key(cfg->network.access_key, key, error))
		sm_config_complain(&at, line_of(&at, SM_CONFIG_NETWORK, "AccessKey"),
				   "[Network] AccessKey: %s", error);
	sm_wipe(key, sizeof(key));
	check_file(&at, SM_CONFIG_NODE, "Certificate", cfg->node.certificate, false);
	check_file(&at, SM_CONFIG_NODE, "PrivateKey", cfg->node.private_key, true);
	check_file(&at, SM_CONFIG_NODE, "PassphraseFile", cfg->node.passphrase_file, true);
	if (cfg->control.group && !getgrnam(cfg->control.group))
		sm_config_complain(&at, line_of(&at, SM_CONFIG_CONTROL, "Group"),
				   "[Control] Group: there is no group '%s'", cfg->control.group);
	return errors->count + errors->dropped > before ? -EINVAL : 0;
}

/* Reads at most @room - 1 bytes and ends them with 0. Return: bytes, -errno */
static int read_secret(const char *path, char *buf, size_t room, char *error)
{
	int fd = open_checked(path, true, error);
	size_t len = 0;
	ssize_t part;
	int err = 0;

	if (fd < 0)
		return fd;
	do {
		part = read(fd, buf + len, room - 1 - len);
		if (part > 0)
			len += (size_t)part;
		else if (part < 0 && errno != EINTR)
			err = -errno;
	} while (!err && part != 0 && len < room - 1);
	close(fd);
	buf[len] = 0;
	if (err)
		snprintf(error, SM_CONFIG_ERROR_MAX, "%s: %s", path, strerror(-err));
	return err ? err : (int)len;
}

int sm_config_read_access_key(const char *path, uint8_t ret_key[32], char *error)
{
	char text[4 * ACCESS_KEY_LEN];
	int err, len = read_secret(path, text, sizeof(text), error);

	if (len < 0)
		return len;
	err = strlen(text) == (size_t)len
		      ? sm_text_parse_hex(sm_text_trim(text), ret_key, ACCESS_KEY_LEN)
		      : -EINVAL;
	sm_wipe(text, sizeof(text));
	if (err)
		snprintf(error, SM_CONFIG_ERROR_MAX,
			 "%s: does not hold 64 hexadecimal digits and nothing else", path);
	return err;
}

int sm_config_read_passphrase(const char *path, char *ret_text, size_t len, char *error)
{
	int got = read_secret(path, ret_text, len, error);
	size_t line;

	if (got < 0)
		return got;
	line = strcspn(ret_text, "\r\n");
	if (line && line < len - 1) {
		sm_wipe(ret_text + line, len - line);
		return 0;
	}
	sm_wipe(ret_text, len);
	snprintf(error, SM_CONFIG_ERROR_MAX, "%s: the first line is %s", path,
		 line ? "too long" : "empty");
	return -EINVAL;
}

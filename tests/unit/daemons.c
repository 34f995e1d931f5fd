// SPDX-License-Identifier: MIT
/*
 * Daemons in one process: see daemons.h.
 */
#include "daemons.h"

#include "crypto/crypto.h"
#include "io/udp.h"

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define TAP_BUFFER (1 << 20)

static void keep_log(void *arg, enum sm_log_level level, const char *text)
{
	struct daemons *b = arg;
	const size_t room = sizeof(b->log) - b->log_len;
	const int n = snprintf(b->log + b->log_len, room, "%s: %s\n", sm_log_level_name(level),
			       text);

	b->log_len = SM_MIN(b->log_len + (size_t)n, sizeof(b->log) - 1);
}

void daemons_log_keep(struct daemons *b)
{
	sm_log_set_sink(keep_log, b);
}

bool daemons_logged(const struct daemons *b, const char *part)
{
	return strstr(b->log, part);
}

unsigned daemons_log_count(const struct daemons *b, const char *part)
{
	unsigned n = 0;

	for (const char *at = b->log; (at = strstr(at, part)); at++)
		n++;
	return n;
}

void daemons_log_clear(struct daemons *b)
{
	b->log[0] = '\0';
	b->log_len = 0;
}

const char *daemons_path(const struct daemons *b, const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", b->dir, name);
	return path;
}

void daemons_write(const struct daemons *b, const char *name, const char *text)
{
	FILE *f = fopen(daemons_path(b, name), "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(daemons_path(b, name), 0600), 0);
}

static const char *file_of(const struct daemons *b, unsigned i, const char *suffix)
{
	char name[16];

	snprintf(name, sizeof(name), "%s.%s", b->n[i].name, suffix);
	return daemons_path(b, name);
}

void daemons_certify(struct daemons *b, unsigned i, const char *as, int64_t not_after)
{
	char error[SM_CERT_ERROR_MAX] = "";

	pki_node_done(&b->n[i].identity);
	b->n[i].identity = (struct pki_node){0};
	pki_issue(&b->pki, as, sm_clock_wall_s() - PKI_DAY_S, not_after, &b->n[i].identity);
	(void)unlink(file_of(b, i, "key"));
	if (sm_key_save(b->n[i].identity.key, file_of(b, i, "key"), NULL, error) ||
	    sm_cert_save(b->n[i].identity.cert, file_of(b, i, "pem"), true, error))
		fail_msg("%s", error);
}

void daemons_revoke(struct daemons *b, unsigned i, uint64_t number)
{
	char error[SM_CERT_ERROR_MAX] = "";
	const int64_t now_s = sm_clock_wall_s();
	struct sm_crl_entry entry = {.revoked_s = now_s};
	struct sm_identity id;
	struct sm_crl *crl;

	if (i < DAEMONS_MAX) {
		assert_int_equal(sm_cert_identity(b->n[i].identity.cert, &id, error), 0);
		memcpy(entry.serial, id.serial, sizeof(entry.serial));
		entry.serial_len = id.serial_len;
		memcpy(entry.fingerprint, id.fingerprint, sizeof(entry.fingerprint));
	}
	if (sm_crl_issue(b->pki.ca, b->pki.ca_key, number, &entry, i < DAEMONS_MAX, now_s,
			 now_s + PKI_DAY_S, &crl, error) ||
	    sm_crl_save(crl, daemons_path(b, "crl.pem"), error))
		fail_msg("%s", error);
	sm_crl_free(crl);
}

void daemons_init(struct daemons *b)
{
	const unsigned pid = (unsigned)getpid();
	char error[SM_CERT_ERROR_MAX] = "";
	uint8_t fp[SM_FINGERPRINT_LEN];

	memset(b, 0, sizeof(*b));
	signal(SIGPIPE, SIG_IGN);
	daemons_log_keep(b);
	assert_int_equal(sm_crypto_init(), 0);
	snprintf(b->dir, sizeof(b->dir), "/tmp/sm-daemons-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	pki_init(&b->pki, 7, sm_clock_wall_s());
	if (sm_cert_save(b->pki.ca, daemons_path(b, "ca.pem"), false, error))
		fail_msg("%s", error);
	for (unsigned i = 0; i < DAEMONS_MAX; i++) {
		struct daemon *n = &b->n[i];

		n->tap = -1;
		snprintf(n->name, sizeof(n->name), "n%u", i);
		/* nobody else's: test programs run side by side */
		snprintf(n->address, sizeof(n->address), "127.%u.%u.%u", 64 * i + (pid >> 16) % 64,
			 pid >> 8 & 255, pid & 255);
		daemons_certify(b, i, n->name, sm_clock_wall_s() + 90 * PKI_DAY_S);
		assert_int_equal(sm_key_fingerprint(n->identity.key, fp), 0);
		sm_ident_format_fingerprint(fp, n->fingerprint);
	}
}

void daemons_done(struct daemons *b)
{
	DIR *dir;

	for (unsigned i = 0; i < DAEMONS_MAX; i++) {
		if (b->n[i].open)
			daemons_close(b, i);
		pki_node_done(&b->n[i].identity);
	}
	pki_done(&b->pki);
	sm_log_set_sink(NULL, NULL);
	sm_log_set_level(SM_LOG_INFO);
	dir = opendir(b->dir);
	assert_non_null(dir);
	for (const struct dirent *e; (e = readdir(dir));)
		if (e->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(dir), e->d_name, 0), 0);
	closedir(dir);
	assert_int_equal(rmdir(b->dir), 0);
}

void daemons_configure(const struct daemons *b, unsigned i, struct daemons_conf conf)
{
	const struct daemon *n = &b->n[i];
	FILE *f = fopen(file_of(b, i, "conf"), "we");

	assert_non_null(f);
	fprintf(f, "[Network]\nName = bed\n%s%s%s[Node]\nPrivateKey = %s.key\n",
		conf.ca ? "CA = ca.pem\n" : "", conf.crl ? "CRL = crl.pem\n" : "",
		conf.network ? conf.network : "", n->name);
	fprintf(f, conf.ca ? "Certificate = %s.pem\n" : "Name = %s\n", n->name);
	fprintf(f, "[Interface]\nName = %s\nULA = no\n%s", n->name,
		conf.interface ? conf.interface : "");
	fprintf(f,
		"[Transport]\nOffload = no\nListen = %s\nControlPort = %u\nSocketBuffer = 1m\n"
		"[Control]\nSocket = %s.sock\n",
		n->address, DAEMONS_PORT, n->name);
	for (unsigned k = 0; k < DAEMONS_MAX; k++) {
		if (!((conf.peers | conf.dials) >> k & 1))
			continue;
		fprintf(f, "[Peer]\nName = %s\n", b->n[k].name);
		if (!conf.ca)
			fprintf(f, "Fingerprint = %s\n", b->n[k].fingerprint);
		if (conf.dials >> k & 1)
			fprintf(f, "Endpoint = %s:%u\n", b->n[k].address, DAEMONS_PORT);
	}
	fputs(conf.more ? conf.more : "", f);
	assert_int_equal(fclose(f), 0);
}

/* What sm_device_open() would do, as far as no privilege is needed */
static void make_machine(struct daemon *n)
{
	static const struct sm_addr any = {.family = 4};
	struct sm_daemon *d = &n->d;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct sm_addr bound;
	int pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	for (int end = 0; end < 2; end++)
		(void)setsockopt(pair[end], SOL_SOCKET, SO_SNDBUF, &(int){TAP_BUFFER}, sizeof(int));
	n->tap = pair[0];
	d->tun = (struct sm_tun){.ifindex = INT32_MAX,
				 .mode = d->config->network.mode,
				 .queues = 1,
				 .fd = {pair[1]},
				 .lock_fd = -1};
	snprintf(d->tun.name, sizeof(d->tun.name), "%s", d->config->interface.name);
	d->udp_fd[0] = sm_udp_open(&any, 0, false, 1u << 20, &d->udp_mapped);
	assert_true(d->udp_fd[0] >= 0);
	assert_int_equal(getsockname(d->udp_fd[0], (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(sm_addr_from_sockaddr((const struct sockaddr *)&sa, &bound), 0);
	d->data_port = bound.port;
	assert_int_equal(sm_netlink_open(&d->netlink), 0);
	d->monitor_fd = sm_netlink_monitor();
	assert_true(d->monitor_fd >= 0);
	assert_int_equal(sm_ident_mac(d->credentials.self.node_id, &d->mac), 0);
	memcpy(d->addresses, d->config->interface.address.prefix,
	       d->config->interface.address.count * sizeof(d->addresses[0]));
	d->address_count = d->config->interface.address.count;
}

void daemons_load(struct daemons *b, unsigned i)
{
	struct daemon *n = &b->n[i];
	struct sm_daemon *d = &n->d;
	struct sm_config_errors *errors = calloc(1, sizeof(*errors));
	char error[SM_DAEMON_ERROR_MAX] = "";

	assert_non_null(errors);
	assert_false(n->open);
	n->options = (struct sm_daemon_options){.config_path = "", .log_level_override = -1};
	*d = (struct sm_daemon){.options = &n->options,
				.config_path = strdup(file_of(b, i, "conf")),
				.detach = SM_DETACH_FOREGROUND,
				.notify.fd = -1,
				.started_us = sm_clock_now_us(),
				.network_lock = -1,
				.udp_lock = -1,
				.tcp_lock = -1,
				.monitor_fd = -1,
				.selftest.fd = -1,
				.workers = 1};
	for (uint32_t k = 0; k < SM_WORKER_MAX; k++)
		d->udp_fd[k] = -1;
	sm_list_init(&d->handles);
	sm_list_init(&d->resolutions);
	sm_list_init(&d->pings);
	if (sm_config_load(d->config_path, &d->config, errors))
		fail_msg("%s", errors->text[0]);
	free(errors);
	sm_log_set_level(d->config->log_level);
	if (sm_credentials_load(d->config, &d->credentials, error))
		fail_msg("%s", error);
	make_machine(n);
	n->open = true;
}

void daemons_open(struct daemons *b, unsigned i)
{
	struct sm_daemon *d = &b->n[i].d;
	char error[SM_DAEMON_ERROR_MAX] = "";

	daemons_load(b, i);
	if (sm_control_open(d, error) || sm_ctl_open(&d->loop, d->config->control.socket, (gid_t)-1,
						     sm_commands_handle, d, &d->ctl, error))
		fail_msg("%s", error);
}

void daemons_close(struct daemons *b, unsigned i)
{
	struct daemon *n = &b->n[i];
	struct sm_daemon *d = &n->d;

	sm_control_close(d);
	assert_false(d->loop_busy);
	sm_device_close(d);
	sm_credentials_done(&d->credentials);
	sm_config_free(d->config);
	free(d->config_path);
	close(n->tap);
	n->tap = -1;
	n->open = false;
}

void daemons_turn(struct daemons *b)
{
	for (unsigned i = 0; i < DAEMONS_MAX; i++)
		if (b->n[i].open && b->n[i].d.loop_ready && !b->n[i].d.stopping)
			uv_run(&b->n[i].d.loop, UV_RUN_NOWAIT);
	(void)poll(NULL, 0, 1);
}

struct sm_peer *daemons_peer(struct daemons *b, unsigned i, const char *name)
{
	const struct sm_peer *peer = sm_node_find_peer(b->n[i].d.node, name);

	assert_non_null(peer);
	return b->n[i].d.node->by_port[peer->port];
}

bool daemons_is_up(struct daemons *b, unsigned i, const char *name)
{
	const struct sm_peer *peer = sm_node_find_peer(b->n[i].d.node, name);

	return peer && peer->state == SM_PEER_UP;
}

void daemons_connect(struct daemons *b, unsigned i, unsigned k)
{
	DAEMONS_UNTIL(b, daemons_is_up(b, i, b->n[k].name) && daemons_is_up(b, k, b->n[i].name));
}

void daemons_open_pair(struct daemons *b, struct daemons_conf first, struct daemons_conf second)
{
	first.dials |= 1u << 1;
	second.peers |= 1u << 0;
	daemons_configure(b, 0, first);
	daemons_configure(b, 1, second);
	daemons_open(b, 1);
	daemons_open(b, 0);
	daemons_connect(b, 0, 1);
}

int daemons_dial(const struct daemons *b, unsigned i)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s.sock", b->dir, b->n[i].name);
	assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

// SPDX-License-Identifier: MIT
/*
 * Daemons to test with: the whole control thread and its plane, several in this process, each on a
 * loopback address of its own. Only the machine is not real: the TAP is a socket pair, there are no locks,
 * and nobody needs to be root.
 *
 *   test -- tap == daemon 0 ==== TCP and UDP on 127.0.0.0/8 ==== daemon 1 == tap -- test
 */
#ifndef SM_TESTS_UNIT_DAEMONS_H
#define SM_TESTS_UNIT_DAEMONS_H

#include "core/peer.h"
#include "daemon/state.h"
#include "pki.h"

#include "base/clock.h"

#define DAEMONS_MAX   3u
#define DAEMONS_PORT  9443u
#define DAEMONS_LOG   65536u
#define DAEMONS_NEVER (20 * SM_SEC_US)

/**
 * struct daemon - One of them
 * @name:    "n0", "n1", "n2": its node name, its files are NAME.conf, NAME.key, NAME.pem, NAME.sock
 * @address: where it listens
 * @tap:     the test's end
 */
struct daemon {
	struct sm_daemon d;
	struct sm_daemon_options options;
	char name[8], address[SM_ADDR_STRLEN], fingerprint[SM_FINGERPRINT_STRLEN];
	struct pki_node identity;
	int tap;
	bool open;
};

struct daemons {
	char dir[64];
	struct pki pki;
	struct daemon n[DAEMONS_MAX];
	char log[DAEMONS_LOG]; /* "notice: ...\n" and so on, since daemons_log_clear() */
	size_t log_len;
};

/** daemons_init() - A folder with ca.pem, and for each daemon a key and a certificate; the log is kept */
void daemons_init(struct daemons *b);
void daemons_done(struct daemons *b);

/** daemons_path() - Return: the name in the folder; valid until the eighth call after */
const char *daemons_path(const struct daemons *b, const char *name);
/** daemons_write() - Make or replace a file of the folder, mode 0600 */
void daemons_write(const struct daemons *b, const char *name, const char *text);
/** daemons_certify() - Issue NAME.pem for daemon @i under the name @as */
void daemons_certify(struct daemons *b, unsigned i, const char *as, int64_t not_after);
/** daemons_revoke() - Write crl.pem with that number; @i: whom it names, DAEMONS_MAX nobody */
void daemons_revoke(struct daemons *b, unsigned i, uint64_t number);

/**
 * struct daemons_conf - What stands in NAME.conf beside names, files and addresses
 * @peers:      whom it knows, a bit for each
 * @dials:      of those, whom it dials
 * @ca:         trust by ca.pem, not by the peers' fingerprints; @crl: and crl.pem
 * @network, @interface: lines to add to these sections, or NULL
 * @more:       sections to add, or NULL
 */
struct daemons_conf {
	unsigned peers, dials;
	bool ca, crl;
	const char *network, *interface, *more;
};
/* One, to hand over */
#define CONF(...) ((struct daemons_conf){__VA_ARGS__})
void daemons_configure(const struct daemons *b, unsigned i, struct daemons_conf conf);

/** daemons_load() - Read NAME.conf and what it names, and make all that is of the machine */
void daemons_load(struct daemons *b, unsigned i);
/** daemons_open() - daemons_load(), and start it, control socket included */
void daemons_open(struct daemons *b, unsigned i);
void daemons_close(struct daemons *b, unsigned i);

/** daemons_turn() - One turn of every open daemon's loop */
void daemons_turn(struct daemons *b);
/** daemons_peer() - Return: how daemon @i sees @name; fails the test if it does not */
struct sm_peer *daemons_peer(struct daemons *b, unsigned i, const char *name);
bool daemons_is_up(struct daemons *b, unsigned i, const char *name);
/** daemons_connect() - Turn until both daemons see each other up */
void daemons_connect(struct daemons *b, unsigned i, unsigned k);
/** daemons_open_pair() - n1 listens, n0 dials it, each with lines of its own; they are connected */
void daemons_open_pair(struct daemons *b, struct daemons_conf first, struct daemons_conf second);
/** daemons_dial() - Return: a connection to the control socket of daemon @i; the caller closes it */
int daemons_dial(const struct daemons *b, unsigned i);

/** daemons_log_keep() - Keep what is logged from now on; daemons_init() does so too */
void daemons_log_keep(struct daemons *b);
bool daemons_logged(const struct daemons *b, const char *part);
unsigned daemons_log_count(const struct daemons *b, const char *part);
void daemons_log_clear(struct daemons *b);

/* Turn until the condition holds */
#define DAEMONS_UNTIL(b, condition)                                              \
	do {                                                                     \
		const uint64_t end_us_ = sm_clock_now_us() + DAEMONS_NEVER;      \
		while (!(condition)) {                                           \
			if (sm_clock_now_us() > end_us_)                         \
				fail_msg("never: %s\n%s", #condition, (b)->log); \
			daemons_turn(b);                                         \
		}                                                                \
	} while (0)

#endif

// SPDX-License-Identifier: MIT
/*
 * One control connection: TCP and TLS from accept or dial to authenticated bytes, and the limits on
 * connections that have not proved who they are.
 *
 * Theory of operation: a set owns the listeners and connections of one loop. Handshake steps run in
 * libuv's thread pool; while one runs, the connection is not read from, so the kernel holds what
 * arrives. Everything else, all callbacks included, happens on the loop's thread.
 *
 *   CONNECT  dialled, TCP is not up yet                           connect_timeout_us
 *   HELLO    accepted, no whole ClientHello yet                   hello_timeout_us from accept
 *   SHAKE    handshake                                            handshake_timeout_us from accept or dial
 *   OPEN     the peer's certificate is checked, bytes flow
 *   LINGER   nothing more for the owner: last bytes go out        linger_us
 *
 * Who holds a struct sm_conn: the owner of a dialled one from sm_conn_dial() on, of an accepted one from
 * on_open() on; until on_closed() has returned or sm_conn_close() was called, whichever comes first.
 * No callback comes after either. Accepted connections that fail before on_open() are only counted
 * and logged.
 *
 * In TLS 1.3 the client is done before the server has judged the client's certificate: on the dialling
 * side on_open() may be followed by on_closed() with "the peer refused our certificate: ...".
 */
#ifndef SM_DAEMON_CONN_H
#define SM_DAEMON_CONN_H

#include "base/addr.h"
#include "crypto/tls.h"

#include <uv.h>

struct sm_conn;
struct sm_conn_set;

/** struct sm_conn_limits - 0 in a field: the default */
struct sm_conn_limits {
	uint32_t unfinished_max;        /* accepted and not yet open or gone, in all; 256 */
	uint32_t unfinished_per_source; /* the same per IPv4 address or IPv6 /64; 8 */
	uint32_t reserved_percent;   /* of unfinished_max, for addresses that known() knows; 25 */
	uint32_t output_max;         /* bytes not yet taken by the kernel, per connection; 1 MiB */
	uint64_t connect_timeout_us; /* 2 s */
	uint64_t hello_timeout_us;   /* 3 s */
	uint64_t handshake_timeout_us; /* 5 s */
	uint64_t linger_us;            /* 1 s */
};

/** struct sm_conn_info - What on_open() tells; valid during the call */
struct sm_conn_info {
	const struct sm_identity *peer;
	uint8_t root_secret[SM_ROOT_SECRET_LEN]; /* wiped after the call */
	bool client;                             /* we dialled */
	const char *group;                       /* "SecP384r1MLKEM1024" */
	const char *signature;                   /* "mldsa87" */
	uint64_t bytes_in, bytes_out;            /* of the handshake */
	uint64_t handshake_us;                   /* from accept, or from the end of TCP's connect */
	uint64_t work_us;                        /* of that, in the thread pool's hands */
};

/** struct sm_conn_events - Callbacks; each may call any function of this header */
struct sm_conn_events {
	void (*on_open)(void *arg, struct sm_conn *conn, const struct sm_conn_info *info);
	/* plaintext as it comes: messages may be cut and joined anywhere */
	void (*on_data)(void *arg, struct sm_conn *conn, const uint8_t *data, size_t len);
	/*
	 * @err: -ECONNREFUSED, -ETIMEDOUT, -ECONNRESET, -EKEYREJECTED, -EPROTO, ...
	 * @reason: SM_CLOSE_NONE if the network failed or the peer just left
	 * @text: one sentence
	 */
	void (*on_closed)(void *arg, struct sm_conn *conn, int err, enum sm_close_reason reason,
			  const char *text);
	/* is it an address that a configured or met peer has? the reserve is for those; may be NULL */
	bool (*known)(void *arg, const struct sm_addr *addr);
};

/** struct sm_conn_counts - For status and metrics */
struct sm_conn_counts {
	uint64_t accepted, dialled, opened;
	uint64_t accept_errors;                  /* no memory, ...; never opened */
	uint64_t refused[SM_CLOSE_REASON_COUNT]; /* accepted and never opened; [0]: the peer left */
	uint64_t dial_failed;                    /* dialled and never opened */
	uint64_t dial_refused[SM_CLOSE_REASON_COUNT]; /* of those, by either side, for a reason */
	uint32_t unfinished;                          /* accepted, never open, not yet gone: now */
	uint32_t dialling;                            /* now */
	uint32_t open;                                /* now */
};

/**
 * sm_conn_set_new() - Return: 0, -ENOMEM, -EIO
 * @config:  a reference is taken
 * @limits:  copied; NULL for all defaults
 * @events:  copied
 */
SM_MUST_CHECK int sm_conn_set_new(uv_loop_t *loop, struct sm_tls_config *config,
				  const struct sm_conn_limits *limits,
				  const struct sm_conn_events *events, void *arg,
				  struct sm_conn_set **ret_set);

/** sm_conn_set_config() - Certificate, trust or policy changed: for connections from now on */
void sm_conn_set_config(struct sm_conn_set *set, struct sm_tls_config *config);

/**
 * sm_conn_set_stop() - Close listeners and connections, without callbacks
 *
 * Lingering ones may go on for linger_us. When the loop has run dry, sm_conn_set_free() may be called.
 */
void sm_conn_set_stop(struct sm_conn_set *set);
void sm_conn_set_free(struct sm_conn_set *set);

/**
 * sm_conn_listen() - Accept connections at one address; may be called for several
 * @addr: port 0: any free one
 * @ret_bound: the address with its port; may be NULL
 * Return: 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, ...
 */
SM_MUST_CHECK int sm_conn_listen(struct sm_conn_set *set, const struct sm_addr *addr,
				 struct sm_addr *ret_bound);
/** sm_conn_unlisten() - @addr as sm_conn_listen() returned it; Return: 0, -ENOENT */
SM_MUST_CHECK int sm_conn_unlisten(struct sm_conn_set *set, const struct sm_addr *addr);

/**
 * sm_conn_dial() - Connect to a peer
 * @narrow: in segments that fit SM_PATH_MTU_MIN: larger ones may vanish on the way
 * Return: 0 and *@ret_conn (its callbacks come later, never from within); -ENOMEM, -ENETUNREACH, ...
 */
SM_MUST_CHECK int sm_conn_dial(struct sm_conn_set *set, const struct sm_addr *addr, bool narrow,
			       void *owner, struct sm_conn **ret_conn);

/**
 * sm_conn_send() - Queue plaintext on an open connection
 * Return: 0; -ENOTCONN not open; -ENOBUFS output_max is reached, nothing was queued;
 *         any other: bytes were lost, the connection is of no use any more: close it
 */
SM_MUST_CHECK int sm_conn_send(struct sm_conn *conn, const void *data, size_t len);

/**
 * sm_conn_close() - Let go of a connection; no callback comes any more, @conn must not be used
 * @flush: what was queued, and close_notify, may still go out for linger_us; else it ends at once
 */
void sm_conn_close(struct sm_conn *conn, bool flush);

void *sm_conn_owner(const struct sm_conn *conn); /* NULL for an accepted one until set */
void sm_conn_set_owner(struct sm_conn *conn, void *owner);
bool sm_conn_is_open(const struct sm_conn *conn);
bool sm_conn_is_client(const struct sm_conn *conn);
const struct sm_addr *sm_conn_remote(const struct sm_conn *conn);
const struct sm_addr *sm_conn_local(const struct sm_conn *conn); /* family 0 until TCP is up */
size_t sm_conn_queued(const struct sm_conn *conn); /* bytes not yet taken by the kernel */
const struct sm_conn_counts *sm_conn_set_counts(const struct sm_conn_set *set);

#endif

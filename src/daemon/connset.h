// SPDX-License-Identifier: MIT
/*
 * Inside conn.c and connset.c: one connection and the set that it belongs to.
 */
#ifndef SM_DAEMON_CONNSET_H
#define SM_DAEMON_CONNSET_H

#include "base/list.h"
#include "base/log.h"
#include "daemon/conn.h"

#define SM_CONN_READ_SIZE  65536u /* bytes of one read from TCP */
#define SM_CONN_PLAIN_SIZE 16384u /* bytes of one TLS record */
#define SM_CONN_OUT_SIZE   17408u /* bytes handed from TLS to TCP at once */

enum sm_conn_state {
	SM_CONN_CONNECT,
	SM_CONN_HELLO,
	SM_CONN_SHAKE,
	SM_CONN_OPEN,
	SM_CONN_LINGER,
	SM_CONN_GONE, /* in no list; freed when libuv and the thread pool let go of it */
};

struct sm_conn {
	struct sm_list node; /* in one list of the set, by state */
	struct sm_conn_set *set;
	enum sm_conn_state state;
	bool client;
	bool opened;     /* was in SM_CONN_OPEN */
	bool handed;     /* the owner holds it: callbacks may come */
	bool known;      /* the source is a peer's address */
	bool busy;       /* the thread pool has @tls */
	bool tcp_closed; /* libuv has let go of @tcp */
	bool fin_sent;
	uint64_t since_us, deadline_us, work_us;
	size_t queued; /* bytes in libuv's hands */
	void *owner;
	struct sm_tls *tls;
	struct sm_addr remote, local;
	uv_tcp_t tcp;
	uv_connect_t connect;
	uv_work_t work;
	int64_t work_now_s;
	int work_result;
};

struct sm_conn_set {
	uv_loop_t *loop;
	struct sm_tls_config *config;
	struct sm_conn_limits limits;
	struct sm_conn_events events;
	void *arg;
	struct sm_conn_counts counts;
	struct sm_list listeners;
	struct sm_list unfinished; /* accepted and never opened, oldest first; lingering ones too */
	struct sm_list waiting; /* others with a deadline: dialled, or lingering after being open */
	struct sm_list open;
	uv_timer_t sweep;
	size_t handles; /* connections, listeners and the timer that are not freed */
	bool stopping;
	struct sm_log_limit log_limit, error_limit;
	uint8_t in[SM_CONN_READ_SIZE], plain[SM_CONN_PLAIN_SIZE], out[SM_CONN_OUT_SIZE];
};

/* conn.c */

/** sm_conn_new() - Without a socket, in no list, not counted; Return: 0, -ENOMEM, ... */
SM_MUST_CHECK int sm_conn_new(struct sm_conn_set *set, bool client, struct sm_conn **ret_conn);
/** sm_conn_discard() - End one that sm_conn_new() made and that is in no list yet */
void sm_conn_discard(struct sm_conn *conn);
/** sm_conn_accepted() - Its socket and addresses are there: wait for the ClientHello; it may fail at once */
void sm_conn_accepted(struct sm_conn *conn);
/** sm_conn_drop() - End at once, without a callback */
void sm_conn_drop(struct sm_conn *conn);
/**
 * sm_conn_fail() - Count, log or tell the owner, then end
 * @may_linger: last bytes (an alert) may still go out
 */
void sm_conn_fail(struct sm_conn *conn, int err, enum sm_close_reason reason, const char *text,
		  bool may_linger);

/* connset.c */

/** sm_connset_set_deadline() - The connection fails with -ETIMEDOUT at that time unless it moves on */
void sm_connset_set_deadline(struct sm_conn *conn, uint64_t deadline_us);
/** sm_connset_tend() - A connection left the lists that have deadlines */
void sm_connset_tend(struct sm_conn_set *set);
/** sm_connset_log_refusal() - Say, at a limited rate, that an accepted connection was turned away */
void sm_connset_log_refusal(struct sm_conn *conn, enum sm_close_reason reason, const char *text);

#endif

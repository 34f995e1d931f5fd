// SPDX-License-Identifier: MIT
/*
 * One control connection: handshakes in the thread pool, bytes in and out, the ways to end.
 */
#include "daemon/connset.h"

#include "base/clock.h"
#include "io/tcp.h"

#include <stdio.h>
#include <stdlib.h>

#define IPV6_TCP_HEADERS 60u /* bytes, without options; what IPv4 has is less */

struct write {
	uv_write_t req;
	struct sm_conn *conn;
	size_t len;
	uint8_t data[];
};

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);
static void on_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *ret_buf);

/* ---- Ending ---- */

static void conn_free(struct sm_conn *conn)
{
	if (conn->busy || !conn->tcp_closed)
		return;
	conn->set->handles--;
	sm_tls_free(conn->tls);
	free(conn);
}

static void on_conn_closed(uv_handle_t *handle)
{
	struct sm_conn *conn = handle->data;

	conn->tcp_closed = true;
	conn_free(conn);
}

static void uncount(struct sm_conn *conn)
{
	struct sm_conn_counts *counts = &conn->set->counts;

	if (conn->state == SM_CONN_GONE)
		return;
	if (conn->state == SM_CONN_OPEN)
		counts->open--;
	else if (!conn->client && !conn->opened)
		counts->unfinished--;
	else if (conn->state != SM_CONN_LINGER)
		counts->dialling--;
}

/* Ends at once; what the thread pool still does is for nothing. */
void sm_conn_drop(struct sm_conn *conn)
{
	if (conn->state == SM_CONN_GONE)
		return;
	uncount(conn);
	conn->handed = false;
	conn->state = SM_CONN_GONE;
	sm_list_del(&conn->node);
	uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
	sm_connset_tend(conn->set);
}

/* ---- Sending ---- */

static void end_sending(struct sm_conn *conn)
{
	if (conn->state != SM_CONN_LINGER || conn->queued > 0 || conn->fin_sent)
		return;
	conn->fin_sent = true;
	sm_tcp_end_sending(&conn->tcp);
}

static void on_written(uv_write_t *req, int status)
{
	struct write *w = SM_CONTAINER_OF(req, struct write, req);
	struct sm_conn *conn = w->conn;

	conn->queued -= w->len;
	free(w);
	if (conn->state == SM_CONN_GONE)
		return;
	if (status < 0)
		sm_conn_fail(conn, status, SM_CLOSE_NONE, uv_strerror(status), false);
	else
		end_sending(conn);
}

static int put(struct sm_conn *conn, const uint8_t *data, size_t len)
{
	uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
	struct write *w;
	int n = 0, err;

	if (conn->queued == 0) {
		n = uv_try_write((uv_stream_t *)&conn->tcp, &buf, 1);
		if (n == UV_EAGAIN)
			n = 0;
		if (n < 0)
			return n;
		if ((size_t)n == len)
			return 0;
	}
	len -= (size_t)n;
	w = malloc(sizeof(*w) + len);
	if (!w)
		return -ENOMEM;
	w->conn = conn;
	w->len = len;
	memcpy(w->data, data + n, len);
	buf = uv_buf_init((char *)w->data, (unsigned)len);
	err = uv_write(&w->req, (uv_stream_t *)&conn->tcp, &buf, 1, on_written);
	if (err) {
		free(w);
		return err;
	}
	conn->queued += len;
	return 0;
}

/* Hands what TLS has ready to TCP. */
static int flush(struct sm_conn *conn)
{
	struct sm_conn_set *set = conn->set;
	size_t n;
	int err = 0;

	while (!err && (n = sm_tls_output(conn->tls, set->out, sizeof(set->out))) > 0)
		err = put(conn, set->out, n);
	return err;
}

/* Last bytes may go out: an unread input would make the kernel reset them away, so reading goes on. */
static void linger(struct sm_conn *conn)
{
	struct sm_conn_set *set = conn->set;
	int err;

	uncount(conn);
	conn->handed = false;
	conn->state = SM_CONN_LINGER;
	if (!conn->client && !conn->opened) {
		set->counts.unfinished++; /* stays in its list and under its limit */
	} else {
		sm_list_del(&conn->node);
		sm_list_add_tail(&set->waiting, &conn->node);
	}
	sm_connset_set_deadline(conn, sm_clock_now_us() + set->limits.linger_us);
	err = flush(conn);
	if (!err)
		err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err && err != UV_EALREADY)
		sm_conn_drop(conn);
	else
		end_sending(conn);
}

/* ---- Failing ---- */

void sm_conn_fail(struct sm_conn *conn, int err, enum sm_close_reason reason, const char *text,
		  bool may_linger)
{
	struct sm_conn_set *set = conn->set;
	char copy[SM_TLS_ERROR_MAX];
	bool tell = conn->handed;

	if (conn->state == SM_CONN_GONE)
		return;
	if (conn->state == SM_CONN_LINGER) {
		sm_conn_drop(conn);
		return;
	}
	snprintf(copy, sizeof(copy), "%s", text); /* it may lie in what goes now */
	if (!conn->opened && !conn->client) {
		set->counts.refused[reason]++;
		sm_connset_log_refusal(conn, reason, copy);
	} else if (!conn->opened) {
		set->counts.dial_failed++;
		set->counts.dial_refused[reason] += reason != SM_CLOSE_NONE;
	}
	if (may_linger && !conn->busy)
		linger(conn);
	else
		sm_conn_drop(conn);
	if (tell && set->events.on_closed)
		set->events.on_closed(set->arg, conn, err, reason, copy);
}

static void fail_tls(struct sm_conn *conn, int err)
{
	sm_conn_fail(conn, err, sm_tls_close_reason(conn->tls), sm_tls_error(conn->tls), true);
}

/* ---- Receiving ---- */

static void on_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *ret_buf)
{
	struct sm_conn *conn = handle->data;

	(void)hint;
	*ret_buf = uv_buf_init((char *)conn->set->in, SM_CONN_READ_SIZE);
}

/* Hands all plaintext that is there to the owner. */
static void pump(struct sm_conn *conn)
{
	struct sm_conn_set *set = conn->set;
	int n = 0, err;

	while (conn->state == SM_CONN_OPEN) {
		n = sm_tls_read(conn->tls, set->plain, sizeof(set->plain));
		if (n <= 0)
			break;
		if (set->events.on_data)
			set->events.on_data(set->arg, conn, set->plain, (size_t)n);
	}
	if (conn->state != SM_CONN_OPEN)
		return;
	if (n < 0) {
		fail_tls(conn, n);
		return;
	}
	err = flush(conn); /* TLS may have had to answer something */
	if (err)
		sm_conn_fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
}

static void opened(struct sm_conn *conn)
{
	struct sm_conn_set *set = conn->set;
	struct sm_conn_info info = {
		.peer = sm_tls_peer(conn->tls),
		.client = conn->client,
		.group = sm_tls_group(conn->tls),
		.signature = sm_tls_signature(conn->tls),
		.bytes_in = sm_tls_bytes_in(conn->tls),
		.bytes_out = sm_tls_bytes_out(conn->tls),
		.handshake_us = sm_clock_now_us() - conn->since_us,
		.work_us = conn->work_us,
	};

	if (sm_tls_root_secret(conn->tls, info.root_secret) != 0) {
		sm_conn_fail(conn, -EIO, SM_CLOSE_INTERNAL, "TLS exports no secret", false);
		return;
	}
	uncount(conn);
	conn->state = SM_CONN_OPEN;
	conn->opened = true;
	conn->handed = true;
	conn->deadline_us = SM_NEVER;
	sm_list_del(&conn->node);
	sm_list_add_tail(&set->open, &conn->node);
	sm_connset_tend(set);
	set->counts.opened++;
	set->counts.open++;
	if (set->events.on_open)
		set->events.on_open(set->arg, conn, &info);
	sm_wipe(info.root_secret, sizeof(info.root_secret));
	pump(conn); /* the peer may have written right behind its last flight */
}

/* In a thread of the pool */
static void work(uv_work_t *req)
{
	struct sm_conn *conn = req->data;
	uint64_t start_us = sm_clock_now_us();

	conn->work_result = sm_tls_handshake(conn->tls, conn->work_now_s);
	conn->work_us += sm_clock_now_us() - start_us;
}

static void after_work(uv_work_t *req, int status)
{
	struct sm_conn *conn = req->data;
	int err;

	conn->busy = false;
	if (conn->state == SM_CONN_GONE) {
		conn_free(conn);
		return;
	}
	if (status == 0 && conn->work_result < 0) {
		fail_tls(conn, conn->work_result);
		return;
	}
	err = status ? status : flush(conn);
	if (err) {
		sm_conn_fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
		return;
	}
	if (conn->work_result == 1)
		opened(conn);
	if (conn->state != SM_CONN_OPEN && conn->state != SM_CONN_SHAKE)
		return;
	err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err && err != UV_EALREADY)
		sm_conn_fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
}

static void start_work(struct sm_conn *conn)
{
	int err;

	uv_read_stop((uv_stream_t *)&conn->tcp);
	conn->busy = true;
	conn->work.data = conn;
	conn->work_now_s = sm_clock_wall_s();
	err = uv_queue_work(conn->set->loop, &conn->work, work, after_work);
	if (err) {
		conn->busy = false;
		sm_conn_fail(conn, err, SM_CLOSE_INTERNAL, uv_strerror(err), false);
	}
}

static void on_hello_bytes(struct sm_conn *conn)
{
	int done = sm_tls_hello_complete(conn->tls);

	if (done < 0) { /* there is nobody to explain it to */
		sm_conn_fail(conn, -EPROTO, sm_tls_close_reason(conn->tls), sm_tls_error(conn->tls),
			     false);
		return;
	}
	if (done == 0)
		return;
	conn->state = SM_CONN_SHAKE;
	sm_connset_set_deadline(conn, conn->since_us + conn->set->limits.handshake_timeout_us);
	start_work(conn);
}

static void on_end(struct sm_conn *conn, int err)
{
	if (err != UV_EOF)
		sm_conn_fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
	else if (conn->opened)
		sm_conn_fail(conn, -ECONNRESET, SM_CLOSE_NONE,
			     "the peer ended the connection without a word", false);
	else
		sm_conn_fail(conn, -ECONNRESET, SM_CLOSE_NONE, "the peer left during the handshake",
			     false);
}

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct sm_conn *conn = stream->data;
	int err;

	if (conn->state == SM_CONN_GONE || n == 0)
		return;
	if (n < 0) {
		on_end(conn, (int)n);
		return;
	}
	if (conn->state == SM_CONN_LINGER)
		return;
	err = sm_tls_feed(conn->tls, buf->base, (size_t)n);
	if (err) {
		sm_conn_fail(conn, err, SM_CLOSE_PROTOCOL, "more input than TLS can take", false);
		return;
	}
	if (conn->state == SM_CONN_HELLO)
		on_hello_bytes(conn);
	else if (conn->state == SM_CONN_SHAKE)
		start_work(conn);
	else if (conn->state == SM_CONN_OPEN)
		pump(conn);
}

/* ---- Beginning ---- */

int sm_conn_new(struct sm_conn_set *set, bool client, struct sm_conn **ret_conn)
{
	struct sm_conn *conn = calloc(1, sizeof(*conn));
	int err;

	if (!conn)
		return -ENOMEM;
	conn->set = set;
	conn->client = client;
	sm_list_init(&conn->node);
	err = sm_tls_new(set->config, client, &conn->tls);
	if (!err)
		err = uv_tcp_init(set->loop, &conn->tcp);
	if (err) {
		sm_tls_free(conn->tls);
		free(conn);
		return err;
	}
	conn->tcp.data = conn;
	set->handles++;
	*ret_conn = conn;
	return 0;
}

void sm_conn_discard(struct sm_conn *conn)
{
	conn->state = SM_CONN_GONE;
	uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
}

void sm_conn_accepted(struct sm_conn *conn)
{
	int err;

	sm_connset_set_deadline(conn, conn->since_us + conn->set->limits.hello_timeout_us);
	sm_tcp_tune(&conn->tcp);
	err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err)
		sm_conn_fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
}

/* ---- Dialling ---- */

static void on_connect(uv_connect_t *req, int status)
{
	struct sm_conn *conn = req->data;
	struct sm_conn_set *set = conn->set;

	if (conn->state != SM_CONN_CONNECT)
		return;
	if (status == 0)
		status = sm_tcp_local(&conn->tcp, &conn->local);
	if (status < 0) {
		sm_conn_fail(conn, status, SM_CLOSE_NONE, uv_strerror(status), false);
		return;
	}
	sm_tcp_tune(&conn->tcp);
	conn->state = SM_CONN_SHAKE;
	conn->since_us = sm_clock_now_us();
	sm_connset_set_deadline(conn, conn->since_us + set->limits.handshake_timeout_us);
	start_work(conn);
}

int sm_conn_dial(struct sm_conn_set *set, const struct sm_addr *addr, bool narrow, void *owner,
		 struct sm_conn **ret_conn)
{
	struct sm_conn *conn;
	int err;

	if (set->stopping)
		return -ESHUTDOWN;
	err = sm_conn_new(set, true, &conn);
	if (err)
		return err;
	conn->remote = *addr;
	conn->owner = owner;
	conn->connect.data = conn;
	err = sm_tcp_connect(&conn->tcp, &conn->connect, addr,
			     narrow ? SM_PATH_MTU_MIN - IPV6_TCP_HEADERS : 0, on_connect);
	if (err) {
		sm_conn_discard(conn);
		return err;
	}
	conn->state = SM_CONN_CONNECT;
	conn->handed = true;
	conn->since_us = sm_clock_now_us();
	sm_list_add_tail(&set->waiting, &conn->node);
	set->counts.dialled++;
	set->counts.dialling++;
	sm_connset_set_deadline(conn, conn->since_us + set->limits.connect_timeout_us);
	*ret_conn = conn;
	return 0;
}

/* ---- The owner's calls ---- */

int sm_conn_send(struct sm_conn *conn, const void *data, size_t len)
{
	int err;

	if (conn->state != SM_CONN_OPEN)
		return -ENOTCONN;
	if (conn->queued + len > conn->set->limits.output_max)
		return -ENOBUFS;
	err = sm_tls_write(conn->tls, data, len);
	return err ? err : flush(conn);
}

void sm_conn_close(struct sm_conn *conn, bool flush_first)
{
	if (!conn || !conn->handed)
		return;
	conn->handed = false;
	if (!flush_first || conn->state != SM_CONN_OPEN) {
		sm_conn_drop(conn);
		return;
	}
	sm_tls_shutdown(conn->tls);
	linger(conn);
}

void *sm_conn_owner(const struct sm_conn *conn)
{
	return conn->owner;
}

void sm_conn_set_owner(struct sm_conn *conn, void *owner)
{
	conn->owner = owner;
}

bool sm_conn_is_open(const struct sm_conn *conn)
{
	return conn->state == SM_CONN_OPEN;
}

bool sm_conn_is_client(const struct sm_conn *conn)
{
	return conn->client;
}

const struct sm_addr *sm_conn_remote(const struct sm_conn *conn)
{
	return &conn->remote;
}

const struct sm_addr *sm_conn_local(const struct sm_conn *conn)
{
	return &conn->local;
}

size_t sm_conn_queued(const struct sm_conn *conn)
{
	return conn->queued;
}

// SPDX-License-Identifier: MIT
/*
 * Control connections: listeners, admission, handshakes in the thread pool, bytes, deadlines.
 */
#include "daemon/conn.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "io/tcp.h"

#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MS       50u    /* how often deadlines are looked at, while there are any */
#define READ_SIZE      65536u /* bytes of one read from TCP */
#define PLAIN_SIZE     16384u /* bytes of one TLS record */
#define LOG_BURST      10u
#define LOG_PER_MINUTE 30u

enum state {
	STATE_CONNECT,
	STATE_HELLO,
	STATE_SHAKE,
	STATE_OPEN,
	STATE_LINGER,
	STATE_GONE, /* in no list; freed when libuv and the thread pool let go of it */
};

struct sm_conn {
	struct sm_list node; /* in one list of the set, by state */
	struct sm_conn_set *set;
	enum state state;
	bool client;
	bool opened;     /* was in STATE_OPEN */
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

struct listener {
	struct sm_list node;
	struct sm_conn_set *set;
	struct sm_addr addr;
	uv_tcp_t tcp;
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
	uint8_t in[READ_SIZE], plain[PLAIN_SIZE], out[PLAIN_SIZE + 1024];
};

struct write {
	uv_write_t req;
	struct sm_conn *conn;
	size_t len;
	uint8_t data[];
};

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);
static void on_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *ret_buf);
static void set_deadline(struct sm_conn *conn, uint64_t deadline_us);
static void fail(struct sm_conn *conn, int err, enum sm_close_reason reason, const char *text,
		 bool may_linger);

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

static void on_timer_closed(uv_handle_t *handle)
{
	struct sm_conn_set *set = handle->data;

	set->handles--;
}

/* The timer runs while a deadline is set, and goes with the last one when the set stops. */
static void tend_timer(struct sm_conn_set *set)
{
	bool idle = sm_list_empty(&set->unfinished) && sm_list_empty(&set->waiting);

	if (idle && set->stopping && !uv_is_closing((uv_handle_t *)&set->sweep))
		uv_close((uv_handle_t *)&set->sweep, on_timer_closed);
	else if (idle)
		uv_timer_stop(&set->sweep);
}

static void uncount(struct sm_conn *conn)
{
	struct sm_conn_counts *counts = &conn->set->counts;

	if (conn->state == STATE_GONE)
		return;
	if (conn->state == STATE_OPEN)
		counts->open--;
	else if (!conn->client && !conn->opened)
		counts->unfinished--;
	else if (conn->state != STATE_LINGER)
		counts->dialling--;
}

/* Ends at once; what the thread pool still does is for nothing. */
static void drop(struct sm_conn *conn)
{
	if (conn->state == STATE_GONE)
		return;
	uncount(conn);
	conn->handed = false;
	conn->state = STATE_GONE;
	sm_list_del(&conn->node);
	uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
	tend_timer(conn->set);
}

/* ---- Sending ---- */

static void end_sending(struct sm_conn *conn)
{
	if (conn->state != STATE_LINGER || conn->queued > 0 || conn->fin_sent)
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
	if (conn->state == STATE_GONE)
		return;
	if (status < 0)
		fail(conn, status, SM_CLOSE_NONE, uv_strerror(status), false);
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
	conn->state = STATE_LINGER;
	if (!conn->client && !conn->opened) {
		set->counts.unfinished++; /* stays in its list and under its limit */
	} else {
		sm_list_del(&conn->node);
		sm_list_add_tail(&set->waiting, &conn->node);
	}
	set_deadline(conn, sm_clock_now_us() + set->limits.linger_us);
	err = flush(conn);
	if (!err)
		err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err && err != UV_EALREADY)
		drop(conn);
	else
		end_sending(conn);
}

/* ---- Failing ---- */

static void log_refusal(struct sm_conn *conn, enum sm_close_reason reason, const char *text)
{
	struct sm_conn_set *set = conn->set;
	char addr[SM_ADDR_STRLEN], more[48] = "";
	uint32_t suppressed = 0;

	sm_addr_format(&conn->remote, addr);
	if (reason == SM_CLOSE_NONE) { /* a port scan, or a peer that thought better of it */
		sm_debug("control: %s: %s", addr, text);
		return;
	}
	if (!sm_log_allow(&set->log_limit, sm_clock_now_us(), LOG_BURST, LOG_PER_MINUTE,
			  &suppressed))
		return;
	if (suppressed)
		snprintf(more, sizeof(more), " (%u such lines left out)", suppressed);
	sm_warn("control: refused %s: %s%s", addr, text, more);
}

static void fail(struct sm_conn *conn, int err, enum sm_close_reason reason, const char *text,
		 bool may_linger)
{
	struct sm_conn_set *set = conn->set;
	char copy[SM_TLS_ERROR_MAX];
	bool tell = conn->handed;

	if (conn->state == STATE_GONE)
		return;
	if (conn->state == STATE_LINGER) {
		drop(conn);
		return;
	}
	snprintf(copy, sizeof(copy), "%s", text); /* it may lie in what goes now */
	if (!conn->opened && !conn->client) {
		set->counts.refused[reason]++;
		log_refusal(conn, reason, copy);
	} else if (!conn->opened) {
		set->counts.dial_failed++;
	}
	if (may_linger && !conn->busy)
		linger(conn);
	else
		drop(conn);
	if (tell && set->events.on_closed)
		set->events.on_closed(set->arg, conn, err, reason, copy);
}

static void fail_tls(struct sm_conn *conn, int err)
{
	fail(conn, err, sm_tls_close_reason(conn->tls), sm_tls_error(conn->tls), true);
}

static const char *timeout_text(enum state state)
{
	switch (state) {
	case STATE_CONNECT:
		return "no answer to the TCP connection attempt";
	case STATE_HELLO:
		return "no TLS greeting came in time";
	case STATE_SHAKE:
		return "the TLS handshake did not end in time";
	case STATE_OPEN:
	case STATE_LINGER:
	case STATE_GONE:
		break;
	}
	return "timeout";
}

static void sweep_list(struct sm_list *list, uint64_t now_us)
{
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, list)
	{
		struct sm_conn *conn = SM_LIST_ENTRY(node, struct sm_conn, node);

		if (conn->deadline_us > now_us)
			continue;
		fail(conn, -ETIMEDOUT, SM_CLOSE_TIMEOUT, timeout_text(conn->state), false);
		/* the callback may have ended the one that comes next: begin anew */
		after = list->next;
	}
}

static void on_sweep(uv_timer_t *timer)
{
	struct sm_conn_set *set = timer->data;
	uint64_t now_us = sm_clock_now_us();

	sweep_list(&set->unfinished, now_us);
	sweep_list(&set->waiting, now_us);
}

static void set_deadline(struct sm_conn *conn, uint64_t deadline_us)
{
	struct sm_conn_set *set = conn->set;

	conn->deadline_us = deadline_us;
	if (!uv_is_active((uv_handle_t *)&set->sweep))
		uv_timer_start(&set->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

/* ---- Receiving ---- */

static void on_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *ret_buf)
{
	struct sm_conn *conn = handle->data;

	(void)hint;
	*ret_buf = uv_buf_init((char *)conn->set->in, READ_SIZE);
}

/* Hands all plaintext that is there to the owner. */
static void pump(struct sm_conn *conn)
{
	struct sm_conn_set *set = conn->set;
	int n = 0, err;

	while (conn->state == STATE_OPEN) {
		n = sm_tls_read(conn->tls, set->plain, sizeof(set->plain));
		if (n <= 0)
			break;
		if (set->events.on_data)
			set->events.on_data(set->arg, conn, set->plain, (size_t)n);
	}
	if (conn->state != STATE_OPEN)
		return;
	if (n < 0) {
		fail_tls(conn, n);
		return;
	}
	err = flush(conn); /* TLS may have had to answer something */
	if (err)
		fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
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
		fail(conn, -EIO, SM_CLOSE_INTERNAL, "TLS exports no secret", false);
		return;
	}
	uncount(conn);
	conn->state = STATE_OPEN;
	conn->opened = true;
	conn->handed = true;
	conn->deadline_us = SM_NEVER;
	sm_list_del(&conn->node);
	sm_list_add_tail(&set->open, &conn->node);
	tend_timer(set);
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
	if (conn->state == STATE_GONE) {
		conn_free(conn);
		return;
	}
	if (status == 0 && conn->work_result < 0) {
		fail_tls(conn, conn->work_result);
		return;
	}
	err = status ? status : flush(conn);
	if (err) {
		fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
		return;
	}
	if (conn->work_result == 1)
		opened(conn);
	if (conn->state != STATE_OPEN && conn->state != STATE_SHAKE)
		return;
	err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err && err != UV_EALREADY)
		fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
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
		fail(conn, err, SM_CLOSE_INTERNAL, uv_strerror(err), false);
	}
}

static void on_hello_bytes(struct sm_conn *conn)
{
	int done = sm_tls_hello_complete(conn->tls);

	if (done < 0) { /* there is nobody to explain it to */
		fail(conn, -EPROTO, sm_tls_close_reason(conn->tls), sm_tls_error(conn->tls), false);
		return;
	}
	if (done == 0)
		return;
	conn->state = STATE_SHAKE;
	set_deadline(conn, conn->since_us + conn->set->limits.handshake_timeout_us);
	start_work(conn);
}

static void on_end(struct sm_conn *conn, int err)
{
	if (err != UV_EOF)
		fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
	else if (conn->opened)
		fail(conn, -ECONNRESET, SM_CLOSE_NONE,
		     "the peer ended the connection without a word", false);
	else
		fail(conn, -ECONNRESET, SM_CLOSE_NONE, "the peer left during the handshake", false);
}

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct sm_conn *conn = stream->data;
	int err;

	if (conn->state == STATE_GONE || n == 0)
		return;
	if (n < 0) {
		on_end(conn, (int)n);
		return;
	}
	if (conn->state == STATE_LINGER)
		return;
	err = sm_tls_feed(conn->tls, buf->base, (size_t)n);
	if (err) {
		fail(conn, err, SM_CLOSE_PROTOCOL, "more input than TLS can take", false);
		return;
	}
	if (conn->state == STATE_HELLO)
		on_hello_bytes(conn);
	else if (conn->state == STATE_SHAKE)
		start_work(conn);
	else if (conn->state == STATE_OPEN)
		pump(conn);
}

/* ---- Beginning ---- */

static int conn_new(struct sm_conn_set *set, bool client, struct sm_conn **ret_conn)
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

/* ---- Admission ---- */

static bool same_source(const struct sm_addr *a, const struct sm_addr *b)
{
	if (a->family == 6 && b->family == 6)
		return memcmp(a->ip, b->ip, 8) == 0;
	return sm_addr_same_ip(a, b);
}

static bool unspoken(const struct sm_conn *conn)
{
	return conn->state == STATE_HELLO || conn->state == STATE_LINGER;
}

/**
 * struct crowd - The unfinished connections as a newcomer finds them
 * @silent_source, @silent_stranger, @silent: the oldest without a whole ClientHello (or with no more
 *         than last bytes to send) from the newcomer's source, from unknown addresses, from anywhere
 */
struct crowd {
	uint32_t source, strangers, total;
	struct sm_conn *silent_source, *silent_stranger, *silent;
};

static void look_round(const struct sm_conn_set *set, const struct sm_conn *newcomer,
		       struct crowd *ret_crowd)
{
	struct crowd crowd = {0};
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, &set->unfinished)
	{
		struct sm_conn *conn = SM_LIST_ENTRY(node, struct sm_conn, node);
		bool near = same_source(&conn->remote, &newcomer->remote);

		crowd.total++;
		crowd.source += near;
		crowd.strangers += !conn->known;
		if (!unspoken(conn))
			continue;
		if (!crowd.silent)
			crowd.silent = conn;
		if (near && !crowd.silent_source)
			crowd.silent_source = conn;
		if (!conn->known && !crowd.silent_stranger)
			crowd.silent_stranger = conn;
	}
	*ret_crowd = crowd;
}

/*
 * May the newcomer stay? Who has said nothing makes room for who may; a handshake under way does not.
 * Return: true if so
 */
static bool admit(struct sm_conn_set *set, struct sm_conn *newcomer)
{
	const struct sm_conn_limits *limits = &set->limits;
	uint32_t for_strangers = limits->unfinished_max -
				 (uint32_t)((uint64_t)limits->unfinished_max *
					    limits->reserved_percent / 100);

	for (;;) {
		struct sm_conn *victim;
		struct crowd crowd;

		look_round(set, newcomer, &crowd);
		if (crowd.source >= limits->unfinished_per_source)
			victim = crowd.silent_source;
		else if (!newcomer->known && crowd.strangers >= for_strangers)
			victim = crowd.silent_stranger;
		else if (crowd.total >= limits->unfinished_max)
			victim = crowd.silent_stranger ? crowd.silent_stranger
				 : newcomer->known     ? crowd.silent
						       : NULL;
		else
			return true;
		if (!victim)
			return false;
		fail(victim, -EUSERS, SM_CLOSE_LIMIT,
		     "too many unfinished connections; the oldest silent one makes room", false);
	}
}

static void on_connection(uv_stream_t *server, int status)
{
	struct listener *listener = server->data;
	struct sm_conn_set *set = listener->set;
	struct sm_conn *conn = NULL;
	bool welcome;
	int err = status;

	if (!err)
		err = conn_new(set, false, &conn);
	if (err) {
		set->counts.accept_errors++;
		if (sm_log_allow(&set->error_limit, sm_clock_now_us(), 1, 1, NULL))
			sm_error("control: cannot accept a connection: %s", uv_strerror(err));
		return;
	}
	err = uv_accept(server, (uv_stream_t *)&conn->tcp);
	if (!err)
		err = sm_tcp_remote(&conn->tcp, &conn->remote);
	if (!err)
		err = sm_tcp_local(&conn->tcp, &conn->local);
	if (err) { /* it left while it waited */
		conn->state = STATE_GONE;
		uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
		return;
	}
	set->counts.accepted++;
	conn->known = set->events.known && set->events.known(set->arg, &conn->remote);
	welcome = admit(set, conn);
	conn->state = STATE_HELLO;
	conn->since_us = sm_clock_now_us();
	sm_list_add_tail(&set->unfinished, &conn->node);
	set->counts.unfinished++;
	if (!welcome) {
		fail(conn, -EUSERS, SM_CLOSE_LIMIT, "too many unfinished connections", false);
		return;
	}
	set_deadline(conn, conn->since_us + set->limits.hello_timeout_us);
	sm_tcp_tune(&conn->tcp);
	err = uv_read_start((uv_stream_t *)&conn->tcp, on_buffer, on_bytes);
	if (err)
		fail(conn, err, SM_CLOSE_NONE, uv_strerror(err), false);
}

/* ---- Dialling ---- */

static void on_connect(uv_connect_t *req, int status)
{
	struct sm_conn *conn = req->data;
	struct sm_conn_set *set = conn->set;

	if (conn->state != STATE_CONNECT)
		return;
	if (status == 0)
		status = sm_tcp_local(&conn->tcp, &conn->local);
	if (status < 0) {
		fail(conn, status, SM_CLOSE_NONE, uv_strerror(status), false);
		return;
	}
	sm_tcp_tune(&conn->tcp);
	conn->state = STATE_SHAKE;
	conn->since_us = sm_clock_now_us();
	set_deadline(conn, conn->since_us + set->limits.handshake_timeout_us);
	start_work(conn);
}

int sm_conn_dial(struct sm_conn_set *set, const struct sm_addr *addr, void *owner,
		 struct sm_conn **ret_conn)
{
	struct sm_conn *conn;
	int err;

	if (set->stopping)
		return -ESHUTDOWN;
	err = conn_new(set, true, &conn);
	if (err)
		return err;
	conn->remote = *addr;
	conn->owner = owner;
	conn->connect.data = conn;
	err = sm_tcp_connect(&conn->tcp, &conn->connect, addr, on_connect);
	if (err) {
		conn->state = STATE_GONE;
		uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
		return err;
	}
	conn->state = STATE_CONNECT;
	conn->handed = true;
	conn->since_us = sm_clock_now_us();
	sm_list_add_tail(&set->waiting, &conn->node);
	set->counts.dialled++;
	set->counts.dialling++;
	set_deadline(conn, conn->since_us + set->limits.connect_timeout_us);
	*ret_conn = conn;
	return 0;
}

/* ---- The owner's calls ---- */

int sm_conn_send(struct sm_conn *conn, const void *data, size_t len)
{
	int err;

	if (conn->state != STATE_OPEN)
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
	if (!flush_first || conn->state != STATE_OPEN) {
		drop(conn);
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
	return conn->state == STATE_OPEN;
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

/* ---- Listeners and the set ---- */

static void on_listener_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;

	listener->set->handles--;
	free(listener);
}

static void listener_close(struct listener *listener)
{
	sm_list_del(&listener->node);
	uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
}

int sm_conn_listen(struct sm_conn_set *set, const struct sm_addr *addr, struct sm_addr *ret_bound)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int err;

	if (!listener)
		return -ENOMEM;
	listener->set = set;
	sm_list_init(&listener->node);
	err = uv_tcp_init(set->loop, &listener->tcp);
	if (err) {
		free(listener);
		return err;
	}
	set->handles++;
	listener->tcp.data = listener;
	err = sm_tcp_listen(&listener->tcp, addr, on_connection);
	if (!err)
		err = sm_tcp_local(&listener->tcp, &listener->addr);
	if (err) {
		listener_close(listener);
		return err;
	}
	sm_list_add_tail(&set->listeners, &listener->node);
	if (ret_bound)
		*ret_bound = listener->addr;
	return 0;
}

int sm_conn_unlisten(struct sm_conn_set *set, const struct sm_addr *addr)
{
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, &set->listeners)
	{
		struct listener *listener = SM_LIST_ENTRY(node, struct listener, node);

		if (!sm_addr_equal(&listener->addr, addr))
			continue;
		listener_close(listener);
		return 0;
	}
	return -ENOENT;
}

static struct sm_conn_limits with_defaults(const struct sm_conn_limits *given)
{
	struct sm_conn_limits l = given ? *given : (struct sm_conn_limits){0};

	l.unfinished_max = l.unfinished_max ? l.unfinished_max : 256;
	l.unfinished_per_source = l.unfinished_per_source ? l.unfinished_per_source : 8;
	l.reserved_percent = l.reserved_percent ? SM_MIN(l.reserved_percent, 100u) : 25;
	l.output_max = l.output_max ? l.output_max : 1024 * 1024;
	l.connect_timeout_us = l.connect_timeout_us ? l.connect_timeout_us : 2 * SM_SEC_US;
	l.hello_timeout_us = l.hello_timeout_us ? l.hello_timeout_us : 3 * SM_SEC_US;
	l.handshake_timeout_us = l.handshake_timeout_us ? l.handshake_timeout_us : 5 * SM_SEC_US;
	l.linger_us = l.linger_us ? l.linger_us : SM_SEC_US;
	return l;
}

int sm_conn_set_new(uv_loop_t *loop, struct sm_tls_config *config,
		    const struct sm_conn_limits *limits, const struct sm_conn_events *events,
		    void *arg, struct sm_conn_set **ret_set)
{
	struct sm_conn_set *set = calloc(1, sizeof(*set));
	int err;

	if (!set)
		return -ENOMEM;
	err = uv_timer_init(loop, &set->sweep);
	if (err) {
		free(set);
		return err;
	}
	set->sweep.data = set;
	set->handles = 1;
	set->loop = loop;
	set->config = sm_tls_config_ref(config);
	set->limits = with_defaults(limits);
	set->events = *events;
	set->arg = arg;
	sm_list_init(&set->listeners);
	sm_list_init(&set->unfinished);
	sm_list_init(&set->waiting);
	sm_list_init(&set->open);
	*ret_set = set;
	return 0;
}

void sm_conn_set_config(struct sm_conn_set *set, struct sm_tls_config *config)
{
	struct sm_tls_config *old = set->config;

	set->config = sm_tls_config_ref(config);
	sm_tls_config_unref(old);
}

static void drop_list(struct sm_list *list)
{
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, list)
	{
		struct sm_conn *conn = SM_LIST_ENTRY(node, struct sm_conn, node);

		if (conn->state != STATE_LINGER)
			drop(conn);
	}
}

void sm_conn_set_stop(struct sm_conn_set *set)
{
	struct sm_list *node, *after;

	if (set->stopping)
		return;
	set->stopping = true;
	sm_list_for_each_safe(node, after, &set->listeners)
		listener_close(SM_LIST_ENTRY(node, struct listener, node));
	drop_list(&set->unfinished);
	drop_list(&set->waiting);
	drop_list(&set->open);
	tend_timer(set);
}

void sm_conn_set_free(struct sm_conn_set *set)
{
	if (!set)
		return;
	assert(set->handles == 0);
	sm_tls_config_unref(set->config);
	sm_wipe(set->plain, sizeof(set->plain));
	free(set);
}

const struct sm_conn_counts *sm_conn_set_counts(const struct sm_conn_set *set)
{
	return &set->counts;
}

// SPDX-License-Identifier: MIT
/*
 * The set of control connections: listeners, who may come in, deadlines.
 */
#include "daemon/connset.h"

#include "base/clock.h"
#include "io/tcp.h"

#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MS       50u /* how often deadlines are looked at, while there are any */
#define LOG_BURST      10u
#define LOG_PER_MINUTE 30u

struct listener {
	struct sm_list node;
	struct sm_conn_set *set;
	struct sm_addr addr;
	bool owed; /* libuv holds a connection, and accepts no other before we take it */
	uv_tcp_t tcp;
};

static void on_connection(uv_stream_t *server, int status);

/* ---- Deadlines and the log ---- */

static void on_timer_closed(uv_handle_t *handle)
{
	struct sm_conn_set *set = handle->data;

	set->handles--;
}

static bool anyone_owed(const struct sm_conn_set *set)
{
	const struct sm_list *node;

	for (node = set->listeners.next; node != &set->listeners; node = node->next)
		if (SM_LIST_ENTRY(node, const struct listener, node)->owed)
			return true;
	return false;
}

/*
 * The timer runs while a deadline is set or a connection could not be taken, and goes with the last one when
 * the set stops.
 */
void sm_connset_tend(struct sm_conn_set *set)
{
	bool idle = sm_list_empty(&set->unfinished) && sm_list_empty(&set->waiting) &&
		    !anyone_owed(set);

	if (idle && set->stopping && !uv_is_closing((uv_handle_t *)&set->sweep))
		uv_close((uv_handle_t *)&set->sweep, on_timer_closed);
	else if (idle)
		uv_timer_stop(&set->sweep);
}

static const char *timeout_text(enum sm_conn_state state)
{
	switch (state) {
	case SM_CONN_CONNECT:
		return "no answer to the TCP connection attempt";
	case SM_CONN_HELLO:
		return "no TLS greeting came in time";
	case SM_CONN_SHAKE:
		return "the TLS handshake did not end in time";
	case SM_CONN_OPEN:
	case SM_CONN_LINGER:
	case SM_CONN_GONE:
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
		sm_conn_fail(conn, -ETIMEDOUT, SM_CLOSE_TIMEOUT, timeout_text(conn->state), false);
		/* the callback may have ended the one that comes next: begin anew */
		after = list->next;
	}
}

static void take_owed(struct sm_conn_set *set)
{
	struct sm_list *node, *after;

	sm_list_for_each_safe(node, after, &set->listeners)
	{
		struct listener *listener = SM_LIST_ENTRY(node, struct listener, node);

		if (listener->owed)
			on_connection((uv_stream_t *)&listener->tcp, 0);
	}
	sm_connset_tend(set);
}

static void on_sweep(uv_timer_t *timer)
{
	struct sm_conn_set *set = timer->data;
	uint64_t now_us = sm_clock_now_us();

	sweep_list(&set->unfinished, now_us);
	sweep_list(&set->waiting, now_us);
	take_owed(set);
}

static void sweep_start(struct sm_conn_set *set)
{
	if (!uv_is_active((uv_handle_t *)&set->sweep))
		uv_timer_start(&set->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

void sm_connset_set_deadline(struct sm_conn *conn, uint64_t deadline_us)
{
	conn->deadline_us = deadline_us;
	sweep_start(conn->set);
}

void sm_connset_log_refusal(struct sm_conn *conn, enum sm_close_reason reason, const char *text)
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
			  &suppressed)) {
		sm_debug("control: refused %s: %s", addr, text); /* who asks for all gets all */
		return;
	}
	if (suppressed)
		snprintf(more, sizeof(more), " (%u such lines left out)", suppressed);
	sm_warn("control: refused %s: %s%s", addr, text, more);
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
	return conn->state == SM_CONN_HELLO || conn->state == SM_CONN_LINGER;
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
		sm_conn_fail(victim, -EUSERS, SM_CLOSE_LIMIT,
			     "too many unfinished connections; the oldest silent one makes room",
			     false);
	}
}

static void on_connection(uv_stream_t *server, int status)
{
	struct listener *listener = server->data;
	struct sm_conn_set *set = listener->set;
	struct sm_conn *conn = NULL;
	bool welcome;
	int err = status;

	if (!err) {
		err = sm_conn_new(set, false, &conn);
		listener->owed = err;
	}
	if (err) {
		if (listener->owed)
			sweep_start(set);
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
		sm_conn_discard(conn);
		return;
	}
	set->counts.accepted++;
	conn->known = set->events.known && set->events.known(set->arg, &conn->remote);
	welcome = admit(set, conn);
	conn->state = SM_CONN_HELLO;
	conn->since_us = sm_clock_now_us();
	sm_list_add_tail(&set->unfinished, &conn->node);
	set->counts.unfinished++;
	if (welcome)
		sm_conn_accepted(conn);
	else
		sm_conn_fail(conn, -EUSERS, SM_CLOSE_LIMIT, "too many unfinished connections",
			     false);
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

		if (conn->state != SM_CONN_LINGER)
			sm_conn_drop(conn);
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
	sm_connset_tend(set);
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

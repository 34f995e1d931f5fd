// SPDX-License-Identifier: MIT
/*
 * Connections: two ends, each with a queue of chunks on their way to it. Bytes keep their order; a cut
 * holds them back as TCP's retransmissions would. What an end was sent before it broke or closed may
 * arrive or not, as with a reset.
 */
#include "conn.h"

#include <stdlib.h>

#define DIAL_TIMEOUT_US (2 * SM_SEC_US)
#define RETRY_US        (200 * SM_MSEC_US)
#define QUEUE_MAX       (256u << 10)

struct chunk {
	struct chunk *next;
	uint64_t at_us;
	bool end; /* the connection is closed behind what came before */
	size_t len;
	uint8_t data[];
};

struct end {
	struct sim_conn *conn;
	uint32_t node, life;
	uint16_t dialled;
	bool up;     /* TLS is through on this side */
	bool closed; /* by the node, or it was told */
	struct sm_link *link;
	struct chunk *first, **last; /* towards this end */
	size_t queued;
	uint64_t last_at_us;
	bool pumping;
};

struct sim_conn {
	struct sim_conn *next;
	struct sim_world *w;
	struct end end[2]; /* 0: the TLS client */
	struct sm_addr addr[2];
	uint8_t root[SM_ROOT_SECRET_LEN];
};

static struct end *other(struct end *e)
{
	return e == &e->conn->end[0] ? &e->conn->end[1] : &e->conn->end[0];
}

static struct sim_node *node_of(const struct end *e)
{
	struct sim_node *n = &e->conn->w->node[e->node];

	return n->core && n->life == e->life ? n : NULL;
}

static uint64_t travel_us(struct sim_world *w)
{
	return w->net.delay_us + (w->net.jitter_us ? rng_u64(&w->rng) % w->net.jitter_us : 0);
}

/* A node that has moved is not where its connections lead. */
static bool is_cut(const struct sim_conn *c)
{
	for (int i = 0; i < 2; i++)
		if (!sm_addr_same_ip(&c->addr[i], &c->w->node[c->end[i].node].visible))
			return true;
	return c->w->tcp_cut[c->end[0].node][c->end[1].node];
}

static void break_end(struct end *e, uint64_t delay_us);

/* -- delivery -- */

static void lose(struct end *e, const char *text)
{
	struct sim_node *n = node_of(e);
	struct sm_link *link = e->link;

	if (e->closed)
		return;
	e->closed = true;
	e->link = NULL;
	if (!n || !link)
		return;
	sm_node_on_link_lost(n->core, link, text, n->w->now_us);
	sim_kick(n);
}

static void deliver(struct end *e, const struct chunk *c)
{
	struct sim_node *n = node_of(e);

	if (!n && e->conn->w->node[e->node].core) /* it lives again and knows nothing of this */
		break_end(other(e), travel_us(e->conn->w));
	if (e->closed || !n)
		return;
	if (c->end) {
		lose(e, "the connection was closed");
		return;
	}
	if (!e->link)
		return;
	/* as TCP does: in pieces of any size */
	for (size_t at = 0; at < c->len && e->link && !e->closed;) {
		const size_t piece = 1 + rng_below(&e->conn->w->rng, 2000),
			     take = SM_MIN(c->len - at, piece);

		sm_node_on_link_data(n->core, e->link, c->data + at, take, n->w->now_us);
		at += take;
	}
	sim_kick(n);
}

static void pump(struct sim_world *w, struct sim_event *event)
{
	struct end *e = event->a;

	e->pumping = false;
	if (e->first && is_cut(e->conn)) {
		e->pumping = true;
		sim_event_new(w, RETRY_US, pump, 0)->a = e;
		return;
	}
	while (e->first && e->first->at_us <= w->now_us) {
		struct chunk *c = e->first;

		e->first = c->next;
		if (!e->first)
			e->last = &e->first;
		e->queued -= c->len;
		deliver(e, c);
		free(c);
	}
	if (e->first && !e->pumping) {
		e->pumping = true;
		sim_event_new(w, e->first->at_us - w->now_us, pump, 0)->a = e;
	}
}

static void enqueue(struct end *to, const void *data, size_t len, bool end)
{
	struct sim_world *w = to->conn->w;
	struct chunk *c = calloc(1, sizeof(*c) + len);

	assert(c);
	c->at_us = w->now_us + travel_us(w);
	if (c->at_us < to->last_at_us)
		c->at_us = to->last_at_us;
	to->last_at_us = c->at_us;
	c->end = end;
	c->len = len;
	if (len)
		memcpy(c->data, data, len);
	*to->last = c;
	to->last = &c->next;
	to->queued += len;
	if (!to->pumping) {
		to->pumping = true;
		sim_event_new(w, to->first->at_us - w->now_us, pump, 0)->a = to;
	}
}

int sim_conn_send(void *host, void *conn, const void *data, size_t len)
{
	struct sim_node *n = host;
	struct end *e = conn;

	assert(!e->closed);
	n->counts.conn_messages++;
	n->counts.conn_bytes += len;
	if (n->mute)
		return 0;
	if (other(e)->queued + len > QUEUE_MAX)
		return -ENOBUFS;
	enqueue(other(e), data, len, false);
	return 0;
}

void sim_conn_close(void *host, void *conn)
{
	struct sim_node *n = host;
	struct end *e = conn;

	assert(!e->closed);
	e->closed = true;
	e->link = NULL;
	if (!n->mute)
		enqueue(other(e), NULL, 0, true);
	else if (!n->dark)
		break_end(other(e), 3 * travel_us(n->w));
}

/* -- opening -- */

static void open_end(struct sim_world *w, struct sim_event *event)
{
	struct end *e = event->a;
	struct sim_node *n = node_of(e);
	const uint32_t peer = other(e)->node;

	if (e->closed || !n)
		return;
	e->up = true;
	e->link = NULL;
	if (n->revoked == peer + 1) {
		e->closed = true;
		enqueue(other(e), NULL, 0, true);
		if (e->dialled != SM_PORT_NONE)
			sm_node_on_dial_failed(n->core, e->dialled, SM_CLOSE_REVOKED, "revoked",
					       w->now_us);
		sim_kick(n);
		return;
	}
	struct sm_link *link = sm_node_on_link_open(n->core, e, e->dialled,
						    &w->node[peer].config.self,
						    &e->conn->addr[e == &e->conn->end[0]],
						    e->conn->root, w->now_us);

	if (!e->closed)
		e->link = link;
	else
		assert(!link);
	sim_kick(n);
}

static struct sim_node *listener_at(struct sim_world *w, const struct sm_addr *to)
{
	for (uint32_t i = 0; i < w->nodes; i++) {
		struct sim_node *n = &w->node[i];

		if (sm_addr_same_ip(&n->visible, to) && to->port == SM_CONTROL_PORT &&
		    !n->behind_nat)
			return n;
	}
	return NULL;
}

static void dial_failed(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = &w->node[e->node];

	if (!n->core || n->life != e->life)
		return;
	sm_node_on_dial_failed(n->core, (uint16_t)e->n, SM_CLOSE_NONE, "cannot connect", w->now_us);
	sim_kick(n);
}

static void dialled(struct sim_world *w, struct sim_event *event)
{
	struct sim_node *n = &w->node[event->node], *server = listener_at(w, &event->to);
	struct sim_conn *c;
	uint64_t open_us;

	if (!n->core || n->life != event->life)
		return;
	if (!server || !server->core || w->tcp_cut[n->id][server->id]) {
		const bool refused = server && !w->tcp_cut[n->id][server->id];
		struct sim_event *e = sim_event_new(w, refused ? travel_us(w) : DIAL_TIMEOUT_US,
						    dial_failed, 0);

		e->node = n->id;
		e->life = n->life;
		e->n = event->n;
		return;
	}
	c = calloc(1, sizeof(*c));
	assert(c);
	c->w = w;
	c->next = w->conns;
	w->conns = c;
	w->conn_count++;
	rng_fill(&w->rng, c->root, sizeof(c->root));
	for (int i = 0; i < 2; i++) {
		const struct sim_node *at = i ? server : n;

		c->end[i] = (struct end){
			.conn = c,
			.node = at->id,
			.life = at->life,
			.dialled = i ? SM_PORT_NONE : (uint16_t)event->n,
		};
		c->end[i].last = &c->end[i].first;
		c->addr[i] = at->visible;
		c->addr[i].port = i ? SM_CONTROL_PORT
				    : (uint16_t)(32768 + rng_below(&w->rng, 20000));
		open_us = travel_us(w) * (i ? 3 : 2);
		c->end[i].last_at_us = w->now_us + open_us;
		sim_event_new(w, open_us, open_end, 0)->a = &c->end[i];
	}
}

int sim_conn_dial(void *host, uint16_t port, const struct sm_addr *to)
{
	struct sim_node *n = host;
	struct sim_event *e = sim_event_new(n->w, travel_us(n->w), dialled, 0);

	e->node = n->id;
	e->life = n->life;
	e->n = port;
	e->to = *to;
	n->counts.dials++;
	return 0;
}

/* -- breaking -- */

static void broken(struct sim_world *w, struct sim_event *e)
{
	struct end *end = e->a;
	struct sim_node *n = node_of(end);

	(void)w;
	/* a handshake that was under way fails */
	if (n && !end->closed && !end->up && end->dialled != SM_PORT_NONE) {
		end->closed = true;
		sm_node_on_dial_failed(n->core, end->dialled, SM_CLOSE_NONE, "connection reset",
				       w->now_us);
		sim_kick(n);
		return;
	}
	lose(end, "connection reset");
}

static void break_end(struct end *e, uint64_t delay_us)
{
	sim_event_new(e->conn->w, delay_us, broken, 0)->a = e;
}

void sim_break(struct sim_world *w, uint32_t a, uint32_t b)
{
	for (struct sim_conn *c = w->conns; c; c = c->next) {
		const uint32_t x = c->end[0].node, y = c->end[1].node;

		if ((x == a && y == b) || (x == b && y == a)) {
			break_end(&c->end[0], rng_u64(&w->rng) % (50 * SM_MSEC_US));
			break_end(&c->end[1], rng_u64(&w->rng) % (50 * SM_MSEC_US));
		}
	}
}

void sim_conn_node_gone(struct sim_world *w, uint32_t id, bool resets)
{
	for (struct sim_conn *c = w->conns; c; c = c->next) {
		for (int i = 0; i < 2; i++) {
			if (c->end[i].node != id || c->end[i].closed)
				continue;
			c->end[i].closed = true;
			if (resets)
				break_end(&c->end[!i], 3 * travel_us(w));
		}
	}
}

void sim_conn_free_all(struct sim_world *w)
{
	while (w->conns) {
		struct sim_conn *c = w->conns;

		w->conns = c->next;
		for (int i = 0; i < 2; i++)
			while (c->end[i].first) {
				struct chunk *next = c->end[i].first->next;

				free(c->end[i].first);
				c->end[i].first = next;
			}
		free(c);
	}
}

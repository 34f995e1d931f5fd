// SPDX-License-Identifier: MIT
/*
 * A node's host for tests that play its peer: keeps what the node says, counts what it asks for, answers
 * nothing by itself. The test advances the time.
 */
#ifndef SM_TESTS_HOST_H
#define SM_TESTS_HOST_H

#include "core/node.h"
#include "rng.h"

#define HOST_CONNS 8u

struct host_conn {
	struct sm_link *link; /* NULL: refused */
	bool closed;          /* by the node, or lost */
	size_t len;
	uint8_t sent[4096]; /* by the node */
};

struct host {
	struct sm_node *node;
	struct rng rng;
	uint64_t now_us;
	struct host_conn conn[HOST_CONNS];
	struct sm_snapshot *picture, *old;
	uint32_t dials, resolves, datagrams;
	uint32_t largest; /* datagram, bytes */
	uint32_t batches; /* messages of several datagrams */
	int resolve_err;  /* what looking up ends with */
	uint32_t events[SM_NODE_EVENT_COUNT];
	struct sm_identity id; /* the peer's */
};

static inline int host_dial(void *host, uint16_t port, const struct sm_addr *to)
{
	(void)port;
	(void)to;
	((struct host *)host)->dials++;
	return 0;
}

static inline int host_resolve(void *host, uint16_t port)
{
	struct host *h = host;

	(void)port;
	h->resolves++;
	return h->resolve_err;
}

static inline int host_conn_send(void *host, void *conn, const void *data, size_t len)
{
	struct host_conn *c = conn;

	(void)host;
	assert(!c->closed);
	if (c->len + len > sizeof(c->sent))
		return -ENOBUFS;
	memcpy(c->sent + c->len, data, len);
	c->len += len;
	return 0;
}

static inline void host_conn_close(void *host, void *conn)
{
	struct host_conn *c = conn;

	(void)host;
	assert(!c->closed);
	c->closed = true;
}

static inline int host_datagram(void *host, const struct sm_addr *to, const struct sm_addr *from,
				const void *data, size_t len)
{
	struct host *h = host;

	(void)to;
	(void)from;
	(void)data;
	h->datagrams++;
	h->largest = SM_MAX(h->largest, (uint32_t)len);
	return 0;
}

static inline int host_datagrams(void *host, const struct sm_addr *to, const struct sm_addr *from,
				 const void *data, size_t len, size_t segment)
{
	(void)to;
	(void)from;
	(void)data;
	assert(segment && len == SM_BATCH_PROBES * segment);
	((struct host *)host)->batches++;
	return 0;
}

/* The one before goes one picture later, as with a slow worker. */
static inline void host_publish(void *host, struct sm_snapshot *snapshot)
{
	struct host *h = host;

	if (h->old)
		sm_node_on_retired(h->node, h->old);
	h->old = h->picture;
	h->picture = snapshot;
}

static inline uint32_t host_route_mtu(void *host, const struct sm_addr *to)
{
	(void)host;
	(void)to;
	return 1500;
}

static inline void host_random(void *host, void *buf, size_t len)
{
	rng_fill(&((struct host *)host)->rng, buf, len);
}

static inline void host_event(void *host, const struct sm_node_event *event)
{
	((struct host *)host)->events[event->type]++;
}

/* Of the two, the one whose name comes first in the alphabet has the lower node id. */
static inline void host_identity(const char *name, struct sm_identity *ret_id)
{
	*ret_id = (struct sm_identity){.not_before = 1000};
	strcpy(ret_id->name, name);
	memset(ret_id->node_id, name[0], sizeof(ret_id->node_id));
	memset(ret_id->fingerprint, name[0], sizeof(ret_id->fingerprint));
}

/* A node called "self"; its peer will be "peer" */
static inline struct host *host_new(uint8_t ciphers)
{
	static const struct sm_node_ops ops = {
		.dial = host_dial,
		.resolve = host_resolve,
		.conn_send = host_conn_send,
		.conn_close = host_conn_close,
		.datagram = host_datagram,
		.datagrams = host_datagrams,
		.publish = host_publish,
		.route_mtu = host_route_mtu,
		.random = host_random,
		.event = host_event,
	};
	struct sm_node_config config = {
		.mode = SM_MODE_TAP,
		.workers = 1,
		.mtu = 1500,
		.data_port = SM_DATA_PORT,
		.control_port = SM_CONTROL_PORT,
		.ciphers = ciphers,
		.rekey_after_us = SM_REKEY_AFTER_US,
		.keepalive_us = SM_KEEPALIVE_US,
		.max_peers = 16,
		.batches = true,
	};
	struct host *h = calloc(1, sizeof(*h));

	if (!h)
		abort();
	h->now_us = 1000 * SM_SEC_US;
	host_identity("self", &config.self);
	host_identity("peer", &h->id);
	if (sm_node_new(&config, &ops, h, h->now_us, &h->node))
		abort();
	return h;
}

static inline void host_free(struct host *h)
{
	sm_node_shutdown(h->node, h->now_us);
	if (h->old)
		sm_node_on_retired(h->node, h->old);
	if (h->picture)
		sm_node_on_retired(h->node, h->picture);
	sm_node_free(h->node);
	free(h);
}

static inline struct sm_addr host_address(uint8_t last, uint16_t port)
{
	const uint8_t ip[4] = {192, 0, 2, last};
	struct sm_addr a;

	if (sm_addr_from_ip(4, ip, port, &a))
		abort();
	return a;
}

/* The peer, at 192.0.2.1, is authenticated on connection @n. */
static inline struct sm_link *host_open(struct host *h, uint32_t n, bool dialled)
{
	static const uint8_t root[SM_ROOT_SECRET_LEN];
	const struct sm_peer *peer = sm_node_find_peer(h->node, "peer");
	const struct sm_addr remote = host_address(1, 1234);
	struct host_conn *c = &h->conn[n];
	struct sm_peer_info info = {.port = SM_PORT_NONE};

	if (dialled && peer)
		sm_peer_info(h->node, peer, &info);
	c->closed = false;
	c->len = 0;
	c->link = sm_node_on_link_open(h->node, c, info.port, &h->id, &remote, root, h->now_us);
	return c->link;
}

static inline void host_feed(struct host *h, uint32_t n, const void *data, size_t len)
{
	if (h->conn[n].link && !h->conn[n].closed)
		sm_node_on_link_data(h->node, h->conn[n].link, data, len, h->now_us);
}

#endif

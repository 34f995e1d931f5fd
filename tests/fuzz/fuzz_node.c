// SPDX-License-Identifier: MIT
/*
 * A node under what an authenticated peer may send: any bytes on two connections, any messages on the
 * control stream, any sealed control packets, with time passing and connections breaking in between.
 *
 * The input is a row of commands: opcode (8), length (8), that many bytes. It must not reach an assertion,
 * make the node grow, or leave a deadline in the past.
 */
#include "core/peer.h"

#include <stdlib.h>

#define CONNS 2u

struct conn {
	struct sm_link *link;
	bool closed;
};

struct host {
	struct sm_node *node;
	uint64_t now_us, random;
	struct conn conn[CONNS];
	struct sm_snapshot *picture, *old;
	uint32_t offset; /* of the stream that we send */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int op_dial(void *host, uint16_t port, const struct sm_addr *to)
{
	(void)host;
	(void)port;
	(void)to;
	return 0;
}

static void op_resolve(void *host, uint16_t port)
{
	(void)host;
	(void)port;
}

static int op_conn_send(void *host, void *conn, const void *data, size_t len)
{
	(void)host;
	(void)data;
	(void)len;
	assert(!((struct conn *)conn)->closed);
	return 0;
}

static void op_conn_close(void *host, void *conn)
{
	(void)host;
	assert(!((struct conn *)conn)->closed);
	((struct conn *)conn)->closed = true;
}

static int op_datagram(void *host, const struct sm_addr *to, const struct sm_addr *from,
		       const void *data, size_t len)
{
	(void)host;
	(void)to;
	(void)from;
	(void)data;
	(void)len;
	return 0;
}

/* The one before goes one picture later, as with a slow worker. */
static void op_publish(void *host, struct sm_snapshot *snapshot)
{
	struct host *h = host;

	if (h->old)
		sm_node_on_retired(h->node, h->old);
	h->old = h->picture;
	h->picture = snapshot;
}

static uint32_t op_route_mtu(void *host, const struct sm_addr *to)
{
	(void)host;
	(void)to;
	return 1500;
}

static void op_random(void *host, void *buf, size_t len)
{
	struct host *h = host;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] =
			(uint8_t)(h->random = h->random * UINT64_C(6364136223846793005) + 1) >> 1;
}

static void op_event(void *host, const struct sm_node_event *event)
{
	(void)host;
	(void)event;
}

static void make_identity(const char *name, struct sm_identity *ret_id)
{
	*ret_id = (struct sm_identity){.not_before = 1000};
	strcpy(ret_id->name, name);
	memset(ret_id->node_id, name[0], sizeof(ret_id->node_id));
	memset(ret_id->fingerprint, name[0], sizeof(ret_id->fingerprint));
}

static struct sm_addr address(uint8_t n)
{
	const uint8_t ip[4] = {192, 0, 2, n};
	struct sm_addr a;

	if (sm_addr_from_ip(4, ip, SM_DATA_PORT, &a))
		abort();
	return a;
}

static void start(struct host *h)
{
	static const struct sm_node_ops ops = {
		.dial = op_dial,
		.resolve = op_resolve,
		.conn_send = op_conn_send,
		.conn_close = op_conn_close,
		.datagram = op_datagram,
		.publish = op_publish,
		.route_mtu = op_route_mtu,
		.random = op_random,
		.event = op_event,
	};
	const struct sm_peer_config peer = {.name = "peer", .has_endpoints = true};
	struct sm_node_config config = {
		.mode = SM_MODE_TAP,
		.workers = 1,
		.mtu = 1500,
		.data_port = SM_DATA_PORT,
		.control_port = SM_CONTROL_PORT,
		.ciphers = 3,
		.rekey_after_us = SM_REKEY_AFTER_US,
		.keepalive_us = SM_KEEPALIVE_US,
		.max_peers = 4,
	};

	make_identity("self", &config.self);
	h->now_us = 1000 * SM_SEC_US;
	if (sm_node_new(&config, &ops, h, h->now_us, &h->node) ||
	    sm_node_set_peers(h->node, &peer, 1, h->now_us))
		abort();
}

static void finish(struct host *h)
{
	sm_node_shutdown(h->node, h->now_us);
	if (h->old)
		sm_node_on_retired(h->node, h->old);
	if (h->picture)
		sm_node_on_retired(h->node, h->picture);
	sm_node_free(h->node);
}

static void open_link(struct host *h, struct conn *c, bool dialled)
{
	static const uint8_t root[SM_ROOT_SECRET_LEN];
	struct sm_identity id;
	const struct sm_addr remote = address(1);

	if (c->link && !c->closed)
		return;
	make_identity("peer", &id);
	c->closed = false;
	c->link = sm_node_on_link_open(h->node, c, dialled ? 1 : SM_PORT_NONE, &id, &remote, root,
				       h->now_us);
}

static struct sm_session *session_at(const struct host *h, uint8_t n)
{
	return h->node->session_slots ? h->node->sessions[n % h->node->session_slots] : NULL;
}

/* Bytes of the stream in the right place, so that they reach the messages behind it. */
static void stream(struct host *h, struct sm_session *s, const uint8_t *data, size_t len)
{
	const struct sm_addr from = address(1), to = address(2);
	uint8_t body[SM_STREAM_HEADER_LEN + 256];
	const struct sm_segment segment = {
		.offset = s->stream.rx_next, .acked = s->stream.acked, .data = data, .len = len};

	sm_node_on_control_packet(h->node, s->config.index, SM_KIND_STREAM, body,
				  sm_segment_encode(&segment, body), &from, &to, h->now_us);
}

static void link_data(struct host *h, struct conn *c, const uint8_t *data, size_t len)
{
	if (c->link && !c->closed)
		sm_node_on_link_data(h->node, c->link, data, len, h->now_us);
}

static void pass_time(struct host *h, uint64_t us)
{
	h->now_us += us;
	if (sm_node_tick(h->node, h->now_us) <= h->now_us &&
	    sm_node_tick(h->node, h->now_us) <= h->now_us)
		abort();
}

static void command(struct host *h, uint8_t op, const uint8_t *data, size_t len)
{
	const struct sm_addr from = address(len ? data[0] % 3 : 0), to = address(2);
	struct conn *c = &h->conn[op >> 4 & 1];
	struct sm_session *s = session_at(h, op >> 4);

	switch (op & 0xf) {
	case 0:
		open_link(h, c, op & 0x80);
		break;
	case 1:
	case 2:
		link_data(h, c, data, len);
		break;
	case 3:
		if (c->link && !c->closed) {
			c->closed = true;
			sm_node_on_link_lost(h->node, c->link, "lost", h->now_us);
		}
		break;
	case 4:
		pass_time(h, len ? (uint64_t)data[0] << (op >> 4) << 10 : 1);
		break;
	case 5:
	case 6:
		if (s)
			stream(h, s, data, len);
		break;
	case 7:
	case 8:
		if (s && len)
			sm_node_on_control_packet(h->node, s->config.index, data[0], data + 1,
						  len - 1, &from, &to, h->now_us);
		break;
	case 9:
		if (s)
			sm_node_on_address(h->node, s->config.index, &from, &to, h->now_us);
		break;
	case 10:
		if (s && len > 1)
			sm_node_on_epoch(h->node, s->config.index, data[0] & 3, 1u << data[1] % 3,
					 h->now_us);
		break;
	case 11:
		if (s)
			sm_node_on_path_mtu(h->node, s->config.index, h->now_us);
		break;
	case 12: { /* a greeting, to get further sooner */
		static const uint8_t hello[] = {0x80, 1,    0, 32,   0, 1, 1, 1, 0, 1, 0x24, 0xe3,
						0x20, 0xfb, 5, 0xdc, 0, 1, 0, 0, 0, 0, 0,    0,
						0,    0,    0, 1,    0, 0, 0, 0, 0, 0, 0,    1};
		static const uint8_t ready[] = {0x80, 2, 0, 0};

		open_link(h, c, op & 0x80);
		link_data(h, c, hello, sizeof(hello));
		link_data(h, c, ready, sizeof(ready));
		break;
	}
	default:
		sm_node_on_network_change(h->node, h->now_us);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct host h = {.random = 1};

	start(&h);
	while (size >= 2) {
		const uint8_t op = data[0];
		const size_t len = SM_MIN((size_t)data[1], size - 2);

		command(&h, op, data + 2, len);
		data += 2 + len;
		size -= 2 + len;
		pass_time(&h, 1);
	}
	finish(&h);
	return 0;
}

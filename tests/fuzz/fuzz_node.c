// SPDX-License-Identifier: MIT
/*
 * A node under what an authenticated peer may send: any bytes on two connections, any messages on the
 * control stream, any sealed control packets, with time passing and connections breaking in between.
 *
 * The input is a row of commands: opcode (8), length (8), that many bytes. It must not reach an assertion,
 * make the node grow, or leave a deadline in the past.
 */
#include "core/peer.h"

#include "../unit/host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct host *start(void)
{
	const struct sm_peer_config peer = {.name = "peer", .has_endpoints = true};
	struct host *h = host_new(3);

	if (sm_node_set_peers(h->node, &peer, 1, h->now_us))
		abort();
	return h;
}

static void open_link(struct host *h, uint32_t n, bool dialled)
{
	if (!h->conn[n].link || h->conn[n].closed)
		host_open(h, n, dialled);
}

static struct sm_session *session_at(const struct host *h, uint8_t n)
{
	return h->node->session_slots ? h->node->sessions[n % h->node->session_slots] : NULL;
}

/* Bytes of the stream in the right place, so that they reach the messages behind it. */
static void stream(struct host *h, struct sm_session *s, const uint8_t *data, size_t len)
{
	const struct sm_addr from = host_address(1, SM_DATA_PORT),
			     to = host_address(2, SM_DATA_PORT);
	uint8_t body[SM_STREAM_HEADER_LEN + 256];
	const struct sm_segment segment = {
		.offset = s->stream.rx_next, .acked = s->stream.acked, .data = data, .len = len};

	sm_node_on_control_packet(h->node, s->config.index, SM_KIND_STREAM, body,
				  sm_segment_encode(&segment, body), &from, &to, h->now_us);
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
	const struct sm_addr from = host_address(len ? data[0] % 3 : 0, SM_DATA_PORT),
			     to = host_address(2, SM_DATA_PORT);
	const uint32_t n = op >> 4 & 1;
	struct host_conn *c = &h->conn[n];
	struct sm_session *s = session_at(h, op >> 4);

	switch (op & 0xf) {
	case 0:
		open_link(h, n, op & 0x80);
		break;
	case 1:
	case 2:
		host_feed(h, n, data, len);
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

		open_link(h, n, op & 0x80);
		host_feed(h, n, hello, sizeof(hello));
		host_feed(h, n, ready, sizeof(ready));
		break;
	}
	default:
		sm_node_on_network_change(h->node, h->now_us);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct host *h = start();

	while (size >= 2) {
		const uint8_t op = data[0];
		const size_t len = SM_MIN((size_t)data[1], size - 2);

		command(h, op, data + 2, len);
		data += 2 + len;
		size -= 2 + len;
		pass_time(h, 1);
	}
	host_free(h);
	return 0;
}

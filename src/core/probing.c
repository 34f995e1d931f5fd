// SPDX-License-Identifier: MIT
/*
 * A session's probes: those of its path (path.c), of the path MTU (mtu.c) and of batches (batch.c). Sends
 * what they want sent, hands them the answers and the time, and acts on what they find.
 */
#include "core/peer.h"

#define UDP_HEADER_LEN  8u
#define IPV4_HEADER_LEN 20u
#define IPV6_HEADER_LEN 40u

/* Bytes of the outer packet beside the body */
static uint32_t outer_overhead(const struct sm_addr *remote)
{
	return SM_DATA_OVERHEAD + UDP_HEADER_LEN +
	       (remote->family == 6 ? IPV6_HEADER_LEN : IPV4_HEADER_LEN);
}

void sm_probing_send(struct sm_peer *peer, struct sm_session *s, const struct sm_addr *to,
		     uint64_t tag, uint64_t now_us)
{
	uint8_t body[SM_PROBE_LEN_MAX] = {0}; /* as long as an answer: no amplification */
	struct sm_path_send send;

	if (!s->started)
		return;
	sm_path_probe(&s->path, to, sm_node_random64(peer->node) | 1, tag, now_us, &send);
	sm_probe_encode(&send.probe, body);
	sm_peer_send_sealed(peer, s, SM_KIND_PROBE, body, sizeof(body), &send.to, &send.from,
			    now_us);
}

/* Return: 0, -EMSGSIZE; any other fault is loss */
static int send_mtu_probe(struct sm_peer *peer, struct sm_session *s,
			  const struct sm_mtu_send *send, uint64_t now_us)
{
	const struct sm_probe probe = {.op = SM_PROBE_REQUEST, .token = send->token};
	const uint32_t overhead = outer_overhead(&s->path.remote);
	const uint32_t len = send->size > overhead + SM_PROBE_LEN_MAX ? send->size - overhead
								      : SM_PROBE_LEN_MAX;
	struct sm_node *node = peer->node;
	struct sm_pbuf *pkt = sm_pbuf_get(&node->probe_pool);
	int err = -ENOBUFS;

	if (!pkt)
		return err;
	sm_probe_encode(&probe, memset(sm_pbuf_put_tail(pkt, len), 0, len));
	if (!sm_session_seal(s, pkt, SM_KIND_PROBE, now_us))
		err = node->ops.datagram(node->host, &s->path.remote, &s->path.local, pkt->data,
					 pkt->len);
	sm_pbuf_put(&node->probe_pool, pkt);
	return err;
}

/* Return: 0, -EMSGSIZE; -errno the kernel takes no batch; -ENOBUFS nothing was sent */
static int send_batch(struct sm_peer *peer, struct sm_session *s,
		      const uint64_t tokens[SM_BATCH_PROBES], uint64_t now_us)
{
	const uint32_t size = SM_MIN(s->mtu.size, SM_BATCH_PACKET_MAX);
	const uint32_t len = size - outer_overhead(&s->path.remote);
	struct sm_node *node = peer->node;
	struct sm_pbuf *pkt = sm_pbuf_get(&node->probe_pool);
	uint32_t at = 0, segment = 0;
	int err = 0;

	if (!pkt)
		return -ENOBUFS;
	for (uint32_t i = 0; i < SM_BATCH_PROBES && !err; i++) {
		const struct sm_probe probe = {.op = SM_PROBE_REQUEST, .token = tokens[i]};

		sm_pbuf_reset(pkt);
		sm_probe_encode(&probe, memset(sm_pbuf_put_tail(pkt, len), 0, len));
		if (sm_session_seal(s, pkt, SM_KIND_PROBE, now_us)) {
			err = -ENOBUFS;
			break;
		}
		memcpy(node->batch + at, pkt->data, pkt->len);
		segment = pkt->len;
		at += segment;
	}
	sm_pbuf_put(&node->probe_pool, pkt);
	if (!err)
		err = node->ops.datagrams(node->host, &s->path.remote, &s->path.local, node->batch,
					  at, segment);
	return err;
}

/* -- what changes -- */

void sm_probing_start(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	const struct sm_session *old = peer->active;

	if (old == s)
		return;
	if (old && sm_addr_equal(&old->path.remote, &s->path.remote))
		sm_mtu_inherit(&s->mtu, &old->mtu, now_us);
	else
		sm_mtu_start(&s->mtu, s->mtu.max, now_us);
	if (old && sm_addr_equal(&old->path.remote, &s->path.remote))
		sm_batch_inherit(&s->batch, &old->batch, now_us);
	else
		sm_batch_start(&s->batch, now_us);
	s->mtu_moves = s->path.moves;
	sm_session_load(s, &s->load_seen);
}

void sm_probing_check_mtu(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_node *node = peer->node;

	if (node->config.path_mtu)
		return;
	if (sm_mtu_set_max(&s->mtu, node->ops.route_mtu(node->host, &s->path.remote), now_us))
		node->dirty = true;
	sm_mtu_verify(&s->mtu, now_us);
}

void sm_probing_batches_changed(struct sm_peer *peer, struct sm_session *s)
{
	const struct sm_node_event event = {
		.type = SM_NODE_BATCHES, .peer = peer, .number = s->batch.state};

	peer->node->dirty = true;
	if (peer->active == s)
		sm_node_tell(peer->node, &event);
}

static void path_changed(struct sm_peer *peer, struct sm_session *s, unsigned change,
			 uint64_t now_us)
{
	struct sm_node *node = peer->node;

	if (change & SM_PATH_MOVED) {
		struct sm_node_event event = {.type = SM_NODE_PATH_MOVED,
					      .peer = peer,
					      .addr = s->path.remote,
					      .number = s->path.moves};

		if (s->path.moves != s->mtu_moves) {
			sm_mtu_start(&s->mtu, node->ops.route_mtu(node->host, &s->path.remote),
				     now_us);
			sm_batch_start(&s->batch, now_us);
			s->mtu_moves = s->path.moves;
		} else {
			sm_probing_check_mtu(peer, s, now_us);
			sm_batch_verify(&s->batch, now_us);
		}
		node->dirty = true;
		if (s->path.moves)
			sm_node_tell(node, &event);
	}
	if (change)
		sm_peer_update_state(peer, now_us);
}

void sm_probing_on_received(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	path_changed(peer, s, sm_path_on_received(&s->path, now_us), now_us);
}

/* -- ticks -- */

static uint64_t since(uint64_t count, uint64_t seen)
{
	return count >= seen ? count - seen : count; /* an epoch is gone, and its share with it */
}

static void load_second(struct sm_session *s, uint64_t now_us)
{
	const struct sm_session_load seen = s->load_seen;
	bool received;

	sm_session_load(s, &s->load_seen);
	received = since(s->load_seen.rx_packets, seen.rx_packets) > 0;
	sm_mtu_second(&s->mtu, since(s->load_seen.tx_packets, seen.tx_packets),
		      since(s->load_seen.tx_bytes, seen.tx_bytes), received, now_us);
	sm_batch_second(&s->batch, since(s->load_seen.tx_batched, seen.tx_batched), received,
			now_us);
}

/* Whose address has not answered yet may have said another's: that one is not sent anything large. */
static bool takes_probes(const struct sm_path *path)
{
	return path->state != SM_PATH_DOWN && (path->answered_us || path->moves);
}

static void mtu_tick(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_mtu_send send;

	sm_mtu_sleep(&s->mtu, !takes_probes(&s->path), now_us);
	if (now_us < sm_mtu_deadline(&s->mtu))
		return;
	if (sm_mtu_tick(&s->mtu, s->path.srtt_us, now_us))
		peer->node->dirty = true;
	while (sm_mtu_is_due(&s->mtu) &&
	       sm_mtu_next(&s->mtu, sm_node_random64(peer->node) | 1, now_us, &send))
		if (send_mtu_probe(peer, s, &send, now_us) == -EMSGSIZE &&
		    sm_mtu_on_refused(&s->mtu, send.size, now_us))
			peer->node->dirty = true;
}

/* A batch, and a probe alone behind it: whatever the way does to large or many packets, it does to both. */
static void send_batch_round(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	uint64_t fresh[SM_BATCH_PROBES + 1], tokens[SM_BATCH_PROBES];
	struct sm_mtu_send lone = {.size = SM_MIN(s->mtu.size, SM_BATCH_PACKET_MAX)};
	int err;

	for (uint32_t i = 0; i < SM_ARRAY_SIZE(fresh); i++)
		fresh[i] = sm_node_random64(peer->node) | 1;
	if (!sm_batch_next(&s->batch, fresh, now_us, tokens, &lone.token))
		return;
	err = send_batch(peer, s, tokens, now_us);
	if (err == -EIO || err == -EINVAL || err == -EOPNOTSUPP || err == -ENOPROTOOPT) {
		if (sm_batch_on_refused(&s->batch, err, now_us))
			sm_probing_batches_changed(peer, s);
	} else {
		/* without it, the round proves nothing */
		(void)!send_mtu_probe(peer, s, &lone, now_us);
	}
}

static void batch_tick(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	sm_batch_sleep(&s->batch, !takes_probes(&s->path), now_us);
	if (now_us < sm_batch_deadline(&s->batch))
		return;
	if (sm_batch_tick(&s->batch, s->path.srtt_us, now_us))
		sm_probing_batches_changed(peer, s);
	if (s->batch.due)
		send_batch_round(peer, s, now_us);
}

static void probe_second(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_addr ask[SM_PATH_CANDIDATES_MAX + 1];
	uint64_t sent;
	const uint64_t received = sm_session_packets(s, &sent);
	uint32_t count;
	const unsigned change = sm_path_tick(&s->path, received > s->rx_seen, sent > s->tx_seen,
					     peer->node->config.keepalive_us, now_us, ask, &count);

	for (uint32_t i = 0; i < count; i++)
		sm_probing_send(peer, s, &ask[i], 0, now_us);
	/* what the probes themselves sent does not count as traffic */
	s->rx_seen = received;
	(void)sm_session_packets(s, &s->tx_seen);
	path_changed(peer, s, change, now_us);
}

void sm_probing_tick(struct sm_peer *peer, struct sm_session *s, bool second, uint64_t now_us)
{
	if (sm_path_deadline(&s->path) <= now_us || (second && s->ready))
		probe_second(peer, s, now_us);
	if (peer->active != s)
		return;
	if (second)
		load_second(s, now_us);
	mtu_tick(peer, s, now_us);
	batch_tick(peer, s, now_us);
}

uint64_t sm_probing_deadline(const struct sm_peer *peer, const struct sm_session *s)
{
	const uint64_t at = sm_path_deadline(&s->path);

	if (peer->active != s)
		return at;
	return SM_MIN(at, SM_MIN(sm_mtu_deadline(&s->mtu), sm_batch_deadline(&s->batch)));
}

/* -- packets -- */

void sm_probing_on_packet(struct sm_peer *peer, struct sm_session *s, const uint8_t *body,
			  size_t len, const struct sm_addr *from, const struct sm_addr *to,
			  uint64_t now_us)
{
	struct sm_probe probe;
	struct sm_path_answer answer;
	int change;

	if (sm_probe_decode(body, len, &probe))
		return;
	if (probe.op == SM_PROBE_REQUEST) {
		uint8_t out[SM_PROBE_LEN_MAX] = {0};
		const struct sm_probe reply = {
			.op = SM_PROBE_ANSWER, .token = probe.token, .observed = *from};
		const size_t out_len = sm_probe_encode(&reply, out);

		if (sm_addr_equal(from, &s->path.remote))
			sm_mtu_on_larger(&s->mtu, outer_overhead(from) + (uint32_t)len, now_us);

		if (len >= out_len) /* who leaves the padding out may have forged the address */
			sm_peer_send_sealed(peer, s, SM_KIND_PROBE, out, out_len, from, to, now_us);
		return;
	}
	if (sm_addr_equal(from, &s->path.remote)) {
		change = sm_mtu_on_answer(&s->mtu, probe.token, now_us);
		if (change > 0)
			peer->node->dirty = true;
		if (change >= 0)
			return;
		change = sm_batch_on_answer(&s->batch, probe.token, now_us);
		if (change > 0)
			sm_probing_batches_changed(peer, s);
		if (change >= 0)
			return;
	}
	change = sm_path_on_answer(&s->path, &probe, from, to, now_us, &answer);
	if (change < 0)
		return;
	path_changed(peer, s, (unsigned)change, now_us);
	if (answer.tag && peer->node->ops.ping_answer)
		peer->node->ops.ping_answer(peer->node->host, answer.tag, &answer);
}

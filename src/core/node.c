// SPDX-License-Identifier: MIT
/*
 * The node: see node.h. Membership, time, and the way in for packets and commands.
 */
#include "core/peer.h"

#include <stdio.h>
#include <stdlib.h>

#define DIAL_PACE_US       (2 * SM_MSEC_US)
#define LEARNED_MACS       16384u
#define CONTROL_PACKETS    4u /* control datagrams under construction at a time */
#define CONTROL_PACKET_LEN 2048u

void sm_node_tell(struct sm_node *node, const struct sm_node_event *event)
{
	node->ops.event(node->host, event);
}

uint64_t sm_node_random64(struct sm_node *node)
{
	uint64_t v;

	node->ops.random(node->host, &v, sizeof(v));
	return v;
}

void sm_node_flush(struct sm_node *node)
{
	struct sm_snapshot *snapshot;

	if (!node->dirty || sm_picture_build(node, &snapshot))
		return; /* without memory the workers keep the old picture; the next tick tries again */
	node->dirty = false;
	node->ops.publish(node->host, snapshot);
}

int sm_node_new(const struct sm_node_config *config, const struct sm_node_ops *ops, void *host,
		uint64_t now_us, struct sm_node **ret_node)
{
	struct sm_node *node = calloc(1, sizeof(*node));
	int err = -ENOMEM;

	if (!node)
		return err;
	node->config = *config;
	node->ops = *ops;
	node->host = host;
	sm_list_init(&node->peers);
	node->instance = sm_node_random64(node);
	node->map_seed = sm_node_random64(node);
	node->second_at_us = now_us + SM_SEC_US;
	node->config.max_peers = SM_MIN(config->max_peers, SM_PORT_MAX - 1);
	node->by_port = calloc(SM_PORT_MAX, sizeof(struct sm_peer *));
	if (!node->by_port)
		goto out;
	err = sm_mactable_new(LEARNED_MACS, SM_PORT_MAX, node->map_seed, &node->learned);
	if (!err)
		err = sm_pbuf_pool_init(&node->pool, CONTROL_PACKETS, CONTROL_PACKET_LEN);
	if (!err)
		err = sm_pbuf_pool_init(&node->probe_pool, 1, SM_DATAGRAM_MAX);
	if (err)
		goto out;
	node->batch = malloc(SM_DATAGRAM_MAX);
	if (!node->batch) {
		err = -ENOMEM;
		goto out;
	}
	node->dirty = true;
	*ret_node = node;
	return 0;
out:
	sm_node_free(node);
	return err;
}

void sm_node_shutdown(struct sm_node *node, uint64_t now_us)
{
	struct sm_list *pos, *after;

	node->stopping = true;
	sm_list_for_each_safe(pos, after, &node->peers) sm_peer_close_all(
		SM_LIST_ENTRY(pos, struct sm_peer, entry), SM_CLOSE_SHUTDOWN, "", now_us);
	node->dirty = true;
	sm_node_flush(node);
}

void sm_node_free(struct sm_node *node)
{
	struct sm_list *pos, *after;

	if (!node)
		return;
	node->stopping = true;
	sm_list_for_each_safe(pos, after, &node->peers)
		sm_peer_free(SM_LIST_ENTRY(pos, struct sm_peer, entry));
	sm_pbuf_pool_done(&node->pool);
	sm_pbuf_pool_done(&node->probe_pool);
	free(node->batch);
	sm_mactable_free(node->learned);
	free(node->sessions);
	free(node->by_port);
	free(node);
}

/* -- peers -- */

const struct sm_peer *sm_node_next_peer(const struct sm_node *node, const struct sm_peer *after)
{
	const struct sm_list *next = after ? after->entry.next : node->peers.next;

	return next == &node->peers ? NULL : SM_LIST_ENTRY(next, struct sm_peer, entry);
}

const struct sm_peer *sm_node_find_peer(const struct sm_node *node, const char *name)
{
	const struct sm_peer *peer = NULL;

	while ((peer = sm_node_next_peer(node, peer)))
		if (!strcmp(peer->name, name))
			return peer;
	return NULL;
}

const struct sm_peer *sm_node_peer_by_port(const struct sm_node *node, uint16_t port)
{
	return port < SM_PORT_MAX ? node->by_port[port] : NULL;
}

const char *sm_peer_name(const struct sm_peer *peer)
{
	return peer->name;
}

bool sm_node_is_known(const struct sm_node *node, const struct sm_addr *addr)
{
	const struct sm_peer *peer = NULL;

	while ((peer = sm_node_next_peer(node, peer))) {
		if (peer->active && sm_addr_same_ip(&peer->active->path.remote, addr))
			return true;
		for (uint32_t i = 0; peer->has_endpoints && i < peer->resolved.count; i++)
			if (sm_addr_same_ip(&peer->resolved.addr[i], addr))
				return true;
	}
	return false;
}

static struct sm_peer *find(struct sm_node *node, const char *name)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(
		pos, after,
		&node->peers) if (!strcmp(SM_LIST_ENTRY(pos, struct sm_peer, entry)->name,
					  name)) return SM_LIST_ENTRY(pos, struct sm_peer, entry);
	return NULL;
}

int sm_node_set_peers(struct sm_node *node, const struct sm_peer_config *peers, uint32_t count,
		      uint64_t now_us)
{
	struct sm_list *pos, *after;
	int err;

	sm_list_for_each_safe(pos, after, &node->peers) SM_LIST_ENTRY(pos, struct sm_peer, entry)
		->configured = false;
	for (uint32_t i = 0; i < count; i++) {
		struct sm_peer *peer = find(node, peers[i].name);

		if (!peer) {
			err = sm_peer_new(node, peers[i].name, now_us, &peer);
			if (err)
				return err;
		}
		peer->configured = true;
		peer->has_endpoints = peers[i].has_endpoints;
		peer->attempts = 0;
		peer->refused = false;
		if (!peer->live)
			sm_peer_schedule_dial(peer, true, now_us);
		/* the first at once, a thousand spread over two seconds */
		if (peer->dial_at_us != SM_NEVER)
			peer->dial_at_us = now_us + i * DIAL_PACE_US;
		sm_peer_update_state(peer, now_us);
	}
	sm_list_for_each_safe(pos, after, &node->peers)
	{
		struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);

		if (!peer->configured)
			peer->has_endpoints = false;
	}
	sm_node_flush(node);
	return 0;
}

void sm_node_set_candidates(struct sm_node *node, const struct sm_candidate *candidates,
			    uint32_t count, uint64_t now_us)
{
	struct sm_list *pos, *after;

	count = SM_MIN(count, SM_ENDPOINTS_MAX);
	if (count == node->candidate_count &&
	    !memcmp(candidates, node->candidates, count * sizeof(*candidates)))
		return;
	memcpy(node->candidates, candidates, count * sizeof(*candidates));
	node->candidate_count = count;
	sm_list_for_each_safe(pos, after,
			      &node->peers) if (SM_LIST_ENTRY(pos, struct sm_peer, entry)->active)
		sm_message_send_endpoints(SM_LIST_ENTRY(pos, struct sm_peer, entry), now_us);
}

void sm_node_set_identity(struct sm_node *node, const struct sm_identity *self)
{
	const struct sm_identity *old = &node->config.self;
	const bool renewed = memcmp(old->fingerprint, self->fingerprint, SM_FINGERPRINT_LEN) != 0 ||
			     memcmp(old->serial, self->serial, sizeof(old->serial)) != 0;
	struct sm_list *pos, *after;

	/* peers hold the old one against us when it ends: show them the new one now */
	sm_list_for_each_safe(pos, after,
			      &node->peers) if (renewed &&
						SM_LIST_ENTRY(pos, struct sm_peer, entry)->live)
		SM_LIST_ENTRY(pos, struct sm_peer, entry)
			->renew = true;
	node->config.self = *self;
	node->dirty = true;
	sm_node_flush(node);
}

void sm_node_allow_batches(struct sm_node *node, bool allowed, uint64_t now_us)
{
	node->config.batches = allowed;
	for (uint32_t slot = 0; slot < node->session_slots; slot++) {
		struct sm_session *s = node->sessions[slot];

		if (s && sm_batch_allow(&s->batch, allowed, now_us))
			sm_probing_batches_changed(node->by_port[s->config.port], s);
	}
	sm_node_flush(node);
}

/* -- sessions -- */

struct sm_session *sm_node_session(struct sm_node *node, uint32_t index)
{
	const uint32_t slot = index & 0xffff;
	struct sm_session *s = slot < node->session_slots ? node->sessions[slot] : NULL;

	return s && s->config.index == index ? s : NULL;
}

static int free_session_slot(struct sm_node *node, uint32_t *ret_slot)
{
	struct sm_session **grown;
	uint32_t slots;

	for (uint32_t i = 0; i < node->session_slots; i++)
		if (!node->sessions[i]) {
			*ret_slot = i;
			return 0;
		}
	slots = node->session_slots ? node->session_slots * 2 : 16;
	if (slots > 0x10000)
		return -ENOSPC;
	grown = realloc(node->sessions, slots * sizeof(struct sm_session *));
	if (!grown)
		return -ENOMEM;
	memset(grown + node->session_slots, 0,
	       (slots - node->session_slots) * sizeof(struct sm_session *));
	*ret_slot = node->session_slots;
	node->sessions = grown;
	node->session_slots = slots;
	return 0;
}

int sm_node_new_session(struct sm_node *node, struct sm_peer *peer, uint64_t now_us,
			struct sm_session **ret_session)
{
	struct sm_session **place = NULL, *oldest = NULL;
	uint32_t slot;
	int err;

	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++) {
		struct sm_session *s = peer->session[i];

		if (!s)
			place = &peer->session[i];
		else if (s != peer->active && (!oldest || s->created_us < oldest->created_us))
			oldest = s;
	}
	if (!place) {
		for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
			if (peer->session[i] == oldest)
				place = &peer->session[i];
		sm_peer_end_session(peer, oldest, now_us);
	}
	err = free_session_slot(node, &slot);
	if (!err)
		err = sm_session_new((uint32_t)sm_node_random64(node) << 16 | slot, peer->port,
				     now_us, place);
	if (err)
		return err;
	node->sessions[slot] = *place;
	*ret_session = *place;
	return 0;
}

/* -- packets -- */

static struct sm_peer *session_peer(struct sm_node *node, uint32_t index,
				    struct sm_session **ret_session)
{
	*ret_session = sm_node_session(node, index);
	return *ret_session && (*ret_session)->started ? node->by_port[(*ret_session)->config.port]
						       : NULL;
}

void sm_node_on_control_packet(struct sm_node *node, uint32_t session, uint8_t kind,
			       const uint8_t *body, size_t len, const struct sm_addr *from,
			       const struct sm_addr *to, uint64_t now_us)
{
	struct sm_session *s;
	struct sm_peer *peer = session_peer(node, session, &s);

	if (peer)
		sm_peer_on_packet(peer, s, kind, body, len, from, to, now_us);
	sm_node_flush(node);
}

void sm_node_on_address(struct sm_node *node, uint32_t session, const struct sm_addr *from,
			const struct sm_addr *to, uint64_t now_us)
{
	struct sm_session *s;
	struct sm_peer *peer = session_peer(node, session, &s);

	if (!peer || s->draining || !sm_path_on_suspect(&s->path, from, to, now_us))
		return;
	sm_probing_send(peer, s, from, 0, now_us);
	sm_probing_send(peer, s, &s->path.remote, 0, now_us);
}

void sm_node_on_epoch(struct sm_node *node, uint32_t session, uint32_t epoch, unsigned event,
		      uint64_t now_us)
{
	struct sm_session *s;
	struct sm_peer *peer = session_peer(node, session, &s);

	if (!peer)
		return;
	s->heard = true;
	if (s->orphan)
		sm_peer_adopt_session(peer, s, now_us);
	if (sm_session_on_epoch_event(s, epoch, event, now_us) & SM_SESSION_CHANGED) {
		struct sm_node_event told = {
			.type = SM_NODE_REKEYED, .peer = peer, .number = epoch};

		node->dirty = true;
		sm_node_flush(node);
		sm_node_tell(node, &told);
	}
}

void sm_node_on_path_mtu(struct sm_node *node, uint32_t session, uint64_t now_us)
{
	struct sm_session *s;
	struct sm_peer *peer = session_peer(node, session, &s);

	if (!peer)
		return;
	sm_probing_check_mtu(peer, s, now_us);
	sm_node_flush(node);
}

void sm_node_on_network_change(struct sm_node *node, uint64_t now_us)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &node->peers)
	{
		struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);

		if (!peer->active) {
			if (peer->state == SM_PEER_BACKOFF)
				sm_peer_schedule_dial(peer, true, now_us);
			continue;
		}
		if (sm_path_reset_local(&peer->active->path))
			node->dirty = true;
		sm_probing_check_mtu(peer, peer->active, now_us);
		sm_batch_verify(&peer->active->batch, now_us);
		sm_probing_send(peer, peer->active, &peer->active->path.remote, 0, now_us);
	}
	sm_node_flush(node);
}

void sm_node_on_retired(struct sm_node *node, struct sm_snapshot *snapshot)
{
	sm_picture_free(node, snapshot);
}

/* -- time -- */

static void second_round(struct sm_node *node, struct sm_peer *peer, uint64_t now_us)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i])
			sm_link_tick(peer->link[i], now_us);
	if (!peer->configured && !peer->active && peer->state == SM_PEER_IDLE &&
	    now_us >= peer->heard_us + SM_RETIRE_PEER_US) {
		sm_peer_free(peer);
		node->dirty = true;
	}
}

static uint64_t peer_deadline(const struct sm_peer *peer)
{
	uint64_t at = peer->dial_at_us;

	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++) {
		const struct sm_session *s = peer->session[i];

		if (!s || !s->started)
			continue;
		at = SM_MIN(at, sm_session_deadline(s));
		if (s->draining || s->orphan) /* nothing is sent on it */
			continue;
		at = SM_MIN(at, sm_stream_deadline(&s->stream));
		at = SM_MIN(at, sm_probing_deadline(peer, s));
	}
	return at;
}

uint64_t sm_node_tick(struct sm_node *node, uint64_t now_us)
{
	const bool second = now_us >= node->second_at_us;
	struct sm_list *pos, *after;
	uint64_t at;

	if (second) {
		node->second_at_us = now_us + SM_SEC_US;
		sm_mactable_age(node->learned, now_us);
	}
	sm_list_for_each_safe(pos, after, &node->peers)
	{
		struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);

		if (second) /* before the sessions' turn: one that drains no more has things to do */
			sm_contention_follow(peer, now_us);
		for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
			if (peer->session[i])
				sm_peer_session_tick(peer, peer->session[i], second, now_us);
		sm_peer_dial_tick(peer, now_us);
		if (second)
			second_round(node, peer, now_us);
	}
	sm_node_flush(node);
	at = node->second_at_us;
	sm_list_for_each_safe(pos, after, &node->peers)
		at = SM_MIN(at, peer_deadline(SM_LIST_ENTRY(pos, struct sm_peer, entry)));
	/* A session that took over from one behind it in this very turn has things to do at once. */
	return SM_MAX(at, now_us + 1);
}

/* -- commands -- */

void sm_node_recheck(struct sm_node *node,
		     enum sm_close_reason (*check)(void *arg, const struct sm_identity *peer,
						   char *text),
		     void *arg, uint64_t now_us)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &node->peers)
	{
		struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);
		char text[SM_CLOSE_TEXT_MAX + 1] = "";
		enum sm_close_reason reason;

		if (!peer->has_identity)
			continue;
		reason = check(arg, &peer->identity, text);
		if (reason == SM_CLOSE_NONE)
			continue;
		snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
		peer->refused = true;
		peer->has_identity = false;
		node->dirty = true;
		sm_peer_close_all(peer, reason, text, now_us);
		sm_peer_schedule_dial(peer, false, now_us);
		sm_peer_update_state(peer, now_us);
	}
	sm_node_flush(node);
}

void sm_node_retry_now(struct sm_node *node, uint64_t now_us)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &node->peers)
	{
		struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);

		peer->attempts = 0;
		peer->refused = false;
		if (!peer->live || peer->renew)
			sm_peer_schedule_dial(peer, true, now_us);
		sm_peer_update_state(peer, now_us);
	}
}

int sm_node_ping(struct sm_node *node, const struct sm_peer *peer, uint64_t tag, uint64_t now_us)
{
	struct sm_peer *p = node->by_port[peer->port];

	if (!p || !p->active)
		return -ENOTCONN;
	sm_probing_send(p, p->active, &p->active->path.remote, tag, now_us);
	return 0;
}

int sm_node_rekey(struct sm_node *node, const struct sm_peer *peer, uint64_t now_us)
{
	struct sm_peer *p = node->by_port[peer->port];

	if (!p || !p->active)
		return -ENOTCONN;
	sm_session_request_rekey(p->active);
	sm_peer_session_tick(p, p->active, false, now_us);
	return 0;
}

/* -- reading -- */

static void add_lanes(struct sm_lane_totals *totals, const struct sm_epoch *epoch)
{
	for (uint32_t i = 0; epoch && i < epoch->rx_count; i++) {
		const struct sm_rx_lane *rx = &epoch->rx[i];

		totals->lost += atomic_load_explicit(&rx->lost, memory_order_relaxed);
		totals->late += atomic_load_explicit(&rx->late, memory_order_relaxed);
		totals->duplicate += atomic_load_explicit(&rx->duplicate, memory_order_relaxed);
		totals->forged += atomic_load_explicit(&rx->forged, memory_order_relaxed);
	}
}

void sm_peer_info(const struct sm_node *node, const struct sm_peer *peer,
		  struct sm_peer_info *ret_info)
{
	(void)node;
	*ret_info = (struct sm_peer_info){
		.port = peer->port,
		.name = peer->name,
		.configured = peer->configured,
		.has_identity = peer->has_identity,
		.link_up = peer->live != NULL,
		.client = peer->active ? peer->active->config.client : false,
		.state = peer->state,
		.since_us = peer->since_us,
		.identity = peer->has_identity ? &peer->identity : NULL,
		.mac = peer->mac,
		.session = peer->active,
		.conn = peer->live ? peer->live->conn : NULL,
		.path_mtu = peer->active ? peer->active->mtu.size : 0,
		.attempts = peer->attempts,
		.last_error = peer->last_error,
		.totals = peer->totals,
	};
	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
		for (int e = 0; peer->session[i] && e < SM_EPOCH_SLOT_COUNT; e++)
			add_lanes(&ret_info->totals, peer->session[i]->epoch[e]);
}

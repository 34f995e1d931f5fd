// SPDX-License-Identifier: MIT
/*
 * A peer: its state, its dialling, its sessions, and what is sent to it.
 */
#include "core/peer.h"

#include <stdio.h>
#include <stdlib.h>

#define BACKOFF_FIRST_US (100 * SM_MSEC_US)
#define BACKOFF_MAX_US \
	(1 * SM_SEC_US) /* with what the kernel's ARP adds, traffic is to be back in 3 s */
#define BACKOFF_FAR_US         (15 * SM_SEC_US) /* after BACKOFF_FAR_ATTEMPTS in vain */
#define BACKOFF_FAR_ATTEMPTS   300u
#define BACKOFF_REFUSED_US     (5 * SM_SEC_US) /* someone said no: asking more often changes nothing */
#define BACKOFF_REFUSED_MAX_US (30 * SM_SEC_US)

static const char *const state_names[] = {
	[SM_PEER_IDLE] = "idle",
	[SM_PEER_BACKOFF] = "backoff",
	[SM_PEER_DIALLING] = "dialling",
	[SM_PEER_GREETING] = "greeting",
	[SM_PEER_UP] = "up",
	[SM_PEER_SILENT] = "silent",
};
static_assert(SM_ARRAY_SIZE(state_names) == SM_PEER_STATE_COUNT, "every state has a name");

const char *sm_peer_state_name(enum sm_peer_state state)
{
	return state_names[state];
}

#define BIT(state) (1u << (state))
/* Allowed moves, from the row's state to those in its mask */
static const unsigned allowed[SM_PEER_STATE_COUNT] = {
	[SM_PEER_IDLE] = BIT(SM_PEER_BACKOFF) | BIT(SM_PEER_DIALLING) | BIT(SM_PEER_GREETING),
	[SM_PEER_BACKOFF] = BIT(SM_PEER_IDLE) | BIT(SM_PEER_DIALLING) | BIT(SM_PEER_GREETING),
	[SM_PEER_DIALLING] = BIT(SM_PEER_IDLE) | BIT(SM_PEER_BACKOFF) | BIT(SM_PEER_GREETING),
	[SM_PEER_GREETING] = BIT(SM_PEER_IDLE) | BIT(SM_PEER_BACKOFF) | BIT(SM_PEER_DIALLING) |
			     BIT(SM_PEER_UP),
	[SM_PEER_UP] = BIT(SM_PEER_IDLE) | BIT(SM_PEER_BACKOFF) | BIT(SM_PEER_DIALLING) |
		       BIT(SM_PEER_GREETING) | BIT(SM_PEER_SILENT),
	[SM_PEER_SILENT] = BIT(SM_PEER_IDLE) | BIT(SM_PEER_BACKOFF) | BIT(SM_PEER_DIALLING) |
			   BIT(SM_PEER_GREETING) | BIT(SM_PEER_UP),
};

void sm_peer_set_state(struct sm_peer *peer, enum sm_peer_state state, uint64_t now_us)
{
	struct sm_node_event event = {
		.type = SM_NODE_PEER_STATE, .peer = peer, .from = peer->state, .to = state};

	if (peer->state == state)
		return;
	assert(allowed[peer->state] & BIT(state));
	peer->state = state;
	peer->since_us = now_us;
	event.text = peer->last_error;
	sm_node_tell(peer->node, &event);
}

static bool is_greeting(const struct sm_peer *peer)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] && peer->link[i]->state < SM_LINK_OPEN)
			return true;
	return false;
}

void sm_peer_update_state(struct sm_peer *peer, uint64_t now_us)
{
	enum sm_peer_state state = SM_PEER_IDLE;

	if (peer->active)
		state = peer->active->path.state == SM_PATH_DOWN ? SM_PEER_SILENT : SM_PEER_UP;
	else if (is_greeting(peer))
		state = SM_PEER_GREETING;
	else if (peer->in_dial || peer->resolving)
		state = SM_PEER_DIALLING;
	else if (peer->dial_at_us != SM_NEVER)
		state = SM_PEER_BACKOFF;
	if (peer->state == state)
		return;
	/* a session may come up within one call: pass through greeting, as the table has it */
	if (state == SM_PEER_UP || state == SM_PEER_SILENT) {
		if (peer->state < SM_PEER_GREETING)
			sm_peer_set_state(peer, SM_PEER_GREETING, now_us);
		if (peer->state == SM_PEER_GREETING)
			sm_peer_set_state(peer, SM_PEER_UP, now_us);
	}
	sm_peer_set_state(peer, state, now_us);
}

int sm_peer_new(struct sm_node *node, const char *name, uint64_t now_us, struct sm_peer **ret_peer)
{
	struct sm_peer *peer;
	uint32_t port = 1;

	while (port < SM_PORT_MAX && node->by_port[port])
		port++;
	if (port > node->config.max_peers || port >= SM_PORT_MAX)
		return -ENOSPC;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	peer->node = node;
	peer->port = (uint16_t)port;
	snprintf(peer->name, sizeof(peer->name), "%s", name);
	peer->dial_at_us = SM_NEVER;
	peer->since_us = peer->heard_us = now_us;
	node->by_port[port] = peer;
	sm_list_add_tail(&node->peers, &peer->entry);
	*ret_peer = peer;
	return 0;
}

void sm_peer_free(struct sm_peer *peer)
{
	if (!peer)
		return;
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i])
			sm_link_forget(peer->link[i]);
	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
		if (peer->session[i])
			sm_peer_end_session(peer, peer->session[i], peer->since_us);
	sm_mactable_forget_port(peer->node->learned, peer->port);
	peer->node->by_port[peer->port] = NULL;
	sm_list_del(&peer->entry);
	free(peer);
}

/* -- dialling -- */

static uint64_t jitter(struct sm_node *node, uint64_t us)
{
	return us * 3 / 4 + sm_node_random64(node) % (us / 2 + 1);
}

static uint64_t backoff_us(const struct sm_peer *peer)
{
	const uint64_t first = peer->refused ? BACKOFF_REFUSED_US : BACKOFF_FIRST_US;
	const uint64_t most = peer->refused                           ? BACKOFF_REFUSED_MAX_US
			      : peer->attempts > BACKOFF_FAR_ATTEMPTS ? BACKOFF_FAR_US
								      : BACKOFF_MAX_US;
	const uint32_t doublings = SM_MIN(peer->attempts, 12u);

	return SM_MIN(first << doublings, most);
}

void sm_peer_schedule_dial(struct sm_peer *peer, bool soon, uint64_t now_us)
{
	/* one that only came to us is looked for while it may come back, then forgotten */
	const bool wanted = peer->configured || now_us < peer->heard_us + SM_RETIRE_PEER_US;
	const bool possible = peer->has_endpoints || (peer->learned.count && wanted);

	if (!possible || peer->node->stopping) {
		peer->dial_at_us = SM_NEVER;
		return;
	}
	if (peer->in_dial || peer->resolving)
		return;
	peer->dial_at_us = now_us + jitter(peer->node, soon ? 50 * SM_MSEC_US : backoff_us(peer));
}

static void dial_failed(struct sm_peer *peer, uint64_t now_us)
{
	peer->in_dial = false;
	peer->attempts++;
	sm_peer_schedule_dial(peer, false, now_us);
}

static void dial_next_address(struct sm_peer *peer, uint64_t now_us)
{
	while (peer->dial_next < peer->dial.count) {
		const struct sm_addr *to = &peer->dial.addr[peer->dial_next++];

		if (!peer->node->ops.dial(peer->node->host, peer->port, to)) {
			peer->in_dial = true;
			peer->dial_started_us = now_us;
			return;
		}
	}
	dial_failed(peer, now_us);
}

static void set_add(struct sm_endpoint_set *set, const struct sm_addr *addr)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (sm_addr_equal(&set->addr[i], addr))
			return;
	if (set->count < SM_ENDPOINTS_MAX)
		set->addr[set->count++] = *addr;
}

/* What was learned last is the most likely to be true: it pushes out the oldest. */
static void set_learn(struct sm_endpoint_set *set, const struct sm_addr *addr)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (sm_addr_equal(&set->addr[i], addr))
			return;
	if (set->count == SM_ENDPOINTS_MAX)
		memmove(&set->addr[0], &set->addr[1], --set->count * sizeof(set->addr[0]));
	set->addr[set->count++] = *addr;
}

void sm_peer_learn_endpoint(struct sm_peer *peer, const struct sm_addr *control)
{
	if (control->port)
		set_learn(&peer->learned, control);
}

static void dial_begin(struct sm_peer *peer, const struct sm_endpoint_set *resolved,
		       uint64_t now_us)
{
	peer->dial = *resolved;
	for (uint32_t i = 0; i < peer->learned.count; i++)
		set_add(&peer->dial, &peer->learned.addr[i]);
	peer->dial_next = 0;
	dial_next_address(peer, now_us);
}

/* The answer may come later; where none can, what is known without it is tried. */
static void look_up(struct sm_peer *peer, uint64_t now_us)
{
	static const struct sm_endpoint_set none;
	int err = 0;

	if (peer->has_endpoints)
		err = peer->node->ops.resolve(peer->node->host, peer->port);
	peer->resolving = peer->has_endpoints && !err;
	if (peer->resolving)
		return;
	if (err)
		snprintf(peer->last_error, sizeof(peer->last_error), "cannot resolve: %s",
			 strerror(-err));
	dial_begin(peer, &none, now_us);
}

void sm_peer_dial_tick(struct sm_peer *peer, uint64_t now_us)
{
	if (now_us < peer->dial_at_us || peer->in_dial || peer->resolving)
		return;
	peer->dial_at_us = SM_NEVER;
	if ((peer->live || is_greeting(peer)) && !peer->renew)
		return;
	look_up(peer, now_us);
	sm_peer_update_state(peer, now_us);
}

void sm_node_on_resolved(struct sm_node *node, uint16_t port, const struct sm_endpoint_set *set,
			 const char *text, uint64_t now_us)
{
	struct sm_peer *peer = node->by_port[port];

	if (!peer || !peer->resolving)
		return;
	peer->resolving = false;
	if (set->count)
		peer->resolved = *set;
	else
		snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	if ((peer->live || is_greeting(peer)) && !peer->renew)
		sm_peer_update_state(peer, now_us);
	else
		dial_begin(peer, set, now_us);
	sm_peer_update_state(peer, now_us);
}

void sm_node_on_dial_failed(struct sm_node *node, uint16_t port, enum sm_close_reason reason,
			    const char *text, uint64_t now_us)
{
	struct sm_peer *peer = node->by_port[port];

	if (!peer || !peer->in_dial)
		return;
	peer->in_dial = false;
	peer->refused = reason != SM_CLOSE_NONE && reason != SM_CLOSE_TIMEOUT &&
			reason != SM_CLOSE_SHUTDOWN;
	snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	if ((peer->live || is_greeting(peer)) && !peer->renew)
		peer->attempts = 0;
	else
		dial_next_address(peer, now_us);
	sm_peer_update_state(peer, now_us);
}

/* -- sending -- */

void sm_peer_send_sealed(struct sm_peer *peer, struct sm_session *s, enum sm_kind kind,
			 const void *body, size_t len, const struct sm_addr *to,
			 const struct sm_addr *from, uint64_t now_us)
{
	struct sm_node *node = peer->node;
	struct sm_pbuf *pkt = sm_pbuf_get(&node->pool);

	if (!pkt)
		return;
	memcpy(sm_pbuf_put_tail(pkt, (uint32_t)len), body, len);
	if (!sm_session_seal(s, pkt, kind, now_us)) {
		/* a full queue or a dead route is loss; probes and the stream repeat what matters */
		(void)!node->ops.datagram(node->host, to, from, pkt->data, pkt->len);
	}
	sm_pbuf_put(&node->pool, pkt);
}

void sm_peer_flush_stream(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	uint8_t body[SM_STREAM_HEADER_LEN + SM_STREAM_SEGMENT_MAX];
	struct sm_segment segment;

	while (sm_stream_next(&s->stream, now_us, &segment))
		sm_peer_send_sealed(peer, s, SM_KIND_STREAM, body,
				    sm_segment_encode(&segment, body), &s->path.remote,
				    &s->path.local, now_us);
}

void sm_peer_send(struct sm_peer *peer, const void *data, size_t len, uint64_t now_us)
{
	struct sm_node *node = peer->node;

	if (peer->live && !node->ops.conn_send(node->host, peer->live->conn, data, len))
		return;
	if (peer->active)
		sm_peer_send_stream(peer, peer->active, data, len, now_us);
}

void sm_peer_send_stream(struct sm_peer *peer, struct sm_session *s, const void *data, size_t len,
			 uint64_t now_us)
{
	if (!s->started || sm_stream_write(&s->stream, data, len))
		return; /* its window is full: the senders of messages repeat them */
	sm_peer_flush_stream(peer, s, now_us);
}

void sm_peer_send_session(struct sm_peer *peer, struct sm_session *s, const void *data, size_t len,
			  uint64_t now_us)
{
	struct sm_node *node = peer->node;

	if (peer->live && peer->live->session == s &&
	    !node->ops.conn_send(node->host, peer->live->conn, data, len))
		return;
	if (!s->stream.len) /* the stream repeats by itself what is in it */
		sm_peer_send_stream(peer, s, data, len, now_us);
}

void sm_peer_send_stream_msg(struct sm_peer *peer, struct sm_session *s, const struct sm_msg *msg,
			     uint64_t now_us)
{
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	const int len = sm_msg_encode(msg, buf, sizeof(buf));

	if (len > 0)
		sm_peer_send_stream(peer, s, buf, (size_t)len, now_us);
}

void sm_peer_send_msg(struct sm_peer *peer, const struct sm_msg *msg, uint64_t now_us)
{
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	const int len = sm_msg_encode(msg, buf, sizeof(buf));

	if (len > 0)
		sm_peer_send(peer, buf, (size_t)len, now_us);
}

/* -- sessions -- */

void sm_peer_end_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_node *node = peer->node;

	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] && peer->link[i]->session == s)
			peer->link[i]->session = NULL;
	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
		if (peer->session[i] == s)
			peer->session[i] = NULL;
	if (peer->active == s)
		peer->active = NULL;
	node->sessions[s->config.index & 0xffff] = NULL;
	for (int i = 0; i < SM_EPOCH_SLOT_COUNT; i++) {
		sm_picture_release_epoch(node, s->epoch[i]);
		s->epoch[i] = NULL;
	}
	if (s->started)
		node->dirty = true;
	sm_session_free(s);
	if (!node->stopping)
		sm_peer_update_state(peer, now_us);
}

void sm_peer_drain_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	if (s->draining)
		return;
	s->draining = true;
	s->drain_until_us = now_us + SM_EPOCH_OVERLAP_US;
	if (peer->active == s)
		peer->active = NULL;
	peer->node->dirty = true;
}

void sm_peer_use_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_node_event event = {
		.type = SM_NODE_SESSION_UP, .peer = peer, .addr = s->path.remote};

	sm_probing_start(peer, s, now_us);
	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++) {
		struct sm_session *old = peer->session[i];

		/* one whose connection is open stands by until the peer has chosen */
		if (old && old != s && old->ready && !sm_link_of(peer, old))
			sm_peer_drain_session(peer, old, now_us);
	}
	peer->active = s;
	peer->node->dirty = true;
	sm_node_flush(peer->node);
	sm_peer_update_state(peer, now_us);
	sm_node_tell(peer->node, &event);
	sm_probing_send(peer, s, &s->path.remote, 0, now_us);
}

void sm_peer_adopt_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	s->orphan = false;
	s->ready = true;
	s->ready_us = now_us;
	if (!peer->live && (!peer->active || peer->active->created_us <= s->created_us))
		sm_peer_use_session(peer, s, now_us);
	else
		sm_peer_drain_session(peer, s, now_us);
}

void sm_peer_close_all(struct sm_peer *peer, enum sm_close_reason reason, const char *text,
		       uint64_t now_us)
{
	struct sm_msg close = {.type = SM_MSG_CLOSE, .close.reason = (uint16_t)reason};

	snprintf(close.close.text, sizeof(close.close.text), "%s", text);
	if (peer->active)
		sm_peer_send_stream_msg(peer, peer->active, &close, now_us);
	if (peer->active && !sm_link_of(peer, peer->active)) {
		struct sm_node_event event = {
			.type = SM_NODE_LINK_CLOSED, .peer = peer, .reason = reason, .text = text};

		sm_node_tell(peer->node, &event); /* else the link tells */
	}
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i])
			peer->link[i]->state = SM_LINK_CLOSING;
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i])
			sm_link_close(peer->link[i], reason, text, now_us);
	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++)
		if (peer->session[i])
			sm_peer_end_session(peer, peer->session[i], now_us);
	sm_mactable_forget_port(peer->node->learned, peer->port);
}

static void session_dead(struct sm_peer *peer, struct sm_session *s, const char *text,
			 uint64_t now_us)
{
	struct sm_link *link = sm_link_of(peer, s);

	if (s->draining || peer->active != s) {
		sm_peer_end_session(peer, s, now_us);
		return;
	}
	snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	if (link)
		sm_link_close(link, SM_CLOSE_REKEY_FAILED, text, now_us);
	sm_peer_end_session(peer, s, now_us);
	sm_peer_schedule_dial(peer, true, now_us);
	sm_peer_update_state(peer, now_us);
}

void sm_peer_session_tick(struct sm_peer *peer, struct sm_session *s, bool second, uint64_t now_us)
{
	struct sm_epoch *old;
	const uint8_t *message;
	size_t len;
	unsigned todo;

	if (now_us >= s->created_us + SM_SESSION_DIES_US) {
		session_dead(peer, s, "the full handshake that is due every 24 h did not succeed",
			     now_us);
		return;
	}
	old = sm_session_take_expired(s, now_us);
	if (old) {
		sm_picture_release_epoch(peer->node, old);
		peer->node->dirty = true;
	}
	todo = sm_session_tick(s, now_us, &message, &len);
	if (todo & SM_SESSION_DEAD) {
		session_dead(peer, s, "no new keys could be agreed in time", now_us);
		return;
	}
	if (todo & SM_SESSION_SEND)
		sm_peer_send_session(peer, s, message, len, now_us);
	if (todo & SM_SESSION_PROBE)
		sm_probing_send(peer, s, &s->path.remote, 0, now_us);
	if (s->draining || !s->started)
		return;
	if (s->path.state == SM_PATH_DOWN && !peer->live &&
	    now_us >= s->path.last_rx_us + SM_EPOCH_DIES_US) {
		session_dead(peer, s, "unreachable for too long", now_us);
		return;
	}
	sm_probing_tick(peer, s, second, now_us);
	if (sm_stream_deadline(&s->stream) <= now_us)
		sm_peer_flush_stream(peer, s, now_us);
}

/* -- packets of the control lane -- */

static void on_segment(struct sm_peer *peer, struct sm_session *s, const uint8_t *body, size_t len,
		       uint64_t now_us)
{
	struct sm_segment segment;
	const uint8_t *data;
	size_t n;

	if (sm_segment_decode(body, len, &segment) ||
	    sm_stream_receive(&s->stream, &segment, now_us, &data, &n))
		return;
	sm_peer_flush_stream(peer, s, now_us);
	if (n)
		sm_message_feed_stream(peer, s, data, n, now_us);
}

void sm_peer_on_packet(struct sm_peer *peer, struct sm_session *s, uint8_t kind,
		       const uint8_t *body, size_t len, const struct sm_addr *from,
		       const struct sm_addr *to, uint64_t now_us)
{
	if (sm_addr_equal(from, &s->path.remote))
		sm_probing_on_received(peer, s, now_us);
	if (kind == SM_KIND_PROBE)
		sm_probing_on_packet(peer, s, body, len, from, to, now_us);
	else if (kind == SM_KIND_STREAM)
		on_segment(peer, s, body, len, now_us);
}

// SPDX-License-Identifier: MIT
/*
 * Control connections and the messages on them: HELLO to READY, contention of two connections, close.
 *
 *   HELLO out --> HELLO in: session starts, keys published --> READY out
 *                                       READY in: the session carries data, the link is open
 */
#include "core/peer.h"

#include <stdio.h>
#include <stdlib.h>

static void free_link(struct sm_link *link)
{
	sm_wipe(link->root, sizeof(link->root));
	free(link);
}

void sm_link_forget(struct sm_link *link)
{
	struct sm_peer *peer = link->peer;

	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] == link)
			peer->link[i] = NULL;
	if (peer->live == link)
		peer->live = NULL;
	if (link->feeding)
		link->gone = true;
	else
		free_link(link);
}

static void conn_close_with(struct sm_node *node, void *conn, enum sm_close_reason reason,
			    const char *text)
{
	uint8_t buf[SM_MSG_HEADER_LEN + 2 + SM_CLOSE_TEXT_MAX];
	struct sm_msg msg = {.type = SM_MSG_CLOSE, .close.reason = (uint16_t)reason};
	int len;

	snprintf(msg.close.text, sizeof(msg.close.text), "%s", text);
	len = sm_msg_encode(&msg, buf, sizeof(buf));
	if (len > 0)
		(void)!node->ops.conn_send(node->host, conn, buf, (size_t)len);
	node->ops.conn_close(node->host, conn);
}

/*
 * The session of a link that never got ready is of no use to anybody.
 * Return: the session if it lives on without the link, or NULL
 */
static struct sm_session *drop_unready(struct sm_link *link, uint64_t now_us)
{
	struct sm_session *s = link->session;

	link->session = NULL;
	if (!s || s->ready)
		return s;
	sm_peer_end_session(link->peer, s, now_us);
	return NULL;
}

/* The live link is gone: one that stood by takes its place. */
static void take_standby(struct sm_peer *peer, uint64_t now_us)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX && !peer->live; i++) {
		struct sm_link *link = peer->link[i];

		if (!link || link->state != SM_LINK_OPEN || !link->session)
			continue;
		peer->live = link;
		sm_peer_use_session(peer, link->session, now_us);
	}
}

/* A link is gone. Its session @s (or NULL) goes on alone if it is the one sent on, else it drains. */
static void link_gone(struct sm_peer *peer, struct sm_session *s, bool soon, uint64_t now_us)
{
	take_standby(peer, now_us);
	if (s && s != peer->active)
		sm_peer_drain_session(peer, s, now_us);
	if (!peer->live || peer->renew)
		sm_peer_schedule_dial(peer, soon, now_us);
	sm_peer_update_state(peer, now_us);
}

void sm_link_close(struct sm_link *link, enum sm_close_reason reason, const char *text,
		   uint64_t now_us)
{
	struct sm_peer *peer = link->peer;
	struct sm_node *node = link->node;
	struct sm_node_event event = {
		.type = SM_NODE_LINK_CLOSED, .peer = peer, .reason = reason, .text = text};
	struct sm_session *s;

	conn_close_with(node, link->conn, reason, text);
	s = drop_unready(link, now_us);
	sm_link_forget(link);
	sm_node_tell(node, &event);
	if (reason != SM_CLOSE_DUPLICATE)
		snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	if (reason != SM_CLOSE_DUPLICATE && reason != SM_CLOSE_TIMEOUT) {
		peer->refused = true;
		peer->attempts++;
	}
	link_gone(peer, s, !peer->refused, now_us);
}

/* -- sending -- */

static int link_send_msg(struct sm_link *link, const struct sm_msg *msg)
{
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	const int len = sm_msg_encode(msg, buf, sizeof(buf));

	if (len < 0)
		return len;
	return link->node->ops.conn_send(link->node->host, link->conn, buf, (size_t)len);
}

static int send_hello(struct sm_link *link)
{
	const struct sm_node_config *c = &link->node->config;
	const struct sm_msg msg = {
		.type = SM_MSG_HELLO,
		.hello =
			{
				.version = SM_PROTOCOL_VERSION,
				.mode = (uint8_t)c->mode,
				.ciphers = c->ciphers,
				.preferred = c->preferred,
				.workers = (uint8_t)c->workers,
				.data_port = c->data_port,
				.control_port = c->control_port,
				.mtu = (uint16_t)c->mtu,
				.session = link->session->config.index,
				.instance = link->node->instance,
				.features = SM_FEATURE_PART | SM_FEATURE_CHUNK,
			},
	};

	return link_send_msg(link, &msg);
}

void sm_link_send_endpoints(struct sm_peer *peer, uint64_t now_us)
{
	const struct sm_node *node = peer->node;
	struct sm_msg msg = {.type = SM_MSG_ENDPOINTS};

	msg.endpoints.count = (uint8_t)node->candidate_count;
	memcpy(msg.endpoints.candidate, node->candidates,
	       node->candidate_count * sizeof(node->candidates[0]));
	sm_peer_send_msg(peer, &msg, now_us);
}

/* -- messages -- */

static int choose_cipher(const struct sm_node_config *mine, const struct sm_msg_hello *theirs,
			 enum sm_cipher *ret_cipher)
{
	const unsigned common = mine->ciphers & theirs->ciphers;
	const bool aes = common & 1u << SM_CIPHER_AES256GCM;
	const bool chacha = common & 1u << SM_CIPHER_CHACHA20POLY1305;
	const bool chacha_wanted = mine->preferred == SM_CIPHER_CHACHA20POLY1305 ||
				   theirs->preferred == SM_CIPHER_CHACHA20POLY1305;

	if (!aes && !chacha)
		return -ENOTSUP;
	*ret_cipher = chacha && (chacha_wanted || !aes) ? SM_CIPHER_CHACHA20POLY1305
							: SM_CIPHER_AES256GCM;
	return 0;
}

static const char *mode_name(unsigned mode)
{
	return mode == SM_MODE_TAP ? "tap" : "tun";
}

static int start_session(struct sm_link *link, const struct sm_msg_hello *hello,
			 enum sm_cipher cipher, uint64_t now_us)
{
	struct sm_node *node = link->node;
	struct sm_session *s = link->session;
	const struct sm_session_config config = {
		.index = s->config.index,
		.remote_index = hello->session,
		.port = link->peer->port,
		.client = link->client,
		.takes_parts = hello->features & SM_FEATURE_PART,
		.takes_chunks = hello->features & SM_FEATURE_CHUNK,
		.cipher = cipher,
		.tx_lanes = node->config.workers + 1,
		.rx_lanes = hello->workers + 1u,
		.rekey_after_us = node->config.rekey_after_us,
		.mtu = hello->mtu,
	};
	struct sm_addr remote = link->remote;
	const int err = sm_session_start(s, &config, link->root);

	sm_wipe(link->root, sizeof(link->root));
	if (err)
		return err;
	remote.port = hello->data_port;
	sm_path_init(&s->path, &remote, now_us);
	sm_mtu_init(&s->mtu, node->config.path_mtu, node->ops.route_mtu(node->host, &remote));
	sm_batch_init(&s->batch, node->config.batches);
	if (hello->control_port) {
		remote.port = hello->control_port;
		sm_peer_learn_endpoint(link->peer, &remote);
	}
	return 0;
}

static void on_hello(struct sm_link *link, const struct sm_msg_hello *hello, uint64_t now_us)
{
	struct sm_node *node = link->node;
	struct sm_peer *peer = link->peer;
	char text[SM_CLOSE_TEXT_MAX + 1];
	enum sm_cipher cipher;

	if (hello->version != SM_PROTOCOL_VERSION) {
		snprintf(text, sizeof(text), "%s speaks protocol version %u, %s version %u",
			 peer->name, hello->version, node->config.self.name, SM_PROTOCOL_VERSION);
		sm_link_close(link, SM_CLOSE_VERSION, text, now_us);
		return;
	}
	if (hello->mode != node->config.mode) {
		snprintf(text, sizeof(text),
			 "%s has Mode = %s, %s has Mode = %s: a network has one mode", peer->name,
			 mode_name(hello->mode), node->config.self.name,
			 mode_name(node->config.mode));
		sm_link_close(link, SM_CLOSE_MODE, text, now_us);
		return;
	}
	if (choose_cipher(&node->config, hello, &cipher)) {
		snprintf(text, sizeof(text), "%s and %s have no data cipher in common", peer->name,
			 node->config.self.name);
		sm_link_close(link, SM_CLOSE_CIPHER, text, now_us);
		return;
	}
	if (!link->session) { /* so many connections of this peer that it had to go */
		sm_link_close(link, SM_CLOSE_LIMIT, "too many sessions at a time", now_us);
		return;
	}
	link->peer_instance = hello->instance;
	if (start_session(link, hello, cipher, now_us)) {
		sm_link_close(link, SM_CLOSE_INTERNAL, "out of memory", now_us);
		return;
	}
	link->state = SM_LINK_READY;
	node->dirty = true;
	sm_node_flush(node); /* READY promises that the workers have the keys */
	const struct sm_msg ready = {.type = SM_MSG_READY};
	if (node->dirty)
		sm_link_close(link, SM_CLOSE_INTERNAL, "out of memory", now_us);
	else if (link_send_msg(link, &ready))
		sm_link_close(link, SM_CLOSE_INTERNAL, "the connection takes no more", now_us);
}

/*
 * Both sides may have dialled, and each may see the two connections open in another order, or not yet know
 * that one is broken. So one side alone decides which of them survives and closes the others: the one with
 * the lower node id. Until it hears of that, the other side guesses by the same rule where to send, and
 * keeps what it was not told to drop.
 */
static bool decides(const struct sm_peer *peer)
{
	return memcmp(peer->node->config.self.node_id, peer->identity.node_id, SM_NODE_ID_LEN) < 0;
}

/*
 * Of two connections made at about the same time between the same two running daemons, the one whose TLS
 * client has the lower node id survives; else the newer one does, since its client would not have dialled
 * if the older one still worked.
 */
static bool is_survivor(const struct sm_link *fresh, const struct sm_link *other)
{
	const uint64_t apart_us = fresh->opened_us > other->opened_us
					  ? fresh->opened_us - other->opened_us
					  : other->opened_us - fresh->opened_us;

	if (fresh->client == other->client || fresh->peer_instance != other->peer_instance ||
	    apart_us > SM_GLARE_US)
		return fresh->opened_us >= other->opened_us;
	return fresh->client == decides(fresh->peer);
}

/*
 * A choice may get lost with the connection that it was told on. The session that the deciding side sends
 * on shows it all the same, well before the other one has drained.
 */
void sm_link_follow(struct sm_peer *peer, uint64_t now_us)
{
	struct sm_session *ahead = NULL;
	bool active_moved = false;
	uint64_t sent;

	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++) {
		struct sm_session *s = peer->session[i];
		const uint64_t packets = s && s->ready ? sm_session_packets(s, &sent) : 0;

		if (!packets)
			continue;
		s->ahead = packets > s->followed ? s->ahead + 1 : 0;
		s->followed = packets;
		if (s == peer->active)
			active_moved = s->ahead;
		else if (s->ahead > 1)
			ahead = s;
	}
	if (!ahead || active_moved || !peer->active || decides(peer))
		return;
	ahead->draining = false;
	sm_peer_use_session(peer, ahead, now_us);
}

static void close_duplicates(struct sm_peer *peer, uint64_t now_us)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] && peer->link[i] != peer->live &&
		    peer->link[i]->state == SM_LINK_OPEN)
			sm_link_close(peer->link[i], SM_CLOSE_DUPLICATE,
				      "another connection between us is in use", now_us);
}

static void go_live(struct sm_link *link, uint64_t now_us)
{
	struct sm_peer *peer = link->peer;
	const struct sm_msg observed = {.type = SM_MSG_OBSERVED, .observed.control = link->remote};

	peer->live = link;
	sm_peer_use_session(peer, link->session, now_us);
	sm_link_send_endpoints(peer, now_us);
	sm_peer_send_msg(peer, &observed, now_us);
}

static int on_ready(struct sm_link *link, uint64_t now_us)
{
	struct sm_peer *peer = link->peer;
	struct sm_session *s = link->session;

	if (link->state != SM_LINK_READY)
		return -EPROTO;
	if (!s) {
		sm_link_close(link, SM_CLOSE_LIMIT, "too many sessions at a time", now_us);
		return 0;
	}
	link->state = SM_LINK_OPEN;
	s->ready = true;
	s->ready_us = now_us;
	peer->attempts = 0;
	peer->refused = false;
	peer->renew = false;
	peer->heard_us = now_us;
	if (!peer->live || is_survivor(link, peer->live))
		go_live(link, now_us);
	if (decides(peer))
		close_duplicates(peer, now_us);
	return 0;
}

static void on_endpoints(struct sm_peer *peer, struct sm_session *s,
			 const struct sm_msg_endpoints *endpoints)
{
	for (uint32_t i = 0; i < endpoints->count; i++) {
		const struct sm_candidate *c = &endpoints->candidate[i];
		struct sm_addr control = c->data;

		if (!sm_addr_is_global_unicast(&c->data))
			continue;
		control.port = c->control_port;
		sm_peer_learn_endpoint(peer, &control);
		if (s && c->data.port)
			sm_path_add_candidate(&s->path, &c->data);
	}
}

static void rekey_done(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_node_event event = {.type = SM_NODE_REKEYED,
				      .peer = peer,
				      .number = s->epoch[SM_EPOCH_CURRENT]->number};

	peer->node->dirty = true;
	sm_node_flush(peer->node);
	sm_peer_send_probe(peer, s, &s->path.remote, 0,
			   now_us); /* tells the server that we have the keys */
	sm_node_tell(peer->node, &event);
}

static int on_rekey(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
		    const struct sm_msg *msg, uint64_t now_us)
{
	const uint8_t *message = NULL;
	size_t len = 0;
	int todo;

	if (msg->type == SM_MSG_REKEY_WANTED) {
		sm_session_request_rekey(s);
		return 0;
	}
	if (msg->type == SM_MSG_REKEY_REPLY) {
		todo = sm_session_on_reply(s, &msg->rekey, now_us);
		if (todo > 0 && (todo & SM_SESSION_CHANGED))
			rekey_done(peer, s, now_us);
		return SM_MIN(todo, 0);
	}
	todo = sm_session_on_request(s, &msg->rekey, now_us, &message, &len);
	if (todo < 0)
		return todo;
	if (todo & SM_SESSION_CHANGED) {
		peer->node->dirty = true;
		sm_node_flush(
			peer->node); /* the workers accept the new epoch before the peer may send on it */
	}
	if (!(todo & SM_SESSION_SEND) || peer->node->dirty)
		return 0; /* no memory to accept the epoch: the client asks again */
	/* the way the request came, so that it meets the session that it belongs to */
	if (!link)
		sm_peer_send_stream(peer, s, message, len, now_us);
	else
		(void)!peer->node->ops.conn_send(peer->node->host, link->conn, message, len);
	return 0;
}

static struct sm_link *link_of(struct sm_peer *peer, const struct sm_session *s)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] && peer->link[i]->session == s)
			return peer->link[i];
	return NULL;
}

static void note_close(struct sm_peer *peer, const struct sm_msg_close *msg)
{
	if (msg->reason == SM_CLOSE_DUPLICATE)
		return;
	snprintf(peer->last_error, sizeof(peer->last_error), "closed by %s: %s%s%s", peer->name,
		 sm_close_reason_name(msg->reason), msg->text[0] ? ": " : "", msg->text);
	if (msg->reason != SM_CLOSE_TIMEOUT && msg->reason != SM_CLOSE_SHUTDOWN)
		peer->refused = true;
}

static void on_close(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
		     const struct sm_msg_close *msg, uint64_t now_us)
{
	struct sm_node *node = peer->node;
	struct sm_node_event event = {.type = SM_NODE_LINK_CLOSED,
				      .peer = peer,
				      .reason = msg->reason,
				      .by_peer = true,
				      .text = msg->text};
	/* after these the session goes on: another connection serves it, or the stream does */
	const bool keep = msg->reason == SM_CLOSE_DUPLICATE || msg->reason == SM_CLOSE_TIMEOUT;

	if (!link && keep)
		return; /* they speak of connections */
	note_close(peer, msg);
	if (!link && s) /* what ends the session ends its connection, which may be broken */
		link = link_of(peer, s);
	if (link) {
		node->ops.conn_close(node->host, link->conn);
		s = drop_unready(link, now_us);
		sm_link_forget(link);
	}
	if (s && !keep) {
		sm_peer_end_session(peer, s, now_us);
		s = NULL;
	}
	sm_node_tell(node, &event);
	link_gone(peer, s, !peer->refused, now_us);
}

static void refuse_message(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
			   unsigned type, int err, uint64_t now_us)
{
	char text[SM_CLOSE_TEXT_MAX + 1];
	const char *what = err == -EMSGSIZE     ? "has a length out of bounds"
			   : err == -EPROTO     ? "is out of order"
			   : err == -EOPNOTSUPP ? "is unknown and critical"
						: "is malformed";
	struct sm_node_event event = {
		.type = SM_NODE_PROTOCOL, .peer = peer, .number = type, .text = text};

	snprintf(text, sizeof(text), "message %s (0x%04x) %s", sm_msg_name(type), type, what);
	sm_node_tell(peer->node, &event);
	snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	peer->refused = true;
	if (!link) {
		struct sm_msg close = {.type = SM_MSG_CLOSE, .close.reason = SM_CLOSE_PROTOCOL};

		snprintf(close.close.text, sizeof(close.close.text), "%s", text);
		sm_peer_send_stream_msg(peer, s, &close, now_us);
		link = link_of(peer, s);
		if (link && !s->ready) /* it ends with its connection */
			s = NULL;
	} else {
		s = link->session && link->session->ready ? link->session : NULL;
	}
	if (link)
		sm_link_close(link, SM_CLOSE_PROTOCOL, text, now_us);
	if (s)
		sm_peer_end_session(peer, s, now_us);
	if (!peer->live || peer->renew)
		sm_peer_schedule_dial(peer, false, now_us);
	sm_peer_update_state(peer, now_us);
}

void sm_link_handle(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
		    const uint8_t *buf, size_t len, uint64_t now_us)
{
	const bool client = link ? link->client : s->config.client;
	const unsigned ctx = (link ? SM_MSG_CTX_TLS : SM_MSG_CTX_STREAM) |
			     (!link || link->state != SM_LINK_HELLO ? SM_MSG_CTX_HELLO_SEEN : 0) |
			     (client ? 0 : SM_MSG_CTX_FROM_CLIENT);
	struct sm_msg msg;
	int err = sm_msg_decode(buf, len, ctx, &msg);

	if (err == -ENOMSG)
		return; /* unknown, not critical */
	if (!err && (msg.type == SM_MSG_REKEY_REQUEST || msg.type == SM_MSG_REKEY_REPLY ||
		     msg.type == SM_MSG_REKEY_WANTED)) {
		if (s && s->ready)
			err = on_rekey(peer, link, s, &msg, now_us);
		else if (!s || !link)
			return; /* about a session that ended, or whose READY is still on its way */
		else
			err = -EPROTO;
	}
	if (err) {
		refuse_message(peer, link, s, (unsigned)buf[0] << 8 | buf[1], err, now_us);
		return;
	}
	switch (msg.type) {
	case SM_MSG_HELLO:
		assert(link); /* the codec's table lets it in on TLS only */
		on_hello(link, &msg.hello, now_us);
		break;
	case SM_MSG_READY:
		assert(link); /* likewise */
		err = on_ready(link, now_us);
		if (err)
			refuse_message(peer, link, s, (unsigned)msg.type, err, now_us);
		break;
	case SM_MSG_ENDPOINTS:
		on_endpoints(peer, s, &msg.endpoints);
		break;
	case SM_MSG_OBSERVED:
		if (s && msg.observed.data.family)
			s->path.observed = msg.observed.data;
		break;
	case SM_MSG_PING: {
		const struct sm_msg pong = {.type = SM_MSG_PONG, .ping = msg.ping};

		if (peer->ponged_us && now_us < peer->ponged_us + SM_PONG_US)
			break;
		peer->ponged_us = now_us;
		if (!link)
			sm_peer_send_msg(peer, &pong, now_us);
		else
			(void)!link_send_msg(link, &pong); /* a full queue shows as silence */
		break;
	}
	case SM_MSG_PONG:
	case SM_MSG_REKEY_REQUEST:
	case SM_MSG_REKEY_REPLY:
	case SM_MSG_REKEY_WANTED:
		break;
	case SM_MSG_CLOSE:
		on_close(peer, link, s, &msg.close, now_us);
		break;
	}
}

/* -- bytes to messages -- */

/*
 * Take bytes into the assembler up to the end of the message in it.
 * Return: 1 a whole message is there, 0 all bytes are taken, -EMSGSIZE; *data and *len move on
 */
static int assemble(struct sm_assembler *in, const uint8_t **data, size_t *len, unsigned *ret_type)
{
	for (;;) {
		const bool has_header = in->len >= SM_MSG_HEADER_LEN;
		const size_t total = SM_MSG_HEADER_LEN +
				     (has_header ? (size_t)in->buf[2] << 8 | in->buf[3] : 0);
		const size_t n = SM_MIN(total - in->len, *len);
		size_t whole;
		int got;

		memcpy(in->buf + in->len, *data, n);
		in->len += (uint32_t)n;
		*data += n;
		*len -= n;
		if (in->len < SM_MSG_HEADER_LEN)
			return 0;
		*ret_type = (unsigned)in->buf[0] << 8 | in->buf[1];
		got = sm_msg_peek(in->buf, in->len, ret_type, &whole);
		if (got || !*len)
			return got;
	}
}

void sm_link_feed(struct sm_link *link, const uint8_t *data, size_t len, uint64_t now_us)
{
	struct sm_peer *peer = link->peer;
	unsigned type = 0;
	int got;

	link->last_rx_us = now_us;
	link->asked_us = 0;
	link->feeding = true;
	while (!link->gone && (len || link->in.len)) {
		got = assemble(&link->in, &data, &len, &type);
		if (got < 0) {
			refuse_message(peer, link, link->session, type, got, now_us);
			break;
		}
		if (!got)
			break;
		const uint32_t n = link->in.len;

		link->in.len = 0;
		sm_link_handle(peer, link, link->session, link->in.buf, n, now_us);
	}
	link->feeding = false;
	if (link->gone)
		free_link(link);
}

void sm_link_feed_stream(struct sm_peer *peer, struct sm_session *s, const uint8_t *data,
			 size_t len, uint64_t now_us)
{
	const uint32_t index = s->config.index;
	unsigned type = 0;
	int got;

	while (sm_node_session(peer->node, index) == s && (len || s->in.len)) {
		got = assemble(&s->in, &data, &len, &type);
		if (got < 0) {
			refuse_message(peer, NULL, s, type, got, now_us);
			return;
		}
		if (!got)
			return;
		const uint32_t n = s->in.len;
		uint8_t message[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];

		memcpy(message, s->in.buf, n); /* the session may end while it is handled */
		s->in.len = 0;
		sm_link_handle(peer, NULL, s, message, n, now_us);
	}
}

/* Asks when nothing came for a while; Return: true if nothing came for too long after that */
static bool is_silent(struct sm_link *link, uint64_t now_us)
{
	const struct sm_session *active = link->peer->active;
	const struct sm_msg ping = {.type = SM_MSG_PING, .ping.token = now_us};
	/* packets are not answered either: the peer may be gone, and dialling it anew should not wait */
	const bool hurry = active && active->path.state == SM_PATH_DOWN;
	/* one that has restarted refuses the connection as soon as it is used */
	const uint64_t quiet_us = active && active->path.asking_us ? SM_SEC_US : SM_LINK_PING_US;

	if (link->asked_us &&
	    now_us >= link->asked_us + (hurry ? SM_LINK_HURRY_US : SM_LINK_ANSWER_US))
		return true;
	if (now_us < link->last_rx_us + quiet_us || now_us < link->last_ping_us + quiet_us / 2)
		return false;
	link->last_ping_us = now_us;
	if (!link->asked_us)
		link->asked_us = now_us;
	(void)!link_send_msg(link, &ping); /* a full queue shows as silence */
	return false;
}

void sm_link_tick(struct sm_link *link, uint64_t now_us)
{
	struct sm_peer *peer = link->peer;

	if (link->state < SM_LINK_OPEN) {
		if (now_us >= link->opened_us + SM_GREETING_US)
			sm_link_close(link, SM_CLOSE_TIMEOUT, "HELLO or READY did not come in time",
				      now_us);
		return;
	}
	peer->heard_us = now_us;
	if (is_silent(link, now_us)) {
		sm_link_close(link, SM_CLOSE_TIMEOUT,
			      "nothing was received on the control connection", now_us);
		return;
	}
	if (link->client && peer->live == link &&
	    now_us >= link->opened_us + SM_FULL_HANDSHAKE_US && !peer->renew) {
		peer->renew = true;
		sm_peer_schedule_dial(peer, true, now_us);
	}
}

/* -- from the host -- */

static struct sm_link *refuse(struct sm_node *node, void *conn, const struct sm_identity *id,
			      enum sm_close_reason reason, const char *text)
{
	char line[SM_CLOSE_TEXT_MAX + SM_NAME_MAX + 8];
	struct sm_node_event event = {.type = SM_NODE_REFUSED, .reason = reason, .text = line};

	snprintf(line, sizeof(line), "%s: %s", id->name, text);
	conn_close_with(node, conn, reason, text);
	sm_node_tell(node, &event);
	return NULL;
}

/* Is this certificate the one to believe for the name? Sorts out what the older one had. */
static enum sm_close_reason adopt_identity(struct sm_peer *peer, const struct sm_identity *id,
					   uint64_t now_us)
{
	if (peer->has_identity &&
	    memcmp(peer->identity.fingerprint, id->fingerprint, SM_FINGERPRINT_LEN) != 0) {
		if (id->not_before < peer->identity.not_before)
			return SM_CLOSE_SUPERSEDED;
		sm_peer_close_all(peer, SM_CLOSE_SUPERSEDED, "a newer certificate has this name",
				  now_us);
	}
	peer->node->dirty = true; /* a renewed one may name other addresses */
	peer->identity = *id;
	if (sm_ident_mac(id->node_id, &peer->mac))
		return SM_CLOSE_INTERNAL;
	peer->has_identity = true;
	return SM_CLOSE_NONE;
}

static struct sm_link **free_slot(struct sm_peer *peer)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (!peer->link[i])
			return &peer->link[i];
	return NULL;
}

struct sm_link *sm_node_on_link_open(struct sm_node *node, void *conn, uint16_t dialled,
				     const struct sm_identity *id, const struct sm_addr *remote,
				     const uint8_t root[SM_ROOT_SECRET_LEN], uint64_t now_us)
{
	struct sm_peer *asked = dialled != SM_PORT_NONE ? node->by_port[dialled] : NULL;
	struct sm_peer *peer = (struct sm_peer *)(uintptr_t)sm_node_find_peer(node, id->name);
	char text[SM_CLOSE_TEXT_MAX + 1] = "a newer certificate has this name";
	struct sm_link **slot, *link;
	enum sm_close_reason reason;

	if (asked)
		asked->in_dial = false;
	if (!strcmp(id->name, node->config.self.name)) {
		const bool same = !memcmp(id->fingerprint, node->config.self.fingerprint,
					  SM_FINGERPRINT_LEN);

		snprintf(text, sizeof(text),
			 same ? "connected to itself" : "two nodes have the name %s", id->name);
		refuse(node, conn, id, SM_CLOSE_SELF, text);
		goto failed;
	}
	if (asked && asked != peer) {
		snprintf(text, sizeof(text), "dialled %s, but %s answered", asked->name, id->name);
		refuse(node, conn, id, SM_CLOSE_NOT_TRUSTED, text);
		goto failed;
	}
	if (!peer && sm_peer_new(node, id->name, now_us, &peer)) {
		refuse(node, conn, id, SM_CLOSE_LIMIT, "too many peers");
		goto failed;
	}
	reason = adopt_identity(peer, id, now_us);
	if (reason != SM_CLOSE_NONE) {
		refuse(node, conn, id, reason, text);
		goto failed;
	}
	slot = free_slot(peer);
	if (!slot || node->stopping) {
		refuse(node, conn, id, node->stopping ? SM_CLOSE_SHUTDOWN : SM_CLOSE_LIMIT,
		       node->stopping ? "shutting down" : "too many connections from one node");
		goto failed;
	}
	link = calloc(1, sizeof(*link));
	if (!link || sm_node_new_session(node, peer, now_us, &link->session)) {
		free(link);
		refuse(node, conn, id, SM_CLOSE_INTERNAL, "out of memory");
		goto failed;
	}
	link->node = node;
	link->peer = peer;
	link->conn = conn;
	link->client = dialled != SM_PORT_NONE;
	link->remote = *remote;
	link->opened_us = link->last_rx_us = now_us;
	memcpy(link->root, root, sizeof(link->root));
	*slot = link;
	if (send_hello(link)) {
		sm_link_close(link, SM_CLOSE_INTERNAL, "the connection takes no more", now_us);
		goto failed;
	}
	sm_peer_update_state(peer, now_us);
	return link;
failed:
	if (asked) {
		snprintf(asked->last_error, sizeof(asked->last_error), "%s", text);
		asked->refused = true;
		asked->attempts++;
		if (!asked->live || asked->renew)
			sm_peer_schedule_dial(asked, false, now_us);
		sm_peer_update_state(asked, now_us);
	}
	return NULL;
}

void sm_node_on_link_data(struct sm_node *node, struct sm_link *link, const uint8_t *data,
			  size_t len, uint64_t now_us)
{
	sm_link_feed(link, data, len, now_us);
	sm_node_flush(node);
}

/*
 * The connection broke while READY was on its way to us: the peer may have got ours and send on the session
 * already, and will go on, since sessions outlive connections. Its first packet says what READY would have.
 */
static struct sm_session *make_orphan(struct sm_link *link, uint64_t now_us)
{
	struct sm_session *s = link->session;

	if (!s || s->ready || link->state != SM_LINK_READY)
		return NULL;
	s->orphan = true;
	s->drain_until_us = now_us + SM_EPOCH_OVERLAP_US;
	link->session = NULL;
	return s;
}

/* One that never got to READY was an attempt in vain: without back-off it would be repeated at once, for ever. */
static void link_lost(struct sm_link *link, enum sm_close_reason reason, const char *text,
		      uint64_t now_us)
{
	struct sm_node *node = link->node;
	struct sm_peer *peer = link->peer;
	struct sm_node_event event = {.type = SM_NODE_LINK_CLOSED,
				      .peer = peer,
				      .reason = reason,
				      .by_peer = true,
				      .text = text};
	const bool in_vain = link->state == SM_LINK_HELLO || link->state == SM_LINK_READY;
	struct sm_session *s, *orphan;

	snprintf(peer->last_error, sizeof(peer->last_error), "%s", text);
	if (in_vain)
		peer->attempts++;
	if (in_vain && reason != SM_CLOSE_NONE)
		peer->refused = true;
	orphan = make_orphan(link, now_us);
	s = drop_unready(link, now_us);
	sm_link_forget(link);
	sm_node_tell(node, &event);
	link_gone(peer, s, !in_vain, now_us);
	if (orphan && orphan->heard)
		sm_peer_adopt_session(peer, orphan, now_us);
	if (!peer->live && peer->active) /* is the peer still there? */
		sm_peer_send_probe(peer, peer->active, &peer->active->path.remote, 0, now_us);
	sm_node_flush(node);
}

void sm_node_on_link_lost(struct sm_node *node, struct sm_link *link, const char *text,
			  uint64_t now_us)
{
	(void)node;
	link_lost(link, SM_CLOSE_NONE, text, now_us);
}

void sm_node_on_link_refused(struct sm_node *node, struct sm_link *link,
			     enum sm_close_reason reason, const char *text, uint64_t now_us)
{
	(void)node;
	link_lost(link, reason, text, now_us);
}

// SPDX-License-Identifier: MIT
/*
 * Control messages, on either carrier: from bytes to messages, what each of them does, and those that are
 * refused.
 *
 *   HELLO out --> HELLO in: session starts, keys published --> READY out
 *                                       READY in: the session carries data, the link is open
 */
#include "core/peer.h"

#include <stdio.h>

/* -- HELLO and READY -- */

int sm_message_send_hello(struct sm_link *link)
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
				.features = SM_FEATURE_PART | SM_FEATURE_CHUNK | SM_FEATURE_EXPRESS,
			},
	};

	return sm_link_send(link, &msg);
}

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
		.express = hello->features & SM_FEATURE_EXPRESS,
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
	else if (sm_link_send(link, &ready))
		sm_link_close(link, SM_CLOSE_INTERNAL, "the connection takes no more", now_us);
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
	sm_contention_enter(link, now_us);
	return 0;
}

/* -- where we are -- */

void sm_message_send_endpoints(struct sm_peer *peer, uint64_t now_us)
{
	const struct sm_node *node = peer->node;
	struct sm_msg msg = {.type = SM_MSG_ENDPOINTS};

	msg.endpoints.count = (uint8_t)node->candidate_count;
	memcpy(msg.endpoints.candidate, node->candidates,
	       node->candidate_count * sizeof(node->candidates[0]));
	sm_peer_send_msg(peer, &msg, now_us);
}

void sm_message_send_observed(const struct sm_link *link, uint64_t now_us)
{
	const struct sm_msg msg = {.type = SM_MSG_OBSERVED, .observed.control = link->remote};

	sm_peer_send_msg(link->peer, &msg, now_us);
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

/* -- new keys -- */

static void rekey_done(struct sm_peer *peer, struct sm_session *s, uint64_t now_us)
{
	struct sm_node_event event = {.type = SM_NODE_REKEYED,
				      .peer = peer,
				      .number = s->epoch[SM_EPOCH_CURRENT]->number};

	peer->node->dirty = true;
	sm_node_flush(peer->node);
	sm_probing_send(peer, s, &s->path.remote, 0,
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

/* -- what came -- */

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
		link = sm_link_of(peer, s);
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

static void handle(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
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
			(void)!sm_link_send(link, &pong); /* a full queue shows as silence */
		break;
	}
	case SM_MSG_PONG:
	case SM_MSG_REKEY_REQUEST:
	case SM_MSG_REKEY_REPLY:
	case SM_MSG_REKEY_WANTED:
		break;
	case SM_MSG_CLOSE:
		sm_link_on_close(peer, link, s, &msg.close, now_us);
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

void sm_message_feed(struct sm_link *link, const uint8_t *data, size_t len, uint64_t now_us)
{
	unsigned type = 0;
	int got;

	while (!link->gone && (len || link->in.len)) {
		got = assemble(&link->in, &data, &len, &type);
		if (got < 0) {
			refuse_message(link->peer, link, link->session, type, got, now_us);
			return;
		}
		if (!got)
			return;
		const uint32_t n = link->in.len;

		link->in.len = 0;
		handle(link->peer, link, link->session, link->in.buf, n, now_us);
	}
}

void sm_message_feed_stream(struct sm_peer *peer, struct sm_session *s, const uint8_t *data,
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
		handle(peer, NULL, s, message, n, now_us);
	}
}

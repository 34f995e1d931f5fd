// SPDX-License-Identifier: MIT
/*
 * Control connections: opened by the host, kept while something comes on them, closed by either side or lost.
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

struct sm_link *sm_link_of(const struct sm_peer *peer, const struct sm_session *s)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX; i++)
		if (peer->link[i] && peer->link[i]->session == s)
			return peer->link[i];
	return NULL;
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

/* A link is gone. Its session @s (or NULL) goes on alone if it is the one sent on, else it drains. */
static void link_gone(struct sm_peer *peer, struct sm_session *s, bool soon, uint64_t now_us)
{
	sm_contention_succeed(peer, now_us);
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

static void note_close(struct sm_peer *peer, const struct sm_msg_close *msg)
{
	if (msg->reason == SM_CLOSE_DUPLICATE)
		return;
	snprintf(peer->last_error, sizeof(peer->last_error), "closed by %s: %s%s%s", peer->name,
		 sm_close_reason_name(msg->reason), msg->text[0] ? ": " : "", msg->text);
	if (msg->reason != SM_CLOSE_TIMEOUT && msg->reason != SM_CLOSE_SHUTDOWN)
		peer->refused = true;
}

void sm_link_on_close(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
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
		link = sm_link_of(peer, s);
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

int sm_link_send(struct sm_link *link, const struct sm_msg *msg)
{
	uint8_t buf[SM_MSG_HEADER_LEN + SM_MSG_VALUE_MAX];
	const int len = sm_msg_encode(msg, buf, sizeof(buf));

	if (len < 0)
		return len;
	return link->node->ops.conn_send(link->node->host, link->conn, buf, (size_t)len);
}

/* -- time -- */

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
	(void)!sm_link_send(link, &ping); /* a full queue shows as silence */
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
	const struct sm_node_event event = {.type = SM_NODE_IDENTIFIED, .peer = peer};

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
	sm_node_tell(peer->node, &event);
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
	if (sm_message_send_hello(link)) {
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
	link->last_rx_us = now_us;
	link->asked_us = 0;
	link->feeding = true;
	sm_message_feed(link, data, len, now_us);
	link->feeding = false;
	if (link->gone)
		free_link(link);
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
		sm_probing_send(peer, peer->active, &peer->active->path.remote, 0, now_us);
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

// SPDX-License-Identifier: MIT
/*
 * Several open connections with one peer: which of them is the live one, that messages go out on and whose
 * session is sent on, which stand by, and which are closed.
 *
 * Theory of operation: both sides may have dialled, and each may see the two connections open in another
 * order, or not yet know that one is broken. So one side alone decides which of them survives and closes the
 * others: the one with the lower node id. Until it hears of that, the other side guesses by the same rule
 * where to send, and keeps what it was not told to drop.
 *
 * A choice may get lost with the connection that it was told on. The session that the deciding side sends
 * on shows it all the same, well before the other one has drained: sm_contention_follow().
 */
#include "core/peer.h"

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

	peer->live = link;
	sm_peer_use_session(peer, link->session, now_us);
	sm_message_send_endpoints(peer, now_us);
	sm_message_send_observed(link, now_us);
}

void sm_contention_enter(struct sm_link *link, uint64_t now_us)
{
	struct sm_peer *peer = link->peer;

	if (!peer->live || is_survivor(link, peer->live))
		go_live(link, now_us);
	if (decides(peer))
		close_duplicates(peer, now_us);
}

void sm_contention_succeed(struct sm_peer *peer, uint64_t now_us)
{
	for (uint32_t i = 0; i < SM_PEER_LINKS_MAX && !peer->live; i++) {
		struct sm_link *link = peer->link[i];

		if (!link || link->state != SM_LINK_OPEN || !link->session)
			continue;
		peer->live = link;
		sm_peer_use_session(peer, link->session, now_us);
	}
}

void sm_contention_follow(struct sm_peer *peer, uint64_t now_us)
{
	struct sm_session *ahead = NULL;
	bool active_moved = false;

	for (uint32_t i = 0; i < SM_PEER_SESSIONS_MAX; i++) {
		struct sm_session *s = peer->session[i];
		struct sm_session_load load = {0};
		uint64_t packets;

		/* Data alone: probes are answered on whichever session they came. */
		if (s && s->ready)
			sm_session_load(s, &load);
		packets = load.rx_packets;
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

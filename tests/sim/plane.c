// SPDX-License-Identifier: MIT
/*
 * The miniature data plane: datagrams on their way, and what a worker does with them.
 */
#include "world.h"
#include "core/peer.h"

#include <stdio.h>
#include <stdlib.h>

#define RING_US        100u /* an event's way from worker to control thread */
#define OUTER_OVERHEAD 28u  /* IPv4 and UDP */
#define DATAGRAM_ROOM  (SM_DATAGRAM_MAX + SM_PBUF_HEADROOM + SM_PBUF_TAILROOM)

/* -- the wire -- */

static struct sim_node *node_at(struct sim_world *w, const struct sm_addr *to)
{
	for (uint32_t i = 0; i < w->nodes; i++)
		if (sm_addr_equal(&w->node[i].visible, to))
			return &w->node[i];
	return NULL;
}

static void arrive(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = node_at(w, &e->to);

	if (!n || !n->core || (e->node < w->nodes && w->udp_cut[e->node][n->id]))
		return;
	sim_plane_receive(n, &e->from, e->data, e->len);
}

static void post(struct sim_world *w, uint32_t from_node, const struct sm_addr *src,
		 const struct sm_addr *to, const void *data, size_t len, uint64_t delay_us)
{
	struct sim_event *e = sim_event_new(w, delay_us, arrive, len);

	e->node = from_node;
	e->from = *src;
	e->to = *to;
	memcpy(e->data, data, len);
}

uint32_t sim_outer_len(size_t len)
{
	return (uint32_t)len + OUTER_OVERHEAD;
}

static uint64_t travel_us(struct sim_world *w)
{
	return w->net.delay_us + (w->net.jitter_us ? rng_u64(&w->rng) % w->net.jitter_us : 0);
}

void sim_datagram(struct sim_world *w, uint32_t from_node, const struct sm_addr *src,
		  const struct sm_addr *to, const void *data, size_t len)
{
	if (w->net.wiretap && sm_addr_equal(to, &w->node[w->victim].visible)) {
		w->stolen++;
		post(w, UINT32_MAX, &w->attacker, to, data, len, w->attacker_delay_us);
	}
	if (w->net.wiretap && w->attacker_relays && sm_addr_equal(to, &w->attacker)) {
		/* what the victim says to the attacker reaches the true peer, from the attacker */
		post(w, UINT32_MAX, &w->attacker, &w->node[w->victim ^ 1].visible, data, len,
		     travel_us(w));
		return;
	}
	if (w->net.mtu && sim_outer_len(len) > w->net.mtu)
		return;
	if (rng_below(&w->rng, 1000) < w->net.loss)
		return;
	post(w, from_node, src, to, data, len, travel_us(w));
	if (rng_below(&w->rng, 1000) < w->net.copies)
		post(w, from_node, src, to, data, len,
		     travel_us(w) + rng_u64(&w->rng) % (20 * SM_MSEC_US));
}

/* -- events from the worker to the control thread -- */

enum told {
	TOLD_CONTROL,
	TOLD_ADDRESS,
	TOLD_EPOCH,
	TOLD_MTU,
};

struct told_event {
	enum told what;
	uint32_t session, epoch;
	unsigned event;
	uint8_t kind;
	size_t len;
	uint8_t body[];
};

static void told(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = &w->node[e->node];
	struct told_event *t = (struct told_event *)(void *)e->data;

	if (!n->core || n->life != e->life)
		return;
	switch (t->what) {
	case TOLD_CONTROL:
		sm_node_on_control_packet(n->core, t->session, t->kind, t->body, t->len, &e->from,
					  &e->to, w->now_us);
		break;
	case TOLD_ADDRESS:
		sm_node_on_address(n->core, t->session, &e->from, &e->to, w->now_us);
		break;
	case TOLD_EPOCH:
		sm_node_on_epoch(n->core, t->session, t->epoch, t->event, w->now_us);
		break;
	case TOLD_MTU:
		sm_node_on_path_mtu(n->core, t->session, w->now_us);
		break;
	}
	sim_kick(n);
}

/* Events of one node keep their order. */
static struct told_event *tell(struct sim_node *n, enum told what, uint32_t session,
			       const struct sm_addr *from, const void *body, size_t len)
{
	struct sim_world *w = n->w;
	struct sim_event *e;
	struct told_event *t;

	const uint64_t at_us = w->now_us + rng_below(&w->rng, RING_US);

	n->event_at_us = SM_MAX(n->event_at_us, at_us);
	e = sim_event_new(w, n->event_at_us - w->now_us, told, sizeof(*t) + len);
	e->node = n->id;
	e->life = n->life;
	e->to = n->local;
	if (from)
		e->from = *from;
	t = (struct told_event *)(void *)e->data;
	*t = (struct told_event){.what = what, .session = session, .len = len};
	if (len)
		memcpy(t->body, body, len);
	return t;
}

static void tell_epoch(struct sim_node *n, uint32_t session, struct sm_epoch *epoch, unsigned event)
{
	struct told_event *t;

	if (atomic_fetch_or_explicit(&epoch->events, event, memory_order_relaxed) & event)
		return;
	t = tell(n, TOLD_EPOCH, session, NULL, NULL, 0);
	t->epoch = epoch->number;
	t->event = event;
}

/* -- receiving -- */

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void frame_arrived(struct sim_node *n, const struct sm_session_view *s, const uint8_t *frame,
			  size_t len)
{
	struct sim_flow *f;
	uint32_t number;

	assert(len >= 8);
	f = n->w->flow[get32(frame)];
	number = get32(frame + 4);
	assert(f->to == n->id && number < f->sent);
	/* it came from whom the session says */
	assert(!strcmp(sm_peer_name(sm_node_peer_by_port(n->core, s->port)),
		       n->w->node[f->from].config.self.name));
	if (f->got[number])
		f->twice++;
	else
		f->received++;
	f->got[number] = true;
	f->gap_us = SM_MAX(f->gap_us, n->w->now_us - f->last_us);
	f->last_us = n->w->now_us;
}

static struct sm_epoch *find_epoch(const struct sm_session_view *s, const struct sm_data_header *h)
{
	for (uint32_t i = 0; i < SM_EPOCHS_MAX; i++)
		if (s->rx[i] && (uint8_t)s->rx[i]->number == h->epoch &&
		    sm_epoch_rx(s->rx[i], h->lane))
			return s->rx[i];
	return NULL;
}

static void opened(struct sim_node *n, const struct sm_session_view *s, struct sm_epoch *epoch,
		   const struct sm_data_header *h, const struct sm_pbuf *pkt, uint8_t kind,
		   bool newest, const struct sm_addr *from)
{
	const bool data = kind == SM_KIND_FRAME;

	tell_epoch(n, s->index, epoch, SM_EPOCH_EVENT_RECEIVED);
	if (newest && !sm_addr_equal(from, &s->remote))
		tell(n, TOLD_ADDRESS, s->index, from, NULL, 0);
	if (data) {
		tell_epoch(n, s->index, epoch, SM_EPOCH_EVENT_USED);
		frame_arrived(n, s, pkt->data, pkt->len);
	} else if (h->lane == SM_LANE_CONTROL) {
		tell(n, TOLD_CONTROL, s->index, from, pkt->data, pkt->len)->kind = kind;
	}
	if (sm_epoch_rx(epoch, h->lane)->replay.top >= n->worn_after)
		tell_epoch(n, s->index, epoch, SM_EPOCH_EVENT_WORN);
}

void sim_plane_receive(struct sim_node *n, const struct sm_addr *from, const uint8_t *data,
		       size_t len)
{
	const struct sm_session_view *s;
	struct sm_data_header h;
	struct sm_epoch *epoch;
	static uint8_t buf[DATAGRAM_ROOM];
	uint8_t kind;
	struct sm_pbuf pkt = {.buf = buf, .data = buf, .len = (uint32_t)len, .cap = sizeof(buf)};
	bool newest;
	int err;

	if (len > sizeof(buf) || !n->picture || sm_data_header_decode(data, len, &h))
		return;
	memcpy(buf, data, len);
	s = sm_snapshot_session(n->picture, h.session);
	if (!s) {
		n->counts.unknown_session++;
		return;
	}
	epoch = find_epoch(s, &h);
	if (!epoch) {
		n->counts.unknown_epoch++;
		return;
	}
	err = sm_rx_lane_open(sm_epoch_rx(epoch, h.lane), &pkt, &h, n->w->now_us, &kind, &newest);
	if (err) {
		n->counts.forged += err == -EBADMSG;
		n->counts.replayed += err == -EALREADY;
		return;
	}
	opened(n, s, epoch, &h, &pkt, kind, newest, from);
}

/* -- sending -- */

/* Counts a packet that leaves in a batch; Return: how many did before */
static uint64_t batched(struct sm_tx_lane *lane)
{
	const uint64_t n = atomic_load_explicit(&lane->batched, memory_order_relaxed);

	atomic_store_explicit(&lane->batched, n + 1, memory_order_relaxed);
	return n;
}

/* @full: make it as long as the path takes */
static int send_frame(struct sim_world *w, uint32_t from, uint32_t to, const void *data, size_t len,
		      bool full)
{
	struct sim_node *n = &w->node[from];
	const struct sm_peer *peer = sim_peer_of(w, from, to);
	const struct sm_session_view *s;
	const uint8_t kinds[1] = {SM_KIND_FRAME};
	static uint8_t buf[DATAGRAM_ROOM];
	struct sm_pbuf pkt = {.buf = buf, .cap = sizeof(buf)}, *pkts[1] = {&pkt};
	uint32_t room;
	struct sm_tx_lane *lane;

	if (!peer || !n->picture || peer->port >= n->picture->port_count ||
	    !n->picture->send[peer->port])
		return -ENOTCONN;
	s = n->picture->send[peer->port];
	sm_pbuf_reset(&pkt);
	memcpy(sm_pbuf_put_tail(&pkt, (uint32_t)len), data, len);
	room = s->path_mtu - OUTER_OVERHEAD - SM_DATA_OVERHEAD;
	if (full)
		memset(sm_pbuf_put_tail(&pkt, room - pkt.len), 0, room - pkt.len);
	lane = &s->tx->tx[1 + rng_below(&w->rng, s->tx->tx_count - 1)];
	if (sm_tx_lane_seal(lane, pkts, kinds, 1, w->now_us) != 1) {
		n->counts.sealed_refused++;
		return -EKEYEXPIRED;
	}
	tell_epoch(n, s->index, s->tx, SM_EPOCH_EVENT_USED);
	if (atomic_load_explicit(&lane->next, memory_order_relaxed) >= n->worn_after)
		tell_epoch(n, s->index, s->tx, SM_EPOCH_EVENT_WORN);
	if (sim_outer_len(pkt.len) > n->link_mtu) {
		n->counts.refused_large++;
		tell(n, TOLD_MTU, s->index, NULL, NULL, 0);
		return 0;
	}
	n->counts.datagrams++;
	if (s->batches) { /* as one of several in a message */
		const uint64_t place = batched(lane) % SM_BATCH_PROBES;

		if (w->net.batch_loses >> place & 1)
			return 0;
	}
	sim_datagram(w, from, &n->visible, &s->remote, pkt.data, pkt.len);
	return 0;
}

int sim_frame(struct sim_world *w, uint32_t from, uint32_t to, const void *data, size_t len)
{
	return send_frame(w, from, to, data, len, false);
}

static void flow_step(struct sim_world *w, struct sim_event *e)
{
	struct sim_flow *f = w->flow[e->n];
	uint8_t frame[64] = {0};

	if (!f->period_us)
		return;
	assert(f->sent < SIM_FRAMES_MAX);
	put32(frame, (uint32_t)e->n);
	put32(frame + 4, f->sent);
	f->sent++;
	if (send_frame(w, f->from, f->to, frame, sizeof(frame), f->full)) {
		f->sent--;
		f->refused++;
	}
	sim_event_new(w, f->period_us, flow_step, 0)->n = e->n;
}

struct sim_flow *sim_flow_start(struct sim_world *w, uint32_t from, uint32_t to, uint64_t period_us)
{
	struct sim_flow *f = calloc(1, sizeof(*f));

	assert(f && w->flows < SM_ARRAY_SIZE(w->flow));
	f->from = from;
	f->to = to;
	f->period_us = period_us;
	f->last_us = w->now_us;
	w->flow[w->flows] = f;
	sim_event_new(w, rng_u64(&w->rng) % period_us, flow_step, 0)->n = w->flows++;
	return f;
}

void sim_flow_stop(struct sim_flow *f)
{
	f->period_us = 0;
}

uint32_t sim_flow_lost(const struct sim_flow *f)
{
	return f->sent - f->received;
}

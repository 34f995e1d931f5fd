// SPDX-License-Identifier: MIT
/*
 * From TAP to UDP: read, switch, split, seal, send.
 *
 * Theory of operation: up to SM_BATCH_MAX frames are read, each into a buffer of its own behind the
 * headroom. The switch says where each goes; datagrams gather in @out and leave when it is full or the
 * turn ends, grouped by session with the order inside a session kept, so a flow stays in order. A flood
 * to many members may take several turns: frames not yet forwarded stay in @pending, and no new ones are
 * read before they are gone.
 */
#include "plane/worker.h"

#include <poll.h>
#include <unistd.h>

/* Datagrams of one turn, so that a flood to a thousand members does not keep UDP waiting. */
#define TURN_MAX (4u * SM_BATCH_MAX)
/* For how long a full send queue is waited for */
#define SEND_WAIT_NS UINT64_C(1000000)

#define UDP_HEADER_LEN  8u
#define IPV4_HEADER_LEN 20u
#define IPV6_HEADER_LEN 40u

/* struct virtio_net_hdr: flags (8), gso_type (8), ... */
#define VNET_NEEDS_CSUM 0x01
#define VNET_GSO_NONE   0x00

/* Without offloads asked for, the kernel finishes frames itself; one that is not whole goes nowhere. */
static bool is_whole(const uint8_t *vnet)
{
	return !(vnet[0] & VNET_NEEDS_CSUM) && vnet[1] == VNET_GSO_NONE;
}

/* Return: true if the read frame is to be forwarded */
static bool accept_frame(struct sm_worker *w, struct sm_pbuf *p, size_t got)
{
	if (got <= SM_VNET_HDR_LEN) {
		sm_worker_drop(w, SM_DROP_RUNT);
		return false;
	}
	p->len = (uint32_t)(got - SM_VNET_HDR_LEN);
	sm_worker_count(w, SM_COUNT_TAP_READ_FRAMES, 1);
	sm_worker_count(w, SM_COUNT_TAP_READ_BYTES, p->len);
	if (p->len > w->plane->config.frame_max) {
		sm_worker_drop(w, SM_DROP_TOO_BIG);
		return false;
	}
	if (!is_whole(p->data - SM_VNET_HDR_LEN)) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return false;
	}
	return true;
}

static void read_batch(struct sm_worker *w)
{
	size_t room = SM_VNET_HDR_LEN + w->plane->config.frame_max + 1;
	struct sm_pbuf *p = NULL;
	uint32_t tries;

	w->mark_ns = sm_clock_now_ns();
	w->pending_at = w->pending_count = w->flood_at = 0;
	w->tap_more = true;
	for (tries = 0; tries < SM_BATCH_MAX; tries++) {
		ssize_t got;

		if (!p)
			p = sm_pbuf_get(&w->pool);
		if (!p)
			break;
		got = read(w->tap_fd, p->data - SM_VNET_HDR_LEN, room);
		if (got <= 0) {
			w->tap_more = !sm_worker_tap_error(w, got == 0 ? ENODEV : errno, false);
			if (!w->tap_more)
				break;
		} else if (accept_frame(w, p, (size_t)got)) {
			w->pending[w->pending_count++] = p;
			p = NULL;
		}
	}
	if (p)
		sm_pbuf_put(&w->pool, p);
	sm_worker_count(w, SM_COUNT_SYSCALLS, SM_MIN(tries + 1, SM_BATCH_MAX));
	if (w->pending_count > 0)
		sm_worker_stage(w, SM_STAGE_TAP_READ, w->pending_count);
}

static uint32_t outer_overhead(const struct sm_session_view *s)
{
	return SM_DATA_OVERHEAD + UDP_HEADER_LEN +
	       (s->remote.family == 6 ? IPV6_HEADER_LEN : IPV4_HEADER_LEN);
}

static void on_too_big(struct sm_worker *w, const struct sm_session_view *s)
{
	struct sm_plane_event *event;

	sm_worker_drop(w, SM_DROP_TOO_BIG);
	if (!sm_worker_rate_allow(&w->mtu_rate, s->index, w->now_us))
		return;
	event = sm_worker_event(w, SM_EVENT_PATH_MTU, s->index);
	if (event)
		sm_worker_tell(w);
}

static void account_sent(struct sm_worker *w, const struct sm_out *out, int err)
{
	struct sm_port_cells *cells = &w->ports[out->session->port];

	if (err == -EMSGSIZE) {
		on_too_big(w, out->session);
	} else if (err < 0) {
		sm_worker_drop(w, SM_DROP_SEND);
	} else {
		sm_worker_count(w, SM_COUNT_UDP_SEND_PACKETS, 1);
		sm_worker_count(w, SM_COUNT_UDP_SEND_BYTES, out->pkt->len);
		sm_worker_add(&cells->tx_frames, out->frame_len > 0);
		sm_worker_add(&cells->tx_bytes, out->frame_len);
	}
}

/* A full queue is waited for once and briefly; what then still does not fit is lost, as on a wire. */
static void send_batch(struct sm_worker *w, struct sm_udp_message *msgs, struct sm_out *outs,
		       uint32_t n)
{
	uint64_t begin_ns = w->mark_ns;
	bool last = false;
	int err[SM_BATCH_MAX];

	while (n > 0) {
		uint32_t left = 0;

		(void)!sm_udp_send(w->udp_fd, w->plane->config.udp_mapped, msgs, n, err);
		sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
		for (uint32_t i = 0; i < n; i++) {
			if (err[i] == -EAGAIN && !last) {
				msgs[left] = msgs[i];
				outs[left++] = outs[i];
			} else {
				account_sent(w, &outs[i], err[i]);
			}
		}
		n = left;
		if (n > 0) {
			struct pollfd fd = {.fd = w->udp_fd, .events = POLLOUT};

			(void)poll(&fd, 1, 1);
			last = sm_clock_now_ns() - begin_ns > SEND_WAIT_NS;
		}
	}
}

/**
 * seal_group() - Seal all of @out that go where @first goes, in order
 * @done:  bit for each of @out that some group had; grows
 * @msgs, @sealed: sealed ones are appended, @ret_n counts them
 */
static void seal_group(struct sm_worker *w, uint32_t first, uint64_t *done,
		       struct sm_udp_message *msgs, struct sm_out *sealed, uint32_t *ret_n)
{
	const struct sm_session_view *s = w->out[first].session;
	struct sm_tx_lane *lane = &s->tx->tx[w->index + 1];
	struct sm_pbuf *pkts[SM_BATCH_MAX];
	uint8_t kinds[SM_BATCH_MAX];
	uint32_t n = 0, ok;

	for (uint32_t i = first; i < w->out_count; i++) {
		if (w->out[i].session != s || (*done >> i & 1))
			continue;
		*done |= UINT64_C(1) << i;
		pkts[n] = w->out[i].pkt;
		kinds[n] = w->out[i].kind;
		sealed[*ret_n + n++] = w->out[i];
	}
	ok = sm_tx_lane_seal(lane, pkts, kinds, n, w->now_us);
	for (uint32_t i = 0; i < ok; i++)
		msgs[*ret_n + i] = (struct sm_udp_message){
			.peer = s->remote, .local = s->local, .pkt = pkts[i]};
	*ret_n += ok;
	for (uint32_t i = ok; i < n; i++)
		sm_worker_drop(w, SM_DROP_LIMIT);
	if (ok > 0)
		sm_worker_epoch_event(w, s->tx, s->index, SM_EPOCH_EVENT_USED);
	if (ok < n ||
	    atomic_load_explicit(&lane->next, memory_order_relaxed) >= SM_REKEY_AFTER_PACKETS)
		sm_worker_epoch_event(w, s->tx, s->index, SM_EPOCH_EVENT_WORN);
}

/* Seals and sends what has gathered. */
static void flush(struct sm_worker *w)
{
	struct sm_udp_message msgs[SM_BATCH_MAX];
	struct sm_out sealed[SM_BATCH_MAX];
	uint64_t done = 0;
	uint32_t n = 0;

	if (w->out_count == 0)
		return;
	for (uint32_t i = 0; i < w->out_count; i++) {
		if (!(done >> i & 1))
			seal_group(w, i, &done, msgs, sealed, &n);
	}
	sm_worker_stage(w, SM_STAGE_SEAL, w->out_count);
	if (n > 0) {
		send_batch(w, msgs, sealed, n);
		sm_worker_stage(w, SM_STAGE_UDP_SEND, n);
	}
	for (uint32_t i = 0; i < w->out_count; i++)
		sm_pbuf_put(&w->pool, w->out[i].pkt);
	w->out_count = 0;
}

static void enqueue(struct sm_worker *w, const struct sm_session_view *s, struct sm_pbuf *p,
		    uint8_t kind, uint32_t frame_len)
{
	w->out[w->out_count++] = (struct sm_out){
		.pkt = p, .session = s, .kind = kind, .frame_len = frame_len};
	w->queued++;
	if (w->out_count == SM_BATCH_MAX)
		flush(w);
}

static struct sm_pbuf *copy_of(struct sm_worker *w, const uint8_t *data, uint32_t len)
{
	struct sm_pbuf *p = sm_pbuf_get(&w->pool);

	if (!p) {
		sm_worker_drop(w, SM_DROP_NO_BUFFER);
		return NULL;
	}
	memcpy(sm_pbuf_put_tail(p, len), data, len);
	return p;
}

/* All pieces lie in one flush: at the limit either all of a frame are sealed or none. */
static void split(struct sm_worker *w, const struct sm_session_view *s, const struct sm_pbuf *frame)
{
	uint32_t overhead = outer_overhead(s) + SM_PART_TRAILER_LEN, len = 0;
	uint32_t room = s->path_mtu > overhead ? s->path_mtu - overhead : 0;
	uint32_t count = s->takes_parts ? sm_parts_plan(frame->len, room, &len) : 0;

	if (count == 0) {
		sm_worker_drop(w, SM_DROP_TOO_BIG);
		return;
	}
	if (w->out_count + count > SM_BATCH_MAX)
		flush(w);
	if (w->pool.free_count < count) {
		sm_worker_drop(w, SM_DROP_NO_BUFFER);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct sm_part part = {.index = (uint8_t)i, .count = (uint8_t)count};
		uint32_t at = i * len;
		struct sm_pbuf *p = copy_of(w, frame->data + at, SM_MIN(len, frame->len - at));

		if (!p)
			return;
		sm_part_encode(&part, sm_pbuf_put_tail(p, SM_PART_TRAILER_LEN));
		enqueue(w, s, p, SM_KIND_PART, i == 0 ? frame->len : 0);
	}
}

/**
 * send_frame() - Queue a frame for one session
 * @give: the buffer may be used itself
 * Return: true if it was
 */
static bool send_frame(struct sm_worker *w, const struct sm_session_view *s, struct sm_pbuf *frame,
		       bool give)
{
	if (!s || !s->tx || w->index + 1 >= s->tx->tx_count || s->port >= SM_PORT_MAX) {
		sm_worker_drop(w, SM_DROP_NO_SESSION);
		return false;
	}
	if (frame->len + outer_overhead(s) > s->path_mtu) {
		split(w, s, frame);
		return false;
	}
	if (!give) {
		struct sm_pbuf *copy = copy_of(w, frame->data, frame->len);

		if (copy)
			enqueue(w, s, copy, SM_KIND_FRAME, frame->len);
		return false;
	}
	enqueue(w, s, frame, SM_KIND_FRAME, frame->len);
	return true;
}

/* The frame's receivers are not connected yet, or not all of them. */
static void hold(struct sm_worker *w, sm_port_t port, const struct sm_pbuf *frame)
{
	sm_held_keep(&w->held, port, frame->data, frame->len, w->now_us);
	/* before the look at the publications in wait_for_work(); sm_plane_publish() has the reverse order */
	atomic_store_explicit(&w->holds, 1, memory_order_seq_cst);
}

/* Return: true if the frame went to all, false if the turn's share is used up before */
static bool flood(struct sm_worker *w, const struct sm_snapshot *s, struct sm_pbuf *frame,
		  bool *ret_given)
{
	*ret_given = false;
	if (s->awaited > 0 && w->flood_at == 0)
		hold(w, SM_PORT_NONE, frame);
	else if (s->member_count == 0)
		sm_worker_drop(w, SM_DROP_NO_SESSION);
	while (w->flood_at < s->member_count) {
		sm_port_t port = s->members[w->flood_at];
		bool last = w->flood_at + 1 == s->member_count;

		if (w->queued >= TURN_MAX)
			return false;
		w->flood_at++;
		*ret_given = send_frame(w, port < s->port_count ? s->send[port] : NULL, frame,
					last);
	}
	w->flood_at = 0;
	return true;
}

/* Return: true if the frame is dealt with, false if it must wait for the next turn */
static bool forward(struct sm_worker *w, const struct sm_snapshot *s, struct sm_pbuf *frame)
{
	sm_port_t port = SM_PORT_NONE;
	enum sm_drop why = SM_DROP_NO_SESSION;
	bool given = false, all = true;

	switch (s ? sm_switch_egress(s, frame->data, frame->len, w->now_us, &port, &why)
		  : SM_VERDICT_DROP) {
	case SM_VERDICT_DROP:
		if (why == SM_DROP_NO_SESSION && s && s->awaited > 0)
			hold(w, port, frame);
		else
			sm_worker_drop(w, why);
		w->flood_at = 0; /* a new snapshot may say so amid a flood */
		break;
	case SM_VERDICT_PORT:
		given = send_frame(w, s->send[port], frame, true);
		w->flood_at = 0;
		break;
	case SM_VERDICT_FLOOD:
		all = flood(w, s, frame, &given);
		break;
	}
	if (all && !given)
		sm_pbuf_put(&w->pool, frame);
	return all;
}

struct releasing {
	struct sm_worker *w;
	const struct sm_snapshot *s;
};

static void send_held(void *arg, sm_port_t port, const uint8_t *data, uint32_t len)
{
	struct releasing *r = arg;
	struct sm_pbuf *copy = copy_of(r->w, data, len);

	if (copy && !send_frame(r->w, r->s->send[port], copy, true))
		sm_pbuf_put(&r->w->pool, copy);
}

void sm_egress_held_turn(struct sm_worker *w)
{
	struct releasing r = {.w = w};

	if (w->held_seen == w->generation_seen)
		return;
	w->held_seen = w->generation_seen;
	r.s = sm_worker_snapshot(w);
	w->mark_ns = sm_clock_now_ns();
	w->queued = 0;
	sm_held_release(&w->held, r.s, w->now_us, send_held, &r);
	flush(w);
	if (w->held.count == 0)
		atomic_store_explicit(&w->holds, 0, memory_order_relaxed);
}

void sm_egress_turn(struct sm_worker *w)
{
	const struct sm_snapshot *s;

	if (w->pending_at < w->pending_count)
		w->mark_ns = sm_clock_now_ns();
	else
		read_batch(w);
	if (w->pending_at == w->pending_count)
		return;
	s = sm_worker_snapshot(w);
	w->queued = 0;
	while (w->pending_at < w->pending_count && w->queued < TURN_MAX) {
		if (!forward(w, s, w->pending[w->pending_at]))
			break;
		w->pending_at++;
	}
	flush(w);
}

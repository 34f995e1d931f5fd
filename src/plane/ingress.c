// SPDX-License-Identifier: MIT
/*
 * From UDP to TAP: receive, find the lane, open, join parts, switch, write.
 *
 * Theory of operation: only what opens under its lane's key and is fresh has any effect beyond a counter.
 * A datagram whose lane belongs to another worker is copied into that worker's ring before it is opened;
 * there it is looked up again, under the snapshot that the owner sees. Frames gather in @deliver in the
 * order of arrival and are written when the batch has been opened.
 */
#include "plane/worker.h"

#include <linux/errqueue.h>
#include <unistd.h>

/* Errors in a row after which the socket is left alone for a while */
#define ERRORS_MAX     16u
#define ERROR_QUIET_US (10 * SM_MSEC_US)

/** struct found - What a datagram's header leads to */
struct found {
	struct sm_data_header header;
	const struct sm_session_view *session;
	struct sm_epoch *epoch;
	struct sm_rx_lane *lane;
};

static enum sm_drop look_up(const struct sm_snapshot *s, const struct sm_pbuf *pkt,
			    struct found *ret_found)
{
	struct found f = {0};

	if (sm_data_header_decode(pkt->data, pkt->len, &f.header) < 0)
		return SM_DROP_MALFORMED;
	f.session = s ? sm_snapshot_session(s, f.header.session) : NULL;
	if (!f.session || f.session->port >= SM_PORT_MAX)
		return SM_DROP_UNKNOWN_SESSION;
	for (uint32_t i = 0; i < SM_EPOCHS_MAX && !f.epoch; i++) {
		struct sm_epoch *epoch = f.session->rx[i];

		if (epoch && (uint8_t)epoch->number == f.header.epoch)
			f.epoch = epoch;
	}
	if (!f.epoch)
		return SM_DROP_EPOCH_OVER;
	if (f.header.lane >= f.epoch->rx_count)
		return SM_DROP_MALFORMED;
	f.lane = &f.epoch->rx[f.header.lane];
	*ret_found = f;
	return SM_DROP_NONE;
}

static void hand_over(struct sm_worker *w, uint32_t owner, const struct sm_udp_message *msg)
{
	struct sm_worker *target = &w->plane->workers[owner];
	struct sm_ring *ring = &target->handed[w->index];
	struct sm_handed *slot = NULL;

	if (sizeof(*slot) + msg->pkt->len <= w->plane->handed_size)
		slot = sm_ring_reserve(ring);
	if (!slot) {
		sm_worker_drop(w, SM_DROP_HANDOVER);
		return;
	}
	slot->peer = msg->peer;
	slot->local = msg->local;
	slot->len = msg->pkt->len;
	memcpy(slot->data, msg->pkt->data, msg->pkt->len);
	sm_ring_commit(ring);
	w->poke |= 1u << owner;
	sm_worker_count(w, SM_COUNT_HANDED_OVER, 1);
}

static void deliver(struct sm_worker *w, const struct sm_snapshot *s, sm_port_t from,
		    struct sm_pbuf *frame)
{
	enum sm_drop why = sm_switch_ingress(s, from, frame->data, frame->len, w->now_us);

	if (why == SM_DROP_NONE && frame->len > w->plane->config.frame_max)
		why = SM_DROP_TOO_BIG;
	if (why != SM_DROP_NONE) {
		sm_worker_drop(w, why);
		return;
	}
	sm_worker_add(&w->ports[from].rx_frames, 1);
	sm_worker_add(&w->ports[from].rx_bytes, frame->len);
	w->deliver[w->deliver_count++] = frame;
}

static void on_part(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		    struct sm_pbuf *pkt)
{
	struct sm_parts_key key = {
		.session = f->session->index, .epoch = f->epoch->number, .lane = f->header.lane};
	struct sm_pbuf *frame = NULL;
	struct sm_part part;
	uint64_t evicted = w->parts.evicted;
	int r = -EBADMSG;

	if (pkt->len > SM_PART_TRAILER_LEN &&
	    sm_part_decode(pkt->data + pkt->len - SM_PART_TRAILER_LEN, &part) == 0 &&
	    f->header.number >= part.index) {
		key.first = f->header.number - part.index;
		r = sm_parts_add(&w->parts, &key, &part, pkt->data, pkt->len - SM_PART_TRAILER_LEN,
				 w->now_us, &frame);
	}
	sm_worker_add(&w->drops[SM_DROP_NO_BUFFER], w->parts.evicted - evicted);
	if (r < 0)
		sm_worker_drop(w, r == -ENOBUFS ? SM_DROP_NO_BUFFER : SM_DROP_MALFORMED);
	if (r <= 0)
		return;
	w->joined[w->joined_count++] = frame;
	deliver(w, s, f->session->port, frame);
}

static void on_control(struct sm_worker *w, const struct found *f, const struct sm_udp_message *msg,
		       uint8_t kind, bool newest)
{
	struct sm_plane_event *event;

	if (msg->pkt->len > SM_EVENT_BODY_MAX) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return;
	}
	event = sm_worker_event(w, SM_EVENT_CONTROL, f->session->index);
	if (!event) {
		sm_worker_drop(w, SM_DROP_NO_BUFFER);
		return;
	}
	event->epoch = f->epoch->number;
	event->kind = kind;
	event->newest = newest;
	event->from = msg->peer;
	event->to = msg->local;
	event->len = (uint16_t)msg->pkt->len;
	memcpy(event->body, msg->pkt->data, msg->pkt->len);
	sm_worker_tell(w);
}

/* Only the newest packet of a lane may suggest that the peer moved: an old one may have been delayed. */
static void check_address(struct sm_worker *w, const struct found *f,
			  const struct sm_udp_message *msg)
{
	struct sm_plane_event *event;

	if (sm_addr_equal(&msg->peer, &f->session->remote) ||
	    !sm_worker_rate_allow(&w->address_rate, f->session->index, w->now_us))
		return;
	event = sm_worker_event(w, SM_EVENT_ADDRESS, f->session->index);
	if (!event)
		return;
	event->epoch = f->epoch->number;
	event->newest = true;
	event->from = msg->peer;
	event->to = msg->local;
	sm_worker_tell(w);
}

static void epoch_events(struct sm_worker *w, const struct found *f, bool data)
{
	uint32_t session = f->session->index;

	sm_worker_epoch_event(w, f->epoch, session, SM_EPOCH_EVENT_RECEIVED);
	if (data)
		sm_worker_epoch_event(w, f->epoch, session, SM_EPOCH_EVENT_USED);
	if (f->lane->replay.top >= SM_REKEY_AFTER_PACKETS)
		sm_worker_epoch_event(w, f->epoch, session, SM_EPOCH_EVENT_WORN);
}

/* The packet is authentic and fresh. */
static void dispatch(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		     const struct sm_udp_message *msg, uint8_t kind, bool newest)
{
	bool data = kind == SM_KIND_FRAME || kind == SM_KIND_PART;
	bool control = kind == SM_KIND_STREAM || kind == SM_KIND_PROBE;
	bool right_lane = control ? f->header.lane == SM_LANE_CONTROL
				  : data && f->header.lane != SM_LANE_CONTROL;

	epoch_events(w, f, data && right_lane);
	if (!right_lane)
		sm_worker_drop(w, SM_DROP_MALFORMED);
	else if (kind == SM_KIND_FRAME)
		deliver(w, s, f->session->port, msg->pkt);
	else if (kind == SM_KIND_PART)
		on_part(w, s, f, msg->pkt);
	else
		on_control(w, f, msg, kind, newest);
	if (newest)
		check_address(w, f, msg);
}

static void open_one(struct sm_worker *w, const struct sm_snapshot *s,
		     const struct sm_udp_message *msg)
{
	struct found f;
	enum sm_drop why = look_up(s, msg->pkt, &f);
	uint32_t owner;
	uint8_t kind;
	bool newest;
	int r;

	if (why != SM_DROP_NONE) {
		sm_worker_drop(w, why);
		return;
	}
	owner = f.header.lane % w->plane->config.workers;
	if (owner != w->index) {
		hand_over(w, owner, msg);
		return;
	}
	r = sm_rx_lane_open(f.lane, msg->pkt, &f.header, w->now_us, &kind, &newest);
	if (r < 0) {
		sm_worker_drop(w, r == -EALREADY ? SM_DROP_REPLAYED : SM_DROP_FORGED);
		return;
	}
	dispatch(w, s, &f, msg, kind, newest);
}

/* A frame goes out behind an empty vnet_hdr (GSO_NONE, checksums complete). */
static void write_frame(struct sm_worker *w, struct sm_pbuf *frame)
{
	uint32_t len = frame->len;
	const uint8_t *from;

	if (w->tap_gone) {
		sm_worker_drop(w, SM_DROP_TAP_WRITE);
		return;
	}
	from = memset(sm_pbuf_push(frame, SM_VNET_HDR_LEN), 0, SM_VNET_HDR_LEN);
	sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
	if (write(w->tap_fd, from, frame->len) < 0) {
		(void)sm_worker_tap_error(w, errno, true);
		sm_worker_drop(w, SM_DROP_TAP_WRITE);
		return;
	}
	sm_worker_count(w, SM_COUNT_TAP_WRITE_FRAMES, 1);
	sm_worker_count(w, SM_COUNT_TAP_WRITE_BYTES, len);
}

static void process(struct sm_worker *w, const struct sm_udp_message *msgs, uint32_t n)
{
	const struct sm_snapshot *s = sm_worker_snapshot(w);

	w->deliver_count = w->joined_count = 0;
	for (uint32_t i = 0; i < n; i++)
		open_one(w, s, &msgs[i]);
	sm_worker_stage(w, SM_STAGE_OPEN, n);
	if (w->deliver_count > 0) {
		for (uint32_t i = 0; i < w->deliver_count; i++)
			write_frame(w, w->deliver[i]);
		sm_worker_stage(w, SM_STAGE_TAP_WRITE, w->deliver_count);
	}
	for (uint32_t i = 0; i < w->joined_count; i++)
		sm_pbuf_put(&w->pool, w->joined[i]);
}

/* Takes away what an ICMP message left at the socket, so that poll does not report it for ever. */
static void clear_errors(struct sm_worker *w)
{
	int value;
	socklen_t len = sizeof(value);

	(void)getsockopt(w->udp_fd, SOL_SOCKET, SO_ERROR, &value, &len);
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++) {
		uint8_t control[256];
		struct msghdr m = {.msg_control = control, .msg_controllen = sizeof(control)};

		if (recvmsg(w->udp_fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
	}
	if (++w->udp_errors >= ERRORS_MAX) {
		w->udp_errors = 0;
		w->udp_quiet_us = w->now_us + ERROR_QUIET_US;
	}
}

void sm_ingress_turn(struct sm_worker *w)
{
	uint64_t bytes = 0;
	int n;

	w->mark_ns = sm_clock_now_ns();
	n = sm_udp_receive(w->udp_fd, w->rx, SM_BATCH_MAX);
	sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
	w->udp_more = n == (int)SM_BATCH_MAX;
	if (n < 0 || (n == 0 && w->udp_hangup))
		clear_errors(w);
	if (n <= 0)
		return;
	w->udp_errors = 0;
	for (int i = 0; i < n; i++)
		bytes += w->rx[i].pkt->len;
	sm_worker_count(w, SM_COUNT_UDP_RECEIVE_PACKETS, (uint64_t)n);
	sm_worker_count(w, SM_COUNT_UDP_RECEIVE_BYTES, bytes);
	sm_worker_stage(w, SM_STAGE_UDP_RECEIVE, (uint32_t)n);
	process(w, w->rx, (uint32_t)n);
}

bool sm_ingress_has_handed(struct sm_worker *w)
{
	for (uint32_t i = 0; i < w->plane->config.workers; i++) {
		if (i != w->index && sm_ring_peek(&w->handed[i]))
			return true;
	}
	return false;
}

static uint32_t take_handed(struct sm_worker *w, struct sm_ring *ring, uint32_t n)
{
	const struct sm_handed *slot;

	for (; n < SM_BATCH_MAX && (slot = sm_ring_peek(ring)) != NULL; n++) {
		struct sm_udp_message *msg = &w->rx_handed[n];

		msg->peer = slot->peer;
		msg->local = slot->local;
		sm_pbuf_reset(msg->pkt);
		memcpy(sm_pbuf_put_tail(msg->pkt, slot->len), slot->data, slot->len);
		sm_ring_release(ring);
	}
	return n;
}

bool sm_ingress_handed_turn(struct sm_worker *w)
{
	uint32_t workers = w->plane->config.workers, n = 0;

	w->mark_ns = sm_clock_now_ns();
	for (uint32_t i = 0; i < workers && n < SM_BATCH_MAX; i++) {
		uint32_t from = w->handed_from + i;

		from -= from >= workers ? workers : 0;
		if (from != w->index)
			n = take_handed(w, &w->handed[from], n);
	}
	if (++w->handed_from >= workers)
		w->handed_from = 0;
	if (n > 0)
		process(w, w->rx_handed, n);
	return n == SM_BATCH_MAX;
}

// SPDX-License-Identifier: MIT
/*
 * From TAP to UDP: read, queue, switch, cut, seal, send.
 *
 * Theory of operation: frames are read ahead into slots, super-frames of up to 64 kB among them, as many as there
 * are slots, and leave in the order that the queue gives (core/queue.h): those of flows that send little go
 * first, on the express lane. The switch says where each goes. A frame is cut into datagrams: one for a plain
 * frame that fits, chunks for a super-frame, parts for what does not fit the path. What stands behind a
 * datagram's share of the frame, its trailer, is put there for the moment of sealing, and the frame is whole
 * again afterwards; so nothing is copied, and a flood seals the same frame many times. Sealed datagrams stand
 * one behind another in @out; those of one size, session and lane are a run, which leaves in one piece
 * (UDP_SEGMENT). A run leaves when the turn ends or @out is full: nothing waits for company.
 *
 * A flood to many members may take several turns: no other frame is forwarded before it is done.
 */
#include "core/segment.h"
#include "plane/worker.h"

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

/* Bytes sealed in one turn, so that neither UDP nor who comes later and goes first waits long */
#define TURN_MAX SM_OUT_LEN
/* For how long a full send queue is waited for */
#define SEND_WAIT_NS UINT64_C(1000000)

#define UDP_HEADER_LEN  8u
#define IPV4_HEADER_LEN 20u
#define IPV6_HEADER_LEN 40u
#define TCP_HEADER_LEN  20u
/* No SYN is longer: Ethernet, two tags, the longest IPv4 or some IPv6 extension headers, the longest TCP */
#define SYN_LEN_MAX 256u

/**
 * struct cut - How a frame goes into datagrams
 * @body, @len:   what is shared out, @piece bytes to each of the @count datagrams but the last
 * @trailer:      stands behind each share: template and descriptor (CHUNK), index (PART), and the kind
 * @frames, @bytes: what the counters of the port get
 * @withheld:     of those, the last ones are not sent
 * @express:      on which lane
 */
struct cut {
	uint8_t *body;
	uint32_t len, piece, count, withheld;
	uint32_t frames, bytes;
	enum sm_kind kind;
	bool express;
	struct sm_chunk chunk;
	uint32_t trailer_len;
	uint8_t trailer[SM_TRAILER_MAX];
};

/* --- reading --- */

static bool is_plain(const struct sm_vnet *vnet)
{
	return !(vnet->flags & SM_VNET_NEEDS_CSUM) && vnet->gso_type == SM_VNET_GSO_NONE;
}

/* Return: true if the frame that was read at @p->data is to be forwarded */
static bool accept_frame(struct sm_worker *w, struct sm_tap_frame *p, size_t got)
{
	uint32_t segment;

	if (got <= SM_VNET_HDR_LEN) {
		sm_worker_drop(w, SM_DROP_RUNT);
		return false;
	}
	sm_vnet_decode(p->data - SM_VNET_HDR_LEN, &p->vnet);
	p->len = segment = (uint32_t)(got - SM_VNET_HDR_LEN);
	sm_worker_count(w, SM_COUNT_TAP_READ_FRAMES, 1);
	sm_worker_count(w, SM_COUNT_TAP_READ_BYTES, p->len);
	p->way = SM_WAY_PLAIN;
	if (!is_plain(&p->vnet)) {
		int r = sm_super_classify(w->plane->config.mode, &p->vnet, p->data, p->len,
					  &p->super);

		p->way = r == 0 ? SM_WAY_SUPER : SM_WAY_SOFTWARE;
		if (r == -EBADMSG) {
			sm_worker_drop(w, SM_DROP_MALFORMED);
			return false;
		}
		if (r == 0 && p->super.gso_size > 0)
			segment = p->super.header_len + p->super.gso_size;
		else if (r < 0 && p->vnet.gso_type != SM_VNET_GSO_NONE)
			segment = 0; /* each is looked at when it is cut */
	}
	if (segment > w->plane->config.frame_max) {
		sm_worker_drop(w, SM_DROP_TOO_BIG);
		return false;
	}
	return true;
}

static struct sm_inet *inet_of(const struct sm_worker *w, struct sm_tap_frame *p,
			       struct sm_inet *room)
{
	if (p->way == SM_WAY_SUPER)
		return &p->super.inet;
	return sm_inet_parse(w->plane->config.mode, p->data, p->len, room) == 0 ? room : NULL;
}

static void enqueue(struct sm_worker *w, uint16_t slot)
{
	struct sm_tap_frame *p = &w->frame[slot];
	struct sm_inet room, *inet = inet_of(w, p, &room);
	uint32_t hash = sm_flow_hash(w->plane->config.mode, p->data, p->len, inet);

	p->tcp = inet && inet->proto == SM_PROTO_TCP && inet->end > inet->payload;
	p->lose = false;
	p->express = !sm_flow_is_bulk(&w->flows, hash, p->len, w->flow_us);
	sm_queue_add(&w->queue, slot, p->len, p->express, hash);
}

static void release(struct sm_worker *w, uint16_t slot)
{
	if (w->frame[slot].big < SM_BIG_COUNT)
		w->big_free.free[w->big_free.count++] = w->frame[slot].big;
	w->small_free.free[w->small_free.count++] = (uint8_t)slot;
}

/* Return: what read() says, at most @room bytes that stand in the frame's slots afterwards */
static ssize_t read_frame(struct sm_worker *w, struct sm_tap_frame *p, uint8_t small, size_t room)
{
	uint8_t *first = w->small_slots + (size_t)small * SM_SMALL_LEN + SM_SLOT_HEADROOM;
	uint8_t *big = NULL;
	struct iovec views[2] = {
		{.iov_base = first - SM_VNET_HDR_LEN,
		 .iov_len = SM_MIN(room, SM_VNET_HDR_LEN + SM_SMALL_MAX)},
	};
	ssize_t got;

	p->data = first;
	p->big = SM_BIG_COUNT;
	if (room <= views[0].iov_len)
		return read(w->tap_fd, views[0].iov_base, views[0].iov_len);
	p->big = w->big_free.free[w->big_free.count - 1];
	big = w->big_slots + (size_t)p->big * SM_BIG_LEN + SM_SLOT_HEADROOM;
	views[1] = (struct iovec){.iov_base = big + SM_SMALL_MAX,
				  .iov_len = room - views[0].iov_len};
	got = readv(w->tap_fd, views, 2);
	if (got <= (ssize_t)views[0].iov_len) {
		p->big = SM_BIG_COUNT;
		return got;
	}
	w->big_free.count--;
	p->data = big;
	memcpy(big - SM_VNET_HDR_LEN, views[0].iov_base, views[0].iov_len);
	return got;
}

/* As many as there is room for: who comes behind others in the card's queue may be first in ours. */
static void read_batch(struct sm_worker *w)
{
	const size_t room = SM_VNET_HDR_LEN + w->plane->read_max;
	const bool wants_big = w->plane->read_max > SM_SMALL_MAX;
	uint32_t tries = 0, frames = 0;

	w->tap_more = true;
	while (tries < SM_BATCH_MAX && w->small_free.count > 0 &&
	       (!wants_big || w->big_free.count > 0)) {
		uint8_t slot = w->small_free.free[w->small_free.count - 1];
		struct sm_tap_frame *p = &w->frame[slot];
		ssize_t got = read_frame(w, p, slot, room);

		tries++;
		if (got <= 0) {
			w->tap_more = !sm_worker_tap_error(w, got == 0 ? ENODEV : errno, false);
			if (!w->tap_more)
				break;
			continue;
		}
		w->small_free.count--;
		frames++;
		if (accept_frame(w, p, (size_t)got))
			enqueue(w, slot);
		else
			release(w, slot);
	}
	sm_worker_count(w, SM_COUNT_SYSCALLS, tries);
	if (frames > 0)
		sm_worker_stage(w, SM_STAGE_TAP_READ, frames);
}

/* --- sending --- */

static void on_too_big(struct sm_worker *w, const struct sm_session_view *s, uint32_t lost)
{
	struct sm_plane_event *event;

	sm_worker_add(&w->drops[SM_DROP_TOO_BIG], lost);
	if (!sm_worker_rate_allow(&w->mtu_rate, s->index, w->now_us))
		return;
	event = sm_worker_event(w, SM_EVENT_PATH_MTU, s->index);
	if (event)
		sm_worker_tell(w);
}

/* @lost: datagrams of the run that did not leave, all with @err; @lost_len: their bytes */
static void account_sent(struct sm_worker *w, const struct sm_out_run *run, int err, uint32_t lost,
			 uint32_t lost_len)
{
	struct sm_port_cells *cells = &w->ports[run->session->port];

	if (err == -EMSGSIZE)
		on_too_big(w, run->session, lost);
	else if (err < 0)
		sm_worker_add(&w->drops[SM_DROP_SEND], lost);
	sm_worker_count(w, SM_COUNT_UDP_SEND_PACKETS, run->count - lost);
	sm_worker_count(w, SM_COUNT_UDP_SEND_BYTES, run->len - lost_len);
	if (lost == run->count)
		return;
	sm_worker_add(&cells->tx_frames, run->frames);
	sm_worker_add(&cells->tx_bytes, run->bytes);
}

static struct sm_udp_message message_of(const struct sm_worker *w, const struct sm_out_run *run)
{
	return (struct sm_udp_message){
		.peer = run->session->remote,
		.local = run->session->local,
		.data = w->out + run->at,
		.len = run->len,
		.segment = run->segment,
	};
}

/* A full queue is waited for briefly; what then still does not fit is lost, as on a wire. */
static void send_messages(struct sm_worker *w, struct sm_udp_message *msgs, uint32_t n, int *err)
{
	uint64_t begin_ns = w->mark_ns;
	uint32_t done = 0;
	bool last = false;

	for (;;) {
		struct pollfd fd = {.fd = w->udp_fd, .events = POLLOUT};

		(void)!sm_udp_send(w->udp_fd, w->plane->config.udp_mapped, msgs + done, n - done,
				   err + done);
		sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
		/* A full queue refuses one and all behind it. */
		while (done < n && err[done] != -EAGAIN)
			done++;
		if (done == n || last)
			return;
		(void)poll(&fd, 1, 1);
		last = sm_clock_now_ns() - begin_ns > SEND_WAIT_NS;
	}
}

/* The kernel did not take the run in one piece: is it the run or the datagrams? */
static int send_one_by_one(struct sm_worker *w, const struct sm_out_run *run, uint32_t *ret_lost,
			   uint32_t *ret_lost_len)
{
	struct sm_udp_message msgs[SM_UDP_SEGMENTS_MAX];
	int err[SM_UDP_SEGMENTS_MAX], result = 0;

	for (uint32_t i = 0; i < run->count; i++) {
		uint32_t at = i * run->segment;

		msgs[i] = message_of(w, run);
		msgs[i].data += at;
		msgs[i].len = SM_MIN(run->segment, run->len - at);
		msgs[i].segment = 0;
	}
	send_messages(w, msgs, run->count, err);
	*ret_lost = *ret_lost_len = 0;
	for (uint32_t i = 0; i < run->count; i++) {
		if (err[i] == 0)
			continue;
		result = err[i];
		*ret_lost += 1;
		*ret_lost_len += msgs[i].len;
	}
	return result;
}

static bool is_segment_fault(const struct sm_out_run *run, int err)
{
	return run->count > 1 && (err == -EIO || err == -EINVAL || err == -EMSGSIZE ||
				  err == -EOPNOTSUPP || err == -ENOPROTOOPT);
}

static void send_runs(struct sm_worker *w)
{
	struct sm_udp_message msgs[SM_BATCH_MAX];
	int err[SM_BATCH_MAX];

	for (uint32_t i = 0; i < w->run_count; i++)
		msgs[i] = message_of(w, &w->run[i]);
	send_messages(w, msgs, w->run_count, err);
	for (uint32_t i = 0; i < w->run_count; i++) {
		struct sm_out_run *run = &w->run[i];
		struct sm_offload *offload = &w->ports[run->session->port].send;
		int whole = err[i];
		uint32_t lost = whole < 0 ? run->count : 0, lost_len = whole < 0 ? run->len : 0;

		if (is_segment_fault(run, whole)) {
			err[i] = send_one_by_one(w, run, &lost, &lost_len);
			if (err[i] == 0)
				sm_worker_offload_fault(w, offload, false, run->session->port,
							-whole);
		} else if (run->count > 1 && whole == 0) {
			sm_worker_add(&run->lane->batched, run->count);
			sm_worker_offload_works(w, offload, false, run->session->port);
		}
		account_sent(w, run, err[i], lost, lost_len);
	}
}

/* Sends what was sealed. */
static void flush(struct sm_worker *w)
{
	uint32_t n = 0;

	if (w->run_count == 0)
		return;
	for (uint32_t i = 0; i < w->run_count; i++)
		n += w->run[i].count;
	sm_worker_stage(w, SM_STAGE_SEAL, n);
	send_runs(w);
	sm_worker_stage(w, SM_STAGE_UDP_SEND, n);
	w->run_count = 0;
	w->out_len = 0;
}

/* --- sealing --- */

/* Can a datagram of @len bytes join the last run? */
static bool joins(const struct sm_worker *w, const struct sm_session_view *s,
		  const struct sm_tx_lane *lane, uint32_t len)
{
	const struct sm_out_run *run = &w->run[w->run_count - 1];

	return s->batches && run->session == s && run->lane == lane &&
	       run->len == run->segment * run->count && len <= run->segment &&
	       run->count < SM_UDP_SEGMENTS_MAX && run->len + len <= SM_UDP_BYTES_MAX &&
	       w->now_us >= w->ports[s->port].send.off_us && w->plane->config.udp_offload;
}

/* Return: where a datagram of @len bytes for @s is to be sealed to */
static uint8_t *take_room(struct sm_worker *w, const struct sm_session_view *s,
			  struct sm_tx_lane *lane, uint32_t len)
{
	struct sm_out_run *run;
	uint8_t *at;

	if (w->out_len + len > SM_OUT_LEN)
		flush(w);
	if (w->run_count == 0 || !joins(w, s, lane, len)) {
		if (w->run_count == SM_BATCH_MAX)
			flush(w);
		w->run[w->run_count++] = (struct sm_out_run){
			.session = s, .lane = lane, .at = w->out_len, .segment = len};
	}
	run = &w->run[w->run_count - 1];
	at = w->out + w->out_len;
	run->len += len;
	run->count++;
	w->out_len += len;
	w->queued += len;
	return at;
}

/* The room taken last is not used after all. */
static void give_back(struct sm_worker *w, uint32_t len)
{
	struct sm_out_run *run = &w->run[w->run_count - 1];

	w->out_len -= len;
	run->len -= len;
	if (--run->count == 0)
		w->run_count--;
}

static void set_index(struct cut *cut, uint32_t index)
{
	struct sm_part part = {.index = (uint8_t)index, .count = (uint8_t)cut->count};

	if (cut->kind == SM_KIND_PART) {
		sm_part_encode(&part, cut->trailer);
	} else if (cut->kind == SM_KIND_CHUNK) {
		cut->chunk.index = (uint16_t)index;
		sm_chunk_encode(&cut->chunk, cut->trailer + cut->chunk.header_len);
	}
}

static int seal_piece(struct sm_worker *w, const struct sm_session_view *s, struct sm_tx_lane *lane,
		      const struct cut *cut, uint32_t index, uint64_t number)
{
	uint8_t *from = cut->body + (size_t)index * cut->piece;
	uint32_t len = SM_MIN(cut->piece, cut->len - index * cut->piece);
	uint32_t content = len + cut->trailer_len;
	uint32_t total = SM_DATA_HEADER_LEN + content + SM_TAG_LEN;
	uint8_t saved[SM_TRAILER_MAX], *out = take_room(w, s, lane, total);
	int err;

	memcpy(saved, from + len, cut->trailer_len);
	memcpy(from + len, cut->trailer, cut->trailer_len);
	err = sm_tx_lane_seal_to(lane, number, from, content, out);
	memcpy(from + len, saved, cut->trailer_len);
	if (err)
		give_back(w, total);
	return err;
}

static void seal(struct sm_worker *w, const struct sm_session_view *s, struct cut *cut)
{
	struct sm_tx_lane *lane = sm_epoch_tx(s->tx, w->index, cut->express);
	uint32_t count = cut->count - cut->withheld;
	uint64_t first = 0;
	int err = sm_tx_lane_reserve(lane, count, w->now_us, &first);

	cut->trailer[cut->trailer_len - 1] = (uint8_t)cut->kind;
	for (uint32_t i = 0; i < count && !err; i++) {
		set_index(cut, i);
		err = seal_piece(w, s, lane, cut, i, first + i);
		if (!err && i == 0) {
			w->run[w->run_count - 1].frames += cut->frames;
			w->run[w->run_count - 1].bytes += cut->bytes;
		}
	}
	if (err)
		sm_worker_drop(w, SM_DROP_LIMIT);
	else
		sm_worker_epoch_event(w, s->tx, s->index, SM_EPOCH_EVENT_USED);
	if (err ||
	    atomic_load_explicit(&lane->next, memory_order_relaxed) >= SM_REKEY_AFTER_PACKETS)
		sm_worker_epoch_event(w, s->tx, s->index, SM_EPOCH_EVENT_WORN);
}

/* --- cutting --- */

/* Return: bytes of body that one datagram to @s carries */
static uint32_t room_of(const struct sm_session_view *s)
{
	uint32_t overhead = SM_DATA_OVERHEAD + UDP_HEADER_LEN +
			    (s->remote.family == 6 ? IPV6_HEADER_LEN : IPV4_HEADER_LEN);

	return s->path_mtu > overhead ? s->path_mtu - overhead : 0;
}

static void send_plain(struct sm_worker *w, const struct sm_session_view *s, bool express,
		       uint8_t *data, uint32_t len)
{
	uint32_t room = room_of(s);
	struct cut cut = {.body = data,
			  .len = len,
			  .piece = len,
			  .count = 1,
			  .frames = 1,
			  .bytes = len,
			  .kind = SM_KIND_FRAME,
			  .express = express,
			  .trailer_len = SM_KIND_LEN};

	if (len > room) {
		cut.kind = SM_KIND_PART;
		cut.trailer_len = SM_PART_TRAILER_LEN + SM_KIND_LEN;
		cut.count = s->takes_parts && room > SM_PART_TRAILER_LEN
				    ? sm_parts_plan(len, room - SM_PART_TRAILER_LEN, &cut.piece)
				    : 0;
		if (cut.count == 0) {
			sm_worker_drop(w, SM_DROP_TOO_BIG);
			return;
		}
	}
	seal(w, s, &cut);
}

/* Return: true if it was sent as chunks */
static bool send_chunks(struct sm_worker *w, const struct sm_session_view *s,
			const struct sm_tap_frame *frame)
{
	const struct sm_super *super = &frame->super;
	struct cut cut = {.kind = SM_KIND_CHUNK, .express = frame->express};
	uint32_t template_len = super->gso_size > 0 ? super->header_len : 0;

	if (!s->takes_chunks)
		return false;
	cut.count = sm_super_plan(super, room_of(s), &cut.piece);
	if (cut.count == 0)
		return false;
	cut.body = frame->data + template_len;
	cut.len = frame->len - template_len;
	cut.withheld = frame->lose && cut.count > 1;
	if (cut.withheld > 0)
		sm_worker_drop(w, SM_DROP_STANDING);
	cut.frames = cut.count - cut.withheld;
	cut.bytes = SM_MIN(cut.frames * cut.piece, frame->len - template_len) +
		    cut.frames * template_len;
	cut.chunk.count = (uint16_t)cut.count;
	cut.chunk.gso_size = (uint16_t)(template_len > 0 ? cut.piece : 0);
	cut.chunk.header_len = (uint8_t)template_len;
	cut.trailer_len = template_len + SM_CHUNK_LEN + SM_KIND_LEN;
	memcpy(cut.trailer, frame->data, template_len);
	seal(w, s, &cut);
	return true;
}

/* For a peer or a path that does not take it as it is. */
static void send_in_software(struct sm_worker *w, const struct sm_session_view *s,
			     struct sm_tap_frame *frame)
{
	struct sm_segmenter segmenter;
	uint32_t len;

	if (frame->vnet.gso_type == SM_VNET_GSO_NONE) {
		if (sm_segment_finish(&frame->vnet, frame->data, frame->len) < 0) {
			sm_worker_drop(w, SM_DROP_MALFORMED);
			return;
		}
		frame->vnet = (struct sm_vnet){0};
		frame->way = SM_WAY_PLAIN;
		send_plain(w, s, frame->express, frame->data, frame->len);
		return;
	}
	if (sm_segmenter_init(&segmenter, w->plane->config.mode, &frame->vnet, frame->data,
			      frame->len) < 0) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return;
	}
	while ((len = sm_segmenter_frame_len(&segmenter)) > 0) {
		if (len > w->plane->config.frame_max) {
			sm_worker_drop(w, SM_DROP_TOO_BIG);
			return;
		}
		sm_segmenter_next(&segmenter, w->scratch);
		if (frame->lose && sm_segmenter_frame_len(&segmenter) == 0) {
			sm_worker_drop(w, SM_DROP_STANDING);
			return;
		}
		send_plain(w, s, frame->express, w->scratch, len);
	}
}

/* What a TCP connection agrees on at its start should fit in one piece. */
static void clamp_mss(const struct sm_worker *w, const struct sm_session_view *s,
		      const struct sm_tap_frame *frame)
{
	enum sm_mode mode = w->plane->config.mode;
	uint32_t room = room_of(s), headers;
	struct sm_inet inet;

	if (frame->len > SYN_LEN_MAX || sm_inet_parse(mode, frame->data, frame->len, &inet) < 0 ||
	    inet.proto != SM_PROTO_TCP || !(frame->data[inet.l4 + 13] & SM_TCP_SYN))
		return;
	headers = SM_CHUNK_LEN + inet.l4 + TCP_HEADER_LEN;
	if (room > headers)
		(void)sm_super_clamp_mss(mode, frame->data, frame->len,
					 frame->vnet.flags & SM_VNET_NEEDS_CSUM, room - headers);
}

static void send_frame(struct sm_worker *w, const struct sm_session_view *s,
		       struct sm_tap_frame *frame)
{
	if (!s || !s->tx || w->index + 1 >= s->tx->tx_plain || s->port >= SM_PORT_MAX) {
		sm_worker_drop(w, SM_DROP_NO_SESSION);
		return;
	}
	clamp_mss(w, s, frame);
	if (frame->lose && frame->vnet.gso_type == SM_VNET_GSO_NONE) {
		sm_worker_drop(w, SM_DROP_STANDING);
		return;
	}
	if (frame->way == SM_WAY_PLAIN)
		send_plain(w, s, frame->express, frame->data, frame->len);
	else if (frame->way == SM_WAY_SOFTWARE || !send_chunks(w, s, frame))
		send_in_software(w, s, frame);
}

/* --- forwarding --- */

/*
 * The frame's receivers are not connected yet, or not all of them. A super-frame is not kept: its
 * connection has not begun, or has its own way to repeat it.
 */
static void hold(struct sm_worker *w, sm_port_t port, struct sm_tap_frame *frame)
{
	if (frame->vnet.gso_type != SM_VNET_GSO_NONE ||
	    sm_segment_finish(&frame->vnet, frame->data, frame->len) < 0) {
		sm_worker_drop(w, SM_DROP_NO_SESSION);
		return;
	}
	frame->vnet = (struct sm_vnet){0};
	frame->way = SM_WAY_PLAIN;
	sm_held_keep(&w->held, port, frame->data, frame->len, w->now_us);
	/* before the look at the publications in wait_for_work(); sm_plane_publish() has the reverse order */
	atomic_store_explicit(&w->holds, 1, memory_order_seq_cst);
}

/* Return: true if the frame went to all, false if the turn's share is used up before */
static bool flood(struct sm_worker *w, const struct sm_snapshot *s, struct sm_tap_frame *frame)
{
	if (s->awaited > 0 && w->flood_at == 0)
		hold(w, SM_PORT_NONE, frame);
	else if (s->member_count == 0)
		sm_worker_drop(w, SM_DROP_NO_SESSION);
	while (w->flood_at < s->member_count) {
		sm_port_t port = s->members[w->flood_at];

		if (w->queued >= TURN_MAX)
			return false;
		w->flood_at++;
		send_frame(w, port < s->port_count ? s->send[port] : NULL, frame);
	}
	w->flood_at = 0;
	return true;
}

/* Return: true if the frame is dealt with, false if it must wait for the next turn */
static bool forward(struct sm_worker *w, const struct sm_snapshot *s, struct sm_tap_frame *frame)
{
	sm_port_t port = SM_PORT_NONE;
	enum sm_drop why = SM_DROP_NO_SESSION;

	switch (s ? sm_switch_egress(s, frame->data, frame->len, w->now_us, &port, &why)
		  : SM_VERDICT_DROP) {
	case SM_VERDICT_DROP:
		if (why == SM_DROP_NO_SESSION && s && s->awaited > 0)
			hold(w, port, frame);
		else
			sm_worker_drop(w, why);
		break;
	case SM_VERDICT_PORT:
		send_frame(w, s->send[port], frame);
		break;
	case SM_VERDICT_FLOOD:
		return flood(w, s, frame);
	}
	w->flood_at = 0; /* a new snapshot may say so amid a flood */
	return true;
}

struct releasing {
	struct sm_worker *w;
	const struct sm_snapshot *s;
};

static void send_held(void *arg, sm_port_t port, const uint8_t *data, uint32_t len)
{
	struct releasing *r = arg;
	struct sm_tap_frame frame = {.data = r->w->scratch, .len = len, .express = true};

	memcpy(frame.data, data, len);
	send_frame(r->w, r->s->send[port], &frame);
}

static void release_held(struct sm_worker *w, const struct sm_snapshot *s)
{
	struct releasing r = {.w = w, .s = s};

	if (w->held.count == 0 || !s)
		return;
	sm_held_release(&w->held, s, w->now_us, send_held, &r);
	if (w->held.count == 0)
		atomic_store_explicit(&w->holds, 0, memory_order_relaxed);
}

void sm_egress_held_turn(struct sm_worker *w)
{
	if (w->held_seen == w->generation_seen)
		return;
	w->held_seen = w->generation_seen;
	w->mark_ns = sm_clock_now_ns();
	w->queued = 0;
	release_held(w, sm_worker_snapshot(w));
	flush(w);
}

/* A frame of a connection that fills the card's queue loses its last segment when that queue stands. */
static void signal_standing(struct sm_worker *w, uint16_t slot)
{
	/* It is the turn of whoever comes, so that TCP pays for its own share only of what others keep full. */
	if (slot != SM_QUEUE_NONE && !w->frame[slot].express && sm_aqm_due(&w->aqm, w->now_us))
		w->frame[slot].lose = w->frame[slot].tcp;
}

void sm_egress_turn(struct sm_worker *w, bool read)
{
	const struct sm_snapshot *s;
	uint16_t slot = w->flooding;

	w->mark_ns = sm_clock_now_ns();
	if (read) {
		/* Frames that wait here while the machine stands still are not old when it goes on. */
		w->flow_us = sm_egress_waits(w) ? SM_MIN(w->now_us, w->flow_us + SM_FLOW_WINDOW_US)
						: w->now_us;
		read_batch(w);
		sm_aqm_look(&w->aqm, !w->tap_more, w->now_us);
	}
	if (!sm_egress_waits(w))
		return;
	s = sm_worker_snapshot(w);
	w->queued = 0;
	/* The picture may be newer than what the last held turn saw: what waited goes before what came. */
	release_held(w, s);
	for (uint32_t n = 0; n < SM_BATCH_MAX && w->queued < TURN_MAX; n++) {
		if (slot == SM_QUEUE_NONE) {
			slot = sm_queue_take(&w->queue);
			signal_standing(w, slot);
		}
		if (slot == SM_QUEUE_NONE || !forward(w, s, &w->frame[slot]))
			break;
		release(w, slot);
		slot = SM_QUEUE_NONE;
	}
	w->flooding = slot;
	flush(w);
}

// SPDX-License-Identifier: MIT
/*
 * From UDP to TAP: receive, find the lane, open, join, switch, write.
 *
 * Theory of operation: only what opens under its lane's key and is fresh has any effect beyond a counter.
 * Datagrams whose lane belongs to another worker are copied into that worker's ring before they are opened;
 * there they are looked up again, under the snapshot that the owner sees.
 *
 * Contents are opened into @opened, one behind another. The chunks of a super-frame are opened so that each
 * payload overwrites the trailer of the one before: when the last has come, the payload stands there whole
 * and is written with the rebuilt headers in front. Whatever does not continue it ends it. Other frames
 * gather in @coalesce, which joins those of one flow, and are written when the batch is over, or before
 * something that must not overtake them. Nothing that was opened is kept for the next turn but parts of frames;
 * messages that were received wait in @rx when there are more than a turn takes, but not what goes first.
 */
#include "core/segment.h"
#include "plane/worker.h"

#include <linux/errqueue.h>
#include <sys/uio.h>
#include <unistd.h>

/* Errors in a row after which the socket is left alone for a while */
#define ERRORS_MAX     16u
#define ERROR_QUIET_US (10 * SM_MSEC_US)
/* A message of more bytes on average: the kernel joins datagrams */
#define RX_BIG_BYTES 4096u

/* Bytes processed in one turn, so that neither the TAP nor who comes later and goes first waits long */
#define TURN_MAX SM_OPENED_LEN
#define TORN_MAX (TURN_MAX + 2 * SM_RX_ROOM) /* but a super-frame in two messages is not torn */

/* Damaged messages of several datagrams: looked at that often, and so many before anything follows */
#define GRO_WINDOW_US (1 * SM_SEC_US)
#define GRO_BAD_MIN   16u

/** struct found - What a datagram's header leads to */
struct found {
	struct sm_data_header header;
	const struct sm_session_view *session;
	struct sm_epoch *epoch;
	struct sm_rx_lane *lane;
};

static enum sm_drop look_up(const struct sm_snapshot *s, const uint8_t *datagram, uint32_t len,
			    struct found *ret_found)
{
	struct found f = {0};

	if (sm_data_header_decode(datagram, len, &f.header) < 0)
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
	f.lane = sm_epoch_rx(f.epoch, f.header.lane);
	if (!f.lane)
		return SM_DROP_MALFORMED;
	*ret_found = f;
	return SM_DROP_NONE;
}

/* Everything of @msg from offset @at on that goes to the same lane; Return: its bytes */
static uint32_t same_lane(const struct sm_udp_message *msg, uint32_t at, uint32_t step)
{
	uint32_t end = at;

	while (end < msg->len &&
	       msg->data[end + SM_DATA_LANE_AT] == msg->data[at + SM_DATA_LANE_AT])
		end += SM_MIN(step, msg->len - end);
	return end - at;
}

/* Return: bytes of @msg handed over, one datagram at least */
static uint32_t hand_over(struct sm_worker *w, uint32_t owner, const struct sm_udp_message *msg,
			  uint32_t at, uint32_t step)
{
	struct sm_worker *target = &w->plane->workers[owner];
	uint32_t len = same_lane(msg, at, step), count = (len + step - 1) / step;
	struct sm_handed *slot = sm_ring_reserve(&target->handed[w->index]);

	if (!slot) {
		sm_worker_add(&w->drops[SM_DROP_HANDOVER], count);
		return len;
	}
	slot->peer = msg->peer;
	slot->local = msg->local;
	slot->len = len;
	slot->segment = step;
	memcpy(slot->data, msg->data + at, len);
	sm_ring_commit(&target->handed[w->index]);
	w->poke |= 1u << owner;
	sm_worker_count(w, SM_COUNT_HANDED_OVER, count);
	return len;
}

/* --- to the TAP --- */

/* @frames: that the views are, for the counter of lost ones */
static bool write_views(struct sm_worker *w, const struct iovec *views, uint32_t n, uint32_t len,
			uint32_t frames)
{
	if (w->tap_gone) {
		sm_worker_add(&w->drops[SM_DROP_TAP_WRITE], frames);
		return true;
	}
	sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
	if (writev(w->tap_fd, views, (int)n) < 0)
		return false;
	sm_worker_count(w, SM_COUNT_TAP_WRITE_FRAMES, 1);
	sm_worker_count(w, SM_COUNT_TAP_WRITE_BYTES, len);
	return true;
}

static void write_refused(struct sm_worker *w, uint32_t frames)
{
	(void)sm_worker_tap_error(w, errno, true);
	sm_worker_add(&w->drops[SM_DROP_TAP_WRITE], frames);
}

/* The TAP does not take @run as it is: its segments one by one, checksums complete. */
static void write_in_software(struct sm_worker *w, const struct sm_run *run)
{
	struct sm_segmenter segmenter;
	uint8_t *whole = w->scratch, vnet[SM_VNET_HDR_LEN] = {0};
	uint32_t at = run->head_len, len;

	memcpy(whole, run->head, run->head_len);
	for (uint32_t i = 0; i < run->count && run->payload_len > 0; i++) {
		memcpy(whole + at, run->segment[i].data, run->segment[i].len);
		at += run->segment[i].len;
	}
	if (sm_segmenter_init(&segmenter, w->plane->config.mode, &run->vnet, whole, at) < 0) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return;
	}
	while ((len = sm_segmenter_frame_len(&segmenter)) > 0) {
		const struct iovec views[] = {
			{.iov_base = vnet, .iov_len = sizeof(vnet)},
			{.iov_base = whole + SM_READ_MAX, .iov_len = len},
		};

		sm_segmenter_next(&segmenter, whole + SM_READ_MAX);
		if (!write_views(w, views, SM_ARRAY_SIZE(views), len, 1))
			write_refused(w, 1);
	}
}

static bool takes_super(const struct sm_worker *w, uint8_t gso_type)
{
	if (w->now_us < w->write.off_us)
		return false;
	return sm_plane_takes(gso_type == SM_VNET_GSO_UDP ? &w->plane->tap_uso
							  : &w->plane->tap_tso);
}

/* @frames: that it was joined from */
static void write_run(struct sm_worker *w, struct sm_run *run, uint32_t frames)
{
	struct iovec views[2 + SM_RUN_SEGMENTS_MAX];
	uint8_t vnet[SM_VNET_HDR_LEN];
	uint32_t n = 2;

	if (run->vnet.gso_type != SM_VNET_GSO_NONE && !takes_super(w, run->vnet.gso_type)) {
		write_in_software(w, run);
		return;
	}
	sm_vnet_encode(&run->vnet, vnet);
	views[0] = (struct iovec){.iov_base = vnet, .iov_len = sizeof(vnet)};
	views[1] = (struct iovec){.iov_base = run->head, .iov_len = run->head_len};
	for (uint32_t i = 0; i < run->count && run->payload_len > 0; i++)
		views[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)run->segment[i].data,
					    .iov_len = run->segment[i].len};
	if (write_views(w, views, n, run->head_len + run->payload_len, frames)) {
		if (run->vnet.gso_type != SM_VNET_GSO_NONE)
			sm_worker_offload_works(w, &w->write, true, SM_PORT_LOCAL);
		return;
	}
	if (run->vnet.gso_type == SM_VNET_GSO_NONE || (errno != EINVAL && errno != EOPNOTSUPP)) {
		write_refused(w, frames);
		return;
	}
	sm_worker_offload_fault(w, &w->write, true, SM_PORT_LOCAL, errno);
	write_in_software(w, run);
}

/* Writes all that is complete, but not the super-frame that is being joined. */
static void write_frames(struct sm_worker *w)
{
	uint32_t count = w->coalesce.count;

	if (count > 0) {
		sm_worker_stage(w, SM_STAGE_OPEN, count);
		sm_coalesce_finish(&w->coalesce);
		for (uint32_t i = 0; i < count; i++)
			write_run(w, &w->coalesce.run[i], w->coalesce.run[i].count);
		sm_worker_stage(w, SM_STAGE_TAP_WRITE, count);
		sm_coalesce_init(&w->coalesce, w->plane->config.mode,
				 sm_plane_takes(&w->plane->tap_tso),
				 sm_plane_takes(&w->plane->tap_uso));
	}
	for (uint32_t i = 0; i < w->joined_count; i++)
		sm_pbuf_put(&w->pool, w->joined[i]);
	w->joined_count = 0;
	if (w->joining.count == 0)
		w->opened_len = 0;
}

/* What is being joined is as whole as it gets. */
static void finish_joining(struct sm_worker *w)
{
	struct sm_joining *j = &w->joining;
	struct sm_run *run = &w->joined_run;

	if (j->count == 0)
		return;
	write_frames(w); /* the order of a flow's frames */
	sm_worker_stage(w, SM_STAGE_OPEN, j->count);
	*run = (struct sm_run){0};
	run->head = j->template;
	run->head_len = j->first.header_len;
	run->count = 1;
	run->payload_len = j->payload_len;
	run->segment[0].data = j->payload;
	run->segment[0].len = j->payload_len;
	sm_super_rebuild(&j->inet, &j->first, j->count, j->payload_len, j->template, &run->vnet);
	write_run(w, run, j->count);
	sm_worker_stage(w, SM_STAGE_TAP_WRITE, j->count);
	j->count = 0;
	w->opened_len = 0;
}

static void count_received(struct sm_worker *w, sm_port_t port, uint32_t len)
{
	sm_worker_add(&w->ports[port].rx_frames, 1);
	sm_worker_add(&w->ports[port].rx_bytes, len);
}

/* @len: bytes of @frame that the switch may look at; @whole: of the frame to be */
static bool passes(struct sm_worker *w, const struct sm_snapshot *s, sm_port_t from,
		   const uint8_t *frame, uint32_t len, uint32_t whole)
{
	enum sm_drop why = sm_switch_ingress(s, from, frame, len, w->now_us);

	if (why == SM_DROP_NONE && whole > w->plane->config.frame_max)
		why = SM_DROP_TOO_BIG;
	if (why == SM_DROP_NONE)
		count_received(w, from, whole);
	else
		sm_worker_drop(w, why);
	return why == SM_DROP_NONE;
}

/* A frame that is complete, or whose checksum the TAP finishes. It stays where it is until it is written. */
static void deliver(struct sm_worker *w, const struct sm_snapshot *s, sm_port_t from,
		    uint8_t *frame, uint32_t len, const struct sm_vnet *vnet)
{
	uint32_t opened_len = w->opened_len;

	if (!passes(w, s, from, frame, len, len))
		return;
	if (!sm_coalesce_add(&w->coalesce, frame, len, vnet)) {
		write_frames(w);
		w->opened_len = opened_len; /* this one still stands there */
		(void)!sm_coalesce_add(&w->coalesce, frame, len, vnet);
	}
}

/* --- contents --- */

static void on_frame(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		     uint8_t *body, uint32_t len)
{
	static const struct sm_vnet complete = {0};

	w->opened_len = (uint32_t)(body + len - w->opened);
	deliver(w, s, f->session->port, body, len, &complete);
}

static void on_part(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		    const uint8_t *body, uint32_t len)
{
	static const struct sm_vnet complete = {0};
	struct sm_parts_key key = {
		.session = f->session->index, .epoch = f->epoch->number, .lane = f->header.lane};
	struct sm_pbuf *frame = NULL;
	struct sm_part part;
	uint64_t evicted = w->parts.evicted;
	int r = -EBADMSG;

	if (len > SM_PART_TRAILER_LEN &&
	    sm_part_decode(body + len - SM_PART_TRAILER_LEN, &part) == 0 &&
	    f->header.number >= part.index) {
		key.first = f->header.number - part.index;
		r = sm_parts_add(&w->parts, &key, &part, body, len - SM_PART_TRAILER_LEN, w->now_us,
				 &frame);
	}
	sm_worker_add(&w->drops[SM_DROP_NO_BUFFER], w->parts.evicted - evicted);
	if (r < 0)
		sm_worker_drop(w, r == -ENOBUFS ? SM_DROP_NO_BUFFER : SM_DROP_MALFORMED);
	if (r <= 0)
		return;
	deliver(w, s, f->session->port, frame->data, frame->len, &complete);
	w->joined[w->joined_count++] = frame;
	if (w->joined_count == SM_BATCH_MAX)
		write_frames(w);
}

/* Does the chunk continue what is being joined? Then its payload stands where it belongs. */
static bool continues(const struct sm_joining *j, const struct found *f,
		      const struct sm_chunk *chunk, const uint8_t *payload, const uint8_t *template)
{
	return j->count > 0 && j->lane == f->lane && j->number == f->header.number &&
	       chunk->index == j->first.index + j->count && chunk->count == j->first.count &&
	       chunk->gso_size == j->first.gso_size && chunk->header_len == j->first.header_len &&
	       payload == j->payload + j->payload_len &&
	       memcmp(template, j->template, chunk->header_len) == 0;
}

/* Neither the first nor the last: what was found good of the one before it holds for this one. */
static bool is_more_of_same(const struct sm_joining *j, const struct found *f,
			    const struct sm_chunk *chunk, const uint8_t *payload,
			    uint32_t payload_len, const uint8_t *template)
{
	return chunk->index + 1u < chunk->count && payload_len == chunk->gso_size &&
	       continues(j, f, chunk, payload, template);
}

static void begin_joining(struct sm_worker *w, const struct found *f, const struct sm_chunk *chunk,
			  const struct sm_inet *inet, uint8_t *payload, const uint8_t *template)
{
	struct sm_joining *j = &w->joining;

	j->lane = f->lane;
	j->port = f->session->port;
	j->first = *chunk;
	j->inet = *inet;
	j->count = j->payload_len = 0;
	j->payload = payload;
	memcpy(j->template, template, chunk->header_len);
}

static void on_lone(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		    const struct sm_chunk *chunk, struct sm_inet *inet, uint8_t *body, uint32_t len)
{
	struct sm_vnet vnet;

	w->opened_len = (uint32_t)(body + len - w->opened);
	sm_super_rebuild(inet, chunk, 1, len - inet->payload, body, &vnet);
	deliver(w, s, f->session->port, body, len, &vnet);
}

static void on_chunk(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		     uint8_t *body, uint32_t len)
{
	struct sm_joining *j = &w->joining;
	struct sm_chunk chunk;
	struct sm_inet inet;
	uint32_t payload_len;
	uint8_t *template;

	if (len < SM_CHUNK_LEN || sm_chunk_decode(body + len - SM_CHUNK_LEN, &chunk) < 0 ||
	    len - SM_CHUNK_LEN < chunk.header_len) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return;
	}
	payload_len = len - SM_CHUNK_LEN - chunk.header_len;
	template = chunk.gso_size > 0 ? body + payload_len : body;
	if (is_more_of_same(j, f, &chunk, body, payload_len, template)) {
		count_received(w, f->session->port, payload_len + chunk.header_len);
	} else {
		if (sm_chunk_check(w->plane->config.mode, &chunk, payload_len, template,
				   w->plane->config.frame_max, &inet) < 0) {
			sm_worker_drop(w, SM_DROP_MALFORMED);
			return;
		}
		if (chunk.gso_size == 0) {
			finish_joining(w);
			on_lone(w, s, f, &chunk, &inet, body, payload_len);
			return;
		}
		/* Only the headers are here: by their own length the packet goes on behind them. */
		if (!passes(w, s, f->session->port, template,
			    w->plane->config.mode == SM_MODE_TUN ? SM_FRAME_MAX : chunk.header_len,
			    payload_len + chunk.header_len))
			return;
		if (!continues(j, f, &chunk, body, template)) {
			finish_joining(w); /* of the next number, and yet of something else */
			begin_joining(w, f, &chunk, &inet, body, template);
		}
	}
	j->count++;
	j->payload_len += payload_len;
	j->number = f->header.number + 1;
	w->opened_len = (uint32_t)(body + payload_len - w->opened);
	if (chunk.index + 1 == chunk.count)
		finish_joining(w);
}

/* What a probe of a large path MTU has of padding beyond an event's room is looked at here and left out. */
static uint32_t control_len(const uint8_t *body, const struct sm_opened *opened)
{
	uint32_t len = opened->len;

	while (opened->kind == SM_KIND_PROBE && len > SM_EVENT_BODY_MAX && body[len - 1] == 0)
		len--;
	return len;
}

static void on_control(struct sm_worker *w, const struct found *f, const struct sm_udp_message *msg,
		       const uint8_t *body, const struct sm_opened *opened)
{
	const uint32_t len = control_len(body, opened);
	struct sm_plane_event *event;

	if (len > SM_EVENT_BODY_MAX) {
		sm_worker_drop(w, SM_DROP_MALFORMED);
		return;
	}
	event = sm_worker_event(w, SM_EVENT_CONTROL, f->session->index);
	if (!event) {
		sm_worker_drop(w, SM_DROP_NO_BUFFER);
		return;
	}
	event->epoch = f->epoch->number;
	event->kind = opened->kind;
	event->newest = opened->newest;
	event->from = msg->peer;
	event->to = msg->local;
	event->len = (uint16_t)len;
	memcpy(event->body, body, len);
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
		     const struct sm_udp_message *msg, uint8_t *body,
		     const struct sm_opened *opened)
{
	uint8_t kind = opened->kind;
	bool data = kind == SM_KIND_FRAME || kind == SM_KIND_PART || kind == SM_KIND_CHUNK;
	bool control = kind == SM_KIND_STREAM || kind == SM_KIND_PROBE;
	bool right_lane = control ? f->header.lane == SM_LANE_CONTROL
				  : data && f->header.lane != SM_LANE_CONTROL;

	epoch_events(w, f, data && right_lane);
	if (kind != SM_KIND_CHUNK)
		finish_joining(w); /* what was opened stays where it is */
	if (!right_lane)
		sm_worker_drop(w, SM_DROP_MALFORMED);
	else if (kind == SM_KIND_FRAME)
		on_frame(w, s, f, body, opened->len);
	else if (kind == SM_KIND_CHUNK)
		on_chunk(w, s, f, body, opened->len);
	else if (kind == SM_KIND_PART)
		on_part(w, s, f, body, opened->len);
	else
		on_control(w, f, msg, body, opened);
	if (opened->newest)
		check_address(w, f, msg);
}

/* May the datagram be the next of what is being joined? Known before it is opened, so that it is opened there. */
static bool may_continue(const struct sm_joining *j, const struct found *f)
{
	return j->count > 0 && j->lane == f->lane && j->number == f->header.number;
}

/* Return: true if it is authentic */
static bool open_one(struct sm_worker *w, const struct sm_snapshot *s, const struct found *f,
		     const struct sm_udp_message *msg, const uint8_t *datagram, uint32_t len)
{
	struct sm_opened opened;
	uint8_t *body;
	int r;

	if (!may_continue(&w->joining, f))
		finish_joining(w);
	if (w->opened_len + len > SM_OPENED_LEN) {
		finish_joining(w);
		write_frames(w);
	}
	body = w->opened + w->opened_len;
	r = sm_rx_lane_open_to(f->lane, datagram, len, &f->header, w->now_us, body, &opened);
	if (r < 0) {
		sm_worker_drop(w, r == -EALREADY ? SM_DROP_REPLAYED : SM_DROP_FORGED);
		return r == -EALREADY;
	}
	dispatch(w, s, f, msg, body, &opened);
	return true;
}

/* -- messages of several datagrams that are damaged -- */

/* A fault of this machine's, whoever it was that noticed */
static void set_gro(struct sm_worker *w, bool on)
{
	struct sm_plane_event *event = sm_worker_event(w, SM_EVENT_OFFLOAD, 0);

	for (uint32_t i = 0; i < w->plane->config.workers; i++)
		(void)!sm_udp_set_gro(w->plane->workers[i].udp_fd, on);
	w->gro.off_us = on ? 0 : w->now_us + SM_OFFLOAD_RETRY_US;
	atomic_store_explicit(&w->gro.off, !on, memory_order_relaxed);
	if (!event)
		return;
	event->receiving = true;
	event->err = on ? 0 : EBADMSG;
	sm_worker_tell(w);
}

/*
 * Once in a while: were most of those damaged that came with others, while those that came alone were not?
 * Only messages count that came from a session's remote and began with a datagram of it.
 */
static void judge_gro(struct sm_worker *w)
{
	struct sm_gro_watch *g = &w->gro;

	if (g->off_us && w->now_us >= g->off_us) {
		set_gro(w, true);
	} else if (w->now_us < g->since_us + GRO_WINDOW_US) {
		return;
	} else if (!g->off_us && g->bad >= GRO_BAD_MIN && g->bad > g->good && g->alone > 0) {
		sm_worker_count(w, SM_COUNT_OFFLOAD_FAULTS, 1);
		set_gro(w, false);
	}
	g->since_us = w->now_us;
	g->good = g->bad = g->alone = 0;
}

static void watch_gro(struct sm_worker *w, bool several, uint32_t good, uint32_t bad)
{
	if (several) {
		w->gro.good += good;
		w->gro.bad += bad;
	} else {
		w->gro.alone += good;
	}
}

/*
 * Control messages and the flows that send little have lanes of their own, so that no order is broken. Lanes of
 * other workers are handed over at once, as what comes to those straight does not wait here either.
 */
static bool goes_first(const struct sm_worker *w, const uint8_t *datagram, uint32_t len)
{
	uint8_t lane;

	if (len <= SM_DATA_LANE_AT)
		return false;
	lane = datagram[SM_DATA_LANE_AT];
	return lane & SM_LANE_EXPRESS || lane == SM_LANE_CONTROL ||
	       sm_lane_owner(lane, w->plane->config.workers) != w->index;
}

static uint32_t step_of(const struct sm_udp_message *msg)
{
	return msg->segment > 0 ? msg->segment : SM_MAX(msg->len, 1u);
}

/* Those datagrams of one message that go @first, or those that do not. Return: how many there are of the others */
static uint32_t process(struct sm_worker *w, const struct sm_snapshot *s,
			const struct sm_udp_message *msg, bool first)
{
	uint32_t step = step_of(msg), at = 0;
	uint32_t good = 0, bad = 0, others = 0;
	bool known = false;

	do {
		uint32_t len = SM_MIN(step, msg->len - at), owner;
		struct found f;
		enum sm_drop why;

		if (goes_first(w, msg->data + at, len) != first) {
			others++;
			at += len;
			continue;
		}
		why = look_up(s, msg->data + at, len, &f);
		owner = why == SM_DROP_NONE ? sm_lane_owner(f.header.lane, w->plane->config.workers)
					    : w->index;
		if (owner != w->index) {
			at += hand_over(w, owner, msg, at, step);
			continue;
		}
		if (at == 0)
			known = why == SM_DROP_NONE &&
				sm_addr_equal(&msg->peer, &f.session->remote);
		if (why != SM_DROP_NONE)
			sm_worker_drop(w, why);
		if (why == SM_DROP_NONE && open_one(w, s, &f, msg, msg->data + at, len))
			good++;
		else
			bad++;
		at += len;
	} while (at < msg->len);
	if (known)
		watch_gro(w, step < msg->len, good, bad);
	return others;
}

/* The batch is over: nothing waits for the next one. */
static void end_batch(struct sm_worker *w)
{
	finish_joining(w);
	write_frames(w);
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

static uint32_t datagrams_of(const struct sm_udp_message *msg)
{
	if (msg->segment == 0 || msg->len == 0)
		return 1;
	return (msg->len + msg->segment - 1) / msg->segment;
}

/* Receives behind what waits; Return: messages that came */
static uint32_t receive(struct sm_worker *w)
{
	const uint32_t waiting = w->rx_end - w->rx_at, at = w->rx_end % w->rx_ring;
	const uint32_t room = w->rx_big ? SM_RX_BIG : w->rx_ring;
	const uint32_t want = waiting < room ? SM_MIN(room - waiting, w->rx_ring - at) : 0;
	uint64_t bytes = 0, packets = 0;
	int n;

	if (want == 0)
		return 0;
	n = sm_udp_receive(w->udp_fd, w->rx + at, want);
	sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
	w->udp_more = n == (int)want;
	if (n < 0 || (n == 0 && w->udp_hangup))
		clear_errors(w);
	if (n <= 0)
		return 0;
	w->udp_errors = 0;
	for (int i = 0; i < n; i++) {
		bytes += w->rx[at + (uint32_t)i].len;
		packets += datagrams_of(&w->rx[at + (uint32_t)i]);
	}
	w->rx_big = bytes > (uint64_t)n * RX_BIG_BYTES;
	sm_worker_count(w, SM_COUNT_UDP_RECEIVE_PACKETS, packets);
	sm_worker_count(w, SM_COUNT_UDP_RECEIVE_BYTES, bytes);
	sm_worker_stage(w, SM_STAGE_UDP_RECEIVE, (uint32_t)packets);
	w->rx_end += (uint32_t)n;
	return (uint32_t)n;
}

/* What goes first of the last @n messages, before what has waited longer */
static void process_first(struct sm_worker *w, const struct sm_snapshot *s, uint32_t n)
{
	for (uint32_t i = w->rx_end - n; i != w->rx_end; i++) {
		w->rx_done[i % w->rx_ring] = process(w, s, &w->rx[i % w->rx_ring], true) == 0;
	}
	end_batch(w);
	sm_worker_wake_others(w);
}

void sm_ingress_turn(struct sm_worker *w, bool receiving)
{
	const struct sm_snapshot *s;
	uint32_t n, bytes = 0;

	w->mark_ns = sm_clock_now_ns();
	n = receiving ? receive(w) : 0;
	if (!sm_ingress_waits(w))
		return;
	s = sm_worker_snapshot(w);
	if (n > 0)
		process_first(w, s, n);
	for (; sm_ingress_waits(w) &&
	       (bytes < TURN_MAX || (w->joining.count > 0 && bytes < TORN_MAX));
	     w->rx_at++) {
		const uint32_t at = w->rx_at % w->rx_ring;

		if (w->rx_done[at])
			continue;
		(void)process(w, s, &w->rx[at], false);
		bytes += w->rx[at].len;
	}
	end_batch(w);
	judge_gro(w);
	if (!sm_ingress_waits(w)) {
		w->rx_at = w->rx_end = 0; /* the first places are the warmest */
		w->rx_ring = w->rx_big ? SM_RX_BIG : SM_BATCH_MAX;
	}
}

bool sm_ingress_has_handed(struct sm_worker *w)
{
	for (uint32_t i = 0; i < w->plane->config.workers; i++) {
		if (i != w->index && sm_ring_peek(&w->handed[i]))
			return true;
	}
	return false;
}

/*
 * Straight from the ring's slots.
 * @cost: of what was taken so far: bytes, and of small messages so much that SM_BATCH_MAX of them make a turn
 * Return: the same with what was taken now
 */
static uint32_t take_handed(struct sm_worker *w, const struct sm_snapshot *s, struct sm_ring *ring,
			    uint32_t cost)
{
	struct sm_handed *slot;

	while (cost < TURN_MAX && (slot = sm_ring_peek(ring)) != NULL) {
		const struct sm_udp_message msg = {.peer = slot->peer,
						   .local = slot->local,
						   .data = slot->data,
						   .len = slot->len,
						   .segment = slot->segment};

		(void)process(w, s, &msg, true);
		(void)process(w, s, &msg, false);
		cost += SM_MAX(msg.len, TURN_MAX / SM_BATCH_MAX);
		sm_ring_release(ring);
	}
	return cost;
}

bool sm_ingress_handed_turn(struct sm_worker *w)
{
	uint32_t workers = w->plane->config.workers, cost = 0;
	const struct sm_snapshot *s;

	if (!sm_ingress_has_handed(w))
		return false;
	w->mark_ns = sm_clock_now_ns();
	s = sm_worker_snapshot(w);
	for (uint32_t i = 0; i < workers && cost < TURN_MAX; i++) {
		uint32_t from = w->handed_from + i;

		from -= from >= workers ? workers : 0;
		if (from != w->index)
			cost = take_handed(w, s, &w->handed[from], cost);
	}
	if (++w->handed_from >= workers)
		w->handed_from = 0;
	end_batch(w);
	return cost >= TURN_MAX;
}

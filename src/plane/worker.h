// SPDX-License-Identifier: MIT
/*
 * Inside of the plane: one worker's state, and what egress, ingress and loop share.
 *
 * All but the atomics belongs to the worker's thread. Nothing in here keeps a pointer into a snapshot
 * from one turn to the next.
 */
#ifndef SM_PLANE_WORKER_H
#define SM_PLANE_WORKER_H

#include "base/clock.h"
#include "base/pbuf.h"
#include "base/ring.h"
#include "core/aqm.h"
#include "core/coalesce.h"
#include "core/flow.h"
#include "core/queue.h"
#include "core/super.h"
#include "io/tun.h"
#include "io/udp.h"
#include "plane/held.h"
#include "plane/parts.h"
#include "plane/plane.h"

#include <pthread.h>

static_assert(SM_UDP_BATCH == SM_BATCH_MAX, "one batch is one system call");

#define SM_WORKER_EVENTS 128u /* slots of the ring to the control thread */
#define SM_WORKER_HANDED \
	128u /* slots of the ring between two workers; only what is used of them costs memory */
#define SM_WORKER_OFFLINE UINT64_MAX

/* Behind a share of a frame while it is sealed: template, descriptor, kind */
#define SM_TRAILER_MAX (SM_TEMPLATE_MAX + SM_CHUNK_LEN + SM_KIND_LEN)

/*
 * The longest that a TAP hands over: 64 kB of IP packet, Ethernet header, two tags. A frame is read into a
 * small slot; what does not fit there continues in a big one, where the small one's share is put in front.
 */
#define SM_READ_MAX       (65535u + 14u + 8u)
#define SM_SLOT_HEADROOM  64u
#define SM_SLOT_LEN(room) ((SM_SLOT_HEADROOM + (room) + SM_TRAILER_MAX + 63u) & ~63u)
#define SM_SMALL_MAX      2048u
#define SM_SMALL_LEN      SM_SLOT_LEN(SM_SMALL_MAX)
#define SM_SMALL_COUNT    128u
#define SM_BIG_LEN        SM_SLOT_LEN(SM_READ_MAX)
#define SM_BIG_COUNT      16u
#define SM_OUT_LEN        0x40000u /* 256 kB */

/*
 * Received: each message has room for what the kernel joins (64 kB). While such big ones come, few are taken
 * ahead. What was opened stands in @opened until it is written.
 */
#define SM_RX_ROOM    (65536u + 2112u) /* not a power of two: neighbours use other cache sets */
#define SM_RX_BIG     16u
#define SM_OPENED_LEN 0x40000u /* 256 kB */

/* For how long an offload that failed is not tried again */
#define SM_OFFLOAD_RETRY_US (60 * SM_SEC_US)

enum sm_count {
	SM_COUNT_TAP_READ_FRAMES,
	SM_COUNT_TAP_READ_BYTES,
	SM_COUNT_TAP_WRITE_FRAMES,
	SM_COUNT_TAP_WRITE_BYTES,
	SM_COUNT_UDP_SEND_PACKETS,
	SM_COUNT_UDP_SEND_BYTES,
	SM_COUNT_UDP_RECEIVE_PACKETS,
	SM_COUNT_UDP_RECEIVE_BYTES,
	SM_COUNT_HANDED_OVER,
	SM_COUNT_WAKEUPS,
	SM_COUNT_SYSCALLS,
	SM_COUNT_OFFLOAD_FAULTS,
	SM_COUNT_COUNT,
};

/* How a frame from the TAP travels */
enum sm_way {
	SM_WAY_PLAIN,    /* it is complete */
	SM_WAY_SUPER,    /* as chunks, where the peer takes them */
	SM_WAY_SOFTWARE, /* only after software finished it */
};

/**
 * struct sm_tap_frame - A frame that was read
 * @express: of a flow that sends little
 * @tcp:     with TCP inside
 * @lose:    one segment of it, so that its sender slows down
 * @big:     the big slot that @data is in, else SM_BIG_COUNT
 * @super:   for SM_WAY_SUPER
 */
struct sm_tap_frame {
	uint8_t *data;
	uint32_t len;
	enum sm_way way;
	bool express, tcp, lose;
	uint8_t big;
	struct sm_vnet vnet;
	struct sm_super super;
};

/** struct sm_slots - Free slots, the last used first */
struct sm_slots {
	uint32_t count;
	uint8_t free[SM_SMALL_COUNT];
};
static_assert(SM_SMALL_COUNT <= SM_QUEUE_FRAMES && SM_BIG_COUNT < SM_SMALL_COUNT, "one index");

/**
 * struct sm_out_run - Sealed datagrams that leave in one message
 * @session, @lane: of the snapshot of this turn
 * @at, @len: in the worker's @out
 * @segment: bytes of each but the last
 * @frames, @bytes: what the port's counters get when it has left
 */
struct sm_out_run {
	const struct sm_session_view *session;
	struct sm_tx_lane *lane;
	uint32_t at, len, segment, count;
	uint32_t frames, bytes;
};

/**
 * struct sm_joining - A super-frame that is being put together from chunks
 * @session:  index; 0 with @count 0: none
 * @number:   packet number of the next chunk
 * @first, @count: descriptor of the first, and how many there are
 * @payload:  in the worker's @opened, where the next one's continues
 */
struct sm_joining {
	uint64_t number;
	const struct sm_rx_lane *lane;
	sm_port_t port;
	struct sm_chunk first;
	struct sm_inet inet;
	uint32_t count, payload_len;
	uint8_t *payload;
	uint8_t template[SM_TEMPLATE_MAX];
};

/** struct sm_handed - A message that another worker received, all of it of one lane */
struct sm_handed {
	struct sm_addr peer, local;
	uint32_t len, segment;
	uint8_t data[SM_RX_ROOM];
};

/** struct sm_rate - Lets a session through once in SM_RATE_US; sets of four, so memory is fixed */
#define SM_RATE_US   (UINT64_C(100) * SM_MSEC_US)
#define SM_RATE_SETS 16u
#define SM_RATE_WAYS 4u
struct sm_rate {
	struct {
		uint64_t last_us; /* 0: free */
		uint32_t session;
	} slot[SM_RATE_SETS][SM_RATE_WAYS];
};

/** struct sm_offload - Whether something goes whole; @off_us: not before then; @fault: errno, 0: none */
struct sm_offload {
	uint64_t off_us;
	_Atomic int fault;
};

/**
 * struct sm_gro_watch - Do datagrams that come several in a message (UDP_GRO) come as they were sent?
 * @good, @bad: authentic ones and others in such messages since @since_us, @alone: authentic ones that came alone
 * @off_us: joining is switched off until then, 0: it is not
 */
struct sm_gro_watch {
	uint64_t since_us, off_us;
	uint64_t good, bad, alone;
	_Atomic bool off;
};

struct sm_port_cells {
	_Atomic uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes;
	struct sm_offload send;
};

struct sm_worker {
	/* Read and written by others too */
	_Alignas(64) _Atomic uint64_t generation; /* announced, SM_WORKER_OFFLINE while asleep */
	_Alignas(64) _Atomic uint32_t idle;       /* about to sleep or asleep: wants a wake-up */
	_Atomic uint32_t holds; /* frames wait for a session: wake at a new snapshot */
	struct sm_ring events;  /* to the control thread */
	struct sm_ring *handed; /* by the worker that hands over */

	struct sm_plane *plane;
	uint32_t index;
	int tap_fd, udp_fd, wake_fd;
	pthread_t thread;
	bool running;

	uint64_t now_us;                     /* read once a turn */
	uint64_t mark_ns;                    /* where the stage being timed began */
	uint64_t generation_seen;            /* what @generation holds */
	uint64_t tap_quiet_us, udp_quiet_us; /* not before then */
	uint32_t udp_errors;                 /* in a row */
	bool tap_more, udp_more;             /* worth a try without asking poll */
	bool tap_gone, tap_gone_told;
	bool tap_hangup, udp_hangup; /* poll reported more than input */
	bool told;                   /* events were added: wake the control thread */
	uint32_t poke;               /* workers to be woken, a bit each */
	uint32_t handed_from;        /* whose ring is read first */

	/* Egress: frames read and not yet forwarded, datagrams sealed and not yet sent */
	uint8_t *small_slots, *big_slots, *out, *scratch;
	struct sm_slots small_free, big_free;
	struct sm_tap_frame frame[SM_SMALL_COUNT]; /* by its small slot */
	struct sm_queue queue;
	struct sm_flows flows;
	uint64_t flow_us;  /* their clock */
	struct sm_aqm aqm; /* of the card's queue */
	uint16_t flooding; /* the frame that is on its way to many, SM_QUEUE_NONE */
	uint32_t flood_at; /* members that it went to already */
	uint32_t queued;   /* bytes sealed in this turn */
	struct sm_out_run run[SM_BATCH_MAX];
	uint32_t run_count, out_len;
	struct sm_held held;
	uint64_t held_seen; /* publication that sm_held_release() was last called for */

	/* Ingress: received messages; what was opened and is to be written */
	uint8_t *received, *opened;
	struct sm_udp_message rx[SM_BATCH_MAX];
	bool rx_done[SM_BATCH_MAX]; /* nothing of it waits any more */
	uint32_t rx_at, rx_end; /* those that wait: counted on, a place is the rest by @rx_ring */
	uint32_t rx_ring;       /* messages that may wait; changed when none does */
	bool rx_big;            /* those that came last were big */
	uint32_t opened_len;
	struct sm_joining joining;
	struct sm_run joined_run;
	struct sm_coalesce coalesce;
	struct sm_offload write; /* super-frames to the TAP */
	struct sm_gro_watch gro;
	struct sm_pbuf_pool pool; /* for @parts */
	struct sm_parts parts;
	struct sm_pbuf *
		joined[SM_BATCH_MAX]; /* frames made of parts, written and to go back to the pool */
	uint32_t joined_count;
	struct sm_rate address_rate, mtu_rate;

	_Atomic uint64_t count[SM_COUNT_COUNT];
	_Atomic uint64_t drops[SM_DROP_COUNT];
	struct sm_port_cells *ports;
	struct sm_stage_profile profile[SM_STAGE_COUNT];
};

struct sm_plane {
	struct sm_plane_config config;
	struct sm_worker *workers;
	uint32_t read_max; /* longest frame that the TAP hands over */
	bool started;
	_Atomic bool tap_tso, tap_uso; /* super-frames that the TAP takes */

	_Atomic(struct sm_snapshot *) snapshot;
	_Atomic uint64_t generation; /* snapshots published */
	_Atomic bool stop;
	_Atomic bool tap_gone; /* the control thread was told */

	/* Control thread */
	struct sm_snapshot *retired, **retired_tail;
	void (*retire)(void *arg, struct sm_snapshot *snapshot);
	void *retire_arg;
	_Atomic uint64_t control_packets, control_bytes;
};

static inline bool sm_plane_takes(const _Atomic bool *super_frames)
{
	return atomic_load_explicit(super_frames, memory_order_relaxed);
}

/* One writer: load and store, no locked instruction. */
static inline void sm_worker_add(_Atomic uint64_t *cell, uint64_t n)
{
	atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline void sm_worker_count(struct sm_worker *w, enum sm_count what, uint64_t n)
{
	sm_worker_add(&w->count[what], n);
}

static inline void sm_worker_drop(struct sm_worker *w, enum sm_drop why)
{
	sm_worker_add(&w->drops[why], 1);
}

/** sm_worker_stage() - The stage since the last mark is over; @n: frames it handled; sets the mark anew */
void sm_worker_stage(struct sm_worker *w, enum sm_stage stage, uint32_t n);

/**
 * sm_worker_snapshot() - The newest snapshot; call after frames were read or received
 * Return: NULL before the first was published; else valid until the end of the turn
 */
const struct sm_snapshot *sm_worker_snapshot(struct sm_worker *w);

/** sm_worker_event() - Begin an event; Return: slot to fill, NULL when the ring is full */
struct sm_plane_event *sm_worker_event(struct sm_worker *w, enum sm_plane_event_type type,
				       uint32_t session);
/** sm_worker_tell() - Hand over the event begun */
void sm_worker_tell(struct sm_worker *w);

/** sm_worker_epoch_event() - Tell the control thread once that @bit (SM_EPOCH_EVENT_*) came to be */
void sm_worker_epoch_event(struct sm_worker *w, struct sm_epoch *epoch, uint32_t session,
			   uint32_t bit);

/** sm_worker_rate_allow() - Return: true if @session was not let through for SM_RATE_US */
bool sm_worker_rate_allow(struct sm_rate *rate, uint32_t session, uint64_t now_us);

/** sm_worker_offload_fault() - It does not go whole: not to be tried for a while; told to the control thread */
void sm_worker_offload_fault(struct sm_worker *w, struct sm_offload *offload, bool writing,
			     sm_port_t port, int err);
/** sm_worker_offload_works() - It went whole; told if the last time it did not */
void sm_worker_offload_works(struct sm_worker *w, struct sm_offload *offload, bool writing,
			     sm_port_t port);

/** sm_worker_tap_error() - A read or write failed with @err (positive errno); Return: true if the batch is over */
bool sm_worker_tap_error(struct sm_worker *w, int err, bool writing);

/** sm_worker_wake_others() - Those that got something handed over in this turn */
void sm_worker_wake_others(struct sm_worker *w);

/** sm_worker_main() - The thread; @arg: struct sm_worker */
void *sm_worker_main(void *arg);

/** sm_egress_held_turn() - After a publication: send what newly connected peers have missed */
void sm_egress_held_turn(struct sm_worker *w);

/** sm_egress_waits() - Return: true if frames were read and not all forwarded */
static inline bool sm_egress_waits(const struct sm_worker *w)
{
	return w->queue.count > 0 || w->flooding != SM_QUEUE_NONE;
}

/** sm_egress_turn() - One batch from TAP to UDP; @read: new frames too */
void sm_egress_turn(struct sm_worker *w, bool read);

/** sm_ingress_waits() - Return: true if messages were received and not all processed */
static inline bool sm_ingress_waits(const struct sm_worker *w)
{
	return w->rx_at != w->rx_end;
}

/** sm_ingress_turn() - One batch from UDP to TAP; @receiving: new messages too */
void sm_ingress_turn(struct sm_worker *w, bool receiving);

/** sm_ingress_handed_turn() - One batch that other workers handed over; Return: true if there may be more */
bool sm_ingress_handed_turn(struct sm_worker *w);
/** sm_ingress_has_handed() - Return: true if something waits in a ring */
bool sm_ingress_has_handed(struct sm_worker *w);

#endif

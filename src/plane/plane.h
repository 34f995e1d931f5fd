// SPDX-License-Identifier: MIT
/*
 * The data plane: N worker threads, each with its UDP socket, its TAP queue, its buffers and counters.
 *
 * Theory of operation: a worker polls its two descriptors, runs to completion in batches (TAP read, switch,
 * seal, UDP send; UDP receive, open, switch, TAP write) and never allocates, locks or logs per packet. It
 * loads the snapshot pointer after each receive or read and announces its generation, so that the control
 * thread can free what nobody sees any more; asleep in poll it counts as passed on. A receiving lane has
 * one owner, worker sm_lane_owner(); a datagram that the kernel gave to another worker is copied into the
 * owner's ring. What concerns the control thread goes there as a typed event through a bounded ring.
 */
#ifndef SM_PLANE_PLANE_H
#define SM_PLANE_PLANE_H

#include "base/hist.h"
#include "core/snapshot.h"
#include "core/switch.h"

struct sm_plane;

/* Stages with a histogram each, per batch and per frame */
enum sm_stage {
	SM_STAGE_TAP_READ,
	SM_STAGE_SEAL,
	SM_STAGE_UDP_SEND,
	SM_STAGE_UDP_RECEIVE,
	SM_STAGE_OPEN,
	SM_STAGE_TAP_WRITE,
	SM_STAGE_COUNT,
};
const char *sm_stage_name(enum sm_stage stage);

struct sm_stage_profile {
	struct sm_hist per_batch, per_frame;
};

enum sm_plane_event_type {
	SM_EVENT_CONTROL, /* authenticated content of the control lane (kind and body) */
	SM_EVENT_ADDRESS, /* newest packet of a lane came from another address than the session's remote */
	SM_EVENT_EPOCH_RECEIVED, /* first packet under this epoch was opened */
	SM_EVENT_EPOCH_USED,     /* first data packet under this epoch, in either direction */
	SM_EVENT_EPOCH_WORN,     /* SM_REKEY_AFTER_PACKETS passed */
	SM_EVENT_PATH_MTU,       /* EMSGSIZE: the path carries less than path_mtu says */
	SM_EVENT_TAP_GONE,       /* the interface was removed or its queue failed for good */
	SM_EVENT_OFFLOAD,        /* batches or super-frames fail, or are tried again */
};

#define SM_EVENT_BODY_MAX 2048u

struct sm_plane_event {
	enum sm_plane_event_type type;
	uint32_t session; /* our index */
	uint32_t epoch;   /* number; EPOCH_* */
	uint8_t kind;     /* CONTROL: enum sm_kind */
	bool newest;      /* CONTROL: highest number of its lane */
	bool writing;     /* OFFLOAD: to the TAP */
	bool receiving;   /* OFFLOAD: from UDP, several in a message */
	sm_port_t port;   /* OFFLOAD: to whom, if not */
	int err;          /* OFFLOAD: errno of the refusal, 0: it goes again */
	struct sm_addr from,
		to; /* CONTROL, ADDRESS: the datagram's source and our address (0: unknown) */
	uint16_t len;
	uint8_t body[SM_EVENT_BODY_MAX];
};

/**
 * struct sm_plane_config
 * @workers:  1 to SM_WORKER_MAX
 * @tap_fd:   one queue for each worker; the plane does not close them
 * @udp_fd:   one socket for each worker (IPv6 dual-stack or IPv4); the plane does not close them
 * @udp_mapped: sockets are dual-stack IPv6, so IPv4 goes as mapped
 * @frame_max: largest frame to expect (MTU + 14 + 4 + 4, or MTU for TUN)
 * @tap_tso, @tap_uso: the TAP takes super-frames of TCP, of UDP, and hands them over
 * @tap_later: it may from sm_plane_set_tap() on
 * @udp_offload: datagrams of one size may be sent in one message
 * @wake:     called from worker threads when events wait; must be async-signal-light (uv_async_send)
 */
struct sm_plane_config {
	uint32_t workers;
	enum sm_mode mode;
	const int *tap_fd, *udp_fd;
	bool udp_mapped;
	uint32_t frame_max;
	bool tap_tso, tap_uso, tap_later, udp_offload;
	void (*wake)(void *arg);
	void *arg;
};

/** sm_plane_new() - Make buffers and rings; threads start with sm_plane_start(); Return: 0, -ENOMEM, ... */
SM_MUST_CHECK int sm_plane_new(const struct sm_plane_config *config, struct sm_plane **ret_plane);
SM_MUST_CHECK int sm_plane_start(struct sm_plane *plane);
/** sm_plane_stop() - End and join the threads */
void sm_plane_stop(struct sm_plane *plane);
void sm_plane_free(struct sm_plane *plane);

/**
 * sm_plane_publish() - Control thread: make @snapshot the one that workers see from now on
 *
 * The previous one is handed to @retire (set by sm_plane_on_retire) when no worker can see it any more: at
 * once if all sleep or have passed on, else by a later sm_plane_poll(). Never blocks.
 * Ownership: the plane keeps the pointer until it is retired; sm_plane_free() retires the last
 */
void sm_plane_publish(struct sm_plane *plane, struct sm_snapshot *snapshot);
void sm_plane_on_retire(struct sm_plane *plane,
			void (*retire)(void *arg, struct sm_snapshot *snapshot), void *arg);

/** sm_plane_poll() - Control thread: drain events (in order per worker) and retire snapshots; Return: events handled */
uint32_t sm_plane_poll(struct sm_plane *plane,
		       void (*on_event)(void *arg, const struct sm_plane_event *event), void *arg);
/** sm_plane_has_retired_pending() - Return: true while a published-over snapshot waits for a worker */
bool sm_plane_has_retired_pending(const struct sm_plane *plane);

/** sm_plane_send() - Control thread: send one sealed control-lane datagram; Return: 0, -EAGAIN, -errno */
SM_MUST_CHECK int sm_plane_send(struct sm_plane *plane, const struct sm_addr *to,
				const struct sm_addr *from, const void *data, size_t len);

/** sm_plane_send_batch() - The same for several of @segment bytes each, in one message */
SM_MUST_CHECK int sm_plane_send_batch(struct sm_plane *plane, const struct sm_addr *to,
				      const struct sm_addr *from, const void *data, size_t len,
				      size_t segment);

struct sm_plane_counters {
	uint64_t tap_read_frames, tap_read_bytes, tap_write_frames, tap_write_bytes;
	uint64_t udp_send_packets, udp_send_bytes, udp_receive_packets, udp_receive_bytes;
	uint64_t handed_over, wakeups, syscalls;
	uint64_t
		offload_faults; /* runs that the kernel could not cut, super-frames that the TAP refused */
	uint64_t drops[SM_DROP_COUNT];
};

/** sm_plane_counters() - Sum over the workers */
void sm_plane_counters(const struct sm_plane *plane, struct sm_plane_counters *ret_counters);
/** sm_plane_profile() - Merged over the workers */
void sm_plane_profile(const struct sm_plane *plane,
		      struct sm_stage_profile ret_profile[SM_STAGE_COUNT]);

/** sm_plane_set_tap() - What sm_plane_config says of the TAP, later; before it hands any super-frame over */
void sm_plane_set_tap(struct sm_plane *plane, bool tso, bool uso);

/** sm_plane_offload_fault() - Return: errno why batches to @port go one by one at present, 0: they do not */
int sm_plane_offload_fault(const struct sm_plane *plane, sm_port_t port);
/** sm_plane_gro_is_off() - Were messages of several datagrams damaged, so that none are asked for at present? */
bool sm_plane_gro_is_off(const struct sm_plane *plane);
/** sm_plane_write_fault() - Return: errno why super-frames to the TAP are cut at present, 0: they are not */
int sm_plane_write_fault(const struct sm_plane *plane);

/** sm_plane_port_counters() - Frames and bytes that port sent to us and we to it */
struct sm_port_counters {
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes;
};
void sm_plane_port_counters(const struct sm_plane *plane, sm_port_t port,
			    struct sm_port_counters *ret_counters);

#endif

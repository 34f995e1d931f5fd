// SPDX-License-Identifier: MIT
/*
 * The control thread's side of the plane: making and ending workers, snapshots, events, counters.
 */
#include "plane/plane.h"

#include "plane/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define STACK_SIZE ((size_t)256 * 1024)
/* Frames in the making, and those that became whole in one batch */
#define POOL_COUNT (SM_PARTS_SLOTS + SM_BATCH_MAX + 8u)

static const char *const stage_names[] = {
	[SM_STAGE_TAP_READ] = "tap_read", [SM_STAGE_SEAL] = "seal",
	[SM_STAGE_UDP_SEND] = "udp_send", [SM_STAGE_UDP_RECEIVE] = "udp_receive",
	[SM_STAGE_OPEN] = "open",         [SM_STAGE_TAP_WRITE] = "tap_write",
};
static_assert(SM_ARRAY_SIZE(stage_names) == SM_STAGE_COUNT, "a name for each stage");

const char *sm_stage_name(enum sm_stage stage)
{
	return (unsigned)stage < SM_STAGE_COUNT ? stage_names[stage] : "unknown";
}

static void init_slots(struct sm_slots *slots, uint32_t count)
{
	for (slots->count = 0; slots->count < count; slots->count++)
		slots->free[slots->count] = (uint8_t)(count - 1 - slots->count);
}

static int init_buffers(struct sm_worker *w)
{
	/* Only what is touched costs memory: the big ones come straight from the kernel, and as zeros. */
	w->small_slots = malloc((size_t)SM_SMALL_COUNT * SM_SMALL_LEN);
	w->big_slots = malloc((size_t)SM_BIG_COUNT * SM_BIG_LEN);
	w->out = malloc(SM_OUT_LEN);
	w->scratch = malloc((size_t)2 * SM_BIG_LEN);
	w->received = malloc((size_t)SM_BATCH_MAX * SM_RX_ROOM);
	w->opened = malloc(SM_OPENED_LEN);
	if (!w->small_slots || !w->big_slots || !w->out || !w->scratch || !w->received ||
	    !w->opened)
		return -ENOMEM;
	init_slots(&w->small_free, SM_SMALL_COUNT);
	init_slots(&w->big_free, SM_BIG_COUNT);
	sm_queue_init(&w->queue);
	w->flooding = SM_QUEUE_NONE;
	for (uint32_t i = 0; i < SM_BATCH_MAX; i++)
		w->rx[i] = (struct sm_udp_message){.data = w->received + (size_t)i * SM_RX_ROOM,
						   .room = SM_RX_ROOM};
	w->rx_ring = SM_BATCH_MAX;
	return 0;
}

static int init_rings(struct sm_worker *w)
{
	uint32_t workers = w->plane->config.workers;
	int err;

	err = sm_ring_init(&w->events, SM_WORKER_EVENTS, sizeof(struct sm_plane_event));
	if (err)
		return err;
	w->handed = aligned_alloc(_Alignof(struct sm_ring), workers * sizeof(*w->handed));
	if (!w->handed)
		return -ENOMEM;
	memset(w->handed, 0, workers * sizeof(*w->handed));
	for (uint32_t i = 0; i < workers && !err; i++) {
		if (i != w->index)
			err = sm_ring_init(&w->handed[i], SM_WORKER_HANDED,
					   sizeof(struct sm_handed));
	}
	return err;
}

static int init_worker(struct sm_worker *w, struct sm_plane *plane, uint32_t index)
{
	int err;

	w->plane = plane;
	w->index = index;
	w->tap_fd = plane->config.tap_fd[index];
	w->udp_fd = plane->config.udp_fd[index];
	w->generation_seen = SM_WORKER_OFFLINE;
	atomic_init(&w->generation, SM_WORKER_OFFLINE);
	w->ports = calloc(SM_PORT_MAX, sizeof(*w->ports));
	if (!w->ports)
		return -ENOMEM;
	err = sm_pbuf_pool_init(&w->pool, POOL_COUNT, plane->config.frame_max);
	if (!err)
		err = init_buffers(w);
	if (!err)
		err = init_rings(w);
	if (!err)
		err = sm_held_init(&w->held, plane->config.frame_max);
	if (err)
		return err;
	sm_parts_init(&w->parts, &w->pool, plane->config.frame_max);
	sm_coalesce_init(&w->coalesce, plane->config.mode, sm_plane_takes(&plane->tap_tso),
			 sm_plane_takes(&plane->tap_uso));
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return w->wake_fd < 0 ? -errno : 0;
}

static void done_worker(struct sm_worker *w)
{
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	for (uint32_t i = 0; w->handed && i < w->plane->config.workers; i++)
		sm_ring_done(&w->handed[i]);
	free(w->handed);
	sm_ring_done(&w->events);
	sm_held_done(&w->held);
	sm_pbuf_pool_done(&w->pool);
	free(w->small_slots);
	free(w->big_slots);
	free(w->out);
	free(w->scratch);
	free(w->received);
	free(w->opened);
	free(w->ports);
}

int sm_plane_new(const struct sm_plane_config *config, struct sm_plane **ret_plane)
{
	struct sm_plane *plane;
	size_t size;
	int err = 0;

	if (config->workers == 0 || config->workers > SM_WORKER_MAX || !config->wake ||
	    config->frame_max < SM_ETH_HEADER_LEN || config->frame_max > SM_FRAME_MAX)
		return -EINVAL;
	plane = calloc(1, sizeof(*plane));
	if (!plane)
		return -ENOMEM;
	plane->config = *config;
	plane->config.tap_fd = plane->config.udp_fd =
		NULL; /* the caller's arrays end with the call */
	plane->retired_tail = &plane->retired;
	plane->read_max = config->tap_tso || config->tap_uso || config->tap_later
				  ? SM_READ_MAX
				  : config->frame_max + 1;
	sm_plane_set_tap(plane, config->tap_tso, config->tap_uso);
	size = config->workers * sizeof(*plane->workers);
	plane->workers = aligned_alloc(_Alignof(struct sm_worker), size);
	if (!plane->workers) {
		free(plane);
		return -ENOMEM;
	}
	memset(plane->workers, 0, size);
	for (uint32_t i = 0; i < config->workers; i++) {
		plane->workers[i].plane = plane;
		plane->workers[i].wake_fd = -1;
	}
	plane->config.tap_fd = config->tap_fd;
	plane->config.udp_fd = config->udp_fd;
	for (uint32_t i = 0; i < config->workers && !err; i++)
		err = init_worker(&plane->workers[i], plane, i);
	plane->config.tap_fd = plane->config.udp_fd = NULL;
	if (err) {
		sm_plane_free(plane);
		return err;
	}
	*ret_plane = plane;
	return 0;
}

static int start_thread(struct sm_worker *w, const pthread_attr_t *attr)
{
	char name[16];
	int r = pthread_create(&w->thread, attr, sm_worker_main, w);

	if (r != 0)
		return -r;
	w->running = true;
	(void)snprintf(name, sizeof(name), "smesh-w%u", w->index);
	(void)pthread_setname_np(w->thread, name);
	return 0;
}

int sm_plane_start(struct sm_plane *plane)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int err = 0;

	if (plane->started)
		return -EALREADY;
	if (pthread_attr_init(&attr) != 0)
		return -ENOMEM;
	(void)pthread_attr_setstacksize(&attr, STACK_SIZE);
	/* Signals are the control thread's: a new thread takes over the mask. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_store_explicit(&plane->stop, false, memory_order_relaxed);
	plane->started = true;
	for (uint32_t i = 0; i < plane->config.workers && !err; i++)
		err = start_thread(&plane->workers[i], &attr);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attr);
	if (err)
		sm_plane_stop(plane);
	return err;
}

static void retire_passed(struct sm_plane *plane)
{
	uint64_t passed = SM_WORKER_OFFLINE;
	struct sm_snapshot *s;

	for (uint32_t i = 0; i < plane->config.workers; i++) {
		uint64_t seen = atomic_load_explicit(&plane->workers[i].generation,
						     memory_order_seq_cst);

		passed = SM_MIN(passed, seen);
	}
	while ((s = plane->retired) != NULL && s->retired_at <= passed) {
		plane->retired = s->retired_next;
		if (!plane->retired)
			plane->retired_tail = &plane->retired;
		s->retired_next = NULL;
		if (plane->retire)
			plane->retire(plane->retire_arg, s);
	}
}

void sm_plane_stop(struct sm_plane *plane)
{
	if (!plane->started)
		return;
	atomic_store_explicit(&plane->stop, true, memory_order_release);
	for (uint32_t i = 0; i < plane->config.workers; i++)
		(void)!eventfd_write(plane->workers[i].wake_fd, 1);
	for (uint32_t i = 0; i < plane->config.workers; i++) {
		struct sm_worker *w = &plane->workers[i];

		if (w->running)
			(void)pthread_join(w->thread, NULL);
		w->running = false;
	}
	plane->started = false;
	retire_passed(plane);
}

void sm_plane_free(struct sm_plane *plane)
{
	struct sm_snapshot *last;

	if (!plane)
		return;
	sm_plane_stop(plane);
	retire_passed(plane); /* all are offline */
	last = atomic_exchange_explicit(&plane->snapshot, NULL, memory_order_relaxed);
	if (last && plane->retire)
		plane->retire(plane->retire_arg, last);
	for (uint32_t i = 0; i < plane->config.workers; i++)
		done_worker(&plane->workers[i]);
	free(plane->workers);
	free(plane);
}

/* A worker that sleeps on frames for a session must see that it is there (sm_egress_held_turn()). */
static void wake_holders(struct sm_plane *plane)
{
	for (uint32_t i = 0; i < plane->config.workers; i++) {
		struct sm_worker *w = &plane->workers[i];

		if (atomic_load_explicit(&w->holds, memory_order_seq_cst) &&
		    atomic_exchange_explicit(&w->idle, 0, memory_order_seq_cst))
			(void)!eventfd_write(w->wake_fd, 1);
	}
}

void sm_plane_publish(struct sm_plane *plane, struct sm_snapshot *snapshot)
{
	/* The order of these two, and of the loads in retire_passed(), is explained in worker.c. */
	struct sm_snapshot *old = atomic_exchange_explicit(&plane->snapshot, snapshot,
							   memory_order_seq_cst);
	uint64_t generation = atomic_fetch_add_explicit(&plane->generation, 1,
							memory_order_seq_cst) +
			      1;

	if (old) {
		old->retired_at = generation;
		old->retired_next = NULL;
		*plane->retired_tail = old;
		plane->retired_tail = &old->retired_next;
	}
	wake_holders(plane);
	retire_passed(plane);
}

void sm_plane_on_retire(struct sm_plane *plane,
			void (*retire)(void *arg, struct sm_snapshot *snapshot), void *arg)
{
	plane->retire = retire;
	plane->retire_arg = arg;
}

/* At most what the ring held at one time, so that a busy worker cannot keep the control thread here. */
static uint32_t drain(struct sm_plane *plane, struct sm_worker *w,
		      void (*on_event)(void *arg, const struct sm_plane_event *event), void *arg)
{
	const struct sm_plane_event *event;
	uint32_t n = 0;

	while (n < SM_WORKER_EVENTS && (event = sm_ring_peek(&w->events)) != NULL) {
		on_event(arg, event);
		sm_ring_release(&w->events);
		n++;
	}
	if (n == SM_WORKER_EVENTS)
		plane->config.wake(plane->config.arg);
	return n;
}

uint32_t sm_plane_poll(struct sm_plane *plane,
		       void (*on_event)(void *arg, const struct sm_plane_event *event), void *arg)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < plane->config.workers; i++)
		n += drain(plane, &plane->workers[i], on_event, arg);
	retire_passed(plane);
	return n;
}

bool sm_plane_has_retired_pending(const struct sm_plane *plane)
{
	return plane->retired != NULL;
}

int sm_plane_send_batch(struct sm_plane *plane, const struct sm_addr *to,
			const struct sm_addr *from, const void *data, size_t len, size_t segment)
{
	/* Only read from: sending changes no buffer. */
	struct sm_udp_message msg = {.peer = *to,
				     .data = (uint8_t *)(uintptr_t)data,
				     .len = (uint32_t)len,
				     .segment = (uint32_t)segment};
	int err = 0;

	if (len == 0 || len > SM_DATAGRAM_MAX)
		return -EMSGSIZE;
	if (from)
		msg.local = *from;
	if (sm_udp_send(plane->workers[0].udp_fd, plane->config.udp_mapped, &msg, 1, &err) != 1)
		return err < 0 ? err : -EIO;
	sm_worker_add(&plane->control_packets, (len + segment - 1) / segment);
	sm_worker_add(&plane->control_bytes, len);
	return 0;
}

int sm_plane_send(struct sm_plane *plane, const struct sm_addr *to, const struct sm_addr *from,
		  const void *data, size_t len)
{
	return sm_plane_send_batch(plane, to, from, data, len, len);
}

static uint64_t total(const struct sm_plane *plane, enum sm_count what)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < plane->config.workers; i++)
		sum += atomic_load_explicit(&plane->workers[i].count[what], memory_order_relaxed);
	return sum;
}

void sm_plane_counters(const struct sm_plane *plane, struct sm_plane_counters *ret_counters)
{
	uint64_t packets = atomic_load_explicit(&plane->control_packets, memory_order_relaxed);
	uint64_t bytes = atomic_load_explicit(&plane->control_bytes, memory_order_relaxed);
	struct sm_plane_counters c = {
		.tap_read_frames = total(plane, SM_COUNT_TAP_READ_FRAMES),
		.tap_read_bytes = total(plane, SM_COUNT_TAP_READ_BYTES),
		.tap_write_frames = total(plane, SM_COUNT_TAP_WRITE_FRAMES),
		.tap_write_bytes = total(plane, SM_COUNT_TAP_WRITE_BYTES),
		.udp_send_packets = total(plane, SM_COUNT_UDP_SEND_PACKETS) + packets,
		.udp_send_bytes = total(plane, SM_COUNT_UDP_SEND_BYTES) + bytes,
		.udp_receive_packets = total(plane, SM_COUNT_UDP_RECEIVE_PACKETS),
		.udp_receive_bytes = total(plane, SM_COUNT_UDP_RECEIVE_BYTES),
		.handed_over = total(plane, SM_COUNT_HANDED_OVER),
		.wakeups = total(plane, SM_COUNT_WAKEUPS),
		.syscalls = total(plane, SM_COUNT_SYSCALLS) + packets,
		.offload_faults = total(plane, SM_COUNT_OFFLOAD_FAULTS),
	};

	for (uint32_t i = 0; i < plane->config.workers; i++) {
		for (uint32_t why = 0; why < SM_DROP_COUNT; why++)
			c.drops[why] += atomic_load_explicit(&plane->workers[i].drops[why],
							     memory_order_relaxed);
	}
	*ret_counters = c;
}

void sm_plane_profile(const struct sm_plane *plane,
		      struct sm_stage_profile ret_profile[SM_STAGE_COUNT])
{
	memset(ret_profile, 0, (size_t)SM_STAGE_COUNT * sizeof(*ret_profile));
	for (uint32_t i = 0; i < plane->config.workers; i++) {
		for (uint32_t stage = 0; stage < SM_STAGE_COUNT; stage++) {
			const struct sm_stage_profile *from = &plane->workers[i].profile[stage];

			sm_hist_merge(&ret_profile[stage].per_batch, &from->per_batch);
			sm_hist_merge(&ret_profile[stage].per_frame, &from->per_frame);
		}
	}
}

void sm_plane_set_tap(struct sm_plane *plane, bool tso, bool uso)
{
	atomic_store_explicit(&plane->tap_tso, tso, memory_order_relaxed);
	atomic_store_explicit(&plane->tap_uso, uso, memory_order_relaxed);
}

int sm_plane_offload_fault(const struct sm_plane *plane, sm_port_t port)
{
	int fault = 0;

	for (uint32_t i = 0; port < SM_PORT_MAX && i < plane->config.workers && !fault; i++)
		fault = atomic_load_explicit(&plane->workers[i].ports[port].send.fault,
					     memory_order_relaxed);
	return fault;
}

bool sm_plane_gro_is_off(const struct sm_plane *plane)
{
	for (uint32_t i = 0; i < plane->config.workers; i++)
		if (atomic_load_explicit(&plane->workers[i].gro.off, memory_order_relaxed))
			return true;
	return false;
}

int sm_plane_write_fault(const struct sm_plane *plane)
{
	int fault = 0;

	for (uint32_t i = 0; i < plane->config.workers && !fault; i++)
		fault = atomic_load_explicit(&plane->workers[i].write.fault, memory_order_relaxed);
	return fault;
}

void sm_plane_port_counters(const struct sm_plane *plane, sm_port_t port,
			    struct sm_port_counters *ret_counters)
{
	struct sm_port_counters c = {0};

	for (uint32_t i = 0; port < SM_PORT_MAX && i < plane->config.workers; i++) {
		const struct sm_port_cells *cells = &plane->workers[i].ports[port];

		c.tx_frames += atomic_load_explicit(&cells->tx_frames, memory_order_relaxed);
		c.tx_bytes += atomic_load_explicit(&cells->tx_bytes, memory_order_relaxed);
		c.rx_frames += atomic_load_explicit(&cells->rx_frames, memory_order_relaxed);
		c.rx_bytes += atomic_load_explicit(&cells->rx_bytes, memory_order_relaxed);
	}
	*ret_counters = c;
}

// SPDX-License-Identifier: MIT
/*
 * A worker's loop, its sleep, and what it tells the control thread.
 *
 * Theory of operation: a turn is at most one batch from the TAP, one from UDP and one handed over, so
 * that no side starves another. While a side gave a full batch it is tried again without asking poll; when
 * none did, the worker sleeps in poll.
 *
 * Grace periods. At the start of each turn, when it holds no snapshot, a worker announces the count of
 * publications that it has seen; asleep it announces SM_WORKER_OFFLINE. The control thread swaps the
 * snapshot, counts, and frees the old one when all have announced that count or are offline.
 *  - Online: the worker reads the count (acquire) before it loads the snapshot, so a worker that announced
 *    the count of a swap loads what was swapped in, or newer. Its announcement (release) orders its use of
 *    older ones before the control thread's free (acquire).
 *  - Coming back from sleep: the worker stores its announcement, then loads the snapshot; the control thread
 *    stores the snapshot, then loads the announcements. One of both must see the other's store, which only a
 *    single order of all four gives: they are sequentially consistent.
 *
 * Wake-ups. Who hands a datagram over commits it to the ring and then exchanges @idle; the owner exchanges
 * @idle and then looks into its rings. As both change one variable, each with acquire and release, the later
 * one sees what the earlier one did before: either the owner finds the datagram or the other finds it idle and
 * writes its eventfd.
 */
#include "plane/worker.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a TAP that refuses (its interface is down) is left alone */
#define TAP_QUIET_US (100 * SM_MSEC_US)
/*
 * A worker gets twice the share of the programs whose frames it carries. Not more: it would take the processor from
 * the one that writes as soon as there is a frame, to do for one frame what it could do for many.
 */
#define WORKER_NICE (-3)
/*
 * Without sleep for that long, a worker gives way to who is as urgent: another network's worker, a ping's way back.
 * The kernel would let it go on until its clock ticks, which is 4 ms at 250 a second.
 */
#define GIVE_WAY_US 50u
/*
 * A time slice of the shortest kind, since giving way costs what is left of one (Linux 6.18): beside programs that
 * never sleep a worker would get one turn for each of their slices of 3 ms.
 */
#define SLICE_NS UINT64_C(100000)
/* Asleep at most that long while an event could not be told */
#define RETRY_US (100 * SM_MSEC_US)

enum poll_slot {
	POLL_TAP,
	POLL_UDP,
	POLL_WAKE,
	POLL_COUNT,
};

void sm_worker_stage(struct sm_worker *w, enum sm_stage stage, uint32_t n)
{
	uint64_t now_ns = sm_clock_now_ns(), took = now_ns - w->mark_ns;

	sm_hist_add(&w->profile[stage].per_batch, took, 1);
	sm_hist_add(&w->profile[stage].per_frame, took / n, n);
	w->mark_ns = now_ns;
}

const struct sm_snapshot *sm_worker_snapshot(struct sm_worker *w)
{
	return atomic_load_explicit(&w->plane->snapshot, memory_order_seq_cst);
}

struct sm_plane_event *sm_worker_event(struct sm_worker *w, enum sm_plane_event_type type,
				       uint32_t session)
{
	struct sm_plane_event *event = sm_ring_reserve(&w->events);

	if (event) {
		memset(event, 0, offsetof(struct sm_plane_event, body));
		event->type = type;
		event->session = session;
	}
	return event;
}

void sm_worker_tell(struct sm_worker *w)
{
	sm_ring_commit(&w->events);
	w->told = true;
}

void sm_worker_epoch_event(struct sm_worker *w, struct sm_epoch *epoch, uint32_t session,
			   uint32_t bit)
{
	enum sm_plane_event_type type = bit == SM_EPOCH_EVENT_RECEIVED ? SM_EVENT_EPOCH_RECEIVED
					: bit == SM_EPOCH_EVENT_USED   ? SM_EVENT_EPOCH_USED
								       : SM_EVENT_EPOCH_WORN;
	struct sm_plane_event *event;

	if (atomic_load_explicit(&epoch->events, memory_order_relaxed) & bit)
		return;
	if (atomic_fetch_or_explicit(&epoch->events, bit, memory_order_relaxed) & bit)
		return;
	event = sm_worker_event(w, type, session);
	if (!event) {
		/* The next packet tries again. */
		atomic_fetch_and_explicit(&epoch->events, ~bit, memory_order_relaxed);
		return;
	}
	event->epoch = epoch->number;
	sm_worker_tell(w);
}

/* When all places of a set were taken lately, nobody gets one: the total is bounded as well. */
bool sm_worker_rate_allow(struct sm_rate *rate, uint32_t session, uint64_t now_us)
{
	uint32_t set = session % SM_RATE_SETS, oldest = 0;

	for (uint32_t i = 0; i < SM_RATE_WAYS; i++) {
		if (rate->slot[set][i].last_us != 0 && rate->slot[set][i].session == session) {
			oldest = i;
			break;
		}
		if (rate->slot[set][i].last_us < rate->slot[set][oldest].last_us)
			oldest = i;
	}
	if (rate->slot[set][oldest].last_us != 0 &&
	    now_us - rate->slot[set][oldest].last_us < SM_RATE_US)
		return false;
	rate->slot[set][oldest].session = session;
	rate->slot[set][oldest].last_us = SM_MAX(now_us, UINT64_C(1));
	return true;
}

static void tell_offload(struct sm_worker *w, struct sm_offload *offload, bool writing,
			 sm_port_t port, int err)
{
	struct sm_plane_event *event;

	if (atomic_load_explicit(&offload->fault, memory_order_relaxed) == err)
		return;
	event = sm_worker_event(w, SM_EVENT_OFFLOAD, 0);
	if (!event)
		return; /* told the next time */
	atomic_store_explicit(&offload->fault, err, memory_order_relaxed);
	event->writing = writing;
	event->port = port;
	event->err = err;
	sm_worker_tell(w);
}

void sm_worker_offload_fault(struct sm_worker *w, struct sm_offload *offload, bool writing,
			     sm_port_t port, int err)
{
	offload->off_us = w->now_us + SM_OFFLOAD_RETRY_US;
	sm_worker_count(w, SM_COUNT_OFFLOAD_FAULTS, 1);
	tell_offload(w, offload, writing, port, err);
}

void sm_worker_offload_works(struct sm_worker *w, struct sm_offload *offload, bool writing,
			     sm_port_t port)
{
	tell_offload(w, offload, writing, port, 0);
}

bool sm_worker_tap_error(struct sm_worker *w, int err, bool writing)
{
	switch (err) {
	case EAGAIN:
		/* Reported by poll and yet nothing to read: do not ask again at once. */
		if (!writing && w->tap_hangup)
			w->tap_quiet_us = w->now_us + TAP_QUIET_US;
		return true;
	case EBADFD:
	case EBADF:
	case ENODEV:
	case ENXIO:
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		w->tap_gone = true;
		return true;
	case EINTR:
	case EINVAL: /* one frame that the kernel could not hand over; the next one may be well */
		return false;
	default: /* EIO: the interface is down */
		if (!writing)
			w->tap_quiet_us = w->now_us + TAP_QUIET_US;
		return true;
	}
}

static void tell_tap_gone(struct sm_worker *w)
{
	struct sm_plane_event *event;

	if (!w->tap_gone || w->tap_gone_told)
		return;
	if (atomic_exchange_explicit(&w->plane->tap_gone, true, memory_order_relaxed)) {
		w->tap_gone_told = true; /* another worker's queue went first */
		return;
	}
	event = sm_worker_event(w, SM_EVENT_TAP_GONE, 0);
	if (!event) {
		atomic_store_explicit(&w->plane->tap_gone, false, memory_order_relaxed);
		return;
	}
	sm_worker_tell(w);
	w->tap_gone_told = true;
}

/* Announces the publications seen: the worker holds no older snapshot. */
static void pass_on(struct sm_worker *w)
{
	uint64_t seen = atomic_load_explicit(&w->plane->generation, memory_order_acquire);

	if (seen == w->generation_seen)
		return;
	w->generation_seen = seen;
	atomic_store_explicit(&w->generation, seen, memory_order_seq_cst);
}

static void go_offline(struct sm_worker *w)
{
	w->generation_seen = SM_WORKER_OFFLINE;
	atomic_store_explicit(&w->generation, SM_WORKER_OFFLINE, memory_order_release);
}

void sm_worker_wake_others(struct sm_worker *w)
{
	for (; w->poke != 0; w->poke &= w->poke - 1) {
		struct sm_worker *other = &w->plane->workers[__builtin_ctz(w->poke)];

		if (atomic_exchange_explicit(&other->idle, 0, memory_order_acq_rel)) {
			(void)!eventfd_write(other->wake_fd, 1);
			sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
		}
	}
}

static void wake_control(struct sm_worker *w)
{
	if (!w->told)
		return;
	w->told = false;
	w->plane->config.wake(w->plane->config.arg);
}

static bool tap_usable(const struct sm_worker *w)
{
	return !w->tap_gone && w->now_us >= w->tap_quiet_us;
}

static bool udp_usable(const struct sm_worker *w)
{
	return w->now_us >= w->udp_quiet_us;
}

static bool tap_ready(const struct sm_worker *w)
{
	return w->tap_more && tap_usable(w);
}

static bool udp_ready(const struct sm_worker *w)
{
	return w->udp_more && udp_usable(w);
}

/* Return: when to wake though nothing happens, SM_NEVER */
static uint64_t deadline(const struct sm_worker *w)
{
	uint64_t at = SM_NEVER;

	if (!w->tap_gone && w->now_us < w->tap_quiet_us)
		at = w->tap_quiet_us;
	if (w->now_us < w->udp_quiet_us)
		at = SM_MIN(at, w->udp_quiet_us);
	if (w->tap_gone && !w->tap_gone_told)
		at = SM_MIN(at, w->now_us + RETRY_US);
	return at;
}

/*
 * Was something published since held frames were last looked at? Either this load sees the publication,
 * or the control thread sees @holds and @idle, which were set before: one of the two does not miss it.
 */
static bool held_overtaken(const struct sm_worker *w)
{
	return atomic_load_explicit(&w->holds, memory_order_seq_cst) &&
	       atomic_load_explicit(&w->plane->generation, memory_order_seq_cst) != w->held_seen;
}

/* Sleeps in poll, offline, until something is to be done. */
static void wait_for_work(struct sm_worker *w)
{
	struct pollfd fds[POLL_COUNT] = {
		[POLL_TAP] = {.fd = tap_usable(w) ? w->tap_fd : -1, .events = POLLIN},
		[POLL_UDP] = {.fd = udp_usable(w) ? w->udp_fd : -1, .events = POLLIN},
		[POLL_WAKE] = {.fd = w->wake_fd, .events = POLLIN},
	};
	uint64_t until_us = deadline(w);
	uint64_t left_us = until_us > w->now_us ? until_us - w->now_us : 0;
	struct timespec timeout = {
		.tv_sec = (time_t)(left_us / SM_SEC_US),
		.tv_nsec = (long)(left_us % SM_SEC_US * 1000),
	};
	eventfd_t ignored;

	/* The old value says nothing: what others did before is seen in the rings. */
	(void)atomic_exchange_explicit(&w->idle, 1, memory_order_seq_cst);
	if (!sm_ingress_has_handed(w) && !held_overtaken(w)) {
		go_offline(w);
		(void)ppoll(fds, POLL_COUNT, until_us == SM_NEVER ? NULL : &timeout, NULL);
		pass_on(w);
		sm_worker_count(w, SM_COUNT_WAKEUPS, 1);
		sm_worker_count(w, SM_COUNT_SYSCALLS, 1);
	}
	(void)atomic_exchange_explicit(&w->idle, 0, memory_order_acq_rel);
	if (fds[POLL_WAKE].revents)
		(void)!eventfd_read(w->wake_fd, &ignored);
	w->tap_more = fds[POLL_TAP].revents != 0;
	w->tap_hangup = (fds[POLL_TAP].revents & ~POLLIN) != 0;
	w->udp_more = fds[POLL_UDP].revents != 0;
	w->udp_hangup = (fds[POLL_UDP].revents & ~POLLIN) != 0;
}

/* Return: true if there may be more to do without asking poll */
static bool turn(struct sm_worker *w)
{
	bool handed = false, more;

	sm_egress_held_turn(w);
	if (sm_egress_waits(w) || tap_ready(w))
		sm_egress_turn(w, tap_ready(w));
	if (sm_ingress_waits(w) || udp_ready(w))
		sm_ingress_turn(w, udp_ready(w));
	if (w->plane->config.workers > 1)
		handed = sm_ingress_handed_turn(w);
	tell_tap_gone(w);
	sm_worker_wake_others(w);
	wake_control(w);

	more = handed || sm_egress_waits(w) || sm_ingress_waits(w) || tap_ready(w) || udp_ready(w);
	/* One busy side does not keep the other one from being asked. */
	w->tap_more = w->udp_more = more;
	w->tap_hangup = w->udp_hangup = false;
	return more;
}

/*
 * On Linux a thread has both for itself. Without the privilege, or under a policy that somebody chose for the daemon,
 * all stays as it is. A kernel that knows no slice takes it all the same, and giving way costs nothing there.
 * Return: true if the slice is set
 */
static bool set_urgency(void)
{
	struct { /* sched_setattr(2), in its first version */
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline_ns, period_ns;
	} attributes = {.policy = SCHED_OTHER, .runtime_ns = SLICE_NS};

	(void)setpriority(PRIO_PROCESS, 0, WORKER_NICE);
	if (sched_getscheduler(0) != SCHED_OTHER)
		return false;
	attributes.size = sizeof(attributes);
	attributes.nice = getpriority(PRIO_PROCESS, 0);
	return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

void *sm_worker_main(void *arg)
{
	struct sm_worker *w = arg;
	const bool gives_way = set_urgency();
	uint64_t rested_us = 0; /* 0: just now */

	w->tap_more = w->udp_more = true;
	while (!atomic_load_explicit(&w->plane->stop, memory_order_acquire)) {
		pass_on(w);
		w->now_us = sm_clock_now_us();
		rested_us = rested_us ? rested_us : w->now_us;
		if (!turn(w)) {
			wait_for_work(w);
			rested_us = 0;
		} else if (gives_way && w->now_us - rested_us >= GIVE_WAY_US) {
			(void)sched_yield();
			rested_us = 0;
		}
	}
	go_offline(w);
	return NULL;
}

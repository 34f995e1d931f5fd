// SPDX-License-Identifier: MIT
/*
 * What the self-test found, and what follows: super-frames and batches are switched on when they were seen
 * to work, or could not be tried. What fails later, or works again, gets its line in the log.
 */
#include "daemon/state.h"

#include "base/clock.h"
#include "io/udp.h"

#include <stdio.h>
#include <unistd.h>

/* Its work would keep a processor from what matters more: that peers are reached as soon as the daemon starts */
#define SELFTEST_AFTER_MS 250

static bool is_wanted(const struct sm_daemon *d)
{
	return d->config->transport.offload;
}

bool sm_offload_works(const struct sm_daemon *d, enum sm_selftest_item item)
{
	if (!is_wanted(d) || !d->selftest_done)
		return false;
	return !d->tested.ran || d->tested.item[item].works;
}

static void tell(const struct sm_daemon *d)
{
	const struct sm_selftest_result *r = &d->tested;
	bool all = true;

	if (!r->ran) {
		sm_info("the self-test of the offloads could not be run (%s): faults are noticed "
			"when they happen",
			r->why_not);
		return;
	}
	for (int i = 0; i < SM_SELFTEST_ITEM_COUNT; i++) {
		if (r->item[i].works)
			continue;
		sm_notice("%s does not work on this machine (%s): it stays off",
			  sm_selftest_item_name((enum sm_selftest_item)i), r->item[i].reason);
		all = false;
	}
	if (all)
		sm_info("self-test of the offloads: all work (%llu ms)",
			(unsigned long long)(r->took_us / SM_MSEC_US));
}

static void apply(struct sm_daemon *d)
{
	const bool tso = sm_offload_works(d, SM_SELFTEST_TSO),
		   uso = sm_offload_works(d, SM_SELFTEST_USO);
	int err;

	tell(d);
	sm_plane_set_tap(d->plane, tso, uso);
	err = sm_tun_set_offload(&d->tun, tso, uso, &d->tap_tso, &d->tap_uso);
	if (err)
		sm_warn("%s hands over no super-frames: %s", d->tun.name, strerror(-err));
	sm_plane_set_tap(d->plane, d->tap_tso, d->tap_uso);
	for (uint32_t i = 0; i < d->workers && !sm_offload_works(d, SM_SELFTEST_UDP_GRO); i++)
		(void)!sm_udp_set_gro(d->udp_fd[i], false);
	sm_node_allow_batches(d->node, sm_offload_works(d, SM_SELFTEST_UDP_SEGMENT),
			      sm_clock_now_us());
}

static void finish(struct sm_daemon *d)
{
	d->selftest_done = true;
	apply(d);
}

static void on_over(uv_poll_t *handle, int status, int events)
{
	struct sm_daemon *d = handle->data;

	(void)status;
	(void)events;
	uv_close((uv_handle_t *)handle, NULL);
	sm_selftest_take(&d->selftest, &d->tested);
	finish(d);
}

static void on_settled(uv_timer_t *handle)
{
	struct sm_daemon *d = handle->data;
	const char *program = d->options->program;
	const int err = program ? sm_selftest_begin(program, d->config->network.mode, &d->selftest)
				: -ENOENT;

	if (err) {
		snprintf(d->tested.why_not, sizeof(d->tested.why_not), "%s", strerror(-err));
		finish(d);
		return;
	}
	uv_poll_init(&d->loop, &d->selftest_over, d->selftest.fd);
	d->selftest_over.data = d;
	uv_poll_start(&d->selftest_over, UV_READABLE, on_over);
}

void sm_offload_open(struct sm_daemon *d)
{
	if (!is_wanted(d))
		return;
	uv_timer_init(&d->loop, &d->selftest_wait);
	d->selftest_wait.data = d;
	uv_timer_start(&d->selftest_wait, on_settled, SELFTEST_AFTER_MS, 0);
}

void sm_offload_close(struct sm_daemon *d)
{
	sm_selftest_reap(&d->selftest, true);
	if (d->selftest.fd >= 0)
		close(d->selftest.fd);
	d->selftest.fd = -1;
}

/* -- what fails later, or works again -- */

/* The first proof is no news: it is what a sound path does. */
void sm_offload_on_batches(struct sm_daemon *d, enum sm_batch_state state,
			   const struct sm_peer_info *info)
{
	struct sm_daemon_port *port = &d->ports[info->port];

	if (state == SM_BATCH_LOST || state == SM_BATCH_REFUSED)
		sm_events_log(&port->log_limit, SM_LOG_NOTICE,
			      "datagrams to peer %s go one by one for a minute, then batches are "
			      "tried again: %s",
			      info->name, sm_status_batches(info->session));
	else if (state == SM_BATCH_PROVEN && port->batches_failed)
		sm_events_log(&port->log_limit, SM_LOG_NOTICE,
			      "datagrams to peer %s go in batches again", info->name);
	else
		sm_debug("peer %s: batches %s", info->name, sm_batch_state_name(state));
	port->batches_failed = state == SM_BATCH_LOST || state == SM_BATCH_REFUSED;
}

static const char *name_of(const struct sm_daemon *d, sm_port_t port)
{
	const struct sm_peer *peer = sm_node_peer_by_port(d->node, port);

	return peer ? sm_peer_name(peer) : "unknown";
}

void sm_offload_on_event(struct sm_daemon *d, const struct sm_plane_event *e)
{
	if (e->receiving && e->err)
		sm_notice("datagrams that came in batches were damaged, others were not: they are "
			  "received one by one for a minute (UDP_GRO is off)");
	else if (e->receiving)
		sm_notice("datagrams are received in batches again");
	else if (e->writing && e->err)
		sm_notice("%s takes no super-frames (%s): they are cut before it for a minute, "
			  "then tried again",
			  d->tun.name, strerror(e->err));
	else if (e->writing)
		sm_notice("%s takes super-frames again", d->tun.name);
	else if (e->err)
		sm_events_log(
			&d->ports[e->port].log_limit, SM_LOG_NOTICE,
			"datagrams to peer %s cannot be sent in batches (%s): they go one by one "
			"for a minute, then it is tried again",
			name_of(d, e->port), strerror(e->err));
	else
		sm_events_log(&d->ports[e->port].log_limit, SM_LOG_NOTICE,
			      "datagrams to peer %s go in batches again", name_of(d, e->port));
}

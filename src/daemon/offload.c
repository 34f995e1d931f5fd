// SPDX-License-Identifier: MIT
/*
 * What the self-test found, and what follows: super-frames and batches are switched on when they were seen
 * to work, or could not be tried.
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

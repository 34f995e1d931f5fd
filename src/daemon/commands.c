// SPDX-License-Identifier: MIT
/*
 * What the control socket's clients ask for.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

#define PING_COUNT_MAX       1000000
#define PING_INTERVAL_MIN_US (10 * SM_MSEC_US)
#define PINGS_MAX            32u

/* A running `ping`: one probe at a time */
struct ping {
	struct sm_list entry;
	struct sm_daemon *d;
	struct sm_ctl_request *request; /* NULL: its client has gone */
	uv_timer_t timer;
	char node[SM_NAME_MAX + 1];
	uint64_t count, interval_us, timeout_us; /* count 0: until the client leaves */
	uint64_t seq, tag, sent_us;              /* tag 0: nothing outstanding */
	uint64_t received, min_us, max_us, sum_us;
};

static void on_ping_closed(uv_handle_t *handle)
{
	struct ping *p = handle->data;

	free(p);
}

static void ping_end(struct ping *p)
{
	sm_list_del(&p->entry);
	p->request = NULL;
	if (!uv_is_closing((uv_handle_t *)&p->timer))
		uv_close((uv_handle_t *)&p->timer, on_ping_closed);
}

static void on_ping_gone(void *arg, struct sm_ctl_request *request)
{
	(void)request;
	ping_end(arg);
}

static json_t *path_json(const struct sm_addr *remote)
{
	char addr[SM_ADDR_STRLEN];

	return json_pack("{s:s, s:s}", "remote", sm_addr_format(remote, addr), "kind", "direct");
}

static void ping_report(struct ping *p, json_t *line)
{
	const bool last = p->count && p->seq >= p->count;

	if (last) {
		json_object_set_new(line, "done", json_true());
		json_object_set_new(line, "sent", json_integer((json_int_t)p->seq));
		json_object_set_new(line, "received", json_integer((json_int_t)p->received));
		json_object_set_new(line, "min_us", json_integer((json_int_t)p->min_us));
		json_object_set_new(
			line, "avg_us",
			json_integer((json_int_t)(p->received ? p->sum_us / p->received : 0)));
		json_object_set_new(line, "max_us", json_integer((json_int_t)p->max_us));
	}
	sm_ctl_reply(p->request, line, last);
	if (last)
		ping_end(p);
}

static void ping_send(struct ping *p);

static void on_ping_timer(uv_timer_t *timer)
{
	struct ping *p = timer->data;

	if (p->tag) { /* no answer came */
		const bool last = p->count && p->seq >= p->count;
		const uint64_t wait_us = p->interval_us > p->timeout_us
						 ? p->interval_us - p->timeout_us
						 : 0;

		p->tag = 0;
		if (wait_us && !last)
			uv_timer_start(&p->timer, on_ping_timer, wait_us / SM_MSEC_US, 0);
		ping_report(p, json_pack("{s:I, s:b}", "seq", (json_int_t)p->seq, "timeout", 1));
		if (last || wait_us)
			return;
	}
	ping_send(p);
}

static void ping_send(struct ping *p)
{
	const struct sm_peer *peer = sm_node_find_peer(p->d->node, p->node);

	p->seq++;
	p->tag = ++p->d->next_tag;
	p->sent_us = sm_clock_now_us();
	if (!peer || sm_node_ping(p->d->node, peer, p->tag, p->sent_us)) {
		/* counts as lost: the session may come back while we wait */
	}
	uv_timer_start(&p->timer, on_ping_timer, p->timeout_us / SM_MSEC_US, 0);
}

void sm_commands_on_ping_answer(struct sm_daemon *d, uint64_t tag,
				const struct sm_path_answer *answer)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &d->pings)
	{
		struct ping *p = SM_LIST_ENTRY(pos, struct ping, entry);
		uint64_t spent_us, wait_us;
		bool last;

		if (p->tag != tag)
			continue;
		p->tag = 0;
		p->received++;
		p->sum_us += answer->rtt_us;
		p->min_us = p->received == 1 ? answer->rtt_us : SM_MIN(p->min_us, answer->rtt_us);
		p->max_us = SM_MAX(p->max_us, answer->rtt_us);
		last = p->count && p->seq >= p->count;
		spent_us = sm_clock_now_us() - p->sent_us;
		wait_us = spent_us < p->interval_us ? p->interval_us - spent_us : 0;
		if (!last)
			uv_timer_start(&p->timer, on_ping_timer,
				       (wait_us + SM_MSEC_US - 1) / SM_MSEC_US, 0);
		ping_report(p, json_pack("{s:I, s:I, s:o}", "seq", (json_int_t)p->seq, "rtt_us",
					 (json_int_t)answer->rtt_us, "path",
					 path_json(&answer->from)));
		return;
	}
}

static uint64_t number(const json_t *args, const char *key, uint64_t fallback, uint64_t min,
		       uint64_t max)
{
	const json_t *v = json_object_get(args, key);
	const json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;

	return n < 0 ? fallback : SM_MIN(SM_MAX((uint64_t)n, min), max);
}

static void cmd_ping(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	const char *name = json_string_value(json_object_get(args, "node"));
	const struct sm_peer *peer = name ? sm_node_find_peer(d->node, name) : NULL;
	struct sm_list *pos, *after;
	struct sm_peer_info info;
	uint32_t running = 0;
	struct ping *p;

	if (!name) {
		sm_ctl_fail(request, "bad-request", "ping wants the name of a node");
		return;
	}
	if (!peer) {
		sm_ctl_fail(request, "not-found",
			    strcmp(name, d->credentials.self.name)
				    ? "no node named %.63s is known here"
				    : "%.63s is this node itself",
			    name);
		return;
	}
	sm_peer_info(d->node, peer, &info);
	if (!info.session) {
		sm_ctl_fail(request, "not-connected", "%s is not connected (%s)%s%s", info.name,
			    sm_peer_state_name(info.state), info.last_error[0] ? ": " : "",
			    info.last_error);
		return;
	}
	sm_list_for_each_safe(pos, after, &d->pings) running++;
	p = running < PINGS_MAX ? calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		sm_ctl_fail(request, "busy", "too many pings are running");
		return;
	}
	p->d = d;
	p->request = request;
	p->count = number(args, "count", 4, 0, PING_COUNT_MAX);
	p->interval_us = number(args, "interval_us", SM_SEC_US, PING_INTERVAL_MIN_US,
				3600 * SM_SEC_US);
	p->timeout_us = number(args, "timeout_us", 2 * SM_SEC_US, PING_INTERVAL_MIN_US,
			       3600 * SM_SEC_US);
	snprintf(p->node, sizeof(p->node), "%s", info.name);
	uv_timer_init(&d->loop, &p->timer);
	p->timer.data = p;
	sm_list_add_tail(&d->pings, &p->entry);
	sm_ctl_on_gone(request, on_ping_gone, p);
	ping_send(p);
}

void sm_commands_cancel_all(struct sm_daemon *d)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &d->pings)
	{
		struct ping *p = SM_LIST_ENTRY(pos, struct ping, entry);

		sm_ctl_fail(p->request, "failed", "the daemon ends");
		ping_end(p);
	}
}

static void cmd_reload(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	char note[SM_CONFIG_RESTART_MAX + 64], error[SM_DAEMON_ERROR_MAX];

	(void)args;
	if (sm_reload(d, note, error)) {
		sm_error("reload failed, nothing has changed: %s", error);
		sm_ctl_fail(request, "failed", "%s; nothing has changed", error);
		return;
	}
	sm_notice("reloaded%s%s", note[0] ? ": " : "", note);
	sm_ctl_reply(request, json_pack("{s:s}", "note", note), true);
}

static void cmd_down(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	(void)args;
	sm_notice("ending on request");
	sm_ctl_reply(request, json_object(), true);
	sm_control_stop(d, false);
}

static void cmd_status(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	sm_ctl_reply(request, sm_status_daemon(d, json_is_true(json_object_get(args, "profile"))),
		     true);
}

static void cmd_peers(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	(void)args;
	sm_ctl_reply(request, sm_status_peers(d), true);
}

static void cmd_rekey(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args)
{
	const char *name = json_string_value(json_object_get(args, "node"));
	const struct sm_peer *peer = name ? sm_node_find_peer(d->node, name) : NULL;

	if (!peer || sm_node_rekey(d->node, peer, sm_clock_now_us()))
		sm_ctl_fail(request, "not-connected", "no session with %.63s",
			    name ? name : "(nobody)");
	else
		sm_ctl_reply(request, json_object(), true);
}

static const struct {
	const char *name;
	void (*run)(struct sm_daemon *d, struct sm_ctl_request *request, const json_t *args);
} table[] = {
	{"status", cmd_status}, {"peers", cmd_peers}, {"ping", cmd_ping},
	{"reload", cmd_reload}, {"down", cmd_down},   {"rekey", cmd_rekey},
};

void sm_commands_handle(void *arg, struct sm_ctl_request *request, const char *command,
			const json_t *args)
{
	for (size_t i = 0; i < SM_ARRAY_SIZE(table); i++) {
		if (!strcmp(table[i].name, command)) {
			table[i].run(arg, request, args);
			return;
		}
	}
	sm_ctl_fail(request, "bad-request", "this daemon has no command %.40s", command);
}

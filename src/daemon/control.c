// SPDX-License-Identifier: MIT
/*
 * The control thread: the node and its host, joined. What the node asks for is done here, what
 * connections, workers, timers and signals bring goes to the node.
 *
 * Once a loop turn, before it sleeps, the node's clock is advanced; no other call does that.
 */
#include "daemon/state.h"

#include "base/clock.h"
#include "io/lock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define HOUSEKEEPING_MS 5000
#define SETTLE_MS       50   /* network changes come in bursts */
#define LAST_WORDS_MS   1500 /* a connection lingers for a second */

/* One control connection: the handle that the node knows it by */
struct handle {
	struct sm_list entry; /* in the daemon's list */
	struct sm_daemon *d;
	struct sm_conn *conn;
	struct sm_link *link; /* NULL while dialling */
	uint16_t dialled;     /* SM_PORT_NONE: accepted */
};

static struct handle *handle_new(struct sm_daemon *d, uint16_t dialled)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->d = d;
	h->dialled = dialled;
	sm_list_add_tail(&d->handles, &h->entry);
	return h;
}

static void handle_free(struct handle *h)
{
	sm_list_del(&h->entry);
	free(h);
}

/* -- what the node asks for -- */

static int op_dial(void *host, uint16_t port, const struct sm_addr *to)
{
	struct sm_daemon *d = host;
	struct handle *h = handle_new(d, port);
	struct sm_peer_info info;
	int err;

	if (!h)
		return -ENOMEM;
	/* where large segments vanish, every other attempt gets through */
	sm_peer_info(d->node, sm_node_peer_by_port(d->node, port), &info);
	err = sm_conn_dial(d->conns, to, info.attempts & 1, h, &h->conn);
	if (err)
		handle_free(h);
	return err;
}

static int op_resolve(void *host, uint16_t port)
{
	return sm_resolve_peer(host, port);
}

static int op_conn_send(void *host, void *conn, const void *data, size_t len)
{
	(void)host;
	return sm_conn_send(((struct handle *)conn)->conn, data, len);
}

static void op_conn_close(void *host, void *conn)
{
	(void)host;
	sm_conn_close(((struct handle *)conn)->conn, true);
	handle_free(conn);
}

static int op_datagram(void *host, const struct sm_addr *to, const struct sm_addr *from,
		       const void *data, size_t len)
{
	return sm_plane_send(((struct sm_daemon *)host)->plane, to, from, data, len);
}

static int op_datagrams(void *host, const struct sm_addr *to, const struct sm_addr *from,
			const void *data, size_t len, size_t segment)
{
	return sm_plane_send_batch(((struct sm_daemon *)host)->plane, to, from, data, len, segment);
}

static void op_publish(void *host, struct sm_snapshot *snapshot)
{
	sm_plane_publish(((struct sm_daemon *)host)->plane, snapshot);
}

static uint32_t op_route_mtu(void *host, const struct sm_addr *to)
{
	struct sm_daemon *d = host;
	const int mtu = sm_netlink_route_mtu(d->netlink, to, NULL);

	return mtu < (int)SM_PATH_MTU_MIN ? SM_PATH_MTU_MIN : (uint32_t)mtu;
}

static void op_random(void *host, void *buf, size_t len)
{
	(void)host;
	if (sm_crypto_random(buf, len)) {
		sm_error("the system gives no randomness: ending");
		abort();
	}
}

static void op_ping_answer(void *host, uint64_t tag, const struct sm_path_answer *answer)
{
	sm_commands_on_ping_answer(host, tag, answer);
}

static void op_event(void *host, const struct sm_node_event *event)
{
	sm_events_on_node(host, event);
}

/* -- what connections bring -- */

static void remember_handshake(struct sm_daemon *d, const struct sm_conn_info *info)
{
	const struct sm_peer *peer = sm_node_find_peer(d->node, info->peer->name);
	struct sm_peer_info p;
	struct sm_handshake *h;

	if (!peer)
		return;
	sm_peer_info(d->node, peer, &p);
	h = &d->ports[p.port].handshake;
	h->known = true;
	snprintf(h->group, sizeof(h->group), "%s", info->group);
	snprintf(h->signature, sizeof(h->signature), "%s", info->signature);
	h->bytes_in = info->bytes_in;
	h->bytes_out = info->bytes_out;
	h->us = info->handshake_us;
	h->work_us = info->work_us;
}

static void on_open(void *arg, struct sm_conn *conn, const struct sm_conn_info *info)
{
	struct sm_daemon *d = arg;
	struct handle *h = sm_conn_owner(conn);

	if (!h) {
		h = handle_new(d, SM_PORT_NONE);
		if (!h) {
			sm_conn_close(conn, false);
			return;
		}
		h->conn = conn;
		sm_conn_set_owner(conn, h);
	}
	/* NULL: refused, and closed through op_conn_close(), which has freed the handle */
	struct sm_link *link = sm_node_on_link_open(d->node, h, h->dialled, info->peer,
						    sm_conn_remote(conn), info->root_secret,
						    sm_clock_now_us());
	if (!link)
		return;
	h->link = link;
	remember_handshake(d, info);
}

static void on_data(void *arg, struct sm_conn *conn, const uint8_t *data, size_t len)
{
	struct sm_daemon *d = arg;
	struct handle *h = sm_conn_owner(conn);

	sm_node_on_link_data(d->node, h->link, data, len, sm_clock_now_us());
}

static void on_closed(void *arg, struct sm_conn *conn, int err, enum sm_close_reason reason,
		      const char *text)
{
	struct sm_daemon *d = arg;
	struct handle *h = sm_conn_owner(conn);

	(void)err;
	if (!h)
		return;
	if (h->link) {
		if (reason == SM_CLOSE_NONE)
			sm_node_on_link_lost(d->node, h->link, text, sm_clock_now_us());
		else
			sm_node_on_link_refused(d->node, h->link, reason, text, sm_clock_now_us());
	} else {
		sm_events_on_dial_failed(d, h->dialled, sm_conn_remote(conn), reason, text);
		sm_node_on_dial_failed(d->node, h->dialled, reason, text, sm_clock_now_us());
	}
	handle_free(h);
}

static bool known(void *arg, const struct sm_addr *addr)
{
	const struct sm_daemon *d = arg;

	/* one that is being looked up, or is connected otherwise, has its numeric addresses all the same */
	for (uint32_t i = 0; i < d->config->peer_count; i++)
		for (uint32_t k = 0; k < d->config->peers[i].endpoints.count; k++)
			if (sm_addr_same_ip(&d->config->peers[i].endpoints.endpoint[k].addr, addr))
				return true;
	return sm_node_is_known(d->node, addr);
}

/* -- what the workers bring -- */

static void on_plane_event(void *arg, const struct sm_plane_event *e)
{
	struct sm_daemon *d = arg;
	const uint64_t now_us = sm_clock_now_us();

	switch (e->type) {
	case SM_EVENT_CONTROL:
		sm_node_on_control_packet(d->node, e->session, e->kind, e->body, e->len, &e->from,
					  &e->to, now_us);
		break;
	case SM_EVENT_ADDRESS:
		sm_node_on_address(d->node, e->session, &e->from, &e->to, now_us);
		break;
	case SM_EVENT_EPOCH_RECEIVED:
		sm_node_on_epoch(d->node, e->session, e->epoch, SM_EPOCH_EVENT_RECEIVED, now_us);
		break;
	case SM_EVENT_EPOCH_USED:
		sm_node_on_epoch(d->node, e->session, e->epoch, SM_EPOCH_EVENT_USED, now_us);
		break;
	case SM_EVENT_EPOCH_WORN:
		sm_node_on_epoch(d->node, e->session, e->epoch, SM_EPOCH_EVENT_WORN, now_us);
		break;
	case SM_EVENT_PATH_MTU:
		sm_node_on_path_mtu(d->node, e->session, now_us);
		break;
	case SM_EVENT_OFFLOAD:
		sm_offload_on_event(d, e);
		break;
	case SM_EVENT_TAP_GONE:
		sm_error(
			"interface %s is gone: someone removed it; ending, so that a restart makes it anew",
			d->tun.name);
		sm_control_stop(d, true);
		break;
	}
}

static void on_retire(void *arg, struct sm_snapshot *snapshot)
{
	sm_node_on_retired(((struct sm_daemon *)arg)->node, snapshot);
}

static void wake(void *arg)
{
	uv_async_send(&((struct sm_daemon *)arg)->plane_wake);
}

/* -- the loop -- */

static void on_plane_wake(uv_async_t *handle)
{
	struct sm_daemon *d = handle->data;

	sm_plane_poll(d->plane, on_plane_event, d);
}

static void on_deferred(uv_async_t *handle)
{
	sm_resolve_deliver(handle->data);
}

static void on_tick(uv_timer_t *handle)
{
	(void)handle; /* wakes the loop; the turn does the work */
}

static void on_turn(uv_prepare_t *handle)
{
	struct sm_daemon *d = handle->data;
	const uint64_t now_us = sm_clock_now_us();
	uint64_t next_us, wait_ms;

	if (d->stopping)
		return;
	if (sm_plane_has_retired_pending(d->plane))
		sm_plane_poll(d->plane, on_plane_event, d);
	next_us = sm_node_tick(d->node, now_us);
	wait_ms = next_us > now_us ? (next_us - now_us + SM_MSEC_US - 1) / SM_MSEC_US : 1;
	uv_timer_start(&d->tick, on_tick, SM_MIN(wait_ms, UINT64_C(1000)), 0);
}

static void on_housekeeping(uv_timer_t *handle)
{
	struct sm_daemon *d = handle->data;
	uint32_t up = 0, total = 0;
	const struct sm_peer *peer = NULL;
	struct sm_peer_info info;

	sm_control_recheck(d);
	sm_selftest_reap(&d->selftest, false);
	while ((peer = sm_node_next_peer(d->node, peer))) {
		sm_peer_info(d->node, peer, &info);
		total++;
		up += info.state == SM_PEER_UP;
	}
	sm_notify_status(&d->notify, "%s: %u of %u peers up", d->config->network.name, up, total);
	sm_notify_watchdog(&d->notify);
}

static void on_settled(uv_timer_t *handle)
{
	struct sm_daemon *d = handle->data;

	sm_device_candidates(d);
	sm_node_on_network_change(d->node, sm_clock_now_us());
}

static void on_monitor(uv_poll_t *handle, int status, int events)
{
	struct sm_daemon *d = handle->data;

	(void)events;
	/* not pushed back by each further change, or constant ones would hide them all */
	if ((status || sm_netlink_monitor_drain(d->monitor_fd, d->tun.ifindex) == 1) &&
	    !uv_is_active((uv_handle_t *)&d->settle))
		uv_timer_start(&d->settle, on_settled, SETTLE_MS, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct sm_daemon *d = handle->data;
	char note[SM_CONFIG_RESTART_MAX + 64], error[SM_DAEMON_ERROR_MAX];

	if (number != SIGHUP) {
		sm_notice("ending on signal %d", number);
		sm_control_stop(d, false);
		return;
	}
	sm_notify_reloading(&d->notify);
	if (sm_reload(d, note, error))
		sm_error("reload failed, nothing has changed: %s", error);
	else
		sm_notice("reloaded%s%s", note[0] ? ": " : "", note);
	sm_notify_ready(&d->notify);
}

static enum sm_close_reason check_identity(void *arg, const struct sm_identity *peer, char *text)
{
	struct sm_daemon *d = arg;
	char why[SM_CERT_ERROR_MAX];
	enum sm_close_reason reason;

	if (!sm_trust_check_identity(d->credentials.trust, peer, sm_clock_wall_s(), &reason, why))
		return SM_CLOSE_NONE;
	snprintf(text, SM_CLOSE_TEXT_MAX + 1, "%.*s", (int)SM_CLOSE_TEXT_MAX, why);
	return reason;
}

void sm_control_recheck(struct sm_daemon *d)
{
	sm_node_recheck(d->node, check_identity, d, sm_clock_now_us());
}

int sm_control_set_peers(struct sm_daemon *d)
{
	struct sm_peer_config *peers = calloc(SM_MAX(d->config->peer_count, 1u), sizeof(*peers));
	int err;

	if (!peers)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->config->peer_count; i++)
		peers[i] = (struct sm_peer_config){
			.name = d->config->peers[i].name,
			.has_endpoints = d->config->peers[i].endpoints.count > 0};
	err = sm_node_set_peers(d->node, peers, d->config->peer_count, sm_clock_now_us());
	free(peers);
	return err;
}

/* -- start and stop -- */

static uint8_t cipher_mask(const struct sm_daemon *d, uint8_t *ret_preferred)
{
	const struct sm_config_network *n = &d->config->network;
	const uint8_t aes = 1u << SM_CIPHER_AES256GCM, chacha = 1u << SM_CIPHER_CHACHA20POLY1305;

	*ret_preferred = SM_CIPHER_AES256GCM;
	if (n->policy == SM_CONFIG_POLICY_CNSA || n->cipher == SM_CONFIG_CIPHER_AES256GCM)
		return aes;
	if (n->cipher == SM_CONFIG_CIPHER_CHACHA20POLY1305 || !sm_crypto_has_aes())
		*ret_preferred = SM_CIPHER_CHACHA20POLY1305;
	return n->cipher == SM_CONFIG_CIPHER_CHACHA20POLY1305 ? chacha : aes | chacha;
}

static int make_node(struct sm_daemon *d)
{
	const struct sm_node_ops ops = {
		.dial = op_dial,
		.resolve = op_resolve,
		.conn_send = op_conn_send,
		.conn_close = op_conn_close,
		.datagram = op_datagram,
		.datagrams = op_datagrams,
		.publish = op_publish,
		.route_mtu = op_route_mtu,
		.random = op_random,
		.event = op_event,
		.ping_answer = op_ping_answer,
	};
	struct sm_node_config config = {
		.self = d->credentials.self,
		.mac = d->mac,
		.mode = d->config->network.mode,
		.workers = d->workers,
		.mtu = d->config->interface.mtu,
		.data_port = d->data_port,
		.control_port = d->control_port,
		.path_mtu = d->config->transport.path_mtu,
		.rekey_after_us = d->config->transport.rekey_after_us,
		.keepalive_us = d->config->transport.keepalive_us,
		.max_peers = SM_PORT_MAX - 1,
	};

	config.ciphers = cipher_mask(d, &config.preferred);
	return sm_node_new(&config, &ops, d, sm_clock_now_us(), &d->node);
}

static int make_plane(struct sm_daemon *d)
{
	const struct sm_plane_config config = {
		.workers = d->workers,
		.mode = d->config->network.mode,
		.tap_fd = d->tun.fd,
		.udp_fd = d->udp_fd,
		.udp_mapped = d->udp_mapped,
		.frame_max = d->config->interface.mtu +
			     (d->config->network.mode == SM_MODE_TAP ? 14 + 8 : 0),
		.tap_later = d->config->transport.offload,
		.udp_offload = d->config->transport.offload,
		.wake = wake,
		.arg = d,
	};
	const int err = sm_plane_new(&config, &d->plane);

	if (!err)
		sm_plane_on_retire(d->plane, on_retire, d);
	return err;
}

static int listen_one(struct sm_daemon *d, struct sm_addr addr, bool needed, char *error)
{
	char holder[SM_HOLDER_MAX], text[SM_ADDR_STRLEN];
	int err;

	addr.port = d->control_port;
	err = sm_conn_listen(d->conns, &addr, &d->listening[d->listening_count]);
	if (!err) {
		d->listening_count++;
		return 0;
	}
	if (!needed && (err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL))
		return 0; /* a machine without IPv6 */
	if (err == -EADDRINUSE && !sm_lock_port_holder(false, addr.port, holder))
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "TCP port %u is taken by %s: stop it, or choose another ControlPort",
			 addr.port, holder);
	else
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot listen on %s: %s",
			 sm_addr_format(&addr, text), strerror(-err));
	return err;
}

static int open_listeners(struct sm_daemon *d, char *error)
{
	const struct sm_config_addresses *l = &d->config->transport.listen;
	int err = 0;

	if (!d->control_port)
		return 0;
	for (uint32_t i = 0; !err && i < l->count; i++)
		err = listen_one(d, l->addr[i], true, error);
	if (!l->count) {
		err = listen_one(d, (struct sm_addr){.family = 4}, true, error);
		if (!err)
			err = listen_one(d, (struct sm_addr){.family = 6}, false, error);
	}
	return err;
}

static int make_conns(struct sm_daemon *d)
{
	const struct sm_conn_events events = {
		.on_open = on_open, .on_data = on_data, .on_closed = on_closed, .known = known};
	const struct sm_conn_limits limits = {
		.unfinished_max = d->config->transport.max_handshakes,
		.unfinished_per_source = d->config->transport.max_handshakes_per_source,
	};

	return sm_conn_set_new(&d->loop, d->credentials.tls, &limits, &events, d, &d->conns);
}

static int make_handles(struct sm_daemon *d)
{
	int err = uv_loop_init(&d->loop);

	if (err)
		return err;
	d->loop_ready = true;
	d->loop.data = d;
	uv_async_init(&d->loop, &d->plane_wake, on_plane_wake);
	uv_async_init(&d->loop, &d->deferred, on_deferred);
	uv_prepare_init(&d->loop, &d->turn);
	uv_timer_init(&d->loop, &d->tick);
	uv_timer_init(&d->loop, &d->housekeeping);
	uv_timer_init(&d->loop, &d->settle);
	uv_signal_init(&d->loop, &d->on_int);
	uv_signal_init(&d->loop, &d->on_term);
	uv_signal_init(&d->loop, &d->on_hup);
	uv_poll_init(&d->loop, &d->monitor, d->monitor_fd);
	d->plane_wake.data = d->deferred.data = d->turn.data = d->tick.data = d->housekeeping.data =
		d;
	d->settle.data = d->on_int.data = d->on_term.data = d->on_hup.data = d->monitor.data = d;
	return 0;
}

static void start_handles(struct sm_daemon *d)
{
	uv_prepare_start(&d->turn, on_turn);
	uv_timer_start(&d->housekeeping, on_housekeeping, HOUSEKEEPING_MS, HOUSEKEEPING_MS);
	uv_signal_start(&d->on_int, on_signal, SIGINT);
	uv_signal_start(&d->on_term, on_signal, SIGTERM);
	uv_signal_start(&d->on_hup, on_signal, SIGHUP);
	uv_poll_start(&d->monitor, UV_READABLE, on_monitor);
}

int sm_control_open(struct sm_daemon *d, char *error)
{
	int err = make_handles(d);

	d->control_port = d->config->transport.control_port;
	sm_list_init(&d->handles);
	sm_list_init(&d->resolutions);
	sm_list_init(&d->pings);
	d->ports = calloc(SM_PORT_MAX, sizeof(*d->ports));
	if (!err && !d->ports)
		err = -ENOMEM;
	if (!err)
		err = make_plane(d);
	if (!err)
		err = make_conns(d);
	if (!err)
		err = make_node(d);
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot start: %s", strerror(-err));
		return err;
	}
	err = open_listeners(d, error);
	if (err)
		return err;
	start_handles(d);
	sm_offload_open(d);
	sm_device_candidates(d);
	err = sm_control_set_peers(d);
	if (err) {
		snprintf(error, SM_DAEMON_ERROR_MAX, "too many peers");
		return err;
	}
	/* after the first picture: what the card has sent so far waits in its queue, and is held */
	err = sm_plane_start(d->plane);
	if (err)
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot start the workers: %s",
			 strerror(-err));
	return err;
}

void sm_control_run(struct sm_daemon *d)
{
	while (!d->stopping)
		uv_run(&d->loop, UV_RUN_ONCE);
}

void sm_control_stop(struct sm_daemon *d, bool failed)
{
	if (failed)
		d->failed = true;
	d->stopping = true;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	struct sm_daemon *d = arg;
	uv_handle_t *const own[] = {
		(uv_handle_t *)&d->plane_wake,    (uv_handle_t *)&d->deferred,
		(uv_handle_t *)&d->turn,          (uv_handle_t *)&d->monitor,
		(uv_handle_t *)&d->housekeeping,  (uv_handle_t *)&d->settle,
		(uv_handle_t *)&d->on_int,        (uv_handle_t *)&d->on_term,
		(uv_handle_t *)&d->on_hup,        (uv_handle_t *)&d->selftest_over,
		(uv_handle_t *)&d->selftest_wait,
	};

	for (size_t i = 0; i < SM_ARRAY_SIZE(own); i++)
		if (handle == own[i] && !uv_is_closing(handle))
			uv_close(handle, NULL);
}

static void on_last_words(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

/*
 * Runs the loop dry, or for LAST_WORDS_MS: a name that is being looked up cannot be called off, and where
 * no server answers that takes long.
 * Return: true if nothing uses the loop any more
 */
static bool end_loop(struct sm_daemon *d)
{
	uv_walk(&d->loop, close_handle, d);
	uv_timer_start(&d->tick, on_last_words, LAST_WORDS_MS, 0);
	uv_unref((uv_handle_t *)&d->tick); /* nothing waits for it */
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&d->tick, NULL);
	uv_run(&d->loop, UV_RUN_NOWAIT);
	sm_resolve_deliver(d);
	return uv_loop_close(&d->loop) == 0;
}

/* The node has closed its links; attempts under way end without a callback. */
static void stop_connections(struct sm_daemon *d)
{
	struct sm_list *pos, *after;

	sm_conn_set_stop(d->conns);
	sm_list_for_each_safe(pos, after, &d->handles)
		handle_free(SM_LIST_ENTRY(pos, struct handle, entry));
}

void sm_control_close(struct sm_daemon *d)
{
	d->stopping = true;
	if (d->node)
		sm_node_shutdown(d->node, sm_clock_now_us());
	if (d->plane) /* before the loop goes, which its workers wake */
		sm_plane_stop(d->plane);
	sm_commands_cancel_all(d);
	sm_ctl_close(d->ctl);
	d->ctl = NULL;
	if (d->conns)
		stop_connections(d);
	if (d->loop_ready)
		d->loop_busy = !end_loop(d);
	if (!d->loop_busy)
		sm_conn_set_free(d->conns);
	sm_plane_free(d->plane); /* retires the last picture */
	sm_node_free(d->node);
	sm_device_unroute(d);
	free(d->ports);
	d->conns = NULL;
	d->plane = NULL;
	d->node = NULL;
	d->ports = NULL;
}

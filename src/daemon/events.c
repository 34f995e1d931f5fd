// SPDX-License-Identifier: MIT
/*
 * What happened to peers and their connections: for the log, the counts and (TUN) the routes. Others can
 * trigger most of it as often as they like, so its lines are limited.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

#define REPEAT_LOG_US  (60 * SM_SEC_US)
#define LOG_BURST      10u
#define LOG_PER_MINUTE 30u

/* The same reason is told once a minute at most, or a peer that is off for a day fills the journal. */
static bool is_news(struct sm_daemon *d, uint16_t port, const char *text)
{
	struct sm_daemon_port *p = &d->ports[port];
	const uint64_t now_us = sm_clock_now_us();

	if (!strncmp(p->logged, text, sizeof(p->logged) - 1) &&
	    now_us < p->logged_us + REPEAT_LOG_US)
		return false;
	snprintf(p->logged, sizeof(p->logged), "%s", text);
	p->logged_us = now_us;
	return true;
}

void sm_events_log(struct sm_log_limit *limit, enum sm_log_level level, const char *fmt, ...)
{
	uint32_t suppressed = 0;
	char line[512], more[48] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (!sm_log_allow(limit, sm_clock_now_us(), LOG_BURST, LOG_PER_MINUTE, &suppressed))
		level = SM_LOG_DEBUG;
	else if (suppressed)
		snprintf(more, sizeof(more), " (%u such lines left out)", suppressed);
	sm_log(level, "%s%s", line, more);
}

static void log_session(struct sm_daemon *d, const struct sm_peer_info *info,
			const struct sm_addr *remote)
{
	const struct sm_handshake *h = &d->ports[info->port].handshake;
	char addr[SM_ADDR_STRLEN];

	sm_events_log(
		&d->ports[info->port].log_limit, SM_LOG_NOTICE,
		"peer %s is connected: data at %s, %s, handshake %s with %s in %llu us (%llu bytes in, %llu out)",
		info->name, sm_addr_format(remote, addr),
		info->session && info->session->config.cipher == SM_CIPHER_CHACHA20POLY1305
			? "ChaCha20-Poly1305"
			: "AES-256-GCM",
		h->group, h->signature, (unsigned long long)h->us, (unsigned long long)h->bytes_in,
		(unsigned long long)h->bytes_out);
	if (info->session && info->session->config.mtu != d->config->interface.mtu)
		sm_events_log(
			&d->ports[info->port].log_limit, SM_LOG_WARN,
			"peer %s has MTU %u, this node %u: larger frames than the smaller one may be lost",
			info->name, info->session->config.mtu, d->config->interface.mtu);
	d->ports[info->port].logged[0] = '\0';
}

static void log_state(struct sm_daemon *d, const struct sm_node_event *e,
		      const struct sm_peer_info *info)
{
	struct sm_log_limit *limit = &d->ports[info->port].log_limit;

	if (e->to == SM_PEER_SILENT)
		sm_events_log(limit, SM_LOG_WARN, "peer %s is silent: probing", info->name);
	else if (e->from == SM_PEER_SILENT && e->to == SM_PEER_UP)
		sm_events_log(limit, SM_LOG_NOTICE, "peer %s answers again", info->name);
	else
		sm_debug("peer %s: %s -> %s", info->name, sm_peer_state_name(e->from),
			 sm_peer_state_name(e->to));
}

static void log_closed(struct sm_daemon *d, const struct sm_node_event *e,
		       const struct sm_peer_info *info)
{
	char text[320];

	if (e->reason == SM_CLOSE_DUPLICATE) {
		sm_debug("peer %s: one of two connections closed", info->name);
		return;
	}
	if (e->reason == SM_CLOSE_NONE)
		snprintf(text, sizeof(text), "control connection lost: %s", e->text);
	else
		snprintf(text, sizeof(text), "closed %s: %s%s%s",
			 e->by_peer ? "by the peer" : "by us", sm_close_reason_name(e->reason),
			 e->text && e->text[0] ? ": " : "", e->text ? e->text : "");
	if (is_news(d, info->port, text))
		sm_events_log(&d->ports[info->port].log_limit,
			      e->reason == SM_CLOSE_NONE || e->reason == SM_CLOSE_SHUTDOWN
				      ? SM_LOG_NOTICE
				      : SM_LOG_WARN,
			      "peer %s: %s", info->name, text);
}

static void count_closed(struct sm_daemon *d, const struct sm_node_event *e)
{
	const unsigned reason = e->reason < SM_CLOSE_REASON_COUNT ? e->reason : SM_CLOSE_NONE;

	(e->by_peer ? d->closed_by_peer : d->closed_by_us)[reason]++;
}

static bool is_connected(enum sm_peer_state state)
{
	return state == SM_PEER_UP || state == SM_PEER_SILENT;
}

void sm_events_on_node(struct sm_daemon *d, const struct sm_node_event *e)
{
	struct sm_peer_info info = {0};
	char addr[SM_ADDR_STRLEN];

	if (e->peer)
		sm_peer_info(d->node, e->peer, &info);
	switch (e->type) {
	case SM_NODE_PEER_STATE:
		if (info.has_identity || !is_connected(e->to)) /* a revoked one has none any more */
			sm_device_route_peer(d, &info, is_connected(e->to));
		log_state(d, e, &info);
		break;
	case SM_NODE_IDENTIFIED:
		sm_device_route_peer(d, &info, is_connected(info.state));
		break;
	case SM_NODE_SESSION_UP:
		log_session(d, &info, &e->addr);
		break;
	case SM_NODE_LINK_CLOSED:
		count_closed(d, e);
		log_closed(d, e, &info);
		break;
	case SM_NODE_REKEYED:
		sm_debug("peer %s: epoch %llu", info.name, (unsigned long long)e->number);
		break;
	case SM_NODE_PATH_MOVED:
		sm_events_log(&d->ports[info.port].log_limit, SM_LOG_NOTICE, "peer %s moved to %s",
			      info.name, sm_addr_format(&e->addr, addr));
		break;
	case SM_NODE_REFUSED:
		count_closed(d, e);
		sm_events_log(&d->refused_log_limit, SM_LOG_WARN, "refused %s (%s)", e->text,
			      sm_close_reason_name(e->reason));
		break;
	case SM_NODE_PROTOCOL:
		sm_events_log(&d->ports[info.port].log_limit, SM_LOG_WARN, "peer %s: %s", info.name,
			      e->text);
		break;
	case SM_NODE_BATCHES:
		sm_offload_on_batches(d, (enum sm_batch_state)e->number, &info);
		break;
	case SM_NODE_EVENT_COUNT:
		break;
	}
}

void sm_events_on_dial_failed(struct sm_daemon *d, uint16_t port, const struct sm_addr *remote,
			      enum sm_close_reason reason, const char *text)
{
	const struct sm_peer *peer = sm_node_peer_by_port(d->node, port);
	char line[SM_ADDR_STRLEN + 320], addr[SM_ADDR_STRLEN];

	snprintf(line, sizeof(line), "%s: %s", sm_addr_format(remote, addr), text);
	if (peer && is_news(d, port, line))
		sm_events_log(&d->ports[port].log_limit,
			      reason == SM_CLOSE_NONE ? SM_LOG_INFO : SM_LOG_WARN, "peer %s at %s",
			      sm_peer_name(peer), line);
}

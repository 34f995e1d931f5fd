// SPDX-License-Identifier: MIT
/*
 * The endpoints of a configured peer as addresses, names looked up anew each time, off the loop.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

/* One peer's look-up: numeric endpoints at once, names as they are answered */
struct resolution {
	struct sm_list entry; /* in sm_daemon.resolutions once nothing is pending */
	struct sm_daemon *d;
	uint16_t port;
	uint32_t pending;
	struct sm_endpoint_set set;
	char text[192];
};

struct lookup {
	uv_getaddrinfo_t req;
	struct resolution *r;
	uint16_t port;
	char host[SM_CONFIG_HOST_MAX + 1];
};

static void finish(struct resolution *r)
{
	if (r->pending)
		return;
	sm_list_add_tail(&r->d->resolutions, &r->entry);
	uv_async_send(&r->d->deferred); /* the node may be waiting in the call that asked */
}

static void add(struct resolution *r, const struct sm_addr *addr)
{
	if (r->set.count < SM_ENDPOINTS_MAX)
		r->set.addr[r->set.count++] = *addr;
}

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
	struct lookup *l = SM_CONTAINER_OF(req, struct lookup, req);
	struct resolution *r = l->r;
	struct sm_addr addr;

	for (const struct addrinfo *a = found; a; a = a->ai_next) {
		if (sm_addr_from_sockaddr(a->ai_addr, &addr))
			continue;
		addr.port = l->port;
		add(r, &addr);
	}
	if (status)
		snprintf(r->text, sizeof(r->text), "cannot resolve %.100s: %s", l->host,
			 uv_strerror(status));
	uv_freeaddrinfo(found);
	free(l);
	r->pending--;
	finish(r);
}

static void look_up(struct resolution *r, const struct sm_config_endpoint *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct lookup *l = calloc(1, sizeof(*l));

	if (!l) {
		snprintf(r->text, sizeof(r->text), "out of memory");
		return;
	}
	l->r = r;
	l->port = e->port;
	snprintf(l->host, sizeof(l->host), "%s", e->host);
	if (uv_getaddrinfo(&r->d->loop, &l->req, on_answer, l->host, NULL, &hints)) {
		snprintf(r->text, sizeof(r->text), "cannot resolve %.100s", l->host);
		free(l);
		return;
	}
	r->pending++;
}

static const struct sm_config_peer *find(const struct sm_daemon *d, uint16_t port)
{
	const struct sm_peer *peer = sm_node_peer_by_port(d->node, port);

	for (uint32_t i = 0; peer && i < d->config->peer_count; i++)
		if (!strcmp(d->config->peers[i].name, sm_peer_name(peer)))
			return &d->config->peers[i];
	return NULL;
}

int sm_resolve_peer(struct sm_daemon *d, uint16_t port)
{
	const struct sm_config_peer *peer = find(d, port);
	struct resolution *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->d = d;
	r->port = port;
	snprintf(r->text, sizeof(r->text), "no endpoint is configured");
	for (uint32_t i = 0; peer && i < peer->endpoints.count; i++) {
		const struct sm_config_endpoint *e = &peer->endpoints.endpoint[i];

		if (e->addr.family)
			add(r, &e->addr);
		else
			look_up(r, e);
	}
	finish(r);
	return 0;
}

void sm_resolve_deliver(struct sm_daemon *d)
{
	struct sm_list *pos, *after;

	sm_list_for_each_safe(pos, after, &d->resolutions)
	{
		struct resolution *r = SM_LIST_ENTRY(pos, struct resolution, entry);

		sm_list_del(&r->entry);
		if (!d->stopping)
			sm_node_on_resolved(d->node, r->port, &r->set, r->text, sm_clock_now_us());
		free(r);
	}
}

// SPDX-License-Identifier: MIT
/*
 * The simulator's clock and nodes: see world.h.
 */
#include "world.h"
#include "conn.h"
#include "core/peer.h"

#include <stdio.h>
#include <stdlib.h>

#define RETIRE_MAX_US (50 * SM_MSEC_US)
#define STUCK_MAX     8u

/* -- the queue -- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void heap_up(struct sim_world *w, uint32_t i)
{
	while (i > 0 && earlier(w->heap[i], w->heap[(i - 1) / 2])) {
		struct sim_event *e = w->heap[i];

		w->heap[i] = w->heap[(i - 1) / 2];
		w->heap[(i - 1) / 2] = e;
		i = (i - 1) / 2;
	}
}

static void heap_down(struct sim_world *w)
{
	uint32_t i = 0;

	for (;;) {
		uint32_t least = i;
		struct sim_event *e = w->heap[i];

		for (uint32_t child = 2 * i + 1; child <= 2 * i + 2 && child < w->events; child++)
			if (earlier(w->heap[child], w->heap[least]))
				least = child;
		if (least == i)
			return;
		w->heap[i] = w->heap[least];
		w->heap[least] = e;
		i = least;
	}
}

struct sim_event *sim_event_new(struct sim_world *w, uint64_t delay_us,
				void (*run)(struct sim_world *w, struct sim_event *e), size_t len)
{
	struct sim_event *e = calloc(1, sizeof(*e) + len);

	assert(e);
	e->at_us = w->now_us + delay_us;
	e->order = w->order++;
	e->run = run;
	e->len = len;
	if (w->events == w->event_cap) {
		w->event_cap = w->event_cap ? w->event_cap * 2 : 1024;
		w->heap = realloc(w->heap, w->event_cap * sizeof(struct sim_event *));
		assert(w->heap);
	}
	w->heap[w->events++] = e;
	heap_up(w, w->events - 1);
	return e;
}

static void run_one(struct sim_world *w)
{
	struct sim_event *e = w->heap[0];

	w->heap[0] = w->heap[--w->events];
	if (w->events)
		heap_down(w);
	assert(e->at_us >= w->now_us);
	w->now_us = e->at_us;
	e->run(w, e);
	free(e);
}

void sim_run(struct sim_world *w, uint64_t us)
{
	const uint64_t end_us = w->now_us + us;

	while (w->events && w->heap[0]->at_us <= end_us)
		run_one(w);
	w->now_us = end_us;
}

bool sim_run_until(struct sim_world *w, bool (*done)(struct sim_world *w), uint64_t us)
{
	const uint64_t end_us = w->now_us + us;
	uint64_t look_us = 0;

	for (;;) {
		if (w->now_us >= look_us) {
			if (done(w))
				return true;
			look_us = w->now_us + 5 * SM_MSEC_US;
		}
		if (!w->events || w->heap[0]->at_us > end_us)
			break;
		run_one(w);
	}
	w->now_us = end_us;
	return done(w);
}

/* -- a node's host -- */

static void tick(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = &w->node[e->node];

	if (!n->core || n->life != e->life || n->tick_at_us != e->at_us)
		return; /* another one was set since */
	n->counts.ticks++;
	n->stuck = n->last_tick_us == w->now_us ? n->stuck + 1 : 0;
	assert(n->stuck < 64 * STUCK_MAX); /* a deadline that no tick serves */
	n->last_tick_us = w->now_us;
	n->tick_at_us = SM_NEVER;
	const uint64_t at = sm_node_tick(n->core, w->now_us);

	assert(at > w->now_us);
	n->tick_at_us = at;
	struct sim_event *next = sim_event_new(w, at - w->now_us, tick, 0);

	next->node = n->id;
	next->life = n->life;
}

void sim_kick(struct sim_node *n)
{
	if (!n->core || n->tick_at_us == n->w->now_us)
		return;
	n->tick_at_us = n->w->now_us;
	struct sim_event *e = sim_event_new(n->w, 0, tick, 0);

	e->node = n->id;
	e->life = n->life;
}

static void resolved(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = &w->node[e->node];
	struct sm_endpoint_set set = {0};
	const struct sm_peer *peer;

	if (!n->core || n->life != e->life)
		return;
	peer = sm_node_peer_by_port(n->core, (uint16_t)e->n);
	if (peer) {
		const struct sim_node *p = &w->node[strtoul(sm_peer_name(peer) + 1, NULL, 10)];

		set.count = 1;
		set.addr[0] = p->visible;
		set.addr[0].port = SM_CONTROL_PORT;
	}
	sm_node_on_resolved(n->core, (uint16_t)e->n, &set, "no such name", w->now_us);
	sim_kick(n);
}

static int op_resolve(void *host, uint16_t port)
{
	struct sim_node *n = host;
	struct sim_event *e = sim_event_new(n->w, 200 + rng_below(&n->w->rng, 2000), resolved, 0);

	e->node = n->id;
	e->life = n->life;
	e->n = port;
	n->counts.resolves++;
	return 0;
}

static int op_datagram(void *host, const struct sm_addr *to, const struct sm_addr *from,
		       const void *data, size_t len)
{
	struct sim_node *n = host;

	(void)from;
	if (sim_outer_len(len) > n->link_mtu) {
		n->counts.refused_large++;
		return -EMSGSIZE;
	}
	n->counts.datagrams++;
	if (!n->mute)
		sim_datagram(n->w, n->id, &n->visible, to, data, len);
	return 0;
}

static int op_datagrams(void *host, const struct sm_addr *to, const struct sm_addr *from,
			const void *data, size_t len, size_t segment)
{
	struct sim_node *n = host;
	int err = n->batch_err;

	n->counts.batches++;
	for (size_t at = 0, place = 0; at < len && !err; at += segment, place++)
		if (!(n->w->net.batch_loses >> place & 1))
			err = op_datagram(host, to, from, (const uint8_t *)data + at,
					  SM_MIN(segment, len - at));
	return err;
}

static void retire_one(struct sim_node *n)
{
	struct sm_snapshot **at = &n->retired, *old;

	while ((*at)->retired_next)
		at = &(*at)->retired_next;
	old = *at;
	*at = NULL;
	n->retired_count--;
	sm_node_on_retired(n->core, old);
}

static void retire(struct sim_world *w, struct sim_event *e)
{
	struct sim_node *n = &w->node[e->node];

	if (n->core && n->life == e->life && n->retired)
		retire_one(n);
}

static void op_publish(void *host, struct sm_snapshot *snapshot)
{
	struct sim_node *n = host;
	struct sm_snapshot *old = n->picture;

	n->picture = snapshot;
	n->counts.publishes++;
	if (!old)
		return;
	old->retired_next = n->retired;
	n->retired = old;
	n->retired_count++;
	struct sim_event *e = sim_event_new(n->w, rng_u64(&n->w->rng) % RETIRE_MAX_US, retire, 0);

	e->node = n->id;
	e->life = n->life;
}

static uint32_t op_route_mtu(void *host, const struct sm_addr *to)
{
	(void)to;
	return ((struct sim_node *)host)->link_mtu;
}

static void op_random(void *host, void *buf, size_t len)
{
	struct sim_node *n = host;

	rng_fill(&n->w->rng, buf, len);
}

static const char *const event_names[] = {
	[SM_NODE_PEER_STATE] = "state",   [SM_NODE_SESSION_UP] = "session up",
	[SM_NODE_LINK_CLOSED] = "closed", [SM_NODE_REKEYED] = "rekeyed",
	[SM_NODE_PATH_MOVED] = "moved",   [SM_NODE_REFUSED] = "refused",
	[SM_NODE_PROTOCOL] = "protocol",  [SM_NODE_IDENTIFIED] = "identified",
	[SM_NODE_BATCHES] = "batches",
};

static void op_event(void *host, const struct sm_node_event *event)
{
	struct sim_node *n = host;

	n->counts.events[event->type]++;
	if (event->type == SM_NODE_LINK_CLOSED && event->reason < SM_CLOSE_REASON_COUNT)
		n->counts.closed[event->reason]++;
	if (!n->w->trace)
		return;
	printf("%12.6f n%03u %s %s", (double)n->w->now_us / 1e6, n->id,
	       event->peer ? sm_peer_name(event->peer) : "-", event_names[event->type]);
	if (event->type == SM_NODE_PEER_STATE)
		printf(" %s -> %s", sm_peer_state_name(event->from), sm_peer_state_name(event->to));
	printf(" reason %s%s number %llu: %s\n", sm_close_reason_name(event->reason),
	       event->by_peer ? " by peer" : "", (unsigned long long)event->number,
	       event->text ? event->text : "");
}

static void op_ping_answer(void *host, uint64_t tag, const struct sm_path_answer *answer)
{
	(void)tag;
	(void)answer;
	((struct sim_node *)host)->counts.pings_answered++;
}

/* -- the world -- */

struct sim_world *sim_world_new(const char *scenario, uint32_t run)
{
	const char *seed = getenv("SIM_SEED");
	struct sim_world *w = calloc(1, sizeof(*w));
	const uint64_t base = seed ? strtoull(seed, NULL, 0) : UINT64_C(0x51ed);

	assert(w);
	printf("%s: SIM_SEED=%#llx run %u\n", scenario, (unsigned long long)base, run);
	fflush(stdout);
	w->rng.state = base + 7919 * (uint64_t)run;
	w->trace = getenv("SIM_TRACE") != NULL;
	w->now_us = 1000 * SM_SEC_US + rng_below(&w->rng, 1000000);
	w->net = (struct sim_net){.delay_us = 5000, .jitter_us = 1000};
	return w;
}

static void forget_pictures(struct sim_node *n)
{
	while (n->retired)
		retire_one(n);
	if (n->picture)
		sm_node_on_retired(n->core, n->picture);
	n->picture = NULL;
}

static void end_node(struct sim_node *n)
{
	struct sm_node *core = n->core;

	sm_node_shutdown(core, n->w->now_us);
	forget_pictures(n);
	n->core = NULL;
	sm_node_free(core);
	n->life++;
	n->tick_at_us = SM_NEVER; /* the next life has ticks of its own */
	sim_conn_node_gone(n->w, n->id, !n->dark);
}

void sim_stop(struct sim_world *w, uint32_t id)
{
	end_node(&w->node[id]);
}

void sim_crash(struct sim_world *w, uint32_t id)
{
	w->node[id].mute = true;
	end_node(&w->node[id]);
	w->node[id].mute = false;
}

void sim_power_off(struct sim_world *w, uint32_t id)
{
	w->node[id].dark = true;
	sim_crash(w, id);
	w->node[id].dark = false;
}

void sim_world_free(struct sim_world *w)
{
	for (uint32_t i = 0; i < w->nodes; i++)
		if (w->node[i].core)
			sim_crash(w, i);
	for (uint32_t i = 0; i < w->events; i++)
		free(w->heap[i]);
	free(w->heap);
	sim_conn_free_all(w);
	for (uint32_t i = 0; i < w->flows; i++)
		free(w->flow[i]);
	free(w);
}

static struct sm_addr fresh_address(struct sim_world *w, uint16_t port)
{
	static const uint32_t spread = 2654435761u;
	const uint32_t ip = SIM_IP_BASE + (uint32_t)(w->order++ * spread >> 8 & 0xffffff);
	const uint8_t bytes[4] = {10, (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip};
	struct sm_addr addr;

	if (sm_addr_from_ip(4, bytes, port, &addr))
		abort();
	return addr;
}

static void make_identity(struct sim_world *w, uint32_t id, struct sm_identity *ret_id)
{
	*ret_id = (struct sm_identity){.not_before = 1000, .not_after = 1000000000};
	memset(ret_id->network_id, 7, sizeof(ret_id->network_id));
	snprintf(ret_id->name, sizeof(ret_id->name), "n%03u", id);
	if (sm_ident_node_id(ret_id->network_id, ret_id->name, NULL, ret_id->node_id))
		abort();
	rng_fill(&w->rng, ret_id->fingerprint, sizeof(ret_id->fingerprint));
}

uint32_t sim_add(struct sim_world *w)
{
	const uint32_t id = w->nodes++;
	struct sim_node *n = &w->node[id];

	assert(id < SIM_NODES_MAX);
	*n = (struct sim_node){.w = w,
			       .id = id,
			       .tick_at_us = SM_NEVER,
			       .worn_after = SM_REKEY_AFTER_PACKETS,
			       .link_mtu = 1500};
	n->config = (struct sm_node_config){
		.mode = SM_MODE_TAP,
		.workers = 2,
		.mtu = 1500,
		.frame_overhead = 18,
		.data_port = SM_DATA_PORT,
		.control_port = SM_CONTROL_PORT,
		.ciphers = 1u << SM_CIPHER_AES256GCM | 1u << SM_CIPHER_CHACHA20POLY1305,
		.preferred = SM_CIPHER_AES256GCM,
		.rekey_after_us = SM_REKEY_AFTER_US,
		.keepalive_us = SM_KEEPALIVE_US,
		.max_peers = 1024,
		.batches = true,
	};
	make_identity(w, id, &n->config.self);
	if (sm_ident_mac(n->config.self.node_id, &n->config.mac))
		abort();
	n->local = n->visible = fresh_address(w, SM_DATA_PORT);
	return id;
}

void sim_start(struct sim_world *w, uint32_t id)
{
	static const struct sm_node_ops ops = {
		.dial = sim_conn_dial,
		.resolve = op_resolve,
		.conn_send = sim_conn_send,
		.conn_close = sim_conn_close,
		.datagram = op_datagram,
		.datagrams = op_datagrams,
		.publish = op_publish,
		.route_mtu = op_route_mtu,
		.random = op_random,
		.event = op_event,
		.ping_answer = op_ping_answer,
	};
	struct sim_node *n = &w->node[id];

	assert(!n->core);
	if (sm_node_new(&n->config, &ops, n, w->now_us, &n->core))
		abort();
	sim_kick(n);
}

void sim_peer(struct sim_world *w, uint32_t id, uint32_t peer, bool dial)
{
	struct sm_peer_config configs[SIM_NODES_MAX];
	const struct sm_peer *p = NULL;
	struct sim_node *n = &w->node[id];
	uint32_t count = 0;

	while ((p = sm_node_next_peer(n->core, p)))
		if (p->configured && strcmp(p->name, w->node[peer].config.self.name))
			configs[count++] = (struct sm_peer_config){p->name, p->has_endpoints};
	configs[count++] = (struct sm_peer_config){w->node[peer].config.self.name, dial};
	if (sm_node_set_peers(n->core, configs, count, w->now_us))
		abort();
	sim_kick(n);
}

void sim_move(struct sim_world *w, uint32_t id)
{
	struct sim_node *n = &w->node[id];

	n->visible = fresh_address(w, SM_DATA_PORT);
	if (!n->behind_nat)
		n->local = n->visible;
}

void sim_cut(struct sim_world *w, uint32_t a, uint32_t b, bool tcp, bool udp)
{
	w->tcp_cut[a][b] = w->tcp_cut[b][a] = tcp;
	w->udp_cut[a][b] = w->udp_cut[b][a] = udp;
}

/* -- looking -- */

const struct sm_peer *sim_peer_of(struct sim_world *w, uint32_t id, uint32_t peer)
{
	return w->node[id].core
		       ? sm_node_find_peer(w->node[id].core, w->node[peer].config.self.name)
		       : NULL;
}

uint32_t sim_links(struct sim_world *w, uint32_t id, uint32_t peer)
{
	const struct sm_peer *p = sim_peer_of(w, id, peer);
	uint32_t n = 0;

	for (uint32_t i = 0; p && i < SM_PEER_LINKS_MAX; i++)
		n += p->link[i] != NULL;
	return n;
}

uint32_t sim_started(struct sim_world *w, uint32_t id, uint32_t peer)
{
	const struct sm_peer *p = sim_peer_of(w, id, peer);
	uint32_t n = 0;

	for (uint32_t i = 0; p && i < SM_PEER_SESSIONS_MAX; i++)
		n += p->session[i] && p->session[i]->started;
	return n;
}

uint32_t sim_sessions(struct sim_world *w, uint32_t id, uint32_t peer)
{
	const struct sm_peer *p = sim_peer_of(w, id, peer);
	uint32_t n = 0;

	for (uint32_t i = 0; p && i < SM_PEER_SESSIONS_MAX; i++)
		n += p->session[i] != NULL;
	return n;
}

bool sim_addr_is(struct sim_world *w, uint32_t id, uint32_t peer)
{
	const struct sm_peer *p = sim_peer_of(w, id, peer);

	return p && p->active && sm_addr_equal(&p->active->path.remote, &w->node[peer].visible);
}

uint32_t sim_mtu_of(struct sim_world *w, uint32_t id, uint32_t peer)
{
	const struct sm_peer *p = sim_peer_of(w, id, peer);

	return p && p->active ? p->active->mtu.size : 0;
}

bool sim_connected(struct sim_world *w, uint32_t a, uint32_t b)
{
	const struct sm_peer *pa = sim_peer_of(w, a, b), *pb = sim_peer_of(w, b, a);

	if (!pa || !pb || !pa->live || !pb->live || !pa->active || !pb->active)
		return false;
	return pa->active->config.index == pb->active->config.remote_index &&
	       pb->active->config.index == pa->active->config.remote_index &&
	       pa->live->session == pa->active && pb->live->session == pb->active &&
	       sim_links(w, a, b) == 1 && sim_links(w, b, a) == 1;
}

bool sim_all_connected(struct sim_world *w)
{
	for (uint32_t a = 0; a < w->nodes; a++)
		for (uint32_t b = 0; b < a; b++)
			if ((sim_peer_of(w, a, b) || sim_peer_of(w, b, a)) &&
			    !sim_connected(w, a, b))
				return false;
	return true;
}

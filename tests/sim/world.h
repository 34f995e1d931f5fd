// SPDX-License-Identifier: MIT
/*
 * The simulator: many nodes in one process on one virtual clock, and the network between them.
 *
 * Theory of operation: one queue of events, ordered by time, drives all. A node is the real control
 * plane (struct sm_node) with a host made of this file: connections are ordered pipes of bytes whose
 * two ends were handed the same random root secret and each other's identity (in TLS's place);
 * datagrams travel with delay, jitter, loss and copies. A miniature data plane (plane.c) seals and
 * opens on the lanes of the pictures that a node publishes and raises the same events as the
 * workers do. Pictures are retired late, at random, as slow workers would.
 *
 * Everything follows from one seed, which is printed; SIM_SEED=... runs it again, SIM_TRACE=1 tells
 * what happens.
 */
#ifndef SM_SIM_WORLD_H
#define SM_SIM_WORLD_H

#include "core/node.h"
#include "../unit/rng.h"

#define SIM_NODES_MAX  256u
#define SIM_FRAMES_MAX 65536u /* of one flow */
#define SIM_IP_BASE    0x0a000001u

struct sim_world;

/** struct sim_net - How datagrams and connections travel; the same for all */
struct sim_net {
	uint64_t delay_us, jitter_us; /* one way: delay plus 0 to jitter, datagrams may overtake */
	uint32_t loss, copies;        /* of 1000 datagrams */
	bool wiretap;                 /* an attacker copies datagrams, see sim_world.attacker */
	uint32_t mtu;         /* larger packets vanish without a word; 0: none is too large */
	uint32_t batch_loses; /* mask of places in a message of several whose datagrams vanish */
};

/** struct sim_flow - Numbered frames from one node to another */
struct sim_flow {
	uint32_t from, to;
	uint64_t period_us; /* 0: stopped */
	bool full; /* each frame fills a packet of the path MTU, as parts of large frames do */
	uint32_t sent, refused, received, twice;
	uint64_t last_us; /* when the last one arrived */
	uint64_t gap_us;  /* longest silence since the flow was watched */
	bool got[SIM_FRAMES_MAX];
};

/** struct sim_counts - What a node did and saw */
struct sim_counts {
	uint64_t dials, resolves, conn_messages, conn_bytes, datagrams, publishes, ticks;
	uint64_t batches; /* messages of several datagrams */
	uint64_t events[SM_NODE_EVENT_COUNT];
	uint64_t refused_large;
	uint64_t unknown_session, unknown_epoch, forged, replayed, sealed_refused;
	unsigned closed[SM_CLOSE_REASON_COUNT]; /* links closed, by reason, by either side */
	uint64_t pings_answered;
};

struct sim_node {
	struct sim_world *w;
	uint32_t id;
	uint32_t life; /* goes up at each end; what was under way for an earlier life is dropped */
	struct sm_node *core; /* NULL: not running */
	struct sm_node_config config;
	bool mute;              /* a crash: nothing that it says leaves */
	bool dark;              /* nor does its kernel reset connections */
	struct sm_addr local;   /* what its socket is bound to */
	struct sm_addr visible; /* what others see; differs behind a NAT */
	bool behind_nat;
	uint32_t link_mtu; /* of its own link: its kernel refuses larger packets */
	int batch_err;     /* its kernel refuses messages of several datagrams; 0: it does not */
	uint32_t revoked;  /* id + 1 of a node that this one does not accept; 0: none */
	struct sm_snapshot *picture;
	struct sm_snapshot *retired; /* by retired_next */
	uint32_t retired_count;
	uint64_t tick_at_us, last_tick_us, event_at_us;
	uint32_t stuck;      /* ticks without progress of time */
	uint64_t worn_after; /* packets of a lane; SM_REKEY_AFTER_PACKETS unless a test lowers it */
	struct sim_counts counts;
};

struct sim_event {
	uint64_t at_us, order;
	void (*run)(struct sim_world *w, struct sim_event *e);
	void *a;
	uint32_t node, life;
	uint64_t n;
	struct sm_addr from, to;
	size_t len;
	uint8_t data[];
};

struct sim_conn;

struct sim_world {
	struct rng rng;
	uint64_t now_us, order;
	struct sim_event **heap;
	uint32_t events, event_cap;
	struct sim_net net;
	struct sim_node node[SIM_NODES_MAX];
	uint32_t nodes;
	struct sim_conn *conns; /* all, until the end of the world */
	uint32_t conn_count;
	bool tcp_cut[SIM_NODES_MAX][SIM_NODES_MAX]; /* bytes are held, attempts time out */
	bool udp_cut[SIM_NODES_MAX][SIM_NODES_MAX];
	struct sim_flow *flow[64];
	uint32_t flows;
	struct sm_addr attacker; /* the wiretap's own address */
	uint64_t attacker_delay_us;
	bool attacker_relays; /* what is sent to it goes on to the victim */
	uint32_t victim;
	uint64_t stolen;
	bool trace;
};

/** sim_world_new() - @scenario: printed with the seed; @run: several runs of it differ */
struct sim_world *sim_world_new(const char *scenario, uint32_t run);
void sim_world_free(struct sim_world *w);

/** sim_add() - A node that is not running yet, named n000 and so on; Return: its id */
uint32_t sim_add(struct sim_world *w);
void sim_start(struct sim_world *w, uint32_t id);
/** sim_peer() - Put @peer into @id's configuration, with its address where @dial */
void sim_peer(struct sim_world *w, uint32_t id, uint32_t peer, bool dial);
/** sim_stop() - The orderly end; sim_crash() - the process is killed; sim_power_off() - nobody is told */
void sim_stop(struct sim_world *w, uint32_t id);
void sim_crash(struct sim_world *w, uint32_t id);
void sim_power_off(struct sim_world *w, uint32_t id);
/** sim_move() - New address, the old one is nobody's; connections break after a while */
void sim_move(struct sim_world *w, uint32_t id);

/** sim_run() - Let @us pass */
void sim_run(struct sim_world *w, uint64_t us);
/** sim_run_until() - Return: true as soon as @done says so, false after @us */
bool sim_run_until(struct sim_world *w, bool (*done)(struct sim_world *w), uint64_t us);

/** sim_event_new() - Something for later; Return: it, with room for @len bytes */
struct sim_event *sim_event_new(struct sim_world *w, uint64_t delay_us,
				void (*run)(struct sim_world *w, struct sim_event *e), size_t len);
/** sim_kick() - Something was told to the node: give it its turn */
void sim_kick(struct sim_node *n);

/** sim_break() - Both ends of all connections between two nodes learn, each in its time, that it broke */
void sim_break(struct sim_world *w, uint32_t a, uint32_t b);
void sim_cut(struct sim_world *w, uint32_t a, uint32_t b, bool tcp, bool udp);

const struct sm_peer *sim_peer_of(struct sim_world *w, uint32_t id, uint32_t peer);
/** sim_connected() - Both have one live connection and send on sessions that are each other's */
bool sim_connected(struct sim_world *w, uint32_t a, uint32_t b);
bool sim_all_connected(struct sim_world *w);
/** sim_links() - Return: connections that @id holds to @peer, of any state */
uint32_t sim_links(struct sim_world *w, uint32_t id, uint32_t peer);
/** sim_started() - Return: sessions of node @id with @peer that have keys */
uint32_t sim_started(struct sim_world *w, uint32_t id, uint32_t peer);
uint32_t sim_sessions(struct sim_world *w, uint32_t id, uint32_t peer);
/** sim_addr_is() - Return: true if @id sends to where @peer is now */
bool sim_addr_is(struct sim_world *w, uint32_t id, uint32_t peer);

/* plane.c */

/** sim_datagram() - Send into the network; @src: as the receiver sees it */
void sim_datagram(struct sim_world *w, uint32_t from_node, const struct sm_addr *src,
		  const struct sm_addr *to, const void *data, size_t len);
void sim_plane_receive(struct sim_node *n, const struct sm_addr *from, const uint8_t *data,
		       size_t len);
/** sim_frame() - Seal one frame and send it; Return: 0, -ENOTCONN, -EKEYEXPIRED */
int sim_frame(struct sim_world *w, uint32_t from, uint32_t to, const void *data, size_t len);
/** sim_outer_len() - Return: bytes of the IP packet around a datagram */
uint32_t sim_outer_len(size_t len);
/** sim_mtu_of() - Return: what @id believes that packets to @peer may have */
uint32_t sim_mtu_of(struct sim_world *w, uint32_t id, uint32_t peer);
/** sim_flow_start() - Frames at a pace from now on */
struct sim_flow *sim_flow_start(struct sim_world *w, uint32_t from, uint32_t to,
				uint64_t period_us);
void sim_flow_stop(struct sim_flow *f);
/** sim_flow_lost() - Return: frames sealed and not received so far */
uint32_t sim_flow_lost(const struct sim_flow *f);

#endif

// SPDX-License-Identifier: MIT
/*
 * The node: its peers, their control connections and sessions. The heart of the control plane, without a
 * system call, clock or log: its host (the daemon, or the simulator) brings authenticated connections,
 * packets and time, and carries out what the operations ask.
 *
 * Theory of operation: a peer is known by its name, from the configuration or from the certificate it
 * came with. Each control connection (struct sm_link) begins with HELLO from both sides; both HELLOs make a
 * session, READY says that its receiving keys are published, and only then is anything sent on it. A session
 * outlives its connection; a new connection brings a new session, and the old one drains.
 *
 * Context: everything here belongs to one thread, the control thread.
 * Spec: PROTOCOL.md, "Control channel", "Sessions"
 */
#ifndef SM_CORE_NODE_H
#define SM_CORE_NODE_H

#include "core/session.h"
#include "core/snapshot.h"
#include "crypto/ident.h"
#include "wire/ctrl.h"

struct sm_node;
struct sm_link;
struct sm_peer;

enum sm_peer_state {
	SM_PEER_IDLE,     /* nothing known to dial */
	SM_PEER_BACKOFF,  /* waits for the next attempt */
	SM_PEER_DIALLING, /* resolving, connecting, TLS handshake */
	SM_PEER_GREETING, /* authenticated, HELLO and READY under way */
	SM_PEER_UP,       /* a session carries data */
	SM_PEER_SILENT,   /* the session is there, but nothing comes from the peer */
	SM_PEER_STATE_COUNT,
};
const char *sm_peer_state_name(enum sm_peer_state state);

enum sm_node_event_type {
	SM_NODE_PEER_STATE,  /* peer, from, to */
	SM_NODE_IDENTIFIED,  /* peer: a certificate of it was accepted; it may be a renewed one */
	SM_NODE_SESSION_UP,  /* peer: a session is ready to carry data */
	SM_NODE_LINK_CLOSED, /* peer, reason, by_peer, text */
	SM_NODE_REKEYED,     /* peer, number: the new epoch */
	SM_NODE_PATH_MOVED,  /* peer, addr, number of moves */
	SM_NODE_REFUSED,     /* link of an identity that may not take part: reason, text */
	SM_NODE_PROTOCOL,    /* peer: malformed message, text */
	SM_NODE_BATCHES,     /* peer, number: enum sm_batch_state that was entered */
	SM_NODE_EVENT_COUNT,
};

struct sm_node_event {
	enum sm_node_event_type type;
	const struct sm_peer *peer; /* NULL where there is none */
	enum sm_peer_state from, to;
	unsigned reason; /* enum sm_close_reason, or an unknown number from the wire */
	bool by_peer;
	uint64_t number;
	struct sm_addr addr;
	const char *text;
};

struct sm_endpoint_set {
	struct sm_addr addr[SM_ENDPOINTS_MAX];
	uint32_t count;
};

/**
 * struct sm_node_ops - What the node asks of its host; none may call back into the node
 * @dial:       connect to one address; answered by sm_node_on_link_open() or sm_node_on_dial_failed()
 * @resolve:    look the peer's configured endpoints up again; answered by sm_node_on_resolved(), unless it
 *              fails at once
 * @conn_send:  queue bytes on a connection; Return: 0, -errno (then it will be closed)
 * @conn_close: flush, then close; the handle is not used any more by the node
 * @datagram:   send one sealed packet; Return: 0, -EMSGSIZE larger than the local link takes, -errno
 * @datagrams:  send several sealed packets of @segment bytes each in one message; Return: 0, -EMSGSIZE,
 *              -errno; only asked for where sm_node_config.batches is set
 * @publish:    hand the workers a new picture
 * @route_mtu:  bytes of outer packet that the local link towards @to carries
 * @random:     never fails (the host ends the daemon rather than let it)
 */
struct sm_node_ops {
	int (*dial)(void *host, uint16_t port, const struct sm_addr *to);
	int (*resolve)(void *host, uint16_t port);
	int (*conn_send)(void *host, void *conn, const void *data, size_t len);
	void (*conn_close)(void *host, void *conn);
	int (*datagram)(void *host, const struct sm_addr *to, const struct sm_addr *from,
			const void *data, size_t len);
	int (*datagrams)(void *host, const struct sm_addr *to, const struct sm_addr *from,
			 const void *data, size_t len, size_t segment);
	void (*publish)(void *host, struct sm_snapshot *snapshot);
	uint32_t (*route_mtu)(void *host, const struct sm_addr *to);
	void (*random)(void *host, void *buf, size_t len);
	void (*event)(void *host, const struct sm_node_event *event);
	void (*ping_answer)(void *host, uint64_t tag, const struct sm_path_answer *answer);
};

struct sm_node_config {
	struct sm_identity self;
	struct sm_mac mac;
	enum sm_mode mode;
	uint32_t workers;
	uint32_t mtu;
	uint32_t
		frame_overhead; /* bytes of L2 header around an MTU-sized packet: 18 for TAP, 0 for TUN */
	uint16_t data_port, control_port;
	uint8_t ciphers;   /* mask of enum sm_cipher */
	uint8_t preferred; /* enum sm_cipher */
	uint32_t path_mtu; /* 0: to be found out, beginning with @route_mtu */
	uint64_t rekey_after_us, keepalive_us;
	uint32_t max_peers;
	bool batches; /* datagrams may go several in one message, once that is proven for their peer */
};

SM_MUST_CHECK int sm_node_new(const struct sm_node_config *config, const struct sm_node_ops *ops,
			      void *host, uint64_t now_us, struct sm_node **ret_node);

/** sm_node_shutdown() - Tell all peers, close all; publishes an empty picture */
void sm_node_shutdown(struct sm_node *node, uint64_t now_us);
/** sm_node_free() - After shutdown and after the last snapshot was retired */
void sm_node_free(struct sm_node *node);

/** struct sm_peer_config - A [Peer] section */
struct sm_peer_config {
	const char *name;
	bool has_endpoints; /* the host can resolve and dial it */
};

/** sm_node_set_peers() - The configured peers, at start and at a reload; others stay as long as they are connected */
SM_MUST_CHECK int sm_node_set_peers(struct sm_node *node, const struct sm_peer_config *peers,
				    uint32_t count, uint64_t now_us);

/** sm_node_set_candidates() - Our own data addresses, told to peers at connection and when they change */
void sm_node_set_candidates(struct sm_node *node, const struct sm_candidate *candidates,
			    uint32_t count, uint64_t now_us);

/**
 * sm_node_set_identity() - A renewed certificate of our own, for what comes after
 *
 * Connected peers get it in a connection that replaces theirs, which sm_node_retry_now() begins.
 */
void sm_node_set_identity(struct sm_node *node, const struct sm_identity *self);

/** sm_node_allow_batches() - What sm_node_config.batches says, later */
void sm_node_allow_batches(struct sm_node *node, bool allowed, uint64_t now_us);

/* -- connections: the host has authenticated the peer and exported the root secret -- */

/**
 * sm_node_on_link_open()
 * @conn: the host's handle
 * @dialled: port number given to @dial, or SM_PORT_NONE if the peer connected to us
 * @id: verified identity of the peer
 * Return: the link, for the calls below; NULL: refused (closed through conn_close after a CLOSE was sent)
 */
struct sm_link *sm_node_on_link_open(struct sm_node *node, void *conn, uint16_t dialled,
				     const struct sm_identity *id, const struct sm_addr *remote,
				     const uint8_t root[SM_ROOT_SECRET_LEN], uint64_t now_us);
/** sm_node_on_link_data() - Plaintext bytes; the link may be gone afterwards (the host sees conn_close) */
void sm_node_on_link_data(struct sm_node *node, struct sm_link *link, const uint8_t *data,
			  size_t len, uint64_t now_us);
/** sm_node_on_link_lost() - The connection broke; @text: why. The link is gone afterwards */
void sm_node_on_link_lost(struct sm_node *node, struct sm_link *link, const char *text,
			  uint64_t now_us);
/**
 * sm_node_on_link_refused() - The same where TLS ended it: @reason says why
 *
 * A TLS 1.3 client has finished before the server looks at its certificate: a refusal comes when the link is there.
 */
void sm_node_on_link_refused(struct sm_node *node, struct sm_link *link,
			     enum sm_close_reason reason, const char *text, uint64_t now_us);
/** sm_node_on_dial_failed() - @reason: SM_CLOSE_NONE if the network failed, else why we or they refused */
void sm_node_on_dial_failed(struct sm_node *node, uint16_t port, enum sm_close_reason reason,
			    const char *text, uint64_t now_us);
/** sm_node_on_resolved() - @set may be empty: then @text says why */
void sm_node_on_resolved(struct sm_node *node, uint16_t port, const struct sm_endpoint_set *set,
			 const char *text, uint64_t now_us);

/* -- packets: from the plane's events -- */

void sm_node_on_control_packet(struct sm_node *node, uint32_t session, uint8_t kind,
			       const uint8_t *body, size_t len, const struct sm_addr *from,
			       const struct sm_addr *to, uint64_t now_us);
void sm_node_on_address(struct sm_node *node, uint32_t session, const struct sm_addr *from,
			const struct sm_addr *to, uint64_t now_us);
void sm_node_on_epoch(struct sm_node *node, uint32_t session, uint32_t epoch, unsigned event,
		      uint64_t now_us);
void sm_node_on_path_mtu(struct sm_node *node, uint32_t session, uint64_t now_us);
/** sm_node_on_network_change() - Links, addresses or routes of this machine changed */
void sm_node_on_network_change(struct sm_node *node, uint64_t now_us);
/** sm_node_on_retired() - No worker sees this snapshot any more: frees it */
void sm_node_on_retired(struct sm_node *node, struct sm_snapshot *snapshot);

/* -- time -- */

/** sm_node_tick() - Do what is due; Return: when to be called next (microseconds of the same clock) */
SM_MUST_CHECK uint64_t sm_node_tick(struct sm_node *node, uint64_t now_us);

/* -- commands -- */

/**
 * sm_node_recheck() - Ask again whether each connected peer may take part (time, revocation, reload)
 * @check: Return: SM_CLOSE_NONE, or why not, with a sentence in @text (SM_CLOSE_TEXT_MAX + 1 bytes)
 */
void sm_node_recheck(struct sm_node *node,
		     enum sm_close_reason (*check)(void *arg, const struct sm_identity *peer,
						   char *text),
		     void *arg, uint64_t now_us);
/** sm_node_retry_now() - Forget all back-off */
void sm_node_retry_now(struct sm_node *node, uint64_t now_us);
/** sm_node_ping() - Probe a peer's path; answered through ping_answer with @tag; Return: 0, -ENOTCONN */
SM_MUST_CHECK int sm_node_ping(struct sm_node *node, const struct sm_peer *peer, uint64_t tag,
			       uint64_t now_us);
/** sm_node_rekey() - Begin a new epoch with a peer now; Return: 0, -ENOTCONN */
SM_MUST_CHECK int sm_node_rekey(struct sm_node *node, const struct sm_peer *peer, uint64_t now_us);

/* -- reading -- */

struct sm_lane_totals {
	uint64_t lost, late, duplicate, forged;
};

struct sm_peer_info {
	uint16_t port;
	const char *name;
	bool configured, has_identity, link_up, client;
	enum sm_peer_state state;
	uint64_t since_us;                  /* of the state */
	const struct sm_identity *identity; /* if has_identity */
	struct sm_mac mac;
	const struct sm_session *session; /* the one sent on, or NULL */
	const void *conn;                 /* the host's handle of the live link, or NULL */
	uint32_t path_mtu;                /* 0: no session */
	uint32_t attempts;
	const char *last_error;
	struct sm_lane_totals totals;
};

/** sm_node_next_peer() - @after: NULL for the first; Return: NULL at the end */
const struct sm_peer *sm_node_next_peer(const struct sm_node *node, const struct sm_peer *after);
const struct sm_peer *sm_node_find_peer(const struct sm_node *node, const char *name);
const struct sm_peer *sm_node_peer_by_port(const struct sm_node *node, uint16_t port);
void sm_peer_info(const struct sm_node *node, const struct sm_peer *peer,
		  struct sm_peer_info *ret_info);
const char *sm_peer_name(const struct sm_peer *peer);
/**
 * sm_node_is_known() - Does a session send to this IP address, or was a configured peer looked up to have it?
 *
 * Cheap: asked for each stranger. Whatever the port.
 */
bool sm_node_is_known(const struct sm_node *node, const struct sm_addr *addr);

#endif

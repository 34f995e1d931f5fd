// SPDX-License-Identifier: MIT
/*
 * What the files of the node share: peers, links, and the helpers between them. Private to core.
 */
#ifndef SM_CORE_PEER_H
#define SM_CORE_PEER_H

#include "base/list.h"
#include "core/node.h"

#define SM_PEER_SESSIONS_MAX 6u
#define SM_PEER_LINKS_MAX    4u
#define SM_GLARE_US \
	(10 * SM_SEC_US) /* both dialled at once: connections that close to each other contend */
#define SM_GREETING_US       (5 * SM_SEC_US) /* HELLO and READY must be through by then */
#define SM_LINK_PING_US      (10 * SM_SEC_US)
#define SM_LINK_ANSWER_US    (15 * SM_SEC_US) /* after a PING */
#define SM_LINK_HURRY_US     (4 * SM_SEC_US)  /* the same, while packets are not answered either */
#define SM_PONG_US           (20 * SM_MSEC_US) /* PINGs of one peer are answered that often at most */
#define SM_FULL_HANDSHAKE_US (UINT64_C(24) * 3600 * SM_SEC_US)
#define SM_RETIRE_PEER_US \
	(UINT64_C(3600) * SM_SEC_US) /* unconfigured and gone that long: forgotten */

enum sm_link_state {
	SM_LINK_HELLO, /* ours is sent, theirs is awaited */
	SM_LINK_READY, /* session started, their READY is awaited */
	SM_LINK_OPEN,
	SM_LINK_CLOSING, /* about to be closed, with all others of the peer */
};

struct sm_link {
	struct sm_node *node;
	struct sm_peer *peer;
	void *conn;
	enum sm_link_state state;
	bool client; /* we are the TLS client */
	struct sm_addr remote;
	struct sm_session *session;       /* the one it seeded; NULL once that ended */
	uint8_t root[SM_ROOT_SECRET_LEN]; /* wiped when the session has started */
	uint64_t peer_instance;
	uint64_t opened_us, last_rx_us, last_ping_us;
	uint64_t asked_us; /* since when a PING waits for anything to come, 0: none does */
	struct sm_assembler in;
	bool feeding, gone; /* freed when feeding ends */
};

struct sm_peer {
	struct sm_list entry;
	struct sm_node *node;
	uint16_t port;
	char name[SM_NAME_MAX + 1];
	bool configured, has_endpoints, has_identity;
	struct sm_identity identity;
	struct sm_mac mac;
	enum sm_peer_state state;
	uint64_t since_us;

	/* dialling */
	struct sm_endpoint_set dial;     /* addresses to try, in turn */
	struct sm_endpoint_set resolved; /* what its endpoints were looked up to be last */
	struct sm_endpoint_set learned;  /* control addresses from ENDPOINTS and live connections */
	uint32_t dial_next;
	bool resolving, in_dial;
	uint64_t dial_at_us; /* SM_NEVER: not scheduled */
	uint64_t dial_started_us;
	uint32_t attempts;
	bool refused; /* the last attempt ended with a reason, not with a network fault */
	char last_error[384];
	uint64_t heard_us; /* last time a connection to it was open */

	struct sm_link *link[SM_PEER_LINKS_MAX];
	struct sm_link *live; /* the open link that messages go out on, NULL: use the stream */
	struct sm_session *session[SM_PEER_SESSIONS_MAX];
	struct sm_session *active;    /* the one sent on */
	bool renew;                   /* a full handshake is due although a link is there */
	uint64_t ponged_us;           /* when a PING was last answered: a flood of them is not */
	struct sm_lane_totals totals; /* of epochs that are gone */
};

struct sm_node {
	struct sm_node_config config;
	struct sm_node_ops ops;
	void *host;
	uint64_t instance;
	struct sm_list peers;
	struct sm_peer **by_port;     /* SM_PORT_MAX entries */
	struct sm_session **sessions; /* by slot */
	uint32_t session_slots;
	struct sm_mactable *learned;
	uint64_t generation, map_seed;
	bool dirty; /* the picture must be published */
	bool stopping;
	uint64_t second_at_us; /* next once-a-second round */
	struct sm_candidate candidates[SM_ENDPOINTS_MAX];
	uint32_t candidate_count;
	struct sm_pbuf_pool pool;
	struct sm_pbuf_pool probe_pool; /* one, as large as a datagram can be */
	uint8_t *batch; /* SM_DATAGRAM_MAX bytes: probes that leave in one message */
};

/* node.c */
void sm_node_flush(struct sm_node *node); /* publish if dirty */
void sm_node_tell(struct sm_node *node, const struct sm_node_event *event);
uint64_t sm_node_random64(struct sm_node *node);
struct sm_session *sm_node_session(struct sm_node *node, uint32_t index);
SM_MUST_CHECK int sm_node_new_session(struct sm_node *node, struct sm_peer *peer, uint64_t now_us,
				      struct sm_session **ret_session);

/* peer.c */
SM_MUST_CHECK int sm_peer_new(struct sm_node *node, const char *name, uint64_t now_us,
			      struct sm_peer **ret_peer);
void sm_peer_free(struct sm_peer *peer);
void sm_peer_set_state(struct sm_peer *peer, enum sm_peer_state state, uint64_t now_us);
void sm_peer_update_state(struct sm_peer *peer, uint64_t now_us);
void sm_peer_schedule_dial(struct sm_peer *peer, bool soon, uint64_t now_us);
void sm_peer_dial_tick(struct sm_peer *peer, uint64_t now_us);
void sm_peer_learn_endpoint(struct sm_peer *peer, const struct sm_addr *control);
/** sm_peer_send() - A message on the best carrier: the live link, else the stream */
void sm_peer_send(struct sm_peer *peer, const void *data, size_t len, uint64_t now_us);
/** sm_peer_send_session() - What concerns this session: its live link, else its stream */
void sm_peer_send_session(struct sm_peer *peer, struct sm_session *s, const void *data, size_t len,
			  uint64_t now_us);
void sm_peer_send_stream(struct sm_peer *peer, struct sm_session *s, const void *data, size_t len,
			 uint64_t now_us);
void sm_peer_send_stream_msg(struct sm_peer *peer, struct sm_session *s, const struct sm_msg *msg,
			     uint64_t now_us);
void sm_peer_send_msg(struct sm_peer *peer, const struct sm_msg *msg, uint64_t now_us);
void sm_peer_end_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
void sm_peer_drain_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
void sm_peer_use_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
/** sm_peer_adopt_session() - A packet came on an orphan: the peer sends on it, and so do we if it is the newest */
void sm_peer_adopt_session(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
/** sm_peer_close_all() - CLOSE with @reason on every carrier, links and sessions gone */
void sm_peer_close_all(struct sm_peer *peer, enum sm_close_reason reason, const char *text,
		       uint64_t now_us);
void sm_peer_session_tick(struct sm_peer *peer, struct sm_session *s, bool second, uint64_t now_us);
/** sm_peer_send_sealed() - One packet of the control lane; what does not get out is loss */
void sm_peer_send_sealed(struct sm_peer *peer, struct sm_session *s, enum sm_kind kind,
			 const void *body, size_t len, const struct sm_addr *to,
			 const struct sm_addr *from, uint64_t now_us);
void sm_peer_on_packet(struct sm_peer *peer, struct sm_session *s, uint8_t kind,
		       const uint8_t *body, size_t len, const struct sm_addr *from,
		       const struct sm_addr *to, uint64_t now_us);
void sm_peer_flush_stream(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);

/* probing.c */
/** sm_probing_start() - @s is about to be the active session: on the path of the last one, it goes on with what that knows */
void sm_probing_start(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
/** sm_probing_send() - Ask @to whether it is the peer; @tag: of a ping that waits for the answer, or 0 */
void sm_probing_send(struct sm_peer *peer, struct sm_session *s, const struct sm_addr *to,
		     uint64_t tag, uint64_t now_us);
/** sm_probing_check_mtu() - The network changed under the session's path, or the kernel refused a packet */
void sm_probing_check_mtu(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
/** sm_probing_batches_changed() - The state of @s->batch did: for picture and host */
void sm_probing_batches_changed(struct sm_peer *peer, struct sm_session *s);
/** sm_probing_tick() - Send what is due; @second: also see what was sent and received in the last one */
void sm_probing_tick(struct sm_peer *peer, struct sm_session *s, bool second, uint64_t now_us);
/** sm_probing_deadline() - Return: when sm_probing_tick() has something to do for @s */
uint64_t sm_probing_deadline(const struct sm_peer *peer, const struct sm_session *s);
/** sm_probing_on_received() - A packet came from where @s sends to */
void sm_probing_on_received(struct sm_peer *peer, struct sm_session *s, uint64_t now_us);
/** sm_probing_on_packet() - A probe came: a request is answered, an answer goes to who asked */
void sm_probing_on_packet(struct sm_peer *peer, struct sm_session *s, const uint8_t *body,
			  size_t len, const struct sm_addr *from, const struct sm_addr *to,
			  uint64_t now_us);

/* link.c */
/** sm_link_send() - A message on this very connection; Return: 0, -errno */
SM_MUST_CHECK int sm_link_send(struct sm_link *link, const struct sm_msg *msg);
/** sm_link_of() - Return: the connection that @s began with, NULL if that is gone */
struct sm_link *sm_link_of(const struct sm_peer *peer, const struct sm_session *s);
/** sm_link_close() - CLOSE with @reason, then the end of the connection, and of its session if that is not ready */
void sm_link_close(struct sm_link *link, enum sm_close_reason reason, const char *text,
		   uint64_t now_us);
/** sm_link_on_close() - The peer sent CLOSE, on @link or (NULL) in the stream of @s */
void sm_link_on_close(struct sm_peer *peer, struct sm_link *link, struct sm_session *s,
		      const struct sm_msg_close *msg, uint64_t now_us);
/** sm_link_forget() - No peer knows it any more; freed at once, or when its bytes have been handled */
void sm_link_forget(struct sm_link *link);
/** sm_link_tick() - Closes it if nothing comes, asks before that */
void sm_link_tick(struct sm_link *link, uint64_t now_us);

/* message.c */
/** sm_message_feed() - Bytes of a connection; it may be gone afterwards (@link->gone), but is not freed */
void sm_message_feed(struct sm_link *link, const uint8_t *data, size_t len, uint64_t now_us);
/** sm_message_feed_stream() - Bytes of a session's stream; the session may be gone afterwards */
void sm_message_feed_stream(struct sm_peer *peer, struct sm_session *s, const uint8_t *data,
			    size_t len, uint64_t now_us);
/** sm_message_send_hello() - The first message of a connection; Return: 0, -errno */
SM_MUST_CHECK int sm_message_send_hello(struct sm_link *link);
/** sm_message_send_endpoints() - Our own addresses, on the best carrier */
void sm_message_send_endpoints(struct sm_peer *peer, uint64_t now_us);
/** sm_message_send_observed() - The address that @link comes from, on the best carrier */
void sm_message_send_observed(const struct sm_link *link, uint64_t now_us);

/* contention.c */
/** sm_contention_enter() - @link has opened: live at once, or standing by, or one of several to be closed */
void sm_contention_enter(struct sm_link *link, uint64_t now_us);
/** sm_contention_succeed() - The live link may be gone: one that stood by takes its place */
void sm_contention_succeed(struct sm_peer *peer, uint64_t now_us);
/** sm_contention_follow() - Once a second: the side that does not decide sends where the other one does */
void sm_contention_follow(struct sm_peer *peer, uint64_t now_us);

/* picture.c */
SM_MUST_CHECK int sm_picture_build(struct sm_node *node, struct sm_snapshot **ret_snapshot);
void sm_picture_free(struct sm_node *node, struct sm_snapshot *snapshot);
void sm_picture_release_epoch(struct sm_node *node, struct sm_epoch *epoch);

#endif

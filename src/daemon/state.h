// SPDX-License-Identifier: MIT
/*
 * What the files of the daemon share: its parts, and who starts and stops them. Private to src/daemon.
 *
 * Everything here belongs to the control thread, the one that runs the libuv loop.
 */
#ifndef SM_DAEMON_STATE_H
#define SM_DAEMON_STATE_H

#include "base/list.h"
#include "core/node.h"
#include "crypto/tls.h"
#include "daemon/config.h"
#include "daemon/conn.h"
#include "daemon/ctl.h"
#include "daemon/daemon.h"
#include "daemon/detach.h"
#include "daemon/notify.h"
#include "daemon/selftest.h"
#include "io/netlink.h"
#include "io/tun.h"
#include "plane/plane.h"

#include <uv.h>

#define SM_DAY_S             INT64_C(86400)
#define SM_DAEMON_ERROR_MAX  512u
#define SM_DAEMON_ROUTES_MAX (SM_IDENT_PREFIX_MAX + SM_IDENT_ADDRESS_MAX) /* to one peer */

/** struct sm_credentials - What proves who we are, and whom we believe */
struct sm_credentials {
	struct sm_cert *cert;
	struct sm_key *key;
	struct sm_trust *trust;
	struct sm_tls_config *tls;
	struct sm_identity self;
};

/** struct sm_handshake - Of the newest connection with a peer, for status */
struct sm_handshake {
	bool known;
	char group[32], signature[32];
	uint64_t bytes_in, bytes_out, us, work_us;
};

/** struct sm_daemon_port - What the daemon remembers of a peer beside core */
struct sm_daemon_port {
	struct sm_handshake handshake;
	char logged[160]; /* the last reason that was logged, so that a repeated one is not */
	uint64_t logged_us;
	struct sm_log_limit log_limit;                 /* of the lines that this peer can trigger */
	bool batches_failed;                           /* and that was logged */
	struct sm_prefix routes[SM_DAEMON_ROUTES_MAX]; /* installed (TUN) */
	uint32_t route_count;
};

struct sm_daemon {
	const struct sm_daemon_options *options;
	char *config_path; /* absolute */
	struct sm_config *config;
	struct sm_credentials credentials;
	struct sm_mac mac;
	struct sm_detach detach;
	struct sm_notify notify;
	uint64_t started_us;
	int exit_code;
	bool stopping;
	bool failed; /* exit with 1 */

	int network_lock, udp_lock, tcp_lock;
	struct sm_netlink *netlink;
	int monitor_fd;
	struct sm_tun tun;
	struct sm_prefix addresses[SM_IDENT_ADDRESS_MAX + SM_CONFIG_ADDRESSES_MAX + 1];
	uint32_t address_count;
	int udp_fd[SM_WORKER_MAX];
	uint32_t workers;
	bool udp_mapped;
	bool tap_tso, tap_uso; /* super-frames that the card takes */
	struct sm_selftest selftest;
	struct sm_selftest_result tested; /* once selftest_done */
	bool selftest_done;
	uint16_t data_port, control_port;
	struct sm_addr listening[SM_CONFIG_ADDRESSES_MAX + 2];
	uint32_t listening_count;

	struct sm_plane *plane;
	struct sm_node *node;
	struct sm_conn_set *conns;
	struct sm_ctl *ctl;
	struct sm_daemon_port *ports; /* SM_PORT_MAX entries */
	struct sm_list handles;       /* of connections that have an owner */
	struct sm_list resolutions;   /* answers for the node that wait for the next turn */
	struct sm_list pings;
	uint64_t next_tag;
	struct sm_log_limit refused_log_limit;
	/* links that ended, by reason; a peer's unknown ones count as SM_CLOSE_NONE, as a broken line does */
	uint64_t closed_by_us[SM_CLOSE_REASON_COUNT], closed_by_peer[SM_CLOSE_REASON_COUNT];

	uv_loop_t loop;
	uv_async_t plane_wake, deferred;
	uv_prepare_t turn;
	uv_timer_t tick, housekeeping, settle, selftest_wait;
	uv_signal_t on_int, on_term, on_hup;
	uv_poll_t monitor, selftest_over;
	bool loop_ready;
	bool loop_busy; /* at the end: a thread of the pool still has to do with it */
};

/* credentials.c */
/** sm_credentials_load() - Read what the configuration names; Return: 0, -errno with a sentence in @error */
SM_MUST_CHECK int sm_credentials_load(const struct sm_config *config,
				      struct sm_credentials *ret_credentials, char *error);
void sm_credentials_done(struct sm_credentials *credentials);
/** sm_credentials_warn() - Log what will soon matter: an expiry ahead, a stale revocation list */
void sm_credentials_warn(const struct sm_credentials *credentials);

/* device.c */
/** sm_device_workers() - How many: as configured, or by the processors and the queues of a card that is there */
uint32_t sm_device_workers(const struct sm_config *config);
/** sm_device_open() - Locks, TAP or TUN, sockets: all that belongs to the machine; Return: 0, -errno with @error */
SM_MUST_CHECK int sm_device_open(struct sm_daemon *d, char *error);
void sm_device_close(struct sm_daemon *d);
/** sm_device_candidates() - Tell the node where this machine can be reached */
void sm_device_candidates(struct sm_daemon *d);
/** sm_device_route_peer() - TUN: have the routes to what a peer's certificate names now, or none to the peer */
void sm_device_route_peer(struct sm_daemon *d, const struct sm_peer_info *info, bool install);
/** sm_device_unroute() - At the end: an interface that outlives us keeps no route to any peer */
void sm_device_unroute(struct sm_daemon *d);

/* control.c */
/** sm_control_open() - Node, plane, connections, loop handles; Return: 0, -errno with @error */
SM_MUST_CHECK int sm_control_open(struct sm_daemon *d, char *error);
/** sm_control_run() - The loop, until sm_control_stop() */
void sm_control_run(struct sm_daemon *d);
void sm_control_stop(struct sm_daemon *d, bool failed);
void sm_control_close(struct sm_daemon *d);
/** sm_control_set_peers() - Hand the configured peers to the node; Return: 0, -errno */
SM_MUST_CHECK int sm_control_set_peers(struct sm_daemon *d);
/** sm_control_recheck() - Does every connected peer's certificate still hold? */
void sm_control_recheck(struct sm_daemon *d);

/* events.c */
/** sm_events_on_node() - What the node tells: for the log, the counts and (TUN) the routes */
void sm_events_on_node(struct sm_daemon *d, const struct sm_node_event *e);
/** sm_events_on_dial_failed() - An attempt at the peer of @port ended before the node knew its link: for the log */
void sm_events_on_dial_failed(struct sm_daemon *d, uint16_t port, const struct sm_addr *remote,
			      enum sm_close_reason reason, const char *text);
/** sm_events_log() - A line that others can trigger as often as they like: past @limit only for who debugs */
void sm_events_log(struct sm_log_limit *limit, enum sm_log_level level, const char *fmt, ...)
	SM_PRINTF(3, 4);

/* offload.c */
/** sm_offload_open() - Test soon what this machine can do; what works is switched on when that is over */
void sm_offload_open(struct sm_daemon *d);
/** sm_offload_works() - Is @item wanted, and did the test not find that it fails? */
bool sm_offload_works(const struct sm_daemon *d, enum sm_selftest_item item);
/** sm_offload_on_batches() - Batches to a peer were proven, lost or refused: for the log */
void sm_offload_on_batches(struct sm_daemon *d, enum sm_batch_state state,
			   const struct sm_peer_info *info);
/** sm_offload_on_event() - A worker's offload failed, or is tried again: for the log */
void sm_offload_on_event(struct sm_daemon *d, const struct sm_plane_event *e);
void sm_offload_close(struct sm_daemon *d);

/* reload.c */
/** sm_reload() - Read the configuration and all files again; nothing changes if one is bad; Return: 0, -errno */
SM_MUST_CHECK int sm_reload(struct sm_daemon *d, char *ret_note, char *error);

/* resolve.c */
/** sm_resolve_peer() - Begin to look its endpoints up; Return: 0, -ENOMEM: then nothing follows */
SM_MUST_CHECK int sm_resolve_peer(struct sm_daemon *d, uint16_t port);
/** sm_resolve_deliver() - Hand finished ones to the node, from the loop */
void sm_resolve_deliver(struct sm_daemon *d);

/* commands.c */
void sm_commands_handle(void *arg, struct sm_ctl_request *request, const char *command,
			const json_t *args);
void sm_commands_on_ping_answer(struct sm_daemon *d, uint64_t tag,
				const struct sm_path_answer *answer);
void sm_commands_cancel_all(struct sm_daemon *d);

/* status.c */
json_t *sm_status_daemon(const struct sm_daemon *d, bool profile);
json_t *sm_status_peers(const struct sm_daemon *d);
/** sm_status_batches() - Why datagrams of @s go one by one; Return: "" if they go in batches */
const char *sm_status_batches(const struct sm_session *s);

#endif

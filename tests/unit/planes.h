// SPDX-License-Identifier: MIT
/*
 * Planes to test with: TAP queues are socket pairs, UDP is real on 127.0.0.1, sessions share a secret
 * that the test made up. A peer is another plane or the test itself.
 *
 *   test -- tap[i] == (queue i) plane A ==== UDP ==== plane B (queue i) == tap[i] -- test
 */
#ifndef SM_TESTS_UNIT_PLANES_H
#define SM_TESTS_UNIT_PLANES_H

#include "plane/plane.h"
#include "wire/vnet.h"

#include <pthread.h>

#define PLANES_FRAME_MAX   1522u
#define PLANES_EVENTS_MAX  4096u
#define PLANES_MEMBERS_MAX 512u
#define OWN_MAC(port)      (UINT64_C(0x020000000000) + (port))

/**
 * struct node - One plane and what the control thread knows of it
 * @tap:     the test's ends of the TAP queues
 * @members: sessions to the peer, ports 1 to @members, all on the same epochs
 * @frees:   snapshots retired so far; @published: snapshots given to the plane
 */
struct node {
	struct sm_plane *plane;
	uint32_t workers, members;
	int tap[SM_WORKER_MAX], queue[SM_WORKER_MAX], udp[SM_WORKER_MAX];
	struct sm_addr addr, remote;
	enum sm_mode mode;
	uint32_t path_mtu;
	bool takes_parts;
	uint64_t chunk_ports; /* a bit for each port below 64 whose peer takes chunks */
	bool unconnected;     /* members are known and awaited, but have no session */
	bool second; /* planes_join()'s b: the MACs of ports 0 and 1 are the other way round */
	struct sm_epoch *tx, *rx[SM_EPOCHS_MAX];
	uint32_t published, frees;
	_Atomic uint32_t wakes;
	struct sm_plane_event *events; /* polled so far */
	uint32_t event_count;
};

/**
 * struct planes_offload - What a node can do
 * @tso, @uso: its TAP takes super-frames
 * @batches:   datagrams of one size leave in one message; @gro: and come so
 */
struct planes_offload {
	bool tso, uso, batches, gro;
};

/** node_init() - A plane with @workers, not yet started, one member */
void node_init(struct node *n, uint32_t workers, uint32_t frame_max);
/** node_init_offload() - The same with offloads */
void node_init_offload(struct node *n, uint32_t workers, uint32_t frame_max,
		       const struct planes_offload *offload);
/** node_init_queue() - The same with one worker on the TAP queue @fd, which stays the caller's */
void node_init_queue(struct node *n, uint32_t frame_max, int fd,
		     const struct planes_offload *offload);
/** node_start() - Publishes a snapshot and starts the threads */
void node_start(struct node *n);
/** node_publish() - Makes a snapshot of what stands in @n */
void node_publish(struct node *n);
/** node_done() - Stops; checks that every snapshot came back */
void node_done(struct node *n);

/** node_poll() - Collects events */
void node_poll(struct node *n);
/** node_wait_event() - Return: the first event of @type from number @from on; fails after 5 s */
const struct sm_plane_event *node_wait_event(struct node *n, enum sm_plane_event_type type,
					     uint32_t from);
/** node_count_events() - Return: events of @type polled so far */
uint32_t node_count_events(const struct node *n, enum sm_plane_event_type type);
/** node_wait_drop() - Waits until @why was counted @at_least times; fails after 5 s */
void node_wait_drop(const struct node *n, enum sm_drop why, uint64_t at_least);
uint64_t node_drops(const struct node *n, enum sm_drop why);

/** planes_epoch() - An epoch from the made-up secret */
struct sm_epoch *planes_epoch(bool client, uint32_t number, uint32_t lanes);

/** planes_join() - Two nodes with one worker count, on epoch 0, each other's port 1 */
void planes_join(struct node *a, struct node *b, uint32_t workers, uint32_t frame_max);
/** planes_join_offload() - The same; each takes chunks */
void planes_join_offload(struct node *a, struct node *b, uint32_t workers, uint32_t frame_max,
			 const struct planes_offload *of_a, const struct planes_offload *of_b);
void planes_part(struct node *a, struct node *b);

/** planes_socket() - A socket at a free port of 127.0.0.1, for a test that is the peer; the caller closes it */
int planes_socket(struct sm_addr *ret_addr);

/** planes_frame() - An Ethernet frame with a number in it; Return: @len */
uint32_t planes_frame(uint8_t *buf, uint64_t dst, uint64_t src, uint32_t number, uint32_t len);
/** planes_frame_number() - Return: that number, after the whole frame was checked */
uint32_t planes_frame_number(const uint8_t *buf, uint32_t len);

/** tap_put() - As the kernel would: vnet_hdr and frame; waits while the queue is full */
void tap_put(int fd, const uint8_t *frame, uint32_t len);
/** tap_get() - Return: length of the next frame written to the TAP, 0 when none came for @timeout_ms */
uint32_t tap_get(int fd, uint8_t *frame, uint32_t room, int timeout_ms);

/** tap_put_vnet(), tap_get_vnet() - The same for a frame that is not complete */
void tap_put_vnet(int fd, const struct sm_vnet *vnet, const uint8_t *frame, uint32_t len);
uint32_t tap_get_vnet(int fd, struct sm_vnet *ret_vnet, uint8_t *frame, uint32_t room,
		      int timeout_ms);

#endif

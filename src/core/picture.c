// SPDX-License-Identifier: MIT
/*
 * Building the picture (struct sm_snapshot) that the workers see, and taking it down again.
 *
 * A picture holds a reference on every epoch it names; the last reference, the session's or a picture's,
 * frees the epoch. So keys live exactly as long as a worker may use them.
 */
#include "core/peer.h"

#include <stdlib.h>

/* What a picture owns beside its arrays */
struct picture {
	struct sm_session_view *views;
	struct sm_epoch **epochs;
	uint32_t epoch_count;
};

void sm_picture_release_epoch(struct sm_node *node, struct sm_epoch *epoch)
{
	struct sm_peer *peer;

	if (!epoch || !sm_epoch_unref(epoch))
		return;
	peer = node->by_port[epoch->port];
	for (uint32_t i = 0; peer && i < epoch->rx_count; i++) {
		const struct sm_rx_lane *rx = &epoch->rx[i];

		peer->totals.lost += atomic_load_explicit(&rx->lost, memory_order_relaxed);
		peer->totals.late += atomic_load_explicit(&rx->late, memory_order_relaxed);
		peer->totals.duplicate += atomic_load_explicit(&rx->duplicate,
							       memory_order_relaxed);
		peer->totals.forged += atomic_load_explicit(&rx->forged, memory_order_relaxed);
	}
	sm_epoch_free(epoch);
}

static struct sm_epoch *hold(struct picture *picture, struct sm_epoch *epoch)
{
	if (epoch) {
		epoch->refs++;
		picture->epochs[picture->epoch_count++] = epoch;
	}
	return epoch;
}

static void view_fill(const struct sm_node *node, const struct sm_session *s,
		      struct picture *picture, struct sm_session_view *view)
{
	const struct sm_peer *peer = node->by_port[s->config.port];
	const bool sends = s->ready && !s->draining && peer->active == s;

	*view = (struct sm_session_view){
		.index = s->config.index,
		.port = s->config.port,
		.takes_parts = s->config.takes_parts,
		.takes_chunks = s->config.takes_chunks,
		.batches = sm_batch_is_on(&s->batch),
		.remote = s->path.remote,
		.local = s->path.local,
		.path_mtu = s->mtu.size,
	};
	for (int i = 0; i < SM_EPOCH_SLOT_COUNT; i++)
		view->rx[i] = hold(picture, s->epoch[i]);
	view->tx = sends ? s->epoch[SM_EPOCH_CURRENT] : NULL;
}

/* An address has one owner, the first that claims it; @claimed only holds for the building's time. */
static void add_host_route(struct sm_snapshot *s, struct sm_map64 *claimed,
			   const struct sm_prefix *address, sm_port_t port)
{
	struct sm_route *r = &s->routes[s->route_count];
	uint64_t half[2];

	memcpy(half, address->ip, sizeof(half));
	if (sm_map64_insert(claimed,
			    half[0] * UINT64_C(0x9e3779b97f4a7c15) + half[1] + address->family,
			    port))
		return;
	s->route_count++;

	*r = (struct sm_route){.prefix = *address, .port = port};
	r->prefix.len = address->family == 4 ? 32 : 128;
}

static void add_routes(const struct sm_node *node, struct sm_snapshot *s, struct sm_map64 *claimed,
		       const struct sm_identity *id, sm_port_t port)
{
	struct sm_prefix ula;

	if (sm_ident_ula(id->network_id, id->node_id, &ula))
		return;
	add_host_route(s, claimed, &ula, port);
	/* derived addresses belong to their nodes, whatever a certificate says */
	for (uint32_t i = 0; i < id->address_count; i++)
		if (!sm_prefix_contains(&ula, id->addresses[i].family, id->addresses[i].ip))
			add_host_route(s, claimed, &id->addresses[i], port);
	for (uint32_t i = 0; node->config.mode == SM_MODE_TUN && i < id->prefix_count; i++)
		s->routes[s->route_count++] = (struct sm_route){.prefix = id->prefixes[i],
								.port = port};
}

#define ROUTES_EACH (SM_IDENT_ADDRESS_MAX + SM_IDENT_PREFIX_MAX + 1)

static int add_peers(struct sm_node *node, struct sm_snapshot *s, struct sm_map64 *claimed,
		     bool connected)
{
	struct sm_list *pos, *after;
	int err = 0;

	sm_list_for_each_safe(pos, after, &node->peers)
	{
		const struct sm_peer *peer = SM_LIST_ENTRY(pos, struct sm_peer, entry);

		if (!peer->has_identity || (peer->active != NULL) != connected || err)
			continue;
		err = sm_map64_insert(&s->owned_macs, sm_mac_to_u64(peer->mac.b), peer->port);
		if (err == -EEXIST) /* derived MACs that clash: the one known first keeps it */
			err = 0;
		add_routes(node, s, claimed, &peer->identity, peer->port);
	}
	return err;
}

/* Who is connected comes before who has left: its address may have been issued to another one since. */
static int fill_ownership(struct sm_node *node, struct sm_snapshot *s, uint32_t known)
{
	struct sm_map64 claimed;
	int err;

	s->routes = calloc((size_t)(known + 1) * ROUTES_EACH, sizeof(*s->routes));
	if (!s->routes)
		return -ENOMEM;
	sm_map64_init(&s->owned_macs, node->map_seed);
	err = sm_map64_reserve(&s->owned_macs, known + 1);
	if (err)
		return err;
	err = sm_map64_insert(&s->owned_macs, sm_mac_to_u64(node->config.mac.b), SM_PORT_LOCAL);
	sm_map64_init(&claimed, node->map_seed);
	add_routes(node, s, &claimed, &node->config.self, SM_PORT_LOCAL);
	if (!err)
		err = add_peers(node, s, &claimed, true);
	if (!err)
		err = add_peers(node, s, &claimed, false);
	sm_map64_done(&claimed);
	sm_snapshot_sort_routes(s);
	return err;
}

static uint32_t highest_port(const struct sm_node *node)
{
	uint32_t n = SM_PORT_MAX;

	while (n > 1 && !node->by_port[n - 1])
		n--;
	return n;
}

static int fill_sessions(struct sm_node *node, struct sm_snapshot *s, struct picture *picture)
{
	uint32_t used = 0;

	s->session_count = node->session_slots;
	s->port_count = highest_port(node);
	s->sessions = calloc(SM_MAX(s->session_count, 1u), sizeof(const struct sm_session_view *));
	s->send = calloc(s->port_count, sizeof(const struct sm_session_view *));
	s->members = calloc(s->port_count, sizeof(*s->members));
	picture->views = calloc(SM_MAX(s->session_count, 1u), sizeof(*picture->views));
	picture->epochs = calloc((size_t)SM_MAX(s->session_count, 1u) * SM_EPOCH_SLOT_COUNT,
				 sizeof(struct sm_epoch *));
	if (!s->sessions || !s->send || !s->members || !picture->views || !picture->epochs)
		return -ENOMEM;
	for (uint32_t slot = 0; slot < s->session_count; slot++) {
		const struct sm_session *session = node->sessions[slot];
		struct sm_session_view *view = &picture->views[used];

		if (!session || !session->started)
			continue;
		used++;
		view_fill(node, session, picture, view);
		s->sessions[slot] = view;
		if (view->tx) {
			s->send[view->port] = view;
			s->members[s->member_count++] = view->port;
		}
	}
	return 0;
}

int sm_picture_build(struct sm_node *node, struct sm_snapshot **ret_snapshot)
{
	struct sm_snapshot *s = calloc(1, sizeof(*s));
	struct picture *picture = calloc(1, sizeof(*picture));
	struct sm_list *pos, *after;
	uint32_t known = 0;
	int err = -ENOMEM;

	if (!s || !picture) {
		free(s);
		free(picture);
		return err;
	}
	s->owner = picture;
	s->generation = ++node->generation;
	s->mode = node->config.mode;
	s->learned = node->learned;
	sm_list_for_each_safe(pos, after, &node->peers) known++;
	err = fill_sessions(node, s, picture);
	/* anybody may dial us, too */
	s->awaited = known - s->member_count + (node->config.control_port != 0);
	if (!err)
		err = fill_ownership(node, s, known);
	if (err) {
		sm_picture_free(node, s);
		return err;
	}
	*ret_snapshot = s;
	return 0;
}

void sm_picture_free(struct sm_node *node, struct sm_snapshot *s)
{
	struct picture *picture;

	if (!s)
		return;
	picture = s->owner;
	for (uint32_t i = 0; i < picture->epoch_count; i++)
		sm_picture_release_epoch(node, picture->epochs[i]);
	free(picture->epochs);
	free(picture->views);
	free(picture);
	free(s->sessions);
	free(s->send);
	free(s->members);
	free(s->routes);
	sm_map64_done(&s->owned_macs);
	free(s);
}

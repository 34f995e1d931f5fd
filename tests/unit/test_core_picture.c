// SPDX-License-Identifier: MIT
/*
 * The picture of a node whose peers and sessions the test puts into each state: who is seen, who is sent
 * to, who owns what, and when the keys in it go.
 */
#include "core/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define NOW_US (1000 * SM_SEC_US)

static void op_random(void *host, void *buf, size_t len)
{
	static uint8_t next;

	(void)host;
	memset(buf, ++next, len);
}

static void op_event(void *host, const struct sm_node_event *event)
{
	(void)host;
	(void)event;
}

static struct sm_prefix prefix(const char *text)
{
	struct sm_prefix p;

	assert_int_equal(sm_prefix_parse(text, &p), 0);
	return p;
}

static void identify(struct sm_identity *id, const char *name, const char *address)
{
	memset(id, 0, sizeof(*id));
	snprintf(id->name, sizeof(id->name), "%s", name);
	assert_int_equal(sm_ident_node_id(id->network_id, name, NULL, id->node_id), 0);
	if (address)
		id->addresses[id->address_count++] = prefix(address);
}

static struct sm_node *node_new(enum sm_mode mode, uint16_t control_port)
{
	static const struct sm_node_ops ops = {.random = op_random, .event = op_event};
	struct sm_node_config config = {.mode = mode,
					.workers = 1,
					.mtu = 1500,
					.control_port = control_port,
					.ciphers = 1u << SM_CIPHER_AES256GCM,
					.rekey_after_us = SM_REKEY_AFTER_US,
					.max_peers = SM_PORT_MAX - 1};
	struct sm_node *node;

	identify(&config.self, "self", "10.7.0.1/24");
	assert_int_equal(sm_ident_mac(config.self.node_id, &config.mac), 0);
	assert_int_equal(sm_node_new(&config, &ops, NULL, NOW_US, &node), 0);
	return node;
}

static struct sm_peer *peer_new(struct sm_node *node, const char *name, const char *address)
{
	struct sm_peer *peer;

	assert_int_equal(sm_peer_new(node, name, NOW_US, &peer), 0);
	if (address) {
		identify(&peer->identity, name, address);
		assert_int_equal(sm_ident_mac(peer->identity.node_id, &peer->mac), 0);
		peer->has_identity = true;
	}
	return peer;
}

static struct sm_session *session_new(struct sm_peer *peer, bool start)
{
	static const uint8_t root[SM_ROOT_SECRET_LEN] = {1, 2, 3};
	struct sm_session_config config = {.port = peer->port,
					   .remote_index = 99,
					   .takes_parts = true,
					   .takes_chunks = true,
					   .cipher = SM_CIPHER_AES256GCM,
					   .tx_lanes = 2,
					   .rx_lanes = 2,
					   .rekey_after_us = SM_REKEY_AFTER_US};
	struct sm_session *s;
	struct sm_addr at;

	assert_int_equal(sm_node_new_session(peer->node, peer, NOW_US, &s), 0);
	s->mtu.size = 1400u + peer->port;
	config.index = s->config.index;
	if (start)
		assert_int_equal(sm_session_start(s, &config, root), 0);
	assert_int_equal(sm_addr_parse("192.0.2.7:9443", 0, &at), 0);
	sm_path_init(&s->path, &at, NOW_US);
	return s;
}

static struct sm_session *connect_peer(struct sm_peer *peer)
{
	struct sm_session *s = session_new(peer, true);

	s->ready = true;
	peer->active = s;
	return s;
}

static struct sm_snapshot *build(struct sm_node *node)
{
	struct sm_snapshot *picture = NULL;

	assert_int_equal(sm_picture_build(node, &picture), 0);
	assert_non_null(picture);
	return picture;
}

static uint32_t mac_owner(const struct sm_snapshot *s, const struct sm_mac *mac)
{
	uint32_t port = SM_PORT_NONE;

	return sm_map64_lookup(&s->owned_macs, sm_mac_to_u64(mac->b), &port) ? port : SM_PORT_NONE;
}

static sm_port_t owner(const struct sm_snapshot *s, const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return sm_snapshot_owner(s, &a);
}

static sm_port_t route(const struct sm_snapshot *s, const char *text)
{
	struct sm_addr a;

	assert_int_equal(sm_addr_parse(text, 0, &a), 0);
	return sm_snapshot_route(s, &a);
}

static sm_port_t ula_owner(const struct sm_snapshot *s, const struct sm_identity *id)
{
	struct sm_prefix ula;
	struct sm_addr a = {.family = 6};

	assert_int_equal(sm_ident_ula(id->network_id, id->node_id, &ula), 0);
	memcpy(a.ip, ula.ip, sizeof(a.ip));
	return sm_snapshot_owner(s, &a);
}

static void test_alone(void **state)
{
	(void)state;
	for (uint16_t listens = 0; listens < 2; listens++) {
		struct sm_node *node = node_new(SM_MODE_TAP, listens);
		struct sm_snapshot *a = build(node), *b = build(node);

		assert_int_equal(b->generation, a->generation + 1);
		assert_int_equal(a->mode, SM_MODE_TAP);
		assert_int_equal(a->member_count, 0);
		assert_int_equal(a->awaited, listens); /* a stranger may dial who listens */
		assert_ptr_equal(a->learned, node->learned);
		assert_int_equal(mac_owner(a, &node->config.mac), SM_PORT_LOCAL);
		assert_int_equal(owner(a, "10.7.0.1"), SM_PORT_LOCAL);
		assert_int_equal(owner(a, "10.7.0.2"), SM_PORT_NONE);
		assert_int_equal(ula_owner(a, &node->config.self), SM_PORT_LOCAL);
		assert_null(sm_snapshot_session(a, 0));
		sm_picture_free(node, b);
		sm_picture_free(node, a);
		sm_picture_free(node, NULL);
		sm_node_free(node);
	}
}

/* In which states a session is received on, and in which it is sent on */
static void test_states(void **state)
{
	static const struct {
		bool started, ready, draining, active, seen, sends;
	} rows[] = {
		{false, false, false, false, false, false},
		{false, false, false, true, false, false},
		{true, false, false, false, true, false}, /* packets may come before READY */
		{true, false, false, true, true, false},
		{true, true, false, false, true, false}, /* another one is sent on */
		{true, true, false, true, true, true},
		{true, true, true, true, true, false},
		{true, false, true, false, true, false},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		struct sm_node *node = node_new(SM_MODE_TAP, 0);
		struct sm_peer *peer = peer_new(node, "peer", "10.7.0.2/24");
		struct sm_session *s = session_new(peer, rows[i].started);
		const struct sm_session_view *view;
		struct sm_snapshot *picture;

		s->ready = rows[i].ready;
		s->draining = rows[i].draining;
		peer->active = rows[i].active ? s : NULL;
		picture = build(node);
		view = sm_snapshot_session(picture, s->config.index);
		print_message("row %zu\n", i);
		assert_int_equal(view != NULL, rows[i].seen);
		if (view) {
			assert_int_equal(view->port, peer->port);
			assert_true(view->takes_parts);
			assert_true(view->takes_chunks);
			assert_int_equal(view->path_mtu, s->mtu.size);
			assert_true(sm_addr_equal(&view->remote, &s->path.remote));
			assert_ptr_equal(view->rx[SM_EPOCH_CURRENT], s->epoch[SM_EPOCH_CURRENT]);
			assert_null(view->rx[SM_EPOCH_PREVIOUS]);
			assert_null(view->rx[SM_EPOCH_NEXT]);
			assert_ptr_equal(view->tx,
					 rows[i].sends ? s->epoch[SM_EPOCH_CURRENT] : NULL);
		}
		/* the same slot with another generation is somebody else's */
		assert_null(sm_snapshot_session(picture, s->config.index + 0x10000));
		assert_int_equal(picture->port_count, 2);
		assert_ptr_equal(picture->send[peer->port], rows[i].sends ? view : NULL);
		assert_int_equal(picture->member_count, rows[i].sends);
		assert_int_equal(picture->awaited, !rows[i].sends);
		if (rows[i].sends)
			assert_int_equal(picture->members[0], peer->port);
		sm_picture_free(node, picture);
		sm_node_free(node);
	}
}

static struct sm_epoch *epoch_new(const struct sm_peer *peer, uint32_t number)
{
	static const struct sm_epoch_secret secret = {.b = {5}};
	struct sm_epoch *epoch;

	assert_int_equal(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, true, number, 1,
				      &(struct sm_lane_plan){2, 2, false}, &epoch),
			 0);
	epoch->refs = 1;
	epoch->port = peer->port;
	return epoch;
}

static void test_epochs_are_held(void **state)
{
	struct sm_node *node = node_new(SM_MODE_TAP, 0);
	struct sm_peer *peer = peer_new(node, "peer", "10.7.0.2/24");
	struct sm_session *s = connect_peer(peer);
	struct sm_epoch *epoch[SM_EPOCH_SLOT_COUNT];
	struct sm_snapshot *a, *b;
	const struct sm_session_view *view;

	(void)state;
	s->epoch[SM_EPOCH_PREVIOUS] = epoch_new(peer, 7);
	s->epoch[SM_EPOCH_NEXT] = epoch_new(peer, 9);
	memcpy(epoch, s->epoch, sizeof(epoch));
	a = build(node);
	b = build(node);
	view = sm_snapshot_session(a, s->config.index);
	for (uint32_t i = 0; i < SM_EPOCH_SLOT_COUNT; i++) {
		assert_ptr_equal(view->rx[i], epoch[i]);
		assert_int_equal(epoch[i]->refs, 3);
	}
	assert_ptr_equal(view->tx, epoch[SM_EPOCH_CURRENT]);
	/* the session ends; who still has a picture may use its keys */
	epoch[SM_EPOCH_CURRENT]->rx[1].lost = 3;
	epoch[SM_EPOCH_CURRENT]->rx[0].late = 1;
	epoch[SM_EPOCH_NEXT]->rx[1].duplicate = 4;
	epoch[SM_EPOCH_NEXT]->rx[0].forged = 5;
	epoch[SM_EPOCH_PREVIOUS]->rx[1].lost = 10;
	sm_peer_end_session(peer, s, NOW_US);
	assert_int_equal(epoch[SM_EPOCH_CURRENT]->refs, 2);
	sm_picture_free(node, b);
	for (uint32_t i = 0; i < SM_EPOCH_SLOT_COUNT; i++)
		assert_int_equal(epoch[i]->refs, 1);
	assert_int_equal(peer->totals.lost, 0); /* counted when nobody counts any more */
	sm_picture_free(node, a);
	assert_int_equal(peer->totals.lost, 13);
	assert_int_equal(peer->totals.late, 1);
	assert_int_equal(peer->totals.duplicate, 4);
	assert_int_equal(peer->totals.forged, 5);
	sm_node_free(node);
}

/* The last reference may outlive the peer. */
static void test_epoch_of_nobody(void **state)
{
	struct sm_node *node = node_new(SM_MODE_TAP, 0);
	struct sm_peer *peer = peer_new(node, "peer", "10.7.0.2/24"), *other;
	struct sm_snapshot *picture;

	(void)state;
	connect_peer(peer)->epoch[SM_EPOCH_CURRENT]->rx[0].lost = 2;
	picture = build(node);
	sm_peer_free(peer);
	assert_null(node->by_port[1]);
	sm_picture_free(node, picture);
	other = peer_new(node, "other", "10.7.0.3/24");
	assert_int_equal(other->port, 1);
	assert_int_equal(other->totals.lost, 0);
	sm_picture_release_epoch(node, NULL);
	sm_node_free(node);
}

static void test_ports_with_gaps(void **state)
{
	struct sm_node *node = node_new(SM_MODE_TAP, 1);
	struct sm_peer *peer[40];
	struct sm_snapshot *picture;
	uint32_t seen = 0;

	(void)state;
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(peer); i++) {
		char name[8], address[24];

		snprintf(name, sizeof(name), "p%u", i);
		snprintf(address, sizeof(address), "10.7.1.%u/16", i);
		peer[i] = peer_new(node, name, address);
		connect_peer(peer[i]);
	}
	for (uint32_t i = 0; i < SM_ARRAY_SIZE(peer); i++) /* each third stays, the last one goes */
		if (i % 3 || i == 39)
			sm_peer_free(peer[i]);
	picture = build(node);
	assert_int_equal(picture->port_count, 38); /* p36 has port 37 */
	assert_int_equal(picture->member_count, 13);
	assert_int_equal(picture->awaited, 1);
	for (uint32_t port = 0; port < picture->port_count; port++) {
		const bool there = port > 0 && (port - 1) % 3 == 0;

		assert_int_equal(picture->send[port] != NULL, there);
		if (!there)
			continue;
		assert_int_equal(picture->send[port]->port, port);
		assert_ptr_equal(sm_snapshot_session(picture, picture->send[port]->index),
				 picture->send[port]);
		for (uint32_t m = 0; m < picture->member_count; m++)
			seen += picture->members[m] == port;
	}
	assert_int_equal(seen, 13);
	assert_int_equal(owner(picture, "10.7.1.36"), 37);
	assert_int_equal(owner(picture, "10.7.1.37"), SM_PORT_NONE);
	sm_picture_free(node, picture);
	sm_node_free(node);
}

static void test_one_owner(void **state)
{
	struct sm_node *node = node_new(SM_MODE_TAP, 0);
	struct sm_peer *gone = peer_new(node, "gone", "10.7.0.9/24"),
		       *first = peer_new(node, "first", "10.7.0.9/16"),
		       *second = peer_new(node, "second", "10.7.0.9/24"),
		       *thief = peer_new(node, "thief", "10.7.0.1/24"),
		       *stranger = peer_new(node, "stranger", NULL);
	struct sm_snapshot *picture;
	struct sm_prefix ula;

	(void)state;
	connect_peer(first);
	connect_peer(second);
	connect_peer(thief);
	/* a derived MAC that clashes, and a claim to what is derived from another's name */
	second->mac = first->mac;
	thief->mac = node->config.mac;
	assert_int_equal(sm_ident_ula(first->identity.network_id, first->identity.node_id, &ula),
			 0);
	thief->identity.addresses[thief->identity.address_count++] = ula;
	thief->identity.addresses[thief->identity.address_count++] = prefix("10.7.0.66/24");
	picture = build(node);
	assert_int_equal(owner(picture, "10.7.0.9"), first->port);
	assert_int_equal(owner(picture, "10.7.0.1"), SM_PORT_LOCAL);
	assert_int_equal(owner(picture, "10.7.0.66"), thief->port);
	assert_int_equal(ula_owner(picture, &first->identity), first->port);
	assert_int_equal(ula_owner(picture, &gone->identity), gone->port);
	assert_int_equal(mac_owner(picture, &first->mac), first->port);
	assert_int_equal(mac_owner(picture, &node->config.mac), SM_PORT_LOCAL);
	assert_int_equal(mac_owner(picture, &gone->mac), gone->port);
	assert_int_equal(mac_owner(picture, &stranger->mac), SM_PORT_NONE); /* says nothing yet */
	assert_int_equal(picture->awaited, 2);
	sm_picture_free(node, picture);
	/* the others leave: it falls to the one that was known first */
	first->active = second->active = NULL;
	picture = build(node);
	assert_int_equal(owner(picture, "10.7.0.9"), gone->port);
	assert_int_equal(picture->member_count, 1);
	sm_picture_free(node, picture);
	sm_node_free(node);
}

static void test_prefixes(void **state)
{
	static const enum sm_mode modes[] = {SM_MODE_TAP, SM_MODE_TUN};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(modes); i++) {
		const bool tun = modes[i] == SM_MODE_TUN;
		struct sm_node *node = node_new(modes[i], 0);
		struct sm_peer *near = peer_new(node, "near", "10.7.0.2/24"),
			       *far = peer_new(node, "far", "10.7.0.3/24");
		struct sm_snapshot *picture;

		near->identity.prefixes[near->identity.prefix_count++] = prefix("10.9.0.0/16");
		far->identity.prefixes[far->identity.prefix_count++] = prefix("10.9.3.77/24");
		far->identity.prefixes[far->identity.prefix_count++] = prefix("fd77::/48");
		connect_peer(near);
		picture = build(node);
		assert_true(picture->routes_sorted);
		assert_int_equal(picture->mode, modes[i]);
		assert_int_equal(route(picture, "10.9.1.1"), tun ? near->port : SM_PORT_NONE);
		assert_int_equal(route(picture, "10.9.3.1"), tun ? far->port : SM_PORT_NONE);
		assert_int_equal(route(picture, "fd77::1"), tun ? far->port : SM_PORT_NONE);
		assert_int_equal(route(picture, "10.7.0.3"), far->port);
		assert_int_equal(owner(picture, "10.9.3.77"),
				 SM_PORT_NONE); /* no address of its own */
		sm_picture_free(node, picture);
		sm_node_free(node);
	}
}

/* Every field of a certificate full, by as many peers as are asked for: there is room for all. */
static void test_full_certificates(void **state)
{
	struct sm_node *node = node_new(SM_MODE_TUN, 0);
	struct sm_snapshot *picture;
	char text[32];

	(void)state;
	for (uint32_t n = 0; n < 8; n++) {
		struct sm_peer *peer;

		snprintf(text, sizeof(text), "p%u", n);
		peer = peer_new(node, text, "10.7.200.1/32"); /* all claim one */
		while (peer->identity.address_count < SM_IDENT_ADDRESS_MAX) {
			snprintf(text, sizeof(text), "10.8.%u.%u/24", n,
				 peer->identity.address_count);
			peer->identity.addresses[peer->identity.address_count++] = prefix(text);
		}
		while (peer->identity.prefix_count < SM_IDENT_PREFIX_MAX) {
			snprintf(text, sizeof(text), "10.%u.%u.0/24", 100 + n,
				 peer->identity.prefix_count);
			peer->identity.prefixes[peer->identity.prefix_count++] = prefix(text);
		}
	}
	picture = build(node);
	assert_int_equal(picture->route_count,
			 2 + 1 + 8 * (1 + SM_IDENT_ADDRESS_MAX - 1 + SM_IDENT_PREFIX_MAX));
	assert_int_equal(route(picture, "10.107.31.5"), 8);
	assert_int_equal(owner(picture, "10.8.7.15"), 8);
	assert_int_equal(owner(picture, "10.7.200.1"), 1);
	sm_picture_free(node, picture);
	sm_node_free(node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),           cmocka_unit_test(test_states),
		cmocka_unit_test(test_epochs_are_held), cmocka_unit_test(test_epoch_of_nobody),
		cmocka_unit_test(test_ports_with_gaps), cmocka_unit_test(test_one_owner),
		cmocka_unit_test(test_prefixes),        cmocka_unit_test(test_full_certificates),
	};

	return cmocka_run_group_tests_name("picture", tests, NULL, NULL);
}

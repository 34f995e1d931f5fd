// SPDX-License-Identifier: MIT
/*
 * The switch's rules. Ownership first, then learning, then the destination.
 */
#include "core/switch.h"

#define MAC_GROUP_BIT (UINT64_C(1) << 40)

static const char *const drop_names[] = {
	[SM_DROP_NONE] = "none",
	[SM_DROP_RUNT] = "runt",
	[SM_DROP_SOURCE_GROUP] = "source_group",
	[SM_DROP_SOURCE_OWNED] = "source_owned",
	[SM_DROP_CLAIM] = "claim",
	[SM_DROP_FRAGMENTED_ND] = "fragmented_nd",
	[SM_DROP_FILTERED] = "filtered",
	[SM_DROP_SOURCE_IP] = "source_ip",
	[SM_DROP_NO_ROUTE] = "no_route",
	[SM_DROP_NO_SESSION] = "no_session",
	[SM_DROP_NO_BUFFER] = "no_buffer",
	[SM_DROP_TOO_BIG] = "too_big",
	[SM_DROP_LIMIT] = "limit",
	[SM_DROP_SEND] = "send",
	[SM_DROP_TAP_WRITE] = "tap_write",
	[SM_DROP_MALFORMED] = "malformed",
	[SM_DROP_UNKNOWN_SESSION] = "unknown_session",
	[SM_DROP_EPOCH_OVER] = "epoch_over",
	[SM_DROP_FORGED] = "forged",
	[SM_DROP_REPLAYED] = "replayed",
	[SM_DROP_HANDOVER] = "handover",
	[SM_DROP_STANDING] = "standing_queue",
};
static_assert(SM_ARRAY_SIZE(drop_names) == SM_DROP_COUNT, "a name for each reason");

const char *sm_drop_name(enum sm_drop drop)
{
	return (unsigned)drop < SM_DROP_COUNT ? drop_names[drop] : "unknown";
}

/* Return: the port that owns @mac, SM_PORT_NONE if nobody does */
static sm_port_t owner_of(const struct sm_snapshot *s, uint64_t mac)
{
	uint32_t port;

	return sm_map64_lookup(&s->owned_macs, mac, &port) ? (sm_port_t)port : SM_PORT_NONE;
}

static bool has_session(const struct sm_snapshot *s, sm_port_t port)
{
	return port < s->port_count && s->send[port];
}

/* May this frame have come from port @from? Learns its source where nobody owns it. */
static enum sm_drop check_source(const struct sm_snapshot *s, sm_port_t from, const uint8_t *frame,
				 size_t len, const struct sm_ether *ether, uint64_t now_us)
{
	struct sm_addr claimed;
	sm_port_t owner;

	if (ether->src & MAC_GROUP_BIT)
		return SM_DROP_SOURCE_GROUP;
	owner = owner_of(s, ether->src);
	if (owner != SM_PORT_NONE && owner != from)
		return SM_DROP_SOURCE_OWNED;
	if (sm_ether_nd_fragmented(frame, len, ether))
		return SM_DROP_FRAGMENTED_ND;
	if (sm_ether_claimed_ip(frame, len, ether, &claimed)) {
		sm_port_t holder = sm_snapshot_owner(s, &claimed);

		if (holder != SM_PORT_NONE && holder != from)
			return SM_DROP_CLAIM;
	}
	/* A full table or a damped move does not stop the frame: its answers are flooded. */
	if (owner == SM_PORT_NONE && s->learned)
		(void)sm_mactable_learn(s->learned, ether->src, from, now_us);
	return SM_DROP_NONE;
}

static enum sm_verdict drop(enum sm_drop why, enum sm_drop *ret_drop)
{
	*ret_drop = why;
	return SM_VERDICT_DROP;
}

static enum sm_verdict to_port(const struct sm_snapshot *s, sm_port_t port, sm_port_t *ret_port,
			       enum sm_drop *ret_drop)
{
	if (port == SM_PORT_LOCAL)
		return drop(SM_DROP_FILTERED, ret_drop);
	*ret_port = port;
	return has_session(s, port) ? SM_VERDICT_PORT : drop(SM_DROP_NO_SESSION, ret_drop);
}

static enum sm_verdict egress_tap(const struct sm_snapshot *s, const uint8_t *frame, size_t len,
				  uint64_t now_us, sm_port_t *ret_port, enum sm_drop *ret_drop)
{
	struct sm_ether ether;
	enum sm_drop why;
	sm_port_t owner;
	int learned;

	if (sm_ether_parse(frame, len, &ether) < 0)
		return drop(SM_DROP_RUNT, ret_drop);
	why = check_source(s, SM_PORT_LOCAL, frame, len, &ether, now_us);
	if (why != SM_DROP_NONE)
		return drop(why, ret_drop);
	if (ether.multicast)
		return SM_VERDICT_FLOOD;
	owner = owner_of(s, ether.dst);
	if (owner != SM_PORT_NONE)
		return to_port(s, owner, ret_port, ret_drop);
	learned = s->learned ? sm_mactable_lookup(s->learned, ether.dst, now_us) : -ENOENT;
	if (learned == SM_PORT_LOCAL)
		return drop(SM_DROP_FILTERED, ret_drop);
	if (learned < 0 || !has_session(s, (sm_port_t)learned))
		return SM_VERDICT_FLOOD;
	*ret_port = (sm_port_t)learned;
	return SM_VERDICT_PORT;
}

static bool is_multicast_ip(const struct sm_addr *ip)
{
	static const uint8_t broadcast[4] = {255, 255, 255, 255};

	if (ip->family == 6)
		return ip->ip[0] == 0xff;
	return (ip->ip[0] & 0xf0) == 0xe0 || memcmp(ip->ip, broadcast, sizeof(broadcast)) == 0;
}

static enum sm_verdict egress_tun(const struct sm_snapshot *s, const uint8_t *packet, size_t len,
				  sm_port_t *ret_port, enum sm_drop *ret_drop)
{
	struct sm_addr src, dst;
	sm_port_t port;

	if (sm_ip_parse(packet, len, &src, &dst) < 0)
		return drop(SM_DROP_RUNT, ret_drop);
	if (is_multicast_ip(&dst))
		return drop(SM_DROP_NO_ROUTE, ret_drop);
	/* What the receiver would refuse need not travel. */
	if (sm_snapshot_route(s, &src) != SM_PORT_LOCAL)
		return drop(SM_DROP_SOURCE_IP, ret_drop);
	port = sm_snapshot_route(s, &dst);
	if (port == SM_PORT_NONE)
		return drop(SM_DROP_NO_ROUTE, ret_drop);
	return to_port(s, port, ret_port, ret_drop);
}

enum sm_verdict sm_switch_egress(const struct sm_snapshot *s, const uint8_t *frame, size_t len,
				 uint64_t now_us, sm_port_t *ret_port, enum sm_drop *ret_drop)
{
	if (s->mode == SM_MODE_TUN)
		return egress_tun(s, frame, len, ret_port, ret_drop);
	return egress_tap(s, frame, len, now_us, ret_port, ret_drop);
}

static enum sm_drop ingress_tap(const struct sm_snapshot *s, sm_port_t from, const uint8_t *frame,
				size_t len, uint64_t now_us)
{
	struct sm_ether ether;
	enum sm_drop why;
	sm_port_t owner;

	if (sm_ether_parse(frame, len, &ether) < 0)
		return SM_DROP_RUNT;
	why = check_source(s, from, frame, len, &ether, now_us);
	if (why != SM_DROP_NONE || ether.multicast)
		return why;
	owner = owner_of(s, ether.dst);
	return owner == SM_PORT_NONE || owner == SM_PORT_LOCAL ? SM_DROP_NONE : SM_DROP_FILTERED;
}

static enum sm_drop ingress_tun(const struct sm_snapshot *s, sm_port_t from, const uint8_t *packet,
				size_t len)
{
	struct sm_addr src, dst;
	sm_port_t port;

	if (sm_ip_parse(packet, len, &src, &dst) < 0)
		return SM_DROP_RUNT;
	if (sm_snapshot_route(s, &src) != from)
		return SM_DROP_SOURCE_IP;
	port = is_multicast_ip(&dst) ? SM_PORT_NONE : sm_snapshot_route(s, &dst);
	if (port == SM_PORT_NONE)
		return SM_DROP_NO_ROUTE;
	return port == SM_PORT_LOCAL ? SM_DROP_NONE : SM_DROP_FILTERED;
}

enum sm_drop sm_switch_ingress(const struct sm_snapshot *s, sm_port_t from, const uint8_t *frame,
			       size_t len, uint64_t now_us)
{
	if (s->mode == SM_MODE_TUN)
		return ingress_tun(s, from, frame, len);
	return ingress_tap(s, from, frame, len, now_us);
}

// SPDX-License-Identifier: MIT
/*
 * Links, addresses and routes through rtnetlink. Every failure is an error of the caller's.
 */
#ifndef SM_IO_NETLINK_H
#define SM_IO_NETLINK_H

#include "base/addr.h"
#include "wire/ether.h"

struct sm_netlink;

SM_MUST_CHECK int sm_netlink_open(struct sm_netlink **ret_nl);
void sm_netlink_close(struct sm_netlink *nl);

/**
 * sm_netlink_error() - What the kernel said about the last call on @nl that failed
 * Return: its own words ("IPv6 is disabled on this device"), or those for the errno; valid until the next call
 */
const char *sm_netlink_error(const struct sm_netlink *nl);

SM_MUST_CHECK int sm_netlink_set_mac(struct sm_netlink *nl, int ifindex, const struct sm_mac *mac);
SM_MUST_CHECK int sm_netlink_set_mtu(struct sm_netlink *nl, int ifindex, uint32_t mtu);
SM_MUST_CHECK int sm_netlink_set_up(struct sm_netlink *nl, int ifindex, bool up);
SM_MUST_CHECK int sm_netlink_set_txqueuelen(struct sm_netlink *nl, int ifindex, uint32_t len);
/** sm_netlink_add_address() - IPv6 without DAD (addresses are certified); an address that is there already is fine */
SM_MUST_CHECK int sm_netlink_add_address(struct sm_netlink *nl, int ifindex,
					 const struct sm_prefix *address);
SM_MUST_CHECK int sm_netlink_del_address(struct sm_netlink *nl, int ifindex,
					 const struct sm_prefix *address);
/** sm_netlink_add_route() - Return: 0, also if @ifindex has it; -EEXIST if another device has it; -errno */
SM_MUST_CHECK int sm_netlink_add_route(struct sm_netlink *nl, int ifindex,
				       const struct sm_prefix *prefix);
/** sm_netlink_del_route() - Takes away what sm_netlink_add_route() made, never a connected route */
SM_MUST_CHECK int sm_netlink_del_route(struct sm_netlink *nl, int ifindex,
				       const struct sm_prefix *prefix);

struct sm_link_address {
	int ifindex;
	char ifname[16];
	bool up;
	struct sm_prefix prefix;
};

/** sm_netlink_addresses() - All addresses of the machine; Return: count, or -errno; *@ret_list is to be freed */
SM_MUST_CHECK int sm_netlink_addresses(struct sm_netlink *nl, struct sm_link_address **ret_list);

/** struct sm_link_tun - What the kernel tells about a TAP or TUN device */
struct sm_link_tun {
	bool is_tun; /* false: a device of another kind; the rest is zero then */
	bool is_tap; /* else layer 3 */
	bool multi_queue, persistent;
	uint32_t queues; /* open descriptors; the kernel counts them with multi_queue only */
};

SM_MUST_CHECK int sm_netlink_tun(struct sm_netlink *nl, int ifindex, struct sm_link_tun *ret_info);

/** sm_netlink_link_mtu() - Return: MTU of the interface, or -errno */
SM_MUST_CHECK int sm_netlink_link_mtu(struct sm_netlink *nl, int ifindex);

/**
 * sm_netlink_route_mtu() - MTU of the route to an address: the route's own metric, or its device's
 * @ret_source: the source address the kernel would use; may be NULL
 * Return: bytes, or -ENETUNREACH, -errno
 */
SM_MUST_CHECK int sm_netlink_route_mtu(struct sm_netlink *nl, const struct sm_addr *to,
				       struct sm_addr *ret_source);

/**
 * sm_netlink_monitor() - A second socket that becomes readable when links, addresses or routes change
 * Return: descriptor (non-blocking, to be closed by the caller), or -errno
 */
SM_MUST_CHECK int sm_netlink_monitor(void);
/**
 * sm_netlink_monitor_drain() - Read all that waits
 * @own: index of our own card, 0: none: that it changed (its offloads, its state) is no news
 * Return: 1 if something relevant changed, 0, -errno
 */
SM_MUST_CHECK int sm_netlink_monitor_drain(int fd, int own);

#endif

// SPDX-License-Identifier: MIT
/*
 * What the daemon takes of the machine: locks, ports, the TAP or TUN with its addresses, the sockets.
 *
 * Whatever cannot be set is an error: a tunnel whose address is missing looks up and carries nothing.
 */
#include "daemon/state.h"

#include "base/clock.h"
#include "io/lock.h"
#include "io/udp.h"

#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO_WORKERS_MAX 4u

static int fail(char *error, int err, const char *what, const char *why)
{
	snprintf(error, SM_DAEMON_ERROR_MAX, "%s: %s", what, why);
	return err;
}

/* -- locks -- */

static int lock_failed(char *error, int err)
{
	snprintf(error, SM_DAEMON_ERROR_MAX, "cannot make a lock in %s: %s%s",
		 sm_lock_runtime_dir(), strerror(-err),
		 err == -EACCES || err == -EPERM
			 ? ": run as root, or choose another SHADOWMESH_RUNTIME_DIR"
			 : "");
	return err;
}

static int take_port_lock(struct sm_daemon *d, bool udp, uint16_t port, int *ret_fd, char *error)
{
	char name[32], note[SM_NAME_MAX + 48], holder[SM_HOLDER_MAX];
	int fd;

	snprintf(name, sizeof(name), "%s-%u", udp ? "udp" : "tcp", port);
	snprintf(note, sizeof(note), "network %s, pid %d", d->config->network.name, (int)getpid());
	fd = sm_lock_take(name, note, holder);
	if (fd == -EBUSY) {
		snprintf(
			error, SM_DAEMON_ERROR_MAX,
			"%s port %u is taken by another shadowmesh (%s): stop it, or give this network another %s",
			udp ? "UDP" : "TCP", port, holder, udp ? "DataPort" : "ControlPort");
		return fd;
	}
	if (fd < 0)
		return lock_failed(error, fd);
	*ret_fd = fd;
	return 0;
}

static int port_taken(bool udp, const struct sm_addr *at, uint16_t port, int err, char *error)
{
	char holder[SM_HOLDER_MAX], text[SM_ADDR_STRLEN];

	if (err == -EADDRNOTAVAIL)
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "cannot bind %s port %u: no interface of this machine has the address %s: "
			 "another [Transport] Listen",
			 udp ? "UDP" : "TCP", port, sm_addr_format_ip(at, text));
	else if (err != -EADDRINUSE)
		snprintf(error, SM_DAEMON_ERROR_MAX, "cannot bind %s port %u: %s",
			 udp ? "UDP" : "TCP", port, strerror(-err));
	else if (!sm_lock_port_holder(udp, port, holder))
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "%s port %u is taken by %s: stop it, or choose another %s",
			 udp ? "UDP" : "TCP", port, holder, udp ? "DataPort" : "ControlPort");
	else
		snprintf(error, SM_DAEMON_ERROR_MAX, "%s port %u is taken by another process",
			 udp ? "UDP" : "TCP", port);
	return err;
}

static int take_locks(struct sm_daemon *d, char *error)
{
	char name[SM_NAME_MAX + 16], note[32], holder[SM_HOLDER_MAX];
	int fd, err = 0;

	snprintf(name, sizeof(name), "network-%s", d->config->network.name);
	snprintf(note, sizeof(note), "pid %d", (int)getpid());
	fd = sm_lock_take(name, note, holder);
	if (fd == -EBUSY) {
		snprintf(error, SM_DAEMON_ERROR_MAX,
			 "network %s is up already on this machine (%s)", d->config->network.name,
			 holder);
		return fd;
	}
	if (fd < 0)
		return lock_failed(error, fd);
	d->network_lock = fd;
	if (d->config->transport.data_port)
		err = take_port_lock(d, true, d->config->transport.data_port, &d->udp_lock, error);
	if (!err && d->config->transport.control_port)
		err = take_port_lock(d, false, d->config->transport.control_port, &d->tcp_lock,
				     error);
	return err;
}

/* -- sockets -- */

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct sm_addr addr;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) ||
	    sm_addr_from_sockaddr((struct sockaddr *)&sa, &addr))
		return 0;
	return addr.port;
}

static int open_sockets(struct sm_daemon *d, char *error)
{
	static const struct sm_addr any;
	const struct sm_config_transport *t = &d->config->transport;
	/* one listen address pins the data socket too; several share the wildcard */
	const struct sm_addr *to = t->listen.count == 1 ? &t->listen.addr[0] : &any;

	d->data_port = t->data_port;
	for (uint32_t i = 0; i < d->workers; i++) {
		const int fd = sm_udp_open(to, d->data_port, d->workers > 1, t->socket_buffer,
					   &d->udp_mapped);

		if (fd < 0)
			return port_taken(true, to, d->data_port, fd, error);
		d->udp_fd[i] = fd;
		if (!d->data_port)
			d->data_port = bound_port(fd);
		/* Without it, each datagram comes alone. */
		if (t->offload && sm_udp_set_gro(fd, true))
			sm_info("this kernel does not join datagrams (UDP_GRO)");
	}
	/* Without it, workers hand datagrams over. */
	if (d->workers > 1 && sm_udp_steer(d->udp_fd[0], d->workers))
		sm_info("this kernel does not steer datagrams to their workers");
	if (!t->data_port)
		return take_port_lock(d, true, d->data_port, &d->udp_lock, error);
	return 0;
}

/* -- the interface -- */

/* A machine without IPv6 gets no derived address; one given by hand is an error there. */
static bool has_ipv6(void)
{
	FILE *f = fopen("/proc/sys/net/ipv6/conf/default/disable_ipv6", "re");
	const int off = f ? fgetc(f) : '1';

	if (f)
		fclose(f);
	if (off == '1')
		sm_notice(
			"IPv6 is off on this machine: the interface gets no derived IPv6 address");
	return off != '1';
}

static void collect_addresses(struct sm_daemon *d)
{
	const struct sm_config_interface *i = &d->config->interface;
	const struct sm_identity *self = &d->credentials.self;

	d->address_count = 0;
	if (i->address.count) {
		memcpy(d->addresses, i->address.prefix, i->address.count * sizeof(d->addresses[0]));
		d->address_count = i->address.count;
	} else {
		memcpy(d->addresses, self->addresses,
		       self->address_count * sizeof(d->addresses[0]));
		d->address_count = self->address_count;
	}
	if (i->ula && has_ipv6() &&
	    !sm_ident_ula(self->network_id, self->node_id, &d->addresses[d->address_count]))
		d->address_count++;
}

static int netlink_failed(struct sm_daemon *d, int err, const char *what, const char *value,
			  char *error)
{
	snprintf(error, SM_DAEMON_ERROR_MAX, "interface %s: cannot set %s %s: %s", d->tun.name,
		 what, value, sm_netlink_error(d->netlink));
	return err;
}

/* Two interfaces with one subnet: the route picks one of them, and half of all frames go astray. */
static void warn_same_subnet(struct sm_daemon *d)
{
	struct sm_link_address *list = NULL;
	const int n = sm_netlink_addresses(d->netlink, &list);
	char ours[SM_ADDR_STRLEN], theirs[SM_ADDR_STRLEN];

	for (int i = 0; i < n; i++) {
		for (uint32_t k = 0; k < d->address_count; k++) {
			if (list[i].ifindex == d->tun.ifindex || !list[i].up ||
			    !sm_prefix_overlaps(&list[i].prefix, &d->addresses[k]))
				continue;
			sm_warn("interfaces %s (%s) and %s (%s) share a subnet: packets will take one of them only; "
				"give the network another subnet, or take the address from %s",
				d->tun.name, sm_prefix_format(&d->addresses[k], ours),
				list[i].ifname, sm_prefix_format(&list[i].prefix, theirs),
				list[i].ifname);
		}
	}
	free(list);
}

static int configure_interface(struct sm_daemon *d, char *error)
{
	const struct sm_config_interface *c = &d->config->interface;
	const int ifindex = d->tun.ifindex;
	char text[SM_ADDR_STRLEN], mac[SM_MAC_STRLEN];
	int err;

	if (d->config->network.mode == SM_MODE_TAP) {
		err = sm_netlink_set_mac(d->netlink, ifindex, &d->mac);
		if (err)
			return netlink_failed(d, err, "MAC address", sm_mac_format(&d->mac, mac),
					      error);
	}
	snprintf(text, sizeof(text), "%u", c->mtu);
	err = sm_netlink_set_mtu(d->netlink, ifindex, c->mtu);
	if (err)
		return netlink_failed(d, err, "MTU", text, error);
	if (c->txqueuelen) {
		snprintf(text, sizeof(text), "%u", c->txqueuelen);
		err = sm_netlink_set_txqueuelen(d->netlink, ifindex, c->txqueuelen);
		if (err)
			return netlink_failed(d, err, "queue length", text, error);
	}
	for (uint32_t i = 0; i < d->address_count; i++) {
		err = sm_netlink_add_address(d->netlink, ifindex, &d->addresses[i]);
		if (err)
			return netlink_failed(d, err, "address",
					      sm_prefix_format(&d->addresses[i], text), error);
	}
	err = sm_netlink_set_up(d->netlink, ifindex, true);
	if (err)
		return netlink_failed(d, err, "state", "up", error);
	warn_same_subnet(d);
	return 0;
}

/* Is there a card of that name which only one may read? */
static bool has_single_queue(const char *name)
{
	const int ifindex = (int)if_nametoindex(name);
	struct sm_link_tun info;
	struct sm_netlink *nl;
	bool single = false;

	if (!ifindex || sm_netlink_open(&nl))
		return false;
	if (!sm_netlink_tun(nl, ifindex, &info))
		single = info.is_tun && !info.multi_queue;
	sm_netlink_close(nl);
	return single;
}

uint32_t sm_device_workers(const struct sm_config *config)
{
	cpu_set_t set;
	uint32_t count = 1;

	if (config->transport.workers)
		return config->transport.workers;
	/* Half for the programs whose packets these are; a queue for each of many cores is not worth its memory. */
	if (!sched_getaffinity(0, sizeof(set), &set))
		count = (uint32_t)CPU_COUNT(&set) / 2;
	if (has_single_queue(config->interface.name))
		count = 1;
	return SM_MIN(SM_MAX(count, 1u), AUTO_WORKERS_MAX);
}

int sm_device_open(struct sm_daemon *d, char *error)
{
	int err = take_locks(d, error);

	if (err)
		return err;
	err = open_sockets(d, error);
	if (err)
		return err;
	err = sm_netlink_open(&d->netlink);
	if (err)
		return fail(error, err, "cannot open rtnetlink", strerror(-err));
	err = sm_tun_open(d->config->interface.name, d->config->network.mode, d->workers, &d->tun,
			  error);
	if (err)
		return err;
	if (d->config->interface.has_mac)
		d->mac = d->config->interface.mac;
	else
		err = sm_ident_mac(d->credentials.self.node_id, &d->mac);
	if (err)
		return fail(error, err, "cannot derive the MAC address", strerror(-err));
	collect_addresses(d);
	err = configure_interface(d, error);
	if (err)
		return err;
	d->monitor_fd = sm_netlink_monitor();
	if (d->monitor_fd < 0)
		return fail(error, d->monitor_fd, "cannot watch for network changes",
			    strerror(-d->monitor_fd));
	return 0;
}

void sm_device_close(struct sm_daemon *d)
{
	for (uint32_t i = 0; i < SM_WORKER_MAX; i++) {
		if (d->udp_fd[i] >= 0)
			close(d->udp_fd[i]);
		d->udp_fd[i] = -1;
	}
	/* a persistent interface outlives us: leave no address behind that nobody answers */
	for (uint32_t i = 0; d->tun.taken_over && d->netlink && i < d->address_count; i++)
		(void)!sm_netlink_del_address(d->netlink, d->tun.ifindex, &d->addresses[i]);
	if (d->tun.queues)
		sm_tun_close(&d->tun);
	if (d->monitor_fd >= 0)
		close(d->monitor_fd);
	d->monitor_fd = -1;
	sm_netlink_close(d->netlink);
	d->netlink = NULL;
	sm_lock_release(d->udp_lock);
	sm_lock_release(d->tcp_lock);
	sm_lock_release(d->network_lock);
	d->udp_lock = d->tcp_lock = d->network_lock = -1;
}

static bool listens_on(const struct sm_daemon *d, const struct sm_addr *addr)
{
	const struct sm_config_addresses *l = &d->config->transport.listen;

	for (uint32_t i = 0; i < l->count; i++)
		if (sm_addr_same_ip(&l->addr[i], addr))
			return true;
	return !l->count;
}

void sm_device_candidates(struct sm_daemon *d)
{
	struct sm_candidate candidates[SM_ENDPOINTS_MAX] = {0};
	struct sm_link_address *list = NULL;
	const int n = sm_netlink_addresses(d->netlink, &list);
	uint32_t count = 0;

	for (int i = 0; i < n && count < SM_ENDPOINTS_MAX; i++) {
		struct sm_candidate *c = &candidates[count];

		*c = (struct sm_candidate){.data = {.family = list[i].prefix.family,
						    .port = d->data_port},
					   .control_port = d->control_port,
					   .type = SM_CANDIDATE_HOST};
		memcpy(c->data.ip, list[i].prefix.ip, sizeof(c->data.ip));
		if (list[i].ifindex == d->tun.ifindex || !list[i].up ||
		    !sm_addr_is_global_unicast(&c->data) || !listens_on(d, &c->data))
			continue;
		count++;
	}
	free(list);
	sm_node_set_candidates(d->node, candidates, count, sm_clock_now_us());
}

/* -- routes by the addresses in certificates (TUN) -- */

static bool in_own_subnet(const struct sm_daemon *d, const struct sm_prefix *p)
{
	for (uint32_t i = 0; i < d->address_count; i++)
		if (sm_prefix_contains(&d->addresses[i], p->family, p->ip))
			return true;
	return false;
}

/* The routes that a peer's certificate asks for */
struct routes {
	struct sm_prefix prefix[SM_DAEMON_ROUTES_MAX];
	uint32_t count;
};

static struct routes wanted_routes(const struct sm_daemon *d, const struct sm_identity *id)
{
	struct routes r = {0};

	for (uint32_t i = 0; i < id->prefix_count; i++)
		r.prefix[r.count++] = id->prefixes[i];
	for (uint32_t i = 0; i < id->address_count; i++) {
		struct sm_prefix host = id->addresses[i];

		host.len = host.family == 4 ? 32 : 128;
		if (!in_own_subnet(d, &host))
			r.prefix[r.count++] = host;
	}
	return r;
}

static bool has_route(const struct sm_prefix *list, uint32_t count, const struct sm_prefix *prefix)
{
	for (uint32_t i = 0; i < count; i++)
		if (list[i].len == prefix->len &&
		    sm_prefix_contains(&list[i], prefix->family, prefix->ip))
			return true;
	return false;
}

static void add_route(struct sm_daemon *d, struct sm_daemon_port *port,
		      const struct sm_prefix *prefix)
{
	char text[SM_ADDR_STRLEN];

	if (sm_netlink_add_route(d->netlink, d->tun.ifindex, prefix)) {
		sm_error("cannot add the route to %s: %s", sm_prefix_format(prefix, text),
			 sm_netlink_error(d->netlink));
		return;
	}
	port->routes[port->route_count++] = *prefix;
}

/* Those that are not in @wanted */
static void remove_routes(struct sm_daemon *d, struct sm_daemon_port *port,
			  const struct routes *wanted)
{
	const uint32_t count = port->route_count;

	port->route_count = 0;
	for (uint32_t i = 0; i < count; i++) {
		const struct sm_prefix prefix = port->routes[i];

		if (has_route(wanted->prefix, wanted->count, &prefix))
			port->routes[port->route_count++] = prefix;
		else
			(void)!sm_netlink_del_route(d->netlink, d->tun.ifindex, &prefix);
	}
}

void sm_device_route_peer(struct sm_daemon *d, const struct sm_peer_info *info, bool install)
{
	struct sm_daemon_port *port = &d->ports[info->port];
	struct routes wanted = {0};

	if (d->config->network.mode != SM_MODE_TUN || !d->config->interface.routes)
		return;
	if (install)
		wanted = wanted_routes(d, info->identity);
	remove_routes(d, port, &wanted);
	for (uint32_t i = 0; i < wanted.count; i++)
		if (!has_route(port->routes, port->route_count, &wanted.prefix[i]))
			add_route(d, port, &wanted.prefix[i]);
}

void sm_device_unroute(struct sm_daemon *d)
{
	const struct routes none = {0};

	for (uint32_t i = 0; d->tun.taken_over && d->ports && i < SM_PORT_MAX; i++)
		remove_routes(d, &d->ports[i], &none);
}

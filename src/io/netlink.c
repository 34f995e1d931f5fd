// SPDX-License-Identifier: MIT
/*
 * Requests are built in a buffer on the stack, sent, and answered before the function returns: the
 * kernel works on them in sendto(). Extended acknowledgements are on, so that an error comes with
 * the kernel's own words, and so are strict checks, so that dumps can be filtered.
 */
#include "io/netlink.h"

#include <net/if.h>
#include <netinet/in.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <libmnl/libmnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define REQUEST_LEN 512u
#define ANSWER_LEN  32768u /* the kernel's own largest piece of a dump */
#define DUMP_TRIES  5      /* a dump that changes meanwhile starts anew */
#define DRAIN_MAX   1000   /* messages read at one go */
#define ADDRESS_MAX 65536u /* listed at most */
#define METRICS_MAX RTAX_MAX

struct sm_netlink {
	struct mnl_socket *socket;
	uint32_t seq;
	int err;         /* of the last call, 0 or -errno */
	char error[160]; /* the kernel's words, may be empty */
};

/* One request and who takes its answers. */
struct query {
	struct sm_netlink *nl;
	int (*on_message)(const struct nlmsghdr *nlh, void *arg); /* 0, -errno; may be NULL */
	void *arg;
};

static int set_option(struct mnl_socket *socket, int option, bool needed)
{
	int on = 1;

	if (mnl_socket_setsockopt(socket, option, &on, sizeof(on)) < 0 && needed)
		return -errno;
	return 0;
}

int sm_netlink_open(struct sm_netlink **ret_nl)
{
	struct sm_netlink *nl = calloc(1, sizeof(*nl));
	int err;

	if (!nl)
		return -ENOMEM;
	nl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl->socket) {
		err = -errno;
		goto out;
	}
	err = mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
	if (!err)
		err = set_option(nl->socket, NETLINK_GET_STRICT_CHK, true);
	(void)!set_option(nl->socket, NETLINK_EXT_ACK, false);
	(void)!set_option(nl->socket, NETLINK_CAP_ACK, false);
out:
	if (err) {
		sm_netlink_close(nl);
		return err;
	}
	*ret_nl = nl;
	return 0;
}

void sm_netlink_close(struct sm_netlink *nl)
{
	if (!nl)
		return;
	if (nl->socket)
		mnl_socket_close(nl->socket);
	free(nl);
}

const char *sm_netlink_error(const struct sm_netlink *nl)
{
	if (*nl->error)
		return nl->error;
	return strerror(-nl->err);
}

/* Attributes with @type from 1 to @max into @ret_attrs, which has @max + 1 places. */
static void sort_attributes(const struct nlattr *first, size_t len, uint32_t max,
			    const struct nlattr **ret_attrs)
{
	const uint8_t *end = (const uint8_t *)first + len;

	for (uint32_t i = 0; i <= max; i++)
		ret_attrs[i] = NULL;
	for (const struct nlattr *attr = first;
	     mnl_attr_ok(attr, (int)(end - (const uint8_t *)attr)); attr = mnl_attr_next(attr)) {
		if (mnl_attr_get_type(attr) <= max)
			ret_attrs[mnl_attr_get_type(attr)] = attr;
	}
}

static void message_attributes(const struct nlmsghdr *nlh, size_t head, uint32_t max,
			       const struct nlattr **ret_attrs)
{
	size_t len = mnl_nlmsg_get_payload_len(nlh);

	head = (head + 3) & ~(size_t)3;
	sort_attributes(mnl_nlmsg_get_payload_offset(nlh, head), len > head ? len - head : 0, max,
			ret_attrs);
}

static bool attribute_u32(const struct nlattr *attr, uint32_t *ret_value)
{
	if (!attr || mnl_attr_validate(attr, MNL_TYPE_U32) < 0)
		return false;
	*ret_value = mnl_attr_get_u32(attr);
	return true;
}

static bool attribute_flag(const struct nlattr *attr)
{
	return attr && mnl_attr_get_payload_len(attr) >= 1 && mnl_attr_get_u8(attr);
}

/* Keeps the text of an extended acknowledgement that starts @head bytes into the message. */
static void keep_error_text(struct sm_netlink *nl, const struct nlmsghdr *nlh, size_t head)
{
	const struct nlattr *attrs[NLMSGERR_ATTR_MSG + 1];
	const struct nlattr *text;

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	message_attributes(nlh, head, NLMSGERR_ATTR_MSG, attrs);
	text = attrs[NLMSGERR_ATTR_MSG];
	if (text)
		snprintf(nl->error, sizeof(nl->error), "%.*s", (int)mnl_attr_get_payload_len(text),
			 mnl_attr_get_str(text));
}

static int on_error(const struct nlmsghdr *nlh, void *arg)
{
	struct query *q = arg;
	struct nlmsgerr error;
	size_t head = sizeof(error);

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(error)) {
		errno = EBADMSG;
		return MNL_CB_ERROR;
	}
	memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	if (!error.error)
		return MNL_CB_STOP;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		head += error.msg.nlmsg_len - sizeof(error.msg);
	keep_error_text(q->nl, nlh, head);
	errno = -error.error;
	return MNL_CB_ERROR;
}

/* A dump may fail halfway: its last message says so. */
static int on_done(const struct nlmsghdr *nlh, void *arg)
{
	struct query *q = arg;
	int error = 0;

	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(error))
		memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	if (error >= 0)
		return MNL_CB_STOP;
	keep_error_text(q->nl, nlh, sizeof(error));
	errno = -error;
	return MNL_CB_ERROR;
}

static int on_data(const struct nlmsghdr *nlh, void *arg)
{
	struct query *q = arg;
	int err = q->on_message ? q->on_message(nlh, q->arg) : 0;

	if (!err)
		return MNL_CB_OK;
	errno = -err;
	return MNL_CB_ERROR;
}

static int receive_answers(struct query *q, uint32_t seq)
{
	mnl_cb_t control[NLMSG_MIN_TYPE] = {[NLMSG_ERROR] = on_error, [NLMSG_DONE] = on_done};
	_Alignas(struct nlmsghdr) uint8_t answer[ANSWER_LEN];
	unsigned port = mnl_socket_get_portid(q->nl->socket);
	int more = MNL_CB_OK;

	while (more > MNL_CB_STOP) {
		ssize_t len = mnl_socket_recvfrom(q->nl->socket, answer, sizeof(answer));

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		more = mnl_cb_run2(answer, (size_t)len, seq, port, on_data, q, control,
				   NLMSG_MIN_TYPE);
		/* Left over from a call that gave up: not an answer to this one. */
		if (more < 0 && (errno == ESRCH || errno == EPROTO) && !*q->nl->error &&
		    ((struct nlmsghdr *)answer)->nlmsg_seq != seq)
			more = MNL_CB_OK;
	}
	return more < 0 ? -errno : 0;
}

/* Sends a request and takes all its answers. */
static int ask(struct sm_netlink *nl, struct nlmsghdr *request,
	       int (*on_message)(const struct nlmsghdr *nlh, void *arg), void *arg)
{
	struct query q = {.nl = nl, .on_message = on_message, .arg = arg};
	ssize_t sent;

	request->nlmsg_seq = ++nl->seq;
	nl->error[0] = 0;
	do {
		sent = mnl_socket_sendto(nl->socket, request, request->nlmsg_len);
	} while (sent < 0 && errno == EINTR);
	nl->err = sent < 0 ? -errno : receive_answers(&q, request->nlmsg_seq);
	return nl->err;
}

/* A message's start: both headers, the second one zeroed. */
static struct nlmsghdr *begin(void *buf, uint16_t type, uint16_t flags, size_t head_len,
			      void **ret_head)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	*ret_head = mnl_nlmsg_put_extra_header(nlh, head_len);
	return nlh;
}

#define REQUEST(name) _Alignas(struct nlmsghdr) uint8_t name[REQUEST_LEN]

static struct nlmsghdr *begin_link(void *buf, uint16_t type, int ifindex,
				   struct ifinfomsg **ret_link)
{
	void *head;
	struct nlmsghdr *nlh = begin(buf, type, NLM_F_ACK, sizeof(struct ifinfomsg), &head);

	*ret_link = head;
	(*ret_link)->ifi_index = ifindex;
	return nlh;
}

int sm_netlink_set_mac(struct sm_netlink *nl, int ifindex, const struct sm_mac *mac)
{
	REQUEST(buf);
	struct ifinfomsg *link;
	struct nlmsghdr *nlh = begin_link(buf, RTM_NEWLINK, ifindex, &link);

	mnl_attr_put(nlh, IFLA_ADDRESS, sizeof(mac->b), mac->b);
	return ask(nl, nlh, NULL, NULL);
}

int sm_netlink_set_mtu(struct sm_netlink *nl, int ifindex, uint32_t mtu)
{
	REQUEST(buf);
	struct ifinfomsg *link;
	struct nlmsghdr *nlh = begin_link(buf, RTM_NEWLINK, ifindex, &link);

	mnl_attr_put_u32(nlh, IFLA_MTU, mtu);
	return ask(nl, nlh, NULL, NULL);
}

int sm_netlink_set_up(struct sm_netlink *nl, int ifindex, bool up)
{
	REQUEST(buf);
	struct ifinfomsg *link;
	struct nlmsghdr *nlh = begin_link(buf, RTM_NEWLINK, ifindex, &link);

	link->ifi_flags = up ? IFF_UP : 0;
	link->ifi_change = IFF_UP;
	return ask(nl, nlh, NULL, NULL);
}

int sm_netlink_set_txqueuelen(struct sm_netlink *nl, int ifindex, uint32_t len)
{
	REQUEST(buf);
	struct ifinfomsg *link;
	struct nlmsghdr *nlh = begin_link(buf, RTM_NEWLINK, ifindex, &link);

	mnl_attr_put_u32(nlh, IFLA_TXQLEN, len);
	return ask(nl, nlh, NULL, NULL);
}

static uint8_t linux_family(uint8_t family)
{
	return family == 4 ? AF_INET : AF_INET6;
}

static size_t ip_len(uint8_t family)
{
	return family == 4 ? 4 : 16;
}

/* All host bits to 0, or to 1. */
static void fill_host_bits(struct sm_prefix *p, bool ones)
{
	for (uint32_t bit = p->len; bit < 8 * ip_len(p->family); bit++) {
		uint8_t mask = (uint8_t)(0x80u >> bit % 8);

		p->ip[bit / 8] = (uint8_t)(ones ? p->ip[bit / 8] | mask : p->ip[bit / 8] & ~mask);
	}
}

static struct nlmsghdr *address_request(void *buf, uint16_t type, uint16_t flags, int ifindex,
					const struct sm_prefix *address)
{
	size_t len = ip_len(address->family);
	struct ifaddrmsg *head;
	struct nlmsghdr *nlh;
	void *p;

	nlh = begin(buf, type, (uint16_t)(NLM_F_ACK | flags), sizeof(*head), &p);
	head = p;
	head->ifa_family = linux_family(address->family);
	head->ifa_prefixlen = address->len;
	head->ifa_index = (uint32_t)ifindex;
	mnl_attr_put(nlh, IFA_LOCAL, len, address->ip);
	mnl_attr_put(nlh, IFA_ADDRESS, len, address->ip);
	return nlh;
}

int sm_netlink_add_address(struct sm_netlink *nl, int ifindex, const struct sm_prefix *address)
{
	REQUEST(buf);
	struct sm_prefix all_ones = *address;
	struct nlmsghdr *nlh;
	int err;

	nlh = address_request(buf, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, address);
	if (address->family == 6) {
		mnl_attr_put_u32(nlh, IFA_FLAGS, IFA_F_NODAD);
	} else if (address->len <= 30) {
		/* Old programs ask the interface for it and broadcast nothing without. */
		fill_host_bits(&all_ones, true);
		mnl_attr_put(nlh, IFA_BROADCAST, 4, all_ones.ip);
	}
	err = ask(nl, nlh, NULL, NULL);
	return err == -EEXIST ? 0 : err;
}

int sm_netlink_del_address(struct sm_netlink *nl, int ifindex, const struct sm_prefix *address)
{
	REQUEST(buf);

	return ask(nl, address_request(buf, RTM_DELADDR, 0, ifindex, address), NULL, NULL);
}

static struct nlmsghdr *route_request(void *buf, uint16_t type, uint16_t flags, int ifindex,
				      const struct sm_prefix *prefix)
{
	struct sm_prefix net = *prefix;
	struct nlmsghdr *nlh;
	struct rtmsg *head;
	void *p;

	fill_host_bits(&net, false);
	nlh = begin(buf, type, flags, sizeof(*head), &p);
	head = p;
	head->rtm_family = linux_family(net.family);
	head->rtm_dst_len = net.len;
	head->rtm_table = RT_TABLE_MAIN;
	head->rtm_protocol = RTPROT_STATIC;
	head->rtm_scope = net.family == 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	head->rtm_type = RTN_UNICAST;
	mnl_attr_put(nlh, RTA_DST, ip_len(net.family), net.ip);
	mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)ifindex);
	return nlh;
}

struct route_search {
	struct sm_prefix net;
	bool found;
};

static int on_route(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attrs[RTA_DST + 1];
	struct route_search *search = arg;
	struct rtmsg head;
	size_t len = ip_len(search->net.family);

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(head))
		return -EBADMSG;
	memcpy(&head, mnl_nlmsg_get_payload(nlh), sizeof(head));
	if (head.rtm_dst_len != search->net.len || head.rtm_type != RTN_UNICAST)
		return 0;
	message_attributes(nlh, sizeof(head), RTA_DST, attrs);
	if (!attrs[RTA_DST])
		search->found |= search->net.len == 0;
	else if (mnl_attr_get_payload_len(attrs[RTA_DST]) == len &&
		 !memcmp(mnl_attr_get_payload(attrs[RTA_DST]), search->net.ip, len))
		search->found = true;
	return 0;
}

/* Does this device have the route already? Return: 1, 0, -errno */
static int has_route(struct sm_netlink *nl, int ifindex, const struct sm_prefix *prefix)
{
	struct route_search search = {.net = *prefix};
	REQUEST(buf);
	struct nlmsghdr *nlh;
	struct rtmsg *head;
	void *p;
	int err;

	fill_host_bits(&search.net, false);
	nlh = begin(buf, RTM_GETROUTE, NLM_F_DUMP, sizeof(*head), &p);
	head = p;
	head->rtm_family = linux_family(prefix->family);
	head->rtm_table = RT_TABLE_MAIN;
	mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)ifindex);
	err = ask(nl, nlh, on_route, &search);
	return err ? err : search.found;
}

int sm_netlink_add_route(struct sm_netlink *nl, int ifindex, const struct sm_prefix *prefix)
{
	const uint16_t flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	char text[sizeof(nl->error)];
	REQUEST(buf);
	int err, found;

	err = ask(nl, route_request(buf, RTM_NEWROUTE, flags, ifindex, prefix), NULL, NULL);
	if (err != -EEXIST)
		return err;
	memcpy(text, nl->error, sizeof(text));
	found = has_route(nl, ifindex, prefix);
	if (found)
		return found > 0 ? 0 : found;
	memcpy(nl->error, text, sizeof(text));
	nl->err = err;
	return err;
}

int sm_netlink_del_route(struct sm_netlink *nl, int ifindex, const struct sm_prefix *prefix)
{
	REQUEST(buf);

	return ask(nl, route_request(buf, RTM_DELROUTE, NLM_F_ACK, ifindex, prefix), NULL, NULL);
}

/* What a dump of links and then addresses fills. */
struct listing {
	struct sm_link_address *links, *addresses; /* links: prefix unused */
	uint32_t link_count, address_count;
};

/* Room for one more; arrays grow by doubling. Return: 0, -ENOMEM, -E2BIG */
static int make_room(struct sm_link_address **list, uint32_t count)
{
	struct sm_link_address *grown;

	if (count >= ADDRESS_MAX)
		return -E2BIG;
	if (count & (count - 1) || (count && count < 16))
		return 0;
	grown = realloc(*list, sizeof(**list) * (count ? 2 * (size_t)count : 16));
	if (!grown)
		return -ENOMEM;
	*list = grown;
	return 0;
}

static int on_listed_link(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attrs[IFLA_IFNAME + 1];
	struct sm_link_address entry = {0};
	struct listing *list = arg;
	struct ifinfomsg head;
	int err;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(head))
		return -EBADMSG;
	memcpy(&head, mnl_nlmsg_get_payload(nlh), sizeof(head));
	message_attributes(nlh, sizeof(head), IFLA_IFNAME, attrs);
	err = make_room(&list->links, list->link_count);
	if (err)
		return err;
	entry.ifindex = head.ifi_index;
	entry.up = head.ifi_flags & IFF_UP;
	if (attrs[IFLA_IFNAME])
		snprintf(entry.ifname, sizeof(entry.ifname), "%.*s",
			 (int)mnl_attr_get_payload_len(attrs[IFLA_IFNAME]),
			 mnl_attr_get_str(attrs[IFLA_IFNAME]));
	list->links[list->link_count++] = entry;
	return 0;
}

static int on_listed_address(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attrs[IFA_LOCAL + 1], *ip;
	struct sm_link_address entry = {0};
	struct listing *list = arg;
	struct ifaddrmsg head;
	int err;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(head))
		return -EBADMSG;
	memcpy(&head, mnl_nlmsg_get_payload(nlh), sizeof(head));
	if (head.ifa_family != AF_INET && head.ifa_family != AF_INET6)
		return 0;
	/* Where they differ, IFA_ADDRESS is the other end of a point-to-point link. */
	message_attributes(nlh, sizeof(head), IFA_LOCAL, attrs);
	ip = attrs[IFA_LOCAL] ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS];
	entry.prefix.family = head.ifa_family == AF_INET ? 4 : 6;
	if (!ip || mnl_attr_get_payload_len(ip) != ip_len(entry.prefix.family))
		return 0;
	memcpy(entry.prefix.ip, mnl_attr_get_payload(ip), ip_len(entry.prefix.family));
	entry.prefix.len = head.ifa_prefixlen;
	entry.ifindex = (int)head.ifa_index;
	for (uint32_t i = 0; i < list->link_count; i++) {
		if (list->links[i].ifindex != entry.ifindex)
			continue;
		memcpy(entry.ifname, list->links[i].ifname, sizeof(entry.ifname));
		entry.up = list->links[i].up;
	}
	err = make_room(&list->addresses, list->address_count);
	if (!err)
		list->addresses[list->address_count++] = entry;
	return err;
}

static int list_addresses(struct sm_netlink *nl, struct listing *list)
{
	REQUEST(buf);
	struct nlmsghdr *nlh;
	void *head;
	int err;

	list->link_count = list->address_count = 0;
	nlh = begin(buf, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg), &head);
	err = ask(nl, nlh, on_listed_link, list);
	if (err)
		return err;
	nlh = begin(buf, RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg), &head);
	return ask(nl, nlh, on_listed_address, list);
}

int sm_netlink_addresses(struct sm_netlink *nl, struct sm_link_address **ret_list)
{
	struct listing list = {0};
	int err = -EINTR;

	for (int i = 0; i < DUMP_TRIES && err == -EINTR; i++)
		err = list_addresses(nl, &list);
	free(list.links);
	if (err) {
		free(list.addresses);
		return err;
	}
	*ret_list = list.addresses;
	return (int)list.address_count;
}

static void read_tun_data(const struct nlattr *info, struct sm_link_tun *ret_info)
{
	const struct nlattr *kind[IFLA_INFO_DATA + 1], *data[IFLA_TUN_NUM_DISABLED_QUEUES + 1];
	uint32_t enabled = 0, disabled = 0;

	sort_attributes(mnl_attr_get_payload(info), mnl_attr_get_payload_len(info), IFLA_INFO_DATA,
			kind);
	if (!kind[IFLA_INFO_KIND] || mnl_attr_validate(kind[IFLA_INFO_KIND], MNL_TYPE_NUL_STRING) ||
	    strcmp(mnl_attr_get_str(kind[IFLA_INFO_KIND]), "tun") != 0 || !kind[IFLA_INFO_DATA])
		return;
	sort_attributes(mnl_attr_get_payload(kind[IFLA_INFO_DATA]),
			mnl_attr_get_payload_len(kind[IFLA_INFO_DATA]),
			IFLA_TUN_NUM_DISABLED_QUEUES, data);
	ret_info->is_tun = true;
	ret_info->is_tap = data[IFLA_TUN_TYPE] && mnl_attr_get_u8(data[IFLA_TUN_TYPE]) == IFF_TAP;
	ret_info->multi_queue = attribute_flag(data[IFLA_TUN_MULTI_QUEUE]);
	ret_info->persistent = attribute_flag(data[IFLA_TUN_PERSIST]);
	(void)attribute_u32(data[IFLA_TUN_NUM_QUEUES], &enabled);
	(void)attribute_u32(data[IFLA_TUN_NUM_DISABLED_QUEUES], &disabled);
	ret_info->queues = enabled + disabled;
}

struct link_facts {
	struct sm_link_tun tun;
	uint32_t mtu;
};

static int on_link(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attrs[IFLA_LINKINFO + 1];
	struct link_facts *facts = arg;

	message_attributes(nlh, sizeof(struct ifinfomsg), IFLA_LINKINFO, attrs);
	(void)attribute_u32(attrs[IFLA_MTU], &facts->mtu);
	if (attrs[IFLA_LINKINFO])
		read_tun_data(attrs[IFLA_LINKINFO], &facts->tun);
	return 0;
}

static int get_link(struct sm_netlink *nl, int ifindex, struct link_facts *ret_facts)
{
	REQUEST(buf);
	struct ifinfomsg *link;

	*ret_facts = (struct link_facts){0};
	return ask(nl, begin_link(buf, RTM_GETLINK, ifindex, &link), on_link, ret_facts);
}

int sm_netlink_tun(struct sm_netlink *nl, int ifindex, struct sm_link_tun *ret_info)
{
	struct link_facts facts;
	int err = get_link(nl, ifindex, &facts);

	if (!err)
		*ret_info = facts.tun;
	return err;
}

int sm_netlink_link_mtu(struct sm_netlink *nl, int ifindex)
{
	struct link_facts facts;
	int err = get_link(nl, ifindex, &facts);

	return err ? err : (int)SM_MIN(facts.mtu, (uint32_t)INT32_MAX);
}

struct route_facts {
	uint8_t type;
	uint32_t oif, mtu;     /* mtu 0: the route has none of its own */
	struct sm_addr source; /* family 0: not told */
};

static int on_route_to(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attrs[RTA_METRICS + 1], *metrics[METRICS_MAX + 1];
	struct route_facts *facts = arg;
	struct rtmsg head;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(head))
		return -EBADMSG;
	memcpy(&head, mnl_nlmsg_get_payload(nlh), sizeof(head));
	facts->type = head.rtm_type;
	message_attributes(nlh, sizeof(head), RTA_METRICS, attrs);
	(void)attribute_u32(attrs[RTA_OIF], &facts->oif);
	if (attrs[RTA_METRICS]) {
		sort_attributes(mnl_attr_get_payload(attrs[RTA_METRICS]),
				mnl_attr_get_payload_len(attrs[RTA_METRICS]), METRICS_MAX, metrics);
		(void)attribute_u32(metrics[RTAX_MTU], &facts->mtu);
	}
	if (attrs[RTA_PREFSRC]) {
		uint8_t family = head.rtm_family == AF_INET ? 4 : 6;

		if (mnl_attr_get_payload_len(attrs[RTA_PREFSRC]) != ip_len(family))
			return 0;
		facts->source.family = family;
		memcpy(facts->source.ip, mnl_attr_get_payload(attrs[RTA_PREFSRC]), ip_len(family));
	}
	return 0;
}

static int get_route(struct sm_netlink *nl, const struct sm_addr *to, uint32_t flags,
		     struct route_facts *ret_facts)
{
	REQUEST(buf);
	struct nlmsghdr *nlh;
	struct rtmsg *head;
	void *p;
	int err;

	*ret_facts = (struct route_facts){0};
	nlh = begin(buf, RTM_GETROUTE, NLM_F_ACK, sizeof(*head), &p);
	head = p;
	head->rtm_family = linux_family(to->family);
	head->rtm_flags = flags;
	head->rtm_dst_len = (uint8_t)(8 * ip_len(to->family));
	mnl_attr_put(nlh, RTA_DST, ip_len(to->family), to->ip);
	if (to->scope)
		mnl_attr_put_u32(nlh, RTA_OIF, to->scope);
	err = ask(nl, nlh, on_route_to, ret_facts);
	if (err == -EHOSTUNREACH)
		return -ENETUNREACH;
	if (err)
		return err;
	/* IPv6 answers with a route that leads nowhere instead of an error. */
	if (ret_facts->type != RTN_UNICAST && ret_facts->type != RTN_LOCAL &&
	    ret_facts->type != RTN_ANYCAST)
		return -ENETUNREACH;
	return 0;
}

int sm_netlink_route_mtu(struct sm_netlink *nl, const struct sm_addr *to,
			 struct sm_addr *ret_source)
{
	struct route_facts route, configured;
	int mtu, err;

	if (to->family != 4 && to->family != 6)
		return -EAFNOSUPPORT;
	err = get_route(nl, to, 0, &route);
	if (err)
		return err;
	/* an ICMP message, which anybody can forge, may have put a smaller one beside the route's own */
	if (route.mtu && !get_route(nl, to, RTM_F_FIB_MATCH, &configured))
		route.mtu = configured.mtu;
	mtu = sm_netlink_link_mtu(nl, (int)route.oif);
	if (mtu < 0)
		return mtu;
	if (ret_source)
		*ret_source = route.source;
	return route.mtu ? (int)SM_MIN(route.mtu, (uint32_t)mtu) : mtu;
}

int sm_netlink_monitor(void)
{
	struct sockaddr_nl sa = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			     RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
	};
	int err, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static bool is_relevant(const struct nlmsghdr *nlh, int own)
{
	struct ifinfomsg link;
	struct rtmsg route;

	switch (nlh->nlmsg_type) {
	case RTM_NEWLINK:
		if (mnl_nlmsg_get_payload_len(nlh) < sizeof(link))
			return false;
		memcpy(&link, mnl_nlmsg_get_payload(nlh), sizeof(link));
		return own == 0 || link.ifi_index != own;
	case RTM_DELLINK:
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return true;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		if (mnl_nlmsg_get_payload_len(nlh) < sizeof(route))
			return false;
		memcpy(&route, mnl_nlmsg_get_payload(nlh), sizeof(route));
		/* Not the cache, and not the local table: addresses tell of those. */
		return !(route.rtm_flags & RTM_F_CLONED) && route.rtm_table != RT_TABLE_LOCAL;
	default:
		return false;
	}
}

static bool any_relevant(const void *messages, int len, int own)
{
	for (const struct nlmsghdr *nlh = messages; mnl_nlmsg_ok(nlh, len);
	     nlh = mnl_nlmsg_next(nlh, &len)) {
		if (is_relevant(nlh, own))
			return true;
	}
	return false;
}

int sm_netlink_monitor_drain(int fd, int own)
{
	_Alignas(struct nlmsghdr) uint8_t buf[ANSWER_LEN];
	int changed = 0;

	for (int i = 0; i < DRAIN_MAX; i++) {
		struct sockaddr_nl from = {0};
		socklen_t from_len = sizeof(from);
		ssize_t len = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from,
				       &from_len);

		if (len < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return changed;
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0 && errno != ENOBUFS)
			return -errno;
		/* Overrun: something was missed, so look. Only the kernel is believed. */
		if (len < 0 || (from.nl_pid == 0 && any_relevant(buf, (int)len, own)))
			changed = 1;
	}
	return changed;
}

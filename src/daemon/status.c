// SPDX-License-Identifier: MIT
/*
 * What `status` and `peers` show, as JSON. Names are those of docs/PROTOCOL.md's glossary.
 */
#include "daemon/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static json_t *integer(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *hex(const void *data, size_t len)
{
	char text[2 * 64 + 1];

	return json_string(sm_text_hex(data, SM_MIN(len, (size_t)64), text));
}

static json_t *fingerprint(const uint8_t *fp)
{
	char text[SM_FINGERPRINT_STRLEN];

	return json_string(sm_ident_format_fingerprint(fp, text));
}

static json_t *mac_json(const struct sm_mac *mac)
{
	char text[SM_MAC_STRLEN];

	return json_string(sm_mac_format(mac, text));
}

static json_t *address(const struct sm_addr *addr)
{
	char text[SM_ADDR_STRLEN];

	return addr->family ? json_string(sm_addr_format(addr, text)) : json_null();
}

static json_t *prefixes(const struct sm_prefix *list, uint32_t count)
{
	json_t *array = json_array();
	char text[SM_ADDR_STRLEN];

	for (uint32_t i = 0; i < count; i++)
		json_array_append_new(array, json_string(sm_prefix_format(&list[i], text)));
	return array;
}

static json_t *own_node(const struct sm_daemon *d)
{
	const struct sm_identity *self = &d->credentials.self;
	json_t *cert = json_object();

	json_object_set_new(cert, "fingerprint", fingerprint(self->fingerprint));
	if (self->not_after != INT64_MAX) {
		json_object_set_new(cert, "not_after", json_integer(self->not_after));
		json_object_set_new(cert, "days_left",
				    json_integer((self->not_after - sm_clock_wall_s()) / SM_DAY_S));
	}
	return json_pack("{s:s, s:o, s:o, s:o, s:o}", "name", self->name, "id",
			 hex(self->node_id, SM_NODE_ID_LEN), "mac", mac_json(&d->mac), "addresses",
			 prefixes(d->addresses, d->address_count), "certificate", cert);
}

static json_t *transport(const struct sm_daemon *d)
{
	json_t *listen = json_array();

	for (uint32_t i = 0; i < d->listening_count; i++)
		json_array_append_new(listen, address(&d->listening[i]));
	return json_pack("{s:i, s:i, s:i, s:o, s:b}", "control_port", d->control_port, "data_port",
			 d->data_port, "workers", (int)d->workers, "listen", listen,
			 "cipher_hardware", sm_crypto_has_aes());
}

static json_t *selftest(const struct sm_daemon *d)
{
	static const char *const keys[] = {
		[SM_SELFTEST_TSO] = "tcp",
		[SM_SELFTEST_USO] = "udp",
		[SM_SELFTEST_UDP_SEGMENT] = "batches_sent",
		[SM_SELFTEST_UDP_GRO] = "batches_received",
	};
	const struct sm_selftest_result *r = &d->tested;
	const char *state = !d->config->transport.offload ? "not wanted"
			    : !d->selftest_done           ? "running"
			    : !r->ran                     ? "not run"
							  : "done";
	json_t *o = json_pack("{s:s, s:s}", "state", state, "reason", r->why_not);

	static_assert(SM_ARRAY_SIZE(keys) == SM_SELFTEST_ITEM_COUNT, "every item has a key");
	if (!r->ran)
		return o;
	json_object_set_new(o, "took_us", integer(r->took_us));
	for (int i = 0; i < SM_SELFTEST_ITEM_COUNT; i++)
		json_object_set_new(o, keys[i],
				    json_string(r->item[i].works ? "works" : r->item[i].reason));
	return o;
}

/* Why not all of it is on; "" if it is */
static const char *offload_reason(const struct sm_daemon *d, int fault)
{
	if (!d->config->transport.offload)
		return "switched off in the configuration";
	if (!d->selftest_done)
		return "the self-test is under way";
	for (int i = 0; d->tested.ran && i < SM_SELFTEST_ITEM_COUNT; i++)
		if (!d->tested.item[i].works)
			return d->tested.item[i].reason;
	if (sm_plane_gro_is_off(d->plane))
		return "datagrams that came in batches were damaged";
	return fault ? strerror(fault) : "";
}

/* What goes whole, and why something does not */
static json_t *offload(const struct sm_daemon *d)
{
	const int fault = sm_plane_write_fault(d->plane);

	return json_pack("{s:b, s:b, s:b, s:b, s:s, s:o}", "tcp", d->tap_tso && !fault, "udp",
			 d->tap_uso && !fault, "batches",
			 sm_offload_works(d, SM_SELFTEST_UDP_SEGMENT), "batches_received",
			 sm_offload_works(d, SM_SELFTEST_UDP_GRO) && !sm_plane_gro_is_off(d->plane),
			 "reason", offload_reason(d, fault), "selftest", selftest(d));
}

static json_t *counters(const struct sm_daemon *d)
{
	struct sm_plane_counters c;
	json_t *o = json_object(), *drops = json_object();

	sm_plane_counters(d->plane, &c);
	json_object_set_new(o, "tap_read_frames", integer(c.tap_read_frames));
	json_object_set_new(o, "tap_read_bytes", integer(c.tap_read_bytes));
	json_object_set_new(o, "tap_write_frames", integer(c.tap_write_frames));
	json_object_set_new(o, "tap_write_bytes", integer(c.tap_write_bytes));
	json_object_set_new(o, "udp_send_packets", integer(c.udp_send_packets));
	json_object_set_new(o, "udp_send_bytes", integer(c.udp_send_bytes));
	json_object_set_new(o, "udp_receive_packets", integer(c.udp_receive_packets));
	json_object_set_new(o, "udp_receive_bytes", integer(c.udp_receive_bytes));
	json_object_set_new(o, "handed_over", integer(c.handed_over));
	json_object_set_new(o, "wakeups", integer(c.wakeups));
	json_object_set_new(o, "syscalls", integer(c.syscalls));
	json_object_set_new(o, "offload_faults", integer(c.offload_faults));
	for (int i = SM_DROP_NONE + 1; i < SM_DROP_COUNT; i++)
		json_object_set_new(drops, sm_drop_name((enum sm_drop)i), integer(c.drops[i]));
	json_object_set_new(o, "drops", drops);
	return o;
}

/* Those that are not zero, by name; @none is what SM_CLOSE_NONE means there */
static json_t *reasons(const uint64_t *counts, const char *none)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < SM_CLOSE_REASON_COUNT; i++)
		if (counts[i])
			json_object_set_new(o, i ? sm_close_reason_name(i) : none,
					    integer(counts[i]));
	return o;
}

static json_t *control(const struct sm_daemon *d)
{
	const struct sm_conn_counts *c = sm_conn_set_counts(d->conns);

	return json_pack("{s:o, s:o, s:o, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "accepted",
			 integer(c->accepted), "dialled", integer(c->dialled), "opened",
			 integer(c->opened), "unfinished", (int)c->unfinished, "dialling",
			 (int)c->dialling, "open", (int)c->open, "dial_failed",
			 integer(c->dial_failed), "refused", reasons(c->refused, "left"),
			 "dial_refused", reasons(c->dial_refused, "none"), "closed_by_us",
			 reasons(d->closed_by_us, "lost"), "closed_by_peer",
			 reasons(d->closed_by_peer, "lost"));
}

static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	char line[128] = "", *second = line;

	if (!f)
		return 0;
	if (fgets(line, sizeof(line), f))
		(void)strtoull(line, &second, 10); /* the size; what is resident follows */
	fclose(f);
	return strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static json_t *histogram(const struct sm_hist *h)
{
	return json_pack("{s:o, s:f, s:f, s:f}", "count",
			 integer(atomic_load_explicit(&h->count, memory_order_relaxed)),
			 "median_us", (double)sm_hist_quantile(h, 0.5) / 1000, "p99_us",
			 (double)sm_hist_quantile(h, 0.99) / 1000, "max_us",
			 (double)atomic_load_explicit(&h->max_ns, memory_order_relaxed) / 1000);
}

static json_t *profile_json(const struct sm_daemon *d)
{
	struct sm_stage_profile *stages = calloc(SM_STAGE_COUNT, sizeof(*stages));
	json_t *o = json_object();

	if (!stages)
		return o;
	sm_plane_profile(d->plane, stages);
	for (int i = 0; i < SM_STAGE_COUNT; i++)
		json_object_set_new(o, sm_stage_name((enum sm_stage)i),
				    json_pack("{s:o, s:o}", "frame",
					      histogram(&stages[i].per_frame), "batch",
					      histogram(&stages[i].per_batch)));
	free(stages);
	return o;
}

json_t *sm_status_daemon(const struct sm_daemon *d, bool profile)
{
	const struct sm_config_interface *i = &d->config->interface;
	const struct sm_peer *peer = NULL;
	struct sm_peer_info info;
	int total = 0, up = 0;
	json_t *o = json_object();

	while ((peer = sm_node_next_peer(d->node, peer))) {
		sm_peer_info(d->node, peer, &info);
		total++;
		up += info.state == SM_PEER_UP;
	}
	json_object_set_new(o, "network", json_string(d->config->network.name));
	json_object_set_new(o, "network_id",
			    hex(d->credentials.self.network_id, SM_NETWORK_ID_LEN));
	json_object_set_new(o, "mode",
			    json_string(d->config->network.mode == SM_MODE_TAP ? "tap" : "tun"));
	json_object_set_new(o, "version", json_string(SM_VERSION));
	json_object_set_new(o, "pid", json_integer(getpid()));
	json_object_set_new(o, "uptime_us", integer(sm_clock_now_us() - d->started_us));
	json_object_set_new(o, "node", own_node(d));
	json_object_set_new(o, "interface",
			    json_pack("{s:s, s:i, s:i, s:o, s:o}", "name", d->tun.name, "ifindex",
				      d->tun.ifindex, "mtu", (int)i->mtu, "mac", mac_json(&d->mac),
				      "addresses", prefixes(d->addresses, d->address_count)));
	json_object_set_new(o, "transport", transport(d));
	json_object_set_new(o, "peers", json_pack("{s:i, s:i}", "total", total, "up", up));
	json_object_set_new(o, "offload", offload(d));
	json_object_set_new(o, "counters", counters(d));
	json_object_set_new(o, "control", control(d));
	json_object_set_new(o, "memory_rss_bytes", integer(resident_bytes()));
	json_object_set_new(o, "crypto", json_string(sm_crypto_version()));
	if (profile)
		json_object_set_new(o, "profile", profile_json(d));
	return o;
}

/* -- peers -- */

static json_t *session_json(const struct sm_daemon *d, const struct sm_peer_info *info)
{
	const struct sm_handshake *h = &d->ports[info->port].handshake;
	const struct sm_session *s = info->session;
	json_t *o;

	if (!s)
		return json_null();
	o = json_object();
	json_object_set_new(o, "index", integer(s->config.index));
	json_object_set_new(o, "epoch", integer(s->epoch[SM_EPOCH_CURRENT]->number));
	json_object_set_new(o, "rekeys", integer(s->rekeys));
	json_object_set_new(o, "cipher",
			    json_string(s->config.cipher == SM_CIPHER_AES256GCM
						? "aes-256-gcm"
						: "chacha20-poly1305"));
	json_object_set_new(o, "role", json_string(s->config.client ? "client" : "server"));
	json_object_set_new(o, "age_us", integer(sm_clock_now_us() - s->created_us));
	if (h->known) {
		json_object_set_new(o, "group", json_string(h->group));
		json_object_set_new(o, "signature", json_string(h->signature));
		json_object_set_new(o, "handshake_us", integer(h->us));
		json_object_set_new(o, "handshake_work_us", integer(h->work_us));
		json_object_set_new(o, "handshake_bytes_in", integer(h->bytes_in));
		json_object_set_new(o, "handshake_bytes_out", integer(h->bytes_out));
	}
	return o;
}

static json_t *path_json(const struct sm_peer_info *info)
{
	const struct sm_path *p;

	if (!info->session)
		return json_null();
	p = &info->session->path;
	return json_pack("{s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:i, s:s, s:I, s:I, s:I}", "remote",
			 address(&p->remote), "local", address(&p->local), "observed",
			 address(&p->observed), "kind", "direct", "state",
			 sm_path_state_name(p->state), "rtt_us", (json_int_t)p->srtt_us,
			 "min_rtt_us", (json_int_t)p->min_rtt_us, "mtu", (int)info->path_mtu,
			 "mtu_state", sm_mtu_state_name(info->session->mtu.state), "black_holes",
			 (json_int_t)info->session->mtu.black_holes, "moves", (json_int_t)p->moves,
			 "last_received_us_ago", (json_int_t)(sm_clock_now_us() - p->last_rx_us));
}

const char *sm_status_batches(const struct sm_session *s)
{
	switch (s->batch.state) {
	case SM_BATCH_OFF:
		return "batches are off on this machine";
	case SM_BATCH_UNPROVEN:
		return "no batch was answered yet";
	case SM_BATCH_PROVEN:
		return "";
	case SM_BATCH_LOST:
		return "batches are lost on the way";
	case SM_BATCH_REFUSED:
		return strerror(-s->batch.err);
	case SM_BATCH_STATE_COUNT:
		break;
	}
	return "";
}

static json_t *peer_offload(const struct sm_daemon *d, const struct sm_peer_info *info)
{
	const struct sm_session *s = info->session;
	const int fault = sm_plane_offload_fault(d->plane, info->port);
	const bool wanted = d->config->transport.offload;
	const char *reason = !wanted                   ? "switched off in the configuration"
			     : !s                      ? "no session"
			     : !s->config.takes_chunks ? "the peer does not take super-frames"
			     : fault                   ? strerror(fault)
						       : sm_status_batches(s);

	return json_pack("{s:b, s:b, s:s, s:s}", "super_frames",
			 wanted && s && s->config.takes_chunks, "batches",
			 s && sm_batch_is_on(&s->batch) && !fault, "batches_state",
			 s ? sm_batch_state_name(s->batch.state) : "off", "reason", reason);
}

static json_t *peer_counters(const struct sm_daemon *d, const struct sm_peer_info *info)
{
	struct sm_port_counters c;
	json_t *o = json_object();

	sm_plane_port_counters(d->plane, info->port, &c);
	json_object_set_new(o, "tx_frames", integer(c.tx_frames));
	json_object_set_new(o, "tx_bytes", integer(c.tx_bytes));
	json_object_set_new(o, "rx_frames", integer(c.rx_frames));
	json_object_set_new(o, "rx_bytes", integer(c.rx_bytes));
	json_object_set_new(o, "lost", integer(info->totals.lost));
	json_object_set_new(o, "late", integer(info->totals.late));
	json_object_set_new(o, "duplicate", integer(info->totals.duplicate));
	json_object_set_new(o, "forged", integer(info->totals.forged));
	return o;
}

static json_t *certificate(const struct sm_identity *id)
{
	json_t *groups = json_array(), *roles = json_array();
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {{SM_ROLE_ISSUER, "issuer"},
		     {SM_ROLE_RENDEZVOUS, "rendezvous"},
		     {SM_ROLE_RELAY, "relay"}};

	for (uint32_t i = 0; i < id->group_count; i++)
		json_array_append_new(groups, json_string(id->groups[i]));
	for (size_t i = 0; i < SM_ARRAY_SIZE(names); i++)
		if (id->roles & names[i].bit)
			json_array_append_new(roles, json_string(names[i].name));
	return json_pack("{s:o, s:I, s:o, s:o, s:o}", "fingerprint", fingerprint(id->fingerprint),
			 "not_after", (json_int_t)id->not_after, "groups", groups, "roles", roles,
			 "prefixes", prefixes(id->prefixes, id->prefix_count));
}

static json_t *endpoints(const struct sm_daemon *d, const char *name)
{
	json_t *array = json_array();
	char text[SM_CONFIG_HOST_MAX + 16];

	for (uint32_t i = 0; i < d->config->peer_count; i++) {
		const struct sm_config_peer *p = &d->config->peers[i];

		for (uint32_t k = 0; !strcmp(p->name, name) && k < p->endpoints.count; k++) {
			const struct sm_config_endpoint *e = &p->endpoints.endpoint[k];

			snprintf(text, sizeof(text), e->addr.family == 6 ? "[%s]:%u" : "%s:%u",
				 e->host, e->port);
			json_array_append_new(array, json_string(text));
		}
	}
	return array;
}

static json_t *peer_json(const struct sm_daemon *d, const struct sm_peer *peer)
{
	struct sm_peer_info info;
	json_t *o = json_object();

	sm_peer_info(d->node, peer, &info);
	json_object_set_new(o, "name", json_string(info.name));
	json_object_set_new(o, "port", json_integer(info.port));
	json_object_set_new(o, "state", json_string(sm_peer_state_name(info.state)));
	json_object_set_new(o, "since_us_ago", integer(sm_clock_now_us() - info.since_us));
	json_object_set_new(o, "configured", json_boolean(info.configured));
	json_object_set_new(o, "tls", json_string(info.link_up ? "up" : "down"));
	json_object_set_new(o, "endpoints", endpoints(d, info.name));
	json_object_set_new(o, "attempts", integer(info.attempts));
	json_object_set_new(o, "last_error", json_string(info.last_error));
	json_object_set_new(o, "path", path_json(&info));
	json_object_set_new(o, "session", session_json(d, &info));
	json_object_set_new(o, "offload", peer_offload(d, &info));
	json_object_set_new(o, "counters", peer_counters(d, &info));
	if (info.identity) {
		json_object_set_new(o, "id", hex(info.identity->node_id, SM_NODE_ID_LEN));
		json_object_set_new(o, "mac", mac_json(&info.mac));
		json_object_set_new(o, "addresses",
				    prefixes(info.identity->addresses,
					     info.identity->address_count));
		json_object_set_new(o, "certificate", certificate(info.identity));
	}
	return o;
}

json_t *sm_status_peers(const struct sm_daemon *d)
{
	const struct sm_peer *peer = NULL;
	json_t *array = json_array();

	while ((peer = sm_node_next_peer(d->node, peer)))
		json_array_append_new(array, peer_json(d, peer));
	return json_pack("{s:o}", "peers", array);
}

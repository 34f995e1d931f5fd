// SPDX-License-Identifier: MIT
/*
 * What the profiling of the workers costs: a frame's way through a worker with it and without it. JSON on
 * stdout, a table on stderr.
 *
 *   here --TAP (socket pair)--> worker a --UDP on 127.0.0.1--> worker b --TAP--> here
 *
 * The workers' own turns run in this thread, one batch at a time, with profiling on and off by turns. Off
 * means that neither the stage is counted nor the clock read: the linker puts this file's functions in
 * place of both (--wrap), the program that is shipped has no such switch. A socket pair costs less than a
 * real TAP, so the share told is more than the real one.
 */
#include "base/clock.h"
#include "crypto/crypto.h"
#include "crypto/schedule.h"
#include "plane/worker.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAMPLES   2001u
#define FRAME_MAX 1522u
#define BUFFER    (4 << 20)
#define INDEX     0x77000001u
#define MAC       UINT64_C(0x020000000000)

static bool profiling = true;
static uint64_t stages; /* counted so far */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
uint64_t __real_sm_clock_now_ns(void);
uint64_t __wrap_sm_clock_now_ns(void);
void __real_sm_worker_stage(struct sm_worker *w, enum sm_stage stage, uint32_t n);
void __wrap_sm_worker_stage(struct sm_worker *w, enum sm_stage stage, uint32_t n);

uint64_t __wrap_sm_clock_now_ns(void)
{
	return profiling ? __real_sm_clock_now_ns() : 0;
}

void __wrap_sm_worker_stage(struct sm_worker *w, enum sm_stage stage, uint32_t n)
{
	if (!profiling)
		return;
	stages++;
	__real_sm_worker_stage(w, stage, n);
}

static uint64_t clock_ns(void)
{
	return __real_sm_clock_now_ns();
}
/* NOLINTEND(bugprone-reserved-identifier) */

/** struct end - One machine: its worker, our end of its TAP, its snapshot */
struct end {
	struct sm_plane *plane;
	struct sm_worker *worker;
	int tap, queue, udp;
	struct sm_addr addr;
	struct sm_epoch *epoch;
	struct sm_session_view view;
	struct sm_snapshot snapshot;
	const struct sm_session_view *sessions[2], *send[2];
	sm_port_t members[1];
};

static void die(const char *what)
{
	(void)fprintf(stderr, "bench_profile: %s\n", what);
	exit(1);
}

static void check(int r, const char *what)
{
	if (r < 0)
		die(what);
}

static void on_wake(void *arg)
{
	(void)arg;
}

static void on_retire(void *arg, struct sm_snapshot *s)
{
	(void)arg;
	(void)s;
}

static void on_event(void *arg, const struct sm_plane_event *event)
{
	(void)arg;
	(void)event;
}

static void open_end(struct end *e, bool client)
{
	const struct sm_epoch_secret secret = {{7}};
	struct sm_plane_config config = {.workers = 1,
					 .mode = SM_MODE_TAP,
					 .tap_fd = &e->queue,
					 .udp_fd = &e->udp,
					 .frame_max = FRAME_MAX,
					 .wake = on_wake};
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool mapped;
	int pair[2];

	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), "TAP");
	for (int i = 0; i < 2; i++)
		check(setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &(int){BUFFER}, sizeof(int)),
		      "buffer");
	e->tap = pair[0];
	e->queue = pair[1];
	check(sm_addr_parse("127.0.0.1", 0, &e->addr), "address");
	e->udp = sm_udp_open(&e->addr, 0, false, BUFFER, &mapped);
	check(e->udp, "UDP");
	check(getsockname(e->udp, (struct sockaddr *)&sa, &len), "UDP");
	check(sm_addr_from_sockaddr((struct sockaddr *)&sa, &e->addr), "UDP");
	check(sm_plane_new(&config, &e->plane), "plane");
	sm_plane_on_retire(e->plane, on_retire, NULL);
	e->worker = &e->plane->workers[0];
	check(sm_epoch_new(&secret, SM_CIPHER_AES256GCM, client, 0, INDEX,
			   &(struct sm_lane_plan){2, 2, false}, &e->epoch),
	      "epoch");
}

/* Port 1 is the other end; MACs are MAC for a, MAC + 1 for b. */
static void publish(struct end *e, const struct end *other, uint32_t own)
{
	struct sm_snapshot *s = &e->snapshot;

	e->view = (struct sm_session_view){.index = INDEX,
					   .port = 1,
					   .takes_parts = true,
					   .tx = e->epoch,
					   .rx = {e->epoch},
					   .remote = other->addr,
					   .path_mtu = 65535};
	e->sessions[1] = e->send[1] = &e->view;
	e->members[0] = 1;
	*s = (struct sm_snapshot){.mode = SM_MODE_TAP,
				  .generation = 1,
				  .port_count = 2,
				  .session_count = 2,
				  .member_count = 1,
				  .sessions = e->sessions,
				  .send = e->send,
				  .members = e->members};
	sm_map64_init(&s->owned_macs, 1);
	check(sm_map64_insert(&s->owned_macs, MAC + own, 0), "MAC");
	check(sm_map64_insert(&s->owned_macs, MAC + 1 - own, 1), "MAC");
	check(sm_mactable_new(64, 2, 1, &s->learned), "MAC table");
	sm_snapshot_sort_routes(s);
	sm_plane_publish(e->plane, s);
}

static void close_end(struct end *e)
{
	sm_plane_free(e->plane);
	sm_map64_done(&e->snapshot.owned_macs);
	sm_mactable_free(e->snapshot.learned);
	sm_epoch_free(e->epoch);
	close(e->tap);
	close(e->queue);
	close(e->udp);
}

struct took {
	double out_ns, in_ns; /* a frame: TAP to UDP, UDP to TAP */
};

/* One batch all the way; what is put in and taken out here is not timed. */
static struct took carry(struct end *a, struct end *b, uint32_t frames, uint32_t len)
{
	static uint8_t buf[SM_VNET_HDR_LEN + FRAME_MAX];
	uint8_t *frame = buf + SM_VNET_HDR_LEN;
	uint64_t begin_ns, middle_ns, end_ns;

	memset(buf, 0, SM_VNET_HDR_LEN);
	for (unsigned i = 0; i < SM_MAC_LEN; i++) {
		frame[i] = (uint8_t)((MAC + 1) >> 8 * (5 - i));
		frame[SM_MAC_LEN + i] = (uint8_t)(MAC >> 8 * (5 - i));
	}
	frame[12] = 0x88; /* local experiment */
	frame[13] = 0xb5;
	for (uint32_t i = 0; i < frames; i++)
		check((int)send(a->tap, buf, SM_VNET_HDR_LEN + len, 0), "TAP full");
	a->worker->now_us = b->worker->now_us = sm_clock_now_us();
	a->worker->tap_more = b->worker->udp_more = true;

	begin_ns = clock_ns();
	sm_egress_turn(a->worker, true);
	middle_ns = clock_ns();
	sm_ingress_turn(b->worker, true);
	end_ns = clock_ns();

	for (uint32_t i = 0; i < frames; i++) {
		if (recv(b->tap, buf, sizeof(buf), 0) != (ssize_t)(SM_VNET_HDR_LEN + len))
			die("a frame did not come through");
	}
	(void)sm_plane_poll(a->plane, on_event, NULL);
	(void)sm_plane_poll(b->plane, on_event, NULL);
	return (struct took){.out_ns = (double)(middle_ns - begin_ns) / frames,
			     .in_ns = (double)(end_ns - middle_ns) / frames};
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, SAMPLES, sizeof(*values), compare_double);
	return values[SAMPLES / 2];
}

static void tell(json_t *results, const char *way, uint32_t frames, uint32_t len, double with,
		 double without)
{
	char name[48];

	(void)snprintf(name, sizeof(name), "%s_%ux%u", way, frames, len);
	(void)fprintf(stderr, "%-28s %10.1f %10.1f %10.1f %9.2f%%\n", name, without, with,
		      with - without, 100 * (with - without) / without);
	if (json_array_append_new(results,
				  json_pack("{s:s, s:i, s:i, s:f, s:f}", "name", name, "batch",
					    (int)frames, "bytes", (int)len, "without_ns_per_frame",
					    without, "with_ns_per_frame", with)) < 0)
		die("memory");
}

static void measure(struct end *a, struct end *b, uint32_t frames, uint32_t len, json_t *results)
{
	static double out[2][SAMPLES], in[2][SAMPLES];
	uint64_t counted = stages;

	for (uint32_t i = 0; i < 2 * SAMPLES; i++) {
		/* 0 1 1 0 0 1 ...: neither always follows the other */
		const unsigned on = ((i + 1) >> 1) & 1;
		struct took took;

		profiling = on;
		took = carry(a, b, frames, len);
		out[on][i / 2] = took.out_ns;
		in[on][i / 2] = took.in_ns;
	}
	profiling = true;
	/* TAP read, seal, UDP send; UDP receive, open, TAP write; of half of the batches */
	if (stages - counted != (uint64_t)SM_STAGE_COUNT * SAMPLES)
		die("profiling was not on for every other batch: linked without --wrap?");
	tell(results, "tap_to_udp", frames, len, median(out[1]), median(out[0]));
	tell(results, "udp_to_tap", frames, len, median(in[1]), median(in[0]));
}

int main(void)
{
	static struct end a, b;
	json_t *out = json_object(), *results = json_array();

	if (!out || !results)
		die("memory");
	check(sm_crypto_init(), "crypto");
	open_end(&a, true);
	open_end(&b, false);
	publish(&a, &b, 0);
	publish(&b, &a, 1);
	(void)fprintf(stderr, "%-28s %10s %10s %10s %10s\n", "ns per frame, profiling", "off", "on",
		      "added", "");
	measure(&a, &b, SM_BATCH_MAX, 1400, results);
	measure(&a, &b, SM_BATCH_MAX, 64, results);
	measure(&a, &b, 1, 1400, results);
	measure(&a, &b, 1, 64, results);
	if (json_object_set_new(out, "bench", json_string("profile")) < 0 ||
	    json_object_set_new(out, "results", results) < 0 ||
	    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0)
		die("output");
	(void)puts("");
	json_decref(out);
	close_end(&a);
	close_end(&b);
	return 0;
}

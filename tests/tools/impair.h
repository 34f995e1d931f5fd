// SPDX-License-Identifier: MIT
/*
 * Impairment tool: a bad wire between two network namespaces, for kernels without netem.
 *
 * Theory of operation. Each end of the wire is a TAP made in its own namespace, without any
 * offload: so the kernel itself cuts super-packets, completes checksums and leaves VLAN tags in
 * place before a frame is read, and verifies checksums of what is written, as with a plain NIC.
 * Between the two TAPs stand two lines, one per direction:
 *
 *   read TAP -> loss, burst loss, duplication, corruption -> rate queue -> delay line -> write TAP
 *                                                            (tail drop)   (jitter, reordering)
 *
 * A line (impair_line.c) makes no system call: frames and the time come in, frames go out through
 * a callback. Every random decision about frame n of a direction depends on seed, direction, n and
 * the settings only, never on the time, so a seed replays the same decisions.
 */
#ifndef IMPAIR_H
#define IMPAIR_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define IMPAIR_MUST_CHECK __attribute__((warn_unused_result))

#define IMPAIR_NS_PER_S    1000000000ull
#define IMPAIR_NEVER       UINT64_MAX
#define IMPAIR_FRAME_MAX   65600u /* bytes; a TAP's largest MTU, its header and two tags */
#define IMPAIR_HELD_MAX    64u    /* frames held back for reordering at once, per direction */
#define IMPAIR_ERR_LEN     256u   /* bytes of an error text */
#define IMPAIR_CLIENTS_MAX 8u     /* control connections at once */
#define IMPAIR_LINE_LEN    512u   /* bytes of a control line */

enum impair_dir { IMPAIR_A2B, IMPAIR_B2A, IMPAIR_DIR_COUNT };

/* What a line does to frames. All zero is a perfect wire. */
struct impair_conf {
	uint64_t delay_ns;
	uint64_t jitter_ns; /* uniform, plus or minus */
	uint64_t jitter_reorders;
	double loss;
	double burst_enter;     /* good to bad, per frame */
	double burst_leave;     /* bad to good, per frame */
	double burst_loss_bad;  /* loss while bad */
	double burst_loss_good; /* loss while good */
	double duplicate;
	double corrupt;
	uint64_t corrupt_bits;
	double reorder;
	uint64_t reorder_gap; /* frames that overtake; 0: by time alone */
	uint64_t reorder_delay_ns;
	uint64_t rate_bps; /* 0: unlimited */
	uint64_t bucket_bytes;
	uint64_t queue_frames; /* 0: not limited by frames */
	uint64_t queue_bytes;  /* 0: not limited by bytes */
};

struct impair_stats {
	uint64_t in_frames, in_bytes;
	uint64_t out_frames, out_bytes;
	uint64_t lost;           /* random loss */
	uint64_t lost_burst;     /* loss by the two-state model */
	uint64_t bursts;         /* times the bad state was entered */
	uint64_t dropped_queue;  /* tail drop */
	uint64_t dropped_memory; /* memory limit */
	uint64_t dropped_down;   /* while switched off, and in flight at that moment */
	uint64_t dropped_write;  /* the receiving kernel refused: interface down */
	uint64_t duplicated, corrupted;
	uint64_t reordered; /* overtaken by at least one frame */
};

struct impair_frame;

typedef int (*impair_emit_fn)(void *ctx, const uint8_t *data, size_t len);

struct impair_line {
	struct impair_conf conf;
	struct impair_stats stats;
	bool down;
	impair_emit_fn emit;
	void *emit_ctx;

	uint64_t key; /* of the random sequence */
	uint64_t frame_no;
	bool bad; /* state of the burst model */

	struct impair_frame *fifo_head, **fifo_tail;
	uint64_t fifo_frames, fifo_bytes;
	uint64_t bucket_ns; /* when the last frame's bits were paid for */

	struct impair_frame **heap;
	size_t heap_len, heap_cap;
	uint64_t seq;
	uint64_t last_due_ns;

	struct impair_frame *held[IMPAIR_HELD_MAX];
	size_t held_len;

	uint64_t memory, memory_max; /* bytes */
};

/**
 * impair_line_init() - A line without impairments
 * @line:       to set up
 * @seed:       of the whole run
 * @dir:        gives each direction a sequence of its own
 * @memory_max: bytes that queued frames may take, with their bookkeeping
 * @emit:       gets every frame that arrives, 0 or -errno
 * @ctx:        passed to @emit
 */
void impair_line_init(struct impair_line *line, uint64_t seed, enum impair_dir dir,
		      uint64_t memory_max, impair_emit_fn emit, void *ctx);

/** impair_line_done() - Free what is still in flight */
void impair_line_done(struct impair_line *line);

/**
 * impair_line_push() - One frame enters the line
 * @data:   Ethernet frame without FCS, copied if it has to wait
 * @len:    bytes, at most IMPAIR_FRAME_MAX
 * @now_ns: CLOCK_MONOTONIC
 */
void impair_line_push(struct impair_line *line, const uint8_t *data, size_t len, uint64_t now_ns);

/** impair_line_run() - Let out every frame whose time has come */
void impair_line_run(struct impair_line *line, uint64_t now_ns);

/** impair_line_next() - When impair_line_run() has work next, or IMPAIR_NEVER */
uint64_t impair_line_next(const struct impair_line *line);

/** impair_line_switch() - Cut the line, losing what is in flight, or mend it */
void impair_line_switch(struct impair_line *line, bool down);

/** impair_conf_init() - A perfect wire and the defaults of dependent settings */
void impair_conf_init(struct impair_conf *conf);

/**
 * impair_conf_set() - Parse one setting
 * @conf: changed only on success
 * @key:  name as in --help, e.g. "delay"
 * @val:  e.g. "10ms"
 * @err:  IMPAIR_ERR_LEN bytes; on failure a text with cause and cure
 *
 * Return: 0, or -EINVAL
 */
IMPAIR_MUST_CHECK int impair_conf_set(struct impair_conf *conf, const char *key, const char *val,
				      char *err);

/**
 * impair_conf_check() - Refuse settings that contradict each other
 *
 * Return: 0, or -EINVAL with a text in @err
 */
IMPAIR_MUST_CHECK int impair_conf_check(const struct impair_conf *conf, char *err);

/** impair_conf_key() - Name of the setting at @i, or NULL behind the last */
const char *impair_conf_key(size_t i);

/** impair_conf_print() - Settings that are not at their default, as one line that `set` reads */
void impair_conf_print(const struct impair_conf *conf, FILE *out);

/** impair_parse_bytes() - "256KB", "1MiB", "1500" to bytes; 0 or -EINVAL with a text in @err */
IMPAIR_MUST_CHECK int impair_parse_bytes(const char *val, uint64_t *ret_bytes, char *err);

/** impair_parse_uint() - Decimal or 0x-hexadecimal up to @max; 0 or -EINVAL with a text in @err */
IMPAIR_MUST_CHECK int impair_parse_uint(const char *val, uint64_t max, uint64_t *ret_n, char *err);

/* One end of the wire: a TAP in a namespace. */
struct impair_port {
	char name[IFNAMSIZ];
	const char *netns; /* name, path, or NULL for the current one */
	int fd;
	int dev_fd; /* that namespace's /proc/net/dev */
};

/**
 * impair_port_open() - Make the TAP in its namespace, set MTU and queue, bring it up
 * @port:       name and netns are set by the caller
 * @mtu:        bytes, 68 to 65521
 * @txqueuelen: frames the kernel keeps for us to read
 * @err:        IMPAIR_ERR_LEN bytes
 *
 * Return: 0, or -errno with a text in @err
 */
IMPAIR_MUST_CHECK int impair_port_open(struct impair_port *port, int mtu, int txqueuelen,
				       char *err);

/** impair_port_close() - The TAP vanishes with its descriptor */
void impair_port_close(struct impair_port *port);

/** impair_port_carrier() - Plug or unplug the cable, visible to the kernel; 0 or -errno */
IMPAIR_MUST_CHECK int impair_port_carrier(struct impair_port *port, bool on);

/** impair_port_missed() - Frames the kernel dropped before we read them, or 0 when unknown */
uint64_t impair_port_missed(const struct impair_port *port);

/* The whole tool. */
struct impair {
	struct impair_line lines[IMPAIR_DIR_COUNT]; /* from port[dir] to port[!dir] */
	struct impair_port ports[IMPAIR_DIR_COUNT];
	uint64_t seed;
	bool json;
	bool stop;
};

/** impair_stats_print() - Counters and settings, as one JSON line or for people */
void impair_stats_print(const struct impair *imp, bool json, FILE *out);

/**
 * impair_command() - Run one control line
 * @line: modified by parsing
 * @out:  gets the answer; its last line is "ok" or "error: ..."
 */
void impair_command(struct impair *imp, char *line, FILE *out);

/**
 * impair_set_words() - Apply "KEY VALUE KEY VALUE ..." to one or both directions
 * @mask: bit per direction
 * @text: modified by parsing
 *
 * All of it or nothing.
 *
 * Return: 0, or -EINVAL with a text in @err
 */
IMPAIR_MUST_CHECK int impair_set_words(struct impair *imp, unsigned int mask, char *text,
				       char *err);

struct impair_client {
	int in_fd, out_fd;
	size_t len;
	char buf[IMPAIR_LINE_LEN];
};

struct impair_ctl {
	int listen_fd;
	const char *path;
	struct impair_client clients[IMPAIR_CLIENTS_MAX];
	size_t n;
};

/**
 * impair_ctl_open() - Listen for control lines
 * @where: path of a UNIX socket, "-" for standard input, NULL for neither
 *
 * Return: 0, or -errno with a text in @err
 */
IMPAIR_MUST_CHECK int impair_ctl_open(struct impair_ctl *ctl, const char *where, char *err);

/** impair_ctl_close() - Close connections and remove the socket */
void impair_ctl_close(struct impair_ctl *ctl);

/** impair_ctl_accept() - Take waiting connections; one too many is told so and closed */
void impair_ctl_accept(struct impair_ctl *ctl);

/** impair_ctl_read() - Read and run what client @i sent; true when the client is gone */
bool impair_ctl_read(struct impair_ctl *ctl, size_t i, struct impair *imp);

/** impair_help() - The manual */
void impair_help(FILE *out);

#endif

// SPDX-License-Identifier: MIT
/*
 * The control socket's server: a UNIX stream socket that speaks JSON lines.
 *
 * Theory of operation: a client writes one object a line, {"command": "...", ...}, and gets answer lines
 * {"ok": true, "result": {...}} or {"ok": false, "error": "a sentence", "code": "not-found"}. Requests of
 * one client are served one after another; the next is looked at when the last line of the one before
 * has left. Who may ask: uid 0, the daemon's own uid, members of the configured group, as the kernel
 * says (SO_PEERCRED, SO_PEERGROUPS). A client has one request buffer of SM_CTL_REQUEST_MAX bytes; one that
 * lets more than SM_CTL_BACKLOG_MAX bytes of a stream pile up, or takes nothing for SM_CTL_IDLE_US, is
 * dropped. Nothing is written to a client inside sm_ctl_reply(): lines leave from the loop.
 */
#ifndef SM_DAEMON_CTL_H
#define SM_DAEMON_CTL_H

#include "base/base.h"

#include <jansson.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <uv.h>

#define SM_CTL_CLIENTS_MAX 64u
#define SM_CTL_REQUEST_MAX 65536u  /* bytes of one line */
#define SM_CTL_BACKLOG_MAX 262144u /* bytes of unread answers before a stream's next line */
#define SM_CTL_IDLE_US     (30 * SM_SEC_US)
#define SM_CTL_ERROR_MAX   512u

struct sm_ctl;
struct sm_ctl_request;

/**
 * typedef sm_ctl_handler - Serve one request
 * @request: valid until its last reply, or until its client is gone
 * @command: what stands in "command"
 * @args:    the whole request object; borrowed, for the duration of the call
 *
 * Replies at once or later. If later, it must have called sm_ctl_on_gone() before it returns.
 */
typedef void (*sm_ctl_handler)(void *arg, struct sm_ctl_request *request, const char *command,
			       const json_t *args);

/**
 * sm_ctl_open() - Make the socket and serve it on @loop
 * @path:      made with mode 0660; its directory is made if it is missing, with mode 0755
 * @group:     owner group and who may connect besides root and us; (gid_t)-1: nobody else
 * @error:     SM_CTL_ERROR_MAX bytes; on failure a sentence
 *
 * A socket that a dead daemon left behind is replaced. A lock file beside it, @path with ".lock", tells
 * the dead from the living.
 * Return: 0; -EADDRINUSE a daemon answers there; -errno
 */
SM_MUST_CHECK int sm_ctl_open(uv_loop_t *loop, const char *path, gid_t group,
			      sm_ctl_handler handler, void *arg, struct sm_ctl **ret_ctl,
			      char *error);

/**
 * sm_ctl_close() - Remove the socket and let the clients go, after one attempt to give them what is due
 *
 * Pending requests end with their on_gone. May be called from the handler, after its last reply.
 * Ownership: @ctl is gone for the caller; its memory is freed by the loop's next turns. NULL is fine
 */
void sm_ctl_close(struct sm_ctl *ctl);

/**
 * sm_ctl_reply() - Send one answer line
 * @result: an object, stolen; NULL stands for an empty one, or for lack of memory
 * @last:   the request ends here, @request is not valid any more
 */
void sm_ctl_reply(struct sm_ctl_request *request, json_t *result, bool last);

/**
 * sm_ctl_fail() - End a request with an error
 * @code: for programs: "not-found", "bad-request", "failed", ...
 * @fmt:  a sentence for people, without a full stop
 */
void sm_ctl_fail(struct sm_ctl_request *request, const char *code, const char *fmt, ...)
	SM_PRINTF(3, 4);

/** sm_ctl_on_gone() - Have @gone called if the client leaves before the last reply; not after it */
void sm_ctl_on_gone(struct sm_ctl_request *request,
		    void (*gone)(void *arg, struct sm_ctl_request *request), void *arg);

/** sm_ctl_clients() - Return: clients that are connected */
uint32_t sm_ctl_clients(const struct sm_ctl *ctl);

/**
 * sm_ctl_parse() - Read one request line
 * @line: without the line feed
 * @error: SM_CTL_ERROR_MAX bytes
 *
 * Ownership: *@ret_args is the caller's; it is an object with a string "command"
 * Return: 0, -EINVAL
 */
SM_MUST_CHECK int sm_ctl_parse(const char *line, size_t len, json_t **ret_args, char *error);

/**
 * sm_ctl_adopt() - Serve a connected socket, as if it had been accepted
 *
 * Ownership: @fd is taken in every case
 * Return: 0; -EPERM refused; -EBUSY too many clients; -errno
 */
SM_MUST_CHECK int sm_ctl_adopt(struct sm_ctl *ctl, int fd);

/**
 * struct sm_ctl_tuning - What tests change
 * @credentials: says who is at the other end; like getsockopt(SO_PEERCRED)
 * @idle_us:     instead of SM_CTL_IDLE_US
 */
struct sm_ctl_tuning {
	int (*credentials)(int fd, struct ucred *ret_cred);
	uint64_t idle_us;
};
void sm_ctl_tune(struct sm_ctl *ctl, const struct sm_ctl_tuning *tuning);

#endif

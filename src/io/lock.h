// SPDX-License-Identifier: MIT
/*
 * Exclusive locks, so that no two daemons take the same port, device or network name; who holds what.
 */
#ifndef SM_IO_LOCK_H
#define SM_IO_LOCK_H

#include "base/addr.h"

#define SM_HOLDER_MAX 128

#define SM_RUNTIME_DIR "/run/shadowmesh"

/** sm_lock_runtime_dir() - Return: SHADOWMESH_RUNTIME_DIR from the environment, or SM_RUNTIME_DIR */
const char *sm_lock_runtime_dir(void);

/**
 * sm_lock_take() - Take the lock @name in the runtime directory, which is made if need be
 * @note: what to write into it for others to read ("network home, pid 12")
 * @ret_holder: on -EBUSY what the holder wrote; SM_HOLDER_MAX bytes, may be NULL
 *
 * The lock ends with the process, however it ends. Namespaces that share /run but not the network have
 * different locks: the network namespace's inode is part of the file's name.
 * Return: descriptor that holds it, or -EBUSY, -errno
 */
SM_MUST_CHECK int sm_lock_take(const char *name, const char *note, char *ret_holder);
void sm_lock_release(int fd);

/**
 * sm_lock_tun_holder() - Who has the TAP or TUN device @ifname of this network namespace open?
 * @ret_holder: "openvpn (pid 812)" or "another process"
 */
void sm_lock_tun_holder(const char *ifname, char ret_holder[SM_HOLDER_MAX]);

/**
 * sm_lock_port_holder() - Who has a port bound in this network namespace?
 * @udp: UDP, else TCP
 * @ret_holder: "nginx (pid 812)" or "another process"
 *
 * Context: looks through /proc for some seconds at most
 * Return: 0, -ENOENT nobody
 */
SM_MUST_CHECK int sm_lock_port_holder(bool udp, uint16_t port, char ret_holder[SM_HOLDER_MAX]);

#endif

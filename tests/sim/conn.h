// SPDX-License-Identifier: MIT
/*
 * The simulator's control connections: what a node's host does with TCP and TLS.
 */
#ifndef SM_SIM_CONN_H
#define SM_SIM_CONN_H

#include "world.h"

int sim_conn_dial(void *host, uint16_t port, const struct sm_addr *to);
int sim_conn_send(void *host, void *conn, const void *data, size_t len);
void sim_conn_close(void *host, void *conn);

/** sim_conn_node_gone() - A node ended; @resets: its kernel tells the others */
void sim_conn_node_gone(struct sim_world *w, uint32_t id, bool resets);
void sim_conn_free_all(struct sim_world *w);

#endif

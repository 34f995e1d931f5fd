// SPDX-License-Identifier: MIT
/*
 * A private network namespace for a test program, so that it may make devices and addresses.
 */
#ifndef SM_TESTS_UNIT_NETNS_H
#define SM_TESTS_UNIT_NETNS_H

/**
 * netns_enter() - Move this process into a network namespace of its own, loopback up
 *
 * Also makes an empty runtime directory, named in the environment; netns_leave() takes it away.
 * Ends the program with 77 ("skipped") where this user may not.
 */
void netns_enter(void);
void netns_leave(void);

/* netns_runtime_dir() - Return: the runtime directory that netns_enter() made */
const char *netns_runtime_dir(void);

#endif

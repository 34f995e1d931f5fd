// SPDX-License-Identifier: MIT
/*
 * An intrusive doubly linked list: the node lies in the element, the head is a node of its own.
 */
#ifndef SM_BASE_LIST_H
#define SM_BASE_LIST_H

#include "base/base.h"

/** struct sm_list - Head or node; a node that is in no list points to itself */
struct sm_list {
	struct sm_list *next, *prev;
};

static inline void sm_list_init(struct sm_list *node)
{
	node->next = node->prev = node;
}

static inline bool sm_list_empty(const struct sm_list *head)
{
	return head->next == head;
}

/** sm_list_add_tail() - Append @node, which is in no list */
static inline void sm_list_add_tail(struct sm_list *head, struct sm_list *node)
{
	node->next = head;
	node->prev = head->prev;
	head->prev->next = node;
	head->prev = node;
}

/** sm_list_del() - Take @node out; it may be one that is in no list, once initialised */
static inline void sm_list_del(struct sm_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	sm_list_init(node);
}

/** SM_LIST_ENTRY() - The element around @node */
#define SM_LIST_ENTRY(node, type, member) SM_CONTAINER_OF(node, type, member)

/**
 * sm_list_for_each_safe() - Visit all nodes; the visited one may be taken out or freed
 * @node, @after: struct sm_list pointers
 */
#define sm_list_for_each_safe(node, after, head)                              \
	for ((node) = (head)->next, (after) = (node)->next; (node) != (head); \
	     (node) = (after), (after) = (node)->next)

#endif

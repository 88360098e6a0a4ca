/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Doubly linked lists, and their RCU flavour. */
#ifndef SOFTSGX_LIST_H
#define SOFTSGX_LIST_H
#include "types.h"

struct list_head { struct list_head *next, *prev; };
#define LIST_HEAD_INIT(n) { &(n), &(n) }
#define LIST_HEAD(n) struct list_head n = LIST_HEAD_INIT(n)
/* What a removed entry points at: no canonical address, so that its use is a fault. */
#define K_POISON_NEXT ((struct list_head *)0xdead000000000100)
#define K_POISON_PREV ((struct list_head *)0xdead000000000122)

static inline void INIT_LIST_HEAD(struct list_head *h) { h->next = h->prev = h; }

static inline void k_list_link(struct list_head *a, struct list_head *n, struct list_head *b)
{
	n->prev = a;
	n->next = b;
	b->prev = n;
	WRITE_ONCE(a->next, n);
}

static inline void k_list_unlink(struct list_head *e)
{
	e->next->prev = e->prev;
	WRITE_ONCE(e->prev->next, e->next);
}

static inline void list_add(struct list_head *n, struct list_head *h) { k_list_link(h, n, h->next); }
static inline void list_add_tail(struct list_head *n, struct list_head *h) { k_list_link(h->prev, n, h); }

static inline void list_del(struct list_head *e)
{
	k_list_unlink(e);
	e->next = K_POISON_NEXT;
	e->prev = K_POISON_PREV;
}

static inline void list_del_init(struct list_head *e) { k_list_unlink(e); INIT_LIST_HEAD(e); }
static inline void list_move(struct list_head *e, struct list_head *h) { k_list_unlink(e); list_add(e, h); }
static inline void list_move_tail(struct list_head *e, struct list_head *h)
{
	k_list_unlink(e);
	list_add_tail(e, h);
}
static inline bool list_empty(const struct list_head *h) { return READ_ONCE(h->next) == h; }
static inline bool list_is_last(const struct list_head *e, const struct list_head *h) { return e->next == h; }

static inline void list_splice(struct list_head *l, struct list_head *h)
{
	struct list_head *first = l->next, *last = l->prev;

	if (first == l)
		return;
	last->next = h->next;
	h->next->prev = last;
	first->prev = h;
	h->next = first;
}

static inline void list_splice_init(struct list_head *l, struct list_head *h)
{
	list_splice(l, h);
	INIT_LIST_HEAD(l);
}

#define list_entry(p, t, m) container_of(p, t, m)
#define list_first_entry(h, t, m) list_entry((h)->next, t, m)
#define list_last_entry(h, t, m) list_entry((h)->prev, t, m)
#define list_first_entry_or_null(h, t, m) (list_empty(h) ? NULL : list_first_entry(h, t, m))
#define list_next_entry(p, m) list_entry((p)->m.next, __typeof__(*(p)), m)
#define list_for_each_entry(p, h, m) \
	for (p = list_first_entry(h, __typeof__(*p), m); &p->m != (h); p = list_next_entry(p, m))
#define list_for_each_entry_safe(p, n, h, m) \
	for (p = list_first_entry(h, __typeof__(*p), m), n = list_next_entry(p, m); &p->m != (h); \
	     p = n, n = list_next_entry(n, m))

/* A reader may hold a removed entry until its section ends, so its next pointer stays. */
static inline void list_add_rcu(struct list_head *n, struct list_head *h)
{
	n->next = h->next;
	n->prev = h;
	__atomic_store_n(&h->next, n, __ATOMIC_RELEASE);
	n->next->prev = n;
}

static inline void list_del_rcu(struct list_head *e)
{
	k_list_unlink(e);
	e->prev = K_POISON_PREV;
}

#define K_RCU_NEXT(e, t, m) list_entry(READ_ONCE((e)->next), t, m)
#define list_for_each_entry_rcu(p, h, m, ...) \
	for (p = K_RCU_NEXT(h, __typeof__(*p), m); &p->m != (h); p = K_RCU_NEXT(&p->m, __typeof__(*p), m))
#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Sparse arrays. */
#ifndef SOFTSGX_XARRAY_H
#define SOFTSGX_XARRAY_H
#include "lock.h"
#include "memory.h"

/* Entries in the order of their indices; `at` and `entry` have room for `room` of them. */
struct xarray { spinlock_t xa_lock; unsigned long used, room, *at; void **entry; };
#define DEFINE_XARRAY(x) struct xarray x = { .xa_lock = { NULL, #x } }
#define XA_CHECK_SCHED 4096
#define xa_init(x) k_xa_init(x, #x)
void k_xa_init(struct xarray *, const char *name);
void *xa_load(struct xarray *, unsigned long);
int xa_insert(struct xarray *, unsigned long, void *, gfp_t);
void *xa_store(struct xarray *, unsigned long, void *, gfp_t);
void *xa_store_range(struct xarray *, unsigned long first, unsigned long last, void *, gfp_t);
void *xa_erase(struct xarray *, unsigned long);
void xa_destroy(struct xarray *);
#define xa_empty(x) (!(x)->used)
#define xa_lock(x) spin_lock(&(x)->xa_lock)
#define xa_unlock(x) spin_unlock(&(x)->xa_lock)

struct xa_state { struct xarray *xa; unsigned long xa_index; };
#define XA_STATE(n, x, i) struct xa_state n = { (x), (i) }
void *k_xas_next(struct xa_state *, unsigned long max, bool first);
#define xas_for_each(s, e, max) \
	for (e = k_xas_next(s, max, true); e; e = k_xas_next(s, max, false))
/* The walk is by index, so it goes on behind the last entry whatever has changed meanwhile. */
#define xas_pause(s) ((void)(s))
#define xas_lock(s) xa_lock((s)->xa)
#define xas_unlock(s) xa_unlock((s)->xa)
#endif

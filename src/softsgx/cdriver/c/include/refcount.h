/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* References. A count that falls below zero or is taken at zero is a bug, as in the kernel. */
#ifndef SOFTSGX_REFCOUNT_H
#define SOFTSGX_REFCOUNT_H
#include "bits.h"
#include "print.h"

struct kref { refcount_t refcount; };

static inline void refcount_set(refcount_t *r, int n) { atomic_set(r, n); }
static inline unsigned int refcount_read(const refcount_t *r) { return K_LOAD(r); }
static inline void refcount_inc(refcount_t *r) { WARN_ON(K_LOAD(r) <= 0); atomic_inc(r); }
static inline bool refcount_inc_not_zero(refcount_t *r) { return K_LOAD(r) ? atomic_inc(r), true : false; }

static inline bool refcount_dec_and_test(refcount_t *r)
{
	WARN_ON(K_LOAD(r) <= 0);
	return __atomic_fetch_sub(&r->v, 1, __ATOMIC_ACQ_REL) == 1;
}

static inline void kref_init(struct kref *k) { refcount_set(&k->refcount, 1); }
static inline unsigned int kref_read(const struct kref *k) { return refcount_read(&k->refcount); }
static inline void kref_get(struct kref *k) { refcount_inc(&k->refcount); }
static inline int kref_get_unless_zero(struct kref *k) { return refcount_inc_not_zero(&k->refcount); }

static inline int kref_put(struct kref *k, void (*release)(struct kref *))
{
	if (!refcount_dec_and_test(&k->refcount))
		return 0;
	release(k);
	return 1;
}
#endif

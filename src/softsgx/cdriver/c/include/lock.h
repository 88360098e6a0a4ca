/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Locks. Mutexes and the mmap lock are those of the simulator; spinlocks wait there if they must. */
#ifndef SOFTSGX_LOCK_H
#define SOFTSGX_LOCK_H
#include "request.h"

struct mutex { void *owner; const char *name; };
#define DEFINE_MUTEX(n) struct mutex n = { NULL, #n }
#define mutex_init(m) k_mutex_init(m, #m)
void k_mutex_init(struct mutex *, const char *name);
void mutex_lock(struct mutex *);
int mutex_trylock(struct mutex *);
void mutex_unlock(struct mutex *);
#define mutex_lock_interruptible(m) (mutex_lock(m), 0)
#define mutex_is_locked(m) ((m)->owner != NULL)

struct spinlock { void *owner; const char *name; };
typedef struct spinlock spinlock_t;
#define DEFINE_SPINLOCK(n) spinlock_t n = { NULL, #n }
#define spin_lock_init(l) ((l)->owner = NULL, (l)->name = #l)
void spin_lock(spinlock_t *);
void spin_unlock(spinlock_t *);
void *k_me(void);
#define k_held(l) ((l)->owner == k_me())

struct rw_semaphore { int unused; };

struct srcu_struct { int unused; };
#define init_srcu_struct(s) k_init_srcu(s, #s)
int k_init_srcu(struct srcu_struct *, const char *name);
void cleanup_srcu_struct(struct srcu_struct *);
int srcu_read_lock(struct srcu_struct *);
void srcu_read_unlock(struct srcu_struct *, int);
void synchronize_srcu(struct srcu_struct *);

void preempt_disable(void);
void preempt_enable(void);
bool k_preemptible(void);
#define preemptible() k_preemptible()
#endif

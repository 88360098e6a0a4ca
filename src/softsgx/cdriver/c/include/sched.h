/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Tasks, kernel threads, wait queues. */
#ifndef SOFTSGX_SCHED_H
#define SOFTSGX_SCHED_H
#include "mm.h"

struct task_struct {
	struct mm_struct *mm;
	unsigned int personality;
	int stop;
	int (*function)(void *);
	void *argument;
	const char *name;
};
struct task_struct *k_current(void);
#define current k_current()
#define READ_IMPLIES_EXEC 0x0400000
#define SIGBUS 7
int signal_pending(struct task_struct *);
void force_sig(int);
#define need_resched() 0
/* No point: what follows does not depend on whether others ran. */
#define cond_resched() ((void)0)
unsigned long msleep_interruptible(unsigned int milliseconds);

struct task_struct *kthread_run(int (*)(void *), void *, const char *name, ...);
static inline bool kthread_should_stop(void) { return current->stop; }
int kthread_stop(struct task_struct *);
#define set_freezable() ((void)0)
#define try_to_freeze() false

struct wait_queue_head { const char *name; };
typedef struct wait_queue_head wait_queue_head_t;
#define DECLARE_WAIT_QUEUE_HEAD(n) struct wait_queue_head n = { #n }
#define init_waitqueue_head(q) ((q)->name = #q)
void wake_up(struct wait_queue_head *);
void k_wait(struct wait_queue_head *);
#define wake_up_all(q) wake_up(q)
#define wait_event_freezable(q, c) ({ while (!(c)) k_wait(&(q)); 0; })
#define wait_event_interruptible(q, c) wait_event_freezable(q, c)
#define wait_event(q, c) ((void)wait_event_freezable(q, c))

struct work_struct { int unused; };
#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Tasks of the driver: stacks of their own, and the requests they make. */
#ifndef SOFTSGX_RUNTIME_H
#define SOFTSGX_RUNTIME_H
#include "kernel.h"

#define K_TASKS 64
#define K_STACK_SIZE 0x5000	/* the lowest page is a guard; the rest is what a kernel thread has */
#define K_HEAP_SIZE 0x200000000UL
#define K_AREAS 4
#define K_MAPS 8

/* The first eleven words are read and written from outside. */
struct k_task {
	u64 sp;				/* while it is switched out */
	u64 operation;
	u64 argument[K_ARGUMENTS];
	u64 answer, second;
	u64 frame;			/* the frame pointer where it made its request */
	u64 who;			/* the thread, for notes */
	u64 live;			/* nobody gets in: spinlocks have no point */
	u64 (*function)(u64, u64, u64, u64, u64);
	u64 call[5];
	struct task_struct *thread, own;
	int preempt, mutexes, area, maps, called_with_area;
	struct vm_area_struct areas[K_AREAS];	/* views that look-ups return, and of the caller */
	struct page *map[K_MAPS];
} __aligned(64);	/* k_changed() compares lines */
extern struct k_task k_tasks[K_TASKS], *k_running;
extern u64 k_inject;

/* Accesses, and what orders them: whoever acquires an address comes after all that released it. */
enum k_note {
	K_READ, K_WRITE, K_READ_ONCE, K_WRITE_ONCE, K_ATOMIC,
	K_ACQUIRE, K_RELEASE, K_ALLOCATED, K_FREED,
};
struct k_noted { u64 pc, address; u32 size; u16 kind, who; };
#define K_NOTES_MAX 0x100000
struct k_notes { u64 on, count; struct k_noted note[]; };
void k_note(u64 pc, enum k_note, const volatile void *, u64 size);
void k_accessed(u64 pc, const volatile void *, u64 size, bool write);
#define k_acquire(a) k_note(0, K_ACQUIRE, a, 0)
#define k_release(a) k_note(0, K_RELEASE, a, 0)
/* A second address of an object, for what readers release. */
#define K_READERS(a) ((char *)(a) + 1)
void k_at_request(void);
void *k_new(size_t, size_t align, bool zero);
#endif

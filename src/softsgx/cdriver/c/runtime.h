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
	u64 (*function)(u64, u64, u64, u64, u64);
	u64 call[5];
	struct task_struct *thread, own;
	int preempt, mutexes, area, maps, called_with_area;
	struct vm_area_struct areas[K_AREAS];	/* views that look-ups return, and of the caller */
	struct page *map[K_MAPS];
};
extern struct k_task k_tasks[K_TASKS], *k_running;
extern u64 k_inject;
void *k_new(size_t, size_t align, bool zero);
#endif

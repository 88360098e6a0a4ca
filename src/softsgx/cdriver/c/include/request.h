/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The one door to the outside. Whatever others can see or take part in is a request: the task stores
 * the operation and its arguments and switches away; what serves it resumes the task with the answer.
 */
#ifndef SOFTSGX_REQUEST_H
#define SOFTSGX_REQUEST_H
#include "types.h"

/* The operations. The reader of this list in Python takes their numbers from their order. */
enum k_operation {
	K_NONE,
	/* how a task ends */
	K_RETURNED, K_CRASHED, K_BUG, K_HANG, K_UNMODELLED,
	/* messages */
	K_LOG, K_WARN,
	/* locks */
	K_MUTEX_INIT, K_MUTEX_LOCK, K_MUTEX_TRYLOCK, K_MUTEX_UNLOCK, K_SPIN_POINT, K_SPIN_WAIT,
	K_MMAP_READ_LOCK, K_MMAP_READ_UNLOCK, K_MMAP_WRITE_LOCK, K_MMAP_WRITE_UNLOCK, K_MMAP_WRITE_HELD,
	K_SRCU_INIT, K_SRCU_READ_LOCK, K_SRCU_READ_UNLOCK, K_SRCU_SYNCHRONIZE, K_SRCU_CLEANUP,
	K_PREEMPT_DISABLE, K_PREEMPT_ENABLE,
	/* plain accesses that race by design */
	K_BIT_POINT, K_XA_POINT, K_ACCESS_POINT,
	/* memory */
	K_FAIL, K_KMAP, K_KUNMAP, K_PAGE_FREE, K_COPY_FROM_USER, K_COPY_TO_USER, K_GET_USER_PAGE,
	/* address spaces */
	K_MMGET, K_FIND_VMA, K_VMA_LOOKUP, K_INSERT_PFN, K_ZAP_PTES, K_READ_PTE, K_SET_PTE, K_MM_CPUMASK,
	K_UNMAPPED_AREA, K_NOTIFIER_REGISTER, K_NOTIFIER_UNREGISTER, K_NOTIFIER_PUT,
	/* files */
	K_SHMEM_SETUP, K_SHMEM_GET, K_SHMEM_PUNCH, K_SHMEM_CLOSE, K_FGET, K_FPUT, K_MISC_REGISTER,
	K_MISC_DEREGISTER,
	/* tasks */
	K_SIGNAL_PENDING, K_FORCE_SIG, K_SLEEP, K_KTHREAD, K_WAKE_UP, K_WAIT,
	/* machine */
	K_IPI, K_CPUID, K_WRMSR, K_SHA256, K_ENCLS,
};
#define K_ARGUMENTS 6

/* Make a request; the answer. */
#define k_ask(op, ...) k_ask_(op, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define k_ask_(op, a, b, c, d, e, f, ...) \
	k_request(op, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))
long k_request(enum k_operation, u64, u64, u64, u64, u64, u64);
#endif

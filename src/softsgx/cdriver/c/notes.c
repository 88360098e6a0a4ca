/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the compiler has the driver tell: each access to memory that others can reach, with its size,
 * and each basic block. Both are kept outside of what a snapshot has. Beside the accesses are the
 * operations that order them; who reads the notes knows when two accesses are not ordered.
 */
#include "runtime.h"

u64 k_access_points;		/* whether each access is a point: others get in before it */

#define PC ((u64)__builtin_return_address(0))
extern char k_stacks[], k_text[], k_text_end[];
extern struct k_notes k_notes;
extern u32 k_counts[];

void k_note(u64 pc, enum k_note kind, const volatile void *a, u64 size)
{
	struct k_notes *n = &k_notes;

	if (!n->on || !k_running)
		return;
	if (n->count < K_NOTES_MAX)
		n->note[n->count] = (struct k_noted){ pc, (u64)a, (u32)size, (u16)kind, k_running->who };
	n->count++;
}

static void access(u64 pc, const volatile void *a, u64 size, enum k_note kind)
{
	/* A stack belongs to its task: what others reach there is handed to them and waited for. */
	if ((u64)a - (u64)k_stacks < K_TASKS * K_STACK_SIZE)
		return;
	if (k_access_points && k_running && !k_running->live)
		k_ask(K_ACCESS_POINT, a, kind != K_READ && kind != K_READ_ONCE);
	k_note(pc, kind, a, size);
}

void k_accessed(u64 pc, const volatile void *a, u64 size, bool write)
{
	access(pc, a, size, write ? K_WRITE : K_READ);
}

/* gcc -fsanitize=thread calls these. */
#define PLAIN(n) \
	void __tsan_read##n(void *a) { access(PC, a, n, K_READ); } \
	void __tsan_write##n(void *a) { access(PC, a, n, K_WRITE); } \
	void __tsan_volatile_read##n(void *a) { access(PC, a, n, K_READ_ONCE); } \
	void __tsan_volatile_write##n(void *a) { access(PC, a, n, K_WRITE_ONCE); }
#define UNALIGNED(n) \
	void __tsan_unaligned_read##n(void *a) { access(PC, a, n, K_READ); } \
	void __tsan_unaligned_write##n(void *a) { access(PC, a, n, K_WRITE); } \
	void __tsan_unaligned_volatile_read##n(void *a) { access(PC, a, n, K_READ_ONCE); } \
	void __tsan_unaligned_volatile_write##n(void *a) { access(PC, a, n, K_WRITE_ONCE); }
PLAIN(1) PLAIN(2) PLAIN(4) PLAIN(8) PLAIN(16)
UNALIGNED(2) UNALIGNED(4) UNALIGNED(8) UNALIGNED(16)
void __tsan_read_range(void *a, u64 n) { access(PC, a, n, K_READ); }
void __tsan_write_range(void *a, u64 n) { access(PC, a, n, K_WRITE); }
void __tsan_init(void) { }
void __tsan_func_entry(void *p) { (void)p; }
void __tsan_func_exit(void) { }
void __tsan_atomic_thread_fence(int order) { (void)order; }
void __tsan_atomic_signal_fence(int order) { (void)order; }

/*
 * An operation that changes memory orders what is before it and what is after it. It is told before it
 * is done, as a plain access is: where that is a point, others get in before both.
 */
#define CHANGE(bits, name, expression) \
	u##bits __tsan_atomic##bits##_##name(volatile u##bits *a, u##bits v, int order) \
	{ \
		u##bits old; \
		(void)order; \
		access(PC, a, bits / 8, K_ATOMIC); \
		old = *a; \
		*a = expression; \
		return old; \
	}
#define ATOMIC(bits) \
	u##bits __tsan_atomic##bits##_load(const volatile u##bits *a, int order) \
	{ \
		(void)order; \
		access(PC, a, bits / 8, K_READ_ONCE); \
		return *a; \
	} \
	void __tsan_atomic##bits##_store(volatile u##bits *a, u##bits v, int order) \
	{ \
		(void)order; \
		access(PC, a, bits / 8, K_WRITE_ONCE); \
		*a = v; \
	} \
	int __tsan_atomic##bits##_compare_exchange_strong(volatile u##bits *a, u##bits *e, u##bits v, \
							  int order, int failed) \
	{ \
		u##bits old; \
		(void)order; \
		(void)failed; \
		access(PC, a, bits / 8, K_ATOMIC); \
		old = *a; \
		if (old == *e) { \
			*a = v; \
			return 1; \
		} \
		*e = old; \
		return 0; \
	} \
	CHANGE(bits, exchange, v) \
	CHANGE(bits, fetch_add, old + v) \
	CHANGE(bits, fetch_sub, old - v) \
	CHANGE(bits, fetch_and, old & v) \
	CHANGE(bits, fetch_or, old | v) \
	CHANGE(bits, fetch_xor, old ^ v)
ATOMIC(8) ATOMIC(16) ATOMIC(32) ATOMIC(64)

#define BLOCKS_MAX 50000000
static u64 blocks;

void k_at_request(void) { blocks = 0; }

/* gcc -fsanitize-coverage=trace-pc calls it in every basic block. */
void __sanitizer_cov_trace_pc(void)
{
	u64 at = PC - (u64)k_text;

	if (at < (u64)(k_text_end - k_text))
		k_counts[at]++;
	if (++blocks > BLOCKS_MAX && k_running)
		k_ask(K_HANG);
}

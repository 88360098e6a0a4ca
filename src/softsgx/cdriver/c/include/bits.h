/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Bits, bit maps and atomic operations. */
#ifndef SOFTSGX_BITS_H
#define SOFTSGX_BITS_H
#include "request.h"

#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(h, l) ((~0UL >> (63 - (h))) & (~0UL << (l)))
#define GENMASK_ULL(h, l) ((~0ULL >> (63 - (h))) & (~0ULL << (l)))
#define BITS_PER_LONG 64
#define BITS_TO_LONGS(n) DIV_ROUND_UP(n, BITS_PER_LONG)
#define DECLARE_BITMAP(name, n) unsigned long name[BITS_TO_LONGS(n)]
#define lower_32_bits(n) ((u32)(n))
#define upper_32_bits(n) ((u32)((u64)(n) >> 32))

static inline bool is_power_of_2(unsigned long n) { return n && !(n & (n - 1)); }

static inline bool test_bit(long n, const volatile unsigned long *p)
{
	return (__atomic_load_n(p + n / 64, __ATOMIC_RELAXED) >> (n % 64)) & 1;
}

static inline void set_bit(long n, volatile unsigned long *p)
{
	__atomic_fetch_or(p + n / 64, BIT(n % 64), __ATOMIC_RELAXED);
}

static inline void clear_bit(long n, volatile unsigned long *p)
{
	__atomic_fetch_and(p + n / 64, ~BIT(n % 64), __ATOMIC_RELAXED);
}

/* A point: whoever sets the bit first decides what the others do. */
static inline bool test_and_set_bit(long n, volatile unsigned long *p)
{
	k_ask(K_BIT_POINT, p, n);
	return (__atomic_fetch_or(p + n / 64, BIT(n % 64), __ATOMIC_SEQ_CST) >> (n % 64)) & 1;
}

static inline bool test_and_clear_bit(long n, volatile unsigned long *p)
{
	k_ask(K_BIT_POINT, p, n);
	return (__atomic_fetch_and(p + n / 64, ~BIT(n % 64), __ATOMIC_SEQ_CST) >> (n % 64)) & 1;
}

static inline unsigned long find_first_zero_bit(const unsigned long *p, unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		if (!((p[i / 64] >> (i % 64)) & 1))
			break;
	return i;
}

typedef struct { int v; } atomic_t, refcount_t;
typedef struct { long v; } atomic_long_t;
#define ATOMIC_INIT(i) { (i) }
#define ATOMIC_LONG_INIT(i) { (i) }
#define K_LOAD(a) __atomic_load_n(&(a)->v, __ATOMIC_RELAXED)
#define K_ADD(a, n) ((void)__atomic_fetch_add(&(a)->v, (n), __ATOMIC_RELAXED))
#define atomic_read(a) K_LOAD(a)
#define atomic_set(a, i) __atomic_store_n(&(a)->v, (i), __ATOMIC_RELAXED)
#define atomic_inc(a) K_ADD(a, 1)
#define atomic_dec(a) K_ADD(a, -1)
#define atomic_long_read(a) K_LOAD(a)
#define atomic_long_set(a, i) __atomic_store_n(&(a)->v, (i), __ATOMIC_RELAXED)
#define atomic_long_inc(a) K_ADD(a, 1)
#define atomic_long_dec(a) K_ADD(a, -1)
#define atomic_long_add(n, a) K_ADD(a, n)
#define atomic_long_sub(n, a) K_ADD(a, -(n))
#endif

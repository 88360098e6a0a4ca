/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Kernel memory. Freed blocks are filled with a pattern that no pointer has, and are handed out again
 * only after many others, so that a use after free is a fault or a block that was changed.
 */
#include "runtime.h"

enum { LIVE = 0x4c495645, FREED = 0x46524545, POISON = 0x6b, SLACK = 0xbb, CLASSES = 40 };
#define QUARANTINE (1UL << 20)
#define LEAST 5		/* 32 bytes */

struct block { u32 state, slack; u32 class, unused; u64 size; struct block *next; };
extern char k_heap[];
char *k_brk = k_heap;
u64 k_live_blocks;
static struct block *spare[CLASSES], *oldest, **newest = &oldest;
static u64 quarantined;

static void check(struct block *b, u8 *p, u64 n, u8 fill, const char *what)
{
	u64 i = 0, word = fill * 0x0101010101010101UL;

	if (!((u64)p % 8))
		while (i + 8 <= n && *(u64 *)(p + i) == word)
			i += 8;
	for (; i < n; i++)
		if (p[i] != fill) {
			k_warn("heap", 0, "%s: byte %lu of a block of %lu at %p", what, (unsigned long)i,
			       (unsigned long)b->size, (void *)(b + 1));
			return;
		}
}

static u32 class_of(u64 size)
{
	u32 c = LEAST;

	while (1UL << c < size)
		c++;
	return c;
}

static struct block *take(u32 class, size_t align)
{
	struct block *b = spare[class];
	u64 at;

	if (b) {
		spare[class] = b->next;
		check(b, (u8 *)(b + 1), 1UL << class, POISON, "written after free");
		return b;
	}
	at = ALIGN((u64)k_brk + sizeof(*b), align);
	if (at + (1UL << class) > (u64)k_heap + K_HEAP_SIZE)
		k_unmodelled("more kernel memory than the heap of the driver has");
	/* The gap and the header: beyond the end of the heap is what another execution left there. */
	memset(k_brk, 0, at - (u64)k_brk);
	k_brk = (char *)at + (1UL << class);
	return (struct block *)at - 1;
}

/* Works outside of tasks, too. Memory is filled, because a fresh block may hold anything. */
void *k_new(size_t size, size_t align, bool zero)
{
	u32 class = class_of(size);
	struct block *b = take(class, size >= PAGE_SIZE ? PAGE_SIZE : align);

	b->state = LIVE;
	b->class = class;
	b->size = size;
	k_live_blocks++;
	memset(b + 1, zero ? 0 : 0xa5, size);
	memset((char *)(b + 1) + size, SLACK, (1UL << class) - size);
	k_note(0, K_ALLOCATED, b + 1, size);
	return b + 1;
}

void *k_alloc(size_t size, gfp_t flags, const char *site)
{
	if (k_inject && k_ask(K_FAIL, site))
		return NULL;
	return k_new(size, 16, !!(flags & __GFP_ZERO));
}

void kfree(const void *p)
{
	struct block *b = (struct block *)p - 1;

	if (!p)
		return;
	if (b->state == FREED)
		k_warn("heap", 0, "freed twice: %p", p);
	if (b->state != LIVE)
		k_bug("heap", 0);
	check(b, (u8 *)p + b->size, (1UL << b->class) - b->size, SLACK, "written behind its end");
	k_note((u64)__builtin_return_address(0), K_FREED, p, b->size);
	b->state = FREED;
	k_live_blocks--;
	memset((void *)p, POISON, 1UL << b->class);
	b->next = NULL;
	*newest = b;
	newest = &b->next;
	quarantined += 1UL << b->class;
	while (quarantined > QUARANTINE && oldest->next) {
		b = oldest;
		oldest = b->next;
		quarantined -= 1UL << b->class;
		b->next = spare[b->class];
		spare[b->class] = b;
	}
}

/* Bytes */

void *memset(void *p, int c, size_t n)
{
	void *d = p;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *p, const void *s, size_t n)
{
	void *d = p;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return p;
}

void *memmove(void *p, const void *s, size_t n)
{
	u8 *d = p;
	const u8 *q = s;

	if (d <= q)
		return memcpy(p, s, n);
	while (n--)
		d[n] = q[n];
	return p;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

void *memchr_inv(const void *p, int c, size_t n)
{
	const u8 *b = p;

	for (; n; n--, b++)
		if (*b != (u8)c)
			return (void *)b;
	return NULL;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (u8)*a - (u8)*b;
}

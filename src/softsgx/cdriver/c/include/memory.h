/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Kernel memory, pages, user copies. */
#ifndef SOFTSGX_MEMORY_H
#define SOFTSGX_MEMORY_H
#include "request.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PFN_DOWN(x) ((x) >> PAGE_SHIFT)
#define PFN_PHYS(x) ((u64)(x) << PAGE_SHIFT)
#define PAGE_ALIGN(x) ALIGN(x, PAGE_SIZE)
#define offset_in_page(p) ((unsigned long)(p) & ~PAGE_MASK)

#define GFP_KERNEL 0xcc0u
#define __GFP_ZERO 0x100u
#define GFP_KERNEL_ACCOUNT GFP_KERNEL
/* The function that allocates names the place at which a test lets it fail. */
#define kmalloc(n, g) k_alloc(n, g, __func__)
#define kzalloc(n, g) k_alloc(n, (g) | __GFP_ZERO, __func__)
#define kmalloc_array(n, s, g) k_alloc((size_t)(n) * (s), g, __func__)
#define kcalloc(n, s, g) k_alloc((size_t)(n) * (s), (g) | __GFP_ZERO, __func__)
#define vmalloc(n) k_alloc(n, GFP_KERNEL, __func__)
#define vmalloc_array(n, s) k_alloc((size_t)(n) * (s), GFP_KERNEL, __func__)
#define vzalloc(n) k_alloc(n, GFP_KERNEL | __GFP_ZERO, __func__)
#define kvfree(p) kfree(p)
#define vfree(p) kfree(p)
void *k_alloc(size_t, gfp_t, const char *site);
void kfree(const void *);

#define MEMREMAP_WB 1
void *memremap(u64 physical, size_t, unsigned long flags);
#define memunmap(p) ((void)(p))

unsigned long copy_from_user(void *, const void __user *, unsigned long);
unsigned long copy_to_user(void __user *, const void *, unsigned long);

/* A frame of memory. The window is where the driver reaches its contents while it is mapped. */
struct page { u64 pfn; int count; int borrowed; void *window; int mapped; };
void get_page(struct page *);
void put_page(struct page *);
#define set_page_dirty(p) ((void)(p))
void *kmap_local_page(struct page *);
void kunmap_local(const void *);
#define kmap_atomic(p) kmap_local_page(p)
#define kunmap_atomic(a) kunmap_local(a)
#define kmap(p) kmap_local_page(p)
#endif

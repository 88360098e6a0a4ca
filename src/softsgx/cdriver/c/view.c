/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The state of enclaves, read by the names that the tree's own headers give it. No task runs this. */
#include "runtime.h"
#include "encl.h"

u64 k_view_out[16];

void k_view_encl(const struct sgx_encl *e, u64 *out)
{
	out[0] = e->base;
	out[1] = e->size;
	out[2] = e->flags;
	out[3] = e->page_cnt;
	out[4] = e->secs_child_cnt;
	out[5] = e->attributes;
	out[6] = e->attributes_mask;
	out[7] = e->mm_list_version;
	out[8] = kref_read(&e->refcount);
	out[9] = e->secs.epc_page ? PFN_DOWN(sgx_get_epc_phys_addr(e->secs.epc_page)) : 0;
	out[10] = e->page_array.used;
}

static void fill(const struct sgx_encl_page *p, u64 *out)
{
	out[0] = p->desc & PAGE_MASK;
	out[1] = p->vm_max_prot_bits;
	out[2] = p->type;
	out[3] = p->epc_page ? PFN_DOWN(sgx_get_epc_phys_addr(p->epc_page)) : 0;
	out[4] = p->epc_page && p->desc & SGX_ENCL_PAGE_BEING_RECLAIMED;
	out[5] = p->epc_page ? p->epc_page->flags : 0;
	out[6] = p->va_page && p->va_page->epc_page ? PFN_DOWN(sgx_get_epc_phys_addr(p->va_page->epc_page)) : 0;
}

/* The page with the least index from `first` on: its index, or -1 if there is none. */
u64 k_view_page(struct sgx_encl *e, unsigned long first, u64 *out)
{
	struct xa_state s = { &e->page_array, first };
	struct sgx_encl_page *p = k_xas_next(&s, ~0UL, true);

	if (!p)
		return -1;
	fill(p, out);
	return s.xa_index;
}

/* Which of `count` pages of an EPC section, from `first` on, are free: a bit map. */
#define FREE_MAX 4096
u64 k_view_bits[FREE_MAX / 64];

void k_view_free(unsigned long section, unsigned long first, unsigned long count)
{
	const struct sgx_epc_page *p = sgx_epc_sections[section].pages + first;
	unsigned long i;

	memset(k_view_bits, 0, sizeof(k_view_bits));
	for (i = 0; i < count; i++)
		if (p[i].flags & SGX_EPC_PAGE_IS_FREE)
			k_view_bits[i / 64] |= BIT(i % 64);
}

/* The VA page number `n` of an enclave: its frame, or 0. */
u64 k_view_va_page(struct sgx_encl *e, unsigned long n)
{
	struct sgx_va_page *v;

	list_for_each_entry(v, &e->va_pages, list)
		if (!n--)
			return PFN_DOWN(sgx_get_epc_phys_addr(v->epc_page));
	return 0;
}

/* The address space number `n` of an enclave's list, or NULL. */
struct mm_struct *k_view_mm(struct sgx_encl *e, unsigned long n)
{
	struct sgx_encl_mm *m;

	list_for_each_entry(m, &e->mm_list, list)
		if (!n--)
			return m->mm;
	return NULL;
}

/* Empty the reclaimer's list but for one page, which must be resident. */
void k_offer(struct list_head *active, struct sgx_encl *e, unsigned long index)
{
	struct xa_state s = { &e->page_array, index };
	struct sgx_encl_page *p = k_xas_next(&s, index, true);

	while (!list_empty(active))
		list_del_init(active->next);
	list_add(&p->epc_page->list, active);
}

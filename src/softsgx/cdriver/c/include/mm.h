/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Address spaces. The areas and page tables are those of softsgx.linux.mm; here are views of them. */
#ifndef SOFTSGX_MM_H
#define SOFTSGX_MM_H
#include "memory.h"

#define VM_READ 0x1UL
#define VM_WRITE 0x2UL
#define VM_EXEC 0x4UL
#define VM_SHARED 0x8UL
#define VM_MAYREAD 0x10UL
#define VM_MAYWRITE 0x20UL
#define VM_MAYEXEC 0x40UL
#define VM_MAYSHARE 0x80UL
#define VM_PFNMAP 0x400UL
#define VM_IO 0x4000UL
#define VM_DONTCOPY 0x20000UL
#define VM_DONTEXPAND 0x40000UL
#define VM_NORESERVE 0x200000UL
#define VM_DONTDUMP 0x4000000UL
#define VM_ACCESS_FLAGS (VM_READ | VM_WRITE | VM_EXEC)
#define VM_FAULT_OOM 0x1u
#define VM_FAULT_SIGBUS 0x2u
#define VM_FAULT_SIGSEGV 0x40u
#define VM_FAULT_NOPAGE 0x100u
#define FAULT_FLAG_WRITE 0x1u
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_TYPE 15
#define MAP_FIXED 16
#define _calc_vm_trans(x, a, b) ((unsigned long)(((x) & (a)) ? (b) : 0))
#define calc_vm_prot_bits(p, key) (_calc_vm_trans(p, PROT_READ, VM_READ) | \
	_calc_vm_trans(p, PROT_WRITE, VM_WRITE) | _calc_vm_trans(p, PROT_EXEC, VM_EXEC))

struct mm_struct;
struct file;
struct inode;
struct vm_area_struct;

struct cpumask { unsigned long bits[4]; };
typedef struct cpumask cpumask_t;
static inline void cpumask_clear(struct cpumask *m) { memset(m, 0, sizeof(*m)); }
static inline void cpumask_or(struct cpumask *d, const struct cpumask *a, const struct cpumask *b)
{
	int i;

	for (i = 0; i < 4; i++)
		d->bits[i] = a->bits[i] | b->bits[i];
}
void on_each_cpu_mask(const struct cpumask *, void (*)(void *), void *, bool wait);

struct vm_fault { struct vm_area_struct *vma; unsigned long address; unsigned int flags; };
struct vm_operations_struct {
	void (*open)(struct vm_area_struct *);
	void (*close)(struct vm_area_struct *);
	int (*may_split)(struct vm_area_struct *, unsigned long);
	int (*mprotect)(struct vm_area_struct *, unsigned long, unsigned long, unsigned long);
	vm_fault_t (*fault)(struct vm_fault *);
	vm_fault_t (*page_mkwrite)(struct vm_fault *);
	vm_fault_t (*pfn_mkwrite)(struct vm_fault *);
	int (*access)(struct vm_area_struct *, unsigned long, void *, int, int);
};
struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags, vm_pgoff;
	struct mm_struct *vm_mm;
	const struct vm_operations_struct *vm_ops;
	void *vm_private_data;
	struct file *vm_file;
};
struct mm_struct {
	struct cpumask mask;
	unsigned long (*get_unmapped_area)(struct file *, unsigned long, unsigned long, unsigned long,
					   unsigned long);	/* until 6.9 */
};
const struct cpumask *k_mm_cpumask(struct mm_struct *);
#define mm_cpumask(m) k_mm_cpumask(m)
static inline void vm_flags_set(struct vm_area_struct *v, unsigned long f) { v->vm_flags |= f; }
static inline void vm_flags_clear(struct vm_area_struct *v, unsigned long f) { v->vm_flags &= ~f; }
#define untagged_addr(a) (a)

void mmap_read_lock(struct mm_struct *);
void mmap_read_unlock(struct mm_struct *);
void mmap_write_lock(struct mm_struct *);
void mmap_write_unlock(struct mm_struct *);
void mmap_assert_write_locked(struct mm_struct *);
bool mmget_not_zero(struct mm_struct *);
static inline void mmput_async(struct mm_struct *m) { (void)m; }
static inline void mmput(struct mm_struct *m) { (void)m; }
struct vm_area_struct *find_vma(struct mm_struct *, unsigned long);
struct vm_area_struct *vma_lookup(struct mm_struct *, unsigned long);
vm_fault_t vmf_insert_pfn(struct vm_area_struct *, unsigned long, unsigned long);
void zap_vma_ptes(struct vm_area_struct *, unsigned long, unsigned long);
unsigned long mm_get_unmapped_area(struct mm_struct *, struct file *, unsigned long, unsigned long,
				   unsigned long, unsigned long);
#if K_LINUX >= 0x60500
long get_user_pages(unsigned long, unsigned long, unsigned int, struct page **);
#else
#define get_user_pages(a, n, f, p, v) k_get_user_pages(a, n, f, p)
#endif
long k_get_user_pages(unsigned long, unsigned long, unsigned int, struct page **);

typedef struct { unsigned long pte; } pte_t;
#define K_PTE_ACCESSED 0x20UL
static inline int pte_young(pte_t p) { return !!(p.pte & K_PTE_ACCESSED); }
static inline pte_t pte_mkold(pte_t p) { p.pte &= ~K_PTE_ACCESSED; return p; }
void set_pte_at(struct mm_struct *, unsigned long, pte_t *, pte_t);
int apply_to_page_range(struct mm_struct *, unsigned long, unsigned long,
			int (*)(pte_t *, unsigned long, void *), void *);

struct mmu_notifier;
struct mmu_notifier_ops {
	void (*release)(struct mmu_notifier *, struct mm_struct *);
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *);
	void (*free_notifier)(struct mmu_notifier *);
};
struct mmu_notifier { const struct mmu_notifier_ops *ops; struct mm_struct *mm; };
int __mmu_notifier_register(struct mmu_notifier *, struct mm_struct *);
void mmu_notifier_unregister(struct mmu_notifier *, struct mm_struct *);
void mmu_notifier_put(struct mmu_notifier *);

/* Accounting, which nothing here depends on. */
struct mem_cgroup { int unused; };
struct mem_cgroup *get_mem_cgroup_from_mm(struct mm_struct *);
struct mem_cgroup *set_active_memcg(struct mem_cgroup *);
static inline void mem_cgroup_put(struct mem_cgroup *m) { (void)m; }
#endif

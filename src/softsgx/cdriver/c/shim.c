/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The functions of the kernel. What others can see is a request; the rest is done here. */
#include "runtime.h"

#define ME k_running

/* Locks */

void k_mutex_init(struct mutex *m, const char *name)
{
	m->owner = NULL;
	m->name = name;
	k_ask(K_MUTEX_INIT, m, name);
}

void mutex_lock(struct mutex *m)
{
	k_ask(K_MUTEX_LOCK, m, m->name);
	k_acquire(m);
	m->owner = ME;
	ME->mutexes++;
}

int mutex_trylock(struct mutex *m)
{
	if (!k_ask(K_MUTEX_TRYLOCK, m, m->name))
		return 0;
	k_acquire(m);
	m->owner = ME;
	ME->mutexes++;
	return 1;
}

void mutex_unlock(struct mutex *m)
{
	if (WARN(m->owner != ME, "%s is unlocked by another than its owner", m->name))
		return;
	m->owner = NULL;
	ME->mutexes--;
	k_release(m);
	k_ask(K_MUTEX_UNLOCK, m);
}

/* Taken here if it is free, after a point; a task that finds it taken waits outside. */
void spin_lock(spinlock_t *l)
{
	BUG_ON(l->owner == ME);
	if (!ME->live)
		k_ask(K_SPIN_POINT, l, l->name);
	while (l->owner)
		k_ask(K_SPIN_WAIT, l, l->name);
	k_acquire(l);
	l->owner = ME;
}

void spin_unlock(spinlock_t *l)
{
	WARN(l->owner != ME, "%s is unlocked by another than its owner", l->name);
	k_release(l);
	l->owner = NULL;
}

int k_init_srcu(struct srcu_struct *s, const char *name) { return k_ask(K_SRCU_INIT, s, name); }
void cleanup_srcu_struct(struct srcu_struct *s) { k_ask(K_SRCU_CLEANUP, s); }

int srcu_read_lock(struct srcu_struct *s)
{
	int reader = k_ask(K_SRCU_READ_LOCK, s);

	k_acquire(s);
	return reader;
}

void srcu_read_unlock(struct srcu_struct *s, int reader)
{
	k_release(K_READERS(s));
	k_ask(K_SRCU_READ_UNLOCK, s, reader);
}

void synchronize_srcu(struct srcu_struct *s)
{
	k_release(s);
	k_ask(K_SRCU_SYNCHRONIZE, s);
	k_acquire(K_READERS(s));
}

void preempt_disable(void)
{
	if (!ME->preempt++)
		k_ask(K_PREEMPT_DISABLE);
}

void preempt_enable(void)
{
	if (!--ME->preempt)
		k_ask(K_PREEMPT_ENABLE);
}

bool k_preemptible(void) { return !ME->preempt; }

/* Memory */

#define DIRECT_MAP 0xffff888000000000UL
void *memremap(u64 physical, size_t n, unsigned long flags)
{
	(void)n;
	(void)flags;
	return (void *)(DIRECT_MAP + physical);
}

unsigned long copy_from_user(void *to, const void *from, unsigned long n)
{
	return k_ask(K_COPY_FROM_USER, to, from, n) ? n : 0;
}

unsigned long copy_to_user(void *to, const void *from, unsigned long n)
{
	return k_ask(K_COPY_TO_USER, to, from, n) ? n : 0;
}

struct page *k_new_page(u64 pfn, int borrowed)
{
	struct page *p = k_new(sizeof(*p), 16, true);

	p->pfn = pfn;
	p->count = 1;
	p->borrowed = borrowed;
	return p;
}

void get_page(struct page *p) { p->count++; }

void put_page(struct page *p)
{
	BUG_ON(p->count <= 0);
	if (--p->count)
		return;
	BUG_ON(p->mapped);
	k_ask(K_PAGE_FREE, p, p->pfn, p->borrowed);
	kfree(p->window);
	kfree(p);
}

void *kmap_local_page(struct page *p)
{
	if (!p->window)
		p->window = k_new(PAGE_SIZE, PAGE_SIZE, true);
	if (!p->mapped++)
		k_ask(K_KMAP, p, p->pfn, p->window);
	BUG_ON(ME->maps == K_MAPS);
	ME->map[ME->maps++] = p;
	return p->window;
}

void kunmap_local(const void *a)
{
	struct page *p;

	/* The latest mapping is the first to go. */
	BUG_ON(!ME->maps);
	p = ME->map[--ME->maps];
	BUG_ON(p->window != (void *)((u64)a & PAGE_MASK));
	if (!--p->mapped)
		k_ask(K_KUNMAP, p, p->pfn, p->window);
}

long k_get_user_pages(unsigned long a, unsigned long n, unsigned int flags, struct page **out)
{
	if (n != 1 || flags)
		k_unmodelled("get_user_pages of several pages, or for writing");
	long page = k_ask(K_GET_USER_PAGE, a);

	if (page < 0)
		return page;
	*out = (struct page *)page;
	return 1;
}

#if K_LINUX >= 0x60500
long get_user_pages(unsigned long a, unsigned long n, unsigned int flags, struct page **out)
{
	return k_get_user_pages(a, n, flags, out);
}
#endif

/* Address spaces */

static struct vm_area_struct *view(void)
{
	ME->area = (ME->area + 1) % K_AREAS;
	if (!ME->area)
		ME->area = 1;	/* the first is the caller's */
	return &ME->areas[ME->area];
}

static struct vm_area_struct *look_up(enum k_operation op, struct mm_struct *m, unsigned long a)
{
	struct vm_area_struct *v = view();

	return k_ask(op, m, a, v) ? v : NULL;
}

struct vm_area_struct *find_vma(struct mm_struct *m, unsigned long a) { return look_up(K_FIND_VMA, m, a); }
struct vm_area_struct *vma_lookup(struct mm_struct *m, unsigned long a) { return look_up(K_VMA_LOOKUP, m, a); }

void mmap_read_lock(struct mm_struct *m)
{
	k_ask(K_MMAP_READ_LOCK, m);
	k_acquire(m);
}

void mmap_read_unlock(struct mm_struct *m)
{
	k_release(K_READERS(m));
	k_ask(K_MMAP_READ_UNLOCK, m);
}

void mmap_write_lock(struct mm_struct *m)
{
	k_ask(K_MMAP_WRITE_LOCK, m);
	k_acquire(m);
	k_acquire(K_READERS(m));
}

void mmap_write_unlock(struct mm_struct *m)
{
	k_release(m);
	k_ask(K_MMAP_WRITE_UNLOCK, m);
}

void mmap_assert_write_locked(struct mm_struct *m)
{
	WARN(!k_ask(K_MMAP_WRITE_HELD, m), "mmap_lock is not held for writing");
}
bool mmget_not_zero(struct mm_struct *m) { return k_ask(K_MMGET, m); }
const struct cpumask *k_mm_cpumask(struct mm_struct *m)
{
	/* The other words are stored by whoever answers, if there are so many processors. */
	m->mask.bits[0] = k_ask(K_MM_CPUMASK, m, &m->mask.bits[1]);
	return &m->mask;
}

vm_fault_t vmf_insert_pfn(struct vm_area_struct *v, unsigned long a, unsigned long pfn)
{
	return k_ask(K_INSERT_PFN, v->vm_mm, a, pfn, v->vm_flags) ? VM_FAULT_OOM : VM_FAULT_NOPAGE;
}

void zap_vma_ptes(struct vm_area_struct *v, unsigned long a, unsigned long n)
{
	if (n != PAGE_SIZE)
		k_unmodelled("zap_vma_ptes of several pages");
	k_ask(K_ZAP_PTES, v->vm_mm, a);
}

int apply_to_page_range(struct mm_struct *m, unsigned long a, unsigned long n,
			int (*f)(pte_t *, unsigned long, void *), void *data)
{
	pte_t pte;

	if (n != PAGE_SIZE)
		k_unmodelled("apply_to_page_range of several pages");
	pte.pte = k_ask(K_READ_PTE, m, a);
	return f(&pte, a, data);
}

void set_pte_at(struct mm_struct *m, unsigned long a, pte_t *p, pte_t v)
{
	*p = v;
	k_ask(K_SET_PTE, m, a, v.pte);
}

unsigned long mm_get_unmapped_area(struct mm_struct *m, struct file *f, unsigned long a,
				   unsigned long n, unsigned long pgoff, unsigned long flags)
{
	(void)f;
	(void)pgoff;
	(void)flags;
	return k_ask(K_UNMAPPED_AREA, m, a, n);
}

static unsigned long unmapped(struct file *f, unsigned long a, unsigned long n, unsigned long pgoff,
			      unsigned long flags)
{
	return mm_get_unmapped_area(k_current()->mm, f, a, n, pgoff, flags);
}

struct mm_struct *k_new_mm(void)
{
	struct mm_struct *m = k_new(sizeof(*m), 16, true);

	m->get_unmapped_area = unmapped;
	return m;
}

void on_each_cpu_mask(const struct cpumask *m, void (*f)(void *), void *info, bool wait)
{
	extern void sgx_ipi_cb(void *);

	if (f != sgx_ipi_cb || info || !wait)
		k_unmodelled("an interprocessor interrupt with a handler of its own");
	k_ask(K_IPI, m->bits[0], m->bits[1], m->bits[2], m->bits[3]);
}

int __mmu_notifier_register(struct mmu_notifier *n, struct mm_struct *m)
{
	mmap_assert_write_locked(m);
	n->mm = m;
	return k_ask(K_NOTIFIER_REGISTER, n, m);
}

/* The answer: whether its release is still to be called. */
void mmu_notifier_unregister(struct mmu_notifier *n, struct mm_struct *m)
{
	bool own = k_ask(K_NOTIFIER_UNREGISTER, n, m);

	k_acquire(n);
	if (own && n->ops->release)
		n->ops->release(n, m);
}

void mmu_notifier_put(struct mmu_notifier *n) { k_ask(K_NOTIFIER_PUT, n); }

static struct mem_cgroup root;
struct mem_cgroup *get_mem_cgroup_from_mm(struct mm_struct *m) { (void)m; return &root; }
struct mem_cgroup *set_active_memcg(struct mem_cgroup *m) { (void)m; return &root; }

/* Arrays */

void k_xa_init(struct xarray *x, const char *name)
{
	memset(x, 0, sizeof(*x));
	x->xa_lock.name = name;
}

static unsigned long position(const struct xarray *x, unsigned long i)
{
	unsigned long low = 0, high = x->used;

	while (low < high) {
		unsigned long middle = (low + high) / 2;

		if (x->at[middle] < i)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void **slot(const struct xarray *x, unsigned long i)
{
	unsigned long k = position(x, i);

	return k < x->used && x->at[k] == i ? &x->entry[k] : NULL;
}

/* Ranges are only those of EPC sections, a few. */
static struct { struct xarray *x; unsigned long first, last; void *entry; } range[8];

void *xa_store_range(struct xarray *x, unsigned long first, unsigned long last, void *e, gfp_t flags)
{
	int i;

	(void)flags;
	for (i = 0; i < 8 && range[i].x; i++)
		;
	if (i == 8)
		k_unmodelled("more than 8 ranges in arrays");
	range[i].x = x;
	range[i].first = first;
	range[i].last = last;
	range[i].entry = e;
	return NULL;
}

/* A point where no mutex protects the array. */
void *xa_load(struct xarray *x, unsigned long i)
{
	void **found;

	if (ME && !ME->mutexes)
		k_ask(K_XA_POINT, x, i);
	k_acquire(x);
	found = slot(x, i);
	if (found)
		return *found;
	for (int k = 0; k < 8 && range[k].x; k++)
		if (range[k].x == x && range[k].first <= i && i <= range[k].last)
			return range[k].entry;
	return NULL;
}

static void grow(struct xarray *x)
{
	unsigned long room = x->room ? 2 * x->room : 16;
	unsigned long *at = k_new(room * sizeof(*at), 16, false);
	void **entry = k_new(room * sizeof(*entry), 16, false);

	if (x->used) {
		memcpy(at, x->at, x->used * sizeof(*at));
		memcpy(entry, x->entry, x->used * sizeof(*entry));
		kfree(x->at);
		kfree(x->entry);
	}
	x->at = at;
	x->entry = entry;
	x->room = room;
}

static void put_in(struct xarray *x, unsigned long i, void *e)
{
	unsigned long k = position(x, i);

	if (x->used == x->room)
		grow(x);
	memmove(x->at + k + 1, x->at + k, (x->used - k) * sizeof(*x->at));
	memmove(x->entry + k + 1, x->entry + k, (x->used - k) * sizeof(*x->entry));
	x->at[k] = i;
	x->entry[k] = e;
	x->used++;
}

int xa_insert(struct xarray *x, unsigned long i, void *e, gfp_t flags)
{
	int ret = 0;

	(void)flags;
	xa_lock(x);
	k_release(x);
	if (slot(x, i))
		ret = -EBUSY;
	else if (k_inject && k_ask(K_FAIL, "xa_insert"))
		ret = -ENOMEM;
	else
		put_in(x, i, e);
	xa_unlock(x);
	return ret;
}

void *xa_erase(struct xarray *x, unsigned long i)
{
	void **found, *e = NULL;
	unsigned long k;

	xa_lock(x);
	k_release(x);
	found = slot(x, i);
	if (found) {
		k = found - x->entry;
		e = *found;
		x->used--;
		memmove(x->at + k, x->at + k + 1, (x->used - k) * sizeof(*x->at));
		memmove(x->entry + k, x->entry + k + 1, (x->used - k) * sizeof(*x->entry));
	}
	xa_unlock(x);
	return e;
}

void *xa_store(struct xarray *x, unsigned long i, void *e, gfp_t flags)
{
	void **found, *old = NULL;

	if (!e)
		return xa_erase(x, i);
	(void)flags;
	xa_lock(x);
	k_release(x);
	found = slot(x, i);
	if (found) {
		old = *found;
		*found = e;
	} else {
		put_in(x, i, e);
	}
	xa_unlock(x);
	return old;
}

void xa_destroy(struct xarray *x)
{
	kfree(x->at);
	kfree(x->entry);
	x->at = NULL;
	x->entry = NULL;
	x->used = x->room = 0;
}

void *k_xas_next(struct xa_state *s, unsigned long max, bool first)
{
	unsigned long k;

	k_acquire(s->xa);
	k = position(s->xa, first ? s->xa_index : s->xa_index + 1);

	if (k >= s->xa->used || s->xa->at[k] > max)
		return NULL;
	s->xa_index = s->xa->at[k];
	return s->xa->entry[k];
}

/* Files */

struct file *shmem_file_setup(const char *name, loff_t size, unsigned long flags)
{
	struct file *f;
	long ret;

	(void)name;
	(void)flags;
	ret = k_ask(K_SHMEM_SETUP, size);
	if (ret)
		return ERR_PTR(ret);
	f = k_new(sizeof(*f), 16, true);
	f->f_inode = k_new(sizeof(*f->f_inode), 16, true);
	f->f_inode->i_data.host = f->f_inode;
	f->f_mapping = &f->f_inode->i_data;
	return f;
}

struct page *shmem_read_mapping_page_gfp(struct address_space *m, pgoff_t i, gfp_t flags)
{
	long page = k_ask(K_SHMEM_GET, m->host, i);

	(void)flags;
	if (!IS_ERR_VALUE(page))
		get_page((struct page *)page);
	return (struct page *)page;
}

/* A page that leaves the file lives on while somebody holds a reference. */
void shmem_truncate_range(struct inode *n, loff_t first, loff_t last)
{
	struct page *p;

	if (((u64)first | (u64)(last + 1)) & ~PAGE_MASK || last - first != PAGE_SIZE - 1)
		k_unmodelled("shmem_truncate_range of other than one page");
	p = (struct page *)k_ask(K_SHMEM_PUNCH, n, first >> PAGE_SHIFT);
	if (p)
		put_page(p);
}

void fput(struct file *f)
{
	struct page *p;

	if (f->f_op) {	/* a device node: its references are counted outside */
		k_ask(K_FPUT, f);
		return;
	}
	while ((p = (struct page *)k_ask(K_SHMEM_CLOSE, f->f_inode)))
		put_page(p);
	kfree(f->f_inode);
	kfree(f);
}

struct file *fget(unsigned int n) { return (struct file *)k_ask(K_FGET, n); }
int misc_register(struct miscdevice *m) { return k_ask(K_MISC_REGISTER, m->name, m->fops); }
void misc_deregister(struct miscdevice *m) { k_ask(K_MISC_DEREGISTER, m->name); }

/* Tasks */

int signal_pending(struct task_struct *t)
{
	if (t != k_current())
		k_unmodelled("signal_pending of another task");
	return k_ask(K_SIGNAL_PENDING);
}

void force_sig(int signal) { k_ask(K_FORCE_SIG, signal); }
unsigned long msleep_interruptible(unsigned int n) { return k_ask(K_SLEEP, n) ? n : 0; }

struct task_struct *kthread_run(int (*f)(void *), void *a, const char *name, ...)
{
	struct task_struct *t = k_new(sizeof(*t), 16, true);
	long ret;

	t->function = f;
	t->argument = a;
	t->name = name;
	ret = k_ask(K_KTHREAD, t, name);
	if (ret) {
		kfree(t);
		return ERR_PTR(ret);
	}
	return t;
}

int kthread_stop(struct task_struct *t)
{
	t->stop = 1;
	return 0;
}

void wake_up(struct wait_queue_head *q)
{
	k_release(q);
	k_ask(K_WAKE_UP, q, q->name);
}

void k_wait(struct wait_queue_head *q)
{
	k_ask(K_WAIT, q, q->name);
	k_acquire(q);
}

/* The machine */

void cpuid_count(u32 leaf, u32 subleaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
	u32 out[4];

	k_ask(K_CPUID, leaf, subleaf, out);
	*a = out[0];
	*b = out[1];
	*c = out[2];
	*d = out[3];
}

void wrmsrl(unsigned int msr, u64 value) { k_ask(K_WRMSR, msr, value); }

static struct crypto_shash hash;
struct crypto_shash *crypto_alloc_shash(const char *name, u32 type, u32 mask)
{
	(void)type;
	(void)mask;
	if (strcmp(name, "sha256"))
		k_unmodelled("a hash other than sha256");
	if (k_inject && k_ask(K_FAIL, "crypto_alloc_shash"))
		return ERR_PTR(-ENOMEM);
	return &hash;
}

void sha256(const u8 *data, unsigned int n, u8 *out) { k_ask(K_SHA256, data, n, out); }

int crypto_shash_digest(struct shash_desc *d, const u8 *data, unsigned int n, u8 *out)
{
	(void)d;
	sha256(data, n, out);
	return 0;
}

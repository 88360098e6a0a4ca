/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the rest of the kernel calls the driver for. Each is the function of a task. */
#include "runtime.h"

u64 k_call_open(const struct file_operations *fops)
{
	struct file *f = k_new(sizeof(*f), 16, true);
	int ret = 0;

	f->f_op = fops;
	if (fops->open)
		ret = fops->open(NULL, f);
	if (!ret)
		return (u64)f;
	kfree(f);
	return (u64)(long)ret;
}

u64 k_call_release(struct file *f)
{
	if (f->f_op->release)
		f->f_op->release(NULL, f);
	kfree(f);
	return 0;
}

u64 k_call_ioctl(struct file *f, unsigned int cmd, unsigned long arg)
{
	return f->f_op->unlocked_ioctl(f, cmd, arg);
}

u64 k_call_mmap(struct file *f, struct vm_area_struct *v) { return (u64)(long)f->f_op->mmap(f, v); }

u64 k_call_get_unmapped_area(struct file *f, unsigned long a, unsigned long n, unsigned long flags)
{
	return f->f_op->get_unmapped_area(f, a, n, 0, flags);
}

u64 k_call_fault(struct vm_area_struct *v, unsigned long a, unsigned int flags)
{
	struct vm_fault f = { v, a & PAGE_MASK, flags };

	return v->vm_ops->fault(&f);
}

u64 k_call_pfn_mkwrite(struct vm_area_struct *v, unsigned long a)
{
	struct vm_fault f = { v, a & PAGE_MASK, FAULT_FLAG_WRITE };

	return v->vm_ops->pfn_mkwrite ? v->vm_ops->pfn_mkwrite(&f) : 0;
}

u64 k_call_vma_open(struct vm_area_struct *v)
{
	if (v->vm_ops->open)
		v->vm_ops->open(v);
	return 0;
}

u64 k_call_mprotect(struct vm_area_struct *v, unsigned long start, unsigned long end,
		    unsigned long flags)
{
	return v->vm_ops->mprotect ? (u64)(long)v->vm_ops->mprotect(v, start, end, flags) : 0;
}

u64 k_call_access(struct vm_area_struct *v, unsigned long a, void *buf, int n, int write)
{
	return v->vm_ops->access ? (u64)(long)v->vm_ops->access(v, a, buf, n, write) : (u64)-EIO;
}

u64 k_call_kthread(struct task_struct *t) { return (u64)(long)t->function(t->argument); }

u64 k_call_notifier_release(struct mmu_notifier *n, struct mm_struct *m)
{
	if (n->ops->release)
		n->ops->release(n, m);
	k_release(n);
	return 0;
}

u64 k_call_notifier_free(struct mmu_notifier *n)
{
	n->ops->free_notifier(n);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Files, device nodes, shmem. */
#ifndef SOFTSGX_FILE_H
#define SOFTSGX_FILE_H
#include "mm.h"

struct address_space { struct inode *host; };
struct inode { struct address_space i_data; };
struct module;
#define THIS_MODULE ((struct module *)0)
struct file_operations {
	struct module *owner;
	int (*open)(struct inode *, struct file *);
	int (*release)(struct inode *, struct file *);
	long (*unlocked_ioctl)(struct file *, unsigned int, unsigned long);
	long (*compat_ioctl)(struct file *, unsigned int, unsigned long);
	int (*mmap)(struct file *, struct vm_area_struct *);
	unsigned long (*get_unmapped_area)(struct file *, unsigned long, unsigned long, unsigned long,
					   unsigned long);
};
struct file {
	const struct file_operations *f_op;
	void *private_data;
	struct address_space *f_mapping;
	struct inode *f_inode;
};
#define file_inode(f) ((f)->f_inode)
void fput(struct file *);
struct file *fget(unsigned int);
struct fd { struct file *file; };
static inline struct fd fdget(unsigned int n) { struct fd f = { fget(n) }; return f; }
static inline void fdput(struct fd f) { if (f.file) fput(f.file); }
static inline void k_drop_fd(struct fd *f) { fdput(*f); }
/* Only class fd; dropped where the variable ends. */
#define CLASS(class, name) __attribute__((cleanup(k_drop_##class))) struct class name = class##get
#define fd_empty(f) (!(f).file)
#define fd_file(f) ((f).file)

struct file *shmem_file_setup(const char *, loff_t, unsigned long);
struct page *shmem_read_mapping_page_gfp(struct address_space *, pgoff_t, gfp_t);
#define shmem_read_mapping_page(m, i) shmem_read_mapping_page_gfp(m, i, GFP_KERNEL)
void shmem_truncate_range(struct inode *, loff_t, loff_t);
#define mapping_gfp_mask(m) ((void)(m), GFP_KERNEL)

struct miscdevice { int minor; const char *name, *nodename; const struct file_operations *fops; };
#define MISC_DYNAMIC_MINOR 255
int misc_register(struct miscdevice *);
void misc_deregister(struct miscdevice *);

/* Named by declarations of the driver only. */
struct device;
struct kobject;
struct attribute;
#endif

"""Why the kernel refuses: for each rule that an errno names, what must hold.

A rule is `function.what`, the kernel's function and what it tests. A name in capital letters is
that of a leaf: the processor refused, and the function returned an errno for it.
"""

from typing import Final

REFUSALS: Final[dict[str, str]] = {
    # All ioctls
    "sgx_ioctl.busy": "one ioctl of an enclave runs at a time",
    "sgx_ioctl.request": "/dev/sgx_enclave has no ioctl of this number",
    "sgx_provision_fops.request": "/dev/sgx_provision has no ioctl",
    "kmalloc.memory": "memory of the kernel is short",
    "copy_from_user.address": "the kernel cannot read the memory that the call points to",
    "copy_to_user.address": "the kernel cannot write the result to the memory of the call",
    "sgx_validate_offset_length.offset": "offset is a multiple of 4096",
    "sgx_validate_offset_length.length": "length is a multiple of 4096, and not 0",
    "sgx_validate_offset_length.end": "offset + length is not beyond the enclave",
    # EPC
    "sgx_alloc_epc_page.full": "EPC is full, and no page in it can be evicted",
    "sgx_alloc_epc_page.short": "EPC is full at the moment, and this function does not reclaim",
    "sgx_alloc_epc_page.signal": "a signal is pending while EPC is short",
    "sgx_alloc_va_page.EPA": "EPA makes the page of versions",
    "sgx_encl_get_backing.memory": "memory for the contents of evicted pages is short",
    "__sgx_encl_eldu.ELDU": "ELDU loads the evicted page",
    "__sgx_encl_load_page.reclaimed": "the page is being evicted, or is held by another ioctl",
    "sgx_encl_load_page.absent": "the enclave has no page at this address",
    "sgx_encl_load_page_in_vma.absent": "the enclave has no page at this address",
    "sgx_encl_load_page_in_vma.cap": "the area has no right that the cap of the page lacks",
    # CREATE
    "sgx_ioc_enclave_create.created": "CREATE comes once for each descriptor that was opened",
    "sgx_encl_create.size": "SECS.SIZE is a power of two",
    "shmem_file_setup.size": "a file for all evicted pages of the enclave can exist",
    "sgx_encl_create.ECREATE": "ECREATE makes the enclave",
    # ADD_PAGES
    "sgx_ioc_enclave_add_pages.state": "ADD_PAGES comes between CREATE and INIT",
    "sgx_ioc_enclave_add_pages.src": "src is a multiple of 4096",
    "sgx_ioc_enclave_add_pages.signal": "a signal is pending, and no page was added yet",
    "sgx_validate_secinfo.type": "SECINFO: the page type is PT_REG or PT_TCS",
    "sgx_validate_secinfo.write": "SECINFO: no W without R",
    "sgx_validate_secinfo.tcs": "SECINFO: a TCS has none of R, W, X",
    "sgx_validate_secinfo.reserved": "SECINFO.FLAGS has R, W, X and the page type only",
    "sgx_validate_secinfo.bytes": "SECINFO: the bytes after FLAGS are 0",
    "sgx_encl_add_page.present": "the enclave has no page at this address yet",
    "__sgx_encl_add_page.noexec": "the memory at src may be executed: not mounted noexec",
    "get_user_pages.address": "the memory at src can be read, and is no enclave's",
    "__sgx_encl_add_page.EADD": "EADD adds the page",
    "__sgx_encl_extend.EEXTEND": "EEXTEND measures the page",
    # INIT, PROVISION
    "sgx_ioc_enclave_init.state": "INIT comes once, after CREATE",
    "sgx_ioc_enclave_init.vendor": "SIGSTRUCT.VENDOR is 0 or 0x8086",
    "sgx_encl_init.attributes": "SECS.ATTRIBUTES has only bits that this enclave may have",
    "sgx_encl_init.signed_attributes": (
        "SIGSTRUCT: no bit of ATTRIBUTES under ATTRIBUTEMASK that kernel or processor lacks"
    ),
    "sgx_encl_init.signed_miscselect": (
        "SIGSTRUCT: no bit of MISCSELECT under MISCMASK that kernel or processor lacks"
    ),
    "sgx_encl_init.signed_xfrm": (
        "SIGSTRUCT: no bit of XFRM under XFRMMASK that kernel or processor lacks"
    ),
    "sgx_encl_init.signal": "a signal is pending while EINIT is disturbed again and again",
    "sgx_encl_init.EINIT": "EINIT verifies the signature and opens the enclave",
    "sgx_set_attribute.file": "fd is an open /dev/sgx_provision",
    # Pages of a running enclave
    "sgx_ioc_sgx2_ready.sgx2": "the processor has SGX2",
    "sgx_ioc_sgx2_ready.initialised": "the enclave is initialised",
    "sgx_ioc_enclave_restrict_permissions.permissions": "permissions are of R, W, X",
    "sgx_ioc_enclave_restrict_permissions.write": "no W without R: no page can have that",
    "sgx_ioc_enclave_restrict_permissions.read": "permissions have R (the V3 and V4 series)",
    "sgx_ioc_enclave_restrict_permissions.result": "result and count are 0 on the way in",
    "sgx_enclave_restrict_permissions.type": "only the permissions of PT_REG are restricted",
    "sgx_enclave_restrict_permissions.EMODPR": "EMODPR restricts the permissions",
    "sgx_enclave_etrack.ETRACK": "ETRACK begins a new epoch",
    "sgx_ioc_enclave_modify_types.page_type": "page_type has 8 bits",
    "sgx_ioc_enclave_modify_types.result": "result and count are 0 on the way in",
    "sgx_enclave_modify_types.page_type": "a page can become PT_TCS or PT_TRIM only",
    "sgx_enclave_modify_types.type": "PT_REG becomes PT_TCS or PT_TRIM, PT_TCS only PT_TRIM",
    "sgx_enclave_modify_types.rights": "a page that becomes a TCS has R and W in its cap",
    "sgx_enclave_modify_types.reclaimed": "the page is not being evicted",
    "sgx_enclave_modify_types.EMODT": "EMODT changes the page type",
    "sgx_ioc_enclave_remove_pages.count": "count is 0 on the way in",
    "sgx_encl_remove_pages.type": "only a trimmed page is removed",
    "sgx_encl_remove_pages.EMODPR": "the enclave has accepted that the page is trimmed",
    "sgx_encl_remove_pages.reclaimed": "the page is not being evicted",
    # The series of February 2022
    "sgx_perm_from_user_secinfo.flags": "SECINFO.FLAGS has R, W, X only",
    "sgx_perm_from_user_secinfo.bytes": "SECINFO: the bytes after FLAGS are 0",
    "sgx_perm_from_user_secinfo.write": "SECINFO: no W without R",
    "sgx_perm_from_user_secinfo.read": "SECINFO: R is set",
    "sgx_ioc_enclave_relax_perm.count": "count is 0 on the way in",
    "sgx_enclave_relax_perm.absent": "the enclave has a page at this address",
    "sgx_enclave_relax_perm.type": "only the permissions of PT_REG are relaxed",
    "sgx_enclave_relax_perm.cap": "no permission that the cap of the page lacks",
    "sgx_ioc_enclave_restrict_perm.result": "result and count are 0 on the way in",
    "sgx_enclave_restrict_perm.type": "only the permissions of PT_REG are restricted",
    "sgx_enclave_restrict_perm.cap": "no permission that the cap of the page lacks",
    "sgx_enclave_restrict_perm.reclaimed": "the page is not being evicted",
    "sgx_enclave_restrict_perm.EMODPR": "EMODPR restricts the permissions",
    "sgx_ioc_enclave_modt.flags": "SECINFO.FLAGS has the page type only",
    "sgx_ioc_enclave_modt.bytes": "SECINFO: the bytes after FLAGS are 0",
    "sgx_ioc_enclave_modt.result": "result and count are 0 on the way in",
    # Descriptors
    "sgx_drv_init.launch_control": "the nodes exist where the processor has launch control",
    "path_openat.name": "the path is /dev/sgx_enclave or /dev/sgx_provision",
    "build_open_flags.flags": "open(2) takes the flags for a device that exists",
    "alloc_fd.limit": "a process has no more than 1024 descriptors",
    "fget.fd": "fd is an open descriptor",
    "fget.mode": "the descriptor was opened for this direction",
    "sgx_encl_fops.operation": "a node of SGX can be opened, closed and mapped, and has ioctls",
    # mmap
    "sys_mmap.offset": "offset is a multiple of 4096",
    "ksys_mmap_pgoff.hugetlb": "MAP_HUGETLB: the file is one of hugetlbfs",
    "do_mmap.length": "length is not 0",
    "do_mmap.map_count": "a process has no more areas than vm.max_map_count",
    "do_mmap.noreplace": "MAP_FIXED_NOREPLACE: the range is free",
    "do_mmap.type": "flags have MAP_SHARED or MAP_PRIVATE",
    "do_mmap.flags": "MAP_SHARED_VALIDATE: no flag that is unknown",
    "do_mmap.write": "a shared mapping with PROT_WRITE: the node was opened for writing",
    "do_mmap.read": "the node was opened for reading",
    "do_mmap.noexec": "PROT_EXEC: /dev is not mounted noexec",
    "do_mmap.no_mmap": "only /dev/sgx_enclave is mapped",
    "do_mmap.growsdown": "a mapping of a file does not grow: no MAP_GROWSDOWN",
    "__get_unmapped_area.length": "length is not above the user half of the address space",
    "__get_unmapped_area.end": "the range ends within the user half of the address space",
    "__get_unmapped_area.aligned": "the address is a multiple of 4096",
    "vm_unmapped_area.space": "a free range of this length exists",
    "security_mmap_addr.low": "nothing is mapped below vm.mmap_min_addr",
    # munmap, mprotect, mremap
    "do_vmi_munmap.range": "the range is one or more whole pages of the user half",
    "split_vma.map_count": "a process has no more areas than vm.max_map_count",
    "do_mprotect_pkey.aligned": "the address is a multiple of 4096",
    "do_mprotect_pkey.end": "address + length does not wrap around",
    "do_mprotect_pkey.prot": "prot has PROT_READ, PROT_WRITE, PROT_EXEC, PROT_SEM only",
    "do_mprotect_pkey.pkey": "the protection key was allocated; the processor has none",
    "do_mprotect_pkey.hole": "every page of the range is mapped",
    "mprotect_fixup.may": "no right that the area may never have, for how the node was opened",
    "sys_mremap.flags": "flags have MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP only",
    "sys_mremap.maymove": "MREMAP_FIXED and MREMAP_DONTUNMAP come with MREMAP_MAYMOVE",
    "sys_mremap.dontunmap": "MREMAP_DONTUNMAP: old and new length are equal",
    "sys_mremap.aligned": "the old address is a multiple of 4096",
    "sys_mremap.new_length": "the new length is not 0",
    "mremap_to.range": "the new address is a multiple of 4096, the new range in the user half",
    "mremap_to.overlap": "old and new range do not overlap",
    "mremap_to.map_count": "a process has fewer areas than vm.max_map_count, with room to move",
    "vma_to_resize.hole": "the old address is mapped",
    "vma_to_resize.private": "an old length of 0 is for shared memory only",
    "vma_to_resize.dontunmap": "MREMAP_DONTUNMAP is not for enclave memory (VM_PFNMAP)",
    "vma_to_resize.beyond": "the old range is within one area",
    "vma_to_resize.grow": "an area of enclave memory never grows (VM_PFNMAP)",
    # Advice and locks
    "do_madvise.advice": "the advice is one of Linux 6.12",
    "do_madvise.aligned": "the address is a multiple of 4096",
    "do_madvise.end": "address + length does not wrap around",
    "do_madvise.hole": "every page of the range is mapped",
    "madvise_remove.write": "MADV_REMOVE: the node was opened for writing",
    "madvise_vma_behavior.advice": "enclave memory (VM_PFNMAP, VM_IO, a device) takes this advice",
    "sys_mlock2.flags": "flags have MLOCK_ONFAULT only",
    "sys_mlockall.flags": "flags have MCL_CURRENT, MCL_FUTURE, or one of them and MCL_ONFAULT",
    "do_mlock.limit": "RLIMIT_MEMLOCK permits as much, or the caller has CAP_IPC_LOCK",
    "madvise_inject_error.superuser": "MADV_HWPOISON and MADV_SOFT_OFFLINE are for CAP_SYS_ADMIN",
    "do_mlock.end": "address + length does not wrap around",
    "apply_vma_lock_flags.hole": "every page of the range is mapped",
    "sys_msync.flags": "flags have MS_ASYNC or MS_SYNC, and MS_INVALIDATE",
    "sys_msync.aligned": "the address is a multiple of 4096",
    "sys_msync.hole": "every page of the range is mapped",
    "vfs_fsync_range.none": "MS_SYNC: the file of the area can be synchronised; a device cannot",
    # Areas of enclaves
    "sgx_get_unmapped_area.private": "enclave memory is mapped MAP_SHARED",
    "sgx_encl_may_map.range": "an initialised enclave is mapped within its range only",
    "sgx_encl_may_map.personality": "the process runs without READ_IMPLIES_EXEC",
    "sgx_encl_may_map.cap": "an area gets no right that the cap of one of its pages lacks",
    "sgx_encl_mm_add.signal": "a signal is pending when an address space maps an enclave first",
    # The vDSO
    "__vdso_sgx_enter_enclave.function": "the function is EENTER (2) or ERESUME (3)",
    "__vdso_sgx_enter_enclave.reserved": "the reserved bytes of struct sgx_enclave_run are 0",
    # Debuggers
    "sgx_vma_access.unregistered": "the area was registered with its enclave at fork",
    "sgx_vma_access.production": "only the memory of a debug enclave is shown",
    "sgx_vma_access.EDBGRD": "EDBGRD reads the word",
    "sgx_vma_access.EDBGWR": "EDBGWR writes the word",
    "access_process_vm.exited": "the process has an address space",
    "access_process_vm.hole": "the address is mapped",
    "process_vm_rw.exited": "the process has an address space",
    "process_vm_rw.pages": "the memory can be pinned: it is mapped, and no enclave's",
}


def function_of(rule: str) -> str:
    """The kernel function that tests the rule."""
    return rule.rpartition(".")[0]


def leaf_of(rule: str) -> str:
    """The leaf that refused in that function; empty if the function itself did."""
    what = rule.rpartition(".")[2]
    return what if what.isupper() else ""

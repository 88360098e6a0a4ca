"""Advice for each rule of the kernel's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from softsgx.image.rules import size_for
from softsgx.linux.madvise import (
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_PAGEOUT,
    MADV_REMOVE,
)
from softsgx.linux.mm import DEFAULT_MMAP_MIN_ADDR, TASK_SIZE
from softsgx.linux.sgx.ioctl import handlers
from softsgx.linux.trace import request_name
from softsgx.report.fields import SHORT
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TCS, PT_TRIM, RWX, R
from softsgx.system.explain.calls.refused_call import RefusedCall

_AGAIN: Final = "try again: the reclaimer, or the other ioctl, is done with the page soon"
_AGAIN_LEAF: Final = "try again: another leaf is using the SECS or the page"
_AREAS: Final = "munmap areas, or raise vm.max_map_count"
_OPENED: Final = "open /dev/sgx_enclave with O_RDWR"
_DEBUGGABLE: Final = "an accepted REG page, or the fields of a TCS: only FLAGS can be written"
_MADVISE: Final = (
    "advice that enclave memory takes: 0 to 3 (NORMAL, RANDOM, SEQUENTIAL, WILLNEED), 10"
    " (DONTFORK), 12 to 16 (MERGEABLE, UNMERGEABLE, HUGEPAGE, NOHUGEPAGE, DONTDUMP), 19"
    " (KEEPONFORK)"
)
_GIVES_BACK: Final = (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_PAGEOUT, MADV_REMOVE)
_GIVEN_BACK: Final = "MODIFY_TYPES(PT_TRIM), EACCEPT inside and REMOVE_PAGES give pages back"
_CLEAR: Final = "clear result and count before each ioctl"
_MEMORY: Final = "free memory, and try again"
_SIGNAL: Final = "let the handler run, and call again; with SA_RESTART Linux does so itself"
_ZEROES: Final = "zero bytes 8 to 63 of the SECINFO"
_FRESH: Final = "close the enclave and rebuild it"
_CREATE: Final = "SGX_IOC_ENCLAVE_CREATE first"
_NOTHING: Final = "nothing to do"
_ADDED: Final = "a page that was added: by ADD_PAGES before INIT, or by a touch from inside (EAUG)"
_NEW_TYPE: Final = "page_type 1 (PT_TCS) or 4 (PT_TRIM)"
_COUNT: Final = "clear count before each ioctl"
_WHOLE: Final = "leave MREMAP_DONTUNMAP out: enclave memory is moved as a whole"
_NO_WRAP: Final = "address + length below 2^64"
_RUNS: Final = "a process that runs"
_WITHIN_CAP: Final = "ask for permissions within the cap"


def _request(call: RefusedCall) -> str:
    known = sorted(handlers(call.kernel), key=lambda cmd: cmd & 0xFF)
    names = [request_name(call.kernel.version, cmd).removeprefix(SHORT) for cmd in known]
    return f"one of {', '.join(f'{n} {cmd:#x}' for n, cmd in zip(names, known, strict=True))}"


def _readable(call: RefusedCall) -> str:
    return _there(call, "can be read")


def _writable(call: RefusedCall) -> str:
    return f"{_there(call, 'can be written')}; what the ioctl has done stays done"


def _there(call: RefusedCall, how: str) -> str:
    at, size = call.fields["address"], call.fields["size"]
    return f"the {size} bytes at {at:#x} must be mapped, so that they {how}"


def _offset(call: RefusedCall) -> str:
    return f"offset {call.fields['offset'] & ~PAGE_MASK:#x}, the page that contains it"


def _length(call: RefusedCall) -> str:
    pages = max(call.fields["length"] + PAGE_MASK & MASK64 & ~PAGE_MASK, PAGE_SIZE)
    return f"length {pages:#x}, whole pages"


def _end(call: RefusedCall) -> str:
    size, offset = call.fields["size"], call.fields["offset"]
    if offset >= size:
        return f"offset below {size:#x}, the size of the enclave"
    return f"length {size - offset:#x} or less: the enclave ends at offset {size:#x}"


def _size(call: RefusedCall) -> str:
    size = call.fields["size"]
    power = size_for(size)
    return f"SIZE {min(power, _largest(call)):#x}, and BASEADDR a multiple of it"


def _largest(call: RefusedCall) -> int:
    """The largest SIZE that ECREATE takes."""
    return 1 << call.kernel.processor.part.max_size_64 - 1


def _file_size(call: RefusedCall) -> str:
    return f"SIZE {_largest(call):#x} or less, which is what ECREATE takes, too"


def _before_init(call: RefusedCall) -> str:
    if not call.fields["created"]:
        return _CREATE
    if not call.kernel.has_sgx2:
        return "add all pages before INIT"
    return "add it before INIT, or touch the address from inside (EAUG), and EACCEPT it"


def _init(call: RefusedCall) -> str:
    if not call.fields["created"]:
        return _CREATE
    return f"{_NOTHING}: the enclave is initialised, and can be entered"


def _running(call: RefusedCall) -> str:
    missing = "SGX_IOC_ENCLAVE_INIT" if call.fields["created"] else "SGX_IOC_ENCLAVE_CREATE"
    return f"{missing} first"


def _secinfo_flags(call: RefusedCall) -> str:
    return f"SECINFO.FLAGS {call.fields['flags'] & (RWX | 0xFF00):#x}"


def _attributes(call: RefusedCall) -> str:
    excess = call.fields["attributes"]
    token = "open /dev/sgx_provision, and SGX_IOC_ENCLAVE_PROVISION before INIT"
    if excess == ATTR_PROVISIONKEY:
        return token
    rest = f"leave the bits {excess & ~ATTR_PROVISIONKEY:#x} out of SECS.ATTRIBUTES"
    return f"{rest}; {token}" if excess & ATTR_PROVISIONKEY else rest


def _with_r(call: RefusedCall) -> str:
    return f"permissions with R: {call.fields['permissions'] & RWX | R}"


def _type(call: RefusedCall) -> str:
    """The page has a type for which the request is refused."""
    kind = call.fields["page_type"]
    if kind == PT_TRIM:
        return "EACCEPT(TRIM MODIFIED) and REMOVE_PAGES; the next touch adds a fresh page (EAUG)"
    if kind == PT_TCS and call.fields.get("new_type") == PT_TCS:
        return f"{_NOTHING}: the page is a TCS"
    assert kind in (PT_TCS, PT_REG), f"page type {kind}"
    return "a page of type REG: a TCS has no permissions, and can only be trimmed"


def _cap_of_tcs(call: RefusedCall) -> str:
    return "a page added with R and W, or by a touch (EAUG): its cap cannot be raised"


def _not_trimmed(call: RefusedCall) -> str:
    return "MODIFY_TYPES(PT_TRIM), and EACCEPT(TRIM MODIFIED) from inside the enclave"


def _range(call: RefusedCall) -> str:
    base, size = call.fields["base"], call.fields["size"]
    return f"an address and a length within {base:#x} to {base + size:#x}"


def _cap(call: RefusedCall) -> str:
    fields, version = call.fields, call.kernel.version
    if version.interface.has_relax:
        return "RELAX_PERMISSIONS by the host first; what the page was added without stays refused"
    again = "ADD_PAGES with a SECINFO that has them"
    if fields["prot"] & ~version.eaug_cap:
        return f"to have these rights: {again}"
    return f"{again}, or EAUG (touch a hole) and accept inside"


def _another_range(call: RefusedCall) -> str:
    return "an address where nothing is mapped, or MAP_FIXED to replace what is"


def _aligned(call: RefusedCall) -> str:
    return f"address {call.fields['address'] & ~PAGE_MASK:#x}, the page that contains it"


def _low(call: RefusedCall) -> str:
    return f"an address from {DEFAULT_MMAP_MIN_ADDR:#x} on, or CAP_SYS_RAWIO"


def _prot(call: RefusedCall) -> str:
    return f"prot {call.fields['flags'] & RWX:#x}"


def _hole(call: RefusedCall) -> str:
    address = call.fields["address"]
    return f"mmap the page at {address & ~PAGE_MASK:#x} first, or leave it out"


def _may(call: RefusedCall) -> str:
    return (
        f"open /dev/sgx_enclave with O_RDWR before mmap; prot {call.fields['may']:#x} is permitted"
    )


def _within_area(call: RefusedCall) -> str:
    return f"an old length of {call.fields['length']:#x} or less: there the area ends"


def _madvise(call: RefusedCall) -> str:
    advice = call.arguments.get("advice", -1)
    return f"{_GIVEN_BACK}; or {_MADVISE}" if advice in _GIVES_BACK else _MADVISE


def _production(call: RefusedCall) -> str:
    bits = ATTR_DEBUG | ATTR_MODE64BIT
    return f"build the enclave with ATTRIBUTES.DEBUG ({bits:#x} with MODE64BIT)"


ADVICE: Final[dict[str, str | Callable[[RefusedCall], str]]] = {
    "sgx_ioctl.busy": "wait until the other ioctl of this enclave has returned, and try again",
    "sgx_ioctl.request": _request,
    "sgx_provision_fops.request": "ask a descriptor of /dev/sgx_enclave",
    "kmalloc.memory": _MEMORY,
    "copy_from_user.address": _readable,
    "copy_to_user.address": _writable,
    "sgx_validate_offset_length.offset": _offset,
    "sgx_validate_offset_length.length": _length,
    "sgx_validate_offset_length.end": _end,
    "sgx_alloc_epc_page.full": (
        "a larger --epc, or close an enclave; SECS and VA pages stay in EPC"
    ),
    "sgx_alloc_epc_page.short": "try again: ksgxd makes room; or a larger --epc",
    "sgx_alloc_epc_page.signal": _SIGNAL,
    "sgx_alloc_va_page.EPA": _FRESH,
    "sgx_encl_get_backing.memory": _MEMORY,
    "__sgx_encl_eldu.ELDU": f"{_FRESH}: the contents of the page are lost",
    "__sgx_encl_load_page.reclaimed": _AGAIN,
    "sgx_encl_load_page.absent": _ADDED,
    "sgx_encl_load_page_in_vma.absent": _ADDED,
    "sgx_encl_load_page_in_vma.cap": "mprotect the area to no more than the cap",
    "sgx_ioc_enclave_create.created": (
        "open /dev/sgx_enclave again: each open makes another enclave"
    ),
    "sgx_encl_create.size": _size,
    "shmem_file_setup.size": _file_size,
    "sgx_encl_create.ECREATE": _AGAIN_LEAF,
    "sgx_ioc_enclave_add_pages.state": _before_init,
    "sgx_ioc_enclave_add_pages.src": "copy the contents to an address that is a multiple of 4096",
    "sgx_ioc_enclave_add_pages.signal": _SIGNAL,
    "sgx_validate_secinfo.type": "SECINFO.FLAGS 0x200 with R, W, X for PT_REG, or 0x100 for PT_TCS",
    "sgx_validate_secinfo.write": _with_r,
    "sgx_validate_secinfo.tcs": "SECINFO.FLAGS 0x100: the processor gives a TCS no permissions",
    "sgx_validate_secinfo.reserved": _secinfo_flags,
    "sgx_validate_secinfo.bytes": _ZEROES,
    "sgx_encl_add_page.present": "another offset: each page is added once",
    "__sgx_encl_add_page.noexec": (
        "copy the contents to memory that does not come from a noexec mount"
    ),
    "get_user_pages.address": "map readable memory at src, as long as length, outside enclaves",
    "__sgx_encl_add_page.EADD": _AGAIN_LEAF,
    "__sgx_encl_extend.EEXTEND": _FRESH,
    "sgx_ioc_enclave_init.state": _init,
    "sgx_ioc_enclave_init.vendor": "sign again with VENDOR 0: softsgx sign --vendor 0",
    "sgx_encl_init.attributes": _attributes,
    "sgx_encl_init.signal": _SIGNAL,
    "sgx_encl_init.EINIT": _AGAIN_LEAF,
    "sgx_set_attribute.file": "open /dev/sgx_provision, and pass its descriptor",
    "sgx_ioc_sgx2_ready.sgx2": "run without --sgx1, on a processor with SGX2",
    "sgx_ioc_sgx2_ready.initialised": _running,
    "sgx_ioc_enclave_restrict_permissions.permissions": "permissions of 0 to 7: R 1, W 2, X 4",
    "sgx_ioc_enclave_restrict_permissions.write": _with_r,
    "sgx_ioc_enclave_restrict_permissions.read": _with_r,
    "sgx_ioc_enclave_restrict_permissions.result": _CLEAR,
    "sgx_enclave_restrict_permissions.type": _type,
    "sgx_enclave_restrict_permissions.EMODPR": _AGAIN,
    "sgx_enclave_etrack.ETRACK": "try again: every processor inside must leave once",
    "sgx_ioc_enclave_modify_types.page_type": _NEW_TYPE,
    "sgx_ioc_enclave_modify_types.result": _CLEAR,
    "sgx_enclave_modify_types.page_type": _NEW_TYPE,
    "sgx_enclave_modify_types.type": _type,
    "sgx_enclave_modify_types.rights": _cap_of_tcs,
    "sgx_enclave_modify_types.reclaimed": _AGAIN,
    "sgx_enclave_modify_types.EMODT": _AGAIN,
    "sgx_ioc_enclave_remove_pages.count": _COUNT,
    "sgx_encl_remove_pages.type": _not_trimmed,
    "sgx_encl_remove_pages.EMODPR": "EACCEPT(TRIM MODIFIED) from inside the enclave",
    "sgx_encl_remove_pages.reclaimed": _AGAIN,
    "sgx_perm_from_user_secinfo.flags": "SECINFO.FLAGS with R 1, W 2, X 4 only",
    "sgx_perm_from_user_secinfo.bytes": _ZEROES,
    "sgx_perm_from_user_secinfo.write": _with_r,
    "sgx_perm_from_user_secinfo.read": _with_r,
    "sgx_ioc_enclave_relax_perm.count": _COUNT,
    "sgx_enclave_relax_perm.absent": "a page that was added",
    "sgx_enclave_relax_perm.type": _type,
    "sgx_enclave_relax_perm.cap": _WITHIN_CAP,
    "sgx_ioc_enclave_restrict_perm.result": _CLEAR,
    "sgx_enclave_restrict_perm.type": _type,
    "sgx_enclave_restrict_perm.cap": _WITHIN_CAP,
    "sgx_enclave_restrict_perm.reclaimed": _AGAIN,
    "sgx_enclave_restrict_perm.EMODPR": _AGAIN,
    "sgx_ioc_enclave_modt.flags": "SECINFO.FLAGS 0x100 (PT_TCS) or 0x400 (PT_TRIM)",
    "sgx_ioc_enclave_modt.bytes": _ZEROES,
    "sgx_ioc_enclave_modt.result": _CLEAR,
    "sgx_drv_init.launch_control": "run without --cpu-option launch_control=0",
    "path_openat.name": "open /dev/sgx_enclave or /dev/sgx_provision",
    "build_open_flags.flags": "open it with O_RDWR, and O_CLOEXEC if you like",
    "alloc_fd.limit": "close a descriptor first",
    "fget.fd": "a descriptor that open returned and that is not closed",
    "fget.mode": "it cannot be read or written: use mmap and ioctl",
    "sgx_encl_fops.operation": "the node does not support it: use mmap and ioctl",
    "sys_mmap.offset": "offset 0: for a node it does not matter",
    "ksys_mmap_pgoff.hugetlb": "leave MAP_HUGETLB out: EPC has pages of 4096 bytes",
    "do_mmap.length": "length 0x1000 or more",
    "do_mmap.map_count": _AREAS,
    "do_mmap.noreplace": _another_range,
    "do_mmap.type": "MAP_SHARED",
    "do_mmap.flags": "MAP_SHARED",
    "do_mmap.write": _OPENED,
    "do_mmap.read": _OPENED,
    "do_mmap.noexec": "mount /dev without noexec, or map it without PROT_EXEC",
    "do_mmap.no_mmap": "map a descriptor of /dev/sgx_enclave",
    "do_mmap.growsdown": "leave MAP_GROWSDOWN out",
    "__get_unmapped_area.length": f"a shorter length: the user half ends at {TASK_SIZE:#x}",
    "__get_unmapped_area.end": f"an address and a length that end below {TASK_SIZE:#x}",
    "__get_unmapped_area.aligned": _aligned,
    "vm_unmapped_area.space": "a shorter length, or munmap something",
    "security_mmap_addr.low": _low,
    "do_vmi_munmap.range": f"an aligned address, and a length that is not 0, below {TASK_SIZE:#x}",
    "split_vma.map_count": _AREAS,
    "do_mprotect_pkey.aligned": _aligned,
    "do_mprotect_pkey.end": _NO_WRAP,
    "do_mprotect_pkey.prot": _prot,
    "do_mprotect_pkey.pkey": "pkey -1, or mprotect",
    "do_mprotect_pkey.hole": _hole,
    "mprotect_fixup.may": _may,
    "sys_mremap.flags": "MREMAP_MAYMOVE, with MREMAP_FIXED to choose the address",
    "sys_mremap.maymove": "MREMAP_MAYMOVE as well",
    "sys_mremap.dontunmap": _WHOLE,
    "sys_mremap.aligned": _aligned,
    "sys_mremap.new_length": "munmap, if nothing is to be left",
    "mremap_to.range": f"an aligned new address, and a range that ends below {TASK_SIZE:#x}",
    "mremap_to.overlap": "a new range that is apart from the old one",
    "mremap_to.map_count": _AREAS,
    "vma_to_resize.hole": _hole,
    "vma_to_resize.private": "the length of the area as the old length",
    "vma_to_resize.dontunmap": _WHOLE,
    "vma_to_resize.beyond": _within_area,
    "vma_to_resize.grow": "mmap the further pages of the enclave",
    "do_madvise.advice": _MADVISE,
    "do_madvise.aligned": _aligned,
    "do_madvise.end": _NO_WRAP,
    "do_madvise.hole": _hole,
    "madvise_remove.write": _madvise,
    "madvise_vma_behavior.advice": _madvise,
    "sys_mlock2.flags": "flags 0 or 1 (MLOCK_ONFAULT)",
    "sys_mlockall.flags": "flags 1 (MCL_CURRENT), 2 (MCL_FUTURE) or 3, and 4 (MCL_ONFAULT) besides",
    "do_mlock.limit": "a larger RLIMIT_MEMLOCK; enclave memory needs no mlock",
    "madvise_inject_error.superuser": "CAP_SYS_ADMIN",
    "do_mlock.end": _NO_WRAP,
    "apply_vma_lock_flags.hole": _hole,
    "sys_msync.flags": "flags 1 (MS_ASYNC), with 2 (MS_INVALIDATE) if you like",
    "sys_msync.aligned": _aligned,
    "sys_msync.hole": _hole,
    "vfs_fsync_range.none": "MS_ASYNC, or nothing: enclave memory is in no file",
    "sgx_get_unmapped_area.private": "MAP_SHARED",
    "sgx_encl_may_map.range": _range,
    "sgx_encl_may_map.personality": "run the program without READ_IMPLIES_EXEC (setarch -X)",
    "sgx_encl_may_map.cap": _cap,
    "sgx_encl_mm_add.signal": "let the handler run, and call again",
    "__vdso_sgx_enter_enclave.function": "function 2 (EENTER) or 3 (ERESUME)",
    "__vdso_sgx_enter_enclave.reserved": "clear the structure before its first use",
    "sgx_vma_access.unregistered": "map /dev/sgx_enclave again in that process",
    "sgx_vma_access.production": _production,
    "sgx_vma_access.EDBGRD": _DEBUGGABLE,
    "sgx_vma_access.EDBGWR": _DEBUGGABLE,
    "access_process_vm.exited": _RUNS,
    "access_process_vm.hole": "an address that is mapped in that process",
    "process_vm_rw.exited": _RUNS,
    "process_vm_rw.pages": (
        "an address that is mapped; enclave memory is read by /proc/PID/mem or PTRACE_PEEKDATA,"
        " of a debug enclave"
    ),
}

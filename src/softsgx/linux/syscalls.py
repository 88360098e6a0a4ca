"""System calls that touch enclaves. Linux 6.12, fs/open.c, fs/ioctl.c, mm/mmap.c, mm/mprotect.c, ..

Each is a generator that returns what the system call returns: a value, or a negated errno.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import (
    EACCES,
    EBADF,
    EEXIST,
    EFAULT,
    EINTR,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOMEM,
    EOPNOTSUPP,
    EPERM,
    ERESTARTSYS,
)
from softsgx.linux.mm import (
    TASK_SIZE,
    VM_DONTCOPY,
    VM_RWX,
    Mm,
    SharedMemory,
    Vma,
    page_aligned_range,
    private_frames,
)
from softsgx.linux.process import InKernel, Process, Thread, kernel_entry
from softsgx.linux.smp import flush_tlb_mm, smp_send_reschedule
from softsgx.linux.trace import refused, refused_call, traced
from softsgx.linux.uapi import (
    LEGACY_MAP_MASK,
    MAP_ANONYMOUS,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_TYPE,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_READ,
    PROT_SEM,
    PROT_WRITE,
)
from softsgx.linux.vfs import O_RDWR, File
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_PFN_MASK
from softsgx.sim import WAIT, Unmodelled
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.sim import Steps

SGX_ENCLAVE = "/dev/sgx_enclave"
SGX_PROVISION = "/dev/sgx_provision"


# Descriptors


@kernel_entry
def sys_open(current: Thread, path: str, mode: int = O_RDWR) -> Steps[int]:
    """open(2) of an SGX node; an open /dev/sgx_enclave is a new, empty enclave."""
    kernel = current.kernel
    process = _process(current)
    if not kernel.has_nodes:
        return refused_call(current, "open", ENOENT, "sgx_drv_init.launch_control")
    if path not in (SGX_ENCLAVE, SGX_PROVISION):
        return refused_call(current, "open", ENOENT, "path_openat.name")
    file = yield from kernel.driver.open(current, path, mode)
    if isinstance(file, int):
        return refused_call(current, "open", -file, "kmalloc.memory")
    fd = process.install_fd(file)
    if fd < 0:
        yield from file.put(current)
        return refused_call(current, "open", -fd, "alloc_fd.limit")
    return fd


@kernel_entry
def sys_dup(current: Thread, fd: int) -> Steps[int]:
    """dup(2): the same description, so the same enclave."""
    process = _process(current)
    file = process.fget(fd)
    if isinstance(file, int):
        return refused_call(current, "dup", -file, "fget.fd", fd=fd)
    file.get()
    new = process.install_fd(file)
    if new < 0:
        yield from file.put(current)
        return refused_call(current, "dup", -new, "alloc_fd.limit")
    return new


@kernel_entry
def sys_close(current: Thread, fd: int) -> Steps[int]:
    """close(2)."""
    file = _process(current).files.pop(fd, None)
    if file is None:
        return refused_call(current, "close", EBADF, "fget.fd", fd=fd)
    yield from file.put(current)
    return 0


@kernel_entry
def sys_ioctl(current: Thread, fd: int, cmd: int, arg: int) -> Steps[int]:
    """ioctl(2). -ERESTARTSYS becomes -EINTR: a handler without SA_RESTART ran."""
    file = _process(current).fget(fd)
    if isinstance(file, int):
        return refused_call(current, "ioctl", -file, "fget.fd", fd=fd)
    file.get()
    ret = yield from file.f_op.ioctl(current, file, cmd, arg)
    yield from file.put(current)
    return -EINTR if ret == -ERESTARTSYS else ret


def sys_read_write(current: Thread, fd: int, *, write: bool) -> Steps[int]:
    """read(2) and write(2): no SGX node has either."""
    file = _process(current).fget(fd)
    name = "write" if write else "read"
    if isinstance(file, int):
        return refused_call(current, name, -file, "fget.fd", fd=fd)
    if not (file.writable if write else file.readable):
        return refused_call(current, name, EBADF, "fget.mode", fd=fd)
    return refused_call(current, name, EINVAL, "sgx_encl_fops.operation", fd=fd)
    yield


# Mappings


@kernel_entry
@traced
def sys_mmap(
    current: Thread,
    address: int,
    length: int,
    prot: int,
    flags: int,
    fd: int = -1,
    offset: int = 0,
) -> Steps[int]:
    """mmap(2) of anonymous memory or of an SGX node, which ignores the file offset."""
    if offset & PAGE_MASK:
        return refused(current, EINVAL, "sys_mmap.offset", offset=offset)
    mm = current.mm
    file: File | None = None
    if not flags & MAP_ANONYMOUS:
        found = _process(current).fget(fd)
        if isinstance(found, int):
            return refused(current, -found, "fget.fd", fd=fd)
        if flags & MAP_HUGETLB:
            return refused(current, EINVAL, "ksys_mmap_pgoff.hugetlb")
        file = found
        file.get()
    with (yield from mm.mmap_lock.acquire_write()):
        ret, dead = yield from do_mmap(current, file, address, length, prot, flags, offset)
    if file is not None:
        dead.append(file)
    yield from _put_files(current, dead)
    return ret


def do_mmap(
    current: Thread,
    file: File | None,
    address: int,
    length: int,
    prot: int,
    flags: int,
    offset: int,
) -> Steps[tuple[int, list[File]]]:
    """The part under mmap_lock: the address or an errno, and files whose areas were unmapped."""
    mm = current.mm
    if not length:
        return refused(current, EINVAL, "do_mmap.length"), []
    noexec = file is not None and current.kernel.dev_noexec
    if mm.read_implies_exec and prot & PROT_READ and not noexec:
        prot |= PROT_EXEC
    length = (length + PAGE_MASK) & ~PAGE_MASK
    if len(mm.vmas) > mm.max_map_count:
        return refused(current, ENOMEM, "do_mmap.map_count", limit=mm.max_map_count), []
    start = _get_unmapped_area(current, file, address, length, flags)
    if start < 0:
        return start, []
    end = start + length
    if flags & MAP_FIXED_NOREPLACE and next(mm.for_each_vma(start, end), None) is not None:
        return refused(current, EEXIST, "do_mmap.noreplace", address=start), []
    error = _mmap_type_error(current, file, prot, flags, noexec)
    if error:
        return error, []
    unmapped = yield from _unmap_locked(current, start, end)
    if isinstance(unmapped, int):
        return unmapped, []
    vma = Vma(start, end, prot & VM_RWX, file=file, offset=offset if file is not None else 0)
    if file is None and flags & MAP_TYPE == MAP_SHARED:
        vma.shared = SharedMemory(current.kernel)
    if file is not None:
        # VM_MAYWRITE, VM_MAYEXEC: what mprotect may grant later.
        vma.may &= ~(0 if file.writable else PROT_WRITE) & ~(PROT_EXEC if noexec else 0)
        assert file.f_op.mmap is not None
        ret = yield from file.f_op.mmap(current, file, vma)
        if ret:
            return ret, unmapped  # what was mapped there before is gone already
    mm.insert(vma)
    return start, unmapped


def _get_unmapped_area(
    current: Thread, file: File | None, address: int, length: int, flags: int
) -> int:
    """__get_unmapped_area: the address to map to, checked, or an errno."""
    mm = current.mm
    fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)
    if not fixed:
        address &= ~PAGE_MASK
        if address:
            address = max(address, mm.mmap_min_addr)
    if length > TASK_SIZE:
        return refused(current, ENOMEM, "__get_unmapped_area.length", length=length)
    if file is not None and (choose := file.f_op.get_unmapped_area) is not None:
        start = choose(current, address, length, flags | (MAP_FIXED if fixed else 0))
    else:
        start = address if fixed else mm.get_unmapped_area(address, length)
    if start == -ENOMEM:
        return refused(current, ENOMEM, "vm_unmapped_area.space", length=length)
    if start < 0:
        return start
    checked = page_aligned_range(start, length)
    if checked == -ENOMEM:
        return refused(current, ENOMEM, "__get_unmapped_area.end", address=start, length=length)
    if isinstance(checked, int):
        return refused(current, EINVAL, "__get_unmapped_area.aligned", address=start)
    if start < mm.mmap_min_addr:
        return refused(current, EPERM, "security_mmap_addr.low", address=start)
    return start


def _mmap_type_error(
    current: Thread, file: File | None, prot: int, flags: int, noexec: bool
) -> int:
    """The switch over MAP_TYPE in do_mmap: 0, or the errno that refuses this kind of mapping."""
    kind = flags & MAP_TYPE
    if kind == MAP_DROPPABLE and file is None:
        raise Unmodelled("mmap of anonymous memory with MAP_DROPPABLE")
    if file is None:
        if kind in (MAP_SHARED, MAP_PRIVATE):
            return 0
        return refused(current, EINVAL, "do_mmap.type", flags=flags)
    if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
        return refused(current, EINVAL, "do_mmap.type", flags=flags)
    if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
        return refused(current, EOPNOTSUPP, "do_mmap.flags", flags=flags)
    if kind != MAP_PRIVATE and prot & PROT_WRITE and not file.writable:
        return refused(current, EACCES, "do_mmap.write")
    if not file.readable:
        return refused(current, EACCES, "do_mmap.read")
    if noexec and prot & PROT_EXEC:
        return refused(current, EPERM, "do_mmap.noexec")
    if file.f_op.mmap is None:
        return refused(current, ENODEV, "do_mmap.no_mmap")
    if flags & MAP_GROWSDOWN:
        return refused(current, EINVAL, "do_mmap.growsdown")
    return 0


@kernel_entry
@traced
def sys_munmap(current: Thread, address: int, length: int) -> Steps[int]:
    """munmap(2). It frees no EPC page, and the enclave keeps the address space in its list."""
    checked = page_aligned_range(address, length)
    if isinstance(checked, int):
        return refused(current, EINVAL, "do_vmi_munmap.range", address=address, length=length)
    start, end = checked
    with (yield from current.mm.mmap_lock.acquire_write()):
        unmapped = yield from _unmap_locked(current, start, end, downgrade=True)
    if isinstance(unmapped, int):
        return unmapped
    yield from _put_files(current, unmapped)
    return 0


def _unmap_locked(
    current: Thread, start: int, end: int, *, downgrade: bool = False
) -> Steps[int | list[File]]:
    """Unmap [start, end). Returns the files to put, or -ENOMEM if a split failed.

    With `downgrade` PTEs are zapped with mmap_lock held for reading, so faults elsewhere go on.
    """
    mm = current.mm
    areas = mm.isolate(start, end)
    if isinstance(areas, int):
        return _no_split(current, -areas)
    for vma in areas:
        mm.remove(vma)
    if areas and downgrade:
        mm.mmap_lock.downgrade()
    yield from _unmap_vmas(current, mm, areas)
    return [vma.file for vma in areas if vma.file is not None]


def _no_split(current: Thread, errno: int) -> int:
    """The return of a call that cannot split an area."""
    return refused(current, errno, "split_vma.map_count", limit=current.mm.max_map_count)


def _unmap_vmas(current: Thread, mm: Mm, areas: list[Vma]) -> Steps[None]:
    """unmap_vmas and tlb_finish_mmu: zap PTEs, flush TLBs, then free what was mapped.

    Each area of raw pfns (an enclave) is flushed by itself, the others in one flush. Where there
    was no PTE no flush is needed.
    """
    frames, flush = [], False
    for vma in areas:
        yield ("pte", (mm.name, vma.start), True)
        zapped = mm.zap_page_range(vma.start, vma.end)
        flush |= bool(zapped)
        if vma.sgx and flush:
            yield from flush_tlb_mm(current, mm)
            flush = False
        frames += private_frames(vma, zapped)
    if flush:
        yield from flush_tlb_mm(current, mm)
    _free_memory(mm, areas, frames)


def _free_memory(mm: Mm, areas: list[Vma], frames: list[int]) -> None:
    """Free the memory of unmapped areas, after the TLB flush."""
    for pfn in frames:
        mm.kernel.free_page(pfn)
    for vma in areas:
        if vma.shared is not None:
            vma.shared.put()


def _put_files(current: Thread, files: list[File]) -> Steps[None]:
    for file in files:
        yield from file.put(current)


@kernel_entry
@traced
def sys_mprotect(current: Thread, address: int, length: int, prot: int) -> Steps[int]:
    """mprotect(2): areas are split as needed, one by one, and PTEs rewritten at once.

    An error part of the way leaves the earlier areas changed, and the splits made.
    """
    return (yield from do_mprotect_pkey(current, address, length, prot, -1))


@kernel_entry
@traced
def sys_pkey_mprotect(
    current: Thread, address: int, length: int, prot: int, pkey: int
) -> Steps[int]:
    """pkey_mprotect(2). The processor has no protection keys: only pkey -1 (none) is valid."""
    return (yield from do_mprotect_pkey(current, address, length, prot, pkey))


def do_mprotect_pkey(
    current: Thread, address: int, length: int, prot: int, pkey: int
) -> Steps[int]:
    """The body of mprotect and pkey_mprotect."""
    mm = current.mm
    rule = "do_mprotect_pkey"
    if address & PAGE_MASK:
        return refused(current, EINVAL, f"{rule}.aligned", address=address)
    if not length:
        return 0
    end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
    if end >= 1 << 64:
        return refused(current, ENOMEM, f"{rule}.end", address=address, length=length)
    if prot & ~(VM_RWX | PROT_SEM):
        return refused(current, EINVAL, f"{rule}.prot", flags=prot)
    prot &= VM_RWX
    read_implies_exec = mm.read_implies_exec and bool(prot & PROT_READ)
    with (yield from mm.mmap_lock.acquire_write()):
        if pkey != -1:
            return refused(current, EINVAL, f"{rule}.pkey", pkey=pkey)
        at = address
        while at < end:
            vma = mm.vma_lookup(at)
            if vma is None:
                return refused(current, ENOMEM, f"{rule}.hole", address=at)
            stop = min(vma.end, end)
            wanted = prot | (vma.may & PROT_EXEC if read_implies_exec else 0)
            ret = yield from mprotect_fixup(current, vma, at, stop, wanted)
            if ret:
                return ret
            at = stop
    return 0


def mprotect_fixup(current: Thread, vma: Vma, start: int, end: int, prot: int) -> Steps[int]:
    """One area of an mprotect call, with the tests that do_mprotect_pkey has in the kernel.

    mmap_lock held for writing.
    """
    mm = current.mm
    if prot & ~vma.may:
        rule = "mprotect_fixup.may"
        return refused(current, EACCES, rule, address=start, prot=prot, may=vma.may)
    if vma.sgx:
        ret = yield from current.kernel.driver.mprotect(current, vma, start, end, prot)
        if ret:
            return ret
    flush = False
    if vma.flags != prot:
        if start > vma.start:
            ret = mm.split_vma(vma, start)
            if ret:
                return _no_split(current, -ret)
            vma = mm.vma_lookup(start) or vma
        if end < vma.end:
            ret = mm.split_vma(vma, end)
            if ret:
                return _no_split(current, -ret)
        vma.flags = prot
        yield ("pte", (mm.name, start), True)
        flush = mm.change_protection(vma, start, end)
    design = current.kernel.design
    if vma.encl is not None:
        flush |= design.change_ptes(mm, vma.encl, start, end)
    if flush:
        yield from flush_tlb_mm(current, mm)
    if vma.encl is not None:
        return (yield from design.after_mprotect(current, vma.encl, start, end, prot))
    return 0


@kernel_entry
@traced
def sys_mremap(
    current: Thread, old: int, old_length: int, new_length: int, flags: int, new: int = 0
) -> Steps[int]:
    """mremap(2): an SGX area never grows; moved PTEs are useless, since the EPCM refuses them."""
    mm = current.mm
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP):
        return refused(current, EINVAL, "sys_mremap.flags", flags=flags)
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
        return refused(current, EINVAL, "sys_mremap.maymove", flags=flags)
    if flags & MREMAP_DONTUNMAP and old_length != new_length:
        return refused(current, EINVAL, "sys_mremap.dontunmap", flags=flags)
    if old & PAGE_MASK:
        return refused(current, EINVAL, "sys_mremap.aligned", address=old)
    old_length = (old_length + PAGE_MASK) & ~PAGE_MASK
    new_length = (new_length + PAGE_MASK) & ~PAGE_MASK
    if not new_length:
        return refused(current, EINVAL, "sys_mremap.new_length")
    with (yield from mm.mmap_lock.acquire_write()):
        ret, files = yield from _mremap(current, old, old_length, new_length, flags, new)
    yield from _put_files(current, files)
    return ret


def _mremap(
    current: Thread, old: int, old_length: int, new_length: int, flags: int, new: int
) -> Steps[tuple[int, list[File]]]:
    """The part under mmap_lock: the address or an errno, and files whose areas were unmapped."""
    mm = current.mm
    if mm.vma_lookup(old) is None:
        return refused(current, EFAULT, "vma_to_resize.hole", address=old), []
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        return (yield from _mremap_to(current, old, old_length, new_length, flags, new))
    if new_length > old_length:
        return _vma_to_resize(current, old, old_length, new_length, flags), []
    if new_length == old_length:
        return old, []
    start, end = old + new_length, old + old_length
    if end > TASK_SIZE:
        return refused(
            current, EINVAL, "do_vmi_munmap.range", address=start, length=end - start
        ), []
    cut = yield from _unmap_locked(current, start, end, downgrade=True)
    return (cut, []) if isinstance(cut, int) else (old, cut)


def _mremap_to(
    current: Thread, old: int, old_length: int, new_length: int, flags: int, new: int
) -> Steps[tuple[int, list[File]]]:
    """Move to a given address. What is mapped there is unmapped first, even if the move fails."""
    mm = current.mm
    if new & PAGE_MASK or new + new_length > TASK_SIZE:
        rule = "mremap_to.range"
        return refused(current, EINVAL, rule, address=new, length=new_length), []
    if new < old + old_length and old < new + new_length:
        return refused(current, EINVAL, "mremap_to.overlap", address=new), []
    if len(mm.vmas) + 2 >= mm.max_map_count - 3:
        return refused(current, ENOMEM, "mremap_to.map_count", limit=mm.max_map_count), []
    if mm.kernel.version.mremap_checks_first and flags & MREMAP_FIXED:
        if _vma_to_resize(current, old, old_length, new_length, flags):
            raise Unmodelled(
                "mremap to a fixed address, of several areas or refused, on Linux 6.18"
            )
    gone: list[File] = []
    cleared = [(new, new + new_length)] if flags & MREMAP_FIXED else []
    if new_length < old_length:
        cleared.append((old + new_length, old + old_length))
        old_length = new_length
    for start, end in cleared:
        if end > TASK_SIZE:
            length = end - start
            return refused(
                current, EINVAL, "do_vmi_munmap.range", address=start, length=length
            ), gone
        files = yield from _unmap_locked(current, start, end)
        if isinstance(files, int):
            return files, gone
        gone += files
    error = _vma_to_resize(current, old, old_length, new_length, flags)
    if not error and new < mm.mmap_min_addr:
        error = refused(current, EPERM, "security_mmap_addr.low", address=new)
    if error:
        return error, gone
    return (yield from _move(current, old, new_length, new, gone))


def _vma_to_resize(current: Thread, old: int, old_length: int, new_length: int, flags: int) -> int:
    """0 if the area may be moved and resized, else an errno.

    An SGX area (VM_PFNMAP) may be moved; it may neither grow nor stay mapped (MREMAP_DONTUNMAP).
    """
    vma = current.mm.vma_lookup(old)
    rule = "vma_to_resize"
    if vma is None:
        return refused(current, EFAULT, f"{rule}.hole", address=old)
    if not old_length and not vma.sgx and vma.shared is None:
        return refused(current, EINVAL, f"{rule}.private", address=old)
    if flags & MREMAP_DONTUNMAP and vma.sgx:
        return refused(current, EINVAL, f"{rule}.dontunmap", address=old)
    if old_length > vma.end - old:
        return refused(current, EFAULT, f"{rule}.beyond", address=old, length=vma.end - old)
    if new_length > old_length and vma.sgx:
        return refused(current, EFAULT, f"{rule}.grow", address=old, length=old_length)
    if new_length > old_length or flags & MREMAP_DONTUNMAP:
        raise Unmodelled("mremap of anonymous memory that grows it or leaves it mapped")
    return 0


def _move(
    current: Thread, old: int, length: int, new: int, gone: list[File]
) -> Steps[tuple[int, list[File]]]:
    """Move an area of unchanged size; no hook of the driver is called."""
    mm = current.mm
    areas = mm.isolate(old, old + length)
    if isinstance(areas, int):
        return _no_split(current, -areas), gone
    flush = False
    for area in areas:
        mm.remove(area)
        offset = new - old
        mm.insert(area.dup(area.start, area.end, offset))
        # `insert` took references for the new area.
        if area.file is not None:
            gone.append(area.file)
        if area.shared is not None:
            area.shared.put()
        for page in mm.pages_mapped(area.start, area.end):
            pte = mm.space.unmap(page << PAGE_SHIFT)
            flush = True
            mm.space.set((page << PAGE_SHIFT) + offset, pte)
    if flush:
        yield from flush_tlb_mm(current, mm)
    return new, gone


# Processes


@kernel_entry
def sys_fork(current: Thread, name: str, cpu: int, process: Process | None = None) -> Steps[Thread]:
    """fork(2): the child shares the enclave, PTEs included; its only thread runs on `cpu`.

    `process` is the child, if it exists already. A pending signal is handled first, unseen by the
    program (-ERESTARTNOINTR); only a later one interrupts anything.
    """
    current.pending_signals = 0
    parent = current.mm
    if process is None:
        process = Process(current.kernel, name)
    child_mm = process.mm
    child_mm.read_implies_exec = parent.read_implies_exec
    with (yield from parent.mmap_lock.acquire_write()):
        # dup_mmap holds both locks until the last entry is copied. Otherwise a concurrent zap would
        # find the child registered for an area it has, and miss one that it is about to get.
        with (yield from child_mm.mmap_lock.acquire_write()):
            yield from _dup_vmas(current, parent, child_mm)
        yield from flush_tlb_mm(current, parent)
    for fd, file in _process(current).files.items():
        file.get()
        process.files[fd] = file
    return Thread(current.kernel, process, name, cpu)


def _dup_vmas(current: Thread, parent: Mm, child: Mm) -> Steps[None]:
    """The loop of dup_mmap: areas, and the pages that the child gets at once."""
    for vma in parent.vmas:
        if vma.advised & VM_DONTCOPY:
            continue
        copy = vma.dup(vma.start, vma.end)
        child.insert(copy)
        if vma.sgx:
            yield from current.kernel.driver.vma_open(current, copy, child)
            _copy_ptes(parent, child, vma)
        elif vma.shared is None:
            _copy_memory(current, parent, child, vma)


def _copy_ptes(parent: Mm, child: Mm, vma: Vma) -> None:
    """PTEs of a shared mapping: neither accessed nor dirty in the child."""
    for page in parent.pages_mapped(vma.start, vma.end):
        child.space.set(page << PAGE_SHIFT, parent.space.ptes[page] & ~(PTE_A | PTE_D))


def _copy_memory(current: Thread, parent: Mm, child: Mm, vma: Vma) -> None:
    """Copy an anonymous area at once: copy-on-write would give the same contents."""
    memory = current.kernel.processor.memory
    for page in range(vma.start, vma.end, PAGE_SIZE):
        pte = parent.space.lookup(page)
        if pte:
            pfn = current.kernel.alloc_page()
            memory.write_page(pfn, memory.read_page((pte & PTE_PFN_MASK) >> PAGE_SHIFT))
            child.space.set(page, pte & ~(PTE_PFN_MASK | PTE_A) | pfn << PAGE_SHIFT)


def exit_mmap(current: Thread, mm: Mm) -> Steps[None]:
    """The address space goes away: notifiers first, then every area."""
    mm.exited = True
    for notifier in mm.notifiers:
        yield from notifier(current)
    mm.notifiers.clear()
    frames, flush = [], False
    with (yield from mm.mmap_lock.acquire_read()):
        for vma in mm.vmas:
            zapped = mm.zap_page_range(vma.start, vma.end)
            flush |= bool(zapped)
            frames += private_frames(vma, zapped)
    with (yield from mm.mmap_lock.acquire_write()):
        if flush:
            yield from flush_tlb_mm(current, mm)
        # The other threads were killed, and no longer run.
        running = current.on_cpu and current.mm is mm
        mm.cpumask = {current.cpu: 1} if running else {}
        areas = list(mm.vmas)
        _free_memory(mm, areas, frames)
        for vma in areas:
            mm.remove(vma)
    yield from _put_files(current, [vma.file for vma in areas if vma.file is not None])


@kernel_entry
def sys_exit_group(current: Thread) -> Steps[int]:
    """exit_group(2): the other threads, then the address space, then the descriptors."""
    process = _process(current)
    yield from _kill_others(current, process)
    yield from exit_mmap(current, process.mm)
    for fd in list(process.files):
        yield from process.files.pop(fd).put(current)
    for thread in process.threads:
        thread.switch_out()
    process.threads.clear()
    return 0


@kernel_entry
def sys_execve(current: Thread) -> Steps[int]:
    """execve(2): the other threads end; a new address space; descriptors stay open."""
    process = _process(current)
    yield from _kill_others(current, process)
    old = process.mm
    current.switch_out()
    process.mm = Mm(current.kernel, old.name)
    current.switch_in()
    yield from exit_mmap(current, old)
    return 0


def _kill_others(current: Thread, process: Process) -> Steps[None]:
    """zap_other_threads: SIGKILL, interrupt their processors, wait until they are gone.

    In the kernel the last thread to exit, not the killer, tears the address space down.
    """
    others = [thread for thread in process.threads if thread is not current]
    for thread in others:
        thread.killed = True
    if others:
        yield from smp_send_reschedule(current, {thread.cpu: None for thread in others})
        leaving = InKernel(others)
        if any(thread.in_kernel for thread in others):
            yield (WAIT, leaving, False)
        # Their processors keep the address space loaded, and are flushed with it, until it is gone.
        cpumask = dict(process.mm.cpumask)
        for thread in others:
            thread.switch_out()
        process.mm.cpumask = cpumask
    process.threads[:] = [current]


def _process(current: Thread) -> Process:
    assert current.process is not None, "a kernel thread makes no system calls"
    return current.process

"""Address spaces: look-ups, PTEs, who runs where, notifiers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINTR, ENOMEM
from softsgx.linux.mm import VM_RWX
from softsgx.linux.smp import flush_tlb_mm, on_each_cpu_mask
from softsgx.mem.pagetable import PTE_A
from softsgx.spec.bits import MASK64

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.driver import CDriver
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.linux.mm import Mm, Vma
    from softsgx.sim import Steps

# struct vm_area_struct of c/include/mm.h: start, end, flags, pgoff, mm, ops, private data, file.
AREA: Final = struct.Struct("<8Q")
_VM_SHARED, _VM_MAYREAD, _VM_MAYSHARE, _VM_PFNMAP, _VM_IO = 0x8, 0x10, 0x80, 0x400, 0x4000
_VM_DONTEXPAND, _VM_DONTDUMP = 0x4_0000, 0x400_0000
_SGX_FLAGS: Final = _VM_PFNMAP | _VM_IO | _VM_DONTEXPAND | _VM_DONTDUMP
_MASK_WORDS: Final = 4
_WORD: Final = 64


def area(driver: CDriver, mm: Mm, vma: Vma, *, mapped: bool = True) -> bytes:
    """An area as the driver sees it; before `mmap` has been called it has no operations yet."""
    flags = vma.flags & VM_RWX | vma.may * _VM_MAYREAD
    ops = private = file = 0
    if vma.file is not None:
        flags |= _VM_SHARED | _VM_MAYSHARE
        file = driver.file_address(vma.file)
        if mapped:
            flags |= _SGX_FLAGS
            ops, private = driver.vm_ops, driver.encl_address(vma)
    return AREA.pack(
        vma.start, vma.end, flags, vma.offset >> 12, driver.mm_address(mm), ops, private, file
    )


def _show(call: Call, mm: Mm, vma: Vma | None, view: int) -> int:
    if vma is None:
        return 0
    call.arena.write(view, area(call.driver, mm, vma))
    return 1


def _find_vma(call: Call, mm: int, address: int, view: int, *_: int) -> int:
    found = call.driver.mm(mm)
    vma = found.find_vma(address)
    if found.user is not None and (vma is None or vma.start > address):
        # The memory of a real process, whose areas the model does not have: it may be executed.
        end = address + 1 if vma is None else vma.start
        flags = VM_RWX | VM_RWX * _VM_MAYREAD
        call.arena.write(view, AREA.pack(address, end, flags, 0, mm, 0, 0, 0))
        return 1
    return _show(call, found, vma, view)


def _vma_lookup(call: Call, mm: int, address: int, view: int, *_: int) -> int:
    found = call.driver.mm(mm)
    return _show(call, found, found.vma_lookup(address), view)


def _mmget(call: Call, mm: int, *_: int) -> int:
    return int(not call.driver.mm(mm).exited)


def _mm_cpumask(call: Call, mm: int, mask: int, *_: int) -> int:
    bits = 0
    for cpu in call.driver.mm(mm).cpumask:
        bits |= 1 << cpu
    if len(call.kernel.processor.lps) > _WORD:
        call.arena.write(mask, (bits >> _WORD).to_bytes(8 * (_MASK_WORDS - 1), "little"))
    return bits & MASK64


def _unmapped_area(call: Call, mm: int, address: int, length: int, *_: int) -> int:
    return call.driver.mm(mm).get_unmapped_area(address, length)


# PTEs


def _insert_pfn(call: Call, mm: int, address: int, pfn: int, flags: int, *_: int) -> Steps[int]:
    found = call.driver.mm(mm)
    yield ("pte", (found.name, address), True)
    call.inserted = True
    return found.insert_pfn(address, pfn, flags & VM_RWX)


def _zap_ptes(call: Call, mm: int, address: int, *_: int) -> Steps[int]:
    found = call.driver.mm(mm)
    yield ("pte", (found.name, address), True)
    if found.space.unmap(address):
        yield from flush_tlb_mm(call.current, found)
    return 0


def _read_pte(call: Call, mm: int, address: int, *_: int) -> int:
    return call.driver.mm(mm).space.lookup(address)


def _set_pte(call: Call, mm: int, address: int, pte: int, *_: int) -> int:
    space = call.driver.mm(mm).space
    if space.lookup(address) & ~PTE_A == pte:
        space.test_and_clear_accessed(address)
    else:
        space.set(address, pte)
    return 0


def _ipi(call: Call, *words: int) -> Steps[int]:
    cpus = [
        _WORD * n + cpu
        for n, word in enumerate(words[:_MASK_WORDS])
        for cpu in range(word.bit_length())
        if word >> cpu & 1
    ]
    yield from on_each_cpu_mask(call.current, cpus)
    return 0


# Notifiers


def _notifier_register(call: Call, notifier: int, mm: int, *_: int) -> int:
    if call.kernel.fail("mmu_notifier_register"):
        return -ENOMEM
    if call.current.signal_pending():
        return -EINTR
    call.driver.add_notifier(notifier, call.driver.mm(mm))
    return 0


def _notifier_unregister(call: Call, notifier: int, mm: int, *_: int) -> Steps[int]:
    return (yield from call.driver.notifiers.pop(notifier).unregister())


def _notifier_put(call: Call, notifier: int, *_: int) -> int:
    call.driver.notifiers.pop(notifier).put = True
    return 0


HANDLERS: Final[Handlers] = {
    "FIND_VMA": _find_vma,
    "VMA_LOOKUP": _vma_lookup,
    "MMGET": _mmget,
    "MM_CPUMASK": _mm_cpumask,
    "UNMAPPED_AREA": _unmapped_area,
    "INSERT_PFN": _insert_pfn,
    "ZAP_PTES": _zap_ptes,
    "READ_PTE": _read_pte,
    "SET_PTE": _set_pte,
    "IPI": _ipi,
    "NOTIFIER_REGISTER": _notifier_register,
    "NOTIFIER_UNREGISTER": _notifier_unregister,
    "NOTIFIER_PUT": _notifier_put,
}

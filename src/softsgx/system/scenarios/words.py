"""Points and pages in the kernel's words, for schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.mem.pagetable import pte_text
from softsgx.mem.tlb import rights_text
from softsgx.sim import BLOCKING, IPI, IRQ, LOCK, RETRY, SRCU, TRYLOCK, WAIT, Point
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import VALID, rwx_text, state_text
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES

if TYPE_CHECKING:
    from softsgx.system.scene import Scene

_LEAVES: Final = frozenset(name for name, _ in (*ENCLS_LEAVES.values(), *ENCLU_LEAVES.values()))

WITHOUT_EPCM: Final = "page"
"""The part of a page's state that says why it has no EPCM entry."""


def point_words(point: Point) -> str:
    """What a task does in the step after a point."""
    kind, touched, write = point
    name = str(getattr(touched, "name", touched)).split("(")[0]
    if kind in _LEAVES and isinstance(touched, tuple):
        return f"{kind} of EPC page {touched[1]}" if touched[1] >= 0 else kind
    if kind in ("load", "store", "fetch") and isinstance(touched, tuple):
        return f"{kind} at {touched[1] << PAGE_SHIFT:#x}"
    if kind == "pte" and isinstance(touched, tuple):
        return f"set PTE of {touched[1]:#x}"
    if kind == "xa_load" and isinstance(touched, tuple):
        return f"#PF: xa_load {touched[1]:#x}"
    if kind == "spin" and isinstance(touched, tuple):
        return f"spin_lock {touched[0].removeprefix('&')}"
    if kind == "memory" and isinstance(touched, tuple):
        return f"{'write' if write else 'read'} memory"
    if kind == "bit" and isinstance(touched, tuple):
        return f"change bit {touched[1]} of a word"
    if kind in (LOCK, TRYLOCK):
        how = "" if not hasattr(touched, "readers") else ", write" if write else ", read"
        return f"{kind} {name}{how}"
    if kind == SRCU:
        return "synchronize_srcu" if write else "srcu_read_lock"
    if kind == IPI and isinstance(touched, tuple):
        return "IPI to cpu " + ", ".join(map(str, touched))
    if kind == IRQ:
        return f"take IPI on {name.removesuffix(' to be interruptible')}"
    if kind == WAIT:
        return f"wait: {name}"
    if kind == RETRY:
        return "try again"
    return f"{kind} {name}" if kind not in BLOCKING else kind


def page_words(scene: Scene, address: int) -> str:
    """VMA, PTE, TLBs and EPCM of a page; under the V2 series, the kernel's mirror of the EPCM."""
    parts = page_parts(scene, address)
    where = parts.pop(WITHOUT_EPCM, None)
    words = [f"{name} {text}" for name, text in parts.items()]
    return " ".join(words if where is None else [*words, where])


def page_parts(scene: Scene, address: int) -> dict[str, str]:
    """VMA, PTE, TLBs and EPCM of a page, by name; WITHOUT_EPCM if it has no EPC page."""
    vma = scene.mm.vma_lookup(address)
    parts = {
        "VMA": rwx_text(vma.flags) if vma is not None else "none",
        "PTE": pte_text(scene.mm.space.lookup(address)),
    }
    for lp in scene.machine.processor.lps:
        held = lp.tlb.entries.get(address >> PAGE_SHIFT)
        if held is not None:
            parts[f"TLB{lp.id}"] = rights_text(held)
    entry = scene.encl.page(address)
    word = scene.epcm_word(address)
    if entry is not None and scene.kernel.version.interface.has_relax:
        parts["mirror"] = rwx_text(entry.vm_run_prot_bits)
    if word is not None:
        parts["EPCM"] = epcm_words(word)
    elif entry is not None:
        parts[WITHOUT_EPCM] = "swapped out" if entry.va_page is not None else "no EPC page"
    else:
        parts[WITHOUT_EPCM] = "hole"
    return parts


def epcm_words(word: int) -> str:
    """An EPCM word as 'REG rw- PENDING'."""
    if not word & VALID:
        return "invalid"
    kind, *flags = state_text(word).split()
    return " ".join([kind, rwx_text(word), *flags])

"""What must be done to an enclave page before it can be used: area, driver, EPCM.

A plan goes by the kernel's record of the address, not by where the page table happens to lead, and
covers all layers: once it is carried out, none of them refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.mm import DEFAULT_MMAP_MIN_ADDR, TASK_SIZE
from softsgx.linux.sgx.backing import PCMDS_PER_PAGE
from softsgx.linux.sgx.encl import SGX_ENCL_INITIALIZED, SgxEncl, SgxEnclPage
from softsgx.report.steps import (
    Accept,
    Again,
    Extend,
    Fresh,
    Init,
    Map,
    MapHost,
    Protect,
    Relax,
    Remove,
    Retype,
    Say,
    Step,
    letters,
    prots,
)
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PT_MASK,
    REG,
    RWX,
    SAVED,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    X,
    rwx_text,
)
from softsgx.spec.paging import PCMD
from softsgx.spec.translation import PTE_NX, PTE_P, PTE_W
from softsgx.system.explain.facts import epc_number

if TYPE_CHECKING:
    from softsgx.system.explain.facts import Facts

FRESH: Final = VALID | REG | R | W | PENDING  # what EAUG makes
EVICTED_NEXT: Final = "the page is being evicted, the next fault loads it"
GONE: Final = "rebuild the enclave: the EPC page was lost (a suspend, or a kernel that freed it)"
STUCK: Final = (
    "rebuild the enclave: no leaf makes a page REG MODIFIED, and only EREMOVE takes it away"
)
NEAR_NULL: Final = "the pointer is near NULL: below 64 KiB no program maps memory"
NO_EPC: Final = "EPC is exhausted and nothing can be evicted: a larger --epc, or fewer pages"


class Page(NamedTuple):
    """The kernel's record of an enclave page, and its EPCM word; 0 if there is none."""

    encl: SgxEncl
    entry: SgxEnclPage | None
    word: int


Plan = tuple[list[Step], str]  # steps, and a note for the reader


def page_of(facts: Facts) -> Page | None:
    """The page of the enclave that the thread is in, else of one that is mapped there."""
    encl = enclave_at(facts)
    if encl is None:
        return None
    entry = encl.page(facts.address)
    if entry is None:
        return Page(encl, None, 0)
    if entry.epc_page is not None:
        return Page(encl, entry, facts.lp.processor.epcm.state[entry.epc_page.number])
    return Page(encl, entry, _evicted(encl, entry))


def enclave_at(facts: Facts) -> SgxEncl | None:
    """The enclave whose range an address lies in."""
    secs = facts.secs
    if secs is None:
        inside = (e for e in _mapped(facts) if e.base <= facts.address < e.base + e.size)
        return next(inside, None)
    if not secs.BASEADDR <= facts.address < secs.elrange_end:
        return None
    # An enclave that is no longer mapped is found by the EPC pages that it still has.
    pages = facts.history.kernel.active_page_list
    owned = (page.owner.encl for page in pages if page.owner is not None)
    return next((e for e in chain(_mapped(facts), owned) if _is(e, secs.page)), None)


def _mapped(facts: Facts) -> Iterator[SgxEncl]:
    """The enclave of the area, then all that the process maps."""
    if facts.encl is not None:
        yield facts.encl
    for vma in facts.mm.vmas if facts.mm is not None else ():
        if vma.encl is not None:
            yield vma.encl


def _is(encl: SgxEncl, secs_page: int) -> bool:
    return encl.secs.epc_page is not None and encl.secs.epc_page.number == secs_page


def _evicted(encl: SgxEncl, entry: SgxEnclPage) -> int:
    """The EPCM word that ELDU will restore, from the PCMD."""
    index = entry.address - encl.base >> PAGE_SHIFT
    page = encl.backing.pcmds.get(index // PCMDS_PER_PAGE)
    if page is None:
        return 0
    at = (page.pfn << PAGE_SHIFT) + index % PCMDS_PER_PAGE * PCMD.SIZE
    return encl.kernel.processor.memory.read_int(at, 8) & SAVED | VALID


# The area and the driver


def area(facts: Facts, right: int) -> Plan:
    """The steps after which ordinary paging permits the access; none if it already does."""
    if facts.address >= TASK_SIZE:
        return [Say("use an address of user space")], ""
    page = page_of(facts)
    if page is None:
        return _host_area(facts, right), ""
    encl, entry, _ = page
    kernel, vma = facts.history.kernel, facts.vma
    if entry is None and not kernel.has_sgx2:
        missing = "no page was added there, and without SGX2 none is on touch: ADD_PAGES"
        return [Say(f"{missing} before INIT")], ""
    own = vma is not None and vma.encl is encl
    held = vma.flags & RWX if vma is not None and own else 0
    cap = facts.cap if entry is None else entry.vm_max_prot_bits
    if right & ~cap:
        return _beyond(facts, page, right, held, cap)
    steps: list[Step] = []
    if entry is None and not encl.flags & SGX_ENCL_INITIALIZED:
        steps.append(Init())
    if kernel.version.interface.has_relax and entry is not None:
        # The mirror limits both the area and the PTE; the rights of areas are not consulted.
        cap = entry.vm_run_prot_bits
        if right & ~cap:
            cap |= right | R
            steps.append(Relax(facts.page, cap))
        held &= cap
    away = _leads_elsewhere(facts, entry)
    if not own or away:
        steps.append(Map(facts.page, (held | right) & cap, own))
    elif right & ~held or held & ~cap:
        steps.append(Protect(facts.page, (held | right) & cap))
    note = ""
    if own and held & ~cap and not away:
        note = (
            f": the driver maps no page whose cap, {rwx_text(cap)}, is below the area,"
            f" {rwx_text(held)}"
        )
    return steps, note


def _host_area(facts: Facts, right: int) -> list[Step]:
    """The steps for an area of ordinary memory."""
    vma, pte = facts.vma, facts.pte
    if vma is None and facts.page < DEFAULT_MMAP_MIN_ADDR:
        return [Say(NEAR_NULL)]
    if vma is None and pte & PTE_P:
        # A real process: only its page tables can be seen.
        held = R | (W if pte & PTE_W else 0) | (0 if pte & PTE_NX else X)
    elif vma is None or vma.sgx:
        return [MapHost(facts.page, right | R)]
    else:
        held = vma.flags & RWX
    return [Protect(facts.page, held | right)] if right & ~held else []


def _leads_elsewhere(facts: Facts, entry: SgxEnclPage | None) -> bool:
    """Whether the PTE leads to a page of another address; an area without rights hides that, and
    mprotect would expose it again."""
    if not facts.pte:
        return False
    resident = entry.epc_page if entry is not None else None
    return resident is None or resident.number != epc_number(facts.lp.processor, facts.pte)


def _beyond(facts: Facts, page: Page, right: int, held: int, cap: int) -> Plan:
    """A right that the kernel's cap of the page lacks: only a new page can have it."""
    kernel = facts.history.kernel
    refused = f"the kernel's cap of the page is {rwx_text(cap)}, mprotect refuses {prots(right)}"
    anew = kernel.has_sgx2 and not right & ~kernel.version.eaug_cap
    if page.entry is None or not anew or not cap or not page.word & VALID:
        words = f"ADD_PAGES before INIT with {letters(right)} in its SECINFO: {refused} (-EACCES)"
        return [Say(words)], ""
    steps: list[Step] = []
    if facts.vma is None or facts.vma.encl is not page.encl or _leads_elsewhere(facts, page.entry):
        steps.append(Map(facts.page, held & cap or cap, bool(held)))
    elif not held or held & ~cap:
        steps.append(Protect(facts.page, held & cap or cap))
    steps += [*renewed(facts, page), Accept(facts.page, FRESH)]
    steps.append(Protect(facts.page, held | right))
    if not kernel.version.interface.has_relax and right & ~FRESH:
        steps.append(Extend(facts.page, right & ~FRESH))
    return steps, f" ({refused}: -EACCES; the contents of the page are lost)"


def renewed(facts: Facts, page: Page) -> list[Step]:
    """Remove a page and let EAUG add a fresh one, which is PENDING."""
    at, word = facts.page, page.word & ~BLOCKED
    steps: list[Step] = [Again(EVICTED_NEXT)] if page.word & BLOCKED else []
    if word & PT_MASK != TRIM:
        if word & (PENDING | MODIFIED):
            steps.append(Accept(at, word))  # EMODT refuses what is not accepted
        steps += [Retype(at, TRIM), Accept(at, TRIM | MODIFIED)]
    elif word & MODIFIED:
        steps.append(Accept(at, TRIM | MODIFIED))
    return [*steps, Remove(at), Fresh(at)]


# The EPCM


def epcm(facts: Facts, page: Page, rights: int) -> Plan:
    """The steps after which the EPCM permits all of these rights, once `area` is carried out."""
    at, word, processor = facts.page, page.word, facts.lp.processor
    if page.entry is None:
        return [Accept(at, FRESH), *_extended(facts, FRESH, rights)], ""
    if not word & VALID:
        return [Say(GONE)], ""
    if word & BLOCKED:
        later, note = epcm(facts, page._replace(word=word & ~BLOCKED), rights)
        return [Again(EVICTED_NEXT), *later], note
    kind = word & PT_MASK
    if kind == TCS:
        what = "no access reaches a TCS: EENTER uses it"
        if not processor.part.sgx2:
            return [Say(what)], ""
        what += " once it is accepted" if word & MODIFIED else ""
        return _renewed_page(facts, page, rights), f" ({what})"
    if kind == TRIM:
        return _renewed_page(facts, page, rights), ""
    if word & MODIFIED:
        return [Say(STUCK)], ""
    steps: list[Step] = [Accept(at, word)] if word & PENDING else []
    if rights & ~word and processor.readings.emodpe_needs_read and not word & R:
        return _renewed_page(facts, page, rights), ""
    return [*steps, *_extended(facts, word, rights)], ""


def _renewed_page(facts: Facts, page: Page, rights: int) -> list[Step]:
    return [*renewed(facts, page), Accept(facts.page, FRESH), *_extended(facts, FRESH, rights)]


def _extended(facts: Facts, word: int, rights: int) -> list[Step]:
    """The EMODPE for the rights that a word lacks; W needs R."""
    need = rights & ~word
    if not need:
        return []
    if not facts.lp.processor.part.sgx2:
        return [Say(f"ADD_PAGES with {letters(need)} in its SECINFO: EMODPE needs SGX2")]
    return [Extend(facts.page, need if word & R or not need & W else need | R)]


# Both


def usable(facts: Facts, right: int, rights: int | None = None) -> Plan:
    """The steps for enclave code to use the page: `right` by paging, `rights` by the EPCM.

    None if no layer refuses any more.
    """
    steps, note = area(facts, right)
    page = page_of(facts)
    if page is None or facts.secs is None or final(steps):
        return steps, note
    more, further = epcm(facts, page, right if rights is None else rights)
    return [*steps, *more], note + further


def final(steps: list[Step]) -> bool:
    """Whether nothing can be added to a plan: it ends in mere text, or makes a fresh page."""
    return any(isinstance(step, Say | Fresh) for step in steps)


def nothing_left(facts: Facts, rule: str, by_now: str) -> list[Step]:
    """The step if no layer refuses any more: the driver refused, if paging did; else try again."""
    return _driver(facts) if rule.startswith("PAGING.") else [Again(by_now)]


def _driver(facts: Facts) -> list[Step]:
    """The step if area and EPCM permit the access, yet the driver did not map the page."""
    kernel = facts.history.kernel
    if not kernel.nr_free:
        return [Say(NO_EPC)]
    entry = facts.encl.page(facts.address) if facts.encl is not None else None
    if entry is None:
        return [Again("the driver could not add a page at this moment (EAUG)")]
    return [Again("the driver could not load the page at this moment")]

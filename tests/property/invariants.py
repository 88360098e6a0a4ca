"""The invariants of the processor that one state can violate; docs/invariants.md says what and why.

Verified: what holds between any two instructions, whatever software did. Each check only reads a
`Processor` at rest and yields a sentence per violation. Those that need two states are in
transitions.py. Not verified: registers, and anything while a leaf is in flight.
"""

from collections.abc import Callable, Collection, Iterator

from softsgx.cpu import LogicalProcessor, Processor
from softsgx.cpu.tracking import tracked
from softsgx.mem.pagetable import direct
from softsgx.mem.tlb import ABORT, CLEAN, FETCH, READ, WRITE
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    REG,
    RWX,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
    child_type,
    word_text,
)
from softsgx.spec.paging import VA_SLOTS
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_ACTIVE

Findings = Iterator[str]
Check = Callable[[Processor], Findings]

_STATE = PENDING | MODIFIED | PR | BLOCKED
_OP = VALID | BLOCKED | PENDING | MODIFIED | PT_MASK
# What a TLB entry permits -> what the EPCM must permit.
_NEEDS = ((READ, R), (WRITE, W), (CLEAN, W), (FETCH, X))


def valid_pages(processor: Processor) -> list[tuple[int, int]]:
    """EPC page number and packed EPCM word of every VALID entry."""
    return [(page, word) for page, word in enumerate(processor.epcm.state) if word & VALID]


def children(processor: Processor) -> list[tuple[int, int]]:
    """The VALID entries that belong to a SECS."""
    return [(page, word) for page, word in valid_pages(processor) if child_type(word)]


def contents(processor: Processor, page: int) -> bytes:
    """The 4096 bytes of an EPC page."""
    return processor.memory.read_page(processor.epc.pfn(page))


def awaited(processor: Processor, lp: LogicalProcessor, page: int) -> bool:
    """Whether tracking of a page still waits for this processor: it entered before the stamp."""
    return lp.epoch <= processor.epcm.stamp[page] - 1


# EPCM entries


def free_entries_are_zero(processor: Processor) -> Findings:
    """I1."""
    epcm = processor.epcm
    for page, word in enumerate(epcm.state):
        if not word & VALID and (word, epcm.secs[page], epcm.address[page]) != (0, 0, 0):
            yield f"free EPC page {page} has EPCM fields"
        if not word & VALID and epcm.stamp[page]:
            yield f"free EPC page {page} has a tracking stamp"


def pages_without_parent_are_bare(processor: Processor) -> Findings:
    """I2."""
    epcm = processor.epcm
    for page, word in valid_pages(processor):
        if not child_type(word):
            if word & PT_MASK not in (SECS, VA):
                yield f"EPC page {page}: unknown type: {word_text(word)}"
            if word & (RWX | _STATE) or epcm.secs[page] or epcm.address[page] or epcm.stamp[page]:
                yield f"EPC page {page}: {word_text(word)} with rights, state, owner or address"


def only_reg_has_rights(processor: Processor) -> Findings:
    """I3."""
    for page, word in valid_pages(processor):
        if word & PT_MASK != REG and word & RWX:
            yield f"EPC page {page}: {word_text(word)}"


def write_implies_read(processor: Processor) -> Findings:
    """I4."""
    for page, word in valid_pages(processor):
        if word & (R | W) == W:
            yield f"EPC page {page}: {word_text(word)}"


def state_bits_fit(processor: Processor) -> Findings:
    """I5."""
    for page, word in children(processor):
        state, pt = word & (PENDING | MODIFIED | PR), word & PT_MASK
        fits = (
            state == 0
            or (state == PENDING and word & (PT_MASK | RWX) == REG | R | W)
            or (state == MODIFIED and pt in (TCS, TRIM))
            or (state == PR and pt == REG)
        )
        if not fits:
            yield f"EPC page {page}: {word_text(word)}"


def children_are_at_home(processor: Processor) -> Findings:
    """I6."""
    epcm = processor.epcm
    for page, word in children(processor):
        secs, address = processor.secs.get(epcm.secs[page]), epcm.address[page]
        if secs is None or epcm.state[secs.page] & (VALID | PT_MASK) != VALID | SECS:
            yield f"EPC page {page}: its SECS is no valid SECS page"
            continue
        if address % PAGE_SIZE or not secs.BASEADDR <= address < secs.BASEADDR + secs.SIZE:
            yield f"EPC page {page}: ENCLAVEADDRESS {address:#x} is no page of ELRANGE"
        if (word & (PENDING | MODIFIED | PR) or word & PT_MASK == TRIM) and not secs.initialised:
            yield f"EPC page {page}: {word_text(word)} in an enclave that is not initialised"


def pending_pages_are_zero(processor: Processor) -> Findings:
    """I7."""
    for page, word in children(processor):
        if word & PENDING and any(contents(processor, page)):
            yield f"EPC page {page}: PENDING, and not all zero"


def accepted_pages_are_unique(
    processor: Processor, doubled: Collection[tuple[int, int]] = ()
) -> Findings:
    """I8, except for the (EID, address) pairs that software is known to have used twice."""
    epcm = processor.epcm
    seen: dict[tuple[int, int], int] = {}
    for page, word in children(processor):
        place = (processor.parent(page).EID, epcm.address[page])
        if word & (PENDING | PT_MASK) in (REG, TCS) and place not in doubled:
            if place in seen:
                yield f"EPC pages {seen[place]} and {page}: both accepted at {place[1]:#x}"
            seen[place] = page


# Enclaves


def children_are_counted(processor: Processor) -> Findings:
    """I9."""
    counts = dict.fromkeys(processor.secs, 0)
    for page, _ in children(processor):
        counts[processor.epcm.secs[page]] += 1
    for page, secs in processor.secs.items():
        if secs.children != counts[page]:
            yield f"SECS {page}: children {secs.children}, VALID child entries {counts[page]}"


def enclaves_are_the_secs_pages(processor: Processor) -> Findings:
    """I10."""
    pages = [page for page, word in valid_pages(processor) if word & PT_MASK == SECS]
    if sorted(processor.secs) != pages:
        yield f"SECS pages {pages}, live enclaves {sorted(processor.secs)}"
    ids = [secs.EID for secs in processor.secs.values()]
    if len(ids) != len(set(ids)) or not all(0 < eid < processor.next_eid for eid in ids):
        yield f"enclave ids {ids}, the next is {processor.next_eid}"
    if any(eid in processor.hashes for eid in ids):
        yield "a live enclave has a measurement kept for an evicted one"
    for page, secs in processor.secs.items():
        if secs.page != page or secs.SIZE & (secs.SIZE - 1) or secs.BASEADDR & (secs.SIZE - 1):
            yield f"SECS {page}: malformed"
        if (secs.measurement is None) != secs.initialised or secs.VIRTCHILDCNT:
            yield f"SECS {page}: measurement or VIRTCHILDCNT"


def versions_are_used_once(processor: Processor) -> Findings:
    """I11."""
    seen: dict[int, int] = {}
    for page, word in valid_pages(processor):
        if word & PT_MASK == VA:
            raw = contents(processor, page)
            for slot in range(VA_SLOTS if any(raw) else 0):
                version = int.from_bytes(raw[8 * slot : 8 * slot + 8], "little")
                if version in seen:
                    yield f"version {version:#x} in VA pages {seen[version]} and {page}"
                if version:
                    seen[version] = page
    if seen and max(seen) >= processor.next_version << 3:
        yield f"version {max(seen):#x} was never given out"


# Tracking


def counters_match_processors(processor: Processor) -> Findings:
    """I12."""
    for page, secs in processor.secs.items():
        epochs = [lp.epoch for lp in processor.lps if lp.secs is secs]
        now, before = epochs.count(secs.EPOCH), epochs.count(secs.EPOCH - 1)
        if (secs.current, secs.previous) != (now, before) or now + before != len(epochs):
            yield f"SECS {page}: counts {secs.current}, {secs.previous}; inside since {epochs}"


def stamps_are_due(processor: Processor) -> Findings:
    """I13."""
    for page, word in children(processor):
        stamp = processor.epcm.stamp[page]
        if stamp and not word & (BLOCKED | PR | MODIFIED):
            yield f"EPC page {page}: stamped, and {word_text(word)}"
        if stamp - 1 > processor.parent(page).EPOCH:
            yield f"EPC page {page}: stamped in the future"


# Logical processors


def threads_run_on_their_tcs(processor: Processor) -> Findings:
    """I14."""
    epcm = processor.epcm
    for lp in processor.lps:
        if lp.secs is None:
            if lp.secs_page != -1 or lp.tcs_page != -1 or lp.ssa_frame or lp.elrange_end:
                yield f"LP {lp.id}: outside, and keeps state of an enclave"
            continue
        secs, word = lp.secs, epcm.state[lp.tcs_page]
        if processor.secs.get(lp.secs_page) is not secs or not secs.initialised:
            yield f"LP {lp.id}: inside an enclave that is gone or not initialised"
        if (lp.elrange_base, lp.elrange_end) != (secs.BASEADDR, secs.BASEADDR + secs.SIZE):
            yield f"LP {lp.id}: another ELRANGE"
        owner = (epcm.secs[lp.tcs_page], epcm.address[lp.tcs_page])
        if not word & VALID or owner != (lp.secs_page, lp.tcs_address):
            yield f"LP {lp.id}: runs on EPC page {lp.tcs_page}, which is not its TCS"
        settled = word & (PT_MASK | MODIFIED | BLOCKED) == TCS
        if not settled and not awaited(processor, lp, lp.tcs_page):
            yield f"LP {lp.id}: its TCS is {word_text(word)}, and nothing waits for it to leave"


def active_tcs_has_one_processor(processor: Processor) -> Findings:
    """I15."""
    running = [lp.tcs_page for lp in processor.lps if lp.secs is not None]
    if len(running) != len(set(running)):
        yield f"two processors on one TCS: {running}"
    for page, word in children(processor):
        if word & (PT_MASK | MODIFIED) == TCS:
            state = TCS_PAGE.unpack(contents(processor, page)).STATE
            if state != (TCS_ACTIVE if page in running else 0):
                yield f"TCS {page}: STATE {state}, {running.count(page)} processors on it"


def frames_are_in_range(processor: Processor) -> Findings:
    """I16."""
    for page, word in children(processor):
        if word & (PT_MASK | MODIFIED) == TCS:
            tcs = TCS_PAGE.unpack(contents(processor, page))
            running = any(lp.tcs_page == page for lp in processor.lps)
            if tcs.CSSA > tcs.NSSA or (running and tcs.CSSA == tcs.NSSA):
                yield f"TCS {page}: CSSA {tcs.CSSA} of {tcs.NSSA}, running: {running}"


def cached_frames_are_writable(processor: Processor) -> Findings:
    """I17."""
    epcm = processor.epcm
    for lp in processor.lps:
        if lp.secs is None:
            continue
        tcs = TCS_PAGE.unpack(contents(processor, lp.tcs_page))
        first = lp.secs.BASEADDR + tcs.OSSA + tcs.CSSA * lp.secs.SSAFRAMESIZE * PAGE_SIZE
        for number, physical in enumerate(lp.ssa_frame):
            page = processor.epc.index(physical >> PAGE_SHIFT)
            if physical == 0:
                continue
            if page < 0 or (epcm.secs[page], epcm.address[page]) != (
                lp.secs_page,
                first + number * PAGE_SIZE,
            ):
                yield f"LP {lp.id}: EPC page {page} is not page {number} of its SSA frame"
            elif epcm.state[page] & (_OP | R | W) != VALID | REG | R | W:
                if not awaited(processor, lp, page):
                    yield f"LP {lp.id}: SSA frame is {word_text(epcm.state[page])}, not awaited"


# TLBs


def enclave_entries(processor: Processor) -> list[tuple[LogicalProcessor, int, int, int]]:
    """(processor, linear address, TLB entry, EPC page or -1): entries of ELRANGE from inside."""
    return [
        (lp, page << PAGE_SHIFT, entry, processor.epc.index((entry & ~PAGE_MASK) >> PAGE_SHIFT))
        for lp in processor.lps
        if lp.secs is not None
        for page, entry in lp.tlb.entries.items()
        if lp.elrange_base <= page << PAGE_SHIFT < lp.elrange_end
    ]


def permitted(processor: Processor, secs: int, address: int, entry: int, page: int) -> bool:
    """Whether the EPCM, as it is now, permits all that a TLB entry permits."""
    epcm = processor.epcm
    word = epcm.state[page]
    if word & _OP != VALID | REG or (epcm.secs[page], epcm.address[page]) != (secs, address):
        return False
    return all(word & right for bit, right in _NEEDS if entry & bit)


def translations_are_permitted_or_awaited(processor: Processor) -> Findings:
    """I18."""
    for lp, address, entry, page in enclave_entries(processor):
        if page < 0 or entry & ABORT:
            yield f"LP {lp.id}: {address:#x} in ELRANGE leads to memory outside the enclave"
        elif not permitted(processor, lp.secs_page, address, entry, page):
            if not awaited(processor, lp, page):
                yield f"LP {lp.id}: {address:#x} to EPC page {page} is wider, and not awaited"


def tracked_pages_have_no_wider_translation(processor: Processor) -> Findings:
    """I19."""
    for lp, address, entry, page in enclave_entries(processor):
        valid = page >= 0 and processor.epcm.state[page] & VALID
        secs = processor.secs_of(page) if valid else None
        if secs is not None and tracked(processor, secs, page):
            if not permitted(processor, lp.secs_page, address, entry, page):
                yield f"LP {lp.id}: {address:#x} to EPC page {page}: tracked, and wider"


def translations_have_an_owner(processor: Processor) -> Findings:
    """I20."""
    epcm = processor.epcm
    for lp, address, _, page in enclave_entries(processor):
        word = epcm.state[page] if page >= 0 else 0
        if not word & VALID or word & PENDING:
            yield f"LP {lp.id}: {address:#x} to EPC page {page}, which is {word_text(word)}"
        elif (epcm.secs[page], epcm.address[page]) != (lp.secs_page, address):
            yield f"LP {lp.id}: {address:#x} to EPC page {page} of another owner or address"


def other_translations_abort(processor: Processor) -> Findings:
    """I21."""
    for lp in processor.lps:
        for page, entry in lp.tlb.entries.items():
            address, epc = page << PAGE_SHIFT, processor.epc.index((entry & ~PAGE_MASK) >> 12)
            if not (lp.secs is not None and lp.elrange_base <= address < lp.elrange_end):
                if bool(entry & ABORT) != (epc >= 0):
                    yield f"LP {lp.id}: {address:#x} is not ELRANGE, leads to EPC page {epc}"
                if lp.secs is not None and entry & FETCH:
                    yield f"LP {lp.id}: inside, and may fetch at {address:#x}"


def epc_is_closed(processor: Processor) -> Findings:
    """I22, for the kernel; I21 says it for user mode."""
    lp = processor.lps[0]
    for page in range(processor.epc.pages):
        if (
            lp.system_read(direct(processor.epc.physical(page)) + 8 * (page % 512), 8)
            != b"\xff" * 8
        ):
            yield f"EPC page {page}: readable by the kernel"


CHECKS: dict[str, Check] = {
    f"I{number}": check
    for number, check in enumerate(
        (
            *(free_entries_are_zero, pages_without_parent_are_bare, only_reg_has_rights),
            *(write_implies_read, state_bits_fit, children_are_at_home, pending_pages_are_zero),
            *(accepted_pages_are_unique, children_are_counted, enclaves_are_the_secs_pages),
            *(versions_are_used_once, counters_match_processors, stamps_are_due),
            *(threads_run_on_their_tcs, active_tcs_has_one_processor, frames_are_in_range),
            *(cached_frames_are_writable, translations_are_permitted_or_awaited),
            *(tracked_pages_have_no_wider_translation, translations_have_an_owner),
            *(other_translations_abort, epc_is_closed),
        ),
        1,
    )
}

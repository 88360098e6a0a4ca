"""The invariants of what one instruction may change; docs/invariants.md says what and why.

Each check looks at a `Step` between two copies of the state and yields a sentence per violation.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from softsgx.mem.tlb import CLEAN, FETCH, READ, WRITE, rights_text
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_INIT
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    REG,
    RWX,
    SAVED,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    child_type,
    word_text,
)
from tests.property.steps import IDENTITY, Image, Step

Findings = Iterator[str]

ACCESSES = {"load": READ, "store": WRITE, "fetch": FETCH}
LOADS = ("ELDB", "ELDU", "ELDBC", "ELDUC")
FLUSHES = ("EENTER", "ERESUME", "EEXIT", "AEX")
_OP = VALID | BLOCKED | PENDING | MODIFIED | PT_MASK
_EPCM_OF_TLB = READ | WRITE | FETCH | CLEAN


# What may change at all


def faults_leave_no_trace(step: Step) -> Findings:
    """I23."""
    if not step.faulted:
        return
    for name, old, new in zip(Image._fields, step.before, step.after, strict=True):
        if name != "lps" and old != new:
            yield f"{step.name} faulted and changed {name}"
    for number, (before, after) in enumerate(zip(step.before.lps, step.after.lps, strict=True)):
        # A page fault drops the translation that denied the access; the others must not change.
        gone = before.tlb.keys() - after.tlb.keys()
        excused = number == step.lp and step.name in ACCESSES and len(gone) <= 1
        kept = {page: entry for page, entry in before.tlb.items() if page not in gone}
        if before.key != after.key or after.tlb != kept or (gone and not excused):
            yield f"{step.name} faulted and changed LP {number}"


def page_tables_are_the_kernels(step: Step) -> Findings:
    """I24."""
    if step.before.ptes != step.after.ptes:
        yield f"{step.name} changed page tables beyond A and D"


def other_processors_are_untouched(step: Step) -> Findings:
    """I25."""
    for number, (before, after) in enumerate(zip(step.before.lps, step.after.lps, strict=True)):
        if number != step.lp and before != after:
            yield f"{step.name} on LP {step.lp} changed LP {number}"


def translations_come_from_accesses(step: Step) -> Findings:
    """I26."""
    before, after = step.before.lps[step.lp].tlb, step.after.lps[step.lp].tlb
    if step.name in FLUSHES and not step.faulted:
        if after:
            yield f"{step.name} did not flush the TLB"
    elif step.name not in ACCESSES and before != after:
        yield f"{step.name} changed the TLB"


def translations_are_made_as_permitted(step: Step) -> Findings:
    """I27."""
    before, after = step.before.lps[step.lp], step.after.lps[step.lp]
    for linear, page in after.mapped:
        entry = after.tlb[linear]
        if entry != before.tlb.get(linear):
            word, image = step.after.words[page], step.after
            owner = (image.owners[page], image.addresses[page])
            usable = word & _OP == VALID | REG and owner == (after.secs, linear << PAGE_SHIFT)
            if not usable or entry & _EPCM_OF_TLB & ~_as_tlb(word):
                yield f"{step.name}: translation to EPC page {page}: {word_text(word)}"


def _as_tlb(word: int) -> int:
    """The most that a TLB entry may permit for an EPCM word. CLEAN goes with W."""
    return word & RWX | (CLEAN if word & W else 0)


def accesses_have_a_right(step: Step) -> Findings:
    """I28."""
    if step.name in ACCESSES and not step.faulted:
        entry = step.after.lps[step.lp].tlb.get(step.operand >> PAGE_SHIFT, 0)
        if not entry & ACCESSES[step.name]:
            yield f"{step.name} at {step.operand:#x} through {rights_text(entry)}"


# The life of an EPCM entry


def pages_come_and_go_by_few_leaves(step: Step) -> Findings:
    """I29."""
    makes = {"ECREATE": (SECS,), "EADD": (REG, TCS), "EAUG": (REG,), "EPA": (VA,)}
    types = dict.fromkeys(LOADS, (SECS, TCS, REG, VA, TRIM)) | makes
    came, went = [], []
    for page, (old, new) in enumerate(zip(step.before.words, step.after.words, strict=True)):
        if new & VALID and not old & VALID:
            came.append(page)
            if new & PT_MASK not in types.get(step.name, ()):
                yield f"{step.name} made EPC page {page}: {word_text(new)}"
            pending = step.name == "EAUG" or (step.name in LOADS and new & PENDING)
            if bool(new & PENDING) != bool(pending):
                yield f"{step.name} made EPC page {page}: {word_text(new)}"
            if new & BLOCKED and step.name not in ("ELDB", "ELDBC"):
                yield f"{step.name} made a blocked page {page}"
        elif old & VALID and not new & VALID:
            went.append(page)
            if step.name not in ("EREMOVE", "EWB"):
                yield f"{step.name} freed EPC page {page}"
    if len(came) + len(went) > 1:
        yield f"{step.name}: pages {came} came, {went} went"


def pages_leave_unused(step: Step) -> Findings:
    """I30."""
    for page, (old, new) in enumerate(zip(step.before.words, step.after.words, strict=True)):
        if old & VALID and not new & VALID:
            for number, lp in enumerate(step.before.lps):
                if page in (lp.secs, lp.tcs, *lp.frame) or page in [p for _, p in lp.mapped]:
                    yield f"{step.name} freed EPC page {page}, which LP {number} uses"
            if step.name == "EWB" and child_type(old) and not old & BLOCKED:
                yield f"EWB of EPC page {page}, not blocked"


def owner_and_address_are_fixed(step: Step) -> Findings:
    """I31."""
    for page, _, _ in step.kept():
        old = (step.before.owners[page], step.before.addresses[page])
        if old != (step.after.owners[page], step.after.addresses[page]):
            yield f"{step.name} moved EPC page {page}"


def rights_change_by_own_leaves_or_shrink(step: Step) -> Findings:
    """I32."""
    for page, old, new in step.changed():
        own = step.inside == step.before.owners[page]
        lost, won = old & ~new & RWX, new & ~old & RWX
        granted = own and (
            step.name == "EMODPE"
            or (step.name == "EACCEPTCOPY" and bool(old & PENDING and not new & PENDING))
        )
        restricted = (step.name == "EMODPR" and new & PR) or (
            step.name == "EMODT" and new & (MODIFIED | RWX) == MODIFIED
        )
        if won and not granted:
            yield f"{step.name} widened EPC page {page}: {word_text(old)} to {word_text(new)}"
        if lost and not restricted and not (granted and step.name == "EACCEPTCOPY"):
            yield f"{step.name} narrowed EPC page {page}: {word_text(old)} to {word_text(new)}"


def types_change_by_emodt(step: Step) -> Findings:
    """I33."""
    ways = ((REG, TCS), (REG, TRIM), (TCS, TRIM))
    for page, old, new in step.changed():
        if (old ^ new) & PT_MASK:
            fits = step.name == "EMODT" and (old & PT_MASK, new & PT_MASK) in ways
            if not fits or not new & MODIFIED or old & (PENDING | MODIFIED):
                yield f"{step.name} made EPC page {page} of {word_text(old)} {word_text(new)}"


def state_bits_have_their_leaves(step: Step) -> Findings:
    """I34."""
    setters = {MODIFIED: ("EMODT",), PR: ("EMODPR",), BLOCKED: ("EBLOCK",), PENDING: ()}
    accept = ("EACCEPT",)
    clearers = {MODIFIED: accept, PR: (*accept, "EMODT"), PENDING: (*accept, "EACCEPTCOPY")}
    for page, old, new in step.changed():
        for bit, names in setters.items():
            if new & ~old & bit and step.name not in names:
                yield f"{step.name} set a bit: {word_text(old)} to {word_text(new)}"
            if old & ~new & bit:
                own = step.inside == step.before.owners[page] or step.name == "EMODT"
                if step.name not in clearers.get(bit, ()) or not own:
                    yield f"{step.name} cleared a bit: {word_text(old)} to {word_text(new)}"


def enclave_leaves_act_on_their_operand(step: Step) -> Findings:
    """I35."""
    wants = {"EACCEPT": 0, "EACCEPTCOPY": PENDING, "EMODPE": 0}
    if step.name in wants:
        for page, old, _ in step.changed():
            place = (step.before.owners[page], step.before.addresses[page])
            state = old & (PENDING | MODIFIED)
            fits = step.name == "EACCEPT" or state == wants[step.name]
            if place != (step.inside, step.operand) or old & BLOCKED or not fits:
                yield f"{step.name} at {step.operand:#x} changed EPC page {page}: {word_text(old)}"


def stamps_have_their_leaves(step: Step) -> Findings:
    """I36."""
    for page, _, _ in step.kept():
        old, new = step.before.stamps[page], step.after.stamps[page]
        if old != new and step.name not in (("EBLOCK", "EMODPR", "EMODT") if new else ("EACCEPT",)):
            yield f"{step.name} changed the stamp of EPC page {page} from {old} to {new}"


def epochs_advance_when_drained(step: Step) -> Findings:
    """I37."""
    for page, (epoch, followed) in step.before.epochs.items():
        after = step.after.epochs.get(page, (epoch, 0))[0]
        if after != epoch:
            alone = after == epoch + 1 and followed == 0
            if step.name not in ("ETRACK", "ETRACKC") or not alone:
                yield f"{step.name}: epoch of SECS {page} from {epoch} to {after}"


# Contents and identity


def contents_change_by_their_enclave(step: Step) -> Findings:
    """I38."""
    for page, old, _ in step.kept():
        if step.before.contents[page] != step.after.contents[page]:
            if not _may_write(step, page, old):
                yield f"{step.name} on LP {step.lp} wrote EPC page {page}: {word_text(old)}"


def _may_write(step: Step, page: int, word: int) -> bool:
    name, before, after = step.name, step.before.lps[step.lp], step.after.lps[step.lp]
    own = step.inside == step.before.owners[page]
    if name == "store":
        return own and page in [p for _, p in after.mapped]
    if name in ("EACCEPTCOPY", "EGETKEY", "EREPORT"):
        return own and word & PT_MASK == REG
    if name in ("EENTER", "ERESUME"):
        return page in (after.tcs, *after.frame)
    if name in ("EEXIT", "AEX", "EDECCSSA"):
        return page == before.tcs or (name == "AEX" and page in before.frame)
    if name == "EDBGWR":
        attributes = step.before.enclaves[step.before.owners[page]][IDENTITY.index("ATTRIBUTES")]
        return isinstance(attributes, int) and bool(attributes & ATTR_DEBUG)
    return (name == "EWB" or name in LOADS) and word & PT_MASK == VA


def identity_is_fixed(step: Step) -> Findings:
    """I39."""
    flag = IDENTITY.index("ATTRIBUTES")
    for page, old in step.before.enclaves.items():
        new = step.after.enclaves.get(page, old)
        if old != new:
            attributes = old[flag]
            assert isinstance(attributes, int)
            opened = step.name == "EINIT" and not attributes & ATTR_INIT
            same = old[:flag] == new[:flag] and new[flag] == attributes | ATTR_INIT
            measured = step.name in ("EADD", "EEXTEND") and not attributes & ATTR_INIT
            if not (opened and same) and not measured:
                yield f"{step.name} changed SECS {page}"


def entry_needs_usable_pages(step: Step) -> Findings:
    """I41."""
    if step.name in ("EENTER", "ERESUME", "EDECCSSA") and not step.faulted:
        lp, words = step.after.lps[step.lp], step.after.words
        if step.name != "EDECCSSA" and words[lp.tcs] != VALID | TCS:
            yield f"{step.name} on EPC page {lp.tcs}: {word_text(words[lp.tcs])}"
        for page in lp.frame:
            if words[page] & (_OP | R | W) != VALID | REG | R | W:
                yield f"{step.name}: SSA frame in EPC page {page}: {word_text(words[page])}"


Check = Callable[[Step], Findings]

CHECKS: dict[str, Check] = {
    f"I{number}": check
    for number, check in enumerate(
        (
            *(faults_leave_no_trace, page_tables_are_the_kernels, other_processors_are_untouched),
            *(translations_come_from_accesses, translations_are_made_as_permitted),
            *(accesses_have_a_right, pages_come_and_go_by_few_leaves, pages_leave_unused),
            *(owner_and_address_are_fixed, rights_change_by_own_leaves_or_shrink),
            *(types_change_by_emodt, state_bits_have_their_leaves),
            *(enclave_leaves_act_on_their_operand, stamps_have_their_leaves),
            *(epochs_advance_when_drained, contents_change_by_their_enclave, identity_is_fixed),
        ),
        23,
    )
}
CHECKS["I41"] = entry_needs_usable_pages


class Evicted(NamedTuple):
    """A page as it was when EWB took it: what ELD must give back."""

    word: int
    address: int
    contents: bytes
    secs: tuple[object, ...]  # identity and epoch, of a SECS


def evicted(image: Image, page: int) -> Evicted:
    """What to remember of a page before its EWB."""
    word, address, content = image.words[page], image.addresses[page], image.contents[page]
    return Evicted(word & SAVED, address, content, _secs(image, page))


def _secs(image: Image, page: int) -> tuple[object, ...]:
    return (image.enclaves.get(page), image.epochs.get(page, (0, 0))[0])


def comes_back_the_same(was: Evicted, blocked: bool, page: int, after: Image) -> Findings:
    """I40: ELD restores the page bit for bit; machine_kernel.py tests that it does so only once."""
    word = was.word | VALID | (BLOCKED if blocked and child_type(was.word) else 0)
    if (after.words[page], after.addresses[page]) != (word, was.address):
        yield f"EPC page {page}: {word_text(word)} came back as {word_text(after.words[page])}"
    if was.word & PT_MASK != SECS and after.contents[page] != was.contents:
        yield f"EPC page {page}: came back with other contents"
    if _secs(after, page) != was.secs:
        yield f"SECS {page}: came back as another"

"""Advice that is text: for each rule a case that is refused, and what the text says, done.

`DONE` has a function for each; a rule without one is in `ELSEWHERE` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from softsgx.cpu import Part, Readings
from softsgx.cpu.access import split_fetch
from softsgx.cpu.fault import Fault
from softsgx.image import EnclaveImage
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.linux.vdso import VDSO_ENCLU
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.report import steps as s
from softsgx.report.explanation import Explanation
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_KSS, ATTR_PROVISIONKEY
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, REG, TCS, VALID, R, W, X
from softsgx.spec.keys import KEYREQUEST, PROVISION_KEY, SEAL_KEY, TARGETINFO
from softsgx.spec.paging import SECINFO
from softsgx.spec.rules import RULES
from softsgx.spec.ssa import GPR_OFF_AEXNOTIFY, GPRSGX_IN_PAGE
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_AEXNOTIFY
from softsgx.system import Enclave, EnclaveThread, Machine
from softsgx.system.explain.access_advice import advice_for_access, advice_for_instruction
from softsgx.system.explain.explainer import _ELSEWHERE as ELSEWHERE_RULES
from softsgx.system.explain.facts import look
from softsgx.system.explain.leaf_advice import Call, advice_for_leaf
from softsgx.system.explain.leaf_texts import CONTENTS, TCS_CONTENTS, WORDS
from softsgx.system.explain.plans import EVICTED_NEXT, GONE, NO_EPC, STUCK
from softsgx.system.loader import default_image, reserve
from tests.linux.building import Building
from tests.linux.world import World, world
from tests.system.explain.advised import _TAKEN, Attempt, follow, rig, spare


def explained(**options: Any) -> Machine:
    return Machine(cpus=4, epc="1M", explain=True, **options)


def refused(attempt: Attempt, rule: str) -> Explanation:
    """It is refused by this rule, and the advice is text."""
    found = attempt.refused()
    assert found is not None
    assert found.rule == rule, found.text
    assert found.advice is not None
    return found


def passes(attempt: Attempt) -> None:
    found = attempt.refused()
    assert found is None, found.text


def on_processor(w: World, action: Callable[[], object], rule: str) -> Explanation:
    """An ENCLU or access of a bare processor that is refused by this rule."""
    with pytest.raises(Fault) as caught:
        action()
    assert caught.value.rule == rule
    text = w.machine.explain(caught.value)
    assert f"({rule})" in text
    explainer = w.machine.explainer
    assert explainer is not None
    return next(found for found in explainer._open.values() if found.rule == rule)


# Contents of operands


def contents(leaf: int, wrong: bytes, right: bytes, rule: str) -> None:
    w = rig(explained())
    attempt = Attempt(w, leaf=leaf)
    for name in ("rbx", "rcx", "rdx"):
        setattr(attempt, name, spare(w, name))
    if leaf in (leaves.EACCEPT, leaves.EACCEPTCOPY):
        attempt.rcx = w.enclave.heap
    attempt.contents = wrong
    refused(attempt, rule)
    attempt.contents = right
    passes(attempt)


def secinfo_reserved(leaf: int, flags: int, rule: str) -> Callable[[], None]:
    good = SECINFO(FLAGS=flags).pack()
    return lambda: contents(leaf, good[:-1] + b"\1", good, rule)


def keyrequest(rule: str, right: KEYREQUEST | None = None, **wrong: Any) -> Callable[[], None]:
    good = right or KEYREQUEST(KEYNAME=SEAL_KEY)
    return lambda: contents(leaves.EGETKEY, good.replace(**wrong).pack(), good.pack(), rule)


def keyrequest_reserved() -> None:
    good = KEYREQUEST(KEYNAME=SEAL_KEY).pack()
    contents(leaves.EGETKEY, good[:-1] + b"\1", good, "EGETKEY.09")


def targetinfo_reserved() -> None:
    good = TARGETINFO().pack()
    contents(leaves.EREPORT, good[:-1] + b"\1", good, "EREPORT.05")


def built_with(attributes: int, rule: str, **request: int) -> Callable[[], None]:
    """Refused in an enclave without the attribute; an enclave built with it gets the key."""

    def case() -> None:
        for more in (0, attributes):
            image = replace(
                default_image(pages=5, threads=2),
                attributes=default_image().attributes | more,
            )
            w = built(image, provision=bool(more & ATTR_PROVISIONKEY))
            attempt = Attempt(w, leaf=leaves.EGETKEY, rbx=spare(w, "rbx"), rcx=spare(w, "rcx"))
            attempt.contents = KEYREQUEST(**request).pack()
            if more:
                passes(attempt)
            else:
                refused(attempt, rule)

    return case


def built(image: EnclaveImage, machine: Machine | None = None, *, provision: bool = False) -> World:
    """An enclave of this image, built, initialised and mapped."""
    b = Building(machine or explained())
    b.image = image
    b.base = b.do(reserve(b.host, image.size))
    assert b.create() == 0
    b.fill()
    if provision:
        assert b.provision(b.do(b.host.open("/dev/sgx_provision"))) == 0
    assert b.init() == 0
    return mapped(b)


def mapped(b: Building) -> World:
    image = b.image
    enclave = Enclave(b.fd, b.base, image.size, image)
    for segment in image.segments:
        rights = R | W if segment.is_tcs else segment.flags & 7
        start = b.base + segment.offset
        flags = MAP_SHARED | MAP_FIXED
        assert b.do(b.host.mmap(start, segment.size, rights, flags, b.fd)) == start
        if segment.label == "scratch":
            enclave.scratch = start
        elif segment.label == "data":
            enclave.data = list(range(start, start + segment.size, PAGE_SIZE))
    enclave.tcs = [b.base + offset for offset in image.tcs]
    enclave.heap = b.base + max(segment.end for segment in image.segments)
    return World(b.machine, b.host, enclave)


# TCS


def tcs_image(attributes: int = 0, **fields: int) -> EnclaveImage:
    """The first TCS has these fields."""
    image = default_image(pages=5, threads=3)
    first = image.segments[0]
    tcs = TCS_PAGE.unpack(first.data()[: TCS_PAGE.SIZE]).replace(**fields)
    segments = (replace(first, content=tcs.pack()), *image.segments[1:])
    return replace(image, segments=segments, attributes=image.attributes | attributes)


def entry_of(w: World) -> Attempt:
    return Attempt(w, leaf=leaves.EENTER, rbx=w.enclave.tcs[0])


def built_right(rule: str, attributes: int = 0, **fields: int) -> Callable[[], None]:
    """A TCS with such a field is refused; a correct one is not."""

    def case() -> None:
        refused(entry_of(built(tcs_image(**fields))), rule)
        right = fields if attributes else {}
        passes(entry_of(built(tcs_image(attributes, **right))))

    return case


def before_init() -> None:
    b = Building(explained())
    assert b.create() == 0
    b.fill()
    w = mapped(b)
    attempt = Attempt(w, leaf=leaves.EENTER, rbx=w.enclave.tcs[0])
    refused(attempt, "ENTRY.05")
    assert b.init() == 0
    passes(attempt)


def smaller_xcr0() -> None:
    image = replace(default_image(), xfrm=7)
    w = built(image)
    lp = w.kernel.lp(w.host.thread)
    lp.xcr0 = 3
    refused(entry_of(w), "ENTRY.09")
    lp.xcr0 = 7
    passes(entry_of(w))


def becoming_a_tcs(rule: str, wrong: bytes, readings: Readings | None = None) -> Callable[[], None]:
    """This page is lost as a TCS; another one, made correctly, is accepted and entered."""

    def case() -> None:
        w = rig(explained(readings=readings or Readings()))
        for number, raw in enumerate((wrong, good_tcs(w))):
            page = w.enclave.data[number + 3]

            def write(t: EnclaveThread, page: int = page, raw: bytes = raw) -> Steps[None]:
                yield from t.store(page, raw)

            w.do(w.enclave.call(w.host, write, thread=10))
            assert w.do(w.enclave.make_tcs(w.host, page))[0] == 0
            attempt = Attempt(w, leaf=leaves.EACCEPT, rbx=spare(w, "rbx"), rcx=page)
            attempt.secinfo, attempt.thread = TCS | MODIFIED, number
            if number:
                passes(attempt)
                passes(Attempt(w, leaf=leaves.EENTER, rbx=page))
            else:
                refused(attempt, rule)

    return case


def good_tcs(w: World, **fields: int) -> bytes:
    frames = w.enclave.tcs[-2] + PAGE_SIZE - w.enclave.base
    return TCS_PAGE(OSSA=frames, NSSA=2).replace(**fields).pack()


def tcs_raw(**fields: int) -> bytes:
    return TCS_PAGE(OSSA=PAGE_SIZE, NSSA=2).replace(**fields).pack()


# Entry and exit


def nested() -> None:
    w = rig(explained())
    other = w.enclave.tcs[1]

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.enclu(leaves.EENTER, other, VDSO_ENCLU)

    run = w.enclave.run()
    w.do(w.host.enter(w.enclave.entry(inside), run))
    assert "(ENCLU.08)" in w.machine.explain()
    passes(Attempt(w, leaf=leaves.EENTER, rbx=other))


def outside() -> None:
    w = rig(explained())
    lp = w.kernel.lp(w.host.thread)
    attempt = Attempt(w, leaf=leaves.EREPORT)
    for name in ("rbx", "rcx", "rdx"):
        setattr(attempt, name, spare(w, name))
    operands = (attempt.rbx, attempt.rcx, attempt.rdx)
    on_processor(w, lambda: lp.enclu(leaves.EREPORT, *operands), "ENCLU.09")
    passes(attempt)


def absent_leaf() -> None:
    for sgx2 in (False, True):
        w = rig(explained(part=Part(sgx2=sgx2)))
        attempt = Attempt(w, leaf=leaves.EMODPE, rbx=spare(w, "rbx"), rcx=w.enclave.data[0])
        attempt.secinfo = REG | R
        if sgx2:
            passes(attempt)
        else:
            refused(attempt, "ENCLU.05")


def nothing_to_drop() -> None:
    w = rig(explained())
    refused(Attempt(w, leaf=leaves.EDECCSSA), "EDECCSSA.02")
    # On the same TCS: the frame of that exception is there, so CSSA is 1.
    passes(Attempt(w, leaf=leaves.EDECCSSA))


def nothing_to_resume() -> None:
    w = rig(explained())
    refused(Attempt(w, leaf=leaves.ERESUME, rbx=w.enclave.tcs[0]), "ERESUME.09")
    passes(entry_of(w))


def notified() -> None:
    """One frame holds what was interrupted; the handler needs a second one."""
    w, resume = interrupted_with_notify(1)
    on_processor(w, resume, "ERESUME.10")
    w, resume = interrupted_with_notify(2)
    resume()
    assert w.kernel.lp(w.host.thread).enclave_mode


def interrupted_with_notify(nssa: int) -> tuple[World, Callable[[], object]]:
    """An enclave with `nssa` frames and AEX-Notify was interrupted; its ERESUME."""
    w = built(tcs_image(ATTR_AEXNOTIFY, FLAGS=TCS_AEXNOTIFY, NSSA=nssa))
    passes(entry_of(w))
    lp = w.kernel.lp(w.host.thread)
    tcs = w.enclave.tcs[0]
    w.do(w.host.load(tcs + 2 * PAGE_SIZE, 1))  # maps the second frame
    lp.enclu(leaves.EENTER, tcs, VDSO_ENCLU)
    place = lp.ssa_frame[-1] + GPRSGX_IN_PAGE + GPR_OFF_AEXNOTIFY
    assert lp.interrupt().from_enclave
    w.machine.processor.memory.write(place, b"\1")
    return w, lambda: lp.enclu(leaves.ERESUME, tcs, VDSO_ENCLU)


def spoiled_frame(at: int, wrong: bytes, rule: str) -> Callable[[], None]:
    """The SSA frame is corrupted, refused, and repaired."""

    def case() -> None:
        w = rig(explained())
        passes(entry_of(w))
        lp = w.kernel.lp(w.host.thread)
        tcs = w.enclave.tcs[0]
        lp.enclu(leaves.EENTER, tcs, VDSO_ENCLU)
        place = lp.ssa_frame[-1] + at
        assert lp.interrupt().from_enclave
        memory = w.machine.processor.memory
        right = memory.read(place, len(wrong))
        memory.write(place, wrong)
        on_processor(w, lambda: lp.enclu(leaves.ERESUME, tcs, VDSO_ENCLU), rule)
        memory.write(place, right)
        lp.enclu(leaves.ERESUME, tcs, VDSO_ENCLU)
        assert lp.enclave_mode

    return case


# Accesses


def fetch_outside(first: bool, rule: str) -> Callable[[], None]:
    def case() -> None:
        w = rig(explained(readings=Readings(fetch_outside_elrange_first=first)))
        page = w.do(w.host.alloc(PAGE_SIZE))
        w.do(w.host.store(page, b"\x90"))
        assert w.protect(page, R | W | X) == 0
        refused(Attempt(w, page, X), rule)
        lp = w.kernel.lp(w.host.thread)
        assert not lp.enclave_mode
        w.do(w.host.load(page, 1))
        assert lp.fetch(page, 1) == b"\x90"

    return case


def fetch_over_the_end() -> None:
    w = rig(explained(readings=Readings(fetch_split_gp_first=True)))
    passes(entry_of(w))
    lp = w.kernel.lp(w.host.thread)
    lp.enclu(leaves.EENTER, w.enclave.tcs[0], VDSO_ENCLU)
    on_processor(w, lambda: split_fetch(lp, lp.elrange_end - 1, 2), "ACCESS.14")
    split_fetch(lp, lp.elrange_end - 2, 2)


DONE: Final[dict[str, Callable[[], None]]] = {
    "ACCESS.01": fetch_outside(True, "ACCESS.01"),
    "ACCESS.03": fetch_outside(False, "ACCESS.03"),
    "ACCESS.14": fetch_over_the_end,
    "EACCEPT.05": secinfo_reserved(leaves.EACCEPT, REG | 8 | R | W, "EACCEPT.05"),
    "EMODPE.08": secinfo_reserved(leaves.EMODPE, REG | R, "EMODPE.08"),
    "EACCEPTCOPY.08": secinfo_reserved(leaves.EACCEPTCOPY, REG | R, "EACCEPTCOPY.08"),
    "EREPORT.05": targetinfo_reserved,
    "EGETKEY.09": keyrequest_reserved,
    "EGETKEY.10": keyrequest("EGETKEY.10", CET_ATTRIBUTES_MASK=1),
    "EGETKEY.11": keyrequest("EGETKEY.11", KEYPOLICY=1 << 15),
    "EGETKEY.12": built_with(ATTR_KSS, "EGETKEY.12", KEYNAME=SEAL_KEY, KEYPOLICY=4),
    "EGETKEY.13": keyrequest("EGETKEY.13", KEYNAME=5),
    "EGETKEY.14": keyrequest("EGETKEY.14", KEYNAME=0),
    "EGETKEY.15": built_with(ATTR_PROVISIONKEY, "EGETKEY.15", KEYNAME=PROVISION_KEY),
    "EGETKEY.16": keyrequest("EGETKEY.16", CPUSVN=b"\xff" * 16),
    "EGETKEY.17": keyrequest("EGETKEY.17", ISVSVN=1000),
    "EACCEPT.22": becoming_a_tcs("EACCEPT.22", tcs_raw()[:-1] + b"\1"),
    "EACCEPT.23": becoming_a_tcs("EACCEPT.23", tcs_raw(FLAGS=1)),
    "EACCEPT.24": becoming_a_tcs("EACCEPT.24", tcs_raw(CSSA=2)),
    "EACCEPT.25": becoming_a_tcs("EACCEPT.25", tcs_raw(AEP=1)),
    "EACCEPT.26": becoming_a_tcs("EACCEPT.26", tcs_raw(STATE=1)),
    "EACCEPT.28": becoming_a_tcs(
        "EACCEPT.28", tcs_raw(FLAGS=4), Readings(tcs_flags_reserved_at_eaccept=True)
    ),
    "ENTRY.01": built_right("ENTRY.01", OSSA=PAGE_SIZE + 1),
    "ENTRY.02": built_right("ENTRY.02", OFSBASGX=1),
    "ENTRY.03": built_right("ENTRY.03", OGSBASGX=1),
    "ENTRY.04": built_right("ENTRY.04", FLAGS=4),
    "ENTRY.05": before_init,
    "ENTRY.09": smaller_xcr0,
    "ENTRY.10": built_right("ENTRY.10", ATTR_AEXNOTIFY, FLAGS=TCS_AEXNOTIFY),
    "ENTRY.11": built_right("ENTRY.11", OENTRY=1 << 62),
    "ENTRY.12": built_right("ENTRY.12", OFSBASGX=1 << 62),
    "ENTRY.13": built_right("ENTRY.13", OGSBASGX=1 << 62),
    "ENCLU.05": absent_leaf,
    "ENCLU.08": nested,
    "ENCLU.09": outside,
    "EDECCSSA.02": nothing_to_drop,
    "ERESUME.09": nothing_to_resume,
    "ERESUME.10": notified,
    "ERESUME.11": spoiled_frame(512, b"\xff" * 8, "ERESUME.11"),
}
# Words of plans, which depend on the state


def build_anew(spoil: int, words: str) -> Callable[[], None]:
    """A page with such a word is lost, and the enclave with it; a new enclave works."""

    def case() -> None:
        for lost in (True, False):
            w = rig(explained())
            page = w.enclave.data[0]
            passes(Attempt(w, page, R))
            epcm, pte = w.machine.processor.epcm, w.mm.space.lookup(page)
            number = w.machine.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
            attempt = Attempt(w, page, R, thread=1)
            if lost:
                epcm.put(number, epcm.state[number] ^ spoil)
                assert words in told(attempt)
            else:
                passes(attempt)

    return case


def told(attempt: Attempt) -> str:
    found = attempt.refused()
    assert found is not None
    return found.text


def no_epc() -> None:
    """All 16 pages are SECS and VA pages of enclaves; with fewer of them it works."""
    w = world(Machine(cpus=4, epc="64K", explain=True))
    others = []
    while True:
        b = Building.__new__(Building)
        b.machine, b.host, b.image = w.machine, w.host, default_image()
        b.fd = w.do(w.host.open())
        b.base = w.do(reserve(w.host, b.image.size))
        if b.create():
            break
        others.append(b.fd)
    attempt = Attempt(w, w.enclave.data[0], R, outside=True)
    assert NO_EPC in told(attempt)
    for fd in others:
        assert w.do(w.host.close(fd)) == 0
    w.machine.settle()
    passes(attempt)


def a_tcs_of_sgx1() -> None:
    w = rig(explained(part=Part(sgx2=False)))
    tcs = w.enclave.tcs[5]
    assert "no access reaches a TCS: EENTER uses it" in told(Attempt(w, tcs, R))
    passes(Attempt(w, leaf=leaves.EENTER, rbx=tcs))


def added_without(rights: int, access: int) -> Callable[[], None]:
    """ADD_PAGES with the right when the enclave is rebuilt."""

    def case() -> None:
        part = Part(sgx2=False)
        w = rig(explained(part=part), rights=rights)
        assert "ADD_PAGES before INIT with " in told(Attempt(w, w.enclave.data[0], access))
        w = rig(explained(part=part), rights=rights | access)
        passes(Attempt(w, w.enclave.data[0], access))

    return case


def never_added() -> None:
    """More pages when the enclave is rebuilt."""
    for pages in (5, 6):
        w = rig(explained(part=Part(sgx2=False)), pages=pages)
        attempt = Attempt(w, w.enclave.data[4] + PAGE_SIZE, R)
        if pages == 5:
            assert "no page was added there, and without SGX2 none is on touch" in told(attempt)
        else:
            passes(attempt)


def address_of_the_kernel() -> None:
    w = rig(explained())
    assert "use an address of user space" in told(Attempt(w, 0x7FFF_FFFF_F000, R, outside=True))
    passes(Attempt(w, w.enclave.data[0], R, outside=True))


def frames_elsewhere() -> None:
    """OSSA past the enclave, and so far past it that the address is not canonical."""
    for ossa in (1 << 24, 1 << 40):
        wrong = entry_of(built(tcs_image(OSSA=ossa)))
        assert "OSSA of the TCS must lead to pages of the enclave" in told(wrong)
    passes(entry_of(built(tcs_image())))


def no_frames() -> None:
    """A page that is to become a TCS with NSSA 0; another page, with NSSA."""
    w = rig(explained())
    for number, fields in enumerate(({"NSSA": 0}, {})):
        page = w.enclave.data[number]
        raw = good_tcs(w, **fields)

        def write(t: EnclaveThread, page: int = page, raw: bytes = raw) -> Steps[None]:
            yield from t.store(page, raw)

        w.do(w.enclave.call(w.host, write, thread=10))
        assert w.do(w.enclave.make_tcs(w.host, page))[0] == 0
        attempt = Attempt(w, leaf=leaves.EENTER, rbx=page)
        if number:
            follow(attempt)
        else:
            assert "make another page a TCS, with NSSA and OSSA set" in told(attempt)


OF_PLANS: Final[list[Callable[[], None]]] = [
    build_anew(VALID, GONE),
    build_anew(MODIFIED, STUCK),
    no_epc,
    a_tcs_of_sgx1,
    added_without(R, W),
    added_without(R | W, X),
    never_added,
    address_of_the_kernel,
    frames_elsewhere,
    no_frames,
]


@pytest.mark.parametrize("case", OF_PLANS)
def test_what_the_words_of_a_plan_say_helps(case: Callable[[], None]) -> None:
    case()


_CET: Final = "the driver builds no enclave with CET (docs/readings.md); tests/cpu/test_cet_*.py"
_KERNEL: Final = "control registers are the kernel's; no program can be refused for them"
ELSEWHERE: Final[dict[str, str]] = {
    **{rule: _CET for rule in RULES if re.match(r"CET\.(1[89]|2\d)|ACCESS\.1[567]", rule)},
    "PAGING.07": _CET,
    **dict.fromkeys(("ENCLU.01", "ENCLU.02", "ENCLU.03", "ENCLU.06", "ENCLU.07"), _KERNEL),
    **dict.fromkeys(("ENTRY.07", "ENTRY.08", "ENCLU.04", "PAGING.02"), _KERNEL),
    "EACCEPT.27": "a 32-bit enclave is never inside on a 64-bit processor",
    "ENTRY.06": "as above: ECREATE wants it below 4 GiB; tests/cpu/test_entry has the row",
    "EGETKEY.18": "CONFIGSVN needs KSS, and with CONFIGSVN 0 it is EGETKEY.12: tests/cpu/leaf",
    "CODE.01": "tests/programs/illegal_inside.c",
    "CODE.02": "tests/programs/exceptions.c: the handler inside skips it",
    "CODE.03": "tests/programs/exceptions.c",
    "CODE.04": "tests/programs/exceptions.c",
    "CODE.05": "tests/programs/avx_inside.c: natively it goes on",
}


@pytest.mark.parametrize("rule", DONE)
def test_what_the_words_say_helps(rule: str) -> None:
    DONE[rule]()


def worded() -> Iterator[str]:
    """The rules whose advice is text, whatever the state."""
    yield from WORDS
    yield from CONTENTS
    yield from TCS_CONTENTS
    yield from (rule for rule in ELSEWHERE_RULES if rule.startswith("CODE."))


def test_all_words_are_done_somewhere() -> None:
    assert set(worded()) <= set(DONE) | set(ELSEWHERE)
    assert not set(DONE) & set(ELSEWHERE)


# Every rule


MET: Final = [
    rule
    for rule in [*RULES, *ELSEWHERE_RULES]
    if re.match(
        r"(ACCESS|PAGING|EACCEPT|EACCEPTCOPY|EMODPE|EENTER|ERESUME|EDECCSSA|EEXIT|EGETKEY|EREPORT"
        r"|ENCLU|ENTRY|FRAME|CODE|HOST)\.|CET\.(1[89]|2\d)",
        rule,
    )
]
_LEAF: Final = {"ENCLU": "EENTER", "ENTRY": "EENTER", "FRAME": "EENTER", "CET": "EACCEPT"}


@pytest.mark.parametrize("rule", MET)
def test_every_rule_that_a_program_can_meet_has_advice(rule: str) -> None:
    """No rule has only its own text as the answer."""
    w = rig(explained())
    assert w.machine.explainer is not None
    room = rule.split(".")[0]
    facts = look(w.machine.explainer.history, w.machine.kernel.lp(w.host.thread), w.enclave.tcs[0])
    facts.secs = next(iter(w.machine.processor.secs.values()))
    if room == "CODE":
        way = advice_for_instruction(rule)
    elif room in ("ACCESS", "PAGING", "HOST"):
        way = advice_for_access(facts, R, rule)
    else:
        leaf = _LEAF.get(room, room)
        way = advice_for_leaf(facts, Call(leaf, 1, 1, 1, None), rule, "RBX")
    assert way.alternatives
    assert all(steps for steps in way.alternatives)
    assert all(step.text for steps in way.alternatives for step in steps)
    assert "allowed as soon as" not in way.text


def test_every_step_can_be_taken_or_has_a_test_of_its_own() -> None:
    own = {s.Say, s.Init, s.Leave, s.Wait}
    kinds = {*s.Step.__subclasses__(), *s.Words.__subclasses__()} - {s.Words}
    assert kinds == set(_TAKEN) | own


@pytest.mark.parametrize(
    ("leaf", "operand"),
    [
        *((leaf, "RBX") for leaf in ("EENTER", "ERESUME", "EREPORT", "EGETKEY", "EACCEPT")),
        *((leaf, "RCX") for leaf in ("EACCEPT", "EMODPE", "EACCEPTCOPY", "EGETKEY")),
    ],
)
def test_an_operand_in_a_page_that_is_being_evicted(leaf: str, operand: str) -> None:
    """Whatever the page, a TCS included: it is BLOCKED, and the next fault loads it."""
    w = rig(explained())
    page = w.enclave.tcs[0] if leaf in ("EENTER", "ERESUME") else w.enclave.data[0]
    w.do(w.host.load(page, 1))  # so that it is mapped
    assert w.machine.explainer is not None
    epcm = w.machine.processor.epcm
    number = next(n for n in range(epcm.pages) if epcm.address[n] == page and epcm.state[n])
    epcm.put(number, epcm.state[number] | BLOCKED)
    facts = look(w.machine.explainer.history, w.machine.kernel.lp(w.host.thread), page)
    facts.secs = next(iter(w.machine.processor.secs.values()))
    way = advice_for_leaf(facts, Call(leaf, page, page, page, REG | R), f"{leaf}.99", operand)
    assert EVICTED_NEXT in way.text


USED: Final = [r for r in MET if re.match(r"another (SGX2 )?leaf uses ", RULES.get(r, ""))]


@pytest.mark.parametrize("rule", USED)
def test_a_page_that_another_processor_uses_is_to_be_retried(rule: str) -> None:
    """The page itself is as it must be: its present state is no advice."""
    assert len(USED) >= 6
    w = rig(explained())
    assert w.machine.explainer is not None
    page = w.enclave.data[0]
    facts = look(w.machine.explainer.history, w.machine.kernel.lp(w.host.thread), page)
    facts.secs = next(iter(w.machine.processor.secs.values()))
    leaf = _LEAF.get(rule.split(".")[0], rule.split(".")[0])
    way = advice_for_leaf(facts, Call(leaf, page, page, page, REG | R), rule, "RCX")
    assert "another processor executes a leaf" in way.text

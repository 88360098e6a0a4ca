"""Processor.fingerprint, and that a snapshot holds all it sees.

Every component of the state is changed alone: the fingerprint must differ, from that of every other
change too, and a restore must bring the old one back. The attributes of LP and SECS are taken from
the classes, so that a new one is covered on the day it is added.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softsgx.cpu import Bare, LogicalProcessor, Processor, Readings
from softsgx.cpu.memory import LpMemory
from softsgx.cpu.secs import Secs
from softsgx.cpu.state import LpState
from softsgx.mem import AddressSpace
from softsgx.mem.pagetable import PTE_A, PTE_P, PTE_W
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, PT_VA, R, W, X
from softsgx.spec.leaves import EPA
from softsgx.spec.registers import REGISTER_NAMES
from tests.cpu.machines import USER, Everything, everything
from tests.cpu.paging import Paged, paged, poke

# Attributes that are not state of the machine, or are seen through another attribute.
NOT_STATE_LP = set("busy id in_flight last_entries log processor regs secs space tlb x".split())
NOT_STATE_SECS = {"measurement", "_fixed"}

Change = Callable[[Everything], object]


def altered(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1 if value >= 0 else 0
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    assert isinstance(value, tuple)
    return (altered(value[0]), *value[1:]) if value else (0x1000,)


def alter(what: str, find: Callable[[Everything], object]) -> Change:
    """Give an attribute another value."""

    def change(e: Everything) -> None:
        owner = find(e)
        setattr(owner, what, altered(getattr(owner, what)))

    return change


def data(e: Everything, number: int) -> int:
    return e.enclave.pages[e.enclave.data[number]]


def inside(e: Everything) -> LogicalProcessor:
    return e.bare.processor.lps[1]


def xor_word(bits: int) -> Change:
    def change(e: Everything) -> None:
        epcm = e.bare.processor.epcm
        epcm.put(data(e, 0), epcm.state[data(e, 0)] ^ bits)

    return change


def xor_column(name: str) -> Change:
    def change(e: Everything) -> None:
        getattr(e.bare.processor.epcm, name)[data(e, 1)] ^= 1

    return change


def xor_register(lp: int, number: int) -> Change:
    def change(e: Everything) -> None:
        e.bare.processor.lps[lp].regs[number] ^= 1

    return change


def xor_pte(space: Callable[[Everything], AddressSpace], bits: int) -> Change:
    return lambda e: space(e).set(USER, space(e).lookup(USER) ^ bits)


def write_epc(e: Everything) -> None:
    processor = e.bare.processor
    processor.memory.write(processor.epc.physical(data(e, 0)) + 4095, b"\xee")


def measure_more(e: Everything) -> None:
    measurement = e.bare.processor.secs[e.unfinished.secs].measurement
    assert measurement is not None
    measurement.update(b"more")


def hash_more(e: Everything) -> None:
    (waiting,) = e.bare.processor.hashes.values()
    waiting.update(b"more")


def forget_hash(e: Everything) -> None:
    e.bare.processor.hashes.clear()


def tlb_entry(bits: int) -> Change:
    def change(e: Everything) -> None:
        inside(e).tlb.entries[e.enclave.data[0] >> 12] ^= bits

    return change


def avx(lp: int) -> Change:
    return lambda e: e.bare.processor.lps[lp].x.components.update({2: b"other"})


def of_lp(lp: int) -> Callable[[Everything], LogicalProcessor]:
    return lambda e: e.bare.processor.lps[lp]


def x_of(lp: int) -> Callable[[Everything], object]:
    return lambda e: e.bare.processor.lps[lp].x


def pte_changes(name: str, space: Callable[[Everything], AddressSpace]) -> dict[str, Change]:
    return {
        f"PTE.A {name} space": xor_pte(space, PTE_A),
        f"PTE.W {name} space": xor_pte(space, PTE_W),
        f"PTE frame {name} space": xor_pte(space, 1 << 12),
        f"PTE gone {name} space": lambda e: space(e).unmap(USER),
        f"PTE new {name} space": lambda e: space(e).set(USER + 0x1000, PTE_P),
    }


def changes() -> Iterator[tuple[str, Change]]:
    for name, bit in (
        *(("R", R), ("W", W), ("X", X), ("PENDING", PENDING), ("MODIFIED", MODIFIED)),
        *(("PR", PR), ("BLOCKED", BLOCKED), ("PT", 1 << 8)),
    ):
        yield f"EPCM.{name}", xor_word(bit)
    yield "EPCM.VALID", lambda e: e.bare.processor.epcm.free(data(e, 3))
    for column in ("secs", "address", "stamp"):
        yield f"EPCM {column}", xor_column(column)
    yield "EPC contents", write_epc
    yield "RAM", lambda e: poke(e.bare, e.bare.rdinfo, b"\x01")
    for owner, find in (
        ("initialised", lambda e: e.bare.processor.secs[e.enclave.secs]),
        ("unfinished", lambda e: e.bare.processor.secs[e.unfinished.secs]),
    ):
        for name in sorted(set(Secs.__slots__) - NOT_STATE_SECS):
            yield f"SECS.{name} {owner}", alter(name, find)
    yield "measurement", measure_more
    yield "waiting measurement", hash_more
    yield "waiting measurement gone", forget_hash
    for lp in range(3):
        for number, name in enumerate(REGISTER_NAMES):
            yield f"LP {lp} {name}", xor_register(lp, number)
        for name in sorted(set(LpState.__slots__) - NOT_STATE_LP):
            yield f"LP {lp} {name}", alter(name, of_lp(lp))
        yield f"LP {lp} x87 and SSE", alter("legacy", x_of(lp))
        yield f"LP {lp} AVX", avx(lp)
    yield "AVX in INIT state", lambda e: inside(e).x.components.clear()
    yield "TLB entry rights", tlb_entry(1)
    yield "TLB entry frame", tlb_entry(1 << 12)
    yield "TLB entry gone", lambda e: inside(e).tlb.invlpg(e.enclave.data[0])
    yield "TLB entry of another LP", lambda e: e.bare.lp.tlb.entries.update({1: 1})
    yield from pte_changes("first", lambda e: e.bare.processor.space).items()
    yield from pte_changes("second", lambda e: e.second).items()
    yield "LP in another space", lambda e: setattr(e.bare.processor.lps[2], "space", e.second)
    yield "next EID", alter("next_eid", lambda e: e.bare.processor)
    yield "next version", alter("next_version", lambda e: e.bare.processor)


CHANGES = dict(changes())
MACHINE = everything()
START = MACHINE.bare.processor.snapshot()
FINGERPRINT = MACHINE.fingerprint()


def test_the_names_of_what_is_no_state_are_right() -> None:
    assert set(LpState.__slots__) > NOT_STATE_LP
    assert LogicalProcessor.__slots__ == LpMemory.__slots__ == Processor.__slots__ == ()
    assert set(Secs.__slots__) > NOT_STATE_SECS
    assert len(CHANGES) > 150


@pytest.mark.parametrize("name", CHANGES)
def test_every_component_is_seen_and_restored(name: str) -> None:
    MACHINE.bare.processor.restore(START)
    CHANGES[name](MACHINE)
    assert MACHINE.fingerprint() != FINGERPRINT
    MACHINE.bare.processor.restore(START)
    assert MACHINE.fingerprint() == FINGERPRINT


def test_different_changes_have_different_fingerprints() -> None:
    seen: dict[int, str] = {}
    for name, change in CHANGES.items():
        MACHINE.bare.processor.restore(START)
        change(MACHINE)
        assert seen.setdefault(MACHINE.fingerprint(), name) == name
    MACHINE.bare.processor.restore(START)


def test_a_fingerprint_is_64_bits_and_has_no_effect() -> None:
    machine = everything()
    assert machine.fingerprint() == machine.fingerprint() == FINGERPRINT
    assert 0 <= FINGERPRINT < 1 << 64


def test_who_is_in_which_space_counts() -> None:
    """Three processors in two spaces, one way and the other; the spaces are the same."""
    seen = set()
    for shared in (0, 2):
        bare = Bare(8, lps=3)
        other = AddressSpace("other")
        for space in (bare.processor.space, other):
            space.map(USER, 5 if space is other else 6)
        bare.processor.lps[2].space = other
        bare.processor.lps[1].space = bare.processor.lps[shared].space
        seen.add(bare.processor.fingerprint())
    assert len(seen) == 2


# Equal states, reached differently


def equal(one: Paged, other: Paged) -> bool:
    return one.bare.processor.fingerprint() == other.bare.processor.fingerprint()


def test_entries_and_exits_leave_no_trace() -> None:
    one, other = paged(init=True), paged(init=True)
    for m, times in ((one, 1), (other, 3)):
        for _ in range(times):
            m.enclave.enter()
            m.enclave.exit()
    assert equal(one, other)


def test_what_was_written_and_erased_leaves_no_trace() -> None:
    one, other = paged(), paged()
    poke(one.bare, one.bare.rdinfo, b"secret")
    assert not equal(one, other)
    poke(one.bare, one.bare.rdinfo, bytes(6))
    frame = one.bare.processor.memory.alloc()
    one.bare.processor.memory.write(frame << 12, bytes(10))
    assert equal(one, other)


def test_the_order_of_mappings_and_translations_does_not_count() -> None:
    machines = []
    for order in ((0, 1, 2), (2, 0, 1)):
        m = paged()
        for number in order:
            m.bare.processor.space.map(USER + 0x1000 * number, 9 + number)
        for number in (*order, *order):
            m.bare.lp.load(USER + 0x1000 * number, 1)
        machines.append(m)
    assert equal(*machines)


def test_the_order_in_which_enclaves_were_loaded_does_not_count() -> None:
    machines = []
    for order in ((0, 1), (1, 0)):
        m = paged()
        bare = m.bare
        secs = [m.enclave.secs, bare.enclave(base=0x10_0000_0000, init=False).secs]
        for page in range(bare.processor.epcm.pages):
            if page not in secs and page != m.va:
                bare.eremove(page)
        # Memory for both first, so that each lies where it does in the other machine.
        backing = bare.backing()
        for number in order:
            assert bare.ewb(secs[number], m.va, 0, backing) == 0
            assert bare.eld(backing, m.va, 0, None, page=secs[number])[1] == 0
        for address in (backing.page, backing.pcmd):
            poke(bare, address, bytes(4096))
        bare.pageinfo()
        bare.lp.regs[:] = [0] * 18
        machines.append(m)
    assert equal(*machines)


def test_the_order_of_extended_components_does_not_count() -> None:
    one, other = paged(), paged()
    one.bare.lp.x.components.update({2: b"a", 9: b"b"})
    other.bare.lp.x.components.update({9: b"b", 2: b"a"})
    assert equal(one, other)


def test_epc_pages_that_are_free_again_leave_no_trace() -> None:
    one, other = Bare(5000), Bare(5000)
    for page in (4999, 2000, 0):
        one.lp.encls(EPA, PT_VA, one.address(page))
        assert one.eremove(page) == 0
    other.lp.regs[:] = one.lp.regs[:]
    assert one.processor.fingerprint() == other.processor.fingerprint()


def test_the_reading_late_entry_counts_needs_its_history() -> None:
    """Then it matters who entered before a stamp, so that machines that differ there differ."""
    seen = set()
    for late in (False, True):
        m = paged(init=True, threads=2, readings=Readings(late_entry_counts=False))
        other = m.bare.processor.lps[1]
        for step in range(2):
            if late == bool(step):
                m.enclave.enter(other)
            else:
                assert m.bare.eblock(m.page) == 0
        m.bare.lp.regs[:] = [0] * 18
        seen.add(m.bare.processor.fingerprint())
    assert len(seen) == 2


ROOT = Path(__file__).resolve().parents[2]
PRINT = "from tests.cpu.machines import everything; print(everything().fingerprint())"


@pytest.mark.parametrize("hash_seed", ["0", "1", "4294967295"])
def test_the_fingerprint_is_the_same_in_every_process(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == FINGERPRINT

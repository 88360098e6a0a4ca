"""What refuses on a part with CET is explained like everything else, with advice."""

import pytest

from softsgx.cpu import Fault, LogicalProcessor, Part
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX
from softsgx.sim import Steps
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.epcm import REG, SS_FIRST, VALID, R, W
from softsgx.spec.rules import RULES
from softsgx.spec.translation import ACCESS_NAMES, SHADOW_READ, SHADOW_WRITE, WRITE
from softsgx.system import EnclaveThread, Machine
from softsgx.system.explain.access_advice import advice_for_access
from softsgx.system.explain.explainer import refusing_layer
from softsgx.system.explain.facts import look
from softsgx.system.explain.history import History
from softsgx.system.explain.leaf_advice import Call, advice_for_leaf
from tests.linux.world import World, world

OUTSIDE = 0x50_0000


@pytest.fixture
def w() -> World:
    return world(Machine(cpus=4, epc="1M", explain=True, part=Part(cet=True)))


def history(w: World) -> History:
    assert w.machine.explainer is not None
    return w.machine.explainer.history


def refused(lp: LogicalProcessor, access: int, address: int) -> None:
    if access == WRITE:
        lp.store(address, b"x")
    elif access == SHADOW_READ:
        lp.shadow_load(address)
    else:
        lp.shadow_store(address, 1)


def at_stop(t: EnclaveThread) -> Steps[int]:
    """Nothing: the thread is inside, and the test looks at its processor."""
    yield from t.load(t.args)
    return 0


def inside(w: World, address: int, word: int, pte: int) -> LogicalProcessor:
    """A processor put inside, with a shadow stack; the page has this EPCM word and these PTE bits.

    The driver gives no enclave a shadow stack, so the state is made by hand.
    """
    processor = w.machine.processor
    secs = next(iter(processor.secs.values()))
    page = next(
        n
        for n in range(processor.epcm.pages)
        if processor.epcm.address[n] == address and processor.epcm.state[n] & VALID
    )
    lp = w.machine.kernel.lp(w.host.thread)
    lp.load_cr3(w.mm.space)
    tcs = next(n for n in range(processor.epcm.pages) if processor.epcm.state[n] >> 8 == 1)
    lp.enclu(2, processor.epcm.address[tcs], 0x40_1000)
    processor.epcm.put(page, word)
    entry = w.mm.space.lookup(address)
    w.mm.space.set(address, entry & ~(2 | PTE_D) | PTE_A | PTE_NX | pte)
    lp.tlb.entries.clear()
    lp.u_cet |= SH_STK_EN
    assert lp.secs is secs
    return lp


@pytest.mark.parametrize(
    ("rule", "word", "pte", "access", "parts"),
    [
        ("ACCESS.16", VALID | REG | R | W, PTE_D, SHADOW_READ, ("the EPCM", "to pop again")),
        ("ACCESS.17", VALID | SS_FIRST | R | W, PTE_D | 2, WRITE, ("the EPCM", "by CALL or WRSS")),
        ("PAGING.07", VALID | SS_FIRST | R | W, 0, SHADOW_WRITE, ("the page table", "R/W = 0")),
    ],
)
def test_access_to_a_shadow_stack(
    w: World, rule: str, word: int, pte: int, access: int, parts: tuple[str, ...]
) -> None:
    page = w.enclave.data[0]
    w.call(at_stop, page)
    lp = inside(w, page, word, pte)
    with pytest.raises(Fault) as caught:
        refused(lp, access, page)
    assert caught.value.rule == rule
    text = w.machine.explain(caught.value)
    assert f"({rule})" in text
    assert ACCESS_NAMES[access] in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("access", ACCESS_NAMES)
@pytest.mark.parametrize("rule", [r for r in RULES if r.startswith(("ACCESS.", "PAGING."))])
def test_every_access_and_every_rule_has_a_text(w: World, rule: str, access: int) -> None:
    """No combination may break the explanation."""
    lp = w.machine.processor.lps[0]
    for address in (w.enclave.data[0], OUTSIDE):
        facts = look(history(w), lp, address)
        assert refusing_layer(rule, facts, access)
        assert advice_for_access(facts, access, rule).text
    if access in (SHADOW_READ, SHADOW_WRITE) and rule in ("ACCESS.15", "ACCESS.16", "PAGING.07"):
        assert advice_for_access(facts, access, rule).text.startswith("to p")


def _is_about_the_frame(rule: str) -> bool:
    """Found by ERESUME in the CET area of the frame, which only the enclave can write."""
    return rule.startswith("CET.") and RULES[rule].startswith("ERESUME: ")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("CET.18", "nothing to accept"),
        ("CET.19", "set PREVSSP of the TCS to 0 while"),
        ("CET.20", "ENDBR64"),
        ("CET.21", "CR4.CET"),
        ("CET.22", "multiple of 16"),
        ("CET.23", "PT_SS_REST"),
        ("CET.24", "PT_SS_REST"),
        *((rule, "changed its CET frame") for rule in RULES if _is_about_the_frame(rule)),
    ],
)
def test_advice_for_leaves(w: World, rule: str, text: str) -> None:
    facts = look(history(w), w.machine.processor.lps[0], w.enclave.data[0])
    assert text in advice_for_leaf(facts, Call("EACCEPT", 0, 0, 0, None), rule, "RCX").text

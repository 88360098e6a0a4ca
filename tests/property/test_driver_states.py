"""Random hosts and enclaves on the whole driver, interleaved step by step.

docs/invariants.md lists what holds (D1 to D20), driver_invariants.py checks it, driver_machine.py
says when. Longer runs: SOFTSGX_FUZZ=examples, see world.py; with -s the counts of what happened are
shown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from tests.property import driver_invariants
from tests.property.driver_machine import COUNTS, watched
from tests.property.driver_stays import Stays
from tests.property.driver_watch import Watch
from tests.property.driver_world import CPUS
from tests.property.world import campaign

WEIGHTS = {
    **dict.fromkeys("enter".split(), 24),
    **dict.fromkeys("cycle touch".split(), 12),
    **dict.fromkeys("modify remove restrict build reclaim map_all mprotect".split(), 4),
    **dict.fromkeys("lack pass_fd".split(), 4),
    **dict.fromkeys("fork mmap munmap signal mremap execve exit".split(), 2),
    **dict.fromkeys("open dup close thread".split(), 1),
    **dict.fromkeys("provision unknown".split(), 1),
}
MOVE = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])
CPU = st.sampled_from(range(CPUS))
NUMBER = st.sampled_from(range(1 << 12))
SPOIL = st.sampled_from([0] * 20 + [1, 2, 3, 4])
# How far a move goes before the next one begins; the last ones mostly reach its end.
STEPS = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 21, 34, 60, 100, 300, 300, 300, 300])
EPC = st.sampled_from([26, 40, 64])


class Play(Stays):
    """One rule for all moves, so that we choose their weights."""

    @initialize(epc=EPC, low=st.sampled_from([2, 4, 8]))
    def power_on(self, epc: int, low: int) -> None:
        """The machine, and an enclave that is ready in one process."""
        self.begin(epc, low)
        slot = self.slots[0]
        self.start(slot, self.open(slot, 1, 0, 0), "open")
        self.finish()
        while not self.enclaves[0].tcs:
            self.start(slot, self.build(slot, 0, 0, 0), "build")
            self.finish()
        self.start(slot, self.map_all(slot, 8, 0, 0), "map")
        self.finish()

    @rule(n=CPU, move=MOVE, number=NUMBER, value=NUMBER, spoil=SPOIL, steps=STEPS)
    def step(self, n: int, move: str, number: int, value: int, spoil: int, steps: int) -> None:
        """Begin a move if the processor is idle; let the processor go on."""
        slot = self.slots[n]
        if slot.task is None and slot.host is None:
            slot = next((s for s in self.slots if s.host and not s.task), slot)
            move = ("fork", "thread")[number % 2]
        if slot.task is None and slot.host is not None:
            self.start(slot, getattr(self, move)(slot, number, value, spoil), move)
        self.go_on(slot.task, steps, number)

    def teardown(self) -> None:
        """Read back, close, and check that nothing is left."""
        if hasattr(self, "machine"):
            self.end()
        for what in self.reached:
            event(what)


class PlayOnTheRealKernel(Play):
    """With the races of Linux 6.12: K1, K2, K3. D7 and D18 allow for them."""

    races: ClassVar[dict[str, bool]] = {}


# What must happen in a run; otherwise the state machine misses its purpose.
SITUATIONS = (
    *("INIT", "fork", "exec", "exit", "mmap of an enclave", "mprotect 0"),
    *("a descriptor was passed", "a pass found something", "a page came back", "a SECS came back"),
    *("RestrictPermissions 0", "ModifyTypes 0", "RemovePages 0", "a page was removed"),
    *("RestrictPermissions -14", "ModifyTypes -22", "RemovePages -1"),
    *("a stay ended", "ERESUME by the host", "a signal during a call", "signal 11"),
    *("inside: store", "inside: load", "inside: fetch", "inside: emodpe", "inside: ocall"),
    *("inside: accept_new SGX_SUCCESS", "inside: claim SGX_SUCCESS", "inside: copy SGX_SUCCESS"),
    *("inside: accept SGX_PAGE_ATTRIBUTES_MISMATCH", "the host read an enclave"),
    *("failed: sgx_alloc_epc_page", "failed: vmf_insert_pfn"),
)


def played(machine: type[Play], examples: int, steps: int) -> dict[str, int]:
    """Run a campaign; return how often each thing happened."""
    COUNTS.clear()
    with watched():
        run_state_machine_as_test(machine, settings=campaign(examples=examples, steps=steps))
    for what, count in sorted(COUNTS.items()):
        print(f"{count:8} {what}")
    return COUNTS


def test_driver_keeps_its_records() -> None:
    """With the races of the real kernel fixed, no violation is allowed for."""
    counts = played(Play, 80, 60)
    assert [what for what in SITUATIONS if not counts.get(what)] == []


def test_real_kernel_breaks_only_what_its_races_break() -> None:
    assert played(PlayOnTheRealKernel, 25, 60)["RemovePages 0"]


def test_every_invariant_of_the_driver_has_its_function() -> None:
    """The table of docs/invariants.md and the registries name the same functions."""
    text = (Path(__file__).parents[2] / "docs" / "invariants.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| (D\d+) \|.*\| `(\w+)` \|$", text, re.MULTILINE))
    checks = {**driver_invariants.CHECKS, **driver_invariants.QUIET_CHECKS}
    named = {number: check.__name__ for number, check in checks.items()}
    assert documented == named | {
        "D17": Play.contents.__name__,
        "D18": driver_invariants.sigbus_has_a_reason.__name__,
        "D19": driver_invariants.nothing_is_left.__name__,
        "D20": Watch.end.__name__,
    }

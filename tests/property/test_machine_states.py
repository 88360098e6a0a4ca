"""Random software on the processor: after every instruction all invariants hold.

docs/invariants.md lists them, machine.py checks them, machine_kernel.py and machine_enclave.py say
what software does. Longer runs: SOFTSGX_FUZZ=examples, see world.py; with -s the counts of
successes are shown.
"""

import re
from pathlib import Path

from hypothesis import event, target
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from softsgx.cpu.part import UNMODELLED_LEAVES
from tests.property import invariants, transitions
from tests.property.machine import COUNTS
from tests.property.machine_enclave import EnclaveMoves
from tests.property.world import LEAVES, LPS, campaign

# How often each move is tried, relative to the others.
WEIGHTS = {
    **dict.fromkeys("work".split(), 8),
    **dict.fromkeys("go_on emodpr".split(), 6),
    **dict.fromkeys("eaug touch enter".split(), 4),
    **dict.fromkeys("build emodpe eaccept make_tcs reload".split(), 3),
    **dict.fromkeys("emodt change_pte eacceptcopy etrack wild eblock ewb hurry".split(), 2),
    **dict.fromkeys("eremove epa leave inspect identify drop_frame overlap".split(), 1),
    **dict.fromkeys("swap_out tear_down".split(), 1),
}
MOVE = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])
LP = st.sampled_from(range(LPS))
NUMBER = st.sampled_from(range(1 << 12))
SPOIL = st.sampled_from([0] * 28 + [1, 2, 3, 4])

# What must happen in a run besides every leaf; otherwise the state machine misses its purpose.
SITUATIONS = (
    *("load", "store", "fetch", "AEX", "use of a stale translation", "entered a new TCS"),
    *("EACCEPT EAUG", "EACCEPT EMODPR", "EACCEPT TCS", "EACCEPT TRIM"),
    *("EMODPR with a processor inside", "EWB and ELD round trip", "SECS round trip"),
    *("VA round trip", "refused beside another leaf"),
)


class Play(EnclaveMoves):
    """One rule for all moves, so that we choose their weights."""

    @rule(move=MOVE, n=LP, number=NUMBER, value=NUMBER, spoil=SPOIL)
    def step(self, move: str, n: int, number: int, value: int, spoil: int) -> None:
        """Do a move."""
        getattr(self, move)(n, number, value, spoil)

    def teardown(self) -> None:
        """Tell Hypothesis what this example reached."""
        for what in self.seen:
            event(what)
        target(float(len(self.seen)), label="leaves and situations in one example")


def test_invariants_hold_in_every_state() -> None:
    COUNTS.clear()
    run_state_machine_as_test(Play, settings=campaign(examples=90, steps=120))
    for what, count in sorted(COUNTS.items()):
        print(f"{count:8} {what}")
    wanted = [name for name in LEAVES if name not in UNMODELLED_LEAVES] + [*SITUATIONS]
    assert [what for what in wanted if not COUNTS.get(what)] == []


def test_every_invariant_has_its_function() -> None:
    """The table of docs/invariants.md and the registries name the same functions."""
    text = (Path(__file__).parents[2] / "docs" / "invariants.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| (I\d+) \|.*\| `(\w+)` \|$", text, re.MULTILINE))
    checks = {**invariants.CHECKS, **transitions.CHECKS, "I40": transitions.comes_back_the_same}
    assert documented == {number: check.__name__ for number, check in checks.items()}

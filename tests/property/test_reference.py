"""Random sequences of SGX2 leaves and accesses: the processor agrees with the naive reference.

beside.py says what is compared, moves.py what can happen. Longer runs:
SOFTSGX_FUZZ=examples, see world.py.
"""

from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.property.beside import SUCCEEDED
from tests.property.moves import EnclaveMoves
from tests.property.world import LPS, campaign

# How often each move is tried, relative to the others.
WEIGHTS = {
    **dict.fromkeys("eaug emodpr access work go_on enter".split(), 3),
    **dict.fromkeys("emodpe emodt change_pte eaccept eacceptcopy etrack".split(), 2),
    **dict.fromkeys("eblock eremove ewb leave make_tcs".split(), 1),
}
MOVE = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])
LP = st.sampled_from(range(LPS))
NUMBER = st.sampled_from(range(1 << 12))
SPOIL = st.sampled_from([0] * 28 + [1, 2, 3, 4])

# What must succeed in a run; otherwise the state machine misses its purpose.
REACHED = (
    *("EAUG EMODPR EMODT EACCEPT EACCEPTCOPY EMODPE EBLOCK ETRACK EREMOVE EWB".split()),
    *("EENTER ERESUME EEXIT AEX load store fetch".split()),
    *("EACCEPT EAUG", "EACCEPT EMODPR", "EACCEPT TCS", "EACCEPT TRIM", "EENTER on a new TCS"),
    *("stale wider", "stale narrower", "EMODPR with a processor inside"),
)


class Play(EnclaveMoves):
    """One rule for all moves, so that we choose their weights."""

    @rule(move=MOVE, n=LP, number=NUMBER, value=NUMBER, spoil=SPOIL)
    def step(self, move: str, n: int, number: int, value: int, spoil: int) -> None:
        """Do a move to both machines."""
        getattr(self, move)(n, number, value, spoil)


class PlayWithCet(Play):
    """The same moves with enclaves that use shadow stacks, on a processor with CET."""

    CET = True


REACHED_WITH_CET = (
    *("EAUG EMODPR EMODT EACCEPT EMODPE EBLOCK ETRACK EREMOVE EWB EENTER ERESUME EEXIT".split()),
    *("AEX", "shadow load", "shadow store", "EACCEPT EAUG of a shadow stack"),
)


def test_processor_with_cet_agrees_with_the_reference() -> None:
    SUCCEEDED.clear()
    run_state_machine_as_test(PlayWithCet, settings=campaign(examples=40, steps=150))
    print(dict(sorted(SUCCEEDED.items())))
    assert [name for name in REACHED_WITH_CET if not SUCCEEDED.get(name)] == []


def test_processor_agrees_with_the_reference() -> None:
    SUCCEEDED.clear()
    run_state_machine_as_test(Play, settings=campaign(examples=120, steps=150))
    print(dict(sorted(SUCCEEDED.items())))
    assert [name for name in REACHED if not SUCCEEDED.get(name)] == []

"""Whether a supervised program sees signals as on Linux: the kernel of this machine is the judge.

Each program runs by itself and under `softsgx run`, and the lines of each of its cases have to be
the same. known.py lists those that are not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache, partial

import pytest

from tests.runner.gcc import needs_gcc
from tests.runner.programs import ENGINES, Workshop
from tests.signals.comparing import (
    MODES,
    SUPERVISORS,
    Cases,
    names,
    natively,
    supervised,
    there,
)
from tests.signals.known import KNOWN

BEFORE_ANY = "sent_before_any"


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One directory for all programs."""
    return Workshop(tmp_path_factory.mktemp("signals"))


@pytest.fixture(scope="session")
def linux(workshop: Workshop) -> Callable[[str], Cases]:
    """What the cases of a program print without softsgx, each program once."""
    return cache(partial(natively, workshop))


@needs_gcc
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_signals_are_as_on_linux(
    workshop: Workshop, linux: Callable[[str], Cases], supervisor: str, name: str, mode: str
) -> None:
    if not there(supervisor):
        pytest.skip(f"`softsgx run` has no --supervisor {supervisor} yet")
    known = _known(name, supervisor, mode)
    wanted = linux(name)
    uncertain = {case for case in known if not known[case]} | _inherited(wanted)
    got = supervised(workshop, name, supervisor, mode, uncertain)
    wrong = {case for case in wanted.keys() - uncertain if got.get(case) != wanted[case]}
    unexpected = wrong ^ (known.keys() - uncertain)
    assert not unexpected, _difference(wanted, got, unexpected)


@needs_gcc
@pytest.mark.parametrize("name", names())
def test_every_case_ends_by_itself_on_linux(linux: Callable[[str], Cases], name: str) -> None:
    """And what is known to be wrong names a case."""
    cases = linux(name)
    assert [case for case, lines in cases.items() if not lines[-1].startswith("ends: ")] == []
    assert {row.case for row in KNOWN.get(name, ())} <= cases.keys()


@needs_gcc
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_signals_inside_an_enclave(workshop: Workshop, supervisor: str, engine: str) -> None:
    """inside.c says itself what is right: there may be no processor here that could."""
    if not there(supervisor):
        pytest.skip(f"`softsgx run` has no --supervisor {supervisor} yet")
    known = _known("inside", supervisor, engine)
    uncertain = {case for case in known if not known[case]}
    got = supervised(workshop, "inside", supervisor, engine, uncertain)
    wanted: Cases = dict.fromkeys(got, ("begins", "right", "ends: exit 0"))
    wrong = {case for case in got if got[case] != wanted[case]}
    unexpected = wrong ^ (known.keys() - uncertain)
    assert not unexpected, _difference(wanted, got, unexpected)


def _inherited(wanted: Cases) -> set[str]:
    """The case that depends on the past of this very process, if that had an exception of its own.

    Linux gives a new process trap number and CR2 of the one that made it, and exec keeps them;
    other tests execute ENCLS in this process.
    """
    lines = wanted.get(BEFORE_ANY, ())
    return (
        {BEFORE_ANY}
        if any("trapno" in line and "trapno 0 " not in line for line in lines)
        else set()
    )


def _known(name: str, supervisor: str, mode: str) -> dict[str, bool]:
    """Cases that are in the list, and whether they must be wrong."""
    rows = [row for row in KNOWN.get(name, ()) if row.supervisor == supervisor]
    return {row.case: row.always for row in rows if mode in row.modes}


def _difference(wanted: Cases, got: Cases, cases: set[str]) -> str:
    said = []
    for case in sorted(cases):
        lines = difflib.unified_diff(
            wanted[case], got.get(case, ()), "Linux", "softsgx", lineterm="", n=1
        )
        said += [f"{case}:", *(list(lines) or ["as on Linux, and in the list"])]
    return "\n".join(said)

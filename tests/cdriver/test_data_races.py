"""Accesses of the driver that nothing orders: what counts as ordered, and what is found in C."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from softsgx.cdriver.data_races import unordered
from softsgx.cdriver.notes import (
    ACQUIRE,
    ALLOCATED,
    ATOMIC,
    FREED,
    READ,
    READ_ONCE,
    RELEASE,
    WRITE,
    WRITE_ONCE,
)
from softsgx.cli.main import main
from tests.cdriver import sources
from tests.cdriver.patches import Patch, patched_object

Note = tuple[int, int, int, int, int]
X, LOCK = 0x1000, 0x2000


def note(kind: int, who: int, address: int = X, size: int = 8) -> Note:
    """A note whose instruction is its kind and thread."""
    return (kind * 16 + who, address, size, kind, who)


def locked(*notes: Note) -> list[Note]:
    """Notes of one thread under the lock."""
    who = notes[0][4]
    return [note(ACQUIRE, who, LOCK), *notes, note(RELEASE, who, LOCK)]


CASES = {
    "plain write, plain read": ([note(WRITE, 1), note(READ, 2)], True),
    "plain read, plain write": ([note(READ, 1), note(WRITE, 2)], True),
    "plain write, marked read": ([note(WRITE, 1), note(READ_ONCE, 2)], True),
    "marked write, plain read": ([note(WRITE_ONCE, 1), note(READ, 2)], True),
    "both marked": ([note(WRITE_ONCE, 1), note(READ_ONCE, 2)], False),
    "atomic and marked": ([note(ATOMIC, 1), note(READ_ONCE, 2)], False),
    "atomic and plain": ([note(ATOMIC, 1), note(READ, 2)], True),
    "both read": ([note(READ, 1), note(READ, 2)], False),
    "one thread": ([note(WRITE, 1), note(READ, 1)], False),
    "bytes beside": ([note(WRITE, 1, X, 4), note(READ, 2, X + 4, 4)], False),
    "bytes that overlap": ([note(WRITE, 1, X, 4), note(READ, 2, X + 3, 2)], True),
    "across granules": ([note(WRITE, 1, X + 4, 8), note(READ, 2, X + 8, 2)], True),
    "one lock": ([*locked(note(WRITE, 1)), *locked(note(READ, 2))], False),
    "one of them with the lock": ([*locked(note(WRITE, 1)), note(READ, 2)], True),
    "released before the write": (
        [*locked(note(READ, 1, X + 64)), note(WRITE, 1), *locked(note(READ, 2))],
        True,
    ),
    "published": (
        [note(WRITE, 1), note(WRITE_ONCE, 1, LOCK), note(READ_ONCE, 2, LOCK), note(READ, 2)],
        False,
    ),
    "dropped": (
        [note(READ, 1), note(ATOMIC, 1, LOCK), note(ATOMIC, 2, LOCK), note(FREED, 2)],
        False,
    ),
    "freed while it is read": ([note(READ, 1), note(FREED, 2)], True),
    "allocated anew": ([note(WRITE, 1), note(ALLOCATED, 2), note(WRITE, 2)], False),
    "through a third thread": (
        [
            *locked(note(WRITE, 1)),
            *locked(note(READ, 3)),
            note(RELEASE, 3, LOCK + 64),
            note(ACQUIRE, 2, LOCK + 64),
            note(WRITE, 2),
        ],
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_ordered(case: str) -> None:
    notes, expected = CASES[case]
    assert bool(list(unordered(notes))) is expected


def test_a_pair_is_named_once() -> None:
    notes = [note(WRITE, 1), note(READ, 2)] * 3
    assert len(list(unordered(notes))) == 1


SAMPLED = ("--strategy", "random", "--executions", "60")
DEEP = ("--strategy", "pct", "--depth", "3", "--executions", "60")


def races(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """What explore finds."""
    code = main(["explore", *words, "--data-races", "--json"])
    out, _err = capsys.readouterr()
    (found,) = json.loads(out)
    return code, found["data_races"]


def test_the_version_of_the_list_of_address_spaces_is_read_without_a_mark(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Linux itself: mm_list_version is read and written plainly, between barriers."""
    driver = str(sources.driver_object("6.12", tmp_path_factory))
    code, found = races(capsys, "ForkShare", "--driver", driver, *SAMPLED)
    assert code == 1
    pair = r"encl\.c:\d+ sgx_zap_enclave_ptes: plain read of 8 bytes by .*; "
    pair += r"encl\.c:\d+ sgx_encl_mm_add: plain write of 8 bytes by .*"
    assert found
    assert all(re.fullmatch(pair, race) for race in found)
    assert races(capsys, "PcmdSharing", "--driver", driver, *SAMPLED) == (0, [])
    # With points between accesses as well: an address is released before the pointer can be read.
    found = races(capsys, "ForkShare", "--driver", driver, *DEEP, "--points", "accesses")[1]
    assert found
    assert all(re.fullmatch(pair, race) for race in found)


def test_one_scenario_after_another(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The notes that the first one's failure leaves are not the second one's."""
    driver = str(sources.driver_object("6.12", tmp_path_factory))
    path = tmp_path / "two.py"
    path.write_text(
        "from softsgx.system.scenarios.fork_share import ForkShare as F\n"
        "from softsgx.system.scenarios.first_touch import FirstTouch as T\n"
        "class First(T): pass\nclass Second(F): pass\n"
    )
    main(["explore", str(path), "--driver", driver, *SAMPLED, "--data-races", "--json"])
    first, second = json.loads(capsys.readouterr().out)
    assert first["failure"]["kind"] == "violation"
    assert second["failure"] is None
    assert second["data_races"]


def test_a_planted_access_without_a_lock_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = sources.kernel_or_skip("6.12")
    patch = Patch("encl.c", "sgx_encl_eaug_page", r"mutex_lock\(", "encl->attributes_mask++;\n\t")
    driver = str(patched_object(tree, tmp_path / "linux", patch))
    code, found = races(capsys, "FirstTouch", "--driver", driver)
    assert code == 1
    text = "\n".join(found)
    assert re.search(r"sgx_encl_eaug_page: plain write of 8 bytes by .*; .*: plain write", text)

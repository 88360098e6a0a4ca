"""Both drivers agree on random streams, and on those that once showed a difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cdriver import sources
from tests.differential.agree import agree
from tests.differential.campaign import LENGTH, stretch
from tests.differential.compare import compare
from tests.differential.deliberate import DELIBERATE
from tests.differential.operations import NAMES, Failure, Op, Setting, episode
from tests.differential.plants import PLANTS, hunt, plant
from tests.differential.shrink import Shrinker, story
from tests.patience import LIMIT_S

STREAMS = 8
ROOT = Path(__file__).parents[2]
# Leaves that a short run must have executed with success, or it was about nothing.
REACHED = (
    *("ECREATE", "EADD", "EEXTEND", "EINIT", "EAUG", "EMODPR", "EMODT", "ETRACK", "EREMOVE"),
    *("EBLOCK", "EWB", "ELDU", "EENTER", "EEXIT", "ERESUME", "EACCEPT"),
)


@pytest.mark.parametrize("version", sources.VERSIONS)
def test_both_drivers_agree_on_random_streams(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = sources.driver_object(version, tmp_path_factory)
    part = stretch(driver, version, 1, LENGTH, range(STREAMS))
    assert not part.found, str(part.found[0].difference)
    assert part.operations == STREAMS * LENGTH
    assert [leaf for leaf in REACHED if not part.counts[f"{leaf}: SGX_SUCCESS"]] == []


STORIES: dict[str, tuple[Op, ...]] = {
    "the SECS page is known before ECREATE": (
        *(Op("process"), Op("open")),
        *(Op("create", 0, (0, 0), pause=pause) for pause in (1, 1, 1)),
    ),
    "a page has no type until it was added": (  # after the ninth operation pages are compared
        *(Op("process"), Op("open"), Op("create", 0, (0, 0)), *(Op("age"),) * 5),
        Op("build", 0, (0, 0), pause=3),
    ),
    "a child that is left and the SECS are a warning each": (
        *(Op("process"), Op("open")),
        Op("load", 0, (0, 0), fail=Failure("EEXTEND", "#PF")),
    ),
    "a debugger waits for the reclaimer": (
        *(Op("process"), Op("open"), Op("load", 0, (0, 0)), Op("process", 1), Op("age")),
        *(Op("reclaim", pause=20), Op("debug", 1, (0, 7, 0)), Op("go", 1)),
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_both_drivers_agree_on(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    agree("6.12", tmp_path_factory, Setting(), STORIES[name])


WAITS_FOR_EPC = (
    *(Op("process"), Op("open"), Op("load", 0, (0, 0)), Op("open", 0, (1,)), Op("load", 0, (1, 0))),
    *(Op("thread", 0, (0, 0)), Op("thread", 1, (0, 0)), Op("restrict", 0, (0, 0, 1, 0, 0))),
    *(Op("enter", 1, (0, 1, 0, 1, 0, 7, 7, 1, 0, 17, 0)), Op("load", 0, (0, 0), pause=2)),
    *(Op("ksgxd", 2), Op("build", 0, (0, 0)), Op("enter", 1, (0, 0, 0, 16, 0))),
    *(Op("enter", 1, (0, 1, 0, 11, 0), pause=6), Op("map", 0, (0, 0)), Op("cycle", 0, (0, 10, 0))),
    *(Op("reclaim", 0, (0,)), Op("debug", 0, (0, 16, 0), pause=1), Op("remove", 1, (0, 0, 0, 0))),
    *(Op("enter", 2, (1, 0, 4, 3, 0)), Op("munmap", 0, (0, 0, 0, 0))),
)


def test_a_debugger_waits_for_a_free_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All of EPC is in use. That loop wakes ksgxd, and so had no RETRY point in C: it never ended.

    Found after 111,000 operations of `make differential`.
    """
    agree("6.12", tmp_path_factory, Setting(epc=20, sgx2=True, big=False), WAITS_FOR_EPC)


@pytest.mark.parametrize("name", ["no ETRACK", "slot stale", "put forgotten", "wrong errno"])
def test_a_planted_bug_is_found(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tree = sources.kernel_or_skip("6.12")
    driver = plant(tree, tmp_path_factory.mktemp("planted") / "linux", name)
    found, _operations = hunt(driver, "6.12", operations=2000)
    assert found is not None, PLANTS[name].what


def test_a_stream_is_shortened_to_a_test(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The story that is printed tells the same again, with nothing in it that could be left out."""
    tree = sources.kernel_or_skip("6.12")
    driver = plant(tree, tmp_path_factory.mktemp("planted") / "linux", "count off by one")
    found, _operations = hunt(driver, "6.12", operations=2000)
    assert found is not None
    shrinker = Shrinker(lambda ops: compare(driver, "6.12", found.setting, ops), found.difference)
    ops = shrinker.shrink(found.ops)
    assert len(ops) <= 5
    space: dict[str, object] = {}
    exec(story("6.12", found.setting, ops), space)
    assert space["OPS"] == tuple(ops)
    difference = compare(driver, "6.12", found.setting, ops)
    assert difference is not None
    assert difference.what == found.difference.what
    for at in range(len(ops)):
        less = compare(driver, "6.12", found.setting, ops[:at] + ops[at + 1 :])
        assert less is None or less.what != difference.what


def test_a_stream_depends_on_its_seed_and_number_alone() -> None:
    first, second = episode(7, 3, LENGTH), episode(7, 3, LENGTH)
    assert first == second
    assert episode(7, 4, LENGTH) != first
    assert episode(8, 3, LENGTH) != first
    drawn = {op.name for number in range(STREAMS) for op in episode(1, number, LENGTH)[1]}
    assert drawn == set(NAMES)


def test_what_is_forgiven_is_in_the_document() -> None:
    text = (ROOT / "docs" / "driver.md").read_text(encoding="utf-8")
    rows = [f"| {each.what} | {each.why} |" for each in DELIBERATE]
    table = text.partition("| what may differ | why |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == rows


@pytest.mark.parametrize(
    "arguments",
    [["--source", "/nowhere"], ["--operations", "0"], ["--linux", "5.10"], ["--seed", "x"]],
    ids=" ".join,
)
def test_bad_input_is_refused(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.differential", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert arguments[0] in done.stderr or arguments[1] in done.stderr

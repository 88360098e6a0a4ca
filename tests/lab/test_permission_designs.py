"""docs/permission-designs.md: every finding has a command that shows it."""

import argparse
import re
from pathlib import Path

import pytest

from softsgx.cli import compare
from softsgx.cli.main import main
from softsgx.lab.prices import PROFILES
from softsgx.lab.validate import Target, targets

PAGE = (Path(__file__).parents[2] / "docs" / "permission-designs.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`softsgx (compare [^`]*)`", PAGE)
FAILURES = [command.split()[-1] for command in COMMANDS if "--failure" in command]


def sentences() -> list[str]:
    """The findings: the items of the lists."""
    return re.findall(r"^- (.*?)(?=^- |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


def test_every_finding_has_a_command() -> None:
    assert len(sentences()) > 20
    for sentence in sentences():
        assert re.search(r"`(softsgx|pytest) [^`]*`|`\[all\]`", sentence), sentence


@pytest.mark.parametrize("command", [c for c in COMMANDS if "FILE" not in c])
def test_commands_are_understood(command: str) -> None:
    parser = argparse.ArgumentParser()
    compare.register(parser)
    parser.parse_args(command.split()[1:])


BAD = {
    "mprotect-read/pending": "NOT repairable",
    "fault-once/pending": "UNDESERVED FAULT",
    "fault-always/reclaimed": "LOST in silence",
    "mprotect-read/two-processes": "UNDESERVED FAULT; LOST in silence",
}
FINE = {
    "ioctl/pending": "page named; failure named; repaired",
    "ioctl/etrack": "page named",
    "mprotect-prot/in-use": "page NOT named; failure NOT named; repaired",
    "ioctl/unmapped": "success",
    "mprotect-read/unmapped": "-ENOMEM",
    "fault-once/emodpe-between": "EACCEPT of page 2: SGX_PAGE_ATTRIBUTES_MISMATCH",
}


@pytest.fixture(scope="module")
def found() -> list[Target]:
    return targets(PROFILES["default"])


def test_the_times_of_4_gib_are_those_of_the_model(found: list[Target]) -> None:
    (restrict,) = (t for t in found if t.what == "RESTRICT of 4 GiB")
    assert restrict.model_to is not None
    times = re.search(
        r"take ([\d.]+) s .*?, ([\d.]+) s with\s16 and ([\d.]+) s with", PAGE, re.DOTALL
    )
    assert times is not None
    few, some, many = times.groups()
    assert (few, many) == (f"{restrict.model:.1f}", f"{restrict.model_to:.1f}")
    assert f"takes {some} s" in restrict.note


def test_the_figures_are_those_of_the_comparison(found: list[Target]) -> None:
    """Each row begins with a published figure; those of a range all have a row."""
    table = PAGE[PAGE.index("| figure |") :].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    said = {number for cell in cells for number in re.findall(r"[\d,]*\d(?:\.\d)?", cell)}
    published = {f"{t.published:{form}}" for t in found for form in (",.0f", ".1f")}
    assert len(cells) == 8
    for cell in cells:
        assert any(number in published for number in re.findall(r"[\d,]*\d(?:\.\d)?", cell)), cell
    for t in found:
        if t.verdict == "in range":
            assert {f"{t.published:,.0f}", f"{t.published:.1f}"} & said, t.what


def test_every_failure_of_the_page_is_checked_here() -> None:
    assert sorted(FAILURES) == sorted([*BAD, *FINE])


@pytest.mark.parametrize("which", sorted([*BAD, *FINE]))
def test_failures_are_as_the_page_says(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--failure", which]) == (1 if which in BAD else 0)
    assert {**BAD, **FINE}[which] in capsys.readouterr().out

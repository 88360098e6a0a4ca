"""Refused calls of real programs: each errno has its rule in the trace, and its words on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from softsgx.linux.refusals import REFUSALS
from tests.runner.programs import PROGRAMS, Program, Workshop, supervised

TABLES = ("ioctl_table", "advice_table", "mm_table", "descriptors", "device_rw", "process_mem")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("explained"))


def run(program: Program, workshop: Workshop, trace: Path) -> tuple[str, list[dict[str, Any]]]:
    asked = (*program.options, "--explain", "--trace", str(trace))
    done = supervised(workshop.command(program), *asked)
    assert done.returncode == program.exit, done.stdout + done.stderr
    lines = trace.read_text(encoding="utf-8").splitlines()
    return done.stderr, [json.loads(line) for line in lines[1:]]


def refused(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Calls that ended in an errno, with the last rule reported before on that processor."""
    rules: dict[int, list[str]] = {}
    found = []
    for event in events:
        if event["what"] in ("CallBegun", "PageFaultBegun"):
            rules.setdefault(event["cpu"], []).append("")
        elif event["what"] == "CallRefused" and rules.get(event["cpu"]):
            rules[event["cpu"]][-1] = event["rule"]
        elif event["what"] in ("CallEnded", "PageFaultEnded"):
            rule = rules[event["cpu"]].pop()
            if event["what"] == "CallEnded" and isinstance(event["result"], int):
                if -4096 < event["result"] < 0:
                    found.append((event["name"], rule))
    return found


# A row of the table that fails: its name, and an errno after it.
_OF_NO_AREA = ("mprotect: the hole left by it", "mprotect: what was cut off")
_FAILS = re.compile(
    r'row\("((?:mmap|mprotect|munmap|mremap|madvise|msync)[^"]*)"[^;]*?\bE[A-Z]+\);'
)


@pytest.mark.parametrize("name", ["mm_table", "advice_table"])
def test_what_the_real_kernel_would_refuse_by_itself_is_told_too(
    name: str, workshop: Workshop
) -> None:
    """munmap of no length, an address that is not aligned, MAP_FIXED_NOREPLACE over a page: such
    calls went to the real kernel unseen, and --explain was silent about them."""
    program = Program.read(PROGRAMS / f"{name}.c")
    rows = _FAILS.findall(program.source.read_text(encoding="utf-8"))
    _, events = run(program, workshop, workshop.directory / f"{name}-rows.jsonl")
    for call in {row.split(":")[0].split(" ")[0] for row in rows}:
        wanted = [row for row in rows if row.startswith(call) and row not in _OF_NO_AREA]
        told = [found for found, _ in refused(events) if found == call]
        assert len(told) >= len(wanted), f"{call}: {len(told)} told of {wanted}"


@pytest.mark.parametrize("name", TABLES)
def test_each_errno_has_its_rule_and_each_rule_is_explained(name: str, workshop: Workshop) -> None:
    program = Program.read(PROGRAMS / f"{name}.c")
    stderr, events = run(program, workshop, workshop.directory / f"{name}.jsonl")
    calls = refused(events)
    assert calls, "the program is there to be refused"
    assert not [call for call, rule in calls if rule not in REFUSALS]
    assert "no rule of Linux 6.12 was named" not in stderr
    explanations = [x for x in re.split(r"\n(?=\S)", stderr) if " refused" in x.split("\n")[0]]
    ways = [x.splitlines()[-1] for x in explanations if " refused by the " in x]
    assert all("allowed as soon as" not in way for way in ways)
    for rule in {rule for _, rule in calls}:
        function = rule.rpartition(".")[0]
        assert f" ({function})\n" in stderr, f"{rule} is not explained"

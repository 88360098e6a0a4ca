"""Tables of the documents, compared with the declarations that they describe."""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from bench.explore import until_found
from softsgx.cli import diff_text
from softsgx.cli import run as run_command
from softsgx.cli.main import COMMANDS
from softsgx.events import cpu, kernel
from softsgx.explore import FINDINGS, STRATEGIES, Kind
from softsgx.explore.outcome import LeftOut
from softsgx.explore.plan import Plan
from softsgx.image.layout import ThreadLayout
from softsgx.linux.version import VERSIONS, Races
from softsgx.report.jsonl import JsonLines
from softsgx.report.lines import Lines
from softsgx.report.perfetto import Perfetto
from softsgx.runner.session import trace_file
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system import checkers
from softsgx.system.scenarios.catalogue import KNOWN_RACES
from tests.image.builders import DATA, TEXT, elf_file
from tests.tidy import rooms
from tools.document_blocks import demo
from tools.documents import ROOT, all_blocks

BRANCHES = {room for line in rooms.LINES if len(line) > 1 for room in line}
CELL = re.compile(r"(?<!\\)\|")


def rows(path: str, head: str) -> list[list[str]]:
    """The cells of the rows of the table that begins with `head`."""
    (block,) = (b for b in all_blocks() if b.path == path and b.lines[0].startswith(head))
    return [[cell.strip() for cell in CELL.split(line)[1:-1]] for line in block.lines[2:]]


def words(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_what_changed_from_6_12_to_6_18() -> None:
    """Each field in which the kernels differ has a row, with a release between the two."""
    new, old = VERSIONS["6.18"], VERSIONS["6.12"]
    differ = {f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name)}
    found = {
        word: row[1] for row in rows("docs/sources.md", "| commit |") for word in words(row[4])
    }
    named = [word for word in found if hasattr(new, word)]
    assert differ - {"name", "interface"} == set(named)
    assert all(12 < int(found[word].partition(".")[2]) <= 18 for word in named)
    assert [word for word in found if hasattr(Races(), word)] == ["poisoned_reclaimed"]


def test_the_rooms_are_those_of_the_rule() -> None:
    named = [set(words(row[0])) for row in rows("ARCHITECTURE.md", "| room |")]
    assert named == list(reversed(rooms.LINES))


def test_the_picture_has_the_rooms() -> None:
    """Line by line; rooms of one line are drawn as branches."""
    (block,) = (b for b in all_blocks() if b.mark.endswith("test_the_picture_has_the_rooms"))
    drawn: list[set[str]] = []
    for line in block.text.splitlines():
        branch, room = re.match(r"( \+-- )?(\w*)", line).groups()  # type: ignore[union-attr]
        if branch and drawn and drawn[-1] & BRANCHES:
            drawn[-1].add(room)
        elif room:
            drawn.append({room})
    assert drawn == list(reversed(rooms.LINES))


def test_the_rooms_of_runner_are_those_of_the_rule() -> None:
    named = [set(words(row[0])) for row in rows("ARCHITECTURE.md", "| room of `runner` |")]
    assert named == list(reversed(rooms.RUNNER_LINES))


def test_the_readme_names_every_subcommand() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = " ".join(cell for row in rows("README.md", "| part |") for cell in row)
    for name in COMMANDS:
        assert f"softsgx {name}" in table or f"`{name}`" in table, name
        assert name in text


def test_kinds_of_failures_and_their_exit_codes() -> None:
    table = [(row[0], row[2]) for row in rows("docs/explore.md", "| kind |")]
    assert table == [(kind.value, "1" if kind in FINDINGS else "2") for kind in Kind]


def test_every_strategy_is_in_the_table() -> None:
    table = rows("docs/explore.md", "| strategy |")
    assert {words(row[0])[0] for row in table} == set(STRATEGIES)
    (default,) = (words(row[0])[0] for row in table if "(default)" in row[0])
    assert default == Plan().strategy


def test_executions_until_a_race_is_found() -> None:
    """All races are there; two rows, the quickest to measure, are measured again."""
    table = rows("docs/explore.md", "| race | scenario | `pct` |")
    races = {race.number: race for race in KNOWN_RACES}
    assert [row[:2] for row in table] == [[r.number, r.scenario.__name__] for r in KNOWN_RACES]
    for row in table:
        if row[0] in ("K1", "L4"):
            line = until_found([races[row[0]]]).splitlines()[-1]
            assert [cell.strip() for cell in line.strip("|").split("|")] == row


def test_every_reason_is_in_the_table() -> None:
    table = rows("docs/explore.md", "| left out |")
    assert [words(row[0])[0] for row in table] == [reason.name.lower() for reason in LeftOut]


def rules_of(path: Path) -> set[str]:
    """The rules that a file of `system` reports: of its Violations, and `rule` of its checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {constants["rule"]} if constants.get("rule") else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Violation":
            rule = node.args[0]
            if isinstance(rule, ast.Constant):
                found.add(rule.value)
            elif isinstance(rule, ast.Name):
                found.add(constants[rule.id])
            else:
                assert ast.unparse(rule) == "self.rule", f"{path}:{node.lineno}"
    return {str(rule) for rule in found}


def test_every_rule_of_checkers_and_scenarios_is_in_the_table() -> None:
    table = rows("docs/explore.md", "| rule | broken")
    named = {rule for row in table for rule in row[0].split(", ")}
    room = Path(checkers.__file__).parent.parent
    ours = {rule for path in sorted(room.rglob("*.py")) for rule in rules_of(path)}
    assert ours == named


def test_every_option_of_run_is_in_the_table() -> None:
    parser = argparse.ArgumentParser(prog="softsgx run", add_help=False)
    run_command.register(parser)
    options = {a.option_strings[-1]: a for a in parser._actions if a.option_strings}
    table = {words(row[0])[0].split()[0]: row for row in rows("docs/run.md", "| option |")}
    assert table.keys() == options.keys()
    for name, action in options.items():
        asked = words(table[name][0])[0]
        if action.nargs == 0:
            assert asked == name
        elif default := re.search(r"\(default:? ([^);]+)", action.help or ""):
            # The value in the first column, or named as the default in the second.
            assert default[1] in f"{asked} {table[name][1]}", name


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    table = rows("docs/run.md", "| suffix |")
    for suffixes, says in table:
        for suffix in words(suffixes) or [".anything"]:
            with (tmp_path / f"t{suffix}").open("wb") as stream:
                kind = type(trace_file._writer(str(tmp_path / f"t{suffix}"), stream, {}))
            expected = {"a Perfetto": Perfetto, "text in co": Lines, "JSON lines": JsonLines}
            assert kind is expected[says[:10]], suffix


def test_every_event_is_in_the_table() -> None:
    table = rows("docs/run.md", "| what | when |")
    named = {name for row in table for name in words(row[0])}
    ours = {
        name
        for module in (cpu, kernel)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    }
    assert named == {name for name in ours if not name.startswith("_")} | {"IpiSent", "IpiTaken"}


@pytest.mark.parametrize("measure", [False, True])
def test_the_layout_is_as_show_says(measure: bool) -> None:
    """The parts in their order, what they may be, and whether they are measured."""
    layout = ThreadLayout(guard_pages=2, heap_pages=1, measure_heap=measure)
    found = list(layout.image(elf_file(TEXT, DATA)).segments)
    table = rows("docs/image.md", "| part |")
    while found[0].label.startswith("PT_LOAD"):
        assert found.pop(0).chunks
    end = 0
    assert [row[0] for row in table] == [
        "the PT_LOAD segments, .bss included",
        *("heap", "per thread: guard", "per thread: stack", "per thread: TCS"),
        *("per thread: SSA frames", "per thread: data"),
    ]
    for part, _, rights, measured in table[1:]:
        if part == "per thread: guard":
            assert found[0].offset - end == 2 * PAGE_SIZE, "a hole below the stack"
            continue
        segment = found.pop(0)
        end = segment.end
        assert segment.label.split()[-1] == part.split()[-1].replace("frames", "SSA")
        assert (segment.flags & (R | W) == R | W) == (rights == "RW")
        assert bool(segment.chunks) == (measured == "yes" or measure)
    assert found == []


def test_every_kind_of_difference_is_in_the_table() -> None:
    """The first word of each line that `show --diff` can print."""
    tree = ast.parse(Path(diff_text.__file__).read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args]
    kinds = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "_line"
        and isinstance(call.args[0], ast.Constant)
    }
    kinds.discard("")  # what is left out
    assert len(kinds) > 5
    assert {words(row[0])[0] for row in rows("docs/image.md", "| line |")} == kinds


def test_the_steps_of_the_example_are_its_own() -> None:
    """The results are those that the program prints, which compares them with the rule."""
    table = rows("examples/edmm/README.md", "| step |")
    steps = re.split(r"^ ?(?=\d+  \S)", demo().printed, flags=re.MULTILINE)[1:]
    assert [row[0] for row in table] == [step.split()[0] for step in steps]
    errnos = {"EINVAL": "errno 22", "EPERM": "errno 1"}
    seen = 0
    for row, step in zip(table, steps, strict=True):
        for code in re.findall(r"0x[0-9a-f]+", row[3]):
            assert f"error code {code}," in step, row
            seen += 1
        for name in re.findall(r"\bE[A-Z]{4,}\b", row[3]):
            if name in errnos:
                assert errnos[name] in step, row
                seen += 1
        if re.search(r"\b19\b", row[3]):
            assert "answers 19, to be 19" in step, row
            seen += 1
    assert seen >= 8


def test_the_files_of_the_example_are_there() -> None:
    table = rows("examples/edmm/README.md", "| file |")
    named = {name for row in table for name in words(row[0])}
    there = {path.name for path in (ROOT / "examples" / "edmm").iterdir()}
    assert named == there - {"README.md"}

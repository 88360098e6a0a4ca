"""Write docs/spec-map.md, docs/readings.md and src/softsgx/spec/rules.py: `make docs`, or
`python -m tools.spec_map`.

The map has one line per rule of the processor: rule, paraphrase, line of code, rows of the tests.
It has line numbers because a reader with the manual in the other hand wants the line; tests compare
the map without them, so that an edit above a rule is no failure. `make docs` updates them.
"""

import ast
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from softsgx.cpu.part import Part
from softsgx.cpu.readings import Readings
from tests.silicon import PF, ROWS, Row
from tools.rules import ROOT, Module, modules

TESTS: Final = "tests/cpu"
SPEC_MAP: Final = ROOT / "docs" / "spec-map.md"
READINGS: Final = ROOT / "docs" / "readings.md"
RULES: Final = ROOT / "src" / "softsgx" / "spec" / "rules.py"

_HEAD: Final = """\
# Map of the manual

One line per check of the model, leaf by leaf: the rule that a refusal carries, what it says, where
it stands, and the rows of the tests that provoke it. Written by `make docs`; do not edit. Line
numbers are those of the last run, everything else is verified by `tests/cpu/test_rules.py`."""
_READINGS_HEAD: Final = """\
# Open readings of the manual

Where the manual is silent or contradicts itself and a test could tell the readings apart, the
choice is a field of `Readings` (`src/softsgx/cpu/readings.py`). `Processor(readings=...)` takes
others, and so does `softsgx run --cpu-option NAME=VALUE`, which lists them with
`--cpu-option help`. Written by `make docs`; do not edit.

Measured: a processor of that name does what the default says. The other defaults come from reading
the manual only. The rows that were measured are below.

| switch | default | measured | why |
| --- | --- | --- | --- |
"""
_PARTS_HEAD: Final = """
## Features of the processor

Fields of `Part` (`src/softsgx/cpu/part.py`), for `Processor(part=...)` and `--cpu-option` likewise.
The default is that of a machine in Python; a run starts from what its engine can execute.

| feature | default | what |
| --- | --- | --- |
"""
_MEASURED_HEAD: Final = """
## What was measured

ENCLU outside of enclaves on a Xeon of the Emerald Rapids family (family 6, model 207) whose
hypervisor hides SGX from CPUID, Linux 6.18, CPL 3; error codes are those of the signal frame.
EENTER and ERESUME answer alike, and bits 63:32 of RAX do not matter. Every other leaf number that
was tried (0 to 15, 7FFFFFFFH, FFFFFFFFH) is #GP(0), SI_KERNEL, whatever its operands.
`tests/silicon.py` has the rows; the model is held against them as a bare processor, as a machine
and under `softsgx run`.

| EENTER, ERESUME | exception | error code | address | si_code |
| --- | --- | --- | --- | --- |
"""


_RULES_HEAD: Final = """\
\"\"\"What each rule of the processor says. Written by `make docs`; do not edit.\"\"\"

from typing import Final

RULES: Final[dict[str, str]] = {
"""


class RowRef(NamedTuple):
    """One row of a table test: the rule it provokes, and its name for pytest."""

    rule: str
    node: str


# Rows


def collect_rows(root: Path = ROOT) -> list[RowRef]:
    """The rows of every module-level ROWS below tests/cpu."""
    found: list[RowRef] = []
    for path in sorted((root / TESTS).rglob("*.py")):
        name = path.relative_to(root)
        if declares_rows(path.read_text(encoding="utf-8")):
            module = import_module(".".join(name.with_suffix("").parts))
            found += rows_of(module, name.as_posix())
    return found


def declares_rows(text: str) -> bool:
    """Whether a module assigns ROWS; only such modules are imported."""
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "ROWS" for target in targets):
            return True
    return False


def rows_of(module: ModuleType, path: str) -> list[RowRef]:
    """The rows of one module, by the test that runs them; "" if no test does."""
    test, ids = _runner(module)
    rows = []
    for number, row in enumerate(module.ROWS):
        name = ids(row) if callable(ids) else f"row{number}"
        rows.append(RowRef(row.rule, f"{path}::{test}[{name}]" if test else ""))
    return rows


def _runner(module: ModuleType) -> tuple[str, object]:
    """The test that is parametrized by ROWS itself, and what names the rows."""
    for name, value in vars(module).items():
        for mark in getattr(value, "pytestmark", ()) if name.startswith("test") else ():
            if mark.name == "parametrize" and mark.args[1:2] and mark.args[1] is module.ROWS:
                return name, mark.kwargs.get("ids")
    return "", None


def row_problems(rules: Iterable[str], rows: Sequence[RowRef]) -> Iterator[str]:
    """Rules without a row, rows without a rule, rows that cannot be told apart or do not run."""
    known, provoked = dict.fromkeys(rules), {row.rule for row in rows}
    yield from (f"{rule}: no row provokes it" for rule in known if rule not in provoked)
    for row in rows:
        if not row.node:
            yield f"{row.rule}: its ROWS are run by no test"
        elif row.rule not in known:
            yield f"{row.node}: the code has no rule {row.rule}"
    names = Counter(row.node for row in rows if row.node)
    yield from (
        f"{name}: {count} rows have this name" for name, count in names.items() if count > 1
    )


# Documents


def spec_map(files: Sequence[Module], rows: Iterable[RowRef]) -> str:
    """docs/spec-map.md: the leaves by name, then what they share."""
    tests: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        tests[row.rule].append(row.node)
    groups: list[tuple[bool, str, list[str]]] = []
    for module in files:
        for family in sorted({rule.family for rule in module.rules}):
            lines = [f"## {family}\n", f"{module.title}\n", "| rule | says | code | tests |"]
            lines.append("| --- | --- | --- | --- |")
            for rule in module.rules:
                if rule.family == family:
                    provoked = _cell_of_tests(tests[rule.id])
                    place = _code(f"{rule.path}:{rule.line}")
                    lines.append(f"| {rule.id} | {_cell(rule.paraphrase)} | {place} | {provoked} |")
            groups.append(("/leaf/" not in module.path, family, lines))
    return "\n\n".join([_HEAD, *("\n".join(lines) for _, _, lines in sorted(groups))]) + "\n"


def readings() -> str:
    """docs/readings.md."""
    lines = [
        f"| {_code(switch.name)} | {_code(_value(switch.default))} | {switch.metadata['measured']} "
        f"| {switch.metadata['why']} |"
        for switch in dataclasses.fields(Readings)
    ]
    parts = "".join(
        f"| {_code(part.name)} | {_code(_value(part.default))} | {part.metadata['what']} |\n"
        for part in dataclasses.fields(Part)
    )
    measured = "".join(f"{_measured(row)}\n" for row in ROWS)
    switches = _READINGS_HEAD + "\n".join(lines) + "\n"
    return switches + _PARTS_HEAD + parts + _MEASURED_HEAD + measured


def _measured(row: Row) -> str:
    name, address = ("#PF", "page + FFFH") if row.vector == PF else ("#GP", "-")
    code = f"{row.code:X}H" if row.code > 9 else str(row.code)
    return f"| {row.operands} | {name} | {code} | {address} | {row.si_code} |"


def rule_table(files: Sequence[Module]) -> str:
    """src/softsgx/spec/rules.py."""
    rules = sorted((rule.id, rule.paraphrase) for module in files for rule in module.rules)
    lines = [f"    {_string(name)}: {_string(says)},\n" for name, says in rules]
    return _RULES_HEAD + "".join(lines) + "}\n"


def _string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def without_lines(text: str) -> str:
    """The map without line numbers: what must be current at any time."""
    return re.sub(r"(\.py):[0-9]+", r"\1", text)


def _cell_of_tests(nodes: list[str]) -> str:
    """The rows of one rule; of further rows of the same test only the name of the row."""
    cells: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        test, _, row = node.partition("[")
        cells[test].append(_code(f"[{row}" if cells[test] else node))
    return "<br>".join(" ".join(rows) for rows in cells.values()) or "none"


def _value(default: object) -> str:
    """Small numbers are counts, large ones are words of registers."""
    return f"{default:#x}" if isinstance(default, int) and default > 255 else str(default)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def main() -> None:
    """Write all of them."""
    RULES.write_text(rule_table(modules()), encoding="utf-8")
    SPEC_MAP.write_text(spec_map(modules(), collect_rows()), encoding="utf-8")
    READINGS.write_text(readings(), encoding="utf-8")


if __name__ == "__main__":
    main()

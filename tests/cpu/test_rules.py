"""The rules of the code and the rows of the tables are the same set; the documents are current."""

from types import ModuleType
from typing import NamedTuple

import pytest

from tests.silicon import ROWS
from tools.rules import Module, modules, problems
from tools.spec_map import (
    READINGS,
    SPEC_MAP,
    RowRef,
    collect_rows,
    declares_rows,
    readings,
    row_problems,
    rows_of,
    rule_table,
    spec_map,
    without_lines,
)
from tools.spec_map import RULES as TABLE

STALE = "not current: run make docs"


def test_the_rules_of_the_code_are_well_formed() -> None:
    found = list(problems(modules()))
    assert not found, "\n" + "\n".join(found)


def test_every_rule_has_rows_and_every_row_a_rule() -> None:
    rules = [rule.id for module in modules() for rule in module.rules]
    found = list(row_problems(rules, collect_rows()))
    assert not found, "\n" + "\n".join(found)


def test_the_map_is_current_apart_from_line_numbers() -> None:
    written = SPEC_MAP.read_text(encoding="utf-8")
    assert without_lines(written) == without_lines(spec_map(modules(), collect_rows())), STALE


def test_the_list_of_readings_is_current() -> None:
    assert READINGS.read_text(encoding="utf-8") == readings(), STALE


def test_the_table_of_rules_is_current() -> None:
    """What `--explain` quotes is what the map says."""
    assert TABLE.read_text(encoding="utf-8") == rule_table(modules()), STALE


# The checker itself

GOOD = '''"""ELEAF, ENCLS leaf 7FH: an example. SDM 3D, ELEAF.

More.
"""


def eleaf(lp):
    if lp.odd:
        raise GP("ELEAF.01")  # RBX not aligned
    check(lp)
    flags = read(
        lp,
        "ELEAF.03",  # reserved field not zero
    )
    # the page is busy,
    # or was
    return refuse("ELEAF.04", 7)


def check(lp):
    raise GP("ELEAF.02")  # RCX not aligned
'''


def module(text: str, path: str = "src/softsgx/cpu/leaf/eleaf.py") -> Module:
    return Module(path, text)


def test_a_good_file_is_accepted_and_read_in_full() -> None:
    example = module(GOOD)
    assert list(problems([example])) == []
    assert example.title == "ELEAF, ENCLS leaf 7FH: an example. SDM 3D, ELEAF."
    assert [(rule.id, rule.paraphrase, rule.line) for rule in example.rules] == [
        ("ELEAF.01", "RBX not aligned", 9),
        ("ELEAF.03", "reserved field not zero", 13),
        ("ELEAF.04", "the page is busy, or was", 17),
        ("ELEAF.02", "RCX not aligned", 21),
    ]


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("  # RBX not aligned", "", "eleaf.py:9: ELEAF.01 has no paraphrase"),
        ("  # RBX not aligned", "  # noqa: E501", "eleaf.py:9: ELEAF.01 has no paraphrase"),
        ("# or was", "", "eleaf.py:17: ELEAF.04 has no paraphrase"),
        ('"ELEAF.04"', '"ELEAF.01"', "eleaf.py:17: ELEAF.01 stands at "),
        ('"ELEAF.03"', '"ELEAF.05"', "eleaf.py: no ELEAF.03, but later ones"),
        ('"ELEAF.01"', '"ELEAF.05"', "eleaf.py: no ELEAF.01, but later ones"),
        ('"ELEAF.01"', '"ELEAF.1"', "eleaf.py:9: ELEAF.1 is no rule: FAMILY.NN"),
        ('"ELEAF.01"', '"Eleaf.01"', "eleaf.py:9: Eleaf.01 is no rule: FAMILY.NN"),
        ('"ELEAF.01"', '"ELEAF.001"', "eleaf.py:9: ELEAF.001 is no rule: FAMILY.NN"),
    ],
)
def test_a_bad_file_is_refused(old: str, new: str, finding: str) -> None:
    assert GOOD.count(old) == 1
    found = list(problems([module(GOOD.replace(old, new))]))
    assert any(finding in problem for problem in found), found


def swapped(first: str, second: str) -> str:
    return GOOD.replace(first, "X").replace(second, first).replace("X", second)


def test_rules_out_of_order_are_refused() -> None:
    found = list(problems([module(swapped("ELEAF.03", "ELEAF.04"))]))
    assert found == ["src/softsgx/cpu/leaf/eleaf.py: eleaf: ELEAF.03 comes after ELEAF.04"]


def test_a_helper_stands_where_it_is_called() -> None:
    found = list(problems([module(swapped("ELEAF.02", "ELEAF.03"))]))
    assert found == ["src/softsgx/cpu/leaf/eleaf.py: eleaf: ELEAF.02 comes after ELEAF.03"]


def test_a_family_has_one_file() -> None:
    other = module('raise GP("ELEAF.05")  # more', "src/softsgx/cpu/other.py")
    found = list(problems([module(GOOD), other]))
    assert len(found) == 1
    assert found[0].startswith("ELEAF: rules of one family in ")


# Rows


class Row(NamedTuple):
    rule: str


def table(rules: list[str], *, run: bool = True) -> list[RowRef]:
    """The rows of a module with this table, which a test runs or not."""
    example = ModuleType("example")
    rows = [Row(rule) for rule in rules]

    @pytest.mark.parametrize("row", rows if run else rows[:], ids=lambda row: row.rule)
    def test_eleaf_refuses(row: Row) -> None:
        raise NotImplementedError

    vars(example).update(ROWS=rows, test_eleaf_refuses=test_eleaf_refuses)
    return rows_of(example, "tests/cpu/leaf/test_eleaf.py")


RULES = ["ELEAF.01", "ELEAF.02"]


def test_rows_are_named_as_pytest_names_them() -> None:
    nodes = [row.node for row in table(RULES)]
    test = "tests/cpu/leaf/test_eleaf.py::test_eleaf_refuses"
    assert nodes == [f"{test}[ELEAF.01]", f"{test}[ELEAF.02]"]
    assert list(row_problems(RULES, table(RULES))) == []


@pytest.mark.parametrize(
    ("rules", "run", "finding"),
    [
        (["ELEAF.01"], True, "ELEAF.02: no row provokes it"),
        ([*RULES, "ELEAF.03"], True, "[ELEAF.03]: the code has no rule ELEAF.03"),
        ([*RULES, "ELEAF.02"], True, "[ELEAF.02]: 2 rows have this name"),
        (RULES, False, "ELEAF.01: its ROWS are run by no test"),
    ],
)
def test_a_bad_table_is_refused(rules: list[str], run: bool, finding: str) -> None:
    found = list(row_problems(RULES, table(rules, run=run)))
    assert any(problem.endswith(finding) for problem in found), found


@pytest.mark.parametrize(
    ("text", "declares"),
    [
        ("ROWS = []", True),
        ("ROWS: list[Row] = []", True),
        ("def f():\n    ROWS = []", False),
        ("from tests.cpu.rows import ROWS", False),
        ("OTHER_ROWS = []", False),
    ],
)
def test_only_modules_with_a_table_are_imported(text: str, declares: bool) -> None:
    assert declares_rows(text) is declares


# Documents


def test_the_map_shows_rule_paraphrase_code_and_tests() -> None:
    text = spec_map([module(GOOD)], table(RULES))
    assert "\n## ELEAF\n\nELEAF, ENCLS leaf 7FH: an example. SDM 3D, ELEAF.\n" in text
    place = "`src/softsgx/cpu/leaf/eleaf.py:9`"
    node = "`tests/cpu/leaf/test_eleaf.py::test_eleaf_refuses[ELEAF.01]`"
    assert f"\n| ELEAF.01 | RBX not aligned | {place} | {node} |\n" in text
    assert "\n| ELEAF.04 | the page is busy, or was | " in text
    assert text.splitlines()[-2].endswith(" | none |")


def test_only_line_numbers_may_differ() -> None:
    current = without_lines(spec_map([module(GOOD)], table(RULES)))
    moved = GOOD.replace("More.", "More.\n\nAnd more.")
    assert without_lines(spec_map([module(moved)], table(RULES))) == current
    said = GOOD.replace("RBX not aligned", "RBX not 32-byte aligned")
    assert without_lines(spec_map([module(said)], table(RULES))) != current
    assert without_lines(spec_map([module(GOOD)], table(RULES[:1]))) != current


def test_readings_are_listed_with_default_and_reason() -> None:
    lines = readings().splitlines()
    row = next(line for line in lines if line.startswith("| `tcs_limit` | `72` |  | "))
    assert "SGX_TCS_LIMIT" in row


def test_readings_that_were_measured_are_marked_and_their_rows_listed() -> None:
    lines = readings().splitlines()
    for name in ("tcs_written", "tcs_last_byte", "aep_before_tcs"):
        assert any(line.startswith(f"| `{name}` | `True` | Emerald Rapids | ") for line in lines)
    assert len([line for line in lines if line.startswith("| RBX ")]) == len(ROWS)
    assert "| RBX read-only | #PF | 7 | page + FFFH | SEGV_ACCERR |" in lines
    assert len([line for line in lines if " | SI_KERNEL |" in line]) == 6

"""What `make mutants` changes and what it leaves alone; which tests it takes, and how many."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from itertools import pairwise

import pytest

from tools.mutants import FIRST_SECONDS, accepted, batches, named
from tools.mutations import Mutant, is_change, mutants_of, sample
from tools.reaching import Test as Recorded
from tools.reaching import order, sources

PATH = "src/softsgx/cpu/some.py"


def changes(text: str, path: str = PATH) -> list[tuple[str, str]]:
    return [m.diff for m in mutants_of(path, textwrap.dedent(text)) if is_change(m)]


def to(text: str) -> list[str]:
    return [new for _, new in changes(text)]


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a == b", ["x = a != b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = a is  not b", ["x = a is b"]),
        ("x = a << b", ["x = a >> b"]),
        ("x = a & ~b", ["x = a | ~b", "x = a & (b)"]),
        ("x = a | b", ["x = a", "x = b", "x = a & b"]),
        ("x = a and b", ["x = True and b", "x = a or b", "x = a and True"]),
        ("x = not a", ["x = (a)"]),
        ("x = 0", ["x = 1"]),
        ("x = 1", ["x = 0", "x = 2"]),
        ("x = 7", ["x = 8"]),
        ("x = True", ["x = False"]),
        ("x = (a, b)", ["x = (b)", "x = (a,)"]),
        ("x = {a, b, c}", ["x = {b, c}", "x = {a, c}", "x = {a, b}"]),
        ("x = {a: p, b: q}", ["x = {b: q}", "x = {a: p}"]),
        ("x = p if a else q", ["x = p if False else q", "x = p if True else q"]),
        ("a.b = c", ["pass"]),
        ("a[1] = c", ["pass", "a[0] = c", "a[2] = c"]),
        ("a += c", ["pass"]),
        ("call(a)", ["pass"]),
        ("yield from call(a)", ["pass"]),
        ("raise Fault(a)", ["pass"]),
        ("return a", ["return None"]),
        ("return -EIO", ["return 0", "return -EPERM"]),
        ("return refused(EIO)", ["return None", "return refused(EPERM)"]),
    ],
)
def test_changes_of_a_line(line: str, mutants: list[str]) -> None:
    text = f"def f(a, b):\n    {line}\n\ndef g():\n    raise OSError(EPERM, EIO)\n"
    found = [m for m in mutants_of(PATH, text) if m.function == "f" and is_change(m)]
    assert sorted(m.diff[1] for m in found) == sorted(mutants)
    assert {m.line for m in found} == {2}


@pytest.mark.parametrize(
    "text",
    [
        '"""Text of 1."""',
        'def f():\n    """Text of 1."""',
        "x: Callable[[int], 0 | 1] = f",
        "def f(a: Literal[1] | None) -> Literal[2]: ...",
        "if TYPE_CHECKING:\n    x = 1",
        'if __name__ == "__main__":\n    x = 1',
        '__slots__ = ("a", "b")',
        "def f(a):\n    assert a > 1, 2",
        'x = f"{a + 1}"',
        "class A:\n    def __repr__(self):\n        return 1 + 1",
        'x = "a" + b',
    ],
)
def test_what_only_people_read_stays(text: str) -> None:
    assert changes(text) == []


def test_a_change_over_lines_reads_as_one() -> None:
    text = "x = (\n    a\n    # why <\n    < b\n)\n"
    (only,) = mutants_of(PATH, text)
    assert only.changed == text.replace("< b", "<= b")
    assert (only.line, only.diff) == (4, ("< b", "<= b"))


def test_every_mutant_of_the_package_is_another_program() -> None:
    """In some files: Python compiles what is drawn, to something else than the original."""
    for path in sources(["cpu"])[::12]:
        text = _text(path)
        for mutant in sample(mutants_of(path, text), seed=1, size=10):
            assert mutant.changed != text
            compile(mutant.changed, path, "exec")


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_a_sample_is_drawn_by_seed_and_hardly_moves_with_the_text() -> None:
    text = "".join(f"def f{n}(a, b):\n    return a + b < {n + 2}\n\n\n" for n in range(60))
    drawn = sample(mutants_of(PATH, text), seed=1, size=20)

    def what(mutants: list[Mutant]) -> list[object]:
        return [(m.function, m.diff) for m in mutants]

    assert what(drawn) == what(sample(mutants_of(PATH, text), seed=1, size=20))
    assert what(drawn) != what(sample(mutants_of(PATH, text), seed=2, size=20))
    moved = text.replace("def f0(a, b):\n    return a", "def f0(a, b):\n    # Note.\n    return b")
    assert len({*what(drawn)} - {*what(sample(mutants_of(PATH, moved), seed=1, size=20))}) <= 2


def test_the_lists_are_of_this_tree() -> None:
    """A listed mutant that is no longer made is a stale row."""
    for mutant in named():
        assert is_change(mutant), mutant.describe()
    for (path, function, old, new), reason in accepted().items():
        made = (m for m in mutants_of(path, _text(path)) if m.function == function)
        alike = [m for m in made if m.diff == (old, new)]
        assert any(map(is_change, alike)), (path, function, old, new)
        assert len(reason) > 20


def recorded(id: str, seconds: float = 0.1, breadth: int = 10) -> Recorded:
    return Recorded(id, seconds, breadth)


def test_the_nearest_tests_come_first() -> None:
    tests = [
        recorded("tests/system/test_a.py::test_far", breadth=5),
        recorded("tests/cpu/test_other.py::test_wide", breadth=500),
        *(recorded(f"tests/cpu/test_other.py::test_rows[{n}]") for n in range(9)),
        recorded("tests/cpu/test_some.py::test_own", seconds=1),
    ]
    found = [test.id.split("::")[1] for test in order(tests, PATH)]
    assert found[:2] == ["test_own", "test_rows[0]"]
    assert found.index("test_far") < found.index("test_rows[2]"), "not all rows of one test first"
    assert sorted(found) == sorted(test.id.split("::")[1] for test in tests)


def near(at: Callable[[int], str], seconds: float, count: int) -> list[Recorded]:
    return [recorded(at(n), seconds) for n in range(count)]


def test_batches_hold_every_test_once_up_to_the_limit() -> None:
    tests = near(lambda n: f"tests/cpu/test_{n % 20}.py::test_{n}", 0.2, 200)
    first, rest = batches(tests, seconds=1000)
    assert len(first) + len(rest) == len(tests)
    assert sum(test.seconds for test in first) <= FIRST_SECONDS
    assert {test.id for test in first} | {test.id for test in rest} == {test.id for test in tests}
    first, rest = batches(tests, seconds=10)
    assert sum(test.seconds for test in (*first, *rest)) <= 10
    files = [test.file for test in rest]
    assert len([1 for a, b in pairwise(files) if a != b]) < 20, "by files"


def test_a_test_longer_than_the_limit_runs_if_it_is_the_only_one() -> None:
    only = recorded("tests/cpu/test_some.py::test_long", seconds=500)
    assert list(batches([only], seconds=10)) == [[only]]
    assert list(batches([], seconds=10)) == []

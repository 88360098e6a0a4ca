"""The record of blocks: what a run of marked files leaves, in this process and in others."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools import reaching
from tools.mutant_tree import ROOT, alone
from tools.mutations import mutants_of
from tools.reach import Block, Blocks, mark

SOURCE = textwrap.dedent(
    '''\
    """Of a test."""
    from __future__ import annotations

    import os


    class A:
        def method(self, n):
            """Text."""
            if n:
                return 1
            return 2

        def never(self):
            return 3


    def steps(n):
        for x in range(n):
            yield x
        with open(os.devnull):
            os._exit(0)


    def outer():
        def inner():
            return 4

        return inner
    '''
)
PATH = "src/of_a_test.py"


def reached(root: Path, code: str) -> set[tuple[str, int]]:
    blocks = mark(root, [PATH], root / "hits")
    subprocess.run([sys.executable, "-c", code], cwd=root / "src", check=True)
    hits = (root / "hits").read_bytes()
    assert len(hits) == len(blocks)
    return {(b.function, b.ordinal) for b, hit in zip(blocks, hits, strict=True) if hit}


def prepared(root: Path) -> Path:
    (root / "src").mkdir()
    (root / PATH).write_text(SOURCE, encoding="utf-8")
    return root


def test_only_blocks_that_ran_are_marked(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    got = reached(root, "import of_a_test as t; t.A().method(1)")
    assert got == {("A.method", 0), ("A.method", 1)}
    got = reached(root, "import of_a_test as t; t.A().method(0); t.outer()")
    assert got == {("A.method", 0), ("A.method", 2), ("outer", 0)}


def test_a_process_that_ends_without_cleaning_up_counts(tmp_path: Path) -> None:
    got = reached(prepared(tmp_path), "import of_a_test as t; list(t.steps(0))")
    assert got == {("steps", 0), ("steps", 2), ("steps", 3)}


def test_text_and_lines_are_the_originals(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    mark(root, [PATH], root / "hits")
    code = "import of_a_test as t, inspect; print(inspect.getsource(t.steps), t.__doc__)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=root / "src", check=True, capture_output=True, text=True)
    assert out.stdout.startswith("def steps(n):")
    assert out.stdout.rstrip().endswith("Of a test.")
    assert (root / PATH).read_text(encoding="utf-8") == SOURCE


def test_each_statement_of_a_function_has_its_block() -> None:
    blocks = Blocks(PATH, SOURCE)
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Return | ast.Expr | ast.With | ast.For) and node.col_offset:
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                assert blocks.at(node) is not None, ast.unparse(node)
    assert [b.ordinal for b in blocks.all if b.function == "A.method"] == [0, 1, 2]


def test_two_campaigns_do_not_share_their_copies(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(SystemExit, match="another campaign runs there"):
        alone(tmp_path)
    alone(tmp_path).close()


def test_a_table_is_tried_by_the_files_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: two tables whose source the tests read survived: no function was reached."""
    monkeypatch.setattr(reaching, "BUILD", tmp_path)
    (tmp_path / "reach").mkdir()
    files = ("tests/linux/test_refusals.py", "tests/linux/test_trace.py")
    lines = [
        {"test": f"{file}::test_it", "passed": True, "processor": 0.1, "hits": []} for file in files
    ]
    record = json.dumps({"key": "", "blocks": [], "lines": lines})
    (tmp_path / "reach" / "linux.json").write_text(record, encoding="utf-8")
    path = "src/softsgx/linux/refusals.py"
    of_the_table = [
        mutant
        for mutant in mutants_of(path, (ROOT / path).read_text("utf-8"))
        if "REFUSALS" in ast.unparse(mutant.node).split(" = ")[0]
    ]
    assert of_the_table
    found = reaching.Reaching(["tests/linux"]).of(of_the_table[0])
    assert [test.file for test in found] == [files[0]]


def test_what_a_fixture_reaches_is_of_all_tests_that_may_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a session was of no test at all, and that of a file is of its tests alone."""
    monkeypatch.setattr(reaching, "BUILD", tmp_path)
    (tmp_path / "reach").mkdir()
    path = "src/softsgx/linux/refusals.py"
    text = (ROOT / path).read_text("utf-8")
    blocks = Blocks(path, text)
    tests = ["tests/linux/test_a.py::test_a", "tests/linux/test_b.py::test_b"]
    for name in ("linux", "other"):
        lines = [
            *({"test": t.replace("linux", name), "passed": True, "processor": 1, "hits": []}
              for t in tests),
            {"file": f"tests/{name}/test_a.py", "hits": [0]},
            {"file": "", "hits": [1] if name == "linux" else []},
        ]  # fmt: skip
        record = json.dumps({"key": "", "blocks": blocks.all[:2], "lines": lines})
        (tmp_path / "reach" / f"{name}.json").write_text(record, encoding="utf-8")
    found = reaching.Reaching(["tests/linux", "tests/other"])

    def of(block: Block) -> set[str]:
        mutant = next(m for m in mutants_of(path, text) if blocks.at(m.node) == block)
        return {test.id for test in found.of(mutant)}

    assert of(blocks.all[0]) == {tests[0], tests[0].replace("linux", "other")}
    assert of(blocks.all[1]) == set(tests)

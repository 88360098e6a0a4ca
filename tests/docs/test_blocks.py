"""Every table and every printed text of the documents is made by a tool or checked by a test.

What is made is compared with what would be made now, except for what differs from run to run
(addresses, numbers of threads, times) and from compiler to compiler (the size of the example).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest

from tools.document_blocks import MAKERS
from tools.documents import (
    CHECKED,
    EXCUSED,
    MADE,
    ROOT,
    WHOLE,
    Block,
    all_blocks,
    blocks,
    documents,
    remade,
)

BLOCKS = all_blocks()
MADE_ONES = [block for block in BLOCKS if block.mark.startswith(MADE)]

OF_A_RUN = [
    (re.compile(r"(?<!#PF )0x[0-9a-f]{4,}"), "ADDRESS"),
    (re.compile(r"\b(thread|event) \d+"), r"\1 N"),
    (re.compile(r'"(ns|event|page)": \d+'), r'"\1": N'),
    (re.compile(r"\d+\.\d+ s\b"), "TIME"),
    (re.compile(r"\| \d+(\.\d+)? \|(?= \d+ \| \d+ \| nothing)"), "| TIME |"),
]
# Counts of --stats: how many pages the example has depends on the compiler.
SEARCHED = re.compile(r"nothing in \d+")
NOTHING = re.compile(r"nothing( in \d+)?(, every schedule up to \d+ preemptions?)?")
COUNTS = re.compile(r"(?<![.\w])\d+(\.\d+)?\b")


def normal(block: Block) -> str:
    """The text without what may differ from run to run."""
    text = block.text
    for pattern, stands_for in OF_A_RUN:
        text = pattern.sub(stands_for, text)
    if "stats of" in block.mark:
        text = " ".join(sorted(COUNTS.sub("N", text).replace(",", "").split()))
    return text


def same(new: Block, old: Block) -> bool:
    """Whether both say the same. On a busy machine a search may run out of time and say less."""
    lines = [normal(block).splitlines() for block in (new, old)]
    if "--known-races" in old.mark:
        cut = [
            not SEARCHED.search(a) or not SEARCHED.search(b) for a, b in zip(*lines, strict=True)
        ]
        lines = [
            [
                NOTHING.sub("nothing", line) if short else line
                for line, short in zip(x, cut, strict=True)
            ]
            for x in lines
        ]
    return lines[0] == lines[1]


def test_every_block_is_made_or_checked() -> None:
    """Once the tables of races and selftests, and most samples, were of versions long gone."""
    found = [f"{b.place}: {b.lines[0]}" for b in BLOCKS if not b.mark and not b.excuse]
    assert not found, "\n" + "\n".join(found)


def test_every_excuse_is_needed() -> None:
    used = {block.lines[0] for block in BLOCKS if not block.mark}
    assert used >= EXCUSED.keys()
    assert all(EXCUSED.values())


@pytest.mark.parametrize("path", WHOLE)
def test_documents_that_are_written_as_a_whole_say_so(path: str) -> None:
    head = (ROOT / path).read_text(encoding="utf-8")[:900]
    assert re.search(rf"Written by\s+`{WHOLE[path]}`", head)


def test_every_test_that_answers_for_a_block_is_there() -> None:
    for block in BLOCKS:
        if block.mark.startswith(CHECKED):
            path, name = block.mark.removeprefix(CHECKED).split("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert name in functions, f"{block.place}: {block.mark}"
        elif block.mark.startswith("make "):
            target = block.mark.split()[1]
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), block.place


def test_everything_that_can_be_made_is_used() -> None:
    assert {block.mark.removeprefix(MADE) for block in MADE_ONES} == set(MAKERS)


@pytest.mark.parametrize("block", MADE_ONES, ids=lambda block: f"{block.path}-{block.mark}")
def test_what_is_made_is_what_would_be_made_now(block: Block) -> None:
    text = (ROOT / block.path).read_text(encoding="utf-8")
    name = block.mark.removeprefix(MADE)
    only = {other: _old(other) for other in MAKERS} | {name: MAKERS[name]}
    made = [b for b in blocks(block.path, remade(block.path, text, only)) if b.mark == block.mark]
    assert same(made[0], block), f"{block.place}: run make docs\n{made[0].text}"


def _old(name: str) -> Callable[[], str]:
    text = next(b.text for b in MADE_ONES if b.mark.removeprefix(MADE) == name)
    return lambda: text


WIDTH = 120


def test_prose_is_wrapped() -> None:
    """Not so rows of tables and what programs print."""
    for path in documents():
        lines = (ROOT / path).read_text(encoding="utf-8").split("\n")
        inside = {n for b in BLOCKS if b.path == path for n in range(b.start, b.end)}
        wide = [n + 1 for n, line in enumerate(lines) if len(line) > WIDTH and n not in inside]
        assert path in WHOLE or not wide, (path, wide)


# The finder of blocks

EXAMPLE = """\
# Title

| a table | without |
| --- | --- |

<!-- checked by tests/x.py::test_x -->
| a table |
| --- |
| with |

<!-- made by make docs: x -->

    indented

    text

Prose
    that goes on.

<!-- made by make docs: x -->
Prose after a mark that marks nothing.

```sh
no mark

| no table |
```
"""


def test_blocks_are_found() -> None:
    found = [(b.start, b.end, b.kind, b.mark) for b in blocks("a.md", EXAMPLE)]
    assert found == [
        (2, 4, "table", ""),
        (6, 9, "table", "checked by tests/x.py::test_x"),
        (12, 15, "indented", "made by make docs: x"),
        (22, 27, "fenced sh", ""),
    ]


def test_only_marked_blocks_are_made_anew() -> None:
    new = remade("a.md", EXAMPLE, {"x": lambda: "    new\n"})
    assert new == EXAMPLE.replace("    indented\n\n    text\n", "    new\n")


def test_a_changed_block_is_noticed() -> None:
    """`normal` does not hide what is said."""
    for said, old, new in (
        ("an explanation", "EPCM", "TLB"),
        ("an explanation", "ACCESS.12", "ACCESS.11"),
        ("an explanation", "#PF 0x8007", "#PF 0x7"),
        ("stats", "PAGING.01", "PAGING.02"),
        ("softsgx explore scen", ":18", ":20"),
        ("softsgx explore scen", "/1:", "/2:"),
        ("softsgx explore --known", "nothing in 391", "nothing in 392"),
        ("softsgx explore --known", "| stale mapping | 3", "| stale mapping | 4"),
        ("an event", "EAUG", "EADD"),
    ):
        block = next(b for b in MADE_ONES if b.mark.startswith(MADE + said))
        assert old in block.text
        other = block._replace(lines=tuple(line.replace(old, new) for line in block.lines))
        assert not same(other, block), (said, old)
        assert same(block, block)

"""docs/tutorial.md: its Python and its commands, in their order, answer as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page import demo, follow, run_command, run_python, says, sections
from tools.documents import ROOT

PATH = "docs/tutorial.md"
BLOCKS = [block for block, _, _ in sections(PATH)]


def test_the_page(tmp_path: Path) -> None:
    """At "The same in a real program" `make demo` has been there."""
    follow(PATH, demo(tmp_path))


def test_the_files_of_the_page_are_found() -> None:
    """And every kind of block: a page whose blocks are not seen would pass."""
    assert [file for _, file, _ in sections(PATH) if file] == ["commit.py", "locked.py"]
    assert sum(block.kind == "fenced python" for block in BLOCKS) > 7
    assert sum("$ softsgx" in block.text for block in BLOCKS) > 3


def test_an_answer_that_is_not_printed_is_noticed() -> None:
    assert says(["a 1", "b"], ["a ...", "b"])
    assert says(["x", "y", "b"], ["...", "b"])
    assert not says(["a 1", "b"], ["a ..."[:3], "b"])
    assert not says(["a", "c"], ["a", "b"])
    block = next(b for b in BLOCKS if "accept_new" in b.text)
    wrong = block._replace(lines=("```python", "print(1)  # 2", "```"))
    with pytest.raises(AssertionError):
        run_python(wrong, "", {})
    with pytest.raises(AssertionError):
        run_command("softsgx explore FirstTouch", ["nothing"], ROOT)

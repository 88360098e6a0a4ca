"""The Python of docs/python.md runs, and prints what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["processor", "machine"])
def test_block_prints_what_its_comments_say(block: str) -> None:
    said = [text.strip() for text in re.findall(r"print\(.*\)  # (.*)", block)]
    assert said, "the block prints nothing"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(said)
    for line, expected in zip(printed, said, strict=True):
        # "..." at the end stands for what differs from build to build.
        assert line.startswith(expected.removesuffix("...").strip()), f"{line!r}, not {expected!r}"


def test_restricting_a_page_takes_at_most_25_lines() -> None:
    lines = [line for line in BLOCKS[1].splitlines() if line.strip()]
    assert len(lines) <= 25, len(lines)

"""Blocks of the documents that something makes or checks: `make docs`, python -m tools.documents.

A block is a table, a fenced text or an indented one. The mark before it says what keeps it current:

    <!-- made by make docs: NAME -->          tools/document_blocks.py makes it anew
    <!-- checked by tests/a.py::test_b -->    that test compares it with what it speaks of

tests/docs fails for a block without a mark that is not in EXCUSED, and for one that is not as it
would be made.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
MADE: Final = "made by make docs: "
CHECKED: Final = "checked by "

# Written as a whole, and by which command; their heads say so, too.
WHOLE: Final[Mapping[str, str]] = {
    "docs/spec-map.md": "make docs",
    "docs/readings.md": "make docs",
    "bench/README.md": "make bench",
}
# Tables of decisions and audiences, by their first row: no command prints them.
EXCUSED: Final[Mapping[str, str]] = {
    "| choice | because |": "decisions and their grounds",
    "| you | ask | then |": "who reads it",
    "| not measured | what happens |": "what a comparison leaves out",
    "| what | how |": "the words for kinds of errors, which tests/tidy enforces",
}
# A table that another target writes has its own pair of marks.
_OTHER: Final = re.compile(r"<!-- (make \S.*) -->")
_MARK: Final = re.compile(rf"<!-- ((?:{MADE}|{CHECKED}).*) -->")


class Block(NamedTuple):
    """Lines `start` to `end` of a document, counted from 0, `end` excluded."""

    path: str
    start: int
    end: int
    kind: str  # "table", "indented", or "fenced" and its language
    mark: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """What stands in it: the rows of a table, the text between fences."""
        inner = self.lines[1:-1] if self.kind.startswith("fenced") else self.lines
        cut = 4 if self.kind == "indented" else 0
        return "".join(f"{line[cut:]}\n" for line in inner)

    @property
    def place(self) -> str:
        """Where it is, as editors jump to."""
        return f"{self.path}:{self.start + 1}"

    @property
    def excuse(self) -> str:
        """Why it needs no mark; empty if it needs one."""
        return EXCUSED.get(self.lines[0], "") if self.kind == "table" else ""


def documents() -> list[str]:
    """Paths of all Markdown files that are, or would be, committed."""
    if not (ROOT / ".git").exists():  # an unpacked archive
        made = (".venv", "build", "dist", ".pytest_cache")
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
        return sorted(path.as_posix() for path in paths if path.parts[0] not in made)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).exists())


def blocks(path: str, text: str) -> Iterator[Block]:
    """The blocks of one document, in their order."""
    lines = text.split("\n")
    at, mark = 0, ""
    while at < len(lines):
        line = lines[at]
        kind = _kind(lines, at)
        if found := _MARK.fullmatch(line) or _OTHER.fullmatch(line):
            mark = found[1]
            at += 1
        elif kind:
            end = _end(lines, at, kind)
            yield Block(path, at, end, kind, mark, tuple(lines[at:end]))
            at, mark = end, ""
        else:
            mark = mark if not line else ""
            at += 1


def _kind(lines: list[str], at: int) -> str:
    if lines[at].startswith("```"):
        return f"fenced {lines[at][3:]}".rstrip()
    if lines[at].startswith("|"):
        return "table"
    before = lines[at - 1] if at else ""
    return "indented" if lines[at].startswith("    ") and not before else ""


def _end(lines: list[str], at: int, kind: str) -> int:
    end = at + 1
    if kind.startswith("fenced"):
        while lines[end] != "```":
            end += 1
        return end + 1
    prefix = "|" if kind == "table" else "    "
    while end < len(lines) and lines[end].startswith(prefix):
        end += 1
    # An indented text may go on after an empty line.
    if kind == "indented" and lines[end : end + 1] == [""] and end + 1 < len(lines):
        if lines[end + 1].startswith(prefix):
            return _end(lines, end + 1, kind)
    return end


def all_blocks() -> list[Block]:
    """The blocks of all documents that are not written as a whole."""
    return [
        block
        for path in documents()
        if path not in WHOLE
        for block in blocks(path, (ROOT / path).read_text(encoding="utf-8"))
    ]


def remade(path: str, text: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """The document with every block that is made, made anew."""
    lines = text.split("\n")
    for block in reversed(list(blocks(path, text))):
        if block.mark.startswith(MADE):
            new = makers[block.mark.removeprefix(MADE)]().splitlines()
            if block.kind.startswith("fenced"):
                new = [block.lines[0], *new, block.lines[-1]]
            lines[block.start : block.end] = new
    return "\n".join(lines)


def main() -> int:
    """Write all of them."""
    from tools.document_blocks import MAKERS  # which runs programs: only when asked for
    from tools.man_page import main as write_man_page
    from tools.notebook import main as write_notebook
    from tools.spec_map import main as write_the_rest

    write_the_rest()
    write_man_page()
    write_notebook()
    for path in documents():
        if path not in WHOLE:
            old = (ROOT / path).read_text(encoding="utf-8")
            new = remade(path, old, MAKERS)
            if new != old:
                (ROOT / path).write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

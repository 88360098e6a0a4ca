"""Citations that last: each names a document, a section, a kernel that docs/sources.md lists.

A section number alone is worth nothing in the next edition of a manual, so its title stands beside
it. Whether a citation fits what it is cited for, no test can tell.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES
from tests.tidy.repository import text_files
from tests.tidy.source import ROOT

SOURCES: Final = "docs/sources.md"
# Files with citations that are none, and why.
EXEMPT: Final = {
    "tests/test_tidy.py": "examples of what is refused",
    "tests/tidy/citations.py": "the patterns themselves",
    "tests/cpu/test_rules.py": "the page of a leaf that does not exist",
}
# Instructions and CPUID, which the manuals have in alphabetical order.
_INSTRUCTIONS: Final = frozenset(
    [name for leaves in (ENCLS_LEAVES, ENCLU_LEAVES) for name, _ in leaves.values()]
    + ["ENCLS", "ENCLU", "ENCLV", "CPUID"]
)
_SUFFIXES: Final = (".py", ".c", ".h", ".s", ".S", ".md", ".toml")
# What begins a line of a comment is no part of the sentence.
_LEADER: Final = re.compile(r"\n[ \t]*(?:#|\*|//)?[ \t]*")
_NAME: Final = re.compile(
    r"\b(?:SDM(?: \d[A-D]?\b)?|AMD's manual(?:, volume \d)?|LSB(?: \w+)?|(?:[\w-]+ )?psABI"
    r"|System V ABI|DWARF \d|NIST SP [\w-]+|FIPS \d+|PEP \d+|RFC \d+|glibc \d\.\d+)"
)
# Without the comma, which would be no citation for what follows.
_LOOSE: Final = re.compile(r"\bSDM \d[A-D]?(?: |: | \()\d+(?:\.\d+)+")
_KERNEL: Final = re.compile(r"\bLinux (\d+\.\d+)(?:\.\d+)?(?:, ([\w-]+)/)?")
_ITEM: Final = re.compile(
    r'(?:(?P<number>\d+(?:\.\d+)*)(?: "(?P<title>[^"]*)")?|"(?P<alone>[^"]*)"'
    r"|(?P<names>[A-Z][A-Z0-9]+(?:/[A-Z0-9]+)*)\b)"
)
_PLACE: Final = re.compile(r", (?:(?:volume|appendix) \w+)?")
_NEXT: Final = re.compile(r",? and |, ")
_TOP: Final = frozenset(
    "Documentation arch drivers fs include kernel lib mm net security sgx tools".split()
)


class Sources(NamedTuple):
    """The tables of the page."""

    documents: frozenset[str]
    kernels: frozenset[str]
    sections: frozenset[tuple[str, str, str]]


@cache
def sources() -> Sources:
    """What docs/sources.md lists."""
    tables: dict[str, list[list[str]]] = {}
    head = ""
    for line in (ROOT / SOURCES).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = ""
        elif not head:
            head = cells[0]
        elif not line.startswith("| ---"):
            tables.setdefault(head, []).append(cells)
    return Sources(
        frozenset(row[0] for row in tables["cited as"]),
        frozenset(row[0] for row in tables["version"]),
        frozenset((row[0], row[1], row[2]) for row in tables["in"]),
    )


def cited_files() -> Iterator[tuple[str, str]]:
    """Path and text of the files whose citations count."""
    for path, text in text_files():
        if path.endswith(_SUFFIXES) and path not in EXEMPT and path != SOURCES:
            yield path, text


def unknown(path: str, text: str) -> Iterator[str]:
    """Citations of what the page does not list, and section numbers without their title."""
    for used, place, wrong in citations(text):
        if wrong:
            yield f"{path}:{place}: {used}: {wrong}; {SOURCES} lists what is cited"


def citations(text: str) -> Iterator[tuple[str, int, str]]:
    """Document and section of each citation as `sources` has them, its line, and what is wrong."""
    flat, lines = _flat(text)
    known = sources()
    for found in _NAME.finditer(flat):
        name = found[0]
        yield name, lines[found.start()], "" if name in known.documents else "not listed"
        for section, wrong in _sections(name, flat, found.end()):
            yield section, lines[found.start()], wrong
    for found in _LOOSE.finditer(flat):
        yield found[0], lines[found.start()], 'a section is cited as `SDM 3D, 38.7 "title"`'
    for found in _KERNEL.finditer(flat):
        version, top = found.groups()
        wrong = "" if version in known.kernels else "not listed"
        if top and top not in _TOP:
            wrong = f"{top}/ is not at the top of the kernel's tree"
        yield version, lines[found.start()], wrong


def _flat(text: str) -> tuple[str, list[int]]:
    """The text with its lines joined, and for every character of it the line it was on."""
    parts, lines, at, number = [], [], 0, 1
    for found in [*_LEADER.finditer(text), None]:
        end = found.start() if found else len(text)
        parts.append(text[at:end] + (" " if found else ""))
        lines += [number] * len(parts[-1])
        number += 1 if found else 0
        at = found.end() if found else end
    return "".join(parts), lines


def _sections(name: str, flat: str, at: int) -> Iterator[tuple[str, str]]:
    """What a citation of one document names, and what is wrong with it."""
    between = _PLACE.match(flat, at)
    if between and name.startswith("SDM") and not _ITEM.match(flat, between.end()):
        yield name, f"no section: {flat[between.end() : between.end() + 30]!r}"
    while between and (item := _ITEM.match(flat, between.end())):
        yield _section(name, item)
        between = _NEXT.match(flat, item.end())


def _section(name: str, item: re.Match[str]) -> tuple[str, str]:
    number, title = item["number"] or "-", item["title"] or item["alone"]
    if item["names"]:
        strange = [word for word in item["names"].split("/") if word not in _INSTRUCTIONS]
        return name, f"{strange[0]} is no instruction" if strange else ""
    if title is None:
        return f"{name}, {number}", "a number without its title"
    known = {(n, t) for document, n, t in sources().sections if document == name}
    if (number, title) in known or (
        number == "-" and title in {known_title for _, known_title in known}
    ):
        return f"{name}, {number}, {title}", ""
    return f'{name}, {number} "{title}"', "no such section"

"""docs/glossary.md: sorted, one line each, with sources that exist, of words that are used."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tidy.citations import citations
from tools.documents import ROOT, blocks, documents

PATH = "docs/glossary.md"
OURS = re.compile(r"here, \[([\w-]+\.md)\]\(\1\)")


def rows() -> list[list[str]]:
    """The cells of each row below the head."""
    (table,) = blocks(PATH, (ROOT / PATH).read_text(encoding="utf-8"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.lines[2:]]


def faults(row: list[str], elsewhere: str) -> list[str]:
    """What is wrong with a row."""
    term, meaning, source = row
    found = [] if len(meaning) <= 110 and meaning[-1] not in "." else ["not one short line"]
    words = term.split(", ")
    found += [f"{word} is not used" for word in words if not _used(word, elsewhere)]
    ours = OURS.fullmatch(source)
    if ours:
        text = (ROOT / "docs" / ours[1]).read_text(encoding="utf-8")
        found += [f"not in {ours[1]}" for word in words if word.lower() not in text.lower()]
    elif not any(not wrong for _, _, wrong in citations(source)):
        found.append(f"{source}: cites nothing")
    found += [f"{used}: {wrong}" for used, _, wrong in citations(source) if wrong]
    return found


def _used(word: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE) is not None


def elsewhere() -> str:
    """All other documents."""
    return "\n".join(Path(ROOT, p).read_text("utf-8") for p in documents() if p != PATH)


def test_the_table() -> None:
    text = elsewhere()
    found = {row[0]: wrong for row in rows() if (wrong := faults(row, text))}
    assert not found
    terms = [row[0].lower() for row in rows()]
    assert terms == sorted(terms)
    assert len(terms) == len({*terms}) > 40


def test_rows_that_are_wrong_are_noticed() -> None:
    text = elsewhere()
    good = ["EPC", "memory", 'SDM 3D, 37.5 "Enclave Page Cache"']
    assert faults(good, text) == []
    for row in (
        ["ZEPC", *good[1:]],
        ["EPC", "x" * 111, good[2]],
        ["EPC", "memory", "the manual"],
        ["EPC", "memory", good[2].replace("7.5", "7.9")],
        ["EPC", "memory", "Linux " + "6.14, mm/mmap.c"],
        ["ZQXJ", "memory", "here, [run.md](run.md)"],
    ):
        assert faults(row, text + " ZQXJ" * (row[0] == "ZQXJ")), row

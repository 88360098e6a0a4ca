"""docs/citing.md says what CITATION.cff says."""

from __future__ import annotations

import re

import yaml  # type: ignore[import-untyped]

from tools.documents import ROOT


def test_the_entry_is_that_of_the_file() -> None:
    text = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    entry = {
        name: re.sub(r"[{}]", "", value)
        for name, value in re.findall(r"^  (\w+) += \{(.*)\},?$", text, re.MULTILINE)
    }
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert entry == {
        "author": cff["authors"][0]["name"],
        "title": cff["title"],
        "version": cff["version"],
        "url": cff["repository-code"],
    }

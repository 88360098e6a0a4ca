"""Every file and folder that a document names is there."""

from __future__ import annotations

import re

import pytest

from tests.tidy.repository import text_files
from tools.documents import ROOT, documents

# In backticks: a name with a folder, or that of a file of ours; a function of it may follow.
NAMED = re.compile(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:py|s|md|toml))(?:::\w*)?`")
LINK = re.compile(r"\]\(([\w./-]+)(?:#[\w-]+)?\)")
# Where the paths of a document may begin, besides its own folder.
BASES = ("", "src/softsgx")
# Paths that are not of this repository, or made.
OTHERS = {
    "arch/x86/kernel/cpu/sgx/": "of the kernel",
    "sgx/": "of the kernel, shortened",
    "page.py": "what the reader of the tutorial writes",
    "commit.py": "likewise",
    "locked.py": "likewise",
    "build/mutants": "made",
    "build/mutants/survivors.txt": "made",
}


def missing(path: str, text: str) -> list[str]:
    """What a document names and is not there, with what it may mean."""
    files = [name for name, _ in text_files()]
    here = (ROOT / path).parent
    found = []
    for name in NAMED.findall(text):
        known = any((base / name).exists() for base in (here, *(ROOT / b for b in BASES)))
        if "/" not in name:
            known = any(file.endswith(f"/{name}") for file in [f"/{file}" for file in files])
        if not known and name not in OTHERS:
            last = name.rstrip("/").rpartition("/")[2]
            found.append(f"{path}: {name}: {[file for file in files if f'/{last}' in file][:3]}")
    for name in LINK.findall(text):
        if not (here / name).exists():
            found.append(f"{path}: {name}")
    return found


@pytest.mark.parametrize("path", documents())
def test_every_path_is_there(path: str) -> None:
    assert missing(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_every_document_is_in_the_index() -> None:
    listed = set(NAMED.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} == listed


def test_a_path_that_is_gone_is_noticed() -> None:
    for text in ("`cpu/epic.py`", "`cpu/leaf/none/`", "`epic.py`", "[a](docs/none.md)"):
        assert len(missing("README.md", text)) == 1, text
    assert missing("docs/run.md", "`cpu/epcm.py`, `epcm.py`, `cpu/leaf/`, [a](image.md#what)") == []

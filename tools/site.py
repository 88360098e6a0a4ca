"""Put together what the site is built from: python -m tools.site DIRECTORY, part of `make site`.

The documents of docs/, with links to other files of the repository led to its address, and without
the comments that say what makes or checks a block; the reference (tools/reference.py); and the
order in which pages are listed. Sphinx, in an environment of its own, makes pages of it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tools import reference

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
INDEX: Final = "README.md"
REFERENCE: Final = "reference"
# Pages by what one comes for, each once: a page that is missing here is an error of Sphinx.
ORDER: Final[Mapping[str, Sequence[str]]] = {
    "Begin": ("tutorial", "ten-minutes", "troubleshooting", "glossary"),
    "Programs and runtimes": ("run", "image", "python", "pytest"),
    "Pipelines": ("ci", "exit-codes"),
    "The kernel's driver": ("testing-a-driver-patch", "driver", "kernel-races"),
    "Schedules, attacks, designs": ("explore", "permission-designs"),
    "Reference": tuple(f"{REFERENCE}/{page.removesuffix('.md')}" for page in reference.NAMES),
    "The model": (
        *("spec-map", "readings", "not-modelled", "invariants"),
        *("sources", "decisions", "releases", "citing"),
    ),
}
_MARK: Final = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]+)")
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def repository() -> str:
    """Its address, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Source"])


def prepared(text: str, address: str) -> str:
    """The text of a document of docs/, for the site."""
    parts = _FENCED.split(text)
    lead = partial(_led, address=address)
    parts[::2] = [_LINK.sub(lead, _MARK.sub("", part)) for part in parts[::2]]
    return "".join(parts)


def _led(link: re.Match[str], address: str) -> str:
    """A target as it is, if it is a page; else the file in the repository. Sphinx checks pages."""
    inside = posixpath.normpath(posixpath.join("docs", link[0]))
    place = ROOT / inside
    if posixpath.dirname(inside) == "docs" and inside.endswith(".md"):
        return "index.md" if inside == f"docs/{INDEX}" else link[0]
    if not place.exists():
        raise FileNotFoundError(f"docs: {link[0]}: there is no such file")
    return f"{address}/{'tree' if place.is_dir() else 'blob'}/main/{inside}"


def order() -> str:
    """The lists of pages, as directives."""
    lists = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```\n"])
        for caption, pages in ORDER.items()
    ]
    return "\n" + "\n".join(lists)


def stage(directory: Path) -> None:
    """Write all sources of the site."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / REFERENCE).mkdir(parents=True)
    address = repository()
    for path in sorted(DOCS.glob("*.md")):
        text = prepared(path.read_text(encoding="utf-8"), address)
        index = path.name == INDEX
        name = "index.md" if index else path.name
        (directory / name).write_text(text + order() * index, encoding="utf-8")
    for name, page in reference.pages().items():
        (directory / REFERENCE / name).write_text(page, encoding="utf-8")


def main() -> int:
    """Write them to the directory that is named."""
    stage(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

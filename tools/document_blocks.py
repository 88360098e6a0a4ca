"""What `make docs` puts into marked blocks of the documents; tools/documents.py says where.

Blocks of one program come from one run of it: examples/edmm under `softsgx run`, without timer
interrupts, so that it takes the same steps each time.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cli.errors import markdown
from softsgx.cli.main import COMMANDS
from softsgx.linux.version import VERSIONS, Races
from softsgx.runner.doctor.needs import NEEDS, UNTRACED
from tests.runner.programs import Workshop
from tools.documents import ROOT, blocks

LIMIT_S: Final = 600
_SOURCES: Final = ROOT / "src" / "softsgx"


class Demo(NamedTuple):
    """What the example under `softsgx run --explain --stats --trace` wrote."""

    printed: str
    explained: str
    stats: str
    trace: list[str]


def softsgx(*words: str, cwd: Path, code: int) -> subprocess.CompletedProcess[str]:
    """The command, which must end with this exit code."""
    command = [sys.executable, "-m", "softsgx", *words]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@cache
def demo() -> Demo:
    """examples/edmm, once."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        example = Workshop(place).example()
        options = ["--explain", "--stats", "--tick", "0", "--trace", "trace.jsonl"]
        options += ["--cpuid", "patch"]  # as on processors without CPUID faulting
        done = softsgx("run", *options, "--", *example, cwd=place, code=0)
        explained, _, stats = done.stderr.partition("softsgx: stats\n")
        return Demo(done.stdout, explained, stats, (place / "trace.jsonl").read_text().splitlines())


def explanation() -> str:
    """The write of step 7 that the EPCM refuses."""
    found = re.split(r"^(?=\S)", demo().explained, flags=re.MULTILINE)
    return next(text for text in found if text.startswith("write") and "ACCESS.12" in text)


# A host that asks for a processor state which the emulator does not save.
_AVX_HOST: Final = """\
#include "load.h"

int main(int argc, char **argv)
{
    struct enclave e;

    if (argc < 2 || enclave_open(&e, argv[1]) || enclave_reserve(&e))
        return 2;
    e.xfrm = 7;
    return !enclave_create(&e);
}
"""


def refused_create() -> str:
    """CREATE with AVX in XFRM, which fails."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sgxs = Workshop(place).example()[1]
        (place / "avx.c").write_text(_AVX_HOST, encoding="utf-8")
        host = place / "avx"
        gcc = ["gcc", "-D_GNU_SOURCE", "-I", str(ROOT / "examples" / "edmm"), "-o", str(host)]
        subprocess.run([*gcc, str(place / "avx.c")], check=True)
        return softsgx("run", "--explain", "--", str(host), sgxs, cwd=place, code=0).stderr


def stats() -> str:
    """The table of --stats."""
    return re.sub("^  ", "", demo().stats, flags=re.MULTILINE)


def trace_line() -> str:
    """The event by which EAUG gives the page of step 2 its entry."""
    return next(x for x in demo().trace if '"EpcmChanged"' in x and '"EAUG"' in x) + "\n"


def explored(path: str, file: str) -> str:
    """What `softsgx explore` says of the first scenario of a document, saved as `file`."""
    text = (ROOT / path).read_text(encoding="utf-8")
    python = (block.text for block in blocks(path, text) if block.kind == "fenced python")
    source = next(text for text in python if "Scenario):" in text)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / file).write_text(source, encoding="utf-8")
        return softsgx("explore", file, cwd=Path(name), code=1).stdout


def known_races() -> str:
    """`softsgx explore --known-races`, with a shorter limit for each search."""
    return softsgx("explore", "--known-races", "--budget", "20s", cwd=ROOT, code=0).stdout


def races() -> str:
    """Every race that the model knows, and the kernels that have it."""
    rows = []
    for race in dataclasses.fields(Races):
        has = ["yes" if getattr(v.races, race.name) else "" for v in VERSIONS.values()]
        number, says = race.metadata["name"], race.metadata["what"]
        rows.append([number, f"`{race.name}`", *has, says])
    return table(["race", "switch", *VERSIONS, "what happens"], rows)


def needs() -> str:
    """What the supervisor needs of the machine."""
    all_needs = (*NEEDS, *UNTRACED)
    rows = [[need.name, need.users, need.fallback or "nothing runs"] for need in all_needs]
    return table(["what", "for", "without it"], rows)


def unmodelled() -> str:
    """Every place that raises Unmodelled."""
    rows = [[f"`{raised.says}`", f"`{raised.place}`"] for raised in raises()]
    return table(["message", "raised by"], rows)


def exit_codes(name: str) -> str:
    """What the exit codes of a subcommand mean."""
    return markdown(import_module(COMMANDS[name].module).TABLE.codes)


class Raised(NamedTuple):
    """One `raise Unmodelled(...)`: its text, with `...` for what differs, and the function."""

    says: str
    place: str


def raises(root: Path = _SOURCES) -> list[Raised]:
    """All of them, by file."""
    found = []
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(root).as_posix()
        found += [Raised(says, f"{name}:{function}") for says, function in _raises(tree, "")]
    return found


def _raises(parent: ast.AST, function: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(parent):
        name = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Unmodelled":
            yield _template(node.args[0]), function
        yield from _raises(node, name)


def _template(text: ast.expr) -> str:
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "an explanation of examples/edmm": explanation,
    "an ECREATE that is refused": refused_create,
    "stats of examples/edmm": stats,
    "an event of examples/edmm": trace_line,
    "softsgx explore scenarios.py": partial(explored, "docs/explore.md", "scenarios.py"),
    "softsgx explore commit.py": partial(explored, "docs/tutorial.md", "commit.py"),
    "softsgx explore --known-races": known_races,
    "races by kernel": races,
    "needs": needs,
    "Unmodelled": unmodelled,
    **{f"exit codes of {name}": partial(exit_codes, name) for name in COMMANDS},
}

"""docs/testing-a-driver-patch.md: its patches are applied, its commands print what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from softsgx.cdriver.tree import Tree
from tests.cdriver import sources
from tests.cdriver.patches import Patch, patched
from tests.patience import LIMIT_S
from tests.runner.programs import Workshop
from tools.documents import ROOT

PAGE = ROOT / "docs" / "testing-a-driver-patch.md"
BLOCK = re.compile(r"^```(c|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"# exit code (\d+)")


class Command(NamedTuple):
    """A command and what the page says that it prints."""

    words: list[str]
    code: int
    printed: list[str]


def commands(block: str) -> Iterator[Command]:
    """The commands of a block."""
    for part in block.split("$ ")[1:]:
        line, *printed = part.splitlines()
        code = EXIT.search(line)
        yield Command(shlex.split(line, comments=True), int(code[1]) if code else 0, printed)


def expected(line: str) -> re.Pattern[str]:
    """What a line of the page stands for: "..." is anything, a line of C may have moved."""
    text = ".*".join(map(re.escape, line.split("...")))
    return re.compile(re.sub(r"(\\.[ch]:)\d+", r"\1\\d+", text).rstrip() + r"\s*(\s{2}.*)?")


def run(command: Command, place: Path, tree: Path) -> None:
    """Run it, unless it is git's; the lines of the page have to be printed, in their order."""
    program, *words = [word.replace("~/linux", str(tree)) for word in command.words]
    if program == "git":
        return
    assert program == "softsgx"
    done = subprocess.run(
        [sys.executable, "-m", "softsgx", *words],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == command.code, said
    lines = iter(done.stdout.splitlines())
    for line in command.printed:
        if line != "...":
            pattern = expected(line)
            assert any(pattern.fullmatch(each) for each in lines), f"{line}\nis not in\n{said}"


def append(path: Path, text: str, before: str = "") -> None:
    """Put text at the end of a file, or before the last occurrence of another text."""
    source = path.read_text(encoding="utf-8")
    at = source.rindex(before) if before else len(source)
    path.write_text(source[:at] + "\n" + text + source[at:], encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the scenario file and the program of the page."""
    shutil.copy(ROOT / "examples" / "driver_patch" / "mprotect.py", tmp_path)
    host, sgxs, sig = Workshop(tmp_path).example()
    for path, name in ((host, "host"), (sgxs, "enclave.sgxs"), (sig, "enclave.sig")):
        if Path(path).name != name:
            shutil.copy(path, tmp_path / name)
    return tmp_path


def test_the_page(place: Path) -> None:
    tree: Tree = patched(sources.kernel_or_skip("6.12"), place / "linux")
    ioctl = tree.driver / "ioctl.c"
    unpatched = ioctl.read_text(encoding="utf-8")
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    body, declaration, first, second = [text for kind, text in blocks if kind == "c"]
    before, with_first, with_second, costs = [text for kind, text in blocks if kind == "console"]

    def run_all(block: str) -> None:
        for command in commands(block):
            run(command, place, tree.top)

    run_all(before)
    Patch("encl.c", "sgx_vma_mprotect", r"return ", body.lstrip() + "\t").apply(tree)
    append(tree.driver / "encl.h", declaration, "#endif")
    append(ioctl, first)
    run_all(with_first)
    ioctl.write_text(unpatched, encoding="utf-8")
    append(ioctl, second)
    run_all(with_second)
    run_all(costs)

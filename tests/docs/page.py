"""Documents whose blocks are typed one after the other: each answers as the page says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.docs.test_blocks import OF_A_RUN
from tests.patience import LIMIT_S
from tests.runner.programs import Workshop
from tools.documents import ROOT, Block, blocks

SAVED: Final = re.compile(r"as `(\w+\.py)`")
EXIT: Final = re.compile(r"# exit code (\d+)")
SAID: Final = re.compile(r"print\(.*\)  # (.*)")
# Not run here: the network, the environment, what other tests build.
TYPED_ONLY: Final = ("git clone", "cd softsgx", "export PATH=")
BOTH: Final = "2>&1"


def normal(text: str) -> list[str]:
    """Lines without what may differ from run to run."""
    for pattern, stands_for in OF_A_RUN:
        text = pattern.sub(stands_for, text)
    return text.splitlines()


def says(printed: list[str], page: list[str]) -> bool:
    """Whether the lines of the page are what was printed: "..." is anything."""
    lines = "\n".join(page)
    pattern = ".*".join(map(re.escape, lines.split("...")))
    return re.fullmatch(pattern, "\n".join(printed), re.DOTALL) is not None


def sections(path: str) -> list[tuple[Block, str, str]]:
    """Each block, the file that it is to be saved as ("" if none), the text block that follows."""
    text = (ROOT / path).read_text(encoding="utf-8")
    all_blocks, lines = list(blocks(path, text)), text.split("\n")
    found, end = [], 0
    for at, block in enumerate(all_blocks):
        after = all_blocks[at + 1] if at + 1 < len(all_blocks) else None
        answer = after.text if after and after.kind == "fenced text" else ""
        files = SAVED.findall(" ".join(lines[end : block.start]))
        found.append((block, files[-1] if files and block.kind == "fenced python" else "", answer))
        end = block.end
    return found


def run_python(block: Block, answer: str, names: dict[str, Any]) -> None:
    """A part of page.py prints what its comments, or the text block after it, say."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.text, block.place, "exec"), names)
    page = answer or "".join(f"{line}\n" for line in SAID.findall(block.text))
    assert says(normal(out.getvalue()), normal(page)), f"{block.place}:\n{out.getvalue()}"


def run_command(line: str, page: list[str], place: Path) -> None:
    """A command of a console block; of `make` the target and its recipe are looked up."""
    code = EXIT.search(line)
    words = shlex.split(line, comments=True)
    if line.startswith(TYPED_ONLY):
        return
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    assert words[0] in ("softsgx", "pytest"), line
    errors = subprocess.STDOUT if BOTH in words else subprocess.PIPE
    command = [sys.executable, "-m", *(word for word in words if word != BOTH)]
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        command,
        cwd=place,
        env=env,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == (int(code[1]) if code else 0), f"{done.stdout}{done.stderr}"
    assert says(normal(done.stdout), normal("\n".join(page))), f"{line}\n{done.stdout}"


def demo(directory: Path) -> Path:
    """Where `make demo` has been."""
    built = directory / "build" / "demo"
    built.mkdir(parents=True)
    made = Workshop(directory).example()
    for path, name in zip(made, ("host", "enclave.sgxs", "enclave.sig"), strict=True):
        shutil.copy(path, built / name)
    return directory


def follow(path: str, place: Path, left_out: Sequence[str] = ()) -> int:
    """Do all that a page says, in a directory; how many commands that were.

    Not those that begin like one of `left_out`, and what needs them: they are to be at its end.
    """
    names: dict[str, Any] = {"__name__": "page"}
    commands = 0
    for block, file, answer in sections(path):
        if block.kind == "fenced console":
            for part in block.text.split("$ ")[1:]:
                line, *page = part.splitlines()
                if not line.startswith(tuple(left_out)):
                    run_command(line, page, place)
                    commands += 1
        elif file:
            (place / file).write_text(block.text, encoding="utf-8")
        elif block.kind == "fenced python":
            run_python(block, answer, names)
    return commands

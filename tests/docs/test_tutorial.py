"""docs/tutorial.md: its Python and its commands, in their order, answer as it says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_blocks import OF_A_RUN
from tests.patience import LIMIT_S
from tests.runner.programs import Workshop
from tools.documents import ROOT, Block, blocks

PATH = "docs/tutorial.md"
TEXT = (ROOT / PATH).read_text(encoding="utf-8")
BLOCKS = list(blocks(PATH, TEXT))
SAVED = re.compile(r"as `(\w+\.py)`")
EXIT = re.compile(r"# exit code (\d+)")
SAID = re.compile(r"print\(.*\)  # (.*)")
# Not run here: the network, the environment, what other tests build.
TYPED_ONLY = ("git clone", "cd softsgx", "export PATH=")


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


def sections() -> Iterator[tuple[Block, str, str]]:
    """Each block, the file that it is to be saved as ("" if none), the text block that follows."""
    lines = TEXT.split("\n")
    end = 0
    for at, block in enumerate(BLOCKS):
        after = BLOCKS[at + 1] if at + 1 < len(BLOCKS) else None
        answer = after.text if after and after.kind == "fenced text" else ""
        files = SAVED.findall(" ".join(lines[end : block.start]))
        yield block, files[-1] if files and block.kind == "fenced python" else "", answer
        end = block.end


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
    assert words[0] == "softsgx", line
    command = [sys.executable, "-m", *words]
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        command, cwd=place, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == (int(code[1]) if code else 0), done.stdout + done.stderr
    assert says(normal(done.stdout), normal("\n".join(page))), f"{line}\n{done.stdout}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one is at "The same in a real program": `make demo` has been there."""
    directory = tmp_path_factory.mktemp("checkout")
    built = directory / "build" / "demo"
    built.mkdir(parents=True)
    made = Workshop(directory).example()
    for path, name in zip(made, ("host", "enclave.sgxs", "enclave.sig"), strict=True):
        shutil.copy(path, built / name)
    return directory


def test_the_page(place: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block, file, answer in sections():
        if block.kind == "fenced console":
            for part in block.text.split("$ ")[1:]:
                line, *page = part.splitlines()
                run_command(line, page, place)
        elif file:
            (place / file).write_text(block.text, encoding="utf-8")
        elif block.kind == "fenced python":
            run_python(block, answer, names)


def test_the_files_of_the_page_are_found() -> None:
    """And every kind of block: a page whose blocks are not seen would pass."""
    assert [file for _, file, _ in sections() if file] == ["commit.py", "locked.py"]
    assert sum(block.kind == "fenced python" for block in BLOCKS) > 7
    assert sum("$ softsgx" in block.text for block in BLOCKS) > 3


def test_an_answer_that_is_not_printed_is_noticed() -> None:
    assert says(["a 1", "b"], ["a ...", "b"])
    assert says(["x", "y", "b"], ["...", "b"])
    assert not says(["a 1", "b"], ["a ..."[:3], "b"])
    assert not says(["a", "c"], ["a", "b"])
    block = next(b for b in BLOCKS if "accept_new" in b.text)
    wrong = block._replace(lines=("```python", "print(1)  # 2", "```"))
    with pytest.raises(AssertionError):
        run_python(wrong, "", {})
    with pytest.raises(AssertionError):
        run_command("softsgx explore FirstTouch", ["nothing"], ROOT)

"""Execute examples/first-race.ipynb and write its outputs into it: part of `make docs`.

The code cells are executed one after the other in a fresh Python whose main module has no file, as
a kernel of Jupyter does it. What a cell prints is a stream; the value of its last expression is a
result. Nothing else is needed, so no kernel is.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
NOTEBOOK: Final = ROOT / "examples" / "first-race.ipynb"
Cell = dict[str, Any]
_HERE: Final = "from tools.notebook import serve; serve()"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells have now. RuntimeError if one fails."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if _is_code(cell)]
    command = [sys.executable, "-W", "error", "-c", _HERE]
    asked = json.dumps(sources)
    done = subprocess.run(
        command, cwd=ROOT, input=asked, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    outputs = iter(json.loads(done.stdout))
    cells = [_with(cell, next(outputs)) if _is_code(cell) else cell for cell in notebook["cells"]]
    for number, cell in enumerate(filter(_is_code, cells), 1):
        cell["execution_count"] = number
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number
    return {**notebook, "cells": cells}


def _is_code(cell: Cell) -> bool:
    return bool(cell["cell_type"] == "code")


def _with(cell: Cell, outputs: list[Cell]) -> Cell:
    return {**cell, "outputs": outputs}


def serve() -> None:
    """In the fresh Python: sources from standard input, lists of outputs to standard output."""
    names = sys.modules["__main__"].__dict__
    found = [_outputs(source, names) for source in json.load(sys.stdin)]
    json.dump(found, sys.stdout)


def _outputs(source: str, names: dict[str, Any]) -> list[Cell]:
    """Execute a cell; what it leads to, in the words of nbformat 4."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    found: list[Cell] = []
    if text := printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        result = {"data": data, "execution_count": None, "metadata": {}}
        found.append({**result, "output_type": "execute_result"})
    return found


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def text_of(notebook: dict[str, Any]) -> str:
    """As Jupyter writes it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    new = executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    NOTEBOOK.write_text(text_of(new), encoding="utf-8")


if __name__ == "__main__":
    main()

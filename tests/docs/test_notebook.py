"""examples/first-race.ipynb: executed, its outputs are those that it has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.notebook import NOTEBOOK, executed, text_of

TEXT = NOTEBOOK.read_text(encoding="utf-8")


def small(*sources: str) -> dict[str, Any]:
    """A notebook of code cells without outputs."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "execution_count": None, "outputs": [], "source": source}
        for source in sources
    ]
    return {"cells": [*cells, {"cell_type": "markdown", "source": ["text"]}]}


def test_the_notebook_has_the_outputs_of_now() -> None:
    notebook = json.loads(TEXT)
    assert text_of(executed(notebook)) == TEXT, "run make docs"


def test_it_is_a_notebook_that_finds_and_proves() -> None:
    notebook = json.loads(TEXT)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len({*ids})
    assert "VIOLATION spurious fault" in TEXT
    assert "complete: every step" in TEXT


def test_cells_share_names_and_print_in_their_order() -> None:
    first, second, text = executed(small("a = 2\nprint(a)\na", "print(a + 1)\nNone"))["cells"]
    assert first["outputs"] == [
        {"name": "stdout", "output_type": "stream", "text": ["2\n"]},
        {
            "data": {"text/plain": ["2"]},
            "execution_count": 1,
            "metadata": {},
            "output_type": "execute_result",
        },
    ]
    assert [output["text"] for output in second["outputs"]] == [["3\n"]]
    assert text == {"cell_type": "markdown", "source": ["text"]}


def test_a_cell_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        executed(small("1 / 0"))

"""What GitHub asks of the metadata of a composite action, and what we ask besides.

Its rules are those of the page "Metadata syntax reference"; ours: actions of others are pinned to a
commit, inputs reach a shell by the environment only, and every input is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_TOP: Final = {"name", "author", "description", "inputs", "outputs", "runs", "branding"}
_INPUT: Final = {"description", "required", "default", "deprecationMessage"}
_STEP: Final = {
    *("name", "id", "if", "uses", "with", "run", "shell", "env", "working-directory"),
    "continue-on-error",
}
_COLORS: Final = {
    *("white", "black", "yellow", "blue", "green", "orange", "red", "purple", "gray-dark"),
}
_ID: Final = re.compile(r"[A-Za-z_][\w-]*")
_PINNED: Final = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}")
_EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


def expressions(node: Any) -> Iterator[str]:
    """What stands between ${{ and }}, anywhere below a node."""
    if isinstance(node, str):
        yield from _EXPRESSION.findall(node)
    elif isinstance(node, dict):
        for value in node.values():
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def problems(action: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an action."""
    if wrong := set(action) - _TOP:
        yield f"unknown keys {sorted(wrong)}"
    for key in ("name", "description"):
        if not isinstance(action.get(key), str):
            yield f"{key}: required, a text"
    if action.get("branding", {}).get("color", "white") not in _COLORS:
        yield "branding.color: unknown"
    inputs = action.get("inputs", {})
    for name, declared in inputs.items():
        yield from _of_input(name, declared)
    runs = action.get("runs", {})
    if runs.get("using") != "composite" or set(runs) != {"using", "steps"}:
        yield "runs: using: composite and steps, nothing else"
        return
    ids: set[str] = set()
    for number, step in enumerate(runs["steps"], 1):
        yield from (f"step {number}: {what}" for what in _of_step(step, ids))
        ids |= {step["id"]} if "id" in step else set()
    for name, declared in action.get("outputs", {}).items():
        if set(declared) != {"description", "value"}:
            yield f"output {name}: description and value are required, nothing else"
        yield from (f"output {name}: {what}" for what in _unknown_steps(declared, ids))
    used = {
        name
        for text in expressions([*runs["steps"], action.get("outputs", {})])
        for name in re.findall(r"\binputs\.([\w-]+)", text)
    }
    yield from (f"inputs.{name}: not declared" for name in sorted(used - set(inputs)))
    yield from (f"input {name}: not used" for name in sorted(set(inputs) - used))


def _of_input(name: str, declared: Mapping[str, Any]) -> Iterator[str]:
    if not _ID.fullmatch(name):
        yield f"input {name}: no name of an input"
    if not isinstance(declared.get("description"), str):
        yield f"input {name}: description: required, a text"
    if wrong := set(declared) - _INPUT:
        yield f"input {name}: unknown keys {sorted(wrong)}"
    if not isinstance(declared.get("default", ""), str):
        yield f"input {name}: default: a text, or YAML makes a number or a truth value of it"
    if declared.get("required") is True and "default" in declared:
        yield f"input {name}: required, and has a default"
    if declared.get("required") is not True and "default" not in declared:
        yield f"input {name}: neither required nor has a default"


def _of_step(step: Mapping[str, Any], ids: set[str]) -> Iterator[str]:
    if wrong := set(step) - _STEP:
        yield f"unknown keys {sorted(wrong)}"
    if ("run" in step) == ("uses" in step):
        yield "either run or uses"
    if "run" in step:
        if "shell" not in step:
            yield "run needs a shell"
        if "with" in step:
            yield "with belongs to uses"
        if "${{" in step["run"]:
            yield "an expression within run becomes text of a command: use env"
    elif {"shell", "working-directory"} & set(step):
        yield "shell and working-directory belong to run"
    if "uses" in step and not _PINNED.fullmatch(step["uses"]):
        yield f"{step['uses']}: not pinned to a commit"
    yield from _unknown_steps(step, ids)


def _unknown_steps(node: Any, ids: set[str]) -> Iterator[str]:
    for text in expressions(node):
        for name in re.findall(r"\bsteps\.([\w-]+)", text):
            if name not in ids:
                yield f"steps.{name}: no earlier step has this id"

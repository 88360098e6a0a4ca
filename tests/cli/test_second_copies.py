"""The command line has no copy of a name or a limit that another room declares."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

import softsgx.cli
from softsgx.explore.plan import STRATEGIES
from softsgx.image.layout import ThreadLayout
from softsgx.image.sigstruct import SignOptions
from softsgx.lab.compare import N_MAX
from softsgx.lab.designs import DESIGNS
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.prices import PROFILES
from softsgx.lab.runtimes import RUNTIMES
from softsgx.lab.workloads import WORKLOADS
from softsgx.linux.version import VERSIONS
from softsgx.runner.options import CPUID_CHOICES, ENGINES, Options
from softsgx.system.runtimes import ORDERS
from softsgx.system.scenarios.names import KINDS
from tests.cli.tables import TABLES

CLI = Path(softsgx.cli.__file__).parent
NAMES = {
    *(*STRATEGIES, *DESIGNS, *FAILURES, *PROFILES, *RUNTIMES, *WORKLOADS, *VERSIONS, *ENGINES),
    *(*CPUID_CHOICES, *ORDERS, *KINDS),
}
OTHER_MEANING = {
    "jobs.py": {"random"},
    "modes.py": {"default"},
    "explore/finished.py": {"states"},
}
"""Of PYTHONHASHSEED, a parameter of argparse, and a number in a report."""


def literals(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda p: str(p.relative_to(CLI)))
def test_no_name_of_another_room_is_written_out(path: Path) -> None:
    """Strategies, designs, failures, prices, runtimes, workloads, kernels, engines, scenarios."""
    found = set(literals(ast.parse(path.read_text(encoding="utf-8"))))
    assert found & NAMES == OTHER_MEANING.get(str(path.relative_to(CLI)), set())


def test_a_name_that_is_written_out_would_be_seen() -> None:
    assert {"dfs", "gramine"} <= NAMES
    assert set(literals(ast.parse("if a == 'dfs': pass"))) & NAMES


@pytest.mark.parametrize(
    ("command", "declared"),
    [
        ("run", vars(Options())),
        ("sign", {name: getattr(SignOptions(), name) for name in SignOptions.__slots__}),
        ("measure", {name: getattr(ThreadLayout(), name) for name in ThreadLayout.__slots__}),
    ],
)
def test_the_help_has_the_declared_default(command: str, declared: dict[str, object]) -> None:
    compared = 0
    for option in TABLES[command].options.values():
        default = declared.get(option.key)
        if isinstance(default, bool) or not isinstance(default, int | str) or default == "":
            continue
        shown = f"{default:#x}" if option.default_text.startswith("0x") else str(default)
        assert option.default_text.split(",")[0] == shown, option.name
        compared += 1
    assert compared > 3


def test_the_limit_of_processors_is_that_of_the_comparison() -> None:
    assert f"1 to {N_MAX}" in TABLES["compare"].options["--n"].help


def test_of_several_modes_each_is_a_file() -> None:
    for command, table in TABLES.items():
        modules = [mode.module for mode in table.modes]
        assert len(set(modules)) == len(modules), command
        if len(modules) > 1:
            home = f"{CLI.parent.name}.cli.{command}."
            assert all(module.startswith(home) for module in modules), command

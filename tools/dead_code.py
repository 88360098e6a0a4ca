"""Names that nothing uses: `make lint`, python -m tools.dead_code. Exit code 1: there are some.

vulture finds them: a name that is defined in src, tests, tools, bench or examples and that stands
nowhere else. What it cannot see is in ALLOWED, with the reason; a row that allows nothing is an
error as well, so the table stays as small as it can be. Fields of a `Structure` need no row: they
say where bytes are, and offsets are read by name. A name in `__all__` counts as used for vulture,
so names are looked for here that a module exports and no other file imports.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
PLACES: Final = ("src", "tests", "tools", "bench", "examples")
# Decorators that hand a function to what calls it.
DECORATORS: Final = (
    "@pytest.fixture*",
    "@rule*",
    "@row*",
    "@initialize*",
    "@invariant*",
    "@stage*",
)


class Allowed(NamedTuple):
    """Names (a regular expression) in files (a pattern) that something else uses."""

    files: str
    names: str
    reason: str


ALLOWED: Final = (
    Allowed("src/softsgx/*__init__.py", "__dir__|__getattr__", "Python calls it"),
    Allowed("src/softsgx_pytest.py", r"pytest_\w+", "pytest calls its hooks by name"),
    Allowed("tools/reach_plugin.py", r"pytest_\w+|module_path", "pytest calls its hooks by name"),
    Allowed("tests/*.py", "pytest_plugins", "pytest reads it"),
    Allowed("tests/property/*.py", "teardown", "hypothesis calls it"),
    Allowed("tests/explore/test_watch.py", r"handle_\w+", "html.parser calls it"),
    Allowed("src/softsgx/cli/main.py", "_print_message", "argparse calls it"),
    Allowed("src/softsgx/cli/modes.py", "option_string", "argparse passes it by name"),
    Allowed("src/softsgx/cli/cluster.py", "dask_setup", "a Dask worker calls it by name"),
    Allowed("src/softsgx/cpu/leaf/*.py", r"e\w+", "cpu/dispatch.py finds a leaf by its name"),
    Allowed("src/softsgx/cpu/part.py", "everifyreport2|eupdatesvn", "read by name: extensions()"),
    Allowed("src/softsgx/spec/status.py", r"SGX_\w+", "the manual's table of codes is complete"),
    Allowed("src/softsgx/spec/msr.py", r"RFLAGS_\w+", "the flags of the manual are complete"),
    Allowed("src/softsgx/runner/emulator/control.py", r"RE\w+|pointers", "hook.s reads it"),
    Allowed("src/softsgx/runner/emulator/*.py", "unwatched|pauses|resting", "hook.s reads it"),
    Allowed(
        "src/softsgx/runner/inserted/systrap_layout.py", r"[A-Z0-9_]+", "systrap.c's header has all"
    ),
    Allowed(
        "src/softsgx/runner/host/nr.py",
        "[A-Z0-9_]+",
        "call_filters.py reads numbers by name",
    ),
    Allowed("src/softsgx/runner/host/robust.py", "futex_offset", "the kernel reads it"),
    Allowed("src/softsgx/runner/host/ptrace.py", "[D-G]S", "an index of user_regs_struct"),
    Allowed("examples/driver_patch/*.py", r"Protect\w+", "softsgx explore finds scenarios"),
    Allowed(
        "examples/explored/*.py", r"AcceptTwice|\w+Repaired", "softsgx explore finds scenarios"
    ),
    Allowed("tests/property/*.py", r"\w+", "a move of a state machine, drawn by its name"),
    Allowed("tests/explained/machines.py", r"\w+", "a move of a state machine, drawn by its name"),
    Allowed("tests/spec/test_structure_class.py", "Bad", "refused when it is declared"),
    Allowed("tests/runner/inserted/harness.py", "addr|run_address", "compared as a whole"),
)
_FIELD: Final = re.compile(r" +\w+: (int|bytes) = (u8|u16|u32|u64|raw)\(")
_FOUND: Final = re.compile(r"(?P<path>.*?):(?P<line>\d+): (?P<what>unused \w+) '(?P<name>\w+)'")


def unused() -> list[str]:
    """The findings of vulture, one a line.

    Not unreachable code: a generator that yields nothing has a `yield` that is none.
    """
    command = [sys.executable, "-m", "vulture", *PLACES, "--sort-by-size"]
    command += ["--ignore-decorators", ",".join(DECORATORS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"softsgx: lint: vulture: {done.stderr.strip()}")
    found = done.stdout.splitlines()
    return [line for line in found if "unreachable code" not in line and not _is_field(line)]


def _is_field(line: str) -> bool:
    found = _FOUND.match(line)
    if not found:
        return False
    text = (ROOT / found["path"]).read_text(encoding="utf-8").splitlines()
    return bool(_FIELD.match(text[int(found["line"]) - 1]))


def complaints(findings: Iterable[str], allowed: Iterable[Allowed] = ALLOWED) -> Iterator[str]:
    """What is unused and not allowed, and what is allowed and not there."""
    needed = dict.fromkeys(allowed, False)
    for line in findings:
        found = _FOUND.match(line)
        row = None
        if found:
            row = next((a for a in needed if _covers(a, found["path"], found["name"])), None)
        if row is None:
            yield line
        else:
            needed[row] = True
    for row, used in needed.items():
        if not used:
            yield f"tools/dead_code.py: nothing in {row.files} needs {row.names!r}"


def _covers(row: Allowed, path: str, name: str) -> bool:
    return fnmatch(path, row.files) and bool(re.fullmatch(row.names, name))


def exports(texts: Mapping[str, str]) -> Iterator[str]:
    """Names in the `__all__` of a module, not of a package, that no other file imports."""
    exported = {}
    users: dict[str, set[str]] = {}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    users.setdefault(f"{node.module}.{alias.name}", set()).add(path)
            elif isinstance(node, ast.Attribute):
                users.setdefault(node.attr, set()).add(path)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                if not path.endswith("__init__.py"):
                    exported[path] = node.lineno, ast.literal_eval(node.value)
    for path, (line, names) in exported.items():
        for name in names:
            if not (users.get(f"{_module(path)}.{name}") or users.get(name, set()) - {path}):
                yield f"{path}:{line}: no file imports {name!r}, which __all__ exports"


def _module(path: str) -> str:
    return path.removeprefix("src/").removesuffix(".py").replace("/", ".")


def texts() -> dict[str, str]:
    """The Python files, by their paths."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for place in PLACES
        for path in sorted((ROOT / place).rglob("*.py"))
    }


def main() -> int:
    """Print them."""
    found = [*complaints(unused()), *exports(texts())]
    for line in found:
        print(f"softsgx: lint: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

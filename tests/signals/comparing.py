"""The programs of this directory without softsgx and under it: what each case printed.

Each program is a table of cases (cases.h), which print what they see. Nobody wrote down what is
right: the kernel of the machine says it, when the program runs by itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.patience import LIMIT_S
from tests.runner.programs import ENGINES, Program, Workshop

HERE: Final = Path(__file__).parent
SUPERVISORS: Final = ("ptrace", "systrap")
# In a process that has no enclave; in one that has entered one before, with either engine.
MODES: Final = ("plain", *ENGINES)
# The last line of a case, unless the program itself was lost with it.
_LAST: Final = ("ends: ", "hangs")

Cases = dict[str, tuple[str, ...]]


class Known(NamedTuple):
    """A case that is not as on Linux."""

    supervisor: str
    case: str
    why: str
    modes: tuple[str, ...] = MODES
    always: bool = True
    """It must be wrong; else it may be, and is not run: some of these wait until they are ended."""


def names() -> list[str]:
    """The programs, in the order of their names."""
    return sorted(path.stem for path in HERE.glob("*.c") if "CASES_MAIN" in path.read_text("utf-8"))


def program(name: str) -> Program:
    """A program of this directory, with the enclave of most tests."""
    return Program(
        source=HERE / f"{name}.c", enclave="ops", words=(("threads", 3),), cc=("-mno-red-zone",)
    )


@cache
def help_text() -> str:
    """What `softsgx run --help` says: an option that is not there yet cannot be tried."""
    command = [sys.executable, "-m", "softsgx", "run", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def there(supervisor: str) -> bool:
    """Whether `softsgx run` has this supervisor."""
    return supervisor == "ptrace" or ("--supervisor" in help_text() and supervisor in help_text())


def supervisor_options(supervisor: str) -> list[str]:
    """The option that selects it; the first one was alone once, without a name."""
    return ["--supervisor", supervisor] if "--supervisor" in help_text() else []


def natively(workshop: Workshop, name: str) -> Cases:
    """What the cases of a program print on the kernel of this machine."""
    return _until_all([workshop.command(program(name))[0]])


def supervised(
    workshop: Workshop, name: str, supervisor: str, mode: str, without: Collection[str] = ()
) -> Cases:
    """The same under softsgx, except for the cases `without`."""
    host, *files = workshop.command(program(name))
    engine = ["--engine", mode] if mode in ENGINES else []
    enclave = ["--enclave", *files[:2]] if mode in ENGINES else []
    softsgx = [sys.executable, "-m", "softsgx", "run", *supervisor_options(supervisor), *engine]
    return _until_all([*softsgx, "--", host, *enclave], host, without)


def _until_all(command: Sequence[str], host: str = "", without: Collection[str] = ()) -> Cases:
    """Every case; those after one with which the program was lost in another run."""
    listed = _run([host or command[0], "--list"])[0].split()
    left = [case for case in listed if case not in without]
    found: Cases = {}
    while left:
        said, code = _run([*command, *left])
        new = _by_case(said)
        if not new:
            return found | dict.fromkeys(left, (f"the program ends with {code}: {said}",))
        last = list(new)[-1]
        if not new[last][-1].startswith(_LAST):
            new[last] += (f"the program ends with {code}",)
        found |= new
        left = [case for case in left if case not in found]
    return found


def _run(command: Sequence[str]) -> tuple[str, int]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    said = done.stderr.splitlines()
    return done.stdout + "".join(f"stderr: {line}\n" for line in said), done.returncode


def _by_case(said: str) -> Cases:
    """The lines of each case, without its name."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        case, _, text = line.partition(": ")
        found.setdefault(case, []).append(text)
    found.pop("stderr", None)
    return {case: tuple(lines) for case, lines in found.items()}

"""Sessions of tests/runner/fuzz_program.c under supervision, whose every refusal is judged.

    python -m tests.explained.programs ENCLAVE... --seed 1 --operations 3000 --engine native

One program in this process's supervisor. In addition to what the judge listens to, each errno that
a call about an enclave returns must have been explained since the last return. Prints one line of
JSON: what was met, and the findings.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from softsgx.runner.cpuid.cpuid import CpuidPolicy
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.inherited import inherited
from softsgx.runner.options import ENGINES, Options
from softsgx.runner.process import stops
from softsgx.runner.process.world import World
from softsgx.runner.session.session import part_of
from softsgx.runner.supervisor.engines import hardware
from softsgx.runner.supervisor.loading import Loader
from softsgx.runner.supervisor.supervisor import Supervisor
from tests.explained.judge import Finding, Judge
from tests.patience import LIMIT_S
from tests.runner.fuzz import build

OPERATIONS: Final = 3000
# Calls whose answers concern enclaves: not those about time, nor stand-ins for other calls.
_ABOUT: Final = {
    number: name.lower()
    for name, number in vars(nr).items()
    if name.isupper() and not name.startswith(("TIMER", "CLOCK", "GETPID", "PAUSE"))
}


class Setting(NamedTuple):
    """How a program is run."""

    engine: str
    linux: str
    sgx1: bool

    def __str__(self) -> str:
        return f"{self.engine}, {self.linux}{', sgx1' * self.sgx1}"


SETTINGS: Final = (
    *(Setting("unicorn", "6.12", False), Setting("native", "6.12", False)),
    *(Setting("unicorn", "6.1", False), Setting("unicorn", "v2", False)),
    *(Setting("unicorn", "6.12", True), Setting("native", "6.1", False)),
)


def judge_answers(judge: Judge) -> None:
    """Judge every answer to a call from now on."""
    answer = stops.answer

    def judged(t: Any, regs: list[int], result: int) -> None:
        name = _ABOUT.get(regs[p.ORIG_RAX])
        if name is not None:
            judge.result(name, result)
        answer(t, regs, result)

    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "answer", None) is answer:
            module.answer = judged  # type: ignore[attr-defined]


def run(command: list[str], setting: Setting) -> Judge:
    """One program from its start to its end."""
    asked = Options(engine=setting.engine, linux=setting.linux, sgx1=setting.sgx1, epc="2M")
    part, readings = part_of(asked)
    kinds = hardware(setting.engine)
    world = World(kinds, epc=asked.epc, linux=asked.linux, part=part, readings=readings, seed=0)
    judge = Judge(world.machine, instructions=True)
    judge_answers(judge)
    engine: Any = setting.engine
    policy = CpuidPolicy(part, world.machine.processor.epc.cpuid_sections(), engine, None)
    supervisor = Supervisor(world, Loader(policy), setting.engine)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.start(command[0], command, inherited())
    try:
        supervisor.run()
    except BaseException:
        supervisor.kill()
        raise
    return judge


def in_a_process(
    files: list[str], seed: int, operations: int, setting: Setting
) -> tuple[Counter[str], list[Finding]]:
    """The same in a process of its own, which may crash."""
    options = ["--seed", str(seed), "--operations", str(operations)]
    options += ["--engine", setting.engine, "--linux", setting.linux]
    command = [sys.executable, "-m", "tests.explained.programs", *files, *options]
    done = subprocess.run(
        [*command, *["--sgx1"] * setting.sgx1],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return Counter(), [Finding("the supervisor", f"died: {done.stderr[-300:]}", "")]
    said = json.loads(lines[-1])
    return Counter(said["met"]), [Finding(*finding) for finding in said["findings"]]


def settings(count: int) -> Iterator[Setting]:
    """That many, in turn."""
    for number in range(count):
        yield SETTINGS[number % len(SETTINGS)]


def main() -> int:
    """The command: always 0, unless the supervisor fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="the program, its enclave, its SIGSTRUCT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--engine", default="unicorn", choices=ENGINES)
    parser.add_argument("--linux", default="6.12")
    parser.add_argument("--sgx1", action="store_true")
    asked = parser.parse_args()
    command = [*asked.files, str(asked.seed), str(asked.operations)]
    judge = run(command, Setting(asked.engine, asked.linux, asked.sgx1))
    kinds: dict[tuple[str, str], Finding] = {}
    for finding in judge.findings:
        kinds.setdefault(finding.kind, finding)
    print(json.dumps({"met": judge.counts, "findings": [*kinds.values()]}))
    return 0


def built(directory: Path) -> list[str]:
    """The program, its enclave and its SIGSTRUCT."""
    return build(directory)


if __name__ == "__main__":
    sys.exit(main())

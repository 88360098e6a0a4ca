"""A storm of signals over a program with threads in an enclave: is one lost or doubled?

    python -m tests.signals.storm --seconds 3600

storm.c runs under `softsgx run`; two more of it, without softsgx, send numbered signals of real
time, standard ones to its threads, and stop and continue it. Verified: that each numbered signal
came once, that the enclave counted each call and its registers stayed, that children killed while
they were inside ended so. Not verified: standard signals, of which the kernel merges those that
are pending.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.patience import LIMIT_S
from tests.runner.programs import ENGINES, Workshop
from tests.signals.comparing import SUPERVISORS, program, supervisor_options, there

_OUTSIDE: Final = 2


def storm(workshop: Workshop, supervisor: str, engine: str, seconds: int, seed: int) -> str:
    """One storm of so many seconds; what was wrong, or nothing."""
    host, *files = workshop.command(program("storm"))
    options = [*supervisor_options(supervisor), "--engine", engine]
    command = [sys.executable, "-m", "softsgx", "run", *options, "--", host, *files[:2]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        pid = first.rpartition(" ")[2].strip()
        sent = _sent(host, pid, seconds, seed) if pid.isdigit() else []
        said, errors = running.communicate(" ".join(sent) + "\n", timeout=seconds + LIMIT_S)
    _show(first + said)
    right = running.returncode == 0 and "storm: right" in said
    return "" if right else f"exit code {running.returncode}\n{first}{said}{errors}"


def _sent(host: str, pid: str, seconds: int, seed: int) -> list[str]:
    """How many numbered signals each sender outside has sent, at their end."""
    senders = [
        subprocess.Popen(
            [host, "--send", pid, str(number), str(seconds), str(seed + number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(_OUTSIDE)
    ]
    return [sender.communicate(timeout=seconds + LIMIT_S)[0].strip() for sender in senders]


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Every supervisor with every engine, in equal parts of the time."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--seconds", type=int, default=3600, help="of all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--supervisor", choices=SUPERVISORS, action="append")
    args = parser.parse_args()
    pairs = [
        (supervisor, engine)
        for supervisor in args.supervisor or filter(there, SUPERVISORS)
        for engine in args.engine or ENGINES
    ]
    wrong = 0
    with tempfile.TemporaryDirectory() as directory:
        workshop = Workshop(Path(directory))
        for supervisor, engine in pairs:
            seconds = max(1, args.seconds // len(pairs))
            _show(f"{supervisor}, {engine}, {seconds} s, seed {args.seed}\n")
            said = storm(workshop, supervisor, engine, seconds, args.seed)
            wrong += bool(said)
            _show(said)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

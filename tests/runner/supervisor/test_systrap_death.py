"""A supervisor that is killed takes the program with it, also as a zombie."""

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import LIMIT_S, until


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state in "XZ"


def test_a_descendant_dies_that_asks_a_dead_supervisor() -> None:
    """It is no child of the supervisor, and kill(pid, 0) still finds the zombie."""
    script = "(echo $BASHPID; while :; do (:); done) & wait"
    command = [sys.executable, "-m", "softsgx", "run", "--supervisor", "systrap", "--"]
    with subprocess.Popen(
        [*command, "bash", "-c", script], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        os.kill(run.pid, 9)
        until(lambda: _ended(pid), "the end of the program")
        assert run.wait(LIMIT_S) == -9

"""A program under `softsgx run`, for tests: its output, how it ended, what was counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_STATS: Final = re.compile(r'^(.*?)(\{"softsgx": "stats", .*\})$', re.MULTILINE)
_TAIL: Final = 4000  # characters of output that a report shows


class ProgramFailed(Exception):
    """It did not end as it was to; the text has its output and what the model explains."""


@dataclass(frozen=True)
class RunResult:
    """How a program ended.

    code          exit code, or 128 + the number of the signal that killed it
    out, err      standard output and error; softsgx's own lines are in `err`, without the counts
    leaves        how often each leaf was executed, by name: `leaves["EMODPR"]`
    refused       leaves refused, by leaf, how it ended, and rule: "EACCEPT SGX_PAGE_... EACCEPT.21"
    calls         calls of the driver and of memory management, by name; `failed` with their errno
    accesses      accesses refused, by rule; `faults` page faults, by outcome
    exits         EEXIT, and AEX by cause; `signals` by name and si_code
    injected      failures that were asked for, and happened, by site
    numbers       entries, resumed, fills, flushes (of the TLB), ipis, evicted, loaded (pages)
    explanations  why something was refused, as `--explain` prints it
    seconds       wall-clock time
    events        every event, as in a trace of JSON lines; empty unless `trace=True`
    """

    code: int
    out: str
    err: str
    leaves: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    accesses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    explanations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)


def run_program(
    command: Sequence[str | os.PathLike[str]],
    *,
    engine: str = "",
    linux: str = "",
    epc: str = "",
    supervisor: str = "",
    inject: str | Sequence[str] = (),
    options: Sequence[str] = (),
    trace: bool = False,
    trace_in: Path | None = None,
    code: int | None = 0,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
) -> RunResult:
    """Run a program to its end. ProgramFailed if it does not end with `code`, unless that is None.

    `engine` to `inject` and `options` are those of `softsgx run`; `timeout` is in seconds, and
    subprocess.TimeoutExpired is raised when they are over. `trace` keeps every event. ProgramFailed
    as well if a failure of `inject` did not happen.
    """
    asked = {"engine": engine, "linux": linux, "epc": epc, "supervisor": supervisor}
    words = [f"--{name}={value}" for name, value in asked.items() if value]
    words += [f"--inject={each}" for each in ([inject] if isinstance(inject, str) else inject)]
    with tempfile.TemporaryDirectory(dir=trace_in) as directory:
        file = Path(directory, "trace.jsonl")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "softsgx", "run", "--stats=json", "--explain"),
                *(*words, *options, *(["--trace", str(file)] if trace else [])),
                *("--", *(os.fspath(word) for word in command)),
            ],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
        events = _events(file) if trace and file.exists() else []
    result, in_vain = _result(done, events)
    if code is not None and result.code != code:
        raise ProgramFailed(_report(command, result, f"exit code {result.code}, to be {code}"))
    if in_vain:
        raise ProgramFailed(_report(command, result, f"--inject {'; '.join(in_vain)}"))
    return result


def _events(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [event for event in map(json.loads, lines) if "what" in event]


def _result(
    done: subprocess.CompletedProcess[str], events: list[dict[str, Any]]
) -> tuple[RunResult, list[str]]:
    """The result; and a sentence for each failure that was asked for and did not happen."""
    found = list(_STATS.finditer(done.stderr))
    if not found:  # softsgx could not start the program
        return RunResult(done.returncode, done.stdout, done.stderr, events=events), []
    said = found[-1]
    counts = json.loads(said[2])
    del counts["softsgx"]
    explanations, seconds = counts.pop("explanations"), counts.pop("seconds")
    in_vain = counts.pop("in_vain", [])
    err = done.stderr[: said.start(2)] + done.stderr[said.end() :].removeprefix("\n")
    result = RunResult(
        done.returncode,
        done.stdout,
        err,
        **{name: Counter(each) for name, each in counts.items()},
        explanations=explanations,
        seconds=seconds,
        events=events,
    )
    return result, in_vain


def _report(command: Sequence[object], result: RunResult, why: str) -> str:
    lines = [f"{command[0]}: {why}"]
    lines += [text.rstrip("\n") for text in result.explanations]
    for name, text in (("standard error", result.err), ("standard output", result.out)):
        if text.strip():
            lines.append(f"{name}:\n{text[-_TAIL:].rstrip()}")
    return "\n".join(lines)

"""The step of action.yml that runs softsgx: inputs from the environment, a summary, outputs.

    INPUT_COMMAND=run INPUT_PROGRAM=./app INPUT_REPORTS=reports python tools/action.py

Ends as the command does; with 2, and one line, if an input is wrong. Standard library only: it runs
with the Python into which the action has installed the package.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COMMANDS: Final = ("run", "explore")
_SOFTSGX: Final = (sys.executable, "-m", "softsgx")
_NOT_STARTED: Final = 125  # of `softsgx run`: the machine lacks something, or a bad option
_CASES_MAX: Final = 50
_TEXT_CHARS_MAX: Final = 20_000  # of one case; a summary may have 1 MiB
_STATS: Final = b'{"softsgx": "stats"'


class BadInput(Exception):
    """An input of the action that is wrong; the text says which and why."""


@dataclass(frozen=True)
class Inputs:
    """What the workflow asks for."""

    command: str
    program: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    reports: Path

    @property
    def junit(self) -> Path:
        """The report of every command."""
        return self.reports / "softsgx.xml"

    @property
    def sarif(self) -> Path:
        """The report of `explore`."""
        return self.reports / "softsgx.sarif"

    def words(self) -> list[str]:
        """The command line."""
        own = ["--junit", str(self.junit)]
        if self.command == "run":
            own = ["--explain", "--stats=json", *own]
            return [*_SOFTSGX, "run", *own, *self.options, "--", self.program, *self.arguments]
        target = [self.program] if self.program else []
        own += ["--sarif", str(self.sarif)]
        return [*_SOFTSGX, "explore", *target, *own, *self.options]


def read(environ: Mapping[str, str]) -> Inputs:
    """The inputs; BadInput if they make no sense."""
    given = {
        name: environ.get(f"INPUT_{name.upper()}", "").strip()
        for name in ("command", "program", "arguments", "options", "reports")
    }
    if given["command"] not in COMMANDS:
        raise BadInput(f"command: {given['command'] or 'nothing'} is none of {', '.join(COMMANDS)}")
    if given["command"] == "run" and not given["program"]:
        raise BadInput("program: nothing to run")
    if given["command"] == "explore" and given["arguments"]:
        raise BadInput("arguments: only with command: run; explore takes options")
    if not given["reports"] or "\n" in given["reports"]:
        raise BadInput("reports: not the name of one directory")
    split = {}
    for name in ("arguments", "options"):
        try:
            split[name] = tuple(shlex.split(given[name]))
        except ValueError as error:
            raise BadInput(f"{name}: {given[name]}: {error}") from None
    if "--" in split["options"]:
        raise BadInput("options: -- ends the options: the program has inputs of its own")
    return Inputs(
        given["command"], given["program"], split["arguments"], split["options"],
        Path(given["reports"]).absolute(),
    )  # fmt: skip


def execute(words: Sequence[str]) -> tuple[int, str, dict[str, Any]]:
    """Run it with its output in the log: exit code, last line on stderr, and the counts."""
    stats: dict[str, Any] = {}
    last = ""
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(_STATS):
                stats = json.loads(line)
                continue
            last = line.decode(errors="replace").strip() or last
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
    code = process.returncode
    return code if code >= 0 else 128 - code, last, stats


def fenced(text: str) -> list[str]:
    """A block of text that nothing within can end."""
    cut = text[:_TEXT_CHARS_MAX]
    if len(text) > len(cut):
        cut += f"\n... {len(text) - len(cut)} characters more: see the JUnit report"
    fence = "`" * max(3, 1 + max(map(len, _runs_of_backticks(cut)), default=0))
    return [f"{fence}text", cut.rstrip(), fence]


def _runs_of_backticks(text: str) -> Iterator[str]:
    return (run for run in "".join(c if c == "`" else " " for c in text).split())


def cell(text: str) -> str:
    """Text within a row of a table, as it is."""
    line = " ".join(text.split())
    for character in "\\`*_<>|[]":
        line = line.replace(character, f"\\{character}")
    return line


def summary(inputs: Inputs, code: int, last: str, stats: Mapping[str, Any]) -> str:
    """The job summary in Markdown."""
    lines = [f"### softsgx {inputs.command}: {'passed' if code == 0 else f'exit code {code}'}", ""]
    cases = _cases(inputs.junit)
    if code and last:
        lines += ["The last line on standard error:", "", *fenced(last), ""]
    if cases:
        lines += ["| test | result | seconds |", "| --- | --- | ---: |"]
        for name, message, seconds, _ in cases[:_CASES_MAX]:
            lines.append(f"| {cell(name)} | {cell(message) or 'passed'} | {seconds} |")
        if len(cases) > _CASES_MAX:
            lines.append(f"| {len(cases) - _CASES_MAX} more in the JUnit report | | |")
        lines.append("")
    if stats:
        lines += list(_counts(stats))
    for name, message, _, text in cases[:_CASES_MAX]:
        if message and text.strip():
            title = f"<summary>{_html(name)}: {_html(message)}</summary>"
            lines += ["<details>", title, "", *fenced(text), "", "</details>", ""]
    return "\n".join(lines)


def _html(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cases(junit: Path) -> list[tuple[str, str, str, str]]:
    """Name, what went wrong ("" if nothing did), seconds and text of each test case."""
    try:
        root = ET.parse(junit).getroot()
    except (OSError, ET.ParseError):
        return []
    found = []
    for case in root.iter("testcase"):
        message, text = "", ""
        for kind in ("failure", "error", "skipped"):
            if (wrong := case.find(kind)) is not None:
                message = ": ".join(filter(None, (wrong.get("type"), wrong.get("message")))) or kind
                text = wrong.text or ""
        found.append((case.get("name", ""), message, case.get("time", ""), text))
    return found


def _counts(stats: Mapping[str, Any]) -> Iterator[str]:
    """What happened, as far as something did."""
    rows = [
        (name, ", ".join(f"{cell(what)} {n}" for what, n in stats[name].items() if n))
        for name in ("leaves", "refused", "failed", "faults", "exits", "signals")
    ]
    if any(counts for _, counts in rows):
        yield from ("| | |", "| --- | --- |")
        yield from (f"| {name} | {counts} |" for name, counts in rows if counts)
        yield ""


def _append(environ: Mapping[str, str], name: str, text: str) -> None:
    """To the file that the service names; outside a service to nowhere."""
    if path := environ.get(name):
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def main(environ: Mapping[str, str]) -> int:
    """Run the command; its exit code."""
    try:
        inputs = read(environ)
        inputs.reports.mkdir(parents=True, exist_ok=True)
        for report in (inputs.junit, inputs.sarif):
            report.unlink(missing_ok=True)  # of an earlier use, which must not be uploaded again
    except BadInput as error:
        print(f"::error::softsgx: action: {error}")
        return 2
    except OSError as error:
        print(f"::error::softsgx: action: reports: {error.filename}: {error.strerror}")
        return 2
    words = inputs.words()
    print(f"softsgx {shlex.join(words[len(_SOFTSGX) :])}", flush=True)
    code, last, stats = execute(words)
    text = summary(inputs, code, last, stats)
    if inputs.command == "run" and code == _NOT_STARTED:
        done = subprocess.run([*_SOFTSGX, "doctor"], capture_output=True, text=True, check=False)
        text += "\n".join(["", "softsgx doctor:", "", *fenced(done.stdout), ""])
    _append(environ, "GITHUB_STEP_SUMMARY", text)
    made = {"junit": inputs.junit, "sarif": inputs.sarif}
    outputs = {name: str(path) if path.exists() else "" for name, path in made.items()}
    outputs["exit-code"] = str(code)
    _append(environ, "GITHUB_OUTPUT", "".join(f"{k}={v}\n" for k, v in outputs.items()))
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ))

"""Reports for machines: JUnit XML, and SARIF 2.1.0."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from softsgx import __version__
from softsgx.explore import Failure

if TYPE_CHECKING:
    from softsgx.cli.explore.finished import Finished


_NO_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


def junit(finished: Sequence[Finished]) -> str:
    """One test case a scenario; a finding is a failure, trouble with the scenario an error."""
    cases = []
    failures = errors = 0
    for done in finished:
        failure = done.outcome.failure
        case = f'<testcase classname="softsgx.explore" name={quoteattr(done.outcome.scenario)}'
        case += f' time="{done.seconds:.3f}"'
        if failure is None:
            cases.append(f"  {case}/>")
            continue
        failures, errors = failures + failure.finding, errors + (not failure.finding)
        tag = "failure" if failure.finding else "error"
        text = f"{failure.text}\n{failure.where}\nreplay: {done.command(failure)}"
        text = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
        cases.append(
            f"  {case}><{tag} type={quoteattr(failure.kind.value)} "
            f"message={quoteattr(failure.rule)}>{escape(text)}</{tag}></testcase>"
        )
    head = f'<testsuite name="softsgx explore" tests="{len(cases)}" '
    head += f'failures="{failures}" errors="{errors}">'
    lines = ['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>"]
    return "\n".join(lines) + "\n"


def sarif(finished: Sequence[Finished]) -> str:
    """One result a finding, at the file of its scenario.

    Trouble with a scenario is no result but a notification of the run (SARIF 2.1.0, 3.20.21), which
    then was not successful.
    """
    results: list[dict[str, Any]] = []
    trouble: list[dict[str, Any]] = []
    rules: dict[str, None] = {}
    for done in finished:
        failure = done.outcome.failure
        if failure is None:
            continue
        said = _said(done, failure)
        if failure.finding:
            rules[failure.rule] = None
            results.append({"ruleId": failure.rule, **said})
        else:
            trouble.append({"descriptor": {"id": failure.kind.value}, **said})
    driver = {
        "name": "softsgx explore",
        "version": __version__,
        "rules": [{"id": rule} for rule in rules],
    }
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "invocations": [
                    {"executionSuccessful": not trouble, "toolExecutionNotifications": trouble}
                ],
                "results": results,
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _said(done: Finished, failure: Failure) -> dict[str, Any]:
    """What a result and a notification have in common."""
    file, _, line = failure.where.rpartition(":")
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(done.scenario.file)}}
    if line.isdecimal() and done.scenario.file.endswith(file):
        location["region"] = {"startLine": int(line)}
    text = f"{failure.text} ({done.outcome.scenario}). Replay: {done.command(failure)}"
    return {
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }


def _uri(file: str) -> str:
    """Relative to the working directory if the file is below it, as code hosts want it."""
    path = Path(file).resolve()
    if path.is_relative_to(Path.cwd()):
        return quote(path.relative_to(Path.cwd()).as_posix())
    return path.as_uri()

"""SARIF 2.1.0: one result a finding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from softsgx import __version__
from softsgx.cli.explore.finished import Finished
from softsgx.explore import Failure


def sarif(finished: Sequence[Finished]) -> str:
    """The document; a result is at the file of its scenario.

    A broken scenario is a notification of the run (SARIF 2.1.0, 3.20.21) instead of a result, and
    the run is then marked as not successful.
    """
    results: list[dict[str, Any]] = []
    notifications: list[dict[str, Any]] = []
    rules: dict[str, None] = {}
    for done in finished:
        failure = done.outcome.failure
        if failure is None:
            continue
        common = _common(done, failure)
        if failure.finding:
            rules[failure.rule] = None
            results.append({"ruleId": failure.rule, **common})
        else:
            notifications.append({"descriptor": {"id": failure.kind.value}, **common})
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
                    {
                        "executionSuccessful": not notifications,
                        "toolExecutionNotifications": notifications,
                    }
                ],
                "results": results,
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _common(done: Finished, failure: Failure) -> dict[str, Any]:
    """The fields that a result and a notification share."""
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
    """The URI of a file, relative to the working directory if the file is below that."""
    path = Path(file).resolve()
    if path.is_relative_to(Path.cwd()):
        return quote(path.relative_to(Path.cwd()).as_posix())
    return path.as_uri()

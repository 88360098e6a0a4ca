"""SARIF 2.1.0: one result a finding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import softsgx
from softsgx import __version__
from softsgx.cli.explore.finished import Finished
from softsgx.explore import Failure

HOME: Final = "https://github.com/softsgx/softsgx/blob/main"
FINGERPRINT: Final = "softsgxFinding/v1"
PACKAGE: Final = "SOFTSGX"
"""The directory that holds the package: a shipped scenario has the same place everywhere."""
_ROOT: Final = Path(softsgx.__file__).resolve().parent.parent


def sarif(finished: Sequence[Finished]) -> str:
    """The document; a result is at the file of its scenario.

    A broken scenario is a notification of the run (SARIF 2.1.0, 3.20.21) instead of a result, and
    the run is then marked as not successful.
    """
    results: list[dict[str, Any]] = []
    notifications: list[dict[str, Any]] = []
    rules: dict[str, str] = {}
    for done in finished:
        failure = done.outcome.failure
        if failure is None:
            continue
        common = _common(done, failure)
        if failure.finding:
            rules.setdefault(failure.rule, failure.kind.value)
            prints = {"partialFingerprints": {FINGERPRINT: _fingerprint(done, failure)}}
            results.append({"ruleId": failure.rule, **common, **prints})
        else:
            notifications.append({"descriptor": {"id": failure.kind.value}, **common})
    driver = {
        "name": "softsgx explore",
        "version": __version__,
        "informationUri": HOME,
        "rules": [_rule(rule, kind) for rule, kind in rules.items()],
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
                "originalUriBaseIds": {PACKAGE: {"uri": f"{_ROOT.as_uri()}/"}},
                "results": results,
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _rule(rule: str, kind: str) -> dict[str, Any]:
    """What a service shows of a rule beside its findings."""
    text = (
        f"{kind}: {rule}. A schedule of the tasks was found that leads to it. The message ends with"
        " the command that executes this schedule again, step by step."
    )
    return {
        "id": rule,
        "shortDescription": {"text": rule},
        "help": {
            "text": text,
            "markdown": f"{text} See [docs/explore.md]({HOME}/docs/explore.md).",
        },
    }


def _fingerprint(done: Finished, failure: Failure) -> str:
    """The same for a finding after lines have moved, or another schedule was found first."""
    where = failure.where.rpartition(":")[0]
    what = "\0".join((done.outcome.scenario, failure.kind.value, failure.rule, where))
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def _common(done: Finished, failure: Failure) -> dict[str, Any]:
    """The fields that a result and a notification share."""
    file, _, line = failure.where.rpartition(":")
    location: dict[str, Any] = {"artifactLocation": _place(done.scenario.file)}
    if line.isdecimal() and done.scenario.file.endswith(file):
        location["region"] = {"startLine": int(line)}
    text = f"{failure.text} ({done.outcome.scenario}). Replay: {done.command(failure)}"
    return {
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }


def _place(file: str) -> dict[str, str]:
    """Relative to the working directory, or to where the package is, if the file is there."""
    path = Path(file).resolve()
    if path.is_relative_to(Path.cwd()):
        return {"uri": quote(path.relative_to(Path.cwd()).as_posix())}
    if path.is_relative_to(_ROOT):
        return {"uri": quote(path.relative_to(_ROOT).as_posix()), "uriBaseId": PACKAGE}
    return {"uri": path.as_uri()}

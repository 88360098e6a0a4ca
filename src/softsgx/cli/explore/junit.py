"""JUnit XML: one test case a scenario."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from softsgx.cli.explore.finished import Finished

_NO_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot represent."""


def junit(finished: Sequence[Finished]) -> str:
    """The document; a finding is a failure, a broken scenario an error."""
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

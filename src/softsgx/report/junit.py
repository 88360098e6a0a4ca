"""JUnit XML, as GitLab, Jenkins and the like read it: suites of test cases.

There is no specification. The attributes and their order are those of the schema of Apache Ant's
JUnit task, which the services' own schemas extend: a suite has a timestamp without a zone, a host
name, its time and counts; properties come before the cases, output after them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr

_NO_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot represent."""


class Case(NamedTuple):
    """A test case; `outcome` is "", "failure" or "error", `seconds` what it took."""

    classname: str
    name: str
    seconds: float
    outcome: str = ""
    kind: str = ""
    message: str = ""
    text: str = ""


def junit(suite: str, cases: Sequence[Case], properties: Mapping[str, str], began: datetime) -> str:
    """The document. `began`: when the run began."""
    failures = sum(case.outcome == "failure" for case in cases)
    errors = sum(case.outcome == "error" for case in cases)
    at = began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" skipped="0"'
    took = f'time="{sum(case.seconds for case in cases):.3f}"'
    name = f"name={_attribute(suite)}"
    host = f"hostname={_attribute(socket.gethostname() or 'localhost')}"
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f"<testsuites {name} {counts} {took}>",
        f'<testsuite {name} {counts} {took} timestamp="{at}" {host}>',
        "  <properties>",
        *(
            f"    <property name={_attribute(key)} value={_attribute(value)}/>"
            for key, value in properties.items()
        ),
        "  </properties>",
        *(f"  {_case(case)}" for case in cases),
        "</testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _case(case: Case) -> str:
    head = f"<testcase classname={_attribute(case.classname)} name={_attribute(case.name)}"
    head += f' time="{case.seconds:.3f}"'
    if not case.outcome:
        return f"{head}/>"
    what = f"type={_attribute(case.kind)} message={_attribute(case.message)}"
    text = escape(_clean(case.text))
    return f"{head}><{case.outcome} {what}>{text}</{case.outcome}></testcase>"


def _attribute(text: str) -> str:
    """A quoted value: line ends stay what they are."""
    return quoteattr(_clean(text), {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

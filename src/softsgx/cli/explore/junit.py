"""JUnit XML: one test case a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from softsgx import __version__
from softsgx.cli.explore.finished import Finished
from softsgx.report import junit as report
from softsgx.report.junit import Case


def junit(finished: Sequence[Finished]) -> str:
    """The document; a finding is a failure, a broken scenario an error."""
    cases = [_case(done) for done in finished]
    began = datetime.now(UTC) - timedelta(seconds=sum(case.seconds for case in cases))
    return report.junit("softsgx explore", cases, {"softsgx": __version__}, began)


def _case(done: Finished) -> Case:
    failure = done.outcome.failure
    case = Case("softsgx.explore", done.outcome.scenario, done.seconds)
    if failure is None:
        return case
    return case._replace(
        outcome="failure" if failure.finding else "error",
        kind=failure.kind.value,
        message=failure.rule,
        text=f"{failure.text}\n{failure.where}\nreplay: {done.command(failure)}",
    )

"""The judge itself: what it must object to, by explainers that are made to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from softsgx.report.explanation import Explanation
from softsgx.spec.epcm import R
from softsgx.system import Machine
from softsgx.system.explain.explainer import Explainer
from tests.explained.judge import Judge
from tests.linux.world import World, world

Change = Callable[[Explanation], Explanation]


def refused(w: World) -> None:
    """A call, a leaf and an access that are refused."""
    assert w.protect(w.enclave.base + 1, R) < 0
    w.call(lambda t: t.accept_new(w.enclave.data[0]))
    w.fault(lambda t: t.fetch(w.enclave.data[0]))


def judged(monkeypatch: pytest.MonkeyPatch, change: Change | None) -> list[str]:
    """What the judge finds if every explanation is changed so; None drops it."""
    tell = Explainer._tell

    def told(self: Explainer, found: Explanation) -> None:
        if change is not None:
            tell(self, change(found))

    monkeypatch.setattr(Explainer, "_tell", told)
    machine = Machine(cpus=2, epc="1M")
    judge = Judge(machine)
    refused(world(machine, pages=1))
    assert len(judge.counts) == 3, judge.counts
    return sorted({finding.why for finding in judge.findings})


def test_there_is_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(monkeypatch, lambda found: found) == []


def test_silence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(monkeypatch, None) == ["not explained"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"rule": "ACCESS.05"}, "explained by ACCESS.05, refused by"),
        ({"rule_text": ""}, "no rule"),
        ({"rule_text": "as you like it"}, "other words than the rule's"),
        ({"headline": "something is wrong"}, "names no layer"),
        ({"headline": "refused by the driver"}, "the text does not say"),
        ({"where": "thread nobody"}, "a thread that does not exist"),
        ({"where": "event 99999999"}, "an event that was not yet"),
        ({"where": "at 0x12345678901234567"}, "a number of more than 64 bits"),
        ({"where": "page None"}, "garbage"),
        ({"advice": "to go on: "}, "garbage"),
        ({"where": "allowed as soon as this is not so: x"}, "no way out but the rule itself"),
    ],
)
def test_impossible_explanations_are_found(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], why: str
) -> None:
    found = judged(monkeypatch, lambda found: replace(found, **{"advice": "", **fields}))
    assert any(finding.startswith(why) for finding in found), found


def test_two_explanations_of_one_refusal_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = Explainer._tell
    monkeypatch.setattr(
        Explainer, "_tell", lambda self, found: (tell(self, found), tell(self, found))
    )
    machine = Machine(cpus=2, epc="1M")
    judge = Judge(machine)
    refused(world(machine, pages=1))
    assert {finding.why for finding in judge.findings} == {"an explanation of no refusal"}

"""`--inject`: which times fail, and that every place where the kernel can fail is a site."""

from __future__ import annotations

import re
from itertools import count, takewhile
from pathlib import Path

import pytest

from softsgx.events.kernel import FailureInjected
from softsgx.linux.failures import SITES, Failures
from softsgx.runner.session.inject import rule
from softsgx.sim import Log

SOURCE = Path(__file__).parents[2] / "src" / "softsgx"
# Only while the driver object starts, before a program does.
AT_START = {"kthread_run", "init_srcu_struct"}
# Under `run` the host's kernel has divided the area before the model does.
OF_THE_HOST = {"split_vma"}


@pytest.mark.parametrize(
    ("when", "times"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8]),
        (":when=3", [3]),
        (":when=3+", [3, 4, 5, 6, 7, 8]),
        (":when=2..4", [2, 3, 4]),
        (":when=2+3", [2, 5, 8]),
        (":when=1..6+2", [1, 3, 5]),
        (":when=7..7", [7]),
    ],
)
def test_which_times_fail(when: str, times: list[int]) -> None:
    asked = rule(f"EMODPR{when}")
    assert [n for n in takewhile(lambda n: n <= 8, count(1)) if asked.holds(n)] == times


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("EMODPT", "did you mean EMODPR"),
        ("nothing_like_it", "no such site"),
        ("EMODPR:", "is needed"),
        ("EMODPR:when=", "is needed"),
        ("EMODPR:when=x", "is needed"),
        ("EMODPR:error=ENOMEM", "is needed"),
        ("EMODPR:when=0", "counted from 1"),
        ("EMODPR:when=1+0", "counted from 1"),
        ("EMODPR:when=3..2", "counted from 1"),
        ("EMODPR:when=3..0", "counted from 1"),
        ("sgx_encl_get_backing", "try for ever"),
        ("sgx_encl_get_backing:when=2+", "try for ever"),
        ("sgx_encl_get_backing:when=2+3", "try for ever"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rule(text)


def test_each_site_is_counted_by_itself() -> None:
    log = Log()
    seen: list[object] = []
    log.subscribe_to({FailureInjected: seen.append})
    failures = Failures([rule("EMODPR:when=2"), rule("ETRACK:when=9"), rule("xa_insert")], log)
    assert [failures(site) for site in ("EMODPR", "ETRACK", "EMODPR", "EMODPR")] == [
        *(False, False, True, False)
    ]
    assert seen == [FailureInjected("EMODPR", 2)]
    assert failures.in_vain() == [
        "ETRACK:when=9: nothing failed: the site was reached once",
        "xa_insert: nothing failed: the site was reached never",
    ]


def test_every_place_that_can_fail_is_a_site() -> None:
    asked = {
        site
        for path in SOURCE.rglob("*.py")
        for site in re.findall(r"\.fail\(\"(\w+)\"\)", path.read_text(encoding="utf-8"))
    }
    assert asked - AT_START - OF_THE_HOST == set(SITES)

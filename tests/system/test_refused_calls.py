"""Each rule by which the kernel refuses: the explanation names it, and the way out is one.

`refused_rows` and `refused_area_rows` provoke them; what no row can provoke is listed with why.
"""

from __future__ import annotations

import pytest

from softsgx.linux.refusals import REFUSALS, function_of, leaf_of
from softsgx.spec.rules import RULES
from tests.system.refused_area_rows import AREA_ROWS
from tests.system.refused_rows import ROWS

ALL = {**ROWS, **AREA_ROWS}


@pytest.mark.parametrize("rule", ALL)
def test_a_refusal_names_its_rule_and_its_way_out_is_one(rule: str) -> None:
    machine, result, follow = ALL[rule]()
    assert -4096 < result < 0
    assert machine.explainer is not None
    found = machine.explainer.last
    assert found is not None
    leaf = leaf_of(rule)
    if leaf and found.rule in RULES:
        assert found.rule_text == f"{RULES[found.rule]} ({function_of(rule)})"
        assert f"; {leaf}: " in found.headline
    else:
        assert found.rule == rule
        assert found.rule_text == f"{REFUSALS[rule]} ({function_of(rule)})"
    text = machine.explain()
    assert " refused" in found.headline
    assert " to succeed: " in found.way
    assert not found.way.endswith(": ")
    assert "allowed as soon as" not in text
    assert follow() >= 0, text


# Nothing that a program or a test does to the model leads there.
UNREACHED = {
    "sgx_alloc_va_page.EPA": "EPA of a free page is never refused; see test_failures_build",
    "__sgx_encl_extend.EEXTEND": "of a page just added; see test_failures_build",
    "__sgx_encl_eldu.ELDU": "of what EWB wrote; see test_failures_run",
}


def test_every_rule_has_its_row() -> None:
    assert set(ALL) | set(UNREACHED) == set(REFUSALS), sorted(set(REFUSALS) - set(ALL))
    assert not set(ALL) & set(UNREACHED)

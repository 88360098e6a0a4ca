"""Every shipped scenario on every kernel in every order: exactly what is found."""

from __future__ import annotations

import pytest

from softsgx.explore import Plan, explore
from softsgx.linux.version import VERSIONS
from softsgx.system.scenarios.names import all_shipped
from softsgx.system.scenarios.scenario import MachineScenario

EXECUTIONS = 120

# K1 to K11, L1, L4, L7: docs/kernel-races.md. Each kernel has those of its time.
FOUND = {
    "FirstTouch": dict.fromkeys(VERSIONS, "spurious fault"),  # K1
    "RemoveTouch": dict.fromkeys(VERSIONS, "stale mapping"),  # K2
    "TcsTouch": dict.fromkeys(VERSIONS, "mapped while its type changes"),  # K3
    "SecsEviction": {"v2": "kernel bug"},  # K5
    "VaShortage": {"v2": "lock order"},  # K8
    "PcmdSharing": {"v2": "lost page"},  # K9
    "RestrictReport": dict.fromkeys(VERSIONS, "caller misinformed"),  # L4
    "RestrictRefused": {"v2": "spurious fault"},  # L1
    "TrimReuse": dict.fromkeys(VERSIONS, "spurious fault"),  # K2, seen by the page's owner
}

# With these fixed, nothing is found.
FIXED = {
    "FirstTouch": ("eaug_double_fault",),
    "RemoveTouch": ("remove_vs_fault", "lookup_before_removal"),
    "TcsTouch": ("modify_vs_fault",),
    "SecsEviction": ("eaug_without_secs",),
    "PcmdSharing": ("pcmd_truncated", "backing_without_lock"),
    "TrimReuse": ("eaug_double_fault", "remove_vs_fault", "lookup_before_removal"),
}


@pytest.mark.parametrize("scenario", all_shipped(), ids=lambda scenario: scenario.name)
def test_what_a_kernel_of_its_time_shows(scenario: MachineScenario) -> None:
    kind, linux = type(scenario).__name__, scenario.linux
    plan = Plan(executions=EXECUTIONS, minimise=False)
    failure = explore(scenario, plan).failure
    assert (failure and failure.rule) == FOUND.get(kind, {}).get(linux)
    if failure is not None and kind in FIXED:
        order = {"order": scenario.order} if hasattr(scenario, "order") else {}
        fixed = type(scenario)(linux, dict.fromkeys(FIXED[kind], False), **order)
        assert explore(fixed, plan).failure is None

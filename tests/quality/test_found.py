"""What exploring has found in the driver beyond the known races: docs/kernel-races.md, L8.

L7 is among the known races now.
"""

from __future__ import annotations

from softsgx.explore import Plan, explore
from softsgx.linux.version import NO_RACES
from softsgx.system.scenarios.va_shortage import VaShortage
from softsgx.system.scene import Scene


class ShortList(VaShortage):
    """No more pages can be reclaimed than one pass takes."""

    def build(self, scene: Scene) -> None:
        super().build(scene)
        pages = list(scene.kernel.active_page_list)
        scene.kernel.active_page_list.clear()
        scene.kernel.active_page_list.update(dict.fromkeys(pages[: scene.kernel.nr_to_scan]))


def test_l8_an_allocation_during_a_reclaim_pass_gives_up() -> None:
    outcome = explore(ShortList(races=NO_RACES), Plan(preemptions=1, executions=400))
    failure = outcome.failure
    assert failure is not None
    assert failure.rule == "spurious fault"
    assert "SIGBUS" in failure.text
    assert failure.preemptions <= 1

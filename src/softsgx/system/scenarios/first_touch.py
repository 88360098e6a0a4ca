"""Concurrent first touch: two threads fault on the same hole. Race K1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class FirstTouch(MachineScenario):
    """Each of two host threads reads one byte of a page that does not exist yet."""

    layout: ClassVar = {"threads": 1, "pages": 1}

    def build(self, scene: Scene) -> None:
        """Only the hole."""
        scene.holes.append(scene.enclave.heap)

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """Two readers."""
        for cpu in (1, 2):
            yield f"reader {cpu}", cpu, scene.thread(cpu).load(scene.enclave.heap, 1)

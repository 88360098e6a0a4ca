"""The kernel does not warn.

Verified: it has recorded no warning since the execution began (a leaf that failed where it cannot,
a page that had to be leaked).
Not verified: that the kernel would notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class KernelWarning(Checker):
    """No warning."""

    rule = "kernel warning"

    def check(self, scene: Scene) -> None:
        """Raise the first warning."""
        if scene.kernel.warnings:
            raise self.violated(scene.kernel.warnings[0])

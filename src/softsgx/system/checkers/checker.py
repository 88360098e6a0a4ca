"""What a checker has to provide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.explore import Violation

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class Checker:
    """`rule` is the name of the violation that it reports."""

    rule = ""

    def start(self, scene: Scene) -> None:
        """An execution begins."""

    def check(self, scene: Scene) -> None:
        """The execution has ended: raise Violation if the rule is broken."""

    def violated(self, text: str) -> Violation:
        """The violation to raise."""
        return Violation(self.rule, text)

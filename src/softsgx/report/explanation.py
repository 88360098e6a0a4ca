"""Why an access, a leaf or a call was refused, as text: one line a layer, and the way out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from softsgx.report.steps import Way


class Layer(NamedTuple):
    """A layer that was asked (`VMA`, `PTE`, `TLB`, `EPCM`), or an operand; its rights, and more."""

    name: str
    rights: str
    details: str


@dataclass
class Explanation:
    """What was refused, what each layer said, and what would have allowed it.

    `key` is equal for refusals of the same kind at the same page; `event` the number of the event
    in the log; `outcome` what became of it, empty while nobody knows; `signal` the number of the
    SignalSent that it ended in, if it did. The way out is `advice` as steps, or `way` as text only.
    """

    event: int
    headline: str
    rule: str
    rule_text: str
    key: tuple[object, ...]
    layers: list[Layer] = field(default_factory=list)
    where: str = ""
    outcome: str = ""
    way: str = ""
    advice: Way | None = None
    signal: int = 0

    @property
    def text(self) -> str:
        """All of it, with an end of line."""
        width = max([4, *(len(layer.name) for layer in self.layers)])
        lines = [f"{self.headline}, event {self.event}"]
        lines += [_line(layer, width) for layer in self.layers]
        lines.append(f"  {'rule':{width}}  {self.rule_text}")
        if self.where:
            lines.append(f"  {'by':{width}}  {self.where}")
        if self.outcome:
            lines.append(f"  {'then':{width}}  {self.outcome}")
        way = self.advice.text if self.advice is not None else self.way
        if way:
            lines.append(f"  {way}")
        return "\n".join(lines) + "\n"


def _line(layer: Layer, width: int) -> str:
    return f"  {layer.name:{width}}  {layer.rights:3}  {layer.details}".rstrip()

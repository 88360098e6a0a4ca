"""Why an access, a leaf or a call was refused, as text: a line for each layer, and the advice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from softsgx.report.steps import Advice


class Layer(NamedTuple):
    """A layer (`VMA`, `PTE`, `TLB`, `EPCM`) or an operand: its rights or value, and details."""

    name: str
    rights: str
    details: str


@dataclass
class Explanation:
    """What was refused, what each layer said, and what would have allowed it.

    `key` is equal for refusals of the same kind at the same page; `event` is the number of the
    event in the log; `outcome` is the result, empty while it is not known; `signal` is the number
    of the SignalSent that followed, 0 if there was none; `advice` is text if it has no steps.
    """

    event: int
    headline: str
    rule: str
    rule_text: str
    key: tuple[object, ...]
    layers: list[Layer] = field(default_factory=list)
    where: str = ""
    outcome: str = ""
    advice: Advice | str = ""
    signal: int = 0

    @property
    def text(self) -> str:
        """The whole text, ending with a newline."""
        width = max([4, *(len(layer.name) for layer in self.layers)])
        lines = [f"{self.headline}, event {self.event}"]
        lines += [_line(layer, width) for layer in self.layers]
        lines.append(f"  {'rule':{width}}  {self.rule_text}")
        if self.where:
            lines.append(f"  {'by':{width}}  {self.where}")
        if self.outcome:
            lines.append(f"  {'then':{width}}  {self.outcome}")
        advice = self.advice if isinstance(self.advice, str) else self.advice.text
        if advice:
            lines.append(f"  {advice}")
        return "\n".join(lines) + "\n"


def _line(layer: Layer, width: int) -> str:
    return f"  {layer.name:{width}}  {layer.rights:3}  {layer.details}".rstrip()

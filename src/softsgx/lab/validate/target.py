"""One line of the comparison with published figures."""

from __future__ import annotations

from typing import Final, NamedTuple

# How close a time should be: the greatest factor either way.
NEAR: Final = 1.2
EXACT: Final = 1.0


class Target(NamedTuple):
    """One line: the published figure, the model's, and how close they should be.

    `tolerance` is the greatest factor either way, EXACT for counts. A figure with `..._to` is a
    range: the source gives one, or leaves something open that the model has to vary, and then
    `note` says what. Ranges have to meet; the tolerance does not widen them.
    """

    what: str
    source: str
    unit: str
    published: float
    model: float
    tolerance: float = NEAR
    note: str = ""
    published_to: float | None = None
    model_to: float | None = None

    @property
    def ratio(self) -> float | None:
        """Model over published; None for a range."""
        if self._ranges or not self.published:
            return None
        return self.model / self.published

    @property
    def missed(self) -> bool:
        """Whether the model should be closer than it is."""
        return self.verdict == "MISSED"

    @property
    def verdict(self) -> str:
        """exact, near, in range or MISSED."""
        if self._ranges:
            published = self.published, self.published_to or self.published
            model = self.model, self.model_to or self.model
            meet = max(published[0], model[0]) <= min(published[1], model[1])
            return "in range" if meet else "MISSED"
        ratio = self.ratio
        if ratio is None:
            return "exact" if self.model == self.published else "MISSED"
        if self.tolerance == EXACT:
            return "exact" if ratio == 1.0 else "MISSED"
        return "near" if 1 / self.tolerance <= ratio <= self.tolerance else "MISSED"

    @property
    def _ranges(self) -> bool:
        return self.published_to is not None or self.model_to is not None

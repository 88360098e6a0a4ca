"""The failure of an operation, until it has happened."""

from __future__ import annotations

from tests.differential.operations import Failure


class Armed:
    """Counts the uses of a site, or of a leaf, and says which of them fail."""

    def __init__(self) -> None:
        self._failure: Failure | None = None

    def arm(self, failure: Failure | None) -> None:
        """Forget the last one; `failure` is the next."""
        self._failure = failure

    def due(self, site: str) -> str | None:
        """How this use of a site fails ("" for a place of the kernel); None if it does not."""
        armed = self._failure
        if armed is None or armed.site != site:
            return None
        if armed.nth:
            self._failure = armed._replace(nth=armed.nth - 1)
            return None
        self._failure = armed._replace(times=armed.times - 1) if armed.times > 1 else None
        return armed.how

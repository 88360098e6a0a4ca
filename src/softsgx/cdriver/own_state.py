"""Objects whose state is outside of Python: a snapshot of a machine asks them for a copy."""

from __future__ import annotations

from typing import Any


class OwnState:
    """Has a state that `save` copies and `restore` brings back."""

    def save(self) -> Any:
        """A copy of the state."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Go back to a copy, any number of times."""
        raise NotImplementedError

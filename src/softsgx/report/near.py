"""Words that a user may have meant, for messages about unknown ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(word: str, known: Iterable[str]) -> str:
    """The end of a message: the nearest known word, as a question; "" if none is near."""
    near = get_close_matches(word, [*known], 1)
    return f", did you mean {near[0]}?" if near else ""

"""Code as machine_code.py has it: a list of (label, bytes in hexadecimal up to the next label)."""

from collections.abc import Sequence

Parts = Sequence[tuple[str, str]]


def code_of(parts: Parts) -> bytes:
    """The bytes of all parts."""
    return b"".join(bytes.fromhex(part) for _, part in parts)


def labels_of(parts: Parts, base: int = 0) -> dict[str, int]:
    """The address of every label, if the first part is at `base`."""
    found = {}
    for label, part in parts:
        found[label] = base
        base += len(part) // 2
    return found

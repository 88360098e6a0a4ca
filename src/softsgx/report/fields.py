"""The fields of events as text: which are hexadecimal, which are names."""

from __future__ import annotations

from errno import errorcode
from functools import cache
from typing import Any, Final

from softsgx.events.cpu import LeafDone, LeafFaulted
from softsgx.events.kernel import Fields
from softsgx.spec.epcm import BLOCKED, PT_NAMES, VALID, rwx_text, word_text
from softsgx.spec.faults import PF, VECTOR_NAMES
from softsgx.spec.status import status_name

# Addresses, lengths and words, which read better in hexadecimal.
HEX: Final = frozenset(
    "rbx rcx rdx address linear tcs rip entry before after code arg src base size offset length"
    " flags secinfo secinfo_flags sigstruct attributes xfrm miscselect vendor request"
    " old new old_length new_length"
    " count".split()
)
_RIGHTS: Final = frozenset({"prot", "permissions"})
_TYPES: Final = frozenset({"page_type", "new_type"})
_ERESTARTSYS: Final = 512  # the kernel's own: errno(3) has no name for it
SHORT: Final = "SGX_IOC_ENCLAVE_"


@cache
def is_hex(name: str) -> bool:
    """Whether a field of this name is shown in hexadecimal."""
    return name in HEX


def number(name: str, value: int) -> str:
    """The value of the field of this name, as text."""
    if name in _RIGHTS and 0 <= value <= 7:
        return rwx_text(value)
    if name in _TYPES:
        return PT_NAMES.get(value, str(value))
    if name == "secinfo_flags":
        return word_text(value & ~BLOCKED | VALID).replace(" ", "|")
    return f"{value:#x}" if name in HEX else str(value)


def call_text(name: str, fields: Fields) -> str:
    """A call as `mprotect(address=0x7000, length=0x1000, prot=r--)`."""
    return f"{name}({', '.join(f'{n}={number(n, v)}' for n, v in fields)})"


def errno_or_value(result: int) -> str:
    """What a call returned: `-EACCES`, or the value. -ERESTARTSYS reaches a program as -EINTR, or
    not at all if its handler has SA_RESTART: then the call is restarted."""
    if result == -_ERESTARTSYS:
        return "-EINTR (-ERESTARTSYS)"
    if failed(result):
        return f"-{errorcode.get(-result, str(-result))}"
    return f"{result:#x}" if result > 9 else str(result)


def failed(result: int) -> bool:
    """Whether a call returned an errno."""
    return -4096 < result < 0


def vector_text(vector: int) -> str:
    """`#PF`, `vector 0xfb`."""
    return VECTOR_NAMES.get(vector, f"vector {vector:#x}")


def exception_text(vector: int, code: int) -> str:
    """`#PF 0x8007`, `#GP`, `vector 0xfb`."""
    return f"{vector_text(vector)} {code:#x}" if vector == PF else vector_text(vector)


def exit_text(vector: int) -> str:
    """How an enclave was left: `EEXIT`, `AEX, #PF`."""
    return "EEXIT" if vector < 0 else f"AEX, {vector_text(vector)}"


def end_text(e: LeafDone | LeafFaulted) -> str:
    """How a leaf ended: the status in RAX, or the fault."""
    return status_text(e.status) if isinstance(e, LeafDone) else exception_text(e.vector, e.code)


def status_text(status: int) -> str:
    """RAX of a leaf; a leaf that does not write RAX has none."""
    return "done" if status < 0 else status_name(status)


def plain(value: Any) -> Any:
    """A value of any event as JSON: tasks, points and locks become their texts."""
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, tuple) and all(isinstance(item, int) for item in value):
        return list(value)
    return str(value)

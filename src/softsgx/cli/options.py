"""Options that the enclave commands share: numbers, and how an ELF file is laid out."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from softsgx.cli import files
from softsgx.cli.declared import Option
from softsgx.cli.errors import UsageError
from softsgx.image.errors import ImageError
from softsgx.image.file import load
from softsgx.image.image import EnclaveImage
from softsgx.image.layout import Layout, SelftestLayout, ThreadLayout

# Fields of ThreadLayout by option, with what the option's help says.
_COUNTS: Final = {
    "threads": "TCS pages, each with its own stack, SSA and data",
    "nssa": "SSA frames per thread",
    "ssaframesize": "pages per SSA frame",
    "stack_pages": "pages of stack per thread",
    "heap_pages": "pages of heap",
    "guard_pages": "holes below each stack",
    "thread_data_pages": "pages per thread that FS and GS point to",
}
_LAYOUTS: Final[dict[str, type[Layout]]] = {"threads": ThreadLayout, "selftest": SelftestLayout}
_FIELDS: Final = [field.name for field in fields(ThreadLayout)]
_OF_THREADS: Final = {*_FIELDS} - {field.name for field in fields(SelftestLayout)}


def number(bits: int, least: int = 0) -> Callable[[str], int]:
    """An argument type: a decimal or 0x number of at most `bits` bits."""

    def parse(text: str) -> int:
        try:
            value = int(text, 16 if text[:2] in ("0x", "0X") else 10)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: not a number") from None
        if not least <= value < 1 << bits:
            raise argparse.ArgumentTypeError(f"{text}: not from {least} to {(1 << bits) - 1:#x}")
        return value

    return parse


def enclave(args: argparse.Namespace) -> tuple[str, EnclaveImage]:
    """The kind of the file `args.file`, and the enclave in it."""
    kind, data = files.read_enclave(args.file)
    return kind, enclave_of(args, data)


def enclave_of(args: argparse.Namespace, data: bytes) -> EnclaveImage:
    """The enclave in the bytes of `args.file`."""
    try:
        return load(data, layout(args))
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None


def layout(args: argparse.Namespace) -> Layout | None:
    """The layout that the options ask for; None if none of them is given."""
    asked: dict[str, Any] = {name: getattr(args, name) for name in _FIELDS}
    given = {k: value for k, value in asked.items() if value is not None and value is not False}
    try:
        if args.layout is None:
            return ThreadLayout(**given) if given else None
        return _LAYOUTS[args.layout](**given)
    except ImageError as error:
        raise UsageError(f"{_option(error.where)}: {error.why}") from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(name: str) -> str:
    default = getattr(ThreadLayout(), name)
    other = getattr(SelftestLayout(), name, default)
    return f"{default}" if other == default else f"{default}, selftest {other}"


def _option_of(field: str, help_: str, **more: Any) -> Option:
    """The option for a field of a layout; only with --layout threads if no other has the field."""
    only = ("--layout", (None, "threads")) if field in _OF_THREADS else None
    return Option(name=_option(field), help=help_, only=only, **more)


LAYOUT_TITLE: Final = "how an ELF program becomes an enclave (docs/image.md)"
LAYOUT: Final = (
    Option(
        name="--layout",
        choices=tuple(_LAYOUTS),
        shown="threads",
        help="selftest: the first segment holds the TCS pages",
    ),
    *(
        _option_of(name, text, type=number(32), metavar="N", shown=_default(name))
        for name, text in _COUNTS.items()
    ),
    _option_of("measure_heap", "measure the heap, too"),
    _option_of("aexnotify", "set AEXNOTIFY in TCS.FLAGS of every thread, and so in ATTRIBUTES"),
    _option_of(
        "relocate_to",
        "apply relative relocations for this address",
        type=number(64),
        metavar="BASEADDR",
    ),
)
"""The options that `enclave` reads; only for an ELF program."""
LAYOUT_NAMES: Final = tuple(option.name for option in LAYOUT)

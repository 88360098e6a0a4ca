"""Arguments that the enclave commands share: numbers, and how an ELF file becomes an enclave."""

import argparse
from collections.abc import Callable
from typing import Any, Final

from softsgx.cli import files
from softsgx.cli.errors import UsageError
from softsgx.cli.modes import Option
from softsgx.image.errors import ImageError
from softsgx.image.file import load
from softsgx.image.image import EnclaveImage
from softsgx.image.layout import Layout, SelftestLayout, ThreadLayout
from softsgx.spec.flags import flags_value

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
_OF_THREADS: Final = ("threads", "nssa", "stack_pages", "guard_pages", "thread_data_pages")


def number(bits: int, least: int = 0) -> Callable[[str], int]:
    """An argument type: a decimal or 0x number of at most so many bits."""

    def parse(text: str) -> int:
        try:
            value = int(text, 16 if text[:2] in ("0x", "0X") else 10)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: no number") from None
        if not least <= value < 1 << bits:
            raise argparse.ArgumentTypeError(f"{text}: not from {least} to {(1 << bits) - 1:#x}")
        return value

    return parse


def flags(field: str, bits: int) -> Callable[[str], int]:
    """An argument type: a number of so many bits, or names of bits joined by commas."""
    as_number = number(bits)

    def parse(text: str) -> int:
        if text[:1].isdecimal():
            return as_number(text)
        try:
            return flags_value(field, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def identifier(text: str) -> bytes:
    """An argument type: 16 bytes as 32 hexadecimal digits."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 16:
        raise argparse.ArgumentTypeError(f"{text}: not 32 hexadecimal digits")
    return value


def enclave(args: argparse.Namespace) -> tuple[str, EnclaveImage]:
    """What kind of file `args.file` is, and the enclave in it."""
    kind, data = files.read_enclave(args.file)
    return kind, enclave_of(args, data)


def enclave_of(args: argparse.Namespace, data: bytes) -> EnclaveImage:
    """The enclave in the bytes of `args.file`."""
    try:
        return load(data, layout(args))
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None


def layout(args: argparse.Namespace) -> Layout | None:
    """The layout asked for; None if no argument asks for any."""
    given: dict[str, Any] = {
        name: value for name in _COUNTS if (value := getattr(args, name)) is not None
    }
    for name in ("measure_heap", "aexnotify"):
        if getattr(args, name):
            given[name] = True
    if args.relocate_to is not None:
        given["relocate_to"] = args.relocate_to
    try:
        if args.layout == "selftest":
            return SelftestLayout(**given)
        return ThreadLayout(**given) if given or args.layout else None
    except ImageError as error:
        raise UsageError(f"{_option(error.where)}: {error.why}") from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(name: str) -> str:
    default = getattr(ThreadLayout(), name)
    other = getattr(SelftestLayout(), name, default)
    return f"{default}" if other == default else f"{default}, selftest {other}"


_BY_THREADS: Final = ("--layout", (None, "threads"))

LAYOUT_TITLE: Final = "how an ELF program becomes an enclave (docs/image.md)"
LAYOUT: Final = (
    Option(
        name="--layout",
        choices=("threads", "selftest"),
        shown="threads",
        help="selftest: the first segment holds the TCS pages",
    ),
    *(
        Option(
            name=_option(name),
            type=number(32),
            metavar="N",
            shown=_default(name),
            help=text,
            only=_BY_THREADS if name in _OF_THREADS else None,
        )
        for name, text in _COUNTS.items()
    ),
    Option(name="--measure-heap", help="measure the heap, too"),
    Option(
        name="--aexnotify",
        help="set AEXNOTIFY in TCS.FLAGS of every thread, and so in ATTRIBUTES",
        only=_BY_THREADS,
    ),
    Option(
        name="--relocate-to",
        type=number(64),
        metavar="BASEADDR",
        help="apply relative relocations for this address",
        only=_BY_THREADS,
    ),
)
"""The options that `enclave` reads; for an ELF program only."""
LAYOUT_NAMES: Final = tuple(option.name for option in LAYOUT)

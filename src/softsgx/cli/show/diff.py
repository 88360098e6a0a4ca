"""`softsgx show --diff A B`: how two enclaves, or two SIGSTRUCTs, differ."""

import argparse

from softsgx.cli import files, options
from softsgx.cli.diff_text import Side, images_lines, signed_lines, sigstruct_lines
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError
from softsgx.image.difference import compare
from softsgx.image.errors import ImageError
from softsgx.image.file import ELF, SIG, load
from softsgx.image.sigstruct import parse
from softsgx.spec.sigstruct import SIGSTRUCT


def run(args: argparse.Namespace) -> int:
    """Print the differences; any is a finding."""
    read = [files.read_enclave(path) for path in args.file]
    if options.layout(args) is not None and ELF not in [kind for kind, _ in read]:
        raise UsageError("layout: neither file is an ELF program, so there is nothing to lay out")
    a, b = (
        _side(args, path, kind, data) for path, (kind, data) in zip(args.file, read, strict=True)
    )
    if isinstance(a.what, SIGSTRUCT) and isinstance(b.what, SIGSTRUCT):
        lines = sigstruct_lines(read[0][1], read[1][1])
    elif isinstance(a.what, SIGSTRUCT):
        assert not isinstance(b.what, SIGSTRUCT)
        lines = signed_lines(b.what, a.what)
    elif isinstance(b.what, SIGSTRUCT):
        lines = signed_lines(a.what, b.what)
    else:
        lines = images_lines(compare(a.what, b.what), everything=args.all)
    equal = "equal"
    if SIG in (a.kind, b.kind) and a.kind != b.kind:
        equal = "ENCLAVEHASH is MRENCLAVE: the SIGSTRUCT is for this enclave"
    text = [a.text("A"), b.text("B"), *(lines or [equal])]
    print_stdout("\n".join(text) + "\n")
    return EXIT_FINDING if lines else EXIT_OK


def _side(args: argparse.Namespace, path: str, kind: str, data: bytes) -> Side:
    """One of the files; the layout applies to an ELF program."""
    try:
        if kind == SIG:
            return Side(path, kind, parse(data))
        return Side(path, kind, load(data, options.layout(args) if kind == ELF else None))
    except ImageError as error:
        raise UsageError(f"{path}: {error}") from None

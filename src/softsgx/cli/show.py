"""`softsgx show`: what is in an enclave file, whichever of the three kinds; where two differ."""

import argparse

from softsgx.cli import files, options
from softsgx.cli.diff_text import Side, images_lines, signed_lines, sigstruct_lines
from softsgx.cli.enclave_text import image_text, sigstruct_text
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError
from softsgx.image.difference import compare
from softsgx.image.errors import ImageError
from softsgx.image.file import ELF, SIG, load
from softsgx.image.sigstruct import parse, verify
from softsgx.spec.sigstruct import SIGSTRUCT


def register(parser: argparse.ArgumentParser) -> None:
    """FILE and the layout; two files for --diff."""
    parser.usage = "softsgx show [options] FILE\n       softsgx show --diff [options] A B"
    parser.add_argument(
        "file", nargs="+", metavar="FILE", help="ELF program, SGXS stream or SIGSTRUCT"
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="where two enclaves, or two SIGSTRUCTs, differ; exit code 1 if they do",
    )
    parser.add_argument(
        "--all", action="store_true", help="with --diff: every line, and every page by itself"
    )
    options.add_layout(parser)


def run(args: argparse.Namespace) -> int:
    """Print pages or fields; a SIGSTRUCT that EINIT would refuse is a finding."""
    if args.diff:
        return _diff(args)
    if args.all:
        raise UsageError("--all: only with --diff")
    if len(args.file) > 1:
        raise UsageError("one FILE is shown at a time; --diff A B says where two differ")
    args.file = args.file[0]
    kind, data = files.read_enclave(args.file)
    if kind != SIG:
        files.show(image_text(kind, options.enclave_of(args, data)))
        return EXIT_OK
    if options.layout(args) is not None:
        raise UsageError(f"{args.file}: layout: a SIGSTRUCT has no pages to lay out")
    try:
        sig, findings = parse(data), verify(data)
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None
    files.show(sigstruct_text(sig, findings))
    return EXIT_FINDING if findings else EXIT_OK


def _diff(args: argparse.Namespace) -> int:
    """Print where two files differ; any difference is a finding."""
    if len(args.file) != 2:
        raise UsageError(f"--diff: two files are needed, not {len(args.file)}")
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
    files.show("\n".join(text) + "\n")
    return EXIT_FINDING if lines else EXIT_OK


def _side(args: argparse.Namespace, path: str, kind: str, data: bytes) -> Side:
    """One of the files; the layout is for those that are ELF programs."""
    try:
        if kind == SIG:
            return Side(path, kind, parse(data))
        return Side(path, kind, load(data, options.layout(args) if kind == ELF else None))
    except ImageError as error:
        raise UsageError(f"{path}: {error}") from None

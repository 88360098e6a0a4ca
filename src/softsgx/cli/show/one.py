"""`softsgx show FILE`: what is in an enclave file of any of the three kinds."""

import argparse

from softsgx.cli import files, options
from softsgx.cli.enclave_text import image_text, sigstruct_text
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError
from softsgx.image.errors import ImageError
from softsgx.image.file import SIG
from softsgx.image.sigstruct import parse, verify


def run(args: argparse.Namespace) -> int:
    """Print pages or fields; a SIGSTRUCT that EINIT would refuse is a finding."""
    (args.file,) = args.file
    kind, data = files.read_enclave(args.file)
    if kind != SIG:
        print_stdout(image_text(kind, options.enclave_of(args, data)))
        return EXIT_OK
    if options.layout(args) is not None:
        raise UsageError(f"{args.file}: layout: a SIGSTRUCT has no pages to lay out")
    try:
        sig, findings = parse(data), verify(data)
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None
    print_stdout(sigstruct_text(sig, findings))
    return EXIT_FINDING if findings else EXIT_OK

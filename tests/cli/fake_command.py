"""A subcommand for the tests of the frame: adds one to a number, or refuses it."""

import argparse

from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError


def register(parser: argparse.ArgumentParser) -> None:
    """One argument, and the words of a program after it."""
    parser.add_argument("number", type=int)
    parser.add_argument("words", nargs="*")


def run(args: argparse.Namespace) -> int:
    """Zero is a finding, a negative number bad input."""
    if args.number < 0:
        raise UsageError(f"{args.number}: negative,\nonly natural numbers have successors here")
    print(args.number + 1, *args.words)
    return EXIT_OK if args.number else EXIT_FINDING

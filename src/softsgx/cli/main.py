"""The command `softsgx`: finds the subcommand, and imports only that one."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

from softsgx import __version__
from softsgx.cli.ends import FailureCodes, print_stderr, print_stdout, run_to_exit_code
from softsgx.cli.errors import (
    EXIT_BAD_INPUT,
    EXIT_RUN_FAILED,
    UsageError,
    codes,
    epilog,
)
from softsgx.cli.outputs import text_off_stdout

HELP_WIDTH: Final = 80  # fixed, so that help is byte-identical on every terminal


class Command(NamedTuple):
    """A subcommand: its module, imported when the command is chosen, and its line in `--help`.

    The module has `register(parser: argparse.ArgumentParser) -> None`, which adds the arguments,
    and `run(args: argparse.Namespace) -> int`, which returns a code of `softsgx.cli.errors`.
    """

    module: str
    help: str
    failure_codes: FailureCodes = FailureCodes()


COMMANDS: Final[Mapping[str, Command]] = {
    "measure": Command("softsgx.cli.measure", "the MRENCLAVE of an ELF program or SGXS stream"),
    "sign": Command("softsgx.cli.sign", "make the SIGSTRUCT of an enclave with your own key"),
    "explore": Command("softsgx.cli.explore", "find the interleaving that breaks a scenario"),
    "show": Command("softsgx.cli.show", "what is in an ELF, SGXS or SIGSTRUCT file"),
    "run": Command(
        "softsgx.cli.run",
        "run an SGX program on a machine without SGX",
        FailureCodes(EXIT_RUN_FAILED, EXIT_RUN_FAILED),
    ),
    "compare": Command("softsgx.cli.compare", "compare designs of restricting page permissions"),
    "driver": Command("softsgx.cli.driver", "build the kernel's own SGX driver for the model"),
    "doctor": Command("softsgx.cli.doctor", "whether this machine can run SGX programs"),
    "completion": Command("softsgx.cli.completion", "what bash, zsh and fish complete"),
}


class Parser(argparse.ArgumentParser):
    """argparse, but errors are UsageErrors, help has one width, and nothing is abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{message}: see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help and version; unlike in argparse, a full disk is an error."""
        if file is sys.stdout:
            print_stdout(message)
        else:
            print_stderr(message.removesuffix("\n"))


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH)


def _parser(commands: Mapping[str, Command], chosen: str | None) -> Parser:
    """All commands with their line of help; only the chosen one is imported, for its arguments."""
    parser = Parser(
        prog="softsgx",
        description="Intel SGX2 in software. Documents are in docs/ of the sources, and in\n"
        "share/doc/softsgx/docs of an installation.",
        epilog=epilog(codes("nothing found", "a finding"))
        + "\n  those of run are the program's: see softsgx run --help",
    )
    parser.add_argument("--version", action="version", version=f"softsgx {__version__}")
    if not commands:
        return parser
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in commands.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        if name == chosen:
            module = import_module(command.module)
            module.register(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _unknown(argv: Sequence[str], chosen: str, commands: Mapping[str, Command]) -> str:
    """The message for a word that is not a command."""
    later = next((word for word in argv if word in commands), None)
    if later is not None and argv[0] != chosen:
        return f"unknown command: options go after the command: see softsgx {later} --help"
    # Not at the top: every start would wait for it.
    from softsgx.report.near import meant

    return f"unknown command{meant(chosen, commands)}: see softsgx --help"


def _unrecognized(argv: Sequence[str], unknown: Sequence[str], chosen: str | None) -> str:
    """The message for arguments that are not recognized."""
    if chosen is None:
        return f"unrecognized arguments: {' '.join(unknown)}: see softsgx --help"
    early = [word for word in argv[: argv.index(chosen)] if word in unknown]
    if early:
        return f"{early[0]}: options go after the command: see softsgx {chosen} --help"
    return f"unrecognized arguments: {' '.join(unknown)}: see softsgx {chosen} --help"


def _dispatch(argv: Sequence[str], chosen: str | None, commands: Mapping[str, Command]) -> int:
    if chosen is not None and chosen not in commands:
        raise UsageError(_unknown(argv, chosen, commands))
    parser = _parser(commands, chosen)
    if chosen is not None:
        argv = _joined(argv, chosen, commands[chosen])
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UsageError(_unrecognized(argv, unknown, chosen))
    if chosen is None:
        parser.print_help(sys.stderr)
        return EXIT_BAD_INPUT
    with text_off_stdout(args):
        code: int = args.run(args)
    return code


def _joined(argv: Sequence[str], chosen: str, command: Command) -> Sequence[str]:
    table = getattr(import_module(command.module), "TABLE", None)
    if table is None:
        return argv
    first = list(argv).index(chosen) + 1
    return [*argv[:first], *table.joined(argv[first:])]


def main(argv: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run `softsgx ARGV`; its exit code is one of `softsgx.cli.errors`, however it ends."""
    argv = sys.argv[1:] if argv is None else argv
    # No option before the command takes a value, so the first word without a dash is the command.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    name = "softsgx" if chosen is None else f"softsgx: {chosen}"
    command = None if chosen is None else commands.get(chosen)
    fails = FailureCodes() if command is None else command.failure_codes
    return run_to_exit_code(name, fails, lambda: _dispatch(argv, chosen, commands))


if __name__ == "__main__":
    sys.exit(main())

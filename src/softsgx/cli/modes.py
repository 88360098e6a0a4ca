"""A command as a table: its modes, the options of each, and the meanings of their exit codes.

The table determines the parser, the help, and which options are refused. An option is refused in a
mode where it would have no effect, even if it only repeats the default; so are an option given
twice and an empty value.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from textwrap import wrap
from types import MappingProxyType
from typing import Any, Final

from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import Codes, UsageError, epilog
from softsgx.cli.project_defaults import fill_in

WIDTH: Final = 80


class Table:
    """The modes of a command, first the mode without an option; and the options in help groups.

    `in_file` has the options whose defaults a project may set in [tool.softsgx.COMMAND] of its
    pyproject.toml, by their names without dashes, with the types of TOML that the values may have.
    """

    def __init__(
        self,
        command: str,
        groups: Mapping[str, Sequence[Option]],
        modes: Sequence[Mode],
        in_file: Mapping[str, tuple[type, ...]] = MappingProxyType({}),
    ) -> None:
        self.command = command
        self.in_file = in_file
        self.groups = groups
        self.modes = modes
        self.options = {option.name: option for group in groups.values() for option in group}
        for mode in modes:
            assert set(mode.names) <= set(self.options), f"{command} {mode.chosen}: unknown option"
            assert set(mode.defaults) <= set(mode.names), f"{command} {mode.chosen}: a default"

    def register(self, parser: argparse.ArgumentParser) -> None:
        """Add arguments and help to the parser. Arguments not given are not in the namespace."""
        parser.usage = self.usage().removeprefix("usage: ")
        parser.epilog = self.epilog()
        for title, options in self.groups.items():
            group = parser.add_argument_group(title) if title else parser
            for option in options:
                group.add_argument(*_names(option), **self._arguments(option))

    def joined(self, words: Sequence[str]) -> list[str]:
        """The words of a command line, with "=" and the value at bare options that are `joined`.

        Otherwise argparse would take the word after such an option for its value.
        """
        found = list(words)
        at = 0
        while at < len(found) and found[at].startswith("-") and found[at] != "--":
            option = self.options.get(found[at])
            if option is not None and option.joined:
                found[at] += f"={option.bare}"
            elif option is not None and not option.flag and option.bare is None:
                at += 1  # its value
            at += 1
        return found

    def _arguments(self, option: Option) -> dict[str, Any]:
        found: dict[str, Any] = {
            "action": _Given,
            "default": argparse.SUPPRESS,
            "help": self._help(option),
        }
        if option.positional:
            found["metavar"] = option.name
            found["nargs"] = argparse.REMAINDER if option.rest else "*" if option.many else "?"
        elif option.flag:
            return found | {"nargs": 0, "dest": option.key}
        else:
            found["dest"] = option.key
            found["many"] = option.many
            found["metavar"] = option.metavar or None
            if option.bare is not None:
                found |= {"nargs": "?", "const": option.bare}
        return found | {"type": option.type, "choices": option.choices or None}

    def _help(self, option: Option) -> str:
        remarks = [f"default: {option.default_text}"] if option.default_text else []
        if option.condition:
            remarks.insert(0, option.condition)
        for mode in self.modes:
            if option.name in mode.defaults and not option.shown:
                default = mode.defaults[option.name]
                remarks.append(f"with {mode.chosen} {default}")
        return f"{option.help} ({'; '.join(remarks)})" if remarks else option.help

    def usage(self) -> str:
        """A line for each mode with its options, wrapped."""
        lines: list[str] = []
        for mode in self.modes:
            start = f"{'usage: ' if not lines else ' ' * 7}softsgx {self.command}"
            needed = [name for name in mode.names if name not in mode.options]
            called = {name: " ".join(each) for name, each in mode.takes.items()}
            words = [called.get(name, self.options[name].usage) for name in needed]
            optional = [self.options[name] for name in mode.options]
            # Arguments last, required ones first.
            words += [f"[{option.usage}]" for option in optional if not option.positional]
            words += [
                option.usage if option.rest else f"[{option.usage}]"
                for option in optional
                if option.positional
            ]
            lines += _wrapped(start, words)
        return "\n".join(lines)

    def epilog(self) -> str:
        """What each mode does, where defaults may be, and the exit codes of all."""
        if len(self.modes) == 1:
            return epilog(self.codes)
        lines = ["modes:"]
        for mode in self.modes:
            start = f"  {self.name(mode):<15} "
            lines += wrap(mode.about, WIDTH, initial_indent=start, subsequent_indent=" " * 18)
        if self.in_file:
            lines += ["", f"A project's defaults: [tool.softsgx.{self.command}] of pyproject.toml."]
        return "\n".join([*lines, "", epilog(self.codes)])

    def name(self, mode: Mode) -> str:
        """The name of a mode in the help."""
        return mode.chosen or " ".join(mode.needs) or "no mode"

    @property
    def codes(self) -> Codes:
        """The exit codes of all modes: for each code its meanings, with their modes."""
        meanings: dict[int | str, dict[str, list[str]]] = {}
        for mode in self.modes:
            for code, means in mode.codes.items():
                meanings.setdefault(code, {}).setdefault(means, []).append(self.name(mode))
        return {code: self._meaning(meanings[code]) for code in sorted(meanings, key=_place)}

    def _meaning(self, modes: Mapping[str, Sequence[str]]) -> str:
        """The meanings of a code, each with its modes unless all modes share it."""
        found = list(modes)
        if len(found) == 1 and len(modes[found[0]]) == len(self.modes):
            return found[0]
        return "; ".join(f"{', '.join(modes[means])}: {means}" for means in found)

    def run(self, args: argparse.Namespace) -> int:
        """Choose the mode, refuse options that are not its own, fill in defaults, and run it."""
        mode = self.mode(args)
        code: int = getattr(import_module(mode.module), mode.function)(args)
        assert code in mode.codes or not all(isinstance(known, int) for known in mode.codes)
        return code

    def mode(self, args: argparse.Namespace) -> Mode:
        """The mode asked for; fills in the defaults of the arguments. UsageError."""
        given = [option for option in self.options.values() if option.key in vars(args)]
        names = [option.name for option in given]
        mode = next((mode for mode in self.modes if mode.chosen in names), self.modes[0])
        for option in given:
            if option.name not in mode.names:
                raise UsageError(f"{option.name}: {self._misplaced(option, mode)}: {self._see()}")
        for name, each in mode.takes.items():
            number = len(getattr(args, self.options[name].key, each))
            if number != len(each):
                wanted = f"{' and '.join(each)} {'is' if len(each) == 1 else 'are'} needed"
                where = f"{mode.chosen}: " if mode.chosen else ""
                raise UsageError(f"{where}{wanted}, not {number} of them: {self._see()}")
        missing = [name for name in mode.needs if name not in names]
        if missing:
            what = " and ".join(missing) + self._instead(mode, missing)
            raise UsageError(f"{what} {'is' if len(missing) == 1 else 'are'} needed: {self._see()}")
        for option in self.options.values():
            if option not in given:
                setattr(args, option.key, mode.default(option))
        if self.in_file:
            on_line = {option.name for option in given}
            fill_in(self.command, self.in_file, self.options, mode, on_line, args)
        for option in given:
            if option.only is not None:
                other, values = option.only
                if getattr(args, self.options[other].key) not in values:
                    raise UsageError(f"{option.name}: {option.condition}: {self._see()}")
        return mode

    def _see(self) -> str:
        return f"see softsgx {self.command} --help"

    def _misplaced(self, option: Option, mode: Mode) -> str:
        if mode.chosen:
            return f"not with {mode.chosen}"
        home = [mode.chosen for mode in self.modes if option.name in mode.names]
        return f"only with {' or '.join(home)}"

    def _instead(self, mode: Mode, missing: Sequence[str]) -> str:
        """For the mode without an option: a text that names modes without the missing arguments."""
        others = [each.chosen for each in self.modes if not set(missing) & set(each.needs)]
        return f" or one of {', '.join(others)}" if others and not mode.chosen else ""


class _Given(argparse.Action):
    """Store a value; refuse an option given twice, and an empty word."""

    def __init__(self, *, many: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._many = many

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse."""
        if values == "":
            raise argparse.ArgumentError(self, "is empty")
        if self.nargs == 0:
            values = True
        before = getattr(namespace, self.dest, None)
        if values == [] and self.nargs == argparse.REMAINDER:
            return
        if self._many:
            values = [*(before or ()), values]
        elif before is not None:
            raise argparse.ArgumentError(self, "is given twice")
        setattr(namespace, self.dest, values)


def _place(code: int | str) -> tuple[bool, int]:
    """Words first, then numbers ascending."""
    return isinstance(code, int), code if isinstance(code, int) else 0


def _names(option: Option) -> tuple[str, ...]:
    return (option.key,) if option.positional else (option.name,)


def _wrapped(start: str, words: Sequence[str]) -> list[str]:
    """The words in lines of at most WIDTH; later lines are indented to the first word."""
    lines, indent = [start], " " * (len(start) + 1)
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != indent.rstrip():
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}"
    return lines

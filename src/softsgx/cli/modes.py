"""A command as a table: its modes, the options of each, and the meanings of their exit codes.

The table determines the parser, the help, and which options are refused. An option is refused in a
mode where it would have no effect, even if it only repeats the default; so are an option given
twice and an empty value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from textwrap import wrap
from typing import Any, Final

from softsgx.cli.errors import Codes, UsageError, epilog

WIDTH: Final = 80


class _AnyValue:
    """The values of an option that is given."""

    def __contains__(self, value: object) -> bool:
        return value is not None

    def __iter__(self) -> Iterator[object]:
        return iter(())


GIVEN: Final = _AnyValue()
"""For `Option.only`: with any value of the other option."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option; or a positional argument, if its name is in capitals.

    name     "--json", "-o", "TARGET"
    metavar  the name of its value in the help; "" for an option without a value
    bare     the value if it is given without one; None: it needs a value
    joined   with `bare`: its value only follows after "=", so that no other word is taken for it
    words    values that a shell offers, where `choices` would refuse too much or too soon
    many     may be given several times: the value is a list
    rest     takes all remaining words, as a list
    default  the value if it is not given; a mode may have another one
    shown    the default in the help, if not `default` itself
    only     another option, and its values with which this option has an effect
    dest     the attribute of the parsed arguments; derived from `name` if empty
    """

    name: str
    help: str
    metavar: str = ""
    type: Callable[[str], Any] = str
    choices: Sequence[str] = ()
    bare: Any = None
    joined: bool = False
    words: Sequence[str] = ()
    many: bool = False
    rest: bool = False
    default: Any = None
    shown: str = ""
    only: tuple[str, tuple[Any, ...] | _AnyValue] | None = None
    dest: str = ""

    @property
    def key(self) -> str:
        """The attribute of the parsed arguments."""
        return self.dest or self.name.lstrip("-").replace("-", "_").lower()

    @property
    def positional(self) -> bool:
        """Whether it is a positional argument."""
        return not self.name.startswith("-")

    @property
    def flag(self) -> bool:
        """Whether it has no value."""
        return not (self.positional or self.metavar or self.choices)

    @property
    def usage(self) -> str:
        """The option with its value, as in the usage lines of the help."""
        if self.positional:
            return self.metavar or self.name
        value = self.metavar or (f"{{{','.join(self.choices)}}}" if self.choices else "")
        if self.joined:
            return f"{self.name}[={value}]"
        if value and self.bare is not None:
            value = f"[{value}]"
        return f"{self.name} {value}".strip()

    @property
    def default_text(self) -> str:
        """The default in the help; empty if there is none to show."""
        if self.shown or self.default is None or self.default is False:
            return self.shown
        return str(self.default)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One of the things that a command does.

    chosen    the option that chooses it; "" for the mode without such an option
    options   names of the options that may be given
    needs     names of those that must be given
    codes     its exit codes; if a key is a word, the mode may end with any code
    module    has `function(args) -> int`; imported when the mode is chosen
    defaults  of options whose default differs in this mode
    takes     for an argument that may be given several times: the names of its values
    """

    chosen: str = ""
    about: str
    options: Sequence[str] = ()
    needs: Sequence[str] = ()
    codes: Codes
    module: str
    function: str = "run"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    takes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All options and arguments of the mode."""
        return (*filter(None, (self.chosen,)), *self.needs, *self.options)


class Table:
    """The modes of a command, first the mode without an option; and the options in help groups."""

    def __init__(
        self,
        command: str,
        groups: Mapping[str, Sequence[Option]],
        modes: Sequence[Mode],
    ) -> None:
        self.command = command
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
        if option.only is not None:
            remarks.insert(0, _condition(*option.only))
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
        """What each mode does, and the exit codes of all."""
        if len(self.modes) == 1:
            return epilog(self.codes)
        lines = ["modes:"]
        for mode in self.modes:
            start = f"  {self.name(mode):<15} "
            lines += wrap(mode.about, WIDTH, initial_indent=start, subsequent_indent=" " * 18)
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
                default = [] if option.many or option.rest else option.default
                default = False if option.flag else default
                setattr(args, option.key, mode.defaults.get(option.name, default))
        for option in given:
            if option.only is not None:
                other, values = option.only
                if getattr(args, self.options[other].key) not in values:
                    raise UsageError(f"{option.name}: {_condition(other, values)}: {self._see()}")
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


def _condition(other: str, values: tuple[Any, ...] | _AnyValue) -> str:
    if values in ((False,), (None,)):
        return f"not with {other}"
    named = " or ".join(str(value) for value in values if value is not None)
    return f"only with {other} {named}".rstrip()


def _wrapped(start: str, words: Sequence[str]) -> list[str]:
    """The words in lines of at most WIDTH; later lines are indented to the first word."""
    lines, indent = [start], " " * (len(start) + 1)
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != indent.rstrip():
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}"
    return lines

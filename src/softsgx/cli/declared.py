"""What the table of a command declares: its options and its modes. `modes` is what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from softsgx.cli.errors import Codes


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
    instead  options that a project's file does not set beside this one, if it has another value
             than `bare`
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
    instead: Sequence[str] = ()

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
    def condition(self) -> str:
        """When it has an effect, in words; empty if always."""
        if self.only is None:
            return ""
        other, values = self.only
        if values in ((False,), (None,)):
            return f"not with {other}"
        named = " or ".join(str(value) for value in values if value is not None)
        return f"only with {other} {named}".rstrip()

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

    def default(self, option: Option) -> Any:
        """The value of an option or argument that is not given."""
        default = [] if option.many or option.rest else option.default
        return self.defaults.get(option.name, False if option.flag else default)

"""Write docs/softsgx.1, the man page, from the tables of all commands: part of `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from softsgx import __version__
from softsgx.cli.completion.scripts import tables
from softsgx.cli.declared import Option

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "softsgx.1"
_HEAD: Final = rf""".\" Written by `make docs`.
.TH SOFTSGX 1 "" "softsgx {__version__}" "User Commands"
.SH NAME
softsgx \- Intel SGX2 in software: processor, Linux driver, and tools that drive both
.SH SYNOPSIS
.B softsgx
.I COMMAND
[options]
.SH DESCRIPTION
softsgx runs unmodified SGX programs on machines without usable SGX, finds the interleavings of
tasks that break a protocol, and compares designs for restricting page permissions.
Documents are in docs/ of the sources, and in share/doc/softsgx/docs of an installation.
.SH COMMANDS
"""
_TAIL: Final = r""".SH ENVIRONMENT
.TP
.B SOFTSGX_DEBUG
If set, a traceback precedes the line of an error.
.TP
.B XDG_CACHE_HOME
Where results of disassembling are kept, in the directory softsgx; by default ~/.cache.
.TP
.B NO_COLOR
No colours.
.SH SEE ALSO
.BR gdb (1),
.BR strace (1),
.BR ptrace (2),
.BR seccomp (2)
"""


def page() -> str:
    """The page, in the macros of man(7)."""
    sections = []
    for name, about, table in tables():
        sections.append(f".SS softsgx {name}\n{_text(about)}.\n.PP\n.nf\n")
        sections.append("".join(f"{_text(line)}\n" for line in table.usage().splitlines()))
        sections.append(".fi\n")
        if len(table.modes) > 1:
            modes = ((table.name(mode), mode.about) for mode in table.modes)
            sections += [f".TP\n.B {_text(what)}\n{_text(does)}\n" for what, does in modes]
        sections += [_option(option) for option in table.options.values()]
        if table.in_file:
            text = f"A project's defaults: [tool.softsgx.{name}] of pyproject.toml."
            sections.append(f".PP\n{_text(text)}\n")
        sections.append(".PP\nExit codes:\n")
        sections += [f".TP\n.B {code}\n{_text(means)}\n" for code, means in table.codes.items()]
    return _HEAD + "".join(sections) + _TAIL


def _option(option: Option) -> str:
    default = f" Default: {option.default_text}." if option.default_text else ""
    return f".TP\n.B {_text(option.usage)}\n{_text(option.help)}.{_text(default)}\n"


def _text(text: str) -> str:
    """Text that troff prints as it is: dashes that can be copied, no requests by accident."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text)


def main() -> None:
    """Write the file."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

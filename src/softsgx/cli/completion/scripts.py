"""The scripts that complete: written from the tables of all commands, so that nothing is missed.

Where they go: bash, ~/.local/share/bash-completion/completions/softsgx; zsh, `_softsgx` in a
directory of $fpath; fish, ~/.config/fish/completions/softsgx.fish.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from softsgx.cli.declared import Option
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_OK
from softsgx.cli.main import COMMANDS
from softsgx.cli.modes import Table


def run(args: argparse.Namespace) -> int:
    """Print the script of one shell."""
    print_stdout(script(args.shell))
    return EXIT_OK


def script(shell: str) -> str:
    """The script for "bash", "zsh" or "fish"."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def tables() -> Iterator[tuple[str, str, Table]]:
    """Each command, its line of help, and its table."""
    for name, command in COMMANDS.items():
        yield name, command.help, import_module(command.module).TABLE


def _options(table: Table) -> list[Option]:
    return [option for option in table.options.values() if not option.positional]


def _values(option: Option) -> list[str]:
    """What its value may be, as far as that is a list; empty if it is joined to its name."""
    return [] if option.joined else [*(option.choices or option.words)]


def _words(table: Table) -> list[str]:
    """The words that an argument of the command may be, if they are known."""
    return [word for o in table.options.values() if o.positional for word in o.choices]


_BASH: Final = """\
# softsgx completion bash
_softsgx() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command=${COMP_WORDS[1]} at
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W '@COMMANDS@ --help --version' -- "$word"))
        return
    fi
    if [[ $command == run ]]; then
        for ((at = 2; at < COMP_CWORD; at++)); do
            if [[ ${COMP_WORDS[at]} == -- ]]; then
                _softsgx_program $((at + 1))
                return
            fi
        done
    fi
    case $command,$before in
@VALUES@
    esac
    case $command in
@OPTIONS@
    esac
}

# A program and its own arguments: as the shell completes these by themselves.
_softsgx_program() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)); then
        COMPREPLY=($(compgen -c -f -- "${COMP_WORDS[COMP_CWORD]}"))
    else
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -o filenames -F _softsgx softsgx
"""


def _bash() -> str:
    values, options = [], []
    for name, _, table in tables():
        own = _options(table)
        for option in own:
            if _values(option):
                words = shlex.quote(" ".join(_values(option)))
                values.append(
                    f'        {name},{option.name}) COMPREPLY=($(compgen -W {words} -- "$word"));'
                    " return ;;"
                )
        files = [o.name for o in own if not o.flag and not _values(o) and o.bare is None]
        if files:
            cases = "|".join(f"{name},{each}" for each in files)
            values.append(f'        {cases}) COMPREPLY=($(compgen -f -- "$word")); return ;;')
        known = " ".join([*(o.name for o in own), "--help", *_words(table)])
        reply = f'compgen -W {shlex.quote(known)} -- "$word"; compgen -f -- "$word"'
        options.append(f"        {name}) COMPREPLY=($({reply})) ;;")
    return (
        _BASH.replace("@COMMANDS@", " ".join(COMMANDS))
        .replace("@VALUES@", "\n".join(values))
        .replace("@OPTIONS@", "\n".join(options))
    )


_ZSH: Final = """\
#compdef softsgx
# softsgx completion zsh
_softsgx() {
    local -a commands
    commands=(
@COMMANDS@
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    ((CURRENT--))
    case $command in
@CASES@
    esac
}
if [[ $funcstack[1] == _softsgx ]]; then
    _softsgx "$@"
else
    compdef _softsgx softsgx
fi
"""


def _zsh() -> str:
    commands, cases = [], []
    for name, about, table in tables():
        commands.append(f"        {shlex.quote(f'{name}:{about}')}")
        lines = [f"        {name}) _arguments -s \\"]
        for option in _options(table):
            lines.append(f"            {shlex.quote(_specification(option))} \\")
        if name == "run":
            lines.append("            '*::program:_normal' ;;")
        elif _words(table):
            lines.append(f"            '1:word:({' '.join(_words(table))})' '*:file:_files' ;;")
        else:
            lines.append("            '*:file:_files' ;;")
        cases += lines
    return _ZSH.replace("@COMMANDS@", "\n".join(commands)).replace("@CASES@", "\n".join(cases))


def _specification(option: Option) -> str:
    """An option as _arguments of zsh takes it; "=" says that its value may follow that."""
    value = after = ""
    if offered := option.choices or option.words:
        value = f":{option.key}:({' '.join(offered)})"
    elif not option.flag:
        value = f":{option.metavar or option.key}:_files"
    if value and option.name.startswith("--"):
        after = "=-" if option.joined else "="
    return f"{'*' * option.many}{option.name}{after}[{_brackets(option.help)}]{value}"


def _brackets(text: str) -> str:
    return text.replace("[", "(").replace("]", ")").replace(":", "\\:")


def _fish() -> str:
    lines = ["# softsgx completion fish", "complete -c softsgx -n __fish_use_subcommand -f"]
    for name, about, _ in tables():
        what = f"-a {name} -d {shlex.quote(about)}"
        lines.append(f"complete -c softsgx -n __fish_use_subcommand {what}")
    for name, _, table in tables():
        there = shlex.quote(f"__fish_seen_subcommand_from {name}")
        for option in _options(table):
            kind = "-l" if option.name.startswith("--") else "-s"
            line = f"complete -c softsgx -n {there} {kind} {option.name.lstrip('-')}"
            if _values(option):
                line += f" -x -a {shlex.quote(' '.join(_values(option)))}"
            elif not option.flag and option.bare is None:
                line += " -r"
            lines.append(f"{line} -d {shlex.quote(option.help)}")
        if _words(table):
            lines.append(
                f"complete -c softsgx -n {there} -a {shlex.quote(' '.join(_words(table)))}"
            )
    run = shlex.quote("__fish_seen_subcommand_from run")
    lines.append(f"complete -c softsgx -n {run} -x -a '(__fish_complete_subcommand)'")
    return "\n".join(lines) + "\n"

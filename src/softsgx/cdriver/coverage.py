"""Which lines of the driver have been executed, as lcov writes it.

The compiler puts a call into every basic block, which counts there (c/notes.c). A block is what
lies between two of these calls, so its lines are those of its instructions. Counts are of this
process, over all machines with the object. The format is that of geninfo(1).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver.elf import Elf, load
from softsgx.cdriver.mapping import counts
from softsgx.cdriver.tree import DRIVER, SOURCES

_CALL: Final = 0xE8
_CALL_LENGTH: Final = 5
_HOOK: Final = "__sanitizer_cov_trace_pc"


class Block(NamedTuple):
    """A basic block: its function, its instructions, how often it was executed."""

    function: str
    start: int
    end: int
    times: int


def blocks(elf: Elf) -> Iterator[Block]:
    """The basic blocks of the driver in the order of their addresses."""
    at, code = elf.segments[0]
    hook = elf.symbols[_HOOK].address
    counted = counts(elf)
    for name, symbol in sorted(elf.symbols.items(), key=lambda item: item[1].address):
        if not symbol.function:
            continue
        first = symbol.address - at
        body = code[first : first + symbol.size]
        calls = [
            symbol.address + n
            for n in range(len(body) - _CALL_LENGTH + 1)
            if body[n] == _CALL and _target(body, n, symbol.address) == hook
        ]
        # What is in front of the first call belongs to its block.
        starts = [symbol.address, *calls[1:], symbol.address + symbol.size]
        for call, start, end in zip(calls, starts, starts[1:], strict=False):
            yield Block(name, start, end, counted[call + _CALL_LENGTH - elf.start])


def _target(body: bytes, n: int, base: int) -> int:
    relative = int.from_bytes(body[n + 1 : n + _CALL_LENGTH], "little", signed=True)
    return base + n + _CALL_LENGTH + relative


def lines(elf: Elf) -> dict[str, dict[int, int]]:
    """By file of the tree, how often each line was executed that has instructions."""
    found: dict[str, dict[int, int]] = {}
    for block in blocks(elf):
        first = max(bisect_left(elf.lines, (block.start,)) - 1, 0)
        for at in range(first, len(elf.lines)):
            address, file, line = elf.lines[at]
            if address >= block.end:
                break
            after = elf.lines[at + 1][0] if at + 1 < len(elf.lines) else block.end
            name = elf.files[file]
            # A line goes on up to the next one: the block may begin in the middle of it.
            if after > block.start and line and name in SOURCES:
                of_file = found.setdefault(name, {})
                of_file[line] = max(of_file.get(line, 0), block.times)
    return found


def lcov(path: Path) -> str:
    """The coverage of a driver object in this process; paths are those in the tree."""
    status = path.stat()
    elf = load(path, status.st_mtime_ns, status.st_size)
    functions: dict[str, list[tuple[int, str, int]]] = {}
    for block in blocks(elf):
        if block.start == elf.symbols[block.function].address:
            place = elf.line(block.start)
            if place is not None and place[0] in SOURCES:
                functions.setdefault(place[0], []).append((place[1], block.function, block.times))
    out: list[str] = []
    for name, counted in sorted(lines(elf).items()):
        of_file = sorted(functions.get(name, []))
        out += ["TN:", f"SF:{DRIVER}/{name}"]
        out += [f"FN:{line},{function}" for line, function, _ in of_file]
        out += [f"FNDA:{count},{function}" for _, function, count in of_file]
        out += [f"FNF:{len(of_file)}", f"FNH:{sum(bool(count) for _, _, count in of_file)}"]
        out += [f"DA:{line},{count}" for line, count in sorted(counted.items())]
        out += [f"LF:{len(counted)}", f"LH:{sum(map(bool, counted.values()))}", "end_of_record"]
    return "\n".join(out) + "\n"

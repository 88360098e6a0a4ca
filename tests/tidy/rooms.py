"""The import order of the rooms: downwards only, and rooms of one line do not know each other."""

import ast
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from tests.tidy.source import PACKAGE, Source

# From the bottom up; the picture in ARCHITECTURE.md, the other way round.
LINES: Final = (
    {"spec"},
    {"sim"},
    {"events"},
    {"mem"},
    {"cpu"},
    {"linux", "image", "explore", "report"},
    {"cdriver"},
    {"system"},
    {"lab", "project", "runner"},
    {"cli"},
)


def _allowed(lines: Sequence[set[str]]) -> dict[str, set[str]]:
    """What each room may import: itself, and the lines below its own."""
    below = accumulate(lines, lambda below, line: below | line, initial=set[str]())
    return {
        room: under | {room} for line, under in zip(lines, below, strict=False) for room in line
    }


ALLOWED: Final = {
    **_allowed(LINES),
    # A generic concurrency tester that could be published alone, and what it stands on.
    "sim": {"sim"},
    "explore": {"sim", "explore"},
    # A reader of events, and of the names for what is in them.
    "report": {"sim", "events", "spec", "report"},
    # Not rooms: the face, `softsgx.Machine`, stands above everything but the command line.
    PACKAGE: set().union(*LINES) - {"cli"},
    "__main__": {"cli"},
}


def room_order(source: Source) -> Iterator[str]:
    """Every import of a room that the file's own room must not know."""
    allowed = ALLOWED.get(source.room)
    if allowed is None:
        yield source.finding(source.tree, f"{source.room} is no room of ARCHITECTURE.md")
        return
    for node, name in _imports(source):
        room = _room(name)
        if room not in allowed and not (room == PACKAGE and source.room in ("cli", PACKAGE)):
            yield source.finding(node, f"{source.room} must not import {'.'.join(name)}")


# The rooms inside `runner`, and its own files, from the bottom up.
RUNNER_LINES: Final = (
    {"errors", "options", "run_result", "say", "ways"},
    {"host"},
    {"code"},
    {"cpuid"},
    {"inserted"},
    {"process"},
    {"traps"},
    {"enclaves"},
    {"emulator", "native"},
    {"calls"},
    {"doctor"},
    {"supervisor"},
    {"explored", "session"},
)
# The files and folders of `system`, and those that explain.
SYSTEM_LINES: Final = (
    {"enclave"},
    {"host"},
    {"loaded_enclave"},
    {"object_fields", "v2_enclave"},
    {"built", "loader", "snapshot"},
    {"explain"},
    {"machine"},
    {"runtimes", "scene"},
    {"checkers"},
    {"scenarios"},
)
EXPLAIN_LINES: Final = (
    {"history"},
    {"facts"},
    {"leaf_texts", "plans"},
    {"access_advice", "calls", "leaf_advice"},
    {"explainer", "unfinished"},
)
FLOORS: Final = {
    (PACKAGE, "runner"): _allowed(RUNNER_LINES),
    (PACKAGE, "system"): _allowed(SYSTEM_LINES),
    (PACKAGE, "system", "explain"): _allowed(EXPLAIN_LINES),
}


def inner_order(source: Source) -> Iterator[str]:
    """Every import within `runner` or `system` against the order of the rooms inside."""
    for floor, rooms in FLOORS.items():
        depth = len(floor)
        if source.module[:depth] != floor or source.module == floor:
            continue
        own = source.module[depth]
        if own not in rooms:
            inside = "/".join(source.module[1 : depth + 1])
            yield source.finding(source.tree, f"{inside} is in no line of tests/tidy/rooms.py")
            continue
        for node, name in _imports(source):
            for room in _rooms_of_floor(floor, node, name):
                if room not in rooms[own]:
                    yield source.finding(node, f"{own} must not import {room}")


def _rooms_of_floor(floor: tuple[str, ...], node: ast.AST, name: tuple[str, ...]) -> list[str]:
    depth = len(floor)
    if name[:depth] != floor:
        return []
    if name == floor and isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    return [name[depth]] if name != floor else list(FLOORS[floor])


# Elsewhere a test of it would leave out points for a gain that was measured, and is none.
SHORT_CUT: Final = (PACKAGE, "sim", "live")
SHORT_CUT_USERS: Final = (
    *("src/softsgx/sim/", "src/softsgx/cpu/execute.py"),
    # Spinlocks of the C code.
    *("src/softsgx/cdriver/call.py", "src/softsgx/cdriver/requests/tasks.py"),
)


def live_short_cut(source: Source) -> Iterator[str]:
    """The short cut of the live clock, where neither locks nor leaves are concerned."""
    if source.path.startswith(SHORT_CUT_USERS):
        return
    for node, name in _imports(source):
        names = {name}
        if isinstance(node, ast.ImportFrom):
            names |= {(*name, alias.name) for alias in node.names}
        if any(known[: len(SHORT_CUT)] == SHORT_CUT for known in names):
            yield source.finding(node, f"{'.'.join(SHORT_CUT)} is for locks and leaves only")


def _room(name: tuple[str, ...]) -> str:
    """The room of an imported module; `softsgx` where the face itself is imported."""
    return name[1] if len(name) > 1 else PACKAGE


def _imports(source: Source) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """Modules of softsgx imported anywhere in the file, functions and TYPE_CHECKING included."""
    for node in ast.walk(source.tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = _imported_from(source, node)
        elif isinstance(node, ast.Call) and _is_dynamic(source, node):
            names = [tuple(str(ast.literal_eval(node.args[0])).split("."))]
        yield from ((node, name) for name in names if name[0] == PACKAGE)


def _imported_from(source: Source, node: ast.ImportFrom) -> list[tuple[str, ...]]:
    module = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        up = node.level - 1 if source.is_package else node.level
        module = source.module[: len(source.module) - up] + module
    if module != (PACKAGE,):
        return [module]
    # A room, or something of the face; of that, the version is for everybody.
    names = [alias.name for alias in node.names if alias.name != "__version__"]
    return [(PACKAGE, name) if name in ALLOWED else (PACKAGE,) for name in names]


def _is_dynamic(source: Source, node: ast.Call) -> bool:
    return (
        source.dotted(node.func) in ("importlib.import_module", "__import__")
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )

"""Below `runner` a run depends on its seed alone: no clock, entropy, threads, or set order."""

import ast
from collections.abc import Iterator
from typing import Final

from tests.tidy.source import Source

IMPURE_ROOMS: Final = ("runner", "cli", "__main__")
FORBIDDEN_MODULES: Final = frozenset(
    "time random secrets uuid threading _thread multiprocessing concurrent asyncio ctypes"
    " signal subprocess".split()
)
FORBIDDEN_NAMES: Final = frozenset(
    "os.urandom os.getrandom os.fork os.times copy.deepcopy datetime.datetime.now"
    " datetime.datetime.utcnow datetime.datetime.today datetime.date.today".split()
)
# The seeded source from which all other randomness comes, and a compiler.
EXEMPT: Final = {
    "src/softsgx/sim/rng.py": "random",
    "src/softsgx/cdriver/arena.py": "ctypes",
    "src/softsgx/cdriver/mapping.py": "ctypes",
    "src/softsgx/cdriver/build.py": "subprocess",
}


def no_clock_no_entropy(source: Source) -> Iterator[str]:
    """Every import or use of something that makes two runs with one seed differ."""
    if source.room in IMPURE_ROOMS:
        return
    for node in ast.walk(source.tree):
        for name in _names(source, node):
            top = name.split(".")[0]
            module = top in FORBIDDEN_MODULES and EXEMPT.get(source.path) != top
            if module or name in FORBIDDEN_NAMES:
                yield source.finding(node, f"{name} below runner")


def _names(source: Source, node: ast.AST) -> list[str]:
    """The dotted names a node imports or uses."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Attribute):
        name = source.dotted(node)
        return [name] if name in FORBIDDEN_NAMES else []
    return []


# What reads a set in a way that hides its order.
ORDERLESS: Final = frozenset("sorted set frozenset any all min max sum len".split())
ORDERED: Final = frozenset("list tuple iter enumerate zip map filter reversed dict".split())
SET_TYPES: Final = frozenset(
    "set frozenset collections.abc.Set collections.abc.MutableSet typing.AbstractSet".split()
)


def no_set_order(source: Source) -> Iterator[str]:
    """Iterations over what is visibly a set: the order depends on hashes, and so on the process.

    Best effort: displays, calls of set and frozenset, operations on them, and names and attributes
    annotated as sets in the file. `sorted(...)` around the set is the remedy.
    """
    if source.room in IMPURE_ROOMS:
        return
    sets = _annotated_sets(source)
    orderless = _orderless_comprehensions(source)
    for node in ast.walk(source.tree):
        for iterated in _iterated(node, orderless):
            if _is_set(source, iterated, sets):
                yield source.finding(iterated, "iteration over a set: sort it, or keep a dict")


def _annotated_sets(source: Source) -> frozenset[str]:
    """Names and attributes that the file annotates as sets, as they are spelled."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            kind = node.annotation
            while isinstance(kind, ast.Subscript):
                inside = source.dotted(kind.value).endswith((".Final", ".ClassVar"))
                kind = kind.slice if inside else kind.value
            if source.dotted(kind) in SET_TYPES:
                found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
    # A field annotated in the body of a dataclass is read as self.field.
    return frozenset(found | {f"self.{name}" for name in found if "." not in name})


def _orderless_comprehensions(source: Source) -> frozenset[ast.AST]:
    """Comprehensions whose result has no order either."""
    found: set[ast.AST] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.SetComp):
            found.add(node)
        elif isinstance(node, ast.Call) and source.dotted(node.func) in ORDERLESS:
            found.update(node.args)
    return frozenset(found)


def _iterated(node: ast.AST, orderless: frozenset[ast.AST]) -> list[ast.expr]:
    """The expressions over which a node iterates in order."""
    if isinstance(node, ast.For | ast.AsyncFor | ast.YieldFrom):
        return [node.value if isinstance(node, ast.YieldFrom) else node.iter]
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
        return [] if node in orderless else [part.iter for part in node.generators]
    if isinstance(node, ast.Starred):
        return [node.value]
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        joins = isinstance(node.func, ast.Attribute) and node.func.attr == "join"
        return node.args if joins or name in ORDERED else []
    return []


def _is_set(source: Source, node: ast.expr, sets: frozenset[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return source.dotted(node.func) in ("set", "frozenset")
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor
    ):
        return _is_set(source, node.left, sets) or _is_set(source, node.right, sets)
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in sets

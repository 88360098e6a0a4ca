"""How a file reads: its length, its docstrings, and a few statements that hide what happens."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tests.tidy.source import Source

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60
# The one file that prints: it knows a closed, full or broken stream from a bug.
PRINTS: Final = "src/softsgx/cli/ends.py"
# The one file that may spell out MASK64.
MASKS: Final = "src/softsgx/spec/bits.py"

# The one file with numbers of system calls.
NUMBERS: Final = "src/softsgx/runner/host/nr.py"

# Path, or path:function, and why it may be longer. Files that are mostly tables need no entry.
LONG: Final[Mapping[str, str]] = {
    # An operation listing of the manual reads better in one piece than cut at 60 lines.
    "src/softsgx/cpu/leaf/eaccept.py:eaccept": "one operation listing",
    "src/softsgx/cpu/leaf/eadd.py:eadd": "one operation listing",
    "src/softsgx/cpu/leaf/einit.py:einit": "one operation listing",
    "src/softsgx/cpu/leaf/eld.py:load_page": "one operation listing",
    "src/softsgx/cpu/leaf/ewb.py:ewb": "one operation listing",
    # Read side by side with the kernel's own files.
    "src/softsgx/linux/sgx/encl.py": "the kernel's encl.c",
    "src/softsgx/linux/sgx/ioctl.py": "the kernel's ioctl.c",
    "src/softsgx/linux/syscalls.py": "one function per system call",
    "src/softsgx/runner/supervisor/supervisor.py": "what each stop of a thread means",
    # One class of the protocol in runner/enclaves/engine.py.
    "src/softsgx/runner/native/engine.py": "what each stop of a thread inside means",
}


def no_hiding(source: Source) -> Iterator[str]:
    """Star imports, bare excepts, exceptions of no kind, prints that nothing guards."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            yield source.finding(node, "star import")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield source.finding(node, "bare except")
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if source.dotted(raised) in ("Exception", "BaseException"):
                yield source.finding(node, "raise Exception: name the kind")
        elif isinstance(node, ast.Call) and source.dotted(node.func) == "print":
            if source.path != PRINTS:
                yield source.finding(node, f"print: {PRINTS} has say and show")


def lengths(source: Source, long: Mapping[str, str] = LONG) -> Iterator[str]:
    """Files and functions in which there may be an idea that wants its own room."""
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX and source.path not in long and not mostly_tables(source):
        yield source.finding(source.tree, f"{lines} lines, more than {FILE_LINES_MAX}")
    for name, node in source.functions():
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX and f"{source.path}:{name}" not in long:
            yield source.finding(node, f"{name}: {lines} lines, more than {FUNCTION_LINES_MAX}")


def mostly_tables(source: Source) -> bool:
    """Whether more than half of the file is data: assignments, and classes of nothing else."""
    tables = sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in source.tree.body
        if _is_table(node)
    )
    return 2 * tables > source.text.count("\n")


def _is_table(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        docstring = 1 if ast.get_docstring(node) is not None else 0
        return all(_is_table(part) for part in node.body[docstring:])
    return isinstance(node, ast.Assign | ast.AnnAssign)


def docstrings(source: Source) -> Iterator[str]:
    """Public modules and classes without a docstring."""
    private = any(part.startswith("_") and part != "__main__" for part in source.module)
    if not private:
        yield from _docstrings(source, source.tree)


def _docstrings(source: Source, node: ast.Module | ast.ClassDef) -> Iterator[str]:
    if not (ast.get_docstring(node) or "").strip():
        name = f"class {node.name}" if isinstance(node, ast.ClassDef) else "module"
        yield source.finding(node, f"{name} has no docstring")
    for part in node.body:
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_"):
            yield from _docstrings(source, part)


def masks_have_a_name(source: Source) -> Iterator[str]:
    """Sixty-four ones are `spec.bits.MASK64`: six files had a name of their own for them."""
    for node in ast.walk(source.tree):
        ones = (isinstance(node, ast.BinOp) and ast.unparse(node) == "(1 << 64) - 1") or (
            isinstance(node, ast.Constant) and node.value == (1 << 64) - 1
        )
        if ones and source.path != MASKS:
            yield source.finding(node, "spec.bits.MASK64 is the name of this")


def system_call_numbers(source: Source) -> Iterator[str]:
    """A number of a system call, by a name or as it is, outside of the table of all."""
    if source.room != "runner" or source.path == NUMBERS:
        return
    for node in source.tree.body:
        for name, _ in _constants(node):
            if name.lstrip("_").startswith(("NR_", "SYS_")):
                yield source.finding(node, f"{name}: {NUMBERS} has the numbers of system calls")
    for call in ast.walk(source.tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        number = {"inject": 0, "inject_at": 1, "syscall": 0}.get(call.func.attr)
        if number is not None and len(call.args) > number:
            if isinstance(call.args[number], ast.Constant):
                yield source.finding(call, f"{NUMBERS} has a name for this system call")


def dead_private_names(source: Source) -> Iterator[str]:
    """Private constants of a module that nothing in it reads; vulture passes over private names."""
    read = {
        node.id
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for node in source.tree.body:
        for name, _ in _constants(node):
            if name.startswith("_") and not name.startswith("__") and name not in read:
                yield source.finding(node, f"{name} is read by nothing in its file")


def dead_assignments(source: Source) -> Iterator[str]:
    """A local name that is assigned twice in one block and not read in between.

    `flush = True` twice in mremap was harmless; the second of two is often meant for another name.
    """
    for _, function in source.functions():
        inner = [node for node in ast.walk(function) if node is not function and _is_scope(node)]
        shared = {name.id for scope in inner for name in _names(scope, ast.Load)}
        guarded = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.Try)
            for part in (*node.handlers, *node.finalbody, *node.orelse)
            for name in _names(part, ast.Load)
        }
        outer = {
            name
            for node in ast.walk(function)
            if isinstance(node, ast.Global | ast.Nonlocal)
            for name in node.names
        }
        for block in _blocks(function):
            for name, node in _assigned_again(block):
                if name not in shared | guarded | outer:
                    yield source.finding(node, f"{name} is assigned again before it is read")


def _is_scope(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _names(node: ast.AST, kind: type[ast.expr_context]) -> Iterator[ast.Name]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, kind):
            yield part


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for part in ast.walk(node):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(part, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _assigned_again(block: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    unread: set[str] = set()
    for statement in block:
        unread -= {name.id for name in _names(statement, ast.Load)}
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            unread.discard(statement.target.id)
        if any(isinstance(part, ast.Continue | ast.Break) for part in ast.walk(statement)):
            unread.clear()
        target = _only_name(statement)
        if target in unread:
            yield target, statement
        if target:
            unread.add(target)


def _only_name(statement: ast.stmt) -> str:
    """The name that a statement assigns, if it does only that."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    else:
        return ""
    return target.id if isinstance(target, ast.Name) else ""


# Names that are equal by accident, and why each file has its own.
OWN: Final[Mapping[str, str]] = {
    "BUFFER": "how much each writer keeps before it writes",
    "ERESTARTSYS": "report imports no room that has the kernel's numbers",
    "FORMAT": "each format of a file is counted by itself",
    "HEAD": "the width of a column in two outputs",
    "LINES_MAX": "how much an output shows is its own affair",
    "P": "a ParamSpec",
    "READ": "a kind of access, a direction of an ioctl, the number of a system call",
    "RESERVED": "the same word in two tables",
    "T": "a TypeVar",
    "WORD": "what EDBGRD reads, and what PTRACE_PEEKDATA does",
    "WRITE": "as READ",
}
_PREFIX: Final = re.compile(r"_*(NR_|SYS_)?")


def repeated_constants(files: Iterable[Source], own: Mapping[str, str] = OWN) -> Iterator[str]:
    """One name with one value in two modules: one imports it from the other.

    Also private ones, those of tuples, and system calls called NR_x here and SYS_x there. Each of
    EXIT_INTERRUPTED, SI_KERNEL, the paths of the nodes and futex's number stood in several files.
    """
    seen: dict[tuple[str, str], str] = {}
    for source in files:
        for node in source.tree.body:
            for name, value in _constants(node):
                stem = _PREFIX.sub("", name, count=1)
                if not name.isupper() or stem in own:
                    continue
                first = seen.setdefault((stem, _value(value)), source.path)
                if first != source.path:
                    text = f"{name} = {ast.unparse(value)}"
                    yield source.finding(node, f"{text} stands in {first} as well")


def _constants(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Names that a statement assigns, each with its own value."""
    value = getattr(node, "value", None)
    if (name := _only_name(node)) and value is not None:
        yield name, value
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        if isinstance(node.value, ast.Tuple):
            for target, one in zip(node.targets[0].elts, node.value.elts, strict=False):
                if isinstance(target, ast.Name):
                    yield target.id, one


def _value(value: ast.expr) -> str:
    """Equal for 0x80 and 128."""
    try:
        return repr(ast.literal_eval(value))
    except ValueError:
        return ast.unparse(value)

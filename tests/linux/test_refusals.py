"""Every errno that the kernel's code returns names a rule, and each rule has words and advice.

The code itself is read: a new `return -EINVAL` without a rule, a rule without words, and words that
no line uses make a test fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from softsgx.linux import errno
from softsgx.linux.refusals import REFUSALS, function_of, leaf_of
from softsgx.spec.leaves import ENCLS_LEAVES
from softsgx.system.explain.calls.advice import ADVICE
from tests.tidy.source import ROOT

LINUX = ROOT / "src" / "softsgx" / "linux"
RUNNER = ROOT / "src" / "softsgx" / "runner"
# Functions whose callers name the rule, or whose errno does not end a call.
NAMED_BY_THE_CALLER = {
    "fault.py:fault_in_user": "copy_from_user and copy_to_user name it",
    "mm.py:get_unmapped_area": "_get_unmapped_area of mmap names it",
    "mm.py:split_vma": "mprotect, madvise name it",
    "mm.py:__split_vma": "mprotect, munmap name it",
    "mm.py:isolate": "munmap and mremap name it",
    "mm.py:insert_pfn": "a fault handler makes SIGBUS of it",
    "mm.py:page_aligned_range": "mmap and munmap name it",
    "process.py:install_fd": "open and dup name it",
    "process.py:fget": "the calls on descriptors name it",
    "sgx/python_driver.py:open": "open names it",
    "ptrace.py:_peek": "access_process_vm has named it",
    "ptrace.py:_poke": "access_process_vm has named it",
    "ptrace.py:_mem_rw": "access_process_vm has named it",
    "sgx/edmm.py:sgx_load_for_ioctl": "another errno for the rule of sgx_encl_load_page",
    "sgx/ioctl.py:_sgx_ioctl": "ENOTTY for ENOIOCTLCMD, whose rule was named",
    "sgx/v2.py:_restrict_page": "another errno for the rule of sgx_encl_load_page",
    "sgx/ioctl.py:sgx_ioc_enclave_create": "copy_from_user has named it",
    "sgx/ioctl.py:sgx_ioc_enclave_add_pages": "copy_from_user has named it",
    "sgx/ioctl.py:sgx_ioc_enclave_init": "copy_from_user has named it",
    "sgx/ioctl.py:sgx_ioc_enclave_provision": "copy_from_user has named it",
    "sgx/page_ioctl.py:sgx2_arguments": "copy_from_user has named it",
    "sgx/v2.py:sgx_perm_from_user_secinfo": "copy_from_user has named it",
    "sgx/v2.py:sgx_ioc_enclave_modt": "copy_from_user has named it",
    "sgx/main.py:arch_memory_failure": "no call of a program",
    "sgx/main.py:sgx_unmark_page_reclaimable": "MODIFY_TYPES, REMOVE_PAGES name it",
    "syscalls.py:sys_ioctl": "EINTR for ERESTARTSYS, whose rule was named",
    "uaccess.py:_source_page": "pin_source_page names it",
    "uaccess.py:get_user_page_remote": "pin_source_page and process_vm_readv name it",
    "uaccess.py:_user_pfn": "copy_from_user and copy_to_user name it",
    **dict.fromkeys(
        (
            *("char_device.py:open_flags", "char_device.py:_read", "char_device.py:_write"),
            *("char_device.py:positioned", "char_device.py:_lseek", "char_device.py:_invalid"),
            *("char_device.py:_ftruncate", "char_device.py:_fallocate", "char_device.py:_fcntl"),
            *("char_device.py:_sync_file_range", "char_device.py:_readahead"),
            *("char_device.py:_to_other", "char_device.py:_from_other"),
            *("char_device.py:_copy_file_range", "char_device.py:xattr"),
        ),
        "runner.process.stops.refuse names it",
    ),
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(LINUX.rglob("*.py")):
        yield str(path.relative_to(LINUX)), ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef):
            yield node
            waiting += ast.iter_child_nodes(node)


def is_errno(node: ast.AST) -> bool:
    if not isinstance(node, ast.UnaryOp) or not isinstance(node.op, ast.USub):
        return False
    name = node.operand.id if isinstance(node.operand, ast.Name) else ""
    return name in vars(errno) and name.startswith("E")


def bare(tree: ast.Module) -> set[str]:
    """Functions that return, or set a result to, a negated errno that names no rule."""
    found = set()
    for function in functions(tree):
        for node in own(function):
            if isinstance(node, ast.Return | ast.Assign) and node.value is not None:
                compared = {
                    id(part)
                    for whole in ast.walk(node.value)
                    if isinstance(whole, ast.Compare)
                    for part in ast.walk(whole)
                }
                parts = (part for part in ast.walk(node.value) if id(part) not in compared)
                if any(is_errno(part) for part in parts):
                    found.add(function.name)
    return found


def rules_in(tree: ast.Module) -> Iterator[str]:
    """The rules that calls of `refused`, `refused_call` and `refuse` name."""
    of_module = _constants(tree.body)
    for function in functions(tree):
        constants = of_module | _constants(own(function))
        for node in own(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                position = {"refused": 2, "refused_call": 3, "refuse": 4}.get(node.func.id)
                if position is not None and len(node.args) > position:
                    yield from _texts(node.args[position], constants)


def _constants(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """The values that names are set to."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        for name, value in _assigned(node):
            found.setdefault(name, []).append(value)
    return found


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    targets: list[ast.expr]
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, value = [node.target], node.value
    elif isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for name, part in zip(target.elts, value.elts, strict=True):
                if isinstance(name, ast.Name):
                    yield name.id, part


def _texts(node: ast.expr, constants: dict[str, list[ast.expr]]) -> list[str]:
    """The texts that an expression can be: a literal, a name, a conditional, an f-string."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return _texts(node.body, constants) + _texts(node.orelse, constants)
    if isinstance(node, ast.Name):
        return [text for value in constants.get(node.id, ()) for text in _texts(value, constants)]
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, constants)
    if isinstance(node, ast.JoinedStr):
        texts = [""]
        for part in node.values:
            texts = [text + more for text in texts for more in _texts(part, constants)]
        return texts
    return []


@pytest.mark.parametrize(("name", "tree"), list(sources()), ids=lambda value: str(value)[:24])
def test_every_errno_names_its_rule(name: str, tree: ast.Module) -> None:
    silent = {f"{name}:{function}" for function in bare(tree)}
    assert silent <= set(NAMED_BY_THE_CALLER), sorted(silent - set(NAMED_BY_THE_CALLER))


def test_the_exceptions_are_needed() -> None:
    silent = {f"{name}:{function}" for name, tree in sources() for function in bare(tree)}
    assert set(NAMED_BY_THE_CALLER) == silent


def used() -> set[str]:
    trees = [tree for _, tree in sources()]
    trees += [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(RUNNER.rglob("*.py"))]
    return {rule for tree in trees for rule in rules_in(tree)}


def test_every_rule_that_is_named_has_words_and_each_has_its_line() -> None:
    # A prefix that a function sets (`rule = "do_mprotect_pkey"`) is not a rule by itself.
    prefixes = {function_of(rule) for rule in REFUSALS}
    assert {rule for rule in used() if rule not in prefixes} == set(REFUSALS)


def test_every_rule_has_a_way_out_or_the_layers_have_it() -> None:
    """For what the driver finds in a SIGSTRUCT, the fields that do not fit are the advice."""
    by_fields = {rule for rule in REFUSALS if rule.startswith("sgx_encl_init.signed_")}
    assert set(ADVICE) == set(REFUSALS) - by_fields
    assert len(by_fields) == 3
    texts = [way for way in ADVICE.values() if isinstance(way, str)]
    assert all(texts)
    assert not [way for way in texts if "allowed as soon as" in way]


def test_a_rule_in_capitals_is_a_leaf_of_the_kernel() -> None:
    leaves = {name for name, _ in ENCLS_LEAVES.values()}
    named = {leaf_of(rule) for rule in REFUSALS} - {""}
    assert named <= leaves
    assert {"ECREATE", "EADD", "EEXTEND", "EINIT", "EMODPR", "EMODT", "ETRACK", "ELDU"} <= named


def test_the_search_finds_what_it_is_for() -> None:
    tree = ast.parse(
        "def f(current):\n"
        "    rule = 'a'\n"
        "    if current == -EBUSY:\n"
        "        return refused(current, EINVAL, f'{rule}.one')\n"
        "    return -EINVAL if current else 0\n"
        "def g(x):\n"
        "    return x == -EBUSY\n"
    )
    assert bare(tree) == {"f"}
    assert list(rules_in(tree)) == ["a.one"]
    assert Path(LINUX, "sgx", "ioctl.py").is_file()

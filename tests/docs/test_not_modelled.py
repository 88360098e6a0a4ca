"""What is not modelled: every refusal is listed, and what a row promises is tested.

For a row that promises an answer (Unmodelled, an errno, an exception, a signal) ROWS names the test
that provokes it. Rows that only say what is absent or different promise none.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from softsgx.runner.explored.elf_scenario import ElfScenario
from softsgx.runner.process.world import World
from softsgx.sim import Unmodelled
from tests.image.builders import ET_EXEC, TEXT, elf_file
from tools.document_blocks import raises
from tools.documents import ROOT, all_blocks

HERE = "tests/docs/test_not_modelled.py"

# The text of each `raise Unmodelled`, and the test that reaches it.
RAISED = {
    "ENCLU without ENDBRANCH under a legacy code page bitmap": (
        "tests/cpu/test_cet_entry.py::test_the_legacy_bitmap_of_a_host_is_not_modelled"
    ),
    "...[...]": "tests/cpu/test_unmodelled.py::test_executing_an_absent_leaf_is_unmodelled",
    "ENCLV[...]": "tests/cpu/test_unmodelled.py::test_executing_an_absent_leaf_is_unmodelled",
    "Part(...=True)": (
        "tests/cpu/test_unmodelled.py::test_a_part_cannot_announce_what_is_not_modelled"
    ),
    "madvise with advice ... of anonymous memory": "tests/linux/test_procfs.py::",
    "mlock of anonymous memory": (
        "tests/linux/test_madvise.py::test_locking_of_anonymous_memory_is_not_modelled"
    ),
    "V2: an entry with no rights in an area that has some": (
        "tests/linux/test_review_v2.py::test_an_entry_without_any_right_is_not_modelled"
    ),
    "mmap of anonymous memory with MAP_DROPPABLE": "tests/linux/test_review_memory.py::",
    "mremap of anonymous memory that grows it or leaves it mapped": (
        "tests/linux/test_mremap.py::test_anonymous_memory_that_would_grow_is_not_modelled"
    ),
    "mremap to a fixed address, of several areas or refused, on Linux 6.18": (
        "tests/linux/test_mremap.py::test_6_18_checks_before_it_unmaps"
    ),
    "a signal for a thread whose call has no handler: cpu ...": (
        "tests/runner/explored/test_points.py::test_a_signal_without_a_handler_is_not_modelled"
    ),
    "fingerprint of a machine that runs real programs": f"{HERE}::test_a_live_machine_is_no_state",
    "snapshot of a machine that runs real programs": f"{HERE}::test_a_live_machine_is_no_state",
    "...: ET_EXEC in a scenario; link it with -static-pie": (
        f"{HERE}::test_a_scenario_takes_no_program_that_is_linked_to_an_address"
    ),
    "no price for points of kind ..., and no default price": "tests/sim/test_virtual_time.py::",
    "driver: ...": ("tests/cdriver/test_misdeeds.py::test_what_the_headers_do_not_model_is_said"),
    "...: its machine is made without the driver object": (
        "tests/cdriver/test_exploring.py::test_a_machine_of_its_own_without_the_object_is_refused"
    ),
    "the state of ...: ...": (
        "tests/explore/test_states.py::test_what_cannot_be_covered_is_named_with_its_path"
    ),
    "this Python does not show what suspended generators hold": (
        "tests/explore/test_states.py::test_a_python_that_hides_generators_is_refused"
    ),
    "snapshot: ...: a running ... cannot be restored": "tests/system/test_snapshot.py::",
    "snapshot: ...: a suspended ... cannot be restored": "tests/system/test_snapshot.py::",
    "snapshot: ...: an object of type ... cannot be restored": "tests/system/test_snapshot.py::",
}

# The beginning of each row that promises an answer, and the test that provokes it.
_PROGRAMS = "tests/programs"
ROWS = {
    # docs/not-modelled.md: the processor
    "CET instructions": RAISED["ENCLU without ENDBRANCH under a legacy code page bitmap"],
    "EVERIFYREPORT2, EUPDATESVN, ENCLV": RAISED["...[...]"],
    "32-bit processors": "tests/cpu/leaf/test_entry.py::test_entry_refuses",
    # The kernel
    "`/dev/sgx_vepc`, KVM": "tests/linux/test_open.py::test_open_of_another_path",
    "task switching": "tests/system/test_threads.py::",
    "signals": "tests/linux/test_add_pages.py::",
    "CET of programs and of enclaves": "tests/linux/test_cet.py::test_init_allows_no_enclave_cet",
    "anonymous memory that mremap grows": RAISED["mlock of anonymous memory"],
    "Linux 6.18: mremap to a fixed address": (
        "tests/linux/test_mremap.py::test_6_18_checks_before_it_unmaps"
    ),
    "EUPDATESVN by the driver": RAISED["...[...]"],
    "V2: an entry with no rights": RAISED["V2: an entry with no rights in an area that has some"],
    "machines of real programs": f"{HERE}::test_a_live_machine_is_no_state",
    # docs/run.md: the reference engine
    "system calls may name enclave memory": f"{_PROGRAMS}/not_served.c::getrandom",
    "XFRM: what the processor has": f"{_PROGRAMS}/illegal_inside.c::VEX with XFRM 3",
    "SSE exceptions (#XM)": (
        "tests/runner/test_trap_table.py::test_a_program_and_its_enclave_are_told_so"
    ),
    # Both engines
    "the device by any path": f"{_PROGRAMS}/not_served.c::chmod",
    "a signal of the process goes to any thread": (
        "tests/signals/test_signals.py::test_signals_inside_an_enclave"
    ),
    "gdb or strace can attach": f"{_PROGRAMS}/not_served.c::PTRACE_TRACEME",
    "pkey_mprotect gives enclave memory": f"{_PROGRAMS}/advice_table.c::pkey_mprotect: 15",
    "a program's own seccomp filter is all": f"{_PROGRAMS}/filters_int80.c::one listener",
    "a filter costs what it costs": f"{_PROGRAMS}/filters_listener.c::of_long_filters",
    # The native engine, and what the reference engine does instead
    "fetches outside ELRANGE are": "tests/runner/emulator/test_engine.py::",
    "memory in ELRANGE that is no EPC": f"{_PROGRAMS}/ordinary_in_elrange.c::main",
    "CPUID is #UD": f"{_PROGRAMS}/illegal_inside.c::TRY_CPUID",
    "MOV and POP to segment registers": f"{_PROGRAMS}/illegal_inside.c::TRY_MOV_DS",
    "SYSCALL and INT 80H are": f"{_PROGRAMS}/illegal_native.c::TRY_SYSCALL",
    "RDTSC, RDTSCP on a part without": "tests/runner/test_parts.py::test_sgx1_is_its_fields",
    "VEX and EVEX forms need": f"{_PROGRAMS}/illegal_inside.c::VEX with XFRM 3",
    "exceptions inside are the enclave's": f"{_PROGRAMS}/blocked_signals.c::sigismember",
}

PROMISE = re.compile(r"Unmodelled|\bE[A-Z]{4,}\b|#[A-Z]{2}\b|\bSIG[A-Z]{3,}\b|ValueError")
# Words in capitals that are not an errno.
NO_ERRNO = re.compile(r"\b(EENTER|EEXIT|ERESUME|EMODPR|EMODPE|EACCEPT|EREMOVE|EPCM|ELRANGE|EVEX)\b")


def rows() -> list[tuple[str, str]]:
    """First cell, and the others, of the tables that this test answers for."""
    found = []
    for block in all_blocks():
        if "test_rows_that_promise_an_answer" in block.mark:
            for line in block.lines[2:]:
                first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
                found.append((first, " ".join(others)))
    return found


def promising() -> list[str]:
    """The first cells of rows that promise an answer."""
    return [first for first, others in rows() if PROMISE.search(NO_ERRNO.sub("", others))]


def is_there(node: str) -> bool:
    """Whether the file has the function, or, being a C program, the text; "" is anything."""
    path, name = node.split("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".py") and name:
        functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef))
        return any(function.name == name for function in functions)
    return name in text


def test_rows_that_promise_an_answer_have_a_test() -> None:
    found = promising()
    assert len(found) > 20
    for first in found:
        tests = [test for start, test in ROWS.items() if first.startswith(start)]
        assert len(tests) == 1, f"no test, or several: {first}"
        assert is_there(tests[0]), tests[0]
    for start in ROWS:
        assert any(first.startswith(start) for first in found), f"no row promises: {start}"


def test_every_refusal_has_a_test() -> None:
    """A new `raise Unmodelled`: `make docs` lists it; its test is named here."""
    assert {raised.says for raised in raises()} == RAISED.keys()
    for node in RAISED.values():
        path, name = node.split("::")
        assert is_there(node), node
        text = (ROOT / path).read_text(encoding="utf-8")
        body = text[text.index(f"def {name}") :] if name else text
        assert "raises(Unmodelled" in body, node


def test_a_live_machine_is_no_state() -> None:
    """What a program has done outside the machine can be neither undone nor compared."""
    world = World(epc="1M")
    try:
        with pytest.raises(Unmodelled, match="snapshot of a machine that runs real programs"):
            world.machine.processor.snapshot()
        with pytest.raises(Unmodelled, match="fingerprint of a machine that runs real programs"):
            world.machine.processor.fingerprint()
    finally:
        world.memory.close()


def test_a_scenario_takes_no_program_that_is_linked_to_an_address(tmp_path: Path) -> None:
    class Fixed(ElfScenario):
        elf = str(tmp_path / "fixed")

    (tmp_path / "fixed").write_bytes(elf_file(TEXT, e_type=ET_EXEC))
    with pytest.raises(Unmodelled, match="ET_EXEC in a scenario; link it with -static-pie"):
        Fixed().image()

"""The way of a page fault as ARCHITECTURE.md draws it, against the calls that a machine makes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType

import softsgx
from softsgx import Machine
from softsgx.sim import Steps
from softsgx.system import EnclaveThread, load
from tools.documents import ROOT, all_blocks

PACKAGE = str(Path(softsgx.__file__).parent) + "/"
CALL = re.compile(r"([\w/]+\.py): (\w+)")


def drawn() -> list[str]:
    """`path: function` of each line of the picture."""
    (block,) = (b for b in all_blocks() if "test_the_way_of_a_page_fault" in b.mark)
    return [found[0] for line in block.lines[1:-1] if (found := CALL.search(line))]


def called() -> list[str]:
    """The calls within the package while a new page of the heap is accepted and stored to."""
    machine = Machine(epc="4M", linux="6.12")
    host = machine.thread()
    enclave = machine.run(load(host, pages=1))
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            path = frame.f_code.co_filename.removeprefix(PACKAGE)
            calls.append(f"{path}: {frame.f_code.co_name}")

    def program(t: EnclaveThread) -> Steps[None]:
        # The page of the SECINFO operand faults first; the picture leaves that out.
        yield from t.store(t.secinfo, bytes(8))
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            yield from t.accept_new(enclave.heap)
            yield from t.store(enclave.heap, b"data")
        finally:
            sys.setprofile(before)

    machine.run(enclave.call(host, program))
    return calls


def test_the_way_of_a_page_fault() -> None:
    calls, at = called(), 0
    lines = drawn()
    assert len(lines) > 15
    for line in lines:
        assert line in calls[at:], f"{line} is not called after {calls[at - 1]}"
        at = calls.index(line, at) + 1


def test_architecture_is_a_map() -> None:
    """What does not fit on it has a page of its own."""
    assert (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").count("\n") <= 200

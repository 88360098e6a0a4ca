"""Rules that are not checks of the processor model, and all exceptions: those of the engines."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

import softsgx
from softsgx.events.cpu import AccessFaulted, InstructionFaulted
from softsgx.events.kernel import PageFaultEnded, SignalSent, VdsoReturned
from softsgx.spec.faults import PF, UD, VECTOR_NAMES
from softsgx.spec.rules import RULES
from softsgx.spec.translation import READ, WRITE
from softsgx.system import EnclaveFault, Machine, SignalRaised
from softsgx.system.enclave import _RAISED
from softsgx.system.explain.explainer import rule_text
from tests.explained.judge import Judge
from tests.linux.world import world

SOURCES: Final = Path(softsgx.__file__).parent
# Named by a fault that is never reported: the native engine asks the model first.
UNTOLD: Final = frozenset({"NATIVE.01"})
_RULE: Final = re.compile(r"[A-Z][A-Z0-9]+\.\d\d")


def named() -> list[str]:
    """Every rule that the sources name and that is not the processor's."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if _RULE.fullmatch(node.value) else set()
    return sorted(found - set(RULES) - UNTOLD)


@pytest.mark.parametrize("rule", named())
def test_a_rule_of_an_engine_is_explained(rule: str) -> None:
    machine = Machine(cpus=1, epc="1M")
    judge, log = Judge(machine, instructions=True), machine.processor.log
    machine.thread()
    if rule.startswith("CODE."):
        log.emit(InstructionFaulted(0, 0x1234, UD, 0, rule))
        log.emit(VdsoReturned(0, "main", UD, 0, 0))
        log.emit(InstructionFaulted(0, 0x1234, UD, 0, rule))
        log.emit(SignalSent(0, "main", "SIGILL ILL_ILLOPN", 0x1234, UD, 0))
    else:
        access = WRITE if rule == "HOST.02" else READ
        log.emit(AccessFaulted(0, 0x1000, access, PF, 4, rule, 0))
        log.emit(PageFaultEnded(0, "main", 0x1000, 4, "SIGSEGV SEGV_MAPERR"))
        log.emit(SignalSent(0, "main", "SIGSEGV SEGV_MAPERR", 0x1000, PF, 4))
    assert sum(judge.counts.values()) >= 1
    assert not judge.findings, str(judge.findings[0])
    assert rule_text(rule)
    last = judge.explainer.last
    assert last is not None
    assert last.advice, f"no way out:\n{last.text}"


@pytest.mark.parametrize("vector", sorted(_RAISED), ids=lambda v: VECTOR_NAMES.get(v, hex(v)))
def test_every_exception_that_a_program_raises_is_explained(vector: int) -> None:
    machine = Machine(cpus=1, epc="1M")
    judge = Judge(machine)
    w = world(machine)
    with pytest.raises((EnclaveFault, SignalRaised)):
        w.call(lambda t: t.exception(vector))
    assert [what for what in judge.counts if what.endswith("CODE.04")]
    assert not judge.findings, str(judge.findings[0])

"""The judge of explanations: listens after an Explainer and checks that every refusal is explained.

Verified: what a program sees as a refusal (a status of ENCLU, a signal, an exception returned by
the vDSO function, an errno of a call that is an event) is explained once, immediately, and under
its own rule or errno; nothing else is; the text names a layer, has a line for each, and holds no
number or name that is impossible. Not verified: that the reason is the right one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.linux.errno import EINTR, ERESTARTSYS
from softsgx.report.explanation import Explanation
from softsgx.report.fields import errno_or_value, exception_text, status_text
from softsgx.sim import Event
from softsgx.spec.leaves import ENCLU_LEAVES
from softsgx.spec.rules import RULES
from softsgx.system import Machine
from softsgx.system.explain.explainer import Explainer

ERRNO_MAX: Final = 4096
# Who refuses, as headlines name them.
LAYERS: Final = (
    *("the VMA", "the page table", "the driver", "the EPCM", "the TLB", "the processor"),
    *("the kernel", "the vDSO", "host memory"),
)
_ENCLU: Final = frozenset(name for name, _ in ENCLU_LEAVES.values())
_LEAF: Final = re.compile(
    r"\b(?:E[A-Z]{3,}2?|ENCL[USV]\[0x[0-9a-f]+\])(?:\([^)]*\))?\b.*\(\w+\.\d\d\)"
)
_BY_LAYER: Final = re.compile(rf"refused by (?:{'|'.join(LAYERS)})\b")
_INSTRUCTION: Final = re.compile(
    r"^(?:an instruction|instruction at 0x[0-9a-f]+) (?:refused|raised) \(CODE\.\d\d\)"
)
# What no text holds: a Python value, a negative number, an unfinished sentence.
_GARBAGE: Final = re.compile(r"\bNone\b|\bTrue\b|\bFalse\b|0x-|\bobject at\b|: *$|;\s*$", re.M)
_EVENT: Final = re.compile(r"\bevent (\d+)")
_THREAD: Final = re.compile(r"\bthread (\S+)")
_NUMBER: Final = re.compile(r"0x([0-9a-f]+)")
_OPERAND: Final = re.compile(r"\bR[BCD]X\b")
_EMPTY: Final = re.compile("allowed as soon as this is not so|no rule of Linux .* was named")


class Finding(NamedTuple):
    """`what` is the kind of refusal, `why` what is wrong with its explanation."""

    what: str
    why: str
    text: str

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for findings that differ in their numbers only."""
        return re.sub(r"0x[0-9a-f]+", "..", self.what), re.sub(r"0x[0-9a-f]+|\d+", "..", self.why)

    def __str__(self) -> str:
        return f"{self.what}: {self.why}\n{self.text}"


class Judge:
    """Explains a machine and judges the explanations. `counts` has each kind of refusal met."""

    def __init__(self, machine: Machine, *, instructions: bool = False) -> None:
        self.machine = machine
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self._told: list[Explanation] = []
        self._since: list[str] = []  # headlines since the last result
        self._threads = {"ksgxd"}
        self._open: dict[int, str] = {}  # processor -> the rule that refused last
        self._handlers: dict[type, Callable[[Any], None]] = {
            c.LeafDone: self._leaf_done,
            c.LeafFaulted: self._leaf_faulted,
            c.AccessFaulted: self._faulted,
            c.InstructionFaulted: self._faulted,
            k.PageFaultEnded: self._page_fault_ended,
            k.SignalSent: self._signal,
            k.VdsoReturned: self._vdso,
            k.CallEnded: self._call_ended,
            k.ThreadSwitchedIn: self._switched_in,
        }
        self.explainer = Explainer(machine.kernel, self._told.append, instructions=instructions)
        machine.processor.log.subscribe(self)

    def __call__(self, event: Event) -> None:
        """Called after the explainer: how did it explain this event?"""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        for extra in self._told:
            self._find("nothing refused", "an explanation of no refusal", extra)
        self._told.clear()

    # Refusals, by the event with which a program learns of them

    def _leaf_done(self, e: c.LeafDone) -> None:
        if e.rule and e.leaf in _ENCLU:
            self._expect(
                f"{e.leaf} {status_text(e.status)} {e.rule}", status_text(e.status), e.rule
            )

    def _leaf_faulted(self, e: c.LeafFaulted) -> None:
        if e.leaf in _ENCLU or e.leaf.startswith("ENCLU["):
            self._open[e.lp] = e.rule

    def _faulted(self, e: c.AccessFaulted | c.InstructionFaulted) -> None:
        self._open[e.lp] = e.rule

    def _page_fault_ended(self, e: k.PageFaultEnded) -> None:
        if e.outcome == "repaired":
            self._open.pop(e.cpu, None)

    def _signal(self, e: k.SignalSent) -> None:
        rule = self._open.pop(e.cpu, "")
        self._expect(f"{e.signal} {rule or 'of no rule'}", e.signal, rule)

    def _vdso(self, e: k.VdsoReturned) -> None:
        rule = self._open.pop(e.cpu, "")
        end = exception_text(e.vector, e.code)
        self._expect(f"vDSO {end} {rule or 'of no rule'}", end, rule)

    def _call_ended(self, e: k.CallEnded) -> None:
        if -ERRNO_MAX < e.result < 0:
            # What a program sees of -ERESTARTSYS is EINTR, if its handler does not restart.
            result = -EINTR if e.result == -ERESTARTSYS else e.result
            name = "unknown ioctl" if e.name.startswith("ioctl ") else e.name
            self._expect(f"{name} {errno_or_value(result)}", errno_or_value(result), "")

    def _switched_in(self, e: k.ThreadSwitchedIn) -> None:
        self._threads.add(e.thread)

    # Verdicts

    def result(self, call: str, result: int) -> None:
        """A call returned this: an errno must have been explained since the last result."""
        end = errno_or_value(result)
        if -ERRNO_MAX < result < 0 and not any(end in headline for headline in self._since):
            self._find(f"{call} {end}", "not explained", None)
        self._since.clear()

    def _expect(self, what: str, end: str, rule: str) -> None:
        """One explanation must come now, of this rule and this end of the operation."""
        self.counts[what] += 1
        if not self._told:
            self._find(what, "not explained", None)
            return
        found = self._told.pop(0)
        self._since.append(found.headline)
        for why in self._complaints(found, end, rule):
            self._find(what, why, found)

    def _complaints(self, found: Explanation, end: str, rule: str) -> Iterator[str]:
        text, headline = found.text, found.headline
        if end not in text:
            yield f"the text does not say {end}"
        if rule and found.rule != rule:
            yield f"explained by {found.rule}, refused by {rule}"
        if rule in RULES and found.rule_text != RULES[rule]:
            yield "other words than the rule's"
        if not found.rule_text:
            yield "no rule"
        if not names_layer(headline):
            yield "names no layer"
        about, named = _OPERAND.findall(headline), _OPERAND.findall(found.rule_text)
        if about and named and not set(about) & set(named):
            yield f"about another operand: {about[0]}"
        if _EMPTY.search(text):
            yield "no way out but the rule itself"
        garbage = _GARBAGE.search(text)
        if garbage:
            yield f"garbage: {garbage[0]!r}"
        if any(int(n) > self.machine.processor.log.seq for n in _EVENT.findall(text)):
            yield "an event that was not yet"
        if any(int(n, 16) >= 1 << 64 for n in _NUMBER.findall(text)):
            yield "a number of more than 64 bits"
        words = {name.split()[0] for name in self._threads}
        unknown = [name for name in _THREAD.findall(text) if name.rstrip(",;:.") not in words]
        if unknown:
            yield f"a thread that does not exist: {unknown}"

    def _find(self, what: str, why: str, found: Explanation | None) -> None:
        self.findings.append(Finding(what, why, found.text if found is not None else ""))


def names_layer(headline: str) -> bool:
    """Whether a headline says who refused: a layer, or a leaf with its rule."""
    return any(pattern.search(headline) for pattern in (_BY_LAYER, _LEAF, _INSTRUCTION))

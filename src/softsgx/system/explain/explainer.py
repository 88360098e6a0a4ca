"""Listens to the log and explains refused accesses, ENCLU leaves and calls.

A page fault that the kernel repairs is not a refusal. So what ordinary paging refused is explained
once the kernel has given up; everything else, as it was at the moment of the refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.cpu.fault import Fault
from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.report.explanation import Explanation, Layer
from softsgx.report.fields import end_text, exception_text, failed
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, PT_MASK, RWX, TCS, VALID, R, rwx_text, state_text
from softsgx.spec.faults import PF
from softsgx.spec.leaves import ENCLU_LEAVES
from softsgx.spec.registers import RIP
from softsgx.spec.rules import RULES
from softsgx.spec.ssa import GPR_OFF_RIP, GPRSGX_SIZE
from softsgx.spec.translation import ACCESS_NAMES, PTE_P, PTE_PFN_MASK
from softsgx.system.explain.access_advice import advice_for_access, advice_for_instruction
from softsgx.system.explain.calls import explain_call
from softsgx.system.explain.facts import Facts, Moment, epc_number, look, now, tcs_in
from softsgx.system.explain.history import MORE_XFRM, History
from softsgx.system.explain.leaf_advice import Call, advice_for_leaf

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.kernel import Kernel

# Rules of the engines that execute instructions and reach host memory (`runner`).
_ELSEWHERE: Final = {
    "CODE.01": "an instruction that is undefined, or undefined in user mode",
    "CODE.02": "an instruction that is illegal inside an enclave",
    "CODE.03": "INT3 after an opt-in entry",
    "CODE.04": "an exception of the instruction itself",
    "CODE.05": "an instruction that the emulator lacks, or that does not exist",
    "HOST.01": "host memory that cannot be read",
    "HOST.02": "host memory that cannot be written",
}
_RAISED: Final = frozenset({"CODE.03", "CODE.04"})
_ENCLU: Final = frozenset(name for name, _ in ENCLU_LEAVES.values())
_CONTENTS: Final = frozenset({"EGETKEY", "EREPORT"})
_SECINFO_LEAVES: Final = frozenset({"EACCEPT", "EMODPE", "EACCEPTCOPY"})
_TCS_LEAVES: Final = frozenset({"EENTER", "ERESUME"})

Tell = Callable[[Explanation], None]


class _Waiting(NamedTuple):
    """A refusal by ordinary paging that the kernel may repair: event number, event, TLB and enclave
    as they were, and where."""

    seq: int
    refused: c.AccessFaulted | c.LeafFaulted
    moment: Moment
    where: str


class Explainer:
    """Explains every refusal from now on, and calls `tell` with each when its outcome is known.

    `last` is the latest explanation. `instructions` says that enclaves are machine code, so that
    RIP means something. `more_xfrm` is the XFRM that another processor has, and how to get it.
    Create the explainer before the enclave: earlier changes have no author.
    """

    def __init__(
        self,
        kernel: Kernel,
        tell: Tell | None = None,
        *,
        instructions: bool = False,
        more_xfrm: tuple[int, str] = MORE_XFRM,
    ) -> None:
        self.history = History(kernel, more_xfrm)
        self._processor = kernel.processor
        self.tell = tell
        self._instructions = instructions
        self.last: Explanation | None = None
        # By processor: a refusal explained and waiting for its outcome; one not explained yet.
        self._open: dict[int, Explanation] = {}
        self._paging: dict[int, _Waiting] = {}
        # By processor: where the AEX stores RIP, and base and size of the enclave.
        self._rips: dict[int, tuple[int, int, int]] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            c.AccessFaulted: self._access_faulted,
            c.LeafFaulted: self._leaf_faulted,
            c.LeafDone: self._leaf_done,
            c.InstructionFaulted: self._instruction_faulted,
            c.Entered: self._has_entered,
            k.PageFaultEnded: self._page_fault_ended,
            k.CallEnded: self._call_ended,
            k.SignalSent: self._signal_sent,
            k.VdsoReturned: self._vdso_returned,
        }
        log = kernel.processor.log
        # First, because the history forgets a call when it ends.
        listening = (self._handlers, self.history.handlers)
        self._unsubscribe = [log.subscribe_to(handlers) for handlers in listening]

    def close(self) -> None:
        """Stop listening."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    # Refusals

    def _access_faulted(self, e: c.AccessFaulted) -> None:
        lp = self._processor.lps[e.lp]
        moment = now(self.history, lp, e.entry)
        if e.rule.startswith("PAGING."):
            self._wait(e, moment, self._where(lp))
            return
        facts = look(self.history, lp, e.linear, moment)
        self._open[e.lp] = self._access(e, facts, self._where(lp))

    def _wait(self, e: c.AccessFaulted | c.LeafFaulted, moment: Moment, where: str) -> None:
        self._open.pop(e.lp, None)
        self._paging[e.lp] = _Waiting(self._processor.log.seq, e, moment, where)

    def _leaf_faulted(self, e: c.LeafFaulted) -> None:
        if e.leaf not in _ENCLU and not e.leaf.startswith("ENCLU["):
            return
        lp = self._processor.lps[e.lp]
        if e.rule.startswith("PAGING."):
            self._wait(e, now(self.history, lp, 0), self._where(lp))
        else:
            self._open[e.lp] = self._leaf(e, self._where(lp))

    def _leaf_done(self, e: c.LeafDone) -> None:
        if e.rule and e.leaf in _ENCLU:
            lp = self._processor.lps[e.lp]
            found = self._leaf(e, self._where(lp))
            found.outcome = f"RAX = {e.status}: the enclave goes on"
            if self._rips.pop(e.lp, None) and lp.secs is not None:
                found.where += rip_text(lp.regs[RIP], lp.secs.BASEADDR, lp.secs.SIZE)
            self._tell(found)

    def _instruction_faulted(self, e: c.InstructionFaulted) -> None:
        lp = self._processor.lps[e.lp]
        end = exception_text(e.vector, e.code)
        verb = "raised" if e.rule in _RAISED else "refused"
        at = f"instruction at {e.rip:#x}" if self._instructions else "an instruction"
        self._open[e.lp] = Explanation(
            event=self._processor.log.seq,
            headline=f"{at} {verb} ({e.rule}): {end}",
            rule=e.rule,
            rule_text=rule_text(e.rule),
            key=(e.rule, e.rip),
            where=self._where(lp),
            advice=advice_for_instruction(e.rule),
        )

    # Outcomes

    def _has_entered(self, e: c.Entered) -> None:
        """The thread goes on, so a later signal is not about this refusal."""
        self._open.pop(e.lp, None)

    def _page_fault_ended(self, e: k.PageFaultEnded) -> None:
        waiting = self._paging.pop(e.cpu, None)
        if e.outcome == "repaired":
            return
        if waiting is not None:
            seq, refused, moment, where = waiting
            lp = self._processor.lps[e.cpu]
            if isinstance(refused, c.AccessFaulted):
                found = self._access(refused, look(self.history, lp, refused.linear, moment), where)
            else:
                found = self._leaf(refused, where, moment)
            found.event = seq
            self._open[e.cpu] = found
        if e.cpu in self._open:
            self._open[e.cpu].outcome = f"the kernel: {e.outcome}"

    def _signal_sent(self, e: k.SignalSent) -> None:
        if e.cpu in self._open:
            self._open[e.cpu].signal = self._processor.log.seq
        self._close_open(e.cpu, f"{e.signal} to thread {e.thread}")

    def _vdso_returned(self, e: k.VdsoReturned) -> None:
        end = exception_text(e.vector, e.code)
        self._close_open(e.cpu, f"the vDSO function returns {end} to thread {e.thread}")

    def _close_open(self, cpu: int, outcome: str) -> None:
        self._paging.pop(cpu, None)
        found = self._open.pop(cpu, None)
        if found is not None:
            found.outcome = outcome
            if cpu in self._rips:
                found.where += self._rip(*self._rips.pop(cpu))
            self._tell(found)

    def _rip(self, physical: int, base: int, size: int) -> str:
        """Where the AEX was taken."""
        return rip_text(self._processor.memory.read_int(physical, 8), base, size)

    def _tell(self, found: Explanation) -> None:
        self.last = found
        if self.tell is not None:
            self.tell(found)

    # Texts

    def _where(self, lp: LogicalProcessor) -> str:
        """Which thread, in which enclave; remembers where the AEX will store RIP."""
        who = self.history.who(lp.id)
        self._rips.pop(lp.id, None)
        if lp.secs is None:
            return f"{who}, outside enclaves"
        if not self._instructions:
            return f"{who} in enclave {lp.secs.EID} on the TCS {lp.tcs_address:#x}"
        at = lp.ssa_frame[-1] | (PAGE_SIZE - GPRSGX_SIZE + GPR_OFF_RIP)
        self._rips[lp.id] = (at, lp.secs.BASEADDR, lp.secs.SIZE)
        return f"{who} in enclave {lp.secs.EID} on the TCS {lp.tcs_address:#x}"

    def _access(self, e: c.AccessFaulted, facts: Facts, where: str) -> Explanation:
        end = exception_text(e.vector, e.code)
        by = refusing_layer(e.rule, facts, e.access)
        name = ACCESS_NAMES.get(e.access, "access")
        missing = e.access & RWX & ~facts.word
        return Explanation(
            event=self._processor.log.seq,
            headline=f"{name} at {e.linear:#x} refused by {by} ({e.rule}): {end}",
            rule=e.rule,
            rule_text=rule_text(e.rule),
            key=(e.rule, e.access, facts.page, facts.word),
            layers=[] if e.rule.startswith("HOST.") else facts.layers(missing),
            where=where,
            advice=advice_for_access(facts, e.access, e.rule),
        )

    def _leaf(
        self,
        e: c.LeafDone | c.LeafFaulted,
        where: str,
        moment: Moment | None = None,
    ) -> Explanation:
        end = end_text(e)
        lp = self._processor.lps[e.lp]
        operand, value, target = subject(e, lp)
        facts = look(self.history, lp, target, moment)
        secinfo = secinfo_at(facts, e.rbx) if e.leaf in _SECINFO_LEAVES else None
        call = Call(e.leaf, e.rbx, e.rcx, e.rdx, secinfo)
        headline = f"{e.leaf}({operand}={value:#x}) refused ({e.rule}): {end}"
        layers = []
        if secinfo is not None:
            layers.append(Layer("SECINFO", rwx_text(secinfo), _flags(secinfo)))
        if e.leaf in _TCS_LEAVES:
            layers += self._tcs(facts)
        layers += facts.layers()
        if e.leaf == "EDECCSSA" and not isinstance(e, c.LeafDone) and e.vector != PF:
            # It has no operands; the TCS is that of the thread.
            layers = self._tcs(look(self.history, lp, lp.tcs_address))
            headline = f"{e.leaf} refused ({e.rule}): {end}"
        if e.rule.startswith("ENCLU."):
            # Refused before any operand was read.
            layers, headline = [], f"{e.leaf} refused ({e.rule}): {end}"
        if e.leaf in _CONTENTS and isinstance(e, c.LeafDone):
            # Refused for the contents of the operand.
            layers, headline = [], f"{e.leaf} refused ({e.rule}): {end}"
        return Explanation(
            event=self._processor.log.seq,
            headline=headline,
            rule=e.rule,
            rule_text=rule_text(e.rule),
            key=(e.rule, e.leaf, target & ~PAGE_MASK, facts.word),
            layers=layers,
            where=where,
            advice=advice_for_leaf(facts, call, e.rule, operand),
        )

    def _tcs(self, facts: Facts) -> list[Layer]:
        if facts.word & (VALID | PT_MASK) != VALID | TCS:
            return []  # not a TCS
        tcs = tcs_in(self._processor, facts.number)
        state = "active" if tcs.STATE else "inactive"
        return [Layer("TCS", "", f"{state}, CSSA {tcs.CSSA} of {tcs.NSSA}")]

    def _call_ended(self, e: k.CallEnded) -> None:
        found = explain_call(self.history, e) if failed(e.result) else None
        if found is not None:
            self._tell(found)

    # On request

    def explain(self, fault: Exception | None = None) -> str:
        """The text for a `Fault` that was just raised, or else for the last refusal; "" if none."""
        if not isinstance(fault, Fault):
            fault = None
        waiting = list(self._open.values())
        for found in [*reversed(waiting), *([self.last] if self.last else [])]:
            if fault is None or found.rule == fault.rule:
                return found.text
        if fault is not None and self._paging:
            for cpu, (seq, e, moment, where) in self._paging.items():
                if e.rule == fault.rule and isinstance(e, c.AccessFaulted):
                    lp = self._processor.lps[cpu]
                    found = self._access(e, look(self.history, lp, e.linear, moment), where)
                    found.event = seq
                    return found.text
        return ""


def rip_text(rip: int, base: int, size: int) -> str:
    """Where an instruction is; inside its enclave also as an offset from its base."""
    inside = f" (base + {rip - base:#x})" if 0 <= rip - base < size else ""
    return f", rip {rip:#x}{inside}"


def subject(e: c.LeafDone | c.LeafFaulted, lp: LogicalProcessor) -> tuple[str, int, int]:
    """What the refusal of a leaf is about: an operand, its value, and an address in its page.

    That is the operand in which the #PF was, or else the one that the rule names; of several, the
    first that is not a page of ELRANGE."""
    if isinstance(e, c.LeafFaulted) and e.vector == PF:
        return *operand_at(e, e.address), e.address
    text = rule_text(e.rule)
    operands = (("RBX", e.rbx), ("RCX", e.rcx), ("RDX", e.rdx))
    named = [(name, value) for name, value in operands if name in text]
    if len(named) > 1 and lp.secs is not None:
        inside = range(lp.secs.BASEADDR, lp.secs.elrange_end)
        named = [(n, v) for n, v in named if v & PAGE_MASK or v not in inside] or named
    name, value = named[0] if named else operands[0 if e.leaf in _TCS_LEAVES else 1]
    return name, value, value


def operand_at(e: c.LeafDone | c.LeafFaulted, address: int) -> tuple[str, int]:
    """The operand of a leaf that an address belongs to, and its value: a fault may name another
    byte of the page. If it is no operand, it is in the SSA frame."""
    operands = (("RBX", e.rbx), ("RCX", e.rcx), ("RDX", e.rdx))
    for name, value in operands:
        if value == address:
            return name, value
    for name, value in operands:
        if value & ~PAGE_MASK == address & ~PAGE_MASK:
            return name, value
    return "SSA", address


def rule_text(rule: str) -> str:
    """What a rule says."""
    return RULES.get(rule) or _ELSEWHERE.get(rule, "")


def refusing_layer(rule: str, facts: Facts, access: int) -> str:
    """The layer that refused an access, by the rule."""
    if rule.startswith("PAGING."):
        # A shadow stack does not need W of the area.
        if facts.vma is None or not facts.vma.flags & (access & RWX or R):
            return "the VMA"
        return "the driver" if not facts.pte & PTE_P else "the page table"
    if rule.startswith("HOST."):
        return "host memory"
    if rule == "ACCESS.13":
        return "the TLB"
    by_epcm = "ACCESS.05" <= rule <= "ACCESS.12" or rule in ("ACCESS.16", "ACCESS.17")
    return "the EPCM" if by_epcm else "the processor"


def secinfo_at(facts: Facts, address: int) -> int | None:
    """SECINFO.FLAGS at an address, None if no leaf could read it there."""
    lp, secs = facts.lp, facts.secs
    pte = lp.space.lookup(address)
    if secs is None or not secs.BASEADDR <= address < secs.elrange_end:
        return None
    if not pte & PTE_P or address & 63:
        return None
    if epc_number(lp.processor, pte) < 0:
        return None
    physical = pte & PTE_PFN_MASK | address & PAGE_MASK
    return lp.processor.memory.read_int(physical, 8)


def _flags(flags: int) -> str:
    return f"FLAGS of the operand: {state_text(flags & ~BLOCKED)}"

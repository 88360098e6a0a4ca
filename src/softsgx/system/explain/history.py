"""Who changed what last: a listener that remembers a few changes of each page, and who runs where.

Memory is bounded: KEPT changes for each EPC page and each linear page, PAGES_MAX linear pages,
CALLS_MAX calls that changed areas. Texts are made on demand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.cpu.part import XSAVE_COMPONENTS
from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.mem.pagetable import DIRECT_MAP
from softsgx.report.fields import SHORT, call_text, number
from softsgx.sim import Stepped
from softsgx.spec.attributes import XFRM_LEGACY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.sigstruct import SIGSTRUCT

if TYPE_CHECKING:
    from softsgx.cpu import Processor
    from softsgx.linux.kernel import Kernel

KEPT: Final = 4
PAGES_MAX: Final = 1 << 16
CALLS_MAX: Final = 256

_ALL_XFRM: Final = XFRM_LEGACY | sum(1 << bit for bit in XSAVE_COMPONENTS)
# XFRM that another processor has, and how to get it; `{xfrm:#x}` stands for what was asked for.
MORE_XFRM: Final = (_ALL_XFRM, "Part(xfrm={xfrm:#x})")
_SRCPGE: Final = 8  # in PAGEINFO
_OPERANDS: Final = {"ECREATE": PAGE_SIZE, "EADD": PAGE_SIZE, "EINIT": SIGSTRUCT.SIZE}

# What a failure that is asked for leads to, where the kernel does not get on.
_OF_FAILURES: Final = frozenset(
    {
        *("kmalloc.memory", "sgx_alloc_epc_page.full", "sgx_alloc_epc_page.short"),
        *("sgx_enclave_restrict_permissions.EMODPR", "sgx_enclave_etrack.ETRACK"),
    }
)
_MAPPING: Final = frozenset({"mmap", "mprotect", "mremap", "munmap"})
_SHOWN: Final = frozenset("address length prot old old_length new_length new advice fd".split())
# The arguments of an ioctl that say what it should do; the others are host addresses.
_TOLD: Final = frozenset("base size offset length secinfo_flags permissions page_type".split())


class RefusedLeaf(NamedTuple):
    """The end of a leaf, and its operands in memory as they were then: see `operands`."""

    event: c.LeafDone | c.LeafFaulted
    operands: bytes


class Context:
    """A call or page fault that a processor is handling.

    `refusal` is the kernel's latest, `injected` a failure that the run asked for, `leaves` has the
    latest refusal of each leaf. `sigstruct` is what the kernel had copied when it refused; `span`
    is the range, start and end, of a call that changed areas.
    """

    __slots__ = (
        *("fields", "injected", "leaves", "name", "refusal", "seq", "sigstruct", "span", "thread"),
    )

    def __init__(self, name: str, thread: str, fields: k.Fields, seq: int) -> None:
        self.name = name
        self.thread = thread
        self.fields = fields
        self.seq = seq
        self.refusal: k.CallRefused | None = None
        self.injected: k.FailureInjected | None = None
        self.leaves: dict[str, RefusedLeaf] | None = None  # made when first needed
        self.sigstruct = b""
        self.span = (0, 0)

    def __str__(self) -> str:
        who = f" of thread {self.thread}"
        if not self.name:
            return f"page fault{who}"
        if self.name.startswith("SGX_IOC"):
            fields = tuple([(n, v) for n, v in self.fields if n in _TOLD])
            return f"ioctl {call_text(self.name.removeprefix(SHORT), fields)}{who}"
        values = [number(n, v) for n, v in self.fields if n in _SHOWN]
        return f"{self.name}({', '.join(values)}){who}"


class Change(NamedTuple):
    """A change of an EPCM entry or page-table entry: event number, words, leaf, and by whom."""

    seq: int
    before: int
    after: int
    leaf: str
    by: Context | str

    def __str__(self) -> str:
        how = f"{self.leaf} by " if self.leaf else ""
        return f"{how}{self.by}, event {self.seq}"


class Runs(NamedTuple):
    """The thread on a logical processor."""

    thread: str
    process: str
    space: str


class History:
    """Remembers changes. Keys: EPC page number; (address space, linear page number); processor.

    `handlers` are for `Log.subscribe_to`.
    `flushed` has the number and the cause of the last flush of a processor, `entered` the number of
    its last entry into an enclave.
    """

    def __init__(self, kernel: Kernel, more_xfrm: tuple[int, str] = MORE_XFRM) -> None:
        self.kernel = kernel
        self.processor = kernel.processor
        self.more_xfrm = more_xfrm
        self.log = kernel.processor.log
        self.epcm: dict[int, list[Change]] = {}
        self.ptes: dict[tuple[str, int], list[Change]] = {}
        self.calls: dict[str, deque[tuple[int, Context]]] = {}
        self.flushed: dict[int, tuple[int, str]] = {}
        self.entered: dict[int, tuple[int, c.Entered]] = {}
        self.runs: dict[int, Runs] = {}
        self._busy: dict[int, list[Context]] = {}
        self._cpu = -1  # on which the last step was taken
        self.handlers: dict[type, Callable[[Any], None]] = {
            c.EpcmChanged: self._epcm_changed,
            c.PteChanged: self._pte_changed,
            c.TlbFlushed: self._tlb_flushed,
            c.Entered: self._has_entered,
            c.LeafDone: self._leaf,
            c.LeafFaulted: self._leaf,
            k.CallBegun: self._begun,
            k.IoctlArguments: self._arguments,
            k.CallRefused: self._refused,
            k.FailureInjected: self._injected,
            k.CallEnded: self._ended,
            k.PageFaultBegun: self._fault_begun,
            k.PageFaultEnded: self._fault_ended,
            k.ThreadSwitchedIn: self._switched_in,
            Stepped: self._stepped,
        }

    # Queries

    def who(self, lp: int) -> str:
        """The thread on a processor."""
        runs = self.runs.get(lp)
        if runs is not None:
            return f"thread {runs.thread}"
        ksgxd = self.kernel.ksgxd_tsk
        return "ksgxd" if ksgxd is not None and lp == ksgxd.cpu else f"processor {lp}"

    def busy(self, lp: int) -> Context | None:
        """The innermost call or page fault that a processor is handling."""
        stack = self._busy.get(lp)
        return stack[-1] if stack else None

    def mapped(self, space: str, address: int, name: str = "") -> Iterator[tuple[int, Context]]:
        """The calls that changed the area of an address, the latest first, with event numbers."""
        for seq, call in reversed(self.calls.get(space, ())):
            start, end = call.span
            if start <= address < end and name in ("", call.name):
                yield seq, call

    # Events

    def _epcm_changed(self, e: c.EpcmChanged) -> None:
        by = self.busy(e.lp) or self.who(e.lp)
        _keep(self.epcm, e.page, Change(self.log.seq, e.before, e.after, e.leaf, by))

    def _pte_changed(self, e: c.PteChanged) -> None:
        cpu = self._cpu
        by = self.busy(cpu) or (self.who(cpu) if cpu >= 0 else "the kernel")
        key = (e.space, e.page)
        if key not in self.ptes and len(self.ptes) >= PAGES_MAX:
            del self.ptes[next(iter(self.ptes))]
        _keep(self.ptes, key, Change(self.log.seq, e.before, e.after, "", by))

    def _tlb_flushed(self, e: c.TlbFlushed) -> None:
        self.flushed[e.lp] = (self.log.seq, e.cause)

    def _has_entered(self, e: c.Entered) -> None:
        self.entered[e.lp] = (self.log.seq, e)

    def _leaf(self, e: c.LeafDone | c.LeafFaulted) -> None:
        busy = self.busy(e.lp)
        if busy is None:
            return
        if e.rule:
            if busy.leaves is None:
                busy.leaves = {}
            busy.leaves[e.leaf] = RefusedLeaf(e, operands(self.processor, e))
        elif busy.leaves:
            busy.leaves.pop(e.leaf, None)  # tried again, or of another page

    def _refused(self, e: k.CallRefused) -> None:
        busy = self.busy(e.cpu)
        if busy is not None:
            busy.refusal = e
            if e.rule not in _OF_FAILURES:
                busy.injected = None  # the kernel got on after it
            fields = dict(e.fields)
            if "secs" in fields:  # EINIT was not even tried
                sig = self.processor.memory.read(fields["sigstruct"], SIGSTRUCT.SIZE)
                busy.sigstruct = sig

    def _injected(self, e: k.FailureInjected) -> None:
        """It happens in the call that has begun last: a live run interrupts none."""
        under_way = [stack[-1] for stack in self._busy.values() if stack]
        if under_way:
            max(under_way, key=lambda context: context.seq).injected = e

    def _begun(self, e: k.CallBegun) -> None:
        context = Context(e.name, e.thread, e.fields, self.log.seq)
        self._busy.setdefault(e.cpu, []).append(context)

    def _arguments(self, e: k.IoctlArguments) -> None:
        busy = self.busy(e.cpu)
        if busy is not None:
            busy.fields = e.fields

    def _ended(self, e: k.CallEnded) -> None:
        stack = self._busy.get(e.cpu)
        context = stack.pop() if stack else Context(e.name, e.thread, e.fields, self.log.seq)
        if e.result >= 0 and e.name in _MAPPING:
            runs = self.runs.get(e.cpu)
            space = runs.space if runs is not None else ""
            if e.name in ("mmap", "mremap"):
                length = dict(e.fields).get("length", dict(e.fields).get("new_length", 0))
                context.fields = (*e.fields, ("length", length), ("result", e.result))
            fields = dict(context.fields)
            start = fields.get("result", fields.get("address", 0))
            context.span = (start, start + fields.get("length", 0))
            kept = self.calls.setdefault(space, deque(maxlen=CALLS_MAX))
            kept.append((self.log.seq, context))

    def _fault_begun(self, e: k.PageFaultBegun) -> None:
        context = Context("", e.thread, (("address", e.address),), self.log.seq)
        self._busy.setdefault(e.cpu, []).append(context)

    def _fault_ended(self, e: k.PageFaultEnded) -> None:
        stack = self._busy.get(e.cpu)
        if stack:
            stack.pop()

    def _stepped(self, e: Stepped) -> None:
        self._cpu = -1 if e.task.cpu is None else e.task.cpu

    def _switched_in(self, e: k.ThreadSwitchedIn) -> None:
        self.runs[e.cpu] = Runs(e.thread, e.process, e.space)
        self._busy.pop(e.cpu, None)


def operands(processor: Processor, e: c.LeafDone | c.LeafFaulted) -> bytes:
    """The operand in memory that the kernel reuses after the leaf: the source page of ECREATE and
    EADD, the SIGSTRUCT of EINIT."""
    size = _OPERANDS.get(e.leaf)
    if size is None:
        return b""
    memory, at = processor.memory, e.rbx
    if e.leaf != "EINIT":
        at = memory.read_int(at - DIRECT_MAP + _SRCPGE, 8)
    return memory.read(at - DIRECT_MAP, size)


def _keep(changes: dict[Any, list[Change]], key: Any, change: Change) -> None:
    kept = changes.get(key)
    if kept is None:
        changes[key] = [change]
        return
    kept.append(change)
    if len(kept) > KEPT:
        del kept[0]

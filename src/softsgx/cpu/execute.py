"""ENCLS, ENCLU, ENCLV: the tests before a leaf, its dispatch, and what becomes of its result.

SDM 3D, ENCLS, ENCLU, ENCLV. The functions here are the methods of `LogicalProcessor`.

Operands are given as arguments and loaded into RAX (leaf number), RBX, RCX, RDX, as the program
would. A leaf that writes RAX returns its `Status`; one that does not returns None. A fault leaves
RAX, flags and everything else as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.cpu import cet
from softsgx.cpu.claims import busy_bits, claim, claim_moved, release
from softsgx.cpu.fault import (
    ENCLS_PFEC,
    ENCLU_PFEC,
    ENCLU_PFEC_W,
    GP,
    NM,
    UD,
    Fault,
    Status,
)
from softsgx.cpu.part import UNMODELLED_LEAVES
from softsgx.events.cpu import LeafDone, LeafFaulted
from softsgx.sim import Unmodelled
from softsgx.sim.live import LIVE
from softsgx.spec.bits import MASK32
from softsgx.spec.cet import U_CET_TRACKER
from softsgx.spec.faults import PF
from softsgx.spec.leaves import (
    EENTER,
    ENCLS_LEAVES,
    ENCLU_LEAVES,
    ENCLV_LEAVES,
    ERESUME,
    EVERIFYREPORT2,
)
from softsgx.spec.msr import (
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    FEATURE_LOCK,
    FEATURE_SGX_ENABLE,
    RFLAGS_STATUS,
)
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS

if TYPE_CHECKING:
    from softsgx.cpu.memory import LpMemory
    from softsgx.cpu.state import Body
    from softsgx.sim import Steps

_ENABLED = FEATURE_LOCK | FEATURE_SGX_ENABLE
_ENCLS_CR0 = CR0_PE | CR0_PG
_ENTRIES = frozenset({EENTER, ERESUME})
_ENCLU_CR0 = CR0_PE | CR0_TS | CR0_PG | CR0_NE
_ENCLU_CR0_OK = CR0_PE | CR0_PG | CR0_NE
_KEPT_FLAGS = ~RFLAGS_STATUS


def _load_operands(lp: LpMemory, leaf: int, rbx: int, rcx: int, rdx: int) -> None:
    """RAX, RBX, RCX, RDX := the operands. Mistakes of the caller are Python exceptions."""
    try:
        wide = (leaf | rbx | rcx | rdx) >> 64
    except TypeError:
        wide = 1
    if wide or lp.in_flight:
        _refuse_operands(lp, leaf, rbx, rcx, rdx)
    regs = lp.regs
    regs[RAX], regs[RBX], regs[RCX], regs[RDX] = leaf, rbx, rcx, rdx


def _encls_start(
    lp: LpMemory, leaf: int, rbx: int, rcx: int, rdx: int, cpl: int
) -> tuple[str, Body]:
    """Load the operands; return name and body of the leaf, or raise what ENCLS raises."""
    _load_operands(lp, leaf, rbx, rcx, rdx)
    if (
        lp.cr0 & _ENCLS_CR0 == _ENCLS_CR0
        and cpl == 0
        and lp.secs is None
        and lp.feature_control & _ENABLED == _ENABLED
    ):
        entry = lp.processor.encls_leaves.get(leaf & MASK32)
        if entry is not None:
            return entry
    try:
        return _encls_checks(lp, leaf, cpl)
    except Fault as fault:
        _refused(lp, ENCLS_LEAVES, "ENCLS", fault)
        raise


def _encls_checks(lp: LpMemory, leaf: int, cpl: int) -> tuple[str, Body]:
    """The tests one by one, in the order of the listing."""
    if not lp.cr0 & CR0_PE:
        raise UD("ENCLS.01")  # CR0.PE = 0
    if cpl != 0 or lp.secs is not None:
        _check_cpl(cpl)
        raise UD("ENCLS.02")  # CPL > 0 (inside an enclave CPL is 3)
    if lp.feature_control & _ENABLED != _ENABLED:
        raise GP("ENCLS.03")  # IA32_FEATURE_CONTROL not locked, or SGX not enabled
    entry = lp.processor.encls_leaves.get(leaf & MASK32)
    if entry is None:
        _check_modelled(lp, ENCLS_LEAVES, "ENCLS", leaf & MASK32)
        raise GP("ENCLS.04")  # leaf not supported
    if not lp.cr0 & CR0_PG:
        raise GP("ENCLS.05")  # CR0.PG = 0
    return entry


def _enclu_start(
    lp: LpMemory, leaf: int, rbx: int, rcx: int, rdx: int, cpl: int
) -> tuple[str, Body]:
    """Load the operands; return name and body of the leaf, or raise what ENCLU raises."""
    _load_operands(lp, leaf, rbx, rcx, rdx)
    if (
        lp.cr0 & _ENCLU_CR0 == _ENCLU_CR0_OK
        and cpl == 3
        and not lp.u_cet & U_CET_TRACKER
        and lp.feature_control & _ENABLED == _ENABLED
    ):
        leaf &= MASK32
        entry = lp.processor.enclu_leaves.get(leaf)
        if entry is not None and (lp.secs is None) == (leaf in _ENTRIES):
            return entry
    try:
        return _enclu_checks(lp, leaf, cpl)
    except Fault as fault:
        _refused(lp, ENCLU_LEAVES, "ENCLU", fault)
        raise


def _enclu_checks(lp: LpMemory, leaf: int, cpl: int) -> tuple[str, Body]:
    """The tests one by one, in the order of the listing."""
    if lp.u_cet & U_CET_TRACKER and not (
        leaf & MASK32 == ERESUME and _eresume_is_endbranch(lp, cpl)
    ):
        cet.check_enclu(lp)
    if lp.cr0 & _ENCLU_CR0 != _ENCLU_CR0_OK or cpl != 3:
        _enclu_mode_checks(lp, cpl)
    if lp.feature_control & _ENABLED != _ENABLED:
        raise GP("ENCLU.04")  # IA32_FEATURE_CONTROL not locked, or SGX not enabled
    leaf &= MASK32
    entry = lp.processor.enclu_leaves.get(leaf)
    if entry is None:
        _check_modelled(lp, ENCLU_LEAVES, "ENCLU", leaf)
        raise GP("ENCLU.05")  # leaf not supported
    if not lp.cr0 & CR0_PG:
        raise GP("ENCLU.06")  # CR0.PG = 0
    if not lp.cr0 & CR0_NE:
        raise GP("ENCLU.07")  # CR0.NE = 0
    if leaf in _ENTRIES:
        if lp.secs is not None:
            raise GP("ENCLU.08")  # EENTER or ERESUME while in enclave mode
    elif lp.secs is None and leaf != EVERIFYREPORT2:
        raise GP("ENCLU.09")  # a leaf for use inside, while not in enclave mode
    return entry


def _eresume_is_endbranch(lp: LpMemory, cpl: int) -> bool:
    """Whether ERESUME counts as the ENDBRANCH the tracker waits for: at CPL 3 with CR0.TS = 0."""
    return cpl == 3 and not lp.cr0 & CR0_TS


def _check_modelled(
    lp: LpMemory, leaves: dict[int, tuple[str, str]], instruction: str, leaf: int
) -> None:
    """`Unmodelled` for a leaf that is documented but not modelled (see `Part`)."""
    name, _extension = leaves.get(leaf, ("", ""))
    if name in UNMODELLED_LEAVES and not lp.processor.part.absent_leaves_fault:
        raise Unmodelled(f"{instruction}[{name}]")


def _check_cpl(cpl: object) -> None:
    if cpl not in (0, 1, 2, 3):
        raise ValueError(f"cpl: {cpl!r} is not a privilege level from 0 to 3")


def _enclu_mode_checks(lp: LpMemory, cpl: int) -> None:
    _check_cpl(cpl)
    if not lp.cr0 & CR0_PE:
        raise UD("ENCLU.01")  # CR0.PE = 0
    if lp.cr0 & CR0_TS:
        raise NM("ENCLU.02")  # CR0.TS = 1
    if cpl < 3:
        raise UD("ENCLU.03")  # CPL < 3


def _refuse_operands(lp: LpMemory, leaf: object, rbx: object, rcx: object, rdx: object) -> None:
    """Raise for an operand that is not a register value, or because a leaf is in flight."""
    for name, value in (("leaf", leaf), ("rbx", rbx), ("rcx", rcx), ("rdx", rdx)):
        if not isinstance(value, int):
            raise TypeError(f"{name}: {value!r} is not an integer")
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{name}: {value:#x} is not a 64-bit register value")
    lp.refuse_in_flight("a leaf")


def _execute(lp: LpMemory, name: str, body: Body, rbx: int, rcx: int, rdx: int) -> Status | None:
    """Run a body; write RAX and flags; log what became of it."""
    watched = lp.log.on or lp.processor.recodes_faults
    if watched:
        status = _watched(lp, name, body, rbx, rcx, rdx)
    else:
        status = body(lp, rbx, rcx, rdx)
    if status is not None:
        regs = lp.regs
        regs[RAX] = status.code
        regs[RFLAGS] = regs[RFLAGS] & _KEPT_FLAGS | status.flags
    if watched:
        code, rule = (-1, "") if status is None else (status.code, status.rule)
        lp.log.emit(LeafDone(lp.id, name, rbx, rcx, rdx, code, rule))
    return status


def _watched(lp: LpMemory, name: str, body: Body, rbx: int, rcx: int, rdx: int) -> Status | None:
    """Run a body whose EPCM changes and faults are logged, or whose faults are recoded."""
    lp.processor.epcm.cause = (lp.id, name)
    try:
        return body(lp, rbx, rcx, rdx)
    except Fault as f:
        if lp.processor.recodes_faults:
            _recode(lp, f)
        lp.log.emit(LeafFaulted(lp.id, name, rbx, rcx, rdx, f.vector, f.code, f.address, f.rule))
        raise


def _recode(lp: LpMemory, fault: Fault) -> None:
    """Give a #PF raised by the body of a leaf, not by paging, the error code of `Readings`."""
    readings = lp.processor.readings
    if fault.vector == PF and fault.code == ENCLS_PFEC:
        fault.code = readings.encls_pf_code
    elif fault.vector == PF and fault.code == ENCLU_PFEC_W and not readings.enclu_pf_write_bit:
        fault.code = ENCLU_PFEC


def _refused(lp: LpMemory, leaves: dict[int, tuple[str, str]], instruction: str, f: Fault) -> None:
    """Log the fault of an instruction that was refused before its leaf was dispatched."""
    if lp.log.on:
        regs = lp.regs
        number = regs[RAX] & MASK32
        name, _extension = leaves.get(number, (f"{instruction}[{number:#x}]", ""))
        rbx, rcx, rdx = regs[RBX], regs[RCX], regs[RDX]
        lp.log.emit(LeafFaulted(lp.id, name, rbx, rcx, rdx, f.vector, f.code, f.address, f.rule))


def encls(
    self: LpMemory, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0, *, cpl: int = 0
) -> Status | None:
    """Execute ENCLS at once. Returns the Status of a leaf that writes RAX, else None."""
    name, body = _encls_start(self, leaf, rbx, rcx, rdx, cpl)
    self.busy = busy_bits(self, name, False) if self.processor.claims else 0
    return _execute(self, name, body, rbx, rcx, rdx)


def enclu(
    self: LpMemory, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0, *, cpl: int = 3
) -> Status | None:
    """Execute ENCLU at once. Returns the Status of a leaf that writes RAX, else None."""
    name, body = _enclu_start(self, leaf, rbx, rcx, rdx, cpl)
    self.busy = busy_bits(self, name, True) if self.processor.claims else 0
    return _execute(self, name, body, rbx, rcx, rdx)


def enclv(self: LpMemory, leaf: int) -> None:
    """Execute ENCLV: not modelled, and not announced."""
    if not self.processor.part.absent_leaves_fault:
        raise Unmodelled(f"ENCLV[{ENCLV_LEAVES.get(leaf, hex(leaf))}]")
    raise UD("ENCLV.01")  # CPUID.12H.0:EAX[5] = 0


def encls_steps(
    self: LpMemory, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0, *, cpl: int = 0
) -> Steps[Status | None]:
    """ENCLS in a task: claim what the leaf locks, yield one point, execute, release."""
    if LIVE.execution is not None:
        return encls(self, leaf, rbx, rcx, rdx, cpl=cpl)
    name, body = _encls_start(self, leaf, rbx, rcx, rdx, cpl)
    return (yield from _in_flight(self, name, body, rbx, rcx, rdx, user=False))


def enclu_steps(
    self: LpMemory, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0, *, cpl: int = 3
) -> Steps[Status | None]:
    """ENCLU in a task: claim what the leaf locks, yield one point, execute, release."""
    if LIVE.execution is not None:
        return enclu(self, leaf, rbx, rcx, rdx, cpl=cpl)
    name, body = _enclu_start(self, leaf, rbx, rcx, rdx, cpl)
    return (yield from _in_flight(self, name, body, rbx, rcx, rdx, user=True))


def _in_flight(
    lp: LpMemory, name: str, body: Body, rbx: int, rcx: int, rdx: int, *, user: bool
) -> Steps[Status | None]:
    busy, held, page = claim(lp, name, user)
    claims = lp.processor.claims
    lp.in_flight = True
    try:
        yield (name, ("epc", page), True)
        if lp.processor.claims is not claims:
            raise RuntimeError(f"{name}: the processor was restored while the leaf was in flight")
        if not busy and claim_moved(lp, name, user, held):
            # A PTE or a PAGEINFO was changed meanwhile: the body will work on another page.
            release(lp, held)
            busy, held, _ = claim(lp, name, user)
        lp.busy = busy
        return _execute(lp, name, body, rbx, rcx, rdx)
    finally:
        # After a restore of the processor the claims are others: there is nothing to release.
        if lp.processor.claims is claims:
            lp.in_flight = False
            release(lp, held)

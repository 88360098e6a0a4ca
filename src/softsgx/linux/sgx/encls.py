"""One ENCLS, and its result as the kernel encodes it. Linux 6.12, sgx/encls.h.

0 success; 1 .. 0x3FFFFFFF the status in EAX; 0x40000000 + vector an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import Fault
from softsgx.spec import faults, leaves
from softsgx.spec.registers import RBX, RFLAGS

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

ENCLS_FAULT_FLAG: Final = 0x4000_0000
FAULT_PF: Final = ENCLS_FAULT_FLAG | faults.PF


def encls_faulted(ret: int) -> bool:
    """An exception was raised, whatever its vector."""
    return bool(ret & ENCLS_FAULT_FLAG)


def encls_failed(ret: int) -> bool:
    """A status code, or an exception other than #PF: EPC contents may vanish at any time."""
    return ret != 0 and ret != FAULT_PF


def encls(current: Thread, leaf: int, rbx: int, rcx: int, rdx: int = 0) -> Steps[int]:
    """Execute one ENCLS leaf on the processor of `current`, and restore the thread's registers."""
    lp = current.kernel.processor.lps[current.cpu]
    assert not lp.enclave_mode, f"{current.name}: ENCLS while another thread is inside an enclave"
    regs = lp.regs
    saved = regs[:4], regs[RFLAGS]
    try:
        status = yield from lp.encls_steps(leaf, rbx, rcx, rdx)
    except Fault as fault:
        return ENCLS_FAULT_FLAG | fault.vector
    finally:
        regs[:4], regs[RFLAGS] = saved
    return 0 if status is None else int(status)


def edbgrd(current: Thread, address: int) -> Steps[tuple[int, int]]:
    """__edbgrd: 0 and the word, or the exception and 0.

    The kernel drops the status in EAX. So SGX_PAGE_NOT_DEBUGGABLE is taken for success, and the
    word is what RBX held before: 0 here.
    """
    lp = current.kernel.processor.lps[current.cpu]
    assert not lp.enclave_mode, f"{current.name}: ENCLS while another thread is inside an enclave"
    regs = lp.regs
    saved = regs[:4], regs[RFLAGS]
    try:
        yield from lp.encls_steps(leaves.EDBGRD, 0, address)
        word = regs[RBX]
    except Fault as fault:
        return ENCLS_FAULT_FLAG | fault.vector, 0
    finally:
        regs[:4], regs[RFLAGS] = saved
    return 0, word


def edbgwr(current: Thread, address: int, word: int) -> Steps[int]:
    """__edbgwr: 0, or the exception. A status in EAX is dropped, although nothing was written."""
    ret = yield from encls(current, leaves.EDBGWR, word, address)
    return ret if encls_faulted(ret) else 0

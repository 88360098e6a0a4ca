"""The little of ptrace that it takes to step a thread through the stub."""

import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PTRACE_CONT: Final = 7
_PTRACE_SINGLESTEP: Final = 9
_PTRACE_GETREGS: Final = 12
_PTRACE_SETREGS: Final = 13
_PTRACE_SETFPREGS: Final = 15
_PTRACE_SEIZE: Final = 0x4206
# struct user_regs_struct, 27 words: where the registers of spec.registers are, in its order.
_PLACES: Final = (10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0, 18, 16)
_ORIG_RAX: Final = 15
_GS_BASE: Final = 22
_Regs: Final = ctypes.c_uint64 * 27

_ptrace: Final = ctypes.PyDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_ptrace.restype = ctypes.c_long


class Traced:
    """A traced thread. Its signals are swallowed unless they are passed on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._request(_PTRACE_SEIZE)

    def _request(self, request: int, data: object = None) -> None:
        if _ptrace(request, self.pid, None, data) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request}")

    def stopped(self) -> int:
        """Wait for the next stop; its signal."""
        pid, status = os.waitpid(self.pid, 0x4000_0000)
        assert pid == self.pid
        assert os.WIFSTOPPED(status), f"ended: {status:#x}"
        return os.WSTOPSIG(status)

    def cont(self, number: int = 0) -> None:
        """Go on, with a signal if there is one."""
        self._request(_PTRACE_CONT, number)

    def step(self) -> None:
        """One instruction."""
        self._request(_PTRACE_SINGLESTEP)
        assert self.stopped() == signal.SIGTRAP

    @property
    def registers(self) -> list[int]:
        """In the order of spec.registers."""
        regs = _Regs()
        self._request(_PTRACE_GETREGS, regs)
        return [regs[i] for i in _PLACES]

    @registers.setter
    def registers(self, values: Sequence[int]) -> None:
        regs = _Regs()
        self._request(_PTRACE_GETREGS, regs)
        for i, value in zip(_PLACES, values, strict=True):
            regs[i] = value
        regs[_ORIG_RAX] = (1 << 64) - 1
        self._request(_PTRACE_SETREGS, regs)

    def set_gs(self, base: int) -> None:
        """Give it another GS base."""
        regs = _Regs()
        self._request(_PTRACE_GETREGS, regs)
        regs[_GS_BASE] = base
        self._request(_PTRACE_SETREGS, regs)

    def load_fx(self, image: bytes) -> None:
        """Give it the state of an FXSAVE64 image."""
        self._request(_PTRACE_SETFPREGS, image)

    def read(self, address: int, size: int) -> bytes:
        """Its memory."""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)

"""Unicorn's C interface, by ctypes: the few calls that `Emulator` makes, without allocation.

The Python binding of Unicorn is used to find the library only: its batch calls and hooks cost ten
times as much. Calls keep the GIL, because the supervisor has one thread.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.host import library_exit

UC_ARCH_X86: Final = 4
UC_MODE_64: Final = 8
UC_PROT_READ: Final = 1
UC_PROT_WRITE: Final = 2
UC_PROT_EXEC: Final = 4
UC_PROT_ALL: Final = 7

ACCESS: Final = {16: READ, 17: WRITE, 18: FETCH}  # UC_MEM_READ, UC_MEM_WRITE, UC_MEM_FETCH

UC_MEM_WRITE_PROT: Final = 22

UC_HOOK_INTR: Final = 1 << 0
UC_HOOK_CODE: Final = 1 << 2
UC_HOOK_MEM_READ_PROT: Final = 1 << 7
UC_HOOK_MEM_WRITE_PROT: Final = 1 << 8
UC_HOOK_BLOCK: Final = 1 << 3
UC_HOOK_MEM_READ: Final = 1 << 10
UC_HOOK_INSN_INVALID: Final = 1 << 14
UC_HOOK_TLB_FILL: Final = 1 << 17

UC_ERR_OK: Final = 0
UC_ERR_WRITE_PROT: Final = 12
UC_ERR_EXCEPTION: Final = 21

_WRITE: Final = 1
_TB_REMOVE: Final = 9
_TB_FLUSH: Final = 10
_TLB_FLUSH: Final = 11
_TLB_TYPE: Final = 12
_TLB_VIRTUAL: Final = 1


class UnicornError(RuntimeError):
    """A call of the emulator failed, for no reason in the program."""


class TlbEntry(ctypes.Structure):
    """uc_tlb_entry: the answer of the TLB-fill hook."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_int))


FillHook = ctypes.PYFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.POINTER(TlbEntry),
    ctypes.c_void_p,
)
IntrHook = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
BlockHook = ctypes.PYFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
)
WriteHook = ctypes.PYFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_void_p,
)


def _library() -> Any:
    from unicorn.unicorn_py3.unicorn import uclib

    lib = ctypes.PyDLL(uclib._name)
    u64, ptr, size = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t
    lib.uc_open.argtypes = (ctypes.c_int, ctypes.c_int, ptr)
    lib.uc_close.argtypes = (ptr,)
    lib.uc_strerror.restype = ctypes.c_char_p
    lib.uc_emu_start.argtypes = (ptr, u64, u64, u64, size)
    lib.uc_emu_stop.argtypes = (ptr,)
    lib.uc_reg_read_batch.argtypes = (ptr, ptr, ptr, ctypes.c_int)
    lib.uc_reg_write_batch.argtypes = (ptr, ptr, ptr, ctypes.c_int)
    lib.uc_reg_write.argtypes = (ptr, ctypes.c_int, ptr)
    lib.uc_reg_read.argtypes = (ptr, ctypes.c_int, ptr)
    lib.uc_mem_map_ptr.argtypes = (ptr, u64, size, ctypes.c_uint32, ptr)
    lib.uc_context_alloc.argtypes = (ptr, ptr)
    lib.uc_context_save.argtypes = (ptr, ptr)
    lib.uc_context_restore.argtypes = (ptr, ptr)
    lib.uc_context_free.argtypes = (ptr,)
    library_exit.arm()
    return lib


def function_address(function: Any) -> int:
    """The address of a function of a library."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Uc:
    """One emulator instance (uc_engine) of 64-bit x86 whose TLB is filled only by a hook."""

    def __init__(self) -> None:
        self.lib = _library()
        handle = ctypes.c_void_p()
        self._check(self.lib.uc_open(UC_ARCH_X86, UC_MODE_64, ctypes.byref(handle)))
        self.handle: Any = handle.value
        self._kept: list[Any] = []
        self._raised: BaseException | None = None
        self._unraisable_before: Callable[[Any], object] = sys.unraisablehook
        self._unraisable_here = self._unraisable
        self._control(_TLB_TYPE, ctypes.c_int(_TLB_VIRTUAL))

    def close(self) -> None:
        """Free the instance."""
        if self.handle is not None:
            self.lib.uc_close(self.handle)
            self.handle = None

    def _check(self, error: int) -> None:
        if error:
            raise UnicornError(self.lib.uc_strerror(error).decode())

    def _control(self, kind: int, *args: Any) -> None:
        control = ctypes.c_uint32(kind | len(args) << 26 | _WRITE << 30)
        self._check(self.lib.uc_ctl(ctypes.c_void_p(self.handle), control, *args))

    def flush_tlb(self) -> None:
        """Forget all translations of the emulator."""
        self._control(_TLB_FLUSH)

    def flush_code(self) -> None:
        """Forget all translated code."""
        self._control(_TB_FLUSH)

    def forget_code(self, begin: int, end: int) -> None:
        """Forget translated code of linear addresses [begin, end)."""
        self._control(_TB_REMOVE, ctypes.c_uint64(begin), ctypes.c_uint64(end))

    def map_memory(self, physical: int, size: int, pointer: int, perms: int = UC_PROT_ALL) -> None:
        """Map memory of this process at `pointer` to [physical, physical + size).

        Without UC_PROT_WRITE the write hook is asked, even where the TLB permits writing; if it
        agrees, the emulator goes on without having written.
        """
        self._check(self.lib.uc_mem_map_ptr(self.handle, physical, size, perms, pointer))

    def hook(self, kind: int, function: Any, data: int = 0, begin: int = 1, end: int = 0) -> None:
        """Install a hook for addresses [begin, end], everywhere if that is empty.

        `function` is a ctypes function or an address. For memory hooks the addresses are physical.
        Any memory hook, whatever its kind, makes the emulator take its slow path for every store to
        a hooked page, and forget its translation once another page takes the slot in the TLB.
        """
        self._kept.append(function)
        hook = ctypes.c_size_t()
        pointer = function if isinstance(function, int) else ctypes.cast(function, ctypes.c_void_p)
        self._check(
            self.lib.uc_hook_add(
                ctypes.c_void_p(self.handle), ctypes.byref(hook), ctypes.c_int(kind),
                ctypes.c_void_p(pointer) if isinstance(pointer, int) else pointer,
                ctypes.c_void_p(data), ctypes.c_uint64(begin), ctypes.c_uint64(end),
            )
        )  # fmt: skip

    def start(self, rip: int, until: int) -> int:
        """Execute from `rip` until something stops it, or `until` is reached; UC_ERR_*.

        Raises what a hook raised.
        """
        return self.raising(partial(self.lib.uc_emu_start, self.handle, rip, until, 0, 0))

    def raising(self, execute: Callable[[], int]) -> int:
        """The result of `execute`, which executes code; raises what a hook raised."""
        before = self._unraisable_before = sys.unraisablehook
        sys.unraisablehook = self._unraisable_here
        try:
            result = execute()
        finally:
            sys.unraisablehook = before
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        return result

    def _unraisable(self, what: Any) -> None:
        """Keep an exception of a callback, and stop: ctypes would only print it and return 0.

        It may come from a Python signal handler, too, which may run before the hook's first line.
        """
        if "ctypes callback" not in (what.err_msg or ""):
            self._unraisable_before(what)
            return
        if self._raised is None:
            self._raised = what.exc_value
        self.stop()

    def stop(self) -> None:
        """Stop, from a hook. The state is exact only at the start of a block or at an exception."""
        self.lib.uc_emu_stop(self.handle)

    def write_register(self, register: int, value: Any) -> None:
        """Write one register from a ctypes object."""
        self._check(self.lib.uc_reg_write(self.handle, register, ctypes.byref(value)))

    def read_register(self, register: int, value: Any) -> None:
        """Read one register into a ctypes object."""
        self.lib.uc_reg_read(self.handle, register, ctypes.byref(value))


class Context:
    """uc_context: all registers and the emulator's own state, to go back to after an exception."""

    def __init__(self, uc: Uc) -> None:
        self._uc = uc
        handle = ctypes.c_void_p()
        uc._check(uc.lib.uc_context_alloc(uc.handle, ctypes.byref(handle)))
        self._handle = handle.value
        uc._check(uc.lib.uc_context_save(uc.handle, self._handle))

    def restore(self) -> None:
        """Go back to the saved state."""
        self._uc._check(self._uc.lib.uc_context_restore(self._uc.handle, self._handle))


class Batch:
    """A fixed set of registers, read and written in one call through one buffer.

    `places` gives for each register its offset in `buffer`.
    """

    def __init__(self, uc: Uc, registers: list[int], places: list[int], size: int) -> None:
        self._uc = uc
        self._count = len(registers)
        self._ids = (ctypes.c_int * self._count)(*registers)
        self.buffer = bytearray(size)
        self._view = (ctypes.c_char * size).from_buffer(self.buffer)
        start = ctypes.addressof(self._view)
        self._pointers = (ctypes.c_void_p * self._count)(*(start + place for place in places))
        self._id_address = ctypes.addressof(self._ids)
        self._pointer_address = ctypes.addressof(self._pointers)

    @property
    def arguments(self) -> tuple[int, int, int, int]:
        """Those of uc_reg_read_batch and uc_reg_write_batch."""
        return self._uc.handle, self._id_address, self._pointer_address, self._count

    def read(self) -> None:
        """Registers -> buffer."""
        self._uc.lib.uc_reg_read_batch(*self.arguments)

    def write(self) -> None:
        """Buffer -> registers."""
        self._uc.lib.uc_reg_write_batch(*self.arguments)

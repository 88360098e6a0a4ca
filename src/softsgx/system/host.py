"""A host thread in Python: system calls, memory, and the way into enclaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from softsgx.cpu.fault import Fault
from softsgx.linux import ptrace, syscalls
from softsgx.linux.madvise import sys_madvise
from softsgx.linux.process import Process, Signal, Thread, refuse_cpu
from softsgx.linux.trace import trace_signal
from softsgx.linux.traps import user_exception
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    SgxEnclaveRun,
)
from softsgx.linux.vdso import FIXED_UP, VDSO_ENCLU, Exit, UserHandler, sgx_enter_enclave
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.registers import RDX
from softsgx.system.enclave import EnclaveProgram, EnclaveThread, Ocall, Suspended, occupied

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.kernel import Kernel


class SignalRaised(Exception):
    """A synchronous signal that nothing handled; `signal` is its siginfo."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal)
        self.signal = signal


class HostThread:
    """A thread of a host process on one logical processor. All methods are generators.

    System calls return what Linux returns: a value or a negated errno. `enter` is the vDSO
    function.
    """

    def __init__(self, kernel: Kernel, process: Process, name: str, cpu: int) -> None:
        self.kernel = kernel
        self.thread = Thread(kernel, process, name, cpu)
        self.thread.switch_in()

    @property
    def process(self) -> Process:
        """The process of this thread."""
        assert self.thread.process is not None
        return self.thread.process

    # System calls

    def open(self, path: str = syscalls.SGX_ENCLAVE) -> Steps[int]:
        """open(2) for reading and writing."""
        return syscalls.sys_open(self.thread, path)

    def close(self, fd: int) -> Steps[int]:
        """close(2)."""
        return syscalls.sys_close(self.thread, fd)

    def ioctl(self, fd: int, cmd: int, arg: int) -> Steps[int]:
        """ioctl(2) with the address of an argument block."""
        return syscalls.sys_ioctl(self.thread, fd, cmd, arg)

    def read(self, fd: int) -> Steps[int]:
        """read(2) of any length: an errno."""
        return (yield from syscalls.sys_read_write(self.thread, fd, write=False))

    def write(self, fd: int) -> Steps[int]:
        """write(2) of any bytes: an errno."""
        return (yield from syscalls.sys_read_write(self.thread, fd, write=True))

    def mmap(
        self, address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0
    ) -> Steps[int]:
        """mmap(2)."""
        return syscalls.sys_mmap(self.thread, address, length, prot, flags, fd, offset)

    def munmap(self, address: int, length: int) -> Steps[int]:
        """munmap(2)."""
        return syscalls.sys_munmap(self.thread, address, length)

    def mprotect(self, address: int, length: int, prot: int) -> Steps[int]:
        """mprotect(2)."""
        return syscalls.sys_mprotect(self.thread, address, length, prot)

    def mremap(
        self, old: int, old_length: int, new_length: int, flags: int, new: int = 0
    ) -> Steps[int]:
        """mremap(2)."""
        return syscalls.sys_mremap(self.thread, old, old_length, new_length, flags, new)

    def madvise(self, address: int, length: int, advice: int) -> Steps[int]:
        """madvise(2)."""
        return (yield from sys_madvise(self.thread, address, length, advice))

    def fork(self, name: str, cpu: int) -> Steps[HostThread]:
        """fork(2): the only thread of the child, on logical processor `cpu`, which must be free."""
        refuse_cpu(self.kernel, cpu, None)
        child = yield from syscalls.sys_fork(self.thread, name, cpu)
        host = HostThread.__new__(HostThread)
        host.kernel, host.thread = self.kernel, child
        child.switch_in()
        return host

    def exit(self) -> Steps[None]:
        """exit_group(2)."""
        yield from syscalls.sys_exit_group(self.thread)

    # Memory

    def alloc(self, size: int) -> Steps[int]:
        """Map anonymous memory; return its address."""
        prot, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        return self.mmap(0, size, prot, flags)

    def load(self, address: int, size: int) -> Steps[bytes]:
        """Read memory as a load instruction does; SignalRaised if it faults for good."""
        yield ("load", ("linear", address >> PAGE_SHIFT), False)
        data: bytes = yield from self._access(lambda: self._lp.load(address, size))
        return data

    def store(self, address: int, data: bytes) -> Steps[None]:
        """Write memory as a store instruction does; SignalRaised if it faults for good."""
        yield ("store", ("linear", address >> PAGE_SHIFT), True)
        yield from self._access(lambda: self._lp.store(address, data))

    # The memory of another process, as a debugger sees it

    def peek(self, tracee: Process, address: int) -> Steps[int]:
        """PTRACE_PEEKDATA: a word of 8 bytes, or -EIO."""
        return (yield from ptrace.ptrace_peekdata(self.thread, tracee, address))

    def poke(self, tracee: Process, address: int, word: int) -> Steps[int]:
        """PTRACE_POKEDATA: 0, or -EIO."""
        return (yield from ptrace.ptrace_pokedata(self.thread, tracee, address, word))

    def mem_read(self, process: Process, address: int, size: int) -> Steps[bytes | int]:
        """pread(2) of /proc/<pid>/mem: the bytes that could be read, or -EIO."""
        buf = bytearray(size)
        ret = yield from ptrace.mem_rw(self.thread, process, address, memoryview(buf), False)
        return ret if ret < 0 else bytes(buf[:ret])

    def mem_write(self, process: Process, address: int, data: bytes) -> Steps[int]:
        """pwrite(2) of /proc/<pid>/mem: how many bytes were written, or -EIO."""
        view = memoryview(bytearray(data))
        return (yield from ptrace.mem_rw(self.thread, process, address, view, True))

    def process_vm_readv(self, process: Process, address: int, size: int) -> Steps[bytes | int]:
        """process_vm_readv(2): the bytes that could be read, or an errno."""
        return (yield from ptrace.process_vm_readv(self.thread, process, address, size))

    @property
    def _lp(self) -> LogicalProcessor:
        self.thread.run_user_code()
        lp = self.kernel.lp(self.thread)
        if lp.enclave_mode or lp.in_flight:
            raise occupied(self.thread)
        return lp

    def _access(self, action: Callable[[], Any]) -> Steps[Any]:
        while True:
            try:
                return action()
            except Fault as fault:
                delivered = self._lp.deliver_fault(fault)
                found = yield from user_exception(self.thread, delivered)
                if found is not None:
                    trace_signal(self.thread, found)
                    raise SignalRaised(found) from fault

    # Enclaves

    def enter(
        self,
        entry: EnclaveEntry,
        run: SgxEnclaveRun,
        function: int = leaves.EENTER,
        *,
        args: Any = None,
        handler: UserHandler | None = None,
    ) -> Steps[int]:
        """__vdso_sgx_enter_enclave. Fills in `run`; run.function tells how it was left."""
        entry.args = args
        try:
            return (yield from sgx_enter_enclave(self.thread, function, run, entry.enter, handler))
        except GeneratorExit:
            # The task is unwound. Its enclave code is no part of the task: what that holds is
            # released now, not when the garbage collector gets to it.
            entry.abandon(run.tcs)
            raise


class EnclaveEntry:
    """The code of an enclave, and the programs suspended on its threads.

    `program` runs at every EENTER; `secinfo` gives the operand slot of a TCS. Programs nest: after
    an exception the host may enter again at CSSA = 1, then resume the interrupted one. `result` is
    what the last program that left by EEXIT returned.
    """

    def __init__(
        self,
        program: EnclaveProgram,
        secinfo: Callable[[int], int],
        thread_type: type[EnclaveThread] = EnclaveThread,
    ) -> None:
        self.program = program
        self.secinfo = secinfo
        self.thread_type = thread_type
        self.args: Any = None
        self.result: Any = None
        self.stacks: dict[int, list[tuple[EnclaveThread, Steps[Any]]]] = {}
        # By TCS: the call out that the host must execute, and its answer for the next EENTER.
        self.requests: dict[int, Ocall] = {}
        self._answers: dict[int, Any] = {}

    def enter(self, current: Thread, leaf: int, tcs: int) -> Steps[Exit]:
        """Execute ENCLU[EENTER or ERESUME], then the program until it leaves or is suspended."""
        lp = current.kernel.lp(current)
        if lp.enclave_mode or lp.in_flight:
            raise occupied(current)
        while True:
            current.run_user_code()
            try:
                yield from lp.enclu_steps(leaf, tcs, VDSO_ENCLU, lp.regs[RDX])  # as the vDSO has it
                break
            except Fault as fault:
                delivered = lp.deliver_fault(fault)
                signal = yield from user_exception(current, delivered)
                if signal is not None:
                    return Exit(leaf, delivered.vector, signal.error_code, delivered.cr2)
        stack = self.stacks.setdefault(tcs, [])
        answer = None
        if leaf == leaves.EENTER and tcs in self._answers:
            answer = self._answers.pop(tcs)
            stack[-1][0].run_on(current)
        elif leaf == leaves.EENTER:
            thread = self.thread_type(current, tcs, lp.regs[0], self.secinfo(tcs), self.args)
            stack.append((thread, thread.run(self.program)))
        else:
            stack[-1][0].run_on(current)
        return (yield from self._go_on(tcs, stack, answer))

    def abandon(self, tcs: int) -> None:
        """Forget the programs suspended on a TCS; what they hold is released."""
        while stack := self.stacks.get(tcs, []):
            stack.pop()[1].close()

    def serve(self, host: HostThread, tcs: int) -> Steps[bool]:
        """Run the function that the enclave called out for, to enter again with its answer.

        False if the enclave did not call out.
        """
        request = self.requests.pop(tcs, None)
        if request is None:
            return False
        self._answers[tcs] = yield from request.function(host, *request.args)
        return True

    def _go_on(
        self, tcs: int, stack: list[tuple[EnclaveThread, Steps[Any]]], answer: Any
    ) -> Steps[Exit]:
        """Drive the topmost program; `answer` is what its call out returned."""
        thread, body = stack[-1]
        me: Any = answer
        while True:
            try:
                point = body.send(me)
            except StopIteration as stop:
                self.result = thread.result = stop.value
                stack.pop()
                return Exit(leaves.EEXIT)
            if isinstance(point, Suspended):
                if point.exit.vector not in FIXED_UP:
                    trace_signal(thread.current, point.signal)
                    raise SignalRaised(point.signal)
                return point.exit
            if isinstance(point, Ocall):
                self.requests[tcs] = point
                return Exit(leaves.EEXIT)
            me = yield point

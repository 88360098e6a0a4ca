"""Tries what the supervisor that does not trace needs from the kernel, with the calls it makes.

A child puts itself under a filter and makes calls. One of them the filter turns into a signal,
which a handler in the child answers; the others wait until they are answered from here.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct

# The module `socket` would take 3 ms to import, at every start of a run.
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    SCM_RIGHTS,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from softsgx.runner.doctor.attempts import ANSWER, FAILED
from softsgx.runner.host import bpf, nr, probes
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    AUDIT_ARCH_X86_64,
    SA_RESTORER,
    SA_SIGINFO,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
)
from softsgx.runner.host.filters import install
from softsgx.runner.host.native_code import RESTORER, MachineCode
from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.host.probes import Child, Refused, ended

_TRAPPED: Final = nr.TIMES
_HELD: Final = nr.GETTID
_EXE: Final = "/proc/self/exe"
_SHOWN: Final = "/dev/null"
_MEMORY: Final = b"untraced"
# A handler with SA_SIGINFO: RAX and the mask of struct ucontext. mov qword [rdx+90h], 4242;
# or qword [rdx+128h], the bit of SIGUSR1; ret
_HANDLER: Final = bytes.fromhex("48c7829000000092100000 48818a2801000000020000 c3")

_libc: Final = ctypes.PyDLL(None, use_errno=True)


class Step(NamedTuple):
    """One call of the child: `ask` makes it there and returns whether the answer was right.

    `answer` answers it from here; without it the filter turns the call into a signal.
    """

    ask: Callable[[], bool]
    wrong: str
    answer: Callable[[Listener, Notification, Child], None] | None = None


def _filter() -> bytes:
    """Trap one call, hold two."""
    program = bpf.Program()
    program.load(bpf.ARCH)
    program.equal(AUDIT_ARCH_X86_64, no="allow")
    program.load(bpf.NR)
    program.equal(_TRAPPED, yes="trap")
    program.equal(_HELD, yes="hold")
    program.equal(nr.EXECVE, yes="hold")
    program.label("allow")
    program.ret(SECCOMP_RET_ALLOW)
    program.label("trap")
    program.ret(SECCOMP_RET_TRAP)
    program.label("hold")
    program.ret(SECCOMP_RET_USER_NOTIF)
    return program.assemble()


def _ask_handler() -> bool:
    """The handler's number is the result of the call, and the mask is as it left it."""
    code = MachineCode(_HANDLER + RESTORER, None)
    at = ctypes.cast(code.call, ctypes.c_void_p).value or 0
    flags = SA_SIGINFO | SA_RESTORER
    action = struct.pack("<QQQQ", at, flags, at + len(_HANDLER), 0)
    _libc.syscall(nr.RT_SIGACTION, signal.SIGSYS, action, None, 8)
    answered = _libc.syscall(_TRAPPED, None) == ANSWER
    return answered and signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _ask_kernel() -> bool:
    memory = ctypes.create_string_buffer(_MEMORY)
    return bool(_libc.syscall(_HELD, memory) == os.getpid())


def _answer_go_on(listener: Listener, held: Notification, child: Child) -> None:
    """Look at the memory of the caller, which nobody traces, and let the kernel go on."""
    if held.tid != child.pid:
        raise Refused(f"the caller is shown as {held.tid}, not {child.pid}")
    if p.read_memory(held.tid, held.args[0], len(_MEMORY)) != _MEMORY:
        raise Refused("the memory of a caller cannot be read")
    listener.go_on(held)


def _ask_descriptor() -> bool:
    fd = _libc.syscall(_HELD, None)
    try:
        return os.path.samestat(os.fstat(fd), os.stat(_SHOWN))
    except OSError:
        return False


def _answer_descriptor(listener: Listener, held: Notification, child: Child) -> None:
    fd = os.open(_SHOWN, os.O_RDWR | os.O_CLOEXEC)
    try:
        listener.answer_fd(held, fd)
    finally:
        os.close(fd)


def _ask_exec() -> bool:
    try:
        os.execve(_EXE, ["softsgx-doctor"], {})
    except OSError:
        return False


def _answer_exec(listener: Listener, held: Notification, child: Child) -> None:
    """Seize the caller while it waits; stop it when it has executed; let go of it.

    PTRACE_INTERRUPT is for a call that fails, which makes no event.
    """
    p.request(p.PTRACE_SEIZE, child.pid, 0, p.PTRACE_O_TRACEEXEC)
    listener.go_on(held)
    p.request(p.PTRACE_INTERRUPT, child.pid)
    _stopped_by(child, signal.SIGTRAP | p.EVENT_EXEC << 8)
    p.request(p.PTRACE_SYSCALL, child.pid)
    _stopped_by(child, signal.SIGTRAP)
    p.set_regs(child.pid, p.get_regs(child.pid))
    p.request(p.PTRACE_DETACH, child.pid)


def _stopped_by(child: Child, what: int) -> None:
    status = child.wait()
    if not os.WIFSTOPPED(status) or status >> 8 != what:
        raise Refused(f"after execve a caller that was seized has status {status:#x}")


_TRAP: Final = Step(_ask_handler, "what a handler of SIGSYS wrote into its frame is lost")
_GO_ON: Final = Step(_ask_kernel, "the call that waited has another result", _answer_go_on)
_ADD_FD: Final = Step(_ask_descriptor, "the descriptor is not in the process", _answer_descriptor)
_EXEC: Final = Step(_ask_exec, f"{_EXE} cannot be executed", _answer_exec)


def _converse(*steps: Step) -> None:
    """Have a child under a filter make these calls, and answer those that wait."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER if any(step.answer for step in steps) else 0

    def body() -> int:
        try:
            listener = install(_filter(), by_prctl=False, flags=flags)
        except OSError as error:
            return error.errno or 255
        if flags:
            number = struct.pack("i", listener)
            theirs.sendmsg([b"l"], [(SOL_SOCKET, SCM_RIGHTS, number)])
            os.close(listener)
        wrong = (at for at, step in enumerate(steps) if not step.ask())
        return next((FAILED + at for at in wrong), 0)

    with closing(ours), Child(body) as child:
        theirs.close()
        if _answer(steps, ours, child):
            return
        status = child.wait()
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    if 0 < code < FAILED:
        raise Refused(f"installing a filter: {os.strerror(code)}")
    if code in range(FAILED, FAILED + len(steps)):
        raise Refused(steps[code - FAILED].wrong)
    if status:
        raise Refused(ended(status))


def _answer(steps: Sequence[Step], ours: socket, child: Child) -> bool:
    """Answer the calls that wait. False: the child has ended by itself, or is about to.

    The other end of `ours` is open in the child alone, so that its end can be seen.
    """
    ours.settimeout(probes.WAIT_S)
    _, rights, *_ = ours.recvmsg(1, CMSG_SPACE(4))
    if not rights:
        return False
    listener = Listener(struct.unpack("i", rights[0][2])[0])
    try:
        for step in steps:
            if step.answer is None:
                continue
            if not _called(listener, ours):
                return False
            step.answer(listener, listener.receive(), child)
    finally:
        listener.close()
    return any(step.ask is _ask_exec for step in steps)


def _called(listener: Listener, ours: socket) -> bool:
    """Whether a call waits; False if there is nobody any more who could make one."""
    poll = select.poll()
    poll.register(listener.fd, select.POLLIN)
    poll.register(ours, select.POLLIN)
    ready = dict(poll.poll(probes.WAIT_S * 1000))
    if not ready:
        raise Refused("a call that a filter should hold does not arrive at its listener")
    return bool(ready.get(listener.fd, 0) & select.POLLIN)


def _end(child: Child) -> None:
    """Kill a child; its pidfd says that it has ended."""
    fd = os.pidfd_open(child.pid)
    try:
        os.kill(child.pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(probes.WAIT_S * 1000):
            raise Refused("a pidfd does not tell that its process has ended")
    finally:
        os.close(fd)


def _answer_last(listener: Listener, held: Notification, child: Child) -> None:
    _answer_exec(listener, held, child)
    _end(child)


def try_trap() -> None:
    """A filter turns a system call into a signal, whose handler answers it."""
    _converse(_TRAP)


def try_listener() -> None:
    """A filter has a system call wait until another process lets the kernel execute it."""
    _converse(_GO_ON)


def try_add_descriptor() -> None:
    """Another process answers a system call with a descriptor."""
    _converse(_ADD_FD)


def try_exec() -> None:
    """Another process seizes a thread that waits at execve, and stops it after that."""
    _converse(_EXEC)


def try_pidfd() -> None:
    """The end of a process is seen by poll(2)."""
    with Child(_paused) as child:
        _end(child)


def _paused() -> int:
    signal.pause()
    return 0


def try_all() -> None:
    """All of the above, and WRGSBASE, with one child: what a run can afford when it starts."""
    probes.try_fsgsbase()
    _converse(_TRAP, _GO_ON, _ADD_FD, _EXEC._replace(answer=_answer_last))

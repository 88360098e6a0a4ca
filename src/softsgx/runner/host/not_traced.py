"""Threads that nobody traces, and what answers for them the requests of `host.ptrace`."""

from __future__ import annotations

from typing import Final, Protocol


class Held(Protocol):
    """A thread that is not traced: what answers the requests about it.

    Each method is as the function of that name. If the thread is not stopped, they raise
    NoSuchTracee, except for `wait` and the request PTRACE_INTERRUPT.
    """

    def request(self, what: int, data: int) -> int: ...
    def wait(self) -> int: ...
    def get_regs(self) -> list[int]: ...
    def set_regs(self, regs: list[int]) -> None: ...
    def get_fpregs(self) -> bytes: ...
    def set_fpregs(self, image: bytes) -> None: ...
    def get_xstate(self) -> bytearray: ...
    def set_xstate(self, image: bytearray) -> None: ...
    def get_siginfo(self) -> bytes: ...
    def set_siginfo(self, info: bytes) -> None: ...
    def get_sigmask(self) -> int: ...
    def set_sigmask(self, mask: int) -> None: ...
    def at_seccomp_stop(self) -> bool: ...
    def call(self, number: int, args: tuple[int, ...]) -> int:
        """Make a system call in the thread, and return its result."""

    def action(self, number: int) -> bytes | None:
        """The struct sigaction of a signal that is handled in place of the program, or None."""

    def set_action(self, number: int, action: bytes) -> None:
        """Set it."""

    def by_syscall(self) -> bool:
        """Whether the call at whose stop it is was made by SYSCALL, not by `int 0x80`."""

    def send(self, number: int, info: bytes) -> bool:
        """Have a stopped thread get a signal once it is continued; False: it must be queued."""

    def set_frame(self, error: int, mask: int, vector: int | None, cr2: int | None) -> None:
        """Set the bits of ERR in `mask`, TRAPNO and CR2 of the signal that it gets next."""

    def blocks_or_ignores(self, number: int) -> bool:
        """Whether the program blocks or ignores a signal that is handled in its place."""

    def untold(self) -> bool:
        """Whether the last signal that its process took by default was not continued with."""

    def senseless(self) -> ProcessLookupError:
        """Kill its process, which does not do what the stub does; what a request then raises."""

    def stopped(self) -> bool:
        """Whether it is stopped, or will report without having executed anything more."""

    def native_slot(self, address: int) -> None:
        """Tell it where its slot of the native engine is."""

    def confine(self, passes: bytes) -> None:
        """Have its process ask before it answers calls, but those whose bit is set here."""

    def serve(self) -> bool:
        """Let its own code answer the call at whose stop it is; False: it does not do that."""

    def runs_inside(self, inside: bool) -> None:
        """Tell it whether the thread executes enclave code: then every signal is a stop."""

    def masks(self, blocked: int, ignored: int, caught: int) -> tuple[int, int, int]:
        """What the program believes to be blocked, ignored and caught, from the kernel's masks."""


HELD: Final[dict[int, Held]] = {}
"""The threads that are not traced, by tid."""

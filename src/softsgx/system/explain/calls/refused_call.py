"""A refused call: what it asked for, and the rule that refused it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from softsgx.events import kernel as k
from softsgx.linux.errno import EINTR, ERESTARTSYS
from softsgx.linux.kernel import Kernel
from softsgx.report.fields import errno_or_value
from softsgx.system.explain.history import Context, History


@dataclass
class RefusedCall:
    """`event` ends the call, `context` has its arguments, `refusal` the kernel's rule."""

    history: History
    event: k.CallEnded
    context: Context
    refusal: k.CallRefused

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.history.kernel

    @cached_property
    def fields(self) -> dict[str, int]:
        """What the kernel looked at, by name."""
        return dict(self.refusal.fields)

    @cached_property
    def arguments(self) -> dict[str, int]:
        """The arguments of the call, or the argument block of the ioctl."""
        return dict(self.context.fields)

    @property
    def errno(self) -> str:
        """What the program sees: EINTR for -ERESTARTSYS, if its handler does not restart."""
        result = self.event.result
        return errno_or_value(-EINTR if result == -ERESTARTSYS else result)

    def to_succeed(self, way: str) -> str:
        """Advice, as a line of an explanation."""
        name = self.event.name
        ioctl = name.startswith(("SGX_IOC_", "ioctl "))
        return f"for {'the ioctl' if ioctl else name} to succeed: {way}"

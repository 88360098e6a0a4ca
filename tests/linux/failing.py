"""Making things fail: leaves in the driver, and the named sites of the kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.linux.process import Thread
from softsgx.linux.sgx.encls import encls as real
from softsgx.sim import Steps

GP, PF = 0x4000000D, 0x4000000E
_USERS = ("edmm", "encl", "ioctl", "main")


def failing(patch: pytest.MonkeyPatch, leaf: int, answers: dict[int, int]) -> None:
    """The leaf ends as `answers` says at its n-th use (from 1) in the driver, without executing."""
    uses = 0

    def encls(current: Thread, number: int, *operands: int) -> Steps[int]:
        nonlocal uses
        uses += number == leaf
        if number == leaf and uses in answers:
            return answers[uses]
        return (yield from real(current, number, *operands))

    for user in _USERS:
        patch.setattr(f"softsgx.linux.sgx.{user}.encls", encls)


def nth(
    site: str, number: int = 1, then: Callable[[], None] | None = None
) -> Callable[[str], bool]:
    """For `Kernel.inject`: the site fails at its n-th use only, after doing `then`."""
    left = number

    def inject(at: str) -> bool:
        nonlocal left
        left -= at == site
        if at != site or left:
            return False
        if then is not None:
            then()
        return True

    return inject

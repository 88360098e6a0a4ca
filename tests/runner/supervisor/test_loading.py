"""Preparing a process: finding the vDSO in its auxiliary vector."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner.cpuid.cpuid import CpuidPolicy, part_for
from softsgx.runner.errors import LoadError
from softsgx.runner.host import ptrace
from softsgx.runner.host.abi import AT_SYSINFO_EHDR
from softsgx.runner.supervisor.loading import Loader

TOP = 0x7FFF_0000_0000
VDSO = 0x7FFF_1234_5000


def stack(strings: int, *vector: int) -> bytes:
    """argc, argv, environment, and the vector, closed."""
    words = [1, 0x1000, 0, *[0x2000] * strings, 0, *vector, 0, 0]
    return struct.pack(f"<{len(words)}Q", *words)


def find(monkeypatch: pytest.MonkeyPatch, image: bytes, rsp: int) -> tuple[int, int]:
    def read(_tid: int, address: int, size: int) -> bytes | None:
        at = address - rsp
        return (image + bytes(8192))[at : at + size]

    monkeypatch.setattr(ptrace, "read_memory", read)
    loader = Loader(CpuidPolicy(part_for("unicorn", False), (), "unicorn", None))
    tracee: Any = SimpleNamespace(tid=1)
    return loader._find_vdso(tracee, rsp)


@pytest.mark.parametrize("words_before_the_end", range(1, 14))
def test_the_vector_may_lie_across_a_page_boundary(
    monkeypatch: pytest.MonkeyPatch, words_before_the_end: int
) -> None:
    """The story: an entry across a page boundary was an error, in one start of some hundred, as the
    kernel chooses the stack pointer at random."""
    rsp = TOP + 4096 - 8 * words_before_the_end
    image = stack(2, 6, 4096, 16, 0x1234, AT_SYSINFO_EHDR, VDSO)
    assert find(monkeypatch, image, rsp) == (VDSO, rsp + 8 * (6 + 4))


def test_a_kernel_without_vdso(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError, match="this kernel gives it no vDSO"):
        find(monkeypatch, stack(1, 6, 4096), TOP)
